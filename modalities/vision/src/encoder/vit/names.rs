//! The key map between ctk's tensor names and those of other layouts, used in both directions.
//!
//! Ctk's names are timm's. `{wb}` stands for `weight` and `bias`, N for the number of a block.
//!
//! | ours | transformers' ViT; DINOv2 | transformers' CLIP; SigLIP | open_clip, OpenAI | torchvision |
//! |---|---|---|---|---|
//! | `patch_embed.proj.{wb}` | `embeddings.patch_embeddings.projection.{wb}` | `embeddings.patch_embedding.{wb}` | `conv1.weight` | `conv_proj.{wb}` |
//! | `cls_token` | `embeddings.cls_token` | `embeddings.class_embedding` | `class_embedding` | `class_token` |
//! | `reg_token` | `embeddings.register_tokens` | | | |
//! | `pos_embed` | `embeddings.position_embeddings` | `embeddings.position_embedding.weight` | `positional_embedding` | `encoder.pos_embedding` |
//! | `norm_pre.{wb}` | | `pre_layrnorm.{wb}` (so spelt) | `ln_pre.{wb}` | |
//! | `blocks.N.` | `encoder.layer.N.` | `encoder.layers.N.` | `transformer.resblocks.N.` | `encoder.layers.encoder_layer_N.` |
//! | … `norm1.{wb}` | … `layernorm_before.{wb}`; `norm1.{wb}` | … `layer_norm1.{wb}` | … `ln_1.{wb}` | … `ln_1.{wb}` |
//! | … `attn.qkv.{wb}` | … `attention.attention.{query, key, value}.{wb}` | … `self_attn.{q, k, v}_proj.{wb}` | … `attn.in_proj_{wb}` | … `self_attention.in_proj_{wb}` |
//! | … `attn.proj.{wb}` | … `attention.output.dense.{wb}` | … `self_attn.out_proj.{wb}` | … `attn.out_proj.{wb}` | … `self_attention.out_proj.{wb}` |
//! | … `ls1.gamma` | … `layer_scale1.lambda1` | | … `ls_1.gamma` | |
//! | … `norm2.{wb}` | … `layernorm_after.{wb}`; `norm2.{wb}` | … `layer_norm2.{wb}` | … `ln_2.{wb}` | … `ln_2.{wb}` |
//! | … `mlp.fc1.{wb}` | … `intermediate.dense.{wb}`; `mlp.fc1.{wb}` | … `mlp.fc1.{wb}` | … `mlp.c_fc.{wb}` | … `mlp.0.{wb}`, older `mlp.linear_1.{wb}` |
//! | … `mlp.fc2.{wb}` | … `output.dense.{wb}`; `mlp.fc2.{wb}` | … `mlp.fc2.{wb}` | … `mlp.c_proj.{wb}` | … `mlp.3.{wb}`, older `mlp.linear_2.{wb}` |
//! | `norm.{wb}` | `layernorm.{wb}` | `post_layernorm.{wb}` | `ln_post.{wb}` | `encoder.ln.{wb}` |
//! | `attn_pool.latent` | | `head.probe` | | |
//! | `attn_pool.q.{wb}`, `kv.{wb}` | | `head.attention.in_proj_{wb}`, whose rows are q, k, v | | |
//! | `attn_pool.proj.{wb}` | | `head.attention.out_proj.{wb}` | | |
//! | `attn_pool.norm.{wb}`, `mlp.` | | `head.layernorm.{wb}`, `head.mlp.` | | |
//!
//! DINOv2's own files have timm's names, but `register_tokens`. `fc_norm.{wb}` is timm's alone. A class token and positions are
//! `(1, rows, width)` in ctk; other layouts leave out dimensions of 1.

/// The layout of a file's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// timm's `VisionTransformer`, and ctk.
    Timm,
    /// DINOv2's own files.
    Dinov2,
    /// transformers' `ViTModel`.
    Vit,
    /// transformers' `Dinov2Model` and `Dinov2WithRegistersModel`.
    TransformersDinov2,
    /// transformers' `CLIPVisionModel`, `SiglipVisionModel`, and the image towers of `CLIPModel` and `SiglipModel`.
    Clip,
    /// The image tower of open_clip's and OpenAI's CLIP.
    OpenClip,
    /// `torchvision.models.vit_*`.
    Torchvision,
    /// The same before torchvision 0.13.
    OldTorchvision,
}

