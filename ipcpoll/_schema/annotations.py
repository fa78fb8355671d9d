"""Annotations: which can be carried. No I/O.

`Reader` reads the annotations of a command class once, and makes a form of each (`forms`). What
can't be carried is a TypeError that names class and field, and what to use instead. None of that is
left to msgspec: what it takes changes from release to release.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import enum
import functools
import inspect
import operator
import re
import sys
import types
import typing
from collections.abc import Generator, Iterator
from pathlib import PurePath
from typing import Annotated, Any, Final, Literal, TypeVar, Union

import msgspec

from .constraints import VALIDATING, constraints_of, is_foreign, is_validating
from .forms import (
    BARE,
    BARE_MAP,
    SCALARS,
    TEXTUAL,
    Array,
    Choice,
    Either,
    Float,
    Form,
    Map,
    Positions,
    Record,
    Scalar,
    alike,
    limited,
    textual,
    unwrapped,
)
from .secrets import Concealed, concealed, is_secret

_KEYS: Final = (str, int, float, *TEXTUAL)
_ARRAYS: Final = (list, set, frozenset)
_HOLDERS: Final = (
    *(str, bytes, bytearray, int, float, complex, list, tuple, dict, set, frozenset),
    *(collections.deque, collections.UserDict, collections.UserList, collections.UserString),
    *(PurePath, *TEXTUAL),
)
"""What holds a value of its own beside the fields of a dataclass that inherits it."""
_HOLDS_ITSELF: Final = "holds itself; use a dataclass, or a bare `dict` or `list` of plain values"
_A: Final = {"array": "a list", "int": "an int"} | {
    kind: "text" if kind == "text" else f"a {kind}" for kind in ("text", "map", "float", "bool")
}


def members_of(annotation: Any) -> list[Any]:
    """Return the members of a union, or the annotation alone; `None` as its type."""
    annotation = _bare(annotation)
    if typing.get_origin(annotation) in (Union, types.UnionType):
        return [inner for member in typing.get_args(annotation) for inner in members_of(member)]
    return [type(None) if annotation is None else annotation]


def alternatives_of(annotation: Any) -> list[Any]:
    """Return what a whole answer may be: `members_of` it, also of a union with a note around it."""
    found: list[Any] = []
    for member in members_of(annotation):
        inner = [member]
        if typing.get_origin(member) is Annotated and not _has_constraints(member):
            inner = alternatives_of(typing.get_args(member)[0])
        found += inner if len(inner) > 1 else [member]
    return found


def refuse_constraints(annotation: Any, place: str) -> None:
    """Raise TypeError where a constraint stands around an answer that takes time, or its pieces."""
    annotation = _bare(annotation)
    while typing.get_origin(annotation) is Annotated:
        inner = typing.get_args(annotation)[0]
        if _has_constraints(annotation):
            raise TypeError(
                f"{place}: a constraint around {_shown(inner)} would limit nothing; put it in the "
                "brackets, around the type that it is about"
            )
        annotation = _bare(inner)


def _has_constraints(annotation: Any) -> bool:
    try:
        return any(constraints_of(annotation.__metadata__))
    except (TypeError, re.error):  # one that is not known
        return True


class _BadAlias(TypeError):
    """A `type X = …` that can't be read. Internal: `told_at` says where."""


@contextlib.contextmanager
def told_at(place: str, annotation: Any) -> Generator[None]:
    """Say where an annotation stands that leads nowhere, or back to itself."""
    try:
        yield
    except _BadAlias as error:
        raise TypeError(f"{place}: {error}") from None
    except RecursionError:  # not for a dataclass or a TypedDict: those are read once
        raise TypeError(f"{place}: {_shown(annotation)} {_HOLDS_ITSELF}") from None


def is_record(annotation: Any) -> bool:
    return isinstance(annotation, type) and dataclasses.is_dataclass(annotation)


def _bare(annotation: Any) -> Any:
    """Return the annotation without the names that stand around it."""
    seen: list[Any] = []
    while True:
        if isinstance(annotation, typing.NewType):
            annotation = annotation.__supertype__
        elif type(annotation).__name__ == "TypeAliasType":  # `type X = …`, Python 3.12
            if annotation in seen:
                raise _BadAlias(f"{_shown(annotation)} {_HOLDS_ITSELF}")
            seen.append(annotation)
            try:
                annotation = annotation.__value__  # evaluated here, so anything may be raised
            except Exception as error:
                raise _BadAlias(f"{_shown(annotation)} can't be resolved: {error}") from None
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
    if typing.get_origin(annotation) is Annotated:
        return kind_of(typing.get_args(annotation)[0])
    return type(None) if annotation is None else annotation


