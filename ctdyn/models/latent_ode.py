"""The latent ODE."""

from collections.abc import Sequence

from ..data.channels import Channel
from ..encoders import GRUEncoder
from ..fields import MLPField
from ..integrate import Adjoint, ConstantStep, StepController
from ..likelihoods import Likelihood, PerKind, PoissonTimes
from ..nn import xavier_
from ..processes import ODEProcess
from ..solvers import RK4, Solver
from ..structure import VectorField
from .base import modelled
from .latent_vae import LatentVAE
from .objectives import ELBO, Anneal, Objective


__all__ = ["LatentODE"]


class LatentODE(LatentVAE):
    r"""A random initial state that follows a neural ODE: the model to start with.

    .. math::
        z_{t_1} \sim \mathcal{N}(0, I), \qquad \frac{dz}{dt} = f(z), \qquad x_{t} \sim p(x \mid z_t)

    A reverse-time GRU infers :math:`q(z_{t_1})` from the context. All uncertainty about the future sits in the initial
    state and in the noise of the observations. For other encoders and processes compose a `LatentVAE`.

    The default solver takes equal Runge-Kutta steps from the first observation on and reads all times from the dense
    output, so a series costs the same whether 10 or 300 of its times are asked for.

    Args:
        channels: what is observed; each gets a likelihood after its kind (`PerKind.default`).
        latent_size: size of the latent state.
        hidden: hidden layers of the default field.
        encoder_size: size of the encoder's hidden state.
        decoder_hidden: hidden layers of the default decoder; empty for an affine map.
        input_size: how many inputs drive the dynamics (they are read by the encoder as well).
        static_size: how many static covariates the encoder sees.
        field: your own dynamics, in place of a perceptron.
        likelihood: your own decoder and observation family.
        objective: what is maximised; default: the ELBO, its divergence annealed over the first 200 steps.
        times: what the times of the observations tell of the latent state; None where they tell nothing.
        solver: the method; default: `RK4()`.
        controller: the step control; default: `ConstantStep(0.05)` on the model's clock, on which the median training
            window has length 1.
        adjoint: how gradients are computed; default: `Direct()`.

    References:
        Neural Ordinary Differential Equations, Chen, Rubanova, Bettencourt, Duvenaud, 2018.
        https://arxiv.org/abs/1806.07366
        Latent ODEs for Irregularly-Sampled Time Series, Rubanova, Chen, Duvenaud, 2019.
        https://arxiv.org/abs/1907.03907

    Example:
        >>> import torch
        >>> from ctdyn.data import IrregularBatch
        >>> model = LatentODE([Channel("pulse"), Channel("pressure")], latent_size=4, hidden=(16,))
        >>> times = torch.tensor([[0.0, 0.3, 1.0]])
        >>> batch = IrregularBatch(times, torch.ones(1, 3, 2), torch.ones(1, 3, 2, dtype=torch.bool))
        >>> model.predict(batch, torch.tensor([[0.5, 1.5]]), num_samples=10).mean.shape
        torch.Size([1, 2, 2])
    """

    def __init__(
        self,
        channels: Sequence[Channel],
        latent_size: int = 16,
        hidden: Sequence[int] = (64, 64),
        *,
        encoder_size: int = 64,
        decoder_hidden: Sequence[int] = (),
        input_size: int = 0,
        static_size: int = 0,
        field: VectorField | None = None,
        likelihood: Likelihood | None = None,
        objective: Objective | None = None,
        solver: Solver | None = None,
        times: PoissonTimes | None = None,
        controller: StepController | None = None,
        adjoint: Adjoint | None = None,
    ) -> None:
        channels = modelled(channels)
        super().__init__(
            channels,
            encoder=GRUEncoder(
                len(channels), latent_size, encoder_size, input_size=input_size, static_size=static_size
            ),
            process=ODEProcess(
                _perceptron(latent_size, hidden, input_size) if field is None else field,
                latent_size,
                solver=RK4() if solver is None else solver,
                controller=ConstantStep(0.05) if controller is None else controller,
                adjoint=adjoint,
            ),
            likelihood=PerKind.default(latent_size, channels, decoder_hidden) if likelihood is None else likelihood,
            objective=ELBO(beta=Anneal(200)) if objective is None else objective,
            times=times,
        )


def _perceptron(latent_size: int, hidden: Sequence[int], input_size: int) -> MLPField:
    """A field that moves a standard normal state by about 1 per unit of time.

    PyTorch's own initial weights move it by about 0.1: trajectories look constant, and training waits on a plateau.
    """
    field = MLPField(latent_size, hidden, input_size=input_size)
    xavier_(field)
    return field
