"""What can be added to the loss of a latent-variable model."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Generator, Tensor, nn

from ..._config import Configurable
from ...data import IrregularBatch
from ...encoders import Encoding
from ...processes import LatentProcess, LatentSample


__all__ = ["Inference", "LossTerm"]


@dataclass(frozen=True)
class Inference:
    """What a model has made of a context: all that a term of its loss can look at, which is not the target's values.

    Args:
        context: what was shown.
        encoding: what the encoder has read from the context.
        latent: sampled latent states at the times of the target.
        process: the latent process.
        generator: the source of randomness.
        observed: True at the times of the target where something was observed, `(*batch, time)`; None: everywhere.

    Example:
        >>> import torch
        >>> from ctdyn.data import IrregularBatch
        >>> from ctdyn.fields import LinearField
        >>> from ctdyn.processes import ODEProcess
        >>> batch = IrregularBatch(torch.zeros(3, 1), torch.zeros(3, 1, 1), torch.ones(3, 1, 1, dtype=torch.bool))
        >>> latent = LatentSample(torch.zeros(1, 3, 1, 2))
        >>> inference = Inference(batch, Encoding(), latent, ODEProcess(LinearField(2), 2))
        >>> inference.latent.zs.shape
        torch.Size([1, 3, 1, 2])
    """

    context: IrregularBatch
    encoding: Encoding
    latent: LatentSample
    process: LatentProcess
    generator: Generator | None = None
    observed: Tensor | None = None


class LossTerm(nn.Module, Configurable, ABC):
    """Something else that a `LatentVAE` is to do than explain its target: a penalty, or a second task.

    Its value is added to the negative objective, in nats per series, and logged by the name of its class.

    Example:
        >>> class Small(LossTerm):
        ...     def forward(self, inference):
        ...         return inference.latent.zs.square().mean()
        >>> isinstance(Small(), LossTerm)
        True
    """

    @abstractmethod
    def forward(self, inference: Inference) -> Tensor:
        """What is added to the loss of the batch, a scalar."""
