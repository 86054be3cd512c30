"""torchsde behind `solve`: stochastic equations on a clock per series, along the Brownian motion of the term."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torchsde
from torch import Tensor
from torchsde import BaseBrownian, BrownianInterval

from ..._options import check_options
from ..._types import State, States, Time, Times
from ...nn import take_items
from ...structure import Calculus, Noise
from ...terms import ODETerm, SDETerm, Term
from ..clock import Clock, landing_times
from .base import Engine


__all__ = ["TorchSDE"]


@dataclass(frozen=True)
class _Method:
    """What a method of torchsde can solve."""

    calculus: Calculus | None
    noises: frozenset[Noise]


_ANY = frozenset(Noise)
_SIMPLE = _ANY - {Noise.GENERAL}
_METHODS = {
    "euler": _Method(Calculus.ITO, _ANY),
    "milstein": _Method(None, _SIMPLE),
    "srk": _Method(Calculus.ITO, _SIMPLE),
    "midpoint": _Method(Calculus.STRATONOVICH, _ANY),
    "heun": _Method(Calculus.STRATONOVICH, _ANY),
    "euler_heun": _Method(Calculus.STRATONOVICH, _ANY),
    "reversible_heun": _Method(Calculus.STRATONOVICH, _ANY),
    "log_ode": _Method(Calculus.STRATONOVICH, _ANY),
}
# What is left of equal gaps in float32.
_EVEN = 1e-4


class TorchSDE(Engine):
    r"""torchsde's `sdeint`, for comparison and as an oracle: `solve(field, y0, ts, solver=TorchSDE("srk", dt=0.01))`.

    torchsde knows one clock. Every interval between two output times of a series is rescaled to the length 1,

    .. math:: dy = \dot t f\,ds + \sqrt{\dot t}\, g\,dB(s), \qquad dB = dW / \sqrt{\dot t}

    and cut into :math:`2^k` equal steps, as many as keep the longest step within `dt`: steps end on the output times
    and on the knots of the inputs exactly. The Brownian motion is that of the term, so that a method of ctdyn along the
    same motion can be compared path by path; its increments are found before the first step, and what makes torchsde
    slow and recursive is never called. Gradients are those of the discrete solve. An ordinary equation is solved
    without noise.

    `"reversible_heun"` starts afresh wherever the length of the steps changes. `"log_ode"` needs Levy areas that the
    motion of a term does not have: it draws a motion of its own from `seed`.

    Args:
        method: a method of torchsde. Ito: `"euler"`, `"srk"`; Stratonovich: `"midpoint"`, `"heun"`, `"euler_heun"`,
            `"reversible_heun"`, `"log_ode"`; either: `"milstein"`. Equations with additive noise suit all of them.
        dt: the longest step, in the unit of the times.
        seed: of the motion of `"log_ode"`.
        **options: options of the method, for example `grad_free=True` of `"milstein"`.

    Raises:
        ValueError: torchsde has no such method, `dt` is not positive, or, when solving, the method does not suit the
            calculus or the noise of the equation, or time runs backward in a stochastic one.
        TypeError: the method has no such option.

    Reference:
        Scalable Gradients for Stochastic Differential Equations, X. Li, T.-K. L. Wong, R. T. Q. Chen, D. Duvenaud,
        2020, https://github.com/google-research/torchsde

    Example:
        >>> from ctdyn.integrate import solve
        >>> from ctdyn.systems import OrnsteinUhlenbeck
        >>> ts = torch.tensor([[0.0, 1.0, 2.0], [0.0, 0.5, 0.7]])
        >>> rng = torch.Generator().manual_seed(0)
        >>> solve(OrnsteinUhlenbeck(), torch.ones(2, 1), ts, solver=TorchSDE("srk", dt=0.1), generator=rng).ys.shape
        torch.Size([2, 3, 1])
    """

    def __init__(self, method: str, *, dt: float, seed: int = 0, **options: Any) -> None:
        if method not in _METHODS:
            raise ValueError(f"torchsde has no method {method!r}; choose from {tuple(_METHODS)}.")
        if not 0.0 < dt < math.inf:
            raise ValueError(f"the longest step dt must be a positive number; got {dt}.")
        refused = {"adaptive", "bm", "adjoint", "logqp", "rtol", "atol"} & set(options)
        if refused:
            raise ValueError(
                f"TorchSDE takes fixed steps along the motion of the term, and no {sorted(refused)}; for adaptive "
                "steps use SRA1() or SRI1() of ctdyn."
            )
        check_options(f"TorchSDE({method!r})", options, ("grad_free",) if method == "milstein" else ())
        self.method = method
        self.dt = dt
        self.seed = seed
        self.options = options

    def __repr__(self) -> str:
        options = "".join(f", {name}={value!r}" for name, value in self.options.items())
        return f"TorchSDE({self.method!r}, dt={self.dt:g}{options})"

    def run(self, term: Term, y0: State, ts: Times, t0: Time) -> tuple[States, dict[str, Tensor]]:
        """The states at `ts`, each series on its own clock; see `Engine.run`.

        Raises:
            ValueError: the method does not suit the equation, or the equation is neither stochastic nor ordinary.
        """
        if not isinstance(term, SDETerm | ODETerm):
            raise ValueError(
                f"TorchSDE solves a stochastic equation (an SDEField); got a {type(term).__name__}. Take TorchCDE() "
                "for a controlled one, TorchDiffEq() for an ordinary one."
            )
        self._check(term, ts, t0)
        clock = Clock(ts, t0, torch.where(ts[..., -1] >= t0, 1.0, -1.0), from_first=False)
        nodes = landing_times(torch.cat([t0[..., None], ts], -1), clock, term.knots())
        states, y, evaluations = [y0[..., None, :]], y0, 0
        for first, last in _even_runs(nodes.detach()):
            piece = _Piece(term, self, nodes[..., first : last + 1], y0.shape, first)
            found = piece.solve(y)
            y, evaluations = found[..., -1, :], evaluations + piece.evaluations
            states.append(found)
        ordered = (nodes * clock.direction[..., None]).detach().contiguous()
        index = torch.searchsorted(ordered, (ts * clock.direction[..., None]).detach().contiguous())
        ys = take_items(torch.cat(states, -2), index, -2)
        count = torch.full(y0.shape[:-1], evaluations, dtype=torch.int64, device=y0.device)
        return ys, {"evaluations": count}

    def _check(self, term: SDETerm | ODETerm, ts: Times, t0: Time) -> None:
        if isinstance(term, ODETerm):
            return
        if bool((ts[..., -1] < t0).any()):
            raise ValueError("a stochastic equation runs forward in time; give times after t0.")
        able = _METHODS[self.method]
        if term.noise is not Noise.ADDITIVE and able.calculus not in (None, term.calculus):
            suited = tuple(name for name, method in _METHODS.items() if method.calculus in (None, term.calculus))
            raise ValueError(
                f"{self.method!r} solves {able.calculus.value if able.calculus else ''} equations and the field is "
                f"declared {term.calculus.value}; choose from {suited}."
            )
        if term.noise not in able.noises:
            suited = tuple(name for name, method in _METHODS.items() if term.noise in method.noises)
            raise ValueError(f"{self.method!r} does not solve {term.noise.value} noise; choose from {suited}.")


class _Piece:
    """Consecutive intervals of equal pace, as one equation that torchsde can solve: series flat, time rescaled."""

    def __init__(self, term: SDETerm | ODETerm, engine: TorchSDE, nodes: Tensor, shape: torch.Size, first: int) -> None:
        self.term = term if term.knots() is None or nodes.shape[-1] > 2 else term.restrict(nodes[..., 0], nodes[..., 1])
        self.engine = engine
        self.nodes = nodes
        self.shape = shape
        self.first = first
        gaps = nodes.diff(dim=-1)
        longest = float(gaps.detach().abs().max())
        self.cuts = 2 ** max(0, math.ceil(math.log2(longest / engine.dt) - _EVEN)) if longest > 0 else 1
        self.paces = gaps.unbind(-1)
        self.evaluations = 0
        able = _METHODS[engine.method].calculus
        calculus = able if able is not None else term.calculus if isinstance(term, SDETerm) else Calculus.ITO
        noise = term.noise if isinstance(term, SDETerm) else Noise.DIAGONAL
        self.sde_type = calculus.value.lower()
        self.noise_type = noise.value

    def solve(self, y: State) -> States:
        """The states at the ends of the intervals, `(*batch, interval, state)`."""
        marks = torch.arange(self.nodes.shape[-1], dtype=torch.float64, device=y.device)
        flat = y.reshape(-1, y.shape[-1])
        found = torchsde.sdeint(
            self, flat, marks, bm=self._motion(flat), method=self.engine.method, dt=1 / self.cuts,
            options=dict(self.engine.options),
        )  # fmt: skip
        if not isinstance(found, Tensor):
            raise TypeError("torchsde returned more than the states; its version does not fit this engine.")
        return torch.movedim(found[1:], 0, 1).reshape(*self.shape[:-1], -1, self.shape[-1])

    def f(self, s: Tensor, y: Tensor) -> Tensor:
        """The drift over the common parameter."""
        self.evaluations += 1
        (t, pace), y = self._at(s), y.reshape(self.shape)
        drift = self.term.drift(t, y) if isinstance(self.term, SDETerm) else self.term.derivative(t, y)
        return (pace.to(y.dtype)[..., None] * drift).reshape(-1, self.shape[-1])

    def g(self, s: Tensor, y: Tensor) -> Tensor:
        """The diffusion over the common parameter."""
        if not isinstance(self.term, SDETerm):
            return torch.zeros_like(y)
        t, pace = self._at(s)
        diffusion = self.term.diffusion(t, y.reshape(self.shape))
        scale = _root(pace).to(y.dtype).reshape(*pace.shape, *[1] * (diffusion.dim() - pace.dim()))
        diffusion = (scale * diffusion).reshape(-1, *diffusion.shape[pace.dim() :])
        if self.noise_type == Noise.SCALAR.value:
            return diffusion.unsqueeze(-1)
        by_entry = diffusion.dim() == 2 and self.noise_type == Noise.ADDITIVE.value
        return torch.diag_embed(diffusion) if by_entry else diffusion

    def _at(self, s: Tensor) -> tuple[Time, Time]:
        """The times of the series, and how fast they pass."""
        piece = min(int(s), len(self.paces) - 1)
        pace = self.paces[piece]
        return self.nodes[..., piece] + (s - piece).to(pace.dtype) * pace, pace

    def _motion(self, flat: Tensor) -> BaseBrownian:
        real = flat.dtype.to_real()
        if not isinstance(self.term, SDETerm):
            zeros = flat.new_zeros((self.nodes.shape[-1] - 1) * self.cuts, *flat.shape, dtype=real)
            return _Motion(zeros, zeros, self.cuts)
        if self.engine.method == "log_ode":
            return BrownianInterval(
                t0=0.0, t1=float(self.nodes.shape[-1] - 1), size=(len(flat), self.term.brownian.size), dtype=real,
                device=flat.device, entropy=self.engine.seed + self.first, dt=1 / self.cuts,
                levy_area_approximation="foster",
            )  # fmt: skip
        share = torch.arange(self.cuts, dtype=torch.float64, device=flat.device) / self.cuts
        nodes = self.nodes.detach()
        gaps = nodes.diff(dim=-1)[..., None]
        grid = torch.cat([(nodes[..., :-1, None] + share * gaps).flatten(-2), nodes[..., -1:]], -1)
        grid = torch.movedim(grid, -1, 0)
        lengths = torch.movedim(gaps.expand(*gaps.shape[:-1], self.cuts).flatten(-2), -1, 0)
        scale = torch.where(lengths == 0, 0.0, 1 / _root(torch.where(lengths == 0, 1.0, lengths)))
        if self.engine.method == "srk":
            changes = self.term.brownian.increments_and_areas(grid)
        else:
            changes = (self.term.brownian.increments(grid),) * 2
        change, area = ((part * scale[..., None]).to(real).reshape(len(part), len(flat), -1) for part in changes)
        return _Motion(change, area, self.cuts)


class _Motion(BaseBrownian):
    """Increments that are known before the first step, as torchsde asks for them.

    Args:
        change: the increments, `(step, series, size)`.
        area: the space-time Levy areas, of the same shape.
        cuts: steps per unit of the parameter.
    """

    def __init__(self, change: Tensor, area: Tensor, cuts: int) -> None:
        self._change = change
        self._area = area
        self._cuts = cuts

    def __call__(self, ta: Tensor, tb: Tensor | None = None, return_U: bool = False, return_A: bool = False) -> Any:
        step = round(float(ta) * self._cuts)
        change = self._change[step]
        return (change, (0.5 * change + self._area[step]) / self._cuts) if return_U else change

    def __repr__(self) -> str:
        return f"_Motion({len(self._change)} steps)"

    @property
    def dtype(self) -> torch.dtype:
        return self._change.dtype

    @property
    def device(self) -> torch.device:
        return self._change.device

    @property
    def shape(self) -> torch.Size:
        return self._change.shape[1:]

    @property
    def levy_area_approximation(self) -> str:
        return "space-time"


def _even_runs(nodes: Tensor) -> Iterator[tuple[int, int]]:
    """The longest stretches of intervals whose length does not change, in any series: first and last node."""
    gaps = nodes.diff(dim=-1).reshape(-1, nodes.shape[-1] - 1)
    first, count = 0, gaps.shape[-1]
    scale = gaps.abs().amax(0)
    same = ((gaps[:, 1:] - gaps[:, :-1]).abs().amax(0) <= _EVEN * scale[:-1]).tolist() if count > 1 else []
    for last in range(1, count + 1):
        if last == count or not same[last - 1]:
            yield first, last
            first = last


def _root(pace: Tensor) -> Tensor:
    """The square root of the length of an interval; its gradient is finite where there is none."""
    return torch.where(pace == 0, 0.0, torch.where(pace == 0, 1.0, pace.abs()).sqrt())
