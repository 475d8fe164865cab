//! Small networks, and inputs for them, on which implementations of the layers are compared: by tests, and by the self-test of a device.

use crate::nn::params::{Init, ParamKind, Params, Scope};
use crate::nn::{
    AddedRow, Attention, AvgPool, BatchNorm, Conv2d, Gelu, Layer, LayerNorm, Linear, MaxPool, Nonlinearity, Padding, Patches,
    Probe, Resampling, Residual, Scale, Select, Tokens,
};

pub(crate) const NORMAL: Init = Init::Normal { std: 0.5 };

/// Class token, two registers, and 3 × 3 positions of five values.
const TOKENS: Tokens = Tokens {
    width: 5,
    side: 3,
    class: true,
    class_position: true,
    registers: 2,
    resampling: Resampling::Bicubic,
    deviation: 0.5,
};

/// A network and an input for it.
pub(crate) struct Case {
    pub name: &'static str,
    pub build: fn(Scope) -> Vec<Layer>,
    pub input: &'static [usize],
}

impl Case {
    /// The network, declared in `params`. One without parameters would run on the CPU whatever the device, so a 1 × 1 convolution comes before it.
    pub fn carried(&self, params: &mut Params) -> Vec<Layer> {
        let mut layers = (self.build)(params.root());
        if params.iter().next().is_none() {
            let channels = self.input[self.input.len() - 1];
            layers.insert(0, conv([channels, channels], 1, 1, 0, params.root().sub("carrier")));
        }
        layers
    }
}

pub(crate) fn conv([o, i]: [usize; 2], kernel: usize, stride: usize, padding: usize, scope: Scope) -> Layer {
    Layer::Conv2d(Conv2d::new([o, i], kernel, stride, padding, NORMAL, scope))
}

pub(crate) fn biased([o, i]: [usize; 2], kernel: usize, stride: usize, padding: usize, scope: Scope) -> Layer {
    Layer::Conv2d(Conv2d::with_bias([o, i], kernel, stride, padding, NORMAL, scope))
}

