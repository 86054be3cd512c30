"""How dynamics hold what they are given, and the words of their refusals."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..nn import all_finite


__all__ = [
    "as_tensor",
    "check_matrix",
    "check_psd",
    "check_resolution",
    "check_steps",
    "concrete",
    "concretely",
    "keep",
    "positive",
    "shared_batch",
    "with_tensors",
]

_COARSE = 1e-2

_Dynamics = TypeVar("_Dynamics", bound=nn.Module)


def as_tensor(name: str, value: Tensor | float | Sequence[float] | Sequence[Sequence[float]]) -> Tensor:
    """A finite floating or complex tensor; numbers take the default dtype."""
    tensor = value if isinstance(value, Tensor) else torch.as_tensor(value, dtype=torch.get_default_dtype())
    if not (tensor.is_floating_point() or tensor.is_complex()):
        raise TypeError(f"{name} must hold floating point numbers; got {tensor.dtype}. Convert it with .to(dtype).")
    if not all_finite(tensor):
        raise ValueError(f"{name} holds NaN or infinite entries; every parameter must be finite.")
    return tensor


def concrete() -> AbstractContextManager[object]:
    """Where what is built has values, which are few and are checked, although a draft of a model is made without."""
    return torch.device("cpu") if torch.get_default_device().type == "meta" else nullcontext()


def concretely(init: Any) -> Any:
    """A constructor that is run in `concrete`."""

    @functools.wraps(init)
    def built(self: Any, *args: Any, **kwargs: Any) -> None:
        with concrete():
            init(self, *args, **kwargs)

    return built


def keep(module: nn.Module, name: str, value: Tensor) -> None:
    """Give a module a tensor: as its parameter, or as it is where gradients must flow on to what made it."""
    if value.requires_grad and not isinstance(value, nn.Parameter):
        setattr(module, name, value)
    else:
        setattr(
            module,
            name,
            value
            if isinstance(value, nn.Parameter)
            else nn.Parameter(value.detach().clone(memory_format=torch.contiguous_format)),
        )


def with_tensors(dynamics: _Dynamics, state_size: int, **tensors: Tensor | None) -> _Dynamics:
    """Dynamics of another state with tensors in place of their parameters; gradients reach what these were made of."""
    # Where parameters are made from others, a class of its own reads them.
    other = object.__new__(parametrize.type_before_parametrizations(dynamics))
    other.__dict__ |= {**dynamics.__dict__, "_parameters": {}, "state_size": state_size, **tensors}
    return other


def positive(name: str, value: Tensor | float | Sequence[float] | Sequence[Sequence[float]]) -> Tensor:
    """A tensor of positive real numbers."""
    tensor = as_tensor(name, value)
    if tensor.is_complex() or bool((tensor.detach() <= 0).any()):
        raise ValueError(f"{name} must be positive; got {tensor.detach().flatten()[:5].tolist()}.")
    return tensor


def check_matrix(name: str, value: Tensor, rows: int | None, columns: int | None) -> None:
    """Refuse what is not `(*batch, rows, columns)`; None stands for any size, and for a square if both are None."""
    shape = list(value.shape)
    square = rows is None and columns is None
    fits = len(shape) >= 2 and (shape[-2] == shape[-1] if square else True)
    fits = fits and (rows is None or shape[-2] == rows) and (columns is None or shape[-1] == columns)
    if not fits:
        wanted = ("n", "n") if square else (rows or "any", columns or "any")
        raise ValueError(f"{name} must be (*batch, {wanted[0]}, {wanted[1]}); got shape {tuple(shape)}.")


def check_psd(name: str, value: Tensor, *, definite: bool = False) -> None:
    """Refuse a matrix that is no covariance: not symmetric, or with a negative eigenvalue."""
    matrix = value.detach().to(torch.float64 if not value.is_complex() else torch.complex128)
    if not matrix.numel():
        return
    size = float(matrix.abs().amax())
    tolerance = 16 * matrix.shape[-1] * torch.finfo(value.dtype).eps * size
    if not all_finite(matrix):
        raise ValueError(f"{name} holds NaN or infinite entries; a covariance must be finite.")
    skew = float((matrix - matrix.mH).abs().amax())
    if skew > tolerance:
        raise ValueError(f"{name} is not symmetric (off by {skew:.3g}); a covariance must be.")
    least = float(torch.linalg.eigvalsh(matrix).amin())
    if least < -tolerance or (definite and least <= 0):
        kind = "positive definite" if definite else "positive semi-definite (PSD)"
        raise ValueError(
            f"{name} is not {kind}: its smallest eigenvalue is {least:.3g}. Build it as L @ L.mT, or add a small "
            "multiple of the identity."
        )


def check_resolution(ts: Tensor) -> None:
    """Refuse times that are far from their origin in float32: their differences are wrong.

    Raises:
        ValueError: the times are coarser than a hundredth of a typical step.

    Example:
        >>> check_resolution(torch.tensor([0.0, 0.1, 0.3]))
    """
    if ts.dtype.itemsize > 4 or ts.shape[-1] < 2 or not ts.numel():
        return
    times = ts.detach()
    largest = float(times.abs().amax())
    spacing = largest * torch.finfo(ts.dtype).eps
    typical = float((times[..., -1] - times[..., 0]).amax()) / (ts.shape[-1] - 1)
    counted = largest * torch.finfo(ts.dtype).eps <= 1 and typical > 0 and bool((times == times.round()).all())
    if counted or spacing <= (_COARSE * typical if typical > 0 else 0.1):
        return
    raise ValueError(
        f"times around t={largest:.6g} are {spacing:.3g} apart in {ts.dtype}, too coarse for steps of about "
        f"{typical:.3g}: they collapse. Hand in float64 times, or subtract an origin in float64 first "
        "(ts - ts[..., :1])."
    )


def shared_batch(shapes: Mapping[str, Sequence[int]]) -> torch.Size:
    """What batch axes broadcast to.

    Args:
        shapes: the batch axes of everything that was given, by name.

    Raises:
        ValueError: they do not broadcast.

    Example:
        >>> shared_batch({"ts": (), "us": (3, 1), "y0": (2,)})
        torch.Size([3, 2])
    """
    different = {tuple(shape) for shape in shapes.values() if len(shape)}
    if len(different) < 2:
        # Nearly always, and finding out what shapes broadcast to takes as long as an operation on small tensors.
        return torch.Size(next(iter(different), ()))
    try:
        return torch.broadcast_shapes(*shapes.values())
    except RuntimeError as error:
        listed = ", ".join(f"{name}: {tuple(shape)}" for name, shape in shapes.items())
        raise ValueError(f"The batch axes must broadcast; got {listed}.") from error


def check_steps(dt: Tensor) -> None:
    """Refuse steps of linear dynamics that are negative or not finite."""
    wrong = ~(dt.detach() >= 0) | torch.isinf(dt.detach())
    if not bool(wrong.any()):
        return
    place = tuple(int(i) for i in torch.nonzero(wrong)[0])
    value = float(dt[place])
    raise ValueError(
        f"a step is {'negative' if value < 0 else 'not finite'}: dt={value:.6g} at index {place} (*batch, time). "
        "Linear dynamics run forward, in finite time; sort the times, and pad a short series with its last time."
    )
