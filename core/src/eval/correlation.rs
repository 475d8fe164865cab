//! Correlations of two lists of numbers: Pearson's, and Spearman's, which is Pearson's of the ranks.

/// Pearson's correlation, −1 to 1. None if all values of a list are equal, or there is none.
///
/// # Panics
/// The lists differ in length.
pub fn pearson(a: &[f64], b: &[f64]) -> Option<f64> {
    assert_eq!(a.len(), b.len(), "two values each");
    let constant = |x: &[f64]| x.iter().all(|v| *v == x[0]);
    if constant(a) || constant(b) {
        return None;
    }
    let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
    let (of_a, of_b) = (mean(a), mean(b));
    let covariance =
        |x: &[f64], x_mean: f64, y: &[f64], y_mean: f64| x.iter().zip(y).map(|(x, y)| (x - x_mean) * (y - y_mean)).sum::<f64>();
    let scale = (covariance(a, of_a, a, of_a) * covariance(b, of_b, b, of_b)).sqrt();
    (scale > 0.0).then(|| (covariance(a, of_a, b, of_b) / scale).clamp(-1.0, 1.0))
}

/// Spearman's rank correlation: Pearson's correlation of the ranks, where equal values share the mean of their ranks. None if all values of
/// a list are equal, or there is none.
///
/// # Panics
/// The lists differ in length.
pub fn spearman(a: &[f64], b: &[f64]) -> Option<f64> {
    pearson(&ranks(a), &ranks(b))
}

/// The rank of each value, from 0; equal values share the mean of their ranks.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&i, &j| values[i].total_cmp(&values[j]));
    let mut ranks = vec![0.0; values.len()];
    let mut place = 0;
    for tied in order.chunk_by(|&i, &j| values[i] == values[j]) {
        let mean = place as f64 + (tied.len() as f64 - 1.0) / 2.0;
        tied.iter().for_each(|&i| ranks[i] = mean);
        place += tied.len();
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spearman_with_ties_agrees_with_scipy() {
        // scipy.stats.spearmanr([1, 2, 2, 4, 5], [2, 1, 3, 3, 9]) = 0.763157894736842
        let rho = spearman(&[1.0, 2.0, 2.0, 4.0, 5.0], &[2.0, 1.0, 3.0, 3.0, 9.0]).unwrap();
        assert!((rho - 0.763_157_894_736_842).abs() < 1e-12, "{rho}");
        assert_eq!(spearman(&[1.0, 2.0, 3.0], &[-1.0, -2.0, -9.0]), Some(-1.0));
        assert_eq!(spearman(&[1.0, 1.0], &[1.0, 2.0]), None);
        assert_eq!(spearman(&[], &[]), None);
    }

    #[test]
    fn scores_and_cosines_have_numpys_correlations() {
        let (gold, cosines) = ([5.0, 3.2, 3.2, 0.0, 1.0, 4.4], [0.9, 0.5, 0.7, 0.1, 0.1, 0.8]);
        assert!((spearman(&gold, &cosines).unwrap() - 0.970_588_235_3).abs() < 1e-10);
        assert!((pearson(&gold, &cosines).unwrap() - 0.969_893_641_2).abs() < 1e-10);
        // Numbers whose mean is rounded are all equal, too.
        assert_eq!((pearson(&[0.1; 3], &[1.0, 2.0, 3.0]), pearson(&[], &[])), (None, None));
    }
}
