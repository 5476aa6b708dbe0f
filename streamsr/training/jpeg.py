"""JPEG on the training device: what its quantisation leaves of a batch of pictures, crop by crop.

Tensors are float32 (B, C, H, W) in [0, 1]; what `streamsr.training.degrade` says of CUDA graphs holds here as well.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

# ITU-T T.81 (JPEG), Annex K.1, tables K.1 and K.2, row by row.
LUMA_TABLE = (
    *(16, 11, 10, 16, 24, 40, 51, 61),
    *(12, 12, 14, 19, 26, 58, 60, 55),
    *(14, 13, 16, 24, 40, 57, 69, 56),
    *(14, 17, 22, 29, 51, 87, 80, 62),
    *(18, 22, 37, 56, 68, 109, 103, 77),
    *(24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101),
    *(72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMA_TABLE = (
    *(17, 18, 24, 47, 99, 99, 99, 99),
    *(18, 21, 26, 66, 99, 99, 99, 99),
    *(24, 26, 56, 99, 99, 99, 99, 99),
    *(47, 66, 99, 99, 99, 99, 99, 99),
    *(99, 99, 99, 99, 99, 99, 99, 99),
    *(99, 99, 99, 99, 99, 99, 99, 99),
    *(99, 99, 99, 99, 99, 99, 99, 99),
    *(99, 99, 99, 99, 99, 99, 99, 99),
)


@dataclass(frozen=True)
class JpegConstants:
    """What JPEG needs on a device.

    Attributes:
        dct: (64, 64) float32, the two-dimensional 8x8 cosine transform of a block read row by row; orthonormal.
        luma: (64,) float32, table K.1.
        chroma: (64,) float32, table K.2.
    """

    dct: Tensor
    luma: Tensor
    chroma: Tensor


@functools.cache
def jpeg_constants(device: torch.device) -> JpegConstants:
    """Make the tables and the transform (T.81, A.3.3) of a device once."""
    order = torch.arange(8, dtype=torch.float64)
    cosine = torch.cos((2 * order[None, :] + 1) * order[:, None] * math.pi / 16) / 2
    cosine[0] /= math.sqrt(2)
    tables = (torch.tensor(table, dtype=torch.float32, device=device) for table in (LUMA_TABLE, CHROMA_TABLE))
    return JpegConstants(torch.kron(cosine, cosine).to(device, torch.float32), *tables)


def rgb_to_ycc(rgb: Tensor) -> Tensor:
    """Turn full-range RGB into full-range YCbCr, chroma around 128/255 (JFIF 1.02, page 3; BT.601 weights)."""
    red, green, blue = rgb.unbind(1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    return torch.stack((luma, (blue - luma) / 1.772 + 128 / 255, (red - luma) / 1.402 + 128 / 255), dim=1)


def ycc_to_rgb(ycc: Tensor) -> Tensor:
    """Invert `rgb_to_ycc`; clamped to [0, 1]."""
    luma, blueness, redness = ycc[:, 0], ycc[:, 1] - 128 / 255, ycc[:, 2] - 128 / 255
    red, blue = luma + 1.402 * redness, luma + 1.772 * blueness
    green = (luma - 0.299 * red - 0.114 * blue) / 0.587
    return torch.stack((red, green, blue), dim=1).clamp(0, 1)


def enlarged_chroma(chroma: Tensor) -> Tensor:
    """Double chroma bilinearly, centred as JFIF sites it (libjpeg's "fancy upsampling")."""
    return functional.interpolate(chroma, scale_factor=2, mode="bilinear", align_corners=False)


def scaled_table(table: Tensor, quality: Tensor) -> Tensor:
    """Scale a quantisation table to a quality as the Independent JPEG Group does (libjpeg, jcparam.c).

    Args:
        table: (64,) of Annex K.
        quality: (B,) whole numbers 1 to 100.

    Returns:
        (B, 64) whole numbers 1 to 255.
    """
    percent = torch.where(quality < 50, torch.floor(5000 / quality), 200 - 2 * quality)
    return torch.floor((table * percent[:, None] + 50) / 100).clamp(1, 255)


def quantise_blocks(planes: Tensor, table: Tensor) -> Tensor:
    """Code planes by 8x8 blocks and decode them again, sides padded by their last samples to multiples of 8.

    Args:
        planes: (B, C, H, W) in [0, 1].
        table: (B, 64), the steps of each crop.
    """
    batch, channels, height, width = planes.shape
    padded = functional.pad(planes, (0, -width % 8, 0, -height % 8), mode="replicate")
    down, across = padded.shape[2] // 8, padded.shape[3] // 8
    dct = jpeg_constants(planes.device).dct
    with torch.autocast(planes.device.type, enabled=False):
        blocks = padded.view(batch, channels, down, 8, across, 8).transpose(3, 4).reshape(batch, -1, 64)
        levels = torch.round((blocks * 255 - 128) @ dct.T / table[:, None])
        decoded = (levels * table[:, None]) @ dct
    decoded = decoded.view(batch, channels, down, across, 8, 8).transpose(3, 4).reshape(padded.shape)
    return eight_bit((decoded + 128) / 255)[:, :, :height, :width]


def jpeg(pictures: Tensor, quality: Tensor) -> Tensor:
    """Code as baseline JPEG and decode again: Annex K tables, 8x8 cosine transform, 8-bit samples.

    Luma is coded as a grey picture; RGB goes through full-range YCbCr with 4:2:0 chroma. Entropy coding loses nothing
    and is left out.

    Args:
        pictures: (B, C, H, W); even sides for RGB.
        quality: (B,) float32, whole numbers 1 to 100.
    """
    constants = jpeg_constants(pictures.device)
    if pictures.shape[1] == 1:
        return quantise_blocks(eight_bit(pictures), scaled_table(constants.luma, quality))
    ycc = eight_bit(rgb_to_ycc(eight_bit(pictures)))
    chroma = eight_bit(functional.avg_pool2d(ycc[:, 1:], 2))
    luma = quantise_blocks(ycc[:, :1], scaled_table(constants.luma, quality))
    chroma = quantise_blocks(chroma, scaled_table(constants.chroma, quality))
    return eight_bit(ycc_to_rgb(torch.cat((luma, enlarged_chroma(chroma)), dim=1)))


def eight_bit(pictures: Tensor) -> Tensor:
    """Round to the nearest of 256 levels; stays float32 in [0, 1]."""
    return torch.round(pictures.clamp(0, 1) * 255) / 255
