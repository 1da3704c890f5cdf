// The language of CUDA kernels, for a compiler of the host: what candle's and our own .cu files use of it. Every kernel of a
// file can be called by its name, block after block, the threads of a block one after another. Where a file has barriers or
// shuffles (SOFTWARE_THREADS_WAIT), each thread has a stack of its own and they take turns.
//
// Differences from a GPU: `__half` and `__nv_bfloat16` expressions are computed in f32 and rounded when stored.
#pragma once
#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <tuple>
#include <type_traits>
#include <utility>

#ifndef __global__
#define __global__
#endif
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __restrict__ __restrict
// Blocks run one after another, so that what a block shares may be static.
#define __shared__ static
#ifndef INFINITY
#define INFINITY HUGE_VALF
#endif

struct uint3 { unsigned x, y, z; };
struct dim3 { unsigned x, y, z; };
struct float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
inline float2 make_float2(float x, float y) { return {x, y}; }

// Where the thread that runs is.
extern "C" {
extern uint3 software_thread, software_block;
extern dim3 software_threads, software_blocks;
void *software_shared(); // the launch's dynamic shared memory
void software_barrier();
uint64_t software_shuffle(uint64_t value, unsigned source_lane, unsigned width);
}
#define threadIdx software_thread
#define blockIdx software_block
#define blockDim software_threads
#define gridDim software_blocks
#define __syncthreads software_barrier

template <class T> T software_exchange(T value, unsigned source, unsigned width) {
    static_assert(sizeof(T) <= 8);
    uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof(T));
    bits = software_shuffle(bits, source, width);
    std::memcpy(&value, &bits, sizeof(T));
    return value;
}
inline unsigned software_lane() {
    return (software_thread.x + software_threads.x * (software_thread.y + software_threads.y * software_thread.z)) % 32;
}
template <class T> T __shfl_xor_sync(unsigned, T value, int mask, int width = 32) {
    return software_exchange(value, software_lane() ^ mask, width);
}

// --- numbers of 16 and 8 bits

inline float software_f32(uint32_t bits) { float f; std::memcpy(&f, &bits, 4); return f; }
inline uint32_t software_bits(float f) { uint32_t b; std::memcpy(&b, &f, 4); return b; }

inline uint16_t software_to_bf16(float f) {
    uint32_t b = software_bits(f);
    if (std::isnan(f)) return 0x7fff;
    return (b + 0x7fff + ((b >> 16) & 1)) >> 16; // to the nearest, ties to even
}
inline uint16_t software_to_f16(float f) { _Float16 h = (_Float16)f; uint16_t b; std::memcpy(&b, &h, 2); return b; }
inline float software_from_f16(uint16_t b) { _Float16 h; std::memcpy(&h, &b, 2); return (float)h; }

#define SOFTWARE_SMALL(NAME, TO, FROM)                                                                  \
    struct NAME {                                                                                       \
        uint16_t bits;                                                                                  \
        NAME() = default;                                                                               \
        template <class T, class = std::enable_if_t<std::is_arithmetic_v<T>>> NAME(T v) : bits(TO((float)v)) {} \
        operator float() const { return FROM; }                                                         \
        template <class T> NAME &operator+=(T o) { return *this = NAME((float)*this + (float)o); }      \
        template <class T> NAME &operator*=(T o) { return *this = NAME((float)*this * (float)o); }      \
    };
SOFTWARE_SMALL(__half, software_to_f16, software_from_f16(bits))
SOFTWARE_SMALL(__nv_bfloat16, software_to_bf16, software_f32((uint32_t)bits << 16))
struct __half2 { __half x, y; };
struct __nv_bfloat162 { __nv_bfloat16 x, y; };

inline float __half2float(__half h) { return h; }
inline __half __float2half(float f) { return f; }
inline float __bfloat162float(__nv_bfloat16 h) { return h; }
inline __nv_bfloat16 __float2bfloat16(float f) { return f; }
inline __nv_bfloat16 __float2bfloat16_rn(float f) { return f; }
inline unsigned short __half_as_ushort(__half h) { return h.bits; }
inline __half __ushort_as_half(unsigned short b) { __half h; h.bits = b; return h; }
inline __nv_bfloat162 __hadd2(__nv_bfloat162 a, __nv_bfloat162 b) { return {a.x + b.x, a.y + b.y}; }
inline __nv_bfloat162 __hmul2(__nv_bfloat162 a, __nv_bfloat162 b) { return {a.x * b.x, a.y * b.y}; }
#define SOFTWARE_FUNCTIONS(T)                                                                     \
    inline bool __hisnan(T a) { return std::isnan((float)a); }                                    \
    inline T __hmax_nan(T a, T b) { return __hisnan(a) ? a : __hisnan(b) ? b : (float)a > (float)b ? a : b; } \
    inline T __hmin_nan(T a, T b) { return __hisnan(a) ? a : __hisnan(b) ? b : (float)a < (float)b ? a : b; } \
    inline T hsqrt(T a) { return std::sqrt((float)a); }                                           \
    inline T hcos(T a) { return std::cos((float)a); }                                             \
    inline T hsin(T a) { return std::sin((float)a); }                                             \
    inline T hlog(T a) { return std::log((float)a); }                                             \
    inline T hexp(T a) { return std::exp((float)a); }                                             \
    inline T __habs(T a) { return std::fabs((float)a); }
