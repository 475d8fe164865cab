//! The geometry of features: alignment and uniformity (Wang & Isola 2020), and signs of collapse. Needs no labels.

use candle_core::{Device, Tensor};
use rand::Rng as _;
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::eval::Features;
use crate::rng::Key;

/// Pairs that are compared. Up to 2,897 rows have fewer pairs; of more rows this many pairs are drawn, and the error of the mean is then
/// below 1/2000 of the standard deviation of the pairs.
const PAIRS: usize = 1 << 22;
const BLOCK: usize = 1 << 14;

/// The results of [`geometry`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Geometry {
    /// See [`uniformity`].
    pub uniformity: f64,
    /// √d times the mean standard deviation of the coordinates of rows scaled to length 1: near 1 if rows spread over the sphere, 0 if all
    /// are equal (SimSiam's measure of collapse; Chen & He 2021, §4.1).
    pub spread: f64,
    /// The participation ratio (Σλ)²/Σλ² of the eigenvalues λ of the covariance, for rows of length 1: the number of directions in which
    /// they vary, 1 to d; 0 if all are equal.
    pub dimensions: f64,
    /// Rows.
    pub rows: usize,
}

/// Uniformity, spread and dimensions of the rows of `features`.
///
/// # Errors
/// There are fewer than two rows.
pub fn geometry(features: &Features) -> Result<Geometry> {
    let uniformity = uniformity(features)?;
    let (n, d) = (features.len(), features.width);
    let z = Tensor::from_vec(features.normalised().rows, (n, d), &Device::Cpu)?;
    // The rows are centred before they are multiplied; otherwise rounding errors would count as variance.
    let mut covariance = vec![0.0f64; d * d];
    let mean: Vec<f64> = column_sums(&z, n, d)?.into_iter().map(|s| s / n as f64).collect();
    let mean = Tensor::from_vec(mean.into_iter().map(|m| m as f32).collect::<Vec<_>>(), (1, d), &Device::Cpu)?;
    for from in (0..n).step_by(BLOCK) {
        let rows = z.narrow(0, from, BLOCK.min(n - from))?.broadcast_sub(&mean)?;
        let product = rows.t()?.matmul(&rows)?.flatten_all()?.to_vec1::<f32>()?;
        covariance.iter_mut().zip(product).for_each(|(c, p)| *c += f64::from(p) / n as f64);
    }
    let variances: Vec<f64> = (0..d).map(|j| covariance[j * d + j]).collect();
    let trace: f64 = variances.iter().sum();
    let squares: f64 = covariance.iter().map(|c| c * c).sum();
    let spread = (d as f64).sqrt() * variances.iter().map(|v| v.sqrt()).sum::<f64>() / d as f64;
    // Below this, the variance is rounding error.
    let dimensions = if trace > 1e-12 { trace * trace / squares } else { 0.0 };
    Ok(Geometry { uniformity, spread, dimensions, rows: n })
}

fn column_sums(z: &Tensor, n: usize, d: usize) -> Result<Vec<f64>> {
    let mut sums = vec![0.0; d];
    for from in (0..n).step_by(BLOCK) {
        let rows = z.narrow(0, from, BLOCK.min(n - from))?.flatten_all()?.to_vec1::<f32>()?;
        rows.chunks_exact(d).for_each(|row| sums.iter_mut().zip(row).for_each(|(s, v)| *s += f64::from(*v)));
    }
    Ok(sums)
}

/// Alignment: the mean of ‖x − y‖² over pairs of rows of length 1 (Wang & Isola 2020, equation 3, α = 2). It is 0 if the views of each
/// sample have equal embeddings. Row i of `left` pairs with row i of `right`.
///
/// # Errors
/// The rows do not pair.
pub fn alignment(left: &Features, right: &Features) -> Result<f64> {
    if left.is_empty() || (left.len(), left.width) != (right.len(), right.width) {
        return Err(Error::new(format!(
            "{} rows of {} values do not pair with {} of {}",
            left.len(),
            left.width,
            right.len(),
            right.width
        )));
    }
    let (left, right) = (left.normalised(), right.normalised());
    Ok((0..left.len()).map(|i| square_distance(left.row(i), right.row(i))).sum::<f64>() / left.len() as f64)
}

