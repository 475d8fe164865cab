"""safetensors files as numpy arrays: a length (u64, little-endian), a JSON header of dtypes, shapes and offsets, then the values."""

import json
import os
import struct
from typing import Any, Dict, Union

import numpy as np

_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1", "BOOL": "|b1",
}


def read_safetensors(path: Union[str, "os.PathLike[str]"]) -> Dict[str, "np.ndarray[Any, Any]"]:
    """Every tensor of the file by its name. bf16 becomes float32.

    Raises ValueError where the file is damaged or holds a type that numpy lacks.
    """
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        head = file.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else size
        if length > size - 8:
            raise ValueError(f"{os.fspath(path)}: no safetensors file, or cut short")
        header = json.loads(file.read(length))
        values = file.read()
    tensors = {}
    for name, told in header.items():
        if name == "__metadata__":
            continue
        begin, end = told["data_offsets"]
        shape = tuple(told["shape"])
        if not 0 <= begin <= end <= len(values):
            raise ValueError(f"{os.fspath(path)}: cut short: `{name}` ends at byte {end} of {len(values)}")
        raw = values[begin:end]
        if told["dtype"] == "BF16":
            wide = np.frombuffer(raw, "<u2").astype("<u4") << 16
            tensors[name] = wide.view("<f4").reshape(shape)
        elif told["dtype"] in _DTYPES:
            tensors[name] = np.frombuffer(raw, _DTYPES[told["dtype"]]).reshape(shape).copy()
        else:
            raise ValueError(f"{os.fspath(path)}: numpy has no {told['dtype']}, the type of `{name}`")
    return tensors
