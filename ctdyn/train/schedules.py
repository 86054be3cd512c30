"""How the learning rate changes over training."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass


__all__ = ["Cosine", "Exponential", "Schedule"]


class Schedule(ABC):
    """How the learning rate changes over training; an immutable description. Subclass it for a rule of your own.

    Example:
        >>> class Constant(Schedule):
        ...     def rate(self, step, total):
        ...         return 1e-3
        >>> Constant().rate(step=7, total=100)
        0.001
    """

    @abstractmethod
    def rate(self, step: int, total: int) -> float:
        """The learning rate.

        Args:
            step: optimiser steps taken so far.
            total: optimiser steps planned.
        """


@dataclass(frozen=True)
class Cosine(Schedule):
    r"""A linear warm-up, then half a cosine down to a fraction of the rate; the choice to start with.

    .. math:: \eta_k = \eta \left(r + (1 - r) \tfrac{1}{2} (1 + \cos \pi k / K)\right)

    Args:
        lr: the largest learning rate.
        warmup: steps over which the rate grows to `lr`; at most a tenth of the training.
        final: the rate at the end, as a fraction `r` of `lr`.

    Raises:
        ValueError: `lr` is not positive, `warmup` is negative, or `final` is no fraction.

    Reference:
        SGDR: Stochastic Gradient Descent with Warm Restarts (Loshchilov & Hutter, 2017,
        https://arxiv.org/abs/1608.03983).

    Example:
        >>> schedule = Cosine(1.0, warmup=0, final=0.0)
        >>> [round(schedule.rate(step, 4), 2) for step in range(5)]
        [1.0, 0.85, 0.5, 0.15, 0.0]
    """

    lr: float
    warmup: int = 50
    final: float = 0.01

    def __post_init__(self) -> None:
        _check_rate(self.lr, self.warmup, self.final)

    def rate(self, step: int, total: int) -> float:
        """See `Schedule.rate`."""
        done = min(step / max(total, 1), 1.0)
        decayed = self.final + (1.0 - self.final) * 0.5 * (1.0 + math.cos(math.pi * done))
        return self.lr * decayed * _warm(step, min(self.warmup, total // 10))


@dataclass(frozen=True)
class Exponential(Schedule):
    r"""A linear warm-up, then an exponential decay that stops at a floor; it does not depend on the planned length.

    .. math:: \eta_k = \eta \max(\gamma^k, r)

    Args:
        lr: the largest learning rate.
        decay: factor `gamma` per step.
        warmup: steps over which the rate grows to `lr`.
        final: the smallest rate, as a fraction `r` of `lr`.

    Raises:
        ValueError: as for `Cosine`; or `decay` is not above 0 and at most 1.

    Example:
        >>> Exponential(1.0, decay=0.5, warmup=0, final=0.1).rate(2, total=100)
        0.25
    """

    lr: float
    decay: float = 0.999
    warmup: int = 50
    final: float = 0.1

    def __post_init__(self) -> None:
        _check_rate(self.lr, self.warmup, self.final)
        if not 0.0 < self.decay <= 1.0:
            raise ValueError(f"decay is a factor per step, above 0 and at most 1; got {self.decay}.")

    def rate(self, step: int, total: int) -> float:
        """See `Schedule.rate`."""
        return self.lr * max(self.decay**step, self.final) * _warm(step, self.warmup)


def _warm(step: int, warmup: int) -> float:
    return min((step + 1) / (warmup + 1), 1.0)


def _check_rate(lr: float, warmup: int, final: float) -> None:
    if not (math.isfinite(lr) and lr > 0) or warmup < 0 or not 0.0 <= final <= 1.0:
        raise ValueError(
            f"a schedule needs lr > 0, warmup >= 0 and final in [0, 1]; got lr={lr}, warmup={warmup}, final={final}."
        )
