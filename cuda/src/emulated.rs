//! An emulated device, for tests: the kernels as the host's compiler makes them (`emulated/device.cpp`), naive loops in place of the
//! vendor's products, and memory that is reached by copies and calls alone.
//!
//! It notices mistakes that a real device may hide. New memory is NaN, and so is the working memory of a product. Every block has a margin on
//! both sides, which must be whole when it is freed. An address outside of a block, and more bytes than the block has, end the program. Blocks
//! and threads run in an order that is drawn anew for each launch, so a result that depends on the order shows. Memory can be made to end
//! after so many bytes or allocations.

use std::collections::BTreeMap;
use std::ffi::{CString, c_char, c_int, c_void};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytemuck::Pod;
use ctk_kernels::{Bf16, Element, Geometry, Kind, Real};

use crate::calls::{Address, Argument, Calls, Convolution, Fault, INBOXES, Mark, MatrixProduct, Product, THREADS};

unsafe extern "C" {
    fn ctk_emulated_launch(
        name: *const c_char,
        grid: *const u32,
        threads: *const u32,
        arguments: *mut *const c_void,
        count: usize,
        seed: u64,
    ) -> c_int;
}

/// Bytes of the margin on each side of a block.
const MARGIN: usize = 64;
/// What margins are filled with.
const MARK: u8 = 0xa5;

/// The C++ side has one set of variables, so one kernel of the process runs at a time.
static RUNNING: Mutex<()> = Mutex::new(());

/// The device's memory and what was asked of it.
pub struct Emulated {
    blocks: Mutex<BTreeMap<Address, Vec<u64>>>,
    launches: AtomicU64,
    allocations: AtomicU64,
    /// What was last sent to each inbox: address and bytes.
    inboxes: Mutex<[(Address, usize); INBOXES]>,
    limits: Limits,
    begun: Instant,
}

/// Where an emulated device's memory ends.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes in all.
    pub bytes: usize,
    /// Allocations that succeed; all later ones fail.
    pub allocations: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { bytes: usize::MAX, allocations: u64::MAX }
    }
}

impl Emulated {
    /// A device with these limits.
    pub fn new(limits: Limits) -> Emulated {
        let [launches, allocations] = [(); 2].map(|()| AtomicU64::new(0));
        Emulated { blocks: Mutex::default(), inboxes: Mutex::default(), launches, allocations, limits, begun: Instant::now() }
    }

    /// Whether `bytes` from `at` on are inside a block.
    fn check(&self, at: Address, bytes: usize) {
        let blocks = self.blocks.lock().expect("no thread panics with it");
        let inside = blocks.range(..=at).next_back().is_some_and(|(from, block)| at + bytes as u64 <= from + len(block) as u64);
        assert!(inside || bytes == 0, "{bytes} bytes at {at:#x} are in no block");
    }

    /// The values at an address, for a product.
    fn get<T: Pod>(&self, at: Address, len: usize) -> Vec<T> {
        let mut values = bytemuck::zeroed_vec::<T>(len);
        self.download(at, bytemuck::cast_slice_mut(&mut values)).expect("emulated copies do not fail");
        values
    }

    fn put<T: Pod>(&self, at: Address, values: &[T]) {
        self.upload(bytemuck::cast_slice(values), at).expect("emulated copies do not fail");
    }

    fn product<T: Element>(&self, what: Product, g: &Geometry, from: [Address; 2], beta: f64, to: Address) {
        let (x, y, w) = (g.n * g.h * g.w * g.c, g.rows() * g.o, g.o * g.kernel * g.kernel * g.c);
        let (lens, len) = match what {
            Product::Output => ([x, w], y),
            Product::Input => ([y, w], x),
            Product::Weight => ([x, y], w),
        };
        let [a, b] = [0, 1].map(|i| self.get::<T>(from[i], lens[i]).into_iter().map(|v| v.up().wide()).collect::<Vec<f64>>());
        let mut sums = vec![0.0; len];
        for row in 0..g.rows() {
            let (image, oy, ox) = (row / g.ow / g.oh, row / g.ow % g.oh, row % g.ow);
            for tap in 0..g.kernel * g.kernel {
                let place =
                    |o: usize, tap: usize, size: usize| (o * g.stride + tap).checked_sub(g.padding).filter(|at| *at < size);
                let pixel = place(oy, tap / g.kernel, g.h).zip(place(ox, tap % g.kernel, g.w));
                let Some((py, px)) = pixel else { continue };
                let pixel = ((image * g.h + py) * g.w + px) * g.c;
                for o in 0..g.o {
                    let (y, w) = (row * g.o + o, (o * g.kernel * g.kernel + tap) * g.c);
                    match what {
                        Product::Output => sums[y] += (0..g.c).map(|c| a[pixel + c] * b[w + c]).sum::<f64>(),
                        Product::Input => (0..g.c).for_each(|c| sums[pixel + c] += a[y] * b[w + c]),
                        Product::Weight => (0..g.c).for_each(|c| sums[w + c] += a[pixel + c] * b[y]),
                    }
                }
            }
        }
        self.finish::<T>(sums, beta, to);
    }

