//! Tiny text towers of CLIP and SigLIP have transformers' outputs and gradients, to nine digits; files are read in every layout and written
//! with the same bits; what cannot be read is refused by name.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use ctk_core::data::pair::HostBatch;
use ctk_core::model::encoder::Encoder;
use ctk_core::nn::params::Params;
use ctk_core::nn::pass::{Mode, Pass};
use ctk_core::nn::rows::Rows;
use ctk_core::rng::Key;
use ctk_core::world::solo;
use serde_json::json;

use super::names::{Layout, adopt, give};
use super::*;
use crate::tokens::{TokenEncoder, Tokens};
use crate::transformer::{Pooling, config as configs};

const W: usize = 8;
const INNER: usize = 16;

type Shapes = Vec<(String, Vec<usize>)>;

fn linear(name: impl std::fmt::Display, output: usize, input: usize, bias: bool) -> Shapes {
    let mut both = vec![(format!("{name}.weight"), vec![output, input])];
    both.extend(bias.then(|| (format!("{name}.bias"), vec![output])));
    both
}

fn norm(name: impl std::fmt::Display) -> Shapes {
    ["weight", "bias"].map(|value| (format!("{name}.{value}"), vec![W])).into()
}

fn blocks(tower: &str) -> Shapes {
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

/// transformers' tiny CLIP or SigLIP, both towers, with values by the rule of the goldens' script: in byte order of all names.
fn tensors(family: Family) -> HashMap<String, Tensor> {
    let siglip = family == Family::Siglip;
    let mut all = vec![
        ("text_model.embeddings.token_embedding.weight".to_string(), vec![17, W]),
        ("text_model.embeddings.position_embedding.weight".to_string(), vec![if siglip { 5 } else { 7 }, W]),
        ("vision_model.embeddings.patch_embedding.weight".to_string(), vec![W, 3, 4, 4]),
        ("vision_model.embeddings.position_embedding.weight".to_string(), vec![if siglip { 4 } else { 5 }, W]),
    ];
    all.extend([blocks("text_model"), blocks("vision_model")].concat());
    all.extend(["text_model.final_layer_norm", "vision_model.post_layernorm"].into_iter().flat_map(norm));
    if siglip {
        all.extend([
            ("vision_model.embeddings.patch_embedding.bias".to_string(), vec![W]),
            ("vision_model.head.probe".to_string(), vec![1, 1, W]),
            ("vision_model.head.attention.in_proj_weight".to_string(), vec![3 * W, W]),
            ("vision_model.head.attention.in_proj_bias".to_string(), vec![3 * W]),
            ("logit_scale".to_string(), vec![1]),
            ("logit_bias".to_string(), vec![1]),
        ]);
        all.extend(norm("vision_model.head.layernorm"));
        all.extend(linear("text_model.head", W, W, true));
        all.extend(linear("vision_model.head.attention.out_proj", W, W, true));
        all.extend(linear("vision_model.head.mlp.fc1", INNER, W, true));
        all.extend(linear("vision_model.head.mlp.fc2", W, INNER, true));
    } else {
        all.extend([("vision_model.embeddings.class_embedding".to_string(), vec![W]), ("logit_scale".to_string(), vec![])]);
        all.extend(norm("vision_model.pre_layrnorm"));
        all.extend([linear("visual_projection", 6, W, false), linear("text_projection", 6, W, false)].concat());
    }
    all.sort();
    let of = |(t, (name, dims)): (usize, (String, Vec<usize>))| {
        let scaled = dims.len() == 1 && name.ends_with("weight");
        let value = |i: usize| {
            let f = (0.01 * (i * i) as f64 + 0.1 * i as f64 + t as f64 + 1.0).sin();
            if scaled { 1.0 + 0.1 * f } else { 0.3 * f }
        };
        let values: Vec<f64> = (1..=dims.iter().product()).map(value).collect();
        (name, Tensor::from_vec(values, dims, &Device::Cpu).unwrap())
    };
    all.into_iter().enumerate().map(of).collect()
}

/// `config.json` of that CLIP or SigLIP; `more` of its text tower besides.
fn described(family: Family, more: &Value) -> Value {
    let mut text = json!({ "vocab_size": 17, "hidden_size": W, "intermediate_size": INNER, "num_hidden_layers": 2,
        "num_attention_heads": 2, "max_position_embeddings": if family == Family::Siglip { 5 } else { 7 } });
    for (key, value) in more.as_object().unwrap() {
        text[key] = value.clone();
    }
    let kind = if family == Family::Siglip { "siglip" } else { "clip" };
    json!({ "model_type": kind, "projection_dim": 6, "text_config": text, "vision_config": {} })
}

fn read(config: &Value) -> Result<(Family, Shape)> {
    configs::read(&config.to_string())
}

fn opened(shape: &Shape, tensors: &HashMap<String, Tensor>) -> (TokenEncoder, Params) {
    let mut params = Params::new();
    let encoder = shape.encoder(Pooling::Last, params.root().sub("encoder")).unwrap();
    params.materialise(Key::new(0), DType::F64, &ctk_core::Device::Cpu).unwrap();
    params.load_section("encoder", tensors).unwrap();
    (encoder, params)
}

fn features(encoder: &TokenEncoder, texts: &[&[u32]]) -> Vec<f64> {
    let mut all = Tokens::default();
    texts.iter().for_each(|text| all.push(text));
    let stacked = Tokens::stack(&[&all]).unwrap();
    let (y, _) = encoder.encode(&stacked, &Rows::alone(texts.len()), &Pass::eval()).unwrap();
    y.flatten_all().unwrap().to_vec1().unwrap()
}

/// Texts as ctk reads them: to the end token, or filled up.
fn texts(family: Family) -> [&'static [u32]; 2] {
    if family == Family::Siglip { [&[3, 4, 5, 6, 1], &[9, 8, 1, 1, 1]] } else { [&[15, 3, 4, 5, 6, 7, 16], &[15, 9, 16]] }
}

#[test]
fn tiny_towers_are_those_of_transformers() {
    for (family, act, first, squares, gradient) in [
        (Family::Clip, "quick_gelu", [-0.112759144, -0.785402838], 2.160908419, 29.382937095),
        (Family::Clip, "gelu", [-0.113998580, -0.783073510], 2.140580364, 29.369740712),
        (Family::Siglip, "gelu_pytorch_tanh", [-0.399964052, 0.673422188], 9.735077017, 10.950802150),
    ] {
        let (found, shape) = read(&described(family, &json!({ "hidden_act": act }))).unwrap();
        assert_eq!(found, family);
        let adopted = adopt(Layout::Transformers, family, &shape, &tensors(family)).unwrap();
        let (encoder, params) = opened(&shape, &adopted.tensors);
        let out = features(&encoder, &texts(family));
        assert!((out[0] - first[0]).abs() < 1e-9 && (out[1] - first[1]).abs() < 1e-9, "{act}: {out:?}");
        let sum: f64 = out.iter().map(|v| v * v).sum();
        assert!((sum - squares).abs() < 2e-9, "{act}: {sum}");
        // The gradient of Σ outⱼ·sin(j + 1).
        let mut all = Tokens::default();
        texts(family).iter().for_each(|text| all.push(text));
        let pass = Pass { mode: Mode::Evaluate, ..Pass::train(Key::new(0), &solo()) };
        let (y, tape) = encoder.encode(&Tokens::stack(&[&all]).unwrap(), &Rows::alone(2), &pass).unwrap();
        let dy: Vec<f64> = (0..out.len()).map(|j| (j as f64 + 1.0).sin()).collect();
        tape.play(&Tensor::from_vec(dy, y.shape(), &Device::Cpu).unwrap(), false).unwrap();
        let norm = |(p, g): (&std::sync::Arc<ctk_core::nn::params::Param>, Option<ctk_core::nn::gradient::Gradient>)| {
            g.unwrap().dense(p.dims()).unwrap().sqr().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap()
        };
        let length = params.iter().zip(params.gradients().unwrap()).map(norm).sum::<f64>().sqrt();
        assert!((length - gradient).abs() < 1e-8, "{act}: {length}");
        assert_eq!(adopted.notes.len(), 2 + usize::from(family == Family::Clip), "{:?}", adopted.notes);
        assert!(adopted.notes.iter().any(|note| note.contains("the image tower")));
    }
}

#[test]
fn a_causal_token_does_not_see_those_behind_it() {
    let (family, shape) = read(&described(Family::Clip, &json!({}))).unwrap();
    let tensors = adopt(Layout::Transformers, family, &shape, &tensors(family)).unwrap().tensors;
    // The rows of all tokens, of which the third is the end token.
    let mut params = Params::new();
    let layers = shape.network(params.root().sub("encoder")).unwrap();
    let tokens = TokenEncoder::new(layers, shape.features(), params.gradient_store());
    params.materialise(Key::new(0), DType::F64, &ctk_core::Device::Cpu).unwrap();
    params.load_section("encoder", &tensors).unwrap();
    let row = |text: &[u32]| features(&tokens, &[text])[2 * 6..3 * 6].to_vec();
    let pooled = features(&opened(&shape, &tensors).0, &[&[15, 9, 16]]);
    for text in [&[15, 9, 16][..], &[15, 9, 16, 0, 0, 0, 0], &[15, 9, 16, 16, 3, 7]] {
        let off = row(text).iter().zip(&pooled).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(off < 1e-12, "{text:?}: {off:e}");
    }
}

#[test]
fn fresh_towers_have_their_own_values_and_depths() {
    let clip = Shape::clip(100, 128, 3).projected(Some(Projection { width: 32, bias: false }));
    let siglip = Shape::siglip(100, 128, 3).projected(Some(Projection { width: 32, bias: true }));
    for (shape, deviations) in [
        (
            clip,
            [
                ("words", 0.02),
                ("positions", 0.01),
                ("0.qkv", 0.0884),
                ("1.mix", 0.0361),
                ("2.in", 0.0625),
                ("projection", 0.0884),
            ],
        ),
        (
            siglip,
            [
                ("words", 0.0884),
                ("positions", 0.0884),
                ("0.qkv", 0.0884),
                ("1.mix", 0.0884),
                ("2.in", 0.0559),
                ("projection", 0.0884),
            ],
        ),
    ] {
        let mut params = Params::new();
        shape.encoder(Pooling::Last, params.root().sub("encoder")).unwrap();
        params.materialise(Key::new(3), DType::F64, &ctk_core::Device::Cpu).unwrap();
        for (name, deviation) in deviations {
            let param = params.iter().find(|param| param.name() == format!("encoder.{name}.weight")).unwrap();
            let values = param.tensor().unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
            let found = (values.iter().map(|v| v * v).sum::<f64>() / values.len() as f64).sqrt();
            assert!((found / deviation - 1.0).abs() < 0.05, "{name}: {found}");
        }
        for param in params.iter() {
            let name = param.name().strip_prefix("encoder.").unwrap();
            let block = name.split('.').next().and_then(|number| number.parse::<usize>().ok());
            let depth = match name.split('.').next().unwrap() {
                "words" | "positions" => Some(0),
                _ => block.map(|block| block + 1),
            };
            assert_eq!(param.depth(), depth, "{name}");
        }
    }
}

#[test]
fn tensors_come_back_with_the_same_bits() {
    for family in [Family::Clip, Family::Siglip] {
        let (_, shape) = read(&described(family, &json!({ "attention_dropout": 0.1 }))).unwrap();
        let whole = tensors(family);
        let own = adopt(Layout::Transformers, family, &shape, &whole).unwrap().tensors;
        let mut list: Vec<(String, Tensor)> = own.clone().into_iter().collect();
        list.sort_by(|a, b| a.0.cmp(&b.0));
        let written = write(family, &shape, &list).unwrap();
        let text = whole.keys().filter(|name| name.starts_with("text_")).count();
        assert_eq!(written.tensors.len(), text);
        for (name, tensor) in &written.tensors {
            let [ours, theirs] = [tensor, &whole[name]].map(|t| t.flatten_all().unwrap().to_vec1::<f64>().unwrap());
            assert_eq!(ours, theirs, "{name}");
        }
        assert_eq!(read(&written.config).unwrap(), (family, shape.clone()));
        // Alone, by the names of a model without the outer part.
        let bare: HashMap<String, Tensor> =
            written.tensors.iter().map(|(name, tensor)| (name.replace("text_model.", ""), tensor.clone())).collect();
        let again = adopt(Layout::Transformers, family, &shape, &bare).unwrap();
        assert_eq!((again.tensors.len(), again.notes.len()), (own.len(), 0));
    }
}

/// The tensors of transformers under open_clip's names.
fn of_open_clip(family: Family, custom: bool) -> HashMap<String, Tensor> {
    let mut all = HashMap::new();
    let whole = tensors(family);
    for (name, tensor) in &whole {
        let Some(rest) = name.strip_prefix("text_model.").or(name.strip_prefix("text_projection.").map(|_| "text_projection"))
        else {
            continue;
        };
        let rest = rest.replace("encoder.layers", "transformer.resblocks").replace("self_attn.out_proj", "attn.out_proj");
        let rest = rest.replace("layer_norm1", "ln_1").replace("layer_norm2", "ln_2").replace("mlp.fc1", "mlp.c_fc");
        let rest =
            rest.replace("mlp.fc2", "mlp.c_proj").replace("final_layer_norm", "ln_final").replace("head", "text_projection");
        let rest = rest.replace("embeddings.token_embedding", "token_embedding");
        let rest = rest.replace("embeddings.position_embedding.weight", "positional_embedding");
        if let Some((before, kind)) = rest.split_once("self_attn.q_proj.") {
            let parts = ["q", "k", "v"].map(|part| whole[&name.replace("q_proj", &format!("{part}_proj"))].clone());
            all.insert(format!("{before}attn.in_proj_{kind}"), Tensor::cat(&parts, 0).unwrap());
        } else if !rest.contains("self_attn.") {
            let tensor = if rest == "text_projection" { tensor.t().unwrap().contiguous().unwrap() } else { tensor.clone() };
            all.insert(rest, tensor);
        }
    }
    if custom {
        all = all.into_iter().map(|(name, tensor)| (format!("text.{name}"), tensor)).collect();
    }
    all.insert("visual.conv1.weight".to_string(), Tensor::zeros((1, 3, 4, 4), DType::F64, &Device::Cpu).unwrap());
    all.insert("logit_scale".to_string(), Tensor::zeros((), DType::F64, &Device::Cpu).unwrap());
    all
}

fn open_clip(family: Family, more: &Value) -> Value {
    let mut text = json!({ "context_length": 7, "vocab_size": 17, "width": W, "heads": 2, "layers": 2, "mlp_ratio": 2.0 });
    if family == Family::Siglip {
        text["context_length"] = json!(5);
        for (key, value) in [("no_causal_mask", json!(true)), ("proj_bias", json!(true)), ("pool_type", json!("last"))] {
            text[key] = value;
        }
        text["norm_kwargs"] = json!({ "eps": 1e-6 });
        text["act_kwargs"] = json!({ "approximate": "tanh" });
    }
    for (key, value) in more.as_object().unwrap() {
        text[key] = value.clone();
    }
    json!({ "model_cfg": { "embed_dim": if family == Family::Siglip { W } else { 6 }, "text_cfg": text } })
}

#[test]
fn open_clips_names_are_the_same_tower() {
    for (family, custom) in [(Family::Clip, false), (Family::Clip, true), (Family::Siglip, true)] {
        let (found, shape) = config::read_open_clip(&open_clip(family, &json!({}))).unwrap();
        let act = if family == Family::Siglip { "gelu_pytorch_tanh" } else { "gelu" };
        let theirs = read(&described(family, &json!({ "hidden_act": act }))).unwrap();
        assert_eq!((found, &shape), (theirs.0, &theirs.1));
        let one = adopt(Layout::OpenClip, family, &shape, &of_open_clip(family, custom)).unwrap();
        let other = adopt(Layout::Transformers, family, &shape, &tensors(family)).unwrap();
        assert_eq!(one.tensors.len(), other.tensors.len());
        for (name, tensor) in &one.tensors {
            let [a, b] = [tensor, &other.tensors[name]].map(|t| t.to_dtype(DType::F64).unwrap());
            assert_eq!(a.dims(), b.dims(), "{name}");
            assert_eq!(
                a.flatten_all().unwrap().to_vec1::<f64>().unwrap(),
                b.flatten_all().unwrap().to_vec1::<f64>().unwrap(),
                "{name}"
            );
        }
        assert_eq!(one.notes.len(), 2);
    }
}

#[test]
fn absent_settings_are_transformers_own() {
    let of = |kind: &str| read(&json!({ "model_type": kind })).unwrap().1;
    let clip = of("clip");
    assert_eq!((clip.vocabulary, clip.width, clip.inner, clip.layers, clip.heads, clip.positions), (49408, 512, 2048, 12, 8, 77));
    assert_eq!((clip.gelu, clip.epsilon, clip.projection), (Gelu::Quick, 1e-5, Some(Projection { width: 512, bias: false })));
    assert_eq!(of("clip_text_model").projection, None);
    let siglip = of("siglip_text_model");
    assert_eq!((siglip.vocabulary, siglip.width, siglip.heads, siglip.positions, siglip.gelu), (32000, 768, 12, 64, Gelu::Tanh));
    assert_eq!((siglip.epsilon, siglip.projection), (1e-6, Some(Projection { width: 768, bias: true })));
    // Old files say it twice.
    let twice = json!({ "model_type": "clip", "text_config_dict": { "hidden_size": 768, "num_attention_heads": 12 }, "text_config": { "hidden_size": 256 } });
    assert_eq!(read(&twice).unwrap().1.width, 768);
    let alone = json!({ "model_type": "clip_text_model", "architectures": ["CLIPTextModelWithProjection"], "projection_dim": 9 });
    assert_eq!(read(&alone).unwrap().1.features(), 9);
}

#[test]
fn what_ctk_does_not_have_is_refused_by_its_key() {
    for (more, said) in [
        (json!({ "hidden_act": "relu" }), "the activation `relu`"),
        (json!({ "hidden_act": 1 }), "`hidden_act`"),
        (json!({ "num_attention_heads": 3 }), "a width of 8 into 3 heads"),
        (json!({ "hidden_size": "8" }), "`hidden_size`"),
        (json!({ "vocab_size": 0 }), "`vocab_size`"),
        (json!({ "layer_norm_eps": 0 }), "`layer_norm_eps`"),
        (json!({ "attention_dropout": 1.0 }), "`attention_dropout`"),
    ] {
        let error = read(&described(Family::Clip, &more)).unwrap_err().to_string();
        assert!(error.contains(said), "{more}: {error}");
    }
    assert!(read(&json!({ "model_type": "clipseg" })).unwrap_err().to_string().contains("`clipseg`"));
    for (family, more, said) in [
        (Family::Clip, json!({ "no_causal_mask": true }), "pool_type = \"argmax\""),
        (Family::Clip, json!({ "pool_type": "last" }), "pool_type = \"last\""),
        (Family::Clip, json!({ "proj_bias": true }), "proj_bias = true"),
        (Family::Siglip, json!({ "proj_bias": false }), "proj_bias = false"),
        (Family::Clip, json!({ "embed_cls": true }), "embed_cls = true"),
        (Family::Clip, json!({ "ls_init_value": 1e-5 }), "ls_init_value"),
        (Family::Clip, json!({ "hf_model_name": "roberta-base" }), "hf_model_name"),
        (Family::Clip, json!({ "act_kwargs": { "approximate": "none" } }), "act_kwargs"),
        (Family::Clip, json!({ "norm_kwargs": { "eps": 1e-6, "bias": false } }), "norm_kwargs"),
        (Family::Clip, json!({ "heads": 3 }), "a width of 8 into 3 heads"),
        (Family::Clip, json!({ "proj_type": "mlp" }), "proj_type"),
        (Family::Clip, json!({ "something": 3 }), "something = 3"),
    ] {
        let error = config::read_open_clip(&open_clip(family, &more)).unwrap_err().to_string();
        assert!(error.contains(said), "{more}: {error}");
    }
    let error = |config: Value| config::read_open_clip(&config).unwrap_err().to_string();
    assert!(error(json!({ "model_cfg": {} })).contains("text_cfg"));
    assert!(error(json!({ "model_cfg": { "text_cfg": {} } })).contains("embed_dim"));
    // Tensors that are missing, or of something else.
    let (family, shape) = read(&described(Family::Clip, &json!({}))).unwrap();
    let error = |tensors: &HashMap<String, Tensor>, layers: usize| {
        let shape = Shape { layers, ..shape.clone() };
        adopt(Layout::Transformers, family, &shape, tensors).err().unwrap().to_string()
    };
    let mut whole = tensors(family);
    assert!(error(&whole, 1).contains("`text_model.encoder.layers.1."));
    assert!(error(&whole, 3).contains("`text_model.encoder.layers.2."));
    let projection = whole.remove("text_projection.weight").unwrap();
    assert!(error(&whole, 2).contains("`text_projection.weight` is missing"));
    whole.insert("text_projection.weight".to_string(), projection.clone());
    whole.insert("text_model.extra".to_string(), projection.clone());
    assert!(error(&whole, 2).contains("`text_model.extra` is no part"));
    // What transformers does not have.
    let wrong = |shape: Shape| write(family, &shape, &[]).err().unwrap().to_string();
    assert!(wrong(Shape { causal: false, ..shape.clone() }).contains("two-way attention"));
    assert!(wrong(shape.clone().projected(Some(Projection { width: 6, bias: true }))).contains("with a bias"));
    assert!(give(family, &[("norm.weight".to_string(), projection)]).unwrap_err().to_string().contains("`norm.weight`"));
}
