from dataclasses import replace

import pytest
import torch

from ctdyn import encoders
from ctdyn.cells import (
    Cell,
    CfCCell,
    CRUCell,
    GRUDCell,
    GRUODEBayesCell,
    LTCCell,
    ODELSTMCell,
    ODERNNCell,
)
from ctdyn.data import IrregularBatch
from ctdyn.encoders import (
    AttentionEncoder,
    BidirectionalGRUEncoder,
    BidirectionalStateSpaceEncoder,
    CDEEncoder,
    CellEncoder,
    ConvolutionEncoder,
    GRUEncoder,
    JointEncoder,
    ODERNNEncoder,
    ReverseGRUEncoder,
    SiteEncoder,
    StartEncoder,
    StateSpaceEncoder,
    SummaryEncoder,
    start_time,
)
from ctdyn.fields import LinearCDEField, LogODEField, MLPCDEField
from ctdyn.linear import Impulse
from ctdyn.linear.layers import LRU, S5
from ctdyn.paths import Control, LinearPath, RectilinearPath
from ctdyn.testing import check_encoder, example_window


PARTS = {
    "AttentionEncoder": [
        lambda: AttentionEncoder(2, 3, 5, (4,), points=4, time_size=6),
        lambda: AttentionEncoder(2, 3, 5, (4,), static_size=3),
    ],
    "BidirectionalGRUEncoder": [
        lambda: BidirectionalGRUEncoder(2, 3, 2, 5, reads_rates=True),
        lambda: BidirectionalGRUEncoder(2, 3, 2, 5, input_size=2, static_size=3, reads_noise=True),
    ],
    "CDEEncoder": [
        lambda: CDEEncoder(2, 4, MLPCDEField(4, 5)),
        lambda: CDEEncoder(2, 4, LinearCDEField(4, 5, block_size=2), Control(LinearPath), average=True),
        lambda: CDEEncoder(2, 4, LinearCDEField(4, 5, block_size=1), Control(RectilinearPath, causal=True)),
        lambda: CDEEncoder(2, 4, LogODEField(MLPCDEField(4, 3), 3), Control(LinearPath, counts=0.0, window=2)),
    ],
    "CellEncoder": [lambda: CellEncoder(GRUDCell(2, 3)), lambda: CellEncoder(ODERNNCell(2, 3), average=True)],
    "BidirectionalStateSpaceEncoder": [
        lambda: BidirectionalStateSpaceEncoder(2, 3, 4, 6),
        lambda: BidirectionalStateSpaceEncoder(2, 3, 4, 6, input_size=2, static_size=3),
        lambda: BidirectionalStateSpaceEncoder(
            2, 3, 4, ahead=[LRU(4, state_size=3)], back=[S5(6, state_size=4, hold=Impulse())]
        ),
    ],
    "ConvolutionEncoder": [
        lambda: ConvolutionEncoder(2, 3, 2, 5),
        lambda: ConvolutionEncoder(2, 3, 2, 5, kernel_size=3, stride=2, input_size=2, static_size=3),
    ],
    "ReverseGRUEncoder": [
        lambda: ReverseGRUEncoder(2, 3, 2, 5, reads_rates=True),
        lambda: ReverseGRUEncoder(2, 3, 2, 5, input_size=2, static_size=3, reads_noise=True),
    ],
    "StartEncoder": [
        lambda: StartEncoder(CDEEncoder(2, 4, MLPCDEField(4, 5)), 4, 3, ()),
        lambda: StartEncoder(CellEncoder(ODERNNCell(2, 4)), 4, 3, static_size=3),
    ],
    "StateSpaceEncoder": [lambda: StateSpaceEncoder(2, 3, 6, (4,)), lambda: StateSpaceEncoder(2, 3, 6, static_size=3)],
    "GRUEncoder": [
        lambda: GRUEncoder(2, 3, hidden_size=5, head_hidden=(4,)),
        lambda: GRUEncoder(2, 3, hidden_size=5, input_size=2, static_size=3, reads_noise=True, reads_rates=True),
    ],
    "JointEncoder": [
        lambda: JointEncoder([SiteEncoder(2, 3, (4,)), SummaryEncoder(GRUEncoder(2, 3, 4, head_hidden=(4,)))]),
    ],
    "SummaryEncoder": [lambda: SummaryEncoder(GRUEncoder(2, 3, 4, head_hidden=(4,)))],
    "ODERNNEncoder": [
        lambda: ODERNNEncoder(2, 3, hidden_size=5),
        lambda: ODERNNEncoder(2, 3, hidden_size=5, static_size=3),
    ],
    "SiteEncoder": [lambda: SiteEncoder(2, 3, hidden=(5,)), lambda: SiteEncoder(2, 3, hidden=(), reads_noise=True)],
}


