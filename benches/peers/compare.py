"""ctk against PyTorch, lightly and gensim: the same work in turn, a fresh process each, and the tables of ratios of docs/src/speed.md.

    python3 -m venv venv && venv/bin/pip install -r requirements.txt
    cargo build --release
    venv/bin/python compare.py ../../target/release/ctk --data DATA/vision/cifar10
    venv/bin/python compare.py ../../target/release/ctk --rows resnet20 augment --data DATA/vision/cifar10 --pairs 2
    venv/bin/python compare.py ../../target/release/ctk --rows words --text news.txt

Rows that are among --rows, or whose names begin with one of these, are run; `--list` names them all. A ratio is how many times
faster, or smaller, ctk is: the median of the pairs', with the smallest and the largest. The folder --data holds one folder of
images a class, or `train/` with those below it. Its images are decoded before the clock starts on both sides. --text is a plain
text, one document on each line, lower case, of some million words. Run it on a machine that does nothing else. With --log each finished
run is kept in a file, and what is there is not run again. The table is on stdout, followed with --json by one line of everything
measured.
"""

import argparse
import json
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile

from finished import Finished, digest

HERE = pathlib.Path(__file__).parent

# Network for ctk (encoder, width, stem) and its name here; size; batch.
STEPS = {
    "resnet18": (("resnet18", 1, "small"), 32, 128),
    "resnet20": (("resnet20", 1, "small"), 32, 256),
    "resnet50": (("resnet50", 1, "imagenet"), 64, 32),
}
# Width of a ResNet-18; batch; steps by the clock.
WHOLE = {"resnet18": (1.0, 256, 6), "resnet18-quarter": (0.25, 256, 20)}

RECIPE = """[pairs]
size = {size}
[encoder.resnet]
depth = 18
width = {width}
stem = "small"
[head]
layers = 3
width = 128
[loss.nt-xent]
temperature = 0.5
[optimizer.sgd]
rate = 0.01
[schedule]
warmup = 0
scaling = "none"
[train]
batch = {batch}
precision = "{precision}"
max_steps = {steps}
log_every = 1
save_every = 1000000
"""
SIZE, WARM = 32, 2

# What it is, values a word, what each program needs to be told, and threads, unless they are as many as --threads says.
WORDS = {
    "skip-gram-100": ("skip-gram", 100, [], [], None),
    "skip-gram-300": ("skip-gram", 300, [], [], None),
    "fast-100": ("skip-gram with --fast", 100, ["pairs.negatives=grouped"], [], None),
    "cbow-100": ("cbow", 100, ["pairs.architecture=cbow"], ["--cbow"], None),
    "deterministic-100": ("skip-gram, deterministic", 100, ["train.deterministic=true"], [], None),
    "one-thread-100": ("skip-gram, one thread", 100, [], [], 1),
    "per-pair-100": ("skip-gram, negatives for each pair", 100, ["pairs.negatives=per-pair"], [], None),
}


class Failed(Exception):
    """A program that ended badly, with what it said."""


def call(*command, json_line=True):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise Failed(f"{pathlib.Path(command[0]).name}: {said[0] if 'error' in said[0] else said[-1]}" if said else "no word")
    return json.loads(done.stdout.splitlines()[-1]) if json_line else None


