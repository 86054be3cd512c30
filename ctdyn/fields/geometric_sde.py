"""Stochastic fields of states that stay positive."""

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


__all__ = ["GeometricSDEField"]

#: Beyond, tanh(exp(y)) is 1 in every dtype; its slope must not become infinity times zero.
_SATURATED = 20.0


class GeometricSDEField(SDEField, Configurable):
    r"""A stable neural SDE of geometric Brownian type, in logarithms: the state that it describes stays positive.

    .. math:: \frac{dz}{z} = \gamma([\tanh z, u(t)])\,dt + \sigma(t)\,dW, \qquad y = \log z, \qquad
              dy = \big(\gamma - \tfrac12 \sigma(t)^2\big)\,dt + \sigma(t)\,dW

    The equation that is solved is that of :math:`y`, with additive noise: steps of any length keep :math:`z = e^y`
    positive, which steps of z itself do not, and methods of strong order 1.5 apply. Start at the logarithm of the
    initial state and read the exponential of a solution; a negative state is minus a positive one.

    Args:
        state_size: size of the state.
        hidden: sizes of the hidden layers of the rate of growth.
        activation: class of the activation.
        input_size: size of the inputs that drive the growth; 0 for none.
        sigma: where the strength of the noise begins, per square root of time.

    Raises:
        ValueError: a size does not fit, or `sigma` is not positive.

    Reference:
        Stable Neural Stochastic Differential Equations in Analyzing Irregular Time Series Data, Y. Oh, D. Lim, S. Kim,
        2024, https://arxiv.org/abs/2402.14989

    Example:
        >>> from ctdyn import solve
        >>> from ctdyn.integrate import StepTo
        >>> z0, ts = torch.full((4, 2), 0.01), torch.tensor([0.0, 5.0, 10.0])
        >>> solution = solve(GeometricSDEField(2, sigma=3.0), z0.log(), ts, controller=StepTo())
        >>> bool((solution.ys.exp() > 0).all())
        True
    """

    noise, calculus = Noise.ADDITIVE, Calculus.ITO

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
        """See `SDEField`; `y` is the logarithm."""
        check_arguments(self, self.state_size, self.input_size, y, u)
        bounded = torch.tanh(y.clamp(max=_SATURATED).exp())
        growth = self.mlp(bounded if u is None else torch.cat([bounded, u], -1))
        return growth - 0.5 * self.strength(t, y.dtype).square()

    def diffusion(self, t: Time, y: State, u: Inputs | None = None) -> Tensor:
        """See `SDEField`; `y` is the logarithm."""
        return self.strength(t, y.dtype).expand_as(y)