SOFTWARE_FUNCTIONS(__half)
SOFTWARE_FUNCTIONS(__nv_bfloat16)

// OCP 8-bit floating point, E4M3: bias 7, no infinity, NaN with all exponent and mantissa bits set.
inline float software_from_e4m3(uint8_t b) {
    int exponent = (b >> 3) & 15, mantissa = b & 7;
    float f = (b & 127) == 127 ? NAN : exponent ? std::ldexp(8 + mantissa, exponent - 10) : std::ldexp(mantissa, -9);
    return b & 128 ? -f : f;
}
struct __nv_fp8_e4m3 {
    uint8_t __x;
    __nv_fp8_e4m3() = default;
    template <class T, class = std::enable_if_t<std::is_convertible_v<T, float>>> __nv_fp8_e4m3(T v) {
        float f = (float)v, best = INFINITY;
        if (std::isnan(f)) { __x = 127; return; }
        for (int b = 0; b < 127; b++) { // saturates; to the nearest, ties to an even mantissa
            float d = std::fabs(std::fabs(f) - software_from_e4m3(b));
            if (d < best || (d == best && b % 2 == 0)) { best = d; __x = b; }
        }
        if (std::signbit(f)) __x |= 128;
    }
    operator float() const { return software_from_e4m3(__x); }
};
enum { __NV_E4M3 };
inline __half __nv_cvt_fp8_to_halfraw(uint8_t x, int) { return software_from_e4m3(x); }

// --- functions

using std::isnan;
using std::signbit;
template <class A, class B> constexpr std::common_type_t<A, B> min(A a, B b) {
    using T = std::common_type_t<A, B>;
    return (T)b < (T)a ? (T)b : (T)a;
}
template <class A, class B> constexpr std::common_type_t<A, B> max(A a, B b) {
    using T = std::common_type_t<A, B>;
    return (T)a < (T)b ? (T)b : (T)a;
}
inline float rsqrtf(float x) { return 1 / std::sqrt(x); }
inline double normcdf(double x) { return .5 * std::erfc(-x * M_SQRT1_2); }
inline float normcdff(float x) { return (float)normcdf((double)x); }
inline int __float_as_int(float f) { return (int)software_bits(f); }
inline unsigned __float_as_uint(float f) { return software_bits(f); }
inline float __int_as_float(int i) { return software_f32((uint32_t)i); }
inline float __uint_as_float(unsigned i) { return software_f32(i); }
inline long long __double_as_longlong(double d) { long long l; std::memcpy(&l, &d, 8); return l; }
inline double __longlong_as_double(long long l) { double d; std::memcpy(&d, &l, 8); return d; }

// One thread runs at a time.
template <class T, class V> T atomicAdd(T *at, V value) { T old = *at; *at = old + (T)value; return old; }
template <class T> T atomicCAS(T *at, T expected, T value) { T old = *at; if (old == expected) *at = value; return old; }
template <class T, class V> T atomicMax(T *at, V value) { T old = *at; if (old < (T)value) *at = value; return old; }
template <class T, class V> T atomicMin(T *at, V value) { T old = *at; if ((T)value < old) *at = value; return old; }

// --- kernels by name

struct Software_kernel {
    const char *name;
    void (*call)(void *const *parameters); // one thread
    unsigned count;                        // of parameters, and their sizes in bytes
    const unsigned *sizes;
    bool threads_wait;
    Software_kernel *next;
};
extern "C" void software_register(Software_kernel *);

template <auto F> struct Software_call;
template <class... P, void (*F)(P...)> struct Software_call<F> {
    static constexpr unsigned count = sizeof...(P);
    static constexpr unsigned sizes[] = {sizeof(P)..., 0};
    template <std::size_t... I> static void spread(void *const *p, std::index_sequence<I...>) {
        F(*static_cast<std::remove_const_t<P> *>(p[I])...);
    }
    static void call(void *const *p) { spread(p, std::index_sequence_for<P...>()); }
};
#ifndef SOFTWARE_THREADS_WAIT
#define SOFTWARE_THREADS_WAIT false
#endif
#define SOFTWARE_KERNEL(F)                                                                                           \
    static Software_kernel software_kernel_##F = {#F, Software_call<F>::call, Software_call<F>::count,               \
                                                  Software_call<F>::sizes, SOFTWARE_THREADS_WAIT, nullptr};          \
    static const bool software_known_##F = (software_register(&software_kernel_##F), true);
