//! Reads the columns of a Parquet file from the first row to the last. Errors do not name the file; the caller adds its path.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use parquet::basic::{Compression, ConvertedType, LogicalType, Type};
use parquet::column::reader::{get_column_reader, get_typed_column_reader};
use parquet::data_type::{BoolType, ByteArrayType, DataType, DoubleType, FloatType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::schema::types::ColumnDescriptor;

use super::headers;
use super::pages::{Bounded, Pages};
use crate::error::{Error, Result};
use crate::guard;
use crate::memory;
use crate::opened;

/// Rows that are read at once; rows with large cells keep their pages in memory.
const BLOCK: usize = 64;

/// Bytes of memory that a row takes at least once it is read as text.
const ROW: u64 = 24;

/// Runs what is the parquet crate's alone: a panic is an error.
fn guarded<R>(work: impl FnOnce() -> Result<R, ParquetError>) -> Result<R, ParquetError> {
    guard::guarded(work, ParquetError::General)
}

const DAMAGED: &str = "the file is damaged or cut short: fetch it again";

/// An open file.
pub struct Parquet {
    file: SerializedFileReader<Bounded>,
    /// The same file, to look at headers of pages.
    bytes: File,
    columns: Vec<Column>,
    rows: usize,
}

/// A column of values; the fields of a structure are columns of their own.
pub struct Column {
    /// Its name; of a field of a structure, preceded by the names of the structures.
    pub parts: Vec<String>,
    /// The type of its cells.
    pub kind: Kind,
    /// Whether a row holds a list of such cells.
    pub listed: bool,
}

/// The type of cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Text.
    Text,
    /// Bytes that are not declared as text.
    Bytes,
    /// Whole numbers, or booleans.
    Whole,
    /// Numbers with decimals.
    Real,
    /// Dates, decimals and others, which are not read.
    Other,
}

impl Kind {
    /// The type as messages name it.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Text => "text",
            Kind::Bytes => "bytes",
            Kind::Whole => "whole numbers",
            Kind::Real => "numbers",
            Kind::Other => "values of a kind that is not read",
        }
    }
}

impl Column {
    /// The column's name, with a dot before each field.
    pub fn name(&self) -> String {
        self.parts.join(".")
    }

    /// The content of the column as messages describe it.
    pub fn holds(&self) -> &'static str {
        if self.listed { "lists" } else { self.kind.word() }
    }

    fn of(column: &ColumnDescriptor) -> Column {
        let whole = |converted: ConvertedType| {
            use ConvertedType::*;
            matches!(converted, NONE | INT_8 | INT_16 | INT_32 | INT_64 | UINT_8 | UINT_16 | UINT_32 | UINT_64)
        };
        let text = matches!(column.converted_type(), ConvertedType::UTF8 | ConvertedType::ENUM | ConvertedType::JSON)
            || matches!(column.logical_type_ref(), Some(LogicalType::String));
        let kind = match column.physical_type() {
            Type::BYTE_ARRAY if text => Kind::Text,
            Type::BYTE_ARRAY if column.converted_type() == ConvertedType::NONE => Kind::Bytes,
            Type::BOOLEAN => Kind::Whole,
            Type::INT32 | Type::INT64 if whole(column.converted_type()) && !is_moment(column) => Kind::Whole,
            Type::FLOAT | Type::DOUBLE => Kind::Real,
            _ => Kind::Other,
        };
        Column { parts: column.path().parts().to_vec(), kind, listed: column.max_rep_level() > 0 }
    }
}

/// Whether its numbers are times or decimals, which some files declare only by the newer of two annotations.
fn is_moment(column: &ColumnDescriptor) -> bool {
    !matches!(column.logical_type_ref(), None | Some(LogicalType::Integer(_) | LogicalType::Unknown))
}

