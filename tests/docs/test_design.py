"""docs/design.md against the code: the drawn states, the map, the promises."""

from __future__ import annotations

import re
from enum import Enum
from typing import Any

import pytest
from documents import ROOT, blocks, read

from ipcpoll._wire.states import CALL, LINK

DOCUMENT = "docs/design.md"
EDGE = re.compile(r"(?:(\w+) ─+┬| +[├└])─ (\w+) ─+> (\w+)(?: {2,}\S.*)?")

Edges = set[tuple[str, str, str]]


def drawn(index: int) -> list[tuple[str, str, str]]:
    """Return the transitions that one of the drawings shows."""
    text = [block.text for block in blocks(DOCUMENT) if block.language == "text"][index]
    found: list[tuple[str, str, str]] = []
    state = ""
    for line in filter(None, text.splitlines()):
        match = EDGE.fullmatch(line)
        assert match, f"this line is no transition: {line}"
        state = match[1] or state
        found.append((state, match[2], match[3]))
    return found


def in_table(table: dict[Any, dict[Any, Enum]]) -> Edges:
    return {
        (state.name, event.name, follows.name)
        for state, events in table.items()
        for event, follows in events.items()
    }


@pytest.mark.parametrize(("index", "table"), [(0, LINK), (1, CALL)], ids=["link", "call"])
def test_drawing_is_the_table(index: int, table: Any) -> None:
    edges = drawn(index)
    assert len(edges) == len(set(edges))
    assert set(edges) == in_table(table)


def test_there_are_two_drawings() -> None:
    assert len([block for block in blocks(DOCUMENT) if block.language == "text"]) == 2


def section(title: str) -> str:
    """Return what stands under a heading."""
    text = read(DOCUMENT)
    _, _, rest = text.partition(f"\n## {title}\n")
    assert rest, f"there is no section {title!r}"
    return rest.partition("\n## ")[0]


def test_map_lists_each_file() -> None:
    listed = re.findall(r"^\| `([^`]+)` \| \S", section("The map"), re.MULTILINE)
    package = ROOT / "ipcpoll"
    files = [path.relative_to(package) for path in package.rglob("*.py")]
    rooms = [f"{path.parent}/" for path in files if path.name == "__init__.py" and path.parts[1:]]
    # A room's own line stands for its `__init__.py`, which is its rule.
    modules = [f"{path}" for path in files if path.name != "__init__.py"]
    assert sorted(listed) == sorted([*modules, "__init__.py", "py.typed"])
    named = re.findall(r"^\| \*\*`([^`]+)`\*\* \| \S", section("The map"), re.MULTILINE)
    assert sorted(named) == sorted(rooms)


def test_promises_name_their_test_modules() -> None:
    named = re.findall(r"\| `tests/promises/(\w+)\.py` \|$", section("The promises"), re.MULTILINE)
    there = [path.stem for path in (ROOT / "tests" / "promises").glob("test_*.py")]
    assert sorted(named) == sorted(there)
