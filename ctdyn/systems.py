"""Known systems with exact or reference answers: for tests, for examples, and for models to find again."""

from __future__ import annotations

import math
from abc import abstractmethod

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from ._types import Inputs, State, States, Time, Times
from .data import SeriesSet, from_ragged
from .integrate import PIDController, solve
from .nn import as_rows
from .solvers import Tsit5
from .structure import Calculus, Noise, SDEField, VectorField


__all__ = [
    "DampedOscillator",
    "ExactSystem",
    "ExponentialDecay",
    "GeometricBrownianMotion",
    "HarmonicOscillator",
    "Logistic",
    "Lorenz",
    "LotkaVolterra",
    "OrnsteinUhlenbeck",
    "Spiral",
    "System",
    "VanDerPol",
    "simulate",
]


class System(VectorField):
    """A vector field whose solutions are known, in closed form or to high accuracy. It has nothing to learn.

    Args:
        state_names: what the components of the state are called.
        y0: a typical initial state at time 0, one number per component.

    Example:
        >>> ts = torch.linspace(0, 1, 3, dtype=torch.float64)
        >>> VanDerPol(mu=1.0).solution(ts).shape
        torch.Size([3, 2])
    """

    y0: Tensor

    def __init__(self, state_names: tuple[str, ...], y0: tuple[float, ...]) -> None:
        super().__init__()
        self.state_names = state_names
        self.register_buffer("y0", torch.tensor(y0, dtype=torch.float64), persistent=False)

    @property
    def state_size(self) -> int:
        """The number of components of the state."""
        return len(self.state_names)

    def solution(self, ts: Times, y0: State | None = None) -> States:
        """The states at `ts` of the solution that starts at time 0: a reference that is accurate to about 1e-10.

        It is computed in float64 by scipy's eighth-order method, one series after the other, without gradients; so it
        owes nothing to the solvers that it is there to judge.

        Args:
            ts: non-negative times, non-decreasing along the last axis, `(*batch, time)`.
            y0: states at time 0, `(*batch, state)`; default: the typical one.

        Returns:
            States in float64, `(*batch, time, state)`.
        """
        starts = (self.y0 if y0 is None else y0).to(torch.float64).expand(*ts.shape[:-1], self.state_size)
        solved = ts.new_empty(*ts.shape, self.state_size, dtype=torch.float64)
        for at, row, start in zip(as_rows(solved), as_rows(ts, 1), as_rows(starts, 1), strict=True):
            at[:] = self._reference(row.to(torch.float64), start)
        return solved

    @torch.no_grad()
    def _reference(self, times: Tensor, y0: Tensor) -> Tensor:
        grid, place = torch.cat([times.new_zeros(1), times]).unique(return_inverse=True)
        if grid.shape[0] == 1:
            return y0.expand(times.shape[0], -1)

        def velocity(t: float, y: np.ndarray) -> np.ndarray:
            return self(torch.tensor(t, dtype=torch.float64), torch.from_numpy(y)).numpy()

        span = (0.0, float(grid[-1]))
        solved = solve_ivp(velocity, span, y0.numpy(), method="DOP853", t_eval=grid.numpy(), rtol=1e-12, atol=1e-12)
        return torch.from_numpy(solved.y.T.copy())[place[1:]]


class ExactSystem(System):
    """A system whose solution is known in closed form.

    Example:
        >>> ExponentialDecay(rate=2.0).exact(torch.tensor([0.0, 0.5]), torch.tensor([1.0])).squeeze(-1)
        tensor([1.0000, 0.3679])
    """

    @abstractmethod
    def exact(self, t: Times, y0: State) -> States:
        """The states at `t` of the solution that starts from `y0` at time 0. Gradients flow to both.

        Args:
            t: times of either sign, in any order, `(*batch, time)`.
            y0: states at time 0, `(*batch, state)`.

        Returns:
            States, `(*batch, time, state)`.
        """

    def solution(self, ts: Times, y0: State | None = None) -> States:
        """The states at `ts` in float64, in closed form; arguments as in `System.solution`."""
        starts = (self.y0 if y0 is None else y0).to(torch.float64).expand(*ts.shape[:-1], self.state_size)
        return self.exact(ts.to(torch.float64), starts)


