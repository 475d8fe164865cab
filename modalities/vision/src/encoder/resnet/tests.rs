//! Tests of the published networks' parameter counts, and of whole networks against the reference and candle's ResNet.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use candle_nn::{Module, VarBuilder};
use candle_transformers::models::resnet;
use ctk_core::model::encoder::Encoder as _;
use ctk_core::nn::params::ParamKind;
use ctk_core::nn::pass::{Pass, Precision, Statistics};
use ctk_core::nn::rows::Rows;
use ctk_core::rng::Key;
use ctk_core::world::solo;
use rand::Rng as _;

use super::*;

fn declare(recipe: &ResnetRecipe) -> (Params, ResNet) {
    let mut params = Params::new();
    let net = ResNet::new(recipe, params.root().sub("encoder")).unwrap();
    (params, net)
}

fn noise(dims: &[usize], key: Key) -> Tensor {
    let mut rng = key.rng();
    let values: Vec<f64> = (0..dims.iter().product()).map(|_| rng.random_range(-1.0..1.0)).collect();
    Tensor::from_vec(values, dims, &Device::Cpu).unwrap()
}

/// Initial values, except that scales, shifts and statistics differ from their constants: otherwise a block's body would be hidden by a
/// scale of zero.
fn materialise(params: &Params, dtype: DType, device: &ctk_core::Device) {
    params.materialise(Key::new(1), dtype, device).unwrap();
    for p in params.iter().filter(|p| p.dims().len() == 1) {
        let centre = if p.name().ends_with("weight") || p.name().ends_with("running_var") { 0.8 } else { 0.0 };
        let value = (noise(p.dims(), Key::new(2).of(p.name())).affine(0.3, centre)).unwrap();
        p.set(&value).unwrap();
    }
}

#[test]
fn counts_are_the_published_ones() {
    let v2 = |depth, width, sk_ratio| ResnetRecipe { depth, width, stem: Stem::Imagenet, sk_ratio, ..Default::default() };
    let r18 = |stem, variant| ResnetRecipe { stem, variant, ..Default::default() };
    for (recipe, count) in [
        (v2(50, 1.0, 0.0), 23_508_032),
        (v2(50, 1.0, 0.0625), 35_215_584),
        (v2(50, 2.0, 0.0), 93_907_072),
        (v2(50, 2.0, 0.0625), 140_306_048),
        (v2(152, 1.0, 0.0), 58_143_808),
        (v2(152, 1.0, 0.0625), 88_940_896),
        (v2(152, 3.0, 0.0625), 794_704_160),
        (r18(Stem::Imagenet, Variant::Google), 11_180_736),
        (r18(Stem::Imagenet, Variant::Torchvision), 11_176_512),
        (r18(Stem::Small, Variant::Google), 11_173_056),
        (r18(Stem::Small, Variant::Torchvision), 11_168_832),
    ] {
        let (params, net) = declare(&recipe);
        assert_eq!(params.count(""), count, "{recipe:?}");
        let google = declare(&ResnetRecipe { variant: Variant::Google, ..recipe.clone() }).0.count("");
        assert_eq!(google == count, recipe.depth > 18 || recipe.variant == Variant::Google);
        let width = if recipe.depth > 18 { 2048.0 * recipe.width } else { 512.0 };
        assert_eq!(net.width(), width as usize);
    }
    // Counted in timm.
    let d = ResnetRecipe { variant: Variant::ResnetD, ..v2(50, 1.0, 0.0) };
    assert_eq!(declare(&d).0.count(""), 23_527_264);
}

#[test]
fn cifars_family_has_three_groups() {
    // Counted in PyTorch.
    for (depth, count) in [(20, 271_824), (56, 855_120), (110, 1_730_064)] {
        let (params, net) = declare(&ResnetRecipe { depth, ..Default::default() });
        assert_eq!((params.count(""), net.width()), (count, 64), "ResNet-{depth}");
    }
}

fn off(a: &Tensor, b: &Tensor) -> f64 {
    let wide = |t: &Tensor| t.to_dtype(DType::F64).unwrap();
    let norm = |t: Tensor| t.sqr().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap().sqrt();
    norm((wide(a) - wide(b)).unwrap()) / (norm(wide(b)) + 1e-6)
}

/// Features, and every gradient of Σ features·noise.
fn learn(recipe: &ResnetRecipe, dtype: DType, exact: bool, size: usize) -> HashMap<String, Tensor> {
    let (params, net) = declare(recipe);
    let net = if exact { net.reference() } else { net };
    learned(&params, &net, dtype, &ctk_core::Device::Cpu, size, Precision::F32)
}

