"""Images and captions by `ctk train image-text`: retrieval, zero-shot classification and speed, beside simple baselines and PyTorch.

    CTK_DATA=DATA venv/bin/python image_text.py ../../target/release/ctk families --log families.jsonl
    CTK_DATA=DATA venv/bin/python image_text.py ../../target/release/ctk flickr --log flickr.jsonl
    CTK_DATA=DATA venv/bin/python image_text.py ../../target/release/ctk zero
    CTK_DATA=DATA venv/bin/python image_text.py ../../target/release/ctk step

`families`: emoji (without skin variants and flags, equal pictures merged) and pictures-96. Test images are whole families: an emoji's subgroup; a
picture's source with the first word of its caption. So no test caption is a variant of a training caption. Beside: chance, and a ridge
regression from 16 × 16 pixels to the captions' TF-IDF, whose strength is chosen on a fifth of the training families.

`flickr`: flickr8k-750 in five folds, two seeds each. Arms: captions by frozen MiniLM, by a transformer from scratch, by the mean of frozen
word2vec vectors; images by a ResNet from scratch, or by stored features of EfficientNet-lite0. Figures are the mean of R@5 both ways over all
750 images, and differences of arms with 95 % by a paired bootstrap over images. MiniLM was trained on captions, too.

`zero`: a model of pictures-96 judges the groups of emoji by prompts. And a model of eight classes of CIFAR-10 (JPEG copy), described by prompts,
tells the two classes apart that it has never seen, for five choices of these two (chance 50 %).

`large`: a batch of 4,096 pairs in parts of 256 beside a batch of 256 (highest memory of the process; a ViT and a transformer, so that no batch
normalisation depends on the parts), and the loss of 4,096 pairs of 512 values with its gradient beside PyTorch's plain form (time, memory).

`step`: pairs a second of a training step, ResNet-18 at 64 pixels and 4 layers of 256, batch 128, beside PyTorch on batches that are in memory
already; ctk draws views and captions meanwhile.

Every result is a line of JSON on stdout.
"""

import csv
import json
import pathlib
import random
import statistics
import sys

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE / "sentences"))

import numpy  # noqa: E402
from shared import Bench, Failed, compare, fresh, line, minilm, options  # noqa: E402

CUTS = (1, 5, 10)

FROM_SCRATCH = """[image.encoder.resnet]
depth = 18
width = {width}
stem = "imagenet"
"""

TRAIN = """[optimizer.adamw]
rate = {rate}
decay = 0.2
[train]
epochs = {epochs}
batch = {batch}
seed = {seed}
{clip}"""


def table(path, rows):
    """Writes a CSV of rows, which are dictionaries."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def pixels(folder, name, side=16):
    """An image on white, as a row of side × side pixels."""
    from PIL import Image

    image = Image.open(folder / name).convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    white.alpha_composite(image)
    return numpy.asarray(white.convert("RGB").resize((side, side), Image.BICUBIC), dtype=numpy.float32).ravel() / 255


def ranks(scores, captions, owners):
    """The ranks of the first right ones both ways, by ctk's rule: one more than the wrong ones that are at least as similar."""
    same = {}
    for number, text in enumerate(captions):
        same.setdefault(text, []).append(number)
    own = [sorted({other for at in range(len(captions)) if owners[at] == image for other in same[captions[at]]}) for image in range(len(scores))]
    to_text = []
    for image, right in enumerate(own):
        wrong = numpy.ones(len(captions), bool)
        wrong[right] = False
        to_text.append(1 + int((scores[image][wrong] >= scores[image][right].max()).sum()))
    to_image = []
    for text in captions:
        right = sorted({owners[at] for at in same[text]})
        wrong = numpy.ones(len(scores), bool)
        wrong[right] = False
        column = scores[:, same[text][0]]
        to_image.append(1 + int((column[wrong] >= column[right].max()).sum()))
    return to_text, to_image


def recall(found):
    return {f"{side}@{cut}": sum(rank <= cut for rank in of) / len(of) for side, of in zip(("text", "image"), found) for cut in CUTS}


