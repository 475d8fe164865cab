"""Transformers by `ctk train sentences` beside PyTorch: the same losses step by step, and the same quality over seeds.

    CTK_DATA=DATA venv/bin/python simcse.py ../../../target/release/ctk losses
    CTK_DATA=DATA venv/bin/python simcse.py ../../../target/release/ctk quality --log simcse.jsonl
    CTK_DATA=DATA venv/bin/python simcse.py ../../../target/release/ctk quality --steps 20 --batch 16 --layers 1 --width 64 --seeds 2

`losses`: both begin with the same folder of transformers (a tokenizer that ctk trains on the texts, fresh weights), without dropout. A batch
is the whole file, so that the order of samples does not matter. Cases: `same` (texts alone, each its own positive), `pairs` (a text's halves),
`drawn` (pairs of 1 word to --longest-words). The greatest difference between the losses of --loss-steps steps must be at most
--within, or the exit code is 1.

`quality`: SimCSE on windows of 32 words of news and reviews. For each seed both begin with the same weights; orders and dropout differ.
Scores are Spearman's correlations on the STS sets that choose, or with --final on those that are looked at once. Differences are ctk's score
less PyTorch's, for the same seed, with 95 % by Student's t; `start` is the network before training.
"""

import json
import random
import sys

import numpy

import data
import scores
from shared import Bench, Failed, compare, flags, fresh, line, options

RECIPE = """[data]
path = {path}
kind = "{kind}"
[data.columns]
{columns}
[pairs]
cut = "same"
[tokenizer]
longest = {longest}
[encoder.transformer]
weights = {weights}
dropout = {dropout}
attention_dropout = {dropout}
pooling = "mean"
[loss.ranking]
scale = {scale}
[optimizer.adamw]
rate = {rate}
decay = {decay}
[schedule]
warmup = {warmup}
decay = "{schedule}"
scaling = "none"
length = "steps"
[train]
batch = {batch}
epochs = {epochs}
clip = 1.0
seed = {seed}
log_every = 1
[checkpoint]
every = "1000000 steps"
"""


