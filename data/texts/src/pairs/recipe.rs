//! `[data]` of sentences: which texts are trained on, and how they are paired.

use std::path::PathBuf;

use ctk_core::Result;
use ctk_core::recipe::Recipe;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Kind, Sentences};
use crate::corpus::Invalid;
use crate::files::{self, Encoding};
use crate::recipe::Paths;

/// The largest weight of a source; its samples are numbered once for each time that an epoch meets them.
const HEAVIEST: f64 = 1000.0;

/// The largest number of generated pairs, which are made in memory.
const MOST_GENERATED: usize = 200_000;

/// `[data]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SentencesDataRecipe {
    /// Files (.txt, .tsv, .csv, .jsonl, .parquet; texts may be packed by gzip, bzip2, xz or zstd), folders of them, or globs; one or a
    /// list.
    pub path: Option<Paths>,
    /// Pairs of the generated language, which is used if no file is named.
    pub pairs: usize,
    /// `[[data.source]]`: files with a weight or with columns of their own, in place of `path`.
    pub source: Vec<SourceRecipe>,
    /// The kind of the data: `texts`, `labelled` (texts with classes), `pairs`, `scored` (pairs with scores) or `triplets`. Default:
    /// recognised by the columns.
    pub kind: Option<Kind>,
    /// The format of all files: `text` (one text a line), `tsv`, `csv`, `jsonl` or `parquet`. Default: recognised by name and content.
    pub format: Option<Format>,
    /// `[data.columns]`: the columns of tables. By default they are recognised by common names.
    pub columns: ColumnsRecipe,
    /// `[data.prompts]`: texts that are put before the texts of a column.
    pub prompts: PromptsRecipe,
    /// Files to measure on during training, of the same kind as those to train on.
    pub dev: Option<Paths>,
    /// The share of the samples that is held out to measure on, instead of `dev`. Samples that have a text in common stay together.
    pub dev_share: f64,
    /// Whether samples that share a text, or have a text that is a known positive of the other one's anchor, go into different batches.
    pub no_duplicates: bool,
    /// The encoding: `auto` (UTF-8, or UTF-16 if a byte order mark or zero bytes show it, with a note), or a name such as `windows-1252`.
    pub encoding: String,
    /// What to do about bytes that are not characters of the encoding: `refuse` or `replace`.
    pub invalid: Invalid,
}

impl Default for SentencesDataRecipe {
    fn default() -> Self {
        SentencesDataRecipe {
            path: None,
            pairs: 20_000,
            source: Vec::new(),
            kind: None,
            format: None,
            columns: ColumnsRecipe::default(),
            prompts: PromptsRecipe::default(),
            dev: None,
            dev_share: 0.0,
            no_duplicates: true,
            encoding: "auto".to_string(),
            invalid: Invalid::Refuse,
        }
    }
}

/// `[[data.source]]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceRecipe {
    /// A file, a folder of files, or a glob.
    pub path: String,
    /// How often an epoch meets a sample of these files: 2 means twice, 0.5 means that an epoch has half of the samples, and the next one
    /// the other half.
    #[serde(default = "one")]
    pub weight: f64,
    /// The columns of these files. Default: those of `data.columns`.
    #[serde(default)]
    pub columns: Option<ColumnsRecipe>,
}

fn one() -> f64 {
    1.0
}

/// How a file is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// One text on each line.
    Text,
    /// Cells between tabs, without quotes.
    Tsv,
    /// Cells between commas or semicolons, some of them in quotes.
    Csv,
    /// A JSON object on each line, or a list of cells.
    Jsonl,
    /// Parquet.
    Parquet,
}

/// `[data.columns]`: a table's columns by name or, from 1 on, by number. If any is given, no other column is used.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ColumnsRecipe {
    /// The anchor (query, question, first sentence), or the only text.
    pub anchor: Option<ColumnRecipe>,
    /// The positive (answer, passage, second sentence).
    pub positive: Option<ColumnRecipe>,
    /// The negatives of a triplet: one column or a list.
    pub negative: Option<NegativesRecipe>,
    /// How similar the two texts are.
    pub score: Option<ColumnRecipe>,
    /// The class.
    pub label: Option<ColumnRecipe>,
}

/// A column.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a column is its name in quotes, or its number from 1 on")]
pub enum ColumnRecipe {
    /// By its number, from 1 on.
    Number(usize),
    /// By its name.
    Name(String),
}

/// One column or several.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a column is its name in quotes, or its number from 1 on; several are a list")]
pub enum NegativesRecipe {
    /// One.
    One(ColumnRecipe),
    /// Several.
    Many(Vec<ColumnRecipe>),
}

/// A column as a command line names it: a number, or else a name.
impl From<&str> for ColumnRecipe {
    fn from(named: &str) -> ColumnRecipe {
        named.parse().map_or_else(|_| ColumnRecipe::Name(named.to_string()), ColumnRecipe::Number)
    }
}

impl NegativesRecipe {
    /// All columns.
    pub fn list(&self) -> &[ColumnRecipe] {
        match self {
            NegativesRecipe::One(column) => std::slice::from_ref(column),
            NegativesRecipe::Many(columns) => columns,
        }
    }
}

