"""A description of the whole series."""

from __future__ import annotations

import torch

from .._checks import check_instance
from ..data import IrregularBatch
from .base import Encoder, Encoding


__all__ = ["SummaryEncoder"]


class SummaryEncoder(Encoder):
    r"""What any encoder makes of a series as its description, for latents that belong to all of it.

    .. math:: s = \left[\mu,\; \log \sigma\right] \quad \text{of} \quad q(z_{t_1}) = \mathcal{N}(\mu, \sigma^2)

    Args:
        encoder: an encoder that provides `q0`; the description has twice the size of its latent state.

    Raises:
        ValueError: the encoder provides no `q0`.

    References:
        Disentangled Sequential Autoencoder, Y. Li, S. Mandt, 2018, https://arxiv.org/abs/1803.02991

    Example:
        >>> from ctdyn.encoders import GRUEncoder
        >>> times = torch.tensor([[0.0, 0.3, 1.0]])
        >>> batch = IrregularBatch(times, torch.ones(1, 3, 2), torch.ones(1, 3, 2, dtype=torch.bool))
        >>> SummaryEncoder(GRUEncoder(num_channels=2, latent_size=4))(batch).static.shape
        torch.Size([1, 8])
    """

    provides = frozenset({"static"})

    def __init__(self, encoder: Encoder) -> None:
        check_instance("encoder", encoder, Encoder, "GRUEncoder(num_channels, latent_size)")
        super().__init__(encoder.num_channels, input_size=encoder.input_size, static_size=encoder.static_size)
        if "q0" not in encoder.provides:
            raise ValueError(
                f"SummaryEncoder needs an encoder that provides q0, such as GRUEncoder; {type(encoder).__name__} "
                f"provides {sorted(encoder.provides)}."
            )
        self.encoder = encoder
        self.sizes = {"static": 2 * encoder.sizes["q0"]} if "q0" in encoder.sizes else {}

    def forward(self, batch: IrregularBatch) -> Encoding:
        """See `Encoder.forward`."""
        q0 = self.encoder(batch).q0
        assert q0 is not None
        return Encoding(static=torch.cat([q0.mean, q0.stddev.log()], -1))
