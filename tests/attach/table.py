"""Print the conformance table, loop by case; --write puts it into docs/adapters.md.

It runs every loop that test_adapters.py knows, each in a process of its own. A loop whose library
is missing is shown as skipped, and then nothing is written.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import conformance_table
import test_adapters
from loops import installed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="put it into docs/adapters.md")
    arguments = parser.parse_args()
    marks: dict[tuple[str, str], str] = {}
    for column in test_adapters.COLUMNS:
        missing = [
            f"{column.title}: {name} is not installed; {install} would install it"
            for name, install in column.needs
            if not installed(name)
        ]
        print(*missing, sep="\n", end="\n" if missing else "", file=sys.stderr)
        if missing:
            continue
        found, _ = test_adapters.outcomes(*column.process)
        for case in test_adapters.CASES:
            marks[column.title, case] = conformance_table.mark(found.get((column.cls, case)))
    titles = [column.title for column in test_adapters.COLUMNS]
    table = conformance_table.lines(titles, test_adapters.CASES, marks)
    print(*table, sep="\n")
    good = {conformance_table.PASSED, conformance_table.APPLIES_NOT}
    complete = len(marks) == len(titles) * len(test_adapters.CASES)
    if not complete or not set(marks.values()) <= good:
        print("not all of it passed: nothing is written", file=sys.stderr)
        return 1
    if arguments.write:
        conformance_table.write(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
