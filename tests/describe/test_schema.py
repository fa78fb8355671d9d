"""The schemas, word by word. That server and schema agree is in test_round_trip."""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, NewType, TypedDict

import annotated_types as at
import msgspec
import pytest
import wire
from msgspec import UNSET, Meta, UnsetType

import ipcpoll
from ipcpoll._schema.commands import resolve
from ipcpoll.describe.schema import Schemas


class Colour(enum.Enum):
    """Of a wall."""

    WHITE = "white"
    BLACK = "black"
    SNOW = "white"  # noqa: PIE796 - another name of the same


class Level(enum.IntEnum):
    HIGH = 2
    LOW = 1


class Point(NamedTuple):
    x: int
    y: int = 0


class Profile(TypedDict, total=False):
    name: str


@dataclass
class Tree:
    """A tree."""

    name: str
    more: list[Tree] = field(default_factory=list)


@dataclass
class Found:
    path: Path


@dataclass
class Missing:
    near: list[str]


@dataclass
class Login:
    user: str = "root"
    password: Annotated[str, ipcpoll.SECRET] = "hunter2"


@dataclass
class Inner:
    shade: Literal["hunter2", "none"] = "hunter2"
    more: list[Found] = field(default_factory=list)


def described(make: Any) -> tuple[Any, dict[str, Any]]:
    """Return what `make` makes with the schemas, and the definitions of the classes in it."""
    schemas = Schemas()
    schema = make(schemas)
    while schemas.define_next():
        pass
    return schema, schemas.name_all()


def field_of(annotation: Any, **options: Any) -> Any:
    """Return the schema of a field of this annotation, with the options of `dataclasses.field`."""
    spec = ("x", annotation, field(**options)) if options else ("x", annotation)
    cls = dataclasses.make_dataclass(
        "Cmd", [spec], namespace={"process": wire.command(int).process}
    )  # type: ignore[attr-defined]
    resolve(cls)
    schema, _ = described(lambda schemas: schemas.fields(cls))
    return schema["properties"]["x"]


