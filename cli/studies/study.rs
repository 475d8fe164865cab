//! Studies of a matrix file: variants of one recipe, each trained by several seeds and judged the same way, in one table.
//!
//! ```toml
//! [[study]]
//! name = "head"
//! modality = "vision"
//! config = "../vision/cifar10.toml"                    # relative to this file; absent: the default recipe
//! set = { "train.epochs" = 5 }                         # changes for all
//! seeds = 3                                            # train.seed 0, 1, 2
//! figures = { top1 = "linear probe" }                  # figures of `ctk train --json`, and what the table calls them
//! variants = [{ name = "three layers" }, { name = "two layers", set = { "head.layers" = 2 } }]
//! finetune = [{ name = "fine-tune, 10 %", labels = "10%", from_layer = 1 }]    # each network, with few labels
//! ```
//!
//! Every run is a cell of the study's folder ([`cells`](crate::shared::cells)). The other variants are compared with the first one, seed by
//! seed.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use ctk_core::data::labels::Amount;
use ctk_core::error::{Error, Result};
use ctk_core::eval::spread::{paired, spread};
use ctk_core::modality::Modality;
use ctk_core::process::Stop;
use ctk_core::recipe::Recipe;
use ctk_core::store::checkpoint::Checkpoint;
use ctk_core::store::files;
use ctk_core::task::{self, Task, TaskOptimizer, TaskRequest};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::Modalities;
use crate::shared::args;
use crate::shared::cells::Runner;
use crate::shared::device;
use crate::shared::output::{self, percent};
use crate::shared::pace::Pace;

/// A study as the file has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Written {
    name: String,
    modality: String,
    config: Option<PathBuf>,
    #[serde(default)]
    set: BTreeMap<String, toml::Value>,
    seeds: u64,
    #[serde(default)]
    figures: BTreeMap<String, String>,
    variants: Vec<Variant>,
    #[serde(default)]
    finetune: Vec<Finetune>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Variant {
    name: String,
    #[serde(default)]
    set: BTreeMap<String, toml::Value>,
}

/// How every trained network is fine-tuned; see `ctk finetune --help`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Finetune {
    name: String,
    labels: Amount,
    from_layer: Option<u8>,
    #[serde(default)]
    rates: Vec<f64>,
    #[serde(default)]
    epochs: Vec<usize>,
    #[serde(default = "five")]
    folds: usize,
}

fn five() -> usize {
    5
}

/// A study whose recipes have been checked.
pub struct Study<'a> {
    written: Written,
    modality: &'a dyn Modality,
    /// One recipe for each variant, without a seed.
    recipes: Vec<Recipe>,
}

/// The figures of one column: (variant, seed) → figure.
struct Column {
    name: String,
    values: BTreeMap<(usize, u64), f64>,
}

