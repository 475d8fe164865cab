//! Named, ordered, seeded parameters with a kind.
//!
//! A model first *declares* what it needs through a [`Scope`] (no memory is touched: counting the parameters of a
//! ResNet-152-3x is free), then [`Params::materialise`] draws every parameter from a stream keyed by its name, so adding a
//! layer never changes another layer's initial values. Candle's own `VarMap` is a `HashMap` over an unseedable generator.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Shape, Tensor, Var};
use rand_distr::{Distribution, Normal, Uniform};

use crate::error::{Context, Error, Result};
use crate::rng::Key;

/// What a parameter is, which decides how optimizers treat it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A weight: decayed, adapted by LARS.
    Weight,
    /// A normalisation's scale or shift: neither decayed nor adapted.
    Norm,
    /// A bias: neither decayed nor adapted.
    Bias,
    /// The supervised classifier: not adapted, decayed through the loss alone (SimCLR, `lars_optimizer.py`).
    Head,
    /// State that is saved but never optimised (running statistics).
    Buffer,
}

impl Kind {
    /// Whether gradients change it.
    pub fn trained(self) -> bool {
        self != Kind::Buffer
    }

    /// Whether weight decay and layer-wise adaptation apply.
    pub fn decayed(self) -> bool {
        self == Kind::Weight
    }
}

/// Initial values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// One number everywhere.
    Constant(f64),
    /// N(0, std²).
    Normal {
        /// Standard deviation.
        std: f64,
    },
    /// N(0, std²) cut at two standard deviations (`std` is the uncut one's).
    TruncatedNormal {
        /// Standard deviation before cutting.
        std: f64,
    },
    /// U(low, high).
    Uniform {
        /// Lower end.
        low: f64,
        /// Upper end.
        high: f64,
    },
}

/// One declared parameter. Its variable exists once [`Params::materialise`] has run.
pub struct Param {
    name: String,
    shape: Shape,
    kind: Kind,
    init: Init,
    var: OnceLock<Var>,
}

impl Param {
    /// Full dotted name, `encoder.layer1.0.conv1.weight`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Dimensions, slowest first.
    pub fn dims(&self) -> &[usize] {
        self.shape.dims()
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The variable.
    ///
    /// # Panics
    /// Before [`Params::materialise`]: a model is never run before it has values.
    pub fn var(&self) -> &Var {
        self.var.get().unwrap_or_else(|| panic!("parameter {} used before materialise", self.name))
    }

    /// Its name without `prefix.`; none where it is not below it.
    fn below(&self, prefix: &str) -> Option<&str> {
        if prefix.is_empty() { Some(&self.name) } else { self.name.strip_prefix(prefix)?.strip_prefix('.') }
    }

    fn draw(&self, key: Key, dtype: DType, device: &Device) -> Result<Var> {
        let count = self.shape.elem_count();
        let mut rng = key.of("init").of(&self.name).rng();
        let values: Vec<f64> = match self.init {
            Init::Constant(c) => vec![c; count],
            Init::Normal { std } => normal(std)?.sample_iter(&mut rng).take(count).collect(),
            Init::TruncatedNormal { std } => {
                normal(std)?.sample_iter(&mut rng).filter(|v: &f64| v.abs() <= 2.0 * std).take(count).collect()
            }
            Init::Uniform { low, high } => {
                Uniform::new(low, high).map_err(Error::new)?.sample_iter(&mut rng).take(count).collect()
            }
        };
        let tensor = Tensor::from_vec(values, self.shape.clone(), &Device::Cpu)?.to_dtype(dtype)?.to_device(device)?;
        Ok(Var::from_tensor(&tensor)?)
    }
}

fn normal(std: f64) -> Result<Normal<f64>> {
    Normal::new(0.0, std).map_err(Error::new)
}

/// Where layers with hand-written backwards leave the gradients of parameters that are not inputs of their op (candle
/// allows an op three inputs). Cloning shares it.
#[derive(Clone, Default)]
pub struct Sink(Arc<Mutex<HashMap<String, Tensor>>>);

impl Sink {
    /// Adds a gradient to whatever is there: a parameter may be used twice in a graph.
    pub fn add(&self, param: &Param, gradient: Tensor) -> Result<()> {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sum = match map.remove(param.name()) {
            Some(before) => (before + gradient)?,
            None => gradient,
        };
        map.insert(param.name().to_string(), sum);
        Ok(())
    }

    /// Takes everything out.
    pub fn drain(&self) -> HashMap<String, Tensor> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// All parameters of a model in the order of their declaration.
#[derive(Default)]
pub struct Params {
    list: Vec<Arc<Param>>,
    sink: Sink,
}

/// Gradients beside the parameters they belong to; `None` where nothing reached one.
pub type Gradients = Vec<Option<Tensor>>;

impl Params {
    /// No parameters yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The outermost scope, to declare parameters in.
    pub fn root(&mut self) -> Scope<'_> {
        Scope { params: self, prefix: String::new() }
    }

