"""Filters look back and never ahead, and score a series one step at a time."""

import pytest
import torch
from torch.distributions import Normal

from ctdyn.cells import (
    CfCCell,
    CRUCell,
    GRUDCell,
    GRUODEBayesCell,
    LEMCell,
    LTCCell,
    ODELSTMCell,
    ODERNNCell,
)
from ctdyn.data import IrregularBatch, Window
from ctdyn.data.channels import Channel
from ctdyn.likelihoods import FixedScale, Gaussian
from ctdyn.models import FilteringModel
from ctdyn.testing import check_model, example_window
from ctdyn.wirings import AutoNCP


F64 = torch.float64
CHANNELS = (Channel("a"), Channel("b"))
CELLS = {
    "CfCCell": lambda: CfCCell(2, 6, hidden=(8,)),
    "CfCCell wired": lambda: CfCCell(2, AutoNCP(8, 2), mixed_memory=True),
    "LTCCell": lambda: LTCCell(2, 6),
    "ODELSTMCell": lambda: ODELSTMCell(2, 6),
    "CRUCell": lambda: CRUCell(2, 2, 2, (4,)),
    "GRUDCell": lambda: GRUDCell(2, 6),
    "LEMCell": lambda: LEMCell(2, 6),
    "ODERNNCell": lambda: ODERNNCell(2, 6),
}


@pytest.mark.parametrize("name", CELLS)
def test_any_cell_makes_a_model(name):
    check_model(FilteringModel(CHANNELS, CELLS[name]()), example_window(2))


def test_a_query_sees_what_came_before_it_and_nothing_else():
    torch.manual_seed(0)
    model = FilteringModel(CHANNELS, GRUODEBayesCell(2, 6)).double()
    context = example_window(2).to(F64).context
    middle = 0.5 * (context.times[:, 0] + context.times[:, -1])
    ts = torch.stack([middle, context.times[:, -1] + 1.0], -1)
    later = context.times > middle[:, None]
    values = torch.where(later[..., None], context.values + 5.0, context.values)
    changed = IrregularBatch(context.times, values, context.mask)
    before, after = (model.predict(batch, ts, num_samples=1).mean for batch in (context, changed))
    torch.testing.assert_close(after[:, 0], before[:, 0], rtol=0, atol=0)
    seen = (later[..., None] & context.mask).any(-1).any(-1)
    assert seen.any()
    assert ((after - before)[seen, 1].abs() > 1e-6).all()


class Walk(ODERNNCell):
    """Holds the last value of every channel."""

    def evolve(self, h, t0, t1, u=None):
        return h

    def update(self, h, x, mask):
        return torch.where(mask, x, h.expand_as(x))


def test_the_loss_of_a_series_is_its_likelihood_one_step_ahead():
    likelihood = Gaussian(1, 1, scale=FixedScale(0.7)).double()
    with torch.no_grad():
        likelihood.mean.layers[0].weight.fill_(1.0)
        likelihood.mean.layers[0].bias.zero_()
    model = FilteringModel([Channel("x")], Walk(1, 1), likelihood).double()
    times = torch.tensor([[0.0, 1.0, 1.5, 4.0]], dtype=F64)
    values = torch.tensor([[[0.3], [1.0], [0.0], [-2.0]]], dtype=F64)
    mask = torch.tensor([[[True], [True], [False], [True]]])
    series = IrregularBatch(times, values, mask)
    loss = model.loss(Window(series, series))
    normal = Normal(torch.zeros((), dtype=F64), 0.7)
    expected = normal.log_prob(torch.tensor([0.3 - 0.0, 1.0 - 0.3, -2.0 - 1.0], dtype=F64)).sum()
    torch.testing.assert_close(loss.total, -expected)
    torch.testing.assert_close(loss.parts["nats_per_observation"], -expected / 3)
    # A prediction at an observation has seen it; the loss has not.
    torch.testing.assert_close(
        model.predict(series, times, num_samples=2).mean[..., 0], torch.tensor([[0.3, 1.0, 1.0, -2.0]], dtype=F64)
    )
    torch.testing.assert_close(model.encode(series), torch.tensor([[-2.0]], dtype=F64))


def test_a_series_is_described_at_its_last_observation():
    torch.manual_seed(0)
    model = FilteringModel(CHANNELS, GRUODEBayesCell(2, 6)).double()
    context = example_window(2).to(F64).context
    empty = torch.zeros_like(context.values[:, :1])
    longer = IrregularBatch(
        torch.cat([context.times, context.times[:, -1:] + 2.0], -1),
        torch.cat([context.values, empty], -2),
        torch.cat([context.mask, empty.bool()], -2),
    )
    torch.testing.assert_close(model.encode(longer), model.encode(context))
    read = model.cell.read(model.cell.evolve(model._filter(context, None)[1][:, -1], *context.times[:, [-1, -1]].T))
    torch.testing.assert_close(model.encode(context), read)


def test_a_series_without_observations_and_queries_before_the_first_are_answered():
    model = FilteringModel(CHANNELS, GRUDCell(2, 4)).double()
    context = example_window(2).to(F64).context
    empty = IrregularBatch(context.times, context.values, torch.zeros_like(context.mask))
    ts = context.times[:, :1] + torch.tensor([-3.0, -1.0, 0.0], dtype=F64)
    prior = model.predict(empty, ts, num_samples=1)
    assert torch.isfinite(prior.mean).all()
    early = model.predict(context, ts[:, :2], num_samples=1)
    torch.testing.assert_close(early.mean, prior.mean[:, :2])


def test_inputs_and_static_covariates_are_used():
    torch.manual_seed(0)
    model = FilteringModel(CHANNELS, GRUODEBayesCell(2, 4, input_size=1), static_size=2).double()
    window = example_window(2).to(F64)

    def asked(inputs, static):
        batches = [
            IrregularBatch(b.times, b.values, b.mask, inputs=torch.full_like(b.times, inputs)[..., None], static=s)
            for b, s in ((window.context, static), (window.target, None))
        ]
        return model.loss(Window(*batches)).total

    count = window.context.times.shape[0]
    zero, one = torch.zeros(count, 2, dtype=F64), torch.ones(count, 2, dtype=F64)
    assert asked(0.0, zero) != asked(1.0, zero)
    assert asked(0.0, zero) != asked(0.0, one)
    with pytest.raises(ValueError, match="2 static covariates; the batch has 0"):
        asked(0.0, None)


def test_parts_for_other_channels_are_refused():
    with pytest.raises(ValueError, match="cell reads 1 channels"):
        FilteringModel(CHANNELS, GRUDCell(1, 4))
    with pytest.raises(ValueError, match="likelihood decodes 3 channels"):
        FilteringModel(CHANNELS, GRUDCell(2, 4), Gaussian(6, 3))
