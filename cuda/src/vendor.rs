//! The calls of a real device, whose libraries are opened when a device is: the driver and cuBLAS here, cuDNN in [`convolution`], uploads in
//! [`staging`], NVRTC and what there is in [`libraries`]. No other file calls the vendor's libraries.
//!
//! Sections name the manuals: CUDA Driver API 12, NVRTC 12, cuBLAS 12, cuDNN 9 ("Graph and Legacy API").

mod convolution;
pub(crate) mod libraries;
mod staging;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::{CString, c_int, c_void};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ctk_kernels::Kind;
use cudarc::cublas::{result as cublas, sys as blas};
use cudarc::cudnn::{result as cudnn, sys as dnn};
use cudarc::driver::{result as driver, sys};

use self::convolution::Planned;
use self::libraries::{Build, devices, found};
use self::staging::Staging;
use crate::calls::{Address, Argument, Calls, Convolution, Fault, INBOXES, Mark, MatrixProduct, Product, Rules, THREADS};
use crate::found::{Listed, chosen, usable};

fn fault(call: &str) -> impl Fn(&dyn std::fmt::Debug) -> Fault + '_ {
    move |said| Fault::Call { call: call.to_string(), said: format!("{said:?}") }
}

/// The result of a call by the library's own error.
fn done<T, E: std::fmt::Debug>(call: &str, result: Result<T, E>) -> Result<T, Fault> {
    result.map_err(|e| fault(call)(&e))
}

/// The fault of memory that is full, where the context is current; 0 bytes were asked for if a library does not say how many it wanted.
fn full(asked: usize) -> Fault {
    let (free, total) = driver::mem_get_info().unwrap_or_default();
    Fault::Memory { asked, free, total }
}

/// Sizes as the libraries take them.
fn sizes<const N: usize>(sizes: [usize; N]) -> Result<[c_int; N], Fault> {
    let mut all = [0; N];
    for (to, size) in all.iter_mut().zip(sizes) {
        *to = c_int::try_from(size)
            .map_err(|_| Fault::Call { call: format!("a product of sizes {sizes:?}"), said: "too large".into() })?;
    }
    Ok(all)
}

/// What plans are kept for: a product, its shape, number type and rules.
type Shape = (Product, [usize; 10], Kind, Rules);

/// An opened device, with one stream, on which all calls run in order.
pub struct Vendor {
    listed: Listed,
    device: sys::CUdevice,
    context: sys::CUcontext,
    stream: sys::CUstream,
    module: sys::CUmodule,
    functions: Mutex<HashMap<String, sys::CUfunction>>,
    blas: blas::cublasHandle_t,
    dnn: dnn::cudnnHandle_t,
    /// Plans of convolutions. Whoever uses cuBLAS or cuDNN holds the lock.
    products: Mutex<HashMap<Shape, Planned>>,
    staging: Mutex<Staging>,
    /// A stream for what is sent to inboxes.
    sending: sys::CUstream,
    inboxes: Vec<Inbox>,
}

/// The events of an inbox.
struct Inbox {
    /// Its content has been copied.
    sent: sys::CUevent,
    /// Its content has been read.
    received: sys::CUevent,
}

/// Makes later work of a stream wait for an event.
///
/// # Safety
/// Both are alive, and their context is current.
unsafe fn wait(stream: sys::CUstream, event: sys::CUevent) -> Result<(), driver::DriverError> {
    // SAFETY: stream and event are alive and their context is current, as this function asks of its caller.
    unsafe { driver::stream::wait_event(stream, event, sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT) }
}

// SAFETY: the handles are pointers to what the libraries own, which may be used by any thread that has made the context current, as every
// method here does first; `functions`, `products` and `staging` are behind locks, and cuBLAS's and cuDNN's handles are used only while
// `products` is locked.
unsafe impl Send for Vendor {}
// SAFETY: as for `Send`.
unsafe impl Sync for Vendor {}

