//! `[loss.*]`: one table a method, with its paper's figures as defaults, and what each method needs around it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Recipe;
use crate::error::Result;
use crate::pass::Groups;

/// `[loss.*]` of two-view methods.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum LossRecipe {
    /// SimCLR's normalised temperature-scaled cross entropy, with `memory` SimCLRv2's.
    NtXent(NtXentRecipe),
    /// MoCo v2: a momentum encoder's keys in a queue.
    Moco(MocoRecipe),
}

impl Default for LossRecipe {
    fn default() -> Self {
        LossRecipe::NtXent(NtXentRecipe::default())
    }
}

/// What a method needs besides its loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Needs {
    /// Its name in a recipe.
    pub name: &'static str,
    /// The momentum of the towers' copy, where it compares with one.
    pub momentum: Option<f64>,
    /// Keys that it queues.
    pub queue: Option<usize>,
    /// Which rows share batch statistics, unless `train.bn_groups` says otherwise.
    pub groups: Groups,
    /// Whether it has a predictor; no other method may.
    pub predictor: bool,
    /// Whether it needs labels.
    pub labels: bool,
}

impl LossRecipe {
    /// What the method needs besides its loss.
    pub fn needs(&self) -> Needs {
        let plain = |name| Needs { name, momentum: None, queue: None, groups: Groups::Together, predictor: false, labels: false };
        match self {
            LossRecipe::NtXent(l) => Needs { momentum: l.memory.map(|_| l.momentum), queue: l.memory, ..plain("nt-xent") },
            LossRecipe::Moco(l) => {
                Needs { momentum: Some(l.momentum), queue: Some(l.queue), groups: Groups::Each(8), ..plain("moco") }
            }
        }
    }

    /// Checks every figure, and that a predictor is there just where the method has one; errors point at the line in `recipe`.
    pub fn check(&self, predictor: bool, recipe: &Recipe) -> Result<()> {
        let needs = self.needs();
        let key = |key: &str| format!("loss.{}.{key}", needs.name);
        let positive = |name: &str, value: f64, what: &str| {
            recipe.require(value > 0.0 && value.is_finite(), &key(name), format!("must be above 0{what}"))
        };
        match self {
            LossRecipe::NtXent(l) => {
                positive("temperature", l.temperature, "; SimCLR uses .1 to .5")?;
                positive("scale", l.scale, "")?;
                queue(recipe, &key("memory"), l.memory)?;
                momentum(recipe, &key("momentum"), l.momentum)?;
            }
            LossRecipe::Moco(l) => {
                positive("temperature", l.temperature, "; MoCo v2 uses .2")?;
                queue(recipe, &key("queue"), Some(l.queue))?;
                momentum(recipe, &key("momentum"), l.momentum)?;
            }
        }
        if predictor == needs.predictor {
            return Ok(());
        }
        let (what, hint) = match needs.predictor {
            true => (
                "needs a predictor, and the recipe has none",
                "add a section [predictor], as configs/vision/byol-cifar10.toml has",
            ),
            false => ("has no predictor, and the recipe has one", "take the section [predictor] out; BYOL and SimSiam have one"),
        };
        Err(recipe.error(&format!("loss.{}", needs.name), what).hint(hint))
    }
}

/// MoCo's own queue is the longest that anybody has found useful.
fn queue(recipe: &Recipe, key: &str, keys: Option<usize>) -> Result<()> {
    let sound = keys.is_none_or(|keys| (1..=65_536).contains(&keys));
    recipe.require(sound, key, "must be 1 to 65536 keys")
}

fn momentum(recipe: &Recipe, key: &str, momentum: f64) -> Result<()> {
    let what = "must be 0 or more and below 1: .999 for long runs, .99 for short ones";
    recipe.require((0.0..1.0).contains(&momentum), key, what)
}

/// `[loss.nt-xent]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct NtXentRecipe {
    /// Similarities are divided by it. .5 for CIFAR, .1 for ImageNet.
    pub temperature: f64,
    /// The loss is multiplied by it. Google's code optimises 2× the paper's mean, which matters under LARS.
    pub scale: f64,
    /// Keys of a momentum encoder that are kept as further negatives (SimCLRv2's memory; 65536 there). Absent: none.
    pub memory: Option<usize>,
    /// Momentum of that encoder.
    pub momentum: f64,
}

impl Default for NtXentRecipe {
    fn default() -> Self {
        NtXentRecipe { temperature: 0.5, scale: 1.0, memory: None, momentum: 0.999 }
    }
}

/// `[loss.moco]` (He et al. 2020; Chen, Fan et al. 2020). `train.bn_groups` is 8 where it is absent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MocoRecipe {
    /// Similarities are divided by it; .07 in MoCo, .2 in MoCo v2.
    pub temperature: f64,
    /// Keys of earlier batches that are negatives, at most 65536, which is the papers' figure for ImageNet. Small data wants
    /// fewer: beyond half the images, a queue holds other views of the batch's own.
    pub queue: usize,
    /// Momentum of the key encoder. .99 for runs of a few thousand steps, which .999 would outlast.
    pub momentum: f64,
}

impl Default for MocoRecipe {
    fn default() -> Self {
        MocoRecipe { temperature: 0.2, queue: 4096, momentum: 0.999 }
    }
}
