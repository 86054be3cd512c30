"""Explicit fixed steps of perceptrons in a row, with their derivatives by hand: one node of the graph for all steps."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from .._types import State
from ..fields._scan import Loop, run_loop
from ..fields._synapses import arrays, is_compiled
from ..linear._recycling import empty_like
from ..solvers.base import Solver
from ..solvers.runge_kutta import RungeKutta, Tableau
from ..structure import CDEField, Perceptron, PerceptronField
from ..terms import CDETerm, ODETerm, Term


__all__ = ["PerceptronLoop", "perceptron_steps"]

#: The activations that the kernels know, by their numbers there.
_KINDS: dict[type[nn.Module], int] = {nn.Identity: 0, nn.Tanh: 1, nn.ReLU: 2, nn.SiLU: 3, nn.Softplus: 4}
#: Those whose output does not tell their slope.
_TOLD = {_KINDS[nn.SiLU], _KINDS[nn.Softplus]}
#: Multiplications of one evaluation times threads, beyond which the work is in products: threads then do better.
_WORK = 1 << 24
#: Rows whose gradients to the weights are summed at once; they should stay in a cache.
_ROWS = 512


class Walked(NamedTuple):
    """The states behind every step, what the last step left, and the interpolants where they are wanted."""

    ends: tuple[Tensor, ...]
    state: Tensor | None
    parts: Tensor | None


def perceptron_steps(term: Term, solver: Solver, grid: Tensor, y0: State, *, dense: bool) -> Walked | None:
    """Take all steps, or return None where the equation or the method is of another kind.

    Args:
        term: the equation.
        solver: the method.
        grid: ends of the steps, `(step + 1, *batch)`.
        y0: states at the start, `(*batch, state)`.
        dense: whether the interpolants are wanted, `(step, part, *batch, state)`.

    Example:
        >>> from ctdyn.solvers import RK4
        >>> term, grid = ODETerm(lambda t, y: -y), torch.zeros(2, 1)
        >>> perceptron_steps(term, RK4(), grid, torch.zeros(1, 1), dense=False) is None
        True
    """
    if not isinstance(solver, RungeKutta) or type(solver).step is not RungeKutta.step:
        return None
    if grid.requires_grad or torch.compiler.is_compiling() or y0.numel() == 0:
        return None
    found = _perceptron(term)
    if found is None or any(kind not in _KINDS for kind in found.activations):
        return None
    # Whatever does not fit is refused, in its own words, by the field itself.
    drive = _drive(term, solver.tableau, grid, y0)
    sizes = found.weights[0].shape[1], found.weights[-1].shape[0]
    inputs, channels = (0, drive.shape[-1]) if isinstance(term, CDETerm) else (drive.shape[-1], 1)
    if sizes != (y0.shape[-1] + inputs, y0.shape[-1] * channels):
        return None
    rows, stages = y0.shape[:-1].numel(), drive.shape[:2].numel()
    if rows * sum(weight.numel() for weight in found.weights) * torch.get_num_threads() > _WORK:
        return None
    span = grid.diff(dim=0).to(y0.dtype).expand(-1, *y0.shape[:-1]).reshape(-1, rows)
    tensors = (span, y0.reshape(rows, -1), drive.reshape(stages, rows, drive.shape[-1]), *found.weights, *found.biases)
    if not is_compiled(*tensors):
        return None
    keeps = torch.is_grad_enabled() and any(x.requires_grad for x in tensors)
    kinds = tuple(_KINDS[kind] for kind in found.activations)
    loop = PerceptronLoop(solver.tableau, kinds, isinstance(term, CDETerm), keeps, dense)
    found, count = run_loop(loop, *tensors), len(span)
    nodes = found[:count].reshape(count, *y0.shape)
    if not dense:
        return Walked(nodes.unbind(), None, None)
    velocities = found[count:].reshape(count, -1, *y0.shape)
    if term.knots() is None:
        # A step ends with the velocity that the next one begins with.
        ends = torch.cat([velocities[1:, 0], term.derivative(grid[-1], nodes[-1]).unsqueeze(0)])
    else:
        ends = term.restrict(grid[:-1], grid[1:]).derivative(grid[1:], nodes)
    return Walked(nodes.unbind(), ends[-1], torch.cat([velocities, ends.unsqueeze(1)], 1))


def _perceptron(term: Term) -> Perceptron | None:
    """What the field of a plain equation is made of, if it is that and nothing else."""
    field = term.field
    if not isinstance(term, ODETerm | CDETerm) or not isinstance(field, PerceptronField):
        return None
    assert isinstance(field, nn.Module)
    kind = type(field)
    names = ("forward", "prod") if isinstance(field, CDEField) else ("forward",)
    owner = _owner(kind, "perceptron")
    if any(_owner(kind, name) not in (owner, CDEField) for name in names):
        return None
    hooked = (part._forward_hooks or part._forward_pre_hooks or part._backward_hooks for part in field.modules())
    return None if any(hooked) else field.perceptron()


def _owner(kind: type, name: str) -> type:
    return next(base for base in kind.__mro__ if name in vars(base))


def _drive(term: Term, tableau: Tableau, grid: Tensor, y0: State) -> Tensor:
    """What drives the field at every stage of every step, `(step, stage, *batch, channel)`, all at once."""
    t0, t1 = grid[:-1], grid[1:]
    piece = term.restrict(t0, t1) if term.knots() is not None else term
    path = piece.control if isinstance(piece, CDETerm) else piece.inputs if isinstance(piece, ODETerm) else None
    shape = (len(t0), len(tableau.c), *y0.shape[:-1])
    if path is None:
        return y0.new_zeros(*shape, 0)
    times = [t0 + node * (t1 - t0) for node in tableau.c]
    found = [path.derivative(t) if isinstance(piece, CDETerm) else path.evaluate(t) for t in times]
    return torch.stack(found, 1).to(y0.dtype).expand(*shape, -1)


@dataclass(frozen=True)
class PerceptronLoop(Loop):
    """Steps of an explicit method.

    Its tensors are the lengths of the steps, `(step, series)`; the first states; inputs or the derivative of the
    control at every stage, `(step stage, series, channel)`; weights, then biases. The states are
    `(step, series, state)`; where they are wanted, the velocities of all stages follow, `(step stage, series, state)`.

    Args:
        tableau: the method.
        kinds: number of the activation behind every layer.
        controlled: the equation is a controlled one.
        keeps: the gradients will be asked for.
        dense: the velocities are wanted.
    """

    tableau: Tableau
    kinds: tuple[int, ...]
    controlled: bool
    keeps: bool
    dense: bool

    def plain(self, *tensors: Tensor) -> Tensor:
        span, y, drive, *layers = tensors
        drives, states, told = drive.unflatten(0, (len(span), -1)), [], []
        for n, dt in enumerate(span.unsqueeze(-1).unbind()):
            velocities: list[Tensor] = []
            for i, row in enumerate(((), *self.tableau.a)):
                x = _along(y, dt, row, velocities)
                velocities.append(self._velocity(x, drives[n, i], layers))
            y = _along(y, dt, self.tableau.b, velocities)
            states.append(y)
            told.extend(velocities if self.dense else [])
        return torch.stack([*states, *told])

    def _velocity(self, y: Tensor, drive: Tensor, layers: list[Tensor]) -> Tensor:
        x = y if self.controlled else torch.cat([y, drive], -1)
        depth = len(self.kinds)
        for kind, weight, bias in zip(self.kinds, layers[:depth], layers[depth:], strict=True):
            x = _ACTIVATIONS[kind](linear(x, weight, bias))
        return (x.unflatten(-1, (y.shape[-1], -1)) * drive.unsqueeze(-2)).sum(-1) if self.controlled else x

    def forward(self, *tensors: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        span, y, drive, *layers = tensors
        depth = len(self.kinds)
        weights, biases = layers[:depth], layers[depth:]
        room = len(drive) if self.keeps else 1
        widths = [weights[0].shape[1], *(len(bias) for bias in biases)]
        kept = [empty_like(y, (room, len(y), width)) for width in widths]
        told = [len(bias) if kind in _TOLD else 0 for kind, bias in zip(self.kinds, biases, strict=True)]
        slopes = [empty_like(y, (room, len(y), width)) for width in told]
        count, stages = len(span), len(self.tableau.b)
        states = empty_like(y, (count * (1 + stages) if self.dense else count, *y.shape))
        ks = states[count:] if self.dense else y.new_empty(stages, *y.shape)
        _kernels().steps(
            *arrays(y, span, *self._driven(drive)),
            tuple(arrays(*(weight.t() for weight in weights))),
            tuple(arrays(*biases)),
            np.array(self.kinds),
            self._matrix(y),
            tuple(arrays(*kept)),
            tuple(arrays(*slopes)),
            *arrays(ks, states[:count]),
        )
        return states, (*kept, *slopes) if self.keeps else ()

    def backward(
        self,
        tensors: tuple[Tensor, ...],
        states: Tensor,
        kept: tuple[Tensor, ...],
        g: Tensor,
        wanted: tuple[bool, ...],
    ) -> tuple[Tensor | None, ...]:
        span, y, drive, *layers = tensors
        depth, series = len(self.kinds), len(y)
        chunk = min(len(drive), max(1, _ROWS // series))
        gs = [y.new_empty(1 if k == 0 else chunk, *x.shape[1:]) for k, x in enumerate(kept[: depth + 1])]
        to = [torch.zeros_like(x, memory_format=torch.contiguous_format) for x in layers]
        to_y = torch.zeros_like(y, memory_format=torch.contiguous_format)
        to_drive = torch.empty_like(drive if wanted[2] else drive[..., :0], memory_format=torch.contiguous_format)
        _kernels().steps_back(
            *arrays(span, self._driven(drive)[1]),
            tuple(arrays(*layers[:depth])),
            np.array(self.kinds),
            self._matrix(y),
            tuple(arrays(*kept[: depth + 1])),
            tuple(arrays(*kept[depth + 1 :])),
            *arrays(g[: len(span)], g[len(span) :], y.new_empty(len(self.tableau.b), *y.shape)),
            tuple(arrays(*gs)),
            tuple(arrays(*(torch.empty_like(x) for x in to[:depth]))),
            *arrays(to_y, *self._driven(to_drive)),
            (tuple(arrays(*to[:depth])), tuple(arrays(*to[depth:]))),
        )
        return None, to_y, to_drive if wanted[2] else None, *to

    def _driven(self, drive: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs and changes of the control, one of which has no channels."""
        return (drive[..., :0], drive) if self.controlled else (drive, drive[..., :0])

    def _matrix(self, like: Tensor) -> np.ndarray:
        """Weights of the stages, and in the last row those of the step."""
        size = len(self.tableau.b)
        matrix = np.zeros((size + 1, size), np.float32 if like.dtype == torch.float32 else np.float64)
        for row, weights in zip(matrix, ((), *self.tableau.a, self.tableau.b), strict=True):
            row[: len(weights)] = weights
        return matrix


_ACTIVATIONS = (lambda x: x, torch.tanh, torch.relu, nn.functional.silu, nn.functional.softplus)


def _along(y: Tensor, dt: Tensor, weights: tuple[float, ...], velocities: list[Tensor]) -> Tensor:
    for weight, velocity in zip(weights, velocities, strict=False):
        if weight != 0.0:
            y = torch.addcmul(y, dt, velocity, value=weight)
    return y


@cache
def _kernels() -> ModuleType:
    from . import _kernels as compiled

    return compiled
