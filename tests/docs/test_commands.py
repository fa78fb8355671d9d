"""docs/commands.md against the code: each row of its tables is tried."""

from __future__ import annotations

import re
import sys
from types import ModuleType
from typing import Annotated, Any

import annotated_types
import pytest
import wire
from documents import blocks, read

from ipcpoll._schema.commands import CommandType, resolve
from ipcpoll._wire.codec import Decoder, encode
from ipcpoll.errors import WireError

DOCUMENT = "docs/commands.md"
DECODER = Decoder()
[PARTS] = blocks(DOCUMENT)
MODULE = ModuleType("parts_of_the_document")  # where the classes find their names
sys.modules[MODULE.__name__] = MODULE
NAMES: dict[str, Any] = vars(MODULE)
exec(compile(PARTS.text, "parts.py", "exec"), NAMES)


def table(heading: str) -> list[list[str]]:
    """Return the rows of the table under a heading, each cell without its spaces."""
    text = read(DOCUMENT).partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = [line for line in text.splitlines() if line.startswith("|")]
    cells = [re.split(r"(?<!\\)\|", row)[1:-1] for row in rows[2:]]
    assert cells, f"there is no table under {heading}"
    return [[cell.strip().replace(r"\|", "|") for cell in row] for row in cells]


def code(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def value_of(text: str) -> Any:
    return eval(text, NAMES)


def read_by(annotation: Any, answer: Any = None) -> CommandType:
    """Return a command with a field of this annotation, or such an answer."""

    return resolve(wire.command(annotation, answer))


CARRIED = table("What can be carried")
REFUSED = table("What can't, and what to use instead")
VALUES = table("Values that are refused")
CONSTRAINTS = table("Constraints")


@pytest.mark.parametrize(("annotation", "value", "wire"), CARRIED, ids=[row[0] for row in CARRIED])
def test_what_can_be_carried_is(annotation: str, value: str, wire: str) -> None:
    [annotation], [value], [wire] = code(annotation), code(value), code(wire)
    command = read_by(value_of(annotation), value_of(annotation))
    given = value_of(value)
    payload = command.encode_call(encode(1), command.cls(given))
    fields = DECODER.decode(payload if isinstance(payload, bytes) else b"".join(payload))
    assert fields == [1, "Cmd", {"x": value_of(wire)}]
    arrived = command.bind({"x": value_of(wire)}).x
    assert (type(arrived), arrived) == (type(given), given)
    item = command.encode_answer(given)
    assert isinstance(item, bytes)
    assert DECODER.decode(item) == value_of(wire)
    assert command.decode_answer(value_of(wire)) == given


@pytest.mark.parametrize(("annotation", "instead"), REFUSED, ids=[row[0] for row in REFUSED])
def test_what_can_not_be_carried_is_refused_and_the_other_is_not(
    annotation: str, instead: str
) -> None:
    [annotation] = code(annotation)
    with pytest.raises(TypeError, match=r"^\w+(\.x\S*)?: |^Cmd\.x: "):
        read_by(value_of(annotation))
    for other in code(
        instead.partition(":")[0].partition(" can't")[2] or instead.partition(":")[0]
    ):
        if other not in ("NewType", "x: int"):
            read_by(value_of(other))


def test_union_of_dataclasses_is_carried_as_a_whole_answer() -> None:
    command = read_by(int, value_of("Point | Tree"))
    item = command.encode_answer(value_of("Point(1)"))
    assert command.decode_answer(["Point", {"x": 1, "y": 0}]) == value_of("Point(1)")
    assert DECODER.decode(b"".join([item] if isinstance(item, bytes) else item))[0] == "Point"  # type: ignore[index]


@pytest.mark.parametrize(
    ("annotation", "value", "because"), VALUES, ids=[f"{row[0]} {row[1]}" for row in VALUES]
)
def test_value_that_would_be_changed_is_refused(annotation: str, value: str, because: str) -> None:
    [annotation], [value] = code(annotation), code(value)
    command = read_by(value_of(annotation), value_of(annotation))
    given = value_of(value)
    assert because
    with pytest.raises((TypeError, ValueError), match=r"^Cmd\.x"):
        command.encode_call(encode(1), command.cls(given))
    with pytest.raises((TypeError, ValueError)):
        command.encode_answer(given)
    for other in code(because):
        if other.startswith(("list[", "dict[")):
            carried = read_by(value_of(other), value_of(other))
            carried.encode_answer({1: "a", 2: "b"} if other.startswith("dict") else given)


# Of each row: the annotation, what is right, what is wrong.
TRIED: dict[str, tuple[Any, Any, list[Any]]] = {
    "a number's range": (int, 1, [-1, 10]),
    "a multiple": (int, 5, [1]),
    "a length": (str, "a", ["", "x" * 10]),
    "a pattern": (str, "a", ["A"]),
    "with or without an offset": (str, None, ["2026-01-02T03:04:05", "2026-01-02T03:04:05Z"]),
}


@pytest.mark.parametrize("row", CONSTRAINTS, ids=[row[0] for row in CONSTRAINTS])
def test_each_constraint_is_enforced(row: list[str]) -> None:
    annotation, right, wrong = TRIED[row[0]]
    names = {**NAMES, **vars(annotated_types)}
    for text in [*code(row[1]), *code(row[2])]:
        kind = annotation if right is not None else NAMES["datetime"]
        command = read_by(Annotated[kind, eval(text, names)])
        if right is not None:
            assert command.bind({"x": right}).x == right
        refused = []
        for plain in wrong:
            try:
                command.bind({"x": plain})
            except WireError as error:
                refused.append(str(error))
        assert refused, f"{text} refuses nothing"
        assert all(sentence.startswith("Cmd.x must ") for sentence in refused)


def test_offset_and_not_the_zone_is_carried() -> None:
    moment = value_of('datetime(2026, 1, 2, tzinfo=ZoneInfo("Europe/Berlin"))')
    command = read_by(type(moment), type(moment))
    item = command.encode_answer(moment)
    assert isinstance(item, bytes)
    arrived = command.decode_answer(DECODER.decode(item))
    assert arrived == moment
    assert arrived.tzinfo == value_of("timezone(timedelta(hours=1))")
