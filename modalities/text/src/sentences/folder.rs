//! Opens the folders of encoders that sentence-transformers, transformers, open_clip and model2vec write.
//!
//! `modules.json` lists a folder's modules: a transformer with a pooling, or a static embedding; perhaps a normalisation. Without it, the
//! folder is model2vec's or transformers' own; transformers does not say how tokens become a text's features, so the mean is taken, which a
//! note says. The tokenizer's own settings for truncation and padding are not used: texts are cut to the length that the encoder's folder
//! names, and nothing is padded, unless it is the text tower of SigLIP ([`towers`](super::towers)).

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use candle_core::{DType, Tensor};
use ctk_core::{Context, Device, Error, Result, opened};
use ctk_texts::corpus::read_tokenizer;
use serde_json::Value;
use tokenizers::Tokenizer;

use super::encoder::SentenceEncoder;
use super::network::{Described, Network};
use super::prompts;
use super::table;
use super::tokenizing::Rules;
use super::towers::{self, Tower};
use crate::transformer::towers::config::OPEN_CLIP;
use crate::transformer::towers::names::Layout as Names;
use crate::transformer::{Pooling, config, names};

/// The tokenizer's file.
const TOKENIZER: &str = "tokenizer.json";

/// A length of texts that stands for none.
const UNLIMITED: f64 = 1e9;

/// The tokens of a text that model2vec reads if its folder does not say so.
const MODEL2VEC_LONGEST: usize = 512;

/// The kind of network in the description that model2vec writes.
const MODEL2VEC: &str = "model2vec";

/// An encoder as a folder has it.
pub struct Folder {
    /// The network, how texts become tokens, and whether features are scaled.
    pub described: Described,
    /// The weights under ctk's names, in f32.
    pub tensors: HashMap<String, Tensor>,
    /// The tokenizer as its file has it.
    pub tokenizer: Tokenizer,
    /// What was guessed, or is not used, to be said.
    pub notes: Vec<String>,
}

/// What a folder says beside the network.
struct Layout {
    /// The folder of the transformer or table.
    place: PathBuf,
    kind: Kind,
    pooling: Pooling,
    normalise: bool,
    rules: Rules,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Transformer,
    Tower(Names),
    Table,
    Model2Vec,
}

/// The local folder of an encoder: `path` itself, or for a repository of the hub (`hf://owner/name`) its folder in the cache, with all files
/// that [`Folder::read`] reads.
///
/// # Errors
/// A repository that has no such files; a file that cannot be downloaded.
fn local(path: &Path) -> Result<Cow<'_, Path>> {
    if !ctk_hub::is_repository(path) {
        return Ok(Cow::Borrowed(path));
    }
    let folder = ctk_hub::folder(path, &["modules.json", "config.json", "config_sentence_transformers.json", OPEN_CLIP])?;
    let mut names: Vec<String> = Vec::new();
    let mut add = |place: &str, files: &[&str]| {
        let place = if place.is_empty() || place == "." { String::new() } else { format!("{}/", place.trim_end_matches('/')) };
        names.extend(files.iter().map(|file| format!("{place}{file}")));
    };
    let network = ["config.json", "sentence_bert_config.json", "tokenizer_config.json", "tokenizer.json", "model.safetensors"];
    match folder.join("modules.json").is_file() {
        true => {
            for module in json(&folder.join("modules.json"))?.as_array().into_iter().flatten() {
                let place = module["path"].as_str().unwrap_or_default();
                inside(place)?;
                let pooling = module["type"].as_str().is_some_and(|kind| kind.ends_with(".Pooling"));
                add(place, if pooling { &network[..1] } else { &network });
            }
        }
        false => add("", &network),
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let folder = ctk_hub::folder(path, &names)?.into_owned();
    if towers::layout(&folder) == Some(Names::OpenClip) {
        ctk_hub::folder(path, &towers::OPEN_CLIP_WEIGHTS)?;
    }
    Ok(Cow::Owned(folder))
}

/// The local folder of another program's encoder of texts at `path`; none if something else is there.
///
/// # Errors
/// A repository of the hub that has no such files; a file that cannot be downloaded.
pub fn at(path: &Path) -> Result<Option<Cow<'_, Path>>> {
    let folder = local(path)?;
    Ok(if folder.is_dir() && is_folder(&folder) { Some(folder) } else { None })
}

