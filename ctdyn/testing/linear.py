"""The contract of linear dynamics, as a check that raises AssertionError with the reason."""

from __future__ import annotations

import contextlib
import copy
import itertools

import numpy as np
import torch
from torch import Tensor

from ..linear import HeldAfter, HeldBefore, Hold, Impulse, LinearDynamics, Ramp
from ._judging import reached, require, same


__all__ = ["check_linear"]

_HOLDS = (HeldBefore(), HeldAfter(), Impulse(), Ramp())


def check_linear(dynamics: LinearDynamics, *, tolerance: float = 1e-11, seed: int = 0) -> None:
    """The contract of `LinearDynamics`.

    * two steps make one (semigroup), for the transition and for the noise; a step of length zero changes nothing, and
      the transition is the exponential of `A`;
    * the integrals are those of the transition, and a covariance in the long run is one that a step leaves alone;
    * for every hold, the scan is the same as one step after another, as one solve of the whole dense system, and, on a
      regular clock, as a convolution; what is read between the times is what a scan over these would give;
    * what comes apart is the whole: the transitions and covariances of the parts are its blocks;
    * series do not mix, padded times are harmless, and a causal hold does not look ahead;
    * gradients reach every parameter.

    Args:
        dynamics: what to check; a copy of it is taken to float64. Parameters must have at most the batch axes of a
            series.
        tolerance: of the differences, relative to 1 plus the size of the values.
        seed: of the random times, states and inputs.

    Raises:
        AssertionError: the contract is broken; the message says how.

    Example:
        >>> from ctdyn.linear import Dense, Matern
        >>> check_linear(Dense(torch.tensor([[-1.0, 2.0], [-2.0, -1.0]]), S=torch.eye(2)))
        >>> check_linear(Matern(2.5, lengthscale=torch.tensor([0.3, 2.0])))
    """
    dynamics = copy.deepcopy(dynamics).double()
    for parameter in dynamics.parameters():
        parameter.data = parameter.data.to(torch.complex128) if parameter.is_complex() else parameter.data
    generator = torch.Generator().manual_seed(seed)
    batch = dynamics.batch_shape or torch.Size([2])
    dt = torch.tensor([0.0, 1e-9, 0.003, 0.2, 1.0, 7.0], dtype=torch.float64).expand(*batch, -1)
    _check_steps(dynamics, dt, tolerance)
    _check_apart(dynamics, dt, tolerance)
    gaps = torch.rand(*batch, 12, generator=generator, dtype=torch.float64) ** 3
    ts = 0.5 + gaps.cumsum(-1)
    us = torch.randn(*batch, 12, dynamics.input_size, generator=generator, dtype=torch.float64)
    y0 = torch.randn(*batch, dynamics.state_size, generator=generator, dtype=torch.float64)
    for hold in _HOLDS:
        _check_scan(dynamics, ts, us, y0, hold, tolerance)
        _check_batch(dynamics, ts, us, y0, hold, tolerance)
    _check_convolution(dynamics, us, y0, tolerance)
    if any(True for _ in dynamics.parameters()):
        made = dynamics.discretize(ts.diff(dim=-1), noise=True)
        states = dynamics.scan(ts, us, y0)
        total = states.abs().square().sum()
        if made.Q is not None and made.Q.requires_grad:
            total = total + made.Q.abs().square().sum()
        # Where there is no noise, the size of the process is in its long run alone.
        with contextlib.suppress(ValueError):
            total = total + dynamics.stationary().abs().square().sum()
        reached(dynamics, total)


