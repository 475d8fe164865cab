//! A training run of images and captions: data, towers, `fit`, and retrieval on what is held out.

use std::cell::Cell;

use ctk_core::eval::crossmodal::{self, CrossModal};
use ctk_core::modality::{Job, Summary};
use ctk_core::nn::pass::Precision;
use ctk_core::observer::Event;
use ctk_core::process::Process;
use ctk_core::store::run::Run;
use ctk_core::train::fit::{Judge, Probe, fit_judged};
use ctk_core::train::plan::Plan;
use ctk_core::{Error, Result, memory};
use ctk_images::dataset::{self, count};
use ctk_text::sentences::learner::Trainee;
use ctk_text::sentences::start::Start;
use ctk_vision::tower;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::data::{Captioned, Data};
use crate::embed;
use crate::forecast;
use crate::network::{IMAGE, Sides, TEXT, TextSide, Towers};
use crate::ready::Ready;
use crate::recipe::{Checked, ImageTextRecipe};

/// The file of a checkpoint that says which towers are stored features.
pub(crate) const SIDES: &str = "sides.json";

/// The learner of a run.
pub(crate) type Learner = Trainee<Towers>;

/// Widths of stored rows, where a tower is a file of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Widths {
    pub image: Option<usize>,
    pub text: Option<usize>,
}

/// A checked recipe, ready to run.
pub(crate) struct Train {
    checked: Checked,
    plan: Plan,
}

impl Train {
    pub fn new(checked: Checked) -> Result<Train> {
        Ok(Train { plan: checked.plan()?, checked })
    }
}

impl Job for Train {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn run(self: Box<Self>, run: &mut Run, process: &mut Process) -> Result<Summary> {
        let Train { checked, plan } = *self;
        let ImageTextRecipe { train, .. } = &checked.recipe;
        let data = Data::of_run(&checked.recipe.data, &checked.recipe.captions, train.seed, run, process)?;
        data.notes.iter().for_each(|note| process.tell(&Event::Note(note)));
        if data.train.len() < 2 {
            return Err(Error::usage("one pair cannot be trained on: a loss compares the pairs of a batch")
                .hint("give images with captions; thousands are usual"));
        }
        if data.train.len() < train.batch {
            let note = format!("the batch is all {} there are, not {}", count(data.train.len(), "pair"), train.batch);
            process.tell(&Event::Note(&note));
        }
        let resumed = run.latest()?;
        let mut ready = Ready::new(&checked, &data, resumed.as_ref())?;
        ready.notes.iter().for_each(|note| process.tell(&Event::Note(note)));
        let need = forecast::check(&checked, &ready.sides, data.train.len(), ready.tokens(), process.device())?;
        let dense = ready.learner(&checked, process.device())?;
        if let Some(note) = ready.read_once(&checked, data.train.len(), &dense.towers.right.encoder)? {
            process.tell(&Event::Note(&note));
        }
        let Ready { sides, start, .. } = &ready;
        let widths =
            Widths { image: sides.stored_image, text: if let TextSide::Stored(width) = sides.text { Some(width) } else { None } };
        let mut files = start.as_ref().map(Start::files).transpose()?.unwrap_or_default();
        files.push((SIDES, serde_json::to_vec(&widths)?));
        let mut learner = Trainee { dense, files };
        let memory = format!("memory: a step needs about {}", memory::size(need));
        for line in about(&checked, &data, sides, &learner, ready.tokens()).iter().chain([&memory]) {
            process.tell(&Event::About(line));
        }
        process.tell(&Event::About(&format!("run: {}", run.folder()?.display())));

        let source = ready.source(&checked, &data);
        let measure = |learner: &Learner, of: &Captioned| -> Result<CrossModal> {
            let Towers { left, right } = &learner.dense.towers;
            let read = (ready.measured(&checked), ready.captions());
            let all = embed::captioned([left, right], of, &data.texts, read, Precision::F32)?;
            crossmodal::crossmodal(&all)
        };
        let test = data.test.as_ref();
        let every = checked.recipe.eval.every;
        let last = Cell::new(None);
        let mut probes = Vec::new();
        if let Some(test) = test {
            let value = |learner: &Learner| {
                let found = measure(learner, test)?;
                last.set(Some(found));
                Ok(vec![("recall_at_5".to_string(), found.mean())])
            };
            probes.push(Probe { every, measure: Box::new(value) });
        }
        let judge = match (test, checked.recipe.checkpoint.keep_best) {
            (Some(test), true) => Some(Judge {
                measure: "recall_at_5",
                on: "held-out images",
                samples: test.len(),
                value: Box::new(|learner: &Learner| Ok(measure(learner, test)?.mean())),
            }),
            (None, true) => {
                let what = "needs held-out images to judge by";
                return Err(plan.recipe.error("checkpoint.keep_best", what).hint("captions.holdout = 0.1 holds out some"));
            }
            _ => None,
        };
        let fitted = fit_judged(&source, &mut learner, &plan, &mut probes, judge, run, process)?;
        drop(probes);

