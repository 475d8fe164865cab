//! `ctk eval sts` and `ctk eval retrieval`: evaluates any model that reads texts.

use std::collections::HashMap;
use std::path::Path;

use ctk_core::error::Result;
use ctk_core::eval::{Features, retrieval, sts};
use ctk_core::modality::Model;
use ctk_texts::corpus::Invalid;
use ctk_texts::files::Encoding;
use ctk_texts::retrieval::{self as collections, Collection};
use ctk_texts::sts::{Set, Sets};
use serde_json::{Value, json};

use crate::Modalities;
use crate::shared::args::ModelArgs;
use crate::shared::model::open;
use crate::shared::{evals, output, progress};

/// The features of texts; what is to be said of them is said, unless `quiet`.
fn rows(model: &dyn Model, texts: &[String], quiet: bool) -> Result<Features> {
    let mut rows = model.texts(texts)?;
    output::notes(&mut rows, quiet);
    Ok(rows)
}

/// Says the notes of reading.
fn say(notes: &[String], args: &ModelArgs) {
    notes.iter().filter(|_| !args.show.quiet).for_each(|note| output::say(format!("note: {note}")));
}

/// Ranks pairs of sentences by their cosines, and compares with people's scores: each set, and all pairs in one list.
pub fn sts(args: &ModelArgs, path: &Path, without: &[String], truncate: Option<usize>, modalities: Modalities) -> Result<()> {
    let Sets { sets, notes } = Sets::read(path, Encoding::default(), Invalid::Refuse)?;
    say(&notes, args);
    let (sets, left_out): (Vec<Set>, Vec<Set>) = sets.into_iter().partition(|set| !without.contains(&set.name));
    if let Some(unknown) = without.iter().find(|name| left_out.iter().all(|set| set.name != **name)) {
        let known: Vec<&str> = sets.iter().map(|set| set.name.as_str()).collect();
        return Err(ctk_core::error::Error::usage(format!("--without {unknown}: there is no such set"))
            .hint(format!("there are {}", known.join(", "))));
    }
    let model = open(args, modalities)?;
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
    let features = rows(&*model, &texts, args.show.quiet)?;
    let side = |texts: &[String]| features.select(&texts.iter().map(|text| numbers[text.as_str()]).collect::<Vec<_>>());
    let judge = |set: &Set| -> Result<Value> {
        let found = sts::sts(&side(&set.left), &side(&set.right), &set.scores, truncate)?;
        Ok(json!({ "set": set.name, "spearman": found.spearman, "pearson": found.pearson, "pairs": found.pairs }))
    };
    let mut lines = sets.iter().map(judge).collect::<Result<Vec<Value>>>()?;
    let all = judge(&Set::joined("all", &sets))?;
    let mut whole = json!({ "spearman": all["spearman"], "pearson": all["pearson"], "pairs": all["pairs"] });
    if truncate.is_some() {
        whole["width"] = truncate.into();
    }
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
    options: &retrieval::Options,
    modalities: Modalities,
) -> Result<()> {
    let collection = Collection::read(path, &collections::Options { split, ..collections::Options::default() })?;
    say(&collection.notes, args);
    let model = open(args, modalities)?;
    let _progress = progress::of_samples(args.show.quiet);
    let named = |texts: &[String], names: &[String]| -> Result<Features> {
        Ok(Features { names: names.to_vec(), ..rows(&*model, texts, args.show.quiet)? })
    };
    let queries = named(&collection.queries, &collection.query_ids)?;
    let documents = named(&collection.documents, &collection.document_ids)?;
    let found = retrieval::retrieval(&queries, &documents, &collection.relevance, options)?;
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
    if options.truncate.is_some() {
        figures["width"] = options.truncate.into();
    }
    evals::figures(args, "retrieval", &figures)
}
