"""The corpus: inputs that between them take every way through the code that was ever found.

One line of `corpus.txt` is one input: the property that it is for (`fuzz_properties.py`), and its
bytes in hex. `make test` checks them all, and each campaign begins with them.

The corpus is made by coverage: the guided fuzzer starts from what is there and from streams made by
chance, and libFuzzer's merge keeps of all that was found the smallest inputs that reach the same
branches. Inputs that once found a bug may be added by hand; the merge keeps them out of its hands
if they stand above the line of dashes.

    python tests/campaign/corpus.py --seconds 600
"""

from __future__ import annotations

import argparse
import hashlib
import random
import sys
import tempfile
from pathlib import Path
from typing import Final

if __name__ == "__main__":
    root = Path(__file__).resolve().parent.parent.parent
    sys.path[:0] = [str(root), str(root / "tests")]

from streams_at_random import Maker

FILE: Final = Path(__file__).with_name("corpus.txt")
LINE: Final = "---"
MOST_BYTES: Final = 1024
"""Of an input that is kept. Larger ones are made by the tests of the bombs."""


def load(name: str) -> list[bytes]:
    """Return the inputs of one property."""
    lines = FILE.read_text(encoding="ascii").splitlines()
    pairs = [line.split() for line in lines if line and line != LINE]
    return [bytes.fromhex(data) for property_, data in pairs if property_ == name]


def write_files(inputs: list[bytes], folder: Path) -> None:
    """Write inputs as libFuzzer reads them: one file each."""
    for data in inputs:
        (folder / hashlib.sha1(data).hexdigest()).write_bytes(data)


def some_inputs(maker: Maker, name: str, count: int) -> list[bytes]:
    """Return inputs made by chance."""
    message = {
        "frames": maker.bytes_at_random,
        "server": maker.request,
        "client": maker.response,
    }[name]
    return [bytes([maker.below(256)]) + maker.stream(message) for _ in range(count)]


def make(seconds: float) -> None:
    """Look for new ways for some time, and write the corpus anew."""
    import fuzz_guided
    from fuzz_properties import ITEMS, PROPERTIES

    kept, found = FILE.read_text(encoding="ascii").split(f"{LINE}\n")[0], []
    for name in PROPERTIES:
        maker = Maker(random.Random(name), ITEMS)
        with tempfile.TemporaryDirectory() as folder:
            old, new = Path(folder, "old"), Path(folder, "new")
            old.mkdir()
            new.mkdir()
            write_files(load(name) + some_inputs(maker, name, 2000), old)
            print(name, fuzz_guided.run(name, seconds / len(PROPERTIES), old))
            fuzz_guided.merge(name, into=new, of=old)
            inputs = sorted(
                (file.read_bytes() for file in new.iterdir()), key=lambda d: (len(d), d)
            )
            found += [f"{name} {data.hex()}\n" for data in inputs if len(data) <= MOST_BYTES]
    FILE.write_text(f"{kept}{LINE}\n{''.join(found)}", encoding="ascii")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    make(parser.parse_args().seconds)
