"""Values as they are typed, read by their schema, and refused in its words."""

from __future__ import annotations

import datetime
import decimal
import enum
import math
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from ipcpoll._schema.commands import resolve
from ipcpoll.cli.contents import Contents
from ipcpoll.cli.schemas import Schemas
from ipcpoll.cli.unfit import Unfit
from ipcpoll.cli.values import TOGGLE, Assignment, Change, Reader, split

INT = {"type": "integer"}
NUMBER = {"type": "number"}
TEXT = {"type": "string"}
BOOL = {"type": "boolean"}
NULL = {"type": "null"}
BYTES = {"type": "string", "contentEncoding": "base64"}
DURATION = {"type": "string", "format": "duration"}
GRAVITY = {"type": "number", "minimum": 0, "maximum": 50, "x-unit": "m/s²", "default": 9.81}
TEXTS = {"type": "array", "items": TEXT}
POINT = {
    "type": "object",
    "properties": {"x": INT, "y": {**INT, "default": 0}},
    "required": ["x"],
    "additionalProperties": False,
}
DEFS = {
    "Level": {"title": "Level", "enum": ["debug", "info", "WARN"]},
    "Point": POINT,
    "a/b~c": INT,
    "Loop": {"$ref": "#/$defs/Loop"},
    "Tree": {
        "type": "object",
        "properties": {"more": {"type": "array", "items": {"$ref": "#/$defs/Tree"}}},
        "required": [],
        "additionalProperties": False,
    },
    "Endless": {"anyOf": [{"$ref": "#/$defs/Endless"}, {"$ref": "#/$defs/Endless"}]},
}
LEVEL = {"$ref": "#/$defs/Level", "description": "what is beside it wins"}
READER = Reader(DEFS)


def optional(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, NULL]}


