//! SimCLR's augmentations (random resized crop, flip, colour jitter, grayscale, blur), and the evaluation view.
//!
//! The order is SimCLR's (Chen et al. 2020a, appendix A; `data_util.py`); the samplers are torchvision's. Every setting is a key of
//! `[pairs]`. Values stay in [0, 1]; they are normalised by mean and standard deviation only if the recipe says so.

mod blur;
mod crop;
mod evaluation;
mod jitter;
mod planes;
mod resample;

use std::cell::RefCell;
use std::ops::RangeInclusive;

use ctk_core::Result;
use ctk_core::device::wide;
use ctk_core::recipe::Recipe;
use ctk_core::rng::Rng;
use rand::Rng as _;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::picture::Picture;
use crop::Crop;
pub use evaluation::{Evaluation, Filter, Fit, Offset};
use jitter::Change;
use planes::Planes;
use resample::{Axis, Way};

/// Height and width of a view, in pixels.
const SIZES: RangeInclusive<usize> = 4..=4096;

/// The strongest colour jitter: beyond it all pixels are black or white.
const STRONGEST: f64 = 100.0;

/// Images up to this size get CIFAR's defaults: no blur, half the jitter, no centre crop.
const SMALL: usize = 32;

/// `[pairs]`: how an image becomes two views.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AugmentRecipe {
    /// Height and width of a view, in pixels.
    pub size: usize,
    /// Height and width of the evaluation view, in pixels. Default: `size`. Random crops enlarge what they show, so training on smaller
    /// views than are evaluated costs less and fits better (Touvron et al. 2019).
    pub eval_size: Option<usize>,
    /// Smallest and largest fraction of the image's area that a random crop takes.
    pub crop: [f64; 2],
    /// Smallest and largest width over height of a random crop.
    pub ratio: [f64; 2],
    /// Probability of mirroring left to right.
    pub flip: f64,
    /// Probability of mirroring top to bottom: for images without a natural orientation, from microscopes and satellites.
    pub vertical_flip: f64,
    /// Probability of a rotation by 90, 180 or 270 degrees, each equally likely.
    pub quarter_turns: f64,
    /// Strength of the colour jitter, which multiplies the four amounts below. Default: .5 up to 32 px (SimCLR's CIFAR), else 1.
    pub jitter: Option<f64>,
    /// Probability of the colour jitter.
    pub jitter_probability: f64,
    /// Brightness is multiplied by a factor of up to 1 ± this value times the strength.
    pub brightness: f64,
    /// Contrast, as brightness, around the image's mean gray.
    pub contrast: f64,
    /// Saturation, as brightness, around each pixel's gray.
    pub saturation: f64,
    /// Hue is rotated by up to ± this value times the strength, as a fraction of a full turn; at most .5.
    pub hue: f64,
    /// Probability of converting to grayscale.
    pub gray: f64,
    /// Probability of a Gaussian blur of radius ⌊⌊size / 10⌋ / 2⌋. Default: 0 up to 32 px (SimCLR's CIFAR), else .5.
    pub blur: Option<f64>,
    /// Smallest and largest standard deviation of the blur, in pixels.
    pub sigma: [f64; 2],
    /// How an image becomes the square evaluation view. `crop`: the centre (`centre` of the shorter side; all of it up to 32 px) is cut out
    /// and resized. `resize`: the shorter side is resized to `eval_resize` and the centre is cut out, as in torchvision, timm and
    /// transformers. `squash`: both sides are resized to `eval_resize`. New runs use `resize`; a stored recipe without this key used
    /// `crop`.
    pub eval_fit: Option<Fit>,
    /// Length of the resized side in pixels, for `resize` and `squash`. Default: ⌊eval_size / centre⌋.
    pub eval_resize: Option<usize>,
    /// The resampling filter of the evaluation view; random crops are always bicubic.
    pub eval_filter: Filter,
    /// Where the centre that `resize` and `squash` cut out begins, if half a pixel is left over: `even`, as in torchvision and timm, or
    /// `floor`, as in transformers.
    pub eval_offset: Offset,
    /// Fraction of the shorter side that the evaluation view keeps. Default: .875; for `resize` and `squash` to 32 px or less, all of it.
    pub centre: Option<f64>,
    /// Mean and standard deviation of each channel, for normalisation. Default: values stay in [0, 1], as in SimCLR.
    pub normalise: Option<NormaliseRecipe>,
}

