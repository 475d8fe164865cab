//! ctk's vision plugin: image encoders, trained by contrastive learning, fine-tuned, distilled.
//!
//! - [`encoder`] is the list of encoders; each has a file of its own, which also reads other programs' networks of its kind; `import` turns
//!   one into a run.
//! - [`pairs`] makes the views of a batch, from the datasets and augmentations of [`ctk_images`].
//! - [`task`] fine-tunes a trained network with few labels, and distils one into another.
//! - [`tower`] is what another plugin needs of image encoders.
//! - [`recipe`] is the config; [`Vision`] implements the modality, and `bench` implements `ctk bench vision`.

mod baselines;
mod bench;
mod best;
mod calibration;
pub mod encoder;
mod features;
mod fits;
mod forecast;
mod import;
mod init;
mod job;
mod methods;
mod model;
mod network;
pub mod pairs;
pub mod recipe;
mod splits;
pub mod task;
pub mod tower;

use std::path::Path;

use ctk_core::data::dataset::Dataset as _;
use ctk_core::modality::{DataCheck, Job, Modality, Model};
use ctk_core::nn::params::Params;
use ctk_core::observer::Observer;
use ctk_core::recipe::Recipe;
use ctk_core::store::checkpoint::Checkpoint;
use ctk_core::task::TaskRequest;
use ctk_core::train::bench::{Report, Request};
use ctk_core::{Device, Error, Result, store::files};
use ctk_images::recipe::Paths;
use ctk_images::{check, crops, preview};

use crate::recipe::VisionRecipe;

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
        let mut schema = schemars::schema_for!(recipe::VisionRecipe).to_value();
        ctk_core::objective::LossRecipe::leave_out(&mut schema, |needs| needs.scores || needs.teacher);
        schema
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
        let found = import::Found::open(weights)?;
        let mut recipe = found.recipe()?;
        set(&mut recipe)?;
        let job = found.by(&recipe)?;
        Ok(Some((recipe, Box::new(job))))
    }

    fn set_init(&self, recipe: &mut Recipe, run: &Path) -> Result<()> {
        // A new run takes the encoder of a fine-tuned run, and has no task.
        recipe.remove("task")?;
        recipe.set_path("train.init", run)
    }

    fn set_weights(&self, recipe: &mut Recipe, file: &Path, adopt: bool) -> Result<()> {
        init::set_weights(recipe, file, adopt)
    }

    fn set_method(&self, recipe: &mut Recipe, name: &str) -> Result<()> {
        methods::set(recipe, name)
    }

    fn paths(&self) -> Vec<&'static str> {
        let own = ["data.path", "train.init", "task.finetune.from", "task.distill.teacher", "task.distill.from"];
        own.iter().chain(encoder::WEIGHTS).copied().collect()
    }

    fn complete(&self, recipe: &mut Recipe) -> Result<()> {
        recipe.set_absent("schedule.length", "steps")?;
        for (key, value) in recipe::stated(&recipe.parse()?)? {
            recipe.set_absent(&key, &value)?;
        }
        Ok(())
    }

    fn task(&self, from: &Checkpoint, request: &TaskRequest) -> Result<Recipe> {
        task::recipe(from, request)
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

    fn check_data(&self, recipe: &Recipe) -> Result<DataCheck> {
        let checked = recipe::check(recipe)?;
        let VisionRecipe { data, train, .. } = &checked.recipe;
        check::check(data.found()?, &data.path.as_ref().map(Paths::place).unwrap_or_default(), &checked.augment, train.seed)
    }

    fn about(&self, recipe: &Recipe) -> Result<Vec<String>> {
        let checked = recipe::check(recipe)?.recipe;
        let splits = checked.data.open()?;
        // Declared only, without allocating values.
        let mut params = Params::new();
        network::declared(checked.encoder.architecture(), &checked, &mut params)?;
        let mut lines = splits.lines();
        lines.extend(forecast::lines(&checked, &params, splits.pretraining().len(), &Device::Cpu));
        lines.extend(forecast::shrunk(&checked, splits.pretraining().median_side(64).ok()));
        lines.push(forecast::measures(&checked, splits.labelled()));
        Ok(lines)
    }

    fn export_views(&self, recipe: &Recipe, views: usize, out: &Path) -> Result<()> {
        let checked = recipe::check(recipe)?;
        let images = checked.recipe.data.open()?.all();
        crops::write(&images, &checked.augment, checked.recipe.train.seed, views, out)
    }

    fn preview(&self, recipe: &Recipe, out: &Path) -> Result<Vec<String>> {
        if !out.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("png")) {
            return Err(Error::usage("a preview is a PNG file").at(out.display()).hint("give a name that ends in .png"));
        }
        let checked = recipe::check(recipe)?;
        let images = checked.recipe.data.open()?.pretraining();
        let shown = preview::preview(&images, &checked.augment, checked.recipe.train.seed)?;
        files::write(out, &shown.png)?;
        Ok(shown.notes)
    }
}
