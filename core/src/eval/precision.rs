//! Rows as codes of fewer bits: int8 and uint8 by ranges of the columns, or one bit a value (as sentence-transformers' `quantize_embeddings`).
//!
//! - int8, uint8: column c has a range, its least and its largest value, in 255 steps of equal size; the code of v is ⌊(v − least) / step⌋,
//!   held within 0 to 255, and 128 less for int8. A column of one value has steps of 1.
//! - binary, ubinary: a bit says whether a value is above 0. Eight bits are a byte, the first value in the highest bit, as numpy's `packbits`
//!   has them; binary bytes are 128 less. Bits that are missing at a row's end are 0.
//!
//! Values are computed in f32, as numpy does, so that the codes are the same.

use super::Features;
use crate::error::{Error, Result};

/// How exactly the values of rows are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// As they are, four bytes a value.
    Float32,
    /// One byte a value, −128 to 127.
    Int8,
    /// One byte a value, 0 to 255.
    Uint8,
    /// One bit a value, in bytes of −128 to 127.
    Binary,
    /// One bit a value, in bytes of 0 to 255.
    Ubinary,
}

/// Steps of a range.
const STEPS: f32 = 255.0;

/// Rows that ranges are usually taken from at least.
const FEW: usize = 100;

/// The range of each column.
#[derive(Clone, Debug, PartialEq)]
pub struct Ranges {
    least: Vec<f32>,
    largest: Vec<f32>,
    /// Rows that they are taken from.
    rows: usize,
}

impl Ranges {
    /// The ranges of the columns of `features`.
    ///
    /// # Errors
    /// No row, or a value that is not finite.
    pub fn of(features: &Features) -> Result<Ranges> {
        features.finite()?;
        if features.is_empty() {
            return Err(Error::new("there is no row to take the columns' ranges from"));
        }
        let (mut least, mut largest) = (features.row(0).to_vec(), features.row(0).to_vec());
        for row in features.rows.chunks_exact(features.width) {
            least.iter_mut().zip(row).for_each(|(least, value)| *least = least.min(*value));
            largest.iter_mut().zip(row).for_each(|(largest, value)| *largest = largest.max(*value));
        }
        Ok(Ranges { least, largest, rows: features.len() })
    }

    /// A sentence if they are taken from so few rows that other rows have many values outside.
    pub fn doubt(&self) -> Option<String> {
        (self.rows < FEW).then(|| {
            format!(
                "the ranges of the codes are those of {} rows only; {FEW} or more (--calibration) are more reliable",
                self.rows
            )
        })
    }

    /// The least values of all columns, and then the largest ones.
    pub(super) fn values(&self) -> Vec<f32> {
        [&self.least[..], &self.largest].concat()
    }

    fn step(&self, column: usize) -> f32 {
        let step = (self.largest[column] - self.least[column]) / STEPS;
        if step == 0.0 { 1.0 } else { step }
    }
}

/// Rows as codes.
#[derive(Clone, Debug, PartialEq)]
pub struct Codes {
    /// Their precision, which is not [`Precision::Float32`].
    pub precision: Precision,
    /// The bytes of all rows; signed ones in two's complement.
    pub bytes: Vec<u8>,
    /// Bytes of a row.
    pub width: usize,
    /// Values of a row.
    pub values: usize,
    /// The ranges, of int8 and uint8.
    pub ranges: Option<Ranges>,
    /// Values that were outside of their column's range, and got the nearest code.
    pub outside: usize,
}

impl Precision {
    /// Whether codes depend on the ranges of the columns.
    pub fn has_ranges(self) -> bool {
        matches!(self, Precision::Int8 | Precision::Uint8)
    }

