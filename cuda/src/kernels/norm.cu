// Batch normalisation over rows of channels, and column sums.
//
// Reductions have two stages. In the first, a block of 256 threads sums a chunk of rows for 32 channels: 8 threads a channel, each over
// every eighth row, are added in shared memory in a fixed order. In the second, a block sums all chunks of 32 channels in the same way.
// Nothing is added atomically, so the same input gives the same bits.

#define CHANNELS 32
#define LANES 8
// Rows that are added as they are before the sum is added in double, as the CPU's kernels do.
#define RUN 16

// Adds the LANES values of each channel in `shared`; the sum is returned to the threads of lane 0.
__device__ inline double lanes(double *shared, double value) {
    int channel = threadIdx.x % CHANNELS, lane = threadIdx.x / CHANNELS;
    __syncthreads();
    shared[lane * CHANNELS + channel] = value;
    __syncthreads();
    double sum = 0;
    if (lane == 0)
        for (int i = 0; i < LANES; i++) sum += shared[i * CHANNELS + channel];
    return sum;
}

// The first stage of moments: for each chunk of rows and channel the mean and the sum of squared deviations from it.
// The grid is (channel tiles, chunks); parts are (chunks, 2, c).
#define PARAMETERS(T) (const T *x, double *parts, u32 rows, int c, int chunk)
template <class T> __device__ void moments(const T *x, double *parts, u32 rows, int c, int chunk) {
    __shared__ double shared[CHANNELS * LANES];
    __shared__ double means[CHANNELS];
    typedef REAL(T) R;
    int channel = blockIdx.x * CHANNELS + threadIdx.x % CHANNELS, lane = threadIdx.x / CHANNELS;
    u32 from = blockIdx.y * chunk, to = from + chunk < rows ? from + chunk : rows;
    double count = (double)(to - from), sum = 0;
    if (channel < c) {
        for (u32 row = from + lane; row < to;) {
            R run = 0;
            for (int i = 0; i < RUN && row < to; i++, row += LANES) run += up(x[row * c + channel]);
            sum += (double)run;
        }
    }
    sum = lanes(shared, sum);
    if (lane == 0) means[threadIdx.x] = sum / count;
    __syncthreads();
    // The pivot is the mean rounded to the type of the values; the first-order term corrects the rounding.
    R pivot = (R)means[threadIdx.x % CHANNELS];
    double first = 0, second = 0;
    if (channel < c) {
        for (u32 row = from + lane; row < to;) {
            R run = 0, square = 0;
            for (int i = 0; i < RUN && row < to; i++, row += LANES) {
                R d = up(x[row * c + channel]) - pivot;
                run += d;
                square += d * d;
            }
            first += (double)run;
            second += (double)square;
        }
    }
    first = lanes(shared, first);
    second = lanes(shared, second);
    if (lane == 0 && channel < c) {
        double spread = second - first * first / count;
        parts[blockIdx.y * 2 * c + channel] = (double)pivot + first / count;
        parts[blockIdx.y * 2 * c + c + channel] = spread > 0 || spread != spread ? spread : 0;
    }
}
FOR_EACH(moments, PARAMETERS, (x, parts, rows, c, chunk))
#undef PARAMETERS

// The second stage: mean and biased variance of each channel (Chan, Golub & LeVeque 1983). The grid is the channel tiles.
extern "C" __global__ void __launch_bounds__(256)
merge(const double *parts, int chunks, u32 rows, int chunk, int c, double *mean, double *variance) {
    __shared__ double counts[CHANNELS * LANES], means[CHANNELS * LANES], spreads[CHANNELS * LANES];
    int channel = blockIdx.x * CHANNELS + threadIdx.x % CHANNELS, lane = threadIdx.x / CHANNELS;
    double count = 0, middle = 0, spread = 0;
    if (channel < c) {
        for (int i = lane; i < chunks; i += LANES) {
            u32 left = rows - (u32)i * chunk;
            double n = left < chunk ? (double)left : (double)chunk;
            double d = parts[(u32)i * 2 * c + channel] - middle, total = count + n;
            middle += d * n / total;
            spread += parts[(u32)i * 2 * c + c + channel] + d * d * count * n / total;
            count = total;
        }
    }
    counts[threadIdx.x] = count, means[threadIdx.x] = middle, spreads[threadIdx.x] = spread;
    __syncthreads();
    if (lane == 0 && channel < c) {
        for (int i = 1; i < LANES; i++) {
            int at = i * CHANNELS + threadIdx.x;
            double n = counts[at], total = count + n;
            if (n == 0) continue;
            double d = means[at] - middle;
            middle += d * n / total;
            spread += spreads[at] + d * d * count * n / total;
            count = total;
        }
        mean[channel] = middle;
        variance[channel] = spread / count;
    }
}

