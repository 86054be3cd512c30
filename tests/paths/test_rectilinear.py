import pytest
import torch

from ctdyn.paths import RectilinearPath


F64 = torch.float64


def draw(batch=3, time=6, channels=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    ts = (0.05 + torch.rand(batch, time, generator=generator, dtype=F64)).cumsum(-1)
    return ts, torch.randn(batch, time, channels, generator=generator, dtype=F64)


def test_it_is_torchcdes():
    torchcde = pytest.importorskip("torchcde")
    ts, xs = draw(batch=1)
    both = torch.cat([(ts - ts[:, :1])[..., None], xs], -1)
    peer = torchcde.LinearInterpolation(torchcde.linear_interpolation_coeffs(both, rectilinear=0))
    path = RectilinearPath(ts, xs)
    for s in torch.linspace(0.01, 9.99, 50, dtype=F64):
        torch.testing.assert_close(path.evaluate(s[None]), peer.evaluate(s), rtol=0, atol=1e-12)
        torch.testing.assert_close(path.derivative(s[None]), peer.derivative(s), rtol=0, atol=1e-12)


def test_nothing_looks_ahead():
    ts, xs = draw()
    later = torch.cat([xs[:, :4], xs[:, 4:] + 10], 1)
    before = torch.linspace(0.0, 7.0, 40, dtype=F64).expand(3, -1)
    assert torch.equal(RectilinearPath(ts, xs)(before), RectilinearPath(ts, later)(before))
    path = RectilinearPath(ts, xs)
    assert torch.equal(path.before(ts[:, 4:5]), torch.full((3, 1), 7.0, dtype=F64))


def test_moments_of_time_find_their_place():
    ts, xs = draw()
    path = RectilinearPath(ts, xs)
    torch.testing.assert_close(path(path.after(ts))[..., 1:], xs, rtol=0, atol=1e-12)
    torch.testing.assert_close(path(path.before(ts))[:, 1:, 1:], xs[:, :-1], rtol=0, atol=1e-12)
    torch.testing.assert_close(path(path.before(ts))[:, 0, 1:], xs[:, 0], rtol=0, atol=1e-12)
    between = (ts[:, 1:] + ts[:, :-1]) / 2
    assert torch.equal(path.after(between), path.before(between))
    torch.testing.assert_close(path(path.after(between))[..., 0], between - ts[:, :1], rtol=0, atol=1e-12)
    outside = torch.stack([ts[:, 0] - 1, ts[:, -1] + 1], -1)
    assert torch.equal(path.after(outside), torch.tensor([[0.0, 10.0]], dtype=F64).expand(3, -1))
    assert torch.equal(path.before(outside)[:, 0], torch.zeros(3, dtype=F64))


def test_padding_is_harmless_whatever_value_it_carries():
    ts, xs = draw()
    longer = torch.cat([ts, ts[:, -1:].expand(-1, 2)], 1)
    junk = torch.cat([xs, torch.full_like(xs[:, :2], 1e6)], 1)
    plain, padded = RectilinearPath(ts, xs), RectilinearPath(longer, junk)
    s = torch.linspace(-1.0, 14.0, 61, dtype=F64).expand(3, -1)
    assert torch.equal(plain(s), padded(s))
    times = torch.cat([ts, ts[:, -1:] + 1], -1)
    assert torch.equal(plain.after(times), padded.after(times))
    assert torch.equal(plain.before(times), padded.before(times))


def test_distant_times_keep_their_precision_in_float32():
    steps = torch.linspace(0.0, 1.0, 5, dtype=F64)
    path = RectilinearPath(steps + 1.7e9, torch.zeros(5, 1))
    torch.testing.assert_close(path(path.after(steps + 1.7e9))[:, 0], steps, rtol=0, atol=1e-6)


def test_gradients_are_exact():
    ts, xs = draw(batch=1, time=4)
    s = torch.tensor([[0.3, 1.4, 2.6, 5.5]], dtype=F64)
    inputs = ts.requires_grad_(), xs.requires_grad_()
    assert torch.autograd.gradcheck(lambda ts, xs: RectilinearPath(ts, xs)(s), inputs)
    query = torch.tensor([[0.4, 1.1]], dtype=F64) + ts[:, :1].detach()
    assert torch.autograd.gradcheck(lambda ts: RectilinearPath(ts, xs.detach()).after(query), (ts,))


def test_bad_knots_are_refused():
    with pytest.raises(ValueError, match="must not decrease"):
        RectilinearPath(torch.tensor([1.0, 0.0]), torch.zeros(2, 1))
    with pytest.raises(ValueError, match="fill_forward"):
        RectilinearPath(torch.tensor([0.0, 1.0]), torch.full((2, 1), torch.nan))
