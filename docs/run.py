#!/usr/bin/env python3
"""Runs the commands of README.md and of the book, and checks the output that they quote and the links between pages.

    docs/run.py CTK [PAGE …]      CTK is the built program; PAGE (such as words.md) runs these pages alone

Pages are read in the order of docs/src/SUMMARY.md, README.md last; all commands run in one temporary folder. What is run is every block
that begins with ```console, every block that begins with ```python and has a comment `python` (below), and no other:

    $ ctk eval knn runs/photos          a command begins with "$ "; one that goes on in the next line ends in a backslash
    kNN …                               lines behind it are its stdout, and are compared: "…" stands for any characters, a line that
    …                                   is "…" for any lines. Where no line follows, the command must succeed, and that is all

Comments are for the next block of one of these two, and say what a reader need not see:

    <!-- run: setup SHELL -->           run SHELL first, all its lines as one (it may use `fixtures`, below)
    <!-- run: skip: REASON -->          do not run the block (it needs the network, hours, other programs)
    <!-- run: with VERB: FLAGS -->      append FLAGS to each `ctk VERB …` of the block, in place of what SMALL has for it
    <!-- run: as OLD: NEW -->           replace OLD by NEW in the block's commands
    <!-- run: exit N -->                the block's commands end with this exit code
    <!-- run: python MODULE … -->       run the block of Python, if these modules are there (CTK_PYTHON: the interpreter, default this)

`fixtures` is this file itself: `fixtures images DIR CLASS … COUNT [SIZE]` writes COUNT small pictures a class (without a class: `-`),
`fixtures captioned DIR COUNT` pictures with a table of captions,
`fixtures text FILE LINES` a text of simple sentences, `fixtures pairs FILE LINES` questions with answers, `fixtures labelled FILE LINES` texts
of two classes. Sizes are for real data; SMALL has flags that make commands short.

The program must be of this tree: the book is true of that one alone.
"""

import gzip
import math
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
SRC = DOCS / "src"

# Flags that make a verb short, where its block says nothing else. The first that fits is taken.
SMALL = [
    ("train vision --resume", ""),
    ("train vision", "--set train.max_steps=2"),
    ("train word2vec", "--set train.epochs=1"),
    ("train sentences", "--set train.batch=32 --set tokenizer.train.size=400"),
    ("train image-text", "--set train.max_steps=4 --set train.batch=16 --set text.tokenizer.train.size=300"),
    ("finetune", "--rates 0.02 --epochs 1 --folds 2"),
    ("distill", "--set train.epochs=1"),
    ("eval label-efficiency", "--seeds 1 --rates 0.02 --epochs 1 --folds 2 --distill-epochs 1"),
    ("bench vision", "--steps 1"),
    ("bench word2vec", "--steps 2"),
    ("bench sentences", "--steps 1 --batch 8 --set encoder.transformer.layers=2"),
]
GENERATED = [SRC / "keys-vision.md", SRC / "keys-word2vec.md", SRC / "keys-sentences.md", SRC / "keys-image-text.md"]  # docs/build.sh writes them
LIMIT = 300  # seconds that a command may take


class Wrong(Exception):
    """A difference, a failure or a dead link, with its place."""


# --- what pages hold -------------------------------------------------------------------------------------------------------------


def pages():
    """README and the pages of the book, in the order in which they are read."""
    named = re.findall(r"\]\(([^)]+\.md)\)", (SRC / "SUMMARY.md").read_text())
    return [SRC / name for name in named if SRC / name not in GENERATED] + [ROOT / "README.md"]


class Block:
    """A fenced block: its language, its lines with their numbers, and what the comments before it say."""

    def __init__(self, page, line, language, comments):
        self.page, self.line, self.language, self.comments, self.lines = page, line, language, comments, []

    def said(self, word):
        """What comments with this word say behind it."""
        return [text[len(word):].strip().lstrip(":").strip() for text in self.comments if text.split(":")[0].split()[0] == word]


def blocks(page):
    found, comments, block, comment = [], [], None, None
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if block is not None:
            if line.startswith("```"):
                found.append(block)
                block = None
            else:
                block.lines.append((number, line))
        elif comment is not None:
            comment.append(line)
        elif line.startswith("```"):
            block = Block(page, number, line[3:].strip(), comments)
            comments = [] if block.language in ("console", "python") else comments
        elif line.startswith("<!-- run:"):
            comment = [line[len("<!-- run:"):]]
        if comment is not None and comment[-1].rstrip().endswith("-->"):
            comments.append("\n".join(comment).rstrip()[:-3].strip())
            comment = None
    if block is not None or comment is not None or comments:
        raise Wrong(f"{page.relative_to(ROOT)}: a block or a comment is not closed, or a comment has no block")
    return found


