//! Two views of a text that has no pair: two crops, two neighbouring windows, or the text twice.

use rand::Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the two views of a text are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Cut {
    /// The text twice: the views differ by the encoder's dropout alone (SimCSE, Gao et al. 2021, section 3).
    #[default]
    Same,
    /// Two spans, drawn independently of each other, so they may overlap (Contriever, Izacard et al. 2022, section 3.1). Both keys are shares
    /// of the text's words.
    Crops {
        /// The shortest span.
        least: f64,
        /// The longest span.
        most: f64,
    },
    /// Two neighbouring windows, the first before the second.
    Windows {
        /// Words of a window.
        words: usize,
    },
}

impl Cut {
    /// Two views of `text`, which are parts of it from the beginning of a word to the end of a word. Words are what stands between white
    /// space. A text without a word is its own views.
    pub fn draw<'t>(self, text: &'t str, rng: &mut impl Rng) -> [&'t str; 2] {
        match self {
            Cut::Same => [text, text],
            Cut::Crops { least, most } => crops(text, least, most, rng),
            Cut::Windows { words } => windows(text, words, rng),
        }
    }
}

/// Two spans of `text`, drawn independently. A span's length is drawn evenly between the shares `least` and `most` of the text's words, and
/// is one word at least; then its place is drawn among all that it fits into.
pub fn crops<'t>(text: &'t str, least: f64, most: f64, rng: &mut impl Rng) -> [&'t str; 2] {
    let words = words(text);
    if words.is_empty() {
        return [text, text];
    }
    let (least, most) = (least.clamp(0.0, 1.0), most.clamp(0.0, 1.0));
    [(); 2].map(|()| {
        let share = least + (most - least).max(0.0) * rng.random::<f64>();
        let length = ((share * words.len() as f64).round() as usize).clamp(1, words.len());
        let start = rng.random_range(0..=words.len() - length);
        span(text, &words[start..start + length])
    })
}

/// Two windows of `size` words, the second directly behind the first; their place is drawn among all that they fit into. A shorter text is
/// cut into halves, and a single word is both windows.
pub fn windows<'t>(text: &'t str, size: usize, rng: &mut impl Rng) -> [&'t str; 2] {
    let words = words(text);
    if words.len() < 2 {
        return [text, text];
    }
    let size = size.max(1);
    if words.len() < size.saturating_mul(2) {
        let (first, second) = words.split_at(words.len() / 2);
        return [span(text, first), span(text, second)];
    }
    let start = rng.random_range(0..=words.len() - 2 * size);
    let (first, second) = words[start..start + 2 * size].split_at(size);
    [span(text, first), span(text, second)]
}

/// Start and end of each word in bytes.
fn words(text: &str) -> Vec<(usize, usize)> {
    let start = |word: &str| word.as_ptr() as usize - text.as_ptr() as usize;
    text.split_whitespace().map(|word| (start(word), start(word) + word.len())).collect()
}

/// The part of `text` from the first to the last of some words.
fn span<'t>(text: &'t str, words: &[(usize, usize)]) -> &'t str {
    match (words.first(), words.last()) {
        (Some((start, _)), Some((_, end))) => &text[*start..*end],
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ctk_core::rng::Key;

    fn text(words: usize) -> String {
        let words: Vec<String> = (0..words).map(|i| format!("w{i}ü")).collect();
        format!("  {}\n", words.join(" \u{2003}"))
    }

    fn numbers(view: &str) -> Vec<usize> {
        view.split_whitespace().map(|word| word.trim_matches(['w', 'ü']).parse().unwrap()).collect()
    }

    #[test]
    fn crops_are_spans_of_the_wanted_lengths_at_all_places() {
        let text = text(20);
        let (mut lengths, mut starts, mut equal) = ([0; 21], [0; 20], 0);
        for i in 0..4000 {
            let views = Cut::Crops { least: 0.1, most: 0.5 }.draw(&text, &mut Key::new(i).rng());
            for view in views {
                let words = numbers(view);
                assert!(words.windows(2).all(|pair| pair[1] == pair[0] + 1) && view.trim() == view, "{view:?}");
                lengths[words.len()] += 1;
                starts[words[0]] += 1;
            }
            equal += usize::from(views[0] == views[1]);
        }
        assert!(lengths[..2].iter().chain(&lengths[11..]).all(|count| *count == 0), "{lengths:?}");
        assert!(lengths[3..=9].iter().all(|count| (850..1150).contains(count)), "1000 of each are expected: {lengths:?}");
        assert!(starts[..19].iter().all(|count| *count > 0) && starts[19] == 0, "{starts:?}");
        // Independent spans agree in length and place about once in a hundred times.
        assert!((5..120).contains(&equal), "{equal}");
        for words in 1..4 {
            let text = self::text(words);
            let views = crops(&text, 0.0, 0.0, &mut Key::new(1).rng());
            assert!(views.iter().all(|view| numbers(view).len() == 1), "a span has a word at least");
            let whole = crops(&text, 1.0, 1.0, &mut Key::new(1).rng());
            assert_eq!(whole, [text.trim(); 2]);
        }
    }

    #[test]
    fn windows_are_neighbours() {
        let text = text(20);
        let mut starts = [0; 20];
        for i in 0..1000 {
            let [first, second] = Cut::Windows { words: 6 }.draw(&text, &mut Key::new(i).rng()).map(numbers);
            let start = first[0];
            assert_eq!([first, second].concat(), (start..start + 12).collect::<Vec<_>>());
            starts[start] += 1;
        }
        assert!(starts[..9].iter().all(|count| *count > 60) && starts[9..].iter().all(|count| *count == 0), "{starts:?}");
        let [first, second] = windows(&text, 15, &mut Key::new(0).rng()).map(numbers);
        assert_eq!((first, second), ((0..10).collect(), (10..20).collect()), "a short text is halved");
    }

    #[test]
    fn texts_without_words_are_their_own_views() {
        let mut rng = Key::new(0).rng();
        for cut in [Cut::Same, Cut::Crops { least: 0.1, most: 0.5 }, Cut::Windows { words: 3 }] {
            assert_eq!(cut.draw("", &mut rng), ["", ""]);
            assert_eq!(cut.draw(" \n", &mut rng), [" \n", " \n"]);
            assert_eq!(cut.draw("one", &mut rng), ["one", "one"]);
        }
        assert_eq!(Cut::Same.draw("one two", &mut rng), ["one two", "one two"]);
    }
}
