"""What the classes of a description are named. No I/O."""

from __future__ import annotations

import re
from collections import Counter

from .._shown import encodable


def names_of(classes: list[type]) -> dict[type, str]:
    """Return a name for each class: its own, and where two share one, with the module before it."""
    short = {cls: _in_a_reference(cls.__name__) for cls in classes}
    counts = Counter(short.values())
    taken = {name for name, count in counts.items() if count == 1}
    names: dict[type, str] = {}
    for cls, own in short.items():
        name = own
        if counts[own] > 1:
            whole = name = _in_a_reference(f"{cls.__module__}.{cls.__name__}")
            number = 1
            while name in taken:  # made twice, in a function
                number += 1
                name = f"{whole}-{number}"
            taken.add(name)
        names[cls] = name
    return names


def _in_a_reference(name: str) -> str:
    """Return a name without what would have to be escaped in a reference."""
    return re.sub(r"[^\w.-]", "_", encodable(name))
