"""The cell of the closed-form continuous-time network."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .._types import State, States, Times
from ..fields import CfCMode, CfCTransition, WiredCfCTransition
from ..nn import LowRankSparse
from ..wirings import Wiring
from .held import HeldCell


__all__ = ["CfCCell"]


class CfCCell(HeldCell):
    r"""A closed-form continuous-time network, driven by the last observation: fast, gated, aware of every gap.

    .. math:: y(t_{k+1}) = (1 - g) \odot \tanh f_1 + g \odot \tanh f_2, \qquad g = \sigma(a\,\Delta_k + b)

    It is not a flow: states at any time are reached in one step from the last observation. See `HeldCell` for what is
    held, for mixed memory, and for how it is called as a layer; `load_ncps` reads weights of ncps.

    Args:
        num_channels: how many channels are observed.
        units: number of units, or a `Wiring`; with one there are no hidden layers, and its last layer is put out.
        mode: how the heads make a state.
        hidden: sizes of the layers before the heads.
        dropout: share of their outputs that is dropped in training.
        recurrent: a form for the matrix that reads the state; by default it is free.
        mixed_memory: whether an LSTM takes in the observations.
        reads_mask: whether the units see which channels were observed; ncps has no such input.

    Raises:
        ValueError: a size does not fit, or an option is given that a wired network does not have.

    References:
        Closed-form Continuous-time Neural Networks, R. Hasani, M. Lechner, A. Amini, L. Liebenwein, A. Ray,
        M. Tschaikowski, G. Teschl, D. Rus, 2022, https://arxiv.org/abs/2106.13898

    Example:
        >>> import torch
        >>> cell = CfCCell(num_channels=2, units=8)
        >>> h = cell.update(torch.zeros(3, cell.hidden_size), torch.ones(3, 2), torch.ones(3, 2, dtype=torch.bool))
        >>> cell.evolve(h, t0=torch.zeros(3), t1=torch.tensor([0.5, 0.0, 9.0])).shape
        torch.Size([3, 12])
    """

    is_flow = False

    def __init__(
        self,
        num_channels: int,
        units: int | Wiring,
        *,
        mode: CfCMode = CfCMode.DEFAULT,
        hidden: Sequence[int] | None = None,
        dropout: float = 0.0,
        recurrent: LowRankSparse | None = None,
        mixed_memory: bool = False,
        reads_mask: bool = True,
    ) -> None:
        wired = isinstance(units, Wiring)
        super().__init__(
            num_channels,
            units.units if wired else units,
            motor_size=len(units.layers[-1]) if wired else None,
            mixed_memory=mixed_memory,
            reads_mask=reads_mask,
        )
        if wired:
            for name, value in (("hidden", hidden), ("recurrent", recurrent), ("dropout", dropout or None)):
                if value is not None:
                    raise ValueError(f"{name} is for units that are not wired; a wired network has no such part.")
            self.step: CfCTransition | WiredCfCTransition = WiredCfCTransition(units, self.seen_size, mode=mode)
        else:
            self.step = CfCTransition(
                units,
                self.seen_size,
                mode=mode,
                hidden=(128,) if hidden is None else hidden,
                dropout=dropout,
                recurrent=recurrent,
            )

    def outputs(self, h: State) -> Tensor:
        """See `HeldCell.outputs`; the last layer of a wiring, all of it."""
        if h.shape[-1] == self.motor_size:
            return h
        return h[..., self.units - self.motor_size : self.units]

    def sweep(self, y: State, gaps: Times, seen: Tensor) -> States:
        """See `HeldCell.sweep`."""
        return self.step.scan(y, gaps, seen)
