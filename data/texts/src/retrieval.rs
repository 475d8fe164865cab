//! Queries, documents and which documents are relevant for a query: BEIR's folders, and folders of passages with questions.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use ctk_core::error::short;
use ctk_core::{Context, Error, Result};
use serde::Deserialize;

use crate::cells::tabbed;
use crate::corpus::Invalid;
use crate::files::{Encoding, Whole, shown, whole};

/// What a folder may hold.
const FORM: &str = "a folder has `corpus.jsonl`, `queries.jsonl` and `qrels/test.tsv` (BEIR's layout), or `passages.tsv` (number, text) and \
                    `questions.tsv` (number of its passage, question)";

/// Endings of compressed files.
const PACKED: [&str; 5] = ["", ".gz", ".zst", ".bz2", ".xz"];

/// The part whose judgements are read if none is named.
const TEST: &str = "test";

/// Queries and documents.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Collection {
    /// A name for each query: its id, or the file's line.
    pub query_ids: Vec<String>,
    /// The queries.
    pub queries: Vec<String>,
    /// The id of each document.
    pub document_ids: Vec<String>,
    /// The documents; BEIR's titles stand before their texts, with a space between.
    pub documents: Vec<String>,
    /// For each query the judged documents and their gains. Documents that are judged and not there have numbers from the number of documents
    /// on.
    pub relevance: Vec<Vec<(usize, f64)>>,
    /// The part of the judgements that was read, if there are several.
    pub split: Option<String>,
    /// Notes about the reading: what was guessed, and what does not fit together.
    pub notes: Vec<String>,
}

/// How files are read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'a> {
    /// The part of the judgements: the name of a file in BEIR's `qrels`. None: `test`, or the only one there is.
    pub split: Option<&'a str>,
    /// The encoding of all files.
    pub encoding: Encoding,
    /// What happens to bytes that are not characters.
    pub invalid: Invalid,
}

impl Collection {
    /// Reads a folder; its files may be compressed.
    ///
    /// BEIR's layout: lines of JSON with `_id`, `title` and `text` in `corpus.jsonl`, with `_id` and `text` in `queries.jsonl`, and lines of
    /// query, document and gain under a header in `qrels/<split>.tsv`. Queries that the split does not judge are left out and counted.
    ///
    /// The other layout: lines of number and text in `passages.tsv`, and of the number of the only relevant passage, a question and
    /// whatever else in `questions.tsv`, without headers.
    ///
    /// # Errors
    /// A folder of another kind, a split that is not there, a file that cannot be read; with [`Invalid::Refuse`], bytes that are not
    /// characters; a line of another form; an id that stands twice; no query with a judgement.
    pub fn read(folder: &Path, options: &Options) -> Result<Collection> {
        if !folder.is_dir() {
            return Err(Error::usage("queries and documents are read from a folder").at(folder.display()).hint(FORM));
        }
        match (packed(folder, "corpus.jsonl"), packed(folder, "passages.tsv")) {
            (Some(corpus), _) => beir(folder, &corpus, options),
            (None, Some(passages)) => questions(folder, &passages, options),
            (None, None) => {
                Err(Error::usage("this folder has neither `corpus.jsonl` nor `passages.tsv`").at(folder.display()).hint(FORM))
            }
        }
    }

    /// Counts documents without a text, which stay.
    fn empties(&mut self) {
        let count = self.documents.iter().filter(|text| text.trim().is_empty()).count();
        if count > 0 {
            self.notes.push(format!("{count} of {} documents are empty", self.documents.len()));
        }
    }
}

/// The file of this name in a folder, compressed or not.
fn packed(folder: &Path, name: &str) -> Option<PathBuf> {
    PACKED.iter().map(|ending| folder.join(format!("{name}{ending}"))).find(|path| path.is_file())
}

fn needed(folder: &Path, name: &str) -> Result<PathBuf> {
    packed(folder, name).ok_or_else(|| Error::usage(format!("this folder has no `{name}`")).at(folder.display()).hint(FORM))
}

/// The text of a file; notes are added to `notes`.
fn text(path: &Path, options: &Options, notes: &mut Vec<String>) -> Result<String> {
    let Whole { text, notes: more } = whole(path, options.encoding, options.invalid)?;
    notes.extend(more);
    Ok(text)
}

