//! Checks what the headers of a column's pages say of their size once unpacked, for which the parquet crate makes room before it unpacks
//! them.
//!
//! A header is a struct of Thrift's compact protocol; the fields 2 and 3 are the page's size unpacked and packed, and the first field of the
//! fields 5 and 8, headers of data pages, is the page's number of values.

use std::fs::File;

use parquet::basic::Compression;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::ColumnChunkMetaData;

use crate::store::files;

/// Bytes that are read at a header at first; one with long statistics has more.
const USUAL: u64 = 512;
/// The longest header that is looked at.
const LONGEST: u64 = 1 << 24;
/// Structs and lists inside of each other.
const DEEPEST: usize = 16;
/// Bytes that any page may have once unpacked, however few it has packed.
const SMALL: u64 = 1 << 16;

/// The protocol's types of a number of 32 bits, and of a struct.
const I32: u8 = 5;
const STRUCT: u8 = 12;

/// Checks the pages of `chunk`, a column's part of `file`, up to the one that has the last of its values.
pub(super) fn check(file: &File, chunk: &ColumnChunkMetaData) -> Result<()> {
    let (start, length) = chunk.byte_range();
    let (mut at, end, mut left) = (start, start.saturating_add(length), chunk.num_values());
    while at < end && left > 0 {
        let header = read(file, at)?;
        let (unpacked, packed) = (u64::from(header.unpacked), u64::from(header.packed));
        if unpacked > SMALL && unpacked > packed.saturating_mul(ratio(chunk.compression())) {
            return Err(ParquetError::General(format!(
                "a page of {packed} bytes is said to have {unpacked} once it is unpacked"
            )));
        }
        at = at.saturating_add(header.length as u64).saturating_add(packed);
        left -= i64::from(header.values);
    }
    Ok(())
}

/// How many bytes a byte can become, at most, by a codec's own format.
fn ratio(codec: Compression) -> u64 {
    match codec {
        Compression::UNCOMPRESSED => 1,
        // 64 bytes are copied by 3; deflate, 258 by 2 bits; a byte of LZ4 lengthens a copy by 255; a block of 128 KB by 4 bytes.
        Compression::SNAPPY => 32,
        Compression::GZIP(_) => 1040,
        Compression::LZ4 | Compression::LZ4_RAW => 256,
        _ => 1 << 16,
    }
}

/// What is wanted of a header.
#[derive(Debug, PartialEq)]
struct Header {
    length: usize,
    unpacked: u32,
    packed: u32,
    /// Values of a data page.
    values: u32,
}

/// The header at `at`.
fn read(file: &File, at: u64) -> Result<Header> {
    let room = file.metadata()?.len().saturating_sub(at).min(LONGEST);
    let mut size = USUAL;
    loop {
        let mut bytes = vec![0; size.min(room) as usize];
        files::read_at(file, &mut bytes, at)?;
        if let Some(header) = parse(&bytes) {
            return Ok(header);
        }
        if size >= room {
            return Err(ParquetError::General(format!("what stands at byte {at} is no header of a page")));
        }
        size *= 8;
    }
}

fn parse(bytes: &[u8]) -> Option<Header> {
    let mut from = Compact(bytes);
    let (mut unpacked, mut packed, mut values, mut field) = (None, None, 0, 0i64);
    while let Some(kind) = from.field(&mut field)? {
        match (field, kind) {
            (2, I32) => unpacked = Some(from.size()?),
            (3, I32) => packed = Some(from.size()?),
            (5 | 8, STRUCT) => {
                let mut field = 0;
                while let Some(kind) = from.field(&mut field)? {
                    match (field, kind) {
                        (1, I32) => values = from.size()?,
                        (1, _) => return None,
                        (_, kind) => from.skip(kind, 1)?,
                    }
                }
            }
            // The crate takes these fields for what they should be, whatever type they are said to have.
            (1..=8, kind) if kind != if field <= 4 { I32 } else { STRUCT } => return None,
            (_, kind) => from.skip(kind, 0)?,
        }
    }
    Some(Header { length: bytes.len() - from.0.len(), unpacked: unpacked?, packed: packed?, values })
}

