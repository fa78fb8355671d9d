"""Command classes: what they may hold, that it comes back equal, and how wrong input is refused."""

import collections
import collections.abc
import enum
import functools
import re
import typing
from dataclasses import dataclass, field, make_dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import (
    Annotated,
    Literal,
    Union,
)
from uuid import UUID

import msgspec
import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta
from schema_types import (
    DECODER,
    INTS,
    NULL_ID,
    PATHS,
    POINTS,
    SELF,
    TREES,
    WORDS,
    Colour,
    Folder,
    Found,
    Level,
    Lost,
    Mode,
    Options,
    Pair,
    Percent,
    Point,
    Profile,
    T,
    Text,
    Tree,
    Unlike,
    Word,
    bound,
    other,
    there_and_back,
)
from wire import PLAIN, command, fault

from ipcpoll._schema import commands as schema
from ipcpoll._schema.commands import Command, CommandSet, resolve
from ipcpoll._wire.codec import encode
from ipcpoll._wire.framing import frame
from ipcpoll._wire.protocol import ServerProtocol
from ipcpoll.errors import UnsafeDependency, WireError
from ipcpoll.limits import DEFAULT_LIMITS

if typing.TYPE_CHECKING:
    from nowhere import Context


# ---------------------------------------------------------------------------------------------
# Whole commands


@dataclass
class Nothing:
    def process(self, ctx: "Context") -> None:
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class Everything:
    count: int
    a_name_of_more_than_twenty_three_bytes: str = "x"
    point: Point | None = None
    tree: Tree = field(default_factory=lambda: Tree(name="root"))
    tags: set[str] = field(default_factory=set)
    by_day: dict[date, list[Path]] = field(default_factory=dict)
    kinds: typing.ClassVar[int] = 3

    def process(self, ctx: "Context") -> "dict[str, Point]":
        raise NotImplementedError


COMMANDS = st.builds(Nothing) | st.builds(
    Everything,
    count=INTS,
    a_name_of_more_than_twenty_three_bytes=WORDS,
    point=st.none() | POINTS,
    tree=TREES,
    tags=st.sets(WORDS, max_size=2),
    by_day=st.dictionaries(st.dates(), st.lists(PATHS, max_size=2), max_size=2),
)


@given(COMMANDS, st.integers(0, 2**64 - 1) | st.none())
def test_command_comes_back_equal_through_the_protocol(value, call_id):
    cls = type(value)
    protocol = ServerProtocol(DEFAULT_LIMITS, DECODER)
    protocol.receive(frame(resolve(cls).encode_call(encode(call_id), value)))
    call = protocol.next_request()
    assert call[:2] == (call_id, cls.__name__)
    assert resolve(cls).bind(call.fields) == value


def test_fields_with_defaults_may_be_left_out():
    assert resolve(Everything).bind({"count": 1}) == Everything(count=1)


def test_command_of_many_fields():
    names = [f"field_{i}" for i in range(300)]

    def process(self, ctx) -> None:
        raise NotImplementedError

    cls = make_dataclass("Wide", [(name, int) for name in names], namespace={"process": process})
    value = cls(*range(300))
    assert bound(cls, resolve(cls).encode_call(NULL_ID, value)) == value


def test_context_may_exist_for_the_type_checker_alone():
    """`Nothing` and `Everything` name a module that is not there."""
    assert resolve(Nothing).name == "Nothing"
    assert resolve(Everything).decode_answer({"a": {"x": 1}}) == {"a": Point(1)}


def test_class_is_read_once():
    assert resolve(Nothing) is resolve(Nothing)


def test_return_annotation_of_a_wrapped_method_counts():
    def wrapper(method):
        @functools.wraps(method)
        def inner(self, ctx):
            return method(self, ctx)

        return inner

    @dataclass
    class Wrapped:
        @wrapper
        def process(self, ctx) -> Point:
            raise NotImplementedError

    assert resolve(Wrapped).decode_answer({"x": 1}) == Point(1)


def test_default_does_not_hide_a_type():
    @dataclass
    class Born:
        date: "date | None" = None

        def process(self, ctx) -> "date | None":
            raise NotImplementedError

    value = Born(date(2024, 2, 29))
    assert bound(Born, resolve(Born).encode_call(NULL_ID, value)) == value
    assert resolve(Born).decode_answer("2024-02-29") == value.date


