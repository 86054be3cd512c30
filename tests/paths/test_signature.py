import json
import math
import os
from pathlib import Path

import pytest
import torch

from ctdyn.paths import LinearPath, LogSignaturePath, log_signature, log_signature_size, signature


F64 = torch.float64
ROOT = Path(os.environ.get("CTDYN_REFERENCE", "/nonexistent"))


def draw(batch=2, time=9, channels=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    ts = (0.05 + torch.rand(batch, time, generator=generator, dtype=F64)).cumsum(-1)
    return ts, torch.randn(batch, time, channels, generator=generator, dtype=F64)


def levels(flat, channels, depth):
    return flat.split([channels**k for k in range(1, depth + 1)], -1)


@pytest.mark.skipif(not ROOT.is_dir(), reason="CTDYN_REFERENCE is not set")
def test_the_signature_is_exact_to_depth_four():
    case = json.loads((ROOT / "cde" / "linear_cde_piecewise_linear.json").read_text())
    xs = torch.tensor([[float(v) for v in row] for row in case["X"]], dtype=F64)[:, 1:]
    wanted = [float(v) for level in case["signature_channels_1_2_depth4"][1:] for v in level]
    torch.testing.assert_close(signature(xs, 4), torch.tensor(wanted, dtype=F64), rtol=0, atol=1e-14)


def test_the_signature_of_a_straight_line_is_an_exponential():
    step = torch.tensor([0.7, -1.3], dtype=F64)
    many = torch.linspace(0.0, 1.0, 8, dtype=F64)[:, None] * step
    power = step
    for level, found in enumerate(levels(signature(many, 4), 2, 4), 1):
        torch.testing.assert_close(found, power / math.factorial(level), rtol=0, atol=1e-14)
        power = (power[:, None] * step).flatten()
    straight = log_signature(many, 4)
    torch.testing.assert_close(straight, torch.cat([step, torch.zeros(6, dtype=F64)]), rtol=0, atol=1e-14)


def test_signatures_multiply_where_paths_are_joined():
    _, xs = draw(channels=2)
    whole = levels(signature(xs, 3), 2, 3)
    first, second = (levels(signature(part, 3), 2, 3) for part in (xs[:, :5], xs[:, 4:]))
    one = torch.ones(2, 1, dtype=F64)
    first, second = [one, *first], [one, *second]
    for level in range(1, 4):
        joined = sum((first[k][:, :, None] * second[level - k][:, None, :]).flatten(1) for k in range(level + 1))
        torch.testing.assert_close(whole[level - 1], joined, rtol=0, atol=1e-12)


def test_products_of_integrals_shuffle():
    _, xs = draw()
    once, twice = levels(signature(xs, 2), 3, 2)
    matrix = twice.unflatten(-1, (3, 3))
    torch.testing.assert_close(once[:, :, None] * once[:, None], matrix + matrix.mT, rtol=0, atol=1e-12)


def test_the_log_signature_is_the_increment_and_then_the_areas():
    _, xs = draw()
    increment = xs[:, -1] - xs[:, 0]
    found = log_signature(xs, 2)
    matrix = levels(signature(xs, 2), 3, 2)[1].unflatten(-1, (3, 3))
    area = (matrix - matrix.mT) / 2
    expected = torch.stack([area[:, 0, 1], area[:, 0, 2], area[:, 1, 2]], -1)
    torch.testing.assert_close(found, torch.cat([increment, expected], -1), rtol=0, atol=1e-12)
    torch.testing.assert_close(log_signature(xs, 1), increment, rtol=0, atol=1e-13)


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_the_log_signature_does_not_depend_on_pace_and_is_undone_by_the_way_back(depth):
    _, xs = draw()
    found = log_signature(xs, depth)
    halves = torch.stack([xs[:, :-1], (xs[:, :-1] + xs[:, 1:]) / 2], 2).flatten(1, 2)
    slower = log_signature(torch.cat([halves, xs[:, -1:]], 1), depth)
    torch.testing.assert_close(slower, found, rtol=0, atol=1e-11)
    torch.testing.assert_close(log_signature(xs.flip(1), depth), -found, rtol=0, atol=1e-11)
    back = torch.cat([xs, xs.flip(1)], 1)
    torch.testing.assert_close(log_signature(back, depth), torch.zeros_like(found), rtol=0, atol=1e-11)


@pytest.mark.parametrize(("channels", "depth", "size"), [(2, 1, 2), (2, 4, 8), (3, 3, 14), (5, 3, 55), (1, 3, 1)])
def test_there_are_as_many_numbers_as_lyndon_words(channels, depth, size):
    assert log_signature_size(channels, depth) == size
    assert log_signature(torch.zeros(4, channels), depth).shape == (size,)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_each_window_holds_the_log_signature_of_its_piece(depth):
    ts, xs = draw()
    windows = torch.stack([torch.linspace(0.1, 0.9, 5, dtype=F64) * float(t[-1] - t[0]) + t[0] for t in ts])
    windows[1, 3] = windows[1, 2]
    windows[0, 2] = ts[0, 4]
    path, source = LogSignaturePath(ts, xs, windows, depth), LinearPath(ts, xs)
    found = path(windows).diff(dim=1)
    for series in range(2):
        for number in range(4):
            a, b = windows[series, number], windows[series, number + 1]
            inside = ts[series][(ts[series] > a) & (ts[series] < b)]
            corners = torch.cat([a[None], inside, b[None]])
            values = source(corners.expand(2, -1))[series]
            expected = log_signature(values, depth)
            torch.testing.assert_close(found[series, number], expected, rtol=0, atol=1e-12)


def test_a_depth_of_one_is_the_path_seen_at_the_windows():
    ts, xs = draw()
    path = LogSignaturePath(ts, xs, ts, 1)
    torch.testing.assert_close(path(ts), xs - xs[:, :1], rtol=0, atol=1e-12)


def test_padding_is_harmless_and_windows_may_reach_beyond_the_path():
    ts, xs = draw()
    longer = torch.cat([ts, ts[:, -1:].expand(-1, 3)], 1)
    junk = torch.cat([xs, torch.full_like(xs[:, :3], 1e6)], 1)
    windows = torch.cat([ts[:, :1] - 1, ts[:, 4:5], ts[:, -1:] + 1, ts[:, -1:] + 1], 1)
    plain, padded = LogSignaturePath(ts, xs, windows), LogSignaturePath(longer, junk, windows)
    assert torch.equal(plain(windows), padded(windows))
    torch.testing.assert_close(plain(windows)[:, 1], log_signature(xs[:, :5], 2), rtol=0, atol=1e-12)
    assert torch.equal(plain(windows)[:, 3], plain(windows)[:, 2])


def test_a_jump_belongs_to_the_window_that_ends_there():
    ts = torch.tensor([0.0, 1.0, 1.0, 2.0], dtype=F64)
    xs = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 2.0], [3.0, 2.0]], dtype=F64)
    path = LogSignaturePath(ts, xs, ts[[0, 1, 3]])
    found = path(ts[[0, 1, 3]]).diff(dim=0)
    torch.testing.assert_close(found[0], log_signature(xs[:3], 2), rtol=0, atol=1e-13)
    torch.testing.assert_close(found[1], log_signature(xs[2:], 2), rtol=0, atol=1e-13)


