//! The teacher: a transformer that reads pieces of its vocabulary, and texts.

use std::path::Path;

use candle_core::DType;
use ctk_core::data::pair::HostBatch as _;
use ctk_core::eval::normalise;
use ctk_core::model::encoder::Encoder as _;
use ctk_core::nn::params::Params;
use ctk_core::nn::pass::Pass;
use ctk_core::nn::rows::Rows;
use ctk_core::observer::advanced;
use ctk_core::process::Stop;
use ctk_core::rng::Key;
use ctk_core::store::rows::Identity;
use ctk_core::{Context, Device, Error, Result};
use tokenizers::Tokenizer;

use super::recipe::Targets;
use crate::sentences::network::{Described, Network};
use crate::sentences::start::Start;
use crate::sentences::tokenizing::{Rules, Tokenizing};
use crate::tokens::{TokenEncoder, Tokens};
use crate::transformer::Pooling;

/// Tokens that are read at once.
const AT_ONCE: usize = 8192;

/// A trained transformer whose parameters do not change.
pub struct Teacher {
    /// From tokens to a row for each of them.
    tokens: TokenEncoder,
    described: Described,
    pooling: Pooling,
    width: usize,
    tokenizing: Tokenizing,
    /// Special tokens that stand before every text, and behind it.
    around: [Vec<u32>; 2],
    /// What was guessed about its files, to be said.
    pub notes: Vec<String>,
    /// Digests its weights, its tokenizer and its description.
    identity: Identity,
    /// As `tokenizing`, without what is put before every text.
    bare: Tokenizing,
}

/// Which of a sequence's rows are averaged.
#[derive(Clone, Copy, PartialEq)]
enum Of {
    All,
    First,
    Last,
    /// Those between the special tokens.
    Inner,
}

impl Teacher {
    /// Opens the encoder at `path`.
    ///
    /// # Errors
    /// An encoder that cannot be read, or is no transformer.
    pub fn open(path: &Path, device: &Device) -> Result<Teacher> {
        let start = Start::of(path)?;
        let mut identity = Identity::default();
        for (_, bytes) in start.files()? {
            identity = identity.and(&bytes);
        }
        let Start { described, tokenizer, tensors, mut notes } = start;
        let Network::Transformer { shape, pooling, .. } = described.network.clone() else {
            return Err(Error::usage("this is a static embedding already, so it cannot teach one").at(path.display()));
        };
        let tensors = tensors.ok_or_else(|| Error::new("this encoder has no weights").at(path.display()))?;
        let mut params = Params::new();
        let layers = shape.network(params.root().sub("encoder"))?;
        let tokens = TokenEncoder::new(layers, shape.features(), params.gradient_store());
        params.materialise(Key::new(0), DType::F32, device)?;
        params.load_section("encoder", &tensors).at(path.display())?;
        let mut names: Vec<&String> = tensors.keys().collect();
        names.sort_unstable();
        for name in names {
            let values = tensors[name].to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            identity = identity.and(name.as_bytes()).and(&bytes);
        }
        let around = around(&tokenizer).at(path.display())?;
        let tokenizing = |rules| Tokenizing::new(tokenizer.clone(), rules, shape.vocabulary).at(path.display());
        let bare = tokenizing(Rules { prompt: String::new(), ..described.rules.clone() })?;
        let tokenizing = tokenizing(described.rules.clone())?;
        if pooling == Pooling::Last {
            notes.push("its features are those of the last token, so the others do not teach".to_string());
        }
        Ok(Teacher { tokens, pooling, width: shape.features(), described, tokenizing, bare, around, notes, identity })
    }

