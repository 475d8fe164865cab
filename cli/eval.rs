//! `ctk eval`: functions over frozen features.

use ctk_core::error::Result;
use ctk_core::eval::{Features, analogy, geometry, knn, linear_probe, similarity};
use ctk_core::modality::{Query, Split, View};
use serde_json::{Value, json};

use crate::args::{Eval, Fit, ModelArgs};
use crate::{Modalities, export, output};

pub fn run(args: Eval, modalities: Modalities) -> Result<()> {
    match args {
        Eval::LinearProbe { model, baseline, method } => classify(&model, baseline, modalities, |train, test| {
            let method = match method {
                Fit::Lbfgs => linear_probe::Method::Lbfgs { strength: None },
                Fit::Sgd => linear_probe::Method::Sgd { epochs: 100 },
            };
            let probe = linear_probe::linear_probe(train, test, &linear_probe::Options { method, ..Default::default() })?;
            Ok(json!({
                "top1": probe.top1, "top5": probe.top5, "train": probe.train, "test": probe.test,
                "classes": probe.classes, "regularisation": probe.regularisation,
            }))
        }),
        Eval::Knn { model, baseline } => classify(&model, baseline, modalities, |train, test| {
            let knn = knn::knn(train, test, &Default::default())?;
            Ok(json!({
                "top1": knn.top1, "top5": knn.top5, "train": knn.train, "test": knn.test, "classes": knn.classes, "k": knn.k,
            }))
        }),
        Eval::Similarity { model, pairs } => {
            let (sets, others) = similarity::read_all(&pairs)?;
            let opened = export::open(&model, modalities)?;
            let table = opened.table(&query(&model))?;
            if !pairs.is_dir() {
                let found = similarity::similarity(&*table, &sets[0].questions)?;
                let figures = json!({ "spearman": found.spearman, "pairs": found.pairs, "missing": found.missing });
                return output::figures(model.show.json, &figures);
            }
            let found = similarity::similarities(&*table, &sets.iter().map(|s| s.questions.as_slice()).collect::<Vec<_>>())?;
            let figures = |found: &similarity::Ranked| json!({ "spearman": found.spearman, "pairs": found.pairs, "missing": found.missing });
            sets_of(&model, sets.iter().map(|set| &set.name).zip(found.iter().map(figures)), &others)
        }
        Eval::Analogy { model, questions, restrict } => {
            let (sets, others) = analogy::read_all(&questions)?;
            let opened = export::open(&model, modalities)?;
            let table = opened.table(&query(&model))?;
            let figures = |found: &analogy::Analogy| {
                json!({
                    "accuracy": (found.answered > 0).then_some(found.accuracy), "semantic": found.semantic,
                    "syntactic": found.syntactic, "answered": found.answered, "skipped": found.skipped,
                })
            };
            if !questions.is_dir() {
                let found = analogy::analogy(&*table, &sets[0].questions, restrict)?;
                return output::figures(model.show.json, &figures(&found));
            }
            let slices: Vec<_> = sets.iter().map(|s| s.questions.as_slice()).collect();
            let found = analogy::analogies(&*table, &slices, restrict)?;
            sets_of(&model, sets.iter().map(|set| &set.name).zip(found.iter().map(figures)), &others)
        }
        Eval::Geometry { model } => {
            let opened = export::open(&model, modalities)?;
            let rows = |view| opened.features(&Query { data: model.data.clone(), view, ..Query::default() });
            let found = geometry::geometry(&rows(None)?)?;
            let alignment = match opened.views() {
                true => Some(geometry::alignment(&rows(Some(View::Left))?, &rows(Some(View::Right))?)?),
                false => None,
            };
            let figures = json!({
                "alignment": alignment, "uniformity": found.uniformity, "spread": found.spread,
                "dimensions": found.dimensions, "rows": found.rows,
            });
            output::figures(model.show.json, &figures)
        }
    }
}

fn query(args: &ModelArgs) -> Query {
    Query { data: args.data.clone(), ..Query::default() }
}

/// Figures of several sets: one line each, or one object of all.
fn sets_of<'a>(args: &ModelArgs, figures: impl Iterator<Item = (&'a String, Value)>, others: &[String]) -> Result<()> {
    if !others.is_empty() && !args.show.quiet {
        output::say(format!("note: passed over, being of another kind: {}", others.join(", ")));
    }
    let rows: Vec<Value> = figures
        .map(|(name, mut figures)| {
            let mut row = json!({ "set": name });
            if let (Some(row), Some(figures)) = (row.as_object_mut(), figures.as_object_mut()) {
                row.append(figures);
            }
            row
        })
        .collect();
    output::rows(args.show.json, "sets", &rows)
}

/// Fits on the training part, judges on the test part: the learned features and, if asked, those that were not learned.
fn classify(
    args: &ModelArgs,
    baseline: bool,
    modalities: Modalities,
    judge: impl Fn(&Features, &Features) -> Result<Value>,
) -> Result<()> {
    let model = export::open(args, modalities)?;
    let rows = |split, baseline: Option<&str>| {
        model.features(&Query { data: args.data.clone(), split, baseline: baseline.map(String::from), view: None })
    };
    // The test part first: data without labels is then found out before anything is encoded.
    let test = rows(Split::Test, None)?;
    let mut figures = judge(&rows(Split::Train, None)?, &test)?;
    let baselines: &[&str] = if baseline { model.baselines() } else { &[] };
    for name in baselines {
        let of = judge(&rows(Split::Train, Some(name))?, &rows(Split::Test, Some(name))?)?;
        figures[format!("{name}_top1")] = of["top1"].clone();
    }
    output::figures(args.show.json, &figures)
}
