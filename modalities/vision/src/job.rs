//! A training run of vision: data, network, `fit`, and the table at its end.

use ctk_core::data::dataset::Dataset;
use ctk_core::data::source::Paired;
use ctk_core::eval::{Features, knn, linear_probe};
use ctk_core::modality::{Job, Summary};
use ctk_core::observer::Event;
use ctk_core::process::Process;
use ctk_core::recipe::Recipe;
use ctk_core::store::run::Run;
use ctk_core::train::fit::{Probe, fit};
use ctk_core::train::plan::Plan;
use ctk_core::{Error, Result};
use ctk_images::dataset::Images;
use serde_json::json;

use crate::baselines::{BASELINES, baseline};
use crate::features::features;
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
        if images.len() < recipe.train.batch {
            process.tell(&Event::Note(&format!(
                "the batch is all {} images there are, not {}",
                images.len(),
                recipe.train.batch
            )));
        }
        let needs = recipe.loss.needs();
        if needs.labels && images.labels().is_none() {
            return Err(Error::usage(format!("[loss.{}] needs a class for every image, and some have none", recipe.loss.name()))
                .hint("give one folder a class, or use a loss that needs no labels, as [loss.nt-xent]"));
        }
        if needs.queue.is_some_and(|keys| keys > images.len() / 2) {
            process.tell(&Event::Note("the queue is longer than half the images: it holds other views of the batch's own"));
        }
        process.tell(&Event::Note(&images.cache_line()?));
        let device = process.device().clone();
        let mut learner = network::learner(recipe, &device)?;
        let source = Paired { data: images, pairs: TwoViews(augment.clone()) };

        let encode = |learner: &Learner, images: &Images| features(&learner.towers.tower.encoder, images, augment, &device);
        let labelled = splits.labelled().then_some(()).and(splits.test.as_ref());
        let mut probes = Vec::new();
        if let (Some(every), Some(test)) = (recipe.eval.knn.as_ref().map(|k| k.every), labelled) {
            let train = &splits.train;
            let measure = move |learner: &Learner| {
                let found = knn::knn(&encode(learner, train)?, &encode(learner, test)?, &Default::default())?;
                Ok(vec![("knn_top1".to_string(), found.top1)])
            };
            probes.push(Probe { every, measure: Box::new(measure) });
        }
        let fitted = fit(&source, &mut learner, &self.plan, &mut probes, run, process)?;
        drop(probes);

        let speed = fitted.samples as f64 / fitted.seconds.max(1e-9);
        let mut summary = Summary {
            steps: fitted.steps,
            epochs: fitted.epochs,
            loss: fitted.loss,
            seconds: fitted.seconds,
            figures: vec![("images_per_second", json!(speed))],
            text: String::new(),
        };
        if let (Some(probe), Some(test)) = (&recipe.eval.linear_probe, labelled) {
            process.tell(&Event::Note("probing the features"));
            let learned = top1(&encode(&learner, &splits.train)?, &encode(&learner, test)?)?;
            summary.figures.push(("top1", json!(learned)));
            let mut table = vec![("learned".to_string(), learned)];
            if probe.baselines {
                for (name, key) in BASELINES {
                    let [train, test] = baseline(&self.checked, name, &splits.train, [&splits.train, test], &device)?;
                    let value = top1(&train, &test)?;
                    summary.figures.push((key, json!(value)));
                    table.push((name.to_string(), value));
                }
            }
            summary.text = "linear probe, top-1 accuracy on held-out images\n".to_string();
            table.iter().for_each(|(name, value)| summary.text.push_str(&format!("  {name:10} {:5.1} %\n", 100.0 * value)));
        }
        Ok(summary)
    }
}

fn top1(train: &Features, test: &Features) -> Result<f64> {
    Ok(linear_probe::linear_probe(train, test, &Default::default())?.top1)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::{Arc, Mutex};

    use ctk_core::modality::Modality;
    use ctk_core::observer::Observer;
    use ctk_core::store::run::Place;
    use ctk_core::{Device, Result};

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

    /// Two steps of a small network, with what is set besides; what was noted.
    fn train(set: &[(&str, &str)], folder: &Path) -> Result<Vec<String>> {
        let mut recipe = Recipe::new("the default recipe", Vision.recipe(None)?);
        let small = [("data.train", "16"), ("data.test", "4"), ("train.batch", "8"), ("train.max_steps", "2"), ("eval", "{}")];
        small.iter().chain(set).try_for_each(|(key, value)| recipe.set(key, value))?;
        let notes = Notes::default();
        let place = Place::New(folder.to_path_buf());
        let mut run = Run::new(place, "vision", recipe.clone())?;
        let mut process = Process::new(Device::Cpu).observed_by(Box::new(notes.clone()));
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
    fn labels_that_a_loss_wants_must_be_there_before_a_folder_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let recipe = Recipe::new("the default recipe", Vision.recipe(None).unwrap());
        Vision.preview(&recipe, &data.join("one.png")).unwrap();
        let data = data.display().to_string();
        let run = folder.path().join("run");
        let error = train(&[("data.path", &data), ("loss.supcon", "{}")], &run).unwrap_err();
        assert!(error.to_string().contains("[loss.supcon] needs a class") && error.to_string().contains("hint: "), "{error}");
        assert_eq!((error.exit_code(), run.exists()), (2, false));
    }
}