def union(*schemas: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": list(schemas)}


def the(value: Any) -> str:
    """What makes two values the same: kind and content."""
    return repr(value)


@pytest.mark.parametrize(
    ("text", "schema", "value"),
    [
        ("2", INT, 2),
        ("-7", INT, -7),
        ("+7", INT, 7),
        ("007", INT, 7),
        ("0x10", INT, 16),
        ("-0b11", INT, -3),
        ("0o17", INT, 15),
        ("1e3", INT, 1000),
        ("2.0", INT, 2),
        (str(2**64 - 1), INT, 2**64 - 1),
        ("2", NUMBER, 2.0),
        ("1e3", NUMBER, 1000.0),
        ("0x10", NUMBER, 16.0),
        (".5", NUMBER, 0.5),
        ("nan", NUMBER, math.nan),
        ("-inf", NUMBER, -math.inf),
        ("INF", NUMBER, math.inf),
        ("1.6", GRAVITY, 1.6),
        ("yes", BOOL, True),
        ("On", BOOL, True),
        ("TRUE", BOOL, True),
        ("no", BOOL, False),
        ("off", BOOL, False),
        ("false", BOOL, False),
        ("", TEXT, ""),
        ("a b=c", TEXT, "a b=c"),
        ("null", TEXT, "null"),
        ("5", TEXT, "5"),
        ("/wA=", BYTES, b"\xff\0"),
        ("", BYTES, b""),
        ("null", NULL, None),
        ("debug", LEVEL, "debug"),
        ("Debug", LEVEL, "debug"),
        ("warn", LEVEL, "WARN"),
        ("1.5s", DURATION, "PT1.5S"),
        ("1h30m", DURATION, "PT5400S"),
        ("P1DT1.5S", DURATION, "P1DT1.5S"),
        ("1.5s", {"type": "number", "x-unit": "s"}, 1.5),
        ("200ms", {"type": "number", "x-unit": "s"}, 0.2),
        ("1.5s", {"type": "integer", "x-unit": "ms"}, 1500),
        ("2h", {"type": "integer", "x-unit": "minutes"}, 120),
        ("3", {"type": "integer", "x-unit": "ms"}, 3),
        ("1m", optional({"type": "number"}) | {"x-unit": "s"}, 60.0),
        ("2026-01-02", {"type": "string", "format": "date"}, "2026-01-02"),
        ("a,b", TEXTS, ["a", "b"]),
        ("a, b", TEXTS, ["a", " b"]),
        ("", TEXTS, []),
        ("a,", TEXTS, ["a", ""]),
        ("[a", TEXTS, ["[a"]),
        ("1,0x10", {"type": "array", "items": INT}, [1, 16]),
        ("1,a", {"type": "array", "prefixItems": [INT, TEXT], "items": False}, [1, "a"]),
        ("1,a,true", {"type": "array"}, [1, "a", True]),
        ('[{"x": 1}]', {"type": "array", "items": {"$ref": "#/$defs/Point"}}, [{"x": 1}]),
        ("[[1],[2]]", {"type": "array", "items": {"type": "array", "items": INT}}, [[1], [2]]),
        ('{"x": 1}', {"$ref": "#/$defs/Point"}, {"x": 1}),
        ('{"a": 1}', {"type": "object", "additionalProperties": INT}, {"a": 1}),
        ("null", optional(INT), None),
        ("NULL", optional(INT), None),
        ("none", optional(INT), None),
        ("none", optional({"enum": ["none", "all"]}), "none"),
        ("null", optional(TEXT), None),
        ("none", optional(TEXT), "none"),
        ("5", union(TEXT, INT), 5),
        ("x", union(TEXT, INT), "x"),
        ("5", union(NUMBER, INT), 5),
        ("5.0", union(INT, NUMBER), 5.0),
        ("1e3", union(INT, NUMBER), 1000.0),
        ("yes", union(TEXT, BOOL), True),
        ("2", {"type": ["integer", "null"]}, 2),
        ("null", {"type": ["integer", "null"]}, None),
        ("2", {"enum": [1, 2]}, 2),
        ("0x2", {"enum": [1, 2]}, 2),
        ("null", {"enum": [None, "a"]}, None),
        ("True", {"enum": [True, 5]}, True),
        ("1", {"enum": ["1", 1]}, "1"),
        ("on", {"const": "On"}, "On"),
        ("A", {"enum": ["a", "A"]}, "A"),
        ("5", {}, 5),
        ("x", {}, "x"),
        ("NaN", {}, "NaN"),
        ("[1,", {}, "[1,"),
        ("5", {"$ref": "#/$defs/a~1b~0c"}, 5),
        ("5", {"$ref": "#/$defs/nowhere"}, 5),
        ("5", {"$ref": "#/$defs/Loop"}, 5),
        ("x", {"type": "string", "pattern": "("}, "x"),  # no pattern that is known here
        ("abc", {"type": "string", "pattern": "b", "minLength": 3, "maxLength": 3}, "abc"),
        ("12", {"type": "integer", "multipleOf": 4, "exclusiveMinimum": 11}, 12),
    ],
)
def test_read(text: str, schema: dict[str, Any], value: Any) -> None:
    assert the(READER.value(text, schema)) == the(value)


@pytest.mark.parametrize(
    ("text", "schema", "words"),
    [
        ("x", INT, "must be an integer, not 'x'"),
        ("2.5", INT, "must be an integer, not '2.5'"),
        ("1_000", INT, "must be an integer, not '1_000'"),
        ("٣", INT, "must be an integer, not '٣'"),
        ("", INT, "must be an integer, not ''"),
        ("inf", INT, "must be an integer, not 'inf'"),
        ("1e30", INT, "is too large a number to be sent"),
        ("1e99999", INT, "is too large a number to be sent"),
        (str(2**64), INT, "is too large a number to be sent"),
        ("9" * 5000, INT, f"must be an integer, not '{'9' * 40}'…"),
        ("x", NUMBER, "must be a number, not 'x'"),
        ("1e400", NUMBER, "is too large a number to be sent"),
        ("60", GRAVITY, "must be at most 50, not 60.0"),
        ("-1", GRAVITY, "must be at least 0, not -1.0"),
        ("nan", GRAVITY, 'must be at least 0, not "nan"'),
        ("0", {"type": "number", "exclusiveMinimum": 0}, "must be more than 0, not 0.0"),
        ("9", {"type": "integer", "exclusiveMaximum": 9}, "must be less than 9, not 9"),
        ("5", {"type": "integer", "multipleOf": 4}, "must be a multiple of 4, not 5"),
        ("5", {"type": "integer", "multipleOf": 0}, "must be a multiple of 0, not 5"),
        ("maybe", BOOL, "must be yes or no, not 'maybe'"),
        ("toggle", BOOL, "must be yes or no, not 'toggle'"),
        ("ä", BYTES, "must be bytes in base64, not 'ä'"),
        ("abc", BYTES, "must be bytes in base64, not 'abc'"),
        ("debgu", LEVEL, "must be one of debug, info, WARN, not 'debgu'; did you mean debug?"),
        ("x", {"enum": []}, "must be one of , not 'x'"),
        ("x", {"const": 5}, "must be 5, not 'x'"),
        ("Ab", {"enum": ["aB", "AB"]}, "fits aB, AB: say which, not 'Ab'"),
        ("x", {"enum": list(range(50))}, f"must be one of {', '.join(map(str, range(30)))} "),
        ("1.5", DURATION, "must be a duration like 1.5s or 2h30m, not '1.5'"),
        ("1.5ms", {"type": "integer", "x-unit": "ms"}, "must be an integer of ms, not '1.5ms'"),
        ("5s", {"type": "integer", "x-unit": "m"}, "must be an integer of m, not '5s'"),
        ("5s", GRAVITY, "must be a number, not '5s'"),
        (
            "yesterday",
            {"type": "string", "format": "date-time"},
            "must be a date and time like 2026-01-02T03:04:05Z, not 'yesterday'",
        ),
        ("x", {"type": "string", "format": "uuid"}, "must be a UUID, not 'x'"),
        ("x", {"type": "string", "format": "decimal"}, "must be a decimal number, not 'x'"),
        ("abcd", {"type": "string", "maxLength": 3}, "must have at most 3 characters, not 4"),
        ("", {"type": "string", "minLength": 1}, "must have at least 1 character, not 0"),
        ("b", {"type": "string", "pattern": "^a"}, "must match the pattern '^a', not be 'b'"),
        ("1,x", {"type": "array", "items": INT}, "[1] must be an integer, not 'x'"),
        ("a", {"type": "array", "items": TEXT, "minItems": 2}, "must have at least 2 items, not 1"),
        (
            "1,2",
            {"type": "array", "prefixItems": [INT], "items": False},
            "must have 1 item, not 2",
        ),
        ("x", {"$ref": "#/$defs/Point"}, "must be an object in JSON, not 'x'"),
        ('{"y": 1}', {"$ref": "#/$defs/Point"}, "lacks x"),
        ('{"x": "1"}', {"$ref": "#/$defs/Point"}, ".x must be an integer, not '1'"),
        ('{"x":1,"x":2}', {"$ref": "#/$defs/Point"}, "must be an object in JSON, not '{"),
        (
            "{}",
            {"type": "object", "minProperties": 1},
            "must have at least 1 entry, not 0",
        ),
        ("x", optional(INT), "must be an integer or null, not 'x'"),
        ("60", optional(GRAVITY), "must be at most 50, not 60.0"),
        ("x", optional(LEVEL), "must be one of debug, info, WARN or null, not 'x'"),
        ("deug", optional(LEVEL), "null, not 'deug'; did you mean debug?"),
        ("x", union(INT, BOOL), "must be an integer or yes or no, not 'x'"),
        # The words are those of the branch that is not text.
        ("5", union({**INT, "maximum": 3}, {**TEXT, "pattern": "^a"}), "must be at most 3, not 5"),
        ("x", {"not": {}}, "is not allowed here"),
    ],
)
def test_refused(text: str, schema: dict[str, Any], words: str) -> None:
    with pytest.raises(Unfit) as refused:
        READER.value(text, schema)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("text", "schema", "value"),
    [
        ("5", INT, 5),
        ("5.0", INT, 5),
        ("1e3", INT, 1000),
        ("true", BOOL, True),
        ('"toggle"', TEXT, "toggle"),
        ('"-"', TEXT, "-"),
        ('"@x"', TEXT, "@x"),
        ('"/wA="', BYTES, b"\xff\0"),
        ('"nan"', NUMBER, math.nan),
        ("5", NUMBER, 5),
        ("null", optional(INT), None),
        ('"null"', optional(TEXT), "null"),
        ('["a,b", ""]', TEXTS, ["a,b", ""]),
        ("5.0", union(INT, NUMBER), 5.0),
        ("5", union(INT, NUMBER), 5),
        ('{"a": [1, {"b": null}]}', {}, {"a": [1, {"b": None}]}),
        ('"debug"', LEVEL, "debug"),
        ('{"more": [{}]}', {"$ref": "#/$defs/Tree"}, {"more": [{}]}),
    ],
)
def test_json(text: str, schema: dict[str, Any], value: Any) -> None:
    assert the(READER.json(text, schema)) == the(value)


