"""How the decay of an eigenvalue is made of any number: what keeps a layer stable while it learns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import softplus

from ..holds import Hold, Impulse


__all__ = ["Decay", "ExpDecay", "Polarized", "RationalDecay", "S7Decay", "SoftplusDecay", "check_hold"]


class Decay(ABC):
    r"""A map from an unconstrained number :math:`w` to a rate of decay, positive: :math:`\mathrm{Re}\,\lambda = -r(w)`.

    All of them are stable by construction; they differ in how the gradient to :math:`w` behaves near the slow and the
    fast end.

    Example:
        >>> [type(decay).__name__ for decay in (ExpDecay(), RationalDecay()) if isinstance(decay, Decay)]
        ['ExpDecay', 'RationalDecay']
    """

    @abstractmethod
    def rate(self, w: Tensor) -> Tensor:
        """The rates, per unit of time, of the shape of `w`."""

    @abstractmethod
    def begin(self, rate: Tensor) -> Tensor:
        """The numbers `w` of given rates.

        Raises:
            ValueError: a rate is not one that this map can reach.
        """

    def eigenvalues(self, w: Tensor, frequency: Tensor) -> Tensor:
        """The eigenvalues, complex, with these imaginary parts."""
        return torch.complex(-self.rate(w), frequency)

    def weights(self, size: int) -> Tensor | None:
        """What the inputs of `size` states are multiplied by, `(size,)`; None for nothing."""
        return None


@dataclass(frozen=True)
class ExpDecay(Decay):
    r"""An exponential: what S4D, S5 and LRU use, and the default.

    .. math:: r(w) = e^w

    Reference:
        On the Parameterization and Initialization of Diagonal State Space Models, A. Gu, A. Gupta, K. Goel, C. Re,
        2022, https://arxiv.org/abs/2206.11893

    Example:
        >>> ExpDecay().rate(ExpDecay().begin(torch.tensor([0.5])))
        tensor([0.5000])
    """

    def rate(self, w: Tensor) -> Tensor:
        """As in `Decay`."""
        return w.exp()

    def begin(self, rate: Tensor) -> Tensor:
        """As in `Decay`."""
        _check(rate, float("inf"))
        return rate.log()


@dataclass(frozen=True)
class SoftplusDecay(Decay):
    r"""A softplus: fast rates learn at the speed of their number, not of their size.

    .. math:: r(w) = \log(1 + e^w)

    Reference:
        StableSSM: Alleviating the Curse of Memory in State-space Models through Stable Reparameterization, S. Wang,
        Q. Li, 2024, https://arxiv.org/abs/2311.14495

    Example:
        >>> SoftplusDecay().rate(SoftplusDecay().begin(torch.tensor([0.5])))
        tensor([0.5000])
    """

    def rate(self, w: Tensor) -> Tensor:
        """As in `Decay`."""
        return softplus(w)

    def begin(self, rate: Tensor) -> Tensor:
        """As in `Decay`."""
        _check(rate, float("inf"))
        return rate + (-torch.expm1(-rate)).log()


@dataclass(frozen=True)
class RationalDecay(Decay):
    r"""StableSSM's best: gradients that stay in proportion to the memory, so that long ones can be learned.

    .. math:: r(w) = \frac{1}{a w^2 + b}

    Args:
        a: positive.
        b: positive; no rate exceeds :math:`1 / b`, per unit of the time in which the layer measures its rates.

    Raises:
        ValueError: a number is not positive.

    Reference:
        StableSSM: Alleviating the Curse of Memory in State-space Models through Stable Reparameterization, S. Wang,
        Q. Li, 2024, https://arxiv.org/abs/2311.14495

    Example:
        >>> RationalDecay().rate(RationalDecay().begin(torch.tensor([0.5])))
        tensor([0.5000])
    """

    a: float = 1.0
    b: float = 0.1

    def __post_init__(self) -> None:
        if not (self.a > 0 and self.b > 0):
            raise ValueError(f"a and b must be positive; got a={self.a}, b={self.b}.")

    def rate(self, w: Tensor) -> Tensor:
        """As in `Decay`."""
        return 1.0 / (self.a * w.square() + self.b)

    def begin(self, rate: Tensor) -> Tensor:
        """As in `Decay`."""
        _check(rate, 1.0 / self.b)
        return ((1.0 / rate - self.b) / self.a).sqrt()


@dataclass(frozen=True)
class S7Decay(Decay):
    r"""S7's factor over one unit of time, as a rate.

    .. math:: e^{-r(w)} = 1 - \frac{1}{w^2 + 1}, \qquad r(w) = \log\left(1 + w^{-2}\right)

    The paper has :math:`\tfrac12` in place of the 1. Its factors then reach down to -1, which no decay over a part of
    the unit could make; with 1 they are those between 0 and 1.

    Reference:
        S7: Selective and Simplified State Space Layers for Sequence Modeling, T. Soydan, N. Zubic, N. Messikommer,
        S. Mishra, D. Scaramuzza, 2024, https://arxiv.org/abs/2410.03464

    Example:
        >>> torch.exp(-S7Decay().rate(torch.tensor([1.0])))
        tensor([0.5000])
    """

    def rate(self, w: Tensor) -> Tensor:
        """As in `Decay`."""
        return torch.log1p(w.square().clamp(min=torch.finfo(w.dtype).tiny).reciprocal())

    def begin(self, rate: Tensor) -> Tensor:
        """As in `Decay`."""
        _check(rate, float("inf"))
        return torch.expm1(rate).rsqrt()


@dataclass(frozen=True)
class Polarized(Decay):
    r"""Some states that never forget and some that remember nothing, beside those that learn how fast to forget.

    The first `integrators` states have :math:`\lambda = 0`: they are the integral of their inputs. The next
    `memoryless` ones follow the input that is held now: :math:`\lambda = -\kappa` with inputs times :math:`\kappa`, a
    rate that is beyond any gap. None of these turns, and none of their rates is learned.

    Args:
        integrators: states that only sum up.
        memoryless: states that only follow. They need inputs that last (not `Impulse`).
        decay: of the others.

    Raises:
        ValueError: a number is negative.

    Reference:
        Understanding and Mitigating Bottlenecks of State Space Models through the Lens of Recency and Over-smoothing,
        P. Wang, R. Cai, Y. Wang, J. Zhu, P. Srivastava, Z. Wang, P. Li, 2025, https://arxiv.org/abs/2501.00658

    Example:
        >>> Polarized(integrators=1, memoryless=1).rate(torch.zeros(3)).tolist()
        [0.0, 1000000.0, 1.0]
    """

    integrators: int = 1
    memoryless: int = 1
    decay: Decay = field(default_factory=ExpDecay)

    def __post_init__(self) -> None:
        if self.integrators < 0 or self.memoryless < 0:
            raise ValueError(
                f"integrators and memoryless must not be negative; got {self.integrators} and {self.memoryless}."
            )

    def rate(self, w: Tensor) -> Tensor:
        """As in `Decay`."""
        place = torch.arange(w.shape[-1], device=w.device)
        fixed = torch.where(place < self.integrators, 0.0, _BEYOND).to(w.dtype)
        return torch.where(place < self._fixed, fixed, self.decay.rate(w))

    def begin(self, rate: Tensor) -> Tensor:
        """As in `Decay`."""
        if rate.shape[-1] < self._fixed:
            raise ValueError(
                f"{self.integrators} integrators and {self.memoryless} memoryless states do not fit into "
                f"{rate.shape[-1]} states."
            )
        return self.decay.begin(rate)

    def eigenvalues(self, w: Tensor, frequency: Tensor) -> Tensor:
        """As in `Decay`."""
        place = torch.arange(w.shape[-1], device=w.device)
        return torch.complex(-self.rate(w), torch.where(place < self._fixed, 0.0, frequency))

    def weights(self, size: int) -> Tensor | None:
        """As in `Decay`."""
        if not self.memoryless:
            return None
        place = torch.arange(size)
        return torch.where((place >= self.integrators) & (place < self._fixed), _BEYOND, 1.0)

    @property
    def _fixed(self) -> int:
        return self.integrators + self.memoryless


#: A rate beyond that of any gap.
_BEYOND = 1e6


def check_hold(decay: Decay, hold: Hold, size: int) -> None:
    """Refuse states that follow an input for a layer whose inputs do not last.

    Raises:
        ValueError: they do not fit together.

    Example:
        >>> from ctdyn.linear import HeldBefore
        >>> check_hold(Polarized(memoryless=2), HeldBefore(), 8)
    """
    if isinstance(hold, Impulse) and decay.weights(size) is not None:
        raise ValueError(
            f"memoryless states follow an input that is held; with {hold} there is none. Take memoryless=0."
        )


def _check(rate: Tensor, most: float) -> None:
    wrong = ~((rate > 0) & (rate < most))
    # A tensor without values, as a saved model is drafted with, has nothing to be checked.
    if not rate.is_meta and bool(wrong.any()):
        raise ValueError(
            f"a stable spectrum is needed: every rate of decay must lie between 0 and {most:g}; got "
            f"{float(rate[wrong].flatten()[0]):.6g}."
        )
