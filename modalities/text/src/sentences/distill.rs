//! Distillation: a transformer (the teacher) is made into a static embedding, or taught to another transformer, in two stages.
//!
//! 1. The vocabulary (model2vec's way): the teacher reads each piece of its vocabulary by itself. Principal components of these rows,
//!    weighted by the pieces' frequencies, are the student's first table. Without texts that is all: a run before its first step.
//! 2. The texts (tokenlearn's way): the teacher reads each text once, and the student learns the principal components of its rows by the
//!    training loop and the losses that there are. A linear layer maps the student's rows to the teacher's: it begins as a regression, is
//!    trained with them, and is left out afterwards. Without it the vocabulary has the components of the texts.
//!
//! [`recipe`] is `[task.distill]`. [`teacher`] reads; [`vocabulary`] and [`rows`] make the first table; [`texts`] are the batches.

pub mod recipe;
pub mod rows;
pub mod teacher;
#[cfg(test)]
mod tests;
pub mod texts;
pub mod vocabulary;

use std::cell::Cell;
use std::collections::HashMap;
use std::ops::Range;

use candle_core::Tensor;
use ctk_core::data::source::Source as _;
use ctk_core::eval::pca::{self, Pca};
use ctk_core::eval::ridge::{Ridge, ridge};
use ctk_core::modality::{Job, Summary};
use ctk_core::model::encoder::Encoder as _;
use ctk_core::model::supervised::Supervised;
use ctk_core::nn::params::Params;
use ctk_core::nn::pass::Precision;
use ctk_core::observer::{Event, advanced};
use ctk_core::process::Process;
use ctk_core::recipe::Norms;
use ctk_core::store::rows::StoredRows;
use ctk_core::store::run::Run;
use ctk_core::train::fit::{Judge, Probe, fit_judged};
use ctk_core::train::learner::Learner as _;
use ctk_core::train::plan::Plan;
use ctk_core::{Error, Result, memory};
use ctk_texts::identity::identity;
use serde_json::{Value, json};

use self::recipe::{DistillRecipe, Frequencies};
use self::teacher::Teacher;
use self::texts::{Part, Taught};
use self::vocabulary::Vocabulary;
use super::encoder::encode;
use super::forecast::{self, Load};
use super::learner::Trainee;
use super::network::{Described, Network};
use super::recipe::{EncoderRecipe, SentencesRecipe, StaticRecipe};
use super::start::Start;
use super::table;
use super::tokenizing::{Rules, Tokenizing};
use crate::tokens::TokenEncoder;

/// The file of a run with its teacher's rows.
const ROWS: &str = "teacher.rows";

/// The learner of a student.
type Student = Trainee<Supervised<TokenEncoder>>;

/// A checked `[task.distill]`, ready to run.
pub struct Distilling {
    recipe: SentencesRecipe,
    task: DistillRecipe,
    plan: Plan,
}

/// The texts of a run: those to train on first, then those to measure on.
struct Texts {
    all: Vec<String>,
    train: usize,
}

impl Texts {
    fn dev(&self) -> Range<usize> {
        self.train..self.all.len()
    }
}

/// What the teacher says of the texts.
struct Targets {
    stored: StoredRows,
    train: usize,
    /// The projection of its rows; none where the loss compares rows of any width.
    pca: Option<Pca>,
    mean: Vec<f64>,
}

impl Targets {
    /// The rows `range`, projected, and their width.
    fn rows(&self, range: Range<usize>) -> Result<(Vec<f32>, usize)> {
        const AT_ONCE: usize = 8192;
        let width = self.pca.as_ref().map_or(self.stored.width(), Pca::kept);
        let what = "the teacher's rows of the texts";
        memory::require(what, 4 * (range.len() * width) as u64, |_| "give fewer texts, or a smaller width".to_string())?;
        let (mut all, mut room) = (Vec::with_capacity(range.len() * width), Vec::new());
        for from in range.clone().step_by(AT_ONCE) {
            self.stored.read(from..range.end.min(from + AT_ONCE), &mut room)?;
            match &self.pca {
                Some(pca) => all.extend(pca.project(&room, &self.mean)?),
                None => all.extend_from_slice(&room),
            }
        }
        Ok((all, width))
    }
}

impl Distilling {
    /// The job of a checked recipe.
    pub(super) fn new(task: DistillRecipe, recipe: SentencesRecipe, plan: Plan) -> Distilling {
        Distilling { recipe, task, plan }
    }

