// The steps of optimizers, computed in double for every type but for Adam's, for all parameters at once; norms; dropout; the layouts of weights.

// d ← d·a + x·b + y·c
#define PARAMETERS(T) (T * d, const T *x, const T *y, double a, double b, double c, u32 n)
template <class T> __device__ void linear(T *d, const T *x, const T *y, double a, double b, double c, u32 n) {
    for (u32 i = thread(); i < n; i += threads()) d[i] = (T)((double)d[i] * a + (double)x[i] * b + (double)y[i] * c);
}
FOR_REAL(linear, PARAMETERS, (d, x, y, a, b, c, n))
#undef PARAMETERS

// A parameter w of n values, its states a and b, its gradient g and the gradient's factor `scale`, and the step that it takes; as `steps.rs`
// writes it. Its values are cut into `chunks` chunks, which have the numbers from `first` on.
struct Change {
    u64 w, a, b, g;
    double f[6], scale;
    u32 n, rule, first, chunks;
};

// The rules, and what f holds; g is scaled already.
#define BLEND 0    // w ← w·f0 + g·f1
#define MOMENTUM 1 // a ← a·f0 + g·f1 + w·f2, then w ← w·f3 + g·f4 + a·f5
#define CLASSIC 2  // LARS: momentum, decay, rate, trust (below 0: none)
#define POPULAR 3  // LARS, in two stages: velocity, then weight
#define ADAM 4     // β₁, β₂, keep, rate, root, eps
#define NORM 5     // nothing: only the norm of w is asked for

// Values of a chunk.
#define CHUNK (1 << 14)

// The values of this block's chunk.
__device__ inline void range(const Change &c, u32 *from, u32 *to) {
    *from = (blockIdx.x - c.first) * CHUNK;
    *to = *from + CHUNK < c.n ? *from + CHUNK : c.n;
}

// The grid is all chunks; owner[chunk] is the number of the change that it belongs to. norms has ‖w‖ and ‖x‖ of each change, where a rule
// needs them. Stage 0 is the first of rules with two.
#define PARAMETERS(T) (const Change *all, const u32 *owner, const double *norms, int stage)
template <class T> __device__ void step(const Change *all, const u32 *owner, const double *norms, int stage) {
    const Change &c = all[owner[blockIdx.x]];
    T *w = (T *)c.w, *a = (T *)c.a, *b = (T *)c.b;
    const T *g = (const T *)c.g;
    const double *f = c.f;
    double ratio = 1;
    if (stage > 0 && (c.rule == CLASSIC || c.rule == POPULAR) && f[3] >= 0) {
        double weight = norms[2 * owner[blockIdx.x]], x = norms[2 * owner[blockIdx.x] + 1];
        if (weight > 0 && x > 0) ratio = f[3] * weight / x;
    }
    if (stage == 0 && c.rule != POPULAR) return;
    u32 from, to;
    range(c, &from, &to);
    for (u32 i = from + threadIdx.x; i < to; i += blockDim.x) {
        double old = (double)w[i], gradient = g ? (double)g[i] * c.scale : 0.0;
        if (c.rule == BLEND) {
            w[i] = (T)(old * f[0] + gradient * f[1]);
        } else if (c.rule == MOMENTUM) {
            T velocity = (T)((double)a[i] * f[0] + gradient * f[1] + old * f[2]);
            a[i] = velocity;
            w[i] = (T)(old * f[3] + gradient * f[4] + (double)velocity * f[5]);
        } else if (c.rule == CLASSIC) {
            double scaled = f[2] * ratio;
            T velocity = (T)((double)a[i] * f[0] + gradient * scaled + old * (scaled * f[1]));
            a[i] = velocity;
            w[i] = (T)(old - (double)velocity);
        } else if (c.rule == POPULAR && stage == 0) {
            a[i] = (T)((double)a[i] * f[0] + gradient + old * f[1]);
        } else if (c.rule == POPULAR) {
            w[i] = (T)(old - f[2] * ratio * (double)a[i]);
        } else if (c.rule == ADAM) {
            // In the type of the values, as on the CPU. Averages that are too small for a normal number become 0.
            T least = sizeof(T) == 4 ? (T)1.17549435e-38 : (T)2.2250738585072014e-308, slope = g ? g[i] : (T)0;
            T mean = a[i] * (T)f[0] + slope * (T)((1 - f[0]) * c.scale);
            T square = b[i] * (T)f[1] + slope * slope * (T)((1 - f[1]) * c.scale * c.scale);
            a[i] = mean = mean < least && mean > -least ? (T)0 : mean;
            b[i] = square = square < least ? (T)0 : square;
            w[i] = w[i] * (T)f[2] - (T)f[3] * mean / ((T)sqrt((double)square) * (T)f[4] + (T)f[5]);
        }
    }
}
FOR_REAL(step, PARAMETERS, (all, owner, norms, stage))
#undef PARAMETERS