class _LinearSystem(ExactSystem):
    """Linear dynamics `dy/dt = A y`."""

    matrix: Tensor

    @abstractmethod
    def __init__(self, state_names: tuple[str, ...], y0: tuple[float, ...], matrix: list[list[float]]) -> None:
        super().__init__(state_names, y0)
        self.register_buffer("matrix", torch.tensor(matrix, dtype=torch.float64), persistent=False)

    def forward(self, t: Time, y: State, u: Inputs | None = None) -> State:
        """The velocity `A y`."""
        return y @ self.matrix.to(y.dtype).mT

    def exact(self, t: Times, y0: State) -> States:
        """The states `exp(A t) y0`."""
        propagators = torch.linalg.matrix_exp(self.matrix.to(y0.dtype) * t[..., None, None])
        return (propagators @ y0[..., None, :, None]).squeeze(-1)


class ExponentialDecay(_LinearSystem):
    r"""Exponential decay, the test equation of numerical analysis.

    .. math:: \dot y = -\lambda y, \qquad y(t) = e^{-\lambda t} y_0

    Args:
        rate: :math:`\lambda`, per unit of time; negative for growth.

    Reference:
        A special stability problem for linear multistep methods, G. Dahlquist, 1963, https://doi.org/10.1007/BF01963532

    Example:
        >>> ExponentialDecay(rate=2.0)(torch.zeros(1), torch.ones(1, 1))
        tensor([[-2.]])
    """

    def __init__(self, rate: float = 1.0) -> None:
        super().__init__(("y",), (1.0,), [[-rate]])


class HarmonicOscillator(_LinearSystem):
    r"""The frictionless oscillator; its energy :math:`\omega^2 x^2 + v^2` is conserved.

    .. math:: \dot x = v, \quad \dot v = -\omega^2 x, \qquad x(t) = x_0 \cos \omega t + (v_0 / \omega) \sin \omega t

    Args:
        omega: angular frequency, in radians per unit of time, positive.

    Reference:
        Classical Mechanics, H. Goldstein, 1950, chapter 6.

    Example:
        >>> HarmonicOscillator(omega=2.0)(torch.zeros(1), torch.tensor([[1.0, 0.0]]))
        tensor([[ 0., -4.]])
    """

    def __init__(self, omega: float = 1.0) -> None:
        super().__init__(("x", "v"), (1.0, 0.0), [[0.0, 1.0], [-(omega**2), 0.0]])


class DampedOscillator(_LinearSystem):
    r"""The oscillator with friction, under-, over- or critically damped.

    .. math:: \dot x = v, \qquad \dot v = -\omega^2 x - 2 \zeta \omega v

    Args:
        omega: angular frequency without friction, in radians per unit of time, positive.
        zeta: damping ratio; below 1 it swings, at 1 it is critical.

    Reference:
        Classical Mechanics, H. Goldstein, 1950, chapter 6.

    Example:
        >>> DampedOscillator(omega=1.0, zeta=0.5)(torch.zeros(1), torch.tensor([[0.0, 1.0]]))
        tensor([[ 1., -1.]])
    """

    def __init__(self, omega: float = 2.0, zeta: float = 0.1) -> None:
        super().__init__(("x", "v"), (1.0, 0.0), [[0.0, 1.0], [-(omega**2), -2 * zeta * omega]])


class Spiral(_LinearSystem):
    r"""A spiral into the origin: the toy of the neural ODE papers.

    .. math:: \dot x = -\alpha x - \omega y, \qquad \dot y = \omega x - \alpha y

    with :math:`(x + iy)(t) = e^{(-\alpha + i \omega) t} (x_0 + i y_0)`.

    Args:
        decay: :math:`\alpha`, per unit of time; negative to spiral outwards.
        omega: angular frequency, in radians per unit of time.

    Reference:
        Neural Ordinary Differential Equations, R. T. Q. Chen, Y. Rubanova, J. Bettencourt, D. Duvenaud, 2018,
        https://arxiv.org/abs/1806.07366

    Example:
        >>> Spiral(decay=0.5, omega=2.0)(torch.zeros(1), torch.tensor([[1.0, 0.0]]))
        tensor([[-0.5000,  2.0000]])
    """

    def __init__(self, decay: float = 0.2, omega: float = 2.0) -> None:
        super().__init__(("x", "y"), (2.0, 0.0), [[-decay, -omega], [omega, -decay]])


