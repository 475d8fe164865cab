//! An encoder of sentences as it is used: texts in, a row for each out.

use candle_core::DType;
use ctk_core::Result;
use ctk_core::data::pair::HostBatch;
use ctk_core::eval::normalise;
use ctk_core::model::encoder::Encoder;
use ctk_core::nn::pass::Pass;
use ctk_core::nn::rows::Rows;
use ctk_core::process::Stop;

use super::tokenizing::{Cut, Tokenizing};
use crate::tokens::Tokens;

/// Tokens that are encoded at once: enough for products of full speed.
const AT_ONCE: usize = 8192;

/// An encoder with its tokenizer.
pub struct SentenceEncoder {
    /// From tokens to features.
    pub network: Box<dyn Encoder<Views = Tokens>>,
    /// From texts to tokens.
    pub tokenizing: Tokenizing,
    /// Whether features are scaled to length 1.
    pub normalise: bool,
}

/// Features of texts.
pub struct Embedded {
    /// The features, one row after the other.
    pub rows: Vec<f32>,
    /// Texts that were longer than the encoder reads, so that their ends are missing.
    pub cut: usize,
    /// Texts that have no token.
    pub empty: usize,
}

impl SentenceEncoder {
    /// Values of a row.
    pub fn width(&self) -> usize {
        self.network.width()
    }

    /// A row for each text, in order. A text's row does not depend on the texts beside it.
    ///
    /// # Errors
    /// The tokenizer or the device fails; the process was asked to end.
    pub fn embed<T: AsRef<str> + Sync>(&self, texts: &[T]) -> Result<Embedded> {
        let mut all = Embedded { rows: Vec::with_capacity(texts.len() * self.width()), cut: 0, empty: 0 };
        // So many texts that their tokens are not in memory all at once.
        for texts in texts.chunks(AT_ONCE) {
            let tokens = self.tokenizing.cut_all(texts)?;
            all.cut += tokens.iter().filter(|text| text.short).count();
            all.empty += tokens.iter().filter(|text| text.ids.is_empty()).count();
            self.encode(&tokens, &mut all.rows)?;
        }
        if self.normalise {
            normalise(&mut all.rows, self.width());
        }
        Ok(all)
    }

    /// Appends the network's features of texts, which are not normalised.
    fn encode(&self, texts: &[Cut], rows: &mut Vec<f32>) -> Result<()> {
        let (mut from, stop) = (0, Stop::here());
        while from < texts.len() {
            stop.check()?;
            let (mut batch, mut count, mut to) = (Tokens::default(), 0, from);
            while to < texts.len() && (to == from || count + texts[to].ids.len() <= AT_ONCE) {
                batch.push(&texts[to].ids);
                count += texts[to].ids.len();
                to += 1;
            }
            let (y, _) = self.network.encode(&Tokens::stack(&[&batch])?, &Rows::alone(to - from), &Pass::eval())?;
            rows.extend(y.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?);
            from = to;
        }
        Ok(())
    }
}
