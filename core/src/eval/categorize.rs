//! Word categorisation: do words of one category lie close together? (AP, BLESS, Battig, ESSLLI; Almuhareb 2006, Baroni and Lenci 2011)
//!
//! The words of a set are clustered into as many clusters as it has categories, by spherical k-means (Dhillon and Modha 2001) with the
//! starting points of k-means++ (Arthur and Vassilvitskii 2007), and the clusters are compared with the categories. The result depends on
//! the starting points. So k-means runs from several, and the tightest clusters are used; that choice does not look at the categories.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use rand::Rng as _;
use rayon::prelude::*;

use super::normalise;
use super::sets;
use super::words::Words;
use crate::error::{Error, Result};
use crate::rng::Key;

/// Runs of k-means from different starting points.
const STARTS: u64 = 20;

/// Iterations of k-means at most; it converges long before.
const PASSES: usize = 100;

/// Words and the categories they belong to. A word of two categories is listed twice.
#[derive(Clone, Debug, PartialEq)]
pub struct Set {
    /// The file's name without its ending.
    pub name: String,
    /// Pairs of category and word.
    pub members: Vec<(String, String)>,
}

/// Results.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Categories {
    /// Fraction of words that belong to the most frequent category of their cluster, 0 to 1.
    pub purity: f64,
    /// Normalised mutual information of clusters and categories, 0 to 1: their mutual information over the mean of their entropies. Purity
    /// alone rises with the number of clusters.
    pub nmi: f64,
    /// Words that have a row.
    pub words: usize,
    /// Words that have none.
    pub missing: usize,
    /// Categories that have words with rows; there are as many clusters.
    pub categories: usize,
}

/// Reads a set, or all sets of a folder and the folders below it, in order of their paths.
///
/// A set has lines of category and word, with a tab or a comma between. A first line that names the columns `category` and `word` says
/// which columns they are; without it there are two columns, the category first. Skipped are empty lines, lines that begin with `#`, lines
/// whose word is missing (as after each of AP's categories), and repeated lines.
///
/// # Errors
/// A file that cannot be read or that has any other line; a folder without `.csv`, `.tsv` or `.txt` files.
pub fn read(path: &Path) -> Result<Vec<Set>> {
    if !path.is_dir() {
        return Ok(vec![read_set(path)?]);
    }
    let files = sets::tables(path)?;
    if files.is_empty() {
        return Err(Error::usage("there is no set in this folder").at(path.display()).hint(FORM));
    }
    files.iter().map(|file| read_set(file)).collect()
}

const FORM: &str = "a set is a .csv, .tsv or .txt file with a line `category,word` for each word";

fn read_set(path: &Path) -> Result<Set> {
    let text = sets::given(path)?;
    let text = text.trim_start_matches('\u{feff}');
    let separator = if text.contains('\t') { '\t' } else { ',' };
    let (mut at, mut columns) = ([0, 1], 2);
    let (mut members, mut seen) = (Vec::new(), HashSet::new());
    for (number, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let fields: Vec<&str> = line.split(separator).map(str::trim).collect();
        let named = |name: &str| fields.iter().position(|field| field.eq_ignore_ascii_case(name));
        if let (true, Some(category), Some(word)) = (members.is_empty(), named("category"), named("word")) {
            (at, columns) = ([category, word], fields.len());
            continue;
        }
        let [category, word] = at.map(|at| fields.get(at).copied().unwrap_or_default());
        if fields.len() != columns || category.is_empty() {
            return Err(Error::new("not a category and a word")
                .at(format!("{}:{}: {line}", path.display(), number + 1))
                .hint(FORM));
        }
        if !word.is_empty() && seen.insert((category, word)) {
            members.push((category.to_string(), word.to_string()));
        }
    }
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Set { name, members })
}

