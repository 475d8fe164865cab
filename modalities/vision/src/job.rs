//! A training run of vision: data, network, `fit`, and the table at its end.

use std::path::Path;

use ctk_core::data::dataset::Dataset;
use ctk_core::data::source::Paired;
use ctk_core::eval::{Features, knn, linear_probe};
use ctk_core::modality::{Job, Summary};
use ctk_core::observer::Event;
use ctk_core::recipe::Recipe;
use ctk_core::store::run::Run;
use ctk_core::train::fit::{Probe, fit};
use ctk_core::train::plan::Plan;
use ctk_core::{Error, Result};
use serde_json::json;

use crate::data::{self, Cache, Images, Splits};
use crate::generated;
use crate::holdout::Holdout;
use crate::network::{self, Learner};
use crate::pixels::TwoViews;
use crate::recipe::{Checked, DataRecipe};

/// Where a drawn hold-out is stored in a run.
pub(crate) const SPLITS: &str = "splits.json";

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

    fn run(self: Box<Self>, run: &mut Run) -> Result<Summary> {
        let Checked { recipe, augment } = &self.checked;
        let splits = splits(&recipe.data, recipe.train.seed, None, run)?;
        let images = splits.pretraining();
        if images.len() < recipe.train.batch {
            run.tell(&Event::Note(&format!("the batch is all {} images there are, not {}", images.len(), recipe.train.batch)));
        }
        let needs = recipe.loss.needs();
        if needs.labels && images.labels().is_none() {
            return Err(Error::usage(format!("[loss.{}] needs a class for every image, and some have none", needs.name))
                .hint("give one folder a class, or use a loss that needs no labels, as [loss.nt-xent]"));
        }
        if needs.queue.is_some_and(|keys| keys > images.len() / 2) {
            run.tell(&Event::Note("the queue is longer than half the images: it holds other views of the batch's own"));
        }
        run.tell(&Event::Note(&images.cache_line()?));
        let device = run.device().clone();
        let mut learner = network::learner(recipe, &device)?;
        let source = Paired { data: images, pairs: TwoViews(augment.clone()) };

        let encode =
            |learner: &Learner, images: &Images| network::features(&learner.towers.tower.encoder, images, augment, &device);
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
        let fitted = fit(&source, &mut learner, &self.plan, &mut probes, run)?;
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
            run.tell(&Event::Note("probing the features"));
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

/// Representations that were not learned, and the JSON keys of their accuracy.
pub(crate) const BASELINES: [(&str, &str); 3] =
    [("untrained", "untrained_top1"), ("pixels", "pixels_top1"), ("histogram", "histogram_top1")];

/// The baseline `name` of each of `parts`; `train` is what an untrained network's statistics are calibrated on.
pub(crate) fn baseline<const N: usize>(
    checked: &Checked,
    name: &str,
    train: &Images,
    parts: [&Images; N],
    device: &ctk_core::Device,
) -> Result<[Features; N]> {
    let Checked { recipe, augment } = checked;
    let all: Vec<Features> = match name {
        "untrained" => {
            let (_, tower) = network::build(recipe, device)?;
            network::calibrate(&tower.encoder, train, augment, device)?;
            parts.iter().map(|images| network::features(&tower.encoder, images, augment, device)).collect::<Result<_>>()?
        }
        "pixels" => parts.iter().map(|images| network::pixel_features(images, augment)).collect::<Result<_>>()?,
        "histogram" => parts.iter().map(|images| network::histogram_features(images, augment)).collect::<Result<_>>()?,
        other => return Err(Error::usage(format!("there is no baseline `{other}`"))),
    };
    Ok(all.try_into().unwrap_or_else(|_| unreachable!("one for each part")))
}

fn top1(train: &Features, test: &Features) -> Result<f64> {
    Ok(linear_probe::linear_probe(train, test, &Default::default())?.top1)
}

/// The data of a run: as it lies there, or with the hold-out that the run stored (or now stores): the one it inherits, or a new one.
pub(crate) fn splits(of: &DataRecipe, seed: u64, inherited: Option<Holdout>, run: &mut Run) -> Result<Splits> {
    let splits = open(of)?;
    data::check_classes(&splits).map_err(|e| e.at(of.path.as_deref().unwrap_or(Path::new("generated")).display()))?;
    if splits.test.is_some() || !splits.labelled() {
        return Ok(splits);
    }
    let stored = run.read(SPLITS)?.map(|bytes| serde_json::from_slice(&bytes)).transpose()?;
    let holdout: Holdout = match stored {
        Some(holdout) => holdout,
        None => {
            let fits = inherited.as_ref().is_some_and(|holdout| holdout.apply(&splits.train).is_ok());
            if inherited.is_some() && !fits {
                run.tell(&Event::Note("this is other data than the network was trained on: a hold-out of its own is drawn"));
            }
            let holdout = match inherited.filter(|_| fits) {
                Some(holdout) => holdout,
                None => Holdout::draw(&splits.train, of.holdout, seed)?,
            };
            run.write(SPLITS, &serde_json::to_vec_pretty(&holdout)?)?;
            holdout
        }
    };
    run.tell(&Event::Note(&holdout.line()));
    let held = holdout.apply(&splits.train)?;
    Ok(Splits { unlabelled: splits.unlabelled, ..held })
}

/// What lies at the recipe's path, or the generated dataset.
pub(crate) fn open(of: &DataRecipe) -> Result<Splits> {
    let splits = match &of.path {
        Some(path) => data::open(path, of.format)?,
        None => generated::open(of.train, of.test),
    };
    Ok(splits.cached(Cache::of(&of.cache)?))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use ctk_core::modality::Modality;
    use ctk_core::observer::Watch;
    use ctk_core::store::run::Place;
    use ctk_core::{Device, Result};

    use super::*;
    use crate::Vision;

    #[derive(Clone, Default)]
    struct Notes(Arc<Mutex<Vec<String>>>);

    impl Watch for Notes {
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
        let mut run = Run::new(place, "vision", recipe.clone(), Device::Cpu, Box::new(notes.clone()), Arc::default())?;
        Vision.plan(&recipe)?.run(&mut run)?;
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
