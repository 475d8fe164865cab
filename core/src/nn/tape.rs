//! The way back: what a forward pass keeps so that the gradient of its output becomes those of its parameters and its input.

use std::sync::Arc;

use candle_core::{Tensor, Var};

use super::gradient::GradientStore;
use super::params::Param;
use crate::error::{Error, Result};

type Back = Box<dyn FnOnce(&Tensor, bool) -> Result<Option<Tensor>> + Send>;

/// What a forward pass kept. It is played once: it takes the gradient of the pass's output, leaves the gradients of the
/// parameters in their store, and gives the gradient of the pass's input.
pub struct Tape(Option<Back>);

impl Tape {
    /// Of a pass that kept nothing.
    pub fn none() -> Tape {
        Tape(None)
    }

    /// `back` gets the output's gradient and whether the input's is wanted.
    pub fn new(back: impl FnOnce(&Tensor, bool) -> Result<Option<Tensor>> + Send + 'static) -> Tape {
        Tape(Some(Box::new(back)))
    }

    /// Of an encoder written in candle's operations: `output` hangs in candle's graph on `input`, if its gradient can be
    /// asked for, and on the variables of `params`.
    pub fn of_graph(output: Tensor, input: Option<Var>, params: Vec<Arc<Param>>, gradients: GradientStore) -> Tape {
        Tape::new(move |gradient, _| {
            let store = (output * gradient.detach())?.sum_all()?.backward()?;
            for param in &params {
                if let Some(found) = store.get(param.var().as_tensor()) {
                    gradients.add(param, found.clone())?;
                }
            }
            Ok(input.and_then(|input| store.get(input.as_tensor()).cloned()))
        })
    }

    /// This pass followed by `next`, which read its output.
    pub fn then(self, next: Tape) -> Tape {
        let (Some(first), Some(second)) = (self.0, next.0) else { return Tape::none() };
        Tape::new(move |gradient, want| match second(gradient, true)? {
            Some(between) => first(&between, want),
            None => Ok(None),
        })
    }

    /// Whether there is a way back.
    pub fn is_kept(&self) -> bool {
        self.0.is_some()
    }

    /// Plays it: parameters' gradients go to their store; the input's is given if it is wanted.
    ///
    /// # Errors
    /// Of a pass that kept nothing, and what a step back met.
    pub fn play(self, gradient: &Tensor, want: bool) -> Result<Option<Tensor>> {
        let back = self.0.ok_or_else(|| Error::new("this pass kept nothing for a way back"))?;
        back(gradient, want)
    }
}
