"""Makes, loads and compares text towers of CLIP and SigLIP for `tests/clients/towers.rs`.

    pip install -r tests/python/requirements.txt
    CTK_PYTHON=python3 cargo test --test clients -- --ignored towers

`make DIR NETWORK …` draws networks and writes each as its program does, as the folder `weights` of DIR/NETWORK, with a tokenizer of a few
words, and what the network makes of some texts (`texts.txt`, `features.npy`), and a training of five steps: the tokens of texts without
padding, or with SigLIP's (`ids.json`), targets (`targets.npy`), the first step's gradients and the values after the last step as folders of
the same kind (`gradients`, `after`), and the rate (`rate`). `check FILE` does what the lines of a file say: `load PATH TEXTS ROWS` opens what
ctk exported with transformers and compares the features of texts with ctk's rows; it prints the largest difference of each.

Weights are random, scales and shifts off their constants: a mistake in any of them would show.
"""

import json
import os
import shutil
import sys

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error")

import numpy as np
import torch
import transformers as tf
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors

WIDTH, LAYERS, HEADS, LENGTH, EMBEDDED = 48, 3, 4, 12, 20
STEPS = 5
WORDS = [f"w{number}" for number in range(30)]
PAD, UNKNOWN = 1, 2


def tokenizer(siglip):
    """Words of white space, with a token before and behind them, or behind them alone."""
    names = ["</s>", "<pad>", "<unk>"] + WORDS + ["<start>", "<end>"]
    made = Tokenizer(models.WordLevel({name: number for number, name in enumerate(names)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.add_special_tokens(["</s>", "<start>", "<end>"])
    around = "$A </s>" if siglip else "<start> $A <end>"
    special = [(name, made.token_to_id(name)) for name in ("</s>", "<start>", "<end>")]
    made.post_processor = processors.TemplateProcessing(single=around, special_tokens=special)
    return tf.PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", unk_token="<unk>", model_max_length=LENGTH), len(names)


def texts():
    draw = np.random.default_rng(4)
    lengths = [1, 2, 5, 9, 11, 30]
    return [" ".join(draw.choice(WORDS, size)) for size in lengths] + ["w3 unknown w4"]


def randomise(model):
    for name, value in model.named_parameters():
        if value.ndim == 0:
            continue
        one = value.ndim == 1 and name.endswith("weight")
        wide = 2.0 if value.ndim >= 2 and "embed" not in name else 1.0
        value.data = 1 + 0.3 * torch.randn_like(value) if one else wide * value.shape[-1] ** -0.5 * torch.randn_like(value)
    return model.eval()


pooled = lambda out: getattr(out, "text_embeds", getattr(out, "pooler_output", out))


def of_transformers(folder, kind, vocabulary):
    """The model, its features of tokens, and its folder."""
    text = dict(vocab_size=vocabulary, hidden_size=WIDTH, intermediate_size=100, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
                max_position_embeddings=LENGTH, bos_token_id=vocabulary - 2, eos_token_id=vocabulary - 1, pad_token_id=PAD)
    vision = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=8, patch_size=4)
    if kind == "clip":
        model = tf.CLIPModel(tf.CLIPConfig(text_config=text | {"hidden_act": "quick_gelu"}, vision_config=vision, projection_dim=EMBEDDED))
        features = lambda ids: pooled(model.get_text_features(input_ids=ids))
    elif kind == "clip-text":
        model = tf.CLIPTextModelWithProjection(tf.CLIPTextConfig(hidden_act="gelu", projection_dim=EMBEDDED, **text))
        features = lambda ids: pooled(model(input_ids=ids))
    elif kind == "clip-bare":
        model = tf.CLIPTextModel(tf.CLIPTextConfig(hidden_act="quick_gelu", **text))
        features = lambda ids: pooled(model(input_ids=ids))
    elif kind == "siglip":
        model = tf.SiglipModel(tf.SiglipConfig(text_config=text, vision_config=vision))
        features = lambda ids: pooled(model.get_text_features(input_ids=ids))
    else:
        model = tf.SiglipTextModel(tf.SiglipTextConfig(projection_size=EMBEDDED, **text))
        features = lambda ids: pooled(model(input_ids=ids))
    randomise(model).save_pretrained(folder)
    return model, features


def of_open_clip(folder, kind, vocabulary):
    import open_clip

    vision = dict(layers=1, width=16, head_width=8, patch_size=4, image_size=8)
    text = dict(context_length=LENGTH, vocab_size=vocabulary, width=WIDTH, heads=HEADS, layers=LAYERS, mlp_ratio=3.0)
    if kind == "siglip":
        text |= dict(no_causal_mask=True, proj_bias=True, pool_type="last", norm_kwargs={"eps": 1e-6}, act_kwargs={"approximate": "tanh"},
                     hf_tokenizer_name="none", tokenizer_kwargs={"clean": "whitespace"})
    config = {"embed_dim": EMBEDDED, "vision_cfg": vision, "text_cfg": text}
    quick = kind == "quick"
    if quick:
        config["quick_gelu"] = True
    model = randomise((open_clip.CLIP if kind in ("erf", "quick") else open_clip.CustomTextCLIP)(EMBEDDED, vision, text, quick_gelu=quick))
    os.makedirs(folder, exist_ok=True)
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, os.path.join(folder, "open_clip_model.safetensors"))
    json.dump({"model_cfg": config, "preprocess_cfg": {}}, open(os.path.join(folder, "open_clip_config.json"), "w"))
    return model, model.encode_text


def beside(weights, folder, tensors):
    """A folder like `weights` with other values."""
    shutil.copytree(weights, folder)
    file = next(name for name in os.listdir(folder) if name.endswith(".safetensors"))
    there = load_file(os.path.join(folder, file))
    own = {name: value.float().contiguous() for name, value in tensors.items()}
    save_file({name: own.get(name, torch.zeros_like(value)) for name, value in there.items()}, os.path.join(folder, file), {"format": "pt"})


def make(network, folder):
    torch.manual_seed(3)
    program, kind = network.split(":")
    siglip = kind.startswith("siglip")
    weights = os.path.join(folder, "weights")
    cut, vocabulary = tokenizer(siglip)
    model, features = (of_transformers if program == "transformers" else of_open_clip)(weights, kind, vocabulary)
    cut.save_pretrained(weights)
    batch = cut(texts(), padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt")["input_ids"]
    open(os.path.join(folder, "texts.txt"), "w").write("\n".join(texts()) + "\n")
    with torch.no_grad():
        found = features(batch).numpy()
    assert 0.05 < np.abs(found).mean() < 20 and found.std(0).mean() > 1e-2, f"features of no use: {np.abs(found).mean()}, {found.std(0).mean()}"
    np.save(os.path.join(folder, "features.npy"), found)

    # As ctk reads them: nothing behind CLIP's end token.
    ragged = [row.tolist() if siglip else [token for token in row.tolist() if token != PAD] for row in batch]
    json.dump(ragged, open(os.path.join(folder, "ids.json"), "w"))

    # Five steps of gradient descent in f64; the rate moves the weights by a hundredth or more.
    model.double()
    targets = torch.randn(*found.shape).float()
    np.save(os.path.join(folder, "targets.npy"), targets.numpy())
    targets = targets.double()
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    norm = lambda tensors: sum((value**2).sum() for value in tensors).sqrt()
    rate = None
    for step in range(STEPS):
        model.zero_grad()
        ((features(batch) - targets) ** 2).mean().backward()
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


def load(path, texts, rows):
    architecture = json.load(open(os.path.join(path, "config.json")))["architectures"][0]
    model, info = getattr(tf, architecture).from_pretrained(path, output_loading_info=True)
    assert not any(info.values()), info
    cut = tf.AutoTokenizer.from_pretrained(path)
    lines = open(texts).read().splitlines()
    with torch.no_grad():
        batch = cut(lines, padding="max_length", truncation=True, return_tensors="pt")["input_ids"]
        assert batch.shape[1] == LENGTH, batch.shape
        found = pooled(model.eval()(input_ids=batch)).numpy()
    print("off", float(np.abs(found - np.load(rows)).max()))


if __name__ == "__main__":
    verb, *arguments = sys.argv[1:]
    if verb == "make":
        root, *networks = arguments
        for network in networks:
            make(network, os.path.join(root, network))
    else:
        for line in open(arguments[0]).read().splitlines():
            load(*line.split("\t"))
