//! Tests of vision transformers: published counts, other programs' tiny networks with known features and gradients, whole networks against
//! the reference, and recipes.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use candle_nn::{Module as _, VarBuilder};
use candle_transformers::models::clip::vision_model::{ClipVisionConfig, ClipVisionTransformer};
use candle_transformers::models::{clip as candle_clip, siglip as candle_siglip, vit as candle_vit};
use ctk_core::model::encoder::Encoder as _;
use ctk_core::nn::Resampling;
use ctk_core::nn::pass::Pass;
use ctk_core::nn::rows::Rows;
use ctk_core::recipe::Recipe;
use ctk_core::rng::Key;
use ctk_core::world::solo;
use rand::Rng as _;
use serde_json::Value;

use super::*;

fn declare(recipe: &VitRecipe) -> (Params, Vit) {
    let mut params = Params::new();
    let net = Vit::new(recipe, params.root().sub("encoder")).unwrap();
    (params, net)
}

#[test]
fn counts_are_those_of_timm() {
    for (word, size, parameters, multiplications) in [
        ("vit-ti4", 32, 5_360_832, 0.3651),
        ("vit-s4", 32, 21_338_496, 1.4203),
        ("vit-ti16", 224, 5_524_416, 1.2535),
        ("vit-s16", 224, 21_665_664, 4.5985),
        ("vit-s8", 128, 21_467_520, 6.0846),
    ] {
        let keys: Vec<String> = named(word).unwrap().into_iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
        let of: VitRecipe = toml_of(&format!("size = {size}\n{}", keys.concat()));
        let (params, _) = declare(&of);
        assert_eq!(params.count("encoder."), parameters, "{word}");
        let products = Architecture::products(&of, &params, "encoder", size) as f64 / 1e9;
        assert!((products - multiplications).abs() < 1e-4, "{word}: {products}");
        assert_eq!(of.title().to_lowercase().replace('/', ""), word);
    }
    let six = VitRecipe { layers: 6, ..VitRecipe::default() };
    assert_eq!((declare(&six).0.count("encoder."), six.title()), (2_691_648, "ViT-6x192/4".to_string()));
    for wrong in ["vit-s", "vit-x16", "vit-s0", "vits16", "vit-s16a", "resnet18"] {
        assert!(named(wrong).is_none(), "{wrong}");
    }
}

fn named(word: &str) -> Option<Vec<(&'static str, String)>> {
    (FAMILY.named)(word)
}

fn toml_of(text: &str) -> VitRecipe {
    let recipe = crate::recipe::check(&Recipe::new("test", format!("[encoder.vit]\n{text}\n[pairs]\nsize = 32\n")));
    let crate::encoder::EncoderRecipe::Vit(of) = recipe.unwrap().recipe.encoder else { panic!("{text}") };
    of
}

/// sin(a·i² + b·i + c) for i from 1.
fn wave(count: usize, a: f64, b: f64, c: f64) -> Vec<f64> {
    (1..=count).map(|i| i as f64).map(|i| (a * i * i + b * i + c).sin()).collect()
}

/// The values of tensors by the rule of the goldens' script: in byte order of all names.
fn filled(mut shapes: Vec<(String, Vec<usize>)>) -> HashMap<String, Tensor> {
    shapes.sort();
    let one = |name: &str, dims: &[usize]| (dims.len() == 1 && name.ends_with("weight")) || name.ends_with("lambda1");
    let of = |(number, (name, dims)): (usize, (String, Vec<usize>))| {
        let f = wave(dims.iter().product(), 0.01, 0.1, number as f64 + 1.0);
        let values: Vec<f64> = f.into_iter().map(|f| if one(&name, &dims) { 1.0 + 0.1 * f } else { 0.3 * f }).collect();
        (name, Tensor::from_vec(values, dims, &Device::Cpu).unwrap())
    };
    shapes.into_iter().enumerate().map(of).collect()
}

const W: usize = 8;
const INNER: usize = 16;

/// Names with shapes: `weight`, and `bias` if there is one.
fn linear(name: impl std::fmt::Display, output: usize, input: usize, bias: bool) -> Vec<(String, Vec<usize>)> {
    let mut both = vec![(format!("{name}.weight"), vec![output, input])];
    both.extend(bias.then(|| (format!("{name}.bias"), vec![output])));
    both
}

