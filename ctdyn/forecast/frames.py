"""Tidy frames of answers that are no forecasts: labels and new series."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch.distributions import Categorical, Distribution

from ..data import Channel, TimeAxis


if TYPE_CHECKING:
    import pandas as pd

__all__ = ["label_frame", "sampled_frame"]


def label_frame(ids: Sequence[object], names: Sequence[str], found: Sequence[Distribution]) -> pd.DataFrame:
    """One row per series and label: the most probable class and all probabilities, or the mean and its spread.

    Args:
        ids: of the series.
        names: of the labels; numbers stand for them where there are none.
        found: the distribution of the labels of each series, of batch shape `(1, label)`.

    Example:
        >>> import torch
        >>> label_frame(["a"], ["speaker"], [Categorical(probs=torch.tensor([[[0.25, 0.75]]]))])
          id    label  value    p0    p1
        0  a  speaker      1  0.25  0.75
    """
    import pandas as pd

    rows = []
    for id, distribution in zip(ids, found, strict=True):
        count = distribution.batch_shape[-1]
        labels = names if len(names) == count else [str(i) for i in range(count)]
        for column, label in enumerate(labels):
            row: dict[str, object] = {"id": id, "label": label}
            if isinstance(distribution, Categorical):
                probabilities = distribution.probs[0, column].tolist()
                row["value"] = max(range(len(probabilities)), key=probabilities.__getitem__)
                row |= {f"p{code}": p for code, p in enumerate(probabilities)}
            else:
                row["value"] = float(distribution.mean[0, column])
                row["std"] = float(distribution.variance[0, column]) ** 0.5
            rows.append(row)
    return pd.DataFrame(rows)


def sampled_frame(values: np.ndarray, times: np.ndarray, axis: TimeAxis, channels: Sequence[Channel]) -> pd.DataFrame:
    """One row per sample, time and channel: id (0, 1, ...), time, channel, value.

    Args:
        values: new series, `(sample, time, channel)`.
        times: on the float clock, `(time,)`.
        axis: the clock.
        channels: what the values are of.
    """
    import pandas as pd

    samples, width = len(values), len(channels)
    names = np.array([channel.name for channel in channels], dtype=object)
    return pd.DataFrame(
        {
            "id": np.repeat(np.arange(samples), len(times) * width),
            "time": axis.to_user(np.tile(np.repeat(times, width), samples)),
            "channel": np.tile(names, samples * len(times)),
            "value": values.ravel(),
        }
    )
