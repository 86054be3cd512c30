"""Means over intervals and observation times in latent models: against closed forms of linear dynamics."""

import math

import pytest
import torch
from torch.distributions import Independent, Normal

from ctdyn.data import IrregularBatch, Window
from ctdyn.data.channels import Channel
from ctdyn.encoders import Encoder, Encoding, ReverseGRUEncoder
from ctdyn.fields import LinearField, MLPField, MLPSDEField
from ctdyn.integrate import Checkpoint, ConstantStep, PIDController, StepTo
from ctdyn.likelihoods import Bernoulli, FixedScale, Gaussian, Laplace, PoissonTimes, StudentT
from ctdyn.models import LatentODE, LatentVAE, LinearGaussianSSM, MarkovianGPVAE, MaximumLikelihood, Refined
from ctdyn.processes import ODEProcess, SDEProcess
from ctdyn.solvers import Tsit5
from ctdyn.testing import check_model, example_window


F64 = torch.float64
ONE = (Channel("a"),)
CHANNELS = (Channel("a"), Channel("b"))
RATE, SIGMA, WEIGHT, BIAS = 0.8, 0.3, 1.7, 0.2


def f64(*values):
    return torch.tensor(values, dtype=F64)


class Fixed(Encoder):
    """Knows nothing but its own distribution."""

    provides = frozenset({"q0"})

    def __init__(self, mean, std):
        super().__init__()
        self.mean, self.std = mean, std

    def forward(self, batch):
        shape = (*batch.batch_shape, 1)
        mean, std = (torch.full(shape, x, dtype=F64) for x in (self.mean, self.std))
        return Encoding(q0=Independent(Normal(mean, std), 1))


def decaying(likelihood=None, controller=None, **parts):
    """z(t) = z0 exp(-rate t), x = weight z + bias."""
    field = LinearField(1, matrix=[[-RATE]])
    controller = PIDController(rtol=1e-11, atol=1e-12) if controller is None else controller
    process = ODEProcess(field, 1, solver=Tsit5(), controller=controller)
    likelihood = Gaussian(1, 1, scale=FixedScale(SIGMA)) if likelihood is None else likelihood
    model = LatentVAE(ONE, Fixed(0.9, 1e-12), process, likelihood, **parts).double()
    model.process.field.A.data = f64(-RATE)[:, None]
    affine = model.likelihood.mean.layers[0]
    affine.weight.data, affine.bias.data = f64(WEIGHT)[:, None], f64(BIAS)
    return model


def batch(ts, start=None, values=None, **other):
    ts = f64(*ts)[None]
    values = torch.zeros(*ts.shape, 1, dtype=F64) if values is None else f64(*values)[None, :, None]
    start = None if start is None else f64(*start)[None]
    return IrregularBatch(ts, values, torch.ones_like(values, dtype=torch.bool), start=start, **other)


def mean_of_decay(s, t):
    """The mean of the decoded state over an interval, for z(0) = 0.9."""
    if s == t:
        return WEIGHT * 0.9 * math.exp(-RATE * t) + BIAS
    return WEIGHT * 0.9 * (math.exp(-RATE * s) - math.exp(-RATE * t)) / (RATE * (t - s)) + BIAS


@pytest.mark.parametrize("family", [Gaussian, Laplace, StudentT])
def test_a_mean_along_an_ode_is_the_analytic_one(family):
    """Nested and overlapping intervals, one that begins before the latent state does, and a point."""
    model = decaying(family(1, 1, scale=FixedScale(SIGMA)))
    starts, ends = [0.5, 0.0, 1.0, -0.7, 2.0], [1.5, 3.0, 1.1, 0.4, 2.0]
    found = model.predict_means(batch([0.0]), f64(*starts)[None], f64(*ends)[None], num_samples=1).mean
    expected = f64(*(mean_of_decay(*pair) for pair in zip(starts, ends, strict=True)))
    torch.testing.assert_close(found[0, :, 0], expected, rtol=0, atol=1e-8)


