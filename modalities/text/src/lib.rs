//! Vectors of words and texts: word2vec, and files of word vectors. Texts as data are in `ctk-texts`.
//!
//! - [`word2vec`] trains word vectors by skip-gram or CBOW.
//! - [`subwords`] cuts words into n-grams, [`fasttext`] reads and writes fastText's models.
//! - [`static_embedding`] writes word vectors as a folder for sentence-transformers.
//! - [`sentences`] is the modality of encoders of sentences, and opens those that other programs wrote.
//! - [`transformer`] describes networks like BERT, [`tokens`] is texts as their input.
//! - [`texts`] makes a feature row of a text, by which word vectors are evaluated.
//! - [`vectors`] reads and writes files of word vectors, of ctk and of other programs.

pub mod fasttext;
mod modules;
pub mod sentences;
pub mod static_embedding;
pub mod subwords;
pub mod texts;
pub mod tokens;
pub mod transformer;
pub mod vectors;
pub mod word2vec;

pub use sentences::Sentences;
pub use word2vec::Word2Vec;
