//! `ctk neighbors`: what lies nearest to a word.

use ctk_core::error::Result;
use ctk_core::eval::neighbors;
use ctk_core::modality::Query;
use serde_json::{Value, json};

use crate::args::Neighbors;
use crate::{Modalities, export, output};

pub fn run(args: Neighbors, modalities: Modalities) -> Result<()> {
    let model = export::open(&args.model, modalities)?;
    let features = model.features(&Query { data: args.model.data.clone(), ..Query::default() })?;
    let mut found = json!({});
    for word in &args.words {
        let near = neighbors(&features, &[word], &[], args.count)?;
        found[word] = near.iter().map(|(name, score)| json!({ "name": name, "cosine": score })).collect::<Value>();
        if !args.model.show.json {
            output::line(word)?;
            near.iter().try_for_each(|(name, score)| output::line(format!("  {score:.4}  {name}")))?;
        }
    }
    if args.model.show.json { output::line(found) } else { Ok(()) }
}
