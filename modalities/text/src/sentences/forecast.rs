//! The memory that a training step needs, before anything is allocated: refusing what does not fit, and saying what would.
//!
//! What is kept of each token until the backward pass, for a transformer of width w, h heads and inner width i:
//!
//! - attention: the block's input (w), queries, keys and values (3w), what attention gives (w), its sums (h), what the mixing product gives
//!   (w), and its sum with the input, which is normalised (w): 7w + h;
//! - the MLP: its input (w), the values before the GELU and behind it (2i), its output (w), and the sum (w): 3w + 2i.
//!
//! So a layer keeps 10w + 2i + h values. Before the first layer there are the sum of the embeddings and what its normalisation gives (2w).
//! The backward pass holds the gradients of one block besides: at most 2i + 3w, or 5w. With `train.recompute` each block keeps its input (w)
//! alone, and one block at a time has the rest. Values are of the type of `train.precision`.
//!
//! A static embedding keeps no rows of tokens: their mean is taken as they are looked up. Its step has the gradients of the rows that were
//! looked up twice, at most one of w values for each token.
//!
//! Parameters have a value, a gradient and two moments of the optimizer, and perhaps a momentum copy, in f32.

use ctk_core::data::dataset::Dataset;
use ctk_core::nn::params::Params;
use ctk_core::recipe::Precision;
use ctk_core::{Device, Error, Result, memory};

use super::data::TokenPairs;
use super::network::Network;
use super::recipe::SentencesRecipe;

/// A run is refused if it needs this many times the free memory: the estimate is not exact, and a run that fits must not be refused.
const SURE: f64 = 1.25;

/// How much memory a step takes for each byte that this module counts: buffers that products pack their factors into, too.
const SPARE: f64 = 1.15;

/// Freed blocks that the program's allocator keeps for the next step on the CPU: at most so many bytes.
const IDLE: f64 = 256e6;

/// No more than this multiple of what a step needs is kept: texts of other lengths ask for blocks of other sizes, and the parts of a step
/// more often. Measured with `ctk bench sentences`.
const IDLE_WHOLE: f64 = 1.0;
const IDLE_IN_PARTS: f64 = 2.0;

/// What a step reads.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Samples of the data.
    pub samples: usize,
    /// Texts of a sample, and their tokens together, on average.
    pub texts: f64,
    /// See `texts`.
    pub tokens: f64,
}

impl Load {
    /// That of `source`.
    ///
    /// # Errors
    /// The tokenizer fails.
    pub fn of(source: &TokenPairs) -> Result<Load> {
        let (lengths, texts) = (source.some_lengths()?, source.views() as f64);
        let mean = lengths.iter().sum::<usize>() as f64 / lengths.len().max(1) as f64;
        Ok(Load { samples: source.pairs().per_epoch(), texts, tokens: mean * texts })
    }
}

/// Values that a step keeps of each token, and values of each token that only one layer at a time has.
pub fn values(network: &Network, recompute: bool) -> (f64, f64) {
    match network {
        Network::Transformer { shape, .. } => {
            let [layers, w, i, h] = [shape.layers, shape.width, shape.inner, shape.heads].map(|size| size as f64);
            let (attention, mlp) = (7.0 * w + h, 3.0 * w + 2.0 * i);
            let gradients = (2.0 * i + 3.0 * w).max(5.0 * w);
            match recompute {
                false => (2.0 * w + layers * (attention + mlp), gradients),
                true => (2.0 * w + layers * 2.0 * w, attention.max(mlp) + gradients),
            }
        }
        Network::Table([_, width]) => (0.0, 2.0 * *width as f64),
    }
}

/// Bytes that a step by `recipe` needs on the CPU or on another device, the data apart.
///
/// # Errors
/// A network that cannot be declared.
pub fn step(recipe: &SentencesRecipe, network: &Network, load: &Load, cpu: bool) -> Result<u64> {
    let mut params = Params::new();
    recipe.method().tower(|scope| network.encoder(scope), &mut params)?;
    let train = &recipe.train;
    let batch = train.batch.min(load.samples);
    let (kept, once) = values(network, train.recompute);
    let size = if train.precision == Precision::Bf16 { 2.0 } else { 4.0 };
    let of_tokens = batch.min(train.part()) as f64 * load.tokens * (kept + once) * size;
    // Embeddings of the whole batch and their gradients, normalised and not.
    let width = if recipe.head.layers > 0 { recipe.head.width } else { network.width() };
    let of_texts = batch as f64 * load.texts * width as f64 * 4.0 * 4.0;
    let copies = 4 + usize::from(recipe.loss.needs().momentum.is_some());
    let of_params = params.count("") as f64 * 4.0 * copies as f64;
    let of_step = (of_tokens + of_texts) * SPARE;
    let share = if train.part() < batch { IDLE_IN_PARTS } else { IDLE_WHOLE };
    let idle = if cpu { IDLE.min(share * of_step) } else { 0.0 };
    Ok((of_step + idle + of_params) as u64)
}

