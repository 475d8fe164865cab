//! A tiny BERT has transformers' outputs and gradients, to nine digits; what cannot be read is refused by name.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use ctk_core::data::pair::HostBatch;
use ctk_core::model::encoder::Encoder;
use ctk_core::nn::params::Params;
use ctk_core::nn::pass::Pass;
use ctk_core::nn::rows::Rows;
use ctk_core::rng::Key;
use ctk_core::world::solo;

use super::names::{Family, adopt};
use super::*;
use crate::tokens::Tokens;

const CONFIG: &str = r#"{"model_type": "bert", "vocab_size": 13, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 16, "max_position_embeddings": 6, "type_vocab_size": 2, "hidden_act": "gelu", "layer_norm_eps": 1e-12,
    "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}"#;

/// The tensors of that network by transformers' names, with values by a formula that other programs can reproduce.
fn tensors() -> HashMap<String, Tensor> {
    let mut shapes: Vec<(String, Vec<usize>)> = vec![
        ("embeddings.word_embeddings.weight".into(), vec![13, 8]),
        ("embeddings.position_embeddings.weight".into(), vec![6, 8]),
        ("embeddings.token_type_embeddings.weight".into(), vec![2, 8]),
    ];
    let mut both = |name: String, shape: &[usize]| {
        shapes.push((format!("{name}.weight"), shape.to_vec()));
        shapes.push((format!("{name}.bias"), vec![shape[0]]));
    };
    both("embeddings.LayerNorm".into(), &[8]);
    for layer in 0..2 {
        for (name, shape) in [
            ("attention.self.query", &[8, 8][..]),
            ("attention.self.key", &[8, 8]),
            ("attention.self.value", &[8, 8]),
            ("attention.output.dense", &[8, 8]),
            ("attention.output.LayerNorm", &[8]),
            ("intermediate.dense", &[16, 8]),
            ("output.dense", &[8, 16]),
            ("output.LayerNorm", &[8]),
        ] {
            both(format!("encoder.layer.{layer}.{name}"), shape);
        }
    }
    shapes.sort();
    let of = |(t, (name, shape)): (usize, (String, Vec<usize>))| {
        let count: usize = shape.iter().product();
        let scaled = shape.len() == 1 && name.ends_with(".weight");
        let value = |i: usize| {
            let f = (0.01 * (i * i) as f64 + 0.1 * i as f64 + t as f64 + 1.0).sin();
            if scaled { 1.0 + 0.1 * f } else { 0.3 * f }
        };
        (name, Tensor::from_vec((1..=count).map(value).collect::<Vec<f64>>(), shape, &Device::Cpu).unwrap())
    };
    shapes.into_iter().enumerate().map(of).collect()
}

fn transformer(pooling: Pooling) -> (TokenEncoder, Params) {
    let (family, shape) = config::read(CONFIG).unwrap();
    let mut params = Params::new();
    let encoder = shape.encoder(pooling, params.root().sub("encoder")).unwrap();
    params.materialise(Key::new(0), DType::F64, &ctk_core::Device::Cpu).unwrap();
    assert_eq!(params.count(""), 1384);
    params.load_section("encoder", &adopt(family, shape.layers, &tensors()).unwrap()).unwrap();
    (encoder, params)
}

#[test]
fn a_tiny_bert_is_transformers() {
    let mut texts = Tokens::default();
    texts.push(&[2, 5, 7, 9, 3]);
    texts.push(&[2, 11, 3]);
    let stacked = Tokens::stack(&[&texts]).unwrap();
    for (pooling, first, squares, gradient) in [
        (Pooling::Mean, [0.009257411, 0.032060827], 5.767510126, 13.478932384),
        (Pooling::First, [1.153055850, 0.138019720], 13.522472145, 11.702376308),
    ] {
        let (encoder, params) = transformer(pooling);
        let (plain, _) = encoder.encode(&stacked, &Rows::alone(2), &Pass::eval()).unwrap();
        let out = plain.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        assert!((out[0] - first[0]).abs() < 1e-9 && (out[1] - first[1]).abs() < 1e-9, "{pooling:?}: {out:?}");
        let sum: f64 = out.iter().map(|v| v * v).sum();
        assert!((sum - squares).abs() < 2e-9, "{pooling:?}: {sum}");
        // The gradient of Σ outⱼ·sin(j + 1), without dropout.
        let pass = Pass { mode: ctk_core::nn::pass::Mode::Evaluate, ..Pass::train(Key::new(0), &solo()) };
        let (y, tape) = encoder.encode(&stacked, &Rows::alone(2), &pass).unwrap();
        let dy: Vec<f64> = (0..out.len()).map(|j| (j as f64 + 1.0).sin()).collect();
        tape.play(&Tensor::from_vec(dy, y.shape(), &Device::Cpu).unwrap(), false).unwrap();
        let norm = |(p, g): (_, Option<ctk_core::nn::gradient::Gradient>)| {
            let p: &std::sync::Arc<ctk_core::nn::params::Param> = p;
            g.unwrap().dense(p.dims()).unwrap().sqr().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap()
        };
        let length = params.iter().zip(params.gradients().unwrap()).map(norm).sum::<f64>().sqrt();
        assert!((length - gradient).abs() < 1e-8, "{pooling:?}: {length}");
    }
}

