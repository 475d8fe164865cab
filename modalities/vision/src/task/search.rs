//! Chooses rate, epochs and crop by k-fold cross-validation on the labelled images alone.
//!
//! Every candidate is trained on the other folds and evaluated on the held-out one, fold by fold, until [`ENOUGH`] images have been
//! evaluated: with many labels one fold is enough. The candidate with the most hits wins; of equal ones that with the lowest cross entropy,
//! then the first. Results are stored in the run after each fold, so that a resumed run continues with the missing ones. The chosen
//! candidate's logits for held-out images are returned: these labels were not trained on, so a temperature can be fitted on them.

use std::collections::HashMap;

use ctk_core::error::ErrorKind;
use ctk_core::observer::Event;
use ctk_core::process::Process;
use ctk_core::store::run::Run;
use ctk_core::{Context, Error, Result};
use serde::{Deserialize, Serialize};

use super::classifier::Judged;

/// The number of images on which each candidate is evaluated.
const ENOUGH: usize = 1_000;

/// The file of a run with the results.
const SEARCH: &str = "search.json";

/// The folder in the run's in which trials are made.
pub(super) const FOLDER: &str = "search";

/// A candidate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Choice {
    /// The optimizer's peak rate, before batch scaling.
    pub rate: f64,
    /// Epochs over the labelled images.
    pub epochs: usize,
    /// The smallest fraction of the area that a random crop takes.
    pub crop: f64,
}

/// A candidate on one fold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Trial {
    #[serde(flatten)]
    choice: Choice,
    fold: usize,
    held_out: usize,
    hits: usize,
    /// Mean cross entropy on the held-out images; none if training diverged.
    loss: Option<f64>,
}

/// The chosen candidate, and its accuracy on held-out images, 0 to 1; none if nothing could be held out or chosen.
pub(super) struct Chosen {
    pub choice: Choice,
    pub top1: Option<f64>,
    /// Logits of the held-out images, each with its index; empty if there were none, or if they were returned before.
    pub held: Vec<(usize, Vec<f32>)>,
}

/// Chooses among `candidates`; a single one is tried on folds if `calibrate` asks for it. `fold` has the fold of each labelled image;
/// `train(choice, trained, held, run, process)` trains on some of them, by index, and evaluates on others, in a run of its own, and also
/// returns a row of logits for each of these.
pub(super) fn choose(
    candidates: &[Choice],
    calibrate: bool,
    fold: &[Option<usize>],
    run: &mut Run,
    process: &mut Process,
    mut train: impl FnMut(&Choice, &[usize], &[usize], &mut Run, &mut Process) -> Result<(Judged, Vec<f32>)>,
) -> Result<Chosen> {
    let first = *candidates.first().ok_or_else(|| Error::new("there is nothing to choose from"))?;
    let folds = folds(fold);
    if (candidates.len() == 1 && !calibrate) || folds.is_empty() {
        if candidates.len() > 1 {
            process.tell(&Event::Note(
                "no class has two labels, so nothing can be chosen by: the first rate, epochs and crop are taken",
            ));
        }
        if calibrate {
            process.tell(&Event::Note("no class has two labels, so no folds can be held out for task.finetune.calibrate"));
        }
        return Ok(Chosen { choice: first, top1: None, held: Vec::new() });
    }
    let mut trials: Vec<Trial> = match run.read(SEARCH)? {
        Some(bytes) => serde_json::from_slice(&bytes).at(SEARCH)?,
        None => Vec::new(),
    };
    let all = candidates.len() * folds.len();
    let mut logits: HashMap<(usize, usize), Vec<f32>> = HashMap::new();
    for (at, choice) in candidates.iter().enumerate() {
        for &f in &folds {
            if trials.iter().any(|trial| trial.choice == *choice && trial.fold == f) {
                continue;
            }
            let (held, rest): (Vec<usize>, Vec<usize>) = (0..fold.len()).partition(|&i| fold[i] == Some(f));
            let mut inner = run.within(&format!("{FOLDER}/{at}-{f}"))?;
            let found = match train(choice, &rest, &held, &mut inner, &mut process.within()) {
                Ok((judged, rows)) => Some((judged, rows)).filter(|(judged, _)| judged.loss.is_finite()),
                Err(e) if e.kind() == ErrorKind::Diverged => None,
                Err(e) if e.kind() == ErrorKind::Interrupted => {
                    let folder = run.folder()?.display().to_string();
                    return Err(Error::interrupted(format!("stopped after {} of {all} trials; they are saved", trials.len()))
                        .hint(format!("go on with: ctk train vision --resume {folder}")));
                }
                Err(e) => return Err(e),
            };
            inner.discard()?;
            if let Some((_, rows)) = &found {
                run.write(&said(at, f), &rows.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())?;
                logits.insert((at, f), rows.clone());
            }
            let (hits, loss) = found.map_or((0, None), |(judged, _)| (judged.hits, Some(judged.loss)));
            trials.push(Trial { choice: *choice, fold: f, held_out: held.len(), hits, loss });
            run.write(SEARCH, &serde_json::to_vec_pretty(&trials)?)?;
            let Choice { rate, epochs, crop } = choice;
            process.tell(&Event::Note(&format!(
                "trial {} of {all}: rate {rate}, {epochs} epochs, crop {crop}: {hits} of {} held-out images",
                trials.len(),
                held.len()
            )));
        }
    }
    // In the order of candidates, so that of equal ones the first wins.
    let mut best: Option<(usize, Score)> = None;
    for (at, choice) in candidates.iter().enumerate() {
        let score = Score::of(trials.iter().filter(|trial| trial.choice == *choice));
        if best.as_ref().is_none_or(|(_, before)| score.beats(before)) {
            best = Some((at, score));
        }
    }
    let (at, score) = best.ok_or_else(|| Error::new("there is nothing to choose from"))?;
    if score.loss.is_none() {
        return Err(Error::diverged("the loss of every candidate is no longer finite").hint("give lower rates"));
    }
    let mut held = Vec::new();
    for f in folds {
        let indices: Vec<usize> = (0..fold.len()).filter(|&i| fold[i] == Some(f)).collect();
        // The results of an earlier process are in the run, unless they were returned already.
        let rows = match logits.remove(&(at, f)) {
            Some(rows) => rows,
            None => match run.read(&said(at, f))? {
                Some(bytes) => bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
                None => {
                    held.clear();
                    break;
                }
            },
        };
        let classes = rows.len() / indices.len().max(1);
        held.extend(indices.into_iter().zip(rows.chunks_exact(classes.max(1)).map(<[f32]>::to_vec)));
    }
    Ok(Chosen { choice: candidates[at], top1: Some(score.hits as f64 / score.held_out.max(1) as f64), held })
}

