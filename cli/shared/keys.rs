//! Every key of a modality's recipe, read from its JSON schema: for `ctk config keys`, and to suggest a key for a mistyped one.

use ctk_core::modality::Modality;
use serde_json::Value;

/// One key of a recipe.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    /// The full name, such as `train.batch`.
    pub name: String,
    /// The type in words: `a whole number`, `"cosine" or "linear"`.
    pub holds: String,
    /// The default; null if there is none or the key is required.
    pub default: Value,
    /// The description.
    pub meaning: String,
}

/// Every key of the modality's recipe, in the order of its sections.
pub fn keys(modality: &dyn Modality) -> Vec<Key> {
    let schema = modality.schema();
    let mut found = Vec::new();
    walk(
        &schema,
        &schema,
        &Key { name: String::new(), holds: String::new(), default: Value::Null, meaning: String::new() },
        &mut found,
    );
    found
}

/// The full names of the keys whose last word is that of `written`, or that other programs call `written`.
pub fn meant(modality: &dyn Modality, written: &str) -> Vec<String> {
    let last = written.rsplit('.').next().unwrap_or(written).replace('-', "_");
    let own = ALIASES.iter().find(|(theirs, _)| *theirs == last).map_or(last.as_str(), |(_, own)| own);
    keys(modality).into_iter().map(|key| key.name).filter(|name| name.rsplit('.').next() == Some(own)).collect()
}

/// Names that other programs use, and the key that each stands for.
const ALIASES: [(&str, &str); 14] = [
    ("lr", "rate"),
    ("learning_rate", "rate"),
    ("base_lr", "rate"),
    ("batch_size", "batch"),
    ("bs", "batch"),
    ("num_epochs", "epochs"),
    ("max_epochs", "epochs"),
    ("weight_decay", "decay"),
    ("wd", "decay"),
    ("warmup_epochs", "warmup"),
    ("num_workers", "loaders"),
    ("workers", "loaders"),
    ("image_size", "size"),
    ("random_seed", "seed"),
];

/// Adds the keys at and below `node` of the schema `root`; `at` has the name so far and the description inherited from above.
fn walk(root: &Value, node: &Value, at: &Key, found: &mut Vec<Key>) {
    let described = |node: &Value, at: &Key| Key {
        default: node.get("default").filter(|d| !d.is_null()).unwrap_or(&at.default).clone(),
        meaning: if at.meaning.is_empty() { text(&node["description"]) } else { at.meaning.clone() },
        ..at.clone()
    };
    let at = &described(node, at);
    if let Some(of) = node["$ref"].as_str() {
        return walk(root, &root["$defs"][of.rsplit('/').next().unwrap_or_default()], at, found);
    }
    if let Some(choices) = node["anyOf"].as_array().or(node["oneOf"].as_array()) {
        let present: Vec<&Value> = choices.iter().filter(|choice| choice["type"] != "null").collect();
        if let [one] = present[..] {
            return walk(root, one, at, found);
        }
        if present.iter().all(|choice| choice["properties"].is_object()) {
            return present.iter().for_each(|choice| walk(root, choice, at, found));
        }
    }
    let Some(properties) = node["properties"].as_object() else {
        return found.push(Key { holds: holds(root, node), ..at.clone() });
    };
    if properties.is_empty() {
        return found.push(Key { holds: "an empty table".to_string(), ..at.clone() });
    }
    for (name, below) in properties {
        let name = if at.name.is_empty() { name.clone() } else { format!("{}.{name}", at.name) };
        let default = at.default.get(name.rsplit('.').next().unwrap_or_default()).cloned().unwrap_or_default();
        walk(root, below, &Key { name, holds: String::new(), default, meaning: text(&below["description"]) }, found);
    }
}

