//! Products of matrices that lie in slices, on one thread and by the register tiles of [`micro`](crate::micro). In f64, which only oracles
//! use, by the `gemm` crate.

use rayon::prelude::*;

use crate::fast::{Factor, Fast, Interleave};
use crate::gemm::{Matrix, gemm, matrix, transposed};
use crate::geometry::Geometry;
use crate::micro::{Columns, Places, Rows, Stretch, panel_width};
use crate::panels::{Weights, widths};
use crate::scratch::Scratch;
use crate::simd::{lanes, run};

/// Values that a factor combines.
pub(crate) fn depth<T: Fast>() -> usize {
    T::Factor::DEPTH
}

/// Multiplies a matrix by panels of `columns` columns. The matrix has `count` rows of `inner` values in `a`, which begin `line` values apart.
/// Row i of the product is written to `to[i·stride..]`, or added to it if `add` is true.
pub(crate) fn times<T: Fast, C: Fast>(
    a: &[T],
    [count, line, inner]: [usize; 3],
    b: &[T::Factor],
    columns: usize,
    (to, stride, add): (&mut [C], usize, bool),
) {
    let factors: &[T::Factor] = bytemuck::cast_slice(a);
    let rows = inner / depth::<T>();
    let a_at: Places = (0..count).map(|i| i * line / depth::<T>()).collect();
    let c_at: Places = (0..count).map(|i| i * stride).collect();
    let (runs, mut offset) = ([Stretch { a: 0, b: 0, len: rows }], 0);
    for (j, (width, panel)) in widths(columns).enumerate() {
        let (b, c) = (&b[offset..][..rows * panel], &mut to[j * panel_width()..]);
        Rows { a: factors, a_at: a_at.all(), runs: &runs, b, c, c_at: c_at.all(), width, add }.run();
        offset += rows * panel;
    }
}

/// Adds the products over rows, `c[i] += Σ a[row][i]·right[row]`, of `count` rows of `height` values that are `line` apart; c has rows of
/// `width` values that are `stride` apart.
pub(crate) fn add_turned<T: Fast>(
    a: &[T],
    [count, line]: [usize; 2],
    height: usize,
    right: &[T::Factor],
    c: &mut [f32],
    [width, stride]: [usize; 2],
) {
    let cells = count.div_ceil(depth::<T>());
    let mut packed = Scratch::<T::Factor>::new(if depth::<T>() > 1 { cells * height } else { 0 });
    let (a, apart): (&[T::Factor], usize) = if depth::<T>() > 1 {
        let at: Vec<Option<usize>> = (0..count).map(|row| Some(row * line)).collect();
        run(Interleave { rows: a, at: &at, width: height, line: height, to: &mut packed });
        (&packed, height)
    } else {
        (bytemuck::cast_slice(a), line)
    };
    let a_at: Places = (0..cells).map(|cell| cell * apart).collect();
    let mut offset = 0;
    for (j, (panel, whole)) in widths(width).enumerate() {
        let b_at: Places = (0..cells).map(|cell| cell * whole).collect();
        Columns {
            a,
            a_at: a_at.all(),
            height,
            b: &right[offset..][..cells * whole],
            b_at: b_at.all(),
            c: &mut c[j * panel_width()..],
            stride,
            width: panel,
            add: true,
        }
        .run();
        offset += cells * whole;
    }
}

/// A number type with products by a right side that is packed once, for many left sides.
pub trait Products: Sized {
    /// A right side.
    type Right<'a>: Send + Sync;

    /// Rows of `width` values: a left side's values are summed over rows.
    fn right(rows: &[Self], width: usize) -> Self::Right<'_>;

    /// The same turned, so that the sums are over the values of a row.
    fn turned(rows: &[Self], width: usize) -> Self::Right<'_>;

    /// The products of `count` rows of a, which are `line` apart, go to rows of `to`, which are `stride` apart, or are added to them.
    fn times(a: &[Self], count_line: [usize; 2], right: &Self::Right<'_>, to: (&mut [Self], usize, bool));

    /// Adds to `to` the products of the columns of `count` rows of a, which are `line` apart: a row of `to` for each column.
    fn add_turned(a: &[Self], count_line: [usize; 2], right: &Self::Right<'_>, to: (&mut [Self], usize));
}

/// In f64: where the rows are.
pub struct Plain<'a> {
    matrix: Matrix<'a, f64>,
    depth: usize,
    columns: usize,
}

impl Products for f64 {
    type Right<'a> = Plain<'a>;

    fn right(rows: &[f64], width: usize) -> Plain<'_> {
        Plain { matrix: matrix(rows, width), depth: rows.len() / width, columns: width }
    }

