"""Cells that hold an observation: on clocks of their own, with masks and padding, and as layers."""

import copy
import math

import pytest
import torch

from ctdyn import cells, fields, solvers, wirings
from ctdyn._config import from_config, to_config
from ctdyn.cells import CfCCell, LTCCell
from ctdyn.cells._ltc_loop import LTCLoop
from ctdyn.data import IrregularBatch
from ctdyn.encoders import ODERNNEncoder
from ctdyn.fields import CfCMode
from ctdyn.fields._scan import run_loop
from ctdyn.nn import LowRankSparse
from ctdyn.solvers import ETDRK2, RK4, ExponentialMidpoint, FusedEuler
from ctdyn.wirings import AutoNCP


F64 = torch.float64
CELLS = {
    "cfc": lambda: CfCCell(2, 5, hidden=(7,)),
    "cfc pure": lambda: CfCCell(2, 5, mode=CfCMode.PURE, hidden=(7, 7)),
    "cfc wired": lambda: CfCCell(2, AutoNCP(8, 2)),
    "cfc mixed": lambda: CfCCell(2, 5, hidden=(), mixed_memory=True),
    "ltc": lambda: LTCCell(2, 5),
    "ltc solved": lambda: LTCCell(2, 5, solver=ETDRK2(), num_steps=2),
    "ltc fused": lambda: LTCCell(2, AutoNCP(8, 2), solver=FusedEuler(), num_steps=6),
    "ltc mixed": lambda: LTCCell(2, 5, mixed_memory=True),
}


def built(name, seed=0):
    torch.manual_seed(seed)
    return CELLS[name]().double()


def series(count, length=9, seed=0):
    """Values, timespans with zeros among them, and a mask with rows without any observation."""
    rng = torch.Generator().manual_seed(seed)
    xs = torch.randn(count, length, 2, generator=rng, dtype=F64)
    spans = torch.rand(count, length, generator=rng, dtype=F64) * 2.0
    spans[:, 3] = 0.0
    mask = torch.rand(count, length, 2, generator=rng) < 0.7
    mask[:, 4] = False
    mask[:, -1] = True
    return xs, spans, mask


@pytest.mark.parametrize("name", CELLS)
def test_timespans_of_a_batch_are_those_of_its_series(name):
    """Also where there are as many series as units, which ncps takes for one another."""
    cell = built(name)
    for count in (3, cell.units):
        xs, spans, mask = series(count)
        outputs, h = cell(xs, timespans=spans, mask=mask)
        for i in range(count):
            alone, h_alone = cell(xs[i], timespans=spans[i], mask=mask[i])
            torch.testing.assert_close(outputs[i], alone, rtol=0, atol=1e-12)
            torch.testing.assert_close(h[i], h_alone, rtol=0, atol=1e-12)
        torch.testing.assert_close(cell(xs, timespans=spans[..., None], mask=mask)[0], outputs, rtol=0, atol=0)
        moved = cell(xs, timespans=spans.flip(0), mask=mask)[0]
        assert (moved - outputs).abs().max() > 1e-3


