// Layers of texts: layer normalisation, GELU, attention, and pooling of tokens.

// One block a row: y = (x − mean)·inverse·γ + β; statistics has the mean and the inverse deviation of each row.
#define PARAMETERS(T)                                                                                                                      \
    (const T *x, const REAL(T) * gamma, const REAL(T) * beta, double epsilon, T *y, REAL(T) * statistics, int c)
template <class T>
__device__ void layer_norm(const T *x, const REAL(T) * gamma, const REAL(T) * beta, double epsilon, T *y, REAL(T) * statistics, int c) {
    __shared__ double shared[2 * 256];
    typedef REAL(T) R;
    x += (u32)c * blockIdx.x;
    y += (u32)c * blockIdx.x;
    double sum = 0, square = 0;
    for (int i = threadIdx.x; i < c; i += blockDim.x) sum += (double)up(x[i]);
    both_sums(shared, sum, 0);
    __syncthreads();
    double mean = shared[0] / c;
    __syncthreads();
    for (int i = threadIdx.x; i < c; i += blockDim.x) {
        double d = (double)up(x[i]) - mean;
        square += d * d;
    }
    both_sums(shared, square, 0);
    __syncthreads();
    R middle = (R)mean, inverse = (R)(1 / sqrt(shared[0] / c + epsilon));
    for (int i = threadIdx.x; i < c; i += blockDim.x) y[i] = down<T>((up(x[i]) - middle) * inverse * gamma[i] + beta[i]);
    if (threadIdx.x == 0) {
        statistics[2 * blockIdx.x] = middle;
        statistics[2 * blockIdx.x + 1] = inverse;
    }
}
FOR_EACH(layer_norm, PARAMETERS, (x, gamma, beta, epsilon, y, statistics, c))
#undef PARAMETERS

// One block a row: dx = (g − mean(g) − x̂·mean(g·x̂))·inverse, g = dy·γ and x̂ the normalised x.
#define PARAMETERS(T) (const T *x, const REAL(T) * statistics, const REAL(T) * gamma, const T *dy, T *dx, int c)
template <class T>
__device__ void layer_norm_gradient(const T *x, const REAL(T) * statistics, const REAL(T) * gamma, const T *dy, T *dx, int c) {
    __shared__ double shared[2 * 256];
    typedef REAL(T) R;
    u32 from = (u32)c * blockIdx.x;
    R mean = statistics[2 * blockIdx.x], inverse = statistics[2 * blockIdx.x + 1];
    double plain = 0, along = 0;
    for (int i = threadIdx.x; i < c; i += blockDim.x) {
        R g = up(dy[from + i]) * gamma[i];
        plain += (double)g;
        along += (double)(g * ((up(x[from + i]) - mean) * inverse));
    }
    both_sums(shared, plain, along);
    __syncthreads();
    R offset = (R)(shared[0] / c), slope = (R)(shared[256] / c);
    for (int i = threadIdx.x; i < c; i += blockDim.x) {
        R normal = (up(x[from + i]) - mean) * inverse;
        dx[from + i] = down<T>((up(dy[from + i]) * gamma[i] - offset - normal * slope) * inverse);
    }
}
FOR_EACH(layer_norm_gradient, PARAMETERS, (x, statistics, gamma, dy, dx, c))
#undef PARAMETERS

// The first stage of dγ = Σ dy·x̂ and dβ = Σ dy; parts are (chunks, 2, c).
#define PARAMETERS(T) (const T *x, const T *dy, const REAL(T) * statistics, double *parts, u32 rows, int c, int chunk)
template <class T>
__device__ void layer_norm_sums(const T *x, const T *dy, const REAL(T) * statistics, double *parts, u32 rows, int c, int chunk) {
    __shared__ double shared[CHANNELS * LANES];
    int channel = blockIdx.x * CHANNELS + threadIdx.x % CHANNELS, lane = threadIdx.x / CHANNELS;
    u32 from = blockIdx.y * chunk, to = from + chunk < rows ? from + chunk : rows;
    double of_gamma = 0, of_beta = 0;
    if (channel < c) {
        for (u32 row = from + lane; row < to; row += LANES) {
            double d = (double)up(dy[row * c + channel]);
            of_gamma += d * ((double)up(x[row * c + channel]) - (double)statistics[2 * row]) * (double)statistics[2 * row + 1];
            of_beta += d;
        }
    }
    of_gamma = lanes(shared, of_gamma);
    of_beta = lanes(shared, of_beta);
    if (lane == 0 && channel < c) {
        parts[blockIdx.y * 2 * c + channel] = of_gamma;
        parts[blockIdx.y * 2 * c + c + channel] = of_beta;
    }
}
FOR_EACH(layer_norm_sums, PARAMETERS, (x, dy, statistics, parts, rows, c, chunk))
#undef PARAMETERS

