"""Fields as the log-ODE method sees them: with the brackets that areas of the control move the state along."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .._checks import check_count, check_instance
from .._config import Configurable
from .._types import State, Time
from ..structure import CDEField


__all__ = ["LogODEField"]


class LogODEField(CDEField, Configurable):
    r"""A controlled field for the log-signature of its control: what neural rough and Log-NCDE models are made of.

    .. math:: dy = \sum_i f_i(y)\,dL_i + \sum_{i < j} [f_i, f_j](y)\,dL_{ij}, \qquad
              [f_i, f_j] = (\partial_y f_j) f_i - (\partial_y f_i) f_j

    :math:`f_i` are the columns of the field's matrix. Drive it by a `LogSignaturePath` of depth 2 over the same
    control: a step then covers a whole window, and still feels the areas that the control encloses within it. The
    brackets are computed by forward differentiation, one direction per channel, never as matrices; the field must be
    twice differentiable (a smooth activation).

    Args:
        field: the field :math:`F = (f_1, f_2, \dots)`; its matrix must not depend on time.
        control_size: channels of the field's own control.

    Raises:
        TypeError: `field` is no controlled one.
        ValueError: there is no channel; or, when solving, the control has another number of them.

    References:
        Log Neural Controlled Differential Equations: The Lie Brackets Make a Difference, B. Walker, A. D. McLeod,
        T. Qin, Y. Cheng, H. Li, T. Lyons, 2024, https://arxiv.org/abs/2402.18512
        Neural Rough Differential Equations for Long Time Series, J. Morrill, C. Salvi, P. Kidger, J. Foster, T. Lyons,
        2021, https://arxiv.org/abs/2009.08295

    Example:
        >>> from ctdyn.fields import MLPCDEField
        >>> from ctdyn.paths import log_signature_size
        >>> field = LogODEField(MLPCDEField(4, 3), control_size=3)
        >>> field(torch.zeros(5), torch.zeros(5, 4)).shape, log_signature_size(3, 2)
        (torch.Size([5, 4, 6]), 6)
    """

    def __init__(self, field: CDEField, control_size: int) -> None:
        super().__init__()
        check_instance("field", field, CDEField, "MLPCDEField(4, 3)")
        check_count("control_size", control_size)
        self.field = field
        self.control_size = control_size
        self.pairs = tuple(zip(*torch.triu_indices(control_size, control_size, 1).tolist(), strict=True))

    def forward(self, t: Time, y: State) -> Tensor:
        """The matrix at `y`, the columns in the order of the Lyndon words; `t` and `y` as in `CDEField`."""
        matrix, derivatives = self._along(t, y, lambda matrix: matrix.movedim(-1, 0))
        # derivatives[i, ..., j] is the derivative of f_j along f_i.
        brackets = [derivatives[i, ..., j] - derivatives[j, ..., i] for i, j in self.pairs]
        return torch.cat([matrix, torch.stack(brackets, -1)], -1) if brackets else matrix

    def prod(self, t: Time, y: State, dx: Tensor) -> State:
        """The matrix applied to a change of the log-signature, by one derivative of each column."""
        if dx.shape[-1] != self.control_size + len(self.pairs):
            raise ValueError(
                f"this LogODEField has control_size={self.control_size} and is driven by log-signatures of depth 2, of "
                f"{self.control_size + len(self.pairs)} channels; got changes of {dx.shape[-1]}. Drive it by a "
                "LogSignaturePath over the field's own control (depth=2), or build it for another control_size."
            )
        first, areas = dx[..., : self.control_size], dx[..., self.control_size :]
        if not self.pairs:
            return self.field.prod(t, y, first)
        rows, columns = (list(index) for index in zip(*self.pairs, strict=True))
        turned = dx.new_zeros(*areas.shape[:-1], self.control_size, self.control_size)
        turned[..., rows, columns] = areas
        turned = turned - turned.mT
        # The bracket terms add up to the derivative of every column along a mixture of all columns.
        matrix, derivatives = self._along(t, y, lambda matrix: (matrix @ turned).movedim(-1, 0))
        along = derivatives.diagonal(dim1=0, dim2=-1).sum(-1)
        return (matrix @ first.unsqueeze(-1)).squeeze(-1) + along

    def _along(self, t: Time, y: State, directions: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """The field's matrix, and its derivative along each of some directions made of it."""
        matrix = self.field(t, y)
        tangents = directions(matrix)

        def derivative(tangent: Tensor) -> Tensor:
            return torch.func.jvp(lambda state: self.field(t, state), (y,), (tangent,))[1]

        return matrix, torch.func.vmap(derivative)(tangents)
