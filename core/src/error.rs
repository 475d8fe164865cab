//! The error type of ctk: what went wrong, where, and what to do about it.
//!
//! A user reads three lines: `error:` says what, `-->` says where (file, line, record), `hint:` says what to try next. The kind decides the
//! exit code: 2 for a mistake in the command line or the recipe, 1 for a failure while running. If the error comes from a library,
//! [`source`](std::error::Error::source) is the library's error, whose message is already in the first line.

use std::borrow::Cow;
use std::error::Error as Cause;
use std::fmt;
use std::io;

/// The kind of an error, as far as the user of the program is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The command line or the recipe is wrong: exit code 2.
    Usage,
    /// Something failed while running: exit code 1.
    Failed,
    /// The user asked to stop; the state of training is saved: exit code 1.
    Interrupted,
    /// Training gave a number that is not finite: exit code 1. In a search, the candidate is dropped.
    Diverged,
}

/// What went wrong, where, and what to do. One pointer large, so that results are cheap to move.
pub struct Error(Box<Parts>);

struct Parts {
    kind: ErrorKind,
    what: String,
    places: Vec<String>,
    hint: Option<String>,
    source: Option<Box<dyn Cause + Send + Sync>>,
}

/// The result type of ctk.
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

    /// Training gave a number that is not finite.
    pub fn diverged(what: impl fmt::Display) -> Self {
        Self::of(ErrorKind::Diverged, what)
    }

    /// Keeps the error that caused this one.
    pub(crate) fn caused_by(mut self, source: impl Cause + Send + Sync + 'static) -> Self {
        self.0.source = Some(Box::new(source));
        self
    }

    /// Adds a place: a file, a line, a record. The innermost place is added first and printed first.
    pub fn at(mut self, place: impl fmt::Display) -> Self {
        self.0.places.push(place.to_string());
        self
    }

    /// Adds a hint; the hint nearest to the cause wins.
    pub fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.0.hint.get_or_insert_with(|| hint.to_string());
        self
    }

    /// The kind of this error.
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
        write!(f, "{}", shown(&self.0.what))?;
        for place in &self.0.places {
            write!(f, "\n  --> {}", shown(place))?;
        }
        match self.0.hint.as_deref().or_else(|| self.0.source.as_deref().and_then(room)) {
            Some(hint) => write!(f, "\nhint: {}", shown(hint)),
            None => Ok(()),
        }
    }
}

/// Characters of a line of an error that are printed. Whoever wrote a longer key or path does not need to read all of it.
const LONGEST: usize = 800;

/// The first `most` characters of `text`; of a longer text, also how many characters it has.
pub fn short(text: &str, most: usize) -> Cow<'_, str> {
    match text.char_indices().nth(most) {
        None => text.into(),
        Some((end, _)) => format!("{}… ({} characters)", &text[..end], text.chars().count()).into(),
    }
}

/// A part of an error as it is printed: shortened, and with control characters escaped.
fn shown(text: &str) -> String {
    printable(&short(text, LONGEST))
}

/// `text` with control characters, which a terminal would obey, written as escapes; line feeds and tabs stay.
pub fn printable(text: &str) -> String {
    let odd = |c: char| c.is_control() && c != '\n' && c != '\t';
    text.chars().flat_map(|c| if odd(c) { c.escape_default().collect::<Vec<_>>() } else { vec![c] }).collect()
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
            // An error of ctk that was passed through candle is inside this one, and is unpacked.
            candle_core::Error::Io(e) => e.into(),
            other => Error::new(&other).caused_by(other),
        }
    }
}

/// Operations of ctk that candle calls return their errors through candle. Inside an [`io::Error`] the error keeps its kind, places and
/// hint; candle's own wrapper would keep the text alone.
impl From<Error> for candle_core::Error {
    fn from(e: Error) -> Self {
        candle_core::Error::Io(io::Error::other(e))
    }
}

