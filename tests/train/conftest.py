"""A model small enough that a whole training takes a blink."""

import pytest
import torch
from torch import nn

from ctdyn._checks import NonFiniteError
from ctdyn.data import IrregularBatch, Window
from ctdyn.data.channels import Channel
from ctdyn.models import Loss, Model, Predictive


class Line(Model):
    """A line through the target with dropout and noise, so that every source of randomness is in use."""

    def __init__(self, *, noise: float = 0.1, bad: tuple[int, ...] = (), fails: tuple[int, ...] = ()) -> None:
        super().__init__([Channel("x")])
        self.layers = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Dropout(0.1), nn.Linear(8, 1))
        self.noise, self.bad, self.fails = noise, bad, fails
        self.calls = 0
        self.steps: list[int | None] = []

    def forward(self, window, generator):
        noise = torch.randn(window.target.times.shape, generator=generator, dtype=torch.float32)
        return self.layers(window.target.times.unsqueeze(-1) + self.noise * noise.unsqueeze(-1))

    def loss(self, window, *, generator=None, step=None):
        self.steps.append(step)
        self.calls += step is not None
        if step is not None and self.calls in self.fails:
            raise NonFiniteError("the field is NaN")
        error = (self(window, generator) - window.target.values).square().mean()
        if step is not None and self.calls in self.bad:
            error = error * torch.nan
        return Loss(error, {"nats_per_observation": error.detach()})

    def predict(self, context, ts, inputs=None, *, num_samples=100, generator=None):
        mean = self.layers(ts.unsqueeze(-1)).expand(num_samples, *ts.shape, 1)
        return Predictive(torch.distributions.Normal(mean, 0.1))


class Loader:
    """Windows that are a function of the number of the pass."""

    def __init__(self, batches: int = 10, seed: int = 0) -> None:
        self.batches, self.seed, self.epoch = batches, seed, 0

    def __len__(self) -> int:
        return self.batches

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self):
        generator = torch.Generator().manual_seed(1000 * self.seed + self.epoch)
        for _ in range(self.batches):
            times = torch.rand(4, 5, generator=generator).sort(-1).values
            values = (2 * times).sin().unsqueeze(-1)
            batch = IrregularBatch(times, values, torch.ones_like(values, dtype=torch.bool))
            yield Window(batch, batch)


@pytest.fixture
def line():
    def build(**kwargs):
        torch.manual_seed(0)
        return Line(**kwargs)

    return build


@pytest.fixture
def loader():
    return Loader