class Stopwatch(Cell):
    """Adds up the time that it is evolved over, and counts observations beside it."""

    def __init__(self):
        super().__init__(num_channels=1, hidden_size=2)
        self.intervals = []

    def evolve(self, h, t0, t1, u=None):
        self.intervals.append(t1 - t0)
        return h + torch.stack([t1 - t0, torch.zeros_like(t0)], -1)

    def update(self, h, x, mask):
        return h + torch.stack([torch.zeros_like(h[..., 0]), mask.any(-1).to(h.dtype)], -1)


def _batch(times, seen):
    times = torch.tensor(times, dtype=torch.float64)
    mask = torch.tensor(seen, dtype=torch.bool).unsqueeze(-1)
    return IrregularBatch(times, mask.to(times.dtype), mask)


def _noisy(batch):
    return IrregularBatch(
        batch.times, batch.values, batch.mask, batch.inputs, batch.static, noise=0.1 * batch.mask.to(batch.values.dtype)
    )


def test_every_exported_encoder_is_checked():
    concrete = {name for name in encoders.__all__ if isinstance(getattr(encoders, name), type)}
    assert {name for name in concrete if name.endswith("Encoder")} - {"Encoder"} == set(PARTS)


@pytest.mark.parametrize("build", [build for builds in PARTS.values() for build in builds])
def test_contract(build):
    check_encoder(build(), _noisy(example_window(2, input_size=2, static_size=3).context))


@pytest.mark.parametrize(
    "cell",
    [
        lambda: CfCCell(2, 5, hidden=(4,)),
        lambda: CRUCell(2, 2, 2, (4,)),
        lambda: GRUDCell(2, 5),
        lambda: GRUODEBayesCell(2, 5),
        lambda: LTCCell(2, 5, mixed_memory=True),
        lambda: ODELSTMCell(2, 5),
    ],
)
def test_any_cell_reads_for_a_latent_model(cell):
    check_encoder(ODERNNEncoder(2, 3, cell=cell()), example_window(2).context)


def test_the_ode_rnn_integrates_exactly_the_gaps_between_observations():
    """The published code integrates (-.01, +1.0, -.1, -.15, -.25) over these times."""
    cell = Stopwatch()
    encoder = ODERNNEncoder(1, 2, cell=cell).double()
    encoder(_batch([[0.0, 0.1, 0.25, 0.5, 1.0]], [[True] * 5]))
    gaps = torch.cat(cell.intervals)
    torch.testing.assert_close(gaps, torch.tensor([0.5, 0.25, 0.15, 0.1], dtype=torch.float64))


def test_what_decays_does_so_backwards_through_a_series_as_well():
    """Solved towards the past, a decaying state of this cell would be 1e13 after these gaps."""
    cell = GRUODEBayesCell(1, 5).double()
    encoder = ODERNNEncoder(1, 2, cell=cell).double()
    states = []
    encoder.head.register_forward_pre_hook(lambda module, args: states.append(args[0]))
    encoder(_batch([[0.0, 10.0, 20.0, 30.0]], [[True] * 4]))
    assert states[0].abs().max() <= 1.0


