//! `ctk eval label-efficiency`: what labels are worth to a pretrained network, as a table of runs.
//!
//! A cell is a method with some labels of a seed. It is a run folder of its own inside the study's, so that a study that stops goes
//! on where it was: a cell with a `result.json` is done, one with a checkpoint is resumed. All methods of a row are given the very
//! same labels, so they are compared pair by pair.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use ctk_core::checkpoint::Checkpoint;
use ctk_core::error::{Context, Error, Kind, Result};
use ctk_core::eval::Features;
use ctk_core::eval::linear_probe::{Options, linear_probe};
use ctk_core::eval::spread::{paired, spread};
use ctk_core::files;
use ctk_core::labels::{Amount, Subset};
use ctk_core::modality::{Modality, Query, Split};
use ctk_core::recipe::Recipe;
use ctk_core::run::{Place, Run};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::args::{LabelEfficiency, Method};
use crate::{Modalities, distill, eval, export, finetune, output, plot, progress, train};

/// What the figures leave out.
const NOTE: &str = "± is the standard deviation over label subsets, whose seeds seed training too (with all labels: training alone); \
    intervals are Student's, 95 %, of paired differences. Both leave out the variance of pretraining: there was one pretraining.";

const RESULT: &str = "result.json";
const STUDY: &str = "study.json";
const LABELS: &str = "labels.json";

/// What a cell found, as stored in its folder.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Cell {
    labels: Amount,
    /// Labelled images.
    labelled: usize,
    seed: u64,
    method: String,
    top1: f64,
}

pub fn run(args: LabelEfficiency, modalities: Modalities) -> Result<()> {
    let from = Checkpoint::open(&args.model.run)?;
    let folder = match &args.out {
        Some(out) => out.clone(),
        None if args.model.run.join("checkpoints").is_dir() => args.model.run.join("label-efficiency"),
        None => return Err(Error::usage("a checkpoint is no place for a study").hint("say where it shall lie: --out DIR")),
    };
    let study = Study { modality: finetune::modality(&from, modalities)?, stop: train::stop_on_interrupt()?, folder, from, args };
    study.begin()?;
    let cells = study.cells(modalities)?;
    let figures = study.figures(&cells);
    files::write(&study.folder.join("results.json"), serde_json::to_string_pretty(&figures)?.as_bytes())?;
    files::write(&study.folder.join("results.csv"), csv(&cells).as_bytes())?;
    files::write(&study.folder.join("plot.svg"), plot::label_efficiency(&study.curves(&cells)).as_bytes())?;
    match study.args.model.show.json {
        true => output::line(&figures),
        false => study.tell(&figures),
    }
}

struct Study<'a> {
    args: LabelEfficiency,
    modality: &'a dyn Modality,
    from: Checkpoint,
    folder: PathBuf,
    stop: Arc<AtomicBool>,
}

