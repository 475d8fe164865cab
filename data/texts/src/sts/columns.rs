//! Recognises the columns of a table of scored pairs: by the names in its first line, or by that line's content.

/// Common names, in lower case and without spaces, `_` and `-`; the surest first.
const LEFT: [&str; 6] = ["sentence1", "sentencea", "s1", "sent1", "text1", "texta"];
const RIGHT: [&str; 6] = ["sentence2", "sentenceb", "s2", "sent2", "text2", "textb"];
const SCORE: [&str; 9] =
    ["score", "similarityscore", "similarity", "relatednessscore", "relatedness", "goldscore", "gold", "rating", "label"];
const SET: [&str; 4] = ["set", "subset", "source", "dataset"];
const SPLIT: [&str; 3] = ["split", "part", "semevalset"];
const YEAR: &str = "year";
/// A column that only STS-B has.
const GENRE: &str = "genre";

/// The columns that are used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Columns {
    /// Whether the first line names them.
    pub named: bool,
    /// The sentences and the score.
    pub left: usize,
    pub right: usize,
    pub score: usize,
    /// What divides the file into sets.
    pub set: Option<usize>,
    pub year: Option<usize>,
    pub split: Option<usize>,
    /// The number of columns of the first line.
    pub count: usize,
    /// What was guessed.
    pub note: Option<String>,
}

impl Columns {
    /// The columns of a table whose first line has these fields; none if it is no table of scored pairs.
    pub fn of(first: &[&str]) -> Option<Columns> {
        named(first).or_else(|| stsb(first)).or_else(|| three(first))
    }
}

fn named(first: &[&str]) -> Option<Columns> {
    let plain = |name: &&str| name.trim().trim_matches('"').to_lowercase().replace(['_', '-', ' '], "");
    let names: Vec<String> = first.iter().map(plain).collect();
    let at = |known: &[&str]| known.iter().find_map(|known| names.iter().position(|name| name == known));
    let (left, right, score) = (at(&LEFT)?, at(&RIGHT)?, at(&SCORE)?);
    let of_stsb = at(&[GENRE]).is_some();
    let divides = |known: &[&str]| if of_stsb { None } else { at(known) };
    let (set, year, split) = (divides(&SET), divides(&[YEAR]), divides(&SPLIT));
    let called = |column: usize| format!("`{}`", first[column].trim());
    let mut said = Vec::new();
    if [LEFT[0], RIGHT[0], SCORE[0]] != [left, right, score].map(|column| names[column].as_str()) {
        said.push(format!("the sentences are {} and {}, the score is {}", called(left), called(right), called(score)));
    }
    let dividing: Vec<String> = [year, set, split].into_iter().flatten().map(called).collect();
    if !dividing.is_empty() {
        said.push(format!("sets are told apart by {}", dividing.join(", ")));
    }
    if of_stsb {
        said.push("the genres of STS-B are one set".to_string());
    }
    let note = (!said.is_empty()).then(|| said.join("; "));
    Some(Columns { named: true, left, right, score, set, year, split, count: first.len(), note })
}

/// STS-B without names: genre, file, year, number, score, two sentences, and sometimes where they come from.
fn stsb(first: &[&str]) -> Option<Columns> {
    let year = first.get(2)?.trim().get(..4)?;
    let fits = first.len() >= 7 && year.starts_with("20") && year.bytes().all(|b| b.is_ascii_digit()) && number(first[4]);
    let note = "the columns are STS-B's: genre, file, year, number, score, two sentences; the genres are one set".to_string();
    fits.then(|| Columns { score: 4, left: 5, right: 6, count: 7, ..unnamed(note) })
}

/// Two sentences and a score, without names.
fn three(first: &[&str]) -> Option<Columns> {
    let note = |place: &str| format!("the columns have no names: the score is the {place}, the sentences are the others");
    match first {
        [_, _, score] if number(score) => Some(Columns { left: 0, right: 1, score: 2, count: 3, ..unnamed(note("last")) }),
        [score, _, _] if number(score) => Some(Columns { score: 0, left: 1, right: 2, count: 3, ..unnamed(note("first")) }),
        _ => None,
    }
}

fn unnamed(note: String) -> Columns {
    Columns { named: false, left: 0, right: 0, score: 0, set: None, year: None, split: None, count: 0, note: Some(note) }
}

fn number(field: &str) -> bool {
    field.trim().parse::<f64>().is_ok_and(f64::is_finite)
}
