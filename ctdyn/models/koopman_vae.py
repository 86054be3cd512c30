"""The Koopman variational auto-encoder with a linear prior."""

from collections.abc import Sequence
from math import pi

from .._checks import check_instance
from ..data.channels import Channel
from ..encoders import SiteEncoder
from ..likelihoods import Likelihood, PerKind
from ..linear import Oscillators
from ..processes import LinearGaussianProcess
from ._parts import size_of
from .base import modelled
from .latent_vae import LatentVAE
from .objectives import ELBO, Objective
from .spectrum import Spectral
from .terms import LossTerm


__all__ = ["KoopmanVAE"]


class KoopmanVAE(LatentVAE, Spectral):
    r"""A network between observations and coordinates in which the dynamics are linear; its spectrum can be read.

    .. math::
        dz_j = \lambda_j z_j\,dt + \sigma_j\,dW_j, \quad \lambda_j = -\gamma_j + i \omega_j, \qquad
        x_t \sim p(x \mid z_t), \qquad q(z) \propto p(z) \prod_i \mathcal{N}\left(\tilde{y}(x_i) \mid z_{t_i},
        \tilde{v}(x_i)\right)

    The prior is linear in continuous time, exact between irregular times, and constrained by construction: stable with
    learned decays; on the unit circle without (`Oscillators(frequencies)`); or at frequencies that are given
    (`Oscillators(frequencies, decay=..., fixed=True)`). `spectrum()` reads eigenvalues, periods and modes. The
    posterior is exact given the sites of the encoder.

    This is not the published code, whose prior is a recurrent network with a penalty for being far from linear: that
    is a `LatentVAE` with another process and `terms=[LinearPriorPenalty()]`. `terms=[RepresentationTerm(VAMPScore(),
    lag)]` trains the coordinates by a score as well, and `Reencoded` corrects the course of long forecasts.

    Args:
        channels: what is observed; each gets a likelihood after its kind (`PerKind.default`).
        pairs: complex coordinates; the latent state holds their real and imaginary parts; default: 8.
        dynamics: your own spectrum in their place; default: stable, with decay 1 and evenly spaced periods of 1, 1/2,
            ..., 1/pairs of the unit of the model's clock, in which the median training window has length 1.
        encoder_hidden: hidden layers of the network that maps an observation to a site.
        decoder_hidden: hidden layers of the decoder; empty for an affine map, with which the model is a sum of
            oscillators.
        likelihood: your own decoder and observation family.
        objective: what is maximised; default: the ELBO.
        terms: what is added to the loss.

    Raises:
        TypeError: `dynamics` are no `Oscillators`; others are the business of `LatentVAE` with a
            `LinearGaussianProcess`.
        ValueError: both `pairs` and `dynamics` are given.

    References:
        Generative modeling of regular and irregular time series data via Koopman VAEs, I. Naiman, N. B. Erichson,
        P. Ren, M. W. Mahoney, O. Azencot, 2024, https://arxiv.org/abs/2310.02619

    Example:
        >>> import torch
        >>> from ctdyn.data import IrregularBatch
        >>> model = KoopmanVAE([Channel("x")], pairs=2)
        >>> model.spectrum().period.sort().values
        tensor([0.5000, 1.0000])
        >>> batch = IrregularBatch(torch.zeros(1, 1), torch.ones(1, 1, 1), torch.ones(1, 1, 1, dtype=torch.bool))
        >>> model.predict(batch, torch.tensor([[0.5, 1.5]]), num_samples=10).mean.shape
        torch.Size([1, 2, 1])
    """

    def __init__(
        self,
        channels: Sequence[Channel],
        pairs: int | None = None,
        *,
        dynamics: Oscillators | None = None,
        encoder_hidden: Sequence[int] = (64,),
        decoder_hidden: Sequence[int] = (64,),
        likelihood: Likelihood | None = None,
        objective: Objective | None = None,
        terms: Sequence[LossTerm] = (),
    ) -> None:
        channels = modelled(channels)
        pairs = size_of("KoopmanVAE", "pairs", pairs, dynamics, 8)
        if dynamics is not None:
            check_instance("dynamics", dynamics, Oscillators, "Oscillators([6.3, 12.6], decay=1.0)")
        else:
            dynamics = Oscillators([2.0 * pi * (index + 1) for index in range(pairs)], decay=1.0)
        process = LinearGaussianProcess(dynamics)
        size = process.latent_size
        super().__init__(
            channels,
            encoder=SiteEncoder(len(channels), size, encoder_hidden),
            process=process,
            likelihood=PerKind.default(size, channels, decoder_hidden) if likelihood is None else likelihood,
            objective=ELBO() if objective is None else objective,
            terms=terms,
        )
