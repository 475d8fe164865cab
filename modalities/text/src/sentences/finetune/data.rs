//! The texts of a task: those to train on, of which some keep their labels, and those to test on.

use std::path::Path;

use ctk_core::modality::Split;
use ctk_core::{Context, Error, Result};
use ctk_texts::files::{self, Encoding};
use ctk_texts::identity::identity;
use ctk_texts::labelled::{self, Reading};
use ctk_texts::pairs::recipe::{ColumnRecipe, SentencesDataRecipe};
use ctk_texts::table::{Column, Texts, Wish};

use super::recipe::FinetuneRecipe;

/// The texts of a task.
pub struct Data {
    /// Training texts with classes.
    pub train: Texts,
    /// Test texts with classes.
    pub test: Texts,
    /// How the parts were made.
    pub origin: &'static str,
    /// What was chosen, skipped and counted.
    pub notes: Vec<String>,
}

/// How the recipe's files are read.
///
/// # Errors
/// An unknown encoding.
pub fn reading(data: &SentencesDataRecipe) -> Result<Reading> {
    let column = |column: &Option<ColumnRecipe>| {
        column.clone().map(|column| match column {
            ColumnRecipe::Number(number) => Column::Number(number),
            ColumnRecipe::Name(name) => Column::Name(name),
        })
    };
    let wish = Wish { text: column(&data.columns.anchor), label: column(&data.columns.label) };
    Ok(Reading { encoding: Encoding::named(&data.encoding)?, invalid: data.invalid, wish })
}

/// The texts that `data` names, all parts.
fn all(data: &SentencesDataRecipe) -> Result<Texts> {
    match &data.path {
        Some(paths) => labelled::read_all(paths.list(), &reading(data)?),
        None => Ok(labelled::generated(data.pairs)),
    }
}

/// The test texts of `task` that are in files of their own, all of them.
fn apart(data: &SentencesDataRecipe, task: &FinetuneRecipe) -> Result<Option<Texts>> {
    task.test.as_ref().map(|paths| labelled::read_all(paths.list(), &reading(data)?)).transpose()
}

/// One part of a task's texts, with a note of how it was made.
///
/// # Errors
/// Files that cannot be read; texts without classes; an empty part.
pub fn part(data: &SentencesDataRecipe, task: &FinetuneRecipe, split: Split) -> Result<(Texts, Option<&'static str>)> {
    let place = || data.path.as_ref().map_or("the generated texts".to_string(), |paths| paths.list().join(", "));
    let of_data = all(data)?;
    with_classes(&of_data).at(place())?;
    let Some(test) = apart(data, task)? else { return of_data.part(split).at(place()) };
    let place_of_test = || task.test.as_ref().map_or(String::new(), |paths| paths.list().join(", "));
    with_classes(&test).at(place_of_test())?;
    let whole = |texts: Texts, as_test: bool| {
        let test = Some(vec![as_test; texts.len()]);
        Texts { test, ..texts }
    };
    match split {
        Split::Test => whole(test, true).part(Split::Test).at(place_of_test()).map(|(texts, _)| (texts, Some(OWN))),
        Split::Train => {
            let others = of_data.test.as_ref().map_or(0, |test| test.iter().filter(|test| **test).count());
            let mut train = match of_data.test {
                Some(_) => of_data.part(Split::Train).at(place())?.0,
                None => whole(of_data, false).part(Split::Train).at(place())?.0,
            };
            if others > 0 {
                train
                    .notes
                    .push(format!("{others} test texts of the data are not used, because task.finetune.test names others"));
            }
            Ok((train, Some(OWN)))
        }
        Split::All => Ok((of_data, None)),
    }
}

const OWN: &str = "a file of its own";

fn with_classes(texts: &Texts) -> Result<()> {
    match texts.labels {
        Some(_) => Ok(()),
        None => Err(Error::usage("these texts have no classes to learn from")
            .hint("give a table with columns `text` and `label` (--data), or name the columns: --set data.columns.anchor=… (the text) and data.columns.label=…")),
    }
}

impl Data {
    /// Reads all texts, and says what a user should know of them.
    ///
    /// # Errors
    /// As for [`part`]; texts of one class only; a test part none of whose classes is trained on.
    pub fn open(data: &SentencesDataRecipe, task: &FinetuneRecipe) -> Result<Data> {
        let (train, origin) = part(data, task, Split::Train)?;
        let (test, _) = part(data, task, Split::Test)?;
        if let [only] = &train.classes[..] {
            return Err(Error::usage(format!("all {} training texts are of one class, `{only}`", train.len())).hint(
                "a classifier needs two classes or more; is the column of the classes the right one (data.columns.label)?",
            ));
        }
        let mut notes = train.notes.clone();
        notes.extend(test.notes.iter().filter(|note| !train.notes.contains(note)).cloned());
        let missing = |of: &Texts, from: &Texts| -> Vec<String> {
            of.classes.iter().filter(|class| !from.classes.contains(class)).cloned().collect()
        };
        let (unknown, untested) = (missing(&test, &train), missing(&train, &test));
        if unknown.len() == test.classes.len() {
            return Err(Error::usage(format!(
                "no class of the test texts is among those of the training texts: {} and {}",
                listed(&test.classes),
                listed(&train.classes)
            ))
            .hint("are both files of one set, with the classes in the column that is read (data.columns.label)?"));
        }
        if !unknown.is_empty() {
            let count = test.labels.iter().flatten().filter(|label| unknown.contains(&test.classes[**label as usize])).count();
            notes.push(format!(
                "{count} test texts are of classes that no training text has, and count as wrong: {}",
                listed(&unknown)
            ));
        }
        if !untested.is_empty() {
            notes.push(format!("no test text is of these classes: {}", listed(&untested)));
        }
        notes.extend(labelled::in_both(&train, &test));
        Ok(Data { train, test, origin: origin.unwrap_or(OWN), notes })
    }

    /// A digest of the files; none for generated texts.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn identity(data: &SentencesDataRecipe, task: &FinetuneRecipe) -> Result<Option<String>> {
        let Some(paths) = &data.path else { return Ok(None) };
        let tests = task.test.iter().flat_map(|paths| paths.list().to_vec());
        identity(&files::find(&paths.list().iter().cloned().chain(tests).collect::<Vec<_>>())?)
    }
}

/// Names as messages list them.
fn listed(names: &[String]) -> String {
    let shown: Vec<String> = names.iter().take(5).map(|name| format!("`{}`", ctk_core::error::short(name, 40))).collect();
    format!("{}{}", shown.join(", "), if names.len() > 5 { format!(" and {} more", names.len() - 5) } else { String::new() })
}

/// The texts at `path`, read as a task's own data; where its columns are not there, by common names.
///
/// # Errors
/// Files that cannot be read.
pub fn other(path: &Path, data: &SentencesDataRecipe) -> Result<Texts> {
    let own = reading(data)?;
    if own.wish == Wish::default() {
        return labelled::read(path, &own);
    }
    if let Ok(texts) = labelled::read(path, &own) {
        return Ok(texts);
    }
    let mut texts = match labelled::read(path, &Reading { wish: Wish { label: None, ..own.wish.clone() }, ..own.clone() }) {
        Ok(texts) => texts,
        Err(_) => labelled::read(path, &Reading { wish: Wish::default(), ..own })?,
    };
    texts.notes.push("the columns of the run's own data are not all here: others are recognised by common names".to_string());
    Ok(texts)
}
