//! An emulated device, for tests. Its memory is separate from the host's, so a layer that mixes up host and device does not compile. It
//! computes with the CPU's kernels on copies, so a network gives the same bits as on the CPU. It counts the blocks that are alive and the
//! bytes that pass between host and device, and fills new memory with NaN.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use ctk_kernels::{Cpu, Device, Dropout, Geometry, Identity, Momentum, Number, Plain, Read, Real, Update, Windows};

/// The device's memory: blocks of 64-bit words by handle.
#[derive(Default)]
struct Arena {
    blocks: Mutex<HashMap<u64, Vec<u64>>>,
    next: AtomicU64,
    passed: AtomicU64,
}

/// The device. Cloning shares its memory.
#[derive(Clone, Default)]
pub(crate) struct Emulated {
    arena: Arc<Arena>,
    cpu: Cpu,
}

/// A handle of memory that is freed when it is dropped.
pub(crate) struct Block<T> {
    handle: Handle<T>,
    arena: Arc<Arena>,
}

/// The handle of a block, and how many values of it are meant, from its beginning.
struct Handle<T> {
    id: u64,
    len: usize,
    kind: PhantomData<T>,
}

impl<T> Clone for Handle<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Handle<T> {}

impl<T> Drop for Block<T> {
    fn drop(&mut self) {
        self.arena.blocks.lock().unwrap().remove(&self.handle.id);
    }
}

/// Read access.
pub(crate) struct View<'a, T>(Handle<T>, PhantomData<&'a T>);

impl<T> Clone for View<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for View<'_, T> {}

/// Write access.
pub(crate) struct ViewMut<'a, T>(Handle<T>, PhantomData<&'a mut T>);

/// Results of the CPU's kernels, which only this device may read.
pub(crate) struct Opaque<T>(T);

impl Emulated {
    /// How many blocks are in use.
    pub fn blocks(&self) -> usize {
        self.arena.blocks.lock().unwrap().len()
    }

    fn get<T: Plain>(&self, view: View<T>) -> Vec<T> {
        let blocks = self.arena.blocks.lock().unwrap();
        bytemuck::cast_slice(&blocks[&view.0.id]).iter().take(view.0.len).copied().collect()
    }

    /// Changes values through a copy.
    fn put<T: Plain, Out>(&self, view: ViewMut<T>, change: impl FnOnce(&mut [T]) -> Out) -> Out {
        let mut copy = self.get(View(view.0, PhantomData));
        let out = change(&mut copy);
        let mut blocks = self.arena.blocks.lock().unwrap();
        let block = blocks.get_mut(&view.0.id).unwrap();
        bytemuck::cast_slice_mut(block)[..copy.len()].copy_from_slice(&copy);
        out
    }

    /// Bytes copied between host and device so far, in both directions.
    pub fn passed(&self) -> u64 {
        self.arena.passed.load(Ordering::Relaxed)
    }

    fn crossed<T>(&self, numbers: &[T]) {
        self.arena.passed.fetch_add(size_of_val(numbers) as u64, Ordering::Relaxed);
    }

    fn filled<T: Plain>(&self, from: &[T]) -> Block<T> {
        let mut block = self.new_block(from.len());
        self.put(self.view_mut(&mut block), |to| to.copy_from_slice(from));
        block
    }

    fn new_block<T: Plain>(&self, len: usize) -> Block<T> {
        let id = self.arena.next.fetch_add(1, Ordering::Relaxed);
        // Memory that was never written is NaN, so that reading it is noticed.
        let words = vec![u64::MAX; (len * size_of::<T>()).div_ceil(8)];
        self.arena.blocks.lock().unwrap().insert(id, words);
        Block { handle: Handle { id, len, kind: PhantomData }, arena: self.arena.clone() }
    }
}

/// A copy of a view, with its pending normalisation, as the CPU's kernels take them.
struct Local<'a, T: Number>(Vec<T>, Option<&'a <Cpu as Device>::Affine<T::Real>>);

impl<'a, T: Number> Local<'a, T> {
    fn new(device: &Emulated, (x, affine): Read<'a, Emulated, T>) -> Self {
        Local(device.get(x), affine.map(|affine| &affine.0))
    }

    fn read(&self) -> Read<'_, Cpu, T> {
        (&self.0, self.1)
    }
}

impl Device for Emulated {
    type Buffer<T: Plain> = Block<T>;
    type View<'a, T: Plain> = View<'a, T>;
    type ViewMut<'a, T: Plain> = ViewMut<'a, T>;
    type Vector<T: Plain> = Block<T>;
    type Affine<R: Real> = Opaque<<Cpu as Device>::Affine<R>>;
    type Moments = Opaque<<Cpu as Device>::Moments>;
    type Sums = Opaque<<Cpu as Device>::Sums>;

