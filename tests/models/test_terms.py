"""What is added to a loss, and scores of representations: on systems whose answers are known."""

import math
from dataclasses import replace

import pytest
import torch

from ctdyn.data import IrregularBatch, Window
from ctdyn.data.channels import Channel
from ctdyn.encoders import Encoding, GRUEncoder, Sites, SummaryEncoder
from ctdyn.fields import LinearField, MLPField
from ctdyn.integrate import ConstantStep
from ctdyn.likelihoods import Gaussian
from ctdyn.linear import fit_transition
from ctdyn.models import (
    ELBO,
    Anneal,
    CapacityELBO,
    Inference,
    InformationScore,
    KoopmanVAE,
    LatentVAE,
    LinearPriorPenalty,
    RelaxedScore,
    RepresentationTerm,
    Supervision,
    VAMPScore,
)
from ctdyn.models.terms.representation import lagged
from ctdyn.nn import MLP
from ctdyn.processes import LatentSample, ODEProcess, StaticProcess
from ctdyn.solvers import RK4
from ctdyn.testing import check_model, example_window


F64 = torch.float64
CHANNELS = (Channel("a"), Channel("b"))


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def stationary_pairs(count, correlation, seed=0):
    x = torch.randn(count, 1, generator=rng(seed), dtype=F64)
    noise = torch.randn(count, 1, generator=rng(seed + 100), dtype=F64)
    return x, correlation * x + math.sqrt(1 - correlation**2) * noise


def linear_pairs(count=200_000):
    """A linear system with known moments: its stationary covariance solves C = K C K' + Q."""
    K = torch.tensor([[0.8, 0.3], [-0.2, 0.5]], dtype=F64)
    Q = torch.diag(torch.tensor([0.3, 0.5], dtype=F64))
    identity = torch.eye(4, dtype=F64)
    C = torch.linalg.solve(identity - torch.kron(K, K), Q.flatten()).view(2, 2)
    x = torch.randn(count, 2, generator=rng(), dtype=F64) @ torch.linalg.cholesky(C).mT
    y = x @ K.mT + torch.randn(count, 2, generator=rng(1), dtype=F64) @ Q.sqrt()
    return K, C, x, y


def test_the_transition_of_a_linear_system_is_found_and_so_is_its_spectrum():
    K, _, x, y = linear_pairs()
    found = fit_transition(x, y)
    torch.testing.assert_close(found, K, rtol=0, atol=0.01)
    exact = fit_transition(x[:50], x[:50] @ K.mT, ridge=0.0)
    torch.testing.assert_close(torch.linalg.eigvals(exact), torch.linalg.eigvals(K), rtol=0, atol=1e-10)
    assert fit_transition(x, y, ridge=100.0).norm() < 0.1
    with pytest.raises(ValueError, match="as many pairs"):
        fit_transition(x, y[:3])
    with pytest.raises(ValueError, match="at least 0"):
        fit_transition(x, y, ridge=-1.0)


def test_the_vamp_score_of_a_linear_system_is_known_and_does_not_depend_on_the_basis():
    K, C, x, y = linear_pairs()
    # C_xy = C K', and both marginals are C.
    exact = torch.trace(torch.linalg.solve(C, C @ K.mT) @ torch.linalg.solve(C, K @ C))
    torch.testing.assert_close(VAMPScore()(x, y), exact, rtol=0, atol=0.01)
    mixed = torch.tensor([[2.0, 1.0], [0.0, 0.1]], dtype=F64)
    torch.testing.assert_close(VAMPScore()(x @ mixed + 5.0, y @ mixed + 5.0), VAMPScore()(x, y), rtol=0, atol=1e-3)


def test_the_relaxed_score_is_below_and_equal_where_features_are_orthonormal():
    _, C, x, y = linear_pairs()
    assert RelaxedScore(gamma=0.0)(x, y) < VAMPScore()(x, y) + 0.01
    white = torch.linalg.inv(torch.linalg.cholesky(C)).mT
    torch.testing.assert_close(RelaxedScore()(x @ white, y @ white), VAMPScore()(x, y), rtol=0, atol=0.03)
    assert RelaxedScore()(3.0 * x @ white, 3.0 * y @ white) < RelaxedScore()(x @ white, y @ white) - 1.0