/// The number of each id.
fn numbers(ids: &[String], path: &Path) -> Result<HashMap<String, usize>> {
    let mut numbers = HashMap::with_capacity(ids.len());
    for (number, id) in ids.iter().enumerate() {
        if numbers.insert(id.clone(), number).is_some() {
            return Err(Error::new(format!("the id `{}` stands twice", short(id, 80))).at(shown(path)));
        }
    }
    Ok(numbers)
}

/// Judged documents that are not there; each has a number of its own.
struct Missing {
    first: usize,
    numbers: HashMap<String, usize>,
    judgements: usize,
}

impl Missing {
    fn new(documents: usize) -> Missing {
        Missing { first: documents, numbers: HashMap::new(), judgements: 0 }
    }

    fn number(&mut self, id: &str) -> usize {
        self.judgements += 1;
        let next = self.first + self.numbers.len();
        *self.numbers.entry(id.to_string()).or_insert(next)
    }

    fn note(&self) -> Option<String> {
        let some = self.numbers.keys().min()?;
        Some(format!(
            "{} judgements are of {} documents that are not there, as of `{}`: these count as not found",
            self.judgements,
            self.numbers.len(),
            short(some, 80)
        ))
    }
}

/// A line of BEIR's `corpus.jsonl` and `queries.jsonl`.
#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "_id", alias = "id")]
    id: Id,
    title: Option<String>,
    text: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Id {
    Text(String),
    Number(i64),
}

/// The ids and texts of a file of JSON lines.
fn entries(text: &str, path: &Path) -> Result<(Vec<String>, Vec<String>)> {
    let (mut ids, mut texts) = (Vec::new(), Vec::new());
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let entry: Entry = serde_json::from_str(line).map_err(|e| {
            Error::new(format!("this line is no entry of BEIR's: {e}"))
                .at(format!("{}:{}", shown(path), number + 1))
                .hint("a line is {\"_id\": \"…\", \"title\": \"…\", \"text\": \"…\"}")
        })?;
        ids.push(match entry.id {
            Id::Text(id) => id,
            Id::Number(id) => id.to_string(),
        });
        let both = [entry.title, entry.text].into_iter().flatten().filter(|part| !part.trim().is_empty());
        texts.push(both.collect::<Vec<_>>().join(" "));
    }
    Ok((ids, texts))
}

fn beir(folder: &Path, corpus: &Path, options: &Options) -> Result<Collection> {
    let mut all = Collection::default();
    (all.document_ids, all.documents) = entries(&text(corpus, options, &mut all.notes)?, corpus)?;
    let documents = numbers(&all.document_ids, corpus)?;
    let path = needed(folder, "queries.jsonl")?;
    let (ids, queries) = entries(&text(&path, options, &mut all.notes)?, &path)?;
    let known = numbers(&ids, &path)?;
    let (split, path) = judgements(&folder.join("qrels"), options.split, &mut all.notes)?;

    let mut judged: Vec<Vec<(usize, f64)>> = vec![Vec::new(); ids.len()];
    let mut missing = Missing::new(documents.len());
    let (mut strangers, mut doubled) = (0, 0);
    let text = text(&path, options, &mut all.notes)?;
    for (at, (line, fields)) in tabbed(&text).into_iter().enumerate() {
        let wrong = |what: String| {
            Error::new(what)
                .at(format!("{}:{line}", shown(&path)))
                .hint("a line is query-id, corpus-id and score, with tabs between")
        };
        let [query, document, gain] = fields[..] else {
            return Err(wrong(format!("this line has {} columns, not 3", fields.len())));
        };
        let gain = match gain.trim().parse::<f64>() {
            Ok(gain) if gain.is_finite() => gain,
            // The header.
            _ if at == 0 => continue,
            _ => return Err(wrong(format!("`{}` is not a gain", short(gain, 40)))),
        };
        let Some(&query) = known.get(query) else {
            strangers += 1;
            continue;
        };
        let document = documents.get(document).copied().unwrap_or_else(|| missing.number(document));
        // The last judgement of a document counts.
        match judged[query].iter_mut().find(|(other, _)| *other == document) {
            Some((_, before)) => {
                doubled += 1;
                *before = gain;
            }
            None => judged[query].push((document, gain)),
        }
    }
    let left_out = judged.iter().filter(|list| list.is_empty()).count();
    for ((id, query), list) in ids.into_iter().zip(queries).zip(judged).filter(|(_, list)| !list.is_empty()) {
        all.query_ids.push(id);
        all.queries.push(query);
        all.relevance.push(list);
    }
    if all.queries.is_empty() {
        return Err(Error::new("no query has a judgement")
            .at(shown(&path))
            .hint("do the ids agree with those of `queries.jsonl`?"));
    }
    let counted = |count: usize, what: &str| (count > 0).then(|| format!("{}: {count} {what}", shown(&path)));
    all.notes.extend(counted(strangers, "judgements are of queries that are not there, and are left out"));
    all.notes.extend(counted(doubled, "judgements of the same query and document as one before, which they replace"));
    all.notes.extend(missing.note().map(|note| format!("{}: {note}", shown(&path))));
    all.notes.extend(counted(left_out, &format!("queries have no judgement in `{split}`, and are left out")));
    all.empties();
    all.split = Some(split);
    Ok(all)
}

