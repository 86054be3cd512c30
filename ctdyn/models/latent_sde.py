"""The latent SDE."""

from collections.abc import Sequence
from math import expm1, log

from torch import nn

from ..data.channels import Channel
from ..encoders import ConvolutionEncoder, ReverseGRUEncoder
from ..fields import MLPSDEField
from ..integrate import Adjoint
from ..likelihoods import Likelihood, PerKind, PoissonTimes
from ..nn import xavier_
from ..processes import MatchedSDEProcess, SDEProcess
from ..structure import SDEField
from .base import modelled
from .latent_vae import LatentVAE
from .objectives import ELBO, Anneal, Objective


__all__ = ["LatentSDE"]


class LatentSDE(LatentVAE):
    r"""A latent state that follows a neural stochastic differential equation: forecasts that fan out, and know it.

    .. math::
        z_{t_1} \sim \mathcal{N}(\mu, \sigma^2), \qquad dz = f(z)\,dt + g(z)\,dW, \qquad x_{t} \sim p(x \mid z_t)

    Within the context the posterior has a drift of its own and the prior's diffusion; beyond it, it follows the prior.
    Train it on windows whose target contains the context (`Reconstruct`, or `include_context=True`), so that prior and
    posterior learn of each other; what a future costs is then a matter of the noise and not only of the start.

    With `matching` the posterior is given by its marginals, and training runs no solver: faster by an order of
    magnitude on long windows, for dense series (`ConvolutionEncoder`); posterior samples are then marginal in time.

    Args:
        channels: what is observed; each gets a likelihood after its kind (`PerKind.default`).
        latent_size: size of the latent state.
        hidden: hidden layers of the drift of the default field, and of the posterior's network.
        context_size: size of what the encoder says of each time.
        encoder_size: size of the encoder's hidden state.
        decoder_hidden: hidden layers of the default decoder; empty for an affine map.
        input_size: how many inputs drive the dynamics (they are read by the encoder as well).
        static_size: how many static covariates the encoder sees.
        field: your own drift and diffusion, in place of perceptrons.
        likelihood: your own decoder and observation family.
        objective: what is maximised; default: the ELBO, its divergence annealed over the first 200 steps.
        matching: whether training goes without a solver (SDE Matching).
        times: what the times of the observations tell of the latent state; None where they tell nothing. It needs
            trajectories to integrate along, which `matching` does not have.
        dt: length of a step on the model's clock, on which the median training window has length 1.
        adjoint: how gradients are computed; default: `Direct()`.

    Raises:
        ValueError: `times` with `matching`.

    References:
        Scalable Gradients for Stochastic Differential Equations, Li, Wong, Chen, Duvenaud, 2020.
        https://arxiv.org/abs/2001.01328
        SDE Matching: Scalable and Simulation-Free Training of Latent Stochastic Differential Equations, Bartosh,
        Vetrov, Naesseth, 2025. https://arxiv.org/abs/2502.02472

    Example:
        >>> import torch
        >>> from ctdyn.data import IrregularBatch
        >>> model = LatentSDE([Channel("pulse"), Channel("pressure")], latent_size=4, hidden=(16,))
        >>> times = torch.tensor([[0.0, 0.3, 1.0]])
        >>> batch = IrregularBatch(times, torch.ones(1, 3, 2), torch.ones(1, 3, 2, dtype=torch.bool))
        >>> model.predict(batch, torch.tensor([[0.5, 1.5]]), num_samples=10).mean.shape
        torch.Size([1, 2, 2])
    """

    def __init__(
        self,
        channels: Sequence[Channel],
        latent_size: int = 8,
        hidden: Sequence[int] = (64,),
        *,
        context_size: int = 16,
        encoder_size: int = 64,
        decoder_hidden: Sequence[int] = (),
        input_size: int = 0,
        static_size: int = 0,
        field: SDEField | None = None,
        likelihood: Likelihood | None = None,
        objective: Objective | None = None,
        matching: bool = False,
        times: PoissonTimes | None = None,
        dt: float = 0.05,
        adjoint: Adjoint | None = None,
    ) -> None:
        channels = modelled(channels)
        encoder = ConvolutionEncoder if matching else ReverseGRUEncoder
        field = _perceptrons(latent_size, hidden, input_size) if field is None else field
        super().__init__(
            channels,
            encoder=encoder(
                len(channels), latent_size, context_size, encoder_size, input_size=input_size, static_size=static_size
            ),
            process=MatchedSDEProcess(field, latent_size, context_size, hidden=hidden, dt=dt)
            if matching
            else SDEProcess(field, latent_size, context_size, hidden=hidden, dt=dt, adjoint=adjoint),
            likelihood=PerKind.default(latent_size, channels, decoder_hidden) if likelihood is None else likelihood,
            objective=ELBO(beta=Anneal(200)) if objective is None else objective,
            times=times,
        )


def _perceptrons(latent_size: int, hidden: Sequence[int], input_size: int) -> MLPSDEField:
    """A field whose drift moves a standard normal state by about 1 per unit of time, and whose noise does by less.

    With as much noise as movement a trajectory says nothing of what follows, and training first has to find that out.
    """
    field = MLPSDEField(latent_size, hidden, input_size=input_size)
    xavier_(field.mlp)
    # softplus of it is the noise at the start.
    nn.init.constant_(field.strength.get_parameter("bias"), log(expm1(_NOISE)))
    return field


_NOISE = 0.3
