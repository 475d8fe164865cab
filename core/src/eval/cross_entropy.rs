//! Cross entropy of rows of logits on the host, −log softmax(s)ᵧ in nats. The row's maximum is subtracted first, so that nothing overflows.

/// The cross entropy of the row `s` of logits with the class `label`. Exponentials and their sum are computed in f64.
///
/// # Panics
/// If the row has no such class.
pub fn cross_entropy(s: &[f32], label: usize) -> f64 {
    let top = largest(s);
    let sum: f64 = s.iter().map(|v| f64::from(v - top).exp()).sum();
    sum.ln() - f64::from(s[label] - top)
}

/// The same with exponentials in f32; the row is replaced by its gradient, softmax(s) − onehot(label).
pub(super) fn into_gradient(s: &mut [f32], label: usize) -> f64 {
    let top = largest(s);
    let truth = s[label] - top;
    s.iter_mut().for_each(|v| *v = (*v - top).exp());
    let sum: f64 = s.iter().map(|e| f64::from(*e)).sum();
    s.iter_mut().for_each(|e| *e = (f64::from(*e) / sum) as f32);
    s[label] -= 1.0;
    sum.ln() - f64::from(truth)
}

fn largest(s: &[f32]) -> f32 {
    s.iter().copied().fold(f32::NEG_INFINITY, f32::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_of_plain_logarithms_and_large_logits_do_not_overflow() {
        let s = [1.0_f32, 2.0, 3.0];
        let plain = |label: usize| s.iter().map(|v| f64::from(*v).exp()).sum::<f64>().ln() - f64::from(s[label]);
        for label in 0..3 {
            assert!((cross_entropy(&s, label) - plain(label)).abs() < 1e-12);
            assert!((cross_entropy(&s.map(|v| v + 1e4), label) - plain(label)).abs() < 1e-12);
            assert!((into_gradient(&mut s.clone(), label) - plain(label)).abs() < 1e-6);
        }
        assert!((cross_entropy(&[0.0; 9], 4) - 9f64.ln()).abs() < 1e-12, "equal logits know nothing");
    }

    #[test]
    fn the_gradient_is_that_of_finite_differences() {
        let s = [0.5_f32, -1.0, 0.25, 2.0];
        let mut gradient = s;
        into_gradient(&mut gradient, 2);
        for i in 0..s.len() {
            // A power of two, so that both steps are exact in f32.
            let step = 1.0 / 512.0;
            let at = |by: f32| {
                let mut s = s;
                s[i] += by;
                cross_entropy(&s, 2)
            };
            let slope = (at(step) - at(-step)) / (2.0 * f64::from(step));
            assert!((slope - f64::from(gradient[i])).abs() < 1e-5, "{i}: {slope} {}", gradient[i]);
        }
    }
}