/// The file of a trial's logits while other trials run.
fn said(at: usize, fold: usize) -> String {
    format!("{FOLDER}/{at}-{fold}.f32")
}

/// The folds to judge on: in order, until there are enough images.
fn folds(fold: &[Option<usize>]) -> Vec<usize> {
    let count = fold.iter().flatten().max().map_or(0, |last| last + 1);
    let sizes = (0..count).map(|f| (f, fold.iter().filter(|of| **of == Some(f)).count()));
    let mut judged = 0;
    let mut taken = Vec::new();
    for (f, size) in sizes.filter(|(_, size)| *size > 0) {
        if judged < ENOUGH {
            taken.push(f);
        }
        judged += size;
    }
    taken
}

/// The result of a candidate over its folds.
struct Score {
    hits: usize,
    held_out: usize,
    loss: Option<f64>,
}

impl Score {
    fn of<'a>(trials: impl Iterator<Item = &'a Trial>) -> Score {
        trials.fold(Score { hits: 0, held_out: 0, loss: Some(0.0) }, |sum, trial| Score {
            hits: sum.hits + trial.hits,
            held_out: sum.held_out + trial.held_out,
            loss: sum.loss.zip(trial.loss).map(|(sum, loss)| sum + loss * trial.held_out as f64),
        })
    }

    fn beats(&self, other: &Score) -> bool {
        match (self.loss, other.loss) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(mine), Some(theirs)) => self.hits > other.hits || (self.hits == other.hits && mine < theirs),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ctk_core::recipe::Recipe;
    use ctk_core::store::run::Place;

    type Train<'a> = &'a mut dyn FnMut(&Choice, &[usize], &[usize], &mut Run) -> Result<Judged>;

    /// The choice of `train` among `candidates` in a run at `place`.
    fn chosen(candidates: &[Choice], fold: &[Option<usize>], place: Place, train: Train) -> Result<Chosen> {
        let mut run = Run::new(place, "vision", Recipe::new("test", "[train]\n")).unwrap();
        choose(candidates, false, fold, &mut run, &mut Process::new(ctk_core::Device::Cpu), |choice, rest, held, inner, _| {
            // Two classes: a row encodes the image and the rate.
            let rows = held.iter().flat_map(|&i| [i as f32, choice.rate as f32]).collect();
            Ok((train(choice, rest, held, inner)?, rows))
        })
    }

    /// One candidate, tried for calibration alone.
    fn choose_one(candidates: &[Choice], place: Place) -> Chosen {
        let mut run = Run::new(place, "vision", Recipe::new("test", "[train]\n")).unwrap();
        choose(candidates, true, &fold(), &mut run, &mut Process::new(ctk_core::Device::Cpu), |_, _, held, inner, _| {
            inner.folder()?;
            Ok((judged(2, 0.5)?, vec![0.0; 2 * held.len()]))
        })
        .unwrap()
    }

    fn candidates() -> Vec<Choice> {
        [0.1, 0.2, 0.3, 0.4].map(|rate| Choice { rate, epochs: 2, crop: 0.5 }).to_vec()
    }

    /// Twelve images in three folds, and one that is never held out.
    fn fold() -> Vec<Option<usize>> {
        (0..12).map(|i| Some(i % 3)).chain([None]).collect()
    }

    fn judged(hits: usize, loss: f64) -> Result<Judged> {
        Ok(Judged { count: 4, hits, loss })
    }

    #[test]
    fn the_most_hits_win_then_the_lowest_loss() {
        let folder = tempfile::tempdir().unwrap();
        let mut tried = Vec::new();
        let place = Place::New(folder.path().join("a"));
        let chosen = chosen(&candidates(), &fold(), place, &mut |choice, rest, held, inner| {
            assert!(inner.folder()?.is_dir() && held.len() == 4 && rest.len() == 9 && rest.contains(&12));
            assert!(held.iter().all(|i| !rest.contains(i)));
            tried.push(choice.rate);
            match choice.rate {
                0.1 => judged(2, 0.1),
                0.2 => judged(3, 0.9),
                0.3 => judged(3, 0.8),
                _ => Err(Error::diverged("too far")),
            }
        });
        let chosen = chosen.unwrap();
        assert_eq!((chosen.choice.rate, chosen.top1, tried.len()), (0.3, Some(0.75), 12));
        let mut held = chosen.held.clone();
        held.sort_by_key(|(i, _)| *i);
        assert_eq!(
            held,
            (0..12).map(|i| (i, vec![i as f32, 0.3])).collect::<Vec<_>>(),
            "each image once, by the choice's network"
        );
        assert!(!folder.path().join("a/search/0-0").exists(), "what is judged is swept away");
    }

    #[test]
    fn what_was_tried_is_not_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let mut count = 0;
        let mut tried = |limit: usize| {
            let place = Place::reached(path.clone()).unwrap();
            chosen(&candidates(), &fold(), place, &mut |choice, _, _, inner| {
                inner.folder()?;
                if count == limit {
                    return Err(Error::interrupted("enough for today"));
                }
                count += 1;
                judged(if choice.rate == 0.2 { 4 } else { 1 }, 0.5)
            })
        };
        let stopped = tried(5).err().unwrap();
        assert!(stopped.kind() == ErrorKind::Interrupted && stopped.to_string().contains("5 of 12"), "{stopped}");
        // Two of its folds were held out before the stop, and their logits are in the run.
        let chosen = tried(100).unwrap();
        assert_eq!(chosen.choice.rate, 0.2);
        assert!(chosen.held.len() == 12 && chosen.held.iter().all(|(i, row)| *row == [*i as f32, 0.2]), "{:?}", chosen.held);
        // They were returned and deleted: nothing is computed again or invented.
        std::fs::remove_dir_all(path.join(FOLDER)).unwrap();
        let again = tried(100).unwrap();
        assert!(again.choice.rate == 0.2 && again.held.is_empty());
        assert_eq!(count, 12);
    }

    #[test]
    fn nothing_to_choose_from_or_by_is_no_search() {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| Place::New(folder.path().join(name));
        let mut never = |_: &Choice, _: &[usize], _: &[usize], _: &mut Run| -> Result<Judged> { panic!("no trial") };
        let alone = chosen(&candidates()[1..2], &fold(), place("a"), &mut never).unwrap();
        assert_eq!((alone.choice.rate, alone.top1), (0.2, None));
        let tried = choose_one(&candidates()[1..2], place("d"));
        assert_eq!((tried.choice.rate, tried.top1, tried.held.len()), (0.2, Some(0.5), 12));
        let lone = chosen(&candidates(), &[None, None], place("b"), &mut never).unwrap();
        assert_eq!((lone.choice.rate, lone.top1), (0.1, None));
        let all_diverge = chosen(&candidates(), &fold(), place("c"), &mut |_, _, _, inner| {
            inner.folder()?;
            Err(Error::diverged("too far"))
        });
        assert_eq!(all_diverge.err().unwrap().kind(), ErrorKind::Diverged);
    }

    #[test]
    fn one_fold_is_enough_of_many_labels() {
        let of = |n: usize| folds(&(0..n).map(|i| Some(i % 5)).collect::<Vec<_>>());
        assert_eq!((of(500), of(3000), of(5000)), (vec![0, 1, 2, 3, 4], vec![0, 1], vec![0]));
        assert_eq!(folds(&[Some(1), None, Some(4)]), [1, 4], "empty folds are passed over");
    }
}