class Ridge:
    """A ridge regression from pixels to the captions' TF-IDF."""

    def __init__(self, strength):
        self.strength = strength

    def fit(self, x, captions):
        from sklearn.feature_extraction.text import TfidfVectorizer

        self.words = TfidfVectorizer(token_pattern=r"(?u)\b\w+\b", sublinear_tf=True)
        y = self.words.fit_transform(captions)
        self.mean = x.mean(0)
        x = x - self.mean
        self.weights = numpy.linalg.solve(x.T @ x + self.strength * len(x) * numpy.eye(x.shape[1]), x.T @ y)
        self.offset = numpy.asarray(y.mean(0)).ravel()
        return self

    def scores(self, x, captions):
        found = (x - self.mean) @ self.weights + self.offset
        found /= numpy.linalg.norm(found, axis=1, keepdims=True) + 1e-12
        return numpy.asarray(found @ self.words.transform(captions).T.toarray())


def of_captions(rows):
    """The captions of images, and the image of each."""
    captions, owners = [], []
    for at, row in enumerate(rows):
        for text in row["captions"]:
            captions.append(text)
            owners.append(at)
    return captions, owners


class Work:
    def __init__(self, bench, there):
        self.bench, self.a, self.there = bench, bench.a, there
        self.root = pathlib.Path(bench.a.data) / "image-text"

    def train(self, name, recipe):
        path, run = self.there / f"{name}.toml", fresh(self.there, name)
        path.write_text(recipe)
        return run, self.bench.ctk("train", "image-text", "--config", path, "--out", run)

    def words(self):
        """A run of word2vec on the usual corpus."""
        run = self.there / "word2vec"
        if not run.exists():
            corpus = pathlib.Path(self.a.data) / "text" / "news-reviews-17m.txt"
            self.bench.ctk("train", "word2vec", "--data", corpus, "--out", run, "--set", "train.epochs=3")
        return run

    def stored(self, captions):
        """What frozen MiniLM makes of captions, computed once: its projection is what is trained."""
        out = self.there / "minilm.npy"
        if not out.exists():
            texts = self.there / "captions.txt"
            texts.write_text("".join(f"{text}\n" for text in sorted(set(captions))), encoding="utf-8")
            self.bench.ctk("embed", minilm(), "--data", texts, "--out", out, "--force")
        return f"[text]\nfeatures = {json.dumps(str(out))}\n"

    def text(self, arm):
        if arm == "minilm":
            return f"[text]\nfrozen = true\n[text.tokenizer]\nlongest = 32\n[text.encoder.transformer]\nweights = {json.dumps(minilm())}\n"
        if arm == "word2vec":
            return f"[text]\nfrozen = true\n[text.encoder.static]\nweights = {json.dumps(str(self.words()))}\n"
        return "[text.tokenizer]\nlongest = 32\n[text.tokenizer.train]\nsize = 4000\n[text.encoder.transformer]\nlayers = 4\nwidth = 256\npositions = 64\n"

    # --- families ---------------------------------------------------------------------------------------------------------------

    def images(self, which):
        """Images of a set: path, captions, family, source."""
        folder = self.root / ("emoji-google-64" if which == "emoji" else "pictures-96")
        rows = list(csv.DictReader(open(folder / "captions.csv", encoding="utf-8")))
        if which == "emoji":
            merged = {}
            for row in rows:
                if row["skin_variant"] != "0" or row["group"] == "flags":
                    continue
                key = pixels(folder, row["image"], 32).tobytes()
                found = merged.setdefault(key, {"path": row["image"], "captions": [], "family": row["subgroup"], "source": "emoji", "group": row["group"]})
                found["captions"].append(row["caption"])
            return folder, list(merged.values())
        of = lambda row: {
            "path": row["file"] if (folder / row["file"]).exists() else f"images/{row['file']}",
            "captions": [row["caption"]],
            "family": f"{row['source']} {row['caption'].split()[0].lower()}",
            "source": row["source"],
            "group": row["group"],
        }
        return folder, [of(row) for row in rows if row["caption"].strip()]

    def split(self, rows, seed, share):
        """Whole families for the test, until it has this share."""
        families = sorted({row["family"] for row in rows})
        random.Random(seed).shuffle(families)
        counts = {}
        for row in rows:
            counts[row["family"]] = counts.get(row["family"], 0) + 1
        test, left = set(), share * len(rows)
        for family in families:
            if counts[family] <= left:
                test.add(family)
                left -= counts[family]
        return [row for row in rows if row["family"] not in test], [row for row in rows if row["family"] in test]

    def written(self, name, folder, parts):
        """A table of parts (name, rows), with absolute paths."""
        path = self.there / f"{name}.csv"
        table(path, [
            {"path": str(folder / row["path"]), "caption": caption, "split": part}
            for part, rows in parts for row in rows for caption in row["captions"]
        ])
        return path

    def family(self, which, seed):
        a, (folder, rows) = self.a, self.images(which)
        train, test = self.split(rows, seed, a.share)
        data = self.written(f"{which}-{seed}", folder, [("train", train), ("test", test)])
        epochs = a.emoji_epochs if which == "emoji" else a.picture_epochs
        recipe = f"[data]\npath = {json.dumps(str(data))}\n[pairs]\nsize = 64\n" + FROM_SCRATCH.format(width=a.width) + self.text(a.text)
        run, done = self.train(f"{which}-{seed}", recipe + TRAIN.format(rate=a.rate, epochs=epochs, batch=128, seed=seed, clip=""))
        result = {"seconds": done["whole_seconds"], "test": len(test), "sources": {}}
        for source in [None, *sorted({row["source"] for row in test})] if which == "pictures" else [None]:
            own = [row for row in test if source in (None, row["source"])]
            part = self.written(f"{which}-{seed}-{source}", folder, [("train", own[:2]), ("test", own)])
            found = self.bench.ctk("eval", "retrieval", run, "--data", part)
            kept = {f"{side}@{cut}": found[f"{side}_recall@{cut}"] for side in ("text", "image") for cut in CUTS}
            chance = {f"chance {side}@{cut}": found[f"{side}_chance@{cut}"] for side in ("text", "image") for cut in CUTS}
            result["sources"][source or "all"] = {**kept, **chance, "images": found["images"]}
        return result

    def ridge(self, which, seed):
        a, (folder, rows) = self.a, self.images(which)
        train, test = self.split(rows, seed, a.share)
        x = {id(row): pixels(folder, row["path"]) for row in rows}
        stack = lambda rows: numpy.stack([x[id(row)] for row in rows]).astype(numpy.float64)
        first = lambda rows: [" ".join(row["captions"]) for row in rows]
        inner, held = self.split(train, seed + 1000, 0.2)
        captions, owners = of_captions(held)
        score = lambda strength: recall(ranks(Ridge(strength).fit(stack(inner), first(inner)).scores(stack(held), captions), captions, owners))
        best = max(a.strengths, key=lambda strength: sum(score(strength).values()))
        model, result = Ridge(best).fit(stack(train), first(train)), {"strength": best, "sources": {}}
        for source in [None, *sorted({row["source"] for row in test})] if which == "pictures" else [None]:
            own = [row for row in test if source in (None, row["source"])]
            captions, owners = of_captions(own)
            result["sources"][source or "all"] = recall(ranks(model.scores(stack(own), captions), captions, owners))
        return result

    def families(self):
        for which in self.a.sets:
            sides = [("ctk", lambda seed: self.family(which, seed), True), ("ridge", lambda seed: self.ridge(which, seed), False)]
            found = self.bench.in_turn(f"families-{which}", sides, self.a.seeds)
            for source in found.get("ctk", [{"sources": {}}])[0]["sources"]:
                for side, results in found.items():
                    of = lambda key: statistics.mean(result["sources"][source][key] for result in results)
                    keys = [key for key in results[0]["sources"][source] if key != "images"]
                    line({"row": f"families-{which}", "source": source, "side": side, "seeds": len(results), **{key: round(100 * of(key), 2) for key in keys}})
        return True

    # --- flickr -----------------------------------------------------------------------------------------------------------------

    def efficientnet(self, folder, names):
        """Stored features of EfficientNet-lite0: the pooled ones before its classifier."""
        out = self.there / "efficientnet.npy"
        if out.exists():
            return out
        import timm
        import torch
        from PIL import Image
        from safetensors.torch import load_file

        torch.set_num_threads(self.a.threads)
        model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
        model.load_state_dict(load_file(pathlib.Path(self.a.data) / "models" / "efficientnet-lite0" / "model.safetensors"))
        model.reset_classifier(0)
        transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
        rows = []
        with torch.inference_mode():
            for at in range(0, len(names), 32):
                batch = torch.stack([transform(Image.open(folder / name).convert("RGB")) for name in names[at : at + 32]])
                rows.append(model.eval()(batch).numpy())
        numpy.save(out, numpy.concatenate(rows))
        # The names that ctk gives images of a table: their paths without the first slash.
        (self.there / "efficientnet.npy.names.tsv").write_text("name\n" + "".join(f"{str(folder / name).lstrip(chr(47))}\n" for name in names))
        return out

    def fold(self, arm, turn):
        a, folder = self.a, self.root / "flickr8k-750-train"
        captions = {}
        for row in csv.DictReader(open(folder / "captions.csv", encoding="utf-8")):
            captions.setdefault(row["image"], []).append(row["caption"])
        names = sorted(captions)
        random.Random(0).shuffle(names)
        fold, seed = turn % 5, turn // 5
        rows = [{"path": name, "captions": captions[name]} for name in names]
        test, train = rows[fold::5], [row for at, row in enumerate(rows) if at % 5 != fold]
        data = self.written(f"flickr-{fold}", folder, [("train", train), ("test", test)])
        image, text = arm.split("+")
        head = f"[data]\npath = {json.dumps(str(data))}\n[pairs]\nsize = 96\ncrop = [0.5, 1.0]\nflip = 0.5\n"
        if image == "efficientnet":
            side, epochs, rate = f"[image]\nfeatures = {json.dumps(str(self.efficientnet(folder, names)))}\n", a.stored_epochs, a.stored_rate
        else:
            side, epochs, rate = FROM_SCRATCH.format(width=a.width), a.flickr_epochs, a.rate
        of_text = self.stored([text for row in rows for text in row["captions"]]) if text == "minilm" else self.text(text)
        recipe = head + side + of_text + TRAIN.format(rate=rate, epochs=epochs, batch=64, seed=seed, clip="")
        run, done = self.train(f"{arm}-{turn}", recipe)
        out = self.there / f"{arm}-{turn}.ranks.csv"
        self.bench.ctk("eval", "retrieval", run, "--ranks", out, "--force")
        hits = {}
        for row in csv.DictReader(open(out, encoding="utf-8")):
            hits.setdefault(row["image"], {"text": [], "image": []})[row["finds"]].append(int(row["rank"]) <= 5)
        return {
            "seconds": done["whole_seconds"],
            "hits": {image: (statistics.mean(of["text"]), statistics.mean(of["image"])) for image, of in hits.items()},
        }

    def flickr(self):
        arms = [f"{image}+{text}" for image in ("efficientnet", "resnet") for text in ("minilm", "scratch", "word2vec")]
        arms = [arm for arm in arms if not self.a.arms or arm in self.a.arms]
        sides = [(arm, lambda turn, arm=arm: self.fold(arm, turn), True) for arm in arms]
        found = self.bench.in_turn("flickr", sides, 5 * self.a.flickr_seeds)
        means = {}
        for arm, results in found.items():
            each = {}
            for result in results:
                for image, hits in result["hits"].items():
                    each.setdefault(image, []).append(hits)
            means[arm] = {image: tuple(statistics.mean(hit[side] for hit in hits) for side in (0, 1)) for image, hits in each.items()}
            to_text, to_image = (100 * statistics.mean(of[side] for of in means[arm].values()) for side in (0, 1))
            seconds = statistics.median(result["seconds"] for result in results)
            line({"row": "flickr", "arm": arm, "images": len(means[arm]), "text@5": to_text, "image@5": to_image, "mean@5": (to_text + to_image) / 2, "seconds": seconds})
        draw = numpy.random.default_rng(0)
        for at, left in enumerate(means):
            for right in list(means)[at + 1 :]:
                images = sorted(set(means[left]) & set(means[right]))
                apart = numpy.array([sum(means[left][image]) / 2 - sum(means[right][image]) / 2 for image in images])
                drawn = apart[draw.integers(0, len(apart), (10_000, len(apart)))].mean(1)
                low, high = 100 * numpy.quantile(drawn, [0.025, 0.975])
                line({"row": "flickr", "less": [left, right], "mean": 100 * apart.mean(), "low": low, "high": high, "excludes_0": bool(low > 0 or high < 0)})
        print("MiniLM was trained on pairs that have captions of photos among them", file=sys.stderr)
        return True

    # --- zero-shot --------------------------------------------------------------------------------------------------------------

    def emoji_groups(self, seed):
        a, (folder, rows), (emoji, groups) = self.a, self.images("pictures"), self.images("emoji")
        data = self.written(f"all-{seed}", folder, [("train", rows)])
        recipe = f"[data]\npath = {json.dumps(str(data))}\n[pairs]\nsize = 64\n" + FROM_SCRATCH.format(width=a.width) + self.text("minilm")
        run, _ = self.train(f"all-{seed}", recipe + TRAIN.format(rate=a.rate, epochs=a.picture_epochs, batch=128, seed=seed, clip=""))
        judged, prompts = self.there / "groups.csv", self.there / "prompts.txt"
        table(judged, [{"path": str(emoji / row["path"]), "label": row["group"]} for row in groups if row["group"] != "components"])
        prompts.write_text("{}\na picture of {}\nan icon of {}\n")
        found = self.bench.ctk("eval", "zero-shot", run, "--data", judged, "--prompts", prompts)
        return {key: found[key] for key in ("top1", "mean_per_class", "classes", "chance", "images")}

    def unseen(self, turn):
        a, root = self.a, pathlib.Path(self.a.data) / "vision" / "cifar10"
        classes = sorted(path.name for path in (root / "train").iterdir())
        order = list(classes)
        random.Random(0).shuffle(order)
        two = order[2 * turn : 2 * turn + 2]
        data = self.there / f"cifar-{turn}.csv"
        table(data, [
            {"path": str(path), "label": name, "split": "train"}
            for name in classes if name not in two for path in sorted((root / "train" / name).iterdir())[: a.cifar]
        ])
        recipe = (
            f"[data]\npath = {json.dumps(str(data))}\n[captions]\nholdout = 0.0\nprompts = ['a photo of a {{class}}.', 'a {{class}}', 'a small picture of a {{class}}']\n".replace("{{", "{").replace("}}", "}")
            + '[pairs]\nsize = 32\ncrop = [0.5, 1.0]\nflip = 0.5\n[image.encoder.resnet]\ndepth = 18\nwidth = 0.25\nstem = "small"\n' + self.text("minilm")
        )
        run, _ = self.train(f"cifar-{turn}", recipe + TRAIN.format(rate=a.rate, epochs=a.cifar_epochs, batch=128, seed=turn, clip=""))
        judged = self.there / f"unseen-{turn}.csv"
        table(judged, [{"path": str(path), "label": name} for name in two for path in sorted((root / "test" / name).iterdir())])
        found = self.bench.ctk("eval", "zero-shot", run, "--data", judged)
        seen = self.there / f"seen-{turn}.csv"
        table(seen, [{"path": str(path), "label": name} for name in classes if name not in two for path in sorted((root / "test" / name).iterdir())])
        return {"two": two, "top1": found["top1"], "seen_top1": self.bench.ctk("eval", "zero-shot", run, "--data", seen)["top1"]}

    def zero(self):
        found = self.bench.in_turn("zero-emoji", [("ctk", self.emoji_groups, True)], self.a.seeds)
        for seed, result in enumerate(found.get("ctk", [])):
            line({"row": "zero-emoji", "seed": seed, **result})
        found = self.bench.in_turn("zero-cifar", [("ctk", self.unseen, True)], 5)
        results = found.get("ctk", [])
        for result in results:
            line({"row": "zero-cifar", **result})
        if results:
            shares = [result["top1"] for result in results]
            line({"row": "zero-cifar", "mean": statistics.mean(shares), "sd": statistics.stdev(shares), "chance": 0.5})
        return True

    # --- speed ------------------------------------------------------------------------------------------------------------------

    def large(self):
        a, (folder, rows) = self.a, self.images("pictures")
        data = self.written("large", folder, [("train", rows)])
        start = f"[data]\npath = {json.dumps(str(data))}\ncache = \"64MB\"\n[captions]\nholdout = 0.0\nsame = 'none'\n"

        def steps(batch, part):
            recipe = (
                start + "[pairs]\nsize = 64\n[image.encoder.vit]\npatch = 8\nwidth = 192\nlayers = 4\nheads = 3\n" + self.text("scratch")
                + TRAIN.format(rate=1e-4, epochs=1000, batch=batch, seed=0, clip=f"max_steps = 2\npart = {part}\n")
            )
            return {"peak_mb": self.train(f"large-{batch}", recipe)[1]["peak_mb"]}

        sides = [("ctk-4096-in-parts", lambda _: steps(4096, 256), True), ("ctk-256", lambda _: steps(256, 256), True)]
        found = self.bench.in_turn("large-memory", sides, a.turns)
        if len(found) == 2:
            ratios = [left["peak_mb"] / right["peak_mb"] for left, right in zip(*(found[side] for side, *_ in sides))]
            peaks = {side: statistics.median(one["peak_mb"] for one in of) for side, of in found.items()}
            line({"row": "large-memory", "mb": peaks, "ratio": statistics.median(ratios), "least": min(ratios), "most": max(ratios)})

        draw, width, features = numpy.random.default_rng(0), 512, {}
        names = {
            "image": [str(folder / row["path"]).lstrip("/") for row in rows],
            "text": sorted({caption for row in rows for caption in row["captions"]}),
        }
        for side, own in names.items():
            features[side] = self.there / f"random-{side}.npy"
            numpy.save(features[side], draw.standard_normal((len(own), width), dtype=numpy.float32))
            with open(f"{features[side]}.names.tsv", "w", encoding="utf-8") as file:
                file.write("name\n" + "".join(f"{name}\n" for name in own))

        def ours(loss):
            recipe = start + "".join(f"[{side}]\nfeatures = {json.dumps(str(path))}\n[{side}.head]\nwidth = {width}\n" for side, path in features.items())
            recipe += {"infonce": "[loss.infonce]\nlearned = true\n", "siglip": "[loss.siglip]\n"}[loss]
            path = self.there / f"loss-{loss}.toml"
            path.write_text(recipe + TRAIN.format(rate=1e-4, epochs=1, batch=4096, seed=0, clip=""))
            done = self.bench.ctk("bench", "image-text", "--config", path)
            return {"milliseconds": done["step_ms"]["loss"], "grown_mb": done["peak_rss_mb"]}

        def plain(loss):
            text, _ = self.bench.process(sys.executable, __file__, "peer", "--loss", loss, "--threads", a.threads)
            return json.loads(text.splitlines()[-1])

        for loss in ("infonce", "siglip"):
            sides = [("ctk", lambda _, loss=loss: ours(loss), True), ("pytorch", lambda _, loss=loss: plain(loss), False)]
            compare(f"loss-{loss}", self.bench.in_turn(f"loss-{loss}", sides, a.turns), [("milliseconds", "ms", False), ("grown_mb", "MB", False)])
        return True

    def step(self):
        a, (folder, rows) = self.a, self.images("pictures")
        data = self.written("speed", folder, [("train", rows[: 128 * 16])])

        def ours(precision):
            recipe = (
                f"[data]\npath = {json.dumps(str(data))}\n[captions]\nholdout = 0.0\nsame = 'none'\n[pairs]\nsize = 64\n" + FROM_SCRATCH.format(width=1.0)
                + self.text("scratch") + TRAIN.format(rate=a.rate, epochs=1000, batch=128, seed=0, clip=f'max_steps = {a.steps}\nprecision = "{precision}"\n')
            )
            run, done = self.train(f"speed-{precision}", recipe)
            return {"pairs_per_second": done["pairs_per_second"], "peak_mb": done["peak_mb"]}

        def peer(precision):
            text, process = self.bench.process(sys.executable, __file__, "peer", "--precision", precision, "--steps", a.steps, "--threads", a.threads)
            return {**json.loads(text.splitlines()[-1]), "peak_mb": process["peak_mb"]}

        for precision in ("f32", "bf16"):
            sides = [("ctk", lambda _: ours(precision), True), ("pytorch", lambda _: peer(precision), False)]
            found = self.bench.in_turn(f"step-{precision}", sides, a.turns)
            compare(f"step-{precision}", found, [("pairs_per_second", "1/s", True), ("peak_mb", "MB", False)])
        return True