/// `[pairs.normalise]`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NormaliseRecipe {
    /// Mean of red, green, blue, for values in [0, 1].
    pub mean: [f32; 3],
    /// Standard deviation of red, green, blue.
    pub deviation: [f32; 3],
}

impl Default for AugmentRecipe {
    fn default() -> Self {
        AugmentRecipe {
            size: 32,
            eval_size: None,
            crop: [0.08, 1.0],
            ratio: [3.0 / 4.0, 4.0 / 3.0],
            flip: 0.5,
            vertical_flip: 0.0,
            quarter_turns: 0.0,
            jitter: None,
            jitter_probability: 0.8,
            brightness: 0.8,
            contrast: 0.8,
            saturation: 0.8,
            hue: 0.2,
            gray: 0.2,
            blur: None,
            sigma: [0.1, 2.0],
            eval_fit: None,
            eval_resize: None,
            eval_filter: Filter::Bicubic,
            eval_offset: Offset::Even,
            centre: None,
            normalise: None,
        }
    }
}

impl AugmentRecipe {
    /// Checks every value; errors point at its line in `recipe`.
    ///
    /// # Errors
    /// The first value that is not allowed.
    pub fn check(&self, recipe: &Recipe) -> Result<Augment> {
        let require = |holds: bool, key: &str, what: &str| recipe.require(holds, &format!("pairs.{key}"), what);
        let within = |value: f64, key: &str, most: f64| recipe.within(&format!("pairs.{key}"), value, 0.0..=most);
        recipe.within("pairs.size", self.size, SIZES)?;
        let eval_size = self.eval_size.unwrap_or(self.size);
        recipe.within("pairs.eval_size", eval_size, SIZES)?;
        let ordered = |[low, high]: [f64; 2], least: f64, most: f64| least <= low && low <= high && high <= most;
        require(
            ordered(self.crop, f64::MIN_POSITIVE, 1.0),
            "crop",
            "must be two shares of the area, the smaller first, above 0 and up to 1",
        )?;
        require(ordered(self.ratio, 0.001, 1000.0), "ratio", "must be two ratios of 0.001 to 1000, the smaller first")?;
        require(ordered(self.sigma, 0.01, 1000.0), "sigma", "must be two deviations of 0.01 to 1000 pixels, the smaller first")?;
        let probabilities = [
            ("flip", self.flip),
            ("vertical_flip", self.vertical_flip),
            ("quarter_turns", self.quarter_turns),
            ("jitter_probability", self.jitter_probability),
            ("gray", self.gray),
            ("blur", self.blur.unwrap_or(0.0)),
        ];
        for (key, p) in probabilities {
            within(p, key, 1.0)?;
        }
        let strength = self.jitter.unwrap_or(if self.size <= SMALL { 0.5 } else { 1.0 });
        let amounts =
            [("jitter", strength), ("brightness", self.brightness), ("contrast", self.contrast), ("saturation", self.saturation)];
        for (key, amount) in amounts {
            within(amount, key, STRONGEST)?;
        }
        require((0.0..=0.5).contains(&(self.hue * strength)), "hue", "must be 0 to .5 turns after the strength")?;
        let evaluation = self.evaluation();
        let centre = evaluation.centre;
        require(centre > 0.0 && centre <= 1.0, "centre", "must be a share of the side, above 0 and up to 1")?;
        require(
            self.eval_resize.is_none() || evaluation.fit != Fit::Crop,
            "eval_resize",
            "is for pairs.eval_fit = \"resize\" or \"squash\"",
        )?;
        require(
            evaluation.fit == Fit::Crop || (eval_size..=8192).contains(&evaluation.resize),
            "eval_resize",
            "must be at least eval_size: what is smaller would have to be padded",
        )?;
        if let Some(normalise) = &self.normalise {
            let (means, deviations) = (normalise.mean.iter().copied(), normalise.deviation.iter().copied());
            means.into_iter().try_for_each(|mean| recipe.within("pairs.normalise.mean", mean, -1e3..=1e3))?;
            deviations.into_iter().try_for_each(|of| recipe.within("pairs.normalise.deviation", of, 1e-6..=1e6))?;
        }
        Ok(Augment {
            size: self.size,
            evaluation,
            crop: self.crop,
            ratio: self.ratio,
            flip: self.flip,
            vertical_flip: self.vertical_flip,
            quarter_turns: self.quarter_turns,
            jitter_probability: self.jitter_probability,
            ranges: jitter::Ranges {
                brightness: self.brightness * strength,
                contrast: self.contrast * strength,
                saturation: self.saturation * strength,
                hue: self.hue * strength,
            },
            gray: self.gray,
            blur: self.blur.unwrap_or(if self.size <= SMALL { 0.0 } else { 0.5 }),
            sigma: self.sigma,
            normalise: self.normalise,
        })
    }

