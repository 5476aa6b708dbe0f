# mypy: ignore-errors
"""Triton kernels on planes: levels, resampling, RGB and back, the projection's corrections; `plane_ops` calls them.

With ``TRITON_INTERPRET=1`` all of it runs on the CPU. Where a row or a program's samples begin is counted in 64 bits.
"""

from __future__ import annotations

from streamsr.runtimes.gpu_kernels import rounded_level

try:
    import triton
    import triton.language as tl
except ImportError:  # without Triton the module can be read but its kernels are never called; see `gpu_ops`
    from types import SimpleNamespace

    triton = SimpleNamespace(jit=lambda kernel: kernel)


@triton.jit
def levels_of(samples, words: tl.constexpr):
    """Return loaded samples as float32; 16-bit ones hold the bits of uint16."""
    if words:
        samples = samples.to(tl.int32) & 0xFFFF
    return samples.to(tl.float32)


@triton.jit
def read_levels(samples, out, num, gain, words: tl.constexpr, block: tl.constexpr):
    """Write levels as float32, times a gain."""
    first = tl.program_id(0).to(tl.int64) * block
    place = tl.arange(0, block)
    known = place < tl.minimum(num - first, block).to(tl.int32)
    value = levels_of(tl.load(samples + first + place, mask=known, other=0), words)
    tl.store(out + first + place, value * gain, mask=known)


@triton.jit
def write_levels(real, out, num, gain, peak, block: tl.constexpr):
    """Write float32 times a gain as levels, rounded half to even and clamped."""
    first = tl.program_id(0).to(tl.int64) * block
    place = tl.arange(0, block)
    known = place < tl.minimum(num - first, block).to(tl.int32)
    value = tl.load(real + first + place, mask=known, other=0.0)
    level = rounded_level(value * gain, peak).to(tl.int32)
    tl.store(out + first + place, level.to(out.dtype.element_ty), mask=known)


@triton.jit
def sum_of_taps(
    plane,
    row_first,
    row_weights,
    column_first,
    column_weights,
    y,
    x,
    tall,
    wide,
    in_height,
    in_width,
    words: tl.constexpr,
    row_taps: tl.constexpr,
    column_taps: tl.constexpr,
    block_h: tl.constexpr,
    block_w: tl.constexpr,
):
    """Return (block_h, block_w) sums of some taps along each axis of a plane, edges repeated."""
    top = tl.load(row_first + y, mask=tall, other=0)
    left = tl.load(column_first + x, mask=wide, other=0)
    total = tl.zeros((block_h, block_w), tl.float32)
    for i in range(row_taps):
        row = tl.minimum(tl.maximum(top + i, 0), in_height - 1).to(tl.int64)
        line = tl.zeros((block_h, block_w), tl.float32)
        for j in tl.range(0, column_taps, loop_unroll_factor=4):
            column = tl.minimum(tl.maximum(left + j, 0), in_width - 1)
            value = levels_of(tl.load(plane + (row * in_width)[:, None] + column[None, :]), words)
            weight = tl.load(column_weights + x * column_taps + j, mask=wide, other=0.0)
            line += value * weight[None, :]
        total += line * tl.load(row_weights + y * row_taps + i, mask=tall, other=0.0)[:, None]
    return total


@triton.jit
def resample(
    source,
    base,
    out,
    row_first,
    row_weights,
    column_first,
    column_weights,
    in_height,
    in_width,
    out_height,
    out_width,
    peak,
    unit,
    slack,
    most,
    low,
    high,
    from_words: tl.constexpr,
    base_words: tl.constexpr,
    ending: tl.constexpr,
    as_levels: tl.constexpr,
    has_limits: tl.constexpr,
    row_taps: tl.constexpr,
    column_taps: tl.constexpr,
    block_h: tl.constexpr,
    block_w: tl.constexpr,
):
    """Sum some taps along each axis at stated places, edges repeated; from and to 8-bit, 16-bit or real samples.

    What follows the sum is its ``ending``: 0 for nothing; 1 for what the base, of the result's size, lacks of it, in
    ``unit``, less ``slack``, at most ``most`` (levels are clamped to [0, peak] before); 2 for the base and the sum
    times ``unit``. Real results are clamped to [low, high] where there are limits.
    """
    image = tl.program_id(2).to(tl.int64)
    y = tl.program_id(1) * block_h + tl.arange(0, block_h)
    x = tl.program_id(0) * block_w + tl.arange(0, block_w)
    tall = y < out_height
    wide = x < out_width
    shown = tall[:, None] & wide[None, :]
    total = sum_of_taps(
        source + image * in_height * in_width,
        row_first,
        row_weights,
        column_first,
        column_weights,
        y,
        x,
        tall,
        wide,
        in_height,
        in_width,
        from_words,
        row_taps,
        column_taps,
        block_h,
        block_w,
    )
    place = ((image * out_height + y) * out_width)[:, None] + x[None, :]
    if ending > 0:
        kept = levels_of(tl.load(base + place, mask=shown, other=0), base_words)
        if ending == 1:
            if as_levels:
                total = tl.minimum(tl.maximum(total, 0.0), peak)
            lack = (kept - total) * unit
            lack = lack - tl.minimum(tl.maximum(lack, -slack), slack)
            total = tl.minimum(tl.maximum(lack, -most), most)
        else:
            total = kept + total * unit
    if as_levels and ending != 1:
        total = rounded_level(total, peak)
        made = total.to(tl.int32).to(out.dtype.element_ty)
    else:
        if has_limits:
            total = tl.minimum(tl.maximum(total, low), high)
        made = total.to(out.dtype.element_ty)
    tl.store(out + place, made, mask=shown)


