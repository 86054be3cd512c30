"""Each contract passes on the parts of the library (their own tests hold that) and fails on broken ones (here)."""

import dataclasses

import pytest
import torch
from torch import nn
from torch.distributions import Independent, Normal

from ctdyn.cells import ODERNNCell
from ctdyn.data.channels import Channel
from ctdyn.encoders import Encoding, GRUEncoder
from ctdyn.fields import MLPField
from ctdyn.integrate import ConstantStep
from ctdyn.likelihoods import Gaussian
from ctdyn.models import LatentODE, LatentVAE
from ctdyn.models.base import Predictive
from ctdyn.processes import ODEProcess
from ctdyn.solvers import RK4
from ctdyn.testing import check_cell, check_encoder, check_likelihood, check_model, check_process, example_window


# --------------------------------------------------------------------------------------------------------------- cells


class RestlessCell(ODERNNCell):
    def evolve(self, h, t0, t1, u=None):
        return super().evolve(h, t0, t1, u) + 1e-12


class WrongGapCell(ODERNNCell):
    def evolve(self, h, t0, t1, u=None):
        return super().evolve(h, t0.mean().expand_as(t0), t1, u)


class ForgetfulCell(ODERNNCell):
    def update(self, h, x, mask):
        return self.gru(torch.cat([torch.where(mask, x, 0), mask.to(x.dtype)], -1), h)


class PoisonedCell(ODERNNCell):
    def update(self, h, x, mask):
        updated = self.gru(torch.cat([x, mask.to(x.dtype)], -1), h)
        return torch.where(mask.any(-1, keepdim=True), updated, h)


class MixingCell(ODERNNCell):
    def update(self, h, x, mask):
        updated = super().update(h, x, mask)
        return torch.where(mask.any(-1, keepdim=True), updated + x.mean(), h)


class IdleCell(ODERNNCell):
    def __init__(self, num_channels, hidden_size):
        super().__init__(num_channels, hidden_size)
        self.idle = nn.Linear(2, 2)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (RestlessCell, "over no time"),
        (WrongGapCell, "over no time"),
        (ForgetfulCell, "empty mask"),
        (PoisonedCell, "under the mask"),
        (MixingCell, "under the mask|mix"),
        (IdleCell, "no gradient reaches the parameter idle"),
    ],
)
def test_check_cell_fails_on(broken, message):
    with pytest.raises(AssertionError, match=message):
        check_cell(broken(2, 3))


# ------------------------------------------------------------------------------------------------------------ encoders


class _Broken(GRUEncoder):
    def __init__(self):
        super().__init__(2, 3, 5, ())

    def changed(self, batch, amount):
        """The encoding, with something added to the mean that does not belong there."""
        q0 = super().forward(batch).q0
        return Encoding(q0=Independent(Normal(q0.mean + amount, q0.stddev, validate_args=False), 1))


class PoisonedEncoder(_Broken):
    def forward(self, batch):
        return self.changed(batch, batch.values.sum((-1, -2)).unsqueeze(-1))


class PaddingEncoder(_Broken):
    def forward(self, batch):
        return self.changed(batch, batch.times.shape[-1])


class MixingEncoder(_Broken):
    def forward(self, batch):
        return self.changed(batch, torch.where(batch.mask, batch.values, 0).mean())


class ClockEncoder(_Broken):
    def forward(self, batch):
        return self.changed(batch, batch.times[..., :1])


class NanEncoder(_Broken):
    def forward(self, batch):
        count = batch.mask.sum((-1, -2)).unsqueeze(-1)
        return self.changed(batch, torch.where(batch.mask, batch.values, 0).sum((-1, -2)).unsqueeze(-1) / count)


class BoastfulEncoder(_Broken):
    provides = frozenset({"q0", "static"})


class IdleEncoder(_Broken):
    def __init__(self):
        super().__init__()
        self.idle = nn.Linear(2, 2)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (PoisonedEncoder, "values under the mask change the encoding"),
        (PaddingEncoder, "padded times change the encoding"),
        (MixingEncoder, "alone is encoded differently|padded"),
        (ClockEncoder, "shifting the clock"),
        (NanEncoder, "not finite|something finite"),
        (BoastfulEncoder, "provides"),
        (IdleEncoder, "no gradient reaches the parameter idle"),
    ],
)
def test_check_encoder_fails_on(broken, message):
    with pytest.raises(AssertionError, match=message):
        check_encoder(broken(), example_window(2).context)


# ----------------------------------------------------------------------------------------------------------- processes


class _BrokenProcess(ODEProcess):
    def __init__(self):
        super().__init__(MLPField(2, hidden=(4,)), 2, solver=RK4(), controller=ConstantStep(0.1))


class QueryProcess(_BrokenProcess):
    """Steps from query to query over the mean gap, as a model does that takes the index for the time."""

    def posterior(self, encoding, t0, ts, *args, **kwargs):
        even = torch.linspace(0, 1, ts.shape[-1], dtype=ts.dtype) * (ts[..., -1:] - t0.unsqueeze(-1)) + t0.unsqueeze(-1)
        return super().posterior(encoding, t0, even, *args, **kwargs)


