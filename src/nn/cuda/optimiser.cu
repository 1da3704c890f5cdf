// The updates of src/nn/optimiser.rs, element by element. scripts/cuda-kernels compiles this file to optimiser.ptx.

#define EACH(i, n) for (unsigned long long i = blockIdx.x * (unsigned long long)blockDim.x + threadIdx.x; i < n; \
                        i += (unsigned long long)gridDim.x * blockDim.x)

// a = keep a + rest g
extern "C" __global__ void moment(unsigned long long n, float *a, const float *g, float keep, float rest) {
  EACH(i, n) a[i] = keep * a[i] + rest * g[i];
}

// a = keep a + rest g g
extern "C" __global__ void moment_of_squares(unsigned long long n, float *a, const float *g, float keep, float rest) {
  EACH(i, n) a[i] = keep * a[i] + rest * (g[i] * g[i]);
}

// p = shrink p - rate m / (sqrt(v) / root + epsilon)
extern "C" __global__ void adamw(unsigned long long n, float *p, const float *m, const float *v, float shrink, float rate,
                                 float root, float epsilon) {
  EACH(i, n) p[i] = shrink * p[i] - rate * (m[i] / (sqrtf(v[i]) / root + epsilon));
}

// b = momentum b + g + decay p
extern "C" __global__ void momentum(unsigned long long n, float *b, const float *g, const float *p, float momentum,
                                    float decay) {
  EACH(i, n) b[i] = momentum * b[i] + (g[i] + decay * p[i]);
}

// p = p - rate b
extern "C" __global__ void descend(unsigned long long n, float *p, const float *b, float rate) {
  EACH(i, n) p[i] = p[i] - rate * b[i];
}
