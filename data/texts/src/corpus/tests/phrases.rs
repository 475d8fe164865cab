//! Phrases compared with a plain implementation of word2phrase.c on strings, and with gensim.

use std::collections::HashMap;

use super::*;

/// One pass over lines of words. Words that are not counted here are never joined there: rare words are kept as they are.
fn pass(lines: &[Vec<String>], how: &Phrases) -> Vec<Vec<String>> {
    let (mut words, mut pairs, mut total) = (HashMap::<&str, u64>::new(), HashMap::<(&str, &str), u64>::new(), 0);
    for line in lines {
        total += line.len() as u64;
        line.iter().for_each(|word| *words.entry(word).or_default() += 1);
        line.windows(2).for_each(|pair| *pairs.entry((&pair[0], &pair[1])).or_default() += 1);
    }
    let score = |a: &str, b: &str| {
        let (na, nb, n) = (words[a], words[b], pairs[&(a, b)]);
        if na < how.min_count || nb < how.min_count || n < how.min_count {
            return 0.0;
        }
        (n - how.min_count) as f64 / na as f64 / nb as f64 * total as f64
    };
    let join = |line: &Vec<String>| {
        let mut out: Vec<String> = Vec::new();
        let mut may_begin = false;
        for (at, word) in line.iter().enumerate() {
            if may_begin && score(&line[at - 1], word) > how.threshold {
                let last = out.last_mut().unwrap();
                *last = format!("{last}{}{word}", how.joiner);
                may_begin = false;
            } else {
                out.push(word.clone());
                may_begin = true;
            }
        }
        out
    };
    lines.iter().map(join).collect()
}

/// Text in which some words often occur together, with words that contain the joiner.
fn text(lines: usize) -> String {
    let mut rng = Key::new(11).rng();
    let mut text = String::new();
    for _ in 0..lines {
        let mut last = 0u32;
        for _ in 0..rng.random_range(0..30) {
            let word = match rng.random_range(0..4) {
                0 => last * 7 % 40 + 1,
                1 => last,
                _ => (1.0 / rng.random_range(0.002f64..1.0)) as u32,
            };
            text.push_str(&if rng.random_range(0..50) == 0 { format!("w{last}_w{word} ") } else { format!("w{word} ") });
            last = word;
        }
        text.push('\n');
    }
    text
}

fn how(passes: usize, threshold: f64, min_count: u64) -> Option<Phrases> {
    Some(Phrases { passes, threshold, min_count, joiner: "_".to_string() })
}

#[test]
fn phrases_are_those_of_word2phrase() {
    let text = text(4_000);
    let words = |line: &str| line.split_whitespace().map(str::to_string).collect::<Vec<_>>();
    for (passes, threshold, min_count, in_memory) in
        [(1, 4.0, 5, IN_MEMORY), (2, 3.0, 5, 50), (3, 2.0, 0, IN_MEMORY), (1, 0.0, 2, 1), (1, 1e9, 5, IN_MEMORY)]
    {
        let phrases = how(passes, threshold, min_count);
        let mut expected: Vec<Vec<String>> = text.lines().map(words).collect();
        let before = expected.clone();
        (0..passes).for_each(|_| expected = pass(&expected, phrases.as_ref().unwrap()));
        assert_eq!(expected != before, threshold < 1e9);
        expected.retain(|line| !line.is_empty());
        let selection = Selection { phrases, in_memory, ..Selection::from(ALL) };
        let corpus = Corpus::from_text(&text, selection).unwrap();
        let expected: Vec<String> = expected.iter().map(|line| line.join(" ")).collect();
        assert!(lines(&corpus) == expected, "passes {passes}, threshold {threshold}");
        // Counts and order are those of the joined text.
        let mut counts = HashMap::<&str, u64>::new();
        expected.iter().flat_map(|line| line.split(' ')).for_each(|word| *counts.entry(word).or_default() += 1);
        let mut counts: Vec<(&str, u64)> = counts.into_iter().collect();
        counts.sort_by(|(a, i), (b, j)| j.cmp(i).then(a.cmp(b)));
        let vocabulary = corpus.vocabulary();
        assert!(vocabulary.words().iter().map(String::as_str).zip(vocabulary.counts().iter().copied()).eq(counts));
        assert!(corpus.notes().last().unwrap().starts_with("phrases found, pass by pass: "), "{:?}", corpus.notes());
    }
}

#[test]
fn phrases_do_not_hang_on_files_threads_or_room() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), "a.txt", text(12_000).as_bytes());
    let limits = Limits { min_count: 4, max_size: Some(400) };
    let read = |threads: usize, limit: usize, in_memory: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let selection = Selection { phrases: how(2, 3.0, 5), in_memory, ..Selection::from(limits) };
        let mut room = Room { limit, folder: &mut || Ok(folder.path().to_path_buf()) };
        let corpus = pool.install(|| Corpus::read(&[&path], &Reading::default(), selection, &mut room)).unwrap();
        (stream(&corpus), corpus.blocks.clone(), corpus.vocabulary().clone(), corpus.tokens())
    };
    let plain = read(1, usize::MAX, IN_MEMORY);
    assert!(plain.2.words().iter().any(|word| word.matches('_').count() > 1), "phrases of phrases");
    for (threads, limit, in_memory) in [(4, usize::MAX, IN_MEMORY), (3, 0, 1), (2, 1 << 16, 300)] {
        assert!(read(threads, limit, in_memory) == plain, "{threads} threads, {limit} bytes, {in_memory} words");
    }
}