@pytest.mark.parametrize(
    ("text", "schema", "words"),
    [
        ("x", INT, "must be JSON after := (Expecting value"),
        ("NaN", NUMBER, "NaN is no JSON, it is written as text"),
        ('{"a":1,"a":2}', {}, "a key is there twice"),
        ("5.5", INT, "must be an integer, not 5.5"),
        ("true", INT, "must be an integer, not true"),
        ("1", BOOL, "must be true or false, not 1"),
        ('"x"', NUMBER, "must be a number, not 'x'"),
        ('"Debug"', LEVEL, "must be one of debug, info, WARN, not 'Debug'"),
        ("1", {"enum": [True]}, "must be true, not 1"),
        ("[]", union(INT, TEXT), "must be an integer or text, not a list"),
        ("[1]", TEXTS, "[0] must be text, not 1"),
        ('{"x":1,"yy":2}', {"$ref": "#/$defs/Point"}, "has no field 'yy'; did you mean y?"),
        ('{"x":1,"zzz":2}', {"$ref": "#/$defs/Point"}, "has no field 'zzz'; there are x, y"),
        (str(2**70), {}, "is too large a number to be sent"),
        ("[" * 70 + "]" * 70, {}, "is nested deeper than 64 levels"),
        ("[" * 70 + "]" * 70, {"type": "array"}, "is nested deeper than 64 levels"),
        ("[" * 50000, {}, "must be JSON after :="),
    ],
)
def test_json_refused(text: str, schema: dict[str, Any], words: str) -> None:
    with pytest.raises(Unfit) as refused:
        READER.json(text, schema)
    assert words in str(refused.value)