    /// The evaluation view.
    pub fn evaluation(&self) -> Evaluation {
        let (size, fit) = (self.eval_size.unwrap_or(self.size), self.eval_fit.unwrap_or_default());
        let centre = self.centre.unwrap_or_else(|| evaluation::centre(fit, size));
        Evaluation {
            size,
            fit,
            resize: self.eval_resize.unwrap_or((size as f64 / centre).floor() as usize),
            centre,
            filter: self.eval_filter,
            offset: self.eval_offset,
        }
    }
}

/// The augmentations, checked, with every default resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct Augment {
    /// Height and width of a view, in pixels.
    pub size: usize,
    evaluation: Evaluation,
    crop: [f64; 2],
    ratio: [f64; 2],
    flip: f64,
    vertical_flip: f64,
    quarter_turns: f64,
    jitter_probability: f64,
    ranges: jitter::Ranges,
    gray: f64,
    blur: f64,
    sigma: [f64; 2],
    normalise: Option<NormaliseRecipe>,
}

/// The random choices of one view, in the order in which they are drawn.
struct Draw {
    crop: Crop,
    mirror: bool,
    upside_down: bool,
    /// Whether rows become columns, after both flips.
    transpose: bool,
    changes: Vec<Change>,
    sigma: Option<f64>,
}

/// Buffers of a view on its way from image to batch.
#[derive(Default)]
struct Room {
    view: Planes,
    resample: resample::Room,
    blur: blur::Room,
}

thread_local! {
    // One for each loader thread; otherwise it would be allocated anew for every view.
    static ROOM: RefCell<Room> = RefCell::default();
}

impl Augment {
    /// Writes one random view of `picture` into `out` (`size · size · 3`, channels last).
    pub fn view(&self, picture: &Picture, rng: &mut Rng, out: &mut [f32]) {
        let Draw { crop, mirror, upside_down, transpose, changes, sigma } = self.draw(picture, rng);
        let axis = Axis::whole(self.size);
        let way = Way { crop, rows: axis, columns: axis, upside_down, mirror, filter: Filter::Bicubic };
        ROOM.with_borrow_mut(|Room { view, resample, blur }| {
            view.reset(self.size);
            wide!(resample::resample(picture, way, resample, view));
            if transpose {
                view.transpose();
            }
            wide!(jitter::apply(&changes, view));
            if let Some(sigma) = sigma {
                wide!(blur::blur(view, sigma, blur));
            }
            wide!(view.interleave(self.normalise, out));
        });
    }

