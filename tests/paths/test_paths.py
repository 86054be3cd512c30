import pytest
import torch

from ctdyn.paths import ConstantPath, HermitePath, LinearPath, NaturalCubicPath


PIECEWISE = [LinearPath, HermitePath]


def knots(batch=3, time=6, channels=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    ts = torch.rand(batch, time, generator=generator, dtype=torch.float64).cumsum(-1)
    xs = torch.randn(batch, time, channels, generator=generator, dtype=torch.float64)
    return ts, xs


def test_linear_is_numpy_interpolation():
    np = pytest.importorskip("numpy")
    ts, xs = knots()
    queries = torch.linspace(-1.0, 7.0, 50, dtype=torch.float64).expand(3, -1)
    found = LinearPath(ts, xs)(queries)
    for series in range(3):
        for channel in range(2):
            want = np.interp(queries[series], ts[series], xs[series, :, channel])
            assert np.allclose(found[series, :, channel], want, atol=1e-13)


def test_hermite_is_torchcde_with_backward_differences():
    torchcde = pytest.importorskip("torchcde")
    ts, xs = knots(batch=1)
    coefficients = torchcde.hermite_cubic_coefficients_with_backward_differences(xs, ts[0])
    peer = torchcde.CubicSpline(coefficients, ts[0])
    path = HermitePath(ts, xs)
    for t in torch.linspace(float(ts[0, 0]) + 1e-6, float(ts[0, -1]) - 1e-6, 40, dtype=torch.float64):
        assert torch.allclose(path.evaluate(t[None]), peer.evaluate(t), atol=1e-10)
        assert torch.allclose(path.derivative(t[None]), peer.derivative(t), atol=1e-9)


@pytest.mark.parametrize("kind", PIECEWISE)
def test_passes_through_the_knots(kind):
    ts, xs = knots()
    assert torch.allclose(kind(ts, xs)(ts), xs, atol=1e-12)


@pytest.mark.parametrize("kind", PIECEWISE)
def test_holds_the_end_values_outside(kind):
    ts, xs = knots()
    path = kind(ts, xs)
    assert torch.equal(path.evaluate(ts[:, 0] - 1), xs[:, 0])
    assert torch.equal(path.evaluate(ts[:, -1] + 5), xs[:, -1])
    for t in (ts[:, 0] - 1, ts[:, -1] + 5):
        assert torch.equal(path.derivative(t), torch.zeros(3, 2, dtype=torch.float64))


@pytest.mark.parametrize("kind", PIECEWISE)
@pytest.mark.parametrize("junk", [0.0, 1e6])
def test_padding_is_harmless_whatever_value_it_carries(kind, junk):
    ts, xs = knots()
    padded_ts = torch.cat([ts, ts[:, -1:].expand(-1, 3)], -1)
    padded_xs = torch.cat([xs, torch.full((3, 3, 2), junk, dtype=torch.float64)], -2)
    queries = torch.cat([torch.linspace(-1.0, 7.0, 40, dtype=torch.float64).expand(3, -1), ts], -1)
    assert torch.equal(kind(padded_ts, padded_xs)(queries), kind(ts, xs)(queries))
    last = padded_ts[:, -1]
    piece = kind(padded_ts, padded_xs).restrict(ts[:, -2], last)
    assert torch.allclose(piece.evaluate(last), xs[:, -1], atol=1e-12)


@pytest.mark.parametrize("kind", PIECEWISE)
def test_padding_gives_finite_gradients_and_none_to_the_junk(kind):
    ts, xs = knots()
    padded_ts = torch.cat([ts, ts[:, -1:].expand(-1, 3)], -1).requires_grad_()
    padded_xs = torch.cat([xs, torch.zeros(3, 3, 2, dtype=torch.float64)], -2).requires_grad_()
    queries = torch.linspace(-1.0, 7.0, 40, dtype=torch.float64).expand(3, -1)
    kind(padded_ts, padded_xs)(queries).square().sum().backward()
    assert torch.isfinite(padded_ts.grad).all()
    assert torch.isfinite(padded_xs.grad).all()
    assert torch.equal(padded_xs.grad[:, -3:], torch.zeros(3, 3, 2, dtype=torch.float64))


@pytest.mark.parametrize("kind", PIECEWISE)
def test_gradients_of_times_and_values_are_exact(kind):
    ts, xs = knots(batch=2, time=4)
    queries = torch.rand(2, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 3
    inputs = (ts.requires_grad_(), xs.requires_grad_(), queries.requires_grad_())
    assert torch.autograd.gradcheck(lambda ts, xs, queries: kind(ts, xs)(queries), inputs)


def test_hermite_is_causal_at_the_knots_and_linear_too():
    ts, xs = knots()
    changed = xs.clone()
    changed[:, 4:] += 10.0
    for kind in PIECEWISE:
        before = torch.linspace(0.0, 1.0, 20, dtype=torch.float64) * (ts[:, 3:4] - ts[:, :1]) + ts[:, :1]
        before = torch.minimum(before, ts[:, 3:4])
        assert torch.equal(kind(ts, changed)(before), kind(ts, xs)(before))


def test_hermite_has_a_continuous_derivative():
    ts, xs = knots()
    path = HermitePath(ts, xs)
    for k in range(1, 5):
        left, right = path.derivative(ts[:, k] - 1e-9), path.derivative(ts[:, k])
        assert torch.allclose(left, right, atol=1e-5)


@pytest.mark.parametrize("kind", PIECEWISE)
def test_a_knot_has_the_slope_of_the_side_one_comes_from(kind):
    ts = torch.tensor([[0.0, 1.0, 2.0]])
    xs = torch.tensor([[[0.0], [1.0], [-4.0]]])
    path = kind(ts, xs)
    left = path.restrict(torch.tensor([0.0]), torch.tensor([1.0]))
    assert torch.allclose(left.derivative(torch.tensor([1.0])), torch.tensor([[1.0]]))
    at_end = path.restrict(torch.tensor([1.0]), torch.tensor([2.0])).derivative(torch.tensor([2.0]))
    assert torch.allclose(at_end, torch.tensor([[-5.0]]))


@pytest.mark.parametrize("kind", PIECEWISE)
def test_restriction_is_per_series_when_only_some_cross_a_knot(kind):
    ts, xs = knots()
    path = kind(ts, xs)
    t0 = torch.stack([ts[0, 0], ts[1, 1], ts[2, 2]])
    t1 = torch.stack([ts[0, 4], ts[1, 2], ts[2, 3]])
    piece = path.restrict(t0, t1)
    alone = kind(ts[1:2], xs[1:2]).restrict(t0[1:2], t1[1:2])
    assert torch.allclose(piece.derivative(t1)[1:2], alone.derivative(t1[1:2]), atol=1e-12)
    middle = (t0 + t1) / 2
    assert torch.allclose(piece.evaluate(middle), path.evaluate(middle), atol=1e-12)


@pytest.mark.parametrize("kind", PIECEWISE)
def test_samples_share_the_path_of_their_series(kind):
    ts, xs = knots()
    path = kind(ts, xs)
    t = torch.rand(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 4
    together = path.evaluate(t)
    assert together.shape == (4, 3, 2)
    assert torch.equal(together, torch.stack([path.evaluate(row) for row in t]))
    assert path.restrict(t, t + 0.1).evaluate(t).shape == (4, 3, 2)
    assert path(t[..., None].expand(4, 3, 5)).shape == (4, 3, 5, 2)


def test_one_path_may_serve_a_whole_batch():
    path = LinearPath(torch.tensor([0.0, 1.0]), torch.tensor([[0.0], [2.0]]))
    assert path.batch_shape == ()
    assert torch.equal(path.evaluate(torch.tensor([0.25, 0.5])), torch.tensor([[0.5], [1.0]]))


@pytest.mark.parametrize("kind", [*PIECEWISE, NaturalCubicPath])
def test_one_knot_is_a_constant(kind):
    path = kind(torch.tensor([[2.0]]), torch.tensor([[[3.0]]]))
    for t in (1.0, 2.0, 3.0):
        assert torch.equal(path.evaluate(torch.tensor([t])), torch.tensor([[3.0]]))
        assert torch.equal(path.derivative(torch.tensor([t])), torch.tensor([[0.0]]))


def test_a_repeated_time_inside_is_a_jump():
    path = LinearPath(torch.tensor([[0.0, 1.0, 1.0, 2.0]]), torch.tensor([[[0.0], [1.0], [5.0], [6.0]]]))
    assert path.evaluate(torch.tensor([1.0])).item() == 5.0
    assert path.restrict(torch.tensor([0.0]), torch.tensor([1.0])).evaluate(torch.tensor([1.0])).item() == 1.0
    assert path.evaluate(torch.tensor([0.5])).item() == 0.5
    assert path.evaluate(torch.tensor([1.5])).item() == 5.5


def test_a_float64_time_is_not_rounded_across_a_float32_knot():
    ts = torch.tensor([[0.0, 1.0, 2.0]])
    path = LinearPath(ts, torch.tensor([[[0.0], [1.0], [0.0]]]))
    just_before = torch.tensor([1.0 - 1e-12], dtype=torch.float64)
    assert path.derivative(just_before).item() == 1.0


def test_constant_keeps_its_value_and_its_gradient():
    value = torch.randn(3, 2, requires_grad=True)
    path = ConstantPath(value)
    assert path.evaluate(torch.zeros(4, 3)).shape == (4, 3, 2)
    path(torch.zeros(3, 5)).sum().backward()
    assert torch.equal(value.grad, torch.full((3, 2), 5.0))


@pytest.mark.parametrize("kind", PIECEWISE)
@pytest.mark.parametrize(
    ("ts", "xs", "match"),
    [
        (torch.zeros(2, 3), torch.zeros(2, 4, 1), "time, channel"),
        (torch.zeros(2, 0), torch.zeros(2, 0, 1), "at least one knot"),
        (torch.tensor([[0.0, torch.nan]]), torch.zeros(1, 2, 1), "ts hold NaN"),
        (torch.tensor([[0.0, 1.0]]), torch.full((1, 2, 1), torch.nan), "xs hold NaN"),
        (torch.tensor([[1.0, 0.0]]), torch.zeros(1, 2, 1), "must not decrease"),
    ],
)
def test_bad_knots_are_refused(kind, ts, xs, match):
    with pytest.raises(ValueError, match=match):
        kind(ts, xs)


def test_times_of_another_batch_are_refused():
    path = LinearPath(*knots())
    with pytest.raises(ValueError, match="times must be"):
        path.evaluate(torch.zeros(2, dtype=torch.float64))


@pytest.mark.parametrize("kind", PIECEWISE)
def test_times_that_would_fill_a_batch_by_chance_are_refused(kind):
    path = kind(*knots(batch=2))
    with pytest.raises(ValueError, match="batch"):
        path.evaluate(torch.zeros(4))


def test_a_constant_must_be_finite():
    with pytest.raises(ValueError, match="NaN"):
        ConstantPath(torch.tensor([[torch.nan]]))


@pytest.mark.parametrize("kind", PIECEWISE)
@pytest.mark.parametrize("count", [2, 600])
def test_many_intervals_at_once_are_the_restrictions_one_by_one(kind, count):
    ts, xs = knots()
    path = kind(ts, xs)
    inside = torch.rand(3, count, generator=torch.Generator().manual_seed(5), dtype=torch.float64) * 4
    ends = torch.cat([inside, ts], -1).sort(-1).values.unbind(-1)
    pieces = list(path.pieces(ends))
    assert len(pieces) == len(ends) - 1
    for number in (0, 1, 2, 5, len(pieces) - 1):
        t0, t1 = ends[number], ends[number + 1]
        middle, alone = (t0 + t1) / 2, path.restrict(t0, t1)
        assert torch.equal(pieces[number].evaluate(middle), alone.evaluate(middle))
        assert torch.equal(pieces[number].derivative(t1), alone.derivative(t1))
    crossing = list(path.pieces([ts[:, 0], ts[:, 3], ts[:, 5]]))
    middle = (ts[:, 3] + ts[:, 5]) / 2
    assert torch.allclose(crossing[1].evaluate(middle), path.evaluate(middle), atol=1e-12)
    assert list(path.pieces([ts[:, 0]])) == []


def test_the_gradient_of_a_long_path_is_not_quadratic_in_its_length():
    """One look-up for many steps: the graph holds few of the scatters that are as large as the whole path."""
    ts, xs = knots(batch=1, time=500)
    pieces = list(LinearPath(ts, xs.requires_grad_()).pieces(ts.unbind(-1)))
    origins = {id(piece.coefficients.grad_fn.next_functions[0][0]) for piece in pieces}
    assert len(origins) <= 2
