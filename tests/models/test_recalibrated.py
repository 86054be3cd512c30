"""A corrected spread has the width, the tails and the differences between series that the errors have."""

from dataclasses import replace

import pytest
import torch
from torch.distributions import Normal, StudentT

from ctdyn.data import IrregularBatch, Window
from ctdyn.data.channels import Channel
from ctdyn.models import ExactlyFitted, HoldLast, LatentODE, Loss, MaternGP, Model, Predictive, Recalibrated


F64 = torch.float64
FIELDS = ("times", "values", "mask")


class Standard(Model, ExactlyFitted):
    """Zero, give or take one, whatever was seen."""

    def fit_exact(self, windows) -> None:
        """Nothing."""

    def loss(self, window, *, generator=None, step=None) -> Loss:
        raise NotImplementedError

    def predict(self, context, ts, inputs=None, *, noise=None, num_samples=100, generator=None) -> Predictive:
        zero = torch.zeros(num_samples, *ts.shape, len(self.channels), dtype=context.values.dtype)
        spread = torch.ones_like(zero) if noise is None else (1.0 + noise.square()).sqrt().expand(zero.shape)
        return Predictive(Normal(zero, spread, validate_args=False))


def planted(scale: torch.Tensor, df: float, seed: int = 0, length: int = 60) -> Window:
    """Noise of a scale per series and channel, `(series, channel)`; the first half is context."""
    torch.manual_seed(seed)
    values = scale[:, None] * StudentT(torch.tensor(df, dtype=F64)).sample((len(scale), length, scale.shape[-1]))
    ts = torch.linspace(0.0, 1.0, length, dtype=F64).expand(len(scale), -1)
    whole = IrregularBatch(ts, values, torch.ones_like(values, dtype=torch.bool))
    half = length // 2
    parts = [IrregularBatch(ts[:, a:b], values[:, a:b], whole.mask[:, a:b]) for a, b in ((0, half), (half, length))]
    return Window(*parts)


def fitted(window: Window) -> Recalibrated:
    model = Recalibrated(Standard([Channel("a"), Channel("b")][: window.target.values.shape[-1]]))
    model.fit_exact([window])
    return model


def test_width_and_tails_are_those_of_the_errors():
    window = planted(torch.tensor([2.0, 0.5], dtype=F64).expand(300, -1), df=4.0)
    model = fitted(window)
    torch.testing.assert_close(model.log_width.exp(), torch.tensor([2.0, 0.5], dtype=F64), rtol=0.06, atol=0.0)
    torch.testing.assert_close(2.0 + model.log_df.exp(), torch.tensor([4.0, 4.0], dtype=F64), rtol=0.15, atol=0.0)
    # All series have one scale, so that none is believed to have its own.
    assert bool((model.log_weight.exp() > 50).all())
    again = planted(torch.tensor([2.0, 0.5], dtype=F64).expand(300, -1), df=4.0, seed=1)
    answer = model.predict(again.context, again.target.times, num_samples=2)
    assert float(answer.mean.abs().max()) == 0.0
    low, high = (float(q) for q in StudentT(torch.tensor(4.0)).sample((200_000,)).quantile(torch.tensor([0.05, 0.95])))
    scale = answer.distribution.scale[0]
    inside = ((again.target.values > low * scale) & (again.target.values < high * scale)).double().mean()
    assert abs(float(inside) - 0.9) < 0.02


def test_a_series_that_was_hard_to_explain_is_foreseen_with_wider_intervals():
    torch.manual_seed(2)
    scale = (0.7 * torch.randn(300, 1, dtype=F64)).exp()
    window = planted(scale, df=8.0)
    model = fitted(window)
    assert float(model.log_weight.exp()) < 10
    new = planted(torch.tensor([[0.3], [3.0]], dtype=F64).expand(-1, 1), df=8.0, seed=3)
    quiet, wild = model.predict(new.context, new.target.times, num_samples=2).stddev.mean((-1, -2)).tolist()
    assert wild > 4 * quiet
    assert float(model.loss(new).total) < float(fitted(planted(scale.new_ones(300, 1), df=8.0)).loss(new).total)


