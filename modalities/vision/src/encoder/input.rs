//! How images are prepared for a network: size, crop, mean and standard deviation; from other programs' descriptions or conventions.

use std::fmt::Write as _;

use ctk_core::{Error, Result};
use ctk_images::augment::{AugmentRecipe, Evaluation, Filter, Fit, NormaliseRecipe, Offset};
use serde_json::Value;

/// How images are prepared for a network; settings that the description does not have are none.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Input {
    /// Height and width, in pixels.
    pub size: Option<usize>,
    /// How an image becomes a square of that size.
    pub shown: Option<Shown>,
    /// Mean and standard deviation of each channel.
    pub normalise: Option<NormaliseRecipe>,
}

/// How an image becomes the square that a network gets, as keys of `[pairs]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Shown {
    pub fit: Fit,
    /// Length of the resized side before the centre is cut out; none: determined by `centre`.
    pub resize: Option<usize>,
    /// The fraction of that side that is kept.
    pub centre: f64,
    pub filter: Filter,
    pub offset: Offset,
}

impl Shown {
    /// PyTorch's convention: the shorter side is resized, and this fraction of it is kept.
    pub fn middle(centre: f64) -> Shown {
        Shown { fit: Fit::Resize, resize: None, centre, filter: Filter::Bicubic, offset: Offset::Even }
    }

    /// The same with a fraction instead of a length, if one is exact: it is valid for other sizes, too.
    fn by_share(self, size: Option<usize>) -> Shown {
        let (Some(resize), Some(size)) = (self.resize, size) else { return self };
        match share_of(size, resize, &[]) {
            Some(centre) => Shown { resize: None, centre, ..self },
            None => self,
        }
    }
}

impl Input {
    /// The default size of ImageNet's images in pixels.
    pub const IMAGENET_SIZE: usize = 224;

    /// Normalisation that changes nothing: values stay in [0, 1].
    pub const PLAIN: NormaliseRecipe = NormaliseRecipe { mean: [0.0; 3], deviation: [1.0; 3] };

    /// Mean and standard deviation of nearly all networks trained on ImageNet in PyTorch.
    pub const IMAGENET: NormaliseRecipe = NormaliseRecipe { mean: [0.485, 0.456, 0.406], deviation: [0.229, 0.224, 0.225] };

    /// Those of CLIP.
    pub const CLIP: NormaliseRecipe =
        NormaliseRecipe { mean: [0.481_454_66, 0.457_827_5, 0.408_210_73], deviation: [0.268_629_54, 0.261_302_6, 0.275_777_1] };

    /// Those of transformers' ViT and of SigLIP: values in [-1, 1].
    pub const HALF: NormaliseRecipe = NormaliseRecipe { mean: [0.5; 3], deviation: [0.5; 3] };

    /// The section `[pairs]` of a recipe, as text.
    pub fn section(&self) -> String {
        let (size, shown) =
            (self.size.unwrap_or(Input::IMAGENET_SIZE), self.shown.unwrap_or(Shown::middle(1.0)).by_share(self.size));
        let word = |value: Value| value.to_string();
        let mut text = format!("[pairs]\nsize = {size}\n");
        let mut key = |name: &str, value: String| {
            let _ = writeln!(text, "{name} = {value}");
        };
        key("eval_fit", word(serde_json::json!(shown.fit)));
        if let Some(resize) = shown.resize {
            key("eval_resize", resize.to_string());
        }
        if shown.filter != Filter::default() {
            key("eval_filter", word(serde_json::json!(shown.filter)));
        }
        if shown.offset != Offset::default() {
            key("eval_offset", word(serde_json::json!(shown.offset)));
        }
        key("centre", format!("{:?}", shown.centre));
        if let Some(of) = self.normalise.filter(|normalise| *normalise != Input::PLAIN) {
            let _ = write!(text, "\n[pairs.normalise]\nmean = {:?}\ndeviation = {:?}\n", of.mean, of.deviation);
        }
        text
    }
}

/// Mean and standard deviation of a run, as decimals that are read back as the same numbers.
pub(crate) fn mean_and_deviation(pairs: &AugmentRecipe) -> ([f64; 3], [f64; 3]) {
    let of = pairs.normalise.unwrap_or(Input::PLAIN);
    let short = |value: f32| value.to_string().parse().unwrap_or(f64::from(value));
    (of.mean.map(short), of.deviation.map(short))
}

