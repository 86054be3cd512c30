"""The Kalman variational auto-encoder."""

from collections.abc import Sequence

import torch

from ..data.channels import Channel
from ..encoders import SiteEncoder
from ..likelihoods import Likelihood, PerKind
from ..linear import Stationary
from ..linear._tensors import concrete
from ..processes import LinearGaussianProcess
from .base import modelled
from .latent_vae import LatentVAE
from .objectives import ELBO, Objective


__all__ = ["KalmanVAE"]


class KalmanVAE(LatentVAE):
    r"""Linear dynamics that are learned whole, seen through a network: filter and smoother inside an auto-encoder.

    .. math::
        ds = A s\,dt + dW, \qquad z_t = H s_t, \qquad x_t \sim p(x \mid z_t), \qquad
        q(z) \propto p(z) \prod_i \mathcal{N}\left(\tilde{y}(x_i) \mid z_{t_i}, \tilde{v}(x_i)\right)

    The matrix couples all of the state and is stable by construction (`Stationary`); transitions are exact between
    irregular times. A `MarkovianGPVAE` is told how smooth its processes are, a `KoopmanVAE` that they oscillate by
    themselves; this model is told neither. The dynamics do not change in time: the mixture of matrices of the published
    model is left to `CRUCell`, which filters.

    Args:
        channels: what is observed; each gets a likelihood after its kind (`PerKind.default`).
        latent_size: size of the latent state that is decoded.
        state_size: size of the state that evolves.
        rate: how fast it turns and forgets at the start, per unit of the model's clock, in which the median training
            window has length 1.
        encoder_hidden: hidden layers of the network that maps an observation to a site.
        decoder_hidden: hidden layers of the decoder; empty for an affine map, with which this is a linear state-space
            model (`LinearGaussianSSM` fits it exactly).
        likelihood: your own decoder and observation family.
        objective: what is maximised; default: the ELBO.

    References:
        A Disentangled Recognition and Nonlinear Dynamics Model for Unsupervised Learning, M. Fraccaro, S. Kamronn,
        U. Paquet, O. Winther, 2017, https://arxiv.org/abs/1710.05741

    Example:
        >>> from ctdyn.data import IrregularBatch
        >>> model = KalmanVAE([Channel("pulse"), Channel("pressure")], latent_size=2, state_size=4)
        >>> times = torch.tensor([[0.0, 0.3, 1.0]])
        >>> batch = IrregularBatch(times, torch.ones(1, 3, 2), torch.ones(1, 3, 2, dtype=torch.bool))
        >>> model.predict(batch, torch.tensor([[0.5, 1.5]]), num_samples=10).mean.shape
        torch.Size([1, 2, 2])
    """

    def __init__(
        self,
        channels: Sequence[Channel],
        latent_size: int = 4,
        state_size: int = 8,
        *,
        rate: float = 3.0,
        encoder_hidden: Sequence[int] = (64,),
        decoder_hidden: Sequence[int] = (64,),
        likelihood: Likelihood | None = None,
        objective: Objective | None = None,
    ) -> None:
        channels = modelled(channels)
        # A model that is loaded has no numbers yet.
        with concrete():
            rows = torch.randn(latent_size, state_size) / state_size**0.5
        process = LinearGaussianProcess(Stationary(state_size, rate=rate), H=rows.tolist())
        super().__init__(
            channels,
            encoder=SiteEncoder(len(channels), latent_size, encoder_hidden),
            process=process,
            likelihood=PerKind.default(latent_size, channels, decoder_hidden) if likelihood is None else likelihood,
            objective=ELBO() if objective is None else objective,
        )