def commands(block):
    """Pairs of a command (its line and text) and the output that is quoted."""
    found, open_ = [], False
    for number, line in block.lines:
        if open_:
            found[-1][1] += "\n" + line
        elif line.startswith("$ "):
            found.append([number, line[2:], []])
        elif found:
            found[-1][2].append(line.rstrip())
        elif line.strip():
            raise Wrong(f"{block.page.relative_to(ROOT)}:{number}: output without a command")
        open_ = (open_ or line.startswith("$ ")) and line.endswith("\\")
    for command in found:
        while command[2] and not command[2][-1]:
            command[2].pop()
    return found


# --- running ---------------------------------------------------------------------------------------------------------------------


def segments(line):
    """Cuts a line of shell into commands and what stands between: pipes, `&&`, redirections, comments."""
    parts, start, quote, at = [], 0, None, 0
    while at < len(line):
        c = line[at]
        if quote:
            quote = None if c == quote else quote
        elif c in "'\"":
            quote = c
        elif c in "|;&":
            parts += [line[start:at], c]
            start = at + 1
        elif c == ">" or (c == "#" and line[at - 1] == " "):
            begin = at - 1 if c == ">" and line[at - 1] in "12" else at
            end = len(line)
            for stop in range(at + 1, len(line)):
                if c == ">" and line[stop] in "|;" or line[stop] == "&" and line[stop - 1] == " ":
                    end = stop
                    break
            parts += [line[start:begin], line[begin:end]]
            start = at = end
            continue
        at += 1
    return parts + [line[start:]]


def shortened(line, block):
    for said in block.said("as"):
        old, new = said.split(":", 1)
        line = line.replace(old.strip(), new.strip())
    line = line.replace("cargo run --release -- ", "ctk ")
    own = [said.split(":", 1) for said in block.said("with")]
    rules = [(verb.strip(), flags.strip()) for verb, flags in own] + SMALL
    parts = segments(line)
    for at, part in enumerate(parts):
        words = part.replace("\\\n", " ").split()
        if words[:1] != ["ctk"]:
            continue
        for verb, flags in rules:
            if verb.split()[0] == words[1] and all(word in words for word in verb.split()):
                parts[at] = f"{part.rstrip()} {flags} "
                break
    return "".join(parts)


def matches(expected, printed):
    """Whether lines are as quoted."""
    if not expected:
        return not printed
    if expected[0].strip() == "…":
        return any(matches(expected[1:], printed[at:]) for at in range(len(printed) + 1))
    if not printed:
        return False
    pattern = ".*".join(re.escape(part) for part in re.sub(r"\s+", " ", expected[0]).split("…"))
    return re.fullmatch(pattern, re.sub(r"\s+", " ", printed[0])) is not None and matches(expected[1:], printed[1:])


def bash(text, folder, environment):
    begun = time.monotonic()
    try:
        done = subprocess.run(["bash", "-o", "pipefail", "-c", text], cwd=folder, env=environment, capture_output=True, text=True,
                              timeout=LIMIT)
    except subprocess.TimeoutExpired:
        raise Wrong(f"not done in {LIMIT} s: {text}") from None
    return done, time.monotonic() - begun


class Runner:
    def __init__(self, ctk, folder):
        self.folder, self.ran, self.skipped, self.compared, self.slow = folder, 0, [], 0, []
        tools = folder / ".tools"
        tools.mkdir()
        # One thread: results do not depend on it, and on a busy machine small work on two is slower than on one.
        (tools / "ctk").write_text(f"#!/bin/sh\nexec '{ctk}' --threads 1 \"$@\"\n")
        (tools / "ctk").chmod(0o755)
        fixtures = tools / "fixtures"
        fixtures.write_text(f"#!/bin/sh\nexec '{sys.executable}' '{Path(__file__).resolve()}' --fixtures \"$@\"\n")
        fixtures.chmod(0o755)
        for name in ["configs", "tests", "benches", "Cargo.toml"]:
            (folder / name).symlink_to(ROOT / name)
        self.environment = dict(os.environ, PATH=f"{tools}:{os.environ['PATH']}", CTK_CACHE=str(tools / "cache"), NO_COLOR="1")
        self.environment.pop("CTK_DATA", None)

    def block(self, block):
        place = f"{block.page.relative_to(ROOT)}:{block.line}"
        if block.language not in ("console", "python") or block.language == "python" and not block.said("python"):
            return
        found = commands(block) if block.language == "console" else [(block.line, "(Python)", [])]
        for reason in block.said("skip"):
            if not reason:
                raise Wrong(f"{place}: a block that is not run says why")
            self.skipped += [(place, reason)] * len(found)
            return
        for text in block.said("setup"):
            done, _ = bash("set -e; " + " ".join(line.rstrip("\\") for line in text.splitlines()), self.folder, self.environment)
            if done.returncode:
                raise Wrong(f"{place}: the block's setup fails:\n{done.stderr[-2000:]}")
        if block.language == "python":
            return self.python(block, place)
        code = int((block.said("exit") or ["0"])[0])
        for number, text, expected in found:
            place = f"{block.page.relative_to(ROOT)}:{number}"
            line = shortened(text, block)
            done, took = bash(line, self.folder, self.environment)
            self.ran += 1
            self.slow.append((took, place, line))
            if done.returncode != code:
                raise Wrong(f"{place}: exit code {done.returncode}, not {code}:\n$ {line}\n{done.stdout[-1000:]}{done.stderr[-3000:]}")
            if expected:
                self.compared += 1
                printed = [line.rstrip() for line in done.stdout.rstrip().splitlines()]
                if not matches(expected, printed):
                    quoted = "\n".join(expected)
                    raise Wrong(f"{place}: prints otherwise than is quoted:\n$ {line}\n{done.stdout}\n--- quoted:\n{quoted}")

    def python(self, block, place):
        python = os.environ.get("CTK_PYTHON", sys.executable)
        modules = " ".join(block.said("python")).split()
        for module in modules:
            if subprocess.run([python, "-c", f"import {module}"], capture_output=True).returncode:
                self.skipped.append((place, f"{module} is not installed"))
                return
        text = "\n".join(line for _, line in block.lines)
        done = subprocess.run([python, "-c", text], cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=LIMIT)
        self.ran += 1
        if done.returncode:
            raise Wrong(f"{place}: the block of Python fails:\n{done.stderr[-3000:]}")


