//! Zero-shot classification: an image belongs to the class whose description is most similar (CLIP, Radford et al. 2021, §3.1).
//!
//! A class has several prompts ("a photo of a {}"). Their rows are scaled to length 1, averaged, and scaled again.

use super::nearest::Units;
use super::{Features, normalise};
use crate::error::{Error, Result};
use crate::process::Stop;

/// Where the class's name goes in a prompt.
pub const PLACE: &str = "{}";

/// The results.
#[derive(Clone, Debug, PartialEq)]
pub struct ZeroShot {
    /// Share of rows whose own class comes first, 0 to 1.
    pub top1: f64,
    /// Share of rows whose own class is among the first five; none if there are five classes or fewer.
    pub top5: Option<f64>,
    /// The mean over classes of the share of their rows that are right.
    pub mean_per_class: f64,
    /// The share of each class's rows that are right, and how many there are; of classes that have rows.
    pub classes: Vec<(String, f64, usize)>,
    /// Rows that were judged.
    pub rows: usize,
}

/// The texts of a class: each prompt with its name.
pub fn described(prompts: &[String], class: &str) -> Vec<String> {
    prompts.iter().map(|prompt| prompt.replace(PLACE, class)).collect()
}

/// The rows of classes from those of their prompts: `each` for each class, one class after the other.
///
/// # Errors
/// Not as many rows as there are prompts.
pub fn classes(names: &[String], each: usize, prompts: &Features) -> Result<Features> {
    if each == 0 || prompts.len() != names.len() * each {
        return Err(Error::new(format!("{} rows for {} classes of {each} prompts", prompts.len(), names.len())));
    }
    let unit = prompts.normalised();
    let mut rows = Vec::with_capacity(names.len() * prompts.width);
    for of_class in unit.rows.chunks_exact(each * prompts.width) {
        let mean = |at: usize| of_class.iter().skip(at).step_by(prompts.width).map(|v| f64::from(*v)).sum::<f64>() / each as f64;
        rows.extend((0..prompts.width).map(|at| mean(at) as f32));
    }
    normalise(&mut rows, prompts.width);
    Ok(Features { rows, width: prompts.width, names: names.to_vec(), ..Features::default() })
}

/// Judges labelled `images` by the rows of classes that have the names of the labels' classes. Of equal cosines the class with the smaller
/// number comes first.
///
/// # Errors
/// Rows of different widths, or values that are not finite; no labels; a label whose class has no row; fewer than two classes.
pub fn zero_shot(images: &Features, classes: &Features) -> Result<ZeroShot> {
    let labels = images.labels()?;
    if classes.len() < 2 {
        return Err(Error::usage("there is one class or none, so there is nothing to choose from"));
    }
    if images.width != classes.width {
        return Err(Error::new(format!("images of {} values and classes of {}", images.width, classes.width)));
    }
    let place = |name: &String| {
        classes.names.iter().position(|class| class == name).ok_or_else(|| {
            Error::usage(format!("the images have a class `{name}`, which is not among the named classes"))
                .hint("give every class of the images a line")
        })
    };
    let places = images.classes.iter().map(place).collect::<Result<Vec<usize>>>()?;
    let (rows, described) = (Units::of(images, None)?, Units::of(classes, None)?);
    let stop = Stop::here();
    let (mut first, mut five) = (0usize, 0usize);
    let mut own = vec![(0usize, 0usize); classes.len()];
    for (row, label) in labels.iter().enumerate() {
        stop.check()?;
        let truth = places[*label as usize];
        let right = rows.cosine(row, &described, truth);
        let before = |class: &usize| {
            let score = rows.cosine(row, &described, *class);
            score > right || score == right && *class < truth
        };
        let rank = (0..classes.len()).filter(before).count();
        first += usize::from(rank == 0);
        five += usize::from(rank < 5);
        own[truth].0 += usize::from(rank == 0);
        own[truth].1 += 1;
    }
    let share = |count: usize, of: usize| count as f64 / of.max(1) as f64;
    let each: Vec<(String, f64, usize)> = classes
        .names
        .iter()
        .zip(&own)
        .filter(|(_, (_, all))| *all > 0)
        .map(|(name, (right, all))| (name.clone(), share(*right, *all), *all))
        .collect();
    Ok(ZeroShot {
        top1: share(first, labels.len()),
        top5: (classes.len() > 5).then(|| share(five, labels.len())),
        mean_per_class: each.iter().map(|(_, share, _)| share).sum::<f64>() / each.len().max(1) as f64,
        rows: labels.len(),
        classes: each,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rows: &[[f32; 2]], names: &[&str]) -> Features {
        let names = names.iter().map(ToString::to_string).collect();
        Features { rows: rows.concat(), width: 2, names, ..Features::default() }
    }

    #[test]
    fn prompts_are_averaged_as_directions() {
        let texts = described(&["a {}".to_string(), "the {}, {}".to_string()], "cat");
        assert_eq!(texts, ["a cat", "the cat, cat"]);
        let prompts = rows(&[[9.0, 0.0], [0.0, 0.1], [0.0, -2.0], [0.0, -1.0]], &["", "", "", ""]);
        let found = classes(&["x".to_string(), "y".to_string()], 2, &prompts).unwrap();
        let half = 0.5f32.sqrt();
        assert!((found.rows[0] - half).abs() < 1e-6 && (found.rows[1] - half).abs() < 1e-6, "{:?}", found.rows);
        assert_eq!(found.rows[2..], [0.0, -1.0]);
        assert!(classes(&["x".to_string()], 3, &prompts).is_err());
    }

    #[test]
    fn the_nearest_class_is_chosen_and_classes_are_found_by_name() {
        let images = rows(&[[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [1.0, 0.1]], &["1", "2", "3", "4"]);
        let images = images.labelled(&["cat", "cat", "dog", "dog"].map(String::from));
        // In another order than the labels' numbers, and with a class that no image has.
        let classes = rows(&[[0.0, 1.0], [1.0, 0.0], [-1.0, 0.0]], &["dog", "cat", "bird"]);
        let found = zero_shot(&images, &classes).unwrap();
        assert_eq!((found.top1, found.top5, found.mean_per_class, found.rows), (0.75, None, 0.75, 4));
        assert_eq!(found.classes, [("dog".to_string(), 0.5, 2), ("cat".to_string(), 1.0, 2)]);
        let error = zero_shot(&images, &rows(&[[0.0, 1.0], [1.0, 0.0]], &["dog", "fox"])).unwrap_err();
        assert!(error.to_string().contains("`cat`") && error.exit_code() == 2, "{error}");
        assert!(zero_shot(&images, &rows(&[[0.0, 1.0]], &["dog"])).is_err());
        let bare = Features { labels: None, ..images };
        assert!(zero_shot(&bare, &classes).is_err());
    }
}
