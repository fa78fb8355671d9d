"""Annotations as JSON Schema 2020-12. No I/O.

The classes were read when the server was made (`_schema`), so what comes here can be carried. The
words are those of `msgspec.json.schema_components`, which is asked for every type without parts. It
can't be asked for all: it knows no constraints but its own, prints the defaults of secrets, and
raises where a default is a path or an answer is one of several dataclasses.

What is promised:

* What the server takes, the schema takes; what the schema takes, the server takes, but for rules
  that JSON Schema has no word for: a `__post_init__`, the range of an int, a bound on the keys of a
  map; the length of bytes, which are three in four characters; items of a set that mean the same.
* Fields, members and classes come in the order of their definition.
* A default is the plain value. That of a secret is nowhere, nor is that of anything that holds one.
* A step (`Schemas.schema`, one call of `Schemas.define_next`) goes through the fields of one class.

A class is named when all are known, because two may share a name: `Schemas.name_all` fills in what
the references lead to.
"""

from __future__ import annotations

import enum
import functools
import typing
from collections import deque
from collections.abc import Callable, Iterable
from datetime import date, timedelta
from decimal import Decimal
from pathlib import PurePath
from typing import Annotated, Any, Final, Literal, TypeAlias
from uuid import UUID

import msgspec

from .._schema.annotations import Reader, alternatives_of, is_record, kind_of, members_of
from .._schema.constraints import Constraint, constraints_of
from .._schema.forms import Choice, Form, unwrapped
from .._schema.plain import plain_value as bare_value
from .._schema.secrets import is_secret
from .._shown import encodable
from .._wire import codec
from .bounds import ARRAYS, FORMATS, add_bound
from .defaults import NONE, makers_of, plain_default, plain_value, same
from .docs import doc_of
from .names import names_of
from .progress import Progress

Schema: TypeAlias = "dict[str, Any]"

_LEAVES: Final = (
    *(bool, int, float, str, bytes, type(None)),
    *(date, timedelta, Decimal, UUID),
)
_KEYS: Final = {
    int: r"^-?(0|[1-9][0-9]*)$",
    float: r"^-?((0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?|[iI][nN][fF]([iI][nN][iI][tT][yY])?"
    r"|[nN][aA][nN])$",
}
"""How the keys of a map travel as text."""


