"""Compares the quality of word vectors by ctk and by gensim: the same text, several seeds, one evaluator; means and deviations.

    venv/bin/python quality.py ../../target/release/ctk --text news.txt --gold DATA/word-benchmarks-en/gensim-4.4.0 \\
        --log quality.jsonl
    venv/bin/python quality.py ../../target/release/ctk --text news.txt --gold GOLD --rows gensim ctk-skip-gram --seeds 3

--gold holds questions-words.txt, wordsim353.tsv and simlex999.txt. Similarity is Spearman's correlation of cosines with human
judgements, over pairs whose words both have vectors; analogies are the fraction of right answers by 3CosAdd among questions whose
four words are among the 30,000 most frequent. A word is looked up as written, and then lower-cased. Both programs: window 5,
5 negatives, subsampling 1e-4, words of five occurrences or more. With --log each finished run is stored in a file and not repeated.
The table is on stdout, followed with --json by one line with everything measured.
"""

import argparse
import json
import pathlib
import shutil
import statistics
import sys
import tempfile

import numpy

from compare import HERE, Failed, call
from finished import Finished, digest

RATE = 0.025
SUBWORDS = ["encoder.subwords.width={width}", "encoder.subwords.min=3", "encoder.subwords.max=6", "encoder.subwords.buckets={buckets}"]
TABLE = ["encoder.table.width={width}"]

# What ctk's recipe is set to, beside what all are.
CTK = {
    "skip-gram": TABLE,
    "skip-gram-.025": [*TABLE, f"optimizer.sgd.rate={RATE}"],
    "fast": [*TABLE, "pairs.negatives=grouped"],
    "per-pair": [*TABLE, "pairs.negatives=per-pair"],
    "deterministic": [*TABLE, "train.deterministic=true"],
    "cbow": [*TABLE, "pairs.architecture=cbow"],
    "subwords": SUBWORDS,
    "cbow-subwords": [*SUBWORDS, "pairs.architecture=cbow"],
}
# What words.py is told.
GENSIM = {
    "skip-gram": [],
    "cbow": ["--cbow"],
    "subwords": ["--subwords"],
    "cbow-subwords": ["--cbow", "--subwords"],
}
FIGURES = {"ws353": "WordSim353", "simlex": "SimLex999", "total": "analogies", "semantic": "semantic", "syntactic": "syntactic"}
RESTRICT = 30_000


def load(path):
    """Words and unit vectors of a file in word2vec's binary form."""
    with open(path, "rb") as file:
        count, width = map(int, file.readline().split())
        data = file.read()
    at, words, rows = 0, [], numpy.empty((count, width), numpy.float32)
    for row in range(count):
        end = data.index(b" ", at)
        words.append(data[at:end].lstrip(b"\n").decode())
        rows[row] = numpy.frombuffer(data, "<f4", width, end + 1)
        at = end + 1 + 4 * width
    return words, rows / numpy.maximum(numpy.linalg.norm(rows, axis=1, keepdims=True), 1e-30)


def ranks(values):
    """Places, equal values sharing the mean of theirs."""
    values = numpy.asarray(values)
    _, group, count = numpy.unique(values, return_inverse=True, return_counts=True)
    return (numpy.cumsum(count) - (count + 1) / 2)[group]


class Gold:
    """The three sets, read once."""

    def __init__(self, folder):
        folder = pathlib.Path(folder)
        pairs = lambda name: [p for line in (folder / name).read_text().splitlines() if (p := self.pair(line))]
        self.pairs = {"ws353": pairs("wordsim353.tsv"), "simlex": pairs("simlex999.txt")}
        self.questions, syntactic = [], False
        for line in (folder / "questions-words.txt").read_text().splitlines():
            if line.startswith(":"):
                syntactic = line[1:].strip().startswith("gram")
            elif len(line.split()) == 4:
                self.questions.append((line.split(), syntactic))

    @staticmethod
    def pair(line):
        fields = line.split("\t")
        try:
            return None if line.startswith("#") else (fields[0], fields[1], float(fields[2]))
        except (IndexError, ValueError):
            return None

    def judge(self, path):
        words, rows = load(path)
        places = {}
        for place, word in enumerate(words):
            places.setdefault(word, place)
        find = lambda word: places.get(word, places.get(word.lower()))
        found = {}
        for name, pairs in self.pairs.items():
            known = [(find(a), find(b), score) for a, b, score in pairs if find(a) is not None and find(b) is not None]
            cosines = [float(rows[a] @ rows[b]) for a, b, _ in known]
            found[name] = float(numpy.corrcoef(ranks(cosines), ranks([score for *_, score in known]))[0, 1])
        top = rows[:RESTRICT]
        asked = [([find(word) for word in four], syntactic) for four, syntactic in self.questions]
        asked = [(four, syntactic) for four, syntactic in asked if all(p is not None and p < len(top) for p in four)]
        right = {True: [], False: []}
        for start in range(0, len(asked), 256):
            block = asked[start:start + 256]
            a, b, c, _ = numpy.array([four for four, _ in block]).T
            scores = (top[b] - top[a] + top[c]) @ top.T
            for given in (a, b, c):
                scores[numpy.arange(len(block)), given] = -numpy.inf
            for best, (four, syntactic) in zip(scores.argmax(axis=1), block):
                right[syntactic].append(best == four[3])
        share = lambda hits: float(numpy.mean(hits)) if hits else None
        found |= {"total": share(right[True] + right[False]), "semantic": share(right[False]), "syntactic": share(right[True])}
        return found | {"answered": len(asked), "pairs": [len(pairs) for pairs in self.pairs.values()]}


