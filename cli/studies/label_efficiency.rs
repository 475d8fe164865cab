//! `ctk eval label-efficiency`: what labels are worth to a pretrained network, as a table of runs.
//!
//! A cell is one method with one subset of labels. It is a run in a folder inside the study's, so that a study that was stopped can be
//! continued: a cell with a `result.json` is finished, one with a checkpoint is resumed. A study can also grow: each command adds its
//! cells, and the table covers all cells in the folder. All methods of a row get the same labels, so that they can be compared pair by
//! pair.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};

use ctk_core::data::labels::{Amount, Subset};
use ctk_core::error::{Context, Error, Result};
use ctk_core::eval::Features;
use ctk_core::eval::linear_probe::{Options, linear_probe};
use ctk_core::modality::{Modality, Query, Split};
use ctk_core::recipe::Recipe;
use ctk_core::store::checkpoint::Checkpoint;
use ctk_core::store::files;
use ctk_core::task::{Distill, Task, TaskRequest};
use serde_json::{Value, json};

use crate::Modalities;
use crate::shared::args::{LabelEfficiency, Method, Texts};
use crate::shared::cells::{self, Runner};
use crate::shared::pace::Kind;
use crate::shared::{device, model, output, recipe, signals, task};
use crate::verbs::eval;

mod plot;
mod table;

use table::{Cell, Table};

const STUDY: &str = "study.json";
const LABELS: &str = "labels.json";

pub fn run(args: LabelEfficiency, modalities: Modalities) -> Result<()> {
    let folder = match &args.out {
        Some(out) => out.clone(),
        None if args.model.run.join("checkpoints").is_dir() => args.model.run.join("label-efficiency"),
        None => {
            return Err(Error::usage("a study cannot be written into a checkpoint, or into another program's folder")
                .at(args.model.run.display())
                .hint("give the study a folder: --out DIR"));
        }
    };
    // A modality without such tasks reports that before the folder is made.
    let (modality, _) = task::asked(&tuned(&args, Amount::default(), 0, false), modalities)?;
    if args.methods.contains(&Method::Distill) && !modality.distills_classes() {
        let what = format!("a classifier of {} cannot be distilled: the other methods can be compared", modality.samples());
        return Err(Error::usage(what).at(args.model.run.display()).hint("leave `distill` out of --methods"));
    }
    let from = Checkpoint::open(&args.model.run).ok();
    let study = Study { folder, from, modality, modalities, args };
    study.begin()?;
    study.make(modalities)?;
    let table = Table::new(study.found()?, modality.samples());
    let figures = table.figures(&study.folder);
    files::write(&study.folder.join("results.json"), serde_json::to_string_pretty(&figures)?.as_bytes())?;
    files::write(&study.folder.join("results.csv"), table.csv().as_bytes())?;
    files::write(
        &study.folder.join("plot.svg"),
        table.plot(&study.args.model.run.display().to_string(), study.classes()?).as_bytes(),
    )?;
    match study.args.model.show.json {
        true => output::line(&figures),
        false => {
            table.tell(&figures)?;
            output::line(format!(
                "{} holds results.json, results.csv, plot.svg and one run for each cell",
                study.folder.display()
            ))
        }
    }
}

/// What identifies a cell: the amount of labels, the seed, the method.
type Key = (Amount, u64, Method);

struct Study<'a> {
    args: LabelEfficiency,
    /// The run's checkpoint; none if the network is another program's.
    from: Option<Checkpoint>,
    modality: &'a dyn Modality,
    modalities: Modalities<'a>,
    folder: PathBuf,
}

/// The request for fine-tuning, or for training from scratch.
fn tuned(args: &LabelEfficiency, labels: Amount, seed: u64, scratch: bool) -> TaskRequest {
    let texts = Texts { test: None, scheme: args.scheme.clone().filter(|_| !scratch) };
    args.tuning.request(&args.model.run, args.model.data.as_deref(), args.choices.task(labels, seed, scratch, &texts))
}

