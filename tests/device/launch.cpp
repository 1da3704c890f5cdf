// Runs kernels: the blocks of a grid one after another, and the threads of a block as fibers where they wait for each other.
#include "cuda/device.h"
#include <cstdio>
#include <cstdlib>
#include <sys/mman.h>
#include <vector>

static Software_kernel *all;
static const char *running = "";

[[noreturn]] static void fault(const char *what) {
    std::fprintf(stderr, "software device: kernel %s: %s (block %u,%u,%u thread %u,%u,%u)\n", running, what, software_block.x,
                 software_block.y, software_block.z, software_thread.x, software_thread.y, software_thread.z);
    std::abort();
}

extern "C" {
uint3 software_thread, software_block;
dim3 software_threads, software_blocks;
void software_register(Software_kernel *kernel) {
    kernel->next = all;
    all = kernel;
}
const Software_kernel *software_find(const char *name) {
    for (const Software_kernel *k = all; k; k = k->next)
        if (!std::strcmp(k->name, name)) return k;
    return nullptr;
}
}

// --- fibers: each has a stack; registers that calls keep are saved on it (System V ABI, x86-64)

extern "C" void software_switch(void **from, void *to);
asm(R"(
    .text
    .globl software_switch
    .hidden software_switch
software_switch:
    push %rbp
    push %rbx
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, (%rdi)
    mov %rsi, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbx
    pop %rbp
    ret
)");

enum State { READY, AT_BARRIER, AT_SHUFFLE, OVER };
struct Fiber {
    char *stack;
    void *top; // where it goes on
    State state;
    uint3 index;
    uint64_t given; // to a shuffle
};
static const size_t STACK = 64 << 10;
static std::vector<Fiber> fibers;
static size_t now; // the fiber that runs
static void *scheduler;
static bool alone; // threads run without fibers
static const Software_kernel *kernel;
static void *const *parameters;
static std::vector<uint64_t> shared; // aligned to 8; grown as launches ask

static void wait(State state) {
    if (alone) fault("waits, but its file was thought to have no barrier");
    fibers[now].state = state;
    software_switch(&fibers[now].top, scheduler);
}

static void body() {
    kernel->call(parameters);
    wait(OVER);
    std::abort();
}

extern "C" void *software_shared() { return shared.data(); }
extern "C" void software_barrier() { wait(AT_BARRIER); }
extern "C" uint64_t software_shuffle(uint64_t value, unsigned source, unsigned width) {
    fibers[now].given = value;
    wait(AT_SHUFFLE);
    size_t base = now - now % 32, from = base + source;
    if (source / width != now % 32 / width) return value; // outside its part of the warp: its own
    if (from >= (size_t)software_threads.x * software_threads.y * software_threads.z || fibers[from].state == OVER)
        fault("shuffles with a thread that is not there");
    uint64_t taken = fibers[from].given;
    wait(AT_SHUFFLE); // nobody gives the next value before all have taken this one
    return taken;
}

static void run_block(size_t threads) {
    while (fibers.size() < threads) {
        void *stack = mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (stack == MAP_FAILED) fault("no memory for a thread's stack");
        fibers.push_back({static_cast<char *>(stack), nullptr, OVER, {}, 0});
    }
    for (size_t i = 0; i < threads; i++) {
        Fiber &f = fibers[i];
        // As if `body` had been called: on entry the stack is 8 off a multiple of 16, below it the six saved registers.
        void **top = reinterpret_cast<void **>(f.stack + STACK) - 2;
        *top = reinterpret_cast<void *>(body);
        f.top = top - 6;
        f.state = READY;
        unsigned x = software_threads.x, y = software_threads.y;
        f.index = {unsigned(i % x), unsigned(i / x % y), unsigned(i / x / y)};
    }
    for (;;) {
        for (now = 0; now < threads; now++) {
            if (fibers[now].state != READY) continue;
            software_thread = fibers[now].index;
            software_switch(&scheduler, fibers[now].top);
        }
        size_t over = 0, at_barrier = 0;
        for (size_t i = 0; i < threads; i++) {
            over += fibers[i].state == OVER;
            at_barrier += fibers[i].state == AT_BARRIER;
        }
        if (over == threads) return;
        bool released = false;
        if (over + at_barrier == threads) { // a barrier is for all that have not left
            for (size_t i = 0; i < threads; i++)
                if (fibers[i].state == AT_BARRIER) fibers[i].state = READY;
            released = true;
        }
        for (size_t warp = 0; warp < threads; warp += 32) { // a shuffle is for a whole warp
            size_t end = std::min(warp + 32, threads), there = 0, gone = 0;
            for (size_t i = warp; i < end; i++) {
                there += fibers[i].state == AT_SHUFFLE;
                gone += fibers[i].state == OVER;
            }
            if (there && there + gone == end - warp) {
                for (size_t i = warp; i < end; i++)
                    if (fibers[i].state == AT_SHUFFLE) fibers[i].state = READY;
                released = true;
            }
        }
        if (!released) fault("its threads wait for each other at different places");
    }
}

extern "C" void software_launch(const Software_kernel *of, dim3 blocks, dim3 threads, size_t shared_bytes, void *const *values) {
    kernel = of;
    running = of->name;
    parameters = values;
    software_blocks = blocks;
    software_threads = threads;
    if (shared.size() * 8 < shared_bytes) shared.resize((shared_bytes + 7) / 8);
    alone = !of->threads_wait;
    for (unsigned z = 0; z < blocks.z; z++)
        for (unsigned y = 0; y < blocks.y; y++)
            for (unsigned x = 0; x < blocks.x; x++) {
                software_block = {x, y, z};
                if (!alone) {
                    run_block((size_t)threads.x * threads.y * threads.z);
                    continue;
                }
                uint3 &t = software_thread;
                for (t.z = 0; t.z < threads.z; t.z++)
                    for (t.y = 0; t.y < threads.y; t.y++)
                        for (t.x = 0; t.x < threads.x; t.x++) of->call(values);
            }
}
