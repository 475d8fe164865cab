//! Chooses the columns of a Parquet table: by `data.columns`, by common names, and by the metadata of the `datasets` library.
//!
//! `datasets` stores images as a structure of `bytes` and `path`, classes as numbers, and the class names in the file's metadata.

use ctk_core::store::parquet::{Column, Kind, Parquet};
use ctk_core::{Error, Result};
use serde_json::Value;

use super::super::ColumnNames;
use super::super::captions::{self, Reading};
use super::super::report::{Found, some};
use super::super::table::{GROUPS, LABELS, PATHS, SPLITS};

/// Where the images of a table are.
#[derive(Clone, Copy)]
pub(super) enum Image {
    /// A column of paths.
    Paths(usize),
    /// A column of image files' bytes; of `datasets`' structure also the column with their original paths.
    Bytes(usize, Option<usize>),
}

/// The columns that are used, by their places.
pub(super) struct Chosen {
    pub image: Image,
    pub label: Option<usize>,
    pub split: Option<usize>,
    pub group: Option<usize>,
    /// The columns of captions, texts or lists of texts; none where captions are not read.
    pub captions: Vec<usize>,
    /// Class names for the numbers in the label column, if the metadata has them.
    pub classes: Option<Vec<String>>,
}

/// Chooses the columns of `table`.
///
/// # Errors
/// No column is recognised as images; or a column that is named does not exist or holds something else.
pub(super) fn choose(table: &Parquet, how: Reading, found: &mut Found) -> Result<Chosen> {
    let wish = how.columns;
    let table = Named { columns: table.columns(), features: features(table) };
    let image = table.image(&wish.path, found)?;
    let label = match table.plain(&wish.label, LABELS, "label", found)? {
        Some(label) => Some(label),
        None => table.class_label(found),
    };
    let split = table.plain(&wish.split, SPLITS, "split", found)?;
    let group = table.plain(&wish.group, GROUPS, "group", found)?;
    let whole = |label: &usize| table.columns[*label].kind == Kind::Whole;
    let classes = label.filter(whole).and_then(|label| table.classes(&table.columns[label].parts[0]));
    let others: Vec<usize> = [label, split, group].into_iter().flatten().chain(image.columns()).collect();
    let captions = table.captions(how, &others)?;
    Ok(Chosen { image, label, split, group, captions, classes })
}

/// The names of a table's columns, for messages.
pub(super) fn listing(table: &Parquet) -> String {
    Named { columns: table.columns(), features: serde_json::Map::new() }.all()
}

impl Image {
    fn columns(self) -> impl Iterator<Item = usize> {
        let (first, second) = match self {
            Image::Paths(column) => (column, None),
            Image::Bytes(column, path) => (column, path),
        };
        std::iter::once(first).chain(second)
    }
}

impl Chosen {
    /// The chosen columns: what each one is used for, and its name.
    pub fn said<'a>(&self, columns: &'a [Column]) -> Vec<(&'static str, &'a str)> {
        let name = |column: usize| columns[column].parts[0].as_str();
        let image = match self.image {
            Image::Paths(column) => ("paths", name(column)),
            Image::Bytes(column, _) => ("images", name(column)),
        };
        let others = [("labels", self.label), ("parts", self.split), ("groups", self.group)];
        let others = others.into_iter().filter_map(|(what, column)| Some((what, name(column?))));
        let captions = self.captions.iter().map(|column| ("captions", name(*column)));
        std::iter::once(image).chain(others).chain(captions).collect()
    }
}

/// The metadata of `datasets` about a table's columns, by name.
fn features(table: &Parquet) -> serde_json::Map<String, Value> {
    let noted = table.metadata("huggingface").and_then(|text| serde_json::from_str::<Value>(text).ok());
    noted.and_then(|noted| noted["info"]["features"].as_object().cloned()).unwrap_or_default()
}

struct Named<'a> {
    columns: &'a [Column],
    features: serde_json::Map<String, Value>,
}

