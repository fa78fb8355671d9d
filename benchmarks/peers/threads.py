"""A window that other processes change: with ipcpoll, and with threads written by hand.

What users did before: a thread reads the socket and hands what it has read to the toolkit's loop,
by a queue that the loop looks into, by an event of Tk, or by a signal of Qt. Each of these, and
ipcpoll, changes the same label; the window and its client are processes of their own.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import json
import os
import random
import socket
import statistics
import sys
import textwrap
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # what all benchmarks share

import _windows
from _measure import Options, alternate, child, ratio, run, table, working_directory
from _windows import QUEUE_MILLISECONDS, WINDOWS, Add

import ipcpoll

PATIENCE_SECONDS = 30.0
IDLE_SECONDS = 5.0
QUICK_IDLE_SECONDS = 0.1


def usable() -> list[str]:
    """Return the windows that can be opened here; say of each other one why it can't."""
    names: list[str] = []
    if not os.environ.get("DISPLAY"):
        os.environ["QT_QPA_PLATFORM"] = "offscreen"
    for name, window in WINDOWS.items():
        if importlib.util.find_spec(window.needs) is None:
            print(f"{name}: skipped, {window.needs} is not installed")
        elif window.needs == "tkinter" and not os.environ.get("DISPLAY"):
            print(f"{name}: skipped, there is no display")
        else:
            names.append(name)
    return names


@contextmanager
def calling(name: str, path: str) -> Generator[Callable[[], object]]:
    """Connect to a window, and give what calls it once, as its user would write it."""
    if WINDOWS[name].ipcpoll:
        with ipcpoll.Client(path, timeout=PATIENCE_SECONDS) as client:
            yield lambda: client.call(Add(2, 3))
        return
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE_SECONDS)
        sock.connect(path)
        with sock.makefile("rb") as lines:

            def call() -> object:
                sock.sendall(json.dumps({"add": [2, 3]}).encode() + b"\n")
                return json.loads(lines.readline())["result"]

            yield call


def time_calls(name: str, path: str, count: int, pause_seconds: float) -> list[float]:
    """Return the microseconds of each call. The pause before each is at random, up to the given."""
    took: list[float] = []
    with calling(name, path) as call:
        for _ in range(3):
            assert call() == 5
        for _ in range(count):
            time.sleep(random.uniform(0, pause_seconds))
            began = time.perf_counter_ns()
            call()
            took.append((time.perf_counter_ns() - began) / 1000)
    return took


def wake_ups(pid: int) -> int:
    """Return how often the threads of a process have slept and were woken so far."""
    statuses = [task / "status" for task in Path(f"/proc/{pid}/task").iterdir()]
    lines = [line for status in statuses for line in status.read_text().splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt"))


def idle(name: str, path: str, pid: int, seconds: float) -> float:
    """Return how often in a second a window wakes up beside a client that says nothing."""
    with calling(name, path) as call:
        call()
        time.sleep(seconds / 5)  # what the start has left to do
        before = wake_ups(pid)
        time.sleep(seconds)
        return (wake_ups(pid) - before) / seconds


def lines_of_code(name: str) -> int:
    """Count the lines of what serves: no blank ones, no comments, no docstrings."""
    window = WINDOWS[name]
    count = 0
    for part in (window.run, *window.parts):
        tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(part))))
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
                node.body[:1] = [ast.Pass()] if len(node.body) == 1 else []
        count += len([line for line in ast.unparse(tree).splitlines() if line.strip()])
    return count


def benchmark(options: Options) -> None:
    count = 3 if options.quick else 40
    seconds = QUICK_IDLE_SECONDS if options.quick else IDLE_SECONDS
    names = usable()
    with working_directory() as directory, ExitStack() as stack:
        at: dict[str, tuple[str, int]] = {}
        for number, name in enumerate(names):
            path = str(directory / str(number))
            at[name] = path, stack.enter_context(child(Path(_windows.__file__), name, path))
        for title, pause in (
            ("Calls after a pause, at random moments", QUEUE_MILLISECONDS / 1000),
            ("Calls one after the other", 0.0),
        ):
            print(f"\n{title}: microseconds, and ratios within a round (median, middle half)\n")
            calls = {name: partial(time_calls, name, at[name][0], count, pause) for name in names}
            samples = alternate(options.rounds, calls) if calls else {}
            medians = {name: [*map(statistics.median, samples[name])] for name in names}
            options.keep(title, medians)
            rows: list[list[str]] = []
            for name in names:
                every = sorted(took for rounds in samples[name] for took in rounds)
                base = medians[f"{name.partition(':')[0]}: ipcpoll"]
                figures = (statistics.median(every), every[int(len(every) * 0.99)])
                rows.append([name, *(f"{figure:,.0f}" for figure in figures)])
                rows[-1].append(ratio(medians[name], base))
            table(["window", "median", "p99", "median / ipcpoll"], rows)
        print(
            f"Idle for {seconds:g} s, a client is connected; and what one has to write and read.\n"
        )
        rows = [
            [name, f"{idle(name, *at[name], seconds):.1f}", str(lines_of_code(name))]
            for name in names
        ]
        table(["window", "wake-ups/s", "lines of code"], rows)


if __name__ == "__main__":
    run(benchmark, about=__doc__, rounds=5)
