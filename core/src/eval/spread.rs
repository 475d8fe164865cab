//! Statistics of several draws of one figure: mean, standard deviation, and the paired difference of two methods.
//!
//! Methods that share draws (the same labels, the same seed) are compared draw by draw, so that the effect of a lucky subset cancels. The
//! interval is Student's with n − 1 degrees of freedom; it assumes that differences are about normal, and it holds for new draws of the
//! same kind.

/// Mean and sample standard deviation (n − 1); no deviation for one draw.
pub fn spread(values: &[f64]) -> (f64, Option<f64>) {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let squares = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>();
    (mean, (values.len() > 1).then(|| (squares / (values.len() - 1) as f64).sqrt()))
}

/// The mean of differences and its interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference {
    /// Mean difference.
    pub mean: f64,
    /// Lower and upper end of the 95 % confidence interval; none for one pair.
    pub interval: Option<[f64; 2]>,
    /// Pairs.
    pub pairs: usize,
}

/// The difference `a` − `b`, pair by pair.
///
/// # Panics
/// If their lengths differ.
pub fn paired(a: &[f64], b: &[f64]) -> Difference {
    assert_eq!(a.len(), b.len(), "pairs have two halves");
    let differences: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
    let (mean, deviation) = spread(&differences);
    let half = deviation.map(|sd| student(differences.len() - 1) * sd / (differences.len() as f64).sqrt());
    Difference { mean, interval: half.map(|h| [mean - h, mean + h]), pairs: differences.len() }
}

/// The 97.5 % point of Student's distribution.
fn student(freedom: usize) -> f64 {
    const TABLE: [f64; 30] = [
        12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110,
        2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
    ];
    // Beyond the table, the first term of the expansion around the normal distribution's point is right to the third digit.
    TABLE.get(freedom.max(1) - 1).copied().unwrap_or(1.960 + 2.372 / freedom as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worked_example() {
        assert_eq!(spread(&[2.0]), (2.0, None));
        let (mean, sd) = spread(&[1.0, 2.0, 3.0, 6.0]);
        assert!((mean - 3.0).abs() < 1e-12 && (sd.unwrap() - (14.0f64 / 3.0).sqrt()).abs() < 1e-12);
        // Differences 1, 2, 3: mean 2, deviation 1, 4.303 / √3.
        let found = paired(&[2.0, 4.0, 6.0], &[1.0, 2.0, 3.0]);
        let [low, high] = found.interval.unwrap();
        assert!((found.mean, found.pairs) == (2.0, 3) && (low - (2.0 - 2.48434)).abs() < 1e-4 && (high - 4.48434).abs() < 1e-4);
        assert_eq!(paired(&[2.0], &[1.0]), Difference { mean: 1.0, interval: None, pairs: 1 });
        assert!((student(31) - 2.0395).abs() < 4e-3 && (student(1000) - 1.9623).abs() < 1e-3);
        assert!((1..200).all(|n| student(n + 1) < student(n)));
    }
}