    /// The codes of `features`. `ranges` are those of the columns, for precisions that have them; default: those of `features` itself.
    ///
    /// # Errors
    /// A value that is not finite; ranges of another number of columns; [`Precision::Float32`], which has no codes.
    pub fn codes(self, features: &Features, ranges: Option<&Ranges>) -> Result<Codes> {
        features.finite()?;
        let width = features.width;
        let mut codes = Codes { precision: self, bytes: Vec::new(), width, values: width, ranges: None, outside: 0 };
        match self {
            Precision::Float32 => return Err(Error::new("values in f32 are no codes")),
            Precision::Binary | Precision::Ubinary => {
                codes.width = width.div_ceil(8);
                let flip = if self == Precision::Binary { 128 } else { 0 };
                for row in features.rows.chunks_exact(width.max(1)) {
                    let byte = |eight: &[f32]| {
                        eight.iter().enumerate().fold(0u8, |byte, (at, value)| byte | u8::from(*value > 0.0) << (7 - at))
                    };
                    codes.bytes.extend(row.chunks(8).map(|eight| byte(eight) ^ flip));
                }
            }
            Precision::Int8 | Precision::Uint8 => {
                let ranges = ranges.map_or_else(|| Ranges::of(features), |ranges| Ok(ranges.clone()))?;
                if ranges.least.len() != width {
                    let what = format!("ranges of {} columns do not fit rows of {width} values", ranges.least.len());
                    return Err(Error::new(what).hint("is the calibration embedded by the same model?"));
                }
                let flip = if self == Precision::Int8 { 128 } else { 0 };
                let steps: Vec<f32> = (0..width).map(|column| ranges.step(column)).collect();
                codes.bytes.reserve(features.rows.len());
                for row in features.rows.chunks_exact(width.max(1)) {
                    for (column, value) in row.iter().enumerate() {
                        codes.outside += usize::from(*value < ranges.least[column] || *value > ranges.largest[column]);
                        let step = ((value - ranges.least[column]) / steps[column]).floor().clamp(0.0, STEPS);
                        codes.bytes.push(step as u8 ^ flip);
                    }
                }
                codes.ranges = Some(ranges);
            }
        }
        Ok(codes)
    }
}

impl Codes {
    /// The values that the codes stand for: the middle of a step, or 1 and −1 for a bit. The cosine of rows of bits falls with their Hamming
    /// distance.
    fn decoded(&self) -> Vec<f32> {
        let rows = self.bytes.chunks_exact(self.width.max(1));
        match &self.ranges {
            Some(ranges) => {
                let flip = if self.precision == Precision::Int8 { 128 } else { 0 };
                let steps: Vec<f32> = (0..self.values).map(|column| ranges.step(column)).collect();
                let value = |(column, byte): (usize, &u8)| {
                    // A column of one value has one code, which stands for it exactly.
                    let flat = ranges.least[column] == ranges.largest[column];
                    let middle = if flat { 0.0 } else { 0.5 };
                    ranges.least[column] + (f32::from(byte ^ flip) + middle) * steps[column]
                };
                rows.flat_map(|row| row.iter().enumerate().map(value).collect::<Vec<f32>>()).collect()
            }
            None => {
                let flip = if self.precision == Precision::Binary { 128 } else { 0 };
                let bit = |row: &[u8], at: usize| if (row[at / 8] ^ flip) >> (7 - at % 8) & 1 == 1 { 1.0 } else { -1.0 };
                rows.flat_map(|row| (0..self.values).map(|at| bit(row, at)).collect::<Vec<f32>>()).collect()
            }
        }
    }
}

impl Features {
    /// The rows cut to their first `values`, not scaled again.
    ///
    /// # Errors
    /// None are left, or rows have fewer.
    pub fn cut(self, values: usize) -> Result<Features> {
        let kept = self.kept(Some(values))?;
        if kept == self.width {
            return Ok(self);
        }
        let rows = self.rows.chunks_exact(self.width).flat_map(|row| &row[..kept]).copied().collect();
        Ok(Features { rows, width: kept, ..self })
    }