/// Whether `folder` looks like that of an encoder of texts: it has modules, or the description of a network that is not of images alone.
fn is_folder(folder: &Path) -> bool {
    let described = || folder.join("config.json").is_file() && !folder.join("preprocessor_config.json").is_file();
    folder.join("modules.json").is_file()
        || towers::layout(folder).is_some()
        || described() && network_of(folder).is_ok_and(|kind| !kind.is_empty())
}

/// The kind of network that `config.json` describes; empty if that is not said. model2vec does not always name itself.
fn network_of(folder: &Path) -> Result<String> {
    let of = json(&folder.join("config.json"))?;
    let named = of["model_type"].as_str().unwrap_or_default();
    Ok(if named.is_empty() && of["embedding_dtype"].is_string() { MODEL2VEC } else { named }.to_string())
}

/// How model2vec reads texts by the folder's `config.json`, and whether it scales rows to length 1.
fn by_model2vec(folder: &Path) -> Result<(Rules, bool)> {
    let of = json(&folder.join("config.json"))?;
    let longest = match &of["max_length"] {
        Value::Null if of.get("max_length").is_some() => None,
        length => Some(length.as_u64().map_or(MODEL2VEC_LONGEST, |length| length as usize)),
    };
    Ok((Rules { longest, ..Rules::default() }, of["normalize"].as_bool() == Some(true)))
}

impl Folder {
    /// Reads a folder.
    ///
    /// # Errors
    /// A file that is missing or damaged; a network, a module or a pooling that ctk does not have, by its name.
    pub fn read(folder: &Path) -> Result<Folder> {
        let mut notes = Vec::new();
        let mut layout = Layout::read(folder, &mut notes)?;
        let file = |name: &str| -> Result<PathBuf> {
            let path = layout.place.join(name);
            if path.is_file() { Ok(path) } else { Err(absent(name).at(path.display())) }
        };
        let tokenizer = layout.place.join(TOKENIZER);
        if !tokenizer.is_file() {
            return Err(layout.kind.no_tokenizer().at(tokenizer.display()));
        }
        let tokenizer = read_tokenizer(&tokenizer)?;
        if let Kind::Tower(names) = layout.kind {
            let Tower { network, tensors, rules, notes: more } = towers::read(&layout.place, names, &tokenizer, layout.rules)?;
            notes.extend(more);
            let described = Described { network, rules, normalise: layout.normalise };
            return Ok(Folder { described, tensors: in_f32(tensors)?, tokenizer, notes });
        }
        let weights = file("model.safetensors")?;
        let tensors = tensors_of(&weights).at(weights.display())?;
        let (network, tensors) = match layout.kind {
            Kind::Transformer | Kind::Tower(_) => {
                let description = file("config.json")?;
                let (family, shape) = opened::text(&description).and_then(|text| config::read(&text)).at(description.display())?;
                let tensors = names::adopt(family, shape.layers, &tensors).at(weights.display())?;
                layout.rules.longest = Some(layout.rules.longest.unwrap_or(usize::MAX).min(shape.longest()));
                (Network::Transformer { family, shape, pooling: layout.pooling }, tensors)
            }
            Kind::Table | Kind::Model2Vec => {
                let rows = table::adopt(&tensors).at(weights.display())?;
                let shape = rows.dims2()?;
                if layout.kind == Kind::Model2Vec {
                    layout.rules.ignored = table::unknown(&tokenizer);
                }
                (Network::Table([shape.0, shape.1]), HashMap::from([(table::ROWS.to_string(), rows)]))
            }
        };
        let Layout { normalise, rules, .. } = layout;
        Ok(Folder { described: Described { network, rules, normalise }, tensors: in_f32(tensors)?, tokenizer, notes })
    }

    /// Whether the encoder of a folder is a static embedding; its weights are not read.
    ///
    /// # Errors
    /// As for [`read`](Self::read), of its description.
    pub fn is_table(folder: &Path) -> Result<bool> {
        Ok(matches!(Layout::read(folder, &mut Vec::new())?.kind, Kind::Table | Kind::Model2Vec))
    }

