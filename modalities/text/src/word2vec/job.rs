//! A word2vec run from recipe to summary: reads the text, trains, and on the generated language evaluates the vectors.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use ctk_core::data::source::Source;
use ctk_core::eval::{Features, analogy, neighbors, similarity};
use ctk_core::modality::{Job, Summary};
use ctk_core::observer::Event;
use ctk_core::optim::Schedule;
use ctk_core::process::Process;
use ctk_core::recipe::{Decay, Length, Recipe, Scaling, ScheduleRecipe};
use ctk_core::rng::Key;
use ctk_core::store::run::Run;
use ctk_core::train::fit::fit;
use ctk_core::train::plan::Plan;
use ctk_core::{Error, Result, memory};
use ctk_texts::corpus::{Corpus, Reading, Room};
use ctk_texts::identity::identity;
use ctk_texts::{files, language};
use serde_json::json;

use super::NAME;
use super::init::Init;
use super::kernel::Pairs;
use super::recipe::{CbowGradient, PairsRecipe, Word2VecRecipe};
use super::sparse::{Settings, Sparse};
use super::windows::Windows;

/// A checked recipe.
pub struct Word2VecJob {
    recipe: Word2VecRecipe,
    plan: Plan,
    reading: Reading,
    // Bytes of memory for the numbered text.
    room: usize,
}

impl Word2VecJob {
    /// Checks the recipe.
    ///
    /// # Errors
    /// The first mistake in it.
    pub fn new(text: &Recipe) -> Result<Word2VecJob> {
        let recipe = Word2VecRecipe::parse(text)?;
        let schedule = ScheduleRecipe { warmup: 0.0, decay: Decay::Linear, scaling: Scaling::None, length: Length::Samples };
        let mut plan = Plan::new(NAME, text, recipe.train.shared(), Schedule::new(&schedule, recipe.rate()))?;
        plan.saves = recipe.checkpoint.saves(&plan.train, text)?;
        // Threads take blocks one by one as they become free.
        plan.part = 1;
        // Every word should be used: a short last step does not hurt.
        plan.drop_last = false;
        let reading = recipe.data.reading()?;
        let room = memory::limit("data.cache", &recipe.data.cache).map_err(|e| e.at(text.place_of("data.cache")))?;
        Ok(Word2VecJob { recipe, plan, reading, room })
    }

    /// The recipe.
    pub(super) fn recipe(&self) -> &Word2VecRecipe {
        &self.recipe
    }

    /// The text as numbers, in which `known` words are kept even if they are rare; `folder` returns the folder for numbers that do not fit
    /// into memory.
    pub(super) fn corpus(&self, known: &[String], folder: &mut (dyn FnMut() -> Result<PathBuf> + Send)) -> Result<Corpus> {
        let mut room = Room { limit: self.room, folder };
        match &self.recipe.data.path {
            Some(paths) => {
                Corpus::read(&files::find(paths.list())?, &self.reading, self.recipe.vocabulary.selection(known), &mut room)
            }
            // The generated text is data: it does not change with the seed of the training.
            None => {
                Corpus::from_text(&language::text(self.recipe.data.words, Key::new(0)), self.recipe.vocabulary.selection(known))
            }
        }
    }

    /// The windows of the text; subsampling must leave some.
    pub(super) fn windows<'c>(&self, corpus: &'c Corpus) -> Result<Windows<'c>> {
        let PairsRecipe { window, subsample, .. } = self.recipe.pairs;
        let windows = Windows::new(corpus, window, subsample);
        let kept = windows.kept();
        if kept < 2.0 {
            let left = format!("{kept:.1} of the text's {} words", corpus.tokens());
            return Err(Error::new(format!("an epoch has no pair to learn from: subsampling leaves {left} on average"))
                .at(self.plan.recipe.place_of("pairs.subsample"))
                .hint(format!("raise pairs.subsample (it is {subsample:e}; 0 keeps every word), or give more text")));
        }
        Ok(windows)
    }

    /// The learner's settings from the recipe.
    pub(super) fn settings(&self) -> Settings {
        Settings {
            width: self.recipe.width(),
            subwords: self.recipe.subwords(),
            pairs: Pairs {
                architecture: self.recipe.pairs.architecture,
                exact: self.recipe.pairs.cbow_gradient == CbowGradient::Exact,
            },
            contrast: self.recipe.contrast(),
            rate: self.recipe.rate(),
            shards: self.recipe.train.deterministic.then_some(self.recipe.train.shards),
            precision: self.recipe.train.precision,
        }
    }
}