/// Uniformity: the logarithm of the mean of exp(−2‖x − y‖²) over pairs of different rows of length 1 (Wang & Isola 2020, equation 4, t =
/// 2). It is 0 if all rows are equal, and near −4 if many dimensions are filled evenly. Computed over all pairs, or over 4 million pairs
/// drawn by a fixed key.
///
/// # Errors
/// There are fewer than two rows.
pub fn uniformity(features: &Features) -> Result<f64> {
    let n = features.len();
    if n < 2 || features.width == 0 {
        return Err(Error::new(format!("{n} rows have no geometry")).hint("give data with two samples or more"));
    }
    let z = features.normalised();
    let kernel = |i: usize, j: usize| (-2.0 * square_distance(z.row(i), z.row(j))).exp();
    let (sums, pairs): (Vec<f64>, usize) = if n * (n - 1) / 2 <= PAIRS {
        ((1..n).into_par_iter().map(|i| (0..i).map(|j| kernel(i, j)).sum()).collect(), n * (n - 1) / 2)
    } else {
        let key = Key::new(0).of("uniformity");
        let block = |b: usize| {
            let mut rng = key.at(b as u64).rng();
            let mut draw = || {
                let (i, j) = (rng.random_range(0..n), rng.random_range(0..n - 1));
                kernel(i, if j < i { j } else { j + 1 })
            };
            (0..BLOCK).map(|_| draw()).sum()
        };
        ((0..PAIRS / BLOCK).into_par_iter().map(block).collect(), PAIRS)
    };
    Ok((sums.iter().sum::<f64>() / pairs as f64).ln())
}

/// ‖a − b‖², in lanes that the compiler can keep in vector registers.
fn square_distance(a: &[f32], b: &[f32]) -> f64 {
    let mut lanes = [0.0f32; 16];
    let (heads, rests) =
        ((a.chunks_exact(16), b.chunks_exact(16)), (a.chunks_exact(16).remainder(), b.chunks_exact(16).remainder()));
    for (a, b) in heads.0.zip(heads.1) {
        for ((l, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *l += (a - b) * (a - b);
        }
    }
    let rest: f64 = rests.0.iter().zip(rests.1).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    lanes.iter().map(|l| f64::from(*l)).sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_distr::{Distribution, StandardNormal};

    fn rows(rows: Vec<f32>, width: usize) -> Features {
        let names = (0..rows.len() / width).map(|i| i.to_string()).collect();
        Features { rows, width, names, ..Features::default() }
    }

    fn normal(seed: u64, n: usize, width: usize) -> Features {
        rows(StandardNormal.sample_iter(Key::new(seed).rng()).take(n * width).collect(), width)
    }

    #[test]
    fn known_configurations() {
        let equal = geometry(&rows([0.3, 0.4].repeat(5), 2)).unwrap();
        assert!(equal.uniformity.abs() < 1e-9 && equal.spread < 1e-6 && equal.dimensions == 0.0, "{equal:?}");
        // Opposite points: ‖x − y‖² = 4. A cross: of six pairs four at 2, two at 4.
        assert!((uniformity(&rows(vec![5.0, 0.0, -1.0, 0.0], 2)).unwrap() + 8.0).abs() < 1e-6);
        let cross = geometry(&rows(vec![1.0, 0.0, 0.0, 2.0, -3.0, 0.0, 0.0, -4.0], 2)).unwrap();
        assert!((cross.uniformity - ((4.0 * (-4f64).exp() + 2.0 * (-8f64).exp()) / 6.0).ln()).abs() < 1e-6);
        assert!((cross.dimensions - 2.0).abs() < 1e-6 && (cross.spread - 1.0).abs() < 1e-6);
        let line = geometry(&rows(vec![5.0, 0.0, 0.0, -1.0, 0.0, 0.0], 3)).unwrap();
        assert!((line.dimensions - 1.0).abs() < 1e-6);
        assert!(uniformity(&rows(vec![1.0], 1)).is_err() && geometry(&Features::default()).is_err());
    }

    #[test]
    fn alignment_of_pairs() {
        let left = rows(vec![1.0, 0.0, 0.0, 1.0], 2);
        assert_eq!(alignment(&left, &left).unwrap(), 0.0);
        // One pair at a right angle (2), one opposite (4).
        assert!((alignment(&left, &rows(vec![0.0, 3.0, 0.0, -2.0], 2)).unwrap() - 3.0).abs() < 1e-6);
        assert!(alignment(&left, &rows(vec![0.0, 3.0], 2)).is_err());
    }

    #[test]
    fn many_rows_are_sampled_and_agree_with_all_pairs() {
        let all = normal(1, 6000, 19);
        let z = all.normalised();
        let mut sum = 0.0;
        for i in 0..z.len() {
            for j in 0..i {
                let square: f64 = z.row(i).iter().zip(z.row(j)).map(|(a, b)| f64::from(a - b).powi(2)).sum();
                sum += (-2.0 * square).exp();
            }
        }
        let exact = (sum / (6000.0 * 5999.0 / 2.0)).ln();
        assert!((uniformity(&all).unwrap() - exact).abs() < 5e-3);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        assert_eq!(pool.install(|| geometry(&all).unwrap()), geometry(&all).unwrap());
    }

    #[test]
    fn even_rows_fill_their_dimensions() {
        let found = geometry(&normal(2, 2000, 20)).unwrap();
        assert!(found.dimensions > 19.0 && found.dimensions <= 20.0 && (found.spread - 1.0).abs() < 0.01, "{found:?}");
        assert!(found.uniformity < -3.2);
    }
}
