//! When checkpoints are saved; and that a resumed run equals an uninterrupted one in its bytes, its metrics and its figures.

use std::cell::Cell;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::*;
use crate::error::{Error, ErrorKind};
use crate::observer::{Event, Observer};
use crate::process::Stop;
use crate::recipe::Every;
use crate::train::fit::{Fitted, Probe};

type Net6 = Dense<Siamese<Net>>;

/// Runs a function once `step` steps are done.
struct At<F>(usize, F);

impl<F: FnMut() + Send> Observer for At<F> {
    fn event(&mut self, event: &Event) {
        let step = match event {
            Event::Step(progress) => progress.step,
            Event::Tick { step } => *step,
            _ => return,
        };
        if step == self.0 {
            (self.1)();
        }
    }
}

/// Crops of waves, one of which cannot be drawn in the second epoch.
struct Fragile {
    inner: Paired<Waves, Crops>,
    fails: bool,
}

impl crate::data::source::Source for Fragile {
    type Batch = Batch<Pictures, ()>;

    fn len(&self) -> usize {
        self.inner.len()
    }

    fn draw(&self, samples: &[u32], key: Key) -> Result<Self::Batch> {
        let first = |key: Key| key.rng().random::<u64>();
        let second = first(key) == first(Key::new(0).of("views").at(1));
        match self.fails && second && samples.contains(&7) {
            true => Err(Error::new("the file has gone").at("wave 7")),
            false => self.inner.draw(samples, key),
        }
    }
}

/// A run of three epochs of six steps, with a line of metrics every four steps and at the end of an epoch.
struct Scene {
    every: Every,
    rate: f64,
    steps: Option<usize>,
    fails: bool,
}

impl Default for Scene {
    fn default() -> Self {
        Scene { every: Every::Epochs(1), rate: 0.5, steps: None, fails: false }
    }
}

impl Scene {
    fn train(&self, place: Place, dense: &mut Net6, probes: &mut [Probe<Net6>], process: &mut Process) -> Result<Fitted> {
        let recipe = Recipe::new("test", "");
        let train =
            TrainRecipe { epochs: 3, batch: 2, keep: Some(99), log_every: 4, max_steps: self.steps, ..TrainRecipe::default() };
        let schedule = Schedule::new(&ScheduleRecipe { warmup: 0.0, ..ScheduleRecipe::default() }, self.rate);
        let mut plan = Plan::new("test", &recipe, train, schedule)?;
        plan.saves.every = self.every;
        let source = Fragile { inner: multi_crop(), fails: self.fails };
        fit(&source, dense, &plan, probes, &mut Run::new(place, "test", recipe)?, process)
    }

    fn plain(&self, place: Place) -> Result<Fitted> {
        self.train(place, &mut learned(With::Norm), &mut [], &mut Process::new(crate::Device::Cpu))
    }

    /// Trains until `stop` steps are done.
    fn stopped(&self, place: Place, steps: usize) {
        let stop = Stop::default();
        let raised = stop.clone();
        let observer = Box::new(At(steps, move || raised.raise()));
        let mut process = Process::new(crate::Device::Cpu).observed_by(observer).stopped_by(stop);
        let error = self.train(place, &mut learned(With::Norm), &mut [], &mut process).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Interrupted, "{error}");
    }
}

fn steps(run: &Path) -> Vec<usize> {
    Checkpoint::steps(&run.join("checkpoints")).unwrap()
}

/// The files of the newest checkpoint, and the lines of metrics without speeds.
fn outcome(run: &Path) -> (String, Vec<Value>) {
    let metrics = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let lines = metrics.lines().map(|line| {
        let mut line: Value = serde_json::from_str(line).unwrap();
        line.as_object_mut().unwrap().remove("samples_per_second");
        line
    });
    (format!("{:?}", Checkpoint::open(run).unwrap().manifest().files), lines.collect())
}

#[test]
fn a_stop_between_two_lines_leaves_no_trace() {
    let folder = tempfile::tempdir().unwrap();
    let straight = folder.path().join("straight");
    let expected = Scene::default().plain(Place::New(straight.clone())).unwrap();
    for stops in [&[1][..], &[3], &[4], &[6], &[2, 5, 9, 17]] {
        let run = folder.path().join(format!("{stops:?}"));
        Scene::default().stopped(Place::New(run.clone()), stops[0]);
        stops[1..].iter().for_each(|&at| Scene::default().stopped(Place::Resume(run.clone()), at));
        let fitted = Scene::default().plain(Place::Resume(run.clone())).unwrap();
        assert_eq!((fitted.loss, fitted.steps, fitted.health), (expected.loss, 18, expected.health), "{stops:?}");
        assert_eq!(outcome(&run), outcome(&straight), "{stops:?}");
    }
}

