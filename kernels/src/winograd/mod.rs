//! 3 × 3 convolutions with stride 1 by Winograd's [forms](Form): fewer multiplications, by a factor of 4 in f32 and 9/4 in bf16.
//!
//! Tiles of output pixels are transformed to planes; in each plane the sum over channels is a matrix product. Layouts, all with a few
//! values between planes so that these do not collide in the cache:
//!
//! - V, patches: block of tiles → plane → tile → channel;
//! - U, weights: panel → plane → input channel → output;
//! - M, sums, and Y, gradients: panel → plane → tile → output.
//!
//! Small weights stay in cache, so a block of tiles goes through all stages at once. Large weights are read once for many tiles: each stage
//! then runs over all tiles, and a plane of a panel is a task.

mod shape;
mod tiles;
pub mod transform;

use std::marker::PhantomData;
use std::sync::Arc;

use rayon::prelude::*;

use super::fast::{Factor, Fast};
use super::geometry::Geometry;
use super::micro::{Columns, Places, Rows, Stretch, panel_width};
use super::panels::widths;
use super::passes::Channels;
use super::simd::{lanes, run, run_mixed};
use super::taps::Taps;
use crate::buffer::{Buffer, BufferPool};
use shape::{GAP, Shape};
use tiles::{Gradients, Inputs, KernelGradients, Kernels, Outputs};
use transform::Form;

/// Maps, and the normalisation that is applied when they are read.
pub type Source<'a, T> = (&'a [T], Option<Channels<'a, f32>>);

/// The size of dU, in values, up to which it is assumed to stay in a core's cache beside a block of V and Y.
const SMALL_SUM: usize = 1 << 16;

/// Groups of bands in which the gradients of small weights are summed separately.
const GROUPS: usize = 16;

/// The size of U, in factors, up to which it is assumed to stay in cache.
const SMALL: usize = 1 << 20;

/// Whether Winograd applies to this convolution and is faster than the direct one: on small maps tiles reach far beyond the edge, and few
/// tiles do not pay for the transformation of many weights.
pub(crate) fn pays<F: Form>(g: &Geometry) -> bool {
    if g.kernel != 3 || g.stride != 1 || g.padding != 1 {
        return false;
    }
    let tiles = g.n * g.h.div_ceil(F::TILE) * g.w.div_ceil(F::TILE);
    // Costs for each input and output channel, in multiplications; transforming a weight moves one value of each plane to memory and back.
    let (ours, direct) = (F::PLANES * (tiles + 20), g.n * Taps::forward(g).products());
    ours < direct && g.c.min(g.o) >= 8
}

/// Computes Y from X, normalised first if it has a normalisation, and the weight (OIHW). Y is written completely; `each` gets every block
/// of it (its start and its values) while it is in cache.
pub fn forward<T: Fast, R: Send>(
    g: &Geometry,
    x: Source<T>,
    weight: &[f32],
    y: &mut [T],
    each: impl Fn(usize, &mut [T]) -> R + Sync,
    pool: &Arc<BufferPool>,
) -> Vec<R> {
    let s = Shape::new::<T::Form>(g);
    convolve(s, x, &kernels::<T::Form, T::Factor>(s, weight, false, pool), y, each, pool)
}

/// Computes dX from dY and the weight: a convolution with the flipped weight. dX is written completely, and passed to `each` block by
/// block.
pub fn input_gradient<T: Fast, R: Send>(
    g: &Geometry,
    dy: &[T],
    weight: &[f32],
    dx: &mut [T],
    each: impl Fn(usize, &mut [T]) -> R + Sync,
    pool: &Arc<BufferPool>,
) -> Vec<R> {
    let s = Shape::new::<T::Form>(g).swapped();
    convolve(s, (dy, None), &kernels::<T::Form, T::Factor>(s, weight, true, pool), dx, each, pool)
}

/// U. With `flip` the weight is that of the convolution whose gradient this one is.
fn kernels<F: Form, A: Factor>(s: Shape, weight: &[f32], flip: bool, pool: &Arc<BufferPool>) -> Buffer<A> {
    let chunk = F::PLANES * (s.c.div_ceil(A::DEPTH) * panel_width() + GAP);
    let mut u = Buffer::new(s.o.div_ceil(panel_width()) * chunk, pool);
    u.par_chunks_mut(chunk).zip(widths(s.o).collect::<Vec<_>>()).enumerate().for_each(|(j, (u, (width, stride)))| {
        let (form, first) = (PhantomData::<F>, j * panel_width());
        run(Kernels { form, weight, flip, inputs: s.c, outputs: s.o, first, width, stride, u });
    });
    u
}

