//! Chooses the columns of a table: those that the recipe gives, those with common names, or by their number if there are no names.

use ctk_core::{Error, Result};

use super::Kind;
use super::recipe::{ColumnRecipe, ColumnsRecipe};
use super::rows::Table;
use crate::table::columns::{Columns as Labelled, LABELS};

/// Common names of anchors and of texts without a pair, the surest first.
const ANCHORS: [&str; 22] = [
    "anchor",
    "query",
    "question",
    "question1",
    "sentence1",
    "sentence_1",
    "sentence_a",
    "sent0",
    "text1",
    "text_1",
    "premise",
    "claim",
    "turn",
    "prompt",
    "text",
    "sentence",
    "sentences",
    "title",
    "content",
    "document",
    "body",
    "review",
];

/// Common names of positives, the surest first.
const POSITIVES: [&str; 22] = [
    "positive",
    "pos",
    "answer",
    "passage",
    "sentence2",
    "sentence_2",
    "sentence_b",
    "sent1",
    "text2",
    "text_2",
    "question2",
    "hypothesis",
    "response",
    "reply",
    "evidence",
    "entailment",
    "document",
    "context",
    "description",
    "summary",
    "abstract",
    "body",
];

/// Common names of negatives, which numbers may follow.
const NEGATIVES: [&str; 6] = ["negative", "neg", "hard_negative", "hard_neg", "contradiction", "negatives"];

/// Common names of scores.
const SCORES: [&str; 7] = ["score", "scores", "similarity", "similarity_score", "relatedness", "relatedness_score", "gold_score"];

/// Common names of columns that are not read, which show that a line has names.
const OTHERS: [&str; 8] = ["id", "_id", "idx", "index", "split", "pair_id", "guid", "year"];

/// Rows that are looked at to tell labels from texts.
const ROWS: usize = 1000;

/// Characters of a cell or a list that messages show.
const SHOWN: usize = 40;

/// The columns that are used.
#[derive(Debug)]
pub(super) struct Columns {
    /// What a row is.
    pub kind: Kind,
    /// The texts: the anchor, the positive, the negatives.
    pub texts: Vec<usize>,
    /// The score, of scored pairs.
    pub score: Option<usize>,
    /// The class, of labelled texts.
    pub label: Option<usize>,
    /// A note about the choice.
    pub note: String,
}

/// The columns that names stand for.
#[derive(Debug, Default)]
pub(super) struct Known {
    anchor: Option<usize>,
    positive: Option<usize>,
    negatives: Vec<usize>,
    score: Option<usize>,
    label: Option<usize>,
}

impl Known {
    /// The columns with common names.
    fn of(names: &[String]) -> Known {
        let names: Vec<String> = names.iter().map(|name| name.trim().to_lowercase().replace([' ', '-'], "_")).collect();
        let find = |known: &[&str], but: &[Option<usize>]| {
            known.iter().find_map(|known| (0..names.len()).find(|at| names[*at] == *known && !but.contains(&Some(*at))))
        };
        let anchor = find(&ANCHORS, &[]);
        let positive = find(&POSITIVES, &[anchor]);
        let is_negative = |name: &str| {
            let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
            NEGATIVES.contains(&stem.strip_suffix('_').unwrap_or(stem))
        };
        let negatives = (0..names.len()).filter(|at| is_negative(&names[*at])).collect();
        Known { anchor, positive, negatives, score: find(&SCORES, &[]), label: find(&LABELS, &[anchor, positive]) }
    }

    /// Whether a first row has names of columns: two common names, or one in a table of a single column.
    pub fn is_header(cells: &[String]) -> bool {
        let Known { anchor, positive, negatives, score, label } = Known::of(cells);
        let texts = usize::from(anchor.is_some()) + usize::from(positive.is_some()) + negatives.len();
        let others = cells.iter().filter(|cell| OTHERS.contains(&cell.trim().to_lowercase().as_str())).count();
        let all = texts + others + usize::from(score.is_some()) + usize::from(label.is_some());
        texts > 0 && all >= cells.len().min(2)
    }

