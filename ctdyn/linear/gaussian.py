"""Linear dynamics that are observed with noise: exact inference on irregular times."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Generator, Tensor, nn

from ..data import IrregularBatch
from ..nn import all_finite
from ._aggregation import Aggregation, has_intervals
from ._conditioning import Whitened, emission, merge, root, rows_at, stretch, whiten, whiten_channels
from ._matrix_scan import matrix_recurrence
from ._tensors import as_tensor, check_matrix, check_psd, check_resolution, keep, positive
from ._tiles import differentiable_tensors, sum_over_tiles
from .chain import Chain
from .distribution import Gaussian
from .dynamics import LinearDynamics
from .holds import HeldBefore, Hold


__all__ = ["LinearGaussian"]

#: Numbers in one tensor of matrices that a tile of a long batch may hold.
_TILE = 1 << 17


class LinearGaussian(nn.Module):
    r"""Linear dynamics observed with Gaussian noise: filter, smoother, forecasts, samples, likelihood, all exact.

    .. math::
        dy = (A y + B u)\,dt + dW, \qquad x_k = H y(t_k) + c + \epsilon_k, \quad \epsilon_k \sim N(0, R)

    Times are irregular and every series has its own; channels may be missing one by one; each observation may have a
    standard error of its own (`noise` of the batch), added to `R`. Everything is differentiable in the parameters, the
    values and their errors. Computed in float64 whatever the dtype of the batch, in which results are returned;
    covariances are kept positive by construction, so observations may be as precise as one likes. The work is linear
    in the number of observations and parallel in time.

    Series whose clocks and parameters differ go on batch axes: a Gaussian process per channel is a model whose
    parameters have shape `(channel,)` on a batch with times `(series, channel, time)` and values `(series, channel,
    time, 1)`.

    Args:
        dynamics: what evolves.
        H: observation matrix, `(*parameter_batch, channel, state)`; None: one channel, the process that
            `dynamics.readout` reads.
        R: variances of the observation noise, `(*parameter_batch, channel)`, or one number; or its covariance,
            `(*parameter_batch, channel, channel)`.
        offset: :math:`c`, `(*parameter_batch, channel)`; None for zero.
        initial: the state at the first time of a series; None: the stationary distribution of the dynamics.
        hold: what the inputs of the batch do between its times; default `HeldBefore()`.

    Raises:
        ValueError: a size does not fit, a variance is not positive, a covariance is not positive definite, or there is
            no stationary distribution and no initial one.

    Reference:
        Temporal parallelization of Bayesian smoothers, S. Sarkka, A. F. Garcia-Fernandez, 2021,
        https://arxiv.org/abs/1905.13002

    Example:
        >>> from ctdyn.linear import Matern
        >>> model = LinearGaussian(Matern(1.5, lengthscale=2.0), R=0.01)
        >>> times = torch.tensor([[0.0, 0.5, 0.5, 3.0]])
        >>> values = torch.tensor([[[1.0], [1.2], [1.1], [-0.3]]])
        >>> batch = IrregularBatch(times, values, torch.ones(1, 4, 1, dtype=torch.bool))
        >>> model.log_prob(batch).shape
        torch.Size([1])
        >>> forecast = model.emit(model.predict(batch, at=torch.tensor([[1.0, 10.0]])))
        >>> forecast.variance.detach().squeeze(-1).sqrt()
        tensor([[0.3136, 1.0048]])
    """

    log_noise: Tensor | None
    factor: Tensor | None
    H: Tensor
    offset: Tensor | None

    def __init__(
        self,
        dynamics: LinearDynamics,
        *,
        H: Tensor | None = None,
        R: Tensor | float,
        offset: Tensor | None = None,
        initial: Gaussian | None = None,
        hold: Hold | None = None,
    ) -> None:
        super().__init__()
        if dynamics.dtype.is_complex:
            raise TypeError("the dynamics must have a real state; for complex eigenvalues use Rotations.")
        self.dynamics = dynamics
        self.hold = HeldBefore() if hold is None else hold
        self._keep_emission(H, R, offset)
        self.initial_mean = self.initial_covariance = None
        if initial is None:
            dynamics.stationary()
            return
        n = dynamics.state_size
        check_matrix("initial.covariance", initial.covariance, n, n)
        check_psd("initial.covariance", initial.covariance)
        keep(self, "initial_mean", as_tensor("initial.mean", initial.mean))
        factor = initial.covariance if initial.covariance.requires_grad else root(initial.covariance.detach())
        self._initial_is_factor = not initial.covariance.requires_grad
        keep(self, "initial_covariance", factor)

    def _keep_emission(self, H: Tensor | None, R: Tensor | float, offset: Tensor | None) -> None:
        n = self.dynamics.state_size
        if H is None:
            row = self.dynamics.readout
            if row is None:
                raise ValueError(f"{type(self.dynamics).__name__} has no readout; give the observation matrix H.")
            self.register_buffer("H", row.detach()[None].clone(), persistent=False)
        else:
            check_matrix("H", as_tensor("H", H), None, n)
            keep(self, "H", H)
        channels = self.H.shape[-2]
        given = as_tensor("R", R)
        given = given[0] if given.shape == (1, 1) else given
        self.log_noise = self.factor = None
        if given.dim() >= 2 and given.shape[-2:] == (channels, channels) and channels > 1:
            check_psd("R", given, definite=True)
            keep(self, "factor", torch.linalg.cholesky(given))
        else:
            variance = positive("R", given)
            variance = variance if variance.dim() else variance.expand(channels)
            if variance.shape[-1] != channels:
                raise ValueError(
                    f"R must hold one variance for each of the {channels} rows of H, or be a covariance ({channels}, "
                    f"{channels}); got shape {tuple(given.shape)}."
                )
            keep(self, "log_noise", variance.log())
        self.offset = None
        if offset is not None:
            offset = as_tensor("offset", offset)
            if offset.dim() < 1 or offset.shape[-1] not in (1, channels):
                raise ValueError(f"offset must be (*parameter_batch, channel={channels}); got {tuple(offset.shape)}.")
            keep(self, "offset", offset)

    @property
    def R(self) -> Tensor:  # noqa: N802
        """The covariance of the observation noise, `(*parameter_batch, channel, channel)`."""
        if self.factor is not None:
            return self.factor @ self.factor.mT
        assert self.log_noise is not None
        return torch.diag_embed(self.log_noise.exp())

    @property
    def initial(self) -> Gaussian:
        """The distribution of the state at the first time of a series."""
        if self.initial_mean is None or self.initial_covariance is None:
            P = self.dynamics.stationary()
            return Gaussian(P.new_zeros(P.shape[:-1]), P)
        P = self.initial_covariance
        return Gaussian(self.initial_mean, P @ P.mT if self._initial_is_factor else P)

    def log_prob(self, batch: IrregularBatch, *, chunks: int | None = None) -> Tensor:
        r"""The log-likelihood of each series, :math:`\log p(x_1, \dots, x_L)`, in nats.

        A long batch is worked through in tiles that the backward pass makes again: memory does not grow with length,
        and there are only first derivatives.

        Args:
            batch: the observations.
            chunks: pieces of a series that are filtered side by side; None picks by size, 1 goes step by step.

        Returns:
            Nats, `(*batch,)`; 0 for a series that was never observed.

        Raises:
            ValueError: the channels or inputs do not fit, or a covariance lost its positivity.
        """
        self.check(batch)
        shape = torch.broadcast_shapes(batch.batch_shape, self.dynamics.batch_shape)
        size = math.prod(shape) * self.dynamics.state_size**2
        tile = max(256, _TILE // max(size, 1))
        state = self.initial
        m, P = (x.to(torch.float64) for x in (state.mean, state.covariance))
        count = batch.times.shape[-1]
        if count <= tile or has_intervals(batch):
            total = self._tile(batch, 0, count, m, P, chunks)[0]
        else:
            ends = [*range(0, count, tile), count]
            given = (batch.times, batch.values, batch.inputs, batch.noise)
            tensors = differentiable_tensors(self) + [x for x in given if x is not None and x.requires_grad]
            total = sum_over_tiles(lambda i, j, m, P: self._tile(batch, i, j, m, P, chunks), ends, m, P, tensors)
        return self._finite(total).to(batch.values.dtype)

    def filter(self, batch: IrregularBatch, *, chunks: int | None = None) -> Gaussian:
        """The state at each time given the observations up to and including it.

        Args:
            batch: the observations.
            chunks: as in `log_prob`.

        Returns:
            States, mean `(*batch, time, state)`, in the dtype of the values.

        Raises:
            ValueError: as in `log_prob`.
        """
        self.check(batch)
        mean, P, _ = self.chain(batch).filter(chunks=chunks)
        return self._states(batch, mean, P)

    def smooth(self, batch: IrregularBatch, *, chunks: int | None = None) -> Gaussian:
        """The state at each time given all observations.

        Args:
            batch: the observations.
            chunks: as in `log_prob`.

        Returns:
            States, mean `(*batch, time, state)`, in the dtype of the values.

        Raises:
            ValueError: as in `log_prob`.
        """
        self.check(batch)
        mean, P, _ = self.chain(batch).solve(chunks=chunks).smooth()
        return self._states(batch, mean, P)

    def predict(self, batch: IrregularBatch, at: Tensor, *, chunks: int | None = None) -> Gaussian:
        """The state at any times given all observations: between them, beyond them, at them.

        Args:
            batch: the observations.
            at: query times, `(*batch, query)`, in any order.
            chunks: as in `log_prob`.

        Returns:
            States, mean `(*batch, query, state)`. `emit` turns them into observations.

        Raises:
            ValueError: as in `log_prob`; or a query lies before the first time and the initial state is not
                stationary.
        """
        merged, place = self._merge(batch, at)
        states = self.smooth(merged, chunks=chunks)
        return Gaussian(*rows_at(place, states.mean, states.covariance))

    def aggregate(
        self, batch: IrregularBatch, start: Tensor, at: Tensor, *, noise: bool = True, chunks: int | None = None
    ) -> Gaussian:
        r"""What would be observed as means over intervals, given all observations: a month, a quarter, a nowcast.

        .. math:: x = \frac{1}{t - s} \int_s^t H y(\tau)\,d\tau + c + \epsilon

        Args:
            batch: the observations.
            start: where the intervals begin, `(*batch, query)`; where it is `at`, a point is meant.
            at: where they end, `(*batch, query)`, in any order.
            noise: add the covariance of the observation noise.
            chunks: as in `log_prob`.

        Returns:
            Observations, mean `(*batch, query, channel)`.

        Raises:
            ValueError: as in `predict`.
        """
        merged, place = self._merge(batch, at, start)
        self.check(merged)
        found = self._aggregation(merged)
        mean, P, _ = self._written(found, merged, None).solve(chunks=chunks).smooth()
        m, P, H = rows_at(place, *rows_at(found.place, mean, P), found.readings(self.H.to(P)))
        seen = Gaussian((H @ m[..., None]).squeeze(-1), H @ P @ H.mT)
        return self._observed(seen, noise, batch.values.dtype)

    def emit(self, states: Gaussian, *, noise: bool = True) -> Gaussian:
        """What states look like when they are observed.

        Args:
            states: from `filter`, `smooth` or `predict`, mean `(*batch, time, state)`.
            noise: add the covariance of the observation noise.

        Returns:
            Observations, mean `(*batch, time, channel)`.
        """
        seen = Gaussian(*emission(self.H.to(states.mean.dtype), states.mean, states.covariance))
        return self._observed(seen, noise, states.mean.dtype)

    def _observed(self, seen: Gaussian, noise: bool, dtype: torch.dtype) -> Gaussian:
        mean, covariance = seen.mean, seen.covariance
        if self.offset is not None:
            mean = mean + self.offset.to(mean.dtype)[..., None, :]
        if noise:
            covariance = covariance + self.R.to(mean.dtype)[..., None, :, :]
        return Gaussian(mean.to(dtype), covariance.to(dtype))

    def emit_samples(self, states: Tensor, *, generator: Generator | None = None) -> Tensor:
        """Observations of sampled states, with noise.

        Args:
            states: from `sample` or `sample_posterior`, `(sample, *batch, time, state)`.
            generator: of the random numbers.

        Returns:
            Values, `(sample, *batch, time, channel)`.
        """
        clean = (self.H.to(states.dtype)[..., None, :, :] @ states[..., None]).squeeze(-1)
        if self.offset is not None:
            clean = clean + self.offset.to(clean.dtype)[..., None, :]
        noise = torch.randn(clean.shape, dtype=clean.dtype, device=clean.device, generator=generator)
        return clean + (root(self.R).to(clean.dtype)[..., None, :, :] @ noise[..., None]).squeeze(-1)

    def sample(
        self, ts: Tensor, num_samples: int = 1, *, inputs: Tensor | None = None, generator: Generator | None = None
    ) -> Tensor:
        """Trajectories of the state from the prior.

        Args:
            ts: times, non-decreasing, `(*batch, time)`.
            num_samples: number of trajectories per series.
            inputs: inputs at these times, `(*batch, time, input)`.
            generator: of the random numbers.

        Returns:
            States, `(sample, *batch, time, state)`.
        """
        nothing = ts.new_zeros(*ts.shape, self.H.shape[-2])
        batch = IrregularBatch(ts, nothing, torch.zeros_like(nothing, dtype=torch.bool), inputs=inputs)
        self.check(batch)
        return self._draw(self.chain(batch), num_samples, generator).to(ts.dtype)

    def sample_posterior(
        self, batch: IrregularBatch, at: Tensor, num_samples: int = 1, *, generator: Generator | None = None
    ) -> Tensor:
        r"""Trajectories of the state given all observations, joint over the query times.

        A trajectory of the prior is corrected by what the smoother says about the difference between the observations
        and what would have been observed of it.

        Args:
            batch: the observations.
            at: query times, `(*batch, query)`, in any order.
            num_samples: number of trajectories per series.
            generator: of the random numbers.

        Returns:
            States, `(sample, *batch, query, state)`, differentiable in parameters and values.

        Raises:
            ValueError: as in `predict`.

        Reference:
            A simple and efficient simulation smoother for state space time series analysis, J. Durbin, S. J. Koopman,
            2002, https://doi.org/10.1093/biomet/89.3.603
        """
        merged, place = self._merge(batch, at)
        self.check(merged)
        chain = self.chain(merged)
        paths = self._draw(chain, num_samples, generator)
        seen = (chain.H @ paths[..., None]).squeeze(-1)
        noise = torch.randn(seen.shape, dtype=seen.dtype, device=seen.device, generator=generator)
        # A channel that is missing has a row of zeros, so its surprise must be zero as well.
        present = (chain.H != 0).any(-1)
        surprise = torch.where(present, chain.y - seen - noise, 0.0)
        drawn = paths + chain.solve().correction(surprise)
        if has_intervals(merged):
            drawn = rows_at(self._aggregation(merged).place, drawn)[0][..., : self.dynamics.state_size]
        return rows_at(place, drawn)[0].to(batch.values.dtype)

    def _merge(self, batch: IrregularBatch, at: Tensor, start: Tensor | None = None) -> tuple[IrregularBatch, Tensor]:
        if not all_finite(at):
            raise ValueError("the query times hold NaN or infinite entries; every time must be finite.")
        early = at.detach().to(torch.float64) < batch.times[..., :1].to(torch.float64)
        if self.initial_mean is not None and bool(early.any()):
            raise ValueError(
                "a query lies before the first time of its series, where the initial state is given; only a stationary "
                "model (initial=None) knows what was before."
            )
        merged, place = merge(batch, at, self.hold)
        count = batch.times.shape[-1]
        if batch.start is not None or start is not None:
            begins = [
                times if given is None else torch.minimum(given, times)
                for given, times in ((batch.start, batch.times), (start, at))
            ]
            both = torch.cat([x.to(torch.float64).expand(*place.shape[:-1], -1) for x in begins], -1)
            merged = replace(merged, start=torch.empty_like(both).scatter(-1, place, both))
        return merged, place[..., count:]

    def chain(
        self, batch: IrregularBatch, start: int = 0, end: int | None = None, state: tuple[Tensor, Tensor] | None = None
    ) -> Chain:
        """The model written out over the times of a batch, in float64: transitions, noise, observations in its units.

        Args:
            batch: the observations.
            start: the first of the times to take.
            end: the one after the last.
            state: mean and covariance at the time before `start`; None: the initial state, at the first time.
        """
        if has_intervals(batch):
            return self._written(self._aggregation(batch), batch, state)
        part = stretch(batch, start, end)
        times = batch.times.to(torch.float64)
        before = times[..., max(start - 1, 0) : max(start - 1, 0) + 1]
        ts = part.times.to(torch.float64)
        dt = self.dynamics.elapsed(torch.cat([before, ts[..., :-1]], -1), ts)
        made = self.dynamics.discretize(dt, hold=self.hold, noise=True)
        F = torch.diag_embed(made.A_bar) if self.dynamics.diagonal else made.A_bar
        inputs = None if batch.inputs is None else batch.inputs.to(torch.float64)
        given = None if inputs is None else inputs[..., start:end, :]
        first = None if inputs is None or not start else inputs[..., start - 1 : start, :]
        b = self.dynamics._forcing(made, given, self.hold, first)
        white = self._white(self.H.to(torch.float64), part)
        assert made.Q is not None
        state = self._start_state(state)
        return Chain(F, b.expand(*b.shape[:-1], F.shape[-1]), made.Q, white.H, white.y, white.nats, *state)

    def _start_state(self, state: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
        if state is not None:
            return state
        known = self.initial
        return known.mean.to(torch.float64), known.covariance.to(torch.float64)

    def _white(self, H: Tensor, batch: IrregularBatch) -> Whitened:
        """The observations of a batch, and `H`, in units of their noise."""
        offset = None if self.offset is None else self.offset.to(torch.float64)
        if self.log_noise is None:
            return whiten(H, self.R.to(torch.float64), batch, offset)
        return whiten_channels(H, self.log_noise.to(torch.float64).exp(), batch, offset)

    def _written(self, found: Aggregation, batch: IrregularBatch, state: tuple[Tensor, Tensor] | None) -> Chain:
        eye = torch.eye(self.H.shape[-2], dtype=torch.float64, device=self.H.device)
        H = self.H.to(torch.float64)
        return found.chain(self.dynamics, H, self.hold, self._white(eye, batch), self._start_state(state))

    def _states(self, batch: IrregularBatch, mean: Tensor, P: Tensor) -> Gaussian:
        """The states at the times of a batch, from those of all rows of its chain."""
        mean, dtype, n = self._finite(mean), batch.values.dtype, self.dynamics.state_size
        if has_intervals(batch):
            mean, P = rows_at(self._aggregation(batch).place, mean, P)
        return Gaussian(mean[..., :n].to(dtype), P[..., :n, :n].to(dtype))

    def _aggregation(self, batch: IrregularBatch) -> Aggregation:
        shape = torch.broadcast_shapes(batch.batch_shape, self.dynamics.batch_shape)
        found = Aggregation.of(batch, shape, self.hold)
        if self.initial_mean is not None and bool((found.batch.times[..., 0] < batch.times[..., 0]).any()):
            raise ValueError(
                "an aggregated observation begins before the first time of its series, where the initial state is "
                "given; begin the series with an unobserved row there, or leave initial=None."
            )
        return found

    def _tile(
        self, batch: IrregularBatch, start: int, end: int, m: Tensor, P: Tensor, chunks: int | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        means, covariances, nats = self.chain(batch, start, end, (m, P)).filter(chunks=chunks)
        return nats.sum(-1), means[..., -1, :], covariances[..., -1, :, :]

    def _draw(self, chain: Chain, num_samples: int, generator: Generator | None) -> Tensor:
        """Trajectories of the prior, `(sample, *batch, time, n)`."""
        shape = chain.batch_shape
        n = chain.F.shape[-1]
        length = chain.F.shape[-3]
        options = {"dtype": torch.float64, "device": chain.F.device, "generator": generator}
        start = torch.randn(num_samples, *shape, n, **options)
        kicks = torch.randn(num_samples, *shape, length, n, **options)
        y0 = chain.m0 + (root(chain.P0) @ start[..., None]).squeeze(-1)
        b = chain.b + (root(chain.Q) @ kicks[..., None]).squeeze(-1)
        return matrix_recurrence(chain.F, b, y0)

    def check(self, batch: IrregularBatch) -> None:
        """Refuse a batch that the model cannot be asked about, with a `ValueError` that says why."""
        channels = self.H.shape[-2]
        if batch.values.shape[-1] != channels:
            raise ValueError(
                f"the batch has {batch.values.shape[-1]} channels, (*batch, time, channel), and the model observes "
                f"{channels} (the rows of H)."
            )
        if batch.inputs is not None and batch.inputs.shape[-1] != self.dynamics.input_size:
            raise ValueError(
                f"the batch has {batch.inputs.shape[-1]} inputs, (*batch, time, input), and the dynamics take "
                f"{self.dynamics.input_size}."
            )
        if batch.noise is not None:
            error = torch.where(batch.mask, batch.noise.detach(), 0.0)
            if not bool(((error >= 0.0) & torch.isfinite(error)).all()):
                raise ValueError("the noise of an observation is negative or not finite; a standard error is neither.")
        if not batch.times.shape[-1]:
            raise ValueError("the batch has no times, (*batch, time); a model needs at least one row, observed or not.")
        check_resolution(batch.times)

    def _finite(self, found: Tensor) -> Tensor:
        if all_finite(found):
            return found
        check_psd("the initial covariance", self.initial.covariance)
        check_psd("R", self.R)
        raise ValueError(
            "the result is not finite: a covariance lost its positivity. Check that the dynamics are stable "
            "over the gaps of the series, that no parameter has run off, and that the observation noise is positive."
        )
