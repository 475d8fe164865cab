//! How much memory a step needs: what both towers keep of a part, the embeddings of the whole batch, and the parameters.

use ctk_core::nn::params::Params;
use ctk_core::recipe::Precision;
use ctk_core::{Device, Error, Result, memory};
use ctk_text::sentences::forecast as texts;
use ctk_vision::tower;

use crate::network::{IMAGE, Sides, TEXT, TextSide};
use crate::recipe::{Checked, ImageTextRecipe};

/// A run is refused if it needs this many times the free memory: the estimate is not exact, and a run that fits must not be refused.
const SURE: f64 = 1.25;

/// How much memory a step takes for each byte that is counted here: buffers of products, and blocks that the allocator keeps.
const SPARE: f64 = 1.3;

/// Bytes that a step needs with parts of `part` pairs, of `samples` pairs in all whose captions have `tokens` tokens on average.
fn bytes(checked: &Checked, sides: &Sides, params: &Params, samples: usize, tokens: f64, part: usize) -> f64 {
    let ImageTextRecipe { train, pairs, image, text, .. } = &checked.recipe;
    let batch = train.batch.min(samples);
    let rows = batch.min(part) as f64;
    let size = if train.precision == Precision::Bf16 { 2.0 } else { 4.0 };
    let keeps = |frozen: bool| if frozen { 0.1 } else { 1.0 };
    let of_image = match sides.stored_image {
        Some(width) => width as f64,
        None => {
            let [step, evaluation] = tower::values(&image.encoder, params, IMAGE, pairs.size, train.recompute);
            let own = if image.frozen { evaluation } else { step };
            own + (3 * pairs.size * pairs.size) as f64 * (2 * train.loaders.max(1) + 1) as f64
        }
    };
    let of_text = match &sides.text {
        TextSide::Stored(width) => *width as f64,
        TextSide::Network(network) => {
            let (kept, once) = texts::values(network, train.recompute);
            tokens * (kept * keeps(text.frozen) + once)
        }
    };
    // Embeddings and their gradients, normalised and not, of both sides.
    let embeddings = batch as f64 * (image.head.width * 2 * 4) as f64 * 4.0;
    let values = |section: &str, learns: bool| {
        let prefix = format!("{section}.");
        let own: usize = params
            .iter()
            .filter(|param| param.name().starts_with(&prefix) && param.trained() == learns)
            .map(|param| param.dims().iter().product::<usize>())
            .sum();
        own as f64 * 4.0
    };
    // A parameter that learns has a gradient and two moments besides its value.
    let of_params: f64 = [IMAGE, TEXT, "head"].iter().map(|section| 4.0 * values(section, true) + values(section, false)).sum();
    (rows * (of_image + of_text) * size + embeddings) * SPARE + of_params
}

/// Refuses a run that does not fit into the free memory of `device`. Returns the bytes that a step needs.
///
/// # Errors
/// The run does not fit; the hint names a part with which it would.
pub(crate) fn check(checked: &Checked, sides: &Sides, samples: usize, tokens: f64, device: &Device) -> Result<u64> {
    let mut params = Params::new();
    sides.declare(checked, &mut params)?;
    let need = |part: usize| bytes(checked, sides, &params, samples, tokens, part);
    let part = checked.recipe.train.part();
    let free = device.free_memory();
    let fits = |part: usize| free.is_none_or(|free| need(part) < free as f64 * SURE);
    if !fits(part) {
        let free = free.unwrap_or_default();
        let error = Error::usage(format!(
            "a step of this recipe needs about {}, and {} are free",
            memory::size(need(part) as u64),
            memory::size(free)
        ))
        .at(format!("memory of {device}"));
        let smaller =
            std::iter::successors(Some(part / 2), |part| Some(part / 2)).take_while(|part| *part > 0).find(|part| fits(*part));
        return Err(match smaller {
            Some(part) => error
                .hint(format!("train.part = {part} would fit: the same batch in parts, at the cost of a second forward pass")),
            None => error.hint("smaller images (pairs.size), or smaller towers"),
        });
    }
    Ok(need(part) as u64)
}
