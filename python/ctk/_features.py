"""Features as ``ctk embed`` writes them."""

import csv
import os
from dataclasses import dataclass, field
from typing import Any, List, Optional, Union

import numpy as np

from ._safetensors import read_safetensors

_ESCAPES = {"\\\\": "\\", "\\t": "\t", "\\n": "\n", "\\r": "\r"}


@dataclass
class Features:
    """A row a sample."""

    rows: "np.ndarray[Any, Any]"
    """(n, width), float32."""
    names: List[str]
    """What each row is of: an image's path, a word, a text. Numbers where the file has no names."""
    labels: "Optional[np.ndarray[Any, Any]]" = None
    """The number of each row's class, (n), int64; None where labels are not known."""
    classes: List[str] = field(default_factory=list)
    """The classes' names, by number."""
    parts: List[str] = field(default_factory=list)
    """Which part of the data each row is of ("train", "test"); empty where that is not told."""

    def __len__(self) -> int:
        return len(self.names)

    def __array__(self, dtype: Any = None, copy: Any = None) -> "np.ndarray[Any, Any]":
        return self.rows if dtype is None else self.rows.astype(dtype)

    def of(self, part: str) -> "Features":
        """The rows of one part."""
        kept = [i for i, name in enumerate(self.parts) if name == part]
        labels = None if self.labels is None else self.labels[kept]
        return Features(self.rows[kept], [self.names[i] for i in kept], labels, self.classes, [part] * len(kept))


def read_features(path: Union[str, "os.PathLike[str]"]) -> Features:
    """Reads ``.npy``, ``.safetensors`` (with the names beside them in ``.names.tsv``) or ``.csv``.

    Raises ValueError where the file is none of these, or names and rows do not fit.
    """
    path = os.fspath(path)
    ending = os.path.splitext(path)[1].lower()
    if ending == ".csv":
        return _of_csv(path)
    if ending == ".npy":
        rows = np.load(path, allow_pickle=False)
    elif ending == ".safetensors":
        tensors = read_safetensors(path)
        if "features" not in tensors:
            raise ValueError(f"{path}: has no tensor `features`")
        rows = tensors["features"]
    else:
        raise ValueError(f"{path}: features are read from .npy, .safetensors and .csv files")
    if rows.ndim != 2:
        raise ValueError(f"{path}: features have two dimensions, and this has {rows.ndim}")
    beside = path + ".names.tsv"
    if not os.path.isfile(beside):
        return Features(rows, [str(i) for i in range(len(rows))])
    with open(beside, encoding="utf-8", newline="") as file:
        lines = file.read().split("\n")
    header = lines[0].split("\t")
    cells = [[_plain(cell) for cell in line.split("\t")] for line in lines[1:] if line]
    if len(cells) != len(rows):
        raise ValueError(f"{beside}: {len(cells)} names for {len(rows)} rows")
    column = {name: [row[at] for row in cells] for at, name in enumerate(header)}
    labels, classes = None, []
    told = column.get("label")
    if told and all(told):
        labels = np.array([int(label) for label in told], dtype=np.int64)
        names = column.get("class", [""] * len(told))
        classes = [""] * (int(labels.max()) + 1)
        for label, name in zip(labels, names):
            classes[int(label)] = name
    return Features(rows, column["name"], labels, classes, column.get("split", []))


def _plain(cell: str) -> str:
    if "\\" not in cell:
        return cell
    out, at = [], 0
    while at < len(cell):
        pair = cell[at : at + 2]
        out.append(_ESCAPES.get(pair, cell[at]))
        at += 2 if pair in _ESCAPES else 1
    return "".join(out)


def _of_csv(path: str) -> Features:
    with open(path, encoding="utf-8", newline="") as file:
        reader = csv.reader(file)
        header = next(reader)
        cells = list(reader)
    values = [at for at, name in enumerate(header) if name not in ("name", "label", "split")]
    if "name" not in header or not values:
        raise ValueError(f"{path}: no table of features, which has a column `name`")
    column = {name: [row[header.index(name)] for row in cells] for name in ("name", "label", "split") if name in header}
    rows = np.array([[float(row[at]) for at in values] for row in cells], dtype=np.float32).reshape(len(cells), len(values))
    labels, classes = None, []
    told = column.get("label")
    if told and all(told):
        classes = sorted(set(told))
        number = {name: at for at, name in enumerate(classes)}
        labels = np.array([number[name] for name in told], dtype=np.int64)
    parts = column.get("split", [])
    return Features(rows, column["name"], labels, classes, parts if any(parts) else [])
