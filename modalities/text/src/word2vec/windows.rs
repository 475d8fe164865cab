//! Windows: which words are trained together, drawn anew in every epoch.
//!
//! A sample is a block of the corpus. Drawing one drops occurrences of frequent words (subsampling), then shrinks each word's window.
//! Negatives are not drawn here but during training, from the key that the block carries, so that every implementation sees the same ones
//! and no memory is spent on them.

use std::ops::Range;

use ctk_core::Result;
use ctk_core::data::source::Source;
use ctk_core::rng::{Key, Stream};
use ctk_texts::corpus::{Corpus, END};
use rand::RngCore;

use super::frequency;
use super::rows::step::GROUP;

/// Draws windows from a corpus.
pub struct Windows<'a> {
    corpus: &'a Corpus,
    window: u32,
    // The probability of keeping each word, as a threshold for 32 random bits.
    keep: Vec<u32>,
}

impl<'a> Windows<'a> {
    /// Windows of at most `window` words to each side; `subsample` is the threshold t of [`frequency::keep`].
    pub fn new(corpus: &'a Corpus, window: u32, subsample: f64) -> Self {
        let keep =
            frequency::keep(corpus.vocabulary(), subsample).into_iter().map(|p| (p * f64::from(u32::MAX)) as u32).collect();
        Windows { corpus, window, keep }
    }

    /// The number of words of an epoch that subsampling keeps, on average.
    pub fn kept(&self) -> f64 {
        let counts = self.corpus.vocabulary().counts();
        counts.iter().zip(&self.keep).map(|(&count, &keep)| count as f64 * f64::from(keep) / f64::from(u32::MAX)).sum()
    }
}

/// What one part of a step is trained on.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Its blocks, in order.
    pub blocks: Vec<Block>,
}

/// One block of the corpus after subsampling.
#[derive(Clone, Debug)]
pub struct Block {
    /// The words that were kept.
    pub ids: Vec<u32>,
    /// The window of each word: 1..=`reach`, uniform.
    pub radii: Vec<u32>,
    /// The largest possible window.
    pub reach: usize,
    /// The ranges of lines in `ids`; windows do not cross them.
    pub lines: Vec<Range<usize>>,
    /// The key of the stream that negatives are drawn from, window by window.
    pub negatives: Key,
}

/// A centre word and the words around it, as places in a block.
#[derive(Clone, Debug)]
pub struct Window {
    /// The words, including the centre.
    pub words: Range<usize>,
    /// The centre.
    pub centre: usize,
}

impl Window {
    /// Number of words around the centre.
    pub fn pairs(&self) -> usize {
        self.words.len() - 1
    }

    /// Which of the 64 words from place `from` on are around the centre: a bit each, the lowest for the first.
    #[inline]
    pub(crate) fn contexts_from(&self, from: usize) -> u64 {
        // The bits up to a place.
        let below = |at: usize| match at.saturating_sub(from) {
            bits @ 0..64 => (1 << bits) - 1,
            _ => u64::MAX,
        };
        let words = below(self.words.end) & !below(self.words.start);
        words & !(below(self.centre + 1) & !below(self.centre))
    }

    /// The words around the centre.
    pub(crate) fn contexts(&self) -> impl Iterator<Item = usize> {
        (self.words.start..self.centre).chain(self.centre + 1..self.words.end)
    }
}

/// The windows of neighbouring words, which may be trained together.
#[derive(Clone, Debug)]
pub struct Group {
    windows: [Window; GROUP],
    count: usize,
}

impl std::ops::Deref for Group {
    type Target = [Window];

    fn deref(&self) -> &[Window] {
        &self.windows[..self.count]
    }
}

impl Block {
    /// The window of each word, in order.
    pub fn windows(&self) -> impl Iterator<Item = Window> {
        self.lines.iter().flat_map(move |line| line.clone().map(move |centre| self.window(line, centre)))
    }

    /// The windows in order, neighbours of a line together: [`GROUP`] of them, or fewer at a line's end and where a word repeats.
    pub fn groups(&self) -> impl Iterator<Item = Group> {
        self.lines.iter().flat_map(move |line| {
            let mut next = line.start;
            std::iter::from_fn(move || {
                let first = next;
                next += usize::from(first < line.end);
                while next < line.end && next - first < GROUP && !self.ids[first..next].contains(&self.ids[next]) {
                    next += 1;
                }
                // An unused window repeats the last one.
                let windows = std::array::from_fn(|j| self.window(line, (first + j).min(next.max(1) - 1)));
                (first < next).then_some(Group { windows, count: next - first })
            })
        })
    }

    fn window(&self, line: &Range<usize>, centre: usize) -> Window {
        let radius = self.radii.get(centre).map_or(0, |&radius| radius as usize);
        Window { words: centre.saturating_sub(radius).max(line.start)..(centre + 1 + radius).min(line.end), centre }
    }

    fn draw(block: &[u32], keep: &[u32], window: u32, key: Key) -> Block {
        let mut thin = key.of("subsample").stream();
        let (mut ids, mut count, mut lines) = (vec![0; block.len()], 0, Vec::new());
        for line in block.split(|&id| id == END) {
            let start = count;
            for &id in line {
                // Written in any case: whether it is kept is random, and a branch would often be mispredicted.
                ids[count] = id;
                count += usize::from(thin.next_u32() <= keep[id as usize]);
            }
            lines.push(start..count);
        }
        ids.truncate(count);
        let mut shrink = key.of("window").stream();
        let radii = ids.iter().map(|_| 1 + below(&mut shrink, window)).collect();
        Block { ids, radii, reach: window as usize, lines, negatives: key.of("negatives") }
    }
}

