//! The network of a task: encoder, kept layers of the projection head, classifier; its initial values, and how it is evaluated.

use std::collections::HashMap;

use candle_core::{DType, Tensor};
use ctk_core::data::dataset::Dataset;
use ctk_core::data::pair::HostBatch;
use ctk_core::eval::cross_entropy;
use ctk_core::model::encoder::Encoder;
use ctk_core::model::head::ProjectionHead;
use ctk_core::model::supervised::Supervised;
use ctk_core::model::tower::Tower;
use ctk_core::nn::params::Params;
use ctk_core::nn::params::{HEAD, MODEL};
use ctk_core::nn::pass::{Pass, Precision};
use ctk_core::nn::rows::Rows;
use ctk_core::objective::{CrossEntropy, Distillation};
use ctk_core::optim::Optimizer;
use ctk_core::recipe::OnNonfinite;
use ctk_core::rng::Key;
use ctk_core::store::checkpoint::Checkpoint;
use ctk_core::train::dense::Dense;
use ctk_core::train::fit::Judge;
use ctk_core::{Context, Device, Error, Result};
use ctk_images::augment::Augment;
use ctk_images::dataset::Images;
use ctk_images::pixels::{self, Pixels};

use super::{Normalisation, TaskRecipe};
use crate::best::Watched;
use crate::encoder::ImageEncoder;
use crate::features::batches;
use crate::network::ImageTower;
use crate::recipe::VisionRecipe;

/// The learner of a task.
pub(super) type Learner = Dense<Supervised<Box<dyn ImageEncoder>>>;

/// Encoder, the first `keep` layers of the head and a classifier, with fresh values from `seed`.
pub(super) fn build(
    recipe: &VisionRecipe,
    keep: usize,
    classes: usize,
    seed: u64,
    device: &Device,
) -> Result<(Params, ImageTower)> {
    let mut params = Params::new();
    ["encoder", "head"].into_iter().for_each(|section| params.declare(section));
    let encoder = recipe.encoder.build(params.root().sub("encoder"))?;
    let head = ProjectionHead::classifier(&recipe.head, keep, classes, encoder.width(), params.root().sub("head"));
    params.materialise(Key::new(seed), DType::F32, &device.by(recipe.train.rules()))?;
    Ok((params, Tower { encoder, head, predictor: None }))
}

/// Copies the encoder and the kept layers of the projection head from a checkpoint; the classifier is unchanged.
pub(super) fn start(params: &Params, from: &Checkpoint) -> Result<()> {
    let load = || {
        params.load_section("encoder", &from.reader().tensors(MODEL)?)?;
        let mut head: HashMap<String, Tensor> = from.reader().tensors(HEAD)?;
        for (name, own) in params.section("head")? {
            if name.starts_with("classifier.") {
                head.insert(name, own.copy()?);
            }
        }
        params.take("head", &head)
    };
    load().at(from.folder().display())
}

/// The trained classifier of the task that `checkpoint` belongs to.
///
/// # Errors
/// The checkpoint has none.
pub(crate) fn trained(recipe: &VisionRecipe, task: &TaskRecipe, checkpoint: &Checkpoint, device: &Device) -> Result<ImageTower> {
    let place = checkpoint.folder().display();
    let head = checkpoint.reader().tensors(HEAD)?;
    let bias = head.get("classifier.bias").ok_or_else(|| Error::new("this run has no classifier").at(&place))?;
    let (params, tower) = build(recipe, task.kept(&recipe.head), bias.elem_count(), recipe.train.seed, device)?;
    params.load_section("encoder", &checkpoint.reader().tensors(MODEL)?).at(&place)?;
    params.load_section("head", &head).at(&place)?;
    Ok(tower)
}

/// The learner of a task, before its first step.
pub(super) fn learner(
    recipe: &VisionRecipe,
    (params, tower): (Params, ImageTower),
    teacher: Option<Distillation>,
    bn: Normalisation,
) -> Learner {
    let towers = Supervised { tower };
    let dense = Dense::new(towers, Box::new(CrossEntropy { teacher }), params, Optimizer::new(&recipe.optimizer));
    let leaves_out = recipe.train.on_nonfinite == OnNonfinite::Skip;
    let (precision, recompute, clip) = (recipe.train.precision, recipe.train.recompute, recipe.train.clip);
    Dense { precision, recompute, clip, statistics: bn.statistics(), leaves_out, ..dense }
}

/// The largest batch up to `wanted` that divides `samples` into nearly equal parts: an epoch leaves out a last, smaller batch, which with
/// few labels could be half of them. At least two, which batch normalisation needs.
pub(super) fn batch(samples: usize, wanted: usize) -> usize {
    (samples / samples.div_ceil(wanted.max(1)).max(1)).max(2)
}

/// The result of a classifier on labelled images.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Judged {
    /// Number of images.
    pub count: usize,
    /// Images whose class has the largest logit, the first of equal ones.
    pub hits: usize,
    /// Mean cross entropy.
    pub loss: f64,
}

impl Judged {
    /// The fraction of hits, 0 to 1.
    pub fn top1(&self) -> f64 {
        self.hits as f64 / self.count.max(1) as f64
    }

