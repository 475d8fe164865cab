//! Turns panics of the parquet crate, which takes some damaged files for impossible, into errors.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

use parquet::errors::ParquetError;

thread_local! {
    /// Whether a panic of this thread becomes an error, which says all there is to say.
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work`, which is the parquet crate's alone: a panic is an error, and is not reported.
pub(super) fn guarded<R>(work: impl FnOnce() -> Result<R, ParquetError>) -> Result<R, ParquetError> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |panic| {
            if !GUARDED.get() {
                before(panic);
            }
        }));
    });
    GUARDED.set(true);
    // Whatever the panic left half done is dropped with the reader.
    let done = catch_unwind(AssertUnwindSafe(work));
    GUARDED.set(false);
    done.unwrap_or_else(|panic| Err(ParquetError::General(words(&*panic))))
}

fn words(panic: &dyn Any) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string).or_else(|| panic.downcast_ref::<String>().cloned());
    text.map_or_else(|| "its content makes no sense".to_string(), |text| format!("its content makes no sense ({text})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_are_errors_and_errors_stay() {
        let error = guarded::<()>(|| panic!("page {}", 3)).unwrap_err().to_string();
        assert!(error.contains("makes no sense (page 3)"), "{error}");
        assert!(guarded::<()>(|| panic!("constant")).unwrap_err().to_string().contains("constant"));
        assert!(guarded::<()>(|| Err(ParquetError::EOF("end".into()))).unwrap_err().to_string().contains("end"));
        assert_eq!(guarded(|| Ok(3)).unwrap(), 3);
        assert!(!GUARDED.get());
    }
}