    /// The columns that the recipe gives.
    fn given(table: &Table, wish: &ColumnsRecipe) -> Result<Known> {
        let at = |key: &str, column: &ColumnRecipe| {
            let found = match (column, &table.names) {
                (ColumnRecipe::Number(number), _) => Some(number.wrapping_sub(1)).filter(|at| *at < table.columns),
                (ColumnRecipe::Name(name), Some(names)) => names
                    .iter()
                    .position(|known| known.trim() == name.trim())
                    .or_else(|| names.iter().position(|known| known.trim().eq_ignore_ascii_case(name.trim()))),
                (ColumnRecipe::Name(_), None) => None,
            };
            let named = match column {
                ColumnRecipe::Number(number) => number.to_string(),
                ColumnRecipe::Name(name) => format!("`{name}`"),
            };
            match found {
                Some(at) => Ok(at),
                None => Err(Error::usage(format!("there is no column {named}: the table has {}", table.shown()?))
                    .hint(format!("set data.columns.{key} to one of them, by name or by number"))),
            }
        };
        let one = |key: &str, column: &Option<ColumnRecipe>| column.as_ref().map(|column| at(key, column)).transpose();
        Ok(Known {
            anchor: one("anchor", &wish.anchor)?,
            positive: one("positive", &wish.positive)?,
            negatives: wish.negatives().iter().map(|column| at("negative", column)).collect::<Result<_>>()?,
            score: one("score", &wish.score)?,
            label: one("label", &wish.label)?,
        })
    }

    /// The columns of a table without names, by their number and content; nothing if these do not tell.
    fn unnamed(table: &Table, kind: Option<Kind>) -> Result<Known> {
        let known = |anchor, positive| Known { anchor: Some(anchor), positive, ..Known::default() };
        let numeric = if (2..=16).contains(&table.columns) { numeric(table)? } else { vec![false; table.columns] };
        let texts = numeric.iter().all(|numeric| !numeric);
        Ok(match (table.columns, kind) {
            (1, _) => known(0, None),
            (2, Some(Kind::Labelled)) => {
                let label = label_of(table)?;
                Known { label: Some(label), ..known(1 - label, None) }
            }
            (2, None | Some(Kind::Pairs)) => known(0, Some(1)),
            (3, None | Some(Kind::Scored)) if numeric == [false, false, true] => Known { score: Some(2), ..known(0, Some(1)) },
            (3.., Some(Kind::Triplets)) | (3, None) if texts => {
                Known { negatives: (2..table.columns).collect(), ..known(0, Some(1)) }
            }
            _ => Known::default(),
        })
    }
}

/// Whether each column has numbers only.
fn numeric(table: &Table) -> Result<Vec<bool>> {
    let mut numeric = vec![true; table.columns];
    let all: Vec<usize> = (0..table.columns).collect();
    table.each(&all, &mut |_, cells| {
        for (cell, numeric) in cells.iter().zip(&mut numeric) {
            let cell = cell.unwrap_or_default().trim();
            *numeric &= cell.is_empty() || cell.parse::<f64>().is_ok();
        }
        Ok(numeric.contains(&true))
    })?;
    Ok(numeric)
}

/// Which of two columns has the class.
fn label_of(table: &Table) -> Result<usize> {
    let mut rows: Vec<Vec<String>> = Vec::new();
    table.each(&[0, 1], &mut |_, cells| {
        if cells.iter().all(Option::is_some) {
            rows.push(cells.iter().map(|cell| cell.unwrap_or_default().to_string()).collect());
        }
        Ok(rows.len() < ROWS)
    })?;
    let rows: Vec<Vec<&str>> = rows.iter().map(|row| row.iter().map(String::as_str).collect()).collect();
    Ok(Labelled::unnamed(&rows, 2, "\t").label.unwrap_or(0))
}

/// A cell as messages show it.
pub(super) fn short_cell(cell: &str) -> String {
    ctk_core::error::short(cell.trim(), SHOWN).into_owned()
}

