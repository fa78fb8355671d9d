"""What a word wants of a variable, and sums with the value that is there. No I/O.

What is promised: numbers are added as they are written, so 0.1 and 0.2 are 0.3.
"""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any, Final, NamedTuple

from . import durations
from .kinds import Schema, choices_of, kind_words, said
from .scalars import read_number, seconds_of
from .schemas import Schemas
from .unfit import Unfit

TOGGLE: Final = "toggle"
_TOO_LARGE: Final = "would be too large a number to be sent"


class Change(NamedTuple):
    """What a word wants of a variable."""

    name: str
    schema: Any
    sign: str
    """``=``: `value` is the new one. ``+=``, ``-=``: it is added, subtracted. TOGGLE: turned."""
    value: Any

    @property
    def reads_first(self) -> bool:
        """Whether the new value depends on the one that is there; see `Reader.changed`."""
        return self.sign != "="


def can_be_added_to(branch: Schema) -> bool:
    """Return whether it is a number, or a duration."""
    is_duration = branch.get("format") == "duration"
    return choices_of(branch) is None and (
        branch.get("type") in ("integer", "number")
        or (branch.get("type") == "string" and is_duration)
    )


def amount_of(text: str, sign: str, branch: Schema) -> Decimal:
    """Return what is to be added: a number without the variable's bounds, or seconds.

    Raises Unfit.
    """
    if branch.get("type") == "string":
        seconds = durations.read(text)
        if seconds is None:
            raise Unfit(f"must be {kind_words(branch)} after {sign}, not {said(text)}")
        return seconds
    amount = read_number(text, branch)
    if not math.isfinite(amount):
        raise Unfit(f"must be a number after {sign}, not {said(text)}")
    return Decimal(repr(amount))


def added(schemas: Schemas, branch: Schema, old: Any, amount: Decimal) -> Any:
    """Return the value that is there and `amount`, in the variable's bounds. Raises Unfit."""
    if branch.get("type") == "string":
        seconds = seconds_of(old)
        if seconds is None:
            raise Unfit(f"is {said(old)} now, which is no duration")
        return schemas.fit_text(durations.iso(seconds + amount), branch)
    if type(old) not in (int, float) or not math.isfinite(old):
        raise Unfit(f"is {said(old)} now, to which nothing can be added")
    total = Decimal(repr(old)) + amount
    value = int(total) if branch.get("type") == "integer" else float(total)
    if not math.isfinite(value):
        raise Unfit(_TOO_LARGE)
    return schemas.fit_number(value, branch)
