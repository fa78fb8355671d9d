"""Command classes: what they may hold, that it comes back equal, and how wrong input is refused."""

import asyncio
import collections
import collections.abc
import concurrent.futures
import enum
import fractions
import functools
import ipaddress
import numbers
import re
import sys
import types
import typing
from dataclasses import InitVar, dataclass, field, make_dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from pathlib import Path, PurePosixPath, WindowsPath
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    NotRequired,
    Optional,
    Required,
    TypedDict,
    TypeVar,
    Union,
)
from uuid import UUID

import cbor2
import msgspec
import numpy
import pydantic
import pytest
import typing_extensions
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Meta
from twisted.internet import defer
from wire import PLAIN, command, fault

from ipcpoll._schema import commands as schema
from ipcpoll._schema.answers import Kind, Subscription, Turn, is_deferred
from ipcpoll._schema.commands import Command, CommandSet, resolve
from ipcpoll._wire.codec import Decoder, encode
from ipcpoll._wire.framing import frame
from ipcpoll._wire.protocol import ServerProtocol
from ipcpoll.errors import UnsafeDependency, WireError
from ipcpoll.limits import DEFAULT_LIMITS

if typing.TYPE_CHECKING:
    from nowhere import Context

DECODER = Decoder()
NULL_ID = encode(None)


def other(name):
    """Return what is said where the two ends do not agree on a class."""
    return f"; the two sides may have different versions of {name}"


# How some of the sentences end.
KEYS = "; keys are str, int, float, an Enum, a Literal, a date or time, Decimal or UUID"
BARE = "; without an annotation only None, bool, int, float, str, bytes, list and dict are carried"
SAY = "; use the type that it is; a bare `list` or `dict` holds any plain value"
ONLY_WHOLE = "; only a whole answer may be one of several dataclasses"
APART = " and can't be told apart; use one of them, or two fields"


# ---------------------------------------------------------------------------------------------
# Types of fields


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Mode(enum.StrEnum):
    FAST = "fast"


@dataclass
class Point:
    x: int
    y: int = 0


@dataclass(frozen=True, slots=True)
class Size:
    width: float
    unit: Literal["px", "em"] = "px"


@dataclass(kw_only=True)
class Tree:
    """Recursive."""

    name: str
    left: "Tree | None" = None
    more: "list[Tree]" = field(default_factory=list)


class Pair(NamedTuple):
    key: str
    value: Point
    weight: float = 1.0


class Options(TypedDict, total=False):
    colour: Required[Colour]
    point: Point
    path: Path


class Profile(TypedDict):
    name: str
    nick: NotRequired[str]


class Folder(TypedDict):
    """Recursive."""

    folders: "list[Folder]"


UserId = NewType("UserId", int)
Percent = Annotated[int, Meta(ge=0, le=100, description="of the whole")]
Word = Annotated[str, Meta(min_length=1, max_length=8, pattern="^[a-z]*$")]
T = TypeVar("T")


def bound(cls, payload):
    """Return the command that the payload of a call makes on the server."""
    message = DECODER.decode(payload)
    assert message[1] == cls.__name__
    return resolve(cls).bind(message[2])


def there_and_back(annotation, value):
    """Return a value after its way to the server as a field and back as the answer."""
    cls = command(annotation, annotation)
    command_type = resolve(cls)
    arrived = bound(cls, command_type.encode_call(NULL_ID, cls(value))).x
    item = command_type.encode_answer(arrived)
    return command_type.decode_answer(DECODER.decode(item))


INTS = st.integers(-(2**63), 2**64 - 1)
FLOATS = st.floats(allow_nan=False)
WORDS = st.text(max_size=8)
ZONES = st.none() | st.integers(-14 * 60, 14 * 60).map(lambda m: timezone(timedelta(minutes=m)))
DATETIMES = st.datetimes(timezones=ZONES).filter(lambda moment: moment.tzinfo or not moment.fold)
TIMES = st.times(timezones=ZONES).filter(lambda moment: moment.tzinfo or not moment.fold)
DECIMALS = st.decimals(allow_nan=False)
PATHS = st.lists(st.sampled_from(["a", "..", "b c", "é"])).map(lambda parts: Path("/", *parts))
POINTS = st.builds(Point, INTS, INTS)
SIZES = st.builds(Size, FLOATS, st.sampled_from(["px", "em"]))
TREES = st.recursive(
    st.builds(Tree, name=WORDS),
    lambda inner: st.builds(
        Tree, name=WORDS, left=st.none() | inner, more=st.lists(inner, max_size=2)
    ),
    max_leaves=4,
)

