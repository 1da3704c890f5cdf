// The types of values in device memory.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

enum Type { FLOAT, HALF, BFLOAT16 };
inline size_t size_of(Type type) { return type == FLOAT ? 4 : 2; }

inline float get(const void *values, Type type, long long i) {
    if (type == FLOAT) return static_cast<const float *>(values)[i];
    uint16_t bits = static_cast<const uint16_t *>(values)[i];
    if (type == BFLOAT16) {
        uint32_t wide = (uint32_t)bits << 16;
        float f;
        memcpy(&f, &wide, 4);
        return f;
    }
    _Float16 h;
    memcpy(&h, &bits, 2);
    return (float)h;
}

// Rounds to `kept` bits of mantissa, to the nearest, ties to even.
inline float to_mantissa(float f, int kept) {
    if (!std::isfinite(f)) return f;
    uint32_t bits, drop = 23 - kept;
    memcpy(&bits, &f, 4);
    bits += (1u << (drop - 1)) - 1 + ((bits >> drop) & 1);
    bits &= ~((1u << drop) - 1);
    memcpy(&f, &bits, 4);
    return f;
}
inline float to_tf32(float f) { return to_mantissa(f, 10); }

inline void put(void *values, Type type, long long i, float f) {
    if (type == FLOAT) {
        static_cast<float *>(values)[i] = f;
    } else if (type == BFLOAT16) {
        float rounded = to_mantissa(f, 7);
        uint32_t bits;
        memcpy(&bits, &rounded, 4);
        static_cast<uint16_t *>(values)[i] = bits >> 16;
    } else {
        _Float16 h = (_Float16)f;
        memcpy(&static_cast<uint16_t *>(values)[i], &h, 2);
    }
}
