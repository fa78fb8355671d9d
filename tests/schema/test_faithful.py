"""No silent change: what is accepted comes back equal and of the same type, or it is refused.

For whatever annotation is accepted, and whatever value: also values that the annotation does not
promise, which a program gives by mistake. They are refused where they are given, with the place.
"""

import collections
import enum
import functools
import math
import typing
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Annotated, Literal, NamedTuple, NotRequired, TypedDict
from uuid import UUID
from zoneinfo import ZoneInfo

import numpy
import pytest
import wire
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET, Meta, UnsetType

from ipcpoll import Subscription, Topic
from ipcpoll._schema.commands import resolve
from ipcpoll._wire.codec import Decoder, encode
from ipcpoll.errors import WireError

DECODER = Decoder()
BERLIN = ZoneInfo("Europe/Berlin")


class Colour(enum.Enum):
    RED = "red"
    ONE = "1"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Mode(enum.StrEnum):
    FAST = "fast"


class Count(int):
    pass


class Share(float):
    pass


class Name(str):
    __slots__ = ()


class Raw(bytes):
    pass


class Names(list):  # type: ignore[type-arg]
    pass


class Day(date):
    pass


class Price(Decimal):
    pass


@dataclass(frozen=True)
class Point:
    x: int
    y: float = 0.0


@dataclass(frozen=True)
class Point3(Point):
    z: int = 0


class Pair(NamedTuple):
    key: str
    value: int = 0


class Profile(TypedDict):
    name: str
    age: NotRequired[int]


@dataclass
class Tree:
    value: "int | str | None" = None
    more: "list[Tree]" = field(default_factory=list)


# ---------------------------------------------------------------------------------------------
# Values of all kinds, right and wrong

MOMENTS = [
    datetime(2024, 2, 29, 1, 2, 3, 4),
    datetime(2024, 2, 29, tzinfo=UTC),
    datetime(2024, 10, 27, 2, 30, fold=0, tzinfo=BERLIN),
    datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=BERLIN),
    datetime(2024, 10, 27, 2, 30, fold=1),
    datetime(1890, 1, 1, tzinfo=BERLIN),
    datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=5, minutes=30))),
    datetime(2024, 1, 1, tzinfo=timezone(timedelta(seconds=1))),
    datetime(2024, 1, 1, tzinfo=timezone(timedelta(microseconds=1))),
    datetime.min,
    datetime.max.replace(tzinfo=timezone(-timedelta(hours=23, minutes=59))),
]
TIMES = [
    time(1, 2, 3, 4),
    time(1, fold=1),
    time(1, tzinfo=UTC),
    time(1, tzinfo=BERLIN),
    time(1, tzinfo=timezone(timedelta(hours=-3, minutes=-30))),
    time(1, tzinfo=timezone(timedelta(seconds=-1))),
]
SCALARS = [
    None, True, False, 0, 1, -1, 2, 2**53 + 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1,
    0.0, -0.0, 1.0, 1.5, 1e22, 5e-324, math.inf, -math.inf, math.nan, 2.0**64,
    "", "1", "a", "red", "fast", "2024-02-29", "PT1S", "1.0", "nan", "é", "\ud800", "x" * 100,
    b"", b"1", b"0" * 16, bytearray(b"a"), memoryview(b"a"),
    Count(1), Share(1.0), Name("a"), Raw(b"a"), 1j, object(),
    Colour.RED, Colour.ONE, Level.LOW, Mode.FAST,
    *MOMENTS, *TIMES, date(2024, 2, 29), Day(2024, 2, 29),
    timedelta(), timedelta(microseconds=-1), timedelta.min, timedelta.max, timedelta(1, 2, 3),
    Decimal("1.0"), Decimal("1.00"), Decimal("-0"), Decimal("1E+5"), Decimal("NaN"),
    Decimal("sNaN"), Decimal("-Infinity"), Price("1.5"), UUID(int=5),
    Path("a"), Path(), PurePosixPath("a"), PureWindowsPath("a\\b"), PurePath("a"),
    numpy.float64(1.5), numpy.float32(1.5), numpy.int64(1), numpy.bool_(True), numpy.str_("a"),
    numpy.array([1]),
    Point(1), Point(1, 2), Point3(1, 2.0, 3), Point(True), Pair("a", 1), Pair("a"),
    UNSET,
]  # fmt: skip
CONTAINERS = [
    [], [1], [1.0], [True], ["a"], [None], [[1]], [(1,)], [{1}], [date(2024, 1, 1)], [Point(1)],
    [Level.LOW], [b"a"], [1, "a", None], [[[[{"a": [(1,)]}]]]], Names([1]), [numpy.int64(1)],
    (), (1,), (1, 2), (1, "a"), ((1,),), ([1],), (Point(1),),
    set(), {1}, {1.0, 2}, {"a"}, {(1,)}, {frozenset({1})}, {math.nan}, {Point(1)},
    {date(2024, 1, 1)}, frozenset({1}), frozenset({"a"}), frozenset({frozenset({1})}),
    {}, {"a": 1}, {1: 2}, {1: "a", "1": "b"}, {1.0: 2}, {"a": Point(1)}, {Colour.RED: 1},
    {Level.LOW: 1}, {b"a": 1}, {None: 1}, {True: 1}, {(1,): 1}, {date(2024, 1, 1): 1}, {2**64: 1},
    {math.nan: 1}, {float("nan"): 1, float("nan"): 2}, {-0.0: 1}, {"name": "a"}, {"name": 1},
    {"name": "a", "age": 1}, {"name": "a", "other": 1}, {"x": 1}, {"x": 1, "y": 2.0},
    {Decimal("1.0"): 1}, {Decimal("NaN"): 1}, {UUID(int=1): 1}, {"a": {1: 2}}, {"a": (1,)},
    collections.OrderedDict(a=1), collections.Counter("a"), collections.defaultdict(int, a=1),
    {Name("a"): 1}, {Count(1): 1}, {"\ud800": 1}, {datetime(2024, 1, 1, fold=1): 1},
    collections.deque([1]), range(2), iter([1]),
    Tree(), Tree(1, [Tree("a"), Tree()]), Tree(1.0), Tree(True), Tree(1, [Point(1)]),
    Tree(1, (Tree(),)),
]  # fmt: skip
VALUES = [*SCALARS, *CONTAINERS]

