//! Principal components of rows (Pearson 1901): the directions, at right angles to each other, in which the rows vary most.
//!
//! With μ the mean of the N rows x, the components are the eigenvectors of 1/N Σ (x − μ)(x − μ)ᵀ that have the largest eigenvalues. A row
//! becomes its products with them, after μ was subtracted; nothing is scaled. An eigenvector has two signs: that is taken by which the
//! product of the largest amount over all rows is positive.

use candle_core::{Device, Tensor};
use nalgebra::{DMatrix, SymmetricEigen};

use super::Table;
use crate::error::{Error, Result};

/// Rows that are multiplied at once: fixed, so that sums do not depend on the machine.
const BLOCK: usize = 4096;

/// Iterations of the eigenvalues for each value of a row; a few are usual.
const ITERATIONS: usize = 1000;

/// A projection onto principal components.
#[derive(Clone, Debug)]
pub struct Pca {
    /// (d, k).
    columns: Tensor,
    width: usize,
    kept: usize,
    /// The share of the rows' variance that the components have.
    pub explained: f64,
}

impl Pca {
    /// The first `kept` components of the rows of `table`.
    ///
    /// # Errors
    /// More components than values in a row, or than rows; a value that is not finite; a table that cannot be read.
    pub fn of(table: &dyn Table, kept: usize) -> Result<Pca> {
        let (n, width) = (table.len(), table.width());
        if kept == 0 || kept > width.min(n) {
            let what = format!("{n} rows of {width} values do not have {kept} principal components");
            return Err(Error::usage(what).hint(format!("give a width of at most {}", width.min(n))));
        }
        let mean = mean(table)?;
        let mut covariance = vec![0.0; width * width];
        each(table, |x| {
            let x = centred(x, &mean, width)?;
            let product = x.t()?.matmul(&x)?.flatten_all()?.to_vec1::<f64>()?;
            covariance.iter_mut().zip(product).for_each(|(sum, p)| *sum += p / n as f64);
            Ok(())
        })?;
        if covariance.iter().any(|value| !value.is_finite()) {
            return Err(Error::new("rows with a value that is not finite have no principal components"));
        }
        let solved = SymmetricEigen::try_new(DMatrix::from_vec(width, width, covariance), f64::EPSILON, ITERATIONS * width);
        let solved = solved.ok_or_else(|| Error::new("the principal components of these rows cannot be found"))?;
        let mut order: Vec<usize> = (0..width).collect();
        order.sort_by(|a, b| solved.eigenvalues[*b].total_cmp(&solved.eigenvalues[*a]));
        let share = |of: &[usize]| of.iter().map(|at| solved.eigenvalues[*at].max(0.0)).sum::<f64>();
        let explained = share(&order[..kept]) / share(&order).max(f64::MIN_POSITIVE);
        let columns: Vec<f64> = (0..width)
            .flat_map(|value| order[..kept].iter().map(move |at| (value, *at)))
            .map(|at| solved.eigenvectors[at])
            .collect();
        let columns = Tensor::from_vec(columns, (width, kept), &Device::Cpu)?;
        let pca = Pca { columns, width, kept, explained };
        let signs = pca.signs(table, &mean)?;
        Ok(Pca { columns: pca.columns.broadcast_mul(&Tensor::from_vec(signs, (1, kept), &Device::Cpu)?)?, ..pca })
    }

    /// Values of a projected row.
    pub fn kept(&self) -> usize {
        self.kept
    }

    /// The products of `rows` with the components, one row after the other, after `mean` was subtracted from each: that of
    /// [`mean`](mean()) for the rows that the components are of, another one's for others.
    ///
    /// # Errors
    /// Rows or a mean of another width.
    pub fn project(&self, rows: &[f32], mean: &[f64]) -> Result<Vec<f32>> {
        let mut all = Vec::with_capacity(rows.len() / self.width.max(1) * self.kept);
        for rows in rows.chunks(BLOCK * self.width) {
            let products = centred(rows, mean, self.width)?.matmul(&self.columns)?.flatten_all()?.to_vec1::<f64>()?;
            all.extend(products.into_iter().map(|value| value as f32));
        }
        Ok(all)
    }

    /// For each component the sign of its product of the largest amount; of equals the first one's.
    fn signs(&self, table: &dyn Table, mean: &[f64]) -> Result<Vec<f64>> {
        let mut largest = vec![0.0f64; self.kept];
        each(table, |x| {
            let products = centred(x, mean, self.width)?.matmul(&self.columns)?.flatten_all()?.to_vec1::<f64>()?;
            for row in products.chunks_exact(self.kept) {
                largest.iter_mut().zip(row).filter(|(top, v)| v.abs() > top.abs()).for_each(|(top, v)| *top = *v);
            }
            Ok(())
        })?;
        Ok(largest.into_iter().map(|top| if top < 0.0 { -1.0 } else { 1.0 }).collect())
    }
}

/// The mean of the rows of `table`.
///
/// # Errors
/// A table that cannot be read.
pub fn mean(table: &dyn Table) -> Result<Vec<f64>> {
    let mut sums = vec![0.0; table.width()];
    each(table, |x| {
        x.chunks_exact(sums.len()).for_each(|row| sums.iter_mut().zip(row).for_each(|(sum, v)| *sum += f64::from(*v)));
        Ok(())
    })?;
    let n = table.len().max(1) as f64;
    sums.iter_mut().for_each(|sum| *sum /= n);
    Ok(sums)
}

/// Calls `with` for the rows of `table`, block by block.
fn each(table: &dyn Table, mut with: impl FnMut(&[f32]) -> Result<()>) -> Result<()> {
    let mut room = Vec::new();
    (0..table.len()).step_by(BLOCK).try_for_each(|from| with(table.block(from..(from + BLOCK).min(table.len()), &mut room)?))
}

