//! The augmentations written again pixel by pixel in f64 from their definitions: the oracle of the fast implementation.

use ctk_core::recipe::Recipe;
use ctk_core::rng::Key;

use super::*;

type Pixel = [f64; 3];

/// The view of `draw`, channels last.
fn view(picture: &Picture, size: usize, draw: &Draw) -> Vec<f64> {
    let mut pixels = resampled(picture, draw.crop, size);
    if draw.mirror {
        pixels.chunks_mut(size).for_each(|row| row.reverse());
    }
    if draw.upside_down {
        pixels = pixels.chunks(size).rev().flatten().copied().collect();
    }
    if draw.transpose {
        pixels = (0..size * size).map(|i| pixels[i % size * size + i / size]).collect();
    }
    draw.changes.iter().for_each(|change| changed(*change, &mut pixels));
    if let Some(sigma) = draw.sigma {
        pixels = blurred(&pixels, size, sigma);
    }
    pixels.into_iter().flatten().collect()
}

fn resampled(picture: &Picture, crop: Crop, size: usize) -> Vec<Pixel> {
    let (rows, columns) = (weights(crop.height, size), weights(crop.width, size));
    let pixel = |y: usize, x: usize| {
        let mut sum = [0.0; 3];
        for &(i, wy) in &rows[y] {
            for &(j, wx) in &columns[x] {
                let source = picture.at(crop.top + i, crop.left + j);
                (0..3).for_each(|c| sum[c] += wy * wx * f64::from(source[c]) / 255.0);
            }
        }
        sum.map(|v| v.clamp(0.0, 1.0))
    };
    (0..size * size).map(|i| pixel(i / size, i % size)).collect()
}

/// PIL's `precompute_coeffs` for bicubic: the inputs of each output, with their weights.
fn weights(from: usize, to: usize) -> Vec<Vec<(usize, f64)>> {
    let cubic = |x: f64| match x.abs() {
        x if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
        x if x < 2.0 => ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0,
        _ => 0.0,
    };
    let scale = from as f64 / to as f64;
    let widen = scale.max(1.0);
    let output = |i: usize| {
        let centre = (i as f64 + 0.5) * scale;
        let first = (centre - 2.0 * widen + 0.5).max(0.0) as usize;
        let end = ((centre + 2.0 * widen + 0.5) as usize).min(from);
        let weight = |k: usize| cubic((k as f64 - centre + 0.5) / widen);
        let sum: f64 = (first..end).map(weight).sum();
        (first..end).map(|k| (k, weight(k) / sum)).collect()
    };
    (0..to).map(output).collect()
}

fn gray(pixel: &Pixel) -> f64 {
    0.299 * pixel[0] + 0.587 * pixel[1] + 0.114 * pixel[2]
}

fn changed(change: Change, pixels: &mut [Pixel]) {
    let mean = pixels.iter().map(gray).sum::<f64>() / pixels.len() as f64;
    for pixel in pixels {
        let blend = |factor: f32, with: f64| pixel.map(|v| f64::from(factor) * v + (1.0 - f64::from(factor)) * with);
        let new = match change {
            Change::Brightness(factor) => blend(factor, 0.0),
            Change::Contrast(factor) => blend(factor, mean),
            Change::Saturation(factor) => blend(factor, gray(pixel)),
            Change::Hue(turn) => turned(*pixel, f64::from(turn)),
            Change::Gray => [gray(pixel); 3],
        };
        *pixel = new.map(|v| v.clamp(0.0, 1.0));
    }
}

/// To HSV and back, by the textbook's sectors.
fn turned([r, g, b]: Pixel, turn: f64) -> Pixel {
    let (high, low) = (r.max(g).max(b), r.min(g).min(b));
    let chroma = high - low;
    if chroma == 0.0 {
        return [r, g, b];
    }
    let hue = match high {
        _ if high == r => (g - b) / chroma,
        _ if high == g => (b - r) / chroma + 2.0,
        _ => (r - g) / chroma + 4.0,
    };
    let hue = (hue / 6.0 + turn).rem_euclid(1.0) * 6.0;
    let rest = hue - hue.floor();
    let (falling, rising) = (high - chroma * rest, low + chroma * rest);
    match hue.floor() as usize {
        0 => [high, rising, low],
        1 => [falling, high, low],
        2 => [low, high, rising],
        3 => [low, falling, high],
        4 => [rising, low, high],
        _ => [high, low, falling],
    }
}

