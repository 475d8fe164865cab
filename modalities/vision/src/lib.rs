//! ctk's vision plugin: pictures from files, SimCLR's augmentations, ResNet.
//!
//! - [`decode`] turns PNG and JPEG bytes into an [`image::Picture`]; [`data`] finds out what lies at a path and reads it;
//!   [`generated`] is the dataset that needs no path; [`holdout`] makes a test split where there is none.
//! - [`resnet`] is the encoder; [`interop`] reads other programs' ResNets and writes ours for them.
//! - [`augment`] makes a view of a picture; [`pixels`] makes pairs and batches of views; [`preview`] shows them.
//! - [`task`] fine-tunes a trained network with few labels, and distils one into another.
//! - [`recipe`] is the config; [`Vision`] the front door, `bench` what stands behind `ctk bench vision`.

pub mod augment;
mod bench;
pub mod data;
pub mod decode;
pub mod generated;
pub mod holdout;
pub mod image;
pub mod interop;
mod job;
mod model;
mod network;
pub mod pixels;
pub mod preview;
pub mod recipe;
pub mod resnet;
pub mod task;

use std::path::Path;

use ctk_core::modality::{Job, Modality, Model};
use ctk_core::observer::Watch;
use ctk_core::recipe::Recipe;
use ctk_core::store::checkpoint::Checkpoint;
use ctk_core::train::bench::{Report, Request};
use ctk_core::{Device, Result, store::files};

/// `ctk train vision`.
pub struct Vision;

impl Modality for Vision {
    fn name(&self) -> &'static str {
        "vision"
    }

    fn recipe(&self, data: Option<&Path>) -> Result<String> {
        data.map_or_else(|| Ok(recipe::DEFAULT.to_string()), recipe::general)
    }

    fn schema(&self) -> serde_json::Value {
        schemars::schema_for!(recipe::VisionRecipe).to_value()
    }

    fn plan(&self, recipe: &Recipe) -> Result<Box<dyn Job>> {
        let checked = recipe::check(recipe)?;
        match checked.recipe.task.clone() {
            None => Ok(Box::new(job::Train::new(checked, recipe)?)),
            Some(task) => task::plan(task, checked, recipe),
        }
    }

    fn open(&self, from: &Checkpoint, device: &Device) -> Result<Box<dyn Model>> {
        Ok(Box::new(model::Trained::open(from, device)?))
    }

    fn import(&self, weights: &Path, set: &dyn Fn(&mut Recipe) -> Result<()>) -> Result<Option<(Recipe, Box<dyn Job>)>> {
        let found = interop::import::Found::open(weights)?;
        let mut recipe = found.recipe()?;
        set(&mut recipe)?;
        let job = found.by(&recipe)?;
        Ok(Some((recipe, Box::new(job))))
    }

    fn yardstick(&self) -> Result<&'static str> {
        Ok(bench::YARDSTICK)
    }

    fn bench(&self, recipe: &Recipe, request: &Request, watch: &mut dyn Watch) -> Result<Report> {
        bench::run(recipe, request, watch)
    }

    fn preview(&self, recipe: &Recipe, out: &Path) -> Result<()> {
        let checked = recipe::check(recipe)?;
        let images = job::open(&checked.recipe.data)?.pretraining();
        files::write(out, &preview::preview(&images, &checked.augment, checked.recipe.train.seed)?)
    }
}