#[test]
fn a_stop_while_measuring_is_made_up_for() {
    let folder = tempfile::tempdir().unwrap();
    let train = |run: &Path, place: Place, interrupted: bool| {
        let stop = Stop::default();
        let raised = stop.clone();
        let calls = Cell::new(0);
        let measure = |dense: &Net6| {
            calls.set(calls.get() + 1);
            if interrupted && calls.get() == 2 {
                raised.raise();
            }
            Stop::here().check()?;
            Ok(vec![("scale".to_string(), dense.params.iter().last().unwrap().var().to_scalar::<f64>()?)])
        };
        let mut probes = [Probe { every: 1, measure: Box::new(measure) }];
        let mut process = Process::new(crate::Device::Cpu).stopped_by(stop.clone());
        let done = Scene { every: Every::Epochs(2), ..Scene::default() }.train(
            place,
            &mut learned(With::Norm),
            &mut probes,
            &mut process,
        );
        assert_eq!(done.as_ref().err().map(Error::kind), interrupted.then_some(ErrorKind::Interrupted), "{}", run.display());
        drop(probes);
        calls.get()
    };
    let (straight, run) = (folder.path().join("straight"), folder.path().join("run"));
    assert_eq!(train(&straight, Place::New(straight.clone()), false), 3);
    assert_eq!(train(&run, Place::New(run.clone()), true), 2);
    assert_eq!(steps(&run), [12], "what was trained is saved, though it was not measured");
    assert_eq!(train(&run, Place::Resume(run.clone()), false), 2, "the second epoch is measured, and the third");
    assert_eq!(outcome(&run), outcome(&straight));
    assert_eq!(outcome(&run).1.iter().filter(|line| line.get("scale").is_some()).count(), 3);
}

#[test]
fn checkpoints_come_by_time_by_steps_by_epochs_and_when_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let saved = |name: &str, every: Every| {
        let run = folder.path().join(name);
        Scene { every, ..Scene::default() }.plain(Place::New(run.clone())).unwrap();
        (steps(&run), outcome(&run))
    };
    let (often, straight) = saved("always", Every::Time(Duration::ZERO));
    assert_eq!(often, (1..=18).collect::<Vec<_>>());
    for (name, every, expected) in [
        ("never", Every::Time(Duration::from_secs(1_000_000)), &[18][..]),
        ("steps", Every::Steps(5), &[5, 10, 15, 18]),
        ("epochs", Every::Epochs(2), &[12, 18]),
        ("huge", Every::Epochs(usize::MAX), &[18]),
    ] {
        assert_eq!(saved(name, every), (expected.to_vec(), straight.clone()), "{name}");
    }
    let (stop, run) = (Stop::default(), folder.path().join("asked"));
    let asked = stop.clone();
    let mut process = Process::new(crate::Device::Cpu).observed_by(Box::new(At(7, move || asked.ask_to_save()))).stopped_by(stop);
    let scene = Scene { every: Every::Epochs(9), ..Scene::default() };
    scene.train(Place::New(run.clone()), &mut learned(With::Norm), &mut [], &mut process).unwrap();
    assert_eq!((steps(&run), outcome(&run)), (vec![7, 18], straight));
}

#[test]
fn an_error_of_the_data_saves_what_was_trained_before() {
    let folder = tempfile::tempdir().unwrap();
    let (straight, run) = (folder.path().join("straight"), folder.path().join("run"));
    let scene = Scene { every: Every::Epochs(9), ..Scene::default() };
    scene.plain(Place::New(straight.clone())).unwrap();
    let error = Scene { fails: true, ..scene }.plain(Place::New(run.clone())).unwrap_err().to_string();
    let step = steps(&run)[0];
    assert!((6..12).contains(&step), "{step}");
    assert!(error.contains("the file has gone") && error.contains("wave 7"), "{error}");
    assert!(error.contains(&format!("after {step} steps, which are saved: ctk train test --resume ")), "{error}");
    Scene { every: Every::Epochs(9), ..Scene::default() }.plain(Place::Resume(run.clone())).unwrap();
    assert_eq!(outcome(&run), outcome(&straight));
}

#[test]
fn numbers_that_are_not_finite_end_a_run_with_an_error_and_no_such_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    for (name, rate, steps) in [("one", 1e308, Some(1)), ("more", 1e200, None)] {
        let run = folder.path().join(name);
        let scene = Scene { rate, steps, every: Every::Steps(1), ..Scene::default() };
        let error = scene.plain(Place::New(run.clone())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Diverged, "{name}: {error}");
        assert!(error.to_string().contains("finite") && error.to_string().contains("hint: "), "{name}: {error}");
        let (whole, passed) = Checkpoint::latest(&run.join("checkpoints")).unwrap();
        assert!(passed.is_empty() && whole.is_none_or(|c| c.manifest().step < 18), "{name}: {passed:?}");
    }
}

/// Another loss multiplied by a number at some steps.
struct Times(Learned, Vec<f64>, usize);

