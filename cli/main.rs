//! The `ctk` program: the built-in modalities behind one command line.

use std::process::ExitCode;

/// Freed arrays of one step are used again by the next. At most 256 MiB stay idle, a fraction of what training a small network takes.
#[global_allocator]
static ALLOCATOR: ctk_alloc::Caching = ctk_alloc::Caching::new(256 << 20);

fn main() -> ExitCode {
    ctk::main(&[&ctk_vision::Vision, &ctk_text::Word2Vec, &ctk_image_text::ImageText, &ctk_text::Sentences])
}