/// `[data.prompts]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PromptsRecipe {
    /// Before each anchor, and before texts that have no pair; for example `"query: "`.
    pub anchor: String,
    /// Before each positive.
    pub positive: String,
    /// Before each negative. Default: as for positives.
    pub negative: Option<String>,
}

impl ColumnsRecipe {
    /// The columns that are given, each with its key below `columns`.
    pub(super) fn given(&self) -> Vec<(&'static str, &ColumnRecipe)> {
        let mut given: Vec<(&'static str, &ColumnRecipe)> = Vec::new();
        given.extend(self.anchor.iter().map(|column| ("anchor", column)));
        given.extend(self.positive.iter().map(|column| ("positive", column)));
        given.extend(self.negatives().iter().map(|column| ("negative", column)));
        given.extend(self.score.iter().map(|column| ("score", column)));
        given.extend(self.label.iter().map(|column| ("label", column)));
        given
    }

    /// The columns of negatives that are given.
    pub(super) fn negatives(&self) -> &[ColumnRecipe] {
        self.negative.as_ref().map_or(&[], NegativesRecipe::list)
    }

    fn check(&self, text: &Recipe, key: &str) -> Result<()> {
        let given = self.given();
        for (at, (name, column)) in given.iter().enumerate() {
            let key = format!("{key}.{name}");
            text.require(**column != ColumnRecipe::Number(0), &key, "must be 1 or more: columns are numbered from 1 on")?;
            let twice = given[..at].iter().any(|(_, other)| other == column);
            text.require(!twice, &key, "names a column that has another meaning already")?;
        }
        text.require(given.is_empty() || self.anchor.is_some(), &format!("{key}.anchor"), "is missing: other columns are given")?;
        let both = self.score.is_some() && self.negative.is_some();
        text.require(!both, &format!("{key}.score"), "cannot be beside negatives: a triplet has no score")?;
        let both = self.label.is_some() && self.positive.is_some();
        text.require(!both, &format!("{key}.label"), "cannot be beside a positive: classes belong to single texts")?;
        let pair = self.positive.is_some() || (self.negative.is_none() && self.score.is_none());
        text.require(pair, &format!("{key}.positive"), "is missing: negatives and scores belong to pairs")
    }
}

impl SentencesDataRecipe {
    /// Checks every value; errors point at its line in `text`.
    ///
    /// # Errors
    /// The first value that is not allowed.
    pub fn check(&self, text: &Recipe) -> Result<()> {
        text.require(self.path.as_ref().is_none_or(|p| !p.list().is_empty()), "data.path", "names no file")?;
        text.require(self.dev.as_ref().is_none_or(|p| !p.list().is_empty()), "data.dev", "names no file")?;
        let both = self.path.is_some() && !self.source.is_empty();
        text.require(!both, "data.path", "cannot be beside [[data.source]]: write this path as a source, too")?;
        text.within("data.pairs", self.pairs, 2..=MOST_GENERATED)?;
        self.columns.check(text, "data.columns")?;
        for (at, source) in self.source.iter().enumerate() {
            let key = |name: &str| format!("data.source.{at}.{name}");
            text.positive(&key("weight"), source.weight, HEAVIEST)?;
            source.columns.as_ref().map_or(Ok(()), |columns| columns.check(text, &key("columns")))?;
        }
        text.below_one("data.dev_share", self.dev_share)?;
        let two = self.dev.is_some() && self.dev_share > 0.0;
        text.require(!two, "data.dev_share", "cannot be beside data.dev: one of them says what is measured on")?;
        Encoding::named(&self.encoding).map(drop).map_err(|e| e.at(text.place_of("data.encoding")))
    }

    /// Whether no file is named, so that the pairs are generated.
    pub fn generated(&self) -> bool {
        self.path.is_none() && self.source.is_empty()
    }

    /// The paths to train on, for people.
    pub fn named(&self) -> String {
        self.sources().into_iter().map(|source| source.path).collect::<Vec<_>>().join(", ")
    }

    /// The sources: those of `source`, or all of `path` with weight 1.
    pub(super) fn sources(&self) -> Vec<SourceRecipe> {
        let of = |path: &String| SourceRecipe { path: path.clone(), weight: 1.0, columns: None };
        self.path.as_ref().map_or_else(|| self.source.clone(), |paths| paths.list().iter().map(of).collect())
    }

    /// All files that the recipe names, those to train on first.
    ///
    /// # Errors
    /// As for [`files::find`].
    pub fn files(&self) -> Result<Vec<PathBuf>> {
        let mut paths: Vec<String> = self.sources().into_iter().map(|source| source.path).collect();
        paths.extend(self.dev.iter().flat_map(|paths| paths.list().to_vec()));
        files::find(&paths)
    }

    /// Reads all files.
    ///
    /// # Errors
    /// A file that cannot be found or read; columns that are not recognised; a bad cell; files of different kinds; too few samples.
    pub fn open(&self) -> Result<Sentences> {
        super::open::open(self, 2)
    }

    /// Reads all files, which may have a single sample, as is of use where nothing is trained.
    ///
    /// # Errors
    /// As for [`open`](SentencesDataRecipe::open).
    pub fn open_any(&self) -> Result<Sentences> {
        super::open::open(self, 1)
    }
}
