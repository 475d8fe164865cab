//! Divides a stream of final word numbers into blocks: dropped words are removed, and lines are packed or cut.

use std::ops::Range;

use super::{BLOCK, END};

/// Stands for a word that is not kept.
pub const DROPPED: u32 = END - 1;

/// Removes dropped words, and the ends of lines that are then empty.
pub struct CloseUp {
    // Whether the last kept number ended a line.
    ended: bool,
}

impl Default for CloseUp {
    fn default() -> Self {
        CloseUp { ended: true }
    }
}

impl CloseUp {
    /// Moves the kept numbers of `stream`, the next part, to its front, and removes the rest.
    pub fn up(&mut self, stream: &mut Vec<u32>) {
        let mut to = 0;
        for from in 0..stream.len() {
            let word = stream[from];
            stream[to] = word;
            let kept = word < DROPPED || (word == END && !self.ended);
            to += usize::from(kept);
            self.ended = if kept { word == END } else { self.ended };
        }
        stream.truncate(to);
    }
}

/// Packs whole short lines into blocks, and cuts lines that are longer than a block.
#[derive(Default)]
pub struct Cut {
    blocks: Vec<Range<usize>>,
    // The open block: its start, and its words in complete lines.
    start: usize,
    words: usize,
    // The start of the open line.
    line: usize,
    at: usize,
    pair: bool,
}

impl Cut {
    /// Takes the next part of the stream.
    pub fn push(&mut self, part: &[u32]) {
        for end in part.iter().enumerate().filter(|(_, id)| **id == END).map(|(at, _)| at) {
            self.end_line(self.at + end);
        }
        self.at += part.len();
    }

    fn end_line(&mut self, end: usize) {
        let mut line = self.line;
        self.pair |= end - line > 1;
        if self.words + (end - line) > BLOCK {
            if self.words > 0 {
                self.blocks.push(self.start..line);
                self.words = 0;
            }
            while line + BLOCK < end {
                self.blocks.push(line..line + BLOCK);
                line += BLOCK;
            }
            self.start = line;
        }
        self.words += end - line;
        self.line = end + 1;
    }

    /// All blocks, if any line has two words.
    pub fn finish(mut self) -> Option<Vec<Range<usize>>> {
        if self.line < self.at {
            self.end_line(self.at);
        }
        if self.words > 0 {
            self.blocks.push(self.start..self.at);
        }
        self.pair.then_some(self.blocks)
    }
}
