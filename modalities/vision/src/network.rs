//! The network of a recipe, and what it makes of images: the one way features are computed, in training and after.

use std::ops::Range;

use candle_core::{DType, Device};
use ctk_core::data::dataset::Dataset;
use ctk_core::data::pair::Views;
use ctk_core::eval::Features;
use ctk_core::modality::View;
use ctk_core::model::encoder::Encoder;
use ctk_core::model::head::ProjectionHead;
use ctk_core::model::target::Target;
use ctk_core::model::tower::{Siamese, Tower};
use ctk_core::nn::params::Params;
use ctk_core::nn::pass::{Groups, Pass, Precision, Statistics};
use ctk_core::objective::Method;
use ctk_core::optim::Optimizer;
use ctk_core::rng::Key;
use ctk_core::train::dense::Dense;
use ctk_core::{Error, Result};

use crate::augment::Augment;
use crate::data::Images;
use crate::interop::Weights;
use crate::pixels::{self, Pixels};
use crate::recipe::{EncoderRecipe, VisionRecipe};
use crate::resnet::ResNet;

/// Encoder, head and, where the recipe has one, predictor with fresh values from the recipe's seed (or the weights it names), and
/// the parameters of all.
pub(crate) fn build(recipe: &VisionRecipe, device: &Device) -> Result<(Params, Tower<ResNet>)> {
    let EncoderRecipe::Resnet(of) = &recipe.encoder;
    let mut params = Params::new();
    let encoder = ResNet::new(of, params.root().sub("encoder"))?;
    let head = ProjectionHead::new(&recipe.head, encoder.width(), params.root().sub("head"));
    let predictor = recipe.predictor.as_ref().map(|predictor| {
        let width = head.width();
        ProjectionHead::new(&predictor.head(width), width, params.root().sub("head.predictor"))
    });
    params.materialise(Key::new(recipe.train.seed), DType::F32, device)?;
    if let Some(file) = &of.weights {
        Weights::open(file)?.load(&params, false)?;
    }
    Ok((params, Tower { encoder, head, predictor }))
}

/// What `ctk train vision` trains.
pub(crate) type Learner = Dense<Siamese<ResNet>, Method>;

/// The learner of a recipe, before its first step.
pub(crate) fn learner(recipe: &VisionRecipe, device: &Device) -> Result<Learner> {
    let precision = precision(recipe, device)?;
    let (params, tower) = build(recipe, device)?;
    let needs = recipe.loss.needs();
    let siamese = |tower| Siamese { tower, device: device.clone() };
    let copy = |momentum| {
        // Nothing is predicted from the copy's embeddings.
        let (own, tower) = build(&VisionRecipe { predictor: None, ..recipe.clone() }, device)?;
        Target::new(siamese(tower), own, momentum, &params)
    };
    let target = needs.momentum.map(copy).transpose()?;
    let objective = Method::new(&recipe.loss, tower.head.width(), DType::F32, device)?;
    let groups = recipe.train.bn_groups.map_or(needs.groups, Groups::Each);
    let learner = Dense::new(siamese(tower), objective, params, Optimizer::new(&recipe.optimizer));
    Ok(Dense { precision, recompute: recipe.train.recompute, groups, target, ..learner })
}

/// The recipe's precision, if `device` has it.
pub(crate) fn precision(recipe: &VisionRecipe, device: &Device) -> Result<Precision> {
    let precision = recipe.train.precision;
    if precision != Precision::F32 && !device.is_cpu() {
        let what = format!("train.precision = \"{precision}\" is for the CPU: other devices run in f32");
        return Err(Error::usage(what).hint("leave it out, or train on the CPU"));
    }
    Ok(precision)
}

/// Representations of `images` by the running statistics, in order; nothing is kept for a backward pass.
pub(crate) fn features(encoder: &ResNet, images: &Images, augment: &Augment, device: &Device) -> Result<Features> {
    encoded(encoder, images, augment.eval_size, device, |batch| pixels::evaluation(images, augment, batch))
}

