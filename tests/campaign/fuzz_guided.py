"""The fuzzer that is guided by coverage: atheris, on one of the properties in `fuzz_properties.py`.

`run` starts it in a process of its own, since libFuzzer ends the process that it is in. Half of
its changes are libFuzzer's, which know nothing; the others are made by `streams_at_random.py`,
which knows frames, CBOR, ids, cancels and options.

As a program: ``fuzz_guided.py PROPERTY LIBFUZZER-OPTIONS… FOLDER…``
"""

from __future__ import annotations

import logging
import random
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

SLOWER = 20.0
"""How much more CPU time its instruments may cost."""

MOST_BYTES = 4096
MOST_MEMORY = 1024  # MiB


class Ran(NamedTuple):
    """What a run has done."""

    inputs: int
    inputs_per_second: int
    features: int
    """What libFuzzer counts as different behaviour: branches, by how often they are taken."""


def run(name: str, seconds: float, folder: Path) -> Ran:
    """Fuzz one property for some time; what is new goes into the folder.

    Raises AssertionError, with the input and what was said, when the property does not hold.
    """
    said = _start(name, f"-max_total_time={max(1, round(seconds))}", str(folder))
    done = re.search(r"Done (\d+) runs in (\d+) second", said)
    features = re.findall(r" ft: (\d+)", said)
    assert done is not None, said
    inputs, took = int(done[1]), max(1, int(done[2]))
    return Ran(inputs, inputs // took, int(features[-1]) if features else 0)


def _start(name: str, *arguments: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        options = [f"-artifact_prefix={folder}/", f"-max_len={MOST_BYTES}", "-timeout=20"]
        options += [f"-rss_limit_mb={MOST_MEMORY}"]
        process = subprocess.run(
            [sys.executable, __file__, name, *options, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
        broken = [f"{name} {file.read_bytes().hex()}" for file in Path(folder).iterdir()]
    tail = process.stdout[-4000:]
    assert process.returncode == 0, f"{tail}\nthe input, as corpus.txt has it: {broken}"
    return process.stdout


def main() -> None:
    """Be the fuzzer. Does not return."""
    root = Path(__file__).resolve().parent.parent.parent
    sys.path[:0] = [str(root), str(root / "tests" / "support")]
    import atheris

    with atheris.instrument_imports(include=["ipcpoll"]):
        import ipcpoll  # noqa: F401
    from fuzz_properties import ITEMS, PROPERTIES, timed
    from streams_at_random import Maker

    logging.getLogger("ipcpoll").setLevel(logging.CRITICAL + 1)
    check = PROPERTIES[sys.argv.pop(1)]
    chance = random.Random()
    maker = Maker(chance, ITEMS)
    message = {
        "frames": maker.bytes_at_random,
        "server": maker.request,
        "client": maker.response,
    }[check.__name__]

    def change(data: bytes, most: int, seed: int) -> bytes:
        if seed % 2 or not data:
            return bytes(atheris.Mutate(data, most))
        chance.seed(seed)
        split = data[:1] if seed % 8 else chance.randbytes(1)
        return (split + maker.mutated(data[1:], message))[:most]

    atheris.Setup(sys.argv, lambda data: timed(check, data, SLOWER) and None, custom_mutator=change)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
