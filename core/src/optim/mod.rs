//! Optimizers (SGD, LARS, AdamW) whose whole state can be saved; the learning rate's schedule; clipping; rates by depth.
//!
//! candle-nn's AdamW does not expose its moments, its SGD has no momentum, and it has no LARS; an exact resume needs all of that. Each
//! optimizer says the [`Step`] that each parameter takes; the parameters' device takes all of them at once. The [kind](crate::nn::params::ParamKind) of a
//! parameter decides about decay: only weights are decayed and scaled by LARS; scales, shifts, biases and the supervised head are not. AdamW
//! decays embeddings only if the recipe says so.
//!
//! A gradient of rows is a gradient of the whole table that is 0 in other rows, so momentum and the moments also move rows that a batch
//! lacks. A lazy (sparse) Adam, which moves only the rows of the batch, is another optimizer. With AdamW on the CPU these rows take their
//! steps when they are read, with the same bits (`nn/late.rs`).

pub(crate) mod clip;
mod depth;
mod schedule;

use std::collections::HashMap;

use candle_core::{Device, Tensor};
use ctk_kernels::{Adam, Lars, Momentum, Step};

use crate::error::{Error, Result};
use crate::nn::array::{Array, Change, steps};
use crate::nn::gradient::Gradient;
use crate::nn::params::{Gradients, Param, ParamKind, Params};
use crate::recipe::{AdamwRecipe, LarsForm, LarsRecipe, OptimizerRecipe, SgdRecipe};

pub use schedule::{Rates, Schedule};

/// Name of the entry that counts steps.
const STEPS: &str = "steps";

/// SGD, LARS or AdamW, with its state.
pub struct Optimizer {
    recipe: OptimizerRecipe,
    steps: u64,
    /// One for each parameter, in order; empty before the first step.
    memory: Vec<Memory>,
}

struct Memory {
    name: String,
    buffers: Vec<Array>,
}

impl Optimizer {
    /// An optimizer that has not stepped yet.
    pub fn new(recipe: &OptimizerRecipe) -> Self {
        Optimizer { recipe: recipe.clone(), steps: 0, memory: Vec::new() }
    }

    /// Checks that the optimizer can train `params`; they need no values yet.
    ///
    /// # Errors
    /// AdamW's `layer_decay` is not 1, and no parameter has a depth.
    pub fn check(&self, params: &Params) -> Result<()> {
        self.factors(params).map(drop)
    }

    /// The factor of each parameter's rate: its own, times that of its layer's depth.
    fn factors(&self, params: &Params) -> Result<Vec<f64>> {
        let by_depth = match &self.recipe {
            OptimizerRecipe::Adamw(recipe) => depth::factors(params, recipe.layer_decay)?,
            _ => vec![1.0; params.iter().count()],
        };
        Ok(params.iter().zip(by_depth).map(|(param, factor)| param.rate() * factor).collect())
    }

    /// Updates `params` by one step at learning rate `rate`. A parameter that is frozen, or without a gradient, is not changed.
    ///
    /// # Errors
    /// `gradients` do not match `params` in number, shape or type.
    pub fn step(&mut self, params: &Params, gradients: &Gradients, rate: f64) -> Result<()> {
        self.step_scaled(params, gradients, rate, 1.0)
    }

