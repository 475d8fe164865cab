//! The statistics of the augmentations, and the pixels of one seed.

use ctk_core::rng::Key;

use super::*;

fn augment(text: &str) -> Augment {
    let recipe = Recipe::new("test", text);
    recipe.parse::<AugmentRecipe>().unwrap().check(&recipe).unwrap()
}

/// Each pixel encodes its place: red counts columns, green rows.
fn ramp(height: usize, width: usize) -> Picture {
    let pixels = (0..height * width).flat_map(|i| [(i % width * 5) as u8, (i / width * 5) as u8, 128]).collect();
    Picture { height, width, pixels }
}

fn view(augment: &Augment, picture: &Picture, rng: &mut Rng) -> Vec<f32> {
    let mut out = vec![0.0; augment.size * augment.size * 3];
    augment.view(picture, rng, &mut out);
    out
}

/// Chi-square of `values` in [0, 1] against the uniform distribution, 20 bins.
fn chi_square(values: impl Iterator<Item = f64>) -> f64 {
    let mut counts = [0.0_f64; 20];
    for v in values {
        assert!((0.0..=1.0).contains(&v), "{v}");
        counts[((v * 20.0) as usize).min(19)] += 1.0;
    }
    let expected = counts.iter().sum::<f64>() / 20.0;
    counts.iter().map(|n| (n - expected).powi(2) / expected).sum()
}

// 19 degrees of freedom: the 99.9 % quantile.
const CHI_19: f64 = 43.8;

#[test]
fn crops_are_proposed_by_torchvisions_law() {
    let rng = &mut Key::new(0).of("proposals").rng();
    let drawn: Vec<_> = (0..40_000).map(|_| crop::propose([0.08, 1.0], [0.75, 4.0 / 3.0], rng)).collect();
    let area = chi_square(drawn.iter().map(|(share, _)| (share - 0.08) / 0.92));
    let ratio =
        chi_square(drawn.iter().map(|(_, aspect)| (aspect.ln() - 0.75_f64.ln()) / ((4.0_f64 / 3.0).ln() - 0.75_f64.ln())));
    assert!(area < CHI_19 && ratio < CHI_19, "area {area}, ratio {ratio}");
}

#[test]
fn crops_fit_and_start_anywhere() {
    let rng = &mut Key::new(0).of("crops").rng();
    let picture = ramp(30, 40);
    let mut offsets = Vec::new();
    for _ in 0..20_000 {
        let crop = Crop::random(&picture, [0.08, 1.0], [0.75, 4.0 / 3.0], rng);
        assert!(crop.top + crop.height <= 30 && crop.left + crop.width <= 40 && crop.height > 0 && crop.width > 0);
        // Rounding distorts the distribution, so only large crops are looked at.
        if crop.width <= 20 {
            offsets.push((crop.left as f64 + 0.5) / (41 - crop.width) as f64);
        }
    }
    let half = offsets.iter().filter(|&&o| o < 0.5).count() as f64 / offsets.len() as f64;
    assert!(offsets.len() > 2000 && (half - 0.5).abs() < 0.03, "{half} of {}", offsets.len());
    // A strip has no crop of an allowed ratio above a small area: torchvision's centred fallback applies.
    let strip = Crop::random(&ramp(2, 50), [0.9, 1.0], [0.75, 4.0 / 3.0], rng);
    assert_eq!(strip, Crop { top: 0, left: 23, height: 2, width: 3 });
    let column = Crop::random(&ramp(50, 2), [0.9, 1.0], [0.75, 4.0 / 3.0], rng);
    assert_eq!(column, Crop { top: 23, left: 0, height: 3, width: 2 });
}

#[test]
fn rates_are_the_recipes() {
    let only = "crop = [1.0, 1.0]\nratio = [1.0, 1.0]\n";
    let rng = &mut Key::new(1).of("rates").rng();
    let count = 4_000;
    let picture = ramp(32, 32);
    let plain = view(&augment(&format!("{only}flip = 0.0\njitter_probability = 0.0\ngray = 0.0")), &picture, rng);
    for (key, rest, expected) in [
        ("flip", "jitter_probability = 0.0\ngray = 0.0", 0.5),
        ("jitter", "flip = 0.0\ngray = 0.0", 0.8),
        ("gray", "flip = 0.0\njitter_probability = 0.0", 0.2),
        ("blur", "flip = 0.0\njitter_probability = 0.0\ngray = 0.0\nblur = 0.5", 0.5),
    ] {
        let augment = augment(&format!("{only}{rest}"));
        let changed = (0..count).filter(|_| view(&augment, &picture, rng) != plain).count() as f64 / f64::from(count);
        // Four standard deviations.
        let bound = 4.0 * (expected * (1.0 - expected) / f64::from(count)).sqrt();
        assert!((changed - expected).abs() < bound, "{key}: {changed}, expected {expected} ± {bound}");
    }
}

