//! The one error of ctk: what went wrong, where, and what to do about it.
//!
//! A user reads three lines and knows enough: `error:` what, `-->` where (file, line, record), `hint:` the next thing to
//! try. The kind decides the exit code: a wrong command line or recipe is 2, a failure while running is 1. The error of a library that
//! it comes from is its [`source`](std::error::Error::source); the first line says already what that one says.

use std::error::Error as Cause;
use std::fmt;
use std::io;

/// What the error means for whoever started the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
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
    kind: ErrorKind,
    what: String,
    places: Vec<String>,
    hint: Option<String>,
    source: Option<Box<dyn Cause + Send + Sync>>,
}

/// ctk's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    fn of(kind: ErrorKind, what: impl fmt::Display) -> Self {
        Error(Box::new(Parts { kind, what: what.to_string(), places: Vec::new(), hint: None, source: None }))
    }

    /// A failure while running.
    pub fn new(what: impl fmt::Display) -> Self {
        Self::of(ErrorKind::Failed, what)
    }

    /// A mistake in the command line or the recipe.
    pub fn usage(what: impl fmt::Display) -> Self {
        Self::of(ErrorKind::Usage, what)
    }

    /// The user asked to stop.
    pub fn interrupted(what: impl fmt::Display) -> Self {
        Self::of(ErrorKind::Interrupted, what)
    }

    /// Training left the finite numbers.
    pub fn diverged(what: impl fmt::Display) -> Self {
        Self::of(ErrorKind::Diverged, what)
    }

    /// Keeps the error that this one comes from.
    pub(crate) fn caused_by(mut self, source: impl Cause + Send + Sync + 'static) -> Self {
        self.0.source = Some(Box::new(source));
        self
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
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The first line, without place and hint.
    pub fn what(&self) -> &str {
        &self.0.what
    }

    /// Where it happened, the innermost place first.
    pub fn places(&self) -> &[String] {
        &self.0.places
    }

    /// The process exit code of this error.
    pub fn exit_code(&self) -> u8 {
        match self.0.kind {
            ErrorKind::Usage => 2,
            ErrorKind::Failed | ErrorKind::Interrupted | ErrorKind::Diverged => 1,
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

impl Cause for Error {
    fn source(&self) -> Option<&(dyn Cause + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn Cause + 'static))
    }
}

impl From<candle_core::Error> for Error {
    fn from(e: candle_core::Error) -> Self {
        match e {
            // An error of ctk that an operation gave to candle comes back inside this one.
            candle_core::Error::Io(e) => e.into(),
            other => Error::new(&other).caused_by(other),
        }
    }
}

/// An operation of ours that candle calls gives its error to candle. Inside [`io::Error`] it can be found again, kind, places, hint
/// and all; candle's own wrapper keeps the text alone.
impl From<Error> for candle_core::Error {
    fn from(e: Error) -> Self {
        candle_core::Error::Io(io::Error::other(e))
    }
}

/// What is ours inside is taken back whole. What a user can do about the system's refusals is said.
impl From<io::Error> for Error {
    fn from(e: io::Error) -> Self {
        e.downcast::<Error>().unwrap_or_else(|e| {
            let hint = match e.kind() {
                io::ErrorKind::StorageFull => Some("the disk is full: free some space, or write elsewhere"),
                io::ErrorKind::QuotaExceeded => Some("your quota on this disk is used up: free some space, or write elsewhere"),
                io::ErrorKind::PermissionDenied => {
                    Some("you may not do this here: look at the owner and the mode of file and folder")
                }
                io::ErrorKind::ReadOnlyFilesystem => Some("this disk cannot be written to: write elsewhere"),
                _ => None,
            };
            let error = Error::new(&e).caused_by(e);
            match hint {
                Some(hint) => error.hint(hint),
                None => error,
            }
        })
    }
}

impl From<safetensors::SafeTensorError> for Error {
    fn from(e: safetensors::SafeTensorError) -> Self {
        match e {
            safetensors::SafeTensorError::IoError(e) => e.into(),
            e => Error::new(format!("not a readable safetensors file: {e}")).caused_by(e),
        }
    }
}

impl From<serde_json::Error> for Error {
    fn from(e: serde_json::Error) -> Self {
        Error::new(format!("not the JSON that was expected: {e}")).caused_by(e)
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

    #[test]
    fn the_source_is_kept_and_printed_once() {
        let missing = || io::Error::new(io::ErrorKind::NotFound, "no such file");
        let e = Error::from(missing()).at("a.txt");
        assert_eq!(e.to_string(), "no such file\n  --> a.txt");
        let source = e.source().and_then(|source| source.downcast_ref::<io::Error>());
        assert_eq!(source.map(io::Error::kind), Some(io::ErrorKind::NotFound));

        let e = Error::from(serde_json::from_str::<u32>("x").unwrap_err());
        assert!(e.source().is_some_and(|source| source.is::<serde_json::Error>()));
        assert!(e.to_string().starts_with("not the JSON that was expected: expected value"), "{e}");

        let e = Error::from(candle_core::Error::UnwrapNone);
        assert!(e.source().is_some_and(|source| source.is::<candle_core::Error>()));
        assert_eq!(e.to_string(), "unwrap none");

        let e = Error::from(candle_core::Error::Io(missing()));
        assert!(e.source().is_some_and(|source| source.is::<io::Error>()));
        assert!(Error::new("alone").source().is_none());
    }

    #[test]
    fn a_full_disk_and_a_missing_permission_are_told_apart() {
        let hint = |kind: io::ErrorKind| Error::from(io::Error::from(kind)).to_string();
        assert!(hint(io::ErrorKind::StorageFull).contains("hint: the disk is full"));
        assert!(hint(io::ErrorKind::PermissionDenied).contains("hint: you may not do this here"));
        assert!(!hint(io::ErrorKind::BrokenPipe).contains("hint"));
        let wrapped = safetensors::SafeTensorError::IoError(io::ErrorKind::StorageFull.into());
        assert!(Error::from(wrapped).to_string().contains("hint: the disk is full"));
    }

    #[test]
    fn an_error_that_crossed_candle_comes_back_whole() {
        struct Fails;

        impl candle_core::CustomOp1 for Fails {
            fn name(&self) -> &'static str {
                "fails"
            }

            fn cpu_fwd(
                &self,
                _: &candle_core::CpuStorage,
                _: &candle_core::Layout,
            ) -> candle_core::Result<(candle_core::CpuStorage, candle_core::Shape)> {
                Err(Error::usage("it cannot be").at("a.toml:3").hint("leave it out").caused_by(fmt::Error).into())
            }
        }

        let x = candle_core::Tensor::zeros(1, candle_core::DType::F32, &candle_core::Device::Cpu).unwrap();
        let e = Error::from(x.apply_op1(Fails).unwrap_err()).at("step 4").hint("another");
        assert_eq!(e.kind(), ErrorKind::Usage);
        assert_eq!(e.to_string(), "it cannot be\n  --> a.toml:3\n  --> step 4\nhint: leave it out");
        assert!(e.source().is_some_and(|source| source.is::<fmt::Error>()));
    }
}
