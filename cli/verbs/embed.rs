//! `ctk embed`: writes features to a file.

use ctk_core::error::Result;
use ctk_core::eval::Features;
use serde_json::json;

use crate::Modalities;
use crate::shared::args::Embed;
use crate::shared::{model, output, progress, samples};

pub fn run(args: Embed, modalities: Modalities) -> Result<()> {
    ctk_core::eval::files_of(&args.out)?.iter().try_for_each(|out| args.over.allows(out))?;
    let model = model::open(&args.model, modalities)?;
    let _progress = progress::of_samples(args.model.show.quiet);
    let queries = samples::queries(&*model, &args.model, &args.samples);
    let features = samples::all(
        queries,
        |query| {
            let mut features = model.features(query)?;
            output::notes(&mut features, args.model.show.quiet);
            Ok(features)
        },
        |features: &mut Features| &mut features.names,
        Features::followed_by,
    )?;
    if features.labels.is_none() && !features.classes.is_empty() && !args.model.show.quiet {
        output::say("note: labels are left out, since some rows have none");
    }
    features.save(&args.out)?;
    if let ([_, beside, ..], false) = (&ctk_core::eval::files_of(&args.out)?[..], args.model.show.quiet) {
        output::say(format!("note: names, labels and parts are in {}", beside.display()));
    }
    let figures = json!({ "out": args.out.display().to_string(), "rows": features.len(), "width": features.width });
    output::figures(args.model.show.json, &figures)
}
