"""The phi functions, which carry an input over an interval: exact to rounding wherever their argument lies."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function


__all__ = ["phi1", "phi2", "phi3"]

_TERMS = 18


def phi1(z: Tensor) -> Tensor:
    r"""The first phi function: what an input held at 1 adds to the state of :math:`dy = \lambda y + u`.

    .. math:: \varphi_1(z) = \frac{e^z - 1}{z} = \int_0^1 e^{(1 - s) z}\,ds, \qquad \varphi_1(0) = 1

    The weight of an input that is held over an interval dt is :math:`dt\,\varphi_1(\lambda\,dt)`. Written as it stands,
    the quotient loses every digit for small z; here the relative error is that of rounding for every z, and so is that
    of the derivatives of any order.

    Args:
        z: real or complex, of any shape.

    Returns:
        The values, of the shape and dtype of `z`.

    Reference:
        Exponential integrators, M. Hochbruck, A. Ostermann, 2010, https://doi.org/10.1017/S0962492910000048

    Example:
        >>> phi1(torch.tensor([0.0, 1e-6, -1e6]))
        tensor([1.0000e+00, 1.0000e+00, 1.0000e-06])
    """
    return _phi(z, 1)


def phi2(z: Tensor) -> Tensor:
    r"""The second phi function: what an input that rises from 0 to 1 adds to the state.

    .. math:: \varphi_2(z) = \frac{\varphi_1(z) - 1}{z} = \int_0^1 s\,e^{(1 - s) z}\,ds, \qquad \varphi_2(0) = \tfrac12

    Args:
        z: real or complex, of any shape.

    Returns:
        The values, of the shape and dtype of `z`.

    Reference:
        Exponential integrators, M. Hochbruck, A. Ostermann, 2010, https://doi.org/10.1017/S0962492910000048

    Example:
        >>> phi2(torch.tensor([0.0, 1e-6]))
        tensor([0.5000, 0.5000])
    """
    return _phi(z, 2)


def phi3(z: Tensor) -> Tensor:
    r"""The third phi function, for inputs that are quadratic in time and for exponential integrators.

    .. math:: \varphi_3(z) = \frac{\varphi_2(z) - \tfrac12}{z} = \int_0^1 \tfrac12 s^2 e^{(1 - s) z}\,ds

    Args:
        z: real or complex, of any shape.

    Returns:
        The values, of the shape and dtype of `z`.

    Reference:
        Exponential integrators, M. Hochbruck, A. Ostermann, 2010, https://doi.org/10.1017/S0962492910000048

    Example:
        >>> phi3(torch.tensor([0.0, 1e-6]))
        tensor([0.1667, 0.1667])
    """
    return _phi(z, 3)


class _Phi(Function):
    """One phi function of any index; its derivative is made of phi functions again, so it too is exact everywhere."""

    generate_vmap_rule = True

    @staticmethod
    def forward(z: Tensor, index: int) -> Tensor:
        small = z.abs() <= 1
        near = torch.where(small, z, 0)
        series = torch.full_like(z, 1 / math.factorial(index + _TERMS))
        for power in range(_TERMS - 1, -1, -1):
            series = series * near + 1 / math.factorial(index + power)
        far = torch.where(small, torch.ones_like(z), z)
        value = _expm1(far) / far
        for order in range(1, index):
            value = (value - 1 / math.factorial(order)) / far
        return torch.where(small, series, value)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        z, ctx.index = inputs
        ctx.save_for_backward(z)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (z,) = ctx.saved_tensors
        return gradients[0] * _slope(z, ctx.index).conj(), None


def _phi(z: Tensor, index: int) -> Tensor:
    if not (z.is_floating_point() or z.is_complex()):
        raise TypeError(f"a phi function takes real or complex floating point numbers; got {z.dtype}.")
    value = _Phi.apply(z, index)
    assert isinstance(value, Tensor)
    return value


def _slope(z: Tensor, index: int) -> Tensor:
    """The derivative: near 0 and far from it, the one of two identities that does not cancel."""
    if index == 0:
        return torch.exp(z)
    small = z.abs() <= 1
    near, far = torch.where(small, z, 0), torch.where(small, torch.ones_like(z), z)
    inner = _phi(near, index) - index * _phi(near, index + 1)
    return torch.where(small, inner, (_slope(far, index - 1) - _phi(far, index)) / far)


def _expm1(z: Tensor) -> Tensor:
    if not z.is_complex():
        return torch.expm1(z)
    growth = torch.expm1(z.real)
    sine, cosine = torch.sin(z.imag / 2), torch.cos(z.imag / 2)
    return torch.complex(growth - 2 * sine.square() * (growth + 1), 2 * (growth + 1) * sine * cosine)
