//! Reads `tokenizers` JSON files. The `tokenizers` library panics on some damaged ones, while it reads them or when a text is cut: what is
//! known of these is checked before.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ctk_core::guard::guarded;
use ctk_core::{Context, Error, Result, opened};
use serde_json::Value;
use tokenizers::Tokenizer;

/// The key of SentencePiece's replacement table inside a `Precompiled` normalizer. It is base64 of the length of a trie in bytes, the
/// trie's units (u32, little-endian; a double array as by Darts-clone), and the replacements, each ended by a zero byte.
const CHARSMAP: &str = "precompiled_charsmap";

/// Reads the file at `path`.
///
/// # Errors
/// A file that cannot be read, or is not a tokenizer.
pub fn read(path: &Path) -> Result<Tokenizer> {
    let place = path.display();
    let bytes = opened::read(path).at(&place)?;
    let no_tokenizer = |e: String| Error::usage(format!("not a tokenizers file: {e}")).at(&place);
    // The library panics if the JSON ends inside a decoder.
    let value: Value = serde_json::from_slice(&bytes).map_err(|e| no_tokenizer(e.to_string()))?;
    charsmaps(&value).map_err(|e| no_tokenizer(format!("`{CHARSMAP}` {e}")))?;
    merges(&value["model"]).map_err(|e| no_tokenizer(format!("`merges` {e}")))?;
    drop(value);
    guarded(|| Tokenizer::from_bytes(&bytes), Into::into).map_err(|e| no_tokenizer(e.to_string()))
}

/// Checks that what is merged to the right begins as pieces inside of words do: the library cuts that off unseen.
fn merges(model: &Value) -> Result<(), String> {
    let Some(prefix) = model["continuing_subword_prefix"].as_str().filter(|prefix| !prefix.is_empty()) else { return Ok(()) };
    for merge in model["merges"].as_array().into_iter().flatten() {
        let right = match merge {
            Value::String(both) => both.split_once(' ').map(|(_, right)| right),
            pair => pair[1].as_str(),
        };
        if let Some(right) = right.filter(|right| !right.starts_with(prefix)) {
            return Err(format!("have `{right}` on the right, which does not begin with `{prefix}`"));
        }
    }
    Ok(())
}

/// Checks every replacement table below `value`: the library panics on damaged ones, on some only when a text is cut.
fn charsmaps(value: &Value) -> Result<(), &'static str> {
    match value {
        Value::Object(object) => {
            object.iter().try_for_each(|(key, value)| if key == CHARSMAP { charsmap(value) } else { charsmaps(value) })
        }
        Value::Array(values) => values.iter().try_for_each(charsmaps),
        _ => Ok(()),
    }
}

