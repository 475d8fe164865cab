"""What a user would run instead of a training step of `ctk train sentences`: BERT of transformers on PyTorch. One JSON line on stdout.

step.py calls it; by hand:

    python step_peer.py --pairs pairs.tsv --tokenizer tokenizer.json --batch 64 --steps 5 --buckets 4 --bf16

Anchors and positives are in one forward pass, padded to the longest of them; with --buckets they are sorted by length and cut into so many
passes, whose embeddings meet in one loss, so that less is padded and the result is the same. AdamW is PyTorch's fused one.
"""

import argparse
import json
import pathlib
import statistics
import time

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from transformers import BertConfig, BertModel

WARM = 2  # steps before the clock starts, as in ctk


def padded(rows):
    longest = max(len(row) for row in rows)
    ids, mask = torch.zeros(len(rows), longest, dtype=torch.long), torch.zeros(len(rows), longest, dtype=torch.long)
    for at, row in enumerate(rows):
        ids[at, :len(row)], mask[at, :len(row)] = torch.tensor(row), 1
    return ids, mask


def mean(hidden, mask):
    mask = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * mask).sum(dim=1) / mask.sum(dim=1)


def embeddings(model, rows, buckets):
    """Of rows of tokens, in their order."""
    if buckets == 1:
        ids, mask = padded(rows)
        return mean(model(input_ids=ids, attention_mask=mask).last_hidden_state, mask)
    order = sorted(range(len(rows)), key=lambda at: len(rows[at]))
    found = []
    for bucket in range(buckets):
        part = order[bucket * len(order) // buckets:(bucket + 1) * len(order) // buckets]
        ids, mask = padded([rows[at] for at in part])
        found.append(mean(model(input_ids=ids, attention_mask=mask).last_hidden_state, mask))
    place = torch.empty(len(rows), dtype=torch.long)
    place[torch.tensor(order)] = torch.arange(len(rows))
    return torch.cat(found)[place]


def ranking(z, scale):
    """Each anchor's cross entropy over all positives; z is anchors, then positives."""
    anchors, positives = F.normalize(z.float(), dim=-1).chunk(2)
    return F.cross_entropy(scale * anchors @ positives.T, torch.arange(len(anchors)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", required=True)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--buckets", type=int, default=1)
    parser.add_argument("--scale", type=float, default=20.0)
    parser.add_argument("--rate", type=float, default=1e-4)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    a = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(a.threads)
    tokenizer = Tokenizer.from_file(a.tokenizer)
    lines = [line.split("\t") for line in pathlib.Path(a.pairs).read_text(encoding="utf-8").splitlines()[1:]]
    columns = [[found.ids for found in tokenizer.encode_batch(list(column))] for column in zip(*lines)]
    model = BertModel(BertConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=a.width, num_hidden_layers=a.layers, num_attention_heads=a.heads,
        intermediate_size=4 * a.width, hidden_dropout_prob=a.dropout, attention_probs_dropout_prob=a.dropout,
    ), add_pooling_layer=False).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=a.rate, weight_decay=0.0, fused=True)
    times = []
    for step in range(WARM + a.steps):
        part = slice(step * a.batch, (step + 1) * a.batch)
        rows = columns[0][part] + columns[1][part]
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=a.bf16):
            z = embeddings(model, rows, a.buckets)
        loss = ranking(z, a.scale)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        times.append((time.perf_counter() - start) * 1e3)
    tokens = sum(len(row) for column in columns for row in column[WARM * a.batch:(WARM + a.steps) * a.batch])
    middle = statistics.median(times[WARM:])
    print(json.dumps({"step_ms": middle, "tokens_per_second": tokens / a.steps / middle * 1e3, "loss": loss.item()}))


if __name__ == "__main__":
    main()
