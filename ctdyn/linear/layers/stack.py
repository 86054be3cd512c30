"""A stack of sequence layers, with the nonlinear parts between them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import gelu

from .base import SequenceLayer, StateSpaceLayer, Stepper


__all__ = ["SequenceStack"]


class SequenceStack(SequenceLayer):
    r"""Residual blocks around sequence layers: the deep state-space model, itself a sequence layer.

    .. math:: x \leftarrow x + \mathrm{GLU}\big(W\,\mathrm{gelu}(\mathrm{layer}(\mathrm{norm}(x)))\big)

    between an affine map of the inputs and one to the outputs. All but the layers is pointwise in time, so that what
    the layers promise holds for the stack: scan, step and flow agree, on the clock of every series.

    Args:
        layers: one per block, each with as many outputs as inputs, and all of one width.
        input_size: channels of the inputs.
        output_size: channels of the outputs.
        dropout: share of the entries of each block's update that is dropped in training.

    Raises:
        ValueError: there is no layer, their widths differ, or `dropout` is not in [0, 1).

    Reference:
        Simplified State Space Layers for Sequence Modeling, J. T. H. Smith, A. Warrington, S. W. Linderman, 2023,
        https://arxiv.org/abs/2208.04933

    Example:
        >>> import torch
        >>> from ctdyn.linear.layers import S5
        >>> stack = SequenceStack([S5(8, state_size=16), S5(8, state_size=16)], input_size=3, output_size=2)
        >>> ys, state = stack(torch.tensor([0.0, 0.1, 4.0]), torch.randn(5, 3, 3))
        >>> y, state = stack.step(torch.tensor(5.0), torch.randn(5, 3), state)
        >>> ys.shape, y.shape
        (torch.Size([5, 3, 2]), torch.Size([5, 2]))
    """

    def __init__(
        self, layers: Sequence[SequenceLayer], input_size: int, output_size: int, *, dropout: float = 0.0
    ) -> None:
        super().__init__(input_size, output_size)
        if not layers:
            raise ValueError("a stack needs at least one layer, such as S5(width, state_size=width); got no layer.")
        widths = {size for layer in layers for size in (layer.input_size, layer.output_size)}
        if len(widths) != 1:
            raise ValueError(f"layers must all have one number of inputs and outputs; got {sorted(widths)}.")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1; got {dropout}.")
        (width,) = widths
        self.encoder = nn.Linear(input_size, width)
        self.layers = nn.ModuleList(layers)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in layers)
        self.mixers = nn.ModuleList(nn.Linear(width, 2 * width) for _ in layers)
        self.decoder = nn.Linear(width, output_size)
        self.dropout = nn.Dropout(dropout)

    def scan(
        self,
        ts: Tensor,
        us: Tensor,
        state: Any = None,
        *,
        reset: Tensor | None = None,
        arrives: Tensor | None = None,
    ) -> tuple[Tensor, Any]:
        """As in `SequenceLayer`; the state is a tuple of those of the layers.

        Args:
            ts: as in `SequenceLayer`.
            us: as in `SequenceLayer`.
            state: as in `SequenceLayer`.
            reset: as in `SequenceLayer`.
            arrives: as in `StateSpaceLayer.scan`: False where the stack is read between its inputs.

        Returns:
            As in `SequenceLayer`.

        Raises:
            ValueError: as for the layers; or `arrives` is given and a layer cannot be read between its inputs.
        """
        self._check(us)
        x, after = self.encoder(us), []
        for number, (layer, norm) in enumerate(zip(self._layers, self.norms, strict=True)):
            kept = None if state is None else state[number]
            if arrives is None:
                ys, kept = layer.scan(ts, norm(x), kept, reset=reset)
            elif isinstance(layer, StateSpaceLayer | SequenceStack):
                ys, kept = layer.scan(ts, norm(x), kept, reset=reset, arrives=arrives)
            else:
                raise ValueError(f"{type(layer).__name__} cannot be read between its inputs; use state-space layers.")
            x = x + self._update(number, ys)
            after.append(kept)
        return self.decoder(x), tuple(after)

    def step(self, t: Tensor, u: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """As in `SequenceLayer`."""
        self._check(u)
        return self._step([layer.step for layer in self._layers], t, u, state)

    def stepper(self, dt: float) -> Stepper:
        """As in `SequenceLayer`: that of each layer."""
        return partial(self._step, [layer.stepper(dt) for layer in self._layers])

    def _step(self, steppers: Sequence[Stepper], t: Tensor, u: Tensor, state: Any) -> tuple[Tensor, Any]:
        x, after = self.encoder(u), []
        for number, (step, norm) in enumerate(zip(steppers, self.norms, strict=True)):
            y, kept = step(t, norm(x), None if state is None else state[number])
            x = x + self._update(number, y)
            after.append(kept)
        return self.decoder(x), tuple(after)

    def flow(self, state: Any, t: Tensor) -> Any:
        """As in `SequenceLayer`: the state of each layer flows."""
        return tuple(layer.flow(kept, t) for layer, kept in zip(self._layers, state, strict=True))

    @property
    def _layers(self) -> list[SequenceLayer]:
        return [layer for layer in self.layers if isinstance(layer, SequenceLayer)]

    def _update(self, number: int, ys: Tensor) -> Tensor:
        values, gate = self.mixers[number](gelu(ys)).chunk(2, -1)
        # Halves of rows are slow to walk over; `torch.nn.functional.glu` does so twice, and three times more backward.
        return self.dropout(values * gate.contiguous().sigmoid())

    def _check(self, us: Tensor) -> None:
        if us.dim() < 1 or us.shape[-1] != self.input_size:
            raise ValueError(
                f"us must be (*batch, time, input) with input_size={self.input_size}; got {tuple(us.shape)}."
            )
