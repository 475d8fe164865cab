//! InfoNCE over a batch (van den Oord et al. 2018, equation 4), both ways, as CLIP has it (Radford et al. 2021, figure 3).
//!
//! Each left row must find its right one among all right rows, and the other way round; rows of its own side are no negatives,
//! which is what tells it from NT-Xent. With q and k the sides' N rows, of length 1, and s = q·kᵀ/T,
//!
//! ```text
//! L = 1/2N Σᵢ (log Σⱼ exp sᵢⱼ − sᵢᵢ) + 1/2N Σᵢ (log Σⱼ exp sⱼᵢ − sᵢᵢ)
//! D = ∂L/∂s = (P + P' − 2·1) / 2N            P the softmax of rows of s, P' that of its columns, 1 the identity
//! ∂L/∂q = D·k/T,   ∂L/∂k = Dᵀ·q/T
//! ```

use candle_core::Tensor;

use super::contrast::{BLOCK, mask, paired, softmax};
use super::{Objective, Terms, attach, normalise};
use crate::error::Result;
use crate::model::tower::Side;
use crate::nn::pass::Pass;

/// Both directions' mean.
pub struct InfoNce {
    /// Similarities are divided by it.
    pub temperature: f64,
}

impl Objective for InfoNce {
    /// Watches the mean cosine of positives.
    fn loss(&self, online: &(Side, Side), _: Option<&(Side, Side)>, _: Option<&[u32]>, pass: &Pass) -> Result<Terms> {
        let own = paired(&online.0.query, &online.1.query)?.0;
        let (left, right) = (normalise(&online.0.query)?, normalise(&online.1.query)?);
        let [q, k] = [&left, &right].map(|side| pass.world.gather(&side.detach()));
        let (q, k) = (q?, k?);
        let n = q.dim(0)?;
        let (forth, dq, dk) = self.one_way(&q, &k)?;
        let (back, more_dk, more_dq) = self.one_way(&k, &q)?;
        let from = pass.world.rank() * own;
        let share = |a: Tensor, b: Tensor| -> Result<Tensor> {
            Ok(((a + b)?.narrow(0, from, own)? / (2.0 * n as f64 * self.temperature))?)
        };
        let gradients = [(&left, share(dq, more_dq)?), (&right, share(dk, more_dk)?)];
        let positive = ((q * k)?.sum_all()? / n as f64)?;
        let value = ((forth + back)? / (2 * n) as f64)?;
        Ok(Terms { loss: attach(&value, &gradients)?, watch: vec![("positive_similarity", positive)] })
    }
}

impl InfoNce {
    /// Σᵢ (log Σⱼ exp sᵢⱼ − sᵢᵢ) for anchors that look among candidates, and T times its gradients with respect to both; block
    /// by block, so that memory grows with the batch.
    fn one_way(&self, anchors: &Tensor, candidates: &Tensor) -> Result<(Tensor, Tensor, Tensor)> {
        let n = anchors.dim(0)?;
        let columns = candidates.t()?;
        let mut total = Tensor::zeros((), anchors.dtype(), anchors.device())?;
        let (mut of_anchors, mut of_candidates) = (Vec::new(), candidates.zeros_like()?);
        for first in (0..n).step_by(BLOCK) {
            let block = anchors.narrow(0, first, BLOCK.min(n - first))?;
            let s = (block.matmul(&columns)? / self.temperature)?;
            let (top, p) = softmax(&s)?;
            let own = mask(first, &s, |i, j| if i == j { 1.0 } else { 0.0 })?;
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
    use super::super::testing::{self, angles, both_differences, distance, gradient, random, side};
    use super::*;
    use candle_core::{DType, Device};

    fn loss(temperature: f64, left: &Tensor, right: &Tensor, pass: &Pass) -> Tensor {
        InfoNce { temperature }.loss(&(side(left.clone()), side(right.clone())), None, None, pass).unwrap().loss
    }

    fn value(temperature: f64, left: &Tensor, right: &Tensor) -> f64 {
        loss(temperature, left, right, &Pass::eval()).to_scalar().unwrap()
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
            let rows = Tensor::ones((n, 3), DType::F64, &Device::Cpu).unwrap();
            assert!((value(0.1, &rows, &rows) - (n as f64).ln()).abs() < 1e-12);
        }
    }

    #[test]
    fn the_gradient_is_the_difference() {
        for temperature in [0.07, 0.1, 1.0] {
            both_differences(&random(1, 4, 3), &random(2, 4, 3), |l, r| loss(temperature, l, r, &Pass::eval()));
        }
    }

    #[test]
    fn blocks_of_anchors_add_up() {
        let (left, right) = (random(1, 700, 3), random(2, 700, 3));
        let oracle = |l: &Tensor, r: &Tensor| {
            let s = (normalise(l).unwrap().matmul(&normalise(r).unwrap().t().unwrap()).unwrap() / 0.3).unwrap();
            let classes = Tensor::arange(0u32, 700, &Device::Cpu).unwrap();
            let [forth, back] =
                [s.clone(), s.t().unwrap().contiguous().unwrap()].map(|s| candle_nn::loss::cross_entropy(&s, &classes).unwrap());
            ((forth + back).unwrap() / 2.0).unwrap()
        };
        assert!((value(0.3, &left, &right) - oracle(&left, &right).to_scalar::<f64>().unwrap()).abs() < 1e-12);
        let ours = gradient(&left, |x| loss(0.3, x, &right, &Pass::eval()));
        assert!(distance(&ours, &gradient(&left, |x| oracle(x, &right))) < 1e-14);
    }

    #[test]
    fn two_ranks_are_one() {
        testing::two_ranks_are_one(1e-15, |l, r, pass| loss(0.2, l, r, pass));
    }
}
