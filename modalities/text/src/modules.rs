//! The files of a folder of sentence-transformers that name its modules.

use std::path::Path;

use ctk_core::Result;
use ctk_core::store::files;
use serde_json::json;

/// Writes `modules.json` and the settings beside it. Modules have their kind, as sentence-transformers calls it, and their folder, empty for
/// the folder itself.
///
/// # Errors
/// A file cannot be written.
pub fn write(folder: &Path, modules: &[(&str, &str)]) -> Result<()> {
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
        "prompts": {},
        "default_prompt_name": null,
        "similarity_fn_name": "cosine",
    });
    files::write(&folder.join("config_sentence_transformers.json"), &serde_json::to_vec_pretty(&config)?)
}