class Logistic(ExactSystem):
    r"""Growth that saturates.

    .. math:: \dot y = r y (1 - y / K), \qquad y(t) = \frac{K y_0}{y_0 + (K - y_0) e^{-r t}}

    Args:
        rate: growth rate :math:`r`, per unit of time.
        capacity: :math:`K`, in the unit of the state, positive.

    Reference:
        Notice sur la loi que la population suit dans son accroissement, P.-F. Verhulst, 1838.

    Example:
        >>> Logistic(rate=1.0, capacity=2.0)(torch.zeros(1), torch.tensor([[1.0]]))
        tensor([[0.5000]])
    """

    def __init__(self, rate: float = 1.0, capacity: float = 1.0) -> None:
        super().__init__(("y",), (0.1 * capacity,))
        self.rate = rate
        self.capacity = capacity

    def forward(self, t: Time, y: State, u: Inputs | None = None) -> State:
        """The velocity; `u` is not used."""
        return self.rate * y * (1 - y / self.capacity)

    def exact(self, t: Times, y0: State) -> States:
        """The logistic curve through `y0`."""
        start = y0[..., None, :]
        decayed = torch.exp(-self.rate * t)[..., None]
        return self.capacity * start / (start + (self.capacity - start) * decayed)


class LotkaVolterra(System):
    r"""Prey and predator on closed orbits, where :math:`\delta x - \gamma \ln x + \beta y - \alpha \ln y` is conserved.

    .. math:: \dot x = \alpha x - \beta x y, \qquad \dot y = \delta x y - \gamma y

    Args:
        alpha: growth rate of the prey.
        beta: rate at which a predator eats prey.
        delta: rate at which prey feeds predators.
        gamma: death rate of the predators.

    Reference:
        Elements of Physical Biology, A. J. Lotka, 1925; Variazioni e fluttuazioni del numero d'individui in specie
        animali conviventi, V. Volterra, 1926.

    Example:
        >>> LotkaVolterra()(torch.zeros(1), torch.tensor([[1.0, 1.0]]))
        tensor([[ 0.5000, -2.0000]])
    """

    def __init__(self, alpha: float = 1.5, beta: float = 1.0, delta: float = 1.0, gamma: float = 3.0) -> None:
        super().__init__(("prey", "predator"), (1.0, 1.0))
        self.alpha = alpha
        self.beta = beta
        self.delta = delta
        self.gamma = gamma

    def forward(self, t: Time, y: State, u: Inputs | None = None) -> State:
        """The velocity; `u` is not used."""
        prey, predator = y.unbind(-1)
        met = prey * predator
        return torch.stack([self.alpha * prey - self.beta * met, self.delta * met - self.gamma * predator], -1)


class VanDerPol(System):
    r"""A limit cycle that is smooth for small :math:`\mu` and stiff for large: the standard trial of step control.

    .. math:: \dot x = v, \qquad \dot v = \mu (1 - x^2) v - x

    Args:
        mu: strength of the nonlinear damping.

    Reference:
        On relaxation-oscillations, B. van der Pol, 1926, https://doi.org/10.1080/14786442608564127

    Example:
        >>> VanDerPol(mu=1.0)(torch.zeros(1), torch.tensor([[2.0, 1.0]]))
        tensor([[ 1., -5.]])
    """

    def __init__(self, mu: float = 1.0) -> None:
        super().__init__(("x", "v"), (2.0, 0.0))
        self.mu = mu

    def forward(self, t: Time, y: State, u: Inputs | None = None) -> State:
        """The velocity; `u` is not used."""
        x, v = y.unbind(-1)
        return torch.stack([v, self.mu * (1 - x**2) * v - x], -1)


