//! Semantic textual similarity: do the cosines of pairs of sentences agree with people's scores? (STS 2012 to 2016, STS-B, SICK-R)
//!
//! [`sts`] measures one set. For figures of several sets and of all together, as papers give them for the subsets of a year, take the
//! [`cosines`] once, and the [`agreement`] of each part of them and of the whole list.

use rayon::prelude::*;

use super::Features;
use super::correlation::{pearson, spearman};
use super::similarity::cosine;
use crate::error::{Error, Result};

/// How cosines and scores agree.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Agreement {
    /// Spearman's rank correlation, −1 to 1, equal values sharing the mean of their ranks; none if all cosines or all scores are equal.
    pub spearman: Option<f64>,
    /// Pearson's correlation, −1 to 1; none if all cosines or all scores are equal.
    pub pearson: Option<f64>,
    /// Pairs.
    pub pairs: usize,
}

/// The cosines of pairs of rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Cosines {
    /// One for each pair, −1 to 1.
    pub values: Vec<f64>,
    /// Pairs of which a row is zero, as that of an empty text may be; their cosine counts as 0.
    pub zeros: usize,
}

/// The agreement of `scores` (on any scale, more for more similar) with the cosines of row i of `left` and row i of `right`. Rows are cut to
/// their first `truncate` values, if given, and cosines are taken of these.
///
/// # Errors
/// As [`cosines`] and [`agreement`].
pub fn sts(left: &Features, right: &Features, scores: &[f64], truncate: Option<usize>) -> Result<Agreement> {
    agreement(&cosines(left, right, truncate)?.values, scores)
}

/// The cosine of row i of `left` and row i of `right`, both cut to their first `truncate` values, if given.
///
/// # Errors
/// The sides differ in number or width; rows have fewer values than `truncate`, or one that is not finite.
pub fn cosines(left: &Features, right: &Features, truncate: Option<usize>) -> Result<Cosines> {
    if (left.len(), left.width) != (right.len(), right.width) {
        return Err(Error::new(format!(
            "{} rows of {} values cannot be paired with {} rows of {}",
            left.len(),
            left.width,
            right.len(),
            right.width
        )));
    }
    let kept = left.kept(truncate)?;
    left.finite()?;
    right.finite()?;
    let of = |pair: usize| {
        let (a, b) = (&left.row(pair)[..kept], &right.row(pair)[..kept]);
        let zero = [a, b].iter().any(|row| row.iter().all(|value| *value == 0.0));
        (cosine(a, b), usize::from(zero))
    };
    let all: Vec<(f64, usize)> = (0..left.len()).into_par_iter().map(of).collect();
    Ok(Cosines { values: all.iter().map(|(cosine, _)| *cosine).collect(), zeros: all.iter().map(|(_, zero)| zero).sum() })
}

/// The agreement of cosines and scores, one each for a pair.
///
/// # Errors
/// Their numbers differ, or a score is not finite.
pub fn agreement(cosines: &[f64], scores: &[f64]) -> Result<Agreement> {
    if cosines.len() != scores.len() {
        return Err(Error::new(format!("{} scores for {} pairs", scores.len(), cosines.len())));
    }
    if let Some(pair) = scores.iter().position(|score| !score.is_finite()) {
        return Err(Error::new(format!("the score of pair {pair} is {}, not a finite number", scores[pair])));
    }
    Ok(Agreement { spearman: spearman(cosines, scores), pearson: pearson(cosines, scores), pairs: scores.len() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::with_threads;

    fn features(rows: Vec<f32>, width: usize) -> Features {
        let names = (0..rows.len() / width).map(|i| i.to_string()).collect();
        Features { rows, width, names, ..Features::default() }
    }

    #[test]
    fn rows_at_known_cosines_have_the_golden_agreement() {
        // Cosines of .9 .5 .7 .1 .1 .8 at any length of the rows.
        let cosines: [f32; 6] = [0.9, 0.5, 0.7, 0.1, 0.1, 0.8];
        let left = features((1..=6).flat_map(|i| [i as f32, 0.0]).collect(), 2);
        let right = features(cosines.iter().flat_map(|c| [3.0 * c, 3.0 * (1.0 - c * c).sqrt()]).collect(), 2);
        let found = sts(&left, &right, &[5.0, 3.2, 3.2, 0.0, 1.0, 4.4], None).unwrap();
        assert!((found.spearman.unwrap() - 0.970_588_235_3).abs() < 1e-10, "{found:?}");
        assert!((found.pearson.unwrap() - 0.969_893_641_2).abs() < 1e-6, "{found:?}");
        assert_eq!(found.pairs, 6);
        let flat = sts(&left, &right, &[1.0; 6], None).unwrap();
        assert_eq!((flat.spearman, flat.pearson), (None, None), "nothing to rank");
    }

    #[test]
    fn rows_are_cut_and_normalised_again() {
        let (u, v): (Vec<f32>, Vec<f32>) = (1..=8).map(|k| ((k as f64).sin() as f32, (2.0 * k as f64).sin() as f32)).unzip();
        let (u, v) = (features(u, 8), features(v, 8));
        for (truncate, golden) in
            [(None, 0.075_645_318_2), (Some(8), 0.075_645_318_2), (Some(4), -0.311_092_282_0), (Some(2), 0.052_527_993_3)]
        {
            let found = cosines(&u, &v, truncate).unwrap().values[0];
            assert!((found - golden).abs() < 1e-7, "{truncate:?}: {found}");
        }
        for truncate in [0, 9] {
            let error = cosines(&u, &v, Some(truncate)).unwrap_err();
            assert!(error.to_string().contains("give 1 to 8") && error.exit_code() == 2, "{error}");
        }
    }

    #[test]
    fn equal_rows_tie_zero_rows_are_counted_and_threads_change_nothing() {
        let wave = |f: f32| (0..900).map(|i| (i as f32 * f).sin()).collect::<Vec<f32>>();
        let (left, mut right) = (features(wave(0.3), 9), features(wave(0.7), 9));
        right.rows[..27].copy_from_slice(&left.rows[..27]);
        right.rows[36..45].fill(0.0);
        let found = cosines(&left, &right, None).unwrap();
        assert_eq!((&found.values[..3], found.values[4], found.zeros), (&[1.0; 3][..], 0.0, 1));
        for threads in [1, 3] {
            assert_eq!(with_threads(threads, || cosines(&left, &right, None)).unwrap().unwrap(), found);
        }
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let three = features(vec![1.0; 6], 2);
        let said = |result: Result<Agreement>| result.unwrap_err().to_string();
        assert!(said(sts(&three, &features(vec![1.0; 4], 2), &[1.0; 3], None)).contains("3 rows of 2 values"));
        assert!(said(sts(&three, &features(vec![1.0; 9], 3), &[1.0; 3], None)).contains("3 rows of 3"));
        assert!(said(sts(&three, &three, &[1.0; 2], None)).contains("2 scores for 3 pairs"));
        assert!(said(sts(&three, &three, &[1.0, f64::NAN, 2.0], None)).contains("pair 1"));
        let odd = features(vec![1.0, 1.0, f32::INFINITY, 1.0, 1.0, 1.0], 2);
        assert!(said(sts(&three, &odd, &[1.0; 3], None)).contains("row 1"));
    }
}
