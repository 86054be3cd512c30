"""A posterior that is improved for each series when it is asked."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import log

import torch
from torch import Generator, Tensor
from torch.distributions import Independent, Normal

from .._types import Times, Values
from ..data import IrregularBatch, Window
from ..encoders import Encoding
from ..paths import Path
from ._reading import Question
from .base import Generative, Loss, Model, Predictive, Scorable, input_path
from .latent_vae import LatentVAE, latent_model


__all__ = ["Refined"]


class Refined(Model, Generative, Scorable):
    r"""A latent model whose posterior is not left at the encoder's guess: ascent of each series' own bound.

    .. math:: \phi_0 = \operatorname{encoder}(\text{context}), \qquad
        \phi_{k + 1} = \phi_k + \eta\, \nabla_\phi \left( \mathrm{E}_{q_\phi} \log p(\text{context} \mid z)
        - \operatorname{KL}(q_\phi \,\|\, p) \right)

    What is refined are the numbers of the encoding: mean and width of `q0`, means and precisions of sites, the
    description of the series; a context path stays as it is. A series keeps the encoder's guess unless the end is
    clearly better for fresh random numbers, so that its bound does not fall. Training is that of the model itself: wrap
    it from the start, or wrap what is fitted, `forecaster.model = Refined(forecaster.model)`, which is then what
    answers and is saved.

    For series unlike those of training, and where an encoder is too coarse; it costs `steps` passes per question. On a
    short recent context it is what is called error regression: the latent state is made to explain what was just seen,
    and the forecast goes on from there.

    Args:
        model: what was, or is to be, trained.
        steps: of Adam.
        lr: their rate.
        num_samples: samples of the latent that estimate the bound.

    Raises:
        TypeError: the model is no `LatentVAE`.
        ValueError: a number is not positive, or the encoding has a `q0` that is no diagonal normal.

    References:
        Semi-Amortized Variational Autoencoders, Y. Kim, S. Wiseman, A. C. Miller, D. Sontag, A. M. Rush, 2018,
        https://arxiv.org/abs/1802.02550
        A Novel Predictive-Coding-Inspired Variational RNN Model for Online Prediction and Recognition, A. Ahmadi,
        J. Tani, 2019, https://arxiv.org/abs/1811.01339

    Example:
        >>> from ctdyn.data import Channel
        >>> from ctdyn.models import KoopmanVAE
        >>> model = Refined(KoopmanVAE([Channel("x")], pairs=1), steps=3)
        >>> batch = IrregularBatch(torch.zeros(1, 1), torch.ones(1, 1, 1), torch.ones(1, 1, 1, dtype=torch.bool))
        >>> model.predict(batch, torch.tensor([[0.5]]), num_samples=10).mean.shape
        torch.Size([1, 1, 1])
    """

    def __init__(self, model: LatentVAE, steps: int = 30, *, lr: float = 0.05, num_samples: int = 4) -> None:
        super().__init__(latent_model("Refined", model).channels)
        if not all(number > 0 for number in (steps, lr, num_samples)):
            raise ValueError(
                f"Refined needs steps, lr and num_samples above 0; got steps={steps}, lr={lr}, "
                f"num_samples={num_samples}."
            )
        self.model = model
        self.steps, self.lr, self.num_samples = steps, lr, num_samples

    @property
    def reads(self) -> frozenset[str]:
        """See `Model.reads`: what its model does."""
        return self.model.reads

    def loss(self, window: Window, *, generator: Generator | None = None, step: int | None = None) -> Loss:
        """See `Model.loss`: that of the model itself."""
        return self.model.loss(window, generator=generator, step=step)

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
        return self._predictive(context, Question(ts, noise=noise), inputs, num_samples, generator)

    def sample(
        self,
        ts: Times,
        inputs: Path | None = None,
        *,
        num_samples: int = 1,
        generator: Generator | None = None,
    ) -> Predictive:
        """See `Generative.sample`."""
        return self.model.sample(ts, inputs, num_samples=num_samples, generator=generator)

    def log_prob(self, window: Window, *, num_samples: int = 100, generator: Generator | None = None) -> Tensor:
        """See `Scorable.log_prob`."""
        context, target = window.context, window.target
        question = Question(target.times, target.start, target.noise)
        predictive = self._predictive(context, question, input_path(context, target), num_samples, generator)
        return predictive.joint_log_prob(target.values, target.mask)

    def refine(self, context: IrregularBatch, *, generator: Generator | None = None) -> Encoding:
        """The encoding of a context, improved.

        Args:
            context: what is to be explained.
            generator: the source of randomness.
        """
        with torch.no_grad():
            guess = self.model.encode_context(context)
        numbers, build = _numbers(guess)
        source = context.times.device if generator is None else generator.device
        seed = int(torch.randint(2**62, (), generator=generator, device=source))
        drawn = Generator(context.times.device).manual_seed(seed)
        with torch.enable_grad():
            free = [x.detach().clone().requires_grad_() for x in numbers]
            optimiser = torch.optim.Adam(free, lr=self.lr)
            for step in range(self.steps):
                bound = self.bound(context, build(free), generator=drawn)
                gradients = torch.autograd.grad(-bound.sum(), free, allow_unused=True)
                for x, gradient in zip(free, gradients, strict=True):
                    x.grad = None if gradient is None else gradient.nan_to_num(0.0, 0.0, 0.0)
                # Falling to nothing, so that the last steps average over the noise of the samples.
                optimiser.param_groups[0]["lr"] = self.lr * (1.0 - step / self.steps)
                optimiser.step()
        with torch.no_grad():
            before, after = (
                self._samples(context, encoding, _JUDGES * self.num_samples, _same(drawn))
                for encoding in (guess, build(free))
            )
            gain = after - before
            better = gain.mean(0) > _SURE * gain.std(0) / len(gain) ** 0.5
            return build([torch.where(_over(better, x), f.detach(), x) for x, f in zip(numbers, free, strict=True)])

    def bound(
        self,
        context: IrregularBatch,
        encoding: Encoding,
        num_samples: int | None = None,
        generator: Generator | None = None,
    ) -> Tensor:
        """The evidence lower bound of each context under the posterior that an encoding makes, `(*batch,)`.

        Where the density ratio of prior and posterior is known it is estimated from the same samples as the rest: at
        the exact posterior each sample then gives the evidence.

        Args:
            context: what is to be explained.
            encoding: what makes the posterior.
            num_samples: samples of the latent; default: those of a step.
            generator: the source of randomness.
        """
        samples = self.num_samples if num_samples is None else num_samples
        return self._samples(context, encoding, samples, generator).mean(0)

    def _samples(
        self, context: IrregularBatch, encoding: Encoding, num_samples: int, generator: Generator | None
    ) -> Tensor:
        """What each sample says of the bound, `(sample, *batch)`."""
        latent, log_prob, _ = self.model.reading.score(encoding, Window(context, context), num_samples, generator)
        costs = [kl for name, kl in latent.kl.items() if name not in latent.log_terms]
        return log_prob + sum(latent.log_terms.values()) - sum(costs)

    def _predictive(
        self,
        context: IrregularBatch,
        question: Question,
        inputs: Path | None,
        num_samples: int,
        generator: Generator | None,
    ) -> Predictive:
        encoding = self.refine(context, generator=generator)
        return Predictive(self.model.reading.answer(encoding, context, question, num_samples, generator, inputs)[1])


def _numbers(encoding: Encoding) -> tuple[list[Tensor], Callable[[Sequence[Tensor]], Encoding]]:
    """What of an encoding is free, as unconstrained tensors with the batch axes first, and how it is put back."""
    numbers: list[Tensor] = []
    q0, sites, static = encoding.q0, encoding.sites, encoding.static
    if q0 is not None:
        if not isinstance(q0, Independent) or not isinstance(q0.base_dist, Normal):
            raise ValueError(f"Refined needs a q0 that is a diagonal normal distribution; got {type(q0).__name__}.")
        numbers += [q0.mean, q0.stddev.log()]
    if sites is not None:
        numbers += [sites.mean, sites.precision.log()]
    if static is not None:
        numbers.append(static)
    if not numbers:
        raise ValueError("Refined needs an encoding with q0, sites or static: a context path alone stays as it is.")

    def build(given: Sequence[Tensor]) -> Encoding:
        left = list(given)
        changed = encoding
        if q0 is not None:
            mean, width = left.pop(0), left.pop(0).exp()
            changed = replace(changed, q0=Independent(Normal(mean, width, validate_args=False), 1, validate_args=False))
        if sites is not None:
            mean, precision = left.pop(0), left.pop(0).clamp(max=_MOST).exp()
            changed = replace(changed, sites=replace(sites, mean=mean, precision=precision))
        if static is not None:
            changed = replace(changed, static=left.pop(0))
        return changed

    return numbers, build


#: By how many standard errors the end must be better.
_SURE = 2.0
#: How many times the samples of a step decide whether a series keeps the encoder's guess.
_JUDGES = 8
#: The logarithm of the greatest precision of a site: beyond it a covariance is lost in rounding.
_MOST = log(1e12)


def _same(generator: Generator) -> Generator:
    """A copy: both answers are judged by the same random numbers."""
    return Generator(generator.device).set_state(generator.get_state())


def _over(mask: Tensor, x: Tensor) -> Tensor:
    return mask.view(*mask.shape, *[1] * (x.dim() - mask.dim()))