def test_the_likelihood_of_a_mean_is_that_around_the_analytic_one():
    model = decaying()
    starts, ends, values = [0.0, 2.0, 1.0], [1.0, 2.0, 2.5], [1.2, 0.7, 0.1]
    window = Window(batch([0.0]), batch(ends, starts, values))
    found = model.loss(window).parts["log_likelihood"]
    means = f64(*(mean_of_decay(*pair) for pair in zip(starts, ends, strict=True)))
    torch.testing.assert_close(found, Normal(means, SIGMA).log_prob(f64(*values)).sum(), rtol=0, atol=1e-7)
    score = model.log_prob(window, num_samples=3)
    torch.testing.assert_close(score[0], found, rtol=0, atol=1e-6)


def test_gradients_of_a_mean_by_any_adjoint():
    """Through the solver and its integrals, for the field and the decoder."""
    window = Window(batch([0.0]), batch([1.0, 2.0], [0.0, 2.0], [1.2, 0.7]))
    found = []
    for adjoint in (None, Checkpoint()):
        model = decaying(controller=StepTo(5))
        model.process.adjoint = adjoint
        model.loss(window, generator=torch.Generator().manual_seed(0)).total.backward()
        found.append([model.process.field.A.grad, model.likelihood.mean.layers[0].weight.grad])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)
        assert bool((one != 0).all())


def _stochastic():
    torch.manual_seed(0)
    process = SDEProcess(MLPSDEField(2, (8,)), 2, 3, hidden=(8,), dt=0.05)
    return process.double(), Encoding(
        q0=Independent(Normal(torch.zeros(2, 2, dtype=F64), 1.0), 1),
        context=ReverseGRUEncoder(1, 2, 3).double()(batch([0.1, 1.1])[[0, 0]]).context,
    )


def test_integrals_along_an_sde_are_those_of_its_straight_lines():
    process, encoding = _stochastic()
    t0 = f64(0.1, 0.1)
    fine = (t0[:, None] + torch.linspace(0, 1.5, 6001, dtype=F64)).contiguous()
    integrands = (lambda t, z: 2.0 * z[..., :1] - 1.0, lambda t, z: z.sum(-1, keepdim=True))
    asked = torch.cat([f64(0.1, 0.733, 1.6, 0.4, -0.2).expand(2, -1), fine], -1)
    latent = process.posterior(encoding, t0, asked, 3, torch.Generator().manual_seed(0), integrands=integrands)
    path = latent.zs[..., 5:, :]
    for integral, value in zip(latent.integrals, (2.0 * path[..., 0] - 1.0, path.sum(-1)), strict=True):
        whole = torch.cumulative_trapezoid(value, fine, dim=-1)
        for number, time in enumerate([0.1, 0.733, 1.6, 0.4]):
            place = round((time - 0.1) / 1.5 * 6000)
            expected = whole[..., place - 1] if place else torch.zeros(3, 2, dtype=F64)
            torch.testing.assert_close(integral[..., number, 0], expected, rtol=0, atol=1e-6)
        torch.testing.assert_close(integral[..., 4, 0], -0.3 * value[..., 0], rtol=0, atol=1e-12)


def test_an_integral_asked_for_with_others_is_the_same():
    process, encoding = _stochastic()
    t0 = f64(0.1, 0.1)

    def ask(*ts):
        generator = torch.Generator().manual_seed(0)
        asked = f64(*ts).expand(2, -1)
        return process.posterior(encoding, t0, asked, 2, generator, integrands=(lambda t, z: z,)).integrals[0]

    torch.testing.assert_close(ask(0.7, 0.5, 0.2, 1.0)[..., [1, 3], :], ask(0.5, 1.0))


def _aggregated(window):
    """The same window, some of its rows means since the row before."""

    def over(part):
        before = torch.cat([part.times[:, :1], part.times[:, :-1]], -1)
        rows = torch.arange(part.times.shape[-1]) % 2 == 1
        start = torch.where(rows & part.observed, before - 0.1, part.times)
        return IrregularBatch(part.times, part.values, part.mask, start=start)

    return Window(over(window.context), over(window.target))


def _ode(**parts):
    return LatentODE(CHANNELS, 3, (8,), encoder_size=6, controller=ConstantStep(0.25), **parts)


def test_the_contract_with_intervals_and_times():
    check_model(_ode(times=PoissonTimes(3, (4,))), _aggregated(example_window(2)))


def test_the_contract_of_the_exact_model_with_intervals():
    check_model(LinearGaussianSSM(CHANNELS, 2, fitting=MaximumLikelihood(max_steps=5)), _aggregated(example_window(2)))