class Lorenz(System):
    r"""Deterministic chaos: errors grow by a factor of about e per unit of time, so a reference is good for about 15.

    .. math:: \dot x = \sigma (y - x), \qquad \dot y = x (\rho - z) - y, \qquad \dot z = x y - \beta z

    Args:
        sigma: Prandtl number.
        rho: Rayleigh number over its critical value.
        beta: aspect of the convection cell.

    Reference:
        Deterministic nonperiodic flow, E. N. Lorenz, 1963, https://doi.org/10.1175/1520-0469(1963)020<0130:DNF>2.0.CO;2

    Example:
        >>> Lorenz()(torch.zeros(1), torch.tensor([[1.0, 1.0, 1.0]]))
        tensor([[ 0.0000, 26.0000, -1.6667]])
    """

    def __init__(self, sigma: float = 10.0, rho: float = 28.0, beta: float = 8.0 / 3.0) -> None:
        super().__init__(("x", "y", "z"), (1.0, 1.0, 25.0))
        self.sigma = sigma
        self.rho = rho
        self.beta = beta

    def forward(self, t: Time, y: State, u: Inputs | None = None) -> State:
        """The velocity; `u` is not used."""
        x1, x2, x3 = y.unbind(-1)
        return torch.stack([self.sigma * (x2 - x1), x1 * (self.rho - x3) - x2, x1 * x2 - self.beta * x3], -1)


class OrnsteinUhlenbeck(SDEField):
    r"""The Ornstein-Uhlenbeck process: noise that is pulled back to its mean, the same in every entry of the state.

    .. math:: dy = \theta (m - y)\,dt + \sigma\,dW, \qquad
              y(t) \sim N\big(m + (y_0 - m) e^{-\theta t},\; \tfrac{\sigma^2}{2 \theta} (1 - e^{-2 \theta t})\big)

    Args:
        theta: rate of the pull, per unit of time, positive.
        mean: :math:`m`, in the unit of the state.
        sigma: strength of the noise, in the unit of the state per square root of time.

    Reference:
        On the theory of the Brownian motion, G. E. Uhlenbeck, L. S. Ornstein, 1930,
        https://doi.org/10.1103/PhysRev.36.823

    Example:
        >>> OrnsteinUhlenbeck(theta=2.0, mean=1.0).drift(torch.zeros(1), torch.zeros(1, 1))
        tensor([[2.]])
    """

    noise, calculus = Noise.ADDITIVE, Calculus.ITO

    def __init__(self, theta: float = 1.0, mean: float = 0.0, sigma: float = 1.0) -> None:
        super().__init__()
        self.theta = theta
        self.mean = mean
        self.sigma = sigma

    def drift(self, t: Time, y: State, u: Inputs | None = None) -> State:
        """The pull to the mean; `u` is not used."""
        return self.theta * (self.mean - y)

    def diffusion(self, t: Time, y: State, u: Inputs | None = None) -> Tensor:
        """The strength of the noise; `u` is not used."""
        return torch.full_like(y, self.sigma)

    def law(self, t: Times, y0: State) -> tuple[States, States]:
        """Mean and variance at times after 0, `(*batch, time, state)` each."""
        decay = torch.exp(-self.theta * t)[..., None]
        variance = self.sigma**2 / (2.0 * self.theta) * -torch.expm1(-2.0 * self.theta * t)[..., None]
        return self.mean + (y0[..., None, :] - self.mean) * decay, variance.expand(*decay.shape[:-1], y0.shape[-1])


