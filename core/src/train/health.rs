//! Collapse detection: whether the embeddings of a batch still differ between samples, or have collapsed to a point or a line.

use std::fmt;

use candle_core::{DType, Tensor};

use crate::error::Result;

/// The largest number of rows that are measured.
const ROWS: usize = 256;

/// Embeddings with a smaller spread have collapsed to a point.
const POINT: f64 = 0.02;

/// Embeddings with an effective rank below `LINE` lie on a line. They have collapsed if their spread is below `APART` too: two well
/// separated classes also lie on a line, with a larger spread.
const LINE: f64 = 1.05;
const APART: f64 = 0.5;

/// The distribution of embeddings that are scaled to length 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Health {
    /// The number of directions in which they vary, by the participation ratio (Σλ)² / Σλ² over the eigenvalues λ of their covariance. 1: a
    /// line; d: all directions alike. For n rows it is at most n − 1.
    pub effective_rank: f64,
    /// √d times the mean standard deviation over the d dimensions (SimSiam, §4.1). 0: a point; 1: spread over the sphere.
    pub spread: f64,
    /// Dimensions, d.
    pub width: usize,
}

impl Health {
    /// Measures the first 256 rows of `embeddings`, (n, d). None for fewer than four rows or two dimensions.
    ///
    /// # Errors
    /// An error of candle.
    pub fn of(embeddings: &Tensor) -> Result<Option<Health>> {
        let (rows, width) = embeddings.dims2()?;
        if rows < 4 || width < 2 {
            return Ok(None);
        }
        let n = rows.min(ROWS);
        let x = embeddings.narrow(0, 0, n)?.to_dtype(DType::F64)?;
        let x = x.broadcast_div(&x.sqr()?.sum_keepdim(1)?.sqrt()?.maximum(f64::MIN_POSITIVE)?)?;
        let x = x.broadcast_sub(&x.mean_keepdim(0)?)?;
        let variances = x.sqr()?.mean(0)?;
        let spread = (width as f64).sqrt() * variances.sqrt()?.mean_all()?.to_scalar::<f64>()?;
        // tr C² is the squared norm of the products of the rows; with few rows these are fewer than the products of the columns.
        let products = if n <= width { x.matmul(&x.t()?)? } else { x.t()?.matmul(&x)? };
        let squares = products.sqr()?.sum_all()?.to_scalar::<f64>()? / (n * n) as f64;
        let trace = variances.sum_all()?.to_scalar::<f64>()?;
        let effective_rank = if squares > 0.0 { trace * trace / squares } else { 0.0 };
        Ok(Some(Health { effective_rank, spread, width }))
    }

    /// Whether the embeddings hardly differ between samples.
    pub fn collapsed(&self) -> bool {
        self.spread < POINT || self.effective_rank < LINE && self.spread < APART
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(
            f,
            "effective rank {:.1} of {} dimensions, spread {:.4} (0: all equal, 1: over the whole sphere)",
            self.effective_rank, self.width, self.spread
        )
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use rand_distr::{Distribution, StandardNormal};

    use super::*;
    use crate::rng::Key;

    /// `rows` of `width` normal numbers, each dimension multiplied by its scale, all shifted by `mean`.
    fn rows(rows: usize, scales: &[f64], mean: f64) -> Health {
        let mut rng = Key::new(5).rng();
        let value = |_: usize| -> f64 { StandardNormal.sample(&mut rng) };
        let normal: Vec<f64> = (0..rows * scales.len()).map(value).collect();
        let values: Vec<f64> = normal.iter().enumerate().map(|(i, v)| mean + v * scales[i % scales.len()]).collect();
        Health::of(&Tensor::from_vec(values, (rows, scales.len()), &Device::Cpu).unwrap()).unwrap().unwrap()
    }

    #[test]
    fn it_tells_a_sphere_a_line_and_a_point() {
        let sphere = rows(256, &[1.0; 16], 0.0);
        assert!((sphere.spread - 1.0).abs() < 0.05 && sphere.effective_rank > 13.0 && !sphere.collapsed(), "{sphere}");
        let plane = rows(256, &[1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0], 0.0);
        assert!((1.8..2.1).contains(&plane.effective_rank), "{plane}");
        let mut line = [0.0; 16];
        line[3] = 1.0;
        let line = rows(256, &line, 0.0);
        assert!((line.effective_rank - 1.0).abs() < 1e-9 && line.collapsed(), "{line}");
        let point = rows(256, &[1e-4; 16], 1.0);
        assert!(point.spread < 1e-3 && point.collapsed(), "{point}");
        let same = Health::of(&Tensor::ones((8, 4), DType::F32, &Device::Cpu).unwrap()).unwrap().unwrap();
        assert!(same.collapsed() && same.effective_rank.is_finite(), "{same}");
        // A head whose ReLU outputs only zeros.
        assert!(Health::of(&Tensor::zeros((8, 4), DType::F32, &Device::Cpu).unwrap()).unwrap().unwrap().collapsed());
        assert!(Health::of(&Tensor::ones((3, 4), DType::F32, &Device::Cpu).unwrap()).unwrap().is_none());
    }

    #[test]
    fn few_rows_and_many_are_one_law() {
        let few = rows(8, &[1.0; 40], 0.0);
        assert!((5.0..=7.0).contains(&few.effective_rank), "{few}");
        let many = rows(1000, &[1.0; 4], 0.0);
        assert!((3.7..=4.0).contains(&many.effective_rank), "{many}");
    }
}
