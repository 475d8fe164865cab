"""Makes `fixtures/heif.tar.gz`, which `heif.rs` reads: HEIC and AVIF files, and what Pillow decodes of them.

    pip install pillow pillow-heif numpy
    python3 make_heif.py

Files: `NAME.EXTENSION`, and `NAME.EXTENSION.rgba` (width and height as 32 bits, little-endian, then rows of RGBA bytes).
"""

import gzip
import io
import os
import tarfile

import numpy as np
import pillow_heif
from PIL import Image, ImageOps

pillow_heif.register_heif_opener()
OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "fixtures", "heif.tar.gz")
WIDTH, HEIGHT = 64, 48

y, x = np.mgrid[:HEIGHT, :WIDTH]
RGB = np.stack([255 * x // (WIDTH - 1), 255 * y // (HEIGHT - 1), 128 + 0 * x], 2).astype(np.uint8)
ALPHA = np.where(x < WIDTH // 2, 0, 255).astype(np.uint8)
COLOUR = Image.fromarray(RGB)
CLEAR = Image.fromarray(np.dstack([RGB, ALPHA]))


def saved(image, kind, **how):
    out = io.BytesIO()
    image.save(out, kind, **how)
    return out.getvalue()


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def all_of():
    for kind, extension in [("HEIF", "heic"), ("AVIF", "avif")]:
        yield f"plain.{extension}", saved(COLOUR, kind, quality=90)
        yield f"alpha.{extension}", saved(CLEAR, kind, quality=95)
        yield f"turned.{extension}", saved(COLOUR, kind, quality=90, exif=turned(6))
        yield f"gray.{extension}", saved(COLOUR.convert("L"), kind, quality=90)
    yield "several.heic", saved(COLOUR, "HEIF", quality=90, save_all=True, append_images=[COLOUR.rotate(180)])
    deep = pillow_heif.from_bytes("RGB;16", (WIDTH, HEIGHT), (RGB.astype(np.uint16) * 257).tobytes())
    out = io.BytesIO()
    deep.save(out, quality=90)
    yield "deep.hif", out.getvalue()


def decoded(body):
    image = Image.open(io.BytesIO(body))
    image = ImageOps.exif_transpose(image).convert("RGBA")
    return np.array(image.size, "<u4").tobytes() + np.asarray(image).tobytes()


with open(OUT, "wb") as file, gzip.GzipFile("", "wb", 9, file, 0) as packed, tarfile.open(fileobj=packed, mode="w") as archive:
    for name, body in all_of():
        for name, body in [(name, body), (name + ".rgba", decoded(body))]:
            entry = tarfile.TarInfo(name)
            entry.size = len(body)
            archive.addfile(entry, io.BytesIO(body))
