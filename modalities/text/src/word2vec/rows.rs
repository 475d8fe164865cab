//! The rows of an embedding table, shared by all threads without a lock.
//!
//! Hogwild (Niu et al. 2011): threads read and write the same rows, and an update may be lost when two threads meet, which does not matter
//! for sparse gradients. In Rust `&mut` to a shared row would be undefined behaviour, so a value is an atomic with the bits of two floats,
//! read and written relaxed: on every machine a plain load and store. [`step`] trains rows, with vector instructions if the machine has
//! them.
//!
//! Rows are padded to 16 floats and aligned to 64 bytes, one cache line, so that two rows never share a line. Tables are in large pages if
//! the system has them, because rows are accessed in random order. To run the tests of this module under Miri: `cargo +nightly miri test -p
//! ctk-text rows`.

#[cfg(all(target_arch = "x86_64", not(miri)))]
mod bf16;
mod portable;
pub mod step;
pub mod stepper;
#[cfg(all(target_arch = "x86_64", not(miri)))]
mod x86;

use std::sync::atomic::AtomicU64;
#[cfg(not(all(target_arch = "x86_64", not(miri))))]
use std::sync::atomic::Ordering::Relaxed;

use ctk_core::rng::Key;
use ctk_core::{Context, Error, Result};
use rand::RngCore;

/// Floats of a cache line.
pub const LANES: usize = 16;

/// A cache line of a local row.
pub type Lane = [f32; LANES];

/// A cache line of a shared row.
#[derive(Default)]
#[repr(align(64))]
pub struct Line([AtomicU64; LANES / 2]);

impl Line {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    #[inline]
    fn get(&self) -> Lane {
        x86::get(self)
    }

    #[cfg(all(target_arch = "x86_64", not(miri)))]
    #[inline]
    fn set(&self, values: Lane) {
        x86::set(self, values);
    }

    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    fn get(&self) -> Lane {
        let mut values = [0.0; LANES];
        for (cell, two) in self.0.iter().zip(values.as_chunks_mut::<2>().0) {
            *two = unpack(cell.load(Relaxed));
        }
        values
    }

    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    fn set(&self, values: Lane) {
        for (cell, two) in self.0.iter().zip(values.as_chunks::<2>().0) {
            cell.store(pack(*two), Relaxed);
        }
    }

    /// Copies a row, padding included.
    #[inline]
    fn read(row: &[Line], into: &mut [Lane]) {
        row.iter().zip(into).for_each(|(line, local)| *local = line.get());
    }

    /// Overwrites a row. The padding must be zero, and stays zero.
    #[inline]
    fn write(row: &[Line], from: &[Lane]) {
        row.iter().zip(from).for_each(|(line, local)| line.set(*local));
    }

    /// row += moves.
    #[inline]
    fn add(row: &[Line], moves: &[Lane]) {
        for (line, moves) in row.iter().zip(moves) {
            let values = line.get();
            line.set(std::array::from_fn(|i| values[i] + moves[i]));
        }
    }
}

/// A table of float rows.
pub struct Rows {
    lines: Lines,
    width: usize,
    lanes: usize,
}

impl Rows {
    /// `count` rows of `width` zeros.
    ///
    /// # Errors
    /// There is not enough memory.
    pub fn zeros(count: usize, width: usize) -> Result<Rows> {
        let lanes = width.div_ceil(LANES);
        let lines = Lines::zeros(count * lanes).at(format!("a table of {count} rows of {width} values"))?;
        Ok(Rows { lines, width, lanes })
    }

    /// `count` rows of `width` values from U(−1, 1) / width, as in gensim and fastText; each row has its own stream. With half of that, as
    /// in word2vec.c, CBOW learns later (see `configs/word2vec/news.toml`).
    ///
    /// # Errors
    /// There is not enough memory.
    /// There is not as much memory.
    pub fn uniform(count: usize, width: usize, key: Key) -> Result<Rows> {
        let rows = Rows::zeros(count, width)?;
        let mut values = vec![0.0; width];
        for row in 0..count {
            let mut rng = key.at(row as u64).rng();
            // 24 bits are what a float holds.
            values.fill_with(|| ((rng.next_u32() >> 8) as f32 / (1 << 23) as f32 - 1.0) / width as f32);
            rows.set(row, &values);
        }
        Ok(rows)
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.lines.get().len() / self.lanes()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.lines.get().is_empty()
    }

