"""Makes `fixtures/jpegs.tar.gz`, which `jpegs.rs` reads: JPEGs of every kind, and what Pillow decodes of them.

    pip install pillow numpy && apt-get install libjpeg-turbo-progs      # for cjpeg
    python3 make_jpegs.py

Files: `NAME.jpg`, and `PIXELS.rgb` (rows of RGB bytes). The name of a JPEG begins with that of its pixels, up to `--`: how data is cut into
scans, restarts and passes does not change pixels. `refused--NAME.jpg` are those that ctk refuses.
"""

import gzip
import io
import os
import subprocess
import tarfile
import tempfile

import numpy as np
from PIL import Image

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "fixtures", "jpegs.tar.gz")

SAMPLINGS = [
    "1x1,1x1,1x1", "2x1,1x1,1x1", "1x2,1x1,1x1", "2x2,1x1,1x1", "4x1,1x1,1x1", "1x4,1x1,1x1", "4x2,1x1,1x1", "2x4,1x1,1x1", "2x2,2x1,2x1",
    "2x2,1x2,1x2", "2x2,2x1,1x2", "2x2,1x1,2x2", "4x1,2x1,1x1", "3x1,1x1,1x1", "1x3,1x1,1x1", "1x1,2x1,2x1", "1x1,1x2,1x2", "1x1,2x2,2x2",
    "1x1,2x1,1x1", "2x1,2x2,1x1", "1x2,2x1,1x1", "2x2,2x2,2x2", "2x1,2x1,2x1",
]
SIZES = [(1, 1), (9, 7), (33, 18)]
SCANS = {"one": None, "each": "0;\n1;\n2;\n", "luma": "0;\n1 2;\n", "last": "0 1;\n2;\n"}
RESTARTS = {"none": [], "blocks": ["-restart", "1B"], "rows": ["-restart", "1"]}