/// Bands in a block of about `tiles` tiles.
fn bands_of(s: Shape, tiles: usize) -> usize {
    (tiles / s.across()).clamp(1, s.bands())
}

/// The number of tiles whose V and M take about `bytes`.
fn tiles_in<T: Fast>(s: Shape, bytes: usize) -> usize {
    let (v, m) = (s.line::<T>() * s.deep * size_of::<T>(), s.o.next_multiple_of(lanes()) * size_of::<f32>());
    bytes / (T::Form::PLANES * (v + m))
}

fn convolve<T: Fast, R: Send>(
    s: Shape,
    source: Source<T>,
    u: &[T::Factor],
    y: &mut [T],
    each: impl Fn(usize, &mut [T]) -> R + Sync,
    pool: &Arc<BufferPool>,
) -> Vec<R> {
    let form = PhantomData::<T::Form>;
    let small = s.c.div_ceil(T::Factor::DEPTH) * s.o * T::Form::PLANES <= SMALL;
    let bands = if small {
        bands_of(s, tiles_in::<T>(s, 900_000).max(24)).min(s.bands().div_ceil(16))
    } else {
        bands_of(s, tiles_in::<T>(s, 12_000_000).max(96))
    };
    let (x, normal) = source;
    let start = |band| s.rows_before(band) * s.w * s.o;
    // Blocks are rows of tiles, i.e. whole rows of the output, so each has its own slice of y.
    let blocks: Vec<(usize, usize, &mut [T])> = cut(s, 0, s.bands(), bands, y);
    let (tiles, part) = (bands * s.across(), if small { bands } else { bands_of(s, 8) });
    let product = Planes::<T>::new(s, u, tiles, part * s.across());
    let size = tiles * panel_width() + GAP;
    if small {
        let one = |(from, to, y): (usize, usize, &mut [T])| {
            let (mut v, mut m) = (patches_buffer::<T>(s, bands, bands, pool), sums_buffer::<T>(s, tiles, pool));
            run_mixed(Inputs { form, s, x, normal, from, to, tiles, v: &mut v });
            m.chunks_mut(size).enumerate().for_each(|(i, m)| product.run(i, &v, m, (to - from) * s.across()));
            run_mixed(Outputs { form, s, from, to, first: 0, tiles, m: &m, y });
            each(start(from), y)
        };
        return blocks.into_par_iter().map(one).collect();
    }
    let mut seen = Vec::new();
    for (from, to, y) in blocks {
        let (mut v, mut m) = (patches_buffer::<T>(s, bands, part, pool), sums_buffer::<T>(s, tiles, pool));
        fill(s, source, from, to, part, &mut v);
        m.par_chunks_mut(size).enumerate().for_each(|(i, m)| product.run(i, &v, m, (to - from) * s.across()));
        let m = &*m;
        let one = |(part, end, y): (usize, usize, &mut [T])| {
            run_mixed(Outputs { form, s, from: part, to: end, first: (part - from) * s.across(), tiles, m, y });
            each(start(part), y)
        };
        seen.par_extend(cut(s, from, to, part, y).into_par_iter().map(one));
    }
    seen
}

/// `y`, the output of bands `from..to`, in blocks of `bands` bands.
fn cut<T>(s: Shape, from: usize, to: usize, bands: usize, y: &mut [T]) -> Vec<(usize, usize, &mut [T])> {
    let (mut blocks, mut rest, mut at) = (Vec::new(), y, from);
    while at < to {
        let end = (at + bands).min(to);
        let (block, next) = rest.split_at_mut((s.rows_before(end) - s.rows_before(at)) * s.w * s.o);
        blocks.push((at, end, block));
        (rest, at) = (next, end);
    }
    blocks
}

/// Values of V for so many tiles, or factors made of tiles, filled in one part.
fn patches_len<T: Fast>(s: Shape, tiles: usize) -> usize {
    T::Form::PLANES * (tiles * s.line::<T>() + GAP) * s.deep
}

/// A buffer for V of so many bands in parts.
fn patches_buffer<T: Fast>(s: Shape, bands: usize, part: usize, pool: &Arc<BufferPool>) -> Buffer<T> {
    Buffer::new(bands.div_ceil(part) * patches_len::<T>(s, part * s.across()), pool)
}

fn sums_buffer<T: Fast>(s: Shape, tiles: usize, pool: &Arc<BufferPool>) -> Buffer<f32> {
    Buffer::new(s.o.div_ceil(panel_width()) * T::Form::PLANES * (tiles * panel_width() + GAP), pool)
}

