"""Labels that a part of the latent state is to explain."""

from collections.abc import Sequence
from math import inf, log
from numbers import Integral

import torch
from torch import Tensor, nn
from torch.distributions import Normal

from ..._checks import check_list
from .._units import LabelUnits
from .base import Inference, LossTerm


__all__ = ["Supervision"]


class Supervision(LossTerm):
    r"""Ties entries of the latent state to labels of the series, so that they can be read, and set.

    .. math:: -w\, \mathrm{E}_{q(z)} \sum_j \log \mathcal{N}\left(y_j \mid
        m_j + s_j (a_j \bar z_{d_j} + b_j),\, s_j^2 \sigma_j^2\right)

    with :math:`\bar z` the mean over the observed times of the target: for a static latent (`StaticProcess`) the latent
    itself. Labels are one more observation, of the chosen entries alone: with :math:`w = 1` the loss bounds the joint
    density of series and labels. A label that is NaN is not known. Slopes, offsets and noise are learned; the units
    :math:`m, s` (`units`) are mean and spread of a label in the first training batch that knows it, so that
    labels come as they are.

    Args:
        dimensions: the entries of the latent state, one per label in their order; `JointProcess.slices` says where
            those of a part are.
        weight: :math:`w`.

    Raises:
        ValueError: no dimension is given, one is given twice, the weight is not positive and finite, or the batch has
            another number of labels.

    References:
        Disentangled Generative Models for Robust Prediction of System Dynamics, S. Fotiadis et al., 2023,
        https://arxiv.org/abs/2108.11684

    Example:
        >>> term = Supervision(dimensions=[4, 5], weight=10.0)
        >>> term.slope.shape
        torch.Size([2])
    """

    def __init__(self, dimensions: Sequence[int], *, weight: float = 1.0) -> None:
        super().__init__()
        check_list("dimensions", dimensions, Integral, "[0]")
        if not dimensions or len(set(dimensions)) < len(dimensions):
            raise ValueError(f"Supervision needs one latent dimension per label, each once; got {list(dimensions)}.")
        if not 0 < weight < inf:
            raise ValueError(f"Supervision needs a weight above 0; got {weight}.")
        self.dimensions = tuple(dimensions)
        self.weight = weight
        self.slope = nn.Parameter(torch.ones(len(self.dimensions)))
        self.offset = nn.Parameter(torch.zeros(len(self.dimensions)))
        self.units = LabelUnits(len(self.dimensions))
        self.log_scale = nn.Parameter(torch.full((len(self.dimensions),), log(0.5)))

    def forward(self, inference: Inference) -> Tensor:
        """See `LossTerm.forward`."""
        zs, labels = inference.latent.zs, inference.context.labels
        count, size = len(self.dimensions), zs.shape[-1]
        given = 0 if labels is None else labels.shape[-1]
        if labels is None or given != count or not -size <= min(self.dimensions) <= max(self.dimensions) < size:
            raise ValueError(
                f"Supervision ties {count} labels to the latent dimensions {list(self.dimensions)}; the series have "
                f"{given} labels, and the latent state has {size} dimensions. Labels come in with the series: "
                "from_pandas(..., labels=[...])."
            )
        if len({dimension % size for dimension in self.dimensions}) < count:
            raise ValueError(
                f"Supervision needs one latent dimension per label, each once; of {size} dimensions "
                f"{list(self.dimensions)} name one twice."
            )
        known = ~labels.isnan()
        if self.training:
            self.units.measure(labels)
        labels, width = torch.where(known, labels, 0.0).to(zs.dtype), self.units.width
        expected = self.slope * self.read(zs, inference.observed) + self.offset
        law = Normal(expected, self.log_scale.exp(), validate_args=False)
        log_prob = law.log_prob((labels - self.units.center) / width) - width.log()
        return -self.weight * torch.where(known, log_prob, 0.0).sum(-1).mean()

    def read(self, zs: Tensor, observed: Tensor | None = None) -> Tensor:
        """The supervised entries of latent states `(..., time, latent)`, averaged over the observed times.

        Args:
            zs: latent states.
            observed: True where something was observed, `(*batch, time)`; a series without any is read at all times.

        Returns:
            `(..., label)`.
        """
        entries = zs[..., list(self.dimensions)]
        if observed is None:
            return entries.mean(-2)
        weight = torch.where(observed.any(-1, keepdim=True), observed, True).to(zs.dtype).unsqueeze(-1)
        return (entries * weight).sum(-2) / weight.sum(-2).clamp(min=1.0)
