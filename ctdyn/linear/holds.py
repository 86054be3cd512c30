"""What an input, known at the ends of a step, does in between."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor


__all__ = ["HeldAfter", "HeldBefore", "Hold", "Impulse", "Ramp"]


@dataclass(frozen=True)
class Hold(ABC):
    r"""How an input :math:`u_k`, known at the times of a series, acts between two of them.

    .. math:: y_1 = e^{A\,dt} y_0 + G_0 B u_0 + G_1 B u_1

    A hold is made of two integrals: the `level`, what an input of 1 over the step adds, and the `ramp`, what an input
    adds that rises from 0 to 1. Subclass it to bring another one.

    Example:
        >>> [hold.causal for hold in (HeldBefore(), Impulse(), HeldAfter(), Ramp())]
        [True, True, False, False]
    """

    #: Whether the state at a time depends on inputs up to that time alone, at every time between the knots too.
    causal: ClassVar[bool]
    #: Which integrals it needs: 0 none, 1 the level, 2 the ramp too.
    order: ClassVar[int]

    @abstractmethod
    def weights(self, one: Tensor, level: Tensor | None, ramp: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """The weights of the inputs at the start and at the end of a step; None where an input does not act.

        Args:
            one: the weight of an input that is added as it is.
            level: weight of an input of 1 over the step, if `order` is at least 1.
            ramp: weight of an input that rises from 0 to 1, if `order` is 2.
        """

    @abstractmethod
    def inside(self, u0: Tensor, u1: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        """The inputs at both ends of the first part of a step, of which `share` in [0, 1] has passed, `(*batch, 1)`."""


class HeldBefore(Hold):
    r"""The input holds its last known value until the next: the causal choice, and the default.

    .. math:: u(t) = u_0, \qquad G_0 = dt\,\varphi_1(A\,dt), \quad G_1 = 0

    Example:
        >>> from ctdyn.linear import Diagonal
        >>> import torch
        >>> dynamics = Diagonal(torch.tensor([-1.0]), B=torch.ones(1, 1))
        >>> dynamics.scan(torch.tensor([0.0, 50.0]), torch.tensor([[3.0], [9.0]]), hold=HeldBefore()).flatten()
        tensor([0., 3.], grad_fn=<ViewBackward0>)
    """

    causal = True
    order = 1

    def weights(self, one: Tensor, level: Tensor | None, ramp: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """As in `Hold`."""
        return level, None

    def inside(self, u0: Tensor, u1: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        """As in `Hold`."""
        return u0, u0


class HeldAfter(Hold):
    r"""The input holds, over the step before a time, the value known at that time; S5 does this on irregular times.

    .. math:: u(t) = u_1, \qquad G_0 = 0, \quad G_1 = dt\,\varphi_1(A\,dt)

    Between the times it uses a value that is not known yet: not for forecasting.

    Reference:
        Simplified State Space Layers for Sequence Modeling, J. T. H. Smith, A. Warrington, S. W. Linderman, 2023,
        https://arxiv.org/abs/2208.04933

    Example:
        >>> from ctdyn.linear import Diagonal
        >>> import torch
        >>> dynamics = Diagonal(torch.tensor([-1.0]), B=torch.ones(1, 1))
        >>> dynamics.scan(torch.tensor([0.0, 50.0]), torch.tensor([[3.0], [9.0]]), hold=HeldAfter()).flatten()
        tensor([0., 9.], grad_fn=<ViewBackward0>)
    """

    causal = False
    order = 1

    def weights(self, one: Tensor, level: Tensor | None, ramp: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """As in `Hold`."""
        return None, level

    def inside(self, u0: Tensor, u1: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        """As in `Hold`."""
        return u1, u1


class Impulse(Hold):
    r"""The input is a kick at its time and nothing in between: for events, and for observations that correct a state.

    .. math:: u(t) = u_1\,\delta(t - t_1), \qquad G_0 = 0, \quad G_1 = 1

    Example:
        >>> from ctdyn.linear import Diagonal
        >>> import torch
        >>> dynamics = Diagonal(torch.tensor([-1.0]), B=torch.ones(1, 1))
        >>> dynamics.scan(torch.tensor([0.0, 50.0]), torch.tensor([[3.0], [9.0]]), hold=Impulse()).flatten()
        tensor([3., 9.], grad_fn=<ViewBackward0>)
    """

    causal = True
    order = 0

    def weights(self, one: Tensor, level: Tensor | None, ramp: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """As in `Hold`."""
        return None, one

    def inside(self, u0: Tensor, u1: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        """As in `Hold`."""
        return u0 * 0, u0 * 0


class Ramp(Hold):
    r"""The input is linear between its values (a first-order hold): exact for interpolated measurements.

    .. math:: u(t) = u_0 + \frac{t - t_0}{dt}(u_1 - u_0), \qquad G_1 = dt\,\varphi_2(A\,dt), \quad
        G_0 = dt\,(\varphi_1 - \varphi_2)(A\,dt)

    Between the times it uses a value that is not known yet: not for forecasting.

    Example:
        >>> from ctdyn.linear import Diagonal
        >>> import torch
        >>> dynamics = Diagonal(torch.tensor([0.0]), B=torch.ones(1, 1))
        >>> dynamics.scan(torch.tensor([0.0, 2.0]), torch.tensor([[3.0], [9.0]]), hold=Ramp()).flatten()
        tensor([ 0., 12.], grad_fn=<ViewBackward0>)
    """

    causal = False
    order = 2

    def weights(self, one: Tensor, level: Tensor | None, ramp: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """As in `Hold`."""
        assert level is not None
        assert ramp is not None
        return level - ramp, ramp

    def inside(self, u0: Tensor, u1: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        """As in `Hold`."""
        return u0, u0 + share * (u1 - u0)