    /// Gives every declared parameter its initial value from `key`.
    pub fn materialise(&self, key: Key, dtype: DType, device: &Device) -> Result<()> {
        for p in &self.list {
            let var = p.draw(key, dtype, device).at(&p.name)?;
            match p.var.get() {
                Some(there) => there.set(&var)?,
                None => drop(p.var.set(var)),
            }
        }
        Ok(())
    }

    /// Every parameter and buffer, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Param>> {
        self.list.iter()
    }

    /// Number of trained scalars whose name starts with `prefix`.
    pub fn count(&self, prefix: &str) -> usize {
        self.list.iter().filter(|p| p.kind.trained() && p.name.starts_with(prefix)).map(|p| p.shape.elem_count()).sum()
    }

    /// Where layers of this model leave gradients.
    pub fn sink(&self) -> Sink {
        self.sink.clone()
    }

    /// Gathers one backward pass: what candle computed and what layers left in the sink, summed.
    pub fn gradients(&self, store: &GradStore) -> Result<Gradients> {
        let mut left = self.sink.drain();
        self.list
            .iter()
            .map(|p| {
                let graph = p.var.get().and_then(|v| store.get(v.as_tensor()));
                Ok(match (graph, left.remove(p.name())) {
                    (Some(a), Some(b)) => Some((a + b)?),
                    (Some(a), None) => Some(a.clone()),
                    (None, b) => b,
                })
            })
            .collect()
    }

    /// Named tensors below `prefix.`, without the prefix, in order: what a checkpoint's file holds. The empty prefix has all.
    pub fn section(&self, prefix: &str) -> Vec<(String, Tensor)> {
        self.list.iter().filter_map(|p| Some((p.below(prefix)?.to_string(), p.var().as_detached_tensor()))).collect()
    }

    /// Sets every parameter below `prefix.` (all, if it is empty) from tensors named without it; each must be there with its shape.
    pub fn load_section(&self, prefix: &str, tensors: &HashMap<String, Tensor>) -> Result<()> {
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
            let var = p.var();
            var.set(&from.to_dtype(var.dtype())?.to_device(var.device())?)?;
        }
        Ok(())
    }
}

/// A place in the tree of names where parameters are declared.
pub struct Scope<'a> {
    params: &'a mut Params,
    prefix: String,
}

impl Scope<'_> {
    /// The scope `name` below this one.
    pub fn sub(&mut self, name: impl std::fmt::Display) -> Scope<'_> {
        let prefix = self.join(&name.to_string());
        Scope { params: &mut *self.params, prefix }
    }

    /// Declares a parameter.
    ///
    /// # Panics
    /// When the name is taken: two layers would silently share a checkpoint entry.
    pub fn param(&mut self, name: &str, shape: impl Into<Shape>, kind: Kind, init: Init) -> Arc<Param> {
        let name = self.join(name);
        assert!(self.params.list.iter().all(|p| p.name != name), "parameter {name} declared twice");
        let param = Arc::new(Param { name, shape: shape.into(), kind, init, var: OnceLock::new() });
        self.params.list.push(param.clone());
        param
    }

    /// Where the layers of this model leave gradients.
    pub fn sink(&self) -> Sink {
        self.params.sink()
    }

    fn join(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.to_string() } else { format!("{}.{name}", self.prefix) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_hang_on_name_and_seed_alone() {
        let value = |extra: bool, seed| {
            let mut params = Params::new();
            let mut root = params.root();
            if extra {
                root.param("first", 3, Kind::Weight, Init::Normal { std: 1.0 });
            }
            let p = root.sub("a").param("weight", (2, 3), Kind::Weight, Init::TruncatedNormal { std: 0.5 });
            params.materialise(Key::new(seed), DType::F64, &Device::Cpu).unwrap();
            p.var().flatten_all().unwrap().to_vec1::<f64>().unwrap()
        };
        assert_eq!(value(false, 1), value(true, 1));
        assert_ne!(value(false, 1), value(false, 2));
        assert!(value(false, 1).iter().all(|v| v.abs() <= 1.0));
    }

    #[test]
    fn a_section_round_trips_and_is_strict() {
        let mut params = Params::new();
        params.root().sub("encoder").param("weight", (2, 2), Kind::Weight, Init::Normal { std: 1.0 });
        params.materialise(Key::new(1), DType::F32, &Device::Cpu).unwrap();
        let saved: HashMap<_, _> = params.section("encoder").into_iter().map(|(n, t)| (n, t.copy().unwrap())).collect();
        params.materialise(Key::new(2), DType::F32, &Device::Cpu).unwrap();
        params.load_section("encoder", &saved).unwrap();
        let now = params.section("encoder")[0].1.to_vec2::<f32>().unwrap();
        assert_eq!(now, saved["weight"].to_vec2::<f32>().unwrap());
        assert!(params.load_section("encoder", &HashMap::new()).unwrap_err().what().contains("weight"));
    }
}