/// Every kind of layer, in shapes that are at the edges of the kernels.
pub(crate) fn cases() -> Vec<Case> {
    let case = |name, input, build| Case { name, build, input };
    vec![
        case("conv 3×3", &[2, 5, 4, 3], |mut s| vec![conv([5, 3], 3, 1, 1, s.sub("a"))]),
        case("conv 3×3 stride 2, odd", &[2, 7, 5, 3], |mut s| vec![conv([4, 3], 3, 2, 1, s.sub("a"))]),
        case("conv 3×3 stride 2, even", &[3, 6, 8, 2], |mut s| vec![conv([4, 2], 3, 2, 1, s.sub("a"))]),
        case("conv 1×1", &[3, 4, 5, 6], |mut s| vec![conv([2, 6], 1, 1, 0, s.sub("a"))]),
        case("conv 1×1 stride 2", &[2, 5, 4, 3], |mut s| vec![conv([4, 3], 1, 2, 0, s.sub("a"))]),
        case("conv 7×7 stride 2 of a small image", &[1, 3, 2, 3], |mut s| vec![conv([4, 3], 7, 2, 3, s.sub("a"))]),
        case("conv 3×3 of one pixel", &[1, 1, 1, 2], |mut s| vec![conv([3, 2], 3, 1, 1, s.sub("a"))]),
        case("conv 2×2, padding as wide as the kernel", &[1, 3, 3, 2], |mut s| vec![conv([2, 2], 2, 1, 2, s.sub("a"))]),
        case("conv of many blocks", &[2, 40, 41, 2], |mut s| vec![conv([3, 2], 3, 1, 1, s.sub("a"))]),
        case("winograd of odd maps", &[2, 9, 13, 24], |mut s| vec![conv([40, 24], 3, 1, 1, s.sub("a"))]),
        case("winograd of one image", &[1, 16, 16, 80], |mut s| vec![conv([72, 80], 3, 1, 1, s.sub("a"))]),
        case("winograd of many bands", &[3, 40, 41, 8], |mut s| vec![conv([17, 8], 3, 1, 1, s.sub("a"))]),
        case("winograd with large weights", &[1, 12, 13, 160], |mut s| vec![conv([192, 160], 3, 1, 1, s.sub("a"))]),
        case("conv 3×3 of 2×2 maps", &[5, 2, 2, 24], |mut s| vec![conv([80, 24], 3, 1, 1, s.sub("a"))]),
        case("conv 3×3 of pixels", &[3, 1, 1, 20], |mut s| vec![conv([33, 20], 3, 1, 1, s.sub("a"))]),
        case("conv 3×3 stride 2, wide", &[3, 9, 7, 40], |mut s| vec![conv([72, 40], 3, 2, 1, s.sub("a"))]),
        case("conv 3×3 stride 2 of many blocks", &[2, 40, 38, 9], |mut s| vec![conv([136, 9], 3, 2, 1, s.sub("a"))]),
        case("conv 3×3 stride 3, no padding", &[2, 11, 8, 5], |mut s| vec![conv([4, 5], 3, 3, 0, s.sub("a"))]),
        case("conv 5×5", &[2, 6, 5, 7], |mut s| vec![conv([9, 7], 5, 1, 2, s.sub("a"))]),
        case("conv 7×7 stride 2", &[2, 19, 17, 3], |mut s| vec![conv([24, 3], 7, 2, 3, s.sub("a"))]),
        case("conv 1×1 of few pixels", &[2, 3, 3, 40], |mut s| vec![conv([136, 40], 1, 1, 0, s.sub("a"))]),
        case("conv 1×1 of many pixels", &[3, 20, 31, 24], |mut s| vec![conv([72, 24], 1, 1, 0, s.sub("a"))]),
        case("conv 1×1 stride 2, wide", &[3, 15, 15, 24], |mut s| vec![conv([72, 24], 1, 2, 0, s.sub("a"))]),
        case("linear", &[4, 3], |mut s| vec![Layer::Linear(Linear::new([5, 3], true, ParamKind::Weight, NORMAL, s.sub("a")))]),
        case("linear of one row", &[1, 3], |mut s| {
            vec![Layer::Linear(Linear::new([2, 3], false, ParamKind::Weight, NORMAL, s.sub("a")))]
        }),
        case("conv 3×3 with a bias", &[2, 5, 4, 9], |mut s| vec![biased([12, 9], 3, 1, 1, s.sub("a"))]),
        case("conv 3×3 stride 2 with a bias", &[2, 5, 4, 3], |mut s| {
            vec![biased([5, 3], 3, 2, 1, s.sub("a")), Layer::GlobalAverage]
        }),
        case("linear of pixels", &[2, 3, 2, 5], |mut s| {
            vec![Layer::Linear(Linear::new([4, 5], true, ParamKind::Weight, NORMAL, s.sub("a"))), Layer::Relu]
        }),
        case("norm", &[2, 3, 2, 3], |mut s| vec![Layer::BatchNorm(BatchNorm::new(3, 1.5, s.sub("a")))]),
        case("norm + relu", &[3, 3, 2, 5], |mut s| vec![Layer::BatchNorm(BatchNorm::new(5, 0.7, s.sub("a")).relu())]),
        case("norm of many blocks", &[2, 70, 80, 3], |mut s| vec![Layer::BatchNorm(BatchNorm::new(3, 1.0, s.sub("a")).relu())]),
        case("norm of features, no bias", &[4, 3], |mut s| vec![Layer::BatchNorm(BatchNorm::without_bias(3, s.sub("a")))]),
        case("relu", &[2, 3, 3, 2], |_| vec![Layer::Relu]),
        case("max-pool 3/2", &[2, 7, 6, 2], |_| vec![Layer::MaxPool(MaxPool::new(3, 2, Padding::Both(1)))]),
        case("max-pool 3/2 same", &[2, 6, 5, 2], |_| vec![Layer::MaxPool(MaxPool::new(3, 2, Padding::Same))]),
        case("max-pool 2/2", &[1, 4, 5, 3], |_| vec![Layer::MaxPool(MaxPool::new(2, 2, Padding::Both(0)))]),
        case("max-pool of one pixel", &[1, 1, 1, 2], |_| vec![Layer::MaxPool(MaxPool::new(3, 2, Padding::Both(1)))]),
        case("mean-pool 2/2, padded below", &[2, 5, 4, 2], |_| vec![Layer::AvgPool(AvgPool::new(2, 2, Padding::After(1), true))]),
        case("mean-pool 2/1 same", &[2, 4, 3, 2], |_| vec![Layer::AvgPool(AvgPool::new(2, 1, Padding::Same, false))]),
        case("global average", &[2, 3, 5, 4], |_| vec![Layer::GlobalAverage]),
        case("first pixel", &[3, 2, 2, 5], |_| vec![Layer::First]),
        case("last pixel", &[3, 2, 2, 5], |_| vec![Layer::Last]),
        case("layer norm", &[3, 2, 5, 19], |mut s| vec![Layer::LayerNorm(LayerNorm::new(19, 1e-5, s.sub("a")))]),
        case("layer norm of many rows", &[2, 30, 31, 40], |mut s| vec![Layer::LayerNorm(LayerNorm::new(40, 1e-12, s.sub("a")))]),
        case("gelu", &[3, 5, 2, 7], |_| vec![Layer::Gelu(Gelu::Erf)]),
        case("gelu by tanh", &[3, 5, 2, 7], |_| vec![Layer::Gelu(Gelu::Tanh)]),
        case("quick gelu", &[3, 5, 2, 7], |_| vec![Layer::Gelu(Gelu::Quick)]),
        case("attention", &[2, 3, 4, 18], |_| vec![Layer::Attention(Attention::new(2))]),
        case("causal attention", &[3, 9, 8, 15], |_| vec![Layer::Attention(Attention::new(1).causal())]),
        case("positions", &[2, 2, 3, 5], |mut s| {
            vec![
                Layer::AddedRow(AddedRow::by_position([9, 5], 2, NORMAL, s.sub("a"))),
                Layer::AddedRow(AddedRow::always([2, 5], 1, NORMAL, s.sub("b"))),
            ]
        }),
        case("layer scale", &[2, 3, 2, 5], |mut s| vec![Layer::Scale(Scale::new(5, 0.3, s.sub("a")))]),
        case("block with a layer scale", &[2, 3, 2, 5], |mut s| {
            let linear = Layer::Linear(Linear::new([5, 5], true, ParamKind::Weight, NORMAL, s.sub("a")));
            let body = vec![linear, Layer::Scale(Scale::new(5, 0.3, s.sub("b")))];
            vec![Layer::Residual(Residual::new(body, vec![]).with(Nonlinearity::None))]
        }),
        case("patches as tokens", &[2, 3, 3, 5], |s| vec![Layer::Patches(Patches::new(TOKENS, s))]),
        case("patches of a larger image", &[2, 4, 5, 5], |s| vec![Layer::Patches(Patches::new(TOKENS, s)), Layer::First]),
        case("patches of a smaller image", &[3, 2, 1, 5], |s| {
            let of = Tokens { class_position: false, registers: 0, resampling: Resampling::Antialias, ..TOKENS };
            vec![Layer::Patches(Patches::new(of, s)), Layer::Behind(1), Layer::GlobalAverage]
        }),
        case("patches alone", &[2, 4, 4, 5], |s| {
            let of = Tokens { class: false, registers: 0, resampling: Resampling::BicubicOffset, ..TOKENS };
            vec![Layer::Patches(Patches::new(of, s))]
        }),
        case("a learned query", &[2, 3, 2, 8], |mut s| {
            vec![Layer::Probe(Probe::new(8, NORMAL, s.sub("a"))), Layer::Attention(Attention::new(2)), Layer::First]
        }),
        case("transformer block", &[2, 3, 3, 12], |mut s| {
            let linear = |shape, scope: Scope| Layer::Linear(Linear::new(shape, true, ParamKind::Weight, NORMAL, scope));
            let norm = |scope: Scope| vec![Layer::LayerNorm(LayerNorm::new(12, 1e-5, scope))];
            let attention = vec![linear([36, 12], s.sub("a")), Layer::Attention(Attention::new(3)), linear([12, 12], s.sub("b"))];
            let mlp = vec![linear([20, 12], s.sub("c")), Layer::Gelu(Gelu::Erf), linear([12, 20], s.sub("d"))];
            let block = |body| Residual::new(body, vec![]).with(Nonlinearity::None);
            vec![
                Layer::Residual(block(attention).normalise_before(norm(s.sub("e")))),
                Layer::Residual(block(mlp).normalise_after(norm(s.sub("f")))),
                Layer::First,
            ]
        }),
        case("select", &[3, 2, 3, 8], |mut s| vec![select(4, s.sub("gate"))]),
        case("identity block", &[2, 3, 3, 3], |mut s| {
            let body = vec![conv([3, 3], 3, 1, 1, s.sub("a")), Layer::BatchNorm(BatchNorm::new(3, 1.0, s.sub("b")))];
            vec![Layer::Residual(Residual::new(body, vec![]))]
        }),
        case("block without a ReLU", &[5, 3], |mut s| {
            let body = vec![Layer::Linear(Linear::new([3, 3], true, ParamKind::Weight, NORMAL, s.sub("a")))];
            vec![Layer::Residual(Residual::new(body, vec![]).with(Nonlinearity::None))]
        }),
        case("block that normalises before its body", &[2, 5, 4, 9], |mut s| {
            let before = vec![Layer::BatchNorm(BatchNorm::new(9, 1.0, s.sub("a")).relu())];
            let body = vec![conv([9, 9], 3, 1, 1, s.sub("b"))];
            let block = Residual::new(body, vec![]).with(Nonlinearity::None).normalise_before(before);
            vec![Layer::Residual(block), Layer::BatchNorm(BatchNorm::new(9, 1.0, s.sub("c")))]
        }),
        case("block that normalises its sum", &[6, 4], |mut s| {
            let body = vec![
                Layer::Linear(Linear::new([4, 4], false, ParamKind::Weight, NORMAL, s.sub("a"))),
                Layer::BatchNorm(BatchNorm::without_bias(4, s.sub("b"))),
            ];
            let after = vec![Layer::BatchNorm(BatchNorm::new(4, 1.0, s.sub("c")))];
            vec![Layer::Residual(Residual::new(body, vec![]).with(Nonlinearity::None).normalise_after(after))]
        }),
        case("tiles and norms", &[3, 11, 9, 9], |mut s| {
            let body = vec![
                conv([24, 9], 3, 1, 1, s.sub("a")),
                Layer::BatchNorm(BatchNorm::new(24, 1.0, s.sub("b")).relu()),
                conv([17, 24], 3, 1, 1, s.sub("c")),
                Layer::BatchNorm(BatchNorm::new(17, 0.5, s.sub("d"))),
            ];
            let shortcut = vec![conv([17, 9], 1, 1, 0, s.sub("e")), Layer::BatchNorm(BatchNorm::new(17, 1.0, s.sub("f")))];
            vec![
                Layer::Residual(Residual::new(body, shortcut)),
                conv([16, 17], 3, 1, 1, s.sub("g")),
                Layer::BatchNorm(BatchNorm::without_bias(16, s.sub("h"))),
                conv([8, 16], 3, 1, 1, s.sub("i")),
                Layer::BatchNorm(BatchNorm::new(8, 1.0, s.sub("j")).relu()),
            ]
        }),
        case("bottleneck", &[2, 8, 9, 24], |mut s| {
            let body = vec![
                conv([8, 24], 1, 1, 0, s.sub("a")),
                Layer::BatchNorm(BatchNorm::new(8, 1.0, s.sub("b")).relu()),
                conv([8, 8], 3, 1, 1, s.sub("c")),
                Layer::BatchNorm(BatchNorm::new(8, 1.0, s.sub("d")).relu()),
                conv([24, 8], 1, 1, 0, s.sub("e")),
                Layer::BatchNorm(BatchNorm::new(24, 0.5, s.sub("f"))),
            ];
            vec![
                Layer::Residual(Residual::new(body, vec![])),
                Layer::BatchNorm(BatchNorm::new(24, 1.0, s.sub("g")).relu()),
                Layer::BatchNorm(BatchNorm::new(24, 1.0, s.sub("h"))),
                Layer::Relu,
                Layer::GlobalAverage,
            ]
        }),
        case("small network", &[3, 9, 8, 3], |mut s| {
            let mut layers = vec![
                conv([4, 3], 3, 1, 1, s.sub("stem")),
                Layer::BatchNorm(BatchNorm::new(4, 1.0, s.sub("bn")).relu()),
                Layer::MaxPool(MaxPool::new(3, 2, Padding::Both(1))),
            ];
            let body = vec![
                conv([6, 4], 3, 2, 1, s.sub("a")),
                Layer::BatchNorm(BatchNorm::new(6, 1.0, s.sub("b")).relu()),
                conv([6, 6], 3, 1, 1, s.sub("c")),
                Layer::BatchNorm(BatchNorm::new(6, 0.5, s.sub("d"))),
            ];
            let shortcut = vec![conv([6, 4], 1, 2, 0, s.sub("e")), Layer::BatchNorm(BatchNorm::new(6, 1.0, s.sub("f")))];
            layers.push(Layer::Residual(Residual::new(body, shortcut)));
            layers.push(Layer::Residual(Residual::new(vec![conv([6, 6], 3, 1, 1, s.sub("g"))], vec![])));
            layers.push(Layer::GlobalAverage);
            layers.push(Layer::Linear(Linear::new([3, 6], true, ParamKind::Weight, NORMAL, s.sub("h"))));
            layers
        }),
    ]
}