FIELDS: list[tuple[Any, Any]] = [
    (bool, {"type": "boolean"}),
    (int, {"type": "integer"}),
    (float, {"type": "number"}),
    (str, {"type": "string"}),
    (bytes, {"type": "string", "contentEncoding": "base64"}),
    (None, {"type": "null"}),
    (Path, {"type": "string", "format": "path"}),
    (date, {"type": "string", "format": "date"}),
    (list, {"type": "array"}),
    (dict, {"type": "object"}),
    (set[int], {"type": "array", "items": {"type": "integer"}}),
    (tuple[int, ...], {"type": "array", "items": {"type": "integer"}}),
    (
        tuple[int, str],
        {
            "type": "array",
            "minItems": 2,
            "maxItems": 2,
            "prefixItems": [{"type": "integer"}, {"type": "string"}],
            "items": False,
        },
    ),
    (tuple[()], {"type": "array", "minItems": 0, "maxItems": 0, "items": False}),
    (dict[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}),
    (
        dict[date, int],
        {
            "type": "object",
            "propertyNames": {"format": "date"},
            "additionalProperties": {"type": "integer"},
        },
    ),
    (
        dict[Level, int],
        {
            "type": "object",
            "propertyNames": {"enum": ["2", "1"]},
            "additionalProperties": {"type": "integer"},
        },
    ),
    (int | None, {"anyOf": [{"type": "integer"}, {"type": "null"}]}),
    (Literal["on", "off", 0], {"enum": ["on", "off", 0]}),
    (Literal["a"], {"enum": ["a"]}),
    (Colour, {"$ref": "#/$defs/Colour"}),
    (NewType("UserId", int), {"type": "integer"}),
    (
        Annotated[int, Meta(title="T", description="D")],
        {"type": "integer", "title": "T", "description": "D"},
    ),
    (Annotated[str, "a note"], {"type": "string"}),
    (
        Annotated[Colour, Meta(examples=[Colour.BLACK])],
        {"$ref": "#/$defs/Colour", "examples": ["black"]},
    ),
    (Annotated[int, Meta(examples=[1, "x"])], {"type": "integer", "examples": [1]}),
    (
        Annotated[int, Meta(extra_json_schema={"deprecated": True})],
        {"type": "integer", "deprecated": True},
    ),
    (Annotated[int, Meta(extra_json_schema={"a": {1, 2}, "b": 2**70})], {"type": "integer"}),
    (
        Annotated[int, at.Ge(0), at.Ge(3), at.Ge(1), at.Lt(9)],
        {"type": "integer", "minimum": 3, "exclusiveMaximum": 9},
    ),
    (Annotated[str, at.MaxLen(9), at.MaxLen(5)], {"type": "string", "maxLength": 5}),
    (
        Annotated[int, at.MultipleOf(2), at.MultipleOf(3)],
        {"type": "integer", "multipleOf": 2, "allOf": [{"multipleOf": 3}]},
    ),
    (
        Annotated[bytes, Meta(min_length=1, max_length=4)],
        {"type": "string", "contentEncoding": "base64", "minLength": 4, "maxLength": 8},
    ),
    (Annotated[float, at.Gt(-math.inf), at.Lt(math.inf)], {"type": "number"}),
    (Annotated[float, at.Lt(2**70)], {"type": "number", "exclusiveMaximum": 2.0**64}),
    (
        Annotated[int | str, at.Ge(0)],
        {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string"}]},
    ),
    (list[Annotated[int, at.Ge(0)]], {"type": "array", "items": {"type": "integer", "minimum": 0}}),
]


@pytest.mark.parametrize(("annotation", "schema"), FIELDS, ids=[str(one[0])[:60] for one in FIELDS])
def test_field(annotation: Any, schema: Any) -> None:
    assert field_of(annotation) == schema


def test_words_of_msgspec_where_it_has_an_answer() -> None:
    for annotation in (bool, int, float, str, bytes, None, date, list[int], dict[str, float]):
        assert field_of(annotation) == msgspec.json.schema(annotation)


@pytest.mark.parametrize(
    ("annotation", "default", "plain"),
    [
        (int, 5, 5),
        (float, 60, 60.0),
        (Path, Path("/a"), "/a"),
        (bytes, b"\xff", b"\xff"),
        (Colour, Colour.WHITE, "white"),
        (Point, Point(1), [1, 0]),
        (tuple[date, ...], (date(2026, 1, 2),), ["2026-01-02"]),
        (frozenset[str], frozenset("cab"), ["a", "b", "c"]),
        (int | None, None, None),
    ],
)
def test_default_is_the_plain_value(annotation: Any, default: Any, plain: Any) -> None:
    for options in ({"default": default}, {"default_factory": lambda: default}):
        told = field_of(annotation, **options)["default"]
        assert (type(told), told) == (type(plain), plain)


def test_default_that_fits_not_is_none() -> None:
    assert field_of(int, default=None) == {"type": "integer"}
    assert field_of(int, default=2**70) == {"type": "integer"}


def test_factory_that_raises_or_never_makes_the_same_has_none() -> None:
    count = iter(range(10))

    def fail() -> int:
        raise RuntimeError("not now")

    assert field_of(int, default_factory=lambda: next(count)) == {"type": "integer"}
    assert field_of(int, default_factory=fail) == {"type": "integer"}
    made = iter([1, None])
    assert field_of(int, default_factory=lambda: next(made)) == {"type": "integer"}


def test_wish_to_end_the_program_comes_out_of_a_factory() -> None:
    def leave() -> int:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        field_of(int, default_factory=leave)


def test_default_in_a_map_and_in_a_union() -> None:
    annotation = dict[str, frozenset[str]] | int
    assert field_of(annotation, default_factory=lambda: {"a": frozenset("ba")})["default"] == {
        "a": ["a", "b"]
    }
    assert field_of(annotation, default=3)["default"] == 3


def test_fields_of_a_command() -> None:
    @dataclass
    class Cmd:
        """Do it."""

        b: int
        a: int | UnsetType = UNSET
        c: Annotated[str, Meta(max_length=5)] = "x"

        def process(self, ctx: object) -> None: ...

    schema, _ = described(lambda schemas: schemas.fields(Cmd))
    assert list(schema["properties"]) == ["b", "a", "c"]
    assert schema == {
        "type": "object",
        "properties": {
            "b": {"type": "integer"},
            "a": {"type": "integer"},
            "c": {"type": "string", "maxLength": 5, "default": "x"},
        },
        "required": ["b"],
        "additionalProperties": False,
    }


def test_classes_are_defined_once_in_the_order_in_which_they_are_met() -> None:
    _, defs = described(
        lambda schemas: [
            schemas.fields(wire.command(kind)) for kind in (Tree, Colour, Tree, Point, Profile)
        ]
    )
    assert list(defs) == ["Tree", "Colour", "Point", "Profile"]
    assert defs["Tree"] == {
        "title": "Tree",
        "description": "A tree.",
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "more": {"type": "array", "items": {"$ref": "#/$defs/Tree"}, "default": []},
        },
        "required": ["name"],
        "additionalProperties": False,
    }
    assert defs["Colour"] == {
        "title": "Colour",
        "description": "Of a wall.",
        "enum": ["white", "black"],
    }
    assert defs["Point"] == {
        "title": "Point",
        "type": "array",
        "minItems": 1,
        "maxItems": 2,
        "prefixItems": [{"type": "integer"}, {"type": "integer", "default": 0}],
        "items": False,
    }
    assert defs["Profile"]["required"] == []
    assert defs["Profile"]["additionalProperties"] is False