# ---------------------------------------------------------------------------------------------
# Whole command lines


@pytest.mark.parametrize(
    ("word", "parts"),
    [
        ("a=2", ("a", "=", "2")),
        ("a=", ("a", "=", "")),
        ("a=b=c", ("a", "=", "b=c")),
        ("a:=[1]", ("a", ":=", "[1]")),
        ("a+=2", ("a", "+=", "2")),
        ("a-=2", ("a", "-=", "2")),
        ("log.level=x\ny", ("log.level", "=", "x\ny")),
        ("=x", ("", "=", "x")),
    ],
)
def test_split(word: str, parts: tuple[str, str, str]) -> None:
    assert split(word) == Assignment(*parts)


def test_no_assignment() -> None:
    assert split("abc") is None


FIELDS = {
    "type": "object",
    "properties": {"a": INT, "b": INT, "enabled": BOOL, "level": LEVEL},
    "required": ["a", "b"],
    "additionalProperties": False,
}


def test_fields() -> None:
    found = READER.fields(["a=2", "b:=3", "level=INFO"], FIELDS, "Add")
    assert found == {"a": 2, "b": 3, "level": "info"}
    assert READER.fields([], {"type": "object", "properties": {}}) == {}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["a=x", "b=1"], "a must be an integer, not 'x'"),
        (["a=1"], "b is missing: an integer"),
        (["a=1", "b=2", "leval=info"], "Add has no field 'leval'; did you mean level?"),
        (["a=1", "b=2", "zzz=1"], "Add has no field 'zzz'; there are a, b, enabled, level"),
        (["a=1", "b=2", "a=3"], "a is given twice"),
        (["1", "a=1", "b=2"], "'1' is no field: write field=value; the fields are a, b, enabled"),
        (["a+=1", "b=2"], "a += is for variables, which have a value already"),
        (["a=1", "b=2", "enabled=toggle"], "enabled must be yes or no, not 'toggle'"),
        (["a=x"], "a must be an integer, not 'x'; b is missing: an integer"),
        (["a:=[", "b=2"], "a must be JSON after :="),
    ],
)
def test_faults_of_a_command_line(words: list[str], sentence: str) -> None:
    with pytest.raises(Unfit) as refused:
        READER.fields(words, FIELDS, "Add")
    assert sentence in str(refused.value)


