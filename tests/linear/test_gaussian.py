"""Exact inference against dense Gaussian processes, reference values, and statsmodels."""

import json
import math
from dataclasses import replace

import pytest
import torch
from statsmodels.tsa.statespace.kalman_filter import KalmanFilter
from torch.distributions import MultivariateNormal

from ctdyn.data import IrregularBatch
from ctdyn.linear import (
    OU,
    Dense,
    Diagonal,
    Gaussian,
    HeldAfter,
    Impulse,
    LinearGaussian,
    Matern,
    ProductDynamics,
    Ramp,
    Rotations,
    SumDynamics,
    gaussian,
)


F64 = torch.float64


def f64(*values):
    return torch.tensor(values, dtype=F64)


def observe(ts, values, mask=None, **other):
    mask = torch.ones_like(values, dtype=torch.bool) if mask is None else mask
    return IrregularBatch(ts, torch.where(mask, values, 0.0), mask, **other)


def series(length, channels=1, missing=0.3, seed=0, batch=()):
    generator = torch.Generator().manual_seed(seed)
    ts = (torch.rand(*batch, length, generator=generator, dtype=F64) ** 2).cumsum(-1)
    values = torch.randn(*batch, length, channels, generator=generator, dtype=F64)
    mask = torch.rand(*batch, length, channels, generator=generator) > missing
    return observe(ts, values, mask)


def dense(model, batch):
    """Mean and covariance of all states of one series, `(time * state)`, and the rows that were observed."""
    chain = model.chain(batch)
    n, length = chain.F.shape[-1], chain.F.shape[-3]
    mean, P = chain.m0, chain.P0
    means, full = [], torch.zeros(length * n, length * n, dtype=F64)
    for k in range(length):
        F = chain.F[k]
        mean, P = F @ mean + chain.b[k], F @ P @ F.mT + chain.Q[k]
        means.append(mean)
        past = full[(k - 1) * n : k * n, : k * n] if k else full[:0, :0]
        if k:
            full[k * n : (k + 1) * n, : k * n] = F @ past
            full[: k * n, k * n : (k + 1) * n] = (F @ past).mT
        full[k * n : (k + 1) * n, k * n : (k + 1) * n] = P
    return torch.cat(means), full


def conditioned(model, batch):
    """Log-likelihood and smoothed states of one series, by the formulas for one large Gaussian."""
    mean, full = dense(model, batch)
    H = torch.block_diag(*[model.H.detach().double()] * batch.times.shape[-1])
    R = torch.block_diag(*[model.R.detach().double()] * batch.times.shape[-1])
    if batch.noise is not None:
        R = R + torch.diag(batch.noise.double().flatten() ** 2)
    offset = torch.zeros(model.H.shape[0], dtype=F64) if model.offset is None else model.offset.detach().double()
    kept = batch.mask.flatten()
    H, R = H[kept], R[kept][:, kept]
    x = (batch.values.double() - offset).flatten()[kept]
    S = H @ full @ H.mT + R
    gain = torch.linalg.solve(S, H @ full).mT
    nats = MultivariateNormal(H @ mean, S).log_prob(x) if kept.any() else torch.zeros((), dtype=F64)
    return nats, mean + gain @ (x - H @ mean), full - gain @ S @ gain.mT


