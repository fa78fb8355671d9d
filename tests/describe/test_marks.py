"""The marks for `Annotated[…]`."""

from __future__ import annotations

import math
from typing import Annotated, Any

import msgspec
import pytest
import wire

import ipcpoll
from ipcpoll._schema.commands import resolve
from ipcpoll.describe.schema import Schemas

WORDS = [
    (ipcpoll.SECRET, {"writeOnly": True}),
    (ipcpoll.READ_ONLY, {"readOnly": True}),
    (ipcpoll.AT_RESTART, {"x-applies": "restart"}),
    (ipcpoll.unit("m/s²"), {"x-unit": "m/s²"}),
    (ipcpoll.step(0.1), {"x-step": 0.1}),
    (ipcpoll.step(2), {"x-step": 2}),
]


def schema_of(annotation: Any) -> Any:
    return Schemas().fields(wire.command(annotation))["properties"]["x"]


@pytest.mark.parametrize(("mark", "words"), WORDS)
def test_mark_becomes_words(mark: msgspec.Meta, words: dict[str, Any]) -> None:
    assert type(mark) is msgspec.Meta
    assert schema_of(Annotated[float, mark]) == {"type": "number", **words}


def test_marks_stand_beside_each_other_and_beside_bounds() -> None:
    annotation = Annotated[
        float,
        msgspec.Meta(ge=0, description="Pull"),
        ipcpoll.unit("m/s²"),
        ipcpoll.step(0.1),
        ipcpoll.READ_ONLY,
    ]
    assert schema_of(annotation) == {
        "type": "number",
        "minimum": 0,
        "description": "Pull",
        "x-unit": "m/s²",
        "x-step": 0.1,
        "readOnly": True,
    }
    command = resolve(wire.command(annotation))
    assert command.bind({"x": 0.3}).x == 0.3
    with pytest.raises(Exception, match="must be at least 0"):
        command.bind({"x": -1.0})


@pytest.mark.parametrize(("mark", "_"), WORDS)
def test_mark_refuses_nothing(mark: msgspec.Meta, _: object) -> None:
    """Also a step: 0.3 is no multiple of 0.1, as a float."""
    command = resolve(wire.command(Annotated[float, mark] | None))
    assert command.bind({"x": 0.3}).x == 0.3
    assert command.bind({"x": None}).x is None


@pytest.mark.parametrize("size", [0, -1, math.inf, math.nan])
def test_step_is_above_nothing(size: float) -> None:
    with pytest.raises(ValueError, match="more than 0"):
        ipcpoll.step(size)


@pytest.mark.parametrize("size", ["1", None, True])
def test_step_is_a_number(size: Any) -> None:
    with pytest.raises(TypeError, match="a step is a number"):
        ipcpoll.step(size)


def test_unit_is_text() -> None:
    with pytest.raises(TypeError, match="a unit is text, not 5"):
        ipcpoll.unit(5)  # type: ignore[arg-type]
