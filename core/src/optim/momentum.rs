//! Velocity and weight in one pass over memory: a step of SGD is bound by what it reads and writes, and a large network's
//! weights, velocities and gradients leave the cache between two passes.
//!
//! candle's operations change one tensor. The velocity's operation therefore holds what it has been given while the weight's,
//! within it, asks for the other.

use std::sync::Mutex;

use candle_core::{CpuStorage, InplaceOp1, InplaceOp2, Layout, Tensor, WithDType};
use rayon::prelude::*;

use super::update::{BLOCK, Update};
use crate::error::Result;
use ctk_kernels::wide;

/// v ← v·`velocity[0]` + g·`velocity[1]` + w·`velocity[2]`, then w ← w·`weight[0]` + g·`weight[1]` + v·`weight[2]`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Momentum {
    pub velocity: [f64; 3],
    pub weight: [f64; 3],
}

impl Momentum {
    /// Changes `w` and `v` in place. All three have one shape and type, and memory of their own.
    pub(super) fn apply(self, w: &Tensor, v: &Tensor, g: &Tensor) -> Result<()> {
        let g = g.contiguous()?;
        if w.device().is_cpu() {
            return Ok(v.inplace_op2(&g, &Outer { step: self, w })?);
        }
        let Momentum { velocity: [a, b, c], weight: [d, e, f] } = self;
        Update::Linear(a, b, c).apply(v, &g, w)?;
        Update::Linear(d, e, f).apply(w, &g, v)
    }

    /// Blocks as [`Update`] has them, each number rounded as there: the same bits as two passes.
    fn host<T: WithDType>(self, w: &mut [T], v: &mut [T], g: &[T]) {
        let Momentum { velocity: [a, b, c], weight: [d, e, f] } = self;
        w.par_chunks_mut(BLOCK).zip(v.par_chunks_mut(BLOCK)).zip(g.par_chunks(BLOCK)).for_each(|((w, v), g)| {
            wide(
                #[inline(always)]
                || {
                    for ((w, v), g) in w.iter_mut().zip(v).zip(g) {
                        let (old, g) = (w.to_f64(), g.to_f64());
                        *v = T::from_f64(v.to_f64() * a + g * b + old * c);
                        *w = T::from_f64(old * d + g * e + v.to_f64() * f);
                    }
                },
            );
        });
    }
}

/// The velocity's operation.
struct Outer<'a> {
    step: Momentum,
    w: &'a Tensor,
}

impl InplaceOp2 for Outer<'_> {
    fn name(&self) -> &'static str {
        "momentum"
    }

    fn cpu_fwd(&self, v: &mut CpuStorage, vl: &Layout, g: &CpuStorage, gl: &Layout) -> candle_core::Result<()> {
        let (Some(vr), Some(gr)) = (vl.contiguous_offsets(), gl.contiguous_offsets()) else {
            candle_core::bail!("an optimizer updates contiguous tensors only")
        };
        let rest = match (v, g) {
            (CpuStorage::F32(v), CpuStorage::F32(g)) => Rest::F32(&mut v[vr.0..vr.1], &g[gr.0..gr.1]),
            (CpuStorage::F64(v), CpuStorage::F64(g)) => Rest::F64(&mut v[vr.0..vr.1], &g[gr.0..gr.1]),
            _ => candle_core::bail!("an optimizer updates f32 or f64 tensors, all of one type"),
        };
        self.w.inplace_op1(&Inner { step: self.step, rest: Mutex::new(rest) })
    }
}

/// Velocity and gradient.
enum Rest<'a> {
    F32(&'a mut [f32], &'a [f32]),
    F64(&'a mut [f64], &'a [f64]),
}

/// The weight's operation.
struct Inner<'a> {
    step: Momentum,
    rest: Mutex<Rest<'a>>,
}

impl InplaceOp1 for Inner<'_> {
    fn name(&self) -> &'static str {
        "momentum"
    }

    fn cpu_fwd(&self, w: &mut CpuStorage, wl: &Layout) -> candle_core::Result<()> {
        let (Some((from, to)), Ok(mut rest)) = (wl.contiguous_offsets(), self.rest.lock()) else {
            candle_core::bail!("an optimizer updates contiguous tensors only")
        };
        let same = |v: usize, g: usize| v == to - from && g == v;
        match (w, &mut *rest) {
            (CpuStorage::F32(w), Rest::F32(v, g)) if same(v.len(), g.len()) => self.step.host(&mut w[from..to], v, g),
            (CpuStorage::F64(w), Rest::F64(v, g)) if same(v.len(), g.len()) => self.step.host(&mut w[from..to], v, g),
            _ => candle_core::bail!("an optimizer updates tensors of one shape and type, f32 or f64"),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    #[test]
    fn one_pass_gives_the_bits_of_two() {
        let n = BLOCK + 19;
        let wave = |f: f64| Tensor::from_vec((0..n).map(|i| (i as f64 * f).sin()).collect::<Vec<_>>(), n, &Device::Cpu).unwrap();
        let steps = [
            ([0.9, 1.0, 1e-4], [1.0, 0.0, -0.05]),
            ([0.9, 1.0, 1e-4], [1.0 - 5e-6, -0.05, -0.045]),
            ([0.9, 0.3, 0.0], [1.0, 0.0, -1.0]),
        ];
        for dtype in [DType::F32, DType::F64] {
            for (velocity, weight) in steps {
                let [w, v, g] = [0.1, 0.3, 0.7].map(|f| wave(f).to_dtype(dtype).unwrap());
                let [w2, v2] = [&w, &v].map(|t| t.copy().unwrap());
                Momentum { velocity, weight }.apply(&w, &v, &g).unwrap();
                Update::Linear(velocity[0], velocity[1], velocity[2]).apply(&v2, &g, &w2).unwrap();
                Update::Linear(weight[0], weight[1], weight[2]).apply(&w2, &g, &v2).unwrap();
                for (one, two) in [(w, w2), (v, v2)] {
                    let bits = |t: Tensor| t.to_dtype(DType::F64).unwrap().to_vec1::<f64>().unwrap();
                    assert!(bits(one).iter().zip(bits(two)).all(|(a, b)| a.to_bits() == b.to_bits()), "{dtype:?} {velocity:?}");
                }
            }
        }
    }

    #[test]
    fn shapes_and_types_must_be_one() {
        let of = |n: usize, dtype| Tensor::zeros(n, dtype, &Device::Cpu).unwrap();
        let step = Momentum { velocity: [0.9, 1.0, 0.0], weight: [1.0, 0.0, -0.1] };
        assert!(step.apply(&of(3, DType::F32), &of(3, DType::F32), &of(4, DType::F32)).is_err());
        assert!(step.apply(&of(3, DType::F32), &of(3, DType::F64), &of(3, DType::F64)).is_err());
    }
}
