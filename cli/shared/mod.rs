//! What verbs share: arguments, recipes, runs, models, samples, files of features, cells of studies, progress, output and signals.

pub mod args;
pub mod cells;
pub mod device;
pub mod evals;
pub mod keys;
pub mod model;
pub mod output;
pub mod pace;
pub mod progress;
pub mod recipe;
pub mod run;
pub mod samples;
pub mod signals;
pub mod stored;
pub mod task;
