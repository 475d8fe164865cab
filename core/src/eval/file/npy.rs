//! The header of a `.npy` file: written, and checked against the file's length, because candle allocates the claimed size before it reads.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use crate::error::{Error, Result};

/// Claims up to this many bytes are always allowed: an array without rows has a width, too.
const FREE: u64 = 1 << 20;

/// Writes the header of a file with an array of this shape, whose values have numpy's type `kind`.
///
/// # Errors
/// The file cannot be written.
pub(super) fn header(out: &mut impl Write, kind: &str, [rows, width]: [usize; 2]) -> Result<()> {
    let mut header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({rows}, {width}), }}");
    // Magic, version and length take 10 bytes; the header ends in a newline at a multiple of 64 bytes.
    let padding = 63 - (10 + header.len()) % 64;
    header.extend(std::iter::repeat_n(' ', padding).chain(['\n']));
    out.write_all(b"\x93NUMPY\x01\x00")?;
    out.write_all(&(header.len() as u16).to_le_bytes())?;
    Ok(out.write_all(header.as_bytes())?)
}

/// The ends of numpy's types of one byte, with the quote behind.
const KINDS: [&[u8; 4]; 2] = [b"|i1'", b"|u1'"];

/// Refuses a file that claims more than it holds. Returns whether its values are whole numbers of one byte.
///
/// # Errors
/// Not a `.npy` file, or one that is cut short.
pub(super) fn check(path: &Path) -> Result<bool> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let short = || Error::new("this .npy file is cut short, or damaged").hint("write it again");
    // Magic and version, then the header's length in two or four bytes.
    let mut head = [0; 8];
    file.read_exact(&mut head).map_err(|_| short())?;
    if !head.starts_with(b"\x93NUMPY") {
        return Err(Error::new("this is not an .npy file").hint("`ctk embed RUN --out FILE.npy` writes one"));
    }
    let mut size = [0; 4];
    let digits = if head[6] == 1 { 2 } else { 4 };
    file.read_exact(&mut size[..digits]).map_err(|_| short())?;
    let (start, size) = (8 + digits as u64, u64::from(u32::from_le_bytes(size)));
    let left = length.checked_sub(start + size).ok_or_else(short)?;
    let mut header = vec![0; size as usize];
    file.read_exact(&mut header)?;
    // All numbers in the header multiplied, whatever they mean; the size of a value (`<f4`) and the shape are among them.
    let mut claimed: Option<u64> = Some(1);
    for digits in header.split(|byte| !byte.is_ascii_digit()).filter(|digits| !digits.is_empty()) {
        let number: Option<u64> = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
        claimed = claimed.zip(number).and_then(|(all, number)| all.checked_mul(number.max(1)));
    }
    match claimed {
        Some(claimed) if claimed <= left.max(FREE) => Ok(KINDS.iter().any(|kind| header.windows(4).any(|four| four == *kind))),
        _ => Err(short()),
    }
}

#[cfg(test)]
mod tests {
    use crate::eval::Features;

    fn npy(header: &str, version: u8, body: &[u8]) -> Vec<u8> {
        let length = header.len() as u32;
        let size = if version == 1 { length.to_le_bytes()[..2].to_vec() } else { length.to_le_bytes().to_vec() };
        [b"\x93NUMPY", &[version, 0][..], &size, header.as_bytes(), body].concat()
    }

    #[test]
    fn a_header_that_claims_more_than_there_is_makes_no_memory_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.npy");
        let load = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            Features::load(&path)
        };
        let whole = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2), }\n";
        assert_eq!(load(&npy(whole, 1, &[0; 16])).unwrap().rows, [0.0; 4]);
        assert_eq!(load(&npy(whole, 2, &[0; 16])).unwrap().width, 2);
        assert_eq!(load(&npy(&whole.replace("(2, 2)", "(0, 2)"), 1, &[])).unwrap().width, 2);
        for shape in [
            "(4611686018427387904, 4)",
            "(4294967296, 4294967296)",
            "(99999999999, 2)",
            "99999999999",
            "'(99999999999, 2)'",
            "(1, 2), 'x': 0, 'shape': (99999999999, 2)",
            "(99999999999999999999999, 2)",
        ] {
            let error = load(&npy(&whole.replace("(2, 2)", shape), 1, &[0; 16])).unwrap_err().to_string();
            assert!(error.contains("cut short") && error.contains("x.npy"), "{shape}: {error}");
        }
        let mut long = npy(whole, 2, &[0; 16]);
        long[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(load(&long).unwrap_err().to_string().contains("cut short"));
        assert!(load(b"\x93NUMP").unwrap_err().to_string().contains("cut short"));
        assert!(load(b"nothing of numpy's").unwrap_err().to_string().contains("not an .npy file"));
    }
}