impl Named<'_> {
    /// The column `name`, ignoring case.
    fn place(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.parts[0].eq_ignore_ascii_case(name))
    }

    /// The names of all columns, with remarks on those that are not plain values.
    fn all(&self) -> String {
        let mut names: Vec<String> = Vec::new();
        let mut before = "";
        for column in self.columns {
            let name = column.parts[0].as_str();
            if std::mem::replace(&mut before, name) == name {
                continue;
            }
            names.push(match (column.listed, column.parts.len()) {
                (true, _) => format!("{name} (lists)"),
                (false, 1) => name.to_string(),
                (false, _) => format!("{name} (a structure)"),
            });
        }
        if names.is_empty() { "none".into() } else { names.join(", ") }
    }

    fn missing(&self, name: &str, key: &str) -> Error {
        Error::usage(format!("there is no column `{name}`: the table has {}", self.all()))
            .hint(format!("set data.columns.{key} to one of them"))
    }

    fn image(&self, wish: &Option<String>, found: &mut Found) -> Result<Image> {
        if let Some(name) = wish {
            let place = self.place(name).ok_or_else(|| self.missing(name, "path"))?;
            let column = &self.columns[place];
            return self.embedded(place).or_else(|| self.path(place)).ok_or_else(|| {
                let holds = if column.parts.len() > 1 && !column.listed { "a structure without `bytes`" } else { column.holds() };
                Error::usage(format!("the column `{name}` holds {holds}, which are not images"))
                    .hint("a cell is a path, or the bytes of an image file; write lists of images as one row for each image")
            });
        }
        // First a column that the library declares as images, then one with a common name, then any that holds bytes.
        let is_image = |feature: &Value| feature["_type"] == "Image";
        let noted: Vec<usize> =
            self.features.iter().filter(|(_, of)| is_image(of)).filter_map(|(name, _)| self.place(name)).collect();
        let known: Vec<usize> = PATHS.iter().filter_map(|name| self.place(name)).collect();
        let any: Vec<usize> = (0..self.columns.len()).collect();
        for places in [&noted, &known, &any] {
            let mut of: Vec<(usize, Image)> = places.iter().filter_map(|&place| Some((place, self.embedded(place)?))).collect();
            of.dedup_by_key(|(place, _)| self.columns[*place].parts[0].as_str());
            if let [(first, _), _, ..] = of[..] {
                let name = |place: usize| format!("`{}`", self.columns[place].parts[0]);
                let names: Vec<String> = of.iter().map(|(place, _)| name(*place)).collect();
                found.note(format!(
                    "several columns hold images ({}): {} is read; to read another: --set data.columns.path=NAME",
                    some(&names, names.len()),
                    name(first)
                ));
            }
            if let Some((_, image)) = of.first() {
                return Ok(*image);
            }
        }
        noted.iter().chain(&known).find_map(|&place| self.path(place)).ok_or_else(|| {
            Error::usage(format!("no column of this table is known to hold images: it has {}", self.all()))
                .hint("a cell is a path, or the bytes of an image file; to name the column: --set data.columns.path=NAME")
        })
    }

    /// The column at `place`, if its cells are image files' bytes, alone or in `datasets`' structure.
    fn embedded(&self, place: usize) -> Option<Image> {
        let name = &self.columns[place].parts[0];
        let field = |field: &str, kind: Kind| {
            let is = |column: &Column| column.parts == [name.as_str(), field] && column.kind == kind && !column.listed;
            self.columns.iter().position(is)
        };
        let column = &self.columns[place];
        if column.parts.len() == 1 {
            return (column.kind == Kind::Bytes && !column.listed).then_some(Image::Bytes(place, None));
        }
        Some(Image::Bytes(field("bytes", Kind::Bytes)?, field("path", Kind::Text)))
    }

    /// The column at `place`, if its cells can be paths: text, or numbers that are file names.
    fn path(&self, place: usize) -> Option<Image> {
        let column = &self.columns[place];
        let plain = column.parts.len() == 1 && !column.listed && matches!(column.kind, Kind::Text | Kind::Whole);
        plain.then_some(Image::Paths(place))
    }

    /// The column of text or numbers that `wish` names, or else the first of `known` that exists.
    fn plain(&self, wish: &Option<String>, known: &[&str], key: &str, found: &mut Found) -> Result<Option<usize>> {
        let is_plain = |place: usize| {
            let column = &self.columns[place];
            column.parts.len() == 1 && !column.listed && matches!(column.kind, Kind::Text | Kind::Whole | Kind::Real)
        };
        let holds = |place: usize| match self.columns[place].parts.len() {
            1 => self.columns[place].holds(),
            _ if self.columns[place].listed => "lists",
            _ => "a structure",
        };
        match wish {
            Some(name) => match self.place(name) {
                None => Err(self.missing(name, key)),
                Some(place) if is_plain(place) => Ok(Some(place)),
                Some(place) => {
                    Err(Error::usage(format!("the column `{name}` holds {}, and a {key} is text or a number", holds(place)))
                        .hint(format!("set data.columns.{key} to another column; the table has {}", self.all())))
                }
            },
            None => {
                let places: Vec<usize> = known.iter().filter_map(|name| self.place(name)).collect();
                let first = places.iter().copied().find(|&place| is_plain(place));
                if let (None, Some(&place)) = (first, places.first()) {
                    let name = &self.columns[place].parts[0];
                    found.note(format!("the column `{name}` is not read: it holds {}", holds(place)));
                }
                Ok(first)
            }
        }
    }

    /// The columns of captions: those that are named, or else recognised, if they are not among the `others`.
    fn captions(&self, how: Reading, others: &[usize]) -> Result<Vec<usize>> {
        let named = how.columns.captions.as_ref().map_or(&[][..], ColumnNames::list).iter().map(|name| {
            let place = self.place(name).ok_or_else(|| self.missing(name, "captions"))?;
            self.texts(place, true).ok_or_else(|| {
                let holds =
                    if self.columns[place].parts.len() == 1 { self.columns[place].holds() } else { "no text, nor lists of it" };
                Error::usage(format!("the column `{name}` holds {holds}, and captions are text or lists of text"))
                    .hint(format!("set data.columns.captions to another column; the table has {}", self.all()))
            })
        });
        let named = named.collect::<Result<Vec<usize>>>()?;
        if !how.captions || how.columns.captions.is_some() {
            return Ok(if how.captions { named } else { Vec::new() });
        }
        // Each column once, also one of several fields.
        let mut before = "";
        let all = self.columns.iter().enumerate().filter_map(|(place, column)| {
            let name = column.parts[0].as_str();
            let first = std::mem::replace(&mut before, name) != name;
            let place = first.then(|| self.texts(place, false)).flatten()?;
            (!others.contains(&place)).then_some((place, name))
        });
        Ok(captions::recognised(all.collect::<Vec<_>>().into_iter()))
    }

    /// The texts of the column that begins at `place`: plain, or a list; of a list of structures the field whose name is common for captions.
    /// Numbers are texts in a column that is `named`.
    fn texts(&self, place: usize, named: bool) -> Option<usize> {
        let column = &self.columns[place];
        if column.parts.len() == 1 && !column.listed {
            let plain = column.kind == Kind::Text || (named && matches!(column.kind, Kind::Whole | Kind::Real));
            return plain.then_some(place);
        }
        let same = self.columns.iter().enumerate().skip(place).take_while(|(_, of)| of.parts[0] == column.parts[0]);
        let fields: Vec<(usize, &Column)> = same.filter(|(_, of)| of.listed && of.kind == Kind::Text).collect();
        // Writers call a list's inner levels `list` and `element`, `item` or `array`.
        let is_level = |part: &String| ["list", "element", "item", "array", "bag", "array_element"].contains(&part.as_str());
        let is_bare = |of: &Column| of.parts[1..].iter().all(is_level);
        let is_field = |of: &Column| of.parts[1..].iter().filter(|part| !is_level(part)).all(|part| captions::is_known(part));
        let of = fields.iter().find(|(_, of)| is_bare(of)).or_else(|| fields.iter().find(|(_, of)| is_field(of)));
        of.map(|(place, _)| *place)
    }

    /// The column that the library declares as classes; of several the one with the most classes.
    fn class_label(&self, found: &mut Found) -> Option<usize> {
        let is_class = |feature: &Value| feature["_type"] == "ClassLabel";
        let of = self.features.iter().filter(|(_, of)| is_class(of)).filter_map(|(name, _)| {
            let place = self.place(name).filter(|&place| self.columns[place].kind == Kind::Whole)?;
            (!self.columns[place].listed && self.columns[place].parts.len() == 1).then_some((place, self.classes(name)?.len()))
        });
        let of: Vec<(usize, usize)> = of.collect();
        // The first of those with the most.
        let &(most, _) = of.iter().rev().max_by_key(|(_, classes)| *classes)?;
        if of.len() > 1 {
            let names: Vec<String> = of.iter().map(|(place, _)| format!("`{}`", self.columns[*place].parts[0])).collect();
            found.note(format!(
                "several columns hold classes ({}): `{}` is read, which has the most; to read another: --set data.columns.label=NAME",
                some(&names, names.len()),
                self.columns[most].parts[0]
            ));
        }
        Some(most)
    }

    /// The class names for the numbers in the column `name`.
    fn classes(&self, name: &str) -> Option<Vec<String>> {
        let feature = self.features.get(name).filter(|feature| feature["_type"] == "ClassLabel")?;
        let names: Option<Vec<String>> =
            feature["names"].as_array()?.iter().map(|name| name.as_str().map(String::from)).collect();
        names.filter(|names| !names.is_empty())
    }
}
