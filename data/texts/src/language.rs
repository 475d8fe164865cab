//! The generated language: a small grammar with planted classes and relations, so that training and evaluation can be tried and judged
//! without data.
//!
//! Every lexeme (a country, a verb, …) has a few topics of its own. Every form of it (singular or plural, country or capital) has markers
//! that all lexemes of its kind share. A sentence is about one form: it contains markers of the form and topics of the lexeme among words
//! without information. So it is known what a vector should contain, and what the right answers to analogies are: france − paris + rome
//! keeps the form and changes the lexeme.

use ctk_core::eval::analogy::Question;
use ctk_core::eval::similarity::Pair;
use ctk_core::rng::{Key, Rng};
use rand::Rng as _;
use rand::seq::{IndexedRandom, SliceRandom};

/// Topics of a lexeme.
const TOPICS_EACH: usize = 6;

/// A kind of lexeme: its forms with their markers, and its sentences, in which X is the form, M a marker and T a topic.
struct Category {
    forms: &'static [(&'static str, &'static [&'static str])],
    lexemes: &'static [&'static [&'static str]],
    sentences: &'static [&'static str],
}

const KINDS: [Category; 5] = [
    Category {
        forms: &[
            ("country", &["border", "president", "exports", "citizens", "army", "parliament"]),
            ("capital", &["mayor", "streets", "downtown", "suburbs", "metro", "cathedral"]),
        ],
        lexemes: &[
            &["france", "paris"],
            &["italy", "rome"],
            &["spain", "madrid"],
            &["greece", "athens"],
            &["egypt", "cairo"],
            &["japan", "tokyo"],
            &["china", "beijing"],
            &["peru", "lima"],
            &["cuba", "havana"],
            &["norway", "oslo"],
            &["finland", "helsinki"],
            &["poland", "warsaw"],
            &["austria", "vienna"],
            &["hungary", "budapest"],
            &["ireland", "dublin"],
            &["portugal", "lisbon"],
            &["kenya", "nairobi"],
            &["ghana", "accra"],
            &["iraq", "baghdad"],
            &["iran", "tehran"],
            &["russia", "moscow"],
            &["germany", "berlin"],
            &["canada", "ottawa"],
            &["thailand", "bangkok"],
        ],
        sentences: &[
            "the M of X welcomed the T and the T",
            "X is famous for T and T near its M",
            "a M in X spoke about T and M",
            "T from X reached the M with T",
        ],
    },
    Category {
        forms: &[("male", &["he", "his", "him", "himself"]), ("female", &["she", "her", "hers", "herself"])],
        lexemes: &[
            &["king", "queen"],
            &["man", "woman"],
            &["boy", "girl"],
            &["father", "mother"],
            &["son", "daughter"],
            &["brother", "sister"],
            &["uncle", "aunt"],
            &["nephew", "niece"],
            &["husband", "wife"],
            &["prince", "princess"],
            &["actor", "actress"],
            &["waiter", "waitress"],
            &["hero", "heroine"],
            &["grandfather", "grandmother"],
        ],
        sentences: &[
            "the X said that M had T and T",
            "M saw the X with M T",
            "about T the X asked M and M",
            "the X hid M T behind the T of M",
        ],
    },
    Category {
        forms: &[
            ("singular", &["a", "this", "every", "each", "another"]),
            ("plural", &["these", "many", "several", "those", "few"]),
        ],
        lexemes: &[
            &["dog", "dogs"],
            &["car", "cars"],
            &["tree", "trees"],
            &["house", "houses"],
            &["bird", "birds"],
            &["child", "children"],
            &["mouse", "mice"],
            &["stone", "stones"],
            &["ship", "ships"],
            &["apple", "apples"],
            &["cloud", "clouds"],
            &["horse", "horses"],
            &["lamp", "lamps"],
            &["letter", "letters"],
            &["machine", "machines"],
            &["flower", "flowers"],
            &["goose", "geese"],
            &["knife", "knives"],
            &["tooth", "teeth"],
            &["river", "rivers"],
        ],
        sentences: &[
            "near the T there stood M X with T",
            "we saw M X and T beside M T",
            "M X of T fell on the T",
            "for M X and M X they paid with T",
        ],
    },
    Category {
        forms: &[
            ("infinitive", &["will", "must", "can", "should", "might"]),
            ("past", &["already", "finally", "yesterday", "once", "suddenly"]),
            ("participle", &["keep", "were", "stopped", "began", "enjoy"]),
        ],
        lexemes: &[
            &["paint", "painted", "painting"],
            &["write", "wrote", "writing"],
            &["sing", "sang", "singing"],
            &["build", "built", "building"],
            &["carry", "carried", "carrying"],
            &["sell", "sold", "selling"],
            &["drink", "drank", "drinking"],
            &["cook", "cooked", "cooking"],
            &["draw", "drew", "drawing"],
            &["teach", "taught", "teaching"],
            &["throw", "threw", "throwing"],
            &["wash", "washed", "washing"],
            &["break", "broke", "breaking"],
            &["choose", "chose", "choosing"],
            &["ride", "rode", "riding"],
            &["steal", "stole", "stealing"],
        ],
        sentences: &[
            "they M X the T with T",
            "people who M X want T and M T",
            "we M X and M X for T",
            "after T they M X near the T",
        ],
    },
    Category {
        forms: &[("positive", &["very", "quite", "rather", "too"]), ("comparative", &["than", "much", "even", "far"])],
        lexemes: &[
            &["big", "bigger"],
            &["cold", "colder"],
            &["fast", "faster"],
            &["dark", "darker"],
            &["loud", "louder"],
            &["young", "younger"],
            &["cheap", "cheaper"],
            &["deep", "deeper"],
            &["sharp", "sharper"],
            &["sweet", "sweeter"],
            &["good", "better"],
            &["bad", "worse"],
        ],
        sentences: &["the T was M X and T M", "M X met the T and the T", "it is M X M for T", "with T comes M X T"],
    },
];

