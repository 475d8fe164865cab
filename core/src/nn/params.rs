//! The parameters of a model: named, ordered, seeded, each of a kind.
//!
//! A model first *declares* its parameters through a [`Scope`], which allocates nothing: counting the parameters of a ResNet-152-3x is
//! free. Then [`Params::materialise`] draws each parameter from a stream keyed by its name, so that adding a layer never changes another
//! layer's initial values. Candle's own `VarMap` is a `HashMap` over a generator that cannot be seeded.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};

use candle_core::{DType, Shape, Tensor, Var};

use super::array::Array;
use super::gradient::{Gradient, GradientStore};
use super::param::Values;
pub use super::param::{Init, Param, ParamKind};
use crate::device::Device;
use crate::error::{Context, Error, Result};
use crate::rng::Key;
use crate::store::checkpoint::{Reader, Writer};

/// All parameters of a model in the order of their declaration.
///
/// ```
/// use ctk_core::nn::params::{Init, ParamKind, Params};
/// use ctk_core::rng::Key;
/// use ctk_core::{DType, Device};
///
/// let mut params = Params::new();
/// let weight = params.root().sub("encoder").param("weight", (2, 3), ParamKind::Weight, Init::Normal { std: 0.1 });
/// assert_eq!(params.count("encoder."), 6); // Nothing is allocated yet.
///
/// params.materialise(Key::new(7), DType::F32, &Device::Cpu)?;
/// assert_eq!((weight.name(), weight.dims()), ("encoder.weight", &[2, 3][..]));
/// assert_eq!(params.section("encoder")?[0].0, "weight"); // The name in the checkpoint's file.
/// # Ok::<(), ctk_core::Error>(())
/// ```
#[derive(Default)]
pub struct Params {
    list: Vec<Arc<Param>>,
    sections: Vec<String>,
    store: GradientStore,
}

/// The gradients in the order of the parameters; `None` for a parameter that got none.
pub type Gradients = Vec<Option<Gradient>>;

/// The section of the encoder, saved under its public names.
const ENCODER: &str = "encoder";
/// The file of the encoder's tensors, under their public names.
pub const MODEL: &str = "model.safetensors";
/// The file of the projection head's tensors.
pub const HEAD: &str = "head.safetensors";

