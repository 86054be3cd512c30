"""Weights of ncps, read into cells."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from .._checks import few
from ..fields import CfCMode, CfCTransition, WiredCfCTransition
from ..fields._synapses import Synapses, unsoftplus
from .cfc import CfCCell
from .held import Memory
from .ltc import LTCCell


__all__ = ["load_ncps"]

Plan = list[tuple[Tensor, Tensor]]


def load_ncps(
    cell: CfCCell | LTCCell,
    state: Mapping[str, Tensor],
    *,
    projection: nn.Linear | None = None,
    implicit: bool = True,
) -> None:
    """Read the weights of a trained `CfC` or `LTC` of ncps, or of their cells, into a cell of the same architecture.

    Called as a layer, the cell then gives the outputs that they give for one timespan that all series share, and the
    right ones where every series has its own. A cell for it has `reads_mask=False`; an LTC steps as in ncps with
    `solver=FusedEuler(), num_steps=6`.

    Args:
        cell: what is filled; unchanged where the weights do not fit.
        state: what `state_dict()` of ncps gave.
        projection: a layer for the weights of `proj_size`, `Linear(motor_size, proj_size)`.
        implicit: whether an LTC had `implicit_param_constraints=True`: the default of `LTC`, not that of `LTCCell`.

    Raises:
        ValueError: the weights are those of another architecture or of another wiring, or are not what `implicit` says.

    References:
        Neural circuit policies enabling auditable autonomy, M. Lechner, R. Hasani, A. Amini, T. A. Henzinger, D. Rus,
        R. Grosu, 2020, https://doi.org/10.1038/s42256-020-00237-3

    Example:
        >>> cell = CfCCell(2, 3, hidden=(), mode=CfCMode.PURE, reads_mask=False)
        >>> weights = {"ff1.weight": torch.ones(3, 5), "ff1.bias": torch.zeros(3)}
        >>> load_ncps(cell, {**weights, "A": torch.ones(1, 3), "w_tau": torch.zeros(1, 3)})
        >>> bool((cell.step.heads.weight == 1).all())
        True
    """
    if cell.reads_mask or cell.input_size:
        raise ValueError(
            f"ncps knows neither masks nor inputs beside the values: build {type(cell).__name__}(..., "
            "reads_mask=False) without inputs."
        )
    weights = _Weights(state, type(cell).__name__)
    plan = _ltc(cell, weights, implicit) if isinstance(cell, LTCCell) else _cfc(cell, weights)
    if cell.memory is not None:
        plan += _memory(cell.memory, weights)
    if projection is not None:
        plan += [(getattr(projection, name), weights.take(f"fc.{name}")) for name in ("weight", "bias")]
    weights.finish(has_memory=cell.memory is not None)
    for target, value in plan:
        if target.shape != value.shape:
            raise ValueError(
                f"the weights are those of another size: {tuple(value.shape)} where this {type(cell).__name__} has "
                f"{tuple(target.shape)} ({weights.sizes()})."
            )
    with torch.no_grad():
        for target, value in plan:
            target.copy_(value)


class _Weights:
    """A state dict that is used up."""

    def __init__(self, state: Mapping[str, Tensor], name: str) -> None:
        self._left = {key.removeprefix("rnn_cell."): value.detach() for key, value in state.items()}
        self._shapes = {key: tuple(value.shape) for key, value in state.items()}
        self._name = name

    def take(self, key: str) -> Tensor:
        if key not in self._left:
            raise ValueError(
                f"the weights are those of another architecture: this {self._name} needs {key!r}, and they hold "
                f"{few(self._shapes)}."
            )
        return self._left.pop(key)

    def take_or(self, key: str, other: Tensor) -> Tensor:
        return self._left.pop(key, other)

    def matching(self, start: str, end: str) -> list[str]:
        """The middles of the keys that begin and end like this, by number."""
        found = [key for key in self._left if key.startswith(start) and key.endswith(end)]
        return sorted((key[len(start) : len(key) - len(end)] for key in found), key=int)

    def sizes(self) -> str:
        return few(f"{key} {shape}" for key, shape in self._shapes.items())

    def finish(self, *, has_memory: bool) -> None:
        if not self._left:
            return
        cure = ""
        if any(key.startswith("lstm.") for key in self._left) and not has_memory:
            cure = " Build the cell with mixed_memory=True."
        elif any(key.startswith("fc.") for key in self._left):
            cure = " Pass projection=nn.Linear(motor_size, proj_size)."
        raise ValueError(
            f"the weights are those of another architecture: this {self._name} has no place for {few(self._left)}."
            f"{cure}"
        )


def _cfc(cell: CfCCell, weights: _Weights) -> Plan:
    if isinstance(cell.step, WiredCfCTransition):
        plan: Plan = []
        for number, step in enumerate(cell.step.steps):
            plan += _heads(cast(CfCTransition, step), weights, f"layer_{number}.")
        return plan
    if parametrize.is_parametrized(cell.step.first):
        raise ValueError("weights of ncps fill a free matrix: build the cell without recurrent=.")
    numbers = weights.matching("backbone.", ".weight")
    if len(numbers) != len(cell.step.backbone):
        raise ValueError(
            f"the weights are those of another architecture: {len(numbers)} hidden layers, and this CfCCell has "
            f"{len(cell.step.backbone)} (hidden=)."
        )
    plan = []
    for number, layer in zip(numbers, cell.step.backbone, strict=True):
        plan += [(getattr(layer, name), weights.take(f"backbone.{number}.{name}")) for name in ("weight", "bias")]
    return plan + _heads(cell.step, weights, "")


def _heads(step: CfCTransition, weights: _Weights, prefix: str) -> Plan:
    pure = step.mode is CfCMode.PURE
    names = ("ff1",) if pure else ("time_a", "ff1", "ff2", "time_b")
    joined = [torch.cat([weights.take(f"{prefix}{n}.{kind}") for n in names]) for kind in ("weight", "bias")]
    weight = step.heads.weight
    if parametrize.is_parametrized(step.heads):
        connected = cast(Any, step.heads.parametrizations).weight
        weight = connected.original
        rows = slice(None) if pure else slice(step.state_size, 2 * step.state_size)
        _same_wiring(connected[0].mask[rows], weights.take(f"{prefix}sparsity_mask"))
    plan = [(weight, joined[0]), (step.heads.bias, joined[1])]
    if pure:
        plan += [(step.level, weights.take(f"{prefix}A")[0]), (step.rate, weights.take(f"{prefix}w_tau")[0])]
    return plan


def _ltc(cell: LTCCell, weights: _Weights, implicit: bool) -> Plan:
    positive = _raw if implicit else _from_positive
    field = cell.field
    assert field.sensory is not None
    plan = [
        (field.raw_capacity, positive("cm", weights.take("cm"))),
        (field.raw_leak, positive("gleak", weights.take("gleak"))),
        (field.leak_level, weights.take("vleak")),
        *_synapses(field.synapses, weights, "", positive),
        *_synapses(field.sensory, weights, "sensory_", positive),
    ]
    for name, scale, shift in (
        ("input", cell.input_scale, cell.input_shift),
        ("output", cell.output_scale, cell.output_shift),
    ):
        plan.append((scale, weights.take_or(f"{name}_w", torch.ones_like(scale))))
        plan.append((shift, weights.take_or(f"{name}_b", torch.zeros_like(shift))))
    return plan


def _synapses(synapses: Synapses, weights: _Weights, prefix: str, positive: Callable[[str, Tensor], Tensor]) -> Plan:
    there = torch.ones_like(synapses.slope) if synapses.there is None else synapses.there
    _same_wiring(there, weights.take(f"{prefix}sparsity_mask"))
    return [
        (synapses.raw_weight, positive(f"{prefix}w", weights.take(f"{prefix}w"))),
        (synapses.slope, weights.take(f"{prefix}sigma")),
        (synapses.threshold, weights.take(f"{prefix}mu")),
        (synapses.level, weights.take(f"{prefix}erev")),
    ]


def _memory(memory: Memory, weights: _Weights) -> Plan:
    bias = weights.take("lstm.input_map.bias").clone()
    # ncps adds 1 to the forget gate.
    bias[2 * memory.units : 3 * memory.units] += 1.0
    return [
        (memory.inputs.weight, weights.take("lstm.input_map.weight")),
        (memory.inputs.bias, bias),
        (memory.recurrent.weight, weights.take("lstm.recurrent_map.weight")),
    ]


def _raw(name: str, value: Tensor) -> Tensor:
    return value


def _from_positive(name: str, value: Tensor) -> Tensor:
    if bool((value < 0).any()):
        raise ValueError(
            f"{name} of the weights has negative entries: they are those of an LTC with "
            "implicit_param_constraints=True (pass implicit=True), or apply_weight_constraints() was not called."
        )
    return unsoftplus(value.clamp(min=1e-9))


def _same_wiring(ours: Tensor, theirs: Tensor) -> None:
    if ours.shape != theirs.shape or not bool((ours == theirs.to(ours.dtype)).all()):
        count = int(torch.count_nonzero(theirs))
        raise ValueError(
            f"the weights are those of another wiring: {count} synapses in {tuple(theirs.shape)}, and this cell has "
            f"{int(torch.count_nonzero(ours))} in {tuple(ours.shape)}, or others."
        )
