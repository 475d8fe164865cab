//! A tiny encoder of sentences as sentence-transformers lays it out: its features, lengths and modules; and what is refused.

use std::collections::HashMap;
use std::path::Path;

use candle_core::DType;
use ctk_core::nn::params::Params;
use ctk_core::rng::Key;
use serde_json::Value;

use super::encoder::SentenceEncoder;
use super::folder::{self, Folder};
use super::recipe::SentencesRecipe;
use super::*;
use crate::transformer::{Pooling, config};

const NETWORK: &str = r#"{"model_type": "bert", "vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
    "intermediate_size": 12, "max_position_embeddings": 6, "type_vocab_size": 2, "hidden_act": "gelu", "layer_norm_eps": 1e-12,
    "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}"#;

/// Words of white space between `[CLS]` and `[SEP]`, with settings that would cut off and fill up.
pub(super) const TOKENIZER: &str = r#"{"version": "1.0", "truncation": {"max_length": 3, "strategy": "LongestFirst", "stride": 0, "direction": "Right"},
    "padding": {"strategy": {"Fixed": 6}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"},
    "added_tokens": [], "normalizer": null, "pre_tokenizer": {"type": "WhitespaceSplit"},
    "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}, "decoder": null,
    "model": {"type": "WordLevel", "vocab": {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "a": 4, "b": 5, "c": 6, "d": 7},
    "unk_token": "[UNK]"}}"#;

/// Writes the folder; `modules` has the modules' kinds and folders, and the pooling's modes are `pooling`.
pub(super) fn write(folder: &Path, modules: &[(&str, &str)], pooling: &str) {
    std::fs::write(folder.join("config.json"), NETWORK).unwrap();
    std::fs::write(folder.join("tokenizer.json"), TOKENIZER).unwrap();
    if !modules.is_empty() {
        let list: Vec<Value> = modules
            .iter()
            .map(|(kind, path)| serde_json::json!({"path": path, "type": format!("sentence_transformers.models.{kind}")}))
            .collect();
        std::fs::write(folder.join("modules.json"), serde_json::to_string(&list).unwrap()).unwrap();
    }
    std::fs::create_dir_all(folder.join("1_Pooling")).unwrap();
    std::fs::write(folder.join("1_Pooling/config.json"), pooling).unwrap();
    let (_, shape) = config::read(NETWORK).unwrap();
    let mut params = Params::new();
    shape.encoder(Pooling::Mean, params.root()).unwrap();
    params.materialise(Key::new(1), DType::F32, &Device::Cpu).unwrap();
    // From ctk's names to transformers'.
    let mut tensors = HashMap::new();
    for (name, tensor) in params.section("").unwrap() {
        let name = match name.split_once('.').unwrap() {
            ("words", rest) => format!("embeddings.word_embeddings.{rest}"),
            ("positions", rest) => format!("embeddings.position_embeddings.{rest}"),
            ("types", rest) => format!("embeddings.token_type_embeddings.{rest}"),
            ("norm", rest) => format!("embeddings.LayerNorm.{rest}"),
            (_, rest) => {
                let (layer, kind) = rest.split_once('.').unwrap();
                if layer == "qkv" {
                    for (at, part) in ["query", "key", "value"].into_iter().enumerate() {
                        let part_of = tensor.narrow(0, at * 8, 8).unwrap().contiguous().unwrap();
                        tensors.insert(format!("encoder.layer.0.attention.self.{part}.{kind}"), part_of);
                    }
                    continue;
                }
                let theirs = match layer {
                    "mix" => "attention.output.dense",
                    "mixed" => "attention.output.LayerNorm",
                    "in" => "intermediate.dense",
                    "out" => "output.dense",
                    _ => "output.LayerNorm",
                };
                format!("encoder.layer.0.{theirs}.{kind}")
            }
        };
        // Larger than their first values, so that texts differ.
        tensors.insert(name, (tensor.contiguous().unwrap() * 8.0).unwrap());
    }
    candle_core::safetensors::save(&tensors, folder.join("model.safetensors")).unwrap();
}

pub(super) const MEAN: &str =
    r#"{"word_embedding_dimension": 8, "pooling_mode_cls_token": false, "pooling_mode_mean_tokens": true}"#;
