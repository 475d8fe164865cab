//! Refuses a run that does not fit into a device's memory, before its network is made, and says what would fit.

use ctk_core::nn::params::Params;
use ctk_core::recipe::Precision;
use ctk_core::{Device, Error, Result, memory};

use crate::features::ranges;
use crate::recipe::VisionRecipe;
use crate::{forecast, network};

/// A run is refused if it needs this many times the free memory: the estimate is not exact, and a run that fits must not be refused.
const SURE: f64 = 1.25;

/// Values kept for each row and width of a head's layer: input, output, and the gradients of both.
const OF_A_LAYER: f64 = 4.0;

/// Square matrices that a correlating loss has at once: the correlation, its weights, and their product.
const SQUARES: f64 = 3.0;

/// Refuses a run by `recipe` over `images` images that does not fit into the free memory of `device`.
///
/// # Errors
/// It does not fit; the error says what would.
pub(crate) fn check(recipe: &VisionRecipe, images: usize, device: &Device) -> Result<()> {
    device.free_memory().map_or(Ok(()), |free| check_in(recipe, images, free).map_err(|e| e.at(format!("memory of {device}"))))
}

fn check_in(recipe: &VisionRecipe, images: usize, free: u64) -> Result<()> {
    let need = |recipe: &VisionRecipe| -> Result<f64> {
        // Declared only, without allocating values.
        let mut params = Params::new();
        network::declared(recipe.encoder.architecture(), recipe, &mut params)?;
        Ok(bytes(recipe, &params, images))
    };
    let (needed, fits) = (need(recipe)?, |bytes: f64| bytes <= free as f64);
    if needed <= free as f64 * SURE {
        return Ok(());
    }
    let size = |bytes: f64| memory::size(bytes as u64);
    let what = format!("a step of this run needs about {}, and {} are free", size(needed), size(free as f64));
    let part = recipe.train.part().min(images);
    let parts = std::iter::successors(Some(part.next_power_of_two() / 2), |part| Some(part / 2)).take_while(|part| *part > 1);
    for part in parts {
        let mut smaller = recipe.clone();
        smaller.train.part = Some(part);
        if fits(need(&smaller)?) {
            return Err(Error::usage(what).hint(format!("train.part = {part} would fit: the same batch in parts")));
        }
    }
    let mut least = recipe.clone();
    least.train.part = Some(part.min(2));
    least.train.recompute = true;
    if fits(need(&least)?) {
        return Err(Error::usage(what).hint("train.part = 2 with train.recompute = true would fit"));
    }
    least.train.precision = Precision::Bf16;
    if fits(need(&least)?) {
        let hint = "train.part = 2 with train.recompute = true and train.precision = \"bf16\" would fit";
        return Err(Error::usage(what).hint(hint));
    }
    for side in (1..=recipe.pairs.size.max(recipe.pairs.eval_size.unwrap_or(0)) / 32).rev().map(|of| 32 * of) {
        least.pairs.size = recipe.pairs.size.min(side);
        least.pairs.eval_size = recipe.pairs.eval_size.map(|size| size.min(side));
        if fits(need(&least)?) {
            let what = Error::usage(what);
            return Err(
                what.hint(format!("views of up to {side} pixels (pairs.size, pairs.eval_size) with train.part = 2 would fit"))
            );
        }
    }
    let hint =
        "its parameters alone do not fit: a smaller encoder, or a narrower head (head.width, head.hidden, predictor.hidden)";
    Err(Error::usage(what).hint(hint))
}

/// Bytes that a step needs, or an evaluation if that is more; cached images are not counted.
fn bytes(recipe: &VisionRecipe, params: &Params, images: usize) -> f64 {
    let (train, head) = (&recipe.train, &recipe.head);
    let batch = train.batch.min(images);
    let rows = (forecast::views(recipe) * batch.min(train.part())) as f64;
    let view = |size: usize| (3 * size * size * size_of::<f32>()) as f64;
    // A unit is a part of a step: one is processed while others are drawn ahead.
    let ahead = (2 * train.loaders.max(1) + 1) as f64;
    let hidden = head.hidden.unwrap_or(0).max(head.width).max(recipe.predictor.as_ref().map_or(0, |of| of.hidden));
    let of_head = rows * (hidden * head.layers.max(1)) as f64 * 4.0 * OF_A_LAYER;
    let square = if recipe.loss.needs().correlates { SQUARES * 4.0 * (head.width as f64).powi(2) } else { 0.0 };
    let step = forecast::step(recipe, params, batch) as f64 + ahead * rows * view(recipe.pairs.size) + of_head + square;

    let evaluated = recipe.pairs.eval_size.unwrap_or(recipe.pairs.size);
    let measured = recipe.eval.knn.is_some() || recipe.eval.linear_probe.is_some() || recipe.checkpoint.keep_best;
    let rows =
        if measured || recipe.task.is_some() { ranges(images, evaluated).first().map_or(0, ExactSizeIterator::len) } else { 0 };
    let values = recipe.encoder.architecture().values(params, "encoder", evaluated);
    let evaluation = rows as f64 * (values.evaluation * 4.0 + view(evaluated));
    step.max(evaluation + (params.count("") * 4) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe;
    use ctk_core::recipe::Recipe;

    const GB: u64 = 1_000_000_000;

    fn said(text: &str, free: u64) -> Option<String> {
        let recipe = recipe::check(&Recipe::new("test", text)).unwrap().recipe;
        check_in(&recipe, 1_000_000, free).err().map(|e| e.to_string())
    }

    #[test]
    fn what_cannot_fit_is_refused_with_what_would() {
        let of = |more: &str| format!("[pairs]\nsize = 32\n[encoder.resnet]\ndepth = 18\nstem = \"small\"\n{more}\n");
        // `ctk bench vision` measures 1.4 GB.
        assert_eq!(said(&of("[train]\nbatch = 128"), 2 * GB), None);
        let batch = said(&of("[train]\nbatch = 100000"), 2 * GB).unwrap();
        assert!(batch.contains("2.0 GB are free") && batch.contains("train.part = 128 would fit"), "{batch}");
        let large = said("[pairs]\nsize = 4096\n[train]\nbatch = 64\n", 4 * GB).unwrap();
        assert!(large.contains("pixels (pairs.size, pairs.eval_size) with train.part = 2 would fit"), "{large}");
        let wide = said(&of("[head]\nwidth = 65536\nhidden = 65536\n"), 8 * GB).unwrap();
        assert!(wide.contains("its parameters alone do not fit"), "{wide}");
        let square = said(&of("[head]\nwidth = 65536\nlayers = 1\n[loss.vicreg]\n[train]\nbatch = 8"), 8 * GB).unwrap();
        assert!(square.contains("needs about 5"), "{square}");
        let evaluated = said("[pairs]\nsize = 32\neval_size = 4096\n[eval.knn]\n[train]\nbatch = 8\n", 2 * GB).unwrap();
        assert!(evaluated.contains("would fit"), "{evaluated}");
    }
}
