"""Signatures of paths, and the path of their logarithms over windows: what a rough control does, in short."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from .._checks import check_count
from ..nn import take_items
from .linear import LinearPath
from .piecewise import PolygonalPath


__all__ = ["LogSignaturePath", "log_signature", "log_signature_size", "signature"]


def signature(xs: Tensor, depth: int) -> Tensor:
    r"""The iterated integrals of the straight lines through the values, up to a depth.

    .. math:: S^{i_1 \dots i_k} = \int_{t_1 < \dots < t_k} dX^{i_1}(t_1) \cdots dX^{i_k}(t_k)

    Args:
        xs: values, `(*batch, time, channel)`; when they are taken does not matter.
        depth: the most integrals, at least 1.

    Returns:
        The levels one after the other, without the leading 1, `(*batch, channel + channel**2 + ...)`.

    Raises:
        ValueError: `depth` is less than 1, or `xs` lacks the axes of time and channel.

    Reference:
        K.-T. Chen, Iterated path integrals, Bull. Amer. Math. Soc. 83(5), 1977,
        https://doi.org/10.1090/S0002-9904-1977-14320-6

    Example:
        >>> signature(torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]]), 2)
        tensor([1.0000, 1.0000, 0.5000, 1.0000, 0.0000, 0.5000])
    """
    _check(xs, depth)
    return torch.cat(_levels(xs.diff(dim=-2), depth), -1)


def log_signature(xs: Tensor, depth: int) -> Tensor:
    r"""The logarithm of the signature: the same in fewer numbers, as many as there are Lyndon words.

    .. math:: \log S = \sum_{m \ge 1} \frac{(-1)^{m+1}}{m} (S - 1)^{\otimes m}

    Its coefficients of the Lyndon words determine it: the increments of the channels first, then the areas that each
    pair of channels encloses, in the order of the words.

    Args:
        xs: values, `(*batch, time, channel)`; when they are taken does not matter.
        depth: the longest word, at least 1.

    Returns:
        `(*batch, log_signature_size(channel, depth))`.

    Raises:
        ValueError: `depth` is less than 1, or `xs` lacks the axes of time and channel.

    Reference:
        J. Reizenstein, B. Graham, Algorithm 1004: the iisignature library, ACM Trans. Math. Softw. 46(1), 2020,
        https://arxiv.org/abs/1802.08252

    Example:
        >>> log_signature(torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]]), 2)  # the last one is an area
        tensor([1.0000, 1.0000, 0.5000])
    """
    _check(xs, depth)
    return _log(_levels(xs.diff(dim=-2), depth))


def log_signature_size(channels: int, depth: int) -> int:
    """How many numbers a log-signature has: the channels of a `LogSignaturePath`.

    Args:
        channels: of the path.
        depth: the longest word.

    Returns:
        The number of Lyndon words of `channels` letters up to that length.

    Example:
        >>> log_signature_size(3, 1), log_signature_size(3, 2), log_signature_size(3, 3)
        (3, 6, 14)
    """
    return len(_lyndon_words(channels, depth))


class LogSignaturePath(PolygonalPath):
    r"""The log-signatures of a path over windows, added up: the control of a neural rough differential equation.

    .. math:: L(w_j) = \sum_{i < j} \log S(X|_{[w_i, w_{i+1}]}), \qquad L \text{ linear between}

    Use it where a path is long, or too rough to be followed: an equation driven by it takes steps of the length of a
    window, and still feels the areas that the path encloses within. Depth 1 is the path itself, seen at the windows
    only. Put time among the channels of `xs` if the equation should feel it pass.

    Args:
        ts: times of the knots of the path, non-decreasing, `(*batch, time)`; trailing repeats of the last time are
            padding.
        xs: values there, `(*batch, time, channel)`, straight lines between.
        windows: ends of the windows, non-decreasing, `(*batch, window + 1)`; trailing repeats are padding.
        depth: of the log-signature; 2 or 3 are usual.

    Raises:
        ValueError: the shapes disagree, times decrease, an entry is not finite, or `depth` is less than 1.

    Reference:
        Neural Rough Differential Equations for Long Time Series, J. Morrill, C. Salvi, P. Kidger, J. Foster, T. Lyons,
        2021, https://arxiv.org/abs/2009.08295

    Example:
        >>> ts = torch.linspace(0, 1, 101)
        >>> circle = torch.stack([(6.2832 * ts).cos(), (6.2832 * ts).sin()], -1)
        >>> LogSignaturePath(ts, circle, torch.tensor([0.0, 1.0])).evaluate(torch.tensor(1.0))[2]  # nearly pi
        tensor(3.1395)
    """

    def __init__(self, ts: Tensor, xs: Tensor, windows: Tensor, depth: int = 2) -> None:
        path = LinearPath(ts, xs)
        _check(xs, depth)
        if windows.shape[:-1] != ts.shape[:-1] or windows.shape[-1] < 2:
            raise ValueError(
                f"windows must be (*batch, window + 1) with batch {tuple(ts.shape[:-1])} and two ends at least; got "
                f"{tuple(windows.shape)}."
            )
        if not bool((windows.diff(dim=-1) >= 0).all()):
            raise ValueError("windows must not decrease along the last axis, nor hold NaN.")
        self._given, self._depth = (ts, xs, windows), depth
        inside = _log(_levels(_increments(path, windows), depth))
        values = torch.cat([torch.zeros_like(inside[..., :1, :]), inside.cumsum(-2)], -2)
        super().__init__(windows, values)

    def tensors(self) -> tuple[Tensor, ...]:
        """The times and values of the path, and the windows."""
        return self._given

    def replace(self, tensors: tuple[Tensor, ...]) -> LogSignaturePath:
        """The same path made of other tensors."""
        ts, xs, windows = tensors
        return LogSignaturePath(ts, xs, windows, self._depth)


def _increments(path: LinearPath, windows: Tensor) -> Tensor:
    """What the path does inside each window, piece by piece, `(*batch, window, piece, channel)`, padded with zeros."""
    ts, xs = path.ts, path.xs
    low, high = windows[..., :1], windows[..., -1:]
    within = ((ts >= low) & (ts <= high) & (ts <= ts[..., -1:])).unsqueeze(-1)
    bounds = path(windows)
    first_at_end = torch.searchsorted(ts.detach().contiguous(), ts[..., -1:].detach().contiguous())
    place = torch.minimum(torch.arange(ts.shape[-1], device=ts.device), first_at_end)
    held = take_items(xs, place, -2)
    held = torch.where(within, held, torch.where((ts < low).unsqueeze(-1), bounds[..., :1, :], bounds[..., -1:, :]))
    # An end of a window comes after the knots of the same time: what happens at once belongs to the window before.
    times = torch.cat([torch.minimum(torch.maximum(ts, low), high), windows], -1).detach()
    order = times.argsort(dim=-1, stable=True)
    points = take_items(torch.cat([held, bounds], -2), order, -2)
    is_bound = order >= ts.shape[-1]
    number = torch.arange(order.shape[-1], device=ts.device)
    window = (is_bound.cumsum(-1)[..., :-1] - 1).clamp(min=0, max=windows.shape[-1] - 2)
    opened = torch.where(is_bound, number, 0).cummax(-1).values[..., :-1]
    # Pieces before the first window, and after the last, have no length.
    position = torch.where(is_bound.cumsum(-1)[..., :-1] > 0, number[:-1] - opened, 0)
    width = int(position.max()) + 1
    pieces = points.diff(dim=-2)
    count = windows.shape[-1] - 1
    packed = pieces.new_zeros(*pieces.shape[:-2], count * width, pieces.shape[-1])
    index = (window * width + position).unsqueeze(-1).expand(pieces.shape)
    return packed.scatter_add(-2, index, pieces).unflatten(-2, (count, width))


def _levels(pieces: Tensor, depth: int) -> list[Tensor]:
    """The levels of the signature of straight pieces, axis -2, by Chen's identity: one running sum per level."""
    powers = [pieces]
    for level in range(2, depth + 1):
        powers.append(_outer(powers[-1], pieces) / level)
    before: list[Tensor] = []
    totals = []
    for level in range(depth):
        change = powers[level]
        for lower in range(level):
            change = change + _outer(before[lower], powers[level - lower - 1])
        totals.append(change.sum(-2))
        if level + 1 < depth:
            before.append(change.cumsum(-2) - change)
    return totals