impl Parquet {
    /// Opens `path` and reads its metadata.
    ///
    /// # Errors
    /// Not a Parquet file, a damaged one or an encrypted one.
    pub fn open(path: &Path) -> Result<Parquet> {
        let mut file = opened::open(path)?;
        let mut head = [0; 24];
        let length = file.read(&mut head)?;
        match &head[..length] {
            [b'P', b'A', b'R', b'1', ..] => {}
            [b'P', b'A', b'R', b'E', ..] => {
                return Err(Error::usage("this Parquet file is encrypted").hint("write it again without encryption"));
            }
            head if head.starts_with(b"version https://git-lfs") => {
                return Err(Error::usage("this is a pointer to a file that Git LFS keeps, not the file")
                    .hint("fetch the file: git lfs pull, in the folder of the repository"));
            }
            _ => return Err(Error::usage("this is not a Parquet file").hint("Parquet files begin with the letters PAR1")),
        }
        let length = file.metadata()?.len();
        let bytes = file.try_clone()?;
        let file = guarded(|| SerializedFileReader::new(Bounded(file)))
            .map_err(|e| Error::new(format!("cannot read this Parquet file: {e}")).hint(DAMAGED))?;
        let metadata = file.metadata().file_metadata();
        let columns = metadata.schema_descr().columns().iter().map(|column| Column::of(column)).collect();
        let rows = usize::try_from(metadata.num_rows()).map_err(|_| Error::new("this Parquet file has no number of rows"))?;
        let promised = file.metadata().row_groups().iter().try_fold(0i64, |sum, group| sum.checked_add(group.num_rows()));
        if promised != Some(metadata.num_rows()) {
            let what = format!("this Parquet file is said to have {rows} rows, and its parts have another number");
            return Err(Error::new(what).hint(DAMAGED));
        }
        let chunks = file.metadata().row_groups().iter().flat_map(|group| group.columns());
        if let Some(outside) = chunks.into_iter().find(|chunk| !inside(chunk, length)) {
            let what = format!("the column `{}` is said to lie outside of this Parquet file", outside.column_path().string());
            return Err(Error::new(what).hint(DAMAGED));
        }
        // A row takes little space in a compressed file, and more once it is read.
        let what = format!("this Parquet file is said to have {rows} rows: a list of them");
        memory::require(&what, (rows as u64).saturating_mul(ROW), |_| DAMAGED.to_string())?;
        Ok(Parquet { columns, rows, file, bytes })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The columns in the file's order; other functions take their places in this list.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The file's own metadata entry `key`.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        let pairs = self.file.metadata().file_metadata().key_value_metadata()?;
        pairs.iter().find(|pair| pair.key == key)?.value.as_deref()
    }

    /// The cells of `column` as text, with numbers in decimals; none for empty cells and for NaN.
    ///
    /// # Errors
    /// A column of lists, of bytes that are not text, or of a type that is not read; a damaged file.
    pub fn texts(&self, column: usize) -> Result<Vec<Option<String>>> {
        let mut all = Vec::new();
        let of = self.single(column)?;
        let unsigned = {
            use ConvertedType::*;
            matches!(of.converted_type(), UINT_8 | UINT_16 | UINT_32 | UINT_64)
        };
        let mut push = |text: Option<String>| {
            all.push(text);
            Ok(())
        };
        match of.physical_type() {
            Type::BOOLEAN => self.each::<BoolType>(column, |cell| push(cell.map(bool::to_string)))?,
            Type::INT32 if unsigned => self.each::<Int32Type>(column, |cell| push(cell.map(|&n| (n as u32).to_string())))?,
            Type::INT64 if unsigned => self.each::<Int64Type>(column, |cell| push(cell.map(|&n| (n as u64).to_string())))?,
            Type::INT32 => self.each::<Int32Type>(column, |cell| push(cell.map(i32::to_string)))?,
            Type::INT64 => self.each::<Int64Type>(column, |cell| push(cell.map(i64::to_string)))?,
            Type::FLOAT => {
                self.each::<FloatType>(column, |cell| push(cell.filter(|n| !n.is_nan()).map(f32::to_string)))?;
            }
            Type::DOUBLE => {
                self.each::<DoubleType>(column, |cell| push(cell.filter(|n| !n.is_nan()).map(f64::to_string)))?;
            }
            _ => {
                let name = self.columns[column].name();
                self.bytes(column, |row, cell| {
                    let text = cell.map(|bytes| std::str::from_utf8(bytes).map(str::to_string)).transpose();
                    push(text.map_err(|_| Error::new(format!("row {row} of the column `{name}` is not text in UTF-8")))?)
                })?;
            }
        }
        Ok(all)
    }

