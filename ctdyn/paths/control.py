"""From observations with gaps to the control of an equation: which path, which channels, and whether it looks ahead."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .cubic import NaturalCubicPath
from .hermite import HermitePath
from .linear import LinearPath
from .missing import fill_forward, fill_linear, observed
from .piecewise import PiecewisePath, PolygonalPath
from .rectilinear import RectilinearPath
from .signature import LogSignaturePath, log_signature_size


__all__ = ["Control"]

_KINDS = (LinearPath, HermitePath, NaturalCubicPath, RectilinearPath)


@dataclass(frozen=True)
class Control:
    r"""The control of a neural CDE, made of irregular observations: time, counts of observations, and the values.

    .. math:: X(t) = \big(t - t_0,\; c\,n_1(t), \dots, c\,n_d(t),\; x_1(t), \dots, x_d(t)\big)

    Time comes first: an equation does not feel at which pace its control moves, and without it would not know when
    anything was observed. :math:`n_i(t)` is how often channel i was observed up to t; where values are missing, that
    they are is often news.

    What a path knows of the future: `LinearPath` and `HermitePath` look ahead to the next observation of a channel, so
    that at the time of a row they are causal only where no value is missing; `NaturalCubicPath` always looks ahead;
    `RectilinearPath` never does. `causal=True` refuses everything that would.

    Args:
        interpolation: the kind of path.
        counts: what one observation adds to the count of its channel; 0 leaves the counts out.
        window: over how many knots to take log-signatures of depth 2, for a `LogODEField`; 0: none.
        causal: refuse what looks ahead.

    Raises:
        ValueError: the path looks ahead and must not, or log-signatures are asked of a path of other than straight
            lines; or, when called, values are missing that this path fills by looking ahead.

    Reference:
        Neural Controlled Differential Equations for Online Prediction Tasks, J. Morrill, P. Kidger, L. Yang, T. Lyons,
        2021, https://arxiv.org/abs/2106.11028

    Example:
        >>> ts, xs = torch.tensor([[0.0, 1.0, 3.0]]), torch.tensor([[[5.0], [torch.nan], [7.0]]])
        >>> Control(LinearPath)(ts, xs)(torch.tensor([[0.0, 1.5, 3.0]]))[0].tolist()  # time, count, value
        [[0.0, 1.0, 5.0], [1.5, 1.25, 6.0], [3.0, 2.0, 7.0]]
    """

    interpolation: type[PiecewisePath] = HermitePath
    counts: float = 1.0
    window: int = 0
    causal: bool = False

    def __post_init__(self) -> None:
        kind, names = self.interpolation, ", ".join(kind.__name__ for kind in _KINDS)
        if kind not in _KINDS:
            raise ValueError(f"interpolation must be one of the classes {names}; got {kind!r}.")
        if self.causal and kind is NaturalCubicPath:
            raise ValueError(
                "causal=True, and every value of a NaturalCubicPath depends on all later observations. Take "
                "RectilinearPath, which never looks ahead."
            )
        if self.window < 0:
            raise ValueError(f"window must be a number of knots, or 0 for none; got {self.window}.")
        if self.window and not issubclass(kind, PolygonalPath):
            raise ValueError(
                f"log-signatures are taken of straight lines; got window={self.window} and {kind.__name__}. Take "
                "LinearPath or RectilinearPath."
            )
        if self.window and self.causal:
            raise ValueError(
                f"causal=True, and log-signatures over window={self.window} knots are known only at the end of each "
                "window. Take window=0."
            )

    def size(self, num_channels: int) -> int:
        """How many channels the control has, for as many observed ones.

        Args:
            num_channels: of the observations.
        """
        size = 1 + num_channels * (1 + bool(self.counts))
        return log_signature_size(size, 2) if self.window else size

    def __call__(self, ts: Tensor, xs: Tensor, mask: Tensor | None = None) -> PiecewisePath:
        """The control through observations.

        A `RectilinearPath` runs over a parameter of its own; its `after` and `before` say where a time lies on it. The
        ends of every control are the first and the last of its `knots()`.

        Args:
            ts: times, non-decreasing, `(*batch, time)`; trailing repeats of the last time are padding.
            xs: values, `(*batch, time, channel)`; anything, NaN too, where they are missing.
            mask: where there is a value; None: wherever `xs` is not NaN.
        """
        seen = observed(ts, xs, mask)
        kind = self.interpolation
        counts = [self.counts * seen.to(xs.dtype).cumsum(-2)] if self.counts else []
        if kind is RectilinearPath:
            path: PiecewisePath = RectilinearPath(ts, torch.cat([*counts, fill_forward(xs, seen)], -1))
            return self._windowed(path)
        known = [(ts - ts[..., :1]).to(xs.dtype).unsqueeze(-1), *counts]
        if kind is NaturalCubicPath:
            held = torch.ones_like(torch.cat(known, -1), dtype=torch.bool)
            values = torch.where(seen, xs, 0.0)
            return NaturalCubicPath(ts, torch.cat([*known, values], -1), torch.cat([held, seen], -1))
        if self.causal:
            _check_complete(ts, seen, kind)
        return self._windowed(kind(ts, torch.cat([*known, fill_linear(ts, xs, seen)], -1)))

    def _windowed(self, path: PiecewisePath) -> PiecewisePath:
        if not self.window:
            return path
        ends = path.ts[..., :: self.window]
        return LogSignaturePath(path.ts, path.xs, torch.cat([ends, path.ts[..., -1:]], -1))


def _check_complete(ts: Tensor, seen: Tensor, kind: type[PiecewisePath]) -> None:
    real = torch.ones_like(ts, dtype=torch.bool)
    real[..., 1:] = (ts[..., 1:] < ts[..., -1:]) | (ts[..., :-1] < ts[..., -1:])
    missing = real.unsqueeze(-1) & ~seen
    if bool(missing.any()):
        *series, row, channel = torch.nonzero(missing)[0].tolist()
        name = f" of series {', '.join(map(str, series))}" if series else ""
        raise ValueError(
            f"causal=True, and channel {channel}{name} has no value at row {row}, which {kind.__name__} would fill by "
            "a line to a later one. Take RectilinearPath, which waits, or fill the values by fill_forward yourself."
        )
