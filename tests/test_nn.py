import pytest
import torch
from torch import nn
from torch.distributions import Bernoulli, Beta, Categorical, Independent, MixtureSameFamily, Normal, StudentT

from ctdyn._config import from_config, to_config
from ctdyn.nn import ACTIVATIONS, MLP, LowRankSparse, fork_rng, repeat_last, rsample, sample, take_items


DISTRIBUTIONS = [
    Normal(torch.zeros(3), torch.ones(3)),
    StudentT(torch.full((3,), 4.0)),
    Bernoulli(logits=torch.zeros(3)),
    Beta(torch.ones(3), torch.ones(3)),
    Independent(Normal(torch.zeros(2, 3), 1.0), 1),
    MixtureSameFamily(Categorical(torch.ones(2, 3)), Normal(torch.zeros(2, 3), 1.0)),
]


@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=lambda d: type(d).__name__)
def test_the_generator_decides_and_the_global_seed_is_left_alone(distribution):
    before = torch.get_rng_state()
    first = sample(distribution, (5,), generator=torch.Generator().manual_seed(1))
    torch.manual_seed(99)
    again = sample(distribution, (5,), generator=torch.Generator().manual_seed(1))
    other = sample(distribution, (5,), generator=torch.Generator().manual_seed(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    torch.set_rng_state(before)
    sample(distribution, (5,), generator=torch.Generator().manual_seed(3))
    assert torch.equal(torch.get_rng_state(), before)


def test_one_generator_gives_new_draws_every_time():
    generator = torch.Generator().manual_seed(0)
    normal = Normal(torch.zeros(3), 1.0)
    assert not torch.equal(sample(normal, generator=generator), sample(normal, generator=generator))


def test_without_a_generator_the_global_seed_decides_and_advances():
    normal = Normal(torch.zeros(3), 1.0)
    with torch.random.fork_rng(()):
        torch.manual_seed(0)
        first, second = sample(normal), sample(normal)
        torch.manual_seed(0)
        assert torch.equal(sample(normal), first)
        assert not torch.equal(first, second)


def test_the_global_seed_is_put_back_after_an_error():
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="inside"), fork_rng(torch.Generator().manual_seed(0)):
        raise RuntimeError(f"inside {torch.rand(3)}")
    assert torch.equal(torch.get_rng_state(), before)


def test_sample_has_no_gradient_and_rsample_has():
    mean = torch.zeros(3, requires_grad=True)
    assert not sample(Normal(mean, 1.0)).requires_grad
    draws = rsample(Normal(mean, 1.0), (4,), generator=torch.Generator().manual_seed(0))
    draws.sum().backward()
    assert torch.equal(mean.grad, torch.full((3,), 4.0))


def test_rsample_of_a_discrete_distribution_is_refused():
    with pytest.raises(NotImplementedError):
        rsample(Bernoulli(logits=torch.zeros(3)))


def test_draws_follow_the_distribution():
    draws = sample(Normal(2.0, 3.0), (20000,), generator=torch.Generator().manual_seed(0))
    assert abs(draws.mean() - 2.0) < 0.1
    assert abs(draws.std() - 3.0) < 0.1


def test_mlp_is_affine_without_hidden_layers_and_has_no_activation_at_the_end():
    mlp = MLP(3, 2, hidden=(), activation=nn.ReLU).double()
    x = torch.randn(4, 3, dtype=torch.float64)
    zero = mlp(torch.zeros(4, 3, dtype=torch.float64))
    assert torch.allclose(mlp(2 * x) - zero, 2 * (mlp(x) - zero))
    assert len([m for m in MLP(3, 2, hidden=(4, 5)).modules() if isinstance(m, nn.Tanh)]) == 2


@pytest.mark.parametrize("activation", ACTIVATIONS.values())
def test_mlp_survives_configuration(activation):
    mlp = MLP(3, 2, hidden=[4], activation=activation)
    again = from_config(to_config(mlp), {"MLP": MLP, **ACTIVATIONS})
    again.load_state_dict(mlp.state_dict())
    x = torch.randn(5, 3)
    assert torch.equal(again(x), mlp(x))


def test_bad_sizes_and_activations_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        MLP(0, 2)
    with pytest.raises(ValueError, match="at least 1"):
        MLP(1, 2, hidden=(3, 0))
    for activation in ("tanh", nn.Tanh()):
        with pytest.raises(TypeError, match="activation"):
            MLP(1, 2, activation=activation)


def test_a_recurrent_matrix_of_low_rank_begins_as_the_best_one_and_stays_sparse():
    torch.manual_seed(0)
    layer = nn.Linear(7, 6)
    before = layer.weight.detach().clone()
    LowRankSparse(rank=2, sparsity=0.5).constrain(layer, columns=slice(3, None))
    form = layer.parametrizations.weight
    torch.testing.assert_close(layer.weight[:, :3], before[:, :3])
    U, S, V = torch.linalg.svd(before[:, 3:])
    torch.testing.assert_close(layer.weight[:, 3:], (U[:, :2] * S[:2] @ V[:2]) * form[0].mask)
    zeros = layer.weight == 0
    assert 4 <= int(zeros.sum()) <= 20
    layer(torch.randn(5, 7)).square().sum().backward()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter -= parameter.grad
    assert torch.equal(layer.weight == 0, zeros)
    assert torch.linalg.matrix_rank(form.original1 @ form.original2) == 2
    # A saved one comes back with its mask.
    again = nn.Linear(7, 6)
    LowRankSparse(rank=2, sparsity=0.5).constrain(again, columns=slice(3, None))
    again.load_state_dict(layer.state_dict())
    assert torch.equal(again.weight, layer.weight)


def test_matrices_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="rank must be at most 2"):
        LowRankSparse(rank=3).constrain(nn.Linear(2, 6))
    with pytest.raises(ValueError, match="sparsity must be"):
        LowRankSparse(sparsity=1.0)
    with pytest.raises(ValueError, match="rank must be at least 1"):
        LowRankSparse(rank=0)


@pytest.mark.parametrize("batch", [(), (4,), (2, 3), (0,)])
def test_items_are_taken_as_by_gather_with_their_gradients(batch):
    x = torch.randn(*batch, 5, 2, 3, dtype=torch.float64, requires_grad=True)
    index = torch.randint(5, (*batch, 7))
    found, expected = take_items(x, index, -3), torch.take_along_dim(x, index[..., None, None], -3)
    assert torch.equal(found, expected)
    weights = torch.randn_like(found)
    pair = [torch.autograd.grad((y * weights).sum(), x)[0] for y in (found, expected)]
    torch.testing.assert_close(*pair)


@pytest.mark.parametrize("count", [[5, 5, 5], [5, 4, 0]])
def test_the_last_item_is_repeated_whatever_the_batch_axes(count):
    x = torch.randn(2, 1, 5, 3)
    found = repeat_last(x, torch.tensor(count), -2)
    assert found.shape == (2, 3, 5, 3)
    for row, number in enumerate(count):
        last = max(number, 1)
        torch.testing.assert_close(found[:, row, :last], x[:, 0, :last])
        torch.testing.assert_close(found[:, row, last:], x[:, 0, last - 1 : last].expand(-1, 5 - last, -1))