class Reader:
    """Reads annotations: refuses what can't be carried, and makes the form of what can."""

    def __init__(self) -> None:
        self._records: dict[type, Record] = {}

    def form(self, annotation: Any, place: str) -> Form:
        """Read one annotation. Raises TypeError that begins with `place`."""
        with told_at(place, annotation):
            form = concealed(self._read(annotation, place))
        refuse_by_msgspec(_required(annotation), place)
        return form

    def _read(self, annotation: Any, place: str) -> Form:
        annotation = _bare(annotation)
        origin, args = typing.get_origin(annotation), typing.get_args(annotation)
        if origin is Annotated:
            noted = _limited(self._read(args[0], place), annotation.__metadata__, place)
            return Concealed(noted) if is_secret(annotation.__metadata__) else noted
        if origin in (Union, types.UnionType):
            return self._read_union(args, place)
        if origin is Literal:
            return _literal(annotation, place)
        if annotation is None or annotation is type(None):
            return Scalar(type(None))
        if annotation is float:
            return Float()
        if isinstance(annotation, type) and annotation in SCALARS:
            return Scalar(annotation)
        if annotation in TEXTUAL:
            return textual(annotation)
        kind = origin or annotation
        if kind in _ARRAYS:
            if args and kind is not list:
                _refuse_unhashable(args[0], place)
            return self._read_array(kind, args, place)
        if kind is tuple and (annotation is tuple or args[1:] == (Ellipsis,)):
            return self._read_array(tuple, args[:1], place)
        if kind is tuple:
            items = [self._read(arg, f"{place}[{i}]") for i, arg in enumerate(args)]
            return Positions(tuple, items, [], len(items))
        if kind is dict:
            return self._read_dict(args, place)
        if isinstance(annotation, type) and origin is None:
            form = self._read_class(annotation, place)
            if form is not None:
                return form
        raise TypeError(f"{place}: {_shown(annotation)} can't be carried{_instead(annotation)}")

    def _read_class(self, cls: Any, place: str) -> Form | None:
        """Read what a program has made, or a path; None: it can't be carried."""
        if issubclass(cls, enum.Enum):
            return _enum(cls, place)
        if issubclass(cls, PurePath):
            try:
                return textual(cls)
            except TypeError as error:
                raise TypeError(f"{place}: {_shown(cls)} can't be carried: {error}") from None
        if is_record(cls) or typing.is_typeddict(cls):
            return self.record(cls)
        fields: tuple[str, ...] | None = getattr(cls, "_fields", None)
        if issubclass(cls, tuple) and fields is not None:
            hints = _hints(cls)
            if hints.keys() < set(fields):
                raise TypeError(f"{place}: {_shown(cls)} says no types; use NamedTuple")
            items = [self._read(hints[name], f"{place}.{name}") for name in fields]
            required = len(fields) - len(getattr(cls, "_field_defaults", ()))
            return Positions(cls, items, list(fields), required)
        return None

    def _read_union(self, args: tuple[Any, ...], place: str) -> Form:
        flat = [member for arg in args for member in members_of(arg)]
        forms = [self._read(member, place) for member in flat]
        for i, (first, one) in enumerate(zip(flat, forms, strict=True)):
            for second, other in zip(flat[:i], forms, strict=False):
                if isinstance(unwrapped(one), Record) and isinstance(unwrapped(other), Record):
                    raise TypeError(
                        f"{place}: {_shown(second)} and {_shown(first)} in one union travel both "
                        "as a map; only a whole answer may be one of several dataclasses"
                    )
                for kind in alike(one, other):
                    raise TypeError(
                        f"{place}: {_shown(second)} and {_shown(first)} in one union travel both "
                        f"as {_A[kind]} and can't be told apart; use one of them, or two fields"
                    )
                if {*one.kinds, *other.kinds} >= {"bytes", "text"}:
                    raise TypeError(
                        f"{place}: {_shown(second)} and {_shown(first)} can't stand in one union, "
                        "bytes beside what travels as text; use two fields"
                    )
            if _is_path(first) and len({*flat} - {type(None)}) > 1:
                raise TypeError(
                    f"{place}: beside {_shown(first)} a union may hold None, and nothing else"
                )
        return Either(forms)

    def _read_array(self, kind: Any, args: tuple[Any, ...], place: str) -> Form:
        item = self._read(args[0], f"{place}[]") if args else BARE
        return Array(kind, kind[args[0]] if args else kind, item)

    def _read_dict(self, args: tuple[Any, ...], place: str) -> Form:
        if not args:
            return BARE_MAP
        kind = kind_of(args[0])
        is_choice = typing.get_origin(kind) is Literal or (
            isinstance(kind, type) and issubclass(kind, enum.Enum)
        )
        if not (is_choice or kind in _KEYS):
            raise TypeError(
                f"{place}: {_shown(args[0])} can't be the key of a map; keys are str, int, float, "
                "an Enum, a Literal, a date or time, Decimal or UUID"
            )
        key = self._read(args[0], f"{place}, a key")
        choice = unwrapped(key)
        if isinstance(choice, Choice):
            texts = [str(plain) for plain in choice.plains]
            if len({*texts}) < len(texts) or not {*map(type, choice.plains)} <= {str, int}:
                raise TypeError(
                    f"{place}: the keys of {_shown(args[0])} can't be told apart as text"
                )
        return Map(args[0], key, self._read(args[1], f"{place}[]"))

    def record(self, cls: type) -> Record:
        """Read a dataclass or TypedDict once; a recursive one meets itself half-made."""
        known = self._records.get(cls)
        if known is not None:
            return known
        place = cls.__qualname__
        is_dict = not is_record(cls)
        if is_validating(cls):
            raise TypeError(
                f"{place}: another library validates this class, and ipcpoll would not ask it; "
                "use `dataclasses.dataclass`, with constraints in `Annotated[…]`"
            )
        if not is_dict and issubclass(cls, _HOLDERS):
            [base, *_] = [base for base in cls.__mro__ if base in _HOLDERS]
            raise TypeError(
                f"{place}: a dataclass that is a {_shown(base)} as well can't be carried: only "
                "its fields would be"
            )
        hints = _hints(cls)
        record = self._records[cls] = Record(cls, is_dict)
        if is_dict:
            names = list(hints)
            record.required = _required_keys(cls, hints)
        else:
            names = _field_names(cls, hints)
            record.required = frozenset(names) - _defaults(cls).keys()
        record.names = frozenset(names)
        for name in names:
            hint = hints[name]
            if not is_dict:
                with told_at(f"{place}.{name}", hint):
                    hint, may_be_unset = _without_unset(hint, f"{place}.{name}")
                if may_be_unset:
                    if _defaults(cls).get(name) is not msgspec.UNSET:
                        raise TypeError(
                            f"{place}.{name}: a field that may be UNSET needs `= msgspec.UNSET`"
                        )
                    record.unset.add(name)
            record.add(name, self.form(hint, f"{place}.{name}"))
        refuse_by_msgspec(cls, place)
        return record


