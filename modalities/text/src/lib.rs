//! Text: a corpus as a stream of word numbers, its vocabulary, and word2vec.
//!
//! - [`corpus`] reads files into numbers once; [`vocabulary`] says which words there are and how often.
//! - [`word2vec`] trains word vectors by skip-gram with negative sampling.
//! - [`subwords`] cuts words into n-grams, [`fasttext`] reads and writes fastText's models.
//! - [`static_embedding`] writes word vectors as a folder for sentence-transformers.
//! - [`texts`] makes a row of a text, to see what word vectors are good for.
//! - [`vectors`] reads and writes files of word vectors, ours and other people's.
//! - [`language`] is a generated language, so that training can be tried without any data.

pub mod corpus;
pub mod fasttext;
pub mod language;
pub mod static_embedding;
pub mod subwords;
pub mod texts;
pub mod vectors;
pub mod vocabulary;
pub mod word2vec;

pub use word2vec::Word2Vec;
