//! Times a training step: forward, backward and an SGD update of a ResNet with a linear classifier, on random numbers.
//!
//!     cargo run --release -p ctk-vision --example step -- DEPTH WIDTH STEM SIZE BATCH STEPS      (18 1 small 32 128 5)
//!
//! The last line is a JSON object: milliseconds (best and median), GFLOP/s counted as three direct forward passes, and by how
//! many MB the process's largest resident size grew over the steps.

use std::time::Instant;

use candle_core::{D, DType, Tensor};
use ctk_core::encoder::Encoder;
use ctk_core::nn::{Layer, Linear, Sequential};
use ctk_core::optim::Optimizer;
use ctk_core::params::{Init, Kind, Param, Params};
use ctk_core::pass::{Pass, Precision};
use ctk_core::recipe::{OptimizerRecipe, SgdRecipe};
use ctk_core::rng::Key;
use ctk_core::world::Solo;
use ctk_core::{Device, Error, Result};
use ctk_vision::resnet::{ResNet, ResnetRecipe, Stem};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize, default: usize| arguments.get(i).map_or(Ok(default), |a| a.parse().map_err(Error::new));
    let width: f64 = arguments.get(1).map_or(Ok(1.0), |a| a.parse().map_err(Error::new))?;
    let stem = if arguments.get(2).is_some_and(|a| a == "imagenet") { Stem::Imagenet } else { Stem::Small };
    let precision = if arguments.get(6).is_some_and(|a| a == "bf16") { Precision::Bf16 } else { Precision::F32 };
    let (depth, size, batch, steps) = (number(0, 18)?, number(3, 32)?, number(4, 128)?, number(5, 5)?);

    let recipe = ResnetRecipe { depth, width, stem, ..ResnetRecipe::default() };
    let mut params = Params::new();
    let encoder = ResNet::new(&recipe, params.root().sub("encoder"))?;
    let normal = Init::Normal { std: 0.03 };
    let linear = Linear::new([10, encoder.width()], true, Kind::Head, normal, params.root().sub("head"));
    let head = Sequential::new(vec![Layer::Linear(linear)], params.sink());
    params.materialise(Key::new(0), DType::F32, &Device::Cpu)?;
    let sgd = SgdRecipe { momentum: 0.9, ..SgdRecipe::default() };
    let mut optimizer = Optimizer::new(&OptimizerRecipe::Sgd(sgd));

    let mut state = 1u64;
    let mut noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    let x: Vec<f32> = (0..batch * size * size * 3).map(|_| noise()).collect();
    let x = Tensor::from_vec(x, (batch, size, size, 3), &Device::Cpu)?;
    let labels = Tensor::from_iter((0..batch).map(|i| (i % 10) as u32), &Device::Cpu)?.unsqueeze(1)?;

    let products: usize = params.iter().filter_map(|p| products(p, &recipe, size)).sum();
    let before = peak();
    let mut times = Vec::new();
    let mut losses = Vec::new();
    for step in 0..steps + 2 {
        let start = Instant::now();
        let pass = Pass::train(Key::new(step as u64), &Solo).at(precision);
        let logits = head.forward(&encoder.encode(&x, &pass)?, &pass)?;
        let picked = logits.gather(&labels, D::Minus1)?;
        let loss = (logits.exp()?.sum_keepdim(D::Minus1)?.log()? - picked)?.mean_all()?;
        let gradients = params.gradients(&loss.backward()?)?;
        optimizer.step(&params, &gradients, 0.01)?;
        losses.push(loss.to_scalar::<f32>()?);
        if step > 1 {
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    times.sort_by(f64::total_cmp);
    let (best, median) = (times[0], times[times.len() / 2]);
    let grown = peak() - before;
    let rate = 6.0 * (batch * products) as f64 / best / 1e6;
    println!(
        "{{\"depth\":{depth},\"width\":{width},\"size\":{size},\"batch\":{batch},\"best\":{best:.1},\"median\":{median:.1},\"gflops\":{rate:.0},\"peak_mb\":{grown:.0},\"losses\":{losses:?}}}"
    );
    Ok(())
}

/// Products of two numbers in one image's forward pass through a convolution; none for other parameters.
fn products(param: &Param, recipe: &ResnetRecipe, size: usize) -> Option<usize> {
    let (4, name) = (param.dims().len(), param.name().strip_prefix("encoder.")?) else { return None };
    let (stem, first) = if recipe.stem == Stem::Imagenet { (size.div_ceil(2), size.div_ceil(4)) } else { (size, size) };
    let side = match name.strip_prefix("layer") {
        None => stem,
        Some(rest) => {
            let group: u32 = rest.split('.').next()?.parse().ok()?;
            // A bottleneck's first convolution comes before its stride.
            let before = group > 1 && recipe.depth >= 50 && rest[1..].starts_with(".0.conv1.");
            first.div_ceil(1 << (group - 1 - u32::from(before)))
        }
    };
    Some(param.dims().iter().product::<usize>() * side * side)
}

/// The process's largest resident size so far in MB; 0 where the system does not tell.
fn peak() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    line.and_then(|l| l.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}
