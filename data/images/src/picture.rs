//! A decoded image: the output of every reader and the input of every augmentation.

/// RGB, 8 bits a channel, row-major, channels last: `pixels[(y * width + x) * 3 + channel]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// `height · width · 3` values.
    pub pixels: Vec<u8>,
}

impl Picture {
    /// An image of `height · width` gray values.
    pub(crate) fn from_gray(height: usize, width: usize, gray: &[u8]) -> Picture {
        Picture { height, width, pixels: gray.iter().flat_map(|&v| [v, v, v]).collect() }
    }

    /// An image of three planes (red, green, blue), each row-major: CIFAR's layout.
    pub(crate) fn from_planes(height: usize, width: usize, planes: &[u8]) -> Picture {
        let area = height * width;
        Picture { height, width, pixels: (0..area).flat_map(|i| [planes[i], planes[area + i], planes[2 * area + i]]).collect() }
    }

    /// An image of three planes, each column-major: STL-10's layout.
    pub(crate) fn from_columns(height: usize, width: usize, planes: &[u8]) -> Picture {
        let area = height * width;
        let mut pixels = Vec::with_capacity(area * 3);
        for y in 0..height {
            for x in 0..width {
                pixels.extend((0..3).map(|c| planes[c * area + x * height + y]));
            }
        }
        Picture { height, width, pixels }
    }

    /// The pixel in row `y`, column `x`.
    pub fn at(&self, y: usize, x: usize) -> [u8; 3] {
        let i = (y * self.width + x) * 3;
        [self.pixels[i], self.pixels[i + 1], self.pixels[i + 2]]
    }

    /// A digest of size and pixels: equal exactly for images that look the same, however they are stored.
    pub fn digest(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(self.height as u64).to_le_bytes()).update(&(self.width as u64).to_le_bytes()).update(&self.pixels);
        hasher.finalize()
    }
}
