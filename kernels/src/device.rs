//! The seam between layers and what they run on: memory, and what layers do to it.
//!
//! A device is a type, so that layers are compiled for it and nothing is looked up while they run. Its memory is its own: layers hold
//! buffers and show parts of them to operations, and numbers pass to the host and back by [`upload`](Device::upload) and
//! [`download`](Device::download) alone. Maps are rows of channels, `(n, h, w, c)` with the channels fastest; weights keep PyTorch's
//! layouts. Operations give the same bits however many threads a device has.

use bytemuck::Pod;

use crate::dropout::{Dropout, Identity};
use crate::element::{Element, Real};
use crate::geometry::Geometry;
use crate::number::Number;
use crate::pool::Windows;
use crate::update::{Momentum, Update};

/// What can lie in a device's memory: plain numbers.
pub trait Plain: Pod + Send + Sync {}

impl<T: Pod + Send + Sync> Plain for T {}

/// A map's numbers and a normalisation that is still to be done to them.
pub type Read<'a, D, T> = (<D as Device>::View<'a, T>, Option<&'a <D as Device>::Affine<<T as Element>::Real>>);

/// Memory, and the layers' operations over it. What an operation writes is written whole, unless it says "in place".
pub trait Device: Clone + Send + Sync + 'static {
    /// Numbers in the device's memory, which is used again when they are dropped: maps, and what layers keep.
    type Buffer<T: Plain>: Send + Sync + 'static;

    /// A buffer's numbers, to be read.
    type View<'a, T: Plain>: Copy + Send + Sync;

    /// A buffer's numbers, to be written.
    type ViewMut<'a, T: Plain>: Send;

    /// Numbers that outlive a pass: parameters, their gradients, what optimizers remember, statistics.
    type Vector<T: Plain>: Send + Sync + 'static;

    /// A normalisation by known statistics, and perhaps a ReLU: y = (x − mean)·γ/√(variance + ε) + β per channel.
    type Affine<R: Real>: Send + Sync + 'static;

    /// Statistics of a map's blocks, not put together yet.
    type Moments: Send + Sync + 'static;

    /// Σ dy and Σ dy·(x − mean) per channel: what a normalisation's step back begins with.
    type Sums: Send + Sync + 'static;

    /// What the device is called, for messages.
    fn name(&self) -> String;

    // Memory.

    /// Room for so many numbers of any value, to be written before they are read.
    fn allocate<T: Plain>(&self, len: usize) -> Self::Buffer<T>;

    /// A buffer's numbers, to be read.
    fn view<'a, T: Plain>(&self, buffer: &'a Self::Buffer<T>) -> Self::View<'a, T>;

    /// A buffer's numbers, to be written.
    fn view_mut<'a, T: Plain>(&self, buffer: &'a mut Self::Buffer<T>) -> Self::ViewMut<'a, T>;

    /// The host's numbers to the device. Both are of one length, here and below.
    fn upload<T: Plain>(&self, from: &[T], to: Self::ViewMut<'_, T>);

    /// The device's numbers, on the host.
    fn download<T: Plain>(&self, from: Self::View<'_, T>) -> Vec<T>;

    /// The host's numbers to the device, stored as maps are.
    fn store<T: Number>(&self, from: &[T::Real], to: Self::ViewMut<'_, T>);

    /// A map's numbers as they are computed with, on the host.
    fn load<T: Number>(&self, from: Self::View<'_, T>) -> Vec<T::Real>;

    /// The host's numbers as a vector of the device.
    fn vector<T: Plain>(&self, from: &[T]) -> Self::Vector<T>;

    /// A vector of zeros.
    fn zeros<T: Plain>(&self, len: usize) -> Self::Vector<T>;

    /// A vector's numbers, to be read.
    fn read<'a, T: Plain>(&self, vector: &'a Self::Vector<T>) -> Self::View<'a, T>;

    /// A vector's numbers, to be written.
    fn write<'a, T: Plain>(&self, vector: &'a mut Self::Vector<T>) -> Self::ViewMut<'a, T>;

    /// A vector's numbers, on the host.
    fn host<T: Plain>(&self, vector: Self::Vector<T>) -> Vec<T>;

    /// Copies numbers.
    fn copy<T: Plain>(&self, from: Self::View<'_, T>, to: Self::ViewMut<'_, T>);

    /// Shows the device numbers that lie on the host: on the CPU as they lie there, elsewhere a copy.
    fn lend<T: Plain, Out>(&self, numbers: &[T], read: impl FnOnce(Self::View<'_, T>) -> Out) -> Out;

    /// The same, to be changed in place.
    fn lend_mut<T: Plain, Out>(&self, numbers: &mut [T], change: impl FnOnce(Self::ViewMut<'_, T>) -> Out) -> Out;

    // Convolutions; a matrix is one of 1 × 1 pixels.

    /// Whether this convolution can normalise its input as it reads it.
    fn normalises<T: Number>(&self, g: &Geometry) -> bool;

    /// Y from X, normalised on the way if it [can be](Device::normalises), and the weight (OIHW). With `watch`, the moments of Y's
    /// blocks, if they come cheaply.
    fn convolve<T: Number>(
        &self,
        g: &Geometry,
        x: Read<Self, T>,
        weight: Self::View<'_, T::Real>,
        y: Self::ViewMut<'_, T>,
        watch: bool,
    ) -> Option<Self::Moments>;

    /// dX from dY and the weight, plus what is `beside` it. If X came from a normalisation, of `before`, the sums that its step back
    /// begins with, if they come cheaply.
    fn input_gradient<T: Number>(
        &self,
        g: &Geometry,
        dy: Self::View<'_, T>,
        weight: Self::View<'_, T::Real>,
        dx: Self::ViewMut<'_, T>,
        beside: Option<Self::View<'_, T>>,
        before: Option<Read<Self, T>>,
    ) -> Option<Self::Sums>;

    /// dW in OIHW from X, normalised on the way if it [can be](Device::normalises), and dY.
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

    /// Parameters as statistics.
    fn widen<R: Real>(&self, numbers: Self::View<'_, R>) -> Self::Vector<f64>;

    /// A normalisation by `[mean, variance]`, γ, and β (0 if there is none), with or without a ReLU behind it.
    fn affine<R: Real>(
        &self,
        statistics: [&Self::Vector<f64>; 2],
        gamma: Self::View<'_, R>,
        beta: Option<Self::View<'_, R>>,
        epsilon: f64,
        relu: bool,
    ) -> Self::Affine<R>;

    /// Moves running statistics in place: (1 − share)·running + share·(batch·factor).
    fn follow<R: Real>(&self, running: Self::ViewMut<'_, R>, batch: &Self::Vector<f64>, factor: f64, share: f64);

    /// y of x.
    fn normalise<T: Number>(&self, affine: &Self::Affine<T::Real>, x: Self::View<'_, T>, y: Self::ViewMut<'_, T>);

    /// What a normalisation's step back begins with, dy masked by its ReLU.
    fn gradient_sums<T: Number>(&self, affine: &Self::Affine<T::Real>, x: Self::View<'_, T>, dy: Self::View<'_, T>)
    -> Self::Sums;

    /// dγ and dβ.
    fn affine_gradients<R: Real>(&self, affine: &Self::Affine<R>, sums: &Self::Sums) -> [Self::Vector<R>; 2];

    /// dx; where dy is not given, dx holds it. `rows` is how many rows the statistics were taken of; none if they were given.
    fn normalise_gradient<T: Number>(
        &self,
        affine: &Self::Affine<T::Real>,
        sums: &Self::Sums,
        rows: Option<usize>,
        x: Self::View<'_, T>,
        dy: Option<Self::View<'_, T>>,
        dx: Self::ViewMut<'_, T>,
    );

    // Number by number.

    /// x = max(x, 0) in place; not-a-number stays.
    fn relu<T: Number>(&self, x: Self::ViewMut<'_, T>);

    /// dy = 0 in place wherever y, the output of a ReLU, is 0.
    fn mask<T: Number>(&self, dy: Self::ViewMut<'_, T>, y: Self::View<'_, T>);

    /// x += y in place.
    fn add<T: Number>(&self, x: Self::ViewMut<'_, T>, y: Self::View<'_, T>);

    /// y = a + b over `c` channels, each perhaps normalised on the way, with or without a ReLU.
    fn join<T: Number>(&self, a: Read<Self, T>, b: Read<Self, T>, c: usize, relu: bool, y: Self::ViewMut<'_, T>);

    /// [`join`](Device::join)'s way back: dy is masked in place where y, the output of its ReLU if there was one, is 0, and the sums
    /// are taken for each side that ends in a normalisation.
    fn masked_sums<T: Number>(
        &self,
        dy: Self::ViewMut<'_, T>,
        y: Option<Self::View<'_, T>>,
        c: usize,
        sides: [Read<Self, T>; 2],
    ) -> [Option<Self::Sums>; 2];

    /// Drops numbers of x in place and scales the rest: forward, and backward for the gradient. Rows have `each` positions of `c`
    /// channels, or as many as their offsets say.
    fn dropout<T: Number>(&self, dropout: &Dropout, rows: Identity, each: usize, c: usize, x: Self::ViewMut<'_, T>);

    // Windows and whole images.

    /// The largest of each window, the first of equals, and which pixel of the image it is. Not-a-number wins.
    fn max_pool<T: Number>(&self, w: &Windows, x: Self::View<'_, T>, y: Self::ViewMut<'_, T>, winners: Self::ViewMut<'_, u32>);

    /// Each output's gradient goes to its winner.
    fn max_pool_gradient<T: Number>(
        &self,
        w: &Windows,
        dy: Self::View<'_, T>,
        winners: Self::View<'_, u32>,
        dx: Self::ViewMut<'_, T>,
    );

    /// The mean of each window.
    fn mean_pool<T: Number>(&self, w: &Windows, x: Self::View<'_, T>, y: Self::ViewMut<'_, T>);

    /// dx of [`mean_pool`](Device::mean_pool).
    fn mean_pool_gradient<T: Number>(&self, w: &Windows, dy: Self::View<'_, T>, dx: Self::ViewMut<'_, T>);

    /// The mean of each of `c` channels of each image of `pixels` pixels.
    fn global_mean<T: Number>(&self, x: Self::View<'_, T>, pixels: usize, c: usize, y: Self::ViewMut<'_, T>);

    /// dx of [`global_mean`](Device::global_mean).
    fn global_mean_gradient<T: Number>(&self, dy: Self::View<'_, T>, pixels: usize, c: usize, dx: Self::ViewMut<'_, T>);

    // Selective kernels: x holds two streams of `f` channels side by side.

    /// The mean over each image of the streams' sum.
    fn stream_mean<T: Number>(&self, x: Self::View<'_, T>, pixels: usize, f: usize, y: Self::ViewMut<'_, T>);

    /// The streams mixed by the softmax of `gate`, two logits a channel of each image. `weight` gets the first stream's share.
    fn select<T: Number>(
        &self,
        x: Self::View<'_, T>,
        gate: Self::View<'_, T>,
        pixels: usize,
        f: usize,
        y: Self::ViewMut<'_, T>,
        weight: Self::ViewMut<'_, T>,
    );

    /// Gradients of [`select`](Device::select): of the streams, through the mixture alone, and of the gate's logits. `from` is x,
    /// the first stream's share, and dy.
    fn select_gradient<T: Number>(
        &self,
        from: [Self::View<'_, T>; 3],
        pixels: usize,
        f: usize,
        dx: Self::ViewMut<'_, T>,
        dgate: Self::ViewMut<'_, T>,
    );

    /// dx of [`stream_mean`](Device::stream_mean), added to dx in place.
    fn stream_mean_gradient<T: Number>(&self, dy: Self::View<'_, T>, pixels: usize, f: usize, dx: Self::ViewMut<'_, T>);

    // Tables.

    /// Rows `ids` of a table of rows of `width` numbers; every id must be one of its rows.
    fn gather<T: Number>(&self, table: Self::View<'_, T::Real>, width: usize, ids: Self::View<'_, u32>, y: Self::ViewMut<'_, T>);

    /// For each group of rows, as [`Groups`](crate::Groups) has them, their sum in the group's order: the gradient of the rows of a
    /// table that were looked up.
    fn sum_groups<T: Number>(
        &self,
        dy: Self::View<'_, T>,
        width: usize,
        order: Self::View<'_, u32>,
        starts: Self::View<'_, u32>,
    ) -> Self::Vector<T::Real>;

    // What losses and optimizers need.

    /// New numbers for d, in place.
    fn update<R: Real>(&self, update: Update, d: Self::ViewMut<'_, R>, x: Self::View<'_, R>, y: Self::View<'_, R>);

    /// New weights w and velocities v, in place, by the gradient g.
    fn momentum<R: Real>(&self, step: Momentum, w: Self::ViewMut<'_, R>, v: Self::ViewMut<'_, R>, g: Self::View<'_, R>);

    /// √Σ(x + y·scale)², added in f64.
    fn norm<R: Real>(&self, x: Self::View<'_, R>, y: Self::View<'_, R>, scale: f64) -> f64;

    /// A matrix of a row for each of `rows` and a column for each of `columns`: the first of `values` where the two labels are the
    /// same, the second elsewhere.
    fn compare<R: Real>(&self, rows: Self::View<'_, u32>, columns: Self::View<'_, u32>, values: [R; 2], to: Self::ViewMut<'_, R>);
}
