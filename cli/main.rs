//! The `ctk` program: the built-in modalities behind one command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    ctk::main(&[&ctk_vision::Vision, &ctk_text::Word2Vec])
}
