//! `ctk distill`: trains a student network on the predictions or the embeddings of a trained one. The modality writes the recipe.

use ctk_core::error::Result;
use ctk_core::recipe::Recipe;
use ctk_core::task::{self, Task};

use crate::Modalities;
use crate::shared::args::Distill;
use crate::shared::{output, progress, recipe, run as runs, task as tasks};

pub fn run(args: Distill, modalities: Modalities) -> Result<()> {
    let student = args.student.as_deref().map(|file| student(file, modalities)).transpose()?;
    let task = Task::Distill(task::Distill {
        student,
        from: args.from,
        temperature: args.temperature,
        alpha: args.alpha,
        epochs: args.epochs,
        rate: args.rate,
        width: args.width.map(|width| width as usize),
        vocabulary: args.vocabulary,
    });
    let request = args.tuning.request(&args.teacher, args.data.as_deref(), task);
    let (modality, mut recipe) = tasks::asked(&request, modalities)?;
    recipe::set(&mut recipe, &args.tuning.set)?;
    // The teacher may read for minutes before training begins.
    let _progress = progress::of_samples(args.new.show.quiet);
    runs::told(modality, &recipe, &args.new)
}

/// The student's recipe; relative paths in it are relative to its folder.
fn student(file: &std::path::Path, modalities: Modalities) -> Result<Recipe> {
    let mut recipe = Recipe::read(file)?;
    let paths: Vec<&str> = modalities.iter().flat_map(|modality| modality.paths()).collect();
    recipe.beside_its_file(&paths)?.iter().for_each(|told| output::say(format!("note: {told}")));
    Ok(recipe)
}
