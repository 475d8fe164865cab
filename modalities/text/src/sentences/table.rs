//! Static embeddings of texts: the mean of the rows of a text's tokens.
//!
//! The table of another program may have a weight for each token, and rows that tokens share: both are folded into one row a token.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use ctk_core::nn::params::{Init, Scope};
use ctk_core::nn::{Embedding, Layer};
use ctk_core::{Error, Result};
use tokenizers::Tokenizer;

use crate::tokens::TokenEncoder;

/// The name of the table in ctk's files.
pub const ROWS: &str = "words.weight";

/// An encoder whose table has so many rows and values in a row, declared in the scope. Rows begin as N(0, 1), as in sentence-transformers.
pub fn encoder([rows, width]: [usize; 2], mut scope: Scope) -> TokenEncoder {
    let table = Embedding::new([rows, width], Init::Normal { std: 1.0 }, scope.sub("words"));
    let store = scope.gradient_store();
    TokenEncoder::new(vec![Layer::Embedding(table), Layer::GlobalAverage], width, store)
}

/// The table (tokens, width) from the tensors of a file of sentence-transformers (`embedding.weight`) or model2vec (`embeddings`, perhaps
/// with `weights` and `mapping`).
///
/// # Errors
/// There is no table; weights or a mapping that do not fit it.
pub fn adopt(from: &HashMap<String, Tensor>) -> Result<Tensor> {
    let table = from.get("embedding.weight").or_else(|| from.get("embeddings"));
    let table = table.ok_or_else(|| Error::new("this file has neither `embedding.weight` nor `embeddings`"))?;
    let (mut rows, width) = table.dims2().map_err(|_| Error::new("the table of embeddings is not a matrix"))?;
    let mut table = table.to_dtype(DType::F32)?;
    if let Some(mapping) = from.get("mapping") {
        let numbers = mapping.to_dtype(DType::I64)?.flatten_all()?.to_vec1::<i64>()?;
        if let Some(wrong) = numbers.iter().find(|number| !(0..rows as i64).contains(*number)) {
            return Err(Error::new(format!("`mapping` names row {wrong} of a table of {rows}")));
        }
        let numbers: Vec<u32> = numbers.iter().map(|number| *number as u32).collect();
        rows = numbers.len();
        table = table.index_select(&Tensor::from_vec(numbers, rows, &Device::Cpu)?, 0)?;
    }
    if let Some(weights) = from.get("weights") {
        if weights.elem_count() != rows {
            return Err(Error::new(format!("there are {} weights for {rows} tokens", weights.elem_count())));
        }
        table = table.broadcast_mul(&weights.to_dtype(DType::F32)?.reshape((rows, 1))?)?;
    }
    Ok(table.reshape((rows, width))?)
}

/// The number of the token that stands for what the tokenizer does not know, if it has one.
pub fn unknown(tokenizer: &Tokenizer) -> Option<u32> {
    // Not every kind of model tells it by a method, but all write it.
    let model = serde_json::to_value(tokenizer.get_model()).ok()?;
    match model["unk_token"].as_str() {
        Some(token) => tokenizer.token_to_id(token),
        None => model["unk_id"].as_u64().map(|id| id as u32),
    }
}
