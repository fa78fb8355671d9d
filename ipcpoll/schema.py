"""Command classes: from plain values to dataclasses and back, strictly. No I/O.

A class is read once, by `resolve`: what can't be carried is a TypeError there that names class and
field, when the server is built and not at the first call. After that

* `CommandType.bind` makes a command of plain fields, or refuses and names the place,
* `CommandType.encode_answer` checks an answer against its annotation and encodes it,
* `CommandType.encode_call` and `CommandType.decode_answer` are the client's halves.

msgspec does the conversion, strictly and in C. What it leaves open is closed here: it ignores
unknown keys of a dataclass, knows no `Path`, and takes no union of two dataclasses (an answer that
is one travels as ``["Found", {…}]``).
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import inspect
import operator
import sys
import types
import typing
from collections.abc import Callable, Iterable, Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import PurePath
from typing import Any, Final, Literal, TypeAlias, Union
from uuid import UUID

import msgspec

from . import codec
from .errors import InvalidArguments, UnknownCommand, WireError

CommandClasses: TypeAlias = "type | types.UnionType | Iterable[type]"

_SCALARS: Final = (bool, int, float, str, bytes, type(None))
_TEXTUAL: Final = (datetime, date, time, timedelta, Decimal, UUID)
_KEYS: Final = (str, int, float, *_TEXTUAL)
_ARRAYS: Final = (list, set, frozenset)

_FieldCheck: TypeAlias = "Callable[[Any, str], None]"
"""Refuses unknown keys in one plain value; its second argument is the value's place."""


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

    __slots__ = ("_answer", "_keys", "_prefix", "_record", "cls", "name")

    def __init__(self, cls: type) -> None:
        self.cls = cls
        self.name = cls.__name__
        walker = _Walker()
        self._record = walker.record(cls)
        self._answer = _AnswerType(_return_annotation(cls), f"{cls.__qualname__}.process", walker)
        names = [field.name for field in dataclasses.fields(cls)]
        self._keys = [(name, codec.encode(name)) for name in names]
        self._prefix = codec.encode(self.name) + codec.map_head(len(names))

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

    def encode_call(self, call_id: bytes, command: Any) -> bytes:
        """Return the payload of a call (or, with a null id, of a notification).

        `call_id` is encoded already. Raises TypeError or ValueError that names class and field.
        """
        parts = [b"\x83", call_id, self._prefix]
        for name, key in self._keys:
            value = getattr(command, name)
            parts.append(key)
            try:
                if value.__class__ not in _SCALARS:
                    value = _to_plain(value)
                parts.append(codec.encode(value))
            except (TypeError, ValueError) as error:
                kind = TypeError if isinstance(error, TypeError) else ValueError
                raise kind(f"{self.name}.{name}: {error}") from None
        return b"".join(parts)

    def encode_answer(self, value: Any) -> bytes:
        """Return the answer as one CBOR item.

        Raises TypeError or ValueError that says why `value` is not what the annotation promises.
        """
        return self._answer.encode(value)

    def decode_answer(self, plain: Any) -> Any:
        """Return the answer that a plain value stands for.

        Keys that this side's dataclasses don't know are ignored: a newer server may say more.
        Raises msgspec.ValidationError.
        """
        return self._answer.decode(plain)


@functools.lru_cache(maxsize=1024)
def resolve(cls: type) -> CommandType:
    """Return `cls` resolved, from a cache. Raises TypeError that names class and field."""
    if not _is_record(cls):
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

    __slots__ = ("_by_name",)

    def __init__(self, commands: CommandClasses) -> None:
        self._by_name: dict[str, CommandType] = {}
        for cls in _classes(commands):
            command = resolve(cls)
            if command.name in self._by_name:
                raise TypeError(f"two commands are named {command.name}")
            self._by_name[command.name] = command
        if not self._by_name:
            raise TypeError("a server needs at least one command")

    def __getitem__(self, name: str) -> CommandType:
        """Return the command of this name; raises WireError (unknown-command)."""
        try:
            return self._by_name[name]
        except KeyError:
            message = _unknown("the server", "command", name, self._by_name)
            raise WireError(UnknownCommand.CODE, message) from None

    def __iter__(self) -> Iterator[CommandType]:
        return iter(self._by_name.values())


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