impl Study<'_> {
    /// Writes what the study is of, or finds that the folder is this study's.
    fn begin(&self) -> Result<()> {
        let data = self.args.model.data.as_ref().map(|data| data.display().to_string());
        let of = json!({ "run": self.args.model.run.display().to_string(), "checkpoint": self.from.manifest().checksum, "data": data });
        let path = self.folder.join(STUDY);
        if !path.is_file() {
            return files::write(&path, serde_json::to_string_pretty(&of)?.as_bytes());
        }
        let stored: Value = serde_json::from_slice(&fs::read(&path).at(path.display())?).at(path.display())?;
        match stored == of {
            true => Ok(()),
            false => Err(Error::usage("this folder holds a study of another run, checkpoint or data")
                .at(path.display())
                .hint("give another --out")),
        }
    }

    /// Every cell's result, made or found.
    fn cells(&self, modalities: Modalities) -> Result<Vec<Cell>> {
        let methods = self.methods();
        let all = self.args.labels.len() * self.args.seeds as usize * methods.len();
        let mut features = None;
        let mut cells: Vec<Cell> = Vec::new();
        for &labels in &self.args.labels {
            for seed in 0..self.args.seeds {
                for &method in &methods {
                    let place = self.place(labels, seed, method);
                    if !self.args.model.show.quiet {
                        output::say(format!("cell {} of {all}: {}", cells.len() + 1, place.display()));
                    }
                    let cell =
                        self.cell(labels, seed, method, &place, &mut features, modalities).map_err(|e| match e.kind() {
                            Kind::Interrupted => {
                                Error::interrupted(format!("stopped in cell {} of {all}; it is saved", cells.len() + 1))
                                    .hint("go on with the same command")
                            }
                            _ => e.at(place.display()),
                        })?;
                    cells.push(cell);
                }
            }
        }
        Ok(cells)
    }

    /// The methods in the order in which they build on each other: who is distilled was fine-tuned.
    fn methods(&self) -> Vec<Method> {
        let mut methods = self.args.methods.clone();
        if methods.contains(&Method::Distill) {
            methods.push(Method::Finetune);
        }
        methods.sort();
        methods.dedup();
        methods
    }

    fn place(&self, labels: Amount, seed: u64, method: Method) -> PathBuf {
        let labels = labels.to_string().replace('%', "-percent");
        self.folder.join(format!("{labels}-seed-{seed}-{}", name(method)))
    }

    fn cell(
        &self,
        labels: Amount,
        seed: u64,
        method: Method,
        place: &Path,
        features: &mut Option<[Features; 2]>,
        modalities: Modalities,
    ) -> Result<Cell> {
        let recipe = self.recipe(labels, seed, method)?;
        let done = place.join(RESULT);
        if let (Some(recipe), true) = (&recipe, place.join("recipe.toml").is_file())
            && Run::recipe_of(place)?.text() != recipe.text()
        {
            return Err(
                Error::usage("this cell was made by another recipe").hint("ask for the same again, or give another --out")
            );
        }
        if done.is_file() {
            return serde_json::from_slice(&fs::read(&done).at(done.display())?).at(done.display());
        }
        let (top1, labelled) = match &recipe {
            Some(recipe) => self.train(recipe, place)?,
            None => {
                let [train, test] = match features {
                    Some(features) => features,
                    None => features.insert(self.features(modalities)?),
                };
                let (few, subset) = eval::labelled(train, labels, seed)?;
                let options = Options { folds: eval::FOLDS, seed, ..Options::default() };
                let top1 = linear_probe(&few, test, &options)?.top1;
                files::write(&place.join(LABELS), serde_json::to_string_pretty(&subset)?.as_bytes())?;
                (top1, Some(few.len()))
            }
        };
        self.same_labels(labels, seed, place)?;
        // Who is distilled has the labels of who teaches.
        let taught = || Ok::<_, Error>(subset(&self.place(labels, seed, Method::Finetune))?.map_or(0, |s| s.names.len()));
        let labelled = labelled.map_or_else(taught, Ok)?;
        let cell = Cell { labels, labelled, seed, method: name(method).to_string(), top1 };
        files::write(&done, serde_json::to_string_pretty(&cell)?.as_bytes())?;
        Ok(cell)
    }

    /// The recipe of a cell that trains; the probe trains no network.
    fn recipe(&self, labels: Amount, seed: u64, method: Method) -> Result<Option<Recipe>> {
        let LabelEfficiency { model, choices, tuning, distill_epochs, .. } = &self.args;
        let task = finetune::Task { labels, seed, scratch: method == Method::Scratch };
        let mut recipe = match method {
            Method::Probe => return Ok(None),
            Method::Scratch | Method::Finetune => {
                finetune::recipe(&model.run, &self.from, model.data.as_deref(), task, choices, tuning)?
            }
            Method::Distill => {
                let teacher = self.place(labels, seed, Method::Finetune);
                let of = Checkpoint::open(&teacher)?;
                let task = distill::Task { alpha: 1.0, epochs: *distill_epochs, ..distill::Task::default() };
                distill::recipe(&teacher, &of, model.data.as_deref(), &task, tuning)?
            }
        };
        train::set(&mut recipe, &tuning.set)?;
        Ok(Some(recipe))
    }

    /// Top-1 accuracy on the test images, and how many labels there were.
    fn train(&self, recipe: &Recipe, place: &Path) -> Result<(f64, Option<usize>)> {
        let show = &self.args.model.show;
        let (device, watch) = (&self.args.model.device.device, progress::watch(show.quiet));
        let trained =
            train::train(self.modality, recipe, Place::reached(place.to_path_buf())?, device, watch, self.stop.clone())?;
        let figures = trained.figures();
        let top1 = figures["top1"].as_f64().ok_or_else(|| {
            Error::usage("this data has no labelled test images, so nothing can be compared").hint("use data with classes")
        })?;
        Ok((top1, figures["labelled"].as_u64().map(|n| n as usize)))
    }

    /// Features of the training and the test images.
    fn features(&self, modalities: Modalities) -> Result<[Features; 2]> {
        let model = export::open(&self.args.model, modalities)?;
        let rows = |split| model.features(&Query { data: self.args.model.data.clone(), split, ..Query::default() });
        Ok([rows(Split::Train)?, rows(Split::Test)?])
    }

    /// The labels of this cell must be those of the cells beside it, name by name.
    fn same_labels(&self, labels: Amount, seed: u64, place: &Path) -> Result<()> {
        let Some(mine) = subset(place)? else { return Ok(()) };
        for method in self.methods() {
            let beside = self.place(labels, seed, method);
            if subset(&beside)?.is_some_and(|theirs| theirs != mine) {
                return Err(Error::new("two methods were given different labels")
                    .at(beside.display())
                    .hint("give another --out"));
            }
        }
        Ok(())
    }

    /// Top-1 accuracies of a method at an amount of labels, by seed.
    fn of(cells: &[Cell], labels: Amount, method: Method) -> Vec<f64> {
        cells.iter().filter(|cell| cell.labels == labels && cell.method == name(method)).map(|cell| cell.top1).collect()
    }

    fn figures(&self, cells: &[Cell]) -> Value {
        let methods = self.methods();
        let (mut table, mut differences) = (Vec::new(), Vec::new());
        for &labels in &self.args.labels {
            let labelled = cells.iter().find(|cell| cell.labels == labels && cell.labelled > 0).map(|cell| cell.labelled);
            for &method in &methods {
                let values = Self::of(cells, labels, method);
                let (mean, sd) = spread(&values);
                table.push(json!({
                    "labels": labels, "labelled": labelled, "method": name(method), "mean": mean, "sd": sd, "seeds": values.len(),
                }));
            }
            for (at, &a) in methods.iter().enumerate().rev() {
                for &b in &methods[..at] {
                    let found = paired(&Self::of(cells, labels, a), &Self::of(cells, labels, b));
                    differences.push(json!({
                        "labels": labels, "method": name(a), "than": name(b), "mean": found.mean, "interval": found.interval,
                        "pairs": found.pairs,
                    }));
                }
            }
        }
        json!({
            "out": self.folder.display().to_string(), "top1": table, "differences": differences, "cells": cells, "note": NOTE,
        })
    }

    /// The table, the differences and what they leave out, for people.
    fn tell(&self, figures: &Value) -> Result<()> {
        let rows = |name: &str| figures[name].as_array().cloned().unwrap_or_default();
        let methods = self.methods();
        let mut table = Vec::new();
        for cells in rows("top1").chunks(methods.len()) {
            let mut row = json!({ "labels": cells[0]["labels"], "images": cells[0]["labelled"] });
            for cell in cells {
                let mean = percent(&cell["mean"]);
                let text = cell["sd"].as_f64().map_or(mean.clone(), |sd| format!("{mean} ± {:.1}", 100.0 * sd));
                row[said(cell["method"].as_str().unwrap_or_default())] = json!(text);
            }
            table.push(row);
        }
        output::line("top-1 accuracy on test images, %")?;
        output::rows(false, "top1", &table)?;
        let differences: Vec<Value> = rows("differences")
            .iter()
            .map(|d| {
                let interval = d["interval"].as_array().map(|i| format!("{} to {}", percent(&i[0]), percent(&i[1])));
                let what =
                    format!("{} less {}", said(d["method"].as_str().unwrap_or("")), said(d["than"].as_str().unwrap_or("")));
                json!({ "difference": what, "labels": d["labels"], "mean": percent(&d["mean"]), "interval": interval })
            })
            .collect();
        if !differences.is_empty() {
            output::line("")?;
            output::rows(false, "differences", &differences)?;
        }
        output::line(format!("\n{NOTE}\n{} holds results.json, results.csv, plot.svg and a run a cell", self.folder.display()))
    }

    fn curves(&self, cells: &[Cell]) -> Vec<plot::Curve> {
        let point = |labels: Amount, method: Method| {
            let (mean, sd) = spread(&Self::of(cells, labels, method));
            plot::Point { label: labels.to_string(), mean, sd: sd.unwrap_or(0.0) }
        };
        let curve = |method: Method| plot::Curve {
            name: said(name(method)).to_string(),
            points: self.args.labels.iter().map(|&labels| point(labels, method)).collect(),
        };
        self.methods().into_iter().map(curve).collect()
    }
}

/// The labels that a cell stored.
fn subset(place: &Path) -> Result<Option<Subset>> {
    let path = place.join(LABELS);
    if !path.is_file() {
        return Ok(None);
    }
    serde_json::from_slice(&fs::read(&path).at(path.display())?).at(path.display()).map(Some)
}

fn name(method: Method) -> &'static str {
    match method {
        Method::Scratch => "scratch",
        Method::Probe => "probe",
        Method::Finetune => "finetune",
        Method::Distill => "distill",
    }
}

/// A method for people.
fn said(method: &str) -> &str {
    match method {
        "scratch" => "from scratch",
        "probe" => "linear probe",
        "finetune" => "fine-tune",
        "distill" => "fine-tune + distil",
        other => other,
    }
}

fn percent(value: &Value) -> String {
    value.as_f64().map_or("-".to_string(), |value| format!("{:.1}", 100.0 * value))
}

/// A line a cell. No value needs quoting.
fn csv(cells: &[Cell]) -> String {
    let line = |cell: &Cell| format!("{},{},{},{},{}\n", cell.labels, cell.labelled, cell.seed, cell.method, cell.top1);
    format!("labels,labelled,seed,method,top1\n{}", cells.iter().map(line).collect::<String>())
}
