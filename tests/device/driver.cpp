// A CUDA driver made of software: devices, contexts, streams, events, memory, modules and launches, as NVIDIA's "CUDA Driver
// API" reference describes each call. Only what the program and candle ask for is here; a function that is missing is named by
// the program's own loader.
//
// Work on a stream is put off until something waits for it, so that what is used too early or freed too early is found.
// Memory: each allocation ends at a page that cannot be touched, the bytes between its end and that page are checked when it is
// freed, new memory is all ones (NaN in every float format), freed memory cannot be touched.
//
//   SOFTWARE_GPUS=2            devices (default 1)
//   SOFTWARE_GPU_MEMORY=N      bytes of each (default 4 GiB), counted for each process
//   SOFTWARE_GPU_LOSE=N:FILE   the N-th launch breaks the context, unless FILE exists; FILE is made then
//   SOFTWARE_GPU_HIGH=FILE     each process adds a line to FILE when it ends: the most bytes that were in use at once
//   SOFTWARE_GPU_STRICT=0      complain and go on
#include "stream.h"
#include "cuda/device.h"
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <dlfcn.h>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <sys/mman.h>
#include <thread>
#include <time.h>
#include <unistd.h>
#include <vector>

enum Result {
    SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_INITIALIZED = 3, NO_DEVICE = 100, INVALID_DEVICE = 101,
    INVALID_IMAGE = 200, INVALID_CONTEXT = 201, INVALID_HANDLE = 400, NOT_FOUND = 500, NOT_READY = 600, ILLEGAL_ADDRESS = 700,
    NOT_SUPPORTED = 801,
};
using Address = uint64_t;
static const size_t PAGE = 4096, ALIGN = 256; // "aligned for any kind of variable": 256 bytes, by the programming guide

static std::recursive_mutex lock; // one call at a time
#define LOCKED std::lock_guard<std::recursive_mutex> guard(lock)

// --- complaints

void software_complain(const char *format, ...) {
    static std::set<std::string> said;
    char text[512];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    if (said.insert(text).second) fprintf(stderr, "software device: %s\n", text);
    const char *strict = getenv("SOFTWARE_GPU_STRICT");
    if (!strict || strcmp(strict, "0")) abort();
}

// --- what there is

struct Stream;
struct Context { int device; int retained; };
struct Pool { int device; uint64_t threshold, used, used_high, reserved_high; };
struct Block { char *map; size_t mapped, bytes; int device; };

static int devices() {
    const char *count = getenv("SOFTWARE_GPUS");
    return count ? atoi(count) : 1;
}
static size_t memory() {
    const char *bytes = getenv("SOFTWARE_GPU_MEMORY");
    return bytes ? strtoull(bytes, nullptr, 10) : (size_t)4 << 30;
}

static bool initialised, lost;
static std::map<int, Context> contexts;
static std::map<int, Pool> pools;
static std::map<Address, Block> blocks;   // live by the order of the program
static std::map<Address, Block> dying;    // freed on a stream that has not come to it
static std::map<int, size_t> in_use;
static struct High {
    size_t bytes = 0;
    ~High() {
        const char *path = getenv("SOFTWARE_GPU_HIGH");
        if (FILE *file = path && bytes ? fopen(path, "a") : nullptr) {
            fprintf(file, "%zu\n", bytes);
            fclose(file);
        }
    }
} high;
static thread_local Context *current;

struct Event { bool recorded = false, done = false; timespec at{}; };
struct Stream {
    Context *context;
    std::deque<std::function<void()>> queue;
};
static std::set<Stream *> streams;
static std::map<Context *, Stream> defaults;

static Stream *stream_of(void *handle) {
    if (!current) return nullptr;
    if (!handle || handle == (void *)1 || handle == (void *)2) { // null, legacy and per-thread default streams
        Stream &s = defaults[current];
        s.context = current;
        return &s;
    }
    Stream *s = static_cast<Stream *>(handle);
    return streams.count(s) && s->context == current ? s : nullptr;
}