CARRIED = {
    "bool": (bool, st.booleans()),
    "int": (int, INTS),
    "float": (float, FLOATS),
    "str": (str, st.text()),
    "bytes": (bytes, st.binary()),
    "None": (None, st.none()),
    "list": (list, st.lists(PLAIN, max_size=4)),
    "list of int": (list[int], st.lists(INTS)),
    "list of list": (list[list[float]], st.lists(st.lists(FLOATS, max_size=3), max_size=3)),
    "tuple": (tuple, st.tuples(st.none(), WORDS)),
    "tuple of two": (tuple[int, Point], st.tuples(INTS, POINTS)),
    "tuple of many": (tuple[str, ...], st.lists(WORDS).map(tuple)),
    "tuple of many points": (tuple[Point, ...], st.lists(POINTS, max_size=3).map(tuple)),
    "tuple of none": (tuple[()], st.just(())),
    "set": (set, st.sets(INTS)),
    "set of str": (set[str], st.sets(WORDS)),
    "set of frozen dataclasses": (set[Size], st.sets(SIZES, max_size=3)),
    "frozenset of frozensets": (
        frozenset[frozenset[int]],
        st.frozensets(st.frozensets(INTS, max_size=3), max_size=3),
    ),
    "dict": (dict, st.dictionaries(WORDS, PLAIN, max_size=3)),
    "dict of points": (dict[str, Point], st.dictionaries(WORDS, POINTS, max_size=3)),
    "dict by int": (dict[int, str], st.dictionaries(INTS, WORDS, max_size=3)),
    "dict by float": (dict[float, str], st.dictionaries(FLOATS, WORDS, max_size=3)),
    "dict by date": (dict[date, int], st.dictionaries(st.dates(), INTS, max_size=3)),
    "dict by UUID": (dict[UUID, int], st.dictionaries(st.uuids(), INTS, max_size=3)),
    "dict by Decimal": (dict[Decimal, int], st.dictionaries(DECIMALS, INTS, max_size=3)),
    "dict by Enum": (
        dict[Colour, list[int]],
        st.dictionaries(st.sampled_from(Colour), st.lists(INTS, max_size=2)),
    ),
    "dict by IntEnum": (dict[Level, int], st.dictionaries(st.sampled_from(Level), INTS)),
    "dict by Literal": (dict[Literal["a", "b"], int], st.just({"a": 1, "b": 2})),
    "dict by NewType": (dict[UserId, int], st.dictionaries(INTS, INTS, max_size=3)),
    "dataclass": (Point, POINTS),
    "frozen dataclass with slots": (Size, SIZES),
    "recursive dataclass": (Tree, TREES),
    "NamedTuple": (Pair, st.builds(Pair, WORDS, POINTS, FLOATS)),
    "TypedDict": (
        Options,
        st.fixed_dictionaries(
            {"colour": st.sampled_from(Colour)}, optional={"point": POINTS, "path": PATHS}
        ),
    ),
    "TypedDict with NotRequired": (
        Profile,
        st.fixed_dictionaries({"name": WORDS}, optional={"nick": WORDS}),
    ),
    "recursive TypedDict": (Folder, st.just({"folders": [{"folders": []}, {"folders": []}]})),
    "Enum": (Colour, st.sampled_from(Colour)),
    "IntEnum": (Level, st.sampled_from(Level)),
    "StrEnum": (Mode, st.sampled_from(Mode)),
    "Literal": (Literal["a", 1, None], st.sampled_from(["a", 1, None])),
    "Literal of booleans": (Literal[True], st.just(True)),
    "datetime": (datetime, DATETIMES),
    "date": (date, st.dates()),
    "time": (time, TIMES),
    "timedelta": (timedelta, st.timedeltas(timedelta(days=-10000), timedelta(days=10000))),
    "Decimal": (Decimal, DECIMALS),
    "UUID": (UUID, st.uuids()),
    "Path": (Path, PATHS),
    "PurePosixPath": (PurePosixPath, PATHS.map(PurePosixPath)),
    "list of Path": (list[Path], st.lists(PATHS, max_size=3)),
    "Optional": (Optional[int], st.none() | INTS),  # noqa: UP045 - the old form is a form
    "Union": (Union[int, str, None], st.none() | INTS | WORDS),  # noqa: UP007 - the same
    "union": (int | str | bool | None, st.none() | INTS | WORDS | st.booleans()),
    "int or float": (int | float, INTS | FLOATS),
    "optional dataclass": (Point | None, st.none() | POINTS),
    "optional Path": (Path | None, st.none() | PATHS),
    "dataclass or list of them": (Point | list[Point] | int, INTS | POINTS | st.lists(POINTS)),
    "Annotated": (Percent, st.integers(0, 100)),
    "Annotated text": (Word, st.just("word")),
    "Annotated for others": (Annotated[int, "a note"], INTS),
    "list of Annotated": (list[Percent], st.lists(st.integers(0, 100))),
    "NewType": (UserId, INTS),
    "Annotated NewType": (Annotated[UserId, Meta(ge=1)], st.integers(1, 9)),
    "old names": (
        typing.Dict[str, typing.List[int]],  # noqa: UP006 - old forms are forms
        st.dictionaries(WORDS, st.lists(INTS, max_size=2), max_size=2),
    ),
}


@pytest.mark.parametrize(("annotation", "values"), CARRIED.values(), ids=CARRIED)
def test_field_and_answer_come_back_equal(annotation, values):
    @settings(max_examples=30)
    @given(values)
    def come_back(value):
        again = there_and_back(annotation, value)
        assert again == value
        assert type(again) is type(value)

    come_back()


PLAIN_FORMS = [
    (Colour.RED, Colour, "red"),
    (Level.HIGH, Level, 2),
    (Path("/a/b"), Path, "/a/b"),
    (UUID(int=5), UUID, "00000000-0000-0000-0000-000000000005"),
    (Decimal("1.50"), Decimal, "1.50"),
    (datetime(2024, 2, 29, 12, 0, tzinfo=UTC), datetime, "2024-02-29T12:00:00Z"),
    (date(2024, 2, 29), date, "2024-02-29"),
    (time(1, 2, 3), time, "01:02:03"),
    (timedelta(days=1, seconds=2), timedelta, "P1DT2S"),
    ((1, Point(2)), tuple[int, Point], [1, {"x": 2, "y": 0}]),
    ({3}, set[int], [3]),
    ({1: "a"}, dict[int, str], {"1": "a"}),
    (Pair("k", Point(1, 2)), Pair, ["k", {"x": 1, "y": 2}, 1.0]),
    (b"raw", bytes, b"raw"),
    ([b"raw"], list[bytes], [b"raw"]),
    (Tree(name="a"), Tree, {"name": "a", "left": None, "more": []}),
]


