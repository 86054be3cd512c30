import math

import pytest
import torch
from torch.distributions import Independent, Normal

from ctdyn.data import IrregularBatch
from ctdyn.models import LatentODE, Predictive
from ctdyn.models.base import input_path


def _mixture(num_samples=3):
    generator = torch.Generator().manual_seed(0)
    loc = torch.randn(num_samples, 2, 4, 1, generator=generator, dtype=torch.float64)
    return Normal(loc, torch.full_like(loc, 0.5))


def test_moments_follow_the_laws_of_total_mean_and_variance():
    normal = _mixture()
    predictive = Predictive(normal)
    torch.testing.assert_close(predictive.mean, normal.loc.mean(0))
    torch.testing.assert_close(predictive.stddev.square(), 0.25 + normal.loc.var(0, correction=0))
    draws = predictive.sample(torch.Generator().manual_seed(0), draws=20_000)
    assert draws.shape == (60_000, 2, 4, 1)
    torch.testing.assert_close(draws.mean(0), predictive.mean, rtol=0, atol=0.02)
    torch.testing.assert_close(draws.std(0), predictive.stddev, rtol=0, atol=0.02)


def test_log_prob_is_marginal_by_entry_and_joint_by_series():
    normal = _mixture()
    predictive = Predictive(normal)
    values = torch.zeros(2, 4, 1, dtype=torch.float64)
    mask = torch.tensor([[True, True, False, True], [True, False, False, True]]).unsqueeze(-1)
    densities = normal.log_prob(values).exp()
    got = predictive.log_prob(values, mask)
    torch.testing.assert_close(got, torch.where(mask, densities.mean(0).log(), 0))
    joint = torch.where(mask, densities, 1).prod(-2).squeeze(-1).mean(0).log()
    torch.testing.assert_close(predictive.joint_log_prob(values, mask), joint)


def test_quantiles_of_many_draws_are_those_of_the_mixture():
    predictive = Predictive(Normal(torch.zeros(1, 1, 1, dtype=torch.float64), 1.0))
    levels = [0.05, 0.5, 0.95]
    quantiles = predictive.quantile(levels, torch.Generator().manual_seed(0), draws=100_000).flatten()
    expected = torch.tensor([-1.6449, 0.0, 1.6449], dtype=torch.float64)
    torch.testing.assert_close(quantiles, expected, rtol=0, atol=0.02)
    draws = predictive.sample(torch.Generator().manual_seed(0), 100_000)
    torch.testing.assert_close(quantiles, draws.flatten().quantile(torch.tensor(levels, dtype=torch.float64)))


def test_sampling_follows_the_generator():
    predictive = Predictive(_mixture())
    one, two = (predictive.sample(torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(one, two)


@pytest.mark.parametrize(
    "distribution", [Independent(Normal(torch.zeros(3, 2, 4, 1), 1.0), 1), Normal(torch.zeros(4, 1), 1.0)]
)
def test_another_shape_is_refused(distribution):
    with pytest.raises(ValueError, match="sample, \\*batch, time, channel"):
        Predictive(distribution)


def test_a_model_needs_channels():
    with pytest.raises(TypeError, match=r"series\.channels"):
        LatentODE([])
    with pytest.raises(TypeError, match="channels"):
        LatentODE(["pulse"])


def _part(times, inputs):
    times = torch.tensor(times, dtype=torch.float64)
    mask = torch.ones(*times.shape, 1, dtype=torch.bool)
    inputs = None if inputs is None else torch.tensor(inputs, dtype=torch.float64).unsqueeze(-1)
    return IrregularBatch(times, mask.to(times.dtype), mask, inputs=inputs)


def test_inputs_of_context_and_target_make_one_path_without_their_padding():
    context = _part([[0.0, 2.0, 2.0], [0.0, 1.0, 3.0]], [[1.0, 3.0, 0.0], [0.0, 1.0, 3.0]])
    target = _part([[1.0, 4.0], [5.0, 5.0]], [[7.0, 9.0], [5.0, 0.0]])
    path = input_path(context, target)
    ts = torch.tensor([[0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 9.0], [0.0, 0.5, 1.0, 2.0, 4.0, 5.0, 9.0]], dtype=torch.float64)
    expected = torch.tensor(
        [[1.0, 4.0, 7.0, 3.0, 6.0, 9.0, 9.0], [0.0, 0.5, 1.0, 2.0, 4.0, 5.0, 5.0]], dtype=torch.float64
    )
    torch.testing.assert_close(path(ts).squeeze(-1), expected)


def test_inputs_in_one_part_only_are_refused():
    bare, driven = _part([[0.0, 1.0]], None), _part([[2.0, 3.0]], [[0.0, 1.0]])
    assert input_path(bare, bare) is None
    with pytest.raises(ValueError, match="both or neither"):
        input_path(bare, driven)
    assert math.isclose(input_path(driven).evaluate(torch.tensor([2.5], dtype=torch.float64)).item(), 0.5)