SIMPLE: list[typing.Any] = [
    bool, int, float, str, bytes, None, datetime, date, time, timedelta, Decimal, UUID, Path,
    PurePosixPath, PureWindowsPath, Colour, Level, Mode, Literal["a", 1, None], Literal[True, 1, 2],
    Point, Pair, Profile, Tree, list, tuple, set, frozenset, dict,
    Annotated[int, Meta(ge=0, le=9)], Annotated[str, Meta(max_length=3)],
]  # fmt: skip
NESTED: list[typing.Any] = [
    list[int], list[float], list[str | None], list[list[int]], list[Point], list[date], list[list],
    tuple[int, ...], tuple[int, int], tuple[int, str], tuple[()], tuple[Point],
    set[int], set[float], set[str], set[Point], set[tuple[int, ...]], frozenset[frozenset[int]],
    set[date], dict[str, int], dict[int, int], dict[int, str], dict[float, int], dict[Colour, int],
    dict[Level, int], dict[Literal["a", "b"], int], dict[Literal[1, "a"], int], dict[date, int],
    dict[datetime, int], dict[Decimal, int], dict[UUID, int], dict[str, Point],
    dict[str, list[int]], dict[str, dict], dict[str, tuple], dict[Annotated[int, Meta(ge=0)], int],
]  # fmt: skip


@functools.cache
def command(annotation):
    """Return a command class with a field and an answer of this annotation."""
    return wire.command(annotation, annotation)


