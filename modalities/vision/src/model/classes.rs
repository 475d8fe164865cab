//! The classifier of a fine-tuned or distilled run: its predictions for images, by class names.

use std::collections::HashSet;

use ctk_core::data::dataset::Dataset;
use ctk_core::data::labels::Subset;
use ctk_core::eval::Predictions;
use ctk_core::modality::{Classifier, Query, Split};
use ctk_core::model::plain::plain;
use ctk_core::nn::params::HEAD;
use ctk_core::{Context, Error, Result};
use ctk_images::dataset::{Digest, Images};
use ctk_images::holdout::Holdout;
use serde_json::json;

use super::Trained;
use crate::best;
use crate::encoder::ClassifierExport;
use crate::network::ImageTower;
use crate::splits;
use crate::task::classifier;
use crate::task::{Folds, TaskRecipe, classes_of, given};

/// The largest number of images that a temperature is fitted on; more would not change it.
const ENOUGH: usize = 5_000;

/// A run's classifier.
pub(super) struct Classes<'a> {
    of: &'a Trained,
    task: &'a TaskRecipe,
    tower: ImageTower,
    /// The class names by number.
    names: Vec<String>,
    /// Whether these are real names, or numbers because there are none.
    named: bool,
    notes: Vec<String>,
}

impl<'a> Classes<'a> {
    /// Opens the classifier of a run.
    ///
    /// # Errors
    /// The run was neither fine-tuned nor distilled.
    pub fn open(of: &'a Trained) -> Result<Classes<'a>> {
        let recipe = &of.checked.recipe;
        // The run's path as the user gave it, if that is known.
        let run = of.checkpoint.folder().ancestors().nth(2).filter(|run| !run.as_os_str().is_empty());
        let run = run.unwrap_or(of.checkpoint.folder()).display().to_string();
        let task = recipe.task.as_ref().ok_or_else(|| {
            Error::usage("this run has no classifier, so it cannot predict classes")
                .at(&run)
                .hint(format!("train one on its features, with labels: ctk finetune {run} --labels 100%"))
        })?;
        let tower = classifier::trained(recipe, task, &of.checkpoint, &of.device)?;
        let (names, named, notes) = named(of, tower.head.width())?;
        Ok(Classes { of, task, tower, names, named, notes })
    }

    fn of(&self, images: &Images) -> Result<Predictions> {
        let logits = classifier::evaluated(&self.tower, images, &self.of.checked.augment, self.of.precision)?;
        let labels: Vec<Option<u32>> = (0..images.len()).map(|i| images.label(i)).collect();
        let found = Predictions::new(&self.names, images.names(), &labels, images.classes(), logits)?;
        Ok(Predictions { notes: self.notes.clone(), ..found })
    }

    /// The same for images that it is evaluated on.
    fn part(&self, images: &Images, part: &str) -> Result<Predictions> {
        if !self.named {
            return Err(Error::usage("this run does not store the names of its classes, so labels cannot be compared with them")
                .at(self.of.checkpoint.folder().display())
                .hint("give the run's folder with its labels.json or classes.json, or fine-tune it again"));
        }
        if images.classes().is_empty() {
            return Err(Error::usage("this data has no labels, so nothing can be evaluated")
                .hint("give data with classes (one folder for each class); `ctk predict` needs no labels"));
        }
        Ok(Predictions { extras: vec![("part", json!(part))], ..self.of(images)? })
    }

    /// The images on which the classifier is evaluated for `query`, and the name of their part.
    fn measure(&self, query: &Query) -> Result<(Images, &'static str)> {
        let Trained { checked, checkpoint, .. } = self.of;
        let recipe = &checked.recipe;
        let query = Query { split: Split::Test, ..query.clone() };
        let Some(path) = query.data.as_ref().filter(|_| query.files.is_empty()) else {
            let splits = splits::of_model(recipe, checkpoint, &query)?;
            return Ok(splits.test.map_or((splits.train, "all"), |test| (test, "test")));
        };
        let splits = recipe.data.of(path).open_to_use()?;
        if let Some(test) = splits.test.as_ref().filter(|test| !test.classes().is_empty()) {
            return Ok((test.clone(), "test"));
        }
        // This may be the data that the run was trained on: then it is evaluated on the hold-out.
        let held = Holdout::stored(checkpoint)?.and_then(|held| held.apply(&splits.train).ok()).and_then(|splits| splits.test);
        Ok(held.map_or((splits.train, "all"), |held| (held, "test")))
    }

    /// The predictions for `images`, for fitting a temperature.
    fn fitted_on(&self, images: &Images, set: &str, part: &str) -> Result<Predictions> {
        let found = self.part(images, part)?;
        Ok(Predictions { extras: vec![("part", json!(part)), ("calibration_set", json!(set))], ..found })
    }

    /// The predictions of fine-tuning's cross-validation for its held-out images.
    fn folds(&self, folds: Folds) -> Result<Predictions> {
        let labels: Vec<Option<u32>> = folds.labels.into_iter().map(Some).collect();
        let found = Predictions::new(&self.names, folds.names, &labels, &self.names, folds.logits)?;
        let part = "labelled images in folds, each by a network that was trained on the other folds";
        Ok(Predictions { extras: vec![("part", json!(part)), ("calibration_set", json!("folds"))], ..found })
    }

    fn nothing_held_back(&self) -> Error {
        let what = "a temperature is fitted on labels that were not trained on, and this run was trained on all of them";
        let hint = match self.task {
            TaskRecipe::Finetune(_) => {
                "fine-tune again with --set task.finetune.calibrate=true, which holds out folds of them for it, or with a part of them \
                 (--labels 90%), or give the data a part `val`; it is never fitted on test labels"
            }
            TaskRecipe::Distill(_) => {
                "give the data a part `val`, or distil from a run that was fine-tuned with a part of the labels (--labels 90%); the \
                 folds of the teacher are not the student's, and it is never fitted on test labels"
            }
        };
        Error::usage(what).hint(hint)
    }
}

/// A sufficient number of images, spread evenly over `images`.
fn thinned(images: &Images) -> Images {
    match images.len() <= ENOUGH {
        true => images.clone(),
        false => images.select(&(0..ENOUGH).map(|i| i * images.len() / ENOUGH).collect::<Vec<_>>()),
    }
}

/// The classifier of a run, for export.
pub(super) fn export(of: &Trained, task: &TaskRecipe) -> Result<ClassifierExport> {
    let head = &of.checked.recipe.head;
    let layers = plain(head, task.kept(head), &of.checkpoint.reader().tensors(HEAD)?).at(of.checkpoint.folder().display())?;
    let count = layers.last().map_or(0, |last| last.bias.elem_count());
    Ok(ClassifierExport { layers, classes: named(of, count)?.0 })
}

/// The class names: as stored in the run, or else those of its data, or else their numbers. Also whether these are real names, and notes.
fn named(of: &Trained, count: usize) -> Result<(Vec<String>, bool, Vec<String>)> {
    if let Some(names) = classes_of(&of.checkpoint)?.filter(|names| names.len() == count) {
        return Ok((names, true, Vec::new()));
    }
    // A run of an earlier version, or a checkpoint that was moved out of its run.
    let own = of.checked.recipe.data.open().map(|splits| splits.train.classes().to_vec()).unwrap_or_default();
    Ok(if own.len() == count {
        let note = "the run does not store the names of its classes: those of the data that it was trained on are used";
        (own, true, vec![note.to_string()])
    } else {
        let note = "the run does not store the names of its classes, and its data is missing: classes are numbered from 0";
        ((0..count).map(|class| class.to_string()).collect(), false, vec![note.to_string()])
    })
}

impl Classifier for Classes<'_> {
    fn samples(&self) -> &'static str {
        "images"
    }

    fn predictions(&self, query: &Query) -> Result<Predictions> {
        let splits = splits::of_model(&self.of.checked.recipe, &self.of.checkpoint, query)?;
        let told = splits.told(splits::is_other(query));
        let found = self.of(&match query.split {
            Split::All => splits.all(),
            Split::Train => splits.train,
            Split::Test => splits
                .test
                .ok_or_else(|| Error::usage("this data has no test part").hint("leave out --split, to have all of it"))?,
        })?;
        Ok(Predictions { notes: [found.notes, told].concat(), ..found })
    }

    fn judged(&self, query: &Query) -> Result<Predictions> {
        let (images, part) = self.measure(query)?;
        self.part(&images, part)
    }

    fn held_back(&self, query: &Query) -> Result<Predictions> {
        let Trained { checked, checkpoint, .. } = self.of;
        let by_folds = || Folds::of(checkpoint)?.map(|folds| self.folds(folds)).transpose();
        let own = Query { split: Split::Train, ..Query::default() };
        let splits = match splits::of_model(&checked.recipe, checkpoint, &own) {
            Ok(splits) => splits,
            // The predictions for the folds are stored in the run.
            Err(gone) => return by_folds()?.ok_or(gone),
        };
        // An image that the classifier is evaluated on is not used for fitting, whatever part it is in.
        let judged: HashSet<Digest> = self.measure(query)?.0.digests()?.into_iter().collect();
        let apart = |images: Images| -> Result<Images> {
            let digests = images.digests()?;
            Ok(images.select(&(0..images.len()).filter(|&i| !judged.contains(&digests[i])).collect::<Vec<_>>()))
        };
        if let Some(val) = splits.val.as_ref().filter(|val| !val.classes().is_empty()) {
            let val = apart(thinned(val))?;
            if !val.is_empty() {
                return self.fitted_on(&val, "val", "images of the part `val`");
            }
        }
        let train = splits.train;
        if let Some(labels) = train.labels().filter(|_| !train.classes().is_empty()) {
            let (amount, seed) = self.task.labels();
            let drawn = || Subset::draw(&train.names(), &labels, train.classes(), amount, seed).0;
            let mut given: HashSet<String> = given(checkpoint)?.unwrap_or_else(drawn).names.into_iter().collect();
            // The images that decided about the best checkpoint were not trained on either, but a student's teacher may have seen them.
            if let TaskRecipe::Finetune(_) = self.task {
                let back = best::held_back(checkpoint)?;
                given.retain(|name| !back.contains(name));
            }
            let free = |i: &usize| !given.contains(&train.name(*i));
            let left: Vec<usize> = (0..train.len()).filter(free).collect();
            let left = apart(thinned(&train.select(&left)))?;
            if !left.is_empty() {
                return self.fitted_on(&left, "labels-not-given", "training images whose labels were not given");
            }
        }
        by_folds()?.ok_or_else(|| self.nothing_held_back())
    }
}
