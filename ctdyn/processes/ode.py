"""The process of the latent ODE."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor, nn

from .._checks import shown
from .._types import Time, Times
from ..encoders import Encoding
from ..integrate import Adjoint, Engine, StepController, explain, solve
from ..nn import rsample, take_items
from ..paths import Path
from ..solvers import Solver
from ..structure import CDEField, Explained, VectorField
from ._grid import own_grid
from ._initial import NormalStart, Start
from .base import IntegratingProcess, LatentSample, check_state_size


__all__ = ["ODEProcess"]


class ODEProcess(NormalStart, IntegratingProcess, Explained):
    r"""A random initial state that follows an ordinary differential equation.

    .. math:: z_{t_0} \sim p(z), \qquad \frac{dz}{dt} = f(t, z, u(t))

    The posterior replaces :math:`p(z)` by the encoder's `q0`. Times before `t0` are reached by solving backwards.

    Args:
        field: the dynamics; a `CDEField` is driven by the inputs.
        latent_size: size of the latent state.
        learned_prior: whether the mean and width of the diagonal normal prior are learned; the standard normal if not.
        solver: the method, or an engine; default: that of `solve`.
        controller: the step control; default: that of `solve`.
        adjoint: how gradients are computed; default: that of `solve`.

    Raises:
        TypeError: `field` is no field of an ordinary or controlled equation.
        ValueError: `field` has another `state_size` than `latent_size`.

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
        field: VectorField | CDEField,
        latent_size: int,
        *,
        learned_prior: bool = False,
        solver: Solver | Engine | None = None,
        controller: StepController | None = None,
        adjoint: Adjoint | None = None,
    ) -> None:
        if not isinstance(field, VectorField | CDEField):
            raise TypeError(
                f"ODEProcess needs a VectorField, or a CDEField and inputs that drive it; got {shown(field)}. "
                "SDEProcess takes an SDEField, LinearGaussianProcess linear dynamics."
            )
        check_state_size(field, latent_size)
        super().__init__(latent_size)
        self.sizes = {"q0": latent_size}
        self.field = field
        self.solver = solver
        self.controller = controller
        self.adjoint = adjoint
        self._begin(latent_size, learned=learned_prior)

    def posterior(
        self,
        encoding: Encoding,
        t0: Time,
        ts: Times,
        num_samples: int = 1,
        generator: Generator | None = None,
        inputs: Path | None = None,
        integrands: Sequence[Callable[[Tensor, Tensor], Tensor]] = (),
    ) -> LatentSample:
        """See `IntegratingProcess.posterior`."""
        if encoding.q0 is None:
            raise ValueError(
                "ODEProcess needs an encoding with q0; use an encoder that provides it, such as GRUEncoder."
            )
        z0 = rsample(encoding.q0, (num_samples,), generator=generator)
        start = Start.priced(z0, encoding.q0, self.p0)
        aux = tuple(_Along(integrand) for integrand in integrands)
        zs, integrals = self._trajectories(z0, t0, ts, inputs, aux)
        return LatentSample(
            zs=zs,
            log_terms={"z0": start.log_ratio},
            kl=start.kl,
            kl_by_dimension=start.kl_by_dimension,
            integrals=tuple(integrals.split([along.width for along in aux], -1)) if aux else (),
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
        return LatentSample(zs=self._trajectories(z0, t0, ts, inputs)[0])

    def explain(self) -> str:
        """See `Explained.explain`."""
        return explain(self.field, solver=self.solver, controller=self.controller, adjoint=self.adjoint)

    def _trajectories(
        self, z0: Tensor, t0: Time, ts: Times, inputs: Path | None, aux: tuple[_Along, ...] = ()
    ) -> tuple[Tensor, Tensor]:
        """States at `ts` from those at `t0`, and integrals: forwards in time, and backwards before `t0`."""
        later, index = own_grid(t0, ts)
        forwards = [take_items(x, index, -2) for x in self._solve(z0, later, inputs, aux)]
        before = ts < t0.unsqueeze(-1)
        if not bool(before.any()):
            return forwards[0], forwards[1]
        earlier, index = own_grid(-t0, -ts)
        backwards = [take_items(x, index, -2) for x in self._solve(z0, -earlier, inputs, aux)]
        zs, integrals = (torch.where(before.unsqueeze(-1), *pair) for pair in zip(backwards, forwards, strict=True))
        return zs, integrals

    def _solve(self, z0: Tensor, ts: Times, inputs: Path | None, aux: tuple[_Along, ...]) -> tuple[Tensor, Tensor]:
        if ts.shape[-1] == 1:
            for along in aux:
                along(ts[..., 0].to(z0.dtype), z0)
            return z0.unsqueeze(-2), z0.new_zeros(*z0.shape[:-1], 1, sum(along.width for along in aux))
        solution = solve(
            self.field,
            z0,
            ts,
            inputs=inputs,
            solver=self.solver,
            controller=self.controller,
            adjoint=self.adjoint,
            aux=aux,
        )
        return solution.ys, solution.ys[..., :0] if solution.aux is None else solution.aux


class _Along(nn.Module):
    """An integrand as `solve` wants it, which remembers how many numbers it gave."""

    def __init__(self, integrand: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.integrand = integrand
        self.width = 0

    def forward(self, t: Tensor, y: Tensor, u: Tensor | None = None) -> Tensor:
        value = self.integrand(t, y)
        self.width = value.shape[-1]
        return value