MODELS = {
    "matern": lambda: LinearGaussian(Matern(2.5, lengthscale=f64(0.7)[0], variance=f64(1.4)[0]), R=f64(0.05)),
    "ou": lambda: LinearGaussian(OU(f64(0.5, 2.0), f64(1.0, 0.3)), H=f64([1.0, 1.0], [0.0, 2.0]), R=f64(0.1, 0.2)),
    "dense": lambda: LinearGaussian(
        Dense(
            f64([-0.5, 1.2, 0.0], [-1.2, -0.3, 0.4], [0.0, -0.2, -0.9]),
            S=f64([0.4, 0.1, 0.0], [0.1, 0.3, 0.0], [0.0, 0.0, 0.2]),
        ),
        H=f64([1.0, 0.0, 0.5], [0.0, 1.0, -0.2]),
        R=f64([0.04, 0.01], [0.01, 0.09]),
        offset=f64(0.3, -0.2),
        initial=Gaussian(f64(0.2, -0.1, 0.0), f64([1.0, 0.1, 0.0], [0.1, 0.8, 0.0], [0.0, 0.0, 0.5])),
    ),
    "sum": lambda: LinearGaussian(
        SumDynamics([Matern(1.5, lengthscale=f64(3.0)[0]), Rotations(f64(0.1), f64(5.0), sigma=f64(0.4))]),
        H=f64([1.0, 0.0, 1.0, 0.0]),
        R=f64(0.02),
    ),
    "product": lambda: LinearGaussian(ProductDynamics(Matern(1.5), OU(f64(0.2), f64(0.5))).double(), R=f64(0.1)),
    "known start": lambda: LinearGaussian(
        OU(f64(0.5, 2.0), f64(1.0, 0.3)),
        H=f64([1.0, -1.0]),
        R=f64(0.1),
        initial=Gaussian(f64(1.0, 2.0), torch.zeros(2, 2, dtype=F64)),
    ),
}


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("noisy", [False, True])
def test_inference_is_that_of_one_large_gaussian(kind, noisy):
    model = MODELS[kind]()
    batch = series(40, model.H.shape[0])
    if noisy:
        noise = torch.rand(batch.values.shape, dtype=F64)
        batch = IrregularBatch(batch.times, batch.values, batch.mask, noise=noise)
    nats, mean, covariance = (x.detach() for x in conditioned(model, batch))
    n = model.dynamics.state_size
    for chunks in (1, 4, 40):
        torch.testing.assert_close(model.log_prob(batch, chunks=chunks).detach(), nats, rtol=1e-11, atol=1e-11)
        states = model.smooth(batch, chunks=chunks)
        torch.testing.assert_close(states.mean.detach().flatten(), mean, rtol=0, atol=1e-10)
        blocks = torch.stack([covariance[k * n : (k + 1) * n, k * n : (k + 1) * n] for k in range(40)])
        torch.testing.assert_close(states.covariance.detach(), blocks, rtol=0, atol=1e-10)
    last = model.filter(batch)
    torch.testing.assert_close(last.mean[-1].detach(), mean[-n:], rtol=0, atol=1e-10)


def kernel_posterior(model, batch, at):
    """Gaussian process regression with a dense kernel matrix."""
    kept = batch.mask[:, 0]
    ts, x = batch.times[kept], batch.values[kept, 0]
    kernel = model.dynamics.kernel

    def matrix(a, b):
        return kernel((a[:, None] - b).flatten()).view(len(a), len(b)).detach()

    K = matrix(ts, ts) + model.R.detach()[0, 0] * torch.eye(len(ts), dtype=F64)
    cross = matrix(at, ts)
    solved = torch.linalg.solve(K, cross.mT).mT
    nats = MultivariateNormal(torch.zeros(len(ts), dtype=F64), K).log_prob(x)
    return nats, solved @ x, kernel(torch.zeros(1, dtype=F64)).detach() - (solved * cross).sum(-1)


