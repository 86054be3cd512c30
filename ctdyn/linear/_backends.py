"""What a scan backend must do, on arrays of one canonical layout."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor


__all__ = ["ScanBackend", "Steps", "ZohGradients"]


@dataclass(frozen=True)
class Steps:
    """The coefficients of a fused scan in canonical layout; they are made where they are used and never stored.

    Args:
        lam: eigenvalues, `(1 | row, state)`.
        dt: time steps, `(1 | row, 1 | time)`, real.
        reset: True where the state is cleared before the step, `(1 | row, time)`; None for nowhere.
        impulse: the input is added as it is; False: it is held over the step.
        reverse: the recurrence runs from the last time to the first.

    Example:
        >>> import torch
        >>> Steps(torch.zeros(1, 2), torch.ones(1, 3), None, impulse=False, reverse=False).impulse
        False
    """

    lam: Tensor
    dt: Tensor
    reset: Tensor | None
    impulse: bool
    reverse: bool


ZohGradients = tuple[Tensor | None, Tensor | None, Tensor | None, Tensor]


class ScanBackend(ABC):
    r"""A way to run linear recurrences on one kind of device; results do not depend on which, only speed does.

    Layout: inputs `b`, `v`, states `h` and cotangents `g` are `(row, time, state)` with any strides, and not empty; the
    coefficients `a` are `(1 | row, 1 | time, 1 | state)`; `h0` is `(row, state)` or None, a zero state. All are of one
    dtype; gradients never flow through a backend, `linear_recurrence` and `zoh_scan` provide them.

    Example:
        >>> import torch
        >>> from ctdyn.linear import BlockedScan
        >>> BlockedScan().recurrence(torch.ones(1, 1, 1), torch.ones(1, 3, 1), None, reverse=False).flatten()
        tensor([1., 2., 3.])
    """

    @abstractmethod
    def recurrence(self, a: Tensor, b: Tensor, h0: Tensor | None, *, reverse: bool) -> Tensor:
        """The states :math:`h_k = a_k h_{k-1} + b_k`; with `reverse`, :math:`h_k = a_k h_{k+1} + b_k`."""

    @abstractmethod
    def recurrence_gradients(
        self, a: Tensor, h: Tensor, h0: Tensor | None, g: Tensor, *, reverse: bool, needs_a: bool
    ) -> tuple[Tensor | None, Tensor, Tensor]:
        """The gradients to `a` (of its shape, where wanted), `b` and `h0`, from the states and their cotangents."""

    @abstractmethod
    def zoh(self, steps: Steps, v: Tensor, h0: Tensor | None) -> Tensor:
        r"""The states :math:`h_k = e^{\lambda \Delta_k} h_{k-1} + \varphi(\lambda, \Delta_k) v_k`."""

    @abstractmethod
    def zoh_gradients(
        self, steps: Steps, v: Tensor, h: Tensor, h0: Tensor | None, g: Tensor, *, needs: tuple[bool, bool, bool]
    ) -> ZohGradients:
        """The gradients to `lam`, `dt`, `v` where wanted, each of the shape of its argument, and that to `h0`."""