    /// Calls `each` with every row's number, from 0 on, and its cell of `column`, none if it is empty.
    ///
    /// # Errors
    /// A column of another type; a damaged file; the errors of `each`.
    pub fn bytes(&self, column: usize, mut each: impl FnMut(usize, Option<&[u8]>) -> Result<()>) -> Result<()> {
        self.single(column)?;
        let mut row = 0;
        self.each::<ByteArrayType>(column, |cell| {
            row += 1;
            each(row - 1, cell.map(parquet::data_type::ByteArray::data))
        })
    }

    /// Calls `each` with every row's number, from 0 on, and the texts of its list in `column`, without empty ones. Lists in lists are one list.
    ///
    /// # Errors
    /// A column of another type; text that is not UTF-8; a damaged file; the errors of `each`.
    pub fn text_lists(&self, column: usize, mut each: impl FnMut(usize, &[&str]) -> Result<()>) -> Result<()> {
        let of = &self.columns[column];
        if !of.listed || of.kind != Kind::Text {
            return Err(Error::usage(format!("the column `{}` holds {}, expected lists of text", of.name(), of.holds())));
        }
        let full = self.descriptor(column).max_def_level();
        let mut rows = 0;
        self.blocks::<ByteArrayType>(column, |levels, repeated, values| {
            let (mut values, mut texts) = (values.iter().peekable(), Vec::new());
            for (at, (level, repeat)) in levels.iter().zip(repeated).enumerate() {
                if *repeat == 0 && at > 0 {
                    each(rows, &texts)?;
                    texts.clear();
                    rows += 1;
                }
                if let Some(value) = values.next_if(|_| *level == full) {
                    let text = std::str::from_utf8(value.data());
                    let wrong = |_| Error::new(format!("row {rows} of the column `{}` is not text in UTF-8", of.name()));
                    texts.push(text.map_err(wrong)?);
                }
            }
            if !levels.is_empty() {
                each(rows, &texts)?;
                rows += 1;
            }
            Ok(())
        })?;
        self.counted(column, rows)
    }

    /// The numbers of `column`, row after row, and how many each row has: one, or the length of its list.
    ///
    /// # Errors
    /// A column of another type; lists of different lengths, or empty cells; a damaged file.
    pub fn numbers(&self, column: usize) -> Result<(Vec<f32>, usize)> {
        let of = &self.columns[column];
        match self.descriptor(column).physical_type() {
            Type::FLOAT => self.lists::<FloatType>(column, |n| *n),
            Type::DOUBLE => self.lists::<DoubleType>(column, |n| *n as f32),
            _ => Err(Error::new(format!("the column `{}` holds {}, expected numbers with decimals", of.name(), of.kind.word()))),
        }
    }

    fn descriptor(&self, column: usize) -> &ColumnDescriptor {
        self.file.metadata().file_metadata().schema_descr().columns()[column].as_ref()
    }

    /// The column, if each row has one readable cell of it.
    fn single(&self, column: usize) -> Result<&ColumnDescriptor> {
        let of = &self.columns[column];
        if of.listed || of.kind == Kind::Other {
            let error = Error::usage(format!("the column `{}` holds {}", of.name(), of.holds()));
            return Err(error.hint("a cell is text, a number or the bytes of one image"));
        }
        Ok(self.descriptor(column))
    }

    /// An error of a page as an error of the column.
    fn damaged(&self, column: usize, e: ParquetError) -> Error {
        let what = format!("cannot read the column `{}`: {e}", self.columns[column].name());
        Error::new(what).hint(format!("{DAMAGED}; or this column is encrypted: write it again without encryption"))
    }

    fn each<T: DataType>(&self, column: usize, mut each: impl FnMut(Option<&T::T>) -> Result<()>) -> Result<()> {
        let full = self.descriptor(column).max_def_level();
        let mut rows = 0;
        self.blocks::<T>(column, |levels, _, values| {
            rows += if full == 0 { values.len() } else { levels.len() };
            let mut values = values.iter();
            match full {
                0 => values.try_for_each(|value| each(Some(value))),
                _ => levels.iter().try_for_each(|level| each(if *level == full { values.next() } else { None })),
            }
        })?;
        self.counted(column, rows)
    }

