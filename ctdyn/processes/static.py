"""A latent variable of the whole series."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor
from torch.distributions import Distribution, Independent, Normal
from torch.nn.functional import softplus

from .._types import Time, Times
from ..encoders import Encoding
from ..nn import MLP, rsample
from ..paths import Path
from ._initial import closed_form_kl, log_ratio
from ._static import describe, last_for_ever
from .base import LatentProcess, LatentSample


__all__ = ["StaticProcess"]

#: The narrowest posterior: without a floor a confident encoder ends in infinite densities.
_MIN_STD = 1e-7


class StaticProcess(LatentProcess):
    r"""What a series is, beside what happens in it: a latent state that never changes.

    .. math::
        z(t) = z, \qquad z \sim \mathcal{N}(0, I), \qquad
        q(z) = \mathcal{N}\left(\mu(s), \operatorname{diag} \sigma(s)^2\right)

    with :math:`s` the description of the series, `Encoding.static`. Beside a process that moves (`JointProcess`) it
    holds the patient, the asset, the level, and leaves the moving part what changes; the decoder reads both.

    Args:
        latent_size: size of the latent state.
        feature_size: size of the description that the encoder gives.
        hidden: hidden layers of the network from the description to the posterior; empty for an affine map.

    References:
        Disentangled Sequential Autoencoder, Y. Li, S. Mandt, 2018, https://arxiv.org/abs/1803.02991

    Example:
        >>> process = StaticProcess(latent_size=2, feature_size=3)
        >>> zs = process.posterior(Encoding(static=torch.zeros(5, 3)), torch.zeros(5), torch.rand(5, 7)).zs
        >>> zs.shape, bool((zs == zs[..., :1, :]).all())
        (torch.Size([1, 5, 7, 2]), True)
    """

    requires = frozenset({"static"})
    driven = False

    center: Tensor

    def __init__(self, latent_size: int, feature_size: int, hidden: Sequence[int] = ()) -> None:
        super().__init__(latent_size)
        self.feature_size = feature_size
        self.sizes = {"static": feature_size}
        self.net = MLP(feature_size, 2 * latent_size, hidden)
        self.register_buffer("center", torch.zeros(latent_size), persistent=False)

    @property
    def p(self) -> Distribution:
        """The prior, standard normal, of event shape `(latent,)`."""
        return Independent(Normal(self.center, 1.0, validate_args=False), 1, validate_args=False)

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
        mean, raw = self._moments(encoding)
        q = Independent(Normal(mean, _MIN_STD + softplus(raw), validate_args=False), 1, validate_args=False)
        p = self.p
        z = rsample(q, (num_samples,), generator=generator)
        kl = closed_form_kl(q, p)
        assert kl is not None
        return LatentSample(last_for_ever(z, ts), {"static": log_ratio(z, q, p)}, {"static": kl})

    def prior(
        self,
        t0: Time,
        ts: Times,
        num_samples: int = 1,
        generator: Generator | None = None,
        inputs: Path | None = None,
    ) -> LatentSample:
        """See `LatentProcess.prior`."""
        return LatentSample(last_for_ever(rsample(self.p, (num_samples, *t0.shape), generator=generator), ts))

    def summary(self, encoding: Encoding) -> Tensor:
        """The posterior mean, `(*batch, latent)`."""
        return self._moments(encoding)[0]

    def _moments(self, encoding: Encoding) -> tuple[Tensor, ...]:
        """The posterior mean, and its width before it is made positive."""
        return self.net(describe(encoding, self.feature_size, "StaticProcess")).chunk(2, -1)