def ctk(a, changes, seed, there):
    changes = [
        "pairs.window=5", "pairs.subsample=1e-4", "vocabulary.min_count=5", f"train.epochs={a.epochs}", f"train.seed={seed}",
        *(change.format(width=a.width, buckets=a.buckets) for change in changes),
    ]
    sets = [part for change in changes for part in ("--set", change)]
    shown = ["--threads", a.threads, "--quiet", "--json"]
    trained = call(a.ctk, "train", "word2vec", "--data", a.text, "--out", there / "run", *sets, *shown)
    # It prints a path, no figures.
    call(a.ctk, "export", there / "run", "--format", "word2vec-binary", "--out", there / "v.bin", json_line=False)
    return trained


def gensim(a, flags, seed, there):
    shape = ["--width", a.width, "--epochs", a.epochs, "--threads", a.threads, "--buckets", a.buckets]
    # gensim takes 0 for any seed of numpy's.
    return call(sys.executable, HERE / "words.py", a.text, *shape, "--seed", seed + 1, "--out", there / "v.bin", *flags)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ctk", help="the program")
    parser.add_argument("--text", required=True)
    parser.add_argument("--gold", required=True, help="the folder of sets")
    parser.add_argument("--rows", nargs="+", default=[""], metavar="NAME", help="names of rows, or their beginnings")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--width", type=int, default=100)
    parser.add_argument("--buckets", type=int, default=2_000_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--log", help="a file for finished runs, which are not run again")
    parser.add_argument("--list", action="store_true", help="name the rows")
    parser.add_argument("--json", action="store_true")
    a = parser.parse_args()
    rows = {f"ctk-{name}": (ctk, changes) for name, changes in CTK.items()}
    rows |= {f"gensim-{name}": (gensim, flags) for name, flags in GENSIM.items()}
    wanted = [name for name in rows if any(name == row or row not in rows and name.startswith(row) for row in a.rows)]
    if a.list:
        print("\n".join(wanted))
        return
    if shutil.which(a.ctk) is None:
        parser.error(f"{a.ctk} is not a program: give the path of ctk")
    if not pathlib.Path(a.text).is_file():
        parser.error(f"{a.text} is not a file")
    if not wanted:
        parser.error(f"no row begins with {' or '.join(a.rows)}; --list names them")
    gold, finished, table = Gold(a.gold), Finished(a.log), {}
    setting = {key: getattr(a, key) for key in ("text", "epochs", "width", "buckets", "threads")}
    program = digest(shutil.which(a.ctk))
    # Seed by seed, so that a table of few seeds is there early.
    for seed in range(a.seeds):
        for name in wanted:
            work, told = rows[name]
            run = {"row": name, "seed": seed, **setting, **({"program": program} if work is ctk else {})}

            def train():
                print(f"{name}: seed {seed}", file=sys.stderr, flush=True)
                with tempfile.TemporaryDirectory() as there:
                    trained = work(a, told, seed, pathlib.Path(there))
                    return gold.judge(pathlib.Path(there) / "v.bin") | {"words_per_second": trained["words_per_second"]}

            try:
                table.setdefault(name, []).append(finished.once(run, train))
            except Failed as why:
                print(f"{name}, seed {seed}: left out: {why}", file=sys.stderr)
    print(f"| vectors | {' | '.join(FIGURES.values())} | seeds |\n|---|{'---|' * len(FIGURES)}---|")
    lines = []
    for name, found in table.items():
        line = {"row": name, "seeds": len(found)}
        for key in FIGURES:
            values = [f[key] for f in found if f[key] is not None]
            spread = statistics.stdev(values) if len(values) > 1 else None
            line[key] = {"mean": statistics.mean(values) if values else None, "sd": spread}
        lines.append(line)
        print(f"| {name} | {' | '.join(shown(key, line[key]) for key in FIGURES)} | {len(found)} |")
    if a.json:
        print(json.dumps({"lines": lines, "runs": table}))
    sys.exit(0 if lines else 1)


def shown(key, figure):
    """Correlations as they are, shares in percent; ± the standard deviation between seeds."""
    if figure["mean"] is None:
        return "-"
    scale, digits = (1, 3) if key in ("ws353", "simlex") else (100, 1)
    spread = "" if figure["sd"] is None else f" ± {scale * figure['sd']:.{digits}f}"
    return f"{scale * figure['mean']:.{digits}f}{spread}"


if __name__ == "__main__":
    main()
