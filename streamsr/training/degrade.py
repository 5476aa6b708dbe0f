"""What a camera and a recorder do to a picture, done on the training device a batch at a time.

Every function reads and returns float32 tensors (B, C, H, W) in [0, 1], any device: C = 1 is studio-range luma / 255
(black 16, white 235), C = 3 is full-range RGB. What a stage needs to know of a crop comes as a (B,) float32 tensor,
so every crop of a batch is degraded by itself. All of it may be captured in a CUDA graph: shapes do not depend on the
data, nothing is read back, draws come from the device's default generator, and the constants are made once a device;
run one batch before the capture, as every capture asks, so that they exist. Autocast is switched off inside.

`clean` and `robust` are the two recipes; `h264_frames` is the one step for the host, done once at loading.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from streamsr.errors import InputError, UsageError
from streamsr.training.jpeg import eight_bit, enlarged_chroma, jpeg, rgb_to_ycc, ycc_to_rgb

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from streamsr.training.data import Pair

BLUR_RADIUS_PX = 6
"""Half the Gaussian kernel: three times the widest sigma of 2 px."""

MOTION_RADIUS_PX = 5
"""Half the motion kernel; it holds paths of up to 9 px at any angle."""

STUDIO_BLACK, STUDIO_WHITE = 16 / 255, 235 / 255
"""Ends of 8-bit studio-range luma (ITU-R BT.601-7, 2.5.3)."""


def per_crop(values: Tensor) -> Tensor:
    """Shape one value a crop, (B,), so that it spreads over (B, C, H, W)."""
    return values.view(-1, 1, 1, 1)


def uniform(like: Tensor, low: float, high: float) -> Tensor:
    """Draw one value a crop, (B,) float32 in [low, high), from the device's default generator."""
    return low + (high - low) * torch.rand(like.shape[0], device=like.device)


def sometimes(probability: float, changed: Tensor, unchanged: Tensor) -> Tensor:
    """Take each crop from `changed` with the stated probability, else from `unchanged`."""
    return torch.where(per_crop(uniform(unchanged, 0, 1)) < probability, changed, unchanged)


def full_scale(pictures: Tensor) -> tuple[float, float]:
    """Return what black and the sensor's full scale read: 16 and 235 of 255 on luma, 0 and 1 on RGB."""
    return (STUDIO_BLACK, STUDIO_WHITE) if pictures.shape[1] == 1 else (0.0, 1.0)


def filter_each(pictures: Tensor, kernels: Tensor) -> Tensor:
    """Filter every crop with its own kernel, the border mirrored.

    Args:
        pictures: (B, C, H, W), H and W above half the kernel.
        kernels: (B, kh, kw) float32, odd sides, each summing to one.
    """
    batch, channels, height, width = pictures.shape
    down, across = kernels.shape[1] // 2, kernels.shape[2] // 2
    planes = functional.pad(pictures, (across, across, down, down), mode="reflect")
    weight = kernels.repeat_interleave(channels, dim=0)[:, None]
    with torch.autocast(pictures.device.type, enabled=False):
        planes = functional.conv2d(planes.reshape(1, batch * channels, *planes.shape[2:]), weight, groups=len(weight))
    return planes.view(batch, channels, height, width)


def gaussian_blur(pictures: Tensor, sigma_px: Tensor) -> Tensor:
    """Blur as an optic out of focus does.

    Args:
        pictures: (B, C, H, W), H and W at least 7.
        sigma_px: (B,) in (0, 2]; wider ones are cut off at `BLUR_RADIUS_PX`. The field's range is 0.2 to 2.
    """
    offset = torch.arange(-BLUR_RADIUS_PX, BLUR_RADIUS_PX + 1, device=pictures.device, dtype=torch.float32)
    taps = torch.exp(-0.5 * (offset / sigma_px[:, None]).square())
    taps = taps / taps.sum(1, keepdim=True)
    return filter_each(filter_each(pictures, taps[:, :, None]), taps[:, None, :])


