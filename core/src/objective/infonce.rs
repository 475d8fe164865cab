//! InfoNCE over a batch (van den Oord et al. 2018, equation 4), in both directions, as in CLIP (Radford et al. 2021, figure 3).
//!
//! Each left row must find its right row among all right rows, and the other way round. Unlike in NT-Xent, rows of the same side are not
//! negatives. With q and k the sides' N rows, of length 1, and s = q·kᵀ/T,
//!
//! ```text
//! L = 1/2N Σᵢ (log Σⱼ exp sᵢⱼ − sᵢᵢ) + 1/2N Σᵢ (log Σⱼ exp sⱼᵢ − sᵢᵢ)
//! D = ∂L/∂s = (P + P' − 2·1) / 2N            P the softmax of rows of s, P' that of its columns, 1 the identity
//! ∂L/∂q = D·k/T,   ∂L/∂k = Dᵀ·q/T
//! ```

use candle_core::Tensor;
use ctk_cuda::{Contrast, Cuda, Denominator};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::contrast::{BLOCK, compare, numbered, on_cuda, paired, softmax};
use super::spec::{Checks, EmbeddingSpace, Spec};
use super::{Inputs, Objective, Terms, attach, normalise};
use crate::device::Device;
use crate::error::Result;
use crate::nn::params::Scope;

/// `[loss.infonce]` (van den Oord et al. 2018).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct InfonceRecipe {
    /// Temperature by which similarities are divided.
    pub temperature: f64,
}

impl Default for InfonceRecipe {
    fn default() -> Self {
        InfonceRecipe { temperature: 0.1 }
    }
}

impl Spec for InfonceRecipe {
    fn check(&self, checks: &Checks) -> Result<()> {
        checks.positive("temperature", self.temperature, "")
    }

    fn build(&self, _: &EmbeddingSpace, _: Scope) -> Result<Box<dyn Objective>> {
        Ok(Box::new(InfoNce { temperature: self.temperature }))
    }
}

/// InfoNCE, the mean of both directions.
pub struct InfoNce {
    /// Temperature by which similarities are divided.
    pub temperature: f64,
}

impl Objective for InfoNce {
    /// `extras` has the mean cosine of positive pairs.
    fn loss(&self, inputs: &Inputs) -> Result<Terms> {
        let (first, second) = inputs.online.pair()?;
        let own = paired(&first.query, &second.query)?.0;
        let (left, right) = (normalise(&first.query)?, normalise(&second.query)?);
        let (of_left, of_right) = (inputs.world.gather(&left.detach())?, inputs.world.gather(&right.detach())?);
        let (q, k) = (&of_left.rows, &of_right.rows);
        let n = q.dim(0)?;
        let (sum, dq, dk) = match inputs.device {
            Device::Cpu => self.both_ways(q, k)?,
            Device::Cuda(cuda) => self.on_cuda(cuda, q, k)?,
        };
        let share = |of: Tensor| -> Result<Tensor> { Ok((of_left.own(&of, own)? / (2.0 * n as f64 * self.temperature))?) };
        let gradients = [(&left, share(dq)?), (&right, share(dk)?)];
        let positive = ((q * k)?.sum_all()? / n as f64)?;
        let value = (sum / (2 * n) as f64)?;
        inputs.terms(&attach(&value, &gradients)?, &[], vec![("positive_similarity", positive)])
    }
}

impl InfoNce {
    /// The sum over anchors of both sides, and T times its gradients with respect to both.
    fn both_ways(&self, q: &Tensor, k: &Tensor) -> Result<(Tensor, Tensor, Tensor)> {
        let (forth, dq, dk) = self.one_way(q, k)?;
        let (back, more_dk, more_dq) = self.one_way(k, q)?;
        Ok(((forth + back)?, (dq + more_dq)?, (dk + more_dk)?))
    }

    /// The same on a device.
    fn on_cuda(&self, cuda: &Cuda, q: &Tensor, k: &Tensor) -> Result<(Tensor, Tensor, Tensor)> {
        let (n, width) = q.dims2()?;
        let described = Contrast {
            labels: &[numbered(0, n), numbered(0, n)].concat(),
            memory: &[],
            weights: &vec![1.0; 2 * n],
            width,
            temperature: self.temperature,
            sides: &[(0..n, n..2 * n), (n..2 * n, 0..n)],
            denominator: Denominator::All,
        };
        let (sum, gradient) = on_cuda(cuda, &described, &Tensor::cat(&[q, k], 0)?, None)?;
        let gradient = (gradient * self.temperature)?;
        Ok((sum, gradient.narrow(0, 0, n)?, gradient.narrow(0, n, n)?))
    }

