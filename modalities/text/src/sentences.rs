//! Encoders of sentences in the folders that sentence-transformers and transformers write.
//!
//! `modules.json` lists a folder's modules: a transformer, a pooling, perhaps a normalisation. Without it, the folder is transformers' own,
//! and the mean is taken, which a note says. The tokenizer's own settings for truncation and padding are not used: texts are cut to the
//! length of `sentence_bert_config.json`, and nothing is padded.

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use candle_core::DType;
use ctk_core::data::pair::HostBatch;
use ctk_core::eval::normalise;
use ctk_core::model::encoder::Encoder;
use ctk_core::nn::params::Params;
use ctk_core::nn::pass::Pass;
use ctk_core::nn::rows::Rows;
use ctk_core::process::Stop;
use ctk_core::rng::Key;
use ctk_core::{Context, Device, Error, Result, opened};
use ctk_texts::corpus::read_tokenizer;
use rayon::prelude::*;
use serde_json::Value;
use tokenizers::{Tokenizer, TruncationParams};

use crate::transformer::{Pooling, Shape, Tokens, Transformer, config, names};

/// Tokens that are encoded at once: enough for products of full speed.
const AT_ONCE: usize = 8192;

/// An encoder of sentences.
pub struct Sentences {
    encoder: Transformer,
    tokenizer: Tokenizer,
    layout: Layout,
    /// What was guessed, to be said.
    pub notes: Vec<String>,
}

/// Features of texts.
pub struct Embedded {
    /// The features, one row after the other.
    pub rows: Vec<f32>,
    /// Texts that were longer than the model reads, and were cut.
    pub cut: usize,
}

/// What a folder says beside the network.
#[derive(Debug, PartialEq)]
struct Layout {
    /// The folder of the transformer.
    transformer: PathBuf,
    pooling: Pooling,
    /// Whether features are scaled to length 1.
    normalise: bool,
    /// Tokens of a text, special ones included.
    longest: Option<usize>,
    /// Whether texts are lower-cased before the tokenizer reads them.
    lower: bool,
}

impl Sentences {
    /// Whether `folder` looks like one: it has modules, or a network's description and weights.
    pub fn is_folder(folder: &Path) -> bool {
        folder.join("modules.json").is_file() || folder.join("config.json").is_file()
    }

    /// Opens a folder on `device`.
    ///
    /// # Errors
    /// A file that is missing or damaged; a network, a module or a pooling that ctk does not have, by its name.
    pub fn open(folder: &Path, device: &Device) -> Result<Sentences> {
        let mut notes = Vec::new();
        let layout = Layout::read(folder, &mut notes)?;
        let file = |name: &str| -> Result<PathBuf> {
            let path = layout.transformer.join(name);
            if path.is_file() { Ok(path) } else { Err(absent(name).at(path.display())) }
        };
        let description = file("config.json")?;
        let (family, shape) = opened::text(&description).and_then(|text| config::read(&text)).at(description.display())?;
        let weights = file("model.safetensors")?;
        let mut params = Params::new();
        let encoder = Transformer::new(&shape, layout.pooling, params.root().sub("encoder"))?;
        let tensors =
            candle_core::safetensors::load_buffer(&opened::read(&weights).at(weights.display())?, &candle_core::Device::Cpu);
        let mut tensors =
            names::adopt(family, shape.layers, &tensors.map_err(Error::from).at(weights.display())?).at(weights.display())?;
        for tensor in tensors.values_mut() {
            *tensor = tensor.to_dtype(DType::F32)?;
        }
        params.materialise(Key::new(0), DType::F32, device)?;
        params.load_section("encoder", &tensors).at(weights.display())?;
        let tokenizer = cutting(read_tokenizer(&file("tokenizer.json")?)?, &shape, &layout)?;
        Ok(Sentences { encoder, tokenizer, layout, notes })
    }

    /// Values of a row.
    pub fn width(&self) -> usize {
        self.encoder.width()
    }

    /// A row for each text, in order.
    ///
    /// # Errors
    /// The tokenizer or the device fails; the process was asked to end.
    pub fn embed(&self, texts: &[String]) -> Result<Embedded> {
        let tokens = |text: &String| -> Result<(Vec<u32>, bool)> {
            let lowered = if self.layout.lower { Some(text.to_lowercase()) } else { None };
            let found = self.tokenizer.encode_fast(lowered.as_deref().unwrap_or(text), true);
            let found = found.map_err(|e| Error::new(format!("the tokenizer fails: {e}")))?;
            Ok((found.get_ids().to_vec(), !found.get_overflowing().is_empty()))
        };
        let (mut rows, mut cut, stop) = (Vec::with_capacity(texts.len() * self.width()), 0, Stop::here());
        // So many texts that their tokens are not in memory all at once.
        for texts in texts.chunks(AT_ONCE) {
            let found: Vec<(Vec<u32>, bool)> = texts.par_iter().map(tokens).collect::<Result<_>>()?;
            cut += found.iter().filter(|(_, cut)| *cut).count();
            let mut from = 0;
            while from < found.len() {
                stop.check()?;
                let (mut batch, mut count, mut to) = (Tokens::default(), 0, from);
                while to < found.len() && (to == from || count + found[to].0.len() <= AT_ONCE) {
                    batch.push(&found[to].0);
                    count += found[to].0.len();
                    to += 1;
                }
                let (y, _) = self.encoder.encode(&Tokens::stack(&[&batch])?, &Rows::alone(to - from), &Pass::eval())?;
                rows.extend(y.flatten_all()?.to_vec1::<f32>()?);
                from = to;
            }
        }
        if self.layout.normalise {
            normalise(&mut rows, self.width());
        }
        Ok(Embedded { rows, cut })
    }
}