// The forms of a GELU, as in `ctk_kernels::Gelu`: x·gate(x), and its derivative.
#define ERF 0
#define TANH 1

template <class R> __device__ inline R sigmoid(R x) { return 1 / (1 + exp(-x)); }

template <class R> __device__ inline R gate(R x, int form) {
    if (form == ERF) return (R)0.5 * erfc(x * (R)-0.70710678118654752);
    return sigmoid(form == TANH ? (R)1.5957691216057308 * (x + (R)0.044715 * x * x * x) : (R)1.702 * x);
}

template <class R> __device__ inline R gelu_slope(R x, int form) {
    R s = gate(x, form);
    if (form == ERF) return s + x * exp((R)-0.5 * x * x) * (R)0.3989422804014327;
    R inner = form == TANH ? (R)1.5957691216057308 * (1 + (R)0.134145 * x * x) : (R)1.702;
    return s + x * s * (1 - s) * inner;
}

#define PARAMETERS(T) (const T *x, T *y, u32 n, int form)
template <class T> __device__ void gelu(const T *x, T *y, u32 n, int form) {
    for (u32 i = thread(); i < n; i += threads()) y[i] = down<T>(up(x[i]) * gate(up(x[i]), form));
}
FOR_EACH(gelu, PARAMETERS, (x, y, n, form))
#undef PARAMETERS

#define PARAMETERS(T) (const T *x, T *dy, u32 n, int form)
template <class T> __device__ void gelu_gradient(const T *x, T *dy, u32 n, int form) {
    for (u32 i = thread(); i < n; i += threads()) dy[i] = down<T>(up(dy[i]) * gelu_slope(up(x[i]), form));
}
FOR_EACH(gelu_gradient, PARAMETERS, (x, dy, n, form))
#undef PARAMETERS

// Dropout of the probabilities; there is none if the threshold is 0.
struct Drops {
    u64 seed;
    u32 threshold;
    double scale;
};

// The factor of the probability of a query's key.
__device__ inline double kept(const Drops &drops, u64 stream, int head, u32 key) {
    if (drops.threshold == 0) return 1;
    return (u32)(draw(stream, (u64)head << 20 | (u64)key) >> 32) >= drops.threshold ? drops.scale : 0;
}

template <class T> __device__ inline REAL(T) dot(const T *a, const T *b, int n) {
    REAL(T) sum = 0;
    for (int i = 0; i < n; i++) sum += up(a[i]) * up(b[i]);
    return sum;
}

// What attends to what, as the host describes it.
#define WHOLE                                                                                                                              \
    const u32 *places, const u16 *views, const u32 *offsets, int rows, int each, int heads, int width, double scale, int causal, u64 seed, \
        u32 threshold, double factor

// A query of a head: its values, the keys and values of its row, how many of them it attends to, and its stream of draws. A token has 3·width
// values: queries, keys, values of all heads. d = width/heads is at most 256.
template <class T> struct Query {
    const T *q, *k, *v;
    u32 keys;
    u64 stream;
};

template <class T> __device__ inline Query<T> query_of(const T *x, u32 token, int head, WHOLE) {
    Range r = row_of(offsets, rows, each, token);
    u32 query = token - r.from;
    Query<T> own;
    own.q = x + token * 3 * width + head * (width / heads);
    own.k = x + r.from * 3 * width + width + head * (width / heads);
    own.v = own.k + width;
    own.keys = causal ? query + 1 : r.to - r.from;
    own.stream = draw(of_row(seed, places[r.row], views[r.row]), (u64)query);
    return own;
}
#define QUERY_OF(x, token, head) \
    query_of(x, token, head, places, views, offsets, rows, each, heads, width, scale, causal, seed, threshold, factor)

