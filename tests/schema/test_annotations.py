"""Which annotations can be carried, and what is said of each that cannot."""

import collections
import collections.abc
import concurrent.futures
import enum
import fractions
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
    Optional,
    TypedDict,
    Union,
)
from uuid import UUID

import msgspec
import numpy
import pydantic
import pytest
import typing_extensions
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Meta
from schema_types import (
    DECODER,
    INTS,
    PATHS,
    POINTS,
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
    Word,
    there_and_back,
)
from wire import PLAIN, command

from ipcpoll._schema.answers import Subscription
from ipcpoll._schema.commands import resolve
from ipcpoll._wire.codec import encode

# How some of the sentences end.
KEYS = "; keys are str, int, float, an Enum, a Literal, a date or time, Decimal or UUID"


SAY = "; use the type that it is; a bare `list` or `dict` holds any plain value"
ONLY_WHOLE = "; only a whole answer may be one of several dataclasses"
APART = " and can't be told apart; use one of them, or two fields"


# ---------------------------------------------------------------------------------------------
# Types of fields


@dataclass(frozen=True, slots=True)
class Size:
    width: float
    unit: Literal["px", "em"] = "px"


UserId = NewType("UserId", int)


FLOATS = st.floats(allow_nan=False)


ZONES = st.none() | st.integers(-14 * 60, 14 * 60).map(lambda m: timezone(timedelta(minutes=m)))
DATETIMES = st.datetimes(timezones=ZONES).filter(lambda moment: moment.tzinfo or not moment.fold)
TIMES = st.times(timezones=ZONES).filter(lambda moment: moment.tzinfo or not moment.fold)
DECIMALS = st.decimals(allow_nan=False)


SIZES = st.builds(Size, FLOATS, st.sampled_from(["px", "em"]))


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


# ---------------------------------------------------------------------------------------------
# A recursion limit


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
# Large numbers, aliases, names


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


# ---------------------------------------------------------------------------------------------
# Promises of ours rest on nothing of theirs


@pytest.mark.parametrize(
    ("annotation", "sentence"), REFUSED_FIELDS, ids=[str(one[0]) for one in REFUSED_FIELDS]
)
def test_nothing_is_left_for_msgspec_to_refuse(annotation, sentence, monkeypatch):
    monkeypatch.setattr("ipcpoll._schema.annotations.refuse_by_msgspec", lambda *_: None)
    with pytest.raises(TypeError):
        resolve(command(annotation))
