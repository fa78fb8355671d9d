"""Command classes: from plain values to dataclasses and back, strictly. No I/O.

A class is read once, by `resolve`: what can't be carried is a TypeError there that names class and
field, when the server is built and not at the first call. After that

* `CommandType.bind` makes a command of plain fields, or refuses and names the place,
* `CommandType.encode_answer` checks an answer against its annotation and encodes it, and
  `CommandType.encode_piece` one piece of an answer that comes in pieces,
* `CommandType.encode_call`, `CommandType.decode_answer` and `CommandType.decode_piece` are the
  client's halves.

msgspec does the conversion, strictly and in C. What it leaves open is closed here: it ignores
unknown keys of a dataclass, knows no `Path`, and takes no union of two dataclasses (an answer that
is one travels as ``["Found", {…}]``).
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import operator
import types
import typing
from collections.abc import Iterable, Iterator
from pathlib import PurePath
from typing import Any, TypeAlias, Union

import msgspec

from . import codec
from .annotations import (
    SCALARS,
    Walker,
    is_record,
    kind_of,
    members_of,
    return_annotation,
    unknown_name,
)
from .answers import Kind, promise_of
from .errors import InvalidArguments, UnknownCommand, WireError
from .specialized import TEXTS, specialize

CommandClasses: TypeAlias = "type | types.UnionType | Iterable[type]"


def _decode_hook(kind: type, value: Any) -> Any:
    if isinstance(value, str):
        return kind(value)
    raise TypeError(f"Expected `path`, got `{_plain_name(value)}`")  # msgspec adds the place


def _encode_hook(value: Any) -> Any:
    if isinstance(value, PurePath):
        return str(value)
    raise TypeError(f"a value of type `{type(value).__qualname__}` can't be carried")


def _convert(value: Any, kind: Any) -> Any:
    try:
        # Without `bytes` among the builtin types, msgspec takes text for base64.
        return msgspec.convert(
            value, kind, builtin_types=(bytes,), str_keys=True, dec_hook=_decode_hook
        )
    except TypeError as error:  # an array in a set can't be hashed
        raise msgspec.ValidationError(str(error)) from None


def _to_plain(value: Any) -> Any:
    try:
        # The two that can't be carried are named so that they are refused, and not made base64.
        return msgspec.to_builtins(
            value,
            builtin_types=(bytes, bytearray, memoryview),
            str_keys=True,
            enc_hook=_encode_hook,
        )
    except RecursionError:
        raise ValueError("it is nested too deeply, or holds itself") from None


def _plain_name(value: Any) -> str:
    names = {type(None): "null", dict: "object", list: "array"}
    return names.get(type(value), type(value).__name__)


# ---------------------------------------------------------------------------------------------
# One command class


class CommandType:
    """A command class, resolved. Made by `resolve`; never changes."""

    __slots__ = (
        "_answer",
        "_names",
        "_piece",
        "_record",
        "_write",
        "cls",
        "decode_answer",
        "encode_answer",
        "is_plain",
        "kind",
        "name",
        "prefix",
        "read",
    )

    def __init__(self, cls: type) -> None:
        self.cls = cls
        self.name = cls.__name__
        walker = Walker()
        self._record = walker.record(cls)
        place = f"{cls.__qualname__}.process"
        process = inspect.unwrap(cls.process)  # type: ignore[attr-defined]
        promise = promise_of(process, return_annotation(cls), place)
        self.kind = promise.kind
        self.is_plain = promise.kind is Kind.PLAIN
        """Whether what `process` returns is the answer."""
        self._answer = _AnswerType(promise.answer, place, walker)
        self.encode_answer = self._answer.encode
        """Returns an answer as one CBOR item, a large text in parts. Raises TypeError or ValueError
        that says why a value is not what the annotation promises."""
        self.decode_answer = self._answer.decode
        """Returns the answer that a plain value stands for. Keys that this side's dataclasses don't
        know are ignored: a newer server may say more. Raises msgspec.ValidationError."""
        self._piece = (
            None
            if promise.piece is typing.NoReturn
            else _AnswerType(promise.piece, f"{place}, a piece", walker)
        )
        self._names = [field.name for field in dataclasses.fields(cls)]
        self.prefix = codec.encode(self.name) + codec.map_head(len(self._names))
        """What stands between a call's id and the first field's key."""
        hints = typing.get_type_hints(cls, include_extras=True)
        kinds = [hints[name] for name in self._names]
        self.read, self._write = specialize(self, cls, self.name, self.prefix, kinds)
        """Reads the fields of a call that was made by `encode_call`: see `specialized.Read`."""

    def bind(self, fields: dict[str, Any]) -> Any:
        """Return the command that `fields` describe.

        Raises WireError (invalid-arguments) that names the place. What the class's own
        ``__post_init__`` raises comes out as it is, but for ValueError and TypeError, which
        refuse the arguments.
        """
        record = self._record
        try:
            if record.inner or not fields.keys() <= record.names:
                record(fields, "$")
            return _convert(fields, self.cls)
        except msgspec.ValidationError as error:
            raise WireError(InvalidArguments.CODE, str(error)) from None

    def encode_call(self, call_id: bytes, command: Any) -> codec.Item:
        """Return the payload of a call (or, with a null id, of a notification).

        In parts, of which the first is the head of the array, where a field's text is large.
        `call_id` is encoded already. Raises TypeError or ValueError that names class and field.
        """
        try:
            payload = self._write(call_id, command)
            if payload is not None:
                return payload
        except (TypeError, ValueError):
            pass  # which of the fields it was is found out below
        parts = [b"\x83", call_id, self.prefix]
        is_large = False
        for name in self._names:
            try:
                items = codec.encode_parts(_to_plain(getattr(command, name)))
            except (TypeError, ValueError) as error:
                kind = TypeError if isinstance(error, TypeError) else ValueError
                raise kind(f"{self.name}.{name}: {error}") from None
            parts += codec.encode(name), *items
            is_large = is_large or len(items) > 1
        return tuple(parts) if is_large else b"".join(parts)

    def encode_piece(self, value: Any) -> bytes:
        """Return one piece of the answer as one CBOR item. Raises as `encode_answer`."""
        if self._piece is None:
            kind = type(value).__qualname__
            raise TypeError(f"{self.name} promises no pieces, and `{kind}` is one")
        item = self._piece.encode(value)
        return item if isinstance(item, bytes) else b"".join(item)

    def decode_piece(self, plain: Any) -> Any:
        """Return the piece that a plain value stands for. Raises as `decode_answer`."""
        if self._piece is None:
            raise msgspec.ValidationError(f"{self.name} has no pieces")
        return self._piece.decode(plain)


@functools.lru_cache(maxsize=1024)
def resolve(cls: type) -> CommandType:
    """Return `cls` resolved, from a cache. Raises TypeError that names class and field."""
    if not is_record(cls):
        raise TypeError(f"a command must be a dataclass, and {cls!r} is none")
    process = getattr(cls, "process", None)
    if not callable(process):
        raise TypeError(f"{cls.__qualname__} has no method `process(self, ctx)`")
    try:
        inspect.signature(process).bind(None, None)
    except (TypeError, ValueError):  # it takes something else, or what it takes is not known
        raise TypeError(f"{cls.__qualname__}.process must take one argument, the context") from None
    return CommandType(cls)


class CommandSet:
    """The commands that a server knows, by name."""

    __slots__ = ("_by_name", "_by_prefix")

    def __init__(self, commands: CommandClasses) -> None:
        self._by_name: dict[str, CommandType] = {}
        self._by_prefix: dict[bytes, CommandType] = {}
        for cls in _classes(commands):
            command = resolve(cls)
            if command.name in self._by_name:
                raise TypeError(f"two commands are named {command.name}")
            self._by_name[command.name] = command
            self._by_prefix[command.prefix] = command
        if not self._by_name:
            raise TypeError("a server needs at least one command")

    def __getitem__(self, name: str) -> CommandType:
        """Return the command of this name; raises WireError (unknown-command)."""
        try:
            return self._by_name[name]
        except KeyError:
            message = unknown_name("the server", "command", name, self._by_name)
            raise WireError(UnknownCommand.CODE, message) from None

    def read(self, data: bytes, at: int, call_id: int | None) -> tuple[Any, ...] | None:
        """Read the name and the fields of a call from `at` on, as `specialized.Read`."""
        # Up to the head of the map of the fields, which is one byte.
        begin = at + data[at] - 0x60 + 2
        command_type = self._by_prefix.get(data[at:begin])
        return None if command_type is None else command_type.read(data, begin, call_id)

    def __iter__(self) -> Iterator[CommandType]:
        return iter(self._by_name.values())

    def answers_later(self, name: str) -> bool:
        """Return whether there is such a command, and its answer comes later or in pieces."""
        command = self._by_name.get(name)
        return command is not None and not command.is_plain


def _classes(commands: Any) -> list[type]:
    if isinstance(commands, type):
        return [commands]
    if typing.get_origin(commands) in (Union, types.UnionType):
        commands = typing.get_args(commands)
    try:
        given = list(commands)
    except TypeError:
        raise TypeError(
            f"commands are a class, a union of classes or an iterable of them, not {commands!r}"
        ) from None
    for cls in given:
        if not isinstance(cls, type):  # it may not even be hashable, which the cache needs
            raise TypeError(f"a command must be a class, and {cls!r} is none")
    return given


# ---------------------------------------------------------------------------------------------
# Answers


class _AnswerType:
    """The return annotation of `process`: one msgspec type, or a union of dataclasses."""

    __slots__ = ("_annotation", "_as_they_are", "_tags")

    def __init__(self, annotation: Any, place: str, walker: Walker) -> None:
        members = members_of(annotation)
        records = [member for member in members if is_record(member)]
        self._tags: dict[str, type] = {}
        if len(records) > 1:
            members = [member for member in members if member not in records]
            if any(kind_of(member) not in SCALARS for member in members):
                raise TypeError(
                    f"{place}: beside several dataclasses an answer may be a scalar or None, "
                    f"and nothing else: {annotation}"
                )
            for record in records:
                walker.check(record, place)
                if record.__name__ in self._tags:
                    raise TypeError(f"{place}: two answers are named {record.__name__}")
                self._tags[record.__name__] = record
            # What stands beside the dataclasses; an empty union takes nothing.
            annotation = functools.reduce(operator.or_, members) if members else typing.NoReturn
        if members:
            walker.check(annotation, place)
        self._annotation = annotation
        self._as_they_are = frozenset(member for member in members if member in SCALARS)

    def encode(self, value: Any) -> codec.Item:
        kind = value.__class__
        if kind in self._as_they_are:
            if kind in TEXTS and len(value) >= codec.LARGE:
                return codec.encode_parts(value)
            return codec.encode(value)
        plain = _to_plain(value)
        if self._tags:
            name = type(value).__name__
            if self._tags.get(name) is type(value):
                _convert(plain, type(value))
                return codec.encode([name, plain])
        self._convert_other(plain)
        return codec.encode(plain)

    def decode(self, plain: Any) -> Any:
        if plain.__class__ in self._as_they_are:
            return plain
        if self._tags and type(plain) is list and len(plain) == 2 and type(plain[0]) is str:
            record = self._tags.get(plain[0])
            if record is not None:
                return _convert(plain[1], record)
        return self._convert_other(plain)

    def _convert_other(self, plain: Any) -> Any:
        """Convert what is not one of several dataclasses."""
        if self._annotation is typing.NoReturn:
            expected = ", ".join(self._tags)
            raise msgspec.ValidationError(f"Expected one of {expected}, got `{_plain_name(plain)}`")
        return _convert(plain, self._annotation)
