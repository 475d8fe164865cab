//! A picture of view pairs: each original with two views of it, under a header and over its name.
//!
//! Views that are nearly black or nearly white have a red frame, and are counted: a network learns little from them.

use std::io::Cursor;
use std::ops::RangeInclusive;

use ctk_core::data::dataset::Dataset;
use ctk_core::rng::Key;
use ctk_core::{Context, Error, Result};
use font8x8::{BASIC_FONTS, LATIN_FONTS, UnicodeFonts};
use image::{ImageFormat, Rgb, RgbImage};

use crate::augment::{Augment, thumbnail};
use crate::dataset::Images;
use crate::picture::Picture;

const ROWS: usize = 8;
const COLUMNS: usize = 4;
/// Pixels between triples, and around the sheet.
const GAP: usize = 6;
/// Pixels between a triple's parts: room for a frame.
const FRAME: usize = 2;
/// Width and height of a letter, in pixels.
const LETTER: usize = 8;
/// Height of a line of text.
const LINE: usize = LETTER + 4;
/// Smaller views are drawn this many pixels wide at least, by whole factors.
const LEAST: usize = 64;
/// What stands over the parts of each triple.
const HEADER: [&str; 3] = ["original", "view 1", "view 2"];
/// Means of views, 0 to 1; below them a view is nearly black, above them nearly white.
pub(crate) const VISIBLE: RangeInclusive<f32> = 0.04..=0.96;

/// The picture, and what is to be said of it.
pub struct Preview {
    /// A PNG file.
    pub png: Vec<u8>,
    /// Counts of views that are nearly black or nearly white, in words; none where there are none.
    pub notes: Vec<String>,
}

/// Draws up to 32 triples: original, view 1, view 2; views are drawn from `seed` with training's augmentations.
///
/// # Errors
/// No image, or one that cannot be decoded, by name.
pub fn preview(images: &Images, augment: &Augment, seed: u64) -> Result<Preview> {
    if images.is_empty() {
        return Err(Error::new("there is no image to show"));
    }
    let augment = augment.visible();
    let size = augment.size;
    let factor = LEAST.div_ceil(size).max(1);
    let part = size * factor + 2 * FRAME;
    let count = images.len().min(ROWS * COLUMNS);
    let columns = count.min(COLUMNS);
    let cell = (3 * part + GAP, part + LINE + GAP);
    let (width, height) = (columns * cell.0 + GAP, LINE + count.div_ceil(columns) * cell.1 + GAP);
    let mut sheet = Sheet(RgbImage::from_pixel(width as u32, height as u32, Rgb([255; 3])));
    let mut tile = vec![0.0; size * size * 3];
    let mut rng = Key::new(seed).of("preview").rng();
    let (mut black, mut white) = (0, 0);
    for column in 0..columns {
        for (number, word) in HEADER.iter().enumerate() {
            sheet.text(GAP + column * cell.0 + number * part + FRAME, GAP, word, part);
        }
    }
    for place in 0..count {
        // Spread over the data, which is often sorted by class, or runs through the classes in turn.
        let index = place * images.len() / count + place % (images.len() / count);
        let picture = images.picture(index).at(images.name(index))?;
        let (left, top) = (GAP + place % columns * cell.0, GAP + LINE + place / columns * cell.1);
        for number in 0..3 {
            match number {
                0 => thumbnail(&square(&picture), size, &mut tile),
                _ => augment.view(&picture, &mut rng, &mut tile),
            }
            let mean = tile.iter().sum::<f32>() / tile.len() as f32;
            let (dark, bright) = (mean < *VISIBLE.start(), mean > *VISIBLE.end());
            if number > 0 && (dark || bright) {
                black += usize::from(dark);
                white += usize::from(bright);
                sheet.fill(left + number * part, top, part, Rgb([220, 0, 0]));
            }
            sheet.tile(left + number * part + FRAME, top + FRAME, &tile, size, factor);
        }
        sheet.text(left + FRAME, top + part + 2, &images.name(index), 3 * part);
    }
    let mut png = Cursor::new(Vec::new());
    sheet.0.write_to(&mut png, ImageFormat::Png).map_err(|e| Error::new(format!("cannot write the preview: {e}")))?;
    let note = |number: usize, what: &str, key: &str| {
        let total = 2 * count;
        (number > 0).then(|| format!("{number} of {total} views are nearly {what} (framed in red): look at {key}"))
    };
    let black = note(black, "black", "data.range, where pictures have 12 bits in 16, pairs.crop and pairs.jitter");
    let white = note(white, "white", "data.background, pairs.crop and pairs.jitter");
    Ok(Preview { png: png.into_inner(), notes: black.into_iter().chain(white).collect() })
}

/// The whole picture in the middle of a white square.
fn square(picture: &Picture) -> Picture {
    let (height, width) = (picture.height, picture.width);
    let side = height.max(width);
    let mut pixels = vec![255; side * side * 3];
    let corner = ((side - height) / 2 * side + (side - width) / 2) * 3;
    for (row, line) in picture.pixels.chunks_exact(width * 3).enumerate() {
        pixels[corner + row * side * 3..][..line.len()].copy_from_slice(line);
    }
    Picture { height: side, width: side, pixels }
}

/// What is drawn on.
struct Sheet(RgbImage);

impl Sheet {
    /// A square tile of `size` × `size` RGB values in [0, 1], each pixel drawn `factor` × `factor` large.
    fn tile(&mut self, left: usize, top: usize, tile: &[f32], size: usize, factor: usize) {
        for (i, pixel) in tile.as_chunks::<3>().0.iter().enumerate() {
            let colour = Rgb(pixel.map(|v| (v * 255.0).round() as u8));
            let (x, y) = (left + i % size * factor, top + i / size * factor);
            for at in 0..factor * factor {
                self.0.put_pixel((x + at % factor) as u32, (y + at / factor) as u32, colour);
            }
        }
    }

