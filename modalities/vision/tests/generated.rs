//! Test of the generated dataset: contrastive learning learns its classes, from the pairs alone.
//!
//! The same network is trained on the same data for the same steps in three ways: on pairs of one image, on pairs of two different images
//! (which must learn nothing useful), and with labels (the upper bound; takes minutes, so it is ignored by default):
//!
//!     cargo test --release -p ctk-vision --test generated -- --ignored --nocapture

use candle_core::{DType, Tensor};
use ctk_core::Result;
use ctk_core::data::dataset::Dataset;
use ctk_core::data::pair::{Batch, HostBatch};
use ctk_core::data::source::{Paired, Source};
use ctk_core::eval::{Features, linear_probe};
use ctk_core::model::encoder::Encoder;
use ctk_core::model::head::ProjectionHead;
use ctk_core::model::supervised::Supervised;
use ctk_core::model::tower::{Siamese, Tower, Towers};
use ctk_core::nn::params::Params;
use ctk_core::nn::pass::Pass;
use ctk_core::nn::rows::Rows;
use ctk_core::objective::CrossEntropy;
use ctk_core::objective::spec::EmbeddingSpace;
use ctk_core::optim::{Optimizer, Schedule};
use ctk_core::process::Process;
use ctk_core::recipe::Recipe;
use ctk_core::rng::Key;
use ctk_core::store::run::{Place, Run};
use ctk_core::train::dense::Dense;
use ctk_core::train::fit::fit;
use ctk_core::train::plan::Plan;
use ctk_images::augment::Augment;
use ctk_images::dataset::{Images, Splits};
use ctk_images::generated;
use ctk_images::pixels::{Pixels, evaluation};
use ctk_vision::encoder::ImageEncoder;
use ctk_vision::pairs::{OneView, TwoViews};
use ctk_vision::recipe::VisionRecipe;

const RECIPE: &str = include_str!("../../../configs/vision/generated.toml");

/// The default recipe, with some keys changed.
fn recipe(set: &[(&str, &str)]) -> (Recipe, VisionRecipe, Augment) {
    let mut text = Recipe::new("the default recipe", RECIPE);
    set.iter().for_each(|(key, value)| text.set(key, value).unwrap());
    let recipe: VisionRecipe = text.parse().unwrap();
    let augment = recipe.pairs.check(&text).unwrap();
    (text, recipe, augment)
}

/// Pairs whose views come from neighbouring images of the batch; everything else is as in training.
struct Strangers(Paired<Images, TwoViews>);

impl Source for Strangers {
    type Batch = Batch<Pixels, ()>;

    fn len(&self) -> usize {
        self.0.len()
    }

    fn draw(&self, samples: &[u32], key: Key) -> Result<Self::Batch> {
        let mut others = samples.to_vec();
        others.rotate_left(1);
        let (mut own, mut other) = (self.0.draw(samples, key)?, self.0.draw(&others, key)?);
        own.left[1] = other.left.swap_remove(1);
        Ok(own)
    }
}

/// Trains with the training loop.
fn train<S: Source, T: Towers>(text: &Recipe, recipe: &VisionRecipe, source: &S, learner: &mut Dense<T>)
where
    Dense<T>: ctk_core::train::learner::Learner<Batch = S::Batch>,
{
    let folder = tempfile::tempdir().unwrap();
    let schedule = Schedule::new(&recipe.schedule, recipe.optimizer.rate());
    let plan = Plan::new("vision", text, recipe.train.shared(), schedule).unwrap();
    let place = Place::New(folder.path().join("run"));
    let mut run = Run::new(place, "vision", text.clone()).unwrap();
    fit(source, learner, &plan, &mut [], &mut run, &mut Process::new(ctk_core::Device::Cpu)).unwrap();
}

fn encoder(recipe: &VisionRecipe, params: &mut Params) -> Box<dyn ImageEncoder> {
    recipe.encoder.build(params.root().sub("encoder")).unwrap()
}

