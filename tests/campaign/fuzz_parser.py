"""Fuzzing of the frame parser, and of everything built on it, at both ends. No socket.

What must hold is in `fuzz_properties.py`: any bytes give messages or `WireError`, the right ones,
the same however they were split, in bounded memory and CPU time, and nothing else escapes.
It is tried in three ways:

* the corpus (`corpus.py`) is checked,
* the guided fuzzer (atheris, `fuzz_guided.py`) searches for new paths through the code,
* many more streams, made and changed by chance (`streams_at_random.py`), are checked without its
  instruments, which cost two thirds of the rate.

An *execution* is one stream read by the code under test from its first byte to its last, whole or
split. So each input makes two.

    python tests/campaign/fuzz_parser.py --seconds 1800
"""

from __future__ import annotations

import importlib.util
import logging
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent.parent
if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

import corpus  # noqa: E402
import fuzz_guided  # noqa: E402
from fuzz_properties import (  # noqa: E402
    ITEMS,
    MOST_CPU,
    PROPERTIES,
    Input,
    cpu_of_64_kib,
    timed,
)
from part import Figures, run_as_program  # noqa: E402
from slowness import slowness  # noqa: E402
from streams_at_random import Maker  # noqa: E402

GUIDED: Final = 0.3
"""The part of the time that the guided fuzzer has."""

SHARES: Final = {"frames": 0.6, "server": 0.25, "client": 0.15}
"""The parts of the time that the properties have."""

MOST_GROWTH: Final = 32 << 20
"""Bytes of memory by which the process may grow while it checks."""

_POOL: Final = 300
_BATCH: Final = 200


def resident() -> int:
    """Return how many bytes of memory this process has."""
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def quiet() -> Iterator[None]:
    """Let ipcpoll write no line for each failed notification."""
    logger = logging.getLogger("ipcpoll")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)


def check(name: str, data: Input) -> int:
    """Check one input; raise AssertionError that holds it, made small, when it breaks a promise."""
    try:
        return timed(PROPERTIES[name], data)
    except Exception as error:
        small = made_smaller(PROPERTIES[name], data)
        words = f"{type(error).__name__}: {error}\nas corpus.txt has it: {name} {small.hex()}"
        raise AssertionError(words) from error


def made_smaller(holds: Callable[[Input], int], data: Input) -> Input:
    """Return a part of a bad input that is bad too, of which no piece can be left out."""
    size = len(data) // 2
    while size:
        at = 0
        while at < len(data):
            shorter = data[:at] + data[at + size :]
            try:
                holds(shorter)
            except Exception:
                data = shorter
            else:
                at += size
        size //= 2
    return data


class Fuzzer:
    """Checks streams made by chance; the same seed makes the same streams."""

    def __init__(self, name: str, seed: int) -> None:
        self.name = name
        self.maker = Maker(random.Random(f"{name} {seed}"), ITEMS)
        maker = self.maker
        self.message = {
            "frames": maker.bytes_at_random,
            "server": maker.request,
            "client": maker.response,
        }[name]
        self.pool = [data[1:] for data in corpus.load(name)]
        self.pool += [maker.stream(self.message) for _ in range(max(50, _POOL - len(self.pool)))]
        self.inputs = self.executions = 0
        self.dearest = 0.0
        """CPU seconds of the slowest 64 KiB that were tried."""

    def batch(self) -> None:
        """Check some more: mostly changes of streams that went before."""
        maker, pool = self.maker, self.pool
        for number in range(_BATCH):
            if number % 8 == 0:
                stream = maker.stream(self.message)
            else:
                stream = maker.mutated(pool[maker.below(len(pool))], self.message)[:2000]
            if number % 4 == 0:
                pool[maker.below(len(pool))] = stream
            self.executions += check(self.name, bytes([maker.below(256)]) + stream)
            self.inputs += 1
        if self.name == "server" and self.inputs % (5 * _BATCH) == 0:
            self.try_64_kib()

    def try_64_kib(self) -> None:
        """Check that 64 KiB of some item take no more CPU than they may."""
        item = self.maker.item()
        took = cpu_of_64_kib(item)
        self.dearest = max(self.dearest, took)
        if took >= MOST_CPU:
            assert took < MOST_CPU * slowness(), f"{took:.3f} s for 64 KiB: {item.hex()}"

    def run(self, seconds: float) -> None:
        """Check batches until the time is over."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.batch()


def replay() -> int:
    """Check the corpus; return how many inputs it has."""
    inputs = [(name, data) for name in PROPERTIES for data in corpus.load(name)]
    for name, data in inputs:
        check(name, data)
    return len(inputs)


def guided(name: str, seconds: float) -> fuzz_guided.Ran:
    """Let the guided fuzzer begin with the corpus; what it finds is forgotten."""
    with tempfile.TemporaryDirectory() as folder:
        corpus.write_files(corpus.load(name), Path(folder))
        return fuzz_guided.run(name, seconds, Path(folder))


def campaign(seconds: float) -> Figures:
    """Fuzz for about so long."""
    assert importlib.util.find_spec("atheris"), "atheris is missing: pip install -e .[campaign]"
    seed = time.time_ns() // 10**9
    figures: Figures = {"seed": seed}
    with quiet():
        figures["corpus inputs"] = replay()
        executions = dict.fromkeys(PROPERTIES, 0)
        for name, share in SHARES.items():
            ran = guided(name, seconds * GUIDED * share)
            executions[name] += 2 * ran.inputs
            figures[f"{name}, guided inputs"] = ran.inputs
            figures[f"{name}, guided inputs per s"] = ran.inputs_per_second
            figures[f"{name}, guided features"] = ran.features
        grown = 0
        for name, share in SHARES.items():
            fuzzer = Fuzzer(name, seed)
            fuzzer.batch()
            before, began = resident(), time.process_time()
            fuzzer.run(seconds * (1 - GUIDED) * share)
            grown = max(grown, resident() - before)
            took = time.process_time() - began
            figures[f"{name}, inputs"] = fuzzer.inputs
            figures[f"{name}, inputs per s of CPU"] = round(fuzzer.inputs / took)
            executions[name] += fuzzer.executions
            if fuzzer.dearest:
                figures["dearest 64 KiB (ms of CPU)"] = round(fuzzer.dearest * 1000, 1)
    figures["parser executions"] = executions["frames"]
    figures["full-stack executions"] = executions["server"] + executions["client"]
    figures["grown (KiB)"] = grown // 1024
    assert grown < MOST_GROWTH, figures
    return figures


if __name__ == "__main__":
    run_as_program(campaign, about=__doc__)
