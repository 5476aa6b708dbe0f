// A whole student in one kernel: luma in, enlarged luma out, every activation in shared memory.
//
// A block enlarges a strip of the frame, TILE_W pixels wide with its margins, from top to bottom. Every layer belongs
// to warps of its own, which keep its weights in registers for the whole launch. In one step every layer computes ROWS
// rows from rows that the layer before it wrote in earlier steps, so one barrier a step is all there is to wait for,
// and a layer keeps a ring of only RING rows. Row y of layer l is computed LAG rows after row y of layer l - 1.
//
//   loader (layer -1) -> layer 0 (1 -> C) -> layers 1..DEPTH (C -> C) -> layer DEPTH + 1 (C -> SCALE * SCALE) + skip
//
// Pixels lie on M and channels on N of mma.m16n8k16, so the activations are the A fragments. A row is stored by planes
// of 8 channels (16 bytes a pixel) and inside a plane by phase: pixel PHASES * r + j at place j * SLICE + r. So 16
// pixels of one phase are 256 bytes in a row (no bank conflicts), and the tiles of PHASES neighbouring phases share
// PHASES + 2 fragments for their three horizontal taps instead of 3 * PHASES; every fragment also serves up to three
// output rows. Positions within the strip but outside the frame are zero after every layer, which is the network's
// zero padding. Margins hold numbers that no valid output depends on; they may be anything, also NaN.
//
// Macros: CHANNELS (16 or 32), DEPTH, SCALE (2 or 4), ROWS, PHASES, TILE_W, XSPLIT and NSPLIT (warps of a body layer
// along the row and over the output channels), HALF_SUMS (1: body layers sum in half precision).

typedef unsigned int u32;
typedef unsigned short u16;
typedef unsigned char u8;

constexpr int KSTEPS = CHANNELS / 16;
constexpr int PLANES = CHANNELS / 8;
constexpr int BODY_TILES = PLANES / NSPLIT;
constexpr int LAST_TILES = SCALE == 4 ? 2 : 1;
constexpr int LAG = ROWS + 1;
constexpr int RING = LAG + 1 + ROWS;
constexpr int LUMA_RING = LAG * (DEPTH + 1) + RING;
constexpr int LUMA_BANK = PHASES == 1 || PHASES == 2 ? 16 : 1;
constexpr int LUMA_PITCH = TILE_W + 2 + (LUMA_BANK + 32 - (TILE_W + 2) % 32) % 32;
constexpr int LUMA_BYTES = (LUMA_RING * LUMA_PITCH * 4 + 127) / 128 * 128;
constexpr int PLANE_BYTES = TILE_W * 16;
constexpr int ROW_BYTES = PLANES * PLANE_BYTES;
constexpr int LAYER_BYTES = RING * ROW_BYTES;
constexpr int SLICE = TILE_W / PHASES;
constexpr int GROUPS = SLICE / 16;
constexpr int MARGIN = DEPTH + 1;
constexpr int BODY_WARPS = DEPTH * XSPLIT * NSPLIT;
constexpr int THREADS = (BODY_WARPS + 2) * 32;
constexpr int BODY_WORDS = 9 * KSTEPS * PLANES * 64;
constexpr int FIRST_WORDS = PLANES * 64;
constexpr int LAST_WORDS = 9 * KSTEPS * LAST_TILES * 64;
static_assert(TILE_W % (16 * PHASES) == 0 && GROUPS % XSPLIT == 0, "a warp takes whole groups of 16 * PHASES pixels");
static_assert(BODY_TILES % 2 == 0 && PLANES % NSPLIT == 0, "a warp stores two planes at a time");

template <bool HALF>
struct SumOf {
    typedef float Type;
};
template <>
struct SumOf<true> {
    typedef u32 Type;  // two halves
};
typedef SumOf<HALF_SUMS != 0>::Type BodySum;

#ifndef CUDA_ON_CPU
extern __shared__ __align__(128) u8 shared_bytes[];

__device__ __forceinline__ u32 shared_address(int offset) {
    return static_cast<u32>(__cvta_generic_to_shared(shared_bytes)) + offset;
}

__device__ __forceinline__ void block_barrier() { asm volatile("bar.sync 0;" ::: "memory"); }

__device__ __forceinline__ void load_matrices(u32 (&words)[4], u32 address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                 : "r"(address)
                 : "memory");
}

