"""Two layers, one above the other: the lower one reads windows of time, the upper one what it makes of them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ...nn import take_items
from .base import SequenceLayer


__all__ = ["Hierarchical", "HierarchicalState"]


class HierarchicalState(NamedTuple):
    """What a `Hierarchical` layer carries.

    Args:
        inner: state of the lower layer, within the current window.
        outer: state of the upper layer.
        origin: when the first window began, `(*batch,)`, float64.
        window: number of the current window, `(*batch,)`.
        last: the latest output of the lower layer, `(*batch, feature)`.
        summary: its last output in the window before, which drives the upper layer now, `(*batch, feature)`.

    Example:
        >>> HierarchicalState._fields[:2]
        ('inner', 'outer')
    """

    inner: tuple[Tensor, ...]
    outer: tuple[Tensor, ...]
    origin: Tensor
    window: Tensor
    last: Tensor
    summary: Tensor


class Hierarchical(SequenceLayer):
    r"""A hierarchy of two sequence layers (HiSS): fast features within short windows, slow ones across them.

    .. math:: s_w = \mathrm{inner}\big(u_k : t_k \in w\big)_{\text{last}}, \qquad
        y_k = \mathrm{outer}\big(s_{w(k) - 1}\big)(t_k)

    The lower layer begins anew in every window; its last output there drives the upper layer from the next window on.
    Windows are stretches of time of equal length that count from the first time of a series, not numbers of samples: a
    gap makes a window poorer, not longer, and one without an observation leaves the summary as it was. Outputs are
    there at every time, and use complete windows alone.

    Args:
        inner: the lower layer.
        outer: the upper layer; as many inputs as `inner` has outputs. The summary is held, so it should be a layer with
            the default hold, or a stack of such.
        window: length of a window, in units of time.

    Raises:
        ValueError: the layers do not fit together, or the window is not positive.

    Reference:
        Hierarchical State Space Models for Continuous Sequence-to-Sequence Modeling, R. Bhirangi, C. Wang,
        V. Pattabiraman, C. Majidi, A. Gupta, T. Hellebrekers, L. Pinto, 2024, https://arxiv.org/abs/2402.10211

    Example:
        >>> from ctdyn.linear.layers import S5
        >>> layer = Hierarchical(S5(3, state_size=8), S5(3, state_size=8), window=1.0)
        >>> ys, state = layer(torch.tensor([0.0, 0.4, 0.9, 2.5]), torch.randn(4, 3))
        >>> ys.shape, int(state.window)
        (torch.Size([4, 3]), 2)
    """

    def __init__(self, inner: SequenceLayer, outer: SequenceLayer, window: float) -> None:
        if inner.output_size != outer.input_size:
            raise ValueError(
                f"the upper layer has {outer.input_size} inputs, and the lower one {inner.output_size} outputs; they "
                "must be as many."
            )
        if not 0 < window < float("inf"):
            raise ValueError(f"window must be positive and finite, in units of time; got {window}.")
        super().__init__(inner.input_size, outer.output_size)
        self.inner = inner
        self.outer = outer
        self.window = window

    def scan(
        self, ts: Tensor, us: Tensor, state: HierarchicalState | None = None, *, reset: Tensor | None = None
    ) -> tuple[Tensor, HierarchicalState]:
        """As in `SequenceLayer`."""
        times = ts.to(torch.float64)
        fresh = torch.zeros((), dtype=torch.bool, device=ts.device) if reset is None else reset
        times, fresh = torch.broadcast_tensors(times, fresh)
        if state is not None:
            batch = torch.broadcast_shapes(times.shape[:-1], state.origin.shape)
            times, fresh = times.expand(*batch, -1), fresh.expand(*batch, -1)
        origin = _latest(times, fresh, times[..., 0] if state is None else state.origin)
        number = torch.floor((times - origin) / self.window).to(torch.int64)
        before = torch.zeros_like(number[..., :1]) if state is None else state.window[..., None]
        begins = fresh | (number != torch.cat([before.expand(*number.shape[:-1], 1), number[..., :-1]], -1))
        features, inner = self.inner.scan(ts, us, None if state is None else state.inner, reset=begins)
        summaries = self._summaries(features, begins, fresh, state)
        ys, outer = self.outer.scan(ts, summaries, None if state is None else state.outer, reset=reset)
        batch = features.shape[:-2]
        return ys, HierarchicalState(
            inner,
            outer,
            origin[..., -1].expand(batch),
            number[..., -1].expand(batch),
            features[..., -1, :],
            summaries[..., -1, :],
        )

    def step(self, t: Tensor, u: Tensor, state: HierarchicalState | None = None) -> tuple[Tensor, HierarchicalState]:
        """As in `SequenceLayer`."""
        ys, state = self.scan(t[..., None], u[..., None, :], state)
        return ys.squeeze(-2), state

    def flow(self, state: HierarchicalState, t: Tensor) -> HierarchicalState:
        """As in `SequenceLayer`."""
        return state._replace(inner=self.inner.flow(state.inner, t), outer=self.outer.flow(state.outer, t))

    def _summaries(self, features: Tensor, begins: Tensor, fresh: Tensor, state: HierarchicalState | None) -> Tensor:
        """At every time the last feature of the window before; nothing where there was none."""
        blank = torch.zeros_like(features[..., :1, :])
        last = blank if state is None else state.last[..., None, :].expand_as(blank)
        held = blank if state is None else state.summary[..., None, :].expand_as(blank)
        previous = torch.cat([last, features[..., :-1, :]], -2)
        if state is None:
            begins = torch.cat([torch.zeros_like(begins[..., :1]), begins[..., 1:]], -1)
        # Row 0 is what was held before; row k + 1 is the feature before time k, where a window begins there.
        rows = torch.cat([held, torch.where(fresh[..., None], 0.0, previous)], -2)
        place = torch.arange(1, features.shape[-2] + 1, device=features.device)
        chosen = torch.where(begins, place, 0).cummax(-1).values.expand(features.shape[:-1])
        return take_items(rows, chosen, -2)


def _latest(times: Tensor, marked: Tensor, start: Tensor) -> Tensor:
    """The latest marked time up to each; `start` before the first of them."""
    place = torch.arange(1, times.shape[-1] + 1, device=times.device)
    chosen = torch.where(marked, place, 0).cummax(-1).values
    return torch.cat([start[..., None].expand(*times.shape[:-1], 1), times], -1).gather(-1, chosen)
