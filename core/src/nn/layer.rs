//! The closed set of layers, and how a chain of them runs on the kernels and in candle's operations.

use std::sync::Arc;

use candle_core::Tensor;
use ctk_kernels::{Device, Gelu, Map, Number};

use super::added::AddedRow;
use super::attention::Attention;
use super::conv::Conv2d;
use super::dropout::Dropout;
use super::embedding::Embedding;
use super::flow::{Activation, Back, Behaviour, Chain, Chained, Context, Forward, SharedMap, Steps};
use super::layer_norm::LayerNorm;
use super::linear::Linear;
use super::norm::BatchNorm;
use super::patches::{self, Patches};
use super::pool::{self, AvgPool, End, MaxPool};
use super::probe::Probe;
use super::reference;
use super::scale::Scale;
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
    /// The mean of each channel over the whole image, `(n, h, w, c)` → `(n, c)`, or over all tokens of each text.
    GlobalAverage,
    /// The first pixel of each image, or the first token of each text (BERT's `[CLS]`).
    First,
    /// The last pixel of each image, or the last token of each text (CLIP's end token).
    Last,
    /// Layer normalisation.
    LayerNorm(LayerNorm),
    /// A Gaussian error linear unit.
    Gelu(Gelu),
    /// Attention among the tokens of each text, or the pixels of each image.
    Attention(Attention),
    /// A row of a table is added to every token: learned positions.
    AddedRow(AddedRow),
    /// The patches of each image become tokens: positions, class token, registers.
    Patches(Patches),
    /// The tokens behind the first ones of each image: its patches without class token and registers.
    Behind(usize),
    /// Keys and values of every token, and one learned query for all.
    Probe(Probe),
    /// A factor for each channel.
    Scale(Scale),
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
        self.pools() || matches!(self, Layer::Linear(_))
    }

    /// Whether one row is left of each image or text.
    fn pools(&self) -> bool {
        matches!(self, Layer::GlobalAverage | Layer::First | Layer::Last)
    }

    pub(super) fn params(&self, into: &mut Vec<Arc<Param>>) {
        match self {
            Layer::Conv2d(conv) => conv.params(into),
            Layer::Linear(linear) => linear.params(into),
            Layer::BatchNorm(norm) => norm.params(into),
            Layer::LayerNorm(norm) => norm.params(into),
            Layer::AddedRow(added) => added.params(into),
            Layer::Patches(patches) => patches.params(into),
            Layer::Probe(probe) => probe.params(into),
            Layer::Scale(scale) => scale.params(into),
            Layer::Embedding(table) => table.params(into),
            Layer::Residual(block) => block.params(into),
            Layer::Select(select) => select.params(into),
            Layer::Relu | Layer::MaxPool(_) | Layer::AvgPool(_) | Layer::GlobalAverage => {}
            Layer::First | Layer::Last | Layer::Behind(_) | Layer::Gelu(_) | Layer::Attention(_) | Layer::Dropout(_) => {}
        }
    }

    fn forward<D: Device, T: Number>(&self, x: Activation<D, T>, context: &Context<D>) -> Forward<D, T, Activation<D, T>> {
        let (y, back) = match self {
            Layer::Conv2d(conv) => return conv.forward(x, context),
            Layer::BatchNorm(norm) => return norm.forward(x, context),
            Layer::Scale(scale) => return scale.forward(x, context),
            Layer::Residual(block) => return block.forward(x.plain(), context),
            Layer::Linear(linear) => linear.forward(None, x.plain(), context),
            Layer::Relu => Ok(relu(x.plain(), context)),
            Layer::MaxPool(pool) => pool.forward(x.plain(), context),
            Layer::AvgPool(pool) => pool.forward(x.plain(), context),
            Layer::GlobalAverage => pool::global_average(&x.plain(), context),
            Layer::First => pool::at_end(End::First, &x.plain(), context),
            Layer::Last => pool::at_end(End::Last, &x.plain(), context),
            Layer::LayerNorm(norm) => norm.forward(x.plain(), context),
            Layer::Gelu(form) => Ok(gelu(*form, x.plain(), context)),
            Layer::Attention(attention) => attention.forward(x.plain(), context),
            Layer::AddedRow(added) => added.forward(x.plain(), context),
            Layer::Patches(patches) => patches.forward(x.plain(), context),
            Layer::Behind(count) => patches::behind(*count, &x.plain(), context),
            Layer::Probe(probe) => probe.forward(x.plain(), context),
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
            Layer::GlobalAverage => pool::global_average_reference(x, &behaviour.rows),
            Layer::First => pool::at_end_reference(End::First, x, &behaviour.rows),
            Layer::Last => pool::at_end_reference(End::Last, x, &behaviour.rows),
            Layer::LayerNorm(norm) => norm.reference(x),
            Layer::Gelu(form) => reference::gelu(*form, x),
            Layer::Attention(attention) => attention.reference(x, behaviour),
            Layer::AddedRow(added) => added.reference(x, &behaviour.rows),
            Layer::Patches(patches) => patches.reference(x),
            Layer::Behind(count) => patches::behind_reference(*count, x),
            Layer::Probe(probe) => probe.reference(x),
            Layer::Scale(scale) => scale.reference(x),
            Layer::Embedding(table) => Err(table.misplaced()),
            Layer::Dropout(dropout) => dropout.reference(x, behaviour),
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

fn gelu<D: Device, T: Number>(form: Gelu, x: SharedMap<D, T>, context: &Context<D>) -> (SharedMap<D, T>, Option<Back<D, T>>) {
    let mut y = Map::new(x.shape(), &context.device);
    context.device.gelu(form, x.data(), y.data_mut());
    let back = context.back(move |dy, _| {
        let mut dx = Map::own(dy);
        x.device().gelu_gradient(form, x.data(), dx.data_mut());
        Ok(Some(Arc::new(dx)))
    });
    (Arc::new(y), back)
}

impl Chain for Vec<Layer> {
    fn forward<D: Device, T: Number>(&self, x: Activation<D, T>, context: &Context<D>) -> Chained<D, T> {
        forward(self, 0, x, context)
    }

    fn params(&self, into: &mut Vec<Arc<Param>>) {
        self.iter().for_each(|layer| layer.params(into));
    }

    fn reference(&self, x: &Tensor, behaviour: &Behaviour) -> Result<Tensor> {
        reference(self, 0, x.clone(), behaviour)
    }
}

/// How many of the first layers are frozen, and so computed as in evaluation: up to the first one that learns. 0 if none of them has a
/// frozen parameter.
pub(super) fn frozen(layers: &[Layer]) -> usize {
    let (mut any, mut own) = (false, Vec::new());
    for (at, layer) in layers.iter().enumerate() {
        own.clear();
        layer.params(&mut own);
        if own.iter().any(|param| param.trained()) {
            return if any { at } else { 0 };
        }
        any |= own.iter().any(|param| param.rate() == 0.0);
    }
    if any { layers.len() } else { 0 }
}

/// Runs the layers in order, the first `frozen` of them as in evaluation.
pub(super) fn forward<D: Device, T: Number>(
    layers: &[Layer],
    frozen: usize,
    x: Activation<D, T>,
    context: &Context<D>,
) -> Chained<D, T> {
    let mut steps = Steps::new();
    let x = run(layers, frozen, x, &mut steps, context)?;
    Ok((x, context.keep.then_some(steps)))
}

/// Runs the layers in order, the first `frozen` of them as in evaluation; appends the backward steps of the others to `steps`.
fn run<D: Device, T: Number>(
    layers: &[Layer],
    frozen: usize,
    mut x: Activation<D, T>,
    steps: &mut Steps<D, T>,
    context: &Context<D>,
) -> Result<Activation<D, T>> {
    let mut contexts = [context.clone(), context.still()];
    let mut rest = layers;
    while let [layer, after @ ..] = rest {
        let context = &contexts[usize::from(layers.len() - rest.len() < frozen)];
        rest = after;
        let (y, back) = match (layer, after) {
            // Both at once, while the product is in cache.
            (Layer::Linear(linear), [Layer::Gelu(form), after @ ..]) => {
                rest = after;
                let (y, back) = linear.forward(Some(*form), x.plain(), context)?;
                (y.into(), back)
            }
            _ => layer.forward(x, context)?,
        };
        steps.extend(back);
        x = y;
        if layer.pools() && context.behaviour.rows.offsets().is_some() {
            contexts = contexts.map(|context| context.pooled());
        }
    }
    Ok(x)
}

/// The same in candle's operations.
pub(super) fn reference(layers: &[Layer], frozen: usize, mut x: Tensor, behaviour: &Behaviour) -> Result<Tensor> {
    let mut behaviours = [behaviour.clone(), behaviour.still()];
    for (at, layer) in layers.iter().enumerate() {
        x = layer.reference(&x, &behaviours[usize::from(at < frozen)])?;
        if at + 1 == frozen {
            x = x.detach();
        }
        if layer.pools() {
            behaviours.iter_mut().for_each(|behaviour| behaviour.rows = behaviour.rows.pooled());
        }
    }
    Ok(x)
}

/// Runs a chain that begins with an embedding table and reads ids.
pub(super) fn look_up<D: Device, T: Number>(layers: &[Layer], frozen: usize, ids: &[u32], context: &Context<D>) -> Chained<D, T> {
    let Some((Layer::Embedding(table), rest)) = layers.split_first() else { return Err(no_table()) };
    let texts = context.behaviour.rows.offsets().is_some();
    let of_table = if frozen > 0 { context.still() } else { context.clone() };
    let ((x, back), rest, after) = match rest {
        [Layer::GlobalAverage, rest @ ..] if texts => (table.means(ids, &of_table)?, rest, context.pooled()),
        _ => (table.forward(ids, &of_table)?, rest, context.clone()),
    };
    let mut steps: Steps<D, T> = back.into_iter().collect();
    let x = run(rest, frozen.saturating_sub(layers.len() - rest.len()), x.into(), &mut steps, &after)?;
    Ok((x, context.keep.then_some(steps)))
}

/// The same in candle's operations.
pub(super) fn look_up_reference(layers: &[Layer], frozen: usize, ids: &[u32], behaviour: &Behaviour) -> Result<Tensor> {
    let Some((Layer::Embedding(table), rest)) = layers.split_first() else { return Err(no_table()) };
    let x = table.reference(ids)?;
    let x = if frozen > 0 { x.detach() } else { x };
    reference(rest, frozen.saturating_sub(1), x, behaviour)
}

fn no_table() -> Error {
    Error::new("a network whose first layer is not a table cannot read ids")
}
