//! The losses of a recipe as one type: chosen once, told apart nowhere else.

use candle_core::{DType, Device};

use super::{Moco, NtXent, Objective, Queue, Terms};
use crate::checkpoint::{Reader, Writer};
use crate::error::Result;
use crate::pass::{Pass, Sides};
use crate::recipe::LossRecipe;
use crate::tower::Side;

/// A two-view method's loss.
pub enum Method {
    /// SimCLR and SimCLRv2.
    NtXent(NtXent),
    /// MoCo and MoCo v2.
    Moco(Moco),
}

impl Method {
    /// The loss of a recipe; a queue holds keys of `width` values.
    pub fn new(recipe: &LossRecipe, width: usize, dtype: DType, device: &Device) -> Result<Self> {
        let queue = |keys| Queue::new(keys, width, dtype, device);
        Ok(match recipe {
            LossRecipe::NtXent(l) => Method::NtXent(NtXent { memory: l.memory.map(queue).transpose()?, ..NtXent::new(l) }),
            LossRecipe::Moco(l) => Method::Moco(Moco { temperature: l.temperature, queue: queue(l.queue)? }),
        })
    }
}

/// `$do` with the loss that `$method` is.
macro_rules! with {
    ($method:expr, $loss:ident => $do:expr) => {
        match $method {
            Method::NtXent($loss) => $do,
            Method::Moco($loss) => $do,
        }
    };
}

impl Objective for Method {
    fn loss(&self, online: &(Side, Side), target: Option<&(Side, Side)>, labels: Option<&[u32]>, pass: &Pass) -> Result<Terms> {
        with!(self, loss => loss.loss(online, target, labels, pass))
    }

    fn sides(&self) -> (Sides, Sides) {
        with!(self, loss => loss.sides())
    }

    fn settle(&mut self, target: Option<&(Side, Side)>, pass: &Pass) -> Result<()> {
        with!(self, loss => loss.settle(target, pass))
    }

    fn save(&self, writer: &mut Writer) -> Result<()> {
        with!(self, loss => loss.save(writer))
    }

    fn load(&mut self, reader: &Reader) -> Result<()> {
        with!(self, loss => loss.load(reader))
    }
}