/// Shapes of real networks, at which a device's libraries may choose other algorithms.
pub(crate) fn large() -> Vec<Case> {
    let case = |name, input, build| Case { name, build, input };
    vec![
        case("conv 3×3 of 64 channels", &[16, 32, 32, 64], |mut s| vec![conv([64, 64], 3, 1, 1, s.sub("a"))]),
        case("conv 3×3 of 512 channels", &[16, 7, 7, 512], |mut s| vec![conv([512, 512], 3, 1, 1, s.sub("a"))]),
        case("conv 3×3 stride 2 of 128 channels", &[16, 28, 28, 128], |mut s| vec![conv([128, 128], 3, 2, 1, s.sub("a"))]),
        case("conv 1×1 of 256 channels", &[16, 14, 14, 256], |mut s| vec![conv([1024, 256], 1, 1, 0, s.sub("a"))]),
        case("conv 1×1 stride 2 of 256 channels", &[16, 28, 28, 256], |mut s| vec![conv([512, 256], 1, 2, 0, s.sub("a"))]),
        case("conv 7×7 stride 2 of photos", &[8, 112, 112, 3], |mut s| vec![conv([64, 3], 7, 2, 3, s.sub("a"))]),
        case("linear of 2048 features", &[256, 2048], |mut s| {
            vec![Layer::Linear(Linear::new([2048, 2048], true, ParamKind::Weight, Init::Normal { std: 0.02 }, s.sub("a")))]
        }),
        case("norm of large maps", &[16, 56, 56, 64], |mut s| {
            vec![
                Layer::BatchNorm(BatchNorm::new(64, 1.0, s.sub("a")).relu()),
                Layer::MaxPool(MaxPool::new(3, 2, Padding::Both(1))),
            ]
        }),
    ]
}

pub(crate) fn select(f: usize, mut s: Scope) -> Layer {
    let gate = vec![
        conv([3, f], 1, 1, 0, s.sub("a")),
        Layer::BatchNorm(BatchNorm::new(3, 1.0, s.sub("b")).relu()),
        conv([2 * f, 3], 1, 1, 0, s.sub("c")),
    ];
    Layer::Select(Select { gate })
}
