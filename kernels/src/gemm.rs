//! The matrix product on one thread: callers divide the work, so that its order never depends on the number of threads.

use crate::element::Real;

/// A matrix inside a slice: `data[i * rows + j * columns]` is its element (i, j).
#[derive(Clone, Copy)]
pub struct Matrix<'a, T> {
    pub data: &'a [T],
    pub rows: usize,
    pub columns: usize,
}

/// A row-major matrix with `stride` values from row to row.
pub fn matrix<T>(data: &[T], stride: usize) -> Matrix<'_, T> {
    Matrix { data, rows: stride, columns: 1 }
}

/// The transpose of a row-major matrix with `stride` values from row to row.
pub(crate) fn transposed<T>(data: &[T], stride: usize) -> Matrix<'_, T> {
    Matrix { data, rows: 1, columns: stride }
}

/// y = a·b, or y += a·b with `add`; a is m × k, b is k × n, y is row-major with `stride` values from row to row.
pub(crate) fn gemm<T: Real>([m, n, k]: [usize; 3], y: &mut [T], stride: usize, add: bool, a: Matrix<T>, b: Matrix<T>) {
    if m == 0 || n == 0 || k == 0 {
        return;
    }
    let last = |x: &Matrix<T>, i: usize, j: usize| (i - 1) * x.rows + (j - 1) * x.columns;
    assert!(stride >= n && (m - 1) * stride + n <= y.len(), "the product does not fit its output");
    assert!(last(&a, m, k) < a.data.len() && last(&b, k, n) < b.data.len(), "the product reads beyond its factors");
    let one = <T as num_traits::One>::one();
    // SAFETY: the asserts above keep every element of y, a and b that the strides reach inside its slice; strides are not
    // negative; y is borrowed mutably, so neither factor overlaps it.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            y.as_mut_ptr(),
            1,
            stride as isize,
            add,
            a.data.as_ptr(),
            a.columns as isize,
            a.rows as isize,
            b.data.as_ptr(),
            b.columns as isize,
            b.rows as isize,
            one,
            one,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}
