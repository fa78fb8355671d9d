"""Annotations: which can be carried, and where unknown keys can hide. No I/O.

`Walker` reads the annotations of a command class once. What can't be carried is a TypeError that
names class and field. Where a dataclass or a TypedDict stands, it makes a check that refuses keys
which that class does not have: msgspec ignores them. An annotation without one costs nothing.
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
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

SCALARS: Final = (bool, int, float, str, bytes, type(None))
_TEXTUAL: Final = (datetime, date, time, timedelta, Decimal, UUID)
_KEYS: Final = (str, int, float, *_TEXTUAL)
_ARRAYS: Final = (list, set, frozenset)

FieldCheck: TypeAlias = "Callable[[Any, str], None]"
"""Refuses unknown keys in one plain value; its second argument is the value's place."""


def members_of(annotation: Any) -> list[Any]:
    """Return the members of a union, or the annotation alone; `None` as its type."""
    annotation = _bare(annotation)
    if typing.get_origin(annotation) in (Union, types.UnionType):
        return [inner for member in typing.get_args(annotation) for inner in members_of(member)]
    return [type(None) if annotation is None else annotation]


def is_record(annotation: Any) -> bool:
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


def kind_of(annotation: Any) -> Any:
    """Return the class behind an annotation, constraints taken off."""
    annotation = _bare(annotation)
    if typing.get_origin(annotation) is typing.Annotated:
        return kind_of(typing.get_args(annotation)[0])
    return type(None) if annotation is None else annotation


class Walker:
    """Walks annotations: refuses what can't be carried, finds where unknown keys can hide.

    msgspec ignores unknown keys, so a check is made for each place where a dataclass or a
    TypedDict stands. An annotation without one has no check and costs nothing.
    """

    def __init__(self) -> None:
        self._records: dict[type, RecordCheck] = {}

    def check(self, annotation: Any, place: str) -> FieldCheck | None:
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

    def _walk(self, annotation: Any, place: str) -> FieldCheck | None:
        annotation = _bare(annotation)
        origin, args = typing.get_origin(annotation), typing.get_args(annotation)
        if origin is typing.Annotated:
            return self._walk(args[0], place)
        if origin in (Union, types.UnionType):
            return self._walk_union(args, place)
        if (
            origin is Literal
            or annotation is None
            or annotation in SCALARS
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
            if is_record(annotation) or typing.is_typeddict(annotation):
                return self.record(annotation)
            fields: tuple[str, ...] | None = getattr(annotation, "_fields", None)
            if issubclass(annotation, tuple) and fields is not None:
                hints = _hints(annotation)
                if hints.keys() < set(fields):
                    raise TypeError(f"{place}: {_shown(annotation)} says no types; use NamedTuple")
                return _positions([self._walk(hints[name], f"{place}.{name}") for name in fields])
        raise TypeError(f"{place}: {_shown(annotation)} can't be carried")

    def _walk_union(self, args: tuple[Any, ...], place: str) -> FieldCheck | None:
        checks = [check for arg in args if (check := self._walk(arg, place)) is not None]
        if not checks:
            return None
        # msgspec allows one array-like and one map-like member, so each check looks at the
        # kind of the value first and only one of them finds its own.

        def check_union(value: Any, place: str) -> None:
            for check in checks:
                check(value, place)

        return check_union

    def _walk_array(self, args: tuple[Any, ...], place: str) -> FieldCheck | None:
        check = self._walk(args[0], f"{place}[]") if args else None
        if check is None:
            return None

        def check_array(value: Any, place: str) -> None:
            if isinstance(value, list):
                for index, item in enumerate(value):
                    check(item, f"{place}[{index}]")

        return check_array

    def _walk_positions(self, args: tuple[Any, ...], place: str) -> FieldCheck | None:
        return _positions([self._walk(arg, f"{place}[{i}]") for i, arg in enumerate(args)])

    def _walk_dict(self, args: tuple[Any, ...], place: str) -> FieldCheck | None:
        if not args:
            return None
        key = kind_of(args[0])
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

    def record(self, cls: type) -> RecordCheck:
        """Walk a dataclass or TypedDict once; a recursive one meets itself half-made."""
        known = self._records.get(cls)
        if known is not None:
            return known
        hints = _hints(cls)
        names: list[str] = []
        if is_record(cls):
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
        record = self._records[cls] = RecordCheck(cls.__name__, frozenset(names))
        for name in names:
            check = self.check(hints[name], f"{cls.__qualname__}.{name}")
            if check is not None:
                record.inner[name] = check
        msgspec.json.Decoder(cls)  # nothing is known that it refuses, when each field is good
        return record


class RecordCheck:
    """Refuses the unknown keys of one dataclass or TypedDict, and those inside its fields."""

    __slots__ = ("inner", "name", "names")

    def __init__(self, name: str, names: frozenset[str]) -> None:
        self.name = name
        self.names = names
        self.inner: dict[str, FieldCheck] = {}

    def __call__(self, value: Any, place: str) -> None:
        if not isinstance(value, dict):
            return  # msgspec says what is wrong with it
        if not (value.keys() <= self.names):
            unknown = next(key for key in value if key not in self.names)
            sentence = unknown_name(self.name, "field", unknown, self.names)
            raise msgspec.ValidationError(f"{sentence} - at `{place}`")
        for name, check in self.inner.items():
            if name in value:
                check(value[name], f"{place}.{name}")


def _refuse_unhashable(annotation: Any, place: str) -> None:
    """Raise TypeError where the members of a set can never be hashed."""
    for member in members_of(annotation):
        kind = typing.get_origin(kind_of(member)) or kind_of(member)
        if getattr(kind, "__hash__", None) is None:
            raise TypeError(f"{place}: {_shown(member)} can't stand in a set, which hashes it")


def _positions(checks: list[FieldCheck | None]) -> FieldCheck | None:
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
    except RecursionError:  # told by `Walker.check`
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


def return_annotation(cls: type) -> Any:
    """Return the resolved return annotation of `process`; raises TypeError that names it."""
    process = inspect.unwrap(cls.process)  # type: ignore[attr-defined]
    place = f"{cls.__qualname__}.process"
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


def unknown_name(owner: str, what: str, name: object, known: Iterable[str]) -> str:
    shown = str(name)[:80]
    sentence = f"{owner} has no {what} `{shown}`"
    import difflib  # noqa: PLC0415 - only a mistake needs it, `import ipcpoll` stays fast

    near = difflib.get_close_matches(shown, sorted(known), n=1)
    return f"{sentence}; did you mean `{near[0]}`?" if near else sentence
