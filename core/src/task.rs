//! What can be asked for with a trained network, in no modality's words: fine-tuning it with few labels, distilling it.
//!
//! The command line makes a request, a modality the recipe that it means: see [`Modality::task`](crate::modality::Modality::task).

use std::path::PathBuf;

use crate::data::labels::Amount;
use crate::recipe::Recipe;

/// A task, and how it trains.
#[derive(Clone, Debug)]
pub struct TaskRequest {
    /// The run whose network it is about, as the user named it.
    pub run: PathBuf,
    /// Other data than the run's own.
    pub data: Option<PathBuf>,
    /// What moves the parameters.
    pub optimizer: TaskOptimizer,
    /// Samples a step.
    pub batch: usize,
    /// Layers of the projection head that are kept; none: the modality's own default.
    pub from_layer: Option<usize>,
    /// Whether batch normalisation keeps the run's statistics while training.
    pub frozen_statistics: bool,
    /// What is to be done.
    pub task: Task,
}

/// The optimizers that a task has default rates for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskOptimizer {
    /// Layer-wise adaptive rates.
    Lars,
    /// Stochastic gradient descent with Nesterov momentum.
    Sgd,
}

/// What is to be done with a trained network.
#[derive(Clone, Debug)]
pub enum Task {
    /// Train it on with few labels.
    Finetune(Finetune),
    /// Train a network on what it says of samples, labelled or not.
    Distill(Distill),
}

/// Fine-tuning. Rates, epochs and crops are what may be chosen from; empty: the modality's own default.
#[derive(Clone, Debug)]
pub struct Finetune {
    /// How many training samples keep their labels.
    pub labels: Amount,
    /// What the choice of these samples, their folds and their order hang on.
    pub seed: u64,
    /// Train the same network from fresh values instead.
    pub scratch: bool,
    /// Peak rates, before batch scaling.
    pub rates: Vec<f64>,
    /// Numbers of epochs.
    pub epochs: Vec<usize>,
    /// Smallest crops, shares of the area.
    pub crops: Vec<f64>,
    /// Parts of the labelled samples that are held out in turn to choose by.
    pub folds: usize,
}

/// Distillation. What is left out is as for self-distillation, or as from big to small where there is a student.
#[derive(Clone, Debug)]
pub struct Distill {
    /// The student's recipe; none: the teacher's own network.
    pub student: Option<Recipe>,
    /// The run that the student starts from.
    pub from: Option<PathBuf>,
    /// Both networks' logits are divided by it.
    pub temperature: Option<f64>,
    /// The teacher's share of the loss; labels have the rest.
    pub alpha: f64,
    /// Passes over all training samples.
    pub epochs: usize,
    /// Peak rate, before batch scaling.
    pub rate: Option<f64>,
}
