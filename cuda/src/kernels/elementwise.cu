// Operations on each value alone: conversion, ReLU and its gradient, sums, a bias, rows of a table.

#define PARAMETERS(T) (const T *from, REAL(T) * to, u32 n)
template <class T> __device__ void load(const T *from, REAL(T) * to, u32 n) {
    for (u32 i = thread(); i < n; i += threads()) to[i] = up(from[i]);
}
FOR_HALF(load, PARAMETERS, (from, to, n))
#undef PARAMETERS

#define PARAMETERS(T) (const T *from, double *to, u32 n)
template <class T> __device__ void widen(const T *from, double *to, u32 n) {
    for (u32 i = thread(); i < n; i += threads()) to[i] = (double)from[i];
}
FOR_REAL(widen, PARAMETERS, (from, to, n))
#undef PARAMETERS

#define PARAMETERS(T) (const double *from, T *to, u32 n)
template <class T> __device__ void narrow(const double *from, T *to, u32 n) {
    for (u32 i = thread(); i < n; i += threads()) to[i] = (T)from[i];
}
FOR_REAL(narrow, PARAMETERS, (from, to, n))
#undef PARAMETERS

// NaN stays NaN, so that a diverged network is noticed.
#define PARAMETERS(T) (T * x, u32 n)
template <class T> __device__ void relu(T *x, u32 n) {
    for (u32 i = thread(); i < n; i += threads())
        if (up(x[i]) < 0) x[i] = down<T>(0);
}
FOR_EACH(relu, PARAMETERS, (x, n))
#undef PARAMETERS

// dy = 0 wherever y, the output of a ReLU, is 0.
#define PARAMETERS(T) (T * dy, const T *y, u32 n)
template <class T> __device__ void mask(T *dy, const T *y, u32 n) {
    for (u32 i = thread(); i < n; i += threads())
        if (!(up(y[i]) > 0)) dy[i] = down<T>(0);
}
FOR_EACH(mask, PARAMETERS, (dy, y, n))
#undef PARAMETERS

#define PARAMETERS(T) (T * x, const T *y, u32 n)
template <class T> __device__ void add(T *x, const T *y, u32 n) {
    for (u32 i = thread(); i < n; i += threads()) x[i] = down<T>(up(x[i]) + up(y[i]));
}
FOR_EACH(add, PARAMETERS, (x, y, n))
#undef PARAMETERS

// Every row of y += bias.
#define PARAMETERS(T) (T * y, const REAL(T) * bias, u32 n, int c)
template <class T> __device__ void add_bias(T *y, const REAL(T) * bias, u32 n, int c) {
    for (u32 i = thread(); i < n; i += threads()) y[i] = down<T>(up(y[i]) + bias[i % c]);
}
FOR_EACH(add_bias, PARAMETERS, (y, bias, n, c))
#undef PARAMETERS

// Rows `ids` of a table with rows of `width` values.
#define PARAMETERS(T) (const REAL(T) * table, const u32 *ids, T *y, u32 n, int width)
template <class T> __device__ void gather(const REAL(T) * table, const u32 *ids, T *y, u32 n, int width) {
    for (u32 i = thread(); i < n; i += threads()) y[i] = down<T>(table[(u32)ids[i / width] * width + i % width]);
}
FOR_EACH(gather, PARAMETERS, (table, ids, y, n, width))
#undef PARAMETERS

// For each group the sum of its rows of dy, in the batch's order, added in double: a thread for each value of the sum.
#define PARAMETERS(T) (const T *dy, const u32 *order, const u32 *starts, REAL(T) * to, u32 n, int width)
template <class T> __device__ void sum_groups(const T *dy, const u32 *order, const u32 *starts, REAL(T) * to, u32 n, int width) {
    for (u32 i = thread(); i < n; i += threads()) {
        u32 group = i / width, column = i % width;
        double sum = 0;
        for (u32 at = starts[group]; at < starts[group + 1]; at++) sum += (double)up(dy[(u32)order[at] * width + column]);
        to[i] = (REAL(T))sum;
    }
}
FOR_EACH(sum_groups, PARAMETERS, (dy, order, starts, to, n, width))
#undef PARAMETERS
