"""What a sequence layer is: a scan over whole series, and the same one observation at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..._checks import check_count
from ..._config import Configurable
from ...nn import all_finite, take_items
from .._tensors import check_resolution, shared_batch
from ..holds import HeldAfter, HeldBefore, Hold, Impulse
from ..tiling import over_tiles


__all__ = ["LayerState", "SequenceLayer", "StateSpaceLayer", "Stepper"]

#: What takes a step: from a time, an input and a state to an output and the next state.
Stepper = Callable[[Tensor, Tensor, Any], tuple[Tensor, Any]]


class LayerState(NamedTuple):
    """What a layer carries from one call to the next; a stack of layers carries a tuple of them.

    Args:
        t: time of the last input, `(*batch,)`, float64.
        h: hidden state just after that time, `(*batch, state)`, real or complex.
        u: the last input, `(*batch, input)`: one that is held acts until the next.

    Example:
        >>> LayerState(torch.zeros(3), torch.zeros(3, 8), torch.zeros(3, 2)).h.shape
        torch.Size([3, 8])
    """

    t: Tensor
    h: Tensor
    u: Tensor


class SequenceLayer(nn.Module, Configurable, ABC):
    """A layer that reads series on their own clocks: all times by one `scan`, or one observation at a time by `step`.

    A loop of `step` gives what `scan` gives, and so does a scan that goes on where another ended. A repeated time with
    the same input changes nothing (an `Impulse` there counts), so that short series are padded by repeating their last
    time.

    Args:
        input_size: channels of the inputs.
        output_size: channels of the outputs.

    Raises:
        ValueError: a size is below 1.

    Example:
        >>> from ctdyn.linear.layers import S5
        >>> layer: SequenceLayer = S5(3, state_size=8)
        >>> ys, state = layer.scan(torch.tensor([0.0, 0.7, 5.0]), torch.ones(3, 3))
        >>> later, state = layer.step(torch.tensor(6.0), torch.ones(3), state)
        >>> ys.shape, later.shape
        (torch.Size([3, 3]), torch.Size([3]))
    """

    def __init__(self, input_size: int, output_size: int) -> None:
        super().__init__()
        for name, size in (("input_size", input_size), ("output_size", output_size)):
            check_count(name, size)
        self.input_size = input_size
        self.output_size = output_size

    @abstractmethod
    def scan(self, ts: Tensor, us: Tensor, state: Any = None, *, reset: Tensor | None = None) -> tuple[Tensor, Any]:
        """The outputs at all times of all series.

        Args:
            ts: times, non-decreasing, `(*batch, time)`, or `(time,)` for all series; hand in float64 if the clock is
                fine against its origin.
            us: inputs at these times, `(*batch, time, input)`.
            state: what an earlier call returned, if the series go on; None where they begin, with an empty memory and
                no input before the first.
            reset: True where a series begins anew, `(*batch, time)`; there time may go back.

        Returns:
            Outputs, `(*batch, time, output)`, and the state to go on with.

        Raises:
            ValueError: a size does not fit, times decrease, or something is not finite.
            TypeError: the inputs are not of the dtype of the layer.
        """

    @abstractmethod
    def step(self, t: Tensor, u: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """What `scan` does, for one observation per series and at constant cost.

        Args:
            t: times, `(*batch,)`, or one number for all series.
            u: inputs at these times, `(*batch, input)`.
            state: what an earlier call returned; None where the series begin.

        Returns:
            Outputs, `(*batch, output)`, and the state to go on with.

        Raises:
            ValueError: as for `scan`.
            TypeError: as for `scan`.
        """

    def stepper(self, dt: float) -> Stepper:
        """`step` for a regular clock: what depends on the gap and on the weights is made once, for all steps.

        Args:
            dt: the gap between the time of a step and that of the state that it goes on from.

        Returns:
            What is called like `step`, always with a state. It looks neither at the times nor at the inputs.
        """
        return self.step

    @abstractmethod
    def flow(self, state: Any, t: Tensor) -> Any:
        """The state at a later time, if nothing arrives until then; exact, and a step at `t` may follow it or not.

        Args:
            state: what an earlier call returned.
            t: times, not before those of the state, `(*batch,)`, or one number for all series.

        Returns:
            The state at `t`.

        Raises:
            ValueError: time runs backward, or the hold of the layer needs an input that has not arrived yet.
        """

    def forward(self, ts: Tensor, us: Tensor, state: Any = None, *, reset: Tensor | None = None) -> tuple[Tensor, Any]:
        """As `scan`."""
        return self.scan(ts, us, state, reset=reset)


class StateSpaceLayer(SequenceLayer, ABC):
    r"""A sequence layer around a hidden state that is driven by held or impulsive inputs.

    .. math:: h_k = F(h_{k-1}, \Delta_k, u), \qquad y_k = g(h_k, u_k)

    Subclass it with `rest`, `march` and `readout`; clocks, holds, resets, tiles and single steps are done here.

    Args:
        input_size: channels of the inputs.
        output_size: channels of the outputs.
        hold: what an input does between its time and the next; default `HeldBefore()`, which is causal.
        tile: times per tile, for memory that does not grow with the length of the series (see `over_tiles`); None:
            everything at once.

    Raises:
        ValueError: a size or `tile` is below 1, or the hold is one that layers do not know.

    Example:
        >>> from ctdyn.linear.layers import S5
        >>> issubclass(S5, StateSpaceLayer)
        True
    """

    def __init__(self, input_size: int, output_size: int, *, hold: Hold | None = None, tile: int | None = None) -> None:
        super().__init__(input_size, output_size)
        hold = HeldBefore() if hold is None else hold
        if not isinstance(hold, HeldBefore | HeldAfter | Impulse):
            raise ValueError(f"hold must be HeldBefore(), HeldAfter() or Impulse() for a layer; got {hold}.")
        if tile is not None and tile < 1:
            raise ValueError(f"tile must be a positive number of times, or None; got {tile}.")
        self.hold = hold
        self.tile = tile

    @abstractmethod
    def rest(self) -> Tensor:
        """The hidden state before anything was seen, `(state,)`."""

    @abstractmethod
    def march(self, dt: Tensor, us: Tensor, h0: Tensor, reset: Tensor | None) -> Tensor:
        """All hidden states.

        Args:
            dt: steps, float64, `(*batch, time)` or `(time,)`; zero where `reset`.
            us: the input that acts in each step by the hold (during it, or with `Impulse` at its end),
                `(*batch, time, input)`.
            h0: the state before the first step, `(*batch, state)`.
            reset: True where the state is cleared before the step, `(*batch, time)`.

        Returns:
            States, `(*batch, time, state)`.
        """

    @abstractmethod
    def readout(self, hs: Tensor, us: Tensor) -> Tensor:
        """Outputs `(*batch, time, output)` from states `(*batch, time, state)` and the inputs at their times."""

    def scan(
        self,
        ts: Tensor,
        us: Tensor,
        state: LayerState | None = None,
        *,
        reset: Tensor | None = None,
        arrives: Tensor | None = None,
    ) -> tuple[Tensor, LayerState]:
        """As in `SequenceLayer`, and with readings between the inputs.

        Args:
            ts: as in `SequenceLayer`.
            us: as in `SequenceLayer`.
            state: as in `SequenceLayer`.
            reset: as in `SequenceLayer`.
            arrives: False where the layer is read and no more, `(*batch, time)`: the output there is that of the state
                and of the input given for that time, which does not act; what arrived last goes on acting. Readings
                change no other output.

        Returns:
            As in `SequenceLayer`.

        Raises:
            ValueError: as in `SequenceLayer`; or `arrives` has another shape, comes with `reset`, or the hold needs
                inputs that have not arrived yet.
            TypeError: as in `SequenceLayer`.
        """
        rest = self.rest()
        self._check(ts, us, reset, rest.dtype.to_real())
        latest = None if arrives is None else self._latest(arrives, us, reset)
        dt = _steps(ts, state, reset)
        _check_steps(dt)
        given = {"ts": dt.shape[:-1], "us": us.shape[:-2], "reset": () if reset is None else reset.shape[:-1]}
        batch = shared_batch({**given, "the state": () if state is None else state.h.shape[:-1]})
        h0 = (rest if state is None else state.h).expand(*batch, -1)
        acting, u = self._acting(us, state, latest)
        ys, h = self._through(dt, acting, us, h0, reset)
        last = ts[..., -1].to(torch.float64).expand(batch)
        return ys, LayerState(last, h, u.expand(*batch, -1))

    def step(self, t: Tensor, u: Tensor, state: LayerState | None = None) -> tuple[Tensor, LayerState]:
        """As in `SequenceLayer`."""
        ys, state = self.scan(t[..., None], u[..., None, :], state)
        return ys.squeeze(-2), state

    def flow(self, state: LayerState, t: Tensor) -> LayerState:
        """As in `SequenceLayer`."""
        self._check_causal()
        dt = (t.to(torch.float64) - state.t)[..., None]
        _check_steps(dt)
        acting = torch.zeros_like(state.u) if isinstance(self.hold, Impulse) else state.u
        h = self.march(dt, acting[..., None, :], state.h, None)[..., -1, :]
        return LayerState(t.to(torch.float64).expand(h.shape[:-1]), h, state.u)

    def _through(
        self, dt: Tensor, acting: Tensor, us: Tensor, h0: Tensor, reset: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Outputs and the last state; to be overridden where there is a way without the states in between."""

        def body(h: Tensor, dt: Tensor, acting: Tensor, us: Tensor, *more: Tensor) -> tuple[Tensor, Tensor]:
            hs = self.march(dt.squeeze(-1), acting, h, more[0].squeeze(-1) if more else None)
            return self.readout(hs, us), hs[..., -1, :]

        series = (dt[..., None], acting, us) if reset is None else (dt[..., None], acting, us, reset[..., None])
        if self.tile is None or us.shape[-2] <= self.tile:
            ys, h = body(h0, *series)
            # As a view it would hold on to all the states.
            return ys, h.clone()
        return over_tiles(body, h0, series, self.tile)

    def _acting(self, us: Tensor, state: LayerState | None, latest: Tensor | None) -> tuple[Tensor, Tensor]:
        """The input that acts in each step, and the one that acts after the last."""
        if not isinstance(self.hold, HeldBefore):
            if latest is None:
                return us, us[..., -1, :]
            arrives = latest == torch.arange(us.shape[-2], device=us.device)
            us = torch.where(arrives[..., None], us, 0.0)
            return us, us[..., -1, :]
        # Before the first time there is no step for an input to act in.
        before = torch.zeros_like(us[..., 0, :]) if state is None else state.u
        batch = shared_batch({"us": us.shape[:-2], "the state": before.shape[:-1]})
        before, us = before[..., None, :].expand(*batch, -1, -1), us.expand(*batch, -1, -1)
        if latest is None:
            return torch.cat([before, us[..., :-1, :]], -2), us[..., -1, :]
        rows = torch.cat([before, us], -2)
        chosen = torch.cat([torch.zeros_like(latest[..., :1]), latest + 1], -1)
        rows = take_items(rows, chosen, -2)
        return rows[..., :-1, :], rows[..., -1, :]

    def _latest(self, arrives: Tensor, us: Tensor, reset: Tensor | None) -> Tensor:
        """The index of the latest input at each time, -1 before the first."""
        self._check_causal()
        length = us.shape[-2]
        if arrives.dtype != torch.bool or arrives.shape[-1:] != (length,):
            raise ValueError(
                f"arrives must be bool, (*batch, {length}); got {arrives.dtype} and {tuple(arrives.shape)}."
            )
        if reset is not None:
            raise ValueError("arrives and reset do not go together; scan each piece of a series by itself.")
        return torch.where(arrives, torch.arange(length, device=us.device), -1).cummax(-1).values

    def _check_causal(self) -> None:
        if not self.hold.causal:
            raise ValueError(
                f"{self.hold} acts on a step with an input that arrives at its end, so there is no state in between; "
                "use HeldBefore() or Impulse()."
            )

    def _check(self, ts: Tensor, us: Tensor, reset: Tensor | None, dtype: torch.dtype) -> None:
        if us.dim() < 2 or us.shape[-1] != self.input_size:
            raise ValueError(
                f"us must be (*batch, time, input) with input_size={self.input_size}; got {tuple(us.shape)}."
            )
        length = us.shape[-2]
        if not ts.is_floating_point() or ts.dim() < 1 or ts.shape[-1] != length or not length:
            raise ValueError(
                f"ts must be floating, (*batch, time) or (time,), at least one time and as many as us has ({length}); "
                f"got {tuple(ts.shape)} of {ts.dtype}."
            )
        if us.dtype != dtype:
            raise TypeError(f"us must have the dtype of the layer, {dtype}; got {us.dtype}. Convert one with .to().")
        _check_finite("ts", ts, "pad by repeating the last time")
        _check_finite("us", us, "fill gaps and say in further channels where")
        if reset is None:
            check_resolution(ts)
        elif reset.dtype != torch.bool or reset.shape[-1:] != ts.shape[-1:]:
            raise ValueError(f"reset must be bool, (*batch, {length}); got {tuple(reset.shape)} of {reset.dtype}.")


def _steps(ts: Tensor, state: LayerState | None, reset: Tensor | None) -> Tensor:
    """The steps that lead to the times, float64; none leads to a reset."""
    wide = ts.to(torch.float64)
    first = torch.zeros_like(wide[..., :1]) if state is None else wide[..., :1] - state.t[..., None]
    dt = torch.cat([first, wide.diff(dim=-1).expand(*first.shape[:-1], -1)], -1)
    return dt if reset is None else torch.where(reset, 0.0, dt)


def _check_steps(dt: Tensor) -> None:
    if bool((dt.detach() >= 0).all()):
        return
    place = tuple(int(i) for i in torch.nonzero(~(dt.detach() >= 0))[0])
    raise ValueError(
        f"time runs backward: a step of {float(dt[place]):.6g} leads to index {place} (*batch, time). Sort the times "
        "of each series, pad a short one by repeating its last time, and mark with reset where a series begins anew."
    )


def _check_finite(name: str, x: Tensor, advice: str) -> None:
    if not all_finite(x):
        raise ValueError(f"{name} holds NaN or infinite entries; {advice}.")
