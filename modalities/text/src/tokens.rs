//! Texts as the input of networks: the numbers of their tokens, and encoders that read them.
//!
//! A batch of texts is one sequence of tokens with an offset for each text; nothing is padded.

use candle_core::Tensor;
use ctk_core::data::pair::HostBatch;
use ctk_core::error::Result;
use ctk_core::model::encoder::Encoder;
use ctk_core::nn::gradient::GradientStore;
use ctk_core::nn::pass::Pass;
use ctk_core::nn::rows::Rows;
use ctk_core::nn::tape::Tape;
use ctk_core::nn::{Layer, Sequential};

/// Texts as tokens of a vocabulary.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    ids: Vec<u32>,
    ends: Vec<u32>,
}

impl Tokens {
    /// Appends a text.
    pub fn push(&mut self, ids: &[u32]) {
        self.ids.extend_from_slice(ids);
        self.ends.push(self.ids.len() as u32);
    }

    /// The tokens of each text.
    pub fn texts(&self) -> impl Iterator<Item = &[u32]> {
        self.ends.iter().scan(0, |before, end| Some(&self.ids[std::mem::replace(before, *end) as usize..*end as usize]))
    }

    /// Tokens of each text.
    pub fn lengths(&self) -> impl Iterator<Item = usize> {
        self.texts().map(<[u32]>::len)
    }
}

/// Texts one after the other: the ids of all tokens, and the number of the first token of each text, at the end that of all.
pub struct Stacked {
    ids: Tensor,
    offsets: Vec<u32>,
}

impl HostBatch for Tokens {
    type Stacked = Stacked;

    fn stack(views: &[&Self]) -> Result<Stacked> {
        let mut offsets = vec![0];
        for view in views {
            let before = offsets[offsets.len() - 1];
            offsets.extend(view.ends.iter().map(|end| before + end));
        }
        let ids: Vec<u32> = views.iter().flat_map(|view| view.ids.iter().copied()).collect();
        let count = ids.len();
        Ok(Stacked { ids: Tensor::from_vec(ids, count, &candle_core::Device::Cpu)?, offsets })
    }
}

/// An encoder of texts that is a chain of layers, of which the last makes one row of each text's tokens.
pub struct TokenEncoder {
    network: Sequential,
    width: usize,
}

impl TokenEncoder {
    /// `layers` give rows of `width` values; the gradients of their parameters go to `store`.
    pub fn new(layers: Vec<Layer>, width: usize, store: GradientStore) -> TokenEncoder {
        TokenEncoder { network: Sequential::new(layers, store), width }
    }
}

impl Encoder for TokenEncoder {
    type Views = Tokens;

    fn width(&self) -> usize {
        self.width
    }

    fn encode(&self, x: &Stacked, rows: &Rows, pass: &Pass) -> Result<(Tensor, Tape)> {
        self.network.forward(&x.ids, &rows.clone().with_offsets(x.offsets.clone()), pass)
    }

    fn through(&self, head: &Sequential, x: &Stacked, rows: &Rows, pass: &Pass) -> Result<(Tensor, Tape)> {
        self.network.through(head, &x.ids, &rows.clone().with_offsets(x.offsets.clone()), pass)
    }
}
