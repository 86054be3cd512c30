"""The linear-Gaussian latent ODE has an exact evidence, posterior and predictive: the bounds are held against them."""

import json
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from ctdyn.data import IrregularBatch, Window
from ctdyn.data.channels import Channel
from ctdyn.encoders import Encoder, Encoding, GRUEncoder, JointEncoder, ODERNNEncoder, SummaryEncoder
from ctdyn.fields import LinearField, MLPField
from ctdyn.integrate import StepTo
from ctdyn.likelihoods import FixedScale, Gaussian
from ctdyn.models import ELBO, IWAE, KalmanVAE, KoopmanVAE, LatentVAE, MarkovianGPVAE
from ctdyn.models.objectives import Objective
from ctdyn.processes import CategoricalProcess, JointProcess, ODEProcess, StaticProcess
from ctdyn.solvers import Tsit5
from ctdyn.testing import check_model, example_window
from ctdyn.testing._judging import alone, padded


CHANNELS = (Channel("a"), Channel("b"))


class SigmaPoints(MultivariateNormal):
    """A normal whose 2 L samples integrate every quadratic exactly: Monte Carlo without the noise."""

    def rsample(self, sample_shape=()):
        size = self.event_shape[0]
        if tuple(sample_shape) != (2 * size,):
            raise ValueError(f"a rule of {2 * size} points; got {tuple(sample_shape)}")
        offsets = size**0.5 * self.scale_tril.movedim(-1, 0)
        return torch.cat([self.loc + offsets, self.loc - offsets])


class Constant(Encoder):
    """Says the same about every series."""

    provides = frozenset({"q0"})

    def __init__(self, q0):
        super().__init__()
        self.q0 = q0

    def forward(self, batch):
        return Encoding(q0=self.q0)


class Diagonal(Encoder):
    """One learned diagonal normal."""

    provides = frozenset({"q0"})

    def __init__(self, size):
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(1, size))
        self.log_std = nn.Parameter(torch.zeros(1, size))

    def forward(self, batch):
        return Encoding(q0=SigmaPoints(self.mean, scale_tril=torch.diag_embed(self.log_std.exp())))


@dataclass(frozen=True)
class Problem:
    """z0 ~ N(0, I), z(t) = expm(A t) z0, y = C z(t) + N(0, s^2): everything about it in closed form."""

    A: Tensor
    C: Tensor
    s: float
    times: Tensor
    y: Tensor

    @property
    def design(self) -> tuple[Tensor, Tensor]:
        """The observed entries as `H z0`, and their values."""
        H = torch.matrix_exp(self.A * self.times[:, None, None])
        seen = ~self.y.isnan()
        return (self.C @ H)[seen], self.y[seen]

    def log_evidence(self) -> Tensor:
        H, y = self.design
        covariance = H @ H.mT + self.s**2 * torch.eye(len(y), dtype=y.dtype)
        return MultivariateNormal(torch.zeros_like(y), covariance).log_prob(y)

    def posterior(self) -> tuple[Tensor, Tensor]:
        H, y = self.design
        covariance = torch.linalg.inv(torch.eye(2, dtype=y.dtype) + H.mT @ H / self.s**2)
        return covariance @ H.mT @ y / self.s**2, covariance

    def window(self) -> Window:
        """A context that starts at time 0, so that the latent state does; the target is the data."""
        mask = ~self.y.isnan()
        target = IrregularBatch(self.times[None], self.y.nan_to_num(0.0)[None], mask[None])
        start = torch.zeros(1, 1, dtype=self.times.dtype)
        context = IrregularBatch(start, torch.zeros(1, 1, 2, dtype=start.dtype), torch.ones(1, 1, 2, dtype=torch.bool))
        return Window(context, target)

    def model(self, encoder: Encoder, objective: Objective, num_steps: int = 20) -> LatentVAE:
        process = ODEProcess(LinearField(2), 2, solver=Tsit5(), controller=StepTo(num_steps))
        likelihood = Gaussian(2, 2, scale=FixedScale(self.s))
        model = LatentVAE(CHANNELS, encoder, process, likelihood, objective).double()
        affine = likelihood.mean.layers[0]
        affine.weight.data, affine.bias.data = self.C.clone(), torch.zeros(2, dtype=self.C.dtype)
        model.process.field.A.data = self.A.clone()
        return model


