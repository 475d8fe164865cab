//! Everything that is written: run folders, checkpoints, files.

pub mod best;
pub mod checkpoint;
pub mod files;
pub mod parquet;
pub mod run;
pub mod safetensors_header;