fn charsmap(value: &Value) -> Result<(), &'static str> {
    let text = value.as_str().ok_or("is not text")?;
    let bytes = STANDARD.decode(text).map_err(|_| "is not in base64")?;
    let (length, rest) = bytes.split_first_chunk::<4>().ok_or("is empty")?;
    let length = u32::from_le_bytes(*length) as usize / 4 * 4;
    let (trie, replacements) = rest.split_at_checked(length).ok_or("is cut short")?;
    let replacements = std::str::from_utf8(replacements).map_err(|_| "holds replacements that are not UTF-8")?;
    let trie: Vec<usize> =
        trie.chunks_exact(4).map(|unit| u32::from_le_bytes([unit[0], unit[1], unit[2], unit[3]]) as usize).collect();

    // Visits every unit that some text leads to, from the root on. The next byte of a text chooses among 255 units (0 ends a text), of
    // which those are children whose label is that byte.
    let offset = |unit: usize| (unit >> 10) << ((unit & (1 << 9)) >> 6);
    let out = "leads out of itself";
    let root = *trie.first().ok_or(out)?;
    let mut seen = vec![false; trie.len()];
    let mut open = vec![offset(root)];
    while let Some(base) = open.pop() {
        for byte in 1..=255 {
            let at = base ^ byte;
            let unit = *trie.get(at).ok_or(out)?;
            if unit & (1 << 31 | 0xff) != byte || std::mem::replace(&mut seen[at], true) {
                continue;
            }
            let below = at ^ offset(unit);
            if unit >> 8 & 1 == 1 {
                let replacement = trie.get(below).ok_or(out)? & ((1 << 31) - 1);
                replacements.get(replacement..).ok_or("names a replacement that is not there")?;
            }
            open.push(below);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A trie that replaces `a` by `b`: the root's children begin at unit 256, those of `a` at 512.
    fn table() -> Vec<u8> {
        let mut trie = vec![0u32; 768];
        trie[0] = 256 << 10;
        let a = 256 ^ usize::from(b'a');
        trie[a] = ((a as u32 ^ 512) << 10) | 1 << 8 | u32::from(b'a');
        trie[512] = 1 << 31;
        let mut bytes = (trie.len() as u32 * 4).to_le_bytes().to_vec();
        trie.iter().for_each(|unit| bytes.extend(unit.to_le_bytes()));
        bytes.extend(b"b\0");
        bytes
    }

    fn file(map: &str) -> String {
        let normalizer = json!({ "type": "Sequence", "normalizers": [{ "type": "Precompiled", CHARSMAP: map }] });
        let model = json!({ "type": "WordLevel", "vocab": { "b": 0, "[UNK]": 1 }, "unk_token": "[UNK]" });
        json!({ "version": "1.0", "added_tokens": [], "normalizer": normalizer, "model": model }).to_string()
    }

    fn read_text(text: &str) -> Result<Tokenizer> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokenizer.json");
        std::fs::write(&path, text).unwrap();
        read(&path)
    }

    #[test]
    fn a_whole_table_of_replacements_is_used() {
        let tokenizer = read_text(&file(&STANDARD.encode(table()))).unwrap();
        assert_eq!(tokenizer.encode("a", false).unwrap().get_tokens(), ["b"]);
    }

    #[test]
    fn damaged_files_are_errors_and_no_panics() {
        let whole = file(&STANDARD.encode(table())).replace("\"model\"", "\"decoder\":{\"type\":\"Fuse\"},\"model\"");
        assert!(read_text(&whole).is_ok());
        for end in 0..whole.len() {
            let error = read_text(&whole[..end]).unwrap_err().to_string();
            assert!(error.contains("not a tokenizers file"), "{end}: {error}");
        }
        let change = |at: usize, unit: u32| {
            let mut bytes = table();
            bytes[4 + 4 * at..8 + 4 * at].copy_from_slice(&unit.to_le_bytes());
            STANDARD.encode(bytes)
        };
        let a = 256 ^ usize::from(b'a');
        for (map, why) in [
            ("%".to_string(), "is not in base64"),
            (String::new(), "is empty"),
            (STANDARD.encode([0; 4]), "leads out of itself"),
            (STANDARD.encode([255, 255, 255, 255, 0]), "is cut short"),
            (STANDARD.encode([&table()[..], &[0xff]].concat()), "not UTF-8"),
            (change(0, 768 << 10), "leads out of itself"),
            (change(a, 1 << 31 >> 1 | u32::from(b'a')), "leads out of itself"),
            (change(512, 9), "names a replacement that is not there"),
        ] {
            let error = read_text(&file(&map)).unwrap_err().to_string();
            assert!(error.contains(why), "{why}: {error}");
        }
        let bpe = |prefix: &str, merges: Value| {
            let model = json!({
                "type": "BPE", "continuing_subword_prefix": prefix, "vocab": { "a": 0, "##b": 1, "ab": 2, "b": 3 }, "merges": merges,
            });
            read_text(&json!({ "version": "1.0", "added_tokens": [], "model": model }).to_string())
        };
        assert!(
            bpe("##", json!(["a ##b"])).is_ok() && bpe("##", json!([["a", "##b"]])).is_ok() && bpe("", json!(["a b"])).is_ok()
        );
        for merges in [json!(["a b"]), json!([["a", "b"]])] {
            let error = bpe("##", merges).unwrap_err().to_string();
            assert!(error.contains("`b` on the right") && error.contains("`##`"), "{error}");
        }
        // A merge that is longer than all pieces.
        let model = json!({ "type": "BPE", "vocab": { "a": 0, "b": 1 }, "merges": ["a b"] });
        let error =
            read_text(&json!({ "version": "1.0", "added_tokens": [], "model": model }).to_string()).unwrap_err().to_string();
        assert!(error.contains("makes no sense"), "{error}");
        let number = file("").replace("\"\"", "7");
        assert!(read_text(&number).unwrap_err().to_string().contains("is not text"));
    }
}