def test_rows_without_an_observation_change_nothing():
    generator = torch.Generator().manual_seed(0)
    times = torch.rand(3, 9, generator=generator, dtype=F64).cumsum(-1)
    values, mask = torch.randn(3, 9, 1, generator=generator, dtype=F64), torch.ones(3, 9, 1, dtype=torch.bool)
    model, ts = Recalibrated(MaternGP([Channel("x")])), times[:, -1:] + 1.0
    expected = model.predict(IrregularBatch(times, values, mask), ts).stddev
    mixed = [torch.cat([x[:, :2], x[:, 1:2], x[:, 2:]], 1) for x in (times, values, mask)]
    mixed[2][:, 2] = False
    torch.testing.assert_close(model.predict(IrregularBatch(*mixed), ts).stddev, expected)


def test_known_errors_of_the_observations_are_no_surprise():
    window = planted(torch.ones(300, 1, dtype=F64), df=30.0)
    noise = torch.full_like(window.context.values, 3.0)

    def noisy(part: IrregularBatch) -> IrregularBatch:
        return IrregularBatch(part.times, part.values + 3.0 * torch.randn_like(part.values), part.mask, noise=noise)

    model = fitted(Window(noisy(window.context), noisy(window.target)))
    assert abs(float(model.log_width)) < 0.05
    assert float(model.loss(Window(noisy(window.context), noisy(window.target))).parts["nats_per_observation"]) < 2.65


def test_it_says_what_it_cannot_correct():
    with pytest.raises(TypeError, match="LatentODE is trained by gradient steps"):
        Recalibrated(LatentODE([Channel("a")], latent_size=2))
    window = planted(torch.ones(2, 1, dtype=F64), df=4.0)
    nothing = IrregularBatch(window.target.times, window.target.values, torch.zeros_like(window.target.mask))
    with pytest.raises(ValueError, match="no observed target"):
        fitted(Window(window.context, nothing))


def test_what_the_context_shows_is_no_error():
    window = planted(torch.ones(3, 1, dtype=F64), df=8.0)
    both = IrregularBatch(
        *(torch.cat([getattr(part, name) for part in (window.context, window.target)], 1) for name in FIELDS)
    )
    apart, mixed = fitted(window), fitted(Window(window.context, both))
    torch.testing.assert_close(mixed.log_width, apart.log_width)
    with pytest.raises(ValueError, match="that the context does not show"):
        fitted(Window(both, both))


def test_means_over_intervals_need_a_model_that_knows_them():
    part = planted(torch.ones(2, 1, dtype=F64), df=4.0).target
    mean = IrregularBatch(part.times, part.values, part.mask, start=part.times - 0.1)
    model = fitted(planted(torch.ones(2, 1, dtype=F64), df=4.0))
    with pytest.raises(ValueError, match="means over intervals, which Standard does not know"):
        model.loss(Window(part, mean))


def test_known_errors_are_the_business_of_the_model():
    """Residuals of a baseline hold them already, and must not get them once more."""
    window = planted(torch.ones(60, 1, dtype=F64), df=5.0)
    noise = torch.full_like(window.target.values, 9.0)
    window = Window(*(replace(part, noise=noise) for part in (window.context, window.target)))
    model = Recalibrated(HoldLast([Channel("a")]))
    model.fit_exact([window])
    ask = (window.context, window.target.times)
    spread = model.predict(*ask, noise=noise, num_samples=1).stddev
    torch.testing.assert_close(spread, model.predict(*ask, num_samples=1).stddev)
    # What it learns is how the model errs, so that it has nothing to take back.
    assert 0.5 < float(model.log_width.exp()) < 2.0
