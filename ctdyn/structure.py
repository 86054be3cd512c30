"""What a field can be: the contracts that a solver may rely on. Implementations live in `ctdyn.fields`.

A solver knows these classes and never a concrete field.
"""

from abc import ABC, abstractmethod
from enum import Enum
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from ._types import Inputs, State, States, Time


__all__ = [
    "CDEField",
    "Calculus",
    "DecayField",
    "ExactCDEField",
    "Explained",
    "Noise",
    "Perceptron",
    "PerceptronField",
    "SDEField",
    "SecondOrderField",
    "Transition",
    "VectorField",
]


class VectorField(nn.Module, ABC):
    r"""The right-hand side of an ordinary differential equation; subclass it to bring your own dynamics.

    .. math:: \frac{dy}{dt} = f(t, y, u(t))

    Series never mix: entry :math:`b` of the result depends on entry :math:`b` of the arguments alone. Any number of
    leading axes (Monte Carlo samples, for example) must be accepted.

    Example:
        >>> class Decay(VectorField):
        ...     def forward(self, t, y, u=None):
        ...         return -y
        >>> import torch
        >>> Decay()(torch.zeros(2), torch.ones(2, 3)).shape
        torch.Size([2, 3])
    """

    @abstractmethod
    def forward(self, t: Time, y: State, u: Inputs | None = None) -> State:
        """The velocity `dy/dt`.

        Args:
            t: time of each series, `(*batch,)`.
            y: state of each series, `(*batch, state)`.
            u: inputs or context at that time, `(*batch, input)`; None where nothing drives the field.

        Returns:
            The velocity, of the shape and dtype of `y`.
        """


class DecayField(VectorField, ABC):
    r"""A field whose every entry decays at a rate of its own towards a level that may move: what exponential steps use.

    .. math:: \frac{dy}{dt} = -a(t, y, u) \odot y + b(t, y, u), \qquad a \ge 0

    Liquid time-constant cells, GRU-ODE, continuous-time recurrent networks and Hawkes intensities are of this kind. An
    exponential method solves the decay exactly: the step size then follows how fast `a` and `b` change, not how large
    `a` is.

    Example:
        >>> class Leak(DecayField):
        ...     def decay(self, t, y, u=None):
        ...         return torch.full_like(y, 2.0), torch.ones_like(y)
        >>> import torch
        >>> Leak()(torch.zeros(1), torch.ones(1, 1))
        tensor([[-1.]])
    """

    @abstractmethod
    def decay(self, t: Time, y: State, u: Inputs | None = None) -> tuple[State, State]:
        """The rates `a` and the drive `b`.

        Args:
            t: time of each series, `(*batch,)`.
            y: state of each series, `(*batch, state)`.
            u: inputs or context at that time, `(*batch, input)`; None where nothing drives the field.

        Returns:
            The rates, not negative, per unit of time, and the drive, in units of the state per unit of time; both of
            the shape of `y`.
        """

    def forward(self, t: Time, y: State, u: Inputs | None = None) -> State:
        """The velocity, `-a * y + b`; `t`, `y` and `u` as in `VectorField`."""
        rate, drive = self.decay(t, y, u)
        return drive - rate * y


class SecondOrderField(VectorField, ABC):
    r"""A field of positions and momenta that push each other in turn; symplectic methods need to know it.

    .. math:: y = [q, p], \qquad \frac{dq}{dt} = v(t, p), \qquad \frac{dp}{dt} = F(t, q, u)

    The first half of the state are the positions, the second half the momenta. Newton's equation
    :math:`\ddot q = F(t, q)` is the case :math:`v = p`, which is what `velocity` gives unless a subclass says
    otherwise.

    Example:
        >>> class Spring(SecondOrderField):
        ...     def force(self, t, q, u=None):
        ...         return -q
        >>> import torch
        >>> Spring()(torch.zeros(1), torch.tensor([[1.0, 0.5]]))
        tensor([[ 0.5000, -1.0000]])
    """

    @abstractmethod
    def force(self, t: Time, q: State, u: Inputs | None = None) -> State:
        """What changes the momenta.

        Args:
            t: time of each series, `(*batch,)`.
            q: positions, `(*batch, state / 2)`.
            u: inputs or context at that time, `(*batch, input)`; None where nothing drives the field.

        Returns:
            The force, of the shape and dtype of `q`.
        """

    def velocity(self, t: Time, p: State) -> State:
        """What changes the positions: the momenta themselves, for a unit mass.

        Args:
            t: time of each series, `(*batch,)`.
            p: momenta, `(*batch, state / 2)`.

        Returns:
            The velocity, of the shape and dtype of `p`.
        """
        return p

    def forward(self, t: Time, y: State, u: Inputs | None = None) -> State:
        """The velocity of positions and momenta; `t`, `y` and `u` as in `VectorField`."""
        if y.shape[-1] % 2:
            raise ValueError(
                f"the state of a SecondOrderField holds positions and momenta, (*batch, 2 n); got {tuple(y.shape)}."
            )
        q, p = y.chunk(2, -1)
        return torch.cat([self.velocity(t, p), self.force(t, q, u)], -1)