def refuse_by_msgspec(annotation: Any, place: str) -> None:
    """Raise TypeError, which begins with `place`, where msgspec can't convert to it.

    What can't be carried is refused before, in our words: that here nothing is left is tested.
    """
    try:
        msgspec.json.Decoder(annotation)
    except Exception as error:  # an AssertionError for some generic bases
        words = str(error) or f"msgspec can't read {_shown(annotation)}"
        raise TypeError(f"{place}: {words}") from None


def _limited(form: Form, metadata: tuple[Any, ...], place: str) -> Form:
    try:
        constraints = list(constraints_of(metadata))
    except (TypeError, re.error) as error:
        raise TypeError(f"{place}: {error}, so nobody would enforce it") from None
    for constraint in constraints:
        if constraint.subject not in form.subjects:
            raise TypeError(
                f"{place}: `{constraint.name}` says nothing about {form.name or form.words}"
            )
    return limited(form, constraints)


def _literal(annotation: Any, place: str) -> Choice:
    members = _literal_members(annotation)
    for member in members:
        if type(member) is int and not -(2**63) <= member < 2**63:
            raise TypeError(f"{place}: an int in a Literal must be from -2^63 to 2^63-1")
        if type(member) not in (str, int, bool, type(None)):
            raise TypeError(
                f"{place}: a Literal holds str, int, bool or None, not {_shown(member)}"
            )
    return Choice(annotation, [(member, member) for member in members])