@pytest.mark.parametrize(("value", "annotation", "plain"), PLAIN_FORMS)
def test_form_on_the_wire(value, annotation, plain):
    cls = command(annotation, annotation)
    payload = resolve(cls).encode_call(encode(7), cls(value))
    assert DECODER.decode(payload) == [7, "Cmd", {"x": plain}]
    assert DECODER.decode(resolve(cls).encode_answer(value)) == plain


@pytest.mark.skipif(sys.version_info < (3, 12), reason="`type X = …` is new in 3.12")
def test_named_types_are_carried_unless_they_hold_themselves():
    names = {}
    exec("type Ints = list[int]\ntype Nest = list[Nest] | int", names)
    assert there_and_back(names["Ints"], [1, 2]) == [1, 2]
    with pytest.raises(TypeError, match=r"^Cmd.x: .*Nest.* holds itself; use a"):
        resolve(command(names["Nest"]))


class TypeAliasType:
    """What `type X = …` makes in Python 3.12, which reads it when it is asked for the value."""

    def __init__(self, name, value):
        self.name, self.value = name, value

    def __repr__(self):
        return self.name

    def __getitem__(self, args):
        return types.GenericAlias(self, args)

    @property
    def __value__(self):
        return eval(self.value, ALIASES)


ALIASES = {
    name: TypeAliasType(name, value)
    for name, value in [
        ("Itself", "Itself"),
        ("One", "Two"),
        ("Two", "One"),
        ("Nowhere", "Nobody"),
        ("Many", "list"),
    ]
} | {"Iterator": collections.abc.Iterator}
NEW_ALIASES = """
type Itself = Itself
type One = Two
type Two = One
type Nowhere = Nobody
type Many[T] = list[T]
"""
LEADS_NOWHERE = [
    ("Itself", r"`Itself` holds itself; use a dataclass, or a bare"),
    ("One", r"`One` holds itself; use a dataclass, or a bare"),
    ("list[One]", r"`One` holds itself; use a dataclass, or a bare"),
    ("Nowhere", r"`Nowhere` can't be resolved: name 'Nobody' is not defined"),
    ("list[Nowhere]", r"`Nowhere` can't be resolved: name 'Nobody' is not defined"),
    ("Many[int]", r"`Many\[int\]` can't be carried; write what it stands for"),
]


@pytest.mark.parametrize(("alias", "sentence"), LEADS_NOWHERE)
@pytest.mark.parametrize(
    "is_new",
    [
        False,
        pytest.param(
            True, marks=pytest.mark.skipif(sys.version_info < (3, 12), reason="new in 3.12")
        ),
    ],
)
def test_named_type_that_leads_nowhere_is_refused_with_its_place(is_new, alias, sentence):
    names = dict(ALIASES)
    if is_new:
        exec(NEW_ALIASES, names)
    with pytest.raises(TypeError, match=rf"^Cmd\.x(\[\])?: {sentence}"):
        resolve(command(eval(alias, names)))
    for answer in (alias, f"Iterator[{alias}]"):
        with pytest.raises(TypeError, match=rf"^Cmd\.process(, a piece)?(\[\])?: {sentence}"):
            resolve(command(int, eval(answer, names)))


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="msgspec knows those of 3.12")
def test_named_type_of_a_backport_is_refused():
    with pytest.raises(TypeError, match=r"^Cmd.x: Type 'Ints' is not supported$"):
        resolve(command(typing_extensions.TypeAliasType("Ints", list[int])))


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
# Answers


@dataclass
class Found:
    point: Point


@dataclass
class Lost:
    why: str = "it rained"


UNIONS = {
    "two dataclasses": (Found | Lost, st.builds(Found, POINTS) | st.builds(Lost, WORDS)),
    "with a note": (Annotated[Found | Lost, "a note"], st.builds(Lost, WORDS)),
    "with notes": (
        Annotated[Annotated[Found | Lost, "a note"] | None, "another"],
        st.none() | st.builds(Lost, WORDS),
    ),
    "two and None": (Found | Lost | None, st.none() | st.builds(Found, POINTS)),
    "two and scalars": (
        Union[Found, Lost, int, str],  # noqa: UP007 - the old form is a form
        st.builds(Lost, WORDS) | INTS | WORDS,
    ),
    "with a range": (Found | Lost | Percent, st.integers(0, 100) | st.builds(Lost, WORDS)),
    "recursive": (Tree | Lost, TREES | st.builds(Lost, WORDS)),
    "alike": (Point | Lost | bytes, POINTS | st.binary()),
    "one and None": (Found | None, st.none() | st.builds(Found, POINTS)),
}


@pytest.mark.parametrize(("annotation", "values"), UNIONS.values(), ids=UNIONS)
def test_answer_that_is_a_union_comes_back_equal(annotation, values):
    command_type = resolve(command(int, annotation))

    @settings(max_examples=30)
    @given(values)
    def come_back(value):
        again = command_type.decode_answer(DECODER.decode(command_type.encode_answer(value)))
        assert again == value
        assert type(again) is type(value)

    come_back()


def test_dataclass_of_several_travels_with_its_name():
    command_type = resolve(command(int, Found | Lost | None))
    assert DECODER.decode(command_type.encode_answer(Found(Point(1)))) == [
        "Found",
        {"point": {"x": 1, "y": 0}},
    ]
    assert DECODER.decode(command_type.encode_answer(None)) is None


def test_newer_server_may_say_more():
    """Keys that this side does not know are ignored in an answer."""
    assert resolve(command(int, Point)).decode_answer({"x": 1, "z": 5}) == Point(1)
    several = resolve(command(int, Found | Lost))
    assert several.decode_answer(["Lost", {"why": "a", "when": 5}]) == Lost("a")


