//! Convolutions by cuDNN 9 ("Graph and Legacy API"): what describes one, the algorithms that cuDNN proposes for it, and its calls.

use std::collections::VecDeque;
use std::ffi::{c_int, c_void};

use ctk_kernels::Kind;
use cudarc::cudnn::{result as cudnn, sys as dnn};

use super::{done, full, sizes};
use crate::calls::{Address, Convolution, Fault, Product};

/// Proposals that are asked for.
const MOST: usize = 10;

/// Bytes of a workspace from which on cuDNN's answer is no size: it is known to return some near 2⁶³.
const ABSURD: usize = 1 << 40;

/// The first status of those by which cuDNN says that it does not support something, and the first after them.
const UNSUPPORTED: std::ops::Range<u32> = 3000..4000;

/// The status of a library that finds no memory on the device for itself.
const FULL: u32 = dnn::cudnnStatus_t::CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED as u32;

/// An algorithm of cuDNN.
#[derive(Clone, Copy)]
enum Algorithm {
    Output(dnn::cudnnConvolutionFwdAlgo_t),
    Input(dnn::cudnnConvolutionBwdDataAlgo_t),
    Weight(dnn::cudnnConvolutionBwdFilterAlgo_t),
}

/// A proposal: the algorithm, the math type that it was proposed with, and the workspace that it needs.
struct Proposal {
    algorithm: Algorithm,
    math: dnn::cudnnMathType_t,
    bytes: usize,
}

/// A product of a convolution: its descriptors, and the proposals that have not been rejected, the fastest first.
pub(super) struct Planned {
    described: Described,
    proposals: VecDeque<Proposal>,
    what: String,
}

impl Planned {
    /// Asks cuDNN for proposals.
    ///
    /// `cudnnGetConvolutionForwardAlgorithm_v7`, `cudnnGetConvolutionBackwardDataAlgorithm_v7`,
    /// `cudnnGetConvolutionBackwardFilterAlgorithm_v7`: by expected time; each has a status, a math type, its memory and its determinism, and
    /// is to be run with the math type that it was proposed with.
    ///
    /// # Safety
    /// The handle is alive, no other thread uses it, and its context is current.
    pub unsafe fn new(handle: dnn::cudnnHandle_t, what: Product, of: &Convolution) -> Result<Planned, Fault> {
        if of.kind == Kind::F64 {
            let said = "cuDNN has no convolutions of f64 with contiguous channels; they run on the CPU".to_string();
            return Err(Fault::Call { call: "choosing an algorithm of cuDNN".to_string(), said });
        }
        let d = Described::new(of)?;
        let allowed = |status: dnn::cudnnStatus_t, determinism: dnn::cudnnDeterminism_t, math: dnn::cudnnMathType_t| {
            status == dnn::cudnnStatus_t::CUDNN_STATUS_SUCCESS
                && (!of.rules.deterministic || determinism == dnn::cudnnDeterminism_t::CUDNN_DETERMINISTIC)
                && (of.kind != Kind::F32 || !of.rules.exact || math == dnn::cudnnMathType_t::CUDNN_FMA_MATH)
        };
        let (most, mut count) = (MOST as c_int, 0);
        let mut proposals = VecDeque::new();
        macro_rules! propose {
            ($name:literal, $call:path, $results:ty, $kind:path, $size:path, [$($descriptor:expr),*]) => {{
                // SAFETY: results are plain numbers, for which zeros are values.
                let mut results: [$results; MOST] = unsafe { std::mem::zeroed() };
                // SAFETY: handle and descriptors are alive, and `results` has room for `most` results.
                done($name, unsafe { $call(handle, $($descriptor),*, most, &mut count, results.as_mut_ptr()) })?;
                let found = results[..count.clamp(0, most) as usize].iter();
                for r in found.filter(|r| allowed(r.status, r.determinism, r.mathType)) {
                    // SAFETY: handle and descriptors are alive. The math type is set first, because the size depends on it.
                    let size = unsafe {
                        done("cudnnSetConvolutionMathType", cudnn::set_convolution_math_type(d.convolution, r.mathType))?;
                        $size(handle, $($descriptor),*, r.algo)
                    };
                    if let Some(bytes) = size.ok().filter(|bytes| *bytes < ABSURD) {
                        proposals.push_back(Proposal { algorithm: $kind(r.algo), math: r.mathType, bytes });
                    }
                }
            }};
        }
        match what {
            Product::Output => propose!(
                "cudnnGetConvolutionForwardAlgorithm_v7",
                cudnn::get_convolution_forward_algorithm,
                dnn::cudnnConvolutionFwdAlgoPerf_t,
                Algorithm::Output,
                cudnn::get_convolution_forward_workspace_size,
                [d.x, d.w, d.convolution, d.y]
            ),
            Product::Input => propose!(
                "cudnnGetConvolutionBackwardDataAlgorithm_v7",
                cudnn::get_convolution_backward_data_algorithm,
                dnn::cudnnConvolutionBwdDataAlgoPerf_t,
                Algorithm::Input,
                cudnn::get_convolution_backward_data_workspace_size,
                [d.w, d.y, d.convolution, d.x]
            ),
            Product::Weight => propose!(
                "cudnnGetConvolutionBackwardFilterAlgorithm_v7",
                cudnn::get_convolution_backward_filter_algorithm,
                dnn::cudnnConvolutionBwdFilterAlgoPerf_t,
                Algorithm::Weight,
                cudnn::get_convolution_backward_filter_workspace_size,
                [d.x, d.y, d.convolution, d.w]
            ),
        }
        Ok(Planned { described: d, proposals, what: format!("{what:?} of {of:?}") })
    }

