"""What the checks share: comparisons that say what went wrong, and changes to a batch that must not matter."""

import dataclasses

import torch
from torch import Tensor, nn

from ..data import IrregularBatch


__all__ = ["alone", "padded", "poisoned", "reached", "require", "same", "shifted", "within"]


def require(condition: bool, reason: str) -> None:
    if not condition:
        raise AssertionError(f"{reason}.")


def same(got: Tensor, want: Tensor, tolerance: float, reason: str) -> None:
    require(got.shape == want.shape, f"{reason}: shape {tuple(got.shape)} instead of {tuple(want.shape)}")
    got, want = got.detach(), want.detach()
    difference = float(((got - want).abs() / (1 + want.abs())).max()) if want.numel() else 0.0
    require(difference <= tolerance, f"{reason}: the largest relative difference is {difference:.2e}")


def within(draws: Tensor, expected: Tensor, reason: str) -> None:
    """The mean of the draws is the expectation, up to five standard errors (and rounding)."""
    draws, expected = draws.detach(), expected.detach()
    error = (draws.mean(0) - expected).abs()
    allowed = 5 * draws.std(0) / len(draws) ** 0.5 + 1e-9
    require(
        bool((error <= allowed).all()), f"{reason}: off by {float((error / allowed).max()) * 5:.1f} standard errors"
    )


def reached(module: nn.Module, result: Tensor) -> None:
    named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    gradients = torch.autograd.grad(result, [p for _, p in named], allow_unused=True) if named else ()
    for (name, _), gradient in zip(named, gradients, strict=True):
        require(gradient is not None and bool((gradient != 0).any()), f"no gradient reaches the parameter {name}")
        require(bool(torch.isfinite(gradient).all()), f"the gradient of the parameter {name} is not finite")


def poisoned(batch: IrregularBatch) -> IrregularBatch:
    return dataclasses.replace(batch, values=torch.where(batch.mask, batch.values, 1e3))


def shifted(batch: IrregularBatch, by: float) -> IrregularBatch:
    start = None if batch.start is None else batch.start + by
    return dataclasses.replace(batch, times=batch.times + by, start=start)


def padded(batch: IrregularBatch, count: int) -> IrregularBatch:
    def repeat(x: Tensor | None) -> Tensor | None:
        return None if x is None else torch.cat([x, x[:, -1:].repeat_interleave(count, 1)], 1)

    def zeros(x: Tensor | None) -> Tensor | None:
        return None if x is None else torch.cat([x, torch.zeros_like(x[:, -1:]).repeat_interleave(count, 1)], 1)

    changed = {name: zeros(getattr(batch, name)) for name in ("values", "mask", "inputs", "noise")}
    return dataclasses.replace(batch, times=repeat(batch.times), start=repeat(batch.start), **changed)


def alone(batch: IrregularBatch, i: int) -> IrregularBatch:
    """One series without its padding."""
    one = batch[i : i + 1]
    width = int((one.times[0] != one.times[0, -1]).sum()) + 1
    names = ("times", "values", "mask", "inputs", "noise", "start")
    cut = {name: getattr(one, name) for name in names}
    return dataclasses.replace(one, **{name: x if x is None else x[:, :width] for name, x in cut.items()})
