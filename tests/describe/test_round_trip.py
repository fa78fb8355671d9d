"""Schema and server agree: what the one takes, the other does. `jsonschema` is the judge.

A program has a command for each annotation that docs/commands.md says can be carried, and for each
kind of constraint. Values are made at random from its description, with a strategy of our own.
"""

from __future__ import annotations

import base64
import re
import string
import sys
from collections.abc import Callable
from dataclasses import make_dataclass
from datetime import timedelta
from types import ModuleType
from typing import Any

import annotated_types
import jsonschema
import msgspec
import pytest
import wire
from documents import blocks, read
from harness import PATIENCE
from hypothesis import given, settings
from hypothesis import strategies as st

from ipcpoll import Client, Server
from ipcpoll._schema.commands import CommandType, resolve
from ipcpoll._wire.codec import Decoder
from ipcpoll.describe import Describe
from ipcpoll.describe.fingerprint import deterministic
from ipcpoll.describe.schema import Schemas
from ipcpoll.errors import WireError

# The classes and the annotations of docs/commands.md.
[_PARTS] = blocks("docs/commands.md")
_MODULE = ModuleType("parts_for_descriptions")
sys.modules[_MODULE.__name__] = _MODULE
exec(compile(_PARTS.text, "parts.py", "exec"), vars(_MODULE))
NAMES: dict[str, Any] = {**vars(_MODULE), **vars(annotated_types), "Meta": msgspec.Meta}


def carried() -> list[str]:
    """Return the annotations of the table in docs/commands.md."""
    text = read("docs/commands.md").partition("\n## What can be carried\n")[2].partition("\n## ")[0]
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    return [re.split(r"(?<!\\)\|", row)[1].strip(" `").replace(r"\|", "|") for row in rows]


LIMITED = [
    "Annotated[int, Ge(0), Lt(9)]",
    "Annotated[int, Meta(ge=0, le=9), Ge(3), Le(5)]",
    "Annotated[int, MultipleOf(5)]",
    "Annotated[int, MultipleOf(2), MultipleOf(3)]",
    "Annotated[float, Gt(0.5), Le(9)]",
    "Annotated[float, Meta(ge=-1.5, lt=2)]",
    "Annotated[str, Len(2, 5)]",
    "Annotated[str, Meta(pattern='^[a-z]+[0-9]$')]",
    "Annotated[bytes, Meta(max_length=9)]",
    "Annotated[list[int], Meta(min_length=1, max_length=3)]",
    "Annotated[set[str], Meta(max_length=2)]",
    "Annotated[tuple[int, ...], Meta(min_length=2)]",
    "Annotated[dict[str, int], Meta(min_length=1)]",
    "dict[Annotated[str, Meta(min_length=2)], int]",
    "Annotated[int | str | None, Ge(3), MinLen(1)]",
    "Annotated[datetime, Meta(tz=True)]",
    "Annotated[datetime, Meta(tz=False)]",
    "Annotated[datetime | int, Timezone(...)]",
    "Annotated[time, Meta(tz=True)]",
    "Annotated[time, Meta(tz=False)]",
    "list[Annotated[int, Meta(le=3)]]",
    "tuple[()]",
    "tuple",
    "set",
    "dict[str, list[Point | None]]",
    "dict[float, int]",
    "dict[Level, int]",
    "dict[Literal['a', 'b'], int]",
    "dict[UUID, int]",
    "int | Literal['auto', 'off'] | bool",
    "list[Tree] | None",
]
ANNOTATIONS = [*carried(), *LIMITED]


# ---------------------------------------------------------------------------------------------
# Values from a schema

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
_TEXT = st.text(max_size=8)
_FORMATS: dict[str, st.SearchStrategy[str]] = {
    "date": st.dates().map(lambda value: value.isoformat()),
    "date-time": st.datetimes().map(lambda value: value.isoformat() + "Z"),
    "date-time-local": st.datetimes().map(lambda value: value.isoformat()),
    "time": st.times().map(lambda value: value.isoformat() + "+01:00"),
    "time-local": st.times().map(lambda value: value.isoformat()),
    "duration": st.integers(0, 10**6).map(lambda n: f"PT{timedelta(seconds=n).seconds}S"),
    "decimal": st.decimals(allow_nan=False, allow_infinity=False).map(str),
    "uuid": st.uuids().map(str),
    "path": st.text(string.ascii_letters + "/."),
}


