//! Layers on the emulated CUDA device: the CPU's outputs, gradients and statistics up to rounding.

use candle_core::DType;

use super::{Outcome, emulated, materials, outcome, relative};
use crate::device::Device;
use crate::nn::cases::{Case, cases};
use crate::nn::params::Params;
use crate::nn::pass::Statistics::{Frozen, Hold, Update};
use crate::nn::pass::{Pass, Precision};
use crate::rng::Key;
use crate::world::solo;

/// The largest relative distance of an output, a gradient or a statistic from those of `exact`, and its name.
fn off(found: &Outcome, exact: &Outcome) -> (f64, String) {
    let named = found.named.iter().map(|(name, value)| (relative(value, &exact.named[name]), name.clone()));
    named.chain([(relative(&found.y, &exact.y), "output".to_string())]).max_by(|a, b| a.0.total_cmp(&b.0)).unwrap()
}

#[test]
fn layers_on_an_emulated_cuda_device_agree_with_the_cpu() {
    let cuda = Device::Cuda(emulated());
    // A network without parameters runs on the CPU.
    let declares = |case: &Case| {
        let mut params = Params::new();
        drop((case.build)(params.root()));
        params.iter().next().is_some()
    };
    for case in cases().into_iter().filter(declares) {
        let run = |device: &Device, dtype, pass: &Pass| {
            let ((params, net), x) = materials(&case, dtype, device);
            outcome(&params, &net, &x, pass)
        };
        let train = Pass::train(Key::new(0), &solo());
        for statistics in [Update, Hold, Frozen] {
            let pass = Pass { recompute: true, ..train.clone().with(statistics) };
            let (distance, name) = off(&run(&cuda, DType::F64, &pass), &run(&Device::Cpu, DType::F64, &pass));
            assert!(distance < 1e-9, "{}: {name} is off by {distance:e} with {statistics:?}", case.name);
        }
        let exact = run(&Device::Cpu, DType::F64, &train);
        for (precision, least) in [(Precision::F32, 1e-6), (Precision::Bf16, 1e-2)] {
            let pass = train.clone().at(precision);
            let [(here, _), (there, name)] = [&Device::Cpu, &cuda].map(|device| off(&run(device, DType::F32, &pass), &exact));
            assert!(
                there < 2.0 * here + least,
                "{}: {name} is off by {there:e} at {precision}, on the CPU by {here:e}",
                case.name
            );
        }
    }
}