@pytest.mark.parametrize("smoothness", [0.5, 1.5, 2.5, 3.5])
def test_it_is_gaussian_process_regression_at_any_time(smoothness):
    model = LinearGaussian(Matern(smoothness, lengthscale=f64(0.8)[0], variance=f64(2.0)[0]), R=f64(0.01))
    batch = series(60)
    at = torch.cat([f64(-3.0, 1e3), batch.times[5:8], 20 * torch.rand(10, dtype=F64) - 1])
    nats, mean, variance = kernel_posterior(model, batch, at)
    states = model.emit(model.predict(batch, at), noise=False)
    torch.testing.assert_close(model.log_prob(batch).detach(), nats, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(states.mean.detach()[:, 0], mean, rtol=0, atol=1e-9)
    torch.testing.assert_close(states.variance.detach()[:, 0], variance, rtol=0, atol=1e-9)


@pytest.mark.parametrize("noise", [1e-4, 1e-8, 1e-12])
def test_observations_may_be_very_precise(noise):
    model = LinearGaussian(Matern(1.5, lengthscale=f64(1.0)[0]), R=f64(noise))
    batch = series(80, missing=0.2)
    with torch.no_grad():
        found = [model.smooth(batch, chunks=chunks) for chunks in (1, 7, 40)]
        _, mean, _ = kernel_posterior(model, batch, batch.times)
        kept = batch.mask[:, 0]
        for states in found:
            assert float(states.variance.min()) > 0
            # Neighbours can only help.
            assert float(states.variance[kept, 0].max()) <= noise * (1 + 1e-6)
            assert float(states.variance[kept, 0].min()) > noise / 20
            torch.testing.assert_close(states.variance, found[0].variance, rtol=1e-3, atol=0)
            torch.testing.assert_close(states.mean, found[0].mean, rtol=1e-7, atol=1e-7)
            torch.testing.assert_close(states.mean[:, 0], mean, rtol=1e-5, atol=1e-5)
            torch.linalg.cholesky(states.covariance)
        nats = [float(model.log_prob(batch, chunks=chunks)) for chunks in (1, 7, 40)]
    assert max(nats) - min(nats) < 1e-8 * abs(nats[0])


def test_long_series_by_chunks_and_by_tiles(monkeypatch):
    model = MODELS["dense"]()
    batch = series(500, 2, batch=(2,))
    one = model.log_prob(batch, chunks=1)
    many = model.log_prob(batch)
    torch.testing.assert_close(many, one, rtol=1e-12, atol=1e-10)
    expected = torch.autograd.grad(many.sum(), list(model.parameters()))
    monkeypatch.setattr(gaussian, "_TILE", 1)
    tiled = model.log_prob(batch)
    torch.testing.assert_close(tiled, one, rtol=1e-12, atol=1e-10)
    got = torch.autograd.grad(tiled.sum(), list(model.parameters()))
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
    with torch.no_grad():
        torch.testing.assert_close(model.log_prob(batch), one, rtol=1e-12, atol=1e-10)


def test_tiles_take_gradients_to_what_made_the_parameters_and_to_the_data(monkeypatch):
    batch = series(400)
    raw = f64(0.3, -0.2).requires_grad_()
    values = batch.values.clone().requires_grad_()

    def slopes():
        model = LinearGaussian(Matern(1.5, lengthscale=raw[0].exp()), R=raw[1].exp())
        nats = model.log_prob(IrregularBatch(batch.times, values, batch.mask))
        return torch.autograd.grad(nats, (raw, values))

    whole = slopes()
    monkeypatch.setattr(gaussian, "_TILE", 1)
    for a, b in zip(slopes(), whole, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("hold", [None, HeldAfter(), Impulse(), Ramp()])
def test_inputs_act_as_the_hold_says(hold, monkeypatch):
    dynamics = Diagonal(f64(-0.5, -2.0), B=f64([1.0, 0.3], [0.2, 2.0]), S=torch.eye(2, dtype=F64))
    model = LinearGaussian(dynamics, H=f64([1.0, 1.0]), R=f64(0.1), hold=hold)
    batch = series(700)
    inputs = torch.randn(700, 2, dtype=F64)
    batch = IrregularBatch(batch.times, batch.values, batch.mask, inputs=inputs)
    free = IrregularBatch(batch.times, batch.values, torch.zeros_like(batch.mask), inputs=inputs)
    path = dynamics.scan(batch.times, inputs, hold=hold)
    torch.testing.assert_close(model.smooth(free).mean, path)
    # Taking out what the inputs do leaves an undriven model.
    plain = LinearGaussian(dynamics, H=f64([1.0, 1.0]), R=f64(0.1))
    rest = observe(batch.times, batch.values - path.detach().sum(-1, keepdim=True), batch.mask)
    torch.testing.assert_close(model.log_prob(batch), plain.log_prob(rest))
    at = batch.times[3:9] + 0.4 * batch.times[3:10].diff()
    between = dynamics.read(batch.times, path, at, us=inputs, **({} if hold is None else {"hold": hold}))
    torch.testing.assert_close(model.predict(free, at).mean, between)
    monkeypatch.setattr(gaussian, "_TILE", 1)
    torch.testing.assert_close(model.log_prob(batch), plain.log_prob(rest))


def test_padding_missing_rows_and_repeated_times_are_harmless():
    model = MODELS["ou"]()
    batch = series(12, 2)
    nats = model.log_prob(batch)
    end = batch.times[-1:].expand(4)
    empty = torch.zeros(4, 2, dtype=torch.bool)
    padded = observe(
        torch.cat([batch.times, end]), torch.cat([batch.values, torch.zeros(4, 2)]), torch.cat([batch.mask, empty])
    )
    torch.testing.assert_close(model.log_prob(padded), nats, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(model.smooth(padded).mean[:12], model.smooth(batch).mean, rtol=1e-12, atol=1e-12)
    # Two channels at one time are two rows at that time.
    apart = observe(
        batch.times.repeat_interleave(2),
        batch.values.repeat_interleave(2, 0),
        (batch.mask[:, None] & torch.eye(2, dtype=torch.bool)).flatten(0, 1),
    )
    torch.testing.assert_close(model.log_prob(apart), nats, rtol=1e-12, atol=1e-12)
    unseen = observe(batch.times, batch.values, torch.zeros_like(batch.mask))
    assert float(model.log_prob(unseen).detach()) == 0.0


def test_an_empty_batch_has_no_answers():
    model = LinearGaussian(Matern(1.5), R=0.1)
    batch = IrregularBatch(torch.zeros(0, 40), torch.zeros(0, 40, 1), torch.zeros(0, 40, 1, dtype=torch.bool))
    assert model.log_prob(batch).shape == (0,)
    assert model.filter(batch).mean.shape == model.smooth(batch).mean.shape == (0, 40, 2)
    assert model.predict(batch, torch.zeros(0, 3)).covariance.shape == (0, 3, 2, 2)
    assert model.sample_posterior(batch, torch.zeros(0, 3), 5).shape == (5, 0, 3, 2)


def test_series_do_not_mix_and_parameters_have_batch_axes():
    scales, noises = f64(0.5, 1.0, 2.0), f64([0.1], [0.2], [0.3])
    model = LinearGaussian(Matern(1.5, lengthscale=scales), R=noises)
    ts = torch.rand(4, 1, 9, dtype=F64).cumsum(-1)
    values = torch.randn(4, 3, 9, 1, dtype=F64)
    batch = observe(ts.expand(4, 3, 9), values, torch.rand(4, 3, 9, 1) > 0.2)
    nats, states = model.log_prob(batch), model.predict(batch, f64(0.3, 7.0).expand(4, 3, 2))
    assert nats.shape == (4, 3)
    assert states.mean.shape == (4, 3, 2, 2)
    alone = LinearGaussian(Matern(1.5, lengthscale=scales[1]), R=noises[1])
    one = observe(ts[2, 0], batch.values[2, 1], batch.mask[2, 1])
    torch.testing.assert_close(nats[2, 1], alone.log_prob(one))
    torch.testing.assert_close(states.covariance[2, 1], alone.predict(one, f64(0.3, 7.0)).covariance)
    assert model.sample(ts, 5).shape == (5, 4, 3, 9, 2)


def test_single_precision_batches_are_computed_in_double():
    model = LinearGaussian(Matern(2.5, lengthscale=0.7), R=1e-6)
    batch = series(50)
    double = model.smooth(batch)
    single = model.smooth(IrregularBatch(batch.times, batch.values.float(), batch.mask))
    assert single.mean.dtype == torch.float32
    torch.testing.assert_close(single.mean, double.mean.float(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(single.variance, double.variance.float(), rtol=1e-4, atol=1e-12)


def test_prior_samples_have_the_moments_of_the_prior():
    dynamics = Matern(1.5, lengthscale=f64(1.0)[0])
    ts = f64(0.0, 0.3, 0.3, 2.0)
    paths = LinearGaussian(dynamics, R=f64(0.1)).sample(ts, 40000, generator=torch.Generator().manual_seed(0))
    found = torch.cov(paths[..., 0].detach().mT)
    expected = dynamics.kernel((ts[:, None] - ts).flatten()).view(4, 4).detach()
    torch.testing.assert_close(found, expected, rtol=0, atol=0.03)
    torch.testing.assert_close(paths[:, 1], paths[:, 2], rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["matern", "dense"])
def test_posterior_samples_have_the_moments_of_the_posterior(kind):
    model = MODELS[kind]()
    batch = series(6, model.H.shape[0])
    _, mean, covariance = (x.detach() for x in conditioned(model, batch))
    paths = model.sample_posterior(batch, batch.times, 40000, generator=torch.Generator().manual_seed(0)).flatten(1)
    scale = covariance.diagonal().sqrt()
    torch.testing.assert_close((paths.detach().mean(0) - mean) / scale, torch.zeros_like(mean), rtol=0, atol=0.03)
    unit = scale[:, None] * scale
    torch.testing.assert_close(torch.cov(paths.detach().mT) / unit, covariance / unit, rtol=0, atol=0.04)


def test_observations_of_samples():
    model = MODELS["dense"]()
    batch = series(3, 2, missing=2.0)
    paths = model.sample(batch.times, 40000, generator=torch.Generator().manual_seed(0))
    seen = model.emit_samples(paths, generator=torch.Generator().manual_seed(1)).detach()
    expected = model.emit(model.smooth(batch))
    torch.testing.assert_close(seen.mean(0), expected.mean.detach(), rtol=0, atol=0.03)
    torch.testing.assert_close(torch.cov(seen[:, 2].mT), expected.covariance[2].detach(), rtol=0, atol=0.03)


def test_gradients_reach_everything():
    batch = series(9, 2)
    noise = torch.rand(9, 2, dtype=F64).add(0.1).requires_grad_()
    values = batch.values.clone().requires_grad_()
    A = f64([-0.5, 1.2], [-1.2, -0.3]).requires_grad_()
    H = f64([1.0, 0.3], [0.0, 1.0]).requires_grad_()
    L, root = (f64([0.4, 0.0], [0.1, 0.3]).requires_grad_() for _ in range(2))
    m0, P0 = f64(0.3, -0.2).requires_grad_(), f64([1.0, 0.0], [0.2, 0.7]).requires_grad_()
    ts = batch.times.clone().requires_grad_()

    def run(A, H, L, root, m0, P0, values, noise, ts):
        made = LinearGaussian(Dense(A, S=L @ L.mT), H=H, R=root @ root.mT, initial=Gaussian(m0, P0 @ P0.mT))
        given = IrregularBatch(ts, torch.where(batch.mask, values, 0.0), batch.mask, noise=noise)
        later = made.predict(given, f64(1.1, 9.0))
        filtered = made.filter(given, chunks=3)
        drawn = made.sample_posterior(given, f64(1.1), generator=torch.Generator().manual_seed(0))
        return made.log_prob(given, chunks=3), later.mean, later.covariance, filtered.variance[4], drawn

    assert torch.autograd.gradcheck(run, (A, H, L, root, m0, P0, values, noise, ts), fast_mode=True)


def test_second_derivatives_of_the_likelihood():
    batch = series(7)
    parameters = f64(-0.2, 0.3, -1.0).requires_grad_()

    def run(p):
        return LinearGaussian(Matern(1.5, lengthscale=p[0].exp(), variance=p[1].exp()), R=p[2].exp()).log_prob(batch)

    assert torch.autograd.gradgradcheck(run, parameters)


def test_against_statsmodels():
    torch.manual_seed(0)
    A, H = torch.randn(3, 3, dtype=F64) - 2 * torch.eye(3, dtype=F64), torch.randn(2, 3, dtype=F64)
    model = LinearGaussian(Dense(A, S=torch.eye(3, dtype=F64)), H=H, R=f64(0.1, 0.3))
    values = torch.randn(30, 2, dtype=F64)
    mask = torch.rand(30, 2) > 0.3
    step = model.dynamics.discretize(f64(0.4)[0], noise=True)
    oracle = KalmanFilter(k_endog=2, k_states=3)
    oracle.bind(torch.where(mask, values, math.nan).numpy())
    oracle["design"], oracle["transition"] = H.numpy(), step.A_bar.detach().numpy()
    oracle["selection"], oracle["state_cov"] = torch.eye(3, dtype=F64).numpy(), step.Q.detach().numpy()
    oracle["obs_cov"] = torch.diag(f64(0.1, 0.3)).numpy()
    oracle.initialize_known(torch.zeros(3, dtype=F64).numpy(), model.dynamics.stationary().detach().numpy())
    nats = model.log_prob(observe(0.4 * torch.arange(30, dtype=F64), values, mask))
    assert float(nats.detach()) == pytest.approx(oracle.loglike(), rel=1e-10)


def test_reference_matern(reference_root):
    case = json.loads((reference_root / "ssm" / "matern_gp_vs_kalman.json").read_text())

    def read(values):
        return torch.tensor([float(x) for x in values], dtype=F64)

    ts, x = read(case["times"]), read(case["y"])[:, None]
    batch = observe(ts, x, ~x.isnan())
    for name, want in case["models"].items():
        logs = [math.log(float(want[key])) for key in ("lengthscale", "sigma", "noise_sd")]
        length, sigma, noise = (torch.tensor(v, dtype=F64, requires_grad=True) for v in logs)
        dynamics = Matern(int(name[-3]) / 2, lengthscale=length.exp(), variance=(2 * sigma).exp())
        model = LinearGaussian(dynamics, R=(2 * noise).exp())
        for chunks in (1, 4, None):
            nats = model.log_prob(batch, chunks=chunks)
            assert float(nats.detach()) == pytest.approx(float(want["log_marginal_likelihood"]), rel=1e-12)
            slopes = torch.stack(torch.autograd.grad(nats, (length, sigma, noise), retain_graph=True))
            expected = read(want["grad_wrt_log_lengthscale_logsigma_lognoise"])
            torch.testing.assert_close(slopes, expected, rtol=0, atol=1e-11)
            at = read(want["query_times"])
            states = {
                "smoothed": model.smooth(batch, chunks=chunks),
                "filtered": model.filter(batch, chunks=chunks),
                "query": model.predict(batch, at, chunks=chunks),
            }
            for key, found in states.items():
                torch.testing.assert_close(found.mean[:, 0].detach(), read(want[f"{key}_mean"]), rtol=0, atol=1e-11)
                torch.testing.assert_close(found.variance[:, 0].detach(), read(want[f"{key}_var"]), rtol=0, atol=1e-11)


def test_reference_with_channels_partly_missing(reference_root):
    case = json.loads((reference_root / "ssm" / "lti_sde_partial_missing.json").read_text())

    def read(x):
        return torch.tensor([[[float(v) for v in row] if isinstance(row, list) else float(row) for row in part]
                             for part in x], dtype=F64)  # fmt: skip

    L, x = read(case["L"]), read(case["y"])
    model = LinearGaussian(
        Dense(read(case["A"]), S=L @ L.mT),
        H=read(case["C"]),
        R=read(case["R"]),
        initial=Gaussian(read(case["m0"])[:, 0], read(case["P0"])),
    )
    batch = observe(torch.tensor([float(t) for t in case["times"]], dtype=F64), x, ~x.isnan())
    for chunks in (1, 3):
        nats = model.log_prob(batch, chunks=chunks).detach()
        assert float(nats) == pytest.approx(float(case["loglik"]), rel=1e-13)
        found = {"filtered": model.filter(batch, chunks=chunks), "smoothed": model.smooth(batch, chunks=chunks)}
        for key, states in found.items():
            torch.testing.assert_close(states.mean.detach(), read(case[f"{key}_mean"]), rtol=0, atol=1e-12)
            torch.testing.assert_close(states.covariance.detach(), read(case[f"{key}_cov"]), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: LinearGaussian(Matern(1.5), R=-1.0), "R must be positive"),
        (lambda: LinearGaussian(Matern(1.5), R=torch.ones(2)), "one variance for each of the 1 rows of H"),
        (lambda: LinearGaussian(OU([1.0, 2.0], 1.0), H=torch.eye(3), R=1.0), "H must be"),
        (
            lambda: LinearGaussian(OU([1.0, 2.0], 1.0), H=torch.eye(2), R=torch.tensor([[1.0, 2.0], [2.0, 1.0]])),
            "R is not positive definite",
        ),
        (
            lambda: LinearGaussian(OU(1.0, 1.0), R=1.0, initial=Gaussian(torch.zeros(1), -torch.eye(1))),
            r"initial.covariance is not positive semi-definite \(PSD\)",
        ),
        (lambda: LinearGaussian(Dense(torch.eye(2), S=torch.eye(2)), H=torch.eye(2), R=1.0), "no stationary"),
        (lambda: LinearGaussian(Dense(-torch.eye(2), S=torch.eye(2)), R=1.0), "give the observation matrix H"),
        (lambda: LinearGaussian(Matern(1.5), R=1.0).log_prob(series(3, 2)), "2 channels"),
        (lambda: MODELS["dense"]().predict(series(3, 2), f64(-1.0)), "before the first time"),
        (lambda: LinearGaussian(Matern(1.5), R=1.0).predict(series(3), f64(math.nan)), "query times hold NaN"),
        (lambda: LinearGaussian(Matern(1.5), R=1.0).log_prob(series(0)), "no times"),
        (
            lambda: LinearGaussian(Matern(1.5), R=1.0).log_prob(
                observe(f64(0.0), torch.zeros(1, 1), inputs=torch.zeros(1, 5))
            ),
            "5 inputs",
        ),
        (
            lambda: LinearGaussian(Matern(1.5), R=1.0).log_prob(
                observe(1.7e9 + torch.tensor([0.0, 200.0, 400.0]), torch.zeros(3, 1))
            ),
            "collapse",
        ),
        (lambda: LinearGaussian(Matern(1.5), R=1.0).sample(1.7e9 + torch.tensor([0.0, 200.0, 400.0])), "collapse"),
        (lambda: LinearGaussian(Matern(1.5), R=1.0).sample(f64(0.0), inputs=torch.zeros(1, 5)), "5 inputs"),
        (lambda: LinearGaussian(Matern(1.5), R=1.0, offset=torch.zeros(3)), "offset must be .*channel=1"),
        (
            lambda: LinearGaussian(Matern(1.5), R=1.0).log_prob(
                replace(observe(f64(0.0), torch.zeros(1, 1)), noise=-torch.ones(1, 1))
            ),
            "noise of an observation is negative",
        ),
        (
            lambda: LinearGaussian(
                Dense(torch.eye(1)), H=torch.eye(1), R=1.0, initial=Gaussian(torch.zeros(1), torch.eye(1))
            ).log_prob(observe(f64(0.0, 1e4), torch.zeros(2, 1))),
            "overflow over a long gap",
        ),
        (lambda: Gaussian(torch.zeros(2), torch.eye(3)), "needs a mean"),
    ],
)
def test_bad_input(call, match):
    with pytest.raises(ValueError, match=match):
        call()


def test_a_complex_state_is_refused():
    with pytest.raises(TypeError, match="Rotations"):
        LinearGaussian(Diagonal(torch.tensor([-1 + 1j])), H=torch.ones(1, 1), R=1.0)


def test_parameters_that_ran_off_are_named():
    model = LinearGaussian(Matern(1.5), R=0.1)
    with torch.no_grad():
        model.dynamics.log_variance.fill_(math.nan)
    with pytest.raises(ValueError, match="finite"):
        model.log_prob(series(5))
