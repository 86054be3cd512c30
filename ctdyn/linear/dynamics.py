"""What linear dynamics are: exact between any two times, with or without inputs and noise."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .._checks import check_count
from ..nn import all_finite, take_items
from ._explained import ExactlySolved
from ._matrix_scan import matrix_recurrence
from ._tensors import check_resolution, check_steps, concretely, shared_batch
from .holds import HeldBefore, Hold
from .recurrence import linear_recurrence


__all__ = ["Discretization", "LinearDynamics"]


@dataclass(frozen=True)
class Discretization:
    r"""Linear dynamics over given steps, exactly.

    .. math:: y_1 = \bar A y_0 + G_0 B u_0 + G_1 B u_1 + \epsilon, \qquad \epsilon \sim N(0, Q)

    Args:
        A_bar: transition matrices, `(*batch, time, state, state)`; their diagonals, `(*batch, time, state)`, if
            `diagonal`.
        before: weights of the driven input at the start of each step, of the form of `A_bar`; None where the hold does
            not use it.
        after: weights of that at the end.
        B: input matrix, `(*batch, 1, state, input)`; None where the input drives the state directly.
        Q: covariances of the noise, `(*batch, time, state, state)`; None if they were not asked for.
        diagonal: whether `A_bar` and the weights hold diagonals.

    Example:
        >>> from ctdyn.linear import Dense
        >>> step = Dense(torch.tensor([[0.0, 1.0], [0.0, 0.0]])).discretize(torch.tensor(2.0))
        >>> step.advance(torch.tensor([1.0, 3.0]))
        tensor([7., 3.], grad_fn=<SqueezeBackward1>)
    """

    A_bar: Tensor
    before: Tensor | None = None
    after: Tensor | None = None
    B: Tensor | None = None
    Q: Tensor | None = None
    diagonal: bool = False

    def advance(self, y0: Tensor, u0: Tensor | None = None, u1: Tensor | None = None) -> Tensor:
        """The states at the ends of the steps.

        Args:
            y0: states at their starts, `(*batch, time, state)`.
            u0: inputs at their starts, `(*batch, time, input)`.
            u1: inputs at their ends.

        Returns:
            States, `(*batch, time, state)`.
        """
        y1 = _apply(self.A_bar, y0, self.diagonal)
        for weight, u in ((self.before, u0), (self.after, u1)):
            if weight is not None and u is not None:
                y1 = y1 + _apply(weight, _drive(self.B, u), self.diagonal)
        return y1

    def matrices(self) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """`(A_bar, B0_bar, B1_bar)` as full matrices: what multiplies the state and the inputs at both ends."""

        def full(weight: Tensor) -> Tensor:
            return torch.diag_embed(weight) if self.diagonal else weight

        B, inputs = self.B, []
        for weight in (self.before, self.after):
            if weight is not None and B is not None:
                dtype = torch.promote_types(weight.dtype, B.dtype)
                weight = full(weight).to(dtype) @ B.to(dtype)
            inputs.append(None if weight is None else weight if B is not None else full(weight))
        return full(self.A_bar), inputs[0], inputs[1]


class LinearDynamics(nn.Module, ExactlySolved, ABC):
    r"""Linear dynamics, which need no solver: between any two times the answer is exact.

    .. math:: dy = (A y + B u(t))\,dt + dW, \qquad \mathrm{Cov}(dW) = S\,dt

    Parameters may have batch axes of their own, which broadcast with those of the series: `lengthscale` of shape
    `(channel,)` on times `(series, 1, time)` gives states `(series, channel, time, state)`. They are ordinary
    parameters of a module; to compute them from something else, hand in tensors that require a gradient, or use
    `torch.nn.utils.parametrize`.

    A new kind of dynamics defines `A` and `flow`, and `noise` if it has any.

    Args:
        state_size: size of the state.

    Example:
        >>> from ctdyn.linear import OU
        >>> OU(rate=1.0, sigma=0.5).discretize(torch.tensor([0.0, 1e-9, 1e9]), noise=True).Q.flatten()
        tensor([0.0000e+00, 2.5000e-10, 1.2500e-01], grad_fn=<ViewBackward0>)
    """

    #: Whether `flow` gives diagonals, `(*batch, time, state)`, instead of matrices.
    diagonal: ClassVar[bool] = False

    B: Tensor | None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in cls.__dict__:
            cls.__init__ = concretely(cls.__init__)

    def __init__(self, state_size: int) -> None:
        super().__init__()
        check_count("state_size", state_size)
        self.state_size = state_size

    @property
    @abstractmethod
    def A(self) -> Tensor:  # noqa: N802
        """The matrix of the dynamics, `(*parameter_batch, state, state)`."""

    @abstractmethod
    def flow(self, dt: Tensor, order: int = 0) -> tuple[Tensor, ...]:
        """The transition over each step, and as far as asked the level and the ramp (see `Hold`).

        Args:
            dt: steps, `(*batch, time)`.
            order: 0 to 2; how many integrals to give beside the transition.

        Returns:
            `order + 1` tensors `(*batch, time, state, state)`, or `(*batch, time, state)` if `diagonal`.
        """

    def noise(self, dt: Tensor) -> Tensor:
        """The covariance that the noise gathers over each step; zero for deterministic dynamics.

        Args:
            dt: steps, `(*batch, time)`.

        Returns:
            Covariances, `(*batch, time, state, state)`.
        """
        shape = torch.broadcast_shapes((*self.batch_shape, 1), dt.shape)
        dtype = torch.promote_types(self.dtype, dt.dtype)
        return dt.new_zeros(*shape, self.state_size, self.state_size, dtype=dtype)

    def density(self) -> Tensor:
        """The spectral density of the noise, `(*parameter_batch, state, state)`: what `noise` gathers per unit of time.

        Zero for deterministic dynamics; dynamics with `noise` define it as well.
        """
        return torch.zeros_like(self.A)

    def stationary(self) -> Tensor:
        """The covariance of the state in the long run, `(*parameter_batch, state, state)`.

        Raises:
            ValueError: there is none, because the dynamics are deterministic or not stable.
        """
        raise ValueError(
            f"{type(self).__name__} has no stationary distribution; give the distribution of the initial state instead."
        )

    @property
    def readout(self) -> Tensor | None:
        """The row that reads one process from the state, `(state,)`; None where there is no natural one."""
        return None

    @property
    def batch_shape(self) -> torch.Size:
        """The batch axes of the parameters."""
        return self.A.shape[:-2]

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the parameters."""
        return self.A.dtype

    @property
    def input_size(self) -> int:
        """The size of the inputs."""
        return self.state_size if self.B is None else self.B.shape[-1]

    def apart(self) -> LinearDynamics:
        """The same dynamics as smaller ones side by side, where parts of the state never meet; itself where they do.

        Returns:
            Dynamics with the parameters of these, and a last batch axis for the parts: their states follow each other
            in the state of these.

        Example:
            >>> from ctdyn.linear import OU
            >>> apart = OU(rate=[1.0, 2.0, 3.0], sigma=1.0).apart()
            >>> apart.batch_shape, apart.state_size
            (torch.Size([3]), 1)
        """
        return self

    def kernel(self, lag: Tensor) -> Tensor:
        r"""The covariance of the process that `readout` reads, at two times this far apart.

        .. math:: k(\tau) = H\,e^{A |\tau|} P_\infty H^\top

        Args:
            lag: differences of times, `(*batch, time)`.

        Returns:
            Covariances, of the shape of `lag` behind the batch axes of the parameters.

        Raises:
            ValueError: the dynamics have no stationary distribution or no readout.
        """
        H = self.readout
        if H is None:
            raise ValueError(f"{type(self).__name__} has no readout; a kernel needs one process to speak of.")
        spread = (self.stationary() @ H)[..., None, :]
        values = _apply(self.flow(lag.abs())[0], spread, self.diagonal)
        return values @ H.to(values.dtype)

    def elapsed(self, t0: Tensor, t1: Tensor) -> Tensor:
        """The steps between times, in the dynamics' own clock; differences are taken in float64.

        Args:
            t0: starts, of any shape.
            t1: ends.
        """
        return t1.to(torch.float64) - t0.to(torch.float64)

    def discretize(self, dt: Tensor | float, *, hold: Hold | None = None, noise: bool = False) -> Discretization:
        r"""The dynamics over given steps, exactly and for every length of step.

        Args:
            dt: steps, not negative, `(*batch, time)` or one number; take differences of times in float64. The result
                has the wider dtype of `dt` and the parameters.
            hold: what the input does between its times; default `HeldBefore()`.
            noise: also the covariances of the noise.

        Returns:
            The discretization; with `dt` one number it has no time axis.

        Raises:
            ValueError: a step is negative or not finite.

        Example:
            >>> from ctdyn.linear import Diagonal
            >>> Diagonal(torch.tensor([-1.0])).discretize(torch.tensor([0.0, 1e-8, 1e6])).before.flatten()
            tensor([0.0000e+00, 1.0000e-08, 1.0000e+00], grad_fn=<ViewBackward0>)
        """
        hold = HeldBefore() if hold is None else hold
        if not isinstance(dt, Tensor):
            dt = torch.as_tensor(dt, dtype=self.dtype.to_real(), device=self.A.device)
        check_steps(dt)
        dt = dt.to(torch.promote_types(dt.dtype, self.dtype.to_real()))
        steps = dt if dt.dim() else dt[None]
        found: list[Tensor | None] = list(self.flow(steps, hold.order))
        found += [None] * (3 - len(found))
        transition, level, ramp = found
        assert transition is not None
        before, after = hold.weights(self._one(transition), level, ramp)
        Q = self.noise(steps) if noise else None
        fields = [transition, before, after]
        if not dt.dim():
            fields = [None if field is None else field.squeeze(-2 if self.diagonal else -3) for field in fields]
            Q = None if Q is None else Q.squeeze(-3)
        assert fields[0] is not None
        B = self.B if self.B is None or not dt.dim() else self.B[..., None, :, :]
        return Discretization(fields[0], fields[1], fields[2], B, Q, self.diagonal)

    def step(
        self,
        y: Tensor,
        t0: Tensor,
        t1: Tensor,
        u0: Tensor | None = None,
        u1: Tensor | None = None,
        *,
        hold: Hold | None = None,
    ) -> Tensor:
        """One step of every series, at constant cost: what `scan` does, one observation at a time.

        Args:
            y: states at `t0`, `(*batch, state)`.
            t0: times, `(*batch,)`.
            t1: times, not before `t0`, `(*batch,)`.
            u0: inputs at `t0`, `(*batch, input)`.
            u1: inputs at `t1`.
            hold: what the input does between its times; default `HeldBefore()`.

        Returns:
            States at `t1`, `(*batch, state)`.

        Raises:
            ValueError: a size does not fit, or time runs backward.
        """
        self._check_state("y", y)
        for name, u in (("u0", u0), ("u1", u1)):
            self._check_inputs(name, u, y.shape[:-1])
        wide = [None if x is None else x[..., None, :] for x in (y, u0, u1)]
        assert wide[0] is not None
        dt = self.elapsed(t0, t1)[..., None].to(self._wide(wide).to_real())
        return self.discretize(dt, hold=hold).advance(wide[0], wide[1], wide[2]).squeeze(-2)

    def scan(
        self,
        ts: Tensor,
        us: Tensor | None = None,
        y0: Tensor | None = None,
        *,
        t0: Tensor | float | None = None,
        hold: Hold | None = None,
    ) -> Tensor:
        r"""The states at all times of all series, by one scan.

        .. math:: y_k = \bar A_k y_{k-1} + G_{0,k} B u_{k-1} + G_{1,k} B u_k

        A repeated time changes nothing (but an `Impulse` there counts), so that short series are padded by repeating
        their last time. Before the first time there is no input: a causal hold takes 0, the others the first value.

        Args:
            ts: times, non-decreasing, `(*batch, time)`; hand in float64 if the clock is fine against its origin.
            us: inputs at these times, `(*batch, time, input)`.
            y0: states at `t0`, `(*batch, state)`; zero if not given.
            t0: time of `y0`, `(*batch,)`; the first time if not given.
            hold: what the input does between its times; default `HeldBefore()`.

        Returns:
            States at `ts`, `(*batch, time, state)`.

        Raises:
            ValueError: times decrease, are not finite, or collapse in float32; a size does not fit.

        Example:
            >>> from ctdyn.linear import Diagonal
            >>> ts = torch.tensor([[0.0, 0.5, 20.0]])
            >>> Diagonal(torch.tensor([-1.0])).scan(ts, y0=torch.ones(1, 1)).flatten()
            tensor([1.0000e+00, 6.0653e-01, 2.0612e-09], grad_fn=<ViewBackward0>)
        """
        hold = HeldBefore() if hold is None else hold
        dt = self._steps(ts, t0)
        self._check_inputs("us", us, ts.shape)
        if y0 is not None:
            self._check_state("y0", y0)
        shapes = {"ts": dt.shape[:-1], "the parameters": self.batch_shape}
        shapes |= {"us": () if us is None else us.shape[:-2], "y0": () if y0 is None else y0.shape[:-1]}
        shared_batch(shapes)
        dtype = self._wide([us, y0])
        dt = dt.to(dtype.to_real())
        check_steps(dt)
        return self._march(dt, us, y0, hold)

    def read(self, ts: Tensor, ys: Tensor, at: Tensor, *, us: Tensor | None = None, hold: Hold | None = None) -> Tensor:
        """The states at any times, carried exactly from the last known one: what a scan gives between its times.

        Args:
            ts: times of the scan, `(*batch, time)`.
            ys: its states, `(*batch, time, state)`.
            at: query times, none before the first of `ts`, `(*batch, query)`.
            us: the inputs of the scan, `(*batch, time, input)`.
            hold: the hold of the scan.

        Returns:
            States, `(*batch, query, state)`.

        Raises:
            ValueError: a query lies before the first time, or a size does not fit.

        Example:
            >>> from ctdyn.linear import Diagonal
            >>> dynamics, ts = Diagonal(torch.tensor([-1.0])), torch.tensor([0.0, 1.0])
            >>> ys = dynamics.scan(ts, y0=torch.ones(1))
            >>> dynamics.read(ts, ys, torch.tensor([0.5])).flatten()
            tensor([0.6065], grad_fn=<ViewBackward0>)
        """
        hold = HeldBefore() if hold is None else hold
        self._check_state("ys", ys)
        self._check_inputs("us", us, ts.shape)
        if ys.dim() < 2 or ys.shape[-2] != ts.shape[-1]:
            raise ValueError(
                f"ys must be (*batch, time, state) with a state for each of the {ts.shape[-1]} times; "
                f"got {tuple(ys.shape)}."
            )
        given = {"ts": ts.shape[:-1], "at": at.shape[:-1], "ys": ys.shape[:-2]}
        shared_batch({**given, "the parameters": self.batch_shape})
        _require(bool((at >= ts[..., :1]).all()), "read cannot look before the first time; every query must follow it.")
        ts, at = ts.to(torch.float64), at.to(torch.float64)
        batch = shared_batch(given)
        rows = ts.expand(*batch, ts.shape[-1]).contiguous()
        at = at.expand(*batch, at.shape[-1]).contiguous()
        place = torch.searchsorted(rows, at, right=True).clamp(min=1) - 1
        later = (place + 1).clamp(max=ts.shape[-1] - 1)
        start, end = rows.gather(-1, place), rows.gather(-1, later)
        dt = self.elapsed(start, at).to(self._wide([us, ys]).to_real())
        known = take_items(ys.expand(*batch, *ys.shape[-2:]), place, -2)
        if us is None:
            return self.discretize(dt, hold=hold).advance(known)
        us = us.expand(*batch, *us.shape[-2:])
        share = ((at - start) / (end - start).clamp(min=1e-300)).clamp(max=1.0)[..., None].to(us.dtype.to_real())
        u0, u1 = hold.inside(take_items(us, place, -2), take_items(us, later, -2), share)
        return self.discretize(dt, hold=hold).advance(known, u0, u1)

    def _march(self, dt: Tensor, us: Tensor | None, y0: Tensor | None, hold: Hold) -> Tensor:
        """The scan over checked steps."""
        made = self.discretize(dt, hold=hold)
        forcing = self._forcing(made, us, hold)
        forcing = forcing.expand(*forcing.shape[:-1], self.state_size)
        dtype = torch.promote_types(made.A_bar.dtype, self._wide([forcing, y0]))
        y0 = None if y0 is None else y0.to(dtype)
        run = linear_recurrence if self.diagonal else matrix_recurrence
        return run(made.A_bar.to(dtype), forcing.to(dtype), y0)

    def _forcing(self, made: Discretization, us: Tensor | None, hold: Hold, first: Tensor | None = None) -> Tensor:
        """What the inputs add in each step; `first` is the input before the first time, `(*batch, 1, input)`."""
        if us is None:
            return made.A_bar.new_zeros(*made.A_bar.shape[: -1 if self.diagonal else -2], 1)
        if first is None:
            first = torch.zeros_like(us[..., :1, :]) if hold.causal else us[..., :1, :]
        earlier = torch.cat([first, us[..., :-1, :]], -2)
        parts = [
            _apply(weight, _drive(made.B, u), self.diagonal)
            for weight, u in ((made.before, earlier), (made.after, us))
            if weight is not None
        ]
        return parts[0] if len(parts) == 1 else parts[0] + parts[1]

    def _one(self, transition: Tensor) -> Tensor:
        """The weight of an input that is added to the state as it is."""
        if self.diagonal:
            return torch.ones_like(transition)
        return torch.eye(self.state_size, dtype=transition.dtype, device=transition.device).expand_as(transition)

    def _steps(self, ts: Tensor, t0: Tensor | float | None) -> Tensor:
        """The steps that lead to the times, `(*batch, time)`, float64."""
        if ts.dim() < 1 or ts.shape[-1] < 1 or not ts.is_floating_point():
            raise ValueError(f"ts must be floating, (*batch, time), with at least one time; got {tuple(ts.shape)}.")
        _require(all_finite(ts), "ts holds NaN or infinite times; pad by repeating the last time.")
        check_resolution(ts)
        first = ts[..., :1] if t0 is None else torch.as_tensor(t0, dtype=ts.dtype, device=ts.device)[..., None]
        first = first.expand(*torch.broadcast_shapes(first.shape[:-1], ts.shape[:-1]), 1)
        path = torch.cat([first, ts.expand(*first.shape[:-1], -1)], -1)
        return self.elapsed(path[..., :-1], path[..., 1:])

    def _wide(self, given: list[Tensor | None]) -> torch.dtype:
        dtype = self.dtype
        for x in given:
            dtype = dtype if x is None else torch.promote_types(dtype, x.dtype)
        return dtype

    def _check_state(self, name: str, y: Tensor) -> None:
        if y.dim() < 1 or y.shape[-1] != self.state_size:
            raise ValueError(
                f"{name} must end in an axis of state_size={self.state_size} numbers; got shape {tuple(y.shape)}."
            )
        _require(all_finite(y), f"{name} holds NaN or infinite entries; a state must be finite.")

    def _check_inputs(self, name: str, u: Tensor | None, batch: torch.Size) -> None:
        if u is None:
            return
        if u.dim() < 1 or u.shape[-1] != self.input_size:
            raise ValueError(
                f"{name} must end in an axis of input_size={self.input_size} numbers; got shape {tuple(u.shape)}."
            )
        if u.dim() > 1 and batch and u.shape[-2] != batch[-1]:
            raise ValueError(f"{name} must be (*batch, time, input) on {tuple(batch)}; got {tuple(u.shape)}.")
        _require(all_finite(u), f"{name} holds NaN or infinite entries; put 0 where nothing is known.")


def _apply(weight: Tensor, x: Tensor, diagonal: bool) -> Tensor:
    dtype = torch.promote_types(weight.dtype, x.dtype)
    if diagonal:
        return weight * x
    return (weight.to(dtype) @ x.to(dtype)[..., None]).squeeze(-1)


def _drive(B: Tensor | None, u: Tensor) -> Tensor:
    """`B u`, by one product of matrices where one `B` serves all times."""
    if B is None:
        return u
    dtype = torch.promote_types(B.dtype, u.dtype)
    B, u = B.to(dtype), u.to(dtype)
    if B.dim() > 2 and B.shape[-3] == 1:
        return u @ B.squeeze(-3).mT
    return (B @ u[..., None]).squeeze(-1)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)