/// What is left of values in the compact protocol.
struct Compact<'a>(&'a [u8]);

impl Compact<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn unsigned(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    /// A number that is not negative.
    fn size(&mut self) -> Option<u32> {
        u32::try_from(self.signed()?).ok()
    }

    fn signed(&mut self) -> Option<i64> {
        let value = self.unsigned()?;
        Some((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// The type of the next field, whose number becomes `field`; none inside at the end of a struct.
    fn field(&mut self, field: &mut i64) -> Option<Option<u8>> {
        let head = self.byte()?;
        if head == 0 {
            return Some(None);
        }
        *field = if head >> 4 == 0 { self.signed()? } else { *field + i64::from(head >> 4) };
        Some(Some(head & 0xf))
    }

    fn skip(&mut self, kind: u8, depth: usize) -> Option<()> {
        if depth > DEEPEST {
            return None;
        }
        match kind {
            // Of a field the type is the value; in a list values have a byte, which its reading skips.
            1 | 2 => {}
            3 => drop(self.byte()?),
            4..=6 => drop(self.unsigned()?),
            7 => self.0 = self.0.get(8..)?,
            8 => {
                let length = usize::try_from(self.unsigned()?).ok()?;
                self.0 = self.0.get(length..)?;
            }
            9 | 10 => {
                let head = self.byte()?;
                let count = if head >> 4 == 15 { self.unsigned()? } else { u64::from(head >> 4) };
                self.each(count, &[head & 0xf], depth)?;
            }
            11 => {
                let count = self.unsigned()?;
                let kinds = if count == 0 { 0 } else { self.byte()? };
                self.each(count, &[kinds >> 4, kinds & 0xf], depth)?;
            }
            STRUCT => {
                let mut field = 0;
                while let Some(kind) = self.field(&mut field)? {
                    self.skip(kind, depth + 1)?;
                }
            }
            _ => return None,
        }
        Some(())
    }

    /// Skips `count` values of a list, or of a map.
    fn each(&mut self, count: u64, kinds: &[u8], depth: usize) -> Option<()> {
        // Every value has a byte at least.
        if count > self.0.len() as u64 {
            return None;
        }
        for kind in (0..count).flat_map(|_| kinds) {
            match kind {
                1 | 2 => drop(self.byte()?),
                kind => self.skip(*kind, depth + 1)?,
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_found_and_what_is_between_them_is_skipped() {
        // Type 0, unpacked 100, packed 50, checksum; the header of a data page with four values: numbers, a binary, a list, a map, a double.
        let page =
            [0x15, 8, 0x15, 2, 0x18, 3, b'a', b'b', b'c', 0x19, 0x23, 1, 2, 0x1b, 1, 0x53, 4, 9, 0x17, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let mut bytes = vec![0x15, 0, 0x15, 200, 1, 0x15, 100, 0x15, 7, 0x1c];
        bytes.extend(page);
        bytes.push(0);
        let length = bytes.len();
        bytes.extend([9, 9, 9]);
        assert_eq!(parse(&bytes), Some(Header { length, unpacked: 100, packed: 50, values: 4 }));
        for cut in 0..length {
            assert_eq!(parse(&bytes[..cut]), None, "{cut}");
        }
        // Numbers of fields may be written out.
        assert_eq!(parse(&[0x05, 4, 10, 0x05, 6, 20, 0]), Some(Header { length: 7, unpacked: 5, packed: 10, values: 0 }));
        // A size of another type.
        assert_eq!(parse(&[0x26, 10, 0x15, 20, 0]), None);
        // A negative size, a list that is longer than what follows, structs without an end.
        assert_eq!(parse(&[0x25, 1, 0x15, 2, 0]), None);
        assert_eq!(parse(&[0x19, 0xf3, 0xff, 0xff, 3, 0]), None);
        assert_eq!(parse(&[0x1c; 100]), None);
    }
}
