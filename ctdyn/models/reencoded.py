"""Forecasts that are encoded again on the way."""

import torch
from torch import Generator, Tensor

from .._types import Time, Times, Values
from ..data import IrregularBatch, Window
from ..encoders import start_time
from ..paths import Path
from .base import Loss, Model, Predictive
from .latent_vae import LatentVAE, latent_model


__all__ = ["Reencoded"]

#: What a time may lie behind the end of its stage, in stages.
_ROUNDING = 1e-5


class Reencoded(Model):
    r"""A latent model whose forecasts are decoded and encoded again every so often: a correction of their course.

    .. math:: z(t_k) \leftarrow \operatorname{encoder}\left(\operatorname{decoder}(z(t_k))\right), \qquad
        t_k = t_{\text{last}} + k \Delta

    Linear latent dynamics leave, in the long run, the set of states that stand for anything; a passage through the
    observations brings them back. Each sampled trajectory is corrected by itself, so forecasts stay distributions. This
    is a heuristic that proves nothing about stability: choose `every` on validation data, where longer than any horizon
    means never. Training is that of the model: wrap it from the start, or wrap what is fitted, `forecaster.model =
    Reencoded(forecaster.model, every)`.

    A state must be recognisable from what it decodes to: from one observation, or from `points` of them.

    Args:
        model: what was, or is to be, trained.
        every: :math:`\Delta`, on the model's clock.
        points: decoded observations that are encoded each time, evenly spaced over the stretch before it.

    Raises:
        TypeError: the model is no `LatentVAE`.
        ValueError: `every` is not positive, or `points` is below 1.

    References:
        Course Correcting Koopman Representations, M. Fathi, C. Gehring, J. Pilault, D. Kanaa, P.-L. Bacon,
        R. Goroshin, 2024, https://arxiv.org/abs/2310.15386

    Example:
        >>> from ctdyn.data import Channel
        >>> from ctdyn.models import KoopmanVAE
        >>> model = Reencoded(KoopmanVAE([Channel("x")], pairs=1), every=0.5)
        >>> batch = IrregularBatch(torch.zeros(1, 1), torch.ones(1, 1, 1), torch.ones(1, 1, 1, dtype=torch.bool))
        >>> model.predict(batch, torch.tensor([[0.5, 3.0]]), num_samples=10).mean.shape
        torch.Size([1, 2, 1])
    """

    def __init__(self, model: LatentVAE, every: float, points: int = 1) -> None:
        super().__init__(latent_model("Reencoded", model).channels)
        if not every > 0 or points < 1:
            raise ValueError(
                f"Reencoded needs every above 0 and at least one point; got every={every}, points={points}."
            )
        self.model = model
        self.every, self.points = every, points

    @property
    def reads(self) -> frozenset[str]:
        """See `Model.reads`: what its model does."""
        return self.model.reads

    def loss(self, window: Window, *, generator: Generator | None = None, step: int | None = None) -> Loss:
        """See `Model.loss`: that of the model itself."""
        return self.model.loss(window, generator=generator, step=step)

    def predict(
        self,
        context: IrregularBatch,
        ts: Times,
        inputs: Path | None = None,
        *,
        noise: Values | None = None,
        num_samples: int = 100,
        generator: Generator | None = None,
    ) -> Predictive:
        """See `Model.predict`."""
        process, likelihood = self.model.process, self.model.likelihood
        encoding, start, samples = self.model.encode_context(context), start_time(context), num_samples
        last = torch.where(context.observed, context.times, start.unsqueeze(-1)).amax(-1)
        # The end of a stage belongs to it, whichever way it was rounded.
        number = ((ts - last.unsqueeze(-1)) / self.every - _ROUNDING).ceil().clamp(min=1.0)
        stages = int(number.amax()) if number.numel() else 1
        zs: Tensor | None = None
        for stage in range(1, stages + 1):
            points = self._points(last, stage) if stage < stages else ts[..., :0]
            # What lies behind the stage is not solved for; what belongs to it by rounding is.
            end = last.unsqueeze(-1) + self.every * (stage + _ROUNDING)
            at = ts.minimum(end)
            if stage > 1:
                # Nor is what lies before it: a state that decays forwards explodes on the way back.
                at = at.maximum(self._points(last, stage - 1)[..., :1])
            asked = torch.cat([at, points], -1).expand(*start.shape, -1)
            latent = process.posterior(encoding, start, asked, samples, generator, inputs)
            # After the first stage the samples are batch axes of the context.
            found = latent.zs if stage == 1 else latent.zs.squeeze(0)
            here, ahead = found.split([ts.shape[-1], points.shape[-1]], -2)
            zs = here if zs is None else torch.where((number == stage).unsqueeze(-1), here, zs)
            if stage < stages:
                decoded = likelihood(ahead, points).mean.expand(*ahead.shape[:-1], len(self.channels))
                if stage == 1 and inputs is not None:
                    inputs = inputs.replace(tuple(x.expand(num_samples, *x.shape) for x in inputs.tensors()))
                again = self._observed(context, points, decoded, inputs)
                encoding, start, samples = self.model.encode_context(again), again.times[..., 0], 1
        assert zs is not None
        return Predictive(likelihood(zs, ts, noise))

    def _points(self, last: Time, stage: int) -> Times:
        """The times that are encoded at the end of a stage, `(*batch, point)`."""
        back = torch.arange(self.points - 1, -1, -1, dtype=last.dtype, device=last.device) / self.points
        return last.unsqueeze(-1) + self.every * (stage - back)

    def _observed(self, context: IrregularBatch, points: Times, decoded: Tensor, inputs: Path | None) -> IrregularBatch:
        """What was decoded as a context of its own, one series per sample."""
        lead = decoded.shape[:-2]
        times = points.expand(*lead, -1)
        known = None
        if context.inputs is not None:
            if inputs is None:
                raise ValueError(
                    "the encoder reads inputs, so what is encoded again needs them at its times too; pass the inputs "
                    "as a path."
                )
            known = torch.stack([inputs.evaluate(times[..., i]) for i in range(self.points)], -2)
        static = None if context.static is None else context.static.expand(*lead, -1)
        return IrregularBatch(times, decoded, torch.ones_like(decoded, dtype=torch.bool), inputs=known, static=static)
