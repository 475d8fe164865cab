//! MoCo (He et al. 2020, equation 1; Chen, Fan et al. 2020): InfoNCE against a queue of keys.
//!
//! For n queries q, their positive keys k₊ and the K keys of the queue, all of length 1,
//!
//! ```text
//! L = 1/n Σᵢ −log p₊ᵢ       pᵢ = softmax([qᵢ·k₊ᵢ, qᵢ·k₁, …, qᵢ·k_K] / T)
//! ∂L/∂qᵢ = 1/(n·T) · ((p₊ᵢ − 1)·k₊ᵢ + Σⱼ pᵢⱼ·kⱼ)
//! ```
//!
//! Keys come from a momentum encoder and get no gradient.

use candle_core::Tensor;
use ctk_cuda::{Contrast, Cuda, Denominator, NO_LABEL};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::contrast::{numbered, on_cuda, over_ranks, paired, softmax};
use super::queue::Queue;
use super::spec::{Checks, EmbeddingSpace, MOMENTUM, Needs, Spec};
use super::{Inputs, Objective, Reads, Terms, attach, normalise};
use crate::device::Device;
use crate::error::Result;
use crate::model::embeddings::ViewSet;
use crate::model::target::Momentum;
use crate::nn::params::Scope;
use crate::nn::pass::Groups;
use crate::store::checkpoint::{Reader, Writer};

/// `[loss.moco]` (He et al. 2020; Chen, Fan et al. 2020). With it `train.bn_groups` is 8 by default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MocoRecipe {
    /// Temperature by which similarities are divided; .07 in MoCo, .2 in MoCo v2.
    pub temperature: f64,
    /// Keys of earlier batches in the queue, which are the negatives; at most 65536, the papers' value for ImageNet. Small data needs
    /// fewer: a queue of more than half the images holds other views of the batch's own images.
    pub queue: usize,
    /// Momentum of the key encoder. Use .99 for runs of a few thousand steps; at .999 the key encoder would follow too slowly.
    pub momentum: f64,
}

impl Default for MocoRecipe {
    fn default() -> Self {
        MocoRecipe { temperature: 0.2, queue: 4096, momentum: MOMENTUM }
    }
}

impl Spec for MocoRecipe {
    fn needs(&self) -> Needs {
        let momentum = Some(Momentum::Constant(self.momentum));
        Needs { momentum, queue: Some(self.queue), groups: Groups::Each(8), ..Needs::default() }
    }

    fn check(&self, checks: &Checks) -> Result<()> {
        checks.positive("temperature", self.temperature, "; MoCo v2 uses .2")?;
        checks.queue("queue", Some(self.queue))?;
        checks.momentum("momentum", self.momentum)
    }

    fn build(&self, space: &EmbeddingSpace, _: Scope) -> Result<Box<dyn Objective>> {
        let queue = Queue::new(self.queue, space.width, space.dtype)?;
        Ok(Box::new(Moco { temperature: self.temperature, queue }))
    }
}

/// Queries of the first view against the momentum encoder's keys of the second view and of the queue.
pub struct Moco {
    /// Temperature by which similarities are divided; .07 in MoCo, .2 in MoCo v2.
    pub temperature: f64,
    /// Keys of earlier batches, the negatives.
    pub queue: Queue,
}

impl Objective for Moco {
    fn loss(&self, inputs: &Inputs) -> Result<Terms> {
        let target = inputs.target()?.view(1)?;
        let online = inputs.online.view(0)?;
        let (n, _) = paired(&online.query, &target.key)?;
        let query = normalise(&online.query)?;
        let (q, key) = (query.detach(), normalise(&target.key.detach())?);
        let positive = (&q * &key)?.sum_keepdim(1)?;
        let negatives = self.queue.keys()?;
        let (sum, gradient) = match inputs.device {
            Device::Cpu => self.here(&q, &key, &positive, negatives.as_ref())?,
            Device::Cuda(cuda) => self.on_cuda(cuda, &q, &key, negatives.as_ref())?,
        };
        let all = over_ranks(n, &q, inputs.world)?;
        let value = inputs.world.sum(&(sum / all)?)?;
        let loss = attach(&value, &[(&query, (gradient / (all * self.temperature))?)])?;
        inputs.terms(&loss, &[], vec![("positive_similarity", positive.mean_all()?)])
    }

    /// The online towers read the first view (queries), the momentum encoder the second (keys).
    fn reads(&self) -> Reads {
        Reads { online: ViewSet::One(0), target: ViewSet::One(1) }
    }

    fn after_step(&mut self, inputs: &Inputs) -> Result<()> {
        self.queue.enqueue(&inputs.world.gather(&inputs.target()?.view(1)?.key.detach())?.rows)
    }

    fn save(&self, writer: &mut Writer) -> Result<()> {
        self.queue.save(writer)
    }

    fn load(&mut self, reader: &Reader) -> Result<()> {
        self.queue.load(reader)
    }
}