    fn matrix<T: Element>(&self, of: &MatrixProduct, from: [Address; 2], to: Address) {
        let [m, n, k] = of.shape;
        let [a, b] = [(from[0], m * k), (from[1], k * n)]
            .map(|(at, len)| self.get::<T>(at, len).into_iter().map(|v| v.up().wide()).collect::<Vec<f64>>());
        let a_at = |i: usize, l: usize| if of.turned[0] { a[l * m + i] } else { a[i * k + l] };
        let b_at = |l: usize, j: usize| if of.turned[1] { b[j * k + l] } else { b[l * n + j] };
        let sums = (0..m * n).map(|at| (0..k).map(|l| a_at(at / n, l) * b_at(l, at % n)).sum()).collect();
        match of.to {
            Kind::F32 => self.finish::<f32>(sums, of.beta, to),
            Kind::F64 => self.finish::<f64>(sums, of.beta, to),
            Kind::Bf16 => self.finish::<Bf16>(sums, of.beta, to),
        }
    }

    /// Writes sums, plus beta times what is there.
    fn finish<T: Element>(&self, mut sums: Vec<f64>, beta: f64, to: Address) {
        if beta != 0.0 {
            let before = self.get::<T>(to, sums.len());
            sums.iter_mut().zip(before).for_each(|(sum, before)| *sum += beta * before.up().wide());
        }
        let values: Vec<T> = sums.into_iter().map(|sum| T::down(T::Real::of(sum))).collect();
        self.put(to, &values);
    }
}

/// The bytes of a block, without its margins.
fn len(block: &[u64]) -> usize {
    size_of_val(block) - 2 * MARGIN
}

impl Calls for Emulated {
    fn name(&self) -> String {
        "an emulated CUDA device".into()
    }

    fn allocate(&self, bytes: usize) -> Result<Address, Fault> {
        let number = self.allocations.fetch_add(1, Ordering::Relaxed);
        let mut blocks = self.blocks.lock().expect("no thread panics with it");
        let total = self.limits.bytes;
        let free = total - blocks.values().map(|block| len(block)).sum::<usize>();
        if bytes > free || number >= self.limits.allocations {
            return Err(Fault::Memory { asked: bytes, free, total });
        }
        let mut block = vec![u64::MAX; (bytes + 2 * MARGIN).div_ceil(8)];
        let content = bytemuck::cast_slice_mut::<u64, u8>(&mut block);
        content[..MARGIN].fill(MARK);
        content[MARGIN..].rchunks_mut(MARGIN).next().expect("a margin").fill(MARK);
        let at = content[MARGIN..].as_mut_ptr() as Address;
        blocks.insert(at, block);
        Ok(at)
    }

    fn free(&self, at: Address) {
        let block = self.blocks.lock().expect("no thread panics with it").remove(&at).expect("only blocks are freed, once");
        let content = bytemuck::cast_slice::<u64, u8>(&block);
        let margins = content[..MARGIN].iter().chain(&content[content.len() - MARGIN..]);
        assert!(margins.into_iter().all(|byte| *byte == MARK), "a kernel wrote outside of its block");
    }

    fn upload(&self, from: &[u8], to: Address) -> Result<(), Fault> {
        self.check(to, from.len());
        // SAFETY: `check` has found the bytes inside one block, whose memory does not move while it is in the table; all accesses go through
        // addresses, and a caller has one block for writing at a time.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to as *mut u8, from.len()) };
        Ok(())
    }

    fn send(&self, from: &[u8], to: Address, slot: usize) -> Result<(), Fault> {
        self.upload(from, to)?;
        self.inboxes.lock().expect("no thread panics with it")[slot] = (to, from.len());
        Ok(())
    }

    /// A call that reads the inbox afterwards finds NaN.
    fn received(&self, slot: usize) -> Result<(), Fault> {
        let (at, bytes) = self.inboxes.lock().expect("no thread panics with it")[slot];
        self.upload(&vec![u8::MAX; bytes], at)
    }