def plain_loss(a, n=4096, width=512):
    """The plain form of a loss in PyTorch: all similarities of a batch at once."""
    import resource
    import time

    import torch

    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    rows = [torch.randn(n, width, requires_grad=True) for _ in range(2)]
    scale, bias = torch.tensor(2.659, requires_grad=True), torch.tensor(-10.0, requires_grad=True)
    highest = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    before, times = highest(), []
    for _ in range(7):
        start = time.perf_counter()
        left, right = (torch.nn.functional.normalize(one, dim=1) for one in rows)
        if a.loss == "infonce":
            logits, target = scale.exp() * left @ right.T, torch.arange(n)
            loss = (torch.nn.functional.cross_entropy(logits, target) + torch.nn.functional.cross_entropy(logits.T, target)) / 2
        else:
            logits = scale.exp() * left @ right.T + bias
            loss = -torch.nn.functional.logsigmoid((2 * torch.eye(n) - 1) * logits).sum() / n
        loss.backward()
        times.append(time.perf_counter() - start)
        for one in [*rows, scale, bias]:
            one.grad = None
    print(json.dumps({"milliseconds": 1e3 * statistics.median(times[2:]), "grown_mb": highest() - before}))


def peer(a):
    """PyTorch's side of `step`, one process."""
    if a.loss:
        return plain_loss(a)
    import time

    import torch
    import torchvision
    import transformers

    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    image = torchvision.models.resnet18(num_classes=256)
    config = transformers.BertConfig(vocab_size=4000, hidden_size=256, num_hidden_layers=4, num_attention_heads=4, intermediate_size=1024, max_position_embeddings=64)
    text = transformers.BertModel(config, add_pooling_layer=False)
    project = torch.nn.Linear(256, 256, bias=False)
    scale = torch.nn.Parameter(torch.tensor(2.659))
    image = image.to(memory_format=torch.channels_last)
    parameters = [*image.parameters(), *text.parameters(), *project.parameters(), scale]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.2)
    batches = [
        (torch.rand(128, 3, 64, 64).contiguous(memory_format=torch.channels_last), torch.randint(0, 4000, (128, a.tokens))) for _ in range(4)
    ]
    target = torch.arange(128)
    start = None
    for at in range(a.steps + 2):
        if at == 2:
            start = time.perf_counter()
        x, ids = batches[at % 4]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=a.precision == "bf16"):
            left = image(x)
            right = project(text(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state.mean(1))
        left, right = (torch.nn.functional.normalize(rows.float(), dim=1) for rows in (left, right))
        logits = scale.exp() * left @ right.T
        loss = (torch.nn.functional.cross_entropy(logits, target) + torch.nn.functional.cross_entropy(logits.T, target)) / 2
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            scale.clamp_(0, 4.6052)
    print(json.dumps({"pairs_per_second": 128 * a.steps / (time.perf_counter() - start), "loss": loss.item()}))


def main():
    if sys.argv[1:2] == ["peer"]:
        import argparse

        parser = argparse.ArgumentParser()
        parser.add_argument("peer")
        parser.add_argument("--precision", default="f32")
        parser.add_argument("--loss", choices=("infonce", "siglip"), help="this loss alone")
        parser.add_argument("--steps", type=int, default=20)
        parser.add_argument("--threads", type=int, default=2)
        # Tokens of an average caption of pictures-96, special tokens included.
        parser.add_argument("--tokens", type=int, default=6)
        return peer(parser.parse_args())
    parser = options(__doc__, seeds=5)
    parser.add_argument("what", choices=("families", "flickr", "zero", "large", "step"))
    parser.add_argument("--sets", nargs="+", default=["emoji", "pictures"])
    parser.add_argument("--arms", nargs="+", default=[])
    parser.add_argument("--share", type=float, default=0.1, help="share of the images in test families")
    parser.add_argument("--width", type=float, default=0.5, help="of the ResNet-18 from scratch")
    parser.add_argument("--text", default="scratch", choices=("scratch", "minilm", "word2vec"), help="the text tower of `families`")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--emoji-epochs", type=int, default=60)
    parser.add_argument("--picture-epochs", type=int, default=12)
    parser.add_argument("--flickr-epochs", type=int, default=40)
    parser.add_argument("--flickr-seeds", type=int, default=2)
    parser.add_argument("--stored-epochs", type=int, default=40)
    parser.add_argument("--stored-rate", type=float, default=1e-3)
    parser.add_argument("--cifar", type=int, default=2500, help="training images of a class")
    parser.add_argument("--cifar-epochs", type=int, default=5)
    parser.add_argument("--strengths", type=float, nargs="+", default=[1e-3, 1e-2, 1e-1, 1.0, 10.0])
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--turns", type=int, default=5)
    a = parser.parse_args()
    bench = Bench(parser, a)
    with bench.folder() as there:
        try:
            done = getattr(Work(bench, there), a.what)()
        except Failed as why:
            print(f"failed: {why}", file=sys.stderr)
            done = False
    return 0 if done else 1


if __name__ == "__main__":
    sys.exit(main())