@dataclass
class Unlike(Found):
    """Neither `Found` nor `Lost`, though it has the fields."""


SELF = []
SELF.append(SELF)

WRONG_ANSWERS = [
    (int, "3", "Cmd's answer must be an int, not '3'"),
    (int, True, "Cmd's answer must be an int, not True"),
    (int, None, "Cmd's answer must be an int, not None"),
    (None, 3, "Cmd's answer must be None, not 3"),
    (int, 2**64, "an integer outside -2^63 to 2^64-1 - at `$`"),
    (list[int], [1, 2**64], "an integer outside -2^63 to 2^64-1 - at `$[1]`"),
    (str, "\ud800", "text with a lone surrogate - at `$`"),
    (str, b"raw", "Cmd's answer must be a str, not b'raw'"),
    (bytes, "text", "Cmd's answer must be bytes, not 'text'"),
    (
        bytes,
        bytearray(b"raw"),
        "Cmd's answer must be bytes, not a value of type `bytearray`; give `bytes(…)` of it",
    ),
    (str, memoryview(b"raw"), "Cmd's answer must be a str, not a value of type `memoryview`"),
    (
        list,
        [memoryview(b"raw")],
        "Cmd's answer[0] is a value of type `memoryview`" + BARE + "; give `bytes(…)` of it",
    ),
    (list[int], [1, "2"], "Cmd's answer[1] must be an int, not '2'"),
    (Point, Point("1"), "Cmd's answer.x must be an int, not '1'"),
    (Point, 5, "Cmd's answer must be a `Point`, not 5"),
    (Percent, 101, "Cmd's answer must be at most 100, not 101"),
    (Path, 5, "Cmd's answer must be a `Path`, not 5"),
    (dict, {1: {b"a": 1}}, "Cmd's answer has a key that must be a str, not 1"),
    (
        list,
        [object()],
        "Cmd's answer[0] is a value of type `object`" + BARE,
    ),
    (list, SELF, "Cmd's answer is nested too deeply, or holds itself"),
    (
        dict,
        {"a": 1j},
        "Cmd's answer['a'] is a value of type `complex`" + BARE,
    ),
    (Found | Lost, 5, "Cmd's answer must be `Found` or `Lost`, not 5"),
    (Found | Lost, None, "Cmd's answer must be `Found` or `Lost`, not None"),
    (Found | Lost, [1], "Cmd's answer must be `Found` or `Lost`, not a list"),
    (Found | Lost, Point(1), "Cmd's answer must be `Found` or `Lost`, not a value of type `Point`"),
    (
        Found | Lost,
        Unlike(Point(1)),
        "Cmd's answer must be `Found` or `Lost`, not a value of type `Unlike`",
    ),
    (Found | Lost, Lost(5), "Cmd's answer.why must be a str, not 5"),
    (Found | Lost | None, 5, "Cmd's answer must be `Found`, `Lost` or None, not 5"),
    (
        Found | Lost | int | str,
        5.5,
        "Cmd's answer must be `Found`, `Lost`, an int or a str, not 5.5",
    ),
]


@pytest.mark.parametrize(
    ("annotation", "value", "sentence"), WRONG_ANSWERS, ids=range(len(WRONG_ANSWERS))
)
def test_answer_that_breaks_its_promise_is_refused(annotation, value, sentence):
    with pytest.raises((TypeError, ValueError)) as caught:
        resolve(command(int, annotation)).encode_answer(value)
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("annotation", "plain"),
    [
        (int, "3"),
        (Point, {"y": 1}),
        (Found | Lost, ["Unlike", {}]),
        (Found | Lost, ["Lost", {"why": 5}]),
        (Found | Lost, ["Lost"]),
        (Found | Lost, [[], {}]),
        (Found | Lost | None, ["Gone", {}]),
        (set, [[1]]),
    ],
)
def test_wrong_answer_is_a_validation_error_for_the_client(annotation, plain):
    with pytest.raises(msgspec.ValidationError):
        resolve(command(int, annotation)).decode_answer(plain)


@given(PLAIN, st.sampled_from([int, Point, Found | Lost, Found | None, Tree, set, dict[str, Pair]]))
def test_any_plain_value_is_an_answer_or_a_validation_error(plain, annotation):
    command_type = resolve(command(int, annotation))
    try:
        value = command_type.decode_answer(plain)
    except msgspec.ValidationError:
        return
    command_type.encode_answer(value)


# ---------------------------------------------------------------------------------------------
# What can't be carried is said when the class is read


class Mixed(enum.Enum):
    A = 1
    B = "b"


class Empty(enum.Enum):
    pass


class Rights(enum.Flag):
    READ = 1
    WRITE = 2


class Struct(msgspec.Struct):
    x: int


class Chain(NamedTuple):
    next: "Chain | None"


@dataclass
class Box(Generic[T]):
    x: T


@dataclass
class IntBox(Box[int]):
    pass


@dataclass
class Hidden:
    x: int = field(default=0, init=False)


@dataclass
class Initial:
    x: InitVar[int]


@dataclass
class BareInitial:
    x: InitVar


@dataclass
class Inner:
    x: complex


@dataclass
class Ghost(Found):
    z: "Nobody"  # noqa: F821 - what is tested


class GhostDict(TypedDict):
    x: "Nobody"  # noqa: F821 - what is tested


@dataclass
class Stack(list, Generic[T]):
    x: int = 0


@dataclass
class Queue(collections.deque):  # type: ignore[type-arg]
    x: int = 0


@dataclass
class Buffer(bytearray):
    x: int = 0


@dataclass
class Users(collections.UserDict):  # type: ignore[type-arg]
    x: int = 0


