//! `ctk embed`: features to a file.

use ctk_core::error::Result;
use ctk_core::modality::{Query, Split};
use serde_json::json;

use crate::Modalities;
use crate::shared::args::{Embed, Part};
use crate::shared::{model, output};

pub fn run(args: Embed, modalities: Modalities) -> Result<()> {
    ctk_core::eval::check_path(&args.out)?;
    let model = model::open(&args.model, modalities)?;
    let split = match args.split {
        Part::Train => Split::Train,
        Part::Test => Split::Test,
        Part::All => Split::All,
    };
    let features = model.features(&Query { data: args.model.data.clone(), split, ..Query::default() })?;
    features.save(&args.out)?;
    let figures = json!({ "out": args.out.display().to_string(), "rows": features.len(), "width": features.width });
    output::figures(args.model.show.json, &figures)
}
