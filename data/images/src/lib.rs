//! Images as data, for every plugin that reads them: pictures from files, datasets and their splits, augmented views.
//!
//! - [`decode`] turns the bytes of image files into a [`picture::Picture`]; [`dataset`] finds out what lies at a path and reads it.
//! - [`check`] says what is there and what is wrong with it.
//! - [`generated`] is the dataset that needs no path; [`holdout`] makes a test split where there is none.
//! - [`augment`] makes a view of a picture; [`pixels`] makes rows of views for a batch; [`preview`] shows them.
//! - [`recipe`] is the section `[data]`: where the images are, and how much memory they may take.

pub mod augment;
pub mod check;
pub mod dataset;
pub mod decode;
pub mod generated;
pub mod holdout;
pub mod picture;
pub mod pixels;
pub mod preview;
pub mod recipe;
mod scene;
