"""The contract of a model of labelled series, as a check that raises AssertionError with the reason."""

import copy
import dataclasses
from typing import Any

import torch
from torch import Generator, Tensor

from .._config import from_config, to_config
from ..data import IrregularBatch, Window
from ..models import Labels, Model
from ._judging import alone, padded, poisoned, reached, require, same, shifted
from .modelling import classes_in


__all__ = ["check_labels"]


def check_labels(model: Any, batch: IrregularBatch, *, autonomous: bool = True, steps: int = 25) -> None:
    """The contract of a `Model` that is `Labels`.

    * what stands under the mask, padding, the other series of the batch and, for an autonomous model, a shift of the
      clock change neither the loss nor the predicted labels;
    * the labels do not reach the prediction, and an unknown one (NaN) is no part of the loss;
    * the configuration and the weights make the same model again;
    * gradients reach every parameter, and one batch can be over-fitted.

    Args:
        model: what to check; it is copied and checked in float64.
        batch: labelled series, for example `example_window(num_channels).context` with `labels`.
        autonomous: whether shifting all times must change nothing.
        steps: optimiser steps for over-fitting.

    Raises:
        AssertionError: the contract is broken, with the reason.

    Example:
        >>> from ctdyn.data.channels import Channel
        >>> from ctdyn.encoders import GRUEncoder
        >>> from ctdyn.models import SequenceModel
        >>> from ctdyn.testing import example_window
        >>> model = SequenceModel.classifier([Channel("a"), Channel("b")], GRUEncoder(2, 3, 6), num_classes=2)
        >>> labels = torch.tensor([[0.0], [1.0], [1.0], [0.0]])
        >>> check_labels(model, dataclasses.replace(example_window(2).context, labels=labels))
    """
    require(isinstance(model, Model) and isinstance(model, Labels), "the model is no Model with the capability Labels")
    require(batch.labels is not None, "the batch has no labels to check the model on")
    model, batch = copy.deepcopy(model).double(), batch.to(torch.float64)
    assert batch.labels is not None
    loss, found = _loss(model, batch), _numbers(model, batch)
    require(found.shape[:-1] == batch.labels.shape, "predict_label must be of batch shape (*batch, label)")
    require(bool(torch.isfinite(found).all()), "the distribution of a label is not finite")
    cases = [(poisoned(batch), "values under the mask change"), (padded(batch, 3), "three padded times change")]
    if autonomous:
        cases.append((shifted(batch, 10.0), "a shift of all times changes"))
    for changed, reason in cases:
        same(_loss(model, changed), loss, 1e-7, f"{reason} the loss")
        same(_numbers(model, changed), found, 1e-7, f"{reason} the prediction")
    for i in range(len(found)):
        same(_numbers(model, alone(batch, i))[0], found[i], 1e-7, f"series {i} alone is labelled differently")
    other = dataclasses.replace(batch, labels=1 - batch.labels)
    same(_numbers(model, other), found, 0.0, "the labels leak into the prediction")
    unknown = dataclasses.replace(batch, labels=torch.full_like(batch.labels, torch.nan))
    same(_loss(model, unknown), torch.zeros_like(loss), 0.0, "labels that are not known are part of the loss")
    again = from_config(to_config(model), {cls.__name__: cls for cls in classes_in(model)}).double()
    again.load_state_dict(model.state_dict())
    same(_numbers(again, batch), found, 1e-12, "the model made again from its configuration labels differently")
    reached(model, loss)
    _check_overfit(model, batch, steps)


def _check_overfit(model: Model, batch: IrregularBatch, steps: int) -> None:
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    before = _loss(model, batch).detach()
    for _ in range(steps):
        optimiser.zero_grad()
        _loss(model, batch).backward()
        optimiser.step()
    after = _loss(model, batch).detach()
    require(
        bool(after < before - 0.02),
        f"{steps} steps on one batch do not lower the loss: {float(before):.3f} -> {float(after):.3f}",
    )


def _loss(model: Model, batch: IrregularBatch) -> Tensor:
    return model.loss(Window(batch, batch), generator=Generator().manual_seed(0)).total


def _numbers(model: Any, batch: IrregularBatch) -> Tensor:
    """Mean and variance of the labels, `(*batch, label, 2)`."""
    distribution = model.predict_label(batch)
    return torch.stack([distribution.mean, distribution.variance], -1).detach()
