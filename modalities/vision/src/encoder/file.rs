//! A safetensors file of another program: where it lies, what it says it holds, and its tensors once they are wanted.
//!
//! The header is read alone first: names and shapes tell what a file is, and most of what can be wrong with it, before gigabytes are.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use ctk_core::opened;
use ctk_core::store::safetensors_header::Header;
use ctk_core::{Context, Error, Result};
use serde_json::Value;

/// What a folder of weights calls its file.
pub(crate) const WEIGHTS: &str = "model.safetensors";
/// What timm and transformers call a model's description, beside it.
pub(crate) const CONFIG: &str = "config.json";
/// How transformers prepares pictures.
pub(crate) const PREPROCESSOR: &str = "preprocessor_config.json";

const CONVERT: &str = "pickles are not read, because loading one runs what is in it; in PyTorch: \
    safetensors.torch.save_file(torch.load(FILE, weights_only=True), \"model.safetensors\"); the README has it for SimCLRv2's";

/// A file whose header was read.
#[derive(Clone)]
pub(crate) struct File {
    path: PathBuf,
    /// By name, without the prefix.
    shapes: BTreeMap<String, Vec<usize>>,
    /// What stands before the names of the part of the file that is looked at.
    prefix: String,
    /// Names of the other part.
    outside: Vec<String>,
}

impl File {
    /// The file at `path`, or the one in the folder `path`; or a file of the hub, with what describes it there.
    ///
    /// # Errors
    /// There is none; it is a pickle, a run of ctk, or cut short.
    pub fn open(path: &Path) -> Result<File> {
        let path = find(path)?;
        let shapes = shapes(&path).at(path.display())?;
        Ok(File { path, shapes, prefix: String::new(), outside: Vec::new() })
    }

    /// A file that is nowhere, for tests of what names and shapes mean.
    #[cfg(test)]
    pub(crate) fn imagined(shapes: BTreeMap<String, Vec<usize>>) -> File {
        File { path: PathBuf::from("imagined"), shapes, prefix: String::new(), outside: Vec::new() }
    }

    /// The part of it whose names begin with `prefix`, by the rest of their names.
    pub(super) fn below(&self, prefix: &str) -> File {
        let (mut shapes, mut outside) = (BTreeMap::new(), Vec::new());
        for (name, shape) in &self.shapes {
            match name.strip_prefix(prefix) {
                Some(rest) => _ = shapes.insert(rest.to_string(), shape.clone()),
                None => outside.push(name.clone()),
            }
        }
        File { path: self.path.clone(), shapes, prefix: prefix.to_string(), outside }
    }

    /// What stands before the names of the part that is looked at.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Names of the tensors that are not in the part that is looked at.
    pub(super) fn outside(&self) -> &[String] {
        &self.outside
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder that describes it, by this and other files: that of a `model.safetensors`.
    pub fn folder(&self) -> Option<&Path> {
        self.path.parent().filter(|_| self.path.ends_with(WEIGHTS))
    }

    /// Refuses what is a run of ctk already, given as `path`.
    pub(crate) fn not_ours(&self, path: &Path) -> Result<()> {
        if self.folder().is_some_and(ours) { Err(already(path)) } else { Ok(()) }
    }

    /// Names of its tensors, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.shapes.keys().map(String::as_str)
    }

    /// The shape of a tensor.
    pub fn dims(&self, name: &str) -> Option<&[usize]> {
        self.shapes.get(name).map(Vec::as_slice)
    }

    /// Its tensors.
    pub fn tensors(&self) -> Result<HashMap<String, Tensor>> {
        let all = candle_core::safetensors::load(&self.path, &Device::Cpu).at(self.path.display())?;
        let named = |(name, tensor): (String, Tensor)| Some((name.strip_prefix(&self.prefix)?.to_string(), tensor));
        Ok(all.into_iter().filter_map(named).collect())
    }
}