const FIRST: &str = r#"{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}"#;

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}

fn opened(modules: &[(&str, &str)], pooling: &str) -> (tempfile::TempDir, Result<(SentenceEncoder, Vec<String>)>) {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), modules, pooling);
    let sentences = open(folder.path(), &Device::Cpu);
    (folder, sentences)
}

fn open(folder: &Path, device: &Device) -> Result<(SentenceEncoder, Vec<String>)> {
    let folder = Folder::read(folder)?;
    Ok((folder.encoder(device)?, folder.notes))
}

#[test]
fn texts_are_neither_padded_nor_cut_by_the_tokenizers_settings() {
    let (_, sentences) = opened(&[("Transformer", ""), ("Pooling", "1_Pooling")], MEAN);
    let (sentences, notes) = sentences.unwrap();
    assert_eq!((sentences.width(), notes.len()), (8, 0));
    let all = texts(&["a b c d", "b", "", "a b c d a b", "a b c d b a", "A"]);
    let found = sentences.embed(&all).unwrap();
    assert_eq!((found.rows.len(), found.cut), (6 * 8, 2), "six positions are four words and two special tokens");
    let row = |at: usize| &found.rows[at * 8..][..8];
    assert_eq!(row(3), row(0), "what is left of a long text");
    assert!(row(1) != row(2) && row(2) != row(5));
    for (at, text) in all.iter().enumerate() {
        assert_eq!(sentences.embed(std::slice::from_ref(text)).unwrap().rows, row(at), "`{text}` alone");
    }
    // Fewer tokens by the folder's own limit, and lower case.
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &[("Transformer", ""), ("Pooling", "1_Pooling")], MEAN);
    std::fs::write(folder.path().join("sentence_bert_config.json"), r#"{"max_seq_length": 4, "do_lower_case": true}"#).unwrap();
    let (short, _) = open(folder.path(), &Device::Cpu).unwrap();
    let found = short.embed(&texts(&["a b c d", "a b", "A B"])).unwrap();
    assert_eq!((&found.rows[..8], found.cut), (&found.rows[8..16], 1));
    assert_eq!(found.rows[8..16], found.rows[16..]);
}

#[test]
fn the_length_may_stand_beside_the_tokenizer() {
    let cut = |length: &str| {
        let folder = tempfile::tempdir().unwrap();
        write(
            folder.path(),
            &[("Transformer", ""), ("Pooling", "1_Pooling")],
            r#"{"pooling_mode": "mean", "include_prompt": true}"#,
        );
        std::fs::write(folder.path().join("sentence_bert_config.json"), r#"{"transformer_task": "feature-extraction"}"#).unwrap();
        std::fs::write(folder.path().join("tokenizer_config.json"), format!("{{\"model_max_length\": {length}}}")).unwrap();
        open(folder.path(), &Device::Cpu).map(|(encoder, _)| encoder.embed(&texts(&["a b c d", "a b", "a b c d a"])).unwrap().cut)
    };
    assert_eq!((cut("4").unwrap(), cut("6").unwrap(), cut("1000000000000000019884624838656").unwrap()), (2, 1, 1));
    assert!(cut("2").unwrap_err().to_string().contains("model_max_length"));
}

#[test]
fn modules_say_what_becomes_of_the_tokens() {
    let embed = |modules: &[(&str, &str)], pooling: &str| {
        let (_, sentences) = opened(modules, pooling);
        let (sentences, notes) = sentences.unwrap();
        (sentences.embed(&texts(&["a b c"])).unwrap().rows, notes)
    };
    let both = [("Transformer", ""), ("Pooling", "1_Pooling")];
    let (mean, notes) = embed(&both, MEAN);
    let (first, _) = embed(&both, FIRST);
    assert!(mean != first && notes.is_empty());
    let (guessed, notes) = embed(&[], MEAN);
    assert!(guessed == mean && notes[0].contains("the mean is taken"), "{notes:?}");
    let (scaled, _) = embed(&[both[0], both[1], ("Normalize", "2_Normalize")], MEAN);
    let length = mean.iter().map(|v| v * v).sum::<f32>().sqrt();
    assert!(scaled.iter().zip(&mean).all(|(s, m)| (s - m / length).abs() < 1e-6));
    let device = Device::open("emulated").map(|(device, _)| device);
    if let Ok(device) = device {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &both, MEAN);
        let there = open(folder.path(), &device).unwrap().0.embed(&texts(&["a b c"])).unwrap().rows;
        assert!(there.iter().zip(&mean).all(|(a, b)| (a - b).abs() < 1e-5), "{there:?} {mean:?}");
    }
}

