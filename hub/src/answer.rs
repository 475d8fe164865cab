//! Checks a server's answer before anything is done with it: names in it become names of files, and sizes in it are allocated.

use ctk_core::{Error, Result};

const NAME: usize = 128;

/// The checked headers of an answer: nothing in them is too long, and no name leads out of a folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// The commit of the file: 40 to 64 hexadecimal digits.
    pub commit: Option<String>,
    /// The name of the file's content: up to 128 letters, digits, hyphens and underscores.
    pub etag: Option<String>,
    /// Whether that name is the SHA-256 of the content, as for large files.
    pub hashed: bool,
    /// The whole file's size in bytes.
    pub size: Option<u64>,
    /// The number of bytes in this answer.
    pub length: Option<u64>,
    /// The first byte in this answer, if it is a part of the file.
    pub from: Option<u64>,
    /// The address to which the server redirects.
    pub location: Option<String>,
    /// Whether the bytes are compressed, which was not requested.
    pub compressed: bool,
}

impl Told {
    /// Parses the headers of an answer, named in lower case.
    ///
    /// # Errors
    /// A header that occurs twice with different values; an invalid commit or content name; a size that is not a number; an address that is
    /// not text.
    pub fn of(headers: &[(&str, &[u8])]) -> Result<Told> {
        let one = |name: &str| -> Result<Option<&[u8]>> {
            let mut values = headers.iter().filter(|header| header.0 == name).map(|header| header.1);
            let first = values.next();
            match values.all(|other| Some(other) == first) {
                true => Ok(first),
                false => Err(wrong(&format!("`{name}` twice, with different values"))),
            }
        };
        let number = |name: &str| {
            one(name)?.map(|value| digits(value).ok_or_else(|| wrong(&format!("no number as `{name}`")))).transpose()
        };
        let commit = one("x-repo-commit")?.map(commit).transpose()?;
        let linked = one("x-linked-etag")?;
        let etag = linked.map_or_else(|| one("etag"), |linked| Ok(Some(linked)))?.map(etag).transpose();
        // A server that is only redirected to may name its content in any way; the name matters only together with a commit.
        let etag = if commit.is_some() { etag? } else { None };
        let (length, linked_size) = (number("content-length")?, number("x-linked-size")?);
        let range =
            one("content-range")?.map(|value| range(value).ok_or_else(|| wrong("no range as `content-range`"))).transpose()?;
        let total = range.and_then(|range| range.1);
        if let (Some(a), Some(b)) = (linked_size, total)
            && a != b
        {
            return Err(wrong(&format!("two sizes of one file: {a} and {b} bytes")));
        }
        let location = one("location")?.map(|value| std::str::from_utf8(value).map(str::to_string));
        let plain = |value: &[u8]| value.trim_ascii().is_empty() || value.trim_ascii().eq_ignore_ascii_case(b"identity");
        Ok(Told {
            hashed: linked.is_some() && etag.as_ref().is_some_and(|etag| etag.len() == 64 && is_hex(etag)),
            commit,
            etag,
            size: linked_size.or(total),
            length,
            from: range.map(|range| range.0),
            location: location.transpose().map_err(|_| wrong("no text as `location`"))?,
            compressed: one("content-encoding")?.is_some_and(|value| !plain(value)),
        })
    }
}