def _tensor(rows) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def _own() -> Problem:
    nan = float("nan")
    y = _tensor([[0.3, nan], [-0.2, 0.8], [nan, nan], [1.1, 0.4], [nan, -0.5], [0.7, -0.1]])
    times = _tensor([0.0, 0.15, 0.4, 0.9, 1.7, 2.2])
    return Problem(_tensor([[-0.1, 1.4], [-0.9, -0.3]]), _tensor([[0.8, -0.4], [0.1, 1.2]]), 0.3, times, y)


@pytest.fixture(scope="module")
def reference(reference_root) -> dict:
    return json.loads((reference_root / "vae" / "linear_gaussian_latent_ode.json").read_text())


def _given(reference: dict) -> Problem:
    A, C, times, y = (
        _tensor([[float(x) for x in row] for row in reference[key]])
        if key != "times"
        else _tensor([float(x) for x in reference[key]])
        for key in ("A", "C", "times", "y")
    )
    return Problem(A, C, float(reference["s"]), times, y)


def _bound(problem: Problem, q0, objective: Objective) -> Tensor:
    with torch.no_grad():
        model = problem.model(Constant(q0), objective)
        return -model.loss(problem.window(), generator=torch.Generator().manual_seed(0)).total


def _sigma(mean: Tensor, covariance: Tensor) -> SigmaPoints:
    return SigmaPoints(mean[None], covariance[None])


def test_the_elbo_is_the_log_evidence_at_the_exact_posterior():
    problem = _own()
    bound = _bound(problem, _sigma(*problem.posterior()), ELBO(num_samples=4))
    torch.testing.assert_close(bound, problem.log_evidence(), rtol=0, atol=1e-6)


def test_elsewhere_the_elbo_is_below_by_the_divergence_from_the_posterior():
    problem = _own()
    posterior = MultivariateNormal(*problem.posterior())
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        mean = torch.randn(2, generator=generator, dtype=torch.float64)
        root = torch.rand(2, 2, generator=generator, dtype=torch.float64).tril() + 0.1 * torch.eye(
            2, dtype=torch.float64
        )
        q0 = _sigma(mean, root @ root.mT)
        gap = kl_divergence(q0, MultivariateNormal(posterior.loc[None], posterior.covariance_matrix[None])).squeeze()
        bound = _bound(problem, q0, ELBO(num_samples=4))
        assert bound < problem.log_evidence()
        torch.testing.assert_close(bound + gap, problem.log_evidence(), rtol=1e-8, atol=1e-6)


@pytest.mark.parametrize("num_samples", [1, 7])
def test_at_the_exact_posterior_every_single_sample_gives_the_log_evidence(num_samples):
    """log p(x, z) - log q(z) has no variance there, so the importance-weighted bound is exact for any seed."""
    problem = _own()
    mean, covariance = problem.posterior()
    bound = _bound(problem, MultivariateNormal(mean[None], covariance[None]), IWAE(num_samples))
    torch.testing.assert_close(bound, problem.log_evidence(), rtol=0, atol=1e-6)


def test_the_importance_weighted_bound_grows_towards_the_evidence_and_stays_below():
    problem = _own()
    mean, _ = problem.posterior()
    q0 = Independent(Normal(mean.expand(200, 2) + 0.1, 0.25 * torch.ones(200, 2, dtype=torch.float64)), 1)
    window = problem.window()
    many = torch.zeros(200, dtype=torch.long)
    window = Window(window.context[many], window.target[many])
    bounds = []
    for num_samples in (1, 4, 16, 128):
        model = problem.model(Constant(q0), IWAE(num_samples), num_steps=3)
        with torch.no_grad():
            bounds.append(-model.loss(window, generator=torch.Generator().manual_seed(0)).total)
    evidence = problem.log_evidence()
    assert bounds[0] < bounds[1] < bounds[2] < evidence
    torch.testing.assert_close(bounds[-1], evidence, rtol=0, atol=0.05)


