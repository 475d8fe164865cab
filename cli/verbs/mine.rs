//! `ctk mine`: mines hard negatives for pairs of texts.

use std::path::Path;

use ctk_core::error::{Error, Result};
use ctk_core::eval::mining::{Mined, Options, mine};
use ctk_core::rng::Key;
use ctk_texts::pairs::mining::Mining;
use ctk_texts::pairs::recipe::{ColumnRecipe, ColumnsRecipe, SentencesDataRecipe};
use ctk_texts::pairs::write::Layout as File;
use ctk_texts::pairs::{Kind, Pairs};
use ctk_texts::recipe::Paths;
use serde_json::{Value, json};

use crate::Modalities;
use crate::shared::args::{Layout, Mine, Sampling};
use crate::shared::model::open;
use crate::shared::{output, progress};
use crate::verbs::sentences::{self, rows};

pub fn run(args: Mine, modalities: Modalities) -> Result<()> {
    let file = File::of(&args.out)?;
    args.over.allows(&args.out)?;
    let data = args.model.data.as_deref().ok_or_else(|| {
        Error::usage("--data is missing: the pairs that negatives are mined for").hint("give a file of anchors and positives")
    })?;
    let quiet = args.model.show.quiet;
    let columns = ColumnsRecipe {
        anchor: args.anchor.as_deref().map(ColumnRecipe::from),
        positive: args.positive.as_deref().map(ColumnRecipe::from),
        ..ColumnsRecipe::default()
    };
    let pairs = read(data, columns, None, quiet)?;
    let corpus = args.corpus.as_deref().map(|path| {
        let anchor = args.corpus_column.as_deref().map(ColumnRecipe::from);
        read(path, ColumnsRecipe { anchor, ..ColumnsRecipe::default() }, Some(Kind::Texts), quiet)
    });
    let mining = Mining::of(&pairs, corpus.transpose()?.as_ref())?;
    mining.notes.iter().filter(|_| !quiet).for_each(|note| output::note(note));
    let options = Options {
        ranks: args.ranks(),
        margin: args.margin,
        relative_margin: args.relative_margin,
        most: args.most,
        least: args.least,
        negatives: args.negatives.into(),
        drawn: (args.sampling == Sampling::Random).then(|| Key::new(args.seed).of("mined negatives")),
    };
    options.check()?;
    let model = open(&args.model, modalities)?;
    let _progress = progress::of_samples(quiet);
    let [query, document] = args.roles.wanted().map(|wanted| model.prompt(&wanted));
    let (query, document) = (query?, document?);
    let anchors = rows(&*model, query.as_deref(), &mining.anchors, quiet)?;
    let documents = rows(&*model, document.as_deref(), &mining.documents, quiet)?;
    let mined = mine(&anchors, &documents, mining.candidates, &mining.positives, &mining.without, &options)?;
    let count = write(&args, file, &mining, &mined)?;
    let mut figures = report(&args, &mining, &mined, count);
    sentences::prompts(&mut figures, &[("query_prompt", &query), ("document_prompt", &document)]);
    output::figures(args.model.show.json, &figures)
}

/// The samples of `path`; what is to be said of them is said, unless `quiet`.
fn read(path: &Path, columns: ColumnsRecipe, kind: Option<Kind>, quiet: bool) -> Result<Pairs> {
    let path = Some(Paths::One(path.display().to_string()));
    let read = SentencesDataRecipe { path, columns, kind, ..SentencesDataRecipe::default() }.open_any()?;
    read.notes.iter().filter(|_| !quiet).for_each(|note| output::note(note));
    Ok(read.train)
}

/// Writes a row for each negative, or for each pair that has enough of them. Returns the number of rows.
fn write(args: &Mine, file: File, mining: &Mining, mined: &Mined) -> Result<usize> {
    let count = usize::from(args.negatives);
    let text = |document: usize| mining.documents[document].as_str();
    let pair = |(anchor, positive): (usize, usize)| [mining.anchors[anchor].as_str(), text(positive)];
    let negatives = |anchor: usize| mined.negatives[anchor].iter().map(|(document, _)| text(*document));
    let mut names = vec!["anchor".to_string(), "positive".to_string()];
    match args.format {
        Layout::NTuple if count > 1 => {
            names.extend((1..=count).map(|number| format!("negative_{number}")));
            let enough = mining.pairs.iter().filter(|(anchor, _)| mined.negatives[*anchor].len() == count);
            file.write(&args.out, &names, enough.map(|of| pair(*of).into_iter().chain(negatives(of.0)).collect()))
        }
        _ => {
            names.push("negative".to_string());
            let rows = mining.pairs.iter().flat_map(|of| {
                let [anchor, positive] = pair(*of);
                negatives(of.0).map(move |negative| vec![anchor, positive, negative])
            });
            file.write(&args.out, &names, rows)
        }
    }
}

/// Says which anchors have fewer negatives than asked for. Returns the figures.
fn report(args: &Mine, mining: &Mining, mined: &Mined, rows: usize) -> Value {
    let count = usize::from(args.negatives);
    let having = |wanted: &dyn Fn(usize) -> bool| mined.negatives.iter().filter(|list| wanted(list.len())).count();
    let (fewer, none) = (having(&|found| found < count), having(&|found| found == 0));
    let all = mining.anchors.len();
    if fewer > 0 && !args.model.show.quiet {
        let left_out = if args.format == Layout::NTuple { "they are left out" } else { "those without one are left out" };
        output::say(format!(
            "note: {fewer} of {all} anchors have fewer than {count} negatives, {none} of them none; {left_out}; more --rank, looser limits \
             (--margin, --most) or a larger --corpus find more"
        ));
    }
    if rows == 0 {
        output::say(format!("warning: no row was written to {}", args.out.display()));
    }
    let mean = |cosines: &mut dyn Iterator<Item = f32>| {
        let (sum, count) = cosines.fold((0.0, 0usize), |(sum, count), cosine| (sum + f64::from(cosine), count + 1));
        (count > 0).then(|| sum / count as f64)
    };
    json!({
        "out": args.out.display().to_string(), "rows": rows, "anchors": all, "pairs": mining.pairs.len(),
        "candidates": mining.candidates, "negatives": mined.negatives.iter().map(Vec::len).sum::<usize>(),
        "anchors_with_fewer": fewer, "anchors_without": none, "too_near": mined.too_near, "too_far": mined.too_far,
        "mean_positive_cosine": mean(&mut mined.positives.iter().flatten().copied()),
        "mean_negative_cosine": mean(&mut mined.negatives.iter().flatten().map(|(_, cosine)| *cosine)),
    })
}
