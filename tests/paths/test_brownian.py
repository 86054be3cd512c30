import math

import pytest
import torch

from ctdyn.paths import StoredBrownian, VirtualBrownianTree
from ctdyn.testing import check_brownian


F64 = torch.float64
PINNED = [[0.3870226804019542, 0.1927109045262939], [-2.1751019644000777, 11.403302419258434]]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def grid_of(steps, batch, end=1.0):
    return torch.linspace(0.0, end, steps + 1, dtype=F64).reshape(-1, *[1] * len(batch)).expand(-1, *batch)


def full(batch, value):
    return torch.full(batch, value, dtype=F64)


@pytest.mark.parametrize("origin", [0.0, 1.1, -7.3])
def test_the_virtual_tree_keeps_the_contract(origin):
    tree = VirtualBrownianTree(torch.arange(1500), 2, t0=origin)
    check_brownian(tree, full((1500,), 0.0), full((1500,), 3.0))
    check_brownian(tree, full((1500,), 2.0), full((1500,), 2.0 + 1e-3), seed=1)


@pytest.mark.parametrize("backward", [False, True])
def test_stored_increments_keep_the_contract_on_and_between_the_nodes(backward):
    grid = grid_of(7, (3, 500), 2.0)
    start, end = full((3, 500), 0.0), full((3, 500), 2.0)
    if backward:
        grid, start, end = 2.0 - grid, end, start
    check_brownian(StoredBrownian.draw(grid, 2, generator=seeded(3)), start, end)


@pytest.mark.parametrize("kind", ["tree", "stored"])
def test_between_two_known_values_lies_a_bridge(kind):
    count = 20_000
    if kind == "tree":
        motion = VirtualBrownianTree.draw((count,), 1, generator=seeded())
    else:
        motion = StoredBrownian.draw(grid_of(1, (count,)), 1, generator=seeded())
    inner, end = (motion.evaluate(full((count,), t))[:, 0] for t in (0.3, 1.0))
    rest = inner - 0.3 * end
    error = 5 / math.sqrt(count)
    assert abs(float((rest * end).mean())) < error
    assert abs(float(rest.mean())) < error
    assert abs(float(rest.var()) / (0.3 * 0.7) - 1) < 1.5 * error


def test_the_tree_gives_these_very_numbers_everywhere():
    tree = VirtualBrownianTree(torch.tensor([1, 2**40]), 2)
    found = tree.evaluate(torch.tensor([0.3, 1000.0], dtype=F64))
    expected = torch.tensor(PINNED, dtype=F64)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_a_series_has_its_motion_by_its_seed():
    seeds = torch.arange(6).reshape(2, 3)
    t0 = torch.rand(2, 3, dtype=F64, generator=seeded())
    times = torch.rand(5, 2, 3, dtype=F64, generator=seeded(1))
    whole = VirtualBrownianTree(seeds, 2, t0).evaluate(times)
    alone = VirtualBrownianTree(seeds[1:, 2:], 2, t0[1:, 2:]).evaluate(times[:, 1:, 2:])
    torch.testing.assert_close(whole[:, 1:, 2:], alone, rtol=0, atol=1e-12)


def test_a_finer_tolerance_changes_only_what_lies_below_the_coarser():
    coarse, fine = (VirtualBrownianTree(torch.arange(50), 2, tol=tol) for tol in (2.0**-8, 2.0**-26))
    node, between = full((50,), 5 * 2.0**-8), full((50,), 5.4 * 2.0**-8)
    torch.testing.assert_close(coarse.evaluate(node), fine.evaluate(node), rtol=0, atol=1e-14)
    difference = coarse.evaluate(between) - fine.evaluate(between)
    assert 0 < float(difference.abs().max()) < 2.0**-4


def test_a_longer_grid_begins_like_a_shorter_one():
    for batch, size in (((3,), 2), ((40, 30), 5), ((), 1)):
        grid = (0.1 * torch.arange(401, dtype=F64)).reshape(-1, *[1] * len(batch)).expand(-1, *batch)
        short, long = (StoredBrownian.draw(grid[: n + 1], size, generator=seeded()) for n in (17, 400))
        assert torch.equal(short.dW, long.dW[:17])
        inside = full(batch, 0.77)
        torch.testing.assert_close(short.evaluate(inside), long.evaluate(inside), rtol=0, atol=1e-12)


def test_stored_increments_come_back_as_they_are():
    grid = grid_of(100, (4,), 1.0)
    motion = StoredBrownian.draw(grid, 3, generator=seeded(), dtype=torch.float32)
    assert torch.equal(motion.increments(grid), motion.dW)
    assert torch.equal(motion.increments(grid[20:31]), motion.dW[20:30])
    coarse = motion.increments(grid[::10])
    torch.testing.assert_close(coarse[0].float(), motion.dW[:10].sum(0), rtol=1e-5, atol=1e-6)


def test_one_generator_gives_one_motion_and_another_another():
    grid = grid_of(10, (2,))
    one, same, other = (StoredBrownian.draw(grid, 1, generator=seeded(s)) for s in (1, 1, 2))
    t = full((2,), 0.123)
    assert torch.equal(one.evaluate(t), same.evaluate(t))
    assert not torch.equal(one.evaluate(t), other.evaluate(t))


def test_mistakes_are_explained():
    with pytest.raises(TypeError, match="seeds must be a tensor of integers"):
        VirtualBrownianTree(torch.zeros(3), 1)
    with pytest.raises(ValueError, match="size"):
        VirtualBrownianTree(torch.arange(3), 0)
    with pytest.raises(ValueError, match="tol must lie between"):
        VirtualBrownianTree(torch.arange(3), 1, tol=0.0)
    with pytest.raises(ValueError, match=r"batch \(3,\).*shape \(2,\).*one seed"):
        VirtualBrownianTree(torch.arange(3), 1).evaluate(torch.zeros(2))
    motion = StoredBrownian.draw(grid_of(4, (2,)), 1, generator=seeded())
    with pytest.raises(ValueError, match="outside the grid"):
        motion.evaluate(full((2,), 1.1))
    with pytest.raises(ValueError, match=r"grid \(step \+ 1"):
        StoredBrownian(motion.grid, motion.dW[:2], motion.keys)
    with pytest.raises(ValueError, match="at least one step"):
        StoredBrownian.draw(motion.grid[:1], 1)
