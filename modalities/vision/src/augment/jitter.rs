//! Colour jitter: brightness, contrast, saturation and hue in random order, as torchvision defines them.

use ctk_core::rng::Rng;

use super::crop::below;
use super::uniform;

/// Rec. 601 luma, PIL's and torchvision's gray.
const LUMA: [f32; 3] = [0.299, 0.587, 0.114];

/// How far each operation may go: factors from `1 − x` (not below 0) to `1 + x`, hue from `−x` to `x` of a turn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Ranges {
    pub brightness: f64,
    pub contrast: f64,
    pub saturation: f64,
    pub hue: f64,
}

/// What one operation does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Change {
    /// v · factor.
    Brightness(f32),
    /// Blends with the picture's mean gray: factor · v + (1 − factor) · mean.
    Contrast(f32),
    /// Blends with each pixel's gray: factor · v + (1 − factor) · gray.
    Saturation(f32),
    /// Turns the hue of HSV by this share of a turn.
    Hue(f32),
}

impl Ranges {
    /// The four operations with their amounts, in random order.
    pub fn draw(&self, rng: &mut Rng) -> [Change; 4] {
        let mut factor = |x: f64| uniform([(1.0 - x).max(0.0), 1.0 + x], rng) as f32;
        let mut changes = [
            Change::Brightness(factor(self.brightness)),
            Change::Contrast(factor(self.contrast)),
            Change::Saturation(factor(self.saturation)),
            Change::Hue(uniform([-self.hue, self.hue], rng) as f32),
        ];
        for i in (1..changes.len()).rev() {
            changes.swap(i, below(i + 1, rng));
        }
        changes
    }
}

impl Change {
    /// Changes channels-last pixels in place and clips to [0, 1].
    pub fn apply(self, pixels: &mut [f32]) {
        match self {
            Change::Brightness(factor) => pixels.iter_mut().for_each(|v| *v = (*v * factor).clamp(0.0, 1.0)),
            Change::Contrast(factor) => {
                let rest = (1.0 - factor) * mean_gray(pixels);
                pixels.iter_mut().for_each(|v| *v = (*v * factor + rest).clamp(0.0, 1.0));
            }
            Change::Saturation(factor) => {
                for pixel in pixels.as_chunks_mut::<3>().0 {
                    let rest = (1.0 - factor) * gray(pixel);
                    *pixel = pixel.map(|v| (v * factor + rest).clamp(0.0, 1.0));
                }
            }
            Change::Hue(0.0) => {}
            Change::Hue(turn) => {
                for pixel in pixels.as_chunks_mut::<3>().0 {
                    *pixel = turned(*pixel, turn * 6.0);
                }
            }
        }
    }
}

/// Makes every pixel gray.
pub(super) fn to_gray(pixels: &mut [f32]) {
    for pixel in pixels.as_chunks_mut::<3>().0 {
        *pixel = [gray(pixel).clamp(0.0, 1.0); 3];
    }
}

fn gray(pixel: &[f32; 3]) -> f32 {
    LUMA[0] * pixel[0] + LUMA[1] * pixel[1] + LUMA[2] * pixel[2]
}

fn mean_gray(pixels: &[f32]) -> f32 {
    // Short sums in f32, their total in f64: exact enough for any size, and the inner loop stays in vectors.
    let total: f64 = pixels.chunks(3 * 64).map(|some| f64::from(some.as_chunks::<3>().0.iter().map(gray).sum::<f32>())).sum();
    (total * 3.0 / pixels.len() as f64) as f32
}

/// Turns the hue by `sixths` of a turn; HSV's value and saturation stay.
fn turned([r, g, b]: [f32; 3], sixths: f32) -> [f32; 3] {
    let high = r.max(g).max(b);
    let chroma = high - r.min(g).min(b);
    let safe = if chroma > 0.0 { chroma } else { 1.0 };
    let hue = if high == r {
        (g - b) / safe
    } else if high == g {
        (b - r) / safe + 2.0
    } else {
        (r - g) / safe + 4.0
    };
    let hue = hue + sixths + 12.0;
    [5.0, 3.0, 1.0].map(|n| {
        // (n + hue) mod 6; the argument is positive.
        let k = n + hue;
        let k = k - 6.0 * (k * (1.0 / 6.0)).floor();
        high - chroma * k.min(4.0 - k).clamp(0.0, 1.0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ctk_core::rng::Key;

    fn after(change: Change, pixel: [f32; 3]) -> [f32; 3] {
        let mut pixel = pixel;
        change.apply(&mut pixel);
        pixel
    }

    fn near(a: [f32; 3], b: [f32; 3]) {
        assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6), "{a:?} {b:?}");
    }

    #[test]
    fn each_operation_does_what_torchvision_says() {
        near(after(Change::Brightness(1.5), [0.2, 0.4, 0.8]), [0.3, 0.6, 1.0]);
        let gray = 0.299 * 0.2 + 0.587 * 0.4 + 0.114 * 0.8;
        near(after(Change::Saturation(0.0), [0.2, 0.4, 0.8]), [gray; 3]);
        near(after(Change::Saturation(0.5), [0.2, 0.4, 0.8]), [0.2, 0.4, 0.8].map(|v| 0.5 * v + 0.5 * gray));
        let mut two = [0.2, 0.2, 0.2, 0.6, 0.6, 0.6];
        Change::Contrast(0.5).apply(&mut two);
        near([two[0], two[3], two[5]], [0.3, 0.5, 0.5]);
    }

    #[test]
    fn hue_turns_the_colour_wheel() {
        near(after(Change::Hue(1.0 / 3.0), [1.0, 0.0, 0.0]), [0.0, 1.0, 0.0]);
        near(after(Change::Hue(-1.0 / 3.0), [0.9, 0.1, 0.1]), [0.1, 0.1, 0.9]);
        near(after(Change::Hue(0.5), [0.8, 0.4, 0.2]), [0.2, 0.6, 0.8]);
        near(after(Change::Hue(0.25), [0.5, 0.5, 0.5]), [0.5; 3]);
        let rng = &mut Key::new(3).rng();
        for _ in 0..1000 {
            let pixel = [0.0; 3].map(|v: f32| v + uniform([0.0, 1.0], rng) as f32);
            let turn = uniform([-0.5, 0.5], rng) as f32;
            let back = after(Change::Hue(-turn), after(Change::Hue(turn), pixel));
            assert!(pixel.iter().zip(back).all(|(a, b)| (a - b).abs() < 1e-5), "{pixel:?} {back:?}");
        }
    }

    #[test]
    fn every_order_comes_equally_often() {
        let ranges = Ranges { brightness: 0.8, contrast: 0.8, saturation: 0.8, hue: 0.2 };
        let rng = &mut Key::new(0).of("orders").rng();
        let mut counts = std::collections::BTreeMap::<Vec<u8>, f64>::new();
        for _ in 0..24_000 {
            let order = ranges.draw(rng).map(|change| match change {
                Change::Brightness(_) => 0,
                Change::Contrast(_) => 1,
                Change::Saturation(_) => 2,
                Change::Hue(_) => 3,
            });
            *counts.entry(order.to_vec()).or_default() += 1.0;
        }
        assert_eq!(counts.len(), 24);
        let chi: f64 = counts.values().map(|n| (n - 1000.0).powi(2) / 1000.0).sum();
        // 23 degrees of freedom: the 99.9 % quantile.
        assert!(chi < 49.7, "chi-square {chi}");
    }
}
