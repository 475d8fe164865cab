//! The projection head g, from representations to the embeddings that a loss compares; and the predictor after it.
//!
//! By default it is SimCLRv2's (Chen et al. 2020b, `model_util.py`): linear layers without bias, each with batch normalisation, and a ReLU
//! after each but the last. The last normalisation has a scale and no shift. Hidden layers are as wide as the representation. Two layers
//! are SimCLR v1's head, no layers the identity.
//!
//! Heads of other methods have other widths, and layers without normalisation, which have a bias.

use candle_core::Tensor;

use crate::error::Result;
use crate::nn::params::{Init, ParamKind, Scope};
use crate::nn::pass::Pass;
use crate::nn::rows::Rows;
use crate::nn::tape::Tape;
use crate::nn::{BatchNorm, Layer, Linear, Sequential};
use crate::recipe::{HeadRecipe, Norms};

/// A multi-layer perceptron z = g(h).
pub struct ProjectionHead {
    layers: Sequential,
    width: usize,
}

impl ProjectionHead {
    /// Declares a head for representations of width `input`, with parameters `layers.<i>.weight` and `norms.<i>.{weight, bias,
    /// running_mean, running_var}`, counted from 0. The weights of a normalised layer start at N(0, .01²); their scale does not matter. The
    /// other layers have `layers.<i>.bias`, which starts at 0 (unless the recipe says no bias), and weights from U(−1/√inputs, 1/√inputs),
    /// PyTorch's default.
    pub fn new(recipe: &HeadRecipe, input: usize, mut scope: Scope) -> Self {
        let (layers, width) = chain(recipe, recipe.layers, input, &mut scope);
        ProjectionHead { layers: Sequential::new(layers, scope.gradient_store()), width }
    }

    /// Declares the first `keep` layers of such a head (SimCLRv2's `ft_proj_selector`: 0 keeps none, 1 the first layer with its ReLU, all
    /// of them z itself) followed by a classifier, `classifier.{weight, bias}`, which starts at zero. They are fine-tuned together.
    pub fn classifier(recipe: &HeadRecipe, keep: usize, classes: usize, input: usize, mut scope: Scope) -> Self {
        let keep = keep.min(recipe.layers);
        let (mut layers, width) = chain(recipe, keep, input, &mut scope);
        let zeros = Init::Constant(0.0);
        layers.push(Layer::Linear(Linear::new([classes, width], true, ParamKind::Head, zeros, scope.sub("classifier"))));
        ProjectionHead { layers: Sequential::new(layers, scope.gradient_store()), width: classes }
    }

    /// Width of an embedding.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Its layers.
    pub(crate) fn layers(&self) -> &Sequential {
        &self.layers
    }

    /// `(n, input)` representations to `(n, width)` embeddings, not normalised, and the tape for the backward pass. `rows` identifies the
    /// rows.
    ///
    /// # Errors
    /// As [`Sequential::forward`]; a single row has no batch statistics.
    pub fn project(&self, h: &Tensor, rows: &Rows, pass: &Pass) -> Result<(Tensor, Tape)> {
        self.layers.forward(h, rows, pass)
    }
}

