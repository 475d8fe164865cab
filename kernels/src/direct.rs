//! Convolutions with any kernel and stride in f32 and bf16, without im2col: matrix products whose left rows are read at the pixels' places.

use std::sync::Arc;

use rayon::prelude::*;

use super::fast::{Factor, Fast, Interleave};
use super::geometry::Geometry;
use super::micro::{Columns, Places, Rows, panel_width};
use super::panels::{Panels, Weights, widths};
use super::simd::{lanes, run};
use super::taps::{Pixels, Taps};
use crate::buffer::{Buffer, BufferPool};

/// Output pixels processed at once: enough to use a cached panel of weights many times.
const BLOCK: usize = 256;

/// With so few channels, a product for each tap is not worth it: images are padded, and rows of taps are multiplied.
const FEW: usize = 16;

/// The number of tasks aimed at for small problems: enough for many cores.
const TASKS: usize = 16;

/// Computes Y from X. Y is written completely; `each` gets every block of it (its start and its values) while it is in cache, and the same
/// block of `beside`.
pub fn forward<T: Fast, R: Send>(
    g: &Geometry,
    x: &[T],
    weight: &[f32],
    y: &mut [T],
    beside: Option<&mut [T]>,
    each: impl Fn(usize, &mut [T], Option<&mut [T]>) -> R + Sync,
    pool: &Arc<BufferPool>,
) -> Vec<R> {
    let taps = Taps::forward(&Geometry { c: g.c.div_ceil(depth::<T>()), ..*g });
    with_factors(x, g.c, pool, |x| product(&taps, g.n, x, Weights::forward(weight, g), (y, beside), each, pool))
}

/// Computes dX from dY. dX is written completely, and passed to `each` block by block.
pub fn input_gradient<T: Fast, R: Send>(
    g: &Geometry,
    dy: &[T],
    weight: &[f32],
    dx: &mut [T],
    each: impl Fn(usize, &mut [T]) -> R + Sync,
    pool: &Arc<BufferPool>,
) -> Vec<R> {
    let taps = Taps::backward(&Geometry { o: g.o.div_ceil(depth::<T>()), ..*g });
    let each = |at: usize, dx: &mut [T], _: Option<&mut [T]>| each(at, dx);
    with_factors(dy, g.o, pool, |dy| product(&taps, g.n, dy, Weights::backward(weight, g), (dx, None), each, pool))
}

/// Values that one multiplication takes from each side.
fn depth<T: Fast>() -> usize {
    T::Factor::DEPTH
}

/// Passes rows of `c` values as factors; rows that do not divide into factors get a zero at the end.
fn with_factors<T: Fast, R>(rows: &[T], c: usize, pool: &Arc<BufferPool>, use_them: impl FnOnce(&[T::Factor]) -> R) -> R {
    if c.is_multiple_of(depth::<T>()) {
        return use_them(bytemuck::cast_slice(rows));
    }
    let mut whole = Buffer::<T>::new(rows.len() / c * (c + 1), pool);
    whole.par_chunks_mut(BLOCK * (c + 1)).zip(rows.par_chunks(BLOCK * c)).for_each(|(to, from)| {
        for (to, from) in to.chunks_exact_mut(c + 1).zip(from.chunks_exact(c)) {
            to[..c].copy_from_slice(from);
            to[c] = T::zeroed();
        }
    });
    use_them(bytemuck::cast_slice(&whole))
}

