"""Linear recurrences over time: the two primitives that everything exact and linear stands on."""

from __future__ import annotations

import torch
from torch import Tensor

from ._autograd import Recurrence, ZohScan
from ._backends import ScanBackend
from ._opaque import opaque_recurrence, opaque_zoh
from ._select import default_backend
from ._tensors import shared_batch


__all__ = ["linear_recurrence", "zoh_scan"]

_HALVES = (torch.float16, torch.bfloat16)
_REAL = {torch.complex64: torch.float32, torch.complex128: torch.float64}


def linear_recurrence(
    a: Tensor,
    b: Tensor,
    h0: Tensor | None = None,
    *,
    reverse: bool = False,
    reset: Tensor | None = None,
    backend: ScanBackend | None = None,
) -> Tensor:
    r"""All states of a diagonal linear recurrence, by one scan; for coefficients that you have as tensors.

    .. math:: h_k = a_k h_{k-1} + b_k, \qquad k = 1 \dots L

    Real or complex. First and second derivatives, forward-mode derivatives, `torch.func` and `torch.compile` work. The
    backward pass saves nothing but the arguments and the result. Half precision is computed in single precision.

    Values are not looked at: that would cost as much as the scan. A factor beyond 1 grows, and an entry that is not
    finite spoils the states of its series from there on, and of no other. The layers and `LinearDynamics` check theirs.

    Args:
        a: factors, broadcastable to `b`: `(*batch, time, state)`, `(time, state)` for all series, `(state,)` for all
            times. A zero forgets the past.
        b: inputs, `(*batch, time, state)`.
        h0: states before the first step, `(*batch, state)`; None for zero. With `reverse`: after the last time.
        reverse: run from the last time to the first, :math:`h_k = a_k h_{k+1} + b_k`.
        reset: True where the state is cleared before the step, `(*batch, time)`: the state there is `b_k`.
        backend: what runs the scan; None picks the fastest for the device, dtype and size.

    Returns:
        States, `(*batch, time, state)`.

    Raises:
        ValueError: the shapes do not broadcast, or have no time and state axis.
        TypeError: the dtypes differ, or are not floating or complex.

    Reference:
        Eric Martin and Chris Cundy, "Parallelizing Linear Recurrent Neural Nets Over Sequence Length", 2018,
        https://arxiv.org/abs/1709.04057

    Example:
        >>> linear_recurrence(torch.tensor([0.5]), torch.ones(3, 1)).flatten()
        tensor([1.0000, 1.5000, 1.7500])
    """
    _check_dtypes({"a": a, "b": b, "h0": h0})
    if b.dim() < 2:
        raise ValueError(f"b must be (*batch, time, state); got {tuple(b.shape)}.")
    batch = shared_batch({"a": a.shape[:-2], "b": b.shape[:-2], "h0": () if h0 is None else h0.shape[:-1]})
    length, states = b.shape[-2:]
    _check_axes("a", a.shape[-2:], (length, states)[-max(a.dim(), 1) :], "(*batch, time, state) or (state,)")
    if h0 is not None:
        _check_axes("h0", h0.shape[-1:], (states,), "(*batch, state)")
    if reset is not None:
        a = torch.where(_resets(reset, batch, length)[..., None], 0.0, a)
    if b.dtype in _HALVES:
        wide = linear_recurrence(
            a.float(), b.float(), None if h0 is None else h0.float(), reverse=reverse, backend=backend
        )
        return wide.to(b.dtype)
    a = a.reshape((1,) * max(2 - a.dim(), 0) + a.shape)
    shape = torch.Size([*batch, length, states])
    if not shape.numel():
        return b.expand(shape).clone()
    a = _rows(a, batch, 2, shared=True)
    b = _rows(b, batch, 2)
    h0 = None if h0 is None else _rows(h0, batch, 1)
    if torch.compiler.is_compiling():
        h = opaque_recurrence(a, b, h0, reverse)
    else:
        h = Recurrence.apply(a, b, h0, reverse, backend or default_backend(b))
    return h.reshape(shape)  # type: ignore[no-any-return]


