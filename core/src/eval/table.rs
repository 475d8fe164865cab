//! Named rows that are read block by block: [`Features`] in memory, or a file of vectors that stays on disk.

use std::ops::Range;

use super::{Features, NOTES};
use crate::error::Result;

/// Named rows of one width. Code that needs some rows only, or each row once, takes a table, so that nothing is copied whole.
pub trait Table: Sync {
    /// Number of rows.
    fn len(&self) -> usize;

    /// Values in a row.
    fn width(&self) -> usize;

    /// The name of row `row`.
    fn name(&self, row: usize) -> &str;

    /// The rows of `range`, one after the other. `room` is a buffer for rows that are not in memory.
    ///
    /// # Errors
    /// A file that can no longer be read.
    fn block<'a>(&'a self, range: Range<usize>, room: &'a mut Vec<f32>) -> Result<&'a [f32]>;

    /// Whether there is no row.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A row made for a name that has none, by a model that composes vectors from a name's parts.
    fn unseen(&self, _name: &str) -> Option<Vec<f32>> {
        None
    }

    /// The spelling of `name` in the table, if the table's normalisation is known: Unicode form, case, joined phrases.
    fn spelling(&self, _name: &str) -> Option<String> {
        None
    }

    /// What a user should know of how the rows were made.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }

    /// All rows in memory, for evaluators that need all of them at once.
    ///
    /// # Errors
    /// A file that can no longer be read.
    fn features(&self) -> Result<Features> {
        let mut features = Features { width: self.width(), ..Features::default() };
        features.rows.reserve_exact(self.len() * self.width());
        let mut room = Vec::new();
        for range in self.blocks() {
            features.rows.extend_from_slice(self.block(range, &mut room)?);
        }
        features.names = (0..self.len()).map(|row| self.name(row).to_string()).collect();
        Ok(features)
    }

    /// The row numbers in blocks that fit into a core's cache; the same on every machine.
    fn blocks(&self) -> Vec<Range<usize>> {
        let rows = (BLOCK / self.width().max(1)).max(1);
        (0..self.len()).step_by(rows).map(|from| from..(from + rows).min(self.len())).collect()
    }
}

/// Values in a block: 256 KB.
const BLOCK: usize = 1 << 16;

impl Table for Features {
    fn len(&self) -> usize {
        self.names.len()
    }

    fn width(&self) -> usize {
        self.width
    }

    fn name(&self, row: usize) -> &str {
        &self.names[row]
    }

    fn block<'a>(&'a self, range: Range<usize>, _: &'a mut Vec<f32>) -> Result<&'a [f32]> {
        Ok(&self.rows[range.start * self.width..range.end * self.width])
    }

    fn notes(&self) -> Vec<String> {
        let notes = self.extras.iter().filter(|(name, _)| *name == NOTES).filter_map(|(_, notes)| notes.as_array());
        notes.flatten().filter_map(|note| note.as_str()).map(String::from).collect()
    }

    fn features(&self) -> Result<Features> {
        Ok(self.clone())
    }
}

/// A borrowed table is a table.
impl<T: Table> Table for &T {
    fn len(&self) -> usize {
        (**self).len()
    }

    fn width(&self) -> usize {
        (**self).width()
    }

    fn name(&self, row: usize) -> &str {
        (**self).name(row)
    }

    fn block<'a>(&'a self, range: Range<usize>, room: &'a mut Vec<f32>) -> Result<&'a [f32]> {
        (**self).block(range, room)
    }

    fn unseen(&self, name: &str) -> Option<Vec<f32>> {
        (**self).unseen(name)
    }

    fn spelling(&self, name: &str) -> Option<String> {
        (**self).spelling(name)
    }

    fn notes(&self) -> Vec<String> {
        (**self).notes()
    }
}
