//! The files of a folder of sentence-transformers that name its modules.

use std::collections::BTreeMap;
use std::path::Path;

use ctk_core::Result;
use ctk_core::store::files;
use serde_json::json;

/// The README of an encoder's folder: a title, a sentence or two about the encoder, and how it is opened.
pub fn card(tags: &[&str], title: &str, about: &str) -> String {
    let tags: String = tags.iter().map(|tag| format!("- {tag}\n")).collect();
    format!(
        "---\nlibrary_name: sentence-transformers\npipeline_tag: sentence-similarity\ntags:\n- sentence-transformers\n{tags}---\n\n\
         # {title}\n\n{about}\n\n```python\nfrom sentence_transformers import SentenceTransformer\n\n\
         model = SentenceTransformer(\"this folder\")\nvectors = model.encode([\"a text\", \"another\"])\n\
         print(model.similarity(vectors[0], vectors[1]))\n```\n"
    )
}

/// Writes `modules.json` and the settings beside it. Modules have their kind, as sentence-transformers calls it, and their folder, empty for
/// the folder itself. `prompts` are texts that may be put before others, by name, and the name of the one that is put before all.
///
/// # Errors
/// A file cannot be written.
pub fn write(folder: &Path, modules: &[(&str, &str)], (prompts, usual): (BTreeMap<String, String>, Option<&str>)) -> Result<()> {
    let modules: Vec<_> = modules
        .iter()
        .enumerate()
        // The names by which every release since 3.2 finds the modules.
        .map(|(at, (kind, path))| {
            json!({"idx": at, "name": at.to_string(), "path": path, "type": format!("sentence_transformers.models.{kind}")})
        })
        .collect();
    files::write(&folder.join("modules.json"), &serde_json::to_vec_pretty(&modules)?)?;
    let config = json!({
        "__version__": {"sentence_transformers": "3.2.0"},
        "prompts": prompts,
        "default_prompt_name": usual,
        "similarity_fn_name": "cosine",
    });
    files::write(&folder.join("config_sentence_transformers.json"), &serde_json::to_vec_pretty(&config)?)
}