def test_inherited_fields_and_process_count():
    @dataclass
    class More(Nothing):
        extra: int = 0

    assert resolve(More).bind({"extra": 3}) == More(3)


# ---------------------------------------------------------------------------------------------
# What is no command


@dataclass(frozen=True)
class Tags:
    """Has a hash, and can't be hashed."""

    of: list[str]


def no_dataclass():
    class Plain:
        def process(self, ctx) -> None: ...

    return Plain


def no_process():
    return Point


def process_is_a_value():
    return dataclass(type("Cmd", (), {"process": 5}))


def process_without_ctx():
    @dataclass
    class Cmd:
        def process(self) -> None: ...

    return Cmd


def process_with_two_contexts():
    @dataclass
    class Cmd:
        def process(self, ctx, other) -> None: ...

    return Cmd


def process_with_a_keyword():
    @dataclass
    class Cmd:
        def process(self, *, ctx) -> None: ...

    return Cmd


def process_without_a_signature():
    return dataclass(type("Cmd", (), {"process": dict.pop}))


def no_return_annotation():
    @dataclass
    class Cmd:
        def process(self, ctx): ...

    return Cmd


def process_is_a_partial():
    @dataclass
    class Cmd:
        process = functools.partialmethod(lambda self, ctx: None)

    return Cmd


def process_is_an_asynchronous_generator():
    @dataclass
    class Cmd:
        async def process(self, ctx) -> int:
            yield 1

    return Cmd


def process_is_a_generator():
    @dataclass
    class Cmd:
        def process(self, ctx) -> int:
            yield 1

    return Cmd


NO_COMMANDS = [
    (lambda: 5, "a command must be a dataclass, and 5 is none"),
    (lambda: type(None), "a command must be a dataclass, and <class 'NoneType'> is none"),
    (no_dataclass, "a command must be a dataclass, and "),
    (no_process, "Point has no method `process(self, ctx)`"),
    (process_is_a_value, "Cmd has no method `process(self, ctx)`"),
    (process_without_ctx, "Cmd.process must take one argument, the context"),
    (process_with_two_contexts, "Cmd.process must take one argument, the context"),
    (process_with_a_keyword, "Cmd.process must take one argument, the context"),
    (process_without_a_signature, "Cmd.process must take one argument, the context"),
    (no_return_annotation, "Cmd.process has no return annotation: it is the schema of the answer"),
    (process_is_a_partial, "Cmd.process has no return annotation: it is the schema of the answer"),
    (
        process_is_an_asynchronous_generator,
        "Cmd.process: an asynchronous generator is annotated `AsyncIterator[…]` or "
        "`AsyncGenerator[…]`",
    ),
    (
        process_is_a_generator,
        "Cmd.process: a generator is annotated `Generator[…]` or `Iterator[…]`",
    ),
]


@pytest.mark.parametrize(("make", "sentence"), NO_COMMANDS)
def test_what_is_no_command_is_refused(make, sentence):
    with pytest.raises(TypeError) as caught:
        resolve(make())
    assert sentence in str(caught.value).replace(f"{make.__name__}.<locals>.", "")


# ---------------------------------------------------------------------------------------------
# The commands of a server


@dataclass
class Add:
    a: int
    b: int

    def process(self, ctx) -> int:
        raise NotImplementedError


@dataclass
class Push:
    x: int

    def process(self, ctx) -> None:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("commands", "names"),
    [
        (Add, ["Add"]),
        (Add | Push, ["Add", "Push"]),
        (Union[Push, Add], ["Push", "Add"]),  # noqa: UP007 - the old form is a form
        ([Add, Push], ["Add", "Push"]),
        (iter({Push: 0}), ["Push"]),
    ],
)
def test_commands_may_be_a_class_a_union_or_any_iterable(commands, names):
    known = CommandSet(commands)
    assert [command_type.name for command_type in known] == names
    assert known[names[0]].cls.__name__ == names[0]


