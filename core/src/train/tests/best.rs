//! The best checkpoint: later ones do not delete it, and a resumed run keeps the same one as an uninterrupted run.

use std::path::Path;

use super::*;
use crate::error::ErrorKind;
use crate::observer::{Event, Observer};
use crate::process::Stop;
use crate::store::best::Best;
use crate::train::fit::{Fitted, Judge, fit_judged};

/// The measurements after 4, 8, … 24 steps: the second is the best, and the third equals it.
const MEASURED: [f64; 6] = [0.1, 0.9, 0.9, 0.3, 0.2, 0.4];

struct StopAt(usize, Stop);

impl Observer for StopAt {
    fn event(&mut self, event: &Event) {
        if matches!(event, Event::Step(p) if p.step >= self.0) {
            self.1.raise();
        }
    }
}

/// Trains to the end, or until `stop`; the measurement depends on the step alone.
fn train(place: Place, stop: Option<usize>) -> Result<Fitted> {
    let recipe = Recipe::new("test", "");
    let train = TrainRecipe { epochs: 12, batch: 6, save_every: Some(2), keep: Some(1), log_every: 1, ..TrainRecipe::default() };
    let schedule = Schedule::new(&ScheduleRecipe { warmup: 0.0, ..ScheduleRecipe::default() }, 5.0);
    let plan = Plan::new("test", &recipe, train, schedule)?;
    let mut run = Run::new(place, "test", recipe)?;
    let from = run.latest()?.map_or(0, |checkpoint| checkpoint.manifest().step);
    let raised = Stop::default();
    let watcher = StopAt(stop.unwrap_or(usize::MAX), raised.clone());
    let mut process = Process::new(crate::Device::Cpu).observed_by(Box::new(watcher)).stopped_by(raised);
    let mut values = MEASURED.into_iter().skip(from / 4);
    let judge = Judge {
        measure: "top1",
        on: "val",
        samples: 7,
        value: Box::new(move |_: &Dense<Siamese<Net>>| Ok(values.next().unwrap())),
    };
    fit_judged(&multi_crop(), &mut learned(With::Norm), &plan, &mut [], Some(judge), &mut run, &mut process)
}

fn stopped(run: &Path, place: Place, step: usize) {
    assert_eq!(train(place, Some(step)).err().unwrap().kind(), ErrorKind::Interrupted, "{}", run.display());
}

#[test]
fn a_checkpoint_that_was_better_is_kept_when_the_measure_falls() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let best = train(Place::New(run.clone()), None).unwrap().best.unwrap();
    assert_eq!(best, Best { step: 8, measure: "top1".into(), value: 0.9, on: "val".into(), samples: 7 });
    assert_eq!(Checkpoint::steps(&run.join("checkpoints")).unwrap(), [8, 24], "the best and the newest");
    let step = |path: &Path| Checkpoint::open(path).unwrap().manifest().step;
    assert_eq!((step(&run.join("checkpoints/best")), step(&run)), (8, 24));
    assert_eq!(Checkpoint::open(&run.join("checkpoints/best")).unwrap().folder(), run.join("checkpoints/8"));
    let metrics = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    assert_eq!(metrics.matches("checkpoint_top1").count(), 6);
    std::fs::remove_dir_all(run.join("checkpoints/8")).unwrap();
    let error = Checkpoint::open(&run.join("checkpoints/best")).unwrap_err();
    assert!(error.exit_code() == 2 && error.to_string().contains("not there any more"), "{error}");
}

#[test]
fn a_run_that_was_stopped_keeps_the_best_that_an_uninterrupted_one_keeps() {
    let folder = tempfile::tempdir().unwrap();
    let files =
        |run: &Path, step: usize| Checkpoint::open(&run.join(format!("checkpoints/{step}"))).unwrap().manifest().files.clone();
    let straight = folder.path().join("straight");
    let expected = train(Place::New(straight.clone()), None).unwrap().best;
    // Stops before anything was measured, after the best, when a checkpoint is due, and twice.
    for (name, stops) in [("a", &[3][..]), ("b", &[13]), ("c", &[8]), ("d", &[7, 18])] {
        let run = folder.path().join(name);
        stopped(&run, Place::New(run.clone()), stops[0]);
        stops[1..].iter().for_each(|&stop| stopped(&run, Place::Resume(run.clone()), stop));
        // A stop between the writes of a checkpoint and of the record of the best.
        let _ = std::fs::remove_dir_all(run.join("checkpoints/best"));
        assert_eq!(train(Place::Resume(run.clone()), None).unwrap().best, expected, "{name}");
        assert_eq!(Checkpoint::steps(&run.join("checkpoints")).unwrap(), [8, 24], "{name}");
        assert!([8, 24].iter().all(|&step| files(&run, step) == files(&straight, step)), "{name}");
        assert_eq!(Checkpoint::open(&run.join("checkpoints/best")).unwrap().manifest().step, 8);
    }
    // A resumed finished run reports it again.
    assert_eq!(train(Place::Resume(straight.clone()), None).unwrap().best, expected);
}
