"""What the benchmarks share: alternating rounds, ratios within a round, tables, child processes.

Times of day, machines and neighbours change every figure; what two candidates did right after
each other in one round can be compared. So every ratio is made within a round, and the median of
the rounds is shown with its middle half.
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import json
import math
import os
import platform
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Never, TypeVar

T = TypeVar("T")

_ENOUGH_FOR_QUARTILES = 2
_PATIENCE_SECONDS = 10.0  # for a child that ends; only a failure takes as long


# ---------------------------------------------------------------------------------------------
# A benchmark's frame


@dataclass(frozen=True)
class Options:
    """What the command line asked for, and what is written when it asked for a file."""

    rounds: int
    quick: bool
    sections: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])

    def keep(
        self, section: str, samples: Mapping[str, Sequence[Any]], *, over: Sequence[str] = ()
    ) -> None:
        """Keep what a section measured, round by round, and all ratios to the ones it is over."""
        figures = {name: [_figures(sample) for sample in each] for name, each in samples.items()}
        ratios = {
            f"{name} / {base}": _ratios(each, figures[base])
            for base in over
            for name, each in figures.items()
            if name != base
        }
        self.sections[section] = {"samples": figures, "ratios": ratios}


def _figures(sample: Any) -> dict[str, float]:
    """Return a sample's figures by name; lists, which hold each single call, are left out."""
    if isinstance(sample, int | float):
        return {"value": sample}
    named: dict[str, Any] = dataclasses.asdict(sample) | getattr(sample, "derived", dict)()
    return {name: value for name, value in named.items() if not isinstance(value, list)}


def _ratios(
    samples: Sequence[Mapping[str, float]], base: Sequence[Mapping[str, float]]
) -> dict[str, list[float]]:
    return {
        name: [
            sample[name] / other[name] if other[name] else math.nan
            for sample, other in zip(samples, base, strict=True)
        ]
        for name in samples[0]
        if name in base[0]
    }


def run(benchmark: Callable[[Options], None], *, about: str | None, rounds: int) -> Never:
    """Run a benchmark as a program and end the process; Ctrl-C and SIGTERM clean up first."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument(
        "--rounds", type=_at_least_one, help=f"how often each is measured (default: {rounds})"
    )
    parser.add_argument(
        "--quick", action="store_true", help="the smallest settings: does it run? Prove nothing"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write every round's figures and ratios there too"
    )
    arguments = parser.parse_args()
    options = Options(arguments.rounds or (3 if arguments.quick else rounds), arguments.quick)
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    name = Path(sys.argv[0]).stem
    print(f"\n{name}: {options.rounds} alternating rounds")
    print(describe_machine(), flush=True)
    try:
        benchmark(options)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    if arguments.json is not None:
        kept = {
            "benchmark": name,
            "machine": describe_machine(),
            "rounds": options.rounds,
            "quick": options.quick,
            "sections": options.sections,
        }
        arguments.json.write_text(json.dumps(kept, indent=1) + "\n")
    sys.exit(0)


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def describe_machine() -> str:
    """Return one line about where and with what this is measured."""
    processor = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                processor = line.partition(":")[2].strip()
                break
    except OSError:
        pass  # not Linux
    return (
        f"{processor}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; "
        f"{platform.system()} {platform.release()}; {platform.python_implementation()} "
        f"{platform.python_version()}, cbor2 {version('cbor2')}, msgspec {version('msgspec')}"
    )


# ---------------------------------------------------------------------------------------------
# Rounds and ratios


def alternate(rounds: int, candidates: Mapping[str, Callable[[], T]]) -> dict[str, list[T]]:
    """Measure every candidate once a round, each round beginning with another one."""
    names = list(candidates)
    samples: dict[str, list[T]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            samples[name].append(candidates[name]())
    return samples


def ratio(samples: Sequence[float], base: Sequence[float]) -> str:
    """Return the median of the rounds' ratios, and between which two the middle half lies."""
    ratios = [sample / other for sample, other in zip(samples, base, strict=True)]
    median = f"{statistics.median(ratios):.2f}"
    if len(ratios) < _ENOUGH_FOR_QUARTILES:
        return median
    low, _, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return f"{median} ({low:.2f}–{high:.2f})"


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that this share of all, from 0 to 1, does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, ["-" * width for width in widths], *rows):
        first, *others = [
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join([first, *others]).rstrip())
    print(flush=True)


def allow_open_files(wanted: int) -> int:
    """Raise this process's limit as far as it may, root's also beyond; return what is allowed."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and most < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
            return wanted
        except (ValueError, OSError):
            pass  # not root, or over fs.nr_open
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return wanted if most == resource.RLIM_INFINITY else most


# ---------------------------------------------------------------------------------------------
# Child processes


@contextmanager
def working_directory() -> Generator[Path]:
    """Give a directory that is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="ipcpoll-") as directory:
        yield Path(directory)


@contextmanager
def child(program: Path, *arguments: str) -> Generator[int]:
    """Run a Python program that says "ready" and ends with its input; give its process id.

    The end of its input reaches it in every case, even if this process is killed. It has a process
    group of its own, so that Ctrl-C comes to this process alone, which then ends it.
    """
    command = [sys.executable, str(program), *arguments]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            if process.stdout.readline() != b"ready\n":
                raise RuntimeError(f"{program.name} {' '.join(arguments)} did not start")
            yield process.pid
        finally:
            process.stdin.close()
            try:
                process.wait(_PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


class ProcessClock:
    """The processor time of a process, of another one too: clock_getcpuclockid(3)."""

    def __init__(self, pid: int) -> None:
        clock = ctypes.c_int()
        error = ctypes.CDLL(None).clock_getcpuclockid(pid, ctypes.byref(clock))
        if error:
            raise OSError(error, os.strerror(error))
        self._clock = clock.value

    def nanoseconds(self) -> int:
        """Return what it has used so far."""
        return time.clock_gettime_ns(self._clock)
