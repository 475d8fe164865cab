//! A trained encoder from its checkpoint: features of any images, baselines to compare with, export.

use std::path::Path;

use ctk_core::eval::Features;
use ctk_core::modality::{Model, Query, Split};
use ctk_core::model::encoder::Encoder as _;
use ctk_core::rng::Key;
use ctk_core::store::checkpoint::Checkpoint;
use ctk_core::train::dense::MODEL;
use ctk_core::{Context, Device, Error, Result, store::files};

use crate::data::{self, Images, Splits};
use crate::holdout::Holdout;
use crate::interop::export;
use crate::job::{self, BASELINES};
use crate::network;
use crate::recipe::{Checked, DataRecipe, EncoderRecipe, VisionRecipe, check};
use crate::resnet::ResNet;

/// A trained encoder.
pub(crate) struct Trained {
    checked: Checked,
    encoder: ResNet,
    checkpoint: Checkpoint,
    device: Device,
}

impl Trained {
    pub fn open(from: &Checkpoint, device: &Device) -> Result<Self> {
        let mut checked = check(&from.recipe())?;
        // The weights it started from may be gone; what was learned is in the checkpoint.
        let EncoderRecipe::Resnet(of) = &mut checked.recipe.encoder;
        let start = of.weights.take();
        let (params, tower) = network::build(&checked.recipe, device)?;
        params.load_section("encoder", &from.reader().tensors(MODEL)?).at(from.folder().display())?;
        let EncoderRecipe::Resnet(of) = &mut checked.recipe.encoder;
        of.weights = start;
        Ok(Trained { checked, encoder: tower.encoder, checkpoint: from.clone(), device: device.clone() })
    }

    /// The data of `query`, with a test part where there are labels: its own, the run's hold-out, or one drawn the same way.
    fn splits(&self, query: &Query) -> Result<Splits> {
        let of = &self.checked.recipe.data;
        let of = match &query.data {
            Some(path) => DataRecipe { path: Some(path.clone()), format: None, ..of.clone() },
            None => of.clone(),
        };
        let splits = job::open(&of)?;
        if splits.test.is_some() || !splits.labelled() || query.split == Split::All {
            return Ok(splits);
        }
        let place = of.path.as_deref().unwrap_or(Path::new("the generated dataset")).display().to_string();
        data::check_classes(&splits).at(&place)?;
        let holdout = match Holdout::stored(&self.checkpoint)? {
            Some(holdout) if query.data.is_none() => holdout,
            _ => Holdout::draw(&splits.train, of.holdout, self.checked.recipe.train.seed).at(&place)?,
        };
        let held = holdout.apply(&splits.train).at(&place)?;
        Ok(Splits { unlabelled: splits.unlabelled, ..held })
    }
}

impl Model for Trained {
    fn features(&self, query: &Query) -> Result<Features> {
        let splits = self.splits(query)?;
        let images: Images = match query.split {
            Split::All => splits.all(),
            Split::Train => splits.train.clone(),
            Split::Test => splits.test.clone().ok_or_else(|| {
                Error::new("this data has no labels, so there is nothing to probe")
                    .hint("use data with classes (one folder a class), or `ctk eval geometry`, which needs none")
            })?,
        };
        let augment = &self.checked.augment;
        match (&query.baseline, query.view) {
            (None, None) => network::features(&self.encoder, &images, augment, &self.device),
            (None, Some(view)) => {
                let key = Key::new(self.checked.recipe.train.seed).of("evaluated pairs");
                network::side(&self.encoder, &images, augment, view, key, &self.device)
            }
            (Some(name), _) => {
                let [features] = job::baseline(&self.checked, name, &splits.train, [&images], &self.device)?;
                Ok(features)
            }
        }
    }

    fn views(&self) -> bool {
        true
    }

    fn baselines(&self) -> &'static [&'static str] {
        const NAMES: [&str; BASELINES.len()] = [BASELINES[0].0, BASELINES[1].0, BASELINES[2].0];
        &NAMES
    }

    fn formats(&self) -> &'static [&'static str] {
        const FORMATS: [&str; 3] = ["safetensors", export::FORMATS[0], export::FORMATS[1]];
        &FORMATS
    }

    fn export(&self, format: &str, out: &Path) -> Result<()> {
        if !export::FORMATS.contains(&format) {
            // The checkpoint's model file is already what torchvision loads.
            return files::write(out, &self.checkpoint.reader().bytes(MODEL)?);
        }
        let VisionRecipe { encoder: EncoderRecipe::Resnet(of), pairs, .. } = &self.checked.recipe;
        let tensors = self.checkpoint.reader().tensors(MODEL)?;
        export::write(format, of, self.encoder.width(), pairs, tensors, out).at(self.checkpoint.folder().display())
    }
}
