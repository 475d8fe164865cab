//! The layers of a vision transformer (Dosovitskiy et al. 2021): pre-norm blocks behind linear patches. Parameters have timm's names, initial
//! values are timm's: N(0, .02²), and PyTorch's own in the patches.

use candle_core::Tensor;
use ctk_core::Result;
use ctk_core::model::encoder::Encoder;
use ctk_core::nn::params::{Init, ParamKind, Scope};
use ctk_core::nn::pass::Pass;
use ctk_core::nn::rows::Rows;
use ctk_core::nn::tape::Tape;
use ctk_core::nn::{
    Attention, Conv2d, Layer, LayerNorm, Linear, Nonlinearity, Patches, Probe, Residual, Scale, Sequential, Tokens,
};
use ctk_images::pixels::{CHANNELS, Pixels};

use super::recipe::{Pooling, VitRecipe};

const NORMAL: Init = Init::Normal { std: 0.02 };

impl VitRecipe {
    fn linear(&self, [output, input]: [usize; 2], scope: Scope) -> Layer {
        Layer::Linear(Linear::new([output, input], true, ParamKind::Weight, NORMAL, scope))
    }

    fn norm(&self, scope: Scope) -> Layer {
        Layer::LayerNorm(LayerNorm::new(self.width, self.epsilon, scope))
    }

    /// Values between the two products of an MLP.
    pub(super) fn inner(&self) -> usize {
        if self.inner == 0 { 4 * self.width } else { self.inner }
    }

    /// The two products of an MLP with their activation.
    fn mlp(&self, mut scope: Scope) -> Vec<Layer> {
        let (w, inner) = (self.width, self.inner());
        vec![self.linear([inner, w], scope.sub("fc1")), Layer::Gelu(self.gelu.into()), self.linear([w, inner], scope.sub("fc2"))]
    }

    /// x + scale(body(norm(x))).
    fn residual(&self, mut body: Vec<Layer>, scale: &str, norm: &str, scope: &mut Scope) -> Layer {
        if self.layer_scale > 0.0 {
            body.push(Layer::Scale(Scale::new(self.width, self.layer_scale, scope.sub(scale))));
        }
        let norm = vec![self.norm(scope.sub(norm))];
        Layer::Residual(Residual::new(body, vec![]).with(Nonlinearity::None).normalise_before(norm))
    }

    /// All layers, whose parameters are declared in the scope. Patches and tokens have depth 0, block k has depth k + 1.
    pub(super) fn network(&self, mut scope: Scope) -> Vec<Layer> {
        let (w, patch) = (self.width, self.patch);
        let bound = 1.0 / ((CHANNELS * patch * patch) as f64).sqrt();
        let uniform = Init::Uniform { low: -bound, high: bound };
        let mut patches = scope.sub("patch_embed");
        let patches = patches.sub("proj").depth(0);
        let conv = if self.patch_bias { Conv2d::with_bias } else { Conv2d::new };
        let mut layers = vec![Layer::Conv2d(conv([w, CHANNELS], patch, patch, 0, uniform, patches))];
        let tokens = Tokens {
            width: w,
            side: self.size / patch,
            class: self.pooling == Pooling::Class,
            class_position: self.class_position,
            registers: self.registers,
            resampling: self.resampling,
            deviation: 0.02,
        };
        layers.push(Layer::Patches(Patches::new(tokens, scope.same().depth(0))));
        if self.normalise_tokens {
            layers.push(self.norm(scope.sub("norm_pre").depth(0)));
        }
        let mut blocks = scope.sub("blocks");
        for number in 0..self.layers {
            let mut block = blocks.sub(number).depth(number + 1);
            let mut attn = block.sub("attn");
            let attention = vec![
                self.linear([3 * w, w], attn.sub("qkv")),
                Layer::Attention(Attention::new(self.heads)),
                self.linear([w, w], attn.sub("proj")),
            ];
            layers.push(self.residual(attention, "ls1", "norm1", &mut block));
            let mlp = self.mlp(block.sub("mlp"));
            layers.push(self.residual(mlp, "ls2", "norm2", &mut block));
        }
        layers.push(self.norm(scope.sub("norm")));
        match self.pooling {
            Pooling::Class => layers.push(Layer::First),
            Pooling::Mean => layers.extend([Layer::Behind(self.registers), Layer::GlobalAverage]),
            Pooling::Attention => {
                let mut pool = scope.sub("attn_pool");
                layers.push(Layer::Probe(Probe::new(w, NORMAL, pool.same())));
                layers.extend([Layer::Attention(Attention::new(self.heads)), Layer::First, self.linear([w, w], pool.sub("proj"))]);
                let mlp = self.mlp(pool.sub("mlp"));
                let norm = vec![self.norm(pool.sub("norm"))];
                layers.push(Layer::Residual(Residual::new(mlp, vec![]).with(Nonlinearity::None).normalise_before(norm)));
            }
        }
        layers
    }
}

/// A vision transformer up to the representation: images to features.
pub struct Vit {
    layers: Sequential,
    width: usize,
    patch: usize,
}
// encode: refuse sizes that are no multiple of patch: "images of 33 × 33 pixels are not whole patches of 4"
