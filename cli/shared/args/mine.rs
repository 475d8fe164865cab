//! The flags of `ctk mine`.

use std::ops::Range;
use std::path::PathBuf;

use clap::{Args as ClapArgs, ValueEnum, ValueHint};

use super::{ModelArgs, Over, Roles};

#[derive(ClapArgs)]
pub struct Mine {
    #[command(flatten)]
    pub model: ModelArgs,
    /// The column of anchors, by its name or its number from 1 on; default: recognised by common names
    #[arg(long, value_name = "COLUMN", requires = "positive")]
    pub anchor: Option<String>,
    /// The column of positives
    #[arg(long, value_name = "COLUMN", requires = "anchor")]
    pub positive: Option<String>,
    /// Take negatives from these texts in place of the positives: a file with one text a line, or a table
    #[arg(long, value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub corpus: Option<PathBuf>,
    /// The column of texts in --corpus
    #[arg(long, value_name = "COLUMN", requires = "corpus")]
    pub corpus_column: Option<String>,
    /// The ranks to look at: 10..60 skips the ten nearest candidates and looks at the next fifty. Default: from 0 on as many as negatives are
    /// asked for, and ten times as many with --margin, --relative-margin, --most or --sampling random
    #[arg(long, value_name = "START..END", value_parser = ranks)]
    pub rank: Option<(usize, Option<usize>)>,
    /// A negative's cosine with the anchor is at most that of the positive (the least similar one of several) minus X
    #[arg(long, value_name = "X", allow_negative_numbers = true, value_parser = finite)]
    pub margin: Option<f64>,
    /// A negative's cosine is at most that of the positive minus X times its size: with 0.05 at most 95 % of it
    #[arg(long, value_name = "X", allow_negative_numbers = true, value_parser = finite)]
    pub relative_margin: Option<f64>,
    /// The largest cosine of a negative
    #[arg(long, value_name = "COSINE", allow_negative_numbers = true, value_parser = finite)]
    pub most: Option<f64>,
    /// The smallest cosine of a negative
    #[arg(long, value_name = "COSINE", allow_negative_numbers = true, value_parser = finite)]
    pub least: Option<f64>,
    #[command(flatten)]
    pub roles: Roles,
    /// Negatives for each anchor
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub negatives: u16,
    /// How negatives are chosen among the ranks
    #[arg(long, value_enum, default_value_t = Sampling::Top)]
    pub sampling: Sampling,
    /// Seed of --sampling random
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// What a row of the file is
    #[arg(long, value_enum, default_value_t = Layout::Triplet)]
    pub format: Layout,
    /// The file to write: .tsv, .csv or .jsonl, with the columns anchor, positive and negative, or negative_1, negative_2 and so on
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub out: PathBuf,
    #[command(flatten)]
    pub over: Over,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Sampling {
    /// The nearest
    Top,
    /// Drawn at random, the same ones for the same seed and anchor
    Random,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Layout {
    /// A row for each negative
    Triplet,
    /// A row for each pair, with all its negatives; pairs with fewer negatives than were asked for are left out
    NTuple,
}

impl Mine {
    /// The ranks that are looked at.
    pub fn ranks(&self) -> Range<usize> {
        let (start, end) = self.rank.unwrap_or((0, None));
        let picky = self.margin.or(self.relative_margin).or(self.most).is_some() || self.sampling == Sampling::Random;
        let usual = usize::from(self.negatives) * if picky { 10 } else { 1 };
        start..end.unwrap_or(start.saturating_add(usual))
    }
}

/// Ranks as `10..60`, `10..` or `..60`.
fn ranks(text: &str) -> Result<(usize, Option<usize>), String> {
    let parsed = text.split_once("..").and_then(|(start, end)| {
        let start = if start.is_empty() { Some(0) } else { start.parse().ok() };
        let end = if end.is_empty() { Some(None) } else { end.parse().ok().map(Some) };
        start.zip(end)
    });
    match parsed {
        Some((start, Some(end))) if end <= start => Err(format!("there is no rank from {start} on that is below {end}")),
        Some(ranks) => Ok(ranks),
        None => Err("ranks are written as 10..60, 10.. or ..60".to_string()),
    }
}

fn finite(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|value: &f64| value.is_finite()).ok_or_else(|| "this is not a number".to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_read_with_open_ends() {
        assert_eq!(ranks("10..60"), Ok((10, Some(60))));
        assert_eq!((ranks("10.."), ranks("..60"), ranks("..")), (Ok((10, None)), Ok((0, Some(60))), Ok((0, None))));
        for wrong in ["10", "a..3", "3..3", "5..3", "", "1..2..3", "-1..3", "1..=3"] {
            assert!(ranks(wrong).is_err(), "{wrong}");
        }
    }
}
