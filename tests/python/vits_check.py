"""Makes, loads and compares vision transformers of other programs for `tests/clients/vits.rs`.

    pip install -r tests/python/requirements.txt
    CTK_PYTHON=python3 cargo test --test clients -- --ignored vits

`make DIR NETWORK …` draws networks and writes each as its program does, as the folder `weights` of DIR/NETWORK, with some pictures
(`pictures/`), what the network makes of them (`features.npy`), and a training of five steps: pixels and targets (`pixels.npy`,
`targets.npy`), the first step's gradients and the values after the last step as folders of the same kind (`gradients`, `after`), and the
rate (`rate`). `check FILE` does what the lines of a file say: `load PROGRAM PATH DIR HEADS` opens what ctk exported and compares with the
features of DIR, `classify PROGRAM PATH DIR HEADS` opens a network with its classifier and compares with what ctk said of the pictures
(`predictions.csv`); it prints the largest difference of each. `others DIR` writes networks that are none of ctk's.

Weights are random, scales and shifts off their constants: a mistake in any of them would show.
"""

import json
import os
import shutil
import sys

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from resnets_check import ODD, SIZE, apart, batch, difference, opened, pictures

PATCH, WIDTH, LAYERS, HEADS = 12, 48, 3, 4
STEPS = 5


def randomise(model):
    for name, value in model.named_parameters():
        if value.ndim == 0:
            continue
        one = value.ndim == 1 and (name.endswith("weight") or name.endswith(("gamma", "lambda1")))
        wide = 2.0 if value.ndim >= 2 and "embed" not in name and "token" not in name else 1.0
        value.data = 1 + 0.3 * torch.randn_like(value) if one else wide * value.shape[-1] ** -0.5 * torch.randn_like(value)
    return model.eval()


def of_timm(folder, name="vit_base_patch16_224", **more):
    """The model, its features, and how its folder is written."""
    import timm
    from timm.models import save_for_hf

    args = dict(img_size=SIZE, patch_size=PATCH, embed_dim=WIDTH, depth=LAYERS, num_heads=HEADS) | more
    model = randomise(timm.create_model(name, num_classes=0, **args))
    data = {"input_size": (3, SIZE, SIZE), "crop_pct": 1.0, "mean": ODD[0], "std": ODD[1], "interpolation": "bicubic", "crop_mode": "center"}
    # By hand: the program's own function does not write arguments that are no default of the name's.
    save_for_hf(model, folder, safe_serialization=True, data_config=data, model_args=args)
    return model, model


def of_transformers(folder, kind):
    import transformers as tf

    size = dict(hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=HEADS, image_size=SIZE, patch_size=PATCH)
    inner = dict(intermediate_size=3 * WIDTH)
    text = dict(vocab_size=50, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=9)
    pooled = lambda model: lambda x: model(x).pooler_output
    square = {"height": SIZE, "width": SIZE}
    odd = dict(image_mean=ODD[0], image_std=ODD[1])
    clip = tf.CLIPImageProcessor(size={"shortest_edge": SIZE}, crop_size=square, **odd)
    if kind == "vit":
        model = randomise(tf.ViTModel(tf.ViTConfig(layer_norm_eps=1e-6, **size, **inner)))
        features, processor = lambda x: model(x).last_hidden_state[:, 0], tf.ViTImageProcessor(size=square, **odd)
    elif kind == "dinov2":
        model = randomise(tf.Dinov2Model(tf.Dinov2Config(mlp_ratio=2, **size)))
        features, processor = pooled(model), tf.BitImageProcessor(size={"shortest_edge": SIZE}, crop_size=square, **odd)
    elif kind == "dinov2-registers":
        model = randomise(tf.Dinov2WithRegistersModel(tf.Dinov2WithRegistersConfig(mlp_ratio=2, num_register_tokens=3, **size)))
        features, processor = pooled(model), tf.BitImageProcessor(size={"shortest_edge": SIZE}, crop_size=square, **odd)
    elif kind == "clip":
        config = tf.CLIPConfig(text_config=text, vision_config=size | inner | {"hidden_act": "quick_gelu"}, projection_dim=20)
        model = randomise(tf.CLIPModel(config))
        features, processor = pooled(model.vision_model), clip
    elif kind == "clip-vision":
        model = randomise(tf.CLIPVisionModel(tf.CLIPVisionConfig(hidden_act="gelu", **size, **inner)))
        features, processor = pooled(model), clip
    elif kind == "siglip":
        model = randomise(tf.SiglipModel(tf.SiglipConfig(text_config=text, vision_config=size | inner)))
        features, processor = pooled(model.vision_model), tf.SiglipImageProcessor(size=square, **odd)
    else:
        model = randomise(tf.SiglipVisionModel(tf.SiglipVisionConfig(**size, **inner)))
        features, processor = pooled(model), tf.SiglipImageProcessor(size=square, **odd)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return model, features