#[test]
fn flips_mirror_and_gray_is_gray() {
    let picture = ramp(32, 32);
    let rng = &mut Key::new(0).rng();
    let only = "crop = [1.0, 1.0]\nratio = [1.0, 1.0]\njitter_probability = 0.0\n";
    let plain = view(&augment(&format!("{only}flip = 0.0\ngray = 0.0")), &picture, rng);
    assert!(plain.iter().zip(&picture.pixels).all(|(v, &p)| (v * 255.0 - f32::from(p)).abs() < 1e-3));
    let mirrored = view(&augment(&format!("{only}flip = 1.0\ngray = 0.0")), &picture, rng);
    for y in 0..32 {
        for x in 0..32 {
            let (a, b) = ((y * 32 + x) * 3, (y * 32 + 31 - x) * 3);
            assert!((0..3).all(|c| (plain[a + c] - mirrored[b + c]).abs() < 1e-5));
        }
    }
    let gray = view(&augment(&format!("{only}flip = 0.0\ngray = 1.0")), &picture, rng);
    assert!(gray.chunks(3).all(|p| p[0] == p[1] && p[1] == p[2]));
}

#[test]
fn all_eight_ways_to_lie_come_as_often_as_asked() {
    let picture = ramp(32, 32);
    let only = "crop = [1.0, 1.0]\nratio = [1.0, 1.0]\njitter_probability = 0.0\ngray = 0.0\n";
    let corners = |out: &[f32]| {
        let level = |i: usize| [(out[3 * i] * 255.0).round() as i32 / 5, (out[3 * i + 1] * 255.0).round() as i32 / 5];
        (level(0), level(31))
    };
    let count = |text: &str| {
        let (augment, rng) = (augment(&format!("{only}{text}")), &mut Key::new(3).rng());
        let mut seen = std::collections::BTreeMap::<_, i32>::new();
        (0..4_000).for_each(|_| *seen.entry(corners(&view(&augment, &picture, rng))).or_default() += 1);
        seen
    };
    let all = count("flip = 0.5\nvertical_flip = 0.5\nquarter_turns = 0.75");
    assert_eq!(all.len(), 8);
    assert!(all.values().all(|&n| (n - 500).abs() < 90), "{all:?}");
    // Turned to the right, upside down, to the left: the top left pixel moves to the top right, the bottom, ….
    let turned = count("flip = 0.0\nquarter_turns = 1.0");
    assert_eq!(turned.keys().copied().collect::<Vec<_>>(), [([0, 31], [0, 0]), ([31, 0], [31, 31]), ([31, 31], [0, 31])]);
    assert!(turned.values().all(|&n| (n - 1_333).abs() < 120), "{turned:?}");
    assert_eq!(count("flip = 0.0\nvertical_flip = 1.0").into_keys().collect::<Vec<_>>(), [([0, 31], [31, 31])]);
    assert_eq!(count("flip = 0.0").into_keys().collect::<Vec<_>>(), [([0, 0], [31, 0])]);
}

#[test]
fn two_views_differ_and_one_key_repeats() {
    let augment = augment("");
    let picture = ramp(32, 32);
    let rng = &mut Key::new(9).rng();
    let (a, b) = (view(&augment, &picture, rng), view(&augment, &picture, rng));
    assert_ne!(a, b);
    assert_eq!(a, view(&augment, &picture, &mut Key::new(9).rng()));
    assert!(a.iter().chain(&b).all(|v| (0.0..=1.0).contains(v)));
}

