//! The data of a run: what it trains on and what it is evaluated on, with the data's own test part or the run's hold-out.

use std::collections::BTreeSet;
use std::sync::Arc;

use ctk_core::data::dataset::Dataset as _;
use ctk_core::modality::{Query, Split};
use ctk_core::observer::Event;
use ctk_core::process::Process;
use ctk_core::store::checkpoint::Checkpoint;
use ctk_core::store::run::Run;
use ctk_core::{Context, Result};
use ctk_images::dataset::{self, Cache, Images, Splits};
use ctk_images::holdout::{self, Holdout};
use ctk_images::recipe::DataRecipe;
use serde_json::{Map, Value, json};

use crate::recipe::VisionRecipe;

/// The data of a run, with its own test part or a hold-out: one that the run has stored, that it takes from the run it starts from, or a
/// new one, which it stores.
pub(crate) fn of_run(
    of: &DataRecipe,
    seed: u64,
    inherited: Option<Holdout>,
    run: &mut Run,
    process: &mut Process,
) -> Result<Splits> {
    let splits = of.open()?;
    if of.path.is_none() {
        process.tell(&Event::Note("no data is named (--data), so these are generated images"));
    }
    splits.lines().iter().for_each(|line| process.tell(&Event::About(line)));
    // Generated images follow from the recipe.
    if of.path.is_some() {
        run.set_data(Some(splits.pretraining().identity()?));
    }
    if splits.test.is_some() || !splits.labelled() {
        return Ok(splits);
    }
    let stored = run.read(holdout::FILE)?.map(|bytes| serde_json::from_slice(&bytes)).transpose()?;
    let holdout: Holdout = match stored {
        Some(holdout) => holdout,
        None => {
            let fits = inherited.as_ref().is_some_and(|holdout| holdout.apply(&splits.train).is_ok());
            if inherited.is_some() && !fits {
                process.tell(&Event::Note("this is other data than the network was trained on: a hold-out of its own is drawn"));
            }
            let holdout = match inherited.filter(|_| fits) {
                Some(holdout) => holdout,
                None => Holdout::draw(&splits.train, of.holdout, seed)?,
            };
            if process.writes() {
                run.write(holdout::FILE, &serde_json::to_vec_pretty(&holdout)?)?;
            }
            holdout
        }
    };
    process.tell(&Event::Note(&holdout.line()));
    let held = holdout.apply(&splits.train)?;
    Ok(Splits { train: held.train, test: held.test, ..splits })
}

/// Repeats warnings at the end of a long run: files that were not read, if there are many, and images that failed meanwhile.
pub(crate) fn at_the_end(splits: &Splits, process: &mut Process) {
    let unread = splits.found.warning().map(|line| format!("warning: {line}"));
    unread.iter().chain(&dataset::skipped_line(&splits.skipped())).for_each(|line| process.tell(&Event::Note(line)));
}

/// The data of `query` for a trained model, with a test part if there are labels: the data's own, the run's hold-out, or a hold-out drawn
/// in the same way.
pub(crate) fn of_model(recipe: &VisionRecipe, checkpoint: &Checkpoint, query: &Query) -> Result<Splits> {
    if !query.files.is_empty() {
        let files = dataset::files(&query.files)?.decoded_by(recipe.data.law()).cached(&Arc::new(Cache::of(&recipe.data.cache)?));
        return Ok(Splits::of(files));
    }
    let of = match &query.data {
        Some(path) => recipe.data.of(path),
        None => recipe.data.clone(),
    };
    let splits = of.open_to_use()?;
    if splits.found.untrainable.is_some() {
        // All of it is held back, so all of it is the test part.
        return match query.split {
            Split::All => Ok(splits),
            Split::Test => Ok(Splits { test: Some(splits.train.clone()), ..splits }),
            Split::Train => of.open(),
        };
    }
    if splits.test.is_some() || !splits.labelled() || query.split == Split::All {
        return Ok(splits);
    }
    let place = of.path.as_ref().map_or("the generated dataset".into(), |paths| paths.place().display().to_string());
    let holdout = match Holdout::stored(checkpoint)? {
        Some(holdout) if query.data.is_none() => holdout,
        _ => Holdout::draw(&splits.train, of.holdout, recipe.train.seed).at(&place)?,
    };
    let held = holdout.apply(&splits.train).at(&place)?;
    Ok(Splits { train: held.train, test: held.test, ..splits })
}

/// Whether the query is for other data than the run's own, of which its training has told.
pub(crate) fn is_other(query: &Query) -> bool {
    query.data.is_some() || !query.files.is_empty()
}

/// What was read and what was not, under the JSON names of `ctk train --json`: `classes` by name and count, `not_read` by kind, and the
/// number of `skipped` images.
pub(crate) fn figures(splits: &Splits) -> Vec<(&'static str, Value)> {
    let classes: Map<String, Value> = splits.class_counts().into_iter().map(|(name, count)| (name, json!(count))).collect();
    vec![
        ("images", json!(splits.images())),
        ("classes", json!(classes)),
        ("not_read", splits.found.not_read_json()),
        ("skipped", json!(splits.skipped().len())),
    ]
}

/// The part of each image in an answer to `query`, if the data has parts: its own, or those of the run's hold-out.
pub(crate) fn parts(splits: &Splits, checkpoint: &Checkpoint, query: &Query) -> Result<Vec<String>> {
    let all = |part: &str, images: Option<&Images>| vec![part.to_string(); images.map_or(0, Images::len)];
    match query.split {
        Split::Train if query.files.is_empty() => return Ok(all("train", Some(&splits.train))),
        Split::Test => return Ok(all("test", splits.test.as_ref())),
        _ => {}
    }
    if splits.val.is_some() || splits.test.is_some() || splits.unlabelled.is_some() || !splits.apart.is_empty() {
        let parts = [
            ("train", Some(&splits.train)),
            ("val", splits.val.as_ref()),
            ("test", splits.test.as_ref()),
            ("unlabelled", splits.unlabelled.as_ref()),
        ];
        let apart = splits.apart.iter().map(|images| ("apart", Some(images)));
        return Ok(parts.into_iter().chain(apart).flat_map(|(part, images)| all(part, images)).collect());
    }
    let own = query.data.is_none() && query.files.is_empty();
    let Some(holdout) = Holdout::stored(checkpoint)?.filter(|_| own) else { return Ok(Vec::new()) };
    let held: BTreeSet<&String> = holdout.held_out.iter().collect();
    Ok(splits.train.names().iter().map(|name| if held.contains(name) { "test" } else { "train" }.to_string()).collect())
}
