"""Vectors of words as ``ctk export`` writes them."""

import os
from dataclasses import dataclass
from typing import Any, List, Union

import numpy as np

from ._safetensors import read_safetensors


@dataclass
class Vectors:
    """A row a word, in the file's order: by frequency."""

    words: List[str]
    rows: "np.ndarray[Any, Any]"
    """(words, width), float32."""

    def __post_init__(self) -> None:
        self._place = {word: at for at, word in enumerate(self.words)}

    def __len__(self) -> int:
        return len(self.words)

    def __contains__(self, word: str) -> bool:
        return word in self._place

    def __getitem__(self, word: str) -> "np.ndarray[Any, Any]":
        """The vector of a word. Raises KeyError where there is none."""
        return self.rows[self._place[word]]


def read_vectors(path: Union[str, "os.PathLike[str]"]) -> Vectors:
    """Reads ``safetensors`` (with its words in the ``.tsv`` beside it), ``word2vec-text``, ``word2vec-binary`` and ``glove``.

    A file that ends in ``.bin`` is word2vec-binary. Rows of n-grams' buckets, which a run with subwords has behind its words', are left
    out. Raises ValueError where the file is damaged.
    """
    path = os.fspath(path)
    ending = os.path.splitext(path)[1].lower()
    if ending == ".safetensors":
        with open(os.path.splitext(path)[0] + ".tsv", encoding="utf-8", newline="") as file:
            words = [_word(line) for line in file.read().split("\n") if line]
        rows = read_safetensors(path)["input"]
        if len(words) > len(rows):
            raise ValueError(f"{path}: {len(words)} words for {len(rows)} rows")
        return Vectors(words, rows[: len(words)])
    return _binary(path) if ending == ".bin" else _text(path)


def _word(line: str) -> str:
    """A line of a vocabulary is a word, or a word, a tab and its count."""
    word, tab, count = line.rpartition("\t")
    return word if tab and count.isdigit() else line


def _binary(path: str) -> Vectors:
    with open(path, "rb") as file:
        content = file.read()
    end = content.index(b"\n")
    count, width = (int(number) for number in content[:end].split())
    words: List[str] = []
    rows = np.empty((count, width), dtype=np.float32)
    at = end + 1
    for row in range(count):
        space = content.find(b" ", at)
        if space < 0 or space + 1 + 4 * width > len(content):
            raise ValueError(f"{path}: cut short at word {row + 1} of {count}")
        words.append(content[at:space].lstrip(b"\n").decode("utf-8", "surrogateescape"))
        at = space + 1 + 4 * width
        rows[row] = np.frombuffer(content[space + 1 : at], "<f4")
        at += content[at : at + 1] == b"\n"
    return Vectors(words, rows)


def _text(path: str) -> Vectors:
    words: List[str] = []
    values: List[Any] = []
    with open(path, encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        for number, line in enumerate(file):
            cells = line.rstrip("\n").rstrip(" ").split(" ")
            if number == 0 and len(cells) == 2 and all(cell.isdigit() for cell in cells):
                continue
            width = len(values[0]) if values else len(cells) - 1
            if len(cells) <= width:
                raise ValueError(f"{path}: line {number + 1} has {len(cells) - 1} values, not {width}")
            words.append(" ".join(cells[: len(cells) - width]))
            values.append(np.array(cells[len(cells) - width :], dtype=np.float32))
    return Vectors(words, np.stack(values) if values else np.empty((0, 0), np.float32))
