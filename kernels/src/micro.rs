//! Matrix products on a matrix whose rows are scattered in memory: the inner loops of every convolution in f32 and bf16.
//!
//! The rows of the left factor (pixels) start anywhere, so that no patch of an image is ever copied together. The right factor (packed
//! weights, or gradients) is in [`Panels`](super::panels), whose rows are whole vectors. A tile of the product stays in registers while its
//! sums are computed.

#![allow(clippy::needless_range_loop, reason = "constant loops over a register tile, to be unrolled")]

use super::fast::{Factor, Fast};
use super::simd::{MixedKernel, Simd, WithSimd, run, run_mixed};

/// A run of the inner dimension that is contiguous on both sides: `len` factors of the left factor's row from `a` on, times rows `b..b +
/// len` of the panel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    pub a: usize,
    pub b: usize,
    pub len: usize,
}

/// Starts of rows, and the largest of them, computed once for many products.
pub struct Places {
    at: Vec<usize>,
    last: usize,
}

/// The first few starts.
#[derive(Clone, Copy)]
pub struct First<'a> {
    at: &'a [usize],
    /// No start is larger.
    last: usize,
}

impl FromIterator<usize> for Places {
    fn from_iter<I: IntoIterator<Item = usize>>(places: I) -> Self {
        let at: Vec<usize> = places.into_iter().collect();
        let last = at.iter().max().copied().unwrap_or(0);
        Places { at, last }
    }
}

impl Places {
    /// Whether there are no starts.
    pub fn is_empty(&self) -> bool {
        self.at.is_empty()
    }

    /// All starts.
    pub fn all(&self) -> First<'_> {
        self.first(self.at.len())
    }

    /// The first `count` starts. The slice that they are used with must be large enough for all starts.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn first(&self, count: usize) -> First<'_> {
        First { at: &self.at[..count], last: self.last }
    }
}

/// A scattered product `c[c_at[i] + j] (+)= Σ a[a_at[i] + run.a + k]·b[(run.b + k, j)]`, j below `width`.
pub struct Rows<'a, A, C> {
    pub a: &'a [A],
    pub a_at: First<'a>,
    pub runs: &'a [Stretch],
    /// A single panel.
    pub b: &'a [A],
    pub c: &'a mut [C],
    pub c_at: First<'a>,
    pub width: usize,
    /// Whether to add to the values in c.
    pub add: bool,
}

/// A scattered product over pixels p (in bf16, pairs of them), `c[(i, j)] (+)= Σ a[a_at[p] + i]·b[b_at[p] + j]`, i below `height`, j below `width`.
pub struct Columns<'a, A> {
    pub a: &'a [A],
    pub a_at: First<'a>,
    pub height: usize,
    /// A single panel.
    pub b: &'a [A],
    pub b_at: First<'a>,
    pub c: &'a mut [f32],
    /// Values from row to row of c.
    pub stride: usize,
    pub width: usize,
    /// Whether to add to the values in c.
    pub add: bool,
}

impl<A: Factor, C: Fast> Rows<'_, A, C> {
    /// Computes the product.
    ///
    /// # Panics
    /// If an index is outside its slice.
    pub fn run(self) {
        run_mixed(self);
    }
}

impl<A: Factor> Columns<'_, A> {
    /// Computes the product.
    ///
    /// # Panics
    /// If an index is outside its slice.
    pub fn run(self) {
        run_mixed(self);
    }
}

/// Vectors in a panel's row that holds `width` factors.
fn vectors<S: Simd>(width: usize) -> usize {
    let count = width.div_ceil(S::F32_LANES);
    assert!(0 < count && count <= panel::<S>(), "a panel row holds {width} factors");
    count
}

/// Vectors in the row of a full panel.
const fn panel<S: Simd>() -> usize {
    if S::REGISTER_COUNT >= 32 { 4 } else { 2 }
}

/// Floats in the row of a full panel.
pub(crate) fn panel_width() -> usize {
    struct Width;
    impl WithSimd for Width {
        type Output = usize;
        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> usize {
            panel::<S>() * S::F32_LANES
        }
    }
    run(Width)
}