@dataclass
class Birthday(date):
    x: int = 0


class Plain:
    x: int


class PairOf(NamedTuple, Generic[T]):
    first: T


@dataclass(frozen=True)
class Tags:
    """Has a hash, and can't be hashed."""

    of: list[str]


class Text(str):
    __slots__ = ()


Untyped = collections.namedtuple("Untyped", "a b")

REFUSED_FIELDS = [
    (complex, "Cmd.x: `complex` can't be carried; use `tuple[float, float]`"),
    (
        object,
        "Cmd.x: `object` can't be carried" + SAY,
    ),
    (
        Any,
        "Cmd.x: `Any` can't be carried" + SAY,
    ),
    (type, "Cmd.x: `type` can't be carried"),
    (bytearray, "Cmd.x: `bytearray` can't be carried; use `bytes`"),
    (memoryview, "Cmd.x: `memoryview` can't be carried; use `bytes`"),
    (range, "Cmd.x: `range` can't be carried; use `list[int]`, or a dataclass of its ends"),
    (Exception, "Cmd.x: `Exception` can't be carried"),
    (tzinfo, "Cmd.x: `tzinfo` can't be carried"),
    (Text, "Cmd.x: `Text` can't be carried; use str: a subclass would arrive as one"),
    (Struct, "Cmd.x: `Struct` can't be carried; use a dataclass"),
    (Plain, "Cmd.x: `Plain` can't be carried; use a dataclass"),
    (pydantic.SecretStr, "Cmd.x: `SecretStr` can't be carried"),
    (PairOf[int], "PairOf[int]` can't be carried; write a class for each type that it stands for"),
    (typing.LiteralString, "Cmd.x: `typing.LiteralString` can't be carried; use `str`"),
    (ipaddress.IPv4Address, "Cmd.x: `IPv4Address` can't be carried; use `str`"),
    (
        collections.abc.Iterator[int],
        "Cmd.x: `collections.abc.Iterator[int]` can't be carried; use `list[…]`; an answer in "
        "pieces is annotated with nothing around it",
    ),
    (Rights, "Cmd.x: `Rights` can't be carried; use an int: `flags.value`"),
    (collections.OrderedDict, "Cmd.x: `OrderedDict` can't be carried; use `dict[str, …]`"),
    (collections.deque, "Cmd.x: `deque` can't be carried; use `list[…]`"),
    (
        collections.abc.Sequence[int],
        "Cmd.x: `collections.abc.Sequence[int]` can't be "
        "carried; use `list[…]`, or `tuple[…, ...]`",
    ),
    (
        collections.abc.Mapping[str, int],
        "Cmd.x: `collections.abc.Mapping[str, int]` can't be carried; use `dict[str, …]`",
    ),
    (fractions.Fraction, "Cmd.x: `Fraction` can't be carried; use `tuple[int, int]`"),
    (numbers.Number, "Cmd.x: `Number` can't be carried; use `int | float`"),
    (
        numpy.float64,
        "Cmd.x: `float64` can't be carried; use float: a subclass would arrive as one",
    ),
    (numpy.int64, "Cmd.x: `int64` can't be carried; use bool, int, float, str or a list of them"),
    (
        numpy.ndarray,
        "Cmd.x: `ndarray` can't be carried; use bool, int, float, str or a list of them",
    ),
    (WindowsPath, "Cmd.x: `WindowsPath` can't be carried: there are no such paths on this system"),
    (
        Stack,
        "Stack: a dataclass that is a `list` as well can't be carried: only its fields would be",
    ),
    (Queue, "Queue: a dataclass that is a `deque` as well can't be carried"),
    (Buffer, "Buffer: a dataclass that is a `bytearray` as well can't be carried"),
    (Users, "Users: a dataclass that is a `UserDict` as well can't be carried"),
    (Birthday, "Birthday: a dataclass that is a `date` as well can't be carried"),
    (dict[Literal["1", 1], int], "can't be told apart as text"),
    (dict[Literal["a", None], int], "can't be told apart as text"),
    (dict[Literal["a", True], int], "can't be told apart as text"),
    (T, "Cmd.x: `~T` can't be carried; write what it stands for"),
    (5, "Cmd.x: `5` can't be carried"),
    (typing.Final[int], "Cmd.x: `typing.Final[int]` can't be carried; use the type in it"),
    (InitVar[int], "Cmd.x: an InitVar can't be carried"),
    (list[complex], "Cmd.x[]: `complex` can't be carried; use `tuple[float, float]`"),
    (tuple[int, complex], "Cmd.x[1]: `complex` can't be carried; use `tuple[float, float]`"),
    (tuple[complex, ...], "Cmd.x[]: `complex` can't be carried; use `tuple[float, float]`"),
    (
        dict[str, Any],
        "Cmd.x[]: `Any` can't be carried" + SAY,
    ),
    (
        dict[str, list[object]],
        "Cmd.x[][]: `object` can't be carried" + SAY,
    ),
    (int | complex, "Cmd.x: `complex` can't be carried; use `tuple[float, float]`"),
    (Annotated[complex, "a note"], "Cmd.x: `complex` can't be carried; use `tuple[float, float]`"),
    (
        dict[bytes, int],
        "Cmd.x: `bytes` can't be the key of a map" + KEYS,
    ),
    (
        dict[bool, int],
        "Cmd.x: `bool` can't be the key of a map" + KEYS,
    ),
    (
        dict[Path, int],
        "Cmd.x: `Path` can't be the key of a map" + KEYS,
    ),
    (
        dict[Pair, int],
        "Cmd.x: `Pair` can't be the key of a map" + KEYS,
    ),
    (
        dict[tuple[int, int], int],
        "Cmd.x: `tuple[int, int]` can't be the key of a map" + KEYS,
    ),
    (
        dict[str | int, int],
        "Cmd.x: `str | int` can't be the key of a map" + KEYS,
    ),
    (set[list[int]], "Cmd.x: `list[int]` can't stand in a set, which hashes it"),
    (frozenset[dict], "Cmd.x: `dict` can't stand in a set, which hashes it"),
    (set[Point], "Cmd.x: `Point` can't stand in a set, which hashes it"),
    (set[int | Point], "Cmd.x: `Point` can't stand in a set, which hashes it"),
    (set[Profile], "Cmd.x: `Profile` can't stand in a set, which hashes it"),
    (
        set[Annotated[set[int], "a note"]],
        "Cmd.x: `typing.Annotated[set[int], 'a note']` can't stand in a set, which hashes it",
    ),
    (Untyped, "Cmd.x: `Untyped` says no types; use NamedTuple"),
    (
        Chain,
        "Cmd.x: `Chain` holds itself; use a dataclass, or a bare `dict` or `list` of plain values",
    ),
    (Box, "Box.x: `~T` can't be carried; write what it stands for"),
    (
        Box[int],
        "Box[int]` can't be carried; write a dataclass for each type that it stands for",
    ),
    (IntBox, "IntBox.x: `~T` can't be carried; write what it stands for"),
    (Hidden, "Hidden.x: a field with init=False can't be carried"),
    (Initial, "Initial.x: an InitVar can't be carried"),
    (BareInitial, "BareInitial.x: an InitVar can't be carried"),
    (Inner, "Inner.x: `complex` can't be carried; use `tuple[float, float]`"),
    (list[Inner], "Inner.x: `complex` can't be carried; use `tuple[float, float]`"),
    (Ghost, "Ghost.z: the annotation can't be resolved: name 'Nobody' is not defined"),
    (GhostDict, "GhostDict.x: the annotation can't be resolved: name 'Nobody' is not defined"),
    ("Nobody", "Cmd.x: the annotation can't be resolved: name 'Nobody' is not defined"),
    (Mixed, "Cmd.x: `Mixed` can't be carried: the values of an Enum must be all str or all int"),
    (Empty, "Cmd.x: `Empty` can't be carried: the values of an Enum must be all str or all int"),
    (Literal[b"a"], "Cmd.x: a Literal holds str, int, bool or None, not `b'a'`"),
    (
        Found | Lost,
        "Cmd.x: `Found` and `Lost` in one union travel both as a map" + ONLY_WHOLE,
    ),
    (
        list[Found | Lost],
        "Cmd.x[]: `Found` and `Lost` in one union travel both as a map" + ONLY_WHOLE,
    ),
    (
        Found | dict[str, int],
        "Cmd.x: `Found` and `dict[str, int]` in one union travel both as a map" + APART,
    ),
    (
        list[int] | set[int],
        "Cmd.x: `list[int]` and `set[int]` in one union travel both as a list" + APART,
    ),
    (
        str | datetime,
        "Cmd.x: `str` and `datetime` in one union travel both as text" + APART,
    ),
    (
        str | bytes,
        "Cmd.x: `str` and `bytes` can't stand in one union, "
        "bytes beside what travels as text; use two fields",
    ),
    (
        str | Path,
        "Cmd.x: `str` and `Path` in one union travel both as text" + APART,
    ),
    (Annotated[int, Meta(min_length=1)], "Cmd.x: `min_length` says nothing about an int"),
]


