//! The key map between ctk's tensor names of a text tower and those of other programs. `{wb}` stands for `weight` and `bias`, N for the number
//! of a block.
//!
//! | ours | transformers | open_clip, OpenAI |
//! |---|---|---|
//! | `words.weight` | `text_model.embeddings.token_embedding.weight` | `token_embedding.weight` |
//! | `positions.weight` | `text_model.embeddings.position_embedding.weight` | `positional_embedding` |
//! | `N.` | `text_model.encoder.layers.N.` | `transformer.resblocks.N.` |
//! | … `before_attention.{wb}` | … `layer_norm1.{wb}` | … `ln_1.{wb}` |
//! | … `qkv.{wb}` | … `self_attn.{q, k, v}_proj.{wb}` | … `attn.in_proj_{wb}` |
//! | … `mix.{wb}` | … `self_attn.out_proj.{wb}` | … `attn.out_proj.{wb}` |
//! | … `before_mlp.{wb}` | … `layer_norm2.{wb}` | … `ln_2.{wb}` |
//! | … `in.{wb}`, `out.{wb}` | … `mlp.fc1.{wb}`, `mlp.fc2.{wb}` | … `mlp.c_fc.{wb}`, `mlp.c_proj.{wb}` |
//! | `final.{wb}` | `text_model.final_layer_norm.{wb}` | `ln_final.{wb}` |
//! | `projection.weight` of CLIP | `text_projection.weight` | `text_projection`, transposed |
//! | `projection.{wb}` of SigLIP | `text_model.head.{wb}` | `text_projection.{wb}` |
//!
//! open_clip's models with a text tower of its own kind put `text.` before the names.

use std::collections::{BTreeMap, HashMap};

use candle_core::Tensor;
use ctk_core::error::{Error, Result};

use crate::transformer::names::Family;
use crate::transformer::{PROJECTION, Projection, Shape};

/// The layout of a file's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// transformers.
    Transformers,
    /// open_clip and OpenAI.
    OpenClip,
}

/// The names of a block's layers: ctk's, transformers', open_clip's.
const BLOCK: [[&str; 3]; 5] = [
    ["before_attention", "layer_norm1", "ln_1"],
    ["mix", "self_attn.out_proj", "attn.out_proj"],
    ["before_mlp", "layer_norm2", "ln_2"],
    ["in", "mlp.fc1", "mlp.c_fc"],
    ["out", "mlp.fc2", "mlp.c_proj"],
];

/// The query, key and value layers of transformers, which are one layer in ctk, in the order of their rows.
const QKV: [&str; 3] = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"];

/// How a note begins that says which tensors of a file are not the text tower's.
pub const NOT_READ: &str = "not read: ";

/// The tensors outside of blocks: ctk's, transformers', open_clip's.
const OUTSIDE: [[&str; 3]; 4] = [
    ["words.weight", "text_model.embeddings.token_embedding.weight", "token_embedding.weight"],
    ["positions.weight", "text_model.embeddings.position_embedding.weight", "positional_embedding"],
    ["final.weight", "text_model.final_layer_norm.weight", "ln_final.weight"],
    ["final.bias", "text_model.final_layer_norm.bias", "ln_final.bias"],
];

/// What tensors are that belong to no text tower, by how their names begin.
const OTHERS: [(&str, &str); 8] = [
    ("vision_model.", "the image tower"),
    ("visual.", "the image tower"),
    ("visual_projection.", "the projection of images"),
    ("logit_scale", "the temperature and bias of the loss"),
    ("logit_bias", "the temperature and bias of the loss"),
    ("text_model.embeddings.position_ids", "numbers of positions"),
    ("embeddings.position_ids", "numbers of positions"),
    ("attn_mask", "a mask"),
];

/// A text tower's tensors.
pub struct Adopted {
    /// Under ctk's names.
    pub tensors: HashMap<String, Tensor>,
    /// The projection that is among them.
    pub projection: Option<Projection>,
    /// What the file has besides, to be said.
    pub notes: Vec<String>,
}

impl Layout {
    fn column(self) -> usize {
        match self {
            Layout::Transformers => 1,
            Layout::OpenClip => 2,
        }
    }

    fn blocks(self) -> &'static str {
        match self {
            Layout::Transformers => "text_model.encoder.layers",
            Layout::OpenClip => "transformer.resblocks",
        }
    }
}

/// The name that a projection has in transformers; its kind, `weight` or `bias`, follows.
fn projection(family: Family) -> &'static str {
    if family == Family::Siglip { "text_model.head" } else { "text_projection" }
}

