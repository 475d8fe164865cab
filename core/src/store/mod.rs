//! Storage: run folders, checkpoints, Parquet tables, and every write of a file.

pub mod best;
mod changes;
pub mod checkpoint;
pub mod files;
mod finite;
pub mod parquet;
pub mod rows;
pub mod run;
pub mod safetensors_header;
mod sums;
