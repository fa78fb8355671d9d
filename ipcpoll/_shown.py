"""How sentences show what others have made: values, paths, whole messages. No I/O.

For every room; it imports none.
"""

from __future__ import annotations

import builtins
from typing import Any, Final


def printable(message: str) -> str:
    """Return the message as one line: what a client sent must not look like a line of its own."""
    if message.isprintable():
        return message
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in message
    )


def encodable(text: str) -> str:
    """Return the text with lone surrogates escaped: names of files hold them, UTF-8 does not."""
    return text.encode("utf-8", "backslashreplace").decode()


def shown_path(path: str) -> str:
    """Return how a sentence shows a path: in characters that can be printed."""
    if path.isprintable():
        return path
    text = path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


_SHOWN: Final = 40
_NAMES: Final[dict[type, str]] = {list: "a list", dict: "a map", tuple: "a tuple"}


def shown_value(value: Any) -> str:
    """Return a value as a sentence shows it: a scalar as Python writes it, 40 characters at most.

    What can be long is named by its kind, and what is of no known kind by its class.
    """
    kind = type(value)
    if kind is str or kind is bytes:
        text = repr(value[:_SHOWN])
        return text if len(value) <= _SHOWN else text + "…"
    if kind is int and not -(10**_SHOWN) < value < 10**_SHOWN:  # of most digits it is slow
        return "an int of many digits"
    if kind in (int, float, bool, type(None)):
        return repr(value)
    if kind in _NAMES:
        return _NAMES[kind]
    name = kind.__qualname__[:80]
    if getattr(builtins, name, kind) is not kind:  # numpy has a `bool` too
        name = f"{kind.__module__[:80]}.{name}"
    return f"a value of type `{name}`"
