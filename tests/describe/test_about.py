"""`ipcpoll.about`: what a command says of itself."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import pytest

import ipcpoll
from ipcpoll._schema.commands import resolve
from ipcpoll._schema.declared import About, declared


class Full(ipcpoll.DeclaredError):
    """No room."""

    CODE = "full"


class AlsoFull(ipcpoll.DeclaredError):
    CODE = "full"


@ipcpoll.about(effect="dangerous", errors=[Full], since="1.2", deprecated="use Drain", hidden=True)
@dataclass
class Empty:
    """Throw all of it away."""

    now: bool = True

    def process(self, ctx: object) -> None: ...


@dataclass
class EmptySlowly(Empty):
    pass


def test_it_is_kept_for_that_class() -> None:
    said = declared(Empty)
    assert said == About("dangerous", {"full": Full}, "1.2", "use Drain", True)


def test_class_is_the_same_and_its_fields_are() -> None:
    assert [field.name for field in fields(Empty)] == ["now"]
    assert resolve(Empty).bind({"now": False}) == Empty(False)


def test_derived_class_says_nothing() -> None:
    assert declared(EmptySlowly) == About()
    assert declared(EmptySlowly).effect == "changes"


def test_it_may_stand_below_the_dataclass() -> None:
    @dataclass(slots=True)
    @ipcpoll.about(effect="reads")
    class Size:
        def process(self, ctx: object) -> int:
            return 1

    assert declared(Size).effect == "reads"


def test_what_else_has_this_attribute_says_nothing() -> None:
    class Odd:
        __ipcpoll_about__ = "mine"

    assert declared(Odd) == About()


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"effect": "harmless"}, ValueError, "one of reads, changes, dangerous, not 'harmless'"),
        ({"since": 2}, TypeError, "`since` is text or None, not 2"),
        ({"deprecated": True}, TypeError, "`deprecated` is text or None"),
        ({"hidden": 1}, TypeError, "`hidden` is True or False"),
        ({"errors": Full}, TypeError, r"write `errors=\(Full,\)`"),
        ({"errors": [ValueError]}, TypeError, "derived from DeclaredError with a CODE"),
        ({"errors": [ipcpoll.DeclaredError]}, TypeError, "with a CODE"),
        ({"errors": ["full"]}, TypeError, "not 'full'"),
        ({"errors": [Full, AlsoFull]}, TypeError, "Full and AlsoFull have the same code `full`"),
    ],
)
def test_what_is_wrong_is_told_at_once(options: Any, kind: Any, words: str) -> None:
    with pytest.raises(kind, match=words):
        ipcpoll.about(**options)


def test_one_error_may_be_named_twice() -> None:
    ipcpoll.about(errors=[Full, Full])


def test_it_is_about_a_class() -> None:
    with pytest.raises(TypeError, match="says something about a class, not 5"):
        ipcpoll.about()(5)  # type: ignore[type-var]