// Attention: one block a token and head, whose threads are keys for the probabilities and values of the head for the result.
#define PARAMETERS(T) (const T *x, T *y, REAL(T) * sums, WHOLE)
template <class T> __device__ void attention(const T *x, T *y, REAL(T) * sums, WHOLE) {
    __shared__ double shared[2 * 256];
    typedef REAL(T) R;
    __shared__ R p[256];
    u32 token = blockIdx.x;
    int head = blockIdx.y, d = width / heads, own = threadIdx.x;
    Drops drops = {seed, threshold, factor};
    Query<T> at = QUERY_OF(x, token, head);
    u32 keys = at.keys;
#define SCORE(key) (dot(at.q, at.k + (key) * 3 * width, d) * (R)scale)
    double top = -1e30, sum = 0;
    for (u32 key = own; key < keys; key += blockDim.x) {
        double s = (double)SCORE(key);
        top = s > top ? s : top;
    }
    largest(shared, top);
    __syncthreads();
    top = shared[0];
    __syncthreads();
    for (u32 key = own; key < keys; key += blockDim.x) sum += (double)exp(SCORE(key) - (R)top);
    both_sums(shared, sum, 0);
    __syncthreads();
    sum = shared[0];
    R result = 0;
    for (u32 from = 0; from < keys; from += blockDim.x) {
        u32 key = from + own;
        __syncthreads();
        p[own] = key < keys ? exp(SCORE(key) - (R)top) / (R)sum * (R)kept(drops, at.stream, head, key) : (R)0;
        __syncthreads();
        u32 to = keys - from < blockDim.x ? keys - from : blockDim.x;
        if (own < d)
            for (u32 i = 0; i < to; i++) result += p[i] * up(at.v[(from + i) * 3 * width + own]);
    }
    if (own < d) y[token * width + head * d + own] = down<T>(result);
    if (own == 0) sums[token * heads + head] = (R)(top + log(sum));
#undef SCORE
}
FOR_EACH(attention, PARAMETERS, (x, y, sums, places, views, offsets, rows, each, heads, width, scale, causal, seed, threshold, factor))
#undef PARAMETERS

// dq of a token and head: Σ ds·k.
#define PARAMETERS(T) (const T *x, const T *y, const T *dy, const REAL(T) * sums, T *dx, WHOLE)
template <class T> __device__ void attention_queries(const T *x, const T *y, const T *dy, const REAL(T) * sums, T *dx, WHOLE) {
    typedef REAL(T) R;
    __shared__ R ds[256];
    u32 token = blockIdx.x;
    int head = blockIdx.y, d = width / heads, own = threadIdx.x;
    Drops drops = {seed, threshold, factor};
    Query<T> at = QUERY_OF(x, token, head);
    u32 keys = at.keys;
    const T *above = dy + token * width + head * d;
    R total = dot(y + token * width + head * d, above, d), logarithm = sums[token * heads + head], result = 0;
    for (u32 from = 0; from < keys; from += blockDim.x) {
        u32 key = from + own;
        __syncthreads();
        if (key < keys) {
            R p = exp(dot(at.q, at.k + key * 3 * width, d) * (R)scale - logarithm);
            ds[own] = (R)scale * p * (dot(above, at.v + key * 3 * width, d) * (R)kept(drops, at.stream, head, key) - total);
        }
        __syncthreads();
        u32 to = keys - from < blockDim.x ? keys - from : blockDim.x;
        if (own < d)
            for (u32 i = 0; i < to; i++) result += ds[i] * up(at.k[(from + i) * 3 * width + own]);
    }
    if (own < d) dx[token * 3 * width + head * d + own] = down<T>(result);
}
FOR_EACH(attention_queries, PARAMETERS,
         (x, y, dy, sums, dx, places, views, offsets, rows, each, heads, width, scale, causal, seed, threshold, factor))
#undef PARAMETERS

