//! Multiple negatives ranking (Henderson et al. 2017, section 4.4; sentence-transformers' `MultipleNegativesRankingLoss`).
//!
//! View 0 are anchors, view 1 their positives, and every further view hard negatives. With u, v and h their N rows each, of length 1, and
//! s(a, c) = a·c/T, each sample's positive must be found among candidates:
//!
//! ```text
//! forth   L = 1/N Σᵢ (log Z(uᵢ; v, h) − s(uᵢ, vᵢ))          Z(a; C) = Σ_{c∈C} exp s(a, c)
//! back    L = 1/N Σᵢ (log Z(vᵢ; u) − s(vᵢ, uᵢ))             both: the mean of forth and back
//! all     L = 1/N Σᵢ (log (Z(uᵢ; v, h) + Z(uᵢ; u without uᵢ) + Z(vᵢ; u) + Z(vᵢ; v, h without sample i's)) − s(uᵢ, vᵢ))
//!
//! ∂L/∂s(a, c) = (P − [(a, c) = (uᵢ, vᵢ)]) / N               P the softmax over all that is in sample i's logarithm
//! ∂L/∂a = 1/T Σ_c ∂L/∂s(a, c)·c                             ∂L/∂c = 1/T Σ_a ∂L/∂s(a, c)·a
//! ```
//!
//! `back` has no hard negatives, as in `MultipleNegativesSymmetricRankingLoss`. `all` is GTE's loss (Li et al. 2023): the pair
//! itself is in its logarithm twice, so that it is never below ln 2.
//!
//! False negatives are left out of the logarithm. Never left out is a sample's own pair. Left out are candidates that show the same as the
//! sample's anchor or its positive, and, with a `margin` m, candidates with a·c > uᵢ·vᵢ + m (NV-Retriever, Moreira et al. 2024;
//! GISTEmbed, Solatorio 2024; the trained network is its own guide). Which these are is constant in the gradient.
//!
//! InfoNCE is `both` without hard negatives. Over several ranks, every rank computes the loss of all rows and keeps its own rows' gradient.

use std::ops::Range;

use candle_core::{DType, Tensor};
use ctk_cuda::{Contrast, Denominator, NO_LABEL};
use ctk_kernels::{Candidates, Judge, Ranked, Ranks, Real};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::contrast::{BLOCK, numbers_over_ranks, on_cuda, paired};
use super::spec::{Checks, EmbeddingSpace, Spec};
use super::{Inputs, MatryoshkaRecipe, Objective, Terms, Unit};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::model::embeddings::EmbeddedGradient;
use crate::nn::params::Scope;
use crate::nn::tensors;
use crate::world::Gathered;

/// What is ranked for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Directions {
    /// Positives and hard negatives for each anchor.
    Forth,
    /// The mean of that and of anchors for each positive.
    Both,
    /// Anchors, positives and hard negatives for each pair, in one softmax (GTE).
    All,
}

/// `[loss.ranking]` (Henderson et al. 2017).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RankingRecipe {
    /// What cosines are multiplied by: one over the temperature.
    pub scale: f64,
    /// What is ranked: `forth` the positive for each anchor, `both` also the anchor for each positive, `all` each pair among all views.
    pub directions: Directions,
    /// Leaves out a candidate whose cosine is larger than the positive's by more than this; it may be negative. Default: leaves out none.
    pub margin: Option<f64>,
    /// Also at smaller widths.
    pub matryoshka: Option<MatryoshkaRecipe>,
}

impl Default for RankingRecipe {
    fn default() -> Self {
        RankingRecipe { scale: 20.0, directions: Directions::Forth, margin: None, matryoshka: None }
    }
}

impl Spec for RankingRecipe {
    fn check(&self, checks: &Checks) -> Result<()> {
        checks.positive("scale", self.scale, "; 20 is usual, one over a temperature of .05")?;
        let sound = self.margin.is_none_or(|margin| (-2.0..=2.0).contains(&margin));
        checks.require(sound, "margin", "must be -2 to 2: it is a difference of two cosines")
    }

    fn build(&self, _: &EmbeddingSpace, _: Scope) -> Result<Box<dyn Objective>> {
        let (temperature, directions, margin) = (1.0 / self.scale, self.directions, self.margin);
        Ok(Box::new(Ranking { temperature, directions, margin, judge: Judge::Softmax }))
    }

