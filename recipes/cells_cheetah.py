r"""Cells on half-cheetah traces: at frames that are kept at random, predict the next kept one.

    python datasets/cheetah.py --root RAW --out cheetah.parquet
    python recipes/cells_cheetah.py cheetah.parquet --seed 0 --steps 800

The task, the training and the errors are those of `ssm_cheetah.py`; all rows predict the change from the last frame,
and have the same budget: width, steps, learning rate and dropout, none of them chosen per row.

Expect, for seeds 0, 1, 2 (mean squared error on the test, the median over windows, CPU seconds on one thread):

| test             | MSE               | median         | parameters | seconds |
|------------------|-------------------|----------------|------------|---------|
| hold last        | 1.994/1.999/1.999 | 1.94/1.95/1.96 |            |         |
| GRU without gaps | .777/.786/.773    | .741/.733/.741 | 157,713    | 21      |
| GRU with gaps    | .443/.447/.444    | .385/.423/.418 | 158,097    | 20      |
| ODE-RNN          | .523/.531/.526    | .457/.487/.489 | 98,193     | 26      |
| CfC              | .438/.433/.438    | .382/.404/.420 | 89,683     | 12      |
| LTC              | .746/.726/.770    | .699/.705/.732 | 86,389     | 24      |

With 1600 steps (seed 0) CfC ends at .424 and LTC at .644: it learns slowly.
"""

from __future__ import annotations

import torch
from ssm_cheetah import WIDTH, Recurrent, main
from torch import Tensor, nn

from ctdyn.cells import Cell, CfCCell, LTCCell, ODERNNCell


class Reading(nn.Module):
    """A cell that is carried to the time of the next frame, and a head."""

    def __init__(self, cell: Cell) -> None:
        super().__init__()
        self.cell = cell
        self.head = nn.Sequential(nn.Dropout(0.3), nn.Linear(cell.read_size, cell.num_channels))

    def forward(self, ts: Tensor, us: Tensor) -> tuple[Tensor, None]:
        """As a sequence layer is called; the last of the inputs is the gap to the next frame."""
        xs = us[..., :-1]
        # One row more: when the last prediction is for.
        ts = torch.cat([ts, ts[:, -1:] + us[:, -1:, -1]], -1)
        rows = torch.cat([xs, torch.zeros_like(xs[:, :1])], 1)
        mask = torch.ones_like(rows, dtype=torch.bool)
        mask[:, -1] = False
        h = xs.new_zeros(len(xs), self.cell.hidden_size)
        before, _ = self.cell.scan(h, ts, rows, mask)
        return xs + self.head(self.cell.read(before[:, 1:])), None


class Residual(nn.Module):
    """A layer that gives the change from the last frame, as the cells do."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, ts: Tensor, us: Tensor) -> tuple[Tensor, None]:
        """As a sequence layer is called."""
        return us[..., :-1] + self.layer(ts, us)[0], None


MODELS = {
    "GRU without gaps": lambda channels: Residual(Recurrent(channels, gaps=False)),
    "GRU with gaps": lambda channels: Residual(Recurrent(channels, gaps=True)),
    "ODE-RNN": lambda channels: Reading(ODERNNCell(channels, WIDTH)),
    "CfC": lambda channels: Reading(CfCCell(channels, WIDTH, hidden=(WIDTH,))),
    "LTC": lambda channels: Reading(LTCCell(channels, WIDTH)),
}


if __name__ == "__main__":
    main(MODELS, __doc__)
