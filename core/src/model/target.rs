//! The momentum copy of the towers: MoCo's key encoder (He et al. 2020, equation 2), BYOL's target (Grill et al. 2020, equation 1).
//!
//! Its parameters have the same names as the online towers' and are not trained. After each step of the optimizer
//!
//! ```text
//! ξ ← m·ξ + (1 − m)·θ          for every trained parameter
//! ```
//!
//! where m is constant, or rises: 1 − (1 − m₀)·(cos(π·k/K) + 1)/2 after k of K steps (BYOL, §3.3).
//!
//! Running statistics are not averaged. They are updated by the copy's own forward passes, which normalise by their batch (as in both
//! papers' code).

use ctk_kernels::Step;

use super::embeddings::{Embeddings, ViewSet};
use super::tower::{Places, Towers};
use crate::data::pair::Batch;
use crate::error::{Error, Result};
use crate::nn::array::{Change, steps};
use crate::nn::params::Params;
use crate::nn::pass::{Groups, Pass};
use crate::store::checkpoint::{Reader, Writer};

/// The file of its tensors in a checkpoint.
const FILE: &str = "target.safetensors";

/// The momentum m.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Momentum {
    /// The same in every step.
    Constant(f64),
    /// Rises from this value to 1, where the copy no longer changes.
    Rising(f64),
}

impl Momentum {
    /// The momentum after the fraction `share` of the run, 0 to 1.
    fn after(self, share: f64) -> f64 {
        match self {
            Momentum::Constant(m) => m,
            Momentum::Rising(m) => 1.0 - (1.0 - m) * ((std::f64::consts::PI * share).cos() + 1.0) / 2.0,
        }
    }
}

/// A momentum copy of towers.
pub struct Target<T> {
    towers: T,
    params: Params,
    momentum: Momentum,
}

impl<T: Towers> Target<T> {
    /// Makes `towers`, whose parameters are `params`, a copy of `online`. A predictor is not copied.
    ///
    /// # Errors
    /// `online` lacks a parameter or has it in another shape.
    pub fn new(towers: T, params: Params, momentum: Momentum, online: &Params) -> Result<Self> {
        params.take("", &online.section("")?.into_iter().collect())?;
        Ok(Target { towers, params, momentum })
    }

    /// Embeddings of the requested views, which no gradient flows through. `pass` is the step's. If each view has several groups of batch
    /// statistics, rows are grouped by another permutation than in the online towers.
    pub(crate) fn project(
        &self,
        batch: &Batch<T::Left, T::Right>,
        views: ViewSet,
        at: &Places,
        pass: &Pass,
    ) -> Result<Embeddings> {
        let shuffled = matches!(pass.groups, Groups::Each(groups) if groups > 1);
        Ok(self.towers.project(batch, views, at, &Pass { tape: false, shuffled, ..pass.clone() })?.0)
    }

    /// Moves the parameters towards those of `online`, after the fraction `share` of the run.
    pub(crate) fn follow(&self, online: &Params, share: f64) -> Result<()> {
        let momentum = self.momentum.after(share);
        let mut rest = online.iter();
        let mut pairs = Vec::new();
        for own in self.params.iter().filter(|p| p.kind().trained()) {
            // Both declared their parameters in the same order; `online` may have more.
            let Some(theirs) = rest.find(|p| p.name() == own.name()) else {
                return Err(Error::new("the online network has no such parameter").at(own.name()));
            };
            pairs.push((own.array(), theirs.array()));
        }
        let step = Step::Blend { keep: momentum, add: 1.0 - momentum };
        steps(pairs.iter().map(|(w, g)| Change { step, w, state: &[], g, scale: 1.0 }).collect())
    }

    /// Its parameters and running statistics.
    pub fn params(&self) -> &Params {
        &self.params
    }

    pub(crate) fn save(&self, writer: &mut Writer) -> Result<()> {
        writer.tensors(FILE, &self.params.section("")?)
    }

    pub(crate) fn load(&self, reader: &Reader) -> Result<()> {
        self.params.load_section("", &reader.tensors(FILE)?).map_err(|e| e.at(FILE))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Tensor};

