//! `ctk bench vision`: the cost of a recipe's step on this machine.
//!
//! The network's input is random. Views are made of the recipe's own images if they are available, decoded before timing starts (as they
//! are from the second epoch on), and otherwise of random images of the views' size.

use std::sync::Arc;

use candle_core::Tensor;
use ctk_core::data::dataset::Dataset;
use ctk_core::data::source::Paired;
use ctk_core::observer::{Event, Observer};
use ctk_core::recipe::Recipe;
use ctk_core::rng::Key;
use ctk_core::train::bench::{self, Classifier, Figure, Laps, Memory, Report, Request};
use ctk_core::{Error, Result};
use ctk_images::dataset::Images;
use ctk_images::picture::Picture;
use ctk_images::pixels::CHANNELS;
use ctk_images::recipe::DataRecipe;
use rand::{Rng as _, RngCore};
use rayon::prelude::*;
use serde_json::json;

use crate::encoder::{self, EncoderRecipe};
use crate::fits;
use crate::network;
use crate::pairs::TwoViews;
use crate::recipe::{self, Checked, VisionRecipe};

/// The recipe that is timed by default: the network and batch by which SimCLR on small images is usually compared, and CIFAR's number of
/// images.
pub(crate) const YARDSTICK: &str = "[data]\ntrain = 50000\n\n[pairs]\nsize = 32\n\n[encoder.resnet]\ndepth = 18\nwidth = 1.0\n\
    stem = \"small\"\n\n[train]\nbatch = 128\n";

/// The default number of timed steps.
const STEPS: usize = 5;

/// Images in an epoch if the recipe's data is not available.
const ASSUMED: usize = 50_000;

pub(crate) fn run(recipe: &Recipe, request: &Request, observer: &mut dyn Observer) -> Result<Report> {
    let text = changed(recipe, request)?;
    let checked = recipe::check(&text)?;
    let plan = checked.plan(&text)?;
    let Checked { recipe, augment } = checked;
    let train = &recipe.train;
    let encoder = recipe.encoder.architecture();
    let device = &request.device;
    fits::check(&recipe, train.batch, device)?;
    let (pictures, samples, data) = pictures(&recipe.data, train.batch, augment.size, train.seed)?;

    observer.event(&Event::Note("timing the encoder's step"));
    let before = Memory::now();
    let key = Key::new(train.seed);
    let mut classifier =
        Classifier::new(train.batch, key, train.precision, &device.by(train.rules()), |scope| encoder.build(scope))?;
    let products = encoder.products(classifier.params(), "encoder", augment.size);
    let x = noise(train.batch, augment.size, key)?;
    let steps = request.steps.unwrap_or(STEPS);
    let step = Laps::run(steps, |i| {
        classifier.step(&x, key.at(i as u64))?;
        device.wait()
    })?;
    let memory = before.grown();
    drop((classifier, x));

    observer.event(&Event::Note("timing the recipe's step"));
    let mut learner = network::learner(&recipe, device)?;
    let batch = train.batch.min(pictures.len());
    let source = Paired { data: pictures, pairs: TwoViews(augment.clone()) };
    let stages = bench::learner(&mut learner, &source, &plan, steps, device)?;
    let learner_memory = before.grown();
    drop(learner);

    // A step is three forward passes: itself, and the gradients of input and weights. A product is two operations.
    let gflops = 6.0 * (train.batch * products) as f64 / step.best() / 1e6;
    let speed = batch as f64 / stages.total * 1e3;
    let figure = |key, value: f64, label: &str, unit: &str| Figure::new(key, value).line(label, value, unit);
    let mut what = encoder.timed();
    what.extend([("size", json!(augment.size)), ("data", json!(data)), ("batch", json!(batch))]);
    let mut figures = vec![
        figure("step_ms.best", step.best(), "step, best", "ms"),
        figure("step_ms.median", step.median(), "step, median", "ms"),
        figure("gflops", gflops, "  speed", "GFLOP/s"),
    ];
    if let Some(peak_mb) = device.most_memory() {
        figures.push(figure("peak_device_mb", peak_mb as f64 / 1e6, "  the device's memory", "MB"));
    } else {
        figures.extend(bench::of_peak(gflops, observer)?);
    }
    figures.extend([
        figure("peak_rss_mb", memory, "  memory", "MB"),
        figure("simclr_step_ms.total", stages.total, "SimCLR step", "ms, views made beside it"),
        figure("simclr_step_ms.augment", stages.batch, "  augment", "ms, on one thread"),
        figure("simclr_step_ms.forward", stages.forward, "  forward", "ms"),
        figure("simclr_step_ms.loss", stages.loss, "  loss", "ms"),
        figure("simclr_step_ms.backward", stages.backward, "  backward", "ms"),
        figure("simclr_step_ms.optimizer", stages.optimizer, "  optimizer", "ms"),
        figure("simclr_peak_rss_mb", learner_memory, "  memory", "MB"),
        figure("images_per_second", speed, "images a second", ""),
        figure("epoch_seconds", samples as f64 / speed, "an epoch", &format!("s of {samples} images")),
        Figure::new("epoch_images", samples),
    ]);
    figures.extend(bench::of_calls(&stages.calls));
    Ok(Report {
        what,
        figures,
        device: device.to_string(),
        precision: train.precision,
        threads: bench::threads(),
        isa: ctk_core::device::isa(),
    })
}

