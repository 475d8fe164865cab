//! Rewords a TOML reader's messages in terms that the author of a recipe knows.

use crate::error::short;

/// The largest number of characters of a value that are shown.
pub(super) const LONGEST: usize = 120;

/// `message` without Rust's terms: types are described by what is written in a recipe.
pub(super) fn plain(message: &str) -> String {
    let message = message.trim();
    if let Some((found, wanted)) = split(message) {
        return format!("this is {}, and has to be {}", thing(found), wanted_of(wanted));
    }
    message
        .replace("unknown field", "unknown key")
        .replace("unknown variant", "unknown choice")
        .replace("missing field", "missing key")
}

/// This program's name of a choice that other programs call `name`.
pub(super) fn ours(name: &str) -> Option<&'static str> {
    let known = [
        ("simclr", "nt-xent"),
        ("simclrv2", "nt-xent"),
        ("ntxent", "nt-xent"),
        ("nt_xent", "nt-xent"),
        ("clip", "infonce"),
        ("info-nce", "infonce"),
        ("adam", "adamw"),
        ("cosine-annealing", "cosine"),
        ("sgns", "negative-sampling"),
        ("skipgram", "skip-gram"),
        ("max_grad_norm", "clip"),
        ("clip_grad_norm", "clip"),
    ];
    let name = name.to_lowercase();
    known.iter().find(|(theirs, _)| *theirs == name).map(|(_, ours)| *ours)
}

/// The two halves of serde's `invalid type: …, expected …`.
fn split(message: &str) -> Option<(&str, &str)> {
    let kinds = ["invalid type: ", "invalid value: ", "invalid length "];
    let (kind, rest) = kinds.iter().find_map(|kind| Some((kind, message.strip_prefix(kind)?)))?;
    let (found, wanted) = rest.rsplit_once(", expected ")?;
    Some((if kind.contains("length") { "a list of another length" } else { found }, wanted))
}

/// A description of the value that was written.
fn thing(found: &str) -> String {
    let quoted = |prefix: &str| found.strip_prefix(prefix).map(|rest| rest.trim_matches('`').to_string());
    if let Some(number) = quoted("integer ").or_else(|| quoted("floating point ")) {
        return format!("the number {number}");
    }
    if let Some(word) = quoted("boolean ") {
        return format!("`{word}`");
    }
    match found.strip_prefix("string ") {
        Some(text) => format!("the text {}", short(text, LONGEST)),
        None => match found {
            "map" => "a table".to_string(),
            "sequence" => "a list".to_string(),
            "newtype variant" | "unit variant" | "struct variant" => "another kind of choice".to_string(),
            other => other.to_string(),
        },
    }
}

/// A description of the expected type.
fn wanted_of(wanted: &str) -> String {
    let whole = ["usize", "u8", "u16", "u32", "u64", "u128"];
    let signed = ["isize", "i8", "i16", "i32", "i64", "i128"];
    match wanted {
        _ if whole.contains(&wanted) => "a whole number, 0 or more".to_string(),
        _ if signed.contains(&wanted) => "a whole number".to_string(),
        "f32" | "f64" => "a number".to_string(),
        "a boolean" => "true or false".to_string(),
        "a string" | "string" | "path string" => "text in quotes".to_string(),
        "a sequence" => "a list in brackets".to_string(),
        _ if wanted.starts_with("struct ") || wanted == "a map" || wanted == "map" => "a table of keys".to_string(),
        _ if wanted.contains("variant") => "one word in quotes".to_string(),
        _ if wanted.starts_with("enum ") || wanted.contains("enum") => "one of its choices".to_string(),
        _ => match wanted.strip_prefix("an array of length ") {
            Some(length) => format!("a list of {length}"),
            None => wanted.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use crate::recipe::Recipe;

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "kebab-case", deny_unknown_fields)]
    #[allow(dead_code, reason = "only errors are looked at")]
    struct All {
        whole: Option<usize>,
        number: Option<f64>,
        switch: Option<bool>,
        text: Option<String>,
        path: Option<std::path::PathBuf>,
        list: Option<Vec<f64>>,
        pair: Option<[f64; 2]>,
        choice: Option<Choice>,
        below: Option<Below>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    enum Choice {
        One,
        #[allow(dead_code, reason = "only errors are looked at")]
        Two(Below),
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only errors are looked at")]
    struct Below {
        key: Option<u32>,
    }

    #[test]
    fn mistakes_are_told_without_the_words_of_rust() {
        let rust =
            ["usize", "u32", "f64", "bool", "variant", "struct", "sequence", "enum", "map,", "unit", "field", "invalid type"];
        for (written, said) in [
            ("whole = \"abc\"", "the text \"abc\", and has to be a whole number"),
            ("whole = -1", "the number -1, and has to be a whole number, 0 or more"),
            ("whole = 1.5", "the number 1.5, and has to be a whole number"),
            ("number = \"0,1\"", "has to be a number"),
            ("switch = 1", "has to be true or false"),
            ("text = 3", "has to be text in quotes"),
            ("path = []", "has to be text in quotes"),
            ("list = 3", "has to be a list"),
            ("pair = [1.0]", "a list of 2"),
            ("choice = 5", ""),
            ("choice = \"three\"", "unknown choice `three`"),
            ("choice = { one = 3 }", ""),
            ("choice = \"two\"", ""),
            ("below = 3", "has to be a table"),
            ("below = { other = 3 }", "unknown key `other`"),
            ("other = 3", "unknown key `other`"),
        ] {
            let error = Recipe::new("a.toml", written).parse::<All>().unwrap_err();
            let what = error.to_string();
            assert!(what.contains(said), "{written}: {what}");
            let words: Vec<&str> = what.split(|c: char| !c.is_alphanumeric() && c != ',').collect();
            assert!(rust.iter().all(|word| !words.contains(word) && !what.contains("invalid type")), "{written}: {what}");
        }
    }
}