def test_gradients_of_values_times_and_windows_are_exact():
    ts, xs = draw(batch=1, time=5, channels=2)
    windows = torch.stack([ts[:, 0] + 0.01, ts[:, 2] - 0.02, ts[:, 4] - 0.03], -1)
    inputs = tuple(x.clone().requires_grad_() for x in (ts, xs, windows))
    query = torch.rand(1, 4, generator=torch.Generator().manual_seed(0), dtype=F64) + ts[:, 1:2]
    assert torch.autograd.gradcheck(lambda ts, xs, windows: LogSignaturePath(ts, xs, windows, 3)(query), inputs)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: signature(torch.zeros(3, 2), 0), "at least 1"),
        (lambda: log_signature(torch.zeros(3), 2), "time, channel"),
        (lambda: LogSignaturePath(torch.arange(3.0), torch.zeros(3, 2), torch.zeros(2, 3)), "window"),
        (lambda: LogSignaturePath(torch.arange(3.0), torch.zeros(3, 2), torch.tensor([1.0])), "two ends"),
        (lambda: LogSignaturePath(torch.arange(3.0), torch.zeros(3, 2), torch.tensor([1.0, 0.0])), "decrease"),
    ],
)
def test_misuse_is_refused(call, match):
    with pytest.raises(ValueError, match=match):
        call()
