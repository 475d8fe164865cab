// CUDA's built-in names for the host's compiler, so that the kernels run on the CPU, and a table of the kernels by name.
//
// A block's threads are fibers on one host thread, each with a stack of its own: `__syncthreads` goes on to the next one. Blocks, and a
// block's threads between two barriers, run in an order that is drawn from a seed, so a result that depends on their order shows.

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

struct dim3 {
    unsigned x, y, z;
};

namespace emulated {
// Of the thread that runs.
extern dim3 thread_index, block_index, block_size, grid_size;
void barrier();
} // namespace emulated

#define threadIdx emulated::thread_index
#define blockIdx emulated::block_index
#define blockDim emulated::block_size
#define gridDim emulated::grid_size
#define __syncthreads() emulated::barrier()
#define __global__
#define __device__
#define __launch_bounds__(...)
// A block is run to its end before the next one begins, so its shared memory can be the only one.
#define __shared__ static

static inline float __uint_as_float(unsigned bits) {
    float v;
    std::memcpy(&v, &bits, sizeof v);
    return v;
}
static inline unsigned __float_as_uint(float v) {
    unsigned bits;
    std::memcpy(&bits, &v, sizeof bits);
    return bits;
}
using std::erfc;
using std::exp;
using std::log;
using std::sqrt;
