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

            /// Every loss with the settings that it has by default, in the order of the list.
            fn all() -> Vec<LossRecipe> {
                vec![$(LossRecipe::$variant(Default::default()),)*]
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
    /// Its state cannot be made, or it is to be computed at a width that embeddings do not have.
    pub fn build(&self, space: &EmbeddingSpace, scope: Scope) -> Result<Box<dyn Objective>> {
        let whole = self.spec().build(space, scope)?;
        match self.spec().matryoshka() {
            Some(widths) => widths.around(whole, space, self.name()),
            None => Ok(whole),
        }
    }

    /// Checks every value, and that there is a predictor exactly if the method has one; errors point at the line in `recipe`.
    ///
    /// # Errors
    /// The first value that is not allowed.
    pub fn check(&self, predictor: bool, recipe: &Recipe) -> Result<()> {
        let section = format!("loss.{}", self.name());
        let checks = Checks::new(recipe, &section);
        self.spec().check(&checks)?;
        self.spec().matryoshka().map_or(Ok(()), |widths| widths.check(&checks))?;
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

    /// Takes the losses whose needs are `refused` out of the JSON schema of a recipe, so that nobody is told of keys that are of no use.
    ///
    /// ```
    /// use ctk_core::objective::LossRecipe;
    ///
    /// let mut schema = schemars::schema_for!(LossRecipe).to_value();
    /// assert!(schema.to_string().contains("\"mse\""));
    /// LossRecipe::leave_out(&mut schema, |needs| needs.teacher);
    /// assert!(!schema.to_string().contains("\"mse\"") && schema.to_string().contains("\"cosent\""));
    /// ```
    pub fn leave_out(schema: &mut serde_json::Value, refused: impl Fn(&Needs) -> bool) {
        LossRecipe::keep_only(schema, |loss| !refused(&loss.needs()));
    }

    /// Leaves in a recipe's JSON schema only the losses that `kept` allows.
    pub fn keep_only(schema: &mut serde_json::Value, kept: impl Fn(&LossRecipe) -> bool) {
        let gone: Vec<&str> = LossRecipe::all().iter().filter(|loss| !kept(loss)).map(LossRecipe::name).collect();
        let of_losses = schema["$defs"]["LossRecipe"]["oneOf"].is_array();
        let choices = if of_losses { &mut schema["$defs"]["LossRecipe"]["oneOf"] } else { &mut schema["oneOf"] };
        if let Some(choices) = choices.as_array_mut() {
            choices.retain(|choice| !gone.iter().any(|name| !choice["properties"][name].is_null()));
        }
    }

    /// Checks the loss for a modality whose data has no scores; the error points at the loss's line in `recipe`.
    ///
    /// # Errors
    /// The loss needs scores.
    pub fn without_scores(&self, recipe: &Recipe) -> Result<()> {
        let key = format!("loss.{}", self.name());
        let needed = recipe.require(!self.needs().scores, &key, "needs a score for every pair, and this data has none");
        needed.map_err(|e| e.hint(WITHOUT))
    }

    /// Checks the loss for a modality without a teacher; the error points at the loss's line in `recipe`.
    ///
    /// # Errors
    /// The loss needs a teacher's embeddings.
    pub fn without_teacher(&self, recipe: &Recipe) -> Result<()> {
        let key = format!("loss.{}", self.name());
        let needed = recipe.require(!self.needs().teacher, &key, "needs a teacher's embeddings, and this modality has none");
        needed.map_err(|e| e.hint(WITHOUT))
    }
}

const WITHOUT: &str = "use a loss that compares two views of a sample, as [loss.nt-xent]";

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
        assert_eq!(LossRecipe::NAMES.len(), 15);
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
            ("infonce", "temperature = 2.0\nlearned = true"),
            ("infonce", "temperature = 0.001\nlearned = true"),
            ("infonce", "sharpest = 0.5\nlearned = true"),
            ("siglip", "bias = 1000.0"),
            ("siglip", "sharpest = inf"),
            ("siglip", "temperature = 0.0"),
            ("ranking", "scale = 0.0"),
            ("ranking", "margin = 2.5"),
            ("cosent", "scale = -1.0"),
            ("kl", "temperature = 0.0"),
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

    #[test]
    fn widths_are_checked_with_their_line() {
        for loss in ["nt-xent", "infonce", "ranking", "cosent", "cosine-similarity", "mse"] {
            let text = |keys: &str| format!("[loss.{loss}.matryoshka]\n{keys}\n");
            let sound = text("widths = [4, 8, 2]\nweights = [1.0, 0.5, 2]");
            checked(&sound, false).unwrap();
            let build = |width| {
                let space = EmbeddingSpace { width, dtype: candle_core::DType::F32 };
                parsed(&sound).build(&space, crate::nn::params::Params::new().root()).map(drop)
            };
            build(8).unwrap();
            let error = build(7).unwrap_err().to_string();
            assert!(error.contains(&format!("loss.{loss}.matryoshka.widths: 8 is more than the 7")), "{error}");
            for (keys, name, line) in [
                ("widths = []", "widths", 2),
                ("widths = [4, 0]", "widths", 2),
                ("widths = [4, 2, 4]", "widths", 2),
                ("widths = [4, 2]\nweights = [1.0]", "weights", 3),
                ("widths = [4, 2]\nweights = [1.0, 0.0]", "weights", 3),
            ] {
                let error = checked(&text(keys), false).unwrap_err().to_string();
                let key = format!("loss.{loss}.matryoshka.{name}: ");
                assert!(error.contains(&key) && error.contains(&format!("a.toml:{line}")), "{error}");
            }
            assert!(checked(&text("weights = [1.0]"), false).unwrap_err().to_string().contains("widths"));
        }
        let error = checked("[loss.nt-xent]\nmemory = 8\nmatryoshka = { widths = [2] }\n", false).unwrap_err().to_string();
        assert!(error.contains("loss.nt-xent.matryoshka: cannot be with `memory`") && error.contains("a.toml:3"), "{error}");
    }

    #[test]
    fn what_a_modality_lacks_is_named_with_the_losss_line() {
        for name in LossRecipe::NAMES {
            let recipe = Recipe::new("a.toml", format!("\n[loss.{name}]\n"));
            let loss = recipe.parse::<Small>().unwrap().loss;
            for (needed, refused) in [
                (["cosent", "cosine-similarity"].contains(name), loss.without_scores(&recipe)),
                (["mse", "kl"].contains(name), loss.without_teacher(&recipe)),
            ] {
                assert_eq!(needed, refused.is_err(), "{name}");
                let Err(error) = refused else { continue };
                let error = error.to_string();
                assert!(error.contains(&format!("loss.{name}: needs ")) && error.contains("a.toml:2"), "{error}");
                assert!(error.contains("hint: "), "{error}");
            }
        }
    }
}