def test_training_finds_the_best_diagonal_posterior():
    """Its precision is the diagonal of the exact precision, and its gap is known."""
    problem = _own()
    mean, covariance = problem.posterior()
    best = _sigma(mean, torch.diag(1 / torch.linalg.inv(covariance).diag()))
    gap = kl_divergence(best, MultivariateNormal(mean[None], covariance[None])).squeeze()
    model = problem.model(Diagonal(2), ELBO(num_samples=4), num_steps=3)
    optimiser = torch.optim.LBFGS(model.encoder.parameters(), max_iter=60, line_search_fn="strong_wolfe")
    window = problem.window()

    def closure():
        optimiser.zero_grad()
        loss = model.loss(window).total
        loss.backward()
        return loss

    optimiser.step(closure)
    torch.testing.assert_close(-closure().detach() + gap, problem.log_evidence(), rtol=0, atol=1e-3)


@pytest.mark.parametrize("build", [GRUEncoder, ODERNNEncoder])
def test_no_encoder_exceeds_the_evidence_when_it_reconstructs(build):
    """`Reconstruct` shows the series to the encoder and scores it: a bound on the log evidence all the same."""
    problem = _own()
    target = problem.window().target
    for seed in range(3):
        torch.manual_seed(seed)
        model = problem.model(build(2, 2), ELBO(num_samples=500), num_steps=3)
        with torch.no_grad():
            bound = -model.loss(Window(target, target), generator=torch.Generator().manual_seed(0)).total
        assert bound < problem.log_evidence()


def test_unobserved_entries_add_nothing():
    problem = _own()
    window = problem.window()
    fewer = [0, 1, 3, 4, 5]
    without = Problem(problem.A, problem.C, problem.s, problem.times[fewer], problem.y[fewer])
    q0 = _sigma(*problem.posterior())
    assert not window.target.mask[0, 2].any()
    torch.testing.assert_close(_bound(problem, q0, ELBO(num_samples=4)), _bound(without, q0, ELBO(num_samples=4)))


def test_given_evidence_posterior_and_bounds(reference):
    problem = _given(reference)
    mean, covariance = problem.posterior()
    evidence = _tensor(float(reference["log_evidence"]))
    torch.testing.assert_close(problem.log_evidence(), evidence, rtol=0, atol=1e-12)
    torch.testing.assert_close(
        _bound(problem, _sigma(mean, covariance), ELBO(num_samples=4)), evidence, rtol=0, atol=1e-6
    )
    for case in reference["elbo_cases"]:
        mean, std = (_tensor([float(x) for x in case[key]]) for key in ("q_mean", "q_sd"))
        q0 = _sigma(mean, torch.diag(std.square()))
        model = problem.model(Constant(q0), ELBO(num_samples=4))
        loss = model.loss(problem.window())
        torch.testing.assert_close(-loss.total.detach(), _tensor(float(case["elbo"])), rtol=0, atol=1e-6)
        torch.testing.assert_close(loss.parts["kl"], _tensor(float(case["kl_to_prior"])), rtol=0, atol=1e-12)
        expected = _tensor(float(case["expected_loglik"]))
        torch.testing.assert_close(loss.parts["log_likelihood"], expected, rtol=0, atol=1e-6)


def test_given_predictive(reference):
    problem = _given(reference)
    model = problem.model(Constant(_sigma(*problem.posterior())), ELBO(num_samples=4))
    cases = reference["predictive"]
    ts = _tensor([[float(case["t"]) for case in cases]])
    with torch.no_grad():
        predictive = model.predict(problem.window().context, ts, num_samples=4)
    for i, case in enumerate(cases):
        mean, std = (_tensor([float(x) for x in case[key]]) for key in ("mean", "sd_observed"))
        torch.testing.assert_close(predictive.mean[0, i], mean, rtol=0, atol=1e-6)
        torch.testing.assert_close(predictive.stddev[0, i], std, rtol=0, atol=1e-6)


def _small(**kwargs) -> LatentVAE:
    parts = {
        "encoder": ODERNNEncoder(2, 3, hidden_size=6, head_hidden=()),
        "process": ODEProcess(LinearField(3), 3, learned_prior=True, solver=Tsit5(), controller=StepTo(1)),
        "likelihood": Gaussian(3, 2),
    }
    return LatentVAE(CHANNELS, **{**parts, **kwargs})