def of_open_clip(folder, kind):
    import open_clip

    vision = dict(layers=LAYERS, width=WIDTH, head_width=WIDTH // HEADS, patch_size=PATCH, image_size=SIZE)
    text = dict(context_length=9, vocab_size=50, width=32, heads=2, layers=1)
    config = {"embed_dim": 20, "vision_cfg": vision, "text_cfg": text}
    if kind == "siglip":
        # The program builds this tower by timm at its full size; here it is small, under the same names.
        model, _ = of_timm(folder, "vit_base_patch16_siglip_224", embed_dim=128, num_heads=2)
        os.remove(os.path.join(folder, "config.json"))
        os.remove(os.path.join(folder, "model.safetensors"))
        tower = {"timm_model_name": "vit_base_patch16_siglip_224", "timm_model_pretrained": False, "timm_pool": "map", "image_size": SIZE}
        config["vision_cfg"] = tower
        features = model
        tensors = {f"visual.trunk.{name}": value for name, value in model.state_dict().items()}
        tensors |= {"logit_scale": torch.zeros(()), "text.token_embedding.weight": torch.randn(50, 32)}
    else:
        if kind == "quick":
            config["quick_gelu"] = True
        model = randomise(open_clip.CLIP(20, vision, text, quick_gelu=kind == "quick"))
        tensors = {name: value.contiguous() for name, value in model.state_dict().items()}

        def features(x):
            projection, model.visual.proj = model.visual.proj, None
            found = model.visual(x)
            model.visual.proj = projection
            return found

    preprocess = {"mean": ODD[0], "std": ODD[1], "interpolation": "bicubic", "resize_mode": "shortest"}
    os.makedirs(folder, exist_ok=True)
    save_file(tensors, os.path.join(folder, "open_clip_model.safetensors"))
    json.dump({"model_cfg": config, "preprocess_cfg": preprocess}, open(os.path.join(folder, "open_clip_config.json"), "w"))
    return model, features


def of_torchvision(folder, classes):
    import torchvision

    model = torchvision.models.VisionTransformer(SIZE, PATCH, LAYERS, 2, 128, 3 * WIDTH, num_classes=classes)
    randomise(model)
    os.makedirs(folder, exist_ok=True)
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, os.path.join(folder, "model.safetensors"))
    model.heads = torch.nn.Identity()
    return model, model


NETWORKS = {
    "timm:vit": lambda folder: of_timm(folder),
    "timm:registers-gap": lambda folder: of_timm(
        folder, class_token=False, reg_tokens=2, no_embed_class=True, init_values=0.1, global_pool="avg", fc_norm=True
    ),
    "timm:gap": lambda folder: of_timm(folder, class_token=False, global_pool="avg", fc_norm=False, mlp_ratio=3),
    "timm:clip": lambda folder: of_timm(folder, "vit_base_patch32_clip_quickgelu_224"),
    "timm:siglip": lambda folder: of_timm(folder, "vit_base_patch32_siglip_256"),
    "timm:dinov2": lambda folder: of_timm(folder, "vit_small_patch14_reg4_dinov2"),
    "transformers:vit": lambda folder: of_transformers(folder, "vit"),
    "transformers:dinov2": lambda folder: of_transformers(folder, "dinov2"),
    "transformers:dinov2-registers": lambda folder: of_transformers(folder, "dinov2-registers"),
    "transformers:clip": lambda folder: of_transformers(folder, "clip"),
    "transformers:clip-vision": lambda folder: of_transformers(folder, "clip-vision"),
    "transformers:siglip": lambda folder: of_transformers(folder, "siglip"),
    "transformers:siglip-vision": lambda folder: of_transformers(folder, "siglip-vision"),
    "open_clip:erf": lambda folder: of_open_clip(folder, "erf"),
    "open_clip:quick": lambda folder: of_open_clip(folder, "quick"),
    "open_clip:siglip": lambda folder: of_open_clip(folder, "siglip"),
    "torchvision:vit": lambda folder: of_torchvision(folder, 10),
}