    use super::*;
    use crate::data::feed::Feed;
    use crate::data::known::Known;
    use crate::data::pair::HostBatch;
    use crate::model::encoder::Encoder;
    use crate::model::head::ProjectionHead;
    use crate::model::tower::{Siamese, Tower};
    use crate::nn;
    use crate::nn::params::{Init, ParamKind};
    use crate::nn::tape::Tape;
    use crate::nn::{BatchNorm, Layer, Linear, Sequential};
    use crate::objective::spec::EmbeddingSpace;
    use crate::objective::{LossRecipe, MocoRecipe, NtXentRecipe};
    use crate::optim::Optimizer;
    use crate::recipe::{HeadRecipe, Norms, OptimizerRecipe, Recipe, SgdRecipe};
    use crate::rng::Key;
    use crate::store::checkpoint::{Checkpoint, Manifest};
    use crate::train::dense::Dense;
    use crate::train::learner::Learner;

    #[derive(Default)]
    struct Rows(Vec<f64>);

    impl HostBatch for Rows {
        type Stacked = Tensor;

        fn stack(parts: &[&Self]) -> Result<Tensor> {
            let all: Vec<f64> = parts.iter().flat_map(|p| p.0.iter().copied()).collect();
            let rows = all.len() / 5;
            Ok(Tensor::from_vec(all, (rows, 5), &candle_core::Device::Cpu)?)
        }
    }

    struct Net(Sequential);

    impl Encoder for Net {
        type Views = Rows;

        fn width(&self) -> usize {
            3
        }

        fn encode(&self, x: &Tensor, rows: &nn::rows::Rows, pass: &Pass) -> Result<(Tensor, Tape)> {
            self.0.forward(x, rows, pass)
        }
    }

    fn towers(normed: bool) -> (Params, Siamese<Net>) {
        let mut params = Params::new();
        let linear =
            Linear::new([3, 5], false, ParamKind::Weight, Init::Normal { std: 0.5 }, params.root().sub("encoder").sub("linear"));
        let mut layers = vec![Layer::Linear(linear)];
        if normed {
            layers.push(Layer::BatchNorm(BatchNorm::new(3, 1.0, params.root().sub("encoder").sub("norm")).relu()));
        }
        let encoder = Net(Sequential::new(layers, params.gradient_store()));
        let head = HeadRecipe { layers: 2, width: 4, hidden: Some(6), norms: Norms::None, bias: true };
        let head = ProjectionHead::new(&head, 3, params.root().sub("head"));
        params.materialise(Key::new(5), DType::F64, &crate::Device::Cpu).unwrap();
        (params, Siamese { tower: Tower { encoder, head, predictor: None } })
    }

    fn learner(loss: &LossRecipe, normed: bool) -> Dense<Siamese<Net>> {
        let (params, online) = towers(normed);
        let (own, copy) = towers(normed);
        let needs = loss.needs();
        let target = needs.momentum.map(|momentum| Target::new(copy, own, momentum, &params).unwrap());
        let space = EmbeddingSpace { width: 4, dtype: DType::F64 };
        let objective = loss.build(&space, Params::new().root().sub("loss")).unwrap();
        let sgd = OptimizerRecipe::Sgd(SgdRecipe { momentum: 0.9, decay: 0.0, ..SgdRecipe::default() });
        Dense { target, groups: needs.groups, ..Dense::new(online, objective, params, Optimizer::new(&sgd)) }
    }

    fn batch(step: usize, rows: std::ops::Range<usize>) -> Batch<Rows, ()> {
        let wave =
            |f: f64| Rows(rows.clone().flat_map(|r| (0..5).map(move |c| ((r * 5 + c + 77 * step) as f64 * f).sin())).collect());
        Batch {
            left: vec![wave(1.3), wave(1.31)],
            right: vec![],
            samples: rows.clone().map(|r| r as u32).collect(),
            known: Known::default(),
        }
    }

    fn steps(dense: &mut Dense<Siamese<Net>>, steps: std::ops::Range<usize>, part: usize) {
        for step in steps {
            let draw = |p: usize| Ok(batch(step, p * part..((p + 1) * part).min(12)));
            dense.step(&Feed::new(12usize.div_ceil(part), 12, Key::new(0).at(step as u64), &draw), 0.1).unwrap();
        }
    }

    fn values(params: &Params) -> Vec<(String, Vec<f64>)> {
        let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        params.section("").unwrap().iter().map(|(name, t)| (name.clone(), flat(t))).collect()
    }

    fn moco() -> LossRecipe {
        LossRecipe::Moco(MocoRecipe { queue: 20, momentum: 0.9, ..MocoRecipe::default() })
    }

    fn memory() -> LossRecipe {
        LossRecipe::NtXent(NtXentRecipe { memory: Some(20), momentum: Some(0.9), ..NtXentRecipe::default() })
    }

