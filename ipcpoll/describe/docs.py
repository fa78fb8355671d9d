"""The documentation of a class, as its author wrote it. No I/O.

What is promised: it is the class's own, cleaned as `inspect.cleandoc` does and otherwise untouched:
whoever shows it escapes it. What Python, or a base class, has written is none. It can be encoded:
half a character (a lone surrogate) is escaped.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from typing import Final

from .._shown import encodable

_SIGNATURE: Final = re.compile(r"\((\*, )?(\w+: .*)?\)")
"""What `dataclasses.dataclass` writes behind the class's name where there is no docstring."""
_OF_ENUM: Final = "An enumeration."  # what an older Python wrote


def doc_of(cls: type) -> str:
    """Return the docstring of a class; empty: it has none of its own."""
    doc = vars(cls).get("__doc__")
    if not isinstance(doc, str) or _is_made_up(cls, doc):
        return ""
    return encodable(inspect.cleandoc(doc))


def _is_made_up(cls: type, doc: str) -> bool:
    name, fields = cls.__name__, getattr(cls, "_fields", None)
    if dataclasses.is_dataclass(cls):
        return doc.startswith(name) and _SIGNATURE.fullmatch(doc, len(name)) is not None
    if issubclass(cls, tuple) and fields is not None:
        return doc == f"{name}({', '.join(fields)})"
    return doc == _OF_ENUM