/// The tensors of a tower, from those of a file. A projection that the description does not mention is read, too.
///
/// # Errors
/// A tensor that is missing, or that is neither part of the tower nor of what is beside it.
pub fn adopt(layout: Layout, family: Family, shape: &Shape, from: &HashMap<String, Tensor>) -> Result<Adopted> {
    let custom = layout == Layout::OpenClip && from.contains_key("text.token_embedding.weight");
    let bare = layout == Layout::Transformers && from.contains_key("embeddings.token_embedding.weight");
    let plain = |name: &str| match name {
        _ if custom => name.strip_prefix("text.").unwrap_or(name).to_string(),
        name if bare
            && name
                .split('.')
                .next()
                .is_some_and(|part| ["embeddings", "encoder", "final_layer_norm", "head"].contains(&part)) =>
        {
            format!("text_model.{name}")
        }
        name => name.to_string(),
    };
    let mut left: HashMap<String, &Tensor> = from.iter().map(|(name, tensor)| (plain(name), tensor)).collect();
    let mut all = HashMap::new();
    let mut take = |name: &str, dims: &[usize]| -> Result<Tensor> {
        let shown = if custom { format!("text.{name}") } else { name.to_string() };
        let tensor = left.remove(name).cloned().ok_or_else(|| Error::new(format!("the tensor `{shown}` is missing")))?;
        match tensor.dims() == dims {
            true => Ok(tensor),
            false => {
                let what = format!("the tensor `{shown}` has shape {:?}, and the description says {dims:?}", tensor.dims());
                Err(Error::new(what).hint("the description beside the weights may be of another network"))
            }
        }
    };
    let &Shape { vocabulary, width: w, inner, positions, .. } = shape;
    let (column, blocks) = (layout.column(), layout.blocks());
    for (names, dims) in OUTSIDE.iter().zip([&[vocabulary, w][..], &[positions, w], &[w], &[w]]) {
        all.insert(names[0].to_string(), take(names[column], dims)?);
    }
    for number in 0..shape.layers {
        for kind in ["weight", "bias"] {
            let of = |rows: usize, columns: usize| if kind == "weight" { vec![rows, columns] } else { vec![rows] };
            let qkv = match layout {
                Layout::OpenClip => take(&format!("{blocks}.{number}.attn.in_proj_{kind}"), &of(3 * w, w))?,
                Layout::Transformers => {
                    let [q, k, v] = QKV.map(|name| take(&format!("{blocks}.{number}.{name}.{kind}"), &of(w, w)));
                    Tensor::cat(&[q?, k?, v?], 0)?
                }
            };
            all.insert(format!("{number}.qkv.{kind}"), qkv);
            for names in BLOCK {
                let dims = match names[0] {
                    "in" => of(inner, w),
                    "out" => of(w, inner),
                    "mix" => of(w, w),
                    _ => vec![w],
                };
                let tensor = take(&format!("{blocks}.{number}.{}.{kind}", names[column]), &dims)?;
                all.insert(format!("{number}.{}.{kind}", names[0]), tensor);
            }
        }
    }
    let transposed = layout == Layout::OpenClip && family == Family::Clip;
    let place = if layout == Layout::OpenClip { "text_projection" } else { projection(family) };
    let weight = if transposed { place.to_string() } else { format!("{place}.weight") };
    let there = from.iter().find(|(name, _)| plain(name) == weight).map(|(_, tensor)| tensor.dims());
    let mut found = shape.projection;
    if let (None, Some(dims)) = (found, there) {
        let width = dims.get(usize::from(transposed)).copied().unwrap_or_default();
        found = Some(Projection { width, bias: family == Family::Siglip });
    }
    if let Some(Projection { width, bias }) = found {
        let tensor = take(&weight, &if transposed { [w, width] } else { [width, w] })?;
        let tensor = if transposed { tensor.t()?.contiguous()? } else { tensor };
        all.insert(format!("{PROJECTION}.weight"), tensor);
        if bias {
            all.insert(format!("{PROJECTION}.bias"), take(&format!("{place}.bias"), &[width])?);
        }
    }
    let mut others: BTreeMap<&str, usize> = BTreeMap::new();
    let mut strange: Vec<&String> = Vec::new();
    for name in left.keys() {
        match OTHERS.iter().find(|(begins, _)| name.starts_with(begins)) {
            Some((_, what)) => *others.entry(what).or_default() += 1,
            None => strange.push(name),
        }
    }
    match strange.into_iter().min() {
        Some(name) => Err(Error::new(format!("the tensor `{name}` is no part of this network"))
            .hint("the description beside the weights may be of another network")),
        None => {
            let notes = others.into_iter().map(|(what, count)| format!("{NOT_READ}{what} ({count} tensors)")).collect();
            Ok(Adopted { tensors: all, projection: found, notes })
        }
    }
}

/// The inverse of [`adopt`] for transformers' layout: a file's tensors from the tower's, in their order.
///
/// # Errors
/// A tensor that the tower does not have.
pub fn give(family: Family, from: &[(String, Tensor)]) -> Result<Vec<(String, Tensor)>> {
    let unknown = |name: &str| Error::new(format!("`{name}` has no name in transformers' text towers"));
    let (column, blocks) = (Layout::Transformers.column(), Layout::Transformers.blocks());
    let mut all = Vec::new();
    for (name, tensor) in from {
        if let Some(names) = OUTSIDE.iter().find(|names| names[0] == name) {
            all.push((names[column].to_string(), tensor.clone()));
            continue;
        }
        if let Some(kind) = name.strip_prefix(PROJECTION).and_then(|rest| rest.strip_prefix('.')) {
            all.push((format!("{}.{kind}", projection(family)), tensor.clone()));
            continue;
        }
        let [number, layer, kind] = name.splitn(3, '.').collect::<Vec<_>>()[..] else { return Err(unknown(name)) };
        if layer == "qkv" {
            for (name, part) in QKV.iter().zip(tensor.chunk(3, 0)?) {
                all.push((format!("{blocks}.{number}.{name}.{kind}"), part.contiguous()?));
            }
            continue;
        }
        let names = BLOCK.iter().find(|names| names[0] == layer).ok_or_else(|| unknown(name))?;
        all.push((format!("{blocks}.{number}.{}.{kind}", names[column]), tensor.clone()));
    }
    Ok(all)
}