        let skipped = dataset::skipped_line(&data.splits.skipped());
        skipped.iter().for_each(|line| process.tell(&Event::Note(line)));
        let speed = fitted.samples as f64 / fitted.seconds.max(1e-9);
        let mut summary = Summary {
            figures: vec![("pairs_per_second", json!(speed))],
            next: vec!["ctk eval retrieval RUN", "ctk neighbors RUN \"a text\" --in photos/"],
            ..Summary::default()
        };
        summary.figures.extend(fitted.figures());
        summary.figures.extend([
            ("images", json!(data.train.len() + test.map_or(0, Captioned::len))),
            ("captions", json!(data.texts.all.len())),
            ("not_read", data.splits.found.not_read_json()),
            ("skipped", json!(data.splits.skipped().len())),
        ]);
        if let Some(test) = test {
            let found = match last.get().filter(|_| fitted.epochs % every as f64 == 0.0) {
                // Measured at the end of the last epoch.
                Some(found) => found,
                None => measure(&learner, test)?,
            };
            summary.figures.extend(figures(&found));
            summary.text = table(&found);
        }
        summary.best(fitted.best.as_ref(), "images", percent, "ctk eval retrieval RUN/checkpoints/best");
        Ok(Summary { steps: fitted.steps, epochs: fitted.epochs, loss: fitted.loss, seconds: fitted.seconds, ..summary })
    }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// The figures of retrieval under their JSON names.
pub(crate) fn figures(found: &CrossModal) -> Vec<(&'static str, serde_json::Value)> {
    let CrossModal { to_text, to_image } = found;
    vec![
        ("text_recall_at_1", json!(to_text.at[0])),
        ("text_recall_at_5", json!(to_text.at[1])),
        ("text_recall_at_10", json!(to_text.at[2])),
        ("text_median_rank", json!(to_text.median)),
        ("image_recall_at_1", json!(to_image.at[0])),
        ("image_recall_at_5", json!(to_image.at[1])),
        ("image_recall_at_10", json!(to_image.at[2])),
        ("image_median_rank", json!(to_image.median)),
        ("recall_at_5", json!(found.mean())),
    ]
}

/// The figures as a small table.
fn table(found: &CrossModal) -> String {
    let line = |what: &str, of: &crossmodal::Recall| {
        let shares = of.at.iter().map(|share| format!("{:7.1}", 100.0 * share)).collect::<String>();
        let chance = of.chance.iter().map(|share| format!("{:7.1}", 100.0 * share)).collect::<String>();
        format!("  {what:<17}{shares}{:9}   chance{chance}\n", of.median)
    };
    format!(
        "retrieval on {} held-out images and {} captions, in %\n  {:<17}    R@1    R@5   R@10   median rank\n{}{}",
        found.to_text.asked,
        found.to_text.candidates,
        "",
        line("image to caption", &found.to_text),
        line("caption to image", &found.to_image),
    )
}

/// Describes the run, one sentence on each line.
fn about(checked: &Checked, data: &Data, sides: &Sides, learner: &Learner, tokens: f64) -> Vec<String> {
    let recipe = &checked.recipe;
    let captions: usize = data.train.captions.iter().map(Vec::len).sum();
    let params = &learner.dense.params;
    let learns = |section: &str| {
        let prefix = format!("{section}.");
        let (all, trained) = (params.count(&prefix), params.learning(&prefix));
        match trained {
            0 if all > 0 => format!("{all} parameters, all frozen"),
            _ if trained < all => format!("{all} parameters, of which {trained} learn"),
            _ => format!("{all} parameters"),
        }
    };
    let image = match sides.stored_image {
        Some(width) => format!("stored features of {width} values"),
        None => format!("{}, {}", tower::title(&recipe.image.encoder), learns(IMAGE)),
    };
    let text = match &sides.text {
        TextSide::Stored(width) => format!("stored features of {width} values"),
        TextSide::Network(network) => format!("{}, {}; {tokens:.1} tokens a caption", network.said(), learns(TEXT)),
    };
    let batch = recipe.train.batch.min(data.train.len());
    let steps = data.train.len() / batch.max(1);
    let whole = (steps * recipe.train.epochs).min(recipe.train.max_steps.unwrap_or(usize::MAX));
    let mut lines = vec![
        format!("data: {} with {captions} captions", count(data.train.len(), "image")),
        format!("image tower: {image}"),
        format!("text tower: {text}"),
        format!("training by [loss.{}]: {whole} steps of {batch} pairs, {steps} an epoch", recipe.loss.name()),
    ];
    lines.push(match &data.test {
        Some(test) => format!("measured on {} that are not trained on: retrieval both ways", count(test.len(), "image")),
        None => "nothing is held out, so nothing is measured".to_string(),
    });
    lines
}