impl Objective for Times {
    fn loss(&self, inputs: &Inputs) -> Result<Terms> {
        let factor = self.1.get(self.2).copied().unwrap_or(1.0);
        let terms = self.0.loss(inputs)?;
        Ok(Terms { loss: (terms.loss.clone() * factor)?, ..terms })
    }

    fn after_step(&mut self, inputs: &Inputs) -> Result<()> {
        self.2 += 1;
        self.0.after_step(inputs)
    }
}

#[test]
fn a_loss_that_runs_away_is_an_error_before_it_is_infinite() {
    let folder = tempfile::tempdir().unwrap();
    let factors = vec![1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1e9];
    let mut dense = learner(With::Norm, |scale| Box::new(Times(Learned(scale), factors.clone(), 0)));
    let place = Place::New(folder.path().join("run"));
    let error = Scene::default().train(place, &mut dense, &mut [], &mut Process::new(crate::Device::Cpu)).unwrap_err();
    assert!(error.kind() == ErrorKind::Diverged && error.to_string().contains("training has diverged"), "{error}");
}

#[test]
fn a_step_that_is_not_finite_is_left_out_whole() {
    let mut dense = learner(With::Norm, |scale| Box::new(Times(Learned(scale), vec![1.0, f64::NAN, 1.0], 0)));
    dense.leaves_out = true;
    let mut other = learned(With::Norm);
    assert_eq!(step(&mut dense, 7, 0.3), step(&mut other, 7, 0.3));
    let before = values(&dense.params);
    for part in [7, 3] {
        assert!(step(&mut dense, part, 0.3).is_nan());
        for ((name, a), (_, b)) in before.iter().zip(&values(&dense.params)) {
            assert_eq!(distance(a, b), 0.0, "{name} has moved");
        }
    }
    // Without restoring them, the skipped step's running statistics would remain.
    let mut dense = learner(With::Norm, |scale| Box::new(Times(Learned(scale), vec![f64::NAN], 0)));
    let before = values(&dense.params);
    step(&mut dense, 7, 0.3);
    assert!(before.iter().zip(&values(&dense.params)).any(|((_, a), (_, b))| distance(a, b) != 0.0));

    let folder = tempfile::tempdir().unwrap();
    let train = |name: &str, factors: Vec<f64>| {
        let mut dense = learner(With::Norm, |scale| Box::new(Times(Learned(scale), factors.clone(), 0)));
        dense.leaves_out = true;
        Scene::default().train(Place::New(folder.path().join(name)), &mut dense, &mut [], &mut Process::new(crate::Device::Cpu))
    };
    // The loss's counter does not move in a step that is skipped.
    let fitted = train("some", vec![1.0; 20]).unwrap();
    assert_eq!(fitted.left_out, 0);
    let error = train("all", [vec![1.0; 3], vec![f64::NAN; 20]].concat());
    assert_eq!(error.unwrap().left_out, 15);
}

#[test]
fn collapsed_embeddings_are_told_while_training_and_at_the_end() {
    #[derive(Clone, Default)]
    struct Notes(Arc<std::sync::Mutex<Vec<String>>>);
    impl Observer for Notes {
        fn event(&mut self, event: &Event) {
            if let Event::Note(note) = event {
                self.0.lock().unwrap().push((*note).to_string());
            }
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let told = |name: &str, zero: bool| {
        let mut dense = learned(if zero { With::Nothing } else { With::Norm });
        if zero {
            let weights = dense.params.iter().filter(|p| p.name().ends_with("conv.weight"));
            weights.for_each(|p| p.var().set(&p.var().zeros_like().unwrap()).unwrap());
        }
        let notes = Notes::default();
        let mut process = Process::new(crate::Device::Cpu).observed_by(Box::new(notes.clone()));
        let recipe = Recipe::new("test", "");
        let train = TrainRecipe { epochs: 5, batch: 12, log_every: 1, ..TrainRecipe::default() };
        let schedule = Schedule::new(&ScheduleRecipe { warmup: 0.0, ..ScheduleRecipe::default() }, 1e-12);
        let plan = Plan::new("test", &recipe, train, schedule).unwrap();
        let mut run = Run::new(Place::New(folder.path().join(name)), "test", recipe).unwrap();
        let fitted = fit(&multi_crop(), &mut dense, &plan, &mut [], &mut run, &mut process).unwrap();
        let said = notes.0.lock().unwrap().iter().filter(|note| note.contains("collapsed")).count();
        (said, fitted.health.unwrap().collapsed())
    };
    assert_eq!(told("dead", true), (2, true));
    assert_eq!(told("alive", false), (0, false));
    let metrics = std::fs::read_to_string(folder.path().join("alive/metrics.jsonl")).unwrap();
    assert_eq!(metrics.matches("\"effective_rank\"").count(), 5);
}
