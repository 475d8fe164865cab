"""Static embeddings by `ctk train sentences` beside sentence-transformers and PyTorch by hand: speed, and quality over seeds.

    CTK_DATA=DATA venv/bin/python static.py ../../../target/release/ctk --log static.jsonl
    CTK_DATA=DATA venv/bin/python static.py ../../../target/release/ctk --final --log static.jsonl
    CTK_DATA=DATA venv/bin/python static.py ../../../target/release/ctk --limit 3000 --batch 256 --rates 0.1 --seeds 2

Data: package titles and descriptions, words and definitions (`sentence-pairs`: debian, wordnet), with the same tokenizer for all. Sides:
`ctk`; `trainer`, sentence-transformers' trainer; `hand`, EmbeddingBag with SparseAdam. Every side is tried with every rate of --rates (first
seed), and goes on with the one whose recall is best on a share of the pairs that is not trained on. Then all train once for each seed.

Scores: `debian` and `wordnet`, the share of anchors that find their positive among 1,000 of the test parts; Spearman's correlation on the STS
sets that choose, or with --final on those that are looked at once (without sets that were seen in training, `_with_seen` with them).
Baselines: `mean` and `weighted` (by a / (a + frequency)) of word vectors that `ctk train word2vec` learns from the same texts, and `tfidf`.
--matryoshka trains the whole width and a quarter of it; rows that are cut to a quarter are judged, too (`quarter_…`), in any case.

Differences are ctk's score less the peer's, for the same seed, with 95 % by Student's t. Speeds are of training alone (`texts_per_second`;
the trainer's include its tokenizer, ctk and `hand` tokenise before) and of the whole process (`whole_seconds`).
"""

import collections
import json
import pathlib
import random
import re

import numpy

import data
import scores
from shared import Bench, Failed, chosen, compare, flags, fresh, line, option_of_model, options

SETS = ("debian", "wordnet")
FIGURES = [("texts_per_second", "texts/s", True), ("whole_seconds", "s", False), ("peak_mb", "MB", False)]
WORD = re.compile(r"\w+")


