import pytest
import torch

from ctdyn import models
from ctdyn.data import IrregularBatch, Window
from ctdyn.data.channels import Channel
from ctdyn.fields import ConcatTime, MLPField
from ctdyn.integrate import ConstantStep, StepTo
from ctdyn.likelihoods import Gaussian, HeteroscedasticScale, PerKind, StudentT
from ctdyn.models import ELBO, IWAE, Anneal, LatentODE
from ctdyn.solvers import Midpoint
from ctdyn.testing import check_model, example_window


CHANNELS = (Channel("pulse"), Channel("pressure", unit="mmHg"))
SMALL = {"latent_size": 3, "hidden": (8,), "encoder_size": 6, "controller": ConstantStep(0.25)}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"decoder_hidden": (5,), "objective": ELBO(beta=Anneal(10), num_samples=2)},
        {"objective": IWAE(3), "solver": Midpoint()},
        {"likelihood": StudentT(3, 2)},
        {"likelihood": Gaussian(3, 2, scale=HeteroscedasticScale())},
        {"field": MLPField(3, hidden=(4,))},
    ],
)
def test_contract(options):
    check_model(LatentODE(CHANNELS, **SMALL, **options), example_window(2))


def test_contract_with_binary_channels_inputs_and_static():
    channels = (Channel("pulse"), Channel("on", kind="binary"))
    model = LatentODE(channels, **SMALL, input_size=2, static_size=3)
    assert isinstance(model.likelihood, PerKind)
    check_model(model, example_window(2, input_size=2, static_size=3, binary=[1]))


def test_a_field_that_reads_the_clock_is_not_autonomous():
    model = LatentODE(CHANNELS, **SMALL, field=MLPField(3, hidden=(8,), layer=ConcatTime))
    check_model(model, example_window(2), autonomous=False)
    with pytest.raises(AssertionError, match="shift of all times"):
        check_model(model, example_window(2))


def test_it_is_exported():
    assert models.LatentODE is LatentODE


def test_the_future_follows_the_learned_oscillation():
    """Sine waves of random phase: after training, the forecast of the second half beats the mean by far."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)

    def window(size: int) -> Window:
        times = torch.rand(size, 24, generator=generator).sort(-1).values
        phase = 6.28 * torch.rand(size, 1, generator=generator)
        values = torch.sin(9 * times + phase).unsqueeze(-1)
        parts = []
        for rows in (slice(0, 12), slice(12, 24)):
            part = values[:, rows]
            parts.append(IrregularBatch(times[:, rows], part, torch.ones_like(part, dtype=torch.bool)))
        return Window(*parts)

    model = LatentODE([Channel("wave")], latent_size=8, hidden=(32,), encoder_size=24, controller=ConstantStep(0.1))
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for step in range(120):
        batch = window(32)
        whole = IrregularBatch(
            torch.cat([batch.context.times, batch.target.times], -1),
            torch.cat([batch.context.values, batch.target.values], -2),
            torch.cat([batch.context.mask, batch.target.mask], -2),
        )
        optimiser.zero_grad()
        loss = model.loss(Window(batch.context, whole), generator=generator, step=step).total
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimiser.step()
    test = window(64)
    with torch.no_grad():
        mean = model.predict(test.context, test.target.times, num_samples=20, generator=generator).mean
    error = (mean - test.target.values).square().mean()
    assert error < 0.5 * test.target.values.square().mean()


def test_a_finer_step_does_not_change_the_parameters():
    coarse = LatentODE(CHANNELS, 3, (8,))
    fine = LatentODE(CHANNELS, 3, (8,), controller=StepTo(8))
    fine.load_state_dict(coarse.state_dict())
    window = example_window(2).to(torch.float32)
    means = [
        m.predict(window.context, window.target.times, generator=torch.Generator().manual_seed(0)).mean
        for m in (coarse, fine)
    ]
    torch.testing.assert_close(*means, rtol=0, atol=1e-4)
