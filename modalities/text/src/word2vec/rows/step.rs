//! One training step on shared rows: up to twelve input rows against six output rows; all gradients are computed before any row changes.
//!
//! ```text
//! sᵢⱼ = vᵢ·uⱼ      gᵢⱼ = rateᵢⱼ (yⱼ − σ(sᵢⱼ))      vᵢ += Σⱼ gᵢⱼ uⱼ      uⱼ += Σᵢ gᵢⱼ vᵢ
//! ```
//!
//! with yⱼ = 1 for a word that was seen and 0 for noise, or the label of a turn in a tree. This is the window step of HogBatch (Ji et al.
//! 2016, "Parallelizing Word2Vec in Shared and Distributed Memory"): a small matrix product where word2vec.c has many dot products. `x86`
//! has it in vector instructions; [`portable`](super::portable) is the same in plain Rust, which Miri can run.
//!
//! An input row need not be a row of the table. A bag of words (CBOW), and a word composed of subwords, is a temporary row, the mean of its
//! parts' rows. It is trained in the same way, and its change is then given back to the parts. The [`Stepper`] finds all rows.
//!
//! [`Stepper`]: super::stepper::Stepper

use super::{LANES, Lane, Line, Rows, portable};

/// The largest number of input rows in a step: the contexts of two neighbours whose windows have five words to each side.
pub const CONTEXTS: usize = 12;
/// Output rows in a step: the centre and five negatives.
pub const OUTPUTS: usize = 6;
/// Stands for no output: a row of zeros that is private to a thread.
pub const NONE: u32 = u32::MAX;
/// Neighbouring centres that may share a step.
pub const GROUP: usize = 2;

/// A line of numbers for two contexts: `OUTPUTS` each, the rest unused.
pub(super) type Two = [f32; LANES];

#[repr(align(64))]
#[derive(Clone, Copy)]
pub(super) struct Aligned<T>(pub(super) T);

/// The inputs and results of a step.
#[repr(C, align(64))]
pub(super) struct Step {
    /// rateᵢⱼ, two contexts in a line.
    pub rates: [Two; CONTEXTS / 2],
    /// yⱼ for two contexts.
    pub labels: Two,
    /// sᵢⱼ, two contexts in a line.
    pub scores: [Two; CONTEXTS / 2],
    /// gᵢⱼ, two contexts in a line.
    pub slopes: [Two; CONTEXTS / 2],
    /// gᵢⱼ in pairs of bf16, two contexts in two lines.
    pub pairs: [[[u32; LANES]; 2]; CONTEXTS / 2],
    /// The pointers to the contexts' rows, `count` of them.
    pub contexts: *const *const Line,
    /// The pointers to the outputs' rows.
    pub outputs: *const [*const Line; OUTPUTS],
    /// Pointers to output rows that a later step will need, for prefetching.
    pub later: *const [*const Line; OUTPUTS],
    /// An input row that a later step will need, for prefetching.
    pub later_input: *const Line,
    /// The number of contexts, 1 to [`CONTEXTS`].
    pub count: usize,
    /// The number of half lines (8 floats) of a row that hold values.
    pub halves: usize,
    /// The parts of a bag.
    pub words: Vec<*const Line>,
    /// The fraction of the mean's change that each part of a bag gets.
    pub back: f32,
    /// Two private rows: the mean of a bag as it was, and as it is trained.
    pub bag: [*const Line; 2],
    pub local: Vec<Lane>,
    /// The outputs in pairs of bf16: the values of two neighbouring lines.
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    pub packed: Vec<[std::arch::x86_64::__m512i; OUTPUTS]>,
}

impl Step {
    /// A step at rate `rate` without contexts yet, on rows like the one of `none`; the first `seen` of its outputs are words that were
    /// seen.
    pub fn new(none: &Rows, rate: f32, seen: usize) -> Step {
        let nothing = none.row(0);
        Step {
            rates: [two([rate; OUTPUTS]); CONTEXTS / 2],
            labels: two(labels(seen)),
            scores: [[0.0; LANES]; CONTEXTS / 2],
            slopes: [[0.0; LANES]; CONTEXTS / 2],
            pairs: [[[0; LANES]; 2]; CONTEXTS / 2],
            contexts: std::ptr::null(),
            outputs: std::ptr::null(),
            later: std::ptr::null(),
            later_input: nothing,
            count: 0,
            halves: none.width().div_ceil(LANES / 2),
            words: Vec::new(),
            back: 1.0,
            bag: [nothing; 2],
            local: Vec::new(),
            #[cfg(all(target_arch = "x86_64", not(miri)))]
            // SAFETY: a vector of integers is valid with any bits, all zeros too.
            packed: vec![unsafe { std::mem::zeroed() }; none.lanes() / 2],
        }
    }