@pytest.mark.parametrize("objective", [ELBO(), ELBO(free_bits=0.1, num_samples=2), IWAE(4)])
def test_contract(objective):
    check_model(_small(objective=objective), example_window(2))


def test_the_parts_of_the_loss_add_up():
    model = _small().double()
    window = example_window(2)
    loss = model.loss(window, generator=torch.Generator().manual_seed(0))
    parts = loss.parts
    torch.testing.assert_close(parts["bound"], -loss.total.detach())
    torch.testing.assert_close(parts["bound"], parts["log_likelihood"] - parts["kl"])
    count = window.target.mask.sum()
    torch.testing.assert_close(parts["nats_per_observation"], -parts["bound"] * 4 / count)
    assert not any(part.requires_grad for part in parts.values())


@pytest.mark.parametrize("kind", [KoopmanVAE, KalmanVAE, MarkovianGPVAE])
def test_linear_gaussian_models_encode_where_a_series_ends(kind):
    """The mean that samples at the last observation have, whatever is padded and whoever is beside."""
    model = kind([Channel("a"), Channel("b")], 2).double().eval()
    context = example_window(2).context
    last = torch.where(context.observed, context.times, context.times[:, :1]).amax(-1, keepdim=True)
    encoding = model.encode_context(context)
    drawn = model.process.posterior(encoding, last[:, 0], last, 4000, torch.Generator().manual_seed(0)).zs
    found = model.encode(context)
    torch.testing.assert_close(found, drawn.mean(0).squeeze(-2), rtol=0, atol=0.08)
    torch.testing.assert_close(model.encode(padded(context, 3)), found)
    torch.testing.assert_close(model.encode(alone(context, 1)).squeeze(0), found[1])


def test_all_parts_of_a_joint_process_are_encoded():
    parts = [ODEProcess(MLPField(3), 3), StaticProcess(2, feature_size=8), CategoricalProcess(2, feature_size=8)]
    encoder = JointEncoder([GRUEncoder(2, 3), SummaryEncoder(GRUEncoder(2, 4))])
    model = LatentVAE(CHANNELS, encoder, JointProcess(parts), Gaussian(7, 2)).double()
    context = example_window(2).context
    encoding = model.encode_context(context)
    found = model.encode(context)
    assert found.shape == (4, 7)
    assert torch.equal(found[:, :3], encoding.q0.mean)
    ts = context.times[..., :1]
    drawn = model.process.posterior(encoding, ts[:, 0], ts, 4000, torch.Generator().manual_seed(0)).zs.mean(0)
    torch.testing.assert_close(found[:, 3:], drawn[..., 0, 3:], rtol=0, atol=0.08)


def test_a_process_that_knows_no_summary_takes_that_of_the_encoder():
    process, description = ODEProcess(MLPField(3), 3), torch.ones(4, 2)
    assert process.summary(Encoding(static=description)) is description
    with pytest.raises(ValueError, match=r"ODEProcess has no summary of its own"):
        process.summary(Encoding())


def test_capabilities():
    model = _small().double()
    window = example_window(2)
    assert model.encode(window.context).shape == (4, 3)
    made = model.sample(window.target.times, num_samples=5, generator=torch.Generator().manual_seed(0))
    assert made.mean.shape == window.target.values.shape
    score = model.log_prob(window, num_samples=6, generator=torch.Generator().manual_seed(0))
    predictive = model.predict(
        window.context, window.target.times, num_samples=6, generator=torch.Generator().manual_seed(0)
    )
    torch.testing.assert_close(score, predictive.joint_log_prob(window.target.values, window.target.mask))


class Silent(Encoder):
    provides = frozenset({"static"})

    def forward(self, batch):
        return Encoding(static=batch.values.sum((-1, -2)))


def test_parts_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"ODEProcess needs \['q0'\] from its encoder, and Silent provides"):
        _small(encoder=Silent())
    with pytest.raises(ValueError, match="decodes 3 channels, and the model has 2"):
        _small(likelihood=Gaussian(3, 3))
    with pytest.raises(ValueError, match="built for 2 channels"):
        _small().double().predict(example_window(3).context, torch.zeros(4, 1, dtype=torch.float64))
