"""A score of what the encoder makes of single observations."""

import torch
from torch import Tensor

from ..._checks import check_instance
from ...encoders import Sites
from ..representation import RepresentationScore
from .base import Inference, LossTerm


__all__ = ["RepresentationTerm", "lagged"]


class RepresentationTerm(LossTerm):
    r"""Trains the coordinates that an encoder gives single observations by a score, such as VAMP-2.

    .. math:: -w\, S\left(\{\tilde y(x_i), \tilde y(x_j)\} : t_j - t_i = \Delta\right)

    with :math:`\tilde y` the means of the sites (`SiteEncoder`), which see one observation each. The pairs are those of
    the context whose times differ by the lag; on irregular times, by about the lag.

    Args:
        score: a `RepresentationScore`.
        lag: :math:`\Delta`, on the model's clock.
        weight: :math:`w`, in nats per series.
        tolerance: by how much the times of a pair may miss the lag, as a share of it.

    Raises:
        ValueError: a number is not positive, or fewer pairs than features are a lag apart.

    References:
        Learning invariant representations of time-homogeneous stochastic dynamical systems, V. R. Kostic,
        P. Novelli, R. Grazzi, K. Lounici, M. Pontil, 2024, https://arxiv.org/abs/2307.09912

    Example:
        >>> from ctdyn.models import KoopmanVAE, VAMPScore
        >>> from ctdyn.data import Channel
        >>> model = KoopmanVAE([Channel("x")], pairs=2, terms=[RepresentationTerm(VAMPScore(), lag=0.1)])
        >>> len(model.terms)
        1
    """

    def __init__(self, score: RepresentationScore, lag: float, *, weight: float = 1.0, tolerance: float = 0.1) -> None:
        super().__init__()
        check_instance("score", score, RepresentationScore, "VAMPScore()")
        if not (lag > 0 and weight > 0 and 0 <= tolerance < 1):
            raise ValueError(
                "RepresentationTerm needs lag and weight above 0 and a tolerance in [0, 1); got "
                f"lag={lag}, weight={weight}, tolerance={tolerance}."
            )
        self.score = score
        self.lag, self.weight, self.tolerance = lag, weight, tolerance

    def forward(self, inference: Inference) -> Tensor:
        """See `LossTerm.forward`."""
        sites = inference.encoding.sites
        if sites is None:
            raise ValueError("RepresentationTerm needs the sites of an encoding; use an encoder such as SiteEncoder.")
        now, later = lagged(sites, self.lag, self.tolerance * self.lag)
        size = sites.mean.shape[-1]
        if len(now) < size:
            raise ValueError(
                f"{len(now)} pairs of observations of the batch are {self.lag:.4g} apart (on the model's clock), fewer "
                f"than the {size} coordinates; choose a lag that occurs, a wider tolerance, or a larger batch."
            )
        return -self.weight * self.score(now, later)


def lagged(sites: Sites, lag: float, tolerance: float) -> tuple[Tensor, Tensor]:
    """The means of all pairs of sites of a series that are a lag apart, `(pair, latent)` each.

    Args:
        sites: of a batch of series.
        lag: by how much their times differ.
        tolerance: by how much they may miss it.

    Example:
        >>> mean = torch.arange(3.0).view(1, 3, 1)
        >>> sites = Sites(torch.tensor([[0.0, 0.5, 1.0]]), mean, torch.ones_like(mean), torch.ones_like(mean).bool())
        >>> [x.flatten().tolist() for x in lagged(sites, 0.5, 0.01)]
        [[0.0, 1.0], [1.0, 2.0]]
    """
    times, real = sites.times.flatten(0, -2), sites.mask.all(-1).flatten(0, -2)
    mean = sites.mean.flatten(0, -3)
    # Times on a grid differ by the lag only up to rounding.
    slack = tolerance + 8 * torch.finfo(times.dtype).eps * float(times.abs().amax() if times.numel() else 0.0)
    apart = times[:, None, :] - times[:, :, None]
    series, now, later = torch.nonzero(
        ((apart - lag).abs() <= slack) & (apart > 0) & real[:, :, None] & real[:, None, :], as_tuple=True
    )
    return mean[series, now], mean[series, later]
