"""What programs say, made fit to be shown: never obeyed, never without bounds. No I/O.

What is promised, for whatever text a program has sent:

* `escaped` leaves no character that could steer a terminal, break a line or a column, or turn the
  direction of writing: control, format, surrogate, private and unassigned characters, and what
  separates lines and paragraphs, are written as in Python's literals (``\\x1b``, ``\\u202e``).
* `shown` is that in bounds: it cuts first, so a text of many MiB costs no more than a short one.
* `json_text` is strict JSON, of printable characters alone, which any parser reads back to the
  `json_form`: NaN and infinities are the texts "nan", "inf", "-inf"; bytes are base64.

A backslash stays one, so an escape can be told from a program's own text only in JSON.
"""

from __future__ import annotations

import base64
import json
import math
import re
import unicodedata
from collections.abc import Callable
from typing import Any, Final

MOST: Final = 1000
"""Characters of a text that are shown, where a text is not the answer itself."""

_STEERING: Final = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"})
_DOUBTFUL: Final = re.compile(r"[^\x20-\x7e]")
_BEYOND_BMP: Final = 0x10000


def escaped(text: str, *, lines: bool = False) -> str:
    """Return the text with whatever could steer a terminal escaped. `lines`: newlines may stay."""
    return _replaced(text, _escape, lines=lines)


def shown(text: str, most: int = MOST, *, lines: bool = False) -> str:
    """Return at most so many characters of the text, escaped, and how many there are more."""
    if len(text) <= most:
        return escaped(text, lines=lines)
    return f"{escaped(text[:most], lines=lines)}… ({len(text) - most} more)"


def steers(char: str) -> bool:
    """Return whether a character is more than one that is seen."""
    return unicodedata.category(char) in _STEERING


def scalar(value: Any) -> str:
    """Return a plain value as one word: text as it is, escaped, all else as in JSON."""
    return escaped(value) if isinstance(value, str) else json_text(value)


def json_form(value: Any) -> Any:
    """Return a plain value as strict JSON can hold it."""
    match value:
        case bytes():
            return base64.b64encode(value).decode()
        case float() if not math.isfinite(value):
            return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
        case list() | tuple():
            return [json_form(item) for item in value]
        case dict():
            return {str(key): json_form(item) for key, item in value.items()}
        case _:
            return value


def json_text(value: Any, *, indent: int | None = None) -> str:
    """Return a plain value as JSON: one line, unless it is indented."""
    text = json.dumps(json_form(value), ensure_ascii=False, allow_nan=False, indent=indent)
    # They stand inside its texts alone, where JSON has an escape for each. Newlines are its own.
    return _replaced(text, _json_escape, lines=indent is not None)


def _replaced(text: str, escape: Callable[[str], str], *, lines: bool) -> str:
    def fit(found: re.Match[str]) -> str:
        char = found[0]
        return escape(char) if steers(char) and not (lines and char == "\n") else char

    return _DOUBTFUL.sub(fit, text)


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode()


def _json_escape(char: str) -> str:
    code = ord(char)
    if code < _BEYOND_BMP:
        return f"\\u{code:04x}"
    high, low = divmod(code - _BEYOND_BMP, 0x400)
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"
