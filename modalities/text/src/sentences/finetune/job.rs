//! The job of `[task.finetune]`: which texts keep their labels, training by either scheme, and what the test texts show at the end.

use std::cell::RefCell;

use candle_core::DType;
use ctk_core::data::dataset::Dataset;
use ctk_core::data::labels::Subset;
use ctk_core::data::pair::PairGenerator;
use ctk_core::data::source::{Paired, Source as _};
use ctk_core::eval::{Judgement, Predictions};
use ctk_core::modality::{Job, Summary};
use ctk_core::model::head::ProjectionHead;
use ctk_core::model::supervised::{Logits as Taught, Supervised};
use ctk_core::model::tower::Tower;
use ctk_core::nn::params::Params;
use ctk_core::nn::pass::Precision;
use ctk_core::objective::CrossEntropy;
use ctk_core::observer::Event;
use ctk_core::optim::Optimizer;
use ctk_core::process::Process;
use ctk_core::recipe::OnNonfinite;
use ctk_core::rng::{Key, Rng};
use ctk_core::store::run::Run;
use ctk_core::train::dense::Dense;
use ctk_core::train::fit::{Fitted, fit};
use ctk_core::train::plan::Plan;
use ctk_core::{Device, Result, task};
use serde_json::{Map, Value, json};

use super::super::encoder::encode;
use super::super::forecast::{self, Load};
use super::super::learner::Trainee;
use super::super::network::Network;
use super::super::recipe::SentencesRecipe;
use super::super::start::Start;
use super::super::tokenizing::Tokenizing;
use super::classifier::{About, Logits};
use super::data::Data;
use super::learner::SetFit;
use super::pairs::LabelledPairs;
use super::recipe::{FinetuneRecipe, Scheme, trained};
use crate::tokens::{TokenEncoder, Tokens};

/// A checked recipe with `[task.finetune]`, ready to run.
pub struct Finetuning {
    task: FinetuneRecipe,
    recipe: SentencesRecipe,
    plan: Plan,
}

/// The labelled texts.
struct Labelled {
    tokens: Vec<Vec<u32>>,
    names: Vec<String>,
    labels: Vec<u32>,
    about: About,
}

/// What training made.
struct Made {
    fitted: Fitted,
    classifier: Logits,
    /// The features of texts of these tokens, as the classifier reads them.
    rows: Vec<f32>,
    figures: Vec<(&'static str, Value)>,
}

impl Finetuning {
    /// The job of a checked recipe.
    pub(in super::super) fn new(task: FinetuneRecipe, recipe: SentencesRecipe, plan: Plan) -> Finetuning {
        let recipe = trained(&recipe, &task);
        let mut plan = plan;
        plan.train.seed = task.seed;
        // A last, smaller batch would be half of few labels.
        plan.drop_last = false;
        Finetuning { task, recipe, plan }
    }

    /// Trains the encoder on pairs; the classifier is fitted to what it makes of the labelled texts.
    fn by_pairs(&self, start: &Start, of: &Labelled, test: &[&[u32]], run: &mut Run, process: &mut Process) -> Result<Made> {
        let Finetuning { task, recipe, plan } = self;
        let source = LabelledPairs::new(&of.tokens, &of.labels, task.pairs, task.seed);
        let steps = source.len().div_ceil(plan.train.batch.min(source.len()).max(1));
        process.tell(&Event::About(&format!(
            "training by pairs (setfit): {} of one class and as many of two, {steps} steps an epoch, {} epochs",
            source.each(),
            plan.train.epochs
        )));
        let network = &start.described.network;
        let begin = |params: &Params| start.tensors.as_ref().map_or(Ok(()), |tensors| params.load_section("encoder", tensors));
        let dense = recipe.method().learner(|scope| network.encoder(scope), begin, process.device())?;
        let mut learner = SetFit {
            trainee: Trainee { dense, files: start.files()? },
            texts: &of.tokens,
            names: &of.names,
            labels: &of.labels,
            about: of.about.clone(),
            normalise: start.described.normalise,
            folds: task.folds,
            seed: task.seed,
            fitted: RefCell::default(),
        };
        let fitted = fit(&source, &mut learner, plan, &mut [], run, process)?;
        let (classifier, strength) = learner.classifier()?;
        let rows = learner.features(test)?;
        let figures = vec![("pairs", json!(source.len())), ("regularisation", json!(strength))];
        Ok(Made { fitted, classifier, rows, figures })
    }

