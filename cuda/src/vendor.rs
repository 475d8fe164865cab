//! The calls of a real device: the driver, cuBLAS and cuDNN, whose libraries are opened when a device is. What there is, and NVRTC, is in
//! [`libraries`]. No other file calls the vendor's libraries.
//!
//! Sections name the manuals: CUDA Driver API 12, NVRTC 12, cuBLAS 12, cuDNN 9 ("Graph and Legacy API").

pub(crate) mod libraries;

use std::collections::HashMap;
use std::ffi::{CString, c_int, c_void};
use std::sync::Mutex;

use ctk_kernels::Kind;
use cudarc::cublas::{result as cublas, sys as blas};
use cudarc::cudnn::{result as cudnn, sys as dnn};
use cudarc::driver::{result as driver, sys};

use self::libraries::{Build, devices, found};
use crate::calls::{Address, Argument, Calls, Convolution, Fault, MatrixProduct, Product, Rules, THREADS};
use crate::found::{Listed, chosen, usable};

fn fault(call: &str) -> impl Fn(&dyn std::fmt::Debug) -> Fault + '_ {
    move |said| Fault::Call { call: call.to_string(), said: format!("{said:?}") }
}

/// The result of a call by the library's own error.
fn done<T, E: std::fmt::Debug>(call: &str, result: Result<T, E>) -> Result<T, Fault> {
    result.map_err(|e| fault(call)(&e))
}

/// A chosen algorithm of cuDNN, and the workspace that it needs.
#[derive(Clone, Copy)]
enum Algorithm {
    Output(dnn::cudnnConvolutionFwdAlgo_t),
    Input(dnn::cudnnConvolutionBwdDataAlgo_t),
    Weight(dnn::cudnnConvolutionBwdFilterAlgo_t),
}

/// What algorithms are kept for: a product, its shape and number type.
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
    algorithms: Mutex<HashMap<Shape, (Algorithm, usize)>>,
}

