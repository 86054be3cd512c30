"""The deep latent state-space model."""

from collections.abc import Sequence

from ..data.channels import Channel
from ..encoders import BidirectionalStateSpaceEncoder
from ..likelihoods import Likelihood, PerKind
from ..linear.holds import HeldAfter, HeldBefore, Hold
from ..linear.layers import S5, SequenceStack
from ..processes import SequenceProcess
from ..processes.sequence import check_dt
from .base import modelled
from .latent_vae import LatentVAE
from .objectives import ELBO, Anneal, Objective


__all__ = ["LS4"]

#: The time scales that the layers begin with, as steps per knot: memories from a few knots to a thousand.
_STEPS = (2e-3, 0.5)


class LS4(LatentVAE):
    r"""A latent sequence between stacks of state-space layers: for long series, and for series made from nothing.

    .. math::
        z_n \sim p(z_n \mid z_{<n}), \qquad h(t) = \mathrm{SSM}(z_n : t_n \le t), \qquad x_t \sim p(x \mid z(t), h(t)),
        \qquad q(z_n \mid x) \text{ by } \mathrm{SSM}_{\rightleftarrows}(x)

    A chance per observation, and none between them: it is made for noisy, jumping, regular or nearly regular series, of
    any length, where a random initial state says too little. Everything is a scan, at true irregular times; no solver
    runs, and training on windows whose target is the context (`Reconstruct`) takes no loop over time either. Futures
    are drawn one knot after another. Unlike the published code it knows gaps and masks, and can be asked at any time.

    Args:
        channels: what is observed; each gets a likelihood after its kind (`PerKind.default`).
        latent_size: size of the latent state that is drawn at each knot.
        width: width of all layers, of the context and of what the decoder carries.
        depth: layers per stack; there are four stacks.
        dt: the widest gap between knots on the model's clock, on which the median training window has length 1. Give
            the usual gap between observations: new series and futures have a knot every `dt`, which is what memory and
            time are paid for.
        decoder_hidden: hidden layers of the default decoder; empty for an affine map.
        input_size: how many inputs drive the dynamics (they are read by the encoder as well).
        static_size: how many static covariates the encoder sees, at the start of a series.
        likelihood: your own decoder and observation family.
        objective: what is maximised; default: the ELBO, its divergence annealed over the first 200 steps.

    References:
        Deep Latent State Space Models for Time-Series Generation, L. Zhou, M. Poli, W. Xu, S. Massaroli, S. Ermon,
        2023, https://arxiv.org/abs/2212.12749

    Example:
        >>> import torch
        >>> from ctdyn.data import IrregularBatch
        >>> model = LS4([Channel("pulse"), Channel("pressure")], latent_size=2, width=8, dt=0.25)
        >>> times = torch.tensor([[0.0, 0.3, 1.0]])
        >>> batch = IrregularBatch(times, torch.ones(1, 3, 2), torch.ones(1, 3, 2, dtype=torch.bool))
        >>> model.predict(batch, torch.tensor([[0.5, 1.5]]), num_samples=10).mean.shape
        torch.Size([1, 2, 2])
    """

    def __init__(
        self,
        channels: Sequence[Channel],
        latent_size: int = 8,
        width: int = 32,
        depth: int = 2,
        *,
        dt: float = 0.02,
        decoder_hidden: Sequence[int] = (64,),
        input_size: int = 0,
        static_size: int = 0,
        likelihood: Likelihood | None = None,
        objective: Objective | None = None,
    ) -> None:
        channels = modelled(channels)
        check_dt(dt)

        def layers(hold: Hold) -> list[S5]:
            steps = (_STEPS[0] / dt, _STEPS[1] / dt)
            return [S5(width, state_size=width, steps=steps, hold=hold) for _ in range(depth)]

        process = SequenceProcess(
            latent_size,
            width,
            SequenceStack(layers(HeldAfter()), latent_size + 1 + input_size, 2 * latent_size),
            SequenceStack(layers(HeldBefore()), latent_size + input_size, width),
            hidden=(width,),
            dt=dt,
        )
        size = process.latent_size
        super().__init__(
            channels,
            encoder=BidirectionalStateSpaceEncoder(
                len(channels),
                latent_size,
                width,
                ahead=layers(HeldBefore()),
                back=layers(HeldBefore()),
                input_size=input_size,
                static_size=static_size,
            ),
            process=process,
            likelihood=PerKind.default(size, channels, decoder_hidden) if likelihood is None else likelihood,
            objective=ELBO(beta=Anneal(200)) if objective is None else objective,
        )