    #[test]
    fn byols_momentum_rises_to_one() {
        let of = |share: f64| Momentum::Rising(0.96).after(share);
        assert!((of(0.0) - 0.96).abs() < 1e-15 && (of(0.5) - 0.98).abs() < 1e-15 && of(1.0) == 1.0);
        assert!((of(1.0 / 3.0) - 0.97).abs() < 1e-15, "a quarter of the way after a third of the run");
        assert_eq!((Momentum::Constant(0.9).after(0.0), Momentum::Constant(0.9).after(1.0)), (0.9, 0.9));
        let mut dense = learner(&LossRecipe::Byol(Default::default()), false);
        let copy = |dense: &Dense<_>| values(dense.target.as_ref().unwrap().params());
        let step = |dense: &mut Dense<_>, share: f64| {
            let draw = |_: usize| Ok(batch(0, 0..12));
            dense.step(&Feed::new(1, 12, Key::new(0), &draw).after(share), 0.1).unwrap();
        };
        let start = copy(&dense);
        step(&mut dense, 1.0);
        assert_eq!(copy(&dense), start, "at the end it stands still");
        step(&mut dense, 0.5);
        assert_ne!(copy(&dense), start);
    }

    #[test]
    fn parameters_are_averaged_and_statistics_move_by_themselves() {
        for loss in [moco(), memory()] {
            let mut dense = learner(&loss, true);
            let copied = |dense: &Dense<_>| values(dense.target.as_ref().unwrap().params());
            assert_eq!(values(&dense.params), copied(&dense));
            // In its first step MoCo has no negatives yet, and learns nothing.
            steps(&mut dense, 0..1, 12);
            let (start, before) = (values(&dense.params), copied(&dense));
            steps(&mut dense, 1..2, 12);
            let (online, after) = (values(&dense.params), copied(&dense));
            for (i, (name, online)) in online.iter().enumerate() {
                let (before, after) = (&before[i].1, &after[i].1);
                let mean = |j: usize| 0.9 * before[j] + 0.1 * online[j];
                let averaged = (0..before.len()).all(|j| (after[j] - mean(j)).abs() < 1e-14);
                assert_ne!(&start[i].1, online, "{name} learns");
                assert_eq!(averaged, !name.contains("running"), "{name}");
                assert_ne!(before, after, "{name} follows");
            }
        }
    }

    #[test]
    fn no_gradient_reaches_it() {
        let mut dense = learner(&moco(), true);
        steps(&mut dense, 0..2, 12);
        let target = dense.target.as_ref().unwrap();
        let pass = Pass::train(Key::new(1), &crate::world::solo());
        let keys = target.project(&batch(0, 0..12), ViewSet::One(1), &Places::alone(12), &pass).unwrap();
        assert!(!keys.view(1).unwrap().key.track_op() && keys.view(0).is_err());
        assert!(target.params.gradients().unwrap().iter().all(Option::is_none));
    }

    #[test]
    fn parts_are_the_whole() {
        for loss in [moco(), memory()] {
            let [mut whole, mut parts] = [(); 2].map(|()| learner(&loss, false));
            steps(&mut whole, 0..3, 12);
            steps(&mut parts, 0..3, 5);
            for ((name, a), (_, b)) in values(&whole.params).iter().zip(&values(&parts.params)) {
                assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12), "{name}");
            }
        }
    }

    #[test]
    fn a_resumed_run_is_the_same_run() {
        for loss in [moco(), memory()] {
            let mut straight = learner(&loss, true);
            steps(&mut straight, 0..3, 12);
            let folder = tempfile::tempdir().unwrap();
            let manifest = Manifest::new("test", 3, 0, &Recipe::new("r", ""));
            let saved = Checkpoint::write(folder.path(), manifest, |w| straight.save(w)).unwrap();
            let mut resumed = learner(&loss, true);
            resumed.load(&saved.reader()).unwrap();
            for dense in [&mut straight, &mut resumed] {
                steps(dense, 3..6, 12);
            }
            assert_eq!(values(&straight.params), values(&resumed.params));
            let target = |dense: &Dense<_>| values(dense.target.as_ref().unwrap().params());
            assert_eq!(target(&straight), target(&resumed));
        }
    }

    #[test]
    fn a_method_that_needs_one_says_so() {
        let mut dense = Dense { target: None, ..learner(&moco(), true) };
        let draw = |_: usize| Ok(batch(0, 0..12));
        let error = dense.step(&Feed::new(1, 12, Key::new(0), &draw), 0.1).err().unwrap().to_string();
        assert!(error.contains("momentum encoder") && error.contains("hint: "), "{error}");
    }
}
