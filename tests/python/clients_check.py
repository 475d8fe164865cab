"""Opens what ctk exports with the programs that it is exported for.

    pip install -r tests/python/requirements.txt
    CTK_PYTHON=python3 cargo test --test clients -- --ignored

`tests/clients.rs` runs this script: `clients_check.py CHECK PATH EXPECTED`, where EXPECTED is a JSON object of words (or texts)
and the vectors that ctk says they have. `fasttext-makes` goes the other way: it trains models with fastText and says what vectors
they have.
"""

import json
import math
import os
import subprocess
import sys

import numpy as np

os.environ["HF_HUB_OFFLINE"] = "1"


def same(what, vector, expected, bound=1e-6):
    off = float(np.abs(np.asarray(vector, dtype=np.float64) - np.asarray(expected)).max())
    assert off <= bound, f"{what}: off by {off:.2e}"


def gensim_word2vec(path, expected):
    """Text, text without its first line, and binary: path is without .txt and .bin."""
    from gensim.models import KeyedVectors

    with open(path + ".txt", encoding="utf-8") as whole, open(path + ".headless", "w", encoding="utf-8") as body:
        body.writelines(list(whole)[1:])
    for file, options in [(".txt", {}), (".headless", {"no_header": True}), (".bin", {"binary": True})]:
        vectors = KeyedVectors.load_word2vec_format(path + file, **options)
        assert len(vectors) == len(expected), (file, len(vectors), len(expected))
        assert list(vectors.index_to_key) == list(expected), f"{file}: the words or their order differ"
        for word, vector in expected.items():
            same(f"{file}: {word}", vectors[word], vector, 0.0)


def gensim_fasttext(path, expected):
    """Vectors of words, seen and unseen; then training goes on."""
    from gensim.models.fasttext import load_facebook_model, load_facebook_vectors

    for vectors in (load_facebook_vectors(path), load_facebook_model(path).wv):
        for word, vector in expected.items():
            # gensim has an error in place of zeros.
            if any(vector):
                same(word, vectors[word], vector)
    model = load_facebook_model(path)
    before = model.wv.vectors.copy()
    # gensim 4.4 has no output rows for new words of a hierarchical softmax.
    words = list(model.wv.index_to_key[:50])
    text = [words, words[::-1]] * 20
    if not model.hs:
        text += [["entirely", "new"] + words[:3]] * 20
    model.build_vocab(text, update=True)
    model.train(text, total_examples=len(text), epochs=2)
    assert np.isfinite(model.wv.vectors).all()
    moved = np.abs(model.wv.vectors[: len(before)] - before).max()
    assert 1e-4 < moved < 10, f"training moved vectors by {moved}"


def wheel_vector(model, word):
    """`get_word_vector`, without the copy=False that numpy 2 does not accept from the wheel's other calls."""
    import fasttext_pybind

    vector = fasttext_pybind.Vector(model.get_dimension())
    model.f.getWordVector(vector, word)
    return np.array(vector)


def fasttext_wheel(path, expected):
    import fasttext

    model = fasttext.load_model(path)
    for word, vector in expected.items():
        same(word, wheel_vector(model, word), vector)
    bits = likelihood(model, path)
    if bits is not None:
        chance = math.log2(len(model.get_words()))
        assert bits < chance - 1.0, f"{bits} bits a word by the tree, {chance} by chance"


