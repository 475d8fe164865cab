//! Reads other programs' vision transformers, for `ctk import` and `encoder.vit.weights`.
//!
//! - [`names`](super::names) is the key map between ctk's tensor names and those of each layout, in both directions.
//! - [`config`](super::config) reads the descriptions beside weights.
//!
//! Names and shapes show the patch, the size, the width, layers, the MLP's width, registers, LayerScale, and which normalisations there are.
//! They do not show heads, the form of the GELU, the normalisations' ε, how positions are resampled, and, of an encoder with a class token,
//! whether that represents the image. A description says these, or the layout:
//!
//! | | timm's and DINOv2's names, torchvision | transformers | open_clip |
//! |---|---|---|---|
//! | heads | `config.json`, else one for 64 values | `config.json` | `open_clip_config.json` |
//! | GELU | `config.json`, else erf | `config.json` | the same |
//! | ε | `config.json`, else 1e-6 | `config.json` | 1e-5 |
//! | positions are resampled | with antialiasing; DINOv2's own files by factor | without; with registers with antialiasing | with |
//! | mean, deviation, size | `config.json`, else ImageNet's, the positions' | `preprocessor_config.json`, else .5 | `open_clip_config.json` |
//!
//! A file of transformers or open_clip without its description is refused, and so is one with a normalisation before its first block: such a
//! network may have any of the three GELUs.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use ctk_core::nn::Resampling;
use ctk_core::nn::params::Params;
use ctk_core::recipe::HeadRecipe;
use ctk_core::{Context, Error, Result, Tensor};
use ctk_images::pixels::CHANNELS;

use super::config::{self, Said};
use super::names::Layout;
use super::recipe::{Pooling, VitRecipe};
use crate::encoder::architecture::{Foreign, Meant, unknown};
use crate::encoder::file::{self, File};
use crate::encoder::input::{Input, Shown};
use crate::encoder::wrapped;

/// The usual name of such networks.
pub(super) const TITLE: &str = "vision transformer";

/// The programs whose files are read.
pub(super) const READS: &str = "ctk reads vision transformers of timm, torchvision, transformers (ViT, DINOv2, and the image towers of CLIP and \
                                SigLIP), open_clip and DINOv2";

/// Values of a head where no description says how many heads there are.
const HEAD: usize = 64;

/// Another program's network: a file with a known layout. Its tensors are read when they are loaded.
pub struct Weights {
    file: File,
    layout: Layout,
    said: Said,
}

impl Weights {
    /// Opens a safetensors file, or that of a folder, with the description beside it.
    ///
    /// # Errors
    /// There is no such file, it is damaged, or has no known layout; or its description is of a network that ctk does not have.
    pub fn open(path: &Path) -> Result<Weights> {
        let file = File::open(path)?;
        wrapped::first(&file, Weights::recognise)?.ok_or_else(|| unknown(&file, TITLE, READS))
    }

    /// The network in `file`, if its tensors have a ViT's names.
    pub(super) fn recognise(file: &File) -> Result<Option<Weights>> {
        let Some(layout) = Layout::recognise(|name| file.dims(name).is_some()) else { return Ok(None) };
        let said = file.folder().map_or(Ok(Said::default()), |folder| config::read(layout, folder))?;
        Ok(Some(Weights { file: file.clone(), layout, said }))
    }

    /// The layout of the tensors' names.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The shape of ctk's tensor `ours` in the file, if it is there.
    fn dims(&self, ours: &str) -> Option<&[usize]> {
        self.file.dims(&self.layout.parts(ours)?.first()?.name)
    }

    /// The encoder that the tensors belong to.
    ///
    /// # Errors
    /// It is not one that ctk has.
    pub fn encoder(&self) -> Result<VitRecipe> {
        self.described().and_then(|()| self.inferred()).at(self.file.path().display())
    }

    /// Refuses a file whose GELU neither a description nor the layout says.
    fn described(&self) -> Result<()> {
        let beside = match self.layout {
            _ if self.said.known => return Ok(()),
            Layout::Vit | Layout::TransformersDinov2 | Layout::Clip => file::CONFIG,
            Layout::OpenClip => file::OPEN_CLIP,
            _ if self.dims("norm_pre.weight").is_some() => file::CONFIG,
            _ => return Ok(()),
        };
        Err(Error::usage(format!("no {beside} is beside this file, and names do not say which GELU the network has")).hint(format!(
            "put the {beside} that it came with beside it, in a folder; or give [encoder.vit] with encoder.vit.weights, which needs none"
        )))
    }

