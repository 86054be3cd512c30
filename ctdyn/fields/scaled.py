"""A field in slow motion."""

from __future__ import annotations

from .._checks import check_instance
from .._config import Configurable
from .._types import Inputs, State, Time
from .base import VectorField


__all__ = ["Scaled"]


class Scaled(VectorField, Configurable):
    r"""A field at a fraction of its speed: with the length of the series as `span`, a freshly built one moves little.

    .. math:: \frac{dy}{dt} = \frac{1}{T} f(t, y, u)

    It is the continuous form of residual blocks that are divided by their number, which keeps training from making them
    rough in depth.

    Args:
        field: the field.
        span: the time T in which the scaled field moves as far as the field does in one unit.

    Raises:
        TypeError: `field` is no ordinary one.
        ValueError: `span` is not positive.

    Reference:
        Implicit regularization of deep residual networks towards neural ODEs, P. Marion, Y.-H. Wu, M. E. Sander,
        G. Biau, 2023, https://arxiv.org/abs/2309.01213

    Example:
        >>> import torch
        >>> from ctdyn.fields import LinearField
        >>> Scaled(LinearField(1, matrix=[[-1.0]]), span=10.0)(torch.zeros(1), torch.ones(1, 1)).detach()
        tensor([[-0.1000]])
    """

    def __init__(self, field: VectorField, span: float) -> None:
        super().__init__()
        check_instance("field", field, VectorField, "MLPField(4)")
        if not 0 < span < float("inf"):
            raise ValueError(f"span must be positive and finite, in units of time; got {span}.")
        self.field = field
        self.span = span

    def forward(self, t: Time, y: State, u: Inputs | None = None) -> State:
        """The velocity at `y`; `t`, `y` and `u` as in `VectorField`."""
        return self.field(t, y, u) / self.span
