//! The usual method over pairs and an encoder of a modality's own: its recipe, the plan and the learner that the recipe means, and the
//! encoder once it is trained.
//!
//! Every loss of the list that needs no teacher runs on it, with its predictor or momentum copy. What it does not do is refused: to begin with another run
//! (`train.init`), and to keep the best checkpoint (`checkpoint.keep_best`), which needs somebody who judges.

use candle_core::DType;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::dense::Dense;
use super::method::Method;
use super::plan::Plan;
use crate::device::Device;
use crate::error::{Context, Result};
use crate::model::encoder::Encoder;
use crate::model::tower::Siamese;
use crate::nn::params::{MODEL, Params, Scope};
use crate::objective::LossRecipe;
use crate::optim::Schedule;
use crate::recipe::{
    CheckpointRecipe, DenseTrainRecipe, HeadRecipe, OptimizerRecipe, PathRecipe, PredictorRecipe, Recipe, ScheduleRecipe,
};
use crate::rng::Key;
use crate::store::checkpoint::Checkpoint;

/// A recipe whose `[pairs]` are the modality's own; all other sections are core's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(bound = "P: JsonSchema + Default + Serialize", rename = "Recipe")]
pub struct TwoViews<P> {
    /// `[data]`: where the data is.
    pub data: PathRecipe,
    /// `[pairs]`: how a sample becomes two views.
    pub pairs: P,
    /// `[head]`: the projection head.
    pub head: HeadRecipe,
    /// `[predictor]`: what follows the head in BYOL and SimSiam, and in no other method.
    pub predictor: Option<PredictorRecipe>,
    /// `[loss.*]`.
    pub loss: LossRecipe,
    /// `[optimizer.*]`.
    pub optimizer: OptimizerRecipe,
    /// `[schedule]`.
    pub schedule: ScheduleRecipe,
    /// `[train]`.
    pub train: DenseTrainRecipe,
    /// `[checkpoint]`: when checkpoints are saved, and how many are kept.
    pub checkpoint: CheckpointRecipe,
}

impl<P> TwoViews<P> {
    /// Parses `text` and checks every figure outside `[pairs]`: the recipe, and the plan of a run of `modality` by it.
    ///
    /// # Errors
    /// A key that there is not, or a figure that cannot be, with its line.
    pub fn check(modality: &'static str, text: &Recipe) -> Result<(Self, Plan)>
    where
        P: DeserializeOwned + Default + JsonSchema + Serialize,
    {
        text.tables(&schemars::schema_for!(Self).to_value())?;
        let recipe: Self = text.parse()?;
        recipe.method().check(text)?;
        recipe.loss.without_teacher(text)?;
        recipe.schedule.check(text)?;
        let train = &recipe.train;
        train.check(text)?;
        text.require(train.batch > 1, "train.batch", "must be at least 2: a loss compares the samples of a batch")?;
        text.require(train.init.is_none(), "train.init", "this modality does not begin with another run")?;
        text.require(!recipe.checkpoint.keep_best, "checkpoint.keep_best", "this modality does not judge its checkpoints")?;
        let schedule = Schedule::new(&recipe.schedule, recipe.optimizer.rate());
        let saves = recipe.checkpoint.saves(&train.shared(), text)?;
        let plan = Plan { part: train.part(), saves, ..Plan::new(modality, text, train.shared(), schedule)? };
        Ok((recipe, plan))
    }

    /// What learns by this recipe, before its first step: one `encoder`, declared in the scope that it is given, with the recipe's head
    /// and loss behind it, all with fresh values from the recipe's seed.
    ///
    /// # Errors
    /// A state of the loss that cannot be made; an optimizer that cannot train this encoder.
    pub fn learner<E: Encoder>(&self, encoder: impl Fn(Scope) -> E, device: &Device) -> Result<Dense<Siamese<E>>> {
        self.method().learner(|scope| Ok(encoder(scope)), |_| Ok(()), device)
    }

    /// The sections that describe the method.
    fn method(&self) -> Method<'_> {
        let TwoViews { head, loss, optimizer, train, .. } = self;
        Method { head, predictor: self.predictor.as_ref(), loss, optimizer, train }
    }

