//! Tasks with a trained network, independent of the modality: fine-tuning it with few labels, and distilling it.
//!
//! The command line makes a request; a modality turns it into a recipe: see [`Modality::task`](crate::modality::Modality::task).

use std::path::PathBuf;

use crate::data::labels::Amount;
use crate::recipe::Recipe;

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
