//! What evaluations found of a run, kept in the run: a line of `evals.jsonl` each.

use ctk_core::error::Result;
use ctk_core::store::checkpoint::Checkpoint;
use ctk_core::store::files;
use ctk_core::store::run::Run;
use serde_json::{Value, json};

use super::args::ModelArgs;
use super::output;

/// The file's name in a run's folder.
const FILE: &str = "evals.jsonl";

/// Prints `figures`, what `ctk eval NAME` found of `model`, and keeps them with the run, if `model` is one.
pub fn figures(model: &ModelArgs, name: &str, figures: &Value) -> Result<()> {
    keep(model, name, figures)?;
    output::figures(model.show.json, figures)
}

/// Keeps what `ctk eval NAME` found: `{"eval", "step", "data", "figures"}`, data null where it is the run's own. A folder that cannot
/// be written to is told, and is no error.
pub fn keep(model: &ModelArgs, name: &str, figures: &Value) -> Result<()> {
    if !Run::has_begun(&model.run) {
        return Ok(());
    }
    let step = Checkpoint::open(&model.run)?.manifest().step;
    let data = model.data.as_ref().map(|path| std::path::absolute(path).unwrap_or_else(|_| path.clone()));
    let line = json!({ "eval": name, "step": step, "data": data, "figures": figures });
    if let Err(e) = files::append(&model.run.join(FILE), &line.to_string())
        && !model.show.quiet
    {
        output::say(format!(
            "note: {} cannot be written to ({e}): the figures are not kept there",
            model.run.join(FILE).display()
        ));
    }
    Ok(())
}
