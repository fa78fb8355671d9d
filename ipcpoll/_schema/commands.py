"""Command classes: from plain values to dataclasses and back, strictly. No I/O.

A class is read once, by `resolve`: what can't be carried is a TypeError there that names class and
field, when the server is built and not at the first call. After that

* `CommandType.bind` makes a command of plain fields, or refuses and names the place,
* `CommandType.encode_answer` checks an answer against its annotation and encodes it, and
  `CommandType.encode_piece` one piece of an answer that comes in pieces,
* `CommandType.encode_call`, `CommandType.decode_answer` and `CommandType.decode_piece` are the
  client's halves.

What goes out is made plain by the forms of its annotations (`forms`), which refuse whatever would
arrive as something else. What comes in is looked at by them for what msgspec lets through, and
converted by msgspec, strictly and in C. An answer that is one of several dataclasses travels as
``["Found", {…}]``.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import operator
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, Generic, Protocol, TypeAlias, TypeVar, Union

import msgspec

from .._shown import shown_value
from .._wire import codec
from .._wire.messages import SHORT_HEAD
from ..errors import InvalidArguments, UnknownCommand, UnsafeDependency, WireError
from .annotations import (
    Reader,
    alternatives_of,
    is_record,
    kind_of,
    return_annotation,
    told_at,
)
from .answers import Kind, promise_of
from .codegen import TEXTS, specialize
from .forms import (
    SCALARS,
    Either,
    Form,
    Record,
    Unfit,
    convert,
    either,
    is_limited,
    unknown_name,
)

Ctx_contra = TypeVar("Ctx_contra", contravariant=True)
Answer_co = TypeVar("Answer_co", covariant=True)


class Command(Protocol, Generic[Ctx_contra, Answer_co]):
    """A dataclass that knows how to process itself.

    The annotations of its fields and of `process`'s return *are* the schema; a missing one is a
    TypeError when the server is built. The annotation of `ctx` is not resolved, so its type may be
    imported under ``TYPE_CHECKING``.
    """

    def process(self, ctx: Ctx_contra, /) -> Answer_co:
        """Do it, and return the answer.

        Runs on the thread that polls, inside `Server.poll`; while it runs the program's loop
        stands still. It may raise `CommandError` to refuse, close the server, or open a nested
        main loop, in which the other connections are served.
        """
        ...


CommandClasses: TypeAlias = "type | types.UnionType | Iterable[type]"
_TOO_DEEP = "is nested too deeply, or holds itself"


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
        _prove_msgspec()
        self.cls = cls
        self.name = cls.__name__
        reader = Reader()
        self._record = reader.record(cls)
        place = f"{cls.__qualname__}.process"
        annotation = return_annotation(cls)
        with told_at(place, annotation):
            promise = promise_of(cls.process, annotation, place)  # type: ignore[attr-defined]
            self._answer = _AnswerType(promise.answer, place, f"{self.name}'s answer", reader)
            self._piece = (
                None
                if promise.piece is typing.NoReturn
                else _AnswerType(promise.piece, f"{place}, a piece", f"{self.name}'s piece", reader)
            )
        self.kind = promise.kind
        self.is_plain = promise.kind is Kind.PLAIN
        """Whether what `process` returns is the answer."""
        self.encode_answer = self._answer.encode
        """Returns an answer as one CBOR item, a large text in parts. Raises TypeError or ValueError
        that says why a value is not what the annotation promises."""
        self.decode_answer = self._answer.decode
        """Returns the answer that a plain value stands for. Keys that this side's dataclasses don't
        know are ignored: a newer server may say more. Raises msgspec.ValidationError."""
        self._names = [field.name for field in dataclasses.fields(cls)]
        self.prefix = codec.encode(self.name) + codec.map_head(len(self._names))
        """What stands between a call's id and the first field's key."""
        hints = typing.get_type_hints(cls, include_extras=True)
        kinds = [hints[name] for name in self._names]
        forms = [self._record.fields[name] for name in self._names]
        self.read, self._write = specialize(self, cls, self.name, self.prefix, kinds, forms)
        """Reads the fields of a call that was made by `encode_call`: see `specialized.Read`."""

    def bind(self, fields: dict[str, Any]) -> Any:
        """Return the command that `fields` describe.

        Raises WireError (invalid-arguments) that names command and field. What the class's own
        ``__post_init__`` raises comes out as it is, but for ValueError and TypeError, which
        refuse the arguments.
        """
        record = self._record
        try:
            if record.inner or not fields.keys() <= record.names:
                record.check_fields(fields)
            return convert(fields, self.cls)
        except Unfit as unfit:
            sentence = unfit.at(self.name)
        except msgspec.ValidationError as error:
            sentence = _explained(record, fields, self.name, error, lenient=False)
        raise WireError(InvalidArguments.CODE, sentence)

    def encode_call(self, call_id: bytes, command: Any) -> codec.Item:
        """Return the payload of a call (or, with a null id, of a notification).

        In parts, of which the first is the head of the array, where a field's text is large.
        `call_id` is encoded already. Raises TypeError or ValueError that names class and field.
        """
        try:
            payload = self._write(call_id, command)
            if payload is not None:
                return payload
        except (TypeError, ValueError, AttributeError):
            pass  # which of the fields it was is found out below
        record = self._record
        parts: list[bytes] = []
        is_large = False
        written = 0
        for name in self._names:
            try:
                value = getattr(command, name)
                if value is msgspec.UNSET and name in record.unset:
                    continue
                items = codec.encode_parts(record.fields[name].plain(value))
            except AttributeError:
                raise TypeError(f"{self.name}.{name} has no value") from None
            except Unfit as unfit:
                raise unfit.kind(unfit.at(f"{self.name}.{name}")) from None
            except RecursionError:
                raise ValueError(f"{self.name}.{name} {_TOO_DEEP}") from None
            except (TypeError, ValueError) as error:
                kind = TypeError if isinstance(error, TypeError) else ValueError
                raise kind(f"{self.name}.{name}: {error}") from None
            parts += codec.encode(name), *items
            is_large = is_large or len(items) > 1
            written += 1
        prefix = self.prefix
        if written < len(self._names):
            prefix = codec.encode(self.name) + codec.map_head(written)
        whole = (SHORT_HEAD, call_id, prefix, *parts)
        return whole if is_large else b"".join(whole)

    def encode_body(self, command: Any) -> codec.Item:
        """Return what follows the id in the payload of a call. Raises as `encode_call`."""
        # With an empty id the head of the array stands before it, as one byte or as one part.
        return self.encode_call(b"", command)[1:]

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
def resolve(cls: Any) -> CommandType:
    """Return `cls` resolved, from a cache. Raises TypeError that names class and field."""
    if not is_record(cls):
        if isinstance(cls, type) and issubclass(cls, type):
            raise TypeError(
                "a class is no command, make one of it: `client.call(Stop())`, and not "
                "`client.call(Stop)`"
            )
        raise TypeError(f"a command must be a dataclass, and {cls!r} is none")
    process = getattr(cls, "process", None)
    if not callable(process):
        raise TypeError(f"{cls.__qualname__} has no method `process(self, ctx)`")
    try:
        inspect.signature(process).bind(None, None)
    except (TypeError, ValueError):  # it takes something else, or what it takes is not known
        raise TypeError(f"{cls.__qualname__}.process must take one argument, the context") from None
    return CommandType(cls)


BUILT_IN = "ipcpoll."
"""What the names of the commands begin with that every server answers."""


def _no_built_ins() -> Mapping[str, CommandType]:
    return {}


class CommandSet:
    """The commands that a server knows, by name."""

    __slots__ = ("_by_name", "_by_prefix", "built_ins")

    def __init__(self, commands: CommandClasses) -> None:
        self.built_ins: Callable[[], Mapping[str, CommandType]] = _no_built_ins
        """Returns the server's built-in commands. Called when one of them is asked for."""
        self._by_name: dict[str, CommandType] = {}
        self._by_prefix: dict[bytes, CommandType] = {}
        for cls in _classes(commands):
            command = resolve(cls)
            if command.name.startswith(BUILT_IN):
                raise TypeError(
                    f"{cls.__qualname__} is named `{command.name}`; names that begin with "
                    f"`{BUILT_IN}` are those of the commands that every server answers"
                )
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
            known = self.built_ins() if name.startswith(BUILT_IN) else self._by_name
        if name in known:
            return known[name]
        message = unknown_name("the server", "command", name, known)
        raise WireError(UnknownCommand.CODE, message)

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
        if command is None and name.startswith(BUILT_IN):
            command = self.built_ins().get(name)
        return command is not None and not command.is_plain


