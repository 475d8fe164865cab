//! The classifier of a fine-tuned run in use: classes of texts by name.

use std::collections::HashSet;
use std::path::Path;

use ctk_core::data::labels::Subset;
use ctk_core::eval::Predictions;
use ctk_core::modality::{Classifier, Query, Split};
use ctk_core::store::checkpoint::Checkpoint;
use ctk_core::{Context, Error, Result, task};
use ctk_texts::pairs::recipe::SentencesDataRecipe;
use ctk_texts::table::Texts;
use serde_json::json;

use super::super::encoder::SentenceEncoder;
use super::super::recipe::{SentencesRecipe, TaskRecipe};
use super::classifier::Logits;
use super::data;
use super::recipe::{FinetuneRecipe, Scheme};

/// A run's classifier.
pub struct Classes<'a> {
    encoder: &'a SentenceEncoder,
    checkpoint: &'a Checkpoint,
    classifier: Logits,
    data: SentencesDataRecipe,
    task: FinetuneRecipe,
}

/// The task and the data of a fine-tuned run; none if the run was not fine-tuned.
///
/// # Errors
/// A recipe that cannot be read.
pub fn task_of(checkpoint: &Checkpoint) -> Result<Option<(FinetuneRecipe, SentencesDataRecipe)>> {
    let recipe: SentencesRecipe = checkpoint.recipe().parse()?;
    let Some(TaskRecipe::Finetune(task)) = recipe.task else { return Ok(None) };
    Ok(Some((task, recipe.data)))
}

/// The texts of one part of a fine-tuned run's own data.
///
/// # Errors
/// Files that cannot be read.
pub fn own(task: &FinetuneRecipe, of: &SentencesDataRecipe, split: Split) -> Result<(Texts, Option<&'static str>)> {
    data::part(of, task, split)
}

impl<'a> Classes<'a> {
    /// The classifier of `checkpoint`, whose encoder is `encoder`; none if the run was not fine-tuned.
    ///
    /// # Errors
    /// A damaged file.
    pub fn open(encoder: &'a SentenceEncoder, checkpoint: &'a Checkpoint) -> Result<Option<Classes<'a>>> {
        let Some((task, data)) = task_of(checkpoint)? else { return Ok(None) };
        let found = Logits::of(checkpoint).at(checkpoint.folder().display())?;
        Ok(found.map(|classifier| Classes { encoder, checkpoint, classifier, data, task }))
    }

    /// The predictions for `texts`.
    fn of(&self, texts: &Texts) -> Result<Predictions> {
        let found = match self.classifier.about.scheme {
            Scheme::Setfit => self.encoder.embed(&texts.texts)?,
            Scheme::Plain => self.encoder.unscaled(None, &texts.texts)?,
        };
        let class = |label: u32| texts.classes.get(label as usize).filter(|class| !class.is_empty()).map(|_| label);
        let labels: Vec<Option<u32>> = match &texts.labels {
            Some(labels) => labels.iter().map(|label| class(*label)).collect(),
            None => vec![None; texts.len()],
        };
        let logits = self.classifier.of_rows(&found.rows)?;
        let classes = &self.classifier.about.classes;
        let of = Predictions::new(classes, texts.names.clone(), &labels, &texts.classes, logits)?;
        Ok(Predictions { notes: [texts.notes.clone(), found.notes(texts.len())].concat(), ..of })
    }

    fn part(&self, texts: &Texts, part: &'static str) -> Result<Predictions> {
        if texts.labels.is_none() {
            return Err(Error::usage("these texts have no classes, so nothing can be evaluated")
                .hint("give a table with columns `text` and `label`; `ctk predict` needs no classes"));
        }
        Ok(Predictions { extras: vec![("part", json!(part))], ..self.of(texts)? })
    }

    /// The texts at `path`.
    fn read(&self, path: &Path) -> Result<Texts> {
        data::other(path, &self.data)
    }

    /// The texts that the classifier is evaluated on for `query`, and their part.
    fn measured(&self, query: &Query) -> Result<(Texts, &'static str)> {
        match &query.data {
            None => Ok((own(&self.task, &self.data, Split::Test)?.0, "test")),
            Some(path) => {
                let texts = self.read(path)?;
                if texts.test.is_some() {
                    return Ok((texts.part(Split::Test).at(path.display())?.0, "test"));
                }
                // This may be the data that the run was trained on: then it is evaluated on what was held out.
                let names: HashSet<&String> = texts.names.iter().collect();
                let own = self.given()?.is_some_and(|given| given.names.iter().all(|name| names.contains(name)));
                let whole = own && self.task.test.is_none();
                match whole.then(|| texts.clone().part(Split::Test)).transpose()? {
                    Some((test, _)) => Ok((test, "test")),
                    None => Ok((texts, "all")),
                }
            }
        }
    }

    fn given(&self) -> Result<Option<Subset>> {
        task::given(self.checkpoint)
    }
}

impl Classifier for Classes<'_> {
    fn samples(&self) -> &'static str {
        "texts"
    }

    fn predictions(&self, query: &Query) -> Result<Predictions> {
        if !query.texts.is_empty() {
            return self.of(&Texts { names: query.texts.clone(), texts: query.texts.clone(), ..Texts::default() });
        }
        match &query.data {
            None => self.of(&own(&self.task, &self.data, query.split)?.0),
            Some(path) => self.of(&self.read(path)?.part(query.split).at(path.display())?.0),
        }
    }

    fn judged(&self, query: &Query) -> Result<Predictions> {
        let (texts, part) = self.measured(query)?;
        self.part(&texts, part)
    }

    fn held_back(&self, query: &Query) -> Result<Predictions> {
        let judged: HashSet<String> = self.measured(query)?.0.texts.into_iter().collect();
        let (train, _) = own(&self.task, &self.data, Split::Train)?;
        let given: HashSet<String> = self.given()?.map(|given| given.names.into_iter().collect()).unwrap_or_default();
        let seen: HashSet<&String> =
            (0..train.len()).filter(|i| given.contains(&train.names[*i])).map(|i| &train.texts[i]).collect();
        let free: Vec<usize> =
            (0..train.len()).filter(|i| !seen.contains(&train.texts[*i]) && !judged.contains(&train.texts[*i])).collect();
        if free.is_empty() || given.is_empty() {
            return Err(Error::usage(
                "a temperature is fitted on labels that were not trained on, and this run was trained on all of them",
            )
            .hint("fine-tune again with a part of the labels (--labels 90%); it is never fitted on test labels"));
        }
        let every = free.len().div_ceil(ENOUGH);
        let left: Vec<usize> = free.into_iter().step_by(every).collect();
        let part = "training texts whose labels were not given";
        let found = self.part(&train.select(&left), part)?;
        Ok(Predictions { extras: vec![("part", json!(part)), ("calibration_set", json!("labels-not-given"))], ..found })
    }
}

/// The largest number of texts that a temperature is fitted on; more would not change it.
const ENOUGH: usize = 5_000;
