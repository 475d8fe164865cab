//! ctk's image-text plugin: an image and its caption become neighbours in one space (CLIP, Radford et al. 2021; SigLIP, Zhai et al. 2023).
//!
//! - Data: [`data`] are images with captions, [`source`] draws pairs of them; [`stored`] are features of other programs in place of a tower.
//! - Towers: [`network`] declares both, [`input`] is what they read; their encoders are those of the vision and the text plugin.
//! - Training: `recipe`, `ready`, `job`; `bench` times a step, `forecast` says how much memory a step needs.
//! - Files: `clip` reads and writes both towers as other programs have them.
//! - Use: [`embed`] makes rows of both sides, `model` is what verbs know of a trained model.

mod bench;
mod clip;
pub mod data;
pub mod embed;
mod forecast;
pub mod input;
mod job;
mod model;
pub mod network;
mod ready;
pub mod recipe;
pub mod source;
pub mod stored;
#[cfg(test)]
mod tests;

use std::path::Path;

use ctk_core::modality::{Job, Modality, Model};
use ctk_core::observer::Observer;
use ctk_core::recipe::Recipe;
use ctk_core::store::checkpoint::Checkpoint;
use ctk_core::train::bench::{Report, Request};
use ctk_core::{Device, Result};
use ctk_images::{crops, preview};
use ctk_vision::tower;

use crate::recipe::Checked;

const NAME: &str = "image-text";

/// The recipe keys that hold paths, besides the weights of encoders.
const PATHS: &[&str] = &[
    "data.path",
    "image.init",
    "image.features",
    "image.encoder.resnet.weights",
    "image.encoder.vit.weights",
    "text.features",
    "text.tokenizer.file",
    "text.encoder.transformer.weights",
    "text.encoder.static.weights",
    "train.init",
];

/// `ctk train image-text`.
pub struct ImageText;

impl Modality for ImageText {
    fn name(&self) -> &'static str {
        NAME
    }

    fn recipe(&self, data: Option<&Path>) -> Result<String> {
        data.map_or_else(|| Ok(recipe::DEFAULT.to_string()), recipe::general)
    }

    fn schema(&self) -> serde_json::Value {
        let mut schema = schemars::schema_for!(recipe::ImageTextRecipe).to_value();
        ctk_core::objective::LossRecipe::keep_only(&mut schema, |loss| recipe::TWO_SIDED.contains(&loss.name()));
        schema
    }

    fn plan(&self, recipe: &Recipe) -> Result<Box<dyn Job>> {
        Ok(Box::new(job::Train::new(Checked::new(recipe)?)?))
    }

    fn open(&self, from: &Checkpoint, device: &Device) -> Result<Box<dyn Model>> {
        Ok(Box::new(model::Trained::open(from, device)?))
    }

    fn open_file(&self, path: &Path, device: &dyn Fn() -> Result<Device>) -> Result<Option<Box<dyn Model>>> {
        Ok(model::Trained::of_folder(path, device)?.map(|model| Box::new(model) as Box<dyn Model>))
    }

    fn complete(&self, recipe: &mut Recipe) -> Result<()> {
        recipe::complete(recipe)
    }

    fn paths(&self) -> Vec<&'static str> {
        PATHS.to_vec()
    }

    fn set_init(&self, recipe: &mut Recipe, run: &Path) -> Result<()> {
        recipe::begun(recipe, run)
    }

    fn reads_weights_of(&self, other: &str) -> bool {
        [clip::VISION, "sentences", "word2vec"].contains(&other)
    }

    fn set_weights(&self, recipe: &mut Recipe, file: &Path, adopt: bool) -> Result<()> {
        clip::set_weights(recipe, file, adopt)
    }

    fn samples(&self) -> &'static str {
        "images"
    }

    fn yardstick(&self) -> Result<&'static str> {
        Ok(bench::YARDSTICK)
    }

    fn bench(&self, recipe: &Recipe, request: &Request, observer: &mut dyn Observer) -> Result<Report> {
        bench::run(recipe, request, observer)
    }

    fn about(&self, recipe: &Recipe) -> Result<Vec<String>> {
        let checked = Checked::new(recipe)?;
        let data =
            data::Data::of_model(&checked.recipe.data, &checked.recipe.captions, None)?.joined(&checked.recipe.captions)?;
        let mut lines = data.splits.lines();
        lines.extend(data.notes);
        lines.push(format!("image tower: {}", tower::title(&checked.recipe.image.encoder)));
        Ok(lines)
    }

    fn export_views(&self, recipe: &Recipe, views: usize, out: &Path) -> Result<()> {
        let checked = Checked::new(recipe)?;
        let images = checked.recipe.data.open_captioned()?.all();
        crops::write(&images, &checked.augment, checked.recipe.train.seed, views, out)
    }

    fn preview(&self, recipe: &Recipe, out: &Path) -> Result<Vec<String>> {
        let checked = Checked::new(recipe)?;
        let images = checked.recipe.data.open_captioned()?.pretraining();
        let shown = preview::preview(&images, &checked.augment, checked.recipe.train.seed)?;
        ctk_core::store::files::write(out, &shown.png)?;
        Ok(shown.notes)
    }
}