impl<'a> Study<'a> {
    /// Checks `written`, a study of `file`; `data` replaces the recipe's own data.
    pub fn new(written: Written, file: &Path, data: Option<&Path>, modalities: Modalities<'a>) -> Result<Study<'a>> {
        let place = format!("{}: study {}", file.display(), written.name);
        let wrong = |what: &str| Err(Error::usage(what).at(&place));
        let modality = crate::modality(modalities, &written.modality).map_err(|e| e.at(&place))?;
        if written.variants.is_empty() || written.seeds == 0 {
            return wrong("a study needs a variant and a seed");
        }
        if written.figures.is_empty() && written.finetune.is_empty() {
            return wrong("a study needs figures or finetune: otherwise it has nothing to compare");
        }
        let columns = written.figures.values().chain(written.finetune.iter().map(|tune| &tune.name));
        if repeats(columns.map(String::as_str)) || repeats(written.variants.iter().map(|variant| variant.name.as_str())) {
            return wrong("two variants or two columns have one name");
        }
        let base = base(file, written.config.as_deref(), modality)?;
        let recipe = |variant: &Variant| {
            let mut recipe = base.clone();
            written.set.iter().chain(&variant.set).try_for_each(|(key, value)| recipe.set(key, &value.to_string()))?;
            if let Some(data) = data {
                modality.set_data(&mut recipe, data)?;
            }
            modality.plan(&recipe)?;
            Ok(recipe)
        };
        let recipes =
            written.variants.iter().map(|v| recipe(v).map_err(|e: Error| e.at(format!("variant {}", v.name)).at(&place)));
        Ok(Study { recipes: recipes.collect::<Result<_>>()?, written, modality })
    }

    /// The study's name in the file.
    pub fn name(&self) -> &str {
        &self.written.name
    }

    /// The study's cells in their order. Each has its folder below `runs` and its kind: 0 for pretraining, then one number for each way of
    /// fine-tuning.
    pub fn cells(&self, runs: &Path) -> Vec<(PathBuf, usize)> {
        let of = &self.written;
        let mut cells = Vec::new();
        for named in &of.variants {
            for seed in 0..of.seeds {
                let place = self.place(runs, named, seed);
                let tuned = of.finetune.iter().enumerate().map(|(at, tune)| (place.join(slug(&tune.name)), at + 1));
                let tuned: Vec<_> = tuned.collect();
                cells.extend(std::iter::once((place, 0)).chain(tuned));
            }
        }
        cells
    }

    fn place(&self, runs: &Path, variant: &Variant, seed: u64) -> PathBuf {
        runs.join(slug(&self.written.name)).join(format!("{}-seed-{seed}", slug(&variant.name)))
    }

    /// Makes the missing cells below `runs`, prints the table and stores it. Raising `stop` ends it after a training step. `pace` covers
    /// the cells of all studies; `before` of these are made first.
    pub fn run(&self, runs: &Path, args: &args::Matrix, stop: Stop, pace: Arc<Mutex<Pace>>, before: usize) -> Result<()> {
        let of = &self.written;
        let folder = runs.join(slug(&of.name));
        let now = RefCell::default();
        let device = device::open(&args.device.device, self.modality, args.show.quiet)?;
        let runner = Runner { modality: self.modality, device, show: args.show, stop, pace, before, now };
        let named = of.figures.values().chain(of.finetune.iter().map(|tune| &tune.name));
        let mut columns: Vec<Column> = named.map(|name| Column { name: name.clone(), values: BTreeMap::new() }).collect();
        let mut number = 0;
        for (variant, (named, recipe)) in of.variants.iter().zip(&self.recipes).enumerate() {
            for seed in 0..of.seeds {
                let place = self.place(runs, named, seed);
                let mut recipe = recipe.clone();
                recipe.set("train.seed", &seed.to_string())?;
                number += 1;
                let trained = runner.cell(number, &place, || runner.trained(&recipe, &place, Ok))?;
                let mut cells: Vec<f64> = of.figures.keys().map(|name| figure(&trained, name)).collect::<Result<_>>()?;
                for tune in &of.finetune {
                    number += 1;
                    let within = place.join(slug(&tune.name));
                    cells.push(runner.cell(number, &within, || {
                        let recipe = tune.recipe(self.modality, &place, seed)?;
                        figure(&runner.trained(&recipe, &within, Ok)?, "top1")
                    })?);
                }
                columns.iter_mut().zip(cells).for_each(|(column, value)| {
                    column.values.insert((variant, seed), value);
                });
            }
        }
        let figures = self.figures(&columns, &folder);
        files::write(&folder.join("results.json"), serde_json::to_string_pretty(&figures)?.as_bytes())?;
        if args.show.json { output::line(&figures) } else { self.tell(&columns) }
    }

    fn of(&self, column: &Column, variant: usize) -> Vec<f64> {
        (0..self.written.seeds).filter_map(|seed| column.values.get(&(variant, seed)).copied()).collect()
    }

    fn figures(&self, columns: &[Column], folder: &Path) -> Value {
        let mut rows = Vec::new();
        for (variant, named) in self.written.variants.iter().enumerate() {
            for column in columns {
                let values = self.of(column, variant);
                let (mean, sd) = spread(&values);
                let less = paired(&values, &self.of(column, 0));
                let difference = (variant > 0).then(|| json!({ "mean": less.mean, "interval": less.interval }));
                rows.push(json!({
                    "variant": named.name, "figure": column.name, "mean": mean, "sd": sd, "seeds": values.len(), "values": values,
                    "difference": difference,
                }));
            }
        }
        json!({ "study": self.written.name, "out": folder.display().to_string(), "baseline": self.written.variants[0].name, "rows": rows })
    }

    /// Prints the table: mean ± standard deviation, and each variant's difference to the first.
    fn tell(&self, columns: &[Column]) -> Result<()> {
        let seeds = self.written.seeds;
        output::line(format!("{}: mean ± sd of {seeds} {}, %", self.written.name, if seeds == 1 { "seed" } else { "seeds" }))?;
        self.rows(columns, 0, |column, variant| {
            let (mean, sd) = spread(&self.of(column, variant));
            sd.map_or(percent(mean), |sd| format!("{} ± {}", percent(mean), percent(sd)))
        })?;
        if self.written.variants.len() > 1 {
            output::line(format!(
                "\ndifference to {}, with its 95 % interval over seeds, in percentage points",
                self.written.variants[0].name
            ))?;
            self.rows(columns, 1, |column, variant| {
                let less = paired(&self.of(column, variant), &self.of(column, 0));
                let interval = less.interval.map(|[low, high]| format!(" ({} to {})", percent(low), percent(high)));
                format!("{}{}", percent(less.mean), interval.unwrap_or_default())
            })?;
        }
        output::line("")
    }

    fn rows(&self, columns: &[Column], from: usize, cell: impl Fn(&Column, usize) -> String) -> Result<()> {
        let row = |(variant, named): (usize, &Variant)| {
            let mut row = Map::from_iter([("variant".to_string(), json!(named.name))]);
            row.extend(columns.iter().map(|column| (column.name.clone(), json!(cell(column, variant)))));
            Value::Object(row)
        };
        output::rows(false, "rows", &self.written.variants.iter().enumerate().skip(from).map(row).collect::<Vec<_>>())
    }
}

impl Finetune {
    /// The recipe that fine-tunes `run`: the defaults of `ctk finetune` unless the study says otherwise.
    fn recipe(&self, modality: &dyn Modality, run: &Path, seed: u64) -> Result<Recipe> {
        let task = task::Finetune {
            labels: self.labels,
            seed,
            scratch: false,
            rates: self.rates.clone(),
            epochs: self.epochs.clone(),
            crops: Vec::new(),
            folds: self.folds,
        };
        let request = TaskRequest {
            run: run.to_path_buf(),
            data: None,
            optimizer: Some(TaskOptimizer::Lars),
            batch: Some(64),
            from_layer: self.from_layer.map(usize::from),
            frozen_statistics: false,
            task: Task::Finetune(task),
        };
        modality.task(&Checkpoint::open(run)?, &request)
    }
}

fn figure(figures: &Value, name: &str) -> Result<f64> {
    let reported = || {
        let names =
            figures.as_object().into_iter().flatten().filter(|(_, value)| value.is_number()).map(|(name, _)| name.as_str());
        format!("it reports {}", names.collect::<Vec<_>>().join(", "))
    };
    figures[name].as_f64().ok_or_else(|| Error::usage(format!("the run reports no figure `{name}`")).hint(reported()))
}

/// A name as a folder's name.
fn slug(name: &str) -> String {
    let plain = |c: char| if c.is_alphanumeric() || c == '.' { c.to_ascii_lowercase() } else { '-' };
    let name: String = name.replace('%', "percent").chars().map(plain).collect();
    name.split('-').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-")
}

/// The recipe that a matrix file is based on: `config`, relative to the file, or the modality's default.
pub fn base(file: &Path, config: Option<&Path>, modality: &dyn Modality) -> Result<Recipe> {
    match config {
        Some(config) => Recipe::read(&file.parent().unwrap_or(Path::new("")).join(config)),
        None => Ok(Recipe::new("the default recipe", modality.recipe(None)?)),
    }
}

/// Whether two names would give the same folder, or one would give no folder.
pub fn repeats<'s>(names: impl Iterator<Item = &'s str>) -> bool {
    let mut names: Vec<String> = names.map(slug).collect();
    names.sort();
    names.windows(2).any(|pair| pair[0] == pair[1]) || names.iter().any(String::is_empty)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_folders_that_differ() {
        assert_eq!(slug("T = .1, 10 % (memory)"), "t-.1-10-percent-memory");
        let names = |names: &[&str]| repeats(names.iter().copied());
        assert!(!names(&["a", "b"]) && names(&["a b", "a-b"]) && names(&["!"]));
    }
}
