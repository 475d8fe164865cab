//! The modality-agnostic core of ctk: make positive pairs, encode, project, contrast.
//!
//! One road runs through the program, and every modality walks it:
//!
//! ```text
//! Source (Dataset + PairGenerator) → Feed → Learner → Run (metrics, checkpoints) → Model → Features → eval
//!                                             │
//!                   Dense: Towers (Encoder → ProjectionHead) → Objective → backward → Optimizer
//! ```
//!
//! - [`dataset`], [`pair`], [`source`] and [`feed`] make batches: pure functions of (seed, epoch, samples).
//! - [`encoder`], [`head`], [`tower`], [`single`], [`target`] and [`pass`] run models; [`nn`] holds their layers and kernels,
//!   [`params`] their values.
//! - [`objective`] and [`optim`] learn; [`learner`], [`dense`] and [`fit`] are the loop.
//! - [`labels`] says which samples keep their labels where they are few.
//! - [`recipe`] and [`plan`] are the config, as written and as checked.
//! - [`run`], [`checkpoint`], [`events`] and [`files`] are all that is ever written; [`header`] reads what a file says it holds.
//! - [`bench`] times steps on this machine; [`memory`] reads amounts of memory.
//! - [`eval`] judges frozen [`Features`](eval::Features).
//! - [`modality`] is the front door that a plugin implements.
//!
//! Core knows no image, no token and no terminal.

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
pub mod optim;
pub mod recipe;
pub mod rng;
pub mod store;
pub mod train;
pub mod world;

pub use candle_core::{DType, Device, Tensor};
pub use error::{Context, Error, Result};