class Work:
    """Files that all sides read."""

    def __init__(self, bench, there):
        self.bench, self.a, self.there = bench, bench.a, there
        pairs = [pair for name in SETS for pair in data.pairs(self.a.data, name, "train")]
        random.Random(0).shuffle(pairs)
        pairs = pairs[:self.a.limit]
        held = int(len(pairs) * self.a.dev_share)
        self.train, dev = pairs[held:], pairs[:held]
        self.pairs = data.write(there / "train.tsv", self.train, ("anchor", "positive"))
        self.tokenizer = there / "tokenizer.json"
        described = json.loads((pathlib.Path(self.a.tokenizer or f"{self.a.model}/tokenizer.json")).read_text(encoding="utf-8"))
        # sentence-transformers would cut and pad by them.
        described["truncation"] = described["padding"] = None
        self.tokenizer.write_text(json.dumps(described), encoding="utf-8")
        self.dev = scores.Judge(scores.Retrieval("dev", dev))
        tests = [scores.Retrieval(name, data.pairs(self.a.data, name, "test")) for name in SETS]
        self.judge = scores.Judge(*tests, scores.Sts(self.a.data, self.a.final))

    def changes(self, rate, seed):
        loss = f"loss.ranking.matryoshka.widths=[{self.a.width},{self.a.width // 4}]" if self.a.matryoshka else None
        changes = [
            f"tokenizer.file={self.tokenizer}", f"encoder.static.width={self.a.width}", f"loss.ranking.scale={self.a.scale}",
            f"optimizer.adamw.rate={rate}", "optimizer.adamw.decay=0.0", f"train.batch={self.a.batch}", f"train.epochs={self.a.epochs}",
            f"train.seed={seed}", f"schedule.warmup={0.1 * self.a.epochs}", *([loss] if loss else []), *self.a.set,
        ]
        return [part for change in changes for part in ("--set", change)]

    def ctk(self, rate, seed, judge):
        run = fresh(self.there, f"ctk-{rate}-{seed}")
        done = self.bench.ctk("train", "sentences", "--data", self.pairs, "--out", run, *self.changes(rate, seed))
        rows = self.bench.embed(run, judge.texts, self.there / "ctk-rows")
        kept = {key: done[key] for key in ("texts_per_second", "whole_seconds", "peak_mb", "seconds", "steps")}
        return kept | self.judged(judge, rows)

    def peer(self, kind, rate, seed, judge):
        out = self.there / f"{kind}-{rate}-{seed}"
        widths = ["--matryoshka", self.a.width, self.a.width // 4] if self.a.matryoshka else []
        shape = flags(self.a, "width", "batch", "epochs", "scale")
        files = ["--pairs", self.pairs, "--tokenizer", self.tokenizer, "--out", out]
        done = self.bench.peer("static_peer.py", kind, *files, *shape, "--rate", rate, "--seed", seed, *widths)
        texts, rows = self.there / "texts.txt", self.there / "rows.npy"
        texts.write_text("".join(f"{text}\n" for text in judge.texts), encoding="utf-8")
        self.bench.peer("static_peer.py", "embed", "--model", out, "--texts", texts, "--out", rows)
        return done | self.judged(judge, numpy.load(rows))

    def judged(self, judge, rows):
        quarter = {f"quarter_{key}": value for key, value in judge(rows[:, :self.a.width // 4]).items()}
        return {"scores": judge(rows) | quarter}

    def baselines(self):
        """Scores that need no encoder of sentences."""
        from quality import load
        from sklearn.feature_extraction.text import TfidfVectorizer

        texts = [text for pair in self.train for text in pair]
        tfidf = TfidfVectorizer(sublinear_tf=True).fit(texts)
        yield "tfidf", lambda: {"scores": self.judge(tfidf.transform(self.judge.texts))}

        parts = [WORD.findall(text.lower()) for text in texts]

        def words(weight):
            file, run, out = self.there / "words.txt", fresh(self.there, "words"), self.there / "words.bin"
            file.write_text("".join(" ".join(part) + "\n" for part in parts), encoding="utf-8")
            sets = ["--set", f"encoder.table.width={self.a.width}", "--set", f"train.epochs={self.a.word_epochs}"]
            self.bench.ctk("train", "word2vec", "--data", file, "--out", run, *sets)
            self.bench.ctk("export", run, "--format", "word2vec-binary", "--out", out, "--force", json_line=False)
            known, vectors = load(out)
            out.unlink()
            counts = collections.Counter(word for part in parts for word in part)
            places, all_words = {word: at for at, word in enumerate(known)}, sum(counts.values())
            rows = numpy.zeros((len(self.judge.texts), self.a.width), numpy.float32)
            for at, text in enumerate(self.judge.texts):
                for word in WORD.findall(text.lower()):
                    if word in places:
                        rows[at] += vectors[places[word]] * weight(counts[word] / all_words)
            return {"scores": self.judge(rows)}

        yield "mean", lambda: words(lambda share: 1.0)
        yield "weighted", lambda: words(lambda share: self.a.weight / (self.a.weight + share))


def main():
    parser = options(__doc__, seeds=3)
    option_of_model(parser)
    parser.add_argument("--tokenizer", help="a tokenizer.json; default: that of --model")
    parser.add_argument("--final", action="store_true", help="judge by the STS sets that nothing was chosen on")
    parser.add_argument("--peers", nargs="*", default=["trainer", "hand"])
    parser.add_argument("--rates", nargs="+", type=float, default=[0.02, 0.05, 0.1, 0.2])
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--scale", type=float, default=20.0)
    parser.add_argument("--matryoshka", action="store_true")
    parser.add_argument("--dev-share", type=float, default=0.02, help="of the pairs, by which rates are chosen")
    parser.add_argument("--limit", type=int, help="pairs at most")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="further settings of ctk's recipe")
    parser.add_argument("--word-epochs", type=int, default=5, help="of word vectors")
    parser.add_argument("--weight", type=float, default=1e-3, help="a of the weighted mean")
    a = parser.parse_args()
    bench = Bench(parser, a)
    with bench.folder() as there:
        work = Work(bench, there)
        sides = {"ctk": work.ctk, **{kind: lambda rate, seed, judge, kind=kind: work.peer(kind, rate, seed, judge) for kind in a.peers}}
        rates = {}
        for name, run in sides.items():
            once = lambda rate: bench.once(f"rate-{rate}", name, 0, lambda: run(rate, 0, work.dev), name == "ctk")
            tried = {rate: found and found["scores"] for rate in a.rates for found in [once(rate)]}
            rates[name] = chosen(tried, "dev", True)
            line({"row": "rates", "side": name, "chosen": rates[name], "dev": {rate: of and of["dev"] for rate, of in tried.items()}})
        known = [name for name in sides if rates[name] is not None]
        turns = [(name, lambda seed, name=name: sides[name](rates[name], seed, work.judge), name == "ctk") for name in known]
        found = bench.in_turn("static", turns, a.seeds)
        compare("static", found, FIGURES, pairs_of_texts=len(work.train), rates=rates)
        scores.report("static", {name: [one["scores"] for one in of] for name, of in found.items()})
        for name, of in work.baselines():
            result = bench.once("static", name, 0, of, name != "tfidf")
            if result:
                line({"row": "static", "baseline": name, "scores": result["scores"]})


if __name__ == "__main__":
    try:
        main()
    except Failed as why:
        raise SystemExit(f"{why}")
