"""The table of loops and cases: what the test run prints, and what docs/adapters.md keeps."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "adapters.md"
BEGIN = "<!-- conformance: written by tests/attach/table.py --write -->"
END = "<!-- end of conformance -->"

PASSED = "yes"
APPLIES_NOT = "n/a"
SKIPPED = "skipped"
FAILED = "FAILED"


def sentence(case: str) -> str:
    """Return the name of a case as words."""
    return case.removeprefix("test_").replace("_", " ")


def mark(outcome: str | None) -> str:
    """Return what the table says for an outcome; None: it was not run."""
    if outcome == "passed":
        return PASSED
    if outcome is not None and outcome.startswith("skipped: does not apply"):
        return APPLIES_NOT
    return SKIPPED if outcome is None or outcome.startswith("skipped") else FAILED


def lines(
    titles: Sequence[str], cases: Sequence[str], marks: Mapping[tuple[str, str], str]
) -> list[str]:
    """Return the table in Markdown: one line for each case, one column for each loop."""
    rows = [["case", *titles], *([sentence(case)] for case in cases)]
    for row, case in zip(rows[1:], cases, strict=True):
        row += [marks.get((title, case), SKIPPED) for title in titles]
    return aligned(rows)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a table in Markdown; the first row is its head."""
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    rows = [rows[0], ["-" * width for width in widths], *rows[1:]]
    return [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]


def kept() -> list[list[str]]:
    """Return the cells of the table in the document, without the line under its head."""
    text = DOCUMENT.read_text(encoding="utf-8")
    table = text.partition(BEGIN)[2].partition(END)[0].strip().splitlines()
    cells = [re.split(r" *\| *", line.strip("| ")) for line in table]
    return cells[:1] + cells[2:]


def write(table: Sequence[str], mark: str = BEGIN, end_mark: str = END) -> None:
    """Put the table into the document, between its marks."""
    text = DOCUMENT.read_text(encoding="utf-8")
    head, begin, rest = text.partition(mark)
    _, end, tail = rest.partition(end_mark)
    assert begin
    assert end
    body = "\n".join(table)
    DOCUMENT.write_text(f"{head}{begin}\n\n{body}\n\n{end}{tail}", encoding="utf-8")
