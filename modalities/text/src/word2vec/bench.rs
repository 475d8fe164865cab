//! `ctk bench word2vec`: how many words a second a recipe trains on this machine, and how its threads spend their time.
//!
//! The steps are those of training: the learner's, on windows drawn as in training, including the end of a step. The threads' time is
//! measured at the feed: a thread draws while it is inside, trains between two calls, and waits otherwise. Two clock readings for a block
//! of a thousand words cost very little. Negatives are drawn within training; this is timed separately on some of the same blocks. Draws
//! depend only on their keys, so the trained pairs can be drawn and counted again after timing.

use std::cell::Cell;
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ctk_core::data::feed::{Feed, Loader, Order};
use ctk_core::data::source::Source;
use ctk_core::nn::pass::Precision;
use ctk_core::observer::{Event, Observer};
use ctk_core::recipe::{Recipe, TrainRecipe};
use ctk_core::rng::Key;
use ctk_core::train::bench::{self, Figure, Memory, Report, Request, WARM};
use ctk_core::train::learner::Learner;
use ctk_core::{Error, Result};
use ctk_texts::corpus::{Corpus, END};
use serde_json::json;

use super::job::Word2VecJob;
use super::parts::Parts;
use super::recipe::{Architecture, Contrast, Negatives};
use super::rows::step::NONE;
use super::sparse::{Settings, Sparse};
use super::targets::Targets;
use super::windows::{Block, Windows};

/// The recipe that is timed by default: the generated language.
pub(super) const YARDSTICK: &str = include_str!("../../../../configs/word2vec/generated.toml");

/// Time for which steps are made by default.
const LONG: Duration = Duration::from_secs(2);

/// The largest number of blocks that are drawn again and counted.
const COUNTED: usize = 1024;

pub(super) fn run(recipe: &Recipe, request: &Request, observer: &mut dyn Observer) -> Result<Report> {
    let job = Word2VecJob::new(&changed(recipe, request)?)?;
    let folder = tempfile::tempdir()?;
    observer.event(&Event::Note("reading the text"));
    let start = Instant::now();
    let corpus = job.corpus(&[], &mut || Ok(folder.path().to_path_buf()))?;
    let reading = start.elapsed().as_secs_f64();
    corpus.notes().iter().for_each(|note| observer.event(&Event::Note(note)));

    observer.event(&Event::Note("timing training"));
    let (recipe, settings, before) = (job.recipe(), job.settings(), Memory::now());
    let train = recipe.train.shared();
    let key = Key::new(train.seed);
    let mut learner = Sparse::new(corpus.vocabulary(), settings, key)?;
    let source = job.windows(&corpus)?;
    let order = Order::new(source.len(), train.batch.min(source.len()), 1, true, false, key);
    let spent = time(&mut learner, &source, &order, &train, request.steps)?;
    let (memory, words) = (before.grown(), words(&corpus, &order, spent.steps)?);
    drop(learner);

    observer.event(&Event::Note("counting what was trained"));
    let counts = Counts::of(&corpus, &source, &order, &settings, spent.steps, key)?;

    let speed = words as f64 / spent.seconds;
    // The counted part, scaled in proportion to its words.
    let of_word = |count: u64| count as f64 / counts.words as f64;
    let width = settings.width as f64;
    let gflops = 6.0 * width * of_word(counts.products) * speed / 1e9;
    let split = spent.split(counts.drawing / counts.words as f64 * words as f64);
    let figure = |key, value: f64, label: &str, unit: &str| Figure::new(key, json!(value)).line(label, value, unit);
    let share = |key, value: f64, label: &str, unit: &str| Figure::new(key, json!(value)).line(label, 100.0 * value, unit);
    let [peak_share, peak] = bench::of_peak(gflops, observer)?;
    Ok(Report {
        what: what(&job, &settings, train.batch.min(source.len())),
        figures: vec![
            figure("words_per_second", speed, "words a second", "of the text"),
            figure("kept_per_second", of_word(counts.kept) * speed, "  kept", "after subsampling"),
            figure(
                "pairs_per_second",
                of_word(counts.pairs) * speed,
                "  pairs",
                if bags(&settings) { "of a bag and its centre" } else { "of a word and a centre" },
            ),
            figure("gflops", gflops, "  speed", "GFLOP/s, 6 · width · pairs · (1 + negatives)"),
            peak_share,
            peak,
            figure("bytes_per_word", 8.0 * width * of_word(counts.rows), "bytes a word", "of rows read and written"),
            share("split.windows", split.windows, "drawing windows", "% of the threads' time"),
            share("split.negatives", split.negatives, "drawing negatives", "%"),
            share("split.training", split.training, "training rows", "%"),
            share("split.waiting", split.waiting, "waiting", "%, for the feed and at a step's end"),
            figure("peak_rss_mb", memory, "memory", "MB, the text apart"),
            figure("epoch_seconds", corpus.tokens() as f64 / speed, "an epoch", &format!("s of {} words", corpus.tokens())),
            figure("reading_seconds", reading, "reading the text", "s"),
            Figure::new("epoch_words", json!(corpus.tokens())),
            Figure::new("vocabulary", json!(corpus.vocabulary().len())),
            Figure::new("steps", json!(spent.steps)),
            Figure::new("seconds", json!(spent.seconds)),
        ],
        precision: if settings.isa() == "avx512bf16" { Precision::Bf16 } else { Precision::F32 },
        device: ctk_core::Device::Cpu.to_string(),
        threads: bench::threads(),
        isa: settings.isa(),
    })
}