def test_the_ode_rnn_flows_over_unobserved_rows_and_waits_for_longer_series():
    cell = Stopwatch()
    encoder = ODERNNEncoder(1, 2, cell=cell).double()
    rows = _batch([[0.0, 1.0, 2.0, 4.0], [3.0, 5.0, 5.0, 5.0]], [[True, False, True, True], [True, True, False, False]])
    encoder(rows)
    gaps = torch.stack(cell.intervals, -1)
    torch.testing.assert_close(gaps, torch.tensor([[2.0, 2.0], [2.0, 0.0]], dtype=torch.float64))
    torch.testing.assert_close(gaps.sum(-1), torch.tensor([4.0, 2.0], dtype=torch.float64))


def test_the_gru_reads_gap_value_and_mask_backwards_from_the_last_observation():
    encoder = GRUEncoder(1, 2, hidden_size=3).double()
    read = []
    encoder.gru.register_forward_pre_hook(lambda module, args: read.append(args[0]))
    batch = _batch(
        [[0.0, 1.0, 2.5, 4.0], [3.0, 5.0, 5.0, 5.0]], [[True, False, True, True], [True, True, False, False]]
    )
    encoder(batch)
    first = torch.tensor([[0.0, 1.0, 1.0], [1.5, 1.0, 1.0], [2.5, 1.0, 1.0]], dtype=torch.float64)
    second = torch.tensor([[0.0, 1.0, 1.0], [2.0, 1.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(read[0][0], first)
    torch.testing.assert_close(read[0][1, :2], second)


def test_the_order_of_observations_matters_to_both():
    context = example_window(2).context
    values = context.values.clone()
    values[0] = torch.where(context.mask[0], -values[0], 0)
    changed = IrregularBatch(context.times, values, context.mask)
    for encoder in (GRUEncoder(2, 3).double(), ODERNNEncoder(2, 3).double()):
        before, after = encoder(context).q0.mean, encoder(changed).q0.mean
        assert (before[0] - after[0]).abs().max() > 1e-4
        torch.testing.assert_close(before[1:], after[1:])


def test_a_latent_state_starts_at_the_first_observation():
    batch = _batch([[0.0, 1.0, 2.0], [3.0, 5.0, 5.0]], [[False, True, True], [False, False, False]])
    assert start_time(batch).tolist() == [1.0, 3.0]


def test_missing_covariates_are_refused_by_name():
    context = example_window(2).context
    with pytest.raises(ValueError, match=r"3 static covariates; the batch has 0. .*static=\[\.\.\.\]"):
        GRUEncoder(2, 3, static_size=3).double()(context)
    with pytest.raises(ValueError, match=r"2 inputs; the batch has 0. .*inputs=\[\.\.\.\]"):
        GRUEncoder(2, 3, input_size=2).double()(context)
    with pytest.raises(ValueError, match="no times"):
        GRUEncoder(2, 3).double()(_batch([[]], [[]]).to(torch.float64))


def test_rates_are_slopes_between_the_observations_of_one_channel():
    encoder = GRUEncoder(2, 3, hidden_size=5, reads_rates=True).double()
    seen = []
    encoder.gru.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    times = torch.tensor([[0.0, 0.5, 2.0]], dtype=torch.float64)
    values = torch.tensor([[[1.0, 5.0], [2.0, 0.0], [8.0, 3.0]]], dtype=torch.float64)
    mask = torch.tensor([[[True, True], [True, False], [True, True]]])
    encoder(IrregularBatch(times, values, mask))
    slopes = seen[0][0, :, -2:].sinh()
    # Latest row first; the second channel jumps over the row in which it is missing.
    expected = torch.tensor([[0.0, 0.0], [6.0 / 1.5, 0.0], [1.0 / 0.5, -2.0 / 2.0]], dtype=torch.float64)
    torch.testing.assert_close(slopes, expected)


@pytest.mark.parametrize(("rows", "stride"), [(7, 3), (6, 3), (8, 3), (2, 5), (1, 2)])
def test_a_stride_leaves_knots_out_and_moves_none(rows, stride):
    every, some = (ConvolutionEncoder(1, 3, 2, 5, stride=step).double() for step in (1, stride))
    some.load_state_dict(every.state_dict())
    seen = torch.ones(2, rows, dtype=torch.bool)
    # The second series ends earlier.
    seen[1, 1 + rows // 2 :] = False
    times = torch.arange(rows, dtype=torch.float64).expand(2, -1)
    batch = IrregularBatch(times, torch.randn(2, rows, 1, dtype=torch.float64), seen.unsqueeze(-1))
    for series, count in enumerate(seen.sum(-1).tolist()):
        expected = every(batch).context(batch.times)[series]
        kept = sorted({*range(0, count, stride), count - 1})
        context = some(batch).context
        torch.testing.assert_close(context(batch.times)[series, kept], expected[kept])
        assert context.knots()[series].unique().tolist() == [float(row) for row in kept]


@pytest.mark.parametrize(
    "build",
    [
        lambda: StateSpaceEncoder(1, 2, layers=[]),
        lambda: BidirectionalStateSpaceEncoder(1, 2, 3, ahead=[]),
        lambda: BidirectionalStateSpaceEncoder(1, 2, 3, back=[]),
    ],
)
def test_an_encoder_of_layers_needs_a_layer(build):
    with pytest.raises(ValueError, match="at least one layer"):
        build()


@pytest.mark.parametrize(
    "encoder",
    [
        GRUEncoder(1, 2),
        ReverseGRUEncoder(1, 2, 3),
        BidirectionalGRUEncoder(1, 2, 3),
        ConvolutionEncoder(1, 2, 3),
        AttentionEncoder(1, 2),
        ODERNNEncoder(1, 2),
        StateSpaceEncoder(1, 2),
        BidirectionalStateSpaceEncoder(1, 2, 3),
    ],
)
def test_one_series_is_read_as_a_batch_of_one(encoder):
    times = torch.tensor([[0.0, 0.3, 1.0]])
    batch = IrregularBatch(times, torch.randn(1, 3, 1), torch.tensor([[[True], [False], [True]]]))
    one, whole = encoder(batch[0]), encoder(batch)
    torch.testing.assert_close(one.q0.mean, whole.q0.mean[0])
    if one.context is not None:
        at = torch.tensor([0.5])
        torch.testing.assert_close(one.context.evaluate(at[0]), whole.context.evaluate(at)[0])


@pytest.mark.parametrize("build", [builds[0] for builds in PARTS.values()])
def test_times_may_be_finer_than_values(build):
    encoder, context = build().float(), example_window(2, input_size=2, static_size=3).context
    coarse = context.to(torch.float32)
    fine, plain = (encoder(replace(coarse, times=times)) for times in (context.times, coarse.times))
    if fine.q0 is not None:
        torch.testing.assert_close(fine.q0.mean, plain.q0.mean)
    if fine.static is not None:
        torch.testing.assert_close(fine.static, plain.static)
    if fine.sites is not None:
        torch.testing.assert_close(fine.sites.mean, plain.sites.mean)


@pytest.mark.parametrize("shape", [(0,), (2, 0)])
@pytest.mark.parametrize("build", [builds[0] for builds in PARTS.values()])
def test_a_batch_without_series_is_read_as_one(build, shape):
    nothing = torch.zeros(*shape, 3, 2)
    encoding = build()(IrregularBatch(nothing[..., 0], nothing, nothing.bool()))
    if encoding.q0 is not None:
        assert encoding.q0.mean.shape[:-1] == shape
    if encoding.context is not None:
        assert encoding.context.evaluate(torch.zeros(shape)).shape[:-1] == shape
