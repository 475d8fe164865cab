//! `ctk bench`: what a recipe's step costs on this machine.

use ctk_core::bench::{Report, Request};
use ctk_core::error::Result;
use ctk_core::recipe::Recipe;
use serde_json::{Value, json};

use crate::args::Bench;
use crate::{Modalities, modality, output, progress, train};

pub fn run(args: Bench, modalities: Modalities) -> Result<()> {
    let modality = modality(modalities, &args.modality)?;
    let recipe = match (&args.recipe.config, &args.recipe.data) {
        (None, None) => train::changed(Recipe::new("the yardstick", modality.yardstick()?), &args.recipe, modality)?,
        _ => train::recipe(&args.recipe, modality)?,
    };
    let report = modality.bench(&recipe, &request(&args), &mut *progress::watch(args.show.quiet))?;
    if args.show.json {
        return output::line(figures(&report));
    }
    output::bytes(table(&report).as_bytes())
}

fn request(args: &Bench) -> Request {
    let given = [
        ("encoder", args.encoder.clone()),
        ("width", args.width.map(|v| v.to_string())),
        ("stem", args.stem.clone()),
        ("size", args.size.map(|v| v.to_string())),
        ("batch", args.batch.map(|v| v.to_string())),
        ("seed", args.seed.map(|v| v.to_string())),
        ("precision", args.precision.clone()),
    ];
    let changes = given.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
    Request { changes, steps: args.steps.into() }
}

/// Every figure under its JSON name.
fn figures(report: &Report) -> Value {
    let short = |v: f64| (v * 1e3).round() / 1e3;
    let s = &report.learner;
    let mut figures = json!({
        "step_ms": { "best": short(report.step.best()), "median": short(report.step.median()) },
        "simclr_step_ms": {
            "augment": short(s.batch), "forward": short(s.forward), "backward": short(s.backward), "loss": short(s.loss),
            "optimizer": short(s.optimizer), "total": short(s.total),
        },
        "images_per_second": short(speed(report)), "gflops": short(report.gflops), "gemm_peak_gflops": short(report.peak_gflops),
        "peak_share": short(report.gflops / report.peak_gflops), "peak_rss_mb": short(report.memory),
        "simclr_peak_rss_mb": short(report.learner_memory),
        "epoch_seconds": short(report.samples as f64 / speed(report)), "epoch_images": report.samples,
        "batch": report.batch, "threads": report.threads, "isa": report.isa, "precision": report.precision.to_string(),
    });
    report.what.iter().for_each(|(name, value)| figures[*name] = value.clone());
    figures
}

/// Samples a second of the whole step.
fn speed(report: &Report) -> f64 {
    report.batch as f64 / report.learner.total * 1e3
}

/// The same for people.
fn table(report: &Report) -> String {
    let s = &report.learner;
    let word = |value: &Value| value.as_str().map_or_else(|| value.to_string(), String::from);
    let what: Vec<String> = report.what.iter().map(|(name, value)| format!("{name} {}", word(value))).collect();
    let mut text = format!("{}, batch {}\n", what.join(", "), report.batch);
    text.push_str(&format!("{} threads, {}, {}\n\n", report.threads, report.isa, report.precision));
    let mut row = |name: &str, value: f64, unit: &str| text.push_str(&format!("{name:22} {value:10.1} {unit}\n"));
    row("step, best", report.step.best(), "ms");
    row("step, median", report.step.median(), "ms");
    row("  speed", report.gflops, "GFLOP/s");
    row("  of a matrix product", 100.0 * report.gflops / report.peak_gflops, &format!("% of {:.0} GFLOP/s", report.peak_gflops));
    row("  memory", report.memory, "MB");
    row("SimCLR step", s.total, "ms, views made beside it");
    row("  augment", s.batch, "ms, on one thread");
    row("  forward", s.forward, "ms");
    row("  loss", s.loss, "ms");
    row("  backward", s.backward, "ms");
    row("  optimizer", s.optimizer, "ms");
    row("  memory", report.learner_memory, "MB");
    row("images a second", speed(report), "");
    row("an epoch", report.samples as f64 / speed(report), &format!("s of {} images", report.samples));
    text
}
