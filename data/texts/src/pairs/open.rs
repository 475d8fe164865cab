//! Reads all files of a recipe into samples, and says what was chosen, skipped and counted.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use ctk_core::rng::Key;
use ctk_core::{Context, Error, Result};

use super::arena::Arena;
use super::columns::{self, Columns, short_cell};
use super::recipe::{ColumnRecipe, ColumnsRecipe, SentencesDataRecipe, SourceRecipe};
use super::rows::{Reading, Table};
use super::weights::Weights;
use super::{Kind, Origins, Pairs, Sentences, split};
use crate::files::{self, Encoding, shown};
use crate::language;

/// What all files have in common while they are read.
#[derive(Default)]
struct Reader {
    texts: Arena,
    /// Classes by name, numbered as they are met.
    classes: HashMap<String, u32>,
    /// The first file, its kind, and the number of texts of its samples.
    first: Option<(String, Kind, usize)>,
    notes: Vec<String>,
}

/// The samples of some files.
#[derive(Clone, Default)]
struct Samples {
    cells: Vec<u32>,
    scores: Vec<f32>,
    labels: Vec<u32>,
    origins: Origins,
    /// For each source the end of its samples, and its weight.
    sources: Vec<(usize, f64)>,
}

/// Reads the files of `recipe`, which have `least` samples or more.
pub(super) fn open(recipe: &SentencesDataRecipe, least: usize) -> Result<Sentences> {
    let reading = Reading { format: recipe.format, encoding: Encoding::named(&recipe.encoding)?, invalid: recipe.invalid };
    let mut reader = Reader::default();
    let mut train = Samples::default();
    let sources = recipe.sources();
    for source in &sources {
        reader.source(source, recipe, &reading, &mut train)?;
    }
    if recipe.generated() {
        reader.generated(recipe.pairs, &mut train)?;
    }
    let dev = match &recipe.dev {
        Some(paths) => {
            let mut dev = Samples::default();
            for path in paths.list() {
                let source = SourceRecipe { path: path.clone(), weight: 1.0, columns: None };
                reader.source(&source, recipe, &reading, &mut dev)?;
            }
            Some(dev)
        }
        None => None,
    };
    let Some((_, kind, columns)) = reader.first.take() else {
        return Err(Error::usage("there is no sample in these files").hint("a row has the texts of one sample"));
    };
    reader.count(&train, kind, columns);
    let (train, dev) = match dev {
        None if recipe.dev_share > 0.0 => {
            let (dev, train) = reader.divide(train, columns, recipe.dev_share)?;
            (train, Some(dev))
        }
        dev => {
            dev.iter().for_each(|dev| reader.repeated(&train, dev, columns));
            (train, dev)
        }
    };
    if train.cells.len() / columns < least {
        return Err(Error::usage(format!("there is one sample to train on ({})", kind.word()))
            .at(sources.iter().map(|source| source.path.as_str()).collect::<Vec<_>>().join(", "))
            .hint("samples are compared with each other: give at least two"));
    }
    reader.finish(recipe, kind, columns, train, dev)
}

impl Reader {
    /// Reads the files of `source` behind `samples`.
    fn source(
        &mut self,
        source: &SourceRecipe,
        recipe: &SentencesDataRecipe,
        reading: &Reading,
        samples: &mut Samples,
    ) -> Result<()> {
        let wish = source.columns.as_ref().unwrap_or(&recipe.columns);
        for path in files::find(std::slice::from_ref(&source.path))? {
            self.file(&path, wish, recipe.kind, reading, samples).at(shown(&path))?;
        }
        samples.sources.push((samples.origins.rows.len(), source.weight));
        Ok(())
    }

    /// Appends pairs of the generated language to `samples`. They are data: they do not change with the seed of the training.
    fn generated(&mut self, count: usize, samples: &mut Samples) -> Result<()> {
        for (row, pair) in language::text_pairs(count, Key::new(0)).iter().enumerate() {
            for text in pair {
                samples.cells.push(self.texts.number(text)?);
            }
            samples.origins.rows.push(row as u32 + 1);
        }
        samples.origins.files.push(("the generated language".into(), "pair", count));
        samples.sources.push((count, 1.0));
        self.first = Some(("the generated language".to_string(), Kind::Pairs, 2));
        Ok(())
    }

