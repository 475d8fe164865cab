//! Captions in archives by WebDataset's names: `key.txt` is a caption of `key.jpg`, and `key.json` has a field with captions.

use std::collections::HashMap;
use std::sync::Arc;

use ctk_core::{Error, Result};
use serde_json::Value;

use super::super::archive::{Body, Inner};
use super::super::report::{Found, NotRead, count, some};
use super::super::tar::{first, last, unending};
use super::super::tree::kind;
use super::{Captions, HINT, Reading, add, add_value, repeated, unique};

/// The longest file with captions, in bytes.
pub(in super::super) const LONGEST: u64 = 1 << 20;

/// A file that may hold captions.
pub(in super::super) enum Text {
    /// `key.txt`.
    Plain { captions: Captions, damaged: bool },
    /// `key.json`.
    Fields(Captions),
    /// A file of more than [`LONGEST`] bytes.
    Long,
    /// A `.json` that is not JSON.
    Broken,
}

impl Text {
    /// The captions in `bytes`, the content of the file `path`.
    pub fn of(path: &str, bytes: &[u8], how: Reading) -> Text {
        if bytes.len() as u64 > LONGEST {
            return Text::Long;
        }
        let mut captions = Captions::new();
        if kind(path) == "txt" {
            let text = String::from_utf8_lossy(bytes);
            add(&mut captions, &text);
            let damaged = matches!(text, std::borrow::Cow::Owned(_));
            return Text::Plain { captions, damaged };
        }
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let Ok(value) = serde_json::from_slice::<Value>(bytes) else { return Text::Broken };
        match &how.columns.captions {
            Some(names) => {
                for name in names.list() {
                    let field =
                        value.as_object().and_then(|fields| fields.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)));
                    field.iter().for_each(|(_, value)| add_value(&mut captions, value));
                }
            }
            None => add_value(&mut captions, &value),
        }
        Text::Fields(captions)
    }
}

/// What was met in all archives, reported once.
#[derive(Default)]
pub(in super::super) struct Met {
    /// Samples with captions in both files.
    both: usize,
    repeats: usize,
    /// Texts that are not UTF-8.
    damaged: NotRead,
    /// Whether any image has a caption.
    any: bool,
}

/// The texts of one key.
#[derive(Default)]
struct Texts {
    plain: Option<Captions>,
    fields: Option<Captions>,
    paths: Vec<String>,
}

impl Met {
    /// Gives each image of the archive `name` its captions; files that belong to no image are counted as not read.
    pub fn attach(&mut self, name: &str, inner: Vec<Inner>, how: Reading, found: &mut Found) -> Vec<Inner> {
        let mut texts: HashMap<String, Texts> = HashMap::new();
        let mut rest = Vec::with_capacity(inner.len());
        for inner in inner {
            let Body::Text(text) = inner.body else {
                rest.push(inner);
                continue;
            };
            let of = texts.entry(unending(&inner.path).to_string()).or_default();
            match text {
                Text::Plain { captions, damaged } => {
                    if damaged {
                        self.damaged.add(&format!("{name}/{}", inner.path));
                    }
                    of.plain.get_or_insert_default().extend(captions);
                }
                Text::Fields(captions) => of.fields.get_or_insert_default().extend(captions),
                Text::Long | Text::Broken => {
                    leave_out(if matches!(text, Text::Long) { LONG } else { BROKEN }, &inner.path, found);
                    continue;
                }
            }
            of.paths.push(inner.path);
        }
        // Keys up to the last dot, and then those up to the first: `x.txt` belongs to `x.png`, and to `x.seg.png` only without this.
        for key in [last, first] {
            for inner in rest.iter_mut().filter(|inner| matches!(inner.body, Body::Image(_)) && inner.captions.is_none()) {
                inner.captions = texts.remove(key(&inner.path)).and_then(|of| self.captions(of, how));
            }
        }
        let mut alone: Vec<String> = texts.into_values().flat_map(|of| of.paths).collect();
        alone.sort();
        for path in alone {
            leave_out(&kind(path.rsplit('/').next().unwrap_or_default()), &path, found);
        }
        rest
    }

    /// The captions of an image by its texts.
    fn captions(&mut self, of: Texts, how: Reading) -> Option<Arc<Captions>> {
        let (plain, fields) = (of.plain.filter(|of| !of.is_empty()), of.fields.filter(|of| !of.is_empty()));
        self.both += usize::from(plain.is_some() && fields.is_some());
        // A field that is named is what the user wants.
        let (wanted, other) = if how.columns.captions.is_some() { (fields, plain) } else { (plain, fields) };
        let mut captions = wanted.or(other)?;
        self.repeats += unique(&mut captions);
        self.any = true;
        Some(Arc::new(captions))
    }

    /// Reports what was met in all archives.
    ///
    /// # Errors
    /// A column is named, and no archive has captions.
    pub fn say(self, how: Reading, found: &mut Found) -> Result<()> {
        if let (Some(names), false) = (&how.columns.captions, self.any) {
            let names: Vec<String> = names.list().iter().map(|name| format!("`{name}`")).collect();
            let what = format!("no image of these archives has a caption: no key.json has a field {}", names.join(" or "));
            return Err(Error::usage(what).hint(HINT));
        }
        if self.both > 0 {
            let read = if how.columns.captions.is_some() { "the field that is named" } else { "the .txt" };
            let have = if self.both == 1 { "has" } else { "have" };
            found.note(format!("{} {have} captions in a .txt and in a .json: {read} is read", count(self.both, "image")));
        }
        repeated(self.repeats, found);
        if self.damaged.count > 0 {
            let number = self.damaged.count;
            let what = if number == 1 { "is not text in UTF-8: its" } else { "are not text in UTF-8: their" };
            let names = some(&self.damaged.first, number);
            found.note(format!("{} {what} wrong bytes are replaced ({names})", count(number, "caption")));
        }
        Ok(())
    }
}

const LONG: &str = "file of captions that is longer than 1 MB";
const BROKEN: &str = "file of captions that is not JSON";

/// Counts a text that no image uses.
fn leave_out(kind: &str, path: &str, found: &mut Found) {
    found.files += 1;
    found.pass_over(kind, path);
}
