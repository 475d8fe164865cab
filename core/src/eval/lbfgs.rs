//! L-BFGS: minimises a smooth function from its value and gradient (Nocedal & Wright 2006, algorithm 7.4).

use std::collections::VecDeque;

/// Pairs of steps and gradient changes that are remembered.
const MEMORY: usize = 10;

/// When to stop.
pub(super) struct Stop {
    /// The gradient counts as 0 if no component is larger.
    pub gradient: f64,
    /// The largest number of iterations.
    pub iterations: usize,
}

/// Moves `x` to a minimum of `f`, which gives its value and gradient. Returns the number of iterations.
///
/// Steps are shortened until the value falls enough (Armijo). A pair without positive curvature is dropped, so that the direction always
/// descends.
pub(super) fn minimise(
    x: &mut Vec<f64>,
    stop: &Stop,
    mut f: impl FnMut(&[f64]) -> crate::Result<(f64, Vec<f64>)>,
) -> crate::Result<usize> {
    let (mut value, mut gradient) = f(x)?;
    let mut pairs: VecDeque<(Vec<f64>, Vec<f64>, f64)> = VecDeque::new();
    for iteration in 0..stop.iterations {
        if gradient.iter().all(|g| g.abs() <= stop.gradient) {
            return Ok(iteration);
        }
        let direction = direction(&gradient, &pairs);
        let slope = dot(&direction, &gradient);
        // Before the first step the scale is unknown.
        let mut step = if pairs.is_empty() { 1.0 / dot(&gradient, &gradient).sqrt().max(1.0) } else { 1.0 };
        let (next, next_value, next_gradient) = loop {
            let next: Vec<f64> = x.iter().zip(&direction).map(|(x, d)| x + step * d).collect();
            let (v, g) = f(&next)?;
            // Values carry rounding errors, below which a decrease cannot be measured.
            if v <= value + 1e-4 * step * slope + 1e-9 * value.abs() {
                break (next, v, g);
            }
            // The minimum of the parabola through both values and the slope, within bounds.
            let best = -slope * step * step / (2.0 * (v - value - slope * step));
            step = best.clamp(0.1 * step, 0.5 * step);
            if !step.is_finite() || step < 1e-10 {
                return Ok(iteration);
            }
        };
        let s: Vec<f64> = next.iter().zip(x.iter()).map(|(a, b)| a - b).collect();
        let y: Vec<f64> = next_gradient.iter().zip(&gradient).map(|(a, b)| a - b).collect();
        let curvature = dot(&s, &y);
        if curvature > 1e-10 * dot(&y, &y).sqrt() * dot(&s, &s).sqrt() {
            if pairs.len() == MEMORY {
                pairs.pop_front();
            }
            pairs.push_back((s, y, 1.0 / curvature));
        }
        (*x, value, gradient) = (next, next_value, next_gradient);
    }
    Ok(stop.iterations)
}

/// −H·gradient by the two-loop recursion.
fn direction(gradient: &[f64], pairs: &VecDeque<(Vec<f64>, Vec<f64>, f64)>) -> Vec<f64> {
    let mut q: Vec<f64> = gradient.iter().map(|g| -g).collect();
    let mut alphas = Vec::with_capacity(pairs.len());
    for (s, y, rho) in pairs.iter().rev() {
        let alpha = rho * dot(s, &q);
        add(&mut q, y, -alpha);
        alphas.push(alpha);
    }
    if let Some((_, y, rho)) = pairs.back() {
        let scale = 1.0 / (rho * dot(y, y));
        q.iter_mut().for_each(|v| *v *= scale);
    }
    for ((s, y, rho), alpha) in pairs.iter().zip(alphas.into_iter().rev()) {
        let beta = rho * dot(y, &q);
        add(&mut q, s, alpha - beta);
    }
    q
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add(to: &mut [f64], from: &[f64], scale: f64) {
    to.iter_mut().zip(from).for_each(|(t, f)| *t += scale * f);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_minimum_of_a_stretched_bowl_and_of_rosenbrock() {
        let mut x = vec![1.0; 50];
        let bowl = |x: &[f64]| {
            let stiff = |i: usize| 10f64.powf(i as f64 / 12.0);
            let value = x.iter().enumerate().map(|(i, v)| 0.5 * stiff(i) * (v - 3.0).powi(2)).sum();
            Ok((value, x.iter().enumerate().map(|(i, v)| stiff(i) * (v - 3.0)).collect()))
        };
        let iterations = minimise(&mut x, &Stop { gradient: 1e-6, iterations: 2000 }, bowl).unwrap();
        assert!(iterations < 2000 && x.iter().all(|v| (v - 3.0).abs() < 1e-6));

        let mut x = vec![-1.2, 1.0];
        let rosenbrock = |x: &[f64]| {
            let (a, b) = (1.0 - x[0], x[1] - x[0] * x[0]);
            Ok((a * a + 100.0 * b * b, vec![-2.0 * a - 400.0 * x[0] * b, 200.0 * b]))
        };
        minimise(&mut x, &Stop { gradient: 1e-8, iterations: 1000 }, rosenbrock).unwrap();
        assert!((x[0] - 1.0).abs() < 1e-6 && (x[1] - 1.0).abs() < 1e-6);
    }
}
