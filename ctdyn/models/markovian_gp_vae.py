"""The Markovian Gaussian process variational auto-encoder."""

from collections.abc import Sequence
from math import exp, log

from ..data.channels import Channel
from ..encoders import SiteEncoder
from ..likelihoods import Likelihood, PerKind
from ..linear import LinearDynamics, Matern
from ..processes import LinearGaussianProcess
from ._parts import size_of
from .base import modelled
from .latent_vae import LatentVAE
from .objectives import ELBO, Objective


__all__ = ["MarkovianGPVAE"]


class MarkovianGPVAE(LatentVAE):
    r"""Latent Gaussian processes, decoded by a network: exact inference given Gaussian sites, calibrated in gaps.

    .. math::
        z_l \sim \mathcal{GP}(0, k_l), \qquad x_t \sim p(x \mid z_t), \qquad
        q(z) \propto p(z) \prod_i \mathcal{N}\left(\tilde{y}(x_i) \mid z_{t_i}, \tilde{v}(x_i)\right)

    The kernels are those of linear dynamics, so that a filter and a smoother do the inference, in time linear in the
    length of a series. Away from observations it knows no more than the prior: it fills gaps well and forecasts only as
    far as its length scales reach.

    Args:
        channels: what is observed; each gets a likelihood after its kind (`PerKind.default`).
        latent_size: number of latent processes; default: 8.
        dynamics: your own prior in their place, with batch axes `(latent_size,)` or none; default: `Matern(2.5)` with
            length scales from a twentieth to twice the unit of the model's clock, in which the median training window
            has length 1.
        encoder_hidden: hidden layers of the network that maps an observation to a site.
        decoder_hidden: hidden layers of the decoder; empty for an affine map.
        likelihood: your own decoder and observation family.
        objective: what is maximised; default: the ELBO.
        reads_noise: whether the encoder reads the known standard errors of the observations.

    Raises:
        ValueError: both `latent_size` and `dynamics` are given.

    References:
        Markovian Gaussian Process Variational Autoencoders, H. Zhu, C. Balsells-Rodas, Y. Li, 2023,
        https://proceedings.mlr.press/v202/zhu23k.html

    Example:
        >>> import torch
        >>> from ctdyn.data import IrregularBatch
        >>> model = MarkovianGPVAE([Channel("pulse"), Channel("pressure")], latent_size=3)
        >>> times = torch.tensor([[0.0, 0.3, 1.0]])
        >>> batch = IrregularBatch(times, torch.ones(1, 3, 2), torch.ones(1, 3, 2, dtype=torch.bool))
        >>> model.predict(batch, torch.tensor([[0.5, 1.5]]), num_samples=10).mean.shape
        torch.Size([1, 2, 2])
    """

    def __init__(
        self,
        channels: Sequence[Channel],
        latent_size: int | None = None,
        *,
        dynamics: LinearDynamics | None = None,
        encoder_hidden: Sequence[int] = (64,),
        decoder_hidden: Sequence[int] = (64,),
        likelihood: Likelihood | None = None,
        objective: Objective | None = None,
        reads_noise: bool = False,
    ) -> None:
        channels = modelled(channels)
        latent_size = size_of("MarkovianGPVAE", "latent_size", latent_size, dynamics, 8)
        process = LinearGaussianProcess(_matern(latent_size) if dynamics is None else dynamics)
        size = process.latent_size
        super().__init__(
            channels,
            encoder=SiteEncoder(len(channels), size, encoder_hidden, reads_noise=reads_noise),
            process=process,
            likelihood=PerKind.default(size, channels, decoder_hidden) if likelihood is None else likelihood,
            objective=ELBO() if objective is None else objective,
        )


def _matern(latent_size: int) -> Matern:
    """Length scales spread evenly over a range of sizes, so that some process fits each channel from the start."""
    low, high = log(0.05), log(2.0)
    steps = [low + (high - low) * i / max(latent_size - 1, 1) for i in range(latent_size)]
    return Matern(2.5, lengthscale=[exp(step) for step in steps])
