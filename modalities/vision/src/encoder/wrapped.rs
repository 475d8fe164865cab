//! Networks inside a larger file: training programs often put a prefix before each name, such as `module.`, `backbone.` or `encoder_q.`.
//!
//! Every prefix that occurs in the file is tried. The one behind which a network is found is removed, with a note. If a file holds a
//! network and its momentum copy, the network is used.

use std::collections::{BTreeMap, BTreeSet};

use ctk_core::{Error, Result};

use super::file::File;

/// Names of momentum copies and teachers in various methods.
const COPIES: [&str; 9] = [
    "encoder_k",
    "key_encoder",
    "teacher",
    "target",
    "momentum",
    "target_encoder",
    "momentum_encoder",
    "ema",
    "backbone_momentum",
];

/// Prefixes with more parts than this are not tried.
const DEEPEST: usize = 4;

/// The result of `find` for the file, or for the part of it behind a prefix.
///
/// # Errors
/// Those of `find`; or the file holds several networks, and none is a copy of another.
pub(crate) fn first<T>(file: &File, find: impl Fn(&File) -> Result<Option<T>>) -> Result<Option<T>> {
    if let Some(found) = find(file)? {
        return Ok(Some(found));
    }
    let mut found: Vec<(String, T)> = Vec::new();
    for prefix in prefixes(file) {
        // Longer prefixes below a found network are parts of it.
        if found.iter().any(|(outer, _)| prefix.starts_with(outer.as_str())) {
            continue;
        }
        if let Some(network) = find(&file.below(&prefix))? {
            found.push((prefix, network));
        }
    }
    let is_copy = |prefix: &str| prefix.split('.').any(|part| COPIES.contains(&part));
    if found.len() > 1 && found.iter().any(|(prefix, _)| !is_copy(prefix)) {
        found.retain(|(prefix, _)| !is_copy(prefix));
    }
    if found.len() > 1 {
        let prefixes: Vec<String> = found.iter().map(|(prefix, _)| format!("`{prefix}`")).collect();
        return Err(Error::usage(format!("this file holds several networks, behind {}", prefixes.join(" and ")))
            .at(file.path().display())
            .hint("save one of them alone, by names without the prefix"));
    }
    Ok(found.pop().map(|(_, network)| network))
}

/// All beginnings of names that end with a dot, the shortest first.
fn prefixes(file: &File) -> Vec<String> {
    let mut all = BTreeSet::new();
    for name in file.names() {
        let dots = name.match_indices('.').take(DEEPEST);
        all.extend(dots.map(|(at, _)| (at, name[..=at].to_string())));
    }
    all.into_iter().map(|(_, prefix)| prefix).collect()
}

/// A note about a file that is read in part: the prefix, and other content.
pub(crate) fn note(file: &File) -> Option<String> {
    let prefix = file.prefix();
    if prefix.is_empty() {
        return None;
    }
    let mut others: BTreeMap<&str, usize> = BTreeMap::new();
    for name in file.outside() {
        // Summarised by the first part in which they differ from what is read.
        let shared = prefix.split_inclusive('.').scan(0, |at, part| {
            *at += part.len();
            Some(*at)
        });
        let same = shared.take_while(|&at| name.starts_with(&prefix[..at])).last().unwrap_or(0);
        let end = name[same..].find('.').map_or(name.len(), |dot| same + dot + 1);
        *others.entry(&name[..end]).or_default() += 1;
    }
    let others: Vec<String> = others.into_iter().map(|(name, count)| format!("{name} ({count})")).collect();
    let beside = if others.is_empty() { String::new() } else { format!("; other tensors are not read: {}", others.join(", ")) };
    Some(format!("the network's names begin with `{prefix}`, which is removed{beside}"))
}
