//! Distillation: a student learns the predictions of a fine-tuned network (the teacher) for all images, labelled or not.
//!
//! Teacher and student get the same view (crop and flip); the teacher uses its running statistics. The teacher's logits are a part of the
//! batch: they are computed where views are made, so that a batch stays a pure function of (seed, epoch, samples). If labels have a part in
//! the loss, they are those of the labelled subset only. Nothing is chosen, so no image is held out of training.

use std::collections::HashSet;

use ctk_core::data::dataset::Dataset;
use ctk_core::data::known::Known;
use ctk_core::data::pair::Batch;
use ctk_core::data::source::{Paired, Source};
use ctk_core::modality::{Job, Summary};
use ctk_core::model::supervised::Logits;
use ctk_core::nn::pass::Precision;
use ctk_core::objective::{Distillation, UNLABELLED};
use ctk_core::observer::Event;
use ctk_core::process::Process;
use ctk_core::recipe::{Recipe, TrainRecipe};
use ctk_core::rng::Key;
use ctk_core::store::checkpoint::Checkpoint;
use ctk_core::store::run::Run;
use ctk_core::train::fit::fit_judged;
use ctk_core::train::plan::Plan;
use ctk_core::{Device, Error, Result};
use ctk_images::augment::NormaliseRecipe;
use ctk_images::dataset::Images;
use ctk_images::holdout::Holdout;
use ctk_images::pixels::Pixels;
use serde_json::json;

use super::{CLASSES, DistillRecipe, classes_of, classifier, kept, labelled, opened, pretrained};
use crate::best::{self, Watched};
use crate::fits;
use crate::network::ImageTower;
use crate::pairs::OneView;
use crate::recipe::Checked;
use crate::splits;

/// A checked `[task.distill]`, ready to run.
pub(super) struct Distill {
    task: DistillRecipe,
    checked: Checked,
    plan: Plan,
}

impl Distill {
    pub fn new(task: DistillRecipe, checked: Checked, text: &Recipe) -> Result<Self> {
        Ok(Distill { plan: checked.plan(text)?, task, checked })
    }
}

impl Job for Distill {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn run(self: Box<Self>, run: &mut Run, process: &mut Process) -> Result<Summary> {
        let (Checked { recipe, augment }, task) = (&self.checked, &self.task);
        let device = process.device().clone();
        let teacher = Teacher::open(task, recipe.pairs.normalise, recipe.train.precision, &device)?;
        let keep = kept(task.from_layer, &recipe.head);
        let origin = match (&task.from, run.latest()?) {
            (Some(from), None) => Some(pretrained(from, recipe, keep)?),
            _ => None,
        };
        let splits = splits::of_run(&recipe.data, recipe.train.seed, Holdout::stored(&teacher.checkpoint)?, run, process)?;
        teacher.check_classes(splits.train.classes(), task)?;
        let images = splits.pretraining();
        let (mut labels, mut watched) = (None, None);
        if recipe.checkpoint.keep_best && !splits.labelled() {
            return Err(best::unlabelled());
        }
        if task.alpha < 1.0 || recipe.checkpoint.keep_best {
            let (subset, chosen) = labelled(&splits, task.labels, task.seed, run, process)?;
            process.tell(&Event::Note(&subset.line(splits.train.len())));
            watched = Watched::of(recipe, &splits, &splits.train.select(&chosen), task.seed, run, process)?;
            let free: Option<HashSet<String>> = watched.as_ref().map(|watched| watched.rest.names().into_iter().collect());
            if watched.is_some() && splits.val.is_none() {
                process.tell(&Event::Note("the teacher may have been trained with these labels, if it held none back"));
            }
            if task.alpha < 1.0 {
                // The training split comes first in `images`.
                let mut known = vec![UNLABELLED; images.len()];
                let known_of = |i: &&usize| free.as_ref().is_none_or(|free| free.contains(&splits.train.name(**i)));
                chosen.iter().filter(known_of).for_each(|&i| known[i] = splits.train.label(i).unwrap_or(UNLABELLED));
                labels = Some(known);
            }
        }
        process.tell(&Event::Note(&images.cache_line()?));

        let classes = match splits.train.classes() {
            [] => classes_of(&teacher.checkpoint)?,
            own => Some(own.to_vec()),
        };
        if let Some(classes) = classes.filter(|_| process.writes()) {
            run.write(CLASSES, &serde_json::to_vec_pretty(&classes)?)?;
        }
        fits::check(recipe, images.len(), &device)?;
        let network = classifier::build(recipe, keep, teacher.tower.head.width(), task.seed, &device)?;
        if let Some(from) = &origin {
            classifier::start(&network.0, from)?;
        }
        let loss = Distillation { temperature: task.temperature, alpha: task.alpha };
        let mut learner = classifier::learner(recipe, network, Some(loss), task.bn);
        let source = Taught { pairs: Paired { data: images, pairs: OneView(augment.light()) }, teacher, labels };
        let train = TrainRecipe { seed: task.seed, ..self.plan.train.clone() };
        let judge = watched.as_ref().map(|watched| classifier::by_accuracy(watched, augment));
        let fitted = fit_judged(&source, &mut learner, &Plan { train, ..self.plan.clone() }, &mut [], judge, run, process)?;
        splits::at_the_end(&splits, process);