def _classes(commands: Any) -> list[type]:
    if isinstance(commands, type):
        return [commands]
    if typing.get_origin(commands) in (Union, types.UnionType):
        commands = typing.get_args(commands)
    if isinstance(commands, str) or not isinstance(commands, Iterable):
        raise TypeError(
            f"commands are a class, a union of classes or an iterable of them, not {commands!r}"
        )
    given: list[Any] = list(commands)
    for cls in given:
        if not isinstance(cls, type):  # it may not even be hashable, which the cache needs
            raise TypeError(f"a command must be a class, and {cls!r} is none")
    return given


# ---------------------------------------------------------------------------------------------
# Answers


class _AnswerType:
    """The return annotation of `process`: one annotation, or a union of dataclasses."""

    __slots__ = ("_annotation", "_as_is", "_form", "_is_limited", "_owner", "_tagged", "_tags")

    def __init__(self, annotation: Any, place: str, owner: str, reader: Reader) -> None:
        members = alternatives_of(annotation)
        records = [member for member in members if is_record(member)]
        self._owner = owner
        self._tags: dict[str, type] = {}
        self._tagged: dict[str, Record] = {}
        if len(records) > 1:
            members = [member for member in members if member not in records]
            if any(kind_of(member) not in SCALARS for member in members):
                raise TypeError(
                    f"{place}: beside several dataclasses an answer may be a scalar or None, "
                    f"and nothing else: {annotation}"
                )
            for record in records:
                if record.__name__ in self._tags:
                    raise TypeError(f"{place}: two answers are named {record.__name__}")
                self._tags[record.__name__] = record
                self._tagged[record.__name__] = reader.record(record)
            # What stands beside the dataclasses; an empty union takes nothing.
            annotation = functools.reduce(operator.or_, members) if members else typing.NoReturn
        self._annotation = annotation
        self._form: Form | None = reader.form(annotation, place) if members else None
        self._as_is = frozenset() if self._form is None else self._form.as_is - _limited(self._form)
        forms = [*self._tagged.values(), *([] if self._form is None else [self._form])]
        self._is_limited = any(is_limited(form) for form in forms)

    def encode(self, value: Any) -> codec.Item:
        kind = value.__class__
        if kind in self._as_is:
            if kind in TEXTS and len(value) >= codec.LARGE:
                return codec.encode_parts(value)
            return codec.encode(value)
        try:
            return codec.encode(self._plain(value))
        except Unfit as unfit:
            error = unfit.kind(unfit.at(self._owner))
        except RecursionError:
            error = ValueError(f"{self._owner} {_TOO_DEEP}")
        raise error

    def _plain(self, value: Any) -> Any:
        name = type(value).__name__
        record = self._tagged.get(name)
        if record is not None and self._tags[name] is type(value):
            return [name, self._checked(record, value)]
        if self._form is None:
            raise Unfit(self._expected(value))
        if self._tags and type(value) not in self._form.classes:
            raise Unfit(self._expected(value))
        return self._checked(self._form, value)

    def _checked(self, form: Form, value: Any) -> Any:
        plain = form.plain(value)
        if self._is_limited and form.check is not None:
            form.check(plain)
        return plain

    def _expected(self, value: Any) -> str:
        words = [f"`{name}`" for name in self._tags]
        if self._form is not None:
            inner = self._form.members if isinstance(self._form, Either) else [self._form]
            words += [form.words for form in inner]
        return f"must be {either(words)}, not {shown_value(value)}"

    def decode(self, plain: Any) -> Any:
        if plain.__class__ in self._as_is:
            return plain
        if self._tags and type(plain) is list and len(plain) == 2 and type(plain[0]) is str:
            record = self._tags.get(plain[0])
            if record is not None:
                return self._converted(self._tagged[plain[0]], plain[1], record)
            if self._form is None:
                words = f"is a `{plain[0][:80]}`, and this side knows {', '.join(self._tags)}"
                raise msgspec.ValidationError(f"{self._owner} {words}")
        if self._form is None:
            raise msgspec.ValidationError(f"{self._owner} {self._expected(plain)}")
        return self._converted(self._form, plain, self._annotation)

    def _converted(self, form: Form, plain: Any, kind: Any) -> Any:
        try:
            return convert(plain, kind)
        except msgspec.ValidationError as error:
            sentence = _explained(form, plain, self._owner, error, lenient=True)
        raise msgspec.ValidationError(sentence)


