//! Writes an encoder of sentences as a folder that sentence-transformers, transformers and model2vec open; a text tower of CLIP or SigLIP as one
//! that transformers opens.

use std::path::Path;

use candle_core::Tensor;
use ctk_core::store::files;
use ctk_core::{Error, Result};
use serde_json::{Value, json};
use tokenizers::Tokenizer;

use super::network::{Described, Network};
use super::prompts;
use super::table;
use crate::modules;
use crate::transformer::towers::{self, Written};
use crate::transformer::{Pooling, config, names};

/// The folder of a static embedding.
const TABLE: &str = "0_StaticEmbedding";
const POOLING: &str = "1_Pooling";
const NORMALISE: &str = "2_Normalize";

/// Writes the folder `out`: `tensors` are the encoder's under ctk's names, `tokenizer` is without settings for truncation and padding.
///
/// # Errors
/// Something other than an empty folder exists at `out`; tensors of another network; a file cannot be written.
pub fn write(of: &Described, tensors: &[(String, Tensor)], tokenizer: &Tokenizer, out: &Path) -> Result<()> {
    let normalise = of.normalise.then_some(("Normalize", NORMALISE));
    files::folder_with(out, |folder| {
        if of.normalise {
            // The module has no file, but its folder must be there.
            files::write(&folder.join(NORMALISE).join("README.md"), b"Scales rows to length 1.\n")?;
        }
        match &of.network {
            Network::Transformer { family, shape, pooling } => {
                let mut list = vec![("Transformer", ""), ("Pooling", POOLING)];
                list.extend(normalise);
                modules::write(folder, &list, prompts::written(&of.rules))?;
                write_json(&folder.join("config.json"), &config::write(*family, shape))?;
                write_json(&folder.join(POOLING).join("config.json"), &pooled(shape.width, *pooling))?;
                let longest = of.rules.longest.unwrap_or(shape.longest());
                let lengths = json!({ "max_seq_length": longest, "do_lower_case": of.rules.lower });
                write_json(&folder.join("sentence_bert_config.json"), &lengths)?;
                weights(&names::give(*family, tensors)?, &folder.join("model.safetensors"))?;
                write_tokenizer(tokenizer, Some(longest), &[], folder)?;
            }
            Network::Table(_) => {
                let mut list = vec![("StaticEmbedding", TABLE)];
                list.extend(normalise);
                modules::write(folder, &list, prompts::written(&of.rules))?;
                let place = folder.join(TABLE);
                let rows = tensors.iter().find(|(name, _)| name == table::ROWS);
                let rows = rows.ok_or_else(|| Error::new("the encoder has no table"))?;
                weights(&[("embedding.weight".to_string(), rows.1.clone())], &place.join("model.safetensors"))?;
                write_tokenizer(tokenizer, None, &[], &place)?;
            }
        }
        files::write(&folder.join("README.md"), card(of).as_bytes())
    })
}

/// The end token of old configurations of CLIP, by which transformers knows that they do not tell the true one.
const LEGACY_END: u32 = 2;

/// The text tower of an encoder as transformers writes it: `text_config`, with the tokens that the model needs to know, and its tensors.
/// `tensors` are the encoder's under ctk's names, of the projection too, if it has one.
///
/// # Errors
/// An encoder that is no text tower of CLIP or SigLIP, or has features that transformers does not take; tensors of another network.
pub fn tower(of: &Described, tensors: &[(String, Tensor)]) -> Result<Written> {
    let Network::Transformer { family, shape, pooling } = &of.network else {
        return Err(Error::usage("a static embedding is no text tower"));
    };
    let mut written = towers::write(*family, shape, tensors)?;
    if *pooling != Pooling::Last {
        return Err(Error::usage("this encoder's features are not those of its last token, as in transformers' text towers")
            .hint("leave out encoder.transformer.pooling"));
    }
    if let Some(end) = of.rules.end {
        if end == LEGACY_END {
            return Err(Error::usage(format!(
                "texts end with token {end} here, and transformers takes the features of the largest token's place where that is the end"
            ))
            .hint("a tokenizer by `tokenizer.train.kind = \"wordpiece\"` ends texts with another number"));
        }
        written.config["eos_token_id"] = end.into();
    }
    if let Some(id) = of.rules.padding.map(|padding| padding.id).or(of.rules.end) {
        written.config["pad_token_id"] = id.into();
    }
    Ok(written)
}