    fn inferred(&self) -> Result<VitRecipe> {
        let Said { heads, gelu, epsilon, pooling, resampling, layer_scale, .. } = self.said;
        let dims = |ours: &str| self.dims(ours).map(<[usize]>::to_vec);
        let (Some(patches), Some(positions)) = (dims("patch_embed.proj.weight"), dims("pos_embed")) else {
            return Err(Error::usage("the file has no patches or no positions"));
        };
        let [width, channels, patch, across] = patches[..] else {
            return Err(Error::usage(format!("patches of shape {patches:?} are no convolution")));
        };
        if channels != CHANNELS || patch != across {
            let what = format!("this network reads patches of {patch} × {across} pixels of {channels} channels");
            return Err(Error::usage(what).hint("ctk's are squares, of red, green and blue"));
        }
        let class_token = dims("cls_token").is_some();
        let rows = positions.len().checked_sub(2).map_or(0, |at| positions[at]);
        let root = |rows: usize| Some(rows.isqrt()).filter(|side| *side > 0 && side * side == rows);
        let with_class = rows.checked_sub(1).and_then(root).filter(|_| class_token);
        let side = with_class.or_else(|| root(rows)).ok_or_else(|| {
            Error::usage(format!("{rows} positions are not those of a square of patches, with or without one for a class token"))
                .hint("ctk gives registers no positions, and images are squares")
        })?;
        let layers = (0..).take_while(|number| dims(&format!("blocks.{number}.norm1.weight")).is_some()).count();
        let inner = dims("blocks.0.mlp.fc1.weight").and_then(|dims| dims.first().copied()).unwrap_or(0);
        let registers = dims("reg_token").and_then(|dims| dims.get(1).copied()).unwrap_or(0);
        let pooling = match (dims("attn_pool.latent"), dims("fc_norm.weight")) {
            (Some(_), _) => Pooling::Attention,
            (_, Some(_)) => Pooling::MeanThenNorm,
            _ => pooling.unwrap_or(if class_token { Pooling::Class } else { Pooling::Mean }),
        };
        let found = VitRecipe {
            patch,
            size: Some(side * patch),
            width,
            layers,
            heads: heads.unwrap_or((width / HEAD).max(1)),
            inner: Some(inner).filter(|inner| *inner != 4 * width),
            pooling,
            class_token,
            class_position: !class_token || with_class.is_some(),
            registers,
            layer_scale: if dims("blocks.0.ls1.gamma").is_some() { layer_scale.unwrap_or(1e-5) } else { 0.0 },
            gelu: gelu.unwrap_or_default(),
            normalise_tokens: dims("norm_pre.weight").is_some(),
            patch_bias: dims("patch_embed.proj.bias").is_some(),
            resampling: resampling.unwrap_or(self.resampling(registers)),
            epsilon: epsilon.unwrap_or(1e-6),
            weights: None,
        };
        found.check()?;
        Ok(found)
    }

    /// How the layout's program resamples positions.
    fn resampling(&self, registers: usize) -> Resampling {
        match self.layout {
            Layout::Timm | Layout::OpenClip | Layout::Torchvision | Layout::OldTorchvision => Resampling::Antialias,
            Layout::Dinov2 | Layout::TransformersDinov2 if registers > 0 => Resampling::Antialias,
            Layout::Dinov2 => Resampling::BicubicOffset,
            Layout::Vit | Layout::TransformersDinov2 | Layout::Clip => Resampling::Bicubic,
        }
    }

    /// How images are prepared: by the description, or by the layout's convention.
    fn input(&self, of: &VitRecipe) -> Input {
        let said = self.said.input;
        Input {
            size: said.size.or(Some(of.size())),
            shown: said.shown.or(Some(Shown::middle(1.0))),
            normalise: said.normalise.or(self.said.usual).or(Some(Input::IMAGENET)),
        }
    }

