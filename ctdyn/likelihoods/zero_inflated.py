"""Observations that are often exactly zero."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.distributions.constraints import Constraint
from torch.nn.functional import logsigmoid

from .._types import Times, Values
from ..nn import MLP
from .base import HasAtoms, Likelihood
from .per_kind import PerKind


__all__ = ["ZeroInflated"]


class ZeroInflated(Likelihood):
    r"""Any family, with zeros of their own: visits without a claim, hours without rain.

    .. math:: p(x_t \mid z_t) = \pi(z_t)\,\delta_0(x_t) + \left(1 - \pi(z_t)\right) f(x_t \mid z_t), \qquad
        \pi = \operatorname{logit}^{-1}(W(z_t))

    For counts a zero may come from either part. For a continuous family it comes from the first almost surely, and a
    density is one with respect to length and the atom at zero: beside a family without that atom judge it by samples.
    It is what channels of kind "nonnegative" are given, with `LogNormal` for the rest. For real channels it is
    of no use: scalers centre them, and a zero is then zero no more.

    Args:
        family: what makes the rest, such as `NegativeBinomial` or `LogNormal`.
        latent_size: size of the latent state.
        hidden: hidden layers of the network of :math:`\pi`; empty for an affine map.

    Raises:
        TypeError: the family is a `PerKind`, which is several.

    Reference:
        Zero-Inflated Poisson Regression, with an Application to Defects in Manufacturing, D. Lambert, 1992,
        https://doi.org/10.2307/1269547

    Example:
        >>> import torch
        >>> from ctdyn.likelihoods import Poisson
        >>> rain = ZeroInflated(Poisson(4, 2), latent_size=4)
        >>> rain(torch.zeros(3, 7, 4), torch.zeros(3, 7)).batch_shape
        torch.Size([3, 7, 2])
    """

    def __init__(self, family: Likelihood, latent_size: int, hidden: Sequence[int] = ()) -> None:
        if isinstance(family, PerKind):
            raise TypeError(
                "ZeroInflated takes one family, and PerKind is several: inflate the one that needs it within, as in "
                'PerKind(channels, {"count": ZeroInflated(NegativeBinomial(...), latent_size), ...}).'
            )
        super().__init__(family.num_channels, latent_size)
        self.family = family
        # With zeros a channel is not positive, and a real one is centred by scalers, away from where its zeros were.
        self.kinds = family.kinds - {"positive", "real"} | ({"nonnegative"} if "positive" in family.kinds else set())
        self.logits = MLP(latent_size, family.num_channels, hidden)

    def forward(self, z: Tensor, ts: Times, noise: Values | None = None) -> Distribution:
        """See `Likelihood.forward`; `noise` goes to the family."""
        return _ZeroInflated(self.logits(z), self.family(z, ts, noise))


class _ZeroInflated(Distribution, HasAtoms):
    """An atom at zero beside a distribution."""

    def __init__(self, logits: Tensor, rest: Distribution) -> None:
        self.logits, self.rest = logits, rest
        super().__init__(torch.broadcast_shapes(logits.shape, rest.batch_shape), validate_args=False)

    @property
    def arg_constraints(self) -> dict[str, Constraint]:
        return {}

    @property
    def support(self) -> Constraint:
        return self.rest.support  # type: ignore[return-value]

    def is_atom(self, value: Tensor) -> Tensor:
        return value == 0

    @property
    def mean(self) -> Tensor:
        return torch.sigmoid(-self.logits) * self.rest.mean

    @property
    def variance(self) -> Tensor:
        second = self.rest.variance + self.rest.mean.square()
        return torch.sigmoid(-self.logits) * second - self.mean.square()

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        rest = self.rest.sample(torch.Size(sample_shape))
        return torch.where(torch.rand_like(rest) < torch.sigmoid(self.logits), 0.0, rest)

    def log_prob(self, value: Tensor) -> Tensor:
        zero, discrete = value == 0, self.rest.support.is_discrete  # type: ignore[union-attr]
        # A continuous family need not have a density at zero, nor a gradient of it.
        inside = value if discrete else torch.where(zero, 1.0, value)
        rest = logsigmoid(-self.logits) + self.rest.log_prob(inside)
        atom = logsigmoid(self.logits)
        at_zero = torch.logaddexp(atom, rest) if discrete else atom.expand_as(rest)
        return torch.where(zero, at_zero, rest)