/// Fills V for bands `from..to` in parts of `part` bands, one for each task.
fn fill<T: Fast>(s: Shape, (x, normal): Source<T>, from: usize, to: usize, part: usize, v: &mut [T]) {
    let chunk = patches_len::<T>(s, part * s.across());
    v.par_chunks_mut(chunk).take((to - from).div_ceil(part)).enumerate().for_each(|(i, v)| {
        let (form, first) = (PhantomData::<T::Form>, from + i * part);
        let tiles = part * s.across();
        run_mixed(Inputs { form, s, x, normal, from: first, to: (first + part).min(to), tiles, v });
    });
}

/// The start of each of `count` tiles in V, which was filled in parts of `part` tiles, and the size of a plane, in factors.
fn patches_at<T: Fast>(s: Shape, count: usize, part: usize) -> (Places, usize) {
    let line = s.line::<T>();
    let (chunk, size) = (patches_len::<T>(s, part) / s.deep, part * line + GAP);
    // V holds values side by side, unless tiles were combined into factors.
    let unit = T::Factor::DEPTH / s.deep;
    let at = (0..count).map(|tile| (tile / part * chunk + tile % part * line) / unit);
    (at.collect(), size / unit)
}

/// The products of V and U, for up to so many tiles.
struct Planes<'a, T: Fast> {
    s: Shape,
    u: &'a [T::Factor],
    at: Places,
    size: usize,
    /// The starts of tiles in a plane of a panel of M, by the panel's stride.
    panels: Vec<(usize, Places)>,
}

impl<'a, T: Fast> Planes<'a, T> {
    /// For up to `tiles` tiles, with V filled in parts of `part`.
    fn new(s: Shape, u: &'a [T::Factor], tiles: usize, part: usize) -> Self {
        let (at, size) = patches_at::<T>(s, tiles, part);
        let panels = widths(s.o).map(|(_, stride)| (stride, (0..tiles).map(|tile| tile * stride).collect())).collect();
        Planes { s, u, at, size, panels }
    }

    /// Computes one plane of one panel of M, for the first `tiles` tiles.
    fn run(&self, number: usize, v: &[T], m: &mut [f32], tiles: usize) {
        let (panel, plane) = (number / T::Form::PLANES, number % T::Form::PLANES);
        let Some((stride, c_at)) = self.panels.get(panel) else { return };
        let (rows, width) = (self.s.c.div_ceil(T::Factor::DEPTH), *stride);
        let first = panel * T::Form::PLANES * (rows * panel_width() + GAP) + plane * (rows * width + GAP);
        let (a, b) = (&whole(v)[plane * self.size..], &self.u[first..][..rows * width]);
        let runs = [Stretch { a: 0, b: 0, len: rows }];
        let (a_at, c_at) = (self.at.first(tiles), c_at.first(tiles));
        Rows { a, a_at, runs: &runs, b, c: m, c_at, width, add: false }.run();
    }
}

/// dW in OIHW from X, normalised first if it has a normalisation, and dY. The order of its sums depends on shapes alone.
pub fn weight_gradient<T: Fast>(g: &Geometry, x: Source<T>, dy: &[T], pool: &Arc<BufferPool>) -> Vec<f32> {
    let s = Shape { deep: T::Factor::DEPTH, ..Shape::new::<T::Form>(g) };
    let size = s.c * panel_width() + GAP;
    let planes = s.o.div_ceil(panel_width()) * T::Form::PLANES;
    let small = s.c * s.o * T::Form::PLANES <= SMALL_SUM;
    let group = if small { s.bands().div_ceil(GROUPS) } else { s.bands() };
    let mut du = Buffer::<f32>::new(s.bands().div_ceil(group) * planes * size, pool);
    if small {
        // One dU for each of a few groups of bands, whose blocks stay in the cache of the core that processes them.
        let bands = bands_of(s, tiles_in::<T>(s, 300_000).max(8)).min(group);
        let block = Block::<T>::new(s, bands, bands);
        du.par_chunks_mut(planes * size).enumerate().for_each(|(i, du)| {
            let (first, last) = (i * group, ((i + 1) * group).min(s.bands()));
            for from in (first..last).step_by(bands) {
                let filled = block.fill(x, dy, from, (from + bands).min(last), pool);
                du.chunks_mut(size).enumerate().for_each(|(i, du)| block.product(i, &filled, du, from > first));
            }
        });
    } else {
        // A block of V and Y is at least as large as dU, which every block reads and writes.
        let bands = bands_of(s, tiles_in::<T>(s, 6_000_000).max(128 / s.deep).max(s.c * s.o / (s.c + s.o)));
        let block = Block::<T>::new(s, bands, bands_of(s, 8));
        for from in (0..s.bands()).step_by(bands) {
            let filled = block.fill(x, dy, from, (from + bands).min(s.bands()), pool);
            du.par_chunks_mut(size).enumerate().for_each(|(i, du)| block.product(i, &filled, du, from > 0));
        }
    }
    let (du, others) = du.split_at_mut(planes * size);
    if !others.is_empty() {
        du.par_chunks_mut(size).enumerate().for_each(|(i, du)| {
            for other in others.chunks(planes * size) {
                du.iter_mut().zip(&other[i * size..]).for_each(|(sum, v)| *sum += v);
            }
        });
    }
    let form = PhantomData::<T::Form>;
    let mut dw = vec![0.0; s.o * s.c * 9];
    let panels: Vec<(usize, usize)> = widths(s.o).collect();
    let tasks = dw.par_chunks_mut(panel_width() * s.c * 9).zip(du.par_chunks(T::Form::PLANES * size)).zip(panels);
    tasks.for_each(|((dw, du), (width, stride))| {
        run(KernelGradients { form, du, inputs: s.c, plane: size, width, stride, dw });
    });
    dw
}

