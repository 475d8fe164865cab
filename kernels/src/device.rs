//! The interface between layers and the device that they run on: memory, and the operations of layers.
//!
//! A device is a type parameter, so layers are compiled for it and no calls are virtual. Its memory is separate: layers hold buffers and
//! pass views of them to operations; values move to and from the host only by [`upload`](Device::upload) and
//! [`download`](Device::download). Maps are rows of channels, `(n, h, w, c)` with the channels contiguous; weights keep PyTorch's layouts.
//! Operations give the same bits for any number of threads.

use bytemuck::Pod;

use crate::attention::Attention;
use crate::dropout::{Dropout, Identity};
use crate::element::{Element, Real};
use crate::gelu::Gelu;
use crate::geometry::Geometry;
use crate::number::Number;
use crate::pool::Windows;
use crate::update::Step;

/// Plain numbers, which can be in a device's memory.
pub trait Plain: Pod + Send + Sync {}

impl<T: Pod + Send + Sync> Plain for T {}

/// A map's values, and a normalisation that is still to be applied to them.
pub type Read<'a, D, T> = (<D as Device>::View<'a, T>, Option<&'a <D as Device>::Affine<<T as Element>::Real>>);

/// What is done with the rows of a product: a bias is added to each, and then the GELU is taken.
pub struct Finish<'a, D: Device, R: Real> {
    /// The bias.
    pub bias: Option<D::View<'a, R>>,
    /// The GELU.
    pub gelu: Option<Gelu>,
}

/// A parameter, and the step of an optimizer that it takes.
pub struct Change<'a, D: Device, R: Real> {
    /// The step.
    pub step: Step,
    /// The parameter's values.
    pub w: D::ViewMut<'a, R>,
    /// The states that the step names.
    pub state: Vec<D::ViewMut<'a, R>>,
    /// The gradient.
    pub g: D::View<'a, R>,
    /// The factor of the gradient: 1, and less where gradients are clipped.
    pub scale: f64,
}

