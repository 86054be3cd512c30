"""A Gaussian distribution, as filters and smoothers give it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


__all__ = ["Gaussian"]


@dataclass(frozen=True)
class Gaussian:
    """A Gaussian distribution per series, or per series and time.

    Args:
        mean: `(*batch, state)`.
        covariance: `(*batch, state, state)`.

    Raises:
        ValueError: the shapes disagree.

    Example:
        >>> import torch
        >>> Gaussian(torch.zeros(2), torch.eye(2)).variance
        tensor([1., 1.])
    """

    mean: Tensor
    covariance: Tensor

    def __post_init__(self) -> None:
        n = self.mean.shape[-1] if self.mean.dim() else 0
        if self.covariance.shape[-2:] != (n, n) or not n:
            raise ValueError(
                "a Gaussian needs a mean (*batch, state) and a covariance (*batch, state, state); got "
                f"{tuple(self.mean.shape)} and {tuple(self.covariance.shape)}."
            )

    @property
    def variance(self) -> Tensor:
        """The variances, of the shape of `mean`."""
        return self.covariance.diagonal(dim1=-2, dim2=-1)
