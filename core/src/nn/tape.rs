//! Tapes: what a forward pass keeps for its backward pass.

use std::sync::Arc;

use candle_core::{Tensor, Var};

use super::gradient::GradientStore;
use super::params::Param;
use crate::error::{Error, Result};

type Back = Box<dyn FnOnce(&Tensor, bool) -> Result<Option<Tensor>> + Send>;

/// What a forward pass kept. It is played once: it takes the gradient of the pass's output, adds the gradients of the parameters to their
/// store, and returns the gradient of the pass's input.
pub struct Tape(Option<Back>);

impl Tape {
    /// The tape of a pass that kept nothing.
    pub fn none() -> Tape {
        Tape(None)
    }

    /// A tape that calls `back` with the output's gradient and whether the input's is wanted.
    pub fn new(back: impl FnOnce(&Tensor, bool) -> Result<Option<Tensor>> + Send + 'static) -> Tape {
        Tape(Some(Box::new(back)))
    }

    /// The tape of an encoder written in candle's operations: `output` depends through candle's graph on `input`, if its gradient can be
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

    /// This pass followed by `next`, whose input was this pass's output.
    pub fn then(self, next: Tape) -> Tape {
        let (Some(first), Some(second)) = (self.0, next.0) else { return Tape::none() };
        Tape::new(move |gradient, want| match second(gradient, true)? {
            Some(between) => first(&between, want),
            None => Ok(None),
        })
    }

    /// Whether the pass kept a tape.
    pub fn is_kept(&self) -> bool {
        self.0.is_some()
    }

    /// Runs the backward pass: adds the parameters' gradients to their store, and returns the input's gradient if it is wanted.
    ///
    /// # Errors
    /// The pass kept no tape, or a layer's backward step failed.
    pub fn play(self, gradient: &Tensor, want: bool) -> Result<Option<Tensor>> {
        let back = self.0.ok_or_else(|| Error::new("this pass kept nothing for its backward pass"))?;
        back(gradient, want)
    }
}
