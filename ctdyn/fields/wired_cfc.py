"""The closed-form network of a wiring."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from .._config import Configurable
from .._types import Inputs, State, States, Time, Times
from ..wirings import Wiring
from ._arguments import check_arguments, check_sizes
from .base import Transition
from .cfc import CfCMode, CfCTransition


__all__ = ["WiredCfCTransition"]


class WiredCfCTransition(nn.Module, Transition, Configurable):
    r"""A closed-form network in the layers of a wiring: each layer reads the new state of the one before, and its own.

    .. math:: y^{(l)}(t_1) = \Phi^{(l)}\big(y^{(l)}(t_0),\; [y^{(l-1)}(t_1)]\big), \qquad y^{(0)}(t_1) = u

    Every layer is a `CfCTransition` without hidden layers, whose two state heads see only what the wiring connects them
    to. As in ncps, from which weights may come, the gates see the whole layer before and a layer all of itself. The
    state is the layers one after the other; the motor neurons are last.

    Args:
        wiring: which neuron listens to which.
        input_size: size of the inputs, at least 1.
        mode: how the heads make a state.

    Raises:
        ValueError: `input_size` does not fit.

    References:
        Neural circuit policies enabling auditable autonomy, M. Lechner, R. Hasani, A. Amini, T. A. Henzinger, D. Rus,
        R. Grosu, 2020, https://doi.org/10.1038/s42256-020-00237-3
        Closed-form Continuous-time Neural Networks, R. Hasani, M. Lechner, A. Amini, L. Liebenwein, A. Ray,
        M. Tschaikowski, G. Teschl, D. Rus, 2022, https://arxiv.org/abs/2106.13898

    Example:
        >>> from ctdyn.wirings import AutoNCP
        >>> step = WiredCfCTransition(AutoNCP(8, 2), input_size=3)
        >>> step.transition(torch.zeros(5, 8), torch.zeros(5), torch.ones(5), torch.zeros(5, 3)).shape
        torch.Size([5, 8])
    """

    is_flow = False

    def __init__(self, wiring: Wiring, input_size: int, *, mode: CfCMode = CfCMode.DEFAULT) -> None:
        super().__init__()
        check_sizes(wiring.units, input_size)
        self.wiring, self.input_size, self.state_size = wiring, input_size, wiring.units
        circuit = wiring.connect(input_size)
        self.sizes = [len(layer) for layer in wiring.layers]
        self.steps = nn.ModuleList()
        before: tuple[int, ...] | None = None
        for layer in wiring.layers:
            size = input_size if before is None else len(before)
            step = CfCTransition(len(layer), size, mode=mode, hidden=())
            matrix = circuit.sensory if before is None else circuit.recurrent[list(before)]
            seen = torch.from_numpy(matrix[:, list(layer)] != 0).t()
            parametrize.register_parametrization(step.heads, "weight", _Connected(seen, mode))
            self.steps.append(step)
            before = layer

    def transition(self, y: State, t0: Time, t1: Time, u: Inputs | None = None) -> State:
        """See `Transition.transition`; a step backwards in time covers the same gap."""
        check_arguments(self, self.state_size, self.input_size, y, u)
        found = []
        for step, own in zip(self.steps, y.split(self.sizes, -1), strict=True):
            u = cast(CfCTransition, step).transition(own, t0, t1, u)
            found.append(u)
        return torch.cat(found, -1)

    def scan(self, y0: State, gaps: Times, us: Tensor) -> States:
        """The states behind every one of many steps in a row, as in `CfCTransition.scan`: one layer after the other."""
        check_arguments(self, self.state_size, self.input_size, y0, us)
        found = []
        for step, own in zip(self.steps, y0.split(self.sizes, -1), strict=True):
            us = cast(CfCTransition, step).scan(own, gaps, us)
            found.append(us)
        return torch.cat(found, -1)


class _Connected(nn.Module):
    """Weights of the heads with what is not connected cut out."""

    def __init__(self, seen: Tensor, mode: CfCMode) -> None:
        super().__init__()
        state = torch.cat([seen, torch.ones(len(seen), len(seen), dtype=torch.bool)], 1)
        gates = torch.ones_like(state)
        parts = [state] if mode is CfCMode.PURE else [gates, state, state, gates]
        self.mask: Tensor
        self.register_buffer("mask", torch.cat(parts).to(torch.get_default_dtype()), persistent=False)

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.mask
