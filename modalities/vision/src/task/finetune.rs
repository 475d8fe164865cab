//! Fine-tuning with few labels, and the supervised baseline: the same network trained on them from scratch.
//!
//! The labelled images are a seeded, class-balanced part of the training split ([`Subset`](ctk_core::data::labels::Subset)). Views are crop
//! and flip. Learning rate, epochs and crop are chosen by cross-validation on these images. Then the network is trained on all of them, to
//! the end: there is no validation set for early stopping.

use ctk_core::data::dataset::Dataset;
use ctk_core::data::labels;
use ctk_core::data::source::Paired;
use ctk_core::modality::{Job, Summary};
use ctk_core::observer::Event;
use ctk_core::optim::Schedule;
use ctk_core::process::Process;
use ctk_core::recipe::{Every, Precision, Recipe, TrainRecipe};
use ctk_core::store::checkpoint::Checkpoint;
use ctk_core::store::run::Run;
use ctk_core::train::fit::{Fitted, fit_judged};
use ctk_core::train::plan::Plan;
use ctk_core::{Device, Result};
use ctk_images::dataset::Images;
use ctk_images::holdout::Holdout;
use serde_json::json;

use super::classifier::{self, Judged, Learner};
use super::folds;
use super::search::{self, Choice};
use super::{FinetuneRecipe, kept, labelled, pretrained};
use crate::best::{self, Watched};
use crate::fits;
use crate::pairs::OneView;
use crate::recipe::Checked;
use crate::splits;

/// A checked `[task.finetune]`, ready to run.
pub(super) struct Finetune {
    task: FinetuneRecipe,
    checked: Checked,
    plan: Plan,
}

impl Finetune {
    pub fn new(task: FinetuneRecipe, checked: Checked, text: &Recipe) -> Result<Self> {
        Ok(Finetune { plan: checked.plan(text)?, task, checked })
    }

    /// Every combination of the values to choose from, in the order in which they are written.
    fn candidates(&self) -> Vec<Choice> {
        fn or<T: Copy>(given: &[T], own: T) -> Vec<T> {
            if given.is_empty() { vec![own] } else { given.to_vec() }
        }
        let Checked { recipe, augment } = &self.checked;
        let rates = or(&self.task.rates, recipe.optimizer.rate());
        let epochs = or(&self.task.epochs, recipe.train.epochs);
        let crops = or(&self.task.crops, augment.smallest_crop());
        let with_crop = |rate: f64, epochs: usize| crops.iter().map(move |&crop| Choice { rate, epochs, crop });
        rates.iter().flat_map(|&rate| epochs.iter().flat_map(move |&epochs| with_crop(rate, epochs))).collect()
    }

    /// Trains on `images` by `choice`, from the start or from the checkpoint of `run`. A trial of the cross-validation is saved only at its
    /// end.
    fn train(
        &self,
        choice: &Choice,
        images: Images,
        start: &Start,
        trial: bool,
        run: &mut Run,
        process: &mut Process,
    ) -> Result<(Learner, Fitted)> {
        let Checked { recipe, augment } = &self.checked;
        let (keep, seed) = (kept(self.task.from_layer, &recipe.head), self.task.seed);
        let network = classifier::build(recipe, keep, images.classes().len(), seed, &start.device)?;
        // A resumed run has its own values; the run that it started from need not exist any more.
        if let Some(from) = start.values.as_ref().filter(|_| !matches!(run.latest(), Ok(Some(_)))) {
            classifier::start(&network.0, from)?;
        }
        let mut learner = classifier::learner(recipe, network, None, self.task.bn);
        let batch = classifier::batch(images.len(), recipe.train.batch);
        let train = TrainRecipe { epochs: choice.epochs, batch, seed, ..self.plan.train.clone() };
        let mut plan = Plan { train, schedule: Schedule::new(&recipe.schedule, choice.rate), ..self.plan.clone() };
        if trial {
            plan.saves.every = Every::Epochs(choice.epochs);
        }
        let source = Paired { data: images, pairs: OneView(augment.light().cropped(choice.crop)) };
        let watched = start.watched.as_ref().filter(|_| !trial);
        let judge = watched.map(|watched| classifier::by_accuracy(watched, augment));
        let fitted = fit_judged(&source, &mut learner, &plan, &mut [], judge, run, process)?;
        Ok((learner, fitted))
    }
}

