//! A trained model of images and captions: rows of both in one space, and what verbs ask of it.

use std::path::Path;

use ctk_core::data::dataset::Dataset;
use ctk_core::eval::crossmodal::Captioned;
use ctk_core::eval::{Features, NOTES};
use ctk_core::modality::{Model, Prompt, Query, Split, View};
use ctk_core::nn::pass::Precision;
use ctk_core::recipe::Recipe;
use ctk_core::store::checkpoint::Checkpoint;
use ctk_core::{Context, Device, Error, Result};
use ctk_images::dataset::{self, Cache, Images, Splits};
use ctk_images::holdout::Holdout;
use ctk_images::recipe::DataRecipe;
use ctk_text::sentences::start::Start;
use ctk_text::sentences::tokenizing::Tokenizing;
use ctk_texts::labelled::{self, Reading};
use serde_json::json;

use crate::clip;
use crate::data::Data;
use crate::embed;
use crate::job::{SIDES, Widths};
use crate::network::{HEAD, IMAGE, Sides, TEXT, TextSide, Towers, file, not_ours};
use crate::ready::Ready;
use crate::recipe::{self, Checked};
use crate::source::{self, Tokens};
use crate::stored::Stored;

/// A trained model.
pub(crate) struct Trained {
    checked: Checked,
    towers: Towers,
    /// None for a model of another program.
    checkpoint: Option<Checkpoint>,
    /// None if the text tower is stored features.
    tokenizing: Option<Tokenizing>,
    /// What is exported of the text tower.
    start: Option<Start>,
    precision: Precision,
    /// What to know about a model of another program.
    notes: Vec<String>,
}

impl Trained {
    /// A CLIP or SigLIP model of another program, with both towers; none if `path` is something else.
    ///
    /// # Errors
    /// A damaged file, or a network that ctk does not have.
    pub fn of_folder(path: &Path, device: &dyn Fn() -> Result<Device>) -> Result<Option<Trained>> {
        if !clip::is_pair(path)? {
            return Ok(None);
        }
        let mut recipe = Recipe::new(path.display().to_string(), "");
        clip::set_weights(&mut recipe, path, true)?;
        recipe::complete(&mut recipe)?;
        let checked = Checked::new(&recipe)?;
        let Ready { sides, begin, start, notes, .. } = Ready::of_towers(&checked).at(path.display())?;
        let towers = sides.begun(&checked, &begin, &device()?).at(path.display())?;
        let tokenizing = start.as_ref().map(tokenizing).transpose()?;
        Ok(Some(Trained { checked, towers, checkpoint: None, tokenizing, start, precision: Precision::F32, notes }))
    }

    pub fn open(from: &Checkpoint, device: &Device) -> Result<Trained> {
        let of = &from.manifest().modality;
        if of != crate::NAME {
            return Err(not_ours(of).at(from.folder().display()));
        }
        let checked = Checked::new(&from.recipe())?;
        let widths: Widths = serde_json::from_slice(&from.reader().bytes(SIDES)?).at(SIDES)?;
        let start = if widths.text.is_none() { Some(Start::again(from).at(from.folder().display())?) } else { None };
        let text = match (&start, widths.text) {
            (Some(start), _) => TextSide::Network(start.described.network.clone()),
            (None, width) => TextSide::Stored(width.unwrap_or_default()),
        };
        let sides = Sides { stored_image: widths.image, text };
        let (towers, _) = sides.trained(&checked, &from.reader(), device).at(from.folder().display())?;
        let tokenizing = start.as_ref().map(tokenizing).transpose()?;
        let (checkpoint, precision, notes) = (Some(from.clone()), Precision::F32, Vec::new());
        Ok(Trained { checked, towers, checkpoint, tokenizing, start, precision, notes })
    }

    fn tokenizing(&self) -> Result<&Tokenizing> {
        self.tokenizing.as_ref().ok_or_else(|| {
            Error::usage("this model's text tower is a file of stored features, so it cannot read other texts")
                .hint("`ctk eval retrieval RUN` measures it on its own data")
        })
    }

    /// Rows of texts, with notes about them.
    fn rows(&self, texts: &[String], names: Vec<String>, mut notes: Vec<String>) -> Result<Features> {
        let tokens = self.tokenizing()?.cut_all(texts)?;
        let of = |count: usize, what: &str| (count > 0).then(|| format!("{what}: {count} of {}", texts.len()));
        let short = tokens.iter().filter(|text| text.short).count();
        let empty = tokens.iter().filter(|text| text.ids.is_empty()).count();
        notes.extend(of(short, "texts longer than the text tower reads, so that their ends are left out"));
        notes.extend(of(empty, "texts without a token that the text tower knows"));
        let ids: Vec<&[u32]> = tokens.iter().map(|text| text.ids.as_slice()).collect();
        let rows = embed::texts(&self.towers.right, &ids, self.precision)?;
        Ok(noted(Features { rows, width: self.towers.right.head.width(), names, ..Features::default() }, notes))
    }

