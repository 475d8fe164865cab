//! Both towers of a new or resumed run before the first step: what they read, what they are, and what they begin with.

use std::path::Path;

use ctk_core::model::encoder::Encoder as _;
use ctk_core::store::checkpoint::Checkpoint;
use ctk_core::train::dense::Dense;
use ctk_core::{Context, Device, Error, Result};
use ctk_text::sentences::start::Start;
use ctk_text::sentences::tokenizing::Tokenizing;
use ctk_text::transformer::towers::names::NOT_READ;
use ctk_vision::tower;

use crate::clip;
use crate::data::{Captioned, Data};
use crate::embed;
use crate::input::SideEncoder;
use crate::network::{Begin, IMAGE, Sides, TEXT, TextSide, Towers, not_ours};
use crate::recipe::{Checked, ImageTextRecipe};
use crate::source::{Captions, Images, Pairs, Tokens};
use crate::stored::{Found, Stored};

/// Bytes of captions' rows that are kept at most.
const MOST_KEPT: usize = 1 << 30;

/// The captions of a run as its text tower reads them.
enum Read {
    Tokens(Tokens),
    Stored(Stored, Found),
}

/// Rows of a file for the images of both parts.
struct StoredImages {
    rows: Stored,
    train: Found,
    test: Option<Found>,
}

/// Both towers and what they read.
pub(crate) struct Ready {
    stored: Option<StoredImages>,
    read: Read,
    /// The encoder's rows of all captions, if the text tower is frozen and has encoded them once.
    once: Option<(Stored, Found)>,
    tokens: f64,
    /// What the towers begin with.
    pub begin: Begin,
    /// What the towers are.
    pub sides: Sides,
    /// The text tower as it began, if it is a network.
    pub start: Option<Start>,
    /// What to know about all of it.
    pub notes: Vec<String>,
}

impl Ready {
    /// What the recipe says for `data`. The text tower of a resumed run is that of its checkpoint, and its values are read later.
    ///
    /// # Errors
    /// Files that cannot be read, or do not fit together; no caption with a token that the text tower knows.
    pub fn new(checked: &Checked, data: &Data, resumed: Option<&Checkpoint>) -> Result<Ready> {
        let mut notes = Vec::new();
        let stored = checked.recipe.image.features.as_deref().map(|path| stored_images(path, data)).transpose()?;
        notes.extend(stored.iter().map(|of| of.rows.note(&of.train, "image")));
        let from = checked.recipe.train.init.as_deref().filter(|_| resumed.is_none()).map(of_run).transpose()?;
        let (read, text, start) = captions(checked, data, resumed.or(from.as_ref()), &mut notes)?;
        let sides = Sides { stored_image: stored.as_ref().map(|of| of.rows.width()), text };
        let begin = match (resumed, &from) {
            // A frozen text tower reads captions before the run's other values are loaded.
            (Some(resumed), _) if checked.recipe.text.frozen => Begin::of_section(resumed, TEXT)?,
            (Some(_), _) => Begin::default(),
            (None, Some(from)) => Begin::of_run(from)?,
            (None, None) => begin(checked, start.as_ref(), stored.is_some())?,
        };
        notes.extend(begin.notes.iter().cloned());
        let tokens = match &read {
            Read::Tokens(tokens) => tokens.mean(),
            Read::Stored(..) => 0.0,
        };
        Ok(Ready { stored, read, once: None, tokens, begin, sides, start, notes })
    }

    /// The towers of a model that another program trained, as the recipe's weights have them.
    ///
    /// # Errors
    /// Files that cannot be read.
    pub fn of_towers(checked: &Checked) -> Result<Ready> {
        let start = Start::new(&checked.recipe.text.of_sentences(), &checked.text.below("text"), Vec::new)?;
        let sides = Sides { stored_image: None, text: TextSide::Network(start.described.network.clone()) };
        let begin = begin(checked, Some(&start), false)?;
        let notes = said(checked, &start).chain(begin.notes.iter().cloned()).collect();
        let read = Read::Tokens(Tokens::default());
        Ok(Ready { stored: None, read, once: None, tokens: 0.0, begin, sides, start: Some(start), notes })
    }

    /// The learner before its first step.
    ///
    /// # Errors
    /// Values that do not fit the towers.
    pub fn learner(&self, checked: &Checked, device: &Device) -> Result<Dense<Towers>> {
        self.sides.learner(checked, &self.begin, device).map_err(|e| match &checked.recipe.train.init {
            Some(init) if !self.begin.sections.is_empty() => e.at(init.display()).hint("train.init needs the towers of that run"),
            _ => e,
        })
    }

    /// The mean number of tokens of a caption; 0 if stored features take the text tower's place.
    pub fn tokens(&self) -> f64 {
        self.tokens
    }

    /// Encodes each caption once, before the first step, if the text tower is frozen and training on `images` images would encode no fewer
    /// captions: a frozen encoder gives a caption the same row each time. Returns a note if it was done.
    ///
    /// # Errors
    /// The device fails; the process was asked to end.
    pub fn read_once(&mut self, checked: &Checked, images: usize, text: &SideEncoder) -> Result<Option<String>> {
        let Read::Tokens(tokens) = &self.read else { return Ok(None) };
        let train = &checked.recipe.train;
        let batch = train.batch.min(images).max(1);
        let steps = (images / batch).saturating_mul(train.epochs).min(train.max_steps.unwrap_or(usize::MAX));
        let read = steps.saturating_mul(batch);
        let (all, width) = (tokens.len(), text.width());
        let less = all <= read && all.saturating_mul(4 * width) <= MOST_KEPT;
        if !checked.recipe.text.frozen || !less {
            return Ok(None);
        }
        let texts: Vec<&[u32]> = (0..all as u32).map(|at| tokens.text(at)).collect();
        let rows = embed::encoded(text, &texts, train.precision)?;
        self.once = Some((Stored::of(width, rows), Found::each(all)));
        Ok(Some(format!("the text tower is frozen, so it has read the {all} captions once and for all")))
    }