    /// The encoder on `device`.
    ///
    /// # Errors
    /// Weights or a tokenizer that do not fit the network.
    pub fn encoder(&self, device: &Device) -> Result<SentenceEncoder> {
        SentenceEncoder::new(&self.described, &self.tensors, self.tokenizer.clone(), device)
    }
}

impl Kind {
    /// The error of a missing tokenizer, with what to do about it.
    fn no_tokenizer(self) -> Error {
        let hint = match self {
            Kind::Tower(Names::OpenClip) => {
                "open_clip has CLIP's tokenizer in itself: put the tokenizer.json of openai/clip-vit-base-patch32 into the folder, or that of \
                 the model's hf_tokenizer_name"
            }
            Kind::Tower(Names::Transformers) => {
                "of CLIP: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER); SigLIP's own is a file of sentencepiece, which ctk \
                 does not read: put the tokenizer.json of a converted one into the folder"
            }
            _ => return absent(TOKENIZER),
        };
        Error::usage(format!("the folder of this encoder lacks {TOKENIZER}")).hint(hint)
    }
}

fn in_f32(mut tensors: HashMap<String, Tensor>) -> Result<HashMap<String, Tensor>> {
    for tensor in tensors.values_mut() {
        *tensor = tensor.to_dtype(DType::F32)?;
    }
    Ok(tensors)
}

pub(super) fn absent(name: &str) -> Error {
    let error = Error::usage(format!("the folder of this encoder lacks {name}"));
    match name {
        "model.safetensors" => error.hint("ctk reads one safetensors file: save the model with transformers as safetensors"),
        TOKENIZER => error.hint("ctk reads fast tokenizers: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"),
        _ => error,
    }
}

impl Layout {
    fn read(folder: &Path, notes: &mut Vec<String>) -> Result<Layout> {
        let rules = Rules { special: true, ..Rules::default() };
        let plain =
            Layout { place: folder.to_path_buf(), kind: Kind::Transformer, pooling: Pooling::Mean, normalise: false, rules };
        let path = folder.join("modules.json");
        if !path.is_file() {
            if let Some(names) = towers::layout(folder) {
                return Layout { kind: Kind::Tower(names), pooling: Pooling::Last, ..plain }.with_lengths();
            }
            if network_of(folder)? == MODEL2VEC {
                let (rules, normalise) = by_model2vec(folder)?;
                return Ok(Layout { kind: Kind::Model2Vec, normalise, rules, ..plain });
            }
            notes.push("the folder does not say how tokens become a text's features: the mean is taken".to_string());
            return plain.with_lengths();
        }
        let modules = json(&path)?;
        let (mut layout, mut network, mut pooled) = (plain, false, false);
        for module in modules.as_array().map(Vec::as_slice).unwrap_or_default() {
            let kind = module["type"].as_str().and_then(|kind| kind.rsplit('.').next()).unwrap_or_default();
            let at = folder.join(inside(module["path"].as_str().unwrap_or_default()).at(path.display())?);
            match kind {
                "Transformer" | "StaticEmbedding" | "CLIPModel" if network => {
                    return Err(Error::usage("modules.json has two networks, and ctk reads one").at(path.display()));
                }
                "Transformer" => (layout.place, network) = (at, true),
                "CLIPModel" => {
                    let names = towers::layout(&at);
                    let names = names.ok_or_else(|| Error::usage("this module has no text tower of CLIP").at(at.display()))?;
                    layout = Layout { place: at, kind: Kind::Tower(names), pooling: Pooling::Last, ..layout };
                    (network, pooled) = (true, true);
                }
                "StaticEmbedding" => {
                    let own = network_of(&at).is_ok_and(|kind| kind == MODEL2VEC);
                    let (kind, rules) =
                        if own { (Kind::Model2Vec, by_model2vec(&at)?.0) } else { (Kind::Table, Rules::default()) };
                    layout = Layout { place: at, kind, rules, ..layout };
                    network = true;
                }
                "Pooling" => {
                    layout.pooling = pooling(&at.join("config.json"))?;
                    pooled = true;
                }
                "Normalize" => layout.normalise = true,
                other => {
                    let what = format!("modules.json has a module `{other}`, which ctk does not have");
                    return Err(Error::usage(what)
                        .at(path.display())
                        .hint("ctk has Transformer, CLIPModel, StaticEmbedding, Pooling and Normalize"));
                }
            }
        }
        if !network {
            return Err(Error::usage("modules.json names neither a transformer nor a static embedding").at(path.display()));
        }
        if layout.kind == Kind::Transformer && !pooled {
            notes.push("modules.json does not say how tokens become a text's features: the mean is taken".to_string());
        }
        prompts::read(&folder.join("config_sentence_transformers.json"), &mut layout.rules)?;
        notes.extend(prompts::note(&layout.rules));
        if matches!(layout.kind, Kind::Transformer | Kind::Tower(_)) { layout.with_lengths() } else { Ok(layout) }
    }