class Bench:
    def __init__(self, a):
        self.a = a
        self.best = {}  # workers by network and precision, once they are known

    def peer(self, work, *flags):
        return call(sys.executable, HERE / "peer.py", work, "--threads", self.a.threads, *flags)

    def ctk(self, *flags, threads=None):
        return call(self.a.ctk, *flags, "--threads", threads or self.a.threads, "--quiet", "--json")

    def folder(self):
        if self.a.data is None:
            raise Failed("needs --data")
        below = pathlib.Path(self.a.data) / "train"
        return below if below.is_dir() else pathlib.Path(self.a.data)

    def step(self, name, precision):
        (encoder, width, stem), size, batch = STEPS[name]
        shape = ["--size", size, "--batch", batch, "--steps", self.a.steps]
        bf16 = ["--bf16"] if precision == "bf16" else []
        ctk = lambda: self.ctk(
            "bench", "vision", "--encoder", encoder, "--width", width, "--stem", stem, "--precision", precision, *shape
        )
        return ctk, lambda: self.peer("step", "--network", name, *shape, *bf16)

    def whole(self, name, precision):
        width, batch, steps = WHOLE[name]
        shape = ["--network", name, "--size", SIZE, "--batch", batch, "--steps", steps]
        bf16 = ["--bf16"] if precision == "bf16" else []

        def ctk():
            with tempfile.TemporaryDirectory() as there:
                recipe, run = pathlib.Path(there) / "recipe.toml", pathlib.Path(there) / "run"
                text = RECIPE.format(size=SIZE, width=width, batch=batch, steps=WARM + steps, precision=precision)
                recipe.write_text(text)
                self.ctk("train", "vision", "--config", recipe, "--data", self.folder(), "--out", run)
                lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
            seconds = sum(batch / line["samples_per_second"] for line in lines if "loss" in line and line["step"] > WARM)
            return {"images_per_second": steps * batch / seconds}

        def peer():
            run = lambda workers: self.peer("simclr", *shape, "--data", self.folder(), "--workers", workers, *bf16)
            row = name, precision
            if row in self.best:
                return run(self.best[row])
            tried = {workers: run(workers) for workers in (0, 1, 2)}
            self.best[row] = max(tried, key=lambda workers: tried[workers]["images_per_second"])
            return {"workers": self.best[row], **tried[self.best[row]]}

        return ctk, peer

    def augment(self):
        def ctk():
            flags = ["--encoder", "resnet20", "--width", 0.25, "--size", SIZE, "--batch", 256, "--data", self.folder()]
            timed = self.ctk("bench", "vision", *flags)
            return {"view_us": timed["simclr_step_ms"]["augment"] * 1e3 / (2 * timed["batch"])}

        return ctk, lambda: self.peer("augment", "--size", SIZE, "--batch", 256, "--data", self.folder())

    def words(self, name):
        _, width, changed, flags, threads = WORDS[name]

        def text():
            if self.a.text is None:
                raise Failed("needs --text")
            return self.a.text

        def ctk():
            changes = [
                f"encoder.table.width={width}", "pairs.window=5", "pairs.subsample=1e-4", "loss.negative-sampling.negatives=5",
                "vocabulary.min_count=5", "optimizer.sgd.rate=0.025", f"train.epochs={self.a.epochs}", *changed,
            ]
            sets = [part for change in changes for part in ("--set", change)]
            with tempfile.TemporaryDirectory() as there:
                run = pathlib.Path(there) / "run"
                return self.ctk("train", "word2vec", "--data", text(), "--out", run, *sets, threads=threads)

        def peer():
            shape = ["--width", width, "--epochs", self.a.epochs, "--threads", threads or self.a.threads]
            return call(sys.executable, HERE / "words.py", text(), *shape, *flags)

        return ctk, peer

    def rows(self):
        """Name, what it is, the two programs, and what is compared: figure, unit, whether more is better."""
        speed, memory = ("step_ms", "ms", False), ("peak_rss_mb", "MB", False)
        for precision in ("f32", "bf16"):
            for name, ((encoder, _, stem), size, batch) in STEPS.items():
                what = f"{encoder}, {stem} stem, {size} px, batch {batch}, {precision}"
                yield f"{name}-{precision}", what, self.step(name, precision), [speed, memory]
        for precision in ("f32", "bf16"):
            for name, (width, batch, _) in WHOLE.items():
                what = f"SimCLR with its data, resnet18 of width {width:g}, {SIZE} px, batch {batch}, {precision}"
                yield f"simclr-{precision}-{name}", what, self.whole(name, precision), [("images_per_second", "images/s", True)]
        for name, (kind, width, *_) in WORDS.items():
            what = f"word2vec, {kind}, {width} values"
            yield f"words-{name}", what, self.words(name), [("words_per_second", "words/s", True), ("total_seconds", "s", False)]
        yield "augment", f"one view, {SIZE} px, one thread", self.augment(), [("view_us", "µs", False)]