    /// The recipe of a checkpoint, and its trained encoder, which is declared as [`learner`](TwoViews::learner) declared it.
    ///
    /// # Errors
    /// A checkpoint of another encoder.
    pub fn open<E>(from: &Checkpoint, encoder: impl FnOnce(Scope) -> E, device: &Device) -> Result<(Self, E)>
    where
        P: DeserializeOwned + Default,
    {
        let recipe: Self = from.recipe().parse()?;
        let mut params = Params::new();
        let encoder = encoder(params.root().sub("encoder"));
        params.materialise(Key::new(recipe.train.seed), DType::F32, device)?;
        params.load_section("encoder", &from.reader().tensors(MODEL)?).at(from.folder().display())?;
        Ok((recipe, encoder))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::pair::{Maps, PairGenerator};
    use crate::data::source::Paired;
    use crate::error::Result;
    use crate::eval::Features;
    use crate::modality::Summary;
    use crate::model::encoder::{Chain, represent};
    use crate::nn::params::{Init, ParamKind};
    use crate::nn::{BatchNorm, Layer, Linear};
    use crate::process::Process;
    use crate::rng::Rng;
    use crate::store::run::{Place, Run};
    use crate::train::fit::fit;

    /// Rows as they are, and turned round.
    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
    #[serde(default, deny_unknown_fields)]
    struct Turned {
        factor: f32,
    }

    impl PairGenerator for Turned {
        type Sample = Vec<f32>;
        type Left = Maps;
        type Right = ();

        fn pairs(&self, row: &Vec<f32>, _: &mut Rng, views: &mut [Maps], _: &mut [()]) -> Result<()> {
            let turned: Vec<f32> = row.iter().map(|value| self.factor * value).collect();
            views[0].push([1, 1, row.len()], row)?;
            views[1].push([1, 1, row.len()], &turned)
        }
    }

    fn encoder(mut scope: Scope) -> Chain<Maps> {
        let linear = Linear::new([4, 3], false, ParamKind::Weight, Init::Normal { std: 1.0 }, scope.sub("linear"));
        let norm = BatchNorm::new(4, 1.0, scope.sub("norm")).relu();
        Chain::new(vec![Layer::Linear(linear), Layer::BatchNorm(norm)], 4, scope)
    }

    fn rows() -> Features {
        let mut rows = Features::default();
        for i in 0..300 {
            let at = i as f32;
            rows.push(format!("{i}"), &[at.sin(), (1.7 * at).cos(), (0.3 * at).sin()]).unwrap();
        }
        rows.labelled(&(0..300).map(|i| (i % 2).to_string()).collect::<Vec<_>>())
    }

    const SHORT: &str = "[pairs]\nfactor = -1.0\n[head]\nlayers = 2\nwidth = 4\n[train]\nbatch = 8\nmax_steps = 3\n";

    #[test]
    fn every_loss_trains_an_encoder_that_opens_again() {
        let folder = tempfile::tempdir().unwrap();
        for loss in ["nt-xent", "moco", "supcon", "dcl", "infonce", "ranking", "barlow-twins", "vicreg", "simsiam", "byol"] {
            let predictor = if ["simsiam", "byol"].contains(&loss) { "[predictor]\nhidden = 4\n" } else { "" };
            let text = Recipe::new("a.toml", format!("{SHORT}{predictor}[loss.{loss}]\n"));
            let (recipe, plan) = TwoViews::<Turned>::check("turned", &text).unwrap();
            let mut run = Run::new(Place::New(folder.path().join(loss)), "turned", text).unwrap();
            let mut learner = recipe.learner(encoder, &Device::Cpu).unwrap();
            let source = Paired { data: rows(), pairs: recipe.pairs.clone() };
            let fitted = fit(&source, &mut learner, &plan, &mut [], &mut run, &mut Process::new(crate::Device::Cpu)).unwrap();
            assert_eq!(Summary::from(fitted).steps, 3, "{loss}");
            let checkpoint = Checkpoint::open(run.folder().unwrap()).unwrap();
            let (again, opened) = TwoViews::<Turned>::open(&checkpoint, encoder, &Device::Cpu).unwrap();
            assert_eq!(again, recipe);
            let view = |row: &Vec<f32>, view: &mut Maps| view.push([1, 1, 3], row);
            let of = |encoder: &Chain<Maps>| represent(encoder, &rows(), view).unwrap();
            let [trained, opened] = [of(&learner.towers.tower.encoder), of(&opened)];
            assert_eq!((trained.len(), &trained), (300 * 4, &opened), "{loss}");
            assert_ne!(
                trained,
                of(&recipe.learner(encoder, &Device::Cpu).unwrap().towers.tower.encoder),
                "{loss} learns nothing"
            );
        }
    }

    #[test]
    fn clipping_and_rates_by_depth_reach_the_learner() {
        let learner = |more: &str| {
            let text = Recipe::new("a.toml", format!("{SHORT}{more}"));
            TwoViews::<Turned>::check("turned", &text).unwrap().0.learner(encoder, &Device::Cpu)
        };
        assert_eq!(learner("clip = 0.5\n").unwrap().clip, Some(0.5));
        let error = learner("[optimizer.adamw]\nlayer_decay = 0.8\n").err().unwrap().to_string();
        assert!(error.contains("layer_decay is 0.8"), "{error}");
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_line() {
        for (text, said) in [
            ("[pairs]\nfacto = 1.0", "did you mean `factor`?"),
            ("[train]\nbatch = 1", "train.batch: must be at least 2"),
            ("[train]\ninit = \"run\"", "train.init: "),
            ("[checkpoint]\nkeep_best = true", "checkpoint.keep_best: "),
            ("[head]\nlayers = 4", "head.layers: "),
            ("[loss.byol]\n", "[predictor]"),
            ("[loss.mse]\n", "loss.mse: needs a teacher's embeddings"),
            ("[loss.kl]\n", "loss.kl: needs a teacher's embeddings"),
            ("[optimizer.sgd]\nrate = 0.0", "optimizer.sgd.rate: "),
            ("[optimizer.adamw]\nlayer_decay = 0.0", "optimizer.adamw.layer_decay: "),
            ("[optimizer.adamw]\nlayer_decay = 1.5", "optimizer.adamw.layer_decay: "),
            ("[schedule]\nwarmup = -1.0", "schedule.warmup: "),
            ("data = [\"a\"]\n", "table"),
        ] {
            let error = TwoViews::<Turned>::check("turned", &Recipe::new("a.toml", text)).unwrap_err().to_string();
            assert!(error.contains(said) && error.contains("a.toml:"), "{text}: {error}");
        }
    }
}