def test_command_without_fields_says_so() -> None:
    with pytest.raises(Unfit) as refused:
        READER.fields(["x=1"], {"type": "object"}, "Ping")
    assert str(refused.value) == "Ping has no field 'x'; there is none at all"


SECRETS = {
    "type": "object",
    "properties": {
        "token": {"type": "string", "writeOnly": True, "maxLength": 3},
        "pin": {"anyOf": [{"type": "integer", "writeOnly": True}, NULL]},
        "kind": {"enum": ["hidden-one"], "writeOnly": True},
        "account": {"$ref": "#/$defs/Account"},
        "many": {"type": "array", "items": {"$ref": "#/$defs/Account"}},
    },
}
ACCOUNT = {
    "Account": {
        "type": "object",
        "properties": {
            "key": {"type": "string", "writeOnly": True},
            "next": {"$ref": "#/$defs/Account"},
        },
    }
}


@pytest.mark.parametrize(
    "word",
    [
        "token=hunter2",
        "token:=hunter2",
        'token:=["hunter2"]',
        "pin=hunter2",
        "kind=hunter2",
        "account=hunter2",
        'account={"key": ["hunter2"]}',
        'account:={"key": hunter2',
        'many:=[{"key": 5}, "hunter2"]',
    ],
)
def test_a_secret_is_in_no_refusal(word: str) -> None:
    with pytest.raises(Unfit) as refused:
        Reader(ACCOUNT).fields([word], SECRETS)
    name = word.partition("=")[0].removesuffix(":")
    assert str(refused.value) == f"{name} does not fit (it is a secret: no more is said)"


# ---------------------------------------------------------------------------------------------
# What depends on the value that is there

VARIABLES = {
    "gravity": GRAVITY,
    "lives": {"type": "integer", "minimum": 0, "maximum": 9},
    "log.level": LEVEL,
    "sound": BOOL,
    "maybe": optional(BOOL),
    "limit": {**DURATION, "x-unit": "s"},
    "wait": {"type": "number", "x-unit": "s"},
    "name": TEXT,
    "token": {"type": "integer", "writeOnly": True, "maximum": 5},
}


