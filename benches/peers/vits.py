"""Speed of `ctk embed` with a ViT-S/16 at 224 pixels beside timm on PyTorch, images decoded by both.

    venv/bin/python vits.py ../../target/release/ctk
    venv/bin/python vits.py ../../target/release/ctk --pairs 1 --images 32 --rows f32

The network has random weights. timm writes it, and ctk imports it. Images are PNGs of 224 × 224 pixels, so that none is resized. PyTorch has
the best batch of --batches, which one run each chooses; in bf16 it is autocast. `seconds` is the work on loaded networks: by the clock inside
timm's process; for ctk, the process less one on a single image. `whole_seconds` is the process. `cosine` is the least cosine between ctk's and
timm's features of an image. Every result is a line of JSON on stdout.
"""

import argparse
import json
import pathlib
import sys
import time

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE / "sentences"))

SIZE = 224


def make(folder, images):
    """The network as timm's folder, and the images."""
    import numpy
    import timm
    import torch
    from PIL import Image
    from timm.models import save_for_hf

    torch.manual_seed(0)
    save_for_hf(timm.create_model("vit_small_patch16_224", num_classes=0), folder / "timm", safe_serialization=True)
    drawn = numpy.random.default_rng(0)
    for name, count in (("images", images), ("single", 1)):
        (folder / name).mkdir()
        for number in range(count):
            # Smooth, as photos are: PNGs of noise take longer to decode than a network takes.
            small = Image.fromarray(drawn.integers(0, 256, (14, 14, 3), dtype=numpy.uint8))
            small.resize((SIZE, SIZE), Image.BICUBIC).save(folder / name / f"{number:05}.png")


def peer(a):
    """timm's side, one process."""
    import numpy
    import timm
    import torch
    from PIL import Image

    torch.set_num_threads(a.threads)
    folder = pathlib.Path(a.work)
    model = timm.create_model(f"local-dir:{folder / 'timm'}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    paths = sorted((folder / "images").iterdir())

    def encode(paths):
        rows = []
        for first in range(0, len(paths), a.batch):
            x = torch.stack([transform(Image.open(path).convert("RGB")) for path in paths[first : first + a.batch]])
            with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=a.precision == "bf16"):
                rows.append(model(x).float().numpy())
        return numpy.concatenate(rows)

    encode(paths[: a.batch])
    start = time.perf_counter()
    rows = encode(paths)
    seconds = time.perf_counter() - start
    numpy.save(folder / "timm.npy", rows)
    print(json.dumps({"seconds": seconds, "images_per_second": len(paths) / seconds}))


def main():
    from shared import Bench, Failed, chosen, compare, line, options

    parser = options(__doc__)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 16, 32, 64])
    parser.add_argument("--rows", nargs="+", default=["f32", "bf16"], choices=["f32", "bf16"])
    a = parser.parse_args()
    a.data = a.data or "."
    bench = Bench(parser, a)
    with bench.folder() as there:
        import numpy

        if not (there / "timm").is_dir():
            make(there, a.images)
            bench.ctk("import", there / "timm", "--out", there / "run")

        def ours(precision):
            run = lambda data, out: bench.ctk("embed", there / "run", "--data", there / data, "--out", there / out, "--force", "--compute", precision)
            whole, least = run("images", "ctk.npy"), run("single", "one.npy")
            seconds = whole["whole_seconds"] - least["whole_seconds"]
            return {**whole, "seconds": seconds, "images_per_second": a.images / seconds}

        def theirs(precision, batch):
            flags = ["--peer", "--work", there, "--precision", precision, "--batch", batch]
            found = bench.peer("../vits.py", *flags)
            left, right = numpy.load(there / "ctk.npy"), numpy.load(there / "timm.npy")
            unit = lambda rows: rows / numpy.linalg.norm(rows, axis=1, keepdims=True)
            return {**found, "cosine": float((unit(left) * unit(right)).sum(1).min())}

        for row in a.rows:
            ours(row)
            tried = {batch: bench.once(row, f"timm, batch {batch}", 0, lambda: theirs(row, batch), False) for batch in a.batches}
            batch = chosen(tried, "seconds", more=False)
            if batch is None:
                raise Failed(f"{row}: timm failed")
            sides = [("ctk", lambda _: ours(row), True), ("timm", lambda _: theirs(row, batch), False)]
            found = bench.in_turn(row, sides, a.pairs)
            figures = [("seconds", "s", False), ("images_per_second", "images/s", True), ("whole_seconds", "s", False), ("peak_mb", "MB", False)]
            compare(row, found, figures, batch=batch, cosine=min(result["cosine"] for result in found["timm"]))
            line({"row": row, "batches": {batch: result and result["seconds"] for batch, result in tried.items()}})


if __name__ == "__main__":
    if "--peer" in sys.argv:
        parser = argparse.ArgumentParser()
        parser.add_argument("--peer", action="store_true")
        parser.add_argument("--work")
        parser.add_argument("--precision")
        parser.add_argument("--batch", type=int)
        parser.add_argument("--threads", type=int)
        peer(parser.parse_args())
    else:
        main()
