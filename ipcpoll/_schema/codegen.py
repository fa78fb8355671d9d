"""Two functions for one command class, written for it: its calls to bytes, and back. No I/O.

For ``Add(a: int, b: int)`` they look like this, in which `scalar_item` and `item` are the codec's:

    def read(data, at, call_id):
        if data[at:at+2] != b'\\x61a':
            return None
        at += 2
        v0 = data[at]
        if v0 < 24:
            at += 1
        else:
            v0, at = scalar_item(data, at)
            if at < 0:
                return None
        …  # the same for b
        if at != len(data):
            return None
        if v0.__class__ is not k0 or v1.__class__ is not k1:
            return call_id, name, {'a': v0, 'b': v1}, None, False, 0.0, command_type, None
        command = new(cls)
        command.a = v0
        command.b = v1
        return call_id, name, {}, None, False, 0.0, command_type, command

    def write(call_id, command):
        v0 = command.a
        v1 = command.b
        if v0.__class__ is k0 and v1.__class__ is k1:
            return form % (call_id, item(v0), item(v1))
        return None

Why they are written and not one loop over the fields for all classes: between two processes that
wait for each other the caches are cold, and then each kind of call into the interpreter's own
functions costs most of a microsecond. `read` takes 2 µs where the loop took 6 and decoding by cbor2
with the conversion by msgspec 12, of some 40 that a server takes for a call.

What is promised: what `read` gives is what decoding and converting would give; it gives None for
whatever it does not know to the last byte. `write` gives what the codec would. Names of fields are
identifiers, so nothing foreign gets into the text of these functions.
"""

from __future__ import annotations

import dataclasses
import inspect
import linecache
from collections.abc import Callable, Sequence
from types import CodeType
from typing import Any, Final, TypeAlias

from .._wire import codec
from .._wire.messages import SHORT_HEAD
from .forms import Form

Read: TypeAlias = "Callable[[bytes, int, int | None], tuple[Any, ...] | None]"
"""Reads the fields of a call in `data` from `at` on, behind the head of their map.

Returns what `messages.Call` consists of: the call's id, the name, the fields, no time limit, the
type of the command and the command; or no command and the fields, where it takes more to make one.
Returns None, or raises IndexError, for anything but small scalars in the order of the fields up to
the end.
"""
Write: TypeAlias = "Callable[[bytes, Any], bytes | None]"
"""Returns the payload of a call with an id that is encoded already; None: not every field has a
scalar that travels as it is, or one that is annotated as text and nothing else has more of it than
is to be copied."""

TEXTS: Final = frozenset({str, bytes})
"""The scalars that can be large."""
_EXACT: Final = 2**53
"""Up to here a float equals each int, so an int may be written in place of it."""


def specialize(
    command_type: object,
    cls: type,
    name: str,
    prefix: bytes,
    kinds: Sequence[Any],
    forms: Sequence[Form],
) -> tuple[Read, Write]:
    """Return the two functions for a dataclass.

    `prefix` is what stands between a call's id and the first key; `kinds` are the annotations of
    the fields, and `forms` what was made of these.
    """
    fields = [field.name for field in dataclasses.fields(cls)]
    keys = [codec.encode(field) for field in fields]
    names: dict[str, Any] = {
        "command_type": command_type,
        "cls": cls,
        "name": name,
        # All that is the same in each call; a `%` in it would be a form of its own.
        "form": SHORT_HEAD + b"%b" + b"%b".join(_literal(same) for same in _joined(prefix, keys)),
        "item": codec.encode,
        "new": object.__new__,
        "exact": _EXACT,
        "large": codec.LARGE,
        "set_attribute": object.__setattr__,
        "scalar_item": codec.scalar_item,
        **{f"k{i}": kind for i, kind in enumerate(kinds)},
        **{f"as_is{i}": form.as_is for i, form in enumerate(forms)},
    }
    lines = [*_read_lines(cls, fields, keys), *_write_lines(fields, kinds, forms)]
    exec(_compiled(lines, cls), names)
    return names["read"], names["write"]


