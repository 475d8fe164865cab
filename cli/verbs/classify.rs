//! `ctk eval classify`: evaluates a run's own classifier on samples that it was not trained on: overall, for each class, and by which
//! classes are confused.

mod plot;

use std::path::Path;

use ctk_core::error::{Error, Result};
use ctk_core::eval::{ClassFigures, Judgement, temperature};
use ctk_core::store::files;
use serde_json::{Map, Value, json};

use crate::Modalities;
use crate::shared::args::Classify;
use crate::shared::model::{open, query};
use crate::shared::{output, progress};

/// Classes up to which the whole confusion matrix is printed in the terminal.
const ROOM: usize = 20;

pub fn run(args: Classify, modalities: Modalities) -> Result<()> {
    let show = args.model.show;
    let note = |note: String| {
        if !show.quiet {
            output::note(&note);
        }
    };
    [&args.csv, &args.svg].into_iter().flatten().try_for_each(|out| args.over.allows(out))?;
    let model = open(&args.model, modalities)?;
    let classifier = model.classifier()?;
    let samples = classifier.samples();
    let asked = query(&args.model);
    let _progress = progress::of_samples(show.quiet);
    let found = classifier.judged(&asked)?;
    found.notes.iter().for_each(|said| note(said.clone()));
    let judged = Judgement::new(&found, 1.0)?;
    let unknown: Map<String, Value> = judged.unknown().map(|class| (class.name.clone(), json!(class.count))).collect();
    if !unknown.is_empty() {
        let names: Vec<String> =
            judged.unknown().map(|class| format!("{} ({})", output::shown(&class.name), class.count)).collect();
        note(format!("classes that the run does not know, whose {samples} count as wrong: {}", names.join(", ")));
    }
    if judged.unlabelled > 0 {
        note(format!("{} {samples} have no label and are not evaluated", judged.unlabelled));
    }
    let mut figures = json!({
        "accuracy": judged.accuracy(), "mean_class_accuracy": judged.mean_class_accuracy(), "ece": judged.ece,
        samples: judged.samples, "hits": judged.hits, "unlabelled": judged.unlabelled,
    });
    found.extras.iter().for_each(|(name, value)| figures[*name] = value.clone());
    if args.calibrate {
        let held_back = classifier.held_back(&asked)?;
        held_back.notes.iter().filter(|said| !found.notes.contains(said)).for_each(|said| note(said.clone()));
        let (fitted, count) = temperature(&held_back)?;
        figures["temperature"] = json!(fitted);
        figures["ece_calibrated"] = json!(Judgement::new(&found, fitted)?.ece);
        figures["calibrated_on"] = json!(count);
        let of = |name: &str| held_back.extras.iter().find(|(of, _)| *of == name).map(|(_, value)| value);
        figures["calibration_set"] = json!(of("calibration_set"));
        let what = of("part").and_then(|part| part.as_str()).unwrap_or("samples");
        note(format!("the temperature is fitted on {count} {what}"));
    }
    if let Some(path) = &args.csv {
        table(&judged, path)?;
    }
    if let Some(path) = &args.svg {
        files::write(path, plot::confusion(&judged).as_bytes())?;
    }
    if show.json {
        figures["unknown_classes"] = Value::Object(unknown);
        figures["classes"] = shown(&judged).map(|(_, class)| row(class, samples)).collect();
        let matrix = |(label, _)| (0..judged.known).map(|class| json!(judged.taken(label, class))).collect::<Value>();
        figures["confusion"] = shown(&judged).map(matrix).collect();
        return output::line(figures);
    }
    output::figures(false, &figures)?;
    output::line("")?;
    let rows: Vec<Value> = shown(&judged).map(|(_, class)| row(class, samples)).collect();
    output::rows(false, "classes", &rows)?;
    output::line("")?;
    print(&judged, samples)
}

/// The classes that the run can predict, and other classes that occur among the samples, with their numbers.
fn shown(judged: &Judgement) -> impl Iterator<Item = (usize, &ClassFigures)> {
    judged.classes.iter().enumerate().filter(|(number, class)| *number < judged.known || class.count > 0)
}

fn row(class: &ClassFigures, samples: &str) -> Value {
    json!({
        "class": class.name, samples: class.count, "predicted": class.predicted, "precision": class.precision(),
        "recall": class.recall(),
    })
}

/// Prints the confusion matrix, with numbered columns; with many classes, only the pairs that are confused most.
fn print(judged: &Judgement, samples: &str) -> Result<()> {
    if judged.known <= ROOM {
        let of = |(label, class): (usize, &ClassFigures)| {
            let taken = (0..judged.known).map(|to| (format!("{}", to + 1), json!(judged.taken(label, to))));
            let name = if label < judged.known { format!("{} {}", label + 1, class.name) } else { class.name.clone() };
            std::iter::once(("label \\ predicted".to_string(), json!(name))).chain(taken).collect::<Value>()
        };
        return output::rows(false, "confusion", &shown(judged).map(of).collect::<Vec<_>>());
    }
    let mut pairs: Vec<(usize, usize, usize)> = judged
        .confusion
        .iter()
        .map(|(&(label, class), &count)| (count, label as usize, class as usize))
        .filter(|(_, label, class)| label != class)
        .collect();
    pairs.sort_by(|a, b| b.0.cmp(&a.0).then(a.cmp(b)));
    let name = |class: usize| &judged.classes[class].name;
    let of = |&(count, label, class): &(usize, usize, usize)| json!({ "label": name(label), "taken for": name(class), samples: count });
    output::rows(false, "confusion", &pairs.iter().take(ROOM).map(of).collect::<Vec<_>>())?;
    output::line(format!("the {ROOM} most frequent of {} confusions; --csv writes all", pairs.len()))
}

/// Writes the whole matrix as a table, whose first column is the true class.
fn table(judged: &Judgement, path: &Path) -> Result<()> {
    files::write_with(path, |file| {
        let mut table = csv::Writer::from_writer(file);
        let known = judged.classes[..judged.known].iter().map(|class| class.name.clone());
        table.write_record(std::iter::once("label".to_string()).chain(known)).map_err(Error::new)?;
        for (label, class) in shown(judged) {
            let counts = (0..judged.known).map(|to| judged.taken(label, to).to_string());
            table.write_record(std::iter::once(class.name.clone()).chain(counts)).map_err(Error::new)?;
        }
        Ok(table.flush()?)
    })
}