    /// Checks that the file holds exactly the declared network. Returns the parts of each of ctk's tensors.
    fn agree(&self, params: &Params) -> Result<Vec<Found>> {
        const HINT: &str = "patch, size, width, layers, inner, registers, layer_scale and the like must be the file's";
        let fail = |what: String| Err(Error::usage(what).hint(HINT));
        let (mut found, mut known) = (Vec::new(), BTreeSet::new());
        for param in params.iter() {
            let Some(ours) = param.name().strip_prefix("encoder.") else { continue };
            let Some(parts) = self.layout.parts(ours) else {
                return fail(format!("the network has `{ours}`, and the layout of {} has no name for it", self.layout));
            };
            let (mut rows, shape) = (0, self.layout.shape(ours, param.dims()));
            for part in &parts {
                let Some(dims) = self.file.dims(&part.name) else {
                    return fail(format!("the tensor `{}` is missing", part.name));
                };
                let (first, rest) = dims.split_first().unwrap_or((&0, &[]));
                let whole = rest == shape.get(1..).unwrap_or_default() && (part.thirds.is_none() || first % 3 == 0);
                rows += part.thirds.map_or(*first, |[from, to]| first / 3 * (to - from));
                if !whole || (rows > shape[0]) {
                    return fail(format!("the tensor `{}` has shape {dims:?}, the network's `{ours}` has {shape:?}", part.name));
                }
                known.insert(part.name.clone());
            }
            if rows != shape[0] {
                return fail(format!("the tensor `{}` has {rows} rows, the network's `{ours}` has {}", parts[0].name, shape[0]));
            }
            found.push(Found { ours: ours.to_string(), dims: param.dims().to_vec(), parts });
        }
        let unknown: Vec<&str> =
            self.file.names().filter(|name| !known.contains(*name) && Layout::other(name).is_none()).collect();
        match unknown[..] {
            [] => Ok(found),
            [name, ..] => fail(format!("the file holds `{name}` ({} more), which this network does not have", unknown.len() - 1)),
        }
    }

    /// Sets the encoder declared below `encoder.`.
    ///
    /// # Errors
    /// A name or shape differs, or a tensor has values that are not finite.
    pub fn load(&self, params: &Params) -> Result<()> {
        let place = self.file.path().display();
        let found = self.agree(params).at(&place)?;
        let theirs = self.file.tensors()?;
        let mut ours = HashMap::new();
        for Found { ours: name, dims, parts } in found {
            let read = |part: &super::names::Part| -> Result<Tensor> {
                let tensor =
                    theirs.get(&part.name).ok_or_else(|| Error::new(format!("the tensor `{}` is missing", part.name)))?;
                let tensor = file::finite(&part.name, tensor)?;
                match part.thirds {
                    None => Ok(tensor),
                    Some([from, to]) => {
                        let third = tensor.dims()[0] / 3;
                        Ok(tensor.narrow(0, from * third, (to - from) * third)?)
                    }
                }
            };
            let tensors: Vec<Tensor> = parts.iter().map(read).collect::<Result<_>>().at(&place)?;
            let whole = if tensors.len() == 1 { tensors[0].clone() } else { Tensor::cat(&tensors, 0)? };
            ours.insert(name, whole.contiguous()?.reshape(dims)?);
        }
        params.load_section("encoder", &ours).at(&place)
    }
}

/// One of ctk's tensors in a file.
struct Found {
    ours: String,
    dims: Vec<usize>,
    parts: Vec<super::names::Part>,
}

impl Foreign for Weights {
    fn layout(&self) -> String {
        self.layout.to_string()
    }

    fn encoder(&self) -> Result<Meant> {
        let of = Weights::encoder(self)?;
        Ok(Meant { title: of.title(), section: of.section(), input: self.input(&of) })
    }

    fn head(&self) -> HeadRecipe {
        HeadRecipe { layers: 0, ..HeadRecipe::default() }
    }

    fn said(&self) -> Input {
        self.said.input
    }

    fn notes(&self) -> Vec<String> {
        let mut others: BTreeMap<&str, usize> = BTreeMap::new();
        for what in self.file.names().filter_map(Layout::other) {
            *others.entry(what).or_default() += 1;
        }
        let others = others.into_iter().map(|(what, count)| format!("not read: {what} ({count} tensors)"));
        wrapped::note(&self.file).into_iter().chain(others).collect()
    }

    fn load(&self, params: &Params, _head: bool) -> Result<()> {
        Weights::load(self, params)
    }
}