    /// The texts that the recipe names, if it names any.
    fn texts(&self, run: &mut Run, process: &mut Process) -> Result<Option<Texts>> {
        let data = &self.recipe.data;
        if data.generated() {
            return Ok(None);
        }
        run.set_data(identity(&data.files()?)?);
        let opened = data.open()?;
        opened.notes.iter().for_each(|note| process.tell(&Event::Note(note)));
        let mut all = texts::different(&opened.train);
        let train = all.len();
        if train < 2 {
            return Err(Error::usage("there is one text, and a student learns from the texts of a batch together")
                .hint("give thousands of different texts, one a line"));
        }
        let known: std::collections::HashSet<&String> = all.iter().collect();
        let dev: Vec<String> = opened.dev.iter().flat_map(texts::different).filter(|text| !known.contains(text)).collect();
        all.extend(dev);
        Ok(Some(Texts { all, train }))
    }

    /// What the teacher says of the texts: read from the file in which it is kept, and computed as far as it is not there.
    fn targets(&self, teacher: &Teacher, texts: &Texts, run: &mut Run, process: &mut Process) -> Result<Targets> {
        // What would be refused afterwards is refused before the teacher reads for minutes.
        let width = match self.recipe.loss.name() {
            "kl" => None,
            _ => Some(self.embedding(teacher)?),
        };
        if let Some(width) = width.filter(|width| *width > texts.train) {
            let what = format!("{} texts do not have {width} principal components", texts.train);
            return Err(Error::usage(what)
                .hint("give more texts, a smaller width (--width), or [loss.kl], which compares rows of any width"));
        }
        let path = match &self.task.rows {
            Some(path) => path.clone(),
            None => run.folder()?.join(ROWS),
        };
        let identity = texts.all.iter().fold(teacher.identity(self.task.targets), |of, text| of.and(text.as_bytes()));
        let count = texts.all.len();
        process.tell(&Event::About(&format!("the teacher's rows of {count} texts are kept in {}", path.display())));
        let stored = StoredRows::of(&path, &identity, [count, teacher.width()], |range| {
            if process.stopping() {
                let what = "stopped while the teacher read the texts; what it has read is kept";
                return Err(Error::interrupted(what).at(path.display()));
            }
            let rows = teacher.texts(&texts.all[range.clone()], self.task.targets)?;
            advanced(range.end, count);
            Ok(rows)
        })?;
        stored.notes.iter().for_each(|note| process.tell(&Event::Note(note)));
        if stored.found > 0 {
            let what = format!("the teacher's rows of {} of {count} texts were there already", stored.found);
            process.tell(&Event::Note(&what));
        }
        let part = Part { rows: &stored, from: 0, to: texts.train };
        let mean = pca::mean(&part)?;
        let pca = width.map(|width| Pca::of(&part, width)).transpose()?;
        Ok(Targets { stored, train: texts.train, pca, mean })
    }

    /// Values of the embedding that is compared with the teacher's.
    fn embedding(&self, teacher: &Teacher) -> Result<usize> {
        let (head, encoder) = (&self.recipe.head, &self.recipe.encoder);
        let (key, width) = match encoder {
            _ if head.layers > 0 => ("head.width", head.width),
            EncoderRecipe::Static(of) if of.weights.is_none() => ("encoder.static.width", of.width),
            EncoderRecipe::Transformer(of) if of.weights.is_none() => ("encoder.transformer.width", of.width),
            begun => ("head.width", Start::of(begun.weights().unwrap_or(std::path::Path::new("")))?.described.network.width()),
        };
        let what = format!("would compare {width} values with the teacher's, which has {}", teacher.width());
        self.plan.recipe.require(width <= teacher.width(), key, what).map_err(|e| {
            e.hint("principal components can only be fewer: use a smaller width, a head ([head] with layers = 1), or [loss.kl]")
        })?;
        Ok(width)
    }

