"""What `import ipcpoll` takes, over what cbor2 and msgspec take anyway; and what takes it.

Each time in a fresh interpreter that has only what an interpreter starts with: modules that the
``.pth`` files of an environment load would make the import look cheaper than it is elsewhere.
"""

from __future__ import annotations

import functools
import re
import statistics
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import cbor2
import msgspec
from _measure import Options, alternate, ratio, run, table

import ipcpoll

AIM_MILLISECONDS = 25
MOST_SHOWN = 10

# Where they lie, ipcpoll in the tree or installed.
FILES = (ipcpoll.__file__, cbor2.__file__, msgspec.__file__)
FOLDERS = [str(Path(file).parents[1]) for file in FILES]

# `site` is imported for what it imports itself; with -S it does nothing else.
PROGRAM = f"""
import site, sys, time
sys.path += {FOLDERS}
began = time.perf_counter_ns()
{{statements}}
print(time.perf_counter_ns() - began)
"""
LIBRARIES = "import cbor2, msgspec"
IPCPOLL = "import ipcpoll"

# A line of -X importtime; two blanks of indentation for each import around it.
IMPORT_LINE = re.compile(r"import time: +(\d+) \| +(\d+) \| ( *)(\S+)")


def interpret(statements: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", "-S", *options, "-c", PROGRAM.format(statements=statements)]
    return subprocess.run(command, check=True, capture_output=True, text=True)


def time_import(statements: str) -> float:
    """Return milliseconds."""
    return int(interpret(statements).stdout) / 1_000_000


def time_each_module() -> dict[str, tuple[int, int]]:
    """Return what each module costs that ipcpoll loads beside cbor2, msgspec and what they load.

    In microseconds: by itself, and with all that it was the first to import.
    """
    output = interpret(f"{LIBRARIES}\n{IPCPOLL}", "-X", "importtime").stderr
    found = {}
    ours = False
    for line in output.splitlines():
        match = IMPORT_LINE.match(line)
        if match is None:
            continue
        alone, together, indentation, module = match.groups()
        if ours:
            found[module] = int(alone), int(together)
        ours = ours or (module == "msgspec" and not indentation)
    return found


def show_modules(rounds: int) -> None:
    costs: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    for _ in range(rounds):
        for module, cost in time_each_module().items():
            costs[module].append(cost)
    medians = {
        module: [statistics.median(column) / 1000 for column in zip(*times, strict=True)]
        for module, times in costs.items()
    }
    dearest = sorted(medians, key=lambda module: medians[module][0], reverse=True)
    print(
        f"The {MOST_SHOWN} dearest of the {len(medians)} modules that ipcpoll brings beside theirs"
    )
    print("(under -X importtime, which slows); together: with what each was the first to import.\n")
    rows = [
        [module, f"{medians[module][0]:.1f}", f"{medians[module][1]:.1f}"]
        for module in dearest[:MOST_SHOWN]
    ]
    table(["module", "ms alone", "ms together"], rows)


def benchmark(options: Options) -> None:
    candidates = {"libraries": LIBRARIES, "ipcpoll": IPCPOLL}
    for statements in candidates.values():
        time_import(statements)  # from now on from cached bytecode
    samples = alternate(
        options.rounds,
        {name: functools.partial(time_import, text) for name, text in candidates.items()},
    )
    options.keep("import", samples, over=["libraries"])
    libraries, ours = samples["libraries"], samples["ipcpoll"]
    more = statistics.median(one - other for one, other in zip(ours, libraries, strict=True))
    print("Milliseconds in a fresh interpreter (medians), and the ratio within a round")
    print(f"(median, middle half). Aim for the difference: {AIM_MILLISECONDS} ms.\n")
    both, alone = f"{statistics.median(ours):.1f}", f"{statistics.median(libraries):.1f}"
    table(
        ["", "cbor2, msgspec", "ipcpoll", "difference", "ratio"],
        [["import", alone, both, f"{more:.1f}", ratio(ours, libraries)]],
    )
    show_modules(1 if options.quick else max(1, options.rounds // 3))


if __name__ == "__main__":
    run(benchmark, about=__doc__, rounds=60)
