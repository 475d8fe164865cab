//! Texts with classes from any file, or from several: a table (text, TSV, CSV, JSON lines, Parquet), a folder of tables, or a glob.
//!
//! Of several files each belongs to the part that its name says, as `train.tsv`, `sst2-test.csv` or `test/0.parquet`. Of one file the column
//! `split` says it, or a fifth of each class is held out: see [`Texts::part`].

mod names;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;

use ctk_core::rng::Key;
use ctk_core::{Context, Error, Result};

use crate::cells::{Row, plain_name};
use crate::corpus::Invalid;
use crate::files::{self, Encoding};
use crate::language;
use crate::pairs::rows::{self, Table};
use crate::table::columns::{Columns, Wish};
use crate::table::{Texts, rows::fill};
use names::{Named, Part};

/// How the files are read.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// The encoding of text files.
    pub encoding: Encoding,
    /// What to do about bytes that are not characters.
    pub invalid: Invalid,
    /// Columns that the user names.
    pub wish: Wish,
}

/// Reads the texts at `path`: a file, a folder, or a glob.
///
/// # Errors
/// As for [`read_all`].
pub fn read(path: &Path, reading: &Reading) -> Result<Texts> {
    let given = path.display().to_string();
    let several = path.is_dir() || given.contains("://") || (!path.exists() && given.contains(['*', '?', '[', '{']));
    if several { read_all(&[given], reading) } else { file(path, reading) }
}

/// Reads the texts at all `paths`, which together are one set.
///
/// # Errors
/// A path that names nothing; files of several sets; a file that cannot be read, or whose columns are not told; files of which some have
/// classes and others none.
pub fn read_all(paths: &[String], reading: &Reading) -> Result<Texts> {
    let found = files::find(paths)?;
    if let [only] = &found[..] {
        return file(only, reading);
    }
    let named = Named::all(&found)?;
    let mut all = Texts { notes: named.notes, ..Texts::default() };
    let (mut labels, mut test): (Vec<String>, Vec<bool>) = (Vec::new(), Vec::new());
    let mut first: Option<(&Path, bool)> = None;
    for (path, name, part) in &named.files {
        let mut texts = parse(path, reading)?;
        texts.in_file(name);
        let labelled = texts.labels.is_some();
        match first {
            None => first = Some((path, labelled)),
            Some((other, with)) if with != labelled => {
                let says = |with: bool| if with { "classes" } else { "no classes" };
                return Err(Error::usage(format!(
                    "this file has {}, and {} has {}",
                    says(labelled),
                    other.display(),
                    says(with)
                ))
                .at(path.display())
                .hint("all files of a set are alike: leave one out"));
            }
            Some(_) => {}
        }
        labels.extend(texts.labels.iter().flatten().map(|label| texts.classes[*label as usize].clone()));
        test.extend(std::iter::repeat_n(*part == Part::Test, texts.len()));
        all.notes.extend(texts.notes.into_iter().map(|note| format!("{name}: {note}")));
        all.names.extend(texts.names);
        all.texts.extend(texts.texts);
    }
    if first.is_some_and(|(_, labelled)| labelled) {
        let classes: BTreeSet<&String> = labels.iter().collect();
        let numbers: BTreeMap<&String, u32> = classes.into_iter().zip(0..).collect();
        all.labels = Some(labels.iter().map(|label| numbers[label]).collect());
        all.classes = numbers.into_keys().cloned().collect();
    }
    // Without a test file a part is held out.
    all.test = test.contains(&true).then_some(test);
    Ok(all)
}

/// Generated texts with classes.
pub fn generated(count: usize) -> Texts {
    let (mut texts, mut names) = (Texts::default(), Vec::new());
    for (number, (text, class)) in language::labelled_texts(count, Key::new(0)).into_iter().enumerate() {
        texts.names.push(format!("text {}", number + 1));
        texts.texts.push(text);
        names.push(class);
    }
    let classes: BTreeSet<&str> = names.iter().copied().collect();
    let classes: Vec<&str> = classes.into_iter().collect();
    texts.labels = Some(names.iter().map(|name| classes.partition_point(|class| class < name) as u32).collect());
    texts.classes = classes.into_iter().map(String::from).collect();
    texts
}

/// Texts of `test` that are among those of `train`, too, as a note.
pub fn in_both(train: &Texts, test: &Texts) -> Option<String> {
    let seen: HashSet<&str> = train.texts.iter().map(|text| text.trim()).collect();
    let both = test.texts.iter().filter(|text| seen.contains(text.trim())).count();
    (both > 0).then(|| format!("{both} of {} test texts are among the training texts, too", test.len()))
}

/// The texts of one file; its column `split` may say their parts.
fn file(path: &Path, reading: &Reading) -> Result<Texts> {
    let mut texts = parse(path, reading)?;
    texts.in_file(&path.file_name().unwrap_or_default().to_string_lossy());
    Ok(texts)
}

