"""Memories of a signal: the best polynomial approximation of its past, kept up to date by linear dynamics."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

from .dense import MatrixDynamics
from .dynamics import LinearDynamics


__all__ = ["HippoLagT", "HippoLegS", "HippoLegT", "legs_matrices"]

#: The logarithm of a ratio of times that is as good as infinite: the memory before it counts for nothing.
_FOREVER = 1e3


def legs_matrices(size: int, *, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    r"""The HiPPO-LegS matrices: where state-space layers start, and the memory `HippoLegS` in its own clock.

    .. math:: A_{nk} = -\begin{cases} \sqrt{(2n+1)(2k+1)} & n > k \\ n + 1 & n = k \end{cases}, \qquad
        B_n = \sqrt{2n + 1}

    Args:
        size: size of the state.
        dtype: of the matrices.

    Returns:
        `A` (size, size) and `B` (size, 1).

    Reference:
        HiPPO: Recurrent Memory with Optimal Polynomial Projections, A. Gu, T. Dao, S. Ermon, A. Rudra, C. Re, 2020,
        https://arxiv.org/abs/2008.07669

    Example:
        >>> legs_matrices(2)[0]
        tensor([[-1.0000, -0.0000],
                [-1.7321, -2.0000]], dtype=torch.float64)
    """
    root = _roots(size)
    A = -torch.tril(root[:, None] * root, -1) - torch.diag(torch.arange(1.0, size + 1, dtype=torch.float64))
    return A.to(dtype), root[:, None].to(dtype)


class HippoLegS(LinearDynamics):
    r"""A memory of the whole past of a signal, at all scales: Legendre coefficients of the signal on [0, t].

    .. math:: f(x t) \approx \sum_n c_n \sqrt{2n + 1}\,P_n(2x - 1), \quad x \in [0, 1]; \qquad
        \frac{dc}{dt} = \frac1t (A c + B f)

    In the clock :math:`\log t` the matrix is constant, so that a step from :math:`t_0` to :math:`t_1` depends on their
    ratio alone. Its entries are polynomials in :math:`t_0 / t_1`, integrated here by Gauss quadrature without error: no
    discretization, no step size to tune, and the memory does not change with the unit of time. It has no parameters.

    `ts` counts from where the memory begins, so the first is 0 or more; what is remembered at time 0 is nothing. The
    `dt` of `discretize` is :math:`\log(t_1 / t_0)`. Memories of several channels: put them on a batch axis.

    Args:
        size: number of coefficients.
        dtype: of the state; the default dtype if not given.

    Raises:
        ValueError: the size is below 1, or a time is negative.

    Reference:
        HiPPO: Recurrent Memory with Optimal Polynomial Projections, A. Gu, T. Dao, S. Ermon, A. Rudra, C. Re, 2020,
        https://arxiv.org/abs/2008.07669

    Example:
        >>> from ctdyn.linear import Ramp
        >>> memory, ts = HippoLegS(4), torch.tensor([0.0, 0.1, 0.7, 2.0])
        >>> coefficients = memory.scan(ts, ts[:, None], hold=Ramp())
        >>> (memory.basis(torch.tensor([0.25, 0.5, 1.0])) @ coefficients[-1]).round(decimals=4)
        tensor([0.5000, 1.0000, 2.0000])
    """

    anchor: Tensor

    def __init__(self, size: int, *, dtype: torch.dtype | None = None) -> None:
        super().__init__(size)
        _anchor(self, dtype)
        self._nodes, self._shares = (torch.from_numpy(value) for value in _gauss(size))
        self._matrix, self._inputs = legs_matrices(size)
        self.B = None

    @property
    def A(self) -> Tensor:  # noqa: N802
        """The matrix of the dynamics in the clock log t."""
        return self._matrix.to(self.anchor)

    @property
    def input_size(self) -> int:
        """One: the signal."""
        return 1

    def elapsed(self, t0: Tensor, t1: Tensor) -> Tensor:
        """The logarithm of the ratio of two times; 1000, which is for ever, after time 0."""
        start, end = t0.to(torch.float64), t1.to(torch.float64)
        if bool((start < 0).any()) or bool((end < 0).any()):
            raise ValueError("HippoLegS remembers from time 0 on, and a time is negative; subtract an origin from ts.")
        moved = end - start
        begun = start > 0
        growth = torch.log1p(moved / torch.where(begun, start, 1.0))
        return torch.where(begun, growth.clamp(max=_FOREVER), torch.where(moved > 0, _FOREVER, 0.0))

    def flow(self, dt: Tensor, order: int = 0) -> tuple[Tensor, ...]:
        """As in `LinearDynamics`; the integrals are weights of the signal, `(*batch, time, state, 1)`."""
        nodes, shares = self._nodes.to(dt), self._shares.to(dt)
        ratio, rest = (-dt).exp()[..., None], -torch.expm1(-dt)[..., None]
        old = _legendre(ratio * nodes, self.state_size)
        fixed = _legendre(nodes, self.state_size) * shares[:, None]
        found = [ratio[..., None] * (old.mT @ fixed)]
        if order:
            new = _legendre(ratio + rest * nodes, self.state_size)
            weights = torch.stack([shares, shares * nodes][:order], -1)
            gained = rest[..., None] * (new.mT @ weights)
            found += [gained[..., index : index + 1] for index in range(order)]
        return tuple(found)

    def basis(self, x: Tensor) -> Tensor:
        """What the coefficients are multiplied by, to read the signal at the share `x` of the time that has passed.

        Args:
            x: shares in [0, 1]; 0 is time 0, 1 is now. Of any shape.

        Returns:
            Values of the basis, `(..., state)`.
        """
        return _legendre(x, self.state_size)

    def _one(self, transition: Tensor) -> Tensor:
        return self._inputs.to(transition).expand(*transition.shape[:-1], 1)


class HippoLegT(MatrixDynamics):
    r"""A memory of the last stretch of a signal: Legendre coefficients on a sliding window.

    .. math:: f(t - \theta + \theta x) \approx \sum_n c_n \sqrt{2n + 1}\,P_n(2x - 1), \qquad
        A_{nk} = -\frac{\sqrt{(2n+1)(2k+1)}}{\theta} \begin{cases} 1 & n \ge k \\ (-1)^{n-k} & n < k \end{cases}

    What falls out of the window is taken from the approximation itself, so it is exact for polynomials below degree
    `size`, and otherwise as good as the approximation at the far end.

    Args:
        size: number of coefficients.
        window: :math:`\theta > 0`, in units of time.
        dtype: of the state; the default dtype if not given.

    Raises:
        ValueError: the size is below 1, or the window is not positive.

    Reference:
        Legendre Memory Units: Continuous-Time Representation in Recurrent Neural Networks, A. Voelker, I. Kajic,
        C. Eliasmith, 2019, https://papers.nips.cc/paper/9689 and HiPPO, A. Gu et al., 2020,
        https://arxiv.org/abs/2008.07669

    Example:
        >>> memory = HippoLegT(6, window=1.0)
        >>> coefficients = memory.scan(torch.linspace(0.0, 5.0, 500), torch.ones(500, 1))
        >>> (memory.basis(torch.tensor([0.0, 0.5, 1.0])) @ coefficients[-1]).round(decimals=3)
        tensor([1., 1., 1.])
    """

    anchor: Tensor

    def __init__(self, size: int, window: float, *, dtype: torch.dtype | None = None) -> None:
        super().__init__(size)
        _check_scale("window", window)
        root = _roots(size)
        place = torch.arange(size)
        signs = torch.where(place[:, None] >= place, 1.0, (-1.0) ** (place - place[:, None]).double())
        _anchor(self, dtype)
        self._matrix, self._inputs = -root[:, None] * root * signs / window, root[:, None] / window
        self.S = None

    @property
    def A(self) -> Tensor:  # noqa: N802
        """The matrix of the dynamics."""
        return self._matrix.to(self.anchor)

    @property
    def B(self) -> Tensor | None:  # noqa: N802  # type: ignore[override]
        """The input matrix."""
        return self._inputs.to(self.anchor)

    def basis(self, x: Tensor) -> Tensor:
        """As in `HippoLegS`, with `x` the share of the window: 0 is its far end, 1 is now."""
        return _legendre(x, self.state_size)


class HippoLagT(MatrixDynamics):
    r"""A memory of the past that fades: coefficients of Laguerre functions.

    .. math:: f(t - \tau s) \approx \sum_n c_n L_n(s)\,e^{-s/2}, \qquad
        \frac{dc}{dt} = \frac1\tau \left(\left(\tfrac12 - \mathrm{tril}(1)\right) c + f\right)

    Args:
        size: number of coefficients.
        timescale: :math:`\tau > 0`, in units of time.
        dtype: of the state; the default dtype if not given.

    Raises:
        ValueError: the size is below 1, or the timescale is not positive.

    Reference:
        HiPPO: Recurrent Memory with Optimal Polynomial Projections, A. Gu, T. Dao, S. Ermon, A. Rudra, C. Re, 2020,
        https://arxiv.org/abs/2008.07669

    Example:
        >>> HippoLagT(2, timescale=2.0).A
        tensor([[-0.2500,  0.0000],
                [-0.5000, -0.2500]])
    """

    anchor: Tensor

    def __init__(self, size: int, timescale: float, *, dtype: torch.dtype | None = None) -> None:
        super().__init__(size)
        _check_scale("timescale", timescale)
        lower = torch.tril(torch.ones(size, size, dtype=torch.float64))
        A = 0.5 * torch.eye(size, dtype=torch.float64) - lower
        _anchor(self, dtype)
        self._matrix, self._inputs = A / timescale, torch.ones(size, 1, dtype=torch.float64) / timescale
        self.S = None

    @property
    def A(self) -> Tensor:  # noqa: N802
        """The matrix of the dynamics."""
        return self._matrix.to(self.anchor)

    @property
    def B(self) -> Tensor | None:  # noqa: N802  # type: ignore[override]
        """The input matrix."""
        return self._inputs.to(self.anchor)

    def basis(self, s: Tensor) -> Tensor:
        """What the coefficients are multiplied by, to read the signal `s` timescales ago, `(..., state)`."""
        found = [torch.ones_like(s), 1.0 - s]
        for n in range(1, self.state_size - 1):
            found.append(((2 * n + 1 - s) * found[-1] - n * found[-2]) / (n + 1))
        return torch.stack(found[: self.state_size], -1) * (-0.5 * s).exp()[..., None]


def _anchor(dynamics: LinearDynamics, dtype: torch.dtype | None) -> None:
    """An empty buffer that follows the module to its device and dtype, while the constants keep all their digits."""
    dtype = torch.get_default_dtype() if dtype is None else dtype
    dynamics.register_buffer("anchor", torch.empty(0, dtype=dtype), persistent=False)


def _check_scale(name: str, value: float) -> None:
    if not 0 < value < float("inf"):
        raise ValueError(f"{name} must be positive and finite, in units of time; got {value}.")


def _roots(size: int) -> Tensor:
    return torch.sqrt(2.0 * torch.arange(size, dtype=torch.float64) + 1.0)


@cache
def _gauss(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights on [0, 1] that integrate products of two basis functions exactly."""
    nodes, weights = np.polynomial.legendre.leggauss(size + 1)
    return (nodes + 1.0) / 2.0, weights / 2.0


def _legendre(x: Tensor, size: int) -> Tensor:
    """Orthonormal Legendre polynomials on [0, 1], `(..., size)`."""
    z = 2.0 * x - 1.0
    found = [torch.ones_like(z), z]
    for n in range(1, size - 1):
        found.append(((2 * n + 1) * z * found[-1] - n * found[-2]) / (n + 1))
    return torch.stack(found[:size], -1) * _roots(size).to(x)