@pytest.mark.parametrize(
    ("annotation", "sentence"), REFUSED_FIELDS, ids=[str(one[0]) for one in REFUSED_FIELDS]
)
def test_field_that_can_not_be_carried_is_refused(annotation, sentence):
    with pytest.raises(TypeError) as caught:
        resolve(command(annotation))
    words = str(caught.value)
    assert words == sentence if sentence.startswith("Cmd.x") else sentence in words


REFUSED_ANSWERS = [
    (complex, "Cmd.process: `complex` can't be carried; use `tuple[float, float]`"),
    (
        Any,
        "Cmd.process: `Any` can't be carried" + SAY,
    ),
    (typing.NoReturn, "Cmd.process: `typing.NoReturn` can't be carried"),
    (Inner, "Inner.x: `complex` can't be carried; use `tuple[float, float]`"),
    (
        "Nobody",
        "Cmd.process: its return annotation can't be resolved: name 'Nobody' is not defined",
    ),
    (
        list[Found | Lost],
        "Cmd.process[]: `Found` and `Lost` in one union travel both as a map" + ONLY_WHOLE,
    ),
    (Found | Inner, "Inner.x: `complex` can't be carried; use `tuple[float, float]`"),
    (
        Found | Lost | list[int],
        "Cmd.process: beside several dataclasses an answer may be a scalar or None, "
        "and nothing else: ",
    ),
    (
        Found | Lost | Colour,
        "Cmd.process: beside several dataclasses an answer may be a scalar",
    ),
    (
        collections.abc.Iterable[int],
        "Cmd.process: `collections.abc.Iterable[int]` can't be carried; use `list[…]`",
    ),
    (collections.abc.Iterator, "Cmd.process: `Iterator` does not say what a piece is"),
    (
        collections.abc.Iterator[complex],
        "Cmd.process, a piece: `complex` can't be carried; use `tuple[float, float]`",
    ),
    (
        collections.abc.Generator[int, None, complex],
        "Cmd.process: `complex` can't be carried; use `tuple[float, float]`",
    ),
    (Subscription, "Cmd.process: `Subscription` does not say what a piece is"),
    (concurrent.futures.Future, "Cmd.process: `Future` does not say what the answer is"),
    (collections.abc.Awaitable, "Cmd.process: `Awaitable` does not say what the answer is"),
    (collections.abc.Coroutine, "Cmd.process: `Coroutine` does not say what the answer is"),
    (
        concurrent.futures.Future[complex],
        "Cmd.process: `complex` can't be carried; use `tuple[float, float]`",
    ),
    (
        list[concurrent.futures.Future[int]],
        "Cmd.process[]: `concurrent.futures._base.Future[int]` can't be carried",
    ),
]


