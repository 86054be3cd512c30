"""The contract of sequence layers, as a check that raises AssertionError with the reason."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from ..linear.layers import SequenceLayer
from ._judging import reached, require, same


__all__ = ["check_layer"]

_LENGTH = 12


def check_layer(layer: SequenceLayer, *, tolerance: float = 1e-11, seed: int = 0, impulse: bool = False) -> None:
    """The contract of `SequenceLayer`.

    * the scan is the same as one step after another, by `step` and, on a regular clock, by `stepper`, and as two scans
      of which one goes on where the other ended;
    * a flow does not change what comes after it, and two flows are one;
    * padded times change nothing, and a reset is a new beginning;
    * series do not mix, there may be none of them, extra leading axes may be there, and times may be shared; no output
      depends on a later input, and a shift of the clock changes nothing;
    * gradients reach every parameter and are finite, and float32 is close to float64;
    * bad input is refused.

    Args:
        layer: what to check; a copy of it is taken to float64.
        tolerance: of the differences, relative to 1 plus the size of the values.
        seed: of the random times and inputs.
        impulse: an input at a repeated time counts again, so that padding is done with inputs of zero.

    Raises:
        AssertionError: the contract is broken; the message says how.

    Example:
        >>> from ctdyn.linear.layers import S5
        >>> check_layer(S5(3, state_size=8, output_size=2))
    """
    layer = copy.deepcopy(layer).double()
    generator = torch.Generator().manual_seed(seed)
    gaps = 3.0 * torch.rand(3, _LENGTH, generator=generator, dtype=torch.float64) ** 3
    ts = 0.5 + gaps.cumsum(-1)
    us = torch.randn(3, _LENGTH, layer.input_size, generator=generator, dtype=torch.float64)
    ys, _ = layer.scan(ts, us)
    require(
        ys.shape == (3, _LENGTH, layer.output_size),
        f"the outputs have shape {tuple(ys.shape)} instead of (3, {_LENGTH}, {layer.output_size})",
    )
    _check_steps(layer, ts, us, ys, tolerance)
    _check_flow(layer, ts, us, tolerance)
    _check_padding(layer, ts, us, impulse, tolerance)
    _check_reset(layer, ts, us, tolerance)
    _check_batch(layer, ts, us, ys, tolerance)
    _check_stepper(layer, ts, us, tolerance)
    if any(True for _ in layer.parameters()):
        reached(layer, ys.square().sum())
    _check_single(layer, ts, us, ys)
    _check_refusals(layer, ts, us)


def _check_steps(layer: SequenceLayer, ts: Tensor, us: Tensor, ys: Tensor, tolerance: float) -> None:
    state, found = None, []
    for k in range(_LENGTH):
        y, state = layer.step(ts[:, k], us[:, k], state)
        found.append(y)
    same(torch.stack(found, 1), ys, tolerance, "the scan is not one step after another")
    first, state = layer.scan(ts[:, :5], us[:, :5])
    second, _ = layer.scan(ts[:, 5:], us[:, 5:], state)
    same(torch.cat([first, second], 1), ys, tolerance, "a scan that goes on where another ended is not the whole scan")
    later, _ = layer.step(ts[:, 5], us[:, 5], state)
    same(later, ys[:, 5], tolerance, "a step after a scan is not the whole scan")


def _check_stepper(layer: SequenceLayer, ts: Tensor, us: Tensor, tolerance: float) -> None:
    _, state = layer.scan(ts[:, :5], us[:, :5])
    regular = ts[:, 4:5] + 0.3 * torch.arange(1, _LENGTH - 4, dtype=ts.dtype)
    whole, _ = layer.scan(regular, us[:, 5:], state)
    step, found, kept = layer.stepper(0.3), [], state
    for k in range(_LENGTH - 5):
        y, kept = step(regular[:, k], us[:, 5 + k], kept)
        found.append(y)
    same(torch.stack(found, 1), whole, tolerance, "on a regular clock the stepper is not the scan")
    for k in range(_LENGTH - 5):
        _, state = layer.step(regular[:, k], us[:, 5 + k], state)
    for one, other in zip(_leaves(kept), _leaves(state), strict=True):
        require(one.dtype == other.dtype, "the stepper leaves a state of another dtype than steps do")
        same(one, other, tolerance, "the stepper leaves another state than steps do")
    _, state = layer.scan(ts[0, :5], us[0, :5])
    alone, _ = step(regular[0, 0], us[0, 5], state)
    same(alone, whole[0, 0], tolerance, "a stepper of one series, without batch axes, is not that of a batch")


def _check_flow(layer: SequenceLayer, ts: Tensor, us: Tensor, tolerance: float) -> None:
    _, state = layer.scan(ts[:, :5], us[:, :5])
    try:
        middle = layer.flow(state, ts[:, 4] + 0.25)
    except ValueError:
        # A hold that is not causal has no state in between, and says so.
        return
    end = ts[:, 4] + 1.0
    direct, _ = layer.step(end, us[:, 5], state)
    after, _ = layer.step(end, us[:, 5], layer.flow(state, end))
    same(after, direct, tolerance, "a flow to the time of a step changes the step")
    after, _ = layer.step(end, us[:, 5], middle)
    same(after, direct, tolerance, "a flow to a time before a step changes the step")
    for once, twice in zip(_leaves(layer.flow(state, end)), _leaves(layer.flow(middle, end)), strict=True):
        same(twice, once, tolerance, "two flows are not one")
    _refused("a flow into the past", lambda: layer.flow(state, ts[:, 4] - 0.1))


def _check_padding(layer: SequenceLayer, ts: Tensor, us: Tensor, impulse: bool, tolerance: float) -> None:
    last = 0 * us[:, -1:] if impulse else us[:, -1:]
    ys, state = layer.scan(ts, us)
    more, after = layer.scan(torch.cat([ts, ts[:, -1:].expand(-1, 3)], 1), torch.cat([us, last.expand(-1, 3, -1)], 1))
    same(more[:, :_LENGTH], ys, 1e-13, "padded times change the outputs before")
    if not impulse:
        same(more[:, _LENGTH:], ys[:, -1:].expand(-1, 3, -1), 1e-13, "a repeated time changes the output")
    t = ts[:, -1] + 0.7
    want, _ = layer.step(t, us[:, 0], state)
    got, _ = layer.step(t, us[:, 0], after)
    if not impulse:
        same(got, want, tolerance, "padded times change what comes after")


def _check_reset(layer: SequenceLayer, ts: Tensor, us: Tensor, tolerance: float) -> None:
    begins = torch.zeros(3, _LENGTH, dtype=torch.bool)
    begins[0, 4], begins[1, 7] = True, True
    found, after = layer.scan(ts, us, reset=begins)
    for row, start in ((0, 4), (1, 7), (2, 0)):
        own = slice(row, row + 1)
        want, state = layer.scan(ts[own, start:], us[own, start:])
        same(found[own, start:], want, tolerance, "after a reset a series is not like a new one")
        for whole, part in zip(_leaves(after), _leaves(state), strict=True):
            same(whole[own], part, tolerance, "after a reset the state is not that of a new series")
    clock = torch.where(torch.arange(_LENGTH) < 4, ts[:1], ts[:1] - ts[:1, 4:5])
    again, _ = layer.scan(clock, us[:1], reset=begins[:1])
    same(again, found[:1], tolerance, "a clock that begins anew at a reset changes the outputs")


def _check_batch(layer: SequenceLayer, ts: Tensor, us: Tensor, ys: Tensor, tolerance: float) -> None:
    for row in range(3):
        alone, _ = layer.scan(ts[row], us[row])
        same(alone, ys[row], tolerance, "a series alone, without batch axes, is not the series in a batch")
    both, state = layer.scan(ts, torch.stack([us, 2 * us]))
    same(both[0], ys, tolerance, "a leading axis changes the outputs")
    y, _ = layer.step(ts[:, -1] + 1.0, torch.stack([us[:, 0], us[:, 1]]), state)
    require(y.shape == (2, 3, layer.output_size), "a step does not keep leading axes")
    none, _ = layer.scan(ts[:0], us[:0])
    require(none.shape == (0, *ys.shape[1:]), f"an empty batch has outputs of shape {tuple(none.shape)}")
    shared, _ = layer.scan(ts[0], us)
    same(shared, layer.scan(ts[:1].expand(3, -1), us)[0], tolerance, "times that are shared are not the same times")
    later = us.clone()
    later[:, 6:] += 1
    moved, _ = layer.scan(ts, later)
    same(moved[:, :6], ys[:, :6], 1e-13, "an output depends on later inputs")
    require(bool((moved[:, 6:] != ys[:, 6:]).any()), "the inputs do nothing")
    shifted, _ = layer.scan(ts + 1024.0, us)
    same(shifted, ys, 100 * tolerance, "a shift of the clock changes the outputs")
    slower, _ = layer.scan(1.5 * ts, us)
    require(float((slower - ys).detach().abs().max()) > 1e-9, "the gaps between the times do nothing")


def _check_single(layer: SequenceLayer, ts: Tensor, us: Tensor, ys: Tensor) -> None:
    single = copy.deepcopy(layer).float()
    found, _ = single.scan(ts, us.float())
    require(found.dtype == torch.float32, f"a float32 layer gives {found.dtype}")
    same(found.double(), ys, 1e-3, "float32 is far from float64")


def _check_refusals(layer: SequenceLayer, ts: Tensor, us: Tensor) -> None:
    _, state = layer.scan(ts, us)
    broken, gap = us.clone(), ts.clone()
    broken[0, 3], gap[0, 3] = torch.nan, torch.nan
    _refused("inputs of the wrong size", lambda: layer.scan(ts, torch.cat([us, us[..., :1]], -1)))
    _refused("fewer times than inputs", lambda: layer.scan(ts[:, 1:], us))
    _refused("times that decrease", lambda: layer.scan(ts.flip(-1), us))
    _refused("times before those of the state", lambda: layer.scan(ts - 100.0, us, state))
    _refused("inputs that are NaN", lambda: layer.scan(ts, broken))
    _refused("times that are NaN", lambda: layer.scan(gap, us))


def _refused(what: str, run: Any) -> None:
    try:
        run()
    except ValueError:
        return
    except (RuntimeError, IndexError, TypeError) as error:
        require(False, f"no ValueError, but {type(error).__name__}, for {what}")
    require(False, f"no ValueError for {what}")


def _leaves(state: Any) -> list[Tensor]:
    if isinstance(state, Tensor):
        return [state]
    return [leaf for part in state for leaf in _leaves(part)]
