//! Implements [`Device`] for the CPU. Memory is host memory, with buffers from a pool; each operation calls a kernel of this crate.

use std::sync::Arc;

use crate::attention::Attention;
use crate::blocks::{self, BlockMoments, Sums};
use crate::buffer::{Buffer, BufferPool};
use crate::conv;
use crate::device::{Change, Device, Finish, Plain, Read};
use crate::dropout::{Dropout, Identity};
use crate::element::Real;
use crate::gelu::Gelu;
use crate::geometry::Geometry;
use crate::norm::{self, Affine};
use crate::number::Number;
use crate::pool::{self, Windows};
use crate::update;
use crate::{elementwise, layer_norm, table, texts};

/// The CPU. Clones share the pool.
#[derive(Clone, Default)]
pub struct Cpu {
    pool: Arc<BufferPool>,
}

impl Cpu {
    /// The pool of its buffers.
    pub fn pool(&self) -> &BufferPool {
        &self.pool
    }
}

impl Device for Cpu {
    type Buffer<T: Plain> = Buffer<T>;
    type View<'a, T: Plain> = &'a [T];
    type ViewMut<'a, T: Plain> = &'a mut [T];
    type Vector<T: Plain> = Vec<T>;
    type Affine<R: Real> = Affine<R>;
    type Moments = Vec<BlockMoments>;
    type Sums = Sums;

    fn name(&self) -> String {
        "cpu".into()
    }

    fn allocate<T: Plain>(&self, len: usize) -> Buffer<T> {
        Buffer::new(len, &self.pool)
    }