def test_intervals_that_end_together_are_observations_of_their_own():
    model = LinearGaussianSSM(CHANNELS[:1], 2, fitting=MaximumLikelihood(max_steps=2))
    seen = batch([0.0, 0.5, 1.0], values=[0.1, -0.4, 0.9])
    model.fit_exact([Window(seen, seen)])
    late, whole = batch([1.0], start=[0.5], values=[0.3]), batch([1.0], start=[0.0], values=[-0.2])
    both = batch([1.0, 1.0], start=[0.0, 0.5], values=[-0.2, 0.3])
    expected = model.core.log_prob(both) - model.core.log_prob(late)
    torch.testing.assert_close(model.log_prob(Window(late, whole)), expected, rtol=0, atol=1e-9)
    assert abs(float(model.log_prob(Window(late, late)))) < 1e-12


def test_a_refined_posterior_explains_times_and_means_as_its_model_does():
    model, plain = decaying(times=PoissonTimes(1, rate=2.0)), decaying()
    model.times.net.layers[0].weight.data.zero_()
    refined, unaware = (Refined(each, steps=1, lr=1e-9, num_samples=1) for each in (model, plain))
    context, mean = batch([0.0, 0.4], values=[0.5, 0.2]), batch([0.9], start=[0.3], values=[0.1])
    # An intensity that the state does not move tells the same of every sample.
    told = model.loss(Window(context, context)).parts["times"]
    found = [
        each.bound(context, each.model.encode_context(context), generator=torch.Generator().manual_seed(0))
        for each in (refined, unaware)
    ]
    torch.testing.assert_close((found[0] - found[1]).mean(), told)
    window = Window(context, mean)
    torch.testing.assert_close(refined.log_prob(window), model.log_prob(window), rtol=1e-4, atol=1e-4)
    assert abs(float(refined.log_prob(window) - refined.log_prob(Window(context, batch([0.9], values=[0.1]))))) > 1e-3


def _timed(weight, bias, stamps):
    arrivals = PoissonTimes(1, rate=2.0)
    model = decaying(times=arrivals)
    affine = model.times.net.layers[0]
    affine.weight.data, affine.bias.data = f64(weight)[:, None], f64(bias)
    window = Window(batch([0.0]), batch(stamps))
    return model, model.loss(window).parts["times"]


def test_the_density_of_observation_times_is_that_of_a_known_intensity():
    """A constant intensity, and one whose integral is an exponential integral."""
    stamps = [0.3, 0.5, 1.9]
    _, constant = _timed(0.0, 0.4, stamps)
    rate = 2.0 * math.exp(0.4)
    torch.testing.assert_close(constant, f64(3 * math.log(rate) - rate * 1.9)[0], rtol=0, atol=1e-7)
    _, found = _timed(0.5, 0.1, stamps)

    def log_intensity(t):
        return math.log(2.0) + 0.5 * 0.9 * math.exp(-RATE * t) + 0.1

    # int exp(a e^{-bt}) dt = (Ei(a) - Ei(a e^{-bT})) / b
    from scipy.special import expi

    a = 0.5 * 0.9
    integral = 2.0 * math.exp(0.1) * (expi(a) - expi(a * math.exp(-RATE * 1.9))) / RATE
    expected = sum(map(log_intensity, stamps)) - integral
    torch.testing.assert_close(found, f64(expected)[0], rtol=0, atol=1e-7)


def test_times_behind_the_context_count_from_its_end():
    target = f64(1.2, 1.5, 1.5)[None], torch.tensor([[True, True, False]])
    one = torch.tensor([[True]])
    begin, end, seen = PoissonTimes.interval(target, (f64(1.0)[None], one), f64(0.0))
    assert (begin.item(), end.item(), seen.tolist()) == (1.0, 1.5, [[True, True, False, False]])
    begin, end, seen = PoissonTimes.interval(target, (f64(1.3)[None], one), f64(0.0))
    assert (begin.item(), end.item(), seen.tolist()) == (0.0, 1.5, [[True, True, False, True]])
    begin, end, seen = PoissonTimes.interval(target, (f64(1.5)[None], one), f64(0.0))
    assert (begin.item(), end.item(), seen.tolist()) == (0.0, 1.5, [[True, True, False, False]])


