//! `ctk bench sentences`: the cost of a recipe's step on this machine.
//!
//! The texts are the recipe's, and are tokenised before the steps are timed, as they are before training; that is timed apart. Texts that are
//! cut anew each time are tokenised with the batch, as in training.

use std::time::{Duration, Instant};

use ctk_core::data::dataset::Dataset;
use ctk_core::data::source::Source;
use ctk_core::nn::params::Params;
use ctk_core::nn::pass::Precision;
use ctk_core::observer::{Event, Observer};
use ctk_core::recipe::Recipe;
use ctk_core::rng::Key;
use ctk_core::train::bench::{self, Figure, Memory, Report, Request};
use ctk_core::{Error, Result};
use ctk_texts::pairs::Sentences;
use serde_json::json;

use super::data::{TokenPairs, fits};
use super::encoder::encode;
use super::forecast::{self, Load};
use super::network::Network;
use super::recipe::SentencesRecipe;
use super::start::Start;
use super::tokenizing::Tokenizing;
use crate::tokens::{TokenEncoder, Tokens};

/// The recipe that is timed by default: a transformer of MiniLM's size on generated pairs.
pub(super) const YARDSTICK: &str = "[data]\npairs = 2000\n\n[tokenizer.train]\nsize = 1000\n\n[encoder.transformer]\nlayers = 6\n\
    width = 384\nheads = 12\n\n[loss.ranking]\nscale = 20.0\n\n[train]\nbatch = 64\n";

/// The default number of timed steps.
const STEPS: usize = 5;

/// The largest number of samples whose texts are embedded to time the encoder alone.
const SAMPLES: usize = 8192;
/// Texts that are embedded between two looks at the clock.
const AT_ONCE: usize = 512;
/// The time after which the speed of embedding is known.
const ENOUGH: Duration = Duration::from_millis(500);

