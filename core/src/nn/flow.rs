//! What flows through a chain of layers: maps forward, gradients back, and the state of a pass.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::Tensor;
use ctk_kernels::{Device, Map, Number, Read, Real};

use crate::error::Result;
use crate::nn::gradient::GradientStore;
use crate::nn::params::Param;
use crate::nn::pass::Statistics;
use crate::nn::rows::Rows;
use crate::rng::Key;

/// A map shared by the tape and the chain, so that nothing is stored twice.
pub(crate) type SharedMap<D, T> = Arc<Map<D, T>>;

/// A normalisation that has not been applied yet. A convolution applies it while it reads the map, and in the backward pass computes the
/// gradient sums that the normalisation needs while the gradient is still in cache.
pub(crate) struct Normalisation<D: Device, T: Number> {
    pub affine: D::Affine<T::Real>,
    sums: Mutex<Option<D::Sums>>,
}

impl<D: Device, T: Number> Normalisation<D, T> {
    pub fn new(affine: D::Affine<T::Real>) -> Self {
        Normalisation { affine, sums: Mutex::new(None) }
    }

    /// Stores the sums of the gradient for the normalisation's backward step.
    pub fn leave(&self, sums: D::Sums) {
        *self.sums.lock().unwrap_or_else(PoisonError::into_inner) = Some(sums);
    }

    /// Takes the sums, if the layer above has stored them.
    pub fn take(&self) -> Option<D::Sums> {
        self.sums.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A second gradient of a map (of a residual shortcut), to be added to the gradient that the map's reader sends back.
pub(crate) struct SideGradient<D: Device, T: Number>(Mutex<Option<SharedMap<D, T>>>);

impl<D: Device, T: Number> SideGradient<D, T> {
    pub fn new() -> Arc<Self> {
        Arc::new(SideGradient(Mutex::new(None)))
    }

    /// Stores it for the reader's backward step.
    pub fn leave(&self, gradient: SharedMap<D, T>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(gradient);
    }

    /// Takes it to add it: the reader does, if it can, and otherwise the one who stored it.
    pub fn take(&self) -> Option<SharedMap<D, T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// What flows forward between layers: maps, their pending normalisation, and their moments. It has one reader; for more readers call
/// [`plain`](Activation::plain) first.
pub(crate) struct Activation<D: Device, T: Number> {
    pub map: SharedMap<D, T>,
    /// The normalisation that is still to be applied.
    pub normalisation: Option<Arc<Normalisation<D, T>>>,
    /// The moments of each block.
    pub moments: Option<D::Moments>,
    /// Where to find a second gradient, to be added to the one sent back.
    pub beside: Option<Arc<SideGradient<D, T>>>,
}

impl<D: Device, T: Number> From<SharedMap<D, T>> for Activation<D, T> {
    fn from(map: SharedMap<D, T>) -> Self {
        Activation { map, normalisation: None, moments: None, beside: None }
    }
}

impl<D: Device, T: Number> Activation<D, T> {
    /// The maps' values and their pending normalisation.
    pub fn read(&self) -> Read<'_, D, T> {
        (self.map.data(), self.normalisation.as_ref().map(|normalisation| &normalisation.affine))
    }

    /// The maps, with the normalisation applied.
    pub fn plain(self) -> SharedMap<D, T> {
        let Some(normalisation) = self.normalisation else { return self.map };
        let device = self.map.device();
        let mut y = Map::new(self.map.shape(), device);
        device.normalise(&normalisation.affine, self.map.data(), y.data_mut());
        Arc::new(y)
    }
}

/// One layer's backward step: takes the output's gradient, adds its parameters' gradients to the store, and returns the input's gradient if
/// it is wanted. It owns what the layer kept, and frees it.
pub(crate) type Back<D, T> = Box<dyn FnOnce(SharedMap<D, T>, bool) -> Result<Option<SharedMap<D, T>>> + Send>;

/// The backward steps of a chain, in forward order.
pub(crate) type Steps<D, T> = Vec<Back<D, T>>;

/// A layer's output, and its backward step if the pass keeps a tape.
pub(crate) type Forward<D, T, Y = SharedMap<D, T>> = Result<(Y, Option<Back<D, T>>)>;

/// A chain's output, and its backward steps if the pass keeps a tape.
pub(crate) type Chained<D, T> = Result<(Activation<D, T>, Option<Steps<D, T>>)>;

/// Runs the backward steps in reverse order. The input's gradient is computed only if it is wanted.
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

/// How layers behave that differ between training and evaluation.
#[derive(Clone, Debug)]
pub(crate) struct Behaviour {
    pub statistics: Statistics,
    /// The identity of the rows.
    pub rows: Rows,
    /// The step's key, by which dropout draws; none if nothing is dropped.
    pub key: Option<Key>,
}

impl Behaviour {
    /// That of layers that do not learn: as in evaluation.
    pub fn still(&self) -> Behaviour {
        Behaviour { statistics: Statistics::Frozen, key: None, ..self.clone() }
    }
}

/// The settings of a pass on a device.
#[derive(Clone)]
pub(crate) struct Context<D> {
    pub device: D,
    pub store: GradientStore,
    pub behaviour: Behaviour,
    /// Whether a tape is kept.
    pub keep: bool,
    /// Whether residual blocks keep only their input and recompute the rest in the backward pass.
    pub recompute: bool,
}

impl<D: Device> Context<D> {
    /// The same for one row of each text, which is left after its tokens were pooled.
    pub fn pooled(&self) -> Context<D> {
        let behaviour = Behaviour { rows: self.behaviour.rows.pooled(), ..self.behaviour.clone() };
        Context { behaviour, ..self.clone() }
    }

    /// The same for layers that do not learn: as in evaluation, without a tape.
    pub fn still(&self) -> Context<D> {
        Context { behaviour: self.behaviour.still(), keep: false, recompute: false, ..self.clone() }
    }

    /// Makes a layer's backward step, if the pass keeps a tape.
    pub fn back<T: Number>(
        &self,
        step: impl FnOnce(SharedMap<D, T>, bool) -> Result<Option<SharedMap<D, T>>> + Send + 'static,
    ) -> Option<Back<D, T>> {
        self.keep.then(|| Box::new(step) as Back<D, T>)
    }

    /// Adds a parameter's gradient to the store.
    pub fn leave<R: Real>(&self, param: &Param, gradient: D::Vector<R>) -> Result<()> {
        self.store.add(param, param.array().beside(&self.device, gradient)?)
    }
}

/// A chain of layers inside a layer, run in order.
pub(crate) trait Chain: Clone + Send + Sync + 'static {
    /// The output, and the tape if the pass keeps one.
    fn forward<D: Device, T: Number>(&self, x: Activation<D, T>, context: &Context<D>) -> Chained<D, T>;

    /// Appends every parameter to `into`.
    fn params(&self, into: &mut Vec<Arc<Param>>);

    /// The same in candle's operations, over `(n, h, w, c)` tensors.
    fn reference(&self, x: &Tensor, behaviour: &Behaviour) -> Result<Tensor>;
}
