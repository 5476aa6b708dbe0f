"""What the ``cuda`` runtime computes besides cuDNN's convolutions: a Triton kernel each, or torch where it is missing.

All feature maps here are (N, H, W, C), C-contiguous. Nothing here waits for the device, and all of it may be captured
in a CUDA graph once it has run before.
"""

from __future__ import annotations

import os
from contextlib import nullcontext
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from streamsr.runtimes.gpu_faults import is_gpu_fault

BLOCK = 1024
"""Samples a program of an elementwise kernel."""


TRITON_REMEDY = "pip install triton, and install a C compiler and Python's headers (Debian: gcc, python3-dev)"
"""What Triton needs besides a GPU: it compiles what launches its kernels with the machine's own compiler."""


@cache
def triton_fault(device: torch.device) -> str:
    """Return why Triton cannot run kernels on a device, in one line; empty where it can.

    One small kernel is launched and its result read, once a device: Triton looks for its C compiler, and learns whether
    it knows the GPU, no earlier. On the CPU that is its interpreter.

    Raises:
        RuntimeError: the GPU itself failed.
    """
    if find_spec("triton") is None:
        return "Triton is not installed"
    values = torch.tensor([-2.0, 0.0, 4.0, 1.0], device=device)
    bias = torch.tensor([1.0, 1.0], device=device)
    try:
        with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
            kernels().bias_activation[(1,)](
                values, bias, values, 0.5, values.numel(), channels=2, has_prelu=True, has_residual=False, block=16
            )
        found = values.tolist()
    except CalledProcessError as cause:
        return f"Triton cannot launch a kernel: {Path(cause.cmd[0]).name} ended with {cause.returncode}"
    except Exception as cause:  # its compiler, its driver and the C compiler refuse in their own ways
        bias.tolist()  # raises where the GPU failed, and not Triton on it
        if "out of memory" in str(cause) or (is_gpu_fault(cause) and "Triton Error" not in str(cause)):
            raise
        return f"Triton cannot launch a kernel: {' '.join(str(cause).split())[:200] or type(cause).__name__}"
    return "" if found == [-0.5, 1.0, 5.0, 2.0] else f"Triton's kernels compute wrongly here: got {found}"