impl Study<'_> {
    /// Writes down what the study is of, or checks that the folder belongs to this study.
    fn begin(&self) -> Result<()> {
        let data = self.args.model.data.as_ref().map(|data| data.display().to_string());
        let of = json!({ "run": self.args.model.run.display().to_string(), "checkpoint": self.from.as_ref().map(|from| from.manifest().checksum.clone()), "data": data });
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

    /// Makes every requested cell that is missing.
    fn make(&self, modalities: Modalities) -> Result<()> {
        let methods = self.methods();
        let mut cells: Vec<(Key, (PathBuf, Kind))> = Vec::new();
        for (amount, &labels) in self.args.labels.iter().enumerate() {
            for seed in 0..self.args.seeds {
                for (way, &method) in methods.iter().enumerate() {
                    cells.push(((labels, seed, method), (self.place(labels, seed, method), (amount, way))));
                }
            }
        }
        let (keys, places): (Vec<Key>, Vec<(PathBuf, Kind)>) = cells.into_iter().unzip();
        let show = self.args.model.show;
        let runner = Runner {
            modality: self.modality,
            device: device::open(&self.args.model.device.device, self.modality, show.quiet)?,
            show,
            stop: signals::stop(),
            pace: cells::pace(&places),
            before: 0,
            now: RefCell::default(),
        };
        let mut features = None;
        for (at, (&key, (place, _))) in keys.iter().zip(&places).enumerate() {
            runner.cell(at + 1, place, || match self.recipe(key)? {
                Some(recipe) => self.trained(key, &recipe, place, &runner),
                None => self.probed(key, place, &mut features, modalities),
            })?;
        }
        Ok(())
    }

    /// Every finished cell of the folder, from whichever command.
    fn found(&self) -> Result<Vec<Cell>> {
        let folders = fs::read_dir(&self.folder).at(self.folder.display())?.filter_map(|entry| Some(entry.ok()?.path()));
        let found = folders.filter(|path| path.is_dir()).map(|folder| cells::found(&folder, None));
        found.filter_map(Result::transpose).collect()
    }

    /// How many classes the labels are of, as the cells stored it.
    fn classes(&self) -> Result<Option<usize>> {
        let folders = fs::read_dir(&self.folder).at(self.folder.display())?.filter_map(|entry| Some(entry.ok()?.path()));
        let mut subsets = folders.filter(|path| path.is_dir()).map(|folder| subset(&folder));
        Ok(subsets.find_map(Result::transpose).transpose()?.map(|subset| subset.classes.len()))
    }

    /// The methods in the order in which they depend on each other: distillation needs a fine-tuned teacher, so it comes last.
    fn methods(&self) -> Vec<Method> {
        let mut methods = self.args.methods.clone();
        if methods.is_empty() {
            methods = Method::all(self.modality.distills_classes());
        }
        if methods.contains(&Method::Distill) {
            methods.push(Method::Finetune);
        }
        methods.sort();
        methods.dedup();
        methods
    }

    fn place(&self, labels: Amount, seed: u64, method: Method) -> PathBuf {
        let labels = labels.to_string().replace('%', "-percent");
        self.folder.join(format!("{labels}-seed-{seed}-{method}"))
    }

    /// A cell that trains a network.
    fn trained(&self, (labels, seed, method): Key, recipe: &Recipe, place: &Path, runner: &Runner) -> Result<()> {
        let cell = |figures: Value| {
            let top1 = figures["top1"].as_f64().ok_or_else(|| {
                let what = format!("this data has no labelled test {}, so nothing can be compared", self.modality.samples());
                Error::usage(what).hint("use data with classes")
            })?;
            self.same_labels(labels, seed, place)?;
            let labelled = match figures["labelled"].as_u64() {
                Some(labelled) => labelled as usize,
                // The student of a distillation uses the labels of its teacher.
                None => subset(&self.place(labels, seed, Method::Finetune))?.map_or(0, |subset| subset.names.len()),
            };
            Ok(Cell { labels, labelled, seed, method, top1 })
        };
        runner.trained(recipe, place, cell).map(|_| ())
    }

    /// Fits a linear probe for one cell, on features that are computed once for all cells.
    fn probed(
        &self,
        (labels, seed, method): Key,
        place: &Path,
        features: &mut Option<[Features; 2]>,
        modalities: Modalities,
    ) -> Result<()> {
        if cells::found::<Cell>(place, None)?.is_some() {
            return Ok(());
        }
        let [train, test] = match features {
            Some(features) => features,
            None => features.insert(self.features(modalities)?),
        };
        let (few, subset) = eval::labelled(train, labels, seed)?;
        let options = Options { folds: eval::FOLDS, seed, ..Options::default() };
        let top1 = linear_probe(&few, test, &options)?.top1;
        files::write(&place.join(LABELS), serde_json::to_string_pretty(&subset)?.as_bytes())?;
        self.same_labels(labels, seed, place)?;
        cells::keep(place, &Cell { labels, labelled: few.len(), seed, method, top1 })
    }

    /// The recipe of a cell that trains; none for the linear probe, which trains no network.
    fn recipe(&self, (labels, seed, method): Key) -> Result<Option<Recipe>> {
        let LabelEfficiency { model, tuning, distill_epochs, .. } = &self.args;
        let mut recipe = match method {
            Method::Probe => return Ok(None),
            Method::Scratch => task::asked(&tuned(&self.args, labels, seed, true), self.modalities)?.1,
            Method::Finetune => task::asked(&tuned(&self.args, labels, seed, false), self.modalities)?.1,
            Method::Distill => {
                let teacher = self.place(labels, seed, Method::Finetune);
                let task = Distill {
                    student: None,
                    from: None,
                    temperature: None,
                    alpha: None,
                    epochs: Some(*distill_epochs),
                    rate: None,
                    width: None,
                    vocabulary: None,
                };
                let request = tuning.request(&teacher, model.data.as_deref(), Task::Distill(task));
                self.modality.task(&Checkpoint::open(&teacher)?, &request)?
            }
        };
        recipe::set(&mut recipe, &tuning.set)?;
        Ok(Some(recipe))
    }

    /// Features of the training and the test samples.
    fn features(&self, modalities: Modalities) -> Result<[Features; 2]> {
        let model = model::open(&self.args.model, modalities)?;
        let rows = |split| model.features(&Query { data: self.args.model.data.clone(), split, ..Query::default() });
        let train = rows(Split::Train)?;
        let test = rows(Split::Test)?.numbered_as(&train);
        Ok([train, test])
    }

    /// Checks that this cell's labels are those of the other methods, name by name.
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
}

/// The labels that a cell stored.
fn subset(place: &Path) -> Result<Option<Subset>> {
    let path = place.join(LABELS);
    if !path.is_file() {
        return Ok(None);
    }
    serde_json::from_slice(&fs::read(&path).at(path.display())?).at(path.display()).map(Some)
}