def same(one, other):
    """Whether two values are equal and of the same types, in all their parts."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return repr(one) == repr(other)
    if isinstance(one, Decimal):
        return str(one) == str(other)
    if isinstance(one, dict):
        return len(one) == len(other) and all(
            same(*pairs) for pairs in zip(one.items(), other.items(), strict=True)
        )
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, set | frozenset):
        return len(one) == len(other) and sorted(map(repr, one)) == sorted(map(repr, other))
    if isinstance(one, Point | Tree):
        return same(list(vars(one).items()), list(vars(other).items()))
    if isinstance(one, datetime | time):  # the zone itself is not carried, its offset is
        return (
            one.replace(tzinfo=None) == other.replace(tzinfo=None)
            and one.utcoffset() == other.utcoffset()
            and (one.tzinfo is None) == (other.tzinfo is None)
            and (one.tzinfo is not None or one.fold == other.fold)
        )
    return one == other


def as_promised(annotation, value):
    """Return a value with each int made the float that it is given for: the one conversion."""
    if annotation in (float, float | None) and type(value) is int:
        return float(value)
    if isinstance(value, Point):
        return type(value)(value.x, float(value.y))
    if annotation == list[float] and type(value) is list:
        return [as_promised(float, item) for item in value]
    if annotation == set[float] and type(value) is set:
        return {as_promised(float, item) for item in value}
    if annotation == dict[float, int] and type(value) is dict:
        return {as_promised(float, key): item for key, item in value.items()}
    if isinstance(value, list | set | tuple) and any(isinstance(item, Point) for item in value):
        return type(value)(as_promised(annotation, item) for item in value)
    if isinstance(value, dict) and any(isinstance(item, Point) for item in value.values()):
        return {key: as_promised(annotation, item) for key, item in value.items()}
    return value


def field_and_answer(annotation, value):
    """Give what arrives for a value: as a field, and as an answer. Refused: nothing."""
    cls = command(annotation)
    command_type = resolve(cls)
    refusal = None
    try:
        payload = command_type.encode_call(encode(1), cls(value))
        fields = DECODER.decode(payload if isinstance(payload, bytes) else b"".join(payload))[2]
        yield command_type.bind(fields).x
    except (TypeError, ValueError) as error:
        refusal = str(error)
    except WireError as error:
        refusal = error.message
        is_limit = "must be at" in refusal or "must have at" in refusal
        refusal = refusal if is_limit else f"but for a constraint it fits: {refusal}"
    assert refusal is None or refusal.startswith("Cmd")
    refusal = None
    try:
        item = command_type.encode_answer(value)
    except (TypeError, ValueError) as error:
        refusal = str(error)
    assert refusal is None or refusal.startswith(
        ("Cmd's answer", "an integer outside", "text with a lone", "a map")
    )
    if refusal is None:
        whole = item if isinstance(item, bytes) else b"".join(item)
        yield command_type.decode_answer(DECODER.decode(whole))


@pytest.mark.parametrize("annotation", [*SIMPLE, *NESTED], ids=str)
def test_value_comes_back_equal_and_of_the_same_type_or_is_refused(annotation):
    some = 0
    for value in VALUES:
        for arrived in field_and_answer(annotation, value):
            promised = as_promised(annotation, value)
            assert same(arrived, promised), (value, arrived)
            some += 1
    assert some >= 1, "it takes nothing at all"


@pytest.mark.parametrize("first", range(len(SIMPLE) - 3))
def test_union_is_refused_by_us_or_tells_its_members_apart(first):
    """No union is left for msgspec to refuse, and none lets one member pass for another."""
    for second in SIMPLE[first + 1 : -2]:
        refusal = None
        union = typing.Union[SIMPLE[first], second]  # noqa: UP007 - None may be the first
        try:
            resolve(command(union))
        except TypeError as error:
            refusal = str(error)
        if refusal is not None:
            words = ("in one union", "can't stand in one", "a union may hold", "may be a scalar")
            assert any(word in refusal for word in words), union
            continue
        for value in SCALARS:
            for arrived in field_and_answer(union, value):
                is_floated = type(value) is int and type(arrived) is float
                promised = float(value) if is_floated else as_promised(union, value)
                assert same(arrived, promised), (union, value, arrived)


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text(max_size=2) | st.integers(0, 3) | st.booleans(), inner, max_size=3
        )
        | st.tuples(inner)
        | st.sets(st.integers(0, 3), max_size=2)
        | st.builds(Tree, st.integers())
        | st.sampled_from(MOMENTS)
    ),
    max_leaves=8,
)


@settings(max_examples=300)
@given(
    st.sampled_from([list, dict, tuple, set, list[list], dict[str, dict], dict[int, list]]), PLAIN
)
def test_what_a_bare_container_takes_comes_back_as_it_is(annotation, value):
    for arrived in field_and_answer(annotation, value):
        assert same(arrived, value)


@settings(max_examples=200)
@given(
    st.datetimes(
        timezones=st.none()
        | st.sampled_from([BERLIN, ZoneInfo("Australia/Lord_Howe"), ZoneInfo("Africa/Monrovia")])
        | st.integers(-86399, 86399).map(lambda s: timezone(timedelta(seconds=s))),
        allow_imaginary=True,
    )
)
def test_datetime_is_the_same_moment_or_refused(value):
    for arrived in field_and_answer(datetime, value):
        assert same(arrived, value)


@settings(max_examples=200)
@given(st.timedeltas() | st.decimals() | st.uuids() | st.times() | st.dates())
def test_what_travels_as_text_is_the_same(value):
    arrived = list(field_and_answer(type(value), value))
    assert len(arrived) == 2 or value.fold
    assert all(same(each, value) for each in arrived)


@given(st.sampled_from(NESTED), st.sampled_from(VALUES), st.sampled_from(VALUES))
def test_mixed_containers_are_refused_or_the_same(annotation, first, second):
    for value in ([first, second], (first, second), {"a": first, "b": second}):
        for arrived in field_and_answer(annotation, value):
            assert same(arrived, as_promised(annotation, value))


# ---------------------------------------------------------------------------------------------
# Two of a map that are one


@pytest.mark.parametrize(
    ("annotation", "plain"),
    [
        (dict[float, int], {"1": 1, "1.0": 2}),
        (dict[Decimal, int], {"1": 1, "1.0": 2}),
        (dict[int, int], {"0": 1, "-0": 2}),
        (dict[datetime, int], {"2024-01-01T00:00:00Z": 1, "2024-01-01T01:00:00+01:00": 2}),
        (dict[UUID, int], {"00000000-0000-0000-0000-000000000005": 1, f"{5:032}": 2}),
        (list[dict[float, int]], [{"1": 1, "1.0": 2}]),
        (dict[str, dict[float, int]], {"a": {"1": 1, "1.0": 2}}),
    ],
    ids=str,
)
def test_two_keys_that_mean_the_same_are_refused_as_they_come_in(annotation, plain):
    with pytest.raises(WireError, match=r"^Cmd\.x.* has two keys that mean the same$"):
        resolve(command(annotation)).bind({"x": plain})


@pytest.mark.parametrize(
    ("annotation", "plain"),
    [
        (set[int], [1, 1]),
        (frozenset[str], ["a", "b", "a"]),
        (set[float], [1, 1.0]),
        (set, ["a", "a"]),
        (set[tuple[int, ...]], [[1], [1]]),
        (list[set[int]], [[1, 1]]),
        (set[datetime], ["2024-01-01T00:00:00Z", "2024-01-01T01:00:00+01:00"]),
    ],
    ids=str,
)
def test_two_items_of_a_set_that_mean_the_same_are_refused_as_they_come_in(annotation, plain):
    with pytest.raises(WireError, match=r"^Cmd\.x.* has two items that mean the same$"):
        resolve(command(annotation)).bind({"x": plain})


IN_THE_HOUR_THAT_COMES_TWICE = datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN)
"""To Python it equals no moment in another zone, not even itself."""


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (dict[datetime, int], lambda one, other: {one: 1, other: 2}),
        (set[datetime], lambda one, other: {one, other}),
        (list[frozenset[datetime]], lambda one, other: [frozenset({one, other})]),
        (dict[str, dict[datetime, int]], lambda one, other: {"a": {one: 1, other: 2}}),
    ],
    ids=str,
)
def test_moments_that_would_become_one_are_refused(annotation, value):
    value = value(IN_THE_HOUR_THAT_COMES_TWICE, IN_THE_HOUR_THAT_COMES_TWICE.astimezone(UTC))
    assert not list(field_and_answer(annotation, value))


@pytest.mark.parametrize("key", [2**64, -(2**63) - 1, 10**30])
def test_key_that_is_no_integer_of_ours_is_refused_as_it_comes_in(key):
    words = f"^Cmd.x has the key '{key}', which must be from -2\\^63 to 2\\^64-1$"
    with pytest.raises(WireError, match=words):
        resolve(command(dict[int, int])).bind({"x": {"1": 1, str(key): 2}})
    for edge in (2**64 - 1, -(2**63)):
        assert resolve(command(dict[int, int])).bind({"x": {str(edge): 2}}).x == {edge: 2}


# ---------------------------------------------------------------------------------------------
# What is left out while it is UNSET


@dataclass
class Change:
    name: str | UnsetType = UNSET
    size: int | UnsetType | None = UNSET
    at: Point | UnsetType = UNSET

    def process(self, ctx) -> "list[Inner]":
        raise NotImplementedError


@dataclass
class Inner:
    share: float | UnsetType = UNSET


@pytest.mark.parametrize(
    ("change", "fields"),
    [
        (Change(), {}),
        (Change("a"), {"name": "a"}),
        (Change(size=None), {"size": None}),
        (Change("a", 1, Point(1)), {"name": "a", "size": 1, "at": {"x": 1, "y": 0.0}}),
    ],
)
def test_field_that_is_unset_is_left_out_and_arrives_unset(change, fields):
    command_type = resolve(Change)
    sent = DECODER.decode(command_type.encode_call(encode(1), change))
    assert sent == [1, "Change", fields]
    assert command_type.bind(sent[2]) == change
    answer = [Inner(), Inner(1.0)]
    plain = DECODER.decode(command_type.encode_answer(answer))
    assert plain == [{}, {"share": 1.0}]
    assert command_type.decode_answer(plain) == answer


def test_unset_needs_its_default_and_a_dataclass():
    @dataclass
    class NoDefault:
        x: int | UnsetType

        def process(self, ctx) -> None: ...

    with pytest.raises(TypeError, match=r"NoDefault.x: a field that may be UNSET needs `= msgspec"):
        resolve(NoDefault)
    for annotation in (list[int | UnsetType], UnsetType):
        with pytest.raises(TypeError, match=r"`UnsetType` can't be carried; use it in a union, as"):
            resolve(command(annotation))


def test_field_without_a_value_is_named():
    @dataclass
    class Two:
        a: Tree
        b: int

        def process(self, ctx) -> None: ...

    tree, two = Tree(), Two(Tree(), 1)
    del tree.more
    del two.b
    with pytest.raises(TypeError, match=r"^Two.a has no value for the field `more`$"):
        resolve(Two).encode_call(encode(1), Two(tree, 1))
    with pytest.raises(TypeError, match=r"^Two.b has no value$"):
        resolve(Two).encode_call(encode(1), two)


# ---------------------------------------------------------------------------------------------
# Pieces


@pytest.mark.parametrize(
    ("annotation", "piece"),
    [
        (dict, {1: 2}),
        (dict, {1: "a", "1": "b"}),
        (list, [Point(1)]),
        (list, [date(2024, 1, 1)]),
        (list, [{1}]),
        (list, [(1,)]),
        (datetime, datetime(1890, 1, 1, tzinfo=BERLIN)),
        (time, time(1, tzinfo=BERLIN)),
        (int, True),
        (int, Level.LOW),
        (str, Name("a")),
        (Point, Point3(1)),
    ],
    ids=str,
)
def test_piece_that_would_be_changed_is_refused_also_by_a_topic(annotation, piece):
    class Watch:
        def process(self, ctx):
            raise NotImplementedError

    Watch.process.__annotations__ = {"return": Subscription[annotation]}
    command_type = resolve(dataclass(Watch))
    with pytest.raises((TypeError, ValueError), match=r"^Watch's piece"):
        command_type.encode_piece(piece)
    topic = Topic()
    place = topic.subscribe()
    place.start(command_type.encode_piece, lambda: None)
    with pytest.raises((TypeError, ValueError), match=r"^Watch's piece"):
        topic.publish(piece)
    assert place.take(1) is None, "nobody got it"


# ---------------------------------------------------------------------------------------------
# What it takes to refuse


def test_refusal_takes_as_long_as_the_value_is_large_however_deep_it_is():
    """A poll must not stand still for a wrong answer: each part is looked at once."""
    looked = []

    class Leaf:
        @property
        def __class__(self):
            looked.append(1)
            return Leaf

    tree = Tree(Leaf())
    for _ in range(30):
        tree = Tree("a", [Tree("b"), tree])
    for refuse in (
        lambda: resolve(command(Tree)).encode_answer(tree),
        lambda: resolve(command(list[list[list[Tree]]])).encode_answer([[[tree]]]),
    ):
        looked.clear()
        with pytest.raises(TypeError, match=r"must be an int, a str or None, not a value of type"):
            refuse()
        assert 1 <= len(looked) < 10


@pytest.mark.parametrize(
    ("annotation", "value", "place"),
    [
        (list[int], [1] * 5 + ["a"] + [1] * 5, "[5]"),
        (list[int], ["a"], "[0]"),
        (tuple[int, ...], (1, 2, "a"), "[2]"),
        (list[list[int]], [[1], [], [1, 1, "a"]], "[2][2]"),
        (list, [[1], [], [1, 1, 1j]], "[2][2]"),
        (list[Tree], [Tree(), Tree(1, [Tree(), Tree(1.5)])], "[1].more[1].value"),
    ],
    ids=str,
)
def test_wrong_item_is_named(annotation, value, place):
    with pytest.raises(TypeError) as caught:
        resolve(command(annotation)).encode_answer(value)
    assert str(caught.value).startswith(f"Cmd's answer{place} ")
