"""The cell of the liquid time-constant network."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from .._checks import check_count
from .._types import State, States, Times
from ..fields import LTCField
from ..fields._scan import run_loop
from ..fields._synapses import is_compiled
from ..integrate import evolve, explain
from ..paths import ConstantPath
from ..solvers import ExponentialMidpoint, FusedEuler, Solver
from ..terms import ODETerm
from ..wirings import Wiring
from ._ltc_loop import LTCLoop
from .held import HeldCell


__all__ = ["LTCCell"]


class LTCCell(HeldCell):
    r"""A liquid time-constant network, driven by the last observation: `LTCField` between updates that hold a value.

    .. math:: \frac{dy}{dt} = -a(y, \hat x) \odot y + b(y, \hat x), \qquad x_{out} = s \odot y + r

    Observations pass an affine map of their own before the synapses, and the motor neurons another behind them. See
    `HeldCell` for what is held, for mixed memory, and for how it is called as a layer; `load_ncps` reads weights of
    ncps, whose steps are `solver=FusedEuler(), num_steps=6`.

    The exponential midpoint takes two evaluations per step and is of order 2, whatever the gap; the fused step takes
    one and is of order 1. Sparse recurrence is a matter of the wiring, for example `Random(32, sparsity=0.5)`.

    Args:
        num_channels: how many channels are observed.
        units: number of neurons, all connected, or a `Wiring`, of which the motor neurons are put out.
        solver: the method between observations; default: the exponential midpoint.
        num_steps: equal steps per gap.
        mixed_memory: whether an LSTM takes in the observations.
        reads_mask: whether the neurons see which channels were observed; ncps has no such input.
        input_size: how many inputs drive the neurons beside the observations.

    Raises:
        TypeError: `solver` is not a method.
        ValueError: a size does not fit.

    References:
        Liquid Time-constant Networks, R. Hasani, M. Lechner, A. Amini, D. Rus, R. Grosu, 2021,
        https://arxiv.org/abs/2006.04439

    Example:
        >>> cell = LTCCell(num_channels=2, units=8)
        >>> h = cell.update(torch.zeros(3, cell.hidden_size), torch.ones(3, 2), torch.ones(3, 2, dtype=torch.bool))
        >>> cell.evolve(h, t0=torch.zeros(3), t1=torch.tensor([0.5, 0.0, 9.0])).shape
        torch.Size([3, 12])
    """

    def __init__(
        self,
        num_channels: int,
        units: int | Wiring,
        *,
        solver: Solver | None = None,
        num_steps: int = 1,
        mixed_memory: bool = False,
        reads_mask: bool = True,
        input_size: int = 0,
    ) -> None:
        super().__init__(
            num_channels,
            units.units if isinstance(units, Wiring) else units,
            motor_size=units.motor_size if isinstance(units, Wiring) else None,
            mixed_memory=mixed_memory,
            reads_mask=reads_mask,
            input_size=input_size,
        )
        if not isinstance(solver, Solver | None):
            raise TypeError(f"solver must be a method such as FusedEuler(), not its class or name; got {solver!r}.")
        check_count("num_steps", num_steps)
        self.field = LTCField(units, input_size=self.seen_size + input_size)
        self.solver = ExponentialMidpoint() if solver is None else solver
        self.num_steps = num_steps
        self.input_scale = nn.Parameter(torch.ones(num_channels))
        self.input_shift = nn.Parameter(torch.zeros(num_channels))
        self.output_scale = nn.Parameter(torch.ones(self.motor_size))
        self.output_shift = nn.Parameter(torch.zeros(self.motor_size))

    def explain(self) -> str:
        """See `Explained.explain`."""
        steps = f"{self.num_steps} step{'s' if self.num_steps > 1 else ''} per interval"
        return f"{explain(self.field, solver=self.solver)}; {steps}, never through other queries"

    def outputs(self, h: State) -> Tensor:
        """See `HeldCell.outputs`; motor neurons come first."""
        return h[..., : self.motor_size] * self.output_scale + self.output_shift

    def sweep(self, y: State, gaps: Times, seen: Tensor) -> States:
        """See `HeldCell.sweep`."""
        values, rest = seen[..., : self.num_channels], seen[..., self.num_channels :]
        us = torch.cat([values * self.input_scale + self.input_shift, rest], -1)
        field, batch = self.field, gaps.shape[:-1]
        y = y.expand(*batch, -1)
        if not isinstance(self.solver, ExponentialMidpoint | FusedEuler) or not is_compiled(y, us, field.raw_leak):
            return self._stepped(y, gaps, us)
        # Time first, before there is more of it.
        rate, drive = field.driven(us.reshape(-1, *us.shape[-2:]).transpose(0, 1).contiguous())
        weights = field.synapses.weights(softplus(field.raw_capacity))
        loop = LTCLoop(self.num_steps, isinstance(self.solver, FusedEuler))
        gap = gaps.reshape(-1, gaps.shape[-1]).t()
        first = y.reshape(-1, self.units)
        states = run_loop(loop, rate, drive, gap, first, *weights)
        return states.transpose(0, 1).reshape(*batch, gaps.shape[-1], self.units)

    def _stepped(self, y: State, gaps: Times, us: Tensor) -> States:
        """One gap after the other, by the solver."""
        states = []
        for gap, u in zip(gaps.unbind(-1), us.unbind(-2), strict=True):
            term = ODETerm(self.field, ConstantPath(u))
            y = evolve(term, y, torch.zeros_like(gap), gap, solver=self.solver, num_steps=self.num_steps)
            states.append(y)
        return torch.stack(states, -2)
