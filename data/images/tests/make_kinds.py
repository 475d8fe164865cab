"""Makes `fixtures/kinds.tar.gz`, which `kinds.rs` reads: image files of many kinds, and what Pillow decodes of their first picture.

    pip install pillow numpy
    python3 make_kinds.py

Files: `KIND--NAME.EXTENSION`, and `KIND--NAME.EXTENSION.rgb` (rows of RGB bytes, alpha dropped, 16 bits by v / 257, floats by 255 v).
"""

import gzip
import io
import os
import tarfile

import numpy as np
from PIL import Image

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "fixtures", "kinds.tar.gz")
WIDTH, HEIGHT = 21, 14

y, x = np.mgrid[:HEIGHT, :WIDTH]
RGB = np.stack([255 * x // (WIDTH - 1), 255 * y // (HEIGHT - 1), (7 * x + 13 * y) % 256], 2).astype(np.uint8)
ALPHA = np.where((x + y) % 3 == 0, 0, 255).astype(np.uint8)
DEEP = (x * 3000 + y * 300).astype(np.uint16)
COLOUR = Image.fromarray(RGB)
CLEAR = Image.fromarray(np.dstack([RGB, ALPHA]))
GRAY, BITS, PALETTE = COLOUR.convert("L"), COLOUR.convert("1"), COLOUR.quantize(16)
OTHER = Image.fromarray(255 - RGB)


def saved(image, kind, **how):
    out = io.BytesIO()
    image.save(out, kind, **how)
    return out.getvalue()


def all_of():
    for name, image in {"rgb": COLOUR, "gray": GRAY, "palette": PALETTE, "alpha": CLEAR, "gray-alpha": CLEAR.convert("LA"), "bits": BITS}.items():
        yield "png", name, "png", saved(image, "PNG")
    yield "png", "deep", "png", saved(Image.fromarray(DEEP), "PNG")
    yield "png", "more", "png", saved(COLOUR, "PNG", save_all=True, append_images=[OTHER])
    yield "webp", "lossless", "webp", saved(COLOUR, "WEBP", lossless=True)
    yield "webp", "lossy", "webp", saved(COLOUR, "WEBP", quality=90)
    yield "webp", "alpha", "webp", saved(CLEAR, "WEBP", lossless=True, exact=True)
    yield "webp", "more", "webp", saved(COLOUR, "WEBP", lossless=True, save_all=True, append_images=[OTHER])
    for compression in ("raw", "tiff_lzw", "tiff_deflate", "packbits", "tiff_adobe_deflate"):
        yield "tiff", f"rgb-{compression}", "tif", saved(COLOUR, "TIFF", compression=compression)
    for name, image in {"gray": GRAY, "bits": BITS, "deep": Image.fromarray(DEEP), "alpha": CLEAR, "palette": PALETTE, "ink": COLOUR.convert("CMYK")}.items():
        yield "tiff", name, "tif", saved(image, "TIFF")
    yield "tiff", "float", "tif", saved(Image.fromarray((x / (WIDTH - 1)).astype(np.float32)), "TIFF")
    yield "tiff", "more", "tiff", saved(COLOUR, "TIFF", save_all=True, append_images=[OTHER, GRAY])
    yield "tiff", "fax", "tif", saved(BITS, "TIFF", compression="group4")
    yield "tiff", "jpeg", "tif", saved(COLOUR, "TIFF", compression="jpeg", quality=95)
    yield "tiff", "big", "tif", saved(COLOUR, "TIFF", big_tiff=True)
    for name, image in {"rgb": COLOUR, "gray": GRAY, "palette": PALETTE, "bits": BITS}.items():
        yield "bmp", name, "bmp", saved(image, "BMP")
    yield "gif", "one", "gif", saved(PALETTE, "GIF")
    yield "gif", "gray", "gif", saved(GRAY, "GIF")
    yield "gif", "more", "gif", saved(PALETTE, "GIF", save_all=True, append_images=[OTHER.quantize(16)])
    for name, image, extension in (("bits", BITS, "pbm"), ("gray", GRAY, "pgm"), ("rgb", COLOUR, "ppm"), ("deep", Image.fromarray(DEEP), "pgm")):
        yield "pnm", name, extension, saved(image, "PPM")
    rows = "\n".join(" ".join(str(v) for v in row) for row in np.asarray(GRAY))
    yield "pnm", "text", "pgm", f"P2\n# a comment\n{WIDTH} {HEIGHT}\n255\n{rows}\n".encode()


def pixels(data):
    image = Image.open(io.BytesIO(data))
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image).astype(np.float64)
        values = np.round(values * 255 if image.mode == "F" else values / 257)
        return np.repeat(values.astype(np.uint8)[:, :, None], 3, 2)
    return np.asarray(image.convert("RGBA") if "transparency" in image.info else image.convert("RGB"))[:, :, :3]


def main():
    files = {}
    for kind, name, extension, data in all_of():
        files[f"{kind}--{name}.{extension}"] = data
        files[f"{kind}--{name}.{extension}.rgb"] = pixels(data).tobytes()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in sorted(files):
            entry = tarfile.TarInfo(name)
            entry.size = len(files[name])
            archive.addfile(entry, io.BytesIO(files[name]))
    with open(OUT, "wb") as out:
        out.write(gzip.compress(packed.getvalue(), 9, mtime=0))
    print(len(files), "files,", os.path.getsize(OUT), "bytes")


main()