/// A number below `n`; the bias of a 32-bit product is far too small to matter for windows.
fn below(rng: &mut Stream, n: u32) -> u32 {
    ((u64::from(rng.next_u32()) * u64::from(n)) >> 32) as u32
}

impl Source for Windows<'_> {
    type Batch = Batch;

    fn len(&self) -> usize {
        self.corpus.len()
    }

    fn draw(&self, samples: &[u32], key: Key) -> Result<Batch> {
        let mut buffer = Vec::new();
        let mut block = |&s: &u32| {
            let words = self.corpus.block(s as usize, &mut buffer)?;
            Ok(Block::draw(words, &self.keep, self.window, key.at(u64::from(s))))
        };
        Ok(Batch { blocks: samples.iter().map(&mut block).collect::<Result<_>>()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ctk_texts::corpus::Limits;

    fn corpus() -> Corpus {
        // `the` is half of the text.
        let text: String = (0..3000).map(|i| format!("the w{} the w{}\n", i % 50, i % 7)).collect();
        Corpus::from_text(&text, Limits { min_count: 1, max_size: None }).unwrap()
    }

    #[test]
    fn radii_are_uniform_and_windows_stay_on_their_line() {
        let corpus = corpus();
        let windows = Windows::new(&corpus, 5, 0.0);
        let all: Vec<u32> = (0..corpus.len() as u32).collect();
        let batch = windows.draw(&all, Key::new(1)).unwrap();
        let mut seen = [0f64; 5];
        let mut words = 0;
        for block in &batch.blocks {
            words += block.ids.len();
            block.radii.iter().for_each(|&r| seen[r as usize - 1] += 1.0);
            for window in block.windows() {
                assert!(window.pairs() <= 3, "lines of four words");
                assert_eq!(window.contexts().count(), window.pairs());
                assert!(window.words.contains(&window.centre) && window.contexts().all(|at| at != window.centre));
            }
        }
        assert_eq!(words, 12_000);
        let chi: f64 = seen.iter().map(|s| (s - 2400.0).powi(2) / 2400.0).sum();
        // 4 degrees of freedom: the 99.9th percentile is 18.5.
        assert!(chi < 18.5, "{seen:?}");
    }

    #[test]
    fn contexts_by_bits_are_the_contexts() {
        for (start, centre, end) in [(0, 0, 1), (0, 3, 8), (5, 9, 12), (60, 64, 70), (10, 100, 300)] {
            let window = Window { words: start..end, centre };
            for from in [0, 1, 5, 7, 9, 63, 64, 65, 128] {
                let bits = window.contexts_from(from);
                let named: Vec<usize> = (0..64).filter(|bit| bits >> bit & 1 == 1).map(|bit| from + bit).collect();
                let within = |at: &usize| (from..from + 64).contains(at);
                assert_eq!(named, window.contexts().filter(within).collect::<Vec<_>>(), "{window:?} from {from}");
            }
        }
    }

    #[test]
    fn groups_have_every_window_once_and_no_word_twice() {
        let corpus = corpus();
        let all: Vec<u32> = (0..corpus.len() as u32).collect();
        for block in &Windows::new(&corpus, 5, 1e-2).draw(&all, Key::new(1)).unwrap().blocks {
            let windows: Vec<Window> = block.windows().collect();
            let grouped: Vec<Window> = block.groups().flat_map(|group| group.to_vec()).collect();
            assert_eq!(format!("{windows:?}"), format!("{grouped:?}"));
            for group in block.groups() {
                assert!(group.len() == 1 || block.ids[group[0].centre] != block.ids[group[1].centre]);
            }
        }
    }

    #[test]
    fn words_are_kept_as_often_as_the_formula_says() {
        let corpus = corpus();
        let t = 1e-2;
        let windows = Windows::new(&corpus, 5, t);
        let all: Vec<u32> = (0..corpus.len() as u32).collect();
        let keep = frequency::keep(corpus.vocabulary(), t);
        let mut seen = vec![0f64; keep.len()];
        let epochs = 20;
        for epoch in 0..epochs {
            let batch = windows.draw(&all, Key::new(1).at(epoch)).unwrap();
            batch.blocks.iter().flat_map(|b| &b.ids).for_each(|&id| seen[id as usize] += 1.0);
        }
        let kept = epochs as f64 * windows.kept();
        assert!((seen.iter().sum::<f64>() - kept).abs() <= 4.5 * kept.sqrt(), "kept {seen:?}, expected {kept} in all");
        for ((seen, keep), count) in seen.iter().zip(&keep).zip(corpus.vocabulary().counts()) {
            let n = (epochs * count) as f64;
            let sd = (n * keep * (1.0 - keep)).sqrt();
            assert!((seen - n * keep).abs() <= 4.5 * sd, "kept {seen} of {n}, expected {}", n * keep);
        }
    }

    #[test]
    fn a_draw_hangs_on_sample_and_key_alone() {
        let corpus = corpus();
        let windows = Windows::new(&corpus, 5, 1e-2);
        let together = windows.draw(&[0, 3], Key::new(4)).unwrap();
        let alone = windows.draw(&[3], Key::new(4)).unwrap();
        assert_eq!(together.blocks[1].ids, alone.blocks[0].ids);
        assert_eq!(together.blocks[1].radii, alone.blocks[0].radii);
        assert_eq!(together.blocks[1].negatives, alone.blocks[0].negatives);
        assert_ne!(windows.draw(&[3], Key::new(5)).unwrap().blocks[0].ids, alone.blocks[0].ids);
    }
}
