//! Refuses tables that do not fit into memory before they are allocated, and says what would fit.

use ctk_core::{Error, Result, memory};

use super::sparse::Settings;

/// Values in a cache line: rows are padded with zeros to whole lines.
const LINE: usize = 16;

/// Refuses tables of `words` input rows (plus the settings' buckets) and `outputs` output rows that do not fit into free memory.
///
/// # Errors
/// They do not fit; the error says what would.
pub(super) fn check(words: usize, outputs: usize, settings: &Settings) -> Result<()> {
    memory::free().map_or(Ok(()), |free| check_in(words, outputs, settings, free))
}

fn check_in(words: usize, outputs: usize, settings: &Settings, free: u64) -> Result<()> {
    let buckets = settings.subwords.map_or(0, |subwords| subwords.buckets);
    let need = |width: usize, buckets: usize| -> u64 {
        let row = (width.next_multiple_of(LINE) * size_of::<f32>()) as u64;
        let (input, output) = ((words + buckets) as u64 * row, outputs as u64 * row);
        // A shard has tables of its own, and counts uses of each row; for a checkpoint a table is copied.
        let shards = settings.shards.unwrap_or(0) as u64;
        (input + output) * (1 + shards) + (words + buckets + outputs) as u64 * 4 * shards + input.max(output)
    };
    let needed = need(settings.width, buckets);
    if needed <= free {
        return Ok(());
    }
    let rows = match buckets {
        0 => format!("{words} words"),
        _ => format!("{words} words and {buckets} buckets"),
    };
    let what = format!(
        "the tables of {rows}, {} values each, need about {}, and {} are free",
        settings.width,
        memory::size(needed),
        memory::size(free)
    );
    let section = if buckets == 0 { "encoder.table" } else { "encoder.subwords" };
    let widths = (1..settings.width.div_ceil(LINE)).rev().map(|lines| lines * LINE);
    if let Some(width) = widths.into_iter().find(|width| need(*width, buckets) <= free) {
        return Err(Error::usage(what).hint(format!("{section}.width = {width} would fit")));
    }
    let fewer = std::iter::successors(Some(buckets / 2), |buckets| Some(buckets / 2)).take_while(|buckets| *buckets > 0);
    if let Some(buckets) = fewer.into_iter().find(|buckets| need(LINE, *buckets) <= free) {
        return Err(Error::usage(what).hint(format!("{section}.width = {LINE} with {section}.buckets = {buckets} would fit")));
    }
    Err(Error::usage(what).hint("fewer words (vocabulary.min_count, vocabulary.max_size) or fewer train.shards need less"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::word2vec::job::Word2VecJob;
    use ctk_core::recipe::Recipe;

    const GB: u64 = 1_000_000_000;

    fn said(text: &str, words: usize, free: u64) -> Option<String> {
        let settings = Word2VecJob::new(&Recipe::new("a.toml", text)).unwrap().settings();
        check_in(words, words, &settings, free).err().map(|e| e.to_string())
    }

    #[test]
    fn what_cannot_fit_is_refused_with_what_would() {
        assert_eq!(said("[encoder.table]\nwidth = 300\n", 400_000, 2 * GB), None);
        let wide = said("[encoder.table]\nwidth = 65536\n", 400_000, 2 * GB).unwrap();
        assert!(wide.contains("400000 words, 65536 values each, need about 314.6 GB, and 2.0 GB are free"), "{wide}");
        assert!(wide.contains("hint: encoder.table.width = 416 would fit"), "{wide}");
        let buckets = said("[encoder.subwords]\nbuckets = 1073741824\n", 1000, 8 * GB).unwrap();
        assert!(buckets.contains("width = 16 with encoder.subwords.buckets = 33554432 would fit"), "{buckets}");
        let shards = said("[train]\ndeterministic = true\nshards = 256\n", 1_000_000, GB).unwrap();
        assert!(shards.contains("train.shards"), "{shards}");
    }
}
