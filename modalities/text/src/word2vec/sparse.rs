//! The sparse learner: rows that many threads train at once, each on parts that it pulls for itself.
//!
//! With one thread a run is reproducible bit for bit. With more, threads write rows without a lock (see
//! [`rows`](super::rows)), so equal seeds give equally good vectors, not equal bits: the one exception to ctk's rule.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::{Device, Tensor};
use ctk_core::checkpoint::{Reader, Writer};
use ctk_core::feed::Feed;
use ctk_core::learner::Learner;
use ctk_core::objective::Terms;
use ctk_core::rng::Key;
use ctk_core::{Context, Error, Result};
use rayon::prelude::*;

use super::kernel::{Kernel, Sum, Worker};
use super::recipe::Negatives;
use super::rows::Rows;
use super::rows::step::Tables;
use super::windows::Batch;
use crate::vocabulary::{Alias, Vocabulary};

/// Where the vectors go: `input`, (words, width).
pub const MODEL: &str = "model.safetensors";
/// Where the vectors go that they were contrasted with: `output`, (words, width).
pub const HEAD: &str = "head.safetensors";
/// The words, one a row.
pub const VOCABULARY: &str = "vocabulary.tsv";

/// Above so many words the loss is taken of one window in [`SAMPLE`]: a mean of hundreds of thousands needs no more.
const MANY: u64 = 1 << 20;
const SAMPLE: usize = 64;

/// The rate never falls below this share of its peak (word2vec.c).
const FLOOR: f64 = 1e-4;

/// What a learner needs to know beside its words.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Values a word.
    pub width: usize,
    /// Negatives a pair.
    pub negatives: usize,
    /// Whether a window's pairs share them.
    pub sharing: Negatives,
    /// The power of counts that negatives follow.
    pub power: f64,
    /// The peak rate.
    pub rate: f64,
}

/// Two tables of rows in training.
pub struct Sparse {
    vocabulary: Vocabulary,
    input: Rows,
    output: Rows,
    none: Rows,
    noise: Alias,
    settings: Settings,
    threads: usize,
}

impl Sparse {
    /// Input rows U(−½, ½)/width, output rows 0, trained by as many threads as rayon's pool has.
    ///
    /// # Errors
    /// The tables do not fit into memory.
    pub fn new(vocabulary: &Vocabulary, settings: Settings, key: Key) -> Result<Sparse> {
        let (count, width) = (vocabulary.len(), settings.width);
        Ok(Sparse {
            input: Rows::uniform(count, width, key.of("init"))?,
            output: Rows::zeros(count, width)?,
            none: Rows::zeros(1, width)?,
            noise: vocabulary.noise(settings.power),
            vocabulary: vocabulary.clone(),
            settings,
            threads: rayon::current_num_threads(),
        })
    }

    /// The same learner on `threads` threads.
    pub fn threads(self, threads: usize) -> Sparse {
        Sparse { threads: threads.max(1), ..self }
    }

    /// The vectors that are published, row by row.
    pub fn vectors(&self) -> Vec<f32> {
        self.input.to_vec()
    }

    /// The vectors they were contrasted with, row by row.
    pub fn outputs(&self) -> Vec<f32> {
        self.output.to_vec()
    }

    fn kernel(&self) -> Kernel<'_> {
        Kernel {
            tables: Tables { input: &self.input, output: &self.output, none: &self.none },
            noise: &self.noise,
            negatives: self.settings.negatives,
            sharing: self.settings.sharing,
            sample: if self.vocabulary.total() > MANY { SAMPLE } else { 1 },
        }
    }

    /// Pulls parts until none is left; says which ones it had.
    fn work(&self, feed: &Feed<Batch>, next: &AtomicUsize, rate: f32) -> Vec<(usize, Result<Sum>)> {
        let mut worker = Worker::new(self.kernel(), rate);
        let mut done = Vec::new();
        loop {
            let part = next.fetch_add(1, Ordering::Relaxed);
            if part >= feed.parts() {
                return done;
            }
            done.push((part, feed.part(part).map(|batch| train(&mut worker, &batch))));
        }
    }
}

fn train(worker: &mut Worker, batch: &Batch) -> Sum {
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

    /// One pass over the step's parts. The loss is the mean over its pairs, or a sample of them, each taken just before its own
    /// update; 0 where subsampling left no pair.
    fn step(&mut self, feed: &Feed<Batch>, rate: f64) -> Result<Terms> {
        let rate = rate.max(self.settings.rate * FLOOR) as f32;
        let next = AtomicUsize::new(0);
        let threads = self.threads.min(feed.parts());
        let mut parts = if threads <= 1 {
            self.work(feed, &next, rate)
        } else {
            let this = &*self;
            (0..threads).into_par_iter().with_max_len(1).flat_map_iter(|_| this.work(feed, &next, rate)).collect()
        };
        parts.sort_unstable_by_key(|(part, _)| *part);
        let mut total = Sum::default();
        for (_, sum) in parts {
            let sum = sum?;
            total.loss += sum.loss;
            total.pairs += sum.pairs;
        }
        let mean = total.loss / total.pairs.max(1) as f64;
        Ok(Terms { loss: Tensor::new(mean, &Device::Cpu)?, watch: Vec::new() })
    }

    fn save(&self, writer: &mut Writer) -> Result<()> {
        let table = |rows: &Rows| Tensor::from_vec(rows.to_vec(), (rows.len(), rows.width()), &Device::Cpu);
        writer.tensors(MODEL, &[("input".to_string(), table(&self.input)?)])?;
        writer.tensors(HEAD, &[("output".to_string(), table(&self.output)?)])?;
        writer.bytes(VOCABULARY, self.vocabulary.to_tsv().as_bytes())
    }

    fn load(&mut self, reader: &Reader) -> Result<()> {
        if reader.bytes(VOCABULARY)? != self.vocabulary.to_tsv().as_bytes() {
            return Err(Error::new("the corpus no longer has the vocabulary that this run began with")
                .hint("resume with the files and the recipe it was started with, or start a new run"));
        }
        fill(&self.input, &reader.tensors(MODEL)?, "input").at(MODEL)?;
        fill(&self.output, &reader.tensors(HEAD)?, "output").at(HEAD)
    }
}

fn fill(rows: &Rows, tensors: &HashMap<String, Tensor>, name: &str) -> Result<()> {
    let tensor = tensors.get(name).ok_or_else(|| Error::new(format!("the tensor `{name}` is missing")))?;
    let (count, width) = tensor.dims2()?;
    if (count, width) != (rows.len(), rows.width()) {
        let wanted = (rows.len(), rows.width());
        return Err(Error::new(format!("the tensor `{name}` has shape {:?}, the recipe wants {wanted:?}", (count, width))));
    }
    let values = tensor.flatten_all()?.to_vec1::<f32>()?;
    values.chunks_exact(width).enumerate().for_each(|(row, values)| rows.set(row, values));
    Ok(())
}

#[cfg(test)]
mod tests;
