//! The layers of a vision transformer (Dosovitskiy et al. 2021): pre-norm blocks behind linear patches. Parameters have timm's names. Initial
//! values are timm's, N(0, .02²), and those of PyTorch's convolution for the patches, whose bias is 0.

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

const DEVIATION: f64 = 0.02;
const NORMAL: Init = Init::Normal { std: DEVIATION };

impl VitRecipe {
    fn linear(&self, [output, input]: [usize; 2], scope: Scope) -> Layer {
        Layer::Linear(Linear::new([output, input], true, ParamKind::Weight, NORMAL, scope))
    }

    fn norm(&self, scope: Scope) -> Layer {
        Layer::LayerNorm(LayerNorm::new(self.width, self.epsilon, scope))
    }

    /// The two products of an MLP with their activation.
    fn mlp(&self, mut scope: Scope) -> Vec<Layer> {
        let (w, inner) = (self.width, self.inner());
        vec![self.linear([inner, w], scope.sub("fc1")), Layer::Gelu(self.gelu.into()), self.linear([w, inner], scope.sub("fc2"))]
    }

    /// x + scale(body(norm(x))), with the `number`th normalisation and LayerScale of a block.
    fn residual(&self, mut body: Vec<Layer>, number: usize, block: &mut Scope) -> Layer {
        let norm = vec![self.norm(block.sub(format!("norm{number}")))];
        if self.layer_scale > 0.0 {
            body.push(Layer::Scale(Scale::new(self.width, self.layer_scale, block.sub(format!("ls{number}")))));
        }
        Layer::Residual(Residual::new(body, vec![]).with(Nonlinearity::None).normalise_before(norm))
    }

    /// Images to tokens. Their layers have depth 0.
    fn tokens_of(&self, layers: &mut Vec<Layer>, scope: &mut Scope) {
        let (w, patch) = (self.width, self.patch);
        let bound = 1.0 / (self.pixels() as f64).sqrt();
        let uniform = Init::Uniform { low: -bound, high: bound };
        let conv = if self.patch_bias { Conv2d::with_bias } else { Conv2d::new };
        layers.push(Layer::Conv2d(conv([w, CHANNELS], patch, patch, 0, uniform, scope.sub("patch_embed.proj").depth(0))));
        let tokens = Tokens {
            width: w,
            side: self.size() / patch,
            class: self.class_token,
            class_position: self.class_position,
            registers: self.registers,
            resampling: self.resampling,
            deviation: DEVIATION,
        };
        layers.push(Layer::Patches(Patches::new(tokens, scope.same().depth(0))));
        if self.normalise_tokens {
            layers.push(self.norm(scope.sub("norm_pre").depth(0)));
        }
    }

    /// All layers, whose parameters are declared in the scope. Block k has depth k + 1.
    fn network(&self, mut scope: Scope) -> Vec<Layer> {
        let w = self.width;
        let mut layers = Vec::new();
        self.tokens_of(&mut layers, &mut scope);
        let mut blocks = scope.sub("blocks");
        for number in 0..self.layers {
            let mut block = blocks.sub(number).depth(number + 1);
            let mut attn = block.sub("attn");
            let attention = vec![
                self.linear([3 * w, w], attn.sub("qkv")),
                Layer::Attention(Attention::new(self.heads)),
                self.linear([w, w], attn.sub("proj")),
            ];
            layers.push(self.residual(attention, 1, &mut block));
            let mlp = self.mlp(block.sub("mlp"));
            layers.push(self.residual(mlp, 2, &mut block));
        }
        let patches = Layer::Behind(usize::from(self.class_token) + self.registers);
        match self.pooling {
            // Each token is normalised by itself, so the others need not be.
            Pooling::Class => layers.extend([Layer::First, self.norm(scope.sub("norm"))]),
            Pooling::Mean => layers.extend([patches, self.norm(scope.sub("norm")), Layer::GlobalAverage]),
            Pooling::MeanThenNorm => layers.extend([patches, Layer::GlobalAverage, self.norm(scope.sub("fc_norm"))]),
            Pooling::Attention => {
                layers.push(self.norm(scope.sub("norm")));
                let mut pool = scope.sub("attn_pool");
                layers.push(Layer::Probe(Probe::new(w, NORMAL, pool.same())));
                layers.extend([
                    Layer::Attention(Attention::new(self.heads)),
                    Layer::First,
                    self.linear([w, w], pool.sub("proj")),
                ]);
                let norm = vec![self.norm(pool.sub("norm"))];
                let mlp = self.mlp(pool.sub("mlp"));
                layers.push(Layer::Residual(Residual::new(mlp, vec![]).with(Nonlinearity::None).normalise_before(norm)));
            }
        }
        layers
    }
}

/// A vision transformer up to the representation: images to features.
pub struct Vit {
    layers: Sequential,
    of: VitRecipe,
}

impl Vit {
    /// Declares the network's parameters in the scope.
    ///
    /// # Errors
    /// Those of [`VitRecipe::check`].
    pub fn new(recipe: &VitRecipe, mut scope: Scope) -> Result<Vit> {
        recipe.check()?;
        let store = scope.gradient_store();
        Ok(Vit { layers: Sequential::new(recipe.network(scope.same()), store), of: recipe.clone() })
    }

    /// The same network in candle's operations, the oracle of tests.
    pub fn reference(self) -> Vit {
        Vit { layers: self.layers.reference(), ..self }
    }

    /// Refuses images that are not whole patches, whose last rows and columns would be left out.
    fn check(&self, x: &Tensor) -> Result<()> {
        let (_, h, w, _) = x.dims4()?;
        [h, w].into_iter().try_for_each(|size| self.of.fits(size))
    }
}

impl Encoder for Vit {
    type Views = Pixels;

    fn width(&self) -> usize {
        self.of.width
    }

    /// `(n, h, w, 3)` images, h and w multiples of the patch, to `(n, width)`.
    fn encode(&self, x: &Tensor, rows: &Rows, pass: &Pass) -> Result<(Tensor, Tape)> {
        self.check(x)?;
        self.layers.forward(x, rows, pass)
    }

    fn through(&self, head: &Sequential, x: &Tensor, rows: &Rows, pass: &Pass) -> Result<(Tensor, Tape)> {
        self.check(x)?;
        self.layers.through(head, x, rows, pass)
    }
}
