//! The two towers of a recipe, their parameters, and what they begin with.

use std::collections::HashMap;

use ctk_core::model::encoder::Encoder as _;
use ctk_core::model::head::ProjectionHead;
use ctk_core::model::tower::{Dual, Tower};
use ctk_core::nn::params::{Learning, Params, Scope};
use ctk_core::recipe::HeadRecipe;
use ctk_core::store::checkpoint::{Checkpoint, Reader};
use ctk_core::train::dense::Dense;
use ctk_core::{Context, DType, Device, Error, Result, Tensor};
use ctk_text::sentences::network::Network;

use crate::input::SideEncoder;
use crate::recipe::{Checked, ImageTextRecipe, Learns};

/// Both towers.
pub type Towers = Dual<SideEncoder, SideEncoder>;

/// The sections of a checkpoint: both encoders, and both projections.
pub const IMAGE: &str = "image";
/// See [`IMAGE`].
pub const TEXT: &str = "text";
/// See [`IMAGE`].
pub const HEAD: &str = "head";
/// The section of a loss's own parameters.
const LOSS: &str = "loss";

/// What the towers are besides the recipe.
#[derive(Clone)]
pub struct Sides {
    /// Values of a stored row of an image; none: the recipe's encoder.
    pub stored_image: Option<usize>,
    /// The network of texts, or values of a stored row of a caption.
    pub text: TextSide,
}

/// The text tower's encoder.
#[derive(Clone)]
pub enum TextSide {
    /// A network.
    Network(Network),
    /// Stored rows of so many values.
    Stored(usize),
}

impl Sides {
    /// Declares both towers in `params`; returns them and the width of an embedding.
    ///
    /// # Errors
    /// An encoder that cannot be built, has no blocks where the recipe asks for some, or embeddings of different widths.
    pub fn declare(&self, of: &Checked, params: &mut Params) -> Result<(Towers, usize)> {
        let ImageTextRecipe { image, text, .. } = &of.recipe;
        [IMAGE, TEXT, HEAD].into_iter().for_each(|section| params.declare(section));
        let build_image = |scope: Scope| image.encoder.build(scope);
        let left = match self.stored_image {
            Some(width) => SideEncoder::Stored(width),
            None => {
                let learning = learning(&build_image, image.learns(), &of.text.below("image"))?;
                SideEncoder::Image(build_image(params.root().sub(IMAGE).learning(learning))?)
            }
        };
        let right = match &self.text {
            TextSide::Stored(width) => SideEncoder::Stored(*width),
            TextSide::Network(network) => {
                let build = |scope: Scope| network.encoder(scope);
                let learning = learning(&build, text.learns(), &of.text.below("text"))?;
                SideEncoder::Text(build(params.root().sub(TEXT).learning(learning))?)
            }
        };
        let mut project =
            |recipe: &HeadRecipe, width: usize, side: &str| ProjectionHead::new(recipe, width, params.root().sub(HEAD).sub(side));
        let left_head = project(&image.head.head(), left.width(), IMAGE);
        let right_head = project(&text.head.head(), right.width(), TEXT);
        let widths = [left_head.width(), right_head.width()];
        if widths[0] != widths[1] {
            let what = format!("embeddings of images have {} values, and those of captions {}", widths[0], widths[1]);
            return Err(of
                .text
                .error("image.head.width", what)
                .hint("set image.head.width and text.head.width to the same number"));
        }
        let left = Tower { encoder: left, head: left_head, predictor: None };
        let right = Tower { encoder: right, head: right_head, predictor: None };
        Ok((Dual { left, right }, widths[0]))
    }

    /// The learner before its first step, whose encoders and projections have the values of `begin`, as far as it has some.
    ///
    /// # Errors
    /// As [`declare`](Self::declare); values of another shape.
    pub fn learner(&self, of: &Checked, begin: &Begin, device: &Device) -> Result<Dense<Towers>> {
        of.method().learner_by(|_, params| self.declare(of, params), |params| begin.give(params), device)
    }