class Work:
    def __init__(self, bench, there):
        self.bench, self.a, self.there = bench, bench.a, there

    def tokenizer(self, name, texts):
        """A tokenizer of these texts: the same texts give the same file."""
        file, out = self.there / f"{name}.txt", self.there / f"{name}.json"
        file.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
        self.bench.ctk("tokenizer", "train", "--data", file, "--size", self.a.vocabulary, "--out", out, "--force", json_line=False)
        return out

    def make(self, name, tokenizer, seed, dropout):
        """A folder of transformers: the tokenizer, and weights that are drawn by `seed`."""
        folder = self.there / name
        shape = flags(self.a, "layers", "width", "heads")
        told = ["--tokenizer", tokenizer, "--out", folder, "--dropout", dropout, "--seed", seed]
        self.bench.peer("simcse_peer.py", "make", *told, *shape)
        return folder

    def ctk(self, name, texts, paired, folder, **more):
        path = self.there / f"{name}.toml"
        columns = "anchor = 1\npositive = 2" if paired else ""
        told = {"path": json.dumps(str(texts)), "weights": json.dumps(str(folder)), "kind": "pairs" if paired else "texts"}
        path.write_text(RECIPE.format(**told, columns=columns, longest=self.a.longest, scale=self.a.scale, **more))
        run = fresh(self.there, name)
        done = self.bench.ctk("train", "sentences", "--config", path, "--out", run)
        lines = [json.loads(one) for one in (run / "metrics.jsonl").read_text().splitlines()]
        return run, done, [one["loss"] for one in lines if "loss" in one]

    def case(self, name, samples):
        """The greatest difference between the two programs' losses."""
        a, texts = self.a, self.there / f"{name}.tsv"
        data.write(texts, samples)
        folder = self.make(f"{name}-folder", self.tokenizer(f"{name}-words", [text for sample in samples for text in sample]), 0, 0.0)
        steps, batch = a.loss_steps, len(samples)
        told = {"dropout": 0.0, "rate": a.loss_rate, "decay": a.decay, "batch": batch}
        _, _, ours = self.ctk(
            name, texts, len(samples[0]) == 2, folder, **told, warmup=0.0, schedule="constant", epochs=steps, seed=0
        )
        same = [part for key, value in told.items() for part in (f"--{key}", value)] + flags(a, "scale", "longest")
        peer = ["--model", folder, "--texts", texts, "--steps", steps, "--constant", *same]
        theirs = self.bench.peer("simcse_peer.py", "train", *peer)["losses"]
        if len(ours) != steps or len(theirs) != steps:
            raise Failed(f"{len(ours)} losses of ctk and {len(theirs)} of PyTorch, in place of {steps}")
        off = [abs(left - right) for left, right in zip(ours, theirs)]
        line({
            "row": f"losses-{name}", "steps": steps, "samples": batch,
            "greatest_difference": max(off), "at_step": 1 + off.index(max(off)), "within": max(off) <= a.within,
            "first": [ours[0], theirs[0]], "last": [ours[-1], theirs[-1]],
        })
        return max(off) <= a.within

    def losses(self):
        a = self.a
        texts, long = data.windows(a.data, 24, a.samples), data.windows(a.data, a.longest_words, a.samples)
        draw = random.Random(0)
        some = lambda text: " ".join(text.split()[:draw.randint(1, a.longest_words)])
        cases = {
            "same": [(text,) for text in texts],
            "pairs": [(" ".join(text.split()[:12]), " ".join(text.split()[12:])) for text in texts],
            # Numbers keep short texts apart: a text that stands twice would be another loss.
            "drawn": [(f"{at} {some(text)}", f"{some(text)} {at}") for at, text in enumerate(long)],
        }
        # All of them, also after one that failed.
        return all([self.case(name, samples) for name, samples in cases.items()])

    def quality(self):
        a = self.a
        judge = scores.Judge(scores.Sts(a.data, a.final))
        texts, judged = self.there / "texts.txt", self.there / "judge.txt"
        samples = data.windows(a.data, a.words, a.steps * a.batch)
        if len(samples) < a.steps * a.batch:
            print(f"{len(samples)} windows, fewer than {a.steps} steps of {a.batch}: fewer steps", file=sys.stderr)
        steps = len(samples) // a.batch
        data.write(texts, [(text,) for text in samples])
        judged.write_text("".join(f"{text}\n" for text in judge.texts), encoding="utf-8")
        words, folders = self.tokenizer("words", samples), {}

        def folder(seed):
            if seed not in folders:
                folders[seed] = self.make(f"folder-{seed}", words, seed, a.dropout)
            return folders[seed]

        def ctk(seed):
            told = {"dropout": a.dropout, "rate": a.rate, "decay": a.decay, "batch": a.batch, "seed": seed}
            run, done, losses = self.ctk(f"ctk-{seed}", texts, False, folder(seed), **told, warmup=0.1, schedule="linear", epochs=1)
            rows = self.bench.embed(run, judge.texts, self.there / "rows")
            return {"samples_per_second": done["samples_per_second"], "scores": judge(rows), "loss": losses[-1]}

        def torch(seed):
            rows = self.there / "rows.npy"
            same = flags(a, "dropout", "rate", "decay", "batch", "scale", "longest")
            told = ["--steps", steps, "--warmup", steps // 10, "--seed", seed, "--judge", judged, "--rows", rows]
            done = self.bench.peer("simcse_peer.py", "train", "--model", folder(seed), "--texts", texts, *same, *told)
            return {"samples_per_second": done["samples_per_second"], "scores": judge(numpy.load(rows)), "loss": done["losses"][-1]}

        start = lambda seed: {"scores": judge(self.bench.embed(folder(seed), judge.texts, self.there / "rows"))}
        found = self.bench.in_turn("quality", [("ctk", ctk, True), ("torch", torch, False), ("start", start, True)], a.seeds)
        compare("quality", found, [("samples_per_second", "samples/s", True)], steps=steps)
        scores.report("quality", {name: [one["scores"] for one in of] for name, of in found.items()})
        return "ctk" in found


def main():
    parser = options(__doc__, seeds=5)
    parser.add_argument("part", choices=["losses", "quality"])
    parser.add_argument("--final", action="store_true", help="judge by the STS sets that nothing was chosen on")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--vocabulary", type=int, default=8000)
    parser.add_argument("--dropout", type=float, default=0.1, help="of `quality`")
    parser.add_argument("--scale", type=float, default=20.0)
    parser.add_argument("--decay", type=float, default=0.01, help="of weights")
    parser.add_argument("--longest", type=int, default=64, help="tokens of a text")
    parser.add_argument("--samples", type=int, default=64, help="of a case of `losses`")
    parser.add_argument("--longest-words", type=int, default=40, help="of the case `drawn`")
    parser.add_argument("--loss-steps", type=int, default=50)
    parser.add_argument("--loss-rate", type=float, default=1e-4)
    parser.add_argument("--within", type=float, default=1e-3)
    parser.add_argument("--batch", type=int, default=64, help="of `quality`")
    parser.add_argument("--steps", type=int, default=1000, help="of `quality`")
    parser.add_argument("--words", type=int, default=32, help="of a window")
    parser.add_argument("--rate", type=float, default=5e-4, help="of `quality`")
    a = parser.parse_args()
    bench = Bench(parser, a)
    with bench.folder() as there:
        work = Work(bench, there)
        sys.exit(0 if (work.losses() if a.part == "losses" else work.quality()) else 1)


if __name__ == "__main__":
    try:
        main()
    except Failed as why:
        raise SystemExit(f"{why}")