fn norm(name: impl std::fmt::Display) -> Vec<(String, Vec<usize>)> {
    ["weight", "bias"].map(|value| (format!("{name}.{value}"), vec![W])).into()
}

/// The two blocks of a tower of CLIP or SigLIP.
fn clip_blocks(tower: &str) -> Vec<(String, Vec<usize>)> {
    let block = |number| {
        let at = format!("{tower}.encoder.layers.{number}");
        let mut all = [norm(format!("{at}.layer_norm1")), norm(format!("{at}.layer_norm2"))].concat();
        for name in ["q_proj", "k_proj", "v_proj", "out_proj"] {
            all.extend(linear(format!("{at}.self_attn.{name}"), W, W, true));
        }
        all.extend(linear(format!("{at}.mlp.fc1"), INNER, W, true));
        all.extend(linear(format!("{at}.mlp.fc2"), W, INNER, true));
        all
    };
    (0..2).flat_map(block).collect()
}

/// transformers' tiny ViT, or DINOv2 with two registers.
fn vit(registers: bool) -> Vec<(String, Vec<usize>)> {
    let embeddings = |name: &str, dims: &[usize]| (format!("embeddings.{name}"), dims.to_vec());
    let mut all = vec![
        embeddings("cls_token", &[1, 1, W]),
        embeddings("position_embeddings", &[1, 5, W]),
        embeddings("patch_embeddings.projection.weight", &[W, 3, 4, 4]),
        embeddings("patch_embeddings.projection.bias", &[W]),
    ];
    if registers {
        all.extend([embeddings("register_tokens", &[1, 2, W]), embeddings("mask_token", &[1, W])]);
    }
    all.extend(norm("layernorm"));
    let [before, after, fc1, fc2] = match registers {
        false => ["layernorm_before", "layernorm_after", "intermediate.dense", "output.dense"],
        true => ["norm1", "norm2", "mlp.fc1", "mlp.fc2"],
    };
    for number in 0..2 {
        let at = format!("encoder.layer.{number}");
        all.extend([norm(format!("{at}.{before}")), norm(format!("{at}.{after}"))].concat());
        for name in ["attention.query", "attention.key", "attention.value", "output.dense"] {
            all.extend(linear(format!("{at}.attention.{name}"), W, W, true));
        }
        all.extend(linear(format!("{at}.{fc1}"), INNER, W, true));
        all.extend(linear(format!("{at}.{fc2}"), W, INNER, true));
        if registers {
            all.extend([1, 2].map(|number| (format!("{at}.layer_scale{number}.lambda1"), vec![W])));
        }
    }
    all
}

/// transformers' tiny CLIP, both towers.
fn clip() -> Vec<(String, Vec<usize>)> {
    let mut all = vec![
        ("text_model.embeddings.token_embedding.weight".to_string(), vec![17, W]),
        ("text_model.embeddings.position_embedding.weight".to_string(), vec![7, W]),
        ("vision_model.embeddings.class_embedding".to_string(), vec![W]),
        ("vision_model.embeddings.patch_embedding.weight".to_string(), vec![W, 3, 4, 4]),
        ("vision_model.embeddings.position_embedding.weight".to_string(), vec![5, W]),
        ("logit_scale".to_string(), vec![]),
    ];
    all.extend([clip_blocks("text_model"), clip_blocks("vision_model")].concat());
    all.extend(
        ["vision_model.pre_layrnorm", "vision_model.post_layernorm", "text_model.final_layer_norm"].into_iter().flat_map(norm),
    );
    all.extend([linear("visual_projection", 6, W, false), linear("text_projection", 6, W, false)].concat());
    all
}

