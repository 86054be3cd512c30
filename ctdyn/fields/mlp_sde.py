"""The field of a neural stochastic differential equation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from .._checks import check_count
from .._config import Configurable
from .._types import Inputs, State, Time
from ..nn import MLP
from ..structure import Calculus, Noise
from ._arguments import check_arguments, check_sizes
from .base import SDEField


__all__ = ["MLPSDEField"]

_WIDTH = 16


class MLPSDEField(SDEField, Configurable):
    r"""Perceptrons for drift and diffusion: the neural SDE, with any noise and under either calculus.

    .. math:: dy = \mathrm{MLP}_f([y, u(t)])\,dt + g(y)\,dW

    where :math:`g` is, by `noise`: diagonal, :math:`g_i(y_i) > 0`, a small network per entry; additive, a learned
    positive constant per entry or, with `brownian_size`, a learned matrix; scalar, a perceptron to one vector; general,
    a perceptron to a matrix. The networks of the noise do not see the inputs.

    Args:
        state_size: size of the state.
        hidden: sizes of the hidden layers of the drift, and of a scalar or general diffusion.
        activation: class of the activation. A smooth one keeps a solver's order.
        noise: how Brownian motion enters.
        calculus: how the stochastic integral is meant.
        input_size: size of the inputs that drive the drift; 0 for none.
        brownian_size: how many Brownian motions there are; asked for by general noise, possible for additive noise.

    Raises:
        ValueError: a size does not fit, or `brownian_size` is missing or given in vain.

    Reference:
        Neural Stochastic Differential Equations: Deep Latent Gaussian Models in the Diffusion Limit, B. Tzen,
        M. Raginsky, 2019, https://arxiv.org/abs/1905.09883

    Example:
        >>> field = MLPSDEField(3, noise=Noise.GENERAL, brownian_size=2, input_size=4)
        >>> t, y, u = torch.zeros(5), torch.zeros(5, 3), torch.zeros(5, 4)
        >>> field.drift(t, y, u).shape, field.diffusion(t, y, u).shape
        (torch.Size([5, 3]), torch.Size([5, 3, 2]))
    """

    def __init__(
        self,
        state_size: int,
        hidden: Sequence[int] = (64,),
        activation: type[nn.Module] = nn.Tanh,
        *,
        noise: Noise = Noise.DIAGONAL,
        calculus: Calculus = Calculus.ITO,
        input_size: int = 0,
        brownian_size: int | None = None,
    ) -> None:
        super().__init__()
        check_sizes(state_size, input_size)
        _check_noise(noise, calculus, brownian_size)
        self.state_size = state_size
        self.input_size = input_size
        self.noise, self.calculus = noise, calculus
        self.mlp = MLP(state_size + input_size, state_size, hidden, activation)
        self.strength: nn.Module
        if noise is Noise.DIAGONAL:
            self.strength = _PerEntry(state_size)
        elif noise is Noise.ADDITIVE:
            self.strength = _Constant(state_size, brownian_size)
        else:
            shape = (state_size,) if brownian_size is None else (state_size, brownian_size)
            self.strength = nn.Sequential(
                MLP(state_size, state_size * (brownian_size or 1), hidden, activation), nn.Unflatten(-1, shape)
            )

    def drift(self, t: Time, y: State, u: Inputs | None = None) -> State:
        """See `SDEField`."""
        check_arguments(self, self.state_size, self.input_size, y, u)
        return self.mlp(y if u is None else torch.cat([y, u], -1))

    def diffusion(self, t: Time, y: State, u: Inputs | None = None) -> Tensor:
        """See `SDEField`."""
        return self.strength(y)


class _PerEntry(nn.Module):
    """A network of one input and one positive output for every entry."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.randn(size, _WIDTH))
        self.offset = nn.Parameter(torch.randn(size, _WIDTH))
        self.weight = nn.Parameter(torch.randn(size, _WIDTH) / _WIDTH)
        self.bias = nn.Parameter(torch.zeros(size))

    def forward(self, y: State) -> State:
        hidden = torch.tanh(y[..., None] * self.slope + self.offset)
        return softplus((hidden * self.weight).sum(-1) + self.bias)


class _Constant(nn.Module):
    """The same noise everywhere."""

    def __init__(self, size: int, brownian_size: int | None) -> None:
        super().__init__()
        start = torch.zeros(size) if brownian_size is None else torch.randn(size, brownian_size) / brownian_size**0.5
        self.value = nn.Parameter(start)

    def forward(self, y: State) -> Tensor:
        value = softplus(self.value) if self.value.dim() == 1 else self.value
        return value.expand(*y.shape[:-1], *value.shape)


def _check_noise(noise: Noise, calculus: Calculus, brownian_size: int | None) -> None:
    if not isinstance(noise, Noise) or not isinstance(calculus, Calculus):
        raise TypeError(
            f"noise and calculus must be such as Noise.DIAGONAL and Calculus.ITO; got {noise!r} and {calculus!r}."
        )
    if noise is Noise.GENERAL and brownian_size is None:
        raise ValueError("general noise needs brownian_size, the number of Brownian motions.")
    if noise in (Noise.DIAGONAL, Noise.SCALAR) and brownian_size is not None:
        raise ValueError(
            f"{noise.value} noise has as many Brownian motions as it needs; leave brownian_size={brownian_size} out, "
            "or take Noise.GENERAL."
        )
    if brownian_size is not None:
        check_count("brownian_size", brownian_size)