/// The file of judgements of a split, and the split's name.
fn judgements(folder: &Path, split: Option<&str>, notes: &mut Vec<String>) -> Result<(String, PathBuf)> {
    let mut there: Vec<(String, PathBuf)> = Vec::new();
    if folder.is_dir() {
        for entry in std::fs::read_dir(folder).at(folder.display())? {
            let path = entry.at(folder.display())?.path();
            let name = crate::cells::plain_name(&path);
            if let Some(name) = name.strip_suffix(".tsv").filter(|_| path.is_file()) {
                there.push((name.to_string(), path));
            }
        }
    }
    there.sort();
    let named = split.unwrap_or(TEST).to_lowercase();
    if let Some(at) = there.iter().position(|(name, _)| *name == named) {
        return Ok(there.swap_remove(at));
    }
    let names: Vec<&str> = there.iter().map(|(name, _)| name.as_str()).collect();
    let what = format!("there are no judgements of the part `{named}`");
    match (split, names.len()) {
        (None, 1) => {
            notes.push(format!("{what}: those of `{}` are read, the only ones", names[0]));
            Ok(there.remove(0))
        }
        (_, 0) => Err(Error::usage(what).at(folder.display()).hint(FORM)),
        _ => Err(Error::usage(what).at(folder.display()).hint(format!("there are: {}", names.join(", ")))),
    }
}

fn questions(folder: &Path, passages: &Path, options: &Options) -> Result<Collection> {
    let mut all = Collection::default();
    let lines = |text: String, path: &Path, most: usize| -> Result<Vec<(usize, Vec<String>)>> {
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let fields = |(number, line): (usize, &str)| {
            let fields: Vec<String> = line.splitn(most, '\t').map(String::from).collect();
            if fields.len() < 2 {
                let what = "this line has one column, and needs a passage's number, a tab and a text";
                return Err(Error::new(what).at(format!("{}:{}", shown(path), number + 1)).hint(FORM));
            }
            Ok((number + 1, fields))
        };
        lines.map(fields).collect()
    };
    for (_, fields) in lines(text(passages, options, &mut all.notes)?, passages, 2)? {
        all.document_ids.push(fields[0].trim().to_string());
        all.documents.push(fields[1].clone());
    }
    let documents = numbers(&all.document_ids, passages)?;
    let path = needed(folder, "questions.tsv")?;
    let mut missing = Missing::new(documents.len());
    for (line, fields) in lines(text(&path, options, &mut all.notes)?, &path, 3)? {
        let passage = fields[0].trim();
        let number = documents.get(passage).copied().unwrap_or_else(|| missing.number(passage));
        all.query_ids.push(format!("questions.tsv:{line}"));
        all.queries.push(fields[1].clone());
        all.relevance.push(vec![(number, 1.0)]);
    }
    if all.queries.is_empty() {
        return Err(Error::new("there is no question in this file").at(shown(&path)).hint(FORM));
    }
    all.notes.extend(missing.note().map(|note| format!("{}: {note}", shown(&path))));
    all.empties();
    Ok(all)
}