#[test]
fn rare_words_and_line_ends_part_what_could_be_a_phrase() {
    // `new york` occurs together six times; a rare word, a line end or a blank line between them does not add to that.
    let text = "new york x\n".repeat(6) + "new rare york\nnew\nyork\nnew\n\nyork\n" + &"a b c d e f\n".repeat(9);
    let selection = |min_count| Selection { phrases: how(1, 0.5, 5), ..Selection::from(Limits { min_count, max_size: None }) };
    let corpus = Corpus::from_text(&text, selection(6)).unwrap();
    let count = |word: &str| {
        let vocabulary = corpus.vocabulary();
        vocabulary.words().iter().position(|w| w == word).map(|i| vocabulary.counts()[i])
    };
    // A word loses the occurrences that phrases took.
    assert_eq!((count("new_york"), count("new"), count("york"), count("x")), (Some(6), None, None, Some(6)));
    assert!(!lines(&corpus).iter().any(|line| line.contains("new york")));
    // Occurrences in phrases that are themselves too rare are lost, too: fox and red_fox are not kept.
    let text = "red fox\n".repeat(8) + &"red\n".repeat(22) + &"q r s\n".repeat(200);
    let red = Corpus::from_text(&text, selection(20)).unwrap();
    assert_eq!(red.vocabulary().words(), ["q_r", "s", "red"].map(String::from));
    assert_eq!(red.vocabulary().counts(), [200, 200, 22]);
}

#[test]
fn a_text_that_is_read_later_is_joined_as_the_corpus_was() {
    let text = text(4_000);
    for (passes, threshold, min_count) in [(1, 4.0, 5), (2, 3.0, 5), (3, 2.0, 0)] {
        let selection = Selection { phrases: how(passes, threshold, min_count), ..Selection::from(ALL) };
        let corpus = Corpus::from_text(&text, selection).unwrap();
        // From what a checkpoint stores.
        let phrases = Found::from_bytes(corpus.phrases().to_tsv().as_bytes()).unwrap();
        assert_eq!((&phrases, phrases.is_empty()), (corpus.phrases(), false));
        let reading = Reading { phrases, ..Reading::default() };
        let later: Vec<String> = text
            .lines()
            .map(|line| {
                let mut words = Vec::new();
                reading.words(line, |word| words.push(word.to_string())).unwrap();
                words.join(" ")
            })
            .filter(|line| !line.is_empty())
            .collect();
        assert!(later == lines(&corpus), "passes {passes}");
    }
    for (bytes, line) in
        [(&b"a\tb\tc\n"[..], 1), (b"pass\tfirst\tsecond\t_\n0\ta\n", 2), (b"pass\tfirst\tsecond\t_\nx\ta\tb\n", 2)]
    {
        let error = Found::from_bytes(bytes).unwrap_err().to_string();
        assert!(error.contains(&format!("phrases.tsv:{line}")), "{error}");
    }
}

#[test]
fn phrases_of_runs_that_stored_none_are_known_by_their_spelling() {
    let joined = |words: &[&str], passes, line: &str| {
        let phrases = Found::by_spelling(words.iter().copied(), "_", passes);
        phrases.join(line.split(' ').map(String::from).collect()).join(" ")
    };
    assert_eq!(joined(&["new_york", "new", "x"], 1, "in new york now"), "in new_york now");
    assert_eq!(joined(&["new_york_times"], 2, "the new york times"), "the new_york_times");
    // A word that the text itself wrote with joiners is not a phrase.
    assert_eq!(joined(&["_", "__", "a_", "_b"], 1, "a b _ a"), "a b _ a");
}

#[test]
#[ignore = "needs gensim; CTK_PYTHON names a python that has it"]
fn gensim_finds_the_same_phrases() {
    let text = text(3_000);
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), "a.txt", text.as_bytes());
    // gensim's default score multiplies by the number of different words and pairs, word2phrase.c's by the number of words in the text.
    let script = "
import sys
from gensim.models.phrases import Phrases
lines = [line.split() for line in open(sys.argv[1])]
def score(worda_count, wordb_count, bigram_count, len_vocab, min_count, corpus_word_count):
    return (bigram_count - min_count) / worda_count / wordb_count * corpus_word_count
phrases = Phrases(lines, min_count=5, threshold=4.0, scoring=score, connector_words=frozenset(), delimiter='+')
for line in lines:
    if line: print(' '.join(phrases[line]))
";
    let python = std::env::var("CTK_PYTHON").expect("CTK_PYTHON names a python with gensim");
    let run = std::process::Command::new(python).arg("-c").arg(script).arg(&path).output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    // A joiner that does not occur in the text: gensim counts a word that is spelled like a pair as that pair.
    let phrases = how(1, 4.0, 5).map(|how| Phrases { joiner: "+".to_string(), ..how });
    let corpus = Corpus::from_text(&text, Selection { phrases, ..Selection::from(ALL) }).unwrap();
    assert!(lines(&corpus).iter().any(|line| line.contains('+')));
    assert!(String::from_utf8(run.stdout).unwrap().lines().eq(lines(&corpus)));
}