def _unknown(owner: str, what: str, name: object, known: Iterable[str]) -> str:
    shown = str(name)[:80]
    sentence = f"{owner} has no {what} `{shown}`"
    import difflib  # noqa: PLC0415 - only a mistake needs it, `import ipcpoll` stays fast

    near = difflib.get_close_matches(shown, sorted(known), n=1)
    return f"{sentence}; did you mean `{near[0]}`?" if near else sentence


# ---------------------------------------------------------------------------------------------
# Answers


class _AnswerType:
    """The return annotation of `process`: one msgspec type, or a union of dataclasses."""

    __slots__ = ("_annotation", "_as_they_are", "_tags")

    def __init__(self, annotation: Any, place: str, walker: _Walker) -> None:
        members = _members(annotation)
        records = [member for member in members if _is_record(member)]
        self._tags: dict[str, type] = {}
        if len(records) > 1:
            members = [member for member in members if member not in records]
            if any(_kind(member) not in _SCALARS for member in members):
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
        self._as_they_are = frozenset(member for member in members if member in _SCALARS)

    def encode(self, value: Any) -> bytes:
        if value.__class__ in self._as_they_are:
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


def _return_annotation(cls: type) -> Any:
    process = inspect.unwrap(cls.process)  # type: ignore[attr-defined]
    place = f"{cls.__qualname__}.process"
    if inspect.iscoroutinefunction(process) or inspect.isasyncgenfunction(process):
        raise TypeError(
            f"{place}: an asynchronous command needs a loop that can run it; none can yet"
        )
    if inspect.isgeneratorfunction(process):
        raise TypeError(f"{place}: an answer in pieces can't be carried yet")
    annotations = _annotations(process)
    if "return" not in annotations:
        raise TypeError(f"{place} has no return annotation: it is the schema of the answer")
    # Only the return is resolved: the context's type may exist for the type checker alone.
    only_return = types.SimpleNamespace(__annotations__={"return": annotations["return"]})
    names = getattr(process, "__globals__", {})
    try:
        # In this order a default does not hide a type: `date: date | None = None`.
        hints = typing.get_type_hints(only_return, dict(vars(cls)), names, include_extras=True)
    except Exception as error:
        raise TypeError(f"{place}: its return annotation can't be resolved: {error}") from None
    return hints["return"]


def _annotations(function: Any) -> dict[str, Any]:
    if sys.version_info >= (3, 14):  # pragma: no cover - evaluated lazily there, names may lack
        import annotationlib  # noqa: PLC0415 - new in this version

        return annotationlib.get_annotations(function, format=annotationlib.Format.FORWARDREF)
    return dict(getattr(function, "__annotations__", {}))


# ---------------------------------------------------------------------------------------------
# Annotations


def _members(annotation: Any) -> list[Any]:
    """Return the members of a union, or the annotation alone; `None` as its type."""
    annotation = _bare(annotation)
    if typing.get_origin(annotation) in (Union, types.UnionType):
        return [inner for member in typing.get_args(annotation) for inner in _members(member)]
    return [type(None) if annotation is None else annotation]


def _is_record(annotation: Any) -> bool:
    return isinstance(annotation, type) and dataclasses.is_dataclass(annotation)


def _bare(annotation: Any) -> Any:
    """Return the annotation without the names that stand around it."""
    while True:
        if isinstance(annotation, typing.NewType):
            annotation = annotation.__supertype__
        elif type(annotation).__name__ == "TypeAliasType":  # `type X = …`, Python 3.12
            annotation = annotation.__value__
        elif (inner := _required(annotation)) is not annotation:
            annotation = inner
        else:
            return annotation


def _required(annotation: Any) -> Any:
    """Return the annotation without what a TypedDict says about its key."""
    if typing.get_origin(annotation) in (typing.Required, typing.NotRequired):
        return typing.get_args(annotation)[0]
    return annotation


