"""Constraints in annotations: those of msgspec, annotated_types and pydantic are enforced, alike.

A constraint that is not known is a TypeError when the class is read, and so is a dataclass that
another library would validate; what only describes is left alone.
"""

import enum
import math
import re
from collections.abc import Awaitable, Generator, Iterator
from dataclasses import dataclass, make_dataclass
from datetime import date, datetime, time
from decimal import Decimal
from types import SimpleNamespace
from typing import Annotated, Literal, NamedTuple, TypedDict

import annotated_types as at
import attrs
import pydantic
import pytest
import typing_extensions
import wire
from msgspec import UNSET, Meta, UnsetType
from pydantic import Field

from ipcpoll import Subscription
from ipcpoll._schema.answers import Kind
from ipcpoll._schema.commands import resolve
from ipcpoll._wire.codec import Decoder
from ipcpoll.errors import WireError

DECODER = Decoder()


class Level(enum.IntEnum):
    LOW = 1


@dataclass
class Inner:
    y: int


def command(annotation, answer=None):
    """Return a command class with a field of this annotation, and such an answer or another."""
    return wire.command(annotation, annotation if answer is None else answer)


class Vendored:
    """A constraint of annotated_types, in a library's own copy."""

    class Ge:
        __module__ = "library._vendor.annotated_types"

        def __init__(self, ge):
            self.ge = ge


AT_LEAST_0 = [
    Meta(ge=0),
    at.Ge(0),
    at.Interval(ge=0),
    Field(ge=0),
    Field(ge=0, description="of the whole"),
    Vendored.Ge(0),
]


@pytest.mark.parametrize("constraint", AT_LEAST_0, ids=repr)
@pytest.mark.parametrize(
    ("around", "wrong", "place"),
    [
        (lambda it: it, lambda it: it, ""),
        (lambda it: it | None, lambda it: it, ""),
        (lambda it: Annotated[it, "a note"], lambda it: it, ""),
        (lambda it: list[it], lambda it: [5, it], "[1]"),
        (lambda it: tuple[it, ...], lambda it: [5, 5, it], "[2]"),
        (lambda it: tuple[str, it], lambda it: ["a", it], "[1]"),
        (lambda it: dict[str, it], lambda it: {"a": 1, "b": it}, "['b']"),
        (lambda it: dict[str, list[it]], lambda it: {"a": [it]}, "['a'][0]"),
        (lambda it: make_dataclass("Inner", [("y", it)]), lambda it: {"y": it}, ".y"),
        (lambda it: NamedTuple("Two", [("a", str), ("b", it)]), lambda it: ["", it], ".b"),
        (lambda it: TypedDict("Dict", {"k": it}), lambda it: {"k": it}, ".k"),
        (lambda it: list[make_dataclass("Inner", [("y", it)])], lambda it: [{"y": it}], "[0].y"),
    ],
)
def test_constraint_holds_wherever_it_stands(constraint, around, wrong, place):
    command_type = resolve(command(around(Annotated[int, constraint])))
    with pytest.raises(WireError) as caught:
        command_type.bind({"x": wrong(-1)})
    assert caught.value.code == "invalid-arguments"
    assert str(caught.value) == f"Cmd.x{place} must be at least 0, not -1"
    answer = command_type.bind({"x": wrong(0)}).x
    item = command_type.encode_answer(answer)
    assert command_type.decode_answer(DECODER.decode(item)) == answer
    bad = command_type.decode_answer(wrong(0))
    if isinstance(bad, list):
        bad[-1:] = [-1] if place[-1] == "]" else bad[-1:]
    elif isinstance(bad, int):
        bad = -1
    if bad != answer:
        with pytest.raises(ValueError, match=rf"^Cmd's answer{re.escape(place)} must be at least"):
            command_type.encode_answer(bad)