impl Job for Word2VecJob {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn run(mut self: Box<Self>, run: &mut Run, process: &mut Process) -> Result<Summary> {
        let start = Instant::now();
        let mut init = Init::of(run, &self.plan.recipe, &self.recipe)?;
        if let Some(paths) = &self.recipe.data.path {
            run.set_data(identity(&files::find(paths.list())?)?);
        } else {
            process.tell(&Event::Note("no data is named (--data), so the text is generated"));
        }
        init.notes.iter().for_each(|note| process.tell(&Event::Note(note)));
        self.reading.phrases = std::mem::take(&mut init.phrases);
        let corpus = self.corpus(&init.known, &mut || run.folder().map(Path::to_path_buf))?;
        let ingest = start.elapsed().as_secs_f64();
        if corpus.in_file() {
            process.tell(&Event::Note("the numbered text does not fit into data.cache: it is read from a file in every epoch"));
        }
        corpus.notes().iter().for_each(|note| process.tell(&Event::Note(note)));
        let source = self.windows(&corpus)?;
        let settings = self.settings();
        let mut learner = Sparse::new(corpus.vocabulary(), settings, Key::new(self.recipe.train.seed))?.phrases(
            match self.reading.phrases.is_empty() {
                true => corpus.phrases().clone(),
                false => self.reading.phrases.clone(),
            },
        );
        if let Some(note) = init.keep(run, process, corpus.vocabulary(), settings.rate)? {
            process.tell(&Event::Note(&note));
        }
        if let Some(vectors) = init.vectors.take() {
            learner.begin_with(&vectors);
        }
        let fitted = fit(&source, &mut learner, &self.plan, &mut [], run, process)?;

        // Only of this process: a resumed run counts the words that it trained itself.
        let batch = self.recipe.train.batch.min(source.len());
        let epochs = (fitted.samples / batch) as f64 / source.len().div_ceil(batch) as f64;
        let speed = corpus.tokens() as f64 * epochs / fitted.seconds.max(1e-9);
        let mut figures = vec![
            ("tokens", json!(corpus.tokens())),
            ("vocabulary", json!(corpus.vocabulary().len())),
            ("ingest_seconds", json!(ingest)),
            ("words_per_second", json!(speed.round() as u64)),
        ];
        let mut text = String::new();
        if self.recipe.data.path.is_none() {
            let features = Features {
                rows: learner.vectors(),
                width: settings.width,
                names: corpus.vocabulary().words().to_vec(),
                ..Features::default()
            };
            let shown = show(&features)?;
            figures.extend(shown.figures);
            text = shown.text;
        }
        figures.push(("total_seconds", json!(start.elapsed().as_secs_f64())));
        Ok(Summary {
            steps: fitted.steps,
            epochs: fitted.epochs,
            loss: fitted.loss,
            seconds: fitted.seconds,
            figures,
            text,
            next: vec!["ctk neighbors RUN WORD", "ctk export RUN --format word2vec-text --out vectors.txt"],
        })
    }
}

struct Shown {
    figures: Vec<(&'static str, serde_json::Value)>,
    text: String,
}

/// Evaluates what was learned of the generated language.
fn show(features: &Features) -> Result<Shown> {
    let mut text = String::from("nearest words\n");
    for word in language::SHOWN.into_iter().filter(|word| features.names.iter().any(|name| name == word)) {
        let near: Vec<String> =
            neighbors(features, &[word], &[], 5)?.into_iter().map(|(name, cosine)| format!("{name} {cosine:.2}")).collect();
        let _ = writeln!(text, "  {word:<8} {}", near.join("  "));
    }
    // A short text lacks many of the words of the questions.
    let found = analogy::analogy(features, &language::parsed_questions(), features.len());
    let similar = similarity::similarity(features, &language::pairs());
    let (found, similar) = match (found, similar) {
        (Ok(found), Ok(similar)) => (found, similar),
        (Err(e), _) | (_, Err(e)) => {
            let _ = writeln!(text, "not measured: {}", e.what());
            return Ok(Shown { figures: Vec::new(), text });
        }
    };
    let percent = |share: Option<f64>| share.map_or("-".to_string(), |s| format!("{:.1} %", 100.0 * s));
    let _ = writeln!(
        text,
        "analogies {} right of {} (meaning {}, grammar {}; chance {:.1} %)\nplanted similarity: Spearman {:.3} over {} pairs",
        percent(Some(found.accuracy)),
        found.answered,
        percent(found.semantic),
        percent(found.syntactic),
        100.0 / features.len() as f64,
        similar.spearman,
        similar.pairs,
    );
    let figures = vec![("analogy", json!(found.accuracy)), ("similarity", json!(similar.spearman))];
    Ok(Shown { figures, text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thinning_must_leave_something() {
        let windows = |subsample: &str| {
            let text = format!("[data]\nwords = 2000\n[pairs]\nsubsample = {subsample}\n");
            let job = Word2VecJob::new(&Recipe::new("a.toml", &text)).unwrap();
            let corpus = job.corpus(&[], &mut || unreachable!("it fits into memory")).unwrap();
            job.windows(&corpus).map(|windows| windows.kept())
        };
        let error = windows("1e-12").unwrap_err();
        assert!(error.to_string().contains("a.toml:4:") && error.to_string().contains("no pair"), "{error}");
        assert!(windows("0.0").unwrap() >= 1000.0);
    }
}
