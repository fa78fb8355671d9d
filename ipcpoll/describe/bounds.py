"""Constraints in the words of JSON Schema. No I/O.

What is promised: a word says no more than the server enforces. Of two bounds the narrower counts;
two that can't be joined are side by side, in ``allOf``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime, time
from typing import Any, Final

from .._schema.constraints import Constraint
from .._wire.diagnosis import INT_MAX, INT_MIN

ARRAYS: Final = (list, set, frozenset, tuple)
"""What has items of one type."""
_NUMBER: Final = {
    "ge": "minimum",
    "gt": "exclusiveMinimum",
    "le": "maximum",
    "lt": "exclusiveMaximum",
    "multiple_of": "multipleOf",
}
_TEXT: Final = {"min_length": "minLength", "max_length": "maxLength", "pattern": "pattern"}
_ITEMS: Final = {"min_length": "minItems", "max_length": "maxItems"}
_WORDS: Final[dict[Any, dict[str, str]]] = {
    **dict.fromkeys((int, float), _NUMBER),
    **dict.fromkeys((str, bytes), _TEXT),
    **dict.fromkeys(ARRAYS, _ITEMS),
    dict: {"min_length": "minProperties", "max_length": "maxProperties"},
}
"""How JSON Schema names a constraint, by what it is around."""
_NARROWER: Final[dict[str, Callable[[Any, Any], Any]]] = {
    **dict.fromkeys(("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"), max),
    **dict.fromkeys(("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"), min),
}
"""Which of two bounds counts."""
FORMATS: Final[dict[Any, dict[bool, str]]] = {
    datetime: {True: "date-time", False: "date-time-local"},
    time: {True: "time", False: "time-local"},
}
"""How a moment with its offset from UTC is named, and one without. The names of the latter are from
the registry of OpenAPI."""


def add_bound(schema: dict[str, Any], kind: Any, limit: Constraint) -> None:
    """Add what a constraint says, if it says something about this kind."""
    bound = limit.bound
    if limit.keyword == "tz":
        if kind not in FORMATS:
            return
        word, bound = "format", FORMATS[kind][bound]
    elif limit.keyword in _WORDS.get(kind, ()):
        word = _WORDS[kind][limit.keyword]
        if kind is bytes:  # each three of them are four characters of base64
            bound = 4 * ((bound + 2) // 3)
        elif isinstance(bound, float) and not math.isfinite(bound):
            return  # strict JSON has no such number
        elif isinstance(bound, int) and not INT_MIN <= bound <= INT_MAX:
            bound = math.copysign(2.0**64, bound)  # beyond every int that is carried
    else:
        return
    other = schema.get(word, bound)
    if other == bound:
        schema[word] = bound
    elif word in _NARROWER:
        schema[word] = _NARROWER[word](bound, other)
    else:
        schema.setdefault("allOf", []).append({word: bound})
