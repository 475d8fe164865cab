//! What has changed since a run's checkpoint was written: recipe keys, data, the version of ctk. A run that continues after a change is a
//! different training run, so most changes are refused.

use crate::error::{Error, Result};
use crate::recipe::{Recipe, later};

/// The hint that says how to accept a change.
const ACCEPT: &str = "--accept-changes continues with the current data and recipe";

/// Compares the recipe `was` of a checkpoint with the run's, `is`. Changes of keys that may change on a resume are noted.
///
/// # Errors
/// Another key differs, and changes are not accepted.
pub(super) fn of_recipe(was: &str, is: &str, accepting: bool, notes: &mut Vec<String>) -> Result<()> {
    let changed = later::changes(&Recipe::new("the checkpoint's recipe", was), &Recipe::new("the run's recipe", is))?;
    let (may, may_not): (Vec<_>, Vec<_>) = changed.into_iter().partition(|change| later::may_change(&change.key));
    if !may_not.is_empty() && !accepting {
        let all: Vec<String> = may_not.iter().map(ToString::to_string).collect();
        return Err(Error::usage(format!("the run's recipe was edited since its checkpoint was written: {}", all.join("; ")))
            .hint(format!(
                "set it back, or begin a new run with --init; {ACCEPT}. These keys may change: {}",
                later::MAY_CHANGE.join(", ")
            )));
    }
    notes.extend(
        may.iter().chain(&may_not).map(|change| format!("the recipe changed since the checkpoint was written: {change}")),
    );
    Ok(())
}

/// Compares digests of the data.
///
/// # Errors
/// They differ, and changes are not accepted.
pub(super) fn of_data(was: Option<&str>, is: Option<&str>, accepting: bool, notes: &mut Vec<String>) -> Result<()> {
    match (was, is) {
        (Some(was), Some(is)) if was != is && !accepting => {
            Err(Error::usage("the data is not what this run was trained on: names, order, sizes or contents of files differ")
                .hint(format!("restore the data, or begin a new run with --init; {ACCEPT}")))
        }
        (Some(was), Some(is)) if was != is => {
            notes.push("the data is not what this run was trained on so far".to_string());
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Notes that another version of ctk wrote the checkpoint.
pub(super) fn of_version(was: Option<&str>, notes: &mut Vec<String>) {
    let is = env!("CARGO_PKG_VERSION");
    if let Some(was) = was.filter(|was| *was != is) {
        notes.push(format!(
            "the checkpoint was written by ctk {was}, and this is {is}: bits may differ from a run of one version"
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_may_not_change_are_refused_with_both_values() {
        let was = "[train]\nepochs = 3\nbatch = 8\n[loss.nt-xent]\ntemperature = 0.2\n";
        let is = "[train]\nepochs = 5\nbatch = 9\n[loss.nt-xent]\n";
        let mut notes = Vec::new();
        let error = of_recipe(was, is, false, &mut notes).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        let text = error.to_string();
        assert!(
            text.contains("train.batch from 8 to 9") && text.contains("loss.nt-xent.temperature from 0.2 to nothing"),
            "{text}"
        );
        assert!(!text.contains("train.epochs from") && text.contains("hint: ") && text.contains("--accept-changes"), "{text}");
        of_recipe(was, is, true, &mut notes).unwrap();
        assert_eq!(notes.len(), 4, "{notes:?}");
        notes.clear();
        of_recipe(was, &was.replace("epochs = 3", "epochs = 4 # longer"), false, &mut notes).unwrap();
        assert_eq!(notes, ["the recipe changed since the checkpoint was written: train.epochs from 3 to 4"]);
        notes.clear();
        of_recipe(was, &format!("# a comment\n{was}\n"), false, &mut notes).unwrap();
        assert!(notes.is_empty());
    }

    #[test]
    fn other_data_is_refused_and_another_version_is_told() {
        let mut notes = Vec::new();
        assert_eq!(of_data(Some("a"), Some("b"), false, &mut notes).unwrap_err().exit_code(), 2);
        for (was, is) in [(None, Some("b")), (Some("a"), None), (Some("a"), Some("a"))] {
            of_data(was, is, false, &mut notes).unwrap();
        }
        assert!(notes.is_empty());
        of_data(Some("a"), Some("b"), true, &mut notes).unwrap();
        of_version(Some("0.0.1"), &mut notes);
        of_version(Some(env!("CARGO_PKG_VERSION")), &mut notes);
        of_version(None, &mut notes);
        assert_eq!(notes.len(), 2);
        assert!(notes[1].contains("written by ctk 0.0.1"), "{notes:?}");
    }
}
