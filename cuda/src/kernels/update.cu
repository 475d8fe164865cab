// The updates of optimizers, computed in double for every type; norms; dropout; the layouts of weights.

// d ← d·a + x·b + y·c
#define PARAMETERS(T) (T * d, const T *x, const T *y, double a, double b, double c, u32 n)
template <class T> __device__ void linear(T *d, const T *x, const T *y, double a, double b, double c, u32 n) {
    for (u32 i = thread(); i < n; i += threads()) d[i] = (T)((double)d[i] * a + (double)x[i] * b + (double)y[i] * c);
}
FOR_REAL(linear, PARAMETERS, (d, x, y, a, b, c, n))
#undef PARAMETERS

// d ← d·a + x·y·b
#define PARAMETERS(T) (T * d, const T *x, const T *y, double a, double b, u32 n)
template <class T> __device__ void product(T *d, const T *x, const T *y, double a, double b, u32 n) {
    for (u32 i = thread(); i < n; i += threads()) d[i] = (T)((double)d[i] * a + (double)x[i] * (double)y[i] * b);
}
FOR_REAL(product, PARAMETERS, (d, x, y, a, b, n))
#undef PARAMETERS

// d ← d·keep − rate·x / (√y·root + eps)
#define PARAMETERS(T) (T * d, const T *x, const T *y, double keep, double rate, double root, double eps, u32 n)
template <class T>
__device__ void adaptive(T *d, const T *x, const T *y, double keep, double rate, double root, double eps, u32 n) {
    for (u32 i = thread(); i < n; i += threads())
        d[i] = (T)((double)d[i] * keep - rate * (double)x[i] / (sqrt((double)y[i]) * root + eps));
}
FOR_REAL(adaptive, PARAMETERS, (d, x, y, keep, rate, root, eps, n))
#undef PARAMETERS

// v ← v·a + g·b + w·c, then w ← w·d + g·e + v·f
#define PARAMETERS(T) (T * w, T *v, const T *g, double a, double b, double c, double d, double e, double f, u32 n)
template <class T>
__device__ void momentum(T *w, T *v, const T *g, double a, double b, double c, double d, double e, double f, u32 n) {
    for (u32 i = thread(); i < n; i += threads()) {
        double old = (double)w[i], gradient = (double)g[i];
        T velocity = (T)((double)v[i] * a + gradient * b + old * c);
        v[i] = velocity;
        w[i] = (T)(old * d + gradient * e + (double)velocity * f);
    }
}
FOR_REAL(momentum, PARAMETERS, (w, v, g, a, b, c, d, e, f, n))
#undef PARAMETERS

// The first stage of Σ (x + y·scale)²: a sum for each block of `chunk` values.
#define PARAMETERS(T) (const T *x, const T *y, double scale, u32 n, int chunk, double *parts)
template <class T> __device__ void squares(const T *x, const T *y, double scale, u32 n, int chunk, double *parts) {
    __shared__ double shared[256];
    u32 from = blockIdx.x * chunk, to = from + chunk < n ? from + chunk : n;
    double sum = 0;
    for (u32 i = from + threadIdx.x; i < to; i += blockDim.x) {
        double v = (double)x[i] + (double)y[i] * scale;
        sum += v * v;
    }
    shared[threadIdx.x] = sum;
    for (int half = 128; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) shared[threadIdx.x] += shared[threadIdx.x + half];
    }
    if (threadIdx.x == 0) parts[blockIdx.x] = shared[0];
}
FOR_REAL(squares, PARAMETERS, (x, y, scale, n, chunk, parts))
#undef PARAMETERS

// Number `at` of SplitMix64's stream `seed`, as in `ctk_kernels::dropout`.
__device__ inline u64 draw(u64 seed, u64 at) {
    u64 z = seed + (at + 1) * 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

// Sets dropped values to 0 in place and scales the rest. `offsets` has the start of each of `rows` rows and the end, in positions; rows have
// `each` positions if it is null.
#define PARAMETERS(T)                                                                                                                      \
    (T * x, u32 n, int c, const u32 *places, const u16 *views, const u32 *offsets, int rows, int each, u64 seed, u32 threshold, double scale)
template <class T>
__device__ void dropout(T *x, u32 n, int c, const u32 *places, const u16 *views, const u32 *offsets, int rows, int each, u64 seed,
                        u32 threshold, double scale) {
    REAL(T) factor = (REAL(T))scale;
    for (u32 i = thread(); i < n; i += threads()) {
        u32 position = i / c;
        int row;
        if (offsets) {
            // The last row that begins at or before this position.
            int low = 0, high = rows;
            while (high - low > 1) {
                int middle = (low + high) / 2;
                if (offsets[middle] <= position) low = middle;
                else high = middle;
            }
            row = low;
            position -= offsets[row];
        } else {
            row = (int)(position / each);
            position -= (u32)row * each;
        }
        u64 stream = draw(draw(seed, (u64)places[row] << 16 | (u64)views[row]), (u64)position);
        bool keeps = (u32)(draw(stream, (u64)(i % c)) >> 32) >= threshold;
        x[i] = keeps ? down<T>(up(x[i]) * factor) : down<T>(0);
    }
}
FOR_EACH(dropout, PARAMETERS, (x, n, c, places, views, offsets, rows, each, seed, threshold, scale))
#undef PARAMETERS

// Weights from PyTorch's layout (o, c, kernel, kernel) to that of maps with contiguous channels (o, kernel, kernel, c), in the maps' type.
// `area` is kernel².
#define PARAMETERS(T) (const REAL(T) * from, T *to, u32 n, int c, int area)
template <class T> __device__ void pack_weight(const REAL(T) * from, T *to, u32 n, int c, int area) {
    for (u32 i = thread(); i < n; i += threads()) to[i] = down<T>(from[(i / c / area * c + i % c) * area + i / c % area]);
}
FOR_EACH(pack_weight, PARAMETERS, (from, to, n, c, area))
#undef PARAMETERS

// And back; n, c and area as above, and n counts `to`.
#define PARAMETERS(T) (const T *from, REAL(T) * to, u32 n, int c, int area)
template <class T> __device__ void unpack_weight(const T *from, REAL(T) * to, u32 n, int c, int area) {
    for (u32 i = thread(); i < n; i += threads()) to[i] = up(from[(i / area / c * area + i % area) * c + i / area % c]);
}
FOR_EACH(unpack_weight, PARAMETERS, (from, to, n, c, area))
#undef PARAMETERS
