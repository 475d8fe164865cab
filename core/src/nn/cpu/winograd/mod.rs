//! 3 × 3 convolutions with stride 1 in f32 by Winograd's F(4×4, 3×3): a quarter of the products.
//!
//! Tiles of 4 × 4 output pixels are transformed to 36 planes; in each, the sum over channels is a matrix product. Layouts, all
//! with a few floats between planes so that they do not fall on one another in the cache:
//!
//! - V, patches: block of tiles → plane → tile → channel;
//! - U, weights: panel → plane → input channel → output;
//! - M, sums, and Y, gradients: panel → plane → tile → output.
//!
//! Small weights stay in cache, so a block of tiles goes all the way at once. Large ones are read once for many tiles: there each
//! stage runs over all of them, and a plane of a panel is a task.

mod tiles;
mod transform;

use std::sync::Arc;

use rayon::prelude::*;

use super::conv::Geometry;
use super::micro::{Columns, Rows, Run, panel_width};
use super::panels::widths;
use super::rows::Normal;
use super::simd::{lanes, run};
use super::taps::Taps;
use crate::nn::map::{Pool, Scratch};
use tiles::{Gradients, Inputs, KernelGradients, Kernels, Outputs};

/// Planes of a 6 × 6 transform.
const PLANES: usize = 36;

/// Floats between planes.
const GAP: usize = 16;

/// Maps, and what is to be done to them as they are read.
pub type Source<'a> = (&'a [f32], Option<Normal<'a>>);

/// Floats of U that are taken to stay in cache.
const SMALL: usize = 1 << 20;

/// The convolution's shapes: n × h × w × c to n × h × w × o.
#[derive(Clone, Copy, Debug)]
struct Shape {
    n: usize,
    h: usize,
    w: usize,
    c: usize,
    o: usize,
}

impl Shape {
    fn new(g: &Geometry) -> Self {
        Shape { n: g.n, h: g.h, w: g.w, c: g.c, o: g.o }
    }

    fn swapped(self) -> Self {
        Shape { c: self.o, o: self.c, ..self }
    }

    /// Tiles in a row of tiles.
    fn across(&self) -> usize {
        self.w.div_ceil(4)
    }

    /// Rows of tiles of all images.
    fn bands(&self) -> usize {
        self.n * self.h.div_ceil(4)
    }

    /// Output rows in bands before number `band`.
    fn rows_before(&self, band: usize) -> usize {
        let per_image = self.h.div_ceil(4);
        band / per_image * self.h + (band % per_image * 4).min(self.h)
    }
}

/// Whether this is such a convolution, and cheaper so than directly: on small maps tiles reach far beyond the edge, and few
/// tiles do not pay for transforming many weights.
pub fn pays(g: &Geometry) -> bool {
    if g.kernel != 3 || g.stride != 1 || g.padding != 1 {
        return false;
    }
    let tiles = g.n * g.h.div_ceil(4) * g.w.div_ceil(4);
    // Per input and output channel, in products; a weight's transform moves 36 floats to memory and back.
    let (ours, direct) = (PLANES * tiles + 20 * PLANES, g.n * Taps::forward(g).products());
    ours < direct && g.c.min(g.o) >= 8
}

/// Y from X, normalised on the way if it is to be, and the weight (OIHW). Y is written whole; `each` gets every block of it,
/// where it begins and its numbers, while it is in cache.
pub fn forward<R: Send>(
    g: &Geometry,
    x: Source,
    weight: &[f32],
    y: &mut [f32],
    each: impl Fn(usize, &mut [f32]) -> R + Sync,
    pool: &Arc<Pool<f32>>,
) -> Vec<R> {
    let s = Shape::new(g);
    convolve(s, x, &kernels(s, weight, false, pool), y, each, pool)
}

/// dX from dY and the weight: a convolution by the flipped weight. dX is written whole, and given to `each` block by block.
pub fn input_gradient<R: Send>(
    g: &Geometry,
    dy: &[f32],
    weight: &[f32],
    dx: &mut [f32],
    each: impl Fn(usize, &mut [f32]) -> R + Sync,
    pool: &Arc<Pool<f32>>,
) -> Vec<R> {
    let s = Shape::new(g).swapped();
    convolve(s, (dy, None), &kernels(s, weight, true, pool), dx, each, pool)
}

