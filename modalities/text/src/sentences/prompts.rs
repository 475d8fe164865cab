//! Prompts: texts that an encoder was trained to find before other texts, by name. sentence-transformers keeps them in
//! `config_sentence_transformers.json`.

use std::collections::BTreeMap;
use std::path::Path;

use ctk_core::modality::Prompt;
use ctk_core::{Context, Error, Result, opened};
use ctk_texts::pairs::recipe::PromptsRecipe;
use serde_json::Value;

use super::tokenizing::Rules;

/// Names of prompts for queries, and for documents, the surest first; the same that sentence-transformers looks for.
const QUERY: [&str; 1] = ["query"];
const DOCUMENT: [&str; 3] = ["document", "passage", "corpus"];

/// The name of a prompt that was stored without one.
const UNNAMED: &str = "default";

/// Reads the prompts of a folder's settings, if there are any, into `rules`. The one that the settings name as the default is usual.
///
/// # Errors
/// A file that is no JSON; a prompt that is no text; a default that is not among the prompts.
pub fn read(path: &Path, rules: &mut Rules) -> Result<()> {
    if !path.is_file() {
        return Ok(());
    }
    let of: Value = serde_json::from_str(&opened::text(path).at(path.display())?)
        .map_err(|e| Error::usage(format!("this is no JSON: {e}")).at(path.display()))?;
    for (name, text) in of["prompts"].as_object().into_iter().flatten() {
        let text = text.as_str().ok_or_else(|| Error::usage(format!("the prompt `{name}` is no text")).at(path.display()))?;
        rules.prompts.insert(name.clone(), text.to_string());
    }
    if let Some(name) = of["default_prompt_name"].as_str() {
        let text = rules.prompts.get(name);
        let text = text.ok_or_else(|| Error::usage(format!("there is no prompt `{name}`, the default")).at(path.display()))?;
        (rules.prompt, rules.usual) = (text.clone(), Some(name.to_string()));
    }
    Ok(())
}

/// What a user should know of an encoder's prompts, if it has any.
pub fn note(rules: &Rules) -> Option<String> {
    if !rules.prompt.is_empty() {
        return Some(format!("`{}` is put before every text, the encoder's default prompt", rules.prompt));
    }
    let names: Vec<&str> = rules.prompts.iter().filter(|(_, text)| !text.is_empty()).map(|(name, _)| name.as_str()).collect();
    let said = || format!("the encoder has prompts for texts ({}); none is put before all texts", names.join(", "));
    (!names.is_empty()).then(said)
}

/// The rules of an encoder that is trained with a recipe's prompts: they have the names `query` and `document`, and replace a prompt before
/// all texts, which is the other result.
pub fn trained(rules: &mut Rules, by: &PromptsRecipe) -> Option<String> {
    let PromptsRecipe { anchor, positive, .. } = by;
    if anchor.is_empty() && positive.is_empty() {
        return None;
    }
    rules.prompts.extend([(QUERY[0].to_string(), anchor.clone()), (DOCUMENT[0].to_string(), positive.clone())]);
    rules.usual = None;
    Some(std::mem::take(&mut rules.prompt)).filter(|prompt| !prompt.is_empty())
}

/// The prompts to write into a folder's settings, and the name of the usual one.
pub fn written(rules: &Rules) -> (BTreeMap<String, String>, Option<&str>) {
    let mut prompts = rules.prompts.clone();
    let usual = match &rules.usual {
        Some(name) if prompts.get(name) == Some(&rules.prompt) => Some(name.as_str()),
        _ if rules.prompt.is_empty() => None,
        _ => {
            prompts.insert(UNNAMED.to_string(), rules.prompt.clone());
            Some(UNNAMED)
        }
    };
    (prompts, usual)
}