    /// [`step`](Optimizer::step) with `gradients` multiplied by `scale`.
    ///
    /// # Errors
    /// As [`step`](Optimizer::step), and as [`check`](Optimizer::check).
    pub fn step_scaled(&mut self, params: &Params, gradients: &Gradients, rate: f64, scale: f64) -> Result<()> {
        let factors = self.factors(params)?;
        let count = params.iter().count();
        if gradients.len() != count || (self.steps > 0 && self.memory.len() != count) {
            return Err(Error::new(format!(
                "{} gradients and {} states for {count} parameters",
                gradients.len(),
                self.memory.len()
            )));
        }
        if self.memory.is_empty() {
            self.memory = params.iter().map(|p| self.blank(p)).collect::<Result<_>>()?;
        }
        self.steps += 1;
        let mut all = Vec::new();
        for (((param, gradient), memory), factor) in params.iter().zip(gradients).zip(&self.memory).zip(factors) {
            let (true, Some(gradient)) = (param.trained(), gradient) else { continue };
            let (kind, rate) = (param.kind(), rate * factor);
            if let (OptimizerRecipe::Adamw(recipe), Gradient::Rows(rows), [first, second]) =
                (&self.recipe, gradient, &memory.buffers[..])
                && param.device().is_cpu()
            {
                let step = adam(recipe, kind, rate, self.steps);
                param.step_rows(step, &[first.clone(), second.clone()], rows, scale)?;
                continue;
            }
            let w = param.array();
            let g = gradient.beside(&w).map_err(|e| e.at(param.name()))?;
            let step = match &self.recipe {
                OptimizerRecipe::Sgd(recipe) => sgd(recipe, kind.decayed(), rate),
                OptimizerRecipe::Lars(recipe) => lars(recipe, kind.decayed(), rate),
                OptimizerRecipe::Adamw(recipe) => Step::Adam(adam(recipe, kind, rate, self.steps)),
            };
            all.push((step, w, &memory.buffers, g));
        }
        steps(all.iter().map(|(step, w, state, g)| Change { step: *step, w, state, g, scale }).collect())
    }

    /// All state that the next step depends on besides `params`, by name. On the CPU the tensors share memory with the optimizer:
    /// save or copy them before the next step.
    ///
    /// # Errors
    /// An error of candle.
    pub fn state(&self, params: &Params) -> Result<Vec<(String, Tensor)>> {
        params.iter().for_each(|param| param.catch_up());
        let mut state = vec![(STEPS.to_string(), Tensor::new(self.steps as i64, &Device::Cpu)?)];
        for memory in &self.memory {
            for (name, buffer) in self.buffer_names().iter().zip(&memory.buffers) {
                state.push((format!("{}.{name}", memory.name), buffer.tensor()?));
            }
        }
        Ok(state)
    }

    /// Restores what [`state`](Optimizer::state) returned for the same parameters and the same recipe.
    ///
    /// # Errors
    /// An entry is missing, or has another shape or type.
    pub fn restore(&mut self, params: &Params, state: &HashMap<String, Tensor>) -> Result<()> {
        let find = |name: &str| state.get(name).ok_or_else(|| Error::new(format!("the optimizer's state lacks `{name}`")));
        params.iter().for_each(|param| param.catch_up());
        let steps = find(STEPS)?.to_scalar::<i64>()?;
        let steps = u64::try_from(steps).map_err(|_| Error::new(format!("the optimizer's state counts {steps} steps")))?;
        let mut memory = Vec::new();
        for param in params.iter().take_while(|_| steps > 0) {
            let blank = self.blank(param)?;
            for (buffer, to) in self.buffer_names().iter().zip(&blank.buffers) {
                let name = format!("{}.{buffer}", param.name());
                let from = find(&name)?;
                if (from.dims(), from.dtype()) != (to.dims(), to.dtype()) {
                    return Err(Error::new(format!(
                        "the optimizer's `{name}` is {:?} {:?}, the parameter {:?} {:?}",
                        from.dtype(),
                        from.dims(),
                        to.dtype(),
                        to.dims()
                    )));
                }
                // Copied into memory of its own, because steps work in place.
                to.set(from)?;
            }
            memory.push(blank);
        }
        let claimed = |name: &String| {
            name == STEPS
                || memory.iter().any(|m: &Memory| self.buffer_names().iter().any(|b| *name == format!("{}.{b}", m.name)))
        };
        if let Some(name) = state.keys().filter(|name| !claimed(name)).min() {
            return Err(Error::new(format!("the optimizer's state has `{name}`, which belongs to no parameter")));
        }
        (self.steps, self.memory) = (steps, memory);
        Ok(())
    }

