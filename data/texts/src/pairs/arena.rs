//! Many texts in one piece of memory, numbered in the order in which they were met; equal texts are kept once.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use ctk_core::{Error, Result};

/// An entry of the table of hashes that is free.
const FREE: u32 = u32::MAX;

/// Numbered texts.
pub struct Arena {
    bytes: String,
    /// The end of each text.
    ends: Vec<usize>,
    /// Numbers of texts at places that their hashes say, and at the next free place behind; a power of two, at most half full.
    table: Vec<u32>,
    hashes: RandomState,
}

impl Default for Arena {
    fn default() -> Self {
        Arena { bytes: String::new(), ends: Vec::new(), table: vec![FREE; 16], hashes: RandomState::new() }
    }
}

impl Arena {
    /// Number of different texts.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Text number `number`, below [`len`](Arena::len).
    pub fn text(&self, number: u32) -> &str {
        let at = number as usize;
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        &self.bytes[start..self.ends[at]]
    }

    /// The number of `text`, which is added if it is new.
    ///
    /// # Errors
    /// More texts than 32-bit numbers.
    pub(super) fn number(&mut self, text: &str) -> Result<u32> {
        let mut place = self.place(text);
        if self.table[place] != FREE {
            return Ok(self.table[place]);
        }
        if 2 * (self.ends.len() + 1) > self.table.len() {
            self.grow();
            place = self.place(text);
        }
        let number = u32::try_from(self.ends.len()).ok().filter(|number| *number != FREE);
        let number = number.ok_or_else(|| Error::new("there are more different texts than ctk can number (4294967294)"))?;
        self.bytes.push_str(text);
        self.ends.push(self.bytes.len());
        self.table[place] = number;
        Ok(number)
    }

    /// The place of `text` in the table, or the free place where it belongs.
    fn place(&self, text: &str) -> usize {
        let mask = self.table.len() - 1;
        let mut place = self.hashes.hash_one(text) as usize & mask;
        while self.table[place] != FREE && self.text(self.table[place]) != text {
            place = (place + 1) & mask;
        }
        place
    }

    fn grow(&mut self) {
        self.table = vec![FREE; 2 * self.table.len()];
        let mask = self.table.len() - 1;
        for number in 0..self.ends.len() as u32 {
            // All texts differ, so only a free place is looked for.
            let mut place = self.hashes.hash_one(self.text(number)) as usize & mask;
            while self.table[place] != FREE {
                place = (place + 1) & mask;
            }
            self.table[place] = number;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_have_one_number_and_come_back() {
        let mut arena = Arena::default();
        let text = |i: usize| if i.is_multiple_of(3) { String::new() } else { format!("text {}ü", i % 500) };
        let numbers: Vec<u32> = (0..2000).map(|i| arena.number(&text(i)).unwrap()).collect();
        let all: std::collections::BTreeSet<String> = (0..2000).map(text).collect();
        assert_eq!(arena.len(), all.len());
        (0..2000).for_each(|i| assert_eq!(arena.text(numbers[i]), text(i)));
        assert_eq!(numbers[..4], [0, 1, 2, 0], "they are numbered as they are met");
    }
}