@triton.jit
def join_rgb(
    luma,
    differences,
    out,
    num,
    offset,
    per_level,
    middle,
    red_gain,
    blue_gain,
    weight_r,
    weight_b,
    per_green,
    words: tl.constexpr,
    has_chroma: tl.constexpr,
    block: tl.constexpr,
):
    """Make RGB of luma and of the blue and red differences at its resolution, ``num`` samples each."""
    first = tl.program_id(0).to(tl.int64) * block
    place = tl.arange(0, block)
    known = place < tl.minimum(num - first, block).to(tl.int32)
    value = (levels_of(tl.load(luma + first + place, mask=known, other=0), words) - offset) * per_level
    red = value
    green = value
    blue = value
    if has_chroma:
        blue = value + (tl.load(differences + first + place, mask=known, other=0.0) - middle) * blue_gain
        red = value + (tl.load(differences + num + first + place, mask=known, other=0.0) - middle) * red_gain
        green = (value - weight_r * red - weight_b * blue) * per_green
    tl.store(out + first + place, red, mask=known)
    tl.store(out + num + first + place, green, mask=known)
    tl.store(out + num + num + first + place, blue, mask=known)


@triton.jit
def split_rgb(
    rgb,
    before,
    luma,
    change,
    num,
    offset,
    gain,
    middle,
    red_gain,
    blue_gain,
    weight_r,
    weight_g,
    weight_b,
    peak,
    has_chroma: tl.constexpr,
    block: tl.constexpr,
):
    """Write the luma of RGB as levels, and by how much its blue and red differences are not what they were before."""
    first = tl.program_id(0).to(tl.int64) * block
    place = tl.arange(0, block)
    known = place < tl.minimum(num - first, block).to(tl.int32)
    red = tl.load(rgb + first + place, mask=known, other=0.0)
    green = tl.load(rgb + num + first + place, mask=known, other=0.0)
    blue = tl.load(rgb + num + num + first + place, mask=known, other=0.0)
    value = weight_r * red + weight_g * green + weight_b * blue
    level = rounded_level(value * gain + offset, peak).to(tl.int32)
    tl.store(luma + first + place, level.to(luma.dtype.element_ty), mask=known)
    if has_chroma:
        made_blue = (blue - value) * blue_gain + middle
        made_red = (red - value) * red_gain + middle
        was_blue = tl.load(before + first + place, mask=known, other=0.0)
        was_red = tl.load(before + num + first + place, mask=known, other=0.0)
        tl.store(change + first + place, made_blue - was_blue, mask=known)
        tl.store(change + num + first + place, made_red - was_red, mask=known)


@triton.jit
def keep_outside(
    wanted,
    made,
    num,
    width,
    threshold,
    low,
    high,
    least_room,
    most,
    words: tl.constexpr,
    has_limits: tl.constexpr,
    scale: tl.constexpr,
    block: tl.constexpr,
):
    """Want nothing where a sample is within a level, and more where enlarged samples cannot move; in place."""
    first = tl.program_id(0).to(tl.int64) * block
    place = tl.arange(0, block)
    known = place < tl.minimum(num - first, block).to(tl.int32)
    value = tl.load(wanted + first + place, mask=known, other=0.0)
    value = tl.where(tl.abs(value) > threshold, value, 0.0)
    if has_limits:
        top = first // width
        column = (first % width).to(tl.int32) + place
        corner = made + top * scale * (width * scale)
        sources = (column // width * scale) * (width * scale) + column % width * scale
        below = tl.zeros((block,), tl.float32)
        above = tl.zeros((block,), tl.float32)
        for tap in tl.static_range(scale * scale):
            beside = (tap // scale) * (width * scale) + tap % scale
            real = levels_of(tl.load(corner + sources + beside, mask=known, other=0), words)
            below += (real > low).to(tl.float32)
            above += (real < high).to(tl.float32)
        room = tl.where(value < 0.0, below, above) * (1.0 / (scale * scale))
        value = value / tl.maximum(room, least_room)
    tl.store(wanted + first + place, tl.minimum(tl.maximum(value, -most), most), mask=known)