    /// The proposal that is to be run.
    fn first(&self) -> Result<&Proposal, Fault> {
        self.proposals.front().ok_or_else(|| Fault::Call {
            call: "choosing an algorithm of cuDNN".to_string(),
            said: format!("there is none for {}", self.what),
        })
    }

    /// The bytes of working memory that it needs.
    pub fn workspace(&self) -> Result<usize, Fault> {
        self.first().map(|first| first.bytes)
    }

    /// Gives the proposal up that is to be run; whether there is another.
    pub fn reject(&mut self) -> bool {
        self.proposals.pop_front();
        !self.proposals.is_empty()
    }

    /// Runs it: `cudnnConvolutionForward`, `cudnnConvolutionBackwardData`, `cudnnConvolutionBackwardFilter`: result = α·product + β·result.
    ///
    /// # Safety
    /// As for [`new`](Planned::new); the addresses have the shapes and types of the convolution, the workspace has the bytes of
    /// [`workspace`](Planned::workspace), and the factors live until this returns.
    pub unsafe fn run(
        &mut self,
        handle: dnn::cudnnHandle_t,
        [alpha, beta]: [*const c_void; 2],
        [a, b]: [Address; 2],
        to: Address,
        (workspace, bytes): (Address, usize),
    ) -> Result<(), Fault> {
        let Proposal { algorithm, math, .. } = *self.first()?;
        let d = &self.described;
        let (a, b, to, workspace) = (a as *const c_void, b as *const c_void, to as *mut c_void, workspace as *mut c_void);
        // SAFETY: handle and context are alive and this thread's own, and shapes, factors and workspace those of the plan, as this function asks
        // of its caller. Working memory that is given back is used by later calls of the same stream alone.
        let (call, status) = unsafe {
            done("cudnnSetConvolutionMathType", cudnn::set_convolution_math_type(d.convolution, math))?;
            let c = d.convolution;
            match algorithm {
                Algorithm::Output(chosen) => (
                    "cudnnConvolutionForward",
                    cudnn::convolution_forward(handle, alpha, d.x, a, d.w, b, c, chosen, workspace, bytes, beta, d.y, to),
                ),
                // From dy and w; cuDNN takes w first.
                Algorithm::Input(chosen) => (
                    "cudnnConvolutionBackwardData",
                    cudnn::convolution_backward_data(handle, alpha, d.w, b, d.y, a, c, chosen, workspace, bytes, beta, d.x, to),
                ),
                Algorithm::Weight(chosen) => (
                    "cudnnConvolutionBackwardFilter",
                    cudnn::convolution_backward_filter(handle, alpha, d.x, a, d.y, b, c, chosen, workspace, bytes, beta, d.w, to),
                ),
            }
        };
        match status {
            Err(error) if UNSUPPORTED.contains(&(error.0 as u32)) => Err(Fault::Unsupported(format!("{call}: {:?}", error.0))),
            Err(error) if error.0 as u32 == FULL => Err(full(0)),
            status => done(call, status),
        }
    }
}

/// cuDNN's descriptors of a convolution, destroyed when this is dropped.
struct Described {
    x: dnn::cudnnTensorDescriptor_t,
    y: dnn::cudnnTensorDescriptor_t,
    w: dnn::cudnnFilterDescriptor_t,
    convolution: dnn::cudnnConvolutionDescriptor_t,
}

impl Described {
    /// cuDNN 9, `cudnnSetTensor4dDescriptor` (n, c, h, w in this order whatever the format), `cudnnSetFilter4dDescriptor` (k, c, h, w; with
    /// NHWC the values lie as KRSC), `cudnnSetConvolution2dDescriptor` (the compute type is float for bf16 and float, double for double),
    /// `cudnnSetConvolutionMathType` (`FMA_MATH` keeps f32 from TF32).
    fn new(of: &Convolution) -> Result<Described, Fault> {
        let g = &of.geometry;
        let [n, h, w, c, o, oh, ow, kernel, stride, padding] =
            sizes([g.n, g.h, g.w, g.c, g.o, g.oh, g.ow, g.kernel, g.stride, g.padding])?;
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
        // What is made is destroyed by `drop`, also if a later call fails.
        let null = std::ptr::null_mut();
        let mut described = Described { x: null, y: null.cast(), w: null.cast(), convolution: null.cast() };
        described.x = done("cudnnCreateTensorDescriptor", cudnn::create_tensor_descriptor())?;
        described.y = done("cudnnCreateTensorDescriptor", cudnn::create_tensor_descriptor())?;
        described.w = done("cudnnCreateFilterDescriptor", cudnn::create_filter_descriptor())?;
        described.convolution = done("cudnnCreateConvolutionDescriptor", cudnn::create_convolution_descriptor())?;
        let Described { x, y, w: filter, convolution } = described;
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
        // SAFETY: those that are not null were made by `new` and are destroyed once. A failure leaves nothing to do.
        unsafe {
            if !self.x.is_null() {
                let _ = cudnn::destroy_tensor_descriptor(self.x);
            }
            if !self.y.is_null() {
                let _ = cudnn::destroy_tensor_descriptor(self.y);
            }
            if !self.w.is_null() {
                let _ = cudnn::destroy_filter_descriptor(self.w);
            }
            if !self.convolution.is_null() {
                let _ = cudnn::destroy_convolution_descriptor(self.convolution);
            }
        }
    }
}