def zoh_scan(
    lam: Tensor,
    dt: Tensor,
    v: Tensor,
    h0: Tensor | None = None,
    *,
    impulse: bool = False,
    reverse: bool = False,
    reset: Tensor | None = None,
    backend: ScanBackend | None = None,
) -> Tensor:
    r"""All states of :math:`\dot h = \lambda h + v` at irregular times, exactly, by one scan.

    .. math::
        h_k = e^{\lambda \Delta_k} h_{k-1} + \varphi(\lambda, \Delta_k) \, v_k, \qquad
        \varphi(\lambda, \Delta) = \int_0^\Delta e^{\lambda s} ds = \frac{e^{\lambda \Delta} - 1}{\lambda}

    The input :math:`v_k` is held over the step that ends at :math:`k`; to hold what was seen at its start, shift `v` by
    one. With `impulse` it is added at the end of the step instead (gain 1): for events, and for any other gain that is
    multiplied into `v` beforehand.

    The coefficients are accurate for every step and eigenvalue, zero included, and are never stored: the backward pass
    makes them again. A step of length zero changes nothing beyond the last digit if it adds nothing (a held input adds
    nothing), which is how ragged batches are padded. A time scale per state, as in S5, is a factor on `lam` and on `v`.

    Of the values only the steps are looked at. An eigenvalue with a positive real part grows, and an input that is not
    finite spoils the states of its series from there on, and of no other.

    Args:
        lam: eigenvalues, `(state,)`, or `(*batch, state)`; real or complex.
        dt: steps, not negative, `(*batch, time)`, or `(time,)` for all series, or `(1,)` for all times; real. Take
            differences of times in float64 and hand in those.
        v: inputs, `(*batch, time, state)`, of the dtype of `lam`.
        h0: states before the first step, `(*batch, state)`; None for zero. With `reverse`: after the last time.
        impulse: the inputs are impulses.
        reverse: run from the last time to the first, :math:`h_k = e^{\lambda \Delta_k} h_{k+1} + \dots`.
        reset: True where the state is cleared before the step, `(*batch, time)`.
        backend: what runs the scan; None picks the fastest for the device, dtype and size.

    Returns:
        States, `(*batch, time, state)`.

    Raises:
        ValueError: the shapes do not broadcast, or a step is negative or not finite (checked on a CPU; elsewhere a
            check would stall the device).
        TypeError: `lam`, `v` and `h0` differ in dtype, or `dt` is not real.

    Reference:
        Jimmy T. H. Smith, Andrew Warrington, Scott W. Linderman, "Simplified State Space Layers for Sequence Modeling",
        2023, https://arxiv.org/abs/2208.04933

    Example:
        >>> lam, dt = torch.tensor([-1.0]), torch.tensor([1.0, 0.0, 30.0])
        >>> zoh_scan(lam, dt, torch.ones(3, 1)).flatten()
        tensor([0.6321, 0.6321, 1.0000])
    """
    _check_dtypes({"lam": lam, "v": v, "h0": h0})
    if not dt.is_floating_point():
        raise TypeError(f"dt must be real and floating; got {dt.dtype}.")
    if v.dim() < 2 or dt.dim() < 1 or lam.dim() < 1:
        shapes = f"{tuple(lam.shape)}, {tuple(dt.shape)} and {tuple(v.shape)}"
        raise ValueError(f"lam, dt, v must be (*batch, state), (*batch, time), (*batch, time, state); got {shapes}.")
    length, states = v.shape[-2:]
    given = {"lam": lam.shape[:-1], "dt": dt.shape[:-1], "v": v.shape[:-2], "h0": () if h0 is None else h0.shape[:-1]}
    batch = shared_batch(given)
    _check_axes("lam", lam.shape[-1:], (states,), "(*batch, state)")
    _check_axes("dt", dt.shape[-1:], (length,), "(*batch, time)")
    if h0 is not None:
        _check_axes("h0", h0.shape[-1:], (states,), "(*batch, state)")
    if v.dtype in _HALVES:
        h0 = None if h0 is None else h0.float()
        options = {"impulse": impulse, "reverse": reverse, "reset": reset, "backend": backend}
        return zoh_scan(lam.float(), dt, v.float(), h0, **options).to(v.dtype)  # type: ignore[arg-type]
    shape = torch.Size([*batch, length, states])
    if not shape.numel():
        return v.expand(shape).clone()
    cleared = None if reset is None else _rows(_resets(reset, batch, length), batch, 1, shared=True)
    lam = _rows(lam, batch, 1, shared=True)
    dt = _rows(dt.to(_REAL.get(v.dtype, v.dtype)), batch, 1, shared=True)
    v = _rows(v, batch, 2)
    h0 = None if h0 is None else _rows(h0, batch, 1)
    if torch.compiler.is_compiling():
        h = opaque_zoh(lam, dt, v, h0, cleared, impulse, reverse)
    else:
        h = ZohScan.apply(lam, dt, v, h0, cleared, impulse, reverse, backend or default_backend(v))
    return h.reshape(shape)  # type: ignore[no-any-return]


def _check_dtypes(given: dict[str, Tensor | None]) -> None:
    dtypes = {name: x.dtype for name, x in given.items() if x is not None}
    first = next(iter(dtypes.values()))
    if len(set(dtypes.values())) > 1:
        listed = ", ".join(f"{name}: {dtype}" for name, dtype in dtypes.items())
        raise TypeError(f"All of them must have one dtype; got {listed}. Convert with .to(dtype).")
    if not first.is_floating_point and not first.is_complex:
        raise TypeError(f"The recurrence needs a floating or complex dtype; got {first}.")


def _check_axes(name: str, got: tuple[int, ...], expected: tuple[int, ...], layout: str) -> None:
    if len(got) != len(expected) or any(g not in (1, e) for g, e in zip(got, expected, strict=True)):
        raise ValueError(f"{name} must be {layout} with trailing axes {tuple(expected)}; got {tuple(got)}.")


def _resets(reset: Tensor, batch: torch.Size, length: int) -> Tensor:
    if reset.dtype != torch.bool:
        raise TypeError(f"reset must be bool, (*batch, time); got {reset.dtype}.")
    _check_axes("reset", reset.shape[-1:], (length,), "(*batch, time)")
    shared_batch({"reset": reset.shape[:-1], "the others": batch})
    return reset.expand(*reset.shape[:-1], length)


def _rows(x: Tensor, batch: torch.Size, kept: int, *, shared: bool = False) -> Tensor:
    """The batch axes as one axis of rows; one row where all series share it."""
    own, trailing = x.shape[: x.dim() - kept], x.shape[x.dim() - kept :]
    if shared and own.numel() == 1:
        return x.reshape(1, *trailing)
    return x.expand(*batch, *trailing).reshape(-1, *trailing)