fn learned(
    params: &Params,
    net: &ResNet,
    dtype: DType,
    device: &ctk_core::Device,
    size: usize,
    precision: Precision,
) -> HashMap<String, Tensor> {
    materialise(params, dtype, device);
    let x = noise(&[5, size, size, 3], Key::new(3)).to_dtype(dtype).unwrap();
    let pass = Pass::train(Key::new(0), &solo()).at(precision);
    let (h, tape) = net.encode(&x, &Rows::alone(5), &pass).unwrap();
    let weights = noise(h.dims(), Key::new(4)).to_dtype(dtype).unwrap();
    let dx = tape.play(&weights, true).unwrap().unwrap();
    let mut all = HashMap::from([("h".to_string(), h), ("x".to_string(), dx)]);
    for (p, gradient) in params.iter().zip(params.gradients().unwrap()) {
        match p.kind() {
            ParamKind::Buffer => all.insert(p.name().to_string(), p.tensor().unwrap()),
            _ => {
                let gradient = gradient.unwrap_or_else(|| panic!("{} has no gradient", p.name()));
                all.insert(p.name().to_string(), gradient.dense(p.dims()).unwrap())
            }
        };
    }
    all
}

#[test]
fn networks_on_an_emulated_cuda_device_agree_with_the_cpu() {
    let (cuda, cpu) = (ctk_core::Device::open("emulated").unwrap().0, ctk_core::Device::Cpu);
    let learn = |recipe: &ResnetRecipe, dtype, device: &ctk_core::Device, size, precision| {
        let (params, net) = declare(recipe);
        learned(&params, &net, dtype, device, size, precision)
    };
    let narrow = ResnetRecipe { width: 0.25, ..Default::default() };
    for (recipe, size) in [
        (ResnetRecipe { stem: Stem::Imagenet, variant: Variant::Google, ..narrow.clone() }, 33),
        (ResnetRecipe { depth: 20, ..Default::default() }, 10),
        (ResnetRecipe { depth: 50, stem: Stem::Imagenet, sk_ratio: 0.0625, ..narrow.clone() }, 37),
        (ResnetRecipe { stem: Stem::Imagenet, variant: Variant::ResnetD, ..narrow }, 37),
    ] {
        // The same masks of ReLUs only where rounding is far below the values.
        let exact = learn(&recipe, DType::F64, &cpu, size, Precision::F32);
        for (name, value) in learn(&recipe, DType::F64, &cuda, size, Precision::F32) {
            assert!(off(&value, &exact[&name]) < 1e-9, "{recipe:?}: {name} is off by {:e}", off(&value, &exact[&name]));
        }
        let features = |device, precision| learn(&recipe, DType::F32, device, size, precision).remove("h").unwrap();
        let exact = &exact["h"];
        let [single, half] = [Precision::F32, Precision::Bf16].map(|precision| off(&features(&cuda, precision), exact));
        // Deep random networks enlarge the rounding of bf16: it is compared with the CPU's own.
        let own = off(&features(&cpu, Precision::Bf16), exact);
        assert!(
            single < 1e-4 && half < 1.5 * own + 0.01,
            "{recipe:?}: off by {single:e} in f32, {half:e} in bf16, on the CPU {own:e}"
        );
    }
}

#[test]
fn networks_agree_with_their_reference() {
    let narrow = ResnetRecipe { width: 0.25, ..Default::default() };
    for (recipe, size) in [
        (narrow.clone(), 9),
        (ResnetRecipe { stem: Stem::Imagenet, variant: Variant::Google, ..narrow.clone() }, 33),
        (ResnetRecipe { depth: 20, ..Default::default() }, 10),
        (ResnetRecipe { depth: 50, stem: Stem::Imagenet, sk_ratio: 0.0625, ..narrow.clone() }, 37),
        (
            ResnetRecipe {
                depth: 50,
                stem: Stem::Imagenet,
                sk_ratio: 0.0625,
                variant: Variant::Simclrv2Pytorch,
                ..narrow.clone()
            },
            37,
        ),
        (ResnetRecipe { stem: Stem::Imagenet, variant: Variant::ResnetD, ..narrow }, 37),
    ] {
        let reference = learn(&recipe, DType::F64, true, size);
        for (name, value) in learn(&recipe, DType::F64, false, size) {
            assert!(off(&value, &reference[&name]) < 1e-9, "{recipe:?}: {name} is off by {:e}", off(&value, &reference[&name]));
        }
    }
}

