//! Elementwise updates in place: what optimizers are made of.
//!
//! A ResNet-18 holds 11 million scalars; candle's own elementwise ops run on one thread and allocate each result, which costs
//! a quarter of a training step. On a CPU an [`Update`] runs over fixed blocks on all threads, in f64 whatever the type of the
//! tensors; elsewhere it is made of candle's ops.

use candle_core::{CpuStorage, DType, InplaceOp3, Layout, Tensor, WithDType};
use ctk_kernels::{Cpu, Device as _, Real};
use rayon::prelude::*;

use crate::error::Result;
use crate::nn::tensors;
use ctk_kernels::wide;

/// Elements a block: fixed, so that the number of threads cannot change a sum.
pub(super) const BLOCK: usize = 1 << 14;

/// A new value of d from d, x and y, element by element.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Update {
    /// d ← d·`.0` + x·`.1` + y·`.2`
    Linear(f64, f64, f64),
    /// d ← d·`.0` + x·y·`.1`
    Product(f64, f64),
    /// d ← d·`keep` − `rate`·x / (√y·`root` + `eps`)
    Adaptive { keep: f64, rate: f64, root: f64, eps: f64 },
}

impl Update {
    /// Changes `d` in place. All three have d's shape and type.
    pub(super) fn apply(self, d: &Tensor, x: &Tensor, y: &Tensor) -> Result<()> {
        let (x, y) = (x.contiguous()?, y.contiguous()?);
        if d.device().is_cpu() {
            return Ok(d.inplace_op3(&x, &y, &self)?);
        }
        Ok(d.flatten_all()?.slice_set(&self.plain(d, &x, &y)?.flatten_all()?, 0, 0)?)
    }

    /// The new value by candle's ops.
    fn plain(self, d: &Tensor, x: &Tensor, y: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Update::Linear(a, b, c) => (((d * a)? + (x * b)?)? + (y * c)?)?,
            Update::Product(a, b) => ((d * a)? + ((x * y)? * b)?)?,
            Update::Adaptive { keep, rate, root, eps } => ((d * keep)? - ((x * rate)? / ((y.sqrt()? * root)? + eps)?)?)?,
        })
    }

    fn host<T: WithDType>(self, d: &mut [T], x: &[T], y: &[T]) {
        match self {
            Update::Linear(a, b, c) => zip(d, x, y, |d, x, y| d * a + x * b + y * c),
            Update::Product(a, b) => zip(d, x, y, |d, x, y| d * a + x * y * b),
            Update::Adaptive { keep, rate, root, eps } => zip(d, x, y, |d, x, y| d * keep - rate * x / (y.sqrt() * root + eps)),
        }
    }
}

fn zip<T: WithDType>(d: &mut [T], x: &[T], y: &[T], f: impl Fn(f64, f64, f64) -> f64 + Sync) {
    d.par_chunks_mut(BLOCK).zip(x.par_chunks(BLOCK).zip(y.par_chunks(BLOCK))).for_each(|(d, (x, y))| {
        wide(
            #[inline(always)]
            || {
                for (d, (x, y)) in d.iter_mut().zip(x.iter().zip(y)) {
                    *d = T::from_f64(f(d.to_f64(), x.to_f64(), y.to_f64()));
                }
            },
        );
    });
}