def _check_steps(dynamics: LinearDynamics, dt: Tensor, tolerance: float) -> None:
    transition, level, ramp = (_full(dynamics, value) for value in dynamics.flow(dt, 2))
    A = dynamics.A[..., None, :, :]
    same(transition, torch.matrix_exp(A * dt[..., None, None]), tolerance, "the transition is not the exponential of A")
    still = _full(dynamics, dynamics.flow(0 * dt)[0])
    same(still, torch.eye(dynamics.state_size).to(still).expand_as(still), 1e-14, "a step of length zero moves")
    nodes, shares = (torch.from_numpy(x) for x in np.polynomial.legendre.leggauss(64))
    nodes, shares = (nodes + 1) / 2, shares / 2
    Q = dynamics.noise(dt)
    for i, j in itertools.product(range(dt.shape[-1]), repeat=2):
        both = dt[..., i : i + 1] + dt[..., j : j + 1]
        whole = _full(dynamics, dynamics.flow(both)[0]).squeeze(-3)
        first, second = transition[..., i, :, :], transition[..., j, :, :]
        same(whole, second @ first, tolerance, "two steps do not make one")
        noise = dynamics.noise(both).squeeze(-3)
        same(
            noise, second @ Q[..., i, :, :] @ second.mH + Q[..., j, :, :], tolerance, "noise of two steps is not of one"
        )
    one = _full(dynamics, dynamics._one(dynamics.flow(dt)[0]))
    short = dt.clamp(max=1.0)
    inner = _full(dynamics, dynamics.flow((short[..., None] * (1 - nodes)).flatten(-2))[0])
    inner = inner.unflatten(-3, (dt.shape[-1], -1)) @ one[..., None, :, :]
    weights = (short[..., None] * shares)[..., None, None]
    places = torch.ones_like(nodes), nodes
    if float(dynamics.elapsed(torch.ones(()), 3 * torch.ones(()))) == 2.0:
        found = [_full(dynamics, value) for value in dynamics.flow(short, 2)[1:]]
        for name, place, value in zip(("level", "ramp"), places, found, strict=True):
            expected = (weights * place[:, None, None] * inner).sum(-3)
            same(value, expected, tolerance, f"the {name} is not the integral of the transition")
    same(level[..., :1, :, :], 0 * level[..., :1, :, :], 1e-14, "an input acts during a step of length zero")
    same(ramp[..., :1, :, :], 0 * ramp[..., :1, :, :], 1e-14, "an input acts during a step of length zero")
    try:
        P = dynamics.stationary()[..., None, :, :]
    except ValueError:
        return
    same(transition @ P @ transition.mH + Q, P.expand_as(Q), tolerance, "a step changes the stationary covariance")


def _check_apart(dynamics: LinearDynamics, dt: Tensor, tolerance: float) -> None:
    parts = dynamics.apart()
    if parts is dynamics:
        return
    whole, made = dynamics.discretize(dt, noise=True), parts.discretize(dt[..., None, :], noise=True)
    assert whole.Q is not None
    assert made.Q is not None
    wanted = (_full(dynamics, whole.A_bar), whole.Q)
    found = (_full(parts, made.A_bar), made.Q)
    for name, one, blocks in zip(("transition", "noise"), wanted, found, strict=True):
        side_by_side = torch.zeros_like(one)
        n = parts.state_size
        for i, block in enumerate(blocks.unbind(-4)):
            side_by_side[..., i * n : (i + 1) * n, i * n : (i + 1) * n] = block
        same(side_by_side, one, tolerance, f"the {name} of the parts is not that of the whole")


def _check_scan(dynamics: LinearDynamics, ts: Tensor, us: Tensor, y0: Tensor, hold: Hold, tolerance: float) -> None:
    t0 = ts[..., 0] - 0.25
    states = dynamics.scan(ts, us, y0, t0=t0, hold=hold)
    steps, y = [], y0
    first = 0 * us[..., 0, :] if hold.causal else us[..., 0, :]
    before = [first, *us[..., :-1, :].unbind(-2)]
    starts = [t0, *ts[..., :-1].unbind(-1)]
    for start, end, u0, u1 in zip(starts, ts.unbind(-1), before, us.unbind(-2), strict=True):
        y = dynamics.step(y, start, end, u0, u1, hold=hold)
        steps.append(y)
    stepped = torch.stack(steps, -2)
    same(torch.view_as_real(states) if states.is_complex() else states,
         torch.view_as_real(stepped) if stepped.is_complex() else stepped,
         tolerance, f"the scan is not one step after another ({hold})")  # fmt: skip
    same(states, _dense_solve(dynamics, torch.stack(starts, -1), ts, torch.stack(before, -2), us, y0, hold), tolerance,
         f"the scan does not solve the dense system ({hold})")  # fmt: skip
    middle = (ts[..., :-1] + 0.3 * ts.diff(dim=-1))[..., 3:6]
    read = dynamics.read(ts, states, middle, us=us, hold=hold)
    for i in range(3):
        u0, u1 = us[..., 3 + i, :], us[..., 4 + i, :]
        u0, u1 = hold.inside(u0, u1, torch.full_like(u0[..., :1], 0.3))
        expected = dynamics.step(states[..., 3 + i, :], ts[..., 3 + i], middle[..., i], u0, u1, hold=hold)
        same(read[..., i, :], expected, 1e-8, f"what is read between the times is not what a step gives ({hold})")


