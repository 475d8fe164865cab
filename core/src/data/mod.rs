//! Samples to batches: what there is to learn from, what belongs together, and batches in order, drawn ahead.

pub mod dataset;
pub mod feed;
pub mod labels;
pub mod pair;
pub mod source;
