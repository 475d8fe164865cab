//! From a stream of final numbers to blocks: words that are not kept close up, and lines are packed or cut.

use std::ops::Range;

use super::{BLOCK, END};

/// In place of a word that is not kept.
pub const DROPPED: u32 = END - 1;

/// Takes out words that were dropped, and the ends of lines that are empty then.
pub struct CloseUp {
    // Whether what was kept last, if anything, ended a line.
    ended: bool,
}

impl Default for CloseUp {
    fn default() -> Self {
        CloseUp { ended: true }
    }
}

impl CloseUp {
    /// Moves what is kept of `stream`, the next part, to its front, and drops the rest.
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

/// Packs whole short lines into blocks and cuts lines that are longer than one.
#[derive(Default)]
pub struct Cut {
    blocks: Vec<Range<usize>>,
    // The block that is open: where it starts, and its words in lines that are whole.
    start: usize,
    words: usize,
    // Where the open line starts.
    line: usize,
    at: usize,
    pair: bool,
}

impl Cut {
    /// The next part of the stream.
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

    /// All blocks, if there is a line of two words.
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
