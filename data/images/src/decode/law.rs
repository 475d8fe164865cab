//! The decoding rules that a recipe may choose: the background of transparent pixels, and the values of black and white in images of more
//! than 8 bits.

use std::borrow::Cow;

use image::{DynamicImage, RgbImage};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How alpha and high bit depths are decoded.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Law {
    /// The background of transparent pixels.
    pub background: Background,
    /// The values of black and white above 8 bits.
    pub range: Range,
}

/// The background of transparent pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Background {
    /// Alpha is dropped and the colours stay as they are, as in PIL's `convert("RGB")` and so in torchvision.
    #[default]
    Drop,
    /// The image is composited over a colour, as image viewers do.
    Colour([u8; 3]),
}

impl Background {
    /// The default of new runs.
    pub const WHITE: Background = Background::Colour([255; 3]);

    const WORDS: &str = "data.background must be \"white\", \"black\", a colour as \"#rrggbb\", or \"drop\"";

    /// Parses `white`, `black`, `#rrggbb` or `drop`.
    fn of(word: &str) -> Option<Background> {
        match word {
            "drop" => return Some(Background::Drop),
            "white" => return Some(Background::WHITE),
            "black" => return Some(Background::Colour([0; 3])),
            _ => {}
        }
        let digits =
            word.strip_prefix('#').filter(|digits| digits.len() == 6 && digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
        let [_, red, green, blue] = u32::from_str_radix(digits, 16).ok()?.to_be_bytes();
        Some(Background::Colour([red, green, blue]))
    }

    /// The text in a recipe.
    pub fn word(self) -> String {
        match self {
            Background::Drop => "drop".to_string(),
            Background::WHITE => "white".to_string(),
            Background::Colour([0, 0, 0]) => "black".to_string(),
            Background::Colour([red, green, blue]) => format!("#{red:02x}{green:02x}{blue:02x}"),
        }
    }
}

impl Serialize for Background {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.word())
    }
}

impl<'de> Deserialize<'de> for Background {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Background, D::Error> {
        Background::of(&String::deserialize(from)?).ok_or_else(|| D::Error::custom(Background::WORDS))
    }
}

impl JsonSchema for Background {
    fn schema_name() -> Cow<'static, str> {
        "Background".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^(white|black|drop|#[0-9a-fA-F]{6})$" })
    }
}

/// Which values of an image of more than 8 bits are black and white.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(from = "Written", into = "Written")]
pub enum Range {
    /// The lowest and the highest value that the format can hold: 0 and 65535 for 16 bits, 0 and 1 for floats.
    #[default]
    Full,
    /// The lowest and the highest value of each image.
    Minmax,
    /// These two values, on the file's own scale.
    Values([f64; 2]),
}

/// A range as a recipe has it.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "data.range must be \"full\", \"minmax\", or [low, high]")]
enum Written {
    Word(Word),
    Values([f64; 2]),
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Word {
    Full,
    Minmax,
}

impl From<Written> for Range {
    fn from(written: Written) -> Range {
        match written {
            Written::Word(Word::Full) => Range::Full,
            Written::Word(Word::Minmax) => Range::Minmax,
            Written::Values(values) => Range::Values(values),
        }
    }
}

impl From<Range> for Written {
    fn from(range: Range) -> Written {
        match range {
            Range::Full => Written::Word(Word::Full),
            Range::Minmax => Written::Word(Word::Minmax),
            Range::Values(values) => Written::Values(values),
        }
    }
}

impl Law {
    /// The image in 8 bits and three channels.
    pub(super) fn apply(&self, picture: DynamicImage) -> RgbImage {
        let picture = match self.range {
            Range::Full => picture,
            Range::Minmax => stretched(picture, None),
            Range::Values(values) => stretched(picture, Some(values)),
        };
        match self.background {
            Background::Colour(behind) if picture.color().has_alpha() => composited(picture, behind),
            _ => picture.into_rgb8(),
        }
    }
}

/// Composites the image over a colour: c · a + background · (1 − a), rounded.
fn composited(picture: DynamicImage, behind: [u8; 3]) -> RgbImage {
    let rgba = picture.into_rgba8();
    let mut rgb = RgbImage::new(rgba.width(), rgba.height());
    for (to, from) in rgb.pixels_mut().zip(rgba.pixels()) {
        let [colours @ .., alpha] = from.0;
        let alpha = u32::from(alpha);
        for c in 0..3 {
            let sum = u32::from(colours[c]) * alpha + u32::from(behind[c]) * (255 - alpha);
            to.0[c] = ((sum + 127) / 255) as u8;
        }
    }
    rgb
}

/// An image of more than 8 bits whose values from `low` to `high` are stretched over the whole range; without `values`, from its own lowest
/// to its highest value. Other images stay as they are.
fn stretched(picture: DynamicImage, values: Option<[f64; 2]>) -> DynamicImage {
    let Some(mut deep) = Deep::of(picture.clone()) else { return picture };
    let [low, high] = values.unwrap_or_else(|| deep.extremes());
    if high > low {
        let scale = deep.most / (high - low);
        deep.values.iter_mut().for_each(|v| *v = ((*v - low) * scale).clamp(0.0, deep.most));
    }
    deep.picture()
}

/// The fraction of its range that the values of an image of more than 8 bits use.
pub(super) fn used(picture: DynamicImage) -> Option<f64> {
    let deep = Deep::of(picture)?;
    let [low, high] = deep.extremes();
    Some((high - low).max(0.0) / deep.most)
}

/// An image of more than 8 bits, with colours and alpha apart.
struct Deep {
    width: u32,
    height: u32,
    /// Three for each pixel.
    values: Vec<f64>,
    /// One for each pixel, 0 to 255.
    alpha: Option<Vec<u8>>,
    /// The highest value that the format can hold.
    most: f64,
}

impl Deep {
    fn of(picture: DynamicImage) -> Option<Deep> {
        use DynamicImage::{ImageLuma16, ImageLumaA16, ImageRgb16, ImageRgb32F, ImageRgba16, ImageRgba32F};
        let (width, height) = (picture.width(), picture.height());
        let alpha = picture.color().has_alpha().then(|| picture.to_rgba8().pixels().map(|pixel| pixel.0[3]).collect());
        let (values, most) = match picture {
            // Gray becomes three equal values; a colour conversion might weight them differently.
            ImageLuma16(of) => (of.pixels().flat_map(|p| [f64::from(p.0[0]); 3]).collect(), 65535.0),
            ImageLumaA16(of) => (of.pixels().flat_map(|p| [f64::from(p.0[0]); 3]).collect(), 65535.0),
            ImageRgb16(of) => (of.into_raw().into_iter().map(f64::from).collect(), 65535.0),
            ImageRgba16(of) => (of.pixels().flat_map(|p| [0, 1, 2].map(|c| f64::from(p.0[c]))).collect(), 65535.0),
            ImageRgb32F(of) => (of.into_raw().into_iter().map(f64::from).collect(), 1.0),
            ImageRgba32F(of) => (of.pixels().flat_map(|p| [0, 1, 2].map(|c| f64::from(p.0[c]))).collect(), 1.0),
            _ => return None,
        };
        Some(Deep { width, height, values, alpha, most })
    }