    /// Values in a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Cache lines in a row: the length of a local copy.
    pub fn lanes(&self) -> usize {
        self.lanes
    }

    /// The position of row `row`, whether it exists or not.
    #[inline]
    fn row(&self, row: u32) -> *const Line {
        self.lines.get().as_ptr().wrapping_add(row as usize * self.lanes)
    }

    /// Prefetches a row of this table's width for writing.
    #[inline]
    fn prefetch(&self, row: *const Line) {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        (0..self.lanes).for_each(|line| x86::ask(&[row], line * size_of::<Line>()));
        #[cfg(not(all(target_arch = "x86_64", not(miri))))]
        let _ = row;
    }

    /// Sets row `row` to `values`, of which there are `width`.
    pub fn set(&self, row: usize, values: &[f32]) {
        assert_eq!(values.len(), self.width, "one value for each column");
        let mut lanes = vec![[0.0; LANES]; self.lanes()];
        lanes.as_flattened_mut()[..self.width].copy_from_slice(values);
        Line::write(self.line(row), &lanes);
    }

    /// Copies row `row` of another table of the same width.
    #[inline]
    pub fn copy(&self, from: &Rows, row: u32) {
        self.line(row as usize).iter().zip(from.line(row as usize)).for_each(|(to, from)| to.set(from.get()));
    }

    /// The squared length of row `row`.
    pub fn square(&self, row: u32) -> f32 {
        let sums = self.line(row as usize).iter().fold([0.0; LANES], |sums: Lane, line| {
            let values = line.get();
            std::array::from_fn(|i| sums[i] + values[i] * values[i])
        });
        sums.iter().sum()
    }

    /// Moves row `row` by `share` times the sum of its changes in `moved`, added in order, or sets it to the only changed replica; the row
    /// in each of `all` is then set to the result.
    pub fn meet<'a>(
        &self,
        row: usize,
        share: f32,
        moved: impl Iterator<Item = &'a Rows> + Clone,
        all: impl Iterator<Item = &'a Rows> + Clone,
    ) {
        let alone = moved.clone().nth(1).is_none();
        for (at, line) in self.line(row).iter().enumerate() {
            let of = |rows: &'a Rows| &rows.line(row)[at];
            let mut values = line.get();
            if alone {
                values = moved.clone().next().map_or(values, |rows| of(rows).get());
            } else {
                let start = values;
                for rows in moved.clone() {
                    let copy = of(rows).get();
                    values = std::array::from_fn(|i| values[i] + share * (copy[i] - start[i]));
                }
            }
            line.set(values);
            all.clone().for_each(|rows| of(rows).set(values));
        }
    }

    /// All values, row by row, without padding.
    pub fn to_vec(&self) -> Vec<f32> {
        let mut lanes = vec![[0.0; LANES]; self.lanes()];
        let mut values = Vec::with_capacity(self.len() * self.width);
        for row in 0..self.len() {
            Line::read(self.line(row), &mut lanes);
            values.extend_from_slice(&lanes.as_flattened()[..self.width]);
        }
        values
    }

    #[inline]
    fn line(&self, row: usize) -> &[Line] {
        &self.lines.get()[row * self.lanes()..][..self.lanes()]
    }
}

/// Lines of zeros in memory for which large pages are requested.
#[cfg(not(miri))]
struct Lines {
    map: memmap2::MmapRaw,
    count: usize,
}

#[cfg(not(miri))]
impl Lines {
    fn zeros(count: usize) -> Result<Lines> {
        let bytes = count.checked_mul(size_of::<Line>()).ok_or_else(|| Error::new("more memory than can be addressed"))?;
        let map = memmap2::MmapRaw::from(memmap2::MmapMut::map_anon(bytes.max(1))?);
        // A request only: without large pages, small ones are used.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        Ok(Lines { map, count })
    }

    #[inline]
    fn get(&self) -> &[Line] {
        // SAFETY: the map is anonymous, so its bytes are zeros, which are a valid `Line`, and nothing else refers to it. It begins at a
        // page, so it is aligned to 64 bytes. It has space for `count` lines and lives as long as `self`, and it is accessed only through
        // this slice.
        unsafe { std::slice::from_raw_parts(self.map.as_mut_ptr().cast::<Line>().cast_const(), self.count) }
    }
}

