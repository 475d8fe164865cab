//! `ctk predict`: predicts the classes of samples with a run's classifier, one row for each sample.

use std::io::Write;
use std::path::Path;

use ctk_core::error::{Error, Result};
use ctk_core::eval::Predictions;
use ctk_core::modality::Query;
use ctk_core::store::files;
use ctk_core::store::parquet::{self, Cells};
use serde_json::{Map, Value, json};

use crate::Modalities;
use crate::shared::args::Predict;
use crate::shared::{model, output, progress, samples};

/// The format that a file's ending asks for.
#[derive(Clone, Copy)]
enum Format {
    Csv,
    Jsonl,
    Parquet,
}

impl Format {
    fn of(path: &Path) -> Result<Format> {
        match path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase).as_deref() {
            Some("csv") => Ok(Format::Csv),
            Some("jsonl") => Ok(Format::Jsonl),
            Some("parquet") => Ok(Format::Parquet),
            _ => Err(Error::usage("the file's name does not say a format that predictions are written in")
                .at(path.display())
                .hint("predictions are written as .csv, .parquet or .jsonl")),
        }
    }
}

pub fn run(args: Predict, modalities: Modalities) -> Result<()> {
    let format = args.out.as_deref().map(Format::of).transpose()?;
    args.out.as_deref().map_or(Ok(()), |out| args.over.allows(out))?;
    let model = model::open(&args.model, modalities)?;
    if !args.text.is_empty() && !model.embeds_names() {
        return Err(Error::usage("--text: this run classifies no texts").hint("give the paths of samples, or --data"));
    }
    let classifier = model.classifier()?;
    let _progress = progress::of_samples(args.model.show.quiet);
    let mut queries = samples::queries(&*model, &args.model, &args.samples);
    if !args.text.is_empty() {
        // Without a path, the texts are all that is asked for.
        if args.model.data.is_none() && args.samples.paths.is_empty() {
            queries.clear();
        }
        queries.push((Query { texts: args.text, ..Query::default() }, String::new()));
    }
    let found = samples::all(
        queries,
        |query| classifier.predictions(query),
        |found: &mut Predictions| &mut found.names,
        Predictions::followed_by,
    )?;
    let show = args.model.show;
    if !show.quiet {
        found.notes.iter().for_each(|note| output::note(note));
    }
    let top = (args.top as usize).min(found.known);
    if top < args.top as usize && !show.quiet {
        output::say(format!("note: the classifier knows {top} classes, so each sample gets {top} predictions"));
    }
    let labelled = found.labels.iter().flatten().count();
    let Some((out, format)) = args.out.as_deref().zip(format) else {
        if show.json {
            let rows: Vec<Value> = (0..found.len()).map(|i| object(&found, i, top)).collect();
            return output::line(json!({ "predictions": rows }));
        }
        let mut text = Vec::new();
        csv(&found, top, &mut text)?;
        return output::bytes(&text);
    };
    files::write_with(out, |file| match format {
        Format::Csv => csv(&found, top, file),
        Format::Parquet => parquet(&found, top, file),
        Format::Jsonl => (0..found.len()).try_for_each(|i| Ok(writeln!(file, "{}", object(&found, i, top))?)),
    })?;
    let figures = json!({
        "out": out.display().to_string(), "rows": found.len(), "classes": found.known, "labelled": labelled,
    });
    output::figures(show.json, &figures)
}

/// The columns of the class of this rank; rank 0 is the most probable one.
fn columns_of(rank: usize) -> [String; 2] {
    let behind = if rank == 0 { String::new() } else { format!("_{}", rank + 1) };
    ["predicted", "probability"].map(|name| format!("{name}{behind}"))
}

fn csv(found: &Predictions, top: usize, out: impl Write) -> Result<()> {
    let mut table = csv::Writer::from_writer(out);
    let header = ["name", "label"].map(String::from).into_iter().chain((0..top).flat_map(columns_of));
    table.write_record(header).map_err(Error::new)?;
    for i in 0..found.len() {
        let mut row = vec![found.names[i].clone(), found.label(i).unwrap_or_default().to_string()];
        for (class, probability) in found.likeliest(i, top, 1.0) {
            row.extend([found.classes[class].clone(), (probability as f32).to_string()]);
        }
        table.write_record(row).map_err(Error::new)?;
    }
    Ok(table.flush()?)
}

/// The same columns as Parquet; an unknown label is an empty cell.
fn parquet(found: &Predictions, top: usize, out: impl Write + Send) -> Result<()> {
    let mut columns = vec![
        ("name".to_string(), Cells::Texts(found.names.iter().map(|name| Some(name.as_str())).collect())),
        ("label".to_string(), Cells::Texts((0..found.len()).map(|i| found.label(i)).collect())),
    ];
    let likeliest: Vec<Vec<(usize, f64)>> = (0..found.len()).map(|i| found.likeliest(i, top, 1.0)).collect();
    for rank in 0..top {
        let [predicted, probability] = columns_of(rank);
        columns.push((predicted, Cells::Texts(likeliest.iter().map(|of| Some(found.classes[of[rank].0].as_str())).collect())));
        columns.push((probability, Cells::Numbers(likeliest.iter().map(|of| of[rank].1 as f32).collect())));
    }
    parquet::write(out, &columns)
}

/// The same row as a JSON object; an unknown label is null.
fn object(found: &Predictions, i: usize, top: usize) -> Value {
    let mut row = Map::new();
    row.insert("name".to_string(), json!(found.names[i]));
    row.insert("label".to_string(), json!(found.label(i)));
    for (rank, (class, probability)) in found.likeliest(i, top, 1.0).into_iter().enumerate() {
        let [predicted, of] = columns_of(rank);
        row.insert(predicted, json!(found.classes[class]));
        row.insert(of, json!(probability as f32));
    }
    Value::Object(row)
}
