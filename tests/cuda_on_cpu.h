// Runs streamsr/runtimes/fused_kernel.cu on a CPU, so that its indices, borders and barriers can be tested anywhere.
//
// Every CUDA thread is a fiber. The warp-wide instructions (ldmatrix, stmatrix, mma, __syncwarp) meet here with the
// register layout of the PTX manual: lane = 4 * g + t. Warps run in an order drawn from a seed, and change places after
// a random number of warp-wide instructions: a result that depends on the seed is a missing barrier. Shared memory
// starts as NaN. A warp whose lanes meet in different instructions, or an address outside shared memory, ends the launch
// with a message.
#pragma once
#include <setjmp.h>
#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#define CUDA_ON_CPU 1
#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)

template <class T>
T min(T a, T b) {
    return a < b ? a : b;
}
template <class T>
T max(T a, T b) {
    return a < b ? b : a;
}

struct Index {
    int x;
};
static Index threadIdx, blockIdx, gridDim;
alignas(128) static unsigned char shared_bytes[232448];

namespace emulation {

constexpr int WARP = 32, STACK_BYTES = 1 << 17;
enum Meeting { NOTHING, LOAD, STORE, MULTIPLY, MULTIPLY_HALVES, SYNC_WARP, SYNC_BLOCK };

struct Lane {
    jmp_buf place;
    std::unique_ptr<char[]> stack;
    ucontext_t start;
    bool started = false, done = false;
    Meeting meeting = NOTHING;
    uint32_t address = 0, a[4] = {}, b[2] = {};
    float sums[4] = {};
};

static std::vector<Lane> lanes;
static jmp_buf scheduler, caller;
static char failure[200];
static int current = 0, shared_size = 0;
static long long num_multiplies = 0, num_loads = 0;
static float half_values[65536];

inline float half_to_float(uint16_t half) {
    const int exponent = half >> 10 & 31, mantissa = half & 1023;
    const float sign = half & 0x8000 ? -1.0f : 1.0f;
    if (exponent == 31) return mantissa ? NAN : sign * INFINITY;
    if (exponent == 0) return sign * std::ldexp(static_cast<float>(mantissa), -24);
    return sign * std::ldexp(static_cast<float>(mantissa + 1024), exponent - 25);
}

inline uint16_t float_to_half(float value) {
    const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
    const float size = std::fabs(value);
    if (std::isnan(value)) return 0x7fff;
    if (size >= 65520.0f) return sign | 0x7c00;
    if (size < 6.103515625e-05f) return sign | static_cast<uint16_t>(std::nearbyint(std::ldexp(size, 24)));
    int exponent;
    const float fraction = std::frexp(size, &exponent);  // in [0.5, 1)
    const int mantissa = static_cast<int>(std::nearbyint(std::ldexp(fraction, 11)));
    return sign | static_cast<uint16_t>(((exponent + 13) << 10) + mantissa);
}

[[noreturn]] inline void fail(const char* message, long long value) {
    std::snprintf(failure, sizeof(failure), "thread %d: %s (%lld)", current, message, value);
    _longjmp(caller, 1);
}

// Wait, as this lane, until all lanes of the warp (or block) are here.
inline void meet(Meeting meeting) {
    Lane& lane = lanes[current];
    lane.meeting = meeting;
    if (_setjmp(lane.place) == 0) _longjmp(scheduler, 1);
}

inline unsigned char* row_of(uint32_t address) {
    if (address % 16 != 0) fail("matrix row that is not on 16 bytes", address);
    if (address + 16 > static_cast<uint32_t>(shared_size)) fail("matrix row outside shared memory", address);
    return shared_bytes + address;
}

inline void load(Lane* warp) {
    ++num_loads;
    for (int matrix = 0; matrix < 4; ++matrix)
        for (int lane = 0; lane < WARP; ++lane)
            std::memcpy(&warp[lane].a[matrix], row_of(warp[matrix * 8 + lane / 4].address) + lane % 4 * 4, 4);
}

inline void store(Lane* warp) {
    for (int matrix = 0; matrix < 4; ++matrix)
        for (int lane = 0; lane < WARP; ++lane)
            std::memcpy(row_of(warp[matrix * 8 + lane / 4].address) + lane % 4 * 4, &warp[lane].a[matrix], 4);
}

inline void multiply(Lane* warp) {
    ++num_multiplies;
    float a[16][16], b[16][8];
    for (int lane = 0; lane < WARP; ++lane) {
        const int g = lane / 4, t = lane % 4;
        for (int half = 0; half < 2; ++half) {
            for (int word = 0; word < 4; ++word)
                a[g + word % 2 * 8][2 * t + half + word / 2 * 8] = half_values[warp[lane].a[word] >> 16 * half & 0xffff];
            for (int word = 0; word < 2; ++word)
                b[2 * t + half + word * 8][g] = half_values[warp[lane].b[word] >> 16 * half & 0xffff];
        }
    }
    for (int lane = 0; lane < WARP; ++lane)
        for (int place = 0; place < 4; ++place) {
            const int row = lane / 4 + place / 2 * 8, column = lane % 4 * 2 + place % 2;
            float sum = 0;
            for (int k = 0; k < 16; ++k) sum += a[row][k] * b[k][column];
            warp[lane].sums[place] += sum;
        }
}

// Go on with one lane until it meets others or ends.
inline void resume(int thread) {
    current = thread;
    threadIdx.x = thread;
    Lane& lane = lanes[thread];
    if (_setjmp(scheduler) != 0) return;
    if (lane.started) _longjmp(lane.place, 1);
    lane.started = true;
    setcontext(&lane.start);
}

// Let a warp take one step; returns whether it has to wait for others or has ended.
inline bool step_warp(int warp) {
    Lane* first = &lanes[warp * WARP];
    const Meeting meeting = first->meeting;
    for (int lane = 0; lane < WARP; ++lane)
        if (first[lane].meeting != meeting || first[lane].done != first->done) fail("lanes apart in warp", warp);
    if (first->done || meeting == SYNC_BLOCK) return true;
    if (meeting == LOAD) load(first);
    if (meeting == STORE) store(first);
    if (meeting == MULTIPLY || meeting == MULTIPLY_HALVES) multiply(first);
    for (int lane = 0; lane < WARP; ++lane) resume(warp * WARP + lane);
    return first->done || first->meeting == SYNC_BLOCK;
}

static void (*body)();

inline void run_lane() {
    body();
    lanes[current].done = true;
    lanes[current].meeting = NOTHING;
    _longjmp(scheduler, 1);
}

inline uint32_t draw(uint32_t& state) {
    state ^= state << 13;
    state ^= state >> 17;
    return state ^= state << 5;
}

inline void run_block(int threads, uint32_t& state) {
    const int num_warps = threads / WARP;
    lanes = std::vector<Lane>(threads);
    for (Lane& lane : lanes) {
        lane.stack.reset(new char[STACK_BYTES]);
        getcontext(&lane.start);
        lane.start.uc_stack.ss_sp = lane.stack.get();
        lane.start.uc_stack.ss_size = STACK_BYTES;
        makecontext(&lane.start, run_lane, 0);
    }
    while (true) {
        std::vector<int> ready;
        int num_done = 0, num_at_barrier = 0;
        for (int warp = 0; warp < num_warps; ++warp) {
            const Lane& first = lanes[warp * WARP];
            num_done += first.done;
            num_at_barrier += first.meeting == SYNC_BLOCK;
            if (!first.done && first.meeting != SYNC_BLOCK) ready.push_back(warp);
        }
        if (num_done == num_warps) return;
        if (num_at_barrier == num_warps) {
            for (Lane& lane : lanes) lane.meeting = NOTHING;
            continue;
        }
        if (ready.empty()) fail("all warps wait for each other; at the barrier", num_at_barrier);
        const int warp = ready[draw(state) % ready.size()];
        bool stopped = false;
        for (uint32_t turns = 1 + draw(state) % 400; turns > 0 && !stopped; --turns) stopped = step_warp(warp);
    }
}

}  // namespace emulation