// The sums of two values over a block's threads, at shared[0] and shared[256] for its first thread.
__device__ inline void both_sums(double *shared, double first, double second) {
    shared[threadIdx.x] = first;
    shared[256 + threadIdx.x] = second;
    // Sixteen sums of sixteen values, then their sum.
    for (int few = 16; few > 0; few -= 15) {
        __syncthreads();
        if (threadIdx.x < few) {
            for (int at = threadIdx.x + few; at < 16 * few; at += few) {
                shared[threadIdx.x] += shared[at];
                shared[256 + threadIdx.x] += shared[256 + at];
            }
        }
    }
}

// The first stage of norms: for each chunk Σ w² and Σ x², where x is what a rule of LARS compares with w.
#define PARAMETERS(T) (const Change *all, const u32 *owner, double *parts)
template <class T> __device__ void squares(const Change *all, const u32 *owner, double *parts) {
    __shared__ double shared[2 * 256];
    const Change &c = all[owner[blockIdx.x]];
    const T *w = (const T *)c.w, *a = (const T *)c.a, *g = (const T *)c.g;
    double of_w = 0, of_x = 0;
    u32 from, to;
    range(c, &from, &to);
    for (u32 i = from + threadIdx.x; i < to; i += blockDim.x) {
        double weight = (double)w[i], x = 0;
        if (c.rule == CLASSIC) x = (double)g[i] * c.scale + weight * c.f[1];
        if (c.rule == POPULAR) x = (double)a[i];
        of_w += weight * weight;
        of_x += x * x;
    }
    both_sums(shared, of_w, of_x);
    if (threadIdx.x == 0) {
        parts[2 * blockIdx.x] = shared[0];
        parts[2 * blockIdx.x + 1] = shared[256];
    }
}
FOR_REAL(squares, PARAMETERS, (all, owner, parts))
#undef PARAMETERS

// The second: norms of each change, from the parts of its chunks. The grid is all changes.
extern "C" __global__ void __launch_bounds__(256) norms_of(const Change *all, const double *parts, double *norms) {
    __shared__ double shared[2 * 256];
    const Change &c = all[blockIdx.x];
    double of_w = 0, of_x = 0;
    for (u32 i = threadIdx.x; i < c.chunks; i += blockDim.x) {
        of_w += parts[2 * (c.first + i)];
        of_x += parts[2 * (c.first + i) + 1];
    }
    both_sums(shared, of_w, of_x);
    if (threadIdx.x == 0) {
        norms[2 * blockIdx.x] = sqrt(shared[0]);
        norms[2 * blockIdx.x + 1] = sqrt(shared[256]);
    }
}

// Number `at` of SplitMix64's stream `seed`, as in `ctk_kernels::dropout`.
__device__ inline u64 draw(u64 seed, u64 at) {
    u64 z = seed + (at + 1) * 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

// The stream of a row of the step's batch.
__device__ inline u64 of_row(u64 seed, u32 place, u16 view) { return draw(seed, (u64)place << 16 | (u64)view); }

// The row that a token belongs to, and where the row's tokens begin and end. `offsets` has the start of each row and the end; rows have `each`
// tokens if it is null.
struct Range {
    int row;
    u32 from, to;
};

__device__ inline Range row_of(const u32 *offsets, int rows, int each, u32 token) {
    Range r;
    if (!offsets) {
        r.row = (int)(token / each);
        r.from = (u32)r.row * each;
        r.to = r.from + each;
        return r;
    }
    // The last row that begins at or before the token: rows before it may be empty.
    int low = 0, high = rows;
    while (high - low > 1) {
        int middle = (low + high) / 2;
        if (offsets[middle] <= token) low = middle;
        else high = middle;
    }
    r.row = low;
    r.from = offsets[low];
    r.to = offsets[low + 1];
    return r;
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
        Range r = row_of(offsets, rows, each, i / c);
        u64 stream = draw(of_row(seed, places[r.row], views[r.row]), (u64)(i / c - r.from));
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
