//! One file for each verb: what `ctk <verb>` does.

pub mod bench;
pub mod captions;
pub mod classify;
pub mod config;
pub mod data;
pub mod devices;
pub mod distill;
pub mod embed;
pub mod eval;
pub mod export;
pub mod finetune;
pub mod import;
pub mod man;
pub mod mine;
pub mod neighbors;
pub mod predict;
pub mod preview;
pub mod sentences;
pub mod tokenizer;
pub mod train;