@pytest.mark.parametrize("name", CELLS)
def test_a_layer_is_its_updates_and_evolutions_one_by_one(name):
    cell = built(name)
    xs, spans, mask = series(3)
    outputs, last = cell(xs, timespans=spans, mask=mask)
    h = torch.zeros(3, cell.hidden_size, dtype=F64)
    for k in range(xs.shape[1]):
        h = cell.evolve(cell.update(h, xs[:, k], mask[:, k]), torch.zeros(3, dtype=F64), spans[:, k])
        torch.testing.assert_close(outputs[:, k], cell.outputs(h), rtol=0, atol=1e-12)
    torch.testing.assert_close(last, h, rtol=0, atol=1e-12)
    # A series may be read in two pieces.
    first, between = cell(xs[:, :4], timespans=spans[:, :4], mask=mask[:, :4] | (torch.arange(4) == 3)[:, None])
    second, _ = cell(xs[:, 4:], between, timespans=spans[:, 4:], mask=mask[:, 4:])
    whole, _ = cell(xs, timespans=spans, mask=mask | (torch.arange(9) == 3)[:, None])
    torch.testing.assert_close(torch.cat([first, second], 1), whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", CELLS)
def test_junk_behind_a_series_and_under_its_mask_changes_nothing(name):
    cell = built(name)
    xs, spans, mask = series(3)
    outputs, h = cell(xs, timespans=spans, mask=mask)
    junk = torch.full((3, 4, 2), 1e6, dtype=F64)
    longer = torch.cat([torch.where(mask, xs, math.nan), junk], 1)
    observed = torch.cat([mask, torch.zeros(3, 4, 2, dtype=torch.bool)], 1)
    found, last = cell(longer, timespans=torch.cat([spans, junk[..., 0]], 1), mask=observed)
    torch.testing.assert_close(found[:, :9], outputs, rtol=0, atol=1e-12)
    torch.testing.assert_close(last, h, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", CELLS)
def test_no_time_is_an_identity_and_nothing_is_nan(name):
    cell = built(name)
    xs, spans, mask = series(3)
    leaves = [xs.requires_grad_(), spans.requires_grad_(), *cell.parameters()]
    outputs, h = cell(xs, timespans=torch.where(spans > 1.0, spans, 0.0), mask=mask)
    gradients = torch.autograd.grad(outputs.square().sum() + h.square().sum(), leaves, allow_unused=True)
    assert all(g is None or bool(g.isfinite().all()) for g in (outputs, h, *gradients))
    start = torch.randn(3, cell.hidden_size, dtype=F64)
    outputs, h = cell(xs.detach(), start, timespans=0.0)
    if cell.memory is None:
        assert torch.equal(h[:, : cell.units], start[:, : cell.units])


@pytest.mark.parametrize("name", CELLS)
def test_no_series_at_all_give_no_states(name):
    cell = built(name)
    outputs, h = cell(series(1)[0][:0])
    assert outputs.shape == (0, 9, cell.motor_size)
    assert h.shape == (0, cell.hidden_size)
    torch.testing.assert_close(cell.evolve(h, torch.zeros(0), torch.ones(0)), h)


@pytest.mark.parametrize("name", sorted(set(CELLS) - {"ltc solved"}))
def test_parameters_from_outside_are_used_one_set_or_many(name):
    cell, other = built(name), built(name, seed=1)
    xs, spans, mask = series(3)
    call = {"timespans": spans, "mask": mask}
    found = torch.func.functional_call(cell, dict(other.named_parameters()), (xs,), call)[0]
    torch.testing.assert_close(found, other(xs, **call)[0])
    parameters, buffers = torch.func.stack_module_state([cell, other])
    ts = torch.nn.functional.pad(spans.cumsum(-1), (1, 0))[:, :-1]
    h = torch.zeros(3, cell.hidden_size, dtype=F64)

    class Scan(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = copy.deepcopy(cell)

        def forward(self):
            return self.cell.scan(h, ts, xs, mask)[0]

    def run(p, b):
        named = {f"cell.{key}": value for key, value in {**p, **b}.items()}
        return torch.func.functional_call(Scan(), named, ())

    both = torch.func.vmap(run)(parameters, buffers)
    expected = torch.stack([one.scan(h, ts, xs, mask)[0] for one in (cell, other)])
    torch.testing.assert_close(both, expected)
    assert (both[0] - both[1]).abs().max() > 1e-3


@pytest.mark.parametrize("name", CELLS)
def test_configurations_come_back(name):
    classes = {
        **{key: getattr(part, key) for part in (cells, fields, solvers, wirings) for key in part.__all__},
        "LowRankSparse": LowRankSparse,
    }
    cell = built(name)
    again = from_config(to_config(cell), classes).double()
    again.load_state_dict(cell.state_dict())
    xs, spans, mask = series(3)
    assert torch.equal(again(xs, timespans=spans, mask=mask)[0], cell(xs, timespans=spans, mask=mask)[0])


def test_one_wiring_makes_equal_cells():
    wiring = AutoNCP(16, 4)
    first, second = LTCCell(4, wiring), LTCCell(4, wiring)
    assert torch.equal(first.field.synapses.there, second.field.synapses.there)
    assert int(first.field.synapses.there.sum()) == wiring.connect(8).num_synapses


def test_a_missing_channel_keeps_its_value_and_the_mask_is_seen():
    cell = built("cfc")
    h = cell.update(torch.zeros(1, 9, dtype=F64), torch.tensor([[1.0, 2.0]], dtype=F64), torch.tensor([[True, True]]))
    h = cell.update(h, torch.tensor([[3.0, 9.0]], dtype=F64), torch.tensor([[True, False]]))
    assert h[0, 5:].tolist() == [3.0, 2.0, 1.0, 0.0]
    assert cell.read(h).shape == (1, cell.read_size)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("count", [1, 3])
def test_the_compiled_steps_of_an_ltc_are_the_plain_ones(fused, count):
    torch.manual_seed(0)
    size = (4, 3, 5)
    tensors = [
        2.0 + torch.rand(size, dtype=F64),
        torch.randn(size, dtype=F64),
        torch.rand(4, 3, dtype=F64),
        torch.randn(3, 5, dtype=F64),
        3.0 + 5.0 * torch.rand(5, 5, dtype=F64),
        *(torch.rand(3, 5, 5, dtype=F64)),
    ]
    tensors[2][1, 2] = 0.0
    tensors = [x.clone().requires_grad_() for x in tensors]
    loop = LTCLoop(count, fused)
    found, expected = run_loop(loop, *tensors), loop.plain(*tensors)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)
    weights = torch.randn_like(found)
    pairs = (torch.autograd.grad((ys * weights).sum(), tensors) for ys in (found, expected))
    for ours, plain in zip(*pairs, strict=True):
        torch.testing.assert_close(ours, plain, rtol=0, atol=1e-12)


def test_the_semigroup_defect_of_an_ltc_falls_with_the_square_of_the_step():
    h = torch.randn(6, 9, dtype=F64)
    t = torch.tensor([0.0, 0.2, 0.5], dtype=F64)[:, None].expand(3, 6)

    def defect(steps):
        torch.manual_seed(0)
        cell = LTCCell(2, 5, num_steps=steps).double()
        return float((cell.evolve(cell.evolve(h, t[0], t[1]), t[1], t[2]) - cell.evolve(h, t[0], t[2])).norm().detach())

    assert 3.3 < defect(8) / defect(16) < 4.7


def test_steps_by_any_solver_agree_when_they_are_small():
    xs, spans, _ = series(3)
    found = []
    for solver, steps in ((RK4(), 24), (ExponentialMidpoint(), 64)):
        torch.manual_seed(0)
        found.append(LTCCell(2, 5, solver=solver, num_steps=steps).double()(xs, timespans=spans)[0])
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=5e-4)


@pytest.mark.parametrize("name", ["cfc", "cfc mixed", "ltc"])
def test_any_latent_model_can_read_with_a_cell(name):
    cell = built(name)
    encoder = ODERNNEncoder(2, 3, cell=cell).double()
    xs, spans, mask = series(3)
    batch = IrregularBatch(spans.cumsum(-1), torch.where(mask, xs, 0.0), mask)
    assert encoder(batch).q0.mean.shape == (3, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda cell: cell(torch.zeros(3, 5, 3)), "2 channels and at least one time; got .3, 5, 3."),
        (lambda cell: cell(torch.full((3, 5, 2), math.nan)), "NaN or infinite.*mask=~xs.isnan"),
        (lambda cell: cell(torch.zeros(3, 5, 2), timespans=torch.ones(3)), "timespans must be a number"),
        (lambda cell: cell(torch.zeros(3, 5, 2), timespans=-1.0), "timespans must be finite and not negative"),
        (lambda cell: cell(torch.zeros(3, 5, 2), mask=torch.ones(3, 5)), "mask must be boolean"),
        (lambda cell: cell(torch.zeros(3, 5, 2), inputs=torch.zeros(3, 5, 1)), "input_size=0; got 1 inputs"),
        (lambda cell: CfCCell(2, AutoNCP(7, 2), hidden=(3,)), "hidden is for units that are not wired"),
        (lambda cell: CfCCell(2, AutoNCP(7, 2), dropout=0.1), "dropout is for units that are not wired"),
        (lambda cell: LTCCell(2, 3, num_steps=0), "num_steps must be at least 1"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(CfCCell(2, 5))