// dk and dv of a token and head: Σ ds·q and Σ p·dy over the queries that attend to it.
#define PARAMETERS(T) (const T *x, const T *y, const T *dy, const REAL(T) * sums, T *dx, WHOLE)
template <class T> __device__ void attention_keys(const T *x, const T *y, const T *dy, const REAL(T) * sums, T *dx, WHOLE) {
    typedef REAL(T) R;
    __shared__ R p[256];
    __shared__ R ds[256];
    u32 token = blockIdx.x;
    int head = blockIdx.y, d = width / heads, own = threadIdx.x;
    Range r = row_of(offsets, rows, each, token);
    u32 key = token - r.from, queries = r.to - r.from;
    Drops drops = {seed, threshold, factor};
    u64 place = of_row(seed, places[r.row], views[r.row]);
    const T *k = x + token * 3 * width + width + head * d, *v = k + width;
    R of_key = 0, of_value = 0;
    for (u32 from = causal ? key : 0; from < queries; from += blockDim.x) {
        u32 query = from + own;
        __syncthreads();
        if (query < queries) {
            u32 at = r.from + query;
            const T *above = dy + at * width + head * d;
            R total = dot(y + at * width + head * d, above, d), factor_here = (R)kept(drops, draw(place, (u64)query), head, key);
            R e = exp(dot(x + at * 3 * width + head * d, k, d) * (R)scale - sums[at * heads + head]);
            p[own] = e * factor_here;
            ds[own] = (R)scale * e * (dot(above, v, d) * factor_here - total);
        }
        __syncthreads();
        u32 to = queries - from < blockDim.x ? queries - from : blockDim.x;
        if (own < d) {
            for (u32 i = 0; i < to; i++) {
                u32 at = r.from + from + i;
                of_key += ds[i] * up(x[at * 3 * width + head * d + own]);
                of_value += p[i] * up(dy[at * width + head * d + own]);
            }
        }
    }
    if (own < d) {
        dx[token * 3 * width + width + head * d + own] = down<T>(of_key);
        dx[token * 3 * width + 2 * width + head * d + own] = down<T>(of_value);
    }
}
FOR_EACH(attention_keys, PARAMETERS,
         (x, y, dy, sums, dx, places, views, offsets, rows, each, heads, width, scale, causal, seed, threshold, factor))
#undef PARAMETERS
#undef QUERY_OF
#undef WHOLE

// The mean of each text's rows; n counts y. An empty text has zeros.
#define PARAMETERS(T) (const T *x, const u32 *offsets, T *y, u32 n, int c)
template <class T> __device__ void means(const T *x, const u32 *offsets, T *y, u32 n, int c) {
    for (u32 i = thread(); i < n; i += threads()) {
        u32 from = offsets[i / c], to = offsets[i / c + 1];
        REAL(T) sum = 0;
        for (u32 token = from; token < to; token++) sum += up(x[token * c + i % c]);
        y[i] = down<T>(to > from ? sum / (REAL(T))(to - from) : sum);
    }
}
FOR_EACH(means, PARAMETERS, (x, offsets, y, n, c))
#undef PARAMETERS

// And its gradient; n counts dx.
#define PARAMETERS(T) (const T *dy, const u32 *offsets, int rows, T *dx, u32 n, int c)
template <class T> __device__ void means_gradient(const T *dy, const u32 *offsets, int rows, T *dx, u32 n, int c) {
    for (u32 i = thread(); i < n; i += threads()) {
        Range r = row_of(offsets, rows, 0, i / c);
        dx[i] = down<T>(up(dy[r.row * c + i % c]) / (REAL(T))(r.to - r.from));
    }
}
FOR_EACH(means_gradient, PARAMETERS, (dy, offsets, rows, dx, n, c))
#undef PARAMETERS

// The rows of numbers `at`; n counts y. Backward they go to their places among zeros.
#define PARAMETERS(T) (const T *x, const u32 *at, T *y, u32 n, int c)
template <class T> __device__ void pick(const T *x, const u32 *at, T *y, u32 n, int c) {
    for (u32 i = thread(); i < n; i += threads()) y[i] = x[at[i / c] * c + i % c];
}
FOR_EACH(pick, PARAMETERS, (x, at, y, n, c))
#undef PARAMETERS

#define PARAMETERS(T) (const T *dy, const u32 *at, T *dx, u32 n, int c)
template <class T> __device__ void pick_gradient(const T *dy, const u32 *at, T *dx, u32 n, int c) {
    for (u32 i = thread(); i < n; i += threads()) dx[at[i / c] * c + i % c] = dy[i];
}
FOR_EACH(pick_gradient, PARAMETERS, (dy, at, dx, n, c))
#undef PARAMETERS
