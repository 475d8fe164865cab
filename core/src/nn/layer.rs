//! The closed set of layers, and how a chain of them runs forward, backward and as a graph.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::Tensor;

use super::cell::{Cell, Read};
use super::cpu::elementwise;
use super::cpu::norm::{Affine, BlockMoments};
use super::map::{Map, Pool};
use super::{AvgPool, BatchNorm, Conv2d, Linear, MaxPool, Residual, Select, pool, residual};
use crate::error::Result;
use crate::nn::params::Sink;
use crate::nn::pass::Statistics;

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

/// Maps on their way; shared with the tape, so that nothing is stored twice.
pub(crate) type Flow<T> = Arc<Map<T>>;

/// Σ dy and Σ dy·(x − mean) per channel: what a normalisation's step back begins with.
pub(crate) type Sums = (Vec<f64>, Vec<f64>);

/// A normalisation that nobody has applied yet: a convolution applies it as it reads, and then knows the sums that the
/// normalisation's step back needs while the gradient is still in cache.
pub(crate) struct Norm<T: Cell> {
    pub affine: Affine<T::Real>,
    sums: Mutex<Option<Sums>>,
}

impl<T: Cell> Norm<T> {
    pub fn new(affine: Affine<T::Real>) -> Self {
        Norm { affine, sums: Mutex::new(None) }
    }

    /// Leaves the sums of the gradient that goes back next.
    pub fn leave(&self, sums: Sums) {
        *self.sums.lock().unwrap_or_else(PoisonError::into_inner) = Some(sums);
    }

    /// The sums, if the layer above has left them.
    pub fn take(&self) -> Option<Sums> {
        self.sums.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A gradient that reaches a map by another way, to be added to the one that its reader sends back.
pub(crate) struct Beside<T: Cell>(Mutex<Option<Flow<T>>>);

impl<T: Cell> Beside<T> {
    pub fn new() -> Arc<Self> {
        Arc::new(Beside(Mutex::new(None)))
    }

    /// Leaves it for the reader's step back.
    pub fn leave(&self, gradient: Flow<T>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(gradient);
    }

    /// Takes it, to add it: the reader that can, or else who left it.
    pub fn take(&self) -> Option<Flow<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// What flows forward from layer to layer: maps, what is still to be done to them, and what is known of them. It has one
/// reader; for more, [`plain`](Act::plain) comes first.
pub(crate) struct Act<T: Cell> {
    pub map: Flow<T>,
    /// What is still to be done.
    pub norm: Option<Arc<Norm<T>>>,
    /// Each block's statistics.
    pub moments: Option<Vec<BlockMoments>>,
    /// Where to look for what is to be added to the gradient sent back.
    pub beside: Option<Arc<Beside<T>>>,
}

impl<T: Cell> From<Flow<T>> for Act<T> {
    fn from(map: Flow<T>) -> Self {
        Act { map, norm: None, moments: None, beside: None }
    }
}

impl<T: Cell> Act<T> {
    /// The maps' numbers and what is still to be done to them.
    pub fn read(&self) -> Read<'_, T> {
        (self.map.data(), self.norm.as_ref().map(|norm| &norm.affine))
    }

    /// The maps, with everything done.
    pub fn plain(self) -> Flow<T> {
        let Some(norm) = self.norm else { return self.map };
        let mut y = Map::new(self.map.shape(), self.map.pool());
        norm.affine.forward(self.map.data(), y.data_mut());
        Arc::new(y)
    }
}

/// One layer's step back: takes the output's gradient, leaves its parameters' gradients in the sink, and gives the input's
/// gradient if it is wanted. It owns what the layer kept, and frees it.
pub(crate) type Back<T> = Box<dyn FnOnce(Flow<T>, bool) -> Result<Option<Flow<T>>> + Send>;

/// The steps back of a chain, in forward order.
pub(crate) type Tape<T> = Vec<Back<T>>;

/// What a pass over the host needs to know.
#[derive(Clone)]
pub(crate) struct Host {
    pub pool: Arc<Pool>,
    pub sink: Sink,
    pub statistics: Statistics,
    pub keep: bool,
    pub recompute: bool,
}

impl Host {
    /// Makes a layer's step back, if one will be needed.
    pub fn back<T: Cell>(&self, step: impl FnOnce(Flow<T>, bool) -> Result<Option<Flow<T>>> + Send + 'static) -> Option<Back<T>> {
        self.keep.then(|| Box::new(step) as Back<T>)
    }
}

impl Layer {
    /// Whether the output is `(n, c)` features, whatever the input was.
    pub(crate) fn flattens(&self) -> bool {
        matches!(self, Layer::GlobalAverage | Layer::Linear(_))
    }

    fn forward<T: Cell>(&self, x: Act<T>, host: &Host) -> Result<(Act<T>, Option<Back<T>>)> {
        let (y, back) = match self {
            Layer::Conv2d(conv) => return conv.forward(x, host),
            Layer::BatchNorm(norm) => return norm.forward(x, host),
            Layer::Linear(linear) => linear.forward(x.plain(), host),
            Layer::Relu => {
                let mut y = Map::own(x.plain());
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
            Layer::MaxPool(pool) => pool.forward(x.plain(), host),
            Layer::AvgPool(pool) => pool.forward(x.plain(), host),
            Layer::GlobalAverage => pool::global_average(&x.plain(), host),
            Layer::Residual(block) => block.forward(x.plain(), host),
            Layer::Select(select) => select.forward(x.plain(), host),
        }?;
        Ok((y.into(), back))
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
pub(crate) fn forward<T: Cell>(layers: &[Layer], mut x: Act<T>, host: &Host) -> Result<(Act<T>, Option<Tape<T>>)> {
    let mut tape = Tape::new();
    for layer in layers {
        let (y, back) = layer.forward(x, host)?;
        tape.extend(back);
        x = y;
    }
    Ok((x, host.keep.then_some(tape)))
}

/// Plays a tape in reverse. The input's gradient is computed only if it is wanted.
pub(crate) fn backward<T: Cell>(tape: Tape<T>, dy: Flow<T>, want: bool) -> Result<Option<Flow<T>>> {
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
