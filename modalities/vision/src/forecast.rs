//! Describes a run before its first step: network, steps, memory, and what will be measured.

use ctk_core::Device;
use ctk_core::memory::size;
use ctk_core::nn::params::Params;
use ctk_core::recipe::Precision;
use ctk_images::dataset::count;

use crate::encoder::{Architecture, SAFETENSORS};
use crate::recipe::VisionRecipe;

/// Views of at most this many pixels are those of recipes for small images.
const SMALL: usize = 40;

/// Describes the run by `recipe` over `images` images on `device`, one sentence on each line; `params` are all parameters of its learner.
pub(crate) fn lines(recipe: &VisionRecipe, params: &Params, images: usize, device: &Device) -> Vec<String> {
    let encoder = recipe.encoder.architecture();
    let family = encoder.family();
    let scalars = |prefix: &str| millions(params.count(prefix));
    let network = format!(
        "network: {} with {} parameters, and {} in its head; images are shown at {} × {} pixels",
        family.title,
        scalars("encoder."),
        scalars("head."),
        recipe.pairs.size,
        recipe.pairs.size
    );
    let batch = recipe.train.batch.min(images);
    let steps = images / batch.max(1);
    let whole = (steps * recipe.train.epochs).min(recipe.train.max_steps.unwrap_or(usize::MAX));
    let rest = match images - steps * batch {
        0 => String::new(),
        rest => format!("; an epoch leaves {rest} of the images out, different ones each time, because batches are full"),
    };
    let epochs = match whole < steps * recipe.train.epochs {
        true => format!("{:.1} of {}", whole as f64 / steps.max(1) as f64, count(recipe.train.epochs, "epoch")),
        false => count(recipe.train.epochs, "epoch"),
    };
    let by = match &recipe.task {
        Some(_) => String::new(),
        None => format!(" by [loss.{}]", recipe.loss.name()),
    };
    let length = format!("training{by}: {} of {batch} images, {steps} an epoch, {epochs}{rest}", count(whole, "step"));
    vec![network, programs(encoder), length, memory_line(step(recipe, params, batch), device)]
}

/// Which other programs can load the network, and why the others cannot.
fn programs(encoder: &dyn Architecture) -> String {
    let formats = encoder.formats().iter().filter(|format| **format != SAFETENSORS);
    let (loads, refused): (Vec<_>, Vec<_>) =
        formats.map(|format| (*format, encoder.refused(format))).partition(|(_, refused)| refused.is_none());
    let loads = match loads.is_empty() {
        true => "ctk export writes its tensors".to_string(),
        false => {
            format!("ctk export writes it for {}", loads.iter().map(|(format, _)| *format).collect::<Vec<_>>().join(" and "))
        }
    };
    let mut reasons: Vec<String> = refused.into_iter().filter_map(|(_, reason)| reason).collect();
    reasons.dedup_by(|a, b| a.split(", which").next() == b.split(", which").next());
    let but = if reasons.is_empty() { String::new() } else { format!("; {}", reasons.join("; ")) };
    format!("other programs: {loads}{but}")
}

/// What will be measured during training and after it. `labelled` says whether the part for kNN and the probe has labels.
pub(crate) fn measures(recipe: &VisionRecipe, labelled: bool) -> String {
    if !labelled {
        return "measured: only the loss. Accuracy needs labels: one folder for each class, or a table with a column of labels"
            .to_string();
    }
    let mut what = Vec::new();
    if let Some(knn) = &recipe.eval.knn {
        let every = if knn.every == 1 { "every epoch".to_string() } else { format!("every {} epochs", knn.every) };
        what.push(format!("nearest neighbours {every}"));
    }
    if recipe.eval.linear_probe.is_some() {
        what.push("a linear probe at the end".to_string());
    }
    if recipe.checkpoint.keep_best {
        what.push("each checkpoint, to keep the best".to_string());
    }
    match what.is_empty() {
        true => "measured: only the loss; [eval.knn] and [eval.linear-probe] measure accuracy".to_string(),
        false => format!("measured: the loss, {}", what.join(", ")),
    }
}

/// Views of an image in a step; a task has one.
pub(crate) fn views(recipe: &VisionRecipe) -> usize {
    if recipe.task.is_some() { 1 } else { 2 }
}

/// Bytes that a step needs, without cached images.
pub(crate) fn step(recipe: &VisionRecipe, params: &Params, batch: usize) -> u64 {
    let encoder = recipe.encoder.architecture();
    let rows = views(recipe) * batch.min(recipe.train.part());
    let bytes = if recipe.train.precision == Precision::Bf16 { 2.0 } else { 4.0 };
    let values = encoder.values(params, "encoder", recipe.pairs.size);
    let maps = if recipe.train.recompute { values.recomputed } else { values.step } * rows as f64 * bytes;
    // Values, gradients and optimizer state; and the values of a momentum copy.
    let copies = 3 + usize::from(recipe.loss.needs().momentum.is_some());
    (maps + (params.count("") * 4 * copies) as f64) as u64
}

