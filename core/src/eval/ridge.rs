//! Ridge regression (Hoerl & Kennard 1970): the linear map by which rows are told best from other rows.
//!
//! With X (N × d) and Y (N × k) less their means x̄ and ȳ, the map is y = x·B + b with
//!
//! ```text
//! B = (XᵀX + λI)⁻¹ XᵀY        b = ȳ − x̄·B        λ = strength · tr(XᵀX) / d
//! ```
//!
//! which has the least ‖XB − Y‖² + λ‖B‖². By its trace λ does not depend on the scale of X.

use candle_core::{Device, Tensor};
use nalgebra::DMatrix;

use crate::error::{Error, Result};

/// Rows that are multiplied at once: fixed, so that sums do not depend on the machine.
const BLOCK: usize = 4096;

/// A linear map in the layout of a layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Ridge {
    /// (k, d): Bᵀ.
    pub weight: Vec<f32>,
    /// b, k values.
    pub bias: Vec<f32>,
}

/// The map from the rows `x` to the rows `y`, each with the width of a row.
///
/// # Errors
/// Numbers of rows that differ, or no row; a value that is not finite.
pub fn ridge((x, d): (&[f32], usize), (y, k): (&[f32], usize), strength: f64) -> Result<Ridge> {
    let n = x.len() / d.max(1);
    if n == 0 || k == 0 || x.len() != n * d || y.len() != n * k {
        return Err(Error::new(format!("{} values of width {d} are not mapped to {} of width {k}", x.len(), y.len())));
    }
    let (of_x, of_y) = (mean(x, d), mean(y, k));
    let (mut xx, mut xy) = (vec![0.0; d * d], vec![0.0; d * k]);
    for (x, y) in x.chunks(BLOCK * d).zip(y.chunks(BLOCK * k)) {
        let (x, y) = (centred(x, &of_x)?, centred(y, &of_y)?);
        let turned = x.t()?;
        for (sums, product) in [(&mut xx, turned.matmul(&x)?), (&mut xy, turned.matmul(&y)?)] {
            let product = product.flatten_all()?.to_vec1::<f64>()?;
            sums.iter_mut().zip(product).for_each(|(sum, value)| *sum += value);
        }
    }
    if xx.iter().chain(&xy).any(|value| !value.is_finite()) {
        return Err(Error::new("rows with a value that is not finite cannot be regressed"));
    }
    let lambda = strength * (0..d).map(|at| xx[at * d + at]).sum::<f64>() / d as f64;
    (0..d).for_each(|at| xx[at * d + at] += lambda);
    // Both are row-major here and column-major there; XᵀX is symmetric.
    let solved = DMatrix::from_vec(d, d, xx).cholesky().map(|of| of.solve(&DMatrix::from_row_slice(d, k, &xy)));
    // Rows that are all equal tell nothing: the best guess is the mean.
    let b = solved.unwrap_or_else(|| DMatrix::zeros(d, k));
    let bias = (0..k).map(|to| of_y[to] - (0..d).map(|from| of_x[from] * b[(from, to)]).sum::<f64>());
    Ok(Ridge {
        weight: (0..k).flat_map(|to| (0..d).map(move |from| (from, to))).map(|at| b[at] as f32).collect(),
        bias: bias.map(|value| value as f32).collect(),
    })
}

fn mean(rows: &[f32], width: usize) -> Vec<f64> {
    let mut sums = vec![0.0; width];
    rows.chunks_exact(width).for_each(|row| sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value)));
    let n = (rows.len() / width) as f64;
    sums.iter_mut().for_each(|sum| *sum /= n);
    sums
}

fn centred(rows: &[f32], mean: &[f64]) -> Result<Tensor> {
    let width = mean.len();
    let values = rows.chunks_exact(width).flat_map(|row| row.iter().zip(mean).map(|(value, mean)| f64::from(*value) - mean));
    Ok(Tensor::from_vec(values.collect(), (rows.len() / width, width), &Device::Cpu)?)
}

#[cfg(test)]
mod tests {
    use rand_distr::{Distribution, StandardNormal};

    use super::*;
    use crate::rng::Key;

    fn drawn(count: usize, seed: u64) -> Vec<f32> {
        StandardNormal.sample_iter(Key::new(seed).rng()).take(count).map(|value: f64| value as f32).collect()
    }

    fn mapped(x: &[f32], d: usize, by: &Ridge) -> Vec<f32> {
        let k = by.bias.len();
        let value = |row: &[f32], to: usize| -> f32 {
            by.bias[to] + row.iter().zip(&by.weight[to * d..]).map(|(x, w)| x * w).sum::<f32>()
        };
        x.chunks_exact(d).flat_map(|row| (0..k).map(move |to| (row, to))).map(|(row, to)| value(row, to)).collect()
    }

    #[test]
    fn a_linear_map_is_found() {
        let (n, d, k) = (5000, 6, 3);
        let x = drawn(n * d, 1);
        let by = Ridge { weight: drawn(k * d, 2), bias: drawn(k, 3) };
        let found = ridge((&x, d), (&mapped(&x, d, &by), k), 1e-12).unwrap();
        for (a, b) in by.weight.iter().chain(&by.bias).zip(found.weight.iter().chain(&found.bias)) {
            assert!((a - b).abs() < 1e-5, "{a} {b}");
        }
    }

    #[test]
    fn no_other_map_is_better_and_scale_does_not_matter() {
        let (n, d, k, strength) = (300, 5, 2, 0.7);
        let (x, y) = (drawn(n * d, 4), drawn(n * k, 5));
        let found = ridge((&x, d), (&y, k), strength).unwrap();
        let of_x = mean(&x, d);
        let squares: f64 = x.iter().enumerate().map(|(at, value)| (f64::from(*value) - of_x[at % d]).powi(2)).sum();
        let cost = |of: &Ridge| -> f64 {
            let off = mapped(&x, d, of).iter().zip(&y).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
            off + strength * squares / d as f64 * of.weight.iter().map(|w| f64::from(*w).powi(2)).sum::<f64>()
        };
        let least = cost(&found);
        for at in 0..found.weight.len() + k {
            for by in [-0.02, 0.02] {
                let mut other = found.clone();
                *other.weight.iter_mut().chain(&mut other.bias).nth(at).unwrap() += by;
                assert!(cost(&other) > least, "{at}");
            }
        }
        let larger: Vec<f32> = x.iter().map(|value| 1000.0 * value).collect();
        let of_larger = ridge((&larger, d), (&y, k), strength).unwrap();
        for (a, b) in mapped(&x, d, &found).iter().zip(mapped(&larger, d, &of_larger)) {
            assert!((a - b).abs() < 1e-4, "{a} {b}");
        }
    }

    #[test]
    fn equal_rows_tell_the_mean_and_mistakes_are_errors() {
        let found = ridge((&[2.0; 6], 2), (&[1.0, 2.0, 6.0], 1), 1.0).unwrap();
        assert_eq!(found, Ridge { weight: vec![0.0; 2], bias: vec![3.0] });
        assert!(ridge((&[], 2), (&[], 1), 1.0).is_err() && ridge((&[1.0; 4], 2), (&[1.0; 3], 1), 1.0).is_err());
        assert!(ridge((&[f32::NAN; 4], 2), (&[1.0; 2], 1), 1.0).is_err());
    }
}