    fn name(&self) -> String {
        "emulated".into()
    }

    fn allocate<T: Plain>(&self, len: usize) -> Block<T> {
        self.new_block(len)
    }

    fn view<'a, T: Plain>(&self, buffer: &'a Block<T>) -> View<'a, T> {
        View(buffer.handle, PhantomData)
    }

    fn view_mut<'a, T: Plain>(&self, buffer: &'a mut Block<T>) -> ViewMut<'a, T> {
        ViewMut(buffer.handle, PhantomData)
    }

    fn upload<T: Plain>(&self, from: &[T], to: ViewMut<T>) {
        self.crossed(from);
        self.put(to, |to| to.copy_from_slice(from));
    }

    fn download<T: Plain>(&self, from: View<T>) -> Vec<T> {
        let numbers = self.get(from);
        self.crossed(&numbers);
        numbers
    }

    fn store<T: Number>(&self, from: &[T::Real], to: ViewMut<T>) {
        self.crossed(from);
        self.put(to, |to| self.cpu.store(from, to));
    }

    fn load<T: Number>(&self, from: View<T>) -> Vec<T::Real> {
        let numbers = self.cpu.load(&self.get(from)[..]);
        self.crossed(&numbers);
        numbers
    }

    fn vector<T: Plain>(&self, from: &[T]) -> Block<T> {
        self.crossed(from);
        self.filled(from)
    }

    fn zeros<T: Plain>(&self, len: usize) -> Block<T> {
        self.filled(&bytemuck::zeroed_vec::<T>(len))
    }

    fn read<'a, T: Plain>(&self, vector: &'a Block<T>) -> View<'a, T> {
        View(vector.handle, PhantomData)
    }

    fn write<'a, T: Plain>(&self, vector: &'a mut Block<T>) -> ViewMut<'a, T> {
        ViewMut(vector.handle, PhantomData)
    }

    fn host<T: Plain>(&self, vector: Block<T>) -> Vec<T> {
        self.download(self.read(&vector))
    }

    fn copy<T: Plain>(&self, from: View<T>, to: ViewMut<T>) {
        self.put(to, |to| to.copy_from_slice(&self.get(from)));
    }

    fn lend<T: Plain, Out>(&self, numbers: &[T], read: impl FnOnce(View<'_, T>) -> Out) -> Out {
        let mut block = self.new_block(numbers.len());
        self.upload(numbers, self.view_mut(&mut block));
        read(self.view(&block))
    }

    fn lend_mut<T: Plain, Out>(&self, numbers: &mut [T], change: impl FnOnce(ViewMut<'_, T>) -> Out) -> Out {
        let mut block = self.new_block(numbers.len());
        self.upload(numbers, self.view_mut(&mut block));
        let out = change(self.view_mut(&mut block));
        numbers.copy_from_slice(&self.download(self.view(&block)));
        out
    }

    fn normalises<T: Number>(&self, g: &Geometry) -> bool {
        self.cpu.normalises::<T>(g)
    }

    fn convolve<T: Number>(
        &self,
        g: &Geometry,
        x: Read<Self, T>,
        weight: View<T::Real>,
        y: ViewMut<T>,
        watch: bool,
    ) -> Option<Opaque<<Cpu as Device>::Moments>> {
        let (x, weight) = (Local::new(self, x), self.get(weight));
        self.put(y, |y| self.cpu.convolve(g, x.read(), &weight, y, watch)).map(Opaque)
    }

    fn input_gradient<T: Number>(
        &self,
        g: &Geometry,
        dy: View<T>,
        weight: View<T::Real>,
        dx: ViewMut<T>,
        beside: Option<View<T>>,
        before: Option<Read<Self, T>>,
    ) -> Option<Opaque<<Cpu as Device>::Sums>> {
        let (dy, weight, beside) = (self.get(dy), self.get(weight), beside.map(|beside| self.get(beside)));
        let before = before.map(|before| Local::new(self, before));
        let before = before.as_ref().map(Local::read);
        self.put(dx, |dx| self.cpu.input_gradient(g, &dy, &weight, dx, beside.as_deref(), before)).map(Opaque)
    }

    fn weight_gradient<T: Number>(&self, g: &Geometry, x: Read<Self, T>, dy: View<T>) -> Block<T::Real> {
        self.filled(&self.cpu.weight_gradient(g, Local::new(self, x).read(), &self.get(dy)))
    }

    fn add_bias<T: Number>(&self, y: ViewMut<T>, bias: View<T::Real>) {
        self.put(y, |y| self.cpu.add_bias(y, &self.get(bias)));
    }

    fn column_sums<T: Number>(&self, x: View<T>, c: usize) -> Block<T::Real> {
        self.filled(&self.cpu.column_sums(&self.get(x)[..], c))
    }

    fn moments<T: Number>(&self, x: View<T>, c: usize) -> Opaque<<Cpu as Device>::Moments> {
        Opaque(self.cpu.moments(&self.get(x)[..], c))
    }

    fn merge(&self, moments: Opaque<<Cpu as Device>::Moments>, c: usize) -> [Block<f64>; 2] {
        self.cpu.merge(moments.0, c).map(|vector| self.filled(&vector))
    }

    fn widen<R: Real>(&self, numbers: View<R>) -> Block<f64> {
        self.filled(&self.cpu.widen(&self.get(numbers)[..]))
    }

    fn affine<R: Real>(
        &self,
        statistics: [&Block<f64>; 2],
        gamma: View<R>,
        beta: Option<View<R>>,
        epsilon: f64,
        relu: bool,
    ) -> Opaque<<Cpu as Device>::Affine<R>> {
        let (gamma, beta) = (self.get(gamma), beta.map(|beta| self.get(beta)));
        let statistics = statistics.map(|vector| self.get(self.read(vector)));
        Opaque(self.cpu.affine(statistics.each_ref(), &gamma, beta.as_deref(), epsilon, relu))
    }

    fn follow<R: Real>(&self, running: ViewMut<R>, batch: &Block<f64>, factor: f64, share: f64) {
        self.put(running, |running| self.cpu.follow(running, &self.get(self.read(batch)), factor, share));
    }

    fn normalise<T: Number>(&self, affine: &Opaque<<Cpu as Device>::Affine<T::Real>>, x: View<T>, y: ViewMut<T>) {
        self.put(y, |y| self.cpu.normalise(&affine.0, &self.get(x)[..], y));
    }

    fn gradient_sums<T: Number>(
        &self,
        affine: &Opaque<<Cpu as Device>::Affine<T::Real>>,
        x: View<T>,
        dy: View<T>,
    ) -> Opaque<<Cpu as Device>::Sums> {
        Opaque(self.cpu.gradient_sums(&affine.0, &self.get(x)[..], &self.get(dy)))
    }

    fn affine_gradients<R: Real>(
        &self,
        affine: &Opaque<<Cpu as Device>::Affine<R>>,
        sums: &Opaque<<Cpu as Device>::Sums>,
    ) -> [Block<R>; 2] {
        self.cpu.affine_gradients(&affine.0, &sums.0).map(|vector| self.filled(&vector))
    }

    fn normalise_gradient<T: Number>(
        &self,
        affine: &Opaque<<Cpu as Device>::Affine<T::Real>>,
        sums: &Opaque<<Cpu as Device>::Sums>,
        rows: Option<usize>,
        x: View<T>,
        dy: Option<View<T>>,
        dx: ViewMut<T>,
    ) {
        let (x, dy) = (self.get(x), dy.map(|dy| self.get(dy)));
        self.put(dx, |dx| self.cpu.normalise_gradient(&affine.0, &sums.0, rows, &x, dy.as_deref(), dx));
    }

    fn relu<T: Number>(&self, x: ViewMut<T>) {
        self.put(x, |x| self.cpu.relu(x));
    }

    fn mask<T: Number>(&self, dy: ViewMut<T>, y: View<T>) {
        self.put(dy, |dy| self.cpu.mask(dy, &self.get(y)));
    }

    fn add<T: Number>(&self, x: ViewMut<T>, y: View<T>) {
        self.put(x, |x| self.cpu.add(x, &self.get(y)));
    }

    fn join<T: Number>(&self, a: Read<Self, T>, b: Read<Self, T>, c: usize, relu: bool, y: ViewMut<T>) {
        let (a, b) = (Local::new(self, a), Local::new(self, b));
        self.put(y, |y| self.cpu.join(a.read(), b.read(), c, relu, y));
    }

    fn masked_sums<T: Number>(
        &self,
        dy: ViewMut<T>,
        y: Option<View<T>>,
        c: usize,
        sides: [Read<Self, T>; 2],
    ) -> [Option<Opaque<<Cpu as Device>::Sums>>; 2] {
        let (y, [a, b]) = (y.map(|y| self.get(y)), sides.map(|side| Local::new(self, side)));
        let sums = self.put(dy, |dy| self.cpu.masked_sums(dy, y.as_deref(), c, [a.read(), b.read()]));
        sums.map(|sums| sums.map(Opaque))
    }

    fn dropout<T: Number>(&self, dropout: &Dropout, rows: Identity, each: usize, c: usize, x: ViewMut<T>) {
        self.put(x, |x| self.cpu.dropout(dropout, rows, each, c, x));
    }

    fn max_pool<T: Number>(&self, w: &Windows, x: View<T>, y: ViewMut<T>, winners: ViewMut<u32>) {
        self.put(y, |y| self.put(winners, |winners| self.cpu.max_pool(w, &self.get(x)[..], y, winners)));
    }

    fn max_pool_gradient<T: Number>(&self, w: &Windows, dy: View<T>, winners: View<u32>, dx: ViewMut<T>) {
        self.put(dx, |dx| self.cpu.max_pool_gradient(w, &self.get(dy)[..], &self.get(winners), dx));
    }

    fn mean_pool<T: Number>(&self, w: &Windows, x: View<T>, y: ViewMut<T>) {
        self.put(y, |y| self.cpu.mean_pool(w, &self.get(x)[..], y));
    }

    fn mean_pool_gradient<T: Number>(&self, w: &Windows, dy: View<T>, dx: ViewMut<T>) {
        self.put(dx, |dx| self.cpu.mean_pool_gradient(w, &self.get(dy)[..], dx));
    }

    fn global_mean<T: Number>(&self, x: View<T>, pixels: usize, c: usize, y: ViewMut<T>) {
        self.put(y, |y| self.cpu.global_mean(&self.get(x)[..], pixels, c, y));
    }

    fn global_mean_gradient<T: Number>(&self, dy: View<T>, pixels: usize, c: usize, dx: ViewMut<T>) {
        self.put(dx, |dx| self.cpu.global_mean_gradient(&self.get(dy)[..], pixels, c, dx));
    }

    fn stream_mean<T: Number>(&self, x: View<T>, pixels: usize, f: usize, y: ViewMut<T>) {
        self.put(y, |y| self.cpu.stream_mean(&self.get(x)[..], pixels, f, y));
    }

    fn select<T: Number>(&self, x: View<T>, gate: View<T>, pixels: usize, f: usize, y: ViewMut<T>, weight: ViewMut<T>) {
        let (x, gate) = (self.get(x), self.get(gate));
        self.put(y, |y| self.put(weight, |weight| self.cpu.select(&x[..], &gate, pixels, f, y, weight)));
    }

    fn select_gradient<T: Number>(&self, from: [View<T>; 3], pixels: usize, f: usize, dx: ViewMut<T>, dgate: ViewMut<T>) {
        let [x, weight, dy] = from.map(|view| self.get(view));
        self.put(dx, |dx| self.put(dgate, |dgate| self.cpu.select_gradient([&x[..], &weight, &dy], pixels, f, dx, dgate)));
    }

    fn stream_mean_gradient<T: Number>(&self, dy: View<T>, pixels: usize, f: usize, dx: ViewMut<T>) {
        self.put(dx, |dx| self.cpu.stream_mean_gradient(&self.get(dy)[..], pixels, f, dx));
    }

    fn gather<T: Number>(&self, table: View<T::Real>, width: usize, ids: View<u32>, y: ViewMut<T>) {
        self.put(y, |y| self.cpu.gather(&self.get(table), width, &self.get(ids), y));
    }

    fn sum_groups<T: Number>(&self, dy: View<T>, width: usize, order: View<u32>, starts: View<u32>) -> Block<T::Real> {
        self.filled(&self.cpu.sum_groups(&self.get(dy)[..], width, &self.get(order), &self.get(starts)))
    }

    fn update<R: Real>(&self, update: Update, d: ViewMut<R>, x: View<R>, y: View<R>) {
        self.put(d, |d| self.cpu.update(update, d, &self.get(x), &self.get(y)));
    }

    fn momentum<R: Real>(&self, step: Momentum, w: ViewMut<R>, v: ViewMut<R>, g: View<R>) {
        self.put(w, |w| self.put(v, |v| self.cpu.momentum(step, w, v, &self.get(g))));
    }

    fn norm<R: Real>(&self, x: View<R>, y: View<R>, scale: f64) -> f64 {
        self.cpu.norm(&self.get(x)[..], &self.get(y), scale)
    }

    fn compare<R: Real>(&self, rows: View<u32>, columns: View<u32>, values: [R; 2], to: ViewMut<R>) {
        self.put(to, |to| self.cpu.compare(&self.get(rows), &self.get(columns), values, to));
    }
}