/// Chooses the columns of `table`, as `wish` gives them or by themselves; `kind` is the kind that the recipe names.
///
/// # Errors
/// A given column does not exist; the columns do not tell what a row is, or not a row of the named kind.
pub(super) fn choose(table: &Table, wish: &ColumnsRecipe, kind: Option<Kind>) -> Result<Columns> {
    let given = !wish.given().is_empty();
    let mut known = match (&table.names, given) {
        (_, true) => Known::given(table, wish)?,
        (Some(names), false) => Known::of(names),
        (None, false) => Known::unnamed(table, kind)?,
    };
    if known.anchor.is_none() && table.columns == 1 {
        known.anchor = Some(0);
    }
    let unclear = |what: &str| -> Result<Columns> {
        Err(Error::usage(format!("{what}: the table has the columns {}", table.shown()?)).hint(
            "say which are used, by name or by number: data.columns.anchor = 1, data.columns.positive = 2, and where there are any \
             data.columns.negative, data.columns.score or data.columns.label",
        ))
    };
    let Known { anchor: Some(anchor), positive, ref negatives, score, label } = known else {
        let of_kind = kind.map(|kind| format!("data.kind is \"{}\", and ", kind.key())).unwrap_or_default();
        return unclear(&format!("{of_kind}the columns of texts are not recognised"));
    };
    let recognised = match (positive, label) {
        (Some(_), _) if !negatives.is_empty() => Kind::Triplets,
        (Some(_), _) if score.is_some() => Kind::Scored,
        (Some(positive), Some(label)) if kind.is_none() => {
            let name = |at: usize| table.names.as_ref().map_or((at + 1).to_string(), |names| format!("`{}`", names[at]));
            let what = format!("it is not clear what {} says about {} and {}", name(label), name(anchor), name(positive));
            return Err(Error::usage(what).hint(
                "data.kind = \"pairs\" takes every row as a pair, data.kind = \"scored\" takes the label as a score; of an NLI table, \
                 only rows of entailment are pairs",
            ));
        }
        (Some(_), _) => Kind::Pairs,
        (None, Some(_)) => Kind::Labelled,
        (None, None) => Kind::Texts,
    };
    let kind = kind.unwrap_or(recognised);
    let missing = |what: &str| unclear(&format!("data.kind is \"{}\", and {what} is not recognised", kind.key()));
    let (mut texts, mut used) =
        (vec![anchor], Columns { kind, texts: Vec::new(), score: None, label: None, note: String::new() });
    if matches!(kind, Kind::Pairs | Kind::Scored | Kind::Triplets) {
        let Some(positive) = positive else { return missing("the positive") };
        texts.push(positive);
    }
    match kind {
        Kind::Triplets if negatives.is_empty() => return missing("the negative"),
        Kind::Triplets => texts.extend(negatives),
        Kind::Scored => match score.or(label) {
            Some(score) => used.score = Some(score),
            None => return missing("the score"),
        },
        Kind::Labelled => match label {
            Some(label) => used.label = Some(label),
            None => return missing("the class"),
        },
        Kind::Texts | Kind::Pairs => {}
    }
    used.texts = texts;
    used.note = note(table, &used);
    Ok(used)
}

/// What was chosen.
fn note(table: &Table, used: &Columns) -> String {
    let name = |at: &usize| match &table.names {
        Some(names) => format!("`{}`", names[*at].trim()),
        None => format!("column {}", at + 1),
    };
    if table.columns == 1 {
        return format!("{}, one in each {}", used.kind.word(), table.row_word());
    }
    let mut said = format!("{} of {}", used.kind.word(), used.texts.iter().map(name).collect::<Vec<_>>().join(", "));
    let about = [("scores", &used.score), ("classes", &used.label)];
    about.iter().for_each(|(what, column)| column.iter().for_each(|at| said += &format!(", with {what} of {}", name(at))));
    let all = used.texts.iter().chain(&used.score).chain(&used.label);
    let used: Vec<usize> = all.copied().collect();
    let unread: Vec<String> = (0..table.columns).filter(|at| !used.contains(at)).map(|at| name(&at)).collect();
    if !unread.is_empty() {
        said += &format!("; not read: {}", unread.join(", "));
    }
    if table.names.is_none() {
        said += "; the first line has no known names of columns, and is read as a row";
    }
    said
}