/// Clusters the words of `set` and compares the clusters with its categories. Words are looked up as written, and then lower-cased. `seed`
/// determines the starting points; the number of threads changes nothing.
///
/// # Errors
/// The words with rows belong to fewer than two categories, or a row is not finite.
pub fn categorize(table: &dyn super::Table, set: &Set, seed: u64) -> Result<Categories> {
    let words = Words::find(table, table.len(), set.members.iter().map(|(_, word)| word.as_str()));
    let found: Vec<(&str, usize)> =
        set.members.iter().filter_map(|(category, word)| Some((category.as_str(), words.row(word)?))).collect();
    let numbers: BTreeMap<&str, usize> = found.iter().map(|(category, _)| (*category, 0)).collect();
    let numbers: BTreeMap<&str, usize> = numbers.into_keys().zip(0..).collect();
    let count = numbers.len();
    if count < 2 {
        return Err(Error::new(format!(
            "nothing to tell apart: of {} words {} are among the rows, of {count} categories",
            set.members.len(),
            found.len()
        ))
        .at(&set.name)
        .hint("are the words of the same language, and of the same case, as the vectors'?"));
    }
    let mut points = Points { rows: Vec::with_capacity(found.len() * table.width()), width: table.width() };
    let mut room = Vec::new();
    for (_, row) in &found {
        let row = table.block(*row..*row + 1, &mut room)?;
        if row.iter().any(|v| !v.is_finite()) {
            return Err(Error::new("a row is not finite").at(&set.name).hint("training has diverged: use an earlier checkpoint"));
        }
        points.rows.extend_from_slice(row);
        let from = points.rows.len() - points.width;
        normalise(&mut points.rows[from..], points.width);
    }
    let truth: Vec<usize> = found.iter().map(|(category, _)| numbers[category]).collect();
    let key = Key::new(seed).of("categorize");
    let mut tries: Vec<(f64, Vec<usize>)> = (0..STARTS).into_par_iter().map(|i| points.cluster(count, key.at(i))).collect();
    // Of equal results the first.
    let best = (1..tries.len()).fold(0, |best, i| if tries[i].0 > tries[best].0 { i } else { best });
    let table = Table::new(&tries.swap_remove(best).1, &truth, count);
    Ok(Categories {
        purity: table.purity(),
        nmi: table.nmi(),
        words: found.len(),
        missing: set.members.len() - found.len(),
        categories: count,
    })
}

/// Rows of length 1.
struct Points {
    rows: Vec<f32>,
    width: usize,
}

impl Points {
    fn len(&self) -> usize {
        self.rows.len() / self.width
    }

    fn row(&self, i: usize) -> &[f32] {
        &self.rows[i * self.width..(i + 1) * self.width]
    }

    /// Runs k-means: the sum of the rows' cosines with their clusters' centres, and the cluster of each row.
    fn cluster(&self, count: usize, key: Key) -> (f64, Vec<usize>) {
        let mut centres = self.begin(count, key);
        let mut clusters: Vec<usize> = Vec::new();
        for _ in 0..PASSES {
            let mut near = self.nearest(&centres);
            self.fill_empty(&mut near, count);
            let next: Vec<usize> = near.iter().map(|(cluster, _)| *cluster).collect();
            let settled = next == clusters;
            clusters = next;
            if settled {
                break;
            }
            centres = self.centres(&clusters, count);
        }
        // The sum of a cluster's cosines with its centre is the length of the sum of its rows.
        let score = self.sums(&clusters, count).iter().map(|sum| sum.iter().map(|v| v * v).sum::<f64>().sqrt()).sum();
        (score, clusters)
    }

    /// The rows that are the first centres (k-means++): each is drawn with a probability proportional to its squared distance from the
    /// nearest centre already drawn.
    fn begin(&self, count: usize, key: Key) -> Vec<Vec<f32>> {
        let mut rng = key.rng();
        let mut centres = vec![self.row(rng.random_range(0..self.len())).to_vec()];
        let mut distances = vec![f64::INFINITY; self.len()];
        while centres.len() < count {
            let last = &centres[centres.len() - 1];
            for (i, distance) in distances.iter_mut().enumerate() {
                let of = self.row(i).iter().zip(last).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
                *distance = distance.min(of);
            }
            let mut left = rng.random::<f64>() * distances.iter().sum::<f64>();
            // If every row is a centre already, any row will do.
            let drawn = distances.iter().position(|d| {
                left -= d;
                left < 0.0
            });
            centres.push(self.row(drawn.unwrap_or(centres.len() % self.len())).to_vec());
        }
        centres
    }

    /// Each row's nearest centre, of equal ones the first, and the cosine with it.
    fn nearest(&self, centres: &[Vec<f32>]) -> Vec<(usize, f32)> {
        // Column by column, so that the inner loop runs over centres and no sum waits for the one before.
        let columns: Vec<f32> = (0..self.width).flat_map(|j| centres.iter().map(move |centre| centre[j])).collect();
        let mut cosines = vec![0.0; centres.len()];
        let near = |row: &[f32]| {
            cosines.fill(0.0);
            for (v, column) in row.iter().zip(columns.chunks_exact(centres.len())) {
                cosines.iter_mut().zip(column).for_each(|(sum, c)| *sum += v * c);
            }
            let first = (0, cosines[0]);
            cosines.iter().copied().enumerate().fold(first, |best, this| if this.1 > best.1 { this } else { best })
        };
        self.rows.chunks_exact(self.width).map(near).collect()
    }

