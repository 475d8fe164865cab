//! `ctk embed`: writes features to a file.

use std::path::Path;

use ctk_core::error::{Error, Result};
use ctk_core::eval::precision::{Precision, Ranges};
use ctk_core::eval::{Features, holds_codes, is_features};
use ctk_core::modality::{Model, Query};
use serde_json::json;

use clap::ValueEnum;

use crate::Modalities;
use crate::shared::args::Embed;
use crate::shared::{model, output, progress, samples};

pub fn run(args: Embed, modalities: Modalities) -> Result<()> {
    ctk_core::eval::files_of(&args.out)?.iter().try_for_each(|out| args.over.allows(out))?;
    let precision = Precision::from(args.precision);
    if precision != Precision::Float32 {
        holds_codes(&args.out)?;
    }
    if args.calibration.is_some() && !precision.has_ranges() {
        return Err(Error::usage("--calibration is of use for --precision int8 and uint8 alone").hint("leave it out"));
    }
    let quiet = args.model.show.quiet;
    let model = model::open(&args.model, modalities)?;
    let prompt = model.prompt(&args.prompt.wanted())?;
    let _progress = progress::of_samples(args.model.show.quiet);
    let queries = samples::queries(&*model, &args.model, &args.samples);
    let features = samples::all(
        queries,
        |query| {
            let mut features = model.features(&Query { prompt: prompt.clone(), ..query.clone() })?;
            output::notes(&mut features, quiet);
            Ok(features)
        },
        |features: &mut Features| &mut features.names,
        Features::followed_by,
    )?;
    if features.labels.is_none() && !features.classes.is_empty() && !quiet {
        output::say("note: labels are left out, since some rows have none");
    }
    let features = shaped(features, &args, true)?;
    let mut figures = json!({ "out": args.out.display().to_string(), "rows": features.len(), "width": features.width });
    if let Some(precision) = args.model.compute.stated() {
        figures["compute"] = precision.into();
    }
    if let Some(prompt) = &prompt {
        figures["prompt"] = prompt.as_str().into();
    }
    if precision == Precision::Float32 {
        features.save(&args.out)?;
    } else {
        let ranges = args.calibration.as_deref().map(|path| calibration(&*model, &args, &prompt, path)).transpose()?;
        let codes = precision.codes(&features, ranges.as_ref())?;
        if let Some(doubt) = codes.ranges.as_ref().and_then(Ranges::doubt).filter(|_| !quiet) {
            output::note(&doubt);
        }
        if codes.outside > 0 && !quiet {
            let all = features.rows.len();
            output::say(format!(
                "note: {} of {all} values are outside of their column's range in the calibration, and get its first or last code",
                codes.outside
            ));
        }
        features.save_codes(&args.out, &codes)?;
        figures["precision"] = args.precision.to_possible_value().map(|value| value.get_name().to_string()).into();
        figures["row_bytes"] = codes.width.into();
        if precision.has_ranges() {
            figures["outside"] = codes.outside.into();
        }
    }
    if let ([_, beside, ..], false) = (&ctk_core::eval::files_of(&args.out)?[..], quiet) {
        output::say(format!("note: names, labels and parts are in {}", beside.display()));
    }
    output::figures(args.model.show.json, &figures)
}

/// The rows cut and scaled as the arguments say; `say` says what is left.
fn shaped(features: Features, args: &Embed, say: bool) -> Result<Features> {
    let Some(values) = args.truncate_dim else {
        return Ok(if args.normalize { features.normalised() } else { features });
    };
    let before = features.width;
    let cut = features.cut(values)?;
    if args.normalize {
        return Ok(cut.normalised());
    }
    if say && values < before && !args.model.show.quiet {
        output::say(format!(
            "note: rows are cut to the first {values} of {before} values, and not scaled again; --normalize scales them to length 1"
        ));
    }
    Ok(cut)
}

/// The ranges of the columns of the data in `path`, or of the features in it.
fn calibration(model: &dyn Model, args: &Embed, prompt: &Option<String>, path: &Path) -> Result<Ranges> {
    let mut features = match is_features(path) {
        true => Features::load(path)?,
        false => model.features(&Query { data: Some(path.to_path_buf()), prompt: prompt.clone(), ..Query::default() })?,
    };
    output::notes(&mut features, args.model.show.quiet);
    // Stored features may have been cut already.
    let stored = args.truncate_dim == Some(features.width) && is_features(path);
    Ranges::of(&if stored { features } else { shaped(features, args, false)? })
}
