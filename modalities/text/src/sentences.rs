//! Sentences: encoders of texts, trained on pairs of texts or on texts alone.
//!
//! - Data: [`data`] draws batches of tokens, [`tokenizing`] makes tokens of texts.
//! - Training: [`recipe`], [`start`] (what a run begins with; `origin` tells what kind of encoder is at a path), [`job`], [`learner`]; `dev`
//!   measures on held-out pairs; `forecast` says how much memory a step needs, `bench` how long it takes.
//! - Few labels: [`finetune`] makes a classifier of an encoder.
//! - Distillation: [`distill`] makes static embeddings of transformers.
//! - Use: [`encoder`] embeds texts, `model` is what verbs know of it, `prompts` are what may stand before texts.
//! - Networks and files: [`network`] describes encoders, [`table`] is static embeddings; [`folder`] opens the folders that
//!   sentence-transformers, transformers, open_clip and model2vec write (`towers` those of CLIP and SigLIP), and [`export`] writes one.

use std::path::Path;

use ctk_core::modality::{Job, Modality, Model};
use ctk_core::observer::Observer;
use ctk_core::recipe::Recipe;
use ctk_core::store::checkpoint::Checkpoint;
use ctk_core::task::{Task, TaskRequest};
use ctk_core::train::bench::{Report, Request};
use ctk_core::{Device, Result};

mod bench;
pub mod data;
mod dev;
pub mod distill;
pub mod encoder;
pub mod export;
pub mod finetune;
pub mod folder;
pub mod forecast;
pub mod job;
pub mod learner;
mod model;
pub mod network;
mod origin;
mod prompts;
pub mod recipe;
pub mod start;
pub mod table;
#[cfg(test)]
mod tests;
pub mod tokenizing;
mod towers;

const NAME: &str = "sentences";

/// The recipe keys that hold paths.
const PATHS: &[&str] = &[
    "data.path",
    "data.source.path",
    "data.dev",
    "tokenizer.file",
    "encoder.transformer.weights",
    "encoder.static.weights",
    "task.finetune.from",
    "task.finetune.test",
    "task.distill.teacher",
    "task.distill.rows",
    "task.distill.vocabulary",
];

/// The modality.
pub struct Sentences;

impl Modality for Sentences {
    fn name(&self) -> &'static str {
        NAME
    }

    fn recipe(&self, data: Option<&Path>) -> Result<String> {
        Ok(data.map_or_else(|| recipe::DEFAULT.to_string(), recipe::general))
    }

    fn schema(&self) -> serde_json::Value {
        schemars::schema_for!(recipe::SentencesRecipe).to_value()
    }

    fn plan(&self, recipe: &Recipe) -> Result<Box<dyn Job>> {
        let (recipe, plan) = recipe::SentencesRecipe::check(recipe)?;
        Ok(match recipe.task.clone() {
            None => Box::new(job::Train::new(recipe, plan)),
            Some(recipe::TaskRecipe::Finetune(task)) => Box::new(finetune::job::Finetuning::new(task, recipe, plan)),
            Some(recipe::TaskRecipe::Distill(task)) => Box::new(distill::Distilling::new(task, recipe, plan)),
        })
    }

    fn complete(&self, recipe: &mut Recipe) -> Result<()> {
        recipe::complete(recipe)
    }

    fn paths(&self) -> Vec<&'static str> {
        PATHS.to_vec()
    }

    fn task(&self, from: &Checkpoint, request: &TaskRequest) -> Result<Recipe> {
        match request.task {
            Task::Finetune(_) => finetune::recipe::written(Some(from), request),
            Task::Distill(_) => distill::recipe::written(request),
        }
    }

    fn foreign_task(&self, request: &TaskRequest) -> Result<Option<Recipe>> {
        if !origin::is_foreign(&request.run)? {
            return Ok(None);
        }
        match request.task {
            Task::Finetune(_) => finetune::recipe::written(None, request).map(Some),
            Task::Distill(_) => distill::recipe::written(request).map(Some),
        }
    }

    fn set_init(&self, recipe: &mut Recipe, run: &Path) -> Result<()> {
        distill::recipe::continued(recipe, run)
    }

    fn distills_classes(&self) -> bool {
        false
    }

    fn samples(&self) -> &'static str {
        "texts"
    }

    fn yardstick(&self) -> Result<&'static str> {
        Ok(bench::YARDSTICK)
    }

    fn bench(&self, recipe: &Recipe, request: &Request, observer: &mut dyn Observer) -> Result<Report> {
        bench::run(recipe, request, observer)
    }

    /// The words of a run of word2vec are the table of a static embedding.
    fn reads_weights_of(&self, other: &str) -> bool {
        other == crate::word2vec::NAME
    }

    fn set_weights(&self, recipe: &mut Recipe, file: &Path, adopt: bool) -> Result<()> {
        if adopt {
            return distill::recipe::begun(recipe, file);
        }
        let table = origin::Origin::of(file)?.is_table()?;
        let (own, other) = if table { ("static", "transformer") } else { ("transformer", "static") };
        recipe.remove(&format!("encoder.{other}"))?;
        recipe.set_path(&format!("encoder.{own}.weights"), file)
    }

    fn open(&self, from: &Checkpoint, device: &Device) -> Result<Box<dyn Model>> {
        Ok(Box::new(model::Model::of_run(from, device)?))
    }

    fn open_file(&self, path: &Path, device: &dyn Fn() -> Result<Device>) -> Result<Option<Box<dyn Model>>> {
        let Some(folder) = folder::at(path)? else { return Ok(None) };
        Ok(Some(Box::new(model::Model::of_folder(&folder, &device()?)?)))
    }
}
