//! Images with their captions: which parts there are, which images belong together, and what is held out.

use std::collections::{BTreeMap, HashMap};

use ctk_core::data::dataset::Dataset;
use ctk_core::observer::Event;
use ctk_core::process::Process;
use ctk_core::store::checkpoint::Checkpoint;
use ctk_core::store::run::Run;
use ctk_core::{Context, Error, Result};
use ctk_images::dataset::{Digest, Images, Splits, thousands};
use ctk_images::holdout::{self, Holdout};
use ctk_images::recipe::DataRecipe;
use ctk_images::sets::Sets;

use crate::recipe::{CaptionsRecipe, PLACE, Same};

/// Images, each with its captions.
#[derive(Clone)]
pub struct Captioned {
    /// The images.
    pub images: Images,
    /// The captions of each image, as numbers of [`Texts`].
    pub captions: Vec<Vec<u32>>,
    /// The set of each image: pairs of one set are no negatives of each other.
    pub sets: Vec<u32>,
}

/// Different captions, by number.
#[derive(Clone, Debug, Default)]
pub struct Texts {
    /// The captions.
    pub all: Vec<String>,
    numbers: HashMap<String, u32>,
}

impl Texts {
    fn number(&mut self, text: String) -> u32 {
        if let Some(&number) = self.numbers.get(&text) {
            return number;
        }
        let number = self.all.len() as u32;
        self.numbers.insert(text.clone(), number);
        self.all.push(text);
        number
    }
}

/// The data of a run.
pub struct Data {
    /// What is trained on.
    pub train: Captioned,
    /// What is measured on, if there is such a part.
    pub test: Option<Captioned>,
    /// All captions of both.
    pub texts: Texts,
    /// The images as they were read.
    pub splits: Splits,
    /// What to know about them.
    pub notes: Vec<String>,
}

/// The images with their captions or, where a table has classes and no captions, with their classes.
fn opened(
    data: &DataRecipe,
    captioned: impl Fn(&DataRecipe) -> Result<Splits>,
    plain: impl Fn(&DataRecipe) -> Result<Splits>,
) -> Result<Splits> {
    captioned(data).or_else(|e| match plain(data) {
        Ok(splits) if splits.labelled() && data.columns.captions.is_none() => Ok(splits),
        _ => Err(e),
    })
}

/// The captions of an image: its own, or those that prompts make of its class.
fn captions_of(images: &Images, at: usize, prompts: &[String]) -> Vec<String> {
    let own = images.captions(at);
    if !own.is_empty() {
        return own.iter().map(|text| text.to_string()).collect();
    }
    let Some(class) = images.label(at).and_then(|label| images.classes().get(label as usize)) else { return Vec::new() };
    // Class folders have names such as `golden_retriever`.
    let name = class.replace('_', " ");
    prompts.iter().map(|prompt| prompt.replace(PLACE, &name)).collect()
}

impl Captioned {
    /// The images of `images` that have a caption, and how many have none.
    fn new(images: &Images, prompts: &[String], texts: &mut Texts) -> (Captioned, usize) {
        let (mut kept, mut captions) = (Vec::new(), Vec::new());
        for at in 0..images.len() {
            let mut own: Vec<u32> = Vec::new();
            for text in captions_of(images, at, prompts) {
                let number = texts.number(text);
                if !own.contains(&number) {
                    own.push(number);
                }
            }
            if !own.is_empty() {
                kept.push(at);
                captions.push(own);
            }
        }
        let without = images.len() - kept.len();
        let sets = (0..kept.len() as u32).collect();
        (Captioned { images: images.select(&kept), captions, sets }, without)
    }

    /// The images with these indices.
    pub fn select(&self, indices: &[usize]) -> Captioned {
        Captioned {
            images: self.images.select(indices),
            captions: indices.iter().map(|&at| self.captions[at].clone()).collect(),
            sets: indices.iter().map(|&at| self.sets[at]).collect(),
        }
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.captions.len()
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.captions.is_empty()
    }

    /// Puts images into one set that have a caption in common or, if `digests` are given, equal pixels.
    fn join(&mut self, digests: Option<&[Digest]>) {
        let mut joined = Sets::new(self.len());
        let (mut captions, mut pixels) = (HashMap::new(), HashMap::new());
        for (at, own) in self.captions.iter().enumerate() {
            own.iter().for_each(|text| joined.join_alike(&mut captions, *text, at));
            if let Some(digests) = digests {
                joined.join_alike(&mut pixels, digests[at], at);
            }
        }
        self.sets = (0..self.len()).map(|at| joined.first(at) as u32).collect();
    }

    /// Images in the largest set, and in sets of more than one image.
    fn shared(&self) -> (usize, usize) {
        let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
        self.sets.iter().for_each(|set| *counts.entry(*set).or_default() += 1);
        let most = counts.values().copied().max().unwrap_or_default();
        (most, counts.values().filter(|count| **count > 1).sum())
    }
}

