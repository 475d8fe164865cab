//! Layers on a device that is not the CPU: the same generic code on separate memory must give the CPU's bits.

use std::sync::Arc;

use candle_core::DType;
use ctk_kernels::{Bf16, Cpu, Device, Map, Number, Real};

use super::cases::{Case, cases};
use super::{materials, noise};
use crate::nn::emulated::Emulated;
use crate::nn::flow::{Activation, Behaviour, Chain as _, Context, backward};
use crate::nn::pass::Statistics::{self, Frozen, Hold, Update};
use crate::nn::tensors;

/// The bits of all results of a forward and a backward pass: the output, all gradients, the running statistics.
fn bits<D: Device, T: Number>(device: &D, case: &Case, statistics: Statistics, recompute: bool) -> Vec<(String, Vec<u64>)> {
    let dtype = tensors::dtype::<T::Real>();
    let ((params, net), x) = materials(case, dtype);
    let behaviour = Behaviour { statistics, draws: None };
    let context = Context { device: device.clone(), store: params.gradient_store(), behaviour, keep: true, recompute };
    let x: Map<D, T> = tensors::to_map(&x, device).unwrap();
    let (y, tape) = net.layers.forward(Activation::from(Arc::new(x)), &context).unwrap();
    let y = y.plain();
    let dy = noise(&y.shape(), super::Key::new(2)).to_dtype(dtype).unwrap();
    let dy = Arc::new(tensors::to_map(&dy, device).unwrap());
    let dx = backward(tape.unwrap(), dy, true).unwrap().unwrap();
    let wide = |numbers: Vec<T::Real>| numbers.into_iter().map(|v| v.wide().to_bits()).collect::<Vec<u64>>();
    let tensor = |t: &super::Tensor| {
        let numbers = t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        numbers.into_iter().map(f64::to_bits).collect::<Vec<u64>>()
    };
    let mut all = vec![("output".to_string(), wide(y.load())), ("input".to_string(), wide(dx.load()))];
    let mut gradients: Vec<_> = params.gradient_store().drain().into_iter().collect();
    gradients.sort_by(|a, b| a.0.cmp(&b.0));
    for (name, gradient) in gradients {
        let param = params.iter().find(|p| p.name() == name).unwrap();
        all.push((name, tensor(&gradient.dense(param.dims()).unwrap())));
    }
    all.extend(params.iter().map(|p| (format!("{} afterwards", p.name()), tensor(p.var().as_tensor()))));
    all
}

fn check<T: Number>(case: &Case, recompute: bool) {
    for statistics in [Update, Hold, Frozen] {
        let emulated = Emulated::default();
        let there = bits::<_, T>(&emulated, case, statistics, recompute);
        let here = bits::<_, T>(&Cpu::default(), case, statistics, recompute);
        assert_eq!(here.len(), there.len());
        for ((name, here), (_, there)) in here.iter().zip(&there) {
            assert_eq!(here, there, "{}: {name} with {statistics:?}", case.name);
        }
        assert_eq!(emulated.blocks(), 0, "{}: memory that nobody gave back", case.name);
    }
}

#[test]
fn an_emulated_device_gives_the_cpus_bits() {
    for case in cases() {
        check::<f32>(&case, false);
        check::<Bf16>(&case, false);
        check::<f64>(&case, true);
    }
}
