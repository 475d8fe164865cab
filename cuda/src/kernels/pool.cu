// Pooling over windows and over whole images. Gradients are gathered by each input pixel from the windows that it is in, in their order,
// so nothing is added atomically.

// The shapes of a pooling: h × w × c images to oh × ow × c; windows begin `top` rows and `left` columns outside the image.
struct Windows {
    int h, w, c, oh, ow, kernel, stride, top, left, count_outside;
};

// The first pixel of window o that is inside, and the one after the last.
__device__ inline int first(int o, int stride, int before) { return o * stride > before ? o * stride - before : 0; }
__device__ inline int last(int o, int stride, int before, int kernel, int size) {
    int end = o * stride + kernel - before;
    return end < size ? end : size;
}
// The first window that a pixel is in; the last is the one after `last_window`.
__device__ inline int first_window(int at, int stride, int before, int kernel) {
    int from = at + before - kernel + 1;
    return from > 0 ? (from + stride - 1) / stride : 0;
}
__device__ inline int last_window(int at, int stride, int before, int count) {
    int to = (at + before) / stride + 1;
    return to < count ? to : count;
}

// The maximum of each window (of equal values the first), and its pixel in the image. NaN wins.
#define PARAMETERS(T) (Windows g, const T *x, T *y, u32 *winners, u32 n)
template <class T> __device__ void max_pool(Windows g, const T *x, T *y, u32 *winners, u32 n) {
    for (u32 i = thread(); i < n; i += threads()) {
        int k = (int)(i % g.c), ox = (int)(i / g.c % g.ow), oy = (int)(i / g.c / g.ow % g.oh);
        const T *image = x + i / g.c / g.ow / g.oh * g.h * g.w * g.c;
        u32 winner = 0xffffffffu;
        T best = down<T>(0);
#pragma unroll 1
        for (int py = first(oy, g.stride, g.top); py < last(oy, g.stride, g.top, g.kernel, g.h); py++)
#pragma unroll 1
            for (int px = first(ox, g.stride, g.left); px < last(ox, g.stride, g.left, g.kernel, g.w); px++) {
                T v = image[((u32)py * g.w + px) * g.c + k];
                if (winner == 0xffffffffu || up(v) > up(best) || is_nan(up(v))) best = v, winner = (u32)(py * g.w + px);
            }
        y[i] = best;
        winners[i] = winner;
    }
}
FOR_EACH(max_pool, PARAMETERS, (g, x, y, winners, n))
#undef PARAMETERS

// Adds each output's gradient to its winner; n counts dx.
#define PARAMETERS(T) (Windows g, const T *dy, const u32 *winners, T *dx, u32 n)
template <class T> __device__ void max_pool_gradient(Windows g, const T *dy, const u32 *winners, T *dx, u32 n) {
    for (u32 i = thread(); i < n; i += threads()) {
        int k = (int)(i % g.c), px = (int)(i / g.c % g.w), py = (int)(i / g.c / g.w % g.h);
        u32 image = i / g.c / g.w / g.h * g.oh * g.ow;
        T sum = down<T>(0);
#pragma unroll 1
        for (int oy = first_window(py, g.stride, g.top, g.kernel); oy < last_window(py, g.stride, g.top, g.oh); oy++)
#pragma unroll 1
            for (int ox = first_window(px, g.stride, g.left, g.kernel); ox < last_window(px, g.stride, g.left, g.ow); ox++) {
                u32 at = (image + (u32)oy * g.ow + ox) * g.c + k;
                if (winners[at] == (u32)(py * g.w + px)) sum = down<T>(up(sum) + up(dy[at]));
            }
        dx[i] = sum;
    }
}
FOR_EACH(max_pool_gradient, PARAMETERS, (g, dy, winners, dx, n))
#undef PARAMETERS

// One over the number of pixels that the mean of a window counts.
__device__ inline double share(Windows g, int oy, int ox) {
    int rows = last(oy, g.stride, g.top, g.kernel, g.h) - first(oy, g.stride, g.top);
    int columns = last(ox, g.stride, g.left, g.kernel, g.w) - first(ox, g.stride, g.left);
    int inside = rows > 0 && columns > 0 ? rows * columns : 1;
    return 1.0 / (g.count_outside ? g.kernel * g.kernel : inside);
}

