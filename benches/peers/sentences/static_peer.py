"""What a user would run instead of `ctk train sentences` with `[encoder.static]`: sentence-transformers' trainer, or PyTorch.
One JSON line on stdout.

static.py calls it; by hand:

    python static_peer.py trainer --pairs pairs.tsv --tokenizer tokenizer.json --rate 0.2 --out folder
    python static_peer.py embed --model folder --texts texts.txt --out rows.npy

`trainer` is SentenceTransformerTrainer with StaticEmbedding, MultipleNegativesRankingLoss and batches without duplicates. `hand` is
EmbeddingBag with sparse gradients and SparseAdam, on texts that were tokenised before. `embed` writes the rows of texts. Seconds are those
of training alone; in `trainer` the tokenizer is part of it.
"""

import argparse
import json
import pathlib
import time

import numpy
import torch
import torch.nn.functional as F
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer


def read(path):
    rows = [line.split("\t") for line in pathlib.Path(path).read_text(encoding="utf-8").split("\n")[1:] if line]
    return [list(column) for column in zip(*rows)]


def words(a):
    tokenizer = Tokenizer.from_file(a.tokenizer)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def trainer(a):
    from datasets import Dataset
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from sentence_transformers.losses import MatryoshkaLoss, MultipleNegativesRankingLoss
    from sentence_transformers.training_args import BatchSamplers

    model = SentenceTransformer(modules=[StaticEmbedding(words(a), embedding_dim=a.width)], device="cpu")
    anchors, positives = read(a.pairs)
    loss = MultipleNegativesRankingLoss(model, scale=a.scale)
    if a.matryoshka:
        loss = MatryoshkaLoss(model, loss, matryoshka_dims=a.matryoshka)
    told = SentenceTransformerTrainingArguments(
        output_dir=f"{a.out}.trainer", num_train_epochs=a.epochs, per_device_train_batch_size=a.batch, learning_rate=a.rate,
        warmup_steps=0.1, lr_scheduler_type="linear", weight_decay=0.0, seed=a.seed, batch_sampler=BatchSamplers.NO_DUPLICATES,
        dataloader_drop_last=True, save_strategy="no", logging_strategy="no", report_to="none", disable_tqdm=True, use_cpu=True,
    )
    pairs = Dataset.from_dict({"anchor": anchors, "positive": positives})
    work = SentenceTransformerTrainer(model, told, train_dataset=pairs, loss=loss)
    done = work.train()
    seconds = done.metrics["train_runtime"]
    model.save(a.out, create_model_card=False)
    return {"seconds": seconds, "steps": done.global_step, "texts_per_second": 2 * a.batch * done.global_step / seconds}


def hand(a):
    tokenizer = words(a)
    columns = [[found.ids for found in tokenizer.encode_batch(column, add_special_tokens=False)] for column in read(a.pairs)]
    table = torch.nn.EmbeddingBag(tokenizer.get_vocab_size(), a.width, mode="mean", sparse=True)
    optimizer = torch.optim.SparseAdam(table.parameters(), lr=a.rate)
    count = len(columns[0])
    whole = a.epochs * (count // a.batch)
    warm = whole // 10
    rate = lambda step: step / warm if step < warm else (whole - step) / max(1, whole - warm)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)

    def bags(rows):
        ends = numpy.cumsum([0] + [len(row) for row in rows[:-1]])
        return table(torch.from_numpy(numpy.fromiter((id for row in rows for id in row), numpy.int64)), torch.from_numpy(ends))

    truth, start = torch.arange(a.batch), time.perf_counter()
    for _ in range(a.epochs):
        order = torch.randperm(count).tolist()
        for at in range(0, count - a.batch + 1, a.batch):
            left, right = (bags([column[sample] for sample in order[at:at + a.batch]]) for column in columns)
            loss = 0.0
            for width in a.matryoshka or [a.width]:
                u, v = F.normalize(left[:, :width], dim=-1), F.normalize(right[:, :width], dim=-1)
                loss = loss + F.cross_entropy(a.scale * u @ v.T, truth)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
    seconds = time.perf_counter() - start
    SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_weights=table.weight.detach().numpy())], device="cpu").save(
        a.out, create_model_card=False
    )
    return {"seconds": seconds, "steps": whole, "texts_per_second": 2 * a.batch * whole / seconds}


def embed(a):
    texts = pathlib.Path(a.texts).read_text(encoding="utf-8").split("\n")[:-1]
    numpy.save(a.out, SentenceTransformer(a.model, device="cpu").encode(texts, batch_size=256, show_progress_bar=False))
    return {"texts": len(texts)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", choices=["trainer", "hand", "embed"])
    parser.add_argument("--pairs")
    parser.add_argument("--tokenizer")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--rate", type=float, default=0.2)
    parser.add_argument("--scale", type=float, default=20.0)
    parser.add_argument("--matryoshka", nargs="*", type=int, help="widths")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--model", help="the folder of `embed`")
    parser.add_argument("--texts")
    parser.add_argument("--out", required=True)
    a = parser.parse_args()
    torch.manual_seed(a.seed)
    torch.set_num_threads(a.threads)
    print(json.dumps({"trainer": trainer, "hand": hand, "embed": embed}[a.work](a)))


if __name__ == "__main__":
    main()
