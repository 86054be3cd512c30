"""What a whole irregular series was, in a few numbers: a feature without parameters."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .._config import Configurable
from ..data import IrregularBatch
from ..paths.missing import fill_forward, fill_linear
from .hippo import HippoLegS
from .holds import HeldBefore, Hold, Ramp


__all__ = ["SeriesMemory"]


class SeriesMemory(nn.Module, Configurable):
    r"""The past of every channel as Legendre coefficients, for irregular series with gaps: exact, without parameters.

    .. math:: x_d(s) \approx \sum_n c_{dn}(t) \sqrt{2n + 1}\,P_n\left(2\,\frac{s - t_d}{t - t_d} - 1\right),
        \qquad t_d \le s \le t

    where :math:`t_d` is the time of the channel's first observation. A longer past is the same number of coefficients,
    and the same signal seen at another rate gives the same memory, up to what lies between the observations: nothing
    has to be trained again. Feed them to any model as features of a series.

    Args:
        size: coefficients per channel.
        hold: what a channel does between its observations. `HeldBefore()`, the default, keeps the last value, so that
            the memory at a time knows nothing later; `Ramp()` draws lines, which is closer for smooth signals and looks
            ahead to the next observation.

    Raises:
        ValueError: the size is below 1, or the hold is another one.

    Reference:
        HiPPO: Recurrent Memory with Optimal Polynomial Projections, A. Gu, T. Dao, S. Ermon, A. Rudra, C. Re, 2020,
        https://arxiv.org/abs/2008.07669

    Example:
        >>> times = torch.tensor([[0.0, 0.3, 0.4, 2.0]])
        >>> values, mask = times[..., None], torch.tensor([[[True], [False], [True], [True]]])
        >>> memory = SeriesMemory(3, hold=Ramp())
        >>> coefficients = memory(IrregularBatch(times, values, mask))
        >>> memory.read(coefficients[:, -1], torch.tensor([0.25, 1.0])).squeeze(1).round(decimals=4)
        tensor([[0.5000, 2.0000]])
    """

    def __init__(self, size: int, *, hold: Hold | None = None) -> None:
        super().__init__()
        hold = HeldBefore() if hold is None else hold
        if not isinstance(hold, HeldBefore | Ramp):
            raise ValueError(f"a memory needs HeldBefore() or Ramp(): a signal that is there at all times; got {hold}.")
        self.size = size
        self.hold = hold
        self.dynamics = HippoLegS(size)

    def forward(self, batch: IrregularBatch) -> Tensor:
        """The memory at every time of the batch.

        Args:
            batch: observations; channels may be missing one by one.

        Returns:
            Coefficients, `(*batch, time, channel, size)`; 0 until a channel is first observed.
        """
        fill = fill_linear(batch.times, batch.values, batch.mask) if isinstance(self.hold, Ramp) else None
        values = fill_forward(batch.values, batch.mask) if fill is None else fill
        clock = self._clock(batch)
        found = self.dynamics.scan(clock, values.mT[..., None], hold=self.hold)
        begun = (batch.mask.cummax(-2).values).mT[..., None]
        return torch.where(begun, found, 0.0).movedim(-2, -3)

    def read(self, coefficients: Tensor, share: Tensor) -> Tensor:
        """The signal as it is remembered.

        Args:
            coefficients: of one time, `(*batch, channel, size)`.
            share: when, as a share of the time from a channel's first observation (0) to now (1), `(query,)`.

        Returns:
            Values, `(*batch, channel, query)`.
        """
        return coefficients @ self.dynamics.basis(share.to(coefficients.dtype)).mT

    def _clock(self, batch: IrregularBatch) -> Tensor:
        """Time since the first observation of each channel, `(*batch, channel, time)`; 0 before it."""
        times = batch.times.to(torch.float64)[..., None, :]
        seen = batch.mask.mT
        first = torch.where(seen, times, torch.inf).amin(-1, keepdim=True)
        return (times - torch.where(first.isinf(), times[..., -1:], first)).clamp(min=0.0)
