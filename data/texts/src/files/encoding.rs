//! Decodes bytes to UTF-8, by the encoding that a recipe names. If it names none, text is UTF-8, or UTF-16 if a byte order mark or the zero
//! bytes of its ASCII letters show that.

use std::io::{Cursor, Read};

use ctk_core::{Error, Result};
use encoding_rs::{Decoder, DecoderResult, UTF_8, UTF_16BE, UTF_16LE};

use super::unpack::no_text;

/// Bytes that are read to recognise an encoding.
const HEAD: usize = 1 << 16;

/// Stands for bytes that are not characters: a byte that UTF-8 never contains, so that it is refused or replaced later.
const BAD: u8 = 0xff;

/// The encoding of a file, or automatic detection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Encoding(Option<&'static encoding_rs::Encoding>);

impl Encoding {
    /// `auto`, or a name that browsers know (WHATWG's Encoding Standard): `utf-8`, `utf-16le`, `windows-1252`, `iso-8859-2`, `koi8-r`,
    /// `shift_jis`, `gb18030`, `big5`, `euc-kr`, …
    ///
    /// # Errors
    /// Another name.
    pub fn named(name: &str) -> Result<Encoding> {
        if name == "auto" {
            return Ok(Encoding(None));
        }
        match encoding_rs::Encoding::for_label_no_replacement(name.as_bytes()) {
            Some(encoding) => Ok(Encoding(Some(encoding))),
            None => Err(Error::usage(format!("`{name}` is not an encoding that ctk knows")).hint(
                "data.encoding is \"auto\", or a name such as \"utf-8\", \"utf-16le\", \"windows-1252\", \"iso-8859-2\", \"koi8-r\", \
                 \"shift_jis\" or \"gb18030\"",
            )),
        }
    }
}

/// Text converted to UTF-8, and its encoding.
pub(super) struct Decoded {
    /// UTF-8, in which a byte 0xff stands for bytes that are not characters of the encoding.
    pub reader: Box<dyn Read + Send>,
    /// The encoding, if it is not UTF-8.
    pub encoding: Option<&'static str>,
    /// How it was recognised, if it was not named.
    pub seen: Option<&'static str>,
}

/// Reads `bytes` in the encoding `wanted`.
///
/// # Errors
/// With automatic detection, bytes that are not text.
pub(super) fn decoded(mut bytes: Box<dyn Read + Send>, wanted: Encoding) -> Result<Decoded> {
    let mut head = Vec::new();
    bytes.by_ref().take(HEAD as u64).read_to_end(&mut head)?;
    let (encoding, seen) = match wanted.0 {
        Some(encoding) => (encoding, None),
        None => look(&head)?,
    };
    let all = Box::new(Cursor::new(head).chain(bytes));
    if encoding == UTF_8 {
        return Ok(Decoded { reader: all, encoding: None, seen });
    }
    // A byte order mark is removed; one of another encoding takes precedence over the named one.
    let decoder = encoding.new_decoder();
    let (input, output) = (Vec::new(), Vec::new());
    let reader = Box::new(Decoding { from: all, decoder, input, at: 0, output, taken: 0, last: false, done: false });
    Ok(Decoded { reader, encoding: Some(encoding.name()), seen })
}

type Seen = (&'static encoding_rs::Encoding, Option<&'static str>);

/// Recognises the encoding by the first bytes of a text.
fn look(head: &[u8]) -> Result<Seen> {
    const MARK: Option<&str> = Some("its byte order mark");
    const UTF_32: &str = "this is UTF-32, which ctk does not read";
    let zero = head.contains(&0);
    match head {
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => {
            return Err(Error::new(UTF_32).hint("convert the file: iconv -f utf-32 -t utf-8"));
        }
        [0xff, 0xfe, ..] => return Ok((UTF_16LE, MARK)),
        [0xfe, 0xff, ..] => return Ok((UTF_16BE, MARK)),
        _ => {}
    }
    if let Some(kind) = no_text(head) {
        return Err(Error::new(format!("this is {kind}, not text"))
            .hint("text is read plain or packed by gzip, zstd, bzip2 or xz: unpack or convert the file first"));
    }
    if !zero {
        return Ok((UTF_8, None));
    }
    // In UTF-16 one byte of each character tells its script; it is below 0x20 for most alphabets, and zero for spaces. The other byte is so
    // only in tabs and line ends.
    let bytes = |first: usize| head.iter().skip(first).step_by(2).filter(|&&byte| byte < 0x20);
    let low = |first: usize| bytes(first).count();
    let few = |first: usize| bytes(first).filter(|byte| !byte.is_ascii_whitespace()).count();
    let pairs = (head.len() / 2).max(1);
    let shows = |script: usize| low(script) * 4 >= pairs && low(script) >= 3 * few(1 - script);
    const ZEROS: Option<&str> = Some("its zero bytes");
    if shows(1) {
        return Ok((UTF_16LE, ZEROS));
    }
    if shows(0) {
        return Ok((UTF_16BE, ZEROS));
    }
    let zeros = head.iter().filter(|&&byte| byte == 0).count();
    if head.len() >= 8 && zeros * 2 >= head.len() {
        return Err(Error::new(format!("{UTF_32}, or no text at all")).hint("convert the file: iconv -f utf-32le -t utf-8"));
    }
    let at = head.iter().position(|&byte| byte == 0).unwrap_or_default();
    Err(Error::new("there is a zero byte, which no text has")
        .at(format!("byte {at}"))
        .hint("is this a text? data.encoding = \"utf-8\" reads it all the same, \"utf-16le\" and \"utf-16be\" as what they name"))
}

/// Converts bytes of an encoding to UTF-8 as they are read.
struct Decoding<R> {
    from: R,
    decoder: Decoder,
    input: Vec<u8>,
    at: usize,
    output: Vec<u8>,
    taken: usize,
    // Whether `input` has the last bytes, and whether all of them are decoded.
    last: bool,
    done: bool,
}

impl<R: Read> Decoding<R> {
    /// Refills `output`, which was consumed; leaves it empty at the end.
    fn more(&mut self) -> std::io::Result<()> {
        self.output.clear();
        self.taken = 0;
        while self.output.is_empty() && !self.done {
            if self.at == self.input.len() && !self.last {
                self.input.clear();
                self.at = 0;
                self.last = self.from.by_ref().take(HEAD as u64).read_to_end(&mut self.input)? == 0;
            }
            self.output.resize(4 * HEAD, 0);
            let (result, read, written) =
                self.decoder.decode_to_utf8_without_replacement(&self.input[self.at..], &mut self.output, self.last);
            self.at += read;
            self.output.truncate(written);
            match result {
                DecoderResult::Malformed(..) => self.output.push(BAD),
                DecoderResult::InputEmpty => self.done = self.last,
                DecoderResult::OutputFull => {}
            }
        }
        Ok(())
    }
}

impl<R: Read> Read for Decoding<R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        if self.taken == self.output.len() {
            self.more()?;
        }
        let part = &self.output[self.taken..];
        let count = part.len().min(into.len());
        into[..count].copy_from_slice(&part[..count]);
        self.taken += count;
        Ok(count)
    }
}