/// Representations of one side of a positive pair of each image, as [`features`].
pub(crate) fn side(
    encoder: &ResNet,
    images: &Images,
    augment: &Augment,
    view: View,
    key: Key,
    device: &Device,
) -> Result<Features> {
    encoded(encoder, images, augment.size, device, |batch| pixels::side(images, augment, batch, view, key))
}

fn encoded(
    encoder: &ResNet,
    images: &Images,
    size: usize,
    device: &Device,
    pixels: impl Fn(Range<usize>) -> Result<Pixels>,
) -> Result<Features> {
    let mut rows = Vec::with_capacity(images.len() * encoder.width());
    for batch in batches(images.len(), size) {
        let x = Pixels::upload(&[&pixels(batch)?], device)?;
        rows.extend(encoder.encode(&x, &Pass::eval())?.flatten_all()?.to_vec1::<f32>()?);
    }
    Ok(named(images, rows, encoder.width()))
}

/// Raw pixels of the evaluation view, at most 32 × 32 of them: the representation that learned nothing.
pub(crate) fn pixel_features(images: &Images, augment: &Augment) -> Result<Features> {
    let small = augment.evaluated_at(augment.eval_size.min(32));
    let mut rows = Vec::new();
    for batch in batches(images.len(), small.eval_size) {
        rows.extend_from_slice(pixels::evaluation(images, &small, batch)?.values());
    }
    Ok(named(images, rows, small.eval_size * small.eval_size * pixels::CHANNELS))
}

/// Shares of the evaluation view's pixels in 8 × 8 × 8 bins of red, green and blue.
pub(crate) fn histogram_features(images: &Images, augment: &Augment) -> Result<Features> {
    const BINS: usize = 8;
    let plain = augment.visible();
    let mut rows = vec![0.0; images.len() * BINS.pow(3)];
    let share = 1.0 / (plain.eval_size * plain.eval_size) as f32;
    for batch in batches(images.len(), plain.eval_size) {
        let views = pixels::evaluation(images, &plain, batch.clone())?;
        for (view, image) in batch.enumerate() {
            let row = &mut rows[image * BINS.pow(3)..][..BINS.pow(3)];
            for pixel in views.row(view).chunks_exact(pixels::CHANNELS) {
                let bin = |v: f32| ((v * BINS as f32) as usize).min(BINS - 1);
                row[(bin(pixel[0]) * BINS + bin(pixel[1])) * BINS + bin(pixel[2])] += share;
            }
        }
    }
    Ok(named(images, rows, BINS.pow(3)))
}

/// Moves the running statistics of an untrained encoder to what its layers see of training images; without this its
/// evaluation mode would normalise by nothing, and any baseline would look bad.
pub(crate) fn calibrate(encoder: &ResNet, images: &Images, augment: &Augment, device: &Device) -> Result<()> {
    // Forty steps of momentum .1 forget 98.5 % of the initial values.
    const STEPS: usize = 40;
    let all = batches(images.len(), augment.eval_size);
    let pass = Pass { train: false, ..Pass::eval().with(Statistics::Update) };
    for batch in all.iter().cycle().take(STEPS) {
        let x = Pixels::upload(&[&pixels::evaluation(images, augment, batch.clone())?], device)?;
        encoder.encode(&x, &pass)?;
    }
    Ok(())
}

/// Ranges of `0..len` that hold about as many pixels as 256 images of CIFAR.
pub(crate) fn batches(len: usize, size: usize) -> Vec<Range<usize>> {
    let batch = (256 * 32 * 32 / (size * size)).clamp(8, 256);
    (0..len).step_by(batch).map(|from| from..(from + batch).min(len)).collect()
}

fn named(images: &Images, rows: Vec<f32>, width: usize) -> Features {
    Features {
        rows,
        width,
        names: images.names(),
        labels: images.labels(),
        classes: images.classes().to_vec(),
        ..Features::default()
    }
}