@pytest.mark.parametrize("score", [VAMPScore(), RelaxedScore()])
def test_a_network_trained_by_a_score_finds_the_slow_functions_of_a_process(score):
    """The transfer operator of an Ornstein-Uhlenbeck process has eigenvalues rho, rho^2 ... (Hermite polynomials)."""
    rho = 0.8
    torch.manual_seed(0)
    net = MLP(1, 2, (16,)).double()
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-2)
    for step in range(300):
        x, y = stationary_pairs(1000, rho, step)
        optimiser.zero_grad()
        now, later = net(x), net(y)
        if isinstance(score, RelaxedScore):
            # Its moments are about zero; without their means the features have none to spend on the constant.
            middle = torch.cat([now, later]).mean(0)
            now, later = now - middle, later - middle
        (-score(now, later)).backward()
        optimiser.step()
    x, y = stationary_pairs(100_000, rho, 10_000)
    now, later = net(x).detach(), net(y).detach()
    reached = float(VAMPScore()(now, later))
    # No two functions can know more of the future.
    assert 0.93 * (rho**2 + rho**4) < reached < rho**2 + rho**4 + 0.02
    centre = now.mean(0)
    values = torch.linalg.eigvals(fit_transition(now - centre, later - centre)).real.sort().values
    torch.testing.assert_close(values, torch.tensor([rho**2, rho], dtype=F64), rtol=0, atol=0.06)


def test_the_information_score_rewards_the_future_and_punishes_collapse():
    x = torch.randn(256, 4, generator=rng(), dtype=F64)
    turned = x @ torch.linalg.qr(torch.randn(4, 4, generator=rng(1), dtype=F64)).Q
    information = InformationScore(entropy=0.0, prediction=0.0)
    # At most as many nats as there are pairs to tell apart.
    assert 3.0 < float(information(x, x)) <= math.log(256)
    assert information(x, x.flip(0)) < 0.0
    # White features: entropy log 4; a linear future is not missed, an unrelated one is missed as a whole.
    entropy = InformationScore(prediction=0.0)(x, x) - information(x, x)
    torch.testing.assert_close(entropy, torch.tensor(math.log(4), dtype=F64), rtol=0, atol=0.05)
    linear, unrelated = (
        float(information(x, y) - InformationScore(entropy=0.0)(x, y)) for y in (turned, x.flip(0).roll(3, 0))
    )
    assert linear < 1e-4
    assert unrelated > 0.9
    collapsed = x[:, :1] * torch.tensor([1.0, 0.01, 0.01, 0.01], dtype=F64)
    lost = InformationScore(prediction=0.0)(collapsed, collapsed) - information(collapsed, collapsed)
    assert float(lost) < 0.05


def test_pairs_a_lag_apart_are_found_on_irregular_times():
    times = torch.tensor([[0.0, 0.1, 0.35, 0.4, 0.5], [0.0, 0.2, 0.3, 0.3, 0.3]])
    mean = torch.arange(10.0).view(2, 5, 1)
    mask = torch.ones_like(mean, dtype=torch.bool)
    mask[1, 3:] = False
    now, later = lagged(Sites(times, mean, mask.float(), mask), 0.1, 1e-3)
    assert now.flatten().tolist() == [0.0, 3.0, 6.0]
    assert later.flatten().tolist() == [1.0, 4.0, 7.0]
    # Nothing is a pair with itself, however short the lag.
    assert lagged(Sites(times, mean, mask.float(), mask), 1e-7, 0.0)[0].numel() == 0
    model = KoopmanVAE(CHANNELS, pairs=2, terms=[RepresentationTerm(VAMPScore(), lag=77.0)]).double()
    with pytest.raises(ValueError, match="fewer than the 4 coordinates"):
        model.loss(example_window(2))


def flat(zs, labels=None):
    _, count, length, size = zs.shape
    values = torch.zeros(count, length, 1)
    batch = IrregularBatch(torch.zeros(count, length), values, values == 0, labels=labels)
    return Inference(batch, Encoding(), LatentSample(zs), ODEProcess(LinearField(size), size))


