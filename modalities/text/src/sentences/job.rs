//! A training run of sentences: data, tokenizer, network, `fit`, and what the held-out pairs show.

use std::cell::Cell;

use ctk_core::data::dataset::Dataset;
use ctk_core::modality::{Job, Summary};
use ctk_core::nn::params::Params;
use ctk_core::observer::Event;
use ctk_core::process::Process;
use ctk_core::store::run::Run;
use ctk_core::train::fit::{Judge, Probe, fit_judged};
use ctk_core::train::plan::Plan;
use ctk_core::{Error, Result};
use ctk_texts::identity::identity;
use ctk_texts::pairs::Sentences;
use serde_json::json;

use super::data::{TokenPairs, fits};
use super::dev;
use super::forecast::{self, Load};
use super::learner::Trainee;
use super::network::Network;
use super::recipe::SentencesRecipe;
use super::start::Start;
use super::tokenizing::Tokenizing;

/// A checked recipe, ready to run.
pub struct Train {
    recipe: SentencesRecipe,
    plan: Plan,
}

impl Train {
    /// The job of a checked recipe.
    pub(super) fn new(recipe: SentencesRecipe, plan: Plan) -> Train {
        Train { recipe, plan }
    }
}

impl Job for Train {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn run(self: Box<Self>, run: &mut Run, process: &mut Process) -> Result<Summary> {
        let Train { recipe, plan } = *self;
        if recipe.data.generated() {
            process.tell(&Event::Note("no data is named (--data), so the pairs are generated"));
        } else {
            run.set_data(identity(&recipe.data.files()?)?);
        }
        let Sentences { train, dev, notes } = recipe.data.open()?;
        notes.iter().for_each(|note| process.tell(&Event::Note(note)));
        fits(&recipe.loss, train.kind())?;
        if train.per_epoch() < 2 {
            return Err(Error::usage("one sample cannot be trained on: a loss compares the samples of a batch"));
        }
        let start = match run.latest()? {
            Some(checkpoint) => Start::again(&checkpoint)?,
            None => Start::new(&recipe, &plan.recipe, || train.all_texts().collect())?.prompted(&recipe.data.prompts),
        };
        start.notes.iter().for_each(|note| process.tell(&Event::Note(note)));
        let network = &start.described.network;
        let tokenizing = Tokenizing::new(start.tokenizer.clone(), start.described.rules.clone(), network.vocabulary())?;
        let source = TokenPairs::new(&train, &tokenizing, recipe.pairs.cut)?;
        let dev = dev.as_ref().map(|dev| TokenPairs::new(dev, &tokenizing, recipe.pairs.cut)).transpose()?;
        let memory = forecast::check(&recipe, network, &Load::of(&source)?, process.device())?;
        let begin = |params: &Params| start.tensors.as_ref().map_or(Ok(()), |tensors| params.load_section("encoder", tensors));
        let dense = recipe.method().learner(|scope| network.encoder(scope), begin, process.device())?;
        let mut learner = Trainee { dense, files: start.files()? };
        about(&recipe, &source, network, &learner).iter().for_each(|line| process.tell(&Event::About(line)));
        process.tell(&Event::About(&memory));
        if let Some((short, all)) = source.short().filter(|(short, _)| *short > 0) {
            let longest = start.described.rules.longest.unwrap_or_default();
            let said =
                format!("texts longer than {longest} tokens, so that their ends are left out: {short} of {all} different ones");
            process.tell(&Event::Note(&said));
        }
        process.tell(&Event::About(&format!("run: {}", run.folder()?.display())));

        let measured = dev.as_ref().and_then(dev::Measure::of);
        let last = Cell::new(None);
        let mut probes = Vec::new();
        if let Some(measure) = &measured {
            let value = |learner: &Trainee| {
                let found = measure.value(&learner.dense.towers.tower.encoder)?;
                last.set(Some(found));
                Ok(vec![(measure.name().to_string(), found)])
            };
            probes.push(Probe { every: recipe.eval.every, measure: Box::new(value) });
        }
        let judge = match (&measured, recipe.checkpoint.keep_best) {
            (Some(measure), true) => Some(Judge {
                measure: measure.name(),
                on: "held-out pairs",
                samples: measure.samples(),
                value: Box::new(|learner: &Trainee| measure.value(&learner.dense.towers.tower.encoder)),
            }),
            (None, true) => {
                let what = "needs held-out pairs, triplets or scored pairs to judge by";
                return Err(plan
                    .recipe
                    .error("checkpoint.keep_best", what)
                    .hint("name some: data.dev, or data.dev_share = 0.05"));
            }
            _ => None,
        };
        let fitted = fit_judged(&source, &mut learner, &plan, &mut probes, judge, run, process)?;
        drop(probes);

        let speed = fitted.samples as f64 / fitted.seconds.max(1e-9);
        let texts = train.columns().max(1) as f64;
        let mut summary = Summary {
            figures: vec![("samples_per_second", json!(speed)), ("texts_per_second", json!(speed * texts))],
            next: vec!["ctk embed RUN --data texts.txt --out texts.npy", "ctk eval sts RUN --pairs sts.tsv"],
            ..Summary::default()
        };
        summary.figures.extend(fitted.figures());
        if let Some(measure) = &measured {
            let value = match last.get().filter(|_| fitted.epochs % recipe.eval.every as f64 == 0.0) {
                // Measured at the end of the last epoch.
                Some(value) => value,
                None => measure.value(&learner.dense.towers.tower.encoder)?,
            };
            summary.figures.push((measure.name(), json!(value)));
            summary.text = format!("{}: {}\n", measure.what(), measure.shown(value));
        }
        let shown = |value| measured.as_ref().map_or(String::new(), |measure| measure.shown(value));
        summary.best(fitted.best.as_ref(), "samples", shown, "ctk embed RUN/checkpoints/best --data texts.txt --out texts.npy");
        Ok(Summary { steps: fitted.steps, epochs: fitted.epochs, loss: fitted.loss, seconds: fitted.seconds, ..summary })
    }
}

/// Describes the run, one sentence on each line.
fn about(recipe: &SentencesRecipe, source: &TokenPairs, network: &Network, learner: &Trainee) -> Vec<String> {
    let pairs = source.pairs();
    let per_epoch = pairs.per_epoch();
    let data = format!("data: {} {} of {} different texts", pairs.samples(), pairs.kind().word(), pairs.different_texts());
    let length = source.mean_length().map_or(String::new(), |mean| format!("; a text has {mean:.1} tokens on average"));
    let params = &learner.dense.params;
    let batch = recipe.train.batch.min(per_epoch);
    let steps = per_epoch / batch.max(1);
    let whole = (steps * recipe.train.epochs).min(recipe.train.max_steps.unwrap_or(usize::MAX));
    vec![
        format!("{data}{length}"),
        format!(
            "network: {}; {} parameters, and {} in its head",
            network.said(),
            params.count("encoder."),
            params.count("head.")
        ),
        format!("training by [loss.{}]: {whole} steps of {batch} samples, {steps} an epoch", recipe.loss.name()),
    ]
}