@pytest.mark.parametrize(
    ("commands", "sentence"),
    [
        ([], "a server needs at least one command"),
        ([Add, Add], "two commands are named Add"),
        (Add | None, "a command must be a dataclass, and <class 'NoneType'> is none"),
        ([5], "a command must be a class, and 5 is none"),
        ([Add(1, 2)], "a command must be a class, and Add(a=1, b=2) is none"),
        (5, "commands are a class, a union of classes or an iterable of them, not 5"),
        ("/a", "commands are a class, a union of classes or an iterable of them, not '/a'"),
        (None, "commands are a class, a union of classes or an iterable of them, not None"),
    ],
)
def test_wrong_commands_are_refused(commands, sentence):
    with pytest.raises(TypeError) as caught:
        CommandSet(commands)
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("add", "the server has no command `add`; did you mean `Add`?"),
        ("Psuh", "the server has no command `Psuh`; did you mean `Push`?"),
        ("Frobnicate", "the server has no command `Frobnicate`"),
        ("", "the server has no command ``"),
        ("x" * 100_000, f"the server has no command `{'x' * 80}`"),
    ],
)
def test_unknown_command_is_refused_with_the_nearest_name(name, sentence):
    with pytest.raises(WireError) as caught:
        CommandSet(Add | Push)[name]
    assert fault(caught.value)[:2] == ("unknown-command", sentence)


# ---------------------------------------------------------------------------------------------
# Wrong input


@dataclass
class Careful:
    x: int

    def __post_init__(self):
        if self.x == 0:
            raise ValueError("x must not be 0")
        if self.x == 1:
            raise TypeError("x must not be 1")
        if self.x == 2:
            raise KeyError("x must not be 2")

    def process(self, ctx) -> None:
        raise NotImplementedError


