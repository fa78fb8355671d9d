"""One text to one scalar and back: yes and no, numbers, enumerations, strict JSON. No I/O.

What is promised: whatever the text, the value or `Unfit`, in time that its length allows.
"""

from __future__ import annotations

import datetime
import json
import math
import re
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import msgspec

from . import durations
from .kinds import Schema, kind_words, named, nearest, said, word
from .schemas import MOST_INT, NOT_FINITE
from .text import json_text
from .unfit import Unfit

BOOLEANS: Final = {
    **dict.fromkeys(("yes", "on", "true"), True),
    **dict.fromkeys(("no", "off", "false"), False),
}
_WHOLE: Final = re.compile(r"[+-]?(?:\d+|0x[0-9a-f]+|0o[0-7]+|0b[01]+)", re.ASCII | re.IGNORECASE)
_NUMBER: Final = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d{1,5})?", re.ASCII | re.IGNORECASE)
_MOST_DIGITS: Final = 400


def parsed(text: str) -> Any:
    """Return what strict JSON says: no NaN, no key twice. Raises ValueError, RecursionError."""
    return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_object)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON, it is written as text")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is there twice")
    return found


def read_boolean(text: str) -> bool:
    """Return what a word says. Raises Unfit."""
    value = BOOLEANS.get(text.casefold())
    if value is None:
        raise Unfit(f"must be yes or no, not {said(text)}")
    return value


def read_number(text: str, schema: Schema) -> int | float:
    """Return the number that a text stands for, whatever its bounds."""
    is_whole = schema.get("type") == "integer"
    unit = durations.unit(schema.get("x-unit"))
    seconds = None if unit is None else durations.read(text)
    words = "an integer" if is_whole else "a number"
    if seconds is not None and unit is not None:
        number = seconds / unit
        words = f"{words} of {schema['x-unit']}"
    elif is_whole_number(text):
        number = Decimal(_whole(text))
    else:
        number = _decimal(text, words, is_whole=is_whole)
    if not is_whole:
        value = float(number)
        if math.isinf(value) and number.is_finite():
            raise Unfit("is too large a number to be sent", is_near=True)
        return value
    if number.is_nan() or abs(number) > 2 * MOST_INT:
        raise Unfit("is too large a number to be sent", is_near=True)
    if number != number.to_integral_value():
        raise Unfit(f"must be {words}, not {said(text)}", is_near=seconds is not None)
    return int(number)


def is_whole_number(text: str) -> bool:
    """Return whether a text is an integer by its form: no point, no exponent."""
    return len(text) <= _MOST_DIGITS and _WHOLE.fullmatch(text) is not None


def _whole(text: str) -> int:
    prefix = text.lstrip("+-")[:2].casefold()
    return int(text, 0 if prefix in ("0x", "0o", "0b") else 10)


def _decimal(text: str, words: str, *, is_whole: bool) -> Decimal:
    if not is_whole and text.casefold() in NOT_FINITE:
        return Decimal(text)
    if len(text) <= _MOST_DIGITS and _NUMBER.fullmatch(text):
        try:
            return Decimal(text)
        except InvalidOperation:
            pass
    raise Unfit(f"must be {words}, not {said(text)}")


def read_choice(text: str, choices: Sequence[Any]) -> Any:
    """Return the value of an enumeration that a text stands for: as it is, else without case."""
    for fold in (str, str.casefold):
        wanted = fold(text)
        found = [choice for choice in choices if fold(word(choice)) == wanted]
        texts = [choice for choice in found if isinstance(choice, str)]
        if len(found) == 1 or len(texts) == 1:
            return (texts or found)[0]
        if found:
            raise Unfit(f"fits {named(found)}: say which, not {said(text)}", is_near=True)
    if is_whole_number(text):
        number = _whole(text)
        for choice in choices:
            if type(choice) is int and choice == number:
                return choice
    near = nearest(text, [choice for choice in choices if isinstance(choice, str)])
    hint = f"; did you mean {near}?" if near else ""
    raise Unfit(f"must be {kind_words({'enum': choices})}, not {said(text)}", hint=hint)


def as_typed(value: Any) -> str | None:
    """Return how a value would be typed; None: only as JSON."""
    match value:
        case float() if not math.isfinite(value):
            return word("nan" if math.isnan(value) else ("inf" if value > 0 else "-inf"))
        case bytes():
            return str(json.loads(json_text(value)))
        case list():
            parts = [as_typed(item) for item in value]
            return ",".join(part or "" for part in parts)
        case dict():
            return None
        case _:
            return word(value)


def seconds_of(text: Any) -> Decimal | None:
    """Return the seconds of a duration of ISO 8601; None: it is none."""
    try:
        duration = msgspec.convert(text, datetime.timedelta)
    except msgspec.ValidationError:
        return None
    return Decimal(duration // datetime.timedelta(microseconds=1)) / 1_000_000
