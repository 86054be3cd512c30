"""What a field can be: the contracts that a solver may rely on. Implementations live in `ctdyn.fields`.

A solver knows these classes and never a concrete field.
"""

from abc import ABC, abstractmethod

from torch import nn

from ._types import Inputs, State, Time


__all__ = ["VectorField"]


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
