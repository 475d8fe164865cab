//! The buffer of a view while it is made: each row is a red, a green and a blue line, each of whole blocks of lanes.
//!
//! Since the colours are apart and no line ends inside a block, every operation on pixels is a loop of fixed length without a remainder,
//! which compiles to vector instructions.

use super::NormaliseRecipe;

/// Pixels of one colour that are processed together.
pub(super) const LANES: usize = 32;

/// A block of pixels, one colour.
pub(super) type Lanes = [f32; LANES];

/// A square image. Values of a line beyond `size` pixels are padding, zero until a contrast changes it.
#[derive(Default)]
pub(super) struct Planes {
    size: usize,
    blocks: Vec<Lanes>,
}

impl Planes {
    /// Resizes the buffer to `size` × `size` pixels; their values are left over from earlier views.
    pub(crate) fn reset(&mut self, size: usize) {
        self.size = size;
        self.blocks.resize(size * self.row(), [0.0; LANES]);
    }

    /// Height and width.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Blocks in a line.
    fn line(&self) -> usize {
        self.size.div_ceil(LANES)
    }

    /// Blocks in a row, which has three lines.
    pub fn row(&self) -> usize {
        3 * self.line()
    }

    /// All blocks, row by row, and in each row line by line.
    pub(crate) fn blocks_mut(&mut self) -> &mut [Lanes] {
        &mut self.blocks
    }

    /// All lines, three for each row.
    pub fn lines(&self) -> impl Iterator<Item = &[Lanes]> {
        self.blocks.chunks_exact(self.line().max(1))
    }

    /// The red, green and blue line of every row.
    pub(crate) fn rows_mut(&mut self) -> impl Iterator<Item = [&mut [Lanes]; 3]> {
        let (row, line) = (self.row().max(1), self.line());
        self.blocks.chunks_exact_mut(row).map(move |row| {
            let (red, rest) = row.split_at_mut(line);
            let (green, blue) = rest.split_at_mut(line);
            [red, green, blue]
        })
    }

    /// Transposes the image.
    pub fn transpose(&mut self) {
        let (size, line) = (self.size, self.line() * LANES);
        let values = self.blocks.as_flattened_mut();
        let at = |y: usize, colour: usize, x: usize| (3 * y + colour) * line + x;
        for colour in 0..3 {
            for y in 0..size {
                for x in 0..y {
                    values.swap(at(y, colour, x), at(x, colour, y));
                }
            }
        }
    }

    /// Writes the image with channels last, normalised if `normalise` is given.
    #[inline(always)]
    pub fn interleave(&self, normalise: Option<NormaliseRecipe>, out: &mut [f32]) {
        let line = self.line();
        for (row, out) in self.blocks.chunks_exact(3 * line).zip(out.chunks_exact_mut(3 * self.size)) {
            let (red, rest) = row.as_flattened().split_at(line * LANES);
            let (green, blue) = rest.split_at(line * LANES);
            let pixels = out.as_chunks_mut::<3>().0;
            for (((pixel, &red), &green), &blue) in pixels.iter_mut().zip(red).zip(green).zip(blue) {
                *pixel = [red, green, blue];
            }
            if let Some(NormaliseRecipe { mean, deviation }) = normalise {
                for pixel in pixels {
                    for c in 0..3 {
                        pixel[c] = (pixel[c] - mean[c]) / deviation[c];
                    }
                }
            }
        }
    }
}
