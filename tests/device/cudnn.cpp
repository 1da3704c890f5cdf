// cuDNN made of software: the calls that the program and candle make, written from NVIDIA's "cuDNN legacy API" reference, plainly,
// and strict about what it demands of descriptors, sizes, types and workspaces. Sums are in f32; with
// CUDNN_DEFAULT_MATH operands of f32 are rounded to TF32, as on GPUs that have it; bf16 is rounded when stored.
//
//   SOFTWARE_GPU_REFUSE=N   every N-th shape of convolution is refused by its first algorithm when it is run
//                           (CUDNN_STATUS_NOT_SUPPORTED), as GPUs do with some (default 3; 0: never)
#include "numbers.h"
#include "stream.h"
#include <cstdlib>
#include <vector>

enum Status {
    OK = 0, NOT_INITIALIZED = 1001, BAD_PARAM = 2000, NULL_POINTER = 2002, MISALIGNED = 2003, SIZE_INSUFFICIENT = 2006,
    SHAPE_MISMATCH = 2008, NOT_SUPPORTED = 3000, NOT_SUPPORTED_DATA_TYPE = 3003, NOT_SUPPORTED_LAYOUT = 3004, EXECUTION_FAILED = 5000,
};
using Pointer = const void *;

// A descriptor is never freed, so that a use after its end is seen.
template <uint32_t KIND> struct Alive {
    uint32_t alive = KIND;
    bool is() const { return this && alive == KIND; }
};
struct Handle : Alive<0xd0> { void *stream = nullptr; };
struct Tensor : Alive<0xd1> { bool set = false; Type type; int n, c, h, w; long long sn, sc, sh, sw; };
struct Filter : Alive<0xd2> { bool set = false; Type type; bool nhwc; int k, c, h, w; };
struct Convolution : Alive<0xd3> { bool set = false; int ph, pw, sh, sw, dh, dw, math = 0, groups = 1; };
struct Activation : Alive<0xd4> { bool set = false; int mode, nan; };
struct Pooling : Alive<0xd5> { bool set = false; int mode, nan, window[2], padding[2], stride[2]; };

