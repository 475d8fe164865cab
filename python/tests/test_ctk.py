"""The module with the program: python -m unittest discover python/tests, where both are installed (`pip install .`)."""

import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import numpy as np

import ctk

SMALL = {
    "data.train": 24, "data.test": 12, "pairs.size": 16, "encoder.resnet.depth": 20, "encoder.resnet.width": 0.25, "head.width": 8,
    "head.layers": 2, "train.batch": 6, "train.epochs": 2, "train.log_every": 2, "schedule.warmup": 1, "eval": {},
}
TEXT = "".join(f"the {('red', 'blue')[i % 2]} house is {('big', 'small')[i % 3 % 2]} in town\n" for i in range(300))


class WithProgram(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.at = Path(folder.name)

    def words(self) -> "ctk.Run":
        (self.at / "text.txt").write_text(TEXT, encoding="utf-8")
        keys = {"encoder.table.width": 8, "vocabulary.min_count": 2, "pairs.subsample": 0, "train.epochs": 2}
        return ctk.train("word2vec", data=self.at / "text.txt", out=self.at / "words", set=keys, quiet=True)

    def test_a_run_of_images(self) -> None:
        run = ctk.train("vision", out=self.at / "a run", set=SMALL, quiet=True)
        self.assertEqual(run.summary["steps"], 8)
        metrics = run.metrics()
        self.assertEqual(list(metrics["step"]), [2, 4, 6, 8])
        self.assertTrue(np.isfinite(metrics["loss"]).all())
        self.assertEqual(run.steps(), [8])
        weights = run.weights()
        self.assertEqual(weights["conv1.weight"].shape[1:], (3, 3, 3))
        self.assertIn("[encoder.resnet]", run.recipe)

        features = ctk.embed(run)
        self.assertEqual((len(features), features.rows.shape[0], features.rows.dtype), (36, 36, np.float32))
        self.assertEqual(features.labels.shape, (36,))
        self.assertEqual([len(features.of(part)) for part in ("train", "test")], [24, 12])
        self.assertEqual(np.asarray(features).shape, features.rows.shape)
        for name in ("f.npy", "f.safetensors", "f.csv"):
            ctk.command("embed", run, "--out", self.at / name, quiet=True)
            again = ctk.read_features(self.at / name)
            self.assertEqual((again.names, again.parts), (features.names, features.parts), name)
            np.testing.assert_allclose(again.rows, features.rows, rtol=1e-6, err_msg=name)
            classes = [again.classes[label] for label in again.labels]
            self.assertEqual(classes, [features.classes[label] or str(label) for label in features.labels], name)

        found = ctk.evaluate(run, "knn")
        self.assertIn("top1", found)
        self.assertEqual(run.evaluations()[-1]["figures"], found)

    def test_words(self) -> None:
        run = self.words()
        near = ctk.neighbors(run, "red", count=3)
        self.assertEqual(len(near["red"]), 3)
        files = {"word2vec-text": "v.txt", "word2vec-binary": "v.bin", "glove": "g.txt", "safetensors": "v.safetensors"}
        tables = []
        for form, name in files.items():
            ctk.command("export", run, "--format", form, "--out", self.at / name, quiet=True)
            tables.append(ctk.read_vectors(self.at / name))
        for table in tables[1:]:
            self.assertEqual(table.words, tables[0].words)
            np.testing.assert_array_equal(table.rows, tables[0].rows)
        self.assertEqual(tables[0]["red"].shape, (8,))
        self.assertIn("blue", tables[0])
        with self.assertRaises(KeyError):
            tables[0]["nowhere"]

    def test_errors_are_the_programs(self) -> None:
        with self.assertRaises(ctk.CtkError) as caught:
            ctk.train("vision", data=self.at / "missing", quiet=True)
        self.assertEqual(caught.exception.code, 2)
        self.assertIn("missing", str(caught.exception))
        self.assertTrue(str(caught.exception).startswith("error: "))
        with self.assertRaises(FileNotFoundError):
            ctk.Run(self.at)

    def test_the_program_is_the_one_that_was_installed(self) -> None:
        self.assertTrue(ctk.command("--version").startswith("ctk "))
        told = subprocess.run([sys.executable, "-c", "import ctk; print(ctk.program())"], capture_output=True, text=True, check=True)
        self.assertTrue(os.path.isfile(told.stdout.strip()), told)


class Files(unittest.TestCase):
    def test_names_with_tabs_and_backslashes(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "x.npy")
            np.save(path, np.zeros((2, 3), np.float32))
            with open(path + ".names.tsv", "w", encoding="utf-8", newline="") as file:
                file.write("name\tlabel\tclass\tsplit\na\\tb\\\\n\t1\tcat\ttrain\n\u00fc\\nx\t0\tdog\ttest\n")
            features = ctk.read_features(path)
        self.assertEqual(features.names, ["a\tb\\n", "\u00fc\nx"])
        self.assertEqual((list(features.labels), features.classes), ([1, 0], ["dog", "cat"]))

    def test_damaged_files_are_errors(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "x.safetensors")
            for content in (b"", b"\xff" * 8, b"\x40\0\0\0\0\0\0\0{}"):
                with open(path, "wb") as file:
                    file.write(content)
                with self.assertRaises(ValueError):
                    ctk.read_safetensors(path)
            path = os.path.join(folder, "x.bin")
            with open(path, "wb") as file:
                file.write(b"2 3\nred " + b"\0" * 12 + b"\nblue")
            with self.assertRaises(ValueError):
                ctk.read_vectors(path)


if __name__ == "__main__":
    unittest.main()