#[test]
fn what_is_missing_or_unknown_is_named() {
    let both = [("Transformer", ""), ("Pooling", "1_Pooling")];
    let error = |modules: &[(&str, &str)], pooling: &str| opened(modules, pooling).1.err().unwrap().to_string();
    assert!(error(&[both[0], ("Dense", "2_Dense")], MEAN).contains("a module `Dense`"));
    assert!(error(&[both[1]], MEAN).contains("names neither a transformer"));
    let two = r#"{"pooling_mode_max_tokens": true, "pooling_mode_mean_tokens": true}"#;
    assert!(error(&both, two).contains("max and mean"));
    for (name, said) in
        [("tokenizer.json", "fast tokenizers"), ("model.safetensors", "as safetensors"), ("config.json", "config.json")]
    {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &both, MEAN);
        std::fs::remove_file(folder.path().join(name)).unwrap();
        let error = open(folder.path(), &Device::Cpu).err().unwrap().to_string();
        assert!(error.contains(name) && error.contains(said), "{error}");
    }
    let (folder, _) = opened(&both, MEAN);
    let found = |path: &Path| folder::at(path).unwrap().is_some();
    assert!(found(folder.path()) && !found(&folder.path().join("1_Pooling/none")));
    for (name, text, said) in [
        ("config.json", NETWORK.replace("\"vocab_size\": 9", "\"vocab_size\": 7"), "7, 8]"),
        ("sentence_bert_config.json", r#"{"max_seq_length": 2}"#.to_string(), "max_seq_length"),
        ("modules.json", "[".to_string(), "no JSON"),
        ("tokenizer.json", TOKENIZER.replace("\"d\": 7", "\"d\": 7, \"e\": 8, \"f\": 9"), "10 tokens, and the encoder knows 9"),
    ] {
        let (folder, _) = opened(&both, MEAN);
        std::fs::write(folder.path().join(name), text).unwrap();
        let error = open(folder.path(), &Device::Cpu).err().unwrap().to_string();
        assert!(error.contains(said), "{name}: {error}");
    }
}

#[test]
fn word_vectors_begin_a_static_embedding_weighted_by_frequency() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("words.txt");
    std::fs::write(&file, "2 2\na 1 0\nb 0 2\n").unwrap();
    let start = |more: &str| {
        let text = Recipe::new("t.toml", format!("[encoder.static]\nweights = {:?}\n{more}", file.to_str().unwrap()));
        let (recipe, _) = SentencesRecipe::check(&text)?;
        start::Start::new(&recipe, &text, || vec!["a a", "b zzz"])
    };
    let rows = |start: &start::Start| start.tensors.as_ref().unwrap()[table::ROWS].to_vec2::<f32>().unwrap();
    let plain = start("").unwrap();
    assert_eq!(rows(&plain), [[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]]);
    assert_eq!(plain.tokenizer.encode("b a c", false).unwrap().get_ids(), [2, 1, 0]);
    // Counts with a half each: 1.5 of what is unknown, 2.5 of a, 1.5 of b, of 5.5.
    let weighted = rows(&start("sif = 0.5").unwrap());
    let of = |count: f64| (0.5 / (0.5 + count / 5.5)) as f32;
    assert_eq!(weighted, [[0.0, 0.0], [of(2.5), 0.0], [0.0, 2.0 * of(1.5)]]);
    assert!(start("width = 2").err().unwrap().to_string().contains("beside `weights`"));
    let text = Recipe::new("t.toml", "[encoder.static]\nsif = 0.5\n");
    assert!(SentencesRecipe::check(&text).err().unwrap().to_string().contains("needs `weights`"));
    // What is no encoder and no table is refused by name.
    std::fs::write(&file, "some text, and no numbers\n").unwrap();
    assert!(start("").err().unwrap().to_string().contains("no file of word vectors"));
}
