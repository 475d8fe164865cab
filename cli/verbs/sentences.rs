//! `ctk eval sts` and `ctk eval retrieval`: evaluates any model that reads texts.

use std::collections::HashMap;
use std::path::Path;

use clap::ValueEnum;
use ctk_core::error::Result;
use ctk_core::eval::precision::{Precision, Ranges};
use ctk_core::eval::{Features, retrieval, sts};
use ctk_core::modality::Model;
use ctk_texts::corpus::Invalid;
use ctk_texts::files::Encoding;
use ctk_texts::retrieval::{self as collections, Collection};
use ctk_texts::sts::{Set, Sets};
use serde_json::{Value, json};

use crate::Modalities;
use crate::shared::args::{self, Fewer, ModelArgs, Prompted, Roles};
use crate::shared::model::open;
use crate::shared::{evals, output, progress};

/// The features of texts behind `prompt`; what is to be said of them is said, unless `quiet`.
pub fn rows(model: &dyn Model, prompt: Option<&str>, texts: &[String], quiet: bool) -> Result<Features> {
    let mut rows = model.prompted(prompt, texts)?;
    output::notes(&mut rows, quiet);
    Ok(rows)
}

/// Writes what was put before texts into `figures`, unless it was what the model usually puts there.
pub fn prompts(figures: &mut Value, prompts: &[(&str, &Option<String>)]) {
    prompts.iter().filter_map(|(key, prompt)| Some((*key, prompt.as_ref()?))).for_each(|(key, prompt)| {
        figures[key] = prompt.as_str().into();
    });
}

/// Says the notes of reading.
fn say(notes: &[String], args: &ModelArgs) {
    notes.iter().filter(|_| !args.show.quiet).for_each(|note| output::say(format!("note: {note}")));
}

/// How a flag's value is written.
fn named(precision: args::Precision) -> String {
    precision.to_possible_value().map_or_else(String::new, |value| value.get_name().to_string())
}

impl Fewer {
    /// Whether rows are judged as they are.
    pub fn nothing(&self) -> bool {
        self.truncate_dim.is_none() && self.precision == args::Precision::Float32
    }

    /// The rows of `all` cut and rounded. Ranges are those of `known`, cut like them.
    fn apply(&self, all: &Features, known: &Features) -> Result<Features> {
        let cut = |rows: &Features| self.truncate_dim.map_or_else(|| Ok(rows.clone()), |values| rows.clone().cut(values));
        let precision = Precision::from(self.precision);
        let ranges = if precision.has_ranges() { Some(Ranges::of(&cut(known)?)?) } else { None };
        cut(all)?.rounded(precision, ranges.as_ref())
    }

    /// Writes into `figures` what is judged, the figures of whole rows in float32, and how much is lost of the figure `main`.
    fn compare(&self, figures: &mut Value, full: &Value, main: &str) {
        if self.truncate_dim.is_some() {
            figures["width"] = self.truncate_dim.into();
        }
        if self.precision != args::Precision::Float32 {
            figures["precision"] = named(self.precision).into();
        }
        // Counts and names are the same for both.
        let judged = |key: &str, value: &Value| value.is_f64() || value.is_null() && key != "split";
        for (key, value) in full.as_object().into_iter().flatten().filter(|(key, value)| judged(key, value)) {
            figures[format!("full_{key}")] = value.clone();
        }
        let (now, before) = (figures[main].as_f64(), full[main].as_f64());
        figures["loss"] = before.zip(now).map(|(before, now)| before - now).into();
    }
}

