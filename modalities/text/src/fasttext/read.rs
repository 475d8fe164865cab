//! Reads fastText's models. Sizes in the file are compared with its length before anything is allocated for them.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use ctk_core::{Context, Error, Result};
use ctk_texts::files::{is_packed, open as open_file};

use super::{Args, FastText, Loss, MAGIC, ModelKind, VERSION};
use crate::subwords::{SubwordVectors, Subwords};
use crate::vectors::{LONGEST_WORD, fits, replaced};

/// Length of the longest word in bytes: a damaged file must not be read whole as one word.
const LONGEST: u64 = LONGEST_WORD as u64;

/// Bytes of the shortest entry of a dictionary: an empty word's zero, its count and its kind.
const ENTRY: u64 = 10;

/// Values that are read at once.
const BLOCK: usize = 1 << 16;

/// Reads a model: words, their counts, and the table of words and n-grams. The output table is not read.
///
/// # Errors
/// Not a model; a quantised model; a file that is cut short or inconsistent; values that are not finite.
pub fn open(path: &Path) -> Result<FastText> {
    read(path).at(path.display())
}

fn read(path: &Path) -> Result<FastText> {
    let file = open_file(path)?;
    let left = file.metadata()?.len();
    let mut bytes = Bytes { reader: BufReader::with_capacity(1 << 20, file), left };
    let packed = is_packed(bytes.reader.fill_buf()?);
    let magic: [u8; 4] = if left < 8 { [0; 4] } else { bytes.take()? };
    if packed {
        return Err(Error::new("this file is compressed").hint("unpack it first: a model is read from its file in place"));
    }
    if magic != MAGIC.to_le_bytes() {
        let mut head = magic.to_vec();
        bytes.reader.by_ref().take(OLD_HEAD as u64).read_to_end(&mut head)?;
        if is_old(&head) {
            return Err(Error::new("this is a fastText model of 2016, from before its files had a magic number and a version")
                .hint("ctk reads models of 2017 and later: give the .vec file that lies beside it, or train and save it again"));
        }
        return Err(Error::new("this is not a fastText model").hint("models begin with fastText's magic number"));
    }
    let version = bytes.i32()?;
    if !(11..=VERSION).contains(&version) {
        return Err(Error::new(format!("version {version} of fastText's models is not known")));
    }
    let mut args = arguments(&mut bytes)?;
    // Classifiers of version 11 had no n-grams of characters (fastText's `loadModel`).
    if version == 11 && args.kind == ModelKind::Supervised {
        args.max = 0;
    }
    let dictionary = dictionary(&mut bytes)?;
    let (words, buckets, width) = (dictionary.words.len(), args.buckets as usize, args.width as usize);
    let input = bytes.rows("input", words + buckets, width)?;
    if let Some(at) = input.iter().position(|value| !value.is_finite()) {
        let row = at / width;
        let place =
            dictionary.words.get(row).map_or_else(|| format!("bucket {}", row - words), |word| format!("the row of `{word}`"));
        return Err(Error::new(format!("a value is {}", input[at]))
            .at(place)
            .hint("the training that made this model went wrong"));
    }
    let outputs = if args.kind == ModelKind::Supervised { dictionary.labels.len() } else { words };
    bytes.table("output", outputs, width)?;
    let subwords = Subwords { min: args.min as usize, max: args.max as usize, buckets };
    Ok(FastText {
        notes: replaced(dictionary.raw.len() + dictionary.bad_labels),
        vectors: SubwordVectors::new(dictionary.words, input, width, subwords)?.with_raw(dictionary.raw),
        counts: dictionary.counts,
        labels: dictionary.labels,
        args,
    })
}

/// Bytes by which a model of 2016 is recognised: its training arguments (twelve i32 and an f64), and its numbers of entries, words and
/// labels.
pub const OLD_HEAD: usize = 12 * 4 + 8 + 3 * 4;

