"""docs/security.md and SECURITY.md against the code: the hazards and their tests, the limits."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import asdict
from typing import Final

import pytest
from documents import ROOT, read

from ipcpoll import Limits
from ipcpoll._system.log import MOST_SHOWN
from ipcpoll.limits import KIB, MAX_DEPTH, MIB

pytestmark = pytest.mark.once

DOCUMENT = "docs/security.md"
DOCUMENTS = (DOCUMENT, "SECURITY.md")
TEXT = " ".join(read(DOCUMENT).split())

HAZARDS: Final = range(1, 70)
TESTED: Final = "tested"
NAME: Final = re.compile(r"test_hazard_(\d\d)_\w+")
UNITS: Final = {"": 1, "KiB": KIB, "MiB": MIB, "ms": 0.001, "s": 1}


def table(first_cell: str) -> list[list[str]]:
    """Return the rows of the table whose first column has this title."""
    lines = iter(read(DOCUMENT).splitlines())
    for line in lines:
        if line.startswith(f"| {first_cell} |"):
            break
    next(lines)
    found: list[list[str]] = []
    for line in lines:
        if not line.startswith("|"):
            break
        found.append([cell.strip() for cell in line.strip("|").split("|")])
    assert found, f"there is no table of {first_cell}"
    return found


# ---------------------------------------------------------------------------------------------
# The hazards


def functions(body: list[ast.stmt]) -> Iterator[str]:
    """Give the names of the functions that stand in a module or in its classes."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.ClassDef):
            yield from functions(node.body)


def hazard_tests() -> list[str]:
    """Return the names of all tests of hazards, read from the files and not run."""
    return [
        name
        for path in sorted((ROOT / "tests").rglob("*.py"))
        for name in functions(ast.parse(path.read_text(encoding="utf-8")).body)
        if name.startswith("test_hazard")
    ]


def with_tests() -> set[int]:
    """Return the numbers of the hazards that have a test."""
    return {int(match[1]) for name in hazard_tests() if (match := NAME.fullmatch(name))}


def test_rows_are_numbered_without_a_gap() -> None:
    assert [row[0] for row in table("#")] == [str(number) for number in HAZARDS]


def test_each_row_says_what_is_done_and_how_it_is_shown() -> None:
    for number, hazard, done, shown in table("#"):
        assert hazard, number
        assert done, number
        assert shown == TESTED or re.fullmatch(r"no test: \w.+", shown), f"{number}: {shown}"


def test_tests_of_hazards_have_the_number_in_their_names() -> None:
    assert [name for name in hazard_tests() if not NAME.fullmatch(name)] == []


def test_rows_say_tested_if_and_only_if_there_is_a_test() -> None:
    said = {int(row[0]) for row in table("#") if row[-1] == TESTED}
    there = with_tests()
    assert sorted(said - there) == [], "these rows say that they are tested, and are not"
    assert sorted(there - said) == [], "these have tests, and no row says so"


# ---------------------------------------------------------------------------------------------
# The limits


def value(cell: str) -> float:
    """Return the number that a cell shows, in bytes or seconds."""
    match = re.fullmatch(r"(\d[\d,]*)(?: (\w+))?", cell)
    assert match, f"this is no value: {cell}"
    return int(match[1].replace(",", "")) * UNITS[match[2] or ""]


def test_table_of_limits() -> None:
    rows = [(row[0].strip("`"), value(row[1])) for row in table("limit")]
    assert rows == list(asdict(Limits()).items())


def test_limits_in_the_text() -> None:
    """The figures that stand outside of the table."""
    limits = Limits()
    unread = 233_152 * limits.backlog  # of one connection, with Linux's defaults
    for words in (
        f"no deeper than {MAX_DEPTH} levels",
        f"{MAX_DEPTH} levels, both ways",
        f"full backlog of {limits.backlog:,} holds at most about {unread / MIB:.0f} MiB",
        f"bounded by the backlog: about {unread / MIB:.0f} MiB",
        f"{limits.max_frame // KIB} KiB of one-byte items",
        f"{limits.max_accepts} are taken in by one poll; {limits.backlog:,} may wait",
        f"at {limits.max_frames_waiting} whole frames or {limits.max_unsent // KIB} KiB of unsent",
        f"{limits.max_buffered // MIB} MiB together, then the largest",
        f"at {limits.max_buffered // MIB} MiB of all, the largest",
        f"one frame a turn, round robin; {limits.poll_seconds * 1000:g} ms a poll",
        f"rests for {limits.accept_pause_seconds:g} s",
        f"inner polls serve the other clients, {limits.max_nested_polls} deep",
        f"one cut line of a kind in {limits.log_seconds:g} s",
        f"{limits.max_clients} clients that never pause",
        f"the first {MOST_SHOWN} characters of its text",
    ):
        assert words in TEXT, words


# ---------------------------------------------------------------------------------------------
# What is named is there


def test_paths_lead_somewhere() -> None:
    folders = "|".join(("adapters", "benchmarks", "docs", "examples", "ipcpoll", "tests"))
    for document in DOCUMENTS:
        for path in re.findall(rf"`((?:{folders})/[^` ]*|[A-Z]+\.md)`", read(document)):
            assert list(ROOT.glob(path)), f"{document}: {path} is not there"


def anchors(document: str) -> set[str]:
    """Return what the headings of a document are linked by."""
    headings = re.findall(r"^#+ (.*)$", read(document), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_lead_somewhere() -> None:
    for document in DOCUMENTS:
        for link in re.findall(r"\]\(([^)]+)\)", read(document)):
            path, _, anchor = link.partition("#")
            target = ((ROOT / document).parent / path).resolve() if path else ROOT / document
            assert target.exists(), f"{document}: {link} is not there"
            if anchor:
                there = anchors(target.relative_to(ROOT).as_posix())
                assert anchor in there, f"{document}: {link} has no such heading"


def test_policy_is_linked() -> None:
    assert "](SECURITY.md)" in read("README.md")
    assert "](docs/security.md)" in read("README.md")
    assert "](../SECURITY.md)" in read(DOCUMENT)
