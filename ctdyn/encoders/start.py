"""The encoder that makes an initial state of another's description."""

from __future__ import annotations

from collections.abc import Sequence

from .._checks import check_instance
from ..data import IrregularBatch
from ._reading import NormalHead
from .base import Encoder, Encoding


__all__ = ["StartEncoder"]


class StartEncoder(Encoder):
    r"""From what another encoder says of a whole series to an initial state: cells and controlled equations as readers.

    .. math:: q(z_{t_1}) = \mathcal{N}\left(\mu(s), \operatorname{diag} \sigma(s)^2\right)

    `CellEncoder` and `CDEEncoder` describe a series by one vector :math:`s`, which is what a label is predicted from;
    with this head any latent process that starts from `q0` can use them.

    Args:
        encoder: the reader; it provides `static`.
        description_size: size of its description.
        latent_size: size of the latent state.
        head_hidden: hidden layers of the head that maps the description to the mean and scale of `q0`.
        static_size: how many static covariates the head sees beside it.

    Raises:
        ValueError: the encoder does not describe a series, or in another size.

    Example:
        >>> import torch
        >>> from ctdyn.cells import ODERNNCell
        >>> from ctdyn.encoders import CellEncoder
        >>> encoder = StartEncoder(CellEncoder(ODERNNCell(2, 6)), description_size=6, latent_size=4)
        >>> batch = IrregularBatch(torch.zeros(1, 1), torch.ones(1, 1, 2), torch.ones(1, 1, 2, dtype=torch.bool))
        >>> encoder(batch).q0.mean.shape
        torch.Size([1, 4])
    """

    provides = frozenset({"q0"})

    def __init__(
        self,
        encoder: Encoder,
        description_size: int,
        latent_size: int,
        head_hidden: Sequence[int] = (64,),
        *,
        static_size: int = 0,
    ) -> None:
        check_instance("encoder", encoder, Encoder, "CellEncoder(cell)")
        read = None if encoder.static_size is None else max(encoder.static_size, static_size)
        super().__init__(encoder.num_channels, input_size=encoder.input_size, static_size=read)
        self.sizes = {"q0": latent_size}
        if "static" not in encoder.provides:
            raise ValueError(
                f"StartEncoder needs an encoder that describes a series (static), such as CellEncoder or CDEEncoder; "
                f"{type(encoder).__name__} provides {sorted(encoder.provides)}."
            )
        size = encoder.sizes.get("static", description_size)
        if size != description_size:
            raise ValueError(
                f"{type(encoder).__name__} describes a series by {size} numbers, and StartEncoder was given "
                f"description_size={description_size}; pass description_size={size}."
            )
        self.encoder = encoder
        self.head = NormalHead(description_size, latent_size, head_hidden, static_size)

    def forward(self, batch: IrregularBatch) -> Encoding:
        """See `Encoder.forward`."""
        described = self.encoder(batch).static
        assert described is not None
        return Encoding(q0=self.head(described, batch.static))
