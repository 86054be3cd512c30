"""One suite for every backend: a scan is the plain loop in double precision, and so are all of its gradients."""

import os
import shutil
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.func import hessian, jacfwd, jacrev, vmap

from ctdyn.linear import (
    BlockedScan,
    CompiledScan,
    ScanBackend,
    TritonScan,
    _blocked,
    _compiled,
    _recycling,
    _triton,
    decay,
    held_gain,
    linear_recurrence,
    zoh_scan,
)
from ctdyn.linear._backends import Steps
from ctdyn.linear._coefficients import held_gain_slope, step_values


DOUBLE = {
    torch.float32: torch.float64,
    torch.complex64: torch.complex128,
    torch.float64: torch.float64,
    torch.complex128: torch.complex128,
}
DTYPES = list(DOUBLE)
TOLERANCE = {torch.float32: 2e-5, torch.complex64: 2e-5, torch.float64: 1e-11, torch.complex128: 1e-11}


class OnDevice(ScanBackend):
    """A backend of another device, for tensors of the CPU."""

    def __init__(self, backend: ScanBackend, device: str) -> None:
        self.backend, self.device = backend, device

    def _there(self, x):
        return x.to(self.device) if isinstance(x, Tensor) else x

    def _steps(self, steps: Steps) -> Steps:
        return Steps(*(self._there(x) for x in (steps.lam, steps.dt, steps.reset)), steps.impulse, steps.reverse)

    def recurrence(self, a, b, h0, *, reverse):
        return self.backend.recurrence(*map(self._there, (a, b, h0)), reverse=reverse).cpu()

    def recurrence_gradients(self, a, h, h0, g, *, reverse, needs_a):
        given = map(self._there, (a, h, h0, g))
        results = self.backend.recurrence_gradients(*given, reverse=reverse, needs_a=needs_a)
        return tuple(None if x is None else x.cpu() for x in results)

    def zoh(self, steps, v, h0):
        return self.backend.zoh(self._steps(steps), *map(self._there, (v, h0))).cpu()

    def zoh_gradients(self, steps, v, h, h0, g, *, needs):
        given = map(self._there, (v, h, h0, g))
        results = self.backend.zoh_gradients(self._steps(steps), *given, needs=needs)
        return tuple(None if x is None else x.cpu() for x in results)


def triton(monkeypatch: pytest.MonkeyPatch) -> ScanBackend:
    """Triton on the device at hand, or interpreted on the CPU where TRITON_INTERPRET=1 asks for it."""
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if not _triton.triton_is_installed() or not (interpreted or torch.cuda.is_available()):
        pytest.skip("needs Triton, and a CUDA device or TRITON_INTERPRET=1")
    monkeypatch.setattr(_triton, "_TILE", 1 << 9)
    monkeypatch.setattr(_triton, "_SPAN", 4)
    return TritonScan() if interpreted else OnDevice(TritonScan(), "cuda")


BACKENDS = ["blocked", "blocked in tiles of 16", "compiled", "compiled on two threads"]


@pytest.fixture(params=[*BACKENDS, pytest.param("triton", marks=pytest.mark.gpu)])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScanBackend]:
    threads = torch.get_num_threads()
    if request.param.startswith("blocked"):
        # Chunks and groups of rows at sizes that a test can afford.
        monkeypatch.setattr(_blocked, "_LOOP", 1 << 7)
        monkeypatch.setattr(_blocked, "_LONG", 12)
        monkeypatch.setattr(_blocked, "_SPANS", range(3, 6))
        monkeypatch.setattr(_blocked, "_RUN", 1 << 6)
        if "tiles" in request.param:
            # As on a device where operations on lists promise no order.
            monkeypatch.setattr(_blocked, "_lists_run_in_order", lambda: False)
        yield BlockedScan(16 if "tiles" in request.param else None)
        return
    if request.param == "triton":
        yield triton(monkeypatch)
        return
    pytest.importorskip("numba")
    if "two" in request.param:
        torch.set_num_threads(2)
        monkeypatch.setattr(_compiled, "_SHARE", 1)
        monkeypatch.setattr(_compiled, "_WIDE", 1)
    yield CompiledScan()
    torch.set_num_threads(threads)


