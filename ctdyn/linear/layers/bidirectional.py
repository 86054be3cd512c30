"""A layer that reads series in both directions, where the whole series is at hand."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..._config import Configurable
from .base import SequenceLayer


__all__ = ["Bidirectional"]


class Bidirectional(nn.Module, Configurable):
    r"""The sum of a layer that reads series forward and one that reads them backward, from the last time to the first.

    .. math:: y_k = f(u_1, \dots, u_k) + b(u_L, \dots, u_k)

    For interpolation and labels. It sees the future, so it has no `step`. Series that are padded by repeating their
    last time and input are read backward from there, unharmed.

    Args:
        ahead: what reads forward.
        back: what reads backward; on its clock, time runs from minus the last time.

    Raises:
        ValueError: the two differ in their sizes.

    Reference:
        Simplified State Space Layers for Sequence Modeling, J. T. H. Smith, A. Warrington, S. W. Linderman, 2023,
        https://arxiv.org/abs/2208.04933

    Example:
        >>> from ctdyn.linear.layers import S5
        >>> layer = Bidirectional(S5(3, state_size=8), S5(3, state_size=8))
        >>> layer(torch.tensor([0.0, 0.1, 4.0]), torch.randn(2, 3, 3)).shape
        torch.Size([2, 3, 3])
    """

    def __init__(self, ahead: SequenceLayer, back: SequenceLayer) -> None:
        super().__init__()
        for name in ("input_size", "output_size"):
            own, other = getattr(ahead, name), getattr(back, name)
            if own != other:
                raise ValueError(f"ahead and back must have the same {name}; got {own} and {other}.")
        self.ahead = ahead
        self.back = back
        self.input_size = ahead.input_size
        self.output_size = ahead.output_size

    def forward(self, ts: Tensor, us: Tensor, *, reset: Tensor | None = None) -> Tensor:
        """The outputs at all times of all series.

        Args:
            ts: times, `(*batch, time)` or `(time,)`, as for `SequenceLayer.scan`.
            us: inputs, `(*batch, time, input)`.
            reset: True where a series begins anew, `(*batch, time)`: read backward, one ends there.

        Returns:
            Outputs, `(*batch, time, output)`.
        """
        ahead, _ = self.ahead.scan(ts, us, reset=reset)
        ended = None
        if reset is not None:
            # Backward, a series begins at the time before a reset.
            ended = torch.cat([reset[..., 1:], torch.zeros_like(reset[..., :1])], -1).flip(-1)
        back, _ = self.back.scan(-ts.flip(-1), us.flip(-2), reset=ended)
        return ahead + back.flip(-2)
