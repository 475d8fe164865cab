//! The closed set of layers, and how a chain of them runs on the kernels and in candle's operations.

use std::sync::Arc;

use candle_core::Tensor;
use ctk_kernels::{Device, Map, Number};

use super::conv::Conv2d;
use super::dropout::Dropout;
use super::embedding::Embedding;
use super::flow::{Activation, Back, Behaviour, Chain, Chained, Context, Forward, SharedMap, Steps};
use super::linear::Linear;
use super::norm::BatchNorm;
use super::pool::{self, AvgPool, MaxPool};
use super::reference;
use crate::error::{Error, Result};
use crate::nn::params::Param;

/// A residual block of layers.
pub type Residual = super::residual::Residual<Vec<Layer>>;

/// A selective kernel whose gate is layers.
pub type Select = super::select::Select<Vec<Layer>>;

/// One layer. The set is closed on purpose: all combinations inside one operation are known here, so that layers can be fused.
#[derive(Clone)]
pub enum Layer {
    /// A convolution.
    Conv2d(Conv2d),
    /// A linear layer, with or without bias, applied to every row.
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
    /// An embedding table, the first layer of a chain that reads ids.
    Embedding(Embedding),
    /// Dropout, active in training only.
    Dropout(Dropout),
    /// A residual block: relu(body(x) + shortcut(x)), or a variant.
    Residual(Residual),
    /// SimCLRv2's selective kernels: two streams mixed by a learned gate.
    Select(Select),
}

impl Layer {
    /// Whether an output of one pixel for each image is `(n, c)` features, whatever the input's shape was.
    pub(crate) fn flattens(&self) -> bool {
        matches!(self, Layer::GlobalAverage | Layer::Linear(_))
    }

    fn params(&self, into: &mut Vec<Arc<Param>>) {
        match self {
            Layer::Conv2d(conv) => conv.params(into),
            Layer::Linear(linear) => linear.params(into),
            Layer::BatchNorm(norm) => norm.params(into),
            Layer::Embedding(table) => table.params(into),
            Layer::Residual(block) => block.params(into),
            Layer::Select(select) => select.params(into),
            Layer::Relu | Layer::MaxPool(_) | Layer::AvgPool(_) | Layer::GlobalAverage | Layer::Dropout(_) => {}
        }
    }

    fn forward<D: Device, T: Number>(&self, x: Activation<D, T>, context: &Context<D>) -> Forward<D, T, Activation<D, T>> {
        let (y, back) = match self {
            Layer::Conv2d(conv) => return conv.forward(x, context),
            Layer::BatchNorm(norm) => return norm.forward(x, context),
            Layer::Residual(block) => return block.forward(x.plain(), context),
            Layer::Linear(linear) => linear.forward(x.plain(), context),
            Layer::Relu => Ok(relu(x.plain(), context)),
            Layer::MaxPool(pool) => pool.forward(x.plain(), context),
            Layer::AvgPool(pool) => pool.forward(x.plain(), context),
            Layer::GlobalAverage => pool::global_average(&x.plain(), context),
            Layer::Select(select) => select.forward(x.plain(), context),
            Layer::Dropout(dropout) => dropout.forward(x.plain(), context),
            Layer::Embedding(table) => Err(table.misplaced()),
        }?;
        Ok((y.into(), back))
    }

    fn reference(&self, x: &Tensor, behaviour: &Behaviour) -> Result<Tensor> {
        match self {
            Layer::Conv2d(conv) => conv.reference(x),
            Layer::Linear(linear) => linear.reference(x),
            Layer::BatchNorm(norm) => norm.reference(x, behaviour.statistics),
            Layer::Relu => reference::relu(x),
            Layer::MaxPool(pool) => pool.reference(x),
            Layer::AvgPool(pool) => pool.reference(x),
            Layer::GlobalAverage => Ok(x.mean_keepdim((1, 2))?),
            Layer::Embedding(table) => Err(table.misplaced()),
            Layer::Dropout(dropout) => dropout.reference(x, behaviour.draws.as_ref()),
            Layer::Residual(block) => block.reference(x, behaviour),
            Layer::Select(select) => select.reference(x, behaviour),
        }
    }
}

fn relu<D: Device, T: Number>(x: SharedMap<D, T>, context: &Context<D>) -> (SharedMap<D, T>, Option<Back<D, T>>) {
    let mut y = Map::own(x);
    context.device.relu(y.data_mut());
    let y = Arc::new(y);
    let kept = y.clone();
    let back = context.back(move |dy, _| {
        let mut dx = Map::own(dy);
        kept.device().mask(dx.data_mut(), kept.data());
        Ok(Some(Arc::new(dx)))
    });
    (y, back)
}

impl Chain for Vec<Layer> {
    fn forward<D: Device, T: Number>(&self, x: Activation<D, T>, context: &Context<D>) -> Chained<D, T> {
        let mut steps = Steps::new();
        let x = run(self, x, &mut steps, context)?;
        Ok((x, context.keep.then_some(steps)))
    }

    fn params(&self, into: &mut Vec<Arc<Param>>) {
        self.iter().for_each(|layer| layer.params(into));
    }

    fn reference(&self, x: &Tensor, behaviour: &Behaviour) -> Result<Tensor> {
        self.iter().try_fold(x.clone(), |x, layer| layer.reference(&x, behaviour))
    }
}

/// Runs the layers in order; appends their backward steps to `steps`.
fn run<D: Device, T: Number>(
    layers: &[Layer],
    mut x: Activation<D, T>,
    steps: &mut Steps<D, T>,
    context: &Context<D>,
) -> Result<Activation<D, T>> {
    for layer in layers {
        let (y, back) = layer.forward(x, context)?;
        steps.extend(back);
        x = y;
    }
    Ok(x)
}

/// Runs a chain that begins with an embedding table and reads ids.
pub(crate) fn look_up<D: Device, T: Number>(layers: &[Layer], ids: &[u32], context: &Context<D>) -> Chained<D, T> {
    let Some((Layer::Embedding(table), rest)) = layers.split_first() else { return Err(no_table()) };
    let (x, back) = table.forward(ids, context)?;
    let mut steps: Steps<D, T> = back.into_iter().collect();
    let x = run(rest, x.into(), &mut steps, context)?;
    Ok((x, context.keep.then_some(steps)))
}

/// The same in candle's operations.
pub(crate) fn look_up_reference(layers: &[Layer], ids: &[u32], behaviour: &Behaviour) -> Result<Tensor> {
    let Some((Layer::Embedding(table), rest)) = layers.split_first() else { return Err(no_table()) };
    rest.iter().try_fold(table.reference(ids)?, |x, layer| layer.reference(&x, behaviour))
}

fn no_table() -> Error {
    Error::new("a network whose first layer is not a table cannot read ids")
}
