"""Labelled series: a whole series to a class, a number, or several of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import torch
from torch import Generator, Tensor
from torch.distributions import Categorical as Classes
from torch.distributions import Distribution, Normal

from .._checks import check_instance
from .._types import Times, Values
from ..data import IrregularBatch, Window
from ..data.channels import Channel
from ..encoders import Encoder, Encoding
from ..likelihoods import Categorical, Gaussian, Likelihood, entry_log_prob
from ..paths import Path
from ._parts import check_reader, read_by
from ._units import LabelUnits
from .base import Encodes, Labels, Loss, Model, modelled


__all__ = ["SequenceModel"]


class SequenceModel(Model, Labels, Encodes):
    r"""An encoder that reads a whole series, and a likelihood of its labels: classification and regression.

    .. math:: p(\ell \mid x_{1:n}) = p\big(\ell \mid W(\operatorname{enc}(x_{1:n}))\big)

    Any encoder will do: one that gives a `static` description (`CDEEncoder` with a neural, linear or Log-NCDE field,
    `CellEncoder` with any cell), or one that gives the distribution `q0` of a latent state, whose mean and standard
    deviation then describe the series. `classifier` and `regressor` build the likelihood.

    The labels of a series are `IrregularBatch.labels`, one column each, in their own units: classes are coded as 0, 1,
    2 ..., and numbers come as they are, because a `Gaussian` of labels learns them in units of their mean and spread in
    the first training batch. A label that is NaN is not known, and no part of the loss. The whole series should reach
    the model: train it on `Reconstruct` windows, as a `Forecaster` does unless told otherwise.

    Args:
        channels: what is observed.
        encoder: reads the series.
        likelihood: of the labels, as many as it has channels, given the description.

    Raises:
        ValueError: the encoder gives neither a `static` description nor `q0`, or reads another number of channels.

    Example:
        >>> from ctdyn.cells import GRUDCell
        >>> from ctdyn.encoders import CellEncoder
        >>> model = SequenceModel.classifier([Channel("level")], CellEncoder(GRUDCell(1, 8)), num_classes=3)
        >>> times = torch.tensor([[0.0, 0.5, 1.0]])
        >>> batch = IrregularBatch(times, torch.ones(1, 3, 1), torch.ones(1, 3, 1, dtype=torch.bool))
        >>> model.predict_label(batch).probs.shape  # series, label, class
        torch.Size([1, 1, 3])
    """

    def __init__(self, channels: Sequence[Channel], encoder: Encoder, likelihood: Likelihood) -> None:
        super().__init__(channels)
        check_reader(self.channels, encoder)
        _check_provides(encoder)
        check_instance("likelihood", likelihood, Likelihood, "Categorical(size, 1, num_classes)")
        self.encoder = encoder
        self.likelihood = likelihood
        self.units = LabelUnits(likelihood.num_channels) if isinstance(likelihood, Gaussian) else None

    @classmethod
    def classifier(
        cls, channels: Sequence[Channel], encoder: Encoder, num_classes: int, hidden: Sequence[int] = ()
    ) -> SequenceModel:
        """A model of one label that holds a class.

        Args:
            channels: what is observed.
            encoder: reads the series.
            num_classes: how many classes there are, coded as 0, 1, 2 ...
            hidden: hidden layers between the description and the logits.

        Example:
            >>> from ctdyn.encoders import GRUEncoder
            >>> model = SequenceModel.classifier([Channel("level")], GRUEncoder(1, 8), num_classes=3)
            >>> model.likelihood.num_classes
            3
        """
        return cls(channels, encoder, Categorical(_size(encoder, channels), 1, num_classes, hidden))

    @classmethod
    def regressor(
        cls, channels: Sequence[Channel], encoder: Encoder, num_labels: int = 1, hidden: Sequence[int] = ()
    ) -> SequenceModel:
        """A model of labels that are real numbers, with one learned spread each.

        Args:
            channels: what is observed.
            encoder: reads the series.
            num_labels: how many numbers.
            hidden: hidden layers between the description and the numbers.
        """
        return cls(channels, encoder, Gaussian(_size(encoder, channels), num_labels, hidden))

    @property
    def reads(self) -> frozenset[str]:
        """See `Model.reads`: what its encoder does."""
        return read_by(self.encoder)

    def loss(self, window: Window, *, generator: Generator | None = None, step: int | None = None) -> Loss:
        """The negative log density of the labels in nats per series; see `Model.loss`. Nothing is random."""
        labels = window.context.labels
        count = self.likelihood.num_channels
        if labels is None or labels.shape[-1] != count:
            given = "no labels" if labels is None else f"labels of shape {tuple(labels.shape)}"
            raise ValueError(
                f"the model maps a series to {count} labels, (*batch, label), and the batch has {given}. Name their "
                "columns: from_pandas(..., labels=[...])."
            )
        known = ~labels.isnan()
        if self.units is not None and self.training:
            self.units.measure(labels)
        distribution = self.predict_label(window.context)
        if isinstance(distribution, Classes):
            _check_classes(labels, known, distribution.probs.shape[-1])
        nats = -entry_log_prob(distribution, torch.where(known, labels, 1.0).to(window.context.values.dtype), known)
        per_label = nats.sum() / known.sum().clamp(min=1)
        parts = {"nats_per_observation": per_label.detach()}
        if isinstance(distribution, Classes):
            right = (distribution.probs.argmax(-1) == labels) & known
            parts["accuracy"] = right.sum() / known.sum().clamp(min=1)
        return Loss(nats.sum(-1).mean(), parts)

    def predict_label(self, context: IrregularBatch) -> Distribution:
        """The distribution of the labels of each series; see `Labels.predict_label`."""
        # A label has no time: the series stand where a likelihood expects the times of one.
        distribution = self.likelihood(self.encode(context), context.times[..., -1])
        if self.units is None or not isinstance(distribution, Normal):
            return distribution
        center, width = self.units.center, self.units.width
        return Normal(center + width * distribution.loc, width * distribution.scale, validate_args=False)

    def encode(self, context: IrregularBatch) -> Tensor:
        """The description of each series, `(*batch, feature)`."""
        return _description(self.encoder(context))

    def predict(
        self,
        context: IrregularBatch,
        ts: Times,
        inputs: Path | None = None,
        *,
        noise: Values | None = None,
        num_samples: int = 100,
        generator: Generator | None = None,
    ) -> NoReturn:
        """A labelled series is not continued.

        Raises:
            TypeError: always.
        """
        raise TypeError(
            f"{type(self).__name__} maps a whole series to labels and does not say what will be observed: use "
            "predict_label, or a model that forecasts, such as FilteringModel with the same cell."
        )


def _check_provides(encoder: Encoder) -> None:
    if not {"static", "q0"} & encoder.provides:
        raise ValueError(
            f"a SequenceModel reads a static description or q0, and {type(encoder).__name__} provides "
            f"{sorted(encoder.provides)}. Take CDEEncoder, CellEncoder, GRUEncoder ..."
        )


def _description(encoding: Encoding) -> Tensor:
    if encoding.static is not None:
        return encoding.static
    assert encoding.q0 is not None
    return torch.cat([encoding.q0.mean, encoding.q0.stddev], -1)


def _size(encoder: Encoder, channels: Sequence[Channel]) -> int:
    """The size of the description, by asking for one."""
    check_reader(modelled(channels), encoder)
    _check_provides(encoder)
    parameter = next(encoder.parameters(), torch.zeros(()))
    times = torch.zeros(1, 1, dtype=parameter.dtype, device=parameter.device)
    values = times.new_zeros(1, 1, len(channels))
    mask = torch.ones_like(values, dtype=torch.bool)
    inputs = times.new_zeros(1, 1, encoder.input_size) if encoder.input_size else None
    static = times.new_zeros(1, encoder.static_size) if encoder.static_size else None
    try:
        with torch.no_grad():
            return _description(encoder(IrregularBatch(times, values, mask, inputs=inputs, static=static))).shape[-1]
    except ValueError as error:
        raise ValueError(
            f"the size of what {type(encoder).__name__} gives could not be found by itself ({error}); build the "
            "likelihood and pass it: SequenceModel(channels, encoder, Categorical(size, 1, num_classes))."
        ) from error


def _check_classes(labels: Tensor, known: Tensor, num_classes: int) -> None:
    wrong = known & ((labels < 0) | (labels >= num_classes) | (labels != labels.round()))
    if bool(wrong.any()):
        series = tuple(torch.nonzero(wrong)[0].tolist())
        raise ValueError(
            f"series {', '.join(map(str, series[:-1]))} of the batch has the label {float(labels[series]):g}; the "
            f"model knows the classes 0, 1 ... {num_classes - 1}."
        )
