// Numbers: how they are stored, and how they are computed with. The same as `ctk_kernels::element`, to the bit.

typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

// The upper half of a float. CUDA's own type needs a header that is not part of the run-time compiler.
struct bf16 {
    u16 bits;
};

template <class T> struct Of {
    typedef T Real;
};
template <> struct Of<bf16> {
    typedef float Real;
};
#define REAL(T) typename Of<T>::Real

__device__ inline float up(float v) { return v; }
__device__ inline double up(double v) { return v; }
__device__ inline float up(bf16 v) { return __uint_as_float((u32)v.bits << 16); }

template <class T> struct Down {
    __device__ static inline T of(T v) { return v; }
};
template <> struct Down<bf16> {
    // The nearest value, of two the even one; NaN stays NaN.
    __device__ static inline bf16 of(float v) {
        u32 bits = __float_as_uint(v);
        bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
        bf16 half;
        half.bits = nan ? (u16)((bits >> 16) | 0x40u) : (u16)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
        return half;
    }
};
template <class T> __device__ inline T down(REAL(T) v) { return Down<T>::of(v); }

__device__ inline bool is_nan(float v) { return v != v; }
__device__ inline bool is_nan(double v) { return v != v; }

// The number of this thread, and of all threads, over a one-dimensional grid. Places are counted in 32 bits: the host sees to it that no
// array has 2³¹ values or more, and divisions cost a quarter of those of 64 bits.
__device__ inline u32 thread() { return blockIdx.x * blockDim.x + threadIdx.x; }
__device__ inline u32 threads() { return gridDim.x * blockDim.x; }

// Kernels are templates; for the host each has one name a type: NAME_f32, NAME_f64, NAME_bf16.
#define FOR_EACH(kernel, parameters, arguments)                                                                                            \
    extern "C" __global__ void __launch_bounds__(256) kernel##_f32 parameters(float) { kernel<float> arguments; }                          \
    extern "C" __global__ void __launch_bounds__(256) kernel##_f64 parameters(double) { kernel<double> arguments; }                        \
    extern "C" __global__ void __launch_bounds__(256) kernel##_bf16 parameters(bf16) { kernel<bf16> arguments; }
#define FOR_HALF(kernel, parameters, arguments)                                                                                            \
    extern "C" __global__ void __launch_bounds__(256) kernel##_bf16 parameters(bf16) { kernel<bf16> arguments; }
#define FOR_REAL(kernel, parameters, arguments)                                                                                            \
    extern "C" __global__ void __launch_bounds__(256) kernel##_f32 parameters(float) { kernel<float> arguments; }                          \
    extern "C" __global__ void __launch_bounds__(256) kernel##_f64 parameters(double) { kernel<double> arguments; }
// The same for a kernel of many registers: one block at a time may have them all, where the compiler would rather spill some.
#define FOR_REAL_LARGE(kernel, parameters, arguments)                                                                                      \
    extern "C" __global__ void __launch_bounds__(256, 1) kernel##_f32 parameters(float) { kernel<float> arguments; }                       \
    extern "C" __global__ void __launch_bounds__(256, 1) kernel##_f64 parameters(double) { kernel<double> arguments; }
