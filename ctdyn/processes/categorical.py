"""A class of the whole series as a latent variable."""

from __future__ import annotations

from collections.abc import Sequence
from math import log

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import one_hot

from .._types import Time, Times
from ..encoders import Encoding
from ..nn import MLP
from ..paths import Path
from ._static import describe, last_for_ever
from .base import LatentProcess, LatentSample


__all__ = ["CategoricalProcess"]


class CategoricalProcess(LatentProcess):
    r"""Which of several kinds a series is of, found without labels: a latent class that never changes, one-hot.

    .. math::
        p(z = e_k) = \pi_k, \qquad q(z = e_k) = \operatorname{softmax}\left(W(s)\right)_k, \qquad
        \operatorname{KL}(q \,\|\, p) = \sum_k q_k \log \frac{q_k}{\pi_k}

    with :math:`s` the description of the series, `Encoding.static`. A sample is a class, so that bounds are those of
    the discrete model; its gradient is that of the relaxation :math:`\operatorname{softmax}((\log q + g) / \tau)` with
    Gumbel noise :math:`g` (straight-through). The divergence is exact. Several classes of a series are several of these
    in a `JointProcess`.

    Args:
        num_classes: how many kinds; the latent state has as many entries, of which one is 1.
        feature_size: size of the description that the encoder gives.
        hidden: hidden layers of the network from the description to the classes; empty for an affine map.
        temperature: :math:`\tau`; lower is closer to the discrete variable, with gradients of more variance.
        learned_prior: whether the shares :math:`\pi` of the classes are learned; equal if not.

    Raises:
        ValueError: there are fewer than two classes, or the temperature is not positive.

    References:
        Categorical Reparameterization with Gumbel-Softmax, E. Jang, S. Gu, B. Poole, 2017,
        https://arxiv.org/abs/1611.01144
        Learning Disentangled Joint Continuous and Discrete Representations, E. Dupont, 2018,
        https://arxiv.org/abs/1804.00104

    Example:
        >>> process = CategoricalProcess(num_classes=3, feature_size=4)
        >>> latent = process.posterior(Encoding(static=torch.zeros(5, 4)), torch.zeros(5), torch.zeros(5, 2))
        >>> latent.zs.sum(-1).unique().detach(), latent.kl["class"].shape
        (tensor([1.]), torch.Size([5]))
    """

    requires = frozenset({"static"})
    driven = False

    def __init__(
        self,
        num_classes: int,
        feature_size: int,
        hidden: Sequence[int] = (),
        *,
        temperature: float = 0.67,
        learned_prior: bool = False,
    ) -> None:
        if num_classes < 2:
            raise ValueError(f"num_classes must be at least 2; got {num_classes}.")
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0; got {temperature}.")
        super().__init__(num_classes)
        self.feature_size = feature_size
        self.sizes = {"static": feature_size}
        self.temperature = temperature
        self.net = MLP(feature_size, num_classes, hidden)
        self.prior_logits = nn.Parameter(torch.full((num_classes,), -log(num_classes)), requires_grad=learned_prior)

    def posterior(
        self,
        encoding: Encoding,
        t0: Time,
        ts: Times,
        num_samples: int = 1,
        generator: Generator | None = None,
        inputs: Path | None = None,
    ) -> LatentSample:
        """See `LatentProcess.posterior`; inputs do not reach what is static."""
        log_q, log_p = self._log_q(encoding), self.prior_logits.log_softmax(-1)
        z = self._draw(log_q.expand(num_samples, *log_q.shape), generator)
        ratio = log_p - log_q
        return LatentSample(
            zs=last_for_ever(z, ts),
            log_terms={"class": (z.detach() * ratio).sum(-1)},
            kl={"class": -(log_q.exp() * ratio).sum(-1)},
        )

    def prior(
        self,
        t0: Time,
        ts: Times,
        num_samples: int = 1,
        generator: Generator | None = None,
        inputs: Path | None = None,
    ) -> LatentSample:
        """See `LatentProcess.prior`."""
        log_p = self.prior_logits.log_softmax(-1).expand(num_samples, *t0.shape, self.latent_size)
        return LatentSample(last_for_ever(self._draw(log_p, generator), ts))

    def summary(self, encoding: Encoding) -> Tensor:
        """What the posterior gives each class, `(*batch, class)`."""
        return self._log_q(encoding).exp()

    def _log_q(self, encoding: Encoding) -> Tensor:
        return self.net(describe(encoding, self.feature_size, "CategoricalProcess")).log_softmax(-1)

    def _draw(self, log_q: Tensor, generator: Generator | None) -> Tensor:
        """A class, with the gradient of its relaxation."""
        source = log_q.device if generator is None else generator.device
        uniform = torch.rand(log_q.shape, generator=generator, device=source, dtype=log_q.dtype).to(log_q.device)
        gumbel = -(-uniform.clamp(min=torch.finfo(log_q.dtype).tiny).log()).log()
        soft = ((log_q + gumbel) / self.temperature).softmax(-1)
        hard = one_hot(soft.argmax(-1), log_q.shape[-1]).to(soft.dtype)
        return hard + soft - soft.detach()