def test_a_linear_prior_costs_nothing_and_a_bent_one_does():
    class Bent(ODEProcess):
        def prior(self, t0, ts, num_samples=1, generator=None, inputs=None):
            zs = super().prior(t0, ts, num_samples, generator, inputs).zs
            return LatentSample(zs.sign() * zs.square())

    turning = [[0.0, 1.0], [-1.0, 0.0]]
    term = LinearPriorPenalty(weight=3.0, ridge=1e-9)
    straight = ODEProcess(LinearField(2, matrix=turning), 2, solver=RK4(), controller=ConstantStep(0.05))
    like = torch.zeros((), dtype=F64)
    assert float(term.residual(straight.double(), rng(), like).detach()) < 1e-8
    bent = Bent(LinearField(2, matrix=turning), 2, solver=RK4(), controller=ConstantStep(0.05))
    residual = float(term.residual(bent.double(), rng(), like).detach())
    assert residual > 1e-4
    inference = flat(torch.zeros(1, 3, 1, 2, dtype=F64))
    whole = term(Inference(inference.context, inference.encoding, inference.latent, bent, rng()))
    assert float(whole.detach()) == pytest.approx(3.0 * residual)
    with pytest.raises(ValueError, match="above 0"):
        LinearPriorPenalty(weight=0.0)


def test_the_penalty_makes_a_prior_linear():
    torch.manual_seed(0)
    process = ODEProcess(MLPField(2, hidden=(16,)), 2, solver=RK4(), controller=ConstantStep(0.25)).double()
    with torch.no_grad():
        for parameter in process.field.parameters():
            parameter.mul_(3.0)
    term = LinearPriorPenalty(steps=4, dt=0.25)
    like = torch.zeros((), dtype=F64)
    optimiser = torch.optim.Adam(process.field.parameters(), lr=1e-2)
    before = float(term.residual(process, rng(), like).detach())
    for step in range(60):
        optimiser.zero_grad()
        term.residual(process, rng(step), like).backward()
        optimiser.step()
    assert float(term.residual(process, rng(), like).detach()) < 0.2 * before


def test_supervision_is_the_density_of_the_labels_given_the_chosen_entries():
    labels = torch.tensor([[1.0, math.nan], [0.5, 2.0]])
    zs = torch.tensor([[[[0.2, 9.0, 1.0]] * 3, [[0.4, 9.0, 2.0]] * 3]])
    # Before training the labels have no units.
    term = Supervision([0, 2], weight=2.0).eval()
    normal = torch.distributions.Normal
    expected = normal(0.2, 0.5).log_prob(torch.tensor(1.0)) + normal(0.4, 0.5).log_prob(torch.tensor(0.5))
    expected = expected + normal(2.0, 0.5).log_prob(torch.tensor(2.0))
    torch.testing.assert_close(term(flat(zs, labels)), -2.0 * expected / 2)
    with pytest.raises(ValueError, match="the series have 0 labels"):
        term(flat(zs))
    with pytest.raises(ValueError, match="latent state has 3 dimensions"):
        Supervision([0, 3])(flat(zs, labels))
    with pytest.raises(ValueError, match="each once"):
        Supervision([1, 1])
    with pytest.raises(ValueError, match=r"of 3 dimensions \[0, -3\] name one twice"):
        Supervision([0, -3])(flat(zs, labels))


@pytest.mark.parametrize(("shift", "unit"), [(0.0, 1.0), (5000.0, 2000.0), (-3.0, 1e-6)])
def test_labels_come_in_their_own_units(shift, unit):
    """What is trained is the same, and the loss that of the density in these units; the first batch says which."""
    window, hidden = levels()

    def labelled(number):
        batch = replace(window.context, labels=shift + unit * number * hidden[:, :1])
        return Window(batch, batch)

    model = static_model(ELBO(beta=Anneal(100)), [Supervision([0], weight=10.0)])
    parts = train(model, labelled(1.0), 20)
    plain = static_model(ELBO(beta=Anneal(100)), [Supervision([0], weight=10.0)])
    expected = train(plain, window, 20)
    torch.testing.assert_close(parts["Supervision"], expected["Supervision"] + 10.0 * math.log(unit), rtol=0, atol=1e-5)
    term = model.terms[0]
    assert term.units.width.item() == pytest.approx(unit * float(hidden[:, 0].std(correction=0)), rel=1e-6)
    model.loss(labelled(9.0))
    assert term.units.width.item() == pytest.approx(unit * float(hidden[:, 0].std(correction=0)), rel=1e-6)


def test_units_of_labels_that_are_equal_or_not_known():
    term = Supervision([0, 1])
    zs = torch.zeros(1, 2, 3, 2)
    term(flat(zs, torch.tensor([[7.0, math.nan], [7.0, math.nan]])))
    assert (term.units.center.tolist(), term.units.width.tolist()) == ([7.0, 0.0], [7.0, 1.0])
    term(flat(zs, torch.tensor([[1.0, 2.0], [3.0, 4.0]])))
    assert (term.units.center.tolist(), term.units.width.tolist()) == ([7.0, 3.0], [7.0, 1.0])


