"""Several latent processes side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn

from .._checks import check_list
from .._types import Time, Times
from ..encoders import Encoding
from ..paths import Path
from .base import LatentProcess, LatentSample


__all__ = ["JointProcess"]

#: What one part alone can be made of: a distribution or sites of its own latent state.
_OWN = frozenset({"q0", "sites"})


class JointProcess(LatentProcess):
    r"""Latent processes side by side, independent of each other: a static latent or a class beside one that moves.

    .. math:: z(t) = \left(z_1(t), z_2(t), \dots\right), \qquad p(z) = \prod_i p_i(z_i), \qquad
        q(z) = \prod_i q_i(z_i)

    The latent state holds those of the parts in their order, `slices` says where; the decoder reads all of it, and no
    model needs to know what is in there. Divergences keep their names (`z0`, `sites`, `static`, `class` ...), so that
    an objective can weigh each; those of one name are added.

    Args:
        parts: the processes.

    Raises:
        ValueError: there are no parts, or two of them need a `q0` or sites of their own.

    References:
        Disentangled Sequential Autoencoder, Y. Li, S. Mandt, 2018, https://arxiv.org/abs/1803.02991

    Example:
        >>> from ctdyn.fields import MLPField
        >>> from ctdyn.processes import ODEProcess, StaticProcess
        >>> process = JointProcess([ODEProcess(MLPField(4), latent_size=4), StaticProcess(2, feature_size=8)])
        >>> sorted(process.requires), process.latent_size, process.slices
        (['q0', 'static'], 6, (slice(0, 4, None), slice(4, 6, None)))
    """

    def __init__(self, parts: Sequence[LatentProcess]) -> None:
        check_list("parts", parts, LatentProcess, "[ODEProcess(field, latent_size)]")
        if not parts:
            raise ValueError("JointProcess needs at least one part.")
        super().__init__(sum(part.latent_size for part in parts))
        counts = Counter(field for part in parts for field in part.requires)
        shared = sorted(field for field in _OWN if counts[field] > 1)
        if shared:
            raise ValueError(
                f"only one part of a JointProcess can be made of {shared[0]}, and {counts[shared[0]]} need it: "
                f"{[type(part).__name__ for part in parts if shared[0] in part.requires]}. Make one process of them: "
                "one field for several ODEs, SumDynamics or a batch axis of the parameters for linear dynamics."
            )
        self.parts = nn.ModuleList(parts)
        self.requires = frozenset(counts)
        self.driven = any(part.driven for part in parts)
        self.sizes = {field: size for part in parts for field, size in part.sizes.items()}

    @property
    def slices(self) -> tuple[slice, ...]:
        """Where the latent state of each part is."""
        ends = torch.tensor([part.latent_size for part in self._parts()]).cumsum(0).tolist()
        return tuple(slice(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True))

    def posterior(
        self,
        encoding: Encoding,
        t0: Time,
        ts: Times,
        num_samples: int = 1,
        generator: Generator | None = None,
        inputs: Path | None = None,
    ) -> LatentSample:
        """See `LatentProcess.posterior`."""
        return _together(
            [
                part.posterior(encoding, t0, ts, num_samples, own, inputs)
                for part, own in zip(self._parts(), self._generators(t0, generator), strict=True)
            ]
        )

    def prior(
        self,
        t0: Time,
        ts: Times,
        num_samples: int = 1,
        generator: Generator | None = None,
        inputs: Path | None = None,
    ) -> LatentSample:
        """See `LatentProcess.prior`."""
        return _together(
            [
                part.prior(t0, ts, num_samples, own, inputs)
                for part, own in zip(self._parts(), self._generators(t0, generator), strict=True)
            ]
        )

    def summary(self, encoding: Encoding) -> Tensor:
        """Those of the parts in their order; see `LatentProcess.summary`."""
        return torch.cat([part.summary(encoding) for part in self._parts()], -1)

    def _generators(self, t0: Time, generator: Generator | None) -> list[Generator]:
        """One for each part: how many numbers a part draws depends on the times, and must not move the others."""
        device = t0.device if generator is None else generator.device
        seeds = torch.randint(2**62, (len(self.parts),), generator=generator, device=device)
        return [Generator(device).manual_seed(seed) for seed in seeds.tolist()]

    def _parts(self) -> list[LatentProcess]:
        return [part for part in self.parts if isinstance(part, LatentProcess)]


def _together(found: Sequence[LatentSample]) -> LatentSample:
    """Independent samples as one; a name that several have stands for the sum."""
    log_terms: dict[str, Tensor] = {}
    kl: dict[str, Tensor] = {}
    for name in dict.fromkeys(name for latent in found for name in (*latent.log_terms, *latent.kl)):
        own = [latent for latent in found if name in latent.log_terms or name in latent.kl]
        if all(name in latent.log_terms for latent in own):
            log_terms[name] = _sum([latent.log_terms[name] for latent in own])
        if any(name in latent.kl for latent in own):
            kl[name] = _sum([x.kl[name] if name in x.kl else -x.log_terms[name].mean(0) for x in own])
    by_dimension = [latent.kl_by_dimension for latent in found if latent.kl_by_dimension is not None]
    return LatentSample(
        torch.cat([latent.zs for latent in found], -1), log_terms, kl, by_dimension[0] if by_dimension else None
    )


def _sum(terms: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(terms)).sum(0)