/// The text that `wanted` puts before texts; none: the usual one.
///
/// # Errors
/// A name that is not among the prompts; the message has those that are.
pub fn choose(rules: &Rules, wanted: &Prompt) -> Result<Option<String>> {
    let first = |names: &[&str]| names.iter().find_map(|name| rules.prompts.get(*name)).cloned();
    match wanted {
        Prompt::Usual => Ok(None),
        Prompt::Query => Ok(first(&QUERY)),
        Prompt::Document => Ok(first(&DOCUMENT)),
        Prompt::Text(text) => Ok(Some(text.clone())),
        Prompt::Named(name) => match rules.prompts.get(name) {
            Some(text) => Ok(Some(text.clone())),
            None if rules.prompts.is_empty() => {
                Err(Error::usage(format!("there is no prompt `{name}`: this encoder has none by name"))
                    .hint("give its text instead (--prompt-text)"))
            }
            None => {
                let names: Vec<String> = rules.prompts.iter().map(|(name, text)| format!("{name} (`{text}`)")).collect();
                Err(Error::usage(format!("there is no prompt `{name}`")).hint(format!("this encoder has {}", names.join(", "))))
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> Result<(Rules, Vec<String>)> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        std::fs::write(&path, text).unwrap();
        let mut rules = Rules::default();
        read(&path, &mut rules).map(|()| (rules.clone(), note(&rules).into_iter().collect()))
    }

    #[test]
    fn prompts_are_chosen_by_name_by_role_and_by_text() {
        let (e5, notes) =
            rules(r#"{"prompts": {"query": "query: ", "passage": "passage: "}, "default_prompt_name": null}"#).unwrap();
        assert!(e5.prompt.is_empty() && notes[0].contains("(passage, query)"), "{notes:?}");
        let found = |wanted: Prompt| choose(&e5, &wanted).unwrap();
        assert_eq!((found(Prompt::Query).unwrap(), found(Prompt::Document).unwrap()), ("query: ".into(), "passage: ".into()));
        assert_eq!((found(Prompt::Usual), found(Prompt::Named("passage".into())).unwrap()), (None, "passage: ".into()));
        assert_eq!(found(Prompt::Text(String::new())), Some(String::new()));
        let error = choose(&e5, &Prompt::Named("document".into())).unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains("passage (`passage: `), query"), "{error}");
        assert_eq!(written(&e5), (e5.prompts.clone(), None));

        let (usual, notes) = rules(r#"{"prompts": {"s2s": "a: ", "query": ""}, "default_prompt_name": "s2s"}"#).unwrap();
        assert!(usual.prompt == "a: " && notes[0].contains("`a: ` is put before every text"), "{notes:?}");
        assert_eq!(
            (choose(&usual, &Prompt::Query).unwrap(), choose(&usual, &Prompt::Document).unwrap()),
            (Some(String::new()), None)
        );
        assert_eq!(written(&usual), (usual.prompts.clone(), Some("s2s")));
        // A checkpoint of an earlier version has the text alone.
        let old = Rules { prompt: "b: ".to_string(), ..Rules::default() };
        assert_eq!(written(&old), (BTreeMap::from([("default".to_string(), "b: ".to_string())]), Some("default")));
        let none = choose(&Rules::default(), &Prompt::Named("query".into())).unwrap_err().to_string();
        assert!(none.contains("none by name") && none.contains("--prompt-text"), "{none}");
        assert!(rules(r#"{"prompts": {}, "default_prompt_name": "x"}"#).is_err() && rules(r#"{"prompts": {"x": 1}}"#).is_err());
        // A recipe's prompts have names, and nothing else stands before them.
        let mut own = usual.clone();
        assert_eq!(trained(&mut own, &PromptsRecipe::default()), None);
        assert_eq!(own, usual);
        let by = PromptsRecipe { anchor: "q: ".into(), positive: "d: ".into(), negative: None };
        assert_eq!(trained(&mut own, &by).as_deref(), Some("a: "));
        let texts = [Prompt::Usual, Prompt::Query, Prompt::Document].map(|wanted| choose(&own, &wanted).unwrap());
        assert_eq!((texts, own.prompt.as_str()), ([None, Some("q: ".into()), Some("d: ".into())], ""));
        assert!(note(&own).unwrap().contains("(document, query, s2s)"), "{:?}", note(&own));
        assert!(rules("[").is_err() && rules("{}").unwrap().0 == Rules::default());
    }
}