/// Writes a text tower of CLIP or SigLIP as the folder `out`. Returns notes on what it does not have there.
///
/// # Errors
/// As for [`tower`]; something other than an empty folder exists at `out`; a file cannot be written.
pub fn write_tower(of: &Described, tensors: &[(String, Tensor)], tokenizer: &Tokenizer, out: &Path) -> Result<Vec<String>> {
    let Written { mut config, tensors } = tower(of, tensors)?;
    config["dtype"] = "float32".into();
    files::folder_with(out, |folder| {
        write_json(&folder.join("config.json"), &config)?;
        weights(&tensors, &folder.join("model.safetensors"))?;
        write_tower_tokenizer(of, tokenizer, folder)
    })?;
    let mut notes = Vec::new();
    if of.normalise {
        notes.push("transformers does not scale features to length 1, as this run does".to_string());
    }
    if !of.rules.prompt.is_empty() || of.rules.prompts.values().any(|prompt| !prompt.is_empty()) {
        notes.push("transformers has no prompts: put those of this run before texts yourself".to_string());
    }
    Ok(notes)
}

/// Writes `tokenizer.json` and `tokenizer_config.json` of a text tower, by which transformers' tokenizers give the same tokens: texts are
/// prepared by the file itself, and `padding="max_length", truncation=True` cuts and fills up.
///
/// # Errors
/// A tokenizer that cannot be written in this form; a file cannot be written.
pub fn write_tower_tokenizer(of: &Described, tokenizer: &Tokenizer, folder: &Path) -> Result<()> {
    let longest = of.rules.padding.map(|padding| padding.to).or(of.rules.longest).or(of.network.longest());
    let filler = of.rules.padding.map(|padding| padding.id).or(of.rules.end);
    let named = |key, id: Option<u32>| Some((key, tokenizer.id_to_token(id?)?));
    let tokens: Vec<(&str, String)> =
        [named("pad_token", filler), named("eos_token", of.rules.end)].into_iter().flatten().collect();
    write_tokenizer(&of.rules.baked(tokenizer)?, longest, &tokens, folder)
}

/// The description of a pooling.
fn pooled(width: usize, pooling: Pooling) -> Value {
    json!({
        "word_embedding_dimension": width,
        "pooling_mode_cls_token": pooling == Pooling::First,
        "pooling_mode_mean_tokens": pooling == Pooling::Mean,
        "pooling_mode_max_tokens": false,
        "pooling_mode_mean_sqrt_len_tokens": false,
        "pooling_mode_weightedmean_tokens": false,
        "pooling_mode_lasttoken": pooling == Pooling::Last,
        "include_prompt": true,
    })
}

fn weights(tensors: &[(String, Tensor)], path: &Path) -> Result<()> {
    let metadata = std::collections::HashMap::from([("format".to_string(), "pt".to_string())]);
    let bytes = safetensors::serialize(tensors.iter().map(|(name, tensor)| (name, tensor)), Some(metadata))?;
    files::write(path, &bytes)
}

/// Writes the tokenizer, and what transformers needs to know about it: the names of its usual tokens, and of these.
fn write_tokenizer(tokenizer: &Tokenizer, longest: Option<usize>, tokens: &[(&str, String)], folder: &Path) -> Result<()> {
    let mut tokenizer = tokenizer.clone();
    tokenizer.with_padding(None).with_truncation(None).map_err(Error::new)?;
    let text = tokenizer.to_string(true).map_err(Error::new)?;
    files::write(&folder.join("tokenizer.json"), text.as_bytes())?;
    let named = |names: &[&str]| names.iter().find(|name| tokenizer.token_to_id(name).is_some()).map(ToString::to_string);
    let mut config = json!({ "tokenizer_class": "PreTrainedTokenizerFast" });
    for (key, names) in [
        ("unk_token", &["[UNK]", "<unk>"][..]),
        ("pad_token", &["[PAD]", "<pad>"]),
        ("cls_token", &["[CLS]", "<s>"]),
        ("sep_token", &["[SEP]", "</s>"]),
        ("mask_token", &["[MASK]", "<mask>"]),
    ] {
        if let Some(name) = named(names) {
            config[key] = name.into();
        }
    }
    for (key, name) in tokens {
        config[*key] = name.as_str().into();
    }
    if let Some(longest) = longest {
        config["model_max_length"] = longest.into();
    }
    write_json(&folder.join("tokenizer_config.json"), &config)
}

fn write_json(path: &Path, value: &Value) -> Result<()> {
    files::write(path, &serde_json::to_vec_pretty(value)?)
}

fn card(of: &Described) -> String {
    let what = match &of.network {
        Network::Transformer { shape, .. } => {
            format!("A transformer of {} layers of {} values, {} heads", shape.layers, shape.width, shape.heads)
        }
        Network::Table([rows, width]) => {
            format!("A static embedding: {rows} tokens of {width} values, of which the mean is taken")
        }
    };
    modules::card(&[], "An encoder of sentences trained by ctk", &format!("{what}."))
}
