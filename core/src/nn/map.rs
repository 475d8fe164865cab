//! Host buffers: feature maps, scratch, and the pool that keeps their memory warm.

use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};

use bytemuck::{Pod, Zeroable};
use candle_core::Tensor;
use rayon::prelude::*;

use super::cell::{Cell, Real};
use crate::error::Result;
use crate::nn::params::Param;

/// A cache line: what buffers are made of, whatever they hold, so that every kind of number begins on a line's border and one
/// pool serves all.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// Buffers that were used before. A fresh large allocation costs a page fault every 4 KB, which is more than most layers'
/// arithmetic; a step's maps have the same sizes as the last step's.
#[derive(Default)]
pub(crate) struct Pool {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    free: Vec<Vec<Line>>,
    input: [usize; 4],
}

impl Pool {
    /// Announces a pass over input of this shape. Buffers of another shape's passes would never fit: they are let go, so
    /// the pool holds no more than one pass needs.
    pub fn start(&self, input: [usize; 4]) {
        let mut state = self.lock();
        if state.input != input {
            state.input = input;
            state.free.clear();
        }
    }

    fn take(&self, len: usize) -> Vec<Line> {
        let mut state = self.lock();
        let fits = |v: &Vec<Line>| v.len() >= len && v.len() <= len + len / 4 + 64;
        let best = (0..state.free.len()).filter(|&i| fits(&state.free[i])).min_by_key(|&i| state.free[i].len());
        let found = best.map(|i| state.free.swap_remove(i));
        drop(state);
        found.unwrap_or_else(|| bytemuck::zeroed_vec(len))
    }

    fn put(&self, buffer: Vec<Line>) {
        if !buffer.is_empty() {
            self.lock().free.push(buffer);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `len` numbers of any value, from a pool and back to it.
pub(crate) struct Scratch<T> {
    lines: Vec<Line>,
    len: usize,
    pool: Arc<Pool>,
    kind: PhantomData<T>,
}

impl<T: Pod> Scratch<T> {
    /// Numbers to be written before they are read.
    pub fn new(len: usize, pool: &Arc<Pool>) -> Self {
        let lines = pool.take((len * size_of::<T>()).div_ceil(size_of::<Line>()));
        Scratch { lines, len, pool: pool.clone(), kind: PhantomData }
    }
}

impl<T: Pod> std::ops::Deref for Scratch<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &bytemuck::cast_slice(&self.lines)[..self.len]
    }
}

impl<T: Pod> std::ops::DerefMut for Scratch<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.len]
    }
}

impl<T> Drop for Scratch<T> {
    fn drop(&mut self) {
        self.pool.put(std::mem::take(&mut self.lines));
    }
}

/// Feature maps `(n, h, w, c)`, channels fastest; features have h = w = 1.
pub(crate) struct Map<T: Cell> {
    /// Images.
    pub n: usize,
    /// Height.
    pub h: usize,
    /// Width.
    pub w: usize,
    /// Channels.
    pub c: usize,
    buffer: Scratch<T>,
}

/// Numbers that a task of a conversion takes.
const BLOCK: usize = 1 << 16;

impl<T: Cell> Map<T> {
    /// Maps of any value, to be written whole.
    pub fn new([n, h, w, c]: [usize; 4], pool: &Arc<Pool>) -> Self {
        Map { n, h, w, c, buffer: Scratch::new(n * h * w * c, pool) }
    }

    /// A copy of a tensor, `(n, h, w, c)` or `(n, c)`.
    pub fn from_tensor(x: &Tensor, pool: &Arc<Pool>) -> Result<Self> {
        let shape = match *x.dims() {
            [n, c] => [n, 1, 1, c],
            _ => {
                let (n, h, w, c) = x.dims4()?;
                [n, h, w, c]
            }
        };
        let mut map = Map::<T>::new(shape, pool);
        read(x, |values: &[T::Real]| {
            let blocks = map.data_mut().par_chunks_mut(BLOCK).zip(values.par_chunks(BLOCK));
            blocks.for_each(|(to, from)| to.iter_mut().zip(from).for_each(|(to, &v)| *to = T::down(v)));
        })?;
        Ok(map)
    }

    /// The numbers, for a tensor.
    pub fn to_vec(&self) -> Vec<T::Real> {
        self.data().iter().map(|v| v.up()).collect()
    }

    /// The same map, to be changed in place: copied only if somebody else still holds it.
    pub fn own(shared: Arc<Self>) -> Self {
        Arc::try_unwrap(shared).unwrap_or_else(|shared| {
            let mut copy = Map::new(shared.shape(), shared.pool());
            copy.data_mut().copy_from_slice(shared.data());
            copy
        })
    }

    /// Dimensions.
    pub fn shape(&self) -> [usize; 4] {
        [self.n, self.h, self.w, self.c]
    }

    /// Pixels of all images.
    pub fn rows(&self) -> usize {
        self.n * self.h * self.w
    }

    /// The numbers.
    pub fn data(&self) -> &[T] {
        &self.buffer
    }

    /// The numbers, to be written.
    pub fn data_mut(&mut self) -> &mut [T] {
        &mut self.buffer
    }

    /// Where it came from.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.buffer.pool
    }
}

/// Shows a CPU tensor's numbers in order.
pub(crate) fn read<T: Real, R>(x: &Tensor, use_it: impl FnOnce(&[T]) -> R) -> Result<R> {
    let x = x.contiguous()?;
    let (storage, layout) = x.storage_and_layout();
    let candle_core::Storage::Cpu(storage) = &*storage else {
        return Err(crate::Error::new("the network's parameters and its input are on different devices"));
    };
    let values = T::cpu_storage_as_slice(storage)?;
    Ok(use_it(&values[layout.start_offset()..][..layout.shape().elem_count()]))
}

/// A parameter's numbers as they are stored.
pub(crate) fn values<T: Real>(param: &Param) -> Result<Vec<T>> {
    read(param.var().as_tensor(), |v: &[T]| v.to_vec()).map_err(|e| e.at(param.name()))
}
