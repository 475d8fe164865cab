//! From samples to batches: datasets, positive pairs, and batches in order, drawn ahead.

pub mod dataset;
pub mod distinct;
pub mod feed;
pub mod known;
pub mod labels;
pub mod pair;
pub mod source;