/// The start of training, and the images that decide about the best checkpoint.
struct Start {
    values: Option<Checkpoint>,
    device: Device,
    /// The images that decide about the best checkpoint.
    watched: Option<Watched>,
}

impl Job for Finetune {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn run(self: Box<Self>, run: &mut Run, process: &mut Process) -> Result<Summary> {
        let (Checked { recipe, augment }, task) = (&self.checked, &self.task);
        let origin = match (&task.from, run.latest()?) {
            (Some(from), None) => Some(pretrained(from, recipe, kept(task.from_layer, &recipe.head))?),
            _ => None,
        };
        let inherited = origin.as_ref().map(Holdout::stored).transpose()?.flatten();
        let (values, device) = (origin.filter(|_| !task.scratch), process.device().clone());
        let splits = splits::of_run(&recipe.data, recipe.train.seed, inherited, run, process)?;
        let (subset, chosen) = labelled(&splits, task.labels, task.seed, run, process)?;
        process.tell(&Event::Note(&subset.line(splits.train.len())));
        subset.fewer(&splits.train.labels().unwrap_or_default()).iter().for_each(|note| process.tell(&Event::Note(note)));
        let images = splits.train.select(&chosen);
        let watched = Watched::of(recipe, &splits, &images, task.seed, run, process)?;
        // Held-back images are used neither for training nor for the choice.
        let images = watched.as_ref().map_or(images, |watched| watched.rest.clone());
        fits::check(recipe, images.len(), &device)?;
        let start = Start { values, device, watched };

        let of = images.labels().unwrap_or_default();
        let fold = labels::folds(&images.names(), &of, task.folds, task.seed);
        let candidates = self.candidates();
        let found = search::choose(&candidates, task.calibrate, &fold, run, process, |choice, rest, held, run, process| {
            let (learner, _) = self.train(choice, images.select(rest), &start, true, run, process)?;
            let rows = classifier::evaluated(&learner.towers.tower, &images.select(held), augment, Precision::F32)?;
            let labels: Vec<u32> = held.iter().map(|&i| of[i]).collect();
            Ok((Judged::of(&rows, &labels), rows))
        })?;
        folds::keep(&found.held, &images, run)?;
        run.remove(search::FOLDER)?;
        let Choice { rate, epochs, crop } = found.choice;
        process.tell(&Event::Note(&format!("training on all {} by rate {rate}, {epochs} epochs, crop {crop}", images.len())));
        let (learner, fitted) = self.train(&found.choice, images, &start, false, run, process)?;
        splits::at_the_end(&splits, process);

        let mut summary = Summary {
            steps: fitted.steps,
            epochs: fitted.epochs,
            loss: fitted.loss,
            seconds: fitted.seconds,
            figures: vec![
                ("start", json!(if task.scratch { "scratch" } else { "pretrained" })),
                ("labels", json!(task.labels)),
                ("label_seed", json!(task.seed)),
                ("labelled", json!(subset.names.len())),
                ("rate", json!(rate)),
                ("crop", json!(crop)),
                ("fold_top1", json!(found.top1)),
            ],
            next: vec![
                "ctk predict RUN --data IMAGES --out predicted.csv",
                "ctk export RUN --format safetensors --out model.safetensors",
                "ctk distill RUN",
            ],
            ..Summary::default()
        };
        summary.figures.extend(fitted.figures());
        summary.figures.extend(splits::figures(&splits));
        summary.best(fitted.best.as_ref(), "images", best::percent, "ctk eval classify RUN/checkpoints/best");
        if let Some(test) = &splits.test {
            let judged = classifier::judge(&learner.towers.tower, test, augment)?;
            summary.figures.extend([("top1", json!(judged.top1())), ("test", json!(judged.count))]);
        }
        Ok(summary)
    }
}