#define PARAMETERS(T) (Windows g, const T *x, T *y, u32 n)
template <class T> __device__ void mean_pool(Windows g, const T *x, T *y, u32 n) {
    for (u32 i = thread(); i < n; i += threads()) {
        int k = (int)(i % g.c), ox = (int)(i / g.c % g.ow), oy = (int)(i / g.c / g.ow % g.oh);
        const T *image = x + i / g.c / g.ow / g.oh * g.h * g.w * g.c;
        REAL(T) sum = 0;
#pragma unroll 1
        for (int py = first(oy, g.stride, g.top); py < last(oy, g.stride, g.top, g.kernel, g.h); py++)
#pragma unroll 1
            for (int px = first(ox, g.stride, g.left); px < last(ox, g.stride, g.left, g.kernel, g.w); px++)
                sum += up(image[((u32)py * g.w + px) * g.c + k]);
        y[i] = down<T>(sum * (REAL(T))share(g, oy, ox));
    }
}
FOR_EACH(mean_pool, PARAMETERS, (g, x, y, n))
#undef PARAMETERS

// n counts dx.
#define PARAMETERS(T) (Windows g, const T *dy, T *dx, u32 n)
template <class T> __device__ void mean_pool_gradient(Windows g, const T *dy, T *dx, u32 n) {
    for (u32 i = thread(); i < n; i += threads()) {
        int k = (int)(i % g.c), px = (int)(i / g.c % g.w), py = (int)(i / g.c / g.w % g.h);
        u32 image = i / g.c / g.w / g.h * g.oh * g.ow;
        T sum = down<T>(0);
#pragma unroll 1
        for (int oy = first_window(py, g.stride, g.top, g.kernel); oy < last_window(py, g.stride, g.top, g.oh); oy++)
#pragma unroll 1
            for (int ox = first_window(px, g.stride, g.left, g.kernel); ox < last_window(px, g.stride, g.left, g.ow); ox++)
                sum = down<T>(up(sum) + up(dy[(image + (u32)oy * g.ow + ox) * g.c + k]) * (REAL(T))share(g, oy, ox));
        dx[i] = sum;
    }
}
FOR_EACH(mean_pool_gradient, PARAMETERS, (g, dy, dx, n))
#undef PARAMETERS

// The mean over an image of channel `channel` of `stride` channels, added in double; to threads of lane 0.
template <class T> __device__ inline double mean_of(const T *image, int pixels, int channel, int c, int stride, double *shared) {
    int lane = threadIdx.x / CHANNELS;
    double sum = 0;
    if (channel < c) {
        for (int pixel = lane; pixel < pixels;) {
            REAL(T) run = 0;
            for (int i = 0; i < RUN && pixel < pixels; i++, pixel += LANES) run += up(image[(u32)pixel * stride + channel]);
            sum += (double)run;
        }
    }
    return lanes(shared, sum) / pixels;
}

// The mean of each channel of each image. The grid is (channel tiles, images).
#define PARAMETERS(T) (const T *x, T *y, int pixels, int c)
template <class T> __device__ void global_mean(const T *x, T *y, int pixels, int c) {
    __shared__ double shared[CHANNELS * LANES];
    int channel = blockIdx.x * CHANNELS + threadIdx.x % CHANNELS;
    double mean = mean_of(x + blockIdx.y * pixels * c, pixels, channel, c, c, shared);
    if (threadIdx.x < CHANNELS && channel < c) y[blockIdx.y * c + channel] = down<T>((REAL(T))mean);
}
FOR_EACH(global_mean, PARAMETERS, (x, y, pixels, c))
#undef PARAMETERS

// n counts dx.
#define PARAMETERS(T) (const T *dy, T *dx, u32 n, int pixels, int c)
template <class T> __device__ void global_mean_gradient(const T *dy, T *dx, u32 n, int pixels, int c) {
    REAL(T) part = (REAL(T))(1.0 / pixels);
    for (u32 i = thread(); i < n; i += threads()) dx[i] = down<T>(up(dy[i / c / pixels * c + i % c]) * part);
}
FOR_EACH(global_mean_gradient, PARAMETERS, (dy, dx, n, pixels, c))
#undef PARAMETERS

// Selective kernels: x has two streams of f channels side by side.

// The mean over each image of the sum of both streams. The grid is (channel tiles, images).
#define PARAMETERS(T) (const T *x, T *y, int pixels, int f)
template <class T> __device__ void stream_mean(const T *x, T *y, int pixels, int f) {
    __shared__ double shared[CHANNELS * LANES];
    int channel = blockIdx.x * CHANNELS + threadIdx.x % CHANNELS;
    const T *image = x + blockIdx.y * pixels * 2 * f;
    T a = down<T>((REAL(T))mean_of(image, pixels, channel, f, 2 * f, shared));
    T b = down<T>((REAL(T))mean_of(image + f, pixels, channel, f, 2 * f, shared));
    if (threadIdx.x < CHANNELS && channel < f) y[blockIdx.y * f + channel] = down<T>(up(a) + up(b));
}
FOR_EACH(stream_mean, PARAMETERS, (x, y, pixels, f))
#undef PARAMETERS