/// The layout of V and Y for up to so many bands, if tiles are combined into factors.
struct Block<T> {
    s: Shape,
    bands: usize,
    /// Bands that one task fills.
    part: usize,
    /// The starts of tiles in V, and the size of its planes.
    v: (Places, usize),
    /// A panel of Y: its stride, and the starts of its tiles.
    panels: Vec<(usize, Places)>,
    /// Columns of all panels.
    columns: usize,
    kind: PhantomData<T>,
}

/// V and Y, and their number of tiles.
struct Filled<T> {
    v: Buffer<T>,
    y: Buffer<T>,
    tiles: usize,
}

impl<T: Fast> Block<T> {
    fn new(s: Shape, bands: usize, part: usize) -> Self {
        let (all, tiles, columns) = (bands * s.across(), part * s.across(), widths(s.o).map(|(_, stride)| stride).sum());
        let block = Block { s, bands, part, v: patches_at::<T>(s, all, tiles), panels: Vec::new(), columns, kind: PhantomData };
        let chunk = T::Form::PLANES * block.plane();
        let at = |stride| (0..all).map(move |tile| tile / tiles * chunk + tile % tiles * stride).collect();
        Block { panels: widths(s.o).map(|(_, stride)| (stride, at(stride))).collect(), ..block }
    }

    /// Factors in a part's plane of Y.
    fn plane(&self) -> usize {
        self.part * self.s.across() * self.columns + GAP
    }

    /// Fills V and Y for bands `from..to`.
    fn fill(&self, x: Source<T>, dy: &[T], from: usize, to: usize, pool: &Arc<BufferPool>) -> Filled<T> {
        let Block { s, bands, part, .. } = *self;
        let [mut v, mut y] = [s, s.swapped()].map(|s| patches_buffer::<T>(s, bands, part, pool));
        fill(s, x, from, to, part, &mut v);
        let parts = y.par_chunks_mut(T::Form::PLANES * self.plane() * s.deep).take((to - from).div_ceil(part));
        parts.enumerate().for_each(|(i, y)| {
            let (form, first) = (PhantomData::<T::Form>, from + i * part);
            run_mixed(Gradients { form, s, dy, from: first, to: (first + part).min(to), tiles: part * s.across(), y });
        });
        Filled { v, y, tiles: (to - from) * s.across() }
    }

    /// Computes one plane of one panel of dU, or adds to it.
    fn product(&self, number: usize, filled: &Filled<T>, du: &mut [f32], add: bool) {
        let (panel, plane) = (number / T::Form::PLANES, number % T::Form::PLANES);
        let ((a_at, size), (stride, b_at)) = (&self.v, &self.panels[panel]);
        let first = plane * self.plane() + self.part * self.s.across() * panel * panel_width();
        let (a, b) = (&whole(&filled.v)[plane * size..], &whole(&filled.y)[first..]);
        let (a_at, b_at, stride) = (a_at.first(filled.tiles), b_at.first(filled.tiles), *stride);
        Columns { a, a_at, height: self.s.c, b, b_at, c: du, stride, width: stride, add }.run();
    }
}

/// Values as factors, without a last value that has no partner.
fn whole<T: Fast>(numbers: &[T]) -> &[T::Factor] {
    bytemuck::cast_slice(&numbers[..numbers.len() / T::Factor::DEPTH * T::Factor::DEPTH])
}
