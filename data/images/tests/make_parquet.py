"""Makes `fixtures/parquet.tar.gz`: Parquet tables of images as Hugging Face, pandas and pyarrow write them, and tables that must be refused
(empty, encrypted, without images, with bad labels). `src/dataset/tests/parquets.rs` reads them.

    pip install pyarrow datasets pandas pillow
    python3 make_parquet.py

Every picture is 4 wide and 3 high and has its number as the red of its first pixel.
"""

import gzip
import io
import os
import tarfile
import tempfile

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe
from datasets import ClassLabel, Dataset, Features, Image, Value
from PIL import Image as Picture

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "fixtures", "parquet.tar.gz")


def png(number):
    picture = Picture.new("RGB", (4, 3), (90, 120, 150))
    picture.putpixel((0, 0), (number, 0, 0))
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


def struct(numbers, paths=None):
    return [{"bytes": png(number), "path": paths and paths(number)} for number in numbers]


def split(path, numbers, features, columns):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    Dataset.from_dict(columns(numbers), features=features).to_parquet(path)


def hugging_face():
    """A repository of a data set: shards of parts in `data/`, a card and a preview beside."""
    features = Features({"image": Image(), "label": ClassLabel(names=["cat", "dog", "owl"])})
    columns = lambda numbers: {
        "image": struct(numbers, lambda number: f"{number:04}.png"),
        "label": [-1 if number == 7 else number % 3 for number in numbers],
    }
    split("hub/data/train-00000-of-00002.parquet", range(1, 5), features, columns)
    split("hub/data/train-00001-of-00002.parquet", range(5, 9), features, columns)
    split("hub/data/test-00000-of-00001.parquet", range(21, 24), features, columns)
    split("hub/data/validation-00000-of-00001.parquet", range(31, 33), features, columns)
    with open("hub/README.md", "w") as card:
        card.write("---\nlicense: mit\n---\n")
    with open("hub/preview.png", "wb") as preview:
        preview.write(png(99))
    # CIFAR-100's columns: no name of a file, two kinds of classes; as the hub's converter names files.
    features = Features({"img": Image(), "coarse_label": ClassLabel(names=["a", "b"]), "fine_label": ClassLabel(names=list("uvwxyz"))})
    columns = lambda numbers: {
        "img": struct(numbers),
        "coarse_label": [number % 2 for number in numbers],
        "fine_label": [number % 6 for number in numbers],
    }
    split("converted/default/train/0000.parquet", range(1, 8), features, columns)
    split("converted/default/test/0000.parquet", range(11, 14), features, columns)
    # Images that were not put into the table.
    features = Features({"image": Image(), "label": Value("int64")})
    columns = lambda numbers: {"image": [f"{number}.png" for number in numbers], "label": [number % 2 for number in numbers]}
    os.makedirs("outside")
    os.chdir("outside")
    for number in range(1, 5):
        with open(f"{number}.png", "wb") as out:
            out.write(png(number))
    split("./table.parquet", range(1, 5), features, columns)
    os.chdir("..")


def write(path, columns, **how):
    pq.write_table(pa.table(columns), path, **how)


def plain():
    """Tables of other programs: every way to pack and to write, rows in several groups, cells that are empty."""
    numbers = list(range(1, 10))
    columns = {"picture": [png(n) for n in numbers], "label": [None if n == 5 else "ab"[n % 2] for n in numbers]}
    for codec in ["none", "snappy", "gzip", "zstd", "lz4", "brotli"]:
        write(f"{codec}.parquet", columns, compression=codec, row_group_size=4)
    write("second.parquet", columns, data_page_version="2.0", compression="zstd", use_dictionary=False, data_page_size=200, row_group_size=5, write_batch_size=2)
    columns = {
        "image": [None if n == 2 else png(n) for n in numbers],
        "target": pa.array([None if n == 3 else n % 2 for n in numbers], pa.float64()),
        "split": ["train"] * 6 + ["test"] * 3,
        "patient": [n // 2 for n in numbers],
    }
    pd.DataFrame({name: pa.array(cells).to_pandas() for name, cells in columns.items()}).to_parquet("pandas.parquet")
    rows = pa.array([n % 3 for n in numbers], pa.uint8())
    write("numbers.parquet", {"image_id": pa.array(numbers, pa.int32()), "class": rows})
    write("paths.parquet", {"file_name": [f"{n}.png" for n in numbers] + ["1.png"], "label": ["cat"] * 4 + ["dog"] * 5 + ["dog"]})
    for number in numbers:
        with open(f"{number}.png", "wb") as out:
            out.write(png(number))


def refused():
    write("empty.parquet", {"image": pa.array([], pa.binary()), "label": pa.array([], pa.string())})
    write("nulls.parquet", {"image": pa.array([None, None], pa.binary()), "label": ["a", "b"]})
    write("lists.parquet", {"images": [struct([1, 2])], "pixels": [[[1, 2], [3, 4]]], "label": ["a"]})
    write("figures.parquet", {"width": [4], "box": [{"x": 1, "y": 2}], "label": ["a"]})
    write("labels.parquet", {"image": [png(1), png(2)], "label": [["a"], ["b"]], "taken": pa.array([1, 2], pa.timestamp("s"))})
    write("text.parquet", {"image": [b"no image", png(2), png(3)], "label": ["a", "b", "a"]})
    schema = pa.schema({"image": pa.binary(), "label": pa.int64()}, {"huggingface": '{"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}'})
    pq.write_table(pa.table({"image": [png(1), png(2)], "label": [1, 2]}, schema=schema), "classes.parquet")

    class Keys(pe.KmsClient):
        def __init__(self, config):
            super().__init__()

        def wrap_key(self, key, name):
            return key

        def unwrap_key(self, key, name):
            return key

    for name, plain_footer in [("encrypted", False), ("half-encrypted", True)]:
        how = pe.EncryptionConfiguration(footer_key="f", column_keys={"k": ["image"]}, plaintext_footer=plain_footer)
        how = pe.CryptoFactory(Keys).file_encryption_properties(pe.KmsConnectionConfig(), how)
        with pq.ParquetWriter(f"{name}.parquet", pa.schema({"image": pa.binary(), "label": pa.string()}), encryption_properties=how) as out:
            out.write_table(pa.table({"image": [png(1), png(2)], "label": ["a", "b"]}))


with tempfile.TemporaryDirectory() as folder:
    os.chdir(folder)
    hugging_face()
    plain()
    refused()
    with open(OUT, "wb") as file, gzip.GzipFile("", "wb", 9, file, 0) as packed, tarfile.open(fileobj=packed, mode="w") as archive:
        for root, folders, files in os.walk("."):
            folders.sort()
            for name in sorted(files):
                with open(os.path.join(root, name), "rb") as file:
                    body = file.read()
                entry = tarfile.TarInfo(os.path.relpath(os.path.join(root, name), "."))
                entry.size = len(body)
                archive.addfile(entry, io.BytesIO(body))
