//! A training run of images and captions: data, towers, `fit`, and retrieval on what is held out.

use std::cell::Cell;
use std::path::Path;

use ctk_core::eval::crossmodal::{self, CrossModal};
use ctk_core::modality::{Job, Summary};
use ctk_core::nn::pass::Precision;
use ctk_core::observer::Event;
use ctk_core::process::Process;
use ctk_core::store::checkpoint::Checkpoint;
use ctk_core::store::run::Run;
use ctk_core::train::fit::{Judge, Probe, fit_judged};
use ctk_core::train::plan::Plan;
use ctk_core::{Context, Error, Result};
use ctk_images::dataset::{self, count};
use ctk_text::sentences::learner::Trainee;
use ctk_text::sentences::start::Start;
use ctk_text::sentences::tokenizing::Tokenizing;
use ctk_vision::tower;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::clip;
use crate::data::{Captioned, Data};
use crate::embed;
use crate::forecast;
use crate::network::{Begin, IMAGE, Sides, TEXT, TextSide, Towers, not_ours};
use crate::recipe::{Checked, ImageTextRecipe};
use crate::source::{Captions, Images, Pairs, Tokens};
use crate::stored::{Found, Stored};

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

/// The captions of a run as its text tower reads them.
enum Read {
    Tokens(Tokens),
    Stored(Stored, Found),
}

impl Read {
    fn captions(&self) -> Captions<'_> {
        match self {
            Read::Tokens(tokens) => Captions::Tokens(tokens),
            Read::Stored(rows, found) => Captions::Stored(rows, found),
        }
    }
}

/// Rows of a file for the images of both parts.
struct StoredImages {
    rows: Stored,
    train: Found,
    test: Option<Found>,
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
        let stored = checked.recipe.image.features.as_deref().map(|path| stored_images(path, &data)).transpose()?;
        if let Some(StoredImages { rows, train, .. }) = &stored {
            process.tell(&Event::Note(&rows.note(train, "image")));
        }
        let resumed = run.latest()?;
        let from = train.init.as_deref().filter(|_| resumed.is_none()).map(of_run).transpose()?;
        let (read, text, start) = captions(&checked, &data, resumed.as_ref().or(from.as_ref()), process)?;
        let sides = Sides { stored_image: stored.as_ref().map(|of| of.rows.width()), text };
        let begin = match (&resumed, &from) {
            (Some(_), _) => Begin::default(),
            (None, Some(from)) => Begin::of_run(from)?,
            (None, None) => begin(&checked, start.as_ref(), stored.is_some())?,
        };
        begin.notes.iter().for_each(|note| process.tell(&Event::Note(note)));
        let tokens = match &read {
            Read::Tokens(tokens) => tokens.mean(),
            Read::Stored(..) => 0.0,
        };
        let memory = forecast::check(&checked, &sides, data.train.len(), tokens, process.device())?;
        let dense = sides.learner(&checked, &begin, process.device()).map_err(|e| match &train.init {
            Some(init) if from.is_some() => e.at(init.display()).hint("train.init needs the towers of that run"),
            _ => e,
        })?;
        let widths =
            Widths { image: sides.stored_image, text: if let TextSide::Stored(width) = sides.text { Some(width) } else { None } };
        let mut files = start.as_ref().map(Start::files).transpose()?.unwrap_or_default();
        files.push((SIDES, serde_json::to_vec(&widths)?));
        let mut learner = Trainee { dense, files };
        for line in about(&checked, &data, &sides, &learner, tokens).iter().chain([&memory]) {
            process.tell(&Event::About(line));
        }
        process.tell(&Event::About(&format!("run: {}", run.folder()?.display())));