impl Vendor {
    /// Opens device `number`, and cuBLAS and cuDNN. `image` gives the kernels as they are compiled for the device: by
    /// [`Build::compile`](crate::Build::compile), or as that gave them before.
    ///
    /// # Errors
    /// A library is missing or too old, there is no such device, or a call fails.
    pub fn open(number: usize, image: impl FnOnce(&Build) -> Result<Vec<u8>, Fault>) -> Result<Vendor, Fault> {
        usable(&found())?;
        let listed = chosen(&devices()?, number)?;
        let image = image(&Build::of(listed.capability)?)?;
        let device = done("cuDeviceGet", driver::device::get(number as c_int))?;
        // SAFETY: `device` is from `cuDeviceGet`.
        let context = done("cuDevicePrimaryCtxRetain", unsafe { driver::primary_ctx::retain(device) })?;
        // What is made from here on is released by `drop`, also if a later call fails.
        let mut vendor = Vendor {
            listed,
            device,
            context,
            stream: std::ptr::null_mut(),
            module: std::ptr::null_mut(),
            functions: Mutex::default(),
            blas: std::ptr::null_mut(),
            dnn: std::ptr::null_mut(),
            products: Mutex::default(),
            staging: Mutex::default(),
            sending: std::ptr::null_mut(),
            inboxes: Vec::new(),
        };
        vendor.here()?;
        vendor.stream = done("cuStreamCreate", driver::stream::create(driver::stream::StreamKind::NonBlocking))?;
        vendor.sending = done("cuStreamCreate", driver::stream::create(driver::stream::StreamKind::NonBlocking))?;
        for _ in 0..INBOXES {
            let event = || done("cuEventCreate", driver::event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING));
            vendor.inboxes.push(Inbox { sent: event()?, received: event()? });
        }
        // SAFETY: the context is current; the image is NVRTC's, with the 0 at the end that PTX must have; the handles are new. Products of bf16
        // are summed in f32 throughout, also where cuBLAS divides a sum.
        unsafe {
            vendor.module = done("cuModuleLoadData", driver::module::load_data(image.as_ptr().cast()))?;
            vendor.blas = done("cublasCreate", cublas::create_handle())?;
            done("cublasSetStream", cublas::set_stream(vendor.blas, vendor.stream.cast()))?;
            let math = blas::cublasMath_t::CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION;
            done("cublasSetMathMode", blas::cublasSetMathMode(vendor.blas, math).result())?;
            vendor.dnn = done("cudnnCreate", cudnn::create_handle())?;
            done("cudnnSetStream", cudnn::set_stream(vendor.dnn, vendor.stream.cast()))?;
        }
        Ok(vendor)
    }

    /// Makes the context current on this thread.
    fn here(&self) -> Result<(), Fault> {
        // SAFETY: the context is retained until this is dropped.
        done("cuCtxSetCurrent", unsafe { driver::ctx::set_current(self.context) })
    }

    fn function(&self, name: &str) -> Result<sys::CUfunction, Fault> {
        let mut functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(function) = functions.get(name) {
            return Ok(*function);
        }
        let text = CString::new(name).map_err(|e| fault("cuModuleGetFunction")(&e))?;
        // SAFETY: the module is loaded until this is dropped.
        let function = done(name, unsafe { driver::module::get_function(self.module, text) })?;
        functions.insert(name.to_string(), function);
        Ok(function)
    }

    /// Gives access to the plan of a product, which is made once a shape. While it is used no other thread uses cuDNN's handle.
    fn planned<R>(
        &self,
        what: Product,
        of: &Convolution,
        use_it: impl FnOnce(&mut Planned) -> Result<R, Fault>,
    ) -> Result<R, Fault> {
        self.here()?;
        let g = &of.geometry;
        let shape = (what, [g.n, g.h, g.w, g.c, g.o, g.oh, g.ow, g.kernel, g.stride, g.padding], of.kind, of.rules);
        let mut products = self.products.lock().unwrap_or_else(PoisonError::into_inner);
        let planned = match products.entry(shape) {
            Entry::Occupied(kept) => kept.into_mut(),
            // SAFETY: the handle lives until this is dropped, and is used by this thread alone while `products` is locked.
            Entry::Vacant(new) => new.insert(unsafe { Planned::new(self.dnn, what, of) }?),
        };
        use_it(planned)
    }
}

/// The factors α = 1 and β of a product, in the type that cuBLAS and cuDNN read them in: float, or double for double.
struct Factors {
    single: [f32; 2],
    double: [f64; 2],
    wide: bool,
}

impl Factors {
    fn new(beta: f64, kind: Kind) -> Factors {
        Factors { single: [1.0, beta as f32], double: [1.0, beta], wide: kind == Kind::F64 }
    }

    fn place(&self, which: usize) -> *const c_void {
        if self.wide { std::ptr::from_ref(&self.double[which]).cast() } else { std::ptr::from_ref(&self.single[which]).cast() }
    }
}

impl Calls for Vendor {
    fn name(&self) -> String {
        self.listed.name.clone()
    }

    /// CUDA Driver API, 6.13 "Stream Ordered Memory Allocator" would wait less, but needs a pool; blocks are kept by `memory.rs` anyway.
    /// 6.11 "Memory Management": `cuMemAlloc` gives addresses that are divisible by 256.
    fn allocate(&self, bytes: usize) -> Result<Address, Fault> {
        self.here()?;
        // SAFETY: a size is all it takes.
        unsafe { driver::malloc_sync(bytes) }.map_err(|e| match e.0 {
            sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => full(bytes),
            _ => fault("cuMemAlloc")(&e),
        })
    }

