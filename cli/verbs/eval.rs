//! `ctk eval`: evaluates frozen features.

use std::path::Path;

use ctk_core::data::labels::{Amount, Subset};
use ctk_core::error::{Error, Result};
use ctk_core::eval::categorize::Categories;
use ctk_core::eval::{Features, analogy, categorize, geometry, knn, linear_probe, similarity, spread};
use ctk_core::modality::{Query, Split, View};
use serde_json::{Value, json};

use crate::Modalities;
use crate::shared::args::{Eval, Fit, ModelArgs};
use crate::shared::model::{open, query};
use crate::shared::{evals, output, progress};
use crate::studies::label_efficiency;
use crate::verbs::{captions, classify, sentences};

pub fn run(args: Eval, modalities: Modalities) -> Result<()> {
    match args {
        Eval::LinearProbe { model, baseline, method, few } => {
            fitted(&model, "linear-probe", baseline, modalities, |train, test| {
                let method = match method {
                    Fit::Lbfgs => linear_probe::Solver::Lbfgs { strength: None },
                    Fit::Sgd => linear_probe::Solver::Sgd { epochs: 100 },
                };
                let options = linear_probe::Options { method, ..Default::default() };
                let probe = match few.labels {
                    Some(labels) => {
                        let all = train.labels()?;
                        let (train, subset) = labelled(train, labels, few.label_seed)?;
                        subset.fewer(all).filter(|_| !model.show.quiet).iter().for_each(|note| output::note(note));
                        linear_probe::linear_probe(&train, test, &linear_probe::Options { folds: FOLDS, ..options })?
                    }
                    None => linear_probe::linear_probe(train, test, &options)?,
                };
                Ok(json!({
                    "top1": probe.top1, "top5": probe.top5, "train": probe.train, "test": probe.test,
                    "classes": probe.classes, "regularisation": probe.regularisation,
                }))
            })
        }
        Eval::Knn { model, baseline } => fitted(&model, "knn", baseline, modalities, |train, test| {
            let knn = knn::knn(train, test, &Default::default())?;
            Ok(json!({
                "top1": knn.top1, "top5": knn.top5, "train": knn.train, "test": knn.test, "classes": knn.classes, "k": knn.k,
            }))
        }),
        Eval::Classify(args) => classify::run(args, modalities),
        Eval::Similarity { model, pairs } => {
            let (sets, others) = similarity::read_all(&pairs)?;
            let opened = open(&model, modalities)?;
            let table = opened.table(&query(&model))?;
            if !pairs.is_dir() {
                let found = similarity::similarity(&*table, &sets[0].questions)?;
                let figures = json!({ "spearman": found.spearman, "pairs": found.pairs, "missing": found.missing });
                return evals::figures(&model, "similarity", &figures);
            }
            let found = similarity::similarities(&*table, &sets.iter().map(|s| s.questions.as_slice()).collect::<Vec<_>>())?;
            let figures = |found: &similarity::Ranked| json!({ "spearman": found.spearman, "pairs": found.pairs, "missing": found.missing });
            sets_of(&model, "similarity", sets.iter().map(|set| &set.name).zip(found.iter().map(figures)), &others)
        }
        Eval::Analogy { model, questions, restrict } => {
            let (sets, others) = analogy::read_all(&questions)?;
            let opened = open(&model, modalities)?;
            let table = opened.table(&query(&model))?;
            let figures = |found: &analogy::Analogy| {
                json!({
                    "accuracy": (found.answered > 0).then_some(found.accuracy), "semantic": found.semantic,
                    "syntactic": found.syntactic, "answered": found.answered, "skipped": found.skipped,
                })
            };
            if !questions.is_dir() {
                let found = analogy::analogy(&*table, &sets[0].questions, restrict)?;
                return evals::figures(&model, "analogy", &figures(&found));
            }
            let slices: Vec<_> = sets.iter().map(|s| s.questions.as_slice()).collect();
            let found = analogy::analogies(&*table, &slices, restrict)?;
            sets_of(&model, "analogy", sets.iter().map(|set| &set.name).zip(found.iter().map(figures)), &others)
        }
        Eval::Categorize { model, sets, seed } => {
            let sets = sets.iter().map(|path| categorize::read(path)).collect::<Result<Vec<_>>>()?.concat();
            let opened = open(&model, modalities)?;
            let table = opened.table(&query(&model))?;
            let found = sets.iter().map(|set| categorize::categorize(&*table, set, seed)).collect::<Result<Vec<_>>>()?;
            categories(&model, &sets, &found)
        }
        Eval::TextClassification { model, train, test, baseline, seeds } => {
            let baseline = baseline.as_deref().map(|name| (name, seeds));
            text_classification(&model, &train, test.as_deref(), baseline, modalities)
        }
        Eval::Sts { model, pairs, without, prompt, fewer } => {
            sentences::sts(&model, &pairs, &without, &prompt, &fewer, modalities)
        }
        Eval::Retrieval { model, folder: Some(folder), split, exclude_same, roles, fewer, ranks, .. } => {
            if let Some(ranks) = ranks {
                return Err(Error::usage("ranks are written of images and captions, without FOLDER")
                    .at(ranks.display())
                    .hint("leave out --ranks"));
            }
            sentences::retrieval(&model, &folder, split.as_deref(), exclude_same, &roles, &fewer, modalities)
        }
        Eval::Retrieval { model, folder: None, split, exclude_same, roles, fewer, ranks, over } => {
            let plain = split.is_none() && !exclude_same && roles.nothing() && fewer.nothing();
            if !plain {
                return Err(Error::usage("these options are for a FOLDER of queries and documents")
                    .hint("ctk eval retrieval RUN FOLDER; without FOLDER images look for their captions"));
            }
            ranks.iter().try_for_each(|out| over.allows(out))?;
            captions::retrieval(&model, ranks.as_deref(), modalities)
        }
        Eval::ZeroShot { model, classes, prompts } => {
            captions::zero_shot(&model, classes.as_deref(), prompts.as_deref(), modalities)
        }
        Eval::LabelEfficiency(study) => label_efficiency::run(study, modalities),
        Eval::Geometry { model } => {
            let opened = open(&model, modalities)?;
            let _progress = progress::of_samples(model.show.quiet);
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
            evals::figures(&model, "geometry", &figures)
        }
    }
}

