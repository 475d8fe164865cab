//! The training loop, the learner that it trains, its plan, its log and its benchmark.

pub mod bench;
pub mod dense;
pub mod fit;
pub mod health;
pub mod learner;
mod log;
pub mod method;
pub mod plan;
#[cfg(test)]
mod tests;
pub mod two_views;