class UnsortedProcess(_BrokenProcess):
    def posterior(self, encoding, t0, ts, *args, **kwargs):
        return super().posterior(encoding, t0, ts.sort(-1).values, *args, **kwargs)


class LateProcess(_BrokenProcess):
    """Starts at its first query instead of at t0."""

    def posterior(self, encoding, t0, ts, *args, **kwargs):
        return super().posterior(encoding, ts.min(-1).values, ts, *args, **kwargs)


class GlobalProcess(_BrokenProcess):
    def posterior(self, encoding, t0, ts, num_samples=1, generator=None, inputs=None):
        return super().posterior(encoding, t0, ts, num_samples, None, inputs)


class FrozenProcess(_BrokenProcess):
    def posterior(self, encoding, t0, ts, num_samples=1, generator=None, inputs=None):
        return super().posterior(encoding, t0, ts, num_samples, torch.Generator(), inputs)


class MixingProcess(_BrokenProcess):
    def posterior(self, encoding, t0, ts, *args, **kwargs):
        latent = super().posterior(encoding, t0, ts, *args, **kwargs)
        later = (ts != t0.unsqueeze(-1)).unsqueeze(-1)
        return dataclasses.replace(latent, zs=torch.where(later, latent.zs + 0.1 * t0.mean(), latent.zs))


class AveragedKL(_BrokenProcess):
    """The published code divides the divergence by the size of the latent state."""

    def posterior(self, encoding, t0, ts, *args, **kwargs):
        latent = super().posterior(encoding, t0, ts, *args, **kwargs)
        return dataclasses.replace(latent, kl={"z0": latent.kl["z0"] / 2})


class AveragedRatio(_BrokenProcess):
    def posterior(self, encoding, t0, ts, *args, **kwargs):
        latent = super().posterior(encoding, t0, ts, *args, **kwargs)
        return dataclasses.replace(latent, log_terms={"z0": latent.log_terms["z0"] + 0.5}, kl={})


class FreeProcess(_BrokenProcess):
    def posterior(self, encoding, t0, ts, *args, **kwargs):
        return dataclasses.replace(super().posterior(encoding, t0, ts, *args, **kwargs), log_terms={})


class IdleProcess(_BrokenProcess):
    def __init__(self):
        super().__init__()
        self.idle = nn.Linear(2, 2)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (QueryProcess, "order of the query times|adding query times"),
        (UnsortedProcess, "order of the query times"),
        (LateProcess, "adding query times"),
        (GlobalProcess, "same generator gives other samples"),
        (FrozenProcess, "another generator gives the same"),
        (MixingProcess, "series mix"),
        (AveragedKL, "disagrees with its estimate"),
        (AveragedRatio, "do not average to 1"),
        (FreeProcess, "log_terms is empty"),
        (IdleProcess, "no gradient reaches the parameter idle"),
    ],
)
def test_check_process_fails_on(broken, message):
    with pytest.raises(AssertionError, match=message):
        check_process(broken())


# --------------------------------------------------------------------------------------------------------- likelihoods


class JointGaussian(Gaussian):
    def forward(self, z, ts, noise=None):
        return Independent(super().forward(z, ts, noise), 1)


class SmoothingGaussian(Gaussian):
    """A decoder that looks at the whole sequence."""

    def forward(self, z, ts, noise=None):
        return super().forward(z.cumsum(-2), ts, noise)


class UnnormalisedGaussian(Gaussian):
    class Kernel(Normal):
        def log_prob(self, value):
            return -0.5 * ((value - self.loc) / self.scale).square() - self.scale.log()

    def forward(self, z, ts, noise=None):
        normal = super().forward(z, ts, noise)
        return self.Kernel(normal.loc, normal.scale)


class OverconfidentGaussian(Gaussian):
    def forward(self, z, ts, noise=None):
        normal = super().forward(z, ts)
        return normal if noise is None else Normal(normal.loc, 1 / (1 / normal.scale + 1 / noise))


class BiasedGaussian(Gaussian):
    class Biased(Normal):
        def sample(self, sample_shape=()):
            return super().sample(sample_shape) + 0.1

    def forward(self, z, ts, noise=None):
        normal = super().forward(z, ts, noise)
        return self.Biased(normal.loc, normal.scale)


class IdleGaussian(Gaussian):
    def __init__(self, latent_size, num_channels):
        super().__init__(latent_size, num_channels)
        self.idle = nn.Linear(2, 2)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (JointGaussian, "without event axes"),
        (SmoothingGaussian, "at one time changes another"),
        (UnnormalisedGaussian, "total probability"),
        (OverconfidentGaussian, "narrows"),
        (BiasedGaussian, "samples do not have the mean"),
        (IdleGaussian, "no gradient reaches the parameter idle"),
    ],
)
def test_check_likelihood_fails_on(broken, message):
    with pytest.raises(AssertionError, match=message):
        check_likelihood(broken(3, 2), 3)


# -------------------------------------------------------------------------------------------------------------- models


CHANNELS = (Channel("a"), Channel("b"))


