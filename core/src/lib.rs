//! The modality-agnostic core of ctk: make positive pairs, encode, project, contrast.
//!
//! One way runs through the program, and every modality walks it:
//!
//! ```text
//! Dataset + PairGenerator → Source → Feed → Learner → Run (metrics, checkpoints) → Model → Features → eval
//!                                             │
//!       Dense: Towers (Encoder → ProjectionHead) → Embeddings → Objective → gradients → Tape → Optimizer
//! ```
//!
//! - [`data`] makes batches: pure functions of (seed, epoch, samples).
//! - [`model`] turns views into embeddings; [`nn`] holds its layers, their parameters, passes and tapes.
//! - [`objective`] and [`optim`] learn; [`train`] is the loop and the learner that goes back through towers.
//! - [`recipe`] is the config as written, [`train::plan`] as checked.
//! - [`store`] is all that is ever written.
//! - [`eval`] judges frozen [`Features`](eval::Features).
//! - [`process`] is what one process has at hand beside a run's folder; [`world`] are the other ranks; [`observer`] is told what
//!   happens.
//! - [`task`] is what can be asked for with a trained network; [`modality`] is the front door that a plugin implements.
//!
//! Core knows no image, no token and no terminal.

#![forbid(unsafe_code)]

pub mod data;
pub mod device;
pub mod error;
pub mod eval;
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
pub mod store;
pub mod task;
pub mod train;
pub mod world;

pub use candle_core::{DType, Device, Tensor};
pub use error::{Context, Error, Result};