fn product<T: Fast, R: Send>(
    taps: &Taps,
    n: usize,
    a: &[T::Factor],
    weights: Weights,
    (c, beside): (&mut [T], Option<&mut [T]>),
    each: impl Fn(usize, &mut [T], Option<&mut [T]>) -> R + Sync,
    pool: &Arc<BufferPool>,
) -> Vec<R> {
    let ([rows, width], columns) = (taps.output(), weights.columns());
    let rows = n * rows;
    let block = BLOCK.div_ceil(width).min(rows);
    if rows.div_ceil(block) >= TASKS || columns <= panel_width() {
        let block = block.min(rows.div_ceil(TASKS));
        let size = block * width * columns;
        let panels: Panels<T::Factor> = weights.panels(pool);
        let one = |(i, (c, beside)): (usize, (&mut [T], Option<&mut [T]>))| {
            let (from, to) = (i * block, ((i + 1) * block).min(rows));
            for (runs, pixels) in taps.classes() {
                let (a_at, c_at) = places(&pixels, from, to, columns);
                if a_at.is_empty() {
                    continue;
                }
                for (first, width, b) in panels.iter() {
                    let (a_at, c_at, c) = (a_at.all(), c_at.all(), &mut c[first..]);
                    Rows { a, a_at, runs: &runs, b, c, c_at, width, add: false }.run();
                }
            }
            each(i * size, c, beside)
        };
        let besides = blocks(beside, size, c.len().div_ceil(size));
        return c.par_chunks_mut(size).zip(besides).enumerate().map(one).collect();
    }
    // Few pixels, many channels: a task is a panel, which packs its weights and uses them while they are in cache; its columns are moved to
    // their places afterwards.
    let pixels = rows * width;
    let mut parts = Buffer::<T>::new(columns.div_ceil(panel_width()) * pixels * panel_width(), pool);
    let classes: Vec<_> = taps.classes().collect();
    let panels: Vec<(usize, usize)> = widths(columns).collect();
    parts.par_chunks_mut(pixels * panel_width()).zip(&panels).enumerate().for_each(|(j, (part, &(width, stride)))| {
        let mut b = Buffer::<T::Factor>::new(weights.depth::<T::Factor>() * stride, pool);
        weights.panel(j, &mut b);
        for (runs, pixels) in &classes {
            let (a_at, c_at) = places(pixels, 0, rows, width);
            Rows { a, a_at: a_at.all(), runs, b: &b, c: part, c_at: c_at.all(), width, add: false }.run();
        }
    });
    let parts = &*parts;
    let size = columns * pixels.div_ceil(TASKS);
    let one = |(i, (c, beside)): (usize, (&mut [T], Option<&mut [T]>))| {
        for (j, c) in c.chunks_exact_mut(columns).enumerate() {
            let pixel = i * pixels.div_ceil(TASKS) + j;
            for (k, &(width, _)) in panels.iter().enumerate() {
                let part = &parts[k * pixels * panel_width() + pixel * width..][..width];
                c[k * panel_width()..][..width].copy_from_slice(part);
            }
        }
        each(i * size, c, beside)
    };
    let besides = blocks(beside, size, c.len().div_ceil(size));
    c.par_chunks_mut(size).zip(besides).enumerate().map(one).collect()
}

/// The blocks of `size` values of a slice, or so many times nothing.
fn blocks<T>(all: Option<&mut [T]>, size: usize, count: usize) -> Vec<Option<&mut [T]>> {
    match all {
        Some(all) => all.chunks_mut(size).map(Some).collect(),
        None => (0..count).map(|_| None).collect(),
    }
}

/// The starts of inputs and outputs of a class's pixels, in output rows `from..to` with `stride` values for each pixel.
fn places(pixels: &Pixels, from: usize, to: usize, stride: usize) -> (Places, Places) {
    let (mut a_at, mut c_at) = (Vec::new(), Vec::new());
    pixels.between(from, to, |a, pixel| {
        a_at.push(a);
        c_at.push(pixel * stride);
    });
    (a_at.into_iter().collect(), c_at.into_iter().collect())
}

