//! Encoders: uploaded views in, one representation for each row out.

use std::marker::PhantomData;

use candle_core::{DType, Tensor};

use crate::data::dataset::Dataset;
use crate::data::pair::HostBatch;
use crate::error::Result;
use crate::nn::pass::Pass;
use crate::nn::rows::Rows;
use crate::nn::tape::Tape;
use crate::nn::{Layer, Sequential, params::Scope};
use crate::process::Stop;

/// Turns views into representations h (the `f` of SimCLR, Chen et al. 2020a, §2.1).
///
/// An encoder is a [`Sequential`](crate::nn::Sequential), or is written in candle's operations with variables of its own; then its tape is
/// [`Tape::of_graph`].
pub trait Encoder {
    /// The host rows it reads.
    type Views: HostBatch;

    /// Values in a representation.
    fn width(&self) -> usize;

    /// `(n, width)` representations of n uploaded rows, without a graph, and the tape for the backward pass. `rows` identifies the rows.
    ///
    /// # Errors
    /// Rows of a shape that the encoder cannot read.
    fn encode(&self, x: &<Self::Views as HostBatch>::Stacked, rows: &Rows, pass: &Pass) -> Result<(Tensor, Tape)>;

    /// The output of `head` for the representations, and the tape of both. An encoder that is a chain of layers calls
    /// [`Sequential::through`], so that its representations stay on the device.
    ///
    /// # Errors
    /// As [`encode`](Encoder::encode); representations that the head cannot read.
    fn through(
        &self,
        head: &Sequential,
        x: &<Self::Views as HostBatch>::Stacked,
        rows: &Rows,
        pass: &Pass,
    ) -> Result<(Tensor, Tape)> {
        let (h, encoder) = self.encode(x, rows, pass)?;
        let (z, head) = head.forward(&h, rows, pass)?;
        Ok((z, encoder.then(head)))
    }
}

impl<E: Encoder + ?Sized> Encoder for Box<E> {
    type Views = E::Views;

    fn width(&self) -> usize {
        (**self).width()
    }

    fn encode(&self, x: &<Self::Views as HostBatch>::Stacked, rows: &Rows, pass: &Pass) -> Result<(Tensor, Tape)> {
        (**self).encode(x, rows, pass)
    }

    fn through(
        &self,
        head: &Sequential,
        x: &<Self::Views as HostBatch>::Stacked,
        rows: &Rows,
        pass: &Pass,
    ) -> Result<(Tensor, Tape)> {
        (**self).through(head, x, rows, pass)
    }
}

/// An encoder that is a chain of layers, over views of type `V`.
pub struct Chain<V> {
    layers: Sequential,
    width: usize,
    views: PhantomData<fn(V)>,
}

impl<V> Chain<V> {
    /// A chain whose output is `(n, width)`; its layers' parameters were declared in `scope`, or in another scope of the same
    /// [`Params`](crate::nn::params::Params).
    pub fn new(layers: Vec<Layer>, width: usize, scope: Scope) -> Self {
        Chain { layers: Sequential::new(layers, scope.gradient_store()), width, views: PhantomData }
    }
}

impl<V: HostBatch<Stacked = Tensor>> Encoder for Chain<V> {
    type Views = V;

    fn width(&self) -> usize {
        self.width
    }

    fn encode(&self, x: &Tensor, rows: &Rows, pass: &Pass) -> Result<(Tensor, Tape)> {
        self.layers.forward(x, rows, pass)
    }

    fn through(&self, head: &Sequential, x: &Tensor, rows: &Rows, pass: &Pass) -> Result<(Tensor, Tape)> {
        self.layers.through(head, x, rows, pass)
    }
}

/// Samples that are encoded at once.
const AT_ONCE: usize = 256;

/// Representations of all samples of `data`, in order, `len() · width` values: what evaluation sees. `view` appends a sample's view to
/// those before it. Normalisation goes by the running statistics.
///
/// # Errors
/// About a sample, with its name; rows that the encoder cannot read; the process was asked to end.
pub fn represent<E: Encoder, D: Dataset>(
    encoder: &E,
    data: &D,
    view: impl Fn(&D::Sample, &mut E::Views) -> Result<()>,
) -> Result<Vec<f32>> {
    let mut rows = Vec::with_capacity(data.len() * encoder.width());
    let stop = Stop::here();
    for from in (0..data.len()).step_by(AT_ONCE) {
        stop.check()?;
        let samples = from..(from + AT_ONCE).min(data.len());
        let (count, mut views) = (samples.len(), E::Views::default());
        for sample in samples {
            data.get(sample).and_then(|it| view(&it, &mut views)).map_err(|e| e.at(data.name(sample)))?;
        }
        let (h, _) = encoder.encode(&E::Views::stack(&[&views])?, &Rows::alone(count), &Pass::eval())?;
        rows.extend(h.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?);
    }
    Ok(rows)
}