/// The recipe with the changes of the command line.
fn changed(recipe: &Recipe, request: &Request) -> Result<Recipe> {
    let mut recipe = recipe.clone();
    for (name, value) in &request.changes {
        match *name {
            "batch" => recipe.set("train.batch", value)?,
            "seed" => recipe.set("train.seed", value)?,
            other => {
                return Err(Error::usage(format!("word2vec knows no --{other} to time"))
                    .hint("--set changes any key of a recipe, as in --set encoder.table.width=300"));
            }
        }
    }
    Ok(recipe)
}

fn what(job: &Word2VecJob, settings: &Settings, batch: usize) -> Vec<(&'static str, serde_json::Value)> {
    let recipe = job.recipe();
    let data = recipe.data.path.as_ref().map_or("generated".to_string(), |paths| paths.list().join(" "));
    let (loss, negatives) = match settings.contrast {
        Contrast::Noise { negatives, sharing, .. } => (json!(sharing), negatives),
        Contrast::Tree => (json!("hierarchical-softmax"), 0),
    };
    let buckets = settings.subwords.map_or(0, |subwords| subwords.buckets);
    vec![
        ("architecture", json!(recipe.pairs.architecture)),
        ("width", json!(settings.width)),
        ("window", json!(recipe.pairs.window)),
        ("negatives", json!(negatives)),
        ("sharing", loss),
        ("buckets", json!(buckets)),
        ("deterministic", json!(settings.shards.is_some())),
        ("data", json!(data)),
        ("batch", json!(batch)),
    ]
}

fn bags(settings: &Settings) -> bool {
    settings.pairs.architecture == Architecture::Cbow
}

thread_local! {
    // When this thread last left the feed, and in which step.
    static LEFT: Cell<Option<(usize, Instant)>> = const { Cell::new(None) };
}

/// Sums over the timed threads and steps, in nanoseconds.
#[derive(Default)]
struct Clock {
    /// Time within the feed.
    pulling: AtomicU64,
    /// Time between two calls of a thread, and the number of calls.
    training: AtomicU64,
    between: AtomicU64,
    /// Parts that were drawn.
    parts: AtomicU64,
}

/// The time that steps took.
struct Spent {
    steps: usize,
    seconds: f64,
    /// The sum over all threads.
    thread_seconds: f64,
    pulling: f64,
    training: f64,
    /// Whether other threads drew the windows, for which these waited.
    ahead: bool,
}

/// Fractions of the threads' time, 0 to 1.
#[derive(Debug)]
struct Split {
    windows: f64,
    negatives: f64,
    training: f64,
    waiting: f64,
}

impl Spent {
    /// `negatives` is the time for drawing them, in seconds.
    fn split(&self, negatives: f64) -> Split {
        let windows = if self.ahead { 0.0 } else { self.pulling };
        let share = |seconds: f64| (seconds / self.thread_seconds).clamp(0.0, 1.0);
        let negatives = negatives.min(self.training);
        Split {
            windows: share(windows),
            negatives: share(negatives),
            training: share(self.training - negatives),
            waiting: share(self.thread_seconds - windows - self.training),
        }
    }
}