# --- links -----------------------------------------------------------------------------------------------------------------------


def included(page, target):
    """What `{{#include …}}` brings: a file, its lines from:to, or what stands between its marks `ANCHOR: name`."""
    path, *part = target.strip().split(":")
    file = page.parent / path
    if not file.exists():
        raise Wrong(f"{page.relative_to(ROOT)}: includes {target}, which is not there")
    text = file.read_text()
    if part and not part[0].isdigit() and part[0]:
        found = re.search(rf"(?ms)^[^\n]*ANCHOR: {re.escape(part[0])}\b[^\n]*\n(.*?)(?:^[^\n]*ANCHOR_END: {re.escape(part[0])}\b|\Z)", text)
        if not found:
            raise Wrong(f"{page.relative_to(ROOT)}: includes {target}, which has no such mark")
        return found[1]
    return text if path.endswith(".md") else ""


def prose(page):
    """A page without its blocks of code, and with what it includes."""
    text = re.sub(r"\{\{#include ([^}]+)\}\}", lambda m: included(page, m[1]), page.read_text())
    return re.sub(r"(?ms)^```.*?^```$", "", text)


def anchors(page):
    """The anchors of a page's headings, as mdBook and GitHub make them."""
    found = set()
    for heading in re.findall(r"(?m)^#+ +(.*)$", prose(page)):
        heading = re.sub(r"[`*]|\[([^]]*)\]\([^)]*\)", r"\1", heading)
        name = re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
        while name in found:
            name += "-1"
        found.add(name)
    return found


def links():
    """Checks that links lead somewhere; returns their number."""
    count, listed = 0, pages()
    for page in SRC.rglob("*.md"):
        if page not in listed and page not in GENERATED and page.name != "SUMMARY.md":
            raise Wrong(f"{page.relative_to(ROOT)}: SUMMARY.md does not name it")
    others = [ROOT / name for name in ["CONTRIBUTING.md", "ARCHITECTURE.md", "SECURITY.md"]]
    for page in [SRC / "SUMMARY.md", *listed, *others]:
        text = re.sub(r"`[^`\n]*`", "", prose(page))
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if re.match(r"https?:", target):
                continue
            count += 1
            path, _, anchor = target.partition("#")
            file = (page.parent / path).resolve() if path else page
            if file in GENERATED:
                continue
            if not file.exists():
                raise Wrong(f"{page.relative_to(ROOT)}: a link to {target}, which is not there")
            whole = SRC if SRC in page.parents else ROOT
            if whole not in file.parents:
                raise Wrong(f"{page.relative_to(ROOT)}: a link out of {whole.name}, {target}, which the built page cannot follow")
            if anchor and file.suffix == ".md" and anchor not in anchors(file):
                raise Wrong(f"{page.relative_to(ROOT)}: a link to {target}, which has no such heading")
        count += page.read_text().count("{{#include ")
    return count


# --- fixtures --------------------------------------------------------------------------------------------------------------------


