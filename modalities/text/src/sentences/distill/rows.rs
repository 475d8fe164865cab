//! The rows of a static student before it has seen a text: its teacher's means of single pieces, fewer values by principal components,
//! weighted by frequency.

use candle_core::Tensor;
use ctk_core::Result;
use ctk_core::eval::Features;
use ctk_core::eval::pca::{self, Pca};

use super::recipe::Frequencies;
use super::teacher::Teacher;
use super::vocabulary::Vocabulary;

/// A student's table.
pub struct Rows {
    /// (tokens, width).
    pub table: Tensor,
    /// The share of the variance of the teacher's rows that is left.
    pub explained: f64,
}

/// The frequencies of a vocabulary's pieces: they add up to 1. `texts` are the tokens of texts, for [`Frequencies::Counts`]; a piece that
/// they do not have counts as half of one.
pub fn frequencies<'a>(by: Frequencies, pieces: usize, texts: impl Iterator<Item = &'a [u32]>) -> Option<Vec<f64>> {
    let counts: Vec<f64> = match by {
        Frequencies::None => return None,
        Frequencies::Ranks => (0..pieces).map(|number| 1.0 / (number as f64 + 2.0)).collect(),
        Frequencies::Counts => {
            let mut counts = vec![0.5; pieces];
            texts.flatten().for_each(|id| counts[*id as usize] += 1.0);
            counts
        }
    };
    let sum: f64 = counts.iter().sum();
    Some(counts.into_iter().map(|count| count / sum).collect())
}

/// The table for `vocabulary`: `by` projects rows; none: the pieces' own principal components, `width` of them. `frequencies` are the
/// pieces', and `a` is that of a / (a + p).
///
/// # Errors
/// More values than the teacher has, or than there are pieces; the teacher fails.
pub fn rows(
    teacher: &Teacher,
    vocabulary: &Vocabulary,
    by: Option<&Pca>,
    width: usize,
    frequencies: Option<&[f64]>,
    a: f64,
) -> Result<Rows> {
    let sequences: Vec<Vec<u32>> = vocabulary.rows.iter().flatten().cloned().collect();
    let names = vec![String::new(); sequences.len()];
    let outputs = Features { rows: teacher.pieces(&sequences)?, width: teacher.width(), names, ..Features::default() };
    let own;
    let pca = match by {
        Some(pca) => pca,
        None => {
            own = Pca::of(&outputs, width)?;
            &own
        }
    };
    let projected = pca.project(&outputs.rows, &pca::mean(&outputs)?)?;
    let mut projected = projected.chunks_exact(width);
    let mut table = Vec::with_capacity(vocabulary.rows.len() * width);
    for sequence in &vocabulary.rows {
        match sequence.as_ref().and_then(|_| projected.next()) {
            None => table.resize(table.len() + width, 0.0),
            Some(row) => table.extend_from_slice(row),
        }
    }
    let table = Tensor::from_vec(table, (vocabulary.rows.len(), width), &candle_core::Device::Cpu)?;
    let table = match frequencies {
        Some(frequencies) => by_frequency(&table, frequencies, a)?,
        None => table,
    };
    Ok(Rows { table, explained: pca.explained })
}

/// The table with each token's row multiplied by a / (a + p), where p is the token's frequency (SIF; Arora et al. 2017).
///
/// # Errors
/// The table is not of f32.
pub fn by_frequency(table: &Tensor, frequencies: &[f64], a: f64) -> Result<Tensor> {
    let (count, width) = table.dims2()?;
    let mut rows = table.flatten_all()?.to_vec1::<f32>()?;
    for (row, p) in rows.chunks_exact_mut(width).zip(frequencies) {
        row.iter_mut().for_each(|value| *value = (f64::from(*value) * (a / (a + p))) as f32);
    }
    Ok(Tensor::from_vec(rows, (count, width), &candle_core::Device::Cpu)?)
}