def beside(weights, folder, tensors):
    """A folder like `weights` with other values."""
    shutil.copytree(weights, folder)
    file = next(name for name in os.listdir(folder) if name.endswith(".safetensors"))
    there = load_file(os.path.join(folder, file))
    prefix = "visual.trunk." if any(name.startswith("visual.trunk.") for name in there) else ""
    own = {f"{prefix}{name}": value.float().contiguous() for name, value in tensors.items()}
    save_file({name: own.get(name, torch.zeros_like(value)) for name, value in there.items()}, os.path.join(folder, file))


def make(network, folder):
    torch.manual_seed(3)
    pictures(folder)
    weights = os.path.join(folder, "weights")
    model, features = NETWORKS[network](weights)
    with torch.no_grad():
        found = features(batch(opened(folder), *ODD)).numpy()
    assert 0.05 < np.abs(found).mean() < 20 and found.std(0).mean() > 1e-2, f"features of no use: {np.abs(found).mean()}, {found.std(0).mean()}"
    np.save(os.path.join(folder, "features.npy"), found)

    # Five steps of gradient descent in f64; the rate moves the weights by a hundredth or more.
    model.double()
    pixels = torch.randn(4, 3, SIZE, SIZE).double()
    targets = torch.randn(4, found.shape[1]).double()
    np.save(os.path.join(folder, "pixels.npy"), pixels.permute(0, 2, 3, 1).contiguous().float().numpy())
    np.save(os.path.join(folder, "targets.npy"), targets.float().numpy())
    pixels, targets = pixels.float().double(), targets.float().double()
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    norm = lambda tensors: sum((value**2).sum() for value in tensors).sqrt()
    rate = None
    for step in range(STEPS):
        model.zero_grad()
        ((features(pixels) - targets) ** 2).mean().backward()
        gradients = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
        if step == 0:
            beside(weights, os.path.join(folder, "gradients"), gradients)
            rate = float(0.01 * norm(before[name] for name in gradients) / norm(gradients.values()))
        with torch.no_grad():
            for name, value in model.named_parameters():
                if name in gradients:
                    value -= rate * gradients[name]
    after = {name: value.detach() for name, value in model.named_parameters()}
    moved = norm(after[name] - before[name] for name in gradients) / norm(before[name] for name in gradients)
    assert moved >= 1e-2, f"weights moved by {moved} alone"
    beside(weights, os.path.join(folder, "after"), after)
    open(os.path.join(folder, "rate"), "w").write(repr(rate))


def torchvision_of(tensors, heads, classes):
    """The model of these tensors, as the note of `ctk export` says."""
    import torchvision

    width, _, patch, _ = tensors["conv_proj.weight"].shape
    layers = 1 + max(int(name.split("_layer_")[1].split(".")[0]) for name in tensors if "_layer_" in name)
    inner = tensors["encoder.layers.encoder_layer_0.mlp.0.weight"].shape[0]
    model = torchvision.models.VisionTransformer(SIZE, patch, layers, heads, width, inner, num_classes=classes)
    model.load_state_dict(tensors, strict="heads.head.weight" in tensors)
    return model.eval()


def load(program, path, folder, heads):
    images = opened(folder)
    if program == "torchvision":
        model = torchvision_of(load_file(os.path.join(path, "model.safetensors")), int(heads), 1)
        model.heads = torch.nn.Identity()
        features = lambda: model(batch(images, *ODD))
    elif program == "timm":
        import timm

        model = timm.create_model(f"local-dir:{path}", pretrained=True).eval()
        transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
        features = lambda: model(torch.stack([transform(image) for image in images]))
        fresh = timm.create_model(f"local-dir:{path}", pretrained=True, num_classes=5)
        assert fresh(torch.zeros(1, 3, SIZE, SIZE)).shape == (1, 5)
    else:
        from transformers import AutoImageProcessor, AutoModel

        model, info = AutoModel.from_pretrained(path, output_loading_info=True)
        # The layer behind a ViT's class token is no part of the network.
        missing = [name for name in info["missing_keys"] if not name.startswith("pooler.")]
        assert not missing and not info["unexpected_keys"] and not info["mismatched_keys"], info
        processor = AutoImageProcessor.from_pretrained(path)
        model.eval()

        def features():
            out = model(**processor(images, return_tensors="pt"))
            return out.last_hidden_state[:, 0] if type(model).__name__ == "ViTModel" else out.pooler_output

    with torch.no_grad():
        print("off", difference(features().numpy(), np.load(os.path.join(folder, "features.npy"))))