    /// Σᵢ (log Σⱼ exp sᵢⱼ − sᵢᵢ) for anchors against candidates, and T times its gradients with respect to both; computed block by block,
    /// so that memory grows with the batch and not with its square.
    fn one_way(&self, anchors: &Tensor, candidates: &Tensor) -> Result<(Tensor, Tensor, Tensor)> {
        let n = anchors.dim(0)?;
        let columns = candidates.t()?;
        let mut total = Tensor::zeros((), anchors.dtype(), anchors.device())?;
        let (mut of_anchors, mut of_candidates) = (Vec::new(), candidates.zeros_like()?);
        for first in (0..n).step_by(BLOCK) {
            let block = anchors.narrow(0, first, BLOCK.min(n - first))?;
            let s = (block.matmul(&columns)? / self.temperature)?;
            let (top, p) = softmax(&s)?;
            let own = compare(&s, &numbered(first, block.dim(0)?), &numbered(0, n), [1.0, 0.0])?;
            total = (total + (top - (&s * &own)?.sum_keepdim(1)?)?.sum_all()?)?;
            let d = (p - own)?;
            of_anchors.push(d.matmul(candidates)?);
            of_candidates = (of_candidates + d.t()?.matmul(&block)?)?;
        }
        Ok((total, Tensor::cat(&of_anchors, 0)?, of_candidates))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, angles, both_differences, distance, gradient, random, two};
    use super::*;
    use crate::world::{Collective, Solo};
    use candle_core::DType;

    fn loss(temperature: f64, left: &Tensor, right: &Tensor, world: &dyn Collective) -> Tensor {
        testing::loss(&InfoNce { temperature }, &two(left, right), None, None, world)
    }

    fn value(temperature: f64, left: &Tensor, right: &Tensor) -> f64 {
        loss(temperature, left, right, &Solo).to_scalar().unwrap()
    }

    #[test]
    fn golden_angles() {
        let (left, right) = (angles(&[0.0, 90.0, 200.0]), angles(&[10.0, 80.0, 230.0]));
        for (temperature, expected) in [(0.1, 0.000200331118), (0.5, 0.167487701152), (1.0, 0.440505248902)] {
            let found = value(temperature, &left, &right);
            assert!((found - expected).abs() < 1e-10, "{temperature}: {found}");
            assert!((value(temperature, &right, &left) - found).abs() < 1e-12, "sides are alike");
        }
    }

    #[test]
    fn equal_embeddings_cost_the_log_of_the_choices() {
        for n in [1usize, 2, 5] {
            let rows = Tensor::ones((n, 3), DType::F64, &candle_core::Device::Cpu).unwrap();
            assert!((value(0.1, &rows, &rows) - (n as f64).ln()).abs() < 1e-12);
        }
    }

    #[test]
    fn the_gradient_is_the_difference() {
        for temperature in [0.07, 0.1, 1.0] {
            both_differences(&random(1, 4, 3), &random(2, 4, 3), |l, r| loss(temperature, l, r, &Solo));
        }
    }

    #[test]
    fn blocks_of_anchors_add_up() {
        let (left, right) = (random(1, 700, 3), random(2, 700, 3));
        let oracle = |l: &Tensor, r: &Tensor| {
            let s = (normalise(l).unwrap().matmul(&normalise(r).unwrap().t().unwrap()).unwrap() / 0.3).unwrap();
            let classes = Tensor::arange(0u32, 700, &candle_core::Device::Cpu).unwrap();
            let [forth, back] =
                [s.clone(), s.t().unwrap().contiguous().unwrap()].map(|s| candle_nn::loss::cross_entropy(&s, &classes).unwrap());
            ((forth + back).unwrap() / 2.0).unwrap()
        };
        assert!((value(0.3, &left, &right) - oracle(&left, &right).to_scalar::<f64>().unwrap()).abs() < 1e-12);
        let ours = gradient(&left, |x| loss(0.3, x, &right, &Solo));
        assert!(distance(&ours, &gradient(&left, |x| oracle(x, &right))) < 1e-14);
    }

    #[test]
    fn two_ranks_are_one() {
        testing::two_ranks_are_one(1e-15, |l, r, world| loss(0.2, l, r, world));
    }
}
