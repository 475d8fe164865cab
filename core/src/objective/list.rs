//! `[loss.*]`: the enum of losses that a recipe may name, generated from the list in [`objective`](super).

use super::Objective;
use super::spec::{Checks, EmbeddingSpace, Needs};
use crate::error::Result;
use crate::nn::params::Scope;
use crate::recipe::Recipe;

pub use super::LossRecipe;

/// Generates the modules and `[loss.*]` from lines `file Variant(Recipe) "name" "description";`. Re-exports each file's public names.
macro_rules! losses {
    ($($file:ident $variant:ident($recipe:ident) $name:literal $doc:literal;)*) => {
        $(mod $file; pub use $file::*;)*

        /// `[loss.*]`, the loss of the method.
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        #[serde(rename_all = "kebab-case", deny_unknown_fields)]
        pub enum LossRecipe {
            $(#[doc = $doc] $variant($file::$recipe),)*
        }

        impl LossRecipe {
            /// The name in a recipe.
            pub fn name(&self) -> &'static str {
                match self {
                    $(LossRecipe::$variant(_) => $name,)*
                }
            }

            /// The loss's own description of itself.
            fn spec(&self) -> &dyn spec::Spec {
                match self {
                    $(LossRecipe::$variant(recipe) => recipe,)*
                }
            }

            /// All names, in the order of the list.
            #[cfg(test)]
            const NAMES: &[&str] = &[$($name),*];
        }
    };
}

impl Default for LossRecipe {
    fn default() -> Self {
        LossRecipe::NtXent(Default::default())
    }
}

impl LossRecipe {
    /// What the method needs besides its loss.
    pub fn needs(&self) -> Needs {
        self.spec().needs()
    }

    /// The loss over embeddings of `space`. Its own parameters, if it has any, are declared in `scope`.
    ///
    /// # Errors
    /// Its state cannot be made.
    pub fn build(&self, space: &EmbeddingSpace, scope: Scope) -> Result<Box<dyn Objective>> {
        self.spec().build(space, scope)
    }

    /// Checks every value, and that there is a predictor exactly if the method has one; errors point at the line in `recipe`.
    ///
    /// # Errors
    /// The first value that is not allowed.
    pub fn check(&self, predictor: bool, recipe: &Recipe) -> Result<()> {
        let section = format!("loss.{}", self.name());
        self.spec().check(&Checks::new(recipe, &section))?;
        let needs = self.needs();
        if predictor == needs.predictor {
            return Ok(());
        }
        let (what, hint) = match needs.predictor {
            true => ("needs a predictor, and the recipe has none", "add a section [predictor] with, for instance, hidden = 512"),
            false => {
                ("has no predictor, and the recipe has one", "remove the section [predictor]; only BYOL and SimSiam have one")
            }
        };
        Err(recipe.error(&section, what).hint(hint))
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Small {
        loss: LossRecipe,
    }

    fn parsed(text: &str) -> LossRecipe {
        Recipe::new("a.toml", text).parse::<Small>().unwrap().loss
    }

    fn checked(text: &str, predictor: bool) -> Result<()> {
        let recipe = Recipe::new("a.toml", text);
        recipe.parse::<Small>()?.loss.check(predictor, &recipe)
    }

    #[test]
    fn every_method_is_its_table_and_its_defaults_are_sound() {
        assert_eq!(LossRecipe::NAMES.len(), 9);
        for name in LossRecipe::NAMES {
            let text = format!("[loss.{name}]\n");
            let loss = parsed(&text);
            assert_eq!(loss.name(), *name);
            assert!(checked(&text, loss.needs().predictor).is_ok());
            assert!(checked(&format!("{text}tempreature = 1\n"), loss.needs().predictor).is_err(), "{name}");
        }
    }

    #[test]
    fn a_predictor_is_where_the_method_has_one() {
        for name in LossRecipe::NAMES {
            let text = format!("\n[loss.{name}]\n");
            let has = parsed(&text).needs().predictor;
            assert_eq!(has, ["simsiam", "byol"].contains(name));
            let error = checked(&text, !has).unwrap_err().to_string();
            assert!(error.contains(&format!("loss.{name}")) && error.contains("[predictor]"), "{error}");
            assert!(error.contains("a.toml:2") && error.contains("hint: "), "{error}");
        }
    }

    #[test]
    fn figures_that_cannot_be_are_named() {
        for (table, key) in [
            ("nt-xent", "memory = 0"),
            ("nt-xent", "momentum = 1.0\nmemory = 8"),
            ("nt-xent", "momentum = 0.9"),
            ("moco", "temperature = 0.0"),
            ("moco", "queue = 65537"),
            ("moco", "momentum = -0.1"),
            ("supcon", "temperature = -1.0"),
            ("dcl", "temperature = 0.0"),
            ("infonce", "temperature = inf"),
            ("barlow-twins", "lambda = 0.0"),
            ("vicreg", "variance = 0.0"),
            ("vicreg", "covariance = -1.0"),
            ("byol", "momentum = 1.5"),
        ] {
            let error = checked(&format!("[loss.{table}]\n{key}\n"), table == "byol").unwrap_err().to_string();
            let name = key.split(' ').next().unwrap();
            assert!(error.contains(&format!("loss.{table}.{name}")) && error.contains("a.toml:2"), "{error}");
        }
    }
}