class Schemas:
    """The schemas of one program's classes, with what they refer to."""

    def __init__(self) -> None:
        self._reader = Reader()
        self._references: dict[type, list[Schema]] = {}
        self._waiting: deque[tuple[type, bool]] = deque()
        self._known: set[tuple[type, bool]] = set()
        self._definitions: dict[type, Schema] = {}
        self._concealed: set[type] = set()  # their fields are secrets wherever they stand

    # -----------------------------------------------------------------------------------------
    # What commands say

    def fields(self, cls: type) -> Schema:
        """Return the schema of the fields of a command."""
        return self._object(cls, secret=False)

    def answer(self, annotation: Any) -> Schema | None:
        """Return the schema of a whole answer; None: it is always None."""
        return None if kind_of(annotation) is type(None) else self._whole(annotation)

    def piece(self, annotation: Any) -> Schema | None:
        """Return the schema of a piece of an answer; None: there are no pieces."""
        if annotation is typing.NoReturn:
            return None
        before = len(self._references.get(Progress, ()))
        schema = self._whole(annotation)
        for reference in self._references.get(Progress, [])[before:]:
            reference["x-progress"] = True
        return schema

    def _whole(self, annotation: Any) -> Schema:
        """Return the schema of what may be one of several dataclasses, each behind its name."""
        members = alternatives_of(annotation)
        records = [member for member in members if is_record(member)]
        if len(records) < 2:
            return self.schema(annotation)
        around = members_of(annotation)  # a note may be around all of it, or some
        notes = [note.__metadata__ for note in around if typing.get_origin(note) is Annotated]
        secret = any(map(is_secret, notes))
        tagged = [
            self._tagged(member, secret) if is_record(member) else self.schema(member, secret)
            for member in members
        ]
        schema: Schema = {"anyOf": tagged}
        if len(around) == 1:
            schema.update(self._described(notes[0], None, secret))
        return schema

    def _tagged(self, record: type, secret: bool) -> Schema:
        return {
            "type": "array",
            "prefixItems": [{"const": encodable(record.__name__)}, self._reference(record, secret)],
            "items": False,
            "minItems": 2,
        }

    # -----------------------------------------------------------------------------------------
    # The classes that they refer to

    def define_next(self) -> bool:
        """Define one class that was referred to; return whether there was one."""
        if not self._waiting:
            return False
        cls, secret = self._waiting.popleft()
        definition = self._definition(cls, secret)
        if secret or cls not in self._concealed:
            self._definitions[cls] = definition
        return True

    def name_all(self) -> dict[str, Schema]:
        """Name all classes, and return their definitions: the ``$defs``."""
        names = names_of(list(self._definitions))
        for cls, references in self._references.items():
            for reference in references:
                reference["$ref"] = f"#/$defs/{names[cls]}"
        return {names[cls]: definition for cls, definition in self._definitions.items()}

    def _reference(self, cls: type, secret: bool) -> Schema:
        if secret:
            self._concealed.add(cls)
        if (cls, secret) not in self._known:
            self._known.add((cls, secret))
            self._waiting.append((cls, secret))
            self._definitions.setdefault(cls, {})  # in the order in which they are met
        schema: Schema = {"$ref": ""}
        self._references.setdefault(cls, []).append(schema)
        return schema

    def _definition(self, cls: Any, secret: bool) -> Schema:
        schema: Schema = {"title": encodable(cls.__name__)}
        if doc := doc_of(cls):
            schema["description"] = doc
        if issubclass(cls, enum.Enum):
            return schema | {"enum": [member._value_ for member in cls]}
        if issubclass(cls, tuple):
            return schema | self._named_tuple(cls, secret)
        return schema | self._object(cls, secret)

    def _object(self, cls: Any, secret: bool) -> Schema:
        record = self._reader.record(cls)
        hints = typing.get_type_hints(cls, include_extras=True)
        makers = makers_of(cls)
        properties = {
            encodable(name): self._field(hints[name], form, makers.get(name), secret)
            for name, form in record.fields.items()
        }
        required = [encodable(name) for name in record.fields if name in record.required]
        return {
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": False,
        }

    def _named_tuple(self, cls: Any, secret: bool) -> Schema:
        hints = typing.get_type_hints(cls, include_extras=True)
        defaults = {
            name: functools.partial(same, value) for name, value in cls._field_defaults.items()
        }
        items = [
            self._field(
                hints[name],
                self._reader.form(hints[name], f"{cls.__qualname__}.{name}"),
                defaults.get(name),
                secret,
            )
            for name in cls._fields
        ]
        return _tuple(items, len(items) - len(defaults))

    def _field(
        self, hint: Any, form: Form, default: Callable[[], Any] | None, secret: bool
    ) -> Schema:
        schema = self.schema(hint, secret)
        if default is not None and not (secret or holds_secret(hint)):
            plain = plain_default(form, default)
            if plain is not NONE:
                schema["default"] = plain
        return schema

    # -----------------------------------------------------------------------------------------
    # Annotations

    def schema(
        self, annotation: Any, secret: bool = False, limits: Iterable[Constraint] = ()
    ) -> Schema:
        """Return the schema of an annotation. `limits` stand around it, and so may a secret."""
        members = [m for m in members_of(annotation) if m is not msgspec.UnsetType]
        if len(members) > 1:
            return {"anyOf": [self.schema(member, secret, limits) for member in members]}
        [bare] = members
        origin, args = typing.get_origin(bare), typing.get_args(bare)
        if origin is Annotated:
            return self._annotated(args[0], bare.__metadata__, secret, limits)
        kind = origin or bare
        if kind is Literal:
            return {"enum": self._plains(bare)}
        if kind is tuple and origin is not None and args[1:] != (Ellipsis,):
            return _tuple([self.schema(arg, secret) for arg in args], len(args))
        schema = self._of_kind(kind, args, secret)
        for limit in limits:
            add_bound(schema, kind, limit)
        if kind in FORMATS and "format" not in schema:
            schema["anyOf"] = [{"format": name} for name in FORMATS[kind].values()]
        return schema

    def _of_kind(self, kind: Any, args: tuple[Any, ...], secret: bool) -> Schema:
        if kind in _LEAVES:
            return dict(_words_of(kind))
        if kind in FORMATS:
            return {"type": "string"}
        if kind in ARRAYS:
            return {"type": "array"} | ({"items": self.schema(args[0], secret)} if args else {})
        if kind is dict:
            return self._map(args, secret)
        if issubclass(kind, PurePath):
            return {"type": "string", "format": "path"}
        return self._reference(kind, secret)

    def _map(self, args: tuple[Any, ...], secret: bool) -> Schema:
        schema: Schema = {"type": "object"}
        if args:
            keys = self._keys(args[0])
            if keys:
                schema["propertyNames"] = keys
            schema["additionalProperties"] = self.schema(args[1], secret)
        return schema

    def _keys(self, annotation: Any) -> Schema:
        """Return the schema of the keys of a map, which travel as text."""
        kind = kind_of(annotation)
        if typing.get_origin(kind) is Literal or issubclass(kind, enum.Enum):
            return {"enum": [str(plain) for plain in self._plains(annotation)]}
        schema = self.schema(annotation)
        del schema["type"]
        if kind in _KEYS:
            schema["pattern"] = _KEYS[kind]
        return schema

    def _plains(self, annotation: Any) -> list[Any]:
        """Return what the members of a Literal or an Enum travel as."""
        form = unwrapped(self._reader.form(annotation, str(annotation)))
        assert isinstance(form, Choice)
        return form.plains

    def _annotated(
        self,
        annotation: Any,
        metadata: tuple[Any, ...],
        secret: bool,
        limits: Iterable[Constraint],
    ) -> Schema:
        own = [*limits, *constraints_of(metadata)]
        secret = secret or is_secret(metadata)
        schema = self.schema(annotation, secret, own)
        schema.update(self._described(metadata, annotation, secret))
        return schema

    def _described(self, metadata: tuple[Any, ...], annotation: Any, secret: bool) -> Schema:
        """Return what the metadata says to people and tools, as far as it can be carried."""
        words: Schema = {}
        for meta in metadata:
            if type(meta) is not msgspec.Meta:
                continue
            for word in ("title", "description"):
                if getattr(meta, word) is not None:
                    words[word] = encodable(getattr(meta, word))
            if meta.examples is not None and annotation is not None:
                form = self._reader.form(annotation, str(annotation))
                plains = [plain_value(form, example) for example in meta.examples]
                words["examples"] = [plain for plain in plains if plain is not NONE]
            for word, value in (meta.extra_json_schema or {}).items():
                if _can_be_carried(value):
                    words[encodable(word)] = value
        if secret:  # somebody may have written it into the annotation
            words.pop("default", None)
            words.pop("examples", None)
        return words