/// Whether a file begins like fastText's models of 2016: as today's, without the first two numbers.
pub fn is_old(head: &[u8]) -> bool {
    let Some(head) = head.get(..OLD_HEAD) else { return false };
    let number = |at: usize| i32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let [width, window, epochs, min_count, negatives, word_ngrams, loss, kind, buckets, min, max, rate_every] =
        std::array::from_fn(|i| number(4 * i));
    let subsample = f64::from_le_bytes(std::array::from_fn(|i| head[48 + i]));
    let [size, words, labels] = std::array::from_fn(|i| number(56 + 4 * i));
    (1..=100_000).contains(&width)
        && [window, epochs, min_count, negatives, word_ngrams].iter().all(|n| (0..=1_000_000).contains(n))
        && (1..=3).contains(&loss)
        && (1..=3).contains(&kind)
        && [buckets, min, max, rate_every, words, labels].iter().all(|n| *n >= 0)
        && max <= 1000
        && (0.0..=1.0).contains(&subsample)
        && words.checked_add(labels) == Some(size)
        && size > 0
}

fn arguments(bytes: &mut Bytes) -> Result<Args> {
    let mut next = || bytes.i32();
    let (width, window, epochs, min_count, negatives, word_ngrams) = (next()?, next()?, next()?, next()?, next()?, next()?);
    let loss = match next()? {
        1 => Loss::HierarchicalSoftmax,
        2 => Loss::NegativeSampling,
        3 => Loss::Softmax,
        4 => Loss::OneVsAll,
        other => return Err(damaged(format!("its loss is number {other}"))),
    };
    let kind = match next()? {
        1 => ModelKind::Cbow,
        2 => ModelKind::SkipGram,
        3 => ModelKind::Supervised,
        other => return Err(damaged(format!("its kind is number {other}"))),
    };
    let (buckets, min, max, rate_every) = (next()?, next()?, next()?, next()?);
    if width < 1 || buckets < 0 || min < 0 || max < 0 {
        return Err(damaged(format!("it says width {width}, {buckets} buckets, n-grams of {min} to {max} characters")));
    }
    let subsample = f64::from_le_bytes(bytes.take()?);
    Ok(Args { width, window, epochs, min_count, negatives, word_ngrams, loss, kind, buckets, min, max, rate_every, subsample })
}

#[derive(Default)]
struct Dictionary {
    words: Vec<String>,
    counts: Vec<u64>,
    labels: Vec<(String, u64)>,
    // The bytes of words that are not UTF-8, by row; labels that are not UTF-8 are only counted.
    raw: HashMap<usize, Vec<u8>>,
    bad_labels: usize,
}

fn dictionary(bytes: &mut Bytes) -> Result<Dictionary> {
    let (size, words, labels) = (bytes.i32()?, bytes.i32()?, bytes.i32()?);
    let (_, pruned) = (bytes.i64()?, bytes.i64()?);
    let said = || format!("it says {size} entries, {words} words, {labels} labels");
    let counts = [size, words, labels].map(|count| u64::try_from(count).ok());
    let [Some(size), Some(words), Some(labels)] = counts else { return Err(damaged(said())) };
    if size != words + labels || size * ENTRY > bytes.left {
        return Err(damaged(said()));
    }
    // Only quantised models are pruned.
    if pruned > 0 {
        return Err(quantised());
    }
    let mut dictionary = Dictionary::default();
    for at in 0..size {
        let here = || format!("entry {} of {size}", at + 1);
        let name = bytes.until_zero().at(here())?;
        let count = u64::try_from(bytes.i64().at(here())?).map_err(|_| damaged("a count is negative").at(here()))?;
        let [kind] = bytes.take().at(here())?;
        // Words come first: an entry's number is its row.
        if kind != u8::from(at >= words) {
            return Err(damaged(format!("it says {words} words come first")).at(here()));
        }
        let (text, raw) = match String::from_utf8(name) {
            Ok(text) => (text, None),
            Err(e) => (String::from_utf8_lossy(e.as_bytes()).into_owned(), Some(e.into_bytes())),
        };
        if kind == 0 {
            dictionary.raw.extend(raw.map(|raw| (dictionary.words.len(), raw)));
            dictionary.words.push(text);
            dictionary.counts.push(count);
        } else {
            dictionary.bad_labels += usize::from(raw.is_some());
            dictionary.labels.push((text, count));
        }
    }
    Ok(dictionary)
}