/// The recipe with the changes of the command line.
fn changed(recipe: &Recipe, request: &Request) -> Result<Recipe> {
    let mut recipe = recipe.clone();
    for (name, value) in &request.changes {
        match *name {
            // A --width comes later.
            "encoder" => {
                let (family, keys) = encoder::named(value)?;
                if current(&recipe)?.architecture().family().name != family.name {
                    recipe.remove("encoder")?;
                }
                keys.iter().try_for_each(|(key, value)| recipe.set(&format!("encoder.{}.{key}", family.name), value))?;
            }
            "width" | "stem" => recipe.set(&current(&recipe)?.key(name), value)?,
            "size" => recipe.set("pairs.size", value)?,
            "batch" => recipe.set("train.batch", value)?,
            "seed" => recipe.set("train.seed", value)?,
            "precision" => recipe.set("train.precision", value)?,
            other => return Err(Error::usage(format!("vision knows no --{other} to time"))),
        }
    }
    Ok(recipe)
}

/// The recipe's encoder, even if other parts of the recipe have mistakes.
fn current(recipe: &Recipe) -> Result<EncoderRecipe> {
    Ok(recipe.parse::<VisionRecipe>()?.encoder)
}

/// Images to make views of, their number in an epoch, and a description of both.
fn pictures(of: &DataRecipe, batch: usize, size: usize, seed: u64) -> Result<(Pictures, usize, String)> {
    let there = of.path.as_ref().filter(|paths| paths.list().iter().all(|path| path.exists()));
    let Some(paths) = there else {
        let samples = if of.path.is_some() { ASSUMED } else { of.train };
        let word = if of.path.is_some() { "random, because the recipe's data is not here" } else { "random" };
        return Ok((Pictures::Random(random(batch, size, seed)), samples, word.to_string()));
    };
    let all = of.open()?.pretraining();
    // Some batches are enough, spread over the data.
    let count = all.len().min(4 * batch);
    let some = all.select(&(0..count).map(|i| i * all.len() / count).collect::<Vec<_>>());
    let decoded: Vec<Result<()>> =
        (0..count).into_par_iter().map(|i| some.get(i).map(drop).map_err(|e| e.at(some.name(i)))).collect();
    decoded.into_iter().collect::<Result<()>>()?;
    Ok((Pictures::Stored(some), all.len(), paths.place().display().to_string()))
}

/// Images to make views of: random noise, or those of a recipe.
enum Pictures {
    Random(Vec<Arc<Picture>>),
    Stored(Images),
}

impl Dataset for Pictures {
    type Sample = Arc<Picture>;

    fn len(&self) -> usize {
        match self {
            Pictures::Random(pictures) => pictures.len(),
            Pictures::Stored(images) => images.len(),
        }
    }

    fn get(&self, index: usize) -> Result<Arc<Picture>> {
        match self {
            Pictures::Random(pictures) => Ok(pictures[index].clone()),
            Pictures::Stored(images) => images.get(index),
        }
    }

    fn name(&self, index: usize) -> String {
        match self {
            Pictures::Random(_) => format!("random/{index}"),
            Pictures::Stored(images) => images.name(index),
        }
    }
}

fn random(count: usize, size: usize, seed: u64) -> Vec<Arc<Picture>> {
    let key = Key::new(seed).of("bench pictures");
    let picture = |i: usize| {
        let mut pixels = vec![0; size * size * CHANNELS];
        key.at(i as u64).rng().fill_bytes(&mut pixels);
        Arc::new(Picture { height: size, width: size, pixels })
    };
    (0..count).into_par_iter().map(picture).collect()
}

