//! Times the work of a loader thread: one random view of an image that is in memory, and the decoding of JPEG files.
//!
//! cargo bench -p ctk-images --bench augment
//!
//! One thread. JPEG files are read from the folder `CTK_DATA`; without it they are left out.

use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ctk_core::recipe::Recipe;
use ctk_core::rng::Key;
use ctk_images::augment::{Augment, AugmentRecipe};
use ctk_images::decode::decode;
use ctk_images::generated;
use ctk_images::picture::Picture;

/// A picture of this size that is neither plain nor noise: an enlarged generated image with grain.
fn picture(height: usize, width: usize) -> Picture {
    let small = generated::open(1, 0).train.picture(0).expect("a generated picture");
    let mut state = 1_u32;
    let mut pixels = Vec::with_capacity(height * width * 3);
    for i in 0..height * width {
        for v in small.at(i / width * small.height / height, i % width * small.width / width) {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            pixels.push(v.saturating_add((state >> 28) as u8));
        }
    }
    Picture { height, width, pixels }
}

fn augment(text: &str) -> Augment {
    let recipe = Recipe::new("bench", text);
    recipe.parse::<AugmentRecipe>().and_then(|r| r.check(&recipe)).expect("a recipe of augmentations")
}

fn views(c: &mut Criterion) {
    let mut group = c.benchmark_group("view");
    for (name, (height, width), recipe) in [
        ("32 to 24, no blur", (32, 32), "size = 24"),
        ("32 to 32, no blur", (32, 32), ""),
        ("96 to 96, blur half the time", (96, 96), "size = 96"),
        ("96 to 96, blur", (96, 96), "size = 96\nblur = 1.0"),
        ("500 x 375 to 224, blur half the time", (375, 500), "size = 224"),
    ] {
        let (picture, augment) = (picture(height, width), augment(recipe));
        let mut out = vec![0.0; augment.size * augment.size * 3];
        // The same views for every version of the code: each benchmark draws from a stream of its own.
        let mut streams = (0..256).map(|i| Key::new(0).at(i).rng()).collect::<Vec<_>>().into_iter().cycle();
        group.bench_function(name, |b| {
            b.iter(|| augment.view(black_box(&picture), &mut streams.next().expect("endless"), black_box(&mut out)));
        });
    }
    group.finish();
}

/// Up to `most` JPEG files below a folder, spread evenly over it.
fn files(folder: &Path, most: usize) -> Vec<Vec<u8>> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).expect("a folder of the test data").flatten() {
            let path = entry.path();
            match path.extension() {
                _ if path.is_dir() => walk(&path, found),
                Some(kind) if kind.eq_ignore_ascii_case("jpg") || kind.eq_ignore_ascii_case("jpeg") => found.push(path),
                _ => {}
            }
        }
    }
    let mut found = Vec::new();
    walk(folder, &mut found);
    found.sort();
    let every = found.len().div_ceil(most).max(1);
    found.iter().step_by(every).map(|path| fs::read(path).expect("a file of the test data")).collect()
}

fn jpegs(c: &mut Criterion) {
    let Some(data) = std::env::var_os("CTK_DATA") else {
        eprintln!("CTK_DATA is unset: JPEG decoding is not timed");
        return;
    };
    let mut group = c.benchmark_group("decode");
    for name in ["cifar10/test", "flowers128", "imagenet-sample-60"] {
        let files = files(&Path::new(&data).join("vision").join(name), 60);
        group.throughput(Throughput::Elements(files.len() as u64));
        group.bench_with_input(BenchmarkId::from_parameter(name), &files, |b, files| {
            b.iter(|| files.iter().for_each(|bytes| drop(black_box(decode(black_box(bytes)).expect("a JPEG file")))));
        });
    }
    group.finish();
}

criterion_group!(benches, views, jpegs);
criterion_main!(benches);
