//! Vectors of words and of texts: word2vec, and files of vectors. What texts are as data is `ctk-texts`.
//!
//! - [`word2vec`] trains word vectors by skip-gram with negative sampling.
//! - [`subwords`] cuts words into n-grams, [`fasttext`] reads and writes fastText's models.
//! - [`static_embedding`] writes word vectors as a folder for sentence-transformers.
//! - [`texts`] makes a row of a text, to see what word vectors are good for.
//! - [`vectors`] reads and writes files of word vectors, ours and other people's.

pub mod fasttext;
pub mod static_embedding;
pub mod subwords;
pub mod texts;
pub mod vectors;
pub mod word2vec;

pub use word2vec::Word2Vec;