def picture(width, height):
    """Smooth colours, an edge and some grain."""
    y, x = np.mgrid[:height, :width]
    rng = np.random.default_rng(width * 1000 + height)
    rgb = np.stack([128 + 100 * np.sin(x * 0.21 + y * 0.11), 128 + 90 * np.cos(x * 0.13 - y * 0.19), 255 * (x + y) / max(1, width + height - 2)], 2)
    rgb[(x > width * 0.6) & (y > height // 3)] = (210, 60, 40)
    return Image.fromarray((rgb + rng.normal(0, 4, rgb.shape)).clip(0, 255).astype(np.uint8))


def cjpeg(image, *arguments, scans=None):
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as script:
        if scans:
            script.write(scans)
            script.flush()
            arguments += ("-scans", script.name)
        ppm = io.BytesIO()
        image.save(ppm, "PPM")
        run = subprocess.run(["cjpeg", "-quality", "85", *arguments], input=ppm.getvalue(), capture_output=True)
        # A scan holds ten blocks a unit at most: what is more than that has no file in one scan.
        assert run.returncode == 0 or b"too large for interleaved" in run.stderr, run.stderr
        return run.stdout if run.returncode == 0 else None


def pixels(jpeg):
    return np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"))


def without(jpeg, code):
    """Without the segments of a marker."""
    out, at = jpeg[:2], 2
    while jpeg[at + 1] != 0xDA:
        length = 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
        if jpeg[at + 1] != code:
            out += jpeg[at : at + length]
        at += length
    return out + jpeg[at:]


def named(jpeg, ids):
    """Its components under other numbers, in the frame and in the scans."""
    out, at = bytearray(jpeg), 2
    while at < len(out):
        code, length = out[at + 1], 2 + int.from_bytes(out[at + 2 : at + 4], "big")
        if code in (0xC0, 0xC1, 0xC2):
            for k, new in enumerate(ids):
                out[at + 10 + 3 * k] = new
        if code == 0xDA:
            for k in range(out[at + 4]):
                out[at + 5 + 2 * k] = ids[out[at + 5 + 2 * k] - 1]
            return bytes(out)
        at += length
    raise ValueError("no scan")


def patched(jpeg, marker, offset, value):
    out = bytearray(jpeg)
    out[out.index(marker) + offset] = value
    return bytes(out)


def all_of():
    """(name of the pixels, name of the kind, bytes)"""
    for sampling in SAMPLINGS:
        wide = sampling.split(",")
        # Chroma finer than luma, and factors of three, of which there are few files: fewer kinds.
        plain = all(wide[0][k] >= c[k] for c in wide[1:] for k in (0, 2)) and "3" not in sampling
        for width, height in SIZES:
            name, image = f"{sampling.replace(',', '_')}-{width}x{height}", picture(width, height)
            for scans, script in SCANS.items():
                for restart, arguments in RESTARTS.items():
                    if (restart != "none" and (scans in ("luma", "last") or not plain)) or (width == 1 and restart == "rows"):
                        continue
                    yield name, f"{scans}-{restart}", cjpeg(image, "-sample", sampling, *arguments, scans=script)
            for restart, arguments in RESTARTS.items():
                if restart == "none" or (plain and restart == "blocks"):
                    yield name, f"progressive-{restart}", cjpeg(image, "-sample", sampling, "-progressive", *arguments)
    image = picture(33, 18)
    for sampling in ("1x1", "2x2", "2x1"):
        for kind in ([], ["-progressive"], ["-restart", "1B"]):
            yield f"gray-{sampling}", "-".join(kind) or "one", cjpeg(image, "-grayscale", "-sample", sampling, *kind)
    for kind in ([], ["-progressive"]):
        for sampling in ("1x1,1x1,1x1", "2x2,1x1,1x1"):
            yield f"rgb-{sampling.replace(',', '_')}", "-".join(kind) or "one", cjpeg(image, "-rgb", "-sample", sampling, *kind)
    plain = cjpeg(image, "-sample", "2x1,1x1,1x1")
    yield "bare", "one", without(plain, 0xE0)
    yield "bare-0", "one", named(without(plain, 0xE0), [0, 1, 2])
    yield "letters", "one", named(without(plain, 0xE0), [ord(c) for c in "RGB"])
    yield "letters-jfif", "one", named(plain, [ord(c) for c in "RGB"])
    adobe = cjpeg(image, "-rgb")
    for transform in (0, 1, 2):
        yield f"adobe-{transform}", "one", patched(adobe, b"Adobe", 11, transform)
    ink = Image.fromarray(np.concatenate([np.asarray(image), np.asarray(picture(33, 18).convert("L"))[::-1, :, None] // 2], 2), "CMYK")
    for how, arguments in {"one": {}, "progressive": {"progressive": True}, "blocks": {"restart_marker_blocks": 1}}.items():
        for sampling in (0, 2):
            out = io.BytesIO()
            ink.save(out, "JPEG", quality=85, subsampling=sampling, **arguments)
            for transform in (0, 2):
                yield f"ink-{sampling}-{transform}", how, patched(out.getvalue(), b"Adobe", 11, transform)
            yield f"ink-{sampling}-bare", how, without(out.getvalue(), 0xEE)
    # Between scans and headers: bytes that mean nothing, segments, fill bytes.
    at = plain.index(b"\xff\xc0")
    yield "2x1-stray", "bytes", plain[:at] + b"\0\0\0\0\0\0\0\0" + plain[at:]
    yield "2x1-stray", "fill", plain[:at] + b"\xff\xff\xff" + plain[at:]
    yield "2x1-stray", "before-end", plain[:-2] + b"\0\0\0\0\0" + plain[-2:]
    yield "2x1-stray", "after-end", plain + b"\0" * 100
    yield "2x1-stray", "two", plain + plain


def main():
    files, known = {}, {}
    for name, kind, jpeg in all_of():
        if jpeg is None:
            continue
        rgb = pixels(jpeg)
        if name in known and np.abs(known[name].astype(int) - rgb).max() > 0:
            print("differs from its kind:", name, kind, np.abs(known[name].astype(int) - rgb).max())
        known.setdefault(name, rgb)
        files.setdefault(f"{name}.rgb", rgb.tobytes())
        files[f"{name}--{kind}.jpg"] = jpeg
    image = picture(33, 18)
    files["refused--arithmetic.jpg"] = cjpeg(image, "-arithmetic")
    files["refused--arithmetic-progressive.jpg"] = cjpeg(image, "-arithmetic", "-progressive")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in sorted(files):
            entry = tarfile.TarInfo(name)
            entry.size = len(files[name])
            archive.addfile(entry, io.BytesIO(files[name]))
    os.makedirs(os.path.dirname(OUT), exist_ok=True)
    with open(OUT, "wb") as out:
        out.write(gzip.compress(packed.getvalue(), 9, mtime=0))
    print(len(files), "files,", os.path.getsize(OUT), "bytes")


main()