class _BrokenModel(LatentODE):
    def __init__(self, channels=CHANNELS):
        super().__init__(channels, 3, (6,), encoder_size=6, controller=ConstantStep(0.4))

    def shifted(self, predictive, amount):
        normal = predictive.distribution
        return Predictive(Normal(normal.loc + amount, normal.scale))


class PeekingModel(_BrokenModel):
    """Encodes the target."""

    def loss(self, window, *, generator=None, step=None):
        return super().loss(dataclasses.replace(window, context=window.target), generator=generator, step=step)


class UnmaskedModel(_BrokenModel):
    def loss(self, window, *, generator=None, step=None):
        loss = super().loss(window, generator=generator, step=step)
        return dataclasses.replace(loss, total=loss.total + window.target.values.square().mean())


class PaddingModel(_BrokenModel):
    """Averages over rows, padding included."""

    def loss(self, window, *, generator=None, step=None):
        loss = super().loss(window, generator=generator, step=step)
        return dataclasses.replace(loss, total=loss.total / window.target.times.shape[-1])


class MixingModel(_BrokenModel):
    def predict(self, context, ts, inputs=None, *, num_samples=100, generator=None):
        predictive = super().predict(context, ts, inputs, num_samples=num_samples, generator=generator)
        return self.shifted(predictive, torch.where(context.mask, context.values, 0).sum((1, 2)).median())


class ClockModel(_BrokenModel):
    def predict(self, context, ts, inputs=None, *, num_samples=100, generator=None):
        predictive = super().predict(context, ts, inputs, num_samples=num_samples, generator=generator)
        return self.shifted(predictive, ts.unsqueeze(-1))


class GlobalModel(_BrokenModel):
    def predict(self, context, ts, inputs=None, *, num_samples=100, generator=None):
        return super().predict(context, ts, inputs, num_samples=num_samples)

    def loss(self, window, *, generator=None, step=None):
        return super().loss(window, step=step)


class LeakyModel(_BrokenModel):
    """Follows the generator, and still moves the global one."""

    def predict(self, context, ts, inputs=None, *, num_samples=100, generator=None):
        torch.rand(1)
        return super().predict(context, ts, inputs, num_samples=num_samples, generator=generator)


class AmnesicModel(_BrokenModel):
    """Keeps something outside its configuration and its weights."""

    def __init__(self, channels=CHANNELS):
        super().__init__(channels)
        self.secret = torch.rand(1).item()

    def predict(self, context, ts, inputs=None, *, num_samples=100, generator=None):
        predictive = super().predict(context, ts, inputs, num_samples=num_samples, generator=generator)
        return self.shifted(predictive, self.secret)


class IdleModel(_BrokenModel):
    def __init__(self, channels=CHANNELS):
        super().__init__(channels)
        self.idle = nn.Linear(2, 2)


class StubbornModel(_BrokenModel):
    """Climbs instead of descending."""

    def loss(self, window, *, generator=None, step=None):
        loss = super().loss(window, generator=generator, step=step)
        return dataclasses.replace(loss, total=-loss.total)


class CrossedModel(_BrokenModel):
    class Crossed(Predictive):
        def quantile(self, levels, generator=None, draws=10):
            return -super().quantile(levels, generator, draws)

    def predict(self, context, ts, inputs=None, *, num_samples=100, generator=None):
        predictive = super().predict(context, ts, inputs, num_samples=num_samples, generator=generator)
        return self.Crossed(predictive.distribution)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (PeekingModel, "target leaks"),
        (UnmaskedModel, "values under the mask change the loss"),
        (PaddingModel, "padded times change the loss"),
        (MixingModel, "alone is predicted differently"),
        (ClockModel, "shift of all times changes the prediction"),
        (GlobalModel, "change the loss|same generator"),
        (LeakyModel, "global random state"),
        (AmnesicModel, "made again from its configuration"),
        (IdleModel, "no gradient reaches the parameter idle"),
        (StubbornModel, "do not lower the loss"),
        (CrossedModel, "not monotone"),
    ],
)
def test_check_model_fails_on(broken, message):
    with pytest.raises(AssertionError, match=message):
        check_model(broken(), example_window(2))


def test_check_model_does_not_touch_the_model_that_it_is_given():
    model = LatentVAE(
        [Channel("a")],
        GRUEncoder(1, 2, 4),
        ODEProcess(MLPField(2, hidden=(4,)), 2, solver=RK4(), controller=ConstantStep(0.2)),
        Gaussian(2, 1),
    )
    before = {name: value.clone() for name, value in model.state_dict().items()}
    check_model(model, example_window(1))
    after = model.state_dict()
    assert all(torch.equal(after[name], value) and after[name].dtype == torch.float32 for name, value in before.items())


def test_example_window_is_awkward():
    window = example_window(2)
    observed = window.context.observed
    assert not observed[3].any()
    assert not observed[:, 1].any()
    assert (window.context.times.diff(dim=-1) == 0).any()
    assert (window.context.values[~window.context.mask] == 0).all()
    assert (window.target.times[:, 0] > window.context.times[:, -1]).all()
