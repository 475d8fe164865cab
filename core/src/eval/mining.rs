//! Mining of hard negatives: candidates that are near an anchor and are not its positives (as sentence-transformers' `mine_hard_negatives`,
//! by exact search).
//!
//! The candidates of an anchor are ranked by cosine, its known positives left out. Of the first [`end`](std::ops::Range) of
//! [`Options::ranks`] those are dropped that are too near or too far; of what is left the first `start` are skipped, as they may be positives
//! that nobody noted; of the rest the nearest are taken, or some are drawn.

use std::ops::Range;

use rand::seq::index;

use super::Features;
use super::nearest::{Units, nearest};
use crate::error::{Error, Result};
use crate::rng::Key;

/// Which candidates become negatives.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// The ranks that are looked at; the nearest candidate has rank 0.
    pub ranks: Range<usize>,
    /// A negative's cosine is at most the cosine of the anchor's least similar positive minus this.
    pub margin: Option<f64>,
    /// A negative's cosine is at most the cosine c of the anchor's least similar positive minus this share of |c|.
    pub relative_margin: Option<f64>,
    /// The largest cosine of a negative.
    pub most: Option<f64>,
    /// The smallest cosine of a negative.
    pub least: Option<f64>,
    /// Negatives of an anchor.
    pub negatives: usize,
    /// Draws the negatives from the ranks, by this key and the anchor's name, instead of taking the nearest.
    pub drawn: Option<Key>,
}

/// The negatives that were found.
#[derive(Clone, Debug, PartialEq)]
pub struct Mined {
    /// For each anchor its negatives with their cosines, nearest first; perhaps fewer than were asked for.
    pub negatives: Vec<Vec<(usize, f32)>>,
    /// For each anchor the cosines of its positives.
    pub positives: Vec<Vec<f32>>,
    /// Candidates among the ranks that were dropped because they are nearer than a margin or [`Options::most`] allow.
    pub too_near: usize,
    /// Candidates among the ranks that were dropped because they are farther than [`Options::least`] allows.
    pub too_far: usize,
}

/// Finds negatives for each row of `anchors` among the first `candidates` rows of `documents`.
///
/// `positives` has the numbers of each anchor's positives in `documents`, `without` those of all rows that are no negatives of it. Results do
/// not depend on the threads.
///
/// # Errors
/// Rows of different widths, or values that are not finite; another number of lists than of anchors; an anchor without a positive; fewer
/// ranks than negatives; the process was asked to end.
pub fn mine(
    anchors: &Features,
    documents: &Features,
    candidates: usize,
    positives: &[Vec<usize>],
    without: &[Vec<usize>],
    options: &Options,
) -> Result<Mined> {
    options.check()?;
    let Options { ranks, negatives, .. } = options;
    if anchors.width != documents.width {
        let what = format!("anchors of {} values cannot be compared with documents of {}", anchors.width, documents.width);
        return Err(Error::new(what).hint("are both embedded by the same model?"));
    }
    if positives.len() != anchors.len() || without.len() != anchors.len() {
        return Err(Error::new(format!("{} lists of positives for {} anchors", positives.len(), anchors.len())));
    }
    if let Some(at) = positives.iter().position(Vec::is_empty) {
        return Err(Error::new("this anchor has no positive").at(&anchors.names[at]));
    }
    let (asked, all) = (Units::of(anchors, None)?, Units::of(documents, None)?);
    let cosines = |(anchor, list): (usize, &Vec<usize>)| list.iter().map(|&at| asked.cosine(anchor, &all, at)).collect();
    let positives: Vec<Vec<f32>> = positives.iter().enumerate().map(cosines).collect();
    let which: Vec<usize> = (0..anchors.len()).collect();
    let found = nearest(&asked, &all.first(candidates), &which, without, ranks.end)?;
    let mut mined = Mined { negatives: Vec::with_capacity(found.len()), positives, too_near: 0, too_far: 0 };
    for (anchor, found) in found.into_iter().enumerate() {
        let most = options.bound(&mined.positives[anchor]);
        let least = options.least.unwrap_or(f64::NEG_INFINITY);
        mined.too_near += found.iter().filter(|near| f64::from(near.score) > most).count();
        mined.too_far += found.iter().filter(|near| f64::from(near.score) < least && f64::from(near.score) <= most).count();
        let left = found.iter().filter(|near| (least..=most).contains(&f64::from(near.score))).skip(ranks.start);
        let left: Vec<(usize, f32)> = left.map(|near| (near.row, near.score)).collect();
        mined.negatives.push(match options.drawn {
            Some(key) if left.len() > *negatives => {
                let mut drawn = index::sample(&mut key.of(&anchors.names[anchor]).rng(), left.len(), *negatives).into_vec();
                drawn.sort_unstable();
                drawn.into_iter().map(|at| left[at]).collect()
            }
            _ => left.into_iter().take(*negatives).collect(),
        });
    }
    Ok(mined)
}

