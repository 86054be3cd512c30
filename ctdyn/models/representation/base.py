"""What a score of a representation is."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from ..._config import Configurable


__all__ = ["RepresentationScore", "moments"]


class RepresentationScore(nn.Module, Configurable, ABC):
    """How well the dynamics are linear in given features, from pairs of them a time apart; higher is better.

    Train any network by it: `-score(net(now), net(later))`; or hand it to `RepresentationTerm` beside the bound of a
    variational auto-encoder.

    Example:
        >>> import torch
        >>> from ctdyn.models import VAMPScore
        >>> x = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0))
        >>> score: RepresentationScore = VAMPScore()
        >>> score(x, 3.0 * x).round(decimals=3)
        tensor(2.)
    """

    @abstractmethod
    def forward(self, now: Tensor, later: Tensor) -> Tensor:
        """The score, a scalar.

        Args:
            now: features, `(pair, feature)`.
            later: the same features some time later, `(pair, feature)`.
        """


def moments(now: Tensor, later: Tensor, *, centered: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The second moments of both and between them, in float64.

    Raises:
        ValueError: the shapes differ, or there are fewer pairs than features.

    Example:
        >>> import torch
        >>> moments(torch.eye(2), torch.eye(2), centered=False)[2]
        tensor([[0.5000, 0.0000],
                [0.0000, 0.5000]], dtype=torch.float64)
    """
    if now.dim() != 2 or now.shape != later.shape or now.shape[0] < now.shape[1]:
        raise ValueError(
            "a score needs pairs of features, (pair, feature) each, at least as many pairs as features; got "
            f"{tuple(now.shape)} and {tuple(later.shape)}."
        )
    x, y = now.double(), later.double()
    if centered:
        x, y = x - x.mean(0), y - y.mean(0)
    return x.mT @ x / len(x), y.mT @ y / len(x), x.mT @ y / len(x)