    /// A cluster without rows gets the row that is farthest from its centre, from a cluster of several rows.
    fn fill_empty(&self, near: &mut [(usize, f32)], count: usize) {
        let mut sizes = vec![0usize; count];
        near.iter().for_each(|(cluster, _)| sizes[*cluster] += 1);
        for empty in 0..count {
            if sizes[empty] > 0 {
                continue;
            }
            let movable = (0..near.len()).filter(|&i| sizes[near[i].0] > 1);
            let Some(worst) = movable.min_by(|&a, &b| near[a].1.total_cmp(&near[b].1).then(a.cmp(&b))) else { return };
            sizes[near[worst].0] -= 1;
            sizes[empty] += 1;
            near[worst] = (empty, 1.0);
        }
    }

    fn sums(&self, clusters: &[usize], count: usize) -> Vec<Vec<f64>> {
        let mut sums = vec![vec![0.0; self.width]; count];
        for (i, cluster) in clusters.iter().enumerate() {
            sums[*cluster].iter_mut().zip(self.row(i)).for_each(|(sum, v)| *sum += f64::from(*v));
        }
        sums
    }

    fn centres(&self, clusters: &[usize], count: usize) -> Vec<Vec<f32>> {
        let of = |sum: Vec<f64>| {
            let norm = sum.iter().map(|v| v * v).sum::<f64>().sqrt();
            sum.into_iter().map(|v| if norm > 0.0 { (v / norm) as f32 } else { 0.0 }).collect()
        };
        self.sums(clusters, count).into_iter().map(of).collect()
    }
}

/// The number of rows that each pair of cluster and category shares.
struct Table {
    counts: Vec<Vec<usize>>,
    total: f64,
}

impl Table {
    fn new(clusters: &[usize], truth: &[usize], count: usize) -> Table {
        let mut counts = vec![vec![0; count]; count];
        clusters.iter().zip(truth).for_each(|(cluster, category)| counts[*cluster][*category] += 1);
        Table { counts, total: truth.len() as f64 }
    }

    fn purity(&self) -> f64 {
        self.counts.iter().map(|row| row.iter().max().copied().unwrap_or(0)).sum::<usize>() as f64 / self.total
    }