/// transformers' tiny SigLIP, both towers.
fn siglip() -> Vec<(String, Vec<usize>)> {
    let mut all = vec![
        ("text_model.embeddings.token_embedding.weight".to_string(), vec![17, W]),
        ("text_model.embeddings.position_embedding.weight".to_string(), vec![5, W]),
        ("vision_model.embeddings.patch_embedding.weight".to_string(), vec![W, 3, 4, 4]),
        ("vision_model.embeddings.patch_embedding.bias".to_string(), vec![W]),
        ("vision_model.embeddings.position_embedding.weight".to_string(), vec![4, W]),
        ("vision_model.head.probe".to_string(), vec![1, 1, W]),
        ("vision_model.head.attention.in_proj_weight".to_string(), vec![3 * W, W]),
        ("vision_model.head.attention.in_proj_bias".to_string(), vec![3 * W]),
        ("logit_scale".to_string(), vec![1]),
        ("logit_bias".to_string(), vec![1]),
    ];
    all.extend([clip_blocks("text_model"), clip_blocks("vision_model")].concat());
    all.extend(
        ["vision_model.post_layernorm", "vision_model.head.layernorm", "text_model.final_layer_norm"].into_iter().flat_map(norm),
    );
    all.extend(linear("text_model.head", W, W, true));
    all.extend(linear("vision_model.head.attention.out_proj", W, W, true));
    all.extend(linear("vision_model.head.mlp.fc1", INNER, W, true));
    all.extend(linear("vision_model.head.mlp.fc2", W, INNER, true));
    all
}

/// Two images of `size` pixels, `(n, h, w, c)`, by the rule of the goldens' script.
fn pixels(size: usize) -> Tensor {
    let values = wave(2 * 3 * size * size, 0.05, 0.3, 0.0);
    let x = Tensor::from_vec(values, (2, 3, size, size), &Device::Cpu).unwrap();
    x.permute((0, 2, 3, 1)).unwrap().contiguous().unwrap()
}

/// A tiny network of another program, and what it makes of two images.
struct Golden {
    what: &'static str,
    shapes: Vec<(String, Vec<usize>)>,
    config: Value,
    /// A matrix behind the features, if the script has one.
    projection: Option<&'static str>,
    size: usize,
    first: [f64; 4],
    squares: f64,
    /// The length of the gradient of Σ outⱼ·sin j by all parameters of the encoder and the projection.
    gradient: f64,
}

fn goldens() -> Vec<Golden> {
    let size = json!({"hidden_size": W, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 8, "patch_size": 4});
    let of = |more: Value| {
        let mut config = size.clone();
        more.as_object().unwrap().iter().for_each(|(key, value)| config[key] = value.clone());
        config
    };
    let vit_config = of(json!({"model_type": "vit", "intermediate_size": INNER}));
    let dino = of(json!({"model_type": "dinov2_with_registers", "mlp_ratio": 2, "num_register_tokens": 2}));
    let both = |name: &str, act: Option<&str>| {
        let mut tower = size.clone();
        act.iter().for_each(|act| tower["hidden_act"] = json!(act));
        json!({"model_type": name, "vision_config": tower})
    };
    let golden = |what, shapes, config, size, first, squares, gradient| {
        let projection = if what == "CLIP" || what == "CLIP erf" { Some("visual_projection.weight") } else { None };
        Golden { what, shapes, config, projection, size, first, squares, gradient }
    };
    vec![
        golden(
            "ViT",
            vit(false),
            vit_config.clone(),
            8,
            [2.076162039350102, -0.6774030521046914, -1.714750491878813, 0.11516757130100644],
            17.528308538,
            65.641419183,
        ),
        golden(
            "ViT, larger images",
            vit(false),
            vit_config,
            12,
            [2.0019602784807393, -1.08102782949014, -1.3586477738550062, 0.4098096676244689],
            17.335011224,
            21.264476589,
        ),
        golden(
            "DINOv2",
            vit(true),
            dino.clone(),
            8,
            [-2.781683641715132, 0.13399310388971516, -0.46329247252405426, 0.4026096042348056],
            19.873450522,
            13.864244036,
        ),
        golden(
            "DINOv2, larger images",
            vit(true),
            dino,
            12,
            [-2.7240989734780134, -0.4607331658970816, -0.23320786710714103, 0.11733484132354673],
            20.570826535,
            20.693487913,
        ),
        golden(
            "CLIP",
            clip(),
            both("clip", Some("quick_gelu")),
            8,
            [0.7165136442352085, -0.7864724663987518, 1.3040919726315088, 0.3152189197767255],
            5.608671171,
            27.297238935,
        ),
        golden(
            "CLIP erf",
            clip(),
            both("clip", Some("gelu")),
            8,
            [0.7161184282234895, -0.7863594782636328, 1.3041015729068537, 0.31625503633038776],
            5.615338726,
            27.245897087,
        ),
        golden(
            "SigLIP",
            siglip(),
            both("siglip", None),
            8,
            [-0.26778110108093645, 0.8380264043985206, -0.23891761023284305, 0.07415153270184938],
            2.221754534,
            10.001611065,
        ),
    ]
}

