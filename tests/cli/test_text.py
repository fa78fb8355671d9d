"""What programs say is shown and never obeyed, and JSON is strict."""

from __future__ import annotations

import json
import math
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipcpoll.cli.text import escaped, json_form, json_text, scalar, shown

HOSTILE = [
    "\x1b[2J\x1b[31m",
    "\x9b31m",  # CSI in one character
    "\x07\x08\r\n\t\x7f\0",
    "\u202eabc\u202c",
    "\u2066x\u2069",
    "\u200b\u200d\ufeff",
    "\u2028\u2029\x85",
    "\U000e0041",  # a tag
    "\ue000",
    "\ud800",
]


def is_harmless(text: str) -> bool:
    return not {unicodedata.category(char) for char in text} & {
        "Cc",
        "Cf",
        "Cn",
        "Co",
        "Cs",
        "Zl",
        "Zp",
    }


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_nothing_steers(text: str) -> None:
    assert not is_harmless(text)
    assert is_harmless(escaped(text))


@given(st.text(st.characters(exclude_categories=())))
def test_no_text_steers(text: str) -> None:
    assert is_harmless(escaped(text))
    assert is_harmless(escaped(text, lines=True).replace("\n", ""))
    assert is_harmless(shown(text, 5))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("plain text", "plain text"),
        ("Größe — 日本語 🙂", "Größe — 日本語 🙂"),
        ("a\nb\tc", r"a\nb\tc"),
        ("\x1b[31m", r"\x1b[31m"),
        ("\u202e", r"\u202e"),
        ("\U000e0041", r"\U000e0041"),
        (r"C:\new", r"C:\new"),
    ],
)
def test_escapes_are_pythons(text: str, expected: str) -> None:
    assert escaped(text) == expected


def test_newlines_may_stay_and_nothing_else() -> None:
    assert escaped("a\n\r\x1bb\u2028", lines=True) == "a\n" + r"\r\x1bb\u2028"


def test_bounds() -> None:
    assert shown("abc", 3) == "abc"
    assert shown("abcd", 3) == "abc… (1 more)"
    assert len(shown("\x1b" * 1_000_000)) < 5000


@pytest.mark.parametrize(
    ("value", "form"),
    [
        (math.nan, "nan"),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
        (b"\xff\0", "/wA="),
        ([b"", (1.5, None)], ["", [1.5, None]]),
        ({"a": {"b": math.nan}}, {"a": {"b": "nan"}}),
        (2**64 - 1, 2**64 - 1),
        (True, True),
    ],
)
def test_json_form(value: Any, form: Any) -> None:
    assert json_form(value) == form
    assert json.loads(json_text(value), parse_constant=pytest.fail) == form


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.binary()
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)


@given(PLAIN, st.sampled_from([None, 2]))
def test_json_is_strict_and_harmless(value: Any, indent: int | None) -> None:
    text = json_text(value, indent=indent)
    assert json.loads(text, parse_constant=pytest.fail) == json_form(value)
    assert is_harmless(text.replace("\n", "") if indent else text)
    text.encode()


@pytest.mark.parametrize(
    ("value", "word"),
    [("a b", "a b"), ("\n", r"\n"), (None, "null"), (True, "true"), (1.5, "1.5"), ([1], "[1]")],
)
def test_scalar(value: Any, word: str) -> None:
    assert scalar(value) == word
