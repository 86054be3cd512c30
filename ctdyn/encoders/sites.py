"""The encoder that reads every observation by itself."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.functional import softplus

from ..data import IrregularBatch
from ..nn import MLP
from .base import Encoder, Encoding, Sites


__all__ = ["SiteEncoder"]

#: The least precision of a site: a covariance must not be infinite.
_MIN_PRECISION = 1e-6


class SiteEncoder(Encoder):
    r"""Each row of observations becomes a Gaussian pseudo-observation of the latent state, without looking at others.

    .. math::
        (\tilde{y}_i, \rho_i) = \operatorname{MLP}\left([m_i \odot x_i,\; m_i]\right), \qquad
        \tilde{v}_i^{-1} = e^{s} \odot \operatorname{softplus}(\rho_i)

    What belongs together over time is the business of the process, whose smoother passes it on. Rows without an
    observation are no sites. The scale :math:`s` of each dimension is learned, so that sites become as precise as
    observations are in a few steps.

    Args:
        num_channels: how many channels are observed.
        latent_size: size of the latent state.
        hidden: hidden layers of the network; empty for an affine map.
        reads_noise: whether the known standard errors of the observations are read as well.

    Reference:
        Markovian Gaussian Process Variational Autoencoders, H. Zhu, C. Balsells-Rodas, Y. Li, 2023,
        https://proceedings.mlr.press/v202/zhu23k.html

    Example:
        >>> times = torch.tensor([[0.0, 0.3, 1.0]])
        >>> batch = IrregularBatch(times, torch.ones(1, 3, 2), torch.ones(1, 3, 2, dtype=torch.bool))
        >>> SiteEncoder(num_channels=2, latent_size=4)(batch).sites.precision.shape
        torch.Size([1, 3, 4])
    """

    provides = frozenset({"sites"})

    def __init__(
        self, num_channels: int, latent_size: int, hidden: Sequence[int] = (32,), *, reads_noise: bool = False
    ) -> None:
        super().__init__(num_channels, input_size=0, static_size=0)
        self.sizes = {"sites": latent_size}
        self.reads_noise = reads_noise
        self.latent_size = latent_size
        self.net = MLP((2 + reads_noise) * num_channels, 2 * latent_size, hidden)
        self.log_scale = nn.Parameter(torch.zeros(latent_size))

    def forward(self, batch: IrregularBatch) -> Encoding:
        """See `Encoder.forward`."""
        if batch.times.shape[-1] == 0:
            raise ValueError("the batch has no times to read; pass at least one (unobserved) row.")
        features = [torch.where(batch.mask, batch.values, 0), batch.mask.to(batch.values.dtype)]
        if self.reads_noise:
            noise = torch.zeros_like(batch.values) if batch.noise is None else batch.noise
            features.append(torch.where(batch.mask, noise, 0))
        mean, raw = self.net(torch.cat(features, -1)).chunk(2, -1)
        precision = _MIN_PRECISION + self.log_scale.exp() * softplus(raw)
        mask = batch.observed[..., None].expand(mean.shape)
        return Encoding(sites=Sites(batch.times, mean, precision, mask))