const TOPICS: [&str; 96] = [
    "amber", "anchor", "apron", "arrow", "autumn", "bacon", "badge", "bamboo", "barley", "basin", "bishop", "blanket", "bottle",
    "bridge", "bronze", "butter", "cabin", "camel", "candle", "canvas", "carpet", "castle", "cello", "cement", "cherry", "chess",
    "circus", "clay", "clover", "copper", "coral", "cotton", "cradle", "cricket", "curtain", "desert", "diamond", "drum",
    "eagle", "engine", "falcon", "feather", "ferry", "fiddle", "forest", "fossil", "garlic", "ginger", "glacier", "granite",
    "guitar", "hammer", "harbor", "harvest", "honey", "ivory", "jacket", "jungle", "kettle", "ladder", "lantern", "leather",
    "lemon", "linen", "marble", "meadow", "mirror", "monk", "mustard", "needle", "oasis", "olive", "orchid", "paddle", "pepper",
    "piano", "pillow", "pirate", "planet", "pottery", "ribbon", "saddle", "salmon", "shadow", "silk", "spice", "sugar", "temple",
    "thunder", "tiger", "tobacco", "tunnel", "velvet", "violin", "walnut", "wool",
];

/// Relations: the section's name in the format of questions-words.txt, the kind, and its two forms.
const RELATIONS: [(&str, usize, usize, usize); 6] = [
    ("capitals", 0, 0, 1),
    ("family", 1, 0, 1),
    ("gram1-plural", 2, 0, 1),
    ("gram2-past", 3, 0, 1),
    ("gram3-participle", 3, 0, 2),
    ("gram4-comparative", 4, 0, 1),
];

/// The topics of lexeme `lexeme` of kind `kind`; the language is the same for every seed.
fn topics(kind: usize, lexeme: usize) -> Vec<&'static str> {
    let mut rng = Key::new(0).of("language").at(kind as u64).at(lexeme as u64).rng();
    TOPICS.choose_multiple(&mut rng, TOPICS_EACH).copied().collect()
}

/// The topics of every lexeme of every kind.
fn all_topics() -> Vec<Vec<Vec<&'static str>>> {
    KINDS.iter().enumerate().map(|(k, kind)| (0..kind.lexemes.len()).map(|l| topics(k, l)).collect()).collect()
}

/// For each word of the language its kind, so that drawing from it makes all words about equally frequent.
fn kinds() -> Vec<usize> {
    KINDS.iter().enumerate().flat_map(|(k, kind)| vec![k; kind.lexemes.len() * kind.forms.len()]).collect()
}

/// About `words` words of the language, one sentence on each line. The same key gives the same text.
pub fn text(words: usize, key: Key) -> String {
    let mut rng = key.of("language").rng();
    let (topics, kinds) = (all_topics(), kinds());
    let mut out = String::with_capacity(words * 6);
    let mut written = 0;
    while written < words {
        let k = *kinds.choose(&mut rng).expect("there are kinds");
        let lexeme = rng.random_range(0..KINDS[k].lexemes.len());
        let form = rng.random_range(0..KINDS[k].forms.len());
        written += sentence(&KINDS[k], form, KINDS[k].lexemes[lexeme][form], &topics[k][lexeme], &mut rng, &mut out);
        out.push('\n');
    }
    out
}

