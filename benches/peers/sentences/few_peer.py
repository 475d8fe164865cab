"""What a user would run instead of `ctk finetune` on texts: SetFit. One JSON line on stdout.

few.py calls it; by hand:

    python few_peer.py --model FOLDER --train train.tsv --test test.tsv --longest 128

The files have the columns `label` and `text`. All settings but the length, the seed and --max-steps are SetFit's own.
"""

import argparse
import json
import pathlib
import tempfile
import time


def read(path):
    rows = [line.split("\t", 1) for line in pathlib.Path(path).read_text(encoding="utf-8").split("\n")[1:] if line]
    return [text for _, text in rows], [label for label, _ in rows]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--train", required=True)
    parser.add_argument("--test", required=True)
    parser.add_argument("--longest", type=int, default=128)
    parser.add_argument("--max-steps", type=int, default=-1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    a = parser.parse_args()

    import torch
    from datasets import Dataset
    from setfit import SetFitModel, Trainer, TrainingArguments

    torch.set_num_threads(a.threads)
    texts, labels = read(a.train)
    names = sorted(set(labels))
    model = SetFitModel.from_pretrained(a.model, device="cpu")
    model.model_body.max_seq_length = a.longest
    with tempfile.TemporaryDirectory() as there:
        told = TrainingArguments(
            output_dir=there, seed=a.seed, max_steps=a.max_steps, save_strategy="no", report_to="none", show_progress_bar=False
        )
        data = Dataset.from_dict({"text": texts, "label": [names.index(label) for label in labels]})
        start = time.perf_counter()
        trainer = Trainer(model=model, args=told, train_dataset=data)
        trainer.train()
        seconds = time.perf_counter() - start
    texts, labels = read(a.test)
    found = [names[int(at)] for at in model.predict(texts, show_progress_bar=False)]
    right = sum(one == label for one, label in zip(found, labels)) / len(labels)
    print(json.dumps({"accuracy": right, "seconds": seconds, "steps": trainer.st_trainer.state.global_step}))


if __name__ == "__main__":
    main()
