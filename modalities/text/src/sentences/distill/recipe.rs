//! `[task.distill]` of sentences, and the recipe that `ctk distill` writes for a teacher.

use std::path::{Path, PathBuf};

use ctk_core::recipe::Recipe;
use ctk_core::store::checkpoint::Checkpoint;
use ctk_core::task::{Distill, Task, TaskRequest};
use ctk_core::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::sentences::network::Network;
use crate::sentences::origin::Origin;
use crate::sentences::recipe::{EncoderRecipe, SentencesRecipe};
use crate::sentences::start::Start;

/// Values of a student's vectors, unless its teacher has fewer.
const WIDTH: usize = 256;

/// The largest number of words of a text that are added to a vocabulary.
const MOST_WORDS: usize = 1_000_000;

/// `[task.distill]`: learn from another encoder of sentences, the teacher, in place of pairs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DistillRecipe {
    /// The teacher: a run of sentences, a folder of sentence-transformers or transformers, or `hf://owner/name`. It is a transformer.
    pub teacher: PathBuf,
    /// What the teacher says of a text: `tokens`, the mean of its tokens' outputs without those of special tokens (tokenlearn's), or
    /// `features`, its embedding.
    pub targets: Targets,
    /// The file in which the teacher's rows of the texts are kept. Runs that name the same file compute them once. Default: `teacher.rows`
    /// in the run.
    pub rows: Option<PathBuf>,
    /// Words of the student's vocabulary beside the teacher's pieces: a file with one on each line.
    pub vocabulary: Option<PathBuf>,
    /// How many of the texts' most frequent words join the vocabulary, if they are no pieces of it.
    pub words: usize,
    /// Where the frequencies p of a piece come from by which rows are weighted: `ranks` (1 / (number + 2), since tokenizers number pieces by
    /// frequency), `counts` (of the texts; pieces that these lack get the full weight) or `none` (no weights).
    pub frequencies: Frequencies,
    /// a: a row is multiplied by a / (a + p) (Arora et al. 2017).
    pub sif: f64,
}

impl Default for DistillRecipe {
    fn default() -> Self {
        DistillRecipe {
            teacher: PathBuf::new(),
            targets: Targets::Tokens,
            rows: None,
            vocabulary: None,
            words: 0,
            frequencies: Frequencies::Ranks,
            sif: 1e-4,
        }
    }
}

/// What a teacher says of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Targets {
    /// The mean of the outputs of its tokens, without special tokens.
    Tokens,
    /// Its embedding.
    Features,
}

/// Where the frequencies of pieces come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Frequencies {
    /// From the pieces' numbers.
    Ranks,
    /// From the texts.
    Counts,
    /// From nowhere: rows have no weights.
    None,
}

impl DistillRecipe {
    /// Checks every value; errors point at its line in `text`, which `recipe` was read from.
    pub(in crate::sentences) fn check(&self, text: &Recipe, recipe: &SentencesRecipe) -> Result<()> {
        let key = |name: &str| format!("task.distill.{name}");
        text.require(!self.teacher.as_os_str().is_empty(), &key("teacher"), "names the encoder that teaches")?;
        let local = |path: &PathBuf| !path.as_os_str().is_empty() && !ctk_hub::is_remote(path);
        text.require(self.rows.as_ref().is_none_or(local), &key("rows"), "names a file on this machine")?;
        let named = self.vocabulary.as_ref().is_none_or(|path| !path.as_os_str().is_empty());
        text.require(named, &key("vocabulary"), "names a file with a word on each line")?;
        text.positive(&key("sif"), self.sif, 1.0)?;
        text.within(&key("words"), self.words, 0..=MOST_WORDS)?;
        let texts = !recipe.data.generated();
        for (name, given) in
            [("words", self.words > 0), ("rows", self.rows.is_some()), ("frequencies", self.frequencies == Frequencies::Counts)]
        {
            text.require(texts || !given, &key(name), "needs texts, and the recipe names none")
                .map_err(|e| e.hint("--data names some"))?;
        }
        let what = "needs held-out texts to judge by, and the recipe names no texts";
        text.require(texts || !recipe.checkpoint.keep_best, "checkpoint.keep_best", what)
            .map_err(|e| e.hint("--data names some"))?;
        let plain = recipe.data.source.iter().all(|source| source.weight == 1.0);
        text.require(plain, "data.source", "cannot have weights here: the teacher's rows of all different texts are learned")?;
        let begun = recipe.encoder.weights().is_some();
        let own = matches!(recipe.encoder, EncoderRecipe::Static(_)) && !begun;
        for (name, given) in [
            ("vocabulary", self.vocabulary.is_some()),
            ("words", self.words > 0),
            ("frequencies", self.frequencies != Frequencies::Ranks),
        ] {
            let what = "is for a static embedding that begins with its teacher's vocabulary, and this student does not";
            text.require(own || !given, &key(name), what)?;
        }
        let what = "has to be left out: a static embedding has its teacher's tokenizer, into which its rows fit";
        text.require(!own || recipe.tokenizer.file.is_none(), "tokenizer.file", what)
            .map_err(|e| e.hint("words of your own join the teacher's pieces by task.distill.vocabulary (--vocabulary)"))?;
        if !own {
            let what = "needs texts to learn from: only a fresh static embedding can be made of its teacher's vocabulary alone";
            text.require(texts, "task.distill", what).map_err(|e| e.hint("--data names texts"))?;
        }
        let loss = recipe.loss.name();
        let compares = recipe.loss.needs().teacher || matches!(loss, "infonce" | "ranking");
        text.require(!texts || compares, &format!("loss.{loss}"), "does not compare a text with its teacher's embedding")
            .map_err(|e| e.hint("use [loss.mse], [loss.kl], [loss.infonce] or [loss.ranking]"))
    }
}

