"""What parts share: a perceptron, recurrent matrices of low rank, and sampling that leaves the global seed alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn.utils import parametrize

from ._checks import check_count, check_hidden
from ._config import Configurable


__all__ = [
    "ACTIVATIONS",
    "MLP",
    "LeCunTanh",
    "LowRankSparse",
    "all_finite",
    "as_rows",
    "fork_rng",
    "repeat_last",
    "rsample",
    "sample",
    "seed_all",
    "take_items",
    "xavier_",
]


class LeCunTanh(nn.Module):
    r"""A hyperbolic tangent that keeps the variance of its input, :math:`1.7159 \tanh(0.666 x)`.

    Reference:
        Efficient BackProp, Y. LeCun, L. Bottou, G. B. Orr, K.-R. Mueller, 1998,
        https://doi.org/10.1007/3-540-49430-8_2

    Example:
        >>> LeCunTanh()(torch.zeros(2))
        tensor([0., 0.])
    """

    def forward(self, x: Tensor) -> Tensor:
        """The activation, entry by entry."""
        return 1.7159 * torch.tanh(0.666 * x)


#: The activations that a saved configuration may name.
ACTIVATIONS: Mapping[str, type[nn.Module]] = MappingProxyType(
    {
        activation.__name__: activation
        for activation in (nn.ELU, nn.GELU, nn.Identity, LeCunTanh, nn.ReLU, nn.SiLU, nn.Sigmoid, nn.Softplus, nn.Tanh)
    }
)


class MLP(nn.Module, Configurable):
    r"""A multi-layer perceptron: affine maps with an activation between them, and none at the end.

    .. math:: h_{k+1} = \sigma(W_k h_k + b_k), \qquad y = W_K h_K + b_K

    Args:
        in_size: size of the last axis of the input, at least 1.
        out_size: size of the last axis of the output, at least 1.
        hidden: sizes of the hidden layers; empty for one affine map.
        activation: class of the activation, built anew for every layer.

    Raises:
        ValueError: a size is below 1.
        TypeError: `activation` is not a class of modules, or `hidden` no sequence.

    Example:
        >>> MLP(3, 2, hidden=(16,))(torch.zeros(5, 7, 3)).shape
        torch.Size([5, 7, 2])
    """

    def __init__(
        self, in_size: int, out_size: int, hidden: Sequence[int] = (64, 64), activation: type[nn.Module] = nn.Tanh
    ) -> None:
        super().__init__()
        for name, size in (("in_size", in_size), ("out_size", out_size)):
            check_count(name, size)
        check_hidden(hidden)
        sizes = (in_size, *hidden, out_size)
        if not (isinstance(activation, type) and issubclass(activation, nn.Module)):
            raise TypeError(
                f"activation must be a class such as torch.nn.Tanh, not an instance or a name; got {activation!r}."
            )
        layers: list[nn.Module] = [nn.Linear(sizes[0], sizes[1])]
        for width, following in itertools.pairwise(sizes[1:]):
            layers += [activation(), nn.Linear(width, following)]
        self.layers = nn.Sequential(*layers)

    @property
    def affine(self) -> list[nn.Linear]:
        """The affine maps, first to last."""
        return [layer for layer in self.layers if isinstance(layer, nn.Linear)]

    @property
    def kinds(self) -> list[type[nn.Module]]:
        """The classes of the activations between them."""
        return [type(layer) for layer in list(self.layers)[1::2]]

    def forward(self, x: Tensor) -> Tensor:
        """The output at `x`.

        Args:
            x: `(..., in_size)`.

        Returns:
            `(..., out_size)`.
        """
        return self.layers(x)


@dataclass(frozen=True)
class LowRankSparse:
    r"""A recurrent matrix as a product of two thin ones with most of its entries cut out; for robust recurrences.

    .. math:: W = (U V) \odot M, \qquad U \in \mathbb{R}^{n \times r}, \; V \in \mathbb{R}^{r \times m}

    The factors begin as the best ones for the matrix that was there; M is drawn once. Both lower the spectral radius:
    the memory is shorter, and a shift of the inputs does less harm.

    Args:
        rank: r; None for as it is.
        sparsity: the share of entries that is cut out, at least 0 and less than 1.

    Raises:
        ValueError: rank or sparsity do not fit.

    Reference:
        Leveraging Low-Rank and Sparse Recurrent Connectivity for Robust Closed-Loop Control, N. Tumma, M. Lechner,
        N. Loo, R. Hasani, D. Rus, 2024, https://arxiv.org/abs/2310.03915

    Example:
        >>> gru = nn.GRUCell(3, 8)
        >>> LowRankSparse(rank=2, sparsity=0.5).constrain(gru, "weight_hh")
        >>> int(torch.linalg.matrix_rank(gru.parametrizations.weight_hh.original1)), gru.weight_hh.shape
        (2, torch.Size([24, 8]))
    """

    rank: int | None = None
    sparsity: float = 0.0

    def __post_init__(self) -> None:
        if self.rank is not None:
            check_count("rank", self.rank)
        if not 0.0 <= self.sparsity < 1.0:
            raise ValueError(f"sparsity must be at least 0 and less than 1; got {self.sparsity}.")

    def constrain(self, module: nn.Module, name: str = "weight", columns: slice = slice(None)) -> None:
        """Make a matrix of a module one of this kind, from now on.

        Args:
            module: what has the matrix.
            name: of the parameter, `(out, in)`.
            columns: which of them act on the state; the others stay free.

        Raises:
            ValueError: the matrix has a lower rank than is asked for.
        """
        parametrize.register_parametrization(module, name, _LowRankSparse(self, getattr(module, name), columns))


class _LowRankSparse(nn.Module):
    def __init__(self, form: LowRankSparse, matrix: Tensor, columns: slice) -> None:
        super().__init__()
        first, last, step = columns.indices(matrix.shape[1])
        if step != 1:
            raise ValueError(f"columns must be a plain range; got {columns}.")
        self.first, self.last, self.rank = first, last, form.rank
        smallest = min(matrix.shape[0], last - first)
        if form.rank is not None and form.rank > smallest:
            raise ValueError(f"rank must be at most {smallest}, the smaller side of the matrix; got {form.rank}.")
        self.mask: Tensor
        drawn = torch.rand(matrix.shape[0], last - first) >= form.sparsity
        self.register_buffer("mask", drawn.to(matrix.dtype))

    def forward(self, free: Tensor, *factors: Tensor) -> Tensor:
        recurrent = factors[0] @ factors[1] if self.rank is not None else factors[0]
        return torch.cat([free[:, : self.first], recurrent * self.mask, free[:, self.first :]], 1)

    def right_inverse(self, matrix: Tensor) -> tuple[Tensor, ...]:
        recurrent = matrix[:, self.first : self.last]
        free = torch.cat([matrix[:, : self.first], matrix[:, self.last :]], 1)
        if self.rank is None:
            return free, recurrent.clone()
        U, S, V = torch.linalg.svd(recurrent, full_matrices=False)
        root = S[: self.rank].sqrt()
        return free, U[:, : self.rank] * root, root[:, None] * V[: self.rank]


def xavier_(module: nn.Module) -> None:
    r"""Draws the weights of every affine map anew, so that what it is given keeps its size; biases are 0.

    .. math:: W_{ij} \sim \mathcal{N}\left(0, \frac{2}{n_{in} + n_{out}}\right)

    Args:
        module: it is changed in place.

    References:
        Understanding the difficulty of training deep feedforward neural networks, X. Glorot, Y. Bengio, 2010,
        https://proceedings.mlr.press/v9/glorot10a.html

    Example:
        >>> net = MLP(3, 2, hidden=(16,))
        >>> xavier_(net)
        >>> float(net.layers[0].bias.abs().max())
        0.0
    """
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_normal_(part.weight)
            nn.init.zeros_(part.bias)


@contextmanager
def fork_rng(generator: torch.Generator | None) -> Iterator[None]:
    """Inside the block, everything random is a function of `generator`; afterwards the global seed is as it was.

    `torch.distributions` draws from the global generator only: this is how one is sampled from a generator of your own.
    The block advances `generator` by one draw, so two blocks in a row differ.

    Args:
        generator: where the randomness comes from; None for the global generator, which then advances as usual.

    Example:
        >>> with fork_rng(torch.Generator().manual_seed(0)):
        ...     a = torch.rand(2)
        >>> with fork_rng(torch.Generator().manual_seed(0)):
        ...     b = torch.rand(2)
        >>> bool((a == b).all())
        True
    """
    if generator is None:
        yield
        return
    seed = int(torch.randint(2**62, (), dtype=torch.int64, device=generator.device, generator=generator))
    # Every accelerator is seeded by manual_seed, so every one of them must be put back afterwards.
    devices = range(torch.accelerator.device_count())
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    device_type = "cuda" if accelerator is None else accelerator.type
    with torch.random.fork_rng(devices if accelerator is not None else (), device_type=device_type):
        seed_all(seed)
        yield


def seed_all(seed: int) -> None:
    """Seed the global generators, as `torch.manual_seed` does, often: without an accelerator it costs next to nothing.

    Args:
        seed: an integer of 63 bits.

    Example:
        >>> seed_all(0)
        >>> a = torch.rand(2)
        >>> _ = torch.manual_seed(0)
        >>> bool((a == torch.rand(2)).all())
        True
    """
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:
        # Where there is no accelerator torch notes down for each kind, with a formatted stack, how to seed it one day.
        torch.default_generator.manual_seed(seed)


def sample(
    distribution: Distribution, shape: Sequence[int] = (), *, generator: torch.Generator | None = None
) -> Tensor:
    """Draw from any distribution with a generator of your own, without gradients. The global seed is left alone.

    Args:
        distribution: what to draw from.
        shape: leading axes of draws, in front of the batch axes of the distribution.
        generator: where the randomness comes from; None for the global generator.

    Returns:
        Draws, `(*shape, *batch, *event)`.

    Example:
        >>> normal = torch.distributions.Normal(torch.zeros(3), torch.ones(3))
        >>> sample(normal, (2,), generator=torch.Generator().manual_seed(0)).shape
        torch.Size([2, 3])
    """
    with fork_rng(generator):
        return distribution.sample(torch.Size(shape))


def rsample(
    distribution: Distribution, shape: Sequence[int] = (), *, generator: torch.Generator | None = None
) -> Tensor:
    """Draw from a distribution with a generator of your own, with gradients to its parameters (reparametrised).

    Args:
        distribution: what to draw from; it must offer reparametrised draws.
        shape: leading axes of draws, in front of the batch axes of the distribution.
        generator: where the randomness comes from; None for the global generator.

    Returns:
        Draws, `(*shape, *batch, *event)`.

    Raises:
        NotImplementedError: the distribution has no reparametrised draws (a discrete one); use `sample`.

    Example:
        >>> mean = torch.zeros(3, requires_grad=True)
        >>> rsample(torch.distributions.Normal(mean, 1.0), (2,)).sum().backward()
        >>> mean.grad
        tensor([2., 2., 2.])
    """
    with fork_rng(generator):
        return distribution.rsample(torch.Size(shape))


def all_finite(x: Tensor) -> bool:
    """Whether no entry is NaN or infinite.

    Example:
        >>> all_finite(torch.tensor([1e38, 3e38])), all_finite(torch.tensor([1.0, torch.nan]))
        (True, False)
    """
    # A sum costs a small part of a look at every entry. It is finite but for what is not, or too large to be added.
    return bool(torch.isfinite(x.detach().sum())) or bool(torch.isfinite(x.detach()).all())


def as_rows(x: Tensor, own: int = 2) -> Tensor:
    """One batch axis in place of all of them; one series without a batch axis becomes a batch of one.

    Args:
        x: `(*batch, *item)`.
        own: how many axes an item has.

    Example:
        >>> as_rows(torch.zeros(5, 2)).shape, as_rows(torch.zeros(3, 0, 5, 2)).shape
        (torch.Size([1, 5, 2]), torch.Size([0, 5, 2]))
    """
    return x.reshape(x.shape[:-own].numel(), *x.shape[-own:])


def take_items(x: Tensor, index: Tensor, dim: int) -> Tensor:
    """What stands at each series' own indices along an axis, as whole items, which is much faster than entry by entry.

    Args:
        x: `(*batch, item, *rest)`, `item` at the negative axis `dim`.
        index: `(*batch, wanted)`; the batch axes of the two broadcast.
        dim: which axis of `x` is `item`.

    Returns:
        `(*batch, wanted, *rest)`.

    Example:
        >>> take_items(torch.tensor([[[1.0], [2.0]], [[3.0], [4.0]]]), torch.tensor([[1], [0]]), -2).tolist()
        [[[2.0]], [[3.0]]]
    """
    batch = x.shape[:dim]
    series = torch.arange(batch.numel(), device=index.device).view(*batch, 1)
    place = series * x.shape[dim] + index
    return x.flatten(0, dim).index_select(0, place.flatten()).view(*place.shape, *x.shape[dim:][1:])


def repeat_last(x: Tensor, count: Tensor, dim: int) -> Tensor:
    """The last item of each series again in place of all that stands behind it.

    Args:
        x: `(*batch, item, *rest)`, `item` at the negative axis `dim`.
        count: how many items of each series there are, `(*batch,)`; of a series without any the first is repeated. The
            batch axes of the two broadcast.
        dim: which axis of `x` is `item`.

    Returns:
        Of the shape of `x`, but for the batch axes.

    Example:
        >>> repeat_last(torch.tensor([[1.0, 2.0, 0.0]]), torch.tensor([2]), -1).tolist()
        [[1.0, 2.0, 2.0]]
    """
    width = x.shape[dim]
    # A gather and the sum of its gradients cost as much as many a layer.
    if bool((count == width).all()):
        return x.expand(*torch.broadcast_shapes(x.shape[:dim], count.shape), *x.shape[dim:])
    number = torch.arange(width, device=count.device)
    return take_items(x, torch.minimum(number, (count.unsqueeze(-1) - 1).clamp(min=0)), dim)