        let source = Pairs {
            data: &data.train,
            images: match &stored {
                Some(of) => Images::Stored(&of.rows, &of.train),
                None => Images::Views(&checked.augment),
            },
            captions: read.captions(),
        };
        let measure = |learner: &Learner, of: &Captioned| -> Result<CrossModal> {
            let Towers { left, right } = &learner.dense.towers;
            let images = match &stored {
                Some(StoredImages { rows, test: Some(found), .. }) => Images::Stored(rows, found),
                _ => Images::Views(&checked.augment),
            };
            let all = embed::captioned([left, right], of, &data.texts, (images, read.captions()), Precision::F32)?;
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

/// A run of image-text that another one begins with.
fn of_run(path: &Path) -> Result<Checkpoint> {
    let checkpoint = Checkpoint::open(path)?;
    let of = &checkpoint.manifest().modality;
    if of != crate::NAME {
        return Err(not_ours(of).at(path.display()).hint("image.init begins with a run of vision"));
    }
    Ok(checkpoint)
}

fn stored_images(path: &Path, data: &Data) -> Result<StoredImages> {
    let rows = Stored::open(path)?;
    let find = |of: &Captioned| {
        let names = of.images.names();
        rows.find(path, "image", names.iter().map(String::as_str))
    };
    let (train, test) = (find(&data.train)?, data.test.as_ref().map(find).transpose()?);
    Ok(StoredImages { rows, train, test })
}

/// What the text tower reads, what it is, and what it begins with. `checkpoint` is one whose text tower is used, if there is one.
fn captions(
    checked: &Checked,
    data: &Data,
    checkpoint: Option<&Checkpoint>,
    process: &mut Process,
) -> Result<(Read, TextSide, Option<Start>)> {
    let of = &checked.recipe.text;
    if let Some(path) = &of.features {
        let rows = Stored::open(path)?;
        let found = rows.find(path, "caption", data.texts.all.iter().map(String::as_str))?;
        process.tell(&Event::Note(&rows.note(&found, "caption")));
        let width = rows.width();
        return Ok((Read::Stored(rows, found), TextSide::Stored(width), None));
    }
    let start = match checkpoint {
        Some(checkpoint) => Start::again(checkpoint).at(checkpoint.folder().display())?,
        None => {
            let texts = || data.texts.all.iter().map(String::as_str).collect();
            Start::new(&of.of_sentences(), &checked.text.below("text"), texts)?
        }
    };
    start.notes.iter().for_each(|note| process.tell(&Event::Note(note)));
    let described = &start.described;
    let tokenizing = Tokenizing::new(start.tokenizer.clone(), described.rules.clone(), described.network.vocabulary())?;
    let (tokens, [cut, empty]) = Tokens::of(&tokenizing, &data.texts.all)?;
    let all = data.texts.all.len();
    for (number, what) in [
        (cut, format!("longer than {} tokens, so that their ends are left out", described.rules.longest.unwrap_or_default())),
        (empty, "without a token that the tower knows".to_string()),
    ] {
        if number > 0 {
            process.tell(&Event::Note(&format!("captions {what}: {number} of {all} different ones")));
        }
    }
    if empty == all {
        return Err(Error::usage("no caption has a token that the text tower knows"));
    }
    Ok((Read::Tokens(tokens), TextSide::Network(described.network.clone()), Some(start)))
}

/// What a new run begins with, besides fresh values.
fn begin(checked: &Checked, start: Option<&Start>, stored_image: bool) -> Result<Begin> {
    let mut begin = Begin::default();
    let image = &checked.recipe.image;
    if !stored_image {
        if let Some(begun) = tower::begun(&image.encoder)? {
            begin.sections.insert(IMAGE.to_string(), begun.tensors);
            begin.notes.extend(begun.notes);
            let both = tower::weights(&image.encoder).filter(|path| checked.recipe.text.encoder.weights() == Some(path));
            both.map_or(Ok(()), |path| clip::begin(checked, path, &mut begin))?;
        } else if let Some(path) = &image.init {
            let (_, tensors) = tower::described(path)?;
            if let Some(tensors) = tensors {
                begin.sections.insert(IMAGE.to_string(), tensors);
            }
            begin.notes.push(format!("the image tower begins as the encoder of {}", path.display()));
        }
    }
    if let Some(tensors) = start.and_then(|start| start.tensors.clone()) {
        begin.sections.insert(TEXT.to_string(), tensors);
    }
    Ok(begin)
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
