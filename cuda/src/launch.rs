//! A CUDA device, and how its operations launch kernels and call products.
//!
//! A call that fails unwinds with its [`Fault`]: operations of layers have no errors. [`caught`] turns it into a result, at the end of a step
//! or wherever work begins.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ctk_kernels::{Device as _, Element as _, Geometry, Kind, Number, Plain, Read, Real, Windows};

use crate::calls::{Argument, Calls, Convolution, Fault, MatrixProduct, Product, Rules, THREADS};
use crate::memory::{Block, Memory, Times, View, ViewMut};

/// Channels that a block of a reduction sums, as in `norm.cu`.
pub(crate) const CHANNELS: usize = 32;
/// The largest number of chunks that the first stage of a reduction makes.
const CHUNKS: usize = 1024;
/// Rows of a chunk at least: 8 threads with 32 rows each.
const ROWS: usize = 256;
/// Values for each thread of an elementwise kernel.
const EACH: usize = 4;

/// A CUDA device, or the emulated one. Clones share memory and calls.
#[derive(Clone)]
pub struct Cuda {
    pub(crate) memory: Arc<Memory>,
    rules: Rules,
}

/// A normalisation by given statistics.
pub struct Normal<R> {
    pub(crate) mean: Block<R>,
    pub(crate) scale: Block<R>,
    pub(crate) shift: Block<R>,
    pub(crate) inverse: Block<f64>,
    pub(crate) relu: bool,
}

/// Moments of chunks of rows: for each chunk means and sums of squared deviations of `c` channels.
pub struct Moments {
    pub(crate) parts: Block<f64>,
    pub(crate) rows: usize,
    pub(crate) chunk: usize,
}

/// Runs `work`; a call of the device that fails ends it.
///
/// # Errors
/// The fault. Other panics go on.
pub fn caught<R>(work: impl FnOnce() -> R) -> Result<R, Fault> {
    catch_unwind(AssertUnwindSafe(work)).or_else(|panic| match panic.downcast::<Fault>() {
        Ok(fault) => Err(*fault),
        Err(other) => resume_unwind(other),
    })
}

/// The value, or the end of the work that [`caught`] began.
pub(crate) fn ok<T>(result: Result<T, Fault>) -> T {
    // Without a message: whoever catches it says it.
    result.unwrap_or_else(|fault| resume_unwind(Box::new(fault)))
}

pub(crate) fn int(n: usize) -> Argument {
    Argument::Int(i32::try_from(n).unwrap_or_else(|_| too_long(n)))
}

/// The length of an array, which kernels count in 32 bits.
pub(crate) fn count(n: usize) -> Argument {
    Argument::Word(counted(n))
}

/// A length in the 32 bits in which kernels count; a longer array ends the work.
pub(crate) fn counted(n: usize) -> u32 {
    if n >= 1 << 31 {
        too_long(n)
    }
    n as u32
}

fn too_long(n: usize) -> ! {
    let said = format!("{n} values are too many for it: smaller parts of a batch (train.part) make arrays shorter");
    resume_unwind(Box::new(Fault::Call { call: "an array of the device".to_string(), said }))
}

pub(crate) fn at<T>(view: View<T>) -> Argument {
    Argument::Address(view.at)
}

pub(crate) fn to<T>(view: &ViewMut<T>) -> Argument {
    Argument::Address(view.at)
}

/// `name_f32`, `name_f64`, `name_bf16`.
pub(crate) fn named(name: &str, kind: Kind) -> String {
    let kind = match kind {
        Kind::F32 => "f32",
        Kind::F64 => "f64",
        Kind::Bf16 => "bf16",
    };
    format!("{name}_{kind}")
}

pub(crate) fn windows(w: &Windows) -> Argument {
    let of = [w.h, w.w, w.c, w.oh, w.ow, w.kernel, w.stride, w.top, w.left, usize::from(w.count_outside)];
    Argument::Windows(of.map(|n| i32::try_from(n).expect("a window's shape")))
}