WRONG_FIELDS = [
    # The wrong type
    (int, "3", "Cmd.x must be an int, not '3'"),
    (int, 3.5, "Cmd.x must be an int, not 3.5"),
    (int, True, "Cmd.x must be an int, not True"),
    (int, None, "Cmd.x must be an int, not None"),
    (int, b"3", "Cmd.x must be an int, not b'3'"),
    (bool, 1, "Cmd.x must be a bool, not 1"),
    (float, "1.5", "Cmd.x must be a float, not '1.5'"),
    (str, 3, "Cmd.x must be a str, not 3"),
    (str, b"raw", "Cmd.x must be a str, not b'raw'"),
    (bytes, "raw", "Cmd.x must be bytes, not 'raw'"),
    (None, 0, "Cmd.x must be None, not 0"),
    (list[int], {}, "Cmd.x must be a list, not a map"),
    (list[int], [1, "2"], "Cmd.x[1] must be an int, not '2'"),
    (set[str], ["a", 2], "Cmd.x[1] must be a str, not 2"),
    (tuple[int, int], [1], "Cmd.x must be a list of 2, not of 1"),
    (tuple[int, int], [1, 2, 3], "Cmd.x must be a list of 2, not of 3"),
    (dict[str, int], [], "Cmd.x must be a map, not a list"),
    (dict[str, int], {"a": "b"}, "Cmd.x['a'] must be an int, not 'b'"),
    (dict[int, int], {"a": 1}, "Cmd.x has the key 'a', which must be an int"),
    (Point, [1, 2], "Cmd.x must be a map of the fields of Point, not a list"),
    (Point, {"x": "1"}, "Cmd.x.x must be an int, not '1'"),
    (list[Point], [{"x": 1}, 5], "Cmd.x[1] must be a map of the fields of Point, not 5"),
    (tuple[int, Point], [1, 5], "Cmd.x[1] must be a map of the fields of Point, not 5"),
    (tuple[Point, Point], [{"x": 1}], "Cmd.x must be a list of 2, not of 1"),
    (tuple[int, Point], {}, "Cmd.x must be a list of 2, not a map"),
    (dict[str, Point], 5, "Cmd.x must be a map, not 5"),
    (Tree, {"name": "a", "more": 5}, "Cmd.x.more must be a list, not 5"),
    (Pair, ["k"], "Cmd.x must be a list of 2 to 3, not of 1"),
    (int | None, "3", "Cmd.x must be an int or None, not '3'"),
    (Colour, "green", "Cmd.x must be one of 'red', 'blue', not 'green'"),
    (Level, 3, "Cmd.x must be one of 1, 2, not 3"),
    (Literal["a"], "b", "Cmd.x must be 'a', not 'b'"),
    (datetime, "today",
        "Cmd.x must be a datetime as in RFC 3339, like "
        "2026-01-02T03:04:05Z, not 'today'"),
    (datetime, 5, "Cmd.x must be a datetime as in RFC 3339, like 2026-01-02T03:04:05Z, not 5"),
    (date, "2024-02-30", "Cmd.x must be a date like 2026-01-02, not '2024-02-30'"),
    (timedelta, 5, "Cmd.x must be a duration of ISO 8601, like P1DT1.5S, not 5"),
    (Decimal, "a", "Cmd.x must be a decimal number, not 'a'"),
    (UUID, "5", "Cmd.x must be a UUID, not '5'"),
    (UUID, b"0" * 15, "Cmd.x must be a UUID, not b'000000000000000'"),
    (Path, 5, "Cmd.x must be a path, not 5"),
    (Path, None, "Cmd.x must be a path, not None"),
    (Path, ["a"], "Cmd.x must be a path, not a list"),
    (list[Path], ["a", {}], "Cmd.x[1] must be a path, not a map"),
    (set, [[1]], "Cmd.x[0] is a list, which can't stand in a set"),
    (set, [1, {}], "Cmd.x[1] is a map, which can't stand in a set"),
    # Missing
    (Point, {}, "Cmd.x.x is missing" + other("Point")),
    (Options, {}, "Cmd.x.colour is missing" + other("Options")),
    # Unknown
    (Point, {"x": 1, "z": 2}, "Cmd.x: Point has no field `z`" + other("Point")),
    (Point, {"x": 1, "yy": 2}, "Cmd.x: Point has no field `yy`; did you mean `y`?"),
    (Point | None, {"x": 1, "b": 0, "a": 0}, "Cmd.x: Point has no field `b`" + other("Point")),
    (list[Point], [{"x": 1}, {"w": 1}], "Cmd.x[1]: Point has no field `w`" + other("Point")),
    (tuple[Point, ...], [{"w": 1}], "Cmd.x[0]: Point has no field `w`" + other("Point")),
    (tuple[int, Point], [1, {"w": 1}], "Cmd.x[1]: Point has no field `w`" + other("Point")),
    (dict[str, Point], {"k": {"w": 1}}, "Cmd.x['k']: Point has no field `w`" + other("Point")),
    (dict[str, list[Point]], {"k": [{"w": 1}]},
        "Cmd.x['k'][0]: Point has no field "
        "`w`" + other("Point")),
    (Pair, ["k", {"x": 1, "w": 1}], "Cmd.x.value: Point has no field `w`" + other("Point")),
    (Point | list[Point] | int, [{"w": 1}], "Cmd.x[0]: Point has no field `w`" + other("Point")),
    (Annotated[Point, "a note"], {"w": 1}, "Cmd.x: Point has no field `w`" + other("Point")),
    (
        Profile,
        {"name": "a", "nik": "b"},
        "Cmd.x: Profile has no field `nik`; did you mean `nick`?",
    ),
    (Options, {"colour": "red", "point": {"w": 1}},
        "Cmd.x.point: Point has no field "
        "`w`" + other("Point")),
    (Folder, {"folders": [{"w": 1}]},
        "Cmd.x.folders[0]: Folder has no field "
        "`w`" + other("Folder")),
    (
        Tree,
        {"name": "a", "left": {"name": "b", "more": [{"name": "c", "rihgt": 1}]}},
        "Cmd.x.left.more[0]: Tree has no field `rihgt`" + other("Tree"),
    ),
    # Out of range
    (Percent, 101, "Cmd.x must be at most 100, not 101"),
    (Percent, -1, "Cmd.x must be at least 0, not -1"),
    (list[Percent], [5, 500], "Cmd.x[1] must be at most 100, not 500"),
    (Word, "", "Cmd.x must have at least 1 character, not 0"),
    (Word, "x" * 9, "Cmd.x must have at most 8 characters, not 9"),
    (Word, "A", "Cmd.x must match the pattern '^[a-z]*$', not 'A'"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("annotation", "plain", "sentence"), WRONG_FIELDS, ids=range(len(WRONG_FIELDS))
)
def test_wrong_field_is_refused_with_its_place(annotation, plain, sentence):
    with pytest.raises(WireError) as caught:
        resolve(command(annotation)).bind({"x": plain})
    assert fault(caught.value)[:2] == ("invalid-arguments", sentence)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({}, "Add.a is missing" + other("Add")),
        ({"a": 1}, "Add.b is missing" + other("Add")),
        (
            {"a": 1, "b": 2, "c": 3},
            "Add has no field `c`" + other("Add"),
        ),
        (
            {"a": 1, "B": 2},
            "Add has no field `B`" + other("Add"),
        ),
        ({"a": 1, "bb": 2}, "Add has no field `bb`; did you mean `b`?"),
        (
            {"z": 1, "y": 2, "x": 3},
            "Add has no field `z`" + other("Add"),
        ),
        (
            {"a": 1, "x" * 1000: 2},
            f"Add has no field `{'x' * 80}`" + other("Add"),
        ),
        ({"a": "1", "b": 2}, "Add.a must be an int, not '1'"),
    ],
)
def test_wrong_fields_are_refused(fields, sentence):
    with pytest.raises(WireError) as caught:
        resolve(Add).bind(fields)
    assert fault(caught.value)[:2] == ("invalid-arguments", sentence)