/// The tokenizer, set to truncate texts to the model's length and not to pad them.
fn cutting(mut tokenizer: Tokenizer, shape: &Shape, layout: &Layout) -> Result<Tokenizer> {
    let longest = layout.longest.unwrap_or(usize::MAX).min(shape.longest());
    let truncation = TruncationParams { max_length: longest, ..TruncationParams::default() };
    tokenizer
        .with_padding(None)
        .with_truncation(Some(truncation))
        .map_err(|e| Error::usage(format!("texts cannot be cut to {longest} tokens: {e}")))?;
    let most = tokenizer.get_vocab_size(true);
    if most > shape.vocabulary {
        let what = format!("the tokenizer has {most} tokens, and the network {}", shape.vocabulary);
        return Err(Error::usage(what).hint("tokenizer.json and config.json belong to different models"));
    }
    Ok(tokenizer)
}

fn absent(name: &str) -> Error {
    let error = Error::usage(format!("the folder of this encoder lacks {name}"));
    match name {
        "model.safetensors" => error.hint("ctk reads one safetensors file: save the model with transformers as safetensors"),
        "tokenizer.json" => {
            error.hint("ctk reads fast tokenizers: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)")
        }
        _ => error,
    }
}

impl Layout {
    fn read(folder: &Path, notes: &mut Vec<String>) -> Result<Layout> {
        let plain =
            Layout { transformer: folder.to_path_buf(), pooling: Pooling::Mean, normalise: false, longest: None, lower: false };
        let modules = folder.join("modules.json");
        if !modules.is_file() {
            notes.push("the folder does not say how tokens become a text's features: the mean is taken".to_string());
            return plain.with_lengths();
        }
        let mut layout = Layout { transformer: PathBuf::new(), ..plain };
        let mut pooled = false;
        for module in json(&modules)?.as_array().map(Vec::as_slice).unwrap_or_default() {
            let kind = module["type"].as_str().and_then(|kind| kind.rsplit('.').next()).unwrap_or_default();
            let at = folder.join(module["path"].as_str().unwrap_or_default());
            match kind {
                "Transformer" => layout.transformer = at,
                "Pooling" => {
                    layout.pooling = pooling(&at.join("config.json"))?;
                    pooled = true;
                }
                "Normalize" => layout.normalise = true,
                other => {
                    let what = format!("modules.json has a module `{other}`, which ctk does not have");
                    return Err(Error::usage(what).at(modules.display()).hint("ctk has Transformer, Pooling and Normalize"));
                }
            }
        }
        if layout.transformer.as_os_str().is_empty() {
            return Err(Error::usage("modules.json names no transformer").at(modules.display()));
        }
        if !pooled {
            notes.push("modules.json does not say how tokens become a text's features: the mean is taken".to_string());
        }
        layout.with_lengths()
    }

    /// The same with the largest number of tokens and the lower-casing that `sentence_bert_config.json` asks for, if there is such a file.
    fn with_lengths(self) -> Result<Layout> {
        let path = self.transformer.join("sentence_bert_config.json");
        if !path.is_file() {
            return Ok(self);
        }
        let of = json(&path)?;
        let longest = match &of["max_seq_length"] {
            Value::Null => None,
            length => {
                let length = length.as_u64().filter(|length| (3..1 << 31).contains(length));
                Some(length.ok_or_else(|| Error::usage("max_seq_length is no length of a text").at(path.display()))? as usize)
            }
        };
        Ok(Layout { longest, lower: of["do_lower_case"].as_bool() == Some(true), ..self })
    }
}

/// The pooling that a module's `config.json` describes.
fn pooling(path: &Path) -> Result<Pooling> {
    let of = json(path)?;
    let entries = of.as_object().into_iter().flatten();
    let chosen: Vec<&str> = entries
        .filter(|(key, value)| key.starts_with("pooling_mode_") && value.as_bool() == Some(true))
        .map(|(key, _)| key.trim_start_matches("pooling_mode_"))
        .collect();
    match chosen[..] {
        ["mean_tokens"] => Ok(Pooling::Mean),
        ["cls_token"] => Ok(Pooling::First),
        _ => Err(Error::usage(format!("the pooling is {}, which ctk does not have", chosen.join(" and ")))
            .at(path.display())
            .hint("ctk has mean_tokens and cls_token, one of them")),
    }
}

fn json(path: &Path) -> Result<Value> {
    let text = opened::text(path).at(path.display())?;
    serde_json::from_str(&text).map_err(|e| Error::usage(format!("this is no JSON: {e}")).at(path.display()))
}
