//! A safetensors file of another program: its path, its header, and its tensors when they are needed.
//!
//! The header alone is read first: names and shapes show what a file is, and most mistakes in it, before gigabytes are read.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use ctk_core::opened;
use ctk_core::store::safetensors_header::Header;
use ctk_core::{Context, Error, Result};
use serde_json::Value;

/// The name of the file in a folder of weights.
pub(crate) const WEIGHTS: &str = "model.safetensors";
/// The same in a folder of open_clip.
pub(crate) const OPEN_CLIP_WEIGHTS: &str = "open_clip_model.safetensors";
/// The description beside that.
pub(crate) const OPEN_CLIP: &str = "open_clip_config.json";
/// The description beside it, in timm and transformers.
pub(crate) const CONFIG: &str = "config.json";
/// The description of transformers' image processor.
pub(crate) const PREPROCESSOR: &str = "preprocessor_config.json";

const CONVERT: &str = "pickles are not read, because loading one runs what is in it; in PyTorch: \
    safetensors.torch.save_file(torch.load(FILE, weights_only=True), \"model.safetensors\"); for SimCLRv2's, see \
    docs/src/programs/import.md";

/// A file whose header was read.
#[derive(Clone)]
pub(crate) struct File {
    path: PathBuf,
    /// Shapes by name, without the prefix.
    shapes: BTreeMap<String, Vec<usize>>,
    /// The prefix of the names in the part of the file that is used.
    prefix: String,
    /// The names outside that part.
    outside: Vec<String>,
}

impl File {
    /// Opens the file at `path`, or the one in the folder `path`, or a file of the hub with its descriptions.
    ///
    /// # Errors
    /// There is none; or it is a pickle, a run of ctk, or cut short.
    pub fn open(path: &Path) -> Result<File> {
        let path = find(path)?;
        let shapes = shapes(&path).at(path.display())?;
        Ok(File { path, shapes, prefix: String::new(), outside: Vec::new() })
    }

    /// A file without content, for tests of names and shapes.
    #[cfg(test)]
    pub(crate) fn imagined(shapes: BTreeMap<String, Vec<usize>>) -> File {
        File { path: PathBuf::from("imagined"), shapes, prefix: String::new(), outside: Vec::new() }
    }

    /// The part of it whose names begin with `prefix`, which is removed from the names.
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

    /// The prefix of the part that is used.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The names of the tensors outside the part that is used.
    pub(super) fn outside(&self) -> &[String] {
        &self.outside
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder with its descriptions: that of a `model.safetensors`, or of open_clip's.
    pub fn folder(&self) -> Option<&Path> {
        self.path.parent().filter(|_| self.path.ends_with(WEIGHTS) || self.path.ends_with(OPEN_CLIP_WEIGHTS))
    }

    /// Refuses a `path` that is a run of ctk already.
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
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn tensors(&self) -> Result<HashMap<String, Tensor>> {
        let all = candle_core::safetensors::load(&self.path, &Device::Cpu).at(self.path.display())?;
        let named = |(name, tensor): (String, Tensor)| Some((name.strip_prefix(&self.prefix)?.to_string(), tensor));
        Ok(all.into_iter().filter_map(named).collect())
    }
}

/// A JSON file of the folder `beside`, if it exists.
pub(crate) fn json(beside: &Path, name: &str) -> Result<Option<Value>> {
    let path = beside.join(name);
    if !path.is_file() {
        return Ok(None);
    }
    let bytes = opened::read(&path).at(path.display())?;
    serde_json::from_slice(&bytes).map(Some).at(path.display())
}

/// A tensor in f32, all of whose values are finite.
pub(crate) fn finite(name: &str, tensor: &Tensor) -> Result<Tensor> {
    if !matches!(tensor.dtype(), DType::F16 | DType::BF16 | DType::F32 | DType::F64) {
        return Err(Error::usage(format!("the tensor `{name}` holds {:?} instead of weights", tensor.dtype()))
            .hint("quantised weights are not read: give those in f32, f16 or bf16"));
    }
    let tensor = tensor.to_dtype(DType::F32)?;
    let values = tensor.flatten_all()?.to_vec1::<f32>()?;
    if let Some(at) = values.iter().position(|value| !value.is_finite()) {
        return Err(Error::new(format!("value {at} of the tensor `{name}` is {}", values[at])).hint("get the file again"));
    }
    // A negative variance has no square root: every feature would be NaN.
    if let Some(at) = values.iter().position(|value| name.ends_with("running_var") && *value < 0.0) {
        return Err(
            Error::new(format!("value {at} of the tensor `{name}`, a variance, is {}", values[at])).hint("get the file again")
        );
    }
    Ok(tensor)
}

/// Whether a folder is a run of ctk, or a checkpoint of one. Its weights have torchvision's names, but its normalisation differs.
fn ours(folder: &Path) -> bool {
    ["checkpoints", "manifest.json"].iter().any(|own| folder.join(own).exists())
}

/// The error for a run of ctk.
fn already(path: &Path) -> Error {
    Error::usage("this is a run of ctk, or a checkpoint of one").at(path.display()).hint("every verb takes it as it is")
}

fn find(path: &Path) -> Result<PathBuf> {
    if ctk_hub::is_remote(path) {
        let file = ctk_hub::local(path)?.into_owned();
        if file.ends_with(WEIGHTS) {
            [CONFIG, PREPROCESSOR].iter().try_for_each(|name| ctk_hub::beside(path, name))?;
        }
        if file.ends_with(OPEN_CLIP_WEIGHTS) {
            ctk_hub::beside(path, OPEN_CLIP)?;
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
    let files = [WEIGHTS, OPEN_CLIP_WEIGHTS].map(|name| path.join(name));
    match &files.iter().filter(|file| file.is_file()).collect::<Vec<_>>()[..] {
        [] => {}
        [file] => return Ok((*file).clone()),
        _ => {
            return fail("this folder holds both model.safetensors and open_clip_model.safetensors", "name one of the two files");
        }
    }
    if path.join("model.safetensors.index.json").is_file() {
        return fail(
            "these weights are in several files",
            "save them in one: model.save_pretrained(DIR, max_shard_size=\"100GB\")",
        );
    }
    if ["pytorch_model.bin", "pytorch_model.pth"].iter().any(|pickle| path.join(pickle).is_file()) {
        return fail("this folder holds only a pickle", CONVERT);
    }
    fail("this folder holds no model.safetensors", "give a safetensors file, or a folder with a model.safetensors")
}

/// Names and shapes, after a check that the file has the length that the header says.
fn shapes(path: &Path) -> Result<BTreeMap<String, Vec<usize>>> {
    let mut file = opened::open(path)?;
    let mut magic = Vec::new();
    file.by_ref().take(9).read_to_end(&mut magic)?;
    // A zip archive (torch.save) or a bare pickle of protocol 2 and above; a header of 640 bytes begins alike, but is followed by a brace.
    if magic.starts_with(b"PK\x03\x04") || matches!(magic[..], [0x80, 2..=5, ..]) && magic.get(8) != Some(&b'{') {
        return Err(Error::usage("this is a pickle, not a safetensors file").hint(CONVERT));
    }
    let tensors = Header::read(&file)?.tensors;
    Ok(tensors.tensors().into_iter().map(|(name, tensor)| (name, tensor.shape.clone())).collect())
}
