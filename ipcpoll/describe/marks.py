"""Marks for ``Annotated[…]``: what tools say and show of a value beside its type. No I/O.

What is promised: each is a `msgspec.Meta`, so it stands beside others (bounds, a description) and
changes nothing of what is taken or refused. It becomes words in the schema of what it is around.
"""

from __future__ import annotations

import math
from typing import Final

from msgspec import Meta

SECRET: Final = Meta(extra_json_schema={"writeOnly": True})
"""A password, a token: it may be set and is never shown. Around a dataclass: all that is in it."""

READ_ONLY: Final = Meta(extra_json_schema={"readOnly": True})
"""The program's own: others may read it."""

AT_RESTART: Final = Meta(extra_json_schema={"x-applies": "restart"})
"""The program looks at it only when it starts. Tools say so; setting it works at once."""


def unit(name: str) -> Meta:
    """Return a mark that says in which unit a number is: ``unit("m/s²")``.

    It converts nothing. Raises TypeError for what is no text.
    """
    if type(name) is not str:
        raise TypeError(f"a unit is text, not {name!r}")
    return Meta(extra_json_schema={"x-unit": name})


def step(size: float) -> Meta:
    """Return a mark that says by how much a slider or a key changes a number: ``step(0.1)``.

    A hint for tools, which refuses nothing: ``Meta(multiple_of=0.1)`` would refuse 0.3. Raises
    TypeError for what is no number, ValueError for one that is not above 0, or not finite.
    """
    if type(size) not in (int, float):
        raise TypeError(f"a step is a number, not {size!r}")
    if not 0 < size < math.inf:
        raise ValueError(f"a step is more than 0 and finite, not {size!r}")
    return Meta(extra_json_schema={"x-step": size})
