//! The modality-agnostic core of ctk: make positive pairs, encode, project, contrast.
//!
//! The path of the data through the program, which is the same for every modality:
//!
//! ```text
//! Dataset + PairGenerator → Source → Feed → Learner → Run (metrics, checkpoints) → Model → Features → eval
//!                                             │
//!       Dense: Towers (Encoder → ProjectionHead) → Embeddings → Objective → gradients → Tape → Optimizer
//! ```
//!
//! - [`data`] makes batches: pure functions of (seed, epoch, samples).
//! - [`model`] turns views into embeddings; [`nn`] holds its layers, their parameters, passes and tapes.
//! - [`objective`] holds the losses, [`optim`] the optimizers; [`train`] has the training loop and the learner that trains towers.
//! - [`recipe`] is the config as written, [`train::plan`] as checked.
//! - [`store`] writes every file.
//! - [`eval`] evaluates frozen [`Features`](eval::Features).
//! - [`process`] is the state of one process beside the run's folder: device, ranks, observer; [`world`] is the communication with other
//!   ranks; [`observer`] is told what happens.
//! - [`task`] describes what can be done with a trained network; [`modality`] is the interface that a plugin implements.
//!
//! Core depends on no image or text library and on no terminal.

#![forbid(unsafe_code)]

pub mod data;
pub mod device;
pub mod error;
pub mod eval;
pub mod guard;
pub mod memory;
pub mod modality;
pub mod model;
pub mod nn;
pub mod objective;
pub mod observer;
pub mod opened;
pub mod optim;
pub mod process;
pub mod recipe;
pub mod rng;
pub mod self_test;
pub mod store;
pub mod task;
pub mod train;
pub mod world;

pub use candle_core::{DType, Tensor};
pub use device::Device;
pub use error::{Context, Error, Result};