/// A folder with these tensors, in f64, and this configuration.
fn folder(tensors: &HashMap<String, Tensor>, config: &Value) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    candle_core::safetensors::save(tensors, folder.path().join("model.safetensors")).unwrap();
    if !config.is_null() {
        let mut config = config.clone();
        if let Some(tower) = config.get_mut("vision_config") {
            tower["intermediate_size"] = json!(INNER);
        }
        std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    }
    folder
}

#[test]
fn tiny_networks_of_transformers_have_its_features_and_gradients() {
    for Golden { what, shapes, config, projection, size, first, squares, gradient } in goldens() {
        let tensors = filled(shapes);
        let folder = folder(&tensors, &config);
        let weights = Weights::open(folder.path()).unwrap();
        let (params, net) = declare(&weights.encoder().unwrap());
        params.materialise(Key::new(0), DType::F64, &ctk_core::Device::Cpu).unwrap();
        weights.load(&params).unwrap();
        // The file is read in f32; the golden's values are f64.
        let (features, tape) = net.encode(&pixels(size), &Rows::alone(2), &Pass::train(Key::new(0), &solo())).unwrap();
        let behind = projection.map(|name| tensors[name].to_dtype(DType::F64).unwrap());
        let out = match &behind {
            Some(matrix) => features.matmul(&matrix.t().unwrap()).unwrap(),
            None => features.clone(),
        };
        let flat = out.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let off = first.iter().zip(&flat).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        let sum: f64 = flat.iter().map(|value| value * value).sum();
        assert!(off < 1e-6 && (sum - squares).abs() < 1e-5, "{what}: {flat:?}, {sum}");

        let sines = Tensor::from_vec(wave(flat.len(), 0.0, 1.0, 0.0), out.dims(), &Device::Cpu).unwrap();
        let back = behind.as_ref().map_or(sines.clone(), |matrix| sines.matmul(matrix).unwrap());
        tape.play(&back, false).unwrap();
        let square = |of: &Tensor| of.sqr().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap();
        let mut total: f64 = gradients(&params).iter().map(|(_, gradient)| square(gradient)).sum();
        if behind.is_some() {
            total += square(&sines.t().unwrap().matmul(&features).unwrap());
        }
        let found = total.sqrt();
        assert!((found / gradient - 1.0).abs() < 1e-6, "{what}: a gradient of {found}, not {gradient}");
    }
}

/// The gradient of every parameter, by name.
fn gradients(params: &Params) -> Vec<(String, Tensor)> {
    let all = params.iter().zip(params.gradients().unwrap());
    let missing = |name: &str| panic!("{name} has no gradient");
    all.map(|(param, gradient)| {
        let gradient = gradient.unwrap_or_else(|| missing(param.name()));
        (param.name().to_string(), gradient.dense(param.dims()).unwrap())
    })
    .collect()
}

/// Recipes that have every setting at least once.
fn variants() -> Vec<VitRecipe> {
    let small = VitRecipe { size: Some(8), width: 16, layers: 2, heads: 2, ..VitRecipe::default() };
    vec![
        small.clone(),
        VitRecipe { registers: 3, layer_scale: 0.1, resampling: Resampling::Bicubic, ..small.clone() },
        VitRecipe { normalise_tokens: true, patch_bias: false, gelu: Activation::Quick, ..small.clone() },
        VitRecipe { pooling: Pooling::Mean, registers: 1, class_position: false, inner: Some(24), ..small.clone() },
        VitRecipe { pooling: Pooling::MeanThenNorm, class_token: false, ..small.clone() },
        VitRecipe { pooling: Pooling::Attention, class_token: false, gelu: Activation::Tanh, ..small.clone() },
        VitRecipe { pooling: Pooling::Attention, registers: 2, ..small },
    ]
}

fn noise(dims: &[usize], key: Key) -> Tensor {
    let mut rng = key.rng();
    let values: Vec<f64> = (0..dims.iter().product()).map(|_| rng.random_range(-1.0..1.0)).collect();
    Tensor::from_vec(values, dims, &Device::Cpu).unwrap()
}