class GeometricBrownianMotion(SDEField):
    r"""Geometric Brownian motion, an Ito equation with a solution path by path; every entry has a noise of its own.

    .. math:: dy = \mu y\,dt + \sigma y\,dW, \qquad y(t) = y_0\, e^{(\mu - \sigma^2 / 2) t + \sigma W(t)}

    Args:
        mu: rate of growth of the mean, per unit of time.
        sigma: strength of the noise, per square root of time.

    Reference:
        Brownian motion in the stock market, M. F. M. Osborne, 1959, https://doi.org/10.1287/opre.7.2.145

    Example:
        >>> system = GeometricBrownianMotion(mu=0.5, sigma=0.0)
        >>> system.exact(torch.tensor([1.0]), torch.ones(1), torch.zeros(1, 1))
        tensor([[1.6487]])
    """

    noise, calculus = Noise.DIAGONAL, Calculus.ITO

    def __init__(self, mu: float = 0.1, sigma: float = 0.2) -> None:
        super().__init__()
        self.mu = mu
        self.sigma = sigma

    def drift(self, t: Time, y: State, u: Inputs | None = None) -> State:
        """The growth; `u` is not used."""
        return self.mu * y

    def diffusion(self, t: Time, y: State, u: Inputs | None = None) -> Tensor:
        """The strength of the noise; `u` is not used."""
        return self.sigma * y

    def exact(self, t: Times, y0: State, W: States) -> States:
        """The states at times after 0, along a Brownian motion.

        Args:
            t: times, `(*batch, time)`.
            y0: states at 0, `(*batch, state)`.
            W: the Brownian motion there, `(*batch, time, state)`.
        """
        drift = (self.mu - self.sigma**2 / 2.0) * t[..., None]
        return y0[..., None, :] * torch.exp(drift + self.sigma * W)


def simulate(
    system: System,
    num_series: int,
    *,
    duration: float = 10.0,
    mean_times: float = 30.0,
    noise: float = 0.05,
    missing: float = 0.0,
    spread: float = 0.1,
    seed: int = 0,
) -> SeriesSet:
    r"""Irregular, noisy observations of a system: ragged series, every one on its own random clock.

    .. math:: x_{ij} = y_i(t_{ij}) + \epsilon_{ij}, \qquad \epsilon \sim N(0, \text{noise}^2), \quad t_{ij} \sim U(0, T)

    Args:
        system: what is observed; every component of its state becomes a channel.
        num_series: number of series.
        duration: :math:`T`, the time span, in the system's unit of time.
        mean_times: mean number of observation times per series; the numbers are Poisson, at least 2.
        noise: standard deviation of the observation error, in the unit of the state.
        missing: share of the values that go missing, independently, in [0, 1); a time without any value is dropped.
        spread: the initial states are the typical one times :math:`1 + N(0, \text{spread}^2)`, per component.
        seed: the same seed gives the same series.

    Returns:
        The series, with the components of the state as channels.

    Raises:
        ValueError: a number is out of its range.

    Example:
        >>> series = simulate(Spiral(), 3, seed=1)
        >>> len(series)
        3
    """
    if num_series < 1 or duration <= 0 or mean_times <= 0 or noise < 0 or not 0 <= missing < 1:
        raise ValueError(
            "simulate needs num_series >= 1, duration > 0, mean_times > 0, noise >= 0 and missing in [0, 1); got "
            f"num_series={num_series}, duration={duration}, mean_times={mean_times}, noise={noise}, missing={missing}."
        )
    rng = np.random.default_rng(seed)
    typical = system.y0.cpu().numpy()
    clocks = [np.sort(rng.uniform(0.0, duration, max(2, rng.poisson(mean_times)))) for _ in range(num_series)]
    starts = typical * (1 + spread * rng.standard_normal((num_series, *typical.shape)))
    drawn = []
    for times, clean in zip(clocks, _trajectories(system, clocks, starts), strict=True):
        values = clean[: len(times)] + noise * rng.standard_normal((len(times), *typical.shape))
        values[rng.uniform(size=values.shape) < missing] = math.nan
        drawn.append((times, values))
    return from_ragged(drawn, channels=system.state_names)


@torch.no_grad()
def _trajectories(system: System, clocks: list[np.ndarray], starts: np.ndarray) -> np.ndarray:
    """The states of all series at once, the clocks padded to the longest; accurate to far below any noise."""
    longest = max(len(times) for times in clocks)
    ts = torch.from_numpy(np.stack([np.pad(times, (0, longest - len(times)), mode="edge") for times in clocks]))
    y0 = torch.from_numpy(starts)
    if isinstance(system, ExactSystem):
        return system.exact(ts, y0).numpy()
    controller = PIDController(rtol=1e-9, atol=1e-9)
    return solve(system, y0, ts, t0=0.0, solver=Tsit5(), controller=controller, max_steps=1_000_000).ys.numpy()
