//! Words by number: the hash table that numbers every word of a text, and the fast scan of plain text that uses it.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::END;
use super::tally::Sorted;

/// Bytes of a word that fit into a key together with its length.
const SHORT: usize = 15;

/// The hasher of words.
pub type Hash = BuildHasherDefault<Fold>;

/// Words, numbered in order of first appearance, with counts.
#[derive(Default)]
pub struct Words {
    // Most words of a text are short: as 128-bit keys they are compared at once and lie in the table itself.
    short: HashMap<u128, u32, Hash>,
    long: HashMap<Box<str>, u32, Hash>,
    counts: Vec<u64>,
}

impl Words {
    /// The number of `word`; its count is increased.
    pub fn number(&mut self, word: &str) -> u32 {
        if word.len() <= SHORT {
            return self.short(key(word));
        }
        let next = self.counts.len() as u32;
        let number = match self.long.get(word) {
            Some(&number) => number,
            None => *self.long.entry(word.into()).or_insert(next),
        };
        self.count(number)
    }

    /// Appends the numbers of the words of ASCII text between white space, with [`END`] for each line end that does not follow another.
    pub fn scan(&mut self, text: &[u8], stream: &mut Vec<u32>) {
        let mut at = 0;
        while let Some(&byte) = text.get(at) {
            if byte <= b' ' {
                // A line end before any word counts: it may end a line of the piece before.
                if byte == b'\n' && stream.last() != Some(&END) {
                    stream.push(END);
                }
                at += 1;
                continue;
            }
            let length = match text[at..].first_chunk::<16>() {
                Some(bytes) => {
                    let bytes = u128::from_le_bytes(*bytes);
                    let length = before_space(bytes);
                    if length <= SHORT {
                        stream.push(self.short(bytes & !(u128::MAX << (8 * length)) | with_length(length)));
                        at += length;
                        continue;
                    }
                    16 + text[at + 16..].iter().position(|&b| b <= b' ').unwrap_or(text.len() - at - 16)
                }
                None => text[at..].iter().position(|&b| b <= b' ').unwrap_or(text.len() - at),
            };
            let word = std::str::from_utf8(&text[at..at + length]).expect("ASCII is text");
            stream.push(self.number(word));
            at += length;
        }
    }

    /// The number of different words.
    pub fn len(&self) -> usize {
        self.counts.len()
    }

    /// All words in the order of their bytes, with numbers and counts.
    pub fn sorted(self) -> Sorted {
        // The first byte is the highest and the length the lowest, so that keys sort like bytes.
        let mut short: Vec<(u128, u32)> = self.short.into_iter().map(|(key, number)| (key.swap_bytes(), number)).collect();
        let mut long: Vec<(Box<str>, u32)> = self.long.into_iter().collect();
        short.sort_unstable();
        long.sort_unstable();
        let mut sorted = Sorted::default();
        let mut long = long.into_iter().peekable();
        for (key, number) in short {
            let bytes = key.to_be_bytes();
            let word = &bytes[..bytes[SHORT] as usize];
            while let Some((longer, number)) = long.next_if(|(longer, _)| longer.as_bytes() < word) {
                sorted.push(longer.as_bytes(), number, self.counts[number as usize]);
            }
            sorted.push(word, number, self.counts[number as usize]);
        }
        long.for_each(|(longer, number)| sorted.push(longer.as_bytes(), number, self.counts[number as usize]));
        sorted
    }

    #[inline]
    fn short(&mut self, key: u128) -> u32 {
        let next = self.counts.len() as u32;
        let number = *self.short.entry(key).or_insert(next);
        self.count(number)
    }

    #[inline]
    fn count(&mut self, number: u32) -> u32 {
        match self.counts.get_mut(number as usize) {
            Some(count) => *count += 1,
            None => self.counts.push(1),
        }
        number
    }
}

/// A word's bytes, with its length in the last of sixteen.
fn key(word: &str) -> u128 {
    let mut bytes = [0; 16];
    bytes[..word.len()].copy_from_slice(word.as_bytes());
    u128::from_le_bytes(bytes) | with_length(word.len())
}

