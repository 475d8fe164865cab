//! `ctk bench`: what a recipe's step costs on this machine.

use ctk_core::error::Result;
use ctk_core::modality::Modality;
use ctk_core::recipe::Recipe;
use ctk_core::train::bench::{Report, Request};
use serde_json::{Value, json};

use crate::shared::args::Bench;
use crate::shared::{device, output, progress, recipe};
use crate::{Modalities, modality};

pub fn run(args: Bench, modalities: Modalities) -> Result<()> {
    let modality = modality(modalities, &args.modality)?;
    let recipe = match (&args.recipe.config, args.recipe.data.is_empty()) {
        (None, true) => recipe::changed(Recipe::new("the yardstick", modality.yardstick()?), &args.recipe, modality)?,
        _ => recipe::recipe(&args.recipe, modality)?,
    };
    let report = modality.bench(&recipe, &request(&args, modality)?, &mut *progress::observer(args.show.quiet))?;
    if args.show.json {
        return output::line(figures(&report));
    }
    output::bytes(table(&report).as_bytes())
}

fn request(args: &Bench, modality: &dyn Modality) -> Result<Request> {
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
    let device = device::open(&args.device.device, modality, args.show.quiet)?;
    Ok(Request { changes, steps: args.steps.map(usize::from), device })
}

/// Every figure under its JSON name.
fn figures(report: &Report) -> Value {
    let mut figures = json!({ "threads": report.threads, "isa": report.isa, "device": report.device, "precision": report.precision.to_string() });
    report.what.iter().for_each(|(name, value)| figures[*name] = value.clone());
    for figure in &report.figures {
        let value = match &figure.value {
            Value::Number(n) if n.is_f64() => json!((n.as_f64().unwrap_or(f64::NAN) * 1e3).round() / 1e3),
            other => other.clone(),
        };
        // A name with a dot is a path into nested objects, which indexing creates where they are missing.
        figure.key.split('.').fold(&mut figures, |at, name| &mut at[name]).clone_from(&value);
    }
    figures
}

/// The same for people.
fn table(report: &Report) -> String {
    let word = |value: &Value| value.as_str().map_or_else(|| value.to_string(), String::from);
    let what: Vec<String> = report.what.iter().map(|(name, value)| format!("{name} {}", word(value))).collect();
    let mut text =
        format!("{}\n{} threads, {}, {}, {}\n\n", what.join(", "), report.threads, report.isa, report.device, report.precision);
    for line in report.figures.iter().filter_map(|figure| figure.line.as_ref()) {
        text.push_str(&format!("{:22} {:10.1} {}\n", line.label, line.value, line.unit));
    }
    text
}