/// Refuses a run that does not fit into the free memory of `device`. Returns a sentence about what a step needs.
///
/// # Errors
/// The run does not fit. The hint names settings with which it would.
pub fn check(recipe: &SentencesRecipe, network: &Network, load: &Load, device: &Device) -> Result<String> {
    let free = device.free_memory();
    let need = fits(recipe, network, load, device.is_cpu(), free.unwrap_or(u64::MAX))
        .map_err(|e| e.at(format!("memory of {device}")))?;
    let place = if device.is_cpu() { String::new() } else { format!(" of {device}") };
    let have = free.map_or(String::new(), |free| {
        let doubt = if need > free { ": it may not fit" } else { "" };
        format!("; {} are free{doubt}", memory::size(free))
    });
    Ok(format!("memory: a step needs about {}{place}, the texts apart{have}", memory::size(need)))
}

fn fits(recipe: &SentencesRecipe, network: &Network, load: &Load, cpu: bool, free: u64) -> Result<u64> {
    let need = step(recipe, network, load, cpu)?;
    if need as f64 <= free as f64 * SURE {
        return Ok(need);
    }
    let what = format!("a step of this run needs about {}, and {} are free", memory::size(need), memory::size(free));
    let fits = |changed: &SentencesRecipe| step(changed, network, load, cpu).map(|need| need <= free);
    let part = recipe.train.part().min(load.samples);
    let parts = std::iter::successors(Some(part.next_power_of_two() / 2), |part| Some(part / 2)).take_while(|part| *part > 1);
    let mut changed = recipe.clone();
    for part in parts {
        changed.train.part = Some(part);
        if fits(&changed)? {
            return Err(Error::usage(what).hint(format!("train.part = {part} would fit: the same batch in parts")));
        }
    }
    changed.train.part = Some(part.min(2));
    changed.train.recompute = true;
    if fits(&changed)? {
        return Err(Error::usage(what).hint("train.part = 2 with train.recompute = true would fit"));
    }
    changed.train.batch = changed.train.batch.min(2);
    let hint = match fits(&changed)? {
        true => "a smaller batch would fit (train.batch), with train.part = 2 and train.recompute = true",
        false => {
            "its parameters alone do not fit: use fewer layers or a smaller width (encoder.*), or fewer tokens (tokenizer.train.size)"
        }
    };
    Err(Error::usage(what).hint(hint))
}

#[cfg(test)]
mod tests {
    use ctk_core::recipe::Recipe;

    use super::*;
    use crate::transformer::Pooling;
    use crate::transformer::names::Family;

    fn recipe(text: &str) -> SentencesRecipe {
        SentencesRecipe::check(&Recipe::new("test", text)).unwrap().0
    }

    fn network(recipe: &SentencesRecipe) -> Network {
        let super::super::recipe::EncoderRecipe::Transformer(of) = &recipe.encoder else { return Network::Table([500, 64]) };
        Network::Transformer { family: Family::Bert, shape: of.shape(500), pooling: Pooling::Mean }
    }

    const LOAD: Load = Load { samples: 100_000, texts: 2.0, tokens: 60.0 };

    fn of(text: &str) -> f64 {
        let recipe = recipe(text);
        step(&recipe, &network(&recipe), &LOAD, false).unwrap() as f64
    }

    #[test]
    fn a_step_keeps_what_the_layers_keep() {
        let transformer = "[encoder.transformer]\nlayers = 3\nwidth = 32\nheads = 4\ninner = 100\n";
        let recipe = recipe(transformer);
        assert_eq!(values(&network(&recipe), false), (64.0 + 3.0 * (320.0 + 200.0 + 4.0), 296.0));
        assert_eq!(values(&network(&recipe), true), (64.0 + 192.0, 296.0 + 296.0));
        let with = |train: &str| of(&format!("{transformer}[train]\nbatch = 4096\n{train}\n"));
        assert!(with("part = 512") < 0.3 * with(""), "a part is in memory alone");
        assert!(with("recompute = true") < 0.6 * with("") && with("precision = \"bf16\"") < 0.6 * with(""));
        assert!(with("precision = \"bf16\"") > 0.45 * with(""));
        let narrow = of("[encoder.static]\nwidth = 64\n[train]\nbatch = 4096\n");
        assert!(narrow < 0.5 * with(""), "a static embedding keeps no row of a token: {narrow}");
    }

    #[test]
    fn what_cannot_fit_is_refused_with_what_would() {
        let said = |train: &str, free: u64| {
            let recipe = recipe(&format!("[encoder.transformer]\nlayers = 6\nwidth = 384\nheads = 12\n[train]\n{train}"));
            fits(&recipe, &network(&recipe), &LOAD, false, free).err().map(|e| e.to_string())
        };
        const GB: u64 = 1_000_000_000;
        assert_eq!(said("batch = 64", 4 * GB), None);
        let batch = said("batch = 4096", 4 * GB).unwrap();
        assert!(batch.contains("4.0 GB are free") && batch.contains("train.part = 256 would fit"), "{batch}");
        assert!(
            said("batch = 64", GB / 5).unwrap().contains("train.recompute = true would fit")
                || said("batch = 64", GB / 5).unwrap().contains("train.part")
        );
        assert!(said("batch = 64", GB / 20).unwrap().contains("its parameters alone do not fit"));
    }
}
