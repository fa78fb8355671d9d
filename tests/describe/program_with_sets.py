"""Prints the fingerprint of a program whose defaults have an order of their own in each process.

And in its first line that order, which must differ for the test to say something.
"""

from __future__ import annotations

import itertools
import json
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from ipcpoll._schema.commands import CommandSet
from ipcpoll._wire.codec import Decoder
from ipcpoll.describe.description import Description

LETTERS = frozenset({"a", "b", "c", "d", "e"})
COUNT = itertools.count()


@dataclass
class Inner:
    words: set[str] = field(default_factory=lambda: set(LETTERS))


@dataclass
class Everything:
    """Have sets everywhere."""

    letters: frozenset[str] = LETTERS
    mixed: set[int | str | None] = field(default_factory=lambda: {1, "a", None, "b", "c", 2, 3})
    dates: frozenset[date] = frozenset({date(2026, 1, day) for day in range(1, 9)})
    inner: Inner = field(default_factory=Inner)
    several: list[Inner] = field(default_factory=lambda: [Inner(), Inner({"x", "y"})])
    by_name: dict[str, frozenset[str]] = field(default_factory=lambda: {"a": LETTERS})
    pair: tuple[frozenset[str], int] = (LETTERS, 1)
    either: frozenset[str] | int = LETTERS
    now: float = field(default_factory=time.time)
    identity: str = field(default_factory=lambda: str(uuid.uuid4()))
    count: int = field(default_factory=lambda: next(COUNT))

    def process(self, ctx: object) -> Iterator[frozenset[str]]:
        yield LETTERS


description = Description(CommandSet([Everything]), {})
while description.advance():
    pass
answer: Any = Decoder().decode(description.answer(None))
print(list(LETTERS))
print(answer["fingerprint"])
print(json.dumps(answer))
