//! Clipping by the global norm (Pascanu et al. 2013): a step's gradients are scaled together, so that their direction stays.

use crate::error::Result;
use crate::nn::array::norms;
use crate::nn::gradient::Gradient;
use crate::nn::params::{Gradients, Params};

/// Added to the norm, as in PyTorch's `clip_grad_norm_`.
const EPSILON: f64 = 1e-6;

/// ‖g‖₂ over all `gradients` of `params` together, in f64 and in a fixed order. On another device than the CPU each is placed in the
/// parameter's shape (a gradient of rows becomes that of the whole table), so that an optimizer's step does not do it again. From a device
/// only norms are read back.
///
/// # Errors
/// A gradient has another shape than its parameter.
pub(crate) fn norm(params: &Params, gradients: &mut Gradients) -> Result<f64> {
    let (mut here, mut there) = (Vec::new(), Vec::new());
    for (param, gradient) in params.iter().zip(gradients) {
        let Some(own) = gradient else { continue };
        if let (Gradient::Rows(rows), true) = (&*own, param.device().is_cpu()) {
            here.push(rows.values().clone().into());
            continue;
        }
        let whole = own.beside(&param.array()).map_err(|e| e.at(param.name()))?;
        let side = if param.device().is_cpu() { &mut here } else { &mut there };
        side.push(whole.clone());
        *gradient = Some(whole.into());
    }
    Ok(norms(&here)?.into_iter().chain(norms(&there)?).fold(0.0, f64::hypot))
}

/// The factor of gradients of norm `norm` that are clipped to `most`: min(1, most / (norm + 10⁻⁶)).
pub(crate) fn factor(norm: f64, most: f64) -> f64 {
    (most / (norm + EPSILON)).min(1.0)
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Tensor};

    use super::*;
    use crate::nn::gradient::RowGradient;
    use crate::nn::params::{Init, ParamKind};
    use crate::optim::Optimizer;
    use crate::recipe::{AdamwRecipe, OptimizerRecipe};
    use crate::rng::Key;

    #[test]
    fn gradients_of_rows_and_of_whole_tables_have_one_norm() {
        let mut params = Params::new();
        params.root().sub("encoder").param("table", (4, 2), ParamKind::Embedding, Init::Constant(0.0));
        params.root().sub("encoder").param("still", 3, ParamKind::Weight, Init::Constant(0.0));
        params.root().sub("loss").param("scale", (), ParamKind::Scalar, Init::Constant(0.0));
        params.materialise(Key::new(0), DType::F64, &crate::Device::Cpu).unwrap();
        let values = Tensor::from_slice(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], (3, 2), &Device::Cpu).unwrap();
        // Row 3 is met twice: its gradient is (6, 8).
        let rows = Gradient::from(RowGradient::new(&[3, 1, 3], &values).unwrap());
        let scale = Gradient::from(Tensor::new(2.0, &Device::Cpu).unwrap());
        let mut gradients = vec![Some(rows), None, Some(scale)];
        let expected = (6.0f64 * 6.0 + 8.0 * 8.0 + 3.0 * 3.0 + 4.0 * 4.0 + 2.0 * 2.0).sqrt();
        for _ in 0..2 {
            assert!((norm(&params, &mut gradients).unwrap() - expected).abs() < 1e-14);
        }
        assert!(matches!(&gradients[0], Some(Gradient::Rows(rows)) if rows.ids() == [1, 3]) && gradients[1].is_none());
        assert!((factor(expected, 1.0) - 1.0 / (expected + 1e-6)).abs() < 1e-16);
        assert_eq!((factor(0.5, 1.0), factor(0.0, 1.0)), (1.0, 1.0));
        gradients[2] = Some(Tensor::new(f64::NAN, &Device::Cpu).unwrap().into());
        assert!(!norm(&params, &mut gradients).unwrap().is_finite());
        gradients[0] = Some(Tensor::zeros((2, 4), DType::F64, &Device::Cpu).unwrap().into());
        assert!(norm(&params, &mut gradients).unwrap_err().to_string().contains("table"));
    }

    /// Five steps of torch's AdamW on w = (1, −2, .5) with gradients sin(step + i): rate .1, betas .9 and .98, eps 1e-6.
    fn five_steps(decay: f64, clip: Option<f64>) -> Vec<f64> {
        let mut params = Params::new();
        let w = params.root().sub("encoder").param("w", 3, ParamKind::Weight, Init::Constant(0.0));
        params.materialise(Key::new(0), DType::F64, &crate::Device::Cpu).unwrap();
        w.set(&Tensor::new(&[1.0, -2.0, 0.5], &Device::Cpu).unwrap()).unwrap();
        let recipe = AdamwRecipe { beta1: 0.9, beta2: 0.98, eps: 1e-6, decay, ..AdamwRecipe::default() };
        let mut optimizer = Optimizer::new(&OptimizerRecipe::Adamw(recipe));
        for step in 1..=5 {
            let g: Vec<f64> = (0..3).map(|i| f64::from(step + i).sin()).collect();
            let mut gradients = vec![Some(Tensor::new(&g[..], &Device::Cpu).unwrap().into())];
            let norm = norm(&params, &mut gradients).unwrap();
            let scale = clip.map_or(1.0, |most| factor(norm, most));
            optimizer.step_scaled(&params, &gradients, 0.1, scale).unwrap();
        }
        w.tensor().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn adamw_has_torchs_values_with_and_without_clipping() {
        // torch.optim.AdamW and clip_grad_norm_.
        for (decay, clip, golden) in [
            (0.2, None, [0.617_824_643_2, -1.909_711_401_6, 0.598_878_798_3]),
            (0.0, None, [0.696_332_602_9, -2.113_791_416_7, 0.647_362_816_5]),
            (0.2, Some(1.0), [0.616_782_854_6, -1.909_653_117_7, 0.599_042_637_7]),
        ] {
            let found = five_steps(decay, clip);
            assert!(found.iter().zip(golden).all(|(a, b)| (a - b).abs() < 1e-10), "{decay} {clip:?}: {found:?}");
        }
    }
}