    fn download(&self, from: Address, to: &mut [u8]) -> Result<(), Fault> {
        self.check(from, to.len());
        // SAFETY: as for `upload`.
        unsafe { std::ptr::copy_nonoverlapping(from as *const u8, to.as_mut_ptr(), to.len()) };
        Ok(())
    }

    fn copy(&self, from: Address, to: Address, bytes: usize) -> Result<(), Fault> {
        self.put(to, &self.get::<u8>(from, bytes));
        Ok(())
    }

    fn clear(&self, at: Address, bytes: usize) -> Result<(), Fault> {
        self.put(at, &vec![0u8; bytes]);
        Ok(())
    }

    fn launch(&self, kernel: &str, grid: [u32; 2], arguments: &[Argument]) -> Result<(), Fault> {
        let text = CString::new(kernel).expect("a kernel's name");
        for argument in arguments {
            if let Argument::Address(at) = argument
                && *at != 0
            {
                self.check(*at, 1);
            }
        }
        let mut places: Vec<*const c_void> = arguments.iter().map(Argument::place).collect();
        let (grid, threads) = ([grid[0], grid[1], 1], [THREADS, 1, 1]);
        let seed = self.launches.fetch_add(1, Ordering::Relaxed) + 1;
        let alone = RUNNING.lock();
        let (name, grid, threads, count) = (text.as_ptr(), grid.as_ptr(), threads.as_ptr(), places.len());
        // SAFETY: the name ends with 0, `grid` and `threads` have three values, and `places` has `count`, of which the other side takes no more.
        // What a place points to is as large as the parameter if caller and kernel agree about its type, which `tests/operations.rs` shows by
        // running every kernel. The kernels touch what their addresses point to; margins show it if one goes beyond. `RUNNING` is held, so no
        // other thread runs a kernel. The kernels throw nothing.
        let failed = unsafe { ctk_emulated_launch(name, grid, threads, places.as_mut_ptr(), count, seed) };
        drop(alone);
        let said = match failed {
            0 => return Ok(()),
            1 => "its threads do not meet at a barrier",
            2 => "there is no such kernel",
            _ => "it has another number of parameters",
        };
        Err(Fault::Call { call: kernel.to_string(), said: said.to_string() })
    }

    fn memory(&self) -> Result<[usize; 2], Fault> {
        let used: usize = self.blocks.lock().expect("no thread panics with it").values().map(|block| len(block)).sum();
        Ok([self.limits.bytes - used, self.limits.bytes])
    }

    fn wait(&self) -> Result<(), Fault> {
        Ok(())
    }

    /// A call is done when it returns.
    fn mark(&self) -> Result<Mark, Fault> {
        Ok(self.begun.elapsed().as_nanos() as Mark)
    }

    fn between(&self, from: Mark, to: Mark) -> Result<Duration, Fault> {
        Ok(Duration::from_nanos(to - from))
    }

    fn workspace(&self, _: Product, of: &Convolution) -> Result<usize, Fault> {
        Ok(of.geometry.kernel * 1000)
    }

    fn reject(&self, _: Product, _: &Convolution) -> bool {
        false
    }

    fn convolve(
        &self,
        what: Product,
        of: &Convolution,
        from: [Address; 2],
        beta: f64,
        to: Address,
        workspace: (Address, usize),
    ) -> Result<(), Fault> {
        assert_eq!(workspace.1, self.workspace(what, of)?, "the workspace that was asked for");
        self.put(workspace.0, &vec![u8::MAX; workspace.1]);
        match of.kind {
            Kind::F32 => self.product::<f32>(what, &of.geometry, from, beta, to),
            Kind::F64 => self.product::<f64>(what, &of.geometry, from, beta, to),
            Kind::Bf16 => self.product::<Bf16>(what, &of.geometry, from, beta, to),
        }
        Ok(())
    }

    fn multiply(&self, of: &MatrixProduct, from: [Address; 2], to: Address) -> Result<(), Fault> {
        match of.kind {
            Kind::F32 => self.matrix::<f32>(of, from, to),
            Kind::F64 => self.matrix::<f64>(of, from, to),
            Kind::Bf16 => self.matrix::<Bf16>(of, from, to),
        }
        Ok(())
    }
}

impl Drop for Emulated {
    fn drop(&mut self) {
        let left: Vec<Address> = self.blocks.get_mut().map(|blocks| blocks.keys().copied().collect()).unwrap_or_default();
        left.into_iter().for_each(|at| self.free(at));
    }
}