def _dense_solve(
    dynamics: LinearDynamics, starts: Tensor, ts: Tensor, before: Tensor, us: Tensor, y0: Tensor, hold: Hold
) -> Tensor:
    """All states at once, from one linear system that is written out."""
    made = dynamics.discretize(dynamics.elapsed(starts, ts), hold=hold)
    transition, B0, B1 = made.matrices()
    length, n = ts.shape[-1], dynamics.state_size
    dtype = transition.dtype
    right = torch.zeros(*transition.shape[:-1], dtype=dtype)
    for weight, u in ((B0, before), (B1, us)):
        if weight is not None:
            right = right + (weight @ u.to(weight.dtype)[..., None]).squeeze(-1)
    right[..., 0, :] += (transition[..., 0, :, :] @ y0.to(dtype)[..., None]).squeeze(-1)
    system = torch.eye(length * n, dtype=dtype).repeat(*transition.shape[:-3], 1, 1)
    for k in range(1, length):
        system[..., k * n : (k + 1) * n, (k - 1) * n : k * n] = -transition[..., k, :, :]
    return torch.linalg.solve(system, right.flatten(-2)).unflatten(-1, (length, n))


def _check_batch(dynamics: LinearDynamics, ts: Tensor, us: Tensor, y0: Tensor, hold: Hold, tolerance: float) -> None:
    states = dynamics.scan(ts, us, y0, hold=hold)
    more = torch.cat([ts, ts[..., -1:].expand(*ts.shape[:-1], 3)], -1)
    padding = us[..., -1:, :].expand(*ts.shape[:-1], 3, -1)
    padding = 0 * padding if isinstance(hold, Impulse) else padding
    padded = dynamics.scan(more, torch.cat([us, padding], -2), y0, hold=hold)
    same(padded[..., :-3, :], states, 1e-13, f"padded times change the states before ({hold})")
    same(
        padded[..., -3:, :], states[..., -1:, :].expand_as(padded[..., -3:, :]), 1e-13, f"a padded time moves ({hold})"
    )
    samples = torch.stack([y0, 2 * y0])
    leading = dynamics.scan(ts, us, samples, hold=hold)
    same(leading[0], states, tolerance, f"a leading axis of samples changes the states ({hold})")
    changed = ts.clone()
    changed[0] = changed[0, ..., :1] + 2 * (changed[0] - changed[0, ..., :1])
    mixed = dynamics.scan(changed, us, y0, hold=hold)
    same(mixed[1:], states[1:], tolerance, f"series depend on the clocks of the other series ({hold})")
    later = us.clone()
    later[..., 6:, :] += 1
    moved = dynamics.scan(ts, later, y0, hold=hold)
    same(moved[..., :6, :], states[..., :6, :], 1e-13, f"a state depends on later inputs ({hold})")
    require(bool((moved[..., 7:, :] != states[..., 7:, :]).any()), f"the inputs do nothing ({hold})")


def _check_convolution(dynamics: LinearDynamics, us: Tensor, y0: Tensor, tolerance: float) -> None:
    if float(dynamics.elapsed(torch.ones(()), 3 * torch.ones(()))) != 2.0:
        return
    length = us.shape[-2]
    ts = 0.125 * torch.arange(length, dtype=torch.float64).expand(us.shape[:-1])
    states = dynamics.scan(ts, us, 0 * y0)
    made = dynamics.discretize(torch.full((*us.shape[:-2], 1), 0.125, dtype=torch.float64))
    transition, B0, _ = (None if m is None else m.squeeze(-3) for m in made.matrices())
    require(transition is not None and B0 is not None, "discretize gives no weight for an input that is held before")
    assert transition is not None
    assert B0 is not None
    kernel, column = [], B0.to(transition.dtype)
    for _ in range(length - 1):
        kernel.append(column)
        column = transition @ column
    expected = torch.zeros_like(states)
    for k in range(1, length):
        parts = [(kernel[k - 1 - j] @ us[..., j, :, None].to(column.dtype)).squeeze(-1) for j in range(k)]
        expected[..., k, :] = torch.stack(parts).sum(0)
    same(states, expected, tolerance, "on a regular clock the scan is not a convolution")


def _full(dynamics: LinearDynamics, value: Tensor) -> Tensor:
    return torch.diag_embed(value) if dynamics.diagonal else value
