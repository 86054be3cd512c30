"""How wide observations spread around the decoder's mean."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import expm1, log

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from .._options import with_suggestions
from ..nn import MLP


__all__ = ["FixedScale", "HeteroscedasticScale", "LearnedScale", "Scale", "quadrature"]


class Scale(ABC):
    """How wide observations spread around the decoder's mean; an immutable description that a likelihood builds.

    Example:
        >>> issubclass(LearnedScale, Scale)
        True
    """

    @abstractmethod
    def build(self, latent_size: int, num_channels: int) -> nn.Module:
        """The module that maps latent states `(..., latent)` to scales that broadcast against `(..., channel)`."""


@with_suggestions
@dataclass(frozen=True)
class FixedScale(Scale):
    """A known measurement error, the same for all channels.

    Args:
        value: standard deviation in model units, where 1 is the spread of the channel over the training series.

    Example:
        >>> from ctdyn.likelihoods import Gaussian
        >>> likelihood = Gaussian(4, 2, scale=FixedScale(0.1))
        >>> likelihood(torch.zeros(1, 1, 4), torch.zeros(1, 1)).stddev
        tensor([[[0.1000, 0.1000]]])
    """

    value: float

    def __post_init__(self) -> None:
        _check_positive("FixedScale(value)", self.value)

    def build(self, latent_size: int, num_channels: int) -> nn.Module:
        """See `Scale.build`."""
        return _Constant(self.value, num_channels)


@with_suggestions
@dataclass(frozen=True)
class LearnedScale(Scale):
    r"""One learned standard deviation per channel; the choice to start with.

    .. math:: \sigma_d = \sigma_{\min} + e^{\rho_d}

    Args:
        initial: where training starts, in model units (1 is the spread of the channel over the training series).
        floor: the smallest standard deviation that can be learned, in model units.

    Example:
        >>> from ctdyn.likelihoods import Gaussian
        >>> likelihood = Gaussian(4, 2, scale=LearnedScale(initial=0.3))
        >>> likelihood(torch.zeros(1, 1, 4), torch.zeros(1, 1)).stddev.detach()
        tensor([[[0.3000, 0.3000]]])
    """

    initial: float = 0.5
    floor: float = 1e-2

    def __post_init__(self) -> None:
        _check_floor("LearnedScale", self.initial, self.floor)

    def build(self, latent_size: int, num_channels: int) -> nn.Module:
        """See `Scale.build`."""
        return _Learned(self.initial, self.floor, num_channels)


@with_suggestions
@dataclass(frozen=True)
class HeteroscedasticScale(Scale):
    r"""A standard deviation that depends on the latent state, for noise that comes and goes.

    .. math:: \sigma_d(z) = \sigma_{\min} + \operatorname{softplus}(g_d(z))

    Args:
        hidden: hidden layers of the network `g`; empty for an affine map.
        initial: the scale at a latent state of zero before training, in model units.
        floor: the smallest standard deviation, in model units. Without one such a model collapses onto single points.

    Example:
        >>> from ctdyn.likelihoods import Gaussian
        >>> likelihood = Gaussian(4, 2, scale=HeteroscedasticScale(hidden=(16,), floor=0.05))
        >>> bool((likelihood(torch.randn(1, 9, 4), torch.zeros(1, 9)).stddev > 0.05).all())
        True
    """

    hidden: Sequence[int] = ()
    initial: float = 0.5
    floor: float = 1e-2

    def __post_init__(self) -> None:
        _check_floor("HeteroscedasticScale", self.initial, self.floor)

    def build(self, latent_size: int, num_channels: int) -> nn.Module:
        """See `Scale.build`."""
        return _Heteroscedastic(MLP(latent_size, num_channels, tuple(self.hidden)), self.initial, self.floor)


def quadrature(scale: Tensor, noise: Tensor | None) -> Tensor:
    """The scale with a known standard error added to it.

    Example:
        >>> quadrature(torch.tensor(3.0), torch.tensor(4.0))
        tensor(5.)
    """
    return scale if noise is None else (scale.square() + noise.square()).sqrt()


class _Constant(nn.Module):
    def __init__(self, value: float, num_channels: int) -> None:
        super().__init__()
        self.value = value
        self.num_channels = num_channels

    def forward(self, z: Tensor) -> Tensor:
        return z.new_full((self.num_channels,), self.value)


class _Learned(nn.Module):
    def __init__(self, initial: float, floor: float, num_channels: int) -> None:
        super().__init__()
        self.floor = floor
        self.log_scale = nn.Parameter(torch.full((num_channels,), log(initial - floor)))

    def forward(self, z: Tensor) -> Tensor:
        return self.floor + self.log_scale.exp()


class _Heteroscedastic(nn.Module):
    def __init__(self, net: MLP, initial: float, floor: float) -> None:
        super().__init__()
        self.net = net
        self.floor = floor
        # softplus(offset) = initial - floor
        self.offset = initial - floor + log(-expm1(floor - initial))

    def forward(self, z: Tensor) -> Tensor:
        return self.floor + softplus(self.net(z) + self.offset)


def _check_positive(name: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"{name} must be above 0; got {value}.")


def _check_floor(name: str, initial: float, floor: float) -> None:
    _check_positive(f"{name}(floor)", floor)
    if not initial > floor:
        raise ValueError(f"{name}(initial) must be above its floor {floor}; got {initial}.")