    fn matryoshka(&self) -> Option<&MatryoshkaRecipe> {
        self.matryoshka.as_ref()
    }
}

/// Multiple negatives ranking.
pub struct Ranking {
    /// Temperature by which cosines are divided.
    pub temperature: f64,
    /// What is ranked for what.
    pub directions: Directions,
    /// By how much a candidate's cosine may exceed the positive's.
    pub margin: Option<f64>,
    /// How candidates are judged: together, or each by itself.
    pub judge: Judge,
}

impl Objective for Ranking {
    /// `extras` has the mean cosine of positive pairs and, if candidates can be left out, the share of them that is (`masked`).
    fn loss(&self, inputs: &Inputs) -> Result<Terms> {
        let views: Vec<&Tensor> =
            (0..inputs.online.len()).map(|view| Ok(&inputs.online.view(view)?.query)).collect::<Result<_>>()?;
        Ok(self.of(inputs, &views)?.0)
    }
}

/// The derivatives of a loss with respect to numbers that may be learned.
pub(super) struct Slopes {
    /// With respect to −log T. Not for [`Directions::All`], where anchors are candidates of each other.
    pub sharpness: f64,
    /// With respect to the bias of a sigmoid.
    pub bias: f64,
}

/// Some of a softmax's logits: the similarities of rows with candidates.
#[derive(Clone)]
struct Part {
    /// The row that is sample 0's: 0 for anchors, N for positives.
    rows: usize,
    /// The candidates.
    candidates: Range<usize>,
    /// Whether candidates of the row's own sample are left out.
    others: bool,
}

/// The rows of all views of all ranks: view after view, N of each.
struct Rows<'a> {
    /// (views · N, width), of length 1.
    z: &'a Tensor,
    n: usize,
    /// What each row shows; empty if that is not known.
    contents: &'a [u32],
}

/// What was found for all samples.
struct Found {
    /// The sum of the losses.
    loss: Tensor,
    /// The gradient of their mean with respect to the rows.
    gradient: Tensor,
    /// The mean cosine of pairs.
    similarity: f64,
    /// Candidates that are no sample's own, and those of them that were left out.
    candidates: f64,
    masked: f64,
    /// The derivative of the sum with respect to the bias.
    bias: f64,
}

