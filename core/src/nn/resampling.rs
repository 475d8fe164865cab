//! A grid of learned positions for images of another size: how much of each learned position is in each new one. Programs differ in the
//! kernel, and the network's values with it.

use candle_core::{DType, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Result;

/// How a grid of positions is resampled. All are bicubic (Keys 1981) with pixels' centres at halves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Resampling {
    /// a = −.75, the nearest position beyond the border: transformers' ViT, CLIP, SigLIP and DINOv2.
    #[default]
    Bicubic,
    /// The same by the factor (n + .1) / N in place of n / N: DINOv2's own code.
    BicubicOffset,
    /// a = −.5, as wide as positions become further apart, nothing beyond the border: timm and open_clip.
    Antialias,
}

impl Resampling {
    /// The weights, (new, old), by which `new` positions in a line are sums of `old` ones.
    pub(super) fn weights(self, old: usize, new: usize) -> Vec<f64> {
        let mut all = vec![0.0; new * old];
        for (at, row) in all.chunks_exact_mut(old).enumerate() {
            if old == new {
                row[at] = 1.0;
                continue;
            }
            match self {
                Resampling::Bicubic => nearest(row, at, old as f64 / new as f64),
                Resampling::BicubicOffset => nearest(row, at, old as f64 / (new as f64 + 0.1)),
                Resampling::Antialias => stretched(row, at, old as f64 / new as f64),
            }
        }
        all
    }

    /// The weights for a grid, (new positions, old positions), both in reading order; none if nothing changes.
    pub(super) fn matrix(self, side: usize, [h, w]: [usize; 2], dtype: DType) -> Result<Option<Tensor>> {
        if [h, w] == [side, side] {
            return Ok(None);
        }
        let [rows, columns] = [self.weights(side, h), self.weights(side, w)];
        let mut all = Vec::with_capacity(h * w * side * side);
        for row in rows.chunks_exact(side) {
            for column in columns.chunks_exact(side) {
                all.extend(row.iter().flat_map(|a| column.iter().map(move |b| a * b)));
            }
        }
        Ok(Some(Tensor::from_vec(all, (h * w, side * side), &candle_core::Device::Cpu)?.to_dtype(dtype)?))
    }
}

/// The cubic kernel at a distance.
fn cubic(x: f64, a: f64) -> f64 {
    match x.abs() {
        x if x <= 1.0 => ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0,
        x if x < 2.0 => ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a,
        _ => 0.0,
    }
}

/// The four old positions around the new one.
fn nearest(row: &mut [f64], at: usize, scale: f64) {
    let place = (at as f64 + 0.5) * scale - 0.5;
    let first = place.floor();
    for step in -1..=2 {
        let old = (first as i64 + step).clamp(0, row.len() as i64 - 1) as usize;
        row[old] += cubic(place - first - step as f64, -0.75);
    }
}

/// The old positions under the kernel, which is as wide as two steps of the coarser grid on each side.
fn stretched(row: &mut [f64], at: usize, scale: f64) {
    let (centre, wide) = ((at as f64 + 0.5) * scale, scale.max(1.0));
    let from = (centre - 2.0 * wide + 0.5).max(0.0) as usize;
    let to = ((centre + 2.0 * wide + 0.5) as usize).min(row.len());
    for (old, weight) in row.iter_mut().enumerate().take(to).skip(from) {
        *weight = cubic((old as f64 - centre + 0.5) / wide, -0.5);
    }
    let sum: f64 = row.iter().sum();
    row.iter_mut().for_each(|weight| *weight /= sum);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of `torch.nn.functional.interpolate(sin(1..16) as 4 × 4, mode = "bicubic")` in f64: by size, by `scale_factor`, and with
    /// `antialias`. The first four, and the sum of each value times its number.
    #[test]
    fn grids_are_resampled_as_in_pytorch() {
        use Resampling::{Antialias, Bicubic, BicubicOffset};
        let goldens = [
            (Bicubic, [6, 7], [0.99629393, 1.05911499, 1.05395984, 0.64998536], 77.203847),
            (Bicubic, [3, 2], [0.69809905, -0.16470595, -0.59147353, 0.08095029], 2.007567),
            (Antialias, [6, 7], [0.95772987, 1.00186137, 1.01329858, 0.61024476], 83.838977),
            (Antialias, [3, 2], [0.48756595, 0.12128263, -0.42313708, -0.01725121], 1.590114),
            (BicubicOffset, [6, 7], [0.99939834, 1.05900965, 1.06552806, 0.67422648], 68.055605),
            (BicubicOffset, [3, 2], [0.72036152, -0.08762377, -0.63872086, 0.14042199], 1.540595),
        ];
        let old: Vec<f64> = (1..=16).map(|i| f64::from(i).sin()).collect();
        for (kind, size, first, sum) in goldens {
            let matrix = kind.matrix(4, size, DType::F64).unwrap().unwrap().to_vec2::<f64>().unwrap();
            let new: Vec<f64> = matrix.iter().map(|row| row.iter().zip(&old).map(|(a, b)| a * b).sum()).collect();
            assert_eq!(new.len(), size[0] * size[1]);
            assert!(new.iter().zip(first).all(|(found, exact)| (found - exact).abs() < 1e-7), "{kind:?} {size:?}: {new:?}");
            let found: f64 = new.iter().zip(1..).map(|(value, number)| value * f64::from(number)).sum();
            assert!((found - sum).abs() < 1e-5, "{kind:?} {size:?}: {found}");
            assert!(kind.matrix(4, [4, 4], DType::F64).unwrap().is_none(), "nothing changes at the learned size");
        }
        let still = Antialias.weights(5, 5);
        assert!((0..25).all(|at| still[at] == f64::from(u8::from(at % 6 == 0))));
    }
}