    fn buffer_names(&self) -> &'static [&'static str] {
        match &self.recipe {
            OptimizerRecipe::Sgd(recipe) if recipe.momentum == 0.0 => &[],
            OptimizerRecipe::Sgd(_) | OptimizerRecipe::Lars(_) => &["momentum"],
            OptimizerRecipe::Adamw(_) => &["first", "second"],
        }
    }

    fn blank(&self, param: &Param) -> Result<Memory> {
        let names = if param.trained() { self.buffer_names() } else { &[] };
        let buffers = names.iter().map(|_| param.array().zeros_like()).collect::<Result<_>>()?;
        Ok(Memory { name: param.name().to_string(), buffers })
    }
}

/// PyTorch's SGD: g ← g + decay·w; v ← momentum·v + g; w ← w − rate·v, or with Nesterov w ← w − rate·(g + momentum·v). PyTorch starts v at
/// the first g, which is the same as starting at 0.
fn sgd(recipe: &SgdRecipe, decayed: bool, rate: f64) -> Step {
    let decay = if decayed { recipe.decay } else { 0.0 };
    if recipe.momentum == 0.0 {
        return Step::Blend { keep: 1.0 - rate * decay, add: -rate };
    }
    let weight = if recipe.nesterov { [1.0 - rate * decay, -rate, -rate * recipe.momentum] } else { [1.0, 0.0, -rate] };
    Step::Momentum(Momentum { velocity: [recipe.momentum, 1.0, decay], weight })
}

/// LARS (You et al. 2017) as in SimCLR's `lars_optimizer.py`, in both of its forms. ‖g‖ is the norm of the gradient with decay added; the
/// ratio is 1 if either norm is 0.
fn lars(recipe: &LarsRecipe, decayed: bool, rate: f64) -> Step {
    let (decay, trust) = if decayed { (recipe.decay, Some(recipe.trust)) } else { (0.0, None) };
    Step::Lars(Lars { momentum: recipe.momentum, decay, rate, trust, popular: recipe.form == LarsForm::Popular })
}