def test_padding_and_series_without_a_target_do_not_move_supervision():
    labels = torch.tensor([[1.0], [0.5]])
    zs = torch.randn(1, 2, 3, 2, generator=rng())
    padded = torch.cat([zs, 9.0 * torch.ones(1, 2, 4, 2)], 2)
    plain, longer = flat(zs, labels), flat(padded, labels)
    real = torch.arange(7).expand(2, -1) < 3
    term = Supervision([0])
    torch.testing.assert_close(term(replace(longer, observed=real)), term(plain))
    assert bool(torch.isfinite(term(replace(plain, observed=torch.zeros(2, 3, dtype=torch.bool)))))


def levels(count=64):
    """Constant series of two numbers that are seen mixed, labelled by one of them."""
    hidden = torch.randn(count, 2, generator=rng(), dtype=F64)
    seen = hidden @ torch.tensor([[1.0, 0.6], [-0.7, 1.0]], dtype=F64)
    values = seen[:, None, :] + 0.1 * torch.randn(count, 6, 2, generator=rng(1), dtype=F64)
    times = torch.linspace(0, 1, 6, dtype=F64).expand(count, -1)
    batch = IrregularBatch(times, values, torch.ones_like(values, dtype=torch.bool), labels=hidden[:, :1])
    return Window(batch, batch), hidden


def static_model(objective, terms=()):
    torch.manual_seed(0)
    encoder = SummaryEncoder(GRUEncoder(2, 4, 8, head_hidden=(16,)))
    return LatentVAE(CHANNELS, encoder, StaticProcess(2, 8), Gaussian(2, 2), objective, terms).double()


def train(model, window, steps, lr=1e-2):
    optimiser, generator = torch.optim.Adam(model.parameters(), lr=lr), rng(2)
    for step in range(steps):
        optimiser.zero_grad()
        model.loss(window, generator=generator, step=step).total.backward()
        optimiser.step()
    return model.loss(window, generator=generator).parts


def test_a_supervised_entry_is_the_label_and_the_other_is_not():
    window, hidden = levels()
    model = static_model(ELBO(beta=Anneal(100)), [Supervision([0], weight=10.0)])
    parts = train(model, window, 200)
    assert "Supervision" in parts
    mean = model.process.net(model.encoder(window.context).static)[:, :2].detach()
    table = torch.corrcoef(torch.cat([mean, hidden], -1).mT).abs()
    assert table[0, 2] > 0.97
    assert table[1, 2] < 0.5


@pytest.mark.parametrize("capacity", [1.0, 3.0])
def test_a_capacity_is_reached(capacity):
    window, _ = levels()
    model = static_model(CapacityELBO({"static": capacity}, gamma=20.0, steps=80))
    parts = train(model, window, 200)
    assert float(parts["kl"]) == pytest.approx(capacity, abs=0.3)


def test_capacities_name_divergences_that_there_are():
    latent = LatentSample(torch.zeros(1, 1, 1, 1), {}, {"static": torch.tensor([2.0]), "class": torch.tensor([1.0])})
    log_prob = torch.tensor([[-5.0]])
    objective = CapacityELBO({"static": 4.0}, gamma=3.0, steps=10)
    assert objective.bound(log_prob, latent, 5).item() == pytest.approx(-5.0 - 0.0 - 1.0)
    assert objective.bound(log_prob, latent, 10).item() == pytest.approx(-5.0 - 6.0 - 1.0)
    assert objective.bound(log_prob, latent).item() == pytest.approx(-8.0)
    with pytest.raises(ValueError, match=r"no divergence 'z0' to give a capacity; there are \['class', 'static'\]"):
        CapacityELBO({"z0": 1.0}).bound(log_prob, latent, 1)
    for wrong in ({}, {"static": -1.0}):
        with pytest.raises(ValueError, match="needs at least one capacity"):
            CapacityELBO(wrong)


@pytest.mark.parametrize(
    "terms",
    [
        lambda: [RepresentationTerm(VAMPScore(), lag=0.2, tolerance=0.9)],
        lambda: [RepresentationTerm(InformationScore(), lag=0.2, tolerance=0.9), LinearPriorPenalty(0.1)],
    ],
)
def test_models_with_terms_keep_the_contract(terms):
    model = KoopmanVAE(CHANNELS, pairs=1, encoder_hidden=(8,), decoder_hidden=(), terms=terms())
    check_model(model, example_window(2))