def _limited(form: Form) -> frozenset[type]:
    """Return the classes of values that have to be looked at, though they travel as they are."""
    return form.as_is if is_limited(form) else frozenset()


def _explained(form: Form, plain: Any, place: str, error: Exception, *, lenient: bool) -> str:
    """Return why msgspec refused a plain value, in our words; its own where we find nothing.

    That is where a `__post_init__` refused: they are the words of the program.
    """
    try:
        form.explain(plain, lenient=lenient)
    except Unfit as unfit:
        return unfit.at(place)
    words, _, where = str(error).partition(" - at `$")
    return f"{place}{where.removesuffix('`')}: {words}" if where.removesuffix("`") else words


@functools.cache
def _prove_msgspec() -> None:
    """Raise UnsafeDependency where this msgspec converts what must be refused.

    It is strict in the releases that ipcpoll was tested with, and what comes in is converted by it.
    """
    for plain, kind in _STRICT:
        try:
            convert(plain, kind)
        except msgspec.ValidationError:
            continue
        raise UnsafeDependency(
            f"msgspec {msgspec.__version__} takes {plain!r} for {kind}: ipcpoll can't use this "
            "release; install another"
        )


_STRICT: list[tuple[Any, Any]] = [
    ("3", int),
    (3.0, int),
    (True, int),
    (None, int),
    (1, bool),
    ("true", bool),
    ("1.5", float),
    (True, float),
    (1, str),
    (b"a", str),
    ("YQ==", bytes),
    (0, None),
    ({}, list),
    ("ab", list[str]),
    ([1], dict),
    (1, datetime),
    (True, typing.Literal[1]),
    ([1], tuple[int, int]),
]
"""Plain values, and what none of them may be taken for."""