inline uint32_t shared_address(int offset) { return offset; }
inline void block_barrier() { emulation::meet(emulation::SYNC_BLOCK); }
inline void __syncwarp() { emulation::meet(emulation::SYNC_WARP); }

inline void load_matrices(uint32_t (&words)[4], uint32_t address) {
    emulation::lanes[emulation::current].address = address;
    emulation::meet(emulation::LOAD);
    std::memcpy(words, emulation::lanes[emulation::current].a, 16);
}

inline void store_matrices(uint32_t address, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
    emulation::Lane& lane = emulation::lanes[emulation::current];
    const uint32_t words[4] = {a, b, c, d};
    lane.address = address;
    std::memcpy(lane.a, words, 16);
    emulation::meet(emulation::STORE);
}

inline void multiply_add(float (&sums)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    emulation::Lane& lane = emulation::lanes[emulation::current];
    std::memcpy(lane.sums, sums, 16);
    std::memcpy(lane.a, a, 16);
    std::memcpy(lane.b, b, 8);
    emulation::meet(emulation::MULTIPLY);
    std::memcpy(sums, emulation::lanes[emulation::current].sums, 16);
}

inline uint32_t pack_halves(float low, float high) {
    return emulation::float_to_half(low) | static_cast<uint32_t>(emulation::float_to_half(high)) << 16;
}

