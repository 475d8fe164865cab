//! From views to embeddings: encoder, projection head, towers, and their momentum copy.

pub mod embeddings;
pub mod encoder;
pub mod head;
pub mod plain;
pub mod supervised;
pub mod target;
pub mod tower;