def _kind(annotation: Any) -> Any:
    """Return the class behind an annotation, constraints taken off."""
    annotation = _bare(annotation)
    if typing.get_origin(annotation) is typing.Annotated:
        return _kind(typing.get_args(annotation)[0])
    return type(None) if annotation is None else annotation


class _Walker:
    """Walks annotations: refuses what can't be carried, finds where unknown keys can hide.

    msgspec ignores unknown keys, so a check is made for each place where a dataclass or a
    TypedDict stands. An annotation without one has no check and costs nothing.
    """

    def __init__(self) -> None:
        self._records: dict[type, _RecordCheck] = {}

    def check(self, annotation: Any, place: str) -> _FieldCheck | None:
        """Walk one annotation. Raises TypeError that begins with `place`."""
        try:
            found = self._walk(annotation, place)
        except RecursionError:  # not for a dataclass or a TypedDict: those are walked once
            raise TypeError(f"{place}: {_shown(annotation)} holds itself") from None
        try:
            msgspec.json.Decoder(_required(annotation))
        except TypeError as error:
            raise TypeError(f"{place}: {error}") from None
        return found

    def _walk(self, annotation: Any, place: str) -> _FieldCheck | None:
        annotation = _bare(annotation)
        origin, args = typing.get_origin(annotation), typing.get_args(annotation)
        if origin is typing.Annotated:
            return self._walk(args[0], place)
        if origin in (Union, types.UnionType):
            return self._walk_union(args, place)
        if (
            origin is Literal
            or annotation is None
            or annotation in _SCALARS
            or annotation in _TEXTUAL
        ):
            return None
        if origin in _ARRAYS or annotation in _ARRAYS:
            if args and origin is not list:
                _refuse_unhashable(args[0], place)
            return self._walk_array(args, place)
        if origin is tuple or annotation is tuple:
            if len(args) == 2 and args[1] is Ellipsis:
                return self._walk_array(args[:1], place)
            return self._walk_positions(args, place)
        if origin is dict or annotation is dict:
            return self._walk_dict(args, place)
        if isinstance(annotation, type) and origin is None:
            # Not a Flag: msgspec knows its names, and not what they make together.
            if issubclass(annotation, enum.Enum | PurePath) and not issubclass(
                annotation, enum.Flag
            ):
                return None
            if _is_record(annotation) or typing.is_typeddict(annotation):
                return self.record(annotation)
            fields: tuple[str, ...] | None = getattr(annotation, "_fields", None)
            if issubclass(annotation, tuple) and fields is not None:
                hints = _hints(annotation)
                if hints.keys() < set(fields):
                    raise TypeError(f"{place}: {_shown(annotation)} says no types; use NamedTuple")
                return _positions([self._walk(hints[name], f"{place}.{name}") for name in fields])
        raise TypeError(f"{place}: {_shown(annotation)} can't be carried")

    def _walk_union(self, args: tuple[Any, ...], place: str) -> _FieldCheck | None:
        checks = [check for arg in args if (check := self._walk(arg, place)) is not None]
        if not checks:
            return None
        # msgspec allows one array-like and one map-like member, so each check looks at the
        # kind of the value first and only one of them finds its own.

        def check_union(value: Any, place: str) -> None:
            for check in checks:
                check(value, place)

        return check_union

    def _walk_array(self, args: tuple[Any, ...], place: str) -> _FieldCheck | None:
        check = self._walk(args[0], f"{place}[]") if args else None
        if check is None:
            return None

        def check_array(value: Any, place: str) -> None:
            if isinstance(value, list):
                for index, item in enumerate(value):
                    check(item, f"{place}[{index}]")

        return check_array

    def _walk_positions(self, args: tuple[Any, ...], place: str) -> _FieldCheck | None:
        return _positions([self._walk(arg, f"{place}[{i}]") for i, arg in enumerate(args)])

    def _walk_dict(self, args: tuple[Any, ...], place: str) -> _FieldCheck | None:
        if not args:
            return None
        key = _kind(args[0])
        if not (
            key in _KEYS
            or typing.get_origin(key) is Literal
            or (isinstance(key, type) and issubclass(key, enum.Enum))
        ):
            raise TypeError(f"{place}: {_shown(args[0])} can't be the key of a map")
        check = self._walk(args[1], f"{place}[]")
        if check is None:
            return None

        def check_values(value: Any, place: str) -> None:
            if isinstance(value, dict):
                for key, item in value.items():
                    check(item, f"{place}.{key}")

        return check_values

    def record(self, cls: type) -> _RecordCheck:
        """Walk a dataclass or TypedDict once; a recursive one meets itself half-made."""
        known = self._records.get(cls)
        if known is not None:
            return known
        hints = _hints(cls)
        names: list[str] = []
        if _is_record(cls):
            for name, hint in hints.items():
                if hint is dataclasses.InitVar or isinstance(hint, dataclasses.InitVar):
                    raise TypeError(f"{cls.__qualname__}.{name}: an InitVar can't be carried")
            for field in dataclasses.fields(cls):
                if not field.init:
                    raise TypeError(
                        f"{cls.__qualname__}.{field.name}: a field with init=False can't be carried"
                    )
                names.append(field.name)
        else:
            names = list(hints)
        record = self._records[cls] = _RecordCheck(cls.__name__, frozenset(names))
        for name in names:
            check = self.check(hints[name], f"{cls.__qualname__}.{name}")
            if check is not None:
                record.inner[name] = check
        msgspec.json.Decoder(cls)  # nothing is known that it refuses, when each field is good
        return record


