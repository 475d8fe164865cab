//! `ctk import`: turns another program's weights into a run of ctk, as if it had been trained here.
//!
//! First the recipe is made from the file, and may be changed by `--set`. Then the recipe's network is declared, and must agree with the
//! file in every name and shape. The checkpoint is that of a training run before its first step.

use std::path::{Path, PathBuf};

use ctk_core::modality::{Job, Summary};
use ctk_core::model::encoder::Encoder as _;
use ctk_core::observer::Event;
use ctk_core::process::Process;
use ctk_core::recipe::{HeadRecipe, Recipe};
use ctk_core::store::run::Run;
use ctk_core::train::learner::Learner as _;
use ctk_core::train::plan::Plan;
use ctk_core::{Error, Result};
use serde_json::json;

use crate::encoder::{self, Foreign, Meant};
use crate::network;
use crate::recipe::{self, Checked};

/// Another program's network, recognised by its names and shapes.
pub(crate) struct Found {
    path: PathBuf,
    weights: Box<dyn Foreign>,
}

impl Found {
    /// Opens the weights at `path`.
    ///
    /// # Errors
    /// Those of [`encoder::recognise`]; or a run of ctk.
    pub fn open(path: &Path) -> Result<Found> {
        let (file, weights) = encoder::recognise(path)?;
        file.not_ours(path)?;
        Ok(Found { path: path.to_path_buf(), weights })
    }

    /// The recipe that describes the weights.
    ///
    /// # Errors
    /// Ctk does not have this network.
    pub fn recipe(&self) -> Result<Recipe> {
        let text = text(&self.path, &self.weights.layout(), &self.weights.encoder()?, &self.weights.head());
        Ok(Recipe::new(format!("the recipe of {}", self.path.display()), text))
    }

    /// The job that makes a run of them by [`recipe`](Self::recipe), or by a changed recipe.
    ///
    /// # Errors
    /// A mistake in the recipe, with line and column.
    pub fn by(self, text: &Recipe) -> Result<Import> {
        let checked = recipe::check(text)?;
        let of = &checked.recipe;
        let fresh = of.encoder.architecture().weights().is_none();
        text.require(fresh, &of.encoder.key("weights"), "the weights are those that are imported")?;
        text.require(of.task.is_none(), "task", "weights are imported first: `ctk finetune` is for the run that this makes")?;
        Ok(Import { plan: checked.plan(text)?, found: self, checked })
    }
}

fn text(path: &Path, layout: &str, encoder: &Meant, head: &HeadRecipe) -> String {
    let Meant { title, section, input } = encoder;
    let mut text = format!(
        "# A {title} that another program trained, under the names of {layout}.\n\
         # Run: ctk import {}\n\
         [data]\nbackground = \"drop\"\n\n\
         {}\n",
        // A comment is a single line, whatever the path contains.
        path.display().to_string().replace(|c: char| c.is_control(), " "),
        input.section(),
    );
    text.push_str(&format!("{section}\n[head]\nlayers = {}\nwidth = {}\n", head.layers, head.width));
    if let Some(hidden) = head.hidden {
        text.push_str(&format!("hidden = {hidden}\n"));
    }
    text
}

/// Weights and their recipe, ready to become a run.
pub(crate) struct Import {
    found: Found,
    checked: Checked,
    plan: Plan,
}

impl Job for Import {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Everything is read and compared before the folder is made.
    fn run(self: Box<Self>, run: &mut Run, process: &mut Process) -> Result<Summary> {
        let recipe = &self.checked.recipe;
        let Found { path, weights } = &self.found;
        let learner = network::learner(recipe, process.device())?;
        weights.load(&learner.params, recipe.head.layers > 0)?;
        if process.stopping() {
            return Err(Error::interrupted("stopped before anything was written").at(path.display()));
        }
        weights.notes().iter().for_each(|note| process.tell(&Event::Note(note)));
        if weights.said().normalise.is_none() {
            let assumed = match recipe.pairs.normalise {
                None => "stay in [0, 1]".to_string(),
                Some(of) => format!("are normalised by mean {:?} and deviation {:?}", of.mean, of.deviation),
            };
            let how = "--set 'pairs.normalise={mean=[…],deviation=[…]}' says otherwise";
            process.tell(&Event::Note(&format!(
                "no file beside the weights says how images are prepared: values {assumed} ({how})"
            )));
        }
        process.tell(&Event::Note(&encoder::told(&recipe.pairs)));
        if process.writes() {
            run.save(0, self.plan.saves.keep, |writer| learner.save(writer))?;
        }

        let (mean, deviation) = encoder::mean_and_deviation(&recipe.pairs);
        let normalise = recipe.pairs.normalise.map(|_| json!({ "mean": mean, "deviation": deviation }));
        let mut figures = vec![("layout", json!(weights.layout()))];
        figures.extend(recipe.encoder.architecture().figures());
        figures.extend([
            ("features", json!(learner.towers.tower.encoder.width())),
            ("head_layers", json!(recipe.head.layers)),
            ("normalise", json!(normalise)),
        ]);
        Ok(Summary { figures, ..Summary::default() })
    }
}
