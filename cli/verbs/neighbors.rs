//! `ctk neighbors` and `ctk analogy`: nearest neighbours of words, of images, and of sums of vectors.

use std::ops::Range;
use std::path::{Path, PathBuf};

use ctk_core::error::{Error, Result};
use ctk_core::eval::{Features, Sum, Table, doesnt_match, is_features, search};
use ctk_core::modality::{Model, Prompt, Query};
use ctk_core::opened;
use serde_json::{Value, json};

use crate::Modalities;
use crate::shared::args::{Analogy, ModelArgs, Neighbors};
use crate::shared::model::{open, query};
use crate::shared::{output, progress};

pub fn run(args: Neighbors, modalities: Modalities) -> Result<()> {
    let prompts = args.prompts();
    if args.document_prompt.as_ref().or(args.document_prompt_text.as_ref()).is_some()
        && let Some(data) = args.model.data.as_deref().filter(|data| is_features(data))
    {
        return Err(Error::usage("these are features already, and no texts that a prompt can be put before")
            .at(data.display())
            .hint("give the prompt to the `ctk embed` that writes them"));
    }
    let words: Vec<&str> = args.words.iter().map(String::as_str).collect();
    if args.doesnt_match {
        return odd(&args.model, &words, &prompts, modalities);
    }
    if args.together || !args.negative.is_empty() {
        let sum = Sum { positive: words, negative: args.negative.iter().map(String::as_str).collect() };
        let near = find(&args.model, std::slice::from_ref(&sum), &prompts, args.count, modalities)?.remove(0);
        if args.model.show.json {
            return output::line(json!({ "positive": sum.positive, "negative": sum.negative, "neighbors": objects(&near) }));
        }
        return print("", &near);
    }
    let sums: Vec<Sum> = words.iter().map(|word| Sum { positive: vec![word], negative: Vec::new() }).collect();
    let found = find(&args.model, &sums, &prompts, args.count, modalities)?;
    if args.model.show.json {
        return output::line(words.iter().zip(&found).map(|(word, near)| (word.to_string(), objects(near))).collect::<Value>());
    }
    words.iter().zip(&found).try_for_each(|(word, near)| {
        output::line(word)?;
        print("  ", near)
    })
}

/// `ctk analogy`: a is to b as c is to what?
pub fn analogy(args: Analogy, modalities: Modalities) -> Result<()> {
    let sum = Sum { positive: vec![&args.b, &args.c], negative: vec![&args.a] };
    let near = find(&args.model, &[sum], &Default::default(), args.count, modalities)?.remove(0);
    match args.model.show.json {
        true => output::line(json!({ "question": [args.a, args.b, args.c], "answers": objects(&near) })),
        false => print("", &near),
    }
}

fn odd(args: &ModelArgs, words: &[&str], prompts: &[Prompt; 2], modalities: Modalities) -> Result<()> {
    let model = open(args, modalities)?;
    let (odd, cosines) = doesnt_match(&Gallery::open(&*model, args, prompts, words.iter().copied())?, words)?;
    if !args.show.json {
        return output::line(words[odd]);
    }
    let cosines: Value = words.iter().zip(cosines).map(|(word, cosine)| (word.to_string(), json!(cosine))).collect();
    output::line(json!({ "doesnt_match": words[odd], "cosines": cosines }))
}

type Near = Vec<(String, f32)>;

fn find(args: &ModelArgs, sums: &[Sum], prompts: &[Prompt; 2], count: usize, modalities: Modalities) -> Result<Vec<Near>> {
    let model = open(args, modalities)?;
    let asked = sums.iter().flat_map(|sum| sum.positive.iter().chain(&sum.negative).copied());
    search(&Gallery::open(&*model, args, prompts, asked)?, sums, count)
}

/// The rows that are searched, and the images and texts from elsewhere whose neighbours are asked for.
struct Gallery<'a> {
    rows: Box<dyn Table + 'a>,
    outside: Features,
}