// Says which demand was not met, as the libraries' own logging does.
#define DEMAND(condition, status)                                                            \
    if (!(condition)) {                                                                      \
        software_complain("%s: not so: %s", __func__, #condition);                           \
        return status;                                                                       \
    }
#define SOUND(d) DEMAND((d)->is() && (d)->set, BAD_PARAM)

static bool type_of(int dnn, Type &type) { // CUDNN_DATA_FLOAT, _HALF, _BFLOAT16
    if (dnn == 0) type = FLOAT;
    else if (dnn == 2) type = HALF;
    else if (dnn == 9) type = BFLOAT16;
    else return false;
    return true;
}

static long long extent(const Tensor *t) { // elements from the first to the last
    return 1 + (t->n - 1) * t->sn + (t->c - 1) * t->sc + (t->h - 1) * t->sh + (t->w - 1) * t->sw;
}
static bool lives(Pointer p, const Tensor *t) {
    return (uintptr_t)p % size_of(t->type) == 0 && software_owns(p, extent(t) * size_of(t->type));
}
static bool lives(Pointer p, const Filter *f) {
    return (uintptr_t)p % size_of(f->type) == 0 && software_owns(p, (size_t)f->k * f->c * f->h * f->w * size_of(f->type));
}
static bool same(const Tensor *a, const Tensor *b) {
    return a->type == b->type && a->n == b->n && a->c == b->c && a->h == b->h && a->w == b->w;
}
static bool alike(const Tensor *a, const Tensor *b) { // strides too
    return same(a, b) && a->sn == b->sn && a->sc == b->sc && a->sh == b->sh && a->sw == b->sw;
}

// Values as f32, in the order n, h, w, c.
using Values = std::vector<float>;
static Values taken(Pointer p, const Tensor &t) {
    Values values((size_t)t.n * t.h * t.w * t.c);
    size_t i = 0;
    for (int n = 0; n < t.n; n++)
        for (int h = 0; h < t.h; h++)
            for (int w = 0; w < t.w; w++)
                for (int c = 0; c < t.c; c++) values[i++] = get(p, t.type, n * t.sn + h * t.sh + w * t.sw + c * t.sc);
    return values;
}
// out = alpha values + beta out; with beta = 0 what was there is not read.
static void given(void *p, const Tensor &t, const Values &values, float alpha, float beta) {
    size_t i = 0;
    for (int n = 0; n < t.n; n++)
        for (int h = 0; h < t.h; h++)
            for (int w = 0; w < t.w; w++)
                for (int c = 0; c < t.c; c++, i++) {
                    long long at = n * t.sn + h * t.sh + w * t.sw + c * t.sc;
                    put(p, t.type, at, beta ? alpha * values[i] + beta * get(p, t.type, at) : alpha * values[i]);
                }
}
// Weights in the order k, h, w, c.
static size_t place(const Filter &f, int k, int h, int w, int c) {
    return f.nhwc ? (((size_t)k * f.h + h) * f.w + w) * f.c + c : (((size_t)k * f.c + c) * f.h + h) * f.w + w;
}
static Values taken(Pointer p, const Filter &f) {
    Values values((size_t)f.k * f.h * f.w * f.c);
    size_t i = 0;
    for (int k = 0; k < f.k; k++)
        for (int h = 0; h < f.h; h++)
            for (int w = 0; w < f.w; w++)
                for (int c = 0; c < f.c; c++) values[i++] = get(p, f.type, place(f, k, h, w, c));
    return values;
}
static void given(void *p, const Filter &f, const Values &values, float alpha, float beta) {
    size_t i = 0;
    for (int k = 0; k < f.k; k++)
        for (int h = 0; h < f.h; h++)
            for (int w = 0; w < f.w; w++)
                for (int c = 0; c < f.c; c++, i++) {
                    size_t at = place(f, k, h, w, c);
                    put(p, f.type, at, beta ? alpha * values[i] + beta * get(p, f.type, at) : alpha * values[i]);
                }
}

// --- convolution

static int outputs(int in, int padding, int kernel, int stride, int dilation) {
    return 1 + (in + 2 * padding - (dilation * (kernel - 1) + 1)) / stride;
}
static Status fits(const Tensor *x, const Filter *w, const Convolution *conv, const Tensor *y) {
    SOUND(x) SOUND(w) SOUND(conv) SOUND(y)
    DEMAND(conv->groups == 1, NOT_SUPPORTED)
    DEMAND(x->type == w->type && w->type == y->type, NOT_SUPPORTED_DATA_TYPE)
    DEMAND(x->c == w->c && y->c == w->k && x->n == y->n, SHAPE_MISMATCH)
    DEMAND(y->h == outputs(x->h, conv->ph, w->h, conv->sh, conv->dh), SHAPE_MISMATCH)
    DEMAND(y->w == outputs(x->w, conv->pw, w->w, conv->sw, conv->dw), SHAPE_MISMATCH)
    // Weights in NHWC need maps in NHWC; weights in NCHW take maps of any strides.
    DEMAND(!w->nhwc || (x->sc == 1 && y->sc == 1), NOT_SUPPORTED_LAYOUT)
    return OK;
}

// Calls `f(y row, x row, w row)` with the positions of every tap of every output pixel.
template <class F> static void taps(const Tensor &x, const Filter &w, const Convolution &conv, const Tensor &y, F f) {
    for (int n = 0; n < y.n; n++)
        for (int oh = 0; oh < y.h; oh++)
            for (int ow = 0; ow < y.w; ow++)
                for (int kh = 0; kh < w.h; kh++)
                    for (int kw = 0; kw < w.w; kw++) {
                        int ih = oh * conv.sh - conv.ph + kh * conv.dh, iw = ow * conv.sw - conv.pw + kw * conv.dw;
                        if (ih < 0 || iw < 0 || ih >= x.h || iw >= x.w) continue;
                        f((((size_t)n * y.h + oh) * y.w + ow) * y.c, (((size_t)n * x.h + ih) * x.w + iw) * x.c, (size_t)kh * w.w + kw);
                    }
}
static void round_operands(Values &a, Values &b, Type type, int math) {
    if (type != FLOAT || math == 3) return; // CUDNN_FMA_MATH
    for (float &v : a) v = to_tf32(v);
    for (float &v : b) v = to_tf32(v);
}
static Values convolved(Values x, Values w, const Tensor &xd, const Filter &wd, const Convolution &conv, const Tensor &yd) {
    round_operands(x, w, xd.type, conv.math);
    Values y((size_t)yd.n * yd.h * yd.w * yd.c);
    int taps_of_one = wd.h * wd.w, c = wd.c;
    taps(xd, wd, conv, yd, [&](size_t yr, size_t xr, size_t tap) {
        for (int k = 0; k < wd.k; k++) {
            const float *a = &x[xr], *b = &w[((size_t)k * taps_of_one + tap) * c];
            float sum = 0;
#pragma omp simd reduction(+ : sum)
            for (int i = 0; i < c; i++) sum += a[i] * b[i];
            y[yr + k] += sum;
        }
    });
    return y;
}

// What an algorithm needs: 0 none, the others some, so that a workspace that is too small is found.
static size_t workspace(int algorithm, const Tensor *x, const Tensor *y) {
    return algorithm == 0 ? 0 : 64 + (size_t)algorithm * 256 + (size_t)(x->h + y->h);
}
static bool refuses(int algorithm, int first, const Tensor *x, const Filter *w) {
    const char *every = getenv("SOFTWARE_GPU_REFUSE");
    int n = every ? atoi(every) : 3;
    return n && algorithm == first && (x->c + w->k + 3 * w->h + 5 * w->w + x->h) % n == 0;
}
struct Performance { int algorithm; int status; float time; size_t memory; int determinism; int math; int reserved[3]; };
static_assert(sizeof(Performance) == 48);
// In the order of a GPU's liking: the fastest first, one that is not deterministic, one that does not work at all.
static void offer(const int (&algorithms)[4], int not_deterministic, const Tensor *x, const Tensor *y, int math, int wanted, int *count,
                  Performance *found) {
    *count = wanted < 4 ? wanted : 4;
    for (int i = 0; i < *count; i++) {
        int a = algorithms[i];
        bool works = i < 3;
        found[i] = {a, works ? OK : NOT_SUPPORTED, works ? i + 1.f : -1.f, works ? workspace(a, x, y) : 0, a != not_deterministic, math, {}};
    }
}
static const int FORWARD[4] = {7, 1, 0, 4}, DATA[4] = {5, 1, 0, 2}, FILTER[4] = {5, 1, 0, 2}; // Winograd first
#define WORKS_WITH(algorithm, list, x, y, space, bytes)                                                             \
    DEMAND(algorithm == list[0] || algorithm == list[1] || algorithm == list[2], NOT_SUPPORTED)                     \
    DEMAND(bytes >= workspace(algorithm, x, y), SIZE_INSUFFICIENT)                                                  \
    DEMAND(!workspace(algorithm, x, y) || software_owns(space, bytes), NULL_POINTER)
// What all three convolutions demand, of the maps before and behind and of the weights at these addresses.
#define CONVOLVES(x, w, y, list)                                                                                    \
    DEMAND(handle->is(), NOT_INITIALIZED)                                                                           \
    FACTORS                                                                                                         \
    if (Status s = fits(xd, wd, conv, yd)) return s;                                                                \
    DEMAND(lives(x, xd) && lives(w, wd) && lives(y, yd), BAD_PARAM)                                                 \
    WORKS_WITH(algorithm, list, xd, yd, space, bytes)                                                               \
    if (refuses(algorithm, list[0], xd, wd)) return NOT_SUPPORTED;
// An algorithm may use all of the workspace that it asked for.
static void scribble(void *space, size_t bytes) {
    if (bytes) memset(space, 0xff, bytes);
}
#define ENQUEUE(handle, ...) return software_enqueue((handle)->stream, __VA_ARGS__) ? OK : EXECUTION_FAILED
#define FACTORS DEMAND(alpha && beta, NULL_POINTER) float by = *(const float *)alpha, keep = *(const float *)beta;

extern "C" {

size_t cudnnGetVersion() { return 91000; }
const char *cudnnGetErrorString(Status status) {
    return status == OK ? "CUDNN_STATUS_SUCCESS" : status / 1000 == 3 ? "CUDNN_STATUS_NOT_SUPPORTED" : "an error of the software cuDNN";
}
Status cudnnCreate(Handle **handle) { *handle = new Handle; return OK; }
Status cudnnDestroy(Handle *handle) { handle->alive = 0; return OK; }
Status cudnnSetStream(Handle *handle, void *stream) {
    DEMAND(handle->is(), NOT_INITIALIZED)
    handle->stream = stream;
    return OK;
}

#define LIFE(NAME, T)                                                       \
    Status cudnnCreate##NAME(T **d) { *d = new T; return OK; }              \
    Status cudnnDestroy##NAME(T *d) { DEMAND(d->is(), BAD_PARAM) d->alive = 0; return OK; }
LIFE(TensorDescriptor, Tensor)
LIFE(FilterDescriptor, Filter)
LIFE(ConvolutionDescriptor, Convolution)
LIFE(ActivationDescriptor, Activation)
LIFE(PoolingDescriptor, Pooling)

Status cudnnSetTensor4dDescriptorEx(Tensor *t, int type, int n, int c, int h, int w, int sn, int sc, int sh, int sw) {
    DEMAND(t->is(), BAD_PARAM)
    DEMAND(n > 0 && c > 0 && h > 0 && w > 0, BAD_PARAM)
    DEMAND(type_of(type, t->type), NOT_SUPPORTED_DATA_TYPE)
    t->n = n; t->c = c; t->h = h; t->w = w;
    t->sn = sn; t->sc = sc; t->sh = sh; t->sw = sw;
    t->set = true;
    return OK;
}
Status cudnnSetTensor4dDescriptor(Tensor *t, int format, int type, int n, int c, int h, int w) {
    DEMAND(format == 0 || format == 1, NOT_SUPPORTED_LAYOUT) // NCHW, NHWC
    if (format == 1) return cudnnSetTensor4dDescriptorEx(t, type, n, c, h, w, h * w * c, 1, w * c, c);
    return cudnnSetTensor4dDescriptorEx(t, type, n, c, h, w, c * h * w, h * w, w, 1);
}
Status cudnnSetFilter4dDescriptor(Filter *f, int type, int format, int k, int c, int h, int w) {
    DEMAND(f->is(), BAD_PARAM)
    DEMAND(k > 0 && c > 0 && h > 0 && w > 0 && (format == 0 || format == 1), BAD_PARAM)
    DEMAND(type_of(type, f->type), NOT_SUPPORTED_DATA_TYPE)
    f->nhwc = format == 1;
    f->k = k; f->c = c; f->h = h; f->w = w;
    f->set = true;
    return OK;
}
Status cudnnSetConvolution2dDescriptor(Convolution *d, int ph, int pw, int sh, int sw, int dh, int dw, int mode, int compute) {
    DEMAND(d->is(), BAD_PARAM)
    DEMAND(ph >= 0 && pw >= 0 && sh > 0 && sw > 0 && dh > 0 && dw > 0, BAD_PARAM)
    DEMAND(mode == 1 && compute == 0, NOT_SUPPORTED) // cross-correlation, sums in f32
    d->ph = ph; d->pw = pw; d->sh = sh; d->sw = sw; d->dh = dh; d->dw = dw;
    d->set = true;
    return OK;
}
Status cudnnSetConvolutionMathType(Convolution *d, int math) {
    DEMAND(d->is() && math >= 0 && math <= 3, BAD_PARAM)
    d->math = math;
    return OK;
}
Status cudnnSetConvolutionGroupCount(Convolution *d, int groups) {
    DEMAND(d->is() && groups > 0, BAD_PARAM)
    d->groups = groups;
    return OK;
}

#define ASK(NAME, X, W, Y, LIST, RANDOM, ...)                                                              \
    Status NAME(Handle *handle, __VA_ARGS__, int wanted, int *count, Performance *found) {                 \
        DEMAND(handle->is(), NOT_INITIALIZED)                                                              \
        if (Status s = fits(X, W, conv, Y)) return s;                                                      \
        DEMAND(count && found && wanted > 0, BAD_PARAM)                                                    \
        offer(LIST, RANDOM, X, Y, conv->math, wanted, count, found);                                       \
        return OK;                                                                                         \
    }
ASK(cudnnGetConvolutionForwardAlgorithm_v7, x, w, y, FORWARD, -1, Tensor *x, Filter *w, Convolution *conv, Tensor *y)
ASK(cudnnGetConvolutionBackwardDataAlgorithm_v7, x, w, y, DATA, 0, Filter *w, Tensor *y, Convolution *conv, Tensor *x)
ASK(cudnnGetConvolutionBackwardFilterAlgorithm_v7, x, w, y, FILTER, 0, Tensor *x, Tensor *y, Convolution *conv, Filter *w)

Status cudnnGetConvolutionForwardWorkspaceSize(Handle *handle, Tensor *x, Filter *w, Convolution *conv, Tensor *y, int algorithm,
                                               size_t *bytes) {
    DEMAND(handle->is(), NOT_INITIALIZED)
    if (Status s = fits(x, w, conv, y)) return s;
    *bytes = workspace(algorithm, x, y);
    return OK;
}

Status cudnnConvolutionForward(Handle *handle, Pointer alpha, Tensor *xd, Pointer x, Filter *wd, Pointer w, Convolution *conv,
                               int algorithm, void *space, size_t bytes, Pointer beta, Tensor *yd, void *y) {
    CONVOLVES(x, w, y, FORWARD)
    ENQUEUE(handle, [=, xt = *xd, wt = *wd, ct = *conv, yt = *yd] {
        scribble(space, bytes);
        given(y, yt, convolved(taken(x, xt), taken(w, wt), xt, wt, ct, yt), by, keep);
    });
}

Status cudnnConvolutionBiasActivationForward(Handle *handle, Pointer alpha, Tensor *xd, Pointer x, Filter *wd, Pointer w,
                                             Convolution *conv, int algorithm, void *space, size_t bytes, Pointer beta, Tensor *zd,
                                             Pointer z, Tensor *bd, Pointer b, Activation *activation, Tensor *yd, void *y) {
    DEMAND(handle->is(), NOT_INITIALIZED)
    FACTORS
    if (Status s = fits(xd, wd, conv, yd)) return s;
    SOUND(zd) SOUND(bd) SOUND(activation)
    DEMAND(activation->mode == 1 || activation->mode == 5, NOT_SUPPORTED) // ReLU, identity
    DEMAND(activation->mode != 5 || algorithm == 1, NOT_SUPPORTED)
    DEMAND(activation->nan == 0, NOT_SUPPORTED) // "reluNanOpt of activationDesc isn't CUDNN_NOT_PROPAGATE_NAN"
    DEMAND(bd->sc == 1 && bd->n == 1 && bd->h == 1 && bd->w == 1 && bd->c == wd->k && bd->type == yd->type, NOT_SUPPORTED)
    DEMAND(alike(zd, yd), NOT_SUPPORTED)
    DEMAND(lives(x, xd) && lives(w, wd) && lives(y, yd) && lives(z, zd) && lives(b, bd), BAD_PARAM)
    WORKS_WITH(algorithm, FORWARD, xd, yd, space, bytes)
    if (refuses(algorithm, FORWARD[0], xd, wd)) return NOT_SUPPORTED;
    bool relu = activation->mode == 1;
    ENQUEUE(handle, [=, xt = *xd, wt = *wd, ct = *conv, bt = *bd, yt = *yd] {
        scribble(space, bytes);
        Values values = convolved(taken(x, xt), taken(w, wt), xt, wt, ct, yt), bias = taken(b, bt);
        Values before = keep ? taken(z, yt) : Values();
        for (size_t i = 0; i < values.size(); i++) {
            float v = by * values[i] + (keep ? keep * before[i] : 0) + bias[i % yt.c];
            values[i] = relu ? (v > 0 ? v : 0) : v;
        }
        given(y, yt, values, 1, 0);
    });
}

Status cudnnConvolutionBackwardData(Handle *handle, Pointer alpha, Filter *wd, Pointer w, Tensor *yd, Pointer dy, Convolution *conv,
                                    int algorithm, void *space, size_t bytes, Pointer beta, Tensor *xd, void *dx) {
    CONVOLVES(dx, w, dy, DATA)
    ENQUEUE(handle, [=, xt = *xd, wt = *wd, ct = *conv, yt = *yd] {
        scribble(space, bytes);
        Values weights = taken(w, wt), from = taken(dy, yt), to((size_t)xt.n * xt.h * xt.w * xt.c);
        round_operands(weights, from, yt.type, ct.math);
        int all = wt.h * wt.w, c = wt.c;
        taps(xt, wt, ct, yt, [&](size_t yr, size_t xr, size_t tap) {
            for (int k = 0; k < wt.k; k++) {
                float *a = &to[xr], d = from[yr + k];
                const float *b = &weights[((size_t)k * all + tap) * c];
                for (int i = 0; i < c; i++) a[i] += d * b[i];
            }
        });
        given(dx, xt, to, by, keep);
    });
}

Status cudnnConvolutionBackwardFilter(Handle *handle, Pointer alpha, Tensor *xd, Pointer x, Tensor *yd, Pointer dy, Convolution *conv,
                                      int algorithm, void *space, size_t bytes, Pointer beta, Filter *wd, void *dw) {
    CONVOLVES(x, dw, dy, FILTER)
    ENQUEUE(handle, [=, xt = *xd, wt = *wd, ct = *conv, yt = *yd] {
        scribble(space, bytes);
        Values values = taken(x, xt), from = taken(dy, yt), to((size_t)wt.k * wt.h * wt.w * wt.c);
        round_operands(values, from, yt.type, ct.math);
        int all = wt.h * wt.w, c = wt.c;
        taps(xt, wt, ct, yt, [&](size_t yr, size_t xr, size_t tap) {
            for (int k = 0; k < wt.k; k++) {
                float *a = &to[((size_t)k * all + tap) * c], d = from[yr + k];
                const float *b = &values[xr];
                for (int i = 0; i < c; i++) a[i] += d * b[i];
            }
        });
        given(dw, wt, to, by, keep);
    });
}

Status cudnnConvolutionBackwardBias(Handle *handle, Pointer alpha, Tensor *yd, Pointer dy, Pointer beta, Tensor *bd, void *db) {
    DEMAND(handle->is(), NOT_INITIALIZED)
    FACTORS
    SOUND(yd) SOUND(bd)
    DEMAND(bd->n == 1 && bd->h == 1 && bd->w == 1 && bd->c == yd->c, SHAPE_MISMATCH)
    DEMAND(bd->type == yd->type, NOT_SUPPORTED_DATA_TYPE)
    DEMAND(lives(dy, yd) && lives(db, bd), BAD_PARAM)
    ENQUEUE(handle, [=, yt = *yd, bt = *bd] {
        Values from = taken(dy, yt);
        std::vector<double> sums(bt.c);
        for (size_t i = 0; i < from.size(); i++) sums[i % bt.c] += from[i];
        given(db, bt, Values(sums.begin(), sums.end()), by, keep);
    });
}

Status cudnnAddTensor(Handle *handle, Pointer alpha, Tensor *ad, Pointer a, Pointer beta, Tensor *cd, void *c) {
    DEMAND(handle->is(), NOT_INITIALIZED)
    FACTORS
    SOUND(ad) SOUND(cd)
    DEMAND(ad->type == cd->type, NOT_SUPPORTED_DATA_TYPE)
    // "Each dimension of the bias tensor must match the corresponding dimension of the destination or be 1."
    DEMAND((ad->n == cd->n || ad->n == 1) && (ad->c == cd->c || ad->c == 1) && (ad->h == cd->h || ad->h == 1) &&
               (ad->w == cd->w || ad->w == 1), SHAPE_MISMATCH)
    DEMAND(lives(a, ad) && lives(c, cd), BAD_PARAM)
    ENQUEUE(handle, [=, at = *ad, ct = *cd] {
        for (int n = 0; n < ct.n; n++)
            for (int h = 0; h < ct.h; h++)
                for (int w = 0; w < ct.w; w++)
                    for (int ch = 0; ch < ct.c; ch++) {
                        long long to = n * ct.sn + h * ct.sh + w * ct.sw + ch * ct.sc;
                        long long from = (at.n > 1) * n * at.sn + (at.h > 1) * h * at.sh + (at.w > 1) * w * at.sw + (at.c > 1) * ch * at.sc;
                        put(c, ct.type, to, by * get(a, at.type, from) + keep * get(c, ct.type, to));
                    }
    });
}

// --- activations

Status cudnnSetActivationDescriptor(Activation *d, int mode, int nan, double) {
    DEMAND(d->is(), BAD_PARAM)
    DEMAND(mode == 1 || mode == 5, NOT_SUPPORTED)
    d->mode = mode;
    d->nan = nan;
    d->set = true;
    return OK;
}
Status cudnnActivationForward(Handle *handle, Activation *activation, Pointer alpha, Tensor *xd, Pointer x, Pointer beta, Tensor *yd,
                              void *y) {
    DEMAND(handle->is(), NOT_INITIALIZED)
    FACTORS
    SOUND(activation) SOUND(xd) SOUND(yd)
    DEMAND(same(xd, yd) && (x != y || alike(xd, yd)), SHAPE_MISMATCH)
    DEMAND(lives(x, xd) && lives(y, yd), BAD_PARAM)
    bool propagate = activation->nan == 1, relu = activation->mode == 1;
    ENQUEUE(handle, [=, xt = *xd, yt = *yd] {
        Values values = taken(x, xt);
        if (relu)
            for (float &v : values) v = v > 0 || (propagate && std::isnan(v)) ? v : 0;
        given(y, yt, values, by, keep);
    });
}
Status cudnnActivationBackward(Handle *handle, Activation *activation, Pointer alpha, Tensor *yd, Pointer y, Tensor *dyd, Pointer dy,
                               Tensor *xd, Pointer x, Pointer beta, Tensor *dxd, void *dx) {
    DEMAND(handle->is(), NOT_INITIALIZED)
    FACTORS
    SOUND(activation) SOUND(yd) SOUND(dyd) SOUND(xd) SOUND(dxd)
    // "The strides of the input differential tensor and the output differential tensor differ: NOT_SUPPORTED when in place."
    DEMAND(same(yd, dyd) && same(xd, yd) && alike(dxd, dyd), SHAPE_MISMATCH)
    DEMAND(lives(y, yd) && lives(dy, dyd) && lives(x, xd) && lives(dx, dxd), BAD_PARAM)
    DEMAND(activation->mode == 1, NOT_SUPPORTED)
    ENQUEUE(handle, [=, xt = *xd, dyt = *dyd, dxt = *dxd] {
        Values values = taken(dy, dyt), at = taken(x, xt);
        for (size_t i = 0; i < values.size(); i++) values[i] = at[i] > 0 ? values[i] : 0;
        given(dx, dxt, values, by, keep);
    });
}

// --- pools

Status cudnnSetPoolingNdDescriptor(Pooling *d, int mode, int nan, int dimensions, const int *window, const int *padding,
                                   const int *stride) {
    DEMAND(d->is(), BAD_PARAM)
    DEMAND(dimensions == 2 && mode >= 0 && mode <= 3, NOT_SUPPORTED)
    d->mode = mode;
    d->nan = nan;
    for (int i = 0; i < 2; i++) {
        DEMAND(window[i] > 0 && padding[i] >= 0 && padding[i] < window[i] && stride[i] > 0, BAD_PARAM)
        d->window[i] = window[i];
        d->padding[i] = padding[i];
        d->stride[i] = stride[i];
    }
    d->set = true;
    return OK;
}
Status cudnnSetPooling2dDescriptor(Pooling *d, int mode, int nan, int wh, int ww, int ph, int pw, int sh, int sw) {
    int window[] = {wh, ww}, padding[] = {ph, pw}, stride[] = {sh, sw};
    return cudnnSetPoolingNdDescriptor(d, mode, nan, 2, window, padding, stride);
}
static Status pools(const Pooling *p, const Tensor *x, const Tensor *y) {
    SOUND(p) SOUND(x) SOUND(y)
    DEMAND(x->type == y->type, NOT_SUPPORTED_DATA_TYPE)
    DEMAND(x->n == y->n && x->c == y->c, SHAPE_MISMATCH)
    DEMAND(y->h == 1 + (x->h + 2 * p->padding[0] - p->window[0]) / p->stride[0], SHAPE_MISMATCH)
    DEMAND(y->w == 1 + (x->w + 2 * p->padding[1] - p->window[1]) / p->stride[1], SHAPE_MISMATCH)
    return OK;
}
// Calls `f(y position, x positions)` for every window of every channel.
} // extern "C"
template <class F> static void windows(const Pooling &p, const Tensor &x, const Tensor &y, F f) {
    std::vector<size_t> inside;
    for (int n = 0; n < y.n; n++)
        for (int oh = 0; oh < y.h; oh++)
            for (int ow = 0; ow < y.w; ow++)
                for (int c = 0; c < y.c; c++) {
                    inside.clear();
                    for (int kh = 0; kh < p.window[0]; kh++)
                        for (int kw = 0; kw < p.window[1]; kw++) {
                            int ih = oh * p.stride[0] - p.padding[0] + kh, iw = ow * p.stride[1] - p.padding[1] + kw;
                            if (ih >= 0 && iw >= 0 && ih < x.h && iw < x.w)
                                inside.push_back((((size_t)n * x.h + ih) * x.w + iw) * x.c + c);
                        }
                    f((((size_t)n * y.h + oh) * y.w + ow) * y.c + c, inside);
                }
}
extern "C" {
static bool maximum(const Pooling &p) { return p.mode == 0 || p.mode == 3; }
static float divisor(const Pooling &p, size_t inside) { return p.mode == 1 ? (float)(p.window[0] * p.window[1]) : (float)inside; }

Status cudnnPoolingForward(Handle *handle, Pooling *pool, Pointer alpha, Tensor *xd, Pointer x, Pointer beta, Tensor *yd, void *y) {
    DEMAND(handle->is(), NOT_INITIALIZED)
    FACTORS
    if (Status s = pools(pool, xd, yd)) return s;
    DEMAND(lives(x, xd) && lives(y, yd), BAD_PARAM)
    ENQUEUE(handle, [=, p = *pool, xt = *xd, yt = *yd] {
        Values values = taken(x, xt), to((size_t)yt.n * yt.h * yt.w * yt.c);
        windows(p, xt, yt, [&](size_t at, const std::vector<size_t> &inside) {
            float v = maximum(p) ? -INFINITY : 0;
            for (size_t i : inside) {
                if (!maximum(p)) v += values[i];
                else if (values[i] > v || (std::isnan(values[i]) && p.nan == 1)) v = values[i];
            }
            to[at] = maximum(p) ? v : v / divisor(p, inside.size());
        });
        given(y, yt, to, by, keep);
    });
}
Status cudnnPoolingBackward(Handle *handle, Pooling *pool, Pointer alpha, Tensor *yd, Pointer y, Tensor *dyd, Pointer dy, Tensor *xd,
                            Pointer x, Pointer beta, Tensor *dxd, void *dx) {
    DEMAND(handle->is(), NOT_INITIALIZED)
    FACTORS
    if (Status s = pools(pool, xd, yd)) return s;
    SOUND(dyd) SOUND(dxd)
    DEMAND(alike(yd, dyd) && alike(xd, dxd), SHAPE_MISMATCH)
    DEMAND(lives(y, yd) && lives(dy, dyd) && lives(x, xd) && lives(dx, dxd), BAD_PARAM)
    ENQUEUE(handle, [=, p = *pool, xt = *xd, yt = *yd, dxt = *dxd] {
        Values values = taken(x, xt), from = taken(dy, yt), to(values.size());
        windows(p, xt, yt, [&](size_t at, const std::vector<size_t> &inside) {
            if (!maximum(p)) {
                for (size_t i : inside) to[i] += from[at] / divisor(p, inside.size());
                return;
            }
            size_t best = inside[0];
            for (size_t i : inside)
                if (values[i] > values[best]) best = i;
            to[best] += from[at];
        });
        given(dx, dxt, to, by, keep);
    });
}

// --- batch norm

static Status norms(int mode, const Tensor *x, const Tensor *channels, double epsilon) {
    SOUND(x) SOUND(channels)
    DEMAND(mode == 1 || mode == 2, NOT_SUPPORTED) // of each channel over all pixels
    DEMAND(channels->n == 1 && channels->h == 1 && channels->w == 1 && channels->c == x->c, SHAPE_MISMATCH)
    DEMAND(channels->type == FLOAT, NOT_SUPPORTED_DATA_TYPE)
    DEMAND(epsilon >= 0, BAD_PARAM) // CUDNN_BN_MIN_EPSILON
    return OK;
}
Status cudnnBatchNormalizationForwardTraining(Handle *handle, int mode, Pointer alpha, Pointer beta, Tensor *xd, Pointer x, Tensor *yd,
                                              void *y, Tensor *cd, Pointer scale, Pointer bias, double factor, void *running_mean,
                                              void *running_variance, double epsilon, void *saved_mean, void *saved_inverse) {
    DEMAND(handle->is(), NOT_INITIALIZED)
    FACTORS
    if (Status s = norms(mode, xd, cd, epsilon)) return s;
    SOUND(yd)
    DEMAND(same(xd, yd), SHAPE_MISMATCH)
    DEMAND(lives(x, xd) && lives(y, yd) && lives(scale, cd) && lives(bias, cd), BAD_PARAM)
    DEMAND(!running_mean == !running_variance && !saved_mean == !saved_inverse, BAD_PARAM) // "both NULL or both not"
    DEMAND(!running_mean || (lives(running_mean, cd) && lives(running_variance, cd)), BAD_PARAM)
    DEMAND(!saved_mean || (lives(saved_mean, cd) && lives(saved_inverse, cd)), BAD_PARAM)
    DEMAND((size_t)xd->n * xd->h * xd->w > 1, NOT_SUPPORTED)
    ENQUEUE(handle, [=, xt = *xd, yt = *yd] {
        Values values = taken(x, xt);
        size_t c = xt.c, pixels = values.size() / c;
        const float *gamma = (const float *)scale, *shift = (const float *)bias;
        for (size_t k = 0; k < c; k++) {
            double sum = 0, squares = 0;
            for (size_t i = k; i < values.size(); i += c) sum += values[i];
            double mean = sum / pixels;
            for (size_t i = k; i < values.size(); i += c) squares += (values[i] - mean) * (values[i] - mean);
            double inverse = 1 / std::sqrt(squares / pixels + epsilon);
            if (running_mean) { // runningMean = runningMean (1 - factor) + newMean factor; the variance over n - 1
                float *m = (float *)running_mean + k, *v = (float *)running_variance + k;
                *m = *m * (1 - factor) + mean * factor;
                *v = *v * (1 - factor) + squares / (pixels - 1) * factor;
            }
            if (saved_mean) {
                ((float *)saved_mean)[k] = mean;
                ((float *)saved_inverse)[k] = inverse;
            }
            for (size_t i = k; i < values.size(); i += c) values[i] = (values[i] - mean) * inverse * gamma[k] + shift[k];
        }
        given(y, yt, values, by, keep);
    });
}
Status cudnnBatchNormalizationBackward(Handle *handle, int mode, Pointer alpha, Pointer beta, Pointer alpha_parameters,
                                       Pointer beta_parameters, Tensor *xd, Pointer x, Tensor *dyd, Pointer dy, Tensor *dxd, void *dx,
                                       Tensor *cd, Pointer scale, void *dscale, void *dbias, double epsilon, Pointer saved_mean,
                                       Pointer saved_inverse) {
    DEMAND(handle->is(), NOT_INITIALIZED)
    FACTORS
    if (Status s = norms(mode, xd, cd, epsilon)) return s;
    SOUND(dyd) SOUND(dxd)
    DEMAND(same(xd, dyd) && same(xd, dxd), SHAPE_MISMATCH)
    DEMAND(lives(x, xd) && lives(dy, dyd) && lives(dx, dxd) && lives(scale, cd) && lives(dscale, cd) && lives(dbias, cd), BAD_PARAM)
    DEMAND(lives(saved_mean, cd) && lives(saved_inverse, cd), BAD_PARAM)
    float by_parameters = *(const float *)alpha_parameters, keep_parameters = *(const float *)beta_parameters;
    ENQUEUE(handle, [=, xt = *xd, dyt = *dyd, dxt = *dxd] {
        Values values = taken(x, xt), from = taken(dy, dyt), to(values.size());
        size_t c = xt.c, pixels = values.size() / c;
        for (size_t k = 0; k < c; k++) {
            float mean = ((const float *)saved_mean)[k], inverse = ((const float *)saved_inverse)[k], gamma = ((const float *)scale)[k];
            double sums = 0, products = 0;
            for (size_t i = k; i < values.size(); i += c) {
                sums += from[i];
                products += from[i] * (values[i] - mean) * inverse;
            }
            for (size_t i = k; i < values.size(); i += c)
                to[i] = gamma * inverse * (from[i] - sums / pixels - (values[i] - mean) * inverse * products / pixels);
            float *ds = (float *)dscale + k, *db = (float *)dbias + k;
            *ds = by_parameters * products + (keep_parameters ? keep_parameters * *ds : 0);
            *db = by_parameters * sums + (keep_parameters ? keep_parameters * *db : 0);
        }
        given(dx, dxt, to, by, keep);
    });
}

} // extern "C"