    /// The data of `query`, read as the run's data.
    ///
    /// # Errors
    /// A model of another program has no data of its own.
    fn data(&self, query: &Query) -> Result<DataRecipe> {
        let own = &self.checked.recipe.data;
        match &query.data {
            Some(path) => Ok(own.of(path)),
            None if self.checkpoint.is_none() && query.files.is_empty() => {
                Err(Error::usage("this model has no data of its own").hint("--data names images, or images with captions"))
            }
            None => Ok(own.clone()),
        }
    }

    /// The images that `query` asks for, and the data that they are of.
    fn images(&self, query: &Query) -> Result<(Images, Splits)> {
        let data = self.data(query)?;
        if !query.files.is_empty() {
            let cache = std::sync::Arc::new(Cache::of(&data.cache)?);
            let files = dataset::files(&query.files)?.decoded_by(data.law()).cached(&cache);
            return Ok((files.clone(), Splits::of(files)));
        }
        let splits = data.open_to_use()?;
        let images = match query.split {
            Split::All => splits.all(),
            part => {
                let parts = if splits.test.is_some() { splits.clone() } else { self.held_out(&splits, &data, query)? };
                match part {
                    Split::Train => parts.train,
                    _ => parts.test.ok_or_else(|| Error::usage("this data has no test part"))?,
                }
            }
        };
        Ok((images, splits))
    }

    /// Data without a test part, divided as the run divided its own, or by classes.
    fn held_out(&self, splits: &Splits, data: &DataRecipe, query: &Query) -> Result<Splits> {
        let stored = match &self.checkpoint {
            Some(checkpoint) if query.data.is_none() => Holdout::stored(checkpoint)?,
            _ => None,
        };
        let images = splits.train.clone();
        let holdout = match stored {
            // Images without a caption are not among those that were divided.
            Some(holdout) if holdout.images == images.len() => holdout,
            _ if splits.labelled() => Holdout::draw(&images, data.holdout, self.checked.recipe.train.seed)?,
            _ => return Err(Error::usage("this data has no parts").hint("use data with classes, or leave the part out")),
        };
        holdout.apply(&images)
    }

    /// Images with their captions: the part that is measured on, or all.
    fn measured(&self, query: &Query) -> Result<(Captioned, Vec<String>)> {
        let data = self.data(query)?;
        let own = query.data.is_none();
        let read = Data::of_model(&data, &self.checked.recipe.captions, self.checkpoint.as_ref().filter(|_| own))?;
        let mut notes = if own { Vec::new() } else { read.notes.clone() };
        let part = match (&read.test, query.split) {
            (_, Split::Train) => &read.train,
            (Some(test), _) => test,
            (None, _) => {
                notes.push("the data has no test part, so all of it is measured on".to_string());
                &read.train
            }
        };
        if own && read.test.is_none() {
            notes.push("these are the images that were trained on".to_string());
        }
        let recipe = &self.checked.recipe;
        let rows = recipe.image.features.as_deref().map(|path| {
            let rows = Stored::open(path)?;
            let names = part.images.names();
            let found = rows.find(path, "image", names.iter().map(String::as_str))?;
            Ok::<_, Error>((rows, found))
        });
        let rows = rows.transpose()?;
        let images = match &rows {
            Some((rows, found)) => source::Images::Stored(rows, found),
            None => source::Images::Views(&self.checked.augment),
        };
        let sides = [&self.towers.left, &self.towers.right];
        let all = match &recipe.text.features {
            Some(path) => {
                let rows = Stored::open(path)?;
                let found = rows.find(path, "caption", read.texts.all.iter().map(String::as_str))?;
                embed::captioned(sides, part, &read.texts, (images, source::Captions::Stored(&rows, &found)), self.precision)
            }
            None => {
                let (tokens, _) = Tokens::of(self.tokenizing()?, &read.texts.all)?;
                embed::captioned(sides, part, &read.texts, (images, source::Captions::Tokens(&tokens)), self.precision)
            }
        }?;
        Ok((all, notes))
    }
}

fn tokenizing(start: &Start) -> Result<Tokenizing> {
    let described = &start.described;
    Tokenizing::new(start.tokenizer.clone(), described.rules.clone(), described.network.vocabulary())
}

