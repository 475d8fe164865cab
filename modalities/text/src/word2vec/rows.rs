//! The rows of an embedding table, shared by all threads without a lock.
//!
//! Hogwild (Niu et al. 2011): threads read and write the same rows, and an update may be lost when two meet, which for
//! sparse gradients does not matter. In Rust `&mut` to a shared row would be undefined behaviour, so a value is an atomic
//! holding the bits of two floats, read and written relaxed: on every machine a plain load and store, with no `unsafe`.
//! Work is done on local copies: a row is read, changed and written back whole.
//!
//! Rows are padded to 16 floats and start at 64 bytes, one cache line, so that two rows never share a line. To run the
//! tests of this room under Miri: `cargo +nightly miri test -p ctk-text rows`.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use ctk_core::rng::Key;
use rand::RngCore;

/// Floats of a cache line.
pub const LANES: usize = 16;

/// A cache line of a local row.
pub type Lane = [f32; LANES];

#[repr(align(64))]
struct Line([AtomicU64; LANES / 2]);

/// A table of float rows.
pub struct Rows {
    lines: Vec<Line>,
    width: usize,
}

impl Rows {
    /// `count` rows of `width` zeros.
    pub fn zeros(count: usize, width: usize) -> Rows {
        let lines = (0..count * width.div_ceil(LANES)).map(|_| Line(Default::default())).collect();
        Rows { lines, width }
    }

    /// `count` rows of `width` values U(−½, ½) / width, as word2vec.c starts; each row has its own stream.
    pub fn uniform(count: usize, width: usize, key: Key) -> Rows {
        let rows = Rows::zeros(count, width);
        let mut values = vec![0.0; width];
        for row in 0..count {
            let mut rng = key.at(row as u64).rng();
            // 24 bits are what a float holds.
            values.fill_with(|| ((rng.next_u32() >> 8) as f32 / (1 << 24) as f32 - 0.5) / width as f32);
            rows.set(row, &values);
        }
        rows
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.lines.len() / self.lanes()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Values a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Cache lines a row: how long a local copy must be.
    pub fn lanes(&self) -> usize {
        self.width.div_ceil(LANES)
    }

    /// Copies row `row` to `into`, padding included.
    #[inline]
    pub fn read(&self, row: u32, into: &mut [Lane]) {
        for (line, lane) in self.line(row as usize).iter().zip(into) {
            for (cell, local) in line.0.iter().zip(lane.as_chunks_mut::<2>().0) {
                *local = unpack(cell.load(Relaxed));
            }
        }
    }

    /// Copies `from` to row `row`. The padding must be zero and stays so.
    #[inline]
    pub fn write(&self, row: u32, from: &[Lane]) {
        for (line, lane) in self.line(row as usize).iter().zip(from) {
            for (cell, local) in line.0.iter().zip(lane.as_chunks::<2>().0) {
                cell.store(pack(*local), Relaxed);
            }
        }
    }

    /// Asks for row `row` to be brought near.
    #[inline]
    pub fn prefetch(&self, row: u32) {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        for line in self.line(row as usize) {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            // SAFETY: a hint; the address is that of a live line, and nothing is read or written.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(line).cast()) };
        }
        #[cfg(not(all(target_arch = "x86_64", not(miri))))]
        let _ = row;
    }

    /// Sets row `row` to `values`, `width` of them.
    pub fn set(&self, row: usize, values: &[f32]) {
        assert_eq!(values.len(), self.width, "one value a column");
        let mut lanes = vec![[0.0; LANES]; self.lanes()];
        lanes.as_flattened_mut()[..self.width].copy_from_slice(values);
        self.write(row as u32, &lanes);
    }

    /// All values, row by row, without padding.
    pub fn to_vec(&self) -> Vec<f32> {
        let mut lanes = vec![[0.0; LANES]; self.lanes()];
        let mut values = Vec::with_capacity(self.len() * self.width);
        for row in 0..self.len() {
            self.read(row as u32, &mut lanes);
            values.extend_from_slice(&lanes.as_flattened()[..self.width]);
        }
        values
    }

    fn line(&self, row: usize) -> &[Line] {
        &self.lines[row * self.lanes()..][..self.lanes()]
    }
}

fn unpack(bits: u64) -> [f32; 2] {
    [f32::from_bits(bits as u32), f32::from_bits((bits >> 32) as u32)]
}

fn pack([low, high]: [f32; 2]) -> u64 {
    u64::from(low.to_bits()) | u64::from(high.to_bits()) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_keep_their_values_and_their_padding() {
        let rows = Rows::zeros(3, 20);
        let values: Vec<f32> = (0..20).map(|v| v as f32).collect();
        rows.set(1, &values);
        let mut local = [[1.0; LANES]; 2];
        rows.read(1, &mut local);
        assert_eq!(local.as_flattened()[..20], values);
        assert!(local.as_flattened()[20..].iter().all(|&v| v == 0.0), "the padding is zero");
        rows.write(2, &local);
        assert_eq!(rows.to_vec()[40..], values);
        assert_eq!(rows.to_vec()[..20], [0.0; 20]);
        assert_eq!(rows.line(1).as_ptr() as usize % 64, 0);
    }

    #[test]
    fn initial_values_fill_the_range_whatever_the_number_of_rows() {
        let rows = Rows::uniform(200, 50, Key::new(3)).to_vec();
        assert!(rows.iter().all(|v| v.abs() <= 0.01));
        let mean = rows.iter().sum::<f32>() / 1e4;
        let variance = rows.iter().map(|v| v * v).sum::<f32>() / 1e4;
        // Four standard errors of a uniform's mean and variance.
        assert!(mean.abs() < 4.0 * 0.0058 / 100.0 && (variance / 3.333e-5 - 1.0).abs() < 0.036, "{mean} {variance}");
        assert_eq!(Rows::uniform(100, 50, Key::new(3)).to_vec(), rows[..5000]);
    }

    #[test]
    fn threads_meet_on_rows_without_tearing_a_value() {
        // Every value ever written is one of few; a torn or invented one would show.
        let rows = Rows::zeros(4, 40);
        let allowed: Vec<u32> = (0..=4).map(|t| (t as f32 * 1.7).to_bits()).collect();
        let rounds = if cfg!(miri) { 20 } else { 20_000 };
        std::thread::scope(|scope| {
            for thread in 1..=4u32 {
                let (rows, allowed) = (&rows, &allowed);
                scope.spawn(move || {
                    let mut local = [[0.0; LANES]; 3];
                    for round in 0..rounds {
                        rows.read((round + thread) % 4, &mut local);
                        assert!(local.as_flattened().iter().all(|v| allowed.contains(&v.to_bits())));
                        rows.write(round % 4, &[[thread as f32 * 1.7; LANES]; 3]);
                    }
                });
            }
        });
        assert!(rows.to_vec().iter().all(|v| allowed.contains(&v.to_bits())));
    }

    #[test]
    fn threads_on_rows_of_their_own_lose_nothing() {
        let rows = Rows::zeros(8, 24);
        let rounds = if cfg!(miri) { 10 } else { 10_000 };
        std::thread::scope(|scope| {
            for thread in 0..4u32 {
                let rows = &rows;
                scope.spawn(move || {
                    let mut local = [[0.0; LANES]; 2];
                    for round in 0..2 * rounds {
                        let row = 2 * thread + round % 2;
                        rows.read(row, &mut local);
                        local.as_flattened_mut()[..24].iter_mut().for_each(|v| *v += 1.0);
                        rows.write(row, &local);
                    }
                });
            }
        });
        assert!(rows.to_vec().iter().all(|&v| v == rounds as f32));
    }
}
