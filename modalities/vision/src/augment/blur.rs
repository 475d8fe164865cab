//! Gaussian blur: separable, reflected at the edges.

/// The kernel's radius for pictures of height `size`: Google's `kernel_size = height // 10`, halved (224 → 11, 96 → 4, 32 → 1).
pub(super) fn radius(size: usize) -> usize {
    (size / 10) / 2
}

/// The Gaussian at the whole numbers from −radius to radius, scaled to sum 1.
pub(super) fn kernel(radius: usize, sigma: f64) -> Vec<f32> {
    let at = |k: usize| (-(k as f64 - radius as f64).powi(2) / (2.0 * sigma * sigma)).exp();
    let sum: f64 = (0..=2 * radius).map(at).sum();
    (0..=2 * radius).map(|k| (at(k) / sum) as f32).collect()
}

/// Blurs a `size` × `size` channels-last picture in place and clips it to [0, 1]. Outside, the picture is reflected about
/// its outermost pixels (torchvision's `gaussian_blur`; Google's code sees zeros there, which darkens the border).
pub(super) fn blur(pixels: &mut [f32], size: usize, sigma: f64, scratch: &mut Vec<f32>) {
    let radius = radius(size);
    let kernel = kernel(radius, sigma);
    let (row, padded) = (size * 3, (size + 2 * radius) * 3);
    scratch.clear();
    scratch.resize(padded + size * row, 0.0);
    let (line, across) = scratch.split_at_mut(padded);
    for (from, to) in pixels.chunks_exact(row).zip(across.chunks_exact_mut(row)) {
        for x in 0..size + 2 * radius {
            let source = reflect(x as isize - radius as isize, size) * 3;
            line[x * 3..x * 3 + 3].copy_from_slice(&from[source..source + 3]);
        }
        for (k, &weight) in kernel.iter().enumerate() {
            to.iter_mut().zip(&line[k * 3..]).for_each(|(t, v)| *t += weight * v);
        }
    }
    for (y, to) in pixels.chunks_exact_mut(row).enumerate() {
        to.fill(0.0);
        for (k, &weight) in kernel.iter().enumerate() {
            let source = reflect((y + k) as isize - radius as isize, size) * row;
            to.iter_mut().zip(&across[source..source + row]).for_each(|(t, v)| *t += weight * v);
        }
        to.iter_mut().for_each(|v| *v = v.clamp(0.0, 1.0));
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

    #[test]
    fn a_single_bright_pixel_becomes_the_gaussian() {
        let (size, sigma) = (96, 1.3);
        let mut pixels = vec![0.0; size * size * 3];
        pixels[(40 * size + 50) * 3 + 1] = 1.0;
        blur(&mut pixels, size, sigma, &mut Vec::new());
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
        let mut pixels = vec![0.75; 96 * 96 * 3];
        blur(&mut pixels, 96, 2.0, &mut Vec::new());
        assert!(pixels.iter().all(|v| (v - 0.75).abs() < 1e-6));
    }

    #[test]
    fn the_edge_is_reflected() {
        assert_eq!((-3..8).map(|at| reflect(at, 5)).collect::<Vec<_>>(), [3, 2, 1, 0, 1, 2, 3, 4, 3, 2, 1]);
    }
}
