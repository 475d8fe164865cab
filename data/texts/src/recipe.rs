//! `[data]` and `[vocabulary]`: which text is read, how it is cut into words, and which words are kept.

use ctk_core::Result;
use ctk_core::recipe::Recipe;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::corpus::{Found, IN_MEMORY, Invalid, Limits, Normalise, Phrases, Reading, Selection, Tokens};
use crate::files::Encoding;

/// The largest number of words of the generated language, which is made in memory.
const MOST_WORDS: usize = 100_000_000;

/// The largest number of bytes between the words of a phrase.
const LONGEST_JOINER: usize = 16;

/// `[data]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DataRecipe {
    /// Text files (plain, .gz, .bz2, .xz, .zst), folders of them, globs, or `-` for standard input; one or a list. Default: the generated
    /// language. A line is a document: windows do not cross its end.
    pub path: Option<Paths>,
    /// How text is cut into words: `whitespace` (at white space only), `words` (runs of word characters, and runs of other visible
    /// characters), `bert` (every punctuation character is a word), or the path of a `tokenizers` .json file.
    pub tokens: String,
    /// Whether words are lower-cased.
    pub lowercase: bool,
    /// The encoding: `auto` (UTF-8, or UTF-16 if a byte order mark or zero bytes show it, with a note), or a name such as `utf-8`,
    /// `utf-16le`, `windows-1252`, `iso-8859-2`, `koi8-r`, `shift_jis`, `gb18030`.
    pub encoding: String,
    /// The Unicode normal form that text is converted to before it is cut.
    pub normalise: Normalise,
    /// What to do about bytes that are not characters of the encoding: `refuse` or `replace`.
    pub invalid: Invalid,
    /// Memory for the numbered text, four bytes a word: `auto` (half of the free memory), `off`, or an amount such as `2GB`. A text that
    /// does not fit goes to a file beside the run.
    pub cache: String,
    /// Words of the generated language, which is used without a path.
    pub words: usize,
}

impl Default for DataRecipe {
    fn default() -> Self {
        DataRecipe {
            path: None,
            tokens: "whitespace".to_string(),
            lowercase: false,
            encoding: "auto".to_string(),
            normalise: Normalise::None,
            invalid: Invalid::Refuse,
            cache: "auto".to_string(),
            words: 1_500_000,
        }
    }
}

impl DataRecipe {
    /// Checks every value; errors point at its line in `text`.
    ///
    /// # Errors
    /// The first value that is not allowed.
    pub fn check(&self, text: &Recipe) -> Result<()> {
        text.within("data.words", self.words, 1..=MOST_WORDS)?;
        Encoding::named(&self.encoding).map_err(|e| e.at(text.place_of("data.encoding")))?;
        text.require(self.path.as_ref().is_none_or(|p| !p.list().is_empty()), "data.path", "names no file")
    }

    /// How text is read.
    ///
    /// # Errors
    /// An unknown name of a tokenization or an encoding, or a tokenizer file that cannot be read.
    pub fn reading(&self) -> Result<Reading> {
        let DataRecipe { lowercase, normalise, invalid, .. } = *self;
        let (tokens, notes) = Tokens::with_notes(&self.tokens)?;
        let encoding = Encoding::named(&self.encoding)?;
        Ok(Reading { encoding, tokens, lowercase, normalise, invalid, phrases: Found::default(), notes })
    }
}

/// One path or several.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "data.path must be a path in quotes, or a list of paths")]
pub enum Paths {
    /// One.
    One(String),
    /// Several, read in this order.
    Many(Vec<String>),
}

impl Paths {
    /// All paths.
    pub fn list(&self) -> &[String] {
        match self {
            Paths::One(path) => std::slice::from_ref(path),
            Paths::Many(paths) => paths,
        }
    }
}

/// `[vocabulary]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct VocabularyRecipe {
    /// Rarer words are dropped from the text.
    pub min_count: u64,
    /// Only so many of the most frequent words are kept. Default: all.
    pub max_size: Option<usize>,
    /// Different words, and pairs of words for phrases, that are counted in memory at once, some 40 bytes each. More are counted through
    /// files beside the run, which takes longer and gives the same result.
    pub in_memory: usize,
    /// `[vocabulary.phrases]`: neighbouring words that become one word.
    pub phrases: PhrasesRecipe,
}

impl Default for VocabularyRecipe {
    fn default() -> Self {
        VocabularyRecipe { min_count: 5, max_size: None, in_memory: IN_MEMORY, phrases: PhrasesRecipe::default() }
    }
}

impl VocabularyRecipe {
    /// Checks every value; errors point at its line in `text`.
    ///
    /// # Errors
    /// The first value that is not allowed.
    pub fn check(&self, text: &Recipe) -> Result<()> {
        text.require(self.min_count > 0, "vocabulary.min_count", "must be at least 1")?;
        text.require(self.max_size.is_none_or(|n| n >= 2), "vocabulary.max_size", "must be at least 2")?;
        text.require(self.in_memory > 0, "vocabulary.in_memory", "must be at least 1 word")?;
        let PhrasesRecipe { passes, threshold, joiner, .. } = &self.phrases;
        text.within("vocabulary.phrases.passes", *passes, 0..=16)?;
        text.require(
            *threshold >= 0.0 && threshold.is_finite(),
            "vocabulary.phrases.threshold",
            "must be 0 or more; word2phrase.c's is 100",
        )?;
        text.require(
            !joiner.is_empty() && joiner.len() <= LONGEST_JOINER && !joiner.contains(char::is_whitespace),
            "vocabulary.phrases.joiner",
            "must be something without white space, up to 16 bytes, such as \"_\"",
        )
    }

    /// How the vocabulary is chosen; `known` words are always kept.
    pub fn selection<'a>(&self, known: &'a [String]) -> Selection<'a> {
        let VocabularyRecipe { min_count, max_size, in_memory, phrases } = self;
        let PhrasesRecipe { passes, threshold, min_count: rare, joiner } = phrases.clone();
        Selection {
            limits: Limits { min_count: *min_count, max_size: *max_size },
            known,
            phrases: Some(Phrases { passes, threshold, min_count: rare, joiner }),
            in_memory: *in_memory,
        }
    }
}

/// `[vocabulary.phrases]`: words that occur together more often than by chance become one word, as in word2phrase.c.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PhrasesRecipe {
    /// Passes over the text; each may double the length of phrases. 0, the default, joins nothing.
    pub passes: usize,
    /// Neighbours a, b are joined if (count(ab) − min_count) / (count(a)·count(b)) · number of words in the text is above it.
    pub threshold: f64,
    /// Subtracted from a pair's count; rarer pairs and words are not joined.
    pub min_count: u64,
    /// The text between the words of a phrase.
    pub joiner: String,
}

impl Default for PhrasesRecipe {
    fn default() -> Self {
        PhrasesRecipe { passes: 0, threshold: 100.0, min_count: 5, joiner: "_".to_string() }
    }
}
