"""Whether the parts of a latent model fit each other: said at construction, where all sizes are known."""

from collections.abc import Sequence
from inspect import isabstract

from .. import encoders, likelihoods
from .._checks import check_instance
from ..data.channels import Channel
from ..encoders import Encoder
from ..likelihoods import Likelihood, PerKind, PoissonTimes
from ..linear import LinearDynamics
from ..processes import LatentProcess
from .objectives import Objective


__all__ = ["check_channels", "check_parts", "check_reader", "read_by", "size_of"]

#: What each part may be, as it is written.
_SUCH = {
    "encoder": "GRUEncoder(num_channels, latent_size)",
    "process": "ODEProcess(field, latent_size)",
    "likelihood": "Gaussian(latent_size, num_channels)",
    "objective": "ELBO()",
    "times": "PoissonTimes(latent_size)",
}
#: What the sizes of the fields of an encoding are called where parts are built.
_SIZES = {"q0": "latent_size", "sites": "latent_size", "context": "context_size", "static": "feature_size"}


def check_parts(
    channels: Sequence[Channel],
    encoder: Encoder,
    process: LatentProcess,
    likelihood: Likelihood,
    objective: Objective,
    times: PoissonTimes | None,
) -> None:
    """Refuse parts that do not fit. A part of your own that does not say its size is believed.

    Args:
        channels: what is observed.
        encoder: reads the context.
        process: the latent dynamics.
        likelihood: decodes a latent state.
        objective: what is maximised.
        times: what observation times tell; None where they tell nothing.

    Raises:
        TypeError: a part is of another sort, or the class of one.
        ValueError: the encoder lacks something that the process needs, gives it in another size, or reads another
            number of channels; the likelihood decodes another latent state, or other channels; observation times
            depend on another latent state.
    """
    check_instance("process", process, LatentProcess, _SUCH["process"])
    check_instance("objective", objective, Objective, _SUCH["objective"])
    if times is not None:
        check_instance("times", times, PoissonTimes, _SUCH["times"])
    check_reader(channels, encoder)
    check_channels(channels, likelihood)
    missing = process.requires - encoder.provides
    if missing:
        raise ValueError(
            f"{type(process).__name__} needs {sorted(missing)} from its encoder, and {type(encoder).__name__} "
            f"provides {sorted(encoder.provides)}; what it needs comes from {_providers(process)}."
        )
    for field in sorted(process.requires):
        needed, given = process.sizes.get(field), encoder.sizes.get(field)
        if None not in (needed, given) and needed != given:
            raise ValueError(
                f"{type(process).__name__} needs {field} of size {needed}, and {type(encoder).__name__} gives it in "
                f"size {given}; build both with one {_SIZES[field]}."
            )
    for part, what in ((likelihood, "decodes"), (times, "depends on")):
        if part is not None and part.latent_size not in (None, process.latent_size):
            raise ValueError(
                f"{type(part).__name__} {what} a latent state of size {part.latent_size}, and that of "
                f"{type(process).__name__} has size {process.latent_size}; build both with one latent_size."
            )


def check_reader(channels: Sequence[Channel], encoder: Encoder) -> None:
    """Refuse an encoder of another number of channels.

    Args:
        channels: what is observed.
        encoder: reads it.

    Raises:
        TypeError: it is none, or the class of one.
        ValueError: it was built for another number of channels.
    """
    check_instance("encoder", encoder, Encoder, _SUCH["encoder"])
    if encoder.num_channels not in (None, len(channels)):
        raise ValueError(
            f"{type(encoder).__name__} reads {encoder.num_channels} channels, and the model has {len(channels)}: "
            f"{[channel.name for channel in channels]}; build it with num_channels={len(channels)}."
        )


def read_by(encoder: Encoder) -> frozenset[str]:
    """Which covariates an encoder reads; one that does not say is believed to read them.

    Args:
        encoder: reads series.
    """
    sizes = {"inputs": encoder.input_size, "static": encoder.static_size}
    return frozenset(name for name, size in sizes.items() if size != 0)


def check_channels(channels: Sequence[Channel], likelihood: Likelihood) -> None:
    """Refuse a likelihood of other channels: scalers leave the values of a channel to its kind, and so must it.

    Args:
        channels: what is observed.
        likelihood: decodes a state.

    Raises:
        TypeError: it is none, or the class of one.
        ValueError: it is for another number of channels, or cannot be that of a channel of such a kind.
    """
    check_instance("likelihood", likelihood, Likelihood, _SUCH["likelihood"])
    if likelihood.num_channels != len(channels):
        raise ValueError(
            f"the likelihood decodes {likelihood.num_channels} channels, and the model has {len(channels)}: "
            f"{[channel.name for channel in channels]}."
        )
    for family, columns in _families(likelihood):
        for channel in (channels[column] for column in columns):
            if channel.kind not in family.kinds:
                kinds = " or ".join(f'kinds={{"{channel.name}": "{kind}"}}' for kind in sorted(family.kinds))
                raise ValueError(
                    f"{type(family).__name__} cannot model channel {channel.name!r}, which is of kind "
                    f"{channel.kind!r}. If it is of another, say so when reading the series, {kinds}; otherwise its "
                    f"likelihood is one of {_likelihoods(channel.kind)}, beside others in a PerKind."
                )


def size_of(owner: str, name: str, size: int | None, dynamics: LinearDynamics | None, usual: int) -> int:
    """How large the default dynamics of a model are: dynamics of the user's own have a size, and another is a slip.

    Args:
        owner: the class of the model.
        name: what the size is called there.
        size: what was given.
        dynamics: the user's own.
        usual: the size where nothing was given.

    Raises:
        ValueError: both were given.
    """
    if size is not None and dynamics is not None:
        raise ValueError(
            f"{owner} takes {name}, the size of its usual dynamics, or dynamics=, which have a size; got both, "
            f"{name}={size} and {type(dynamics).__name__}: leave one of them out."
        )
    return usual if size is None else size


def _families(likelihood: Likelihood) -> list[tuple[Likelihood, Sequence[int]]]:
    """Its families, and the columns of each."""
    if not isinstance(likelihood, PerKind):
        return [(likelihood, range(likelihood.num_channels))]
    found = ((family, likelihood.columns[kind]) for kind, family in likelihood.families.items())
    return [(family, columns) for family, columns in found if isinstance(family, Likelihood)]


def _likelihoods(kind: str) -> str:
    """Those of the house for channels of a kind."""
    found = (getattr(likelihoods, name) for name in likelihoods.__all__)
    # Of a composed one it is known of its instances alone.
    named = [x for x in found if isinstance(x, type) and issubclass(x, Likelihood) and "kinds" in vars(x)]
    return ", ".join(x.__name__ for x in named if x is not Likelihood and kind in x.kinds)


def _providers(process: LatentProcess) -> str:
    """The encoders of the house that fill what a process needs."""
    found = [getattr(encoders, name) for name in encoders.__all__]
    named = [x for x in found if isinstance(x, type) and issubclass(x, Encoder) and not isabstract(x)]
    # What a composed encoder provides is known of its instances alone.
    enough = [x.__name__ for x in named if process.requires <= getattr(x, "provides", frozenset())]
    return " or ".join(enough) or "a JointEncoder of several"