class _RecordCheck:
    """Refuses the unknown keys of one dataclass or TypedDict, and those inside its fields."""

    __slots__ = ("inner", "name", "names")

    def __init__(self, name: str, names: frozenset[str]) -> None:
        self.name = name
        self.names = names
        self.inner: dict[str, _FieldCheck] = {}

    def __call__(self, value: Any, place: str) -> None:
        if not isinstance(value, dict):
            return  # msgspec says what is wrong with it
        if not (value.keys() <= self.names):
            unknown = next(key for key in value if key not in self.names)
            sentence = _unknown(self.name, "field", unknown, self.names)
            raise msgspec.ValidationError(f"{sentence} - at `{place}`")
        for name, check in self.inner.items():
            if name in value:
                check(value[name], f"{place}.{name}")


def _refuse_unhashable(annotation: Any, place: str) -> None:
    """Raise TypeError where the members of a set can never be hashed."""
    for member in _members(annotation):
        kind = typing.get_origin(_kind(member)) or _kind(member)
        if getattr(kind, "__hash__", None) is None:
            raise TypeError(f"{place}: {_shown(member)} can't stand in a set, which hashes it")


def _positions(checks: list[_FieldCheck | None]) -> _FieldCheck | None:
    wanted = [(index, check) for index, check in enumerate(checks) if check is not None]
    if not wanted:
        return None

    def check_positions(value: Any, place: str) -> None:
        if isinstance(value, list):
            for index, check in wanted:
                if index < len(value):
                    check(value[index], f"{place}[{index}]")

    return check_positions


def _hints(cls: type) -> dict[str, Any]:
    """Return the resolved annotations of a class; raises TypeError that names class and field."""
    try:
        return typing.get_type_hints(cls, include_extras=True)
    except RecursionError:  # told by `_Walker.check`
        raise
    except Exception as error:
        place = [*_unresolved(cls), cls.__qualname__][0]
        raise TypeError(f"{place}: the annotation can't be resolved: {error}") from None


def _unresolved(cls: type) -> Iterator[str]:
    """Give the fields whose annotations can't be resolved, each with its class."""
    for base in reversed(cls.__mro__):
        names = getattr(sys.modules.get(base.__module__), "__dict__", {})
        for name, hint in vars(base).get("__annotations__", {}).items():
            one = types.SimpleNamespace(__annotations__={name: hint})
            try:
                typing.get_type_hints(one, dict(vars(base)), names)
            except Exception:
                yield f"{cls.__qualname__}.{name}"


def _shown(annotation: Any) -> str:
    if isinstance(annotation, type) and typing.get_origin(annotation) is None:
        return f"`{annotation.__qualname__}`"
    return f"`{annotation}`"