class Explained(ABC):
    """Something that says how its equation is solved, and why: a mixin of the parts that models are made of.

    Example:
        >>> from ctdyn.cells import GRUDCell
        >>> isinstance(GRUDCell(1, 2), Explained)
        True
    """

    @abstractmethod
    def explain(self) -> str:
        """Which way its equation is solved, and why: one sentence."""


class Transition(ABC):
    r"""A state that is carried over any interval in one piece, by a closed form or by steps of its own; a mixin.

    .. math:: y(t_1) = \Phi(y(t_0), t_0, t_1, u)

    What is only a transition has no velocity, and no method integrates it. Where `is_flow` is False, two pieces are not
    one, :math:`\Phi_{t_1 t_2} \circ \Phi_{t_0 t_1} \ne \Phi_{t_0 t_2}`, so that it is evaluated from the last anchor,
    never by way of other queries.

    Example:
        >>> class Halving(Transition):
        ...     def transition(self, y, t0, t1, u=None):
        ...         return y * 0.5 ** (t1 - t0).unsqueeze(-1)
        >>> import torch
        >>> Halving().transition(torch.ones(1, 1), torch.zeros(1), torch.tensor([3.0]))
        tensor([[0.1250]])
    """

    #: Whether two transitions, one after the other, are the one over both intervals.
    is_flow: ClassVar[bool] = True

    @abstractmethod
    def transition(self, y: State, t0: Time, t1: Time, u: Inputs | None = None) -> State:
        """The state at `t1`, from the one at `t0`.

        Args:
            y: states at `t0`, `(*batch, state)`.
            t0: time of `y` per series, `(*batch,)`.
            t1: time to go to, `(*batch,)`.
            u: inputs, held over the interval, `(*batch, input)`.
        """


class CDEField(nn.Module, ABC):
    r"""A controlled differential equation: how the state answers to each channel of a control path.

    .. math:: dy = F(t, y)\,dX(t), \qquad F \in \mathbb{R}^{state \times control}

    Series never mix, and any number of leading axes must be accepted, as for a `VectorField`. A subclass that can apply
    the matrix without building it overrides `prod`.

    Example:
        >>> class Gain(CDEField):
        ...     def forward(self, t, y):
        ...         return torch.stack([y, -y], -1)
        >>> import torch
        >>> Gain().prod(torch.zeros(2), torch.ones(2, 3), torch.tensor([[1.0, 0.0], [1.0, 3.0]]))
        tensor([[ 1.,  1.,  1.],
                [-2., -2., -2.]])
    """

    @abstractmethod
    def forward(self, t: Time, y: State) -> Tensor:
        """The matrix :math:`F`.

        Args:
            t: time of each series, `(*batch,)`.
            y: state of each series, `(*batch, state)`.

        Returns:
            `(*batch, state, control)`, of the dtype of `y`.
        """

    def prod(self, t: Time, y: State, dx: Tensor) -> State:
        """The matrix applied to a change of the control.

        Args:
            t: time of each series, `(*batch,)`.
            y: state of each series, `(*batch, state)`.
            dx: change of the control, or its derivative, `(*batch, control)`.

        Returns:
            `(*batch, state)`.
        """
        # A matrix of its own per series: sums are faster than so many small products. The conjugate of dx is dx.
        return torch.linalg.vecdot(dx.unsqueeze(-2), self(t, y))


class ExactCDEField(CDEField, ABC):
    r"""A controlled equation that is solved without steps wherever its control moves in a straight line.

    .. math:: y(t_k) = \Phi\big(X(t_k) - X(t_{k-1})\big)\, y(t_{k-1})

    `solve` follows it exactly along paths of straight lines (`LinearPath`, `RectilinearPath`, `LogSignaturePath`) when
    no method is asked for.

    Example:
        >>> class Growth(ExactCDEField):
        ...     def forward(self, t, y):
        ...         return y.unsqueeze(-1)
        ...     def follow(self, y0, dxs):
        ...         return y0.unsqueeze(-2) * dxs.cumsum(-2).exp()
        >>> import torch
        >>> Growth().follow(torch.ones(1), torch.tensor([[0.0], [1.0]]))
        tensor([[1.0000],
                [2.7183]])
    """

    @abstractmethod
    def follow(self, y0: State, dxs: Tensor) -> States:
        """The states after each of consecutive straight pieces of the control.

        Args:
            y0: states before the first piece, `(*batch, state)`; extra leading axes are allowed.
            dxs: change of the control over each piece, `(*batch, piece, control)`.

        Returns:
            `(*batch, piece, state)`, of the dtype of `y0`.
        """


