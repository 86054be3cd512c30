"""What a stochastic equation needs before it is solved: a Brownian motion, and a method that means what it says."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from .._types import State
from ..paths.base import Path
from ..paths.brownian import Brownian, StoredBrownian, VirtualBrownianTree
from ..solvers.base import Solver
from ..solvers.chords import OnChords
from ..solvers.euler_maruyama import EulerMaruyama
from ..solvers.heun import Heun
from ..solvers.sra1 import SRA1
from ..solvers.tsit5 import Tsit5
from ..structure import Calculus, Noise, SDEField
from ..terms import SDETerm, Term, as_term, brownian_size
from .clock import Clock
from .controllers import AdaptiveController, ConstantStep, GridController, PIDController, StepController


__all__ = ["check_steps", "equation_of", "method_for", "stochastic_term"]

_TOL = 2.0**-26
#: Steps on shorter spans than this would come near the pieces of a motion that is made for a unit of time.
_SHORT = 2.0**-8
#: A step across fewer pieces than this sees how smooth they are.
_PIECES = 16


def equation_of(
    equation: Term | SDEField | Callable[..., Tensor],
    y0: State,
    clock: Clock,
    controller: StepController | None,
    inputs: Path | None,
    generator: Generator | None,
    max_steps: int = 10_000,
) -> Term:
    """The term that `solve` is asked to solve; a stochastic one with a Brownian motion of its own.

    Args:
        equation: a field or a term.
        y0: states at the start, `(*batch, state)`.
        clock: times of the batch.
        controller: the steps.
        inputs: what drives the field.
        generator: of the random numbers of an `SDEField`.
        max_steps: the most steps that will be taken.

    Raises:
        ValueError: a generator is given and the equation draws nothing.

    Example:
        >>> clock = Clock.create(torch.tensor([0.0, 1.0]), None, torch.Size([]), torch.float64)
        >>> type(equation_of(lambda t, y: -y, torch.ones(1), clock, None, None, None)).__name__
        'ODETerm'
    """
    if isinstance(equation, SDEField):
        return stochastic_term(equation, y0, clock, controller, inputs, generator, max_steps)
    if generator is not None:
        raise ValueError(
            "generator= draws the Brownian motion of an SDEField; this equation is "
            f"a {type(equation).__name__}, which draws nothing. An SDETerm brings its own: "
            "SDETerm(field, VirtualBrownianTree.draw(batch_shape, size, generator=generator))."
        )
    return as_term(equation, inputs)


def stochastic_term(
    equation: SDEField,
    y0: State,
    clock: Clock,
    controller: StepController | None,
    inputs: Path | None,
    generator: Generator | None,
    max_steps: int = 10_000,
) -> SDETerm:
    """A field along a Brownian motion drawn for the solve: stored for fixed steps, a virtual tree for adaptive ones.

    Args:
        equation: drift and diffusion.
        y0: states at the start, `(*batch, state)`.
        clock: times of the batch.
        controller: the steps.
        inputs: what drives the field beside the noise.
        generator: of the random numbers; None for torch's own.
        max_steps: the most steps that will be taken.

    Example:
        >>> from ctdyn.systems import OrnsteinUhlenbeck
        >>> clock = Clock.create(torch.tensor([0.0, 1.0]), None, torch.Size([2]), torch.float64)
        >>> term = stochastic_term(OrnsteinUhlenbeck(), torch.ones(2, 1), clock, ConstantStep(0.25), None, None)
        >>> term.brownian.increments(term.brownian.grid).shape
        torch.Size([4, 2, 1])
    """
    start = clock.t0.detach()
    u = None if inputs is None else inputs.evaluate(start).to(y0.dtype.to_real())
    size = brownian_size(equation, start.to(y0.dtype.to_real()), y0.detach(), u)
    motion: Brownian
    if isinstance(controller, GridController):
        if isinstance(controller, ConstantStep):
            # Whole steps, so that a later end leaves what came before as it was; knots cut steps and not the motion.
            count = min(controller.count(clock, None), max_steps + 1)
            ticks = torch.arange(count + 1, dtype=torch.float64, device=start.device)
            grid = start + ticks.reshape(-1, *[1] * start.dim()) * (controller.dt * clock.direction)
        elif controller.count(clock, None) > max_steps:
            # The solve is going to say so.
            grid = torch.stack([start, clock.end.detach()])
        else:
            grid = controller.grid(clock, None).detach()
        motion = StoredBrownian.draw(grid, size, generator=generator, dtype=y0.dtype.to_real())
    else:
        motion = VirtualBrownianTree.draw(tuple(start.shape), size, generator=generator, t0=start, tol=_fineness(clock))
    return SDETerm(equation, motion, inputs)


def _fineness(clock: Clock) -> float:
    """Length of the pieces below which a motion may be smooth; one for most spans: so it is the same motion for all."""
    spans = (clock.end - clock.t0).detach().abs()
    shortest = float(torch.where(spans > 0, spans, 1.0).amin()) if spans.numel() else 1.0
    return _TOL if shortest >= _SHORT else _TOL * 2.0 ** math.floor(math.log2(shortest))


def method_for(term: Term, solver: Solver | None) -> Solver:
    """The method as it is applied to the term: a Runge-Kutta method steps a stochastic equation along chords.

    Args:
        term: the equation.
        solver: the method; None for the usual one of a stochastic equation's calculus and noise, or `Tsit5`.

    Raises:
        ValueError: the method does not solve equations of this calculus or noise.

    Example:
        >>> from ctdyn.solvers import Heun
        >>> from ctdyn.terms import ODETerm
        >>> method_for(ODETerm(lambda t, y: -y), Heun())
        Heun()
    """
    if not isinstance(term, SDETerm):
        return Tsit5() if solver is None else solver
    if solver is None:
        usual = EulerMaruyama() if term.calculus is Calculus.ITO else Heun()
        solver = SRA1() if term.noise is Noise.ADDITIVE else usual
    name, noise, calculus = type(solver).__name__, term.noise, term.calculus
    if solver.calculus is None:
        raise ValueError(
            f"{name} solves ordinary equations only. For this stochastic one take {_cure(noise, calculus)}."
        )
    if noise is not Noise.ADDITIVE and solver.calculus is not calculus:
        raise ValueError(
            f"{name} solves {solver.calculus.value} equations and the field is declared {calculus.value}: the answer "
            f"would be that of another equation. Take {_cure(noise, calculus)}, or convert the drift: "
            "f_Ito = f_Stratonovich + (dg/dy) g / 2."
        )
    if noise not in solver.noises:
        able = ", ".join(sorted(kind.value for kind in solver.noises))
        raise ValueError(
            f"{name} solves equations with {able} noise, and the field is declared {noise.value}. Take "
            f"{_cure(noise, calculus)}."
        )
    return OnChords(solver) if solver.interpolates else solver


def _cure(noise: Noise, calculus: Calculus) -> str:
    if noise is Noise.ADDITIVE:
        return "SRA1() or EulerMaruyama()"
    if calculus is Calculus.STRATONOVICH:
        return "Heun(), Midpoint() or ReversibleHeun()"
    return "EulerMaruyama()" if noise is Noise.GENERAL else "EulerMaruyama(), Milstein() or SRI1()"


def check_steps(term: Term, solver: Solver, controller: StepController, clock: Clock) -> None:
    """Whether these steps are valid for a stochastic equation.

    Raises:
        ValueError: an Ito equation runs backward, adaptive steps lack what makes them valid, or steps are so short
            that the Brownian motion is smooth within them.

    Example:
        >>> from ctdyn.terms import ODETerm
        >>> clock = Clock.create(torch.tensor([0.0, 1.0]), None, torch.Size([]), torch.float64)
        >>> check_steps(ODETerm(lambda t, y: -y), Heun(), ConstantStep(0.1), clock)
    """
    if not isinstance(term, SDETerm):
        return
    fixed = "controller=ConstantStep(dt=step_size) or controller=StepTo(num_steps=...)"
    backward = bool((clock.direction < 0).any())
    if backward and term.calculus is Calculus.ITO and term.noise is not Noise.ADDITIVE:
        raise ValueError(
            "ts runs backward, where an Ito integral is another integral. Solve forward in time (dt > 0), or declare "
            "the field in the Stratonovich sense, f_Stratonovich = f_Ito - (dg/dy) g / 2."
        )
    _check_fineness(term.brownian, controller)
    if not isinstance(controller, AdaptiveController):
        return
    if term.noise is Noise.GENERAL:
        raise ValueError(
            "adaptive steps are wrong for general noise: where the Brownian motions do not commute, a step that was "
            f"chosen by their values biases the answer. Pass {fixed}."
        )
    if not solver.adaptive:
        raise ValueError(
            f"the error estimate of {solver!r} is for smooth equations: it does not see how rough the noise is. Take "
            f"{'Heun()' if term.calculus is Calculus.STRATONOVICH else 'SRI1()'}, or pass {fixed}."
        )
    if isinstance(term.brownian, StoredBrownian):
        raise ValueError(
            "adaptive steps look at a Brownian motion at any scale; give the term a VirtualBrownianTree instead of a "
            f"StoredBrownian, or pass {fixed}."
        )
    if isinstance(controller, PIDController) and controller.dt0 is None:
        raise ValueError(
            "the first step of a stochastic equation cannot be read from its field: give it, PIDController(dt0=...), "
            f"or pass {fixed}."
        )


def _check_fineness(motion: Brownian, controller: StepController) -> None:
    """Below its pieces a virtual tree is smooth: increments there are far too small."""
    if not isinstance(motion, VirtualBrownianTree):
        return
    length = controller.dt if isinstance(controller, ConstantStep) else None
    length = controller.dt0 if isinstance(controller, PIDController) else length
    if length is not None and length < _PIECES * motion.tol:
        raise ValueError(
            f"steps of {length:.3g} are too short for this Brownian motion, which is smooth on pieces of "
            f"{motion.tol:.3g}: give it a finer tol, VirtualBrownianTree.draw(..., tol={length / 1024:.1e}), or scale "
            "the time."
        )
