//! Retrieval between images and their captions: does an image find one of its captions, and a caption its image?
//!
//! The protocol is that of Flickr8k and Flickr30k (Hodosh et al. 2013, Karpathy & Fei-Fei 2015): an image has several captions, and the first
//! right one counts. A caption that stands word for word at several images is right for all of them. The rank is one more than the number
//! of wrong candidates that are at least as similar as the best right one, so that equal similarities never help.

use std::collections::HashMap;

use rayon::prelude::*;

use super::Features;
use super::nearest::Units;
use crate::error::{Error, Result};
use crate::process::Stop;

/// The numbers of first candidates within which the recall is measured.
pub const CUTOFFS: [usize; 3] = [1, 5, 10];

/// Questions that are answered before a request to stop is looked at.
const AT_ONCE: usize = 64;

/// Images and their captions as rows of one space.
#[derive(Clone, Debug, Default)]
pub struct Captioned {
    /// A row for each image.
    pub images: Features,
    /// A row for each caption of each image; their names are the captions.
    pub captions: Features,
    /// The image of each caption.
    pub of: Vec<u32>,
}

/// How well one side finds the other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recall {
    /// Share of questions of which a right candidate is among the first 1, 5 and 10 ([`CUTOFFS`]), 0 to 1.
    pub at: [f64; 3],
    /// The median rank of the first right candidate, from 1 on.
    pub median: f64,
    /// The expected share within the first 1, 5 and 10 if candidates stood in random order.
    pub chance: [f64; 3],
    /// Questions.
    pub asked: usize,
    /// Candidates of each.
    pub candidates: usize,
}

/// Both directions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CrossModal {
    /// Images that look for their captions.
    pub to_text: Recall,
    /// Captions that look for their images.
    pub to_image: Recall,
}

impl CrossModal {
    /// The mean of both directions' recall within the first five.
    pub fn mean(&self) -> f64 {
        f64::midpoint(self.to_text.at[1], self.to_image.at[1])
    }
}

/// The ranks of the first right candidates, from 1 on: of each image among captions, and of each caption among images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranks {
    /// Of each image.
    pub to_text: Vec<usize>,
    /// Of each caption.
    pub to_image: Vec<usize>,
}

/// Ranks all candidates for each image and for each caption, by cosine and exactly.
///
/// # Errors
/// Rows of different widths, or values that are not finite; no image, an image without a caption, or a caption of an image that is not there.
pub fn ranks(of: &Captioned) -> Result<Ranks> {
    let (images, captions) = right(of)?;
    let [image_rows, caption_rows] = [&of.images, &of.captions].map(|rows| Units::of(rows, None));
    let (image_rows, caption_rows) = (image_rows?, caption_rows?);
    Ok(Ranks {
        to_text: of_each(&image_rows, &caption_rows, of.captions.len(), &images)?,
        to_image: of_each(&caption_rows, &image_rows, of.images.len(), &captions)?,
    })
}

/// The recall of both directions.
///
/// # Errors
/// As [`ranks`].
pub fn crossmodal(of: &Captioned) -> Result<CrossModal> {
    let (images, captions) = right(of)?;
    let found = ranks(of)?;
    Ok(CrossModal {
        to_text: Recall::of(&found.to_text, &images, of.captions.len()),
        to_image: Recall::of(&found.to_image, &captions, of.images.len()),
    })
}

/// The right candidates of each question, in order.
type Right = Vec<Vec<usize>>;

/// The right captions of each image, and the right images of each caption.
fn right(of: &Captioned) -> Result<(Right, Right)> {
    let Captioned { images, captions, of } = of;
    if images.is_empty() {
        return Err(Error::usage("there is no image with a caption, so there is nothing to be found"));
    }
    if images.width != captions.width {
        return Err(Error::new(format!("images of {} values and captions of {}", images.width, captions.width))
            .hint("are both of the same model?"));
    }
    if of.len() != captions.len() || of.iter().any(|&image| image as usize >= images.len()) {
        return Err(Error::new("a caption belongs to no image"));
    }
    let mut alike: HashMap<&str, (Vec<usize>, Vec<usize>)> = HashMap::new();
    for (number, (text, &image)) in captions.names.iter().zip(of).enumerate() {
        let (texts, images) = alike.entry(text).or_default();
        texts.push(number);
        images.push(image as usize);
    }
    let mut right = vec![Vec::new(); images.len()];
    for (text, &image) in captions.names.iter().zip(of) {
        right[image as usize].extend_from_slice(&alike[text.as_str()].0);
    }
    let unique = |list: &mut Vec<usize>| {
        list.sort_unstable();
        list.dedup();
    };
    right.iter_mut().for_each(unique);
    alike.values_mut().for_each(|(_, images)| unique(images));
    if let Some(bare) = right.iter().position(Vec::is_empty) {
        return Err(Error::new("an image has no caption").at(&images.names[bare]));
    }
    Ok((right, captions.names.iter().map(|text| alike[text.as_str()].1.clone()).collect()))
}