    fn free(&self, at: Address) {
        if self.here().is_ok() {
            // SAFETY: the address is from `cuMemAlloc` and is freed once; `cuMemFree` waits for work that uses it.
            let _ = unsafe { driver::free_sync(at) };
        }
    }

    /// Through pinned memory: `from` has been read when this returns.
    fn upload(&self, from: &[u8], to: Address) -> Result<(), Fault> {
        self.here()?;
        let mut staging = self.staging.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: `to` has at least as many bytes; the stream lives until this is dropped, and the context is current.
        unsafe { staging.upload(from, to, self.stream) }
    }

    /// 6.20 "Stream Management", `cuStreamWaitEvent`: later work of the stream waits for the event; an event that was never recorded is reached.
    fn send(&self, from: &[u8], to: Address, slot: usize) -> Result<(), Fault> {
        self.here()?;
        let inbox = &self.inboxes[slot];
        let mut staging = self.staging.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: streams and events live until this is dropped, and the context is current; `to` has at least as many bytes, which no call of
        // the main stream reads before `sent` or after `received`.
        unsafe {
            done("cuStreamWaitEvent", wait(self.sending, inbox.received))?;
            staging.upload(from, to, self.sending)?;
            done("cuEventRecord", driver::event::record(inbox.sent, self.sending))?;
            done("cuStreamWaitEvent", wait(self.stream, inbox.sent))
        }
    }

    fn received(&self, slot: usize) -> Result<(), Fault> {
        self.here()?;
        // SAFETY: as for `send`.
        done("cuEventRecord", unsafe { driver::event::record(self.inboxes[slot].received, self.stream) })
    }

    fn download(&self, from: Address, to: &mut [u8]) -> Result<(), Fault> {
        self.here()?;
        // SAFETY: `from` has at least as many bytes; the stream is waited for before `to` is read.
        unsafe {
            done("cuMemcpyDtoHAsync", driver::memcpy_dtoh_async(to, from, self.stream))?;
            done("cuStreamSynchronize", driver::stream::synchronize(self.stream))
        }
    }

    fn copy(&self, from: Address, to: Address, bytes: usize) -> Result<(), Fault> {
        self.here()?;
        // SAFETY: both blocks have at least so many bytes, and are not one.
        done("cuMemcpyDtoDAsync", unsafe { driver::memcpy_dtod_async(to, from, bytes, self.stream) })
    }

    fn clear(&self, at: Address, bytes: usize) -> Result<(), Fault> {
        self.here()?;
        // SAFETY: the block has at least so many bytes.
        done("cuMemsetD8Async", unsafe { driver::memset_d8_async(at, 0, bytes, self.stream) })
    }

    /// 6.21 "Execution Control", `cuLaunchKernel`: `kernelParams` has a pointer to each parameter, which is copied before it returns.
    fn launch(&self, kernel: &str, grid: [u32; 2], arguments: &[Argument]) -> Result<(), Fault> {
        self.here()?;
        let function = self.function(kernel)?;
        let mut places: Vec<*mut c_void> = arguments.iter().map(|argument| argument.place().cast_mut()).collect();
        // SAFETY: the arguments are the kernel's parameters, which the emulated device checks for each; their blocks are alive when the call is
        // made, and go back to the pool of this stream, so later calls wait for this one.
        let launched =
            unsafe { driver::launch_kernel(function, (grid[0], grid[1], 1), (THREADS, 1, 1), 0, self.stream, &mut places) };
        done(kernel, launched)
    }

    fn memory(&self) -> Result<[usize; 2], Fault> {
        self.here()?;
        done("cuMemGetInfo", driver::mem_get_info()).map(|(free, total)| [free, total])
    }

    fn wait(&self) -> Result<(), Fault> {
        self.here()?;
        // SAFETY: the stream lives until this is dropped.
        done("cuStreamSynchronize", unsafe { driver::stream::synchronize(self.stream) })
    }

    /// 6.19 "Event Management", `cuEventRecord`: the event is reached when everything before it in the stream is done.
    fn mark(&self) -> Result<Mark, Fault> {
        self.here()?;
        let event = done("cuEventCreate", driver::event::create(sys::CUevent_flags::CU_EVENT_DEFAULT))?;
        // SAFETY: the event is new, and the stream lives until this is dropped.
        done("cuEventRecord", unsafe { driver::event::record(event, self.stream) })?;
        Ok(event as Mark)
    }

    /// `cuEventElapsedTime`: in milliseconds, of events that were recorded, have been reached, and have times.
    fn between(&self, from: Mark, to: Mark) -> Result<Duration, Fault> {
        self.here()?;
        let [from, to] = [from, to].map(|mark| mark as sys::CUevent);
        // SAFETY: both are from `mark`, which recorded them in one stream, and are given up here.
        let took = unsafe {
            let reached = done("cuEventSynchronize", driver::event::synchronize(to));
            let took = reached.and_then(|()| done("cuEventElapsedTime", driver::event::elapsed(from, to)));
            let _ = (driver::event::destroy(from), driver::event::destroy(to));
            took?
        };
        Ok(Duration::from_secs_f32(took.max(0.0) / 1e3))
    }