    /// The result of `rows` of logits with `labels`, one for each row.
    pub fn of(rows: &[f32], labels: &[u32]) -> Judged {
        let mut judged = Judged { count: labels.len(), hits: 0, loss: 0.0 };
        judged.add(rows, labels);
        Judged { loss: judged.loss / labels.len().max(1) as f64, ..judged }
    }

    fn add(&mut self, rows: &[f32], labels: &[u32]) {
        let classes = rows.len() / labels.len().max(1);
        for (row, &label) in rows.chunks_exact(classes.max(1)).zip(labels) {
            let label = label as usize;
            if label >= classes {
                continue;
            }
            let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            self.hits += usize::from(row.iter().position(|v| *v == top) == Some(label));
            self.loss += cross_entropy(row, label);
        }
    }
}

/// Classifies the evaluation views of `images` with running statistics.
pub(super) fn judge(tower: &ImageTower, images: &Images, augment: &Augment) -> Result<Judged> {
    let labels = images.labels().ok_or_else(|| Error::new("images without labels cannot be used for evaluation"))?;
    let mut judged = Judged { count: images.len(), hits: 0, loss: 0.0 };
    for range in batches(images.len(), augment.eval_size()) {
        let logits = logits(tower, &pixels::evaluation(images, augment, range.clone())?, Precision::F32)?;
        judged.add(&logits, &labels[range]);
    }
    judged.loss /= images.len().max(1) as f64;
    Ok(judged)
}

/// Compares checkpoints by their accuracy on the `watched` images.
pub(super) fn by_accuracy<'a>(watched: &'a Watched, augment: &'a Augment) -> Judge<'a, Learner> {
    Judge {
        measure: "top1",
        on: watched.what,
        samples: watched.on.len(),
        value: Box::new(move |learner| Ok(judge(&learner.towers.tower, &watched.on, augment)?.top1())),
    }
}

/// Logits of the evaluation views of `images`, row by row, with running statistics.
pub(crate) fn evaluated(tower: &ImageTower, images: &Images, augment: &Augment, precision: Precision) -> Result<Vec<f32>> {
    let mut rows = Vec::with_capacity(images.len() * tower.head.width());
    for range in batches(images.len(), augment.eval_size()) {
        rows.extend(logits(tower, &pixels::evaluation(images, augment, range)?, precision)?);
    }
    Ok(rows)
}

/// Logits of views, row by row, with running statistics.
pub(super) fn logits(tower: &ImageTower, views: &Pixels, precision: Precision) -> Result<Vec<f32>> {
    let rows = Rows::alone(views.len());
    let embedded = tower.embed(&Pixels::stack(&[views])?, &rows, &Pass::eval().at(precision))?;
    Ok(embedded.key.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ctk_core::recipe::Recipe;
    use ctk_core::store::checkpoint::Manifest;
    use ctk_core::train::learner::Learner as _;

    #[test]
    fn a_network_starts_from_the_encoder_and_the_first_head_layer() {
        let text = "[encoder.resnet]\ndepth = 20\nwidth = 0.25\n[head]\nlayers = 2\nwidth = 4\n";
        let recipe = crate::recipe::check(&Recipe::new("test", text)).unwrap().recipe;
        let learner = crate::network::learner(&recipe, &Device::Cpu).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let manifest = Manifest::new("vision", 1, 0, &Recipe::new("test", text));
        let saved = Checkpoint::write(folder.path(), manifest, |w| learner.save(w)).unwrap();
        let value = |params: &Params, name: &str| {
            let found = params.iter().find(|p| p.name() == name).unwrap();
            found.var().flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        let (params, tower) = build(&recipe, 1, 3, 99, &Device::Cpu).unwrap();
        for (name, starts) in [("encoder.conv1.weight", true), ("head.layers.0.weight", true), ("head.classifier.weight", false)]
        {
            let fresh = value(&params, name);
            start(&params, &saved).unwrap();
            assert_eq!(fresh != value(&params, name), starts, "{name}");
            if starts {
                assert_eq!(value(&params, name), value(&learner.params, name));
            }
            params.materialise(Key::new(99), DType::F32, &ctk_core::Device::Cpu).unwrap();
        }
        // Zero logits: the loss is ln 9, and the first of nine classes is predicted.
        let images = ctk_images::generated::open(18, 0).train;
        let (_params, tower) = match tower.head.width() {
            3 => build(&recipe, 1, 9, 99, &Device::Cpu).unwrap(),
            other => panic!("{other} classes"),
        };
        let augment = recipe.pairs.check(&Recipe::new("test", text)).unwrap();
        let judged = judge(&tower, &images, &augment).unwrap();
        assert!((judged.hits, judged.count) == (2, 18) && (judged.loss - 9f64.ln()).abs() < 1e-6, "{judged:?}");
    }

    #[test]
    fn batches_lose_little_of_few_labels() {
        assert_eq!([(45, 32), (500, 64), (9, 64), (64, 64), (3, 2), (1, 64)].map(|(n, b)| batch(n, b)), [22, 62, 9, 64, 2, 2]);
        for n in 2..600 {
            let size = batch(n, 64);
            assert!(size <= 64 && n % size <= n.div_ceil(64), "{n} in batches of {size}");
        }
    }
}
