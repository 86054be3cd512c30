"""Models of some channels each, as one model of all of them."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Generator, nn

from .._checks import check_list
from .._types import Times, Values
from ..data import IrregularBatch, Window
from ..likelihoods.per_kind import Columns
from ..paths import Path
from .base import ExactlyFitted, Loss, Model, Predictive


__all__ = ["SideBySide"]


class SideBySide(Model, ExactlyFitted):
    """Channels that do not inform each other, each modelled by a model of its own; or groups of channels.

    For many channels that are rarely observed together: a group costs its own size alone, and each has the dynamics
    that suit it. The channels of the whole are those of the models in their order.

    Args:
        models: models that are fitted in closed form, with channels of different names.

    Raises:
        TypeError: a model is trained by gradient steps.
        ValueError: there is no model, or two have a channel of the same name.

    Example:
        >>> import torch
        >>> from ctdyn.data import Channel
        >>> from ctdyn.models import HoldLast, LinearGaussianSSM
        >>> model = SideBySide([LinearGaussianSSM([Channel("a"), Channel("b")], 2), HoldLast([Channel("c")])])
        >>> times, values = torch.tensor([[0.0, 1.0]]), torch.ones(1, 2, 3)
        >>> context = IrregularBatch(times, values, torch.ones(1, 2, 3, dtype=torch.bool))
        >>> model.predict(context, torch.tensor([[2.0]])).mean.shape
        torch.Size([1, 1, 3])
    """

    def __init__(self, models: Sequence[Model]) -> None:
        check_list("models", models, Model, "[MaternGP(channels)]")
        channels = [channel for model in models for channel in model.channels]
        names = [channel.name for channel in channels]
        if not models or len(set(names)) < len(names):
            raise ValueError(f"SideBySide needs models whose channels have different names; got {names}.")
        trained = [type(model).__name__ for model in models if not isinstance(model, ExactlyFitted)]
        if trained:
            raise TypeError(
                f"SideBySide takes models that are fitted in closed form; {', '.join(trained)} is trained by gradient "
                "steps. Fit it by itself."
            )
        super().__init__(channels)
        self.models = nn.ModuleList(models)

    @property
    def reads(self) -> frozenset[str]:
        """See `Model.reads`: what one of its models does."""
        return frozenset().union(*(model.reads for model, _ in self._parts))

    def fit_exact(self, windows: Iterable[Window]) -> None:
        """Fit each model to its channels.

        Args:
            windows: batches of windows in model units.
        """
        windows = list(windows)
        for model, columns in self._parts:
            assert isinstance(model, ExactlyFitted)
            model.fit_exact([_shared(window, columns) for window in windows])

    def loss(self, window: Window, *, generator: Generator | None = None, step: int | None = None) -> Loss:
        """The sum of the losses of the models; there is nothing to train: see `fit_exact`."""
        total, nats = torch.zeros(()), torch.zeros(())
        for model, columns in self._parts:
            part = _shared(window, columns)
            loss = model.loss(part, generator=generator)
            total = total + loss.total
            nats = nats + loss.parts["nats_per_observation"] * part.target.mask.sum().clamp(min=1)
        return Loss(total, {"nats_per_observation": nats / window.target.mask.sum().clamp(min=1)})

    def predict(
        self,
        context: IrregularBatch,
        ts: Times,
        inputs: Path | None = None,
        *,
        noise: Values | None = None,
        num_samples: int = 100,
        generator: Generator | None = None,
    ) -> Predictive:
        """See `Model.predict`."""
        options: dict[str, Any] = {"num_samples": num_samples, "generator": generator}
        answers = [
            model.predict(
                _only(context, columns), ts, inputs, noise=None if noise is None else noise[..., columns], **options
            )
            for model, columns in self._parts
        ]
        return Predictive(Columns([answer.distribution for answer in answers], [own for _, own in self._parts]))

    @property
    def _parts(self) -> list[tuple[Model, list[int]]]:
        """The models and the columns of each."""
        found, start = [], 0
        for model in self.models:
            assert isinstance(model, Model)
            found.append((model, list(range(start, start + len(model.channels)))))
            start += len(model.channels)
        return found


def _only(batch: IrregularBatch, columns: list[int]) -> IrregularBatch:
    """Some of the channels, with all rows."""
    noise = None if batch.noise is None else batch.noise[..., columns]
    return replace(batch, values=batch.values[..., columns], mask=batch.mask[..., columns], noise=noise)


def _shared(window: Window, columns: list[int]) -> Window:
    return Window(_only(window.context, columns), _only(window.target, columns))
