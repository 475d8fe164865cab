//! The thin layer of calls below the device: memory, launches, and the products of the vendor's libraries. Everything above is the same
//! on a real device and on the emulated one.

use std::fmt;
use std::time::Duration;

use ctk_kernels::{Geometry, Kind};

/// An address in a device's memory.
pub type Address = u64;

/// A moment among a device's calls: see [`Calls::mark`].
pub type Mark = u64;

/// An argument of a kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Argument {
    /// An address; 0 is a null pointer.
    Address(Address),
    /// `int`.
    Int(i32),
    /// `unsigned`.
    Word(u32),
    /// `unsigned long long`.
    Seed(u64),
    /// `float`.
    Float(f32),
    /// `double`.
    Double(f64),
    /// The kernels' `Windows`.
    Windows([i32; 10]),
}

impl Argument {
    /// The place of the value, as a launch takes it.
    pub fn place(&self) -> *const std::ffi::c_void {
        match self {
            Argument::Address(v) => std::ptr::from_ref(v).cast(),
            Argument::Int(v) => std::ptr::from_ref(v).cast(),
            Argument::Word(v) => std::ptr::from_ref(v).cast(),
            Argument::Seed(v) => std::ptr::from_ref(v).cast(),
            Argument::Float(v) => std::ptr::from_ref(v).cast(),
            Argument::Double(v) => std::ptr::from_ref(v).cast(),
            Argument::Windows(v) => v.as_ptr().cast(),
        }
    }
}

/// The number of threads of every block.
pub const THREADS: u32 = 256;

/// The number of inboxes, which are buffers for uploads: one is filled while the content of the other is used (double buffering).
pub const INBOXES: usize = 2;

/// How products may be computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rules {
    /// f32 is multiplied as it is, and not as TF32.
    pub exact: bool,
    /// Only by algorithms that give the same bits each time.
    pub deterministic: bool,
}

/// The three products of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Product {
    /// y from x and w.
    Output,
    /// dx from dy and w.
    Input,
    /// dw from x and dy.
    Weight,
}

/// A convolution: maps (n, h, w, c) and (n, oh, ow, o), weights (o, kernel, kernel, c), all of `kind` with contiguous channels; cross-correlation,
/// as in PyTorch. Sums are in f32, or f64 for f64.
#[derive(Clone, Copy, Debug)]
pub struct Convolution {
    /// Its shapes.
    pub geometry: Geometry,
    /// The type of its values.
    pub kind: Kind,
    /// How it may be computed.
    pub rules: Rules,
}

/// A product of matrices: `to` (m, n) = a (m, k) · b (k, n) + beta·`to`, row by row; a is stored as (k, m) if `turned[0]`, b as (n, k) if
/// `turned[1]`.
#[derive(Clone, Copy, Debug)]
pub struct MatrixProduct {
    /// m, n, k.
    pub shape: [usize; 3],
    /// Whether a and b are stored transposed.
    pub turned: [bool; 2],
    /// The type of a and b.
    pub kind: Kind,
    /// The type of the result: `kind`, or the type of its sums.
    pub to: Kind,
    /// The factor of what `to` holds: 0 or 1.
    pub beta: f64,
    /// How it may be computed.
    pub rules: Rules,
}

/// A call that failed.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// The device has not so much memory.
    Memory {
        /// Bytes that were asked for; 0 where a library wanted memory for itself and does not say how much.
        asked: usize,
        /// Bytes that the device has free, and in all.
        free: usize,
        /// All of its bytes.
        total: usize,
    },
    /// The library does not support the chosen algorithm: see [`Calls::reject`].
    Unsupported(String),
    /// Another failure: what was called, and what the library says.
    Call {
        /// The call.
        call: String,
        /// The library's words.
        said: String,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let size = |bytes: &usize| format!("{:.1} GB", *bytes as f64 / 1e9);
        match self {
            Fault::Memory { asked, free, total } => {
                let (free, total) = (size(free), size(total));
                let wanted = if *asked > 0 { format!("{} were asked for", size(asked)) } else { "a library needs more".into() };
                write!(f, "the device's memory is full: {wanted}, and of {total} only {free} are free")
            }
            Fault::Unsupported(what) => write!(f, "cuDNN supports no algorithm that it proposes: {what}"),
            Fault::Call { call, said } => write!(f, "{call} failed: {said}"),
        }
    }
}

