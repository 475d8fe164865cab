//! Everybody's first look: a picture of pictures, each original with two views of it.

use std::io::Cursor;

use ctk_core::data::dataset::Dataset;
use ctk_core::rng::Key;
use ctk_core::{Context, Error, Result};
use image::{ImageFormat, RgbImage};

use crate::augment::{Augment, thumbnail};
use crate::dataset::Images;

const ROWS: usize = 8;
const COLUMNS: usize = 4;
const GAP: usize = 4;

/// A PNG file of up to 32 triples: original, left view, right view; drawn from `seed` with training's augmentations.
///
/// # Errors
/// No image, or one that cannot be decoded, by name.
pub fn preview(images: &Images, augment: &Augment, seed: u64) -> Result<Vec<u8>> {
    if images.is_empty() {
        return Err(Error::new("there is no image to show"));
    }
    let augment = augment.visible();
    let size = augment.size;
    let count = images.len().min(ROWS * COLUMNS);
    let columns = count.min(COLUMNS);
    let cell = (3 * (size + 1) + GAP, size + GAP);
    let (width, height) = (columns * cell.0 + GAP, count.div_ceil(columns) * cell.1 + GAP);
    let mut sheet = RgbImage::from_pixel(width as u32, height as u32, image::Rgb([255; 3]));
    let mut tile = vec![0.0; size * size * 3];
    let mut rng = Key::new(seed).of("preview").rng();
    for place in 0..count {
        // Spread over the data, which is often sorted by class, or runs through the classes in turn.
        let index = place * images.len() / count + place % (images.len() / count);
        let picture = images.picture(index).at(images.name(index))?;
        let (left, top) = (GAP + place % columns * cell.0, GAP + place / columns * cell.1);
        for part in 0..3 {
            match part {
                0 => thumbnail(&picture, size, &mut tile),
                _ => augment.view(&picture, &mut rng, &mut tile),
            }
            for (i, pixel) in tile.as_chunks::<3>().0.iter().enumerate() {
                let (x, y) = (left + part * (size + 1) + i % size, top + i / size);
                sheet.put_pixel(x as u32, y as u32, image::Rgb(pixel.map(|v| (v * 255.0).round() as u8)));
            }
        }
    }
    let mut png = Cursor::new(Vec::new());
    sheet.write_to(&mut png, ImageFormat::Png).map_err(|e| Error::new(format!("cannot write the preview: {e}")))?;
    Ok(png.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::augment::AugmentRecipe;
    use crate::{decode, generated};
    use ctk_core::recipe::Recipe;

    #[test]
    fn it_shows_the_original_and_two_views() {
        let augment = AugmentRecipe::default().check(&Recipe::new("test", "")).unwrap();
        let images = generated::open(5, 0).train;
        let png = preview(&images, &augment, 0).unwrap();
        let sheet = decode::decode(&png).unwrap();
        assert_eq!((sheet.height, sheet.width), (4 + 2 * 36, 4 + 4 * 103));
        assert_eq!(sheet.at(4, 4), images.picture(0).unwrap().at(0, 0), "the first original's corner");
        assert_eq!(png, preview(&images, &augment, 0).unwrap());
        assert_ne!(png, preview(&images, &augment, 1).unwrap());
    }
}