#[test]
fn whole_networks_agree_with_the_reference() {
    for (number, of) in variants().into_iter().enumerate() {
        // Both at the learned size, and at another that is not square.
        for (h, w) in [(8, 8), (12, 16)] {
            let x = noise(&[3, h, w, 3], Key::new(7));
            let run = |dtype: DType, reference: bool, recompute: bool| {
                let (params, net) = declare(&of);
                params.materialise(Key::new(1), dtype, &ctk_core::Device::Cpu).unwrap();
                for param in params.iter() {
                    let values = (noise(param.dims(), Key::new(2).of(param.name())) * 0.3).unwrap();
                    let centre = if param.dims().len() == 1 && !param.name().ends_with("bias") { 0.8 } else { 0.0 };
                    param.set(&(values + centre).unwrap().to_dtype(dtype).unwrap()).unwrap();
                }
                let net = if reference { net.reference() } else { net };
                let pass = Pass { recompute, ..Pass::train(Key::new(3), &solo()) };
                let (y, tape) = net.encode(&x.to_dtype(dtype).unwrap(), &Rows::alone(3), &pass).unwrap();
                assert_eq!(y.dims(), [3, of.width]);
                let dy = noise(y.dims(), Key::new(4)).to_dtype(dtype).unwrap();
                let dx = tape.play(&dy, true).unwrap().unwrap();
                let mut all = vec![("features".to_string(), y), ("input".to_string(), dx)];
                all.extend(gradients(&params));
                all.into_iter().map(|(name, tensor)| (name, tensor.to_dtype(DType::F64).unwrap())).collect::<Vec<_>>()
            };
            let exact = run(DType::F64, true, false);
            let norm = |t: &Tensor| t.sqr().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap().sqrt();
            for (dtype, recompute, bound) in [(DType::F64, false, 1e-10), (DType::F32, false, 1e-4), (DType::F32, true, 1e-4)] {
                for ((name, found), (_, right)) in run(dtype, false, recompute).iter().zip(&exact) {
                    let off = norm(&(found - right).unwrap()) / (norm(right) + 1e-3);
                    assert!(off < bound, "variant {number}, {h} × {w}, {dtype:?}: {name} is off by {off:e}");
                }
            }
        }
    }
}

#[test]
fn sizes_that_are_no_whole_patches_are_refused() {
    let (params, net) = declare(&variants()[0]);
    params.materialise(Key::new(1), DType::F32, &ctk_core::Device::Cpu).unwrap();
    let x = Tensor::zeros((1, 10, 8, 3), DType::F32, &Device::Cpu).unwrap();
    let error = net.encode(&x, &Rows::alone(1), &Pass::eval()).err().unwrap().to_string();
    assert!(error.contains("10 pixels") && error.contains("8 or 12 pixels are"), "{error}");
    for (key, text) in [
        ("pairs.size", "[pairs]\nsize = 30\n"),
        ("pairs.eval_size", "[pairs]\nsize = 32\neval_size = 50\n"),
        ("encoder.vit.size", "[pairs]\nsize = 32\n[encoder.vit]\nsize = 30\n"),
        ("heads", "[pairs]\nsize = 32\n[encoder.vit]\nheads = 5\n"),
        ("class_token", "[pairs]\nsize = 32\n[encoder.vit]\nclass_token = false\n"),
        ("patch", "[pairs]\nsize = 32\n[encoder.vit]\npatch = 0\n"),
        ("epsilon", "[pairs]\nsize = 32\n[encoder.vit]\nepsilon = -1.0\n"),
        ("layer_scale", "[pairs]\nsize = 32\n[encoder.vit]\nlayer_scale = 1e9\n"),
    ] {
        let text = if text.contains("vit") { text.to_string() } else { format!("{text}[encoder.vit]\n") };
        let error = crate::recipe::check(&Recipe::new("test", text.clone())).err().unwrap_or_else(|| panic!("{text}"));
        let line = error.to_string();
        assert!(line.contains(key.rsplit('.').next().unwrap_or(key)) && error.exit_code() == 2, "{key}: {line}");
    }
}

