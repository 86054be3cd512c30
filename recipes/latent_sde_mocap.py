r"""A latent SDE on human walking (CMU motion capture, subject 35): 3 frames seen, 297 predicted, 50 channels.

    python datasets/mocap35.py --root RAW --out mocap35.parquet
    python recipes/latent_sde_mocap.py mocap35.parquet --seed 0

The task, the data and the scores are those of `latent_ode_mocap.py`. Expect, for seeds 0, 1, 2 (4 test walks, in the
units of the file; CPU seconds of training on one thread):

| test                    | MSE                | 90 % intervals cover | interval score     | seconds |
|-------------------------|--------------------|----------------------|--------------------|---------|
| latent SDE              | 5.59 / 5.94 / 6.62 | .905 / .903 / .891   | 7.18 / 7.39 / 7.81 | 100     |
| latent SDE, solver-free | 8.91 / 8.82 / 8.24 | .930 / .924 / .929   | 8.42 / 7.92 / 8.01 | 51      |
| latent ODE              | 5.40 / 6.79 / 5.16 | .896 / .875 / .902   | 7.08 / 8.04 / 6.88 |         |
| Matern GP               | 38.0               | .84                  | 17.4               |         |

As published: latent SDE 4.03 +- 0.20, SDE Matching 4.50 +- 0.32. Neither is reached: the means here are 6.05 and 8.66.
With a solver that is no better than our latent ODE (5.78), and without one it is 1.4 times the error with one.

**With a solver** the posterior is drawn step by step, four frames per step of Euler-Maruyama, and forecasts are trained
as such: two of five windows are stretches that the posterior sees as a whole, three are futures of three frames.
**Without one** (SDE Matching) no forecast of the model's own is ever trained, and what is learnt is the equation, not a
step. So a drift that is pulled back to the origin, which keeps forecasts bounded, is better than a free perceptron (8.7
against 12.7 by the error on the validation walks, below; seed 0, with a context of cubic splines, which is no better
than one of lines), and the method matters: the same weights end at 17 with Euler-Maruyama and four frames per step, at
10 with one, at 9.2 with half of one, and at 8.7 by `SRA1` with two.

Training takes half as long without the solver, the cutting of windows included. Loss and gradients alone, on series of
this size, take a third, and a seventh of those of a solver with a step per frame (`recipes/bench/latent.py`).

Selection: `selection_error` of `latent_ode_mocap.py` on the validation walks (--validate): for the solver 9.0 / 9.2 /
8.9 for seeds 0, 1, 2, with 30 samples; for seed 0 it is 8.9 with 2,000 steps, 9.2 with four times the noise at the
start, and 8.5 with 2,000 steps and whole walks for the posterior to see (370 seconds; the test then says 5.86, .868 and
7.39). Without the solver 8.8 in a trial; 10.1 if a third of the windows are whole walks. By validation the two ways are
equals, then, and by the test they are not: seven walks in all are few.
"""

from __future__ import annotations

import torch
from latent_ode_mocap import LATENT, UNIT, Entry, main
from torch import Tensor, nn
from torch.nn.functional import softplus

from ctdyn.data import AnyOf, Extrapolate, Reconstruct, SeriesSet, TimeWarp, WindowMaker
from ctdyn.encoders import ConvolutionEncoder, ReverseGRUEncoder
from ctdyn.fields import MLPSDEField
from ctdyn.likelihoods import Gaussian, LearnedScale
from ctdyn.models import ELBO, Anneal, LatentVAE
from ctdyn.nn import MLP
from ctdyn.processes import MatchedSDEProcess, SDEProcess
from ctdyn.solvers import SRA1
from ctdyn.structure import Calculus, Noise, SDEField


#: Steps of Euler-Maruyama in training by a solver, and of a method of higher order where nothing was trained by it.
STEP, FINE_STEP = 4.0 / UNIT, 2.0 / UNIT


class Damped(SDEField):
    """A perceptron that is pulled back to the origin: wherever a forecast strays to, it stays bounded."""

    noise, calculus = Noise.ADDITIVE, Calculus.ITO

    def __init__(self, size: int, *, strength: float) -> None:
        super().__init__()
        self.mlp = MLP(size, size, (100,), nn.Tanh)
        self.raw_pull = nn.Parameter(inverse_softplus(1.0).expand(size).clone())
        self.raw_strength = nn.Parameter(inverse_softplus(strength).expand(size).clone())

    def drift(self, t: Tensor, y: Tensor, u: Tensor | None = None) -> Tensor:
        """See `SDEField`."""
        return self.mlp(y) - softplus(self.raw_pull) * y

    def diffusion(self, t: Tensor, y: Tensor, u: Tensor | None = None) -> Tensor:
        """See `SDEField`."""
        return softplus(self.raw_strength).expand(y.shape)


def inverse_softplus(value: float) -> Tensor:
    """What `softplus` makes `value` of."""
    return torch.tensor(value).expm1().log()


def likelihood(size: int) -> Gaussian:
    """An affine decoder, and one learned noise per channel."""
    return Gaussian(LATENT, size, scale=LearnedScale(initial=0.3, floor=0.02))


def solver_windows(stretch: float) -> WindowMaker:
    """Forecasts from three frames, and almost as often stretches that the posterior sees as a whole."""
    from_the_start = Extrapolate(cut=3.0, include_context=True)
    from_anywhere = Extrapolate(context=3.0 * stretch, horizon=150.0, include_context=True)
    seen = Reconstruct(length=100.0)
    return TimeWarp(AnyOf(from_the_start, from_anywhere, from_anywhere, seen, seen), 1.0, stretch)


def by_solver(series: SeriesSet) -> LatentVAE:
    """Trained along trajectories."""
    size = len(series.channels)
    field = MLPSDEField(LATENT, (100,), nn.Softplus, noise=Noise.ADDITIVE)
    nn.init.constant_(field.strength.get_parameter("value"), float(inverse_softplus(0.05)))
    encoder = ReverseGRUEncoder(size, LATENT, context_size=3, hidden_size=40, reads_rates=True)
    process = SDEProcess(field, LATENT, context_size=3, hidden=(32,), dt=STEP)
    return LatentVAE(series.channels, encoder, process, likelihood(size), ELBO(beta=Anneal(300)))


def matching_windows(stretch: float) -> WindowMaker:
    """Stretches that the posterior sees as a whole; some are as short as the context of a forecast."""
    long, short = Reconstruct(length=150.0), Reconstruct(length=3.0 * stretch)
    return TimeWarp(AnyOf(long, long, short), 1.0, stretch)


def by_matching(series: SeriesSet) -> LatentVAE:
    """Trained at random times."""
    size = len(series.channels)
    encoder = ConvolutionEncoder(size, LATENT, context_size=16, hidden_size=40, stride=5)
    field = Damped(LATENT, strength=0.1)
    process = MatchedSDEProcess(field, LATENT, context_size=16, hidden=(32,), dt=FINE_STEP, solver=SRA1())
    return LatentVAE(series.channels, encoder, process, likelihood(size), ELBO(beta=Anneal(300)))


MODELS = {
    "latent SDE": Entry(by_solver, solver_windows, steps=1000),
    "latent SDE, solver-free": Entry(by_matching, matching_windows, steps=1000),
}


if __name__ == "__main__":
    main(MODELS, __doc__)
