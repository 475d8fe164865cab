//! The losses of a recipe as one type: chosen once, told apart nowhere else.

use candle_core::{DType, Device};

use super::{BarlowTwins, Byol, Dcl, InfoNce, Moco, NtXent, Objective, Queue, SimSiam, SupCon, Terms, VicReg};
use crate::error::Result;
use crate::model::tower::Side;
use crate::nn::pass::{Pass, Sides};
use crate::recipe::LossRecipe;
use crate::store::checkpoint::{Reader, Writer};

/// A two-view method's loss.
pub enum Method {
    /// SimCLR and SimCLRv2.
    NtXent(NtXent),
    /// MoCo and MoCo v2.
    Moco(Moco),
    /// Contrast by labels.
    SupCon(SupCon),
    /// Decoupled contrast.
    Dcl(Dcl),
    /// InfoNCE both ways.
    InfoNce(InfoNce),
    /// Barlow Twins.
    BarlowTwins(BarlowTwins),
    /// VICReg.
    VicReg(VicReg),
    /// SimSiam.
    SimSiam(SimSiam),
    /// BYOL.
    Byol(Byol),
}

impl Method {
    /// The loss of a recipe; a queue holds keys of `width` values.
    pub fn new(recipe: &LossRecipe, width: usize, dtype: DType, device: &Device) -> Result<Self> {
        let queue = |keys| Queue::new(keys, width, dtype, device);
        Ok(match recipe {
            LossRecipe::NtXent(l) => Method::NtXent(NtXent { memory: l.memory.map(queue).transpose()?, ..NtXent::new(l) }),
            LossRecipe::Moco(l) => Method::Moco(Moco { temperature: l.temperature, queue: queue(l.queue)? }),
            LossRecipe::Supcon(l) => Method::SupCon(SupCon { temperature: l.temperature, positives: l.positives }),
            LossRecipe::Dcl(l) => Method::Dcl(Dcl { temperature: l.temperature }),
            LossRecipe::Infonce(l) => Method::InfoNce(InfoNce { temperature: l.temperature }),
            LossRecipe::BarlowTwins(l) => Method::BarlowTwins(BarlowTwins { lambda: l.lambda }),
            LossRecipe::Vicreg(l) => {
                Method::VicReg(VicReg { invariance: l.invariance, variance: l.variance, covariance: l.covariance })
            }
            LossRecipe::Simsiam {} => Method::SimSiam(SimSiam),
            LossRecipe::Byol(_) => Method::Byol(Byol),
        })
    }
}

/// `$do` with the loss that `$method` is.
macro_rules! with {
    ($method:expr, $loss:ident => $do:expr) => {
        match $method {
            Method::NtXent($loss) => $do,
            Method::Moco($loss) => $do,
            Method::SupCon($loss) => $do,
            Method::Dcl($loss) => $do,
            Method::InfoNce($loss) => $do,
            Method::BarlowTwins($loss) => $do,
            Method::VicReg($loss) => $do,
            Method::SimSiam($loss) => $do,
            Method::Byol($loss) => $do,
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
