//! What hard negatives are mined from: different anchors, the texts that they are compared with, and which of these belong to them.

use std::collections::{HashMap, HashSet};

use ctk_core::{Error, Result};

use super::{Kind, Pairs};

/// Anchors, documents, and what is known of both. Texts are numbered in the order in which they are met.
#[derive(Debug, PartialEq)]
pub struct Mining {
    /// The different anchors.
    pub anchors: Vec<String>,
    /// The different texts that negatives are taken from, and behind them positives that are not among these.
    pub documents: Vec<String>,
    /// Number of the documents that may become negatives, the first ones.
    pub candidates: usize,
    /// For each anchor the numbers of its positives among the documents.
    pub positives: Vec<Vec<usize>>,
    /// For each anchor the numbers of the documents that are no negatives of it: its own text, and every text that stands beside it in a
    /// pair, on either side.
    pub without: Vec<Vec<usize>>,
    /// The different pairs in the order of the data: numbers of an anchor and of a document.
    pub pairs: Vec<(usize, usize)>,
    /// What is left out, to be said.
    pub notes: Vec<String>,
}

/// Numbers different texts.
#[derive(Default)]
struct Numbers<'a> {
    of: HashMap<&'a str, usize>,
    texts: Vec<&'a str>,
}

impl<'a> Numbers<'a> {
    fn number(&mut self, text: &'a str) -> usize {
        *self.of.entry(text).or_insert_with(|| {
            self.texts.push(text);
            self.texts.len() - 1
        })
    }

    fn owned(&self) -> Vec<String> {
        self.texts.iter().map(ToString::to_string).collect()
    }
}

impl Mining {
    /// Of `pairs` or triplets. The candidates are the texts of `corpus`, or else all positives.
    ///
    /// # Errors
    /// Samples of another kind.
    pub fn of(pairs: &Pairs, corpus: Option<&Pairs>) -> Result<Mining> {
        let mut notes = Vec::new();
        match pairs.kind() {
            Kind::Pairs => {}
            Kind::Triplets => notes.push("the negatives that the data has are not used".to_string()),
            kind => {
                return Err(Error::usage(format!("negatives are mined for pairs, and the data has {}", kind.word()))
                    .hint("give a file of anchors and positives; --anchor and --positive name its columns"));
            }
        }
        let (mut anchors, mut documents) = (Numbers::default(), Numbers::default());
        if let Some(corpus) = corpus {
            for text in corpus.all_texts() {
                documents.number(text);
            }
        }
        let given = documents.texts.len();
        let mut seen = HashSet::new();
        let mut beside: HashMap<&str, Vec<&str>> = HashMap::new();
        let mut list = Vec::new();
        for sample in 0..pairs.samples() {
            let (anchor, positive) = (pairs.text(sample, 0), pairs.text(sample, 1));
            let pair = (anchors.number(anchor), documents.number(positive));
            if seen.insert(pair) {
                list.push(pair);
                beside.entry(anchor).or_default().push(positive);
                beside.entry(positive).or_default().push(anchor);
            }
        }
        if list.len() < pairs.samples() {
            notes.push(format!(
                "{} of {} pairs repeat another one, and are used once",
                pairs.samples() - list.len(),
                pairs.samples()
            ));
        }
        let mut positives = vec![Vec::new(); anchors.texts.len()];
        list.iter().for_each(|(anchor, positive)| positives[*anchor].push(*positive));
        let without = anchors.texts.iter().map(|anchor| {
            let mut own: Vec<usize> =
                beside[anchor].iter().chain([anchor]).filter_map(|text| documents.of.get(text).copied()).collect();
            own.sort_unstable();
            own.dedup();
            own
        });
        let candidates = if corpus.is_some() { given } else { documents.texts.len() };
        Ok(Mining {
            without: without.collect(),
            anchors: anchors.owned(),
            documents: documents.owned(),
            candidates,
            positives,
            pairs: list,
            notes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pairs::recipe::SentencesDataRecipe;
    use crate::recipe::Paths;

    fn open(folder: &tempfile::TempDir, name: &str, content: &str) -> Pairs {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        let path = Some(Paths::One(path.display().to_string()));
        SentencesDataRecipe { path, ..SentencesDataRecipe::default() }.open_any().unwrap().train
    }

    #[test]
    fn texts_of_known_pairs_are_no_candidates_of_each_other() {
        let folder = tempfile::tempdir().unwrap();
        // b is an anchor and a positive; a has two positives; one pair stands twice.
        let pairs = open(&folder, "a.tsv", "anchor\tpositive\na\tx\nb\ty\na\tb\na\tx\nc\tc\n");
        let found = Mining::of(&pairs, None).unwrap();
        assert_eq!(
            (&found.anchors[..], &found.documents[..]),
            (&["a", "b", "c"].map(String::from)[..], &["x", "y", "b", "c"].map(String::from)[..])
        );
        assert_eq!(found.candidates, 4);
        assert_eq!(found.positives, [vec![0, 2], vec![1], vec![3]]);
        // b is not its own negative; a is a known partner of b, and no document.
        assert_eq!(found.without, [vec![0, 2], vec![1, 2], vec![3]]);
        assert_eq!(found.pairs, [(0, 0), (1, 1), (0, 2), (2, 3)]);
        assert!(found.notes.len() == 1 && found.notes[0].contains("1 of 5 pairs"), "{:?}", found.notes);

        let corpus = open(&folder, "corpus.txt", "y\na\nz\nz\n");
        let found = Mining::of(&pairs, Some(&corpus)).unwrap();
        assert_eq!((found.documents.join(" "), found.candidates), ("y a z x b c".to_string(), 3));
        assert_eq!(found.positives, [vec![3, 4], vec![0], vec![5]]);
        assert_eq!(found.without, [vec![1, 3, 4], vec![0, 1, 4], vec![5]]);

        let triplets = open(&folder, "b.tsv", "anchor\tpositive\tnegative\na\tx\tn\n");
        assert!(Mining::of(&triplets, None).unwrap().notes[0].contains("not used"));
        let error = Mining::of(&corpus, None).unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains("the data has texts"), "{error}");
    }
}