static void run(Stream *s) {
    while (!s->queue.empty()) {
        auto work = std::move(s->queue.front());
        s->queue.pop_front();
        work();
    }
}

static void run_all(Context *context) {
    for (Stream *s : streams)
        if (s->context == context) run(s);
    auto found = defaults.find(context);
    if (found != defaults.end()) run(&found->second);
}

bool software_enqueue(void *handle, std::function<void()> work) {
    LOCKED;
    Stream *s = stream_of(handle);
    if (!s) { software_complain("a stream that is not one of the current context"); return false; }
    if (lost) return false;
    s->queue.push_back(std::move(work));
    if (s->queue.size() > 4096) run(s); // some of it would have been done by now
    return true;
}

bool software_owns(const void *pointer, size_t bytes) {
    LOCKED;
    Address address = (Address)pointer;
    auto next = blocks.upper_bound(address);
    if (next == blocks.begin()) return false;
    auto [start, block] = *std::prev(next);
    return address + bytes <= start + block.bytes;
}

#define READY_OR_RETURN \
    LOCKED; \
    if (!initialised) return NOT_INITIALIZED; \
    if (lost) return ILLEGAL_ADDRESS;
#define STREAM(handle) \
    READY_OR_RETURN \
    if (!current) return INVALID_CONTEXT; \
    Stream *stream = stream_of(handle); \
    if (!stream) { software_complain("a stream that is not one of the current context"); return INVALID_HANDLE; }

// --- memory

