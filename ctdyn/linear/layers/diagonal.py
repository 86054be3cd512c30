"""Layers without coupling between their states: all that a diagonal state-space layer must say, and nothing else."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from .._coefficients import decay, held_gain
from ..holds import HeldBefore, Impulse
from ..recurrence import zoh_scan
from .base import LayerState, StateSpaceLayer, Stepper


__all__ = ["DiagonalLayer"]


class DiagonalLayer(StateSpaceLayer, ABC):
    r"""A layer around a diagonal linear system, exact at irregular times.

    .. math:: \dot h = \lambda \odot h + v(u), \qquad y = g(h, u)

    A step of length :math:`\Delta` multiplies the state by :math:`e^{\lambda \Delta}`; coefficients are made on the fly
    and no matrix per step ever exists. Subclass it with `rates`, `drive` and `readout`; override `march` where the
    coefficients have another form, and `stepper` where such a step is to be fast.

    Args:
        input_size: channels of the inputs.
        output_size: channels of the outputs.
        hold: what an input does between its time and the next; default `HeldBefore()`.
        tile: times per tile; None: everything at once.

    Raises:
        ValueError: as for `StateSpaceLayer`.

    Reference:
        Simplified State Space Layers for Sequence Modeling, J. T. H. Smith, A. Warrington, S. W. Linderman, 2023,
        https://arxiv.org/abs/2208.04933

    Example:
        >>> from ctdyn.linear.layers import S5
        >>> layer = S5(2, state_size=8)
        >>> isinstance(layer, DiagonalLayer), layer.rates().shape
        (True, torch.Size([4]))
    """

    @abstractmethod
    def rates(self) -> Tensor:
        r"""The eigenvalues :math:`\lambda` per unit of time, the time scale of each state included, `(state,)`."""

    @abstractmethod
    def drive(self, us: Tensor) -> Tensor:
        """What inputs `(*batch, time, input)` add per unit of time (or at once: `Impulse`), `(*batch, time, state)`."""

    def rest(self) -> Tensor:
        """As in `StateSpaceLayer`: nothing."""
        return torch.zeros_like(self.rates().detach())

    def stepper(self, dt: float) -> Stepper:
        """As in `SequenceLayer`."""
        if type(self).march is not DiagonalLayer.march:
            # Its coefficients are others.
            return super().stepper(dt)
        lam = self.rates()
        gap = torch.as_tensor(dt, dtype=lam.dtype.to_real(), device=lam.device)
        kept, gain = decay(lam, gap), None if isinstance(self.hold, Impulse) else held_gain(lam, gap)

        def step(t: Tensor, u: Tensor, state: LayerState) -> tuple[Tensor, LayerState]:
            v = self.drive((state.u if isinstance(self.hold, HeldBefore) else u)[..., None, :]).squeeze(-2)
            h = kept * state.h + (v if gain is None else gain * v)
            batch = torch.broadcast_shapes(t.shape, h.shape[:-1])
            h, u = h.expand(*batch, -1), u.expand(*batch, -1)
            y = self.readout(h[..., None, :], u[..., None, :]).squeeze(-2)
            return y, LayerState(t.to(torch.float64).expand(batch), h, u)

        return step

    def march(self, dt: Tensor, us: Tensor, h0: Tensor, reset: Tensor | None) -> Tensor:
        """As in `StateSpaceLayer`."""
        return zoh_scan(self.rates(), dt, self.drive(us), h0, impulse=isinstance(self.hold, Impulse), reset=reset)
