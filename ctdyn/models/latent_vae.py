"""The variational auto-encoder over latent trajectories: an encoder, a process, a likelihood and an objective."""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn

from .._checks import check_list, shown
from .._types import Times, Values
from ..data import IrregularBatch, Window
from ..data.channels import Channel
from ..encoders import Encoder, Encoding
from ..likelihoods import Likelihood, PoissonTimes
from ..paths import Path
from ..processes import LatentProcess
from ._parts import check_parts, read_by
from ._reading import Question, Reading
from .base import Aggregates, Encodes, Generative, Loss, Model, Predictive, Scorable, input_path
from .objectives import ELBO, Objective
from .objectives.base import divergences
from .terms import Inference, LossTerm


__all__ = ["LatentVAE", "latent_model"]


class LatentVAE(Model, Aggregates, Encodes, Generative, Scorable):
    r"""A latent process that an encoder infers and a likelihood decodes; compose your own model from parts with it.

    .. math::
        z \sim p(z), \qquad x_{t} \sim p(x \mid z_{t}), \qquad q(z \mid \text{context}) \approx p(z \mid \text{context})

    The loss is the negative objective on the window's target, so what it bounds is what the window says: with
    `Reconstruct`, the log evidence of the series.

    Args:
        channels: what is observed.
        encoder: reads the context.
        process: the latent dynamics.
        likelihood: decodes a latent state.
        objective: what is maximised; default: `ELBO()`.
        terms: what is added to the loss: penalties and second tasks.
        times: what the times of the observations tell of the latent state, where they are no matter of chance; they
            are then part of what is bounded.

    Raises:
        TypeError: a part is of another sort, or a class where an instance is wanted.
        ValueError: the parts do not fit: the process needs something that the encoder does not provide, or in another
            size; the encoder reads, or the likelihood decodes, another number of channels, or channels of other kinds;
            `likelihood` or `times` are for another latent size; observation times are to tell something, and the
            process does not integrate.

    References:
        Neural Ordinary Differential Equations, Chen, Rubanova, Bettencourt, Duvenaud, 2018.
        https://arxiv.org/abs/1806.07366

    Example:
        >>> from ctdyn.encoders import GRUEncoder
        >>> from ctdyn.fields import LinearField
        >>> from ctdyn.likelihoods import Gaussian
        >>> from ctdyn.processes import ODEProcess
        >>> process = ODEProcess(LinearField(2), latent_size=2)
        >>> model = LatentVAE([Channel("level")], GRUEncoder(1, 2), process, Gaussian(2, 1))
        >>> times = torch.tensor([[0.0, 0.5, 1.0]])
        >>> batch = IrregularBatch(times, torch.ones(1, 3, 1), torch.ones(1, 3, 1, dtype=torch.bool))
        >>> model.predict(batch, torch.tensor([[2.0]])).mean.shape
        torch.Size([1, 1, 1])
    """

    def __init__(
        self,
        channels: Sequence[Channel],
        encoder: Encoder,
        process: LatentProcess,
        likelihood: Likelihood,
        objective: Objective = ELBO(),  # noqa: B008
        terms: Sequence[LossTerm] = (),
        times: PoissonTimes | None = None,
    ) -> None:
        super().__init__(channels)
        check_parts(self.channels, encoder, process, likelihood, objective, times)
        self.encoder = encoder
        self.process = process
        self.likelihood = likelihood
        self.objective = objective
        check_list("terms", terms, LossTerm, "[Supervision([0])]")
        self.terms = nn.ModuleList(terms)
        self.times = times
        # Says before training what does not fit.
        _ = self.reading

    @property
    def reads(self) -> frozenset[str]:
        """See `Model.reads`: what reaches its encoder, and inputs that drive its process."""
        own = read_by(self.encoder)
        return own | {"inputs"} if self.process.driven else own

    def loss(self, window: Window, *, generator: Generator | None = None, step: int | None = None) -> Loss:
        """See `Model.loss`; the parts are means over the series, in nats, and the true bound per observation."""
        context, target = window.context, window.target
        encoding = self.encode_context(context)
        latent, log_prob, told = self.reading.score(encoding, window, self.objective.num_samples, generator)
        with torch.no_grad():
            true_bound = self.objective.bound(log_prob, latent)
            parts = {
                "bound": true_bound.mean(),
                "log_likelihood": log_prob.mean(),
                "kl": sum((kl.mean() for kl in divergences(latent).values()), start=log_prob.new_zeros(())),
                "nats_per_observation": -true_bound.sum() / target.mask.sum().clamp(min=1),
                **told,
            }
        total = -self.objective.bound(log_prob, latent, step).mean()
        inference = Inference(context, encoding, latent, self.process, generator, target.observed)
        for term in self.terms:
            value = term(inference)
            name = type(term).__name__
            parts[name] = value.detach() + parts.get(name, 0.0)
            total = total + value
        return Loss(total, parts)

    def predict(
        self,
        context: IrregularBatch,
        ts: Times,
        inputs: Path | None = None,
        *,
        noise: Values | None = None,
        num_samples: int = 100,
        generator: Generator | None = None,
    ) -> Predictive:
        """See `Model.predict`."""
        return self._predictive(context, Question(ts, noise=noise), num_samples, generator, inputs)

    def predict_means(
        self,
        context: IrregularBatch,
        start: Times,
        ts: Times,
        inputs: Path | None = None,
        *,
        noise: Values | None = None,
        num_samples: int = 100,
        generator: Generator | None = None,
    ) -> Predictive:
        """See `Aggregates.predict_means`; the process must integrate, and the likelihood be around a location."""
        return self._predictive(context, Question(ts, start, noise), num_samples, generator, inputs)

    def encode(self, context: IrregularBatch) -> Tensor:
        """What the posterior says of each series, `(*batch, feature)`: the `summary` of its process.

        The mean of the state at the first observation for a state that follows an equation from there, at the last one
        for linear-Gaussian dynamics (`KoopmanVAE`, `KalmanVAE`, `MarkovianGPVAE`), that of a static latent; the parts
        of a `JointProcess` side by side, in their order.
        """
        return self.process.summary(self.encode_context(context))

    def sample(
        self,
        ts: Times,
        inputs: Path | None = None,
        *,
        num_samples: int = 1,
        generator: Generator | None = None,
    ) -> Predictive:
        """See `Generative.sample`: the latent state starts from the prior at the first of `ts`."""
        latent = self.process.prior(ts[..., 0], ts, num_samples, generator, inputs)
        return Predictive(self.likelihood(latent.zs, ts))

    def log_prob(self, window: Window, *, num_samples: int = 100, generator: Generator | None = None) -> Tensor:
        """See `Scorable.log_prob`: the joint density of the target under the posterior given the context."""
        context, target = window.context, window.target
        question = Question(target.times, target.start, target.noise)
        predictive = self._predictive(context, question, num_samples, generator, input_path(context, target))
        return predictive.joint_log_prob(target.values, target.mask)

    def _predictive(
        self,
        context: IrregularBatch,
        question: Question,
        num_samples: int,
        generator: Generator | None,
        inputs: Path | None,
    ) -> Predictive:
        encoding = self.encode_context(context)
        return Predictive(self.reading.answer(encoding, context, question, num_samples, generator, inputs)[1])

    @property
    def reading(self) -> Reading:
        """How its process and its likelihood answer, given an encoding."""
        return Reading(self.process, self.likelihood, self.times)

    def encode_context(self, context: IrregularBatch) -> Encoding:
        """What the encoder makes of a context, for the process."""
        return self.encoder(context)


def latent_model(owner: str, model: object) -> LatentVAE:
    """The model that a wrapper takes.

    Args:
        owner: who takes it, for the message.
        model: what was given.

    Raises:
        TypeError: it is no latent model, or one that is wrapped already.
    """
    if isinstance(model, LatentVAE):
        return model
    raise TypeError(
        f"{owner} takes a model of an encoder, a process and a likelihood by itself, such as LatentODE, KoopmanVAE or "
        f"LatentVAE(...); got {shown(model)}."
    )
