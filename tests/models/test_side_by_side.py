"""Models side by side answer as each would by itself."""

import pytest
import torch

from ctdyn.data import IrregularBatch, Window
from ctdyn.data.channels import Channel
from ctdyn.models import HoldLast, LatentODE, LinearGaussianSSM, MaximumLikelihood, SideBySide
from ctdyn.testing import example_window


def parts():
    fitting = MaximumLikelihood(max_steps=5)
    pair = LinearGaussianSSM([Channel("a"), Channel("b")], 2, fitting=fitting)
    return [pair, LinearGaussianSSM([Channel("c")], 2, fitting=fitting)]


def test_each_model_sees_its_channels_and_nothing_else():
    window = example_window(3).to(torch.float64)
    whole, apart = SideBySide(parts()), parts()
    assert [channel.name for channel in whole.channels] == ["a", "b", "c"]
    whole.fit_exact(iter([window]))
    answer = whole.predict(window.context, window.target.times, num_samples=2)
    total, nats = 0.0, 0.0
    for model, columns in zip(apart, ([0, 1], [2]), strict=True):
        own = Window(
            *(
                IrregularBatch(part.times, part.values[..., columns], part.mask[..., columns])
                for part in (window.context, window.target)
            )
        )
        model.fit_exact([own])
        alone = model.predict(own.context, own.target.times, num_samples=2)
        torch.testing.assert_close(answer.mean[..., columns], alone.mean)
        torch.testing.assert_close(answer.stddev[..., columns], alone.stddev)
        loss = model.loss(own)
        total += float(loss.total)
        nats += float(loss.parts["nats_per_observation"] * own.target.mask.sum())
    found = whole.loss(window)
    assert float(found.total) == pytest.approx(total)
    assert float(found.parts["nats_per_observation"]) == pytest.approx(nats / int(window.target.mask.sum()))


def test_it_says_what_does_not_fit():
    with pytest.raises(ValueError, match="different names"):
        SideBySide([HoldLast([Channel("a")]), HoldLast([Channel("a")])])
    with pytest.raises(ValueError, match="different names"):
        SideBySide([])
    with pytest.raises(TypeError, match="LatentODE is trained by gradient steps"):
        SideBySide([HoldLast([Channel("a")]), LatentODE([Channel("b")], latent_size=2)])
