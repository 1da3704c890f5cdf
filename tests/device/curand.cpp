// cuRAND made of software: uniform and normal numbers from a generator of splitmix64. NVIDIA's "cuRAND" reference describes the
// calls; its own numbers are other ones.
#include "stream.h"
#include <cmath>

struct Generator { uint64_t state = 0; void *stream = nullptr; };
static uint64_t next(uint64_t &state) {
    uint64_t z = (state += 0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}
static double uniform(uint64_t &state) { return ((next(state) >> 11) + 1) * 0x1p-53; } // in (0, 1], as cuRAND's

template <class T> static int fill(Generator *g, T *out, size_t n, bool normal, double mean, double deviation) {
    if (!software_owns(out, n * sizeof(T))) software_complain("cuRAND: %zu numbers outside an allocation", n);
    if (normal && n % 2) return 105; // CURAND_STATUS_LENGTH_NOT_MULTIPLE
    auto work = [=] {
        for (size_t i = 0; i < n; i++) {
            double u = uniform(g->state);
            if (normal) u = mean + deviation * std::sqrt(-2 * std::log(u)) * std::cos(2 * M_PI * uniform(g->state));
            out[i] = (T)u;
        }
    };
    return software_enqueue(g->stream, work) ? 0 : 201; // CURAND_STATUS_LAUNCH_FAILURE
}

extern "C" {
int curandCreateGenerator(Generator **g, int) { *g = new Generator; return 0; }
int curandDestroyGenerator(Generator *g) { delete g; return 0; }
int curandSetStream(Generator *g, void *stream) { g->stream = stream; return 0; }
int curandSetPseudoRandomGeneratorSeed(Generator *g, unsigned long long seed) { g->state = seed; return 0; }
int curandSetGeneratorOffset(Generator *g, unsigned long long offset) { g->state += offset * 0x9e3779b97f4a7c15; return 0; }
int curandGenerateUniform(Generator *g, float *out, size_t n) { return fill(g, out, n, false, 0, 1); }
int curandGenerateUniformDouble(Generator *g, double *out, size_t n) { return fill(g, out, n, false, 0, 1); }
int curandGenerateNormal(Generator *g, float *out, size_t n, float m, float s) { return fill(g, out, n, true, m, s); }
int curandGenerateNormalDouble(Generator *g, double *out, size_t n, double m, double s) { return fill(g, out, n, true, m, s); }
}