fn with_length(length: usize) -> u128 {
    (length as u128) << (8 * SHORT)
}

/// The number of sixteen ASCII characters before the first space or control character.
#[inline]
fn before_space(bytes: u128) -> usize {
    const EACH: u128 = u128::MAX / 0xff;
    // Sets the highest bit of each byte below 0x21; a borrow can only change bytes after the first of them.
    let low = bytes.wrapping_sub(EACH * 0x21) & !bytes & (EACH * 0x80);
    low.trailing_zeros() as usize / 8
}

/// Folds eight bytes at a time into a product: the standard hasher would take half of the time of reading a corpus. Nothing depends on the
/// order of a map here.
#[derive(Default)]
pub struct Fold(u64);

impl Hasher for Fold {
    fn write(&mut self, bytes: &[u8]) {
        let (eights, rest) = bytes.as_chunks::<8>();
        for eight in eights {
            self.write_u64(u64::from_le_bytes(*eight));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.write_u64(u64::from_le_bytes(last) ^ ((bytes.len() as u64) << 56));
    }

    fn write_u8(&mut self, _: u8) {} // the terminator of a str: lengths are folded in above

    #[inline]
    fn write_u64(&mut self, value: u64) {
        let product = u128::from(self.0 ^ value ^ 0x9e37_79b9_7f4a_7c15) * 0xa076_1d64_78bd_642f;
        self.0 = (product >> 64) as u64 ^ product as u64;
    }

    #[inline]
    fn write_u128(&mut self, value: u128) {
        self.write_u64(value as u64 ^ ((value >> 64) as u64).rotate_left(23).wrapping_mul(0xe703_7ed1_a0b4_28db));
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use ctk_core::rng::Key;
    use rand::Rng as _;

    use super::super::tally::merge;
    use super::*;

    #[test]
    fn a_word_has_one_number_however_it_is_found() {
        let mut rng = Key::new(3).rng();
        let mut text = String::new();
        for _ in 0..20_000 {
            let length = rng.random_range(1..24);
            (0..length).for_each(|_| text.push(rng.random_range(b'!'..b'\x7f').min(b'$') as char));
            text.push([' ', '\n', '\t', '\r'][rng.random_range(0..4)]);
        }
        let (mut scanned, mut stream) = (Words::default(), Vec::new());
        scanned.scan(text.as_bytes(), &mut stream);
        let (mut asked, mut expected) = (Words::default(), Vec::new());
        for line in text.split_inclusive('\n') {
            expected.extend(line.split_whitespace().map(|word| asked.number(word)));
            if line.ends_with('\n') && expected.last() != Some(&END) {
                expected.push(END);
            }
        }
        assert_eq!(stream, expected);
        assert_eq!(scanned.counts, asked.counts);
        let mut words = Vec::new();
        merge(vec![scanned.sorted().in_memory()], |word, count, places| {
            words.push((String::from_utf8(word.to_vec()).unwrap(), count, places[0].1));
            Ok(())
        })
        .unwrap();
        assert!(words.is_sorted_by(|(a, ..), (b, ..)| a < b), "in order, and none twice");
        words.sort_by_key(|(.., number)| *number);
        let mut counts = std::collections::HashMap::<&str, u64>::new();
        text.split_whitespace().for_each(|word| *counts.entry(word).or_default() += 1);
        assert!(words.iter().all(|(word, count, _)| counts[&**word] == *count));
        let mut seen = std::collections::HashSet::new();
        let first = text.split_whitespace().filter(|word| seen.insert(word.to_string()));
        assert!(first.eq(words.iter().map(|(word, ..)| &**word)));
    }

    #[test]
    fn spaces_are_found_wherever_they_stand() {
        for at in 0..16 {
            for space in [b' ', b'\n', 0, 0x1f] {
                let mut bytes = [b'!'; 16];
                bytes[at] = space;
                assert_eq!(before_space(u128::from_le_bytes(bytes)), at);
                bytes[at..].fill(space);
                assert_eq!(before_space(u128::from_le_bytes(bytes)), at);
            }
        }
        assert_eq!(before_space(u128::from_le_bytes([b'~'; 16])), 16);
    }
}
