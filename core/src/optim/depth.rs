//! Rates by depth (layer-wise rate decay, as in ELECTRA, Clark et al. 2020, and in BEiT and timm): the first layers learn more slowly.

use std::collections::HashMap;

use crate::error::{Error, Result};
use crate::nn::params::{Param, Params};

/// The factor of each parameter's rate, in the order of the parameters: `decay`^(L + 1 − i) for a parameter of depth i, where L is the largest
/// depth of its section: two towers have each their own. A parameter without a depth (final normalisation, head, a loss's own) has depth
/// L + 1, and so the factor 1.
///
/// # Errors
/// `decay` is not 1, and no parameter has a depth.
pub(super) fn factors(params: &Params, decay: f64) -> Result<Vec<f64>> {
    if decay == 1.0 {
        return Ok(vec![1.0; params.iter().count()]);
    }
    let mut tops: HashMap<&str, usize> = HashMap::new();
    for param in params.iter() {
        let top = tops.entry(section(param.name())).or_default();
        *top = (*top).max(param.depth().map_or(0, |depth| depth + 1));
    }
    if tops.values().all(|top| *top == 0) {
        return Err(Error::usage(format!(
            "optimizer.adamw.layer_decay is {decay}, and this model does not declare the depths of its layers"
        ))
        .hint("leave optimizer.adamw.layer_decay at 1.0, or train a model that declares depths: a transformer"));
    }
    let power = |top: usize, depth: usize| decay.powi(i32::try_from(top - depth).unwrap_or(i32::MAX));
    let of = |param: &Param| param.depth().map_or(1.0, |depth| power(tops[section(param.name())], depth));
    Ok(params.iter().map(|param| of(param)).collect())
}

/// The section of a parameter.
fn section(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Tensor};

    use super::super::Optimizer;
    use super::*;
    use crate::nn::params::{Gradients, Init, ParamKind};
    use crate::recipe::{AdamwRecipe, OptimizerRecipe};
    use crate::rng::Key;

    const ONE: Init = Init::Constant(1.0);

    /// Embeddings, blocks whose layers have scopes of their own, a head and a temperature.
    fn params(blocks: usize, depths: bool) -> Params {
        let mut params = Params::new();
        let mut root = params.root();
        let mut encoder = root.sub("encoder");
        let words = encoder.sub("words");
        let mut words = if depths { words.depth(0) } else { words };
        words.param("weight", (3, 2), ParamKind::Embedding, ONE);
        for block in 0..blocks {
            let scope = encoder.sub(block);
            let mut scope = if depths { scope.depth(block + 1) } else { scope };
            scope.sub("mlp").sub("out").param("weight", (2, 2), ParamKind::Weight, ONE);
            scope.param("bias", 2, ParamKind::Bias, ONE);
        }
        encoder.param("norm", 2, ParamKind::Norm, ONE);
        root.sub("head").param("weight", (2, 2), ParamKind::Weight, ONE);
        root.sub("loss").param("scale", (), ParamKind::Scalar, ONE);
        params.materialise(Key::new(0), DType::F64, &crate::Device::Cpu).unwrap();
        params
    }

    fn adamw(decay: f64, layer_decay: f64, decay_embeddings: bool) -> OptimizerRecipe {
        OptimizerRecipe::Adamw(AdamwRecipe { decay, layer_decay, decay_embeddings, ..AdamwRecipe::default() })
    }

    #[test]
    fn twelve_blocks_have_the_powers_of_the_rule() {
        let params = params(12, true);
        let factors = factors(&params, 0.75).unwrap();
        let of = |name: &str| factors[params.iter().position(|p| p.name() == name).unwrap()];
        // Powers of .75: 13, 12, 1 and 0.
        assert!((of("encoder.words.weight") - 0.023_757_264).abs() < 1e-8, "{}", of("encoder.words.weight"));
        assert!((of("encoder.0.mlp.out.weight") - 0.031_676_352).abs() < 1e-8 && of("encoder.0.bias") < 0.032);
        assert_eq!((of("encoder.11.mlp.out.weight"), of("encoder.11.bias")), (0.75, 0.75));
        assert_eq!((of("encoder.norm"), of("head.weight"), of("loss.scale")), (1.0, 1.0, 1.0));
    }

    #[test]
    fn the_whole_step_and_its_decay_have_the_parameters_rate() {
        let (layered, plain) = (params(2, true), params(2, true));
        let gradients = |params: &Params| -> Gradients {
            let one = |p: &std::sync::Arc<crate::nn::params::Param>| {
                Some(Tensor::ones(p.dims(), DType::F64, &candle_core::Device::Cpu).unwrap().into())
            };
            params.iter().map(one).collect()
        };
        Optimizer::new(&adamw(0.3, 0.5, true)).step(&layered, &gradients(&layered), 0.1).unwrap();
        let first =
            |params: &Params, at: usize| params.iter().nth(at).unwrap().var().flatten_all().unwrap().to_vec1::<f64>().unwrap()[0];
        for (at, factor) in factors(&layered, 0.5).unwrap().into_iter().enumerate() {
            let fresh = params(2, true);
            Optimizer::new(&adamw(0.3, 1.0, true)).step(&fresh, &gradients(&plain), 0.1 * factor).unwrap();
            assert_eq!(first(&layered, at), first(&fresh, at), "parameter {at} at the factor {factor}");
        }
    }

    #[test]
    fn embeddings_are_decayed_only_when_asked() {
        let zeros =
            |params: &Params| -> Gradients { params.iter().map(|p| Some(p.array().zeros_like().unwrap().into())).collect() };
        let after = |decay_embeddings: bool| {
            let params = params(1, false);
            Optimizer::new(&adamw(0.5, 1.0, decay_embeddings)).step(&params, &zeros(&params), 0.1).unwrap();
            let of = |p: &std::sync::Arc<crate::nn::params::Param>| p.var().flatten_all().unwrap().to_vec1::<f64>().unwrap()[0];
            params.iter().map(of).collect::<Vec<_>>()
        };
        // Embeddings, weight, bias, normalisation, head's weight, temperature.
        assert_eq!(after(false), [1.0, 0.95, 1.0, 1.0, 0.95, 1.0]);
        assert_eq!(after(true), [0.95, 0.95, 1.0, 1.0, 0.95, 1.0]);
    }

    #[test]
    fn a_model_without_depths_is_refused_before_its_first_step() {
        let params = params(2, false);
        let optimizer = Optimizer::new(&adamw(0.1, 0.9, false));
        let error = optimizer.check(&params).unwrap_err();
        let said = error.to_string();
        assert!(said.contains("layer_decay is 0.9") && said.contains("depths"), "{said}");
        assert_eq!(error.exit_code(), 2);
        assert!({ optimizer }.step(&params, &vec![None; params.iter().count()], 0.1).is_err());
        assert_eq!(factors(&params, 1.0).unwrap(), vec![1.0; params.iter().count()]);
    }
}