/// Sentences of a text of [`text_pairs`].
const SENTENCES: usize = 3;

/// Pairs of texts of three sentences each. Both are about the same three words, in any order; the first names them, the second says `it`. So
/// a text's other half is found by who has learned what belongs to which word.
pub fn text_pairs(count: usize, key: Key) -> Vec<[String; 2]> {
    let (topics, kinds) = (all_topics(), kinds());
    let pair = |number: usize| {
        let mut rng = key.of("pairs of texts").at(number as u64).rng();
        let mut words = [(); SENTENCES].map(|()| {
            let k = *kinds.choose(&mut rng).expect("there are kinds");
            (k, rng.random_range(0..KINDS[k].lexemes.len()), rng.random_range(0..KINDS[k].forms.len()))
        });
        let mut text = |named: bool, words: &[(usize, usize, usize)]| {
            let mut out = String::new();
            for &(k, lexeme, form) in words {
                let word = if named { KINDS[k].lexemes[lexeme][form] } else { "it" };
                let before = if out.is_empty() { "" } else { ". " };
                out.push_str(before);
                sentence(&KINDS[k], form, word, &topics[k][lexeme], &mut rng, &mut out);
            }
            out
        };
        let first = text(true, &words);
        words.rotate_left(number % SENTENCES);
        [first, text(false, &words)]
    };
    (0..count).map(pair).collect()
}

/// What the words of each kind are, as classes of texts.
const CLASSES: [&str; KINDS.len()] = ["places", "people", "things", "deeds", "qualities"];

/// Sentences with classes: what kind of word each is about.
pub fn labelled_texts(count: usize, key: Key) -> Vec<(String, &'static str)> {
    let topics = all_topics();
    let text = |number: usize| {
        let mut rng = key.of("texts with classes").at(number as u64).rng();
        let k = rng.random_range(0..KINDS.len());
        let (lexeme, form) = (rng.random_range(0..KINDS[k].lexemes.len()), rng.random_range(0..KINDS[k].forms.len()));
        let mut out = String::new();
        sentence(&KINDS[k], form, KINDS[k].lexemes[lexeme][form], &topics[k][lexeme], &mut rng, &mut out);
        (out, CLASSES[k])
    };
    (0..count).map(text).collect()
}

/// Appends a sentence about `word`, and returns its number of words.
fn sentence(kind: &Category, form: usize, word: &str, topics: &[&str], rng: &mut Rng, out: &mut String) -> usize {
    let template = kind.sentences.choose(rng).expect("a kind has sentences");
    let mut topics = topics.to_vec();
    topics.shuffle(rng);
    let mut words = 0;
    for slot in template.split(' ') {
        let word = match slot {
            "X" => word,
            "M" => kind.forms[form].1.choose(rng).expect("a form has markers"),
            "T" => topics.pop().expect("no sentence has more topics than a lexeme"),
            other => other,
        };
        if words > 0 {
            out.push(' ');
        }
        out.push_str(word);
        words += 1;
    }
    words
}

/// Every analogy between two lexemes of a relation, in the format of questions-words.txt.
pub fn questions() -> String {
    let mut out = String::new();
    for (name, kind, from, to) in RELATIONS {
        out.push_str(&format!(": {name}\n"));
        let lexemes = KINDS[kind].lexemes;
        for (i, a) in lexemes.iter().enumerate() {
            for (_, b) in lexemes.iter().enumerate().filter(|(j, _)| *j != i) {
                out.push_str(&format!("{} {} {} {}\n", a[from], a[to], b[from], b[to]));
            }
        }
    }
    out
}

/// The parsed [`questions`].
pub fn parsed_questions() -> Vec<Question> {
    ctk_core::eval::analogy::parse(&questions()).expect("the format is ours")
}

