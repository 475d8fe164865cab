//! Networks: chains of layers with a tape of their own.
//!
//! Candle's autograd adds zeros to every activation's gradient, edge by edge, on one thread, and its gradients of convolution and pooling
//! are slow or wrong. So a [`Sequential`] runs our kernels over NHWC buffers and keeps a [`Tape`]. Played in reverse, the tape adds the
//! parameters' gradients to the model's [`GradientStore`] and returns the input's gradient.
//!
//! Every [`Layer`] has two implementations, called roads, that give the same values. `forward`, and the backward step that it leaves on the
//! tape, is written once for any [`Device`](ctk_kernels::Device), of which the CPU is one; a network runs on the device of its parameters.
//! `reference` is the same layer in plain candle operations with candle's own gradients; it is the oracle of the tests.
//!
//! Images are `(n, h, w, c)`, features and tokens `(n, c)`. Parameters keep PyTorch's layouts (convolutions OIHW, linear layers (out, in))
//! and are repacked when they are used. Everything works in f32 and f64; finite differences are taken in f64. A pass in [mixed
//! precision](Precision::Bf16) stores maps and multiplies in bf16; parameters, sums and statistics stay in f32.

mod added;
pub mod array;
mod attention;
pub(crate) mod cases;
mod conv;
mod dropout;
mod embedding;
mod flow;
pub mod gradient;
mod late;
mod layer;
mod layer_norm;
mod linear;
mod norm;
mod param;
pub mod params;
pub mod pass;
mod patches;
mod pool;
mod probe;
mod reference;
mod resampling;
mod residual;
pub mod rows;
mod scale;
mod select;
pub mod tape;
pub(crate) mod tensors;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use candle_core::{DType, Tensor, Var};
use ctk_kernels::{Bf16, Cpu, Device, Number};

use crate::device::{self, Rules};
use crate::error::{Error, Result};
use flow::{Activation, Behaviour, Chain as _, Context};
use gradient::GradientStore;
use param::Param;
use pass::{Mode, Pass, Precision, Split};
use rows::Rows;
use tape::Tape;

pub use added::AddedRow;
pub use attention::Attention;
pub use conv::Conv2d;
pub use ctk_kernels::Gelu;
pub use dropout::Dropout;
pub use embedding::Embedding;
pub use layer::{Layer, Residual, Select};
pub use layer_norm::LayerNorm;
pub use linear::Linear;
pub use norm::BatchNorm;
pub(crate) use norm::EPSILON;
pub use patches::{Patches, Tokens};
pub use pool::{AvgPool, MaxPool, Padding};
pub use probe::Probe;
pub use resampling::Resampling;
pub use residual::Nonlinearity;
pub use scale::Scale;

/// Layers in order, run as one operation.
///
/// ```
/// use ctk_core::nn::params::{Init, ParamKind, Params};
/// use ctk_core::nn::{Layer, Linear, Sequential, pass::Pass, rows::Rows};
/// use ctk_core::{DType, Device, Tensor, rng::Key, world::solo};
///
/// let mut params = Params::new();
/// let linear = Linear::new([2, 3], true, ParamKind::Weight, Init::Constant(0.5), params.root().sub("encoder"));
/// let layers = Sequential::new(vec![Layer::Linear(linear), Layer::Relu], params.gradient_store());
/// params.materialise(Key::new(0), DType::F32, &Device::Cpu)?;
///
/// let x = Tensor::new(&[[1f32, 2.0, 3.0]], &candle_core::Device::Cpu)?;
/// let (y, tape) = layers.forward(&x, &Rows::alone(1), &Pass::train(Key::new(0), &solo()))?;
/// assert_eq!(y.to_vec2::<f32>()?, [[3.0, 3.0]]);
///
/// // The way back takes the output's gradient, gives the input's, and leaves the parameters' with `params`.
/// let dx = tape.play(&y.ones_like()?, true)?.expect("the input's gradient was asked for");
/// assert_eq!(dx.to_vec2::<f32>()?, [[1.0, 1.0, 1.0]]);
/// assert!(params.gradients()?.iter().all(Option::is_some));
/// # Ok::<(), ctk_core::Error>(())
/// ```
pub struct Sequential {
    layers: Vec<Layer>,
    store: GradientStore,
    /// The first parameter, on whose device the chain runs.
    first: Option<Arc<Param>>,
    /// How many of the first layers are frozen: they run as in evaluation and keep nothing.
    frozen: usize,
    reference: bool,
    /// The CPU with the buffers of passes that are over, which the next pass uses again.
    cpu: Cpu,
}

impl Sequential {
    /// A chain whose parameters' gradients go to `store`, the store of the [`Params`](params::Params) that they are declared in.
    pub fn new(layers: Vec<Layer>, store: GradientStore) -> Self {
        let mut params = Vec::new();
        layers.params(&mut params);
        let frozen = layer::frozen(&layers);
        Sequential { layers, store, first: params.into_iter().next(), frozen, reference: false, cpu: Cpu::default() }
    }

