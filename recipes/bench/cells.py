"""Closed-form and liquid cells beside those of ncps: forward and backward, 32 series of 100 steps with 16 inputs.

Our cells have the weights of the peer's (`load_ncps`), so that outputs can be compared: the largest difference, and for
liquid networks the error of both against the solution of their equation (root mean square over that of the solution, by
small steps in float64). Timespans are the same for all series, as the peer wants them.

Expected (one CPU thread, milliseconds of CPU, on a machine that does other work too; ratios vary by a tenth):

|              | ours | ncps | ratio | our error | error of ncps |
|--------------|------|------|-------|-----------|---------------|
| CfC          | 8.9  | 40   | 4.5   |           |               |
| CfC wired    | 7.9  | 82   | 10    |           |               |
| LTC, span .1 | 13.5 | 279  | 21    | .0082     | .0168         |
| LTC, span 1  | 22.5 | 290  | 13    | .0038     | .0039         |
| LTC fused    | 30.3 | 272  | 9.0   | .0046     | .0046         |

Of the 8.9 a good half are the products of matrices themselves, at the rate of large ones.

    python recipes/bench/cells.py --seed 0

A peer that is not installed (`pip install ncps`) gives a row that says absent. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import importlib
import json
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import Tensor

from ctdyn.cells import CfCCell, LTCCell, load_ncps
from ctdyn.cells.held import HeldCell
from ctdyn.solvers import FusedEuler
from ctdyn.wirings import AutoNCP


SERIES, STEPS, INPUTS, UNITS = 32, 100, 16, 32
# Name, cell, timespan. Steps of a liquid cell: as few as beat the peer's error.
CASES: list[tuple[str, Callable[[], HeldCell], float]] = [
    ("CfC", lambda: CfCCell(INPUTS, UNITS, reads_mask=False), 1.0),
    ("CfC wired", lambda: CfCCell(INPUTS, AutoNCP(UNITS, 4), reads_mask=False), 1.0),
    ("LTC, span .1", lambda: LTCCell(INPUTS, UNITS, reads_mask=False), 0.1),
    ("LTC, span 1", lambda: LTCCell(INPUTS, UNITS, num_steps=2, reads_mask=False), 1.0),
    ("LTC fused", lambda: LTCCell(INPUTS, UNITS, solver=FusedEuler(), num_steps=6, reads_mask=False), 1.0),
]


def peer(name: str) -> Any:
    """The layer of ncps, or None."""
    try:
        layers, wirings = importlib.import_module("ncps.torch"), importlib.import_module("ncps.wirings")
    except ImportError:
        return None
    if name.startswith("LTC"):
        return layers.LTC(INPUTS, UNITS)
    return layers.CfC(INPUTS, wirings.AutoNCP(UNITS, 4) if "wired" in name else UNITS)


def in_turns(runs: dict[str, Callable[[], Tensor]], repeats: int) -> dict[str, float]:
    """Median milliseconds of CPU for forward and backward, in turns so that a busy machine strikes all."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats + 1):
        for name, run in runs.items():
            start = time.process_time()
            run().square().mean().backward()
            if repeat:
                times[name].append(1e3 * (time.process_time() - start))
    return {name: median(values) for name, values in times.items()}


@torch.no_grad()
def truth(cell: LTCCell, xs: Tensor, span: float) -> Tensor:
    """The solution of the equation of a liquid cell."""
    fine = LTCCell(INPUTS, UNITS, num_steps=128, reads_mask=False).double()
    fine.load_state_dict(cell.state_dict())
    return fine(xs.double(), timespans=span)[0]


def row(name: str, build: Callable[[], HeldCell], span: float, repeats: int) -> dict[str, float | str]:
    cell, other, xs = build(), peer(name), torch.randn(SERIES, STEPS, INPUTS)
    runs = {"ours": lambda: cell(xs, timespans=span)[0]}
    if other is not None:
        load_ncps(cell, other.state_dict())  # type: ignore[arg-type]
        spans = torch.full((1, STEPS), span)
        runs["ncps"] = lambda: other(xs, timespans=spans)[0]
    times = in_turns(runs, repeats)
    found: dict[str, float | str] = {"ours ms": round(times["ours"], 2), "ncps ms": "absent"}
    with torch.no_grad():
        outputs = {key: run() for key, run in runs.items()}
    if "ncps" in times:
        found |= {"ncps ms": round(times["ncps"], 2), "ratio": round(times["ncps"] / times["ours"], 2)}
        found["difference"] = float((outputs["ours"] - outputs["ncps"]).abs().max())
    if isinstance(cell, LTCCell):
        exact = truth(cell, xs, span)
        for key, value in outputs.items():
            found[f"{key} error"] = float((value - exact).square().mean().sqrt() / exact.square().mean().sqrt())
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    torch.set_num_threads(1)
    columns = ("ours ms", "ncps ms", "ratio", "difference", "ours error", "ncps error")
    print(f"{'':14}" + "".join(f"{column:>12}" for column in columns))
    figures: dict[str, dict[str, float | str]] = {}
    for name, build, span in CASES:
        figures[name] = row(name, build, span, 3 if options.quick else 15)
        cells = (figures[name].get(column, "") for column in columns)
        print(f"{name:14}" + "".join(f"{x:>12.3g}" if isinstance(x, float) else f"{x:>12}" for x in cells))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