// The first stream's weight: the softmax of two logits for each channel of each image.
#define PARAMETERS(T) (const T *gate, T *weight, u32 n, int f)
template <class T> __device__ void gate_weight(const T *gate, T *weight, u32 n, int f) {
    for (u32 i = thread(); i < n; i += threads()) {
        const T *logits = gate + i / f * 2 * f + i % f;
        weight[i] = down<T>(1 / (1 + exp(up(logits[f]) - up(logits[0]))));
    }
}
FOR_EACH(gate_weight, PARAMETERS, (gate, weight, n, f))
#undef PARAMETERS

// The sum of the streams by these weights; n counts y.
#define PARAMETERS(T) (const T *x, const T *weight, T *y, u32 n, int pixels, int f)
template <class T> __device__ void select(const T *x, const T *weight, T *y, u32 n, int pixels, int f) {
    for (u32 i = thread(); i < n; i += threads()) {
        int k = (int)(i % f);
        const T *both = x + i / f * 2 * f + k;
        REAL(T) part = up(weight[i / f / pixels * f + k]);
        y[i] = down<T>(part * up(both[0]) + (1 - part) * up(both[f]));
    }
}
FOR_EACH(select, PARAMETERS, (x, weight, y, n, pixels, f))
#undef PARAMETERS

// The streams' gradients through the weighted sum only; n counts dy.
#define PARAMETERS(T) (const T *weight, const T *dy, T *dx, u32 n, int pixels, int f)
template <class T> __device__ void stream_gradients(const T *weight, const T *dy, T *dx, u32 n, int pixels, int f) {
    for (u32 i = thread(); i < n; i += threads()) {
        int k = (int)(i % f);
        T *both = dx + i / f * 2 * f + k;
        REAL(T) part = up(weight[i / f / pixels * f + k]), d = up(dy[i]);
        both[0] = down<T>(d * part);
        both[f] = down<T>(d * (1 - part));
    }
}
FOR_EACH(stream_gradients, PARAMETERS, (weight, dy, dx, n, pixels, f))
#undef PARAMETERS

// The gradients of the gate's logits. The grid is (channel tiles, images).
#define PARAMETERS(T) (const T *x, const T *weight, const T *dy, T *dgate, int pixels, int f)
template <class T> __device__ void gate_gradient(const T *x, const T *weight, const T *dy, T *dgate, int pixels, int f) {
    __shared__ double shared[CHANNELS * LANES];
    int channel = blockIdx.x * CHANNELS + threadIdx.x % CHANNELS, lane = threadIdx.x / CHANNELS;
    double sum = 0;
    if (channel < f) {
        for (int pixel = lane; pixel < pixels; pixel += LANES) {
            u32 row = blockIdx.y * pixels + pixel;
            sum += (double)(up(dy[row * f + channel]) * (up(x[row * 2 * f + channel]) - up(x[row * 2 * f + f + channel])));
        }
    }
    sum = lanes(shared, sum);
    if (lane == 0 && channel < f) {
        REAL(T) part = up(weight[blockIdx.y * f + channel]);
        REAL(T) d = (REAL(T))sum * part * (1 - part);
        dgate[blockIdx.y * 2 * f + channel] = down<T>(d);
        dgate[blockIdx.y * 2 * f + f + channel] = down<T>(-d);
    }
}
FOR_EACH(gate_gradient, PARAMETERS, (x, weight, dy, dgate, pixels, f))
#undef PARAMETERS

// dx += dy / pixels for both streams: the gradient of `stream_mean`; n counts dx.
#define PARAMETERS(T) (const T *dy, T *dx, u32 n, int pixels, int f)
template <class T> __device__ void stream_mean_gradient(const T *dy, T *dx, u32 n, int pixels, int f) {
    REAL(T) part = (REAL(T))(1.0 / pixels);
    for (u32 i = thread(); i < n; i += threads())
        dx[i] = down<T>(up(dx[i]) + up(dy[i / (2 * f) / pixels * f + i % f]) * part);
}
FOR_EACH(stream_mean_gradient, PARAMETERS, (dy, dx, n, pixels, f))
#undef PARAMETERS
