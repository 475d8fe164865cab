"""Writes a text of any size whose words follow Zipf's law, most of them rare: what a reader's memory is tried by.

    python3 zipf.py --bytes 2e9 > zipf.txt
    /usr/bin/time -v ctk train word2vec --data zipf.txt --set data.cache=100MB ...

Word r, written in letters, has a share in proportion to 1/r among --words of them; lines have 20 words on average. The same
arguments give the same bytes.
"""

import argparse
import sys

import numpy as np

LETTERS = np.frombuffer(b"etaoinshrdlcumwf", dtype=np.uint8)
BLOCK = 1 << 20
DIGITS = 8


def block(random, words):
    """About BLOCK words as bytes."""
    rank = np.exp(random.random(BLOCK) * np.log(words)).astype(np.uint32)
    shift = np.arange(4 * (DIGITS - 1), -1, -4, dtype=np.uint32)
    digits = rank[:, None] >> shift
    text = np.empty((BLOCK, DIGITS + 1), dtype=np.uint8)
    text[:, :DIGITS] = LETTERS[digits & 15]
    text[:, DIGITS] = np.where(random.random(BLOCK) < 1 / 20, ord("\n"), ord(" "))
    written = np.ones(text.shape, dtype=bool)
    written[:, :DIGITS] = digits > 0  # no leading zeros
    return text[written].tobytes()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bytes", type=float, default=2e9)
    parser.add_argument("--words", type=float, default=5e7, help="different words that there can be")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    random = np.random.default_rng(arguments.seed)
    left = int(arguments.bytes)
    while left > 0:
        part = block(random, arguments.words)[:left]
        left -= len(part)
        sys.stdout.buffer.write(part)


if __name__ == "__main__":
    main()