pub(super) fn run(recipe: &Recipe, request: &Request, observer: &mut dyn Observer) -> Result<Report> {
    let text = changed(recipe, request)?;
    let (recipe, plan) = SentencesRecipe::check(&text)?;
    let train = &recipe.train;
    let device = &request.device;
    observer.event(&Event::Note("reading the texts"));
    let Sentences { train: pairs, notes, .. } = recipe.data.open()?;
    notes.iter().for_each(|note| observer.event(&Event::Note(note)));
    fits(&recipe.loss, pairs.kind())?;
    let start = Start::new(&recipe, &text, || pairs.all_texts().collect())?;
    start.notes.iter().for_each(|note| observer.event(&Event::Note(note)));
    let network = &start.described.network;

    observer.event(&Event::Note("timing the tokenizer"));
    let tokenizing = Tokenizing::new(start.tokenizer.clone(), start.described.rules.clone(), network.vocabulary())?;
    let began = Instant::now();
    let source = TokenPairs::new(&pairs, &tokenizing, recipe.pairs.cut)?;
    let tokenised = source.tokenised().map(|of| (of, began.elapsed().as_secs_f64()));

    let load = Load::of(&source)?;
    forecast::check(&recipe, network, &load, device)?;
    let need = forecast::step(&recipe, network, &load, device.is_cpu())?;
    let before = Memory::now();
    let begin = |params: &Params| start.tensors.as_ref().map_or(Ok(()), |tensors| params.load_section("encoder", tensors));
    let mut learner = recipe.method().learner(|scope| network.encoder(scope), begin, device)?;
    observer.event(&Event::Note("timing the recipe's step"));
    let stages = bench::learner(&mut learner, &source, &plan, request.steps.unwrap_or(STEPS), device)?;
    let memory = before.grown();
    let parameters = learner.params.count("encoder.");
    observer.event(&Event::Note("timing the encoder alone"));
    let embedded = embedding(&learner.towers.tower.encoder, &source, learner.precision)?;
    drop(learner);

    let batch = train.batch.min(pairs.per_epoch());
    let speed = batch as f64 / stages.total * 1e3;
    // Those of one batch, for the operations depend on the square of a text's length.
    let order: Vec<u32> = (0..batch).map(|at| (at * pairs.len() / batch) as u32).collect();
    let lengths: Vec<usize> = source.draw(&order, Key::new(train.seed))?.left.iter().flat_map(Tokens::lengths).collect();
    let tokens = lengths.iter().sum::<usize>();
    let figure = |key, value: f64, label: &str, unit: &str| Figure::new(key, value).line(label, value, unit);
    let drawn = if tokenised.is_some() { "ms, on one thread, of tokens" } else { "ms, on one thread, texts cut and tokenised" };
    let mut figures = vec![
        figure("step_ms.total", stages.total, "step", "ms, batches made beside it"),
        figure("step_ms.batch", stages.batch, "  batch", drawn),
        figure("step_ms.forward", stages.forward, "  forward", "ms"),
        figure("step_ms.loss", stages.loss, "  loss", "ms"),
        figure("step_ms.backward", stages.backward, "  backward", "ms"),
        figure("step_ms.optimizer", stages.optimizer, "  optimizer", "ms"),
    ];
    if let Network::Transformer { shape, .. } = network {
        // A step is three forward passes: itself, and the gradients of input and weights. A product is two operations.
        let products: f64 = lengths.iter().map(|length| shape.products(*length) as f64).sum();
        let gflops = 6.0 * products / stages.total / 1e6;
        figures.push(figure("gflops", gflops, "  speed", "GFLOP/s of the transformer's products"));
        if device.is_cpu() {
            figures.extend(bench::of_peak(gflops, observer)?);
        }
    }
    figures.extend([
        figure("peak_rss_mb", memory, "memory", "MB, the texts apart"),
        Figure::new("forecast_mb", need as f64 / 1e6).line("  forecast", need as f64 / 1e6, "MB"),
    ]);
    if let Some(peak) = device.most_memory() {
        figures.push(figure("peak_device_mb", peak as f64 / 1e6, "  the device's memory", "MB"));
    }
    figures.extend([
        figure("samples_per_second", speed, "samples a second", ""),
        figure("texts_per_second", speed * lengths.len() as f64 / batch as f64, "  texts", ""),
        figure("tokens_per_second", speed * tokens as f64 / batch as f64, "  tokens", ""),
    ]);
    figures.push(figure("embedding.texts_per_second", embedded, "embedding", "texts a second, of tokens"));
    if let Some(((texts, tokens), seconds)) = tokenised {
        let (texts, tokens) = (texts as f64 / seconds.max(1e-9), tokens as f64 / seconds.max(1e-9));
        figures.extend([
            figure("tokenizing.texts_per_second", texts, "tokenising", "texts a second, once before training"),
            figure("tokenizing.tokens_per_second", tokens, "  tokens", "tokens a second"),
            Figure::new("tokenizing.seconds", seconds),
        ]);
    }
    let samples = pairs.per_epoch();
    figures.extend([
        figure("epoch_seconds", samples as f64 / speed, "an epoch", &format!("s of {samples} samples")),
        Figure::new("epoch_samples", samples),
    ]);
    figures.extend(bench::of_calls(&stages.calls));
    Ok(Report {
        what: what(&recipe, network, batch, parameters, tokens as f64 / lengths.len().max(1) as f64),
        figures,
        device: device.to_string(),
        precision: train.precision,
        threads: bench::threads(),
        isa: ctk_core::device::isa(),
    })
}

/// Texts a second that become features, of tokens.
fn embedding(network: &TokenEncoder, source: &TokenPairs, precision: Precision) -> Result<f64> {
    let count = source.len().min(SAMPLES);
    let samples: Vec<u32> = (0..count).map(|at| (at * source.len() / count) as u32).collect();
    let batch = source.draw(&samples, Key::new(0))?;
    let texts: Vec<&[u32]> = batch.left.iter().flat_map(Tokens::texts).collect();
    let (mut rows, mut done) = (Vec::new(), 0);
    let mut run = |texts: &[&[u32]]| {
        rows.clear();
        encode(network, precision, texts, &mut rows).map(|()| texts.len())
    };
    run(&texts[..AT_ONCE.min(texts.len())])?;
    let began = Instant::now();
    for texts in texts.chunks(AT_ONCE).cycle() {
        done += run(texts)?;
        if began.elapsed() >= ENOUGH {
            break;
        }
    }
    Ok(done as f64 / began.elapsed().as_secs_f64())
}

fn what(
    recipe: &SentencesRecipe,
    network: &Network,
    batch: usize,
    parameters: usize,
    length: f64,
) -> Vec<(&'static str, serde_json::Value)> {
    let data = match recipe.data.generated() {
        true => "generated".to_string(),
        false => recipe.data.named(),
    };
    let (encoder, layers) = match network {
        Network::Transformer { shape, .. } => ("transformer", shape.layers),
        Network::Table(_) => ("static", 1),
    };
    vec![
        ("encoder", json!(encoder)),
        ("layers", json!(layers)),
        ("width", json!(network.width())),
        ("parameters", json!(parameters)),
        ("loss", json!(recipe.loss.name())),
        ("data", json!(data)),
        ("batch", json!(batch)),
        ("tokens_per_text", json!((length * 10.0).round() / 10.0)),
    ]
}

