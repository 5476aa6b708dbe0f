# mypy: ignore-errors
"""The Triton kernel that counts what enlarged planes give back; `distance_ops` has the typed call.

With ``TRITON_INTERPRET=1`` it runs on the CPU.
"""

from __future__ import annotations

from streamsr.runtimes.plane_kernels import levels_of, sum_of_taps

try:
    import triton
    import triton.language as tl
except ImportError:  # without Triton the module can be read but its kernels are never called; see `gpu_ops`
    from types import SimpleNamespace

    triton = SimpleNamespace(jit=lambda kernel: kernel)


@triton.jit
def distance_of(
    kept,
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
    peak,
    unit,
    words: tl.constexpr,
    as_levels: tl.constexpr,
    row_taps: tl.constexpr,
    column_taps: tl.constexpr,
    block_h: tl.constexpr,
    block_w: tl.constexpr,
):
    """Return by how many units a plane, reduced, is off what was kept of it."""
    total = sum_of_taps(
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
        words,
        row_taps,
        column_taps,
        block_h,
        block_w,
    )
    if as_levels:
        total = tl.minimum(tl.maximum(total, 0.0), peak)
    return tl.abs((kept - total) * unit)


@triton.jit
def count_distances(
    pictures,
    stitched,
    enlarged,
    counts,
    row_first,
    row_weights,
    column_first,
    column_weights,
    height,
    width,
    peak,
    unit,
    within,
    words: tl.constexpr,
    as_levels: tl.constexpr,
    scale: tl.constexpr,
    reach: tl.constexpr,
    row_taps: tl.constexpr,
    column_taps: tl.constexpr,
    block_h: tl.constexpr,
    block_w: tl.constexpr,
):
    """Add to ``counts`` how many samples two enlarged planes give back, and raise the largest distance.

    They are four int32, zeros at first: samples within a distance before and after, those that are not after and read
    a level at either end of the range, and the bits of the largest distance, which order as floats do. Sums of
    integers come out the same in any order. Only where a sample is off are the ``reach`` samples round it looked at.
    """
    image = tl.program_id(2).to(tl.int64)
    y = tl.program_id(1) * block_h + tl.arange(0, block_h)
    x = tl.program_id(0) * block_w + tl.arange(0, block_w)
    tall = y < height
    wide = x < width
    shown = tall[:, None] & wide[None, :]
    place = ((image * height + y) * width)[:, None] + x[None, :]
    kept = levels_of(tl.load(pictures + place, mask=shown, other=0), words)
    in_height = height * scale
    in_width = width * scale
    plane = enlarged + image * in_height * in_width
    before = distance_of(
        kept,
        stitched + image * in_height * in_width,
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
        peak,
        unit,
        words,
        as_levels,
        row_taps,
        column_taps,
        block_h,
        block_w,
    )
    after = distance_of(
        kept,
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
        peak,
        unit,
        words,
        as_levels,
        row_taps,
        column_taps,
        block_h,
        block_w,
    )
    outside = shown & (after > within)
    num_outside = tl.sum(tl.sum(outside.to(tl.int32), axis=1), axis=0)
    num_shown = tl.sum(tl.sum(shown.to(tl.int32), axis=1), axis=0)
    tl.atomic_add(counts, tl.sum(tl.sum((shown & (before <= within)).to(tl.int32), axis=1), axis=0))
    tl.atomic_add(counts + 1, num_shown - num_outside)
    largest = tl.max(tl.max(tl.where(shown, after, 0.0), axis=1), axis=0)
    tl.atomic_max(counts + 3, largest.to(tl.int32, bitcast=True))
    if as_levels:  # noqa: SIM102 - the one is known when it is compiled, the other when it runs
        if num_outside > 0:
            clipped = tl.zeros((block_h, block_w), tl.int32)
            side: tl.constexpr = (2 * reach + 1) * scale
            for step in range(side * side):
                row = (y - reach) * scale + step // side
                column = (x - reach) * scale + step % side
                known = ((row >= 0) & (row < in_height))[:, None] & ((column >= 0) & (column < in_width))[None, :]
                known = known & outside
                source = plane + (row.to(tl.int64) * in_width)[:, None] + column[None, :]
                real = levels_of(tl.load(source, mask=known, other=0), words)
                clipped = clipped | (known & ((real < 1.0) | (real > peak - 1.0))).to(tl.int32)
            tl.atomic_add(counts + 2, tl.sum(tl.sum(clipped, axis=1), axis=0))
