//! Fine-tuning: a trained encoder of sentences is made a classifier of texts by few labels.
//!
//! It is a task in a recipe and not a loop of its own: it has its source, learner and loss, and is trained by the same `fit`. [`recipe`] has
//! the keys, [`origin`] opens what is begun with, [`data`] the texts; [`pairs`] makes SetFit's pairs of them; [`learner`] trains by them;
//! [`classifier`] is what a checkpoint stores for predictions; [`job`] puts this together, and [`predict`] uses the result. No test label is
//! used before training is over.

pub(super) mod classifier;
mod data;
pub(super) mod job;
mod learner;
mod pairs;
pub(super) mod predict;
pub mod recipe;
