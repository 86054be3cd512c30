"""What cells share that hold their last observation as an input of their dynamics."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from .._types import Inputs, State, States, Time, Times
from ..nn import all_finite
from .base import Cell


__all__ = ["HeldCell", "Memory"]


class HeldCell(Cell, ABC):
    r"""A cell whose units are driven by the last observation until the next one comes; also a layer of its own.

    .. math:: h = [y, (c), \hat x, (m)], \qquad y(t_{k+1}) = \Phi\big(y(t_k), t_{k+1} - t_k, [\hat x_k, m_k, u_k]\big)

    A channel that is not observed keeps its last value; :math:`m` says which were. With mixed memory an observation
    also passes through an LSTM, whose output is y and whose cell c no time touches (the ODE-LSTM).

    Called as a layer, with values and timespans, it is what `LTC` and `CfC` of ncps are: each timespan is the time
    that follows its row, on the clock of its series.

    Args:
        num_channels: how many channels are observed.
        units: size of `y`.
        motor_size: how many of them are put out.
        mixed_memory: whether there is an LSTM at observations.
        reads_mask: whether the units see which channels were observed.
        input_size: how many inputs drive the units beside the observations.

    References:
        Learning Long-Term Dependencies in Irregularly-Sampled Time Series, M. Lechner, R. Hasani, 2020,
        https://arxiv.org/abs/2006.04418

    Example:
        >>> from ctdyn.cells import CfCCell
        >>> cell: HeldCell = CfCCell(num_channels=2, units=8)
        >>> outputs, h = cell(torch.zeros(3, 5, 2), timespans=torch.rand(3, 5))
        >>> outputs.shape, h.shape
        (torch.Size([3, 5, 8]), torch.Size([3, 12]))
    """

    def __init__(
        self,
        num_channels: int,
        units: int,
        *,
        motor_size: int | None = None,
        mixed_memory: bool = False,
        reads_mask: bool = True,
        input_size: int = 0,
    ) -> None:
        super().__init__(num_channels, units * (1 + mixed_memory) + num_channels * (1 + reads_mask))
        if input_size < 0:
            raise ValueError(f"input_size must be at least 0 (0: nothing but observations); got {input_size}.")
        self.units, self.motor_size = units, units if motor_size is None else motor_size
        self.reads_mask, self.input_size = reads_mask, input_size
        self.seen_size = num_channels * (1 + reads_mask)
        self.memory = Memory(self.seen_size, units) if mixed_memory else None

    @abstractmethod
    def outputs(self, h: State) -> Tensor:
        """What the units put out, `(*batch, motor)`, of hidden states or of units alone."""

    @abstractmethod
    def sweep(self, y: State, gaps: Times, seen: Tensor) -> States:
        """The units behind every one of many gaps in a row.

        Args:
            y: units before the first, `(*batch, unit)`.
            gaps: lengths, not negative, `(*batch, time)`; one of zero leaves the units exactly as they are.
            seen: what drives the units in each, `(*batch, time, input)`.

        Returns:
            The units, `(*batch, time, unit)`.
        """

    @property
    def read_size(self) -> int:
        """See `Cell.read_size`."""
        return self.motor_size + self.seen_size

    def read(self, h: State) -> Tensor:
        """See `Cell.read`: what is put out, and the last observation, which the units may not have seen yet."""
        return torch.cat([self.outputs(h), h[..., self.hidden_size - self.seen_size :]], -1)

    def evolve(self, h: State, t0: Time, t1: Time, u: Inputs | None = None) -> State:
        """See `Cell.evolve`; a step backwards in time covers the same gap."""
        self._check(h)
        self._check_inputs(u)
        rest = h[..., self.units :]
        seen = rest[..., rest.shape[-1] - self.seen_size :]
        if u is not None:
            shape = torch.broadcast_shapes(u.shape[:-1], h.shape[:-1])
            seen = torch.cat([seen.expand(*shape, -1), u.expand(*shape, -1)], -1)
        gap = (t1 - t0).abs().to(h.dtype).expand(seen.shape[:-1])
        y = self.sweep(h[..., : self.units], gap.unsqueeze(-1), seen.unsqueeze(-2)).squeeze(-2)
        return torch.cat([y, rest.expand(*y.shape[:-1], -1)], -1)

    def update(self, h: State, x: Tensor, mask: Tensor) -> State:
        """See `Cell.update`: the observation is held from now on."""
        self._check(h, x, mask)
        start = self.hidden_size - self.seen_size
        values = torch.where(mask, x, h[..., start : start + self.num_channels])
        seen = torch.cat([values, mask.to(h.dtype).expand_as(values)], -1) if self.reads_mask else values
        kept = h[..., :start].expand(*seen.shape[:-1], -1)
        if self.memory is not None:
            kept = self.memory(seen, kept[..., : self.units], kept[..., self.units :])
        return torch.where(mask.any(-1, keepdim=True), torch.cat([kept, seen], -1), h)

    def scan(self, h: State, ts: Times, xs: Tensor, mask: Tensor, us: Tensor | None = None) -> tuple[States, States]:
        """See `Cell.scan`: without mixed memory all observations are known at once, and the units run through."""
        self._check(h, xs, mask)
        if self.memory is not None or ts.shape[-1] < 2:
            return super().scan(h, ts, xs, mask, us)
        seen, ys = self._run(h, ts.diff(dim=-1).abs().to(h.dtype), xs, mask, us)
        first, held = h[..., : self.units].unsqueeze(-2), h[..., self.units :].unsqueeze(-2)
        ys = torch.cat([first, ys], -2)
        was = torch.cat([held.expand(*seen.shape[:-2], 1, -1), seen[..., :-1, :]], -2)
        return torch.cat([ys, was], -1), torch.cat([ys, seen], -1)

    def _run(
        self, h: Tensor, gaps: Tensor, xs: Tensor, mask: Tensor | None, us: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """What is held behind every row, and the units behind every gap, the first of which follows the first row."""
        self._check_inputs(us)
        seen = self._held(h[..., self.units :].unsqueeze(-2), xs, mask)
        drive = seen if us is None else torch.cat([seen, us.expand(*seen.shape[:-1], -1)], -1)
        return seen, self.sweep(h[..., : self.units], gaps, drive[..., : gaps.shape[-1], :])

    def forward(
        self,
        xs: Tensor,
        h: State | None = None,
        *,
        timespans: Tensor | float | None = None,
        mask: Tensor | None = None,
        inputs: Tensor | None = None,
    ) -> tuple[Tensor, State]:
        """What the units put out behind the timespan of every row, and the hidden state at the end.

        Args:
            xs: values, `(*batch, time, channel)`.
            h: hidden states to begin with, `(*batch, hidden)`; None for zeros.
            timespans: how long it is from each row to the next, `(*batch, time)` or `(*batch, time, 1)`, or one number
                for all; None for 1.
            mask: True where observed, `(*batch, time, channel)`; None for everywhere. Rows behind the last observation
                of a series are padding, over which no time passes.
            inputs: what drives the units beside the values, held over each timespan, `(*batch, time, input)`.

        Returns:
            The outputs, `(*batch, time, motor)`, and the hidden state, `(*batch, hidden)`.

        Raises:
            ValueError: shapes do not fit, or a value is not finite and not masked.
        """
        spans = self._checked(xs, timespans, mask)
        h = xs.new_zeros(*xs.shape[:-2], self.hidden_size) if h is None else h
        self._check(h)
        if mask is not None:
            spans = torch.where(mask.any(-1).flip(-1).cummax(-1).values.flip(-1), spans, 0.0)
        if self.memory is None:
            seen, ys = self._run(h, spans.to(h.dtype), xs, mask, inputs)
            return self.outputs(ys), torch.cat([ys[..., -1, :], seen[..., -1, :]], -1)
        # One row more, where nothing is observed.
        ts = torch.nn.functional.pad(spans.cumsum(-1), (1, 0))
        mask = torch.ones_like(xs, dtype=torch.bool) if mask is None else mask
        xs, mask = (torch.cat([x, torch.zeros_like(x[..., :1, :])], -2) for x in (xs, mask))
        us = None if inputs is None else torch.cat([inputs, inputs[..., -1:, :]], -2)
        states = self.scan(h, ts, xs, mask, us)[0][..., 1:, :]
        return self.outputs(states), states[..., -1, :]

    def _held(self, held: Tensor, xs: Tensor, mask: Tensor | None) -> Tensor:
        """What is held behind every row, `(*batch, time, channel)`, and which channels its last observation had."""
        if mask is None:
            return torch.cat([xs, torch.ones_like(xs)], -1) if self.reads_mask else xs
        rows = torch.arange(xs.shape[-2], device=xs.device).unsqueeze(-1)
        values = _latest(held[..., : self.num_channels], xs, torch.where(mask, rows, -1))
        if not self.reads_mask:
            return values
        real = torch.where(mask.any(-1, keepdim=True), rows, -1).expand(mask.shape)
        observed = _latest(held[..., self.num_channels :], mask.to(xs.dtype), real)
        return torch.cat([values, observed], -1)

    def _check_inputs(self, u: Tensor | None) -> None:
        given = 0 if u is None else u.shape[-1]
        if given != self.input_size:
            raise ValueError(f"this {type(self).__name__} has input_size={self.input_size}; got {given} inputs.")

    def _checked(self, xs: Tensor, timespans: Tensor | float | None, mask: Tensor | None) -> Tensor:
        """The timespans in float64, `(*batch, time)`."""
        if xs.dim() < 2 or xs.shape[-1] != self.num_channels or xs.shape[-2] == 0:
            raise ValueError(
                f"xs must be (*batch, time, channel) with {self.num_channels} channels and at least one time; got "
                f"{tuple(xs.shape)}."
            )
        if not xs.is_floating_point():
            raise ValueError(f"xs must be of a floating dtype; got {xs.dtype}. Use xs.float().")
        if mask is None:
            if not all_finite(xs):
                raise ValueError("xs hold NaN or infinite entries; pass mask=~xs.isnan() where they were not observed.")
        elif mask.shape != xs.shape or mask.dtype != torch.bool:
            raise ValueError(
                f"mask must be boolean and (*batch, time, channel) as xs, {tuple(xs.shape)}; got {tuple(mask.shape)} "
                f"of {mask.dtype}."
            )
        spans = torch.as_tensor(1.0 if timespans is None else timespans, dtype=torch.float64, device=xs.device)
        if spans.dim() == xs.dim() and spans.shape[-1] == 1:
            spans = spans.squeeze(-1)
        if spans.dim() and spans.shape != xs.shape[:-1]:
            raise ValueError(
                f"timespans must be a number, (*batch, time) or (*batch, time, 1) for xs of {tuple(xs.shape)}; got "
                f"{tuple(spans.shape)}."
            )
        if not bool(((spans >= 0) & (spans < float("inf"))).all()):
            raise ValueError("timespans must be finite and not negative: each is the time from its row to the next.")
        return spans.expand(xs.shape[:-1])


class Memory(nn.Module):
    """A long short-term memory that begins by keeping what it has; for any leading axes."""

    def __init__(self, input_size: int, units: int) -> None:
        super().__init__()
        self.units = units
        self.inputs = nn.Linear(input_size, 4 * units)
        self.recurrent = nn.Linear(units, 4 * units, bias=False)
        nn.init.xavier_uniform_(self.inputs.weight)
        nn.init.orthogonal_(self.recurrent.weight)
        with torch.no_grad():
            # Candidate, input, forget and output gate.
            self.inputs.bias.uniform_(-0.1, 0.1)[2 * units : 3 * units].add_(1.0)

    def forward(self, x: Tensor, y: Tensor, c: Tensor) -> Tensor:
        """Output and cell behind an observation, side by side."""
        candidate, entered, kept, let_out = (self.inputs(x) + self.recurrent(y)).chunk(4, -1)
        c = c * torch.sigmoid(kept) + torch.tanh(candidate) * torch.sigmoid(entered)
        return torch.cat([torch.tanh(c) * torch.sigmoid(let_out), c], -1)


def _latest(first: Tensor, xs: Tensor, rows: Tensor) -> Tensor:
    """The entries of the last row, up to each, that is not negative; those of `first` where there is none."""
    latest = rows.cummax(-2).values
    return torch.where(latest >= 0, xs.gather(-2, latest.clamp(min=0)), first)
