"""Weights of ncps in our cells give its outputs; `ncps.npz` holds some, written by ncps 1.0.1 (run this file to)."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ctdyn.cells import CfCCell, LTCCell, load_ncps
from ctdyn.fields import CfCMode
from ctdyn.solvers import FusedEuler
from ctdyn.wirings import AutoNCP, FullyConnected, Random


F64 = torch.float64
FILE = Path(__file__).with_name("ncps.npz")
CHANNELS, SPAN = 3, 0.37
FUSED = {"solver": FusedEuler(), "num_steps": 6, "reads_mask": False}
CELLS = {
    "cfc": lambda: CfCCell(3, 4, hidden=(5, 5), reads_mask=False),
    "cfc no_gate": lambda: CfCCell(3, 4, hidden=(5,), mode=CfCMode.NO_GATE, reads_mask=False),
    "cfc pure": lambda: CfCCell(3, 4, hidden=(5,), mode=CfCMode.PURE, reads_mask=False),
    "cfc mixed": lambda: CfCCell(3, 4, hidden=(5,), mixed_memory=True, reads_mask=False),
    "cfc wired": lambda: CfCCell(3, AutoNCP(7, 2), reads_mask=False),
    "cfc wired pure": lambda: CfCCell(3, AutoNCP(7, 2), mode=CfCMode.PURE, reads_mask=False),
    "cfc wired mixed": lambda: CfCCell(3, Random(5, 2, 0.4), mixed_memory=True, reads_mask=False),
    "ltc": lambda: LTCCell(3, 4, **FUSED),
    "ltc mixed": lambda: LTCCell(3, 4, mixed_memory=True, **FUSED),
    "ltc wired": lambda: LTCCell(3, AutoNCP(7, 2), **FUSED),
    "ltc explicit": lambda: LTCCell(3, FullyConnected(4, 2), **FUSED),
}


def upstream(name):
    """The same in ncps."""
    torch_, wirings = pytest.importorskip("ncps.torch"), pytest.importorskip("ncps.wirings")
    backbone = {"backbone_units": 5, "backbone_layers": 2 if name == "cfc" else 1}
    mode = {"cfc no_gate": "no_gate", "cfc pure": "pure", "cfc wired pure": "pure"}.get(name, "default")
    mixed = "mixed" in name
    wiring = wirings.Random(5, 2, 0.4) if name == "cfc wired mixed" else wirings.AutoNCP(7, 2)
    if name.startswith("cfc wired"):
        return torch_.CfC(3, wiring, mode=mode, mixed_memory=mixed)
    if name.startswith("cfc"):
        return torch_.CfC(3, 4, mode=mode, mixed_memory=mixed, proj_size=2 if name == "cfc" else None, **backbone)
    units = {"ltc wired": wiring, "ltc explicit": wirings.FullyConnected(4, 2)}.get(name, 4)
    return torch_.LTC(3, units, mixed_memory=mixed, implicit_param_constraints=name != "ltc explicit")


def ours(name, state, xs, spans):
    """A cell with these weights on these values."""
    cell, projection = CELLS[name](), nn.Linear(4, 2) if name == "cfc" else None
    load_ncps(cell, state, projection=projection, implicit=name != "ltc explicit")
    outputs, _ = cell.to(xs.dtype)(xs, timespans=spans)
    return (outputs if projection is None else projection.to(xs.dtype)(outputs)).detach()


def test_outputs_are_those_that_ncps_wrote():
    with np.load(FILE) as stored:
        arrays = {key: torch.from_numpy(stored[key]) for key in stored.files}
    for name in CELLS:
        start = f"{name}/state/"
        state = {key.removeprefix(start): value for key, value in arrays.items() if key.startswith(start)}
        found = ours(name, state, arrays["xs"], SPAN)
        torch.testing.assert_close(found, arrays[f"{name}/outputs"], rtol=0, atol=1e-6)
        # The values are small, and weights that were not read would be seen.
        assert (ours(name, state, arrays["xs"], 2 * SPAN) - found).abs().max() > 1e-3, name


@pytest.mark.parametrize("name", CELLS)
def test_outputs_are_those_of_ncps(name):
    torch.manual_seed(1)
    theirs, xs = upstream(name), torch.randn(6, 40, CHANNELS)
    for one in theirs.parameters():
        # Input and output maps begin as identities.
        if one.requires_grad and one.dim() == 1 and "ltc" in name:
            one.data.mul_(1.0 + 0.2 * torch.rand_like(one))
    with torch.no_grad():
        expected, _ = theirs(xs, timespans=torch.full((1, 40), SPAN))
    torch.testing.assert_close(ours(name, theirs.state_dict(), xs, SPAN), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["cfc", "ltc"])
def test_timespans_per_series_work_where_upstream_fails_or_is_wrong(name):
    """For 4 series and 4 units ncps takes the time of a series for that of a unit; for 3 and 4 it stops."""
    torch.manual_seed(0)
    theirs = upstream(name)
    for count in (3, 4):
        xs, spans = torch.randn(count, 10, CHANNELS), torch.rand(count, 10) + 0.1
        found = ours(name, theirs.state_dict(), xs, spans)
        with torch.no_grad():
            alone = [theirs(xs[i : i + 1], timespans=spans[i : i + 1])[0] for i in range(count)]
        torch.testing.assert_close(found, torch.cat(alone), rtol=0, atol=1e-6)
        if count == 3:
            with pytest.raises(RuntimeError):
                theirs(xs, timespans=spans)
        else:
            with torch.no_grad():
                assert (theirs(xs, timespans=spans)[0] - found).abs().max() > 1e-2


def test_a_span_of_zero_is_finite_where_upstream_is_not():
    theirs, xs = upstream("ltc"), torch.randn(2, 5, CHANNELS)
    spans = torch.tensor([0.5, 0.0, 0.3, 0.0, 1.0])
    assert theirs(xs, timespans=spans[None])[0].isnan().any()
    assert ours("ltc", theirs.state_dict(), xs, spans.expand(2, 5)).isfinite().all()


def test_padding_changes_nothing_where_upstream_reads_it():
    theirs, xs = upstream("cfc no_gate"), torch.randn(2, 5, CHANNELS)
    junk = torch.full((2, 3, CHANNELS), 10.0)
    longer, real = torch.cat([xs, junk], 1), torch.ones_like(xs, dtype=torch.bool)
    assert not torch.allclose(theirs(longer)[1], theirs(xs)[1])
    cell = CELLS["cfc no_gate"]()
    load_ncps(cell, theirs.state_dict())
    mask = torch.cat([real, torch.zeros_like(junk, dtype=torch.bool)], 1)
    torch.testing.assert_close(cell(longer, mask=mask)[1], cell(xs)[1])
    torch.testing.assert_close(cell(xs)[1][:, :4], theirs(xs)[1], rtol=0, atol=1e-6)


def test_functional_calls_change_outputs_where_upstream_ignores_them():
    theirs, xs = upstream("ltc"), torch.randn(2, 5, CHANNELS)
    zeros = {name: torch.zeros_like(value) for name, value in theirs.state_dict().items()}
    assert torch.equal(torch.func.functional_call(theirs, zeros, (xs,))[0], theirs(xs)[0])
    cell = CELLS["ltc"]()
    other = {name: torch.zeros_like(value) for name, value in cell.named_parameters()}
    assert not torch.equal(torch.func.functional_call(cell, other, (xs,))[0], cell(xs)[0])


def stored(name):
    start = f"{name}/state/"
    with np.load(FILE) as arrays:
        return {key.removeprefix(start): torch.from_numpy(arrays[key]) for key in arrays.files if key.startswith(start)}


@pytest.mark.parametrize(
    ("weights", "build", "message"),
    [
        ("ltc", CELLS["cfc wired"], "another architecture: this CfCCell needs 'layer_0.time_a.weight'"),
        ("cfc pure", CELLS["cfc no_gate"], "needs 'time_a.weight'"),
        ("cfc no_gate", CELLS["cfc pure"], "needs 'A'"),
        ("cfc no_gate", CELLS["ltc"], "this LTCCell needs 'cm'"),
        ("cfc mixed", CELLS["cfc no_gate"], "no place for 'lstm.*Build the cell with mixed_memory=True"),
        ("cfc no_gate", CELLS["cfc mixed"], "needs 'lstm.input_map.bias'"),
        ("cfc", CELLS["cfc"], "no place for 'fc.weight', 'fc.bias'. Pass projection="),
        ("cfc", CELLS["cfc no_gate"], "2 hidden layers, and this CfCCell has 1"),
        ("cfc no_gate", lambda: CfCCell(3, 5, hidden=(5,), reads_mask=False), "another size"),
        ("cfc wired", lambda: CfCCell(3, AutoNCP(7, 2, seed=5), reads_mask=False), "another wiring"),
        ("ltc wired", lambda: LTCCell(3, AutoNCP(7, 2, 0.1), reads_mask=False), "another wiring: .* synapses"),
        ("ltc wired", lambda: LTCCell(3, 7, reads_mask=False), "another wiring"),
        ("cfc no_gate", lambda: CfCCell(3, 4, hidden=(5,)), "ncps knows neither masks"),
    ],
)
def test_weights_of_another_architecture_are_refused_and_nothing_is_changed(weights, build, message):
    cell = build()
    before = {key: value.clone() for key, value in cell.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        load_ncps(cell, stored(weights))
    assert all(torch.equal(value, before[key]) for key, value in cell.state_dict().items())


def test_what_implicit_says_must_be_so():
    state = stored("ltc explicit")
    state["rnn_cell.w"] = state["rnn_cell.w"] - 1.0
    with pytest.raises(ValueError, match="w of the weights has negative entries"):
        load_ncps(CELLS["ltc explicit"](), state, implicit=False)


def write():
    torch.manual_seed(0)
    warnings.simplefilter("ignore")
    xs = torch.randn(2, 8, CHANNELS, dtype=F64)
    found = {"xs": xs}
    for name in CELLS:
        theirs = upstream(name)
        for one in theirs.parameters():
            one.data = (one.data * (1.0 + 0.2 * torch.rand_like(one)) if one.requires_grad else one.data).float()
        found |= {f"{name}/state/{key}": value.clone() for key, value in theirs.state_dict().items()}
        theirs.double()
        h = torch.zeros(2, theirs.state_size, dtype=F64)
        spans = torch.full((1, 8), SPAN, dtype=F64)
        found[f"{name}/outputs"] = theirs(xs, (h, h) if "mixed" in name else h, timespans=spans)[0].detach()
    np.savez_compressed(FILE, **{key: value.numpy() for key, value in found.items()})


if __name__ == "__main__":
    write()
