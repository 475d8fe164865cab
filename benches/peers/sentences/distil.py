"""Distillation of a transformer into a static embedding: `ctk distill` beside model2vec and tokenlearn, by the same judge.

    CTK_DATA=DATA venv/bin/python distil.py ../../../target/release/ctk --log distil.jsonl
    CTK_DATA=DATA venv/bin/python distil.py ../../../target/release/ctk --rows vocabulary --classes cr --class-limit 500

Rows: `vocabulary` (the teacher's pieces alone: `ctk` and model2vec; nothing in it is drawn, so it is run once) and `texts` (then --texts
texts of several kinds: `ctk` and tokenlearn, once for each seed). The teacher reads them once for each side, in the run of the first seed.
The command of ctk is --ctk-vocabulary or --ctk-texts, in which {teacher}, {width}, {texts}, {rows}, {seed} and {out} are replaced.
`teacher` is the teacher itself.

Scores: Spearman's correlation on the STS sets that choose, or with --final on those that are looked at once; accuracy on --classes by the
same logistic regression on rows of length 1, standardised, its strength chosen by three folds of the training part. Differences are ctk's
score less the peer's, for the same seed, with 95 % by Student's t. `seconds` are those of the whole process on both sides.
"""

import numpy

import data
import scores
from shared import Bench, Failed, compare, fresh, line, option_of_model, options

CLASSES = ["sst2", "trec", "subj", "cr", "mpqa", "20news"]
FIGURES = [("whole_seconds", "s", False), ("peak_mb", "MB", False)]


class Work:
    def __init__(self, bench, there):
        self.bench, self.a, self.there = bench, bench.a, there
        self.texts = there / "texts.txt"
        tasks = [scores.Classes(self.a.data, name, self.a.class_limit) for name in self.a.classes]
        self.judge = scores.Judge(scores.Sts(self.a.data, self.a.final), *tasks)
        self.judged = there / "judge.txt"
        self.judged.write_text("".join(f"{text}\n" for text in self.judge.texts), encoding="utf-8")

    def many(self):
        if not self.texts.is_file():
            data.write(self.texts, [(text,) for text in data.mixture(self.a.data, self.a.words, self.a.texts)])
        return self.texts

    def ctk(self, row, seed):
        out = fresh(self.there, f"ctk-{row}-{seed}")
        command = self.a.ctk_vocabulary if row == "vocabulary" else self.a.ctk_texts
        texts = self.many() if row == "texts" else ""
        # Cut first, so that a path with blanks stays one word.
        words = {"teacher": self.a.model, "width": self.a.width, "texts": texts, "rows": self.there / "ctk.rows", "seed": seed, "out": out}
        told = [part.format(**words) for part in command.split()]
        done = self.bench.ctk(*told)
        rows = self.bench.embed(out, self.judge.texts, self.there / "rows")
        return {key: done[key] for key in ("whole_seconds", "peak_mb")} | {"scores": self.judge(rows)}

    def peer(self, row, seed):
        kind = "model2vec" if row == "vocabulary" else "tokenlearn"
        out, rows = self.there / f"{kind}-{seed}", self.there / "rows.npy"
        told = ["--teacher", self.a.model, "--width", self.a.width, "--seed", seed, "--out", out]
        texts = ["--texts", self.many(), "--rows", self.there / "tokenlearn-rows.npy"] if row == "texts" else []
        done = self.bench.peer("distil_peer.py", kind, *told, *texts)
        self.bench.peer("distil_peer.py", "embed", "--model", out, "--texts", self.judged, "--out", rows)
        return done | {"scores": self.judge(numpy.load(rows))}

    def teacher(self, _):
        return {"scores": self.judge(self.bench.embed(self.a.model, self.judge.texts, self.there / "rows"))}

    def row(self, row):
        name = "model2vec" if row == "vocabulary" else "tokenlearn"
        sides = [("ctk", lambda seed: self.ctk(row, seed), True), (name, lambda seed: self.peer(row, seed), False)]
        found = self.bench.in_turn(row, sides, 1 if row == "vocabulary" else self.a.seeds)
        compare(row, found, FIGURES)
        scores.report(row, {side: [one["scores"] for one in of] for side, of in found.items()})


def main():
    parser = options(__doc__, seeds=3)
    option_of_model(parser)
    parser.add_argument("--final", action="store_true", help="judge by the STS sets that nothing was chosen on")
    parser.add_argument("--rows", nargs="+", choices=["teacher", "vocabulary", "texts"], default=["teacher", "vocabulary", "texts"])
    parser.add_argument("--ctk-vocabulary", default="distill {teacher} --width {width} --out {out}", metavar="COMMAND")
    parser.add_argument(
        "--ctk-texts", metavar="COMMAND",
        default="distill {teacher} --width {width} --data {texts} --set train.seed={seed} --set task.distill.rows={rows} --out {out}",
    )
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--texts", type=int, default=60_000, help="texts to learn from")
    parser.add_argument("--words", type=int, default=32, help="of a window")
    parser.add_argument("--classes", nargs="*", choices=CLASSES, default=CLASSES)
    parser.add_argument("--class-limit", type=int, help="texts of a part at most")
    a = parser.parse_args()
    bench = Bench(parser, a)
    with bench.folder() as there:
        work = Work(bench, there)
        for row in a.rows:
            if row != "teacher":
                work.row(row)
                continue
            found = bench.once("teacher", "teacher", 0, lambda: work.teacher(0), True)
            if found:
                line({"row": "teacher", "scores": found["scores"]})


if __name__ == "__main__":
    try:
        main()
    except Failed as why:
        raise SystemExit(f"{why}")
