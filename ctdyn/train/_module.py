"""A model and its windows as Lightning sees them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any, Protocol, runtime_checkable

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Generator, Tensor, nn

from .._checks import NonFiniteError, SolveError
from ..data import Window
from ..models import Loss, Model
from ..nn import seed_all
from .schedules import Schedule


__all__ = ["MAX_SKIPPED", "Means", "Rounds", "TrainingModule", "num_batches", "set_epoch"]

#: Training stops when so many batches in a row had to be skipped.
MAX_SKIPPED = 10


@runtime_checkable
class _Seeded(Protocol):
    """A loader whose order and windows are a function of the number of the pass."""

    def set_epoch(self, epoch: int) -> None: ...


class Rounds:
    """Several passes over a loader as one of Lightning's epochs, dealt out to the processes of a distributed run."""

    def __init__(self, loader: Iterable[Window], passes: int) -> None:
        self.loader, self.passes = loader, passes
        self.round, self.rank, self.world_size = 0, 0, 1

    def __len__(self) -> int:
        return max(self.passes * num_batches(self.loader) // self.world_size, 1)

    def __iter__(self) -> Iterator[Window]:
        count = 0
        for number in range(self.passes):
            set_epoch(self.loader, self.round * self.passes + number)
            for window in self.loader:
                mine = count % self.world_size == self.rank
                count += 1
                if mine and count <= len(self) * self.world_size:
                    yield window


class TrainingModule(pl.LightningModule):
    """The model as Lightning sees it."""

    def __init__(
        self,
        model: Model,
        schedule: Schedule,
        total: int,
        weight_decay: float,
        seed: int,
        rounds: Rounds,
        val_loader: Iterable[Window] | None,
    ) -> None:
        super().__init__()
        self.model, self.schedule, self.total, self.weight_decay = model, schedule, total, weight_decay
        self.seed, self.rounds, self.val_loader = seed, rounds, val_loader
        self.train_means, self.val_means = Means(), Means()
        self.skipped = self.skipped_in_a_row = 0
        self.error: SolveError | None = None

    def configure_optimizers(self) -> Any:
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(parameters, lr=1.0, weight_decay=self.weight_decay)
        rates = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self.schedule.rate(step, self.total))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": rates, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["skipped"] = {"all": self.skipped, "in a row": self.skipped_in_a_row}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.skipped, self.skipped_in_a_row = checkpoint["skipped"]["all"], checkpoint["skipped"]["in a row"]

    def on_train_epoch_start(self) -> None:
        self.rounds.round = self.current_epoch

    def training_step(self, window: Window, batch_idx: int) -> Tensor:
        generator = self._generator(0, self.current_epoch, batch_idx)
        self.error = None
        try:
            loss = self.model.loss(window, generator=generator, step=self.global_step)
        except SolveError as error:
            self.error = error
            # Lightning cannot skip a batch in a distributed run; a NaN goes the way of every other bad gradient.
            return math.nan * sum((p.sum() for p in self.model.parameters()), torch.zeros((), device=self.device))
        self.train_means.add(loss, window)
        return loss.total

    def configure_gradient_clipping(
        self,
        optimizer: Any,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        bad = _non_finite_gradient(self.model)
        if bad is None:
            self.skipped_in_a_row = 0
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
            return
        # Without gradients the optimiser changes neither the weights nor its own state.
        optimizer.zero_grad(set_to_none=True)
        self.skipped += 1
        self.skipped_in_a_row += 1
        if self.skipped_in_a_row >= MAX_SKIPPED:
            what = f"the gradient of {bad!r} was not finite" if self.error is None else f"the last said: {self.error}"
            raise NonFiniteError(
                f"{MAX_SKIPPED} batches in a row were skipped, up to step {self.global_step}: {what}. Lower the "
                "learning rate, look for extreme values in the data (describe()), or take a coarser tolerance."
            ) from self.error

    def on_validation_epoch_start(self) -> None:
        self.val_means = Means()
        if self.val_loader is not None:
            set_epoch(self.val_loader, 0)

    def validation_step(self, window: Window, batch_idx: int) -> None:
        try:
            loss = self.model.loss(window, generator=self._generator(1, 0, batch_idx), step=None)
        except SolveError:
            # One series that cannot be solved for makes these weights bad; it must not end hours of training.
            loss = Loss(torch.tensor(math.inf))
        self.val_means.add(loss, window)

    def on_validation_epoch_end(self) -> None:
        value = self.val_means.result("val_")["val_loss"]
        # float32 throughout, so that what is compared is what a checkpoint restores.
        self.log("val_loss", torch.tensor(value, dtype=torch.float32, device=self.device), sync_dist=True)

    def _generator(self, stream: int, epoch: int, batch: int) -> Generator:
        """Randomness as a pure function of the position: a resumed training needs no stored random state."""
        entropy = np.random.SeedSequence([self.seed, stream, epoch, batch, self.global_rank])
        number = int(entropy.generate_state(1, np.uint64)[0]) >> 1
        # Layers such as dropout know only the global generator.
        seed_all(number)
        return Generator(self.device).manual_seed(number)


class Means:
    """Means over batches, weighted by the number of series."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.count = 0

    def add(self, loss: Loss, window: Window) -> None:
        size = int(np.prod(window.target.batch_shape))
        for name, value in {"loss": loss.total, **loss.parts}.items():
            term = torch.as_tensor(value).detach().double() * size
            self.sums[name] = self.sums[name] + term if name in self.sums else term
        self.count += size

    def result(self, prefix: str) -> dict[str, float]:
        return {f"{prefix}{name}": float(value) / max(self.count, 1) for name, value in self.sums.items()}


def num_batches(loader: Iterable[Window]) -> int:
    return len(loader)  # pyright: ignore[reportArgumentType]


def set_epoch(loader: Iterable[Window], epoch: int) -> None:
    if isinstance(loader, _Seeded):
        loader.set_epoch(epoch)


def _non_finite_gradient(model: nn.Module) -> str | None:
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    norm = torch.nn.utils.get_total_norm(gradients.values())
    if bool(torch.isfinite(norm)):
        return None
    return next((name for name, grad in gradients.items() if not bool(torch.isfinite(grad).all())), "all weights")
