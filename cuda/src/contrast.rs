//! Losses over similarities: anchors against candidates, with their gradient.

use std::ops::Range;

use ctk_kernels::{Device as _, Real};

use crate::calls::{Argument, MatrixProduct, Rules};
use crate::launch::{Cuda, at, int, named, ok, to};
use crate::memory::Block;

/// Anchors in a block: only so many rows of similarities are in memory at a time.
const BLOCK: usize = 512;

/// The label of rows that are no anchor's positives.
pub const NO_LABEL: u32 = u32::MAX;

/// Which candidates are in the denominator of an anchor's softmax: the numbers of `contrast.cu`, in its order. An anchor itself never is, and
/// never is its own positive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denominator {
    /// Positives and negatives.
    All,
    /// Negatives.
    Negatives,
    /// One for each positive: it and the negatives.
    Each,
    /// Positives, and candidates whose label is [`NO_LABEL`]; others are left out.
    Unlabelled,
}

/// A loss over m rows, and k rows of a memory as further candidates. A candidate with the anchor's label is its positive; all others are negatives.
#[derive(Clone, Debug)]
pub struct Contrast<'a> {
    /// The labels of the rows.
    pub labels: &'a [u32],
    /// The labels of the memory's rows.
    pub memory: &'a [u32],
    /// The weight of a positive of each row, as an anchor.
    pub weights: &'a [f64],
    /// Values in a row.
    pub width: usize,
    /// What similarities are divided by.
    pub temperature: f64,
    /// Which rows are anchors of which candidates among the rows.
    pub sides: &'a [(Range<usize>, Range<usize>)],
    /// Which candidates are in the denominators.
    pub denominator: Denominator,
}

impl Cuda {
    /// The loss of `rows` (m, width) with the candidates of `memory` (k, width), and its gradient with respect to the rows. With
    /// s = anchor·candidate/temperature, w an anchor's weight and p its positives, the loss is the sum over anchors of
    ///
    /// ```text
    /// w · Σ_p (log Σ exp s − s_p)                 the inner sum over the denominator
    /// w · Σ_p log(1 + exp(log Σ exp s − s_p))     for Denominator::Each
    /// ```
    ///
    /// # Panics
    /// If there are not as many labels, weights and values as rows.
    pub fn contrast<R: Real>(&self, of: &Contrast, rows: &[R], memory: &[R]) -> (f64, Vec<R>) {
        let (m, k, width) = (of.labels.len(), of.memory.len(), of.width);
        assert!(rows.len() == m * width && of.weights.len() == m && memory.len() == k * width, "as many values as rows");
        let (rows, memory) = (self.uploaded(rows), self.uploaded(memory));
        let (labels, memory_labels) = (self.uploaded(of.labels), self.uploaded(of.memory));
        let weights = self.uploaded(of.weights);
        let mut sum = self.block::<f64>(1);
        let (losses, gradient) = (self.zeros::<f64>(m * of.sides.len()), self.zeros::<R>(m * width));
        let row = |block: &Block<R>, number: usize| block.at + (number * width * size_of::<R>()) as u64;
        for (side, (anchors, candidates)) in of.sides.iter().enumerate() {
            let (n, side) = (candidates.len(), losses.at + (side * m * size_of::<f64>()) as u64);
            let [near, far] = [n, k].map(|columns| self.block::<R>(BLOCK.min(anchors.len()) * columns));
            for first in anchors.clone().step_by(BLOCK) {
                let (b, own, others) = (BLOCK.min(anchors.end - first), row(&rows, first), row(&rows, candidates.start));
                self.similarities::<R>([b, n, width], [false, true], [own, others], 0.0, near.at);
                self.similarities::<R>([b, k, width], [false, true], [own, memory.at], 0.0, far.at);
                let arguments = [
                    Argument::Address(near.at),
                    Argument::Address(far.at),
                    int(n),
                    int(k),
                    int(first),
                    int(candidates.start),
                    at(labels.view()),
                    at(memory_labels.view()),
                    at(weights.view()),
                    Argument::Double(1.0 / of.temperature),
                    Argument::Int(of.denominator as i32),
                    Argument::Address(side),
                ];
                self.launch(&named("contrast", R::KIND), [b, 1], &arguments);
                // The gradient of these anchors, from all candidates; then that of the candidates, from these anchors.
                let (of_own, of_others) = (row(&gradient, first), row(&gradient, candidates.start));
                self.similarities::<R>([b, width, n], [false, false], [near.at, others], 1.0, of_own);
                self.similarities::<R>([b, width, k], [false, false], [far.at, memory.at], 1.0, of_own);
                self.similarities::<R>([n, width, b], [true, false], [near.at, own], 1.0, of_others);
            }
        }
        let arguments = [at(losses.view()), int(m * of.sides.len()), int(1), to(&sum.view_mut())];
        self.launch("sum_parts", [1, 1], &arguments);
        (self.download(sum.view())[0], self.download(gradient.view()))
    }

    /// A product of matrices, exact whatever the device's rules: similarities are divided by a small temperature.
    fn similarities<R: Real>(&self, shape: [usize; 3], turned: [bool; 2], from: [u64; 2], beta: f64, into: u64) {
        if shape.contains(&0) {
            return;
        }
        let rules = Rules { exact: true, ..self.rules() };
        let product = MatrixProduct { shape, turned, kind: R::KIND, to: R::KIND, beta, rules };
        ok(self.memory.call(|| "similarities".into(), |calls| calls.multiply(&product, from, into)));
    }
}