impl Data {
    /// The data of a recipe. What is held out is that of the run, if it has stored it; a new hold-out is stored.
    ///
    /// # Errors
    /// Data that cannot be read; no image with a caption; a hold-out that leaves nothing.
    pub fn of_run(data: &DataRecipe, captions: &CaptionsRecipe, seed: u64, run: &mut Run, process: &mut Process) -> Result<Data> {
        let splits = opened(data, DataRecipe::open_captioned, DataRecipe::open)?;
        if data.path.is_none() {
            process
                .tell(&Event::Note("no data is named (--data), so these are generated images, with captions of their classes"));
        }
        splits.lines().iter().for_each(|line| process.tell(&Event::About(line)));
        if data.path.is_some() {
            run.set_data(Some(splits.pretraining().identity()?));
        }
        let mut of = Data::read(splits, captions)?.joined(captions)?;
        if of.test.is_some() || captions.holdout == 0.0 {
            return Ok(of);
        }
        let stored = run.read(holdout::FILE)?.map(|bytes| serde_json::from_slice(&bytes)).transpose()?;
        let holdout: Holdout = match stored {
            Some(holdout) => holdout,
            None => {
                let holdout = Holdout::draw_sets(&of.train.images, &of.train.sets, captions.holdout, seed)?;
                if process.writes() {
                    run.write(holdout::FILE, &serde_json::to_vec_pretty(&holdout)?)?;
                }
                holdout
            }
        };
        process.tell(&Event::Note(&format!(
            "no test part found: {} of {} images held out, seed {}; stored in splits.json",
            thousands(holdout.held_out.len()),
            thousands(holdout.images),
            holdout.seed
        )));
        of.hold_out(&holdout)?;
        Ok(of)
    }

    /// The data for a trained model, whose hold-out is that of `checkpoint`, if these are its own data. Each image is a set of its own:
    /// measures need no sets, and to find them all images are decoded.
    ///
    /// # Errors
    /// Data that cannot be read; no image with a caption; or data that has changed since the hold-out was drawn.
    pub fn of_model(data: &DataRecipe, captions: &CaptionsRecipe, checkpoint: Option<&Checkpoint>) -> Result<Data> {
        let splits = opened(data, DataRecipe::open_captioned_to_use, DataRecipe::open_to_use)?;
        let mut of = Data::read(splits, captions)?;
        if let (None, Some(checkpoint)) = (&of.test, checkpoint)
            && let Some(holdout) = Holdout::stored(checkpoint)?
        {
            of.hold_out(&holdout)?;
        }
        Ok(of)
    }

    /// The captions of `splits`.
    fn read(splits: Splits, by: &CaptionsRecipe) -> Result<Data> {
        let mut texts = Texts::default();
        let (train, without) = Captioned::new(&splits.pretraining(), &by.prompts, &mut texts);
        let test = splits.measured().map(|images| Captioned::new(images, &by.prompts, &mut texts));
        let mut notes = Vec::new();
        let lacking = without + test.as_ref().map_or(0, |(_, without)| *without);
        if train.is_empty() {
            return Err(Error::usage("no image has a caption").hint(
                "captions are in a table (columns such as file_name and caption; data.columns.captions names another), in metadata.csv or \
                 captions.txt beside the images, or in archives (key.jpg with key.txt); class folders get captions.prompts",
            ));
        }
        if lacking > 0 {
            notes.push(format!("images without a caption, which are left out: {}", thousands(lacking)));
        }
        let made = (0..train.len()).filter(|&at| train.images.captions(at).is_empty()).count();
        if made > 0 {
            notes.push(format!(
                "images whose captions are made of their class's name (captions.prompts): {} of {}",
                thousands(made),
                thousands(train.len())
            ));
        }
        Ok(Data { train, test: test.map(|(test, _)| test).filter(|test| !test.is_empty()), texts, splits, notes })
    }

    /// Puts images to train on into sets, as `by.same` says, with a note.
    ///
    /// # Errors
    /// An image that cannot be decoded.
    pub fn joined(mut self, by: &CaptionsRecipe) -> Result<Data> {
        let train = &mut self.train;
        match by.same {
            Same::CaptionsAndPixels => train.join(Some(&train.images.digests()?)),
            Same::Captions => train.join(None),
            Same::None => {}
        }
        let (largest, shared) = train.shared();
        if shared > 0 {
            let what =
                if by.same == Same::Captions { "have a caption in common" } else { "look the same or have a caption in common" };
            self.notes.push(format!(
                "images that {what} with others: {} of {}, at most {} in one set; they are no negatives of each other",
                thousands(shared),
                thousands(train.len()),
                thousands(largest)
            ));
        }
        Ok(self)
    }

    fn hold_out(&mut self, holdout: &Holdout) -> Result<()> {
        let sides = holdout.sides(&self.train.images).at("splits.json")?;
        let test = self.train.select(&sides[1]);
        self.train = self.train.select(&sides[0]);
        self.test = Some(test);
        Ok(())
    }
}
