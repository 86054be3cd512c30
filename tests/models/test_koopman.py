"""What a Koopman model says of itself, and what is done with its forecasts: spectra, corrections, refinement."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Independent, Normal

from ctdyn.data import IrregularBatch, from_ragged
from ctdyn.data.channels import Channel
from ctdyn.encoders import Encoder, Encoding, GRUEncoder, Sites
from ctdyn.fields import LinearField, MLPField
from ctdyn.forecast import Forecaster
from ctdyn.integrate import ConstantStep
from ctdyn.likelihoods import FixedScale, Gaussian, Likelihood
from ctdyn.linear import LinearGaussian, Matern, Oscillators
from ctdyn.models import KoopmanVAE, LatentODE, LatentVAE, Reencoded, Refined, Spectrum
from ctdyn.processes import LinearGaussianProcess, ODEProcess
from ctdyn.solvers import RK4
from ctdyn.testing import check_model, example_window


F64 = torch.float64
CHANNELS = (Channel("a"), Channel("b"))


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def with_weights(model, weight):
    (layer,) = (module for module in model.likelihood.modules() if isinstance(module, nn.Linear))
    with torch.no_grad():
        layer.weight.copy_(weight)
    return model


def test_the_spectrum_of_an_affine_model_is_that_of_its_parts():
    dynamics = Oscillators([2.0, 9.0], decay=[0.1, 0.5], variance=[1.0, 4.0])
    weight = torch.tensor([[1.0, 0.0, 0.0, 2.0], [0.0, -1.0, 0.5, 0.0]])
    model = with_weights(KoopmanVAE(CHANNELS, dynamics=dynamics, decoder_hidden=()), weight)
    found = model.spectrum(num_samples=1)
    # The second shows more: 4 * (2^2 + 0.5^2) against 1 * (1 + 1).
    torch.testing.assert_close(found.eigenvalues, torch.tensor([-0.5 + 9.0j, -0.1 + 2.0j]))
    torch.testing.assert_close(found.modes, torch.tensor([[-2.0j, 0.5 + 0.0j], [1.0 + 0.0j, 1.0j]]))
    torch.testing.assert_close(found.period, torch.tensor([2 * math.pi / 9, math.pi]))
    torch.testing.assert_close(found.half_life, math.log(2) / torch.tensor([0.5, 0.1]))
    torch.testing.assert_close(found.contribution, torch.tensor([[16.0, 1.0], [1.0, 1.0]]))
    # Re(m z) is what the decoder makes of the coordinate.
    z = torch.complex(torch.tensor([0.3, -1.0]), torch.tensor([0.7, 0.2]))
    order = [1, 0]
    shown = (found.modes * z[order][:, None]).real.sum(0)
    torch.testing.assert_close(shown, weight @ torch.view_as_real(z).flatten())


def test_the_spectrum_in_other_units_and_as_a_table():
    spectrum = Spectrum(torch.tensor([-0.5 + 2.0j]), torch.tensor([[3.0 + 4.0j, 1.0j]]), torch.tensor([2.0]))
    months = spectrum.rescaled(time=12.0, values=torch.tensor([10.0, 1.0]))
    torch.testing.assert_close(months.period, torch.tensor([12.0 * math.pi]))
    # A zero has a sign: neither of them decays.
    circle = Spectrum(torch.tensor([complex(0.0, 2.0), complex(-0.0, 2.0)]), torch.ones(2, 1) + 0j, torch.ones(2))
    assert circle.half_life.tolist() == [math.inf, math.inf]
    table = months.table()
    assert table["amplitude 0"] == pytest.approx([50.0])
    assert table["growth"] == pytest.approx([-0.5 / 12])
    assert set(table) == {
        "growth", "frequency", "period", "half_life", "variance", "amplitude 0", "amplitude 1",
    }  # fmt: skip


def test_the_spectrum_in_the_units_of_the_series():
    """The numbers that the scaler has learnt, as the docstring of `rescaled` gives them."""
    rng = np.random.default_rng(0)
    times, values = np.sort(rng.uniform(0, 10, (6, 20))), rng.normal(size=(6, 20, 2))
    found = []
    for unit, size in ((1.0, 1.0), (60.0, 10.0)):
        series = from_ragged([(unit * t, size * x) for t, x in zip(times, values, strict=True)], channels=["a", "b"])
        torch.manual_seed(0)
        model = KoopmanVAE(series.channels, dynamics=Oscillators([2.0, 9.0], decay=0.1))
        forecaster = Forecaster(model).fit(series, max_steps=1, enable_progress_bar=False)
        learnt = forecaster.scaler_.statistics
        found.append(model.spectrum().rescaled(time=learnt.time_scale, values=torch.tensor(learnt.scale)))
    hours, minutes = found
    torch.testing.assert_close(minutes.period, 60.0 * hours.period)
    torch.testing.assert_close(minutes.modes, 10.0 * hours.modes, rtol=1e-3, atol=1e-3)


def test_modes_through_a_bent_decoder_are_the_projections_on_the_coordinates():
    """Stein's lemma: the mean slope under a normal prior is the regression on it."""
    model = KoopmanVAE(CHANNELS, dynamics=Oscillators([[2.0], [9.0]], decay=0.5), decoder_hidden=(16,))
    with torch.no_grad():
        for parameter in model.likelihood.mean.parameters():
            parameter.mul_(3.0)
    found = model.spectrum(num_samples=20_000)
    z = torch.randn(100_000, 1, 2, generator=rng())
    with torch.no_grad():
        mean = model.likelihood(z, torch.zeros(100_000, 1)).mean
    slopes = torch.einsum("ntl,ntc->lc", z, mean) / len(z)
    # Each latent dimension reads the real part of a coordinate of its own.
    order = found.eigenvalues.imag.argsort()
    torch.testing.assert_close(found.modes[order].real, slopes, rtol=0, atol=0.02)
    torch.testing.assert_close(found.modes.imag, torch.zeros(2, 2))