    /// The lowest and the highest value of any colour.
    fn extremes(&self) -> [f64; 2] {
        self.values.iter().fold([f64::INFINITY, f64::NEG_INFINITY], |[low, high], &v| [low.min(v), high.max(v)])
    }

    /// The image in 8 bits.
    fn picture(self) -> DynamicImage {
        let bytes = self.values.iter().map(|v| (v * 255.0 / self.most).round() as u8);
        let Some(alpha) = self.alpha else {
            let made = RgbImage::from_raw(self.width, self.height, bytes.collect());
            return DynamicImage::ImageRgb8(made.unwrap_or_default());
        };
        let bytes: Vec<u8> = bytes.collect();
        let pixels = bytes.as_chunks::<3>().0.iter().zip(alpha).flat_map(|(&[r, g, b], a)| [r, g, b, a]).collect();
        DynamicImage::ImageRgba8(image::RgbaImage::from_raw(self.width, self.height, pixels).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_and_written_alike() {
        for (word, background) in [
            ("drop", Background::Drop),
            ("white", Background::WHITE),
            ("black", Background::Colour([0; 3])),
            ("#0a20ff", Background::Colour([10, 32, 255])),
        ] {
            assert_eq!(serde_json::from_value::<Background>(word.into()).unwrap(), background);
            assert_eq!(serde_json::to_value(background).unwrap(), word);
        }
        for word in ["grey", "#12345", "#12345g", "ffffff", "#+12345"] {
            let error = serde_json::from_value::<Background>(word.into()).unwrap_err().to_string();
            assert!(error.contains("\"#rrggbb\""), "{word}: {error}");
        }
        for (text, range) in
            [("\"full\"", Range::Full), ("\"minmax\"", Range::Minmax), ("[0.0,4095.0]", Range::Values([0.0, 4095.0]))]
        {
            assert_eq!(serde_json::from_str::<Range>(text).unwrap(), range);
            assert_eq!(serde_json::to_string(&range).unwrap(), text);
        }
        let error = serde_json::from_str::<Range>("\"auto\"").unwrap_err().to_string();
        assert!(error.contains("\"minmax\", or [low, high]"), "{error}");
    }

    #[test]
    fn twelve_bits_in_sixteen_are_stretched_as_the_range_says() {
        let picture = || {
            let values = image::ImageBuffer::from_raw(4, 1, vec![100_u16, 1000, 2000, 4095]).unwrap();
            DynamicImage::ImageLuma16(values)
        };
        let by = |range| Law { range, ..Law::default() }.apply(picture()).into_raw().chunks(3).map(|p| p[0]).collect::<Vec<_>>();
        assert_eq!(by(Range::Full), [0, 4, 8, 16]);
        assert_eq!(by(Range::Minmax), [0, 57, 121, 255]);
        assert_eq!(by(Range::Values([0.0, 4095.0])), [6, 62, 125, 255]);
        assert_eq!(by(Range::Values([1000.0, 2000.0])), [0, 0, 255, 255], "beyond the values there is black and white");
        let share = used(picture()).unwrap();
        assert!((share - 3995.0 / 65535.0).abs() < 1e-9);
        let eight = DynamicImage::ImageLuma8(image::ImageBuffer::from_raw(1, 1, vec![3]).unwrap());
        assert_eq!(used(eight.clone()), None);
        assert_eq!(Law { range: Range::Minmax, ..Law::default() }.apply(eight).into_raw(), [3; 3], "8 bits stay as they are");
    }

    #[test]
    fn transparent_pixels_show_what_lies_behind() {
        let pixels = vec![200, 100, 50, 128, 7, 8, 9, 0, 1, 2, 3, 255];
        let picture = || DynamicImage::ImageRgba8(image::ImageBuffer::from_raw(3, 1, pixels.clone()).unwrap());
        let by = |background| Law { background, ..Law::default() }.apply(picture()).into_raw();
        assert_eq!(by(Background::WHITE), [227, 177, 152, 255, 255, 255, 1, 2, 3]);
        assert_eq!(by(Background::Colour([0; 3])), [100, 50, 25, 0, 0, 0, 1, 2, 3]);
        assert_eq!(by(Background::Drop), [200, 100, 50, 7, 8, 9, 1, 2, 3]);
    }
}