/// Calls a kernel for tiles of as many rows as the registers hold, then for the rest. Heights are odd or six: for powers of two LLVM turns
/// broadcasts into shuffles, at half the speed.
macro_rules! tiles {
    ($count:expr, $vectors:expr, $kernel:ident[$($kind:ident),*]($($argument:expr),*)) => {{
        let (count, mut i) = ($count, 0);
        macro_rules! while_fits {
            ($rows:literal, $columns:literal) => {
                while count - i >= $rows {
                    $kernel::<$($kind),*, $rows, $columns>($($argument),*, i);
                    i += $rows;
                }
            };
        }
        match $vectors {
            4 => { while_fits!(6, 4); while_fits!(5, 4); while_fits!(3, 4); while_fits!(1, 4); }
            3 => { while_fits!(7, 3); while_fits!(5, 3); while_fits!(3, 3); while_fits!(1, 3); }
            2 if S::REGISTER_COUNT < 32 => { while_fits!(6, 2); while_fits!(5, 2); while_fits!(3, 2); while_fits!(1, 2); }
            2 => { while_fits!(13, 2); while_fits!(9, 2); while_fits!(5, 2); while_fits!(3, 2); while_fits!(1, 2); }
            1 if S::REGISTER_COUNT < 32 => { while_fits!(9, 1); while_fits!(5, 1); while_fits!(3, 1); while_fits!(1, 1); }
            _ => { while_fits!(11, 1); while_fits!(5, 1); while_fits!(3, 1); while_fits!(1, 1); }
        }
    }};
}

impl<A: Factor, C: Fast> MixedKernel for Rows<'_, A, C> {
    #[inline(always)]
    fn with<S: Simd, const NATIVE: bool>(mut self, simd: S) {
        let count = vectors::<S>(self.width);
        let stride = count * S::F32_LANES;
        let (a_end, b_end) = self.runs.iter().fold((0, 0), |(a, b), run| (a.max(run.a + run.len), b.max(run.b + run.len)));
        assert!(self.a_at.at.len() == self.c_at.at.len(), "rows of both sides");
        assert!(self.a_at.last + a_end <= self.a.len() && b_end * stride <= self.b.len(), "the product reads beyond its factors");
        assert!(self.c_at.last + self.width <= self.c.len(), "the product does not fit its output");
        // SAFETY: the asserts above hold for every row of both tables and every run, and `tile` is called only for rows below their length.
        unsafe { tiles!(self.a_at.at.len(), count, rows_tile[S, A, C, NATIVE](simd, &mut self)) }
    }
}

/// One tile of [`Rows`], rows `first..first + M`, `N` vectors wide.
///
/// # Safety
/// The rows, runs and `width` must lie inside the slices, as [`Rows`]' caller has checked, and `width` in `N` vectors.
#[inline(always)]
unsafe fn rows_tile<S: Simd, A: Factor, C: Fast, const NATIVE: bool, const M: usize, const N: usize>(
    simd: S,
    rows: &mut Rows<A, C>,
    first: usize,
) {
    let mut sum = [[simd.splat_f32s(0.0); N]; M];
    let stride = N * S::F32_LANES;
    for run in rows.runs {
        // SAFETY: the caller promises that a_at[first + i] + run.a + len ≤ a.len() and (run.b + len)·stride ≤ b.len().
        unsafe {
            let mut a = [rows.a.as_ptr(); M];
            for i in 0..M {
                a[i] = rows.a.as_ptr().add(*rows.a_at.at.get_unchecked(first + i) + run.a);
            }
            let mut b = rows.b.as_ptr().add(run.b * stride);
            for k in 0..run.len {
                let mut line = [simd.splat_f32s(0.0); N];
                for j in 0..N {
                    line[j] = b.add(j * S::F32_LANES).cast::<S::f32s>().read_unaligned();
                }
                for i in 0..M {
                    let left = (*a[i].add(k)).splat(simd);
                    for j in 0..N {
                        sum[i][j] = A::multiply::<S, NATIVE>(simd, left, line[j], sum[i][j]);
                    }
                }
                b = b.add(stride);
            }
        }
    }
    let (c, c_at) = (rows.c.as_mut_ptr(), rows.c_at.at);
    // SAFETY: c_at[first + i] + width ≤ c.len(), and `put` writes `width` numbers.
    unsafe { put::<S, _, NATIVE, M, N>(simd, |i| c.add(*c_at.get_unchecked(first + i)), rows.width, rows.add, sum) };
}

