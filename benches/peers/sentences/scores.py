"""Judges rows of texts, whoever made them: similarity, retrieval, classification; and compares the scores of two programs."""

import math
import statistics

import numpy
from scipy import sparse, stats
from sklearn.preprocessing import normalize

import data
from shared import line


def unit(rows):
    """Rows of length 1, dense or sparse; rows of zeros stay."""
    return normalize(rows if sparse.issparse(rows) else numpy.asarray(rows, dtype=numpy.float32))


def cosines(left, right):
    """Of unit rows in pairs."""
    return numpy.asarray((left.multiply(right) if sparse.issparse(left) else left * right).sum(axis=1)).ravel()


def all_cosines(left, right):
    """Of every unit row on the left with every one on the right."""
    found = left @ right.T
    return found.toarray() if sparse.issparse(found) else found


class Sts:
    """Spearman's correlation of cosines with scores, a year's sets in one list; without the sets that were seen, and with them."""

    def __init__(self, folder, final=False):
        self.sets = data.sts(folder, final)

    def texts(self):
        return [text for pairs in self.sets.values() for _, *both, _ in pairs for text in both]

    def scores(self, rows):
        found, means = {}, {"": [], "_with_seen": []}
        for name, pairs in self.sets.items():
            clean = [pair for pair in pairs if not pair[0].startswith(data.SEEN)]
            for end, of in (("", clean), ("_with_seen", pairs)):
                value = self.spearman(rows, of)
                means[end].append(value)
                if end == "" or len(clean) < len(pairs):
                    found[f"{name}{end}"] = value
        found["sts"] = statistics.mean(means[""])
        if means[""] != means["_with_seen"]:
            found["sts_with_seen"] = statistics.mean(means["_with_seen"])
        return found

    @staticmethod
    def spearman(rows, pairs):
        left, right = rows([pair[1] for pair in pairs]), rows([pair[2] for pair in pairs])
        return float(stats.spearmanr(cosines(left, right), [pair[3] for pair in pairs]).statistic)


class Retrieval:
    """The share of anchors whose own positive is the nearest among `limit` positives; texts that stand twice are left out."""

    def __init__(self, name, pairs, limit=1000):
        self.name, self.pairs, seen = name, [], set()
        for anchor, positive in pairs:
            if len(self.pairs) < limit and anchor not in seen and positive not in seen:
                self.pairs.append((anchor, positive))
                seen |= {anchor, positive}

    def texts(self):
        return [text for pair in self.pairs for text in pair]

    def scores(self, rows):
        anchors, positives = (rows([pair[side] for pair in self.pairs]) for side in (0, 1))
        return {self.name: float((all_cosines(anchors, positives).argmax(axis=1) == numpy.arange(len(self.pairs))).mean())}


class Classes:
    """Accuracy of a logistic regression on rows, which are standardised; its strength is chosen by three folds of the training part.
    `limit` texts of each part at most."""

    def __init__(self, folder, name, limit=None):
        self.name, parts = name, data.classes(folder, name)
        self.train, self.test = (data.even(part, limit) if limit else part for part in parts)

    def texts(self):
        return [text for part in (self.train, self.test) for text, _ in part]

    def scores(self, rows):
        of = lambda part: (rows([text for text, _ in part]), [label for _, label in part])
        return {self.name: accuracy(*of(self.train), *of(self.test))}


def accuracy(train, labels, test, truth):
    """Of a logistic regression that is fitted on `train`."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    if min(labels.count(label) for label in set(labels)) >= 3:
        folds = StratifiedKFold(3, shuffle=True, random_state=0)
        model = GridSearchCV(model, {"logisticregression__C": [1e-4, 1e-3, 1e-2, 1e-1, 1.0]}, cv=folds)
    return float((model.fit(train, labels).predict(test) == numpy.array(truth)).mean())


class Judge:
    """Several judgements of the same rows."""

    def __init__(self, *tasks):
        self.tasks = tasks
        self.texts = list(dict.fromkeys(text for task in tasks for text in task.texts()))
        self.places = {text: at for at, text in enumerate(self.texts)}

    def __call__(self, rows):
        """The scores of rows that belong to `texts`."""
        rows = unit(rows)
        find = lambda texts: rows[[self.places[text] for text in texts]]
        return {name: value for task in self.tasks for name, value in task.scores(find).items()}


def report(row, judged):
    """Lines: each side's mean scores over the seeds with their deviation, and ctk's differences from each other side, seed by seed.
    `judged` has a side's scores, a dictionary a seed."""
    for side, found in judged.items():
        line(mean(row, side, found))
    for side in [side for side in judged if side != "ctk" and "ctk" in judged]:
        of = lambda key, side: [one[key] for one in judged[side]]
        differences = {key: paired(of(key, "ctk"), of(key, side)) for key in judged[side][0]}
        line({"row": row, "side": "ctk", "peer": side, "differences": differences})


def mean(row, side, found):
    """The mean of every score, and its deviation."""
    means = {key: statistics.mean(one[key] for one in found) for key in found[0]}
    spread = {key: statistics.stdev([one[key] for one in found]) for key in found[0]} if len(found) > 1 else None
    return {"row": row, "side": side, "seeds": len(found), "mean": means, "sd": spread}


def paired(ours, theirs):
    """The mean difference of numbers in pairs, with its interval of 95 % by Student's t."""
    differences = [left - right for left, right in zip(ours, theirs, strict=True)]
    middle, count = statistics.mean(differences), len(differences)
    if count < 2:
        return {"difference": middle, "low": None, "high": None, "pairs": count}
    half = float(stats.t.ppf(0.975, count - 1)) * statistics.stdev(differences) / math.sqrt(count)
    return {"difference": middle, "low": middle - half, "high": middle + half, "pairs": count}
