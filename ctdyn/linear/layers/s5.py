"""S5: one diagonal system with many inputs and many outputs."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..holds import Hold
from ._projections import narrow, widen
from .decays import Decay, ExpDecay, check_hold
from .diagonal import DiagonalLayer
from .initialization import legs_normal, log_uniform


__all__ = ["S5"]


class S5(DiagonalLayer):
    r"""The S5 layer: a linear system of many inputs and outputs in its eigenbasis, on irregular times exactly.

    .. math:: \dot h = \delta \odot (\lambda \odot h + \tilde B u), \qquad y = 2\,\mathrm{Re}(\tilde C h) + D u

    It begins as a real system with the block-diagonal normal part of HiPPO-LegS and random :math:`B`, :math:`C`:
    :math:`\tilde B = V^* B` and :math:`\tilde C = C V`. Of each conjugate pair one state is kept. The factors
    :math:`\delta`, one per state, are the paper's steps: :math:`\bar A_k = e^{\delta \lambda \Delta_k}` for a gap of
    :math:`\Delta_k` units of time. The paper's own treatment of irregular times is `hold=HeldAfter()`.

    Args:
        input_size: channels of the inputs.
        state_size: size of the real system, a multiple of `2 * blocks`; half as many complex numbers are kept.
        output_size: channels of the outputs; `input_size` if not given. :math:`D` is diagonal if they are equal.
        blocks: number of blocks of the initial matrix.
        steps: the :math:`\delta` begin between these two, per unit of time; with gaps that are typically g units long,
            divide the paper's by g.
        decay: how the real parts of the eigenvalues are kept negative; default `ExpDecay()`.
        hold: what an input does between its time and the next; default `HeldBefore()`.
        tile: times per tile, for memory that does not grow with the length; None: everything at once.

    Raises:
        ValueError: a size does not fit, or the steps are not positive and in order.

    Reference:
        Simplified State Space Layers for Sequence Modeling, J. T. H. Smith, A. Warrington, S. W. Linderman, 2023,
        https://arxiv.org/abs/2208.04933

    Example:
        >>> layer = S5(3, state_size=16, output_size=2, blocks=2)
        >>> ts = torch.tensor([[0.0, 0.1, 4.0], [0.0, 2.0, 2.0]])
        >>> ys, state = layer(ts, torch.randn(2, 3, 3))
        >>> ys.shape, state.h.shape
        (torch.Size([2, 3, 2]), torch.Size([2, 8]))
    """

    def __init__(
        self,
        input_size: int,
        state_size: int,
        output_size: int | None = None,
        *,
        blocks: int = 1,
        steps: tuple[float, float] = (1e-3, 1e-1),
        decay: Decay | None = None,
        hold: Hold | None = None,
        tile: int | None = None,
    ) -> None:
        output_size = input_size if output_size is None else output_size
        super().__init__(input_size, output_size, hold=hold, tile=tile)
        lam, V = legs_normal(state_size, blocks)
        dtype = torch.get_default_dtype()
        B = torch.randn(state_size, input_size) / math.sqrt(input_size)
        C = torch.randn(output_size, state_size) / math.sqrt(state_size)
        self.decay = ExpDecay() if decay is None else decay
        check_hold(self.decay, self.hold, len(lam))
        self.raw_decay = nn.Parameter(self.decay.begin(-lam.real).to(dtype))
        self.frequency = nn.Parameter(lam.imag.to(dtype))
        self.log_step = nn.Parameter(log_uniform((len(lam),), *steps))
        self.B = nn.Parameter(torch.view_as_real(V.mH @ B.to(V.dtype)).to(dtype))
        self.C = nn.Parameter(torch.view_as_real(C.to(V.dtype) @ V).to(dtype))
        shape = (input_size,) if output_size == input_size else (output_size, input_size)
        self.D = nn.Parameter(torch.randn(shape) / math.sqrt(1 if output_size == input_size else input_size))

    def rates(self) -> Tensor:
        """As in `DiagonalLayer`."""
        return self.log_step.exp() * self.decay.eigenvalues(self.raw_decay, self.frequency)

    def drive(self, us: Tensor) -> Tensor:
        """As in `DiagonalLayer`."""
        scale, weights = self.log_step.exp(), self.decay.weights(len(self.log_step))
        scale = scale if weights is None else scale * weights.to(scale)
        return widen(us, self.B * scale[:, None, None])

    def readout(self, hs: Tensor, us: Tensor) -> Tensor:
        """As in `StateSpaceLayer`."""
        ys = narrow(hs, self.C)
        # In place: another array as large as the outputs costs as much as a scan over it.
        return ys.addcmul_(self.D, us) if self.D.dim() == 1 else ys + us @ self.D.mT
