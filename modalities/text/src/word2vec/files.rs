//! The file formats of word2vec: `words width` on the first line, then a word and its values a row, as text or binary.
//!
//! In the binary form a row is the word, a space, `width` little-endian f32 and a line's end (word2vec.c). gensim's
//! `KeyedVectors.load_word2vec_format` reads both.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;

use ctk_core::eval::Features;
use ctk_core::{Context, Error, Result, files};

/// Writes the text form.
pub fn write_text(features: &Features, out: &Path) -> Result<()> {
    write(features, out, |file, row| {
        // The shortest digits that read back as the same float.
        row.iter().try_for_each(|value| write!(file, " {value}"))
    })
}

/// Writes the binary form.
pub fn write_binary(features: &Features, out: &Path) -> Result<()> {
    write(features, out, |file, row| {
        file.write_all(b" ")?;
        row.iter().try_for_each(|value| file.write_all(&value.to_le_bytes()))
    })
}

fn write<F>(features: &Features, out: &Path, values: F) -> Result<()>
where
    F: Fn(&mut std::io::BufWriter<std::fs::File>, &[f32]) -> std::io::Result<()>,
{
    files::write_with(out, |file| {
        writeln!(file, "{} {}", features.len(), features.width)?;
        for (i, name) in features.names.iter().enumerate() {
            file.write_all(name.as_bytes())?;
            values(file, features.row(i))?;
            file.write_all(b"\n")?;
        }
        Ok(())
    })
}

/// Reads the text form, with or without its first line.
pub fn read_text(path: &Path) -> Result<Features> {
    let mut reader = open(path)?;
    let mut features = Features::default();
    let (mut line, mut number) = (String::new(), 0);
    let mut declared = None;
    loop {
        line.clear();
        if reader.read_line(&mut line).at(path.display())? == 0 {
            break;
        }
        number += 1;
        let here = || format!("{}:{number}", path.display());
        let mut fields = line.trim_end().split(' ');
        let word = fields.next().unwrap_or_default();
        let before = features.rows.len();
        for field in fields {
            let bad = |e| Error::new(format!("`{field}` is not a number: {e}")).at(here());
            features.rows.push(field.parse::<f32>().map_err(bad)?);
        }
        let width = features.rows.len() - before;
        // A first line of two numbers says how much follows.
        if number == 1 && width == 1 && word.parse::<usize>().is_ok() {
            declared = Some((word.parse().map_err(Error::new)?, features.rows[0] as usize));
            features.rows.clear();
            continue;
        }
        if width == 0 || (!features.names.is_empty() && width != features.width) {
            let wanted = if features.names.is_empty() { "at least one".to_string() } else { features.width.to_string() };
            return Err(Error::new(format!("this row has {width} values, expected {wanted}")).at(here()));
        }
        features.width = width;
        features.names.push(word.to_string());
    }
    check(&features, declared).at(path.display())?;
    Ok(features)
}

/// Reads the binary form, with or without line ends after rows.
pub fn read_binary(path: &Path) -> Result<Features> {
    let mut reader = open(path)?;
    let mut header = Vec::new();
    reader.by_ref().take(64).read_until(b'\n', &mut header).at(path.display())?;
    let (count, width) = std::str::from_utf8(&header)
        .ok()
        .and_then(|h| h.trim_end().split_once(' '))
        .and_then(|(n, d)| Some((n.parse::<usize>().ok()?, d.parse::<usize>().ok().filter(|&d| d > 0)?)))
        .ok_or_else(|| Error::new("not a word2vec file: its first line is not `words width`").at(path.display()))?;
    let mut features = Features { width, ..Features::default() };
    let (mut word, mut row) =
        (Vec::new(), vec![0; width.checked_mul(4).ok_or_else(|| Error::new("absurd width").at(path.display()))?]);
    for number in 1..=count {
        let here = || format!("{}: row {number} of {count}", path.display());
        word.clear();
        // No word is longer than this; a damaged file must not be read whole into one.
        reader.by_ref().take(1 << 16).read_until(b' ', &mut word).at(here())?;
        if word.pop() != Some(b' ') {
            return Err(Error::new("the file ends inside a row, or is not a word2vec file").at(here()));
        }
        let start = word.iter().take_while(|&&b| b == b'\n').count();
        let name = std::str::from_utf8(&word[start..]).map_err(|_| Error::new("this word is not UTF-8").at(here()))?;
        reader.read_exact(&mut row).at(here())?;
        features.names.push(name.to_string());
        features.rows.extend(row.as_chunks::<4>().0.iter().map(|v| f32::from_le_bytes(*v)));
    }
    Ok(features)
}

