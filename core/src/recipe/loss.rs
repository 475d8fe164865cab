//! `[loss.*]`: one table a method, with its paper's figures as defaults, and what each method needs around it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Recipe;
use crate::error::Result;
use crate::model::target::Momentum;
use crate::nn::pass::Groups;
use crate::objective::Positives;

/// `[loss.*]` of two-view methods.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum LossRecipe {
    /// SimCLR's normalised temperature-scaled cross entropy, with `memory` SimCLRv2's.
    NtXent(NtXentRecipe),
    /// MoCo v2: a momentum encoder's keys in a queue.
    Moco(MocoRecipe),
    /// Supervised contrast: all images of a class are positives. Needs labels.
    Supcon(SupconRecipe),
    /// Decoupled contrastive learning: NT-Xent with negatives alone in the denominator.
    Dcl(DclRecipe),
    /// InfoNCE both ways: the other side's rows are the candidates, as in CLIP.
    Infonce(InfonceRecipe),
    /// Barlow Twins: the views' cross-correlation shall be the identity.
    BarlowTwins(BarlowTwinsRecipe),
    /// VICReg: variance, invariance, covariance.
    Vicreg(VicregRecipe),
    /// SimSiam: a predictor and a stopped gradient. Needs a `[predictor]`.
    Simsiam {},
    /// BYOL: a predictor against a momentum copy. Needs a `[predictor]`.
    Byol(ByolRecipe),
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
    pub momentum: Option<Momentum>,
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
        let apart = |name| Needs { groups: Groups::Each(1), ..plain(name) };
        match self {
            LossRecipe::NtXent(l) => Needs {
                momentum: l.memory.map(|_| Momentum::Constant(l.momentum.unwrap_or(MOMENTUM))),
                queue: l.memory,
                ..plain("nt-xent")
            },
            LossRecipe::Moco(l) => Needs {
                momentum: Some(Momentum::Constant(l.momentum)),
                queue: Some(l.queue),
                groups: Groups::Each(8),
                ..plain("moco")
            },
            LossRecipe::Supcon(_) => Needs { labels: true, ..plain("supcon") },
            LossRecipe::Dcl(_) => plain("dcl"),
            LossRecipe::Infonce(_) => plain("infonce"),
            LossRecipe::BarlowTwins(_) => apart("barlow-twins"),
            LossRecipe::Vicreg(_) => apart("vicreg"),
            LossRecipe::Simsiam {} => Needs { predictor: true, ..apart("simsiam") },
            LossRecipe::Byol(l) => Needs { momentum: Some(Momentum::Rising(l.momentum)), predictor: true, ..apart("byol") },
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
                momentum(recipe, &key("momentum"), l.momentum.unwrap_or(MOMENTUM))?;
                let idle = l.momentum.is_some() && l.memory.is_none();
                recipe.require(!idle, &key("momentum"), "is of the memory's encoder, and there is no `memory`")?;
            }
            LossRecipe::Moco(l) => {
                positive("temperature", l.temperature, "; MoCo v2 uses .2")?;
                queue(recipe, &key("queue"), Some(l.queue))?;
                momentum(recipe, &key("momentum"), l.momentum)?;
            }
            LossRecipe::Supcon(l) => positive("temperature", l.temperature, "; SupCon uses .1")?,
            LossRecipe::Dcl(l) => positive("temperature", l.temperature, "; the paper uses .1")?,
            LossRecipe::Infonce(l) => positive("temperature", l.temperature, "")?,
            LossRecipe::BarlowTwins(l) => positive("lambda", l.lambda, "; the paper's is .0051")?,
            LossRecipe::Vicreg(l) => {
                positive("invariance", l.invariance, "; the paper's is 25")?;
                positive("variance", l.variance, ": without it all embeddings become one; the paper's is 25")?;
                let sound = l.covariance >= 0.0 && l.covariance.is_finite();
                recipe.require(sound, &key("covariance"), "must be 0 or more; the paper's is 1")?;
            }
            LossRecipe::Simsiam {} => {}
            LossRecipe::Byol(l) => momentum(recipe, &key("momentum"), l.momentum)?,
        }
        if predictor == needs.predictor {
            return Ok(());
        }
        let (what, hint) = match needs.predictor {
            true => ("needs a predictor, and the recipe has none", "add a section [predictor] with, for instance, hidden = 512"),
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
    /// Momentum of that encoder; absent: .999.
    pub momentum: Option<f64>,
}