/// A random network input.
fn noise(rows: usize, size: usize, key: Key) -> Result<Tensor> {
    let mut rng = key.of("bench input").rng();
    let values: Vec<f32> = (0..rows * size * size * CHANNELS).map(|_| rng.random_range(-1.0..1.0)).collect();
    Ok(Tensor::from_vec(values, (rows, size, size, CHANNELS), &candle_core::Device::Cpu)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ctk_core::nn::params::Params;

    #[test]
    fn products_are_those_that_others_count() {
        // torchvision's documentation gives 1.81, 4.09 and 7.8 billion products at 224 px, including the classifier's .5 or 2 million; He
        // et al. 2016 give 69 million for ResNet-32 on CIFAR, without projections.
        let large = [(18, "imagenet", 224, 1814), (50, "imagenet", 224, 4087), (101, "imagenet", 224, 7799)];
        for (depth, stem, size, millions) in large.into_iter().chain([(18, "small", 32, 555), (32, "small", 32, 69)]) {
            let text = format!("[encoder.resnet]\ndepth = {depth}\nstem = \"{stem}\"\n");
            let of = recipe::check(&Recipe::new("test", text)).unwrap().recipe.encoder;
            let mut params = Params::new();
            of.build(params.root().sub("encoder")).unwrap();
            let products = of.architecture().products(&params, "encoder", size) / 1_000_000;
            assert!(products.abs_diff(millions) <= 2, "ResNet-{depth}: {products}");
        }
    }

    #[test]
    fn the_yardstick_is_a_recipe_and_flags_change_it() {
        let changes = vec![("encoder", "resnet20".to_string()), ("size", "24".to_string()), ("seed", "3".to_string())];
        let request = Request { changes, steps: Some(1), device: ctk_core::Device::Cpu };
        let text = changed(&Recipe::new("test", YARDSTICK), &request).unwrap();
        let recipe = recipe::check(&text).unwrap().recipe;
        let EncoderRecipe::Resnet(of) = &recipe.encoder else { panic!("{:?}", recipe.encoder) };
        assert_eq!((of.depth, recipe.pairs.size, recipe.train.seed, recipe.train.batch), (20, 24, 3, 128));

        let width = |changes: &[(&'static str, &str)]| {
            let changes = changes.iter().map(|&(name, value)| (name, value.to_string())).collect();
            let narrow = Recipe::new("test", "[encoder.resnet]\nwidth = 0.25\n");
            let text = changed(&narrow, &Request { changes, steps: Some(1), device: ctk_core::Device::Cpu }).unwrap();
            let EncoderRecipe::Resnet(of) = recipe::check(&text).unwrap().recipe.encoder else { panic!("{text:?}") };
            of.width
        };
        assert_eq!(
            [width(&[]), width(&[("encoder", "resnet34")]), width(&[("encoder", "resnet34"), ("width", "2")])],
            [0.25, 1.0, 2.0]
        );
    }

    #[test]
    fn a_step_runs_on_a_cuda_device_with_the_memory_that_is_forecast() {
        let resnet = "[encoder.resnet]\nwidth = 0.25\nstem = \"small\"\n";
        let vit = "[encoder.vit]\nsize = 12\nwidth = 48\nlayers = 3\n";
        let trains = ["", "recompute = true\n", "precision = \"bf16\"\n"];
        for (encoder, train) in [resnet, vit].into_iter().flat_map(|encoder| trains.map(|train| (encoder, train))) {
            let text = format!("[data]\ntrain = 16\ntest = 4\n[pairs]\nsize = 12\n{encoder}[train]\nbatch = 16\n{train}");
            let recipe = Recipe::new("test", text);
            let checked = recipe::check(&recipe).unwrap().recipe;
            let params = network::learner(&checked, &ctk_core::Device::Cpu).unwrap().params;
            let forecast = crate::forecast::step(&checked, &params, 16);
            let device = |bytes: u64| ctk_core::Device::open(&format!("emulated:{bytes}")).unwrap().0;
            let request = |device| Request { changes: Vec::new(), steps: Some(1), device };
            let timed = |bytes| run(&recipe, &request(device(bytes)), &mut ctk_core::observer::Silent);
            assert!(timed(forecast).is_ok(), "{encoder}{train}: {forecast} bytes");
            let error = timed(forecast / 4).unwrap_err().to_string();
            assert!(error.contains("memory of an emulated CUDA device"), "{encoder}{train}: {error}");
        }
    }
}
