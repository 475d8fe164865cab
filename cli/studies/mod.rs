//! Many runs in one command: cases of a matrix file, studies of variants, and what labels are worth.

pub mod label_efficiency;
pub mod matrix;
pub mod study;