def _literal_members(annotation: Any) -> list[Any]:
    """Return the members, also those of a Literal in it."""
    members: list[Any] = []
    for member in typing.get_args(annotation):
        inner = _bare(member)
        members += _literal_members(inner) if typing.get_origin(inner) is Literal else [member]
    return members


def _enum(cls: Any, place: str) -> Choice:
    if issubclass(cls, enum.Flag):
        raise TypeError(f"{place}: {_shown(cls)} can't be carried; use an int: `flags.value`")
    members = [(member, member._value_) for member in cls]
    kinds = {type(plain) for _, plain in members}
    if kinds not in ({str}, {int}):
        raise TypeError(
            f"{place}: {_shown(cls)} can't be carried: the values of an Enum must be all str or "
            "all int"
        )
    if kinds == {int} and not all(-(2**63) <= plain < 2**63 for _, plain in members):
        raise TypeError(f"{place}: the values of {_shown(cls)} must be from -2^63 to 2^63-1")
    return Choice(cls, members, f"a `{cls.__name__}`")


def _is_path(annotation: Any) -> bool:
    kind = kind_of(annotation)
    return isinstance(kind, type) and issubclass(kind, PurePath)


def _without_unset(hint: Any, place: str) -> tuple[Any, bool]:
    """Return the annotation of a field without `msgspec.UnsetType`, and whether that was there."""
    bare = _bare(hint)
    if typing.get_origin(bare) is Annotated:
        inner, may_be_unset = _without_unset(typing.get_args(bare)[0], place)
        if may_be_unset and _has_constraints(bare):
            raise TypeError(
                f"{place}: put the constraint around the type that it is about: "
                "`Annotated[int, …] | UnsetType`"
            )
        return (inner if may_be_unset else hint), may_be_unset
    members = members_of(bare)
    others = [member for member in members if member is not msgspec.UnsetType]
    if len(others) == len(members) or not others:
        return hint, False
    return functools.reduce(operator.or_, others), True


def _field_names(cls: Any, hints: dict[str, Any]) -> list[str]:
    """Return the fields of a dataclass. Raises TypeError for what is no plain field."""
    for name, hint in hints.items():
        if hint is dataclasses.InitVar or isinstance(hint, dataclasses.InitVar):
            raise TypeError(f"{cls.__qualname__}.{name}: an InitVar can't be carried")
    names: list[str] = []
    for field in dataclasses.fields(cls):
        place = f"{cls.__qualname__}.{field.name}"
        if not field.init:
            raise TypeError(f"{place}: a field with init=False can't be carried")
        if is_foreign(field.default):
            raise TypeError(
                f"{place}: its default is a `{type(field.default).__qualname__}` of another "
                "library, which a dataclass does not ask; put constraints in `Annotated[…]`"
            )
        names.append(field.name)
    return names


def _defaults(cls: Any) -> dict[str, Any]:
    """Return the defaults of a dataclass, and for each that a factory makes that."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        for default in (field.default, field.default_factory):
            if default is not dataclasses.MISSING:
                found[field.name] = default
    return found


def _required_keys(cls: Any, hints: dict[str, Any]) -> frozenset[str]:
    """Return the keys that a TypedDict must have: what a string hides from Python counts too."""
    required = set(cls.__required_keys__)
    for name, hint in hints.items():
        if typing.get_origin(hint) is typing.Required:
            required.add(name)
        elif typing.get_origin(hint) is typing.NotRequired:
            required.discard(name)
    return frozenset(required)


def _instead(annotation: Any) -> str:
    """Return what to use in place of an annotation that can't be carried, or nothing."""
    origin = typing.get_origin(annotation) or annotation
    if isinstance(annotation, TypeVar) or getattr(annotation, "__parameters__", None):
        return "; write what it stands for"
    if type(origin).__name__ == "TypeAliasType":  # `Many[int]` of `type Many[T] = list[T]`
        return "; write what it stands for"
    if isinstance(origin, type) and origin is not annotation and "__annotations__" in vars(origin):
        kind = "dataclass" if is_record(origin) else "class"
        return f"; write a {kind} for each type that it stands for"
    if isinstance(annotation, str | typing.ForwardRef):
        return "; what holds itself is a dataclass, or a bare `dict` or `list` of plain values"
    name = getattr(origin, "__name__", None) or getattr(annotation, "_name", None)
    instead = _INSTEAD.get(str(name))
    if instead is not None and getattr(origin, "__module__", "") in _STANDARD:
        return f"; use {instead}"
    if isinstance(origin, type):
        for base in origin.__mro__[1:]:
            if base in SCALARS and base is not object:
                return f"; use {base.__name__}: a subclass would arrive as one"
        if origin.__module__.partition(".")[0] == "numpy":
            return "; use bool, int, float, str or a list of them"
        package = origin.__module__.partition(".")[0]
        if any(hasattr(origin, name) for name in _FIELDS) or not (
            package in VALIDATING or package in sys.stdlib_module_names
        ):
            return "; use a dataclass"
    return ""