inline void multiply_add(uint32_t (&sums)[2], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    emulation::Lane& lane = emulation::lanes[emulation::current];
    for (int place = 0; place < 4; ++place)
        lane.sums[place] = emulation::half_values[sums[place / 2] >> place % 2 * 16 & 0xffff];
    std::memcpy(lane.a, a, 16);
    std::memcpy(lane.b, b, 8);
    emulation::meet(emulation::MULTIPLY_HALVES);
    const float* results = emulation::lanes[emulation::current].sums;
    sums[0] = pack_halves(results[0], results[1]);
    sums[1] = pack_halves(results[2], results[3]);
}

inline uint32_t positive_halves(uint32_t halves) {
    const uint32_t low = halves & 0xffff, high = halves >> 16;
    return (low & 0x8000 ? 0 : low) | (high & 0x8000 ? 0 : high) << 16;
}

inline uint32_t pack_positive_halves(float low, float high) {
    return pack_halves(low > 0 ? low : (std::isnan(low) ? low : 0), high > 0 ? high : (std::isnan(high) ? high : 0));
}

inline uint32_t round_to_byte(float level) {
    const float clamped = std::fmin(std::fmax(level, 0.0f), 255.0f) + 12582912.0f;
    uint32_t bits;
    std::memcpy(&bits, &clamped, 4);
    return bits & 255u;
}

extern "C" void enlarge(const unsigned char*, unsigned char*, const unsigned*, const float*, int, int, int, int, int, int,
                        int, int);

namespace emulation {

struct Arguments {
    const unsigned char* luma;
    unsigned char* enlarged;
    const unsigned* weights;
    const float* biases;
    int height, width, luma_pitch, enlarged_pitch, strip_width, strips, segment_rows, num_tiles;
};
static Arguments arguments;

inline void call_kernel() {
    const Arguments& a = arguments;
    enlarge(a.luma, a.enlarged, a.weights, a.biases, a.height, a.width, a.luma_pitch, a.enlarged_pitch, a.strip_width,
            a.strips, a.segment_rows, a.num_tiles);
}

}  // namespace emulation

// Run the kernel as a launch of so many blocks, threads a block and bytes of shared memory.
// Returns an empty line, or what went wrong; counts: matrix products and matrix loads.
extern "C" const char* launch_on_cpu(const emulation::Arguments* arguments, int num_blocks, int threads, int bytes,
                                     unsigned seed, long long* counts) {
    using namespace emulation;
    failure[0] = 0;
    if (_setjmp(caller) != 0) return failure;
    for (int half = 0; half < 65536; ++half) half_values[half] = half_to_float(static_cast<uint16_t>(half));
    if (bytes > static_cast<int>(sizeof(shared_bytes))) fail("too much shared memory", bytes);
    emulation::arguments = *arguments;
    body = call_kernel;
    shared_size = bytes;
    num_multiplies = num_loads = 0;
    uint32_t state = seed * 2654435761u | 1u;
    gridDim.x = num_blocks;
    for (blockIdx.x = 0; blockIdx.x < num_blocks; ++blockIdx.x) {
        std::memset(shared_bytes, 0xff, sizeof(shared_bytes));
        run_block(threads, state);
    }
    counts[0] = num_multiplies;
    counts[1] = num_loads;
    return failure;
}
