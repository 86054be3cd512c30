"""The closed-form continuous-time network."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from enum import Enum
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from .._checks import check_hidden
from .._config import Configurable
from .._types import Inputs, State, States, Time, Times
from ..nn import LeCunTanh, LowRankSparse
from ._arguments import check_arguments, check_sizes
from ._cfc_loop import CfCLoop, mixed
from ._scan import run_loop
from ._synapses import is_compiled
from .base import Transition


__all__ = ["CfCMode", "CfCTransition"]


class CfCMode(Enum):
    r"""How the heads of a `CfCTransition` make a state; :math:`g = \sigma(a\,\Delta + b)` is the gate.

    * `DEFAULT`: from one head to the other as time goes by, :math:`(1 - g) \odot \tanh f_1 + g \odot \tanh f_2`.
    * `NO_GATE`: what is added grows, :math:`\tanh f_1 + g \odot \tanh f_2`.
    * `PURE`: the solution itself, :math:`A - A\,e^{-\Delta (|w| + |f_1|)} \odot f_1`; a few parameters, and weaker.

    Reference:
        Closed-form Continuous-time Neural Networks, R. Hasani, M. Lechner, A. Amini, L. Liebenwein, A. Ray,
        M. Tschaikowski, G. Teschl, D. Rus, 2022, https://arxiv.org/abs/2106.13898

    Example:
        >>> CfCMode.NO_GATE.value
        'no_gate'
    """

    DEFAULT = "default"
    NO_GATE = "no_gate"
    PURE = "pure"


class CfCTransition(nn.Module, Transition, Configurable):
    r"""A closed-form continuous-time network: the state behind a gap of any length, by gates that know the gap.

    .. math::
        y(t_1) = (1 - g) \odot \tanh f_1 + g \odot \tanh f_2, \qquad g = \sigma(a\,\Delta + b), \quad
        \Delta = |t_1 - t_0|, \quad f_1, f_2, a, b = W\,\mathrm{MLP}([u, y]) + w

    It stands for a liquid time-constant network without being one: it is not a flow, two half steps are not a whole
    one, and no solver applies. A state is to be reached in one step from the last observation. A step over no time
    changes nothing.

    Args:
        state_size: size of the state.
        input_size: size of the inputs; 0 for none.
        mode: how the heads make a state.
        hidden: sizes of the layers before the heads; empty for none.
        activation: class of their activation.
        dropout: share of their outputs that is dropped in training.
        recurrent: a form for the matrix that reads the state; by default it is free.

    Raises:
        TypeError: `mode` is not a `CfCMode`.
        ValueError: a size or a share does not fit.

    Reference:
        Closed-form Continuous-time Neural Networks, R. Hasani, M. Lechner, A. Amini, L. Liebenwein, A. Ray,
        M. Tschaikowski, G. Teschl, D. Rus, 2022, https://arxiv.org/abs/2106.13898

    Example:
        >>> step = CfCTransition(3, input_size=2)
        >>> step.transition(torch.zeros(5, 3), torch.zeros(5), torch.ones(5), torch.zeros(5, 2)).shape
        torch.Size([5, 3])
    """

    is_flow = False

    def __init__(
        self,
        state_size: int,
        input_size: int = 0,
        *,
        mode: CfCMode = CfCMode.DEFAULT,
        hidden: Sequence[int] = (128,),
        activation: type[nn.Module] = LeCunTanh,
        dropout: float = 0.0,
        recurrent: LowRankSparse | None = None,
    ) -> None:
        super().__init__()
        check_sizes(state_size, input_size)
        if not isinstance(mode, CfCMode):
            raise TypeError(f"mode must be a CfCMode, for example CfCMode.{CfCMode.NO_GATE.name}; got {mode!r}.")
        check_hidden(hidden)
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"dropout must be at least 0 and less than 1; got {dropout}.")
        self.state_size, self.input_size, self.mode = state_size, input_size, mode
        sizes = (input_size + state_size, *hidden)
        self.backbone = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self.activation = activation()
        self.dropout = nn.Dropout(dropout)
        heads = 1 if mode is CfCMode.PURE else 4
        self.heads = nn.Linear(sizes[-1], heads * state_size)
        with torch.no_grad():
            for layer in self.backbone:
                nn.init.xavier_uniform_(cast(nn.Linear, layer).weight)
            for matrix in self.heads.weight.chunk(heads):
                nn.init.xavier_uniform_(matrix)
        if mode is CfCMode.PURE:
            self.level = nn.Parameter(torch.ones(state_size))
            # An absolute value has no slope at 0.
            self.rate = nn.Parameter(torch.empty(state_size).uniform_(-0.3, 0.3))
        if recurrent is not None:
            recurrent.constrain(self.first, columns=slice(input_size, None))

    @property
    def first(self) -> nn.Linear:
        """The layer that reads inputs and state, in this order."""
        layer = self.backbone[0] if len(self.backbone) else self.heads
        assert isinstance(layer, nn.Linear)
        return layer

    def transition(self, y: State, t0: Time, t1: Time, u: Inputs | None = None) -> State:
        """See `Transition.transition`; a step backwards in time covers the same gap."""
        check_arguments(self, self.state_size, self.input_size, y, u)
        gap = (t1 - t0).abs().to(y.dtype).unsqueeze(-1)
        if u is not None:
            shape = torch.broadcast_shapes(u.shape[:-1], y.shape[:-1])
            seen = torch.cat([u.expand(*shape, -1), y.expand(*shape, -1)], -1)
        else:
            seen = y
        return self._finished(self.first(seen), y, gap)

    def scan(self, y0: State, gaps: Times, us: Tensor | None = None) -> States:
        """The states behind every one of many steps in a row, as `transition` gives them one by one, and faster.

        Args:
            y0: states before the first step, `(*batch, state)`.
            gaps: how long each step takes, `(*batch, time)`.
            us: inputs, held over each step, `(*batch, time, input)`.

        Returns:
            The states, `(*batch, time, state)`.
        """
        check_arguments(self, self.state_size, self.input_size, y0, us)
        batch, length = gaps.shape[:-1], gaps.shape[-1]
        y = y0.expand(*batch, self.state_size).reshape(-1, self.state_size)
        gap = gaps.abs().to(y0.dtype).reshape(-1, length)
        if us is None:
            us = y0.new_empty(len(y), length, 0)
        else:
            us = us.expand(*batch, length, -1).reshape(-1, length, self.input_size)
        weight, bias = self.first.weight, self.first.bias
        if self._is_plain():
            rest = (self.heads.weight, self.heads.bias) if len(self.backbone) else ()
            loop = CfCLoop(self.mode is CfCMode.DEFAULT, isinstance(self.activation, LeCunTanh))
            tensors = (us, gap, y, weight, bias, *rest)
            states = run_loop(loop, *tensors) if is_compiled(*tensors) else loop.plain(*tensors)
        else:
            drive = linear(us, weight[:, : self.input_size], bias)
            found, weight = [], weight[:, self.input_size :]
            for now, dt in zip(drive.unbind(1), gap.unsqueeze(-1).unbind(1), strict=True):
                y = self._finished(now + linear(y, weight), y, dt)
                found.append(y)
            states = torch.stack(found, 1)
        return states.reshape(*batch, length, self.state_size)

    def _is_plain(self) -> bool:
        """Whether the derivatives are known by heart."""
        plain = isinstance(self.activation, LeCunTanh | nn.Tanh) and (not self.training or self.dropout.p == 0.0)
        return self.mode is not CfCMode.PURE and (not len(self.backbone) or (len(self.backbone) == 1 and plain))

    def _finished(self, x: Tensor, y: State, gap: Tensor) -> State:
        """The new state from what the first layer makes of inputs and state."""
        if len(self.backbone):
            x = self.dropout(self.activation(x))
            for layer in list(self.backbone)[1:]:
                x = self.dropout(self.activation(layer(x)))
            x = self.heads(x)
        if self.mode is CfCMode.PURE:
            new = self.level - self.level * torch.exp(-gap * (self.rate.abs() + x.abs())) * x
        else:
            new = mixed(x, gap, interpolates=self.mode is CfCMode.DEFAULT)
        return torch.where(gap == 0, y, new)