/// dW in OIHW from X and dY: partial sums over a fixed number of row groups, added in order.
pub fn weight_gradient<T: Fast>(g: &Geometry, x: &[T], dy: &[T], pool: &Arc<BufferPool>) -> Vec<f32> {
    if g.padding > 0 && g.c < FEW {
        let padded = pad(g, x, pool);
        let (h, w) = (g.h + 2 * g.padding, g.w + 2 * g.padding);
        return weight_gradient(&Geometry { h, w, padding: 0, ..*g }, &padded, dy, pool);
    }
    let depth = g.kernel * g.kernel * g.c;
    let mut dw = vec![0.0; g.o * depth];
    if g.kernel == 1 && g.stride == 1 && g.padding == 0 {
        // dWᵀ is the gradient of the convolution with both sides swapped: it comes out in the wanted order.
        let sums = Sums::new::<T>(&Geometry { c: g.o, o: g.c, ..*g });
        if sums.groups == 1 && sums.line == g.c {
            sums.fill(dy, x, &mut dw, pool);
            return dw;
        }
        let mut partial = Buffer::new(sums.len(), pool);
        sums.fill(dy, x, &mut partial, pool);
        dw.par_chunks_mut(16 * g.c).enumerate().for_each(|(i, dw)| {
            for (j, dw) in dw.chunks_exact_mut(g.c).enumerate() {
                for group in 0..sums.groups {
                    let from = &partial[(group * g.o + i * 16 + j) * sums.line..][..g.c];
                    if group == 0 { dw.copy_from_slice(from) } else { dw.iter_mut().zip(from).for_each(|(to, v)| *to += v) }
                }
            }
        });
        return dw;
    }
    let sums = Sums::new::<T>(g);
    let mut partial = Buffer::new(sums.len(), pool);
    sums.fill(x, dy, &mut partial, pool);
    let count = g.kernel * g.kernel;
    dw.par_chunks_mut(16 * depth).enumerate().for_each(|(i, dw)| {
        let width = dw.len() / depth;
        for row in 0..depth {
            let (tap, c) = (row / g.c, row % g.c);
            let mut sum = [0.0; 16];
            for group in 0..sums.groups {
                let from = &partial[(group * depth + row) * sums.line + i * 16..][..width];
                sum.iter_mut().zip(from).for_each(|(s, v)| *s += v);
            }
            sum[..width].iter().enumerate().for_each(|(o, &v)| dw[o * depth + c * count + tap] = v);
        }
    });
    dw
}

/// The partial sums of dW, as (tap, input channel) × output matrices, one for each group of output rows.
struct Sums {
    g: Geometry,
    /// Values from row to row of a matrix.
    line: usize,
    /// Output rows that are processed at once, and the number of such blocks in a group.
    block: usize,
    blocks: usize,
    /// The number of matrices.
    groups: usize,
}

impl Sums {
    fn new<T: Fast>(g: &Geometry) -> Self {
        let (depth, rows, line) = (g.kernel * g.kernel * g.c, g.n * g.oh, g.o.next_multiple_of(lanes()));
        let block = BLOCK.div_ceil(g.ow).min(rows);
        let all = rows.div_ceil(block);
        // They may take 16 MB. If only few of them fit, each is computed in parts.
        let groups = (all / 2).clamp(1, TASKS).min(((1 << 22) / (depth * line)).max(1));
        let blocks = all.div_ceil(groups);
        Sums { g: *g, line, block, blocks, groups: all.div_ceil(blocks) }
    }

    /// Rows of a matrix.
    fn depth(&self) -> usize {
        self.g.kernel * self.g.kernel * self.g.c
    }

    /// Values in all matrices.
    fn len(&self) -> usize {
        self.groups * self.depth() * self.line
    }

    /// Computes them.
    fn fill<T: Fast>(&self, x: &[T], dy: &[T], to: &mut [f32], pool: &Arc<BufferPool>) {
        let Sums { g, line, block, .. } = *self;
        let (taps, depth, rows) = (Taps::forward(&g), self.depth(), g.n * g.oh);
        // Without padding, the values that the taps of a kernel row read are contiguous: they are processed as one.
        let merged = if g.padding == 0 { g.kernel } else { 1 };
        let wide = merged * g.c;
        let part = depth.div_ceil(TASKS.div_ceil(self.groups)).max(24);
        let tasks: Vec<(usize, usize, &mut [f32])> = to
            .chunks_mut(depth * line)
            .enumerate()
            .flat_map(|(group, sums)| sums.chunks_mut(part * line).enumerate().map(move |(i, sums)| (group, i * part, sums)))
            .collect();
        tasks.into_par_iter().for_each(|(group, first, sums)| {
            let cells = (block * g.ow).div_ceil(self::depth::<T>());
            let mut right = Buffer::<T::Factor>::new(cells * line, pool);
            let last = first + sums.len() / line;
            for at in group * self.blocks..((group + 1) * self.blocks).min(rows.div_ceil(block)) {
                let (from, to) = (at * block, ((at + 1) * block).min(rows));
                let pixels = (to - from) * g.ow;
                let cells = pixels.div_ceil(self::depth::<T>());
                pack(&dy[from * g.ow * g.o..][..pixels * g.o], g.o, &mut right);
                for i in first / wide..last.div_ceil(wide) {
                    // The channels of these taps that belong to this task.
                    let (lo, hi) = (first.max(i * wide), last.min((i + 1) * wide));
                    let left = Left::new(&taps, i * merged, [from, to], &x[lo - i * wide..], hi - lo, pixels, pool);
                    let (a, a_at, number) = left.factors();
                    let mut offset = 0;
                    for (j, (_, stride)) in widths(g.o).enumerate() {
                        let b_at: Places = number.iter().map(|cell| offset + cell * stride).collect();
                        Columns {
                            a,
                            a_at: a_at.all(),
                            height: hi - lo,
                            b: &right,
                            b_at: b_at.all(),
                            c: &mut sums[(lo - first) * line + j * panel_width()..],
                            stride: line,
                            width: stride,
                            add: at > group * self.blocks,
                        }
                        .run();
                        offset += cells * stride;
                    }
                }
            }
        });
    }
}

