"""Stochastic fields whose noise is linear in the state."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .._config import Configurable
from .._types import Inputs, State, Time
from ..nn import MLP
from ..structure import Calculus, Noise
from ._arguments import check_arguments, check_sizes
from ._noise import TimedNoise
from .base import SDEField


__all__ = ["LinearNoiseSDEField"]


class LinearNoiseSDEField(SDEField, Configurable):
    r"""A stable neural SDE whose noise is proportional to the state.

    .. math:: dy = \gamma([y, u(t)])\,dt + \sigma(t) \odot y \; dW

    :math:`\gamma` is a perceptron, and so Lipschitz; :math:`\sigma` is positive and bounded. Noise dies where the state
    is zero, so that noise alone never carries an entry across. The inputs act by value, not by increment.

    Args:
        state_size: size of the state.
        hidden: sizes of the hidden layers of the drift.
        activation: class of the activation.
        input_size: size of the inputs that drive the drift; 0 for none.
        sigma: where the strength of the noise begins, per square root of time.

    Raises:
        ValueError: a size does not fit, or `sigma` is not positive.

    Reference:
        Stable Neural Stochastic Differential Equations in Analyzing Irregular Time Series Data, Y. Oh, D. Lim, S. Kim,
        2024, https://arxiv.org/abs/2402.14989

    Example:
        >>> field = LinearNoiseSDEField(3, sigma=0.25)
        >>> field.diffusion(torch.zeros(1), torch.ones(1, 3)).detach()
        tensor([[0.2500, 0.2500, 0.2500]])
    """

    noise, calculus = Noise.DIAGONAL, Calculus.ITO

    def __init__(
        self,
        state_size: int,
        hidden: Sequence[int] = (64,),
        activation: type[nn.Module] = nn.Tanh,
        *,
        input_size: int = 0,
        sigma: float = 0.5,
    ) -> None:
        super().__init__()
        check_sizes(state_size, input_size)
        self.state_size = state_size
        self.input_size = input_size
        self.mlp = MLP(state_size + input_size, state_size, hidden, activation)
        self.strength = TimedNoise(state_size, sigma)

    def drift(self, t: Time, y: State, u: Inputs | None = None) -> State:
        """See `SDEField`."""
        check_arguments(self, self.state_size, self.input_size, y, u)
        return self.mlp(y if u is None else torch.cat([y, u], -1))

    def diffusion(self, t: Time, y: State, u: Inputs | None = None) -> Tensor:
        """See `SDEField`."""
        return self.strength(t, y.dtype) * y
