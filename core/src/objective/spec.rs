//! What a loss's own file says of it as a recipe has it: its figures, their checks, what it needs around it, how it is made.

use candle_core::{DType, Device};

use super::Objective;
use crate::error::Result;
use crate::model::target::Momentum;
use crate::nn::params::Scope;
use crate::nn::pass::Groups;
use crate::recipe::Recipe;

/// A loss as a recipe has it. Its recipe struct implements this, in the loss's file.
pub trait Spec {
    /// What the method needs besides its loss.
    fn needs(&self) -> Needs {
        Needs::default()
    }

    /// Checks every figure.
    ///
    /// # Errors
    /// The first figure that cannot be, with its line.
    fn check(&self, checks: &Checks) -> Result<()>;

    /// The loss, over embeddings of `space`; its own parameters are declared in `scope`.
    ///
    /// # Errors
    /// A state that cannot be made.
    fn build(&self, space: &EmbeddingSpace, scope: Scope) -> Result<Box<dyn Objective>>;
}

/// What a method needs besides its loss.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Needs {
    /// The momentum of the towers' copy, where it compares with one.
    pub momentum: Option<Momentum>,
    /// Keys that it queues.
    pub queue: Option<usize>,
    /// Which rows share batch statistics, unless `train.bn_groups` says otherwise.
    pub groups: Groups,
    /// Whether it has a predictor; no other method may.
    pub predictor: bool,
    /// Whether it needs labels.
    pub labels: bool,
    /// Whether it makes a matrix of each value of an embedding with each, which takes memory by the square of their number.
    pub correlates: bool,
}

/// The embeddings that a loss compares.
#[derive(Clone, Debug)]
pub struct EmbeddingSpace {
    /// Values of an embedding.
    pub width: usize,
    /// Their type.
    pub dtype: DType,
    /// Where they are.
    pub device: Device,
}

/// Checks the figures of one section of a recipe; errors point at their lines.
pub struct Checks<'a> {
    recipe: &'a Recipe,
    section: &'a str,
}

impl<'a> Checks<'a> {
    /// Of `section` of `recipe`.
    pub fn new(recipe: &'a Recipe, section: &'a str) -> Self {
        Checks { recipe, section }
    }

    /// An error at `key` unless `holds`.
    ///
    /// # Errors
    /// As said.
    pub fn require(&self, holds: bool, key: &str, what: &str) -> Result<()> {
        self.recipe.require(holds, &format!("{}.{key}", self.section), what)
    }

    /// A figure above 0 that leaves losses in the numbers of f32; `more` is said behind it.
    ///
    /// # Errors
    /// Of any other figure.
    pub fn positive(&self, key: &str, value: f64, more: &str) -> Result<()> {
        self.recipe.factor(&format!("{}.{key}", self.section), value, more)
    }

    /// The length of a queue. MoCo's own is the longest that was found useful.
    ///
    /// # Errors
    /// Of a length that cannot be.
    pub fn queue(&self, key: &str, keys: Option<usize>) -> Result<()> {
        self.require(keys.is_none_or(|keys| (1..=65_536).contains(&keys)), key, "must be 1 to 65536 keys")
    }

    /// The momentum of a copy.
    ///
    /// # Errors
    /// Of a momentum that cannot be.
    pub fn momentum(&self, key: &str, momentum: f64) -> Result<()> {
        let what = "must be 0 or more and below 1: .999 for long runs, .99 for short ones";
        self.require((0.0..1.0).contains(&momentum), key, what)
    }
}

/// The momentum of key encoders, in MoCo and SimCLRv2.
pub(super) const MOMENTUM: f64 = 0.999;
