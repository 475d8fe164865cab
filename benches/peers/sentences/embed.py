"""Speed of `ctk embed` beside PyTorch (sentence-transformers) and ONNX Runtime: MiniLM on sentences and documents, with tokenizer.

    CTK_DATA=DATA venv/bin/python embed.py ../../../target/release/ctk
    CTK_DATA=DATA venv/bin/python embed.py ../../../target/release/ctk --rows sick-f32 --pairs 2 --sentences 500

Rows: `sick` (SICK's different sentences) and `20news`, `news` (documents, cut to 256 tokens), each in f32 and bf16. Peers: PyTorch with the
best batch of --batches (in bf16 also the better of a network in bf16 and autocast), ONNX Runtime with fused attention in f32, and
quantised dynamically to int8, which is compared with ctk in f32 and in bf16. Batches are chosen first, by one run each.

`ctk embed` names no seconds of its own, so two times are compared. `whole_seconds` is the process, from start to end, on both sides.
`seconds` is the work on loaded networks: by the clock inside a peer; for ctk, the process less one on a single text. Rows are compared, too:
`cosine` is the least cosine between ctk's and the peer's row of a text.
"""


import numpy

import data
from shared import Bench, Failed, chosen, compare, line, option_of_model, options

FIGURES = [("seconds", "s", False), ("whole_seconds", "s", False), ("peak_mb", "MB", False)]


def texts_of(a, name):
    """Different texts."""
    if name == "sick":
        sets = data.sts(a.data) | data.sts(a.data, final=True)
        found = [text for of, pairs in sets.items() if of.startswith("sick") for _, *both, _ in pairs for text in both]
        return list(dict.fromkeys(found))[:a.sentences]
    documents = [text for text, _ in data.newsgroups(a.data)[1]] if name == "20news" else data.windows(a.data, 400, a.documents)
    return data.even(list(dict.fromkeys(documents)), a.documents)


class Row:
    """One set of texts in one precision."""

    def __init__(self, bench, there, name, precision, networks):
        self.bench, self.a, self.there, self.name, self.precision = bench, bench.a, there, name, precision
        self.row, self.networks = f"{name}-{precision}", networks
        self.all = texts_of(self.a, name)
        self.texts, self.single = there / f"{name}.txt", there / "single.txt"
        self.texts.write_text("".join(f"{text}\n" for text in self.all), encoding="utf-8")
        self.single.write_text("a text\n")

    def ctk(self, _):
        flags = ["--compute", self.precision]
        run = lambda texts, out: self.bench.ctk("embed", self.a.model, "--data", texts, "--out", self.there / out, "--force", *flags)
        whole, least = run(self.texts, "ctk.npy"), run(self.single, "single.npy")
        if whole["rows"] != len(self.all):
            raise Failed(f"ctk embed gave {whole['rows']} rows for {len(self.all)} texts")
        return {**whole, "seconds": whole["whole_seconds"] - least["whole_seconds"]}

    def peer(self, kind, batch, more, turn):
        flags = ["--model", self.a.model, "--texts", self.texts, "--batch", batch, "--longest", self.a.longest]
        return {**self.bench.peer("embed_peer.py", kind, *flags, *more, "--out", self.there / "peer.npy"), "cosine": self.cosine(turn)}

    def cosine(self, _):
        """The least between a row of ctk's and the peer's: both were just written, or ctk's is not there yet."""
        if not (self.there / "ctk.npy").is_file():
            self.ctk(0)
        ours, theirs = numpy.load(self.there / "ctk.npy"), numpy.load(self.there / "peer.npy")
        norms = numpy.linalg.norm(ours, axis=1) * numpy.linalg.norm(theirs, axis=1)
        return float(((ours * theirs).sum(axis=1) / norms).min()) if len(ours) == len(theirs) else None

    def peers(self):
        """Name, kind, and the flags to choose from."""
        if self.precision == "bf16":
            yield "torch", "torch", [["--bf16", "model"], ["--bf16", "autocast"]]
        else:
            yield "torch", "torch", [[]]
        for name in self.networks if self.precision == "f32" else set(self.networks) & {"int8"}:
            yield f"onnx-{name}", "onnx", [["--onnx", str(self.there / "onnx" / f"{name}.onnx")]]

    def best(self, name, kind, flags):
        """The batch and the flags of the fastest run."""
        tried = {}
        for batch in self.a.batches:
            for more in flags:
                row = "-".join([self.row, "batch", str(batch), *(more[1:] if kind == "torch" else [])])
                tried[batch, tuple(more)] = self.bench.once(row, name, 0, lambda: self.peer(kind, batch, more, 0), False)
        return chosen(tried, "seconds", False)

    def run(self):
        sides, found = [("ctk", self.ctk, True)], {}
        for name, kind, flags in self.peers():
            best = self.best(name, kind, flags)
            if best is not None:
                found[name] = {"batch": best[0], **({"bf16": best[1][1]} if kind == "torch" and best[1] else {})}
                sides.append((name, lambda turn, kind=kind, best=best: self.peer(kind, *best, turn), False))
        results = self.bench.in_turn(self.row, sides, self.a.pairs)
        cosines = {name: min(one["cosine"] or 0 for one in of) for name, of in results.items() if name != "ctk"}
        compare(self.row, results, FIGURES, texts=len(self.all), settings=found, least_cosines=cosines)


def main():
    parser = options(__doc__)
    option_of_model(parser)
    parser.add_argument("--rows", nargs="+", metavar="NAME", default=["sick-f32", "20news-f32", "sick-bf16", "20news-bf16"])
    parser.add_argument("--batches", nargs="+", type=int, default=[16, 32, 64])
    parser.add_argument("--sentences", type=int, help="of SICK, at most")
    parser.add_argument("--documents", type=int, default=400)
    parser.add_argument("--longest", type=int, default=256, help="tokens of a text that peers read; ctk reads what the folder says")
    parser.add_argument("--networks", nargs="*", default=["f32", "int8"], help="of ONNX Runtime")
    a = parser.parse_args()
    bench = Bench(parser, a)
    for row in a.rows:
        name, _, precision = row.partition("-")
        if name not in ("sick", "20news", "news") or precision not in ("f32", "bf16"):
            parser.error(f"there is no row {row}: a row is sick, 20news or news, and f32 or bf16, as in sick-bf16")
    with bench.folder() as there:
        if a.networks:
            try:
                line({"row": "export", **bench.peer("embed_peer.py", "export", "--model", a.model, "--out", there / "onnx")})
            except Failed as why:
                line({"row": "export", "left_out": "onnx", "why": str(why)})
                a.networks = []
        for row in a.rows:
            Row(bench, there, *row.split("-"), a.networks).run()


if __name__ == "__main__":
    main()