impl std::fmt::Display for Layout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Layout::Timm => "timm",
            Layout::Dinov2 => "DINOv2",
            Layout::Vit | Layout::TransformersDinov2 | Layout::Clip => "transformers",
            Layout::OpenClip => "open_clip",
            Layout::Torchvision | Layout::OldTorchvision => "torchvision",
        })
    }
}

/// A tensor of a file, or a range of its rows, that is one of ctk's tensors or a part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// The name in the file.
    pub name: String,
    /// The range of its rows, in thirds of all; none: all rows.
    pub thirds: Option<[usize; 2]>,
}

/// What tensors are that belong to no image encoder, by how their names begin.
const OTHERS: [(&str, &str); 11] = [
    ("head.weight", "a classifier"),
    ("head.bias", "a classifier"),
    ("head_dist.", "a classifier"),
    ("heads.", "a classifier"),
    ("classifier.", "a classifier"),
    ("pooler.", "a layer behind the class token"),
    ("proj", "a projection"),
    ("mask_token", "a mask token"),
    ("embeddings.mask_token", "a mask token"),
    ("embeddings.position_ids", "numbers of positions"),
    ("embeddings.patch_embeddings.mask_token", "a mask token"),
];

impl Layout {
    /// All layouts.
    const ALL: [Layout; 8] = [
        Layout::Timm,
        Layout::Dinov2,
        Layout::Vit,
        Layout::TransformersDinov2,
        Layout::Clip,
        Layout::OpenClip,
        Layout::Torchvision,
        Layout::OldTorchvision,
    ];

    /// The layout in which a file has the patches, the positions and the first block of a ViT.
    pub(super) fn recognise(has: impl Fn(&str) -> bool) -> Option<Layout> {
        let all = [
            "patch_embed.proj.weight",
            "pos_embed",
            "blocks.0.attn.qkv.weight",
            "blocks.0.norm1.weight",
            "blocks.0.mlp.fc1.weight",
        ];
        let there =
            |layout: &Layout, ours: &str| layout.parts(ours).is_some_and(|parts| parts.iter().all(|part| has(&part.name)));
        let found = Layout::ALL.into_iter().find(|layout| all.iter().all(|ours| there(layout, ours)))?;
        // The two differ in registers alone.
        if found == Layout::Timm && has("register_tokens") { Some(Layout::Dinov2) } else { Some(found) }
    }

    /// What ctk's tensor `ours` is in a file; none if the layout has no such tensor.
    pub(super) fn parts(self, ours: &str) -> Option<Vec<Part>> {
        let whole = |name: String| Some(vec![Part { name, thirds: None }]);
        if matches!(self, Layout::Timm) {
            return whole(ours.to_string());
        }
        if self == Layout::Dinov2 {
            return whole(if ours == "reg_token" { "register_tokens".to_string() } else { ours.to_string() });
        }
        let Some(rest) = ours.strip_prefix("blocks.") else { return self.outside(ours) };
        let (number, rest) = rest.split_once('.')?;
        let (module, value) = rest.rsplit_once('.')?;
        let block = match self {
            Layout::Timm | Layout::Dinov2 => return None,
            Layout::Vit | Layout::TransformersDinov2 => format!("encoder.layer.{number}"),
            Layout::Clip => format!("encoder.layers.{number}"),
            Layout::OpenClip => format!("transformer.resblocks.{number}"),
            Layout::Torchvision | Layout::OldTorchvision => format!("encoder.layers.encoder_layer_{number}"),
        };
        if module == "attn.qkv" {
            let (place, names) = match self {
                Layout::Vit | Layout::TransformersDinov2 => ("attention.attention", ["query", "key", "value"]),
                Layout::Clip => ("self_attn", ["q_proj", "k_proj", "v_proj"]),
                Layout::OpenClip => return whole(format!("{block}.attn.in_proj_{value}")),
                _ => return whole(format!("{block}.self_attention.in_proj_{value}")),
            };
            return Some(names.map(|name| Part { name: format!("{block}.{place}.{name}.{value}"), thirds: None }).into());
        }
        let [vit, dinov2, clip, open_clip, torchvision, old] = match module {
            "norm1" => ["layernorm_before", "norm1", "layer_norm1", "ln_1", "ln_1", "ln_1"],
            "norm2" => ["layernorm_after", "norm2", "layer_norm2", "ln_2", "ln_2", "ln_2"],
            "attn.proj" => {
                let dense = "attention.output.dense";
                let out = "self_attention.out_proj";
                [dense, dense, "self_attn.out_proj", "attn.out_proj", out, out]
            }
            "mlp.fc1" => ["intermediate.dense", "mlp.fc1", "mlp.fc1", "mlp.c_fc", "mlp.0", "mlp.linear_1"],
            "mlp.fc2" => ["output.dense", "mlp.fc2", "mlp.fc2", "mlp.c_proj", "mlp.3", "mlp.linear_2"],
            "ls1" => ["", "layer_scale1", "", "ls_1", "", ""],
            "ls2" => ["", "layer_scale2", "", "ls_2", "", ""],
            _ => return None,
        };
        let module = match self {
            Layout::Timm | Layout::Dinov2 => return None,
            Layout::Vit => vit,
            Layout::TransformersDinov2 => dinov2,
            Layout::Clip => clip,
            Layout::OpenClip => open_clip,
            Layout::Torchvision => torchvision,
            Layout::OldTorchvision => old,
        };
        let value = if self == Layout::TransformersDinov2 && value == "gamma" { "lambda1" } else { value };
        if module.is_empty() { None } else { whole(format!("{block}.{module}.{value}")) }
    }

