//! Colour jitter: brightness, contrast, saturation and hue in random order, as torchvision defines them.

use ctk_core::rng::Rng;

use super::crop::below;
use super::planes::{LANES, Lanes, Planes};
use super::uniform;

/// Rec. 601 luma, PIL's and torchvision's gray.
const LUMA: [f32; 3] = [0.299, 0.587, 0.114];

/// The range of each operation: factors from `1 − x` (not below 0) to `1 + x`, hue from `−x` to `x` of a turn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Ranges {
    pub brightness: f64,
    pub contrast: f64,
    pub saturation: f64,
    pub hue: f64,
}

/// One operation with its amount.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Change {
    /// v · factor.
    Brightness(f32),
    /// Blends with the image's mean gray: factor · v + (1 − factor) · mean.
    Contrast(f32),
    /// Blends with each pixel's gray: factor · v + (1 − factor) · gray.
    Saturation(f32),
    /// Rotates the hue of HSV by this fraction of a turn.
    Hue(f32),
    /// Converts to grayscale.
    Gray,
}

impl Ranges {
    /// The four operations with random amounts, in random order.
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

/// Changes an image in place, one change after the other, each clipped to [0, 1]. At most one of the changes may be a contrast.
#[inline(always)]
pub(super) fn apply(changes: &[Change], view: &mut Planes) {
    if changes.is_empty() {
        return;
    }
    // A contrast needs the mean of the whole image, so the changes before it are one pass, and it begins another.
    let contrast = changes.iter().position(|change| matches!(change, Change::Contrast(_)));
    let (before, after) = changes.split_at(contrast.unwrap_or(0));
    let mut mean = 0.0;
    if contrast.is_some() {
        let pixels = (view.size() * view.size()) as f64;
        let mut total = [0.0_f64; LANES];
        for [red, green, blue] in view.rows_mut() {
            for change in before {
                change.line([red, green, blue], 0.0);
            }
            // A row is summed in f32, the rest in f64: exact enough for any size.
            let mut sum = [0.0_f32; LANES];
            for ((red, green), blue) in red.iter().zip(green.iter()).zip(blue.iter()) {
                for i in 0..LANES {
                    sum[i] += gray([red[i], green[i], blue[i]]);
                }
            }
            total.iter_mut().zip(sum).for_each(|(total, sum)| *total += f64::from(sum));
        }
        mean = (total.iter().sum::<f64>() / pixels) as f32;
    }
    for [red, green, blue] in view.rows_mut() {
        for change in after {
            change.line([red, green, blue], mean);
        }
    }
}

impl Change {
    /// Changes the three lines of a row; `mean` is the image's mean gray.
    #[inline(always)]
    fn line(self, lines: [&mut [Lanes]; 3], mean: f32) {
        match self {
            Change::Brightness(factor) => map(lines, |pixel| pixel.map(|v| (v * factor).clamp(0.0, 1.0))),
            Change::Contrast(factor) => {
                let rest = (1.0 - factor) * mean;
                map(lines, |pixel| pixel.map(|v| (v * factor + rest).clamp(0.0, 1.0)));
            }
            Change::Saturation(factor) => map(lines, |pixel| {
                let rest = (1.0 - factor) * gray(pixel);
                pixel.map(|v| (v * factor + rest).clamp(0.0, 1.0))
            }),
            Change::Hue(0.0) => {}
            Change::Hue(turn) => map(lines, |pixel| turned(pixel, turn * 6.0)),
            Change::Gray => map(lines, |pixel| [gray(pixel).clamp(0.0, 1.0); 3]),
        }
    }
}

#[inline(always)]
fn map([red, green, blue]: [&mut [Lanes]; 3], change: impl Fn([f32; 3]) -> [f32; 3]) {
    for ((red, green), blue) in red.iter_mut().zip(green).zip(blue) {
        for i in 0..LANES {
            [red[i], green[i], blue[i]] = change([red[i], green[i], blue[i]]);
        }
    }
}

#[inline(always)]
fn gray([red, green, blue]: [f32; 3]) -> f32 {
    LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
}

/// Rotates the hue by `sixths` of a turn, −3 to 3; HSV's value and saturation stay. Written without branches, so that it compiles to vector
/// instructions.
#[inline(always)]
fn turned([r, g, b]: [f32; 3], sixths: f32) -> [f32; 3] {
    let larger = |a: f32, b: f32| if a > b { a } else { b };
    let smaller = |a: f32, b: f32| if a < b { a } else { b };
    let high = larger(larger(r, g), b);
    let chroma = high - smaller(smaller(r, g), b);
    let safe = if chroma > 0.0 { chroma } else { 1.0 };
    let (difference, start) = if high == r { (g - b, 0.0) } else { (r - g, 4.0) };
    let (difference, start) = if high == g && high != r { (b - r, 2.0) } else { (difference, start) };
    // In sixths of a turn: hues from −1 to 5 become −4 to 8; adding or subtracting one turn brings them to [0, 6).
    let hue = difference / safe + start + sixths;
    let hue = if hue < 0.0 { hue + 6.0 } else { hue };
    let hue = if hue >= 6.0 { hue - 6.0 } else { hue };
    let lack = [2.0 - (hue - 3.0).abs(), (hue - 2.0).abs() - 1.0, (hue - 4.0).abs() - 1.0];
    lack.map(|lack| high - chroma * lack.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ctk_core::rng::Key;

    fn after(change: Change, pixel: [f32; 3]) -> [f32; 3] {
        changed(change, &[pixel; 4])[0]
    }

    /// The result of a change on a square of pixels.
    fn changed(change: Change, pixels: &[[f32; 3]]) -> Vec<[f32; 3]> {
        let size = pixels.len().isqrt();
        let mut view = Planes::default();
        view.reset(size);
        for (row, pixels) in view.rows_mut().zip(pixels.chunks(size)) {
            for (c, line) in row.into_iter().enumerate() {
                line.as_flattened_mut().iter_mut().zip(pixels).for_each(|(v, pixel)| *v = pixel[c]);
            }
        }
        apply(&[change], &mut view);
        let mut out = vec![0.0; size * size * 3];
        view.interleave(None, &mut out);
        out.as_chunks::<3>().0.to_vec()
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
        let two = changed(Change::Contrast(0.5), &[[0.2; 3], [0.6; 3], [0.6; 3], [0.2; 3]]);
        near([two[0][0], two[1][0], two[2][2]], [0.3, 0.5, 0.5]);
        near(after(Change::Gray, [0.2, 0.4, 0.8]), [gray; 3]);
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
                Change::Gray => unreachable!("is not drawn here"),
            });
            *counts.entry(order.to_vec()).or_default() += 1.0;
        }
        assert_eq!(counts.len(), 24);
        let chi: f64 = counts.values().map(|n| (n - 1000.0).powi(2) / 1000.0).sum();
        // 23 degrees of freedom: the 99.9 % quantile.
        assert!(chi < 49.7, "chi-square {chi}");
    }
}
