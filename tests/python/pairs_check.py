"""Makes, loads and compares models of images and texts (CLIP, SigLIP) for `tests/clients/pairs.rs`.

    pip install -r tests/python/requirements.txt
    CTK_PYTHON=python3 cargo test --test clients -- --ignored pairs

`make DIR NETWORK …` draws models and writes each as its program does, as the folder `weights` of DIR/NETWORK, with a tokenizer of a few words,
pictures with captions (`photos`, `metadata.csv`), and what the model makes of them, scaled to length 1 (`images.npy`, `texts.npy`). `check FILE`
does what the lines of a file say: `PATH PHOTOS TEXTS IMAGES ROWS` opens what ctk exported with transformers and compares the rows of
images and of texts with ctk's; it prints the largest difference, the scale and the bias of each.
"""

import json
import os
import sys

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error")

import numpy as np
import torch
import transformers as tf
from PIL import Image
from safetensors.torch import save_file

import towers_check as towers

SIZE, WIDTH, LAYERS, HEADS, PATCH = 16, 32, 2, 2, 4
MEAN, DEVIATION = [0.48, 0.45, 0.4], [0.27, 0.26, 0.28]


def of_transformers(folder, kind, vocabulary):
    text = dict(vocab_size=vocabulary, hidden_size=towers.WIDTH, intermediate_size=100, num_hidden_layers=LAYERS, num_attention_heads=towers.HEADS,
                max_position_embeddings=towers.LENGTH, bos_token_id=vocabulary - 2, eos_token_id=vocabulary - 1, pad_token_id=towers.PAD)
    vision = dict(hidden_size=WIDTH, intermediate_size=40, num_hidden_layers=LAYERS, num_attention_heads=HEADS, image_size=SIZE, patch_size=PATCH)
    if kind == "clip":
        acts = {"hidden_act": "quick_gelu"}
        model = tf.CLIPModel(tf.CLIPConfig(text_config=text | acts, vision_config=vision | acts, projection_dim=towers.EMBEDDED))
    else:
        model = tf.SiglipModel(tf.SiglipConfig(text_config=text | {"projection_size": WIDTH}, vision_config=vision))
    towers.randomise(model)
    with torch.no_grad():
        model.logit_scale.copy_(torch.tensor(2.5).reshape(model.logit_scale.shape))
        if kind == "siglip":
            model.logit_bias.copy_(torch.tensor(-3.25).reshape(model.logit_bias.shape))
    model.save_pretrained(folder)
    processor = {"do_resize": True, "size": {"height": SIZE, "width": SIZE}, "resample": 3, "do_rescale": True, "rescale_factor": 1 / 255,
                 "do_normalize": True, "image_mean": MEAN, "image_std": DEVIATION, "do_center_crop": False,
                 "image_processor_type": "SiglipImageProcessor"}
    if kind == "clip":
        processor |= {"size": {"shortest_edge": SIZE}, "do_center_crop": True, "crop_size": {"height": SIZE, "width": SIZE},
                      "image_processor_type": "CLIPImageProcessor"}
    json.dump(processor, open(os.path.join(folder, "preprocessor_config.json"), "w"))
    return (lambda x: towers.pooled(model.get_image_features(pixel_values=x))), (lambda ids: towers.pooled(model.get_text_features(input_ids=ids)))


def of_open_clip(folder, kind, vocabulary):
    import open_clip

    vision = dict(layers=LAYERS, width=WIDTH, head_width=WIDTH // HEADS, patch_size=PATCH, image_size=SIZE)
    text = dict(context_length=towers.LENGTH, vocab_size=vocabulary, width=towers.WIDTH, heads=towers.HEADS, layers=LAYERS)
    model = towers.randomise(open_clip.CLIP(towers.EMBEDDED, vision, text))
    with torch.no_grad():
        model.logit_scale.fill_(2.5)
    os.makedirs(folder, exist_ok=True)
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, os.path.join(folder, "open_clip_model.safetensors"))
    config = {"embed_dim": towers.EMBEDDED, "vision_cfg": vision, "text_cfg": text}
    json.dump({"model_cfg": config, "preprocess_cfg": {"mean": MEAN, "std": DEVIATION}}, open(os.path.join(folder, "open_clip_config.json"), "w"))
    return model.encode_image, model.encode_text


def pictures(folder):
    """Pictures of the network's own size, so that nothing is resampled."""
    draw, names = np.random.default_rng(5), []
    os.makedirs(folder)
    for number in range(12):
        names.append(f"{number:02}.png")
        Image.fromarray(draw.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)).save(os.path.join(folder, names[-1]))
    with open(os.path.join(folder, "metadata.csv"), "w") as file:
        file.write("file_name,caption\n" + "".join(f"{name},{' '.join(draw.choice(towers.WORDS, 3 + number % 4))}\n" for number, name in enumerate(names)))


def loaded(folder):
    names = sorted(name for name in os.listdir(folder) if name.endswith(".png"))
    stacked = np.stack([np.asarray(Image.open(os.path.join(folder, name)), dtype=np.float32) for name in names]) / 255
    return torch.tensor((stacked - np.float32(MEAN)) / np.float32(DEVIATION)).permute(0, 3, 1, 2).contiguous()


unit = lambda rows: (rows / rows.norm(dim=1, keepdim=True)).numpy()


def make(network, folder):
    torch.manual_seed(3)
    program, kind = network.split(":")
    weights, photos = os.path.join(folder, "weights"), os.path.join(folder, "photos")
    cut, vocabulary = towers.tokenizer(kind == "siglip")
    images, texts = (of_transformers if program == "transformers" else of_open_clip)(weights, kind, vocabulary)
    cut.save_pretrained(weights)
    pictures(photos)
    batch = cut(towers.texts(), padding="max_length", truncation=True, max_length=towers.LENGTH, return_tensors="pt")["input_ids"]
    open(os.path.join(folder, "texts.txt"), "w").write("\n".join(towers.texts()) + "\n")
    with torch.no_grad():
        np.save(os.path.join(folder, "images.npy"), unit(images(loaded(photos))))
        np.save(os.path.join(folder, "texts.npy"), unit(texts(batch)))


def load(path, photos, texts, images, rows):
    architecture = json.load(open(os.path.join(path, "config.json")))["architectures"][0]
    model, info = getattr(tf, architecture).from_pretrained(path, output_loading_info=True)
    assert not any(info.values()), info
    cut = tf.AutoTokenizer.from_pretrained(path)
    with torch.no_grad():
        batch = cut(open(texts).read().splitlines(), padding="max_length", truncation=True, max_length=towers.LENGTH, return_tensors="pt")["input_ids"]
        own = [unit(towers.pooled(model.eval().get_image_features(pixel_values=loaded(photos)))), unit(towers.pooled(model.get_text_features(input_ids=batch)))]
    off = max(float(np.abs(found - np.load(there)).max()) for found, there in zip(own, (images, rows)))
    print("off", off, float(model.logit_scale), float(getattr(model, "logit_bias", torch.zeros(1))))


if __name__ == "__main__":
    verb, *arguments = sys.argv[1:]
    if verb == "make":
        root, *networks = arguments
        for network in networks:
            make(network, os.path.join(root, network))
    else:
        for line in open(arguments[0]).read().splitlines():
            load(*line.split("\t"))