def likelihood(model, path):
    """Bits that hierarchical softmax needs for a word beside each of a text's words, by fastText's tree (`HierarchicalSoftmaxLoss`);
    none where it is no such model. The text lies beside the model."""
    text = path + ".text"
    if not os.path.exists(text):
        return None
    words, counts = model.get_words(include_freq=True)
    size = len(words)
    nodes, parent, binary = [int(c) for c in counts] + [10**15] * (size - 1), [-1] * (2 * size - 1), [False] * (2 * size - 1)
    leaf, node = size - 1, size
    for made in range(size, 2 * size - 1):
        two = []
        for _ in range(2):
            if leaf >= 0 and nodes[leaf] < nodes[node]:
                two.append(leaf)
                leaf -= 1
            else:
                two.append(node)
                node += 1
        nodes[made] = nodes[two[0]] + nodes[two[1]]
        parent[two[0]] = parent[two[1]] = made
        binary[two[1]] = True
    output, place = np.array(model.f.getOutputMatrix()), {word: i for i, word in enumerate(words)}
    total, pairs = 0.0, 0
    for line in list(open(text, encoding="utf-8"))[:300]:
        line = [word for word in line.split() if word in place]
        for a, b in zip(line, line[1:]):
            vector, at = wheel_vector(model, a), place[b]
            while parent[at] != -1:
                score = float(output[parent[at] - size] @ vector)
                total += math.log2(1 + math.exp(-score if binary[at] else score))
                at = parent[at]
            pairs += 1
    return total / pairs


def fasttext_makes(path, _):
    """Trains models of every kind and prints the vectors of some words."""
    import fasttext

    lines = [f"the größte 日本 number {'even' if i % 2 else 'odd'} word{i % 7} naïve x👍🏽y\n" for i in range(400)]
    with open(path + ".text", "w", encoding="utf-8") as file:
        file.writelines(lines)
    with open(path + ".labelled", "w", encoding="utf-8") as file:
        file.writelines(f"__label__{'ab'[i % 2]} {line}" for i, line in enumerate(lines))
    made = {}
    for name, options in {
        "skipgram": dict(model="skipgram", minn=2, maxn=5, bucket=500),
        "cbow": dict(model="cbow", minn=3, maxn=6, bucket=2000, loss="hs"),
        "plain": dict(model="skipgram", maxn=0, bucket=0),
    }.items():
        made[name] = fasttext.train_unsupervised(path + ".text", dim=10, minCount=1, epoch=3, thread=1, verbose=0, **options)
    options = dict(dim=10, minCount=1, epoch=3, thread=1, verbose=0, minn=2, maxn=3, bucket=300)
    # Labels are none of its words, and in its file all the same.
    made["words beside labels"] = fasttext.train_unsupervised(path + ".labelled", **options)
    made["classes"] = fasttext.train_supervised(path + ".labelled", **options)
    vectors = {}
    for name, model in made.items():
        model.save_model(f"{path}.{name}.bin")
        words = [*model.get_words(), "größer", "日", "unseen", "", "</s>"]
        vectors[name] = {word: [float(v) for v in wheel_vector(model, word)] for word in words}
    made["classes"].quantize(retrain=False, qnorm=False)
    made["classes"].save_model(path + ".quantised.bin")
    print(json.dumps(vectors))


def sentence_transformers(path, expected):
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(path, device="cpu")
    for text, vector in expected.items():
        same(repr(text), model.encode(text), vector)
    batch = model.encode(list(expected))
    same("a batch", batch, list(expected.values()))


def spacy_vectors(path, expected):
    import spacy

    command = [sys.executable, "-m", "spacy", "init", "vectors", "en", path + ".txt", path + ".spacy"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    language = spacy.load(path + ".spacy")
    assert len(language.vocab.vectors) == len(expected), (len(language.vocab.vectors), len(expected))
    for word, vector in expected.items():
        assert language.vocab.has_vector(word), word
        same(word, language.vocab[word].vector, vector, 0.0)


CHECKS = {
    "gensim-word2vec": gensim_word2vec,
    "gensim-fasttext": gensim_fasttext,
    "fasttext-wheel": fasttext_wheel,
    "fasttext-makes": fasttext_makes,
    "sentence-transformers": sentence_transformers,
    "spacy": spacy_vectors,
}

if __name__ == "__main__":
    _, check, path, expected = sys.argv
    with open(expected, encoding="utf-8") as file:
        CHECKS[check](path, json.load(file))
