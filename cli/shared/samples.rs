//! The samples that the arguments name: a dataset, single files, or several of both, one after the other.

use std::path::PathBuf;

use ctk_core::error::{Error, Result};
use ctk_core::modality::{Model, Query, Split};

use super::args::{ModelArgs, Part, Paths};

/// The queries to a model, in the order of the arguments. With each comes a prefix for the names of its samples, because samples in
/// different folders may have equal names.
pub fn queries(model: &dyn Model, args: &ModelArgs, samples: &Paths) -> Vec<(Query, String)> {
    let split = match samples.split {
        Part::Train => Split::Train,
        Part::Test => Split::Test,
        Part::All => Split::All,
    };
    let all: Vec<&PathBuf> = args.data.iter().chain(&samples.paths).collect();
    if all.is_empty() {
        return vec![(Query { split, ..Query::default() }, String::new())];
    }
    let mut queries: Vec<(Query, String)> = Vec::new();
    for path in &all {
        match queries.last_mut().filter(|(before, _)| !before.files.is_empty()) {
            Some((before, _)) if model.is_sample(path) => before.files.push(path.to_path_buf()),
            _ if model.is_sample(path) => {
                queries.push((Query { files: vec![path.to_path_buf()], ..Query::default() }, String::new()));
            }
            _ => {
                let before =
                    if all.len() > 1 { format!("{}/", path.display().to_string().trim_end_matches('/')) } else { String::new() };
                queries.push((Query { data: Some(path.to_path_buf()), split, ..Query::default() }, before));
            }
        }
    }
    queries
}

/// The answers to [`queries`], joined.
///
/// # Errors
/// The errors of `ask` and `join`.
pub fn all<T>(
    queries: Vec<(Query, String)>,
    ask: impl Fn(&Query) -> Result<T>,
    names: impl Fn(&mut T) -> &mut Vec<String>,
    join: impl Fn(T, T) -> Result<T>,
) -> Result<T> {
    let mut answers = queries.into_iter().map(|(query, before)| {
        let mut answer = ask(&query)?;
        if !before.is_empty() {
            names(&mut answer).iter_mut().for_each(|name| name.insert_str(0, &before));
        }
        Ok::<T, Error>(answer)
    });
    let first = answers.next().expect("there is a query")?;
    answers.try_fold(first, |all, more| join(all, more?))
}