/// Makes steps as training does: `steps`, or for the time [`LONG`], after [`WARM`] steps without timing.
fn time(learner: &mut Sparse, source: &Windows, order: &Order, train: &TrainRecipe, steps: Option<usize>) -> Result<Spent> {
    let (parts, key, clock) = (order.parts(), Key::new(train.seed), Clock::default());
    let draw = |unit: usize| order.draw(source, unit, key.of("views"));
    let loaders = train.loaders;
    // More epochs than will be reached.
    Loader::run(loaders, 2 * loaders.max(1), 0..usize::MAX, &draw, |loader| {
        let mut start = Instant::now();
        let mut done = 0;
        loop {
            let timed = done >= WARM;
            if done == WARM {
                start = Instant::now();
            }
            let pull = |part: usize| {
                let entered = Instant::now();
                if let Some((_, left)) = LEFT.take().filter(|(step, _)| timed && *step == done) {
                    clock.training.fetch_add(nanoseconds(entered - left), Ordering::Relaxed);
                    clock.between.fetch_add(1, Ordering::Relaxed);
                }
                let batch = loader.take(done * parts + part);
                let left = Instant::now();
                if timed {
                    clock.pulling.fetch_add(nanoseconds(left - entered), Ordering::Relaxed);
                    clock.parts.fetch_add(1, Ordering::Relaxed);
                }
                LEFT.set(Some((done, left)));
                batch
            };
            // A rate at which rows move but do not diverge.
            learner.step(&Feed::new(parts, parts, key.of("step").at(done as u64), &pull), RATE)?;
            done += 1;
            let made = done.saturating_sub(WARM);
            if made > 0 && steps.map_or(start.elapsed() >= LONG, |steps| made >= steps) {
                break;
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        let of = |value: &AtomicU64| value.load(Ordering::Relaxed) as f64;
        // No call follows a thread's last part of a step; it is assumed to take as long as the others.
        let training = of(&clock.training) / of(&clock.between).max(1.0) * of(&clock.parts);
        let threads = bench::threads().min(parts) as f64;
        Ok(Spent {
            steps: done - WARM,
            seconds,
            thread_seconds: seconds * threads,
            pulling: of(&clock.pulling) / 1e9,
            training: training / 1e9,
            ahead: loaders > 0,
        })
    })
}

const RATE: f64 = 0.025;

fn nanoseconds(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}

/// The blocks of the timed steps, in order.
fn blocks(order: &Order, steps: usize) -> impl Iterator<Item = (usize, u32)> {
    let per_epoch = order.steps();
    (WARM..WARM + steps).flat_map(move |step| {
        let (epoch, within) = (step / per_epoch, step % per_epoch);
        (0..order.parts()).flat_map(move |part| order.samples(epoch, within, part)).map(move |sample| (epoch, sample))
    })
}

/// Words of the text in the timed steps, dropped ones included.
fn words(corpus: &Corpus, order: &Order, steps: usize) -> Result<u64> {
    let mut buffer = Vec::new();
    let seen = |(_, sample): (usize, u32)| {
        Ok(corpus.block(sample as usize, &mut buffer)?.iter().filter(|id| **id != END).count() as u64)
    };
    let numbered: u64 = blocks(order, steps).map(seen).sum::<Result<u64>>()?;
    // Words that were too rare for the vocabulary are not in the numbers, but they were in the text.
    Ok((numbered as f64 * corpus.tokens() as f64 / corpus.vocabulary().total() as f64).round() as u64)
}

/// Counts over some of the blocks.
#[derive(Debug, Default, PartialEq)]
struct Counts {
    /// Words of the text.
    words: u64,
    /// Words that were kept, which are the centres.
    kept: u64,
    /// Pairs of a context (or a bag of contexts) and a centre.
    pairs: u64,
    /// Pairs of an input and an output vector whose product was computed.
    products: u64,
    /// Rows that were read and written.
    rows: u64,
    /// Seconds for drawing the negatives, on one thread.
    drawing: f64,
}

impl Counts {
    fn of(corpus: &Corpus, source: &Windows, order: &Order, settings: &Settings, steps: usize, key: Key) -> Result<Counts> {
        let vocabulary = corpus.vocabulary();
        let targets = settings.contrast.targets(vocabulary);
        let parts = settings.subwords.map(|subwords| Parts::new(&subwords, vocabulary.words()));
        let all: Vec<(usize, u32)> = blocks(order, steps).collect();
        let (mut counts, mut buffer) = (Counts::default(), Vec::new());
        let every = all.len().div_ceil(COUNTED).max(1);
        let rare = corpus.tokens() as f64 / vocabulary.total() as f64;
        let mut numbered = 0;
        for (epoch, sample) in all.into_iter().step_by(every) {
            numbered += corpus.block(sample as usize, &mut buffer)?.iter().filter(|id| **id != END).count();
            let batch = source.draw(&[sample], key.of("views").at(epoch as u64))?;
            batch.blocks.iter().for_each(|block| counts.add(block, &targets, parts.as_ref(), settings));
        }
        counts.words = (numbered as f64 * rare).round().max(1.0) as u64;
        Ok(counts)
    }

    fn add(&mut self, block: &Block, targets: &Targets, parts: Option<&Parts>, settings: &Settings) {
        let start = Instant::now();
        let mut outputs = 0;
        targets.draw(block, |ids, odd| {
            outputs += ids.iter().filter(|id| **id != NONE).count() as u64;
            black_box(odd);
        });
        self.drawing += start.elapsed().as_secs_f64();

        self.kept += block.ids.len() as u64;
        let mut inputs = 0;
        for window in block.windows() {
            let contexts = window.pairs() as u64;
            let pairs = if bags(settings) { contexts.min(1) } else { contexts };
            self.pairs += pairs;
            inputs += contexts;
            self.products += pairs
                * match targets {
                    Targets::Noise { negatives, .. } => 1 + *negatives as u64,
                    Targets::Tree(tree) => tree.path(block.ids[window.centre]).0.len() as u64,
                };
        }
        if targets.sharing() == Negatives::Grouped {
            // Once for all centres of a group.
            inputs = block.groups().filter_map(|group| Some(group.last()?.words.end - group.first()?.words.start)).sum::<usize>()
                as u64;
        }
        if let Some(parts) = parts {
            // Composed and given back once for each occurrence.
            inputs = block.ids.iter().map(|id| parts.of(*id).len() as u64).sum();
        }
        self.rows += inputs + outputs;
    }
}

#[cfg(test)]
mod tests {
    use ctk_core::observer::Silent;

    use super::super::frequency::Alias;
    use super::*;

    fn timed(sets: &[(&str, &str)]) -> Report {
        let mut recipe = Recipe::new("the yardstick", YARDSTICK);
        recipe.set("data.words", "60000").unwrap();
        sets.iter().for_each(|(key, value)| recipe.set(key, value).unwrap());
        run(&recipe, &Request { changes: Vec::new(), steps: Some(2), device: ctk_core::Device::Cpu }, &mut Silent).unwrap()
    }

    fn figure(report: &Report, key: &str) -> f64 {
        report.figures.iter().find(|figure| figure.key == key).unwrap().value.as_f64().unwrap()
    }

    #[test]
    fn the_split_is_a_whole_and_figures_agree() {
        for sets in [
            &[][..],
            &[("pairs.architecture", "cbow")],
            &[("pairs.negatives", "grouped")],
            &[("train.deterministic", "true")],
            &[("train.loaders", "1")],
            &[("loss.hierarchical-softmax", "{}")],
        ] {
            let report = timed(sets);
            let f = |key| figure(&report, key);
            let split: Vec<f64> = ["split.windows", "split.negatives", "split.training", "split.waiting"].map(f).to_vec();
            assert!(split.iter().all(|share| (0.0..=1.0).contains(share)), "{sets:?}: {split:?}");
            assert!((split.iter().sum::<f64>() - 1.0).abs() < 0.15, "{sets:?}: {split:?}");
            assert!(split[2] > 0.0 && f("kept_per_second") < f("words_per_second"), "{sets:?}");
            assert!((f("peak_share") * f("gemm_peak_gflops") / f("gflops") - 1.0).abs() < 1e-9);
            if sets.is_empty() {
                // Five negatives and the centre, 64 values, two operations, three products.
                assert!((f("gflops") * 1e9 / f("pairs_per_second") - 6.0 * 6.0 * 64.0).abs() < 1e-3);
            }
        }
    }

    #[test]
    fn counts_are_those_of_a_count_by_hand() {
        let block =
            Block { ids: vec![0, 1, 2, 3], radii: vec![1, 2, 1, 2], reach: 2, lines: vec![0..3, 3..4], negatives: Key::new(1) };
        let noise = || Alias::new(&[0.0, 0.0, 0.0, 0.0, 1.0, 1.0]);
        let settings = |architecture| Settings {
            width: 4,
            subwords: None,
            pairs: super::super::kernel::Pairs { architecture, exact: false },
            contrast: Contrast::Tree,
            rate: 0.1,
            shards: None,
            precision: Precision::F32,
        };
        let count = |sharing, architecture| {
            let mut counts = Counts::default();
            counts.add(&block, &Targets::Noise { noise: noise(), negatives: 1, sharing }, None, &settings(architecture));
            (counts.kept, counts.pairs, counts.products, counts.rows)
        };
        // Windows of one, two, one and no contexts; a centre and a negative each, also for the centre without contexts.
        assert_eq!(count(Negatives::Shared, Architecture::SkipGram), (4, 4, 8, 4 + 8));
        assert_eq!(count(Negatives::PerPair, Architecture::SkipGram), (4, 4, 8, 4 + 8));
        assert_eq!(count(Negatives::Shared, Architecture::Cbow), (4, 3, 6, 4 + 8));
    }
}