// The second stage of sums: to[i] = Σ parts[chunk][i]. The grid is the tiles of `width`.
extern "C" __global__ void __launch_bounds__(256) sum_parts(const double *parts, int chunks, int width, double *to) {
    __shared__ double shared[CHANNELS * LANES];
    int column = blockIdx.x * CHANNELS + threadIdx.x % CHANNELS, lane = threadIdx.x / CHANNELS;
    double sum = 0;
    if (column < width)
        for (int i = lane; i < chunks; i += LANES) sum += parts[(u32)i * width + column];
    sum = lanes(shared, sum);
    if (lane == 0 && column < width) to[column] = sum;
}

// The first stage of column sums; parts are (chunks, c).
#define PARAMETERS(T) (const T *x, double *parts, u32 rows, int c, int chunk)
template <class T> __device__ void column_sums(const T *x, double *parts, u32 rows, int c, int chunk) {
    __shared__ double shared[CHANNELS * LANES];
    int channel = blockIdx.x * CHANNELS + threadIdx.x % CHANNELS, lane = threadIdx.x / CHANNELS;
    u32 from = blockIdx.y * chunk, to = from + chunk < rows ? from + chunk : rows;
    double sum = 0;
    if (channel < c) {
        for (u32 row = from + lane; row < to;) {
            REAL(T) run = 0;
            for (int i = 0; i < RUN && row < to; i++, row += LANES) run += up(x[row * c + channel]);
            sum += (double)run;
        }
    }
    sum = lanes(shared, sum);
    if (lane == 0 && channel < c) parts[blockIdx.y * c + channel] = sum;
}
FOR_EACH(column_sums, PARAMETERS, (x, parts, rows, c, chunk))
#undef PARAMETERS

// A normalisation: mean, scale γ/√(variance + ε), shift β, and 1/√(variance + ε) for each of c channels. β may be null.
#define PARAMETERS(T)                                                                                                                      \
    (const double *mean, const double *variance, const T *gamma, const T *beta, double epsilon, T *middle, T *scale, T *shift,              \
     double *inverse, int c)
template <class T>
__device__ void affine(const double *mean, const double *variance, const T *gamma, const T *beta, double epsilon, T *middle, T *scale,
                       T *shift, double *inverse, int c) {
    for (u32 i = thread(); i < (u32)c; i += threads()) {
        inverse[i] = 1.0 / sqrt(variance[i] + epsilon);
        middle[i] = (T)mean[i];
        scale[i] = (T)((double)gamma[i] * inverse[i]);
        shift[i] = beta ? beta[i] : (T)0;
    }
}
FOR_REAL(affine, PARAMETERS, (mean, variance, gamma, beta, epsilon, middle, scale, shift, inverse, c))
#undef PARAMETERS

// Running statistics: (1 − share)·running + share·(batch·factor).
#define PARAMETERS(T) (T * running, const double *batch, double factor, double share, int c)
template <class T> __device__ void follow(T *running, const double *batch, double factor, double share, int c) {
    for (u32 i = thread(); i < (u32)c; i += threads())
        running[i] = (T)((1.0 - share) * (double)running[i] + share * (batch[i] * factor));
}
FOR_REAL(follow, PARAMETERS, (running, batch, factor, share, c))
#undef PARAMETERS

// (x − mean)·scale + shift, then perhaps max(·, 0); x itself if there is no normalisation (mean is null).
template <class R> __device__ inline R normal(R x, const R *mean, const R *scale, const R *shift, int relu, int i) {
    if (!mean) return x;
    R v = (x - mean[i]) * scale[i] + shift[i];
    return relu && v < 0 ? (R)0 : v;
}

#define PARAMETERS(T) (const T *x, T *y, u32 n, int c, const REAL(T) * mean, const REAL(T) * scale, const REAL(T) * shift, int relu)
template <class T>
__device__ void normalise(const T *x, T *y, u32 n, int c, const REAL(T) * mean, const REAL(T) * scale, const REAL(T) * shift, int relu) {
    for (u32 i = thread(); i < n; i += threads()) y[i] = down<T>(normal(up(x[i]), mean, scale, shift, relu, (int)(i % c)));
}
FOR_EACH(normalise, PARAMETERS, (x, y, n, c, mean, scale, shift, relu))
#undef PARAMETERS

// The first stage of Σ dy and Σ dy·(x − mean), dy masked by the normalisation's ReLU; parts are (chunks, 2, c).
#define PARAMETERS(T)                                                                                                                      \
    (const T *x, const T *dy, double *parts, u32 rows, int c, int chunk, const REAL(T) * mean, const REAL(T) * scale,                       \
     const REAL(T) * shift, int relu)