    fn fill(&mut self, left: usize, top: usize, size: usize, colour: Rgb<u8>) {
        for at in 0..size * size {
            self.0.put_pixel((left + at % size) as u32, (top + at / size) as u32, colour);
        }
    }

    /// One line of text, at most `width` pixels of it: of a longer one the end, which tells files apart. What the font lacks is `?`.
    fn text(&mut self, left: usize, top: usize, text: &str, width: usize) {
        let letters: Vec<char> = text.chars().collect();
        let room = (width / LETTER).max(1);
        let shown: String = match letters.len() > room {
            true => std::iter::once('~').chain(letters[letters.len() - (room - 1)..].iter().copied()).collect(),
            false => text.to_string(),
        };
        for (number, letter) in shown.chars().enumerate() {
            let glyph = BASIC_FONTS.get(letter).or_else(|| LATIN_FONTS.get(letter)).or_else(|| BASIC_FONTS.get('?'));
            for (row, bits) in glyph.unwrap_or_default().into_iter().enumerate() {
                for column in (0..LETTER).filter(|column| bits >> column & 1 == 1) {
                    self.0.put_pixel((left + number * LETTER + column) as u32, (top + row) as u32, Rgb([60; 3]));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::augment::AugmentRecipe;
    use crate::{decode, generated};
    use ctk_core::recipe::Recipe;

    #[test]
    fn it_shows_the_original_and_two_views_larger_under_a_header() {
        let augment = AugmentRecipe::default().check(&Recipe::new("test", "")).unwrap();
        let images = generated::open(5, 0).train;
        let shown = preview(&images, &augment, 0).unwrap();
        assert!(shown.notes.is_empty());
        let sheet = decode::decode(&shown.png).unwrap();
        // Views of 32 pixels are drawn twice as large.
        assert_eq!((sheet.height, sheet.width), (12 + 2 * (68 + 12 + 6) + 6, 4 * (3 * 68 + 6) + 6));
        let (first, corner) = (images.picture(0).unwrap(), (GAP + LINE + FRAME, GAP + FRAME));
        for (row, column) in [(0, 0), (1, 1), (0, 1)] {
            assert_eq!(sheet.at(corner.0 + row, corner.1 + column), first.at(0, 0), "the first original's corner");
        }
        assert_eq!(sheet.at(corner.0, corner.1 + 2), first.at(0, 1));
        assert_eq!(shown.png, preview(&images, &augment, 0).unwrap().png);
        assert_ne!(shown.png, preview(&images, &augment, 1).unwrap().png);
        let dark = |from: usize, to: usize| (0..sheet.width).any(|x| (from..to).any(|y| sheet.at(y, x) == [60; 3]));
        assert!(dark(GAP, GAP + LETTER), "the header");
        assert!(dark(corner.0 + 66 + 2, corner.0 + 66 + 2 + LETTER), "the names");
    }

    #[test]
    fn views_that_are_nearly_black_are_framed_and_counted() {
        let folder = tempfile::tempdir().unwrap();
        for (name, value) in [("black", 1u8), ("gray", 128), ("white", 255)] {
            let pixels = [b"P5 8 8 255\n".to_vec(), vec![value; 64]].concat();
            std::fs::write(folder.path().join(format!("{name}.pgm")), pixels).unwrap();
        }
        let text = "[pairs]\nsize = 16\njitter = 0.0\n";
        let augment = AugmentRecipe { size: 16, jitter: Some(0.0), ..AugmentRecipe::default() };
        let augment = augment.check(&Recipe::new("test", text)).unwrap();
        let images = crate::dataset::open(folder.path(), None, &crate::dataset::Columns::default()).unwrap().all();
        let shown = preview(&images, &augment, 0).unwrap();
        let [black, white] = &shown.notes[..] else { panic!("{:?}", shown.notes) };
        assert!(black.starts_with("2 of 6 views are nearly black (framed in red): look at data.range"), "{black}");
        assert!(white.starts_with("2 of 6 views are nearly white"), "{white}");
        let sheet = decode::decode(&shown.png).unwrap();
        let red = (0..sheet.width).filter(|&x| sheet.at(GAP + LINE, x) == [220, 0, 0]).count();
        assert_eq!(red, 4 * 68, "two frames of black, two of white");
    }

    #[test]
    fn an_original_keeps_its_shape() {
        let wide = Picture { height: 1, width: 3, pixels: vec![1, 2, 3, 4, 5, 6, 7, 8, 9] };
        let found = square(&wide);
        let white = [255; 9];
        assert_eq!((found.height, found.width, found.pixels), (3, 3, [&white[..], &wide.pixels, &white].concat()));
        let tall = Picture { height: 3, width: 1, ..wide };
        assert_eq!([square(&tall).at(1, 0), square(&tall).at(1, 1), square(&tall).at(2, 2)], [[255; 3], [4, 5, 6], [255; 3]]);
    }

    #[test]
    fn long_and_odd_names_stay_inside() {
        let mut sheet = Sheet(RgbImage::from_pixel(40, 10, Rgb([255; 3])));
        sheet.text(0, 0, "a very long name of a file.jpg", 40);
        sheet.text(0, 0, "\u{4e2d}\u{e9}\u{1f600}", 40);
        sheet.text(0, 0, "", 40);
    }
}
