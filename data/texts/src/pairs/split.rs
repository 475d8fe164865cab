//! Holds out a share of the samples, so that no text is on both sides.
//!
//! Samples that have a text in common, directly or through others, are one group and stay together. The groups are taken in an order that
//! depends on their texts alone, so the order of the rows does not matter.

use ctk_core::rng::Key;
use ctk_core::{Error, Result};
use rand::RngCore;

use super::arena::Arena;

/// Which samples are held out, and the number of samples of the largest group. `cells` are the text numbers of all samples, `columns` of
/// them each.
///
/// # Errors
/// No group is small enough for the share, or none is left.
pub(super) fn held_out(texts: &Arena, cells: &[u32], columns: usize, share: f64) -> Result<(Vec<bool>, usize)> {
    let mut parents: Vec<u32> = (0..texts.len() as u32).collect();
    for row in cells.chunks_exact(columns) {
        for other in &row[1..] {
            let (a, b) = (root(&mut parents, row[0]), root(&mut parents, *other));
            parents[a.max(b) as usize] = a.min(b);
        }
    }
    let samples = cells.len() / columns;
    let roots: Vec<u32> = (0..samples).map(|sample| root(&mut parents, cells[sample * columns])).collect();
    // A group is named by the first of its texts in the order of bytes.
    let (mut sizes, mut first) = (vec![0usize; texts.len()], vec![u32::MAX; texts.len()]);
    for (row, root) in cells.chunks_exact(columns).zip(&roots) {
        sizes[*root as usize] += 1;
        let first = &mut first[*root as usize];
        for &text in row {
            if *first == u32::MAX || texts.text(text) < texts.text(*first) {
                *first = text;
            }
        }
    }
    let key = Key::new(0).of("held-out sentences");
    let mut groups: Vec<(u64, u32, u32)> = (0..texts.len() as u32)
        .filter(|root| sizes[*root as usize] > 0)
        .map(|root| (key.of(texts.text(first[root as usize])).rng().next_u64(), first[root as usize], root))
        .collect();
    groups.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| texts.text(a.1).cmp(texts.text(b.1))));
    let wanted = ((share * samples as f64).round() as usize).max(1);
    let mut taken = 0;
    let mut out = vec![false; texts.len()];
    for (.., root) in groups {
        let size = sizes[root as usize];
        if taken + size <= wanted && taken + size < samples {
            taken += size;
            out[root as usize] = true;
        }
    }
    if taken == 0 {
        return Err(Error::usage(format!("{wanted} of {samples} samples are to be held out, and none can be"))
            .hint("samples that share a text stay together: give data.dev, a file of its own, or a larger data.dev_share"));
    }
    let largest = sizes.iter().copied().max().unwrap_or_default();
    Ok((roots.iter().map(|root| out[*root as usize]).collect(), largest))
}

/// The smallest member of a group; ways to it are shortened.
fn root(parents: &mut [u32], of: u32) -> u32 {
    let mut at = of;
    while parents[at as usize] != at {
        parents[at as usize] = parents[parents[at as usize] as usize];
        at = parents[at as usize];
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(rows: &[[&str; 2]], share: f64) -> Result<Vec<bool>> {
        let mut texts = Arena::default();
        let cells: Vec<u32> = rows.iter().flatten().map(|text| texts.number(text).unwrap()).collect();
        held_out(&texts, &cells, 2, share).map(|(out, _)| out)
    }

    #[test]
    fn samples_with_a_common_text_stay_together_whatever_the_order() {
        let names: Vec<[String; 2]> =
            (0..400).map(|i| [format!("a{}", i % 150), format!("b{}", if i < 300 { i } else { i / 2 })]).collect();
        let mut rows: Vec<[&str; 2]> = names.iter().map(|[a, b]| [a.as_str(), b.as_str()]).collect();
        let out = split(&rows, 0.2).unwrap();
        let count = out.iter().filter(|out| **out).count();
        assert!((60..=80).contains(&count), "{count} of 400");
        for (i, a) in rows.iter().enumerate() {
            for (j, b) in rows.iter().enumerate() {
                assert!(out[i] == out[j] || !a.iter().any(|text| b.contains(text)), "{a:?} and {b:?}");
            }
        }
        let mut held: Vec<[&str; 2]> = rows.iter().zip(&out).filter(|(_, out)| **out).map(|(row, _)| *row).collect();
        rows.reverse();
        let again = split(&rows, 0.2).unwrap();
        let mut other: Vec<[&str; 2]> = rows.iter().zip(&again).filter(|(_, out)| **out).map(|(row, _)| *row).collect();
        held.sort_unstable();
        other.sort_unstable();
        assert_eq!(held, other);
    }

    #[test]
    fn one_group_cannot_be_divided() {
        let error = split(&[["a", "b"], ["b", "c"], ["c", "a"]], 0.4).unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains("data.dev"), "{error}");
        assert_eq!(split(&[["a", "b"], ["c", "d"], ["a", "e"]], 0.4).unwrap(), [false, true, false]);
    }
}
