//! Retrieval: does a query find its relevant documents by the cosine? Exact search, and the usual figures (BEIR, Thakur et al. 2021).
//!
//! Of equal cosines the document with the smaller number comes first, so that the result is unique and does not depend on the threads.

use std::collections::{HashMap, HashSet};

use super::Features;
use super::nearest::{Units, nearest};
use crate::error::{Error, Result};

/// The numbers of first documents within which the recall is measured.
pub const CUTOFFS: [usize; 4] = [1, 5, 10, 100];

/// The number of first documents that nDCG@10 and MRR@10 look at.
const FIRST: usize = 10;

/// The relevant documents of a query: a document's number and its gain, above 0. Documents with another gain are not relevant.
pub type Relevant = Vec<(usize, f64)>;

/// What is measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Cuts rows to their first values and normalises them again, as embeddings of Matryoshka models can be.
    pub truncate: Option<usize>,
    /// Whether a query does not find documents of its own name: in some sets (ArguAna, Quora) queries are documents, too.
    pub exclude_same: bool,
}

/// The results: means over the queries that have a relevant document.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Retrieval {
    /// Normalised discounted cumulative gain of the first ten documents, 0 to 1: Σ gain / log₂(rank + 1), ranks from 1, divided by the
    /// largest such sum that all relevant documents of the query allow (Järvelin & Kekäläinen 2002; trec_eval's `ndcg_cut_10`).
    pub ndcg: f64,
    /// Mean reciprocal rank: 1 / rank of the first relevant document, 0 if it is not among the first ten.
    pub mrr: f64,
    /// Share of queries whose first document is relevant (R@1 of papers on captions and questions).
    pub first: f64,
    /// Share of a query's relevant documents among the first 1, 5, 10 and 100 ([`CUTOFFS`]).
    pub recall: [f64; 4],
    /// Queries that were measured.
    pub queries: usize,
    /// Queries without a relevant document, which were left out.
    pub unjudged_queries: usize,
    /// Documents that were searched.
    pub documents: usize,
    /// Documents that are relevant for no query.
    pub unjudged_documents: usize,
    /// Relevant documents, over all queries, that are not among the documents. They cannot be found, and count as not found.
    pub missing: usize,
    /// Queries that would have found themselves, with [`Options::exclude_same`].
    pub excluded: usize,
}

/// Searches the documents nearest to each query by cosine, and compares them with the relevant ones.
///
/// `relevance` has a list for each query. A number beyond the last document stands for a relevant document that is not there. Besides
/// normalised copies of both tables, memory holds a hundred documents for each query.
///
/// # Errors
/// Rows of different widths, fewer values than are kept, or values that are not finite; another number of lists than of queries, a document
/// twice in a list, a gain that is not finite; no document, or no query with a relevant one.
pub fn retrieval(queries: &Features, documents: &Features, relevance: &[Relevant], options: &Options) -> Result<Retrieval> {
    if documents.is_empty() {
        return Err(Error::new("there is no document to be found"));
    }
    if queries.width != documents.width {
        let what = format!("queries of {} values cannot be compared with documents of {}", queries.width, documents.width);
        return Err(Error::new(what).hint("are both embedded by the same model?"));
    }
    let relevant = positive(queries, relevance)?;
    // Only these are searched for.
    let judged: Vec<usize> = (0..queries.len()).filter(|&query| !relevant[query].is_empty()).collect();
    if judged.is_empty() {
        return Err(Error::new(format!(
            "none of {} queries has a relevant document, so there is nothing to measure",
            queries.len()
        )));
    }
    let same = if options.exclude_same { same(queries, documents) } else { vec![Vec::new(); queries.len()] };
    let found = search(queries, documents, &judged, &same, options)?;
    let mut sum = Figures::default();
    for (&query, found) in judged.iter().zip(&found) {
        sum = sum.plus(&Figures::of(found, &relevant[query]));
    }
    let mean = |sum: f64| sum / judged.len() as f64;
    let (here, missing): (Vec<usize>, Vec<usize>) =
        relevant.iter().flat_map(|list| list.keys().copied()).partition(|&document| document < documents.len());
    let some: HashSet<usize> = here.into_iter().collect();
    Ok(Retrieval {
        ndcg: mean(sum.ndcg),
        mrr: mean(sum.mrr),
        first: mean(sum.first),
        recall: sum.recall.map(mean),
        queries: judged.len(),
        unjudged_queries: queries.len() - judged.len(),
        documents: documents.len(),
        unjudged_documents: documents.len() - some.len(),
        missing: missing.len(),
        excluded: same.iter().filter(|own| !own.is_empty()).count(),
    })
}

