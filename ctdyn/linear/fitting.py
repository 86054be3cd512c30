"""Learning the parameters of a linear-Gaussian model: maximum likelihood, and expectation maximisation."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from ..data import IrregularBatch
from ._aggregation import has_intervals
from ._conditioning import stretch
from .chain import Chain
from .gaussian import LinearGaussian


__all__ = ["expectation_maximisation", "maximum_likelihood"]

#: Steps of L-BFGS in one maximisation; more of them reach the same likelihood later.
_INNER_STEPS = 6

#: Rows that another pass must save: what starting it costs.
_PASS = 1000


def maximum_likelihood(model: LinearGaussian, batch: IrregularBatch, *, max_steps: int = 200) -> float:
    r"""Fit a model by maximum likelihood, all series together, with a quasi-Newton method.

    .. math:: \max_\theta \sum_s \log p_\theta(x_s)

    Parameters that do not require a gradient stay as they are. Series of like length are filtered together, so that a
    long one does not make the short ones dear.

    Args:
        model: changed in place.
        batch: the observations.
        max_steps: iterations of L-BFGS.

    Returns:
        The log-likelihood reached, in nats; never below where it started.

    Raises:
        ValueError: no parameter requires a gradient.

    Example:
        >>> from ctdyn.linear import OU
        >>> truth = LinearGaussian(OU(1.0, 1.0), R=0.1)
        >>> ts = torch.linspace(0.0, 100.0, 200)
        >>> values = truth.emit_samples(truth.sample(ts, generator=torch.Generator().manual_seed(0)))[0].detach()
        >>> batch = IrregularBatch(ts, values, torch.ones(200, 1, dtype=torch.bool))
        >>> model = LinearGaussian(OU(0.2, 3.0), R=1.0)
        >>> before = float(model.log_prob(batch).detach())
        >>> maximum_likelihood(model, batch) > before + 50
        True
    """
    model.check(batch)
    parts = _of_like_length(model, batch)
    with torch.no_grad():
        start = float(_likelihood(model, parts))
    return -_minimise(model, lambda: -_likelihood(model, parts), -start, max_steps)


def expectation_maximisation(model: LinearGaussian, batch: IrregularBatch, *, max_steps: int = 50) -> list[float]:
    r"""Fit a model by expectation maximisation: slower than `maximum_likelihood` near the end, steadier at the start.

    .. math:: \theta_{i+1} = \arg\max_\theta \mathrm{E}\left[\log p_\theta(x, y) \mid x, \theta_i\right]

    The expectation over the states at the observation times is exact. Between irregular times the maximum has no closed
    form, so it is found by L-BFGS from the last parameters, on an objective that costs no filter; what it finds is
    never worse than where it began, and so the likelihood rises at every step. For dynamics whose noise reaches every
    direction of the state (`OU`, `Dense` with a regular `S`); for smooth processes use `maximum_likelihood`.

    Args:
        model: changed in place.
        batch: the observations.
        max_steps: steps; fewer if the likelihood rises no more.

    Returns:
        The log-likelihood before the first step and after each, in nats, never falling.

    Raises:
        ValueError: no parameter requires a gradient, or the noise does not reach every direction of the state.

    Reference:
        An approach to time series smoothing and forecasting using the EM algorithm, R. H. Shumway, D. S. Stoffer, 1982,
        https://doi.org/10.1111/j.1467-9892.1982.tb00349.x

    Example:
        >>> from ctdyn.linear import OU
        >>> truth = LinearGaussian(OU(1.0, 1.0), R=0.1)
        >>> ts = torch.linspace(0.0, 50.0, 100)
        >>> values = truth.emit_samples(truth.sample(ts, generator=torch.Generator().manual_seed(0)))[0].detach()
        >>> batch = IrregularBatch(ts, values, torch.ones(100, 1, dtype=torch.bool))
        >>> history = expectation_maximisation(LinearGaussian(OU(0.2, 3.0), R=1.0), batch, max_steps=5)
        >>> all(after >= before for before, after in zip(history, history[1:]))
        True
    """
    _check_noise(model, batch)
    parts = _of_like_length(model, batch)
    with torch.no_grad():
        history = [float(_likelihood(model, parts))]
    for _ in range(max_steps):
        with torch.no_grad():
            moments = [_moments(model, part) for part in parts]
        kept = {name: p.detach().clone() for name, p in model.named_parameters()}
        with torch.no_grad():
            start = -float(_expected(model, parts, moments))
        _minimise(model, lambda moments=moments: -_expected(model, parts, moments), start, _INNER_STEPS)
        with torch.no_grad():
            reached = float(_likelihood(model, parts))
        if reached < history[-1]:
            # Only rounding can make it fall, at the very top.
            with torch.no_grad():
                for name, p in model.named_parameters():
                    p.copy_(kept[name])
            break
        history.append(reached)
        if history[-1] - history[-2] < 1e-9 * abs(history[-1]):
            break
    return history


class _Moments:
    """Means, covariances, and covariances with the state before, given all observations, `(*batch, time, ...)`."""

    def __init__(self, mean: Tensor, covariance: Tensor, cross: Tensor) -> None:
        self.mean = mean
        self.covariance = covariance
        self.cross = cross


def _moments(model: LinearGaussian, batch: IrregularBatch) -> _Moments:
    return _Moments(*model.chain(batch).solve().smooth())


def _expected(model: LinearGaussian, parts: list[IrregularBatch], moments: list[_Moments]) -> Tensor:
    """The expected log density of states and observations, up to what no parameter changes."""
    return torch.stack([_expected_of(model, *pair) for pair in zip(parts, moments, strict=True)]).sum()


def _expected_of(model: LinearGaussian, batch: IrregularBatch, moments: _Moments) -> Tensor:
    chain = model.chain(batch)
    mean, P = moments.mean, moments.covariance
    residual = (chain.H @ mean[..., None]).squeeze(-1) - chain.y
    seen = (chain.H @ P @ chain.H.mT).diagonal(dim1=-2, dim2=-1).sum(-1)
    total = (chain.nats - 0.5 * (residual.square().sum(-1) + seen)).sum()
    first = mean[..., 0, :] - chain.m0
    total = total + _gaussian(chain.P0, P[..., 0, :, :] + first[..., :, None] * first[..., None, :]).sum()
    return total + _transitions(chain, moments)


def _transitions(chain: Chain, moments: _Moments) -> Tensor:
    mean, P = moments.mean, moments.covariance
    F, Q, b = chain.F[..., 1:, :, :], chain.Q[..., 1:, :, :], chain.b[..., 1:, :]
    moved = (F @ mean[..., :-1, :, None]).squeeze(-1) + b
    error = mean[..., 1:, :] - moved
    crossed = moments.cross @ F.mT
    spread = P[..., 1:, :, :] - crossed - crossed.mT + F @ P[..., :-1, :, :] @ F.mT
    spread = spread + error[..., :, None] * error[..., None, :]
    # A step of length zero says nothing about the dynamics, and its noise has no inverse.
    still = (Q.detach().diagonal(dim1=-2, dim2=-1) == 0).all(-1)
    eye = torch.eye(Q.shape[-1], dtype=Q.dtype, device=Q.device)
    still_matrix = still[..., None, None]
    nats = _gaussian(torch.where(still_matrix, eye, Q), torch.where(still_matrix, 0.0, spread))
    return torch.where(still, 0.0, nats).sum()


def _gaussian(covariance: Tensor, second: Tensor) -> Tensor:
    """The expected log density of a Gaussian of mean zero whose second moment is `second`, less its constant."""
    factor, info = torch.linalg.cholesky_ex(covariance)
    # A singular covariance has no density; the search must turn back from it.
    broken = info > 0
    eye = torch.eye(covariance.shape[-1], dtype=covariance.dtype, device=covariance.device)
    factor = torch.where(broken[..., None, None], eye, factor)
    shape = torch.broadcast_shapes(factor.shape, second.shape)
    solved = torch.cholesky_solve(second.expand(shape), factor.expand(shape))
    logs = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    value = -logs - 0.5 * solved.diagonal(dim1=-2, dim2=-1).sum(-1)
    return torch.where(broken, -torch.inf, value)


def _check_noise(model: LinearGaussian, batch: IrregularBatch) -> None:
    model.check(batch)
    if has_intervals(batch):
        raise ValueError(
            "the batch holds aggregated observations (start before times), whose integrals have no noise of their own "
            "for expectation maximisation to learn from. Fit by maximum likelihood (maximum_likelihood, or "
            "fitting=MaximumLikelihood() of a model)."
        )
    n = model.dynamics.state_size
    if n == 1:
        return
    span = (batch.times[..., -1] - batch.times[..., 0]).amax().to(torch.float64)
    Q = model.dynamics.noise(1e-4 * span[None]).detach()
    values = torch.linalg.eigvalsh(Q)
    if float((values[..., 0] / values[..., -1]).amin()) < 1e-6:
        raise ValueError(
            "the noise of the dynamics does not reach every direction of the state, so that expectation maximisation "
            "cannot see the dynamics. Fit by maximum likelihood (maximum_likelihood, or fitting=MaximumLikelihood() of "
            "a model), or take dynamics whose noise reaches all of the state, such as OU, Matern(0.5) or Dense."
        )


def _likelihood(model: LinearGaussian, parts: list[IrregularBatch]) -> Tensor:
    return torch.stack([model.log_prob(part).to(torch.float64).sum() for part in parts]).sum()


def _of_like_length(model: LinearGaussian, batch: IrregularBatch) -> list[IrregularBatch]:
    """The series of a batch in parts, each cut behind its last observation: a filter pays for padding as for data."""
    of_parameters = [model.dynamics.batch_shape, model.H.shape[:-2], model.R.shape[:-2], model.initial.mean.shape[:-1]]
    of_parameters += [] if model.offset is None else [model.offset.shape[:-1]]
    # Where series differ in their parameters they cannot be parted from them.
    if len(batch.batch_shape) <= max(map(len, of_parameters)) or not len(batch.times):
        return [batch]
    rows = torch.arange(1, batch.times.shape[-1] + 1, device=batch.times.device)
    lengths = torch.where(batch.observed, rows, 1).flatten(1).amax(-1)
    order = lengths.argsort(descending=True, stable=True)
    sizes = lengths[order].tolist()
    starts = [0]
    for place, size in enumerate(sizes):
        longest = sizes[starts[-1]]
        if 2 * size <= longest and (len(sizes) - place) * (longest - size) >= _PASS:
            starts.append(place)
    ends = [*starts[1:], len(sizes)]
    # Within a part the series stay in their order.
    chosen = [order[start:end].sort().values for start, end in zip(starts, ends, strict=True)]
    return [stretch(batch[index], 0, sizes[start]) for start, index in zip(starts, chosen, strict=True)]


def _minimise(module: nn.Module, objective: Callable[[], Tensor], start: float, max_steps: int) -> float:
    """Minimise over the parameters of a module, in place; the least value found, which is at most `start`."""
    from scipy.optimize import minimize  # Only needed here, and slow to import.

    parameters = [p for p in module.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError("the model has no parameter that requires a gradient; there is nothing to fit.")
    best = [start, torch.nn.utils.parameters_to_vector(parameters).detach().clone()]

    def evaluate(x: np.ndarray) -> tuple[float, np.ndarray]:
        vector = torch.from_numpy(x.copy()).to(parameters[0])
        with torch.no_grad():
            torch.nn.utils.vector_to_parameters(vector, parameters)
        try:
            value = objective()
            gradients = torch.autograd.grad(value, parameters, allow_unused=True)
        except (ValueError, torch.linalg.LinAlgError):  # pyright: ignore[reportPrivateImportUsage]
            return math.inf, np.zeros_like(x)
        found = float(value.detach())
        if not math.isfinite(found):
            return math.inf, np.zeros_like(x)
        if found < best[0]:
            best[:] = [found, vector.clone()]
        flat = [torch.zeros_like(p) if g is None else g for g, p in zip(gradients, parameters, strict=True)]
        return found, torch.cat([g.flatten() for g in flat]).double().cpu().numpy()

    x0 = torch.nn.utils.parameters_to_vector(parameters).detach().double().cpu().numpy()
    minimize(evaluate, x0, jac=True, method="L-BFGS-B", options={"maxiter": max_steps})
    with torch.no_grad():
        torch.nn.utils.vector_to_parameters(best[1], parameters)
    return best[0]
