//! Implements the model interface for encoders of sentences.

use std::collections::HashSet;
use std::path::Path;

use candle_core::Tensor;
use ctk_core::data::dataset::Dataset;
use ctk_core::eval::{Features, NOTES};
use ctk_core::modality::{self, Classifier, Query, Split, View};
use ctk_core::nn::params::MODEL;
use ctk_core::store::checkpoint::Checkpoint;
use ctk_core::{Context, Device, Error, Result};
use ctk_texts::corpus::Invalid;
use ctk_texts::files::Encoding;
use ctk_texts::table::Texts;

use super::encoder::SentenceEncoder;
use super::export;
use super::folder::Folder;
use super::recipe::SentencesRecipe;
use super::start::Start;

/// The format of export.
const FORMAT: &str = "sentence-transformers";

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
        Ok(Model { encoder: encoder.at(from.folder().display())?, notes: Vec::new(), run: Some((start, from.clone())) })
    }

    /// The features of texts that have these names.
    fn rows<T: AsRef<str> + Sync>(&self, texts: &[T], names: Vec<String>, mut notes: Vec<String>) -> Result<Features> {
        let found = self.encoder.embed(texts)?;
        if found.cut > 0 {
            notes.push(format!(
                "texts longer than the encoder reads, so that their ends are left out: {} of {}",
                found.cut,
                texts.len()
            ));
        }
        if found.empty > 0 {
            notes.push(format!("texts without a token, so that their rows are zeros: {} of {}", found.empty, texts.len()));
        }
        let extras = if notes.is_empty() { Vec::new() } else { vec![(NOTES, notes.into())] };
        Ok(Features { rows: found.rows, width: self.encoder.width(), names, extras, ..Features::default() })
    }

    /// The features of the run's own texts: each different one once or, of one view, that of each sample.
    fn own(&self, query: &Query) -> Result<Features> {
        let Some((_, checkpoint)) = &self.run else {
            return Err(Error::usage("this encoder is another program's, and has no texts of its own")
                .hint("give --data: a file with a text on each line, or a table with a column `text`"));
        };
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
        self.rows(&texts, texts.clone(), data.notes)
    }
}

impl modality::Model for Model {
    /// A row for each text of the data: lines, or a table with a column of texts. Without data, the texts that a run was trained on.
    fn features(&self, query: &Query) -> Result<Features> {
        if let Some(name) = &query.baseline {
            return Err(Error::usage(format!("encoders of sentences have no baseline `{name}`")));
        }
        let Some(path) = &query.data else { return self.own(query) };
        let texts = Texts::read(path, Encoding::default(), Invalid::Refuse)?;
        let (texts, origin) = texts.part(query.split).at(path.display())?;
        let mut features = self.rows(&texts.texts, texts.names, texts.notes)?;
        features.labels = texts.labels;
        features.classes = texts.classes;
        features.extras.extend(origin.map(|origin| ("split", origin.into())));
        Ok(features)
    }

    fn embeds_names(&self) -> bool {
        true
    }

    fn texts(&self, texts: &[String]) -> Result<Features> {
        self.rows(texts, texts.to_vec(), Vec::new())
    }

    fn classifier(&self) -> Result<Box<dyn Classifier + '_>> {
        Err(Error::usage("this encoder has no classifier of texts, so it cannot predict classes")
            .hint("`ctk eval text-classification RUN TRAIN.tsv TEST.tsv` fits one and judges it"))
    }

    fn notes(&self) -> &[String] {
        &self.notes
    }

    fn views(&self) -> bool {
        self.run.is_some()
    }

    fn formats(&self) -> &'static [&'static str] {
        if self.run.is_some() { &[FORMAT] } else { &[] }
    }

    /// `sentence-transformers` is a folder; transformers opens that of a transformer, too, and model2vec that of a static embedding.
    fn export(&self, format: &str, out: &Path) -> Result<Vec<String>> {
        match &self.run {
            Some((start, checkpoint)) if format == FORMAT => {
                let mut tensors: Vec<(String, Tensor)> = checkpoint.reader().tensors(MODEL)?.into_iter().collect();
                tensors.sort_by(|a, b| a.0.cmp(&b.0));
                export::write(&start.described, &tensors, &start.tokenizer, out)?;
                Ok(Vec::new())
            }
            _ => Err(Error::usage(format!("this encoder cannot be exported as `{format}`"))),
        }
    }
}