    /// [`parts`](Layout::parts) of what is in no block.
    fn outside(self, ours: &str) -> Option<Vec<Part>> {
        let transformers = matches!(self, Layout::Vit | Layout::TransformersDinov2);
        let torchvision = matches!(self, Layout::Torchvision | Layout::OldTorchvision);
        let whole = |name: String| Some(vec![Part { name, thirds: None }]);
        let single = match (ours, self) {
            ("cls_token", _) if transformers => "embeddings.cls_token",
            ("cls_token", Layout::Clip) => "embeddings.class_embedding",
            ("cls_token", Layout::OpenClip) => "class_embedding",
            ("cls_token", _) if torchvision => "class_token",
            ("reg_token", Layout::TransformersDinov2) => "embeddings.register_tokens",
            ("pos_embed", _) if transformers => "embeddings.position_embeddings",
            ("pos_embed", Layout::Clip) => "embeddings.position_embedding.weight",
            ("pos_embed", Layout::OpenClip) => "positional_embedding",
            ("pos_embed", _) if torchvision => "encoder.pos_embedding",
            ("attn_pool.latent", Layout::Clip) => "head.probe",
            _ => "",
        };
        if !single.is_empty() {
            return whole(single.to_string());
        }
        let (module, value) = ours.rsplit_once('.')?;
        let module = match (module, self) {
            ("patch_embed.proj", _) if transformers => "embeddings.patch_embeddings.projection",
            ("patch_embed.proj", Layout::Clip) => "embeddings.patch_embedding",
            ("patch_embed.proj", Layout::OpenClip) => "conv1",
            ("patch_embed.proj", _) if torchvision => "conv_proj",
            ("norm_pre", Layout::Clip) => "pre_layrnorm",
            ("norm_pre", Layout::OpenClip) => "ln_pre",
            ("norm", _) if transformers => "layernorm",
            ("norm", Layout::Clip) => "post_layernorm",
            ("norm", Layout::OpenClip) => "ln_post",
            ("norm", _) if torchvision => "encoder.ln",
            ("attn_pool.q" | "attn_pool.kv", Layout::Clip) => {
                let thirds = Some(if module == "attn_pool.q" { [0, 1] } else { [1, 3] });
                return Some(vec![Part { name: format!("head.attention.in_proj_{value}"), thirds }]);
            }
            ("attn_pool.proj", Layout::Clip) => "head.attention.out_proj",
            ("attn_pool.norm", Layout::Clip) => "head.layernorm",
            ("attn_pool.mlp.fc1", Layout::Clip) => "head.mlp.fc1",
            ("attn_pool.mlp.fc2", Layout::Clip) => "head.mlp.fc2",
            _ => return None,
        };
        whole(format!("{module}.{value}"))
    }

    /// What a tensor is that belongs to no encoder; none if it may belong to one.
    pub(super) fn other(theirs: &str) -> Option<&'static str> {
        let (_, what) = OTHERS.iter().find(|(begins, _)| match *begins {
            "proj" => theirs == "proj",
            begins => theirs.starts_with(begins),
        })?;
        Some(what)
    }

    /// The shape that ctk's tensor `ours` of shape `dims` has in this layout.
    pub(super) fn shape(self, ours: &str, dims: &[usize]) -> Vec<usize> {
        match (ours, self) {
            ("cls_token", Layout::Clip | Layout::OpenClip) => dims[2..].to_vec(),
            ("pos_embed", Layout::Clip | Layout::OpenClip) => dims[1..].to_vec(),
            _ => dims.to_vec(),
        }
    }
}
