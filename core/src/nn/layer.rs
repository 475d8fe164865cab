//! The closed set of layers, and how a chain of them runs forward, backward and as a graph.

use std::sync::Arc;

use candle_core::Tensor;

use super::cpu::elementwise;
use super::map::{Map, Pool, Real};
use super::{AvgPool, BatchNorm, Conv2d, Linear, MaxPool, Residual, Select, pool, residual};
use crate::error::Result;
use crate::params::Sink;
use crate::pass::Statistics;

/// One layer. The set is closed on purpose: what runs inside one operation is known here, so that layers can be fused.
#[derive(Clone)]
pub enum Layer {
    /// A convolution without bias.
    Conv2d(Conv2d),
    /// A matrix, with or without bias, over `(n, c)` features; maps must be 1 × 1.
    Linear(Linear),
    /// Batch normalisation, with or without a ReLU behind it.
    BatchNorm(BatchNorm),
    /// max(x, 0), whose derivative at 0 is 0.
    Relu,
    /// The largest of each window.
    MaxPool(MaxPool),
    /// The mean of each window.
    AvgPool(AvgPool),
    /// The mean of each channel over the whole image: `(n, h, w, c)` → `(n, c)`.
    GlobalAverage,
    /// relu(body(x) + shortcut(x)).
    Residual(Residual),
    /// SimCLRv2's selective kernels: two streams mixed by a learned gate.
    Select(Select),
}

/// Maps on their way through layers; shared with the tape, so that nothing is stored twice.
pub(crate) type Flow<T> = Arc<Map<T>>;

/// One layer's step back: takes the output's gradient, leaves its parameters' gradients in the sink, and gives the input's
/// gradient if it is wanted. It owns what the layer kept, and frees it.
pub(crate) type Back<T> = Box<dyn FnOnce(Flow<T>, bool) -> Result<Option<Flow<T>>> + Send>;

/// The steps back of a chain, in forward order.
pub(crate) type Tape<T> = Vec<Back<T>>;

/// What a pass over the host needs to know.
#[derive(Clone)]
pub(crate) struct Host<T: Real> {
    pub pool: Arc<Pool<T>>,
    pub sink: Sink,
    pub statistics: Statistics,
    pub keep: bool,
}

impl<T: Real> Host<T> {
    /// Makes a layer's step back, if one will be needed.
    pub fn back(&self, step: impl FnOnce(Flow<T>, bool) -> Result<Option<Flow<T>>> + Send + 'static) -> Option<Back<T>> {
        self.keep.then(|| Box::new(step) as Back<T>)
    }
}

impl Layer {
    /// Whether the output is `(n, c)` features, whatever the input was.
    pub(crate) fn flattens(&self) -> bool {
        matches!(self, Layer::GlobalAverage | Layer::Linear(_))
    }

    fn forward<T: Real>(&self, x: Flow<T>, host: &Host<T>) -> Result<(Flow<T>, Option<Back<T>>)> {
        match self {
            Layer::Conv2d(conv) => conv.forward(x, host),
            Layer::Linear(linear) => linear.forward(x, host),
            Layer::BatchNorm(norm) => norm.forward(x, host),
            Layer::Relu => {
                let mut y = Map::own(x);
                elementwise::relu(y.data_mut());
                let y = Arc::new(y);
                let kept = y.clone();
                let back = host.back(move |dy, _| {
                    let mut dx = Map::own(dy);
                    elementwise::mask(dx.data_mut(), kept.data());
                    Ok(Some(Arc::new(dx)))
                });
                Ok((y, back))
            }
            Layer::MaxPool(pool) => pool.forward(x, host),
            Layer::AvgPool(pool) => pool.forward(x, host),
            Layer::GlobalAverage => pool::global_average(&x, host),
            Layer::Residual(block) => block.forward(x, host),
            Layer::Select(select) => select.forward(x, host),
        }
    }

    fn graph(&self, x: &Tensor, statistics: Statistics) -> Result<Tensor> {
        match self {
            Layer::Conv2d(conv) => conv.graph(x),
            Layer::Linear(linear) => linear.graph(x),
            Layer::BatchNorm(norm) => norm.graph(x, statistics),
            Layer::Relu => residual::relu(x),
            Layer::MaxPool(pool) => pool.graph(x),
            Layer::AvgPool(pool) => pool.graph(x),
            Layer::GlobalAverage => Ok(x.mean_keepdim((1, 2))?),
            Layer::Residual(block) => block.graph(x, statistics),
            Layer::Select(select) => select.graph(x, statistics),
        }
    }
}

/// Runs layers in order; the tape is there if the pass keeps one.
pub(crate) fn forward<T: Real>(layers: &[Layer], mut x: Flow<T>, host: &Host<T>) -> Result<(Flow<T>, Option<Tape<T>>)> {
    let mut tape = Tape::new();
    for layer in layers {
        let (y, back) = layer.forward(x, host)?;
        tape.extend(back);
        x = y;
    }
    Ok((x, host.keep.then_some(tape)))
}

/// Plays a tape in reverse. The input's gradient is computed only if it is wanted.
pub(crate) fn backward<T: Real>(tape: Tape<T>, dy: Flow<T>, want: bool) -> Result<Option<Flow<T>>> {
    let mut flow = Some(dy);
    for (i, back) in tape.into_iter().enumerate().rev() {
        let Some(dy) = flow.take() else { break };
        flow = back(dy, want || i > 0)?;
    }
    Ok(flow)
}

/// The same chain in candle's operations, over `(n, h, w, c)` tensors.
pub(crate) fn graph(layers: &[Layer], x: &Tensor, statistics: Statistics) -> Result<Tensor> {
    layers.iter().try_fold(x.clone(), |x, layer| layer.graph(&x, statistics))
}