def interpreted() -> bool:
    """Whether Triton runs its kernels in its interpreter, on the CPU."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def uses_triton(tensor: Tensor) -> bool:
    """Whether kernels that read a tensor run in Triton, whose first use on a device may not be captured in a graph."""
    return (tensor.is_cuda or interpreted()) and not triton_fault(tensor.device)


def kernels() -> Any:
    """Return the room of the Triton kernels, which is imported where Triton is."""
    from streamsr.runtimes import gpu_kernels

    return gpu_kernels


def first_layer(samples: Tensor, weight: Tensor, bias: Tensor, *, dtype: torch.dtype) -> Tensor:
    """Convolve one channel of samples, add bias, apply ReLU.

    Args:
        samples: (N, 1, H, W) uint8, or float32 in [0, 1]; contiguous.
        weight: (9, C) float32, for samples in [0, 1].
        bias: (C,) float32.
        dtype: of the result.

    Returns:
        (N, H, W, C) of ``dtype``.
    """
    num, _, height, width = samples.shape
    channels = weight.shape[1]
    if not uses_triton(samples):
        real = samples.to(dtype) / 255 if samples.dtype == torch.uint8 else samples.to(dtype)
        kernel = weight.T.reshape(channels, 1, 3, 3).to(dtype)
        made = functional.relu_(functional.conv2d(real, kernel, bias.to(dtype), padding=1))
        return made.permute(0, 2, 3, 1).contiguous()
    out = torch.empty((num, height, width, channels), dtype=dtype, device=samples.device)
    gain = 1.0 / 255.0 if samples.dtype == torch.uint8 else 1.0
    block_c = 1 << (channels - 1).bit_length()
    block_px = max(4096 // block_c, 16)
    grid = (-(-height * width // block_px) * num,)
    kernels().first_layer[grid](
        samples, weight, bias, out, height, width, gain, channels=channels, block_c=block_c, block_px=block_px
    )
    return out


def finish_student(residual: Tensor, samples: Tensor, taps: Tensor, out: Tensor, *, scale: int) -> None:
    """Add the bilinear skip to a student's last layer, shuffle the phases into place, and round 8-bit samples.

    Args:
        residual: (N, H, W, scale * scale) in units of 1.0.
        samples: (N, 1, H, W) uint8, or float32 in [0, 1]; contiguous.
        taps: (scale * scale, 1, 3, 3) float32, `streamsr.models.student.bilinear_taps`.
        out: (N, 1, scale * H, scale * W), contiguous, written: uint8 rounded half to even and clamped, or float32.
        scale: 2 or 4.
    """
    num, _, height, width = samples.shape
    levels = out.dtype == torch.uint8
    if not uses_triton(samples):
        real = samples.float() if samples.dtype == torch.uint8 else samples
        unit = 255.0 if levels else 1.0
        skip = functional.conv2d(functional.pad(real, (1, 1, 1, 1), mode="replicate"), taps.to(real.dtype))
        if samples.dtype == torch.uint8 and not levels:
            skip = skip / 255
        total = skip + residual.permute(0, 3, 1, 2).to(real.dtype) * unit
        total = total.round_().clamp_(0, 255) if levels else total
        out.copy_(functional.pixel_shuffle(total, scale))
        return
    peak = 255.0 if levels else 1.0
    gain = peak / 255.0 if samples.dtype == torch.uint8 else peak
    block_px = 256 if scale == 2 else 64
    grid = (-(-height * width // block_px) * num,)
    kernels().finish_student[grid](
        residual,
        samples,
        taps,
        out,
        height,
        width,
        gain,
        peak,
        scale=scale,
        as_levels=levels,
        block_px=block_px,
    )


def bias_activation_(
    features: Tensor, bias: Tensor, slope: float | None = None, residual: Tensor | None = None
) -> None:
    """Add a bias, apply PReLU, add a residual, in place.

    Args:
        features: (N, H, W, C), changed.
        bias: (C,) float32.
        slope: of PReLU below zero; None for no activation.
        residual: as features; added last.
    """
    if not uses_triton(features):
        features.add_(bias.to(features.dtype))
        if slope is not None:
            features.copy_(functional.leaky_relu(features, slope))
        if residual is not None:
            features.add_(residual)
        return
    num = features.numel()
    kernels().bias_activation[(-(-num // BLOCK),)](
        features,
        bias,
        features if residual is None else residual,
        1.0 if slope is None else slope,
        num,
        channels=features.shape[-1],
        has_prelu=slope is not None,
        has_residual=residual is not None,
        block=BLOCK,
    )


def bias_prelu_shuffle(features: Tensor, bias: Tensor, slope: float) -> Tensor:
    """Add a bias, apply PReLU, shuffle pixels by two.

    Args:
        features: (N, H, W, 4 * C), channels as (row parity, column parity, channel).
        bias: (4 * C,) float32, in the same order.
        slope: of PReLU below zero.

    Returns:
        (N, 2 * H, 2 * W, C).
    """
    num, height, width, parts = features.shape
    channels = parts // 4
    if not uses_triton(features):
        made = functional.leaky_relu(features + bias.to(features.dtype), slope)
        made = made.view(num, height, width, 2, 2, channels).permute(0, 1, 3, 2, 4, 5)
        return made.reshape(num, 2 * height, 2 * width, channels)
    out = torch.empty((num, 2 * height, 2 * width, channels), dtype=features.dtype, device=features.device)
    total = features.numel()
    kernels().bias_prelu_shuffle[(-(-total // BLOCK),)](
        features, bias, out, slope, total, width, channels=channels, block=BLOCK
    )
    return out


def interleave(pictures: Tensor, *, dtype: torch.dtype) -> Tensor:
    """Return (N, H, W, C) of pictures, in [0, 1].

    Args:
        pictures: (N, C, H, W) uint8, or float32 in [0, 1]; contiguous.
        dtype: of the result.
    """
    if not uses_triton(pictures):
        features = pictures.permute(0, 2, 3, 1).to(dtype, memory_format=torch.contiguous_format)
        return features.div_(255) if pictures.dtype == torch.uint8 else features.contiguous()
    num, channels, height, width = pictures.shape
    out = torch.empty((num, height, width, channels), dtype=dtype, device=pictures.device)
    gain = 1.0 / 255.0 if pictures.dtype == torch.uint8 else 1.0
    grid = (-(-height * width * channels // BLOCK) * num,)
    kernels().interleave[grid](pictures, out, height * width, gain, channels=channels, block=BLOCK)
    return out


def write_phases(phases: Tensor, out: Tensor) -> None:
    """Shuffle pixels by two and write them, rounded to 8-bit levels where ``out`` is uint8.

    Args:
        phases: (N, H, W, 4 * C), channels as (channel, row parity, column parity).
        out: (N, C, 2 * H, 2 * W) uint8 or float32, contiguous, written.
    """
    num, height, width, parts = phases.shape
    levels = out.dtype == torch.uint8
    if not uses_triton(phases):
        phases = phases.float().mul_(255).round_().clamp_(0, 255) if levels else phases
        planes = phases.view(num, height, width, parts // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
        out.view(num, parts // 4, height, 2, width, 2).copy_(planes)
        return
    block = BLOCK // 2
    kernels().write_phases[(-(-width // block) * height * num,)](
        phases,
        out,
        height,
        width,
        255.0 if levels else 1.0,
        channels=parts // 4,
        as_levels=levels,
        block=block,
    )


def convolve_3x3(
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    tile: tuple[int, int, int, int],
    relu: bool = False,
    slope: float | None = None,
    residual: Tensor | None = None,
    shuffle: bool = False,
) -> Tensor:
    """Convolve 3x3 in one Triton kernel with everything that follows.

    Args:
        features: (N, H, W, inputs), half precision; inputs a multiple of 16.
        weight: (9, inputs, outputs) of the same dtype.
        bias: (outputs,) float32.
        tile: rows and columns of pixels a program, pipeline depth, warps.
        relu: whether ReLU follows.
        slope: of the PReLU that follows; None for none.
        residual: of the shape of the result; added last.
        shuffle: whether pixels are shuffled by two; outputs as `bias_prelu_shuffle` reads them.

    Returns:
        (N, H, W, outputs), or (N, 2 * H, 2 * W, outputs / 4), of the dtype of features.
    """
    num, height, width, inputs = features.shape
    outputs = weight.shape[2]
    shape = (num, 2 * height, 2 * width, outputs // 4) if shuffle else (num, height, width, outputs)
    out = torch.empty(shape, dtype=features.dtype, device=features.device)
    block_h, block_w, depth, warps = tile
    part = outputs // 4 if shuffle else outputs
    block_n = min(max(1 << (part - 1).bit_length(), 16), 64)
    block_k = next(size for size in (64, 32, 16) if inputs % size == 0)
    grid = (-(-height // block_h) * -(-width // block_w) * -(-outputs // block_n) * num,)
    kernels().convolve_3x3[grid](
        features,
        weight,
        bias,
        features if residual is None else residual,
        out,
        1.0 if slope is None else slope,
        height,
        width,
        inputs=inputs,
        outputs=outputs,
        activation=1 if relu else 0 if slope is None else 2,
        has_residual=residual is not None,
        shuffle=shuffle,
        block_h=block_h,
        block_w=block_w,
        block_n=block_n,
        block_k=block_k,
        num_steps=9 * (inputs // block_k),
        depth=depth,
        num_warps=warps,
    )
    return out