def test_a_spectrum_needs_oscillators():
    model = KoopmanVAE(CHANNELS, pairs=1)
    with pytest.raises(ValueError, match="num_samples must be at least 1"):
        model.spectrum(num_samples=0)
    model.process = LinearGaussianProcess(Matern(1.5, lengthscale=[1.0]))
    with pytest.raises(ValueError, match="of Oscillators"):
        model.spectrum()


def test_wrapped_models_keep_the_contract():
    model = KoopmanVAE(CHANNELS, pairs=1, encoder_hidden=(8,), decoder_hidden=())
    check_model(Reencoded(model, every=0.4), example_window(2), steps=15)
    check_model(Refined(model, steps=2, num_samples=1), example_window(2), steps=15)


class OnTheCircle(Likelihood):
    """Shows the direction of a state alone: whatever its length, it stands for a point of the circle."""

    def __init__(self):
        super().__init__(2)

    def forward(self, z, ts, noise=None):
        return Normal(z / z.norm(dim=-1, keepdim=True), 0.05)


class FromTheCircle(Encoder):
    provides = frozenset({"sites"})

    def forward(self, batch):
        precision = torch.full_like(batch.values, 400.0)
        return Encoding(sites=Sites(batch.times, 1.5 * batch.values, precision, batch.mask))


def circle():
    """A clock hand, and a model whose linear dynamics shrink and are noisy where the hand is not."""
    process = LinearGaussianProcess(Oscillators([2 * math.pi], decay=0.15))
    return LatentVAE([Channel("x"), Channel("y")], FromTheCircle(), process, OnTheCircle()).double()


def test_a_corrected_course_is_better_than_a_plain_forecast():
    phase = torch.rand(16, 1, generator=rng(), dtype=F64) * 2 * math.pi
    ts = torch.linspace(0, 4, 33, dtype=F64).expand(16, -1)
    angle = 2 * math.pi * ts + phase
    values = torch.stack([angle.cos(), angle.sin()], -1)
    context = IrregularBatch(ts[:, :5], values[:, :5], torch.ones(16, 5, 2, dtype=torch.bool))
    later, truth = ts[:, 5:], values[:, 5:]
    errors = {}
    for every in (0.5, 100.0, math.inf):
        predicted = Reencoded(circle(), every=every).predict(context, later, num_samples=400, generator=rng(1)).mean
        errors[every] = float((predicted - truth).square().mean().detach())
    plain = circle().predict(context, later, num_samples=400, generator=rng(1)).mean
    assert errors[100.0] == pytest.approx(float((plain - truth).square().mean().detach()), rel=1e-9)
    assert errors[math.inf] == pytest.approx(errors[100.0], rel=1e-9)
    assert errors[0.5] < 0.8 * errors[100.0]


def test_reencoding_answers_at_any_times_and_reads_from_the_last_observation():
    model = Reencoded(circle(), every=0.5, points=2)
    mask = torch.tensor([[[True, True], [True, True], [False, False]]])
    context = IrregularBatch(torch.tensor([[0.0, 0.2, 0.7]], dtype=F64), torch.ones(1, 3, 2, dtype=F64), mask)
    ts = torch.tensor([[1.9, 0.1, 0.7, 3.0, -1.0]], dtype=F64)
    every = model.predict(context, ts, num_samples=3, generator=rng()).distribution.mean
    # The first stage ends half a unit after the last observation, at 0.2.
    plain = model.model.predict(context, ts, num_samples=3, generator=rng()).distribution.mean
    same = ((every - plain).abs() < 1e-9).all(-1).all(0)[0]
    assert same.tolist() == [False, True, True, False, True]
    fewer = model.predict(context, ts[:, [3, 0]], num_samples=3, generator=rng()).distribution.mean
    torch.testing.assert_close(fewer, every[:, :, [3, 0]])
    for wrong in ({"every": 0.0}, {"every": 1.0, "points": 0}):
        with pytest.raises(ValueError, match="Reencoded needs"):
            Reencoded(circle(), **wrong)


