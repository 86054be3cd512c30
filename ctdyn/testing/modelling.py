"""The contract of a model, as a check that raises AssertionError with the reason."""

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Generator, Tensor, nn

from .._config import Configurable, from_config, to_config
from ..data import IrregularBatch, Window
from ..models import ExactlyFitted, Model, Predictive
from ..models.base import input_path
from ._judging import alone, padded, poisoned, reached, require, same, shifted


__all__ = ["check_model", "classes_in"]


def check_model(model: Model, window: Window, *, autonomous: bool = True, steps: int = 25) -> None:
    """The contract of a `Model`; a change of units is the scaler's business and is checked where there is one.

    * poison: what stands under the mask changes neither loss nor prediction;
    * padding: three padded times change neither;
    * batching: a series alone is predicted as in a batch;
    * time shift: an autonomous model does not care where its clock begins;
    * leakage: no part of the model sees the target;
    * the generator decides everything, and the global seed is left alone;
    * quantiles are monotone, and every observed entry has a finite log density;
    * no series and no times are answered with nothing;
    * the configuration and the weights make the same model again;
    * gradients reach every parameter, and one batch can be over-fitted.

    Args:
        model: what to check; it is copied and checked in float64.
        window: what to check it on, for example `example_window(num_channels)`.
        autonomous: whether shifting all times must change nothing.
        steps: optimiser steps for over-fitting.

    Raises:
        AssertionError: the contract is broken, with the reason.

    Example:
        >>> from ctdyn.data.channels import Channel
        >>> from ctdyn.integrate import ConstantStep
        >>> from ctdyn.models import LatentODE
        >>> from ctdyn.testing.latent import example_window
        >>> channels = [Channel("a"), Channel("b")]
        >>> model = LatentODE(channels, 3, (8,), encoder_size=8, controller=ConstantStep(0.4))
        >>> check_model(model, example_window(2))
    """
    model = copy.deepcopy(model).double()
    window = window.to(torch.float64)
    if isinstance(model, ExactlyFitted):
        model.fit_exact([window])
    _check_invariance(model, window, autonomous)
    _check_randomness(model, window)
    _check_answers(model, window)
    _check_nothing(model, window)
    _check_configuration(model, window)
    if any(p.requires_grad for p in model.parameters()):
        _check_leakage(model, window)
        reached(model, _loss(model, window))
        _check_overfit(model, window, steps)


def _check_invariance(model: Model, window: Window, autonomous: bool, tolerance: float = 1e-7) -> None:
    loss, prediction = _loss(model, window), _predict(model, window)
    ts = window.target.times
    cases: list[tuple[Callable[[IrregularBatch], IrregularBatch], str]] = [
        (poisoned, "values under the mask change"),
        (lambda batch: padded(batch, 3), "three padded times change"),
    ]
    if autonomous:
        cases.append((lambda batch: shifted(batch, 10.0), "a shift of all times changes"))
    for change, reason in cases:
        changed = Window(change(window.context), change(window.target))
        same(_loss(model, changed), loss, tolerance, f"{reason} the loss")
        for got, want in zip(_predict(model, changed), prediction, strict=True):
            same(got[..., : ts.shape[-1], :], want, tolerance, f"{reason} the prediction")
    for i in range(ts.shape[0]):
        # Copies of one series keep the shape of the random draws; its padding goes as if it were alone.
        context, target = alone(window.context, i), alone(window.target, i)
        copies = Window(*(part[torch.zeros(ts.shape[0], dtype=torch.long)] for part in (context, target)))
        for got, want in zip(_predict(model, copies), prediction, strict=True):
            width = target.times.shape[-1]
            same(got[:, i], want[:, i, :width], tolerance, f"series {i} alone is predicted differently from a batch")


def _check_randomness(model: Model, window: Window) -> None:
    state = torch.get_rng_state()
    same(_loss(model, window), _loss(model, window), 0.0, "the same generator gives another loss")
    for got, want in zip(_predict(model, window), _predict(model, window), strict=True):
        same(got, want, 0.0, "the same generator gives another prediction")
    require(torch.equal(state, torch.get_rng_state()), "the global random state moves although a generator was given")


def _check_answers(model: Model, window: Window) -> None:
    predictive = _predictive(model, window)
    quantiles = predictive.quantile([0.05, 0.5, 0.95], Generator().manual_seed(0))
    require(bool((quantiles.diff(dim=0) >= 0).all()), "quantiles are not monotone in the level")
    target = window.target
    log_prob = predictive.log_prob(target.values, target.mask)
    require(log_prob.shape == target.values.shape, "log_prob must be (*batch, time, channel)")
    require(bool(torch.isfinite(log_prob).all()), "an observed entry has no finite log density")
    parts = model.loss(window, generator=Generator().manual_seed(0)).parts
    require("nats_per_observation" in parts, "Loss.parts must report nats_per_observation")