@pytest.mark.parametrize(
    ("word", "old", "new"),
    [
        ("gravity+=1.5", 9.81, 11.31),
        ("gravity-=0.1", 0.3, 0.2),
        ("gravity+=2", 1, 3.0),
        ("lives+=1", 3, 4),
        ("lives-=0x2", 3, 1),
        ("lives-=9", 9, 0),
        ("wait+=200ms", 1.0, 1.2),
        ("limit+=1.5s", "PT1S", "PT2.5S"),
        ("limit-=1m", "P1D", "PT86340S"),
        ("sound=toggle", True, False),
        ("sound=TOGGLE", False, True),
        ("maybe=toggle", False, True),
    ],
)
def test_changes_that_read_first(word: str, old: Any, new: Any) -> None:
    [change] = READER.changes([word], VARIABLES)
    assert change.reads_first
    assert the(READER.changed(change, old)) == the(new)


def test_changes_that_need_not() -> None:
    changes = READER.changes(["gravity=1.6", "log.level=DEBUG", "name=toggle"], VARIABLES, "game")
    assert changes == [
        Change("gravity", GRAVITY, "=", 1.6),
        Change("log.level", LEVEL, "=", "debug"),
        Change("name", TEXT, "=", "toggle"),
    ]
    assert not any(change.reads_first for change in changes)
    assert READER.changed(changes[0], 5) == 1.6


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("gravty=1", "game has no variable 'gravty'; did you mean gravity?"),
        ("gravity", "'gravity' is no variable: write variable=value"),
        ("name+=x", "name takes text; += is for numbers"),
        ("log.level-=1", "log.level takes one of debug, info, WARN; -= is for numbers"),
        ("lives+=1.5", "lives must be an integer, not '1.5'"),
        ("gravity+=nan", "gravity must be a number after +=, not 'nan'"),
        ("limit+=2", "limit must be a duration like 1.5s or 2h30m after +=, not '2'"),
        ("token+=secret", "token does not fit (it is a secret: no more is said)"),
    ],
)
def test_changes_refused(word: str, sentence: str) -> None:
    with pytest.raises(Unfit) as refused:
        READER.changes([word], VARIABLES, "game")
    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    ("word", "old", "sentence"),
    [
        ("lives+=7", 3, "lives must be at most 9, not 10"),
        ("lives-=7", 3, "lives must be at least 0, not -4"),
        ("gravity+=1", None, "gravity is null now, to which nothing can be added"),
        ("gravity+=1", math.nan, 'gravity is "nan" now, to which nothing can be added'),
        ("wait+=1.7e308", 1.7e308, "wait would be too large a number to be sent"),
        ("limit+=1s", "x", "limit is 'x' now, which is no duration"),
        ("maybe=toggle", None, "maybe is null now, and only yes and no can be turned"),
        ("token+=5", 3, "token does not fit (it is a secret: no more is said)"),
    ],
)
def test_what_is_there_does_not_allow_it(word: str, old: Any, sentence: str) -> None:
    [change] = READER.changes([word], VARIABLES)
    with pytest.raises(Unfit) as refused:
        READER.changed(change, old)
    assert str(refused.value) == sentence


def test_toggle_is_a_sign_of_its_own() -> None:
    [change] = READER.changes(["sound=toggle"], VARIABLES)
    assert change == Change("sound", BOOL, TOGGLE, None)


# ---------------------------------------------------------------------------------------------
# Content


@pytest.mark.parametrize(
    ("content", "schema", "value"),
    [
        (b"text\n", TEXT, "text"),
        (b"text\n\n", TEXT, "text\n"),
        (b"null", optional(TEXT), "null"),
        (b"5\n", INT, 5),
        (b"debug\n", LEVEL, "debug"),
        (b"raw\xff\n", BYTES, b"raw\xff\n"),
        (b"raw", optional(BYTES), b"raw"),
        (b"a,b\n", TEXTS, ["a", "b"]),
    ],
)
def test_content(content: bytes, schema: dict[str, Any], value: Any) -> None:
    reader = Reader(content=lambda typed: content)
    reader = Reader(DEFS, content=lambda typed: content)
    for typed in ("v=@file", "v=-"):
        assert the(reader.fields([typed], {"properties": {"v": schema}})) == the({"v": value})


