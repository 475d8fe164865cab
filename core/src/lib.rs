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

pub mod bench;
pub mod checkpoint;
pub mod dataset;
pub mod dense;
pub mod device;
pub mod encoder;
pub mod error;
pub mod eval;
pub mod events;
pub mod feed;
pub mod files;
pub mod fit;
pub mod head;
pub mod header;
pub mod labels;
pub mod learner;
pub mod memory;
pub mod modality;
pub mod nn;
pub mod objective;
pub mod optim;
pub mod pair;
pub mod params;
pub mod pass;
pub mod plan;
pub mod recipe;
pub mod rng;
pub mod run;
pub mod single;
pub mod source;
pub mod target;
pub mod tower;
pub mod world;

pub use candle_core::{DType, Device, Tensor};
pub use error::{Context, Error, Result};
