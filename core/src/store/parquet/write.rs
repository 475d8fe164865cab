//! Writes tables as Parquet.

use std::io::Write;
use std::sync::Arc;

use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, FloatType};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::ColumnPath;

use crate::error::{Error, Result};

/// Values in a group of rows, which is in memory while it is written.
const GROUP: usize = 1 << 22;

/// The cells of a column.
pub enum Cells<'a> {
    /// Texts; none for an empty cell.
    Texts(Vec<Option<&'a str>>),
    /// Numbers.
    Numbers(Vec<f32>),
    /// A list of so many numbers in each row.
    Rows(&'a [f32], usize),
}

impl Cells<'_> {
    fn len(&self) -> usize {
        match self {
            Cells::Texts(texts) => texts.len(),
            Cells::Numbers(numbers) => numbers.len(),
            Cells::Rows(values, width) => values.len() / (*width).max(1),
        }
    }

    fn width(&self) -> usize {
        if let Cells::Rows(_, width) = self { (*width).max(1) } else { 1 }
    }

    fn field(&self, name: &str) -> String {
        match self {
            Cells::Texts(_) => format!("OPTIONAL BYTE_ARRAY {name} (STRING);"),
            Cells::Numbers(_) => format!("REQUIRED FLOAT {name};"),
            Cells::Rows(..) => format!("REQUIRED GROUP {name} (LIST) {{ REPEATED GROUP list {{ REQUIRED FLOAT element; }} }}"),
        }
    }
}

/// Writes a table of `columns`, all of one length, with their names, which must be plain words. Compressed by Snappy, which every reader
/// supports.
///
/// # Errors
/// Columns of different lengths, or output that cannot be written.
pub fn write(out: impl Write + Send, columns: &[(impl AsRef<str>, Cells)]) -> Result<()> {
    let rows = columns.first().map_or(0, |(_, cells)| cells.len());
    if let Some((name, cells)) = columns.iter().find(|(_, cells)| cells.len() != rows) {
        return Err(Error::new(format!("the column `{}` has {} rows of {rows}", name.as_ref(), cells.len())));
    }
    let fields: Vec<String> = columns.iter().map(|(name, cells)| cells.field(name.as_ref())).collect();
    let schema = parse_message_type(&format!("message schema {{ {} }}", fields.join(" ")))?;
    let mut properties = WriterProperties::builder().set_compression(Compression::SNAPPY);
    for (name, cells) in columns {
        if let Cells::Rows(..) = cells {
            let path = ColumnPath::new([name.as_ref(), "list", "element"].map(String::from).to_vec());
            // Hardly two numbers are equal, and no reader looks for the largest; dictionaries and statistics would be useless.
            properties = properties
                .set_column_dictionary_enabled(path.clone(), false)
                .set_column_statistics_enabled(path, EnabledStatistics::None);
        }
    }
    let mut file = SerializedFileWriter::new(out, Arc::new(schema), Arc::new(properties.build()))?;
    let block = (GROUP / columns.iter().map(|(_, cells)| cells.width()).sum::<usize>().max(1)).max(1);
    for from in (0..rows).step_by(block) {
        let to = (from + block).min(rows);
        let mut group = file.next_row_group()?;
        for (_, cells) in columns {
            let Some(mut column) = group.next_column()? else { break };
            match cells {
                Cells::Texts(texts) => {
                    let there: Vec<i16> = texts[from..to].iter().map(|text| i16::from(text.is_some())).collect();
                    let texts: Vec<ByteArray> = texts[from..to].iter().flatten().map(|text| ByteArray::from(*text)).collect();
                    column.typed::<ByteArrayType>().write_batch(&texts, Some(&there), None)?;
                }
                Cells::Numbers(numbers) => {
                    column.typed::<FloatType>().write_batch(&numbers[from..to], None, None)?;
                }
                Cells::Rows(values, width) => {
                    let values = &values[from * width..to * width];
                    let begins: Vec<i16> = (0..values.len()).map(|at| i16::from(at % width != 0)).collect();
                    column.typed::<FloatType>().write_batch(values, Some(&vec![1; values.len()]), Some(&begins))?;
                }
            }
            column.close()?;
        }
        group.close()?;
    }
    file.close()?;
    Ok(())
}