    fn file(
        &mut self,
        path: &Path,
        wish: &ColumnsRecipe,
        kind: Option<Kind>,
        reading: &Reading,
        samples: &mut Samples,
    ) -> Result<()> {
        let named = wish.given().iter().any(|(_, column)| matches!(column, ColumnRecipe::Name(_)));
        let mut said = Vec::new();
        let table = Table::open(path, reading, named, &mut said)?;
        let used = columns::choose(&table, wish, kind)?;
        self.notes.extend(said.into_iter().chain([used.note.clone()]).map(|note| format!("{}: {note}", shown(path))));
        match &self.first {
            None => self.first = Some((shown(path), used.kind, used.texts.len())),
            Some((first, kind, count)) if (*kind, *count) != (used.kind, used.texts.len()) => {
                let what = |kind: Kind, count: usize| match (kind, count) {
                    (Kind::Triplets, count) => format!("{} of {count} texts", kind.word()),
                    _ => kind.word().to_string(),
                };
                let (these, those) = (what(used.kind, used.texts.len()), what(*kind, *count));
                return Err(Error::usage(format!("this file has {these}, and {first} has {those}"))
                    .hint("all files are of one kind: leave one out, or choose columns of the same kind in data.columns"));
            }
            Some(_) => {}
        }
        let before = samples.origins.rows.len();
        let skipped = self.rows(&table, &used, samples)?;
        let read = samples.origins.rows.len() - before;
        if let Some((count, first)) = skipped {
            self.notes.push(format!(
                "{}: {count} of {} rows are skipped, because a cell that is used is empty (the first in {} {first})",
                shown(path),
                count + read,
                table.row_word()
            ));
        }
        if read == 0 {
            return Err(Error::usage(format!("there is no row of {} in this file", used.kind.word()))
                .hint("a row has the texts of one sample, and no cell that is used may be empty"));
        }
        samples.origins.files.push((path.to_path_buf(), table.row_word(), samples.origins.rows.len()));
        Ok(())
    }

    /// Reads the rows of `table`. Returns how many were skipped, and the first of them.
    fn rows(&mut self, table: &Table, used: &Columns, samples: &mut Samples) -> Result<Option<(usize, usize)>> {
        let wanted: Vec<usize> = used.texts.iter().chain(&used.score).chain(&used.label).copied().collect();
        let texts = used.texts.len();
        let mut skipped: Option<(usize, usize)> = None;
        table.each(&wanted, &mut |row, cells| {
            let cell = |at: usize| cells.get(at).copied().flatten().map(str::trim).filter(|cell| !cell.is_empty());
            let place = || format!("{} {row}", table.row_word());
            let blank = (0..texts).any(|at| cell(at).is_none()) || (used.label.is_some() && cell(texts).is_none());
            if blank {
                let (count, first) = skipped.unwrap_or((0, row));
                skipped = Some((count + 1, first));
                return Ok(true);
            }
            if used.score.is_some() {
                samples.scores.push(score(cell(texts)).at(place())?);
            }
            if let (Some(_), Some(class)) = (used.label, cell(texts)) {
                let next = self.classes.len() as u32;
                samples.labels.push(*self.classes.entry(class.to_string()).or_insert(next));
            }
            for at in 0..texts {
                samples.cells.push(self.texts.number(cell(at).unwrap_or_default()).at(place())?);
            }
            let row = u32::try_from(row).map_err(|_| Error::new("a file has too many rows").at(place()))?;
            samples.origins.rows.push(row);
            Ok(true)
        })?;
        Ok(skipped)
    }

    /// Counts what looks like a mistake, and is kept.
    fn count(&mut self, samples: &Samples, kind: Kind, columns: usize) {
        let rows: Vec<&[u32]> = samples.cells.chunks_exact(columns).collect();
        self.notes.push(format!("{} {} with {} different texts", rows.len(), kind.word(), self.texts.len()));
        let same = |a: usize, b: usize| rows.iter().filter(|row| row.get(b).is_some_and(|text| *text == row[a])).count();
        let negatives = rows.iter().filter(|row| row.len() > 2 && row[2..].contains(&row[1])).count();
        let mut sorted = rows.clone();
        sorted.sort_unstable();
        let repeated = rows.len() - sorted.chunk_by(|a, b| a == b).count();
        for (count, what) in [
            (same(0, 1), "have a positive that equals its anchor"),
            (negatives, "have a negative that equals their positive"),
            (repeated, "repeat the texts of another one"),
        ] {
            if count > 0 {
                self.notes.push(format!("{count} of {} samples {what}; they are kept", rows.len()));
            }
        }
    }

