//! Gaussian blur: separable, reflected at the edges.

use super::planes::{LANES, Lanes, Planes};

/// The kernel's radius for images of height `size`: Google's `kernel_size = height // 10`, halved (224 → 11, 96 → 4, 32 → 1).
pub(super) fn radius(size: usize) -> usize {
    (size / 10) / 2
}

/// The Gaussian at the integers from −radius to radius, scaled to sum 1.
pub(super) fn kernel(radius: usize, sigma: f64) -> Vec<f32> {
    let at = |k: usize| (-(k as f64 - radius as f64).powi(2) / (2.0 * sigma * sigma)).exp();
    let sum: f64 = (0..=2 * radius).map(at).sum();
    (0..=2 * radius).map(|k| (at(k) / sum) as f32).collect()
}

/// Buffers that are kept from one view to the next.
#[derive(Default)]
pub(super) struct Room {
    line: Vec<f32>,
    across: Vec<Lanes>,
    sources: Vec<usize>,
}

/// Blurs an image in place and clips it to [0, 1]. At the edges the image is reflected about its outermost pixels (as torchvision's
/// `gaussian_blur`; Google's code pads with zeros, which darkens the border).
#[inline(always)]
pub(super) fn blur(view: &mut Planes, sigma: f64, room: &mut Room) {
    let (size, row) = (view.size(), view.row());
    let radius = radius(size);
    let kernel = kernel(radius, sigma);
    let Room { line: padded, across, sources } = room;
    padded.clear();
    padded.resize(row / 3 * LANES + 2 * radius, 0.0);
    across.resize(size * row, [0.0; LANES]);
    for (line, across) in view.lines().zip(across.chunks_exact_mut(row / 3)) {
        let line = &line.as_flattened()[..size];
        padded[radius..radius + size].copy_from_slice(line);
        for k in 0..radius {
            padded[k] = line[radius - k];
            padded[radius + size + k] = line[size - 2 - k];
        }
        for (block, to) in across.iter_mut().enumerate() {
            let mut sum = [0.0; LANES];
            for (&weight, values) in kernel.iter().zip(padded[block * LANES..].windows(LANES)) {
                add(&mut sum, weight, values);
            }
            *to = sum;
        }
    }
    sources.clear();
    sources.extend((0..size + 2 * radius).map(|y| reflect(y as isize - radius as isize, size) * row));
    // Column of blocks by column, so that the rows under a kernel stay in the nearest cache.
    for column in 0..row {
        for y in 0..size {
            let mut sum = [0.0; LANES];
            for (&weight, &source) in kernel.iter().zip(&sources[y..]) {
                add(&mut sum, weight, &across[source + column]);
            }
            let to = &mut view.blocks_mut()[y * row + column];
            for i in 0..LANES {
                to[i] = sum[i].clamp(0.0, 1.0);
            }
        }
    }
}

#[inline(always)]
fn add(sum: &mut Lanes, weight: f32, values: &[f32]) {
    let values = &values[..LANES];
    for i in 0..LANES {
        sum[i] += weight * values[i];
    }
}

// The radius is a twentieth of the size, so one reflection is enough.
fn reflect(at: isize, size: usize) -> usize {
    let last = size as isize - 1;
    (last - (last - at.abs()).abs()) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn radii_are_googles() {
        assert_eq!([224, 96, 32, 19].map(radius), [11, 4, 1, 0]);
    }

    /// The blurred image, channels last.
    fn blurred(size: usize, sigma: f64, value: impl Fn(usize, usize, usize) -> f32) -> Vec<f32> {
        let mut view = Planes::default();
        view.reset(size);
        for (y, row) in view.rows_mut().enumerate() {
            for (c, line) in row.into_iter().enumerate() {
                (0..size).for_each(|x| line.as_flattened_mut()[x] = value(y, x, c));
            }
        }
        blur(&mut view, sigma, &mut Room::default());
        let mut out = vec![0.0; size * size * 3];
        view.interleave(None, &mut out);
        out
    }

    #[test]
    fn a_single_bright_pixel_becomes_the_gaussian() {
        let (size, sigma) = (96, 1.3);
        let pixels = blurred(size, sigma, |y, x, c| if (y, x, c) == (40, 50, 1) { 1.0 } else { 0.0 });
        let weight = |k: i32| (-f64::from(k * k) / (2.0 * sigma * sigma)).exp();
        let sum: f64 = (-4..=4).map(weight).sum();
        for y in 0..size {
            for x in 0..size {
                let (dy, dx) = (y as i32 - 40, x as i32 - 50);
                let expected = if dy.abs() <= 4 && dx.abs() <= 4 { weight(dy) * weight(dx) / (sum * sum) } else { 0.0 };
                assert!((f64::from(pixels[(y * size + x) * 3 + 1]) - expected).abs() < 1e-7, "{y} {x}");
                assert_eq!(pixels[(y * size + x) * 3], 0.0, "channels stay apart");
            }
        }
    }

    #[test]
    fn a_plain_picture_stays_plain_up_to_the_edge() {
        let pixels = blurred(96, 2.0, |_, _, _| 0.75);
        assert!(pixels.iter().all(|v| (v - 0.75).abs() < 1e-6));
    }

    #[test]
    fn the_edge_is_reflected() {
        assert_eq!((-3..8).map(|at| reflect(at, 5)).collect::<Vec<_>>(), [3, 2, 1, 0, 1, 2, 3, 4, 3, 2, 1]);
    }
}
