//! Results of evaluations, kept in the run's `evals.jsonl`: one line for each, with the blake3 digest of the line.

use ctk_core::error::Result;
use ctk_core::opened;
use ctk_core::store::checkpoint::Checkpoint;
use ctk_core::store::files;
use ctk_core::store::run::Run;
use serde_json::{Value, json};

use super::args::ModelArgs;
use super::output;

/// The file's name in a run's folder.
const FILE: &str = "evals.jsonl";

/// Prints `figures`, the result of `ctk eval NAME` on `model`, and stores them in the run, if `model` is a run.
pub fn figures(model: &ModelArgs, name: &str, figures: &Value) -> Result<()> {
    keep(model, name, figures)?;
    output::figures(model.show.json, figures)
}

/// Stores the result of `ctk eval NAME` as `{"eval", "step", "data", "figures", "sum"}`, with `"compute"` if features were not computed in
/// f32. Data is null for the run's own data. A folder that cannot be written, and damaged lines, give a warning and no error.
pub fn keep(model: &ModelArgs, name: &str, figures: &Value) -> Result<()> {
    if !Run::has_begun(&model.run) {
        return Ok(());
    }
    let step = Checkpoint::open(&model.run)?.manifest().step;
    let data = model.data.as_ref().map(|path| std::path::absolute(path).unwrap_or_else(|_| path.clone()));
    let mut line = json!({ "eval": name, "step": step, "data": data, "figures": figures });
    if let Some(precision) = model.compute.stated() {
        line["compute"] = precision.into();
    }
    let path = model.run.join(FILE);
    if opened::odd(&path).is_some() {
        output::say(format!("note: {} is not a file, so the figures are not kept there", path.display()));
        return Ok(());
    }
    for number in damaged(&std::fs::read(&path).unwrap_or_default()) {
        output::say(format!("warning: line {number} of {} is damaged: it does not match its digest", path.display()));
    }
    if let Err(e) = files::append(&path, &sealed(&line))
        && !model.show.quiet
    {
        output::say(format!("note: {} cannot be written ({e}), so the figures are not kept there", path.display()));
    }
    Ok(())
}

/// Separates the line's content from its digest.
const SUM: &str = ",\"sum\":\"";

/// The line with its digest as its last key.
fn sealed(line: &Value) -> String {
    let text = line.to_string();
    format!("{}{SUM}{}\"}}", text.strip_suffix('}').unwrap_or(&text), files::digest(text.as_bytes()))
}

/// Whether a line is undamaged. A line by an earlier version has no digest; of such a line only the keys are checked.
fn whole(line: &[u8]) -> bool {
    let Ok(line) = std::str::from_utf8(line) else { return false };
    match line.rsplit_once(SUM) {
        Some((said, sum)) => sum.strip_suffix("\"}").is_some_and(|sum| sum == files::digest(format!("{said}}}").as_bytes())),
        None => serde_json::from_str::<serde_json::Map<String, Value>>(line)
            .is_ok_and(|line| line.keys().all(|key| ["eval", "step", "data", "figures"].contains(&key.as_str()))),
    }
}

/// The numbers of the damaged lines.
fn damaged(text: &[u8]) -> Vec<usize> {
    let lines = text.split(|byte| *byte == b'\n').enumerate().filter(|(_, line)| !line.is_empty());
    lines.filter(|(_, line)| !whole(line)).map(|(at, _)| at + 1).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_was_changed_is_found() {
        let line = json!({ "eval": "knn", "step": 3, "data": null, "figures": { "top1": 0.123_456_789_012_345_68, "n": {} } });
        let line = sealed(&line);
        assert!(serde_json::from_str::<Value>(&line).is_ok_and(|line| line["sum"].is_string()), "{line}");
        let old = r#"{"eval":"knn","figures":{"top1":0.5}}"#;
        let text = format!("{old}\n{line}\n");
        assert!(damaged(text.as_bytes()).is_empty());
        for (was, is) in [("0.123", "0.223"), ("\"step\":3", "\"step\":4"), ("{\"eval\":\"knn\",\"step\"", "{")] {
            assert_eq!(damaged(text.replace(was, is).as_bytes()), [2], "{was}");
        }
    }
}