@pytest.mark.parametrize(("value", "words"), [(0, "x must not be 0"), (1, "x must not be 1")])
def test_post_init_may_refuse(value, words):
    with pytest.raises(WireError) as caught:
        resolve(Careful).bind({"x": value})
    assert fault(caught.value)[:2] == ("invalid-arguments", words)


def test_post_init_that_fails_fails():
    with pytest.raises(KeyError, match="x must not be 2"):
        resolve(Careful).bind({"x": 2})


@given(
    st.dictionaries(st.sampled_from(["count", "point", "tree", "tags", "by_day", "w"]), PLAIN)
    | st.dictionaries(WORDS, PLAIN, max_size=3)
)
def test_any_fields_make_a_command_or_a_refusal(fields):
    try:
        made = resolve(Everything).bind(fields)
    except WireError as error:
        refused = fault(error)
        assert refused.code == "invalid-arguments"
        assert not refused.fatal
    else:
        assert bound(Everything, resolve(Everything).encode_call(NULL_ID, made)) == made


# ---------------------------------------------------------------------------------------------
# What the client can't send


UNSENDABLE = [
    (int, 2**64, ValueError, "an integer outside -2^63 to 2^64-1 - at `$`"),
    (int, object(), TypeError, "Cmd.x must be an int, not a value of type `object`"),
    (str, "\ud800", ValueError, "text with a lone surrogate - at `$`"),
    (list, ["\ud800"], ValueError, "text with a lone surrogate - at `$[0]`"),
    (dict, {"\ud800": 1}, ValueError, "a map's key has a lone surrogate - at `$`"),
    (Path, Path("\ud800"), ValueError, "text with a lone surrogate - at `$`"),
    (bytes, bytearray(b"a"), TypeError,
        "Cmd.x must be bytes, not a value of type `bytearray`; "
        "give `bytes(…)` of it"),
    (dict, {b"a": 1}, TypeError, "Cmd.x has a key that must be a str, not b'a'"),
    (list, SELF, ValueError, "Cmd.x is nested too deeply, or holds itself"),
    (Tree, functools.reduce(lambda tree, _: Tree(name="", left=tree), range(70), Tree(name="")),
     ValueError, "more than 64 levels - at `" + ("$" + ".left" * 9)[:40] + "…`"),
    (Point, Point(1j), TypeError, "Cmd.x.x must be an int, not a value of type `complex`"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("annotation", "value", "kind", "words"), UNSENDABLE, ids=range(len(UNSENDABLE))
)
def test_command_that_can_not_be_sent_names_class_and_field(annotation, value, kind, words):
    cls = command(annotation)
    with pytest.raises(kind) as caught:
        resolve(cls).encode_call(NULL_ID, cls(value))
    assert type(caught.value) is kind
    assert str(caught.value) in (f"Cmd.x: {words}", words)


# ---------------------------------------------------------------------------------------------
# What looks like no command, and is one


def test_command_may_inherit_from_the_protocol_class():
    @dataclass
    class Cmd(Command[None, int]):
        x: int

        def process(self, ctx: None, /) -> int:
            return self.x

    command_type = resolve(Cmd)
    payload = command_type.encode_call(NULL_ID, Cmd(1))
    assert bound(Cmd, payload) == Cmd(1)
    # As fast as any other.
    assert CommandSet(Cmd).read(payload, 2, None)[-1] == Cmd(1)


def test_command_may_inherit_from_a_protocol_of_the_program():
    class Named(typing.Protocol[T]):
        def name(self) -> T: ...

    @dataclass
    class Cmd(Named[str]):
        x: int

        def process(self, ctx) -> int: ...

    with pytest.raises(TypeError, match=r"^\S+Cmd: msgspec can't read "):
        resolve(Cmd)


def test_class_in_place_of_a_command():
    with pytest.raises(TypeError, match=r"^a class is no command, make one of it: "):
        resolve(type(Add))


# ---------------------------------------------------------------------------------------------
# Messages


class Theme(enum.Enum):
    DAY = "day"
    NIGHT = "night"


@dataclass
class SetGravity:
    gravity: Annotated[float, Meta(ge=0, le=5000.0)]

    def process(self, ctx) -> None: ...


@dataclass
class Look:
    theme: Theme
    marks: "list[Mark]" = field(default_factory=list)

    def process(self, ctx) -> None: ...


@dataclass
class Mark:
    at: tuple[int, int]
    colour: Literal["red", "blue"] | None = None


@pytest.mark.parametrize(
    ("cls", "fields", "sentence"),
    [
        (SetGravity, {"gravity": 9999.0}, "SetGravity.gravity must be at most 5000.0, not 9999.0"),
        (SetGravity, {"gravity": "9"}, "SetGravity.gravity must be a float, not '9'"),
        (Look, {"theme": "pink"}, "Look.theme must be one of 'day', 'night', not 'pink'"),
        (
            Look,
            {"theme": "day", "marks": [{"at": [1, 2]}, {"at": [1, 2], "colour": "pink"}]},
            "Look.marks[1].colour must be one of 'red', 'blue' or None, not 'pink'",
        ),
        (
            Look,
            {"theme": "day", "marks": [{"at": [1, "2"]}]},
            "Look.marks[0].at[1] must be an int, not '2'",
        ),
        (Look, {"theme": "day", "marks": [{}]}, "Look.marks[0].at is missing" + other("Mark")),
        (
            Look,
            {"theme": "day", "marks": [{"at": [1, 2], "coluor": "red"}]},
            "Look.marks[0]: Mark has no field `coluor`; did you mean `colour`?",
        ),
    ],
)
def test_message_names_command_field_and_what_is_valid(cls, fields, sentence):
    with pytest.raises(WireError) as caught:
        resolve(cls).bind(fields)
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("annotation", "value", "hint"),
    [
        (float, numpy.float64(1.5), "; give `.item()` of it"),
        (float, numpy.float32(1.5), "; give `.item()` of it"),
        (int, numpy.int64(1), "; give `.item()` of it"),
        (bool, numpy.bool_(True), "; give `.item()` of it"),
        (list[float], [numpy.float64(1.5)], "; give `.item()` of it"),
        (list[float], numpy.array([1.5]), "; give `.tolist()` of it"),
        (list, [numpy.float64(1.5)], "; give `.item()` of it"),
        (int, Level.LOW, "; give its `.value`"),
        (str, Mode.FAST, "; give its `.value`"),
        (str, Text("a"), ", which would arrive as a plain str; give that"),
        (
            dict[str, int],
            collections.Counter("a"),
            ", which would arrive as a plain dict; give that",
        ),
        (Found, Unlike(Point(1)), ", which would arrive as a plain Found; give that"),
        (date, datetime(2024, 1, 1), ", which would arrive as a plain date; give that"),
        (bytes, bytearray(b"a"), "; give `bytes(…)` of it"),
        (list[int], (1, 2), "; give a list"),
    ],
    ids=repr,
)
def test_refusal_says_what_to_give(annotation, value, hint):
    cls = command(annotation, annotation)
    with pytest.raises(TypeError, match=re.escape(hint) + "$"):
        resolve(cls).encode_call(NULL_ID, cls(value))
    with pytest.raises(TypeError, match=re.escape(hint) + "$"):
        resolve(cls).encode_answer(value)


