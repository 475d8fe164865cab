"""Makes `fixtures/captions.tar.gz`: Parquet tables of images with captions, as Hugging Face writes them: texts, lists of texts, lists of
structures, one row for each caption. `src/dataset/tests/captions.rs` reads them.

    pip install pyarrow pillow
    python3 make_captions.py

Every picture is 4 wide and 3 high and has its number as the red of its first pixel.
"""

import gzip
import io
import os
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image as Picture

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "fixtures", "captions.tar.gz")


def png(number):
    picture = Picture.new("RGB", (4, 3), (90, 120, 150))
    picture.putpixel((0, 0), (number, 0, 0))
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


def images(numbers):
    return [{"bytes": png(number), "path": f"{number}.png"} for number in numbers]


def tables():
    lists = [["a cat", " a cat sits ", "a cat"], None, ["a dog", None, "Ümlaut, \"dog\"\nruns"], []]
    yield "lists", pa.table({"image": images([1, 2, 3, 4]), "caption": pa.array(lists, pa.list_(pa.string()))}), {}
    # More rows than are read at once, in several groups and pages.
    many = [[f"{row}.{place}" for place in range(row % 4)] for row in range(1000)]
    yield "many", pa.table({"id": [f"{row % 5 + 1}/{row}.png" for row in range(1000)], "captions": many}), {
        "row_group_size": 300,
        "data_page_size": 128,
        "compression": "zstd",
    }
    yield "large", pa.table({"image": images([1, 2]), "texts": pa.array([["a"], ["b", "c"]], pa.large_list(pa.large_string()))}), {}
    sentences = [[{"raw": "A cat.", "tokens": ["a", "cat"], "sentid": 0}, {"raw": "It sits.", "tokens": ["it", "sits"], "sentid": 1}], []]
    yield "structures", pa.table({"image": images([1, 2]), "sentences": sentences}), {}
    columns = {"raw": ["A cat.", "It sits."], "tokens": [["a", "cat"], ["it", "sits"]]}
    yield "columns", pa.table({"image": images([1]), "sentences": [columns]}), {}
    # One row for each caption, as Flickr's tables are; the images are in them again and again.
    rows = {"image": images([1, 1, 2, 1, 2]), "caption": ["a", "b", "c", "a", None], "label": ["x", "x", "y", "x", "z"]}
    yield "rows", pa.table(rows), {}
    yield "paths", pa.table({"file_name": ["1.png", "2.png", "1.png"], "caption_2": ["b", "d", "e"], "caption_1": ["a", "c", None]}), {}
    yield "none", pa.table({"image": images([1, 2]), "label": ["x", "y"], "pixels": [[1, 2], [3]]}), {}
    yield "empty", pa.table({"image": images([1, 2]), "caption": pa.array([None, "  "], pa.string())}), {}
    yield "numbers", pa.table({"image": images([1, 2]), "title": [1984, 7]}), {}


with gzip.GzipFile(OUT, "wb", mtime=0) as packed, tarfile.open(fileobj=packed, mode="w") as archive:
    for name, table, how in tables():
        out = io.BytesIO()
        pq.write_table(table, out, **how)
        entry = tarfile.TarInfo(f"{name}.parquet")
        entry.size = len(out.getvalue())
        archive.addfile(entry, io.BytesIO(out.getvalue()))
