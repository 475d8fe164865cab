//! The layers of a residual network, with the initial values of its variant.

use candle_core::Tensor;
use ctk_core::Result;
use ctk_core::model::encoder::Encoder;
use ctk_core::nn::params::{Init, Scope};
use ctk_core::nn::pass::Pass;
use ctk_core::nn::rows::Rows;
use ctk_core::nn::tape::Tape;
use ctk_core::nn::{AvgPool, BatchNorm, Conv2d, Layer, MaxPool, Padding, Residual, Select, Sequential};
use ctk_images::pixels::Pixels;

use super::recipe::{ResnetRecipe, Stem, Variant, blocks};

impl ResnetRecipe {
    fn conv(&self, [output, input]: [usize; 2], kernel: usize, stride: usize, scope: Scope) -> Layer {
        let taps = (kernel * kernel) as f64;
        let init = match self.variant {
            // He et al. 2015, fan-out, as torchvision's `resnet.py`.
            Variant::Torchvision | Variant::Simclrv2Pytorch | Variant::ResnetD => {
                Init::Normal { std: (2.0 / (taps * output as f64)).sqrt() }
            }
            // Keras' `VarianceScaling()`: the standard deviation is that after cutting at two, which reduces it by 12 %.
            Variant::Google => Init::TruncatedNormal { std: (1.0 / (taps * input as f64)).sqrt() / 0.879_625_661_034_239_8 },
        };
        Layer::Conv2d(Conv2d::new([output, input], kernel, stride, (kernel - 1) / 2, init, scope))
    }

    fn stem(&self, layers: &mut Vec<Layer>, scope: &mut Scope) -> usize {
        let width = self.channels(self.base());
        match (self.stem, self.averages()) {
            (Stem::Small, _) => layers.push(self.conv([width, self.channels], 3, 1, scope.sub("conv1"))),
            (Stem::Imagenet, false) => layers.push(self.conv([width, self.channels], 7, 2, scope.sub("conv1"))),
            (Stem::Imagenet, true) => {
                // ResNet-D's stem, numbered as in timm: convolution, norm and ReLU each count.
                let half = self.channels(32);
                let mut scope = scope.sub("conv1");
                layers.push(self.conv([half, self.channels], 3, 2, scope.sub(0)));
                layers.push(normalise_relu(half, scope.sub(1)));
                layers.push(self.conv([half, half], 3, 1, scope.sub(3)));
                layers.push(normalise_relu(half, scope.sub(4)));
                layers.push(self.conv([width, half], 3, 1, scope.sub(6)));
            }
        }
        layers.push(normalise_relu(width, scope.sub("bn1")));
        if self.stem == Stem::Imagenet {
            let padding = match self.variant {
                Variant::Torchvision | Variant::Simclrv2Pytorch | Variant::ResnetD => Padding::Both(1),
                Variant::Google => Padding::Same,
            };
            layers.push(Layer::MaxPool(MaxPool::new(3, 2, padding)));
        }
        width
    }

    fn block(&self, [output, input]: [usize; 2], stride: usize, first: bool, mut scope: Scope) -> Layer {
        let body = match (self.bottleneck(), self.selects()) {
            (false, _) => vec![
                self.conv([output, input], 3, stride, scope.sub("conv1")),
                normalise_relu(output, scope.sub("bn1")),
                self.conv([output, output], 3, 1, scope.sub("conv2")),
                normalise_last(output, scope.sub("bn2")),
            ],
            (true, selects) => {
                let middle = output / 4;
                let mut body =
                    vec![self.conv([middle, input], 1, 1, scope.sub("conv1")), normalise_relu(middle, scope.sub("bn1"))];
                let streams = if selects { 2 * middle } else { middle };
                body.push(self.conv([streams, middle], 3, stride, scope.sub("conv2")));
                body.push(normalise_relu(streams, scope.sub("bn2")));
                if selects {
                    body.push(self.select(middle, scope.sub("sk")));
                }
                body.push(self.conv([output, middle], 1, 1, scope.sub("conv3")));
                body.push(normalise_last(output, scope.sub("bn3")));
                body
            }
        };
        let projects = first && (stride > 1 || input != output || self.variant == Variant::Google);
        let shortcut = if projects { self.shortcut([output, input], stride, scope.sub("downsample")) } else { Vec::new() };
        Layer::Residual(Residual::new(body, shortcut))
    }