# ---------------------------------------------------------------------------------------------
# Answers and pieces

FOUND = {
    "type": "array",
    "prefixItems": [{"const": "Found"}, {"$ref": "#/$defs/Found"}],
    "items": False,
    "minItems": 2,
}


def test_answer_that_is_one_of_several_dataclasses() -> None:
    schema, _ = described(lambda schemas: schemas.answer(Found | Missing | int | None))
    missing = {**FOUND, "prefixItems": [{"const": "Missing"}, {"$ref": "#/$defs/Missing"}]}
    assert schema == {"anyOf": [FOUND, missing, {"type": "integer"}, {"type": "null"}]}
    noted = Annotated[Found | Missing, Meta(description="What it is"), "a note"]
    schema, _ = described(lambda schemas: schemas.answer(noted))
    assert schema == {"anyOf": [FOUND, missing], "description": "What it is"}


def test_one_dataclass_beside_none_is_not_tagged() -> None:
    schema, _ = described(lambda schemas: schemas.answer(Found | None))
    assert schema == {"anyOf": [{"$ref": "#/$defs/Found"}, {"type": "null"}]}


def test_no_answer_and_no_piece() -> None:
    import typing

    assert Schemas().answer(None) is None
    assert Schemas().piece(typing.NoReturn) is None


def test_progress_is_marked_as_a_piece() -> None:
    def make(schemas: Schemas) -> Any:
        return (
            schemas.piece(ipcpoll.Progress),
            schemas.answer(ipcpoll.Progress),
            schemas.piece(ipcpoll.Progress | int),
        )

    (piece, answer, union), defs = described(make)
    marked = {"$ref": "#/$defs/Progress", "x-progress": True}
    assert (piece, answer) == (marked, {"$ref": "#/$defs/Progress"})
    assert union == {"anyOf": [marked, {"type": "integer"}]}
    assert list(defs["Progress"]["properties"]) == ["done", "total", "text"]


# ---------------------------------------------------------------------------------------------
# Names


def another(name: str, module: str) -> type:
    cls = dataclasses.make_dataclass(name, [("x", int)])
    cls.__module__ = module
    return cls


def test_two_classes_of_one_name_are_named_by_their_modules() -> None:
    kinds = [another("Point", "one.a"), another("Point", "two"), another("Size", "two")]
    schemas, defs = described(lambda schemas: [schemas.schema(kind) for kind in kinds])
    assert list(defs) == ["one.a.Point", "two.Point", "Size"]
    assert [schema["$ref"] for schema in schemas] == [f"#/$defs/{name}" for name in defs]


def test_two_classes_of_one_name_in_one_module_are_numbered() -> None:
    kinds = [another("Point", "one"), another("Point", "one"), another("Point", "one")]
    _, defs = described(lambda schemas: [schemas.schema(kind) for kind in kinds])
    assert list(defs) == ["one.Point", "one.Point-2", "one.Point-3"]


