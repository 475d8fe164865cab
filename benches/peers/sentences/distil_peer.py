"""What a user would run instead of `ctk distill` for sentences: model2vec, and tokenlearn after it. One JSON line on stdout.

distil.py calls it; by hand:

    python distil_peer.py model2vec --teacher FOLDER --width 256 --out folder
    python distil_peer.py tokenlearn --teacher FOLDER --width 256 --texts texts.txt --rows rows.npy --out folder
    python distil_peer.py embed --model folder --texts texts.txt --out rows.npy

`model2vec` distils the teacher's own vocabulary: each piece by itself, principal components, weights by rank. `tokenlearn` does the same and
trains the result by tokenlearn's `train_model` on the texts' targets: the mean of the teacher's tokens less the first and the last, as its
`featurize` writes them. They are kept in the file of `--rows`, and read from there if it exists.
"""

import argparse
import json
import pathlib
import time

import numpy
import torch


def read(path):
    return pathlib.Path(path).read_text(encoding="utf-8").split("\n")[:-1]


def vocabulary(a, numbers="float16"):
    from model2vec.distill import distill

    return distill(a.teacher, pca_dims=a.width, device="cpu", quantize_to=numbers)


def tokenlearn(a):
    from sentence_transformers import SentenceTransformer
    from tokenlearn.train import train_model

    texts = read(a.texts)
    if not pathlib.Path(a.rows).is_file():
        teacher = SentenceTransformer(a.teacher, device="cpu")
        tokens = teacher.encode(texts, output_value="token_embeddings", batch_size=32, show_progress_bar=False)
        numpy.save(a.rows, numpy.stack([found[1:-1].float().mean(dim=0).numpy() for found in tokens]).astype(numpy.float32))
    rows = numpy.load(a.rows)
    # A text without a piece has no mean; tokenlearn leaves it out, too.
    kept = [at for at, row in enumerate(rows) if not numpy.isnan(row).any()]
    texts, rows = [texts[at] for at in kept], rows[kept]
    return train_model(vocabulary(a, "float32"), texts, rows, device="cpu", pca_dims=a.width)


def embed(a):
    from model2vec import StaticModel

    texts = read(a.texts)
    numpy.save(a.out, StaticModel.from_pretrained(a.model).encode(texts).astype(numpy.float32))
    return {"texts": len(texts)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", choices=["model2vec", "tokenlearn", "embed"])
    parser.add_argument("--teacher")
    parser.add_argument("--model")
    parser.add_argument("--texts")
    parser.add_argument("--rows")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", required=True)
    a = parser.parse_args()
    torch.manual_seed(a.seed)
    torch.set_num_threads(a.threads)
    if a.work == "embed":
        print(json.dumps(embed(a)))
        return
    start = time.perf_counter()
    model = (vocabulary if a.work == "model2vec" else tokenlearn)(a)
    seconds = time.perf_counter() - start
    model.save_pretrained(a.out)
    print(json.dumps({"seconds": seconds, "pieces": len(model.embedding)}))


if __name__ == "__main__":
    main()