/// U. With `flip` the weight is that of the convolution whose gradient this one is.
fn kernels(s: Shape, weight: &[f32], flip: bool, pool: &Arc<Pool<f32>>) -> Scratch<f32> {
    let chunk = PLANES * (s.c * panel_width() + GAP);
    let mut u = Scratch::new(s.o.div_ceil(panel_width()) * chunk, pool);
    u.par_chunks_mut(chunk).zip(widths(s.o).collect::<Vec<_>>()).enumerate().for_each(|(j, (u, (width, stride)))| {
        run(Kernels { weight, flip, inputs: s.c, outputs: s.o, first: j * panel_width(), width, stride, u });
    });
    u
}

/// Bands of a block: about `tiles` tiles.
fn bands_of(s: Shape, tiles: usize) -> usize {
    (tiles / s.across()).clamp(1, s.bands())
}

/// Tiles whose V and M take about `bytes`.
fn tiles_in(s: Shape, bytes: usize) -> usize {
    bytes / (4 * PLANES * (s.c.next_multiple_of(lanes()) + s.o.next_multiple_of(lanes())))
}

fn convolve<R: Send>(
    s: Shape,
    source: Source,
    u: &[f32],
    y: &mut [f32],
    each: impl Fn(usize, &mut [f32]) -> R + Sync,
    pool: &Arc<Pool<f32>>,
) -> Vec<R> {
    let small = s.c * s.o * PLANES <= SMALL;
    let bands = if small {
        bands_of(s, tiles_in(s, 900_000).max(24)).min(s.bands().div_ceil(16))
    } else {
        bands_of(s, tiles_in(s, 12_000_000).max(96))
    };
    let (x, normal) = source;
    let start = |band| s.rows_before(band) * s.w * s.o;
    // Blocks are rows of tiles, whole rows of the output, so each has a slice of y of its own.
    let blocks: Vec<(usize, usize, &mut [f32])> = cut(s, 0, s.bands(), bands, y);
    if small {
        let one = |(from, to, y): (usize, usize, &mut [f32])| {
            let tiles = (to - from) * s.across();
            let (mut v, mut m) = (patches_buffer(s, tiles, pool), sums_buffer(s, tiles, pool));
            run(Inputs { s, x, normal, from, to, v: &mut v });
            let at = patches_at(s, from, to, to - from);
            m.chunks_mut(tiles * panel_width() + GAP).enumerate().for_each(|(i, m)| product(s, &v, &at, u, i, m));
            run(Outputs { s, from, to, first: 0, tiles, m: &m, y });
            each(start(from), y)
        };
        return blocks.into_par_iter().map(one).collect();
    }
    let mut seen = Vec::new();
    for (from, to, y) in blocks {
        let tiles = (to - from) * s.across();
        let (mut v, mut m) = (patches_buffer(s, tiles, pool), sums_buffer(s, tiles, pool));
        let part = bands_of(s, 8);
        fill(s, source, from, to, part, &mut v);
        let at = patches_at(s, from, to, part);
        m.par_chunks_mut(tiles * panel_width() + GAP).enumerate().for_each(|(i, m)| product(s, &v, &at, u, i, m));
        let m = &*m;
        let one = |(part, end, y): (usize, usize, &mut [f32])| {
            run(Outputs { s, from: part, to: end, first: (part - from) * s.across(), tiles, m, y });
            each(start(part), y)
        };
        seen.par_extend(cut(s, from, to, part, y).into_par_iter().map(one));
    }
    seen
}

/// `y`, the output of bands `from..to`, in blocks of `bands` bands.
fn cut(s: Shape, from: usize, to: usize, bands: usize, y: &mut [f32]) -> Vec<(usize, usize, &mut [f32])> {
    let (mut blocks, mut rest, mut at) = (Vec::new(), y, from);
    while at < to {
        let end = (at + bands).min(to);
        let (block, next) = rest.split_at_mut((s.rows_before(end) - s.rows_before(at)) * s.w * s.o);
        blocks.push((at, end, block));
        (rest, at) = (next, end);
    }
    blocks
}

fn patches_len(s: Shape, tiles: usize) -> usize {
    PLANES * (tiles * s.c.next_multiple_of(lanes()) + GAP)
}

fn patches_buffer(s: Shape, tiles: usize, pool: &Arc<Pool<f32>>) -> Scratch<f32> {
    // Parts have a gap each; there are at most as many as tiles.
    Scratch::new(patches_len(s, tiles) + tiles * PLANES * GAP, pool)
}

fn sums_buffer(s: Shape, tiles: usize, pool: &Arc<Pool<f32>>) -> Scratch<f32> {
    Scratch::new(s.o.div_ceil(panel_width()) * PLANES * (tiles * panel_width() + GAP), pool)
}

