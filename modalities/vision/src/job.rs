//! A training run of vision: data, network, `fit`, and the table at its end.

use std::cell::Cell;

use ctk_core::data::dataset::Dataset;
use ctk_core::data::source::Paired;
use ctk_core::eval::{Features, knn, linear_probe};
use ctk_core::modality::{Job, Summary};
use ctk_core::nn::pass::Precision;
use ctk_core::observer::Event;
use ctk_core::process::Process;
use ctk_core::recipe::Recipe;
use ctk_core::store::run::Run;
use ctk_core::train::fit::{Judge, Probe, fit_judged};
use ctk_core::train::plan::Plan;
use ctk_core::{Error, Result};
use ctk_images::dataset::Images;
use serde_json::json;

use crate::baselines::{BASELINES, baseline};
use crate::best::{self, Watched};
use crate::features::features;
use crate::fits;
use crate::forecast;
use crate::init;
use crate::network::{self, Learner};
use crate::pairs::TwoViews;
use crate::recipe::Checked;
use crate::splits;

/// A checked recipe, ready to run.
pub(crate) struct Train {
    checked: Checked,
    plan: Plan,
}

impl Train {
    pub fn new(checked: Checked, text: &Recipe) -> Result<Self> {
        Ok(Train { plan: checked.plan(text)?, checked })
    }
}

impl Job for Train {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn run(self: Box<Self>, run: &mut Run, process: &mut Process) -> Result<Summary> {
        let Checked { recipe, augment } = &self.checked;
        let splits = splits::of_run(&recipe.data, recipe.train.seed, None, run, process)?;
        let images = splits.pretraining();
        if images.len() < 2 {
            return Err(Error::usage("one image cannot be trained on: a loss compares the images of a batch")
                .hint("give a folder of many images; thousands are usual"));
        }
        let needs = recipe.loss.needs();
        if needs.labels && images.labels().is_none() {
            return Err(Error::usage(format!("[loss.{}] needs a class for every image, and some have none", recipe.loss.name()))
                .hint("give one folder for each class, or use a loss that needs no labels, as [loss.nt-xent]"));
        }
        if needs.queue.is_some_and(|keys| keys > images.len() / 2) {
            process.tell(&Event::Note("the queue is longer than half the images: it holds other views of the batch's own"));
        }
        let told_by = Watched::of(recipe, &splits, &splits.train, recipe.train.seed, run, process)?;
        let images = match &told_by {
            // A loss that uses labels trains without the images whose labels are held back.
            Some(told_by) if needs.labels => told_by.rest.clone(),
            _ => images,
        };
        if images.len() < recipe.train.batch {
            process.tell(&Event::Note(&format!(
                "the batch is all {} images there are, not {}",
                images.len(),
                recipe.train.batch
            )));
        }
        let device = process.device().clone();
        fits::check(recipe, images.len(), &device)?;
        // A resumed run has its values in its checkpoint; what it began with does not matter and need not exist.
        let mut learner = match run.latest()?.is_some() {
            true => network::learner(&init::without(recipe), &device)?,
            false => {
                init::notes(recipe)?.iter().for_each(|note| process.tell(&Event::Note(note)));
                network::learner(recipe, &device)?
            }
        };
        let mut about = forecast::lines(recipe, &learner.params, images.len(), &device);
        about.extend(forecast::shrunk(recipe, images.median_side(64).ok()));
        about.push(images.cache_line()?);
        about.push(forecast::measures(recipe, splits.labelled() && splits.test.is_some()));
        about.push(format!("run: {}", run.folder()?.display()));
        about.iter().for_each(|line| process.tell(&Event::About(line)));
        let source = Paired { data: images, pairs: TwoViews(augment.clone()) };

        let encode =
            |learner: &Learner, images: &Images| features(&learner.towers.tower.encoder, images, augment, Precision::F32);
        let labelled = splits.labelled().then_some(()).and(splits.test.as_ref());
        // During training the part `val` is measured, if there is one.
        let watched = splits.labelled().then_some(()).and(splits.measured());
        let measured = Cell::new(None);
        let mut probes = Vec::new();
        if let (Some(every), Some(test)) = (recipe.eval.knn.as_ref().map(|k| k.every), watched) {
            let train = &splits.train;
            let measure = |learner: &Learner| {
                let found = knn::knn(&encode(learner, train)?, &encode(learner, test)?, &Default::default())?;
                measured.set(Some(found.top1));
                Ok(vec![("knn_top1".to_string(), found.top1)])
            };
            probes.push(Probe { every, measure: Box::new(measure) });
        }
        let encode = &encode;
        let judge = told_by.as_ref().map(|Watched { on, what, rest }| Judge {
            measure: "knn_top1",
            on: what,
            samples: on.len(),
            value: Box::new(move |learner: &Learner| {
                Ok(knn::knn(&encode(learner, rest)?, &encode(learner, on)?, &Default::default())?.top1)
            }),
        });
        let fitted = fit_judged(&source, &mut learner, &self.plan, &mut probes, judge, run, process)?;
        drop(probes);
        splits::at_the_end(&splits, process);

