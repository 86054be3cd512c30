"""The few layers and helpers that parts share: a perceptron, and sampling that leaves the global seed alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from ._config import Configurable


__all__ = ["ACTIVATIONS", "MLP", "fork_rng", "rsample", "sample"]


#: The activations that a saved configuration may name.
ACTIVATIONS: Mapping[str, type[nn.Module]] = MappingProxyType(
    {
        activation.__name__: activation
        for activation in (nn.ELU, nn.GELU, nn.Identity, nn.ReLU, nn.SiLU, nn.Sigmoid, nn.Softplus, nn.Tanh)
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
        TypeError: `activation` is not a class of modules.

    Example:
        >>> MLP(3, 2, hidden=(16,))(torch.zeros(5, 7, 3)).shape
        torch.Size([5, 7, 2])
    """

    def __init__(
        self, in_size: int, out_size: int, hidden: Sequence[int] = (64, 64), activation: type[nn.Module] = nn.Tanh
    ) -> None:
        super().__init__()
        sizes = (in_size, *hidden, out_size)
        if any(size < 1 for size in sizes):
            raise ValueError(f"every size of an MLP must be at least 1; got {sizes} (input, hidden, output).")
        if not (isinstance(activation, type) and issubclass(activation, nn.Module)):
            raise TypeError(
                f"activation must be a class such as torch.nn.Tanh, not an instance or a name; got {activation!r}."
            )
        layers: list[nn.Module] = [nn.Linear(sizes[0], sizes[1])]
        for width, following in itertools.pairwise(sizes[1:]):
            layers += [activation(), nn.Linear(width, following)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """The output at `x`.

        Args:
            x: `(..., in_size)`.

        Returns:
            `(..., out_size)`.
        """
        return self.layers(x)


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
        torch.manual_seed(seed)
        yield


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
