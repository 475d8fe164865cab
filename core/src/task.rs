//! Tasks with a trained network, independent of the modality: fine-tuning it with few labels, and distilling it.
//!
//! The command line makes a request; a modality turns it into a recipe: see [`Modality::task`](crate::modality::Modality::task). The samples
//! that keep their labels are drawn by [`Subset`], and stored in the run ([`store`], [`given`]).

use std::path::PathBuf;

use crate::data::labels::{Amount, Subset};
use crate::error::{Context, Error, Result};
use crate::process::Process;
use crate::recipe::Recipe;
use crate::store::checkpoint::Checkpoint;
use crate::store::run::Run;

/// The file of a run with the samples that keep their labels.
const LABELS: &str = "labels.json";

/// A task, and how it is trained.
#[derive(Clone, Debug)]
pub struct TaskRequest {
    /// The run to start from, as the user named it.
    pub run: PathBuf,
    /// Data to use instead of the run's own.
    pub data: Option<PathBuf>,
    /// The optimizer; none: the modality's default.
    pub optimizer: Option<TaskOptimizer>,
    /// Samples in a batch; none: the modality's default.
    pub batch: Option<usize>,
    /// Layers of the projection head that are kept; none: the modality's default.
    pub from_layer: Option<usize>,
    /// Whether batch normalisation uses the run's running statistics while training.
    pub frozen_statistics: bool,
    /// The task itself.
    pub task: Task,
}

/// The optimizers that a task has default rates for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskOptimizer {
    /// LARS, layer-wise adaptive rate scaling.
    Lars,
    /// Stochastic gradient descent with Nesterov momentum.
    Sgd,
}

/// The task itself.
#[derive(Clone, Debug)]
pub enum Task {
    /// Fine-tune the network with few labels.
    Finetune(Finetune),
    /// Train a student network on its predictions for samples, labelled or not.
    Distill(Distill),
}

/// Fine-tuning. Rates, epochs and crops are lists to choose from; an empty list stands for the modality's default.
#[derive(Clone, Debug)]
pub struct Finetune {
    /// How many training samples keep their labels.
    pub labels: Amount,
    /// Samples to test on, in place of those that belong to the data.
    pub test: Option<PathBuf>,
    /// How the network is trained, by the name that the modality has for it; none: its default.
    pub scheme: Option<String>,
    /// Seed of the choice of these samples, their folds and their order.
    pub seed: u64,
    /// Whether to train the same network from scratch instead.
    pub scratch: bool,
    /// Peak learning rates, before batch scaling.
    pub rates: Vec<f64>,
    /// Numbers of epochs.
    pub epochs: Vec<usize>,
    /// Smallest crops, as fractions of the image's area.
    pub crops: Vec<f64>,
    /// Folds of the labelled samples that are held out in turn to choose by.
    pub folds: usize,
}

/// Distillation. Options that are none have the defaults for self-distillation, or those for a student if there is one.
#[derive(Clone, Debug)]
pub struct Distill {
    /// The student's recipe; none: the teacher's own network.
    pub student: Option<Recipe>,
    /// The run that the student starts from.
    pub from: Option<PathBuf>,
    /// Temperature by which both networks' logits are divided.
    pub temperature: Option<f64>,
    /// The weight of the teacher's predictions in the loss; labels have the rest. None: they have no part.
    pub alpha: Option<f64>,
    /// Epochs over all training samples.
    pub epochs: Option<usize>,
    /// Peak learning rate, before batch scaling.
    pub rate: Option<f64>,
    /// Values of a student's features, for modalities whose student has a width of its own.
    pub width: Option<usize>,
    /// A file of the student's own vocabulary, for modalities that have one.
    pub vocabulary: Option<PathBuf>,
}

/// Stores in the run the samples that keep their labels; a resumed run must find the same.
///
/// # Errors
/// The run was begun with other labels; the file cannot be read or written.
pub fn store(drawn: &Subset, run: &mut Run, process: &Process) -> Result<()> {
    match run.read(LABELS)? {
        Some(bytes) if serde_json::from_slice::<Subset>(&bytes).at(LABELS)? != *drawn => {
            Err(Error::new("the data is not what it was when its labels were drawn")
                .at(LABELS)
                .hint("restore the data, or start a new run"))
        }
        None if process.writes() => run.write(LABELS, &serde_json::to_vec_pretty(drawn)?),
        _ => Ok(()),
    }
}

/// The samples that keep their labels in the run of `checkpoint`, if the run stores them.
///
/// # Errors
/// The file is damaged.
pub fn given(checkpoint: &Checkpoint) -> Result<Option<Subset>> {
    checkpoint.of_run(LABELS)?.map(|bytes| serde_json::from_slice(&bytes).at(LABELS)).transpose()
}
