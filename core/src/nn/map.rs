//! Host buffers: numbers, feature maps, and the pool that keeps their memory warm.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{Tensor, WithDType};
use num_traits::Float;

use crate::error::Result;
use crate::params::Param;

/// What the kernels compute in: f32, or f64 for oracles.
pub(crate) trait Real: Float + WithDType + std::ops::AddAssign + std::ops::MulAssign + Send + Sync + 'static {
    /// From a statistic.
    fn of(v: f64) -> Self;
    /// To a statistic.
    fn wide(self) -> f64;
    /// The numbers, if they are f32: what the fast kernels are written for.
    fn f32s(_: &[Self]) -> Option<&[f32]> {
        None
    }
    /// As [`f32s`](Real::f32s), to be written.
    fn f32s_mut(_: &mut [Self]) -> Option<&mut [f32]> {
        None
    }
    /// Numbers in f32 as numbers of this type, if it is f32.
    fn from_f32s(_: Vec<f32>) -> Option<Vec<Self>> {
        None
    }
    /// The pool, if it is one of f32.
    fn pool32(_: &Arc<Pool<Self>>) -> Option<&Arc<Pool<f32>>> {
        None
    }
}

impl Real for f32 {
    fn of(v: f64) -> Self {
        v as f32
    }

    fn wide(self) -> f64 {
        f64::from(self)
    }

    fn f32s(x: &[f32]) -> Option<&[f32]> {
        Some(x)
    }

    fn f32s_mut(x: &mut [f32]) -> Option<&mut [f32]> {
        Some(x)
    }

    fn from_f32s(x: Vec<f32>) -> Option<Vec<f32>> {
        Some(x)
    }

    fn pool32(pool: &Arc<Pool<f32>>) -> Option<&Arc<Pool<f32>>> {
        Some(pool)
    }
}

impl Real for f64 {
    fn of(v: f64) -> Self {
        v
    }

    fn wide(self) -> f64 {
        self
    }
}

/// Buffers that were used before. A fresh large allocation costs a page fault every 4 KB, which is more than most layers'
/// arithmetic; a step's maps have the same sizes as the last step's.
pub(crate) struct Pool<T> {
    state: Mutex<State<T>>,
}

struct State<T> {
    free: Vec<Vec<T>>,
    input: [usize; 4],
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Pool { state: Mutex::new(State { free: Vec::new(), input: [0; 4] }) }
    }
}

impl<T: Real> Pool<T> {
    /// Announces a pass over input of this shape. Buffers of another shape's passes would never fit: they are let go, so
    /// the pool holds no more than one pass needs.
    pub fn start(&self, input: [usize; 4]) {
        let mut state = self.lock();
        if state.input != input {
            state.input = input;
            state.free.clear();
        }
    }

    /// A buffer of at least `len` numbers of any value.
    pub fn take(&self, len: usize) -> Vec<T> {
        let mut state = self.lock();
        let fits = |v: &Vec<T>| v.len() >= len && v.len() <= len + len / 4 + 64;
        let best = (0..state.free.len()).filter(|&i| fits(&state.free[i])).min_by_key(|&i| state.free[i].len());
        let found = best.map(|i| state.free.swap_remove(i));
        drop(state);
        found.unwrap_or_else(|| vec![<T as num_traits::Zero>::zero(); len])
    }

    /// Gives a buffer back.
    pub fn put(&self, buffer: Vec<T>) {
        if !buffer.is_empty() {
            self.lock().free.push(buffer);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Numbers of any value for a kernel's own use, on a cache line's border, from a pool and back to it.
pub(crate) struct Scratch<T: Real> {
    buffer: Vec<T>,
    from: usize,
    len: usize,
    pool: Arc<Pool<T>>,
}

impl<T: Real> Scratch<T> {
    /// `len` numbers.
    pub fn new(len: usize, pool: &Arc<Pool<T>>) -> Self {
        let line = 64 / size_of::<T>();
        let buffer = pool.take(len + line);
        let from = buffer.as_ptr().align_offset(64).min(line);
        Scratch { buffer, from, len, pool: pool.clone() }
    }
}

impl<T: Real> std::ops::Deref for Scratch<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.buffer[self.from..][..self.len]
    }
}

impl<T: Real> std::ops::DerefMut for Scratch<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.buffer[self.from..][..self.len]
    }
}

impl<T: Real> Drop for Scratch<T> {
    fn drop(&mut self) {
        self.pool.put(std::mem::take(&mut self.buffer));
    }
}

/// Feature maps `(n, h, w, c)`, channels fastest; features have h = w = 1.
pub(crate) struct Map<T: Real> {
    /// Images.
    pub n: usize,
    /// Height.
    pub h: usize,
    /// Width.
    pub w: usize,
    /// Channels.
    pub c: usize,
    buffer: Vec<T>,
    pool: Arc<Pool<T>>,
}

impl<T: Real> Map<T> {
    /// Maps of any value, to be written whole.
    pub fn new([n, h, w, c]: [usize; 4], pool: &Arc<Pool<T>>) -> Self {
        Map { n, h, w, c, buffer: pool.take(n * h * w * c), pool: pool.clone() }
    }

    /// A copy of a tensor, `(n, h, w, c)` or `(n, c)`.
    pub fn from_tensor(x: &Tensor, pool: &Arc<Pool<T>>) -> Result<Self> {
        let shape = match *x.dims() {
            [n, c] => [n, 1, 1, c],
            _ => {
                let (n, h, w, c) = x.dims4()?;
                [n, h, w, c]
            }
        };
        let mut map = Map::new(shape, pool);
        read(x, |values| map.data_mut().copy_from_slice(values))?;
        Ok(map)
    }

    /// The same map, to be changed in place: copied only if somebody else still holds it.
    pub fn own(shared: Arc<Self>) -> Self {
        Arc::try_unwrap(shared).unwrap_or_else(|shared| {
            let mut copy = Map::new(shared.shape(), &shared.pool);
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

    fn len(&self) -> usize {
        self.rows() * self.c
    }

    /// The numbers.
    pub fn data(&self) -> &[T] {
        &self.buffer[..self.len()]
    }

    /// The numbers, to be written.
    pub fn data_mut(&mut self) -> &mut [T] {
        let len = self.len();
        &mut self.buffer[..len]
    }

    /// Where it came from.
    pub fn pool(&self) -> &Arc<Pool<T>> {
        &self.pool
    }
}

impl<T: Real> Drop for Map<T> {
    fn drop(&mut self) {
        self.pool.put(std::mem::take(&mut self.buffer));
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
