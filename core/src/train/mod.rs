//! The training loop, what takes its steps, and what times them.

pub mod bench;
pub mod dense;
pub mod fit;
pub mod health;
pub mod learner;
mod log;
pub mod plan;
#[cfg(test)]
mod tests;