    fn draw(&self, picture: &Picture, rng: &mut Rng) -> Draw {
        let crop = Crop::random(picture, self.crop, self.ratio, rng);
        let mut mirror = chance(self.flip, rng);
        let mut changes = Vec::new();
        if chance(self.jitter_probability, rng) {
            changes.extend(self.ranges.draw(rng));
        }
        if chance(self.gray, rng) {
            changes.push(Change::Gray);
        }
        let sigma = chance(self.blur, rng).then(|| uniform(self.sigma, rng));
        // Drawn only if they are asked for, so that other recipes keep their views.
        let mut upside_down = self.vertical_flip > 0.0 && chance(self.vertical_flip, rng);
        let quarters = if self.quarter_turns > 0.0 && chance(self.quarter_turns, rng) { 1 + crop::below(3, rng) } else { 0 };
        // A turn to the right is the transposition of the image upside down, a turn to the left that of the mirrored image.
        upside_down ^= matches!(quarters, 1 | 2);
        mirror ^= matches!(quarters, 2 | 3);
        Draw { crop, mirror, upside_down, transpose: matches!(quarters, 1 | 3), changes, sigma }
    }

    /// Height and width of the evaluation view, in pixels.
    pub fn eval_size(&self) -> usize {
        self.evaluation.size
    }

    /// Writes the evaluation view into `out` (`eval_size · eval_size · 3`), as [`Evaluation`] says.
    pub fn evaluation(&self, picture: &Picture, out: &mut [f32]) {
        let (crop, [rows, columns]) = self.evaluation.of(picture);
        let way = Way { crop, rows, columns, upside_down: false, mirror: false, filter: self.evaluation.filter };
        plain(picture, way, self.evaluation.size, self.normalise, out);
    }

    /// Only crop and flip: the augmentation for training a linear probe or fine-tuning.
    pub fn light(&self) -> Augment {
        Augment { jitter_probability: 0.0, gray: 0.0, blur: 0.0, ..self.clone() }
    }

    /// The same with random crops of at least this fraction of the area.
    pub fn cropped(&self, smallest: f64) -> Augment {
        Augment { crop: [smallest, self.crop[1].max(smallest)], ..self.clone() }
    }

    /// The smallest fraction of the area that a random crop takes.
    pub fn smallest_crop(&self) -> f64 {
        self.crop[0]
    }

    /// The same without normalisation, for views that people look at.
    pub fn visible(&self) -> Augment {
        Augment { normalise: None, ..self.clone() }
    }

    /// The same with another size of the evaluation view.
    pub fn evaluated_at(&self, eval_size: usize) -> Augment {
        let Evaluation { size, resize, .. } = self.evaluation;
        let evaluation = Evaluation { size: eval_size, resize: (resize * eval_size).div_ceil(size), ..self.evaluation };
        Augment { evaluation, ..self.clone() }
    }
}

/// The whole image squeezed into `size` × `size`, for people to look at: values in [0, 1].
pub(crate) fn thumbnail(picture: &Picture, size: usize, out: &mut [f32]) {
    let axis = Axis::whole(size);
    let whole = Crop::whole(picture);
    let way = Way { crop: whole, rows: axis, columns: axis, upside_down: false, mirror: false, filter: Filter::Bicubic };
    plain(picture, way, size, None, out);
}

fn plain(picture: &Picture, way: Way, size: usize, normalise: Option<NormaliseRecipe>, out: &mut [f32]) {
    ROOM.with_borrow_mut(|Room { view, resample, .. }| {
        view.reset(size);
        wide!(resample::resample(picture, way, resample, view));
        wide!(view.interleave(normalise, out));
    });
}

fn uniform([low, high]: [f64; 2], rng: &mut Rng) -> f64 {
    low + (high - low) * rng.random::<f64>()
}

fn chance(probability: f64, rng: &mut Rng) -> bool {
    rng.random::<f64>() < probability
}

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;