def test_content_as_json() -> None:
    reader = Reader(content=lambda typed: b"[1]\n")
    assert reader.fields(["v:=@f"], {"properties": {"v": {"type": "array"}}}) == {"v": [1]}


def test_content_that_is_no_text() -> None:
    reader = Reader(content=lambda typed: b"\xff")
    with pytest.raises(Unfit, match="v must be text in UTF-8, and the content is not"):
        reader.fields(["v=@f"], {"properties": {"v": TEXT}})


def test_without_content_they_are_text() -> None:
    assert READER.fields(["v=@f"], {"properties": {"v": TEXT}}) == {"v": "@f"}


def test_content_of_files_and_stdin(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"content\n")
    stdin = tmp_path / "stdin"
    stdin.write_bytes(b"said\n")
    with stdin.open("rb") as opened:
        contents = Contents(opened, most=8)
        assert contents(f"@{file}") == b"content\n"
        assert contents("-") == b"said\n"
        with pytest.raises(Unfit, match="can be read once, and - is here twice"):
            contents("-")
        file.write_bytes(b"123456789")
        with pytest.raises(Unfit, match="which has more than 8 bytes"):
            contents(f"@{file}")
        with pytest.raises(Unfit, match="can't be read: No such file or directory"):
            contents(f"@{tmp_path}/nothing")


# ---------------------------------------------------------------------------------------------
# What a server's class accepts, written as text, is read back the same


class Colour(enum.Enum):
    RED = "red"
    BLUE = "Blue"


@dataclass
class Spot:
    x: int
    y: float = 0.5
    names: list[str] = field(default_factory=list)


TEXT_VALUES = st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(
    ["null", "none", "toggle", "yes", "5", "1e3", "@f", "-", "", ",", "a,b", "[1]", "{}", "nan"]
)
INTS = st.integers(-(2**63), 2**64 - 1)
KINDS: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (bool, st.booleans()),
    (int, INTS),
    (float, st.floats()),
    (str, TEXT_VALUES),
    (bytes, st.binary()),
    (None, st.none()),
    (Colour, st.sampled_from(["red", "Blue"])),
    (Literal["on", "off", 0, None], st.sampled_from(["on", "off", 0, None])),
    (list[int], st.lists(INTS)),
    (list[str], st.lists(TEXT_VALUES)),
    (list[float | None], st.lists(st.none() | st.floats())),
    (list[bytes], st.lists(st.binary())),
    (tuple[int, str], st.tuples(INTS, TEXT_VALUES).map(list)),
    (list[list[str]], st.lists(st.lists(TEXT_VALUES))),
    (dict[str, int], st.dictionaries(TEXT_VALUES, INTS)),
    (int | None, st.none() | INTS),
    (str | None, st.none() | TEXT_VALUES),
    (int | str, INTS | TEXT_VALUES),
    (int | float | str | None, st.none() | INTS | st.floats() | TEXT_VALUES),
    (bool | str, st.booleans() | TEXT_VALUES),
    (Colour | None, st.none() | st.sampled_from(["red", "Blue"])),
    (list[int] | int, st.lists(INTS) | INTS),
    (Annotated[int, Meta(ge=-5, le=5)], st.integers(-5, 5)),
    (Annotated[str, Meta(max_length=3)], st.text("abc", max_size=3)),
    (datetime.timedelta, st.timedeltas().map(msgspec.to_builtins)),
    (datetime.date, st.dates().map(str)),
    (decimal.Decimal, st.decimals(allow_nan=False).map(str)),
    (uuid.UUID, st.uuids().map(str)),
    (Spot, st.fixed_dictionaries({"x": INTS, "y": st.floats(), "names": st.lists(TEXT_VALUES)})),
]


def command_of(annotation: Any) -> tuple[type[Any], dict[str, Any], dict[str, Any]]:
    """Return a command with one field, the schema of its fields, and the definitions."""

    def process(self: Any, ctx: object) -> None: ...

    process.__annotations__ = {"ctx": object, "return": None}
    cls = make_dataclass("Do", [("value", annotation)], namespace={"process": process})
    [schema], definitions = msgspec.json.schema_components([cls], ref_template="#/$defs/{name}")
    return cls, schema, definitions


