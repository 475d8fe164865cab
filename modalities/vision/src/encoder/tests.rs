//! Tests of the list of encoders against the recipe's text, and of a second encoder as a file of its own would define it.

use std::sync::Arc;

use ctk_core::data::source::{Paired, Source};
use ctk_core::model::encoder::Encoder;
use ctk_core::nn::gradient::GradientStore;
use ctk_core::nn::params::{Init, Param, ParamKind, Params};
use ctk_core::nn::pass::{Pass, Precision};
use ctk_core::nn::rows::Rows;
use ctk_core::nn::tape::Tape;
use ctk_core::recipe::Recipe;
use ctk_core::rng::Key;
use ctk_core::train::bench;
use ctk_core::{Device, Tensor};
use ctk_images::pixels::{CHANNELS, Pixels};
use serde_json::{Value, json};

use super::architecture::Values;
use super::*;
use crate::pairs::TwoViews;
use crate::{features, network};

#[test]
fn a_family_is_called_as_its_section() {
    let of = EncoderRecipe::default();
    let written = serde_json::to_value(&of).unwrap();
    let sections: Vec<&String> = written.as_object().unwrap().keys().collect();
    assert_eq!(sections, [of.architecture().family().name]);
    assert_eq!(of.key("weights"), "encoder.resnet.weights");
    assert!(FAMILIES.iter().any(|family| family.name == of.architecture().family().name));
    assert_eq!(named("resnet34").unwrap().1[0], ("depth", "34".to_string()));
    let unknown = named("resnext50").err().unwrap().to_string();
    assert!(unknown.contains("no such encoder") && unknown.contains("resnet18"), "{unknown}");
}

/// A matrix applied to mean colours, in candle's own operations.
struct Colours {
    width: usize,
}

struct MeanColour {
    weight: Arc<Param>,
    store: GradientStore,
}

impl Encoder for MeanColour {
    type Views = Pixels;

    fn width(&self) -> usize {
        self.weight.dims()[0]
    }

    fn encode(&self, x: &Tensor, _: &Rows, _: &Pass) -> Result<(Tensor, Tape)> {
        let h = x.mean((1, 2))?.matmul(&self.weight.var().t()?)?;
        Ok((h.detach(), Tape::of_graph(h, None, vec![self.weight.clone()], self.store.clone())))
    }
}

const COLOURS: Family = Family {
    name: "colours",
    title: "matrix over colours",
    words: "write colours",
    named: |word| (word == "colours").then(Vec::new),
    reads: "no other program has one",
    recognise: |_| Ok(None),
};

impl Architecture for Colours {
    fn family(&self) -> &'static Family {
        &COLOURS
    }

    fn check(&self) -> Result<()> {
        Ok(())
    }

    fn build(&self, mut scope: Scope) -> Result<Box<dyn ImageEncoder>> {
        let init = Init::Normal { std: 1.0 };
        let weight = scope.param("weight", (self.width, CHANNELS), ParamKind::Weight, init);
        Ok(Box::new(MeanColour { weight, store: scope.gradient_store() }))
    }

    fn values(&self, _: &Params, _: &str, _: usize) -> Values {
        Values { step: 6.0, recomputed: 6.0, evaluation: 6.0 }
    }

    fn products(&self, _: &Params, _: &str, _: usize) -> usize {
        self.width * CHANNELS
    }

    fn figures(&self) -> Vec<(&'static str, Value)> {
        vec![("width", json!(self.width))]
    }

    fn timed(&self) -> Vec<(&'static str, Value)> {
        vec![("encoder", json!("colours")), ("width", json!(self.width))]
    }
}

#[test]
fn another_encoder_is_built_trained_and_asked_like_the_first() {
    let text = "[head]\nlayers = 1\nwidth = 4\n[optimizer.sgd]\nrate = 0.1\n[train]\nbatch = 8\n";
    let text = Recipe::new("test", text);
    let checked = crate::recipe::check(&text).unwrap();
    let of = Colours { width: 6 };
    let mut learner = network::learner_of(&of, &checked.recipe, &Device::Cpu).unwrap();
    let images = ctk_images::generated::open(16, 0).train;
    let before = features::features(&*learner.towers.tower.encoder, &images, &checked.augment, Precision::F32).unwrap();
    assert_eq!((before.width, before.rows.len()), (6, 16 * 6));

    let source = Paired { data: images.clone(), pairs: TwoViews(checked.augment.clone()) };
    assert_eq!(source.draw(&[0, 1], Key::new(0)).unwrap().samples.len(), 2);
    bench::learner(&mut learner, &source, &checked.plan(&text).unwrap(), 1, &Device::Cpu).unwrap();
    let after = features::features(&*learner.towers.tower.encoder, &images, &checked.augment, Precision::F32).unwrap();
    assert_ne!(before.rows, after.rows, "its matrix was trained");

    assert_eq!((of.formats(), of.products(&learner.params, "encoder", 32)), (&[SAFETENSORS][..], 18));
    let pairs = &checked.recipe.pairs;
    let exported = || Exported { features: 6, pairs, tensors: Default::default(), classifier: None };
    assert!(of.export("timm", exported(), Path::new("nowhere")).unwrap_err().to_string().contains("timm"));
    assert!(of.load(Path::new("nowhere"), &learner.params).is_err() && of.weights().is_none());
}
