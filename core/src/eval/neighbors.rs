//! What lies nearest to some rows.

use rayon::prelude::*;

use super::Features;
use super::words::Words;
use crate::error::{Error, Result};

/// The `count` rows nearest by cosine to the sum of `positive` minus the sum of `negative`, each scaled to length 1; the rows
/// that were asked for are left out. With their cosines, nearest first.
///
/// # Errors
/// A name that is no row's (names are looked up as written, or else lower-cased); nothing asked for.
pub fn neighbors(features: &Features, positive: &[&str], negative: &[&str], count: usize) -> Result<Vec<(String, f32)>> {
    let words = Words::new(features, features.len());
    let row = |name: &str| words.row(name).ok_or_else(|| unknown(features, name));
    let mut target = vec![0.0; features.width];
    let mut asked = Vec::new();
    for (names, sign) in [(positive, 1.0), (negative, -1.0)] {
        for name in names {
            let at = row(name)?;
            let scale = sign / norm(features.row(at));
            target.iter_mut().zip(features.row(at)).for_each(|(t, v)| *t += scale * f64::from(*v));
            asked.push(at);
        }
    }
    if asked.is_empty() {
        return Err(Error::usage("no word was asked for"));
    }
    let length = target.iter().map(|v| v * v).sum::<f64>().sqrt().max(TINY);
    let score = |at: usize| {
        let values = features.row(at);
        (values.iter().zip(&target).map(|(v, t)| f64::from(*v) * t).sum::<f64>() / norm(values) / length) as f32
    };
    let mut found: Vec<(usize, f32)> =
        (0..features.len()).into_par_iter().filter(|at| !asked.contains(at)).map(|at| (at, score(at))).collect();
    // Ties by row, so that the answer is one.
    let order = |a: &(usize, f32), b: &(usize, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    if count < found.len() {
        found.select_nth_unstable_by(count, order);
        found.truncate(count);
    }
    found.sort_unstable_by(order);
    Ok(found.into_iter().map(|(at, score)| (features.names[at].clone(), score)).collect())
}

// A zero row has no direction; its cosines are 0.
const TINY: f64 = 1e-30;

fn norm(row: &[f32]) -> f64 {
    row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt().max(TINY)
}

fn unknown(features: &Features, name: &str) -> Error {
    let error = Error::new(format!("`{name}` is not in the vocabulary"));
    let like = |other: &String| strsim::jaro_winkler(name, other);
    let near = features.names.par_iter().map(|n| (like(n), n)).filter(|(s, _)| *s > 0.85).max_by(|a, b| a.0.total_cmp(&b.0));
    match near {
        Some((_, near)) => error.hint(format!("did you mean `{near}`?")),
        None => error.hint("words that are rarer than vocabulary.min_count have no vector"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Features {
        let names = ["north", "east", "northeast", "south", "nowhere"].map(str::to_string).to_vec();
        Features { rows: vec![0.0, 2.0, 3.0, 0.0, 1.0, 1.0, 0.0, -1.0, 0.0, 0.0], width: 2, names, ..Features::default() }
    }

    #[test]
    fn the_nearest_come_first_and_length_does_not_matter() {
        let near = neighbors(&some(), &["north"], &[], 2).unwrap();
        assert_eq!(near[0].0, "northeast");
        assert!((near[0].1 - 0.5f32.sqrt()).abs() < 1e-6);
        assert_eq!(near[1], ("east".to_string(), 0.0), "of equal cosines the first row");
        assert_eq!(neighbors(&some(), &["North", "east"], &[], 1).unwrap()[0].0, "northeast");
        assert_eq!(neighbors(&some(), &["northeast"], &["east"], 9).unwrap()[0].0, "north");
        assert_eq!(neighbors(&some(), &["north"], &[], 9).unwrap().len(), 4);
    }

    #[test]
    fn an_unknown_word_is_an_error_with_a_suggestion() {
        let error = neighbors(&some(), &["noth"], &[], 1).unwrap_err().to_string();
        assert!(error.contains("`noth`") && error.contains("did you mean `north`?"), "{error}");
        assert!(neighbors(&some(), &[], &[], 1).is_err());
    }
}