@pytest.mark.parametrize("points", [1, 2])
def test_no_stage_is_solved_back_to_what_was_asked_before_it(points):
    process = ODEProcess(LinearField(1, matrix=[[-30.0]]), 1, solver=RK4(), controller=ConstantStep(0.05))
    model = LatentVAE([Channel("x")], GRUEncoder(1, 1), process, Gaussian(1, 1)).double()
    ts = torch.tensor([[0.0, 0.5, 1.0]], dtype=F64)
    context = IrregularBatch(ts, ts.sin().unsqueeze(-1), torch.ones(1, 3, 1, dtype=torch.bool))
    asked = torch.tensor([[0.5, 1.5, 30.0]], dtype=F64)
    found = Reencoded(model, every=1.0, points=points).predict(context, asked, num_samples=2, generator=rng())
    # Everything is forgotten within a stage.
    rest = model.likelihood(torch.zeros(1, 3, 1, dtype=F64), asked).mean
    torch.testing.assert_close(found.mean, rest, rtol=0, atol=1e-5)


def exact_model(wrong):
    """One process seen through noise: the best sites are known, and the encoder is off by what is given."""

    class Off(Encoder):
        provides = frozenset({"sites"})

        def forward(self, batch):
            mean = torch.where(batch.mask, batch.values, 0) / 2.0 + wrong
            return Encoding(sites=Sites(batch.times, mean, torch.full_like(mean, 4.0 / 0.16), batch.mask))

    likelihood = Gaussian(1, 1, scale=FixedScale(0.4)).double()
    with torch.no_grad():
        likelihood.mean.layers[0].weight.fill_(2.0)
        likelihood.mean.layers[0].bias.zero_()
    process = LinearGaussianProcess(Matern(1.5, lengthscale=[0.5])).double()
    return LatentVAE([Channel("x")], Off(), process, likelihood)


def one_channel(count=3):
    ts = torch.rand(count, 8, generator=rng(), dtype=F64).sort(-1).values
    values = torch.sin(5 * ts)[..., None] + 0.3 * torch.randn(count, 8, 1, generator=rng(1), dtype=F64)
    return IrregularBatch(ts, values, torch.ones_like(values, dtype=torch.bool))


def log_evidence(batch):
    dynamics = Matern(1.5, lengthscale=0.5).double()
    H = (2.0 * dynamics.readout)[None]
    return LinearGaussian(dynamics, H=H, R=torch.tensor([0.16], dtype=F64)).log_prob(batch)


@pytest.mark.parametrize("wrong", [0.0, 0.5])
def test_refinement_raises_the_bound_towards_the_evidence_and_never_lowers_it(wrong):
    model = Refined(exact_model(wrong), steps=60, lr=0.05, num_samples=8)
    batch = one_channel()
    before = model.bound(batch, model.model.encoder(batch), 500, rng(7)).detach()
    after = model.bound(batch, model.refine(batch, generator=rng(2)), 500, rng(7)).detach()
    evidence = log_evidence(batch).detach()
    if wrong:
        assert ((evidence - after) < 0.35 * (evidence - before)).all()
    # At the exact posterior there is nothing to gain, and nothing may be lost.
    assert (after > before - 0.03).all()
    assert (after < evidence + 0.1).all()


def test_reencoding_takes_the_inputs_along():
    model = LatentODE(CHANNELS, 2, (8,), encoder_size=6, input_size=2, static_size=1, controller=ConstantStep(0.5))
    window = example_window(2, input_size=2, static_size=1)
    check_model(Reencoded(model, every=0.3, points=2), window, steps=15)


def test_the_bound_does_not_fall_with_a_reckless_rate():
    model, batch = Refined(exact_model(0.2), steps=3, lr=30.0, num_samples=2), one_channel()
    before = model.bound(batch, model.model.encoder(batch), 200, rng(7))
    after = model.bound(batch, model.refine(batch, generator=rng(5)), 200, rng(7))
    assert (after >= before - 0.2).all()


def test_refinement_moves_an_initial_state_and_refuses_what_it_cannot_move():
    process = ODEProcess(MLPField(2, hidden=(8,)), 2, controller=ConstantStep(0.25))
    model = Refined(LatentVAE(CHANNELS, GRUEncoder(2, 2, 4), process, Gaussian(2, 2)), steps=5).double()
    context = example_window(2).context
    before, after = model.model.encoder(context).q0, model.refine(context, generator=rng()).q0
    assert (before.mean - after.mean).abs().max() > 1e-3
    assert model.log_prob(example_window(2), num_samples=3, generator=rng()).shape == (4,)
    assert model.sample(context.times, num_samples=2, generator=rng()).mean.shape == (4, 6, 2)

    class Odd(Encoder):
        provides = frozenset({"q0"})

        def forward(self, batch):
            return Encoding(q0=Independent(torch.distributions.Laplace(batch.values[..., 0, :], 1.0), 1))

    odd = Refined(LatentVAE(CHANNELS, Odd(), process, Gaussian(2, 2))).double()
    with pytest.raises(ValueError, match="diagonal normal"):
        odd.refine(context)
    with pytest.raises(ValueError, match="above 0"):
        Refined(exact_model(0.0), steps=0)