impl Moco {
    /// The sum of the losses of `q`, whose similarities with their keys are `positive`, and T times its gradient.
    fn here(&self, q: &Tensor, key: &Tensor, positive: &Tensor, negatives: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        let logits = match negatives {
            Some(keys) => Tensor::cat(&[positive, &q.matmul(&keys.t()?)?], 1)?,
            None => positive.clone(),
        };
        let logits = (logits / self.temperature)?;
        let (top, p) = softmax(&logits)?;
        let mut gradient = key.broadcast_mul(&(p.narrow(1, 0, 1)? - 1.0)?)?;
        if let Some(keys) = negatives {
            gradient = (gradient + p.narrow(1, 1, keys.dim(0)?)?.matmul(keys)?)?;
        }
        Ok(((top - logits.narrow(1, 0, 1)?)?.sum_all()?, gradient))
    }

    /// The same on a device. The keys of other queries have labels, so they are in no denominator.
    fn on_cuda(&self, cuda: &Cuda, q: &Tensor, key: &Tensor, negatives: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        let (n, width) = q.dims2()?;
        let candidates = negatives.map_or(Ok(key.clone()), |negatives| Tensor::cat(&[key, negatives], 0))?;
        let mut labels = numbered(0, n);
        labels.resize(candidates.dim(0)?, NO_LABEL);
        let described = Contrast {
            labels: &labels[..n],
            memory: &labels,
            weights: &vec![1.0; n],
            width,
            temperature: self.temperature,
            sides: &[(0..n, 0..0)],
            denominator: Denominator::Unlabelled,
        };
        let (sum, gradient) = on_cuda(cuda, &described, q, Some(&candidates))?;
        Ok((sum, (gradient * self.temperature)?))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::DType;

    use super::super::testing::{self, angles, distance, finite_difference, gradient, random, ranks, two};
    use super::*;
    use crate::world::{Collective, Solo};

    fn queue(capacity: usize) -> Queue {
        Queue::new(capacity, 2, DType::F64).unwrap()
    }

    fn angles_of(queue: &Queue) -> Vec<f64> {
        let rows = queue.keys().unwrap().map_or(vec![], |k| k.to_vec2::<f64>().unwrap());
        rows.iter().map(|r| (r[1].atan2(r[0]) * 1e9).round() / 1e9).collect()
    }

    fn axis(values: &[f64]) -> Tensor {
        angles(&values.iter().map(|a| a.to_degrees()).collect::<Vec<_>>())
    }

    #[test]
    fn equal_embeddings_cost_the_log_of_the_choices() {
        for k in [0usize, 1, 7] {
            let mut moco = Moco { temperature: 0.07, queue: queue(9) };
            moco.queue.enqueue(&axis(&vec![0.4; k])).unwrap();
            let both = two(&axis(&[0.4; 3]), &axis(&[0.4; 3]));
            let terms = testing::terms(&moco, &both, Some(&both), None, &Solo).unwrap();
            assert!((terms.loss.to_scalar::<f64>().unwrap() - ((k + 1) as f64).ln()).abs() < 1e-12);
        }
        let both = two(&axis(&[0.4]), &axis(&[0.4]));
        let moco = Moco { temperature: 0.07, queue: queue(9) };
        assert_eq!(testing::terms(&moco, &both, None, None, &Solo).err().unwrap().exit_code(), 2);
    }

    #[test]
    fn the_gradient_is_the_difference() {
        for temperature in [0.07, 0.5] {
            let mut moco = Moco { temperature, queue: Queue::new(6, 4, DType::F64).unwrap() };
            moco.queue.enqueue(&random(1, 5, 4)).unwrap();
            let target = two(&random(2, 3, 4), &random(3, 3, 4));
            finite_difference(&random(4, 3, 4), |x| testing::loss(&moco, &two(x, &random(5, 3, 4)), Some(&target), None, &Solo));
        }
    }

    #[test]
    fn two_ranks_are_one() {
        let mut moco = Moco { temperature: 0.2, queue: Queue::new(6, 4, DType::F64).unwrap() };
        moco.queue.enqueue(&random(1, 5, 4)).unwrap();
        let (query, key) = (random(2, 6, 4), random(3, 6, 4));
        let of = |query: &Tensor, key: &Tensor, world: &dyn Collective| {
            testing::loss(&moco, &two(query, query), Some(&two(key, key)), None, world)
        };
        let found = ranks(2, |world| {
            let own = |t: &Tensor| t.narrow(0, 3 * world.rank(), 3).unwrap();
            let value = of(&own(&query), &own(&key), world).to_scalar::<f64>().unwrap();
            (value, gradient(&own(&query), |x| of(x, &own(&key), world)))
        });
        let whole = of(&query, &key, &Solo).to_scalar::<f64>().unwrap();
        assert!(found.iter().all(|(value, _)| (value - whole).abs() < 1e-14));
        let gradients = Tensor::cat(&[&found[0].1, &found[1].1], 0).unwrap();
        assert!(distance(&gradients, &gradient(&query, |x| of(x, &key, &Solo))) < 1e-15);
    }

    #[test]
    fn targets_keys_are_queued_after_the_step() {
        let mut moco = Moco { temperature: 0.07, queue: queue(4) };
        let target = two(&axis(&[0.1, 0.2]), &axis(&[0.3, 0.4]));
        testing::after_step(&mut moco, Some(&target), &Solo).unwrap();
        assert_eq!(angles_of(&moco.queue), [0.3, 0.4]);
        assert!(testing::after_step(&mut moco, None, &Solo).is_err());
    }
}
