//! The sizes of a Winograd convolution: how many tiles there are, and how far apart they lie in memory.
//!
//! A Winograd convolution (Lavin and Gray 2016) works on small square tiles of the image. Each tile is transformed, multiplied by the
//! transformed filter (a product of matrices for each of the tile's transformed values, called a plane), and transformed back.

use super::transform::Form;
use crate::geometry::Geometry;
use crate::simd::lanes;

/// Padding between planes in memory, in values or factors.
pub const GAP: usize = 16;

/// The convolution's shapes: n × h × w × c to n × h × w × o.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub n: usize,
    pub h: usize,
    pub w: usize,
    pub c: usize,
    pub o: usize,
    /// Length of a tile's side in output pixels.
    pub tile: usize,
    /// Tiles that are combined into factors where sums run over tiles: neighbours in a row of tiles.
    pub deep: usize,
}

impl Shape {
    pub fn new<F: Form>(g: &Geometry) -> Self {
        Shape { n: g.n, h: g.h, w: g.w, c: g.c, o: g.o, tile: F::TILE, deep: 1 }
    }

    pub(crate) fn swapped(self) -> Self {
        Shape { c: self.o, o: self.c, ..self }
    }

    /// Tiles in a row of tiles, or factors made of them.
    pub fn across(&self) -> usize {
        self.w.div_ceil(self.tile * self.deep)
    }

    /// The distance of tiles in V, in values, or in factors made of tiles: rows of channels, padded so that they do not collide in the
    /// cache.
    pub fn line<T>(&self) -> usize {
        let (c, size) = (self.c.next_multiple_of(lanes()), size_of::<T>() * self.deep);
        if (c * size).is_multiple_of(512) { c + 64 / size } else { c }
    }

    /// Rows of tiles of all images.
    pub fn bands(&self) -> usize {
        self.n * self.h.div_ceil(self.tile)
    }

    /// Output rows in the bands before number `band`.
    pub(crate) fn rows_before(&self, band: usize) -> usize {
        let per_image = self.h.div_ceil(self.tile);
        band / per_image * self.h + (band % per_image * self.tile).min(self.h)
    }
}