impl Params {
    /// No parameters yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The outermost scope in which parameters are declared.
    pub fn root(&mut self) -> Scope<'_> {
        Scope { params: self, prefix: String::new(), depth: None, learning: Learning::default() }
    }

    /// Gives every declared parameter its initial value, drawn from `key`. Values lie on `device`, where the layers then run; those of a
    /// loss's scalars on the CPU, which computes the loss.
    ///
    /// # Errors
    /// An error of candle or of the device.
    pub fn materialise(&self, key: Key, dtype: DType, device: &Device) -> Result<()> {
        self.give(device, |param| param.draw(key, dtype))
    }

    /// Gives every declared parameter the value 0, so that it can be loaded: drawing values that are then replaced takes as long as reading
    /// them. The device is that of [`materialise`](Params::materialise).
    ///
    /// # Errors
    /// An error of candle or of the device.
    pub fn blank(&self, dtype: DType, device: &Device) -> Result<()> {
        self.give(device, |param| Ok(Tensor::zeros(param.shape.clone(), dtype, &candle_core::Device::Cpu)?))
    }

    fn give(&self, device: &Device, values: impl Fn(&Param) -> Result<Tensor>) -> Result<()> {
        for p in &self.list {
            let given = values(p).at(&p.name)?;
            match p.values.get() {
                Some(_) => p.set(&given)?,
                None => {
                    let values = match device {
                        Device::Cuda(cuda) if p.kind != ParamKind::Scalar => Values::Device(Array::on_cuda(cuda, &given)?),
                        _ => Values::Cpu(Var::from_tensor(&given)?),
                    };
                    drop(p.values.set(values));
                }
            }
        }
        Ok(())
    }

    /// Declares a section of the checkpoint, which is written even if it has no parameter. The first parameter with a new prefix declares
    /// its section, too.
    pub fn declare(&mut self, section: &str) {
        if !self.sections.iter().any(|there| there == section) {
            self.sections.push(section.to_string());
        }
    }

    /// Every parameter and buffer, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Param>> {
        self.list.iter()
    }

    /// The device on which the layers run: that of the values, scalars of a loss apart.
    ///
    /// # Panics
    /// Before [`materialise`](Params::materialise).
    pub fn device(&self) -> Device {
        self.list.iter().map(|param| param.device()).find(|device| !device.is_cpu()).unwrap_or_default()
    }

    /// Number of values in parameters whose name starts with `prefix`, buffers apart.
    pub fn count(&self, prefix: &str) -> usize {
        self.list.iter().filter(|p| p.kind.trained() && p.name.starts_with(prefix)).map(|p| p.shape.elem_count()).sum()
    }

    /// Number of values in parameters whose name starts with `prefix` and that learn: all of [`count`](Params::count) that are not frozen.
    pub fn learning(&self, prefix: &str) -> usize {
        self.list.iter().filter(|p| p.trained() && p.name.starts_with(prefix)).map(|p| p.shape.elem_count()).sum()
    }

    /// The store that backward passes add the gradients of these parameters to.
    pub fn gradient_store(&self) -> GradientStore {
        self.store.clone()
    }

    /// Takes the gradients of the last backward pass, in the order of the parameters.
    ///
    /// # Errors
    /// A gradient of a parameter that is not in this model.
    pub fn gradients(&self) -> Result<Gradients> {
        let mut left = self.store.drain();
        let gradients = self.list.iter().map(|p| left.remove(p.name())).collect();
        match left.into_keys().next() {
            Some(name) => Err(Error::new("a gradient came for a parameter that is not of this model").at(name)),
            None => Ok(gradients),
        }
    }

    /// Writes every declared section, in declared order, to a file of its own: `encoder` to [`MODEL`], the others to
    /// `<section>.safetensors`.
    ///
    /// # Errors
    /// A parameter outside every section, or a file that cannot be written.
    pub fn save(&self, writer: &mut Writer) -> Result<()> {
        if let Some(lost) = self.list.iter().find(|p| !self.sections.iter().any(|section| p.below(section).is_some())) {
            return Err(Error::new("this parameter is in no section, so it would not be saved").at(lost.name()));
        }
        self.sections.iter().try_for_each(|section| writer.tensors(&file(section), &self.section(section)?))
    }

    /// Restores what [`save`](Params::save) wrote.
    ///
    /// # Errors
    /// A section's file or a tensor is missing, has another shape, or belongs to no parameter.
    pub fn load(&self, reader: &Reader) -> Result<()> {
        self.sections
            .iter()
            .try_for_each(|section| self.load_section(section, &reader.tensors(&file(section))?).at(file(section)))
    }

    /// The tensors whose names begin with `prefix.`, named without it, in order, as a checkpoint's file has them. The empty prefix gives
    /// all.
    ///
    /// # Errors
    /// An error of candle.
    pub fn section(&self, prefix: &str) -> Result<Vec<(String, Tensor)>> {
        let below = self.list.iter().filter_map(|p| Some((p, p.below(prefix)?)));
        below.map(|(p, name)| Ok((name.to_string(), p.tensor()?))).collect()
    }

    /// Sets every parameter whose name begins with `prefix.` (all, if it is empty) from tensors named without it.
    ///
    /// # Errors
    /// A tensor is missing, has another shape, or belongs to no parameter.
    pub fn load_section(&self, prefix: &str, tensors: &HashMap<String, Tensor>) -> Result<()> {
        let claimed = |name: &String| self.list.iter().any(|p| p.below(prefix) == Some(name));
        if let Some(name) = tensors.keys().filter(|name| !claimed(name)).min() {
            return Err(Error::new(format!("the tensor `{name}` belongs to no parameter of this model")));
        }
        self.take(prefix, tensors)
    }

    /// The same from tensors among which there may be others.
    ///
    /// # Errors
    /// A tensor is missing or has another shape.
    pub fn take(&self, prefix: &str, tensors: &HashMap<String, Tensor>) -> Result<()> {
        for p in &self.list {
            let Some(name) = p.below(prefix) else { continue };
            let from = tensors.get(name).ok_or_else(|| Error::new(format!("the tensor `{name}` is missing")))?;
            if from.dims() != p.dims() {
                return Err(Error::new(format!(
                    "the tensor `{name}` has shape {:?}, the model wants {:?}",
                    from.dims(),
                    p.dims()
                )));
            }
            p.set(from)?;
        }
        Ok(())
    }
}

/// The file of a section.
fn file(section: &str) -> String {
    if section == ENCODER { MODEL.to_string() } else { format!("{section}.safetensors") }
}

/// A node in the tree of names, in which parameters are declared.
pub struct Scope<'a> {
    params: &'a mut Params,
    prefix: String,
    depth: Option<usize>,
    learning: Learning,
}

/// How fast the parameters of a scope learn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Learning {
    /// The factor of the rate; 0: frozen.
    pub rate: f64,
    /// The first depth that learns: layers below it are frozen. Layers without a depth learn.
    pub from: usize,
}