def _log(levels: list[Tensor]) -> Tensor:
    """The coefficients of the Lyndon words in the logarithm of a signature."""
    depth, channels = len(levels), levels[0].shape[-1]
    total: list[Tensor] = list(levels)
    power: list[Tensor | None] = list(levels)
    for exponent in range(2, depth + 1):
        product: list[Tensor | None] = [None] * depth
        for a, left in enumerate(power):
            for b in range(depth - a - 1):
                if left is not None:
                    term, sofar = _outer(left, levels[b]), product[a + b + 1]
                    product[a + b + 1] = term if sofar is None else sofar + term
        power = product
        sign = (-1) ** (exponent + 1) / exponent
        total = [t if p is None else t + sign * p for t, p in zip(total, power, strict=True)]
    words = torch.tensor(_lyndon_words(channels, depth), device=levels[0].device)
    return torch.cat(total, -1).index_select(-1, words)


def _outer(a: Tensor, b: Tensor) -> Tensor:
    return (a.unsqueeze(-1) * b.unsqueeze(-2)).flatten(-2)


@functools.cache
def _lyndon_words(channels: int, depth: int) -> tuple[int, ...]:
    """Where each Lyndon word stands among all words, shorter ones first."""
    starts = [0]
    for length in range(1, depth):
        starts.append(starts[-1] + channels**length)
    found: list[list[int]] = []
    word = [-1]
    while word:
        word[-1] += 1
        found.append(list(word))
        size = len(word)
        while len(word) < depth:
            word.append(word[len(word) - size])
        while word and word[-1] == channels - 1:
            word.pop()
    found.sort(key=lambda letters: (len(letters), letters))
    places = []
    for letters in found:
        place = 0
        for letter in letters:
            place = place * channels + letter
        places.append(starts[len(letters) - 1] + place)
    return tuple(places)


def _check(xs: Tensor, depth: int) -> None:
    check_count("the depth of a signature", depth)
    if xs.dim() < 2:
        raise ValueError(f"values must be (*batch, time, channel); got {tuple(xs.shape)}.")
