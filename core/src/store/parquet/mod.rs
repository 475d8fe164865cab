//! Parquet files as tables: reading their columns, and writing tables.
//!
//! A file is read column by column and page by page, so that only one page and what is made of it are in memory. Pages may be compressed by
//! Snappy, GZIP, Zstandard or LZ4; other codecs and encrypted files are refused by name.

mod headers;
mod pages;
mod read;
mod write;

pub use read::{Column, Kind, Parquet};
pub use write::{Cells, write};

use parquet::errors::ParquetError;

use crate::error::Error;

impl From<ParquetError> for Error {
    fn from(e: ParquetError) -> Self {
        Error::new(e)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::files;

    #[test]
    fn a_table_comes_back_with_every_cell() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.parquet");
        // More rows than a block has, so that blocks and pages overlap.
        let rows = 1000;
        let names: Vec<String> = (0..rows).map(|i| format!("ümlaut, \"{i}\"\n")).collect();
        let texts: Vec<Option<&str>> = names.iter().enumerate().map(|(i, name)| (i % 3 > 0).then_some(name.as_str())).collect();
        let numbers: Vec<f32> = (0..rows).map(|i| i as f32 / 4.0).collect();
        let values: Vec<f32> = (0..rows * 3).map(|i| (i as f32).sqrt()).collect();
        let columns = [
            ("text", Cells::Texts(texts.clone())),
            ("number", Cells::Numbers(numbers.clone())),
            ("rows", Cells::Rows(&values, 3)),
        ];
        files::write_with(&path, |out| write(out, &columns)).unwrap();
        let table = Parquet::open(&path).unwrap();
        let kinds: Vec<(String, Kind, bool)> = table.columns().iter().map(|c| (c.name(), c.kind, c.listed)).collect();
        let expected = [("text", Kind::Text, false), ("number", Kind::Real, false), ("rows.list.element", Kind::Real, true)];
        assert_eq!(kinds, expected.map(|(name, kind, listed)| (name.to_string(), kind, listed)));
        let read = table.texts(0).unwrap();
        assert_eq!((table.rows(), read.iter().map(Option::as_deref).collect::<Vec<_>>()), (rows, texts));
        let read = table.texts(1).unwrap();
        assert_eq!(read[..3], [Some("0".to_string()), Some("0.25".into()), Some("0.5".into())]);
        assert_eq!(table.numbers(1).unwrap(), (numbers, 1));
        assert_eq!(table.numbers(2).unwrap(), (values, 3));
        assert!(table.numbers(0).unwrap_err().to_string().contains("holds text"));
        assert!(table.texts(2).unwrap_err().to_string().contains("holds lists"));
        assert!(table.text_lists(0, |_, _| Ok(())).unwrap_err().to_string().contains("expected lists of text"));
        assert!(table.bytes(1, |_, _| Ok(())).unwrap_err().to_string().contains("expected bytes"));
        assert_eq!(table.metadata("none"), None);
    }