def test_many_valid_values_are_shown_in_short():
    many = enum.Enum("Many", {f"M{i}": f"member {i}" for i in range(100)})
    with pytest.raises(
        WireError, match=r"^Cmd\.x must be one of 'member 0', .*, …, not 'a'$"
    ) as it:
        resolve(command(many)).bind({"x": "a"})
    assert len(str(it.value)) < 260


def test_what_a_newer_server_adds_is_told_where_it_does_not_fit():
    with pytest.raises(msgspec.ValidationError) as caught:
        resolve(command(int, Found | Lost)).decode_answer(["Gone", {}])
    assert str(caught.value) == "Cmd's answer is a `Gone`, and this side knows Found, Lost"
    with pytest.raises(msgspec.ValidationError, match=r"^Cmd's answer\.why must be a str, not 5$"):
        resolve(command(int, Found | Lost)).decode_answer(["Lost", {"why": 5, "when": 1}])
    with pytest.raises(msgspec.ValidationError, match=r"^Cmd's answer\.x is missing"):
        resolve(command(int, Point)).decode_answer({"z": 5})


# ---------------------------------------------------------------------------------------------
# Promises of ours rest on nothing of theirs


def test_msgspec_that_is_not_strict_makes_no_command(monkeypatch):
    schema._prove_msgspec.cache_clear()
    strict = msgspec.convert
    monkeypatch.setattr(msgspec, "convert", lambda *a, **k: strict(*a, **k, strict=False))
    with pytest.raises(
        UnsafeDependency, match=rf"^msgspec {re.escape(msgspec.__version__)} takes "
    ):
        schema._prove_msgspec()
    monkeypatch.undo()
    schema._prove_msgspec()


