r"""Who is speaking? Ragged series of two Japanese vowels, 12 channels, nine speakers: five ways to read them.

    python datasets/japanese_vowels.py --root RAW --out vowels.parquet
    python recipes/japanese_vowels.py vowels.parquet --seed 0

All rows have one budget: the 270 training series, steps of AdamW on batches of 32 whole series, standardised channels,
one affine map from the description of a series to the nine logits. What differs is the reader, and its learning rate.

Expect, for seeds 0, 1, 2 (accuracy on the 370 test series; CPU seconds of training on one thread):

| reader     | accuracy         | parameters | seconds |
|------------|------------------|------------|---------|
| GRU        | .968/.976/.973   | 24,073     | 6       |
| CfC        | .968/.973/.968   | 45,305     | 3       |
| neural CDE | .962/.965/.965   | 60,425     | 12      |
| linear CDE | .959/.965/.957   | 6,345      | 6       |

The set is nearly solved, and the four are within two standard errors (.01) of each other; the linear equation needs a
tenth of the parameters of the neural one. Sizes and rates were chosen by a fifth of the training series that was held
out (`--validate`, seed 0: GRU .926, CfC, neural and linear CDE .981, 54 series), never by the test. The Log-NCDE had
.926 there and is twice as dear; its test has not been run.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

import ctdyn
from ctdyn.cells import CfCCell
from ctdyn.data import SeriesSet, read
from ctdyn.encoders import CDEEncoder, CellEncoder, Encoder, GRUEncoder
from ctdyn.fields import LinearCDEField, LogODEField, MLPCDEField
from ctdyn.models import SequenceModel
from ctdyn.paths import Control, HermitePath, LinearPath


SPEAKERS = 9


def neural_cde(channels: int) -> Encoder:
    """A perceptron driven by a cubic path, one step of RK4 per frame."""
    control = Control(HermitePath, counts=0.0)
    return CDEEncoder(channels, 64, MLPCDEField(64, control.size(channels), (64,)), control)


def linear_cde(channels: int) -> Encoder:
    """Block-diagonal matrices, followed exactly along straight lines."""
    control = Control(LinearPath, counts=0.0)
    field = LinearCDEField(64, control.size(channels), block_size=4, scale=0.25)
    return CDEEncoder(channels, 64, field, control)


def log_ncde(channels: int) -> Encoder:
    """A perceptron and its Lie brackets, one step of RK4 per window of four frames."""
    control = Control(LinearPath, counts=0.0, window=4)
    plain = Control(LinearPath, counts=0.0).size(channels)
    return CDEEncoder(channels, 32, LogODEField(MLPCDEField(32, plain, (64,)), plain), control)


#: The readers and their learning rates.
READERS: dict[str, tuple[Callable[[int], Encoder], float]] = {
    "GRU": (lambda channels: GRUEncoder(channels, 16, 64), 1e-2),
    "CfC": (lambda channels: CellEncoder(CfCCell(channels, 64)), 3e-3),
    "neural CDE": (neural_cde, 3e-3),
    "linear CDE": (linear_cde, 3e-3),
    "Log-NCDE": (log_ncde, 3e-3),
}


def part(data: SeriesSet, name: str) -> SeriesSet:
    """The series of a part; the split is the id."""
    return replace(data, series=tuple(one for one in data if str(one.id).startswith(name)))


def accuracy(forecaster: ctdyn.Forecaster, data: SeriesSet) -> float:
    """Share of the series whose speaker is named rightly."""
    truth = [-1 if one.labels is None else int(one.labels[0]) for one in data]
    return float(np.mean(forecaster.predict_label(data)["value"].to_numpy() == truth))


def evaluate(name: str, train: SeriesSet, judged: SeriesSet, options: argparse.Namespace, rate: float | None) -> dict:
    """Fit a reader and judge it."""
    build, usual = READERS[name]
    torch.manual_seed(options.seed)
    model = SequenceModel.classifier(train.channels, build(len(train.channels)), SPEAKERS)
    steps = options.steps // 10 if options.quick else options.steps
    start = time.process_time()
    forecaster = ctdyn.Forecaster(model, seed=options.seed).fit(
        train, max_steps=steps, batch_size=32, lr=usual if rate is None else rate, enable_progress_bar=False
    )
    seconds = time.process_time() - start
    count = sum(parameter.numel() for parameter in model.parameters())
    return {"accuracy": accuracy(forecaster, judged), "parameters": count, "seconds": round(seconds, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="what datasets/japanese_vowels.py wrote")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a tenth of the steps")
    parser.add_argument("--steps", type=int, default=300, help="training steps of every reader")
    parser.add_argument("--reader", choices=list(READERS), action="append", help="only this one; may be repeated")
    parser.add_argument("--lr", type=float, help="a learning rate for all of them")
    parser.add_argument("--validate", action="store_true", help="judge on a fifth of the training series")
    options = parser.parse_args()
    data = read(options.data)
    train, judged = part(data, "train"), part(data, "test")
    if options.validate:
        train, judged = train.split(0.8, seed=options.seed)
    names = options.reader or list(READERS)
    rows = {name: evaluate(name, train, judged, options, options.lr) for name in names}
    print(f"{'validation' if options.validate else 'test':16}{'accuracy':>9}{'parameters':>12}{'seconds':>9}")
    for name, row in rows.items():
        print(f"{name:16}{row['accuracy']:9.3f}{row['parameters']:12}{row['seconds']:9}")
    print(json.dumps({"seed": options.seed, "steps": options.steps, "lr": options.lr, "rows": rows}))


if __name__ == "__main__":
    main()
