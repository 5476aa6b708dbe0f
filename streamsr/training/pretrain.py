"""Train a network towards the truth: bf16 steps under Charbonnier loss, then float32 steps under squared error."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from streamsr.errors import UsageError
from streamsr.training.crops import Crops, CropSampler, Degradation, FrameBank
from streamsr.training.data import Pair, Samples, bicubic_up, field_masks, load_pairs, mean_by_set
from streamsr.training.degrade import degraded, h264_frames, robust
from streamsr.training.losses import charbonnier, fft_l1, log_squared, luma_of_rgb, mean_squared
from streamsr.training.networks import build_network, colour_of, load_weights, plain, scale_of
from streamsr.training.run import Run, Settings
from streamsr.training.settings import DistillSettings, PretrainSettings

CODED_CRFS = (18, 23, 28, 32)
"""H.264 qualities of reduced pictures, from near-transparent to what small recorders write."""


class GeneratorRun(Run[Settings]):
    """A run whose network enlarges: data, average and validation are the same for all of them.

    Args:
        settings: the run.
        network: trained instead of the one that the settings name.

    Raises:
        UsageError: there is no such model.
    """

    def __init__(self, settings: Settings, network: nn.Module | None = None) -> None:
        super().__init__(settings)
        made = network if network is not None else build_network(settings.model)
        self.scale, self.colour = scale_of(made), colour_of(made)
        self.networks["network"] = made.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.networks["average"] = copy.deepcopy(made).requires_grad_(False)
        self.optimisers["network"] = self.make_optimiser(made)
        self.forward: Any = torch.compile(made) if settings.compiled else made

    def start_from(self, path: str) -> None:
        """Take another run's weights, or an engine's, if a path is given; batch statistics stay as they are there.

        With the statistics of each batch, a place unlike all others (white at the frame's border) is normalised in
        training and is not in the network that ships: srgan-x2 grew from 10 to 9,800 through its blocks there, and drew
        dark dots. With those of the start, what is trained is what ships.

        Raises:
            UsageError: the file is unreadable or of another network.
        """
        if path:
            load_weights(path, self.networks["network"])
            hold_statistics(self.networks["network"])
            self.networks["average"].load_state_dict(copy.deepcopy(self.networks["network"].state_dict()))

    def prepare(self) -> None:
        """Load the train side to the device and some frames of the validation side."""
        settings, data = self.settings, Path(self.settings.data)
        pairs = load_pairs(data, "train", self.scale, colour=self.colour)
        self.sampler = self.make_sampler(pairs)
        judged = load_pairs(data, "val", self.scale, colour=self.colour, most_per_set=settings.validation_frames)
        self.validation = degraded(judged, self.scale) if self.degrades else judged
        self.masks = field_masks(self.validation)
        reference = [
            psnr_on_device(bicubic_up(pair.lr, self.scale), pair, mask, self.device)
            for pair, mask in zip(self.validation, self.masks, strict=True)
        ]
        self.note({"bicubic": mean_by_set(self.validation, reference)})

    @property
    def degrades(self) -> bool:
        """Whether the weights are to know degraded input, and are judged on it."""
        return False

    def make_sampler(self, pairs: list[Pair]) -> CropSampler:
        """Return the source of crops."""
        bank = FrameBank(pairs, scale=self.scale, device=self.device)
        return CropSampler(bank, patch_px=self.settings.patch_px, batch=self.settings.batch)

    def validate(self) -> dict[str, Any]:
        """Return the luma PSNR in dB inside the field of view, averaged over the frames of each set, and ``score``."""
        network = plain(self.averaged).eval()
        figures = [
            psnr_on_device(enlarge(network, pair.lr, self.device), pair, mask, self.device)
            for pair, mask in zip(self.validation, self.masks, strict=True)
        ]
        means = mean_by_set(self.validation, figures)
        return {"psnr_db": means, "score": means["mean"]}


class Pretraining(GeneratorRun[PretrainSettings]):
    """A run towards the truth; see `GeneratorRun`."""

    def __init__(self, settings: PretrainSettings, network: nn.Module | None = None) -> None:
        super().__init__(settings, network)
        self.exact_loss = log_squared if settings.finetune_loss == "psnr" else mean_squared
        self.start_from(settings.start)
        self.resume()

    @property
    def phase(self) -> str:
        """Name the loss of the next step."""
        return "squared" if self.step >= self.settings.steps - self.settings.finetune_steps else "charbonnier"

    @property
    def degrades(self) -> bool:
        """Whether the weights are to know degraded input, and are judged on it."""
        return self.settings.degradation == "robust"

    def make_sampler(self, pairs: list[Pair]) -> CropSampler:
        """Return crops, degraded as the settings say."""
        if not self.degrades:
            return super().make_sampler(pairs)
        degrade: Degradation = robust
        pairs, coded = through_codec(pairs, self.settings.coded_share, self.settings.seed)
        bank = FrameBank(pairs, scale=self.scale, device=self.device)
        chosen = torch.tensor([file in coded for file in bank.files], device=self.device)
        return CropSampler(
            bank, patch_px=self.settings.patch_px, batch=self.settings.batch, degrade=degrade, coded=chosen
        )

    def take_step(self) -> dict[str, Tensor]:
        """Take one optimiser step."""
        crops = self.sampler.draw()
        exact = self.phase == "squared"
        with self.mixed(enabled=not exact):
            output = self.forward(crops.lr)
        loss = self.loss_of(output.float(), crops, exact=exact)
        self.descend(loss, "network")
        self.update_average("network")
        return {"loss": loss.detach()}

    def loss_of(self, output: Tensor, crops: Crops, *, exact: bool) -> Tensor:
        """Return the loss of a batch."""
        if exact:
            return self.exact_loss(output, crops.hr)
        loss = charbonnier(output, crops.hr)
        return loss + self.settings.fft_weight * fft_l1(output, crops.hr) if self.settings.fft_weight else loss


class Distilling(Pretraining):
    """A run towards the truth and a teacher's output.

    Raises:
        UsageError: the teacher is unknown, reads other colours or enlarges otherwise.
    """

    settings: DistillSettings

    def __init__(self, settings: DistillSettings) -> None:
        super().__init__(settings)
        teacher = build_network(settings.teacher)
        load_weights(settings.teacher_weights, teacher)
        if (scale_of(teacher), colour_of(teacher)) != (self.scale, self.colour):
            raise UsageError(
                f"expected a teacher of x{self.scale} on {self.colour}, got {settings.teacher}; name another"
            )
        self.teacher = plain(teacher).to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.teacher.eval().requires_grad_(False)

    def loss_of(self, output: Tensor, crops: Crops, *, exact: bool) -> Tensor:
        """Return the loss of a batch: the truth's, and the distance from the teacher."""
        loss = super().loss_of(output, crops, exact=exact)
        if exact:
            return loss
        with torch.no_grad(), self.mixed():
            shown: Tensor = self.teacher(crops.lr)
        apart: Tensor = (output - shown.float()).abs().mean()
        return loss + self.settings.teacher_weight * apart


def hold_statistics(network: nn.Module) -> None:
    """Keep every batch normalisation at its running mean and variance; its gain and shift still learn."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


def through_codec(pairs: list[Pair], share: float, seed: int) -> tuple[list[Pair], set[str]]:
    """Send the reduced pictures of a share of the frames through H.264; return all pairs and the names of those."""
    random = np.random.default_rng(seed)
    chosen = {pair.file for pair in pairs if random.random() < share}
    by_shape: dict[tuple[int, ...], list[Pair]] = {}
    for pair in pairs:
        if pair.file in chosen:
            by_shape.setdefault(pair.lr.shape, []).append(pair)
    coded: dict[str, Samples] = {}
    for members in by_shape.values():
        for first, crf in enumerate(CODED_CRFS):
            if part := members[first :: len(CODED_CRFS)]:
                decoded = h264_frames([pair.lr for pair in part], crf=crf)
                coded |= {pair.file: frame for pair, frame in zip(part, decoded, strict=True)}
    return [replace(pair, lr=coded[pair.file]) if pair.file in coded else pair for pair in pairs], set(coded)


@torch.inference_mode()
def enlarge(network: nn.Module, lr: Samples, device: torch.device | None = None) -> Samples:
    """Enlarge one frame whole: (h, w) or (h, w, 3) uint8; rounds half to even."""
    device = device or torch.device("cpu")
    network = network.to(device)
    planes = torch.from_numpy(np.ascontiguousarray(lr)).to(device)
    planes = planes[None, None] if lr.ndim == 2 else planes.permute(2, 0, 1)[None]
    output = network(planes.float() / 255.0)[0]
    rounded = (output * 255.0).round().clamp(0, 255).to(torch.uint8)
    return np.ascontiguousarray((rounded[0] if lr.ndim == 2 else rounded.permute(1, 2, 0)).cpu().numpy())


@torch.inference_mode()
def psnr_on_device(picture: Samples, pair: Pair, mask: Any, device: torch.device) -> float:
    """Return the luma PSNR in dB of a picture inside a mask; RGB pictures are brought to 8-bit luma first."""
    planes = [torch.from_numpy(np.ascontiguousarray(each)).to(device) for each in (picture, pair.hr)]
    if picture.ndim == 3:
        planes = [(luma_of_rgb(plane.permute(2, 0, 1)[None].double() / 255) * 255).round()[0, 0] for plane in planes]
    error = (planes[0].double() - planes[1].double())[torch.from_numpy(mask).to(device)]
    return float(10 * torch.log10(255.0**2 / error.square().mean().clamp(min=1e-12)))