/// The relevant documents of each query, with gains above 0.
fn positive(queries: &Features, relevance: &[Relevant]) -> Result<Vec<HashMap<usize, f64>>> {
    if relevance.len() != queries.len() {
        return Err(Error::new(format!("{} lists of relevant documents for {} queries", relevance.len(), queries.len())));
    }
    let one = |(list, name): (&Relevant, &String)| {
        let mut gains = HashMap::with_capacity(list.len());
        for &(document, gain) in list {
            if !gain.is_finite() {
                return Err(Error::new(format!("the gain of document {document} is {gain}, not a finite number")).at(name));
            }
            if gains.insert(document, gain).is_some() {
                return Err(Error::new(format!("document {document} is judged twice for one query")).at(name));
            }
        }
        gains.retain(|_, gain| *gain > 0.0);
        Ok(gains)
    };
    relevance.iter().zip(&queries.names).map(one).collect()
}

/// For each query the numbers of the documents that have its name.
fn same(queries: &Features, documents: &Features) -> Vec<Vec<usize>> {
    let mut numbers: HashMap<&str, Vec<usize>> = HashMap::new();
    documents.names.iter().enumerate().for_each(|(number, name)| numbers.entry(name).or_default().push(number));
    queries.names.iter().map(|name| numbers.get(name.as_str()).cloned().unwrap_or_default()).collect()
}

/// The first documents of the queries `judged`, nearest first.
fn search(
    queries: &Features,
    documents: &Features,
    judged: &[usize],
    same: &[Vec<usize>],
    options: &Options,
) -> Result<Vec<Vec<usize>>> {
    let count = CUTOFFS[CUTOFFS.len() - 1];
    let (queries, documents) = (Units::of(queries, options.truncate)?, Units::of(documents, options.truncate)?);
    let found = nearest(&queries, &documents, judged, same, count)?;
    Ok(found.into_iter().map(|near| near.into_iter().map(|near| near.row).collect()).collect())
}

/// The figures of one query, or their sums.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Figures {
    ndcg: f64,
    mrr: f64,
    first: f64,
    recall: [f64; 4],
}

impl Figures {
    /// Of a query whose first documents are `found`, nearest first, and whose relevant documents have these gains, one at least.
    fn of(found: &[usize], gains: &HashMap<usize, f64>) -> Figures {
        let discounted = |gains: &mut dyn Iterator<Item = f64>| {
            gains.take(FIRST).enumerate().map(|(at, gain)| gain / (at as f64 + 2.0).log2()).sum::<f64>()
        };
        let mut ideal: Vec<f64> = gains.values().copied().collect();
        ideal.sort_by(|a, b| b.total_cmp(a));
        let gain = |document: &usize| gains.get(document).copied().unwrap_or(0.0);
        let first = found.iter().take(FIRST).position(|document| gains.contains_key(document));
        let share = |cutoff: usize| {
            found.iter().take(cutoff).filter(|document| gains.contains_key(document)).count() as f64 / gains.len() as f64
        };
        Figures {
            ndcg: discounted(&mut found.iter().map(gain)) / discounted(&mut ideal.into_iter()),
            mrr: first.map_or(0.0, |at| 1.0 / (at as f64 + 1.0)),
            first: f64::from(first == Some(0)),
            recall: CUTOFFS.map(share),
        }
    }