impl Ranking {
    /// The loss of `views`: anchors, positives, and any number of hard negatives.
    pub(super) fn of(&self, inputs: &Inputs, views: &[&Tensor]) -> Result<(Terms, Slopes)> {
        let contents = &inputs.known.contents;
        let [anchors, positives, ..] = views else {
            let what = format!("this loss compares anchors with positives, and the batch has {} view", views.len());
            return Err(Error::usage(what).hint("give two views of each sample or more; further ones are hard negatives"));
        };
        let own = paired(anchors, positives)?.0;
        views.iter().try_for_each(|view| paired(anchors, view).map(drop))?;
        if !contents.is_empty() && (contents.len() != views.len() || contents.iter().any(|view| view.len() != own)) {
            let what = format!("{} lists of contents for {} views of {own} rows", contents.len(), views.len());
            return Err(Error::new(what));
        }
        let unit: Vec<Unit> = views.iter().map(|view| Unit::new(view)).collect::<Result<_>>()?;
        let gathered: Vec<Gathered> = unit.iter().map(|view| inputs.world.gather(&view.rows)).collect::<Result<_>>()?;
        let contents: Vec<Vec<u32>> =
            contents.iter().map(|view| numbers_over_ranks(view, anchors, inputs.world)).collect::<Result<_>>()?;
        let contents = contents.concat();
        let z = Tensor::cat(&gathered.iter().map(|view| &view.rows).collect::<Vec<_>>(), 0)?;
        let rows = Rows { z: &z, n: gathered[0].rows.dim(0)?, contents: &contents };

        let softmaxes = self.softmaxes(rows.n, z.dim(0)?);
        let masks = self.masks(&rows);
        let found = match inputs.device {
            Device::Cuda(cuda) if !masks && self.directions != Directions::All && self.judge == Judge::Softmax => {
                let (n, (m, width)) = (rows.n, z.dims2()?);
                let labels: Vec<u32> = (0..m).map(|row| if row < 2 * n { (row % n) as u32 } else { NO_LABEL }).collect();
                let sides: Vec<_> = softmaxes.iter().flatten().map(|p| (p.rows..p.rows + n, p.candidates.clone())).collect();
                let described = Contrast {
                    labels: &labels,
                    memory: &[],
                    weights: &vec![1.0; m],
                    width,
                    temperature: self.temperature,
                    sides: &sides,
                    denominator: Denominator::All,
                };
                let (loss, gradient) = on_cuda(cuda, &described, &z, None)?;
                let right = (&gathered[0].rows * &gathered[1].rows)?.to_dtype(DType::F64)?.sum_all()?.to_scalar::<f64>()?;
                let gradient = (gradient / (softmaxes.len() * n) as f64)?;
                Found { loss, gradient, similarity: right / n as f64, candidates: 0.0, masked: 0.0, bias: 0.0 }
            }
            _ if z.dtype() == DType::F64 => tensors::read(&z, |numbers: &[f64]| self.on_host(&rows, numbers, &softmaxes))??,
            _ => tensors::read(&z, |numbers: &[f32]| self.on_host(&rows, numbers, &softmaxes))??,
        };
        let count = (softmaxes.len() * rows.n) as f64;
        // Σ ∂L/∂s·s: all of an anchor's similarities are in its own gradient.
        let sharpness = (found.gradient.narrow(0, 0, rows.n)? * z.narrow(0, 0, rows.n)?)?;
        let sharpness = sharpness.to_dtype(DType::F64)?.sum_all()?.to_scalar::<f64>()?;
        let slopes = Slopes { sharpness, bias: found.bias / count };
        let of_view = |(at, unit): (usize, &Unit)| -> Result<EmbeddedGradient> {
            let own = gathered[at].own(&found.gradient.narrow(0, at * rows.n, rows.n)?, own)?;
            Ok(EmbeddedGradient { query: Some(unit.back(&own)?), key: None })
        };
        let gradients = unit.iter().enumerate().map(of_view).collect::<Result<Vec<_>>>()?;
        let mut extras = vec![("positive_similarity", Tensor::new(found.similarity, z.device())?.to_dtype(z.dtype())?)];
        if masks {
            let share = found.masked / found.candidates.max(1.0);
            extras.push(("masked", Tensor::new(share, z.device())?));
        }
        Ok((Terms { extras, gradients, ..Terms::of((found.loss / count)?) }, slopes))
    }

    /// The softmaxes of N samples whose views have m rows; the positive is in the first part of each.
    fn softmaxes(&self, n: usize, m: usize) -> Vec<Vec<Part>> {
        let part = |rows, candidates, others| Part { rows, candidates, others };
        let (forth, back) = (part(0, n..m, false), part(n, 0..n, false));
        match self.directions {
            Directions::Forth => vec![vec![forth]],
            Directions::Both => vec![vec![forth], vec![back]],
            Directions::All => vec![vec![forth, part(0, 0..n, true), back, part(n, n..m, true)]],
        }
    }

    /// The sum over samples and softmaxes, a block of samples at a time, so that memory grows with the batch and not with its square.
    fn on_host<R: Real>(&self, rows: &Rows, z: &[R], softmaxes: &[Vec<Part>]) -> Result<Found> {
        let (n, width) = (rows.n, rows.z.dim(1)?);
        let mut gradient = vec![R::of(0.0); z.len()];
        let mut found = Ranked::default();
        for (parts, first) in softmaxes.iter().flat_map(|parts| (0..n).step_by(BLOCK).map(move |first| (parts, first))) {
            let of_block = |part: &Part| {
                let Part { rows, candidates, others } = part.clone();
                Candidates { anchors: rows + first, rows: candidates, own: first, others }
            };
            let shown = [0, n].map(|view| rows.contents.get(view + first..).unwrap_or_default());
            let block = Ranks {
                z,
                width,
                count: BLOCK.min(n - first),
                parts: &parts.iter().map(of_block).collect::<Vec<_>>(),
                period: n,
                temperature: self.temperature,
                contents: rows.contents,
                shown,
                margin: self.margin,
                judge: self.judge,
                factor: 1.0 / (softmaxes.len() * n) as f64,
            };
            found += block.run(&mut gradient);
        }
        let loss = tensors::from_vec(vec![R::of(found.loss)], ())?;
        let gradient = tensors::from_vec(gradient, rows.z.shape())?;
        let similarity = found.right * self.temperature / (softmaxes.len() * n) as f64;
        let Ranked { candidates, masked, bias, .. } = found;
        Ok(Found { loss, gradient, similarity, candidates, masked, bias })
    }

