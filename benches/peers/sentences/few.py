"""Classifiers of texts by few labels: `ctk finetune` beside SetFit and a linear probe, on the same labelled texts.

    CTK_DATA=DATA venv/bin/python few.py ../../../target/release/ctk --log few.jsonl
    CTK_DATA=DATA venv/bin/python few.py ../../../target/release/ctk --cases trec:2 --seeds 2 --test-limit 100 --max-steps 5

A case is a set and its labels a class. For each of --seeds the labelled texts are drawn once and written as a table (`label`, `text`) into
--files, so that all sides read the same; all begin with a copy of --model that cuts texts to --longest tokens. Sides: `ctk`, `setfit` (its
own settings) and `probe` (a logistic regression on the encoder's rows, standardised, its strength chosen by three folds of the labelled
texts where there are three of each class). The commands of ctk are --ctk-finetune and --ctk-predict, in which {model}, {train}, {test},
{seed}, {out} and {predicted} (a CSV with the column `predicted`) are replaced. Settings are each program's own, also the number of pairs:
SetFit takes all of them, so that 64 labels a class take hours; --max-steps ends it earlier, with the schedule of so many steps.

Accuracy is on the whole test part, by the predictions; if `ctk finetune` names another one, its side is left out. Differences are ctk's
accuracy less the other's, on the same subset, with 95 % by Student's t. Seconds and memory are those of the process that trains and tests.
"""

import csv
import json
import pathlib
import shutil

import numpy

import data
import scores
from shared import Bench, Failed, compare, fresh, option_of_model, options

CASES = ["sst2:8", "sst2:64", "trec:8", "trec:64", "20news:8"]
FINETUNE = "finetune {model} --data {train} --test {test} --labels 100% --seed {seed} --out {out}"
PREDICT = "predict {out} --data {test} --out {predicted}"
FIGURES = [("whole_seconds", "s", False), ("peak_mb", "MB", False)]


def short(model, there, longest):
    """A copy of a folder of sentence-transformers whose texts are cut to `longest` tokens."""
    shutil.copytree(model, there, dirs_exist_ok=True)
    listed = there / "modules.json"
    modules = json.loads(listed.read_text()) if listed.is_file() else []
    place = there / next((module["path"] for module in modules if module["type"].endswith(".Transformer")), "")
    told = place / "sentence_bert_config.json"
    of = json.loads(told.read_text()) if told.is_file() else {}
    told.write_text(json.dumps({**of, "max_seq_length": longest}))
    return there


class Case:
    def __init__(self, bench, there, case, model):
        self.bench, self.a, self.there, self.case, self.model = bench, bench.a, there, case, model
        name, each = case.split(":")
        self.train, test = data.classes(self.a.data, name)
        self.each = int(each)
        limit = self.a.test_limit
        self.test = [test[at * len(test) // limit] for at in range(min(limit, len(test)))] if limit else test
        self.files = pathlib.Path(self.a.files) if self.a.files else there / "subsets"
        self.files.mkdir(parents=True, exist_ok=True)
        self.rows = {}
        self.test_file = self.write(f"{name}-test.tsv", self.test)

    def write(self, name, samples):
        return data.write(self.files / name, [(label, text) for text, label in samples], ("label", "text"))

    def subset(self, seed):
        drawn = data.few(self.train, self.each, seed)
        return drawn, self.write(f"{self.case.replace(':', '-')}-{seed}.tsv", drawn)

    def ctk(self, seed):
        _, train = self.subset(seed)
        out, predicted = fresh(self.there, f"{self.case.replace(':', '-')}-{seed}"), self.there / "predicted.csv"
        told = {"model": self.model, "train": train, "test": self.test_file, "seed": seed, "out": out, "predicted": predicted}
        # Cut first, so that a path with blanks stays one word.
        command = lambda text: [part.format(**told) for part in text.split()]
        predicted.unlink(missing_ok=True)
        trained = self.bench.ctk(*command(self.a.ctk_finetune))
        self.bench.ctk(*command(self.a.ctk_predict), json_line=False)
        with open(predicted, newline="", encoding="utf-8") as file:
            found = [row["predicted"] for row in csv.DictReader(file)]
        if len(found) != len(self.test):
            raise Failed(f"ctk predict gave {len(found)} rows for {len(self.test)} texts")
        right = sum(one == label for one, (_, label) in zip(found, self.test)) / len(found)
        if abs(trained.get("top1", right) - right) > 1e-6:
            raise Failed(f"ctk finetune measured {trained['top1']} on the test texts, and its predictions are right for {right}")
        return {"accuracy": right, **{key: trained[key] for key in ("whole_seconds", "peak_mb")}}

    def setfit(self, seed):
        _, train = self.subset(seed)
        steps = ["--max-steps", self.a.max_steps] if self.a.max_steps else []
        files = ["--train", train, "--test", self.test_file, "--longest", self.a.longest]
        return self.bench.peer("few_peer.py", "--model", self.model, *files, *steps, "--seed", seed, python=self.a.setfit_python)

    def embed(self, texts):
        """Rows of texts by the model as it is: those that are not there yet."""
        new = [text for text in dict.fromkeys(texts) if text not in self.rows]
        self.rows.update(zip(new, scores.unit(self.bench.embed(self.model, new, self.there / "rows"))) if new else ())

    def probe(self, seed):
        drawn, _ = self.subset(seed)
        self.embed(text for part in (drawn, self.test) for text, _ in part)
        of = lambda part: (numpy.stack([self.rows[text] for text, _ in part]), [label for _, label in part])
        return {"accuracy": scores.accuracy(*of(drawn), *of(self.test))}

    def run(self):
        sides = [("ctk", self.ctk, True), ("setfit", self.setfit, False), ("probe", self.probe, True)]
        found = self.bench.in_turn(self.case, [side for side in sides if side[0] in self.a.sides], self.a.seeds)
        compare(self.case, {name: of for name, of in found.items() if name != "probe"}, FIGURES, labels=len(self.subset(0)[0]))
        scores.report(self.case, {name: [{"accuracy": one["accuracy"]} for one in of] for name, of in found.items()})


def main():
    parser = options(__doc__, seeds=5)
    option_of_model(parser)
    parser.add_argument("--cases", nargs="+", default=CASES, metavar="SET:LABELS")
    parser.add_argument("--sides", nargs="+", choices=["ctk", "setfit", "probe"], default=["ctk", "setfit", "probe"])
    parser.add_argument("--files", help="a folder for the labelled texts; default: with the other files on the way")
    parser.add_argument("--longest", type=int, default=128, help="tokens of a text")
    parser.add_argument("--max-steps", type=int, help="of SetFit, at most; default: its own number")
    parser.add_argument("--test-limit", type=int, help="test texts at most")
    parser.add_argument("--ctk-finetune", default=FINETUNE, metavar="COMMAND")
    parser.add_argument("--ctk-predict", default=PREDICT, metavar="COMMAND")
    parser.add_argument("--setfit-python", help="another interpreter for SetFit")
    a = parser.parse_args()
    bench = Bench(parser, a)
    for case in a.cases:
        name, _, each = case.partition(":")
        if name not in [*data.CLASSES, "20news"] or not each.isdigit() or int(each) < 1:
            parser.error(f"there is no case {case}: a case is a set and its labels a class, as in trec:8")
    with bench.folder() as there:
        model = short(a.model, there / "model", a.longest)
        for case in a.cases:
            Case(bench, there, case, model).run()


if __name__ == "__main__":
    try:
        main()
    except Failed as why:
        raise SystemExit(f"{why}")