def _check_nothing(model: Model, window: Window) -> None:
    context, ts = window.context, window.target.times
    none = torch.arange(0)
    for batch, times, what in ((context[none], ts[none], "series"), (context, ts[..., :0], "times")):
        answer = model.predict(batch, times, input_path(batch, batch), num_samples=2).mean
        want = (*times.shape, len(model.channels))
        require(tuple(answer.shape) == want, f"no {what} are answered with {tuple(answer.shape)} instead of {want}")


def _check_configuration(model: Model, window: Window) -> None:
    again = from_config(to_config(model), {cls.__name__: cls for cls in classes_in(model)}).double()
    again.load_state_dict(model.state_dict())
    for got, want in zip(_predict(again, window), _predict(model, window), strict=True):
        same(got, want, 1e-12, "the model made again from its configuration and weights predicts differently")


def _check_leakage(model: Model, window: Window) -> None:
    """Only the target asks for gradients; a module whose input asks for them has seen the target."""
    model = copy.deepcopy(model).requires_grad_(False)
    values = window.target.values
    # A field that is itself a gradient (of an energy) asks for them whatever the target does.
    own = _asking(model, window)
    asking = Window(window.context, dataclasses.replace(window.target, values=values.clone().requires_grad_()))
    seen = [name for name in _asking(model, asking) if name not in own]
    require(not seen, f"the target leaks into the model: {seen[:3]} see its values")


def _asking(model: Model, window: Window) -> list[str]:
    """The modules that were called with something that asks for gradients."""
    seen: list[str] = []

    def watch(name: str) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if any(x.requires_grad for x in _tensors((args, kwargs))):
                seen.append(name)

        return hook

    hooks = [
        module.register_forward_pre_hook(watch(name), with_kwargs=True)
        for name, module in model.named_modules()
        if name
    ]
    model.loss(window, generator=Generator().manual_seed(0))
    for hook in hooks:
        hook.remove()
    return seen


def _check_overfit(model: Model, window: Window, steps: int) -> None:
    model = copy.deepcopy(model)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    # Without a step the objective is not annealed, so that it is the reported number which must fall.
    before = model.loss(window, generator=Generator().manual_seed(0)).parts["nats_per_observation"]
    generator = Generator().manual_seed(1)
    for _ in range(steps):
        optimiser.zero_grad()
        model.loss(window, generator=generator).total.backward()
        optimiser.step()
    after = model.loss(window, generator=Generator().manual_seed(0)).parts["nats_per_observation"]
    require(
        bool(after < before - 0.05),
        f"{steps} steps on one batch do not lower the loss per observation: {float(before):.3f} -> {float(after):.3f}",
    )


def _loss(model: Model, window: Window) -> Tensor:
    return model.loss(window, generator=Generator().manual_seed(0)).total


def _predictive(model: Model, window: Window) -> Predictive:
    path = input_path(window.context, window.target)
    generator = Generator().manual_seed(0)
    return model.predict(window.context, window.target.times, path, num_samples=3, generator=generator)


def _predict(model: Model, window: Window) -> tuple[Tensor, Tensor]:
    distribution = _predictive(model, window).distribution
    shape = distribution.batch_shape
    return distribution.mean.expand(shape).detach(), distribution.variance.expand(shape).detach()


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)
    elif dataclasses.is_dataclass(value):
        for f in dataclasses.fields(value):
            yield from _tensors(getattr(value, f.name))


def classes_in(value: Any) -> set[type]:
    """The classes that a configuration of `value` names.

    Args:
        value: a configurable object, or anything that one is made of.

    Example:
        >>> from ctdyn.data import Standardize
        >>> [kind.__name__ for kind in classes_in(Standardize())]
        ['Standardize']
    """
    if isinstance(value, type):
        return {value}
    if isinstance(value, Configurable):
        return {type(value)}.union(*(classes_in(item) for item in value._arguments.values()))
    if isinstance(value, Mapping):
        return set().union(*(classes_in(item) for item in value.values()))
    if isinstance(value, list | tuple):
        return set().union(*(classes_in(item) for item in value))
    if dataclasses.is_dataclass(value):
        return {type(value)}.union(*(classes_in(getattr(value, f.name)) for f in dataclasses.fields(value)))
    return set()