    /// Whether candidates can be left out as false negatives.
    fn masks(&self, rows: &Rows) -> bool {
        self.margin.is_some() || !rows.contents.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::super::normalise;
    use super::super::testing::*;
    use super::*;
    use crate::data::known::Known;
    use crate::model::embeddings::Embeddings;
    use crate::world::Solo;

    const ALL: [Directions; 3] = [Directions::Forth, Directions::Both, Directions::All];

    fn at(directions: Directions) -> Ranking {
        Ranking { temperature: 0.05, directions, margin: None, judge: Judge::Softmax }
    }

    fn embeddings(views: &[&Tensor]) -> Embeddings {
        Embeddings::new(views.len(), views.iter().map(|view| Some((*view).clone().into())).collect())
    }

    fn showing(contents: &[Vec<u32>]) -> Known {
        Known { contents: contents.to_vec(), ..Known::default() }
    }

    fn loss(of: &Ranking, views: &[&Tensor], known: &Known) -> Tensor {
        loss_known(of, &embeddings(views), known, &Solo)
    }

    fn number(of: &Tensor) -> f64 {
        of.to_dtype(DType::F64).unwrap().to_scalar().unwrap()
    }

    /// The loss and the share of false negatives as the head of this file defines them.
    fn defined(of: &Ranking, views: &[Tensor], contents: &[Vec<u32>]) -> (f64, f64) {
        let rows: Vec<Vec<Vec<f64>>> = views.iter().map(|view| normalise(view).unwrap().to_vec2().unwrap()).collect();
        let (n, docs) = (rows[0].len(), (1..views.len()).collect::<Vec<_>>());
        let (forth, back) = ((0, docs.clone(), false), (1, vec![0], false));
        let softmaxes = match of.directions {
            Directions::Forth => vec![vec![forth]],
            Directions::Both => vec![vec![forth], vec![back]],
            Directions::All => vec![vec![forth, (0, vec![0], true), back, (1, docs, true)]],
        };
        let (mut loss, mut candidates, mut masked) = (0.0, 0.0, 0.0);
        let cosine = |[a, i]: [usize; 2], [c, j]: [usize; 2]| rows[a][i].iter().zip(&rows[c][j]).map(|(x, y)| x * y).sum::<f64>();
        for (parts, i) in softmaxes.iter().flat_map(|parts| (0..n).map(move |i| (parts, i))) {
            let positive = cosine([0, i], [1, i]);
            let mut z = 0.0;
            for (a, views, others) in parts {
                for (c, j) in views.iter().flat_map(|c| (0..n).map(move |j| (*c, j))).filter(|(_, j)| !others || *j != i) {
                    let (pair, s) = (i == j && a + c == 1, cosine([*a, i], [c, j]));
                    let same = contents.get(c).is_some_and(|of| of[j] == contents[0][i] || of[j] == contents[1][i]);
                    let out = !pair && (same || of.margin.is_some_and(|margin| s > positive + margin));
                    candidates += f64::from(u8::from(!pair));
                    masked += f64::from(u8::from(out));
                    z += if out { 0.0 } else { (s / of.temperature).exp() };
                }
            }
            loss += z.ln() - positive / of.temperature;
        }
        (loss / (n * softmaxes.len()) as f64, masked / candidates)
    }

    #[test]
    fn goldens_of_sines() {
        let [x, y, z] = [1, 2, 3].map(sines);
        let pair: &[&Tensor] = &[];
        for (directions, more, value, of_x, of_y) in [
            (Directions::Forth, pair, 9.5020121163, 10.5509073537, 9.6917461508),
            (Directions::Forth, &[&z], 9.5853116829, 10.0162636356, 9.2530301345),
            (Directions::Both, pair, 9.1824780808, 10.8180146976, 8.9497888762),
            (Directions::All, pair, 13.9207716013, 8.9832507730, 6.8001434654),
        ] {
            let of = |x: &Tensor, y: &Tensor| loss(&at(directions), &[&[x, y], more].concat(), &Known::default());
            let found = number(&of(&x, &y));
            assert!((found - value).abs() < 1e-9, "{directions:?}: {found}");
            let [by_x, by_y] = [gradient(&x, |x| of(x, &y)), gradient(&y, |y| of(&x, y))];
            assert!((length(&by_x) - of_x).abs() < 1e-8 && (length(&by_y) - of_y).abs() < 1e-8, "{directions:?}");
        }
        let of = |x: &Tensor| loss(&at(Directions::Forth), &[x, &y, &z], &Known::default());
        let first = gradient(&x, of).to_vec2::<f64>().unwrap()[0].clone();
        let golden = [-4.26291055, 1.32640787, 0.82765792, -2.99182046];
        assert!(first.iter().zip(golden).all(|(found, golden)| (found - golden).abs() < 1e-8), "{first:?}");
    }

    /// Contents with every kind of repetition: of an anchor, of a positive, across views, and within a sample.
    fn repeated() -> Vec<Vec<u32>> {
        vec![vec![0, 1, 2, 0, 4, 5], vec![10, 11, 10, 13, 14, 1], vec![20, 10, 22, 13, 24, 4], vec![30, 31, 2, 33, 34, 35]]
    }

    #[test]
    fn it_is_what_its_definition_says() {
        let views = [1, 2, 3, 4].map(|seed| random(seed, 6, 3));
        for (directions, count) in ALL.into_iter().flat_map(|directions| (2..=4).map(move |count| (directions, count))) {
            for (margin, contents) in [(None, vec![]), (None, repeated()), (Some(0.1), vec![]), (Some(-0.05), repeated())] {
                let of = Ranking { margin, ..at(directions) };
                let (views, contents) = (&views[..count], &contents[..count.min(contents.len())]);
                let rows: Vec<&Tensor> = views.iter().collect();
                let terms = terms_known(&of, &embeddings(&rows), &showing(contents), &Solo).unwrap();
                let (value, share) = defined(&of, views, contents);
                assert!((number(&terms.loss) - value).abs() < 1e-12, "{directions:?}, {count} views, {margin:?}");
                match terms.extras.iter().find(|(name, _)| *name == "masked") {
                    Some((_, found)) => assert!((number(found) - share).abs() < 1e-12 && share > 0.0 && share < 1.0),
                    None => assert!(margin.is_none() && contents.is_empty() && share == 0.0),
                }
            }
        }
    }

    #[test]
    fn the_gradient_is_the_difference() {
        let views = [1, 2, 3].map(|seed| random(seed, 4, 3));
        let contents: Vec<Vec<u32>> = repeated().iter().take(3).map(|view| view[..4].to_vec()).collect();
        for directions in ALL {
            for (margin, known) in [
                (None, Known::default()),
                (None, showing(&contents)),
                (Some(0.1), Known::default()),
                (Some(0.1), showing(&contents)),
            ] {
                let of = Ranking { margin, temperature: 0.2, ..at(directions) };
                for at in 0..3 {
                    finite_difference(&views[at], |moved| {
                        let mut views: Vec<&Tensor> = views.iter().collect();
                        views[at] = moved;
                        loss(&of, &views, &known)
                    });
                }
            }
        }
    }

    #[test]
    fn blocks_of_anchors_add_up() {
        // The oracle is the whole matrix at once, differentiated by candle.
        let views = [1, 2, 3].map(|seed| random(seed, 700, 3));
        let oracle = |views: &[&Tensor]| {
            let [u, v, h] = [0, 1, 2].map(|at| normalise(views[at]).unwrap());
            let s = (u.matmul(&Tensor::cat(&[v, h], 0).unwrap().t().unwrap()).unwrap() / 0.05).unwrap();
            let classes = Tensor::arange(0u32, 700, &candle_core::Device::Cpu).unwrap();
            candle_nn::loss::cross_entropy(&s, &classes).unwrap()
        };
        let all: Vec<&Tensor> = views.iter().collect();
        let (of, none) = (at(Directions::Forth), Known::default());
        assert!((number(&loss(&of, &all, &none)) - number(&oracle(&all))).abs() < 1e-11);
        for at in 0..3 {
            let with = |moved: &Tensor, of: &dyn Fn(&[&Tensor]) -> Tensor| {
                gradient(moved, |x| {
                    let mut views = all.clone();
                    views[at] = x;
                    of(&views)
                })
            };
            let [ours, theirs] = [with(all[at], &|views| loss(&of, views, &none)), with(all[at], &oracle)];
            assert!(distance(&ours, &theirs) < 1e-13, "view {at}");
        }
        // With masks the definition, sample by sample.
        let contents: Vec<Vec<u32>> = (0..3).map(|view| (0..700).map(|row| (row * (view + 3)) % 650).collect()).collect();
        for directions in ALL {
            let of = Ranking { margin: Some(0.3), ..at(directions) };
            let found = number(&loss(&of, &all, &showing(&contents)));
            assert!((found - defined(&of, &views, &contents).0).abs() < 1e-10, "{directions:?}");
        }
    }

    #[test]
    fn two_ranks_are_one() {
        let views = [1, 2, 3, 4].map(|seed| random(seed, 6, 3));
        for (directions, count) in ALL.into_iter().flat_map(|directions| [(directions, 2), (directions, 4)]) {
            for contents in [vec![], repeated()] {
                let known = showing(&contents[..count.min(contents.len())]);
                two_ranks_of_views_are_one(1e-13, &at(directions), &views[..count], &known);
            }
        }
    }

    #[test]
    fn the_own_pair_is_never_left_out() {
        let (x, y) = (random(1, 5, 3), random(2, 5, 3));
        let same = showing(&[vec![7; 5], vec![7; 5]]);
        for (directions, least) in ALL.into_iter().zip([0.0, 0.0, 2f64.ln()]) {
            // Where all texts are one, only the pair is left; so it is where every candidate is too similar.
            assert!((number(&loss(&at(directions), &[&x, &y], &same)) - least).abs() < 1e-12);
            let all = Ranking { margin: Some(-2.0), ..at(directions) };
            assert!((number(&loss(&all, &[&x, &y], &Known::default())) - least).abs() < 1e-12);
            // One sample has its pair alone.
            let one = [x.narrow(0, 0, 1).unwrap(), y.narrow(0, 0, 1).unwrap()];
            assert!((number(&loss(&at(directions), &[&one[0], &one[1]], &Known::default())) - least).abs() < 1e-12);
        }
        let none = showing(&[vec![0, 1, 2, 3, 4], vec![0, 1, 2, 3, 4]]);
        let [with, without] = [&none, &Known::default()].map(|known| number(&loss(&at(Directions::All), &[&x, &y], known)));
        assert_eq!(with, without, "texts that differ are all negatives, and a pair of the same text is a pair");
    }

    #[test]
    fn sharp_temperatures_and_zero_rows_stay_finite_in_f32() {
        let rows = random(1, 6, 8).to_dtype(DType::F32).unwrap();
        let zeros = rows.zeros_like().unwrap();
        for directions in ALL {
            let of = Ranking { temperature: 0.005, margin: Some(0.0), ..at(directions) };
            for (left, right) in [(&rows, &rows), (&rows, &zeros), (&zeros, &zeros)] {
                assert!(number(&loss(&of, &[left, right], &Known::default())).is_finite());
                let pull = gradient(left, |x| loss(&of, &[x, right], &Known::default()));
                assert!(number(&pull.sqr().unwrap().sum_all().unwrap()).is_finite());
            }
        }
    }

    #[test]
    fn what_cannot_be_ranked_is_an_error() {
        let x = random(1, 3, 2);
        let said = |views: &[&Tensor], known: &Known| {
            terms_known(&at(Directions::Forth), &embeddings(views), known, &Solo).err().unwrap().to_string()
        };
        assert!(said(&[&x], &Known::default()).contains("hint: give two views"));
        assert!(said(&[&x, &x, &random(2, 4, 2)], &Known::default()).contains("pairs of rows"));
        assert!(said(&[&x, &x, &random(2, 3, 4)], &Known::default()).contains("pairs of rows"));
        assert!(said(&[&x, &x], &showing(&[vec![1, 2, 3]])).contains("1 lists of contents for 2 views"));
        assert!(said(&[&x, &x], &showing(&[vec![1, 2, 3], vec![1, 2]])).contains("of 3 rows"));
    }
}
