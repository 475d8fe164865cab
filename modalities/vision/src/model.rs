//! A trained encoder from its checkpoint: features of images, baselines, export. Its classifier is in `model/classes.rs`.

mod classes;

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::Path;

use ctk_core::eval::{Features, NOTES};
use ctk_core::modality::{Classifier, Model, Query, Split};
use ctk_core::model::encoder::Encoder as _;
use ctk_core::nn::params::MODEL;
use ctk_core::nn::pass::Precision;
use ctk_core::rng::Key;
use ctk_core::store::checkpoint::Checkpoint;
use ctk_core::{Context, Device, Error, Result, store::files};
use ctk_images::dataset::{self, Images};

use crate::baselines::{BASELINES, baseline};
use crate::encoder::{ClassifierExport, Exported, ImageEncoder, SAFETENSORS, told};
use crate::recipe::{Checked, VisionRecipe, check};
use crate::{features, network, splits};

/// A trained encoder.
pub(crate) struct Trained {
    checked: Checked,
    encoder: Box<dyn ImageEncoder>,
    checkpoint: Checkpoint,
    device: Device,
    /// The type in which features and classes are computed.
    precision: Precision,
}

impl Trained {
    pub fn open(from: &Checkpoint, device: &Device) -> Result<Self> {
        let checked = check(&from.recipe())?;
        // The weights that it started from may no longer exist; the checkpoint has everything.
        let (params, tower) = network::blank(&checked.recipe, device)?;
        params.load_section("encoder", &from.reader().tensors(MODEL)?).at(from.folder().display())?;
        Ok(Trained {
            checked,
            encoder: tower.encoder,
            checkpoint: from.clone(),
            device: device.clone(),
            precision: Precision::F32,
        })
    }
}

impl Model for Trained {
    fn features(&self, query: &Query) -> Result<Features> {
        let splits = splits::of_model(&self.checked.recipe, &self.checkpoint, query)?;
        let images: Images = match query.split {
            Split::All => splits.all(),
            Split::Train => splits.train.clone(),
            Split::Test => splits.test.clone().ok_or_else(|| {
                Error::usage("this data has no labels, so there is nothing to probe")
                    .hint("use data with classes (one folder for each class), or `ctk eval geometry`, which needs none")
            })?,
        };
        let augment = &self.checked.augment;
        let features = match (&query.baseline, query.view) {
            (None, None) => features::features(&self.encoder, &images, augment, self.precision),
            (None, Some(view)) => {
                let key = Key::new(self.checked.recipe.train.seed).of("evaluated pairs");
                features::side(&self.encoder, &images, augment, self.precision, (view, key))
            }
            (Some(name), _) => {
                let [features] = baseline(&self.checked, name, &splits.train, [&images], (&self.device, self.precision))?;
                Ok(features)
            }
        }?;
        let told = splits.told(splits::is_other(query));
        let extras = if told.is_empty() { features.extras } else { vec![(NOTES, serde_json::json!(told))] };
        Ok(Features { parts: splits::parts(&splits, &self.checkpoint, query)?, extras, ..features })
    }

    fn compute_in(&mut self, precision: Precision) -> Result<()> {
        self.precision = precision;
        Ok(())
    }

    fn is_sample(&self, path: &Path) -> bool {
        dataset::is_image(path) && !path.is_dir()
    }

    fn classifier(&self) -> Result<Box<dyn Classifier + '_>> {
        Ok(Box::new(classes::Classes::open(self)?))
    }

    fn views(&self) -> bool {
        true
    }

    fn baselines(&self) -> &'static [&'static str] {
        const NAMES: [&str; BASELINES.len()] = [BASELINES[0].0, BASELINES[1].0, BASELINES[2].0];
        &NAMES
    }

    fn formats(&self) -> &'static [&'static str] {
        self.checked.recipe.encoder.architecture().formats()
    }

    fn export(&self, format: &str, out: &Path) -> Result<Vec<String>> {
        match &self.checked.recipe.task {
            Some(task) => self.write(format, Some(classes::export(self, task)?), out),
            None => self.write(format, None, out),
        }
    }

    fn export_encoder(&self, format: &str, out: &Path) -> Result<Vec<String>> {
        self.write(format, None, out)
    }
}

impl Trained {
    /// The notes say how images are prepared for the network.
    fn write(&self, format: &str, classifier: Option<ClassifierExport>, out: &Path) -> Result<Vec<String>> {
        let VisionRecipe { encoder, pairs, .. } = &self.checked.recipe;
        let mut notes = vec![told(pairs)];
        if let (SAFETENSORS, Some(classifier)) = (format, &classifier) {
            let tensors: Vec<_> = self.checkpoint.reader().tensors(MODEL)?.into_iter().chain(classifier.tensors()).collect();
            let said = HashMap::from([("format".to_string(), "pt".to_string())]);
            files::write(out, &safetensors::serialize(tensors, Some(said))?)?;
            let mut beside = OsString::from(out);
            beside.push(".classes.json");
            files::write(Path::new(&beside), &serde_json::to_vec_pretty(&classifier.classes)?)?;
        } else if format == SAFETENSORS {
            // A checkpoint's model file already has this format; torchvision can load a ResNet's.
            files::write(out, &self.checkpoint.reader().bytes(MODEL)?)?;
        } else {
            let tensors = self.checkpoint.reader().tensors(MODEL)?;
            let of = Exported { features: self.encoder.width(), pairs, tensors, classifier };
            notes.extend(encoder.architecture().export(format, of, out).at(self.checkpoint.folder().display())?);
        }
        Ok(notes)
    }
}
