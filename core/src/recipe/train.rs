//! `[train]`: the keys that every modality has, each declared once, and the keys of a modality.
//!
//! A modality's section is made by [`train_section`](crate::train_section), which puts the shared keys between its own. The result is one
//! flat struct, so that serde reports a misspelt key with its line and lists every allowed key; `#[serde(flatten)]` would lose both.

use super::{MOST, MOST_EPOCHS, Precision, Recipe};
use crate::device::Rules;
use crate::error::Result;

/// Declares a modality's `[train]`: the shared keys, and the modality's own keys in braces before and after `max_steps`, with documentation
/// and default.
///
/// The meaning of an epoch, a sample and a loader depends on the modality, and so do the documentation and the defaults of `epochs`,
/// `batch` and `loaders`. The struct has `Default`, serde's traits, `JsonSchema`, and `shared`, which returns the keys that the training
/// loop reads. The crate that uses the macro depends on `serde` and `schemars`.
#[macro_export]
macro_rules! train_section {
    (
        $(#[$section:meta])*
        pub struct $name:ident;
        $(#[$epochs_doc:meta])* epochs = $epochs:expr;
        $(#[$batch_doc:meta])* batch = $batch:expr;
        seed;
        { $($(#[$before_doc:meta])* $before:ident: $before_type:ty = $before_default:expr;)* }
        max_steps;
        { $($(#[$after_doc:meta])* $after:ident: $after_type:ty = $after_default:expr;)* }
        $(#[$loaders_doc:meta])* loaders = $loaders:expr;
        log_every;
        save_every;
        keep;
    ) => {
        #[derive(Clone, Debug, PartialEq, ::serde::Serialize, ::serde::Deserialize, ::schemars::JsonSchema)]
        $(#[$section])*
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            $(#[$epochs_doc])*
            pub epochs: usize,
            $(#[$batch_doc])*
            pub batch: usize,
            /// The seed of all randomness.
            pub seed: u64,
            $($(#[$before_doc])* pub $before: $before_type,)*
            /// Ends the run after so many steps; the schedule is not shortened.
            pub max_steps: Option<usize>,
            $($(#[$after_doc])* pub $after: $after_type,)*
            $(#[$loaders_doc])*
            pub loaders: usize,
            /// Steps between two lines of metrics.
            pub log_every: usize,
            /// Epochs between checkpoints: an older form of `checkpoint.every`, which takes precedence.
            pub save_every: Option<usize>,
            /// Checkpoints kept: an older form of `checkpoint.keep`, which takes precedence.
            pub keep: Option<usize>,
        }

        impl Default for $name {
            fn default() -> Self {
                $name {
                    epochs: $epochs,
                    batch: $batch,
                    seed: 0,
                    $($before: $before_default,)*
                    max_steps: None,
                    $($after: $after_default,)*
                    loaders: $loaders,
                    log_every: 10,
                    save_every: None,
                    keep: None,
                }
            }
        }

        impl $name {
            /// The keys that every modality has.
            pub fn shared(&self) -> $crate::recipe::TrainRecipe {
                let $name { epochs, batch, seed, max_steps, loaders, log_every, save_every, keep, .. } = *self;
                $crate::recipe::TrainRecipe { epochs, batch, seed, max_steps, loaders, log_every, save_every, keep }
            }
        }
    };
}

train_section! {
    /// `[train]` with the shared keys only, as the training loop reads it.
    pub struct TrainRecipe;
    /// Epochs: passes over the data.
    epochs = 100;
    /// Samples in a batch; a dataset with fewer samples is one batch.
    batch = 256;
    seed;
    {}
    max_steps;
    {}
    /// Threads that load data; 0 loads between steps. Does not change what is learned.
    loaders = 1;
    log_every;
    save_every;
    keep;
}

/// The largest number of threads that load data.
const MOST_LOADERS: usize = 1024;

impl TrainRecipe {
    /// Checks every value; errors point at its line in `recipe`.
    ///
    /// # Errors
    /// The first value that is not allowed: nothing to train, to save or to keep, or too many loaders.
    pub fn check(&self, recipe: &Recipe) -> Result<()> {
        recipe.within("train.epochs", self.epochs, 1..=MOST_EPOCHS)?;
        // Samples are counted in 32 bits.
        recipe.within("train.batch", self.batch, 1..=u32::MAX as usize)?;
        recipe.require(self.max_steps != Some(0), "train.max_steps", "must be at least 1")?;
        recipe.require(self.log_every > 0, "train.log_every", "must be at least 1")?;
        recipe.require(self.save_every != Some(0), "train.save_every", "must be at least 1")?;
        recipe.require(self.keep != Some(0), "train.keep", "must be at least 1: a run without a checkpoint is lost")?;
        recipe.within("train.loaders", self.loaders, 0..=MOST_LOADERS)
    }
}

train_section! {
    /// `[train]`.
    #[schemars(rename = "TrainRecipe")]
    pub struct DenseTrainRecipe;
    /// Epochs: passes over the data.
    epochs = 100;
    /// Samples in a batch; a dataset with fewer samples is one batch.
    batch = 256;
    seed;
    {}
    max_steps;
    {
        /// Samples processed at once. Below `batch`, gradients are cached part by part (gradient caching), so that large batches fit into
        /// memory.
        part: Option<usize> = None;
        /// Groups of a batch's images with batch statistics of their own, each view apart, as if each group ran on a device of its own.
        /// Default: as in the loss's paper: both views together for losses that follow SimCLR, 8 groups for MoCo, 1 for the others. A group
        /// has at least two images, so a small batch has fewer groups.
        bn_groups: Option<usize> = None;
        /// The type in which feature maps are stored and multiplied while training: `f32`, or `bf16` (parameters, sums, statistics and the
        /// loss stay in f32). Verbs compute features in f32 unless they are told `--compute bf16`.
        precision: Precision = Precision::F32;
        /// On a CUDA device: whether f32 is multiplied exactly while training. Otherwise it is multiplied as TF32, which is faster and
        /// rounds factors to 10 bits after the point. Features are always computed exactly, and the CPU always multiplies exactly.
        exact: bool = false;
        /// On a CUDA device: whether convolutions use only those algorithms of cuDNN that give the same bits each time. The CPU gives the
        /// same bits always.
        deterministic: bool = false;
        /// Whether residual blocks keep only their input and are recomputed in the backward pass: the same bits in less memory, half of it
        /// for a ResNet-50, and an eighth more time. For encoders that do not fit otherwise.
        recompute: bool = false;
        /// The largest norm of a step's gradients, all parameters together: larger ones are scaled down to it before the optimizer's step
        /// (clipping). With it, lines of metrics have the norm before clipping, `gradient_norm`. Default: gradients are not clipped.
        clip: Option<f64> = None;
        /// What happens at a step whose loss or gradient is not finite: `stop` ends the run with an error; `skip` leaves the step out and
        /// counts it. A hundred such steps in a row end the run.
        on_nonfinite: OnNonfinite = OnNonfinite::Stop;
        /// The run whose weights this one begins with: its encoder, and its projection head if the shape is the same. Default: fresh
        /// weights.
        init: Option<std::path::PathBuf> = None;
    }
    /// Threads that load data; 0 loads between steps. Does not change what is learned.
    loaders = 1;
    log_every;
    save_every;
    keep;
}

/// What happens at a step whose loss or gradient is not finite.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnNonfinite {
    /// The run ends with an error.
    #[default]
    Stop,
    /// The step is left out and counted.
    Skip,
}

impl DenseTrainRecipe {
    /// Checks every value; errors point at its line in `recipe`.
    ///
    /// # Errors
    /// As for [`TrainRecipe::check`]; also a part without samples, no groups, groups of one sample, or clipping to nothing.
    pub fn check(&self, recipe: &Recipe) -> Result<()> {
        self.shared().check(recipe)?;
        recipe.require(self.part != Some(0), "train.part", "must be at least 1")?;
        self.clip.map_or(Ok(()), |clip| recipe.positive("train.clip", clip, MOST))?;
        let groups = self.bn_groups.unwrap_or(1);
        recipe.require(groups > 0, "train.bn_groups", "must be at least 1")?;
        recipe.require(
            self.bn_groups.is_none() || self.part() / groups > 1,
            "train.bn_groups",
            "a group needs two images or more: a larger train.batch (or train.part), or fewer groups",
        )
    }

    /// How a CUDA device may compute products.
    pub fn rules(&self) -> Rules {
        Rules { exact: self.exact, deterministic: self.deterministic }
    }

    /// Samples processed at once.
    pub fn part(&self) -> usize {
        self.part.map_or(self.batch, |part| part.min(self.batch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    train_section! {
        /// A modality's.
        pub struct Own;
        /// Passes.
        epochs = 7;
        /// Samples.
        batch = 8;
        seed;
        {
            /// Stands before.
            before: usize = 1;
        }
        max_steps;
        {
            /// Stands behind.
            behind: Option<String> = None;
        }
        /// Threads.
        loaders = 0;
        log_every;
        save_every;
        keep;
    }

    #[test]
    fn shared_keys_and_own_ones_are_one_flat_section() {
        let keys = ["epochs", "batch", "seed", "before", "max_steps", "behind", "loaders", "log_every", "save_every", "keep"];
        let own: Own = Recipe::new("a.toml", "batch = 3\nbehind = \"x\"\n").parse().unwrap();
        assert_eq!((own.before, own.behind.as_deref()), (1, Some("x")));
        assert_eq!(own.shared(), TrainRecipe { epochs: 7, batch: 3, loaders: 0, ..TrainRecipe::default() });
        let schema = schemars::schema_for!(Own).to_value();
        assert_eq!(schema["properties"].as_object().unwrap().keys().map(String::as_str).collect::<Vec<_>>(), keys);
        assert_eq!(schema["properties"]["seed"]["description"], "The seed of all randomness.");
        for (wrong, meant) in [("behnid = 1", "behind"), ("max_stesp = 1", "max_steps")] {
            let error = Recipe::new("a.toml", format!("batch = 3\n{wrong}\n")).parse::<Own>().unwrap_err().to_string();
            assert!(error.contains("a.toml:2:1") && error.contains(&format!("did you mean `{meant}`?")), "{error}");
            assert!(keys.iter().all(|key| error.contains(&format!("`{key}`"))), "{error}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_line() {
        for key in ["epochs", "batch", "max_steps", "log_every", "save_every", "keep", "part", "bn_groups"] {
            let text = Recipe::new("a.toml", format!("[train]\n{key} = 0\n"));
            let train: std::collections::HashMap<String, DenseTrainRecipe> = text.parse().unwrap();
            let error = train["train"].check(&text).unwrap_err().to_string();
            assert!(error.contains(&format!("train.{key}: ")) && error.contains("a.toml:2:"), "{error}");
        }
        for clip in ["0.0", "-1.0", "nan", "inf"] {
            let text = Recipe::new("a.toml", format!("[train]\nclip = {clip}\n"));
            let train: std::collections::HashMap<String, DenseTrainRecipe> = text.parse().unwrap();
            let error = train["train"].check(&text).unwrap_err().to_string();
            assert!(error.contains("train.clip: must be above 0") && error.contains("a.toml:2:8"), "{error}");
        }
        let groups = DenseTrainRecipe { batch: 64, part: Some(8), bn_groups: Some(8), ..DenseTrainRecipe::default() };
        assert!(groups.check(&Recipe::new("a.toml", "")).is_err(), "a group of one image");
        assert!(DenseTrainRecipe { bn_groups: Some(4), ..groups }.check(&Recipe::new("a.toml", "")).is_ok());
    }
}