/// A device: memory, and the operations of layers on it. Outputs are written completely, unless an operation works "in place".
pub trait Device: Clone + Send + Sync + 'static {
    /// Values in the device's memory, which is reused after they are dropped: maps, and what layers keep for the backward pass.
    type Buffer<T: Plain>: Send + Sync + 'static;

    /// A buffer's values, for reading.
    type View<'a, T: Plain>: Copy + Send + Sync;

    /// A buffer's values, for writing.
    type ViewMut<'a, T: Plain>: Send;

    /// Values that outlive a pass: parameters, their gradients, optimizer state, statistics.
    type Vector<T: Plain>: Send + Sync + 'static;

    /// A normalisation by given statistics, optionally with a ReLU: y = (x − mean)·γ/√(variance + ε) + β for each channel.
    type Affine<R: Real>: Send + Sync + 'static;

    /// Moments of a map's blocks, not yet merged.
    type Moments: Send + Sync + 'static;

    /// Σ dy and Σ dy·(x − mean) for each channel: the sums that the backward pass of a normalisation begins with.
    type Sums: Send + Sync + 'static;

    /// The device's name, for messages.
    fn name(&self) -> String;

    // Memory.

    /// A buffer for so many values, which must be written before they are read.
    fn allocate<T: Plain>(&self, len: usize) -> Self::Buffer<T>;

    /// A buffer's values, for reading.
    fn view<'a, T: Plain>(&self, buffer: &'a Self::Buffer<T>) -> Self::View<'a, T>;

    /// A buffer's values, for writing.
    fn view_mut<'a, T: Plain>(&self, buffer: &'a mut Self::Buffer<T>) -> Self::ViewMut<'a, T>;

    /// Copies host values to the device. Both sides have the same length, here and below.
    fn upload<T: Plain>(&self, from: &[T], to: Self::ViewMut<'_, T>);

    /// Copies device values to the host.
    fn download<T: Plain>(&self, from: Self::View<'_, T>) -> Vec<T>;

    /// Copies host values to the device, converted to the type in which maps are stored.
    fn store<T: Number>(&self, from: &[T::Real], to: Self::ViewMut<'_, T>);

    /// Copies a map's values to the host, converted to the type in which they are computed with.
    fn load<T: Number>(&self, from: Self::View<'_, T>) -> Vec<T::Real>;

    /// A device vector with these host values.
    fn vector<T: Plain>(&self, from: &[T]) -> Self::Vector<T>;

    /// A vector of zeros.
    fn zeros<T: Plain>(&self, len: usize) -> Self::Vector<T>;

    /// A vector's values, for reading.
    fn read<'a, T: Plain>(&self, vector: &'a Self::Vector<T>) -> Self::View<'a, T>;

    /// A vector's values, for writing.
    fn write<'a, T: Plain>(&self, vector: &'a mut Self::Vector<T>) -> Self::ViewMut<'a, T>;

    /// A vector's values, on the host.
    fn host<T: Plain>(&self, vector: Self::Vector<T>) -> Vec<T>;

    /// Copies numbers.
    fn copy<T: Plain>(&self, from: Self::View<'_, T>, to: Self::ViewMut<'_, T>);

    /// Passes host values to the device: on the CPU without a copy, on other devices as a copy.
    fn lend<T: Plain, Out>(&self, numbers: &[T], read: impl FnOnce(Self::View<'_, T>) -> Out) -> Out;

    /// The same for changes in place.
    fn lend_mut<T: Plain, Out>(&self, numbers: &mut [T], change: impl FnOnce(Self::ViewMut<'_, T>) -> Out) -> Out;

    // Convolutions; a matrix product is a convolution of 1 × 1 pixels.

    /// Whether this convolution can normalise its input while it reads it.
    fn normalises<T: Number>(&self, g: &Geometry) -> bool;

    /// Computes Y from X, normalised first if that [is possible](Device::normalises), and the weight (OIHW). With `watch`, returns the
    /// moments of Y's blocks if the device computes them cheaply.
    fn convolve<T: Number>(
        &self,
        g: &Geometry,
        x: Read<Self, T>,
        weight: Self::View<'_, T::Real>,
        y: Self::ViewMut<'_, T>,
        watch: bool,
    ) -> Option<Self::Moments>;

    /// Y = X·Wᵀ for each row of X, and then what `finish` says. `before` is set to what the GELU is taken of.
    fn transform<T: Number>(
        &self,
        g: &Geometry,
        x: Self::View<'_, T>,
        weight: Self::View<'_, T::Real>,
        finish: Finish<'_, Self, T::Real>,
        before: Option<Self::ViewMut<'_, T>>,
        y: Self::ViewMut<'_, T>,
    );

    /// Computes dX from dY and the weight, plus the gradient `beside`. If X came from the normalisation `before`, returns its gradient sums
    /// if the device computes them cheaply.
    fn input_gradient<T: Number>(
        &self,
        g: &Geometry,
        dy: Self::View<'_, T>,
        weight: Self::View<'_, T::Real>,
        dx: Self::ViewMut<'_, T>,
        beside: Option<Self::View<'_, T>>,
        before: Option<Read<Self, T>>,
    ) -> Option<Self::Sums>;

    /// dW in OIHW from X, normalised first if that [is possible](Device::normalises), and dY.
    fn weight_gradient<T: Number>(&self, g: &Geometry, x: Read<Self, T>, dy: Self::View<'_, T>) -> Self::Vector<T::Real>;

    /// Every row of y += bias, in place.
    fn add_bias<T: Number>(&self, y: Self::ViewMut<'_, T>, bias: Self::View<'_, T::Real>);

    /// The sum of each of `c` columns: a bias's gradient.
    fn column_sums<T: Number>(&self, x: Self::View<'_, T>, c: usize) -> Self::Vector<T::Real>;

    // Normalisation.

    /// The moments of each block of rows of `c` channels.
    fn moments<T: Number>(&self, x: Self::View<'_, T>, c: usize) -> Self::Moments;

    /// Mean and biased variance of each of `c` channels.
    fn merge(&self, moments: Self::Moments, c: usize) -> [Self::Vector<f64>; 2];

    /// Converts parameters to the type of statistics.
    fn widen<R: Real>(&self, numbers: Self::View<'_, R>) -> Self::Vector<f64>;

    /// A normalisation by `[mean, variance]`, γ, and β (0 if it is none), with or without a ReLU.
    fn affine<R: Real>(
        &self,
        statistics: [&Self::Vector<f64>; 2],
        gamma: Self::View<'_, R>,
        beta: Option<Self::View<'_, R>>,
        epsilon: f64,
        relu: bool,
    ) -> Self::Affine<R>;

    /// Updates running statistics in place: (1 − share)·running + share·(batch·factor).
    fn follow<R: Real>(&self, running: Self::ViewMut<'_, R>, batch: &Self::Vector<f64>, factor: f64, share: f64);

    /// Computes y from x.
    fn normalise<T: Number>(&self, affine: &Self::Affine<T::Real>, x: Self::View<'_, T>, y: Self::ViewMut<'_, T>);

    /// The gradient sums of a normalisation, with dy masked by its ReLU.
    fn gradient_sums<T: Number>(&self, affine: &Self::Affine<T::Real>, x: Self::View<'_, T>, dy: Self::View<'_, T>)
    -> Self::Sums;

    /// dγ and dβ.
    fn affine_gradients<R: Real>(&self, affine: &Self::Affine<R>, sums: &Self::Sums) -> [Self::Vector<R>; 2];

    /// Computes dx; if dy is not given, dx holds it. `rows` is the number of rows that the statistics were computed from; none if they were
    /// given.
    fn normalise_gradient<T: Number>(
        &self,
        affine: &Self::Affine<T::Real>,
        sums: &Self::Sums,
        rows: Option<usize>,
        x: Self::View<'_, T>,
        dy: Option<Self::View<'_, T>>,
        dx: Self::ViewMut<'_, T>,
    );

    // Elementwise operations.

    /// x = max(x, 0) in place; NaN stays NaN.
    fn relu<T: Number>(&self, x: Self::ViewMut<'_, T>);

    /// y = gelu(x).
    fn gelu<T: Number>(&self, form: Gelu, x: Self::View<'_, T>, y: Self::ViewMut<'_, T>);

    /// dy becomes dx, the gradient of [`gelu`](Device::gelu), in place.
    fn gelu_gradient<T: Number>(&self, form: Gelu, x: Self::View<'_, T>, dy: Self::ViewMut<'_, T>);

    /// dy = 0 in place wherever y, the output of a ReLU, is 0.
    fn mask<T: Number>(&self, dy: Self::ViewMut<'_, T>, y: Self::View<'_, T>);

    /// x += y in place.
    fn add<T: Number>(&self, x: Self::ViewMut<'_, T>, y: Self::View<'_, T>);

    /// y = a + b over `c` channels, each normalised first if it has a normalisation, with or without a ReLU.
    fn join<T: Number>(&self, a: Read<Self, T>, b: Read<Self, T>, c: usize, relu: bool, y: Self::ViewMut<'_, T>);

    /// The backward pass of [`join`](Device::join): dy is masked in place where y, the output of its ReLU if it has one, is 0; returns the
    /// gradient sums of each side that has a normalisation.
    fn masked_sums<T: Number>(
        &self,
        dy: Self::ViewMut<'_, T>,
        y: Option<Self::View<'_, T>>,
        c: usize,
        sides: [Read<Self, T>; 2],
    ) -> [Option<Self::Sums>; 2];

    /// Sets dropped values of x to 0 in place and scales the rest; used forward, and backward for the gradient. Rows have `each` positions
    /// of `c` channels, or as many as their offsets say.
    fn dropout<T: Number>(&self, dropout: &Dropout, rows: Identity, each: usize, c: usize, x: Self::ViewMut<'_, T>);

    // Pooling over windows and whole images.

    /// The maximum of each window (of equal values the first), and its pixel in the image. NaN wins.
    fn max_pool<T: Number>(&self, w: &Windows, x: Self::View<'_, T>, y: Self::ViewMut<'_, T>, winners: Self::ViewMut<'_, u32>);

    /// Adds each output's gradient to its winner.
    fn max_pool_gradient<T: Number>(
        &self,
        w: &Windows,
        dy: Self::View<'_, T>,
        winners: Self::View<'_, u32>,
        dx: Self::ViewMut<'_, T>,
    );

    /// The mean of each window.
    fn mean_pool<T: Number>(&self, w: &Windows, x: Self::View<'_, T>, y: Self::ViewMut<'_, T>);

    /// The gradient dx of [`mean_pool`](Device::mean_pool).
    fn mean_pool_gradient<T: Number>(&self, w: &Windows, dy: Self::View<'_, T>, dx: Self::ViewMut<'_, T>);

    /// The mean of each of `c` channels over the `pixels` pixels of each image.
    fn global_mean<T: Number>(&self, x: Self::View<'_, T>, pixels: usize, c: usize, y: Self::ViewMut<'_, T>);

    /// The gradient dx of [`global_mean`](Device::global_mean).
    fn global_mean_gradient<T: Number>(&self, dy: Self::View<'_, T>, pixels: usize, c: usize, dx: Self::ViewMut<'_, T>);

    // Selective kernels: x has two streams of `f` channels side by side.

    /// The mean over each image of the sum of both streams.
    fn stream_mean<T: Number>(&self, x: Self::View<'_, T>, pixels: usize, f: usize, y: Self::ViewMut<'_, T>);

    /// The sum of the streams weighted by the softmax of `gate`, which has two logits for each channel of each image. `weight` is set to
    /// the first stream's weight.
    fn select<T: Number>(
        &self,
        x: Self::View<'_, T>,
        gate: Self::View<'_, T>,
        pixels: usize,
        f: usize,
        y: Self::ViewMut<'_, T>,
        weight: Self::ViewMut<'_, T>,
    );

    /// The gradients of [`select`](Device::select): with respect to the streams, through the weighted sum only, and to the gate's logits.
    /// `from` is x, the first stream's weight, and dy.
    fn select_gradient<T: Number>(
        &self,
        from: [Self::View<'_, T>; 3],
        pixels: usize,
        f: usize,
        dx: Self::ViewMut<'_, T>,
        dgate: Self::ViewMut<'_, T>,
    );

    /// The gradient dx of [`stream_mean`](Device::stream_mean), added to dx in place.
    fn stream_mean_gradient<T: Number>(&self, dy: Self::View<'_, T>, pixels: usize, f: usize, dx: Self::ViewMut<'_, T>);

    // Texts: rows of tokens of their own lengths.

    /// Normalises each row of as many channels as γ has; `statistics` is set to the mean and 1/√(variance + ε) of each row.
    fn layer_norm<T: Number>(
        &self,
        x: Self::View<'_, T>,
        gamma: Self::View<'_, T::Real>,
        beta: Self::View<'_, T::Real>,
        epsilon: f64,
        y: Self::ViewMut<'_, T>,
        statistics: Self::ViewMut<'_, T::Real>,
    );

    /// The gradient dx of [`layer_norm`](Device::layer_norm); returns dγ and dβ.
    fn layer_norm_gradient<T: Number>(
        &self,
        x: Self::View<'_, T>,
        statistics: Self::View<'_, T::Real>,
        gamma: Self::View<'_, T::Real>,
        dy: Self::View<'_, T>,
        dx: Self::ViewMut<'_, T>,
    ) -> [Self::Vector<T::Real>; 2];

    /// Attention: computes y, (tokens, width), from queries, keys and values, (tokens, 3·width), and for each token and head log Σ exp s.
    fn attention<T: Number>(
        &self,
        of: &Attention,
        x: Self::View<'_, T>,
        y: Self::ViewMut<'_, T>,
        sums: Self::ViewMut<'_, T::Real>,
    );

    /// The gradient dx of [`attention`](Device::attention). `from` is x, y and dy.
    fn attention_gradient<T: Number>(
        &self,
        of: &Attention,
        from: [Self::View<'_, T>; 3],
        sums: Self::View<'_, T::Real>,
        dx: Self::ViewMut<'_, T>,
    );

    /// The mean of each text's rows of `c` channels, which lie between two offsets; an empty text has zeros.
    fn means<T: Number>(&self, x: Self::View<'_, T>, offsets: Self::View<'_, u32>, c: usize, y: Self::ViewMut<'_, T>);

    /// The gradient dx of [`means`](Device::means).
    fn means_gradient<T: Number>(&self, dy: Self::View<'_, T>, offsets: Self::View<'_, u32>, c: usize, dx: Self::ViewMut<'_, T>);

    /// The rows of numbers `at`, which are different.
    fn pick<T: Number>(&self, x: Self::View<'_, T>, at: Self::View<'_, u32>, c: usize, y: Self::ViewMut<'_, T>);

    /// The gradient dx of [`pick`](Device::pick).
    fn pick_gradient<T: Number>(&self, dy: Self::View<'_, T>, at: Self::View<'_, u32>, c: usize, dx: Self::ViewMut<'_, T>);

    // Embedding tables.

    /// Rows `ids` of a table with rows of `width` values; every id must exist.
    fn gather<T: Number>(&self, table: Self::View<'_, T::Real>, width: usize, ids: Self::View<'_, u32>, y: Self::ViewMut<'_, T>);

    /// The sum of each group of rows, as in [`Groups`](crate::Groups), added in the group's order: the gradient of looked-up rows of a
    /// table.
    fn sum_groups<T: Number>(
        &self,
        dy: Self::View<'_, T>,
        width: usize,
        order: Self::View<'_, u32>,
        starts: Self::View<'_, u32>,
    ) -> Self::Vector<T::Real>;

    /// The mean of the rows `ids` of each text, which lie between two offsets: [`gather`](Device::gather) and [`means`](Device::means) in
    /// one, with the same bits.
    fn gather_means<T: Number>(
        &self,
        table: Self::View<'_, T::Real>,
        width: usize,
        ids: Self::View<'_, u32>,
        offsets: Self::View<'_, u32>,
        y: Self::ViewMut<'_, T>,
    );

    /// The gradient of the rows that [`gather_means`](Device::gather_means) looked up: [`means_gradient`](Device::means_gradient) and
    /// [`sum_groups`](Device::sum_groups) in one, with the same bits.
    fn sum_shares<T: Number>(
        &self,
        dy: Self::View<'_, T>,
        width: usize,
        offsets: Self::View<'_, u32>,
        order: Self::View<'_, u32>,
        starts: Self::View<'_, u32>,
    ) -> Self::Vector<T::Real>;

    // Operations of losses and optimizers.

    /// d ← d·`factors[0]` + x·`factors[1]` + y·`factors[2]`, in place, computed in f64.
    fn linear<R: Real>(&self, factors: [f64; 3], d: Self::ViewMut<'_, R>, x: Self::View<'_, R>, y: Self::View<'_, R>);

    /// Takes a step of an optimizer for each of some parameters, in place.
    fn steps<R: Real>(&self, all: Vec<Change<'_, Self, R>>);

    /// √Σx² of each of some arrays, summed in f64.
    fn norms<R: Real>(&self, all: &[Self::View<'_, R>]) -> Vec<f64>;
}