/// Of key encoders, in MoCo and SimCLRv2.
const MOMENTUM: f64 = 0.999;

impl Default for NtXentRecipe {
    fn default() -> Self {
        NtXentRecipe { temperature: 0.5, scale: 1.0, memory: None, momentum: None }
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
        MocoRecipe { temperature: 0.2, queue: 4096, momentum: MOMENTUM }
    }
}

/// `[loss.supcon]` (Khosla et al. 2020).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SupconRecipe {
    /// Similarities are divided by it.
    pub temperature: f64,
    /// How an anchor's positives are counted: `supcon` is the paper's, `pairs` and `anchors` are NT-Xent with labels.
    pub positives: Positives,
}

impl Default for SupconRecipe {
    fn default() -> Self {
        SupconRecipe { temperature: 0.1, positives: Positives::SupCon }
    }
}

/// `[loss.dcl]` (Yeh et al. 2022).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DclRecipe {
    /// Similarities are divided by it.
    pub temperature: f64,
}

impl Default for DclRecipe {
    fn default() -> Self {
        DclRecipe { temperature: 0.1 }
    }
}

/// `[loss.infonce]` (van den Oord et al. 2018).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct InfonceRecipe {
    /// Similarities are divided by it.
    pub temperature: f64,
}

impl Default for InfonceRecipe {
    fn default() -> Self {
        InfonceRecipe { temperature: 0.1 }
    }
}

/// `[loss.barlow-twins]` (Zbontar et al. 2021).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BarlowTwinsRecipe {
    /// λ: the weight of what is off the cross-correlation's diagonal.
    pub lambda: f64,
}

impl Default for BarlowTwinsRecipe {
    fn default() -> Self {
        BarlowTwinsRecipe { lambda: 0.0051 }
    }
}

/// `[loss.vicreg]` (Bardes et al. 2022).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct VicregRecipe {
    /// λ: the weight of the views' distance.
    pub invariance: f64,
    /// μ: the weight of what a column's standard deviation lacks of 1.
    pub variance: f64,
    /// ν: the weight of squared covariances.
    pub covariance: f64,
}

impl Default for VicregRecipe {
    fn default() -> Self {
        VicregRecipe { invariance: 25.0, variance: 25.0, covariance: 1.0 }
    }
}

/// `[loss.byol]` (Grill et al. 2020).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ByolRecipe {
    /// Momentum of the target at the start; it rises to 1 over the run. Short runs want less than the paper's .996.
    pub momentum: f64,
}

impl Default for ByolRecipe {
    fn default() -> Self {
        ByolRecipe { momentum: 0.996 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Small {
        loss: LossRecipe,
    }

    fn checked(text: &str, predictor: bool) -> Result<()> {
        let recipe = Recipe::new("a.toml", text);
        recipe.parse::<Small>()?.loss.check(predictor, &recipe)
    }

    const ALONE: [&str; 7] = ["nt-xent", "moco", "supcon", "dcl", "infonce", "barlow-twins", "vicreg"];

    #[test]
    fn every_method_is_its_table_and_its_defaults_are_sound() {
        for name in ALONE.iter().chain(&["simsiam", "byol"]) {
            let text = format!("[loss.{name}]\n");
            let loss = Recipe::new("a.toml", &text).parse::<Small>().unwrap().loss;
            assert_eq!(loss.needs().name, *name);
            assert!(checked(&text, loss.needs().predictor).is_ok());
            assert!(checked(&format!("{text}tempreature = 1\n"), loss.needs().predictor).is_err(), "{name}");
        }
    }

    #[test]
    fn a_predictor_is_where_the_method_has_one() {
        for (names, has) in [(&ALONE[..], false), (&["simsiam", "byol"], true)] {
            for name in names {
                let error = checked(&format!("\n[loss.{name}]\n"), !has).unwrap_err().to_string();
                assert!(error.contains(&format!("loss.{name}")) && error.contains("[predictor]"), "{error}");
                assert!(error.contains("a.toml:2") && error.contains("hint: "), "{error}");
            }
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