BOUNDS = [
    (int, [at.Gt(0), Meta(gt=0), Field(gt=0), at.Interval(gt=0)], [1], [0, -1], "be more than 0"),
    (float, [at.Gt(0), Meta(gt=0)], [1e-9, 1], [0.0, math.nan], "be more than 0"),
    (float, [at.Lt(1.5), Meta(lt=1.5)], [1, -math.inf], [1.5, math.nan], "be less than 1.5"),
    (float, [at.Le(1), Meta(le=1), Field(le=1)], [1, 0.5], [2, math.nan], "be at most 1"),
    (int, [at.MultipleOf(5), Meta(multiple_of=5)], [0, 10, -5], [1], "be a multiple of 5"),
    (float, [at.MultipleOf(0.5)], [0.5, -1.0, 3], [0.3, math.inf, math.nan], "be a multiple of 0.5"),  # noqa: E501
    (
        float,
        [Field(allow_inf_nan=False)],
        [0.0, 1e300],
        [math.inf, -math.inf, math.nan],
        "be finite",
    ),
    (str, [at.MinLen(1), Meta(min_length=1), Field(min_length=1)], ["a"], [""],
     "have at least 1 character, not 0"),
    (str, [at.MaxLen(2), at.Len(0, 2), Meta(max_length=2)], ["", "é€"], ["abc"],
     "have at most 2 characters, not 3"),
    (bytes, [at.MaxLen(2), Meta(max_length=2)], [b""], [b"abc"], "have at most 2 bytes, not 3"),
    (list[int], [at.MinLen(2), Meta(min_length=2)], [[1, 2]], [[1]],
     "have at least 2 items, not 1"),
    (set[int], [at.MaxLen(1), Meta(max_length=1)], [[], [1]], [[1, 2]],
     "have at most 1 item, not 2"),
    (dict[str, int], [at.MinLen(1), at.Len(1)], [{"a": 1}], [{}], "have at least 1 entry, not 0"),
    (dict[str, int], [at.MaxLen(0)], [{}], [{"a": 1}], "have at most 0 entries, not 1"),
    (str, [Meta(pattern="^a+$"), Field(pattern="^a+$")], ["a", "aa"], ["", "b"],
     "match the pattern '^a+$'"),
    (datetime, [at.Timezone(...), Meta(tz=True)], ["2024-01-01T00:00:00Z"],
     ["2024-01-01T00:00:00"], "say its offset from UTC"),
    (datetime, [at.Timezone(None), Meta(tz=False)], ["2024-01-01T00:00:00"],
     ["2024-01-01T00:00:00Z", "2024-01-01T00:00:00+01:00"], "say no offset from UTC"),
    (time, [at.Timezone(None), Meta(tz=False)], ["00:00:00"], ["00:00:00Z"],
     "say no offset from UTC"),
    (int, [pydantic.conint(ge=1, multiple_of=2).__metadata__], [2, 4], [0], "be at least 1"),
    (str, [pydantic.constr(max_length=1, strict=True).__metadata__], ["a"], ["ab"],
     "have at most 1 character, not 2"),
    (float, [pydantic.PositiveFloat.__metadata__], [1.0], [0.0], "be more than 0"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("annotation", "constraint", "good", "bad", "words"),
    [
        pytest.param(annotation, one, good, bad, words, id=f"{annotation} {one}")
        for annotation, constraints, good, bad, words in BOUNDS
        for one in constraints
    ],
)
def test_bound_is_kept_on_both_sides(annotation, constraint, good, bad, words):
    metadata = constraint if isinstance(constraint, tuple) else (constraint,)
    free, limited = resolve(command(annotation)), resolve(command(Annotated[annotation, *metadata]))
    for plain in good:
        value = limited.bind({"x": plain}).x
        again = limited.decode_answer(DECODER.decode(limited.encode_answer(value)))
        assert again == value
    for plain in bad:
        with pytest.raises(WireError, match=rf"^Cmd\.x must {re.escape(words)}"):
            limited.bind({"x": plain})
        with pytest.raises(ValueError, match=rf"^Cmd's answer must {re.escape(words)}"):
            limited.encode_answer(free.decode_answer(plain))


@pytest.mark.parametrize(
    ("key", "good", "bad", "words"),
    [
        (Annotated[int, at.Ge(0)], "0", "-1", "has the key '-1', which must be at least 0, not -1"),
        (Annotated[float, at.Ge(0)], "0", "nan", "has the key 'nan', which must be at least 0"),
        (Annotated[str, at.MinLen(1)], "a", "", "has the key '', which must have at least 1"),
        (
            Annotated[datetime, at.Timezone(...)],
            "2024-01-01T00:00:00Z",
            "2024-01-01T00:00:00",
            "has the key '2024-01-01T00:00:00', which must say its offset from UTC",
        ),
    ],
)
def test_bound_of_a_key_is_kept(key, good, bad, words):
    free, limited = (resolve(command(dict[it, int])) for it in (key.__origin__, key))
    assert limited.bind({"x": {good: 1}}) is not None
    with pytest.raises(WireError, match=rf"^Cmd\.x {re.escape(words)}"):
        limited.bind({"x": {bad: 1}})
    with pytest.raises(ValueError, match=rf"^Cmd's answer {re.escape(words)}"):
        limited.encode_answer(free.decode_answer({bad: 1}))


COLOUR = Literal["red", "blue"]


@pytest.mark.parametrize(
    ("annotation", "good", "bad", "words"),
    [
        (Annotated[int, at.Ge(0)] | float, [-1.5, 1, 0.5], [-1], "at least 0"),
        (Annotated[int, Meta(ge=0)] | float, [-1.5, 1], [-1], "at least 0"),
        (int | Annotated[float, at.Ge(0)], [-1, 0.5], [-1.5, math.nan], "at least 0"),
        (int | Annotated[float, Meta(ge=0)], [-1, 0.5], [-1.5], "at least 0"),
        (Annotated[float, at.Ge(0)] | Level, [Level.LOW, 2.5], [-1.5], "at least 0"),
        (Annotated[float, at.Ge(0)] | None, [1, 0.5, None], [-1, -1.5], "at least 0"),
        (Annotated[str, at.MinLen(3)] | list[int], ["abc", [1], []], ["a"], "3 characters"),
        (str | Annotated[list[int], at.MinLen(3)], ["a", [1, 2, 3]], [[1]], "3 items"),
        (Annotated[str, at.MinLen(3)] | dict[str, int], ["abc", {}], ["a"], "3 characters"),
        (Annotated[str, at.MinLen(3)] | Inner, ["abc", Inner(1)], ["a"], "3 characters"),
        (Annotated[date | list[int], at.MaxLen(2)], [date(2026, 1, 2), [1]], [[1] * 3], "2 items"),
        (Annotated[COLOUR | list[int], at.MaxLen(2)], ["blue", [1]], [[1] * 3], "2 items"),
        (Annotated[Level | float, at.Ge(5)], [Level.LOW, 5.5], [4.5], "at least 5"),
        (Annotated[Inner | list[int], at.MaxLen(0)], [Inner(1), []], [[1]], "0 items"),
        (Annotated[int | str | None, at.Ge(0), at.MinLen(1)], [0, "a", None], [-1, ""], "at least"),
        (
            Annotated[Annotated[int | str, at.Ge(0)] | None, at.MinLen(1)],
            [0, "a", None],
            [-1, ""],
            "at least",
        ),
        (list[Annotated[int, at.Ge(0)] | float], [[-1.5]], [[0, -1]], "at least 0"),
    ],
    ids=str,
)
def test_constraint_of_one_member_of_a_union_says_nothing_about_the_others(
    annotation, good, bad, words
):
    cls = command(annotation)
    command_type = resolve(cls)
    for value in good:
        fields = DECODER.decode(command_type.encode_call(b"\x01", cls(value)))[2]
        arrived = command_type.bind(fields).x
        answer = command_type.decode_answer(DECODER.decode(command_type.encode_answer(value)))
        assert (arrived, answer) == (value, value)
    for value in bad:
        fields = DECODER.decode(command_type.encode_call(b"\x01", cls(value)))[2]
        with pytest.raises(WireError, match=rf"^Cmd\.x.* must (be|have) .*{words}"):
            command_type.bind(fields)
        with pytest.raises(ValueError, match=rf"^Cmd's answer.* must (be|have) .*{words}"):
            command_type.encode_answer(value)


def test_int_beside_a_float_with_a_constraint_stays_an_int():
    cls = command(Annotated[float, at.Ge(0)] | Literal[1, 2])
    command_type = resolve(cls)
    fields = DECODER.decode(command_type.encode_call(b"\x01", cls(1)))[2]
    assert repr(command_type.bind(fields).x) == "1"
    with pytest.raises(WireError, match=r"^Cmd\.x must be a float or one of 1, 2, not 3$"):
        command_type.bind({"x": 3})


class GeneralMetadata(at.BaseMetadata):
    """As `pydantic.Field` made them before 2.10: with whatever it was told."""

    def __init__(self, **told: object) -> None:
        self.__dict__ = told


GeneralMetadata.__name__ = "_PydanticGeneralMetadata"


@pytest.mark.parametrize(("allowed", "refused"), [(False, True), (True, False), (None, False)])
def test_what_an_older_pydantic_says_of_infinity_is_enforced(allowed, refused):
    cls = command(Annotated[float, GeneralMetadata(allow_inf_nan=allowed, ge=0)])
    command_type = resolve(cls)
    assert command_type.bind({"x": 5.0}).x == 5
    if refused:
        with pytest.raises(WireError, match=r"^Cmd\.x must be finite, not inf$"):
            command_type.bind({"x": math.inf})
    else:
        assert command_type.bind({"x": math.inf}).x == math.inf


def test_literal_beside_text_with_a_constraint_can_not_be_told_apart():
    with pytest.raises(TypeError, match=r"in one union travel both as text"):
        resolve(command(Literal["a"] | Annotated[str, at.MinLen(3)]))


def test_constraint_is_no_matter_of_the_client():
    """Whose class may be older: the server decides, and says so."""
    cls = command(Annotated[int, at.Ge(0)])
    assert DECODER.decode(resolve(cls).encode_call(b"\x01", cls(-1))) == [1, "Cmd", {"x": -1}]


HARMLESS = [
    "a note",
    typing_extensions.Doc("a note"),
    SimpleNamespace(help="a note"),
    {"help": ["text"]},
    [1, 2],
    None,
    int,
    len,
    at.Unit("m"),
    Field(),
    Field(allow_inf_nan=True),
    Field(coerce_numbers_to_str=False),
    Field(description="a note", title="X", examples=[1]),
    pydantic.Strict(),
    pydantic.WithJsonSchema({}),
    Meta(title="X", description="a note", examples=[1], extra={"a": 1}),
    SimpleNamespace(ge=None, pattern=print),
]


@pytest.mark.parametrize("metadata", HARMLESS, ids=repr)
def test_what_only_describes_is_left_alone(metadata):
    command_type = resolve(command(Annotated[int, metadata]))
    assert command_type.bind({"x": -5}).x == -5


class Marker:
    """As pydantic's documents write them: a class, and no object of it."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source, handler):
        raise NotImplementedError


UNKNOWN = [
    (Marker, "the constraint <class "),
    (at.Ge, "the constraint <class 'annotated_types.Ge'>"),
    (Meta, "the constraint <class 'msgspec.Meta'>"),
    (Field(exclude=True), "`exclude` of pydantic's Field is not known"),
    (at.Predicate(str.islower), "the constraint Predicate("),
    (at.Timezone("UTC"), "the constraint Timezone("),
    (at.Not(str.islower), "the constraint Not("),
    (at.Ge("a"), "the bound Ge='a' is not known; bounds are numbers"),
    (at.Ge(Decimal(1)), "the bound Ge=Decimal('1') is not known; bounds are numbers"),
    (at.MultipleOf(0), "the bound MultipleOf=0 is not known; bounds are numbers"),
    (at.MinLen(-1), "MinLen is a number of items, not -1"),
    (pydantic.AfterValidator(abs), "the constraint AfterValidator("),
    (pydantic.BeforeValidator(abs), "the constraint BeforeValidator("),
    (Field(alias="y"), "`alias` of pydantic's Field is not known"),
    (Field(max_digits=3), "`max_digits` of pydantic's Field is not known"),
    (SimpleNamespace(ge=0), "the constraint namespace(ge=0) is not known"),
    (SimpleNamespace(__get_pydantic_core_schema__=print), "the constraint namespace("),
    (attrs.validators.ge(0), "the constraint <Validator for x >= 0"),
]


@pytest.mark.parametrize(("metadata", "words"), UNKNOWN, ids=[repr(one[0]) for one in UNKNOWN])
def test_constraint_that_is_not_known_is_refused(metadata, words):
    with pytest.raises(TypeError) as caught:
        resolve(command(Annotated[int, metadata]))
    assert str(caught.value).startswith(f"Cmd.x: {words}")
    assert str(caught.value).endswith(", so nobody would enforce it")


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (Annotated[int, at.MinLen(1)], "`MinLen` says nothing about an int"),
        (Annotated[int, Meta(min_length=1)], "`min_length` says nothing about an int"),
        (Annotated[bool, at.Ge(0)], "`Ge` says nothing about a bool"),
        (Annotated[str, at.Ge(0)], "`Ge` says nothing about a str"),
        (Annotated[Decimal, at.Ge(0)], "`Ge` says nothing about a `Decimal`"),
        (Annotated[datetime, at.MinLen(1)], "`MinLen` says nothing about a `datetime`"),
        (Annotated[str, at.Timezone(None)], "`tz` says nothing about a str"),
        (Annotated[None, at.Ge(0)], "`Ge` says nothing about None"),
        (Annotated[bytes, Field(pattern="a")], "`pattern` says nothing about bytes"),
        (Annotated[str, Field(pattern="(")], "missing ), unterminated subpattern at position 0"),
    ],
    ids=str,
)
def test_constraint_that_says_nothing_is_refused(annotation, words):
    with pytest.raises(TypeError, match=rf"^Cmd\.x: {re.escape(words)}"):
        resolve(command(annotation))


@pytest.mark.parametrize(
    "annotation",
    [
        Annotated[Iterator[int], at.Ge(0)],
        Annotated[Subscription[int], Meta(ge=0)],
        Annotated[Awaitable[int], Field(ge=0)],
        Annotated[Generator[int, None, int], at.Predicate(bool)],
    ],
    ids=str,
)
def test_constraint_around_an_answer_that_takes_time_is_refused(annotation):
    with pytest.raises(TypeError, match=r"^Cmd\.process: .*; put it in the brackets, around the "):
        resolve(command(int, answer=annotation))
    note = annotation.__origin__
    assert resolve(command(int, answer=Annotated[note, "a note"])).kind is not Kind.PLAIN


def test_set_with_an_item_twice_is_no_longer_than_it_will_be():
    command_type = resolve(command(Annotated[set[int], at.MinLen(2)]))
    with pytest.raises(WireError, match=r"^Cmd\.x has two items that mean the same$"):
        command_type.bind({"x": [1, 1]})


# ---------------------------------------------------------------------------------------------
# Classes that others validate


def pydantic_dataclass():
    return pydantic.dataclasses.dataclass(type("Inner", (), {"__annotations__": {"x": int}}))


@pytest.mark.parametrize("around", [lambda it: it, lambda it: list[it], lambda it: it | None])
def test_dataclass_of_pydantic_is_refused(around):
    sentence = r"Inner: another library validates this class, and ipcpoll would not ask it"
    with pytest.raises(TypeError, match=sentence):
        resolve(command(around(pydantic_dataclass())))


def test_command_that_is_a_dataclass_of_pydantic_is_refused():
    @pydantic.dataclasses.dataclass
    class Cmd:
        x: Annotated[int, Field(ge=0)]

        def process(self, ctx) -> int: ...

    with pytest.raises(TypeError, match=r"Cmd: another library validates this class"):
        resolve(Cmd)


def test_model_and_class_of_attrs_are_refused_with_a_hint():
    class Model(pydantic.BaseModel):
        x: int

    @attrs.define
    class Defined:
        x: int

    for cls in (Model, Defined):
        with pytest.raises(TypeError, match=r"can't be carried; use a dataclass$"):
            resolve(command(cls))


def test_default_that_only_pydantic_understands_is_refused():
    @dataclass
    class Cmd:
        x: int = Field(default=1, ge=0)

        def process(self, ctx) -> int: ...

    with pytest.raises(TypeError, match=r"Cmd\.x: its default is a `FieldInfo` of another library"):
        resolve(Cmd)


@pytest.mark.parametrize(
    "annotation",
    [
        Annotated[int, at.Ge(0)] | UnsetType,
        Annotated[Annotated[int, at.Ge(0)] | UnsetType | None, "a note"],
    ],
    ids=str,
)
def test_default_that_is_unset_is_no_foreign_default(annotation):
    @dataclass
    class Cmd:
        x: annotation = UNSET

        def process(self, ctx) -> int: ...

    assert resolve(Cmd).bind({}) == Cmd()
    with pytest.raises(WireError, match=r"^Cmd\.x must be at least 0, not -1$"):
        resolve(Cmd).bind({"x": -1})


@pytest.mark.parametrize("constraint", [at.Ge(0), Meta(ge=0)], ids=repr)
def test_constraint_around_what_may_be_unset_is_refused(constraint):
    @dataclass
    class Cmd:
        x: Annotated[Annotated[int | UnsetType, "a note"], constraint] = UNSET

        def process(self, ctx) -> int: ...

    with pytest.raises(TypeError, match=r"Cmd\.x: put the constraint around the type that it is "):
        resolve(Cmd)
