//! The config-driven test matrix: files of cases, each a config, axes of overrides and properties that must hold.
//!
//! ```toml
//! [[case]]
//! name = "tiny"
//! modality = "vision"
//! config = "../../configs/vision/generated.toml"      # relative to this file; absent: the default recipe
//! set = { "train.max_steps" = 6 }
//! axes = { "encoder.resnet.depth" = [18, 50] }         # every combination is a case of its own
//! properties = ["loss-falls", "resume-equals-straight"]
//! floors = { top1 = 0.8 }                              # figures of `ctk train --json` that must be reached
//! ```
//!
//! The same runner serves `cargo test` (one named test a property) and `ctk matrix FILE` (a table). A file may also hold studies
//! (`[[study]]`: [`study`]), which `ctk matrix` runs after its cases.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use ctk_core::Device;
use ctk_core::error::{Context, Error, ErrorKind, Result};
use ctk_core::modality::{Modality, Query};
use ctk_core::observer::{Event, Observer};
use ctk_core::process::{Process, Stop};
use ctk_core::recipe::Recipe;
use ctk_core::store::checkpoint::Checkpoint;
use ctk_core::store::run::Place;
use serde::Deserialize;

use super::study::{self, Study};
use crate::Modalities;
use crate::shared::pace::Pace;
use crate::shared::run::{Trained, train};
use crate::shared::{args, cells, output, signals};

/// What must hold of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Property {
    /// It runs to its end and leaves a whole checkpoint.
    Runs,
    /// The mean loss of the last quarter of the steps is below that of the first quarter.
    LossFalls,
    /// A run that is interrupted half-way and resumed ends with the same bytes as an uninterrupted run.
    ResumeEqualsStraight,
    /// The same, with one computing thread (lock-free word2vec is exact only so).
    ResumeEqualsStraightOnOneThread,
    /// 0, 1 and 3 loader threads give the same bytes.
    LoadersChangeNothing,
    /// 1, 2 and 3 computing threads give the same bytes.
    ThreadsChangeNothing,
    /// With one computing thread, two runs give the same bytes.
    Repeatable,
    /// The checkpoint verifies, and two openings of it give the same finite features.
    CheckpointRoundTrips,
}

/// A matrix file, parsed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    #[serde(skip)]
    path: PathBuf,
    #[serde(default)]
    case: Vec<Written>,
    #[serde(default)]
    study: Vec<study::Written>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    modality: String,
    config: Option<PathBuf>,
    #[serde(default)]
    set: BTreeMap<String, toml::Value>,
    #[serde(default)]
    axes: BTreeMap<String, Vec<toml::Value>>,
    #[serde(default)]
    properties: Vec<Property>,
    #[serde(default)]
    floors: BTreeMap<String, f64>,
}

/// One check: a recipe with a property, or with lower limits of its figures.
pub struct Case<'a> {
    /// `tiny[depth=18]/loss-falls`.
    pub name: String,
    modality: &'a dyn Modality,
    recipe: Recipe,
    check: Check,
}

enum Check {
    Property(Property),
    Floors(BTreeMap<String, f64>),
}

impl File {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// The file cannot be read, is not TOML, or has keys or values that a matrix does not have.
    pub fn read(path: &Path) -> Result<File> {
        Ok(File { path: path.to_path_buf(), ..Recipe::read(path)?.parse()? })
    }

    /// All cases of the file; every combination of axis values is a case.
    ///
    /// # Errors
    /// A case names an unknown modality, a config that cannot be read, or a key that cannot be set.
    pub fn cases<'a>(&self, modalities: Modalities<'a>) -> Result<Vec<Case<'a>>> {
        let mut cases = Vec::new();
        for case in &self.case {
            let place = format!("{}: case {}", self.path.display(), case.name);
            let modality = crate::modality(modalities, &case.modality).at(place)?;
            let base = study::base(&self.path, case.config.as_deref(), modality)?;
            for axes in product(&case.axes) {
                let mut recipe = base.clone();
                for (key, value) in case.set.iter().chain(&axes) {
                    recipe.set(key, &value.to_string())?;
                }
                let point: Vec<String> = axes.iter().map(|(k, v)| format!("{}={v}", k.rsplit('.').next().unwrap_or(k))).collect();
                let name = if point.is_empty() { case.name.clone() } else { format!("{}[{}]", case.name, point.join(",")) };
                let checks = case.properties.iter().map(|p| (spoken(*p), Check::Property(*p)));
                let floors = (!case.floors.is_empty()).then(|| ("floors".to_string(), Check::Floors(case.floors.clone())));
                cases.extend(checks.chain(floors).map(|(what, check)| Case {
                    name: format!("{name}/{what}"),
                    modality,
                    recipe: recipe.clone(),
                    check,
                }));
            }
        }
        Ok(cases)
    }

    /// All studies of the file, checked; `data` replaces the data of their recipes.
    ///
    /// # Errors
    /// A study is not valid, or two studies have one name.
    pub fn studies<'a>(self, data: Option<&Path>, modalities: Modalities<'a>) -> Result<Vec<Study<'a>>> {
        let place = self.path.display();
        let studies: Vec<Study> =
            self.study.into_iter().map(|of| Study::new(of, &self.path, data, modalities)).collect::<Result<_>>()?;
        if study::repeats(studies.iter().map(Study::name)) {
            return Err(Error::usage("two studies have one name").at(place));
        }
        Ok(studies)
    }
}

