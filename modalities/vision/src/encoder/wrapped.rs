//! Networks inside a larger file: what trains them often puts a word before each name, as `module.`, `backbone.` or `encoder_q.`.
//!
//! Every prefix that the file's names have is tried; the one behind which a network lies is left out, and said. Of a network and its
//! slow copy the network is meant.

use std::collections::{BTreeMap, BTreeSet};

use ctk_core::{Error, Result};

use super::file::File;

/// What methods call the slow copy of a network, or a network that teaches another.
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

/// Prefixes longer than this are no wrapper's.
const DEEPEST: usize = 4;

/// What `find` makes of the file, or of the part of it behind a prefix.
///
/// # Errors
/// Those of `find`; several networks lie in the file, and none is the copy of another.
pub(crate) fn first<T>(file: &File, find: impl Fn(&File) -> Result<Option<T>>) -> Result<Option<T>> {
    if let Some(found) = find(file)? {
        return Ok(Some(found));
    }
    let mut found: Vec<(String, T)> = Vec::new();
    for prefix in prefixes(file) {
        // What lies behind a longer prefix of a network is a part of it.
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

/// What to say of a file of which a part is read: the prefix, and what lies beside that part.
pub(crate) fn note(file: &File) -> Option<String> {
    let prefix = file.prefix();
    if prefix.is_empty() {
        return None;
    }
    let mut others: BTreeMap<&str, usize> = BTreeMap::new();
    for name in file.outside() {
        // By the first word in which they differ from what is read.
        let shared = prefix.split_inclusive('.').scan(0, |at, part| {
            *at += part.len();
            Some(*at)
        });
        let same = shared.take_while(|&at| name.starts_with(&prefix[..at])).last().unwrap_or(0);
        let end = name[same..].find('.').map_or(name.len(), |dot| same + dot + 1);
        *others.entry(&name[..end]).or_default() += 1;
    }
    let others: Vec<String> = others.into_iter().map(|(name, count)| format!("{name} ({count})")).collect();
    let beside =
        if others.is_empty() { String::new() } else { format!("; what lies beside it is not read: {}", others.join(", ")) };
    Some(format!("the network's names begin with `{prefix}`, which is left out{beside}"))
}
