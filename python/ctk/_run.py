"""A run's folder, read."""

import json
import os
from typing import Any, Dict, List, Optional, Union

import numpy as np

from ._safetensors import read_safetensors


class Run:
    """A run: ``ctk.Run("runs/vision-1")``. Nothing is written."""

    def __init__(self, folder: Union[str, "os.PathLike[str]"]):
        self.folder = os.fspath(folder)
        self.summary: Optional[Dict[str, Any]] = None
        """What the program printed at the end, where :func:`ctk.train` made the run."""
        if not os.path.isfile(os.path.join(self.folder, "recipe.toml")):
            raise FileNotFoundError(f"{self.folder}: there is no run here")

    def __repr__(self) -> str:
        return f"ctk.Run({self.folder!r})"

    def __fspath__(self) -> str:
        return self.folder

    @property
    def recipe(self) -> str:
        """The recipe as run, TOML."""
        with open(os.path.join(self.folder, "recipe.toml"), encoding="utf-8") as file:
            return file.read()

    def metrics(self) -> "Dict[str, np.ndarray[Any, Any]]":
        """The log: an array a figure, one value a logged line; NaN where a line has none. ``metrics()["step"]`` counts steps."""
        lines = self._lines("metrics.jsonl")
        names = list(dict.fromkeys(name for line in lines for name, value in line.items() if _is_number(value)))
        return {name: np.array([float(line[name]) if _is_number(line.get(name)) else np.nan for line in lines]) for name in names}

    def evaluations(self) -> List[Dict[str, Any]]:
        """What ``ctk eval`` found of it: dictionaries with eval, step, data and figures."""
        return self._lines("evals.jsonl")

    def steps(self) -> List[int]:
        """The steps that have a checkpoint, ascending."""
        folder = os.path.join(self.folder, "checkpoints")
        return sorted(int(name) for name in (os.listdir(folder) if os.path.isdir(folder) else []) if name.isdigit())

    def checkpoint(self, step: Optional[int] = None) -> str:
        """The folder of a checkpoint, without ``step`` of the newest. Raises FileNotFoundError where there is none."""
        steps = self.steps()
        if not steps or (step is not None and step not in steps):
            raise FileNotFoundError(f"{self.folder}: no checkpoint" + ("" if step is None else f" of step {step}; there are {steps}"))
        return os.path.join(self.folder, "checkpoints", str(steps[-1] if step is None else step))

    def weights(self, step: Optional[int] = None) -> "Dict[str, np.ndarray[Any, Any]]":
        """The encoder's tensors by name, of a checkpoint."""
        return read_safetensors(os.path.join(self.checkpoint(step), "model.safetensors"))

    def _lines(self, name: str) -> List[Dict[str, Any]]:
        path = os.path.join(self.folder, name)
        if not os.path.isfile(path):
            return []
        with open(path, encoding="utf-8") as file:
            lines = file.read().split("\n")
        # A line that is just being written has no end yet.
        return [json.loads(line) for line in lines[:-1] if line]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
