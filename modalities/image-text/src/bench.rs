//! `ctk bench image-text`: the cost of a recipe's step on this machine.
//!
//! Images are the recipe's, decoded before the steps are timed (as they are from the second epoch on, if they fit into the cache); captions
//! are tokenised before training. The step's figures are those of whole pairs: both towers, the loss, and the optimizer.

use ctk_core::data::source::Source;
use ctk_core::observer::{Event, Observer};
use ctk_core::recipe::Recipe;
use ctk_core::rng::Key;
use ctk_core::train::bench::{self, Figure, Memory, Report, Request};
use ctk_core::{Error, Result};
use ctk_vision::tower;
use serde_json::json;

use crate::data::Data;
use crate::forecast;
use crate::network::{IMAGE, TEXT, TextSide};
use crate::ready::Ready;
use crate::recipe::{self, Checked};

/// The recipe that is timed by default: a ResNet-18 at 64 pixels and a transformer of four layers, on generated pairs.
pub(crate) const YARDSTICK: &str = "[data]\ntrain = 2048\ntest = 0\n\n[pairs]\nsize = 64\n\n[image.encoder.resnet]\ndepth = 18\nwidth = 1.0\n\
    stem = \"imagenet\"\n\n[text.tokenizer.train]\nsize = 300\n\n[text.encoder.transformer]\nlayers = 4\nwidth = 256\n\n[captions]\n\
    prompts = [\"a picture of a {class} on a plain ground\"]\n\n[train]\nbatch = 128\n";

/// The default number of timed steps.
const STEPS: usize = 5;

pub(crate) fn run(recipe: &Recipe, request: &Request, observer: &mut dyn Observer) -> Result<Report> {
    let checked = Checked::new(&changed(recipe, request)?)?;
    let plan = checked.plan()?;
    let (recipe, device) = (&checked.recipe, &request.device);
    observer.event(&Event::Note("reading the images and captions"));
    let mut data = Data::of_model(&recipe.data, &recipe.captions, None)?;
    let samples = data.train.len();
    // Some batches are enough, spread over the data.
    let count = samples.min(4 * recipe.train.batch);
    data.train = data.train.select(&(0..count).map(|at| at * samples / count).collect::<Vec<_>>());
    data.notes.iter().for_each(|note| observer.event(&Event::Note(note)));
    let mut ready = Ready::new(&checked, &data, None)?;
    ready.notes.iter().for_each(|note| observer.event(&Event::Note(note)));
    let need = forecast::check(&checked, &ready.sides, data.train.len(), ready.tokens(), device)?;
    let before = Memory::now();
    let mut learner = ready.learner(&checked, device)?;
    ready.read_once(&checked, samples, &learner.towers.right.encoder)?.iter().for_each(|note| observer.event(&Event::Note(note)));
    let source = ready.source(&checked, &data);
    // Decodes the images.
    source.draw(&(0..count as u32).collect::<Vec<_>>(), Key::new(recipe.train.seed))?;
    observer.event(&Event::Note("timing the recipe's step"));
    let stages = bench::learner(&mut learner, &source, &plan, request.steps.unwrap_or(STEPS), device)?;
    let memory = before.grown();

    let batch = recipe.train.batch.min(count);
    let speed = batch as f64 / stages.total * 1e3;
    let figure = |key, value: f64, label: &str, unit: &str| Figure::new(key, value).line(label, value, unit);
    let mut figures = vec![
        figure("step_ms.total", stages.total, "step", "ms, batches made beside it"),
        figure("step_ms.batch", stages.batch, "  batch", "ms, on one thread"),
        figure("step_ms.forward", stages.forward, "  forward", "ms"),
        figure("step_ms.loss", stages.loss, "  loss", "ms"),
        figure("step_ms.backward", stages.backward, "  backward", "ms"),
        figure("step_ms.optimizer", stages.optimizer, "  optimizer", "ms"),
        figure("peak_rss_mb", memory, "memory", "MB"),
        Figure::new("forecast_mb", need as f64 / 1e6).line("  forecast", need as f64 / 1e6, "MB"),
    ];
    if let Some(peak) = device.most_memory() {
        figures.push(figure("peak_device_mb", peak as f64 / 1e6, "  the device's memory", "MB"));
    }
    figures.extend([
        figure("pairs_per_second", speed, "pairs a second", ""),
        figure("epoch_seconds", samples as f64 / speed, "an epoch", &format!("s of {samples} images")),
        Figure::new("epoch_images", samples),
    ]);
    figures.extend(bench::of_calls(&stages.calls));
    let parameters = |section: &str| learner.params.count(&format!("{section}."));
    let what = vec![
        (
            "image",
            json!(
                ready.sides.stored_image.map_or_else(|| tower::title(&recipe.image.encoder), |_| "stored features".to_string())
            ),
        ),
        ("image_parameters", json!(parameters(IMAGE))),
        (
            "text",
            json!(match &ready.sides.text {
                TextSide::Network(network) => network.said(),
                TextSide::Stored(_) => "stored features".to_string(),
            }),
        ),
        ("text_parameters", json!(parameters(TEXT))),
        ("loss", json!(recipe.loss.name())),
        ("size", json!(checked.augment.size)),
        ("tokens_per_caption", json!((ready.tokens() * 10.0).round() / 10.0)),
        (
            "data",
            json!(recipe.data.path.as_ref().map_or_else(|| "generated".to_string(), |paths| paths.place().display().to_string())),
        ),
        ("batch", json!(batch)),
    ];
    Ok(Report {
        what,
        figures,
        device: device.to_string(),
        precision: recipe.train.precision,
        threads: bench::threads(),
        isa: ctk_core::device::isa(),
    })
}

/// The recipe with the changes of the command line.
fn changed(recipe: &Recipe, request: &Request) -> Result<Recipe> {
    let mut changed = recipe.clone();
    for (name, value) in &request.changes {
        let key = match *name {
            "size" => "pairs.size",
            "batch" => "train.batch",
            "seed" => "train.seed",
            "precision" => "train.precision",
            other => {
                return Err(Error::usage(format!("image-text knows no --{other} to time"))
                    .hint("--set changes any key of a recipe, as in --set image.encoder.resnet.width=0.5"));
            }
        };
        changed.set(key, value)?;
    }
    recipe::complete(&mut changed)?;
    Ok(changed)
}
