//! The evaluation view: which part of an image it shows, and how that part is resized.
//!
//! The rules are those of other programs, to the pixel. timm's `center` and `squash` and torchvision's `Resize` and `CenterCrop` are
//! [`Fit::Resize`] and [`Fit::Squash`] with [`Offset::Even`]; transformers' processors are the same with [`Offset::Floor`].

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::SMALL;
use super::crop::Crop;
use super::resample::Axis;
use crate::picture::Picture;

/// How an image becomes a square.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Fit {
    /// The central square is cut out, `centre` of the shorter side (up to 32 pixels: all of it), and resized.
    #[default]
    Crop,
    /// The shorter side is resized and the centre is cut out, as in torchvision, timm and transformers.
    Resize,
    /// Both sides are resized to the same length, whatever the shape, and the centre is cut out.
    Squash,
}

/// The resampling filter: PIL's filters, widened when an image shrinks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Filter {
    /// Keys' cubic convolution with a = −½.
    #[default]
    Bicubic,
    /// A triangle (bilinear interpolation).
    Bilinear,
}

/// Where the centre that is cut out begins, if half a pixel would be left over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Offset {
    /// At the even one of the two pixels, as in torchvision and timm.
    #[default]
    Even,
    /// At the first of the two, as in transformers.
    Floor,
}

/// The evaluation view, with every default resolved.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evaluation {
    /// Height and width of the view, in pixels.
    pub size: usize,
    /// How an image becomes a square.
    pub fit: Fit,
    /// Length in pixels of the shorter side ([`Fit::Resize`]) or of both sides ([`Fit::Squash`]) before the centre is cut out.
    pub resize: usize,
    /// With [`Fit::Crop`], the fraction of the shorter side that is kept.
    pub centre: f64,
    /// The resampling filter.
    pub filter: Filter,
    /// Where the centre begins.
    pub offset: Offset,
}

/// The default fraction of the shorter side: all of it in views of up to 32 pixels, if the image is resized first.
pub(super) fn centre(fit: Fit, size: usize) -> f64 {
    if fit != Fit::Crop && size <= SMALL { 1.0 } else { 0.875 }
}

impl Evaluation {
    /// The part of the image that is resampled, and the target axes of rows and columns.
    pub(super) fn of(&self, picture: &Picture) -> (Crop, [Axis; 2]) {
        let Picture { height, width, .. } = *picture;
        let side = height.min(width);
        let [rows, columns] = match self.fit {
            Fit::Crop => {
                let kept = if side <= SMALL { side } else { ((side as f64 * self.centre).round() as usize).max(1) };
                return (Crop::centre(picture, kept, kept), [Axis::whole(self.size); 2]);
            }
            // The longer side is rounded down to whole pixels.
            Fit::Resize => [height, width].map(|length| self.resize * length / side),
            Fit::Squash => [self.resize; 2],
        };
        (Crop::whole(picture), [rows, columns].map(|to| Axis { to, first: self.offset.of(to - self.size) }))
    }
}

impl Offset {
    /// The start of the centre, if `over` pixels are left over.
    fn of(self, over: usize) -> usize {
        let half = over / 2;
        match self {
            Offset::Even => half + (over % 2) * (half % 2),
            Offset::Floor => half,
        }
    }
}

#[cfg(test)]
mod tests {
    use ctk_core::recipe::Recipe;

    use super::super::{Augment, AugmentRecipe};
    use super::*;

    /// The image that the other programs were given: 37 × 53.
    fn picture() -> Picture {
        let pixel = |i: usize| {
            let (x, y) = (i % 53, i / 53);
            [255 * x / 52, 255 * y / 36, (7 * x + 13 * y + 31 * (x * y % 5)) % 256].map(|v| v as u8)
        };
        Picture { height: 37, width: 53, pixels: (0..37 * 53).flat_map(pixel).collect() }
    }

    fn augment(text: &str) -> Augment {
        let recipe = Recipe::new("test", text);
        recipe.parse::<AugmentRecipe>().unwrap().check(&recipe).unwrap()
    }

