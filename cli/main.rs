//! The `ctk` program: the built-in modalities behind one command line.

use std::process::ExitCode;

/// A step's arrays are the next step's. What is idle is bounded: a fraction of what training a small network takes.
#[global_allocator]
static ALLOCATOR: ctk_alloc::Caching = ctk_alloc::Caching::new(256 << 20);

fn main() -> ExitCode {
    ctk::main(&[&ctk_vision::Vision, &ctk_text::Word2Vec])
}