static Result allocate(Address *out, size_t bytes) {
    if (!bytes) return INVALID_VALUE;
    int device = current->device;
    if (in_use[device] + bytes > memory()) { // what is freed on a stream is had again once the stream has come to it
        run_all(current);
        if (in_use[device] + bytes > memory()) return OUT_OF_MEMORY;
    }
    size_t room = (bytes + ALIGN - 1) / ALIGN * ALIGN, mapped = (room + PAGE - 1) / PAGE * PAGE + PAGE;
    char *map = static_cast<char *>(mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (map == MAP_FAILED) return OUT_OF_MEMORY;
    mprotect(map + mapped - PAGE, PAGE, PROT_NONE);
    char *start = map + mapped - PAGE - room;
    memset(map, 0xff, mapped - PAGE);
    blocks[(Address)start] = {map, mapped, bytes, device};
    in_use[device] += bytes;
    high.bytes = std::max(high.bytes, in_use[device]);
    Pool &pool = pools[device];
    pool.used += bytes;
    pool.used_high = std::max(pool.used_high, pool.used);
    pool.reserved_high = std::max(pool.reserved_high, pool.used);
    *out = (Address)start;
    return SUCCESS;
}

static void release(Address address) {
    Block block = dying[address];
    dying.erase(address);
    char *start = (char *)address, *limit = block.map + block.mapped - PAGE;
    for (char *p = start + block.bytes; p < limit; p++)
        if (*p != (char)0xff) { software_complain("%zu bytes: written %ld bytes past the end", block.bytes, (long)(p - start - block.bytes)); break; }
    for (char *p = block.map; p < start; p++)
        if (*p != (char)0xff) { software_complain("%zu bytes: written before the start", block.bytes); break; }
    munmap(block.map, block.mapped);
    in_use[block.device] -= block.bytes;
    pools[block.device].used -= block.bytes;
}

static Result free_on(Address address, Stream *stream) {
    auto found = blocks.find(address);
    if (found == blocks.end()) {
        software_complain("freed what is not allocated, or twice");
        return INVALID_VALUE;
    }
    dying[address] = found->second;
    blocks.erase(found);
    stream->queue.push_back([address] { release(address); });
    return SUCCESS;
}

static bool owned(Address address, size_t bytes, const char *call) {
    if (!bytes || software_owns((void *)address, bytes)) return true;
    software_complain("%s of %zu bytes outside an allocation", call, bytes);
    return false;
}

// --- modules

struct Module { std::string text; };
struct Function { const Software_kernel *kernel; };
static const Software_kernel *(*find_kernel)(const char *);
static void (*launch_kernel)(const Software_kernel *, dim3, dim3, size_t, void *const *);

static void load_kernels() {
    if (find_kernel) return;
    Dl_info self;
    dladdr((void *)load_kernels, &self);
    std::string folder = self.dli_fname;
    folder.resize(folder.rfind('/') + 1);
    void *kernels = dlopen((folder + "libsoftware_kernels.so").c_str(), RTLD_NOW);
    if (!kernels) {
        fprintf(stderr, "software device: %s\n", dlerror());
        abort();
    }
    find_kernel = (decltype(find_kernel))dlsym(kernels, "software_find");
    launch_kernel = (decltype(launch_kernel))dlsym(kernels, "software_launch");
}

extern "C" {

Result cuInit(unsigned flags) {
    LOCKED;
    if (flags) return INVALID_VALUE;
    if (devices() < 1) return NO_DEVICE;
    initialised = true;
    return SUCCESS;
}
Result cuDriverGetVersion(int *version) {
    *version = 13000;
    return SUCCESS;
}
Result cuGetErrorName(Result, const char **name) {
    *name = "of the software device";
    return SUCCESS;
}
Result cuGetErrorString(Result result, const char **text) {
    *text = result == OUT_OF_MEMORY     ? "out of memory"
            : result == ILLEGAL_ADDRESS ? "an illegal memory access was encountered"
            : result == NOT_FOUND       ? "named symbol not found"
                                        : "an error of the software device";
    return SUCCESS;
}

// --- devices and contexts

Result cuDeviceGetCount(int *count) {
    READY_OR_RETURN
    *count = devices();
    return SUCCESS;
}
Result cuDeviceGet(int *device, int ordinal) {
    READY_OR_RETURN
    if (ordinal < 0 || ordinal >= devices()) return INVALID_DEVICE;
    *device = ordinal;
    return SUCCESS;
}
Result cuDeviceGetName(char *name, int length, int device) {
    READY_OR_RETURN
    snprintf(name, length, "software device %d", device);
    return SUCCESS;
}
Result cuDeviceGetUuid_v2(char *uuid, int device) {
    READY_OR_RETURN
    memset(uuid, device + 1, 16);
    return SUCCESS;
}
Result cuDeviceTotalMem_v2(size_t *bytes, int) {
    READY_OR_RETURN
    *bytes = memory();
    return SUCCESS;
}
Result cuDeviceGetAttribute(int *value, int attribute, int device) {
    READY_OR_RETURN
    if (device < 0 || device >= devices()) return INVALID_DEVICE;
    switch (attribute) {
    case 1: *value = 1024; return SUCCESS;  // MAX_THREADS_PER_BLOCK
    case 10: *value = 32; return SUCCESS;   // WARP_SIZE
    case 16: *value = 4; return SUCCESS;    // MULTIPROCESSOR_COUNT
    case 75: *value = 8; return SUCCESS;    // COMPUTE_CAPABILITY_MAJOR
    case 76: *value = 0; return SUCCESS;    // COMPUTE_CAPABILITY_MINOR
    case 115: *value = 1; return SUCCESS;   // MEMORY_POOLS_SUPPORTED
    }
    software_complain("device attribute %d is not known here", attribute);
    return INVALID_VALUE;
}
Result cuDevicePrimaryCtxRetain(Context **context, int device) {
    READY_OR_RETURN
    if (device < 0 || device >= devices()) return INVALID_DEVICE;
    Context &c = contexts[device];
    c.device = device;
    c.retained++;
    pools[device].device = device;
    *context = &c;
    return SUCCESS;
}
Result cuDevicePrimaryCtxRelease_v2(int device) {
    READY_OR_RETURN
    Context &c = contexts[device];
    if (c.retained < 1) return INVALID_CONTEXT;
    if (!--c.retained) run_all(&c);
    return SUCCESS;
}
Result cuCtxSetCurrent(Context *context) {
    READY_OR_RETURN
    if (context && context->retained < 1) return INVALID_CONTEXT;
    current = context;
    return SUCCESS;
}
Result cuCtxGetCurrent(Context **context) {
    READY_OR_RETURN
    *context = current;
    return SUCCESS;
}
Result cuCtxSynchronize() {
    READY_OR_RETURN
    if (!current) return INVALID_CONTEXT;
    run_all(current);
    return lost ? ILLEGAL_ADDRESS : SUCCESS;
}

// --- streams and events

Result cuStreamCreate(Stream **out, unsigned) {
    READY_OR_RETURN
    if (!current) return INVALID_CONTEXT;
    *out = new Stream{current, {}};
    streams.insert(*out);
    return SUCCESS;
}
Result cuStreamCreateWithPriority(Stream **out, unsigned flags, int) { return cuStreamCreate(out, flags); }
Result cuStreamDestroy_v2(Stream *handle) {
    STREAM(handle)
    run(stream); // "returns immediately, resources are released once the device has completed all work"
    streams.erase(stream);
    delete stream;
    return SUCCESS;
}
Result cuStreamSynchronize(Stream *handle) {
    STREAM(handle)
    run(stream);
    return lost ? ILLEGAL_ADDRESS : SUCCESS;
}
Result cuStreamIsCapturing(Stream *handle, int *status) {
    STREAM(handle)
    *status = 0;
    return SUCCESS;
}
Result cuEventCreate(Event **event, unsigned) {
    READY_OR_RETURN
    if (!current) return INVALID_CONTEXT;
    *event = new Event;
    return SUCCESS;
}
Result cuEventDestroy_v2(Event *event) {
    READY_OR_RETURN
    if (current) run_all(current);
    delete event;
    return SUCCESS;
}
Result cuEventRecord(Event *event, Stream *handle) {
    STREAM(handle)
    event->recorded = true;
    event->done = false;
    stream->queue.push_back([event] {
        event->done = true;
        clock_gettime(CLOCK_MONOTONIC, &event->at);
    });
    return SUCCESS;
}
Result cuStreamWaitEvent(Stream *handle, Event *event, unsigned) {
    STREAM(handle)
    stream->queue.push_back([event] {
        if (event->recorded && !event->done && current) run_all(current);
    });
    return SUCCESS;
}
Result cuEventQuery(Event *event) {
    READY_OR_RETURN
    return !event->recorded || event->done ? SUCCESS : NOT_READY;
}
Result cuEventSynchronize(Event *event) {
    READY_OR_RETURN
    if (event->recorded && !event->done && current) run_all(current);
    return lost ? ILLEGAL_ADDRESS : SUCCESS;
}
Result cuEventElapsedTime_v2(float *ms, Event *from, Event *to) {
    READY_OR_RETURN
    if (!from->done || !to->done) return NOT_READY;
    *ms = (to->at.tv_sec - from->at.tv_sec) * 1e3f + (to->at.tv_nsec - from->at.tv_nsec) * 1e-6f;
    return SUCCESS;
}
Result cuEventElapsedTime(float *ms, Event *from, Event *to) { return cuEventElapsedTime_v2(ms, from, to); }
Result cuLaunchHostFunc(Stream *handle, void (*f)(void *), void *data) {
    STREAM(handle)
    stream->queue.push_back([f, data] { f(data); });
    return SUCCESS;
}

// --- memory

Result cuMemAlloc_v2(Address *out, size_t bytes) {
    STREAM(nullptr)
    return allocate(out, bytes);
}
Result cuMemAllocAsync(Address *out, size_t bytes, Stream *handle) {
    STREAM(handle)
    return allocate(out, bytes);
}
Result cuMemFree_v2(Address address) {
    STREAM(nullptr)
    run_all(current);
    Result result = free_on(address, stream);
    run(stream);
    return result;
}
Result cuMemFreeAsync(Address address, Stream *handle) {
    STREAM(handle)
    return free_on(address, stream);
}
Result cuMemGetInfo_v2(size_t *free, size_t *total) {
    READY_OR_RETURN
    if (!current) return INVALID_CONTEXT;
    *total = memory();
    *free = memory() - in_use[current->device];
    return SUCCESS;
}
Result cuMemHostAlloc(void **out, size_t bytes, unsigned) {
    READY_OR_RETURN
    *out = aligned_alloc(PAGE, (bytes + PAGE - 1) / PAGE * PAGE);
    return *out ? SUCCESS : OUT_OF_MEMORY;
}
Result cuMemFreeHost(void *memory) {
    READY_OR_RETURN
    if (current) run_all(current);
    free(memory);
    return SUCCESS;
}
// From pageable memory: "first staged to pinned memory" and so taken at once (the guide's "API synchronization behavior").
Result cuMemcpyHtoDAsync_v2(Address to, const void *from, size_t bytes, Stream *handle) {
    STREAM(handle)
    if (!owned(to, bytes, "copy to the device")) return INVALID_VALUE;
    auto staged = std::make_shared<std::vector<char>>((const char *)from, (const char *)from + bytes);
    stream->queue.push_back([=] { memcpy((void *)to, staged->data(), staged->size()); });
    return SUCCESS;
}
Result cuMemcpyHtoD_v2(Address to, const void *from, size_t bytes) { return cuMemcpyHtoDAsync_v2(to, from, bytes, nullptr); }
// "To pageable host memory, the function will return only once the copy has completed."
Result cuMemcpyDtoHAsync_v2(void *to, Address from, size_t bytes, Stream *handle) {
    STREAM(handle)
    if (!owned(from, bytes, "copy from the device")) return INVALID_VALUE;
    run(stream);
    if (lost) return ILLEGAL_ADDRESS;
    memcpy(to, (void *)from, bytes);
    return SUCCESS;
}
Result cuMemcpyDtoH_v2(void *to, Address from, size_t bytes) {
    {
        READY_OR_RETURN
        if (current) run_all(current);
    }
    return cuMemcpyDtoHAsync_v2(to, from, bytes, nullptr);
}
Result cuMemcpyDtoDAsync_v2(Address to, Address from, size_t bytes, Stream *handle) {
    STREAM(handle)
    if (!owned(to, bytes, "copy on the device") || !owned(from, bytes, "copy on the device")) return INVALID_VALUE;
    if (bytes && to < from + bytes && from < to + bytes) software_complain("copy on the device between overlapping ranges");
    stream->queue.push_back([=] { memmove((void *)to, (void *)from, bytes); });
    return SUCCESS;
}
Result cuMemsetD8Async(Address at, unsigned char value, size_t bytes, Stream *handle) {
    STREAM(handle)
    if (!owned(at, bytes, "fill")) return INVALID_VALUE;
    stream->queue.push_back([=] { memset((void *)at, value, bytes); });
    return SUCCESS;
}
Result cuMemsetD8_v2(Address at, unsigned char value, size_t bytes) { return cuMemsetD8Async(at, value, bytes, nullptr); }

Result cuDeviceGetDefaultMemPool(Pool **pool, int device) {
    READY_OR_RETURN
    *pool = &pools[device];
    return SUCCESS;
}
Result cuDeviceGetMemPool(Pool **pool, int device) { return cuDeviceGetDefaultMemPool(pool, device); }
Result cuMemPoolSetAttribute(Pool *pool, int attribute, uint64_t *value) {
    READY_OR_RETURN
    switch (attribute) {
    case 4: pool->threshold = *value; return SUCCESS;
    case 6: if (*value) return INVALID_VALUE; pool->reserved_high = pool->used; return SUCCESS;
    case 8: if (*value) return INVALID_VALUE; pool->used_high = pool->used; return SUCCESS; // "can only be set to zero"
    }
    return INVALID_VALUE;
}
Result cuMemPoolGetAttribute(Pool *pool, int attribute, uint64_t *value) {
    READY_OR_RETURN
    switch (attribute) {
    case 4: *value = pool->threshold; return SUCCESS;
    case 5: case 7: *value = pool->used; return SUCCESS;
    case 6: *value = pool->reserved_high; return SUCCESS;
    case 8: *value = pool->used_high; return SUCCESS;
    }
    return INVALID_VALUE;
}
Result cuMemPoolTrimTo(Pool *, size_t) {
    READY_OR_RETURN
    return SUCCESS;
}

// --- modules and launches

Result cuModuleLoadData(Module **module, const void *image) {
    READY_OR_RETURN
    if (!current) return INVALID_CONTEXT;
    load_kernels();
    *module = new Module{static_cast<const char *>(image)};
    return SUCCESS;
}
Result cuModuleUnload(Module *module) {
    READY_OR_RETURN
    delete module;
    return SUCCESS;
}
Result cuModuleGetFunction(Function **function, Module *module, const char *name) {
    READY_OR_RETURN
    // A module of PTX must have it; the stand-in for nvcc makes none.
    bool ptx = module->text.find(".entry ") != std::string::npos;
    bool there = module->text.find(std::string(".entry ") + name + "(") != std::string::npos;
    const Software_kernel *kernel = find_kernel(name);
    if (!kernel && (there || !ptx)) fprintf(stderr, "software device: no kernel %s was compiled for the host\n", name);
    if (!kernel || (ptx && !there)) return NOT_FOUND;
    *function = new Function{kernel};
    return SUCCESS;
}
Result cuFuncSetAttribute(Function *, int, int) {
    READY_OR_RETURN
    return SUCCESS;
}
Result cuLaunchKernel(Function *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                      unsigned shared, Stream *handle, void **parameters, void **extra) {
    STREAM(handle)
    const Software_kernel *kernel = function->kernel;
    if (!gx || !gy || !gz || !bx || !by || !bz || (size_t)bx * by * bz > 1024 || gy > 65535 || gz > 65535 || bz > 64 || extra ||
        shared > 48 << 10) {
        software_complain("kernel %s: a grid of %u,%u,%u blocks of %u,%u,%u threads, %u bytes shared", kernel->name, gx, gy, gz,
                          bx, by, bz, shared);
        return INVALID_VALUE;
    }
    // Their values are taken when the kernel is launched.
    auto values = std::make_shared<std::vector<std::vector<char>>>();
    for (unsigned i = 0; i < kernel->count; i++)
        values->emplace_back((char *)parameters[i], (char *)parameters[i] + kernel->sizes[i]);
    static long launches, losing = -1;
    static std::string marker;
    if (losing < 0) {
        const char *lose = getenv("SOFTWARE_GPU_LOSE");
        const char *colon = lose ? strchr(lose, ':') : nullptr;
        losing = colon ? atol(lose) : 0;
        marker = colon ? colon + 1 : "";
    }
    if (losing && ++launches == losing && access(marker.c_str(), F_OK)) {
        fclose(fopen(marker.c_str(), "w"));
        stream->queue.push_back([] { lost = true; });
        return SUCCESS; // as on a GPU, the error is found later
    }
    stream->queue.push_back([=] {
        if (lost) return;
        std::vector<void *> at;
        for (auto &value : *values) at.push_back(value.data());
        launch_kernel(kernel, {gx, gy, gz}, {bx, by, bz}, shared, at.data());
    });
    return SUCCESS;
}

} // extern "C"