/// The rows of a chunk; it depends on the shape alone.
pub(crate) fn chunk(rows: usize) -> usize {
    rows.div_ceil(CHUNKS).max(ROWS).next_multiple_of(ROWS)
}

impl Cuda {
    /// The device of these calls. Its products are the fastest: f32 is multiplied as TF32, by any algorithm.
    pub fn new(calls: impl Calls) -> Cuda {
        Cuda { memory: Arc::new(Memory::new(Box::new(calls))), rules: Rules::default() }
    }

    /// The same device, with the same memory, whose products follow `rules`.
    pub fn by(&self, rules: Rules) -> Cuda {
        Cuda { memory: self.memory.clone(), rules }
    }

    /// The rules that its products follow.
    pub fn rules(&self) -> Rules {
        self.rules
    }

    /// Waits until everything that was asked for is done.
    ///
    /// # Errors
    /// The device failed, now or earlier.
    pub fn wait(&self) -> Result<(), Fault> {
        self.memory.calls.wait()
    }

    /// Runs `work` with every call timed by the device: how often each was made, and how long it took. A call that waits for the host or for
    /// an upload has that time, too.
    ///
    /// # Errors
    /// The device failed.
    pub fn timed<R>(&self, work: impl FnOnce() -> R) -> Result<(R, Times), Fault> {
        // Also where `work` ends by a fault.
        struct Timing<'a>(&'a Memory);
        impl Drop for Timing<'_> {
            fn drop(&mut self) {
                self.0.timed.store(false, Ordering::Relaxed);
            }
        }
        self.memory.times()?;
        self.memory.timed.store(true, Ordering::Relaxed);
        let timing = Timing(&self.memory);
        let done = work();
        drop(timing);
        Ok((done, self.memory.times()?))
    }

    /// Bytes that were copied from the device to the host so far.
    pub fn read_back(&self) -> u64 {
        self.memory.read.load(Ordering::Relaxed)
    }

    /// The bytes of its memory that are free, those that it keeps for use again among them.
    ///
    /// # Errors
    /// The device failed.
    pub fn free_memory(&self) -> Result<u64, Fault> {
        self.release();
        Ok(self.memory.calls.memory()?[0] as u64)
    }

    /// The most bytes that were in use or kept for use at once.
    pub fn most_memory(&self) -> u64 {
        self.memory.most.load(Ordering::Relaxed)
    }

    /// Returns the memory that is kept for use again.
    pub fn release(&self) {
        self.memory.release();
    }

    pub(crate) fn block<T: Plain>(&self, len: usize) -> Block<T> {
        ok(Block::new(len, &self.memory))
    }

    pub(crate) fn uploaded<T: Plain>(&self, from: &[T]) -> Block<T> {
        let mut block = self.block(from.len());
        self.upload(from, block.view_mut());
        block
    }

    /// A kernel over `n` values.
    pub(crate) fn each(&self, kernel: &str, n: usize, arguments: &[Argument]) {
        let blocks = n.div_ceil(THREADS as usize * EACH).min(1 << 20);
        self.launch(kernel, [blocks, 1], arguments);
    }

    pub(crate) fn launch(&self, kernel: &str, [x, y]: [usize; 2], arguments: &[Argument]) {
        if x * y == 0 {
            return;
        }
        assert!(y < 1 << 16, "{kernel}: a grid has up to 65,535 rows, not {y}");
        ok(self.memory.call(|| kernel.to_string(), |calls| calls.launch(kernel, [x as u32, y as u32], arguments)));
    }

    /// Runs both stages of a reduction of `rows` rows of `c` channels to `width` sums of each channel.
    pub(crate) fn reduced(
        &self,
        kernel: &str,
        rows: usize,
        c: usize,
        width: usize,
        before: &[Argument],
        after: &[Argument],
    ) -> Block<f64> {
        let (parts, chunks) = self.parts(kernel, rows, c, width, before, after);
        let mut sums = self.block::<f64>(width * c);
        let arguments = [at(parts.view()), int(chunks), int(width * c), to(&sums.view_mut())];
        self.launch("sum_parts", [(width * c).div_ceil(CHANNELS), 1], &arguments);
        sums
    }

    pub(crate) fn parts(
        &self,
        kernel: &str,
        rows: usize,
        c: usize,
        width: usize,
        before: &[Argument],
        after: &[Argument],
    ) -> (Block<f64>, usize) {
        let chunks = rows.div_ceil(chunk(rows));
        let mut parts = self.block::<f64>(chunks * width * c);
        let own = [to(&parts.view_mut()), count(rows), int(c), int(chunk(rows))];
        self.launch(kernel, [c.div_ceil(CHANNELS), chunks], &[before, &own, after].concat());
        (parts, chunks)
    }

    /// A normalisation's arguments: null pointers if there is none.
    pub(crate) fn normal<R: Real>(affine: Option<&Normal<R>>) -> [Argument; 4] {
        match affine {
            Some(n) => [at(n.mean.view()), at(n.scale.view()), at(n.shift.view()), Argument::Int(i32::from(n.relu))],
            None => [Argument::Address(0), Argument::Address(0), Argument::Address(0), Argument::Int(0)],
        }
    }

    /// x after its normalisation, if it has one.
    pub(crate) fn normalised<T: Number>(&self, x: Read<Self, T>) -> Option<Block<T>> {
        let affine = x.1?;
        let mut y = self.block::<T>(x.0.len);
        self.normalise(affine, x.0, y.view_mut());
        Some(y)
    }

    /// The weight in the layout and type of maps; none where it has these already.
    pub(crate) fn packed<T: Number>(&self, g: &Geometry, weight: View<T::Real>) -> Option<Block<T>> {
        let area = g.kernel * g.kernel;
        if area == 1 && T::KIND == T::Real::KIND {
            return None;
        }
        let n = g.o * g.c * area;
        let mut packed = self.block::<T>(n);
        let arguments = [at(weight), to(&packed.view_mut()), count(n), int(g.c), int(area)];
        self.each(&named("pack_weight", T::KIND), n, &arguments);
        Some(packed)
    }

    fn convolution<T: Number>(&self, g: &Geometry) -> Convolution {
        Convolution { geometry: *g, kind: T::KIND, rules: self.rules }
    }

    /// A product of a convolution; of 1 × 1 pixels, a product of matrices. `to` is of the type `kind`, which only a matrix may choose.
    pub(crate) fn product<T: Number>(&self, what: Product, g: &Geometry, from: [u64; 2], beta: f64, result: u64) {
        let of = self.convolution::<T>(g);
        if is_matrix(g) {
            let rows = g.rows();
            let (shape, turned) = match what {
                Product::Output => ([rows, g.o, g.c], [false, true]),
                Product::Input => ([rows, g.c, g.o], [false, false]),
                // From dy and x.
                Product::Weight => ([g.o, g.c, rows], [true, false]),
            };
            let from = if what == Product::Weight { [from[1], from[0]] } else { from };
            let to = if what == Product::Weight { T::Real::KIND } else { T::KIND };
            let product = MatrixProduct { shape, turned, kind: T::KIND, to, beta, rules: self.rules };
            let name = || format!("product of matrices {:?}", T::KIND).to_lowercase();
            return ok(self.memory.call(name, |calls| calls.multiply(&product, from, result)));
        }
        let name = || format!("convolution {what:?} {:?}", T::KIND).to_lowercase();
        loop {
            let bytes = ok(self.memory.calls.workspace(what, &of));
            let made = Block::<u8>::new(bytes, &self.memory).and_then(|workspace| {
                self.memory.call(name, |calls| calls.convolve(what, &of, from, beta, result, (workspace.at, bytes)))
            });
            match made {
                // Another algorithm may need less, or be supported.
                Err(Fault::Memory { .. } | Fault::Unsupported(_)) if self.memory.calls.reject(what, &of) => {}
                made => return ok(made),
            }
        }
    }
}

/// Whether a convolution is a product of matrices as its maps lie.
pub(crate) fn is_matrix(g: &Geometry) -> bool {
    g.kernel == 1 && g.stride == 1 && g.padding == 0
}
