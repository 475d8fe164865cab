"""Starts the program, and gives what it prints."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import threading
from typing import Any, Dict, List, Optional, Sequence, Union

from ._features import Features, read_features
from ._run import Run

PathLike = Union[str, "os.PathLike[str]"]


class CtkError(RuntimeError):
    """The program ended with an error: its message, and its exit ``code`` (2: the command or the recipe is wrong)."""

    def __init__(self, message: str, code: int):
        super().__init__(message)
        self.code = code


def program() -> str:
    """The path of the program: ``CTK`` of the environment, else the one that was installed with this module, else one on the path.

    Raises FileNotFoundError where there is none.
    """
    asked = os.environ.get("CTK")
    if asked:
        return asked
    name = "ctk.exe" if os.name == "nt" else "ctk"
    folders = [sysconfig.get_path("scripts"), os.path.dirname(sys.executable)]
    user = f"{os.name}_user"
    if user in sysconfig.get_scheme_names():
        folders.append(sysconfig.get_path("scripts", user))
    for folder in folders:
        path = os.path.join(folder, name)
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    found = shutil.which("ctk")
    if found is None:
        raise FileNotFoundError("the program ctk was not found: install it by pip or cargo, or say where it is in CTK")
    return found


def command(*arguments: Any, quiet: bool = False) -> str:
    """Runs ``ctk ARGUMENTS...`` and gives what it printed on stdout. Progress goes to the terminal, unless ``quiet``.

    Raises CtkError with the program's message where it fails. An interrupt (Ctrl-C) reaches the program too, which saves and ends.
    """
    words = [program(), *(os.fspath(word) if isinstance(word, os.PathLike) else str(word) for word in arguments)]
    pipes: Dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(words, **pipes, encoding="utf-8", errors="replace") as process:
        lines: List[str] = []
        # Both pipes are read at once, or a full one would stop the program.
        reader = threading.Thread(target=_pass_on, args=(process.stderr, lines, quiet), daemon=True)
        reader.start()
        try:
            stdout = process.stdout.read() if process.stdout else ""
            process.wait()
        except KeyboardInterrupt:
            # The program hears of it by itself, and saves what it has.
            process.wait()
            raise
        except BaseException:
            process.terminate()
            raise
        reader.join()
    if process.returncode != 0:
        said = "".join(lines)
        begin = said.rfind("error: ")
        message = said[begin:].strip() if begin >= 0 else said.strip()
        raise CtkError(message or f"ctk ended with code {process.returncode}", process.returncode)
    return stdout


def _pass_on(stderr: Any, lines: List[str], quiet: bool) -> None:
    for line in stderr:
        lines.append(line)
        if not quiet:
            sys.stderr.write(line)


def _figures(*arguments: Any, quiet: bool) -> Dict[str, Any]:
    """Runs a verb with ``--json``: the object that it prints as its last line."""
    lines = command(*arguments, "--json", quiet=quiet).splitlines()
    if not lines:
        raise CtkError("ctk printed nothing", 0)
    figures: Dict[str, Any] = json.loads(lines[-1])
    return figures


def _sets(keys: Optional[Dict[str, Any]]) -> List[str]:
    """``{"train.epochs": 5}`` as ``--set train.epochs=5``."""
    words: List[str] = []
    for key, value in (keys or {}).items():
        words += ["--set", f"{key}={json.dumps(value) if isinstance(value, (bool, list, dict)) else value}"]
    return words


def _data(data: Union[None, PathLike, Sequence[PathLike]]) -> List[str]:
    if data is None:
        return []
    several = [data] if isinstance(data, (str, os.PathLike)) else list(data)
    return [word for path in several for word in ("--data", os.fspath(path))]


def train(
    modality: str,
    data: Union[None, PathLike, Sequence[PathLike]] = None,
    out: Optional[PathLike] = None,
    config: Optional[PathLike] = None,
    set: Optional[Dict[str, Any]] = None,
    resume: Optional[PathLike] = None,
    quiet: bool = False,
) -> Run:
    """``ctk train MODALITY``: trains and gives the :class:`Run`, whose ``summary`` is what the program printed.

    ``modality`` is "vision" or "word2vec", ``set`` changes keys of the recipe ({"train.epochs": 5}), ``resume`` goes on with a run.
    """
    words: List[Any] = ["train", modality, *_data(data), *_sets(set)]
    for flag, value in (("--out", out), ("--config", config), ("--resume", resume)):
        if value is not None:
            words += [flag, value]
    figures = _figures(*words, quiet=quiet)
    run = Run(figures["run"])
    run.summary = figures
    return run


def embed(
    run: PathLike,
    *paths: PathLike,
    data: Union[None, PathLike, Sequence[PathLike]] = None,
    split: str = "all",
    quiet: bool = True,
) -> Features:
    """``ctk embed``: the :class:`Features` of images, or of words and texts, by a run or a file of vectors.

    Without ``paths`` and ``data`` of the run's own data. ``split`` is "train", "test" or "all".
    """
    with tempfile.TemporaryDirectory(prefix="ctk-") as folder:
        out = os.path.join(folder, "features.npy")
        command("embed", run, *paths, *_data(data), "--split", split, "--out", out, quiet=quiet)
        return read_features(out)


def predict(
    run: PathLike,
    *paths: PathLike,
    data: Union[None, PathLike, Sequence[PathLike]] = None,
    split: str = "all",
    top: int = 1,
    quiet: bool = True,
) -> List[Dict[str, Any]]:
    """``ctk predict``: one dictionary an image: name, label (None where unknown), predicted, probability, and for ``top`` > 1 the next
    classes as predicted_2, probability_2 and so on."""
    with tempfile.TemporaryDirectory(prefix="ctk-") as folder:
        out = os.path.join(folder, "predictions.jsonl")
        command("predict", run, *paths, *_data(data), "--split", split, "--top", top, "--out", out, quiet=quiet)
        with open(out, encoding="utf-8") as lines:
            return [json.loads(line) for line in lines]


def evaluate(run: PathLike, protocol: str, *arguments: Any, quiet: bool = True) -> Dict[str, Any]:
    """``ctk eval PROTOCOL RUN ARGUMENTS...``: its figures. ``evaluate("runs/x", "linear-probe", "--baseline")``."""
    return _figures("eval", protocol, run, *arguments, quiet=quiet)


def neighbors(run: PathLike, *words: str, count: int = 10, quiet: bool = True) -> Dict[str, Any]:
    """``ctk neighbors``: for each word (or image) the nearest rows, as the program's JSON says them."""
    return _figures("neighbors", run, *words, "--count", count, quiet=quiet)


def analogy(run: PathLike, a: str, b: str, c: str, quiet: bool = True) -> Dict[str, Any]:
    """``ctk analogy RUN A B C``: what is to C as B is to A, as the program's JSON says it."""
    return _figures("analogy", run, a, b, c, quiet=quiet)