        let mut summary = Summary {
            steps: fitted.steps,
            epochs: fitted.epochs,
            loss: fitted.loss,
            seconds: fitted.seconds,
            figures: vec![
                ("start", json!(if task.from.is_some() { "pretrained" } else { "scratch" })),
                ("temperature", json!(task.temperature)),
                ("alpha", json!(task.alpha)),
                ("images", json!(source.len())),
            ],
            next: vec!["ctk export RUN --format safetensors --out model.safetensors"],
            ..Summary::default()
        };
        summary.best(fitted.best.as_ref(), "images", best::percent, "ctk eval classify RUN/checkpoints/best");
        // `images` are those that were trained on.
        summary.figures.extend(splits::figures(&splits).into_iter().filter(|(name, _)| *name != "images"));
        if let Some(test) = splits.test.as_ref().filter(|_| splits.labelled()) {
            let student = classifier::judge(&learner.towers.tower, test, augment)?;
            let taught = classifier::judge(&source.teacher.tower, test, augment)?;
            summary.figures.extend([
                ("top1", json!(student.top1())),
                ("teacher_top1", json!(taught.top1())),
                ("test", json!(student.count)),
            ]);
        }
        Ok(summary)
    }
}

/// A fine-tuned network whose parameters do not change.
struct Teacher {
    tower: ImageTower,
    checkpoint: Checkpoint,
    precision: Precision,
}

impl Teacher {
    fn open(task: &DistillRecipe, normalise: Option<NormaliseRecipe>, precision: Precision, device: &Device) -> Result<Teacher> {
        let place = task.teacher.display();
        let (checkpoint, checked) = opened(&task.teacher)?;
        let recipe = &checked.recipe;
        let of = recipe.task.as_ref().ok_or_else(|| {
            Error::usage("this run has no classifier, so it cannot teach").at(&place).hint("fine-tune it first: ctk finetune RUN")
        })?;
        if recipe.pairs.normalise != normalise {
            return Err(Error::usage("teacher and student must see the same views: their pairs.normalise differ").at(&place));
        }
        let tower = classifier::trained(recipe, of, &checkpoint, device)?;
        Ok(Teacher { tower, checkpoint, precision })
    }

    /// Checks that the student's data has the teacher's classes, by name if the teacher's run stores names.
    fn check_classes(&self, classes: &[String], task: &DistillRecipe) -> Result<()> {
        let wrong = |theirs: String| {
            Err(Error::usage(format!("the teacher's classes are {theirs}, and the data has {} others", classes.len()))
                .at(task.teacher.display()))
        };
        // Data without labels has no classes that could differ.
        if classes.is_empty() {
            return Ok(());
        }
        if classes.len() != self.tower.head.width() {
            return wrong(format!("{} classes", self.tower.head.width()));
        }
        match classes_of(&self.checkpoint)? {
            Some(theirs) if theirs != classes => wrong(theirs.join(", ")),
            _ => Ok(()),
        }
    }

    fn logits(&self, views: &Pixels) -> Result<Logits> {
        let rows = classifier::logits(&self.tower, views, self.precision)?;
        Ok(Logits { rows, classes: self.tower.head.width() })
    }
}

/// Views of images, the teacher's logits for them, and the labels that may be used.
struct Taught {
    pairs: Paired<Images, OneView>,
    teacher: Teacher,
    labels: Option<Vec<u32>>,
}

impl Source for Taught {
    type Batch = Batch<Pixels, Logits>;

    fn len(&self) -> usize {
        self.pairs.len()
    }

    fn draw(&self, samples: &[u32], key: Key) -> Result<Self::Batch> {
        let batch = self.redraw(samples, key)?;
        let right = if samples.is_empty() { Vec::new() } else { vec![self.teacher.logits(&batch.left[0])?] };
        let labels = self.labels.as_ref().map(|labels| samples.iter().map(|&s| labels[s as usize]).collect());
        Ok(Batch { right, known: Known { labels, ..batch.known }, ..batch })
    }

    /// The views alone: the second pass does not compute the loss, so it needs no teacher.
    fn redraw(&self, samples: &[u32], key: Key) -> Result<Self::Batch> {
        self.pairs.draw(samples, key)
    }
}