def motion_blur(pictures: Tensor, length_px: Tensor, angle: Tensor) -> Tensor:
    """Blur along a straight path, as a scope that moves during the exposure does.

    Args:
        pictures: (B, C, H, W), H and W at least 6.
        length_px: (B,) length of the path, 1 (none but for resampling at odd angles) to 9.
        angle: (B,) its direction in radians.
    """
    offset = torch.arange(-MOTION_RADIUS_PX, MOTION_RADIUS_PX + 1, device=pictures.device, dtype=torch.float32)
    down, across = offset[None, :, None], offset[None, None, :]
    cosine, sine = torch.cos(angle)[:, None, None], torch.sin(angle)[:, None, None]
    along, beside = across * cosine + down * sine, down * cosine - across * sine
    reach = ((length_px[:, None, None] + 1) / 2 - along.abs()).clamp(0, 1)
    path = reach * (1 - beside.abs()).clamp(min=0)
    return filter_each(pictures, path / path.sum((1, 2), keepdim=True))


def bicubic_down(pictures: Tensor, scale: int) -> Tensor:
    """Bring down by the antialiased bicubic filter (Keys 1981, a = -0.5), which is PIL's; overshoots, not rounded."""
    size = (pictures.shape[2] // scale, pictures.shape[3] // scale)
    return functional.interpolate(pictures, size, mode="bicubic", antialias=True)


def area_down(pictures: Tensor, scale: int) -> Tensor:
    """Bring down by the mean of every scale x scale square, as a larger sensor cell does."""
    return functional.avg_pool2d(pictures, scale)


def brighten_highlights(pictures: Tensor, gain: Tensor) -> Tensor:
    """Give clipped highlights back some of the light that the sensor could not hold.

    What stands above 90 % of full scale is raised linearly, full scale itself to `gain` times full scale. Blurred,
    brought down and clipped again (`clip_highlights`) a reflection then blooms with a hard edge, as on a real sensor,
    while everything darker keeps its level; so the truth need not change.

    Args:
        pictures: (B, C, H, W).
        gain: (B,) at least 1.

    Returns:
        (B, C, H, W), up to `gain` times full scale.
    """
    black, full = full_scale(pictures)
    knee = black + 0.9 * (full - black)
    above = (pictures - knee).clamp(0, full - knee) / (full - knee)
    return pictures + above * (per_crop(gain) - 1) * (full - black)


def clip_highlights(pictures: Tensor, gain: Tensor | None = None) -> Tensor:
    """Expose by a gain above black and clip at the sensor's full scale (235 on luma, 255 on RGB).

    With a gain other than 1 the level of everything changes: give the truth the same one.

    Args:
        pictures: (B, C, H, W), may lie above 1.
        gain: (B,); 1 when None.
    """
    black, full = full_scale(pictures)
    exposed = pictures if gain is None else black + (pictures - black) * per_crop(gain)
    return exposed.clamp(0, full)


def sensor_noise(pictures: Tensor, shot: Tensor, read: Tensor, banding: Tensor | None = None) -> Tensor:
    """Add a sensor's noise: variance shot^2 * signal + read^2 (Poisson-Gauss in its normal form, Foi et al. 2008).

    Args:
        pictures: (B, C, H, W).
        shot: (B,) standard deviation of the photon noise at full scale, of 1.
        read: (B,) standard deviation of the read-out noise, of 1.
        banding: (B,) standard deviation of what is added to whole rows, of 1; none when None.
    """
    black, full = full_scale(pictures)
    signal = ((pictures - black) / (full - black)).clamp(0, 1)
    deviation = (per_crop(shot.square()) * signal + per_crop(read.square())).sqrt()
    noisy = pictures + deviation * torch.randn_like(pictures)
    if banding is not None:
        rows = torch.randn(pictures.shape[0], 1, pictures.shape[2], 1, device=pictures.device)
        noisy = noisy + per_crop(banding) * rows
    return noisy.clamp(0, 1)


def chroma_420(pictures: Tensor) -> Tensor:
    """Halve chroma both ways by the mean of 2x2 and bring it back bilinearly; luma pictures stay as they are."""
    if pictures.shape[1] == 1:
        return pictures
    ycc = rgb_to_ycc(pictures)
    return ycc_to_rgb(torch.cat((ycc[:, :1], enlarged_chroma(functional.avg_pool2d(ycc[:, 1:], 2))), dim=1))


@dataclass(frozen=True)
class RobustSettings:
    """How often and how strongly `robust` degrades.

    The ranges of blur, JPEG and chroma are those that surveys of endoscopic super-resolution name (sigma 0.2 to 2,
    quality 40 to 95, 4:2:0). The noise, motion and highlight ranges are a choice, made by eye: no source gives them.

    Attributes:
        clean: share of crops that are only brought down and rounded, so that clean input is not forgotten.
        blur: how often the optic blurs; sigma_px: its range in high-resolution pixels.
        motion: how often the scope moves; motion_px: path in high-resolution pixels.
        highlights: how often reflections bloom; highlight_gain: their light, of full scale.
        area: how often the area filter replaces the bicubic one.
        noise: how often the sensor adds noise; shot_levels, read_levels, banding_levels: ranges of the standard
            deviations in grey levels of 255, see `sensor_noise`.
        chroma: how often chroma is halved (RGB only).
        jpeg: how often JPEG codes; quality: its range, both ends included.
    """

    clean: float = 0.25
    blur: float = 0.6
    sigma_px: tuple[float, float] = (0.2, 2.0)
    motion: float = 0.15
    motion_px: tuple[float, float] = (1.0, 9.0)
    highlights: float = 0.3
    highlight_gain: tuple[float, float] = (1.0, 2.0)
    area: float = 0.3
    noise: float = 0.6
    shot_levels: tuple[float, float] = (0.0, 6.0)
    read_levels: tuple[float, float] = (0.0, 3.0)
    banding_levels: tuple[float, float] = (0.0, 1.0)
    chroma: float = 0.8
    jpeg: float = 0.75
    quality: tuple[int, int] = (40, 95)


ROBUST = RobustSettings()
"""The settings a robust run takes when it states none."""


@torch.no_grad()
def clean(hr: Tensor, scale: int) -> Tensor:
    """Bring truth down as the field's benchmarks do: bicubic, rounded to 8 bits.

    Args:
        hr: (B, C, scale * H, scale * W) float32 in [0, 1], C 1 or 3.
        scale: how far.

    Returns:
        (B, C, H, W) float32 in [0, 1], on 256 levels.
    """
    return eight_bit(bicubic_down(hr, scale))


@torch.no_grad()
def robust(hr: Tensor, scale: int, settings: RobustSettings = ROBUST) -> Tensor:
    """Bring truth down as an endoscope and its recorder might, every crop by a chain of its own.

    Bloom, blur, motion -> bicubic or area -> clipping -> noise -> 4:2:0 -> JPEG -> 8 bits; each stage on a crop with
    its probability. See `clean` for the shapes; sides divisible by 2 * scale for RGB.
    """
    radiance = optics(hr, settings)
    lr = clip_highlights(sometimes(settings.area, area_down(radiance, scale), bicubic_down(radiance, scale)))
    return sometimes(settings.clean, clean(hr, scale), eight_bit(recorded(lr, settings)))


def degraded(pairs: list[Pair], scale: int) -> list[Pair]:
    """Return pairs whose reduced pictures are those of `robust`, a frame's place in the list being its seed."""
    made = []
    with torch.random.fork_rng(devices=[]):
        for seed, pair in enumerate(pairs):
            torch.manual_seed(seed)
            hr = torch.from_numpy(pair.hr).float() / 255
            lr = robust(hr[None, None] if hr.ndim == 2 else hr.permute(2, 0, 1)[None], scale)[0] * 255
            shown = lr.round().to(torch.uint8)
            made.append(replace(pair, lr=(shown[0] if hr.ndim == 2 else shown.permute(1, 2, 0)).contiguous().numpy()))
    return made


def optics(hr: Tensor, settings: RobustSettings) -> Tensor:
    """Bloom, blur and move each crop with its probability; see `robust`."""
    bright = sometimes(settings.highlights, brighten_highlights(hr, uniform(hr, *settings.highlight_gain)), hr)
    blurred = sometimes(settings.blur, gaussian_blur(bright, uniform(hr, *settings.sigma_px)), bright)
    moved = motion_blur(blurred, uniform(hr, *settings.motion_px), uniform(hr, 0.0, math.pi))
    return sometimes(settings.motion, moved, blurred)


def recorded(lr: Tensor, settings: RobustSettings) -> Tensor:
    """Add noise, halve chroma and code each crop with its probability; see `robust`."""
    shot, read, banding = (
        uniform(lr, *levels) / 255 for levels in (settings.shot_levels, settings.read_levels, settings.banding_levels)
    )
    lr = sometimes(settings.noise, sensor_noise(lr, shot, read, banding), lr)
    lr = sometimes(settings.chroma, chroma_420(lr), lr)
    low, high = settings.quality
    return sometimes(settings.jpeg, jpeg(lr, torch.floor(uniform(lr, low, high + 1))), lr)


def h264_frames(
    frames: list[NDArray[np.uint8]], *, crf: int, keyframe_every: int = 25, preset: str = "medium"
) -> list[NDArray[np.uint8]]:
    """Code pictures as H.264 video (x264) and decode them again, on the host, once at loading.

    Pictures are coded in the order given; neighbours in time give the blur and blocks that motion compensation
    leaves, unrelated stills should pass ``keyframe_every=1``. One thread, so the same input gives the same output.

    Args:
        frames: all of one size: (H, W) studio-range luma planes or (H, W, 3) RGB; RGB is coded as 4:2:0.
        crf: x264's constant rate factor, 0 (lossless luma) to 51; 18 to 32 is what recorders use.
        keyframe_every: frames from one keyframe to the next.
        preset: x264's preset.

    Returns:
        As many pictures, same order, same size.

    Raises:
        UsageError: the pictures are not of one size, or the factor is out of range.
        InputError: the decoder returned another number of pictures.
    """
    if not 0 <= crf <= 51 or len({frame.shape for frame in frames}) > 1:
        sizes = sorted({frame.shape for frame in frames})
        raise UsageError(
            f"expected pictures of one size and a CRF of 0 to 51, got {sizes} and {crf}; sort them by size"
        )
    if not frames:
        return []
    packets = _encoded(frames, {"crf": str(crf), "preset": preset, "threads": "1"}, keyframe_every)
    decoded = [_to_array(frame, frames[0]) for frame in _decoded(packets)]
    if len(decoded) != len(frames):
        raise InputError(f"expected {len(frames)} decoded pictures, got {len(decoded)}; update PyAV")
    return decoded


def _encoded(frames: list[NDArray[np.uint8]], options: dict[str, str], keyframe_every: int) -> list[Any]:
    import av

    height, width = (side + side % 2 for side in frames[0].shape[:2])
    encoder: Any = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
    encoder.time_base, encoder.options, encoder.gop_size = Fraction(1, 25), options, keyframe_every
    packets = []
    for number, frame in enumerate(frames):
        picture = _to_picture(frame)
        picture.pts, picture.time_base = number, encoder.time_base
        packets += encoder.encode(picture)
    return packets + list(encoder.encode(None))


def _decoded(packets: list[Any]) -> list[Any]:
    import av

    decoder: Any = av.CodecContext.create("h264", "r")
    decoder.thread_count = 1
    return [frame for packet in [*packets, None] for frame in decoder.decode(packet)]


def _to_picture(frame: NDArray[np.uint8]) -> Any:
    import av
    import numpy as np

    height, width = frame.shape[:2]
    even = np.pad(frame, ((0, height % 2), (0, width % 2), *[(0, 0)] * (frame.ndim - 2)), mode="edge")
    if frame.ndim == 3:
        return av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24").reformat(format="yuv420p")
    chroma = np.full((even.shape[0] // 2, even.shape[1]), 128, np.uint8)
    return av.VideoFrame.from_ndarray(np.concatenate((even, chroma)), format="yuv420p")


def _to_array(decoded: Any, like: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = like.shape[:2]
    samples: NDArray[np.uint8] = decoded.to_ndarray(format="rgb24" if like.ndim == 3 else "yuv420p")
    cut: NDArray[np.uint8] = samples[:height, :width].copy()
    return cut
