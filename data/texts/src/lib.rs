//! Texts as data, shared by the plugins that read them: files, words, numbers, tables.
//!
//! - [`files`] are what a path names, in pieces, whether compressed or not.
//! - [`corpus`] reads them once into word numbers; [`vocabulary`] says which words there are and how often.
//! - [`table`] is texts with their classes, and which of them are held out.
//! - [`recipe`] is how all this is written in a recipe.
//! - [`language`] is a generated language, so that training can be tried without any data.

pub mod corpus;
pub mod files;
pub mod identity;
pub mod language;
pub mod recipe;
pub mod table;
pub mod vocabulary;
