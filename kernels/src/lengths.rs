//! Rows scaled to length 1, and the gradient through that.

use rayon::prelude::*;

use crate::blocks::block_rows;
use crate::element::Real;
use crate::wide;

/// Added to the square of a length: far below any row that has a direction, so that a row of zeros stays finite.
const FLOOR: f64 = 1e-24;

/// z = x/√(‖x‖² + 10⁻²⁴) for each row of `width` values; `inverse` is set to what each row was multiplied by.
pub fn unit_rows<R: Real>(x: &[R], width: usize, z: &mut [R], inverse: &mut [R]) {
    let block = block_rows(width);
    z.par_chunks_mut(block * width).zip(inverse.par_chunks_mut(block)).zip(x.par_chunks(block * width)).for_each(
        |((z, inverse), x)| {
            wide!({
                for ((z, inverse), x) in z.chunks_exact_mut(width).zip(inverse).zip(x.chunks_exact(width)) {
                    let scale = R::of(1.0) / (R::dot(x, x) + R::of(FLOOR)).sqrt();
                    *inverse = scale;
                    z.iter_mut().zip(x).for_each(|(z, x)| *z = *x * scale);
                }
            });
        },
    );
}

/// dz becomes dx = (dz − z(z·dz))·inverse in place, the gradient of [`unit_rows`].
pub fn unit_rows_gradient<R: Real>(z: &[R], inverse: &[R], width: usize, dz: &mut [R]) {
    let block = block_rows(width);
    dz.par_chunks_mut(block * width).zip(z.par_chunks(block * width)).zip(inverse.par_chunks(block)).for_each(
        |((dz, z), inverse)| {
            wide!({
                for ((dz, z), inverse) in dz.chunks_exact_mut(width).zip(z.chunks_exact(width)).zip(inverse) {
                    let along = R::dot(z, dz);
                    dz.iter_mut().zip(z).for_each(|(dz, z)| *dz = (*dz - *z * along) * *inverse);
                }
            });
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folds::Folds;

    #[test]
    fn rows_have_length_one_and_the_gradient_is_the_difference() {
        let width = 37;
        let x: Vec<f64> = (0..5 * width).map(|i| if i / width == 3 { 0.0 } else { (i as f64 * 0.7).sin() }).collect();
        let weight: Vec<f64> = (0..x.len()).map(|i| (i as f64 * 0.3).cos()).collect();
        let run = |x: &[f64]| {
            let (mut z, mut inverse) = (vec![f64::NAN; x.len()], vec![f64::NAN; 5]);
            unit_rows(x, width, &mut z, &mut inverse);
            (z, inverse)
        };
        let (z, inverse) = run(&x);
        for (row, z) in z.chunks(width).enumerate() {
            assert!((f64::dot(z, z) - if row == 3 { 0.0 } else { 1.0 }).abs() < 1e-14);
        }
        let mut dx = weight.clone();
        unit_rows_gradient(&z, &inverse, width, &mut dx);
        assert!(dx.iter().all(|d| d.is_finite()));
        for at in (0..x.len()).step_by(3).filter(|at| at / width != 3) {
            let value = |h: f64| {
                let mut moved = x.clone();
                moved[at] += h;
                run(&moved).0.iter().zip(&weight).map(|(z, w)| z * w).sum::<f64>()
            };
            let difference = (value(1e-6) - value(-1e-6)) / 2e-6;
            assert!((dx[at] - difference).abs() < 1e-8, "{at}: {} {difference}", dx[at]);
        }
    }
}