/// The rest of a file.
struct Bytes {
    reader: BufReader<File>,
    left: u64,
}

impl Bytes {
    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut taken = [0; N];
        self.fill(&mut taken)?;
        Ok(taken)
    }

    fn i32(&mut self) -> Result<i32> {
        Ok(i32::from_le_bytes(self.take()?))
    }

    fn i64(&mut self) -> Result<i64> {
        Ok(i64::from_le_bytes(self.take()?))
    }

    fn fill(&mut self, into: &mut [u8]) -> Result<()> {
        self.left = self.left.checked_sub(into.len() as u64).ok_or_else(cut_short)?;
        self.reader.read_exact(into).map_err(|e| match e.kind() {
            std::io::ErrorKind::UnexpectedEof => cut_short(),
            _ => Error::from(e),
        })
    }

    fn until_zero(&mut self) -> Result<Vec<u8>> {
        let mut name = Vec::new();
        let read = self.reader.by_ref().take(LONGEST + 1).read_until(0, &mut name)?;
        self.left = self.left.saturating_sub(read as u64);
        match name.pop() {
            Some(0) => Ok(name),
            _ if self.left == 0 => Err(cut_short()),
            _ => Err(damaged(format!("a word has more than {LONGEST} bytes"))),
        }
    }

    /// Reads the size of the next table, which must have `rows` rows of `width` values; returns its length in bytes.
    fn table(&mut self, name: &str, rows: usize, width: usize) -> Result<u64> {
        let [quantised_here] = self.take().at(name)?;
        if quantised_here != 0 {
            return Err(quantised());
        }
        let found = (self.i64().at(name)?, self.i64().at(name)?);
        if (i64::try_from(rows), i64::try_from(width)) != (Ok(found.0), Ok(found.1)) {
            let (m, n) = found;
            return Err(damaged(format!(
                "its {name} table has {m} rows of {n} values, its dictionary asks for {rows} of {width}"
            )));
        }
        let bytes = (rows as u64).checked_mul(width as u64).and_then(|values| values.checked_mul(4));
        bytes.filter(|&bytes| bytes <= self.left).ok_or_else(|| cut_short().at(name))
    }

    /// Reads the next table.
    fn rows(&mut self, name: &str, rows: usize, width: usize) -> Result<Vec<f32>> {
        let bytes = self.table(name, rows, width)?;
        fits(rows, width)?;
        let mut values = Vec::new();
        values
            .try_reserve_exact((bytes / 4) as usize)
            .map_err(|_| Error::new(format!("there is no memory for a table of {rows} rows of {width} values")))?;
        let mut block = vec![0; 4 * BLOCK];
        let mut left = bytes as usize;
        while left > 0 {
            let part = &mut block[..left.min(4 * BLOCK)];
            self.fill(part).at(name)?;
            values.extend(part.as_chunks::<4>().0.iter().map(|value| f32::from_le_bytes(*value)));
            left -= part.len();
        }
        Ok(values)
    }
}

fn cut_short() -> Error {
    Error::new("the file ends too early").hint("is it cut short? Fetch or write it again")
}

fn damaged(what: impl std::fmt::Display) -> Error {
    Error::new(format!("this fastText model cannot be read: {what}")).hint("is the file damaged? Fetch or write it again")
}

fn quantised() -> Error {
    Error::new("this fastText model is quantised (.ftz)").hint("vectors are read from the .bin file that it was made from")
}