/// An error of ctk inside is unpacked. A missing permission always gets its own hint, which replaces others.
impl From<io::Error> for Error {
    fn from(e: io::Error) -> Self {
        let forbidden = match e.kind() {
            io::ErrorKind::PermissionDenied => {
                Some("this user may not do that there: see the permissions of the file and its folder")
            }
            io::ErrorKind::ReadOnlyFilesystem => Some("this disk can only be read: write somewhere else"),
            _ => None,
        };
        let error = e.downcast::<Error>().unwrap_or_else(|e| Error::new(&e).caused_by(e));
        match forbidden {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}

/// The hint for a full disk, if that is the cause; used if no other hint was given.
fn room(source: &(dyn Cause + Send + Sync + 'static)) -> Option<&'static str> {
    let full = |e: &io::Error| matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    source.downcast_ref().is_some_and(full).then_some("the disk is full: make room, or write to another one")
}

impl From<safetensors::SafeTensorError> for Error {
    fn from(e: safetensors::SafeTensorError) -> Self {
        match e {
            safetensors::SafeTensorError::IoError(e) => e.into(),
            other => Error::new(format!("not a readable safetensors file: {other}")).caused_by(other),
        }
    }
}

impl From<serde_json::Error> for Error {
    fn from(e: serde_json::Error) -> Self {
        Error::new(format!("not the JSON that was expected: {e}")).caused_by(e)
    }
}

/// Adds a place or a hint to the error of a result.
pub trait Context<T> {
    /// Adds a place; see [`Error::at`].
    ///
    /// # Errors
    /// The error of `self`.
    fn at(self, place: impl fmt::Display) -> Result<T>;
    /// Adds a hint; see [`Error::hint`].
    ///
    /// # Errors
    /// The error of `self`.
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
    fn what_is_longer_than_a_screen_is_cut() {
        let e = Error::usage("é".repeat(100_000)).at("x".repeat(100_000)).hint("y".repeat(900));
        let said = e.to_string();
        assert!(said.contains("é… (100000 characters)") && said.contains("x… (100000 characters)"), "{said}");
        assert!(said.chars().count() < 2600 && e.what().chars().count() == 100_000);
        assert_eq!(Error::new("a".repeat(800)).to_string().len(), 800);
        assert_eq!(Error::new("`\u{1b}[31m\0`\tand\nmore").to_string(), "`\\u{1b}[31m\\u{0}`\tand\nmore");
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
    fn a_full_disk_and_what_is_forbidden_say_so_and_nothing_else_does() {
        let of = |kind: io::ErrorKind| Error::from(io::Error::from(kind)).at("a.txt").to_string();
        assert!(of(io::ErrorKind::StorageFull).ends_with("hint: the disk is full: make room, or write to another one"));
        assert!(of(io::ErrorKind::QuotaExceeded).contains("the disk is full"));
        assert!(of(io::ErrorKind::PermissionDenied).contains("hint: this user may not do that there"));
        assert!(of(io::ErrorKind::ReadOnlyFilesystem).contains("hint: this disk can only be read"));
        assert!(!of(io::ErrorKind::NotFound).contains("hint") && !of(io::ErrorKind::UnexpectedEof).contains("disk"));
        // A hint about another disk is allowed here; a missing permission must not be reported as a full disk.
        let hinted = |kind: io::ErrorKind| Error::from(io::Error::from(kind)).hint("set TMPDIR to a larger disk").to_string();
        assert!(hinted(io::ErrorKind::StorageFull).ends_with("hint: set TMPDIR to a larger disk"));
        assert!(hinted(io::ErrorKind::PermissionDenied).contains("may not do that"));
        // The library that writes weights passes the cause on.
        let weights = Error::from(safetensors::SafeTensorError::IoError(io::ErrorKind::StorageFull.into())).to_string();
        assert!(weights.contains("hint: the disk is full") && !weights.contains("not a readable"), "{weights}");
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
