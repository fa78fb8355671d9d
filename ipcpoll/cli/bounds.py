"""The bounds of numbers and of lengths, and their words, which are those of the server. No I/O."""

from __future__ import annotations

from typing import Any, Final

from .kinds import Schema, said
from .unfit import Unfit

_BOUNDS: Final = (
    ("minimum", "be at least", lambda value, bound: value >= bound),
    ("exclusiveMinimum", "be more than", lambda value, bound: value > bound),
    ("maximum", "be at most", lambda value, bound: value <= bound),
    ("exclusiveMaximum", "be less than", lambda value, bound: value < bound),
    ("multipleOf", "be a multiple of", lambda value, bound: value % bound == 0),
)
_LENGTHS: Final = {
    "string": ("minLength", "maxLength", "character", "characters"),
    "array": ("minItems", "maxItems", "item", "items"),
    "object": ("minProperties", "maxProperties", "entry", "entries"),
}


def check_bounds(value: Any, schema: Schema) -> None:
    """Raise Unfit unless a number is as large as its schema says."""
    for key, words, holds in _BOUNDS:
        bound = schema.get(key)
        if type(bound) in (int, float) and not _holds(holds, value, bound):
            raise Unfit(f"must {words} {bound!r}, not {said(value)}", is_near=True)


def check_length(kind: str, length: int, schema: Schema) -> None:
    """Raise Unfit unless a text, a list or an object is as long as its schema says."""
    least, most, one, several = _LENGTHS[kind]
    bound = schema.get(least)
    if type(bound) is int and length < bound:
        words = f"must have at least {counted(bound, one, several)}, not {length}"
        raise Unfit(words, is_near=True)
    bound = schema.get(most)
    if type(bound) is int and length > bound:
        words = f"must have at most {counted(bound, one, several)}, not {length}"
        raise Unfit(words, is_near=True)


def counted(number: int, one: str, several: str) -> str:
    """Return a number of things for a sentence."""
    return f"{number} {one if number == 1 else several}"


def _holds(holds: Any, value: Any, bound: Any) -> bool:
    try:
        return bool(holds(value, bound))
    except ArithmeticError:  # a multiple of 0
        return False