def random(*shape: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def loop(a: Tensor, b: Tensor, h0: Tensor | None, reverse: bool = False, reset: Tensor | None = None) -> Tensor:
    """What every scan must equal."""
    batch = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2], () if h0 is None else h0.shape[:-1])
    length, states = b.shape[-2:]
    a, b = a.expand(*batch, length, states), b.expand(*batch, length, states)
    if reset is not None:
        a = torch.where(reset[..., None], 0.0, a)
    h = torch.zeros(*batch, states, dtype=b.dtype) if h0 is None else h0.expand(*batch, states)
    out: list[Tensor] = []
    for k in reversed(range(length)) if reverse else range(length):
        h = a[..., k, :] * h + b[..., k, :]
        out.append(h)
    return torch.stack(out[::-1] if reverse else out, -2)


def zoh_loop(
    lam: Tensor, dt: Tensor, v: Tensor, h0: Tensor | None, impulse: bool, reverse: bool, reset: Tensor | None
) -> Tensor:
    rate, step = lam.unsqueeze(-2), dt.unsqueeze(-1)
    gain = torch.ones_like(rate * step) if impulse else held_gain(rate, step)
    return loop(torch.exp(rate * step), gain * v, h0, reverse, reset)


def gradients(h: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    """Those of a fixed projection of the states, all of its weights of one size."""
    phase = torch.arange(h.numel(), dtype=torch.float64).reshape(h.shape).sin()
    weight = torch.polar(torch.ones_like(phase), phase) if h.is_complex() else phase
    return [h.detach(), *torch.autograd.grad(h, inputs, weight.to(h.dtype))]


def assert_near(got: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    for number, (x, y) in enumerate(zip(got, expected, strict=True)):
        assert x.shape == y.shape
        error = float((x.to(y.dtype) - y).abs().max() / y.abs().max().clamp(min=1e-30))
        assert error <= tolerance, f"result {number} (0: states, then gradients) is off by {error:.1e}"


def compare(
    backend: ScanBackend, dtype: torch.dtype, a: Tensor, b: Tensor, h0: Tensor | None, reverse: bool = False
) -> None:
    given = [x.to(dtype) for x in (a, b, h0) if x is not None]
    ours = [x.clone().requires_grad_() for x in given]
    theirs = [x.to(DOUBLE[dtype]).requires_grad_() for x in given]
    h = linear_recurrence(*ours, reverse=reverse, backend=backend)
    assert h.dtype == dtype
    a, b, h0 = theirs if len(theirs) == 3 else (*theirs, None)
    assert_near(gradients(h, ours), gradients(loop(a, b, h0, reverse), theirs), TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", [1, 2, 37, 131])
def test_the_scan_is_the_loop(backend: ScanBackend, dtype: torch.dtype, reverse: bool, length: int) -> None:
    a = random(2, 3, length, 5, dtype=dtype) * 0.5
    b, h0 = random(2, 3, length, 5, dtype=dtype, seed=1), random(2, 3, 5, dtype=dtype, seed=2)
    compare(backend, dtype, a, b, h0, reverse)
    compare(backend, dtype, a, b, None, reverse)


@pytest.mark.parametrize(
    "shape", [(40, 5), (5,), (1,), (3, 40, 1), (1, 40, 5), (2, 1, 40, 5), (3, 1, 5), (2, 3, 1, 1)], ids=str
)
@pytest.mark.parametrize("reverse", [False, True])
def test_factors_that_are_shared(backend: ScanBackend, shape: tuple[int, ...], reverse: bool) -> None:
    a = random(*shape, dtype=torch.complex128) * 0.5
    b, h0 = random(2, 3, 40, 5, dtype=torch.complex128, seed=1), random(3, 5, dtype=torch.complex128, seed=2)
    compare(backend, torch.complex128, a, b, h0, reverse)
    compare(backend, torch.complex64, a, b, h0, reverse)


def test_inputs_that_are_shared(backend: ScanBackend) -> None:
    a, b = random(2, 3, 20, 5, dtype=torch.float64) * 0.5, random(20, 5, dtype=torch.float64, seed=1)
    compare(backend, torch.float64, a, b, random(2, 1, 5, dtype=torch.float64))
    compare(backend, torch.float64, a[0, 0], b, None)


@pytest.mark.parametrize("shape", [(1, 200, 3), (1, 1, 3)], ids=str)
def test_a_zero_state_stays_zero_however_its_factors_grow(backend: ScanBackend, shape: tuple[int, ...]) -> None:
    a, b = torch.full(shape, 1e9), torch.zeros(1, 200, 3)
    b[:, -2:] = 1.0
    torch.testing.assert_close(linear_recurrence(a, b, backend=backend), loop(a, b, None))


def test_memory_in_any_order(backend: ScanBackend) -> None:
    a = (random(5, 30, 4, dtype=torch.complex128) * 0.5).permute(2, 1, 0)
    b = random(30, 8, 10, dtype=torch.complex128, seed=1)[:, ::2, ::2].transpose(0, 1)
    h0 = random(5, 4, dtype=torch.complex128, seed=2).T
    expected = loop(a, b, h0)
    torch.testing.assert_close(linear_recurrence(a, b, h0, backend=backend), expected)
    torch.testing.assert_close(linear_recurrence(a.conj(), b, h0.conj(), backend=backend), loop(a.conj(), b, h0.conj()))


def test_cotangents_in_any_order(backend: ScanBackend) -> None:
    a, b = random(2, 30, 3, dtype=torch.complex128) * 0.5, random(2, 30, 3, dtype=torch.complex128, seed=1)
    a.requires_grad_()
    weight = random(3, 30, 2, dtype=torch.complex128, seed=3).permute(2, 1, 0).conj()
    got = torch.autograd.grad(linear_recurrence(a, b, backend=backend), a, weight)
    torch.testing.assert_close(got, torch.autograd.grad(loop(a, b, None), a, weight))
    summed = torch.autograd.grad(linear_recurrence(a, b, backend=backend).real.sum(), a)
    torch.testing.assert_close(summed, torch.autograd.grad(loop(a, b, None).real.sum(), a))


@pytest.mark.parametrize("shape", [(0, 7, 3), (2, 0, 3), (2, 7, 0)], ids=str)
def test_empty(backend: ScanBackend, shape: tuple[int, ...]) -> None:
    b = torch.zeros(shape, requires_grad=True)
    h = linear_recurrence(torch.ones(shape), b, backend=backend)
    assert h.shape == shape
    h.sum().backward()
    assert zoh_scan(torch.ones(shape[-1]), torch.ones(shape[:-1]), b, backend=backend).shape == shape


def test_resets_cut_the_series(backend: ScanBackend) -> None:
    a, b = random(2, 20, 3, dtype=torch.float64), random(2, 20, 3, dtype=torch.float64, seed=1)
    reset = uniform(2, 20) < 0.2
    h0 = random(2, 3, dtype=torch.float64, seed=2)
    for reverse in (False, True):
        h = linear_recurrence(a, b, h0, reset=reset, reverse=reverse, backend=backend)
        torch.testing.assert_close(h, loop(a, b, h0, reverse, reset))
    halves = [linear_recurrence(a[:, s], b[:, s], backend=backend) for s in (slice(0, 8), slice(8, 20))]
    marked = linear_recurrence(a, b, reset=torch.arange(20) == 8, backend=backend)
    torch.testing.assert_close(marked, torch.cat(halves, 1))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("impulse", [False, True])
def test_the_fused_scan_is_the_loop(backend: ScanBackend, dtype: torch.dtype, reverse: bool, impulse: bool) -> None:
    lam = -uniform(5) * torch.tensor([1.0, 0.1, 10.0, 1e-4, 0.0], dtype=torch.float64)
    lam = torch.complex(lam, 5.0 * uniform(5, seed=1)) if dtype.is_complex else lam
    dt = uniform(2, 3, 70, seed=2) * torch.tensor([1e-6, 1e-3, 0.1, 1.0, 0.0], dtype=torch.float64).repeat(14)
    v, h0 = random(2, 3, 70, 5, dtype=dtype, seed=3), random(2, 3, 5, dtype=dtype, seed=4)
    reset = uniform(2, 3, 70, seed=5) < 0.1
    for cleared in (None, reset):
        given = [lam.to(dtype), dt.to(v.real.dtype), v, h0]
        ours = [x.clone().requires_grad_() for x in given]
        theirs = [x.to(DOUBLE[dtype] if i != 1 else torch.float64).requires_grad_() for i, x in enumerate(given)]
        h = zoh_scan(*ours, impulse=impulse, reverse=reverse, reset=cleared, backend=backend)
        expected = zoh_loop(*theirs, impulse, reverse, cleared)
        assert_near(gradients(h, ours), gradients(expected, theirs), TOLERANCE[dtype])


@pytest.mark.parametrize("rates", [(4,), (3, 4), (2, 1, 4)], ids=str)
@pytest.mark.parametrize("steps", [(2, 3, 25), (25,), (1,), (3, 1)], ids=str)
@pytest.mark.parametrize("reset", [None, (25,), (3, 25)], ids=str)
def test_shared_rates_and_steps(
    backend: ScanBackend, rates: tuple[int, ...], steps: tuple[int, ...], reset: tuple[int, ...] | None
) -> None:
    lam = torch.complex(-uniform(*rates), random(*rates, dtype=torch.float64))
    given = [lam, uniform(*steps, seed=1), random(2, 3, 25, 4, dtype=torch.complex128), random(4, dtype=lam.dtype)]
    cleared = None if reset is None else uniform(*reset, seed=2) < 0.2
    inputs = [x.clone().requires_grad_() for x in given]
    h = zoh_scan(*inputs, reset=cleared, backend=backend)
    assert_near(gradients(h, inputs), gradients(zoh_loop(*inputs, False, False, cleared), inputs), 1e-11)


@pytest.mark.parametrize("shape", [(1, 6, 300), (2, 5, 257), (3, 300, 2), (1, 600, 1)], ids=str)
@pytest.mark.parametrize("reverse", [False, True])
def test_few_and_many_states(backend: ScanBackend, shape: tuple[int, ...], reverse: bool) -> None:
    rows, length, states = shape
    lam = torch.complex(-uniform(states), random(states, dtype=torch.float64))
    v, h0 = random(*shape, dtype=torch.complex128), random(rows, states, dtype=torch.complex128)
    reset = uniform(rows, length, seed=2) < 0.2
    for steps, cleared in (((length,), None), ((1,), reset), ((rows, length), reset)):
        inputs = [x.requires_grad_() for x in (lam.clone(), 0.1 * uniform(*steps, seed=1), v.clone(), h0.clone())]
        h = zoh_scan(*inputs, reverse=reverse, reset=cleared, backend=backend)
        expected = gradients(zoh_loop(*inputs, False, reverse, cleared), inputs)
        assert_near(gradients(h, inputs), expected, 1e-11)


def test_steps_of_length_zero_change_nothing(backend: ScanBackend) -> None:
    lam, v = torch.complex(-uniform(4), uniform(4, seed=1)), random(1, 9, 4, dtype=torch.complex128)
    dt, h0 = torch.zeros(1, 9, dtype=torch.float64), random(1, 4, dtype=torch.complex128, seed=1)
    h = zoh_scan(lam, dt, v, h0, backend=backend)
    assert torch.equal(h, h0[:, None].expand_as(h))
    # Long enough for chunks, at whose ends the states are found in another order of sums.
    ragged = torch.cat([uniform(1, 9, seed=2), torch.zeros(1, 63, dtype=torch.float64)], 1)
    padded = zoh_scan(lam, ragged, v.repeat(1, 8, 1), h0, backend=backend)
    torch.testing.assert_close(padded[:, 9:], padded[:, 8:9].expand(1, 63, 4), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_steps_of_any_size(backend: ScanBackend, dtype: torch.dtype) -> None:
    lam = torch.tensor([-1.0, -1e-3, 0.0, -50.0], dtype=torch.float64)
    lam = torch.complex(lam, torch.tensor([3.0, 0.0, 0.0, 1e3], dtype=torch.float64)) if dtype.is_complex else lam
    dt = torch.tensor([1e-30, 1e-12, 1e-6, 1.0, 1e3, 1e9, 1e25], dtype=torch.float64).to(
        torch.empty(0, dtype=dtype).real.dtype
    )
    v = torch.ones(7, 1, 4, dtype=dtype)
    h = zoh_scan(lam.to(dtype), dt[:, None], v, backend=backend)[:, 0]
    assert h.isfinite().all()
    # One step from rest is the gain itself; where the phase is lost to rounding, the bound of it.
    gain = held_gain(lam.to(DOUBLE[dtype]), dt.double()[:, None])
    torch.testing.assert_close(h[:4].to(gain.dtype), gain[:4], rtol=TOLERANCE[dtype], atol=0.0)
    assert torch.equal(h[:, 2].real.double(), dt.double())
    settled = (-1.0 / lam[[0, 3]]).to(gain.dtype).expand(3, 2)
    torch.testing.assert_close(h[4:, [0, 3]].to(gain.dtype), settled, rtol=TOLERANCE[dtype], atol=0.0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
def test_derivatives_of_first_and_second_order(backend: ScanBackend, dtype: torch.dtype) -> None:
    inputs = [random(2, 4, 1, dtype=dtype), random(2, 4, 1, dtype=dtype, seed=1), random(2, 1, dtype=dtype, seed=2)]
    leaves = [x.requires_grad_() for x in inputs]
    for reverse in (False, True):
        call = lambda a, b, h0: linear_recurrence(a, b, h0, reverse=reverse, backend=backend)  # noqa: B023, E731
        assert gradcheck(call, leaves, check_forward_ad=True)
        assert gradgradcheck(call, leaves)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
@pytest.mark.parametrize("impulse", [False, True])
def test_derivatives_of_the_fused_scan(backend: ScanBackend, dtype: torch.dtype, impulse: bool) -> None:
    lam = random(2, dtype=dtype) * torch.tensor([0.0, 1.0], dtype=dtype)
    inputs = [lam, 0.2 + uniform(1, 3), random(1, 3, 2, dtype=dtype, seed=1), random(1, 2, dtype=dtype, seed=2)]
    leaves = [x.requires_grad_() for x in inputs]
    reset = torch.tensor([False, True, False])
    for cleared in (None, reset):
        call = lambda *x: zoh_scan(*x, impulse=impulse, reset=cleared, backend=backend)  # noqa: B023, E731
        assert gradcheck(call, leaves, check_forward_ad=True)
        assert gradgradcheck(call, leaves)


def test_function_transforms(backend: ScanBackend) -> None:
    a, b, h0 = (
        random(4, 2, 6, 3, dtype=torch.float64),
        random(4, 2, 6, 3, dtype=torch.float64),
        random(4, 3, dtype=torch.float64),
    )
    scan = lambda *x: linear_recurrence(*x, backend=backend)  # noqa: E731
    one_by_one = torch.stack([scan(*x) for x in zip(a, b, h0, strict=True)])
    torch.testing.assert_close(vmap(scan)(a, b, h0), one_by_one)
    torch.testing.assert_close(
        vmap(scan, (3, 3, 1), 3)(*(x.movedim(0, -1) for x in (a, b, h0))), one_by_one.movedim(0, -1)
    )
    shared = torch.stack([scan(a[0, 0], x) for x in b])
    torch.testing.assert_close(vmap(scan, (None, 0))(a[0, 0], b), shared)
    each = torch.stack([scan(x[0, 0], b[0]) for x in a])
    torch.testing.assert_close(vmap(scan, (0, None))(a[:, 0, 0], b[0]), each)

    lam, dt, v = -uniform(3), uniform(2, 6, seed=1), b[0]
    fused = lambda lam, dt: zoh_scan(lam, dt, v, backend=backend)  # noqa: E731
    torch.testing.assert_close(jacfwd(fused, (0, 1))(lam, dt), jacrev(fused, (0, 1))(lam, dt))
    loss = lambda lam, dt: fused(lam, dt).square().sum()  # noqa: E731
    torch.testing.assert_close(hessian(loss, (0, 1))(lam, dt), jacrev(jacrev(loss, (0, 1)), (0, 1))(lam, dt))
    rates = -uniform(5, 3, seed=3)
    torch.testing.assert_close(vmap(fused, (0, None))(rates, dt), torch.stack([fused(x, dt) for x in rates]))


def test_half_precision_is_computed_in_single(backend: ScanBackend) -> None:
    a, b = uniform(2, 40, 3).to(torch.bfloat16), random(2, 40, 3, dtype=torch.bfloat16)
    h = linear_recurrence(a, b, backend=backend)
    assert h.dtype == torch.bfloat16
    assert torch.equal(h, linear_recurrence(a.float(), b.float(), backend=backend).to(torch.bfloat16))
    lam, dt = -uniform(3).to(torch.bfloat16), uniform(2, 40)
    h = zoh_scan(lam, dt, b, backend=backend)
    assert torch.equal(h, zoh_scan(lam.float(), dt, b.float(), backend=backend).to(torch.bfloat16))


def test_nothing_but_arguments_and_states_is_kept(backend: ScanBackend) -> None:
    kept: list[Tensor] = []
    lam, dt = torch.complex(-uniform(3), uniform(3)).requires_grad_(), uniform(2, 4000, seed=1).requires_grad_()
    v = random(2, 4000, 3, dtype=torch.complex128).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        h = zoh_scan(lam, dt, v, backend=backend)
    own = {x.untyped_storage().data_ptr() for x in (lam, dt, v, h)}
    assert {x.untyped_storage().data_ptr() for x in kept} <= own


@pytest.mark.parametrize("z", [0.0, 1e-12, 1e-4, 0.2499, 0.2501, 3.0, 40.0])
@pytest.mark.parametrize("turn", [1.0, -1.0, 1j, -0.6 + 0.8j])
def test_coefficients_keep_their_digits(z: float, turn: complex) -> None:
    mpmath = pytest.importorskip("mpmath")
    lam, dt = torch.tensor(2.0 * turn, dtype=torch.complex128), torch.tensor(z / 2.0, dtype=torch.float64)
    with mpmath.workdps(60):
        rate, step = mpmath.mpmathify(complex(lam)), mpmath.mpf(float(dt))
        kept = mpmath.exp(rate * step)
        gain = (kept - 1) / rate
        slope = (step * kept - gain) / rate
    got = held_gain(lam, dt)
    torch.testing.assert_close(got, torch.tensor(complex(gain), dtype=got.dtype), rtol=4e-14, atol=0.0)
    torch.testing.assert_close(decay(lam, dt), torch.tensor(complex(kept), dtype=got.dtype), rtol=4e-14, atol=0.0)
    expected = torch.tensor(complex(slope), dtype=got.dtype)
    torch.testing.assert_close(held_gain_slope(lam, dt, decay(lam, dt), got), expected, rtol=4e-14, atol=0.0)
    single = held_gain(lam.to(torch.complex64), dt.float())
    torch.testing.assert_close(single.to(got.dtype), got, rtol=1e-5, atol=0.0)
    # All of them at once, as the scans in plain torch make them.
    at_once = step_values(lam.reshape(1, 1, 1), dt.reshape(1, 1, 1), impulse=False, slope=True)
    for value, one in zip(at_once, (decay(lam, dt), got, expected), strict=True):
        torch.testing.assert_close(value.squeeze(), one, rtol=4e-14, atol=0.0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_eigenvalues_too_small_to_be_inverted(dtype: torch.dtype) -> None:
    real = torch.empty(0, dtype=dtype).real.dtype
    lam = torch.tensor([0.0, torch.finfo(real).tiny / 64.0, -1e-20], dtype=real).to(dtype)
    dt = torch.tensor([0.0, 1e-3, 7.0], dtype=real)
    values = step_values(lam.reshape(1, 1, 3), dt.reshape(1, 3, 1), impulse=False, slope=True)
    ones = torch.ones(1, 3, 3, dtype=dtype)
    torch.testing.assert_close(values.kept, ones, rtol=0.0, atol=0.0)
    for value, expected in zip(values[1:], (dt, 0.5 * dt * dt), strict=True):
        torch.testing.assert_close(value, expected[None, :, None] * ones)
    torch.testing.assert_close(held_gain(lam, dt[:, None]), values.gain[0])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_eigenvalues_too_small_to_be_inverted_are_scanned(backend: ScanBackend, dtype: torch.dtype) -> None:
    real = torch.empty(0, dtype=dtype).real.dtype
    lam = torch.tensor([0.0, -torch.finfo(real).tiny / 64.0, -1e-20], dtype=real).to(dtype)
    dt, v = torch.tensor([0.0, 1e-3, 7.0], dtype=real), torch.ones(1, 3, 3, dtype=dtype)
    h = zoh_scan(lam, dt, v, backend=backend)
    torch.testing.assert_close(h, dt.cumsum(0)[:, None].expand(1, 3, 3).to(dtype))


def test_results_that_are_dropped_make_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_recycling, "_idle", OrderedDict())
    x = torch.empty(1 << 18, 2)
    first = _recycling.empty_like(x)
    address = first.data_ptr()
    view = first[5:]
    del first
    assert _recycling.empty_like(x).data_ptr() != address
    del view
    again = _recycling.empty_like(x.view(torch.int32))
    assert again.data_ptr() == address
    assert again.shape == x.shape


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"b": torch.ones(5)}, ValueError, "b must be"),
        ({"a": torch.ones(4, 3)}, ValueError, "a must be"),
        ({"a": torch.ones(2, 5, 3)}, None, ""),
        ({"a": torch.ones(7, 5, 3)}, ValueError, "batch axes must broadcast"),
        ({"a": torch.ones(3, dtype=torch.float64)}, TypeError, "a: torch.float64, b: torch.float32"),
        ({"a": torch.ones(3).int(), "b": torch.ones(2, 5, 3).int()}, TypeError, "floating or complex"),
        ({"h0": torch.ones(2, 4)}, ValueError, "h0 must be"),
        ({"reset": torch.ones(5)}, TypeError, "reset must be bool"),
        ({"reset": torch.ones(4, dtype=torch.bool)}, ValueError, "reset must be"),
    ],
)
def test_arguments_of_the_recurrence(change: dict[str, Tensor], error: type[Exception] | None, message: str) -> None:
    given = {"a": torch.ones(3), "b": torch.ones(2, 5, 3)} | change
    if error is None:
        linear_recurrence(**given)
        return
    with pytest.raises(error, match=message):
        linear_recurrence(**given)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"dt": torch.tensor([1.0, -1.0, 1.0])}, ValueError, "a step is negative"),
        ({"dt": torch.tensor([1.0, float("nan"), 1.0])}, ValueError, "a step is not finite"),
        ({"dt": torch.tensor([1.0, float("inf"), 1.0])}, ValueError, "a step is not finite"),
        ({"dt": torch.ones(4)}, ValueError, "dt must be"),
        ({"dt": torch.ones(3).long()}, TypeError, "dt must be real"),
        ({"lam": torch.ones(3)}, ValueError, "lam must be"),
        ({"lam": torch.ones(2, dtype=torch.complex64)}, TypeError, "one dtype"),
        ({"v": torch.ones(2)}, ValueError, "lam, dt, v must be"),
    ],
)
def test_arguments_of_the_fused_scan(change: dict[str, Tensor], error: type[Exception], message: str) -> None:
    given = {"lam": torch.ones(2), "dt": torch.ones(3), "v": torch.ones(3, 2)} | change
    with pytest.raises(error, match=message):
        zoh_scan(**given)