/// The rows of `of` for the evaluation views of `images`.
fn rows(images: &Images, augment: &Augment, of: impl Fn(&Tensor) -> Result<Tensor>) -> Features {
    let (mut rows, mut width) = (Vec::new(), 0);
    for from in (0..images.len()).step_by(128) {
        let pixels = evaluation(images, augment, from..(from + 128).min(images.len())).unwrap();
        let part = of(&Pixels::stack(&[&pixels]).unwrap()).unwrap();
        width = part.dims()[1];
        rows.extend(part.flatten_all().unwrap().to_vec1::<f32>().unwrap());
    }
    Features {
        rows,
        width,
        names: images.names(),
        labels: images.labels(),
        classes: images.classes().to_vec(),
        ..Features::default()
    }
}

/// The probe's accuracy after contrastive training on `source`.
fn contrasted(text: &Recipe, recipe: &VisionRecipe, augment: &Augment, splits: &Splits, strangers: bool) -> f64 {
    let mut params = Params::new();
    let encoder = encoder(recipe, &mut params);
    let head = ProjectionHead::new(&recipe.head, encoder.width(), params.root().sub("head"));
    params.materialise(Key::new(recipe.train.seed), DType::F32, &ctk_core::Device::Cpu).unwrap();
    let towers = Siamese { tower: Tower { encoder, head, predictor: None } };
    let space = EmbeddingSpace { width: recipe.head.width, dtype: DType::F32 };
    let loss = recipe.loss.build(&space, Params::new().root().sub("loss")).unwrap();
    let mut learner = Dense::new(towers, loss, params, Optimizer::new(&recipe.optimizer));
    let source = Paired { data: splits.train.clone(), pairs: TwoViews(augment.clone()) };
    if strangers {
        train(text, recipe, &Strangers(source), &mut learner);
    } else {
        train(text, recipe, &source, &mut learner);
    }
    let encode = |x: &Tensor| Ok(learner.towers.tower.encoder.encode(x, &Rows::alone(x.dims()[0]), &Pass::eval())?.0);
    let (train, test) = (rows(&splits.train, augment, encode), rows(splits.test.as_ref().unwrap(), augment, encode));
    linear_probe::linear_probe(&train, &test, &Default::default()).unwrap().top1
}

#[test]
fn the_gain_comes_from_pairs_of_one_image() {
    let (text, recipe, augment) = recipe(&[("data.train", "1800"), ("train.epochs", "12")]);
    let splits = generated::open(1800, 900);
    let learned = contrasted(&text, &recipe, &augment, &splits, false);
    let strangers = contrasted(&text, &recipe, &augment, &splits, true);
    println!("probe: pairs of one image {learned:.3}, of two {strangers:.3}");
    assert!(learned > strangers + 0.2, "pairs of one image {learned}, of two {strangers}");
}

#[test]
#[ignore = "minutes: the upper bound, for the figures of the default config"]
fn labels_teach_the_same_network_nearly_everything() {
    let (text, recipe, augment) = recipe(&[]);
    let splits = generated::open(recipe.data.train, recipe.data.test);
    let mut params = Params::new();
    let encoder = encoder(&recipe, &mut params);
    // No layer of the head, followed by the classifier.
    let head = ProjectionHead::classifier(&recipe.head, 0, generated::CLASSES, encoder.width(), params.root().sub("head"));
    params.materialise(Key::new(recipe.train.seed), DType::F32, &ctk_core::Device::Cpu).unwrap();
    let towers = Supervised { tower: Tower { encoder, head, predictor: None } };
    let mut learner = Dense::new(towers, Box::new(CrossEntropy { teacher: None }), params, Optimizer::new(&recipe.optimizer));
    let source = Paired { data: splits.train.clone(), pairs: OneView(augment.clone()) };
    train(&text, &recipe, &source, &mut learner);
    let logits = rows(splits.test.as_ref().unwrap(), &augment, |x| {
        Ok(learner.towers.tower.embed(x, &Rows::alone(x.dims()[0]), &Pass::eval())?.key)
    });
    let hit = |(row, label): (&[f32], &u32)| (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b])) == Some(*label as usize);
    let labels = logits.labels.as_ref().unwrap();
    let right = logits.rows.chunks_exact(logits.width).zip(labels).filter(|&(row, label)| hit((row, label))).count();
    let accuracy = right as f64 / labels.len() as f64;
    println!("supervised: {accuracy:.4}");
    assert!(accuracy >= 0.95, "{accuracy}");
}
