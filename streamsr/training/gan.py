"""Train a generator adversarially: the loss of Ledig et al. 2017, and beside it what keeps it honest.

A step teaches the discriminator to tell the truth from the output, then the generator to have the truth's features, to
be taken for it, and (the house recipe) to keep its pixels, its input and the spots of reflection as they are.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from streamsr.errors import UsageError
from streamsr.models.discriminator import SRGANDiscriminator
from streamsr.quality.feature_files import load_feature_network
from streamsr.quality.specular import saturation_mask
from streamsr.training.data import mean_by_set
from streamsr.training.losses import (
    artefact_loss,
    blend_saturated,
    charbonnier,
    consistency_loss,
    discriminator_loss,
    feature_loss,
    generator_adversarial_loss,
)
from streamsr.training.pretrain import GeneratorRun, enlarge, psnr_on_device
from streamsr.training.run import floats_of
from streamsr.training.settings import GanSettings

HIGHLIGHT_MARGIN_PX = 2
"""Input pixels round a saturated one that are spared with it: the reach of the reduction's filter."""

HIGHLIGHT_WEIGHT = 1.0
"""Weight of the Charbonnier loss inside spared spots, the fidelity stage's: nothing else holds them there."""


class AdversarialTraining(GeneratorRun[GanSettings]):
    """An adversarial run; see `GeneratorRun`.

    Args:
        settings: the run.

    Raises:
        UsageError: the model works on luma, or the settings do not go together.
        InputNotFound: a file of features is missing.
        EngineError: a file of features cannot be used.
    """

    def __init__(self, settings: GanSettings) -> None:
        super().__init__(settings)
        if self.colour != "rgb":
            raise UsageError(f"expected a model on RGB, as the features are, got {settings.model}; use srgan-x2 or -x4")
        self.start_from(settings.start)
        # The start's weights, and the blend that is made of them and of what was trained.
        self._ends = [copy.deepcopy(self.networks["average"]) for _ in range(2)] if settings.blend < 1 else []
        try:
            discriminator = SRGANDiscriminator(size_px=settings.patch_px * self.scale)
        except ValueError as cause:
            raise UsageError(f"patch_px of {settings.patch_px} at x{self.scale}: {cause}") from cause
        self.networks["discriminator"] = discriminator.to(
            self.device,
            memory_format=torch.channels_last,  # type: ignore[call-overload]
        )
        self.optimisers["discriminator"] = self.make_optimiser(discriminator, betas=(0.9, 0.999))
        if settings.feature_weight and not settings.features:
            raise UsageError("expected a file of features for feature_weight, got none; name one or set it to 0")
        self.features = load_feature_network(Path(settings.features)) if settings.features else None
        if self.features is not None:
            self.features.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
            self.features.eval().requires_grad_(False)
            if discriminator.size_px < self.features.smallest_px:
                raise UsageError(
                    f"expected crops of {self.features.smallest_px} px or more for {self.features.name}, got "
                    f"{discriminator.size_px}; raise patch_px"
                )
        self.perceptual: Any = None
        if settings.squeezenet:
            from streamsr.quality.perceptual import LpipsLike

            self.perceptual = LpipsLike.from_files(settings.squeezenet, settings.lpips_linear).to(self.device)
        self.resume()

    @property
    def averaged(self) -> nn.Module:
        """Return the averaged network, blended with the start's weights as the settings say."""
        average = self.networks["average"]
        if not self._ends:
            return average
        first, made = self._ends
        for start, trained, blended in zip(*map(floats_of, (first, average, made)), strict=True):
            torch.lerp(start, trained, self.settings.blend, out=blended)
        return made

    def rate_factor(self, name: str) -> float:
        """Return a network's rate as a multiple of the schedule's."""
        return self.settings.discriminator_rate if name == "discriminator" else 1.0

    def take_step(self) -> dict[str, Tensor]:
        """Step the discriminator, then the generator."""
        settings, discriminator = self.settings, self.networks["discriminator"]
        crops = self.sampler.draw()
        with self.mixed():
            output = self.forward(crops.lr).float()
        shown, held = output, {}
        if settings.spare_highlights:
            spared = saturation_mask(crops.hr, scale=self.scale, grow_px=HIGHLIGHT_MARGIN_PX, every_channel=True)
            shown = blend_saturated(output, crops.hr, spared)
            held["highlights"] = charbonnier(output, crops.hr, mask=spared)
        with self.mixed():
            real, fake = discriminator(crops.hr), discriminator(shown.detach())
        doubt = discriminator_loss(real.float(), fake.float())
        self.descend(doubt, "discriminator")
        discriminator.requires_grad_(False)
        with self.mixed():
            fake = discriminator(shown)
        losses = {
            "adversarial": generator_adversarial_loss(fake.float()),
            **self.picture_losses(output, shown, crops),
            **held,
        }
        weights = {
            "adversarial": settings.adversarial_weight,
            "features": settings.feature_weight,
            "pixels": settings.pixel_weight,
            "artefacts": settings.artefact_weight,
            "consistency": settings.consistency_weight,
            "highlights": HIGHLIGHT_WEIGHT,
        }
        self.descend(sum((weights[name] * loss for name, loss in losses.items()), output.new_zeros(())), "network")
        discriminator.requires_grad_(True)
        self.update_average("network")
        return {"discriminator": doubt.detach(), **{name: loss.detach() for name, loss in losses.items()}}

    def picture_losses(self, output: Tensor, shown: Tensor, crops: Any) -> dict[str, Tensor]:
        """Return the losses of the picture that have a weight."""
        settings = self.settings
        losses = {}
        if self.features is not None and settings.feature_weight:
            with self.mixed():
                form: Any = "mse" if settings.squared_features else "l1"
                losses["features"] = feature_loss(self.features, shown, crops.hr, form=form)
        if settings.pixel_weight:
            losses["pixels"] = (output - crops.hr).abs().mean()
        if settings.artefact_weight:
            with torch.no_grad(), self.mixed():
                steady = self.networks["average"].eval()(crops.lr).float()
            losses["artefacts"] = artefact_loss(output, steady, crops.hr)
        if settings.consistency_weight:
            losses["consistency"] = consistency_loss(output, crops.lr, self.scale)
        return losses

    def validate(self) -> dict[str, Any]:
        """Return luma PSNR and, where its weights are given, the LPIPS-like distance, whose negative is the score."""
        network = self.averaged.eval()
        psnr, distance = [], []
        for pair, mask in zip(self.validation, self.masks, strict=True):
            picture = enlarge(network, pair.lr, self.device)
            psnr.append(psnr_on_device(picture, pair, mask, self.device))
            if self.perceptual is not None:
                with torch.inference_mode():
                    ours, truth = (_as_batch(each, self.device) for each in (picture, pair.hr))
                    distance.append(float(self.perceptual(ours, truth)))
        means = mean_by_set(self.validation, psnr)
        if self.perceptual is None:
            return {"psnr_db": means, "score": float(self.step)}
        distances = mean_by_set(self.validation, distance)
        return {"psnr_db": means, "lpips_like": distances, "score": -distances["mean"]}


def _as_batch(picture: Any, device: torch.device) -> Tensor:
    """Return (1, 3, H, W) float32 in [0, 1] of (H, W, 3) uint8."""
    return torch.from_numpy(np.ascontiguousarray(picture)).to(device).permute(2, 0, 1)[None].float() / 255.0
