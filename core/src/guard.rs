//! Turns panics of libraries that take some damaged files for impossible into errors.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    /// Whether a panic of this thread becomes an error, which says all there is to say.
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work`, which is a library's alone, on this thread: a panic is an error, made by `wrong` of its words, and is not reported.
///
/// # Errors
/// Those of `work`, and its panics.
pub fn guarded<R, E>(work: impl FnOnce() -> Result<R, E>, wrong: impl FnOnce(String) -> E) -> Result<R, E> {
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
    // Whatever the panic left half done is dropped.
    let done = catch_unwind(AssertUnwindSafe(work));
    GUARDED.set(false);
    done.unwrap_or_else(|panic| Err(wrong(words(&*panic))))
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
        let run = |work: fn() -> Result<i32, String>| guarded(work, |words| words);
        let error = run(|| panic!("page {}", 3)).unwrap_err();
        assert!(error.contains("makes no sense (page 3)"), "{error}");
        assert!(run(|| panic!("constant")).unwrap_err().contains("constant"));
        assert_eq!(run(|| Err("end".into())).unwrap_err(), "end");
        assert_eq!(run(|| Ok(3)), Ok(3));
        assert!(!GUARDED.get());
    }
}
