// The kernels, compiled for the host, and what runs them: see device.h. The kernels' text is `kernels.cu` in the build's folder, the same
// that the run-time compiler gets.

#include "device.h"

#include <setjmp.h>
#include <ucontext.h>

#include <type_traits>
#include <utility>
#include <vector>

namespace emulated {
dim3 thread_index, block_index, block_size, grid_size;

// A thread of a block, with a stack of its own. It is made once, and runs a thread of every block.
struct Fiber {
    jmp_buf place;
    dim3 index;
    bool made, done, waits;
};
static std::vector<Fiber> fibers;
static std::vector<char> stacks;
static jmp_buf scheduler;
static size_t running;
static void (*entry)(void **);
static void **parameters;
static const size_t STACK = 64 << 10;

// Goes on with the scheduler, until it goes on with this fiber.
static void pause() {
    if (!_setjmp(fibers[running].place)) _longjmp(scheduler, 1);
}

void barrier() {
    fibers[running].waits = true;
    pause();
}

static void body() {
    for (;;) {
        entry(parameters);
        fibers[running].done = true;
        pause();
    }
}

// Runs fiber `running` to its next pause. Contexts only begin fibers: swapping them costs a system call each time.
__attribute__((noinline)) static void resume() {
    if (_setjmp(scheduler)) return;
    Fiber &fiber = fibers[running];
    if (fiber.made) _longjmp(fiber.place, 1);
    fiber.made = true;
    static ucontext_t context;
    getcontext(&context);
    context.uc_stack.ss_sp = &stacks[running * STACK];
    context.uc_stack.ss_size = STACK;
    context.uc_link = nullptr;
    makecontext(&context, body, 0);
    setcontext(&context);
}

static uint64_t next(uint64_t &state) {
    uint64_t z = state += 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

static std::vector<size_t> order(size_t count, uint64_t &state) {
    std::vector<size_t> all(count);
    for (size_t i = 0; i < count; i++) all[i] = i;
    if (state)
        for (size_t i = count; i > 1; i--) std::swap(all[i - 1], all[next(state) % i]);
    return all;
}

static dim3 at(size_t i, dim3 size) {
    return dim3{unsigned(i % size.x), unsigned(i / size.x % size.y), unsigned(i / size.x / size.y)};
}

// Runs one block; false if some of its threads ended while others wait at a barrier, who are then given up.
static bool block(uint64_t &state) {
    size_t count = (size_t)block_size.x * block_size.y * block_size.z;
    if (fibers.size() < count) {
        fibers.assign(count, Fiber{});
        stacks.resize(count * STACK);
    }
    for (size_t i = 0; i < count; i++) {
        fibers[i].index = at(i, block_size);
        fibers[i].done = false;
    }
    for (size_t done = 0, before = 0; done < count; before = done) {
        size_t waits = 0;
        for (size_t i : order(count, state)) {
            if (fibers[i].done) continue;
            running = i;
            thread_index = fibers[i].index;
            fibers[i].waits = false;
            resume();
            done += fibers[i].done;
            waits += fibers[i].waits;
        }
        if ((done != before && waits) || (done && done < count)) {
            fibers.clear();
            return false;
        }
    }
    return true;
}

// 0, or 1 if a block's threads did not meet at a barrier. Without barriers (`alone`) a thread needs no stack of its own.
static int run(void (*kernel)(void **), void **arguments, dim3 grid, dim3 threads, bool alone, uint64_t seed) {
    entry = kernel, parameters = arguments, grid_size = grid, block_size = threads;
    uint64_t state = seed;
    size_t count = (size_t)threads.x * threads.y * threads.z;
    for (size_t b : order((size_t)grid.x * grid.y * grid.z, state)) {
        block_index = at(b, grid);
        if (!alone) {
            if (!block(state)) return 1;
            continue;
        }
        for (size_t i : order(count, state)) {
            thread_index = at(i, threads);
            kernel(arguments);
        }
    }
    return 0;
}

// A kernel that takes its parameters from pointers to them, as the driver passes them.
template <class... P> struct Call {
    template <void (*kernel)(P...), size_t... I> static void with(void **a, std::index_sequence<I...>) {
        kernel(*(typename std::remove_reference<P>::type *)a[I]...);
    }
};
template <auto kernel> struct Named;
template <class... P, void (*kernel)(P...)> struct Named<kernel> {
    static void call(void **a) { Call<P...>::template with<kernel>(a, std::index_sequence_for<P...>{}); }
    static const size_t parameters = sizeof...(P);
};
} // namespace emulated

#include "kernels.cu"

struct Entry {
    const char *name;
    void (*call)(void **);
    size_t parameters;
    bool alone;
};
static const Entry ENTRIES[] = {
#define ALONE(kernel) {#kernel, emulated::Named<kernel>::call, emulated::Named<kernel>::parameters, true},
#define TOGETHER(kernel) {#kernel, emulated::Named<kernel>::call, emulated::Named<kernel>::parameters, false},
#include "names.h"
};

// Runs the kernel `name` with `count` arguments: 0 if it ran, 1 if its threads did not meet at a barrier, 2 if there is no such kernel, 3 if
// it has another number of parameters.
extern "C" int ctk_emulated_launch(const char *name, const unsigned grid[3], const unsigned threads[3], void **arguments, size_t count,
                                   uint64_t seed) {
    for (const Entry &entry : ENTRIES) {
        if (std::strcmp(entry.name, name)) continue;
        if (entry.parameters != count) return 3;
        return emulated::run(entry.call, arguments, dim3{grid[0], grid[1], grid[2]}, dim3{threads[0], threads[1], threads[2]}, entry.alone,
                             seed);
    }
    return 2;
}