template <class T>
__device__ void gradient_sums(const T *x, const T *dy, double *parts, u32 rows, int c, int chunk, const REAL(T) * mean,
                              const REAL(T) * scale, const REAL(T) * shift, int relu) {
    __shared__ double shared[CHANNELS * LANES];
    typedef REAL(T) R;
    int channel = blockIdx.x * CHANNELS + threadIdx.x % CHANNELS, lane = threadIdx.x / CHANNELS;
    u32 from = blockIdx.y * chunk, to = from + chunk < rows ? from + chunk : rows;
    double plain = 0, centred = 0;
    if (channel < c) {
        R middle = mean[channel], slope = scale[channel], offset = shift[channel];
        for (u32 row = from + lane; row < to;) {
            R run = 0, product = 0;
            for (int i = 0; i < RUN && row < to; i++, row += LANES) {
                R v = up(x[row * c + channel]) - middle;
                R d = relu && v * slope + offset <= 0 ? (R)0 : (R)up(dy[row * c + channel]);
                run += d;
                product += d * v;
            }
            plain += (double)run;
            centred += (double)product;
        }
    }
    plain = lanes(shared, plain);
    centred = lanes(shared, centred);
    if (lane == 0 && channel < c) {
        parts[blockIdx.y * 2 * c + channel] = plain;
        parts[blockIdx.y * 2 * c + c + channel] = centred;
    }
}
FOR_EACH(gradient_sums, PARAMETERS, (x, dy, parts, rows, c, chunk, mean, scale, shift, relu))
#undef PARAMETERS

// dγ and dβ from the sums (2, c).
#define PARAMETERS(T) (const double *sums, const double *inverse, T *dgamma, T *dbeta, int c)
template <class T> __device__ void affine_gradients(const double *sums, const double *inverse, T *dgamma, T *dbeta, int c) {
    for (u32 i = thread(); i < (u32)c; i += threads()) {
        dgamma[i] = (T)(sums[c + i] * inverse[i]);
        dbeta[i] = (T)sums[i];
    }
}
FOR_REAL(affine_gradients, PARAMETERS, (sums, inverse, dgamma, dbeta, c))
#undef PARAMETERS

// What the backward pass of a normalisation subtracts: the mean of dy, and its component along x. Nothing if the statistics were given,
// not computed (`rows` is 0).
#define PARAMETERS(T) (const double *sums, const double *inverse, double rows, T *offset, T *slope, int c)
template <class T> __device__ void components(const double *sums, const double *inverse, double rows, T *offset, T *slope, int c) {
    for (u32 i = thread(); i < (u32)c; i += threads()) {
        offset[i] = rows > 0 ? (T)(sums[i] / rows) : (T)0;
        slope[i] = rows > 0 ? (T)(sums[c + i] * inverse[i] * inverse[i] / rows) : (T)0;
    }
}
FOR_REAL(components, PARAMETERS, (sums, inverse, rows, offset, slope, c))
#undef PARAMETERS

// dx = scale·(dy − offset − (x − mean)·slope), dy masked by the normalisation's ReLU. dx may be dy.
#define PARAMETERS(T)                                                                                                                      \
    (const T *x, const T *dy, T *dx, u32 n, int c, const REAL(T) * mean, const REAL(T) * scale, const REAL(T) * shift, int relu,            \
     const REAL(T) * offset, const REAL(T) * slope)
template <class T>
__device__ void normalise_gradient(const T *x, const T *dy, T *dx, u32 n, int c, const REAL(T) * mean, const REAL(T) * scale,
                                   const REAL(T) * shift, int relu, const REAL(T) * offset, const REAL(T) * slope) {
    typedef REAL(T) R;
    for (u32 i = thread(); i < n; i += threads()) {
        int k = (int)(i % c);
        R v = up(x[i]) - mean[k];
        R d = relu && v * scale[k] + shift[k] <= 0 ? (R)0 : (R)up(dy[i]);
        dx[i] = down<T>(scale[k] * (d - offset[k] - v * slope[k]));
    }
}
FOR_EACH(normalise_gradient, PARAMETERS, (x, dy, dx, n, c, mean, scale, shift, relu, offset, slope))
#undef PARAMETERS

// y = a + b, each normalised first if it has a normalisation, then perhaps max(·, 0): the end of a residual block.
#define PARAMETERS(T)                                                                                                                      \
    (const T *a, const REAL(T) * mean_a, const REAL(T) * scale_a, const REAL(T) * shift_a, int relu_a, const T *b, const REAL(T) * mean_b,  \
     const REAL(T) * scale_b, const REAL(T) * shift_b, int relu_b, T *y, u32 n, int c, int relu)
template <class T>
__device__ void join(const T *a, const REAL(T) * mean_a, const REAL(T) * scale_a, const REAL(T) * shift_a, int relu_a, const T *b,
                     const REAL(T) * mean_b, const REAL(T) * scale_b, const REAL(T) * shift_b, int relu_b, T *y, u32 n, int c, int relu) {
    for (u32 i = thread(); i < n; i += threads()) {
        int k = (int)(i % c);
        REAL(T) v = normal(up(a[i]), mean_a, scale_a, shift_a, relu_a, k) + normal(up(b[i]), mean_b, scale_b, shift_b, relu_b, k);
        y[i] = down<T>(relu && v < 0 ? (REAL(T))0 : v);
    }
}
FOR_EACH(join, PARAMETERS, (a, mean_a, scale_a, shift_a, relu_a, b, mean_b, scale_b, shift_b, relu_b, y, n, c, relu))
#undef PARAMETERS