impl Options {
    /// Checks that there are as many ranks as negatives.
    ///
    /// # Errors
    /// There are fewer.
    pub fn check(&self) -> Result<()> {
        let Options { ranks, negatives, .. } = self;
        if ranks.len() >= *negatives {
            return Ok(());
        }
        let what = format!("the ranks {}..{} cannot give {negatives} negatives", ranks.start, ranks.end);
        Err(Error::usage(what).hint("name more ranks, or ask for fewer negatives; the end of the ranks is not among them"))
    }

    /// The largest cosine that a negative may have beside positives with these cosines.
    fn bound(&self, positives: &[f32]) -> f64 {
        let positive = positives.iter().copied().fold(f32::INFINITY, f32::min).into();
        let bounds = [
            self.margin.map(|margin| positive - margin),
            // Not a factor: that would raise the bound where the positive's cosine is negative.
            self.relative_margin.map(|margin| positive - f64::abs(positive) * margin),
            self.most,
        ];
        bounds.into_iter().flatten().fold(f64::INFINITY, f64::min)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::with_threads;
    use rand_distr::{Distribution, StandardNormal};

    const PLAIN: Options =
        Options { ranks: 0..4, margin: None, relative_margin: None, most: None, least: None, negatives: 4, drawn: None };

    fn features(rows: Vec<f32>, width: usize, name: &str) -> Features {
        let names = (0..rows.len() / width).map(|i| format!("{name}{i}")).collect();
        Features { rows, width, names, ..Features::default() }
    }

    /// An anchor and documents at these cosines from it.
    fn at(cosines: &[f64]) -> (Features, Features) {
        let row = |c: &f64| [*c as f32, (1.0 - c * c).sqrt() as f32];
        (features(vec![3.0, 0.0], 2, "a"), features(cosines.iter().flat_map(row).collect(), 2, "d"))
    }

    #[test]
    fn limits_and_ranks_choose_as_computed_by_hand() {
        // Number 0 is the positive; 3 and 5 are equal.
        let (anchor, documents) = at(&[0.8, 0.95, 0.7, 0.5, -0.2, 0.5, 0.78]);
        let found = |options: &Options| {
            let mined = mine(&anchor, &documents, 7, &[vec![0]], &[vec![0]], options).unwrap();
            (mined.negatives[0].iter().map(|(at, _)| *at).collect::<Vec<_>>(), mined.too_near, mined.too_far)
        };
        assert_eq!(found(&PLAIN), (vec![1, 6, 2, 3], 0, 0));
        assert_eq!(
            found(&Options { ranks: 0..9, negatives: 9, ..PLAIN }).0,
            [1, 6, 2, 3, 5, 4],
            "ties by number; no more than there are"
        );
        assert_eq!(found(&Options { ranks: 2..4, negatives: 2, ..PLAIN }).0, [2, 3]);
        assert_eq!(found(&Options { margin: Some(0.05), ..PLAIN }), (vec![2, 3], 2, 0));
        // Dropped candidates are not among the ranks that are skipped.
        assert_eq!(found(&Options { ranks: 1..6, margin: Some(0.05), ..PLAIN }), (vec![3, 5, 4], 2, 0));
        assert_eq!(found(&Options { margin: Some(0.0), ..PLAIN }).0, [6, 2, 3]);
        assert_eq!(found(&Options { relative_margin: Some(0.1), ..PLAIN }), (vec![2, 3], 2, 0));
        assert_eq!(found(&Options { most: Some(0.9), least: Some(0.6), ..PLAIN }), (vec![6, 2], 1, 1));
        // Only the first documents are candidates.
        let mined = mine(&anchor, &documents, 3, &[vec![6]], &[vec![6]], &PLAIN).unwrap();
        assert_eq!(mined.negatives[0].iter().map(|(at, _)| *at).collect::<Vec<_>>(), [1, 0, 2]);
        assert!((mined.positives[0][0] - 0.78).abs() < 1e-6);
        // Of two positives the farther one sets the margin; below zero, a relative margin still lowers the bound.
        let two = |margin| Options { relative_margin: Some(margin), ranks: 0..7, ..PLAIN };
        let mined = mine(&anchor, &documents, 7, &[vec![0, 2]], &[vec![0, 2]], &two(0.1)).unwrap();
        assert_eq!(mined.negatives[0].iter().map(|(at, _)| *at).collect::<Vec<_>>(), [3, 5, 4]);
        assert!(two(0.1).bound(&[-0.5]) < -0.54);
        let error = mine(&anchor, &documents, 7, &[vec![0]], &[vec![0]], &Options { negatives: 5, ..PLAIN }).unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains("5 negatives"), "{error}");
        assert!(mine(&anchor, &documents, 7, &[vec![]], &[vec![]], &PLAIN).is_err());
    }

