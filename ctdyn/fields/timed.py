"""Affine layers that know the time: how the clock enters a perceptron."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from .._config import Configurable
from .._types import Time


__all__ = ["BlendTime", "ConcatSquashTime", "ConcatTime", "HyperTime", "IgnoreTime", "SquashTime", "TimedLayer"]

_HYPER_SIZE = 8


class TimedLayer(nn.Module, Configurable, ABC):
    """An affine layer that may depend on the time, built from its sizes alone; pass the class to `MLPField`.

    Args:
        in_size: size of the last axis of the input.
        out_size: size of the last axis of the output.

    Reference:
        FFJORD: Free-form continuous dynamics for scalable reversible generative models, W. Grathwohl, R. T. Q. Chen,
        J. Bettencourt, I. Sutskever, D. Duvenaud, 2018, https://arxiv.org/abs/1810.01367

    Example:
        >>> issubclass(ConcatTime, TimedLayer)
        True
    """

    def __init__(self, in_size: int, out_size: int) -> None:
        super().__init__()
        self.in_size = in_size
        self.out_size = out_size

    @abstractmethod
    def forward(self, t: Time, x: Tensor) -> Tensor:
        """The output at a time.

        Args:
            t: time of each series, `(*batch,)`.
            x: `(*batch, in_size)`.

        Returns:
            `(*batch, out_size)`.
        """


class IgnoreTime(TimedLayer):
    r"""No time: the field is autonomous, and shifting all times changes nothing.

    .. math:: W x + b

    Args:
        in_size: size of the last axis of the input.
        out_size: size of the last axis of the output.

    Example:
        >>> IgnoreTime(3, 2)(torch.zeros(5), torch.zeros(5, 3)).shape
        torch.Size([5, 2])
    """

    def __init__(self, in_size: int, out_size: int) -> None:
        super().__init__(in_size, out_size)
        self.affine = nn.Linear(in_size, out_size)

    def forward(self, t: Time, x: Tensor) -> Tensor:
        """See `TimedLayer`."""
        return self.affine(x)


class ConcatTime(TimedLayer):
    r"""The time beside the input: what to take where dynamics drift with the clock.

    .. math:: W [t, x] + b

    Args:
        in_size: size of the last axis of the input.
        out_size: size of the last axis of the output.

    Example:
        >>> ConcatTime(3, 2)(torch.zeros(5), torch.zeros(5, 3)).shape
        torch.Size([5, 2])
    """

    def __init__(self, in_size: int, out_size: int) -> None:
        super().__init__(in_size, out_size)
        self.affine = nn.Linear(1 + in_size, out_size)

    def forward(self, t: Time, x: Tensor) -> Tensor:
        """See `TimedLayer`."""
        return self.affine(torch.cat([t[..., None].to(x.dtype), x], -1))


class SquashTime(TimedLayer):
    r"""A gate that opens and closes with the time.

    .. math:: (W x + b) \odot \sigma(w t + c)

    Args:
        in_size: size of the last axis of the input.
        out_size: size of the last axis of the output.

    Example:
        >>> SquashTime(3, 2)(torch.zeros(5), torch.zeros(5, 3)).shape
        torch.Size([5, 2])
    """

    def __init__(self, in_size: int, out_size: int) -> None:
        super().__init__(in_size, out_size)
        self.affine = nn.Linear(in_size, out_size)
        self.gate = nn.Linear(1, out_size)

    def forward(self, t: Time, x: Tensor) -> Tensor:
        """See `TimedLayer`."""
        return self.affine(x) * torch.sigmoid(self.gate(t[..., None].to(x.dtype)))


class ConcatSquashTime(TimedLayer):
    r"""A gate and a shift that move with the time: the usual layer of continuous normalizing flows.

    .. math:: (W x + b) \odot \sigma(w t + c) + v t

    Args:
        in_size: size of the last axis of the input.
        out_size: size of the last axis of the output.

    Example:
        >>> ConcatSquashTime(3, 2)(torch.zeros(5), torch.zeros(5, 3)).shape
        torch.Size([5, 2])
    """

    def __init__(self, in_size: int, out_size: int) -> None:
        super().__init__(in_size, out_size)
        self.affine = nn.Linear(in_size, out_size)
        self.gate = nn.Linear(1, out_size)
        self.shift = nn.Linear(1, out_size, bias=False)

    def forward(self, t: Time, x: Tensor) -> Tensor:
        """See `TimedLayer`."""
        t = t[..., None].to(x.dtype)
        return self.affine(x) * torch.sigmoid(self.gate(t)) + self.shift(t)


class BlendTime(TimedLayer):
    r"""Two layers, one for time 0 and one for time 1, and a line between them: for clocks that run from 0 to 1.

    .. math:: (1 - t)(W_0 x + b_0) + t\,(W_1 x + b_1)

    Args:
        in_size: size of the last axis of the input.
        out_size: size of the last axis of the output.

    Example:
        >>> BlendTime(3, 2)(torch.zeros(5), torch.zeros(5, 3)).shape
        torch.Size([5, 2])
    """

    def __init__(self, in_size: int, out_size: int) -> None:
        super().__init__(in_size, out_size)
        self.first = nn.Linear(in_size, out_size)
        self.last = nn.Linear(in_size, out_size)

    def forward(self, t: Time, x: Tensor) -> Tensor:
        """See `TimedLayer`."""
        return torch.lerp(self.first(x), self.last(x), t[..., None].to(x.dtype))


class HyperTime(TimedLayer):
    r"""Weights that a small network of the time makes anew at every time; the freest layer, and the dearest.

    .. math:: W(t)\,x + b(t), \qquad [W(t), b(t)] = V \tanh(w t + c) + d

    Args:
        in_size: size of the last axis of the input.
        out_size: size of the last axis of the output.

    Example:
        >>> HyperTime(3, 2)(torch.zeros(5), torch.zeros(5, 3)).shape
        torch.Size([5, 2])
    """

    def __init__(self, in_size: int, out_size: int) -> None:
        super().__init__(in_size, out_size)
        self.time = nn.Linear(1, _HYPER_SIZE)
        self.weights = nn.Linear(_HYPER_SIZE, (in_size + 1) * out_size)
        with torch.no_grad():
            # So that the layer begins with the spread of an ordinary one.
            self.weights.weight.mul_(in_size**-0.5)
            self.weights.bias.uniform_(-(in_size**-0.5), in_size**-0.5)

    def forward(self, t: Time, x: Tensor) -> Tensor:
        """See `TimedLayer`."""
        hidden = torch.tanh(self.time(t[..., None].to(x.dtype)))
        matrix = self.weights(hidden).unflatten(-1, (self.out_size, self.in_size + 1))
        return (matrix[..., :-1] @ x.unsqueeze(-1)).squeeze(-1) + matrix[..., -1]