/// The recipe for `request`, a distillation of the encoder that it names.
///
/// # Errors
/// Flags that sentences do not have; a teacher that cannot be read, or is no transformer; a width that it does not have.
pub fn written(request: &TaskRequest) -> Result<Recipe> {
    let Task::Distill(task) = &request.task else {
        return Err(Error::usage("an encoder of sentences cannot be fine-tuned with labels")
            .at(request.run.display())
            .hint("`ctk train sentences --init` trains it on pairs of texts"));
    };
    refused(request, task)?;
    let teacher = Start::of(&request.run)?.described;
    if matches!(teacher.network, Network::Table(_)) {
        return Err(Error::usage("this is a static embedding already, so it cannot teach one").at(request.run.display()).hint(
            "give a transformer: a run with [encoder.transformer], or a folder of sentence-transformers such as all-MiniLM-L6-v2",
        ));
    }
    let values = teacher.network.width();
    if let Some(width) = task.width.filter(|width| *width > values) {
        let what = format!("--width {width} is more than the teacher's {values} values");
        return Err(Error::usage(what).at(request.run.display()).hint("principal components can only be fewer"));
    }
    let mut recipe = match &task.student {
        Some(student) => student.clone(),
        None => Recipe::new("the recipe of this task", "# Distillation of an encoder of sentences.\n"),
    };
    recipe.remove("task")?;
    if let Some(data) = &request.data {
        ["data.path", "data.source"].iter().try_for_each(|key| recipe.remove(key))?;
        recipe.set_path("data.path", data)?;
    }
    if let Some(from) = &task.from {
        begun(&mut recipe, from)?;
    }
    if let Some(width) = task.width {
        let fits = matches!(recipe.parse::<SentencesRecipe>()?.encoder, EncoderRecipe::Static(_));
        if !fits || task.from.is_some() {
            return Err(Error::usage("--width is for a static embedding that begins with its teacher's vocabulary")
                .hint("a transformer's width is encoder.transformer.width of its recipe"));
        }
        recipe.set("encoder.static.width", &width.to_string())?;
    }
    if !recipe.states("encoder") {
        recipe.set("encoder.static.width", &WIDTH.min(values).to_string())?;
    }
    recipe.set_path("task.distill.teacher", &request.run)?;
    if let Some(file) = &task.vocabulary {
        recipe.set_path("task.distill.vocabulary", file)?;
    }
    for (key, value) in [
        ("train.batch", request.batch.map(|batch| batch.to_string())),
        ("train.epochs", task.epochs.map(|epochs| epochs.to_string())),
        ("optimizer.adamw.rate", task.rate.map(|rate| format!("{rate:?}"))),
    ] {
        if let Some(value) = value {
            recipe.set(key, &value)?;
        }
    }
    Ok(recipe)
}

/// Refuses flags of `ctk distill` that sentences do not have.
fn refused(request: &TaskRequest, task: &Distill) -> Result<()> {
    let flags = [
        ("--temperature", task.temperature.is_some(), "the temperatures of losses are set by --set, as loss.infonce.temperature"),
        ("--alpha", task.alpha.is_some(), "texts have no labels here: the teacher's embeddings are all that is learned"),
        ("--optimizer", request.optimizer.is_some(), "sentences are trained by AdamW, or by what the student's recipe names"),
        ("--from-layer", request.from_layer.is_some(), "the student's recipe has its [head]"),
        ("--bn", request.frozen_statistics, "encoders of sentences have no batch normalisation"),
    ];
    match flags.iter().find(|(_, given, _)| *given) {
        Some((flag, _, hint)) => Err(Error::usage(format!("{flag} is for teachers of images, and this one reads texts"))
            .at(request.run.display())
            .hint(*hint)),
        None => Ok(()),
    }
}

/// Makes `recipe` begin with the encoder at `path`: a run of sentences, another program's folder, or word vectors.
///
/// # Errors
/// There is no such encoder.
pub fn begun(recipe: &mut Recipe, path: &Path) -> Result<()> {
    let kind = if Origin::of(path)?.is_table()? { "static" } else { "transformer" };
    recipe.remove("encoder")?;
    ["file", "train"].iter().try_for_each(|key| recipe.remove(&format!("tokenizer.{key}")))?;
    recipe.set_path(&format!("encoder.{kind}.weights"), path)
}

/// Makes `recipe` begin with `run`, a run of sentences. If it is the run's own recipe, what a distillation was trained by is removed: the
/// new run learns from pairs.
///
/// # Errors
/// There is no such run.
pub fn continued(recipe: &mut Recipe, run: &Path) -> Result<()> {
    let own = Checkpoint::open(run)?.recipe().text() == recipe.text();
    if own && recipe.states("task") {
        ["task", "loss", "optimizer", "schedule", "head", "train", "checkpoint"].iter().try_for_each(|key| recipe.remove(key))?;
    }
    begun(recipe, run)
}