/// Writes or adds the first `width` values of each row of a tile; row i goes to `to(i)`.
///
/// # Safety
/// Every `to(i)` must be valid for `width` values, at most those of N vectors, and must not overlap the others.
#[inline(always)]
unsafe fn put<S: Simd, C: Fast, const NATIVE: bool, const M: usize, const N: usize>(
    simd: S,
    to: impl Fn(usize) -> *mut C,
    width: usize,
    add: bool,
    sum: [[S::f32s; N]; M],
) {
    let lanes = S::F32_LANES;
    // Plain loops over constants, so that the sums never leave their registers.
    if width == N * lanes && !add {
        for i in 0..M {
            for j in 0..N {
                // SAFETY: the caller promises that the row is valid for `width` values, and here these fill N vectors.
                let to = unsafe { std::slice::from_raw_parts_mut(to(i).add(j * lanes), lanes) };
                C::store::<S, NATIVE>(simd, to, 0, sum[i][j]);
            }
        }
    } else if width == N * lanes {
        for i in 0..M {
            for j in 0..N {
                // SAFETY: the caller promises that the row is valid for `width` values, and here these fill N vectors.
                let to = unsafe { std::slice::from_raw_parts_mut(to(i).add(j * lanes), lanes) };
                let v = simd.add_f32s(C::load(simd, to, 0), sum[i][j]);
                C::store::<S, NATIVE>(simd, to, 0, v);
            }
        }
    } else {
        let spilled = sum;
        for (i, sum) in spilled.iter().enumerate() {
            for (j, &v) in sum.iter().enumerate() {
                let from = (j * lanes).min(width);
                // SAFETY: only the values `from..min(from + lanes, width)` of the row are accessed, for which the caller promises that it
                // is valid.
                let to = unsafe { std::slice::from_raw_parts_mut(to(i).add(from), lanes.min(width - from)) };
                let count = to.len();
                let v = if add { simd.add_f32s(C::load_some(simd, to, 0, count), v) } else { v };
                C::store_some::<S, NATIVE>(simd, to, 0, count, v);
            }
        }
    }
}

impl<A: Factor> MixedKernel for Columns<'_, A> {
    #[inline(always)]
    fn with<S: Simd, const NATIVE: bool>(mut self, simd: S) {
        let count = vectors::<S>(self.width);
        assert!(self.a_at.at.len() == self.b_at.at.len(), "pixels of both sides");
        assert!(
            self.a_at.at.is_empty()
                || self.a_at.last + self.height <= self.a.len() && self.b_at.last + count * S::F32_LANES <= self.b.len(),
            "the product reads beyond its factors"
        );
        let rows = self.height.saturating_sub(1);
        assert!(self.height == 0 || rows * self.stride + self.width <= self.c.len(), "the product does not fit its output");
        // SAFETY: the asserts above hold for every pixel of both tables, and `tile` is called only for rows below `height`.
        unsafe { tiles!(self.height, count, columns_tile[S, A, NATIVE](simd, &mut self)) }
    }
}

/// One tile of [`Columns`], rows `first..first + M`, `N` vectors wide.
///
/// # Safety
/// The pixels, `height` and `width` must lie inside the slices, as [`Columns`]' caller has checked, and `width` in `N` vectors.
#[inline(always)]
unsafe fn columns_tile<S: Simd, A: Factor, const NATIVE: bool, const M: usize, const N: usize>(
    simd: S,
    columns: &mut Columns<A>,
    first: usize,
) {
    let mut sum = [[simd.splat_f32s(0.0); N]; M];
    for (&a, &b) in columns.a_at.at.iter().zip(columns.b_at.at) {
        // SAFETY: the caller promises that a + first + M ≤ a + height ≤ a.len() and b + N·lanes ≤ b.len().
        unsafe {
            let (a, b) = (columns.a.as_ptr().add(a + first), columns.b.as_ptr().add(b));
            let mut line = [simd.splat_f32s(0.0); N];
            for j in 0..N {
                line[j] = b.add(j * S::F32_LANES).cast::<S::f32s>().read_unaligned();
            }
            for i in 0..M {
                let left = (*a.add(i)).splat(simd);
                for j in 0..N {
                    sum[i][j] = A::multiply::<S, NATIVE>(simd, left, line[j], sum[i][j]);
                }
            }
        }
    }
    let (c, stride) = (columns.c.as_mut_ptr(), columns.stride);
    // SAFETY: row first + i is below `height`, so its `width` numbers lie inside c.
    unsafe { put::<S, _, NATIVE, M, N>(simd, |i| c.add((first + i) * stride), columns.width, columns.add, sum) };
}
