"""What a linear latent process has learned, in numbers that can be read: eigenvalues, periods and modes."""

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from .._checks import check_count
from ..likelihoods import Likelihood
from ..linear import Oscillators
from ..processes import LatentProcess, LinearGaussianProcess


__all__ = ["Spectral", "Spectrum"]


@dataclass(frozen=True)
class Spectrum:
    r"""Complex coordinates that turn and decay, and how each of them shows in the channels; largest first.

    .. math:: dz_j = \lambda_j z_j\,dt + dW_j, \qquad x_c(t) \approx \sum_j \operatorname{Re}\left(m_{jc}\,
        z_j(t)\right) + \text{const}, \qquad \mathrm{E} |{\operatorname{Re} z_j}|^2 = v_j

    Args:
        eigenvalues: :math:`\lambda`, per unit of time, complex, `(pair,)`.
        modes: :math:`m`, the slope of the decoder's mean, averaged over the prior, complex, `(pair, channel)`; its
            modulus is the amplitude in a channel of a coordinate of size 1, its argument the phase.
        variance: :math:`v`, of each part of a coordinate in the long run, `(pair,)`.

    Example:
        >>> one = Spectrum(torch.tensor([-0.1 + 2j]), torch.tensor([[1.0 + 0j, 1j]]), torch.ones(1))
        >>> one.period, one.half_life
        (tensor([3.1416]), tensor([6.9315]))
    """

    eigenvalues: Tensor
    modes: Tensor
    variance: Tensor

    @property
    def period(self) -> Tensor:
        """The time of one turn, `(pair,)`; infinite where nothing turns."""
        return 2.0 * math.pi / self.eigenvalues.imag.abs()

    @property
    def half_life(self) -> Tensor:
        """The time in which half of a coordinate is forgotten, `(pair,)`; infinite on the unit circle."""
        # Zero has a sign, which tells growth from decay and is of no account.
        return math.log(2.0) / (0.0 - self.eigenvalues.real)

    @property
    def contribution(self) -> Tensor:
        """The variance that each coordinate gives each channel, as far as the decoder is affine, `(pair, channel)`."""
        return self.variance[:, None] * self.modes.abs().square()

    def rescaled(self, time: float = 1.0, values: float | Tensor = 1.0) -> "Spectrum":
        """The same in other units.

        Args:
            time: how many of the new unit of time an old one has. From the model's clock to that of the series of a
                fitted `Forecaster` it is `forecaster.scaler_.statistics.time_scale`.
            values: likewise of the values, one number or one per channel, `(channel,)`. Back to the units of the
                series it is `torch.tensor(forecaster.scaler_.statistics.scale)`.

        Example:
            >>> one = Spectrum(torch.tensor([-0.1 + 2j]), torch.tensor([[1.0 + 0j, 1j]]), torch.ones(1))
            >>> one.rescaled(time=10.0, values=2.0).period
            tensor([31.4159])
        """
        return Spectrum(self.eigenvalues / time, self.modes * values, self.variance)

    def table(self) -> dict[str, list[float]]:
        """Columns for a data frame: one row per coordinate, and its amplitude in each channel."""
        columns = {
            "growth": self.eigenvalues.real,
            "frequency": self.eigenvalues.imag,
            "period": self.period,
            "half_life": self.half_life,
            "variance": self.variance,
        }
        columns |= {f"amplitude {index}": column for index, column in enumerate(self.modes.abs().mT)}
        return {name: [float(x) for x in column] for name, column in columns.items()}


class Spectral:
    """Capability: its latent dynamics are oscillators whose spectrum can be read.

    Example:
        >>> from ctdyn import models
        >>> issubclass(models.KoopmanVAE, models.Spectral)
        True
    """

    process: LatentProcess
    likelihood: Likelihood

    def spectrum(self, *, num_samples: int = 512, generator: Generator | None = None) -> Spectrum:
        """The eigenvalues and modes on the model's clock and in its units; `Spectrum.rescaled` turns them into yours.

        Args:
            num_samples: latent states over which the slope of the decoder is averaged; an affine one needs no more
                than 1.
            generator: the source of randomness; None: always the same states.
        """
        check_count("num_samples", num_samples)
        process = self.process
        if not isinstance(process, LinearGaussianProcess) or not isinstance(process.dynamics, Oscillators):
            raise ValueError(
                f"a spectrum is read from a LinearGaussianProcess of Oscillators; this is a {type(process).__name__}."
            )
        slopes = self._slopes(process, num_samples, generator)
        with torch.no_grad():
            dynamics = process.dynamics
            eigenvalues, variance = dynamics.eigenvalues, dynamics.log_variance.exp()
            # Slopes towards the states of each group: `H` reads the latent dimensions from them.
            towards = slopes.unflatten(-1, (-1, len(process.H))) @ process.H.to(slopes.dtype)
            modes = torch.complex(towards[..., 0::2], -towards[..., 1::2]).flatten(-2).mT
            eigenvalues, variance = eigenvalues.flatten(), variance.flatten()
            size = (variance[:, None] * modes.abs().square()).sum(-1)
            order = size.argsort(descending=True)
            return Spectrum(eigenvalues[order], modes[order], variance[order])

    def _slopes(self, process: LinearGaussianProcess, num_samples: int, generator: Generator | None) -> Tensor:
        """How the decoder's mean changes with each latent dimension, averaged over the prior, `(channel, latent)`."""
        like = self.likelihood
        device = process.H.device
        generator = Generator(device).manual_seed(0) if generator is None else generator
        ts = process.H.new_zeros(num_samples, 1)
        with torch.enable_grad():
            z = process.prior(ts[:, 0], ts, 1, generator).zs.squeeze(0).detach().requires_grad_()
            mean = like(z, ts).mean
            found = [torch.autograd.grad(mean[..., c].sum(), z, retain_graph=True)[0] for c in range(like.num_channels)]
        return torch.stack([gradient.mean((0, 1)) for gradient in found])
