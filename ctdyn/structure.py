"""What a field can be: the contracts that a solver may rely on. Implementations live in `ctdyn.fields`.

A solver knows these classes and never a concrete field.
"""

from abc import ABC, abstractmethod
from enum import Enum

from torch import Tensor, nn

from ._types import Inputs, State, Time


__all__ = ["Calculus", "Noise", "SDEField", "VectorField"]


class VectorField(nn.Module, ABC):
    r"""The right-hand side of an ordinary differential equation; subclass it to bring your own dynamics.

    .. math:: \frac{dy}{dt} = f(t, y, u(t))

    Series never mix: entry :math:`b` of the result depends on entry :math:`b` of the arguments alone. Any number of
    leading axes (Monte Carlo samples, for example) must be accepted.

    Example:
        >>> class Decay(VectorField):
        ...     def forward(self, t, y, u=None):
        ...         return -y
        >>> import torch
        >>> Decay()(torch.zeros(2), torch.ones(2, 3)).shape
        torch.Size([2, 3])
    """

    @abstractmethod
    def forward(self, t: Time, y: State, u: Inputs | None = None) -> State:
        """The velocity `dy/dt`.

        Args:
            t: time of each series, `(*batch,)`.
            y: state of each series, `(*batch, state)`.
            u: inputs or context at that time, `(*batch, input)`; None where nothing drives the field.

        Returns:
            The velocity, of the shape and dtype of `y`.
        """


class Calculus(Enum):
    r"""How a stochastic integral is meant: at the start of each small step, or in its middle.

    The same drift and diffusion are two different equations under the two readings; they agree for additive noise:

    .. math:: f\,dt + g \circ dW = \big(f + \tfrac12 (\partial_y g)\,g\big)\,dt + g\,dW

    Reference:
        B. Oksendal, Stochastic Differential Equations, 6th edition, 2003, section 3.3,
        https://doi.org/10.1007/978-3-642-14394-6

    Example:
        >>> Calculus.ITO.value
        'Ito'
    """

    ITO = "Ito"
    STRATONOVICH = "Stratonovich"


class Noise(Enum):
    """How Brownian motion enters an equation, which decides the shape that `SDEField.diffusion` returns.

    * `SCALAR`: one Brownian motion moves every entry of the state; `(*batch, state)`.
    * `DIAGONAL`: entry i has a Brownian motion of its own, and a diffusion that depends on entry i alone;
      `(*batch, state)`.
    * `ADDITIVE`: the diffusion does not depend on the state; `(*batch, state, brownian)`, or `(*batch, state)` where
      every entry has a Brownian motion of its own.
    * `GENERAL`: anything else; `(*batch, state, brownian)`.

    Example:
        >>> Noise.DIAGONAL.value
        'diagonal'
    """

    SCALAR = "scalar"
    DIAGONAL = "diagonal"
    ADDITIVE = "additive"
    GENERAL = "general"


class SDEField(nn.Module, ABC):
    r"""A stochastic differential equation; subclass it, and say in the class what `noise` and what `calculus` it has.

    .. math:: dy = f(t, y, u(t))\,dt + g(t, y, u(t))\,dW

    Series never mix, and any number of leading axes must be accepted, as for a `VectorField`.
    `ctdyn.testing.check_sde_field` finds a diffusion that is not what `noise` says.

    Example:
        >>> import torch
        >>> class Walk(SDEField):
        ...     noise, calculus = Noise.ADDITIVE, Calculus.ITO
        ...     def drift(self, t, y, u=None):
        ...         return -y
        ...     def diffusion(self, t, y, u=None):
        ...         return torch.full_like(y, 0.5)
        >>> Walk().diffusion(torch.zeros(2), torch.ones(2, 3)).shape
        torch.Size([2, 3])
    """

    noise: Noise
    """How Brownian motion enters."""

    calculus: Calculus
    """How the stochastic integral is meant."""

    @abstractmethod
    def drift(self, t: Time, y: State, u: Inputs | None = None) -> State:
        """What moves the state in the mean, `f`.

        Args:
            t: time of each series, `(*batch,)`.
            y: state of each series, `(*batch, state)`.
            u: inputs or context at that time, `(*batch, input)`; None where nothing drives the field.

        Returns:
            The drift, of the shape and dtype of `y`.
        """

    @abstractmethod
    def diffusion(self, t: Time, y: State, u: Inputs | None = None) -> Tensor:
        """What Brownian motion is multiplied by, `g`, in units of the state per square root of time.

        Args:
            t: time of each series, `(*batch,)`.
            y: state of each series, `(*batch, state)`.
            u: inputs or context at that time, `(*batch, input)`; None where nothing drives the field.

        Returns:
            `(*batch, state)` or `(*batch, state, brownian)`, as `noise` says.
        """
