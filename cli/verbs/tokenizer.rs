//! `ctk tokenizer train`: trains a tokenizer on texts.

use ctk_core::error::{Error, Result};
use ctk_core::store::files;
use ctk_texts::pairs::recipe::SentencesDataRecipe;
use ctk_texts::recipe::Paths;
use ctk_texts::tokenizer::{Kind, TrainingRecipe};
use serde_json::json;

use crate::shared::args::Tokenizer;
use crate::shared::output;

pub fn run(args: Tokenizer) -> Result<()> {
    let Tokenizer::Train { data, kind, size, cased, min_frequency, out, over, show } = args;
    over.allows(&out)?;
    let kind = if kind == "bpe" { Kind::Bpe } else { Kind::Wordpiece };
    let recipe = TrainingRecipe { kind, size: size as usize, lowercase: !cased, min_frequency, ..TrainingRecipe::default() };
    let data = SentencesDataRecipe { path: Some(Paths::One(data.display().to_string())), ..SentencesDataRecipe::default() };
    let read = data.open()?;
    let say = |notes: &[String]| notes.iter().filter(|_| !show.quiet).for_each(|note| output::say(format!("note: {note}")));
    say(&read.notes);
    let trained = recipe.train(&read.train.all_texts().collect::<Vec<_>>())?;
    say(&trained.notes);
    let text = trained.tokenizer.to_string(true).map_err(Error::new)?;
    files::write(&out, text.as_bytes())?;
    let figures = json!({
        "out": out.display().to_string(), "pieces": trained.tokenizer.get_vocab_size(true),
        "texts": read.train.different_texts(),
    });
    output::figures(show.json, &figures)
}
