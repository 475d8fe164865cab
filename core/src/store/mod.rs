//! Everything that is written: run folders, checkpoints, files.

pub mod checkpoint;
pub mod files;
pub mod run;
pub mod safetensors_header;