impl Default for Learning {
    fn default() -> Self {
        Learning { rate: 1.0, from: 0 }
    }
}

impl Learning {
    /// Nothing learns.
    pub const FROZEN: Learning = Learning { rate: 0.0, from: 0 };

    /// The factor of the rate of a layer of this depth.
    fn at(self, depth: Option<usize>) -> f64 {
        if depth.is_some_and(|depth| depth < self.from) { 0.0 } else { self.rate }
    }
}

impl Scope<'_> {
    /// The same scope, in which layers have this depth: 0 for embeddings, k + 1 for block k. Layers without a depth (the final normalisation,
    /// a head) are behind the deepest block. An optimizer may give each depth a rate of its own (`optimizer.adamw.layer_decay`).
    pub fn depth(mut self, depth: usize) -> Self {
        self.depth = Some(depth);
        self
    }

    /// The same scope, whose parameters learn so fast. What is frozen is computed as in evaluation, gets no gradient, and needs no state of
    /// an optimizer.
    pub fn learning(mut self, learning: Learning) -> Self {
        self.learning = learning;
        self
    }

    /// This scope once more, for a layer whose parameters are beside others.
    pub fn same(&mut self) -> Scope<'_> {
        Scope { params: &mut *self.params, prefix: self.prefix.clone(), depth: self.depth, learning: self.learning }
    }

    /// The scope `name` below this one.
    pub fn sub(&mut self, name: impl std::fmt::Display) -> Scope<'_> {
        let prefix = self.join(&name.to_string());
        Scope { params: &mut *self.params, prefix, depth: self.depth, learning: self.learning }
    }

    /// Declares a parameter.
    ///
    /// # Panics
    /// The name is taken: two layers would silently share a checkpoint entry.
    pub fn param(&mut self, name: &str, shape: impl Into<Shape>, kind: ParamKind, init: Init) -> Arc<Param> {
        let name = self.join(name);
        assert!(self.params.list.iter().all(|p| p.name != name), "parameter {name} declared twice");
        let param = Arc::new(Param {
            name,
            shape: shape.into(),
            kind,
            init,
            depth: self.depth,
            rate: self.learning.at(self.depth),
            values: OnceLock::new(),
            late: Mutex::new(None),
        });
        if let Some((section, _)) = param.name.split_once('.') {
            self.params.declare(section);
        }
        self.params.list.push(param.clone());
        param
    }

    /// The store that backward passes add the gradients of this model's parameters to.
    pub fn gradient_store(&self) -> GradientStore {
        self.params.gradient_store()
    }

    fn join(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.to_string() } else { format!("{}.{name}", self.prefix) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_depend_on_name_and_seed_alone() {
        let value = |extra: bool, seed| {
            let mut params = Params::new();
            let mut root = params.root();
            if extra {
                root.param("first", 3, ParamKind::Weight, Init::Normal { std: 1.0 });
            }
            let p = root.sub("a").param("weight", (2, 3), ParamKind::Weight, Init::TruncatedNormal { std: 0.5 });
            params.materialise(Key::new(seed), DType::F64, &crate::Device::Cpu).unwrap();
            p.var().flatten_all().unwrap().to_vec1::<f64>().unwrap()
        };
        assert_eq!(value(false, 1), value(true, 1));
        assert_ne!(value(false, 1), value(false, 2));
        assert!(value(false, 1).iter().all(|v| v.abs() <= 1.0));
    }

    #[test]
    fn a_section_round_trips_and_is_strict() {
        let mut params = Params::new();
        params.root().sub("encoder").param("weight", (2, 2), ParamKind::Weight, Init::Normal { std: 1.0 });
        params.materialise(Key::new(1), DType::F32, &crate::Device::Cpu).unwrap();
        let saved: HashMap<_, _> = params.section("encoder").unwrap().into_iter().map(|(n, t)| (n, t.copy().unwrap())).collect();
        params.materialise(Key::new(2), DType::F32, &crate::Device::Cpu).unwrap();
        params.load_section("encoder", &saved).unwrap();
        let now = params.section("encoder").unwrap()[0].1.to_vec2::<f32>().unwrap();
        assert_eq!(now, saved["weight"].to_vec2::<f32>().unwrap());
        assert!(params.load_section("encoder", &HashMap::new()).unwrap_err().what().contains("weight"));
        let more =
            HashMap::from([("other".to_string(), saved["weight"].clone()), ("weight".to_string(), saved["weight"].clone())]);
        assert!(params.load_section("encoder", &more).unwrap_err().what().contains("`other`"), "no parameter has it");
        params.take("encoder", &more).unwrap();
    }
}