    /// The same chain in candle's operations with candle's own gradients: the oracle of tests, many times slower.
    pub fn reference(self) -> Self {
        Sequential { reference: true, ..self }
    }

    /// The device of its parameters. A chain without any runs on the CPU.
    pub fn device(&self) -> device::Device {
        self.first.as_ref().map_or(device::Device::Cpu, |param| param.device())
    }

    /// Runs `(n, h, w, c)` images, `(n, c)` features or `(tokens, c)` rows of tokens through the chain; a chain that begins with an
    /// embedding table takes `(tokens,)` ids. The output is `(n, c)` if the input has no height and width, or if a layer removes them
    /// ([`Layer::GlobalAverage`], [`Layer::Linear`]). `rows` identifies the rows and, for texts, their tokens.
    ///
    /// With `pass.tape` the returned tape runs the backward pass, once; without it nothing is kept. `pass.statistics` applies either way:
    /// an untrained network is calibrated by passes that update the running statistics without training. Where the pass [splits] its rows,
    /// each group runs alone, with batch statistics of its own, and updates the running statistics, as it would on a device of its own.
    ///
    /// [splits]: Pass::split
    ///
    /// # Errors
    /// A shape that does not fit, batch statistics of a single row, a parameter that lies on another device than the first, a failure of the
    /// device, or rows of tokens that would have to be divided into groups.
    pub fn forward(&self, x: &Tensor, rows: &Rows, pass: &Pass) -> Result<(Tensor, Tape)> {
        let expected = match rows.offsets() {
            Some(offsets) => offsets.last().map_or(0, |&end| end as usize),
            None => rows.len(),
        };
        if x.dims().first() != Some(&expected) {
            return Err(Error::new(format!("an input of shape {:?} for {expected} rows", x.dims())));
        }
        let Some(split) = pass.split(rows) else { return self.run(x, rows, pass) };
        if rows.offsets().is_some() {
            return Err(Error::new("rows of tokens cannot be cut into groups of batch statistics"));
        }
        let (x, rows) = match &split.order {
            Some(order) => (pick(x, order)?, rows.pick(order)),
            None => (x.clone(), rows.clone()),
        };
        let (mut outputs, mut tapes, mut from) = (Vec::new(), Vec::new(), 0);
        for &size in &split.sizes {
            let (y, tape) = self.run(&x.narrow(0, from, size)?, &rows.narrow(from, size), pass)?;
            outputs.push(y);
            tapes.push(tape);
            from += size;
        }
        let y = Tensor::cat(&outputs, 0)?;
        let y = match &split.order {
            Some(order) => pick(&y, &Split::back(order))?,
            None => y,
        };
        let tape = if pass.tape { Tape::new(move |gradient, want| backward(split, tapes, gradient, want)) } else { Tape::none() };
        Ok((y, tape))
    }

    /// The output of `next` for this chain's output, as two calls of [`forward`](Sequential::forward) give it. Chains of one model run as one,
    /// so what is between them stays on the device.
    ///
    /// # Errors
    /// As [`forward`](Sequential::forward).
    pub fn through(&self, next: &Sequential, x: &Tensor, rows: &Rows, pass: &Pass) -> Result<(Tensor, Tape)> {
        if self.reference != next.reference || !self.store.is(&next.store) {
            let (between, first) = self.forward(x, rows, pass)?;
            let (y, second) = next.forward(&between, rows, pass)?;
            return Ok((y, first.then(second)));
        }
        let layers = self.layers.iter().chain(&next.layers).cloned().collect();
        let joined = Sequential::new(layers, self.store.clone());
        Sequential { reference: self.reference, cpu: self.cpu.clone(), ..joined }.forward(x, rows, pass)
    }

    fn run(&self, x: &Tensor, rows: &Rows, pass: &Pass) -> Result<(Tensor, Tape)> {
        let ids = x.dtype() == DType::U32;
        let flat = match x.rank() {
            1 if ids => true,
            2 if !ids => true,
            4 if !ids => self.layers.iter().any(Layer::flattens),
            _ => {
                let what = "a network reads (n, h, w, c) images, (n, c) features or (n,) ids";
                return Err(Error::new(format!("{what}, not {:?} of {:?}", x.dims(), x.dtype())));
            }
        };
        if x.elem_count() == 0 {
            return Err(Error::new(format!("a network cannot read the empty input {:?}", x.dims())));
        }
        let key = (pass.mode == Mode::Train).then_some(pass.key);
        let behaviour = Behaviour { statistics: pass.statistics, rows: rows.clone(), key };
        let (y, tape) = match self.device() {
            _ if self.reference => self.in_candle(x, behaviour, pass)?,
            device::Device::Cpu => self.on(&self.cpu, x, behaviour, pass)?,
            // Features are computed exactly.
            device::Device::Cuda(cuda) if pass.mode == Mode::Evaluate => {
                let exact = cuda.by(Rules { exact: true, ..cuda.rules() });
                whole(|| self.on(&exact, x, behaviour, pass))?
            }
            device::Device::Cuda(cuda) => whole(|| self.on(&cuda, x, behaviour, pass))?,
        };
        match y.dims() {
            [_, 1, 1, _] if flat => Ok((y.flatten_from(1)?, tape)),
            _ => Ok((y, tape)),
        }
    }