def classify(program, path, folder, heads):
    images = opened(folder)
    if program == "torchvision":
        tensors = load_file(os.path.join(path, "model.safetensors"))
        model = torchvision_of(tensors, int(heads), 2)
        names, logits = ["a", "b"], lambda: model(batch(images, *ODD))
    elif program == "timm":
        import timm

        model = timm.create_model(f"local-dir:{path}", pretrained=True).eval()
        transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
        names, logits = model.pretrained_cfg["label_names"], lambda: model(torch.stack([transform(image) for image in images]))
        assert model.num_classes == len(names), model.pretrained_cfg
    else:
        from transformers import AutoImageProcessor, AutoModelForImageClassification

        model, info = AutoModelForImageClassification.from_pretrained(path, output_loading_info=True)
        assert type(model).__name__ == "ViTForImageClassification" and not any(info.values()), info
        processor = AutoImageProcessor.from_pretrained(path)
        names = [model.config.id2label[at] for at in range(model.config.num_labels)]
        logits = lambda: model.eval()(**processor(images, return_tensors="pt")).logits
    print("off", apart(logits, names, folder))


def others(folder):
    """Networks that are none of ctk's, though some have a ViT's names: files alone, and folders where only a description tells."""
    import timm
    import transformers as tf
    from timm.models import save_for_hf

    small = dict(img_size=SIZE, patch_size=PATCH, embed_dim=WIDTH, depth=2, num_heads=HEADS, num_classes=0)
    for name, more in {
        "qk-norm": dict(qk_norm=True),
        "no-qkv-bias": dict(qkv_bias=False),
        "swiglu": dict(mlp_layer=timm.layers.SwiGLUPacked, act_layer=torch.nn.SiLU),
        "positions-of-registers": dict(reg_tokens=2),
        "clip-without-description": dict(pre_norm=True),
    }.items():
        model = timm.create_model("vit_base_patch16_224", **(small | more))
        save_file({key: value.contiguous() for key, value in model.state_dict().items()}, os.path.join(folder, name))
    for name in ["test_vit2", "test_vit3", "vit_tiny_patch16_224"]:
        # The last is one with an argument that no tensor shows.
        more = {"pool_include_prefix": True} if name.startswith("vit") else {}
        model = timm.create_model(name, num_classes=0, depth=1) if name.startswith("vit") else timm.create_model(name, num_classes=0)
        save_for_hf(model, os.path.join(folder, name), safe_serialization=True, model_args=more)
    size = dict(hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=HEADS, image_size=SIZE, patch_size=PATCH)
    for name, model in {
        "relu": tf.ViTModel(tf.ViTConfig(hidden_act="relu", intermediate_size=96, **size)),
        "deit": tf.DeiTModel(tf.DeiTConfig(intermediate_size=96, **size)),
        "dinov2-swiglu": tf.Dinov2Model(tf.Dinov2Config(use_swiglu_ffn=True, mlp_ratio=2, **size)),
        "gray": tf.ViTModel(tf.ViTConfig(num_channels=1, intermediate_size=96, **size)),
        "headless": tf.SiglipVisionModel(tf.SiglipVisionConfig(vision_use_head=False, intermediate_size=96, **size)),
        "beit": tf.BeitModel(tf.BeitConfig(intermediate_size=96, **size)),
    }.items():
        model.save_pretrained(os.path.join(folder, name))
    bare = os.path.join(folder, "vit-without-description")
    tf.ViTModel(tf.ViTConfig(intermediate_size=96, **size)).save_pretrained(bare)
    os.remove(os.path.join(bare, "config.json"))


if __name__ == "__main__":
    verb, *arguments = sys.argv[1:]
    if verb == "make":
        root, *networks = arguments
        for network in networks:
            make(network, os.path.join(root, network))
    elif verb == "check":
        for line in open(arguments[0]).read().splitlines():
            what, *rest = line.split("\t")
            {"load": load, "classify": classify}[what](*rest)
    else:
        others(*arguments)