class Perceptron(NamedTuple):
    r"""What a perceptron is made of, :math:`h_{k+1} = \sigma_k(W_k h_k + b_k)`, for code that runs its layers itself.

    Args:
        weights: :math:`W_k`, `(out, in)` each.
        biases: :math:`b_k`, `(out,)` each.
        activations: the class of each :math:`\sigma_k`, as it is built without arguments.

    Example:
        >>> import torch
        >>> Perceptron((torch.eye(2),), (torch.zeros(2),), (nn.Tanh,)).activations[0].__name__
        'Tanh'
    """

    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]
    activations: tuple[type[nn.Module], ...]


class PerceptronField(ABC):
    r"""A field that is a perceptron of state and inputs, and nothing else; a mixin. Its steps can be compiled as one.

    .. math:: h_0 = [y, u], \qquad h_{k+1} = \sigma_k(W_k h_k + b_k), \qquad f(t, y, u) = h_K

    For a controlled equation :math:`h_K` is the matrix, row after row. Nobody needs to know of it: a subclass that
    overrides `forward` (or `prod`) and not `perceptron` is solved by what it overrides.

    Example:
        >>> from ctdyn.fields import MLPField
        >>> parts = MLPField(3, hidden=(16,)).perceptron()
        >>> [tuple(weight.shape) for weight in parts.weights]
        [(16, 3), (3, 16)]
    """

    @abstractmethod
    def perceptron(self) -> Perceptron | None:
        """The layers of the field as they are now, or None where it is built in such a way that it has others."""


class Calculus(Enum):
    r"""How a stochastic integral is meant: at the start of each small step, or in its middle.

    The same drift and diffusion are two different equations under the two readings; they agree for additive noise:

    .. math:: f\,dt + g \circ dW = \big(f + \tfrac12 (\partial_y g)\,g\big)\,dt + g\,dW

    Reference:
        B. Oksendal, Stochastic Differential Equations, 6th edition, 2003, section 3.3,
        https://doi.org/10.1007/978-3-642-14394-6

    Example:
        >>> Calculus.ITO.value
        'Ito'
    """

    ITO = "Ito"
    STRATONOVICH = "Stratonovich"


class Noise(Enum):
    """How Brownian motion enters an equation, which decides the shape that `SDEField.diffusion` returns.

    * `SCALAR`: one Brownian motion moves every entry of the state; `(*batch, state)`.
    * `DIAGONAL`: entry i has a Brownian motion of its own, and a diffusion that depends on entry i alone;
      `(*batch, state)`.
    * `ADDITIVE`: the diffusion does not depend on the state; `(*batch, state, brownian)`, or `(*batch, state)` where
      every entry has a Brownian motion of its own.
    * `GENERAL`: anything else; `(*batch, state, brownian)`.

    Example:
        >>> Noise.DIAGONAL.value
        'diagonal'
    """

    SCALAR = "scalar"
    DIAGONAL = "diagonal"
    ADDITIVE = "additive"
    GENERAL = "general"


class SDEField(nn.Module, ABC):
    r"""A stochastic differential equation; subclass it, and say in the class what `noise` and what `calculus` it has.

    .. math:: dy = f(t, y, u(t))\,dt + g(t, y, u(t))\,dW

    Series never mix, and any number of leading axes must be accepted, as for a `VectorField`.
    `ctdyn.testing.check_sde_field` finds a diffusion that is not what `noise` says.

    Example:
        >>> import torch
        >>> class Walk(SDEField):
        ...     noise, calculus = Noise.ADDITIVE, Calculus.ITO
        ...     def drift(self, t, y, u=None):
        ...         return -y
        ...     def diffusion(self, t, y, u=None):
        ...         return torch.full_like(y, 0.5)
        >>> Walk().diffusion(torch.zeros(2), torch.ones(2, 3)).shape
        torch.Size([2, 3])
    """

    noise: Noise
    """How Brownian motion enters."""

    calculus: Calculus
    """How the stochastic integral is meant."""

    @abstractmethod
    def drift(self, t: Time, y: State, u: Inputs | None = None) -> State:
        """What moves the state in the mean, `f`.

        Args:
            t: time of each series, `(*batch,)`.
            y: state of each series, `(*batch, state)`.
            u: inputs or context at that time, `(*batch, input)`; None where nothing drives the field.

        Returns:
            The drift, of the shape and dtype of `y`.
        """

    @abstractmethod
    def diffusion(self, t: Time, y: State, u: Inputs | None = None) -> Tensor:
        """What Brownian motion is multiplied by, `g`, in units of the state per square root of time.

        Args:
            t: time of each series, `(*batch,)`.
            y: state of each series, `(*batch, state)`.
            u: inputs or context at that time, `(*batch, input)`; None where nothing drives the field.

        Returns:
            `(*batch, state)` or `(*batch, state, brownian)`, as `noise` says.
        """