impl Case<'_> {
    /// Runs the case in a folder of its own. Returns a text to print beside the case.
    ///
    /// # Errors
    /// The property does not hold, or a run of the case failed; the error says why.
    pub fn run(&self) -> Result<String> {
        let folder = tempfile::tempdir()?;
        let at = |name: &str| folder.path().join(name);
        match &self.check {
            Check::Floors(floors) => {
                let figures = self.straight(&at("run"))?.figures();
                let reached = floors.iter().map(|(name, floor)| {
                    let value =
                        figures[name].as_f64().ok_or_else(|| Error::new(format!("the run reports no figure `{name}`")))?;
                    if value < *floor {
                        return Err(Error::new(format!("{name} is {value:.4}, below the floor of {floor}")));
                    }
                    Ok(format!("{name} {value:.4}"))
                });
                Ok(reached.collect::<Result<Vec<_>>>()?.join("  "))
            }
            Check::Property(Property::Runs) => {
                let trained = self.straight(&at("run"))?;
                Checkpoint::open(&trained.run)?.verify()?;
                Ok(format!("{} steps, loss {:.4}", trained.summary.steps, trained.summary.loss))
            }
            Check::Property(Property::LossFalls) => {
                let losses = losses(&self.straight(&at("run"))?.run)?;
                let quarter = (losses.len() / 4).max(1);
                let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
                let (first, last) = (mean(&losses[..quarter]), mean(&losses[losses.len() - quarter..]));
                let said = format!("loss {first:.4} → {last:.4}");
                if losses.len() >= 4 && last < first {
                    Ok(said)
                } else {
                    Err(Error::new(format!("{said} over {} steps", losses.len())))
                }
            }
            Check::Property(Property::ResumeEqualsStraight) => self.resumes(folder.path()),
            Check::Property(Property::ResumeEqualsStraightOnOneThread) => {
                ctk_core::device::with_threads(1, || self.resumes(folder.path()))?
            }
            Check::Property(Property::LoadersChangeNothing) => {
                let runs = [0, 1, 3].map(|n| {
                    let mut recipe = self.recipe.clone();
                    recipe.set("train.loaders", &n.to_string())?;
                    self.train(Place::New(at(&n.to_string())), &recipe, alone())
                });
                let [a, b, c] = runs;
                let a = a?;
                same(&a, &b?)?;
                same(&a, &c?)
            }
            Check::Property(Property::ThreadsChangeNothing) => {
                let runs = [1, 2, 3].map(|n| ctk_core::device::with_threads(n, || self.straight(&at(&n.to_string()))));
                let [a, b, c] = runs;
                let a = a??;
                same(&a, &b??)?;
                same(&a, &c??)
            }
            Check::Property(Property::Repeatable) => {
                let [a, b] = ["a", "b"].map(|name| ctk_core::device::with_threads(1, || self.straight(&at(name))));
                same(&a??, &b??)
            }
            Check::Property(Property::CheckpointRoundTrips) => {
                let checkpoint = Checkpoint::open(&self.straight(&at("run"))?.run)?;
                checkpoint.verify()?;
                let features = || {
                    let model = self.modality.open(&Checkpoint::open(checkpoint.folder())?, &Device::Cpu)?;
                    model.features(&Query::default())
                };
                let (a, b) = (features()?, features()?);
                let sound = !a.is_empty() && a.rows == b.rows && a.rows.iter().all(|v| v.is_finite());
                if sound {
                    Ok(format!("{} × {}", a.len(), a.width))
                } else {
                    Err(Error::new("features differ or are not finite"))
                }
            }
        }
    }

    fn resumes(&self, folder: &Path) -> Result<String> {
        let (straight, resumed) = (folder.join("straight"), folder.join("resumed"));
        let straight = self.straight(&straight)?;
        self.interrupted(&resumed, straight.summary.steps / 2)?;
        same(&straight, &self.train(Place::Resume(resumed), &self.recipe, alone())?)
    }

    fn straight(&self, folder: &Path) -> Result<Trained> {
        self.train(Place::New(folder.to_path_buf()), &self.recipe, alone())
    }

    /// Trains until `step` and stops as Ctrl-C would.
    fn interrupted(&self, folder: &Path, step: usize) -> Result<()> {
        let stop = Stop::default();
        let process = alone().observed_by(Box::new(StopAt { step, stop: stop.clone() })).stopped_by(stop);
        match self.train(Place::New(folder.to_path_buf()), &self.recipe, process) {
            Err(e) if e.kind() == ErrorKind::Interrupted => Ok(()),
            Err(e) => Err(e),
            Ok(_) => Err(Error::new("the run ended before it could be interrupted: it needs more steps")),
        }
    }

    fn train(&self, place: Place, recipe: &Recipe, process: Process) -> Result<Trained> {
        let mut recipe = recipe.clone();
        recipe.set("train.log_every", "1")?;
        train(self.modality, &recipe, place, process)
    }
}