class Deferred(Generic[T]):
    """As much of Twisted's as is looked at."""

    def addCallbacks(self): ...
    def addBoth(self): ...


@pytest.mark.parametrize(
    ("annotation", "kind", "pieces", "answers"),
    [
        (int, Kind.PLAIN, None, [1]),
        (concurrent.futures.Future[int], Kind.FUTURE, None, [1]),
        (asyncio.Future[int], Kind.FUTURE, None, [1]),
        (Deferred[int], Kind.FUTURE, None, [1]),
        (collections.abc.Awaitable[int], Kind.FUTURE, None, [1]),
        (collections.abc.Coroutine[Any, Any, int], Kind.FUTURE, None, [1]),
        (collections.abc.Generator[str, Any, int], Kind.GENERATOR, ["a"], [1]),
        (collections.abc.Generator[str | Turn, Any, int], Kind.GENERATOR, ["a"], [1]),
        (typing.Generator[str | Turn | None, Any, int], Kind.GENERATOR, ["a", None], [1]),
        (collections.abc.Generator[Turn, Any, int], Kind.GENERATOR, None, [1]),
        (collections.abc.Iterator[str], Kind.GENERATOR, ["a"], [None]),
        (collections.abc.AsyncIterator[str], Kind.ASYNC_GENERATOR, ["a"], [None]),
        (collections.abc.AsyncGenerator[str, None], Kind.ASYNC_GENERATOR, ["a"], [None]),
        (Subscription[Found | Lost], Kind.TOPIC, [Found(Point(1, 2))], [None]),
    ],
    ids=str,
)
def test_an_annotation_says_when_and_in_which_pieces(annotation, kind, pieces, answers):
    cmd = resolve(command(int, annotation))
    assert cmd.kind is kind
    for answer in answers:
        assert cmd.decode_answer(cbor2.loads(cmd.encode_answer(answer))) == answer
    with pytest.raises(TypeError):
        cmd.encode_answer("what was not promised")
    for piece in pieces or []:
        assert cmd.decode_piece(cbor2.loads(cmd.encode_piece(piece))) == piece
    if pieces is None:
        with pytest.raises(TypeError, match=r"^Cmd promises no pieces, and `int` is one$"):
            cmd.encode_piece(1)
        with pytest.raises(msgspec.ValidationError, match=r"^Cmd has no pieces$"):
            cmd.decode_piece(1)
    else:
        with pytest.raises(TypeError):
            cmd.encode_piece(1.5)


def test_what_an_asynchronous_function_returns_comes_later():
    @dataclass
    class Cmd:
        async def process(self, ctx) -> int: ...

    assert resolve(Cmd).kind is Kind.FUTURE


@pytest.mark.parametrize(
    ("annotation", "sentence"), REFUSED_ANSWERS, ids=[str(one[0]) for one in REFUSED_ANSWERS]
)
def test_answer_that_can_not_be_carried_is_refused(annotation, sentence):
    with pytest.raises(TypeError, match=re.escape(sentence)):
        resolve(command(int, annotation))


def test_two_answers_of_one_name_are_refused():
    other = make_dataclass("Found", [("x", int)])
    with pytest.raises(TypeError, match=r"^Cmd.process: two answers are named Found$"):
        resolve(command(int, Found | other))


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


def test_recursion_limit_that_strikes_in_the_midst_of_resolving(monkeypatch):
    """It says nothing of this class, so it is not told as a fault of its annotations."""

    @dataclass
    class Deep:
        value: int

        def process(self, ctx: object) -> int: ...

    def too_deep(*_, **__):
        raise RecursionError("maximum recursion depth exceeded")

    monkeypatch.setattr("ipcpoll._schema.annotations.typing.get_type_hints", too_deep)
    with pytest.raises(RecursionError):
        resolve(Deep)


# ---------------------------------------------------------------------------------------------
# What looks like no command, or no stream, and is one


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


@pytest.mark.parametrize("number", [2**63, 2**64 - 1, 2**64, -(2**63) - 1])
def test_literal_and_enum_beyond_64_bits_are_refused(number):
    big = enum.IntEnum("Big", {"SMALL": 1, "BIG": number})
    for annotation in (Literal[1, number], big, list[big], dict[big, int], big | None):
        with pytest.raises(TypeError, match=r"^Cmd\.x.*must be from -2\^63 to 2\^63-1$"):
            resolve(command(annotation))


@pytest.mark.parametrize("number", [2**63 - 1, -(2**63)])
def test_literal_and_enum_of_64_bits_are_carried(number):
    big = enum.IntEnum("Big", {"SMALL": 1, "BIG": number})
    for annotation, value in ((Literal[1, number], number), (big, big.BIG)):
        assert there_and_back(annotation, value) is value or value == number


STREAMS = [
    Annotated[collections.abc.Iterator[str], "a note"],
    Annotated[collections.abc.Generator[str | Turn, None, None], "a note"],
    collections.abc.Iterator[Annotated[str | Turn, "a note"]],
    Annotated[Annotated[Subscription[str], 1], 2],
    NewType("Words", collections.abc.Iterator[str]),
]
NAMES_OF_STREAMS = """
type Words = Iterator[str]
type Step = str | Turn
type Steps = Annotated[Generator[Step, None, None], "a note"]
type Again = Words
type Promised = Future[int]
"""