#[test]
fn a_fixed_seeds_pixels_do_not_move() {
    // Every measured figure depends on these. They are rounded to bytes, so that a faster kernel may differ in the last bits.
    for (text, height, width, golden) in [("", 32, 32, GOLDEN_32), ("size = 96", 120, 90, GOLDEN_96)] {
        let augment = augment(text);
        let picture = ramp(height, width);
        let mut hasher = blake3::Hasher::new();
        for i in 0..20 {
            let bytes: Vec<u8> =
                view(&augment, &picture, &mut Key::new(0).at(i).rng()).iter().map(|v| (v * 255.0).round() as u8).collect();
            hasher.update(&bytes);
        }
        assert_eq!(&hasher.finalize().to_hex()[..16], golden, "{text}");
    }
}
const GOLDEN_32: &str = "8b220a8a32756849";
const GOLDEN_96: &str = "c57a579997d540ca";

#[test]
fn resampling_keeps_a_ramp_and_antialiases() {
    // Bicubic interpolation reproduces straight lines away from the edge, enlarging and shrinking.
    let picture = Picture { height: 40, width: 40, pixels: (0..1600).flat_map(|i| [(i % 40 * 6) as u8; 3]).collect() };
    for size in [20, 80] {
        let mut out = vec![0.0; size * size * 3];
        thumbnail(&picture, size, &mut out);
        for x in size / 5..size * 4 / 5 {
            let expected = ((x as f32 + 0.5) * 40.0 / size as f32 - 0.5) * 6.0 / 255.0;
            assert!((out[(size / 2 * size + x) * 3] - expected).abs() < 1e-4, "{size} {x}");
        }
    }
    // A checkerboard of single pixels shrinks to its mean, not to one of its two values.
    let checks = Picture { height: 64, width: 64, pixels: (0..4096).flat_map(|i| [((i + i / 64) % 2 * 255) as u8; 3]).collect() };
    let mut out = vec![0.0; 16 * 16 * 3];
    thumbnail(&checks, 16, &mut out);
    assert!(out.iter().all(|v| (v - 0.5).abs() < 0.02), "{:?}", &out[..12]);
}

#[test]
fn evaluation_crops_large_pictures_only() {
    let mut out = vec![0.0; 32 * 32 * 3];
    let small = ramp(32, 32);
    augment("").evaluation(&small, &mut out);
    assert!(out.iter().zip(&small.pixels).all(|(v, &p)| (v * 255.0 - f32::from(p)).abs() < 1e-3), "32 px stay untouched");
    // 64 × 80: the centre square of 56, from column 12, row 4.
    let large = ramp(64, 50);
    let mut out = vec![0.0; 44 * 44 * 3];
    augment("size = 44").evaluation(&large, &mut out);
    let at = |y: usize, x: usize| [out[(y * 44 + x) * 3] * 255.0, out[(y * 44 + x) * 3 + 1] * 255.0];
    assert!((at(0, 0)[0] - 15.0).abs() < 1e-2 && (at(0, 0)[1] - 50.0).abs() < 1e-2, "{:?}", at(0, 0));
    let mut normalised = vec![0.0; 44 * 44 * 3];
    let text = "size = 44\n[normalise]\nmean = [0.5, 0.25, 0.0]\ndeviation = [0.5, 0.25, 1.0]";
    augment(text).evaluation(&large, &mut normalised);
    assert!((normalised[0] - (out[0] - 0.5) / 0.5).abs() < 1e-6 && (normalised[1] - (out[1] - 0.25) / 0.25).abs() < 1e-6);
}

#[test]
fn defaults_follow_the_size_and_bad_figures_are_found() {
    assert_eq!((augment("").blur, augment("").ranges.hue), (0.0, 0.1));
    assert_eq!((augment("size = 96").blur, augment("size = 96").ranges.hue), (0.5, 0.2));
    let light = augment("size = 96").light();
    assert_eq!((light.blur, light.gray, light.jitter_probability, light.flip), (0.0, 0.0, 0.0, 0.5));
    for (text, key) in [
        ("crop = [0.5, 0.1]", "pairs.crop"),
        ("gray = 1.5", "pairs.gray"),
        ("size = 2", "pairs.size"),
        ("hue = 0.9\njitter = 1.0", "pairs.hue"),
        ("sigma = [0.0, 1.0]", "pairs.sigma"),
    ] {
        let recipe = Recipe::new("my.toml", text);
        let error = recipe.parse::<AugmentRecipe>().unwrap().check(&recipe).unwrap_err();
        assert!(error.to_string().contains(key) && error.exit_code() == 2, "{error}");
    }
}