#[test]
fn features_agree_with_candles_resnet() {
    for depth in [18, 50] {
        let (params, net) = declare(&ResnetRecipe { depth, stem: Stem::Imagenet, ..Default::default() });
        materialise(&params, DType::F32, &ctk_core::Device::Cpu);
        let x = noise(&[2, 61, 50, 3], Key::new(5)).to_dtype(DType::F32).unwrap();
        let ours = net.encode(&x, &Rows::alone(x.dims()[0]), &Pass::eval()).unwrap().0;
        let weights = params.section("encoder").unwrap().into_iter().collect();
        let theirs = if depth == 18 { resnet::resnet18_no_final_layer } else { resnet::resnet50_no_final_layer };
        let theirs = theirs(VarBuilder::from_tensors(weights, DType::F32, &Device::Cpu)).unwrap();
        let theirs = theirs.forward(&x.permute((0, 3, 1, 2)).unwrap().contiguous().unwrap()).unwrap();
        assert!(off(&ours, &theirs) < 1e-4, "ResNet-{depth} is off by {:e}", off(&ours, &theirs));
    }
}

#[test]
fn any_image_has_features() {
    for stem in [Stem::Small, Stem::Imagenet] {
        let (params, net) = declare(&ResnetRecipe { width: 0.25, stem, ..Default::default() });
        materialise(&params, DType::F32, &ctk_core::Device::Cpu);
        for dims in [[1, 1, 1, 3], [2, 1, 5, 3], [1, 33, 2, 3]] {
            let x = noise(&dims, Key::new(6)).to_dtype(DType::F32).unwrap();
            let h = net.encode(&x, &Rows::alone(x.dims()[0]), &Pass::eval()).unwrap().0;
            assert_eq!(h.dims(), [dims[0], net.width()]);
            assert!(h.sum_all().unwrap().to_scalar::<f32>().unwrap().is_finite());
        }
        let one = noise(&[1, 1, 1, 3], Key::new(6)).to_dtype(DType::F32).unwrap();
        let error = net.encode(&one, &Rows::alone(1), &Pass::eval().with(Statistics::Hold)).err().unwrap().to_string();
        assert!(error.contains("encoder.") && error.contains("hint"), "{error}");
    }
}

#[test]
fn a_fresh_block_is_its_shortcut() {
    let (params, net) = declare(&ResnetRecipe { width: 0.25, ..Default::default() });
    params.materialise(Key::new(1), DType::F32, &ctk_core::Device::Cpu).unwrap();
    let last: Vec<_> = params.iter().filter(|p| p.name().contains("layer") && p.name().ends_with("bn2.weight")).collect();
    assert_eq!(last.len(), 8);
    assert!(last.iter().all(|p| p.var().max_all().unwrap().to_scalar::<f32>().unwrap() == 0.0));
    let x = noise(&[2, 8, 8, 3], Key::new(1)).to_dtype(DType::F32).unwrap();
    let before = net.encode(&x, &Rows::alone(x.dims()[0]), &Pass::eval()).unwrap().0;
    for p in params.iter().filter(|p| p.name().contains("layer1.0.conv")) {
        p.var().set(&p.var().zeros_like().unwrap()).unwrap();
    }
    assert_eq!(off(&net.encode(&x, &Rows::alone(x.dims()[0]), &Pass::eval()).unwrap().0, &before), 0.0);
}

#[test]
fn recipes_are_checked_where_they_are_wrong() {
    let parse = |text: &str| toml::from_str::<ResnetRecipe>(text);
    assert_eq!(parse("depth = 50\nstem = \"imagenet\"").unwrap().stem, Stem::Imagenet);
    for (text, word) in [
        ("depth = 19", "34"),
        ("width = 0.1", "0.25"),
        ("sk_ratio = -1.0", "sk_ratio"),
        ("stem = \"big\"", "imagenet"),
        ("deep = 1", "depth"),
    ] {
        let error = parse(text).unwrap_err().to_string();
        assert!(error.contains(word) && error.contains("line 1"), "{error}");
    }
    let shallow = parse("sk_ratio = 0.0625").unwrap();
    assert_eq!(shallow.check().unwrap_err().exit_code(), 2);
    assert!(ResNet::new(&shallow, Params::new().root()).is_err());
    assert!(ResnetRecipe { depth: 26, ..Default::default() }.check().is_err());
    let large = ResnetRecipe { depth: 20, stem: Stem::Imagenet, ..Default::default() }.check().unwrap_err().to_string();
    assert!(large.contains("small images") && large.contains("hint"), "{large}");
    assert!(ResnetRecipe { depth: 56, sk_ratio: 0.0625, ..Default::default() }.check().is_err(), "no bottlenecks there");
}
