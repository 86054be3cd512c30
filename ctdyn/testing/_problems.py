"""Problems with closed forms that the checks solve."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .._types import Inputs, State, Time
from ..solvers import Solver
from ..structure import DecayField, SecondOrderField, VectorField


__all__ = ["Driven", "Swing", "Wheel", "problem_for", "wheel"]


class Wheel(DecayField):
    """Nonlinear, coupled and timed, with a closed form: a limit cycle that is turned at a varying pace."""

    def decay(self, t: Time, y: State, u: Inputs | None = None) -> tuple[State, State]:
        x1, x2 = y.unbind(-1)
        pace = 4 + torch.cos(2 * t)
        rate = 0.5 * (x1**2 + x2**2)
        drive = torch.stack([0.5 * x1 - pace * x2, 0.5 * x2 + pace * x1], -1)
        return rate.unsqueeze(-1).expand_as(y), drive

    def exact(self, t0: Tensor, y0: Tensor, ts: Tensor) -> Tensor:
        start = t0[..., None]
        growth = torch.exp(ts - start)
        square = (y0**2).sum(-1, keepdim=True)
        scale = torch.sqrt(growth / (1 + square * (growth - 1)))
        angle = 4 * (ts - start) + (torch.sin(2 * ts) - torch.sin(2 * start)) / 2
        x1, x2 = y0[..., :1], y0[..., 1:]
        cos, sin = angle.cos(), angle.sin()
        return scale[..., None] * torch.stack([x1 * cos - x2 * sin, x1 * sin + x2 * cos], -1)


class Swing(SecondOrderField):
    """Ermakov's equation at a varying pace: a spring, and a wall at the origin that throws back."""

    def velocity(self, t: Time, p: State) -> State:
        return self._pace(t) * p

    def force(self, t: Time, q: State, u: Inputs | None = None) -> State:
        return self._pace(t) * (q**-3 - 4 * q)

    def _pace(self, t: Tensor) -> Tensor:
        return (1 + 0.5 * torch.cos(2 * t)).unsqueeze(-1)

    def exact(self, t0: Tensor, y0: Tensor, ts: Tensor) -> Tensor:
        start, (q0, p0) = t0[..., None], y0[..., None, :].unbind(-1)
        angle = 2 * (ts - start + (torch.sin(2 * ts) - torch.sin(2 * start)) / 4)
        cos, sin = angle.cos(), angle.sin()
        free, slope = q0 * cos + p0 / 2 * sin, p0 * cos - 2 * q0 * sin
        q = torch.sqrt(free**2 + (sin / (2 * q0)) ** 2)
        return torch.stack([q, (free * slope + sin * cos / (2 * q0**2)) / q], -1)


class Driven(VectorField):
    """A small perceptron with inputs, for gradients: everything in it is smooth."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(5, 8, dtype=torch.float64)
        self.outer = nn.Linear(8, 2, dtype=torch.float64)

    def forward(self, t: Time, y: State, u: Inputs | None = None) -> State:
        if u is None:
            raise ValueError("this field is driven by inputs.")
        return self.outer(torch.tanh(self.inner(torch.cat([t[..., None], y, u], -1))))


def wheel() -> tuple[Wheel, Tensor, Tensor, Tensor]:
    """The wheel, start times, initial states and the own, padded clocks of three series."""
    t0 = torch.tensor([0.0, 0.5, -1.0], dtype=torch.float64)
    y0 = torch.tensor([[0.5, 0.0], [0.0, 1.5], [0.3, -0.4]], dtype=torch.float64)
    steps = torch.tensor([[0.0, 0.3, 0.31, 0.9, 1.4], [0.2, 0.5, 0.8, 0.85, 2.0], [0.1, 0.4, 0.7, 0.7, 0.7]])
    return Wheel(), t0, y0, t0[:, None] + steps.to(torch.float64)


def problem_for(solver: Solver) -> tuple[Wheel | Swing, Tensor, Tensor, Tensor]:
    """A problem of the structure that the method requires: the field, start times, initial states and own clocks."""
    field, t0, y0, ts = wheel()
    if issubclass(solver.requires, SecondOrderField):
        return Swing(), t0, torch.tensor([[1.0, 0.3], [0.8, -0.5], [1.2, 0.4]], dtype=torch.float64), ts
    return field, t0, y0, ts