    fn nmi(&self) -> f64 {
        let clusters: Vec<usize> = self.counts.iter().map(|row| row.iter().sum()).collect();
        let categories: Vec<usize> = (0..clusters.len()).map(|c| self.counts.iter().map(|row| row[c]).sum()).collect();
        let entropy = |counts: &[usize]| {
            let shares = counts.iter().filter(|n| **n > 0).map(|n| *n as f64 / self.total);
            -shares.map(|p| p * p.ln()).sum::<f64>()
        };
        let all: Vec<usize> = self.counts.iter().flatten().copied().collect();
        let (a, b) = (entropy(&clusters), entropy(&categories));
        // There are two categories or more, so b is above 0.
        ((a + b - entropy(&all)) / ((a + b) / 2.0)).clamp(0.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::Features;
    use rand_distr::{Distribution, StandardNormal};

    /// `each` words of each of `categories`, around one direction for each category, `noise` away from it.
    fn planted(categories: usize, each: usize, width: usize, noise: f32) -> (Features, Set) {
        let mut draw = StandardNormal.sample_iter(Key::new(9).rng());
        let centres: Vec<f32> = (&mut draw).take(categories * width).collect();
        let (mut features, mut members) = (Features { width, ..Features::default() }, Vec::new());
        for i in 0..categories * each {
            let centre = &centres[i % categories * width..][..width];
            features.rows.extend(centre.iter().map(|c| (c + noise * draw.next().unwrap()) * (1.0 + i as f32)));
            features.names.push(format!("w{i}"));
            members.push((format!("c{}", i % categories), format!("w{i}")));
        }
        (features, Set { name: "planted".into(), members })
    }

    #[test]
    fn planted_categories_are_found_whatever_the_lengths_of_rows() {
        let (features, set) = planted(12, 20, 30, 0.3);
        let found = categorize(&features, &set, 0).unwrap();
        assert_eq!(found, Categories { purity: 1.0, nmi: 1.0, words: 240, missing: 0, categories: 12 });
        // Noise alone: with so many clusters some purity remains, and hardly any mutual information.
        let (noise, set) = planted(12, 20, 30, 1e6);
        let found = categorize(&noise, &set, 0).unwrap();
        assert!(found.purity < 0.4 && found.nmi < 0.4, "{found:?}");
    }

    #[test]
    fn neither_threads_nor_the_names_of_categories_change_the_figures_but_words_can_be_missing() {
        let (features, mut set) = planted(6, 15, 10, 1.2);
        let before = categorize(&features, &set, 3).unwrap();
        assert!(before.purity < 1.0, "too easy to show anything: {before:?}");
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        assert_eq!(pool.install(|| categorize(&features, &set, 3)).unwrap(), before);
        for (category, word) in &mut set.members {
            *category = category.chars().rev().collect();
            *word = word.to_uppercase();
        }
        set.members.push(("another".into(), "unheard".into()));
        let after = categorize(&features, &set, 3).unwrap();
        assert_eq!(after, Categories { missing: 1, ..before });
        set.members.retain(|(category, _)| category == "0c" || category == "another");
        assert!(categorize(&features, &set, 3).unwrap_err().to_string().contains("of 1 categories"));
    }

    #[test]
    fn purity_and_nmi_agree_with_scikit_learn() {
        // normalized_mutual_info_score([0,0,0,1,1,1,2,2,2,2], [0,0,1,1,1,2,2,2,0,2]) = 0.442701283345…; purity 7/10.
        let table = Table::new(&[0, 0, 1, 1, 1, 2, 2, 2, 0, 2], &[0, 0, 0, 1, 1, 1, 2, 2, 2, 2], 3);
        assert!((table.purity() - 0.7).abs() < 1e-12);
        assert!((table.nmi() - NMI).abs() < 1e-9, "{}", table.nmi());
        let same = Table::new(&[1, 1, 0], &[0, 0, 1], 2);
        assert_eq!((same.purity(), same.nmi()), (1.0, 1.0));
        let one = Table::new(&[0, 0, 0, 0], &[0, 0, 1, 1], 2);
        assert_eq!((one.purity(), one.nmi()), (0.5, 0.0));
    }

    const NMI: f64 = 0.442_701_283_345_050_13;

    #[test]
    fn equal_and_zero_rows_do_no_harm() {
        let names = ["a", "b", "c", "d"].map(String::from).to_vec();
        let members = ["1", "1", "2", "3"].iter().zip(&names).map(|(c, w)| (c.to_string(), w.clone())).collect();
        let set = Set { name: "odd".into(), members };
        for rows in [vec![0.0; 8], [1.0, 2.0].repeat(4)] {
            let found = categorize(&Features { rows, width: 2, names: names.clone(), ..Features::default() }, &set, 0).unwrap();
            assert!(found.purity >= 0.5 && (0.0..=1.0).contains(&found.nmi), "{found:?}");
        }
        let rows = vec![f32::NAN; 8];
        assert!(categorize(&Features { rows, width: 2, names, ..Features::default() }, &set, 0).is_err());
    }

    #[test]
    fn files_and_folders_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fruit.csv");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            super::read(&path)
        };
        let member = |category: &str, word: &str| (category.to_string(), word.to_string());
        let expected = vec![member("a fruit", "apple"), member("animal", "cat")];
        for text in [
            ",category,word\n0,a fruit,apple\n1,animal,cat\n2,animal,cat\n",
            "\u{feff}word\tmore\tCategory\r\napple\t1\ta fruit\r\n\r\ncat\t2\tanimal\r\n",
            "# fruit\na fruit,apple\nanimal,cat",
        ] {
            assert_eq!(read(text).unwrap(), [Set { name: "fruit".into(), members: expected.clone() }]);
        }
        assert!(read("category,word\nfruit,apple\nanimal\n").unwrap_err().to_string().contains("fruit.csv:3: animal"));
        assert!(read("category,word\n,apple\n").is_err());
        assert_eq!(read("0,a\n0,\n1,b\n").unwrap()[0].members, [member("0", "a"), member("1", "b")]);
        read("fruit,apple\n").unwrap();
        std::fs::create_dir(folder.path().join("more")).unwrap();
        std::fs::write(folder.path().join("more/a.tsv"), "x\ty\n").unwrap();
        std::fs::write(folder.path().join("README.md"), "no set\n").unwrap();
        let names: Vec<String> = super::read(folder.path()).unwrap().into_iter().map(|set| set.name).collect();
        assert_eq!(names, ["fruit", "a"]);
        std::fs::create_dir(folder.path().join("none")).unwrap();
        let none = super::read(&folder.path().join("none")).unwrap_err();
        assert!(none.exit_code() == 2 && none.to_string().contains("hint: "), "{none}");
        assert_eq!(super::read(&folder.path().join("nowhere")).unwrap_err().exit_code(), 2);
    }
}
