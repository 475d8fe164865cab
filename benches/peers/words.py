"""What a user would run instead of `ctk train word2vec`: gensim, in its fastest mode. One JSON line on stdout.

compare.py and quality.py call it; by hand:

    python words.py news.txt --width 100 --threads 2

words_per_second is the text's words times epochs, by the wall clock of training; counting words and saving are apart.
"""

import argparse
import json
import time

from gensim.models import FastText, Word2Vec

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("text")
parser.add_argument("--width", type=int, default=100)
parser.add_argument("--cbow", action="store_true")
parser.add_argument("--subwords", action="store_true", help="words of n-grams: gensim's FastText, 3 to 6 characters")
parser.add_argument("--buckets", type=int, default=2_000_000)
parser.add_argument("--rate", type=float, default=0.025)
parser.add_argument("--epochs", type=int, default=1)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--seed", type=int, default=1)
parser.add_argument("--out", help="where to put the vectors, in word2vec's binary form")
a = parser.parse_args()

subwords = dict(min_n=3, max_n=6, bucket=a.buckets) if a.subwords else {}
model = (FastText if a.subwords else Word2Vec)(
    vector_size=a.width, window=5, negative=5, hs=0, min_count=5, sample=1e-4, alpha=a.rate, min_alpha=1e-4, sg=0 if a.cbow else 1,
    workers=a.threads, epochs=a.epochs, seed=a.seed, **subwords,
)
start = time.perf_counter()
model.build_vocab(corpus_file=a.text)
counted = time.perf_counter()
model.train(corpus_file=a.text, total_words=model.corpus_total_words, total_examples=model.corpus_count, epochs=a.epochs)
seconds = time.perf_counter() - counted
if a.out:
    model.wv.save_word2vec_format(a.out, binary=True)
words = model.corpus_total_words
print(json.dumps({
    "words_per_second": words * a.epochs / seconds, "seconds": seconds, "total_seconds": time.perf_counter() - start,
    "words": words, "vocabulary": len(model.wv),
}))
