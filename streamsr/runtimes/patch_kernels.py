# mypy: ignore-errors
"""Triton kernels that compare, cut and stitch patches; `patch_ops` holds the typed calls and what runs without Triton.

Patches are numbered as in `streamsr.patches`: a window that would leave the frame is shifted back inside.
Grids lie on their first axis alone: the others end at 65,535, and a 4K frame has 129,600 patches of 8 pixels.
"""

from __future__ import annotations

try:
    import triton
    import triton.language as tl
except ImportError:  # without Triton the module can be read but its kernels are never called; see `gpu_ops`
    from types import SimpleNamespace

    triton = SimpleNamespace(jit=lambda kernel: kernel)


@triton.jit
def window_start(number, core_px, halo_px, side, window):
    """Return where the window of a row or column of patches starts."""
    return tl.minimum(tl.maximum(number * core_px - halo_px, 0), side - window)


@triton.jit
def compare_windows(
    now,
    before,
    mask,
    columns,
    core_px,
    halo_px,
    height,
    width,
    tall,
    wide,
    plane_height,
    plane_width,
    shift_y,
    shift_x,
    margin,
    joins: tl.constexpr,
    num_steps: tl.constexpr,
    block: tl.constexpr,
):
    """Write 1 for each patch in whose window two planes differ, else 0; with ``joins``, leave a 1 that is there.

    Sizes and windows are those of the frame; a plane of chroma is that much smaller, and ``margin`` of its samples
    round the window count too. ``num_steps`` blocks hold the largest window.
    """
    index = tl.program_id(0)
    top = window_start(index // columns, core_px, halo_px, height, tall)
    left = window_start(index % columns, core_px, halo_px, width, wide)
    first_row = tl.maximum((top >> shift_y) - margin, 0)
    first_column = tl.maximum((left >> shift_x) - margin, 0)
    rows = tl.minimum(((top + tall - 1) >> shift_y) + margin + 1, plane_height) - first_row
    span = tl.minimum(((left + wide - 1) >> shift_x) + margin + 1, plane_width) - first_column
    differs = tl.zeros((block,), tl.int32)
    for step in range(num_steps):
        place = step * block + tl.arange(0, block)
        known = place < rows * span
        sample = (first_row + place // span) * plane_width + first_column + place % span
        one = tl.load(now + sample, mask=known, other=0)
        other = tl.load(before + sample, mask=known, other=0)
        differs = differs | (one != other).to(tl.int32)
    found = tl.max(differs, axis=0)
    if joins:
        found = tl.maximum(found, tl.load(mask + index).to(tl.int32))
    tl.store(mask + index, found.to(mask.dtype.element_ty))


@triton.jit
def cut_windows(
    picture,
    indices,
    out,
    columns,
    core_px,
    halo_px,
    height,
    width,
    tall,
    wide,
    channels,
    block: tl.constexpr,
):
    """Copy the windows of some patches of a (C, H, W) picture into a batch."""
    blocks = tl.cdiv(tall * wide, block)
    place = (tl.program_id(0) % blocks) * block + tl.arange(0, block)
    channel = (tl.program_id(0) // blocks % channels).to(tl.int64)
    number = (tl.program_id(0) // blocks // channels).to(tl.int64)
    index = tl.load(indices + number)
    top = window_start(index // columns, core_px, halo_px, height, tall)
    left = window_start(index % columns, core_px, halo_px, width, wide)
    known = place < tall * wide
    source = picture + channel * height * width + top * width + left
    value = tl.load(source + (place // wide) * width + place % wide, mask=known, other=0)
    tl.store(out + (number * channels + channel) * tall * wide + place, value, mask=known)


@triton.jit
def stitch_cores(
    outputs,
    indices,
    picture,
    columns,
    core_px,
    halo_px,
    height,
    width,
    tall,
    wide,
    channels,
    scale: tl.constexpr,
    block: tl.constexpr,
):
    """Copy the enlarged cores of a batch into a (C, scale * H, scale * W) picture."""
    core_tall = tl.minimum(core_px, height)
    core_wide = tl.minimum(core_px, width)
    blocks = tl.cdiv(core_tall * scale * core_wide * scale, block)
    place = (tl.program_id(0) % blocks) * block + tl.arange(0, block)
    channel = (tl.program_id(0) // blocks % channels).to(tl.int64)
    number = (tl.program_id(0) // blocks // channels).to(tl.int64)
    index = tl.load(indices + number)
    core_top = (index // columns) * core_px
    core_left = (index % columns) * core_px
    top = window_start(index // columns, core_px, halo_px, height, tall)
    left = window_start(index % columns, core_px, halo_px, width, wide)
    y = place // (core_wide * scale)
    x = place % (core_wide * scale)
    known = (y < (tl.minimum(core_top + core_tall, height) - core_top) * scale) & (
        x < (tl.minimum(core_left + core_wide, width) - core_left) * scale
    )
    source = ((number * channels + channel) * tall + core_top - top) * scale * (wide * scale)
    value = tl.load(outputs + source + (core_left - left) * scale + y * (wide * scale) + x, mask=known, other=0)
    target = (channel * height + core_top) * scale * (width * scale)
    tl.store(picture + target + core_left * scale + y * (width * scale) + x, value, mask=known)
