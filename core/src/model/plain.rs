//! A fine-tuned classifier as plain linear layers with ReLUs between, for export: batch normalisation is folded into the weights.

use std::collections::HashMap;

use candle_core::{DType, Tensor};

use crate::error::{Error, Result};
use crate::nn::EPSILON;
use crate::recipe::HeadRecipe;

/// A linear layer, x·weightᵀ + bias.
#[derive(Clone, Debug)]
pub struct Plain {
    /// (outputs, inputs), f32.
    pub weight: Tensor,
    /// (outputs), f32.
    pub bias: Tensor,
}

/// The layers of a [classifier](crate::model::head::ProjectionHead::classifier) that follows the first `keep` layers of a head, made from
/// its `tensors` and running statistics. A ReLU belongs between every two layers. With `keep` 0 the result is the classifier alone.
///
/// # Errors
/// A tensor is missing or has another shape.
/// A tensor that is missing, or of another shape.
pub fn plain(recipe: &HeadRecipe, keep: usize, tensors: &HashMap<String, Tensor>) -> Result<Vec<Plain>> {
    let of = |name: String| {
        let tensor = tensors.get(&name).ok_or_else(|| Error::new(format!("the tensor `{name}` is missing")))?;
        Ok::<_, Error>(tensor.to_dtype(DType::F64)?)
    };
    let mut layers: Vec<(Tensor, Tensor)> = Vec::new();
    // A head's last layer has no ReLU, so it is merged with the classifier.
    let mut open: Option<(Tensor, Tensor)> = None;
    for i in 0..keep.min(recipe.layers) {
        let mut weight = of(format!("layers.{i}.weight"))?;
        let mut bias = match tensors.contains_key(&format!("layers.{i}.bias")) {
            true => of(format!("layers.{i}.bias"))?,
            false => weight.zeros_like()?.sum(1)?,
        };
        if tensors.contains_key(&format!("norms.{i}.running_mean")) {
            let norm = |name: &str| of(format!("norms.{i}.{name}"));
            let scale = (norm("weight")? / (norm("running_var")? + EPSILON)?.sqrt()?)?;
            weight = weight.broadcast_mul(&scale.unsqueeze(1)?)?;
            bias = ((bias - norm("running_mean")?)? * scale)?;
            if tensors.contains_key(&format!("norms.{i}.bias")) {
                bias = (bias + norm("bias")?)?;
            }
        }
        match i + 1 == recipe.layers {
            true => open = Some((weight, bias)),
            false => layers.push((weight, bias)),
        }
    }
    let (mut weight, mut bias) = (of("classifier.weight".to_string())?, of("classifier.bias".to_string())?);
    if let Some((before, shift)) = open {
        bias = (bias + weight.matmul(&shift.unsqueeze(1)?)?.squeeze(1)?)?;
        weight = weight.matmul(&before)?;
    }
    layers.push((weight, bias));
    let single =
        |(weight, bias): (Tensor, Tensor)| Ok(Plain { weight: weight.to_dtype(DType::F32)?, bias: bias.to_dtype(DType::F32)? });
    layers.into_iter().map(single).collect()
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::model::head::ProjectionHead;
    use crate::nn::params::Params;
    use crate::nn::pass::Pass;
    use crate::nn::rows::Rows;
    use crate::recipe::Norms;
    use crate::rng::Key;

    #[test]
    fn plain_layers_compute_what_the_classifier_does() {
        let x = Tensor::arange(0f64, 30.0, &Device::Cpu).unwrap().reshape((5, 6)).unwrap().sin().unwrap();
        for norms in [Norms::All, Norms::Hidden, Norms::None] {
            for (layers, keep, count) in [(2, 0, 1), (2, 1, 2), (2, 2, 2), (1, 1, 1), (0, 0, 1)] {
                let recipe = HeadRecipe { layers, width: 4, norms, ..HeadRecipe::default() };
                let mut params = Params::new();
                params.declare("head");
                let head = ProjectionHead::classifier(&recipe, keep, 3, 6, params.root().sub("head"));
                params.materialise(Key::new(1), DType::F64, &crate::Device::Cpu).unwrap();
                // Neither zeros nor ones; variances are positive.
                for (at, param) in params.iter().enumerate() {
                    let count = param.dims().iter().product::<usize>();
                    let value = |i: usize| 0.6 + 0.5 * ((at * 7 + i) as f64).sin();
                    let values: Vec<f64> = (0..count).map(value).collect();
                    param.var().set(&Tensor::from_vec(values, param.dims(), &Device::Cpu).unwrap()).unwrap();
                }
                let expected = head.project(&x, &Rows::alone(5), &Pass::eval()).unwrap().0.to_vec2::<f64>().unwrap();
                let tensors: HashMap<String, Tensor> = params
                    .iter()
                    .map(|p| (p.name().strip_prefix("head.").unwrap().to_string(), p.var().as_tensor().clone()))
                    .collect();
                let found = plain(&recipe, keep, &tensors).unwrap();
                assert_eq!(found.len(), count, "{norms:?}, {keep} of {layers}");
                let mut y = x.to_dtype(DType::F32).unwrap();
                for (at, layer) in found.iter().enumerate() {
                    y = y.matmul(&layer.weight.t().unwrap()).unwrap().broadcast_add(&layer.bias).unwrap();
                    y = if at + 1 < found.len() { y.relu().unwrap() } else { y };
                }
                for (ours, theirs) in expected.iter().flatten().zip(y.to_vec2::<f32>().unwrap().iter().flatten()) {
                    assert!((ours - f64::from(*theirs)).abs() < 1e-4 * (1.0 + ours.abs()), "{norms:?}, {keep} of {layers}");
                }
            }
        }
        assert!(plain(&HeadRecipe::default(), 1, &HashMap::new()).unwrap_err().to_string().contains("layers.0.weight"));
    }
}
