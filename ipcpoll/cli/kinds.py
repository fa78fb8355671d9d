"""What one schema allows, without its references, and how sentences call it. No I/O.

What is promised: whatever stands in a schema, which is another program's word, nothing is raised.
"""

from __future__ import annotations

import datetime
import decimal
import uuid
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Final, TypeAlias

from .text import json_text
from .unfit import Unfit

Schema: TypeAlias = "Mapping[str, Any]"

FORMATS: Final[dict[str, tuple[Any, str]]] = {
    "date-time": (datetime.datetime, "a date and time like 2026-01-02T03:04:05Z"),
    "date": (datetime.date, "a date like 2026-01-02"),
    "time": (datetime.time, "a time like 01:02:03"),
    "duration": (datetime.timedelta, "a duration like 1.5s or 2h30m"),
    "uuid": (uuid.UUID, "a UUID"),
    "decimal": (decimal.Decimal, "a decimal number"),
}
"""The formats of text: of which type, and the words for it."""

_KINDS: Final = {
    "null": "null",
    "boolean": "yes or no",
    "integer": "an integer",
    "number": "a number",
    "string": "text",
    "array": "a list",
    "object": "an object",
}
MOST_NAMED: Final = 30
"""Names of fields, or values of an enumeration, in one sentence."""

_MOST_SHOWN: Final = 40


def listed(value: Any) -> Sequence[Any]:
    """Return a list that a schema should have; empty where it has something else."""
    return value if isinstance(value, list | tuple) else ()


def choices_of(schema: Schema) -> Sequence[Any] | None:
    """Return the values of an enumeration, in its order; None: it is none."""
    if "const" in schema:
        return [schema["const"]]
    return listed(schema["enum"]) if "enum" in schema else None


def is_bytes(schema: Schema) -> bool:
    """Return whether a schema of text is one of bytes, which JSON has not."""
    return schema.get("contentEncoding") == "base64"


def is_text(schema: Schema) -> bool:
    """Return whether a branch takes any text: the one that is asked last."""
    return (
        schema.get("type") == "string"
        and choices_of(schema) is None
        and not is_bytes(schema)
        and schema.get("format") not in FORMATS
    )


def kind_words(schema: Schema) -> str:
    """Return what one branch allows, for a sentence."""
    choices = choices_of(schema)
    if choices is not None:
        return f"one of {named(choices)}" if len(choices) != 1 else word(choices[0])
    if is_bytes(schema):
        return "bytes in base64"
    kind = schema.get("type")
    if kind == "string" and schema.get("format") in FORMATS:
        return FORMATS[schema["format"]][1]
    return _KINDS.get(str(kind), "any value")


def named(choices: Sequence[Any]) -> str:
    """Return the values of an enumeration for a sentence, the first 30."""
    more = len(choices) - MOST_NAMED
    words = ", ".join(map(word, choices[:MOST_NAMED]))
    return f"{words} and {more} more" if more > 0 else words


def word(value: Any) -> str:
    """Return a value as it is typed."""
    return value if isinstance(value, str) else json_text(value)


def said(value: Any) -> str:
    """Return a value as a refusal shows it: 40 characters at most, a container by its kind."""
    match value:
        case str():
            return repr(value) if len(value) <= _MOST_SHOWN else f"{value[:_MOST_SHOWN]!r}…"
        case list() | tuple():
            return "a list"
        case Mapping():
            return "an object"
        case bytes():
            return "bytes"
        case _:
            text = json_text(value)
            return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"


def unknown(name: str, known: Sequence[str], what: str = "field", owner: str = "") -> Unfit:
    """Return the refusal of a name that its `owner` does not know, with the nearest one."""
    words = f"has no {what} {said(name)}"
    if near := nearest(name, known):
        return Unfit(words, owner, hint=f"; did you mean {near}?", is_near=True)
    hint = f"; there are {named(known)}" if known else "; there is none at all"
    return Unfit(words, owner, hint=hint, is_near=True)


def nearest(name: str, known: Sequence[str]) -> str | None:
    """Return the name that was probably meant."""
    near = get_close_matches(name[:200].casefold(), [each.casefold() for each in known], 1)
    return next((each for each in known if each.casefold() in near), None)
