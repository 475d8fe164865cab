"""Speed and memory of a training step of `[encoder.transformer]` beside BERT on PyTorch: 6 layers of 384 values, pairs, ranking.

    CTK_DATA=DATA venv/bin/python step.py ../../../target/release/ctk
    venv/bin/python step.py ../../../target/release/ctk --data . --rows fixed-f32 --layers 2 --width 64 --heads 2 --batch 8 --pairs 1

Rows: `fixed` (all texts have 32 tokens) and `drawn` (4 to 64 tokens, each length as likely), in f32 and bf16 (PyTorch: autocast). Texts are
random words, each of which is one token of a vocabulary of 30,522 pieces that the script writes, so that both programs read the same
tokens. Peers: `padded`, and for drawn lengths `bucketed`: a batch sorted by length in several passes, the fastest number of --buckets.

`step_ms` is the median of the steps' times: for ctk by its metrics (`--by train`, a run of --steps steps; a step's batch is drawn ahead) or
by `ctk bench sentences` (`--by bench`). `peak_mb` is the highest memory of the process. PyTorch's includes its libraries; the row `idle` has
the memory of both programs that do nothing.
"""

import json
import random
import statistics
import sys

from shared import Bench, chosen, compare, flags, line, options

WARM = 2
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
FIGURES = [("step_ms", "ms", False), ("peak_mb", "MB", False)]

RECIPE = """[data]
path = {path}
[tokenizer]
file = {tokenizer}
longest = {longest}
[encoder.transformer]
layers = {layers}
width = {width}
heads = {heads}
positions = 512
dropout = {dropout}
attention_dropout = {dropout}
[loss.ranking]
scale = {scale}
[optimizer.adamw]
rate = {rate}
decay = 0.0
[schedule]
warmup = 0
decay = "constant"
scaling = "none"
length = "steps"
[train]
batch = {batch}
epochs = 1
clip = 1.0
precision = "{precision}"
max_steps = {steps}
log_every = 1
[checkpoint]
every = "1000000 steps"
"""


def tokenizer(path, vocabulary):
    """One token a word, between [CLS] and [SEP]."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    pieces = SPECIAL + [f"w{at}" for at in range(len(SPECIAL), vocabulary)]
    made = Tokenizer(models.WordLevel({piece: at for at, piece in enumerate(pieces)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.add_special_tokens(SPECIAL)
    made.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    made.save(str(path))
    return path


def pairs(path, count, lengths, vocabulary):
    """`count` pairs of texts whose numbers of tokens, [CLS] and [SEP] included, are drawn from `lengths`."""
    draw = random.Random(0)
    text = lambda: " ".join(f"w{draw.randrange(len(SPECIAL), vocabulary)}" for _ in range(draw.choice(lengths) - 2))
    path.write_text("anchor\tpositive\n" + "".join(f"{text()}\t{text()}\n" for _ in range(count)))
    return path


class Row:
    def __init__(self, bench, there, kind, precision):
        self.bench, self.a, self.there, self.precision, self.row = bench, bench.a, there, precision, f"{kind}-{precision}"
        a = self.a
        self.lengths = [a.length] if kind == "fixed" else list(range(a.shortest, a.longest + 1))
        self.words = tokenizer(there / "tokenizer.json", a.vocabulary)
        self.pairs = pairs(there / f"{kind}.tsv", a.batch * (WARM + a.steps), self.lengths, a.vocabulary)

    def recipe(self):
        shape = {key: getattr(self.a, key) for key in ("layers", "width", "heads", "dropout", "scale", "rate", "batch")}
        names = {"path": json.dumps(str(self.pairs)), "tokenizer": json.dumps(str(self.words))}
        path = self.there / f"{self.row}.toml"
        steps = WARM + self.a.steps
        path.write_text(RECIPE.format(**shape, **names, longest=max(self.lengths), steps=steps, precision=self.precision))
        return path

    def by_train(self, turn):
        run = self.there / f"{self.row}-{turn}"
        done = self.bench.ctk("train", "sentences", "--config", self.recipe(), "--out", run)
        lines = [json.loads(one) for one in (run / "metrics.jsonl").read_text().splitlines()]
        times = [self.a.batch / one["samples_per_second"] * 1e3 for one in lines if "loss" in one and one["step"] > WARM]
        return {**done, "step_ms": statistics.median(times)}

    def by_bench(self, _):
        told = ["--config", self.recipe(), "--steps", self.a.steps, "--precision", self.precision]
        done = self.bench.ctk("bench", "sentences", *told)
        found = done
        for name in self.a.bench_key.split("."):
            found = found[name]
        return {**done, "step_ms": found["median"] if isinstance(found, dict) else found}

    def peer(self, buckets):
        shape = flags(self.a, "layers", "width", "heads", "dropout", "batch", "steps", "scale", "rate")
        bf16 = ["--bf16"] if self.precision == "bf16" else []
        files = ["--pairs", self.pairs, "--tokenizer", self.words]
        return self.bench.peer("step_peer.py", *files, *shape, "--buckets", buckets, *bf16)

    def run(self):
        sides = [("ctk", self.by_train if self.a.by == "train" else self.by_bench, True), ("padded", lambda _: self.peer(1), False)]
        settings = {}
        if len(self.lengths) > 1:
            once = lambda count: self.bench.once(f"{self.row}-buckets-{count}", "bucketed", 0, lambda: self.peer(count), False)
            best = chosen({count: once(count) for count in self.a.buckets}, "step_ms", False)
            if best:
                settings["buckets"] = best
                sides.append(("bucketed", lambda _: self.peer(best), False))
        found = self.bench.in_turn(self.row, sides, self.a.pairs)
        compare(self.row, found, FIGURES, mean_tokens=statistics.mean(self.lengths), settings=settings, by=self.a.by)


def main():
    parser = options(__doc__)
    parser.add_argument("--rows", nargs="+", metavar="NAME", default=["fixed-f32", "drawn-f32", "fixed-bf16", "drawn-bf16"])
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--vocabulary", type=int, default=30522)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--batch", type=int, default=64, help="pairs")
    parser.add_argument("--length", type=int, default=32, help="tokens of `fixed`")
    parser.add_argument("--shortest", type=int, default=4, help="tokens of `drawn`")
    parser.add_argument("--longest", type=int, default=64, help="tokens of `drawn`")
    parser.add_argument("--scale", type=float, default=20.0)
    parser.add_argument("--rate", type=float, default=1e-4)
    parser.add_argument("--steps", type=int, default=5, help="by the clock in a process")
    parser.add_argument("--buckets", nargs="+", type=int, default=[2, 4, 8])
    parser.add_argument("--by", choices=["train", "bench"], default="train", help="what times ctk")
    parser.add_argument("--bench-key", default="step_ms.total", help="the figure of `ctk bench sentences --json`")
    a = parser.parse_args()
    bench = Bench(parser, a)
    for row in a.rows:
        if row.partition("-")[0] not in ("fixed", "drawn") or row.partition("-")[2] not in ("f32", "bf16"):
            parser.error(f"there is no row {row}: a row is fixed or drawn, and f32 or bf16, as in fixed-bf16")
    with bench.folder() as there:
        idle = {"ctk": [a.ctk, "--version"], "torch": [sys.executable, "-c", "import torch; from transformers import BertModel"]}
        idle = {name: bench.process(*command)[1]["peak_mb"] for name, command in idle.items()}
        line({"row": "idle", "figure": "peak_mb", "unit": "MB", **idle})
        for row in a.rows:
            Row(bench, there, *row.split("-")).run()


if __name__ == "__main__":
    main()
