//! Implements the model interface for encoders of sentences.

use std::collections::HashSet;
use std::path::Path;

use candle_core::Tensor;
use ctk_core::data::dataset::Dataset;
use ctk_core::eval::{Features, NOTES};
use ctk_core::modality::{self, Classifier, Prompt, Query, Split, View};
use ctk_core::nn::params::MODEL;
use ctk_core::nn::pass::Precision;
use ctk_core::store::checkpoint::Checkpoint;
use ctk_core::{Context, Device, Error, Result};
use ctk_texts::labelled::{self, Reading};
use ctk_texts::table::Texts;

use super::encoder::SentenceEncoder;
use super::export;
use super::finetune::predict::{self, Classes};
use super::folder::Folder;
use super::prompts;
use super::recipe::SentencesRecipe;
use super::start::Start;

/// The format of export.
const FORMAT: &str = "sentence-transformers";
/// That of text towers of CLIP and SigLIP, which sentence-transformers opens with an image tower alone.
const TOWERS: &str = "transformers";

/// A trained encoder of sentences.
pub struct Model {
    encoder: SentenceEncoder,
    notes: Vec<String>,
    /// What is exported; none for another program's encoder, which is a folder already.
    run: Option<(Start, Checkpoint)>,
}

impl Model {
    /// The encoder of another program's folder.
    ///
    /// # Errors
    /// As for [`Folder::read`] and [`Folder::encoder`].
    pub fn of_folder(path: &Path, device: &Device) -> Result<Model> {
        let folder = Folder::read(path)?;
        let encoder = folder.encoder(device).at(path.display())?;
        Ok(Model { encoder, notes: folder.notes, run: None })
    }

    /// The encoder of a run.
    ///
    /// # Errors
    /// A damaged checkpoint.
    pub fn of_run(from: &Checkpoint, device: &Device) -> Result<Model> {
        let start = Start::again(from).at(from.folder().display())?;
        let tensors = from.reader().tensors(MODEL)?;
        let encoder = SentenceEncoder::new(&start.described, &tensors, start.tokenizer.clone(), device);
        let notes = prompts::note(&start.described.rules).into_iter().collect();
        Ok(Model { encoder: encoder.at(from.folder().display())?, notes, run: Some((start, from.clone())) })
    }

    /// The features of texts that have these names, behind `prompt` or the usual one.
    fn rows<T: AsRef<str> + Sync>(
        &self,
        texts: &[T],
        names: Vec<String>,
        mut notes: Vec<String>,
        prompt: Option<&str>,
    ) -> Result<Features> {
        let found = self.encoder.embed_behind(prompt, texts)?;
        if let Some(prompt) = prompt.filter(|prompt| *prompt != self.encoder.tokenizing.rules().prompt) {
            notes.push(match prompt {
                "" => format!("nothing is put before these texts ({})", texts.len()),
                _ => format!("`{prompt}` is put before these texts ({})", texts.len()),
            });
        }
        notes.extend(found.notes(texts.len()));
        let extras = if notes.is_empty() { Vec::new() } else { vec![(NOTES, notes.into())] };
        Ok(Features { rows: found.rows, width: self.encoder.width(), names, extras, ..Features::default() })
    }

    /// The features of a table's texts, with their classes.
    fn of_table(&self, texts: Texts, origin: Option<&'static str>, prompt: Option<&str>) -> Result<Features> {
        let mut features = self.rows(&texts.texts, texts.names, texts.notes, prompt)?;
        features.labels = texts.labels;
        features.classes = texts.classes;
        features.extras.extend(origin.map(|origin| ("split", origin.into())));
        Ok(features)
    }

    /// The features of the run's own texts: each different one once or, of one view, that of each sample.
    fn own(&self, query: &Query) -> Result<Features> {
        let Some((_, checkpoint)) = &self.run else {
            return Err(Error::usage("this encoder is another program's, and has no texts of its own")
                .hint("give --data: a file with a text on each line, or a table with a column `text`"));
        };
        if let Some((task, data)) = predict::task_of(checkpoint)? {
            let (texts, origin) = predict::own(&task, &data, query.split)?;
            return self.of_table(texts, origin, query.prompt.as_deref());
        }
        if query.split != Split::All {
            return Err(Error::usage("the texts of a run have no parts").hint("give --data: a table with classes"));
        }
        let recipe = checkpoint.recipe().parse::<SentencesRecipe>()?;
        if recipe.task.is_some() && recipe.data.generated() {
            return Err(Error::usage("this encoder was made of its teacher's vocabulary, and has no texts of its own")
                .hint("give --data: a file with a text on each line, or a table with a column `text`"));
        }
        let data = recipe.data.open()?;
        let pairs = &data.train;
        let texts: Vec<String> = match query.view {
            None => {
                let mut seen = HashSet::new();
                pairs.all_texts().filter(|text| seen.insert(*text)).map(String::from).collect()
            }
            Some(view) => {
                let column = if view == View::Left { 0 } else { pairs.columns().min(2) - 1 };
                (0..pairs.len()).map(|at| [pairs.prompt(column), pairs.text(at, column)].concat()).collect()
            }
        };
        self.rows(&texts, texts.clone(), data.notes, query.prompt.as_deref())
    }
}

