//! The projection head g: from representations to the space where the contrast is made.
//!
//! SimCLRv2's (Chen et al. 2020b, `model_util.py`): linear layers without bias, batch normalisation on all of them, ReLU
//! after all but the last, whose normalisation has a scale and no shift. The layers between are as wide as the
//! representation. Two layers are SimCLR v1's head, none is the identity.

use candle_core::Tensor;

use crate::error::Result;
use crate::nn::{BatchNorm, Layer, Linear, Sequential};
use crate::params::{Init, Kind, Scope};
use crate::pass::Pass;
use crate::recipe::HeadRecipe;

/// A multi-layer perceptron z = g(h).
pub struct ProjectionHead {
    layers: Sequential,
    width: usize,
}

impl ProjectionHead {
    /// Declares a head for representations of width `input`: `layers.<i>.weight`, N(0, .01²), and
    /// `norms.<i>.{weight, bias, running_mean, running_var}`, counted from 0.
    pub fn new(recipe: &HeadRecipe, input: usize, mut scope: Scope) -> Self {
        let mut layers = Vec::new();
        for i in 0..recipe.layers {
            let last = i + 1 == recipe.layers;
            let output = if last { recipe.width } else { input };
            let mut linears = scope.sub("layers");
            layers.push(Layer::Linear(Linear::new(
                [output, input],
                false,
                Kind::Weight,
                Init::Normal { std: 0.01 },
                linears.sub(i),
            )));
            let mut norms = scope.sub("norms");
            let norm = norms.sub(i);
            layers.push(Layer::BatchNorm(match last {
                true => BatchNorm::without_bias(output, norm),
                false => BatchNorm::new(output, 1.0, norm).relu(),
            }));
        }
        let width = if recipe.layers == 0 { input } else { recipe.width };
        ProjectionHead { layers: Sequential::new(layers, scope.sink()), width }
    }

    /// Width of an embedding.
    pub fn width(&self) -> usize {
        self.width
    }

    /// `(n, input)` representations to `(n, width)` embeddings, not normalised.
    ///
    /// # Errors
    /// Of [`Sequential::forward`]: one row has no batch statistics.
    pub fn project(&self, h: &Tensor, pass: &Pass) -> Result<Tensor> {
        self.layers.forward(h, pass)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::params::Params;
    use crate::pass::Statistics;
    use crate::rng::Key;

    fn head(layers: usize) -> (Params, ProjectionHead) {
        let mut params = Params::new();
        let head = ProjectionHead::new(&HeadRecipe { layers, width: 4 }, 6, params.root().sub("head"));
        params.materialise(Key::new(1), DType::F64, &Device::Cpu).unwrap();
        (params, head)
    }

    #[test]
    fn has_simclr_v2s_layers() {
        for (layers, count) in [(0, 0), (1, 6 * 4 + 4), (2, 36 + 12 + 24 + 4), (3, 2 * (36 + 12) + 24 + 4)] {
            let (params, head) = head(layers);
            assert_eq!(params.count("head."), count, "{layers} layers");
            assert_eq!(head.width(), if layers == 0 { 6 } else { 4 });
            assert!(params.iter().all(|p| p.name() != format!("head.norms.{}.bias", layers.max(1) - 1)));
        }
    }

    #[test]
    fn an_embedding_is_normalised_and_not_rectified() {
        let (_params, head) = head(3);
        let x = Tensor::arange(0f64, 30.0, &Device::Cpu).unwrap().reshape((5, 6)).unwrap().sin().unwrap();
        let pass = Pass::eval().with(Statistics::Hold);
        let z = head.project(&x, &pass).unwrap();
        assert_eq!(z.dims(), [5, 4]);
        for mean in z.mean(0).unwrap().to_vec1::<f64>().unwrap() {
            assert!(mean.abs() < 1e-12, "{mean}");
        }
        assert!(z.min_all().unwrap().to_scalar::<f64>().unwrap() < 0.0);
        assert!(head.project(&x.narrow(0, 0, 1).unwrap(), &pass).unwrap_err().to_string().contains("hint"));
    }

    #[test]
    fn no_layers_are_the_identity() {
        let (_params, head) = head(0);
        let x = Tensor::arange(0f64, 12.0, &Device::Cpu).unwrap().reshape((2, 6)).unwrap();
        let z = head.project(&x, &Pass::eval()).unwrap();
        assert_eq!(z.to_vec2::<f64>().unwrap(), x.to_vec2::<f64>().unwrap());
    }
}