impl std::error::Error for Fault {}

/// A device's calls. All run in one order, and return before they are done where the device works on its own; downloads wait.
pub trait Calls: Send + Sync + 'static {
    /// The device's name.
    fn name(&self) -> String;

    /// Reserves memory.
    ///
    /// # Errors
    /// There is not so much.
    fn allocate(&self, bytes: usize) -> Result<Address, Fault>;

    /// Frees what [`allocate`](Calls::allocate) reserved.
    fn free(&self, at: Address);

    /// Copies bytes to the device.
    ///
    /// # Errors
    /// The device failed.
    fn upload(&self, from: &[u8], to: Address) -> Result<(), Fault>;

    /// Copies bytes to the device while earlier calls still run; later calls wait for the copy. `to` is the memory of inbox number `slot`,
    /// which is below [`INBOXES`]. The copy waits for the calls that read the inbox's last content, up to the last
    /// [`received`](Calls::received).
    ///
    /// # Errors
    /// The device failed.
    fn send(&self, from: &[u8], to: Address, slot: usize) -> Result<(), Fault>;

    /// Notes that every call has been made that reads what was last sent to an inbox.
    ///
    /// # Errors
    /// The device failed.
    fn received(&self, slot: usize) -> Result<(), Fault>;

    /// Copies bytes from the device, when all earlier calls are done.
    ///
    /// # Errors
    /// The device failed, now or in an earlier call.
    fn download(&self, from: Address, to: &mut [u8]) -> Result<(), Fault>;

    /// Copies bytes on the device.
    ///
    /// # Errors
    /// The device failed.
    fn copy(&self, from: Address, to: Address, bytes: usize) -> Result<(), Fault>;

    /// Sets bytes to 0.
    ///
    /// # Errors
    /// The device failed.
    fn clear(&self, at: Address, bytes: usize) -> Result<(), Fault>;

    /// Runs a kernel with [`THREADS`] threads a block on a grid of so many blocks in x and y.
    ///
    /// # Errors
    /// There is no such kernel, or the device failed.
    fn launch(&self, kernel: &str, grid: [u32; 2], arguments: &[Argument]) -> Result<(), Fault>;

    /// The bytes of its memory that are free, and all of them.
    ///
    /// # Errors
    /// The device failed.
    fn memory(&self) -> Result<[usize; 2], Fault>;

    /// Waits until all earlier calls are done.
    ///
    /// # Errors
    /// The device failed, now or in an earlier call.
    fn wait(&self) -> Result<(), Fault>;

    /// Notes the moment at which all earlier calls are done.
    ///
    /// # Errors
    /// The device failed.
    fn mark(&self) -> Result<Mark, Fault>;

    /// Waits for both moments; the time between them. Both are given up.
    ///
    /// # Errors
    /// The device failed, now or in an earlier call.
    fn between(&self, from: Mark, to: Mark) -> Result<Duration, Fault>;

    /// The bytes of working memory that a product of a convolution needs.
    ///
    /// # Errors
    /// The library has no algorithm for it.
    fn workspace(&self, what: Product, of: &Convolution) -> Result<usize, Fault>;

    /// Gives up the algorithm that [`workspace`](Calls::workspace) and [`convolve`](Calls::convolve) use; whether there is another.
    fn reject(&self, what: Product, of: &Convolution) -> bool;

    /// Computes a product of a convolution from `[a, b]` (x and w, dy and w, or x and dy) into `to`, plus beta·`to`. `workspace` has the bytes
    /// that [`workspace`](Calls::workspace) asked for.
    ///
    /// # Errors
    /// The library or the device failed.
    fn convolve(
        &self,
        what: Product,
        of: &Convolution,
        from: [Address; 2],
        beta: f64,
        to: Address,
        workspace: (Address, usize),
    ) -> Result<(), Fault>;

    /// Multiplies matrices.
    ///
    /// # Errors
    /// The library or the device failed.
    fn multiply(&self, of: &MatrixProduct, from: [Address; 2], to: Address) -> Result<(), Fault>;
}
