//! Checks that values of a recipe lie in a range, with one form of error message.

use std::fmt::Debug;
use std::ops::RangeInclusive;

use super::{MOST, Recipe};
use crate::error::Result;

impl Recipe {
    /// Checks that `value` of `key` lies in `range`.
    ///
    /// # Errors
    /// It does not, or is NaN; the message has the value and the range.
    pub fn within<T: PartialOrd + Debug + Copy>(&self, key: &str, value: T, range: RangeInclusive<T>) -> Result<()> {
        let what = format!("must be {:?} to {:?}, and is {value:?}", range.start(), range.end());
        self.require(range.contains(&value), key, what)
    }

    /// Checks that a number is above 0 and at most `most`.
    ///
    /// # Errors
    /// It is not, or is NaN.
    pub fn positive(&self, key: &str, value: f64, most: f64) -> Result<()> {
        self.require(value > 0.0 && value <= most, key, format!("must be above 0 and up to {most:?}, and is {value:?}"))
    }

    /// Checks a value above 0 by which others are multiplied or divided, so that these stay finite in f32; `more` is added to the message.
    ///
    /// # Errors
    /// Any other value, or NaN.
    pub fn factor(&self, key: &str, value: f64, more: &str) -> Result<()> {
        let range = 1.0 / MOST..=MOST;
        let what = format!("must be above 0 ({:?} to {MOST:?}), and is {value:?}{more}", range.start());
        self.require(range.contains(&value), key, what)
    }

    /// Checks that a value is 0 or more and below 1.
    ///
    /// # Errors
    /// It is not, or is NaN.
    pub fn below_one(&self, key: &str, value: f64) -> Result<()> {
        self.require((0.0..1.0).contains(&value), key, format!("must be 0 or more and below 1, and is {value:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_key_the_value_and_what_is_allowed() {
        let recipe = Recipe::new("a.toml", "[train]\nepochs = 0\n");
        let said = |result: Result<()>| result.unwrap_err().to_string();
        assert_eq!(
            said(recipe.within("train.epochs", 0, 1..=9)),
            "train.epochs: must be 1 to 9, and is 0\n  --> a.toml:2:10: epochs = 0"
        );
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, 1e308] {
            assert!(said(recipe.within("a", value, 0.0..=1.5)).contains(&format!("must be 0.0 to 1.5, and is {value:?}")));
            assert!(said(recipe.positive("a", value, 1e6)).contains(&format!("above 0 and up to 1000000.0, and is {value:?}")));
            assert!(said(recipe.factor("a", value, "; so")).contains("above 0 (1e-6 to 1000000.0), and is "));
            assert!(said(recipe.below_one("a", value)).contains(&format!("below 1, and is {value:?}")));
        }
        assert!(recipe.positive("a", 0.0, 1.0).is_err() && recipe.positive("a", 1.0, 1.0).is_ok());
        assert!(recipe.below_one("a", 1.0).is_err() && recipe.below_one("a", 0.0).is_ok());
        assert!(recipe.within("a", 1.5, 0.0..=1.5).is_ok());
    }
}
