//! Word2vec: word vectors by skip-gram or CBOW with negative sampling or hierarchical softmax (Mikolov et al. 2013), optionally with
//! subwords (fastText).
//!
//! - Data: [`windows`] draws which words are trained together, [`targets`] what they are contrasted with. [`frequency`] has the probabilities
//!   of both, [`huffman`] the tree of hierarchical softmax.
//! - Training: [`sparse`] is the learner, which trains on all threads; [`shards`] trains deterministically; [`kernel`] trains one block of
//!   text. [`rows`] holds the tables, [`parts`] the rows of subwords, [`init`] the vectors that a run starts from.
//! - Commands: [`recipe`], [`job`], [`model`] and `bench`. `forecast` refuses tables that do not fit into memory.
//! - Files: [`exports`] writes fastText models; [`vectors`] reads and writes files of word vectors.

use std::path::Path;

use ctk_core::modality::{Job, Modality, Model};
use ctk_core::observer::Observer;
use ctk_core::recipe::Recipe;
use ctk_core::store::checkpoint::Checkpoint;
use ctk_core::train::bench::{Report, Request};
use ctk_core::{Device, Error, Result};

use crate::fasttext::{self, FastText};
use crate::vectors::{self, WordVectors};

mod bench;
pub mod exports;
mod forecast;
pub mod frequency;
pub mod huffman;
pub mod init;
pub mod job;
pub mod kernel;
pub mod model;
pub mod parts;
pub mod recipe;
pub mod rows;
pub mod shards;
pub mod sparse;
pub mod targets;
pub mod windows;

pub(crate) const NAME: &str = "word2vec";

/// The modality.
pub struct Word2Vec;

impl Modality for Word2Vec {
    fn name(&self) -> &'static str {
        NAME
    }

    fn recipe(&self, data: Option<&Path>) -> Result<String> {
        let Some(path) = data else { return Ok(include_str!("../../../configs/word2vec/generated.toml").to_string()) };
        let path = toml::Value::String(path.display().to_string());
        Ok(format!("# Word vectors of a text.\n[data]\npath = {path}\n\n{GENERAL}"))
    }

    fn schema(&self) -> serde_json::Value {
        schemars::schema_for!(recipe::Word2VecRecipe).to_value()
    }

    fn plan(&self, recipe: &Recipe) -> Result<Box<dyn Job>> {
        Ok(Box::new(job::Word2VecJob::new(recipe)?))
    }

    fn paths(&self) -> Vec<&'static str> {
        vec!["data.path", "data.tokens", "train.init"]
    }

    fn set_init(&self, recipe: &mut Recipe, run: &Path) -> Result<()> {
        recipe.set_path("train.init", run)
    }

    fn set_weights(&self, _: &mut Recipe, file: &Path, _: bool) -> Result<()> {
        Err(Error::usage("words begin with a run of ctk, not with a file of vectors: its output vectors are not in one")
            .at(file.display())
            .hint("give the folder that `ctk train` printed as `run`"))
    }

    fn fast(&self) -> &'static [(&'static str, &'static str)] {
        &[("pairs.negatives", "grouped")]
    }

    fn yardstick(&self) -> Result<&'static str> {
        Ok(bench::YARDSTICK)
    }

    fn bench(&self, recipe: &Recipe, request: &Request, observer: &mut dyn Observer) -> Result<Report> {
        bench::run(recipe, request, observer)
    }

    fn on_devices(&self) -> bool {
        false
    }

    fn open(&self, from: &Checkpoint, _: &Device) -> Result<Box<dyn Model>> {
        Ok(Box::new(model::Vectors::open(from)?))
    }

    fn open_file(&self, path: &Path, _: &dyn Fn() -> Result<Device>) -> Result<Option<Box<dyn Model>>> {
        if !path.is_file() {
            return Ok(None);
        }
        match vectors::look(path)? {
            Some(vectors::Format::FastText) => {
                let FastText { vectors: table, notes, .. } = fasttext::open(path)?;
                return Ok(Some(Box::new(vectors::Model { table, notes })));
            }
            Some(vectors::Format::Safetensors) => {
                if let Some(table) = vectors::open_parts(path)? {
                    return Ok(Some(Box::new(vectors::Model { table, notes: Vec::new() })));
                }
            }
            _ => {}
        }
        let model = |table: WordVectors| -> Box<dyn Model> {
            let notes = table.notes().to_vec();
            Box::new(vectors::Model { table, notes })
        };
        Ok(vectors::open(path)?.map(model))
    }
}

/// The recipe for a text, if the user gave none.
const GENERAL: &str = "[vocabulary]
min_count = 5

[pairs]
window = 5
subsample = 1e-4

[encoder.table]
width = 100

[loss.negative-sampling]
negatives = 5
power = 0.75

[optimizer.sgd]
rate = 0.05

[train]
epochs = 5
batch = 256
seed = 0
";