    fn plus(mut self, more: &Figures) -> Figures {
        self.recall.iter_mut().zip(more.recall).for_each(|(sum, more)| *sum += more);
        Figures { ndcg: self.ndcg + more.ndcg, mrr: self.mrr + more.mrr, first: self.first + more.first, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::with_threads;
    use crate::rng::Key;
    use rand_distr::{Distribution, StandardNormal};

    fn features(rows: Vec<f32>, width: usize, name: &str) -> Features {
        let names = (0..rows.len() / width).map(|i| format!("{name}{i}")).collect();
        Features { rows, width, names, ..Features::default() }
    }

    /// A query and `count` documents, of which the first is the nearest, and so on.
    fn in_order(count: usize) -> (Features, Features) {
        let document = |i: usize| [(0.01 * i as f32).cos(), (0.01 * i as f32).sin()];
        (features(vec![2.0, 0.0], 2, "q"), features((0..count).flat_map(document).collect(), 2, "d"))
    }

    fn measure(count: usize, relevant: &[(usize, f64)]) -> Retrieval {
        let (query, documents) = in_order(count);
        retrieval(&query, &documents, &[relevant.to_vec()], &Options::default()).unwrap()
    }

    #[test]
    fn a_ranking_has_the_golden_figures() {
        // d3 d1 d7 d2 d9 d4 in this order; d1, d2 and d8 are relevant, and d8 is not there.
        let found = measure(6, &[(1, 1.0), (3, 1.0), (99, 1.0)]);
        assert!((found.ndcg - 0.498_189_257_5).abs() < 1e-10, "{found:?}");
        assert_eq!((found.mrr, found.first, found.missing, found.unjudged_documents), (0.5, 0.0, 1, 4));
        assert_eq!(found.recall, [0.0, 2.0 / 3.0, 2.0 / 3.0, 2.0 / 3.0]);
        // Graded: d1 3, d2 1, d3 2; a gain of 0 is a document that is not relevant.
        let graded = measure(6, &[(1, 3.0), (3, 1.0), (0, 2.0), (2, 0.0)]);
        assert!((graded.ndcg - 0.907_936_450_5).abs() < 1e-10, "{graded:?}");
        assert_eq!((graded.first, graded.recall), (1.0, [1.0 / 3.0, 1.0, 1.0, 1.0]));
        // Ranks from 1: rank 10 counts for MRR@10, rank 11 does not.
        assert_eq!((measure(200, &[(9, 1.0)]).mrr, measure(200, &[(10, 1.0)]).mrr), (0.1, 0.0));
        assert_eq!((measure(200, &[(99, 1.0)]).recall, measure(200, &[(100, 1.0)]).recall), ([0.0, 0.0, 0.0, 1.0], [0.0; 4]));
        // The ideal is cut at ten: ten of eleven relevant documents first are all that can be.
        let many: Vec<(usize, f64)> = (0..11).map(|i| (i, 1.0)).collect();
        let many = measure(200, &many);
        assert!((many.ndcg - 1.0).abs() < 1e-15 && (many.recall[2] - 10.0 / 11.0).abs() < 1e-15);
    }

    #[test]
    fn images_and_their_captions_have_the_golden_recalls() {
        // s[i, j] = sin(3i + 5j + 1), and .5 more where caption j belongs to image i = j // 3. Rows that are made equally long by a value
        // of their own have these products.
        let score = |i: usize, j: usize| (3.0 * i as f64 + 5.0 * j as f64 + 1.0).sin() + if j / 3 == i { 0.5 } else { 0.0 };
        let caption = |j: usize| {
            let scores: Vec<f64> = (0..4).map(|i| score(i, j)).collect();
            let rest = (12.0 - scores.iter().map(|s| s * s).sum::<f64>()).sqrt();
            scores.into_iter().chain([rest]).map(|s| s as f32).collect::<Vec<f32>>()
        };
        let captions = features((0..12).flat_map(caption).collect(), 5, "caption");
        let images = features((0..20).map(|at| f32::from(u8::from(at % 5 == at / 5))).collect(), 5, "image");
        let relevance: Vec<Relevant> = (0..4).map(|i| (3 * i..3 * i + 3).map(|j| (j, 1.0)).collect()).collect();
        let found = retrieval(&images, &captions, &relevance, &Options::default()).unwrap();
        // Ranks of the best caption: 0 2 3 0.
        assert_eq!(found.first, 0.5);
        assert!((found.mrr - (1.0 + 1.0 / 3.0 + 0.25 + 1.0) / 4.0).abs() < 1e-15);
        assert!((found.recall[1] - 1.0 / 3.0).abs() < 1e-15, "MTEB's recall_at_5: {:?}", found.recall);
    }

    #[test]
    fn search_is_brute_force_on_any_number_of_threads() {
        let normal = |seed, count: usize| StandardNormal.sample_iter(Key::new(seed).rng()).take(count).collect::<Vec<f32>>();
        let (width, count) = (37, 700);
        let mut documents = features(normal(1, count * width), width, "d");
        // Equal documents in different blocks; a zero row.
        documents.rows.copy_within(5 * width..6 * width, 600 * width);
        documents.rows[9 * width..10 * width].fill(0.0);
        let mut queries = features(normal(2, 150 * width), width, "q");
        queries.rows[..width].copy_from_slice(&documents.rows[5 * width..6 * width]);
        let relevance: Vec<Relevant> =
            (0..150).map(|q| (0..q % 4).map(|n| ((q * 31 + n * 97) % count, 1.0 + n as f64)).collect()).collect();
        for truncate in [None, Some(11)] {
            let options = Options { truncate, ..Options::default() };
            let kept = truncate.unwrap_or(width);
            let cosine = |q: usize, d: usize| {
                let (a, b) = (&queries.row(q)[..kept], &documents.row(d)[..kept]);
                let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
                dot(a, b) / (dot(a, a) * dot(b, b)).sqrt().max(1e-30)
            };
            let mut sum = Figures::default();
            let mut judged = 0;
            for (q, relevant) in relevance.iter().enumerate().filter(|(_, relevant)| !relevant.is_empty()) {
                let mut all: Vec<(f64, usize)> = (0..count).map(|d| (cosine(q, d), d)).collect();
                all.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
                let order: Vec<usize> = all.into_iter().map(|(_, d)| d).collect();
                sum = sum.plus(&Figures::of(&order, &relevant.iter().copied().collect()));
                judged += 1;
            }
            let found = retrieval(&queries, &documents, &relevance, &options).unwrap();
            assert_eq!((found.queries, found.unjudged_queries), (judged, 150 - judged));
            let expected = [sum.ndcg, sum.mrr, sum.first].into_iter().chain(sum.recall).map(|sum| sum / judged as f64);
            let figures = [found.ndcg, found.mrr, found.first].into_iter().chain(found.recall);
            for (found, expected) in figures.zip(expected) {
                assert!((found - expected).abs() < 1e-12, "{truncate:?}: {found} {expected}");
            }
            for threads in [1, 3] {
                assert_eq!(
                    with_threads(threads, || retrieval(&queries, &documents, &relevance, &options)).unwrap().unwrap(),
                    found
                );
            }
        }
        // Of equal documents the first comes first.
        let first = search(&queries, &documents, &[0], &vec![Vec::new(); 150], &Options::default()).unwrap();
        assert_eq!(first[0][..2], [5, 600]);
    }

    #[test]
    fn a_query_that_is_a_document_does_not_find_itself_when_asked() {
        let documents = features(vec![1.0, 0.0, 0.9, 0.1, 0.0, 1.0], 2, "d");
        let mut queries = documents.select(&[0, 2]);
        queries.names[1] = "other".to_string();
        let relevance = [vec![(1, 1.0)], vec![(1, 1.0)]];
        let of = |exclude_same| {
            let options = Options { exclude_same, ..Options::default() };
            retrieval(&queries, &documents, &relevance, &options).unwrap()
        };
        assert_eq!((of(false).mrr, of(false).excluded), (0.5, 0));
        assert_eq!((of(true).mrr, of(true).excluded, of(true).first), (0.75, 1, 0.5));
    }

    #[test]
    fn what_cannot_be_measured_is_an_error() {
        let (query, documents) = in_order(5);
        let said = |query: &Features, documents: &Features, relevance: &[Relevant], truncate| {
            let options = Options { truncate, ..Options::default() };
            retrieval(query, documents, relevance, &options).unwrap_err().to_string()
        };
        let one = [vec![(0, 1.0)]];
        assert!(said(&query, &Features::default(), &one, None).contains("no document"));
        assert!(said(&features(vec![1.0; 3], 3, "q"), &documents, &one, None).contains("3 values"));
        assert!(said(&query, &documents, &[], None).contains("0 lists"));
        assert!(said(&query, &documents, &[vec![(0, 1.0), (0, 2.0)]], None).contains("twice"));
        assert!(said(&query, &documents, &[vec![(0, f64::NAN)]], None).contains("NaN"));
        assert!(said(&query, &documents, &[vec![(0, 0.0), (1, -1.0)]], None).contains("none of 1 queries"));
        assert!(said(&query, &documents, &one, Some(3)).contains("give 1 to 2"));
        let mut broken = documents.clone();
        broken.rows[3] = f32::NAN;
        assert!(said(&query, &broken, &one, None).contains("d1"));
    }
}