/// How a run prepares images, in one line, for users of its weights in another program.
pub(crate) fn told(pairs: &AugmentRecipe) -> String {
    let Evaluation { size, fit, resize, centre, filter, .. } = pairs.evaluation();
    let filter = match filter {
        Filter::Bicubic => "bicubic",
        Filter::Bilinear => "bilinear",
    };
    let cut = if resize > size { format!(", and the middle {size} × {size} is cut out") } else { String::new() };
    let square = match fit {
        Fit::Crop => format!(
            "the middle square, {} % of the shorter side (all of up to 32), is resized to {size} × {size}",
            centre * 100.0
        ),
        Fit::Resize if resize > size => format!("the shorter side is resized to {resize}{cut}"),
        Fit::Resize => format!("the shorter side is resized to {size}, and the middle is cut out"),
        Fit::Squash => format!("images are resized to {resize} × {resize}{cut}"),
    };
    let normalise = match pairs.normalise {
        None => "values stay in [0, 1]".to_string(),
        Some(_) => {
            let (mean, deviation) = mean_and_deviation(pairs);
            format!("values in [0, 1] are normalised by mean {mean:?} and deviation {deviation:?}")
        }
    };
    format!("images are prepared for the network as follows: {square} ({filter}); {normalise}")
}

/// The fraction by which other programs compute the same side: ⌊size / fraction⌋.
pub(crate) fn share(of: &Evaluation) -> f64 {
    if of.fit == Fit::Crop {
        return of.centre;
    }
    share_of(of.size, of.resize, &[of.centre]).unwrap_or(of.size as f64 / of.resize as f64)
}

/// A fraction for which ⌊size / fraction⌋ is `resize`: one of `said`, or else the nearest.
fn share_of(size: usize, resize: usize, said: &[f64]) -> Option<f64> {
    let side = |share: f64| (size as f64 / share).floor() as usize;
    let near = [0.0, 0.5].map(|more| size as f64 / (resize as f64 + more));
    said.iter().copied().chain(near).find(|&share| side(share) == resize)
}

/// A warning if a program that begins the centre at `offset` prepares images differently from the run.
pub(crate) fn unlike(of: &Evaluation, offset: Offset, program: &str) -> Option<String> {
    match of.fit {
        Fit::Crop => Some(format!(
            "this run cuts images before it resizes them, and shows those of up to 32 pixels whole; {program} resizes first, so that \
             features differ a little, of small images more. Runs with pairs.eval_fit = \"resize\" do as {program} does"
        )),
        _ if of.offset != offset => Some(format!(
            "for some sizes of images their middle begins a pixel beside where {program} has it; pairs.eval_offset says where a run has it"
        )),
        _ => None,
    }
}

/// Mean and standard deviation of each channel, if both are three numbers.
pub(super) fn normalise(mean: &Value, deviation: &Value) -> Option<NormaliseRecipe> {
    Some(NormaliseRecipe { mean: triple(mean)?, deviation: triple(deviation)? })
}

/// A size in pixels.
pub(super) fn size(value: &Value) -> Option<usize> {
    usize::try_from(value.as_u64()?).ok()
}

/// The error for a setting of a description that ctk cannot follow.
pub(super) fn refused(key: &str, value: &Value) -> Error {
    Error::usage(format!("this network's images are prepared with {key} = {value}, which ctk does not do")).hint(
        "remove the description, and say what comes nearest: --set pairs.size=…, pairs.eval_fit=crop|resize|squash, \
         pairs.eval_filter=bicubic|bilinear",
    )
}

/// The filter that a description names, by word or by PIL's number.
///
/// # Errors
/// A filter that ctk does not have.
pub(super) fn filter(key: &str, value: &Value) -> Result<Filter> {
    match (value.as_str(), value.as_u64()) {
        (Some("bicubic"), _) | (_, Some(3)) => Ok(Filter::Bicubic),
        (Some("bilinear"), _) | (_, Some(2)) => Ok(Filter::Bilinear),
        _ => Err(refused(key, value)),
    }
}

/// One number for each colour.
fn triple(value: &Value) -> Option<[f32; 3]> {
    let values: Option<Vec<f32>> = value.as_array()?.iter().map(|v| Some(v.as_f64()? as f32)).collect();
    values?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_side_is_said_by_a_share_that_gives_it_back() {
        for size in [24, 100, 224, 288, 384] {
            for resize in size..2 * size {
                let share = share_of(size, resize, &[]).unwrap();
                assert_eq!((size as f64 / share).floor() as usize, resize, "{size} of {resize}: {share}");
            }
        }
        assert_eq!(share_of(224, 256, &[0.875]), Some(0.875));
        // For other sizes an imported network keeps the fraction of the image.
        let clip = Shown { resize: Some(256), ..Shown::middle(1.0) };
        let section = Input { size: Some(224), shown: Some(clip), normalise: None }.section();
        assert_eq!(section, "[pairs]\nsize = 224\neval_fit = \"resize\"\ncentre = 0.875\n");
    }
}