/// `rows` less `mean`, (n, d).
fn centred(rows: &[f32], mean: &[f64], width: usize) -> Result<Tensor> {
    if mean.len() != width || !rows.len().is_multiple_of(width.max(1)) {
        return Err(Error::new(format!("{} values and a mean of {} are no rows of {width}", rows.len(), mean.len())));
    }
    let values = rows.chunks_exact(width).flat_map(|row| row.iter().zip(mean).map(|(v, mean)| f64::from(*v) - mean)).collect();
    Ok(Tensor::from_vec(values, (rows.len() / width, width), &Device::Cpu)?)
}

#[cfg(test)]
mod tests {
    use rand_distr::{Distribution, StandardNormal};

    use super::*;
    use crate::eval::Features;
    use crate::rng::Key;

    fn features(rows: Vec<f32>, width: usize) -> Features {
        let names = vec![String::new(); rows.len() / width];
        Features { rows, width, names, ..Features::default() }
    }

    /// Rows whose values have different variances and are mixed with each other.
    fn mixed(n: usize, width: usize) -> Features {
        let mut draw = StandardNormal.sample_iter(Key::new(5).rng());
        let mix: Vec<f64> = (0..width * width).map(|_| draw.next().unwrap()).collect();
        let mut rows = Vec::new();
        for _ in 0..n {
            let own: Vec<f64> = (0..width).map(|at| draw.next().unwrap() * 0.7f64.powi(at as i32) + 3.0).collect();
            rows.extend(
                mix.chunks_exact(width).map(|m| m.iter().zip(&own).map(|(m, v): (&f64, &f64)| m * v).sum::<f64>() as f32),
            );
        }
        features(rows, width)
    }

    /// The first components by power iteration, each taken out of the rows before the next.
    fn by_power(of: &Features, kept: usize) -> Vec<Vec<f64>> {
        let (n, d) = (of.len(), of.width);
        let mut x: Vec<Vec<f64>> = (0..n).map(|row| of.row(row).iter().map(|v| f64::from(*v)).collect()).collect();
        for column in 0..d {
            let mean = x.iter().map(|row| row[column]).sum::<f64>() / n as f64;
            x.iter_mut().for_each(|row| row[column] -= mean);
        }
        let mut found = Vec::new();
        for _ in 0..kept {
            let mut v: Vec<f64> = (0..d).map(|at| 1.0 + at as f64).collect();
            for _ in 0..3000 {
                let mut next = vec![0.0; d];
                for row in &x {
                    let dot: f64 = row.iter().zip(&v).map(|(a, b)| a * b).sum();
                    next.iter_mut().zip(row).for_each(|(sum, a)| *sum += dot * a);
                }
                let length = next.iter().map(|a| a * a).sum::<f64>().sqrt();
                v = next.iter().map(|a| a / length).collect();
            }
            let scores: Vec<f64> = x.iter().map(|row| row.iter().zip(&v).map(|(a, b)| a * b).sum()).collect();
            for (row, score) in x.iter_mut().zip(&scores) {
                row.iter_mut().zip(&v).for_each(|(a, b)| *a -= score * b);
            }
            let top = scores.iter().copied().max_by(|a, b| a.abs().total_cmp(&b.abs())).unwrap();
            found.push(scores.iter().map(|score| score * top.signum()).collect());
        }
        found
    }

    #[test]
    fn components_are_those_of_power_iteration_with_the_sign_of_the_largest_product() {
        let of = mixed(300, 7);
        let pca = Pca::of(&of, 4).unwrap();
        let own = pca.project(&of.rows, &mean(&of).unwrap()).unwrap();
        for (number, scores) in by_power(&of, 4).iter().enumerate() {
            for (row, score) in scores.iter().enumerate() {
                assert!((f64::from(own[row * 4 + number]) - score).abs() < 1e-4, "component {number}, row {row}");
            }
        }
        assert!(pca.kept() == 4 && pca.explained > 0.8 && pca.explained < 1.0, "{}", pca.explained);
        // All components are a rotation, which keeps distances.
        let all = Pca::of(&of, 7).unwrap();
        let turned = all.project(&of.rows, &mean(&of).unwrap()).unwrap();
        let distance = |rows: &[f32]| (0..7).map(|at| f64::from(rows[at] - rows[7 + at]).powi(2)).sum::<f64>();
        assert!((distance(&turned) / distance(&of.rows) - 1.0).abs() < 1e-5 && (all.explained - 1.0).abs() < 1e-12);
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        let of = mixed(9000, 96);
        let bits = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| Pca::of(&of, 40).unwrap().project(&of.rows, &mean(&of).unwrap()).unwrap())
        };
        let one = bits(1);
        assert!(one == bits(2) && one == bits(3));
    }

    #[test]
    fn too_many_components_and_bad_rows_are_errors() {
        let of = mixed(5, 7);
        assert!(Pca::of(&of, 5).is_ok());
        for kept in [0, 6, 8] {
            assert!(Pca::of(&of, kept).unwrap_err().to_string().contains("at most 5"));
        }
        assert!(Pca::of(&features(vec![f32::NAN, 1.0, 2.0, 3.0], 2), 1).unwrap_err().to_string().contains("not finite"));
        assert!(Pca::of(&of, 2).unwrap().project(&[1.0; 8], &[0.0; 7]).is_err());
        // Equal rows have no direction, and are the mean.
        let equal = features(vec![1.5; 12], 3);
        let pca = Pca::of(&equal, 2).unwrap();
        assert!(pca.project(&equal.rows, &mean(&equal).unwrap()).unwrap().iter().all(|v| *v == 0.0));
    }
}