/// A warning where the network sees much less of an image than there is; `side` is the median of the images' shorter sides, in pixels.
pub(crate) fn shrunk(recipe: &VisionRecipe, side: Option<usize>) -> Option<String> {
    let size = recipe.pairs.size;
    let side = side.filter(|side| size <= SMALL && *side > 3 * size)?;
    Some(format!(
        "warning: the shorter side of these images has {side} pixels (the median), and views have {size}: details are lost. This recipe is for \
         small images; larger views (pairs.size; a ResNet then wants encoder.resnet.stem = \"imagenet\") see more, and so does the recipe \
         that --data makes without --config"
    ))
}

fn memory_line(step: u64, device: &Device) -> String {
    let need = match device.is_cpu() {
        true => format!("memory: a step needs about {}, the images apart", size(step)),
        false => format!("memory: a step needs about {} of {device}", size(step)),
    };
    fitting(need, step, device.free_memory())
}

fn fitting(need: String, step: u64, free: Option<u64>) -> String {
    match free {
        Some(free) if step > free => format!(
            "{need}, and {} are free: it may not fit. Smaller parts (train.part), train.recompute = true or train.precision = \"bf16\" \
             need less",
            size(free)
        ),
        Some(free) => format!("{need}; {} are free", size(free)),
        None => need,
    }
}

fn millions(count: usize) -> String {
    match count {
        0..=9_999 => count.to_string(),
        10_000..=999_999 => format!("{:.0} thousand", count as f64 / 1e3),
        _ => format!("{:.1} million", count as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network;
    use crate::recipe::check;
    use ctk_core::recipe::Recipe;

    fn recipe(text: &str) -> VisionRecipe {
        check(&Recipe::new("test", text)).unwrap().recipe
    }

    #[test]
    fn a_run_is_told_before_it_begins() {
        let recipe =
            recipe("[pairs]\nsize = 32\n[encoder.resnet]\ndepth = 18\nstem = \"small\"\n[train]\nbatch = 64\nepochs = 20\n");
        let params = network::learner(&recipe, &Device::Cpu).unwrap().params;
        let said = lines(&recipe, &params, 511, &Device::Cpu);
        assert!(said[0].contains("ResNet with 11.2 million parameters") && said[0].contains("32 × 32 pixels"), "{said:?}");
        assert!(said[1].contains("a stem for small images"), "{said:?}");
        assert!(said[2].contains("140 steps of 64 images, 7 an epoch, 20 epochs") && said[2].contains("leaves 63"), "{said:?}");
        assert!(said[3].contains("a step needs about"), "{said:?}");
        let few = lines(&recipe, &params, 10, &Device::Cpu);
        assert!(few[2].contains("20 steps of 10 images, 1 an epoch") && !few[2].contains("leaves"), "{few:?}");
    }

    #[test]
    fn memory_is_forecast_and_what_may_not_fit_is_said() {
        let of = |more: &str| {
            let recipe = recipe(&format!(
                "[pairs]\nsize = 32\n[encoder.resnet]\ndepth = 18\nstem = \"small\"\n[train]\nbatch = 128\n{more}"
            ));
            let params = network::learner(&recipe, &Device::Cpu).unwrap().params;
            step(&recipe, &params, 128) as f64 / 1e6
        };
        // `ctk bench vision` measures 1.4 GB.
        assert!((1200.0..1600.0).contains(&of("")), "{}", of(""));
        assert!(
            of("part = 32\n") < 0.4 * of("") && of("recompute = true\n") < 0.7 * of("") && of("precision = \"bf16\"\n") < of("")
        );
        let tight = fitting("memory: a step needs about 2.0 GB".to_string(), 2_000_000_000, Some(1_000_000_000));
        assert!(tight.contains("2.0 GB") && tight.contains("1.0 GB are free") && tight.contains("train.part"), "{tight}");
        assert!(!fitting(String::new(), 1, Some(2)).contains("may not fit"));
    }

    #[test]
    fn photos_under_a_recipe_for_small_images_are_said() {
        let small = recipe("[pairs]\nsize = 24\n");
        assert!(shrunk(&small, Some(375)).unwrap().starts_with("warning: the shorter side of these images has 375 pixels"));
        assert!(shrunk(&small, Some(32)).is_none() && shrunk(&small, None).is_none());
        assert!(shrunk(&recipe("[pairs]\nsize = 96\n"), Some(3000)).is_none(), "a usual size for photos");
    }

    #[test]
    fn what_is_not_measured_is_said() {
        assert!(measures(&recipe(""), false).contains("needs labels"));
        let both = measures(&recipe("[eval.knn]\nevery = 5\n[eval.linear-probe]\n"), true);
        assert!(both.contains("every 5 epochs") && both.contains("linear probe"), "{both}");
    }
}