    /// Trains a linear classifier with the encoder.
    fn plainly(&self, start: &Start, of: &Labelled, test: &[&[u32]], run: &mut Run, process: &mut Process) -> Result<Made> {
        let Finetuning { task, recipe, plan } = self;
        process
            .tell(&Event::About(&format!("training a linear classifier by cross entropy (plain): {} epochs", plan.train.epochs)));
        let network = &start.described.network;
        let (params, tower) = classifying(recipe, network, of.about.classes.len(), task.seed, process.device())?;
        if let Some(tensors) = &start.tensors {
            params.load_section("encoder", tensors)?;
        }
        let optimizer = Optimizer::new(&recipe.optimizer);
        optimizer.check(&params)?;
        let train = &recipe.train;
        let dense = Dense {
            precision: train.precision,
            recompute: train.recompute,
            clip: train.clip,
            leaves_out: train.on_nonfinite == OnNonfinite::Skip,
            ..Dense::new(Supervised { tower }, Box::new(CrossEntropy { teacher: None }), params, optimizer)
        };
        let mut files = start.files()?;
        files.push(of.about.file()?);
        let mut learner = Trainee { dense, files };
        let fitted = fit(&Paired { data: of, pairs: OneText }, &mut learner, plan, &mut [], run, process)?;
        let mut rows = Vec::new();
        encode(&learner.dense.towers.tower.encoder, Precision::F32, test, &mut rows)?;
        let section = learner.dense.params.section("head")?;
        let classifier = Logits::named(of.about.clone(), &section.into_iter().collect())?;
        Ok(Made { fitted, classifier, rows, figures: Vec::new() })
    }
}

/// The encoder with a classifier of so many classes, with fresh values from `seed`.
fn classifying(
    recipe: &SentencesRecipe,
    network: &Network,
    classes: usize,
    seed: u64,
    device: &Device,
) -> Result<(Params, Tower<TokenEncoder>)> {
    let mut params = Params::new();
    ["encoder", "head"].into_iter().for_each(|section| params.declare(section));
    let encoder = network.encoder(params.root().sub("encoder"))?;
    let head = ProjectionHead::classifier(&recipe.head, 0, classes, network.width(), params.root().sub("head"));
    params.materialise(Key::new(seed), DType::F32, &device.by(recipe.train.rules()))?;
    Ok((params, Tower { encoder, head, predictor: None }))
}

impl Dataset for &Labelled {
    type Sample = Vec<u32>;

    fn len(&self) -> usize {
        self.tokens.len()
    }

    fn get(&self, index: usize) -> Result<Vec<u32>> {
        Ok(self.tokens[index].clone())
    }

    fn name(&self, index: usize) -> String {
        self.names[index].clone()
    }

    fn label(&self, index: usize) -> Option<u32> {
        self.labels.get(index).copied()
    }
}

/// One view of a text: itself.
struct OneText;

impl PairGenerator for OneText {
    type Sample = Vec<u32>;
    type Left = Tokens;
    type Right = Taught;

    fn views(&self) -> [usize; 2] {
        [1, 0]
    }