// SAFETY: the handles are pointers to what the libraries own, which may be used by any thread that has made the context current, as every
// method here does first; `functions` and `algorithms` are behind locks, and cuBLAS's and cuDNN's handles are used by one thread at a time,
// because a device's operations come from the one thread that trains.
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
        // SAFETY: `device` is from `cuDeviceGet`; the context is current when the stream is made and the module is loaded; the image is
        // NVRTC's, with the 0 at the end that PTX must have; the handles are new.
        unsafe {
            let context = done("cuDevicePrimaryCtxRetain", driver::primary_ctx::retain(device))?;
            done("cuCtxSetCurrent", driver::ctx::set_current(context))?;
            let stream = done("cuStreamCreate", driver::stream::create(driver::stream::StreamKind::NonBlocking))?;
            let module = done("cuModuleLoadData", driver::module::load_data(image.as_ptr().cast()))?;
            let blas = done("cublasCreate", cublas::create_handle())?;
            done("cublasSetStream", cublas::set_stream(blas, stream.cast()))?;
            let dnn = done("cudnnCreate", cudnn::create_handle())?;
            done("cudnnSetStream", cudnn::set_stream(dnn, stream.cast()))?;
            let (functions, algorithms) = (Mutex::default(), Mutex::default());
            Ok(Vendor { listed, device, context, stream, module, functions, blas, dnn, algorithms })
        }
    }

    /// Makes the context current on this thread.
    fn here(&self) -> Result<(), Fault> {
        // SAFETY: the context is retained until this is dropped.
        done("cuCtxSetCurrent", unsafe { driver::ctx::set_current(self.context) })
    }

    fn function(&self, name: &str) -> Result<sys::CUfunction, Fault> {
        let mut functions = self.functions.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(function) = functions.get(name) {
            return Ok(*function);
        }
        let text = CString::new(name).map_err(|e| fault("cuModuleGetFunction")(&e))?;
        // SAFETY: the module is loaded until this is dropped.
        let function = done(name, unsafe { driver::module::get_function(self.module, text) })?;
        functions.insert(name.to_string(), function);
        Ok(function)
    }

    /// The algorithm for a product and its workspace: the first that cuDNN's heuristic proposes and that is allowed, kept for the shape.
    fn algorithm(&self, what: Product, of: &Convolution) -> Result<(Algorithm, usize), Fault> {
        let g = &of.geometry;
        let shape = (what, [g.n, g.h, g.w, g.c, g.o, g.oh, g.ow, g.kernel, g.stride, g.padding], of.kind, of.rules);
        let mut kept = self.algorithms.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(found) = kept.get(&shape) {
            return Ok(*found);
        }
        let found = self.proposed(what, &Described::new(of)?, of.rules.deterministic)?;
        kept.insert(shape, found);
        Ok(found)
    }

    /// cuDNN 9, `cudnnGetConvolutionForwardAlgorithm_v7`, `cudnnGetConvolutionBackwardDataAlgorithm_v7`,
    /// `cudnnGetConvolutionBackwardFilterAlgorithm_v7`: proposals by expected time; each has a status, its memory and its determinism.
    fn proposed(&self, what: Product, d: &Described, deterministic: bool) -> Result<(Algorithm, usize), Fault> {
        const MOST: usize = 10;
        let allowed = |status: dnn::cudnnStatus_t, determinism: dnn::cudnnDeterminism_t| {
            status == dnn::cudnnStatus_t::CUDNN_STATUS_SUCCESS
                && (!deterministic || determinism == dnn::cudnnDeterminism_t::CUDNN_DETERMINISTIC)
        };
        let none = || Fault::Call {
            call: "choosing an algorithm of cuDNN".to_string(),
            said: format!("there is none for {:?}{}", d.what, if deterministic { " that is deterministic" } else { "" }),
        };
        let (most, mut count) = (MOST as c_int, 0);
        macro_rules! propose {
            ($call:path, $results:ty, $kind:path, $size:path, [$($descriptor:expr),*]) => {{
                // SAFETY: results are plain numbers, for which zeros are values.
                let mut results: [$results; MOST] = unsafe { std::mem::zeroed() };
                // SAFETY: handle and descriptors are alive, and `results` has room for `most` results.
                let proposed = unsafe { $call(self.dnn, $($descriptor),*, most, &mut count, results.as_mut_ptr()) };
                done(stringify!($call), proposed)?;
                let mut sizes = results[..count.clamp(0, most) as usize].iter().filter(|r| allowed(r.status, r.determinism)).map(|r| {
                    // SAFETY: as above.
                    (r.algo, unsafe { $size(self.dnn, $($descriptor),*, r.algo) })
                });
                let found = sizes.find_map(|(algorithm, size)| Some(($kind(algorithm), size.ok()?)));
                found.ok_or_else(none)
            }};
        }
        match what {
            Product::Output => propose!(
                cudnn::get_convolution_forward_algorithm,
                dnn::cudnnConvolutionFwdAlgoPerf_t,
                Algorithm::Output,
                cudnn::get_convolution_forward_workspace_size,
                [d.x, d.w, d.convolution, d.y]
            ),
            Product::Input => propose!(
                cudnn::get_convolution_backward_data_algorithm,
                dnn::cudnnConvolutionBwdDataAlgoPerf_t,
                Algorithm::Input,
                cudnn::get_convolution_backward_data_workspace_size,
                [d.w, d.y, d.convolution, d.x]
            ),
            Product::Weight => propose!(
                cudnn::get_convolution_backward_filter_algorithm,
                dnn::cudnnConvolutionBwdFilterAlgoPerf_t,
                Algorithm::Weight,
                cudnn::get_convolution_backward_filter_workspace_size,
                [d.x, d.y, d.convolution, d.w]
            ),
        }
    }
}

/// cuDNN's descriptors of a convolution, destroyed when this is dropped.
struct Described {
    x: dnn::cudnnTensorDescriptor_t,
    y: dnn::cudnnTensorDescriptor_t,
    w: dnn::cudnnFilterDescriptor_t,
    convolution: dnn::cudnnConvolutionDescriptor_t,
    what: String,
}