def test_hidden_rows_among_those_of_the_context_are_times_of_one_series():
    model = decaying(times=PoissonTimes(1, rate=2.0))
    model.times.net.layers[0].weight.data.zero_()
    stamps = [0.0, 0.3, 0.5, 1.2, 1.9]
    whole = Window(batch(stamps), batch(stamps))
    hidden = Window(batch([0.0, 0.5, 1.9]), batch([0.3, 1.2]))
    told = [model.loss(window).parts["times"] for window in (whole, hidden)]
    torch.testing.assert_close(told[1], told[0], rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("context", "target", "rows"),
    [([0.0, 0.5], [1.2, 1.9], 4), ([0.0, 0.5], [0.0, 0.5, 1.2], 5), ([0.0, 0.5, 1.9], [0.3, 1.2], 7)],
)
def test_states_are_asked_for_where_times_count(context, target, rows, monkeypatch):
    """Those of the target, the ends of the interval, and the context where it has times of its own in it."""
    model = decaying(times=PoissonTimes(1, rate=2.0))
    asked, posterior = [], model.process.posterior

    def recorded(encoding, t0, ts, *rest):
        asked.append(ts.shape[-1])
        return posterior(encoding, t0, ts, *rest)

    monkeypatch.setattr(model.process, "posterior", recorded)
    assert model.loss(Window(batch(context), batch(target))).total.isfinite()
    assert asked == [rows]


def test_a_stray_state_does_not_overflow_the_intensity():
    arrivals = PoissonTimes(1)
    arrivals.net.layers[0].weight.data.fill_(1.0)
    arrivals.net.layers[0].bias.data.zero_()
    z = torch.tensor([[0.5], [1e6]], requires_grad=True)
    intensity = arrivals(torch.zeros(2), z)
    torch.testing.assert_close(intensity[0], 10.0 * z[0].exp())
    assert bool(torch.isfinite(torch.autograd.grad(intensity.sum(), z)[0]).all())


def test_times_that_follow_the_state_are_learned():
    """Series whose observations crowd where their level is high: the intensity learns to rise with it."""
    torch.manual_seed(0)
    arrivals = PoissonTimes(1, rate=3.0)
    z = torch.randn(400, 1, 1)
    # Given the level, as many times in a unit interval as a Poisson variable of this intensity.
    count = torch.poisson(3.0 * (0.8 * z[:, 0, 0]).exp(), generator=torch.Generator().manual_seed(0)).long()
    width = int(count.max())
    seen = torch.arange(width) < count[:, None]
    optimiser = torch.optim.Adam(arrivals.parameters(), lr=0.05)
    for _ in range(150):
        optimiser.zero_grad()
        states = z.expand(400, width, 1)[None]
        compensator = arrivals(torch.zeros(400), z[:, 0])[None, :, 0]
        (-arrivals.log_prob(states, seen, compensator)).mean().backward()
        optimiser.step()
    assert abs(arrivals.net.layers[0].weight.item() - 0.8) < 0.1


def test_what_cannot_be_asked_is_refused_with_what_can():
    ask = (batch([0.0, 0.5]), f64(0.0)[None], f64(1.0)[None])
    with pytest.raises(ValueError, match=r"LinearGaussianProcess does not; use ODEProcess or SDEProcess"):
        MarkovianGPVAE(ONE, 2).double().predict_means(*ask)
    process = ODEProcess(MLPField(2, hidden=(4,)), 2)
    on = (Channel("on", kind="binary"),)
    model = LatentVAE(on, ReverseGRUEncoder(1, 2, 3), process, Bernoulli(2, 1)).double()
    with pytest.raises(ValueError, match=r"Bernoulli is none; use Gaussian, StudentT or Laplace"):
        model.predict_means(*ask)
    base = MarkovianGPVAE(ONE, 2)
    with pytest.raises(ValueError, match=r"the compensator of PoissonTimes needs a process that integrates"):
        LatentVAE(ONE, base.encoder, base.process, base.likelihood, times=PoissonTimes(2))
    with pytest.raises(ValueError, match="rate, the observation times per unit of the clock, must be above 0; got 0"):
        PoissonTimes(2, rate=0.0)
