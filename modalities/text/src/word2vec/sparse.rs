//! Trains word2vec: a learner whose tables of input and output vectors many threads update at once, and which saves and loads them.
//! A step is sparse: it reads and writes only the rows of the words that it meets.
//!
//! Each thread takes parts of a step (windows of the text) from the feed and trains on them. With one thread a run is reproducible bit for
//! bit. With more, threads write rows without a lock (see [`rows`](super::rows)), so equal seeds give equally good vectors and not equal
//! bits. Everywhere else in ctk equal seeds give equal bits; runs of word2vec that need them train in [`shards`].

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::{Device, Tensor};
use ctk_core::data::feed::Feed;
use ctk_core::device;
use ctk_core::nn::pass::Precision;
use ctk_core::objective::Terms;
use ctk_core::rng::Key;
use ctk_core::store::checkpoint::{Reader, Writer};
use ctk_core::train::learner::Learner;
use ctk_core::{Context, Error, Result};
use ctk_texts::corpus::Found;
use ctk_texts::vocabulary::Vocabulary;
use rayon::prelude::*;

use super::forecast;
use super::kernel::{Kernel, NoUsageCounts, Pairs, Sum, Touch, Worker};
use super::parts::Parts;
use super::recipe::Contrast;
use super::rows::Rows;
use super::rows::stepper::Tables;
use super::shards::{self, Shard, Shards};
use super::targets::Targets;
use super::windows::Batch;
use crate::subwords::Subwords;

/// The file of the published vectors: `input`, (words, width).
pub const MODEL: &str = "model.safetensors";
/// The file of the output table: `output`, (words, width).
pub const HEAD: &str = "head.safetensors";
/// The file of the words, one for each row.
pub const VOCABULARY: &str = "vocabulary.tsv";
/// The file of the phrases found in the text, if there are any.
pub const PHRASES: &str = "phrases.tsv";

/// Above so many words the loss is computed for one window in [`SAMPLE`]: a mean over hundreds of thousands needs no more.
const MANY: u64 = 1 << 20;
const SAMPLE: usize = 64;

/// The rate never falls below this fraction of its peak (word2vec.c).
const FLOOR: f64 = 1e-4;

/// The settings of a learner.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Values in a word's vector.
    pub width: usize,
    /// The n-grams that words are composed of, with subwords.
    pub subwords: Option<Subwords>,
    /// How words are paired.
    pub pairs: Pairs,
    /// What they are contrasted with.
    pub contrast: Contrast,
    /// The peak learning rate.
    pub rate: f64,
    /// The number of shards for the same bits on any number of threads; none: lock-free training.
    pub shards: Option<usize>,
    /// The type of products, if the machine can choose.
    pub precision: Precision,
}

impl Settings {
    /// The vector instructions that steps use.
    pub fn isa(&self) -> &'static str {
        match device::isa() {
            "avx512bf16" if self.precision == Precision::F32 || !device::quick_pairs() => "avx512",
            isa => isa,
        }
    }
}

/// Both tables of another run.
pub struct Vectors {
    /// Each word's row.
    pub place: HashMap<String, usize>,
    /// The published vectors: (words, width), with subwords also a row for each bucket.
    pub input: Vec<f32>,
    /// The output table: (words, width).
    pub output: Vec<f32>,
    /// Values in a row.
    pub width: usize,
}

/// Two tables of rows in training.
pub struct Sparse {
    vocabulary: Vocabulary,
    phrases: Found,
    input: Rows,
    output: Rows,
    none: Rows,
    targets: Targets,
    parts: Option<Parts>,
    // The loss is computed for one window in so many.
    sample: usize,
    settings: Settings,
    threads: usize,
    shards: Option<Shards>,
}