/// A JSON file of the folder `beside`, if it is there.
pub(crate) fn json(beside: &Path, name: &str) -> Result<Option<Value>> {
    let path = beside.join(name);
    if !path.is_file() {
        return Ok(None);
    }
    let bytes = opened::read(&path).at(path.display())?;
    serde_json::from_slice(&bytes).map(Some).at(path.display())
}

/// A tensor in f32, of numbers that are all finite.
pub(crate) fn finite(name: &str, tensor: &Tensor) -> Result<Tensor> {
    if !matches!(tensor.dtype(), DType::F16 | DType::BF16 | DType::F32 | DType::F64) {
        return Err(Error::usage(format!("the tensor `{name}` holds no weights but {:?}", tensor.dtype()))
            .hint("quantised weights are not read: give those in f32, f16 or bf16"));
    }
    let tensor = tensor.to_dtype(DType::F32)?;
    let values = tensor.flatten_all()?.to_vec1::<f32>()?;
    if let Some(at) = values.iter().position(|value| !value.is_finite()) {
        return Err(Error::new(format!("value {at} of the tensor `{name}` is {}", values[at])).hint("get the file anew"));
    }
    // A variance below zero has no root: every feature would be no number.
    if let Some(at) = values.iter().position(|value| name.ends_with("running_var") && *value < 0.0) {
        return Err(
            Error::new(format!("value {at} of the tensor `{name}`, a variance, is {}", values[at])).hint("get the file anew")
        );
    }
    Ok(tensor)
}

/// Whether a folder is a run of ctk, or a checkpoint of one. Its weights have torchvision's names, but not its normalisation.
fn ours(folder: &Path) -> bool {
    ["checkpoints", "manifest.json"].iter().any(|own| folder.join(own).exists())
}

/// What to say of one.
fn already(path: &Path) -> Error {
    Error::usage("this is a run of ctk, or a checkpoint of one").at(path.display()).hint("every verb takes it as it is")
}

fn find(path: &Path) -> Result<PathBuf> {
    if ctk_hub::is_remote(path) {
        let file = ctk_hub::local(path)?.into_owned();
        if file.ends_with(WEIGHTS) {
            [CONFIG, PREPROCESSOR].iter().try_for_each(|name| ctk_hub::beside(path, name))?;
        }
        return Ok(file);
    }
    let fail = |what: &str, hint: &str| Err(Error::usage(what).at(path.display()).hint(hint));
    opened::check(path)?;
    if path.is_file() {
        return Ok(path.to_path_buf());
    }
    if !path.is_dir() {
        return fail("there is nothing here", "give a safetensors file, or a folder with a model.safetensors");
    }
    if ours(path) {
        return Err(already(path));
    }
    let file = path.join(WEIGHTS);
    if file.is_file() {
        return Ok(file);
    }
    if path.join("model.safetensors.index.json").is_file() {
        return fail(
            "these weights are in several files",
            "save them in one: model.save_pretrained(DIR, max_shard_size=\"100GB\")",
        );
    }
    if ["pytorch_model.bin", "pytorch_model.pth"].iter().any(|pickle| path.join(pickle).is_file()) {
        return fail("this folder holds a pickle alone", CONVERT);
    }
    fail("this folder holds no model.safetensors", "give a safetensors file, or a folder with a model.safetensors")
}

/// Names and shapes, when the file is as long as they promise.
fn shapes(path: &Path) -> Result<BTreeMap<String, Vec<usize>>> {
    let mut file = opened::open(path)?;
    let mut magic = Vec::new();
    file.by_ref().take(9).read_to_end(&mut magic)?;
    // A zip archive (torch.save) or a bare pickle of protocol 2 and above; a header of 640 bytes begins alike, with a brace behind.
    if magic.starts_with(b"PK\x03\x04") || matches!(magic[..], [0x80, 2..=5, ..]) && magic.get(8) != Some(&b'{') {
        return Err(Error::usage("this is a pickle, not a safetensors file").hint(CONVERT));
    }
    let tensors = Header::read(&file)?.tensors;
    Ok(tensors.tensors().into_iter().map(|(name, tensor)| (name, tensor.shape.clone())).collect())
}