fn text(description: &Value) -> String {
    description.as_str().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The type of a value, in words.
fn holds(root: &Value, node: &Value) -> String {
    let of = |node: &Value| match node["const"].as_str().or(node["enum"].get(0).and_then(Value::as_str)) {
        Some(_) => {
            let all = node["enum"].as_array().map_or_else(|| vec![&node["const"]], |all| all.iter().collect());
            all.iter().map(|word| word.to_string()).collect::<Vec<_>>().join(", ")
        }
        None => kind(root, node),
    };
    match node["anyOf"].as_array().or(node["oneOf"].as_array()) {
        Some(choices) => choices.iter().filter(|c| c["type"] != "null").map(of).collect::<Vec<_>>().join(" or "),
        None => of(node),
    }
}

fn kind(root: &Value, node: &Value) -> String {
    if let Some(of) = node["$ref"].as_str() {
        return holds(root, &root["$defs"][of.rsplit('/').next().unwrap_or_default()]);
    }
    let name = match &node["type"] {
        Value::Array(types) => types.iter().filter_map(Value::as_str).find(|name| *name != "null"),
        name => name.as_str(),
    };
    match name {
        Some("integer") => "a whole number".to_string(),
        Some("number") => "a number".to_string(),
        Some("boolean") => "true or false".to_string(),
        Some("string") => "text".to_string(),
        Some("array") if node["items"].is_object() => {
            format!("a list of {}", holds(root, &node["items"]).trim_start_matches("a "))
        }
        Some("array") => "a list".to_string(),
        Some("object") => "a table".to_string(),
        _ => "a value".to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ctk_text::Word2Vec;
    use ctk_vision::Vision;

    fn key(modality: &dyn Modality, name: &str) -> Key {
        let all = keys(modality);
        all.iter().find(|key| key.name == name).unwrap_or_else(|| panic!("no key {name} in {all:#?}")).clone()
    }

    #[test]
    fn every_key_is_found_with_what_it_holds() {
        let batch = key(&Vision, "train.batch");
        assert_eq!((batch.holds.as_str(), batch.default), ("a whole number", serde_json::json!(256)));
        assert!(!batch.meaning.is_empty());
        assert_eq!(key(&Vision, "loss.nt-xent.temperature").holds, "a number");
        assert!(key(&Vision, "schedule.decay").holds.contains("\"cosine\""), "{:?}", key(&Vision, "schedule.decay"));
        assert_eq!(key(&Vision, "data.path").holds, "text or a list of text");
        assert!(key(&Vision, "encoder.resnet.depth").name.starts_with("encoder"));
        assert!(key(&Word2Vec, "data.path").holds.contains("list"), "{:?}", key(&Word2Vec, "data.path"));
        for modality in [&Vision as &dyn Modality, &Word2Vec] {
            let all = keys(modality);
            assert!(all.iter().all(|key| key.name.contains('.') && !key.holds.is_empty()), "{all:#?}");
            let mut names: Vec<_> = all.iter().map(|key| &key.name).collect();
            names.sort();
            names.dedup();
            assert_eq!(names.len(), all.len(), "each key once");
        }
    }

    #[test]
    fn losses_that_a_modality_refuses_are_not_among_its_keys() {
        let losses = |modality: &dyn Modality| {
            let all = keys(modality).into_iter().filter_map(|key| key.name.strip_prefix("loss.").map(String::from));
            all.map(|name| name.split('.').next().unwrap_or_default().to_string()).collect::<std::collections::BTreeSet<_>>()
        };
        let (images, texts) = (losses(&Vision), losses(&ctk_text::Sentences));
        // Texts have teachers.
        for name in ["mse", "kl"] {
            assert!(!images.contains(name) && texts.contains(name), "{name}");
        }
        assert!(
            !images.contains("cosent") && texts.contains("cosent") && images.contains("nt-xent") && texts.contains("ranking")
        );
    }

    #[test]
    fn what_other_programs_say_is_understood() {
        assert_eq!(meant(&Vision, "epochs")[0], "train.epochs");
        assert!(meant(&Vision, "train.batch-size").contains(&"train.batch".to_string()));
        assert!(meant(&Vision, "lr").iter().any(|name| name.ends_with(".rate")));
        assert!(meant(&Vision, "nonsense").is_empty());
    }
}