impl Sparse {
    /// Input rows from U(−1, 1)/width, output rows 0, trained by as many threads as rayon's pool has.
    ///
    /// # Errors
    /// The tables do not fit into memory.
    pub fn new(vocabulary: &Vocabulary, settings: Settings, key: Key) -> Result<Sparse> {
        let width = settings.width;
        let targets = settings.contrast.targets(vocabulary);
        let buckets = settings.subwords.map_or(0, |subwords| subwords.buckets);
        forecast::check(vocabulary.len(), targets.rows(vocabulary.len()), &settings)?;
        let input = Rows::uniform(vocabulary.len() + buckets, width, key.of("init"))?;
        let (output, none) = (Rows::zeros(targets.rows(vocabulary.len()), width)?, Rows::zeros(1, width)?);
        let tables = Tables { input: &input, output: &output, none: &none };
        let shards = settings.shards.map(|count| Shards::new(count, tables)).transpose()?;
        Ok(Sparse {
            input,
            output,
            none,
            shards,
            targets,
            parts: settings.subwords.map(|subwords| Parts::new(&subwords, vocabulary.words())),
            sample: if vocabulary.total() > MANY { SAMPLE } else { 1 },
            vocabulary: vocabulary.clone(),
            phrases: Found::default(),
            settings,
            threads: rayon::current_num_threads(),
        })
    }

    /// The same learner, which stores these phrases in its checkpoints.
    pub fn phrases(self, phrases: Found) -> Sparse {
        Sparse { phrases, ..self }
    }

    /// The same learner on `threads` threads.
    pub fn threads(self, threads: usize) -> Sparse {
        Sparse { threads: threads.max(1), ..self }
    }

    /// Replaces the rows of the words that another run has by that run's rows.
    pub(crate) fn begin_with(&mut self, vectors: &Vectors) {
        self.shards.iter_mut().for_each(Shards::forget);
        for (row, word) in self.vocabulary.words().iter().enumerate() {
            if let Some(&from) = vectors.place.get(word) {
                let values = from * vectors.width..(from + 1) * vectors.width;
                self.input.set(row, &vectors.input[values.clone()]);
                self.output.set(row, &vectors.output[values]);
            }
        }
        let buckets = vectors.input.chunks_exact(vectors.width).skip(vectors.place.len());
        buckets.zip(self.vocabulary.len()..).for_each(|(values, row)| self.input.set(row, values));
    }

    /// The published vectors, a row for each word; with subwords, the means.
    pub fn vectors(&self) -> Vec<f32> {
        let rows = self.input.to_vec();
        match &self.parts {
            Some(parts) => parts.means(&rows, self.settings.width),
            None => rows,
        }
    }

    /// The output table, row by row.
    pub fn outputs(&self) -> Vec<f32> {
        self.output.to_vec()
    }

    fn tables(&self) -> Tables<'_> {
        Tables { input: &self.input, output: &self.output, none: &self.none }
    }

    fn kernel(&self) -> Kernel<'_> {
        Kernel {
            tables: self.tables(),
            parts: self.parts.as_ref(),
            targets: &self.targets,
            pairs: self.settings.pairs,
            sample: self.sample,
            isa: self.settings.isa(),
        }
    }

    /// Threads take parts until none is left, and train the same rows.
    fn lock_free(&self, feed: &Feed<Batch>, rate: f32) -> Vec<(usize, Result<Sum>)> {
        let next = AtomicUsize::new(0);
        let work = |_| {
            let mut worker = Worker::new(self.kernel(), NoUsageCounts, rate);
            let mut done = Vec::new();
            loop {
                let part = next.fetch_add(1, Ordering::Relaxed);
                if part >= feed.parts() {
                    return done;
                }
                done.push((part, feed.part(part).map(|batch| train(&mut worker, &batch))));
            }
        };
        match self.threads.min(feed.parts()) {
            0 | 1 => work(0),
            threads => (0..threads).into_par_iter().with_max_len(1).flat_map_iter(work).collect(),
        }
    }

    /// Each shard trains its parts on its own replicas. Rows of frequent words, which many windows have, are merged every few blocks.
    fn sharded(&self, shards: &mut Shards, feed: &Feed<Batch>, rate: f32) -> Vec<(usize, Result<Sum>)> {
        shards.begin(self.tables());
        let (count, mut done) = (shards.count(), Vec::new());
        let rounds = feed.parts().div_ceil(count * shards::ROUND);
        for round in 0..rounds {
            let parts = round * count * shards::ROUND..feed.parts().min((round + 1) * count * shards::ROUND);
            let work = |(number, shard): (usize, &mut Shard)| {
                let (tables, counting) = shard.private(&self.none);
                let mut worker = Worker::new(Kernel { tables, ..self.kernel() }, counting, rate);
                let parts = (parts.start + number..parts.end).step_by(count);
                parts.map(|part| (part, feed.part(part).map(|batch| train(&mut worker, &batch)))).collect::<Vec<_>>()
            };
            if self.threads == 1 {
                done.extend(shards.each().iter_mut().enumerate().flat_map(work));
            } else {
                done.par_extend(shards.each().par_iter_mut().enumerate().with_max_len(1).flat_map_iter(work));
            }
            let all = (round + 1).is_multiple_of(shards::ROUNDS) || round + 1 == rounds;
            shards.merge(self.tables(), rate, all);
        }
        done
    }
}

