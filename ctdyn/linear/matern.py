"""Matern processes as linear dynamics: Gaussian process priors of chosen smoothness."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from ._tensors import keep, positive
from .dynamics import LinearDynamics


__all__ = ["Matern"]

_SERIES_TERMS = 44


class Matern(LinearDynamics):
    r"""A Matern process: a Gaussian process prior of chosen smoothness, which filters and scans in linear time.

    .. math::
        k(\tau) = \sigma^2 \frac{2^{1 - \nu}}{\Gamma(\nu)} (\lambda \tau)^\nu K_\nu(\lambda \tau), \qquad
        \lambda = \sqrt{2 \nu} / \ell

    The state holds the process and its first :math:`\nu - 1/2` derivatives, the i-th in units of :math:`\lambda^i`, so
    that all entries are of one size. Transition and noise are closed forms in :math:`\lambda\,dt`, without
    cancellation: they are exact to rounding for every step, however short or long.

    Args:
        smoothness: :math:`\nu`, half of an odd number: 0.5 (rough, exponential kernel), 1.5 or 2.5, or above.
        lengthscale: :math:`\ell > 0`, in units of time, `(*parameter_batch,)`.
        variance: :math:`\sigma^2 > 0`, the variance of the process, `(*parameter_batch,)`.

    Raises:
        ValueError: `smoothness` is not half of an odd number, or another number is not positive.

    Reference:
        Kalman filtering and smoothing solutions to temporal Gaussian process regression models, J. Hartikainen,
        S. Sarkka, 2010, https://doi.org/10.1109/MLSP.2010.5589113

    Example:
        >>> prior = Matern(1.5, lengthscale=2.0, variance=1.0)
        >>> prior.kernel(torch.tensor([0.0, 2.0])).detach()
        tensor([1.0000, 0.4834])
        >>> prior.discretize(torch.tensor([1e-3]), noise=True).Q[0, 0, 0] > 0
        tensor(True)
    """

    log_lengthscale: Tensor
    log_variance: Tensor

    def __init__(
        self,
        smoothness: float = 2.5,
        *,
        lengthscale: Tensor | float | Sequence[float] = 1.0,
        variance: Tensor | float | Sequence[float] = 1.0,
    ) -> None:
        size = round(smoothness + 0.5)
        if size < 1 or abs(smoothness + 0.5 - size) > 1e-9:
            raise ValueError(f"smoothness must be half of an odd number, 0.5, 1.5, 2.5 ...; got {smoothness}.")
        super().__init__(size)
        self.smoothness = smoothness
        scales = torch.broadcast_tensors(positive("lengthscale", lengthscale), positive("variance", variance))
        keep(self, "log_lengthscale", scales[0].log())
        keep(self, "log_variance", scales[1].log())
        self.B = None
        unit, powers, spread, stationary = _constants(size)
        self._unit, self._powers, self._spread, self._stationary = unit, powers, spread, stationary

    @property
    def rate(self) -> Tensor:
        """The rate of decay, per unit of time, `(*parameter_batch,)`."""
        return math.sqrt(2.0 * self.smoothness) * (-self.log_lengthscale).exp()

    @property
    def variance(self) -> Tensor:
        """The variance of the process, `(*parameter_batch,)`."""
        return self.log_variance.exp()

    @property
    def A(self) -> Tensor:  # noqa: N802
        """The matrix of the dynamics."""
        return self.rate[..., None, None] * self._unit.to(self.rate)

    def density(self) -> Tensor:
        """As in `LinearDynamics`; all of the noise enters the highest derivative."""
        size = self.state_size
        last = torch.zeros(size, size, dtype=torch.float64)
        last[-1, -1] = 1.0 / _white(size)
        return (self.rate * self.variance)[..., None, None] * last.to(self.rate)

    @property
    def batch_shape(self) -> torch.Size:
        """The batch axes of the parameters."""
        return self.log_lengthscale.shape

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the parameters."""
        return self.log_lengthscale.dtype

    @property
    def readout(self) -> Tensor:
        """As in `LinearDynamics`: the process itself."""
        row = torch.zeros(self.state_size, dtype=self.dtype, device=self.log_lengthscale.device)
        row[0] = 1.0
        return row

    def flow(self, dt: Tensor, order: int = 0) -> tuple[Tensor, ...]:
        """As in `LinearDynamics`, from closed forms."""
        rate, z = self._scaled(dt)
        size = self.state_size
        powers = self._powers.to(z)
        monomials = _monomials(z, size - 1)
        found = [_combine((-z).exp()[..., None] * monomials, powers)]
        if order:
            # The integrals over the step of each power of s, times the exponential.
            moments = _Moments.apply(z, size)
            assert isinstance(moments, Tensor)
            shares = [moments[..., :size], moments[..., :size] - moments[..., 1:]]
            step = (z / rate)[..., None]
            found += [_combine(step * monomials * share, powers) for share in shares[:order]]
        return tuple(found)

    def noise(self, dt: Tensor) -> Tensor:
        """As in `LinearDynamics`, from closed forms in float64."""
        _, z = self._scaled(dt.to(torch.float64))
        size = 2 * self.state_size - 1
        moments = _Moments.apply(2.0 * z, size - 1)
        assert isinstance(moments, Tensor)
        powers = z[..., None] ** torch.arange(1, size + 1, device=z.device)
        Q = _combine(powers * moments, self._spread.to(z))
        return (self.variance.to(z)[..., None, None, None] * Q).to(torch.promote_types(self.dtype, dt.dtype))

    def stationary(self) -> Tensor:
        """As in `LinearDynamics`."""
        return self.variance[..., None, None] * self._stationary.to(self.rate)

    def _scaled(self, dt: Tensor) -> tuple[Tensor, Tensor]:
        rate = self.rate.to(dt.dtype)[..., None]
        return rate.expand(torch.broadcast_shapes(rate.shape, dt.shape)), rate * dt