def holds_secret(annotation: Any) -> bool:
    """Return whether a value of this annotation is a secret, or has one anywhere inside."""
    waiting, seen = [annotation], set[type]()
    while waiting:
        for member in members_of(waiting.pop()):
            if typing.get_origin(member) is Annotated:
                if is_secret(member.__metadata__):
                    return True
                waiting.append(typing.get_args(member)[0])
            elif isinstance(member, type) and typing.get_origin(member) is None:
                if member not in seen and _has_fields(member):
                    seen.add(member)
                    waiting += typing.get_type_hints(member, include_extras=True).values()
            elif typing.get_origin(member) is not Literal:
                waiting += [arg for arg in typing.get_args(member) if arg is not Ellipsis]
    return False


def _tuple(items: list[Schema], required: int) -> Schema:
    schema: Schema = {"type": "array", "minItems": required, "maxItems": len(items)}
    if items:  # JSON Schema allows no empty list
        schema["prefixItems"] = items
    return schema | {"items": False}


def _has_fields(cls: type) -> bool:
    return is_record(cls) or typing.is_typeddict(cls) or hasattr(cls, "_field_defaults")


@functools.cache
def _words_of(kind: type) -> Schema:
    """Return what msgspec says of a type without parts."""
    [schema], _ = msgspec.json.schema_components((kind,))
    return schema


def _can_be_carried(value: Any) -> bool:
    try:
        codec.encode(bare_value(value, ""))
    except (TypeError, ValueError):
        return False
    return True
