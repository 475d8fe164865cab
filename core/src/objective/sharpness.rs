//! The temperature of a loss over similarities, fixed or learned. What is learned is s = −log T, as in CLIP (Radford et al. 2021, §2.5): it is
//! clamped after each step, so that T is never below a bound and never above 1. In the loss there is no clamp: at the bound it would stop the
//! gradient.

use std::sync::Arc;

use candle_core::{DType, Tensor};

use super::Terms;
use super::spec::Checks;
use crate::error::Result;
use crate::nn::params::{Init, Param, ParamKind, Scope};

/// −log T.
pub(super) struct Sharpness {
    temperature: f64,
    /// The parameter and its largest value.
    learned: Option<(Arc<Param>, f64)>,
}

impl Sharpness {
    /// Checks the settings of a loss: the temperature at the beginning, and the largest 1/T if it is learned.
    pub fn check(temperature: f64, sharpest: Option<f64>, checks: &Checks) -> Result<()> {
        checks.positive("temperature", temperature, "")?;
        let Some(sharpest) = sharpest else { return Ok(()) };
        checks.require((1.0..=1e4).contains(&sharpest), "sharpest", "must be 1 to 10000: one over the lowest temperature")?;
        let within = (1.0 / sharpest..=1.0).contains(&temperature);
        checks.require(within, "temperature", "must be 1/sharpest to 1, because it is learned between these")
    }

    /// A temperature that begins with this value; `logit_scale` is declared in the scope if it is learned.
    pub fn new(temperature: f64, sharpest: Option<f64>, scope: &mut Scope) -> Sharpness {
        let declare = |sharpest: f64| {
            let init = Init::Constant(-temperature.ln());
            (scope.param("logit_scale", (), ParamKind::Scalar, init), sharpest.ln())
        };
        Sharpness { temperature, learned: sharpest.map(declare) }
    }

    /// A temperature that is not learned.
    pub fn fixed(temperature: f64) -> Sharpness {
        Sharpness { temperature, learned: None }
    }

    /// T.
    pub fn temperature(&self) -> Result<f64> {
        match &self.learned {
            None => Ok(self.temperature),
            Some((param, _)) => Ok((-number(param)?).exp()),
        }
    }

    /// Adds to `terms` the gradient `slope` of a learned s, and the temperature.
    pub fn told(&self, terms: &mut Terms, slope: f64) -> Result<()> {
        let Some((param, _)) = &self.learned else { return Ok(()) };
        terms.extras.push(("temperature", Tensor::new(self.temperature()?, &candle_core::Device::Cpu)?));
        learn(param, slope, terms)
    }

    /// Clamps a learned s.
    pub fn clamp(&self) -> Result<()> {
        let Some((param, most)) = &self.learned else { return Ok(()) };
        param.set(&param.var().as_tensor().clamp(0.0, *most)?)
    }
}

/// The value of a scalar.
pub(super) fn number(param: &Param) -> Result<f64> {
    Ok(param.var().as_tensor().to_dtype(DType::F64)?.to_scalar()?)
}

/// Adds a scalar's gradient to `terms`.
pub(super) fn learn(param: &Arc<Param>, slope: f64, terms: &mut Terms) -> Result<()> {
    let gradient = Tensor::new(slope, &candle_core::Device::Cpu)?.to_dtype(param.var().dtype())?;
    terms.parameters.push((param.clone(), gradient));
    Ok(())
}
