//! Random views as image files, for other programs that compute features of them.

use std::io::Cursor;
use std::path::Path;

use ctk_core::data::dataset::Dataset;
use ctk_core::observer::advanced;
use ctk_core::process::Stop;
use ctk_core::rng::Key;
use ctk_core::store::files;
use ctk_core::{Error, Result};
use image::{ImageFormat, RgbImage};
use rayon::prelude::*;

use crate::augment::Augment;
use crate::dataset::Images;

/// The table that says of which image each file is.
pub const TABLE: &str = "views.csv";

/// Images whose views are made before a request to stop is looked at.
const AT_ONCE: usize = 256;

/// Writes `views` random views of every image, as PNG files, into the new folder `out`, with a table (`file_name`, `image`, `view`). A view
/// depends on the seed, the image's number and the view's alone.
///
/// # Errors
/// An image that cannot be read, a folder that is not empty, or one that cannot be written; the process was asked to end.
pub fn write(images: &Images, augment: &Augment, seed: u64, views: usize, out: &Path) -> Result<()> {
    if images.is_empty() {
        return Err(Error::new("there is no image to make views of"));
    }
    // What is seen, and not what a network reads: values in [0, 1].
    let augment = augment.visible();
    let key = Key::new(seed).of("exported views");
    let stop = Stop::here();
    let name = |image: usize, view: usize| format!("{image:08}-{view}.png");
    files::folder_with(out, |folder| {
        let mut table = String::from("file_name,image,view\n");
        for first in (0..images.len()).step_by(AT_ONCE) {
            stop.check()?;
            let block = first..(first + AT_ONCE).min(images.len());
            let made = block.clone().into_par_iter().map(|image| {
                let picture = images.picture(image).map_err(|e| e.at(images.name(image)))?;
                (0..views)
                    .map(|view| {
                        let mut rows = vec![0.0; augment.size * augment.size * 3];
                        augment.view(&picture, &mut key.at(image as u64).at(view as u64).rng(), &mut rows);
                        png(&rows, augment.size)
                    })
                    .collect::<Result<Vec<_>>>()
            });
            for (image, pngs) in block.clone().zip(made.collect::<Result<Vec<_>>>()?) {
                for (view, png) in pngs.iter().enumerate() {
                    files::write(&folder.join(name(image, view)), png)?;
                    table.push_str(&format!("{},{},{view}\n", name(image, view), quoted(&images.name(image))));
                }
            }
            advanced(block.end, images.len());
        }
        files::write(&folder.join(TABLE), table.as_bytes())
    })
}

/// A cell of a table.
fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_string() }
}

fn png(values: &[f32], size: usize) -> Result<Vec<u8>> {
    let bytes: Vec<u8> = values.iter().map(|value| (value * 255.0).round().clamp(0.0, 255.0) as u8).collect();
    let picture = RgbImage::from_raw(size as u32, size as u32, bytes).ok_or_else(|| Error::new("a view of another size"))?;
    let mut png = Cursor::new(Vec::new());
    picture.write_to(&mut png, ImageFormat::Png).map_err(|e| Error::new(format!("cannot write a view: {e}")))?;
    Ok(png.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::augment::AugmentRecipe;
    use crate::dataset;
    use ctk_core::recipe::Recipe;

    #[test]
    fn every_image_has_its_views_and_the_table_says_whose_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let images = crate::generated::open(3, 0).train;
        let augment = AugmentRecipe { size: 8, ..AugmentRecipe::default() }.check(&Recipe::new("test", "")).unwrap();
        let out = folder.path().join("views");
        write(&images, &augment, 1, 2, &out).unwrap();
        let table = std::fs::read_to_string(out.join(TABLE)).unwrap();
        assert_eq!(table.lines().nth(4), Some("00000001-1.png,train/00001,1"), "{table}");
        let read = dataset::files(&[out.join("00000002-0.png"), out.join("00000002-1.png")]).unwrap();
        let [one, two] = [0, 1].map(|at| read.picture(at).unwrap());
        assert!((one.height, one.width) == (8, 8) && one != two, "views differ");
        assert!(write(&images, &augment, 1, 1, &out).is_err(), "the folder is not empty");
        write(&images, &augment, 1, 2, &folder.path().join("again")).unwrap();
        let bytes = |name: &str| std::fs::read(folder.path().join(name).join("00000000-1.png")).unwrap();
        assert_eq!(bytes("views"), bytes("again"));
        assert_eq!(quoted("a, \"b\""), "\"a, \"\"b\"\"\"");
    }
}