/// PyTorch's AdamW (Loshchilov & Hutter 2019): w ← w·(1 − rate·decay), then Adam with bias correction. One count of steps
/// serves all parameters.
fn adam(recipe: &AdamwRecipe, kind: ParamKind, rate: f64, steps: u64) -> Adam {
    let decayed = kind.decayed() && (kind != ParamKind::Embedding || recipe.decay_embeddings);
    let decay = if decayed { recipe.decay } else { 0.0 };
    let correction = |beta: f64| 1.0 - beta.powi(i32::try_from(steps).unwrap_or(i32::MAX));
    Adam {
        betas: [recipe.beta1, recipe.beta2],
        keep: 1.0 - rate * decay,
        rate: rate / correction(recipe.beta1),
        root: 1.0 / correction(recipe.beta2).sqrt(),
        eps: recipe.eps,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::gradient::RowGradient;
    use crate::nn::params::Init;
    use crate::rng::Key;
    use candle_core::DType;

    const KINDS: [ParamKind; 5] = [ParamKind::Weight, ParamKind::Norm, ParamKind::Bias, ParamKind::Head, ParamKind::Buffer];

    fn params(dtype: DType) -> Params {
        let mut params = Params::new();
        for (i, kind) in KINDS.into_iter().enumerate() {
            params.root().param(&format!("p{i}"), (3, 2), kind, Init::Normal { std: 1.0 });
        }
        params.root().param("zero", 4, ParamKind::Weight, Init::Constant(0.0));
        params.root().param("still", 4, ParamKind::Weight, Init::Constant(1.0));
        params.materialise(Key::new(5), dtype, &crate::Device::Cpu).unwrap();
        params
    }

    fn values(params: &Params) -> Vec<Vec<f64>> {
        let flat = |t: &Tensor| t.flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1::<f64>().unwrap();
        params.iter().map(|p| flat(p.var())).collect()
    }

    /// The gradient of parameter `p` at step `s`, with arbitrary values; `zero` gets none in its first steps, `still` never.
    fn gradient(s: usize, p: usize, n: usize) -> Option<Vec<f64>> {
        let scale = if p == 5 && s < 3 { 0.0 } else { 1.0 };
        (p != 6).then(|| (0..n).map(|i| scale * ((s * 7 + p * 3 + i) as f64).sin()).collect())
    }

    fn gradients(params: &Params, s: usize) -> Gradients {
        let of = |(p, param): (usize, &std::sync::Arc<Param>)| {
            let g = gradient(s, p, param.dims().iter().product())?;
            Some(Tensor::from_vec(g, param.dims(), &Device::Cpu).unwrap().to_dtype(param.dtype()).unwrap().into())
        };
        params.iter().enumerate().map(of).collect()
    }

    fn rate(s: usize) -> f64 {
        0.1 * s as f64 / 4.0
    }

    /// 20 steps of `recipe`, compared after each with `reference(w, g, state, kind, rate, step)` in plain loops.
    fn against(recipe: OptimizerRecipe, reference: impl Fn(&mut [f64], &[f64], &mut [Vec<f64>; 2], bool, f64, i32)) {
        let params = params(DType::F64);
        let mut expected = values(&params);
        let start = expected.clone();
        let mut state: Vec<[Vec<f64>; 2]> = expected.iter().map(|w| [vec![0.0; w.len()], vec![0.0; w.len()]]).collect();
        let mut optimizer = Optimizer::new(&recipe);
        for s in 0..20 {
            optimizer.step(&params, &gradients(&params, s), rate(s)).unwrap();
            for (p, param) in params.iter().enumerate() {
                let Some(g) = gradient(s, p, expected[p].len()) else { continue };
                if param.kind() != ParamKind::Buffer {
                    reference(&mut expected[p], &g, &mut state[p], param.kind() == ParamKind::Weight, rate(s), s as i32 + 1);
                }
            }
            for (a, b) in values(&params).concat().iter().zip(expected.concat()) {
                assert!((a - b).abs() <= 1e-13 * b.abs().max(1.0), "step {s}: {a} {b}");
            }
        }
        assert_eq!(expected[4], start[4], "buffers stay");
        assert_eq!(expected[6], start[6], "no gradient, no change");
        assert!(expected[..4].iter().zip(&start).all(|(a, b)| a != b));
    }

    #[test]
    fn sgd_is_pytorchs() {
        for (momentum, nesterov) in [(0.0, false), (0.9, false), (0.9, true)] {
            let recipe = SgdRecipe { rate: 1.0, momentum, nesterov, decay: 0.01 };
            against(OptimizerRecipe::Sgd(recipe), |w, g, [buf, _], decayed, lr, step| {
                for i in 0..w.len() {
                    let mut d = g[i] + if decayed { 0.01 * w[i] } else { 0.0 };
                    if momentum != 0.0 {
                        buf[i] = if step == 1 { d } else { momentum * buf[i] + d };
                        d = if nesterov { d + momentum * buf[i] } else { buf[i] };
                    }
                    w[i] -= lr * d;
                }
            });
        }
    }

    #[test]
    fn adamw_is_pytorchs() {
        let recipe = AdamwRecipe { rate: 1.0, beta1: 0.8, beta2: 0.95, eps: 1e-3, decay: 0.05, ..AdamwRecipe::default() };
        against(OptimizerRecipe::Adamw(recipe), |w, g, [m, v], decayed, lr, step| {
            for i in 0..w.len() {
                if decayed {
                    w[i] *= 1.0 - lr * 0.05;
                }
                m[i] = 0.8 * m[i] + 0.2 * g[i];
                v[i] = 0.95 * v[i] + 0.05 * g[i] * g[i];
                let (m_hat, v_hat) = (m[i] / (1.0 - 0.8f64.powi(step)), v[i] / (1.0 - 0.95f64.powi(step)));
                w[i] -= lr * m_hat / (v_hat.sqrt() + 1e-3);
            }
        });
    }

    #[test]
    fn lars_is_googles_in_both_forms() {
        let length = |x: &[f64]| x.iter().map(|v| v * v).sum::<f64>().sqrt();
        for form in [LarsForm::Classic, LarsForm::Popular] {
            let recipe = LarsRecipe { rate: 1.0, momentum: 0.9, decay: 0.02, trust: 0.01, form };
            against(OptimizerRecipe::Lars(recipe), |w, g, [v, _], decayed, lr, _| {
                let g: Vec<f64> = g.iter().zip(&*w).map(|(g, w)| if decayed { g + 0.02 * w } else { *g }).collect();
                let ratio = |w: &[f64], x: &[f64]| match (decayed, length(w) > 0.0, length(x) > 0.0) {
                    (true, true, true) => 0.01 * length(w) / length(x),
                    _ => 1.0,
                };
                if form == LarsForm::Classic {
                    let scaled = lr * ratio(w, &g);
                    (0..w.len()).for_each(|i| v[i] = 0.9 * v[i] + scaled * g[i]);
                    (0..w.len()).for_each(|i| w[i] -= v[i]);
                } else {
                    (0..w.len()).for_each(|i| v[i] = 0.9 * v[i] + g[i]);
                    let scaled = lr * ratio(w, v);
                    (0..w.len()).for_each(|i| w[i] -= scaled * v[i]);
                }
            });
        }
    }

    fn recipes() -> Vec<OptimizerRecipe> {
        vec![
            OptimizerRecipe::Sgd(SgdRecipe { nesterov: true, ..SgdRecipe::default() }),
            OptimizerRecipe::Sgd(SgdRecipe { momentum: 0.0, ..SgdRecipe::default() }),
            OptimizerRecipe::Lars(LarsRecipe::default()),
            OptimizerRecipe::Lars(LarsRecipe { form: LarsForm::Popular, ..LarsRecipe::default() }),
            OptimizerRecipe::Adamw(AdamwRecipe::default()),
        ]
    }

    #[test]
    fn a_restored_optimizer_goes_on_as_if_nothing_had_happened() {
        for recipe in recipes() {
            for dtype in [DType::F32, DType::F64] {
                let through = params(dtype);
                let mut optimizer = Optimizer::new(&recipe);
                let mut saved = None;
                for s in 0..10 {
                    if s == 5 {
                        let weights: Vec<Tensor> = through.iter().map(|p| p.var().copy().unwrap()).collect();
                        let state: HashMap<_, _> =
                            optimizer.state(&through).unwrap().into_iter().map(|(n, t)| (n, t.copy().unwrap())).collect();
                        saved = Some((weights, state));
                    }
                    optimizer.step(&through, &gradients(&through, s), rate(s)).unwrap();
                }
                let (weights, state) = saved.unwrap();
                let resumed = params(dtype);
                resumed.iter().zip(&weights).for_each(|(p, w)| p.var().set(w).unwrap());
                let mut again = Optimizer::new(&recipe);
                again.restore(&resumed, &state).unwrap();
                (5..10).for_each(|s| again.step(&resumed, &gradients(&resumed, s), rate(s)).unwrap());
                let bits = |p: &Params| values(p).concat().iter().map(|v| v.to_bits()).collect::<Vec<_>>();
                assert_eq!(bits(&through), bits(&resumed), "{recipe:?}");
            }
        }
    }

    #[test]
    fn a_state_that_does_not_fit_is_an_error() {
        let params = params(DType::F32);
        for recipe in recipes() {
            let mut optimizer = Optimizer::new(&recipe);
            let fresh: HashMap<_, _> = optimizer.state(&params).unwrap().into_iter().collect();
            Optimizer::new(&recipe).restore(&params, &fresh).unwrap();
            optimizer.step(&params, &gradients(&params, 0), 0.1).unwrap();
            let whole: HashMap<_, _> = optimizer.state(&params).unwrap().into_iter().collect();
            for name in whole.keys() {
                let mut lacking = whole.clone();
                lacking.remove(name);
                assert!(Optimizer::new(&recipe).restore(&params, &lacking).unwrap_err().what().contains(name.as_str()));
                if name != STEPS {
                    let mut odd = whole.clone();
                    odd.insert(name.clone(), Tensor::zeros(77, DType::F32, &Device::Cpu).unwrap());
                    assert!(Optimizer::new(&recipe).restore(&params, &odd).unwrap_err().what().contains(name.as_str()));
                }
            }
        }
        assert!(Optimizer::new(&recipes()[0]).step(&params, &Vec::new(), 0.1).is_err());
        let mut odd = gradients(&params, 0);
        odd[0] = odd[1].as_ref().map(|g| g.dense(params.iter().nth(1).unwrap().dims()).unwrap().narrow(0, 0, 1).unwrap().into());
        assert!(Optimizer::new(&recipes()[2]).step(&params, &odd, 0.1).unwrap_err().to_string().contains("p0"));
    }

    #[test]
    fn a_rate_of_zero_moves_no_weight() {
        for recipe in recipes() {
            let params = params(DType::F32);
            let before = values(&params);
            Optimizer::new(&recipe).step(&params, &gradients(&params, 4), 0.0).unwrap();
            assert_eq!(values(&params), before);
        }
    }

    #[test]
    fn rows_move_a_table_as_the_dense_gradient_does() {
        for recipe in recipes() {
            let table = || {
                let mut params = Params::new();
                params.root().sub("encoder").param("table", (5, 2), ParamKind::Embedding, Init::Normal { std: 1.0 });
                params.materialise(Key::new(1), DType::F64, &crate::Device::Cpu).unwrap();
                (params, Optimizer::new(&recipe))
            };
            let ((by_rows, mut first), (by_all, mut second)) = (table(), table());
            let bits = |p: &Params| values(p).concat().iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            for s in 0..20u32 {
                let values = Tensor::arange(0f64, 6.0, &Device::Cpu).unwrap().reshape((3, 2)).unwrap();
                let rows = RowGradient::new(&[s % 4, 4, s % 4], &(values - 2.0).unwrap()).unwrap();
                let all = rows.dense(5).unwrap();
                // In the middle a dense gradient comes, then none, and the state is read.
                let of_rows = if s == 9 { Gradient::from(all.clone()) } else { Gradient::Rows(rows) };
                let given = |gradient| vec![(s != 10).then_some(gradient)];
                first.step_scaled(&by_rows, &given(of_rows), 0.1, 0.5).unwrap();
                second.step_scaled(&by_all, &given(Gradient::from(all)), 0.1, 0.5).unwrap();
                if s == 14 {
                    let [one, other] = [first.state(&by_rows), second.state(&by_all)].map(Result::unwrap);
                    for ((name, a), (_, b)) in one.iter().zip(&other) {
                        let [a, b] = [a, b].map(|t| t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>());
                        assert_eq!(a.unwrap(), b.unwrap(), "{recipe:?}: {name}");
                    }
                }
            }
            assert_eq!(bits(&by_rows), bits(&by_all), "{recipe:?}");
        }
        // Rows that are no rows of the table.
        let mut params = Params::new();
        params.root().sub("encoder").param("table", (5, 2), ParamKind::Embedding, Init::Normal { std: 1.0 });
        params.materialise(Key::new(1), DType::F32, &crate::Device::Cpu).unwrap();
        let step = |ids: &[u32], width: usize, dtype: DType| {
            let values = Tensor::zeros((ids.len(), width), dtype, &Device::Cpu).unwrap();
            let rows = Gradient::Rows(RowGradient::new(ids, &values).unwrap());
            Optimizer::new(&recipes()[4]).step(&params, &vec![Some(rows)], 0.1).map_err(|e| e.to_string())
        };
        for wrong in [step(&[5], 2, DType::F32), step(&[0], 3, DType::F32), step(&[0], 2, DType::F64)] {
            assert!(wrong.unwrap_err().contains("table"));
        }
        assert!(step(&[4], 2, DType::F32).is_ok());
    }
}
