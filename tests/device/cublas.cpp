// cuBLAS made of software: batched products of matrices, as NVIDIA's "cuBLAS" reference describes cublasGemmStridedBatchedEx:
// column after column, C = alpha op(A) op(B) + beta C, sums in f32 (f64 for doubles), operands rounded to TF32 where asked.
#include "numbers.h"
#include "stream.h"
#include <vector>

enum { OK = 0, NOT_INITIALIZED = 1, INVALID_VALUE = 7, EXECUTION_FAILED = 13, NOT_SUPPORTED = 15 };
struct Handle { uint32_t alive = 0xb1a5b1a5; void *stream = nullptr; };

static bool type_of(int cuda, Type &type) { // cudaDataType: CUDA_R_32F, CUDA_R_16F, CUDA_R_16BF
    if (cuda == 0) type = FLOAT;
    else if (cuda == 2) type = HALF;
    else if (cuda == 14) type = BFLOAT16;
    else return false;
    return true;
}

extern "C" {
int cublasCreate_v2(Handle **handle) { *handle = new Handle; return OK; }
int cublasDestroy_v2(Handle *handle) { handle->alive = 0; return OK; } // kept: a use after this is seen
int cublasSetStream_v2(Handle *handle, void *stream) {
    if (handle->alive != 0xb1a5b1a5) return NOT_INITIALIZED;
    handle->stream = stream;
    return OK;
}
int cublasGemmStridedBatchedEx(Handle *handle, int ta, int tb, int m, int n, int k, const void *alpha, const void *a, int at,
                               int lda, long long sa, const void *b, int bt, int ldb, long long sb, const void *beta, void *c,
                               int ct, int ldc, long long sc, int batches, int compute, int) {
    if (!handle || handle->alive != 0xb1a5b1a5) return NOT_INITIALIZED;
    Type ta_, tb_, tc_;
    if (!type_of(at, ta_) || !type_of(bt, tb_) || !type_of(ct, tc_) || ta_ != tb_) return NOT_SUPPORTED;
    // CUBLAS_COMPUTE_32F, and the faster 32F_FAST_16BF (bf16 operands) and 32F_FAST_TF32 (f32 operands).
    bool tf32 = compute == 77;
    if (compute != 68 && !tf32 && !(compute == 75 && ta_ != HALF)) return NOT_SUPPORTED;
    if (m < 0 || n < 0 || k < 0 || batches < 0) return INVALID_VALUE;
    int arows = ta ? k : m, acolumns = ta ? m : k, brows = tb ? n : k, bcolumns = tb ? k : n;
    if (lda < arows || ldb < brows || ldc < m || lda < 1 || ldb < 1 || ldc < 1) return INVALID_VALUE;
    if (!m || !n || !batches) return OK;
    auto reach = [&](long long stride, int ld, int rows, int columns, Type type) {
        return ((batches - 1) * stride + (long long)ld * (columns - 1) + rows) * size_of(type);
    };
    if ((k && (!software_owns(a, reach(sa, lda, arows, acolumns, ta_)) || !software_owns(b, reach(sb, ldb, brows, bcolumns, tb_)))) ||
        !software_owns(c, reach(sc, ldc, m, n, tc_)))
        software_complain("cuBLAS: a product of %d x %d x %d reaches outside an allocation", m, n, k);
    float by = *(const float *)alpha, keep = *(const float *)beta; // on the host, by the handle's pointer mode
    auto work = [=] {
        std::vector<float> left((size_t)m * k), right((size_t)k * n);
        auto rounded = [&](float v) { return tf32 && ta_ == FLOAT ? to_tf32(v) : v; };
        for (int batch = 0; batch < batches; batch++) {
            for (int i = 0; i < m; i++)
                for (int l = 0; l < k; l++)
                    left[(size_t)i * k + l] = rounded(get(a, ta_, batch * sa + (ta ? l + (long long)i * lda : i + (long long)l * lda)));
            for (int j = 0; j < n; j++)
                for (int l = 0; l < k; l++)
                    right[(size_t)j * k + l] = rounded(get(b, tb_, batch * sb + (tb ? j + (long long)l * ldb : l + (long long)j * ldb)));
            for (int j = 0; j < n; j++)
                for (int i = 0; i < m; i++) {
                    float sum = 0;
                    const float *x = &left[(size_t)i * k], *y = &right[(size_t)j * k];
#pragma omp simd reduction(+ : sum)
                    for (int l = 0; l < k; l++) sum += x[l] * y[l];
                    long long at = batch * sc + i + (long long)j * ldc;
                    put(c, tc_, at, keep ? by * sum + keep * get(c, tc_, at) : by * sum);
                }
        }
    };
    return software_enqueue(handle->stream, work) ? OK : EXECUTION_FAILED;
}
int cublasDgemmStridedBatched(Handle *handle, int ta, int tb, int m, int n, int k, const double *alpha, const double *a, int lda,
                              long long sa, const double *b, int ldb, long long sb, const double *beta, double *c, int ldc,
                              long long sc, int batches) {
    if (!handle || handle->alive != 0xb1a5b1a5) return NOT_INITIALIZED;
    if (lda < (ta ? k : m) || ldb < (tb ? n : k) || ldc < m) return INVALID_VALUE;
    double by = *alpha, keep = *beta;
    auto work = [=] {
        for (int batch = 0; batch < batches; batch++)
            for (int j = 0; j < n; j++)
                for (int i = 0; i < m; i++) {
                    double sum = 0;
                    for (int l = 0; l < k; l++)
                        sum += a[batch * sa + (ta ? l + (long long)i * lda : i + (long long)l * lda)] *
                               b[batch * sb + (tb ? j + (long long)l * ldb : l + (long long)j * ldb)];
                    double &out = c[batch * sc + i + (long long)j * ldc];
                    out = keep ? by * sum + keep * out : by * sum;
                }
    };
    return software_enqueue(handle->stream, work) ? OK : EXECUTION_FAILED;
}
}
