//! One image of the generated dataset: a shape with a texture on it, rendered from its class and its key.

use ctk_core::rng::{Key, Rng};
use rand::{Rng as _, RngCore};

use crate::picture::Picture;

/// Height and width of every image.
pub(crate) const SIZE: usize = 32;

/// Period of a texture, in radii of its shape. It is fixed: a random period would distinguish images regardless of their class.
const PERIOD: f32 = 0.5;

/// Saturation of the colours before they are lightened or darkened.
const VIVID: f32 = 0.7;

/// Standard deviation of the noise on every value.
const NOISE: f32 = 0.03;

#[derive(Clone, Copy)]
enum Shape {
    Disc,
    Square,
    Cross,
}

#[derive(Clone, Copy)]
enum Texture {
    Rows,
    Columns,
    Checks,
}

const SHAPES: [(Shape, &str); 3] = [(Shape::Disc, "disc"), (Shape::Square, "square"), (Shape::Cross, "cross")];
const TEXTURES: [(Texture, &str); 3] = [(Texture::Rows, "rows"), (Texture::Columns, "columns"), (Texture::Checks, "checks")];

/// Number of classes: every shape with every texture.
pub const CLASSES: usize = SHAPES.len() * TEXTURES.len();

/// One image before it is rendered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scene {
    /// Its class, below [`CLASSES`].
    pub class: usize,
    /// The key from which everything else is drawn.
    pub key: Key,
}

/// The names of the classes, in order.
pub(crate) fn names() -> Vec<String> {
    SHAPES.iter().flat_map(|(_, shape)| TEXTURES.iter().map(move |(_, texture)| format!("{shape} of {texture}"))).collect()
}

impl Scene {
    /// Renders the image; the same pixels at every call.
    pub(crate) fn render(self) -> Picture {
        let rng = &mut self.key.rng();
        let shape = SHAPES[self.class / TEXTURES.len()].0;
        let texture = TEXTURES[self.class % TEXTURES.len()].0;
        let size = SIZE as f32;
        let radius = between(rng, 0.34, 0.46) * size;
        let (cx, cy) = (between(rng, 0.4, 0.6) * size, between(rng, 0.4, 0.6) * size);
        let period = PERIOD * radius;
        let (px, py) = (between(rng, 0.0, period), between(rng, 0.0, period));
        let [ground, first, second] = colours(rng);

        let mut pixels = Vec::with_capacity(SIZE * SIZE * 3);
        for row in 0..SIZE {
            for column in 0..SIZE {
                // Four samples for each pixel keep edges smooth, so that no stair-step reveals a shape.
                let mut sum = [0.0; 3];
                for (dy, dx) in [(0.25, 0.25), (0.25, 0.75), (0.75, 0.25), (0.75, 0.75)] {
                    let (x, y) = (column as f32 + dx, row as f32 + dy);
                    let colour = match inside(shape, (x - cx) / radius, (y - cy) / radius) {
                        false => ground,
                        true if mark(texture, (x + px) / period, (y + py) / period) => first,
                        true => second,
                    };
                    for (s, c) in sum.iter_mut().zip(colour) {
                        *s += 0.25 * c;
                    }
                }
                pixels.extend(sum.map(|v| ((v + NOISE * bell(rng)) * 255.0).round().clamp(0.0, 255.0) as u8));
            }
        }
        Picture { height: SIZE, width: SIZE, pixels }
    }
}

/// Whether a point lies in a shape; coordinates are in radii from its centre.
fn inside(shape: Shape, x: f32, y: f32) -> bool {
    let (x, y) = (x.abs(), y.abs());
    match shape {
        Shape::Disc => x * x + y * y < 1.0,
        Shape::Square => x.max(y) < 0.88,
        Shape::Cross => x.max(y) < 1.1 && x.min(y) < 0.4,
    }
}

/// Whether a point has the texture's first colour; coordinates are in periods. Half of all points have it.
fn mark(texture: Texture, x: f32, y: f32) -> bool {
    let half = |v: f32| v - v.floor() < 0.5;
    match texture {
        Texture::Rows => half(y),
        Texture::Columns => half(x),
        Texture::Checks => half(x) == half(y),
    }
}

/// Brightness of the background, the first and the second colour: texture and edges stay visible in gray. Their order and distance are
/// fixed because no augmentation changes them: otherwise they would distinguish images regardless of their class.
const LEVELS: [f32; 3] = [0.15, 0.5, 0.85];

/// Three tones of one random hue.
fn colours(rng: &mut Rng) -> [[f32; 3]; 3] {
    let (hue, light) = (between(rng, 0.0, 6.0), between(rng, 0.7, 1.0));
    let full = [5.0, 3.0, 1.0].map(|n| {
        let k = (n + hue) % 6.0;
        1.0 - VIVID * k.min(4.0 - k).clamp(0.0, 1.0)
    });
    let bright = 0.299 * full[0] + 0.587 * full[1] + 0.114 * full[2];
    LEVELS.map(|level| {
        // Towards black or white, depending on the wanted brightness.
        let level = level * light;
        if bright > level {
            full.map(|c| c * level / bright)
        } else {
            full.map(|c| c + (1.0 - c) * (level - bright) / (1.0 - bright))
        }
    })
}

fn between(rng: &mut Rng, low: f32, high: f32) -> f32 {
    low + (high - low) * rng.random::<f32>()
}

/// Nearly normal: the sum of four bytes, scaled to variance 1. Exact on every platform, unlike a logarithm.
fn bell(rng: &mut Rng) -> f32 {
    let sum: u32 = rng.next_u32().to_le_bytes().iter().map(|&b| u32::from(b)).sum();
    (sum as f32 - 510.0) / 147.8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn textures_cover_half() {
        for (texture, name) in TEXTURES {
            let count =
                (0..10_000).filter(|i| mark(texture, (i % 100) as f32 / 10.0 + 0.05, (i / 100) as f32 / 10.0 + 0.05)).count();
            assert_eq!(count, 5_000, "{name}");
        }
    }
}