    /// The rows as they are left after they were codes of this precision; see [`Precision::codes`].
    ///
    /// # Errors
    /// As for [`Precision::codes`].
    pub fn rounded(self, precision: Precision, ranges: Option<&Ranges>) -> Result<Features> {
        if precision == Precision::Float32 {
            return Ok(self);
        }
        let codes = precision.codes(&self, ranges)?;
        Ok(Features { rows: codes.decoded(), ..self })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn features(rows: Vec<f32>, width: usize) -> Features {
        let names = (0..rows.len() / width).map(|i| i.to_string()).collect();
        Features { rows, width, names, ..Features::default() }
    }

    #[test]
    fn codes_of_ranges_are_those_computed_by_hand() {
        // Ranges 0 to 255, −51 to 459, and 7 alone: steps of 1, 2 and 1.
        let some = features(vec![0.0, -51.0, 7.0, 255.0, 459.0, 7.0, 100.9, 100.0, 7.0], 3);
        let codes = Precision::Uint8.codes(&some, None).unwrap();
        assert_eq!((codes.bytes.as_slice(), codes.width, codes.outside), (&[0, 0, 0, 255, 255, 0, 100, 75, 0][..], 3, 0));
        let signed = Precision::Int8.codes(&some, None).unwrap();
        assert_eq!(signed.bytes.iter().map(|b| *b as i8).collect::<Vec<_>>(), [-128, -128, -128, 127, 127, -128, -28, -53, -128]);
        // Other rows with these ranges: what is outside gets the last code.
        let ranges = Ranges::of(&some).unwrap();
        let other = features(vec![-3.0, 332.0, 8.0, 300.0, 500.0, 6.0], 3);
        let codes = Precision::Uint8.codes(&other, Some(&ranges)).unwrap();
        assert_eq!((codes.bytes.as_slice(), codes.outside), (&[0, 191, 1, 255, 255, 0][..], 5));
        assert!(ranges.doubt().unwrap().contains("3 rows"));
        assert_eq!(ranges.values(), [0.0, -51.0, 7.0, 255.0, 459.0, 7.0]);
        let back = some.clone().rounded(Precision::Int8, None).unwrap().rows;
        assert_eq!((back[0], back[2], back[6]), (0.5, 7.0, 100.5));
        back.iter().zip(&some.rows).for_each(|(a, b)| assert!((a - b).abs() <= 1.01, "{a} {b}"));
        let error = Precision::Int8.codes(&features(vec![1.0; 2], 2), Some(&ranges)).unwrap_err();
        assert!(error.to_string().contains("3 columns"), "{error}");
        assert!(Precision::Int8.codes(&features(vec![f32::NAN], 1), None).is_err());
    }

    #[test]
    fn bits_are_packed_as_numpy_does() {
        let row = vec![0.1, -0.1, 0.0, 2.0, -1.0, 1.0, 1.0, -3.0, 5.0, -0.0];
        let some = features([row.clone(), row.iter().map(|v| -v).collect()].concat(), 10);
        let codes = Precision::Ubinary.codes(&some, None).unwrap();
        assert_eq!((codes.bytes.as_slice(), codes.width), (&[0b1001_0110, 0b1000_0000, 0b0100_1001, 0][..], 2));
        let signed = Precision::Binary.codes(&some, None).unwrap();
        assert_eq!(signed.bytes.iter().map(|b| *b as i8).collect::<Vec<_>>(), [22, 0, -55, -128]);
        for precision in [Precision::Binary, Precision::Ubinary] {
            let back = some.clone().rounded(precision, None).unwrap();
            assert_eq!((back.width, &back.rows[..10]), (10, &[1.0, -1.0, -1.0, 1.0, -1.0, 1.0, 1.0, -1.0, 1.0, -1.0][..]));
        }
    }

    #[test]
    fn rows_are_cut_to_their_first_values() {
        let some = features((0..6).map(|v| v as f32).collect(), 3);
        assert_eq!(some.clone().cut(2).unwrap().rows, [0.0, 1.0, 3.0, 4.0]);
        assert_eq!(some.clone().cut(3).unwrap().rows, some.rows);
        assert_eq!(some.cut(4).unwrap_err().exit_code(), 2);
    }
}