@pytest.mark.parametrize(("annotation", "values"), KINDS, ids=[str(kind) for kind, _ in KINDS])
def test_what_a_class_accepts_is_read_back_the_same(
    annotation: Any, values: st.SearchStrategy[Any]
) -> None:
    cls, schema, definitions = command_of(annotation)
    bind: Callable[[dict[str, Any]], object] = resolve(cls).bind
    reader = Reader(definitions, content=lambda typed: pytest.fail("nothing is read"))
    field_schema = definitions["Do"]["properties"]["value"]

    @given(values)
    def round_trip(value: Any) -> None:
        bind({"value": value})  # the server takes it
        word = reader.written("value", value, field_schema)
        assert the(reader.fields([word], schema)) == the({"value": value})

    round_trip()


@pytest.mark.parametrize(("annotation", "values"), KINDS, ids=[str(kind) for kind, _ in KINDS])
def test_what_is_read_the_class_accepts(annotation: Any, values: Any) -> None:
    """Or nothing is read: it was refused."""
    cls, schema, definitions = command_of(annotation)
    bind: Callable[[dict[str, Any]], object] = resolve(cls).bind
    reader = Reader(definitions)

    @given(TEXT_VALUES, st.sampled_from(["=", ":="]))
    def take(text: str, sign: str) -> None:
        try:
            fields = reader.fields([f"value{sign}{text}"], schema)
        except Unfit:
            return
        bind(fields)

    take()


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "$ref",
                    "type",
                    "anyOf",
                    "oneOf",
                    "enum",
                    "const",
                    "items",
                    "prefixItems",
                    "properties",
                    "required",
                    "additionalProperties",
                    "minimum",
                    "multipleOf",
                    "maxLength",
                    "minItems",
                    "pattern",
                    "format",
                    "contentEncoding",
                    "writeOnly",
                    "x-unit",
                ]
            ),
            inner
            | st.sampled_from(
                [
                    "integer",
                    "number",
                    "string",
                    "array",
                    "object",
                    "null",
                    "boolean",
                    "duration",
                    "s",
                ]
            ),
            max_size=5,
        )
    ),
    max_leaves=12,
)


@given(ANY_JSON, st.text(max_size=10) | st.sampled_from(["1", "a,b", "[1]", '{"a":1}', "1s"]))
def test_a_program_can_say_any_schema(schema: Any, text: str) -> None:
    """Nothing but Unfit is raised, whatever stands where a schema should be."""
    reader = Reader(schema if isinstance(schema, dict) else {"A": schema})
    for each in (schema, {"$ref": "#/$defs/type"}, {"type": "array", "items": schema}):
        for read in (reader.value, reader.json):
            try:
                reader.written("v", read(text, each), each)
            except Unfit:
                pass
        try:
            reader.changes([f"v+={text}", f"w={text}"], {"v": each, "w": each})
        except Unfit:
            pass


def test_schema_that_asks_for_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is bounded, and the program decides."""
    monkeypatch.setattr("ipcpoll.cli.schemas._MOST_LOOKED_AT", 1000)
    again = {"type": "array", "items": {"$ref": "#/$defs/Again"}}
    reader = Reader({"Again": {"anyOf": [{"type": "integer"}, *[again] * 4]}})
    text = "[" * 40 + "true" + "]" * 40
    try:
        reader.json(text, {"$ref": "#/$defs/Again"})
    except Unfit:
        pass


def test_schemas_that_never_end() -> None:
    assert READER.value("5", {"$ref": "#/$defs/Endless"}) == 5
    tree: Any = {}
    for _ in range(70):
        tree = {"more": [tree]}
    with pytest.raises(Unfit, match="nested deeper"):
        Schemas(DEFS).fit(tree, {"$ref": "#/$defs/Tree"})
