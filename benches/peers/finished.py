"""Stores finished measurements in a file of JSON lines, so that they are not repeated."""

import hashlib
import json
import pathlib
import sys


class Finished:
    """`path` may be None: then nothing is stored. Each line has what was run, and the result."""

    def __init__(self, path):
        self.path = path and pathlib.Path(path)
        self.results = {}
        if self.path and self.path.is_file():
            for number, line in enumerate(self.path.read_text().splitlines(), 1):
                try:
                    entry = json.loads(line)
                    self.results[key(entry["run"])] = entry["result"]
                except (ValueError, KeyError, TypeError):
                    # The last line of a process that was killed; it is run again.
                    print(f"{self.path}:{number}: not a finished run, passed over", file=sys.stderr)

    def once(self, run, work):
        """The result of `work()`, from the file if `run` is there. `run` has everything that the result depends on."""
        if key(run) not in self.results:
            result = work()
            self.results[key(run)] = result
            if self.path:
                with self.path.open("a+b") as file:
                    # A line that a killed process left unfinished must not swallow this one.
                    broken = file.tell() and (file.seek(-1, 2), file.read(1) != b"\n")[1]
                    file.write(b"\n" * broken + json.dumps({"run": run, "result": result}).encode() + b"\n")
        return self.results[key(run)]


def key(run):
    return json.dumps(run, sort_keys=True)


def digest(path):
    """What a file is, whatever it is called: programs that were built again are measured again."""
    sum = hashlib.blake2b(digest_size=8)
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            sum.update(block)
    return sum.hexdigest()
