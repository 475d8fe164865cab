//! Checks that the numbers of stored tensors are finite: NaN or infinity in a checkpoint means that the run has diverged.

use std::fs::File;
use std::path::Path;

use safetensors::Dtype;

use crate::error::Result;
use crate::store::files;
use crate::store::safetensors_header::Header;

/// Bytes that are checked at once; a multiple of every number's size.
const PIECE: usize = 1 << 20;

/// Whether all numbers of type `dtype` in `bytes`, little-endian, are finite. Integers are.
pub(super) fn finite(dtype: Dtype, bytes: &[u8]) -> bool {
    // A number is not finite if all bits of its exponent, the upper bits after the sign, are set.
    match dtype {
        Dtype::F64 => bytes.chunks_exact(8).all(|b| b[7] & 0x7f != 0x7f || b[6] & 0xf0 != 0xf0),
        Dtype::F32 => bytes.chunks_exact(4).all(|b| b[3] & 0x7f != 0x7f || b[2] & 0x80 == 0),
        Dtype::BF16 => bytes.chunks_exact(2).all(|b| b[1] & 0x7f != 0x7f || b[0] & 0x80 == 0),
        Dtype::F16 => bytes.chunks_exact(2).all(|b| b[1] & 0x7c != 0x7c),
        _ => true,
    }
}

/// The name of the first tensor in the safetensors file at `path` that holds a number that is not finite.
///
/// # Errors
/// The file cannot be read, or is not a safetensors file.
pub(super) fn first_bad(path: &Path) -> Result<Option<String>> {
    let file = File::open(path)?;
    let Header { tensors, start } = Header::read(&file)?;
    let mut tensors: Vec<_> = tensors.tensors().into_iter().collect();
    tensors.sort_by_key(|(_, info)| info.data_offsets.0);
    let mut bytes = Vec::new();
    for (name, info) in tensors {
        let (mut at, end) = (start + info.data_offsets.0 as u64, start + info.data_offsets.1 as u64);
        while at < end {
            bytes.resize(PIECE.min((end - at) as usize), 0);
            files::read_at(&file, &mut bytes, at)?;
            if !finite(info.dtype, &bytes) {
                return Ok(Some(name));
            }
            at += bytes.len() as u64;
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_agrees_with_the_numbers_themselves() {
        let odd = [0u64, 1, 0x3ff0 << 48, 0x7fef << 48 | 0xffff, 0x7ff0 << 48, 0xfff0 << 48, 0x7ff8 << 48, 0x7ff0 << 48 | 1];
        for bits in odd {
            assert_eq!(finite(Dtype::F64, &bits.to_le_bytes()), f64::from_bits(bits).is_finite(), "{bits:x}");
        }
        for upper in 0..=u16::MAX {
            let bits = u32::from(upper) << 16;
            assert_eq!(finite(Dtype::F32, &bits.to_le_bytes()), f32::from_bits(bits).is_finite(), "{bits:x}");
            assert_eq!(finite(Dtype::BF16, &upper.to_le_bytes()), f32::from_bits(bits).is_finite(), "{upper:x}");
            assert_eq!(finite(Dtype::F16, &upper.to_le_bytes()), upper & 0x7c00 != 0x7c00, "{upper:x}");
        }
        assert!(finite(Dtype::I64, &[0xff; 8]) && finite(Dtype::F32, &[]));
    }
}