    fn pairs(&self, sample: &Vec<u32>, _: &mut Rng, left: &mut [Tokens], _: &mut [Taught]) -> Result<()> {
        left[0].push(sample);
        Ok(())
    }
}

impl Job for Finetuning {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn run(self: Box<Self>, run: &mut Run, process: &mut Process) -> Result<Summary> {
        let Finetuning { task, recipe, plan } = &*self;
        if recipe.data.generated() {
            process.tell(&Event::Note("no data is named (--data), so the texts are generated"));
        } else {
            run.set_data(Data::identity(&recipe.data, task)?);
        }
        let Data { train, test, origin, notes } = Data::open(&recipe.data, task)?;
        notes.iter().for_each(|note| process.tell(&Event::Note(note)));
        let of = train.labels.clone().unwrap_or_default();
        let (subset, chosen) = Subset::draw(&train.names, &of, &train.classes, task.labels, task.seed);
        process.tell(&Event::Note(&subset.line(train.len())));
        subset.fewer(&of).iter().for_each(|note| process.tell(&Event::Note(note)));
        let start = match run.latest()? {
            Some(checkpoint) => Start::again(&checkpoint)?,
            None => Start::tuned(recipe, &plan.recipe, task, || train.texts.iter().map(String::as_str).collect())?,
        };
        start.notes.iter().for_each(|note| process.tell(&Event::Note(note)));
        let network = &start.described.network;
        let tokenizing = Tokenizing::new(start.tokenizer.clone(), start.described.rules.clone(), network.vocabulary())?;
        let (mut cut, mut empty) = (0, 0);
        let mut tokens = |texts: &[&str]| -> Result<Vec<Vec<u32>>> {
            let found = tokenizing.cut_all(texts)?;
            cut += found.iter().filter(|text| text.short).count();
            empty += found.iter().filter(|text| text.ids.is_empty()).count();
            Ok(found.into_iter().map(|text| text.ids).collect())
        };
        let labelled = Labelled {
            tokens: tokens(&chosen.iter().map(|text| train.texts[*text].as_str()).collect::<Vec<_>>())?,
            names: chosen.iter().map(|text| train.names[*text].clone()).collect(),
            labels: chosen.iter().map(|text| of[*text]).collect(),
            about: About { scheme: task.scheme(), classes: train.classes.clone() },
        };
        let texts = if task.scheme() == Scheme::Setfit { 2.0 } else { 1.0 };
        let mean = labelled.tokens.iter().map(Vec::len).sum::<usize>() as f64 / labelled.tokens.len().max(1) as f64;
        let load = Load { samples: labelled.tokens.len(), texts, tokens: mean * texts };
        let memory = forecast::check(recipe, network, &load, process.device())?;
        let tests = tokens(&test.texts.iter().map(String::as_str).collect::<Vec<_>>())?;
        for (count, what) in [
            (cut, "texts are longer than the encoder reads, so that their ends are left out"),
            (empty, "texts have no token, so that nothing tells them apart"),
        ] {
            if count > 0 {
                process.tell(&Event::Note(&format!("{count} of {} labelled and test texts: {what}", chosen.len() + tests.len())));
            }
        }
        task::store(&subset, run, process)?;
        for line in [
            format!(
                "data: {} training texts of {} classes, {} test texts ({origin})",
                train.len(),
                train.classes.len(),
                test.len()
            ),
            format!("network: {}{}", network.said(), if task.scratch { ", with fresh weights" } else { "" }),
            memory,
            format!("run: {}", run.folder()?.display()),
        ] {
            process.tell(&Event::About(&line));
        }
        let tests: Vec<&[u32]> = tests.iter().map(Vec::as_slice).collect();
        let Made { fitted, classifier, rows, figures } = match task.scheme() {
            Scheme::Setfit => self.by_pairs(&start, &labelled, &tests, run, process)?,
            Scheme::Plain => self.plainly(&start, &labelled, &tests, run, process)?,
        };
        // Only here a test label is used.
        let truth: Vec<Option<u32>> = test.labels.iter().flatten().map(|label| Some(*label)).collect();
        let logits = classifier.of_rows(&rows)?;
        let found = Predictions::new(&train.classes, test.names.clone(), &truth, &test.classes, logits)?;
        let judged = Judgement::new(&found, 1.0)?;

        let mut counts = Map::new();
        for label in &labelled.labels {
            let count = counts.entry(train.classes[*label as usize].clone()).or_insert(json!(0));
            *count = json!(count.as_u64().unwrap_or_default() + 1);
        }
        let mut summary = Summary {
            figures: vec![
                ("start", json!(if task.scratch { "scratch" } else { "pretrained" })),
                ("scheme", json!(task.scheme())),
                ("labels", json!(task.labels)),
                ("label_seed", json!(task.seed)),
                ("labelled", json!(labelled.labels.len())),
                ("classes", Value::Object(counts)),
                ("rate", json!(recipe.optimizer.rate())),
            ],
            next: vec!["ctk predict RUN --text \"a text\"", "ctk eval classify RUN"],
            ..Summary::default()
        };
        summary.figures.extend(figures);
        summary.figures.extend(fitted.figures());
        summary.figures.extend([
            ("top1", json!(judged.accuracy())),
            ("test", json!(judged.samples)),
            ("test_part", json!(origin)),
        ]);
        let Fitted { steps, epochs, loss, seconds, .. } = fitted;
        Ok(Summary { steps, epochs, loss, seconds, ..summary })
    }
}