/// The rank of the best right candidate of each row of `asked`.
fn of_each(asked: &Units, candidates: &Units, count: usize, right: &[Vec<usize>]) -> Result<Vec<usize>> {
    let stop = Stop::here();
    let numbers: Vec<usize> = (0..right.len()).collect();
    let block = |block: &[usize]| -> Result<Vec<usize>> {
        stop.check()?;
        let rank = |&row: &usize| {
            let own = &right[row];
            let best = own.iter().map(|&at| asked.cosine(row, candidates, at)).fold(f32::NEG_INFINITY, f32::max);
            let wrong = |at: &usize| own.binary_search(at).is_err() && asked.cosine(row, candidates, *at) >= best;
            1 + (0..count).filter(wrong).count()
        };
        Ok(block.iter().map(rank).collect())
    };
    Ok(numbers.par_chunks(AT_ONCE).map(block).collect::<Result<Vec<_>>>()?.concat())
}

impl Recall {
    /// Of questions with these ranks, whose right ones are `right` of `candidates`.
    fn of(ranks: &[usize], right: &[Vec<usize>], candidates: usize) -> Recall {
        let asked = ranks.len();
        let share = |most: usize| ranks.iter().filter(|rank| **rank <= most).count() as f64 / asked as f64;
        let mut sorted = ranks.to_vec();
        sorted.sort_unstable();
        let median = f64::midpoint(sorted[(asked - 1) / 2] as f64, sorted[asked / 2] as f64);
        // One less the share of orders in which all right ones stand behind the first `most`.
        let missed = |right: usize, most: usize| -> f64 {
            (0..most.min(candidates))
                .map(|at| (candidates - at).saturating_sub(right) as f64 / (candidates - at) as f64)
                .product()
        };
        let chance = |most: usize| right.iter().map(|own| 1.0 - missed(own.len(), most)).sum::<f64>() / asked as f64;
        Recall { at: CUTOFFS.map(share), median, chance: CUTOFFS.map(chance), asked, candidates }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn features(rows: &[[f32; 2]], names: &[&str]) -> Features {
        let names = names.iter().map(ToString::to_string).collect();
        Features { rows: rows.concat(), width: 2, names, ..Features::default() }
    }

    /// Rows at angles, in degrees.
    fn at(angles: &[f32]) -> Vec<[f32; 2]> {
        angles.iter().map(|angle| [angle.to_radians().cos(), angle.to_radians().sin()]).collect()
    }

    #[test]
    fn an_image_needs_one_of_its_captions_and_equal_captions_are_right() {
        let images = features(&at(&[0.0, 90.0, 180.0]), &["a", "b", "c"]);
        // The second caption of `a` is near `b`; `c` has the same words as `b`.
        let captions = features(&at(&[5.0, 85.0, 100.0, 60.0]), &["one", "two", "same", "same"]);
        let of = Captioned { images, captions, of: vec![0, 0, 1, 2] };
        let found = ranks(&of).unwrap();
        assert_eq!(found.to_text, [1, 2, 1], "`two` is nearer to `b` than its own");
        assert_eq!(found.to_image, [1, 2, 1, 1]);
        let both = crossmodal(&of).unwrap();
        assert_eq!((both.to_text.at, both.to_text.median), ([2.0 / 3.0, 1.0, 1.0], 1.0));
        assert_eq!((both.to_image.at[0], both.to_image.candidates, both.to_image.asked), (0.75, 3, 4));
        // Of three images `one` and `two` have one right one, `same` has two.
        assert!((both.to_image.chance[0] - (1.0 + 1.0 + 2.0 + 2.0) / 12.0).abs() < 1e-12);
        assert!((both.to_image.chance[1] - 1.0).abs() < 1e-12 && (both.mean() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn equal_similarities_do_not_help() {
        let images = features(&at(&[0.0, 0.0, 0.0]), &["a", "b", "c"]);
        let captions = features(&at(&[0.0, 0.0, 0.0]), &["x", "y", "z"]);
        let found = ranks(&Captioned { images, captions, of: vec![0, 1, 2] }).unwrap();
        assert_eq!((found.to_text, found.to_image), (vec![3; 3], vec![3; 3]));
    }

    #[test]
    fn what_does_not_belong_together_is_refused() {
        let (images, captions) = (features(&at(&[0.0, 90.0]), &["a", "b"]), features(&at(&[0.0]), &["x"]));
        let of = |of: Vec<u32>| crossmodal(&Captioned { images: images.clone(), captions: captions.clone(), of }).unwrap_err();
        assert!(of(vec![0]).to_string().contains("no caption"));
        assert!(of(vec![7]).to_string().contains("belongs to no image"));
        assert!(crossmodal(&Captioned::default()).unwrap_err().to_string().contains("no image"));
        let wide = Features { width: 1, rows: vec![1.0, 2.0], ..features(&[], &["x", "y"]) };
        let error = crossmodal(&Captioned { images, captions: wide, of: vec![0, 1] }).unwrap_err();
        assert!(error.to_string().contains("images of 2 values and captions of 1"), "{error}");
    }
}
