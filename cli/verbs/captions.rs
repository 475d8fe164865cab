//! `ctk eval retrieval` and `zero-shot` of models of images and captions.

use std::path::Path;

use ctk_core::error::{Context, Error, Result};
use ctk_core::eval::crossmodal::{self, Captioned};
use ctk_core::eval::{Features, zero_shot};
use ctk_core::modality::Query;
use ctk_core::opened;
use ctk_core::store::files;
use serde_json::json;

use crate::Modalities;
use crate::shared::args::ModelArgs;
use crate::shared::model::{open, query};
use crate::shared::{evals, output, progress};

/// The prompt of a class if none is given: CLIP's.
const PROMPT: &str = "a photo of a {}.";

/// Finds the captions of images, and the images of captions.
pub fn retrieval(args: &ModelArgs, ranks: Option<&Path>, modalities: Modalities) -> Result<()> {
    let model = open(args, modalities)?;
    let _progress = progress::of_samples(args.show.quiet);
    let (all, notes) = model.captioned(&query(args))?;
    notes.iter().filter(|_| !args.show.quiet).for_each(|note| output::note(note));
    let found = crossmodal::crossmodal(&all)?;
    ranks.map_or(Ok(()), |out| write_ranks(&all, out))?;
    let mut figures = json!({});
    for (side, of) in [("text", &found.to_text), ("image", &found.to_image)] {
        for (at, cutoff) in crossmodal::CUTOFFS.iter().enumerate() {
            figures[format!("{side}_recall@{cutoff}")] = of.at[at].into();
            figures[format!("{side}_chance@{cutoff}")] = of.chance[at].into();
        }
        figures[format!("{side}_median_rank")] = of.median.into();
    }
    let sum: f64 = found.to_text.at.iter().chain(&found.to_image.at).sum();
    figures["rsum"] = (100.0 * sum).into();
    figures["images"] = found.to_text.asked.into();
    figures["captions"] = found.to_image.asked.into();
    evals::figures(args, "retrieval", &figures)
}

/// Writes a line for each image and for each caption: what it looks for, the image, the caption, and the rank of the first right one.
fn write_ranks(all: &Captioned, out: &Path) -> Result<()> {
    let ranks = crossmodal::ranks(all)?;
    let mut lines = csv::Writer::from_writer(Vec::new());
    let mut line = |cells: [&str; 4]| lines.write_record(cells).map_err(Error::new);
    line(["finds", "image", "caption", "rank"])?;
    for (image, rank) in all.images.names.iter().zip(&ranks.to_text) {
        line(["text", image, "", &rank.to_string()])?;
    }
    for ((caption, image), rank) in all.captions.names.iter().zip(&all.of).zip(&ranks.to_image) {
        line(["image", &all.images.names[*image as usize], caption, &rank.to_string()])?;
    }
    files::write(out, &lines.into_inner().map_err(|e| Error::new(e.to_string()))?)
}

/// Classifies images by the texts that describe the classes.
pub fn zero_shot(args: &ModelArgs, classes: Option<&Path>, prompts: Option<&Path>, modalities: Modalities) -> Result<()> {
    let prompts = prompts.map_or_else(|| Ok(vec![PROMPT.to_string()]), read_prompts)?;
    let named = classes.map(read_classes).transpose()?;
    let model = open(args, modalities)?;
    let _progress = progress::of_samples(args.show.quiet);
    let mut images = model.features(&query(args))?;
    output::notes(&mut images, args.show.quiet);
    images.labels()?;
    // Each class with the name that describes it.
    let named = match named {
        None => images.classes.iter().map(|class| (class.clone(), class.replace('_', " "))).collect(),
        Some(named) => of_classes(named, &images)?,
    };
    let names: Vec<String> = named.iter().map(|(class, _)| class.clone()).collect();
    let texts: Vec<String> = named.iter().flat_map(|(_, name)| zero_shot::described(&prompts, name)).collect();
    let described = model.features(&Query { texts, ..Query::default() })?;
    let rows = zero_shot::classes(&names, prompts.len(), &described)?;
    let found = zero_shot::zero_shot(&images, &rows)?;
    let mut figures = json!({
        "top1": found.top1, "top5": found.top5, "mean_per_class": found.mean_per_class, "images": found.rows,
        "classes": names.len(), "prompts": prompts.len(), "chance": 1.0 / names.len() as f64,
    });
    if args.show.json {
        figures["per_class"] =
            found.classes.iter().map(|(name, share, count)| json!({ "class": name, "top1": share, "images": count })).collect();
    }
    evals::figures(args, "zero-shot", &figures)
}

