//! What is known of the samples of a batch besides their views.

use crate::data::dataset::Dataset;

/// Classes, scores and contents; rows are in the order of the batch's samples.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Known {
    /// The class of each sample; present if every sample has one.
    pub labels: Option<Vec<u32>>,
    /// How similar the two views of each sample are, as somebody judged; present if every sample has a score.
    pub scores: Option<Vec<f32>>,
    /// For each view a number for each sample: rows of any view that have the same number show the same, so they are no negatives of each
    /// other. Empty if that is not known.
    pub contents: Vec<Vec<u32>>,
}

impl Known {
    /// Only classes.
    pub fn labels(labels: Vec<u32>) -> Known {
        Known { labels: Some(labels), ..Known::default() }
    }

    /// What `data` knows of these samples, which have so many views.
    pub fn of<D: Dataset>(data: &D, samples: &[u32], views: usize) -> Known {
        let each = || samples.iter().map(|&sample| sample as usize);
        let contents = |view: usize| each().map(|at| data.content(at, view)).collect::<Option<Vec<u32>>>();
        Known {
            labels: each().map(|at| data.label(at)).collect(),
            scores: each().map(|at| data.score(at)).collect(),
            contents: (0..views).map(contents).collect::<Option<_>>().unwrap_or_default(),
        }
    }

    /// What is known of the samples of all `parts` of a batch, in order.
    pub fn joined(parts: Vec<Known>) -> Known {
        fn all<T>(parts: &mut [Known], of: impl Fn(&mut Known) -> Option<Vec<T>>) -> Option<Vec<T>> {
            let each: Option<Vec<Vec<T>>> = parts.iter_mut().map(of).collect();
            each.map(|each| each.into_iter().flatten().collect())
        }
        let mut parts = parts;
        let views = parts.iter().map(|part| part.contents.len()).min().unwrap_or_default();
        let contents = (0..views).map(|view| parts.iter().flat_map(|part| part.contents[view].iter().copied()).collect());
        let contents = contents.collect();
        Known { labels: all(&mut parts, |part| part.labels.take()), scores: all(&mut parts, |part| part.scores.take()), contents }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_joined_in_order_and_what_one_lacks_is_unknown() {
        let first = Known { labels: Some(vec![3, 1]), scores: Some(vec![0.5, 1.0]), contents: vec![vec![7, 8], vec![9, 9]] };
        let second = Known { labels: Some(vec![2]), scores: None, contents: vec![vec![5], vec![6]] };
        let both = Known { labels: Some(vec![3, 1, 2]), scores: None, contents: vec![vec![7, 8, 5], vec![9, 9, 6]] };
        assert_eq!(Known::joined(vec![first.clone(), second]), both);
        assert_eq!(Known::joined(vec![first.clone()]), first);
        assert_eq!(Known::joined(vec![first, Known::labels(vec![4])]), Known::labels(vec![3, 1, 4]));
    }
}
