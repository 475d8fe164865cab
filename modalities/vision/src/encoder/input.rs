//! What a network is shown: size, centre crop, mean and deviation, as other programs' descriptions say it or their conventions do.

use ctk_images::augment::{AugmentRecipe, NormaliseRecipe};
use serde_json::Value;

/// What pictures are made of before a network sees them; what is absent was not said.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Input {
    /// Height and width, in pixels.
    pub size: Option<usize>,
    /// Share of the shorter side that the centre crop keeps.
    pub centre: Option<f64>,
    /// Mean and standard deviation by channel.
    pub normalise: Option<NormaliseRecipe>,
}

impl Input {
    /// Pixels of ImageNet's pictures where nothing is said.
    pub const IMAGENET_SIZE: usize = 224;

    /// Normalisation that changes nothing: values in [0, 1].
    pub const PLAIN: NormaliseRecipe = NormaliseRecipe { mean: [0.0; 3], deviation: [1.0; 3] };

    /// What nearly everything that was trained on ImageNet in PyTorch is normalised by.
    pub const IMAGENET: NormaliseRecipe = NormaliseRecipe { mean: [0.485, 0.456, 0.406], deviation: [0.229, 0.224, 0.225] };

    /// What a run's evaluation views are made of.
    pub fn of(pairs: &AugmentRecipe) -> Input {
        Input {
            size: Some(pairs.eval_size.unwrap_or(pairs.size)),
            centre: Some(pairs.centre),
            normalise: Some(pairs.normalise.unwrap_or(Input::PLAIN)),
        }
    }

    /// As decimals that are read back as the very same numbers.
    pub(crate) fn mean_and_deviation(&self) -> ([f64; 3], [f64; 3]) {
        let of = self.normalise.unwrap_or(Input::PLAIN);
        let short = |value: f32| value.to_string().parse().unwrap_or(f64::from(value));
        (of.mean.map(short), of.deviation.map(short))
    }
}

/// Mean and standard deviation by channel, where both are said as three numbers.
pub(super) fn normalise(mean: &Value, deviation: &Value) -> Option<NormaliseRecipe> {
    Some(NormaliseRecipe { mean: triple(mean)?, deviation: triple(deviation)? })
}

/// Pixels.
pub(super) fn size(value: &Value) -> Option<usize> {
    usize::try_from(value.as_u64()?).ok()
}

/// A number a colour.
fn triple(value: &Value) -> Option<[f32; 3]> {
    let values: Option<Vec<f32>> = value.as_array()?.iter().map(|v| Some(v.as_f64()? as f32)).collect();
    values?.try_into().ok()
}