/// Pairs of words with their planted similarity: half a point for the same form, half for the fraction of common topics.
pub fn pairs() -> Vec<Pair> {
    let words: Vec<(usize, usize, usize)> = KINDS
        .iter()
        .enumerate()
        .flat_map(|(k, kind)| (0..kind.lexemes.len()).flat_map(move |l| (0..kind.forms.len()).map(move |f| (k, l, f))))
        .collect();
    let mut rng = Key::new(0).of("language").of("pairs").rng();
    let mut pairs = Vec::new();
    for &(k, l, f) in &words {
        // A form of the same lexeme, a lexeme of the same form, or any word.
        let near = words.iter().filter(|&&(k2, l2, f2)| (k2, l2) == (k, l) && f2 != f).collect::<Vec<_>>();
        let like = words.iter().filter(|&&(k2, l2, f2)| (k2, f2) == (k, f) && l2 != l).collect::<Vec<_>>();
        let any = words.iter().filter(|&&other| other != (k, l, f)).collect::<Vec<_>>();
        for among in [near, like, any] {
            let &(k2, l2, f2) = *among.choose(&mut rng).expect("every word has each kind of partner");
            let (mine, other) = (topics(k, l), topics(k2, l2));
            let common = mine.iter().filter(|t| other.contains(t)).count() as f64 / TOPICS_EACH as f64;
            let form = f64::from(u8::from((k, f) == (k2, f2)));
            pairs.push(Pair {
                left: KINDS[k].lexemes[l][f].to_string(),
                right: KINDS[k2].lexemes[l2][f2].to_string(),
                score: (form + common) / 2.0,
            });
        }
    }
    pairs
}

/// One word of each kind, whose neighbours are printed.
pub const SHOWN: [&str; 5] = ["france", "queen", "dogs", "wrote", "colder"];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_lexeme_has_its_forms_and_no_word_two_roles() {
        let mut seen: HashSet<&str> = TOPICS.into_iter().collect();
        assert_eq!(seen.len(), 96);
        for kind in &KINDS {
            kind.forms.iter().flat_map(|(_, markers)| *markers).for_each(|m| assert!(seen.insert(m), "{m}"));
            for lexeme in kind.lexemes {
                assert_eq!(lexeme.len(), kind.forms.len());
                lexeme.iter().for_each(|word| assert!(seen.insert(word), "{word}"));
            }
            let filler = kind.sentences.iter().flat_map(|s| s.split(' ')).filter(|w| !["X", "M", "T"].contains(w));
            filler.for_each(|word| assert!(!seen.contains(word), "{word} is filler and more"));
        }
    }

    #[test]
    fn both_texts_of_a_pair_are_about_the_same_words() {
        let pairs = text_pairs(200, Key::new(1));
        assert_eq!(pairs, text_pairs(200, Key::new(1)));
        assert_ne!(pairs[0], text_pairs(1, Key::new(2))[0]);
        let topics: HashSet<&str> = TOPICS.into_iter().collect();
        let of =
            |text: &str| text.split([' ', '.']).filter(|word| topics.contains(word)).map(String::from).collect::<HashSet<_>>();
        let common = |a: usize, b: usize| of(&pairs[a][0]).intersection(&of(&pairs[b][1])).count();
        let own: usize = (0..200).map(|i| common(i, i)).sum();
        let other: usize = (0..200).map(|i| common(i, (i + 1) % 200)).sum();
        assert!(own > 3 * other, "{own} common topics within pairs, {other} between them");
        assert!(pairs.iter().all(|[first, second]| first.split(". ").count() == 3 && second.split(". ").count() == 3));
        assert!(pairs.iter().all(|[_, second]| !second.contains("france")));
    }

    #[test]
    fn texts_with_classes_are_of_all_classes() {
        let texts = labelled_texts(100, Key::new(1));
        assert_eq!(texts, labelled_texts(100, Key::new(1)));
        assert!(CLASSES.iter().all(|class| texts.iter().filter(|(_, of)| of == class).count() > 8), "{texts:?}");
    }

    #[test]
    fn the_text_hangs_on_its_key_and_holds_every_asked_word() {
        let text = text(50_000, Key::new(1));
        assert_eq!(text, super::text(50_000, Key::new(1)));
        assert_ne!(text, super::text(50_000, Key::new(2)));
        let words: HashSet<&str> = text.split_whitespace().collect();
        assert!((50_000..50_020).contains(&text.split_whitespace().count()));
        let questions = parsed_questions();
        assert_eq!(questions.len(), 24 * 23 + 14 * 13 + 20 * 19 + 2 * 16 * 15 + 12 * 11);
        assert!(questions.iter().all(|q| q.given.iter().chain([&q.answer]).all(|w| words.contains(w.as_str()))));
        assert!(questions.iter().any(|q| q.syntactic) && questions.iter().any(|q| !q.syntactic));
        assert!(pairs().iter().all(|p| words.contains(p.left.as_str()) && words.contains(p.right.as_str())));
    }
}