impl Described {
    /// cuDNN 9, `cudnnSetTensor4dDescriptor` (n, c, h, w in this order whatever the format), `cudnnSetFilter4dDescriptor` (k, c, h, w; with
    /// NHWC the values lie as KRSC), `cudnnSetConvolution2dDescriptor` (the compute type is float for bf16 and float, double for double),
    /// `cudnnSetConvolutionMathType` (`FMA_MATH` keeps f32 from TF32).
    fn new(of: &Convolution) -> Result<Described, Fault> {
        let g = &of.geometry;
        let [n, h, w, c, o, oh, ow, kernel, stride, padding] =
            [g.n, g.h, g.w, g.c, g.o, g.oh, g.ow, g.kernel, g.stride, g.padding].map(|size| size as c_int);
        let (kind, compute) = match of.kind {
            Kind::F32 => (dnn::cudnnDataType_t::CUDNN_DATA_FLOAT, dnn::cudnnDataType_t::CUDNN_DATA_FLOAT),
            Kind::F64 => (dnn::cudnnDataType_t::CUDNN_DATA_DOUBLE, dnn::cudnnDataType_t::CUDNN_DATA_DOUBLE),
            Kind::Bf16 => (dnn::cudnnDataType_t::CUDNN_DATA_BFLOAT16, dnn::cudnnDataType_t::CUDNN_DATA_FLOAT),
        };
        let math = match (of.kind, of.rules.exact) {
            (Kind::F32, true) => dnn::cudnnMathType_t::CUDNN_FMA_MATH,
            (Kind::F32, false) => dnn::cudnnMathType_t::CUDNN_DEFAULT_MATH,
            (Kind::Bf16, _) => dnn::cudnnMathType_t::CUDNN_TENSOR_OP_MATH,
            (Kind::F64, _) => dnn::cudnnMathType_t::CUDNN_DEFAULT_MATH,
        };
        let format = dnn::cudnnTensorFormat_t::CUDNN_TENSOR_NHWC;
        let (ones, mode) = (1, dnn::cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION);
        let described = Described {
            x: done("cudnnCreateTensorDescriptor", cudnn::create_tensor_descriptor())?,
            y: done("cudnnCreateTensorDescriptor", cudnn::create_tensor_descriptor())?,
            w: done("cudnnCreateFilterDescriptor", cudnn::create_filter_descriptor())?,
            convolution: done("cudnnCreateConvolutionDescriptor", cudnn::create_convolution_descriptor())?,
            what: format!("{of:?}"),
        };
        let Described { x, y, w: filter, convolution, .. } = described;
        // SAFETY: the descriptors are new and alive.
        unsafe {
            done("cudnnSetTensor4dDescriptor", cudnn::set_tensor4d_descriptor(x, format, kind, [n, c, h, w]))?;
            done("cudnnSetTensor4dDescriptor", cudnn::set_tensor4d_descriptor(y, format, kind, [n, o, oh, ow]))?;
            done("cudnnSetFilter4dDescriptor", cudnn::set_filter4d_descriptor(filter, kind, format, [o, c, kernel, kernel]))?;
            let set =
                cudnn::set_convolution2d_descriptor(convolution, padding, padding, stride, stride, ones, ones, mode, compute);
            done("cudnnSetConvolution2dDescriptor", set)?;
            done("cudnnSetConvolutionMathType", cudnn::set_convolution_math_type(convolution, math))?;
        }
        Ok(described)
    }
}

