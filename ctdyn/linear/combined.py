"""Sums and products of dynamics: what sums and products of kernels are."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .dense import MatrixDynamics
from .dynamics import LinearDynamics
from .holds import Hold


__all__ = ["ProductDynamics", "SumDynamics"]


class SumDynamics(LinearDynamics):
    r"""Several dynamics side by side: a trend and a cycle, or the sum of Gaussian processes.

    .. math:: A = \mathrm{diag}(A_1, A_2, \dots), \qquad H = (H_1, H_2, \dots), \qquad k = k_1 + k_2 + \dots

    Inputs reach all parts, which must then take inputs of one size; parts without an input matrix share a direct input
    of the size of the whole state.

    Args:
        parts: the dynamics, whose states follow each other in the state of the sum.

    Raises:
        ValueError: there are no parts, or their inputs do not fit together.

    Reference:
        An introduction to Gaussian processes for the Kalman filter expert, S. Reece, S. Roberts, 2010,
        https://doi.org/10.1109/ICIF.2010.5711863

    Example:
        >>> from ctdyn.linear import Matern
        >>> both = SumDynamics([Matern(2.5, lengthscale=10.0), Matern(0.5, lengthscale=0.5, variance=0.1)])
        >>> both.kernel(torch.tensor([0.0])).detach()
        tensor([1.1000])
    """

    def __init__(self, parts: Sequence[LinearDynamics]) -> None:
        if not parts:
            raise ValueError("SumDynamics needs at least one part.")
        super().__init__(sum(part.state_size for part in parts))
        _check_clock(parts)
        self.parts = nn.ModuleList(parts)
        without = [part.B is None for part in parts]
        sizes = {part.input_size for part in parts}
        if any(without) != all(without) or (not all(without) and len(sizes) > 1):
            raise ValueError(
                "the parts of a SumDynamics must all have an input matrix, of one input size, or none of them; got "
                f"input sizes {[None if part.B is None else part.input_size for part in parts]}."
            )

    @property
    def B(self) -> Tensor | None:  # noqa: N802  # type: ignore[override]
        """The input matrices of the parts below each other."""
        matrices = [part.B for part in self._parts()]
        return None if matrices[0] is None else torch.cat([m for m in matrices if m is not None], -2)

    @property
    def A(self) -> Tensor:  # noqa: N802
        """The matrix of the dynamics."""
        return _block_diagonal([part.A for part in self._parts()])

    @property
    def readout(self) -> Tensor | None:
        """As in `LinearDynamics`: the sum of the parts' processes."""
        rows = [part.readout for part in self._parts()]
        known = [row for row in rows if row is not None]
        return torch.cat(known) if len(known) == len(rows) else None

    def flow(self, dt: Tensor, order: int = 0) -> tuple[Tensor, ...]:
        """As in `LinearDynamics`."""
        flows = [_full_flow(part, dt, order) for part in self._parts()]
        return tuple(_block_diagonal(list(values)) for values in zip(*flows, strict=True))

    def noise(self, dt: Tensor) -> Tensor:
        """As in `LinearDynamics`."""
        return _block_diagonal([part.noise(dt) for part in self._parts()])

    def density(self) -> Tensor:
        """As in `LinearDynamics`."""
        return _block_diagonal([part.density() for part in self._parts()])

    def stationary(self) -> Tensor:
        """As in `LinearDynamics`."""
        return _block_diagonal([part.stationary() for part in self._parts()])

    def _parts(self) -> list[LinearDynamics]:
        return [part for part in self.parts if isinstance(part, LinearDynamics)]

    def _march(self, dt: Tensor, us: Tensor | None, y0: Tensor | None, hold: Hold) -> Tensor:
        parts = self._parts()
        sizes = [part.state_size for part in parts]
        starts = [None] * len(parts) if y0 is None else y0.split(sizes, -1)
        shared = us is None or self.B is not None
        inputs = [us] * len(parts) if shared or us is None else us.split(sizes, -1)
        found = [part._march(dt, u, y, hold) for part, u, y in zip(parts, inputs, starts, strict=True)]
        batch = torch.broadcast_shapes(*(states.shape[:-1] for states in found))
        return torch.cat([states.expand(*batch, states.shape[-1]) for states in found], -1)