def from_schema(schema: Any, defs: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Return a strategy for the plain values that a schema takes."""
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/$defs/")
        return st.deferred(lambda: from_schema(defs[name], defs))
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if "const" in schema:
        return st.just(schema["const"])
    if "anyOf" in schema:
        rest = {key: value for key, value in schema.items() if key not in ("anyOf", "default")}
        return st.one_of([from_schema(rest | one, defs) for one in schema["anyOf"]])
    return _BY_TYPE[schema["type"]](schema, defs)


def _numbers(schema: dict[str, Any], _: Any) -> st.SearchStrategy[Any]:
    whole = schema["type"] == "integer"
    steps = [
        schema.get("multipleOf", 1),
        *(each.get("multipleOf", 1) for each in schema.get("allOf", ())),
    ]
    low = schema.get("minimum", schema.get("exclusiveMinimum", -(2**63)))
    high = schema.get("maximum", schema.get("exclusiveMaximum", 2**64 - 1))
    judge = jsonschema.Draft202012Validator(schema)
    if not whole:
        plain = st.floats(low, high) if len(schema) > 1 else st.floats()
        return plain.filter(judge.is_valid)
    step = 1
    for each in steps:
        step *= each
    return st.integers(-(-low // step), high // step).map(lambda n: n * step).filter(judge.is_valid)


def _strings(schema: dict[str, Any], _: Any) -> st.SearchStrategy[Any]:
    low, high = schema.get("minLength", 0), schema.get("maxLength", 40)
    if "contentEncoding" in schema:
        return st.integers(low // 4, high // 4).flatmap(
            lambda n: st.binary(min_size=3 * n, max_size=3 * n)
        )
    if "format" in schema:
        return _FORMATS[schema["format"]]
    if "pattern" in schema:
        return st.from_regex(schema["pattern"]).filter(lambda text: not text.endswith("\n"))
    return st.text(min_size=low, max_size=high)


def _arrays(schema: dict[str, Any], defs: Any) -> st.SearchStrategy[Any]:
    low = schema.get("minItems", 0)
    if "prefixItems" in schema:
        return st.integers(low, len(schema["prefixItems"])).flatmap(
            lambda n: st.tuples(*(from_schema(one, defs) for one in schema["prefixItems"][:n])).map(
                list
            )
        )
    if schema.get("items") is False:
        return st.just([])
    # What has no `items` holds any plain value.
    item = from_schema(schema["items"], defs) if "items" in schema else st.integers(0, 9) | _TEXT
    # A set takes no two that mean the same, which the schema does not say.
    most = schema.get("maxItems", 4)
    return st.lists(item, min_size=low, max_size=most, unique_by=deterministic)


def _objects(schema: dict[str, Any], defs: Any) -> st.SearchStrategy[Any]:
    if "properties" in schema:
        fields = {name: from_schema(one, defs) for name, one in schema["properties"].items()}
        required = {name: fields.pop(name) for name in schema["required"]}
        return st.fixed_dictionaries(required, optional=fields)
    if "additionalProperties" not in schema:
        return st.dictionaries(_TEXT, st.integers(0, 9) | _TEXT, max_size=3)
    names = schema.get("propertyNames", {})
    if "pattern" in names:
        keys: Any = st.integers(-(2**63), 2**64 - 1).map(str)
        assert re.search(names["pattern"], "5")
    else:
        keys = from_schema({"type": "string", **names}, defs)
    return st.dictionaries(
        keys,
        from_schema(schema["additionalProperties"], defs),
        min_size=schema.get("minProperties", 0),
        max_size=3,
    )


_BY_TYPE: dict[str, Any] = {
    "null": lambda *_: st.none(),
    "boolean": lambda *_: st.booleans(),
    "integer": _numbers,
    "number": _numbers,
    "string": _strings,
    "array": _arrays,
    "object": _objects,
}


# ---------------------------------------------------------------------------------------------
# The two sides


class Sides:
    """A command with a field `x` of an annotation, and such an answer; and what is said of it."""

    def __init__(self, annotation: str) -> None:
        kind = eval(annotation, NAMES)
        self.command: CommandType = resolve(wire.command(kind, kind))
        schemas = Schemas()
        self.fields = schemas.fields(self.command.cls)
        self.answer = schemas.answer(kind)
        while schemas.define_next():
            pass
        self.defs = schemas.name_all()
        self.judge = jsonschema.Draft202012Validator({**self.fields, "$defs": self.defs})
        self.judge_of_answers = jsonschema.Draft202012Validator(
            {**(self.answer or {"type": "null"}), "$defs": self.defs}
        )
        jsonschema.Draft202012Validator.check_schema(self.judge.schema)

    def server_takes(self, fields: Any) -> bool:
        try:
            self.command.bind(fields)
        except (WireError, ValueError, TypeError):
            return False
        return True

    def schema_takes(self, fields: Any) -> bool:
        return bool(self.judge.is_valid(as_json(fields)))


def as_json(plain: Any) -> Any:
    """Return a plain value in its JSON form: bytes in base64."""
    if isinstance(plain, bytes):
        return base64.b64encode(plain).decode()
    if isinstance(plain, list):
        return [as_json(item) for item in plain]
    if isinstance(plain, dict):
        return {key: as_json(item) for key, item in plain.items()}
    return plain


SIDES = {annotation: Sides(annotation) for annotation in ANNOTATIONS}


@pytest.mark.parametrize("annotation", ANNOTATIONS)
@given(data=st.data())
@settings(max_examples=30)
def test_server_takes_what_the_schema_takes(annotation: str, data: st.DataObject) -> None:
    sides = SIDES[annotation]
    fields = data.draw(from_schema(sides.fields, sides.defs))
    assert sides.schema_takes(fields), fields
    command = sides.command.bind(fields)
    # What it answers is of the same annotation.
    item = sides.command.encode_answer(command.x)
    answer = Decoder().decode(item if isinstance(item, bytes) else b"".join(item))
    assert sides.judge_of_answers.is_valid(as_json(answer)), answer


def broken(fields: Any) -> st.SearchStrategy[Any]:
    """Return a strategy for what is nearly these fields."""

    def change(plain: Any) -> st.SearchStrategy[Any]:
        ways = [PLAIN]
        if isinstance(plain, list):
            ways += [st.just([*plain, None]), st.just(plain[:-1])]
            ways += [change(plain[0]).map(lambda new: [new, *plain[1:]])] if plain else []
        if isinstance(plain, dict):
            ways += [st.just({**plain, "?": 1})]
            for key in plain:
                ways += [change(plain[key]).map(lambda new, key=key: {**plain, key: new})]
                ways += [st.just({k: v for k, v in plain.items() if k != key})]
        if type(plain) in (int, float):
            ways += [st.just(plain + 1), st.just(-plain)]
        if isinstance(plain, str):
            ways += [st.just(plain + "x"), st.just(plain[:1])]
        return st.one_of(ways)

    return change(fields)


@pytest.mark.parametrize("annotation", ANNOTATIONS)
@given(data=st.data())
@settings(max_examples=60)
def test_schema_takes_what_the_server_takes(annotation: str, data: st.DataObject) -> None:
    sides = SIDES[annotation]
    fields = data.draw(from_schema(sides.fields, sides.defs).flatmap(broken))
    if isinstance(fields, dict) and sides.server_takes(fields):
        assert sides.schema_takes(fields), fields


def test_program_with_every_kind_of_field(serve: Callable[..., Server[Any]]) -> None:
    """Over a socket: described, called with what the description allows, and answered so."""
    commands = []
    for number, sides in enumerate(SIDES.values()):
        kind = sides.command.cls.__annotations__["x"]

        def process(self: Any, ctx: object) -> Any:
            return self.x

        process.__annotations__ = {"return": kind}
        commands.append(
            make_dataclass(f"Cmd{number}", [("x", kind)], namespace={"process": process})
        )
    server = serve(commands)
    with Client(server.address, timeout=PATIENCE) as client:
        description = client.call(Describe())
        described, defs = description["commands"], description["$defs"]
        assert [*described] == [cls.__name__ for cls in commands]

        @given(st.data())
        @settings(max_examples=150, database=None)
        def call_one(data: st.DataObject) -> None:
            name = data.draw(st.sampled_from([*described]))
            fields = data.draw(from_schema(described[name]["fields"], defs))
            answer = client.request(name, fields)
            schema = {**(described[name]["answer"] or {"type": "null"}), "$defs": defs}
            assert jsonschema.Draft202012Validator(schema).is_valid(as_json(answer))

        call_one()


def test_strategy_knows_each_word() -> None:
    """Else a value that the server refuses would never be made."""
    used = set()

    def look(schema: Any) -> None:
        if isinstance(schema, dict):
            used.update(schema)
            for name, value in schema.items():
                for one in value.values() if name in ("properties",) else [value]:
                    look(one)
        elif isinstance(schema, list):
            for one in schema:
                look(one)

    for sides in SIDES.values():
        look(sides.fields)
        for definition in sides.defs.values():
            look(definition)
    assert used == {
        *("$ref", "additionalProperties", "allOf", "anyOf", "contentEncoding", "default"),
        *("enum", "exclusiveMaximum", "exclusiveMinimum", "format", "items", "maxItems"),
        *("maxLength", "maximum", "minItems", "minLength", "minProperties", "minimum"),
        *("multipleOf", "pattern", "prefixItems", "properties", "propertyNames", "required"),
        *("title", "type"),
    }
