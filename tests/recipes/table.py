"""Measure each recipe, and print the table; --write puts it into docs/adapters.md.

A call's median while the program has nothing else to do, and how often its process wakes up in a
second without any call: with the server and a client that says nothing, and without ipcpoll. Every
package has to be there, or nothing is written.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import conformance_table
from _measure import describe_machine
from loops import screen
from recipe_runs import FOLDER, RECIPES, Recipe, Running, program, without_ipcpoll

sys.path.insert(0, str(FOLDER))

from calc import Add, Stop

BEGIN = "<!-- recipes: written by tests/recipes/table.py --write -->"
END = "<!-- end of recipes -->"
CALLS = 200
SETTLE_SECONDS = 3.0
IDLE_SECONDS = 5.0


def served(name: str, display: str) -> tuple[float, float]:
    """Return microseconds for a call, and wake-ups in a second."""
    with (
        tempfile.TemporaryDirectory(prefix="ipcpoll-") as directory,
        Running(name, directory, display) as running,
    ):
        os.environ["XDG_RUNTIME_DIR"] = directory
        with running.connect() as client:
            running.idle(SETTLE_SECONDS)
            wake_ups = running.idle(IDLE_SECONDS)
            took: list[float] = []
            for _ in range(CALLS):
                time.sleep(random.uniform(0, 0.04))  # at no fixed moment of a frame or a timer
                began = time.perf_counter()
                client.call(Add(2, 3))
                took.append(time.perf_counter() - began)
            client.call(Stop())
        code, said = running.end()
        if code:
            raise RuntimeError(f"{name} ended with {code}: {said}")
    return statistics.median(took) * 1e6, wake_ups / IDLE_SECONDS


def bare(name: str, display: str) -> float:
    """Return wake-ups in a second of the same program without a server."""
    with tempfile.TemporaryDirectory(prefix="ipcpoll-") as directory:
        file = Path(directory, program(name).name)
        file.write_text(without_ipcpoll(program(name).read_text()))
        with Running(name, directory, display, file=file) as running:
            running.idle(SETTLE_SECONDS)
            children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
            running.pid = int(children[0]) if children else running.pid  # a notebook's kernel
            return running.idle(IDLE_SECONDS) / IDLE_SECONDS


def version(recipe: Recipe) -> str:
    """Return which version of the framework is here."""
    if recipe.module in sys.stdlib_module_names:
        return f"Python {sys.version.partition(' ')[0]}"
    if recipe.module == "ipcpoll":
        return "–"  # a stand-in, which comes with the tests
    distributions = importlib.metadata.packages_distributions()[recipe.module]
    return importlib.metadata.version(distributions[0])


def row(name: str, display: str) -> list[str]:
    recipe = RECIPES[name]
    microseconds, with_server = served(name, display)
    without = f"{bare(name, display):.1f}" if recipe.can_be_bare else "–"
    return [
        f"[{recipe.title}](../examples/recipes/{program(name).name})",
        recipe.watches,
        version(recipe),
        f"{microseconds:,.0f}",
        f"{with_server:.1f}",
        without,
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="put it into docs/adapters.md")
    parser.add_argument("names", nargs="*", choices=[[], *RECIPES], help="only these")
    arguments = parser.parse_args()
    names = arguments.names or list(RECIPES)
    absent = [name for name in names if importlib.util.find_spec(RECIPES[name].module) is None]
    for name in absent:
        print(f"{name}: not installed; {RECIPES[name].install} would do it", file=sys.stderr)
    processor, _, versions = describe_machine().split("; ")
    with screen() as display:
        rows: list[list[str]] = []
        for name in names:
            if name not in absent:
                rows.append(row(name, display))
                print(*rows[-1], file=sys.stderr)
    head = ["recipe", "hears of clients by", "tried with", "call, µs", "wake-ups/s", "without"]
    table = conformance_table.aligned([head, *rows])
    table += ["", f"Measured on {processor}; {versions}."]
    print(*table, sep="\n")
    if arguments.write:
        if absent or arguments.names:
            print("that is not all of it: nothing is written", file=sys.stderr)
            return 1
        conformance_table.write(table, BEGIN, END)
    return 0


if __name__ == "__main__":
    sys.exit(main())