@dataclass
class Trimmed:
    """Its check runs at both ends, on the same values."""

    name: str
    made: typing.ClassVar[list[str]] = []

    def __post_init__(self):
        if not self.name:
            raise ValueError("a name must not be empty")
        self.made.append(self.name)


def test_post_init_of_a_nested_class_refuses_in_its_own_words():
    with pytest.raises(WireError) as caught:
        resolve(command(list[Trimmed])).bind({"x": [{"name": "a"}, {"name": ""}]})
    assert str(caught.value) == "Cmd.x[1]: a name must not be empty"


def test_post_init_runs_where_a_value_is_made_and_where_it_arrives():
    command_type = resolve(command(int, list[Trimmed]))
    answer = [Trimmed("a")]
    Trimmed.made.clear()
    plain = DECODER.decode(command_type.encode_answer(answer))
    assert Trimmed.made == [], "not as it is sent"
    assert command_type.decode_answer(plain) == answer
    assert Trimmed.made == ["a"]


def test_member_of_a_set_that_can_not_be_hashed_is_refused():
    """Which no annotation says."""
    with pytest.raises(WireError) as caught:
        resolve(command(set[Tags])).bind({"x": [{"of": ["a"]}]})
    assert fault(caught.value)[0] == "invalid-arguments"
    with pytest.raises(msgspec.ValidationError):
        resolve(command(int, set[Tags])).decode_answer([{"of": ["a"]}])


class Existing(PurePosixPath):
    """A path of the program's own, which refuses one."""

    def __new__(cls, *parts):
        if parts == ("nowhere",):
            raise NotImplementedError("there is no such path")
        return super().__new__(cls, *parts)


def test_path_may_refuse():
    assert there_and_back(Existing, Existing("a")) == Existing("a")
    with pytest.raises(WireError, match=r"^Cmd\.x must be a path, not 'nowhere'$"):
        resolve(command(Existing)).bind({"x": "nowhere"})


def test_client_says_it_in_our_words_too():
    for annotation, plain, sentence in [
        (Percent, 101, "Cmd's answer must be at most 100, not 101"),
        (list[Percent], [1, 101], "Cmd's answer[1] must be at most 100, not 101"),
        (Theme, "pink", "Cmd's answer must be one of 'day', 'night', not 'pink'"),
    ]:
        with pytest.raises(msgspec.ValidationError) as caught:
            resolve(command(int, annotation)).decode_answer(plain)
        assert str(caught.value) == sentence


def test_constraints_stand_inside_one_another():
    some = resolve(command(Annotated[list[Percent], Meta(min_length=1)]))
    assert some.bind({"x": [1]}).x == [1]
    for plain, sentence in [
        ([], "Cmd.x must have at least 1 item, not 0"),
        ([101], "Cmd.x[0] must be at most 100, not 101"),
        (["1"], "Cmd.x[0] must be an int, not '1'"),
    ]:
        with pytest.raises(WireError) as caught:
            some.bind({"x": plain})
        assert str(caught.value) == sentence