/// Adds notes to `features`, if there are any.
fn noted(features: Features, notes: Vec<String>) -> Features {
    if notes.is_empty() { features } else { Features { extras: vec![(NOTES, json!(notes))], ..features } }
}

/// Whether the file at `path` holds texts and no images, by its name.
fn is_text(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    path.is_file() && [".txt", ".txt.gz", ".txt.zst"].iter().any(|end| name.ends_with(end))
}

/// Whether the table at `path` names images.
fn names_images(path: &Path) -> bool {
    dataset::first_look(&[path.to_path_buf()]).is_ok()
}

impl Model for Trained {
    /// Rows of images, or of texts if the data is a file of texts. Of pairs the left view is the image, the right one its caption.
    fn features(&self, query: &Query) -> Result<Features> {
        if let Some(name) = &query.baseline {
            return Err(Error::usage(format!("models of images and captions have no baseline `{name}`")));
        }
        if !query.texts.is_empty() {
            return self.rows(&query.texts, query.texts.clone(), Vec::new());
        }
        let texts = query.data.as_deref().filter(|path| is_text(path) || path.is_file() && !names_images(path));
        if let Some(path) = texts {
            let (texts, origin) = labelled::read(path, &Reading::default())?.part(query.split).at(path.display())?;
            let mut features = self.rows(&texts.texts, texts.names, texts.notes)?;
            (features.labels, features.classes) = (texts.labels, texts.classes);
            features.extras.extend(origin.map(|origin| ("split", origin.into())));
            return Ok(features);
        }
        if let Some(view) = query.view {
            let (all, notes) = self.measured(query)?;
            let rows = match view {
                // The image of each caption.
                View::Left => all.images.select(&all.of.iter().map(|&image| image as usize).collect::<Vec<_>>()),
                View::Right => all.captions,
            };
            return Ok(noted(rows, notes));
        }
        if self.checked.recipe.image.features.is_some() {
            let (all, notes) = self.measured(query)?;
            return Ok(noted(all.images, notes));
        }
        let (images, splits) = self.images(query)?;
        if images.is_empty() {
            return Err(Error::usage("there is no image here"));
        }
        let features = embed::images(&self.towers.left, &images, &self.checked.augment, self.precision)?;
        // Asked after the images were decoded: it also says which could not be.
        Ok(noted(features, splits.told(query.data.is_some())))
    }

    fn compute_in(&mut self, precision: Precision) -> Result<()> {
        self.precision = precision;
        Ok(())
    }

    fn texts(&self, texts: &[String]) -> Result<Features> {
        self.rows(texts, texts.to_vec(), Vec::new())
    }

    fn prompt(&self, wanted: &Prompt) -> Result<Option<String>> {
        match wanted {
            Prompt::Usual | Prompt::Query | Prompt::Document => Ok(None),
            Prompt::Named(_) | Prompt::Text(_) => {
                Err(Error::usage("this model puts nothing before texts").hint("leave out the prompt"))
            }
        }
    }

    fn embeds_names(&self) -> bool {
        self.tokenizing.is_some()
    }

    fn is_sample(&self, path: &Path) -> bool {
        dataset::is_image(path) && !path.is_dir()
    }

    fn captioned(&self, query: &Query) -> Result<(Captioned, Vec<String>)> {
        self.measured(query)
    }

    fn views(&self) -> bool {
        true
    }

    fn notes(&self) -> &[String] {
        &self.notes
    }

    fn formats(&self) -> &'static [&'static str] {
        if self.start.is_some() && self.checkpoint.is_some() { &[clip::FORMAT] } else { &[] }
    }

    /// `transformers` is a folder of a `CLIPModel` or `SiglipModel`.
    fn export(&self, format: &str, out: &Path) -> Result<Vec<String>> {
        let (true, Some(start), Some(checkpoint)) = (format == clip::FORMAT, &self.start, &self.checkpoint) else {
            return Err(Error::usage(format!("this model cannot be exported as `{format}`")));
        };
        let reader = checkpoint.reader();
        let sections = [IMAGE, TEXT, HEAD].map(|section| Ok((section, reader.tensors(&file(section))?)));
        let loss = file("loss");
        let run = clip::Run {
            of: &self.checked,
            sections: sections.into_iter().collect::<Result<_>>()?,
            loss: if reader.has(&loss) { reader.tensors(&loss)? } else { Default::default() },
            text: &start.described,
            tokenizer: &start.tokenizer,
        };
        clip::export(run, out)
    }
}
