//! Times every kernel alone, at the shapes of ResNet-18, -20 and -50: `cargo bench -p ctk-core --bench kernels -- 3x3`.
//!
//! A kernel is run as a network of one layer, so that the timing covers what training calls, including copies in and out of tensors.
//! `forward` keeps no tape, `dw` is the backward pass without the input's gradient, `dw+dx` with it. `elem/s` are operations a second: two
//! for each multiplication in convolutions and matrices, one for each value elsewhere; `dw+dx` counts twice that.

use candle_core::{DType, Device, Tensor};
use criterion::{BatchSize, BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime};
use ctk_core::nn::params::{Init, ParamKind, Params, Scope};
use ctk_core::nn::pass::Pass;
use ctk_core::nn::rows::Rows;
use ctk_core::nn::tape::Tape;
use ctk_core::nn::{AvgPool, BatchNorm, Conv2d, Layer, Linear, MaxPool, Padding, Residual, Sequential};
use ctk_core::rng::Key;
use ctk_core::world::solo;
use rand::Rng as _;

/// The same allocator as in the program.
#[global_allocator]
static ALLOCATOR: ctk_alloc::Caching = ctk_alloc::Caching::new(256 << 20);

/// Images in a batch: few, so that each shape takes milliseconds.
const IMAGES: usize = 32;

/// Kernel, stride, channels in and out, height and width of the input.
const CONVOLUTIONS: [(usize, usize, usize, usize, usize); 19] = [
    // ResNet-18 at 32 px: the stem, each group's blocks, the convolutions that halve the maps, a projection.
    (3, 1, 3, 64, 32),
    (3, 1, 64, 64, 32),
    (3, 1, 128, 128, 16),
    (3, 1, 256, 256, 8),
    (3, 1, 512, 512, 4),
    (3, 2, 64, 128, 32),
    (3, 2, 128, 256, 16),
    (3, 2, 256, 512, 8),
    (1, 2, 64, 128, 32),
    // ResNet-20.
    (3, 1, 16, 16, 32),
    (3, 1, 32, 32, 16),
    (3, 1, 64, 64, 8),
    (3, 2, 16, 32, 32),
    // ResNet-50 at 64 px: the stem, and the two 1 × 1 convolutions of a block.
    (7, 2, 3, 64, 64),
    (1, 1, 64, 256, 16),
    (1, 1, 256, 64, 16),
    (1, 1, 256, 1024, 4),
    (1, 1, 512, 2048, 2),
    (1, 1, 2048, 512, 2),
];

/// A network of one layer, and its input.
struct Subject {
    net: Sequential,
    params: Params,
    x: Tensor,
}

impl Subject {
    fn new(shape: &[usize], layer: impl FnOnce(Scope) -> Layer) -> Subject {
        let mut params = Params::new();
        let layer = layer(params.root().sub("layer"));
        params.materialise(Key::new(0), DType::F32, &ctk_core::Device::Cpu).expect("parameters");
        let mut rng = Key::new(1).rng();
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| rng.random_range(-1.0..1.0)).collect();
        let x = Tensor::from_vec(values, shape, &Device::Cpu).expect("an input");
        Subject { net: Sequential::new(vec![layer], params.gradient_store()), params, x }
    }

    fn time(&self, c: &mut Criterion, group: &str, name: &str, operations: usize) {
        let mut group = c.benchmark_group(format!("{group} {name}"));
        group.sample_size(10).throughput(Throughput::Elements(operations as u64));
        let look = Pass::train(Key::new(0), &solo()).without_tape();
        group.bench_function("forward", |b| b.iter(|| self.net.forward(&self.x, &self.rows(), &look).expect("forward")));
        let learned = self.params.iter().next().is_some();
        if learned {
            self.back(&mut group, "dw", false);
            group.throughput(Throughput::Elements(2 * operations as u64));
        }
        self.back(&mut group, if learned { "dw+dx" } else { "dx" }, true);
    }

    fn rows(&self) -> Rows {
        Rows::alone(self.x.dims()[0])
    }

    /// The backward pass alone, with the input's gradient if `want`; the forward pass before it is set-up and is not timed.
    fn back(&self, group: &mut BenchmarkGroup<WallTime>, name: &str, want: bool) {
        let pass = Pass::train(Key::new(0), &solo());
        let forward = || {
            let (y, tape) = self.net.forward(&self.x, &self.rows(), &pass).expect("forward");
            (y.ones_like().expect("a gradient"), tape)
        };
        let back = |(gradient, tape): (Tensor, Tape)| {
            let input = tape.play(&gradient, want).expect("backward");
            (input, self.params.gradients().expect("gradients"))
        };
        group.bench_function(name, |b| b.iter_batched(forward, back, BatchSize::PerIteration));
    }
}

fn convolutions(c: &mut Criterion) {
    for (kernel, stride, input, output, size) in CONVOLUTIONS {
        let init = Init::Normal { std: 0.05 };
        let subject = Subject::new(&[IMAGES, size, size, input], |scope| {
            Layer::Conv2d(Conv2d::new([output, input], kernel, stride, (kernel - 1) / 2, init, scope))
        });
        let side = size.div_ceil(stride);
        let operations = 2 * IMAGES * side * side * kernel * kernel * input * output;
        let name = format!("s{stride} {input}-{output} {size}px");
        subject.time(c, &format!("{kernel}x{kernel}"), &name, operations);
    }
}

fn linear(c: &mut Criterion) {
    for (rows, input, output) in [(256, 512, 512), (256, 512, 128), (64, 2048, 2048)] {
        let init = Init::Normal { std: 0.05 };
        let subject = Subject::new(&[rows, input], |scope| {
            Layer::Linear(Linear::new([output, input], false, ParamKind::Weight, init, scope))
        });
        subject.time(c, "linear", &format!("{rows} rows {input}-{output}"), 2 * rows * input * output);
    }
}

fn norms_and_joins(c: &mut Criterion) {
    for (channels, size) in [(64, 32), (16, 32), (256, 16), (512, 4)] {
        let (shape, name) = ([IMAGES, size, size, channels], format!("{channels} {size}px"));
        let numbers = shape.iter().product();
        let norm = Subject::new(&shape, |scope| Layer::BatchNorm(BatchNorm::new(channels, 1.0, scope).relu()));
        norm.time(c, "batch norm", &name, numbers);
        let join = Subject::new(&shape, |scope| {
            let body = vec![Layer::BatchNorm(BatchNorm::new(channels, 1.0, scope))];
            Layer::Residual(Residual::new(body, Vec::new()))
        });
        join.time(c, "norm and join", &name, numbers);
    }
}

fn pools(c: &mut Criterion) {
    let shape = [IMAGES, 32, 32, 64];
    let numbers = shape.iter().product();
    Subject::new(&shape, |_| Layer::MaxPool(MaxPool::new(3, 2, Padding::Both(1)))).time(c, "max pool", "3 s2 64 32px", numbers);
    let average = AvgPool::new(2, 2, Padding::After(1), true);
    Subject::new(&shape, |_| Layer::AvgPool(average)).time(c, "average pool", "2 s2 64 32px", numbers);
    Subject::new(&[IMAGES, 4, 4, 512], |_| Layer::GlobalAverage).time(c, "global average", "512 4px", IMAGES * 16 * 512);
}

criterion_group!(kernels, convolutions, linear, norms_and_joins, pools);
criterion_main!(kernels);