def _constants(size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """For rate and variance 1: the matrix, powers of its nilpotent part, terms of the noise, long-run covariance."""
    unit = torch.diag(torch.ones(size - 1, dtype=torch.float64), 1)
    unit[-1] = -torch.tensor([math.comb(size, i) for i in range(size)], dtype=torch.float64)
    nilpotent = unit + torch.eye(size, dtype=torch.float64)
    powers = torch.stack([torch.linalg.matrix_power(nilpotent, j) for j in range(size)])
    # exp(A s) applied to the noise is e^{-s} times a polynomial; its square holds the terms of the integrand.
    columns = [powers[j][:, -1] / math.factorial(j) for j in range(size)]
    spread = torch.zeros(2 * size - 1, size, size, dtype=torch.float64)
    for i, j in ((i, j) for i in range(size) for j in range(size)):
        spread[i + j] += torch.outer(columns[i], columns[j])
    spread = spread / _white(size)
    integrals = [math.factorial(m) / 2.0 ** (m + 1) for m in range(2 * size - 1)]
    stationary = torch.einsum("m,mij->ij", torch.tensor(integrals, dtype=torch.float64), spread)
    return unit, powers, spread, stationary


def _white(size: int) -> float:
    """The variance of the process under noise of density 1, at rate 1."""
    return math.factorial(2 * size - 2) / (2.0 ** (2 * size - 1) * math.factorial(size - 1) ** 2)


def _monomials(z: Tensor, count: int) -> Tensor:
    found = [torch.ones_like(z)]
    for index in range(1, count + 1):
        found.append(found[-1] * z / index)
    return torch.stack(found, -1)


def _combine(weights: Tensor, matrices: Tensor) -> Tensor:
    return (weights @ matrices.flatten(-2)).unflatten(-1, matrices.shape[-2:])


class _Moments(Function):
    r"""Moments of an exponential on the unit interval, :math:`\int_0^1 s^m e^{-z s} ds` for m from 0 to `top`, z >= 0.

    A series of positive terms for the highest, and a recursion downward that adds positive terms; for large z a
    recursion upward. So no digit is lost anywhere. The derivative of one moment is the next, negated.
    """

    @staticmethod
    def forward(z: Tensor, top: int) -> Tensor:
        border = 2.0 * top + 4.0
        small = z <= border
        near, far = torch.where(small, z, 0.0), torch.where(small, torch.ones_like(z), z)
        decay_near, decay_far = (-near).exp(), (-far).exp()
        terms = _SERIES_TERMS + 2 * top
        series = torch.ones_like(z)
        for index in range(terms, 0, -1):
            series = 1.0 + series * near / (top + 1 + index)
        down = [decay_near * series / (top + 1)]
        for m in range(top, 0, -1):
            down.append((near * down[-1] + decay_near) / m)
        up = [-torch.expm1(-far) / far]
        for m in range(1, top + 1):
            up.append((m * up[-1] - decay_far) / far)
        return torch.where(small[..., None], torch.stack(down[::-1], -1), torch.stack(up, -1))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        z, ctx.top = inputs
        ctx.save_for_backward(z)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (z,) = ctx.saved_tensors
        moments = _Moments.apply(z, ctx.top + 1)
        assert isinstance(moments, Tensor)
        return -(gradients[0] * moments[..., 1:]).sum(-1), None
