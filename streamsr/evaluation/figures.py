"""The figures of one enlarged picture, and what each of them means."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from streamsr.evaluation.methods import Made
from streamsr.quality.agreement import agreement
from streamsr.quality.fidelity import field_of_view, psnr_db, ssim
from streamsr.quality.fourier import fourier_agreement
from streamsr.quality.perceptual import LpipsLike, distance_between, in_colour
from streamsr.quality.specular import find_highlights, measure_highlights
from streamsr.training.data import luma_of

Samples = NDArray[np.uint8]

EQUAL_DB = 100.0
"""What PSNR above it counts as: that of equal pictures is infinite, and no mean could be taken."""


@dataclass(frozen=True)
class Figure:
    """What a figure means.

    Attributes:
        title: short, for tables.
        digits: behind the point.
        better: whether ``more`` or ``less`` is better.
        meaning: in words.
    """

    title: str
    digits: int
    better: Literal["more", "less"]
    meaning: str


FIGURES: dict[str, Figure] = {
    "luma_psnr_db": Figure(
        "PSNR Y",
        2,
        "more",
        "luma PSNR in dB inside the field of view; BT.601 studio-range luma in whole levels, peak 255",
    ),
    "luma_ssim": Figure(
        "SSIM Y",
        4,
        "more",
        "structural similarity of luma in the field of view (Gaussian window, sigma 1.5, as scikit-image)",
    ),
    "rgb_psnr_db": Figure("PSNR RGB", 2, "more", "PSNR in dB of the three colour channels together, field of view"),
    "rgb_ssim": Figure(
        "SSIM RGB", 4, "more", "structural similarity, mean of the three colour channels, field of view"
    ),
    "whole_psnr_db": Figure("PSNR Y whole", 2, "more", "luma PSNR in dB over the whole frame, the surround included"),
    "lpips_like": Figure(
        "LPIPS-like", 4, "less", "distance of SqueezeNet features, LPIPS v0.1's weights; not proven to be LPIPS"
    ),
    "lr_psnr_db": Figure(
        "PSNR of LR",
        2,
        "more",
        "PSNR in dB of the result's luma, brought down again by antialiased bicubic, against its input's luma",
    ),
    "lr_within_level": Figure(
        "LR within 1",
        4,
        "more",
        "share of the input's pixels whose luma the result, brought down, gives back within a level",
    ),
    "fourier_cutoff": Figure(
        "Fourier cut-off",
        3,
        "more",
        "frequency, of the Nyquist frequency, up to which 64-px patches correlate with the truth",
    ),
    "invented": Figure(
        "invented",
        3,
        "less",
        "power above the input's resolution (outside a circle: diagonals that it did sample count) that is not the "
        "truth's, as a part of the truth's there; adding nothing invents nothing",
    ),
    "found": Figure(
        "found",
        3,
        "more",
        "the counterpart of invented: power there that is the truth's, as a part of it; 1 is the truth, and adding "
        "nothing, noise or detail of the wrong sign finds about nothing",
    ),
    "suspect": Figure(
        "suspect",
        3,
        "less",
        "share of 64-px patches that invent more than half of the truth's power there; the half is a choice",
    ),
    "highlight_psnr_db": Figure("PSNR in spots", 2, "more", "PSNR in dB inside the truth's specular highlights"),
    "ring_psnr_db": Figure("PSNR around", 2, "more", "PSNR in dB in the ring of 8 px around the truth's highlights"),
    "ring_overshoot": Figure(
        "overshoot", 3, "less", "mean of what leaves the truth's range within 2 px, in that ring, in grey levels"
    ),
    "highlight_overlap": Figure("overlap", 3, "more", "highlights of result and truth: intersection over union"),
    "warp_error": Figure(
        "warp error", 3, "less", "mean change of luma along the camera's motion (optical flow), in grey levels"
    ),
    "flicker": Figure("flicker", 3, "less", "mean change of luma where the camera's picture rests, in grey levels"),
    "change_error": Figure(
        "change error", 3, "less", "mean difference between the change of the result and of the truth, in grey levels"
    ),
}
"""Every figure, in the order of the tables."""


@dataclass(frozen=True)
class Truth:
    """A truth, and what is found in it once for all methods.

    Attributes:
        rgb: (H, W, 3) uint8.
        luma: (H, W) uint8 studio range.
        field: (H, W) bool, the field of view.
        highlights: (H, W) bool.
    """

    rgb: Samples
    luma: Samples
    field: NDArray[np.bool_]
    highlights: NDArray[np.bool_]

    @classmethod
    def of(cls, rgb: Samples) -> Truth:
        """Find field of view and highlights of (H, W, 3) uint8 RGB."""
        luma = luma_of(rgb)
        return cls(rgb, luma, field_of_view(luma), find_highlights(rgb))


def figures_of(
    made: Made, lr: Samples, truth: Truth, *, scale: int, distance: LpipsLike | None = None
) -> dict[str, float]:
    """Return the figures of one enlarged picture; those of video are not among them.

    Args:
        made: what is judged.
        lr: (h, w, 3) uint8 RGB that it was made of.
        truth: what it should be.
        scale: enlargement.
        distance: None leaves the perceptual distance out.
    """
    mask = None if truth.field.all() else truth.field
    given = agreement(luma_of(lr), made.luma)  # of RGB networks too, so that one column means one thing
    figures = {
        "luma_psnr_db": _finite(psnr_db(made.luma, truth.luma, mask=mask)),
        "luma_ssim": ssim(made.luma, truth.luma, mask=mask),
        "rgb_psnr_db": _finite(psnr_db(made.rgb, truth.rgb, mask=mask)),
        "rgb_ssim": ssim(made.rgb, truth.rgb, mask=mask),
        "whole_psnr_db": _finite(psnr_db(made.luma, truth.luma)),
        "lr_psnr_db": _finite(given.psnr_db),
        "lr_within_level": given.within_level,
    }
    if distance is not None:
        figures["lpips_like"] = distance_between(distance, in_colour(made.luma, made.rgb), truth.rgb)
    rings = fourier_agreement(made.luma, truth.luma, scale=scale, field=mask)
    if rings is not None:
        names = {"fourier_cutoff": "cutoff", "invented": "invented", "found": "found", "suspect": "suspect"}
        figures |= {name: getattr(rings, each) for name, each in names.items()}
    return figures | _highlight_figures(made, truth)


def _highlight_figures(made: Made, truth: Truth) -> dict[str, float]:
    """Return the figures of reflections; none where the truth has none."""
    if not (truth.highlights & truth.field).any():
        return {}
    masks = {"picture_mask": find_highlights(made.rgb), "truth_mask": truth.highlights}
    spots = measure_highlights(made.rgb, truth.rgb, **masks, field=truth.field)
    if spots is None:
        return {}
    return {
        "highlight_psnr_db": _finite(spots.inside_psnr_db),
        "ring_psnr_db": _finite(spots.ring_psnr_db),
        "ring_overshoot": spots.overshoot,
        "highlight_overlap": spots.overlap,
    }


def _finite(decibels: float) -> float:
    return min(decibels, EQUAL_DB)


def load_distance(squeezenet: Path | None, linear: Path | None) -> LpipsLike | None:
    """Return the perceptual distance of two files, None without them."""
    return LpipsLike.from_files(squeezenet, linear) if squeezenet and linear else None