impl modality::Model for Model {
    /// A row for each text of the data: lines, or a table with a column of texts. Without data, the texts that a run was trained on.
    fn features(&self, query: &Query) -> Result<Features> {
        if let Some(name) = &query.baseline {
            return Err(Error::usage(format!("encoders of sentences have no baseline `{name}`")));
        }
        let Some(path) = &query.data else { return self.own(query) };
        let (texts, origin) = labelled::read(path, &Reading::default())?.part(query.split).at(path.display())?;
        self.of_table(texts, origin, query.prompt.as_deref())
    }

    fn compute_in(&mut self, precision: Precision) -> Result<()> {
        if precision == Precision::Bf16 && self.encoder.table {
            return Err(
                Error::usage("a static embedding multiplies nothing, so it has nothing to compute in bf16").hint("leave it out")
            );
        }
        self.encoder.precision = precision;
        Ok(())
    }

    fn embeds_names(&self) -> bool {
        true
    }

    fn texts(&self, texts: &[String]) -> Result<Features> {
        self.rows(texts, texts.to_vec(), Vec::new(), None)
    }

    fn prompt(&self, wanted: &Prompt) -> Result<Option<String>> {
        prompts::choose(self.encoder.tokenizing.rules(), wanted)
    }

    fn prompted(&self, prompt: Option<&str>, texts: &[String]) -> Result<Features> {
        self.rows(texts, texts.to_vec(), Vec::new(), prompt)
    }

    fn classifier(&self) -> Result<Box<dyn Classifier + '_>> {
        if let Some((_, checkpoint)) = &self.run
            && let Some(found) = Classes::open(&self.encoder, checkpoint)?
        {
            return Ok(Box::new(found));
        }
        let of = self
            .run
            .as_ref()
            .and_then(|(_, checkpoint)| checkpoint.folder().ancestors().nth(2))
            .filter(|run| !run.as_os_str().is_empty());
        let of = of.map_or("FOLDER".to_string(), |run| run.display().to_string());
        Err(Error::usage("this encoder has no classifier of texts, so it cannot predict classes").hint(format!(
            "`ctk finetune {of} --data TEXTS --labels 8-per-class` makes one; `ctk eval text-classification {of} TRAIN.tsv TEST.tsv` only \
             judges the features"
        )))
    }

    fn notes(&self) -> &[String] {
        &self.notes
    }

    fn views(&self) -> bool {
        self.run.as_ref().is_some_and(|(_, checkpoint)| predict::task_of(checkpoint).is_ok_and(|task| task.is_none()))
    }

    fn formats(&self) -> &'static [&'static str] {
        match &self.run {
            Some((start, _)) if start.described.network.is_tower() => &[TOWERS],
            Some(_) => &[FORMAT],
            None => &[],
        }
    }

    /// `sentence-transformers` is a folder; transformers opens that of a transformer, too, and model2vec that of a static embedding.
    fn export(&self, format: &str, out: &Path) -> Result<Vec<String>> {
        match &self.run {
            Some((start, checkpoint)) if self.formats().contains(&format) => {
                let mut tensors: Vec<(String, Tensor)> = checkpoint.reader().tensors(MODEL)?.into_iter().collect();
                tensors.sort_by(|a, b| a.0.cmp(&b.0));
                let mut notes = match format {
                    TOWERS => export::write_tower(&start.described, &tensors, &start.tokenizer, out)?,
                    _ => export::write(&start.described, &tensors, &start.tokenizer, out).map(|()| Vec::new())?,
                };
                let told = "the folder has the encoder alone: the classifier stays in the run".to_string();
                notes.extend(predict::task_of(checkpoint)?.is_some().then_some(told));
                Ok(notes)
            }
            _ => Err(Error::usage(format!("this encoder cannot be exported as `{format}`"))),
        }
    }
}
