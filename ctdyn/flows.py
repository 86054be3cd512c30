"""Probability densities that a field carries along."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor, nn

from ._checks import check_count
from ._config import Configurable
from .integrate import Adjoint, Divergence, StepController, solve
from .paths import Path
from .solvers import Solver
from .structure import VectorField


__all__ = ["ContinuousNormalizingFlow"]


class ContinuousNormalizingFlow(nn.Module, Configurable):
    r"""A density that begins as a standard normal one and is carried along a field for one unit of time.

    .. math:: \frac{dx}{dt} = f(t, x, u), \quad x(0) \sim N(0, I), \qquad
              \log p(x(1)) = \log N(x(0); 0, I) - \int_0^1 \operatorname{tr} \frac{\partial f}{\partial x}\,dt

    The field may be any ordinary one; its inputs are the condition of a conditional density. The trace is an integral
    beside the state, unseen by the step control.

    Args:
        field: the field.
        state_size: size of what is distributed.
        solver: the method; None for the usual one of the field.
        controller: the steps; None for the usual ones.
        adjoint: how gradients are computed; None for `Direct()`.

    Raises:
        ValueError: `state_size` is below 1, or what is asked for has another size.

    Reference:
        FFJORD: Free-form continuous dynamics for scalable reversible generative models, W. Grathwohl, R. T. Q. Chen,
        J. Bettencourt, I. Sutskever, D. Duvenaud, 2018, https://arxiv.org/abs/1810.01367

    Example:
        >>> from ctdyn.fields import ConcatSquashTime, MLPField
        >>> flow = ContinuousNormalizingFlow(MLPField(2, layer=ConcatSquashTime), 2)
        >>> x = flow.sample(5, generator=torch.Generator().manual_seed(0))
        >>> x.shape, flow.log_prob(x).shape
        (torch.Size([5, 2]), torch.Size([5]))
    """

    def __init__(
        self,
        field: VectorField,
        state_size: int,
        *,
        solver: Solver | None = None,
        controller: StepController | None = None,
        adjoint: Adjoint | None = None,
    ) -> None:
        super().__init__()
        check_count("state_size", state_size)
        self.field = field
        self.state_size = state_size
        self.solver, self.controller, self.adjoint = solver, controller, adjoint

    def log_prob(self, x: Tensor, *, probes: Tensor | None = None, inputs: Path | None = None) -> Tensor:
        """The log density, in nats, exact or by an unbiased estimate.

        Args:
            x: where, `(*batch, state)`.
            probes: vectors of unit covariance, `(probe, *batch, state)`, with which the trace is estimated at the cost
                of one product each (`rademacher` draws them); None for the exact trace, one product per entry. They are
                an argument and not a state of the module: densities of several batches may be differentiated together.
            inputs: what drives the field, on a clock from 0 to 1.

        Returns:
            `(*batch,)`.
        """
        if x.shape[-1] != self.state_size:
            raise ValueError(f"this flow has state_size={self.state_size}; got x (*batch, state) of {tuple(x.shape)}.")
        if probes is not None and probes.shape[1:] != x.shape:
            raise ValueError(
                f"probes must be (probe, *batch, state), here (probe, {', '.join(map(str, x.shape))}); got "
                f"{tuple(probes.shape)}. Draw them by ContinuousNormalizingFlow.rademacher(x, count)."
            )
        backwards = torch.tensor([1.0, 0.0], dtype=torch.float64, device=x.device)
        solution = solve(
            self.field,
            x,
            backwards,
            inputs=inputs,
            solver=self.solver,
            controller=self.controller,
            adjoint=self.adjoint,
            aux=Divergence(self.field, probes),
        )
        assert solution.aux is not None
        z, spread = solution.ys[..., -1, :], solution.aux[..., -1, 0]
        normal = -0.5 * (z.square().sum(-1) + self.state_size * math.log(2 * math.pi))
        return normal + spread

    def sample(
        self,
        *shape: int,
        generator: Generator | None = None,
        inputs: Path | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Draws, with gradients to the field, `(*shape, state)`.

        Args:
            *shape: how many; with inputs, the batch axes of those.
            generator: the source of randomness.
            inputs: what drives the field, on a clock from 0 to 1.
            dtype: of the draws; None for that of the parameters.
        """
        like = next(self.parameters(), torch.empty(()))
        # Draws of a generator are made where it lives.
        place = like.device if generator is None else generator.device
        z = torch.randn(*shape, self.state_size, generator=generator, dtype=dtype or like.dtype, device=place)
        forwards = torch.tensor([0.0, 1.0], dtype=torch.float64, device=like.device)
        solution = solve(
            self.field,
            z.to(like.device),
            forwards,
            inputs=inputs,
            solver=self.solver,
            controller=self.controller,
            adjoint=self.adjoint,
        )
        return solution.ys[..., -1, :]

    @staticmethod
    def rademacher(x: Tensor, count: int = 1, *, generator: Generator | None = None) -> Tensor:
        """Probes of random signs, `(count, *batch, state)`: among all, those whose estimate varies least.

        Args:
            x: a tensor of the shape, dtype and device of the states.
            count: how many.
            generator: the source of randomness.
        """
        place = x.device if generator is None else generator.device
        bits = torch.randint(0, 2, (count, *x.shape), generator=generator, device=place)
        return (2 * bits - 1).to(x.device, x.dtype)