fn blurred(pixels: &[Pixel], size: usize, sigma: f64) -> Vec<Pixel> {
    let radius = (size / 10 / 2) as isize;
    let weight = |k: isize| (-((k * k) as f64) / (2.0 * sigma * sigma)).exp();
    let sum: f64 = (-radius..=radius).map(weight).sum();
    let reflected = |at: isize| if at < 0 { -at } else { at.min(2 * (size as isize - 1) - at) } as usize;
    let along = |from: &[Pixel], place: &dyn Fn(usize, isize) -> usize| -> Vec<Pixel> {
        let one = |i: usize| {
            let mut pixel = [0.0; 3];
            for k in -radius..=radius {
                (0..3).for_each(|c| pixel[c] += weight(k) / sum * from[place(i, k)][c]);
            }
            pixel
        };
        (0..size * size).map(one).collect()
    };
    let across = along(pixels, &|i, k| i / size * size + reflected((i % size) as isize + k));
    along(&across, &|i, k| reflected((i / size) as isize + k) * size + i % size)
}

/// Smooth shapes, hard edges and grain.
fn picture(height: usize, width: usize) -> Picture {
    let mut state = 7_u32;
    let mut value = |i: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let (y, x, c) = (i / 3 / width, i / 3 % width, i % 3);
        let smooth = 100.0 + 90.0 * ((x * (c + 1)) as f64 * 0.07).sin() * (y as f64 * 0.05).cos();
        let edge = if (x / 9 + y / 13) % 3 == c { 60 } else { 0 };
        (smooth as u8).saturating_add(edge).wrapping_add((state >> 29) as u8)
    };
    Picture { height, width, pixels: (0..height * width * 3).map(&mut value).collect() }
}

#[test]
fn views_are_what_the_definitions_say() {
    for (text, height, width, count) in [
        ("", 32, 32, 40),
        ("size = 24", 32, 32, 40),
        ("size = 24\nvertical_flip = 0.5\nquarter_turns = 0.75", 32, 40, 40),
        ("size = 65\nquarter_turns = 1.0", 60, 70, 6),
        ("size = 96\nblur = 1.0", 96, 96, 12),
        ("size = 96", 120, 90, 12),
        ("size = 65\nblur = 1.0", 300, 70, 6),
        ("size = 40\nblur = 1.0", 7, 5, 12),
        ("size = 4\nblur = 1.0", 150, 200, 12),
        ("size = 33", 1, 1, 2),
        ("size = 33", 3, 200, 6),
    ] {
        let recipe = Recipe::new("test", text);
        let augment = recipe.parse::<AugmentRecipe>().unwrap().check(&recipe).unwrap();
        let picture = picture(height, width);
        let mut out = vec![f32::NAN; augment.size * augment.size * 3];
        for i in 0..count {
            let key = Key::new(5).of(text).at(i);
            augment.view(&picture, &mut key.rng(), &mut out);
            let expected = view(&picture, augment.size, &augment.draw(&picture, &mut key.rng()));
            for (at, (v, e)) in out.iter().zip(&expected).enumerate() {
                let off = (f64::from(*v) - e).abs();
                assert!(off < 2e-6, "{text:?}, {height} × {width}, view {i}, value {at}: {v}, expected {e}");
            }
        }
    }
}

#[test]
fn a_view_does_not_depend_on_the_one_before() {
    // Buffers are kept from view to view while sizes change: nothing of an earlier view may remain.
    let views = |first: &str| -> Vec<f32> {
        for text in [first, "size = 24\nblur = 1.0"] {
            let recipe = Recipe::new("test", text);
            let augment = recipe.parse::<AugmentRecipe>().unwrap().check(&recipe).unwrap();
            let mut out = vec![0.0; augment.size * augment.size * 3];
            augment.view(&picture(40, 30), &mut Key::new(1).rng(), &mut out);
            if text != first {
                return out;
            }
        }
        unreachable!("the second differs from the first")
    };
    let bits = |v: Vec<f32>| v.into_iter().map(f32::to_bits).collect::<Vec<_>>();
    let expected = bits(views("size = 24\ngray = 0.0"));
    assert_eq!(bits(views("size = 96\nblur = 1.0")), expected);
    assert_eq!(bits(views("size = 11\njitter_probability = 1.0")), expected);
}