    #[test]
    fn lists_of_texts_are_read_row_by_row() {
        use parquet::data_type::{ByteArray, ByteArrayType};
        use parquet::file::writer::SerializedFileWriter;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.parquet");
        let schema = "message m { OPTIONAL GROUP t (LIST) { REPEATED GROUP list { OPTIONAL BYTE_ARRAY element (STRING); } } }";
        let schema = std::sync::Arc::new(parquet::schema::parser::parse_message_type(schema).unwrap());
        let mut file = SerializedFileWriter::new(std::fs::File::create(&path).unwrap(), schema, Default::default()).unwrap();
        // Two texts, no list, an empty list, an empty cell and a text; forty times.
        let (there, begins) = ([3, 3, 0, 1, 2, 3].repeat(40), [0, 1, 0, 0, 0, 1].repeat(40));
        let texts: Vec<ByteArray> = ["a", "b", "ü"].repeat(40).into_iter().map(ByteArray::from).collect();
        let mut group = file.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&texts, Some(&there), Some(&begins)).unwrap();
        column.close().unwrap();
        group.close().unwrap();
        file.close().unwrap();
        let table = Parquet::open(&path).unwrap();
        let mut rows: Vec<Vec<String>> = Vec::new();
        let read = table.text_lists(0, |row, texts| {
            assert_eq!(row, rows.len());
            rows.push(texts.iter().map(ToString::to_string).collect());
            Ok(())
        });
        read.unwrap();
        let expected: [&[&str]; 4] = [&["a", "b"], &[], &[], &["ü"]];
        assert_eq!(rows, expected.repeat(40));
    }

    #[test]
    fn a_table_without_rows_is_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.parquet");
        let columns = [("text", Cells::Texts(Vec::new())), ("rows", Cells::Rows(&[], 4))];
        files::write_with(&path, |out| write(out, &columns)).unwrap();
        let table = Parquet::open(&path).unwrap();
        assert_eq!((table.rows(), table.texts(0).unwrap(), table.numbers(1).unwrap()), (0, vec![], (vec![], 0)));
    }

    #[test]
    fn a_number_of_rows_that_cannot_be_makes_no_memory_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.parquet");
        let values = [1.0f32; 37];
        let columns = [("text", Cells::Texts(vec![Some("a"); 37])), ("rows", Cells::Rows(&values, 1))];
        files::write_with(&path, |out| write(out, &columns)).unwrap();
        let whole = std::fs::read(&path).unwrap();
        let length = u32::from_le_bytes(whole[whole.len() - 8..whole.len() - 4].try_into().unwrap()) as usize;
        let footer = whole.len() - 8 - length;
        let mut refused = 0;
        // Numbers are written as twice their value; any of them may be the number of rows.
        for at in (footer..whole.len() - 8).filter(|at| whole[*at] == 74) {
            for (claim, more) in [(&[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f][..], 8), (&[0xfe, 0xff, 0x7f], 2)] {
                let mut bytes = [&whole[..at], claim, &whole[at + 1..]].concat();
                let end = bytes.len();
                bytes[end - 8..end - 4].copy_from_slice(&((length + more) as u32).to_le_bytes());
                std::fs::write(&path, bytes).unwrap();
                let Ok(table) =
                    Parquet::open(&path).inspect_err(|e| refused += usize::from(e.to_string().contains("said to have")))
                else {
                    continue;
                };
                for column in 0..table.columns().len() {
                    let _ = (table.texts(column), table.numbers(column), table.bytes(column, |_, _| Ok(())));
                }
            }
        }
        assert!(refused > 0, "one of them is the number of rows");
    }

    #[test]
    fn files_that_made_the_library_panic_or_run_for_ever_are_errors() {
        for (folder, name) in [
            ("parquet", "without-its-dictionary"),
            ("parquet", "dictionary-beyond-its-bytes"),
            ("parquet", "unpacked-size"),
            ("images-parquet", "cut-short"),
            ("images-parquet", "reads-beyond-the-end"),
        ] {
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(folder).join(name);
            let table = Parquet::open(&path).unwrap();
            let read = |column: usize| match table.columns()[column].kind {
                Kind::Bytes => table.bytes(column, |_, _| Ok(())),
                _ => table.texts(column).map(drop),
            };
            let error = (0..table.columns().len()).find_map(|column| read(column).err()).unwrap().to_string();
            assert!(error.contains("cannot read the column"), "{name}: {error}");
            assert!(error.contains("no header of a page") || name != "unpacked-size", "{name}: {error}");
        }
    }

    #[test]
    fn what_is_no_parquet_file_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.parquet");
        let columns = [("text", Cells::Texts(vec![Some("a"); 50]))];
        files::write_with(&path, |out| write(out, &columns)).unwrap();
        let whole = std::fs::read(&path).unwrap();
        let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n";
        for (bytes, wanted) in [
            (&b"name,label\n"[..], "not a Parquet file"),
            (b"", "not a Parquet file"),
            (pointer.as_bytes(), "git lfs pull"),
            (&whole[..whole.len() - 9], "fetch it again"),
            (&[&whole[..30], &whole[40..]].concat(), "fetch it again"),
            (&[&b"PARE"[..], &whole[4..whole.len() - 4], b"PARE"].concat(), "encrypted"),
        ] {
            std::fs::write(&path, bytes).unwrap();
            let error = Parquet::open(&path).and_then(|table| table.texts(0).map(|_| ())).unwrap_err().to_string();
            assert!(error.contains(wanted) && error.contains("hint: "), "{error}");
        }
    }
}