#[test]
fn embeddings_have_depth_0_and_blocks_follow() {
    let (_, params) = transformer(Pooling::Mean);
    for param in params.iter() {
        let name = param.name();
        let depth = ["encoder.0.", "encoder.1."].iter().position(|block| name.starts_with(block)).map_or(0, |block| block + 1);
        assert_eq!(param.depth(), Some(depth), "{name}");
        let table = ["encoder.words.", "encoder.positions.", "encoder.types."].iter().any(|table| name.starts_with(table));
        assert_eq!(param.kind() == ParamKind::Embedding, table, "{name}");
    }
}

#[test]
fn old_names_prefixes_and_heads_are_read_and_strangers_are_not() {
    let whole = tensors();
    let renamed: HashMap<String, Tensor> = whole
        .iter()
        .map(|(name, tensor)| {
            let old = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta");
            (format!("bert.{old}"), tensor.clone())
        })
        .chain([("cls.predictions.bias".to_string(), whole["embeddings.LayerNorm.bias"].clone())])
        .collect();
    let [one, other] = [&whole, &renamed].map(|tensors| {
        let mut names: Vec<String> = adopt(Family::Bert, 2, tensors).unwrap().into_keys().collect();
        names.sort();
        names
    });
    assert_eq!(one, other);
    let error = |tensors: &HashMap<String, Tensor>, layers| adopt(Family::Bert, layers, tensors).unwrap_err().to_string();
    assert!(error(&whole, 1).contains("`encoder.layer.1.") && error(&whole, 3).contains("`encoder.layer.2."));
    let mut lacking = whole;
    lacking.remove("encoder.layer.1.attention.self.key.bias");
    assert!(error(&lacking, 2).contains("the tensor `encoder.layer.1.attention.self.key.bias` is missing"));
}

#[test]
fn configs_are_read_or_refused_by_name() {
    let (family, shape) = config::read(CONFIG).unwrap();
    assert_eq!((family, shape.longest(), shape.gelu), (Family::Bert, 6, Gelu::Erf));
    let roberta = CONFIG.replace("\"bert\"", "\"roberta\"").replace("\"vocab_size\"", "\"pad_token_id\": 1, \"vocab_size\"");
    let (family, shape) = config::read(&roberta).unwrap();
    assert_eq!((family, shape.first_position, shape.longest()), (Family::Roberta, 2, 4));
    let distil = r#"{"model_type": "distilbert", "vocab_size": 13, "dim": 8, "n_layers": 1, "n_heads": 2, "hidden_dim": 16,
        "max_position_embeddings": 6, "activation": "gelu", "dropout": 0.0, "attention_dropout": 0.0}"#;
    let (family, shape) = config::read(distil).unwrap();
    assert_eq!((family, shape.types, shape.epsilon), (Family::Distilbert, 0, 1e-12));
    for (from, to, said) in [
        ("\"bert\"", "\"mpnet\"", "the kind `mpnet`"),
        ("\"gelu\"", "\"relu\"", "the activation `relu`"),
        ("\"hidden_act\": \"gelu\", ", "", "does not say `hidden_act`"),
        ("\"layer_norm_eps\": 1e-12,", "", "does not say `layer_norm_eps`"),
        ("\"vocab_size\": 13", "\"vocab_size\": 0", "`vocab_size`"),
        ("\"num_attention_heads\": 2", "\"num_attention_heads\": 3", "a width of 8 into 3 heads"),
        ("\"vocab_size\"", "\"position_embedding_type\": \"relative_key\", \"vocab_size\"", "the kind `relative_key`"),
        ("\"vocab_size\"", "\"is_decoder\": true, \"vocab_size\"", "is_decoder"),
        ("\"hidden_dropout_prob\": 0.1", "\"hidden_dropout_prob\": 1.0", "`hidden_dropout_prob`"),
    ] {
        let error = config::read(&CONFIG.replace(from, to)).unwrap_err().to_string();
        assert!(error.contains(said), "{to}: {error}");
    }
    assert!(config::read("{").unwrap_err().to_string().contains("no JSON"));
}