fn open(path: &Path) -> Result<BufReader<std::fs::File>> {
    Ok(BufReader::with_capacity(1 << 20, std::fs::File::open(path).at(path.display())?))
}

fn check(features: &Features, declared: Option<(usize, usize)>) -> Result<()> {
    match declared {
        Some((count, width)) if (count, width) != (features.len(), features.width) => Err(Error::new(format!(
            "the first line says {count} words of {width} values, the file has {} of {}",
            features.len(),
            features.width
        ))),
        _ if features.is_empty() => Err(Error::new("there is no row in this file")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Features {
        let names = ["the", "naïve", "Ġx", "1984"].map(str::to_string).to_vec();
        let rows = (0..12).map(|i| (i as f32 - 5.0) * 0.1).chain([f32::MIN_POSITIVE, 1e30, -0.0, 10.0]).collect();
        Features { rows, width: 4, names, ..Features::default() }
    }

    #[test]
    fn both_forms_round_trip_every_bit() {
        let folder = tempfile::tempdir().unwrap();
        let (text, binary) = (folder.path().join("v.txt"), folder.path().join("v.bin"));
        write_text(&some(), &text).unwrap();
        write_binary(&some(), &binary).unwrap();
        for read in [read_text(&text).unwrap(), read_binary(&binary).unwrap()] {
            assert_eq!(read.names, some().names);
            assert_eq!(read.width, 4);
            assert!(read.rows.iter().zip(&some().rows).all(|(a, b)| a.to_bits() == b.to_bits()));
        }
        // Without its first line.
        let body = std::fs::read_to_string(&text).unwrap();
        std::fs::write(&text, body.split_once('\n').unwrap().1).unwrap();
        assert_eq!(read_text(&text).unwrap().rows, some().rows);
    }

    #[test]
    fn damage_is_found_with_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("v");
        let text = |content: &str| {
            std::fs::write(&path, content).unwrap();
            read_text(&path).unwrap_err().to_string()
        };
        assert!(text("2 2\na 1 2\nb 1\n").contains("v:3"));
        assert!(text("2 2\na 1 x\n").contains("`x` is not a number"));
        assert!(text("3 2\na 1 2\n").contains("says 3 words"));
        assert!(text("").contains("no row"));
        write_binary(&some(), &path).unwrap();
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 9]).unwrap();
        assert!(read_binary(&path).unwrap_err().to_string().contains("row 4 of 4"));
        std::fs::write(&path, b"no header at all").unwrap();
        assert!(read_binary(&path).unwrap_err().to_string().contains("first line"));
    }

    #[test]
    #[ignore = "needs python with gensim; CTK_PYTHON names the interpreter"]
    fn gensim_reads_both_forms() {
        let folder = tempfile::tempdir().unwrap();
        let (text, binary) = (folder.path().join("v.txt"), folder.path().join("v.bin"));
        write_text(&some(), &text).unwrap();
        write_binary(&some(), &binary).unwrap();
        let script = "import sys, json; from gensim.models import KeyedVectors as K\n\
                      for path, binary in [(sys.argv[1], False), (sys.argv[2], True)]:\n    \
                          k = K.load_word2vec_format(path, binary=binary)\n    \
                          print(json.dumps([k.index_to_key, [float(v) for v in k.vectors.reshape(-1)]]))\n";
        let python = std::env::var("CTK_PYTHON").unwrap_or_else(|_| "python3".into());
        let output = std::process::Command::new(python).args(["-c", script]).args([text, binary]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let stdout = String::from_utf8(output.stdout).unwrap();
        assert_eq!(stdout.lines().count(), 2);
        for line in stdout.lines() {
            let (names, rows): (Vec<String>, Vec<f64>) = serde_json::from_str(line).unwrap();
            assert_eq!(names, some().names);
            assert!(rows.iter().zip(&some().rows).all(|(a, b)| *a as f32 == *b), "{rows:?}");
        }
    }
}