def test_name_needs_no_escapes_in_a_reference() -> None:
    schema, defs = described(lambda schemas: schemas.schema(another("A/b ~%c", "m")))
    assert schema == {"$ref": "#/$defs/A_b___c"}
    assert defs["A_b___c"]["title"] == "A/b ~%c"


# ---------------------------------------------------------------------------------------------
# Secrets


def strings_in(thing: Any) -> Iterator[str]:
    if isinstance(thing, str):
        yield thing
    elif isinstance(thing, dict):
        for key, value in thing.items():
            yield from strings_in(key)
            yield from strings_in(value)
    elif isinstance(thing, list):
        for value in thing:
            yield from strings_in(value)


Secret = ipcpoll.SECRET


@pytest.mark.parametrize(
    ("annotation", "default"),
    [
        (Annotated[str, Secret], "hunter2"),
        (Annotated[str, Secret] | None, "hunter2"),
        (Annotated[str | None, Secret, "a note"], "hunter2"),
        (Annotated[str, Meta(max_length=9), Secret], "hunter2"),
        (NewType("Password", Annotated[str, Secret]), "hunter2"),  # type: ignore[valid-newtype]
        (list[Annotated[str, Secret]], ["hunter2"]),
        (dict[str, Annotated[str, Secret]], {"a": "hunter2"}),
        (tuple[int, Annotated[str, Secret]], (1, "hunter2")),
        (Login, Login("root", "hunter2")),
        (list[Login], [Login("root", "hunter2")]),
        (Login | None, Login("root", "hunter2")),
        (Annotated[Tree, Secret], Tree("hunter2")),
        (Annotated[str, Secret, Meta(extra_json_schema={"default": "hunter2"})], "hunter2"),
        (Annotated[str, Secret, Meta(examples=["hunter2"])], "hunter2"),
    ],
)
def test_default_of_a_secret_is_nowhere(annotation: Any, default: Any) -> None:
    cls = dataclasses.make_dataclass(
        "Cmd",
        [("x", annotation, field(default_factory=lambda: default))],
        namespace={"process": wire.command(int).process},  # type: ignore[attr-defined]
    )
    resolve(cls)
    everything = described(lambda schemas: (schemas.fields(cls), schemas.answer(annotation)))
    assert "hunter2" not in {*strings_in(list(everything[0])), *strings_in(everything[1])}
    assert everything[0][0]["required"] == []


def test_secret_is_write_only_and_its_neighbour_is_not() -> None:
    _, defs = described(lambda schemas: schemas.schema(Login))
    assert defs["Login"]["properties"] == {
        "user": {"type": "string", "default": "root"},
        "password": {"type": "string", "writeOnly": True},
    }


@pytest.mark.parametrize(
    "answer",
    [
        Annotated[Found | Inner, Secret],
        Annotated[Found | Inner, Secret] | None,
        Missing | Annotated[Found | Inner, Secret],
    ],
)
def test_mark_around_several_dataclasses_holds_for_all(answer: Any) -> None:
    schema, defs = described(lambda schemas: schemas.answer(answer))
    assert "anyOf" in schema
    assert "default" not in defs["Inner"]["properties"]["shade"]


@pytest.mark.parametrize("secret_first", [True, False])
def test_mark_on_a_group_holds_for_all_in_it(secret_first: bool) -> None:
    """Also where the class stands somewhere else without the mark: its defaults are the same."""
    kinds: list[Any] = [Annotated[Inner, Secret], Inner]
    _, defs = described(
        lambda schemas: [schemas.schema(kind) for kind in (kinds if secret_first else kinds[::-1])]
    )
    assert {*defs} == {"Inner", "Found"}
    assert defs["Inner"]["properties"]["shade"] == {"enum": ["hunter2", "none"]}
    assert "default" not in defs["Inner"]["properties"]["more"]


def test_recursive_class_is_no_circle() -> None:
    schema = field_of(Tree, default_factory=lambda: Tree("a", [Tree("b")]))
    assert schema["default"] == {"name": "a", "more": [{"name": "b", "more": []}]}