_FIELDS: Final = ("__pydantic_fields__", "__attrs_attrs__", "__struct_fields__")
"""What classes of pydantic, attrs and msgspec have."""


_STANDARD: Final = frozenset(
    {
        "array",
        "builtins",
        "collections",
        "collections.abc",
        "decimal",
        "fractions",
        "ipaddress",
        "msgspec",
        "msgspec._core",
        "numbers",
        "os",
        "re",
        "typing",
        "typing_extensions",
    }
)
_INSTEAD: Final = {
    "Any": "the type that it is; a bare `list` or `dict` holds any plain value",
    "object": "the type that it is; a bare `list` or `dict` holds any plain value",
    "Sequence": "`list[…]`, or `tuple[…, ...]`",
    "MutableSequence": "`list[…]`",
    "Iterable": "`list[…]`",
    "Collection": "`list[…]`",
    "deque": "`list[…]`",
    "Set": "`set[…]` or `frozenset[…]`",
    "AbstractSet": "`set[…]` or `frozenset[…]`",
    "MutableSet": "`set[…]`",
    "Mapping": "`dict[str, …]`",
    "MutableMapping": "`dict[str, …]`",
    "OrderedDict": "`dict[str, …]`",
    "defaultdict": "`dict[str, …]`",
    "Counter": "`dict[str, int]`",
    "bytearray": "`bytes`",
    "memoryview": "`bytes`",
    "complex": "`tuple[float, float]`",
    "range": "`list[int]`, or a dataclass of its ends",
    "Fraction": "`tuple[int, int]`",
    "Number": "`int | float`",
    "Final": "the type in it",
    "LiteralString": "`str`",
    "Self": "the name of the class, in quotes",
    "Pattern": "`str`",
    "PathLike": "`Path`",
    "ChainMap": "`dict[str, …]`",
    "array": "`list[…]`",
    "IPv4Address": "`str`",
    "IPv6Address": "`str`",
    "Iterator": "`list[…]`; an answer in pieces is annotated with nothing around it",
    "Generator": "`list[…]`; an answer in pieces is annotated with nothing around it",
    "Callable": "a command of its own",
    "UnsetType": "it in a union, as the field `x: int | UnsetType = UNSET` of a dataclass",
}


def _refuse_unhashable(annotation: Any, place: str) -> None:
    """Raise TypeError where the members of a set can never be hashed."""
    for member in members_of(annotation):
        kind = typing.get_origin(kind_of(member)) or kind_of(member)
        if getattr(kind, "__hash__", None) is None:
            raise TypeError(f"{place}: {_shown(member)} can't stand in a set, which hashes it")


def _hints(cls: type) -> dict[str, Any]:
    """Return the resolved annotations of a class; raises TypeError that names class and field."""
    try:
        return typing.get_type_hints(cls, include_extras=True)
    except RecursionError:  # told by `told_at`
        raise
    except Exception as error:
        place = [*_unresolved(cls), cls.__qualname__][0]
        raise _unresolvable(f"{place}: the annotation", cls, error) from None


def _unresolvable(what: str, cls: type, error: Exception) -> TypeError:
    words = f"{what} can't be resolved: {error}"
    if isinstance(error, NameError) and "<locals>" in cls.__qualname__:
        words += (
            "; an annotation in quotes, or under `from __future__ import annotations`, does not "
            "see what stands in a function"
        )
    return TypeError(words)


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
        raise _unresolvable(f"{place}: its return annotation", cls, error) from None
    return hints["return"]


def _annotations(function: Any) -> dict[str, Any]:
    if sys.version_info >= (3, 14):  # pragma: no cover - evaluated lazily there, names may lack
        import annotationlib  # noqa: PLC0415 - new in this version

        return annotationlib.get_annotations(function, format=annotationlib.Format.FORWARDREF)
    return dict(getattr(function, "__annotations__", {}))