__device__ __forceinline__ void store_matrices(u32 address, u32 a, u32 b, u32 c, u32 d) {
#if __CUDA_ARCH__ >= 900
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(a), "r"(b),
                 "r"(c), "r"(d)
                 : "memory");
#else
    const int lane = threadIdx.x & 31;
    const u32 corner = address - (lane >> 4) * PLANE_BYTES - (lane & 15) * 16 + (lane >> 2) * 16 + (lane & 3) * 4;
    asm volatile("st.shared.b32 [%0], %1;" ::"r"(corner), "r"(a) : "memory");
    asm volatile("st.shared.b32 [%0], %1;" ::"r"(corner + 128), "r"(b) : "memory");
    asm volatile("st.shared.b32 [%0], %1;" ::"r"(corner + PLANE_BYTES), "r"(c) : "memory");
    asm volatile("st.shared.b32 [%0], %1;" ::"r"(corner + PLANE_BYTES + 128), "r"(d) : "memory");
#endif
}

__device__ __forceinline__ void multiply_add(float (&sums)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ __forceinline__ void multiply_add(u32 (&sums)[2], const u32 (&a)[4], const u32 (&b)[2]) {
    asm("mma.sync.aligned.m16n8k16.row.col.f16.f16.f16.f16 {%0, %1}, {%2, %3, %4, %5}, {%6, %7}, {%0, %1};"
        : "+r"(sums[0]), "+r"(sums[1])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ __forceinline__ u32 positive_halves(u32 halves) {
    u32 word;
    asm("max.f16x2 %0, %1, %2;" : "=r"(word) : "r"(halves), "r"(0u));
    return word;
}

__device__ __forceinline__ u32 pack_halves(float low, float high) {
    u32 word;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
    return word;
}

__device__ __forceinline__ u32 pack_positive_halves(float low, float high) {
    u32 word;
    asm("cvt.rn.relu.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
    return word;
}

__device__ __forceinline__ u32 round_to_byte(float level) {
    return __float_as_uint(fminf(fmaxf(level, 0.0f), 255.0f) + 12582912.0f) & 255u;  // 1.5 * 2^23: half to even
}
#endif

struct Frame {
    const u8* luma;
    u8* enlarged;
    int height, width, luma_pitch, enlarged_pitch;
};

struct Tile {
    int left;         // frame column of the strip's first position
    int first, last;  // core columns [first, last)
    int top, bottom;  // core rows [top, bottom)
    int start;        // first row that the loader brings
    int steps;

    // Row at which a layer starts in a step; the loader is layer -1.
    __device__ __forceinline__ int row(int layer, int step) const { return start + ROWS * step - LAG * (layer + 1); }

    // Whether any of ROWS rows is one that later layers need; rows beyond the frame but for the first are not.
    __device__ __forceinline__ bool needs(int layer, int y, int height) const {
        const int reach = MARGIN - layer;
        return y + ROWS > max(top - reach, -1) && y < min(bottom + reach, height + 1);
    }
};

__device__ __forceinline__ Tile tile_at(int index, int strips, int strip_width, int segment_rows, const Frame& frame) {
    Tile tile;
    tile.first = index % strips * strip_width;
    tile.last = min(tile.first + strip_width, frame.width);
    tile.left = tile.first - MARGIN;
    tile.top = index / strips * segment_rows;
    tile.bottom = min(tile.top + segment_rows, frame.height);
    tile.start = max(tile.top - MARGIN, -1) - 1;
    tile.steps = (tile.bottom - tile.start + LAG * (DEPTH + 2) + ROWS - 1) / ROWS;
    return tile;
}

__device__ __forceinline__ int ring_row(int y) { return static_cast<u32>(y + 64 * RING) % RING; }

__device__ __forceinline__ int luma_row(int y) { return static_cast<u32>(y + 64 * LUMA_RING) % LUMA_RING; }

__device__ __forceinline__ const u32* luma_words(int y) {
    return reinterpret_cast<const u32*>(shared_bytes) + luma_row(y) * LUMA_PITCH;
}

// Shared address of a layer's row, for this lane's part in load_matrices and store_matrices.
__device__ __forceinline__ u32 row_address(int layer, int y, int lane) {
    const int place = (lane >> 4) * PLANE_BYTES + (lane & 15) * 16;
    return shared_address(LUMA_BYTES + layer * LAYER_BYTES + ring_row(y) * ROW_BYTES + place);
}

// Words of B fragments as the host packed them: [count][lane][2].
template <int COUNT>
__device__ __forceinline__ void load_fragments(u32 (&fragments)[COUNT][2], const u32* words, int lane) {
#pragma unroll
    for (int index = 0; index < COUNT; ++index) {
        fragments[index][0] = words[index * 64 + lane * 2];
        fragments[index][1] = words[index * 64 + lane * 2 + 1];
    }
}

template <int TILES>
__device__ __forceinline__ void load_biases(float (&biases)[TILES][2], const float* values, int lane) {
#pragma unroll
    for (int tile = 0; tile < TILES; ++tile) {
        biases[tile][0] = values[tile * 8 + (lane & 3) * 2];
        biases[tile][1] = values[tile * 8 + (lane & 3) * 2 + 1];
    }
}

template <int TILES>
__device__ __forceinline__ void set_to_biases(float (&sums)[TILES][4], const float (&biases)[TILES][2]) {
#pragma unroll
    for (int tile = 0; tile < TILES; ++tile) {
        sums[tile][0] = sums[tile][2] = biases[tile][0];
        sums[tile][1] = sums[tile][3] = biases[tile][1];
    }
}

template <int TILES>
__device__ __forceinline__ void set_to_biases(u32 (&sums)[TILES][2], const float (&biases)[TILES][2]) {
#pragma unroll
    for (int tile = 0; tile < TILES; ++tile) sums[tile][0] = sums[tile][1] = pack_halves(biases[tile][0], biases[tile][1]);
}

// ReLU of a lane's sums as halves: its two channels of its near pixel, and of the pixel 8 further on.
__device__ __forceinline__ void activate(u32 (&words)[2], const float (&sums)[4]) {
    words[0] = pack_positive_halves(sums[0], sums[1]);
    words[1] = pack_positive_halves(sums[2], sums[3]);
}

__device__ __forceinline__ void activate(u32 (&words)[2], const u32 (&sums)[2]) {
    words[0] = positive_halves(sums[0]);
    words[1] = positive_halves(sums[1]);
}

// Load what ROWS rows of 16 * PHASES outputs need of one input row: the fragments of the phases and of one neighbour on
// each side.
__device__ __forceinline__ void load_pixels(u32 (&pixels)[PHASES + 2][4], u32 input, int group, int step) {
#pragma unroll
    for (int place = 0; place < PHASES + 2; ++place) {
        const int phase = (place + PHASES - 1) % PHASES;
        const int shift = place == 0 ? -1 : place == PHASES + 1 ? 1 : 0;
        load_matrices(pixels[place], input + (group * 16 + phase * SLICE + shift) * 16 + step * 2 * PLANE_BYTES);
    }
}

// Add the 3x3 convolution of one group of pixels: ROWS rows of 16 * PHASES pixels, TILES * 8 output channels.
template <int TILES, class Sum, int SUMS>
__device__ __forceinline__ void convolve(Sum (&sums)[ROWS][PHASES][TILES][SUMS],
                                         const u32 (&weights)[9 * KSTEPS * TILES][2],
                                         const u32 (&inputs)[ROWS + 2], int group) {
#pragma unroll
    for (int input = 0; input < ROWS + 2; ++input) {
#pragma unroll
        for (int step = 0; step < KSTEPS; ++step) {
            u32 pixels[PHASES + 2][4];
            load_pixels(pixels, inputs[input], group, step);
#pragma unroll
            for (int tap = 0; tap < 3; ++tap) {
#pragma unroll
                for (int phase = 0; phase < PHASES; ++phase) {
#pragma unroll
                    for (int row = 0; row < ROWS; ++row) {
                        const int dy = input - row;
                        if (dy < 0 || dy > 2) continue;
#pragma unroll
                        for (int tile = 0; tile < TILES; ++tile) {
                            multiply_add(sums[row][phase][tile], pixels[phase + tap],
                                         weights[((dy * 3 + tap) * KSTEPS + step) * TILES + tile]);
                        }
                    }
                }
            }
        }
    }
}

// Whether 16 * PHASES pixels of a row have a position outside the frame; the same for all lanes.
__device__ __forceinline__ bool crosses_border(const Frame& frame, const Tile& tile, int y, int group) {
    const int x = tile.left + group * 16 * PHASES;
    return y < 0 || y >= frame.height || x < 0 || x + 16 * PHASES > frame.width;
}

// Store the ReLU of 16 pixels of one phase, zero outside the frame.
template <int TILES, class Sum, int SUMS>
__device__ __forceinline__ void store_activations(const Sum (&sums)[TILES][SUMS], u32 address, const Frame& frame,
                                                  const Tile& tile, int y, int group, int phase, bool border,
                                                  int lane) {
    u32 words[TILES][2];
#pragma unroll
    for (int plane = 0; plane < TILES; ++plane) activate(words[plane], sums[plane]);
    if (border) {
        const int x = tile.left + PHASES * (group * 16 + (lane >> 2)) + phase;
        const bool inside = y >= 0 && y < frame.height;
        const bool near = inside && x >= 0 && x < frame.width;
        const bool far = inside && x + 8 * PHASES >= 0 && x + 8 * PHASES < frame.width;
#pragma unroll
        for (int plane = 0; plane < TILES; ++plane) {
            words[plane][0] = near ? words[plane][0] : 0u;
            words[plane][1] = far ? words[plane][1] : 0u;
        }
    }
    address += (group * 16 + phase * SLICE) * 16;
#pragma unroll
    for (int plane = 0; plane < TILES; plane += 2) {
        store_matrices(address + plane * PLANE_BYTES, words[plane][0], words[plane][1], words[plane + 1][0],
                       words[plane + 1][1]);
    }
}

// Clear the halves of a luma word (columns x and x + 1 of row y) that lie outside the frame.
__device__ __forceinline__ u32 clear_outside(u32 word, const Frame& frame, int x, int y) {
    const bool inside = y >= 0 && y < frame.height;
    const u32 low = inside && x >= 0 && x < frame.width ? 0x0000ffffu : 0u;
    const u32 high = inside && x + 1 >= 0 && x + 1 < frame.width ? 0xffff0000u : 0u;
    return word & (low | high);
}

// The A fragment of 16 pixels' 3x3 neighbourhoods: k = 4 * dy + dx, dx of 3 and k above 11 have zero weights.
__device__ __forceinline__ void luma_fragment(u32 (&words)[4], const Frame& frame, const Tile& tile, int y, int group,
                                              int phase, bool border, int lane) {
    const int column = PHASES * (group * 16 + (lane >> 2)) + phase + (lane & 1) * 2;
    const int upper_y = y - 1 + ((lane >> 1) & 1);
    const bool lower = (lane & 2) == 0;
    const u32* upper_row = luma_words(upper_y);
    const u32* lower_row = luma_words(y + 1);
    words[0] = upper_row[column];
    words[1] = upper_row[column + 8 * PHASES];
    words[2] = lower ? lower_row[column] : 0u;
    words[3] = lower ? lower_row[column + 8 * PHASES] : 0u;
    if (border) {
        const int x = tile.left + column - 1;
        words[0] = clear_outside(words[0], frame, x, upper_y);
        words[1] = clear_outside(words[1], frame, x + 8 * PHASES, upper_y);
        words[2] = clear_outside(words[2], frame, x, y + 1);
        words[3] = clear_outside(words[3], frame, x + 8 * PHASES, y + 1);
    }
}

// Bring ROWS rows of luma as pairs (v[x], v[x + 1]) / 256 in half precision, which is exact; borders replicated.
__device__ __forceinline__ void load_luma(const Frame& frame, const Tile& tile, int y, int lane) {
    u32* words = reinterpret_cast<u32*>(shared_bytes);
#pragma unroll
    for (int row = 0; row < ROWS; ++row) {
        const u8* line = frame.luma + static_cast<long long>(min(max(y + row, 0), frame.height - 1)) * frame.luma_pitch;
#pragma unroll
        for (int start = 0; start < TILE_W + 2; start += 32) {
            const int place = start + lane;
            const int x = tile.left + place - 1;
            const float near = line[min(max(x, 0), frame.width - 1)];
            const float far = line[min(max(x + 1, 0), frame.width - 1)];
            if (place < TILE_W + 2) {
                words[luma_row(y + row) * LUMA_PITCH + place] = pack_halves(near * 0.00390625f, far * 0.00390625f);
            }
        }
    }
}

// Write what a lane holds of PHASES neighbouring pixels: one enlarged row, SCALE * PHASES samples.
__device__ __forceinline__ void write_samples(const float (&sums)[PHASES][LAST_TILES][4], int half, const Frame& frame,
                                              const Tile& tile, int y, int x, int lane) {
    u32 samples[PHASES];
#pragma unroll
    for (int phase = 0; phase < PHASES; ++phase) {
        samples[phase] = 0;
#pragma unroll
        for (int column = 0; column < SCALE; ++column) {
            samples[phase] |= round_to_byte(sums[phase][column >> 1][half * 2 + (column & 1)]) << (8 * column);
        }
    }
    const int enlarged_y = SCALE * y + (lane & 3);
    u8* target = frame.enlarged + static_cast<long long>(enlarged_y) * frame.enlarged_pitch + SCALE * x;
    const bool whole = x >= tile.first && x + PHASES <= tile.last;
    if (SCALE == 2 && PHASES % 2 == 0 && whole && (reinterpret_cast<unsigned long long>(target) & 3) == 0) {
#pragma unroll
        for (int phase = 0; phase + 1 < PHASES; phase += 2) {
            *reinterpret_cast<u32*>(target + 2 * phase) = samples[phase] | samples[phase + 1] << 16;
        }
        return;
    }
#pragma unroll
    for (int phase = 0; phase < PHASES; ++phase) {
        if (x + phase < tile.first || x + phase >= tile.last) continue;
        if (SCALE == 2) *reinterpret_cast<u16*>(target + 2 * phase) = static_cast<u16>(samples[phase]);
        if (SCALE == 4) *reinterpret_cast<u32*>(target + 4 * phase) = samples[phase];
    }
}

__device__ __forceinline__ void body_step(const u32 (&weights)[9 * KSTEPS * BODY_TILES][2],
                                          const float (&biases)[BODY_TILES][2], const Frame& frame, const Tile& tile,
                                          int layer, int part, int plane, int y, int lane) {
    u32 inputs[ROWS + 2], outputs[ROWS];
#pragma unroll
    for (int row = 0; row < ROWS + 2; ++row) inputs[row] = row_address(layer - 1, y + row - 1, lane);
#pragma unroll
    for (int row = 0; row < ROWS; ++row) outputs[row] = row_address(layer, y + row, lane) + plane * PLANE_BYTES;
#pragma unroll 1
    for (int group = part * (GROUPS / XSPLIT); group < (part + 1) * (GROUPS / XSPLIT); ++group) {
        BodySum sums[ROWS][PHASES][BODY_TILES][HALF_SUMS ? 2 : 4];
#pragma unroll
        for (int row = 0; row < ROWS; ++row)
#pragma unroll
            for (int phase = 0; phase < PHASES; ++phase) set_to_biases(sums[row][phase], biases);
        convolve(sums, weights, inputs, group);
#pragma unroll
        for (int row = 0; row < ROWS; ++row) {
            const bool border = crosses_border(frame, tile, y + row, group);
#pragma unroll
            for (int phase = 0; phase < PHASES; ++phase)
                store_activations(sums[row][phase], outputs[row], frame, tile, y + row, group, phase, border, lane);
        }
    }
}

__device__ __forceinline__ void first_step(const u32 (&weights)[PLANES][2], const float (&biases)[PLANES][2],
                                           const Frame& frame, const Tile& tile, int y, int lane) {
#pragma unroll
    for (int row = 0; row < ROWS; ++row) {
        const u32 output = row_address(0, y + row, lane);
#pragma unroll 1
        for (int group = 0; group < GROUPS; ++group) {
            const bool border = crosses_border(frame, tile, y + row, group) ||
                                crosses_border(frame, tile, y + row - 1, group) ||
                                crosses_border(frame, tile, y + row + 1, group) ||
                                tile.left + group * 16 * PHASES == 0 ||
                                tile.left + (group + 1) * 16 * PHASES == frame.width;
#pragma unroll
            for (int phase = 0; phase < PHASES; ++phase) {
                u32 pixels[4];
                luma_fragment(pixels, frame, tile, y + row, group, phase, border, lane);
                float sums[PLANES][4];
                set_to_biases(sums, biases);
#pragma unroll
                for (int plane = 0; plane < PLANES; ++plane) multiply_add(sums[plane], pixels, weights[plane]);
                store_activations(sums, output, frame, tile, y + row, group, phase, border, lane);
            }
        }
    }
}

__device__ __forceinline__ void last_step(const u32 (&weights)[9 * KSTEPS * LAST_TILES][2],
                                          const u32 (&skip)[LAST_TILES][2], const float (&biases)[LAST_TILES][2],
                                          const Frame& frame, const Tile& tile, int y, int lane) {
    u32 inputs[ROWS + 2];
#pragma unroll
    for (int row = 0; row < ROWS + 2; ++row) inputs[row] = row_address(DEPTH, y + row - 1, lane);
#pragma unroll 1
    for (int group = 0; group < GROUPS; ++group) {
        float sums[ROWS][PHASES][LAST_TILES][4];
#pragma unroll
        for (int row = 0; row < ROWS; ++row) {
#pragma unroll
            for (int phase = 0; phase < PHASES; ++phase) {
                u32 pixels[4];
                luma_fragment(pixels, frame, tile, y + row, group, phase, false, lane);
                set_to_biases(sums[row][phase], biases);
#pragma unroll
                for (int part = 0; part < LAST_TILES; ++part) multiply_add(sums[row][phase][part], pixels, skip[part]);
            }
        }
        convolve(sums, weights, inputs, group);
#pragma unroll
        for (int row = 0; row < ROWS; ++row) {
            const bool mine = SCALE == 4 || (lane & 2) == 0;
            if (mine && y + row >= tile.top && y + row < tile.bottom) {
                const int x = tile.left + PHASES * (group * 16 + (lane >> 2));
                write_samples(sums[row], 0, frame, tile, y + row, x, lane);
                write_samples(sums[row], 1, frame, tile, y + row, x + 8 * PHASES, lane);
            }
        }
        __syncwarp();  // the lanes meet again before the next group's matrix loads
    }
}

// weights: layer 0, body layers ([part of NSPLIT][tap][k step][tile]), last layer, skip; see load_fragments.
// biases: C for layer 0 and every body layer, then 8 * LAST_TILES.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    enlarge(const u8* luma, u8* enlarged, const u32* weights, const float* biases, int height, int width,
            int luma_pitch, int enlarged_pitch, int strip_width, int strips, int segment_rows, int num_tiles) {
    const Frame frame = {luma, enlarged, height, width, luma_pitch, enlarged_pitch};
    const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
    if (warp < BODY_WARPS) {
        const int layer = 1 + warp / (XSPLIT * NSPLIT), part = warp % XSPLIT, share = warp / XSPLIT % NSPLIT;
        u32 fragments[9 * KSTEPS * BODY_TILES][2];
        float offsets[BODY_TILES][2];
        load_fragments(fragments, weights + FIRST_WORDS + (layer - 1) * BODY_WORDS + share * (BODY_WORDS / NSPLIT), lane);
        load_biases(offsets, biases + layer * CHANNELS + share * BODY_TILES * 8, lane);
        for (int index = blockIdx.x; index < num_tiles; index += gridDim.x) {
            const Tile tile = tile_at(index, strips, strip_width, segment_rows, frame);
            for (int step = 0; step < tile.steps; ++step) {
                const int y = tile.row(layer, step);
                if (tile.needs(layer, y, height)) {
                    body_step(fragments, offsets, frame, tile, layer, part, share * BODY_TILES, y, lane);
                }
                block_barrier();
            }
        }
    } else if (warp == BODY_WARPS) {
        const u32* words = weights + FIRST_WORDS + DEPTH * BODY_WORDS;
        u32 fragments[9 * KSTEPS * LAST_TILES][2], skip[LAST_TILES][2];
        float offsets[LAST_TILES][2];
        load_fragments(fragments, words, lane);
        load_fragments(skip, words + LAST_WORDS, lane);
        load_biases(offsets, biases + (DEPTH + 1) * CHANNELS, lane);
        for (int index = blockIdx.x; index < num_tiles; index += gridDim.x) {
            const Tile tile = tile_at(index, strips, strip_width, segment_rows, frame);
            for (int step = 0; step < tile.steps; ++step) {
                const int y = tile.row(DEPTH + 1, step);
                if (tile.needs(DEPTH + 1, y, height)) {
                    last_step(fragments, skip, offsets, frame, tile, y, lane);
                }
                block_barrier();
            }
        }
    } else {
        u32 fragments[PLANES][2];
        float offsets[PLANES][2];
        load_fragments(fragments, weights, lane);
        load_biases(offsets, biases, lane);
        for (int index = blockIdx.x; index < num_tiles; index += gridDim.x) {
            const Tile tile = tile_at(index, strips, strip_width, segment_rows, frame);
            for (int step = 0; step < tile.steps; ++step) {
                const int y = tile.row(0, step);
                if (tile.needs(-1, y + LAG, height)) load_luma(frame, tile, y + LAG, lane);
                if (tile.needs(0, y, height)) first_step(fragments, offsets, frame, tile, y, lane);
                block_barrier();
            }
        }
    }
}
