//! The one error of ctk: what went wrong, where, and what to do about it.
//!
//! A user reads three lines and knows enough: `error:` what, `-->` where (file, line, record), `hint:` the next thing to
//! try. The kind decides the exit code: a wrong command line or recipe is 2, a failure while running is 1.

use std::fmt;

/// What the error means for whoever started the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The command line or the recipe is wrong: exit code 2.
    Usage,
    /// Something failed while running: exit code 1.
    Failed,
    /// The user asked to stop; what was learned is saved: exit code 1.
    Interrupted,
    /// Training left the finite numbers: exit code 1, or a candidate that is out of the question.
    Diverged,
}

/// What, where, and what to do. Cheap to move: one pointer.
pub struct Error(Box<Parts>);

struct Parts {
    kind: Kind,
    what: String,
    places: Vec<String>,
    hint: Option<String>,
}

/// ctk's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    fn of(kind: Kind, what: impl fmt::Display) -> Self {
        Error(Box::new(Parts { kind, what: what.to_string(), places: Vec::new(), hint: None }))
    }

    /// A failure while running.
    pub fn new(what: impl fmt::Display) -> Self {
        Self::of(Kind::Failed, what)
    }

    /// A mistake in the command line or the recipe.
    pub fn usage(what: impl fmt::Display) -> Self {
        Self::of(Kind::Usage, what)
    }

    /// The user asked to stop.
    pub fn interrupted(what: impl fmt::Display) -> Self {
        Self::of(Kind::Interrupted, what)
    }

    /// Training left the finite numbers.
    pub fn diverged(what: impl fmt::Display) -> Self {
        Self::of(Kind::Diverged, what)
    }

    /// Adds a place: a file, a line, a record. The innermost place is added first and printed first.
    pub fn at(mut self, place: impl fmt::Display) -> Self {
        self.0.places.push(place.to_string());
        self
    }

    /// Says what to do; the hint nearest to the cause wins.
    pub fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.0.hint.get_or_insert_with(|| hint.to_string());
        self
    }

    /// What this error means for whoever started the program.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The first line, without place and hint.
    pub fn what(&self) -> &str {
        &self.0.what
    }

    /// The process exit code of this error.
    pub fn exit_code(&self) -> u8 {
        match self.0.kind {
            Kind::Usage => 2,
            Kind::Failed | Kind::Interrupted | Kind::Diverged => 1,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.what)?;
        for place in &self.0.places {
            write!(f, "\n  --> {place}")?;
        }
        match &self.0.hint {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Error {}

impl From<candle_core::Error> for Error {
    fn from(e: candle_core::Error) -> Self {
        // An error of ours may have crossed candle (inside a CustomOp): take it back whole.
        match e {
            candle_core::Error::Wrapped(inner) => Error::new(inner),
            other => Error::new(other),
        }
    }
}

impl From<Error> for candle_core::Error {
    fn from(e: Error) -> Self {
        candle_core::Error::wrap(e)
    }
}

impl From<std::io::Error> for Error {
    fn from(e: std::io::Error) -> Self {
        Error::new(e)
    }
}

impl From<safetensors::SafeTensorError> for Error {
    fn from(e: safetensors::SafeTensorError) -> Self {
        Error::new(format!("not a readable safetensors file: {e}"))
    }
}

impl From<serde_json::Error> for Error {
    fn from(e: serde_json::Error) -> Self {
        Error::new(format!("not the JSON that was expected: {e}"))
    }
}

/// Adds a place or a hint to whatever error passes by.
pub trait Context<T> {
    /// Adds a place; see [`Error::at`].
    fn at(self, place: impl fmt::Display) -> Result<T>;
    /// Adds a hint; see [`Error::hint`].
    fn hint(self, hint: impl fmt::Display) -> Result<T>;
}

impl<T, E: Into<Error>> Context<T> for Result<T, E> {
    fn at(self, place: impl fmt::Display) -> Result<T> {
        self.map_err(|e| e.into().at(place))
    }

    fn hint(self, hint: impl fmt::Display) -> Result<T> {
        self.map_err(|e| e.into().hint(hint))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_as_what_where_and_hint() {
        let e = Error::new("cannot decode the image").at("a.png").at("folder x").hint("remove it").hint("ignored");
        assert_eq!(e.to_string(), "cannot decode the image\n  --> a.png\n  --> folder x\nhint: remove it");
        assert_eq!(e.exit_code(), 1);
        assert_eq!(Error::usage("no").exit_code(), 2);
    }
}