/// The texts of one file, named by their lines.
fn parse(path: &Path, reading: &Reading) -> Result<Texts> {
    let name = plain_name(path);
    let ends = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
    let texts = if ends(&[".jsonl", ".ndjson", ".json", ".parquet", ".pq"]) {
        objects(path, reading).at(path.display())?
    } else {
        Texts::parsed(path, reading.encoding, reading.invalid, &reading.wish)?
    };
    match (&reading.wish.label, &texts.labels) {
        (Some(_), None) => Err(Error::usage("this file has no column of classes: it has one text on each line")
            .at(path.display())
            .hint("a line is label, tab, text")),
        _ => Ok(texts),
    }
}

/// The texts of JSON lines or Parquet.
fn objects(path: &Path, reading: &Reading) -> Result<Texts> {
    let mut notes = Vec::new();
    let read = rows::Reading { format: None, encoding: reading.encoding, invalid: reading.invalid };
    let of = Table::open(path, &read, false, &mut notes)?;
    let all: Vec<usize> = (0..of.columns).collect();
    let mut cells: Vec<(usize, Vec<String>)> = Vec::new();
    // Only the columns that are used are read, because others may be lists.
    let names = of.names.clone().unwrap_or_else(|| all.iter().map(|at| (at + 1).to_string()).collect());
    let line: Vec<&str> = names.iter().map(String::as_str).collect();
    let (columns, _) = reading.wish.columns(&line)?;
    let one_text = line.len() == 1;
    let Some(columns) = columns.filter(|columns| columns.label.is_some()) else {
        let text = reading.wish.columns(&line)?.0.map(|columns| columns.text).or(one_text.then(|| vec![0])).unwrap_or_default();
        let [text] = text[..] else {
            return Err(Error::usage(format!(
                "the columns of texts and classes are not recognised: there are {}",
                line.join(", ")
            ))
            .hint("call them `label` and `text`, or name them: data.columns.anchor is the text, data.columns.label the class"));
        };
        let mut texts = Texts { notes, ..Texts::default() };
        of.each(&[text], &mut |_, cells| {
            let text = cells[0].unwrap_or_default();
            texts.names.push(text.trim().to_string());
            texts.texts.push(text.to_string());
            Ok(true)
        })?;
        return Ok(texts);
    };
    let used: Vec<usize> = columns.text.iter().copied().chain(columns.label).chain(columns.split).collect();
    of.each(&used, &mut |row, found| {
        cells.push((row, found.iter().map(|cell| cell.unwrap_or_default().to_string()).collect()));
        Ok(true)
    })?;
    // A table of the used columns alone.
    let (texts, between) = (columns.text.len(), columns.between);
    let split = columns.split.map(|_| texts + 1);
    let escaped = used.iter().map(|at| columns.escaped[*at]).collect();
    let kept = Columns { label: Some(texts), text: (0..texts).collect(), split, between, escaped, note: columns.note };
    let rows: Vec<Row> = cells.iter().map(|(row, cells)| (*row, cells.iter().map(String::as_str).collect())).collect();
    let mut texts = fill(&rows, kept)?;
    texts.notes.splice(0..0, notes);
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use ctk_core::modality::Split;

    use super::*;
    use crate::table::Column;

    fn of(files: &[(&str, &str)]) -> (tempfile::TempDir, Result<Texts>) {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let texts = read(folder.path(), &Reading::default());
        (folder, texts)
    }

    #[test]
    fn files_of_a_folder_are_parts_by_their_names() {
        let files = [
            ("a.train.tsv", "label\ttext\nx\tone\ny\ttwo\n"),
            ("a.test.tsv", "label\ttext\ny\tthree\nz\tfour\n"),
            ("a.dev.tsv", "label\ttext\ny\tfive\n"),
            ("README.md", "about"),
            ("labels.txt", "x\ny\n"),
        ];
        let (folder, texts) = of(&files);
        let texts = texts.unwrap();
        let (train, test) = (texts.clone().part(Split::Train).unwrap().0, texts.clone().part(Split::Test).unwrap().0);
        assert_eq!(
            (train.texts, train.names),
            (vec!["one".into(), "two".into()], vec!["a.train.tsv:2".into(), "a.train.tsv:3".to_string()])
        );
        assert_eq!((train.classes, train.labels), (vec!["x".into(), "y".to_string()], Some(vec![0, 1])));
        assert_eq!((test.classes, test.labels), (vec!["y".into(), "z".to_string()], Some(vec![0, 1])));
        let notes = texts.notes.join("\n");
        assert!(
            notes.contains("a.dev.tsv is not read") && notes.contains("README.md") && notes.contains("labels.txt"),
            "{notes}"
        );
        // The same names from wherever the folder is named.
        let glob = read(&folder.path().join("a.*.tsv"), &Reading::default()).unwrap();
        assert_eq!(glob.names, texts.names);
        fs::write(folder.path().join("b.train.tsv"), "label\ttext\nx\tone\n").unwrap();
        let error = read(folder.path(), &Reading::default()).unwrap_err().to_string();
        assert!(error.contains("2 sets: `a`, `b`") && error.contains("hint: "), "{error}");
    }

    #[test]
    fn pieces_and_folders_of_parts_are_one_set() {
        let row = |text: &str| format!("{{\"label\": 1, \"text\": \"{text}\"}}\n{{\"label\": 0, \"text\": \"other {text}\"}}\n");
        let (one, two, three) = (row("a"), row("b"), row("c"));
        let files = [("train/0001-of-0002.jsonl", &one), ("train/0002-of-0002.jsonl", &two), ("test/0.jsonl", &three)];
        let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
        let (_folder, texts) = of(&files);
        let texts = texts.unwrap();
        let (train, _) = texts.clone().part(Split::Train).unwrap();
        assert_eq!(
            (train.len(), &train.classes[..], &train.names[0][..]),
            (4, &["0".to_string(), "1".to_string()][..], "train/0001-of-0002.jsonl:1")
        );
        assert_eq!(texts.part(Split::Test).unwrap().0.len(), 2);
    }

    #[test]
    fn named_columns_are_used_and_unknown_ones_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.csv");
        let reading = |text: Option<Column>, label: Option<Column>| Reading { wish: Wish { text, label }, ..Reading::default() };
        let name = |name: &str| Some(Column::Name(name.to_string()));
        for (file, text) in [
            ("t.csv", "what,who,mark\na b,c d,1\ne f,g h,2\n"),
            ("t.tsv", "what\twho\tmark\na b\tc d\t1\ne f\tg h\t2\n"),
            (
                "t.jsonl",
                "{\"what\": \"a b\", \"who\": \"c d\", \"mark\": 1}\n{\"what\": \"e f\", \"who\": \"g h\", \"mark\": 2}\n",
            ),
        ] {
            let path = folder.path().join(file);
            fs::write(&path, text).unwrap();
            let texts = read(&path, &reading(name("who"), name("Mark"))).unwrap();
            assert_eq!(
                (&texts.texts[..], &texts.classes[..]),
                (&["c d".to_string(), "g h".into()][..], &["1".to_string(), "2".into()][..]),
                "{file}"
            );
            let error = read(&path, &reading(name("whom"), name("mark"))).unwrap_err().to_string();
            assert!(error.contains("`whom`") && error.contains("`who`") && error.contains("data.columns.anchor"), "{error}");
            let numbered = read(&path, &reading(Some(Column::Number(1)), Some(Column::Number(9)))).unwrap_err().to_string();
            assert!(numbered.contains("no column 9"), "{numbered}");
        }
        let path_of_lists = folder.path().join("lists.jsonl");
        fs::write(&path_of_lists, "[\"x\", \"one\"]\n[\"y\", \"two\"]\n").unwrap();
        let texts = read(&path_of_lists, &reading(Some(Column::Number(2)), Some(Column::Number(1)))).unwrap();
        assert_eq!((texts.texts.len(), &texts.texts[0][..], &texts.classes[..]), (2, "one", &["x".to_string(), "y".into()][..]));
        fs::write(&path, "1,one\n2,two\n").unwrap();
        let texts = read(&path, &reading(Some(Column::Number(2)), None)).unwrap();
        assert_eq!((&texts.texts[..], texts.labels), (&["one".to_string(), "two".into()][..], Some(vec![0, 1])));
        fs::write(&path, "text\nno class\n").unwrap();
        assert!(read(&path, &reading(None, Some(Column::Number(2)))).is_err());
    }

    #[test]
    fn empty_texts_and_classes_are_counted_and_left_out_of_parts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.tsv");
        fs::write(&path, "split\tlabel\ttext\ntrain\ta\tx\ntrain\t\ty\ntrain\tb\t \ntest\ta\tz\n").unwrap();
        let texts = read(&path, &Reading::default()).unwrap();
        assert_eq!(texts.len(), 4, "all texts, as they are");
        let (train, _) = texts.part(Split::Train).unwrap();
        assert_eq!((&train.texts[..], &train.classes[..]), (&["x".to_string()][..], &["a".to_string()][..]));
        assert!(
            train.notes[0].contains("2 of 3 training texts are skipped") && train.notes[0].contains("t.tsv:3"),
            "{:?}",
            train.notes
        );
    }

    #[test]
    fn files_with_and_without_classes_are_no_set() {
        let (_folder, texts) = of(&[("train.tsv", "label\ttext\nx\tone\n"), ("test.txt", "a text\n")]);
        let error = texts.unwrap_err().to_string();
        assert!(error.contains("no classes") && error.contains("hint: "), "{error}");
        assert!(of(&[("a.bin", "x"), ("b.bin", "x")]).1.unwrap_err().to_string().contains("no table of texts"));
        let generated = generated(50);
        assert_eq!((generated.len(), generated.classes.len()), (50, 5));
        assert!(
            in_both(&generated, &generated).unwrap().contains("50 of 50") && in_both(&generated, &Texts::default()).is_none()
        );
    }
}
