//! Texts as data, for every plugin that reads them: files, words, numbers, tables.
//!
//! - [`files`] finds the files that a path names, and reads them in pieces, whether compressed or not.
//! - [`corpus`] reads them once into word numbers; [`vocabulary`] holds the words and their counts.
//! - [`table`] reads texts with classes, and holds some of them out; [`labelled`] reads them from any file, or from several.
//! - [`sts`] reads pairs of sentences with scores, [`retrieval`] queries with documents and their relevance.
//! - [`pairs`] reads texts, pairs and triplets of texts to learn sentence embeddings from, and cuts views out of texts without pairs.
//! - [`tokenizer`] trains tokenizers.
//! - [`recipe`] is how all this is written in a recipe.
//! - [`language`] is a generated language, so that training can be tried without data.

mod cells;
pub mod corpus;
pub mod files;
pub mod identity;
pub mod labelled;
pub mod language;
pub mod pairs;
pub mod recipe;
pub mod retrieval;
pub mod sts;
pub mod table;
pub mod tokenizer;
pub mod vocabulary;