    /// Runs on the kernels of a device, in the number type of the input and the pass.
    fn on<D: Device>(&self, device: &D, x: &Tensor, behaviour: Behaviour, pass: &Pass) -> Result<(Tensor, Tape)> {
        // A network that reads ids computes in the type of its parameters.
        let first = self.first.as_ref().filter(|_| x.dtype() == DType::U32);
        let dtype = first.map_or(x.dtype(), |param| param.dtype());
        match (dtype, pass.precision) {
            (DType::F32, Precision::Bf16) => self.kernels::<_, Bf16>(device, x, behaviour, pass),
            (DType::F32, Precision::F32) => self.kernels::<_, f32>(device, x, behaviour, pass),
            (DType::F64, _) => self.kernels::<_, f64>(device, x, behaviour, pass),
            (other, _) => Err(Error::new(format!("a network runs in f32 or f64, not {other:?}"))),
        }
    }

    fn kernels<D: Device, T: Number>(&self, device: &D, x: &Tensor, behaviour: Behaviour, pass: &Pass) -> Result<(Tensor, Tape)> {
        let (store, keep, recompute) = (self.store.clone(), pass.tape, pass.recompute);
        let context = Context { device: device.clone(), store, behaviour, keep, recompute };
        let (y, steps) = if x.dtype() == DType::U32 {
            layer::look_up(&self.layers, self.frozen, &x.to_vec1()?, &context)?
        } else {
            let x = Activation::<D, T>::from(Arc::new(tensors::to_map(x, device)?));
            layer::forward(&self.layers, self.frozen, x, &context)?
        };
        let y = y.plain();
        let y = tensors::from_vec(y.load(), &y.shape()[..])?;
        let Some(steps) = steps else { return Ok((y, Tape::none())) };
        let (device, shape, frozen) = (device.clone(), x.shape().clone(), self.frozen);
        let tape = Tape::new(move |gradient, want| {
            whole(|| {
                if frozen > 0 {
                    // Nothing in front of the frozen layers learns by this pass.
                    flow::backward(steps, Arc::new(tensors::to_map(gradient, &device)?), false)?;
                    return Ok(None);
                }
                let dx = flow::backward(steps, Arc::new(tensors::to_map(gradient, &device)?), want)?;
                dx.map(|dx| tensors::from_vec(dx.load(), shape)).transpose()
            })
        });
        Ok((y, tape))
    }

    fn in_candle(&self, x: &Tensor, behaviour: Behaviour, pass: &Pass) -> Result<(Tensor, Tape)> {
        let (y, leaf) = if x.dtype() == DType::U32 {
            (layer::look_up_reference(&self.layers, self.frozen, &x.to_vec1()?, &behaviour)?, None)
        } else {
            let leaf = Var::from_tensor(&x.detach())?;
            let x = leaf.as_tensor();
            let x = if x.rank() == 2 { x.unsqueeze(1)?.unsqueeze(1)? } else { x.clone() };
            (layer::reference(&self.layers, self.frozen, x, &behaviour)?, Some(leaf))
        };
        if !pass.tape {
            return Ok((y.detach(), Tape::none()));
        }
        let mut params = Vec::new();
        self.layers.params(&mut params);
        let (dims, shape) = (y.shape().clone(), x.shape().clone());
        let tape = Tape::of_graph(y.clone(), leaf, params, self.store.clone());
        let tape = Tape::new(move |gradient, want| {
            let dx = tape.play(&gradient.reshape(dims)?, want)?;
            Ok(dx.map(|dx| dx.reshape(shape)).transpose()?)
        });
        Ok((y.detach(), tape))
    }
}

/// Runs `work`. A call of a device that fails ends it, and is the error.
pub(crate) fn whole<R>(work: impl FnOnce() -> Result<R>) -> Result<R> {
    ctk_cuda::caught(work).map_err(Error::new)?
}

/// The rows in the given order.
fn pick(x: &Tensor, order: &[u32]) -> Result<Tensor> {
    Ok(x.contiguous()?.index_select(&Tensor::from_slice(order, order.len(), x.device())?, 0)?)
}

/// The backward pass through groups, the last group first.
fn backward(split: Split, tapes: Vec<Tape>, gradient: &Tensor, want: bool) -> Result<Option<Tensor>> {
    let gradient = match &split.order {
        Some(order) => pick(gradient, order)?,
        None => gradient.clone(),
    };
    let (mut inputs, mut end) = (Vec::new(), split.sizes.iter().sum::<usize>());
    for (tape, size) in tapes.into_iter().zip(split.sizes).rev() {
        end -= size;
        inputs.extend(tape.play(&gradient.narrow(0, end, size)?, want)?);
    }
    if inputs.is_empty() || !want {
        return Ok(None);
    }
    inputs.reverse();
    let dx = Tensor::cat(&inputs, 0)?;
    match &split.order {
        Some(order) => Ok(Some(pick(&dx, &Split::back(order))?)),
        None => Ok(Some(dx)),
    }
}