    /// Cache lines in a row.
    pub fn lanes(&self) -> usize {
        self.halves.div_ceil(2)
    }
}

/// # Safety
/// `contexts`, `outputs` and `later` must point to live arrays of pointers, the first one to `count` of them, 1 to [`CONTEXTS`]. The
/// pointers in `contexts`, `outputs`, `words` and `bag` must point to live rows of `halves` half lines that are accessed only by atomics
/// (or by instructions that act like them); those in `later` are only prefetched. The machine must have the instructions that the function
/// is compiled for.
pub(super) type StepFn = unsafe fn(&mut Step);

/// The functions of an instruction set.
#[derive(Clone, Copy)]
pub(super) struct Ways {
    /// Trains `contexts` against `outputs`.
    pub contexts: StepFn,
    /// Writes the mean of `words` to both rows of `bag`.
    pub gather: StepFn,
    /// Adds the change of the second row of `bag` from the first, times `back`, to each of `words`.
    pub scatter: StepFn,
}

/// Weights and labels of outputs, if not all count once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OutputWeights {
    /// The weight of each output; one with weight 0 may be [`NONE`].
    pub weights: [f32; OUTPUTS],
    /// The label yⱼ of each output.
    pub labels: [f32; OUTPUTS],
}

/// The labels yⱼ if outputs 0..`seen` are words that were seen, and the rest is noise.
pub fn labels(seen: usize) -> [f32; OUTPUTS] {
    std::array::from_fn(|j| f32::from(u8::from(j < seen)))
}

/// `$ways` with `$width` the number of half lines if that is a usual one, else 0, so that loops are unrolled for usual widths.
macro_rules! by_width {
    ($halves:expr, $width:ident => $ways:expr) => {
        by_width!(@ $halves, $width => $ways, 13 16 25 32 38) // 100, 128, 200, 256 and 300 values
    };
    (@ $halves:expr, $width:ident => $ways:expr, $($usual:literal)*) => {
        match $halves {
            $($usual => {
                const $width: usize = $usual;
                $ways
            })*
            _ => {
                const $width: usize = 0;
                $ways
            }
        }
    };
}

/// `$run` with `$m` the number of contexts.
macro_rules! by_count {
    ($count:expr, $m:ident => $run:expr) => {
        by_count!(@ $count, $m => $run, 1 2 3 4 5 6 7 8 9 10 11 12)
    };
    (@ $count:expr, $m:ident => $run:expr, $($some:literal)*) => {
        match $count {
            $($some => {
                const $m: usize = $some;
                $run
            })*
            _ => unreachable!("a step has 1 to 12 contexts"),
        }
    };
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
pub(super) use {by_count, by_width};

/// Numbers for each output, for two contexts.
pub(super) fn two(each: [f32; OUTPUTS]) -> Two {
    std::array::from_fn(|lane| if lane < 2 * OUTPUTS { each[lane % OUTPUTS] } else { 0.0 })
}

impl Step {
    /// −Σ log σ(±s) of the step that was run at `rate`, with each pair weighted by rateᵢⱼ/`rate`.
    pub fn loss(&self, rate: f32) -> f64 {
        // log(1 + eˣ) = max(x, 0) + log(1 + e^−|x|). One logarithm serves most terms: that of the product, whose factors are at most 2.
        let (mut sum, mut product) = (0.0, 1.0);
        for i in 0..self.count {
            for lane in i % 2 * OUTPUTS..(i % 2 + 1) * OUTPUTS {
                let (score, weight) = (self.scores[i / 2][lane], self.rates[i / 2][lane] / rate);
                let against = if self.labels[lane] > 0.5 { -score } else { score };
                let factor = f64::from(1.0 + (-against.abs()).exp());
                sum += f64::from(weight * against.max(0.0));
                match weight {
                    1.0 => product *= factor,
                    _ => sum += f64::from(weight) * factor.ln(),
                }
            }
        }
        sum + product.ln()
    }
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
pub(super) fn choose(isa: &str, halves: usize) -> Ways {
    // Checked again, because a name alone must not lead to instructions that the machine lacks.
    let narrow = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    let wide =
        is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512dq") && is_x86_feature_detected!("avx512vl");
    if isa == "avx512bf16" && narrow && wide && is_x86_feature_detected!("avx512bf16") {
        return super::bf16::ways(halves);
    }
    if isa.starts_with("avx512") && narrow && wide {
        return super::x86::avx512(halves);
    }
    if isa.starts_with("avx") && narrow {
        return super::x86::avx2(halves);
    }
    portable::WAYS
}

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
pub(super) fn choose(_: &str, _: usize) -> Ways {
    portable::WAYS
}
