//! Folders with a text tower of CLIP or SigLIP, of transformers or open_clip: where they are, and how their texts become tokens. The image tower
//! beside it is not read.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use ctk_core::{Context, Error, Result};
use serde_json::Value;
use tokenizers::{NormalizedString, Normalizer as _, Tokenizer};

use super::folder::{absent, json, tensors_of};
use super::network::Network;
use super::tokenizing::{Padding, Punctuation, Rules};
use crate::transformer::Pooling;
use crate::transformer::names::Family;
use crate::transformer::towers::config::{self, OPEN_CLIP};
use crate::transformer::towers::names::{Adopted, Layout, adopt};

/// The weights of transformers.
const WEIGHTS: &str = "model.safetensors";

/// The weights of open_clip, by the names that it has given them.
pub(super) const OPEN_CLIP_WEIGHTS: [&str; 2] = ["open_clip_model.safetensors", "open_clip_pytorch_model.safetensors"];

/// The layout of the text tower in `folder`; none if there is no description of one. Where both programs have written, transformers' files
/// are read.
pub(super) fn layout(folder: &Path) -> Option<Layout> {
    let described = |name: &str| folder.join(name).is_file().then(|| json(&folder.join(name)).ok()).flatten();
    let transformers = described("config.json").is_some_and(|of| config::describes(&of));
    let open_clip = described(OPEN_CLIP).is_some_and(|of| of["model_cfg"]["text_cfg"].is_object());
    match (transformers, open_clip) {
        (true, false) => Some(Layout::Transformers),
        (true, true) if folder.join(WEIGHTS).is_file() => Some(Layout::Transformers),
        (_, true) => Some(Layout::OpenClip),
        _ => None,
    }
}

/// A tower as a folder has it.
pub(super) struct Tower {
    pub network: Network,
    pub tensors: HashMap<String, Tensor>,
    pub rules: Rules,
    pub notes: Vec<String>,
}

/// Reads the tower of a folder, whose tokenizer is `tokenizer`; `rules` are those that do not depend on the network.
///
/// # Errors
/// A file that is missing or damaged; a network that ctk does not have, by its setting; a tokenizer that does not fit it.
pub(super) fn read(folder: &Path, layout: Layout, tokenizer: &Tokenizer, rules: Rules) -> Result<Tower> {
    let (description, names) = match layout {
        Layout::Transformers => (folder.join("config.json"), &[WEIGHTS][..]),
        Layout::OpenClip => (folder.join(OPEN_CLIP), &OPEN_CLIP_WEIGHTS[..]),
    };
    let of = json(&description)?;
    let read = match layout {
        Layout::Transformers => config::read(&of),
        Layout::OpenClip => config::read_open_clip(&of),
    };
    let (family, shape) = read.at(description.display())?;
    let weights: Option<PathBuf> = names.iter().map(|name| folder.join(name)).find(|path| path.is_file());
    let weights = weights.ok_or_else(|| absent(names[0]).at(folder.join(names[0]).display()))?;
    let tensors = tensors_of(&weights).at(weights.display())?;
    let Adopted { tensors, projection, mut notes } = adopt(layout, family, &shape, &tensors).at(weights.display())?;
    let shape = shape.projected(projection);
    let mut rules = Rules { longest: Some(rules.longest.unwrap_or(usize::MAX).min(shape.longest())), ..rules };
    let settings = folder.join("tokenizer_config.json");
    let settings = if settings.is_file() { json(&settings)? } else { Value::Null };
    match family {
        Family::Siglip => {
            let id = filler(&settings, tokenizer, layout, &of).at(folder.display())?;
            rules.padding = Some(Padding { to: shape.positions, id });
        }
        _ => rules.end = Some(end(tokenizer, layout, &of).at(folder.display())?),
    }
    let wanted = match layout {
        Layout::Transformers => by_transformers(&settings),
        Layout::OpenClip => by_open_clip(&of).at(description.display())?,
    };
    notes.extend(prepare(&mut rules, wanted, tokenizer));
    Ok(Tower { network: Network::Transformer { family, shape, pooling: Pooling::Last }, tensors, rules, notes })
}

/// Whether texts are lower-cased, and what becomes of their punctuation.
type Prepared = (bool, Punctuation);

