// CUDA's words for a C++ compiler, so that kernels.cu runs on the CPU: `tests/cuda_on_cpu.py` loads what this becomes.
// The threads of a launch run one after the other in an order that a seed shuffles, or several of them at once, with
// real atomics.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#define __global__
#define __device__

using std::isfinite;
using std::max;
using std::min;

struct Three {
    unsigned x, y, z;
};
static thread_local Three blockIdx, threadIdx;
static Three blockDim, gridDim;

static int __float_as_int(float value) {
    int bits;
    memcpy(&bits, &value, 4);
    return bits;
}

static float __int_as_float(int bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

static bool racing;

// Where several threads run at once, another one often gets in between what was read and what is changed.
template <typename T, typename Change> static T atomically(T *place, Change change) {
    if (racing)
        std::this_thread::yield();
    T before = __atomic_load_n(place, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(place, &before, change(before), true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
    return before;
}

template <typename T> static T atomicMin(T *place, T value) {
    return atomically(place, [=](T before) { return min(before, value); });
}

template <typename T> static T atomicMax(T *place, T value) {
    return atomically(place, [=](T before) { return max(before, value); });
}

template <typename T> static T atomicAdd(T *place, T value) {
    return atomically(place, [=](T before) { return before + value; });
}

template <typename T> static T atomicOr(T *place, T value) {
    return atomically(place, [=](T before) { return before | value; });
}

#include "../engines/device/kernels.cu"

// Read a parameter where CUDA looks for it: each at a multiple of its own alignment.
template <typename T> static T parameter(const char *packed, size_t &offset) {
    offset = (offset + alignof(T) - 1) / alignof(T) * alignof(T);
    T value;
    memcpy(&value, packed + offset, sizeof(T));
    offset += sizeof(T);
    return value;
}

struct Order {
    unsigned long long factor, shift, total;

    explicit Order(unsigned long long total, unsigned seed) : factor(1), shift(0), total(total) {
        if (!seed || total < 3)
            return;
        factor = (2654435761ull * seed) % total | 1;
        while (std::gcd(factor, total) != 1)
            factor += 2;
        shift = (40503ull * seed) % total;
    }

    unsigned long long operator()(unsigned long long index) const {
        return (unsigned long long)(((unsigned __int128)index * factor + shift) % total);
    }
};

template <typename... T>
static bool launch(void (*kernel)(T...), const char *packed, size_t size, unsigned seed, unsigned at_once) {
    size_t offset = 0;
    std::tuple<T...> parameters{parameter<T>(packed, offset)...};
    if (offset != size)
        return false;
    Order order((unsigned long long)gridDim.x * blockDim.x, seed);
    auto run = [&](unsigned first) {
        for (unsigned long long index = first; index < order.total; index += at_once) {
            unsigned long long thread = seed ? order(index) : index;
            blockIdx.x = (unsigned)(thread / blockDim.x);
            threadIdx.x = (unsigned)(thread % blockDim.x);
            std::apply(kernel, parameters);
        }
    };
    std::vector<std::thread> others;
    for (unsigned number = 1; number < at_once; ++number)
        others.emplace_back(run, number);
    run(0);
    for (auto &other : others)
        other.join();
    return true;
}

// 0: done; 1: the parameters have another size; 2: there is no such kernel.
extern "C" int start(const char *name, unsigned grid, unsigned block, const char *packed, size_t size, unsigned seed,
                     unsigned at_once) {
    gridDim = {grid, 1, 1};
    blockDim = {block, 1, 1};
    racing = at_once > 1;
#define KERNEL(kernel)                                                                                                 \
    if (!strcmp(name, #kernel))                                                                                        \
        return launch(kernel, packed, size, seed, at_once) ? 0 : 1;
    KERNEL(average_int16)
    KERNEL(average_float32)
    KERNEL(lowest_int16)
    KERNEL(lowest_float32)
    KERNEL(resample_int16)
    KERNEL(resample_float32)
    KERNEL(cut_patch)
    KERNEL(add_patch)
    KERNEL(normalise)
    KERNEL(begin_components)
    KERNEL(join_components)
    KERNEL(count_components)
    KERNEL(find_largest)
    KERNEL(drop_components)
    KERNEL(label_source)
    return 2;
}
