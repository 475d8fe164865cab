#!/usr/bin/env python3
"""Finds figures that stand in more than one place: in README.md, a page of docs/src, a recipe of configs/.

    docs/figures.py            fails and lists them; --all lists every figure with its place

The rule. A figure is a number with a unit: %, points, ns, µs, ms, s, minutes, hours, kB, MB, GB, images/s, words/s (and M words/s, "million
words/s"), GFLOP/s, and "× as fast". A list shares the unit of its end ("56.0, 57.1 and 57.2 %", "615–1022 s", "33.6 ± .5 %"), and a table
cell the unit of its column's head, or of the sentence before the table that ends in ", %:". Two figures are the same if number and unit
are; .5 is 0.5, and 56.0 is not 56.

Not figures, because they are settings or conventions, and not results:
- what stands in code: fenced blocks, `…` in backticks, and in recipes everything that is not a comment;
- amounts of labels and of data, and intervals: exactly 0, 1, 2, 5, 10, 50, 95 and 100 %, and 100.0 %, which is all;
- round spans in words ("half an hour", "ten minutes"), since they have no digits;
- times of one digit without a decimal point ("5 s"), which meet by chance;
- what SAME lists, each with its reason.

A page that shows a recipe or a part of README by {{#include}} does not repeat it: the text stands once.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# Figures that are equal by chance, and mean different things.
SAME = {
    ("1.75", "times as fast"): "SimCLR in bf16 beside lightly (README.md); a step of ResNet-20 in f32 beside PyTorch (speed.md)",
    ("0.3", "%"): "a deviation of top-1 with 10 % of the labels (few-labels-measured.md); chance of analogies (generated.toml)",
}

CONVENTIONS = {"0", "1", "2", "5", "10", "50", "95", "100", "100.0"}
NUMBER = r"\d{1,3}(?:,\d{3})+(?!\d)|\d*\.\d+|\d+"
UNIT = (
    r"%|points?\b|ns\b|µs\b|ms\b|s\b|min\b|minutes?\b|hours?\b|kB\b|MB\b|GB\b|images/s|GFLOP/s|times as fast"
    r"|(?:M |million )?words/s|(?:M |million )(?=words a second)"
)
# What may stand between the numbers of a list that shares a unit.
BETWEEN = r"(?:\s*(?:,|;|–|-|±|/)\s*|\s+(?:to|and|or|against|in place of)\s+|,?\s+and\s+|\s*\((?=[^)]*\)))"
LIST = re.compile(rf"((?:{NUMBER})(?:{BETWEEN}-?(?:{NUMBER})\)?)*)\s*({UNIT})")


def plain(text):
    """The text without code and links' addresses."""
    text = re.sub(r"(?ms)^```.*?^```$", lambda m: "\n" * m[0].count("\n"), text)
    text = re.sub(r"(?s)<!--.*?-->", lambda m: "\n" * m[0].count("\n"), text)
    text = re.sub(r"`[^`\n]*`", "` `", text)
    return re.sub(r"\]\([^)\n]*\)", "]", text)


def comments(text):
    return re.sub(r"`[^`\n]*`", "` `", "\n".join(line[1:] if line.startswith("#") else "" for line in text.splitlines()))


def normal(number, unit):
    number = number.replace(",", "")
    number = "0" + number if number.startswith(".") else number
    unit = unit.strip().replace("million words", "M words")
    return number, {"point": "points", "minute": "minutes", "min": "minutes", "hour": "hours"}.get(unit, unit)


def counts(number, unit):
    if unit in ("%", "points") and number in CONVENTIONS:
        return False
    return not (unit in ("s", "minutes", "hours", "GB") and re.fullmatch(r"\d", number))


def figures(text):
    """Numbers with their units, and the line each is on."""
    found = []
    for match in LIST.finditer(text):
        for number in re.finditer(NUMBER, match[1]):
            line = text.count("\n", 0, match.start(1) + number.start()) + 1
            found.append((*normal(number[0], match[2]), line))
    return found + cells(text)


def cells(text):
    """Numbers of tables whose unit is in the column's head, or in the sentence before the table."""
    found, lines = [], text.splitlines()
    heads, shared = [], None
    for at, line in enumerate(lines):
        if not line.startswith("|"):
            heads = []
            if line.strip():
                said = re.search(rf", ({UNIT}):$", line.strip())
                shared = said[1] if said else None
            continue
        row = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not heads:
            heads = [(re.search(rf"(?:^|, )({UNIT})$", cell) or [None, None])[1] for cell in row]
            continue
        for head, cell in zip(heads, row):
            unit = head or shared
            if unit and re.match(rf"-?(?:{NUMBER})", cell) and not re.search(UNIT, cell):
                decimal = [number for number in re.findall(NUMBER, cell) if "." in number]
                found += [(*normal(number, unit), at + 1) for number in decimal]
    return found


def main():
    places = {}
    files = [ROOT / "README.md", *sorted((ROOT / "docs/src").rglob("*.md")), *sorted((ROOT / "configs").rglob("*.toml"))]
    for file in files:
        if file.name.startswith("keys-"):
            continue
        text = file.read_text()
        text = comments(text) if file.suffix == ".toml" else plain(text)
        for number, unit, line in figures(text):
            if counts(number, unit):
                places.setdefault((number, unit), []).append((file, line))
    if "--all" in sys.argv:
        for (number, unit), where in sorted(places.items()):
            print(f"{number} {unit}: " + ", ".join(f"{file.relative_to(ROOT)}:{line}" for file, line in where))
    twice = {figure: where for figure, where in places.items() if len({file for file, _ in where}) > 1 and figure not in SAME}
    for (number, unit), where in sorted(twice.items(), key=lambda item: item[1]):
        print(f"{number} {unit} stands in " + ", ".join(f"{file.relative_to(ROOT)}:{line}" for file, line in where))
    stale = [figure for figure in SAME if len({file for file, _ in places.get(figure, [])}) < 2]
    for number, unit in stale:
        print(f"{number} {unit} is in SAME, and stands in one place only")
    if twice or stale:
        sys.exit(f"{len(twice)} figures stand in more than one place: leave each where it was measured, and link to it")
    print(f"{len(places)} figures, each in one place")


if __name__ == "__main__":
    main()
