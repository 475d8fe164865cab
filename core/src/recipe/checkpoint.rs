//! `[checkpoint]`: when checkpoints are saved, and which are kept.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Recipe, TrainRecipe};
use crate::error::{Error, Result};

/// `[checkpoint]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CheckpointRecipe {
    /// When a checkpoint is saved: a time (`"5m"`, `"30s"`, `"2h"`), `"500 steps"` or `"2 epochs"`. The end of a run is always saved.
    /// Default: what `train.save_every` says, else every five minutes, or with `keep_best` every epoch.
    pub every: Option<Every>,
    /// Number of newest checkpoints that are kept. Default: what `train.keep` says, else 2.
    pub keep: Option<usize>,
    /// Whether the best checkpoint is kept beside the newest ones, as `RUN/checkpoints/best`. Each saved checkpoint is measured on the part
    /// `val` of the data, or without one on a tenth of the training labels, which are then not trained on; never on test labels.
    pub keep_best: bool,
}

/// When checkpoints are saved, and how many are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Saves {
    /// The interval between two checkpoints.
    pub every: Every,
    /// How many of the newest are kept.
    pub keep: usize,
}

impl CheckpointRecipe {
    /// When checkpoints are saved in a run with this `[train]`; errors point at the line in `recipe`.
    ///
    /// # Errors
    /// None would be kept; or the best is to be kept, but checkpoints are saved by the clock.
    pub fn saves(&self, train: &TrainRecipe, recipe: &Recipe) -> Result<Saves> {
        recipe.require(self.keep != Some(0), "checkpoint.keep", "must be at least 1: a run without a checkpoint is lost")?;
        recipe.require(
            !(self.keep_best && matches!(self.every, Some(Every::Time(_)))),
            "checkpoint.every",
            "must be steps or epochs with checkpoint.keep_best: which checkpoint is the best must not depend on the clock",
        )?;
        let epochs = train.save_every.map(Every::Epochs);
        let default = if self.keep_best { Every::Epochs(1) } else { Every::Time(FIVE_MINUTES) };
        Ok(Saves { every: self.every.or(epochs).unwrap_or(default), keep: self.keep.or(train.keep).unwrap_or(2) })
    }
}

const FIVE_MINUTES: Duration = Duration::from_secs(300);

/// The interval between two checkpoints: `"5m"`, `"500 steps"`, `"1 epoch"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub enum Every {
    /// A time in seconds.
    Time(Duration),
    /// Steps.
    Steps(usize),
    /// Epochs.
    Epochs(usize),
}

impl FromStr for Every {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::usage(format!("`{text}` does not say when a checkpoint is saved"))
                .hint("write a time (\"5m\", \"30s\", \"2h\"), \"500 steps\" or \"2 epochs\"")
        };
        let text = text.trim();
        let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let count = usize::try_from(number).map_err(|_| wrong())?;
        let seconds = |of: u64| number.checked_mul(of).map(|seconds| Every::Time(Duration::from_secs(seconds))).ok_or_else(wrong);
        if number == 0 {
            return Err(wrong());
        }
        match unit.trim() {
            "s" | "sec" | "second" | "seconds" => seconds(1),
            "m" | "min" | "minute" | "minutes" => seconds(60),
            "h" | "hour" | "hours" => seconds(3600),
            "step" | "steps" => Ok(Every::Steps(count)),
            "epoch" | "epochs" => Ok(Every::Epochs(count)),
            _ => Err(wrong()),
        }
    }
}

impl TryFrom<String> for Every {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Self, String> {
        // One line, as serde's errors are.
        text.parse::<Every>().map_err(|e| e.to_string().replace("\nhint: ", ": "))
    }
}

impl From<Every> for String {
    fn from(every: Every) -> String {
        every.to_string()
    }
}

impl fmt::Display for Every {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let counted = |f: &mut fmt::Formatter, count: usize, unit: &str| {
            let plural = if count == 1 { "" } else { "s" };
            write!(f, "{count} {unit}{plural}")
        };
        match self {
            Every::Time(time) => match time.as_secs() {
                seconds if seconds.is_multiple_of(3600) => write!(f, "{}h", seconds / 3600),
                seconds if seconds.is_multiple_of(60) => write!(f, "{}m", seconds / 60),
                seconds => write!(f, "{seconds}s"),
            },
            Every::Steps(steps) => counted(f, *steps, "step"),
            Every::Epochs(epochs) => counted(f, *epochs, "epoch"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_steps_and_epochs_are_read_and_written() {
        let time = |seconds: u64| Every::Time(Duration::from_secs(seconds));
        let read = [("5m", time(300)), ("90 s", time(90)), ("2h", time(7200)), ("1 epoch", Every::Epochs(1))];
        let all = read.into_iter().chain([
            (" 500 steps ", Every::Steps(500)),
            ("10 minutes", time(600)),
            ("3epochs", Every::Epochs(3)),
        ]);
        for (text, every) in all {
            assert_eq!(text.parse::<Every>().unwrap(), every, "{text}");
            assert_eq!(every.to_string().parse::<Every>().unwrap(), every, "{text}");
        }
        for wrong in ["", "5", "m", "0s", "-5m", "5 parsecs", "1.5h", "99999999999999999999s", "9223372036854775807h", "NaN"] {
            let error = wrong.parse::<Every>().unwrap_err();
            assert!(error.exit_code() == 2 && error.to_string().contains("\"500 steps\""), "{wrong}: {error}");
        }
        let recipe = Recipe::new("a.toml", "keep = 1\nevery = \"soon\"\n");
        let error = recipe.parse::<CheckpointRecipe>().unwrap_err().to_string();
        assert!(error.contains("a.toml:2:") && error.contains("`soon`") && error.contains("\"5m\""), "{error}");
    }

    #[test]
    fn the_newer_key_goes_before_the_older_one_and_the_default_is_five_minutes() {
        let text = Recipe::new("a.toml", "[checkpoint]\nevery = \"5m\"\n");
        let old = TrainRecipe { save_every: Some(3), keep: Some(7), ..TrainRecipe::default() };
        let of = |recipe: CheckpointRecipe, train: &TrainRecipe| recipe.saves(train, &text);
        let none = CheckpointRecipe::default();
        assert_eq!(of(none.clone(), &TrainRecipe::default()).unwrap(), Saves { every: Every::Time(FIVE_MINUTES), keep: 2 });
        assert_eq!(of(none.clone(), &old).unwrap(), Saves { every: Every::Epochs(3), keep: 7 });
        let new = CheckpointRecipe { every: Some(Every::Steps(5)), keep: Some(1), keep_best: true };
        assert_eq!(of(new, &old).unwrap(), Saves { every: Every::Steps(5), keep: 1 });
        let best = CheckpointRecipe { keep_best: true, ..none.clone() };
        assert_eq!(of(best.clone(), &TrainRecipe::default()).unwrap().every, Every::Epochs(1));
        let clock = CheckpointRecipe { every: Some(Every::Time(FIVE_MINUTES)), ..best };
        let error = of(clock, &old).unwrap_err().to_string();
        assert!(error.contains("a.toml:2:") && error.contains("clock"), "{error}");
        assert!(of(CheckpointRecipe { keep: Some(0), ..none }, &old).unwrap_err().to_string().contains("checkpoint.keep"));
    }
}