    /// Values of its rows.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Its tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        self.tokenizing.tokenizer()
    }

    /// How it reads texts.
    pub fn described(&self) -> &Described {
        &self.described
    }

    /// Special tokens that stand before every text, and behind it.
    pub fn around(&self) -> &[Vec<u32>; 2] {
        &self.around
    }

    /// What its rows of texts depend on, besides the texts.
    pub fn identity(&self, targets: Targets) -> Identity {
        let kind: &[u8] = if targets == Targets::Tokens { b"tokens" } else { b"features" };
        self.identity.clone().and(kind)
    }

    /// The tokens of a word, special ones included.
    ///
    /// # Errors
    /// The tokenizer fails.
    pub fn word(&self, word: &str) -> Result<Vec<u32>> {
        Ok(self.bare.cut(word)?.ids)
    }

    /// The mean of all outputs for each of these sequences of tokens; of a teacher whose features are those of the last token, these.
    ///
    /// # Errors
    /// The device fails; the process was asked to end.
    pub fn pieces(&self, sequences: &[Vec<u32>]) -> Result<Vec<f32>> {
        if self.pooling == Pooling::Last {
            let finished: Vec<Vec<u32>> = sequences.iter().map(|ids| self.described.rules.finished(ids.clone())).collect();
            return self.read(&finished, Of::Last, true);
        }
        self.read(sequences, Of::All, true)
    }

    /// Its rows of these texts: see [`Targets`].
    ///
    /// # Errors
    /// The tokenizer or the device fails; the process was asked to end.
    pub fn texts<T: AsRef<str> + Sync>(&self, texts: &[T], targets: Targets) -> Result<Vec<f32>> {
        let tokens = self.tokenizing.cut_all(texts)?;
        let sequences: Vec<Vec<u32>> = tokens.into_iter().map(|text| text.ids).collect();
        match (targets, self.pooling) {
            (Targets::Tokens, Pooling::Last) => self.read(&sequences, Of::Last, false),
            (Targets::Tokens, _) => self.read(&sequences, Of::Inner, false),
            (Targets::Features, pooling) => {
                let of = match pooling {
                    Pooling::Mean => Of::All,
                    Pooling::First => Of::First,
                    Pooling::Last => Of::Last,
                };
                let mut rows = self.read(&sequences, of, false)?;
                if self.described.normalise {
                    normalise(&mut rows, self.width);
                }
                Ok(rows)
            }
        }
    }

    fn read(&self, sequences: &[Vec<u32>], of: Of, told: bool) -> Result<Vec<f32>> {
        let stop = Stop::here();
        let mut rows = Vec::with_capacity(sequences.len() * self.width);
        let mut from = 0;
        while from < sequences.len() {
            stop.check()?;
            let (mut batch, mut count, mut to) = (Tokens::default(), 0, from);
            while to < sequences.len() && (to == from || count + sequences[to].len() <= AT_ONCE) {
                batch.push(&sequences[to]);
                count += sequences[to].len();
                to += 1;
            }
            let (y, _) = self.tokens.encode(&Tokens::stack(&[&batch])?, &Rows::alone(to - from), &Pass::eval())?;
            let y = y.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
            let mut at = 0;
            for sequence in &sequences[from..to] {
                let outputs = &y[at * self.width..][..sequence.len() * self.width];
                rows.extend(mean(self.chosen(outputs, of), self.width));
                at += sequence.len();
            }
            from = to;
            if told {
                advanced(from, sequences.len());
            }
        }
        Ok(rows)
    }

    /// The outputs that are averaged; all of them in a text without a token of its own.
    fn chosen<'a>(&self, outputs: &'a [f32], of: Of) -> &'a [f32] {
        let [before, behind] = [0, 1].map(|side: usize| self.around[side].len() * self.width);
        match of {
            Of::All => outputs,
            Of::First => &outputs[..self.width],
            Of::Last => &outputs[outputs.len() - self.width..],
            Of::Inner if outputs.len() > before + behind => &outputs[before..outputs.len() - behind],
            Of::Inner => outputs,
        }
    }
}

fn mean(rows: &[f32], width: usize) -> Vec<f32> {
    let mut sums = vec![0.0f64; width];
    rows.chunks_exact(width).for_each(|row| sums.iter_mut().zip(row).for_each(|(sum, v)| *sum += f64::from(*v)));
    let count = (rows.len() / width).max(1) as f64;
    sums.into_iter().map(|sum| (sum / count) as f32).collect()
}

/// The special tokens before and behind a text.
fn around(tokenizer: &Tokenizer) -> Result<[Vec<u32>; 2]> {
    let fails = |e: tokenizers::Error| Error::new(format!("the tokenizer fails: {e}"));
    // Truncation and padding are not the network's, and could hide a special token.
    let mut plain = tokenizer.clone();
    plain.with_padding(None).with_truncation(None).map_err(fails)?;
    let ids = plain.encode_fast("", true).map_err(fails)?.get_ids().to_vec();
    let one = plain.encode("a", true).map_err(fails)?;
    let before = one.get_special_tokens_mask().iter().take_while(|special| **special == 1).count().min(ids.len());
    let (before, behind) = ids.split_at(before);
    Ok([before.to_vec(), behind.to_vec()])
}