def test_what_is_not_finite_stays_in_its_series_and_its_future(backend: ScanBackend) -> None:
    a, b = random(3, 40, 5, dtype=torch.float64) * 0.5, random(3, 40, 5, dtype=torch.float64, seed=1)
    lam, dt = -uniform(5), uniform(3, 40)
    spoilt = b.clone()
    spoilt[1, 17, 2] = torch.nan
    for scan in (
        lambda b: linear_recurrence(a, b, backend=backend),
        lambda b: zoh_scan(lam, dt, b, backend=backend),
    ):
        h, clean = scan(spoilt), scan(b)
        wrong = torch.zeros_like(b, dtype=torch.bool)
        wrong[1, 17:, 2] = True
        assert torch.equal(h.isnan(), wrong)
        assert torch.equal(h[~wrong], clean[~wrong])


def test_tiles_have_a_length() -> None:
    with pytest.raises(ValueError, match="tile must be"):
        BlockedScan(0)


COMPILATION = """
import torch
from ctdyn.linear import linear_recurrence, zoh_scan

def loss(lam, dt, v):
    return zoh_scan(lam, dt, v).square().sum() + linear_recurrence(dt[..., None], v, lam).square().sum()

torch.manual_seed(0)
inputs = [x.double().requires_grad_() for x in (-torch.rand(3), torch.rand(2, 6), torch.randn(2, 6, 3))]
got = torch.autograd.grad(torch.compile(loss, fullgraph=True)(*inputs), inputs)
torch.testing.assert_close(got, torch.autograd.grad(loss(*inputs), inputs))
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch compiles for the CPU with g++")
def test_compilation() -> None:
    # In a process of its own: the type checker of the tests wraps functions in a way that cannot be traced.
    run = subprocess.run([sys.executable, "-c", COMPILATION], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