/// A process that reports its progress to no observer.
fn alone() -> Process {
    Process::new(ctk_core::Device::Cpu)
}

struct StopAt {
    step: usize,
    stop: Stop,
}

impl Observer for StopAt {
    fn event(&mut self, event: &Event) {
        if matches!(event, Event::Step(p) if p.step >= self.step) {
            self.stop.raise();
        }
    }
}

/// Equal checkpoints: every file has the same digest.
fn same(a: &Trained, b: &Trained) -> Result<String> {
    let files = |t: &Trained| Ok::<_, Error>(Checkpoint::open(&t.run)?.manifest().files.clone());
    let (a, b) = (files(a)?, files(b)?);
    let differing: Vec<&String> = a.keys().filter(|name| a.get(*name) != b.get(*name)).collect();
    if differing.is_empty() && a.len() == b.len() {
        Ok(format!("{} files equal", a.len()))
    } else {
        Err(Error::new(format!("these files differ: {differing:?}")))
    }
}

fn losses(run: &Path) -> Result<Vec<f64>> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl"))?;
    let lines = text.lines().map(serde_json::from_str::<serde_json::Value>).collect::<Result<Vec<_>, _>>()?;
    Ok(lines.iter().filter_map(|line| line["loss"].as_f64()).collect())
}

fn product(axes: &BTreeMap<String, Vec<toml::Value>>) -> Vec<BTreeMap<String, toml::Value>> {
    axes.iter().fold(vec![BTreeMap::new()], |points, (key, values)| {
        let with = |point: &BTreeMap<String, toml::Value>, value: &toml::Value| {
            let mut point = point.clone();
            point.insert(key.clone(), value.clone());
            point
        };
        points.iter().flat_map(|point| values.iter().map(move |value| with(point, value))).collect()
    })
}

fn spoken(property: Property) -> String {
    match property {
        Property::Runs => "runs",
        Property::LossFalls => "loss-falls",
        Property::ResumeEqualsStraight => "resume-equals-straight",
        Property::ResumeEqualsStraightOnOneThread => "resume-equals-straight-on-one-thread",
        Property::LoadersChangeNothing => "loaders-change-nothing",
        Property::ThreadsChangeNothing => "threads-change-nothing",
        Property::Repeatable => "repeatable",
        Property::CheckpointRoundTrips => "checkpoint-round-trips",
    }
    .to_string()
}

pub(crate) fn run(args: args::Matrix, modalities: Modalities) -> Result<()> {
    let file = File::read(&args.file)?;
    let cases = file.cases(modalities)?;
    let wanted = |name: &str| args.only.as_ref().is_none_or(|text| name.contains(text));
    let chosen: Vec<_> = cases.iter().filter(|case| wanted(&case.name)).collect();
    let studies = file.studies(args.data.as_deref(), modalities)?;
    let studies: Vec<_> = studies.iter().filter(|study| wanted(study.name())).collect();
    if chosen.is_empty() && studies.is_empty() {
        return Err(Error::usage("no case and no study of this file has such a name")
            .at(args.file.display())
            .hint("leave out --only to run all of them"));
    }
    let width = chosen.iter().map(|c| c.name.chars().count()).max().unwrap_or(0);
    let mut failed = 0;
    let mut pace = Pace::new(vec![Some((0, 0)); chosen.len()]);
    for (at, case) in chosen.iter().enumerate() {
        let clock = Instant::now();
        if !args.show.quiet {
            output::say(format!("{}: {}", pace.line("case", at + 1, 0.0, None), case.name));
        }
        let (mark, said) = match case.run() {
            Ok(said) => ("ok", said),
            Err(e) => {
                failed += 1;
                ("FAILED", e.to_string())
            }
        };
        pace.took(at + 1, clock.elapsed().as_secs_f64());
        output::line(format!("{:width$}  {mark:6}  {:6.1} s  {said}", case.name, clock.elapsed().as_secs_f64()))?;
    }
    let folder = args.out.clone().unwrap_or_else(|| Path::new("runs").join(args.file.file_stem().unwrap_or_default()));
    if !studies.is_empty() {
        let stop = signals::stop();
        let of = |(at, study): (usize, &&Study)| {
            study.cells(&folder).into_iter().map(|(place, kind)| (place, (at, kind))).collect::<Vec<_>>()
        };
        let cells: Vec<Vec<_>> = studies.iter().enumerate().map(of).collect();
        let pace = cells::pace(&cells.concat());
        let mut before = 0;
        for (study, cells) in studies.iter().zip(&cells) {
            study.run(&folder, &args, stop.clone(), pace.clone(), before)?;
            before += cells.len();
        }
    }
    match failed {
        0 => Ok(()),
        n => Err(Error::new(format!("{n} of {} cases failed", chosen.len())).at(args.file.display())),
    }
}
