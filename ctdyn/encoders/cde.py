"""The encoder that a controlled equation makes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .._checks import check_instance
from ..data import IrregularBatch
from ..integrate import StepController, StepTo, explain, solve
from ..nn import MLP
from ..paths import Control
from ..solvers import RK4, Solver
from ..structure import CDEField, ExactCDEField, Explained
from .base import Encoder, Encoding


__all__ = ["CDEEncoder"]


class CDEEncoder(Encoder, Explained):
    r"""A hidden state that the observations drive as the control of an equation: neural, linear and Log-NCDE readers.

    .. math:: z(t_0) = \zeta(x_0, m_0), \qquad dz = F(z)\,dX

    :math:`X` is the `Control` made of the series: time first, then counts of the observations, then the values. The
    initial state knows the first values, which an equation cannot feel otherwise. With a `LinearCDEField` and a control
    of straight lines the series is read exactly, whatever its gaps; with a `LogODEField` and `Control(window=...)` in
    steps of whole windows.

    Args:
        num_channels: how many channels are observed.
        state_size: size of the hidden state.
        field: the equation, for `control.size(num_channels)` channels; `MLPCDEField`, `LinearCDEField`, `LogODEField`.
        control: how the observations become its control.
        start_hidden: hidden layers of the map from the first values to the initial state.
        average: describe a series by the average of the states at its rows, instead of by the last.
        solver: the method; default: `RK4()`, one step from knot to knot, or none where the equation is solved exactly.
        controller: its steps.

    References:
        Neural Controlled Differential Equations for Irregular Time Series, P. Kidger, J. Morrill, J. Foster, T. Lyons,
        2020, https://arxiv.org/abs/2005.08926

    Example:
        >>> from ctdyn.fields import LinearCDEField
        >>> from ctdyn.paths import LinearPath
        >>> control = Control(LinearPath)
        >>> encoder = CDEEncoder(2, 8, LinearCDEField(8, control.size(2), block_size=4), control)
        >>> times = torch.tensor([[0.0, 0.3, 1.0]])
        >>> batch = IrregularBatch(times, torch.ones(1, 3, 2), torch.ones(1, 3, 2, dtype=torch.bool))
        >>> encoder(batch).static.shape
        torch.Size([1, 8])
        >>> encoder.explain()
        'exact: LinearCDEField is linear and its control moves in straight lines: no step is needed'
    """

    provides = frozenset({"static"})

    def __init__(
        self,
        num_channels: int,
        state_size: int,
        field: CDEField,
        control: Control | None = None,
        *,
        start_hidden: Sequence[int] = (),
        average: bool = False,
        solver: Solver | None = None,
        controller: StepController | None = None,
    ) -> None:
        super().__init__(num_channels, input_size=0, static_size=0)
        self.sizes = {"static": state_size}
        self.control = Control() if control is None else control
        check_instance("control", self.control, Control, "Control(LinearPath)")
        check_instance("field", field, CDEField, "MLPCDEField(state_size, control.size(num_channels))")
        self.field = field
        self.average = average
        if solver is None and controller is None and not isinstance(field, ExactCDEField):
            solver, controller = RK4(), StepTo()
        self.solver, self.controller = solver, controller
        self.start = MLP(2 * num_channels, state_size, start_hidden)

    def forward(self, batch: IrregularBatch) -> Encoding:
        """See `Encoder.forward`."""
        if batch.values.shape[-1] != self.num_channels:
            raise ValueError(f"the encoder reads {self.num_channels} channels; the batch has {batch.values.shape[-1]}.")
        path = self.control(batch.times, batch.values, batch.mask)
        first = torch.where(batch.mask, batch.values, 0.0)[..., 0, :]
        y0 = self.start(torch.cat([first, batch.mask[..., 0, :].to(first.dtype)], -1))
        knots = path.ts
        asked, real = _distinct(knots) if self.average else (knots[..., [0, -1]], None)
        ys = solve(self.field, y0, asked, inputs=path, solver=self.solver, controller=self.controller).ys
        if real is None:
            return Encoding(static=ys[..., -1, :])
        weight = real.to(ys.dtype) / real.sum(-1, keepdim=True)
        return Encoding(static=(weight.unsqueeze(-1) * ys).sum(-2))

    def explain(self) -> str:
        """Which way the equation is solved, and why."""
        assert self.num_channels is not None
        ts, xs = torch.tensor([0.0, 1.0]), torch.zeros(2, self.num_channels)
        return explain(self.field, inputs=self.control(ts, xs), solver=self.solver, controller=self.controller)


def _distinct(ts: Tensor) -> tuple[Tensor, Tensor]:
    """Each time once, padded with the last, and which of them are no padding."""
    new = torch.ones_like(ts, dtype=torch.bool)
    new[..., 1:] = ts[..., 1:] != ts[..., :-1]
    order = (~new).to(torch.uint8).argsort(dim=-1, stable=True)
    real = torch.arange(ts.shape[-1], device=ts.device) < new.sum(-1, keepdim=True)
    return torch.where(real, ts.gather(-1, order), ts[..., -1:]), real