@pytest.mark.parametrize("annotation", STREAMS, ids=str)
def test_annotation_of_a_stream_is_seen_through_what_stands_around_it(annotation):
    command_type = resolve(command(int, annotation))
    assert command_type.kind in (Kind.GENERATOR, Kind.TOPIC)
    assert command_type.decode_piece(DECODER.decode(command_type.encode_piece("a"))) == "a"


@pytest.mark.skipif(sys.version_info < (3, 12), reason="`type X = …` is new in 3.12")
def test_name_of_a_stream_is_seen_through():
    names = {
        "Annotated": Annotated,
        "Future": concurrent.futures.Future,
        "Generator": collections.abc.Generator,
        "Iterator": collections.abc.Iterator,
        "Turn": Turn,
    }
    exec(NAMES_OF_STREAMS, names)
    for name in ("Words", "Steps", "Again"):
        command_type = resolve(command(int, names[name]))
        assert command_type.kind is Kind.GENERATOR
        assert command_type.decode_piece(DECODER.decode(command_type.encode_piece("a"))) == "a"
    assert resolve(command(int, names["Promised"])).kind is Kind.FUTURE


def decorated(process):
    return make_dataclass("Cmd", [("x", int)], namespace={"process": process})


def test_generator_behind_inline_callbacks_is_a_deferred():
    @defer.inlineCallbacks
    def process(self, ctx) -> collections.abc.Generator[defer.Deferred[int], Any, int]:
        one = yield defer.succeed(1)
        return one + 1

    command_type = resolve(decorated(process))
    assert command_type.kind is Kind.FUTURE
    assert is_deferred(process(None, None))
    with pytest.raises(TypeError, match=r"^Cmd's answer must be an int, not 'a'$"):
        command_type.encode_answer("a")
    assert command_type.encode_answer(2) == b"\x02"


def test_inline_callbacks_may_be_annotated_with_what_they_give():
    @defer.inlineCallbacks
    def process(self, ctx) -> "defer.Deferred[int]":
        yield defer.succeed(1)
        return 5

    assert resolve(decorated(process)).kind is Kind.FUTURE


def test_coroutine_of_tornado_is_a_future():
    namespace = {"__name__": "tornado.gen", "functools": functools}
    exec(
        "def coroutine(f):\n"
        "    @functools.wraps(f)\n"
        "    def wrapper(*args): ...\n"
        "    return wrapper\n",
        namespace,
    )

    @namespace["coroutine"]
    def process(self, ctx) -> collections.abc.Generator[Any, Any, int]:
        yield 1

    assert resolve(decorated(process)).kind is Kind.FUTURE


def test_generator_behind_another_decorator_is_a_generator():
    def logged(method):
        @functools.wraps(method)
        def wrapper(self, ctx):
            return method(self, ctx)

        return wrapper

    @logged
    def process(self, ctx) -> collections.abc.Generator[str, Any, int]:
        yield "a"
        return 1

    assert resolve(decorated(process)).kind is Kind.GENERATOR

    @logged
    def wrong(self, ctx) -> int:
        yield 1

    with pytest.raises(TypeError, match=r"a generator is annotated `Generator"):
        resolve(decorated(wrong))


def test_constraints_of_an_answer_in_a_stream_stay():
    annotation = collections.abc.Generator[Percent, None, Annotated[Percent, "a note"]]
    command_type = resolve(command(int, annotation))
    with pytest.raises(ValueError, match=r"^Cmd's piece must be at most 100, not 101$"):
        command_type.encode_piece(101)
    with pytest.raises(ValueError, match=r"^Cmd's answer must be at most 100, not 101$"):
        command_type.encode_answer(101)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="`type X = …` is new in 3.12")
def test_alias_that_holds_itself_is_refused_with_a_hint():
    names = {}
    exec("type Json = dict[str, Json] | list[Json] | str | int | float | bool | None", names)
    with pytest.raises(TypeError, match=r"^Cmd\.x: .*Json.* holds itself; use a dataclass, or a"):
        resolve(command(names["Json"]))


def test_class_in_a_function_is_not_found_by_its_name():
    class Hider:
        pass

    @dataclass
    class InField:
        x: "Hider"

        def process(self, ctx) -> None: ...

    @dataclass
    class InAnswer:
        def process(self, ctx) -> "Hider": ...

    words = (
        r"can't be resolved: name 'Hider' is not defined; an annotation in quotes, or under "
        r"`from __future__ import annotations`, does not see what stands in a function$"
    )
    for cls, place in ((InField, "InField.x"), (InAnswer, "InAnswer.process")):
        with pytest.raises(TypeError, match=rf"{place}: .*{words}"):
            resolve(cls)


Json = Union["dict[str, Json]", "list[Json]", str, int, None]


@dataclass
class Document:
    content: Json

    def process(self, ctx) -> None: ...


def test_union_that_names_itself_is_refused_with_a_hint():
    with pytest.raises(TypeError, match=r"holds itself.* a dataclass, or a bare `dict` or `list`"):
        resolve(Document)


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


@pytest.mark.parametrize(
    ("annotation", "sentence"), REFUSED_FIELDS, ids=[str(one[0]) for one in REFUSED_FIELDS]
)
def test_nothing_is_left_for_msgspec_to_refuse(annotation, sentence, monkeypatch):
    monkeypatch.setattr("ipcpoll._schema.annotations.refuse_by_msgspec", lambda *_: None)
    with pytest.raises(TypeError):
        resolve(command(annotation))


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