        let speed = fitted.samples as f64 / fitted.seconds.max(1e-9);
        let mut summary = Summary {
            steps: fitted.steps,
            epochs: fitted.epochs,
            loss: fitted.loss,
            seconds: fitted.seconds,
            figures: vec![("images_per_second", json!(speed))],
            text: String::new(),
            next: next(labelled.is_some()),
        };
        summary.figures.extend(fitted.figures());
        summary.figures.extend(splits::figures(&splits));
        summary.best(fitted.best.as_ref(), "images", best::percent, "ctk eval linear-probe RUN/checkpoints/best");
        let Some(test) = labelled else { return Ok(summary) };
        let encoded = || -> Result<[Features; 2]> { Ok([encode(&learner, &splits.train)?, encode(&learner, test)?]) };
        let mut features = recipe.eval.linear_probe.as_ref().map(|_| encoded()).transpose()?;
        if let Some(eval) = &recipe.eval.knn {
            let top1 = match measured.get().filter(|_| splits.val.is_none() && fitted.epochs % eval.every as f64 == 0.0) {
                // Measured at the end of the last epoch, on the test images.
                Some(top1) => top1,
                None => {
                    let [train, test] = features.take().map_or_else(encoded, Ok)?;
                    let found = knn::knn(&train, &test, &Default::default())?;
                    features = Some([train, test]);
                    found.top1
                }
            };
            summary.figures.push(("knn_top1", json!(top1)));
            summary.text.push_str(&format!("nearest neighbours, top-1 accuracy on held-out images: {:.1} %\n", 100.0 * top1));
        }
        if let (Some(probe), Some([train, tested])) = (&recipe.eval.linear_probe, &features) {
            process.tell(&Event::Note("probing the features"));
            let learned = top1(train, tested)?;
            summary.figures.push(("top1", json!(learned)));
            let mut table = vec![("learned".to_string(), learned)];
            if probe.baselines {
                for (name, key) in BASELINES {
                    let [train, test] =
                        baseline(&self.checked, name, &splits.train, [&splits.train, test], (&device, Precision::F32))?;
                    let value = top1(&train, &test)?;
                    summary.figures.push((key, json!(value)));
                    table.push((name.to_string(), value));
                }
            }
            summary.text.push_str("linear probe, top-1 accuracy on held-out images\n");
            table.iter().for_each(|(name, value)| summary.text.push_str(&format!("  {name:10} {:5.1} %\n", 100.0 * value)));
        }
        Ok(summary)
    }
}

/// Commands that may come next, with or without labels.
fn next(labelled: bool) -> Vec<&'static str> {
    match labelled {
        true => vec!["ctk eval linear-probe RUN --baseline", "ctk finetune RUN --labels 10%"],
        false => vec!["ctk embed RUN --out features.npy", "ctk neighbors RUN IMAGE"],
    }
}

fn top1(train: &Features, test: &Features) -> Result<f64> {
    Ok(linear_probe::linear_probe(train, test, &Default::default())?.top1)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::{Arc, Mutex};

    use ctk_core::Result;
    use ctk_core::modality::Modality;
    use ctk_core::observer::Observer;
    use ctk_core::store::run::Place;

    use super::*;
    use crate::Vision;

    #[derive(Clone, Default)]
    struct Notes(Arc<Mutex<Vec<String>>>);

    impl Observer for Notes {
        fn event(&mut self, event: &Event) {
            if let Event::Note(note) = event {
                self.0.lock().unwrap().push((*note).to_string());
            }
        }
    }

    /// Trains a small network for two steps with the settings `set`; returns the notes.
    fn train(set: &[(&str, &str)], folder: &Path) -> Result<Vec<String>> {
        let mut recipe = Recipe::new("the default recipe", Vision.recipe(None)?);
        let small = [("data.train", "16"), ("data.test", "4"), ("train.batch", "8"), ("train.max_steps", "2"), ("eval", "{}")];
        small.iter().chain(set).try_for_each(|(key, value)| recipe.set(key, value))?;
        let notes = Notes::default();
        let place = Place::New(folder.to_path_buf());
        let mut run = Run::new(place, "vision", recipe.clone())?;
        let mut process = Process::new(ctk_core::Device::Cpu).observed_by(Box::new(notes.clone()));
        Vision.plan(&recipe)?.run(&mut run, &mut process)?;
        let said = notes.0.lock().unwrap().clone();
        Ok(said)
    }

    #[test]
    fn a_queue_longer_than_half_the_data_is_noted() {
        let folder = tempfile::tempdir().unwrap();
        let noted = |name: &str, loss: &str| {
            let notes = train(&[("loss", loss)], &folder.path().join(name)).unwrap();
            notes.iter().any(|note| note.contains("queue"))
        };
        assert!(noted("long", "{ moco = { queue = 9 } }") && noted("memory", "{ nt-xent = { memory = 9 } }"));
        assert!(!noted("short", "{ moco = { queue = 8 } }") && !noted("none", "{ nt-xent = {} }"));
    }

    #[test]
    fn what_images_do_not_have_is_refused_with_the_losss_line() {
        let folder = tempfile::tempdir().unwrap();
        for (loss, missing) in [("cosent", "score"), ("cosine-similarity", "score"), ("mse", "teacher"), ("kl", "teacher")] {
            let run = folder.path().join(loss);
            let error = train(&[("loss", &format!("{{ {loss} = {{}} }}"))], &run).unwrap_err();
            let said = error.to_string();
            assert!(said.contains(&format!("loss.{loss}: needs a {missing}")) && said.contains("hint: "), "{said}");
            assert!(said.contains("the default recipe:"), "{said}");
            assert_eq!((error.exit_code(), run.exists()), (2, false));
        }
    }

    #[test]
    fn labels_that_a_loss_wants_must_be_there_before_a_folder_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let recipe = Recipe::new("the default recipe", Vision.recipe(None).unwrap());
        ["one.png", "two.png"].iter().for_each(|name| drop(Vision.preview(&recipe, &data.join(name)).unwrap()));
        let data = data.display().to_string();
        let run = folder.path().join("run");
        let error = train(&[("data.path", &data), ("loss.supcon", "{}")], &run).unwrap_err();
        assert!(error.to_string().contains("[loss.supcon] needs a class") && error.to_string().contains("hint: "), "{error}");
        assert_eq!((error.exit_code(), run.exists()), (2, false));
    }
}
