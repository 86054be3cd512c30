"""The information-theoretic score."""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from ...linear import fit_transition
from .base import RepresentationScore, moments


__all__ = ["InformationScore"]


class InformationScore(RepresentationScore):
    r"""Features that know their future, move linearly, and do not collapse onto a few modes.

    .. math::
        I(x, y) + \alpha\, S\left(\frac{C_x}{\operatorname{tr} C_x}\right) - \beta\,
        \frac{\sum_i \lVert y_i - K x_i \rVert^2}{\sum_i \lVert y_i \rVert^2}, \qquad
        I = \log n - \frac{1}{n} \sum_i -\log \frac{e^{\cos(x_i, y_i) / \tau}}{\sum_j e^{\cos(x_i, y_j) / \tau}}, \qquad
        S(\rho) = -\operatorname{tr} \rho \log \rho

    The contrastive bound on the mutual information of now and later makes features predictable; alone it is content
    with few modes, against which stands the von Neumann entropy of their covariance, at most the logarithm of their
    number. The linear map is a ridge regression over the batch.

    Args:
        entropy: :math:`\alpha`, weight of the entropy.
        prediction: :math:`\beta`, weight of the linear prediction's error.
        temperature: :math:`\tau` of the contrast.
        ridge: of the regression, a share of the mean square of the features.

    Raises:
        ValueError: a weight is negative, or the temperature or the ridge is not positive.

    References:
        Information Shapes Koopman Representation, X. Cheng, W. Yuan, Y. Yang, Y. Zhang, S. Cheng, Y. He, Z. Sun, 2025,
        https://arxiv.org/abs/2510.13025
        Representation Learning with Contrastive Predictive Coding, A. van den Oord, Y. Li, O. Vinyals, 2018,
        https://arxiv.org/abs/1807.03748

    Example:
        >>> x = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
        >>> score = InformationScore()
        >>> bool(score(x, x) > score(x, x.roll(1, 0)))
        True
    """

    def __init__(
        self, entropy: float = 1.0, prediction: float = 1.0, *, temperature: float = 0.1, ridge: float = 1e-3
    ) -> None:
        super().__init__()
        if not (entropy >= 0 and prediction >= 0 and temperature > 0 and ridge > 0):
            raise ValueError(
                "InformationScore needs weights of at least 0, and a temperature and a ridge above 0; got "
                f"entropy={entropy}, prediction={prediction}, temperature={temperature}, ridge={ridge}."
            )
        self.entropy, self.prediction = entropy, prediction
        self.temperature, self.ridge = temperature, ridge

    def forward(self, now: Tensor, later: Tensor) -> Tensor:
        """See `RepresentationScore.forward`."""
        C_x = moments(now, later, centered=False)[0]
        x, y = now.double(), later.double()
        share = torch.linalg.eigvalsh(C_x / C_x.diagonal().sum()).clamp(min=1e-12)
        K = fit_transition(x, y, ridge=self.ridge)
        missed = (y - x @ K.mT).square().sum() / y.square().sum()
        score = self.information(x, y) - self.entropy * (share * share.log()).sum() - self.prediction * missed
        return score.to(now.dtype)

    def information(self, now: Tensor, later: Tensor) -> Tensor:
        """The contrastive lower bound on the mutual information of the pairs, in nats."""
        contrast = normalize(now, dim=-1) @ normalize(later, dim=-1).mT / self.temperature
        own = torch.arange(len(now), device=now.device)
        return torch.tensor(float(len(now)), dtype=now.dtype).log() - cross_entropy(contrast, own)