impl<'a> Gallery<'a> {
    /// The rows of the model's data, or of the features that `--data` names, and those images or texts of `asked` that are not among them.
    ///
    /// # Errors
    /// An image that is neither among the rows nor a file, or rows of another width than the image's features.
    fn open<'b>(
        model: &'a dyn Model,
        args: &ModelArgs,
        [before, of_rows]: &[Prompt; 2],
        asked: impl Iterator<Item = &'b str>,
    ) -> Result<Gallery<'a>> {
        let (before, of_rows) = (model.prompt(before)?, model.prompt(of_rows)?);
        let _progress = progress::of_samples(args.show.quiet);
        let rows: Box<dyn Table> = match args.data.as_deref().filter(|data| is_features(data)) {
            Some(data) => Box::new(Features::load(data)?),
            None => model.table(&Query { prompt: of_rows, ..query(args) })?,
        };
        rows.notes().iter().filter(|_| !args.show.quiet).for_each(|note| output::note(note));
        let (mut files, mut texts): (Vec<PathBuf>, Vec<String>) = (Vec::new(), Vec::new());
        for word in asked {
            let path = Path::new(word);
            if model.embeds_names() && !model.is_sample(path) {
                texts.push(word.to_string());
                continue;
            }
            // Row names are looked up as files only where they might be files; a word of a vocabulary is none.
            let sample = model.is_sample(path) || model.views();
            if !(sample || path.is_file()) || (0..rows.len()).any(|row| rows.name(row) == word) {
                continue;
            }
            opened::check(path)?;
            if !path.is_file() {
                return Err(Error::usage("there is no image of this name among the rows, and no such file")
                    .at(word)
                    .hint("rows have the names that `ctk embed` gives them: their paths below the data's folder"));
            }
            if model.is_sample(path) {
                files.push(path.to_path_buf());
            } else if rows.unseen(word).is_none() {
                return Err(Error::usage("no row has this name, and this model cannot compute features of a file")
                    .at(word)
                    .hint("for an image: ctk neighbors RUN IMAGE, with --data FEATURES to search stored features"));
            }
        }
        let outside = if files.is_empty() && texts.is_empty() {
            Features::default()
        } else {
            let mut found = match (files.is_empty(), texts.is_empty()) {
                (true, _) => model.prompted(before.as_deref(), &texts)?,
                (_, true) => model.features(&Query { files, ..Query::default() })?,
                _ => {
                    let images = model.features(&Query { files, ..Query::default() })?;
                    model.prompted(before.as_deref(), &texts)?.followed_by(images)?
                }
            };
            output::notes(&mut found, args.show.quiet);
            if found.width != rows.width() {
                return Err(Error::usage(format!(
                    "the rows that are searched have {} values, and features of this run have {}",
                    rows.width(),
                    found.width
                ))
                .hint("search features of the same run: ctk embed RUN --data PATH --out FILE.npy"));
            }
            found
        };
        Ok(Gallery { rows, outside })
    }
}

impl Table for Gallery<'_> {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn width(&self) -> usize {
        self.rows.width()
    }

    fn name(&self, row: usize) -> &str {
        self.rows.name(row)
    }

    fn block<'a>(&'a self, range: Range<usize>, room: &'a mut Vec<f32>) -> Result<&'a [f32]> {
        self.rows.block(range, room)
    }

    fn unseen(&self, name: &str) -> Option<Vec<f32>> {
        let outside = self.outside.names.iter().position(|own| own == name);
        outside.map(|row| self.outside.row(row).to_vec()).or_else(|| self.rows.unseen(name))
    }

    fn spelling(&self, name: &str) -> Option<String> {
        self.rows.spelling(name)
    }
}

fn objects(near: &Near) -> Value {
    near.iter().map(|(name, cosine)| json!({ "name": name, "cosine": cosine })).collect()
}

fn print(indent: &str, near: &Near) -> Result<()> {
    near.iter().try_for_each(|(name, cosine)| output::line(format!("{indent}{cosine:.4}  {name}")))
}