/// Ranks pairs of sentences by their cosines, and compares with people's scores: each set, and all pairs in one list.
pub fn sts(
    args: &ModelArgs,
    path: &Path,
    without: &[String],
    prompt: &Prompted,
    fewer: &Fewer,
    modalities: Modalities,
) -> Result<()> {
    let Sets { sets, notes } = Sets::read(path, Encoding::default(), Invalid::Refuse)?;
    say(&notes, args);
    let (sets, left_out): (Vec<Set>, Vec<Set>) = sets.into_iter().partition(|set| !without.contains(&set.name));
    if let Some(unknown) = without.iter().find(|name| left_out.iter().all(|set| set.name != **name)) {
        let known: Vec<&str> = sets.iter().map(|set| set.name.as_str()).collect();
        return Err(ctk_core::error::Error::usage(format!("--without {unknown}: there is no such set"))
            .hint(format!("there are {}", known.join(", "))));
    }
    let model = open(args, modalities)?;
    let prompt = model.prompt(&prompt.wanted())?;
    let _progress = progress::of_samples(args.show.quiet);
    // A sentence of several pairs is embedded once.
    let mut numbers: HashMap<&str, usize> = HashMap::new();
    let mut texts: Vec<String> = Vec::new();
    for text in sets.iter().flat_map(|set| set.left.iter().chain(&set.right)) {
        numbers.entry(text).or_insert_with(|| {
            texts.push(text.clone());
            texts.len() - 1
        });
    }
    let features = rows(&*model, prompt.as_deref(), &texts, args.show.quiet)?;
    let judge = |set: &Set, features: &Features| -> Result<Value> {
        let side = |texts: &[String]| features.select(&texts.iter().map(|text| numbers[text.as_str()]).collect::<Vec<_>>());
        let found = sts::sts(&side(&set.left), &side(&set.right), &set.scores, None)?;
        Ok(json!({ "set": set.name, "spearman": found.spearman, "pearson": found.pearson, "pairs": found.pairs }))
    };
    let kept = if fewer.nothing() { None } else { Some(fewer.apply(&features, &features)?) };
    let line = |set: &Set| -> Result<Value> {
        let full = judge(set, &features)?;
        let Some(kept) = &kept else { return Ok(full) };
        let mut line = judge(set, kept)?;
        fewer.compare(&mut line, &full, "spearman");
        Ok(line)
    };
    let mut lines = sets.iter().map(line).collect::<Result<Vec<Value>>>()?;
    let all = line(&Set::joined("all", &sets))?;
    let mut whole = all.clone();
    whole.as_object_mut().and_then(|whole| whole.shift_remove("set"));
    prompts(&mut whole, &[("prompt", &prompt)]);
    if !left_out.is_empty() {
        whole["without"] = without.into();
    }
    whole["sets"] = lines.clone().into();
    evals::keep(args, "sts", &whole)?;
    if args.show.json {
        return output::line(whole);
    }
    if lines.len() > 1 {
        lines.push(all);
    }
    output::rows(false, "sets", &lines)
}

/// Searches the documents of a collection for each of its queries.
pub fn retrieval(
    args: &ModelArgs,
    path: &Path,
    split: Option<&str>,
    exclude_same: bool,
    roles: &Roles,
    fewer: &Fewer,
    modalities: Modalities,
) -> Result<()> {
    let collection = Collection::read(path, &collections::Options { split, ..collections::Options::default() })?;
    say(&collection.notes, args);
    let model = open(args, modalities)?;
    let _progress = progress::of_samples(args.show.quiet);
    let [query, document] = roles.wanted().map(|wanted| model.prompt(&wanted));
    let (query, document) = (query?, document?);
    let named = |prompt: &Option<String>, texts: &[String], names: &[String]| -> Result<Features> {
        Ok(Features { names: names.to_vec(), ..rows(&*model, prompt.as_deref(), texts, args.show.quiet)? })
    };
    let queries = named(&query, &collection.queries, &collection.query_ids)?;
    let documents = named(&document, &collection.documents, &collection.document_ids)?;
    let options = retrieval::Options { truncate: None, exclude_same };
    let judge = |queries: &Features, documents: &Features| -> Result<Value> {
        Ok(figures(&collection, &retrieval::retrieval(queries, documents, &collection.relevance, &options)?))
    };
    let mut found = judge(&queries, &documents)?;
    if !fewer.nothing() {
        let full = found;
        // The ranges are those of what is stored and searched.
        found = judge(&fewer.apply(&queries, &documents)?, &fewer.apply(&documents, &documents)?)?;
        fewer.compare(&mut found, &full, "ndcg@10");
    }
    prompts(&mut found, &[("query_prompt", &query), ("document_prompt", &document)]);
    evals::figures(args, "retrieval", &found)
}

/// The figures of a search under their JSON names.
fn figures(collection: &Collection, found: &retrieval::Retrieval) -> Value {
    let mut figures = json!({ "split": collection.split, "ndcg@10": found.ndcg, "mrr@10": found.mrr, "first": found.first });
    for (cutoff, recall) in retrieval::CUTOFFS.iter().zip(found.recall) {
        figures[format!("recall@{cutoff}")] = recall.into();
    }
    for (name, count) in [
        ("queries", found.queries),
        ("documents", found.documents),
        ("queries_without_relevant", found.unjudged_queries),
        ("documents_without_query", found.unjudged_documents),
        ("relevant_missing", found.missing),
        ("excluded", found.excluded),
    ] {
        figures[name] = count.into();
    }
    figures
}