class ProductDynamics(MatrixDynamics):
    r"""The dynamics whose kernel is the product of two: a cycle that changes its shape, a local trend.

    .. math::
        A = A_1 \otimes 1 + 1 \otimes A_2, \qquad H = H_1 \otimes H_2, \qquad
        Q = Q_1 \otimes P_2 + \bar A_1 P_1 \bar A_1^\top \otimes Q_2

    with :math:`P_i` the stationary covariances. The noise is a sum of covariances, in which nothing cancels.

    Args:
        first: one of them; it must be stationary.
        second: the other; likewise.

    Raises:
        ValueError: one of them has no stationary distribution.

    Reference:
        Explicit link between periodic covariance functions and state space models, A. Solin, S. Sarkka, 2014,
        https://proceedings.mlr.press/v33/solin14.html

    Example:
        >>> from ctdyn.linear import Matern
        >>> product = ProductDynamics(Matern(0.5, lengthscale=1.0), Matern(1.5, lengthscale=1.0))
        >>> product.kernel(torch.tensor([1.0])).detach()
        tensor([0.1778])
    """

    def __init__(self, first: LinearDynamics, second: LinearDynamics) -> None:
        super().__init__(first.state_size * second.state_size)
        _check_clock((first, second))
        for part in (first, second):
            part.stationary()
        self.first = first
        self.second = second
        self.B = None
        self.S = None

    @property
    def A(self) -> Tensor:  # noqa: N802
        """The matrix of the dynamics."""
        A1, A2 = self.first.A, self.second.A
        one, two = (torch.eye(A.shape[-1], dtype=A.dtype, device=A.device) for A in (A1, A2))
        return _kron(A1, two) + _kron(one, A2)

    @property
    def readout(self) -> Tensor | None:
        """As in `LinearDynamics`: the product of the two processes' readouts."""
        rows = (self.first.readout, self.second.readout)
        return None if rows[0] is None or rows[1] is None else torch.kron(rows[0], rows[1])

    def flow(self, dt: Tensor, order: int = 0) -> tuple[Tensor, ...]:
        """As in `LinearDynamics`."""
        if order:
            return super().flow(dt, order)
        return (_kron(*(_full_flow(part, dt, 0)[0] for part in (self.first, self.second))),)

    def noise(self, dt: Tensor) -> Tensor:
        """As in `LinearDynamics`."""
        (transition,) = _full_flow(self.first, dt, 0)
        P1, P2 = (part.stationary().to(dt.dtype)[..., None, :, :] for part in (self.first, self.second))
        kept = transition @ P1 @ transition.mT
        return _kron(self.first.noise(dt), P2) + _kron(kept, self.second.noise(dt))

    def density(self) -> Tensor:
        """As in `LinearDynamics`."""
        one, two = self.first, self.second
        return _kron(one.density(), two.stationary()) + _kron(one.stationary(), two.density())

    def stationary(self) -> Tensor:
        """As in `LinearDynamics`."""
        return _kron(self.first.stationary(), self.second.stationary())


def _check_clock(parts: Sequence[LinearDynamics]) -> None:
    one = torch.ones((), dtype=torch.float64)
    for part in parts:
        if float(part.elapsed(one, 3.0 * one)) != 2.0:
            raise ValueError(f"{type(part).__name__} keeps a clock of its own and cannot be combined with others.")


def _full_flow(part: LinearDynamics, dt: Tensor, order: int) -> tuple[Tensor, ...]:
    return tuple(torch.diag_embed(value) if part.diagonal else value for value in part.flow(dt, order))


def _block_diagonal(blocks: list[Tensor]) -> Tensor:
    batch = torch.broadcast_shapes(*(block.shape[:-2] for block in blocks))
    size = sum(block.shape[-1] for block in blocks)
    rows, start = [], 0
    for block in blocks:
        after = size - start - block.shape[-1]
        rows.append(nn.functional.pad(block.expand(*batch, *block.shape[-2:]), (start, after)))
        start += block.shape[-1]
    dtype = torch.result_type(rows[0], rows[-1])
    return torch.cat([row.to(dtype) for row in rows], -2)


def _kron(first: Tensor, second: Tensor) -> Tensor:
    product = first[..., :, None, :, None] * second[..., None, :, None, :]
    return product.flatten(-4, -3).flatten(-2)
