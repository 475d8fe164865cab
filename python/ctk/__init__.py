"""The contrastive toolkit from Python: start the program, and read what it writes into numpy.

The work is done by the program ``ctk``, which lies beside this module. Functions start it and wait; what it says about its progress
goes to the terminal, and an error of the program is a :class:`CtkError` with its message.

>>> import ctk
>>> run = ctk.train("vision", data="photos/", out="runs/photos")        # a Run
>>> run.metrics()["loss"]                                               # an array
>>> features = ctk.embed("runs/photos", data="photos/")                 # rows, names, labels
"""

from ._features import Features, read_features
from ._program import CtkError, analogy, command, embed, evaluate, neighbors, predict, program, train
from ._run import Run
from ._safetensors import read_safetensors
from ._vectors import Vectors, read_vectors

__all__ = [
    "CtkError",
    "Features",
    "Run",
    "Vectors",
    "analogy",
    "command",
    "embed",
    "evaluate",
    "neighbors",
    "predict",
    "program",
    "read_features",
    "read_safetensors",
    "read_vectors",
    "train",
]
