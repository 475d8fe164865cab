//! Everything that is written: run folders, checkpoints, files.

pub mod best;
mod changes;
pub mod checkpoint;
pub mod files;
mod finite;
pub mod parquet;
pub mod run;
pub mod safetensors_header;
mod sums;