fn train<T: Touch>(worker: &mut Worker<T>, batch: &Batch) -> Sum {
    let mut sum = Sum::default();
    for block in &batch.blocks {
        let part = worker.block(block);
        sum.loss += part.loss;
        sum.pairs += part.pairs;
    }
    sum
}

impl Learner for Sparse {
    type Batch = Batch;

    /// One pass over the step's parts. The loss is the mean over its pairs, or a sample of them, each computed just before its own update;
    /// 0 if subsampling left no pair.
    fn step(&mut self, feed: &Feed<Batch>, rate: f64) -> Result<Terms> {
        let rate = rate.max(self.settings.rate * FLOOR) as f32;
        let mut shards = self.shards.take();
        let mut parts = match &mut shards {
            Some(shards) => self.sharded(shards, feed, rate),
            None => self.lock_free(feed, rate),
        };
        self.shards = shards;
        parts.sort_unstable_by_key(|(part, _)| *part);
        let mut total = Sum::default();
        for (_, sum) in parts {
            let sum = sum?;
            total.loss += sum.loss;
            total.pairs += sum.pairs;
        }
        let mean = total.loss / total.pairs.max(1) as f64;
        Ok(Terms::of(Tensor::new(mean, &Device::Cpu)?))
    }

    fn save(&self, writer: &mut Writer) -> Result<()> {
        let table = |rows: &Rows| Tensor::from_vec(rows.to_vec(), (rows.len(), rows.width()), &Device::Cpu);
        writer.tensors(MODEL, &[("input".to_string(), table(&self.input)?)])?;
        writer.tensors(HEAD, &[("output".to_string(), table(&self.output)?)])?;
        if !self.phrases.is_empty() {
            writer.bytes(PHRASES, self.phrases.to_tsv().as_bytes())?;
        }
        writer.bytes(VOCABULARY, self.vocabulary.to_tsv().as_bytes())
    }

    fn load(&mut self, reader: &Reader) -> Result<()> {
        if reader.bytes(VOCABULARY)? != self.vocabulary.to_tsv().as_bytes() {
            return Err(Error::new("the corpus no longer has the vocabulary that this run began with")
                .hint("resume with the files and the recipe it was started with, or start a new run"));
        }
        self.shards.iter_mut().for_each(Shards::forget);
        fill(&self.input, reader, MODEL, "input")?;
        fill(&self.output, reader, HEAD, "output")
    }
}

/// The table `name` of a checkpoint's `file`: (rows, width).
///
/// # Errors
/// The file is missing or damaged, or the tensor has another shape.
pub fn table(reader: &Reader, file: &str, name: &str) -> Result<Tensor> {
    let missing = || Error::new(format!("the tensor `{name}` is missing"));
    let tensor = reader.tensors(file)?.remove(name).ok_or_else(missing).at(file)?;
    match tensor.dims() {
        [_, _] => Ok(tensor),
        other => Err(Error::new(format!("the tensor `{name}` has shape {other:?}, not rows and a width")).at(file)),
    }
}

fn fill(rows: &Rows, reader: &Reader, file: &str, name: &str) -> Result<()> {
    let tensor = table(reader, file, name)?;
    let (count, width) = tensor.dims2()?;
    if (count, width) != (rows.len(), rows.width()) {
        let wanted = (rows.len(), rows.width());
        return Err(
            Error::new(format!("the tensor `{name}` has shape {:?}, the recipe wants {wanted:?}", (count, width))).at(file)
        );
    }
    let values = tensor.flatten_all()?.to_vec1::<f32>()?;
    values.chunks_exact(width).enumerate().for_each(|(row, values)| rows.set(row, values));
    Ok(())
}

#[cfg(test)]
mod tests;