    fn view<'a, T: Plain>(&self, buffer: &'a Buffer<T>) -> &'a [T] {
        buffer
    }

    fn view_mut<'a, T: Plain>(&self, buffer: &'a mut Buffer<T>) -> &'a mut [T] {
        buffer
    }

    fn upload<T: Plain>(&self, from: &[T], to: &mut [T]) {
        to.copy_from_slice(from);
    }

    fn download<T: Plain>(&self, from: &[T]) -> Vec<T> {
        from.to_vec()
    }

    fn store<T: Number>(&self, from: &[T::Real], to: &mut [T]) {
        elementwise::store(from, to);
    }

    fn load<T: Number>(&self, from: &[T]) -> Vec<T::Real> {
        from.iter().map(|v| v.up()).collect()
    }

    fn vector<T: Plain>(&self, from: &[T]) -> Vec<T> {
        from.to_vec()
    }

    fn zeros<T: Plain>(&self, len: usize) -> Vec<T> {
        bytemuck::zeroed_vec(len)
    }

    fn read<'a, T: Plain>(&self, vector: &'a Vec<T>) -> &'a [T] {
        vector
    }

    fn write<'a, T: Plain>(&self, vector: &'a mut Vec<T>) -> &'a mut [T] {
        vector
    }

    fn host<T: Plain>(&self, vector: Vec<T>) -> Vec<T> {
        vector
    }

    fn copy<T: Plain>(&self, from: &[T], to: &mut [T]) {
        to.copy_from_slice(from);
    }

    fn lend<T: Plain, Out>(&self, numbers: &[T], read: impl FnOnce(&[T]) -> Out) -> Out {
        read(numbers)
    }

    fn lend_mut<T: Plain, Out>(&self, numbers: &mut [T], change: impl FnOnce(&mut [T]) -> Out) -> Out {
        change(numbers)
    }

    fn normalises<T: Number>(&self, g: &Geometry) -> bool {
        T::normalises(g)
    }

    fn convolve<T: Number>(
        &self,
        g: &Geometry,
        x: Read<Self, T>,
        weight: &[T::Real],
        y: &mut [T],
        watch: bool,
    ) -> Option<Vec<BlockMoments>> {
        T::convolve(g, x, weight, y, watch, &self.pool)
    }

    fn transform<T: Number>(
        &self,
        g: &Geometry,
        x: &[T],
        weight: &[T::Real],
        Finish { bias, gelu }: Finish<Self, T::Real>,
        before: Option<&mut [T]>,
        y: &mut [T],
    ) {
        T::transform(g, x, weight, conv::Finish { bias, gelu }, before, y, &self.pool);
    }

    fn input_gradient<T: Number>(
        &self,
        g: &Geometry,
        dy: &[T],
        weight: &[T::Real],
        dx: &mut [T],
        beside: Option<&[T]>,
        before: Option<Read<Self, T>>,
    ) -> Option<Sums> {
        let before = before.and_then(|(x, affine)| Some((x, affine?)));
        T::input_gradient(g, dy, weight, dx, beside, before, &self.pool)
    }

    fn weight_gradient<T: Number>(&self, g: &Geometry, x: Read<Self, T>, dy: &[T]) -> Vec<T::Real> {
        T::weight_gradient(g, x, dy, &self.pool)
    }

    fn add_bias<T: Number>(&self, y: &mut [T], bias: &[T::Real]) {
        elementwise::add_bias(y, bias);
    }

    fn column_sums<T: Number>(&self, x: &[T], c: usize) -> Vec<T::Real> {
        norm::column_sums(x, c).into_iter().map(T::Real::of).collect()
    }

    fn moments<T: Number>(&self, x: &[T], c: usize) -> Vec<BlockMoments> {
        norm::moments(x, c)
    }

    fn merge(&self, moments: Vec<BlockMoments>, c: usize) -> [Vec<f64>; 2] {
        blocks::merge(moments, c)
    }

    fn widen<R: Real>(&self, numbers: &[R]) -> Vec<f64> {
        numbers.iter().map(|v| v.wide()).collect()
    }

    fn affine<R: Real>(
        &self,
        [mean, variance]: [&Vec<f64>; 2],
        gamma: &[R],
        beta: Option<&[R]>,
        epsilon: f64,
        relu: bool,
    ) -> Affine<R> {
        Affine::new(mean, variance, gamma, beta, epsilon, relu)
    }

    fn follow<R: Real>(&self, running: &mut [R], batch: &Vec<f64>, factor: f64, share: f64) {
        norm::follow(running, batch, factor, share);
    }

    fn normalise<T: Number>(&self, affine: &Affine<T::Real>, x: &[T], y: &mut [T]) {
        affine.forward(x, y);
    }

    fn gradient_sums<T: Number>(&self, affine: &Affine<T::Real>, x: &[T], dy: &[T]) -> Sums {
        affine.sums(x, dy)
    }

    fn affine_gradients<R: Real>(&self, affine: &Affine<R>, sums: &Sums) -> [Vec<R>; 2] {
        affine.gradients(sums)
    }

    fn normalise_gradient<T: Number>(
        &self,
        affine: &Affine<T::Real>,
        sums: &Sums,
        rows: Option<usize>,
        x: &[T],
        dy: Option<&[T]>,
        dx: &mut [T],
    ) {
        affine.backward(sums, rows, x, dy, dx);
    }

    fn relu<T: Number>(&self, x: &mut [T]) {
        elementwise::relu(x);
    }

    fn gelu<T: Number>(&self, form: Gelu, x: &[T], y: &mut [T]) {
        form.forward(x, y);
    }

    fn gelu_gradient<T: Number>(&self, form: Gelu, x: &[T], dy: &mut [T]) {
        form.backward(x, dy);
    }

    fn mask<T: Number>(&self, dy: &mut [T], y: &[T]) {
        elementwise::mask(dy, y);
    }

    fn add<T: Number>(&self, x: &mut [T], y: &[T]) {
        elementwise::add(x, y);
    }

    fn join<T: Number>(&self, a: Read<Self, T>, b: Read<Self, T>, c: usize, relu: bool, y: &mut [T]) {
        norm::join(a, b, c, relu, y);
    }

    fn masked_sums<T: Number>(&self, dy: &mut [T], y: Option<&[T]>, c: usize, sides: [Read<Self, T>; 2]) -> [Option<Sums>; 2] {
        norm::masked_sums(dy, y, c, sides)
    }

    fn dropout<T: Number>(&self, dropout: &Dropout, rows: Identity, each: usize, c: usize, x: &mut [T]) {
        dropout.apply(rows, each, c, x);
    }

    fn max_pool<T: Number>(&self, w: &Windows, x: &[T], y: &mut [T], winners: &mut [u32]) {
        pool::max(w, x, y, winners);
    }

    fn max_pool_gradient<T: Number>(&self, w: &Windows, dy: &[T], winners: &[u32], dx: &mut [T]) {
        pool::max_gradient(w, dy, winners, dx);
    }

    fn mean_pool<T: Number>(&self, w: &Windows, x: &[T], y: &mut [T]) {
        pool::mean(w, x, y);
    }

    fn mean_pool_gradient<T: Number>(&self, w: &Windows, dy: &[T], dx: &mut [T]) {
        pool::mean_gradient(w, dy, dx);
    }

    fn global_mean<T: Number>(&self, x: &[T], pixels: usize, c: usize, y: &mut [T]) {
        pool::global_mean(x, pixels, c, y);
    }

    fn global_mean_gradient<T: Number>(&self, dy: &[T], pixels: usize, c: usize, dx: &mut [T]) {
        pool::global_mean_gradient(dy, pixels, c, dx);
    }

    fn stream_mean<T: Number>(&self, x: &[T], pixels: usize, f: usize, y: &mut [T]) {
        pool::stream_mean(x, pixels, f, y);
    }

    fn select<T: Number>(&self, x: &[T], gate: &[T], pixels: usize, f: usize, y: &mut [T], weight: &mut [T]) {
        pool::select(x, gate, pixels, f, y, weight);
    }

    fn select_gradient<T: Number>(&self, [x, weight, dy]: [&[T]; 3], pixels: usize, f: usize, dx: &mut [T], dgate: &mut [T]) {
        pool::select_gradient(x, weight, dy, pixels, f, dx, dgate);
    }

    fn stream_mean_gradient<T: Number>(&self, dy: &[T], pixels: usize, f: usize, dx: &mut [T]) {
        pool::add_stream_gradient(dy, pixels, f, dx);
    }

    fn layer_norm<T: Number>(
        &self,
        x: &[T],
        gamma: &[T::Real],
        beta: &[T::Real],
        epsilon: f64,
        y: &mut [T],
        statistics: &mut [T::Real],
    ) {
        layer_norm::forward(x, gamma, beta, epsilon, y, statistics);
    }

    fn layer_norm_gradient<T: Number>(
        &self,
        x: &[T],
        statistics: &[T::Real],
        gamma: &[T::Real],
        dy: &[T],
        dx: &mut [T],
    ) -> [Vec<T::Real>; 2] {
        layer_norm::backward(x, statistics, gamma, dy, dx)
    }

    fn attention<T: Number>(&self, of: &Attention, x: &[T], y: &mut [T], sums: &mut [T::Real]) {
        T::attention(of, x, y, sums);
    }

    fn attention_gradient<T: Number>(&self, of: &Attention, from: [&[T]; 3], sums: &[T::Real], dx: &mut [T]) {
        T::attention_gradient(of, from, sums, dx);
    }

    fn means<T: Number>(&self, x: &[T], offsets: &[u32], c: usize, y: &mut [T]) {
        texts::means(x, offsets, c, y);
    }

    fn means_gradient<T: Number>(&self, dy: &[T], offsets: &[u32], c: usize, dx: &mut [T]) {
        texts::means_gradient(dy, offsets, c, dx);
    }

    fn pick<T: Number>(&self, x: &[T], at: &[u32], c: usize, y: &mut [T]) {
        texts::pick(x, at, c, y);
    }

    fn pick_gradient<T: Number>(&self, dy: &[T], at: &[u32], c: usize, dx: &mut [T]) {
        texts::pick_gradient(dy, at, c, dx);
    }

    fn gather<T: Number>(&self, table: &[T::Real], width: usize, ids: &[u32], y: &mut [T]) {
        table::gather(table, width, ids, y);
    }

    fn gather_means<T: Number>(&self, table: &[T::Real], width: usize, ids: &[u32], offsets: &[u32], y: &mut [T]) {
        table::gather_means(table, width, ids, offsets, y);
    }

    fn sum_shares<T: Number>(&self, dy: &[T], width: usize, offsets: &[u32], order: &[u32], starts: &[u32]) -> Vec<T::Real> {
        table::sum_shares(dy, width, offsets, order, starts)
    }

    fn sum_groups<T: Number>(&self, dy: &[T], width: usize, order: &[u32], starts: &[u32]) -> Vec<T::Real> {
        table::sum_groups(dy, width, order, starts)
    }

    fn linear<R: Real>(&self, factors: [f64; 3], d: &mut [R], x: &[R], y: &[R]) {
        update::linear(factors, d, x, y);
    }

    fn steps<R: Real>(&self, all: Vec<Change<'_, Self, R>>) {
        for Change { step, w, mut state, g, scale } in all {
            update::step(&step, w, &mut state, g, scale);
        }
    }

    fn norms<R: Real>(&self, all: &[&[R]]) -> Vec<f64> {
        all.iter().map(|x| elementwise::squares(x, x, 0.0).sqrt()).collect()
    }
}
