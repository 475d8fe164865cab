//! The start of a run: random rows, or another run's words and vectors.
//!
//! A run that begins with another run (`train.init`) keeps all of its words, also those that the new text does not contain, and adds words
//! of the new text that reach `vocabulary.min_count`. Counts are those of the new text alone, because that is what is trained on.
//! Subsampling and negatives depend on counts, so a word that the new text does not contain is neither trained nor drawn, and does not
//! change. The learning rate starts at its peak again. Phrases of the other run are joined in the new text, unless the recipe finds phrases
//! of its own.

use std::path::Path;

use ctk_core::process::Process;
use ctk_core::recipe::Recipe;
use ctk_core::store::checkpoint::Checkpoint;
use ctk_core::store::run::Run;
use ctk_core::{Context, Error, Result};
use ctk_texts::corpus::Found;
use ctk_texts::recipe::DataRecipe;
use ctk_texts::vocabulary::Vocabulary;

use super::NAME;
use super::model::phrases_of;
use super::recipe::{Contrast, Word2VecRecipe};
use super::sparse::{HEAD, MODEL, VOCABULARY, Vectors, table};

/// The file, in the run's folder, of the words that the run began with; a resumed run reads it.
const KNOWN: &str = "initial.tsv";

/// What a run begins with.
#[derive(Default)]
pub struct Init {
    /// Words that are kept even if they are rare.
    pub known: Vec<String>,
    /// The rows of these words, unless a checkpoint of the run has them.
    pub vectors: Option<Vectors>,
    /// Phrases of the text that are words of these vectors.
    pub phrases: Found,
    /// Notes about the start.
    pub notes: Vec<String>,
}

impl Init {
    /// What `train.init` names; for a resumed run, what it began with.
    ///
    /// # Errors
    /// There is no such run, it is not a word2vec run, or its vectors have another width.
    pub fn of(run: &Run, text: &Recipe, recipe: &Word2VecRecipe) -> Result<Init> {
        let Some(from) = &recipe.train.init else { return Ok(Init::default()) };
        // The generated language has no phrases.
        let joins = recipe.vocabulary.phrases.passes == 0 && recipe.data.path.is_some();
        if let Some(known) = run.read(KNOWN)?
            && let Some(latest) = run.latest()?
        {
            let (known, reader) = (Vocabulary::from_bytes(known).at(KNOWN)?, latest.reader());
            let phrases = if joins { phrases_of(&reader, recipe, &known)? } else { Found::default() };
            return Ok(Init { known: known.words().to_vec(), phrases, ..Init::default() });
        }
        let checkpoint = Checkpoint::open(Path::new(from)).at(text.place_of("train.init"))?;
        let of = &checkpoint.manifest().modality;
        if of != NAME {
            return Err(Error::usage(format!("this is a run of {of}: word vectors begin with a run of {NAME}")).at(from));
        }
        let was = Word2VecRecipe::parse(&checkpoint.recipe())?;
        if was.subwords() != recipe.subwords() {
            return Err(Error::usage(format!("{from} has {:?} and the recipe {:?}", was.subwords(), recipe.subwords()))
                .at(text.place_of("encoder"))
                .hint("a run begins with one whose words are made of the same n-grams"));
        }
        if [&was, recipe].iter().any(|recipe| matches!(recipe.contrast(), Contrast::Tree)) {
            return Err(Error::usage("hierarchical softmax has a tree for each text, whose rows mean nothing in another's")
                .at(text.place_of("train.init"))
                .hint("begin with a run of negative sampling, and use negative sampling"));
        }
        let reader = checkpoint.reader();
        let known = Vocabulary::from_bytes(reader.bytes(VOCABULARY)?).at(from)?;
        let buckets = recipe.subwords().map_or(0, |subwords| subwords.buckets);
        let values = |file: &str, name: &str, wanted: usize| -> Result<Vec<f32>> {
            let tensor = table(&reader, file, name)?;
            let (rows, width) = tensor.dims2()?;
            if width != recipe.width() {
                return Err(Error::usage(format!("{from} has vectors of width {width}, the recipe wants {}", recipe.width()))
                    .at(text.place_of("encoder.table.width"))
                    .hint(format!("--set encoder.table.width={width}")));
            }
            if rows != wanted {
                return Err(Error::new(format!("the tensor `{name}` has {rows} rows, not {wanted}")).at(file));
            }
            Ok(tensor.flatten_all()?.to_vec1::<f32>()?)
        };
        let (input, output) =
            (values(MODEL, "input", known.len() + buckets).at(from)?, values(HEAD, "output", known.len()).at(from)?);
        let place = known.words().iter().enumerate().map(|(row, word)| (word.clone(), row)).collect();
        let vectors = Some(Vectors { place, input, output, width: recipe.width() });
        let mut notes = read_otherwise(from, &was, recipe);
        let mut phrases = phrases_of(&reader, &was, &known).at(from)?;
        if !phrases.is_empty() {
            let count = phrases.len();
            notes.push(match joins {
                true => format!("phrases of {from} that are joined in this text: {count}"),
                false => format!("phrases of {from} that are not joined in this text: {count}"),
            });
        }
        if !joins {
            phrases = Found::default();
        }
        Ok(Init { known: known.words().to_vec(), vectors, phrases, notes })
    }

    /// Writes what a resumed run needs into the run's folder. Returns a note on which words were kept and added in a text of `vocabulary`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn keep(&self, run: &mut Run, process: &Process, vocabulary: &Vocabulary, rate: f64) -> Result<Option<String>> {
        if self.vectors.is_none() {
            return Ok(None);
        }
        if process.writes() {
            let words = Vocabulary::new(self.known.clone(), vec![0; self.known.len()]);
            run.write(KNOWN, words.to_tsv().as_bytes())?;
        }
        let absent = vocabulary.counts().iter().filter(|count| **count == 0).count();
        Ok(Some(format!(
            "begins with the vectors of {} words, {absent} of which are not in this text and stay as they are; {} words are new; the \
             rate starts at its peak again, {rate}",
            self.known.len(),
            vocabulary.len() - self.known.len(),
        )))
    }
}

/// A note for each key by which the text of `from` was cut differently from the text of `recipe`.
fn read_otherwise(from: &str, was: &Word2VecRecipe, recipe: &Word2VecRecipe) -> Vec<String> {
    let said = |data: &DataRecipe| {
        [
            ("data.tokens", format!("\"{}\"", data.tokens)),
            ("data.lowercase", data.lowercase.to_string()),
            ("data.normalise", format!("\"{}\"", format!("{:?}", data.normalise).to_lowercase())),
        ]
    };
    let keys = said(&was.data).into_iter().zip(said(&recipe.data)).filter(|(was, now)| was != now);
    keys.map(|((key, was), (_, now))| {
        format!("{from} was trained with {key} = {was}, and this text is read with {now}: words that differ because of it start with new vectors")
    })
    .collect()
}
