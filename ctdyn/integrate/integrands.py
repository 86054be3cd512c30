"""What is integrated along a solution, for the `aux` of `solve`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .._types import Inputs, State, Time
from ..structure import Noise, SDEField, VectorField


__all__ = ["Divergence", "JacobianNorm", "KineticEnergy", "PathKL"]


class KineticEnergy(nn.Module):
    r"""Half the squared speed; its integral is small for flows that take short, straight paths.

    .. math:: q(t, y) = \tfrac12 \lVert f(t, y, u) \rVert^2

    Args:
        field: the field.

    Reference:
        How to train your neural ODE: the world of Jacobian and kinetic regularization, C. Finlay, J.-H. Jacobsen,
        L. Nurbekyan, A. Oberman, 2020, https://arxiv.org/abs/2002.02798

    Example:
        >>> from ctdyn.fields import LinearField
        >>> KineticEnergy(LinearField(2, matrix=[[0.0, 1.0], [-1.0, 0.0]]))(torch.zeros(1), torch.tensor([[3.0, 4.0]]))
        tensor([12.5000], grad_fn=<MulBackward0>)
    """

    def __init__(self, field: VectorField) -> None:
        super().__init__()
        self.field = field

    def forward(self, t: Time, y: State, u: Inputs | None = None) -> Tensor:
        """The integrand, `(*batch,)`; arguments as in `VectorField`."""
        return 0.5 * self.field(t, y, u).square().sum(-1)


class Divergence(nn.Module):
    r"""How fast a flow spreads: its integral is the logarithm of the factor by which it changes volumes.

    .. math:: q(t, y) = \operatorname{tr} \frac{\partial f}{\partial y}, \qquad
              \log p(y(t_1)) = \log p(y(t_0)) - \int_{t_0}^{t_1} q\,dt

    Args:
        field: the field.
        probes: random vectors :math:`\epsilon` of unit covariance, `(probe, *batch, state)`, for the unbiased estimate
            :math:`\epsilon^\top \frac{\partial f}{\partial y} \epsilon`, one product each; None for the exact trace,
            one product per entry of the state. Draw them once per solve.

    Reference:
        FFJORD: Free-form continuous dynamics for scalable reversible generative models, W. Grathwohl, R. T. Q. Chen,
        J. Bettencourt, I. Sutskever, D. Duvenaud, 2018, https://arxiv.org/abs/1810.01367

    Example:
        >>> from ctdyn.fields import LinearField
        >>> Divergence(LinearField(2, matrix=[[-1.0, 5.0], [0.0, -2.0]]))(torch.zeros(1), torch.ones(1, 2)).detach()
        tensor([-3.])
    """

    def __init__(self, field: VectorField, probes: Tensor | None = None) -> None:
        super().__init__()
        self.field = field
        self.probes = probes

    def forward(self, t: Time, y: State, u: Inputs | None = None) -> Tensor:
        """The integrand, `(*batch,)`; arguments as in `VectorField`."""
        vectors, rows = _products(self.field, self.probes, t, y, u)
        total = (rows * vectors).sum(-1).sum(0)
        return total if self.probes is None else total / len(self.probes)


class JacobianNorm(nn.Module):
    r"""How much a field changes from place to place; where its integral is small, a solver takes few steps.

    .. math:: q(t, y) = \Big\lVert \frac{\partial f}{\partial y} \Big\rVert_F^2

    Args:
        field: the field.
        probes: random vectors :math:`\epsilon` of unit covariance, `(probe, *batch, state)`, for the unbiased estimate
            :math:`\lVert \epsilon^\top \frac{\partial f}{\partial y} \rVert^2`; None for the exact norm, one product
            per entry of the state. Draw them once per solve.

    Reference:
        How to train your neural ODE: the world of Jacobian and kinetic regularization, C. Finlay, J.-H. Jacobsen,
        L. Nurbekyan, A. Oberman, 2020, https://arxiv.org/abs/2002.02798

    Example:
        >>> from ctdyn.fields import LinearField
        >>> JacobianNorm(LinearField(2, matrix=[[-1.0, 5.0], [0.0, -2.0]]))(torch.zeros(1), torch.ones(1, 2)).detach()
        tensor([30.])
    """

    def __init__(self, field: VectorField, probes: Tensor | None = None) -> None:
        super().__init__()
        self.field = field
        self.probes = probes

    def forward(self, t: Time, y: State, u: Inputs | None = None) -> Tensor:
        """The integrand, `(*batch,)`; arguments as in `VectorField`."""
        _, rows = _products(self.field, self.probes, t, y, u)
        total = rows.square().sum(-1).sum(0)
        return total if self.probes is None else total / len(self.probes)


def _products(field: VectorField, probes: Tensor | None, t: Time, y: State, u: Inputs | None) -> tuple[Tensor, Tensor]:
    """Vectors, and their products with the Jacobian of the field, `(vector, *batch, state)`."""
    # A transform leaves nothing behind in the graph outside, as a leaf made here would.
    dy, product, *_ = torch.func.vjp(lambda y: field(t, y, u), y)
    vectors = torch.eye(y.shape[-1], dtype=y.dtype, device=y.device) if probes is None else probes.to(y.dtype)
    vectors = torch.stack([vector.expand_as(dy) for vector in vectors])
    return vectors, torch.stack([product(vector)[0] for vector in vectors])


class PathKL(nn.Module):
    r"""What a posterior drift costs: the rate of the divergence between two diffusions of one noise, in nats.

    .. math:: q(t, y) = \tfrac12 \lVert g^{-1} (f_q - f_p) \rVert^2, \qquad
              \mathrm{KL}(Q \,\|\, P) = \mathrm{KL}(q_0 \| p_0) + \mathbb{E}_Q \int q\,dt

    Args:
        posterior: the equation that is solved, with drift :math:`f_q` and diffusion :math:`g`.
        prior: the other one; only its drift :math:`f_p` is used, without inputs. Both must have the posterior's
            diffusion: for another one the divergence is infinite.

    Raises:
        ValueError: one Brownian motion for several entries, which no drift but its own direction can be charged to.

    Reference:
        Scalable gradients for stochastic differential equations, X. Li, T.-K. L. Wong, R. T. Q. Chen, D. Duvenaud,
        2020, https://arxiv.org/abs/2001.01328

    Example:
        >>> from ctdyn.structure import Calculus
        >>> class Walk(SDEField):
        ...     noise, calculus = Noise.ADDITIVE, Calculus.ITO
        ...     def __init__(self, drift):
        ...         super().__init__()
        ...         self.value = drift
        ...     def drift(self, t, y, u=None):
        ...         return torch.full_like(y, self.value)
        ...     def diffusion(self, t, y, u=None):
        ...         return torch.full_like(y, 0.5)
        >>> PathKL(Walk(1.0), Walk(0.0))(torch.zeros(1), torch.zeros(1, 3))
        tensor([6.])
    """

    def __init__(self, posterior: SDEField, prior: SDEField) -> None:
        super().__init__()
        self.posterior = posterior
        self.prior = prior

    def forward(self, t: Time, y: State, u: Inputs | None = None) -> Tensor:
        """The integrand, `(*batch,)`; arguments as in `SDEField`."""
        gap = self.posterior.drift(t, y, u) - self.prior.drift(t, y)
        diffusion = self.posterior.diffusion(t, y, u)
        if diffusion.dim() > y.dim():
            cost = (torch.linalg.pinv(diffusion) @ gap.unsqueeze(-1)).squeeze(-1)
        elif self.posterior.noise is Noise.SCALAR and y.shape[-1] > 1:
            raise ValueError(
                "PathKL needs a noise that reaches every entry of the state; this field has Noise.SCALAR, one Brownian "
                f"motion for {y.shape[-1]} entries."
            )
        else:
            cost = gap / diffusion
        return 0.5 * cost.square().sum(-1)
