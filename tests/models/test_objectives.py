import math

import pytest
import torch

from ctdyn.models import ELBO, IWAE, Anneal
from ctdyn.processes import LatentSample


def _sample(num_samples=4, batch=3, latent=2, closed=True):
    generator = torch.Generator().manual_seed(0)
    log_prob = -torch.rand(num_samples, batch, generator=generator, dtype=torch.float64)
    ratio = -torch.rand(num_samples, batch, generator=generator, dtype=torch.float64)
    by_dimension = torch.rand(batch, latent, generator=generator, dtype=torch.float64)
    zs = torch.zeros(num_samples, batch, 1, latent, dtype=torch.float64)
    kl = {"z0": by_dimension.sum(-1)} if closed else {}
    return log_prob, LatentSample(zs, {"z0": ratio}, kl, by_dimension if closed else None)


def test_elbo_is_expected_log_likelihood_minus_divergence():
    log_prob, latent = _sample()
    torch.testing.assert_close(ELBO().bound(log_prob, latent, step=0), log_prob.mean(0) - latent.kl["z0"])


def test_elbo_estimates_a_divergence_without_closed_form_from_the_samples():
    log_prob, latent = _sample(closed=False)
    torch.testing.assert_close(ELBO().bound(log_prob, latent), (log_prob + latent.log_terms["z0"]).mean(0))


def test_every_source_of_divergence_counts():
    log_prob, latent = _sample()
    path = torch.full((4, 3), -0.5, dtype=torch.float64)
    both = LatentSample(latent.zs, {**latent.log_terms, "path": path}, latent.kl, latent.kl_by_dimension)
    torch.testing.assert_close(ELBO().bound(log_prob, both), ELBO().bound(log_prob, latent) - 0.5)
    torch.testing.assert_close(IWAE(4).bound(log_prob, both), IWAE(4).bound(log_prob, latent) - 0.5)


def test_iwae_is_a_log_mean_exp_with_its_minus_log_k():
    log_prob, latent = _sample()
    weights = (log_prob + latent.log_terms["z0"]).exp()
    torch.testing.assert_close(IWAE(4).bound(log_prob, latent), weights.mean(0).log())
    one, single = log_prob[:1], LatentSample(latent.zs[:1], {"z0": latent.log_terms["z0"][:1]})
    torch.testing.assert_close(IWAE(1).bound(one, single), (one + single.log_terms["z0"]).squeeze(0))


def test_annealing_is_a_function_of_the_step_alone_and_ends_at_the_bound():
    log_prob, latent = _sample()
    objective = ELBO(beta=Anneal(100, start=0.2))
    expected = log_prob.mean(0)
    for step, beta in ((0, 0.2), (50, 0.6), (100, 1.0), (10_000, 1.0)):
        torch.testing.assert_close(objective.bound(log_prob, latent, step), expected - beta * latent.kl["z0"])
    torch.testing.assert_close(objective.bound(log_prob, latent), ELBO().bound(log_prob, latent))


def test_free_bits_cost_at_least_their_price_and_stop_the_gradient_below():
    by_dimension = torch.tensor([[0.1, 0.9]], dtype=torch.float64, requires_grad=True)
    latent = LatentSample(
        torch.zeros(4, 1, 1, 2), {"z0": torch.zeros(4, 1)}, {"z0": by_dimension.sum(-1)}, by_dimension
    )
    bound = ELBO(free_bits=0.5).bound(torch.zeros(4, 1, dtype=torch.float64), latent, step=3)
    assert bound.item() == pytest.approx(-1.4)
    bound.sum().backward()
    assert by_dimension.grad.tolist() == [[0.0, -1.0]]
    true_bound = ELBO(free_bits=0.5).bound(torch.zeros(4, 1, dtype=torch.float64), latent)
    assert true_bound.item() == pytest.approx(-1.0)


def test_free_bits_need_independent_dimensions():
    log_prob, latent = _sample(closed=False)
    with pytest.raises(ValueError, match="per latent dimension"):
        ELBO(free_bits=0.1).bound(log_prob, latent, step=0)


def test_a_constant_weight_is_off_in_the_true_bound():
    log_prob, latent = _sample()
    assert not torch.allclose(ELBO(beta=4.0).bound(log_prob, latent, 7), ELBO(beta=4.0).bound(log_prob, latent))
    torch.testing.assert_close(ELBO(beta=4.0).bound(log_prob, latent), ELBO().bound(log_prob, latent))


def test_iwae_survives_very_unlikely_data():
    log_prob = torch.full((5, 2), -1e5, dtype=torch.float64)
    latent = LatentSample(torch.zeros(5, 2, 1, 1), {"z0": torch.zeros(5, 2, dtype=torch.float64)})
    torch.testing.assert_close(IWAE(5).bound(log_prob, latent), log_prob[0])
    assert math.isfinite(IWAE(5).bound(log_prob, latent).sum())


@pytest.mark.parametrize(
    "build",
    [
        lambda: ELBO(beta=-1.0),
        lambda: ELBO(free_bits=-0.1),
        lambda: Anneal(0),
        lambda: Anneal(10, start=2.0),
    ],
)
def test_impossible_objectives_are_refused(build):
    with pytest.raises(ValueError, match="needs"):
        build()


@pytest.mark.parametrize("build", [lambda: ELBO(num_samples=0), lambda: IWAE(0), lambda: IWAE(-1)])
def test_objectives_need_a_sample(build):
    with pytest.raises(ValueError, match="num_samples must be at least 1"):
        build()