/// The values that a tap reads in a block: as they lie in memory, or in pairs put side by side; and the number of each.
struct Left<'a, T: Fast> {
    x: &'a [T],
    packed: Option<Buffer<T::Factor>>,
    at: Places,
    number: Vec<usize>,
}

impl<'a, T: Fast> Left<'a, T> {
    /// For output rows `from..to`, `height` channels starting at the first of `x`.
    fn new(
        taps: &Taps,
        tap: usize,
        [from, to]: [usize; 2],
        x: &'a [T],
        height: usize,
        pixels: usize,
        pool: &Arc<BufferPool>,
    ) -> Self {
        let (mut at, mut number) = (Vec::new(), Vec::new());
        if depth::<T>() == 1 {
            taps.tap(tap, from, to, |a, pixel| {
                at.push(a);
                number.push(pixel);
            });
            return Left { x, packed: None, at: at.into_iter().collect(), number };
        }
        let mut place = vec![None; pixels];
        taps.tap(tap, from, to, |a, pixel| place[pixel] = Some(a));
        place.resize(pixels.next_multiple_of(depth::<T>()), None);
        let mut seen = Vec::with_capacity(place.len());
        for (cell, pair) in place.chunks(depth::<T>()).enumerate() {
            if pair.iter().any(Option::is_some) {
                number.push(cell);
                seen.extend_from_slice(pair);
            }
        }
        let at = (0..number.len()).map(|i| i * height).collect();
        let mut packed = Buffer::<T::Factor>::new(number.len() * height, pool);
        run(Interleave { rows: x, at: &seen, width: height, line: height, to: &mut packed });
        Left { x, packed: Some(packed), at, number }
    }

    fn factors(&self) -> (&[T::Factor], &Places, &[usize]) {
        (self.packed.as_deref().unwrap_or_else(|| bytemuck::cast_slice(self.x)), &self.at, &self.number)
    }
}

/// Images with padding added.
fn pad<T: Fast>(g: &Geometry, x: &[T], pool: &Arc<BufferPool>) -> Buffer<T> {
    let (edge, width) = (g.padding * g.c, g.w * g.c);
    let line = width + 2 * edge;
    let mut padded = Buffer::<T>::new(g.n * (g.h + 2 * g.padding) * line, pool);
    let images = padded.par_chunks_exact_mut((g.h + 2 * g.padding) * line).zip(x.par_chunks_exact(g.h * width));
    images.for_each(|(to, image)| {
        to.fill(T::zeroed());
        for (to, row) in to.chunks_exact_mut(line).skip(g.padding).zip(image.chunks_exact(width)) {
            to[edge..edge + width].copy_from_slice(row);
        }
    });
    padded
}

/// Packs rows of `columns` values into panels of factors; columns that fill the last vector are zeros.
fn pack<T: Fast>(rows: &[T], columns: usize, to: &mut [T::Factor]) {
    let count = rows.len() / columns;
    let (cells, mut offset) = (count.div_ceil(depth::<T>()), 0);
    for (j, (width, stride)) in widths(columns).enumerate() {
        let at: Vec<Option<usize>> = (0..count).map(|row| Some(row * columns + j * panel_width())).collect();
        run(Interleave { rows, at: &at, width, line: stride, to: &mut to[offset..][..cells * stride] });
        offset += cells * stride;
    }
}
