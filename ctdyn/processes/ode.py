"""The process of the latent ODE."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from .._types import Time, Times
from ..encoders import Encoding
from ..integrate import Adjoint, StepController, explain, solve
from ..nn import rsample
from ..paths import Path
from ..solvers import Solver
from ..structure import Explained, VectorField
from ._grid import own_grid, take_rows
from ._initial import closed_form_kl, kl_by_dimension
from .base import LatentProcess, LatentSample


__all__ = ["ODEProcess"]


class ODEProcess(LatentProcess, Explained):
    r"""A random initial state that follows an ordinary differential equation.

    .. math:: z_{t_0} \sim p(z), \qquad \frac{dz}{dt} = f(t, z, u(t))

    The posterior replaces :math:`p(z)` by the encoder's `q0`. Times before `t0` are reached by solving backwards.

    Args:
        field: the dynamics.
        latent_size: size of the latent state.
        learned_prior: whether the mean and width of the diagonal normal prior are learned; the standard normal if not.
        solver: the method; default: that of `solve`.
        controller: the step control; default: that of `solve`.
        adjoint: how gradients are computed; default: that of `solve`.

    References:
        Neural Ordinary Differential Equations, Chen, Rubanova, Bettencourt, Duvenaud, 2018.
        https://arxiv.org/abs/1806.07366

    Example:
        >>> from ctdyn.fields import MLPField
        >>> process = ODEProcess(MLPField(4), latent_size=4)
        >>> process.prior(torch.zeros(3), torch.rand(3, 5), num_samples=2).zs.shape
        torch.Size([2, 3, 5, 4])
    """

    requires = frozenset({"q0"})

    def __init__(
        self,
        field: VectorField,
        latent_size: int,
        *,
        learned_prior: bool = False,
        solver: Solver | None = None,
        controller: StepController | None = None,
        adjoint: Adjoint | None = None,
    ) -> None:
        super().__init__(latent_size)
        self.field = field
        self.solver = solver
        self.controller = controller
        self.adjoint = adjoint
        self.prior_mean = nn.Parameter(torch.zeros(latent_size), requires_grad=learned_prior)
        self.prior_log_std = nn.Parameter(torch.zeros(latent_size), requires_grad=learned_prior)

    @property
    def p0(self) -> Distribution:
        """The prior of the initial state, of event shape `(latent,)`."""
        return Independent(Normal(self.prior_mean, self.prior_log_std.exp(), validate_args=False), 1)

    def posterior(
        self,
        encoding: Encoding,
        t0: Time,
        ts: Times,
        num_samples: int = 1,
        generator: Generator | None = None,
        inputs: Path | None = None,
    ) -> LatentSample:
        """See `LatentProcess.posterior`."""
        if encoding.q0 is None:
            raise ValueError(
                "ODEProcess needs an encoding with q0; use an encoder that provides it, such as GRUEncoder."
            )
        q0, p0 = encoding.q0, self.p0
        z0 = rsample(q0, (num_samples,), generator=generator)
        kl = closed_form_kl(q0, p0)
        return LatentSample(
            zs=self._trajectories(z0, t0, ts, inputs),
            log_terms={"z0": p0.log_prob(z0) - q0.log_prob(z0)},
            kl={} if kl is None else {"z0": kl},
            kl_by_dimension=kl_by_dimension(q0, p0),
        )

    def prior(
        self,
        t0: Time,
        ts: Times,
        num_samples: int = 1,
        generator: Generator | None = None,
        inputs: Path | None = None,
    ) -> LatentSample:
        """See `LatentProcess.prior`."""
        z0 = rsample(self.p0, (num_samples, *t0.shape), generator=generator)
        return LatentSample(zs=self._trajectories(z0, t0, ts, inputs))

    def explain(self) -> str:
        """See `Explained.explain`."""
        return explain(self.field, solver=self.solver, controller=self.controller, adjoint=self.adjoint)

    def _trajectories(self, z0: Tensor, t0: Time, ts: Times, inputs: Path | None) -> Tensor:
        """States at `ts` from those at `t0`: forwards in time, and backwards where a time lies before `t0`."""
        later, index = own_grid(t0, ts)
        zs = take_rows(self._solve(z0, later, inputs), index)
        before = ts < t0.unsqueeze(-1)
        if not bool(before.any()):
            return zs
        earlier, index = own_grid(-t0, -ts)
        backwards = take_rows(self._solve(z0, -earlier, inputs), index)
        return torch.where(before.unsqueeze(-1), backwards, zs)

    def _solve(self, z0: Tensor, ts: Times, inputs: Path | None) -> Tensor:
        if ts.shape[-1] == 1:
            return z0.unsqueeze(-2)
        return solve(
            self.field, z0, ts, inputs=inputs, solver=self.solver, controller=self.controller, adjoint=self.adjoint
        ).ys