def picture(path, kind, index, size):
    """A small PNG: a disc on a slope of colour; its hue and place depend on the class and the number."""
    def colour(turn):
        return [int(127 + 120 * math.sin(2 * math.pi * (turn + third / 3))) for third in range(3)]

    turn = kind * 0.29 + 0.05 * math.sin(index)
    disc, ground = colour(turn), colour(turn + 0.4 + 0.01 * index)
    x0, y0 = size * (0.5 + 0.2 * math.sin(index * 1.7)), size * (0.5 + 0.2 * math.cos(index * 2.3))
    radius = size * (0.2 + 0.1 * math.sin(index * 0.9))
    rows = bytearray()
    for y in range(size):
        rows.append(0)
        for x in range(size):
            inside = (x - x0) ** 2 + (y - y0) ** 2 < radius ** 2
            shade = 0.6 + 0.4 * (x + y) / (2 * size)
            rows += bytes(int(value * (1 if inside else shade)) for value in (disc if inside else ground))

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(rows))) + chunk(b"IEND", b""))


def fixtures(arguments):
    kind, target, *rest = arguments
    if kind == "images":
        numbers = [int(word) for word in rest if word.isdigit()]
        classes = [word for word in rest if not word.isdigit()]
        count, size = numbers[0], numbers[1] if len(numbers) > 1 else 32
        for at, name in enumerate(classes):
            for index in range(count):
                folder = Path(target) if name == "-" else Path(target) / name
                picture(folder / f"{index:04}.png", at, index + 100 * at + len(target), size)
    elif kind == "captioned":
        lines = ["file_name,caption"]
        for index in range(int(rest[0])):
            picture(Path(target) / f"{index:04}.png", index % 5, index, 32)
            lines += [f"{index:04}.png,picture {index} of kind {index % 5}", f"{index:04}.png,\"number {index}, as drawn\""]
        (Path(target) / "metadata.csv").write_text("\n".join(lines) + "\n")
    elif kind == "image":
        picture(Path(target), 1, 7, 32)
    elif kind == "text":
        text = "\n".join(sentence(number) for number in range(int(rest[0]))) + "\n"
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        Path(target).write_bytes(gzip.compress(text.encode()) if target.endswith(".gz") else text.encode())
    elif kind == "labelled":
        words = {"good": ["fine", "lovely", "clever", "warm"], "bad": ["dull", "awful", "clumsy", "boring"]}
        texts = (f"{label}\ta {words[label][number // 2 % 4]} one: {sentence(number)}" for number in range(int(rest[0])) for label in [["good", "bad"][number % 2]])
        Path(target).write_text("label\ttext\n" + "\n".join(texts) + "\n")
    elif kind == "pairs":
        pairs = (f"who {sentence(number).split(' ', 2)[-1]} {number}?\t{number}: {sentence(number)}" for number in range(int(rest[0])))
        Path(target).write_text("question\tanswer\n" + "\n".join(pairs) + "\n")
    else:
        sys.exit(f"no fixture {kind}")


def sentence(number):
    """A sentence of few words, the same for the same number."""
    state = zlib.crc32(str(number).encode())
    words = {
        "who": ["the king", "the queen", "a man", "a woman", "the cat", "a dog", "the prince", "the girl"],
        "does": ["sees", "likes", "finds", "eats", "wants", "hears"],
        "what": ["breakfast", "lunch", "dinner", "cereal", "paris in france", "rome in italy", "a good film", "a bad film", "new york"],
    }
    said = []
    for part in words.values():
        state = (state * 1103515245 + 12345) % 2**31
        said.append(part[state // 65536 % len(part)])
    return " ".join(said)


def main():
    if sys.argv[1:2] == ["--fixtures"]:
        return fixtures(sys.argv[2:])
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    ctk = shutil.which(sys.argv[1]) or sys.exit(f"no program {sys.argv[1]}")
    begun = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="ctk-docs-"))
    runner = Runner(Path(ctk).resolve(), folder)
    try:
        checked = links()
        for page in pages():
            if len(sys.argv) == 2 or page.name in sys.argv[2:] or str(page.relative_to(SRC) if SRC in page.parents else page) in sys.argv[2:]:
                for block in blocks(page):
                    runner.block(block)
    except Wrong as wrong:
        sys.exit(f"{wrong}\n(the folder stays: {folder})")
    shutil.rmtree(folder)
    reasons = {}
    for _, reason in runner.skipped:
        reasons[reason] = reasons.get(reason, 0) + 1
    for reason, count in sorted(reasons.items(), key=lambda item: -item[1]):
        print(f"not run, {count}: {reason}")
    if os.environ.get("CTK_DOCS_SLOW"):
        for took, place, line in sorted(runner.slow, reverse=True)[:10]:
            print(f"{took:6.1f} s  {place}  {line}")
    print(f"{runner.ran} commands run, {len(runner.skipped)} not run, {runner.compared} outputs compared, {checked} links checked, "
          f"in {time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    main()
