//! The names of a transformer's tensors in the files of transformers, and ctk's.

use std::collections::HashMap;

use candle_core::Tensor;
use ctk_core::error::{Error, Result};

use super::towers;

/// A kind of network of transformers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// BERT, and what is built like it: MiniLM.
    Bert,
    /// RoBERTa: BERT with other positions.
    Roberta,
    /// DistilBERT: BERT without types, under other names.
    Distilbert,
    /// The text tower of CLIP: see [`towers`](super::towers).
    Clip,
    /// The text tower of SigLIP.
    Siglip,
}

/// The names of a block's layers: ctk's, BERT's, DistilBERT's.
const BLOCK: [[&str; 3]; 5] = [
    ["mix", "attention.output.dense", "attention.out_lin"],
    ["mixed", "attention.output.LayerNorm", "sa_layer_norm"],
    ["in", "intermediate.dense", "ffn.lin1"],
    ["out", "output.dense", "ffn.lin2"],
    ["done", "output.LayerNorm", "output_layer_norm"],
];

/// The query, key and value layers, which are one layer in ctk, in the order of their rows.
const QKV: [[&str; 2]; 3] = [
    ["attention.self.query", "attention.q_lin"],
    ["attention.self.key", "attention.k_lin"],
    ["attention.self.value", "attention.v_lin"],
];

/// Tensors of heads and of training, which an encoder does not use.
const UNUSED: [&str; 7] = ["pooler.", "cls.", "lm_head.", "classifier.", "vocab_", "qa_outputs.", "embeddings.position_ids"];

impl Family {
    /// Whether it is the text tower of a model of texts and images.
    pub fn is_tower(self) -> bool {
        matches!(self, Family::Clip | Family::Siglip)
    }

    /// The names of the embeddings: ctk's and transformers'.
    fn embeddings(self) -> Vec<(&'static str, &'static str)> {
        let types = (self != Family::Distilbert).then_some(("types.weight", "embeddings.token_type_embeddings.weight"));
        let shared = [
            ("words.weight", "embeddings.word_embeddings.weight"),
            ("positions.weight", "embeddings.position_embeddings.weight"),
            ("norm.weight", "embeddings.LayerNorm.weight"),
            ("norm.bias", "embeddings.LayerNorm.bias"),
        ];
        shared.into_iter().chain(types).collect()
    }

    /// The prefix of task models, and the place of the blocks.
    fn places(self) -> [&'static str; 2] {
        match self {
            Family::Bert => ["bert.", "encoder.layer"],
            Family::Roberta => ["roberta.", "encoder.layer"],
            Family::Distilbert => ["distilbert.", "transformer.layer"],
            Family::Clip | Family::Siglip => ["text_model.", "encoder.layers"],
        }
    }
}

/// The tensors of a network of `layers` blocks under ctk's names, from those of a file.
///
/// # Errors
/// A tensor that is missing, or that is neither part of the network nor of a head; a text tower, which has
/// [`towers::names`](super::towers::names).
pub fn adopt(family: Family, layers: usize, from: &HashMap<String, Tensor>) -> Result<HashMap<String, Tensor>> {
    if family.is_tower() {
        return Err(Error::usage("a text tower of CLIP or SigLIP is read from a folder of its own, or from a module CLIPModel"));
    }
    let [prefix, blocks] = family.places();
    let theirs = if family == Family::Distilbert { 1 } else { 0 };
    // Old files say gamma and beta.
    let plain = |name: &str| {
        let name = name.strip_prefix(prefix).unwrap_or(name);
        name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
    };
    let mut left: HashMap<String, &Tensor> = from.iter().map(|(name, tensor)| (plain(name), tensor)).collect();
    let mut take = |name: &str| -> Result<Tensor> {
        left.remove(name).cloned().ok_or_else(|| Error::new(format!("the tensor `{name}` is missing")))
    };
    let mut all = HashMap::new();
    for (own, name) in family.embeddings() {
        all.insert(own.to_string(), take(name)?);
    }
    for number in 0..layers {
        for kind in ["weight", "bias"] {
            let parts = QKV.map(|names| take(&format!("{blocks}.{number}.{}.{kind}", names[theirs])));
            let [q, k, v] = parts;
            all.insert(format!("{number}.qkv.{kind}"), Tensor::cat(&[q?, k?, v?], 0)?);
            for names in BLOCK {
                let tensor = take(&format!("{blocks}.{number}.{}.{kind}", names[1 + theirs]))?;
                all.insert(format!("{number}.{}.{kind}", names[0]), tensor);
            }
        }
    }
    let strange = left.keys().filter(|name| !UNUSED.iter().any(|unused| name.starts_with(unused))).min();
    match strange {
        Some(name) => Err(Error::new(format!("the tensor `{name}` is no part of this network"))
            .hint("config.json may describe another network than the weights are of")),
        None => Ok(all),
    }
}

/// The inverse of [`adopt`]: a file's tensors from the network's, in the order of the network.
///
/// # Errors
/// A tensor that the network does not have.
pub fn give(family: Family, from: &[(String, Tensor)]) -> Result<Vec<(String, Tensor)>> {
    if family.is_tower() {
        return towers::names::give(family, from);
    }
    let [_, blocks] = family.places();
    let theirs = if family == Family::Distilbert { 1 } else { 0 };
    let embeddings = family.embeddings();
    let unknown = |name: &str| Error::new(format!("`{name}` has no name in files of transformers"));
    let mut all = Vec::new();
    for (name, tensor) in from {
        if let Some((_, name)) = embeddings.iter().find(|(own, _)| own == name) {
            all.push((name.to_string(), tensor.clone()));
            continue;
        }
        let [number, layer, kind] = name.splitn(3, '.').collect::<Vec<_>>()[..] else { return Err(unknown(name)) };
        if layer == "qkv" {
            for (names, part) in QKV.iter().zip(tensor.chunk(3, 0)?) {
                all.push((format!("{blocks}.{number}.{}.{kind}", names[theirs]), part.contiguous()?));
            }
            continue;
        }
        let names = BLOCK.iter().find(|names| names[0] == layer).ok_or_else(|| unknown(name))?;
        all.push((format!("{blocks}.{number}.{}.{kind}", names[1 + theirs]), tensor.clone()));
    }
    Ok(all)
}
