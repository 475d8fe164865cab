//! The flags that say what is put before texts.

use clap::Args as ClapArgs;
use ctk_core::modality::Prompt;

use super::Neighbors;

/// One prompt for all texts.
#[derive(ClapArgs)]
pub struct Prompted {
    /// Put the prompt of this name before each text, one of those in the folder's config_sentence_transformers.json; default: the one that
    /// the folder names as its default, or none
    #[arg(long, value_name = "NAME")]
    pub prompt: Option<String>,
    /// Put this text before each text, such as "query: "
    #[arg(long, value_name = "TEXT", conflicts_with = "prompt")]
    pub prompt_text: Option<String>,
}

/// A prompt for queries, and one for documents.
#[derive(ClapArgs)]
pub struct Roles {
    /// Put the prompt of this name before each query; default: the one named query, if there is one, else the encoder's default
    #[arg(long, value_name = "NAME")]
    pub query_prompt: Option<String>,
    /// Put this text before each query
    #[arg(long, value_name = "TEXT", conflicts_with = "query_prompt")]
    pub query_prompt_text: Option<String>,
    /// Put the prompt of this name before each document; default: the one named document, passage or corpus, if there is one, else the
    /// encoder's default
    #[arg(long, value_name = "NAME")]
    pub document_prompt: Option<String>,
    /// Put this text before each document
    #[arg(long, value_name = "TEXT", conflicts_with = "document_prompt")]
    pub document_prompt_text: Option<String>,
}

impl Prompted {
    /// What is asked for.
    pub fn wanted(&self) -> Prompt {
        wanted(&self.prompt, &self.prompt_text, Prompt::Usual)
    }
}

impl Roles {
    /// Whether nothing is asked for.
    pub fn nothing(&self) -> bool {
        let Roles { query_prompt, query_prompt_text, document_prompt, document_prompt_text } = self;
        [query_prompt, query_prompt_text, document_prompt, document_prompt_text].iter().all(|asked| asked.is_none())
    }

    /// What is asked for before queries, and before documents.
    pub fn wanted(&self) -> [Prompt; 2] {
        [
            wanted(&self.query_prompt, &self.query_prompt_text, Prompt::Query),
            wanted(&self.document_prompt, &self.document_prompt_text, Prompt::Document),
        ]
    }
}

impl Neighbors {
    /// What is asked for before the texts whose neighbours are looked for, and before those of the data.
    pub fn prompts(&self) -> [Prompt; 2] {
        let prompt = self.prompt.wanted();
        [prompt.clone(), wanted(&self.document_prompt, &self.document_prompt_text, prompt)]
    }
}

fn wanted(name: &Option<String>, text: &Option<String>, otherwise: Prompt) -> Prompt {
    let named = name.clone().map(Prompt::Named);
    named.or_else(|| text.clone().map(Prompt::Text)).unwrap_or(otherwise)
}
