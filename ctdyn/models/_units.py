"""The units of labels: they come as they are, and what is learned should be of the size of one."""

import torch
from torch import Tensor, nn


__all__ = ["LabelUnits"]


class LabelUnits(nn.Module):
    """Mean and spread of each label in the first training batch that knows it, kept with the weights.

    Args:
        count: how many labels there are.

    Example:
        >>> units = LabelUnits(1)
        >>> units.measure(torch.tensor([[1000.0], [3000.0], [torch.nan]]))
        >>> units.center, units.width
        (tensor([2000.]), tensor([1000.]))
    """

    center: Tensor
    seen: Tensor

    def __init__(self, count: int) -> None:
        super().__init__()
        self.register_buffer("center", torch.zeros(count))
        #: 0 until training has seen a label.
        self.register_buffer("seen", torch.zeros(count))

    @property
    def width(self) -> Tensor:
        """One unit of each label, `(label,)`."""
        return torch.where(self.seen > 0, self.seen, 1.0)

    @torch.no_grad()
    def measure(self, labels: Tensor) -> None:
        """Take the units of the labels that were not seen before from these, `(*batch, label)`; NaN is not known."""
        labels = labels.reshape(-1, labels.shape[-1]).to(self.center.dtype)
        known = ~labels.isnan()
        labels, count = torch.where(known, labels, 0.0), known.sum(0)
        mean = labels.sum(0) / count.clamp(min=1)
        spread = (torch.where(known, labels - mean, 0.0).square().sum(0) / count.clamp(min=1)).sqrt()
        # One number, or several that are equal, say no more than how large it is.
        rounding = 8.0 * torch.finfo(labels.dtype).eps * mean.abs()
        spread = torch.where(spread > rounding, spread, torch.where(mean == 0, 1.0, mean.abs()))
        fresh = (self.seen == 0) & (count > 0)
        self.center.copy_(torch.where(fresh, mean, self.center))
        self.seen.copy_(torch.where(fresh, spread, self.seen))
