//! The interface between a loss's file and recipes: its settings, their checks, what the method needs besides, and how it is built.

use candle_core::DType;

use super::{MatryoshkaRecipe, Objective};
use crate::error::Result;
use crate::model::target::Momentum;
use crate::nn::params::Scope;
use crate::nn::pass::Groups;
use crate::recipe::Recipe;

/// A loss as a recipe has it. The recipe struct in the loss's file implements this.
pub trait Spec {
    /// What the method needs besides its loss.
    fn needs(&self) -> Needs {
        Needs::default()
    }

    /// Checks every setting.
    ///
    /// # Errors
    /// The first value that is not allowed, with its line.
    fn check(&self, checks: &Checks) -> Result<()>;

    /// The loss over embeddings of `space`; its own parameters are declared in `scope`.
    ///
    /// # Errors
    /// Its state cannot be made.
    fn build(&self, space: &EmbeddingSpace, scope: Scope) -> Result<Box<dyn Objective>>;

    /// The widths at which the loss is computed, if it may be at several and the recipe says so.
    fn matryoshka(&self) -> Option<&MatryoshkaRecipe> {
        None
    }
}

/// What a method needs besides its loss.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Needs {
    /// The momentum of the momentum copy, for methods that compare with one.
    pub momentum: Option<Momentum>,
    /// The capacity of its queue of keys.
    pub queue: Option<usize>,
    /// Which rows share batch statistics by default, unless `train.bn_groups` says otherwise.
    pub groups: Groups,
    /// Whether the method has a predictor; other methods may not have one.
    pub predictor: bool,
    /// Whether the method needs labels.
    pub labels: bool,
    /// Whether it needs a score for every pair.
    pub scores: bool,
    /// Whether it needs a teacher's embeddings, as views of the right side.
    pub teacher: bool,
    /// Whether the loss makes a matrix of the embedding's width squared, which takes memory.
    pub correlates: bool,
}

/// The embeddings that a loss compares.
#[derive(Clone, Debug)]
pub struct EmbeddingSpace {
    /// Values in an embedding.
    pub width: usize,
    /// Their type.
    pub dtype: DType,
}

/// Checks the settings of one section of a recipe; errors point at their lines.
pub struct Checks<'a> {
    recipe: &'a Recipe,
    section: &'a str,
}

impl<'a> Checks<'a> {
    /// Checks for `section` of `recipe`.
    pub fn new(recipe: &'a Recipe, section: &'a str) -> Self {
        Checks { recipe, section }
    }

    /// Checks that `holds` is true.
    ///
    /// # Errors
    /// It is not; the error names `key` and says `what`.
    pub fn require(&self, holds: bool, key: &str, what: &str) -> Result<()> {
        self.recipe.require(holds, &format!("{}.{key}", self.section), what)
    }

    /// Checks a value above 0 for which the loss stays finite in f32; `more` is added to the message.
    ///
    /// # Errors
    /// Any other value.
    pub fn positive(&self, key: &str, value: f64, more: &str) -> Result<()> {
        self.recipe.factor(&format!("{}.{key}", self.section), value, more)
    }

    /// Checks the capacity of a queue. The upper limit is MoCo's own, the largest that was found useful.
    ///
    /// # Errors
    /// A capacity outside the limits.
    pub fn queue(&self, key: &str, keys: Option<usize>) -> Result<()> {
        self.require(keys.is_none_or(|keys| (1..=65_536).contains(&keys)), key, "must be 1 to 65536 keys")
    }

    /// Checks the momentum of a momentum copy.
    ///
    /// # Errors
    /// A value below 0, or of 1 and more.
    pub fn momentum(&self, key: &str, momentum: f64) -> Result<()> {
        let what = "must be 0 or more and below 1: .999 for long runs, .99 for short ones";
        self.require((0.0..1.0).contains(&momentum), key, what)
    }
}

/// The default momentum of key encoders, in MoCo and SimCLRv2.
pub(super) const MOMENTUM: f64 = 0.999;
