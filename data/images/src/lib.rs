//! Images as data, for every plugin that reads them: decoding, datasets and their splits, augmented views.
//!
//! - [`decode`] turns the bytes of image files into a [`picture::Picture`]; [`dataset`] recognises and reads the data at a path.
//! - [`check`] reports what the data holds and what is wrong with it.
//! - [`generated`] is the dataset that needs no path; [`holdout`] makes a test split where there is none.
//! - [`sets`] are images that belong together.
//! - [`augment`] makes a view of an image; [`pixels`] makes rows of views for a batch; [`preview`] draws them, [`crops`]
//!   writes them for other programs.
//! - [`recipe`] is the section `[data]`: where the images are, how they are decoded, and how much memory they may take.

pub mod augment;
pub mod check;
pub mod crops;
pub mod dataset;
pub mod decode;
pub mod generated;
pub mod holdout;
pub mod picture;
pub mod pixels;
pub mod preview;
pub mod recipe;
mod scene;
pub mod sets;
