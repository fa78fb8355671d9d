"""The corpus: inputs that between them take every way through the code that was ever found.

One line of `corpus.txt` is one input: the property that it is for (`fuzz_properties.py`), and its
bytes in hex. `make test` checks them all, and each campaign begins with them.

What is kept: of all that the guided fuzzer found, of streams made by chance, and of what was there
before, the inputs that take a step from one line to another that no shorter input takes. Inputs
that once found a bug are added by hand, above the line of dashes, and stay.

    python tests/campaign/corpus.py --seconds 600
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Final

if __name__ == "__main__":
    root = Path(__file__).resolve().parent.parent.parent
    sys.path[:0] = [str(root), str(root / "tests" / "support")]

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


def fewest(check: Callable[[bytes], int], inputs: list[bytes]) -> list[bytes]:
    """Return the inputs that take a step between lines which no shorter one takes."""
    taken: set[tuple[object, int, int]] = set()
    steps: set[tuple[object, int, int]] = set()
    package = f"{os.sep}ipcpoll{os.sep}"

    def enter(frame: FrameType, event: str, argument: object) -> Any:
        if package not in frame.f_code.co_filename:
            return None
        last = 0

        def step(frame: FrameType, event: str, argument: object) -> Any:
            nonlocal last
            steps.add((frame.f_code, last, frame.f_lineno))
            last = frame.f_lineno
            return step

        return step

    kept = []
    for data in sorted(set(inputs), key=lambda data: (len(data), data)):
        steps.clear()
        sys.settrace(enter)
        try:
            check(data)
        finally:
            sys.settrace(None)
        if not steps <= taken:
            taken |= steps
            kept.append(data)
    return kept


def make(seconds: float) -> None:
    """Look for new ways for some time, and write the corpus anew."""
    import fuzz_guided
    from fuzz_parser import quiet
    from fuzz_properties import ITEMS, PROPERTIES

    by_hand = FILE.read_text(encoding="ascii").split(f"{LINE}\n")[0]
    lines = []
    for name, check in PROPERTIES.items():
        inputs = load(name) + some_inputs(Maker(random.Random(name), ITEMS), name, 1000)
        with tempfile.TemporaryDirectory() as folder:
            write_files(inputs, Path(folder))
            print(name, fuzz_guided.run(name, seconds / len(PROPERTIES), Path(folder)))
            inputs = [file.read_bytes() for file in Path(folder).iterdir()]
        with quiet():
            kept = fewest(check, [data for data in inputs if len(data) <= MOST_BYTES])
        lines += [f"{name} {data.hex()}\n" for data in kept]
    FILE.write_text(f"{by_hand}{LINE}\n{''.join(lines)}", encoding="ascii")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    make(parser.parse_args().seconds)