def _compiled(lines: list[str], cls: type) -> CodeType:
    """Compile what was written for a class, so that a traceback shows its lines.

    `linecache` keeps them under a name that is no file's. A lazy loader in it would keep them only
    until `linecache.checkcache`; an entry without a time of change is kept.
    """
    text = "\n".join(lines) + "\n"
    name = f"<ipcpoll {cls.__module__}.{cls.__qualname__}>"
    linecache.cache[name] = len(text), None, text.splitlines(keepends=True), name
    return compile(text, name, "exec")


def _joined(prefix: bytes, keys: list[bytes]) -> list[bytes]:
    """Return what stands before, between and behind the values."""
    return [prefix + keys[0], *keys[1:], b""] if keys else [prefix]


def _literal(same: bytes) -> bytes:
    return same.replace(b"%", b"%%")


def _read_lines(cls: type, fields: list[str], keys: list[bytes]) -> list[str]:
    values = [f"v{i}" for i in range(len(fields))]
    lines = ["def read(data, at, call_id):"]
    for value, key in zip(values, keys, strict=True):
        lines += [
            f"    if data[at:at+{len(key)}] != {key!r}:",
            "        return None",
            f"    at += {len(key)}",
            f"    {value} = data[at]",
            f"    if {value} < 24:",
            "        at += 1",
            "    else:",
            f"        {value}, at = scalar_item(data, at)",
            "        if at < 0:",
            "            return None",
        ]
    shown = ", ".join(f"{field!r}: {value}" for field, value in zip(fields, values, strict=True))
    as_fields = f"return call_id, name, {{{shown}}}, None, False, 0.0, command_type, None"
    lines += ["    if at != len(data):", "        return None"]
    if not _is_bare(cls):
        return [*lines, f"    {as_fields}"]
    if values:
        others = [f"{value}.__class__ is not k{i}" for i, value in enumerate(values)]
        lines += [f"    if {' or '.join(others)}:", f"        {as_fields}"]
    lines.append("    command = new(cls)")
    for field, value in zip(fields, values, strict=True):
        if not _is_frozen(cls):
            lines.append(f"    command.{field} = {value}")
        else:
            lines.append(f"    set_attribute(command, {field!r}, {value})")
    return [*lines, "    return call_id, name, {}, None, False, 0.0, command_type, command"]


def _is_bare(cls: Any) -> bool:
    """Return whether a command of this class is its fields' values, and nothing more is done.

    As msgspec makes a dataclass: no `__init__`, each field set.
    """
    return (
        cls.__new__ is object.__new__
        and not inspect.isabstract(cls)
        and not hasattr(cls, "__post_init__")
        and (cls.__setattr__ is object.__setattr__ or _is_frozen(cls))
    )


def _is_frozen(cls: Any) -> bool:
    frozen: bool = cls.__dataclass_params__.frozen
    return frozen


def _write_lines(fields: list[str], kinds: Sequence[Any], forms: Sequence[Form]) -> list[str]:
    values = [f"v{i}" for i in range(len(fields))]
    lines = ["def write(call_id, command):"]
    if not all(form.as_is for form in forms):
        return [*lines, "    return None"]
    lines += [f"    {value} = command.{name}" for value, name in zip(values, fields, strict=True)]
    items = "".join(f", item({value})" for value in values)
    if not fields:
        return [*lines, "    return form % (call_id,)"]
    fits = " and ".join(_fits(i, kind) for i, kind in enumerate(kinds))
    return [
        *lines,
        f"    if {fits}:",
        f"        return form % (call_id{items})",
        "    return None",
    ]


def _fits(i: int, kind: Any) -> str:
    """Return the condition under which a value travels as it is, and is no large text."""
    if kind is str or kind is bytes:  # others need not even be hashable
        return f"v{i}.__class__ is k{i} and len(v{i}) < large"
    if kind is int or kind is bool:
        return f"v{i}.__class__ is k{i}"
    if kind is float:
        return f"(v{i}.__class__ is float or v{i}.__class__ is int and -exact <= v{i} <= exact)"
    return f"v{i}.__class__ in as_is{i}"
