//! Networks: a whole chain of layers as ONE operation of the graph, with our own tape.
//!
//! Candle's autograd adds zeros to every activation's gradient, edge by edge, on one thread, and its convolution's and
//! pooling's gradients are slow or wrong. So a [`Sequential`] shows candle a single operation: its forward runs our
//! kernels over NHWC buffers and keeps a tape, its backward plays the tape in reverse and leaves the parameters'
//! gradients in the model's [`Sink`].
//!
//! Every [`Layer`] has two roads to the same numbers: the host road (`forward`, and the step back that it leaves on the
//! tape), and `graph`, the same layer in plain candle operations with candle's own gradients. The second is the oracle of the
//! first, and what devices other than the CPU run.
//!
//! Images are `(n, h, w, c)`, features `(n, c)`; parameters keep PyTorch's layouts (convolutions OIHW, linear layers
//! (out, in)) and are packed on the way in. Everything works in f32 and f64; f64 is what finite differences are taken in. A pass
//! in [mixed precision](Precision::Bf16) keeps maps, and multiplies, in bf16; parameters, sums and statistics stay in f32.

mod cell;
mod conv;
pub(crate) mod cpu;
mod layer;
mod map;
mod norm;
pub mod params;
pub mod pass;
mod pool;
mod residual;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp2, DType, Layout, Shape, Tensor, Var, WithDType as _};

use crate::error::{Error, Result};
use crate::nn::params::Sink;
use crate::nn::pass::{Pass, Precision, Split};

pub use conv::{Conv2d, Linear};
pub use layer::Layer;
pub use norm::BatchNorm;
pub use pool::{AvgPool, MaxPool, Padding};
pub use residual::{Residual, Select};

use cell::{Bf16, Cell};
use layer::{Act, Flow, Host, Tape};
use map::{Map, Pool};

/// Layers in order, run as one operation.
pub struct Sequential {
    layers: Vec<Layer>,
    sink: Sink,
    exact: bool,
    pool: Arc<Pool>,
}

impl Sequential {
    /// A chain whose parameters' gradients go to `sink`, the one of the [`Params`](crate::nn::params::Params) they are declared in.
    pub fn new(layers: Vec<Layer>, sink: Sink) -> Self {
        Sequential { layers, sink, exact: false, pool: Arc::default() }
    }

    /// Whether to run in plain candle operations even where the kernels could: the reference, many times slower.
    pub fn exact(mut self, exact: bool) -> Self {
        self.exact = exact;
        self
    }

    /// Runs `(n, h, w, c)` images or `(n, c)` features through the chain; the output is `(n, c)` if the input was or if a layer
    /// on the way flattens it ([`Layer::GlobalAverage`], [`Layer::Linear`]).
    ///
    /// With `pass.train` a backward pass may follow, once: it returns the input's gradient to candle and leaves those of the
    /// parameters in the sink. Without it nothing is kept and no gradient flows. `pass.statistics` holds either way: an
    /// untrained network is calibrated by passes that update the running statistics without training. Where the pass [splits] its
    /// rows, each group runs alone, with batch statistics of its own, and moves the running ones: what it would be on a device of
    /// its own.
    ///
    /// [splits]: Pass::split
    ///
    /// # Errors
    /// When a shape does not fit, or when normalising by the statistics of a single row.
    pub fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        let Some(split) = x.dims().first().and_then(|&rows| pass.split(rows)) else { return self.run(x, pass) };
        let pick = |x: &Tensor, order: Vec<u32>| -> Result<Tensor> {
            let count = order.len();
            Ok(x.contiguous()?.index_select(&Tensor::from_vec(order, count, x.device())?, 0)?)
        };
        let x = match &split.order {
            Some(order) => pick(x, order.clone())?,
            None => x.clone(),
        };
        let mut groups = Vec::with_capacity(split.sizes.len());
        let mut from = 0;
        for size in split.sizes {
            groups.push(self.run(&x.narrow(0, from, size)?, pass)?);
            from += size;
        }
        let y = Tensor::cat(&groups, 0)?;
        match &split.order {
            Some(order) => pick(&y, Split::back(order)),
            None => Ok(y),
        }
    }

    fn run(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        let flat = match x.rank() {
            2 => true,
            4 => false,
            _ => return Err(Error::new(format!("a network reads (n, h, w, c) images or (n, c) features, not {:?}", x.dims()))),
        };
        if x.elem_count() == 0 {
            return Err(Error::new(format!("a network cannot read the empty input {:?}", x.dims())));
        }
        let flat = flat || self.layers.iter().any(Layer::flattens);
        let y = if self.exact || !x.device().is_cpu() {
            let x = if pass.train { x.clone() } else { x.detach() };
            let x = if x.rank() == 2 { x.unsqueeze(1)?.unsqueeze(1)? } else { x };
            let y = layer::graph(&self.layers, &x, pass.statistics)?;
            if pass.train { y } else { y.detach() }
        } else {
            match x.dtype() {
                DType::F32 if pass.precision == Precision::Bf16 => self.host::<Bf16>(x, pass)?,
                DType::F32 => self.host::<f32>(x, pass)?,
                DType::F64 => self.host::<f64>(x, pass)?,
                other => return Err(Error::new(format!("a network runs in f32 or f64, not {other:?}"))),
            }
        };
        if flat { Ok(y.flatten_from(1)?) } else { Ok(y) }
    }

    fn host<T: Cell>(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        let pool = &self.pool;
        let input = Map::<T>::from_tensor(x, pool)?;
        pool.start(input.shape());
        let (statistics, keep, recompute) = (pass.statistics, pass.train, pass.recompute);
        let host = Host { pool: pool.clone(), sink: self.sink.clone(), statistics, keep, recompute };
        let (y, tape) = layer::forward(&self.layers, Act::from(Arc::new(input)), &host)?;
        let y = y.plain();
        let shape = Shape::from_dims(&y.shape());
        let device = x.device();
        let Some(tape) = tape else { return Ok(Tensor::from_vec(y.to_vec(), shape, device)?) };
        let op = Chain {
            output: Mutex::new(Some((T::Real::to_cpu_storage_owned(y.to_vec()), shape))),
            tape: Mutex::new(Some(tape)),
            host,
        };
        // No parameter is an input of the operation, so a variable of no meaning makes candle come back for the gradient.
        let tie = Var::zeros(1, T::Real::DTYPE, device)?;
        Ok(x.apply_op2(tie.as_tensor(), op)?)
    }
}

/// The operation that candle sees. Its forward has run already.
struct Chain<T: Cell> {
    output: Mutex<Option<(CpuStorage, Shape)>>,
    tape: Mutex<Option<Tape<T>>>,
    host: Host,
}

impl<T: Cell> CustomOp2 for Chain<T> {
    fn name(&self) -> &'static str {
        "sequential"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let output = self.output.lock().unwrap_or_else(PoisonError::into_inner).take();
        Ok(output.ok_or_else(|| Error::new("a network's operation ran twice"))?)
    }

    fn bwd(
        &self,
        x: &Tensor,
        _: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let tape = self.tape.lock().unwrap_or_else(PoisonError::into_inner).take();
        let tape =
            tape.ok_or_else(|| Error::new("a network's gradient was asked for twice; its tape is gone after the first time"))?;
        let dy: Flow<T> = Arc::new(Map::from_tensor(gradient, &self.host.pool)?);
        let dx = layer::backward(tape, dy, x.track_op())?;
        let dx = dx.map(|dx| Tensor::from_vec(dx.to_vec(), x.shape(), x.device())).transpose()?;
        Ok((dx, None))
    }
}