    /// Notes samples of `dev` that are trained on, too.
    fn repeated(&mut self, train: &Samples, dev: &Samples, columns: usize) {
        let rows: HashSet<&[u32]> = train.cells.chunks_exact(columns).collect();
        let count = dev.cells.chunks_exact(columns).filter(|row| rows.contains(row)).count();
        let all = dev.cells.len() / columns;
        self.notes.push(match count {
            0 => format!("{all} samples are measured on (data.dev)"),
            _ => format!("{all} samples are measured on (data.dev), and {count} of them are trained on as well"),
        });
    }

    /// The samples that are held out, and the others.
    fn divide(&mut self, samples: Samples, columns: usize, share: f64) -> Result<(Samples, Samples)> {
        let (out, largest) = split::held_out(&self.texts, &samples.cells, columns, share)?;
        let count = out.iter().filter(|out| **out).count();
        let mut note = format!("{count} of {} samples are held out to measure on (data.dev_share)", out.len());
        if largest > 1 {
            note += &format!("; samples that share a text stay together, {largest} in the largest group");
        }
        self.notes.push(note);
        Ok((samples.part(&out, true, columns), samples.part(&out, false, columns)))
    }

    fn finish(
        self,
        recipe: &SentencesDataRecipe,
        kind: Kind,
        columns: usize,
        mut train: Samples,
        mut dev: Option<Samples>,
    ) -> Result<Sentences> {
        // Classes are numbered by the order of their names.
        let sorted: BTreeMap<String, u32> = self.classes.into_iter().collect();
        let mut numbers = vec![0; sorted.len()];
        sorted.values().zip(0..).for_each(|(met, number)| numbers[*met as usize] = number);
        for samples in std::iter::once(&mut train).chain(&mut dev) {
            samples.labels.iter_mut().for_each(|label| *label = numbers[*label as usize]);
        }
        let classes: Vec<String> = sorted.into_keys().collect();
        let prompts = &recipe.prompts;
        let negative = prompts.negative.as_ref().unwrap_or(&prompts.positive);
        let prompts: Vec<String> =
            (0..columns).map(|column| [&prompts.anchor, &prompts.positive, negative][column.min(2)].clone()).collect();
        let texts = Arc::new(self.texts);
        let of = |samples: Samples, apart: bool| -> Result<Pairs> {
            Ok(Pairs {
                kind,
                texts: texts.clone(),
                columns,
                cells: samples.cells,
                scores: (kind == Kind::Scored).then_some(samples.scores),
                labels: (kind == Kind::Labelled).then_some(samples.labels),
                classes: classes.clone(),
                prompts: prompts.clone(),
                origins: samples.origins,
                weights: Weights::new(&samples.sources)?,
                apart,
                distinct: OnceLock::new(),
            })
        };
        let mut notes = self.notes;
        let train = of(train, recipe.no_duplicates)?;
        let dev = dev.map(|dev| of(Samples { sources: vec![(dev.origins.rows.len(), 1.0)], ..dev }, false)).transpose()?;
        if train.weights.per_epoch() != train.samples() {
            let (epoch, all) = (train.weights.per_epoch(), train.samples());
            notes.push(format!("an epoch has {epoch} samples of {all}, by the weights of the sources"));
        }
        Ok(Sentences { train, dev, notes })
    }
}

impl Samples {
    /// Those samples for which `out` is `wanted`.
    fn part(&self, out: &[bool], wanted: bool, columns: usize) -> Samples {
        let mut before = vec![0; out.len() + 1];
        out.iter().enumerate().for_each(|(at, out)| before[at + 1] = before[at] + usize::from(*out == wanted));
        let kept = |end: usize| before[end];
        let at = || (0..out.len()).filter(|sample| out[*sample] == wanted);
        let files = self.origins.files.iter().map(|(path, word, end)| (path.clone(), *word, kept(*end))).collect();
        Samples {
            cells: at().flat_map(|sample| self.cells[sample * columns..][..columns].iter().copied()).collect(),
            scores: at().filter_map(|sample| self.scores.get(sample).copied()).collect(),
            labels: at().filter_map(|sample| self.labels.get(sample).copied()).collect(),
            origins: Origins { files, rows: at().map(|sample| self.origins.rows[sample]).collect() },
            sources: self.sources.iter().map(|(end, weight)| (kept(*end), *weight)).collect(),
        }
    }
}

/// A score, which has to be a number.
fn score(cell: Option<&str>) -> Result<f32> {
    let hint = "each pair needs a number; leave the row out, or name another column in data.columns.score";
    let Some(cell) = cell else { return Err(Error::new("the score is missing").hint(hint)) };
    match cell.parse::<f32>() {
        Ok(score) if score.is_finite() => Ok(score),
        _ => Err(Error::new(format!("the score `{}` is not a number", short_cell(cell))).hint(hint)),
    }
}