    fn shortcut(&self, channels: [usize; 2], stride: usize, mut scope: Scope) -> Vec<Layer> {
        let mut layers = Vec::new();
        let mut number = 0..;
        let mut next = || number.next().unwrap_or(0);
        let stride = if self.averages() {
            layers.extend(self.average(stride).map(Layer::AvgPool));
            next();
            1
        } else {
            stride
        };
        layers.push(self.conv(channels, 1, stride, scope.sub(next())));
        layers.push(Layer::BatchNorm(BatchNorm::new(channels[0], 1.0, scope.sub(next()))));
        layers
    }

    /// The average pooling of a ResNet-D's shortcut.
    fn average(&self, stride: usize) -> Option<AvgPool> {
        let (padding, zeros) = match (self.variant, stride) {
            (Variant::ResnetD, 1) => return None,
            (Variant::ResnetD, _) => (Padding::After(1), false),
            (Variant::Simclrv2Pytorch, _) => (Padding::After(1), true),
            // SimCLR's `resnet.py` pads zeros below and to the right, and counts them, except with stride 1.
            (Variant::Torchvision | Variant::Google, 1) => (Padding::Same, false),
            (Variant::Torchvision | Variant::Google, _) => (Padding::After(1), true),
        };
        Some(AvgPool::new(2, stride, padding, zeros))
    }

    /// Selective kernels of `f` channels, mixed by their gate.
    fn select(&self, f: usize, mut scope: Scope) -> Layer {
        let middle = self.gate(f);
        let gate = vec![
            self.conv([middle, f], 1, 1, scope.sub("conv1")),
            normalise_relu(middle, scope.sub("bn1")),
            self.conv([2 * f, middle], 1, 1, scope.sub("conv2")),
        ];
        Layer::Select(Select { gate })
    }
}

fn normalise_relu(channels: usize, scope: Scope) -> Layer {
    Layer::BatchNorm(BatchNorm::new(channels, 1.0, scope).relu())
}

/// The last normalisation of a block starts with scale 0, so that the block starts as its shortcut (Goyal et al. 2017, §5.1).
fn normalise_last(channels: usize, scope: Scope) -> Layer {
    Layer::BatchNorm(BatchNorm::new(channels, 0.0, scope))
}

/// A residual network up to its global average: images to representations h.
pub struct ResNet {
    layers: Sequential,
    width: usize,
    /// Whether it reads one channel.
    gray: bool,
}

impl ResNet {
    /// Declares the network's parameters in the scope.
    ///
    /// # Errors
    /// Those of [`ResnetRecipe::check`].
    pub fn new(recipe: &ResnetRecipe, mut scope: Scope) -> Result<ResNet> {
        recipe.check()?;
        let mut layers = Vec::new();
        let mut input = recipe.stem(&mut layers, &mut scope);
        for (group, count) in blocks(recipe.depth).unwrap_or_default().into_iter().enumerate() {
            let planes = recipe.channels(recipe.base() << group);
            let output = if recipe.bottleneck() { 4 * planes } else { planes };
            let mut scope = scope.sub(format!("layer{}", group + 1));
            for i in 0..count {
                let stride = if i == 0 && group > 0 { 2 } else { 1 };
                layers.push(recipe.block([output, input], stride, i == 0, scope.sub(i)));
                input = output;
            }
        }
        layers.push(Layer::GlobalAverage);
        Ok(ResNet { layers: Sequential::new(layers, scope.gradient_store()), width: input, gray: recipe.channels == 1 })
    }

    /// The same network in candle's operations, the oracle of tests.
    pub fn reference(self) -> ResNet {
        ResNet { layers: self.layers.reference(), ..self }
    }
}

impl Encoder for ResNet {
    type Views = Pixels;

    fn width(&self) -> usize {
        self.width
    }

    /// `(n, h, w, 3)` images of any size to `(n, width)`.
    fn encode(&self, x: &Tensor, rows: &Rows, pass: &Pass) -> Result<(Tensor, Tape)> {
        match self.gray {
            true => self.layers.forward(&luma(x)?, rows, pass),
            false => self.layers.forward(x, rows, pass),
        }
    }

    fn through(&self, head: &Sequential, x: &Tensor, rows: &Rows, pass: &Pass) -> Result<(Tensor, Tape)> {
        match self.gray {
            true => self.layers.through(head, &luma(x)?, rows, pass),
            false => self.layers.through(head, x, rows, pass),
        }
    }
}

/// `(n, h, w, 3)` to `(n, h, w, 1)`: ITU-R 601's luma, which keeps the value of three equal channels.
fn luma(x: &Tensor) -> Result<Tensor> {
    let weights = Tensor::new(&[0.299_f32, 0.587, 0.114], x.device())?.to_dtype(x.dtype())?;
    Ok(x.broadcast_mul(&weights)?.sum_keepdim(3)?)
}