/// Prints one line for each set, and the means; as JSON, an object with the means and the list of sets.
fn categories(args: &ModelArgs, sets: &[categorize::Set], found: &[Categories]) -> Result<()> {
    let of = |(set, f): (&categorize::Set, &Categories)| {
        json!({
            "set": set.name, "purity": f.purity, "nmi": f.nmi, "words": f.words, "missing": f.missing,
            "categories": f.categories,
        })
    };
    let mut rows: Vec<Value> = sets.iter().zip(found).map(of).collect();
    let mean = |of: fn(&Categories) -> f64| found.iter().map(of).sum::<f64>() / found.len() as f64;
    let (purity, nmi) = (mean(|f| f.purity), mean(|f| f.nmi));
    let all = json!({ "purity": purity, "nmi": nmi, "sets": rows });
    evals::keep(args, "categorize", &all)?;
    if args.show.json {
        return output::line(all);
    }
    if rows.len() > 1 {
        rows.push(json!({ "set": "mean", "purity": purity, "nmi": nmi }));
    }
    output::rows(false, "sets", &rows)
}

/// Prints the figures of several sets: one line each, or one JSON object.
fn sets_of<'a>(
    args: &ModelArgs,
    name: &str,
    figures: impl Iterator<Item = (&'a String, Value)>,
    others: &[String],
) -> Result<()> {
    if !others.is_empty() && !args.show.quiet {
        output::say(format!("note: skipped, because their format is another: {}", others.join(", ")));
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
    evals::keep(args, name, &json!({ "sets": rows }))?;
    output::rows(args.show.json, "sets", &rows)
}

/// Fits on the training part and evaluates on the test part: the learned features and, on request, the baselines.
fn fitted(
    args: &ModelArgs,
    name: &str,
    baseline: bool,
    modalities: Modalities,
    judge: impl Fn(&Features, &Features) -> Result<Value>,
) -> Result<()> {
    let model = open(args, modalities)?;
    let _progress = progress::of_samples(args.show.quiet);
    let rows = |split, baseline: Option<&str>| {
        let query = Query { data: args.data.clone(), split, baseline: baseline.map(String::from), ..Query::default() };
        let mut rows = model.features(&query)?;
        // What is to be said of the data is said once.
        output::notes(&mut rows, args.show.quiet || baseline.is_some() || split == Split::Train);
        Ok::<_, Error>(rows)
    };
    // The test part is read first, so that data without labels is reported before anything is encoded.
    let test = rows(Split::Test, None)?;
    let train = rows(Split::Train, None)?;
    let test = test.numbered_as(&train);
    let mut figures = judge(&train, &test)?;
    test.extras.iter().for_each(|(name, value)| figures[*name] = value.clone());
    let baselines: &[&str] = if baseline { model.baselines() } else { &[] };
    if baseline && baselines.is_empty() && !args.show.quiet {
        output::say("note: this model has no baselines to compare with");
    }
    for other in baselines {
        let train = rows(Split::Train, Some(other))?;
        let of = judge(&train, &rows(Split::Test, Some(other))?.numbered_as(&train))?;
        figures[format!("{other}_top1")] = of["top1"].clone();
    }
    evals::figures(args, name, &figures)
}

/// As [`fitted`], with the linear probe on texts, and several draws of the random baseline.
fn text_classification(
    args: &ModelArgs,
    train: &Path,
    test: Option<&Path>,
    baseline: Option<(&str, u64)>,
    modalities: Modalities,
) -> Result<()> {
    if let Some(data) = &args.data {
        return Err(Error::usage("the texts are given without --data").at(data.display()).hint("write RUN TRAIN.tsv [TEST.tsv]"));
    }
    let model = open(args, modalities)?;
    if let Some((name, _)) = baseline.filter(|(name, _)| !model.baselines().contains(name)) {
        return Err(
            Error::usage(format!("this model has no baseline `{name}`")).hint(format!("it has {}", model.baselines().join(", ")))
        );
    }
    let probe = |baseline: Option<&str>, seed| {
        let rows = |data: &Path, split| {
            let (data, baseline) = (Some(data.to_path_buf()), baseline.map(String::from));
            let mut rows = model.features(&Query { data, split, baseline: baseline.clone(), seed, ..Query::default() })?;
            output::notes(&mut rows, args.show.quiet || baseline.is_some());
            Ok::<_, Error>(rows)
        };
        let (train, test) = match test {
            Some(test) => (rows(train, Split::All)?, rows(test, Split::All)?),
            None => (rows(train, Split::Train)?, rows(train, Split::Test)?),
        };
        let test = test.numbered_as(&train);
        let options = linear_probe::Options { folds: FOLDS, ..Default::default() };
        Ok::<_, Error>((linear_probe::linear_probe(&train, &test, &options)?, test.extras))
    };
    let (found, told) = probe(None, 0)?;
    let mut figures = json!({
        "accuracy": found.top1, "train": found.train, "test": found.test, "classes": found.classes,
        "regularisation": found.regularisation,
    });
    told.into_iter().for_each(|(name, value)| figures[name] = value);
    if let Some((name, seeds)) = baseline {
        let found = (0..seeds).map(|seed| Ok(probe(Some(name), seed)?.0.top1)).collect::<Result<Vec<f64>>>()?;
        let (mean, sd) = spread::spread(&found);
        figures[format!("{name}_mean")] = mean.into();
        figures[format!("{name}_sd")] = sd.into();
        figures[format!("{name}_seeds")] = seeds.into();
    }
    evals::figures(args, "text-classification", &figures)
}

/// The rows whose labels `ctk finetune` would be given.
pub fn labelled(features: &Features, labels: Amount, seed: u64) -> Result<(Features, Subset)> {
    let (subset, chosen) = Subset::draw(&features.names, features.labels()?, &features.classes, labels, seed);
    Ok((features.select(&chosen), subset))
}

/// Folds of the cross-validation that chooses the L2 strength where labels are few, and for texts.
pub const FOLDS: usize = 5;