/// What the tokenizers of transformers do that are not in `tokenizer.json`.
fn by_transformers(settings: &Value) -> Prepared {
    let siglip = settings["tokenizer_class"].as_str() == Some("SiglipTokenizer");
    let lower = settings["do_lower_case"].as_bool().unwrap_or(siglip);
    (lower, if siglip { Punctuation::Removed } else { Punctuation::Kept })
}

fn by_open_clip(of: &Value) -> Result<Prepared> {
    let own = of["model_cfg"]["text_cfg"]["hf_tokenizer_name"].is_null();
    Ok(match config::cleaning(of)?.as_deref() {
        Some("canonicalize") => (true, Punctuation::Spaced),
        Some("lower") => (true, Punctuation::Kept),
        // That of its own tokenizer.
        None if own => (true, Punctuation::Kept),
        _ => (false, Punctuation::Kept),
    })
}

/// Sets the rules for what the tokenizer's file does not do by itself; returns what is to be said of them.
fn prepare(rules: &mut Rules, (lower, punctuation): Prepared, tokenizer: &Tokenizer) -> Option<String> {
    let normalised = normalised(tokenizer, "A,b");
    rules.lower = (lower || rules.lower) && normalised.contains('A');
    if punctuation != Punctuation::Kept && normalised.contains(',') {
        rules.punctuation = punctuation;
    }
    let done = match (rules.lower, rules.punctuation != Punctuation::Kept) {
        (true, true) => "lower-cased and freed of ASCII punctuation",
        (true, false) => "lower-cased",
        (false, true) => "freed of ASCII punctuation",
        (false, false) => return None,
    };
    Some(format!("texts are {done}, which the tokenizer's file does not do by itself"))
}

/// What the tokenizer's normalisation makes of a text.
fn normalised(tokenizer: &Tokenizer, text: &str) -> String {
    let mut text = NormalizedString::from(text);
    // One that fails changes nothing.
    _ = tokenizer.get_normalizer().map(|normalizer| normalizer.normalize(&mut text));
    text.get().to_string()
}

/// The end token, which the tokenizer puts behind every text.
pub(super) fn last(tokenizer: &Tokenizer) -> Result<u32> {
    let mut plain = tokenizer.clone();
    let fails = |e: tokenizers::Error| Error::new(format!("the tokenizer fails: {e}"));
    plain.with_padding(None).with_truncation(None).map_err(fails)?;
    let last = |text: &str| Ok::<_, Error>(plain.encode_fast(text, true).map_err(fails)?.get_ids().last().copied());
    last("")?.filter(|id| last("a").is_ok_and(|other| other == Some(*id))).ok_or_else(|| {
        Error::usage("the tokenizer puts no token behind a text, and the features of CLIP are those of an end token")
            .hint("tokenizer.json needs a post-processor: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)")
    })
}

/// The token at which the features of a folder's tower are taken.
fn end(tokenizer: &Tokenizer, layout: Layout, of: &Value) -> Result<u32> {
    let found = last(tokenizer)?;
    let wanted = match layout {
        Layout::Transformers => config::end(of)?,
        Layout::OpenClip => config::open_clip_end(of)?,
    };
    match wanted.filter(|wanted| *wanted != found) {
        None => Ok(found),
        Some(wanted) => Err(Error::usage(format!(
            "the description takes features at the token {wanted}, and the tokenizer ends texts with {found}"
        ))
        .hint("the tokenizer's file and the description belong to different models")),
    }
}

/// The padding token: `tokenizer_config.json` names it, or `tokenizer.json` has its number, or transformers' description.
fn filler(settings: &Value, tokenizer: &Tokenizer, layout: Layout, of: &Value) -> Result<u32> {
    let named = settings["pad_token"].as_str().or(settings["pad_token"]["content"].as_str());
    if let Some(name) = named {
        return tokenizer.token_to_id(name).ok_or_else(|| {
            Error::usage(format!("tokenizer_config.json fills up texts with `{name}`, which the tokenizer does not have"))
        });
    }
    match (tokenizer.get_padding(), layout) {
        (Some(padding), _) => Ok(padding.pad_id),
        (None, Layout::Transformers) => config::padding(of),
        (None, Layout::OpenClip) => Err(Error::usage("no file says with which token texts are filled up")
            .hint("tokenizer_config.json has it as `pad_token`: put that of the tokenizer into the folder")),
    }
}