    /// The vocabulary of a static embedding that begins with its teacher's; none for other students. It is made before the teacher reads
    /// texts, so that mistakes are found early.
    fn vocabulary(&self, teacher: &Teacher, texts: Option<&Texts>, process: &mut Process) -> Result<Option<Vocabulary>> {
        let EncoderRecipe::Static(StaticRecipe { weights: None, width, .. }) = self.recipe.encoder else { return Ok(None) };
        let what = format!("is more than the teacher's {} values", teacher.width());
        self.plan.recipe.require(width <= teacher.width(), "encoder.static.width", what)?;
        let mut words = self.task.vocabulary.as_deref().map(vocabulary::words).transpose()?.unwrap_or_default();
        let mut vocabulary = Vocabulary::of(teacher, &words)?;
        if let (Some(texts), true) = (texts, self.task.words > 0) {
            let all: Vec<&str> = texts.all[..texts.train].iter().map(String::as_str).collect();
            words.extend(vocabulary::frequent(&vocabulary.tokenizer, &all, self.task.words)?);
            vocabulary = Vocabulary::of(teacher, &words)?;
        }
        vocabulary.notes.iter().for_each(|note| process.tell(&Event::Note(note)));
        Ok(Some(vocabulary))
    }

    /// The student before its first step.
    fn start(
        &self,
        teacher: &Teacher,
        vocabulary: Option<Vocabulary>,
        texts: Option<(&Texts, &Targets)>,
        process: &mut Process,
    ) -> Result<(Start, Vec<(&'static str, Value)>)> {
        let (EncoderRecipe::Static(of), Some(vocabulary)) = (&self.recipe.encoder, vocabulary) else {
            return Ok((self.other(teacher, texts)?, Vec::new()));
        };
        let by = self.task.frequencies;
        let rules = Rules { longest: self.recipe.tokenizer.longest, ignored: vocabulary.unknown, ..Rules::default() };
        let tokens = match (by, texts) {
            (Frequencies::Counts, Some((texts, _))) => {
                let cut = Tokenizing::new(vocabulary.tokenizer.clone(), rules.clone(), vocabulary.rows.len())?;
                cut.cut_all(&texts.all[..texts.train])?
            }
            _ => Vec::new(),
        };
        let frequencies = rows::frequencies(by, vocabulary.rows.len(), tokens.iter().map(|text| &text.ids[..]));
        process.tell(&Event::Note(match by {
            Frequencies::Ranks => "rows are weighted by frequencies that follow from the pieces' numbers",
            Frequencies::Counts => "rows are weighted by the frequencies of the pieces in the texts",
            Frequencies::None => "rows are not weighted by frequency",
        }));
        // Without a layer between, rows that learn texts have the texts' components, so that the table begins where it is to go.
        let bare = texts.filter(|_| self.recipe.head.layers == 0);
        let shared = bare.and_then(|(_, targets)| targets.pca.as_ref()).filter(|pca| pca.kept() == of.width);
        let made = rows::rows(teacher, &vocabulary, shared, of.width, frequencies.as_deref(), self.task.sif)?;
        let figures = vec![
            ("pieces", json!(vocabulary.rows.len())),
            ("width", json!(of.width)),
            ("explained", json!(made.explained)),
            ("frequencies", json!(by)),
        ];
        let network = Network::Table([vocabulary.rows.len(), of.width]);
        let tensors = Some(HashMap::from([(table::ROWS.to_string(), made.table)]));
        let described = Described { network, rules, normalise: true };
        Ok((Start { described, tokenizer: vocabulary.tokenizer, tensors, notes: Vec::new() }, figures))
    }

    /// A student that learns from the texts alone: with its teacher's tokenizer, unless it has one or the recipe names one.
    fn other(&self, teacher: &Teacher, texts: Option<(&Texts, &Targets)>) -> Result<Start> {
        let recipe = &self.recipe;
        let all = || texts.map_or(&[][..], |(texts, _)| &texts.all[..texts.train]).iter().map(String::as_str).collect();
        let own =
            recipe.encoder.weights().is_some() || recipe.tokenizer.file.is_some() || self.plan.recipe.states("tokenizer.train");
        let mut start = match own {
            true => Start::new(recipe, &self.plan.recipe, all)?,
            false => Start::with(recipe, &self.plan.recipe, teacher.tokenizer().clone())?,
        };
        if !own {
            let Rules { lower, punctuation, .. } = teacher.described().rules;
            start.described.rules = Rules { lower, punctuation, ..start.described.rules };
            start.notes.push("the student has its teacher's tokenizer".to_string());
        }
        Ok(start)
    }

    /// Whether the student is a static embedding with one linear layer, by which the teacher's rows are told from its own.
    fn begins_by_regression(&self) -> bool {
        let SentencesRecipe { encoder, head, loss, .. } = &self.recipe;
        matches!(encoder, EncoderRecipe::Static(_)) && head.layers == 1 && head.norms == Norms::None && loss.name() == "mse"
    }

    fn learner(&self, start: &Start, process: &Process) -> Result<Student> {
        let network = &start.described.network;
        let begin = |params: &Params| start.tensors.as_ref().map_or(Ok(()), |tensors| params.load_section("encoder", tensors));
        let towers = |tower| Supervised { tower };
        let dense = self.recipe.method().learner_of(|scope| network.encoder(scope), towers, begin, process.device())?;
        Ok(Trainee { dense, files: start.files()? })
    }

    /// Trains the student on the texts.
    fn fit(
        &self,
        start: &Start,
        texts: &Texts,
        targets: &Targets,
        figures: Vec<(&'static str, Value)>,
        run: &mut Run,
        process: &mut Process,
    ) -> Result<Summary> {
        let Distilling { recipe, plan, .. } = self;
        let vocabulary = start.described.network.vocabulary();
        let tokenizing = Tokenizing::new(start.tokenizer.clone(), start.described.rules.clone(), vocabulary)?;
        let of = |range: Range<usize>| -> Result<Taught> {
            let (rows, width) = targets.rows(range.clone())?;
            Taught::new(&texts.all[range], &tokenizing, rows, width)
        };
        let (source, dev) = (of(0..targets.train)?, of(texts.dev())?);
        for (what, count) in [
            ("texts without a token of the student, which are left out", source.empty + dev.empty),
            ("texts that are longer than the student reads, so that their ends are left out", source.short + dev.short),
        ] {
            if count > 0 {
                process.tell(&Event::Note(&format!("{what}: {count} of {}", texts.all.len())));
            }
        }
        let load = Load { samples: targets.train, texts: 1.0, tokens: source.mean_length() };
        let memory = forecast::check(recipe, &start.described.network, &load, process.device())?;
        process.tell(&Event::About(&memory));
        let mut learner = self.learner(start, process)?;
        if run.latest()?.is_none() && self.begins_by_regression() {
            regress(&mut learner, &source)?;
            process.tell(&Event::About("the head begins as the ridge regression of the teacher's rows on the student's"));
        }
        let batch = recipe.train.batch.min(targets.train);
        let what = format!(
            "learning from the teacher's rows of {} texts of {:.1} tokens on average, by [loss.{}]: batches of {batch}",
            targets.train,
            source.mean_length(),
            recipe.loss.name()
        );
        process.tell(&Event::About(&what));
        process.tell(&Event::About(&format!("run: {}", run.folder()?.display())));
        const NAME: &str = "dev_agreement";
        let measured = dev.len() > 2;
        let encoder = |learner: &Student| dev.agreement(&learner.dense.towers.tower.encoder);
        let last = Cell::new(None);
        let mut probes = Vec::new();
        if measured {
            let value = |learner: &Student| {
                let found = encoder(learner)?;
                last.set(Some(found));
                Ok(vec![(NAME.to_string(), found)])
            };
            probes.push(Probe { every: recipe.eval.every, measure: Box::new(value) });
        }
        let judge = match (measured, recipe.checkpoint.keep_best) {
            (true, true) => Some(Judge {
                measure: NAME,
                on: "held-out texts",
                samples: dev.len(),
                value: Box::new(|learner: &Student| encoder(learner)),
            }),
            (false, true) => {
                return Err(plan
                    .recipe
                    .error("checkpoint.keep_best", "needs held-out texts to judge by")
                    .hint("name some: data.dev, or data.dev_share = 0.05"));
            }
            _ => None,
        };
        let fitted = fit_judged(&source, &mut learner, plan, &mut probes, judge, run, process)?;
        drop(probes);
        let mut summary = Summary { figures, next: NEXT.to_vec(), ..Summary::default() };
        summary.figures.push(("texts", json!(targets.train)));
        summary.figures.push(("texts_per_second", json!(fitted.samples as f64 / fitted.seconds.max(1e-9))));
        summary.figures.extend(fitted.figures());
        if measured {
            let value = match last.get().filter(|_| fitted.epochs % recipe.eval.every as f64 == 0.0) {
                Some(value) => value,
                None => encoder(&learner)?,
            };
            summary.figures.push((NAME, json!(value)));
            summary.text =
                format!("Spearman correlation of student's and teacher's cosines of {} held-out texts: {value:.3}\n", dev.len());
        }
        if let Some(best) = &fitted.best {
            summary.figures.push(("best", json!({ "step": best.step, "measure": best.measure, "value": best.value })));
            summary.text.push_str(&format!("the best checkpoint is that of step {}: {:.3}\n", best.step, best.value));
        }
        Ok(Summary { steps: fitted.steps, epochs: fitted.epochs, loss: fitted.loss, seconds: fitted.seconds, ..summary })
    }
}

/// Texts of which the head is the regression.
const REGRESSED: usize = 20_000;

/// The strength of that regression.
const STRENGTH: f64 = 1.0;

/// Sets a student's head, one linear layer, to the ridge regression of the teacher's rows on the student's.
fn regress(learner: &mut Student, source: &Taught) -> Result<()> {
    let count = source.len().min(REGRESSED);
    let tower = &learner.dense.towers.tower;
    let width = tower.encoder.width();
    let tokens: Vec<&[u32]> = (0..count).map(|index| source.tokens(index)).collect();
    let mut own = Vec::with_capacity(count * width);
    encode(&tower.encoder, Precision::F32, &tokens, &mut own)?;
    let Ridge { weight, bias } = ridge((&own, width), (source.rows(count), source.width), STRENGTH)?;
    for (end, values) in [("weight", weight), ("bias", bias)] {
        let name = format!("head.layers.0.{end}");
        let param = learner.dense.params.iter().find(|param| param.name() == name);
        let param = param.ok_or_else(|| Error::new(format!("a head without {name}")))?;
        param.set(&Tensor::from_vec(values, param.dims(), &candle_core::Device::Cpu)?)?;
    }
    Ok(())
}

const NEXT: [&str; 3] = [
    "ctk embed RUN --data texts.txt --out texts.npy",
    "ctk eval sts RUN --pairs sts.tsv",
    "ctk export RUN --format sentence-transformers --out folder",
];

impl Job for Distilling {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn run(self: Box<Self>, run: &mut Run, process: &mut Process) -> Result<Summary> {
        let texts = self.texts(run, process)?;
        let before = run.latest()?;
        let Some(texts) = texts else {
            if before.is_some() {
                process
                    .tell(&Event::Note("this run was made of a vocabulary alone, and is whole: there is no step to go on with"));
                return Ok(Summary { next: NEXT.to_vec(), ..Summary::default() });
            }
            return self.vocabulary_alone(run, process);
        };
        let teacher = self.opened(process)?;
        let vocabulary = match before {
            Some(_) => None,
            None => self.vocabulary(&teacher, Some(&texts), process)?,
        };
        let targets = self.targets(&teacher, &texts, run, process)?;
        let (start, figures) = match before {
            Some(checkpoint) => (Start::again(&checkpoint)?, Vec::new()),
            None => self.start(&teacher, vocabulary, Some((&texts, &targets)), process)?,
        };
        start.notes.iter().for_each(|note| process.tell(&Event::Note(note)));
        self.fit(&start, &texts, &targets, figures, run, process)
    }
}

impl Distilling {
    fn opened(&self, process: &mut Process) -> Result<Teacher> {
        let teacher = Teacher::open(&self.task.teacher, process.device())?;
        teacher.notes.iter().for_each(|note| process.tell(&Event::Note(&format!("the teacher: {note}"))));
        Ok(teacher)
    }

    /// A run before its first step. Everything is computed before the folder is made.
    fn vocabulary_alone(&self, run: &mut Run, process: &mut Process) -> Result<Summary> {
        let teacher = self.opened(process)?;
        let began = std::time::Instant::now();
        let vocabulary = self.vocabulary(&teacher, None, process)?;
        let (start, mut figures) = self.start(&teacher, vocabulary, None, process)?;
        let learner = self.learner(&start, process)?;
        if process.stopping() {
            return Err(Error::interrupted("stopped before anything was written"));
        }
        if process.writes() {
            run.save(0, self.plan.saves.keep, |writer| learner.save(writer))?;
        }
        figures.push(("vocabulary_seconds", json!(began.elapsed().as_secs_f64())));
        Ok(Summary { figures, next: NEXT.to_vec(), ..Summary::default() })
    }
}
