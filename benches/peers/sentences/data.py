"""The data sets that the comparisons of sentences read, as lists of texts. White space within a text is one blank: a text is a line.

What may choose a setting and what may not: STS 2012's train part and SICK's train and trial parts choose, STS 2012's test part, 2013, 2014
and SICK's test part are looked at once, at the end (`final`). The sets OnWN and FNWN are definitions like those that
some encoders here are trained on, so STS is judged without them; figures with them stand beside. Nothing is trained on `qa-nli`.
"""

import pathlib
import random
import re

# Definitions of WordNet's and FrameNet's.
SEEN = ("OnWN", "FNWN")
# Which columns of `sentence-pairs` are the anchor and the positive.
PAIRS = {"debian": (2, 3), "wordnet": (2, 3), "bible": (1, 2), "chitchat": (1, 2)}
# File of one part, or files of train and test.
CLASSES = {
    "sst2": ("stsa.binary.train.tsv", "stsa.binary.test.tsv"),
    "trec": ("TREC.train.tsv", "TREC.test.tsv"),
    "subj": "subj.tsv",
    "cr": "custrev.tsv",
    "mpqa": "mpqa.tsv",
}


def clean(text):
    return " ".join(text.split())


def table(path, header=True):
    rows = [row.split("\t") for row in pathlib.Path(path).read_text(encoding="utf-8").split("\n") if row]
    return rows[1:] if header else rows


def sts(folder, final=False):
    """Lists of (source, first, second, score) by name."""
    folder, sets = pathlib.Path(folder) / "text" / "sentence-similarity", {}
    for year, source, score, first, second in table(folder / "sts-2012-2014.tsv"):
        if final == source.endswith(".test"):
            name = f"sts{year}" if final else f"sts{year}-train"
            sets.setdefault(name, []).append((source, clean(first), clean(second), float(score)))
    sick = sets.setdefault("sick-test" if final else "sick-train-trial", [])
    for part, score, _, first, second in table(folder / "sick2014.tsv"):
        if final == (part == "test"):
            sick.append(("SICK", clean(first), clean(second), float(score)))
    return sets


def pairs(folder, name, part):
    """Anchors with their positives; neither is empty."""
    first, second = PAIRS[name]
    rows = table(pathlib.Path(folder) / "text" / "sentence-pairs" / name / f"{part}.tsv", header=False)
    found = ((clean(row[first]), clean(row[second])) for row in rows)
    return [(anchor, positive) for anchor, positive in found if anchor and positive]


def newsgroups(folder):
    """Texts (subject and body) and classes: train, test."""
    parts = {"train": [], "test": []}
    plain = lambda found: "\\" if found[1] == "\\" else " "
    for part, group, _, subject, body in table(pathlib.Path(folder) / "text" / "20news.tsv"):
        parts[part].append((clean(f"{subject} " + re.sub(r"\\([ntr\\])", plain, body)), group))
    return parts["train"], parts["test"]


def classes(folder, name, seed=0):
    """Texts with classes: train, test. Sets of one part are divided: a fifth of each class, drawn by `seed`, is the test part."""
    if name == "20news":
        return newsgroups(folder)
    files, below = CLASSES[name], pathlib.Path(folder) / "text" / "sentence-classification"
    read = lambda file: [(clean(row[1]), row[0]) for row in table(below / file) if clean(row[1])]
    if not isinstance(files, str):
        return read(files[0]), read(files[1])
    by_class, train, test = {}, [], []
    # A text stands once, so that no text is on both sides.
    for text, label in dict(read(files)).items():
        by_class.setdefault(label, []).append(text)
    for label in sorted(by_class):
        texts = by_class[label]
        random.Random(seed).shuffle(texts)
        cut = len(texts) // 5
        test += [(text, label) for text in texts[:cut]]
        train += [(text, label) for text in texts[cut:]]
    return train, test


def few(samples, each, seed):
    """`each` texts of every class, drawn by `seed`; in an order that is drawn, too."""
    draw, by_class = random.Random(seed), {}
    for text, label in samples:
        by_class.setdefault(label, []).append(text)
    drawn = [(text, label) for label in sorted(by_class) for text in draw.sample(by_class[label], min(each, len(by_class[label])))]
    draw.shuffle(drawn)
    return drawn


def news(folder):
    """The documents of Wikinews and film reviews, one after the other."""
    with open(pathlib.Path(folder) / "text" / "news-reviews-17m.txt", encoding="utf-8") as file:
        yield from (clean(document) for document in file if document.strip())


def windows(folder, words, count):
    """`count` texts of `words` words from all over the news and reviews: every so many-th window."""
    found = []
    for document in news(folder):
        parts = document.split()
        found += [" ".join(parts[start:start + words]) for start in range(0, len(parts) - words + 1, words)]
    return even(found, count)


def even(texts, count):
    """`count` of the texts at most, from all over the list."""
    return [texts[at * len(texts) // count] for at in range(min(count, len(texts)))]


def mixture(folder, words, count, seed=0):
    """`count` different texts of several kinds, as many of each: windows of news and reviews, package descriptions, definitions, verses, lines
    of dialogue, and windows of posts (20 newsgroups, the training part). No text of a test part is among them."""
    kinds = [windows(folder, words, count)]
    for name in PAIRS:
        both = (text for pair in pairs(folder, name, "train") for text in pair)
        kinds.append([text for text in dict.fromkeys(both) if len(text.split()) > 3])
    posts = (text.split() for text, _ in newsgroups(folder)[0])
    kinds.append([" ".join(post[start:start + words]) for post in posts for start in range(0, len(post) - words + 1, 4 * words)])
    found = list(dict.fromkeys(text for kind in kinds for text in even(kind, count // len(kinds))))
    random.Random(seed).shuffle(found)
    return found


def write(path, rows, header=None):
    """A table of texts, with tabs between."""
    lines = ["\t".join(row) for row in ([header] if header else []) + list(rows)]
    pathlib.Path(path).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path