/// The names of the classes in a file, for the classes of the images: matched by class where a line has two columns, by name where it has
/// one, or by their order if no name is that of a class.
fn of_classes(named: Vec<(Option<String>, String)>, images: &Features) -> Result<Vec<(String, String)>> {
    let plain = |name: &str| name.replace(['_', '-'], " ").to_lowercase();
    let known = |name: &str| images.classes.iter().find(|class| plain(class) == plain(name)).cloned();
    if named.iter().any(|(class, _)| class.is_some()) {
        return Ok(named.into_iter().map(|(class, name)| (class.unwrap_or_else(|| name.clone()), name)).collect());
    }
    let matched = named.iter().filter(|(_, name)| known(name).is_some()).count();
    if matched > 0 {
        // Further names are classes that no image has.
        return Ok(named.into_iter().map(|(_, name)| (known(&name).unwrap_or_else(|| name.clone()), name)).collect());
    }
    if named.len() == images.classes.len() {
        output::say("note: no name is that of a class, so names and classes are matched by their order");
        return Ok(images.classes.iter().cloned().zip(named.into_iter().map(|(_, name)| name)).collect());
    }
    let what =
        format!("none of the {} names is that of a class, and the images have {} classes", named.len(), images.classes.len());
    Err(Error::usage(what).hint("write `class<TAB>name` on each line"))
}

/// Lines of a class's name, or of a class, a tab and its name.
fn read_classes(path: &Path) -> Result<Vec<(Option<String>, String)>> {
    let lines = lines(path)?;
    let split = |line: &String| match line.split_once('\t') {
        Some((class, name)) => (Some(class.trim().to_string()), name.trim().to_string()),
        None => (None, line.clone()),
    };
    let classes: Vec<_> = lines.iter().map(split).collect();
    if let Some(line) = classes.iter().position(|(_, name)| name.is_empty()) {
        return Err(Error::usage(format!("class {} has no name", line + 1)).at(path.display()));
    }
    Ok(classes)
}

/// Lines with `{}` where the class's name goes.
fn read_prompts(path: &Path) -> Result<Vec<String>> {
    let prompts = lines(path)?;
    match prompts.iter().find(|prompt| !prompt.contains(zero_shot::PLACE)) {
        Some(prompt) => {
            Err(Error::usage(format!("this prompt has no {{}} where the class's name goes: {prompt}")).at(path.display()))
        }
        None => Ok(prompts),
    }
}

/// The lines of a file that are not empty.
fn lines(path: &Path) -> Result<Vec<String>> {
    let text = opened::text(path).at(path.display())?;
    let lines: Vec<String> = text.lines().map(|line| line.trim().to_string()).filter(|line| !line.is_empty()).collect();
    match lines.is_empty() {
        true => Err(Error::usage("this file has no line").at(path.display())),
        false => Ok(lines),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images(classes: &[&str]) -> Features {
        Features { classes: classes.iter().map(ToString::to_string).collect(), ..Features::default() }
    }

    #[test]
    fn names_are_matched_with_classes() {
        let of = |named: &[(Option<&str>, &str)], classes: &[&str]| {
            let named = named.iter().map(|(class, name)| (class.map(String::from), name.to_string())).collect();
            of_classes(named, &images(classes))
        };
        let pair = |class: &str, name: &str| (class.to_string(), name.to_string());
        assert_eq!(of(&[(Some("n01"), "goldfish")], &["n01"]).unwrap(), [pair("n01", "goldfish")]);
        let found = of(&[(None, "Golden retriever"), (None, "fox")], &["golden_retriever"]).unwrap();
        assert_eq!(found, [pair("golden_retriever", "Golden retriever"), pair("fox", "fox")]);
        assert_eq!(of(&[(None, "cat"), (None, "dog")], &["0", "1"]).unwrap(), [pair("0", "cat"), pair("1", "dog")]);
        assert!(of(&[(None, "cat")], &["0", "1"]).unwrap_err().to_string().contains("TAB"));
    }

    #[test]
    fn files_are_read_line_by_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        let write = |text: &str| ctk_core::store::files::write(&path, text.as_bytes()).unwrap();
        write("n01\tgold fish\n\ncat\r\n");
        assert_eq!(read_classes(&path).unwrap(), [(Some("n01".to_string()), "gold fish".to_string()), (None, "cat".to_string())]);
        assert!(read_prompts(&path).unwrap_err().to_string().contains("{}"));
        write("a {}\n");
        assert_eq!(read_prompts(&path).unwrap(), ["a {}"]);
        write("\n");
        assert!(read_classes(&path).is_err());
    }
}
