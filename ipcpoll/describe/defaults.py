"""The default of a field as a plain value. No I/O.

What is promised: it is what the field would travel as, also where a factory makes it, and the same
in every process: a set's items are sorted, and a factory that gives another value at each call (a
clock, a random number) has no default here. Nothing that the program's code raises comes out.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Final

import msgspec

from .._schema.annotations import is_record
from .._schema.forms import (
    ARRAY,
    MAP,
    Array,
    Either,
    Form,
    Map,
    Positions,
    Record,
    unwrapped,
)
from .._wire import codec
from .fingerprint import deterministic

NONE: Final = object()
"""There is no default, or none that can be told."""

_KINDS: Final[dict[type, str]] = {list: ARRAY, dict: MAP}


def makers_of(cls: Any) -> dict[str, Callable[[], Any]]:
    """Return what makes the default of each field of a dataclass that has one."""
    makers: dict[str, Callable[[], Any]] = {}
    for field in dataclasses.fields(cls) if is_record(cls) else ():
        if field.default is not dataclasses.MISSING:
            makers[field.name] = functools.partial(same, field.default)
        elif field.default_factory is not dataclasses.MISSING:
            makers[field.name] = field.default_factory
    return makers


def same(value: Any) -> Any:
    """Return a default that is there already: what makes it is this with the value bound."""
    return value


def plain_default(form: Form, make: Callable[[], Any]) -> Any:
    """Return what `make` makes as a plain value, or `NONE`."""
    made: list[Any] = []
    for _ in range(2):  # one by one: the clock must have moved on
        try:
            value = make()
        except Exception:
            return NONE
        plain = plain_value(form, value)
        if plain is NONE or (made and deterministic(plain) != made[-1]):
            return NONE
        made += plain, deterministic(plain)
    return made[0]


def plain_value(form: Form, value: Any) -> Any:
    """Return a value as a plain one, sets sorted; `NONE`: it is left out, or can't be carried."""
    if value is msgspec.UNSET:
        return NONE
    try:
        plain = form.plain(value)
        codec.encode(plain)
        return _in_order(form, plain)
    except Exception:  # its annotation rules it out; or what it is does not let itself be looked at
        return NONE


def _in_order(form: Form, plain: Any) -> Any:
    """Return a plain value with the items of each set sorted: hashes give them another order in
    each process."""
    form = unwrapped(form)
    if isinstance(form, Either):
        # Of the members at most one travels as a list, and one as a map.
        kind = _KINDS.get(type(plain), "")
        members = [member for member in form.members if kind in member.kinds]
        return _in_order(members[0], plain) if members else plain
    parts = list(form.parts())
    if isinstance(form, Array):
        items = [_in_order(parts[0], item) for item in plain]
        return sorted(items, key=deterministic) if form.classes & {set, frozenset} else items
    if isinstance(form, Positions):
        return [_in_order(part, item) for part, item in zip(parts, plain, strict=True)]
    if isinstance(form, Map):
        return {key: _in_order(parts[1], item) for key, item in plain.items()}
    if isinstance(form, Record):
        return {name: _in_order(form.fields[name], item) for name, item in plain.items()}
    return plain
