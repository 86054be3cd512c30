"""What stays of a training: checkpoints without pickle, the history, the best weights, and a bar while one waits."""

from __future__ import annotations

import math
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO
from lightning.pytorch.callbacks import Checkpoint, EarlyStopping, ProgressBar
from torch import Tensor
from tqdm import tqdm

from .._checks import NonFiniteError
from .._storage import check_writable, decode_tree, encode_tree, read_folder, write_file, write_folder
from ._module import Means, TrainingModule


if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CHECKPOINT", "Bar", "Keeper", "SafetensorsIO", "frame"]

#: The folder of the last checkpoint, inside the folder of the run.
CHECKPOINT = "checkpoint"
_METRICS = "metrics.csv"


class SafetensorsIO(CheckpointIO):
    """Lightning's checkpoints as folders of safetensors and JSON: nothing is pickled, nothing pickled is read.

    Writing is atomic: after a crash the previous checkpoint or the new one loads.

    Example:
        >>> import tempfile
        >>> import torch
        >>> folder = Path(tempfile.mkdtemp()) / "state"
        >>> SafetensorsIO().save_checkpoint({"step": 3, "state": {0: torch.ones(2)}}, folder)
        >>> SafetensorsIO().load_checkpoint(folder)
        {'step': 3, 'state': {0: tensor([1., 1.])}}
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint into the folder `path`, which is made where it does not exist."""
        folder = Path(path)
        check_writable(folder)
        document, tensors = encode_tree(checkpoint)
        write_folder(folder, "checkpoint.json", {"kind": "checkpoint", "tree": document}, tensors)

    def load_checkpoint(self, path: str | Path, map_location: Any = None, weights_only: Any = None) -> dict[str, Any]:
        """Read the checkpoint in the folder `path`; its tensors are on the CPU."""
        document, tensors = read_folder(Path(path), "checkpoint.json", "checkpoint", max_bytes=1 << 26)
        return decode_tree(document["tree"], tensors)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete the folder `path`."""
        shutil.rmtree(path, ignore_errors=True)


class Keeper(Checkpoint):
    """Keeps the history, the best weights and the last checkpoint."""

    def __init__(self, folder: Path | None, total: int, batches: int, fingerprint: str) -> None:
        self.folder, self.total, self.batches, self.fingerprint = folder, total, batches, fingerprint
        self.rows: list[dict[str, Any]] = []
        self.best: dict[str, Tensor] | None = None
        self.best_loss = math.inf
        self.began, self.before = time.monotonic(), 0.0

    def state_dict(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "best": self.best,
            "best_loss": self.best_loss,
            "fingerprint": self.fingerprint,
            "seconds": self._seconds(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows, self.best, self.best_loss = (state_dict[key] for key in ("rows", "best", "best_loss"))
        self.before = state_dict["seconds"]

    def setup(self, trainer: pl.Trainer, pl_module: Any, stage: str) -> None:
        pl_module.rounds.rank, pl_module.rounds.world_size = trainer.global_rank, trainer.world_size

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.began = time.monotonic()
        if self.rows:
            # The checkpoint stands between two rounds; Lightning would look for the rest of the one that is over.
            trainer.fit_loop.epoch_loop.restarting = False
        stopped = any(c.stopped_epoch > 0 for c in trainer.callbacks if isinstance(c, EarlyStopping))  # pyright: ignore
        trainer.should_stop = stopped or trainer.global_step >= self.total

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        # Between two rounds nothing is half done: the one moment whose state resumes without a seam.
        if trainer.global_step > 0:
            self._save(trainer)

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        # A last round that is shorter than the others would otherwise end without its validation.
        if trainer.global_step >= self.total:
            trainer.should_stop = True

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if trainer.sanity_checking:
            return
        self._record(trainer, pl_module, pl_module.val_means.result("val_"))
        # Lightning's number is the mean over all processes, so that they agree on which weights are best.
        loss = float(trainer.callback_metrics["val_loss"])
        if loss < self.best_loss:
            self.best_loss = loss
            self.best = {key: value.detach().cpu().clone() for key, value in pl_module.model.state_dict().items()}

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if pl_module.train_means.count > 0:
            self._record(trainer, pl_module, {})

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self._save(trainer)

    def restore_best(self, module: TrainingModule) -> None:
        """Give the model its best weights, or leave the last where nothing was validated."""
        if module.val_loader is None:
            return
        if self.best is None:
            raise NonFiniteError(
                "the validation loss was never finite; lower the learning rate, or look for extreme values in the "
                "validation series (describe())."
            )
        module.model.load_state_dict(self.best)

    def _record(self, trainer: pl.Trainer, pl_module: Any, values: Mapping[str, float]) -> None:
        step = trainer.global_step
        self.rows.append(
            {
                "step": step,
                "epoch": step * trainer.accumulate_grad_batches * trainer.world_size / self.batches,
                "seconds": round(self._seconds(), 3),
                "lr": pl_module.schedule.rate(step - 1, self.total),
                "skipped": pl_module.skipped,
                **pl_module.train_means.result("train_"),
                **values,
            }
        )
        pl_module.train_means = Means()
        if self.folder is not None and trainer.is_global_zero:
            write_file(self.folder / _METRICS, frame(self.rows).to_csv(index=False).encode())

    def _save(self, trainer: pl.Trainer) -> None:
        if self.folder is not None:
            trainer.save_checkpoint(str(self.folder / CHECKPOINT))

    def _seconds(self) -> float:
        return self.before + time.monotonic() - self.began


class Bar(ProgressBar):
    """One bar over the whole training, not one per round."""

    def __init__(self, total: int) -> None:
        super().__init__()
        self.total, self.bar = total, tqdm(disable=True)

    def disable(self) -> None:
        self.bar.disable = True

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        # Where nobody watches a terminal a line now and then is enough.
        pause = 0.5 if sys.stderr.isatty() else 10.0
        self.bar = tqdm(
            total=self.total,
            initial=trainer.global_step,
            desc="fit",
            unit="step",
            dynamic_ncols=True,
            mininterval=pause,
            disable=not trainer.is_global_zero,
        )

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        self.bar.update(trainer.global_step - self.bar.n)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        losses = {"validation": pl_module.val_means.result("")["loss"]} if pl_module.val_means.count else {}
        self.bar.set_postfix({name: f"{value:.4g}" for name, value in losses.items()}, refresh=False)

    def teardown(self, trainer: pl.Trainer, pl_module: Any, stage: str) -> None:
        self.bar.close()


def frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(rows)