/// The first `keep` layers of a head, and the width of their output.
fn chain(recipe: &HeadRecipe, keep: usize, input: usize, scope: &mut Scope) -> (Vec<Layer>, usize) {
    let mut layers = Vec::new();
    let mut from = input;
    for i in 0..keep {
        let last = i + 1 == recipe.layers;
        let to = if last { recipe.width } else { recipe.hidden.unwrap_or(input) };
        let normed = recipe.norms == Norms::All || (recipe.norms == Norms::Hidden && !last);
        let bound = 1.0 / (from as f64).sqrt();
        let init = if normed { Init::Normal { std: 0.01 } } else { Init::Uniform { low: -bound, high: bound } };
        layers.push(Layer::Linear(Linear::new(
            [to, from],
            !normed && recipe.bias,
            ParamKind::Weight,
            init,
            scope.sub("layers").sub(i),
        )));
        let mut norms = scope.sub("norms");
        match (normed, last) {
            (true, true) => layers.push(Layer::BatchNorm(BatchNorm::without_bias(to, norms.sub(i)))),
            (true, false) => layers.push(Layer::BatchNorm(BatchNorm::new(to, 1.0, norms.sub(i)).relu())),
            (false, true) => {}
            (false, false) => layers.push(Layer::Relu),
        }
        from = to;
    }
    (layers, from)
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::nn::params::Params;
    use crate::nn::pass::Statistics;
    use crate::rng::Key;

    fn head(layers: usize) -> (Params, ProjectionHead) {
        let mut params = Params::new();
        let head = ProjectionHead::new(&HeadRecipe { layers, width: 4, ..HeadRecipe::default() }, 6, params.root().sub("head"));
        params.materialise(Key::new(1), DType::F64, &crate::Device::Cpu).unwrap();
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
    fn other_methods_have_other_widths_and_biases() {
        let names = |norms| {
            let mut params = Params::new();
            let recipe = HeadRecipe { layers: 2, width: 4, hidden: Some(10), norms, bias: true };
            let head = ProjectionHead::new(&recipe, 6, params.root().sub("head"));
            params.materialise(Key::new(1), DType::F64, &crate::Device::Cpu).unwrap();
            let x = Tensor::arange(0f64, 30.0, &Device::Cpu).unwrap().reshape((5, 6)).unwrap().sin().unwrap();
            assert_eq!(head.project(&x, &Rows::alone(5), &Pass::eval().with(Statistics::Hold)).unwrap().0.dims(), [5, 4]);
            let trained = params.iter().filter(|p| p.kind().trained());
            trained.map(|p| p.name().strip_prefix("head.").unwrap().to_string()).collect::<Vec<_>>()
        };
        let [first, second] = ["layers.0", "layers.1"].map(|l| (format!("{l}.weight"), format!("{l}.bias")));
        let norm = ["norms.0.weight", "norms.0.bias"].map(String::from);
        assert_eq!(names(Norms::None), [first.0.clone(), first.1, second.0.clone(), second.1.clone()]);
        assert_eq!(names(Norms::Hidden), [first.0, norm[0].clone(), norm[1].clone(), second.0, second.1]);
    }

    #[test]
    fn an_embedding_is_normalised_and_not_rectified() {
        let (_params, head) = head(3);
        let x = Tensor::arange(0f64, 30.0, &Device::Cpu).unwrap().reshape((5, 6)).unwrap().sin().unwrap();
        let pass = Pass::eval().with(Statistics::Hold);
        let z = head.project(&x, &Rows::alone(5), &pass).unwrap().0;
        assert_eq!(z.dims(), [5, 4]);
        for mean in z.mean(0).unwrap().to_vec1::<f64>().unwrap() {
            assert!(mean.abs() < 1e-12, "{mean}");
        }
        assert!(z.min_all().unwrap().to_scalar::<f64>().unwrap() < 0.0);
        assert!(head.project(&x.narrow(0, 0, 1).unwrap(), &Rows::alone(1), &pass).err().unwrap().to_string().contains("hint"));
    }

    #[test]
    fn gradients_are_finite_differences() {
        let (params, head) = head(3);
        // With weights of scale .01, finite differences would be lost in rounding errors.
        for p in params.iter().filter(|p| p.dims().len() == 2) {
            p.var().set(&(p.var().as_tensor() * 50.0).unwrap()).unwrap();
        }
        let wave = |n: usize, f: f64| {
            let values: Vec<f64> = (0..n).map(|i| (i as f64 * f + 0.4).sin()).collect();
            Tensor::from_vec(values, (5, n / 5), &Device::Cpu).unwrap()
        };
        let x = candle_core::Var::from_tensor(&wave(30, 1.7)).unwrap();
        let pull = wave(20, 0.9);
        let loss = |pass: &Pass| (head.project(&x, &Rows::alone(5), pass).unwrap().0 * &pull).unwrap().sum_all().unwrap();
        let pass = Pass::train(Key::new(0), &crate::world::solo()).with(Statistics::Hold);
        let dx = head.project(&x, &Rows::alone(5), &pass).unwrap().1.play(&pull, true).unwrap().unwrap();
        let mut places = vec![("input".to_string(), x.clone(), dx)];
        for (p, gradient) in params.iter().zip(params.gradients().unwrap()).filter(|(p, _)| p.kind().trained()) {
            places.push((p.name().to_string(), p.var().clone(), gradient.unwrap().dense(p.dims()).unwrap()));
        }
        assert_eq!(places.len(), 1 + 3 + 3 + 2, "the input, three matrices, three scales, two shifts");
        for (name, var, gradient) in places {
            let start = var.flatten_all().unwrap().to_vec1::<f64>().unwrap();
            for (i, g) in gradient.flatten_all().unwrap().to_vec1::<f64>().unwrap().into_iter().enumerate() {
                let at = |step: f64| {
                    let mut moved = start.clone();
                    moved[i] += step;
                    var.set(&Tensor::from_vec(moved, var.dims(), &Device::Cpu).unwrap()).unwrap();
                    loss(&Pass::eval().with(Statistics::Hold)).to_scalar::<f64>().unwrap()
                };
                let difference = (at(1e-6) - at(-1e-6)) / 2e-6;
                at(0.0);
                assert!((g - difference).abs() < 1e-6 * (1.0 + g.abs()), "d/d{name}[{i}]: {g}, by difference {difference}");
            }
        }
    }

    #[test]
    fn a_classifier_stands_on_what_the_selector_keeps() {
        let recipe = HeadRecipe { layers: 3, width: 4, ..HeadRecipe::default() };
        let x = Tensor::arange(0f64, 30.0, &Device::Cpu).unwrap().reshape((5, 6)).unwrap().sin().unwrap();
        for (keep, width) in [(0, 6), (1, 6), (2, 6), (3, 4)] {
            let mut params = Params::new();
            let head = ProjectionHead::classifier(&recipe, keep, 7, 6, params.root().sub("head"));
            params.materialise(Key::new(1), DType::F64, &crate::Device::Cpu).unwrap();
            assert_eq!(params.count("head.classifier."), 7 * width + 7, "{keep} layers");
            assert_eq!(params.iter().filter(|p| p.dims().len() == 2).count(), keep + 1);
            let logits = head.project(&x, &Rows::alone(5), &Pass::eval().with(Statistics::Hold)).unwrap().0;
            assert_eq!((head.width(), logits.to_vec2::<f64>().unwrap()), (7, vec![vec![0.0; 7]; 5]), "logits start at 0");
            // The kept layers are the first ones of the projection head, with the same names and initial values.
            let mut whole = Params::new();
            ProjectionHead::new(&recipe, 6, whole.root().sub("head"));
            whole.materialise(Key::new(1), DType::F64, &crate::Device::Cpu).unwrap();
            let of = |params: &Params, name: &str| {
                let found = params.iter().find(|p| p.name() == name).unwrap().var().flatten_all().unwrap();
                found.to_vec1::<f64>().unwrap()
            };
            for p in params.iter().filter(|p| !p.name().contains("classifier")) {
                assert_eq!(of(&params, p.name()), of(&whole, p.name()));
            }
        }
    }

    #[test]
    fn no_layers_are_the_identity() {
        let (_params, head) = head(0);
        let x = Tensor::arange(0f64, 12.0, &Device::Cpu).unwrap().reshape((2, 6)).unwrap();
        let z = head.project(&x, &Rows::alone(2), &Pass::eval()).unwrap().0;
        assert_eq!(z.to_vec2::<f64>().unwrap(), x.to_vec2::<f64>().unwrap());
    }
}