    /// The same with the largest number of tokens and the lower-casing that the folder asks for: in `sentence_bert_config.json`, or, since
    /// sentence-transformers 6 and in transformers' own folders, in `tokenizer_config.json`.
    fn with_lengths(mut self) -> Result<Layout> {
        let path = self.place.join("sentence_bert_config.json");
        let of = if path.is_file() { json(&path)? } else { Value::Null };
        self.rules.lower = of["do_lower_case"].as_bool() == Some(true);
        let (path, key, length) = match &of["max_seq_length"] {
            Value::Null => {
                let path = self.place.join("tokenizer_config.json");
                let of = if path.is_file() { json(&path)? } else { Value::Null };
                // Without a limit it is a number of thirty digits.
                let length = of["model_max_length"].clone();
                let none = length.as_f64().is_some_and(|length| length >= UNLIMITED);
                (path, "model_max_length", if none { Value::Null } else { length })
            }
            length => (path, "max_seq_length", length.clone()),
        };
        self.rules.longest = match length {
            Value::Null => None,
            length => {
                let length = length.as_u64().filter(|length| (3..1 << 31).contains(length));
                Some(length.ok_or_else(|| Error::usage(format!("{key} is no length of a text")).at(path.display()))? as usize)
            }
        };
        Ok(self)
    }
}

/// A module's folder, which must be below the encoder's.
fn inside(path: &str) -> Result<&Path> {
    let path = Path::new(path);
    if path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Ok(path);
    }
    Err(Error::usage(format!("modules.json names a module outside of the folder: `{}`", path.display())))
}

/// The pooling that a module's `config.json` describes.
fn pooling(path: &Path) -> Result<Pooling> {
    let of = json(path)?;
    let entries = of.as_object().into_iter().flatten();
    let mut chosen: Vec<&str> = entries
        .filter(|(key, value)| key.starts_with("pooling_mode_") && value.as_bool() == Some(true))
        .map(|(key, _)| key.trim_start_matches("pooling_mode_").trim_end_matches("_token").trim_end_matches("_tokens"))
        .collect();
    match &of["pooling_mode"] {
        Value::String(mode) => chosen.push(mode),
        Value::Array(modes) => chosen.extend(modes.iter().filter_map(Value::as_str)),
        _ => {}
    }
    if of["include_prompt"].as_bool() == Some(false) {
        return Err(Error::usage("this pooling leaves out the prompt's tokens, which ctk does not do").at(path.display()));
    }
    match chosen[..] {
        ["mean"] => Ok(Pooling::Mean),
        ["cls"] => Ok(Pooling::First),
        ["lasttoken"] => Ok(Pooling::Last),
        _ => Err(Error::usage(format!("the pooling is {}, which ctk does not have", chosen.join(" and ")))
            .at(path.display())
            .hint("ctk has the mean of all tokens, the first token (cls) and the last (lasttoken)")),
    }
}

pub(super) fn tensors_of(path: &Path) -> Result<HashMap<String, Tensor>> {
    Ok(candle_core::safetensors::load_buffer(&opened::read(path)?, &candle_core::Device::Cpu)?)
}

pub(super) fn json(path: &Path) -> Result<Value> {
    let text = opened::text(path).at(path.display())?;
    serde_json::from_str(&text).map_err(|e| Error::usage(format!("this is no JSON: {e}")).at(path.display()))
}