    /// What the text tower reads when it is measured.
    pub fn captions(&self) -> Captions<'_> {
        match &self.read {
            Read::Tokens(tokens) => Captions::Tokens(tokens),
            Read::Stored(rows, found) => Captions::Stored(rows, found),
        }
    }

    /// Pairs to train on.
    pub fn source<'a>(&'a self, checked: &'a Checked, data: &'a Data) -> Pairs<'a> {
        let images = match &self.stored {
            Some(of) => Images::Stored(&of.rows, &of.train),
            None => Images::Views(&checked.augment),
        };
        let captions = self.once.as_ref().map_or(self.captions(), |(rows, found)| Captions::Stored(rows, found));
        Pairs { data: &data.train, images, captions }
    }

    /// What the image tower reads of the images that are measured on.
    pub fn measured<'a>(&'a self, checked: &'a Checked) -> Images<'a> {
        match &self.stored {
            Some(StoredImages { rows, test: Some(found), .. }) => Images::Stored(rows, found),
            _ => Images::Views(&checked.augment),
        }
    }
}

/// Opens the run of image-text at `path`, with whose towers a new run begins.
fn of_run(path: &Path) -> Result<Checkpoint> {
    let checkpoint = Checkpoint::open(path)?;
    let of = &checkpoint.manifest().modality;
    if of != crate::NAME {
        return Err(not_ours(of).at(path.display()).hint("image.init begins with a run of vision"));
    }
    Ok(checkpoint)
}

fn stored_images(path: &Path, data: &Data) -> Result<StoredImages> {
    let rows = Stored::open(path)?;
    let find = |of: &Captioned| {
        let names = of.images.names();
        rows.find(path, "image", names.iter().map(String::as_str))
    };
    let (train, test) = (find(&data.train)?, data.test.as_ref().map(find).transpose()?);
    Ok(StoredImages { rows, train, test })
}

/// What the text tower reads, what it is, and what it begins with. `checkpoint` is one whose text tower is used, if there is one.
fn captions(
    checked: &Checked,
    data: &Data,
    checkpoint: Option<&Checkpoint>,
    notes: &mut Vec<String>,
) -> Result<(Read, TextSide, Option<Start>)> {
    let of = &checked.recipe.text;
    if let Some(path) = &of.features {
        let rows = Stored::open(path)?;
        let found = rows.find(path, "caption", data.texts.all.iter().map(String::as_str))?;
        notes.push(rows.note(&found, "caption"));
        let width = rows.width();
        return Ok((Read::Stored(rows, found), TextSide::Stored(width), None));
    }
    let start = match checkpoint {
        Some(checkpoint) => Start::again(checkpoint).at(checkpoint.folder().display())?,
        None => {
            let texts = || data.texts.all.iter().map(String::as_str).collect();
            Start::new(&of.of_sentences(), &checked.text.below("text"), texts)?
        }
    };
    notes.extend(said(checked, &start));
    let described = &start.described;
    let tokenizing = Tokenizing::new(start.tokenizer.clone(), described.rules.clone(), described.network.vocabulary())?;
    let (tokens, [cut, empty]) = Tokens::of(&tokenizing, &data.texts.all)?;
    let all = data.texts.all.len();
    for (number, what) in [
        (cut, format!("longer than {} tokens, so that their ends are left out", described.rules.longest.unwrap_or_default())),
        (empty, "without a token that the tower knows".to_string()),
    ] {
        if number > 0 {
            notes.push(format!("captions {what}: {number} of {all} different ones"));
        }
    }
    if empty == all {
        return Err(Error::usage("no caption has a token that the text tower knows"));
    }
    Ok((Read::Tokens(tokens), TextSide::Network(described.network.clone()), Some(start)))
}

/// The model of another program that both towers begin with, if it is one.
fn both(checked: &Checked) -> Option<&Path> {
    let ImageTextRecipe { image, text, .. } = &checked.recipe;
    tower::weights(&image.encoder).filter(|path| text.encoder.weights() == Some(*path))
}

/// What there is to say of the text tower as it begins. What it does not read of a model that both begin with is the image tower's.
fn said<'a>(checked: &Checked, start: &'a Start) -> impl Iterator<Item = String> + 'a {
    let both = both(checked).is_some();
    start.notes.iter().filter(move |note| !both || !note.starts_with(NOT_READ)).cloned()
}

/// What a new run begins with, besides fresh values.
fn begin(checked: &Checked, start: Option<&Start>, stored_image: bool) -> Result<Begin> {
    let mut begin = Begin::default();
    let image = &checked.recipe.image;
    if !stored_image {
        if let Some(begun) = tower::begun(&image.encoder)? {
            begin.sections.insert(IMAGE.to_string(), begun.tensors);
            match both(checked) {
                // What the image tower does not read there is the text tower's.
                Some(path) => clip::begin(checked, path, &mut begin)?,
                None => begin.notes.extend(begun.notes),
            }
        } else if let Some(path) = &image.init {
            let (_, tensors) = tower::described(path)?;
            if let Some(tensors) = tensors {
                begin.sections.insert(IMAGE.to_string(), tensors);
            }
            begin.notes.push(format!("the image tower begins as the encoder of {}", path.display()));
        }
    }
    if let Some(tensors) = start.and_then(|start| start.tensors.clone()) {
        begin.sections.insert(TEXT.to_string(), tensors);
    }
    Ok(begin)
}