    /// Both towers with the values of `begin`, for evaluation.
    ///
    /// # Errors
    /// Values of another shape, or none for a whole tower.
    pub fn begun(&self, of: &Checked, begin: &Begin, device: &Device) -> Result<Towers> {
        let mut params = Params::new();
        let (towers, _) = self.declare(of, &mut params)?;
        if let Some(param) =
            params.iter().find(|param| !begin.sections.keys().any(|section| param.name().starts_with(&format!("{section}."))))
        {
            return Err(Error::usage(format!("the model has no values for `{}`", param.name())));
        }
        params.blank(DType::F32, device)?;
        begin.give(&params)?;
        Ok(towers)
    }

    /// Both towers with the values of a checkpoint, for evaluation.
    ///
    /// # Errors
    /// A checkpoint of other towers.
    pub fn trained(&self, of: &Checked, reader: &Reader, device: &Device) -> Result<(Towers, Params)> {
        let mut params = Params::new();
        let (towers, _) = self.declare(of, &mut params)?;
        params.blank(DType::F32, device)?;
        for section in [IMAGE, TEXT, HEAD] {
            params.load_section(section, &reader.tensors(&file(section))?).at(file(section))?;
        }
        Ok((towers, params))
    }
}

/// The file of a section.
pub fn file(section: &str) -> String {
    format!("{section}.safetensors")
}

/// How the parameters of the encoder that `build` declares learn.
fn learning<E>(build: &dyn Fn(Scope) -> Result<E>, learns: Learns, text: &ctk_core::recipe::Recipe) -> Result<Learning> {
    // Declared once without values, to know its depth.
    let mut params = Params::new();
    build(params.root().sub("encoder"))?;
    learns.learning(params.iter().filter_map(|param| param.depth()).max(), text)
}

/// Values that towers begin with, by section.
#[derive(Default)]
pub struct Begin {
    /// Whole sections, or parts of one: `head.image`.
    pub sections: HashMap<String, HashMap<String, Tensor>>,
    /// Values of the loss: its name and value.
    pub loss: Vec<(&'static str, f64)>,
    /// What to know about them.
    pub notes: Vec<String>,
}

impl Begin {
    /// One section of a run of image-text.
    ///
    /// # Errors
    /// A damaged checkpoint.
    pub fn of_section(checkpoint: &Checkpoint, section: &str) -> Result<Begin> {
        let mut begin = Begin::default();
        begin.sections.insert(section.to_string(), checkpoint.reader().tensors(&file(section))?);
        Ok(begin)
    }

    /// Those of a run of image-text.
    ///
    /// # Errors
    /// A damaged checkpoint.
    pub fn of_run(checkpoint: &Checkpoint) -> Result<Begin> {
        let mut begin = Begin::default();
        // A loss without parameters has no section.
        for section in [IMAGE, TEXT, HEAD, LOSS].into_iter().filter(|section| checkpoint.reader().has(&file(section))) {
            begin.sections.insert(section.to_string(), checkpoint.reader().tensors(&file(section))?);
        }
        Ok(begin)
    }

    fn give(&self, params: &Params) -> Result<()> {
        for (section, tensors) in &self.sections {
            if section == LOSS {
                // Another loss has other parameters.
                if params.iter().any(|param| param.name().starts_with("loss.")) {
                    params.take(section, tensors)?;
                }
                continue;
            }
            params.load_section(section, tensors).at(section)?;
        }
        for (name, value) in &self.loss {
            if let Some(param) = params.iter().find(|param| param.name().strip_prefix("loss.") == Some(name)) {
                param.set(&Tensor::new(*value, &candle_core::Device::Cpu)?.reshape(param.dims())?)?;
            }
        }
        Ok(())
    }
}

/// The error of a checkpoint that is not of this modality.
pub(crate) fn not_ours(of: &str) -> Error {
    Error::usage(format!("this is a run of {of}, not of {}", crate::NAME))
}