    #[test]
    fn mining_is_brute_force_on_any_number_of_threads_and_positives_are_never_mined() {
        let normal = |seed, count: usize| StandardNormal.sample_iter(Key::new(seed).rng()).take(count).collect::<Vec<f32>>();
        let (width, count, asked) = (19, 400, 150);
        let mut documents = features(normal(1, count * width), width, "d");
        // Equal candidates in different blocks.
        documents.rows.copy_within(5 * width..6 * width, 300 * width);
        let anchors = features(normal(2, asked * width), width, "a");
        let positives: Vec<Vec<usize>> = (0..asked).map(|a| (0..=a % 3).map(|n| (a * 31 + n * 97) % count).collect()).collect();
        let options = Options { ranks: 3..60, margin: Some(-0.3), least: Some(0.1), negatives: 5, ..PLAIN };
        let unit = |row: &[f32]| {
            let length = row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
            row.iter().map(|v| f64::from(*v) / length).collect::<Vec<f64>>()
        };
        let cosine =
            |a: usize, d: usize| unit(anchors.row(a)).iter().zip(unit(documents.row(d))).map(|(a, b)| a * b).sum::<f64>();
        let found = mine(&anchors, &documents, count, &positives, &positives, &options).unwrap();
        for (a, own) in positives.iter().enumerate() {
            let mut all: Vec<(f64, usize)> = (0..count).filter(|d| !own.contains(d)).map(|d| (cosine(a, d), d)).collect();
            all.sort_by(|x, y| y.0.total_cmp(&x.0).then(x.1.cmp(&y.1)));
            let bound = own.iter().map(|d| cosine(a, *d)).fold(f64::INFINITY, f64::min) + 0.3;
            let left = all.into_iter().take(60).filter(|(c, _)| *c >= 0.1 && *c <= bound).skip(3).take(5);
            assert_eq!(found.negatives[a].iter().map(|(d, _)| *d).collect::<Vec<_>>(), left.map(|(_, d)| d).collect::<Vec<_>>());
            assert!(found.negatives[a].iter().all(|(d, _)| !own.contains(d)));
        }
        assert!(found.negatives.iter().any(Vec::is_empty) && found.negatives.iter().any(|list| list.len() == 5));
        let drawn = Options { drawn: Some(Key::new(4)), ..options.clone() };
        let random = mine(&anchors, &documents, count, &positives, &positives, &drawn).unwrap();
        let mut different = 0;
        for (random, top) in random.negatives.iter().zip(&found.negatives) {
            assert!(random.len() == top.len() && random.is_sorted_by(|a, b| a.1 >= b.1));
            different += usize::from(random != top);
        }
        // Where five or fewer are left, all are taken.
        assert!(different > 40, "{different}");
        for threads in [1, 3] {
            for (options, found) in [(&options, &found), (&drawn, &random)] {
                let again = with_threads(threads, || mine(&anchors, &documents, count, &positives, &positives, options));
                assert_eq!(again.unwrap().unwrap(), *found);
            }
        }
        let other = Options { drawn: Some(Key::new(5)), ..options };
        assert_ne!(mine(&anchors, &documents, count, &positives, &positives, &other).unwrap(), random);
    }
}