impl Drop for Described {
    fn drop(&mut self) {
        // SAFETY: they were made by `new` and are destroyed once. A failure leaves nothing to do.
        unsafe {
            let _ = cudnn::destroy_tensor_descriptor(self.x);
            let _ = cudnn::destroy_tensor_descriptor(self.y);
            let _ = cudnn::destroy_filter_descriptor(self.w);
            let _ = cudnn::destroy_convolution_descriptor(self.convolution);
        }
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
            sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
                let (free, total) = driver::mem_get_info().unwrap_or((0, self.listed.memory));
                Fault::Memory { asked: bytes, free, total }
            }
            _ => fault("cuMemAlloc")(&e),
        })
    }

    fn free(&self, at: Address) {
        if self.here().is_ok() {
            // SAFETY: the address is from `cuMemAlloc` and is freed once; `cuMemFree` waits for work that uses it.
            let _ = unsafe { driver::free_sync(at) };
        }
    }

    /// 6.11: `cuMemcpyHtoDAsync` from memory that is not pinned has read it when it returns.
    fn upload(&self, from: &[u8], to: Address) -> Result<(), Fault> {
        self.here()?;
        // SAFETY: `to` has at least as many bytes.
        done("cuMemcpyHtoDAsync", unsafe { driver::memcpy_htod_async(to, from, self.stream) })
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

    fn workspace(&self, what: Product, of: &Convolution) -> Result<usize, Fault> {
        self.here()?;
        Ok(self.algorithm(what, of)?.1)
    }

    /// cuDNN 9, `cudnnConvolutionForward`, `cudnnConvolutionBackwardData`, `cudnnConvolutionBackwardFilter`: result = α·product + β·result.
    fn convolve(
        &self,
        what: Product,
        of: &Convolution,
        [a, b]: [Address; 2],
        beta: f64,
        to: Address,
        (workspace, bytes): (Address, usize),
    ) -> Result<(), Fault> {
        self.here()?;
        let (algorithm, _) = self.algorithm(what, of)?;
        let d = Described::new(of)?;
        let factors = Factors::new(beta, of.kind);
        let (alpha, beta) = (factors.place(0), factors.place(1));
        let (a, b, to, workspace) = (a as *const c_void, b as *const c_void, to as *mut c_void, workspace as *mut c_void);
        // SAFETY: the descriptors say the shapes and types of the blocks at these addresses, which `device.rs` has made for them; the factors
        // live until the call returns; the workspace has the bytes that cuDNN asked for.
        unsafe {
            match algorithm {
                Algorithm::Output(chosen) => done(
                    "cudnnConvolutionForward",
                    cudnn::convolution_forward(
                        self.dnn,
                        alpha,
                        d.x,
                        a,
                        d.w,
                        b,
                        d.convolution,
                        chosen,
                        workspace,
                        bytes,
                        beta,
                        d.y,
                        to,
                    ),
                ),
                // From dy and w; cuDNN takes w first.
                Algorithm::Input(chosen) => done(
                    "cudnnConvolutionBackwardData",
                    cudnn::convolution_backward_data(
                        self.dnn,
                        alpha,
                        d.w,
                        b,
                        d.y,
                        a,
                        d.convolution,
                        chosen,
                        workspace,
                        bytes,
                        beta,
                        d.x,
                        to,
                    ),
                ),
                Algorithm::Weight(chosen) => done(
                    "cudnnConvolutionBackwardFilter",
                    cudnn::convolution_backward_filter(
                        self.dnn,
                        alpha,
                        d.x,
                        a,
                        d.y,
                        b,
                        d.convolution,
                        chosen,
                        workspace,
                        bytes,
                        beta,
                        d.w,
                        to,
                    ),
                ),
            }
        }
    }

    /// cuBLAS 12, 2.8.12 `cublasGemmEx`: column by column, C (m × n) = α·op(A)·op(B) + β·C. A matrix that lies row by row is, column by
    /// column, its transpose, so C = a·b row by row is Cᵀ = bᵀ·aᵀ: the operands change places, and m and n.
    fn multiply(&self, of: &MatrixProduct, [a, b]: [Address; 2], to: Address) -> Result<(), Fault> {
        self.here()?;
        let [m, n, k] = of.shape.map(|size| size as c_int);
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
        // SAFETY: the shapes are those of the blocks at these addresses, which `device.rs` has made for them; the factors live until the call
        // returns.
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
        done("cublasGemmEx", multiplied)
    }
}

impl Drop for Vendor {
    fn drop(&mut self) {
        // SAFETY: everything was made by `open` and is released once, after the stream's work. A failure leaves nothing to do.
        unsafe {
            if self.here().is_ok() {
                let _ = driver::stream::synchronize(self.stream);
                let _ = cudnn::destroy_handle(self.dnn);
                let _ = cublas::destroy_handle(self.blas);
                let _ = driver::module::unload(self.module);
                let _ = driver::stream::destroy(self.stream);
            }
            let _ = driver::primary_ctx::release(self.device);
        }
    }
}