def figure(result, key):
    value = result[key]
    return value["median"] if isinstance(value, dict) else value


def compare(row, pairs, finished, setting):
    """The row's programs in turn, and a line of the table for each of its figures."""
    name, what, (ctk, peer), figures = row
    results = []
    for pair in range(pairs):
        print(f"{name}: pair {pair + 1} of {pairs}", file=sys.stderr, flush=True)
        # Who is first changes, so that a machine that slows down slows both.
        sides = [("ctk", ctk), ("peer", peer)]
        if pair % 2 == 1:
            sides.reverse()
        found = {side: finished.once({"row": name, "pair": pair, "side": side, **setting[side]}, work) for side, work in sides}
        results.append((found["ctk"], found["peer"]))
    lines = []
    for key, unit, more in figures:
        ours, theirs = ([figure(side, key) for side in sides] for sides in zip(*results))
        ratios = [(o / t if more else t / o) for o, t in zip(ours, theirs)]
        lines.append({
            "row": name, "what": what, "figure": key, "unit": unit, "ctk": statistics.median(ours),
            "peer": statistics.median(theirs), "ratio": statistics.median(ratios), "least": min(ratios), "most": max(ratios),
            "pairs": pairs,
        })
    return lines, results


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ctk", help="the program")
    parser.add_argument("--data", help="a folder of images; without it the rows that need one are left out")
    parser.add_argument("--text", help="a text; without it the rows of words are left out")
    parser.add_argument("--rows", nargs="+", default=[""], metavar="NAME", help="names of rows, or their beginnings")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5, help="steps by the clock in a process")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=1, help="of words")
    parser.add_argument("--log", help="a file for finished runs, which are not run again")
    parser.add_argument("--list", action="store_true", help="name the rows")
    parser.add_argument("--json", action="store_true")
    a = parser.parse_args()
    rows = list(Bench(a).rows())
    names = [row[0] for row in rows]
    rows = [row for row in rows if any(row[0] == name or name not in names and row[0].startswith(name) for name in a.rows)]
    if a.list:
        print("\n".join(row[0] for row in rows))
        return
    if shutil.which(a.ctk) is None:
        parser.error(f"{a.ctk} is not a program: give the path of ctk")
    if a.data is not None and not pathlib.Path(a.data).is_dir():
        parser.error(f"{a.data} is not a folder")
    if a.text is not None and not pathlib.Path(a.text).is_file():
        parser.error(f"{a.text} is not a file")
    if not rows:
        parser.error(f"no row begins with {' or '.join(a.rows)}; --list names them")
    lines, raw, finished = [], {}, Finished(a.log)
    shared = {key: getattr(a, key) for key in ("data", "text", "steps", "threads", "epochs")}
    setting = {"ctk": {"program": digest(shutil.which(a.ctk)), **shared}, "peer": shared}
    for row in rows:
        try:
            added, raw[row[0]] = compare(row, a.pairs, finished, setting)
            lines += added
        except Failed as why:
            print(f"{row[0]}: left out: {why}", file=sys.stderr)
    print("| work | ctk | peer | ratio, median (least to most) |\n|---|---|---|---|")
    for line in lines:
        digits = 2 if line["unit"] == "s" else 0
        figures = " | ".join(f"{line[side]:.{digits}f} {line['unit']}" for side in ("ctk", "peer"))
        memory = {"MB": ", memory", "s": ", from text to vectors"}.get(line["unit"], "")
        print(f"| {line['what']}{memory} | {figures} | {line['ratio']:.2f} ({line['least']:.2f} to {line['most']:.2f}) |")
    if a.json:
        print(json.dumps({"lines": lines, "runs": raw}))
    sys.exit(0 if lines else 1)


if __name__ == "__main__":
    main()
