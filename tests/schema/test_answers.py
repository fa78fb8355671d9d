"""What `process` may return: a value, one that comes later, or pieces."""

import asyncio
import collections
import collections.abc
import concurrent.futures
import functools
import sys
import typing
from dataclasses import dataclass, make_dataclass
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Generic,
    NewType,
    Union,
)

import cbor2
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from schema_types import (
    DECODER,
    INTS,
    POINTS,
    SELF,
    TREES,
    WORDS,
    Found,
    Lost,
    Pair,
    Percent,
    Point,
    T,
    Tree,
    Unlike,
)
from twisted.internet import defer
from wire import PLAIN, command

from ipcpoll._schema.answers import Kind, Subscription, Turn, is_deferred
from ipcpoll._schema.commands import resolve

BARE = "; without an annotation only None, bool, int, float, str, bytes, list and dict are carried"


# ---------------------------------------------------------------------------------------------
# A whole answer


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
# What an annotation says of when and how


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


# ---------------------------------------------------------------------------------------------
# Streams and deferreds that do not look like one


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