#[test]
fn a_new_run_learns_positions_for_its_own_images() {
    let text = Recipe::new("test", "[pairs]\nsize = 48\n[encoder.vit]\npatch = 8\n");
    let recipe = crate::recipe::check(&text).unwrap().recipe;
    let stated = crate::recipe::stated(&recipe).unwrap();
    assert!(stated.contains(&("encoder.vit.size".to_string(), "48".to_string())), "{stated:?}");
    let with = VitRecipe { weights: Some("file".into()), ..VitRecipe::default() };
    assert!(Architecture::stated(&with, 48).is_empty(), "the file says the size");
    // Patches that the default size is no multiple of.
    let odd = Recipe::new("test", "[pairs]\nsize = 48\n[encoder.vit]\npatch = 12\n");
    crate::recipe::check(&odd).unwrap();
}

#[test]
fn a_recipe_reads_its_own_section() {
    for of in variants() {
        let of = VitRecipe { size: Some(32), patch: 8, ..of };
        assert_eq!(toml_of(of.section().strip_prefix("[encoder.vit]\n").unwrap()), of);
    }
}

/// Other implementations of these networks are oracles of the layers as well as of the names.
#[test]
fn candles_own_networks_have_the_same_features() {
    let config = json!({
        "hidden_size": W, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": INNER, "image_size": 8, "patch_size": 4,
        "hidden_act": "gelu", "layer_norm_eps": 1e-6, "num_channels": 3, "qkv_bias": true,
    });
    let of = |kind: &str, act: &str| {
        let mut config = config.clone();
        (config["model_type"], config["hidden_act"]) = (json!(kind), json!(act));
        config
    };
    let x = pixels(8).to_dtype(DType::F32).unwrap();
    let theirs = x.permute((0, 3, 1, 2)).unwrap().contiguous().unwrap();
    let builder = |tensors: &HashMap<String, Tensor>| {
        // Candle's layer normalisation has no f64.
        let tensors = tensors.iter().map(|(name, tensor)| (name.clone(), tensor.to_dtype(DType::F32).unwrap())).collect();
        VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu)
    };
    let plain = filled(vit(false));
    let mut within: HashMap<String, Tensor> =
        plain.iter().map(|(name, tensor)| (format!("vit.{name}"), tensor.clone())).collect();
    within.insert("classifier.weight".to_string(), Tensor::eye(W, DType::F32, &Device::Cpu).unwrap());
    within.insert("classifier.bias".to_string(), Tensor::zeros(W, DType::F32, &Device::Cpu).unwrap());
    let candles = candle_vit::Model::new(&serde_json::from_value(config.clone()).unwrap(), W, builder(&within)).unwrap();
    let found = candles.forward(&theirs).unwrap();

    let both = filled(clip());
    let of_clip = ClipVisionConfig {
        embed_dim: W,
        activation: candle_clip::text_model::Activation::QuickGelu,
        intermediate_size: INNER,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        projection_dim: 6,
        num_channels: 3,
        image_size: 8,
        patch_size: 4,
    };
    let candles = ClipVisionTransformer::new(builder(&both).pp("vision_model"), &of_clip).unwrap();
    let towers = candles.forward(&theirs).unwrap();

    let sig = filled(siglip());
    let of_siglip = serde_json::from_value(of("siglip", "gelu_pytorch_tanh")).unwrap();
    let candles = candle_siglip::VisionModel::new(&of_siglip, true, builder(&sig).pp("vision_model")).unwrap();
    let pooled = candles.forward(&theirs).unwrap();

    for (what, tensors, config, right) in [
        ("ViT", plain, of("vit", "gelu"), found),
        ("CLIP", both, json!({"model_type": "clip", "vision_config": of("clip_vision_model", "quick_gelu")}), towers),
        ("SigLIP", sig, json!({"model_type": "siglip", "vision_config": of("siglip_vision_model", "gelu_pytorch_tanh")}), pooled),
    ] {
        // Candle's CLIP has a fixed ε.
        let mut config = config;
        if what == "CLIP" {
            config["vision_config"]["layer_norm_eps"] = json!(1e-5);
        }
        let folder = folder(&tensors, &config);
        let weights = Weights::open(folder.path()).unwrap();
        let (params, net) = declare(&weights.encoder().unwrap());
        params.materialise(Key::new(0), DType::F32, &ctk_core::Device::Cpu).unwrap();
        weights.load(&params).unwrap();
        let (ours, _) = net.encode(&x, &Rows::alone(2), &Pass::eval()).unwrap();
        let off = (ours - right).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar::<f32>().unwrap();
        assert!(off < 1e-5, "{what}: {off:e}");
    }
}
