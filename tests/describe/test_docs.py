"""Whose words a class's docstring is."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import NamedTuple, TypedDict

import pytest

from ipcpoll.describe.docs import doc_of


@dataclass
class Said:
    """Say it.

    With an example::

        Say("a")
    """

    a: int = 0


@dataclass
class Derived(Said):
    b: int = 0


@dataclass
class NoFields:
    pass


@dataclass
class OnlyByKeyword:
    a: int = field(default=1, kw_only=True)
    b: str = field(default="(", kw_only=True)


@dataclass
class LikeACall:
    """LikeACall(a, b)"""

    a: int
    b: int


class Pair(NamedTuple):
    key: str
    value: int


class DocumentedPair(NamedTuple):
    """A pair."""

    key: str


class Profile(TypedDict):
    name: str


class Colour(enum.Enum):
    RED = 1


class Documented(enum.Enum):
    """Of a wall."""

    RED = 1


@pytest.mark.parametrize(
    ("cls", "doc"),
    [
        (Said, 'Say it.\n\nWith an example::\n\n    Say("a")'),
        (Derived, ""),
        (NoFields, ""),
        (OnlyByKeyword, ""),
        (LikeACall, "LikeACall(a, b)"),
        (Pair, ""),
        (DocumentedPair, "A pair."),
        (Profile, ""),
        (Colour, ""),
        (Documented, "Of a wall."),
    ],
)
def test_doc_is_the_class_s_own(cls: type, doc: str) -> None:
    assert doc_of(cls) == doc


def test_what_no_docstring_is_does_not_count() -> None:
    assert doc_of(type("A", (), {"__doc__": 5})) == ""


@pytest.mark.parametrize("doc", ["\x1b[2J\x07", "\u202eevil", "<b>&amp;", "a" * (1 << 20)])
def test_hostile_words_are_passed_on_as_they_are(doc: str) -> None:
    """Whoever shows them escapes them: only he knows for what."""
    assert doc_of(type("A", (), {"__doc__": doc})) == doc


def test_half_a_character_is_escaped() -> None:
    cls = type("A", (), {})
    cls.__doc__ = "a\ud800b"
    assert doc_of(cls) == "a\\ud800b"