    /// Refuses a column that had another number of rows than the file.
    fn counted(&self, column: usize, rows: usize) -> Result<()> {
        if rows != self.rows {
            let error = Error::new(format!("the column `{}` has {rows} rows of {}", self.columns[column].name(), self.rows));
            return Err(error.hint(DAMAGED));
        }
        Ok(())
    }

    fn lists<T: DataType>(&self, column: usize, number: impl Fn(&T::T) -> f32) -> Result<(Vec<f32>, usize)> {
        let full = self.descriptor(column).max_def_level();
        let mut numbers = Vec::new();
        // The first value of each row.
        let mut starts: Vec<usize> = Vec::new();
        let mut empty = None;
        self.blocks::<T>(column, |levels, repeated, values| {
            for at in 0..levels.len().max(values.len()) {
                if repeated.get(at).is_none_or(|level| *level == 0) {
                    starts.push(numbers.len() + at);
                }
                if levels.get(at).is_some_and(|level| *level != full) {
                    empty = empty.or(Some(starts.len().saturating_sub(1)));
                }
            }
            numbers.extend(values.iter().map(&number));
            Ok(())
        })?;
        let name = || self.columns[column].name();
        if let Some(row) = empty {
            return Err(Error::new(format!("row {row} of the column `{}` has an empty cell", name())));
        }
        let width = numbers.len() / starts.len().max(1);
        let even = starts.iter().enumerate().all(|(row, start)| *start == row * width);
        if !even || starts.len() != self.rows || numbers.len() != self.rows * width {
            return Err(Error::new(format!("the lists of the column `{}` differ in length", name()))
                .hint("each row needs as many values as the first"));
        }
        Ok((numbers, width))
    }

    /// Calls `block` with the definition levels, the repetition levels and the values of a few rows at a time.
    fn blocks<T: DataType>(&self, column: usize, mut block: impl FnMut(&[i16], &[i16], &[T::T]) -> Result<()>) -> Result<()> {
        let wrong = |e: ParquetError| self.damaged(column, e);
        if self.descriptor(column).physical_type() != T::get_physical_type() {
            let of = &self.columns[column];
            return Err(Error::usage(format!("the column `{}` holds {}, expected bytes", of.name(), of.holds())));
        }
        let (mut levels, mut repeated, mut values) = (Vec::new(), Vec::new(), Vec::new());
        let descriptor = self.file.metadata().file_metadata().schema_descr().column(column);
        for group in 0..self.file.num_row_groups() {
            let group = guarded(|| self.file.get_row_group(group)).map_err(wrong)?;
            if let Some(codec) = unread(group.metadata().column(column).compression()) {
                return Err(Error::usage(format!("this Parquet file is compressed by {codec}, which ctk cannot read"))
                    .hint("write it again with Snappy or Zstandard: pandas.read_parquet(FILE).to_parquet(OUT)"));
            }
            let reader = guarded(|| {
                headers::check(&self.bytes, group.metadata().column(column))?;
                let pages = Pages::new(group.get_column_page_reader(column)?, &descriptor);
                Ok(get_typed_column_reader::<T>(get_column_reader(descriptor.clone(), Box::new(pages))))
            });
            let mut reader = reader.map_err(wrong)?;
            loop {
                levels.clear();
                repeated.clear();
                values.clear();
                let read = guarded(|| reader.read_records(BLOCK, Some(&mut levels), Some(&mut repeated), &mut values));
                if read.map_err(wrong)?.0 == 0 {
                    break;
                }
                block(&levels, &repeated, &values)?;
            }
        }
        Ok(())
    }
}

/// Whether the pages of a column lie in a file of so many bytes.
fn inside(chunk: &ColumnChunkMetaData, bytes: u64) -> bool {
    let start = chunk.dictionary_page_offset().unwrap_or_else(|| chunk.data_page_offset());
    let end = u64::try_from(start).ok().zip(u64::try_from(chunk.compressed_size()).ok());
    end.and_then(|(start, length)| start.checked_add(length)).is_some_and(|end| end <= bytes)
}

/// The name of a codec that is not read.
fn unread(codec: Compression) -> Option<&'static str> {
    match codec {
        Compression::LZO => Some("LZO"),
        Compression::BROTLI(_) => Some("Brotli"),
        _ => None,
    }
}