    fn turned(rows: &[f64], width: usize) -> Plain<'_> {
        Plain { matrix: transposed(rows, width), depth: width, columns: rows.len() / width }
    }

    fn times(a: &[f64], [count, line]: [usize; 2], right: &Plain, (to, stride, add): (&mut [f64], usize, bool)) {
        gemm([count, right.columns, right.depth], to, stride, add, matrix(a, line), right.matrix);
    }

    fn add_turned(a: &[f64], [count, line]: [usize; 2], right: &Plain, (to, stride): (&mut [f64], usize)) {
        gemm([to.len() / stride, right.columns, count], to, stride, true, transposed(a, line), right.matrix);
    }
}

/// In f32: panels, one after the other.
pub struct Panels {
    data: Vec<f32>,
    depth: usize,
    columns: usize,
}

/// Panels of `depth` rows for so many columns; `pack` fills panel number j.
fn panels(depth: usize, columns: usize, pack: impl Fn(usize, &mut [f32]) + Sync) -> Panels {
    let mut data = vec![0.0; depth * columns.next_multiple_of(lanes())];
    data.par_chunks_mut((depth * panel_width()).max(1)).enumerate().for_each(|(j, panel)| pack(j, panel));
    Panels { data, depth, columns }
}

impl Products for f32 {
    type Right<'a> = Panels;

    fn right(rows: &[f32], width: usize) -> Panels {
        let depth = rows.len() / width;
        panels(depth, width, |j, panel| {
            let (from, line) = (j * panel_width(), panel.len() / depth);
            let count = line.min(width - from);
            for (to, row) in panel.chunks_exact_mut(line).zip(rows.chunks_exact(width)) {
                to[..count].copy_from_slice(&row[from..from + count]);
            }
        })
    }

    fn turned(rows: &[f32], width: usize) -> Panels {
        let count = rows.len() / width;
        let of = Geometry { n: 1, h: 1, w: 1, c: width, o: count, oh: 1, ow: 1, kernel: 1, stride: 1, padding: 0 };
        let weights = Weights::forward(rows, &of);
        panels(width, count, |j, panel| weights.panel(j, panel))
    }

    fn times(a: &[f32], [count, line]: [usize; 2], right: &Panels, to: (&mut [f32], usize, bool)) {
        times::<f32, f32>(a, [count, line, right.depth], &right.data, right.columns, to);
    }

    fn add_turned(a: &[f32], [count, line]: [usize; 2], right: &Panels, (to, stride): (&mut [f32], usize)) {
        let height = to.len().div_ceil(stride);
        add_turned(a, [count, line], height, &right.data, to, [right.columns, stride]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_in_f32_follow_f64() {
        let wave = |n: usize, f: f64| (0..n).map(|i| (i as f64 * f).sin()).collect::<Vec<f64>>();
        let narrow = |x: &[f64]| x.iter().map(|x| *x as f32).collect::<Vec<f32>>();
        for [count, rows, width] in [[1, 1, 1], [7, 3, 65], [70, 130, 32], [33, 5, 130]] {
            let (z, beside) = (wave(rows * width, 0.37), 3);
            let near = |exact: &[f64], found: &[f32]| exact.iter().zip(found).all(|(e, f)| (e - f64::from(*f)).abs() < 1e-4);
            // With rows of z, with its columns; rows of a are further apart than they are long.
            for turned in [false, true] {
                let [depth, columns] = if turned { [width, rows] } else { [rows, width] };
                let (line, stride) = (depth + beside, columns + beside);
                let (a, start) = (wave(count * line, 0.7), wave(count * stride, 0.1));
                for add in [false, true] {
                    let (mut exact, mut found) = (start.clone(), narrow(&start));
                    let right = if turned { f64::turned(&z, width) } else { f64::right(&z, width) };
                    f64::times(&a, [count, line], &right, (&mut exact, stride, add));
                    let narrow_z = narrow(&z);
                    let right = if turned { f32::turned(&narrow_z, width) } else { f32::right(&narrow_z, width) };
                    f32::times(&narrow(&a), [count, line], &right, (&mut found, stride, add));
                    assert!(near(&exact, &found), "{count} × {depth} × {columns}");
                }
            }
            // Over the rows of both.
            let (line, a) = (count + beside, wave(rows * (count + beside), 0.7));
            let (mut exact, start) = (wave(count * width, 0.1), wave(count * width, 0.1));
            let mut found = narrow(&start);
            f64::add_turned(&a, [rows, line], &f64::right(&z, width), (&mut exact, width));
            f32::add_turned(&narrow(&a), [rows, line], &f32::right(&narrow(&z), width), (&mut found, width));
            assert!(near(&exact, &found), "{count} columns over {rows} rows");
        }
    }
}