/// Miri does not support memory maps.
#[cfg(miri)]
struct Lines(Vec<Line>);

#[cfg(miri)]
impl Lines {
    fn zeros(count: usize) -> Result<Lines> {
        Ok(Lines((0..count).map(|_| Line::default()).collect()))
    }

    fn get(&self) -> &[Line] {
        &self.0
    }
}

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
fn unpack(bits: u64) -> [f32; 2] {
    [f32::from_bits(bits as u32), f32::from_bits((bits >> 32) as u32)]
}

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
fn pack([low, high]: [f32; 2]) -> u64 {
    u64::from(low.to_bits()) | u64::from(high.to_bits()) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_keep_their_values_and_their_padding() {
        let rows = Rows::zeros(3, 20).unwrap();
        let values: Vec<f32> = (0..20).map(|v| v as f32).collect();
        rows.set(1, &values);
        let mut local = [[1.0; LANES]; 2];
        Line::read(rows.line(1), &mut local);
        assert_eq!(local.as_flattened()[..20], values);
        assert!(local.as_flattened()[20..].iter().all(|&v| v == 0.0), "the padding is zero");
        Line::write(rows.line(2), &local);
        assert_eq!(rows.to_vec()[40..], values);
        assert_eq!(rows.to_vec()[..20], [0.0; 20]);
        assert_eq!(rows.line(1).as_ptr() as usize % 64, 0);
    }

    #[test]
    fn initial_values_fill_the_range_whatever_the_number_of_rows() {
        let rows = Rows::uniform(200, 50, Key::new(3)).unwrap().to_vec();
        assert!(rows.iter().all(|v| v.abs() <= 0.02));
        let mean = rows.iter().sum::<f32>() / 1e4;
        let variance = rows.iter().map(|v| v * v).sum::<f32>() / 1e4;
        // Four standard errors of a uniform's mean and variance.
        assert!(mean.abs() < 4.0 * 0.0116 / 100.0 && (variance / 1.333e-4 - 1.0).abs() < 0.036, "{mean} {variance}");
        assert_eq!(Rows::uniform(100, 50, Key::new(3)).unwrap().to_vec(), rows[..5000]);
    }

    #[test]
    fn threads_meet_on_rows_without_tearing_a_value() {
        // Every value that is ever written is one of a few; a torn or invented value would be noticed.
        let rows = Rows::zeros(4, 40).unwrap();
        let allowed: Vec<u32> = (0..=4).map(|t| (t as f32 * 1.7).to_bits()).collect();
        let rounds = if cfg!(miri) { 20 } else { 20_000 };
        std::thread::scope(|scope| {
            for thread in 1..=4u32 {
                let (rows, allowed) = (&rows, &allowed);
                scope.spawn(move || {
                    let mut local = [[0.0; LANES]; 3];
                    for round in 0..rounds {
                        Line::read(rows.line(((round + thread) % 4) as usize), &mut local);
                        assert!(local.as_flattened().iter().all(|v| allowed.contains(&v.to_bits())));
                        Line::write(rows.line((round % 4) as usize), &[[thread as f32 * 1.7; LANES]; 3]);
                    }
                });
            }
        });
        assert!(rows.to_vec().iter().all(|v| allowed.contains(&v.to_bits())));
    }

    #[test]
    fn threads_on_rows_of_their_own_lose_nothing() {
        let rows = Rows::zeros(8, 24).unwrap();
        let rounds = if cfg!(miri) { 10 } else { 10_000 };
        std::thread::scope(|scope| {
            for thread in 0..4u32 {
                let rows = &rows;
                scope.spawn(move || {
                    let mut local = [[0.0; LANES]; 2];
                    for round in 0..2 * rounds {
                        let row = 2 * thread + round % 2;
                        Line::read(rows.line(row as usize), &mut local);
                        local.as_flattened_mut()[..24].iter_mut().for_each(|v| *v += 1.0);
                        Line::write(rows.line(row as usize), &local);
                    }
                });
            }
        });
        assert!(rows.to_vec().iter().all(|&v| v == rounds as f32));
    }
}
