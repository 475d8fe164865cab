//! What flows through a chain of layers: maps forward, gradients back, and what a layer needs to know besides.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::Tensor;
use ctk_kernels::{Device, Map, Number, Read, Real};

use crate::error::Result;
use crate::nn::gradient::GradientStore;
use crate::nn::params::Param;
use crate::nn::pass::Statistics;
use crate::nn::rows::Rows;
use crate::rng::Key;

/// Maps that the tape shares with the chain, so that nothing is stored twice.
pub(crate) type SharedMap<D, T> = Arc<Map<D, T>>;

/// A normalisation that nobody has applied yet: a convolution applies it as it reads, and then knows the sums that the
/// normalisation's step back needs while the gradient is still in cache.
pub(crate) struct Normalisation<D: Device, T: Number> {
    pub affine: D::Affine<T::Real>,
    sums: Mutex<Option<D::Sums>>,
}

impl<D: Device, T: Number> Normalisation<D, T> {
    pub fn new(affine: D::Affine<T::Real>) -> Self {
        Normalisation { affine, sums: Mutex::new(None) }
    }

    /// Leaves the sums of the gradient that goes back next.
    pub fn leave(&self, sums: D::Sums) {
        *self.sums.lock().unwrap_or_else(PoisonError::into_inner) = Some(sums);
    }

    /// The sums, if the layer above has left them.
    pub fn take(&self) -> Option<D::Sums> {
        self.sums.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A gradient that reaches a map by another way, to be added to the one that its reader sends back.
pub(crate) struct SideGradient<D: Device, T: Number>(Mutex<Option<SharedMap<D, T>>>);

impl<D: Device, T: Number> SideGradient<D, T> {
    pub fn new() -> Arc<Self> {
        Arc::new(SideGradient(Mutex::new(None)))
    }

    /// Leaves it for the reader's step back.
    pub fn leave(&self, gradient: SharedMap<D, T>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(gradient);
    }

    /// Takes it, to add it: the reader that can, or else who left it.
    pub fn take(&self) -> Option<SharedMap<D, T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// What flows forward from layer to layer: maps, what is still to be done to them, and what is known of them. It has one
/// reader; for more, [`plain`](Activation::plain) comes first.
pub(crate) struct Activation<D: Device, T: Number> {
    pub map: SharedMap<D, T>,
    /// What is still to be done.
    pub normalisation: Option<Arc<Normalisation<D, T>>>,
    /// Each block's statistics.
    pub moments: Option<D::Moments>,
    /// Where to look for what is to be added to the gradient sent back.
    pub beside: Option<Arc<SideGradient<D, T>>>,
}

impl<D: Device, T: Number> From<SharedMap<D, T>> for Activation<D, T> {
    fn from(map: SharedMap<D, T>) -> Self {
        Activation { map, normalisation: None, moments: None, beside: None }
    }
}

impl<D: Device, T: Number> Activation<D, T> {
    /// The maps' numbers and what is still to be done to them.
    pub fn read(&self) -> Read<'_, D, T> {
        (self.map.data(), self.normalisation.as_ref().map(|normalisation| &normalisation.affine))
    }

    /// The maps, with everything done.
    pub fn plain(self) -> SharedMap<D, T> {
        let Some(normalisation) = self.normalisation else { return self.map };
        let device = self.map.device();
        let mut y = Map::new(self.map.shape(), device);
        device.normalise(&normalisation.affine, self.map.data(), y.data_mut());
        Arc::new(y)
    }
}

/// One layer's step back: takes the output's gradient, leaves its parameters' gradients in the store, and gives the input's
/// gradient if it is wanted. It owns what the layer kept, and frees it.
pub(crate) type Back<D, T> = Box<dyn FnOnce(SharedMap<D, T>, bool) -> Result<Option<SharedMap<D, T>>> + Send>;

/// The steps back of a chain, in forward order.
pub(crate) type Steps<D, T> = Vec<Back<D, T>>;

/// A layer's output, and its step back if the pass keeps one.
pub(crate) type Forward<D, T, Y = SharedMap<D, T>> = Result<(Y, Option<Back<D, T>>)>;

/// A chain's output, and its steps back if the pass keeps a tape.
pub(crate) type Chained<D, T> = Result<(Activation<D, T>, Option<Steps<D, T>>)>;

/// Plays a tape in reverse. The input's gradient is computed only if it is wanted.
pub(crate) fn backward<D: Device, T: Number>(
    tape: Steps<D, T>,
    dy: SharedMap<D, T>,
    want: bool,
) -> Result<Option<SharedMap<D, T>>> {
    let mut flow = Some(dy);
    for (i, back) in tape.into_iter().enumerate().rev() {
        let Some(dy) = flow.take() else { break };
        flow = back(dy, want || i > 0)?;
    }
    Ok(flow)
}

/// What dropout draws by.
#[derive(Clone, Debug)]
pub(crate) struct Draws {
    /// The step's key.
    pub key: Key,
    /// Who the rows are.
    pub rows: Rows,
}

/// What layers do that train and evaluate differently.
#[derive(Clone, Debug)]
pub(crate) struct Behaviour {
    pub statistics: Statistics,
    /// None where nothing is dropped.
    pub draws: Option<Draws>,
}

/// What a pass over a device needs to know.
#[derive(Clone)]
pub(crate) struct Context<D> {
    pub device: D,
    pub store: GradientStore,
    pub behaviour: Behaviour,
    /// Whether a tape is kept.
    pub keep: bool,
    /// Whether residual blocks keep their input alone.
    pub recompute: bool,
}

impl<D: Device> Context<D> {
    /// Makes a layer's step back, if one will be needed.
    pub fn back<T: Number>(
        &self,
        step: impl FnOnce(SharedMap<D, T>, bool) -> Result<Option<SharedMap<D, T>>> + Send + 'static,
    ) -> Option<Back<D, T>> {
        self.keep.then(|| Box::new(step) as Back<D, T>)
    }

    /// Leaves a parameter's gradient in the store.
    pub fn leave<R: Real>(&self, param: &Param, gradient: D::Vector<R>) -> Result<()> {
        self.store.add(param, param.array().beside(&self.device, gradient)?)
    }
}

/// Layers that layers are made of: a chain, run in order.
pub(crate) trait Chain: Clone + Send + Sync + 'static {
    /// The output, and the tape if the pass keeps one.
    fn forward<D: Device, T: Number>(&self, x: Activation<D, T>, context: &Context<D>) -> Chained<D, T>;

    /// Every parameter, at the end of `into`.
    fn params(&self, into: &mut Vec<Arc<Param>>);

    /// The same in candle's operations, over `(n, h, w, c)` tensors.
    fn reference(&self, x: &Tensor, behaviour: &Behaviour) -> Result<Tensor>;
}
