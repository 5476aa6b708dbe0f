# mypy: ignore-errors
"""Triton kernels of the ``cuda`` runtime; Triton's own compiler checks their types.

All feature maps are (N, H, W, C), C-contiguous, so that a pixel's channels are one run of memory. `gpu_ops` holds the
typed calls and what runs where Triton is missing. With ``TRITON_INTERPRET=1`` all of it runs on the CPU.

Feature maps of large frames have more than 2**31 values: where a program's tile begins is counted in 64 bits, once a
program, and places within it in 32. Whatever may be many lies on the grid's first axis: the others end at 65,535.
"""

from __future__ import annotations

try:
    import triton
    import triton.language as tl
except ImportError:  # without Triton the module can be read but its kernels are never called; see `gpu_ops`
    from types import SimpleNamespace

    triton = SimpleNamespace(jit=lambda kernel: kernel)


@triton.jit
def rounded_level(value, peak):
    """Return a level rounded half to even and clamped to [0, peak]: 1.5 * 2**23 leaves fp32 no bits below one."""
    level = tl.minimum(tl.maximum(value, 0.0), peak)
    return (level + 12582912.0) - 12582912.0


@triton.jit
def first_layer(
    samples,
    weight,
    bias,
    out,
    height,
    width,
    gain,
    channels: tl.constexpr,
    block_c: tl.constexpr,
    block_px: tl.constexpr,
):
    """Convolve one channel 3x3 with zeros around, add bias, apply ReLU; samples are uint8 or float32.

    cuDNN pads one channel to eight and reads half precision; this reads the decoder's bytes and is bound by what it
    writes.
    """
    blocks = tl.cdiv(height * width, block_px)
    image = (tl.program_id(0) // blocks).to(tl.int64)
    first = (tl.program_id(0) % blocks) * block_px
    pixel = tl.arange(0, block_px)
    place = first + pixel
    y = place // width
    x = place % width
    c = tl.arange(0, block_c)
    known = c < channels
    total = tl.zeros((block_px, block_c), tl.float32) + tl.load(bias + c, mask=known, other=0.0)[None, :]
    source = samples + image * height * width
    for tap in tl.static_range(9):
        row = y + (tap // 3 - 1)
        column = x + (tap % 3 - 1)
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        value = tl.load(source + row * width + column, mask=inside, other=0).to(tl.float32) * gain
        taps = tl.load(weight + tap * channels + c, mask=known, other=0.0)
        total += value[:, None] * taps[None, :]
    target = out + (image * height * width + first) * channels
    shown = (place < height * width)[:, None] & known[None, :]
    made = tl.maximum(total, 0.0).to(out.dtype.element_ty)
    tl.store(target + pixel[:, None] * channels + c[None, :], made, mask=shown)


@triton.jit
def finish_student(
    residual,
    samples,
    taps,
    out,
    height,
    width,
    gain,
    peak,
    scale: tl.constexpr,
    as_levels: tl.constexpr,
    block_px: tl.constexpr,
):
    """End a student in one pass: bilinear skip, sum, pixel shuffle, and rounding where levels are wanted.

    ``gain`` takes samples to the unit of the output, ``peak`` is the output's unit of the residual.
    """
    blocks = tl.cdiv(height * width, block_px)
    image = (tl.program_id(0) // blocks).to(tl.int64)
    first = (tl.program_id(0) % blocks) * block_px
    pixel = tl.arange(0, block_px)
    place = first + pixel
    y = place // width
    x = place % width
    phases: tl.constexpr = scale * scale
    phase = tl.arange(0, phases)
    shown = (place < height * width)[:, None] & (phase < phases)[None, :]
    changes = residual + (image * height * width + first) * phases
    total = tl.load(changes + pixel[:, None] * phases + phase[None, :], mask=shown, other=0.0).to(tl.float32) * peak
    source = samples + image * height * width
    for tap in tl.static_range(9):
        row = tl.minimum(tl.maximum(y + (tap // 3 - 1), 0), height - 1)
        column = tl.minimum(tl.maximum(x + (tap % 3 - 1), 0), width - 1)
        value = tl.load(source + row * width + column).to(tl.float32) * gain
        kernel = tl.load(taps + phase * 9 + tap)
        total += value[:, None] * kernel[None, :]
    if as_levels:
        total = rounded_level(total, peak)
    top = first // width
    target = out + (image * height + top) * width * phases
    row = (y - top)[:, None] * scale + phase[None, :] // scale
    column = x[:, None] * scale + phase[None, :] % scale
    tl.store(target + row * (width * scale) + column, total.to(out.dtype.element_ty), mask=shown)


@triton.jit
def bias_activation(
    features,
    bias,
    residual,
    slope,
    num,
    channels: tl.constexpr,
    has_prelu: tl.constexpr,
    has_residual: tl.constexpr,
    block: tl.constexpr,
):
    """Add a bias, apply PReLU of one slope, add a residual: in place and in one pass."""
    first = tl.program_id(0).to(tl.int64) * block
    place = tl.arange(0, block)
    known = place < tl.minimum(num - first, block).to(tl.int32)
    value = tl.load(features + first + place, mask=known, other=0.0).to(tl.float32)
    value += tl.load(bias + ((first % channels).to(tl.int32) + place) % channels)
    if has_prelu:
        value = tl.where(value >= 0.0, value, value * slope)
    if has_residual:
        value += tl.load(residual + first + place, mask=known, other=0.0).to(tl.float32)
    tl.store(features + first + place, value.to(features.dtype.element_ty), mask=known)


@triton.jit
def bias_prelu_shuffle(features, bias, out, slope, num, width, channels: tl.constexpr, block: tl.constexpr):
    """Add a bias, apply PReLU, shuffle pixels by two; channels come in as (row parity, column parity, channel)."""
    first = tl.program_id(0).to(tl.int64) * block
    place = tl.arange(0, block)
    known = place < tl.minimum(num - first, block).to(tl.int32)
    value = tl.load(features + first + place, mask=known, other=0.0).to(tl.float32)
    parts: tl.constexpr = 4 * channels
    part = (first % parts).to(tl.int32) + place
    value += tl.load(bias + part % parts)
    value = tl.where(value >= 0.0, value, value * slope)
    c = part % channels
    chunk = part // channels
    right = chunk % 2
    lower = (chunk // 2) % 2
    pixel = first // parts
    top = pixel // width
    column = (pixel % width).to(tl.int32) + chunk // 4
    x = column % width
    line = column // width
    target = (((line * 2 + lower) * width + x) * 2 + right) * channels + c
    tl.store(out + top * width * parts + target, value.to(out.dtype.element_ty), mask=known)


@triton.jit
def interleave(pictures, out, num_px, gain, channels: tl.constexpr, block: tl.constexpr):
    """Write (N, C, pixels) pictures times a gain as (N, pixels, C)."""
    blocks = tl.cdiv(num_px * channels, block)
    start = (tl.program_id(0) // blocks).to(tl.int64) * num_px * channels
    place = (tl.program_id(0) % blocks) * block + tl.arange(0, block)
    known = place < num_px * channels
    value = tl.load(pictures + start + (place % channels) * num_px + place // channels, mask=known, other=0)
    tl.store(out + start + place, (value.to(tl.float32) * gain).to(out.dtype.element_ty), mask=known)


@triton.jit
def write_phases(
    phases,
    out,
    height,
    width,
    gain,
    channels: tl.constexpr,
    as_levels: tl.constexpr,
    block: tl.constexpr,
):
    """Shuffle pixels by two into planes, times a gain and rounded where levels are wanted.

    Phases come as (channel, row parity, column parity). A program reads the phases of a piece of a row, which then lie
    in the first cache, once for every row that it writes.
    """
    blocks = tl.cdiv(width, block)
    line = tl.program_id(0) // blocks
    left = (tl.program_id(0) % blocks) * block
    image = (line // height).to(tl.int64)
    y = line % height
    x = tl.arange(0, 2 * block)
    known = x < 2 * (width - left)
    source = phases + ((image * height + y) * width + left) * (4 * channels)
    place = (x // 2) * (4 * channels) + x % 2
    for part in tl.static_range(2 * channels):
        value = tl.load(source + place + 2 * part, mask=known, other=0.0).to(tl.float32)
        if as_levels:
            value = rounded_level(value * gain, gain).to(tl.int32)
        row = (image * channels + part // 2) * (2 * height) + 2 * y + part % 2
        tl.store(out + row * (2 * width) + 2 * left + x, value.to(out.dtype.element_ty), mask=known)


@triton.jit
def convolve_3x3(
    features,
    weight,
    bias,
    residual,
    out,
    slope,
    height,
    width,
    inputs: tl.constexpr,
    outputs: tl.constexpr,
    activation: tl.constexpr,
    has_residual: tl.constexpr,
    shuffle: tl.constexpr,
    block_h: tl.constexpr,
    block_w: tl.constexpr,
    block_n: tl.constexpr,
    block_k: tl.constexpr,
    num_steps: tl.constexpr,
    depth: tl.constexpr,
):
    """Convolve 3x3 with zeros around, as nine matrix products a tile, with bias, activation, sum and shuffle.

    A tile is block_h x block_w pixels, so that its nine shifted reads mostly meet in the first cache. ``weight`` is
    (9, inputs, outputs). ``activation`` is 0 for none, 1 for ReLU, 2 for PReLU. With ``shuffle``, outputs come as (row
    parity, column parity, channel) and a block of outputs is one parity. The grid runs over tiles, then blocks of
    outputs, then images. Products of float32 are not rounded to TF32.
    """
    tiles_in_row = tl.cdiv(width, block_w)
    tiles = tiles_in_row * tl.cdiv(height, block_h)
    parts: tl.constexpr = (outputs + block_n - 1) // block_n
    tile = tl.program_id(0) % tiles
    part_of_outputs = tl.program_id(0) // tiles % parts
    image = (tl.program_id(0) // tiles // parts).to(tl.int64)
    top = tile // tiles_in_row * block_h
    left = tile % tiles_in_row * block_w
    pixel = tl.arange(0, block_h * block_w)
    down = pixel // block_w
    across = pixel % block_w
    y = top + down
    x = left + across
    n = part_of_outputs * block_n + tl.arange(0, block_n)
    k = tl.arange(0, block_k)
    wanted = n < outputs
    corner = (image * height + top) * width + left
    source = features + corner * inputs
    place_in = (down * width + across) * inputs
    total = tl.zeros((block_h * block_w, block_n), tl.float32)
    chunks: tl.constexpr = inputs // block_k
    for step in tl.range(0, num_steps, num_stages=depth):
        tap = step // chunks
        first = (step % chunks) * block_k
        row = y + (tap // 3 - 1)
        column = x + (tap % 3 - 1)
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        shift = ((tap // 3 - 1) * width + (tap % 3 - 1)) * inputs + first
        a = tl.load(source + (place_in + shift)[:, None] + k[None, :], mask=inside[:, None], other=0.0)
        b = tl.load(
            weight + (tap * inputs + first + k)[:, None] * outputs + n[None, :], mask=wanted[None, :], other=0.0
        )
        total = tl.dot(a, b, total, input_precision="ieee")
    total += tl.load(bias + n, mask=wanted, other=0.0)[None, :]
    if activation == 1:
        total = tl.maximum(total, 0.0)
    if activation == 2:
        total = tl.where(total >= 0.0, total, total * slope)
    shown = ((y < height) & (x < width))[:, None] & wanted[None, :]
    if shuffle:
        part: tl.constexpr = outputs // 4
        parity = part_of_outputs * block_n // part
        target = ((image * height + top) * 2 * width + left) * 2 * part
        line = 2 * down + parity // 2
        place = ((line * (2 * width) + 2 * across + parity % 2) * part)[:, None] + (n % part)[None, :]
    else:
        target = corner * outputs
        place = ((down * width + across) * outputs)[:, None] + n[None, :]
    if has_residual:
        total += tl.load(residual + target + place, mask=shown, other=0.0).to(tl.float32)
    tl.store(out + target + place, total.to(out.dtype.element_ty), mask=shown)
