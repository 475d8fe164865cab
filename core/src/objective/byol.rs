//! BYOL (Grill et al. 2020, equation 2): each side's prediction against the momentum copy's embedding of the other side.
//!
//! The squared distance of vectors of length 1 is 2 − 2·cos, and both directions are added:
//!
//! ```text
//! L = mean (2 − 2·cos(q, k')) + mean (2 − 2·cos(q', k))          q = predictor(z), k of the target
//! ```
//!
//! [`predict`](super::predict) with a = 4, b = 2. The paper lets the copy's momentum grow from .996 to 1 over training; here it stays.

use super::predict::predict;
use super::queue::no_target;
use super::{Objective, Terms};
use crate::error::Result;
use crate::model::tower::Side;
use crate::nn::pass::Pass;

/// The squared distance, both ways.
#[derive(Clone, Copy, Debug, Default)]
pub struct Byol;

impl Objective for Byol {
    /// Errors without a target.
    fn loss(&self, online: &(Side, Side), target: Option<&(Side, Side)>, _: Option<&[u32]>, pass: &Pass) -> Result<Terms> {
        let (left, right) = target.ok_or_else(no_target)?;
        predict(online, (&left.key, &right.key), 4.0, 2.0, pass)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{finite_difference, random, side, wave};
    use super::*;
    use candle_core::{Tensor, Var};

    fn loss(q: [&Tensor; 2], k: [&Tensor; 2]) -> Tensor {
        let sides = |t: [&Tensor; 2]| (side(t[0].clone()), side(t[1].clone()));
        Byol.loss(&sides(q), Some(&sides(k)), None, &Pass::eval()).unwrap().loss
    }

    #[test]
    fn golden_waves() {
        let (q, k) = ([wave(5, 3, 1.7), wave(5, 3, 0.9)], [wave(5, 3, 2.3), wave(5, 3, 0.6)]);
        let found = loss(q.each_ref(), k.each_ref()).to_scalar::<f64>().unwrap();
        assert!((found - 3.924682450303).abs() < 1e-11, "{found}");
    }

    #[test]
    fn it_is_the_squared_distance() {
        let x = random(1, 4, 3);
        let value = |k: &Tensor| loss([&x, &x], [k, k]).to_scalar::<f64>().unwrap();
        assert!(value(&(&x * 2.0).unwrap()).abs() < 1e-12);
        assert!((value(&x.neg().unwrap()) - 8.0).abs() < 1e-12, "2² both ways");
    }

    #[test]
    fn the_gradient_is_the_difference_and_stops_at_the_target() {
        let [a, b, c] = [2, 3, 4].map(|seed| random(seed, 4, 3));
        finite_difference(&random(1, 4, 3), |x| loss([x, &a], [&b, &c]));
        finite_difference(&random(1, 4, 3), |x| loss([&a, x], [&b, &c]));
        let k = Var::from_tensor(&b).unwrap();
        assert!(loss([&a, &a], [&k, &k]).backward().unwrap().get(&k).is_none());
    }

    #[test]
    fn without_a_target_there_is_nothing_to_predict() {
        let both = (side(random(1, 3, 2)), side(random(2, 3, 2)));
        assert!(Byol.loss(&both, None, None, &Pass::eval()).err().unwrap().to_string().contains("hint: "));
    }
}