fn wrong(what: &str) -> Error {
    Error::new(format!("the server says {what}"))
        .hint("this is not a hub's answer: check HF_ENDPOINT, and whether a proxy or a login page answers instead")
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether `text` is the full name of a commit.
pub(crate) fn is_commit(text: &str) -> bool {
    (40..=64).contains(&text.len()) && is_hex(text)
}

fn commit(value: &[u8]) -> Result<String> {
    let text = std::str::from_utf8(value).ok().map(str::trim).filter(|text| is_commit(text));
    text.map(str::to_string).ok_or_else(|| wrong("a commit that is none"))
}

fn etag(value: &[u8]) -> Result<String> {
    let text = std::str::from_utf8(value).unwrap_or("").trim();
    let text = text.strip_prefix("W/").unwrap_or(text);
    let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    match (1..=NAME).contains(&text.len()) && text.bytes().all(known) {
        true => Ok(text.to_string()),
        false => Err(wrong("a name of the content (`etag`) that cannot be the name of a file")),
    }
}

fn digits(value: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(value).ok()?.trim();
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// The first byte and the total size of `bytes 0-99/1000`; the size may be unknown: `*`.
fn range(value: &[u8]) -> Option<(u64, Option<u64>)> {
    let text = std::str::from_utf8(value).ok()?.trim().strip_prefix("bytes")?.trim_start();
    let (part, total) = text.split_once('/')?;
    let total = if total == "*" { None } else { Some(digits(total.as_bytes())?) };
    if part == "*" {
        return Some((0, total));
    }
    let (from, to) = part.split_once('-')?;
    let (from, to) = (digits(from.as_bytes())?, digits(to.as_bytes())?);
    (from <= to && total.is_none_or(|total| to < total)).then_some((from, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: (&str, &[u8]) = ("x-repo-commit", b"0123456789abcdef0123456789abcdef01234567");

    #[test]
    fn an_answer_is_read() {
        let hash = "ab".repeat(32);
        let told = Told::of(&[
            COMMIT,
            ("x-linked-etag", format!("\"{hash}\"").as_bytes()),
            ("x-linked-size", b"12"),
            ("etag", b"\"../elsewhere\""),
            ("location", b"/api/x"),
        ])
        .unwrap();
        assert_eq!((told.etag, told.hashed, told.size, told.location), (Some(hash), true, Some(12), Some("/api/x".to_string())));
        let told =
            Told::of(&[COMMIT, ("etag", b"W/\"12-ab\""), ("content-range", b"bytes 3-9/10"), ("content-length", b"7")]).unwrap();
        assert_eq!(
            (told.etag.as_deref(), told.hashed, told.size, told.from, told.length),
            (Some("12-ab"), false, Some(10), Some(3), Some(7))
        );
        // The origin of the bytes has a name of its own.
        assert_eq!(Told::of(&[("etag", b"\"a/b\"")]).unwrap(), Told::default());
        assert!(Told::of(&[("content-encoding", b"br")]).unwrap().compressed);
    }

    #[test]
    fn what_could_lead_elsewhere_is_refused() {
        for etag in
            ["../../x", "..", ".", "/etc/passwd", "a/b", "a\\b", "", "\"\"", "C:x", "a.part", "a b", "\u{fc}", &"a".repeat(129)]
        {
            let error = Told::of(&[COMMIT, ("etag", etag.as_bytes())]).unwrap_err().to_string();
            assert!(error.contains("cannot be the name of a file") && error.contains("hint: "), "{etag}: {error}");
        }
        for commit in ["../../x", "main", "", "0123", "/tmp/x", &"a".repeat(65), &"g".repeat(40)] {
            let error = Told::of(&[("x-repo-commit", commit.as_bytes()), ("etag", b"a")]).unwrap_err().to_string();
            assert!(error.contains("a commit that is none"), "{commit}: {error}");
        }
        for (name, value) in [
            ("content-length", "-1"),
            ("content-length", "1e9"),
            ("x-linked-size", "99999999999999999999"),
            ("content-range", "bytes 5-4/10"),
            ("content-range", "bytes 0-10/10"),
            ("content-range", "lines 0-1/10"),
        ] {
            let error = Told::of(&[(name, value.as_bytes())]).unwrap_err().to_string();
            assert!(error.contains(name), "{name}: {value}: {error}");
        }
        let twice = Told::of(&[COMMIT, ("x-repo-commit", b"1123456789abcdef0123456789abcdef01234567")]).unwrap_err();
        assert!(twice.to_string().contains("twice"), "{twice}");
        let sizes = Told::of(&[("x-linked-size", b"12"), ("content-range", b"bytes 0-1/13")]).unwrap_err();
        assert!(sizes.to_string().contains("two sizes"), "{sizes}");
    }
}