/// The recipe with the changes of the command line.
fn changed(recipe: &Recipe, request: &Request) -> Result<Recipe> {
    let mut recipe = recipe.clone();
    super::recipe::complete(&mut recipe)?;
    for (name, value) in &request.changes {
        match *name {
            "batch" => recipe.set("train.batch", value)?,
            "seed" => recipe.set("train.seed", value)?,
            "precision" => recipe.set("train.precision", value)?,
            other => {
                return Err(Error::usage(format!("sentences knows no --{other} to time"))
                    .hint("--set changes any key of a recipe, as in --set encoder.transformer.width=256"));
            }
        }
    }
    Ok(recipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(device: ctk_core::Device) -> Request {
        Request { changes: vec![("batch", "16".to_string())], steps: Some(1), device }
    }

    #[test]
    fn the_yardstick_is_a_recipe_and_flags_change_it() {
        let text = changed(&Recipe::new("test", YARDSTICK), &request(ctk_core::Device::Cpu)).unwrap();
        let recipe = SentencesRecipe::check(&text).unwrap().0;
        assert_eq!((recipe.train.batch, recipe.encoder.name(), recipe.head.layers), (16, "transformer", 0));
        let odd = Request { changes: vec![("width", "2".to_string())], ..request(ctk_core::Device::Cpu) };
        let error = changed(&Recipe::new("test", YARDSTICK), &odd).unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains("--width"), "{error}");
    }

    #[test]
    fn products_are_those_that_are_computed_by_hand() {
        // Four products of 3 × 8 × 8 and two of 3 × 8 × 12 for the layers, two of 3 × 3 × 8 for attention, twice.
        let recipe = "[encoder.transformer]\nlayers = 2\nwidth = 8\nheads = 2\ninner = 12\n";
        let recipe = SentencesRecipe::check(&Recipe::new("test", recipe)).unwrap().0;
        let super::super::recipe::EncoderRecipe::Transformer(of) = &recipe.encoder else { panic!("a transformer") };
        assert_eq!(of.shape(100).products(3), 2 * (4 * 3 * 64 + 2 * 3 * 96 + 2 * 9 * 8));
    }

    /// What a step by `text` needs of a device.
    fn forecast(text: &Recipe) -> u64 {
        let mut text = text.clone();
        super::super::recipe::complete(&mut text).unwrap();
        let (recipe, _) = SentencesRecipe::check(&text).unwrap();
        let pairs = recipe.data.open().unwrap().train;
        let start = Start::new(&recipe, &text, || pairs.all_texts().collect()).unwrap();
        let network = &start.described.network;
        let tokenizing = Tokenizing::new(start.tokenizer.clone(), start.described.rules.clone(), network.vocabulary()).unwrap();
        let source = TokenPairs::new(&pairs, &tokenizing, recipe.pairs.cut).unwrap();
        forecast::step(&recipe, network, &Load::of(&source).unwrap(), false).unwrap()
    }

    #[test]
    fn a_step_runs_on_a_cuda_device_with_the_memory_that_is_forecast() {
        let base = "[data]\npairs = 40\n[tokenizer.train]\nsize = 320\n[train]\nbatch = 8\n";
        let transformer = "[encoder.transformer]\nlayers = 2\nwidth = 32\nheads = 4\n";
        for more in ["", "recompute = true\n"] {
            let recipe = Recipe::new("test", format!("{base}{more}{transformer}"));
            let request = |device| Request { changes: Vec::new(), ..request(device) };
            let timed = |bytes: u64| {
                let device = ctk_core::Device::open(&format!("emulated:{bytes}")).unwrap().0;
                run(&recipe, &request(device), &mut ctk_core::observer::Silent)
            };
            let forecast = forecast(&recipe);
            let there = timed(forecast).unwrap_or_else(|e| panic!("{more}: {forecast} bytes: {e}"));
            let value = |key: &str| there.figures.iter().find(|f| f.key == key).unwrap().value.as_f64().unwrap();
            assert!(value("gflops") > 0.0 && value("tokens_per_second") > value("texts_per_second"));
            // It is not much more than is used.
            assert!(
                value("peak_device_mb") * 1e6 > 0.4 * forecast as f64,
                "{more}: {} MB of {forecast}",
                value("peak_device_mb")
            );
            let error = timed(forecast / 4).err().map(|e| e.to_string()).unwrap_or_default();
            assert!(error.contains("memory of an emulated CUDA device"), "{more}: {error}");
        }
    }
}
