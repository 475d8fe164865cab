"""What a user would run instead of `ctk train sentences` on a transformer: BERT of transformers on PyTorch. One JSON line on stdout.

simcse.py calls it; by hand:

    python simcse_peer.py make --tokenizer tokenizer.json --out folder --layers 4 --width 256 --heads 4
    python simcse_peer.py train --model folder --texts texts.txt --batch 64 --steps 1000 --rate 5e-4 --rows rows.npy --judge judge.txt

`make` saves a network with fresh weights and the tokenizer. `train` prints every step's loss: a file of two columns is
pairs, a file of lines is texts that are each other's positive through another dropout (SimCSE). The rate is that of ctk's schedule. Weight
decay is that of products alone, as in ctk. --rows writes the unit rows of the texts in --judge.
"""

import argparse
import json
import pathlib
import time

import numpy
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from step_peer import mean, padded, ranking

def read(path):
    return pathlib.Path(path).read_text(encoding="utf-8").split("\n")[:-1]


def make(a):
    tokenizer = Tokenizer.from_file(a.tokenizer)
    names = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=512, **names).save_pretrained(a.out)
    network = BertModel(BertConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=a.width, num_hidden_layers=a.layers, num_attention_heads=a.heads,
        intermediate_size=4 * a.width, hidden_dropout_prob=a.dropout, attention_probs_dropout_prob=a.dropout,
    ), add_pooling_layer=False)
    network.save_pretrained(a.out)
    return {"pieces": tokenizer.get_vocab_size(), "parameters": sum(one.numel() for one in network.parameters())}


def words(a):
    tokenizer = Tokenizer.from_file(str(pathlib.Path(a.model) / "tokenizer.json"))
    tokenizer.enable_truncation(a.longest)
    tokenizer.no_padding()
    return lambda texts: [found.ids for found in tokenizer.encode_batch(texts)]


def rate(a, step, steps):
    """The rate of a step as ctk's schedule with a linear decay has it, or constant."""
    if step < a.warmup:
        return a.rate * step / a.warmup
    return a.rate if a.constant else a.rate * (1 - (step - a.warmup) / max(1, steps + 1 - a.warmup))


def train(a):
    model = BertModel.from_pretrained(
        a.model, add_pooling_layer=False, hidden_dropout_prob=a.dropout, attention_probs_dropout_prob=a.dropout
    ).train()
    cut = words(a)
    columns = [cut(list(column)) for column in zip(*(line.split("\t") for line in read(a.texts)))]
    left, right = columns[0], columns[-1]
    products = [p for name, p in model.named_parameters() if p.dim() == 2 and "embeddings" not in name]
    decayed = {id(p) for p in products}
    others = [p for p in model.parameters() if id(p) not in decayed]
    groups = [{"params": products, "weight_decay": a.decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=a.rate, fused=True)
    losses, order, start = [], [], time.perf_counter()
    for step in range(a.steps):
        if len(order) < a.batch:
            order = torch.randperm(len(left)).tolist()
        part, order = order[:a.batch], order[a.batch:]
        for group in optimizer.param_groups:
            group["lr"] = rate(a, step, a.steps)
        ids, mask = padded([left[at] for at in part] + [right[at] for at in part])
        loss = ranking(mean(model(input_ids=ids, attention_mask=mask).last_hidden_state, mask), a.scale)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    seconds = time.perf_counter() - start
    if a.rows:
        numpy.save(a.rows, embed(model.eval(), cut(read(a.judge))))
    return {"losses": losses, "seconds": seconds, "samples_per_second": a.steps * a.batch / seconds}


@torch.inference_mode()
def embed(model, rows, batch=64):
    order = sorted(range(len(rows)), key=lambda at: -len(rows[at]))
    found = numpy.empty((len(rows), model.config.hidden_size), numpy.float32)
    for start in range(0, len(order), batch):
        part = order[start:start + batch]
        ids, mask = padded([rows[at] for at in part])
        found[part] = F.normalize(mean(model(input_ids=ids, attention_mask=mask).last_hidden_state, mask), dim=-1).numpy()
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", choices=["make", "train"])
    parser.add_argument("--texts", help="the file of `train`")
    parser.add_argument("--tokenizer", help="the file of `make`")
    parser.add_argument("--model", help="the folder of `train`")
    parser.add_argument("--out", help="the folder of `make`")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--longest", type=int, default=64)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=5e-4)
    parser.add_argument("--warmup", type=int, default=0, help="steps")
    parser.add_argument("--constant", action="store_true", help="no decay of the rate")
    parser.add_argument("--decay", type=float, default=0.0)
    parser.add_argument("--scale", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--judge")
    parser.add_argument("--rows")
    a = parser.parse_args()
    torch.manual_seed(a.seed)
    torch.set_num_threads(a.threads)
    print(json.dumps({"make": make, "train": train}[a.work](a)))


if __name__ == "__main__":
    main()