    /// The means of the channels, and the first and the last pixel, in levels 0 to 255.
    fn seen(text: &str) -> ([f64; 3], [f64; 3], [f64; 3]) {
        let mut out = vec![0.0; 24 * 24 * 3];
        augment(&format!("size = 24\n{text}")).evaluation(&picture(), &mut out);
        let level = |v: f32| f64::from(v) * 255.0;
        let at = |i: usize| [0, 1, 2].map(|c| level(out[3 * i + c]));
        let mean = |c: usize| out.iter().skip(c).step_by(3).map(|&v| level(v)).sum::<f64>() / 576.0;
        ([0, 1, 2].map(mean), at(0), at(575))
    }

    /// The views of timm 1.0 and transformers 5, in bytes; ours are not rounded to bytes.
    #[test]
    fn views_are_those_of_timm_and_transformers() {
        for (text, means, first, last) in [
            ("eval_fit = \"resize\"\ncentre = 0.875", [127.0, 131.875, 127.170139], [49, 20, 130], [205, 243, 143]),
            ("eval_fit = \"squash\"\ncentre = 0.9", [127.0, 127.041667, 128.628472], [12, 11, 125], [242, 243, 36]),
            (
                "eval_fit = \"resize\"\ncentre = 0.875\neval_offset = \"floor\"",
                [127.0, 122.208333, 127.067708],
                [49, 11, 114],
                [205, 234, 145],
            ),
            (
                "eval_fit = \"resize\"\neval_resize = 27\neval_offset = \"floor\"",
                [127.0, 122.208333, 127.067708],
                [49, 11, 114],
                [205, 234, 145],
            ),
            ("eval_fit = \"squash\"\neval_filter = \"bilinear\"", [127.0, 127.125, 127.958333], [3, 3, 21], [251, 252, 75]),
            ("centre = 0.875", [124.666667, 123.583333, 126.413194], [50, 15, 115], [200, 232, 120]),
        ] {
            let (found, begin, end) = seen(text);
            for c in 0..3 {
                assert!((found[c] - means[c]).abs() < 0.25, "{text}: {found:?} is not {means:?}");
                let near = |a: f64, b: i32| (a - f64::from(b)).abs() < 1.1;
                assert!(near(begin[c], first[c]) && near(end[c], last[c]), "{text}: {begin:?}, {end:?}");
            }
        }
        let (bilinear, ..) = seen("eval_fit = \"resize\"\ncentre = 0.875\neval_filter = \"bilinear\"");
        assert!((bilinear[2] - 127.144097).abs() < 0.1, "{bilinear:?}");
    }

    #[test]
    fn middles_begin_where_other_programs_have_them() {
        let offsets = |offset: Offset| (1..=9).map(|over| offset.of(over)).collect::<Vec<_>>();
        assert_eq!(offsets(Offset::Even), [0, 1, 2, 2, 2, 3, 4, 4, 4]);
        assert_eq!(offsets(Offset::Floor), [0, 1, 1, 2, 2, 3, 3, 4, 4]);
    }

    #[test]
    fn a_view_is_a_part_of_the_whole_picture_resized() {
        // Any window of a resized image equals the window of the whole resized image.
        for (height, width, size, resize) in [(40, 60, 16, 21), (7, 5, 8, 9), (300, 200, 32, 33)] {
            let pixels: Vec<u8> = (0..height * width * 3).map(|i| (i * i % 251) as u8).collect();
            let picture = Picture { height, width, pixels };
            let view = |text: &str, size: usize| {
                let mut out = vec![0.0; size * size * 3];
                augment(&format!("size = {size}\n{text}")).evaluation(&picture, &mut out);
                out
            };
            let whole = view(&format!("eval_fit = \"squash\"\ncentre = 1.0\neval_resize = {resize}"), resize);
            let part = view(&format!("eval_fit = \"squash\"\neval_resize = {resize}"), size);
            let first = Offset::Even.of(resize - size);
            for y in 0..size {
                for x in 0..size * 3 {
                    assert_eq!(part[y * size * 3 + x], whole[(y + first) * resize * 3 + first * 3 + x]);
                }
            }
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (text, said) in [
            ("eval_resize = 40", "eval_fit"),
            ("eval_fit = \"resize\"\neval_resize = 31", "at least eval_size"),
            ("eval_fit = \"border\"", "`crop`, `resize`, `squash`"),
        ] {
            let recipe = Recipe::new("test", text);
            let found = recipe.parse::<AugmentRecipe>().and_then(|of| of.check(&recipe));
            let error = found.err().unwrap().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