/// V of bands `from..to` in parts of `part` bands, a task each.
fn fill(s: Shape, (x, normal): Source, from: usize, to: usize, part: usize, v: &mut [f32]) {
    let chunk = patches_len(s, part * s.across());
    v.par_chunks_mut(chunk).take((to - from).div_ceil(part)).enumerate().for_each(|(i, v)| {
        let first = from + i * part;
        run(Inputs { s, x, normal, from: first, to: (first + part).min(to), v });
    });
}

/// Where each tile's first plane begins in V that was filled in parts, and the size of its planes.
fn patches_at(s: Shape, from: usize, to: usize, part: usize) -> Vec<(usize, usize)> {
    let (c, chunk) = (s.c.next_multiple_of(lanes()), patches_len(s, part * s.across()));
    let mut at = Vec::with_capacity((to - from) * s.across());
    for (i, first) in (from..to).step_by(part).enumerate() {
        let tiles = (part.min(to - first)) * s.across();
        at.extend((0..tiles).map(|tile| (i * chunk + tile * c, tiles * c + GAP)));
    }
    at
}

/// One plane of one panel of M.
fn product(s: Shape, v: &[f32], at: &[(usize, usize)], u: &[f32], number: usize, m: &mut [f32]) {
    let (panel, plane) = (number / PLANES, number % PLANES);
    let Some((_, stride)) = widths(s.o).nth(panel) else { return };
    let a_at: Vec<usize> = at.iter().map(|(first, size)| first + plane * size).collect();
    let c_at: Vec<usize> = (0..at.len()).map(|tile| tile * stride).collect();
    let b = &u[panel * PLANES * (s.c * panel_width() + GAP) + plane * (s.c * stride + GAP)..][..s.c * stride];
    let runs = [Run { a: 0, b: 0, len: s.c }];
    Rows { a: v, a_at: &a_at, runs: &runs, b, c: m, c_at: &c_at, width: stride, add: false }.run();
}

/// dW in OIHW from X, normalised on the way if it is to be, and dY. The sum over tiles runs in order, whatever the number of threads.
pub fn weight_gradient(g: &Geometry, x: Source, dy: &[f32], pool: &Arc<Pool<f32>>) -> Vec<f32> {
    let s = Shape::new(g);
    let bands = bands_of(s, tiles_in(s, 6_000_000).max(128));
    let part = bands_of(s, 8);
    let size = s.c * panel_width() + GAP;
    let panels: Vec<(usize, usize)> = widths(s.o).collect();
    let mut du = Scratch::new(panels.len() * PLANES * size, pool);
    for from in (0..s.bands()).step_by(bands) {
        let to = (from + bands).min(s.bands());
        let tiles = (to - from) * s.across();
        let (mut v, mut y) = (patches_buffer(s, tiles, pool), patches_buffer(s.swapped(), tiles, pool));
        fill(s, x, from, to, part, &mut v);
        let line: usize = panels.iter().map(|(_, stride)| stride).sum();
        let chunk = PLANES * (part * s.across() * line + GAP);
        y.par_chunks_mut(chunk).take((to - from).div_ceil(part)).enumerate().for_each(|(i, y)| {
            let first = from + i * part;
            run(Gradients { s, dy, from: first, to: (first + part).min(to), y });
        });
        let at = patches_at(s, from, to, part);
        let (v, y) = (&*v, &*y);
        du.par_chunks_mut(size).enumerate().for_each(|(i, du)| {
            let (panel, plane) = (i / PLANES, i % PLANES);
            let stride = panels[panel].1;
            let a_at: Vec<usize> = at.iter().map(|(first, size)| first + plane * size).collect();
            let mut b_at = Vec::with_capacity(tiles);
            for (i, first) in (from..to).step_by(part).enumerate() {
                let tiles = part.min(to - first) * s.across();
                let start = i * chunk + plane * (tiles * line + GAP) + tiles * panel * panel_width();
                b_at.extend((0..tiles).map(|tile| start + tile * stride));
            }
            let (a_at, b_at, add) = (&a_at, &b_at, from > 0);
            Columns { a: v, a_at, height: s.c, b: y, b_at, c: du, stride, width: stride, add }.run();
        });
    }
    let mut dw = vec![0.0; s.o * s.c * 9];
    let tasks = dw.par_chunks_mut(panel_width() * s.c * 9).zip(du.par_chunks(PLANES * size)).zip(&panels);
    tasks.for_each(|((dw, du), &(width, stride))| run(KernelGradients { du, inputs: s.c, plane: size, width, stride, dw }));
    dw
}