    fn workspace(&self, what: Product, of: &Convolution) -> Result<usize, Fault> {
        self.planned(what, of, |planned| planned.workspace())
    }

    fn reject(&self, what: Product, of: &Convolution) -> bool {
        self.planned(what, of, |planned| Ok(planned.reject())).unwrap_or(false)
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
        let factors = Factors::new(beta, of.kind);
        // SAFETY: the plan says the shapes and types of the blocks at these addresses, which `device.rs` has made for them; the factors live until
        // the call returns; the workspace has the bytes that the plan asks for; the handle is this thread's own while the plan is lent.
        self.planned(what, of, |planned| unsafe {
            planned.run(self.dnn, [factors.place(0), factors.place(1)], from, to, workspace)
        })
    }

    /// cuBLAS 12, 2.8.12 `cublasGemmEx`: column by column, C (m × n) = α·op(A)·op(B) + β·C. A matrix that lies row by row is, column by
    /// column, its transpose, so C = a·b row by row is Cᵀ = bᵀ·aᵀ: the operands change places, and m and n.
    fn multiply(&self, of: &MatrixProduct, [a, b]: [Address; 2], to: Address) -> Result<(), Fault> {
        self.here()?;
        let [m, n, k] = sizes(of.shape)?;
        let kind = |kind: Kind| match kind {
            Kind::F32 => blas::cudaDataType::CUDA_R_32F,
            Kind::F64 => blas::cudaDataType::CUDA_R_64F,
            Kind::Bf16 => blas::cudaDataType::CUDA_R_16BF,
        };
        let compute = match (of.kind, of.rules.exact) {
            (Kind::F64, _) => blas::cublasComputeType_t::CUBLAS_COMPUTE_64F,
            (Kind::F32, false) => blas::cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32,
            _ => blas::cublasComputeType_t::CUBLAS_COMPUTE_32F,
        };
        let turned =
            |turned: bool| if turned { blas::cublasOperation_t::CUBLAS_OP_T } else { blas::cublasOperation_t::CUBLAS_OP_N };
        // The distance of a stored row's first value to the next row's.
        let (row_a, row_b) = (if of.turned[0] { m } else { k }, if of.turned[1] { k } else { n });
        let factors = Factors::new(of.beta, of.kind);
        let (alpha, beta) = (factors.place(0), factors.place(1));
        let (a, b, to) = (a as *const c_void, b as *const c_void, to as *mut c_void);
        let (of_b, of_a, algorithm) = (turned(of.turned[1]), turned(of.turned[0]), blas::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT);
        let _alone = self.products.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the shapes are those of the blocks at these addresses, which `device.rs` has made for them; the factors live until the call
        // returns; no other thread uses the handle while `products` is locked.
        let multiplied = unsafe {
            cublas::gemm_ex(
                self.blas,
                of_b,
                of_a,
                n,
                m,
                k,
                alpha,
                b,
                kind(of.kind),
                row_b,
                a,
                kind(of.kind),
                row_a,
                beta,
                to,
                kind(of.to),
                n,
                compute,
                algorithm,
            )
        };
        match multiplied {
            Err(error) if error.0 == blas::cublasStatus_t::CUBLAS_STATUS_ALLOC_FAILED => Err(full(0)),
            multiplied => done("cublasGemmEx", multiplied),
        }
    }
}

impl Drop for Vendor {
    fn drop(&mut self) {
        // SAFETY: everything that is not null was made by `open` and is released once, after the work of both streams. A failure leaves nothing to do.
        unsafe {
            if self.here().is_ok() {
                for stream in [self.sending, self.stream].into_iter().filter(|stream| !stream.is_null()) {
                    let _ = driver::stream::synchronize(stream);
                }
                for inbox in self.inboxes.drain(..) {
                    let _ = (driver::event::destroy(inbox.sent), driver::event::destroy(inbox.received));
                }
                self.products.get_mut().unwrap_or_else(PoisonError::into_inner).clear();
                self.staging.get_mut().unwrap_or_else(PoisonError::into_inner).free();
                if !self.dnn.is_null() {
                    let _ = cudnn::destroy_handle(self.dnn);
                }
                if !self.blas.is_null() {
                    let _ = cublas::destroy_handle(self.blas);
                }
                if !self.module.is_null() {
                    let _ = driver::module::unload(self.module);
                }
                for stream in [self.sending, self.stream].into_iter().filter(|stream| !stream.is_null()) {
                    let _ = driver::stream::destroy(stream);
                }
            }
            let _ = driver::primary_ctx::release(self.device);
        }
    }
}
