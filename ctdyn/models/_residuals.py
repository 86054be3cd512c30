"""The spread of a point forecast, read from training residuals: a distribution per channel and distance bin."""

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints


__all__ = ["NUM_LEVELS", "Residuals", "residual_quantiles"]

#: Levels of the tabulated quantiles: 0.02, 0.04, ..., 0.98. Beyond them the tails are exponential.
NUM_LEVELS = 49
_TAIL = 1.0 / (NUM_LEVELS + 1)

#: The least standard deviation of a residual, in model units: a density of repeated values would be infinite.
_FLOOR = 1e-3


class Residuals(Distribution):
    r"""A point plus a residual whose quantile function is piecewise linear, with exponential tails.

    .. math::
        x = \mu + q(u), \quad u \sim U(0, 1), \qquad p(x) = \frac{p_{k+1} - p_k}{q_{k+1} - q_k}
        \ \text{for}\ q_k \le x - \mu < q_{k+1}

    Args:
        loc: the point, `(...)`.
        row: which row of the tables each entry uses, `(...)`.
        quantiles: increasing quantiles at the levels 1/50, ..., 49/50, `(row, 49)`.
        tails: mean excess below the first and above the last quantile, positive, `(row, 2)`.

    Example:
        >>> levels = torch.arange(1, 50) / 50
        >>> uniform = Residuals(torch.zeros(1), torch.zeros(1, dtype=torch.long), levels[None], torch.ones(1, 2))
        >>> uniform.icdf(torch.tensor([0.505]))
        tensor([0.5050])
    """

    arg_constraints: Any = {}  # noqa: RUF012 - torch declares it so
    support: Any = constraints.real
    has_rsample = False

    def __init__(self, loc: Tensor, row: Tensor, quantiles: Tensor, tails: Tensor) -> None:
        self.loc, self.row, self.quantiles, self.tails = loc, row, quantiles, tails
        super().__init__(loc.shape, validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "Residuals":
        """The same distribution with more leading axes; nothing is copied."""
        return Residuals(self.loc.expand(batch_shape), self.row.expand(batch_shape), self.quantiles, self.tails)

    @property
    def mean(self) -> Tensor:
        """`(...)`."""
        return self.loc + _row_mean(self.quantiles, self.tails)[self.row]

    @property
    def variance(self) -> Tensor:
        """`(...)`."""
        low, high = self.quantiles[:, :-1], self.quantiles[:, 1:]
        inner = _TAIL * (low.square() + low * high + high.square()).sum(-1) / 3
        ends, excess = _ends(self.quantiles, self.tails)
        outer = _TAIL * (ends.square() + 2 * ends * excess + 2 * excess.square()).sum(-1)
        return (inner + outer - _row_mean(self.quantiles, self.tails).square())[self.row]

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draws, `(*sample_shape, ...)`."""
        shape = self._extended_shape(torch.Size(sample_shape))
        with torch.no_grad():
            return self.icdf(torch.rand(shape, dtype=self.loc.dtype, device=self.loc.device))

    def icdf(self, value: Tensor) -> Tensor:
        """The quantile at a level between 0 and 1."""
        row, value = torch.broadcast_tensors(self.row, value)
        position = value / _TAIL - 1.0
        place = position.floor().clamp(0, NUM_LEVELS - 2).long()
        low, high = self.quantiles[row, place], self.quantiles[row, place + 1]
        inside = torch.lerp(low, high, (position - place).clamp(0.0, 1.0))
        # The smallest number keeps the logarithm finite where a level is exactly 0 or 1.
        tiny = torch.finfo(value.dtype).tiny
        below = (value / _TAIL).clamp(tiny, 1.0).log() * self.tails[row, 0]
        above = ((1.0 - value) / _TAIL).clamp(tiny, 1.0).log() * self.tails[row, 1]
        return self.loc + inside + below - above

    def cdf(self, value: Tensor) -> Tensor:
        """The probability below `value`."""
        x, row, place, low, high = self._locate(value)
        inside = _TAIL * (place + 1.0 + ((x - low) / (high - low)).clamp(0.0, 1.0))
        first, last = self.quantiles[row, 0], self.quantiles[row, -1]
        below = _TAIL * ((x - first) / self.tails[row, 0]).clamp(max=0.0).exp()
        above = 1.0 - _TAIL * ((last - x) / self.tails[row, 1]).clamp(max=0.0).exp()
        return torch.where(x < first, below, torch.where(x > last, above, inside))

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density, in nats."""
        x, row, _, low, high = self._locate(value)
        first, last = self.quantiles[row, 0], self.quantiles[row, -1]
        under, over = self.tails[row, 0], self.tails[row, 1]
        mass = torch.full_like(x, _TAIL).log()
        inside = mass - (high - low).log()
        outside = torch.where(x < first, (x - first) / under - under.log(), (last - x) / over - over.log()) + mass
        return torch.where((x < first) | (x > last), outside, inside)

    def _locate(self, value: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """The residual, its row, and the piece of the quantile function that it falls into."""
        x = value - self.loc
        row = self.row.expand(x.shape)
        place, step = torch.zeros_like(row), 1 << (NUM_LEVELS - 2).bit_length()
        # Bisection by gathers: a table row per entry would need 49 times the memory of the forecast.
        while step := step >> 1:
            further = (place + step).clamp(max=NUM_LEVELS - 2)
            place = torch.where(self.quantiles[row, further] <= x, further, place)
        return x, row, place, self.quantiles[row, place], self.quantiles[row, place + 1]


def residual_quantiles(residuals: Tensor) -> tuple[Tensor, Tensor]:
    r"""Quantiles and tails of residuals, of mean exactly 0, so that the point forecast stays what it is.

    A bias :math:`b` is not corrected, because the corrected forecast would be another method; it widens the intervals:
    the quantiles are those of :math:`\{r_i\} \cup \{r_i - 2b\}`, which is :math:`\{r_i\}` where there is no bias.

    Args:
        residuals: truth minus point, at least one, `(n,)`.

    Returns:
        Quantiles `(49,)` and mean excesses `(2,)`.
    """
    count = len(residuals)
    pooled = torch.cat([residuals, residuals - 2.0 * residuals.mean()]).sort().values
    levels = torch.arange(1, NUM_LEVELS + 1, dtype=pooled.dtype, device=pooled.device) * _TAIL
    # The tail must hold a few residuals of its own before its mean excess is worth anything.
    tail = min(max(_TAIL, 3.0 / count), 0.25)
    grid = (torch.arange(1, 2 * count + 1, dtype=pooled.dtype, device=pooled.device) - 0.5) / (2 * count)
    inner = _interpolate(levels.clamp(tail, 1.0 - tail), grid, pooled)
    low, high = inner[0], inner[-1]
    deviation = _FLOOR + pooled.std(correction=0) * (0.1 if count > 2 else 1.0)
    under = _mean_excess(low - pooled, deviation)
    over = _mean_excess(pooled - high, deviation)
    quantiles = (
        inner + under * (levels / tail).clamp(max=1.0).log() - over * ((1.0 - levels) / tail).clamp(max=1.0).log()
    )
    quantiles = quantiles + _FLOOR * torch.special.ndtri(levels)
    tails = torch.stack([under, over])
    return quantiles - _row_mean(quantiles[None], tails[None])[0], tails


def _mean_excess(excess: Tensor, least: Tensor) -> Tensor:
    # The quantile is often a residual itself, which rounding must not put beyond it: it would count in the mean.
    beyond = excess[excess > 1e-9 * least]
    return torch.maximum(beyond.mean(), least) if len(beyond) else least


def _interpolate(x: Tensor, knots: Tensor, values: Tensor) -> Tensor:
    if len(knots) == 1:
        return values.expand(x.shape)
    place = torch.searchsorted(knots, x).clamp(1, len(knots) - 1)
    weight = ((x - knots[place - 1]) / (knots[place] - knots[place - 1])).clamp(0.0, 1.0)
    return torch.lerp(values[place - 1], values[place], weight)


def _ends(quantiles: Tensor, tails: Tensor) -> tuple[Tensor, Tensor]:
    """The outermost quantiles and the signed mean excess beyond them, `(row, 2)` each."""
    sign = tails.new_tensor([-1.0, 1.0])
    return quantiles[:, [0, -1]], sign * tails


def _row_mean(quantiles: Tensor, tails: Tensor) -> Tensor:
    ends, excess = _ends(quantiles, tails)
    return _TAIL * ((quantiles[:, :-1] + quantiles[:, 1:]).sum(-1) / 2 + (ends + excess).sum(-1))