impl InplaceOp3 for Update {
    fn name(&self) -> &'static str {
        "optimizer-update"
    }

    fn cpu_fwd(
        &self,
        d: &mut CpuStorage,
        dl: &Layout,
        x: &CpuStorage,
        xl: &Layout,
        y: &CpuStorage,
        yl: &Layout,
    ) -> candle_core::Result<()> {
        let range = |l: &Layout| l.contiguous_offsets().map(|(from, to)| from..to);
        let (Some(dr), Some(xr), Some(yr)) = (range(dl), range(xl), range(yl)) else {
            candle_core::bail!("an optimizer updates contiguous tensors only")
        };
        if dr.len() != xr.len() || dr.len() != yr.len() {
            candle_core::bail!("shapes differ: {:?}, {:?}, {:?}", dl.shape(), xl.shape(), yl.shape());
        }
        match (d, x, y) {
            (CpuStorage::F32(d), CpuStorage::F32(x), CpuStorage::F32(y)) => self.host(&mut d[dr], &x[xr], &y[yr]),
            (CpuStorage::F64(d), CpuStorage::F64(x), CpuStorage::F64(y)) => self.host(&mut d[dr], &x[xr], &y[yr]),
            _ => candle_core::bail!("an optimizer updates f32 or f64 tensors, all of one type"),
        }
        Ok(())
    }
}

/// ‖x + y·`scale`‖₂ in f64, summed in a fixed order.
pub(super) fn norm(x: &Tensor, y: &Tensor, scale: f64) -> Result<f64> {
    fn of<R: Real>(x: &Tensor, y: &Tensor, scale: f64) -> Result<f64> {
        tensors::read(x, |x: &[R]| tensors::read(y, |y: &[R]| Cpu::default().norm(x, y, scale)))?
    }
    match x.dtype() {
        DType::F32 => of::<f32>(x, y, scale),
        DType::F64 => of::<f64>(x, y, scale),
        other => Err(crate::Error::new(format!("an optimizer reads f32 or f64 tensors, not {other:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn threads_and_candles_ops_give_the_same() {
        let n = BLOCK * 2 + 17;
        let wave =
            |f: f64| Tensor::from_vec((0..n).map(|i| (i as f64 * f).sin().abs()).collect::<Vec<_>>(), n, &Device::Cpu).unwrap();
        let (x, y) = (wave(0.3), wave(0.7));
        let updates = [
            Update::Linear(0.9, 0.5, -0.25),
            Update::Product(0.9, 0.1),
            Update::Adaptive { keep: 0.99, rate: 0.1, root: 1.5, eps: 1e-8 },
        ];
        for update in updates {
            for (dtype, bound) in [(DType::F64, 1e-14), (DType::F32, 1e-5)] {
                let [d, x, y] = [&wave(0.1), &x, &y].map(|t| t.to_dtype(dtype).unwrap().copy().unwrap());
                let plain = update.plain(&d, &x, &y).unwrap();
                update.apply(&d, &x, &y).unwrap();
                let scale = plain.abs().unwrap().to_dtype(DType::F64).unwrap().max(0).unwrap().to_scalar::<f64>().unwrap();
                let worst = (d - plain).unwrap().abs().unwrap().to_dtype(DType::F64).unwrap().max(0).unwrap();
                assert!(worst.to_scalar::<f64>().unwrap() <= bound * scale, "{update:?} {dtype:?}");
            }
        }
        let expected: f64 =
            x.to_vec1::<f64>().unwrap().iter().zip(y.to_vec1::<f64>().unwrap()).map(|(x, y)| (x - 2.0 * y).powi(2)).sum();
        assert!((norm(&x, &y, -2.0).unwrap() - expected.sqrt()).abs() < 1e-10);
        let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        assert_eq!(one.install(|| norm(&x, &y, 0.1).unwrap()).to_bits(), norm(&x, &y, 0.1).unwrap().to_bits());
    }

    #[test]
    fn other_types_and_shapes_are_errors() {
        let of = |dtype, n: usize| Tensor::zeros(n, dtype, &Device::Cpu).unwrap();
        let update = Update::Linear(1.0, 1.0, 1.0);
        assert!(update.apply(&of(DType::F16, 2), &of(DType::F16, 2), &of(DType::F16, 2)).is_err());
        assert!(update.apply(&of(DType::F32, 2), &of(DType::F64, 2), &of(DType::F32, 2)).is_err());
        assert!(update.apply(&of(DType::F32, 2), &of(DType::F32, 3), &of(DType::F32, 2)).is_err());
    }
}
