"""What `process` may return beside a plain value: answers that come later, or in pieces. No I/O.

Here stands what an annotation promises (`promise_of`) and what programs use to keep it: `Turn`,
which a generator yields, and `Subscription`, which a `Topic` gives. How the answers are made, turn
by turn, is in `late`.
"""

from __future__ import annotations

import collections.abc
import functools
import inspect
import operator
import typing
from abc import ABC, abstractmethod
from collections.abc import Callable
from enum import Enum, auto
from typing import Any, Final, Generic, NamedTuple, TypeVar

from .annotations import kind_of, members_of, refuse_constraints

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Turn:
    """What a generator yields in place of a piece, to give its turn away.

    ``yield Turn()`` goes on at its next turn: the other clients are served, and the program's loop
    may draw. ``result = yield Turn(future)`` goes on when the future is done (anything with
    `add_done_callback` and `result`, or a Deferred), and not before; the value is its result, and
    its exception is raised at the yield. Closing the generator does not cancel that future.
    """

    __slots__ = ("future",)

    def __init__(self, future: object = None) -> None:
        if future is not None and not is_future(future):
            raise TypeError(f"Turn takes a future or a Deferred, not {future!r}")
        self.future = future

    def __repr__(self) -> str:
        return "Turn()" if self.future is None else f"Turn({self.future!r})"


class Subscription(ABC, Generic[T_co]):
    """A client's place at a `Topic`: return it from `process`. Made by `Topic.subscribe`.

    One subscription serves one call. The methods are for the server.
    """

    @abstractmethod
    def start(self, encode: Callable[[Any], bytes], wake: Callable[[], None]) -> None:
        """Encode pieces with `encode`, and call `wake`, from any thread, when there is one.

        Raises what the topic's state raises, and UsageError when it was started already.
        """

    @abstractmethod
    def take(self, call_id: int) -> tuple[bytes, int] | None:
        """Return the next pieces as frames, and the bytes of the largest; None: none yet.

        Raises StopIteration when the topic has ended, and what `encode` raises.
        """

    @abstractmethod
    def close(self) -> None:
        """Leave the topic. Idempotent."""


class Kind(Enum):
    """When an answer comes, as its annotation says."""

    PLAIN = auto()  # with the return of `process`
    FUTURE = auto()  # a future, a Deferred or a coroutine: when it is done
    GENERATOR = auto()  # a generator: pieces, then the answer
    ASYNC_GENERATOR = auto()  # an asynchronous generator
    TOPIC = auto()  # a subscription: pieces until the topic ends


class Promise(NamedTuple):
    """What the return annotation of `process` says."""

    kind: Kind
    answer: Any
    """The annotation of the answer."""
    piece: Any = typing.NoReturn
    """The annotation of each piece; NoReturn: there are none."""


_GENERATORS: Final[dict[Any, Kind]] = {
    collections.abc.Generator: Kind.GENERATOR,
    collections.abc.Iterator: Kind.GENERATOR,
    collections.abc.AsyncGenerator: Kind.ASYNC_GENERATOR,
    collections.abc.AsyncIterator: Kind.ASYNC_GENERATOR,
    Subscription: Kind.TOPIC,
}


def promise_of(process: Callable[..., Any], annotation: Any, place: str) -> Promise:
    """Return what `process`, as it stands in its class, promises with its return `annotation`.

    Raises TypeError that begins with `place`: what is in the function and what is written behind
    the arrow don't fit, or the annotation leaves out what a piece or an answer is.
    """
    promise = _promise_of(process, annotation, place)
    if promise.answer is not annotation:
        refuse_constraints(annotation, place)
    return promise


def _promise_of(process: Callable[..., Any], annotation: Any, place: str) -> Promise:
    bare = kind_of(annotation)  # `type Numbers = Iterator[int]`, `Annotated[Iterator[int], …]`
    origin = typing.get_origin(bare) or bare
    args = list(typing.get_args(bare))
    kind = _GENERATORS.get(origin) if isinstance(origin, type) else None
    decorated, process = process, inspect.unwrap(process)
    if inspect.iscoroutinefunction(process):
        return Promise(Kind.FUTURE, annotation)
    if _runs_generators(decorated):
        if origin is collections.abc.Generator and len(args) > 2:
            return Promise(Kind.FUTURE, args[2])  # of the function; decorated, it gives a Deferred
        process = decorated
    if inspect.isgeneratorfunction(process) and kind is not Kind.GENERATOR:
        raise TypeError(f"{place}: a generator is annotated `Generator[…]` or `Iterator[…]`")
    if inspect.isasyncgenfunction(process) and kind is not Kind.ASYNC_GENERATOR:
        raise TypeError(
            f"{place}: an asynchronous generator is annotated `AsyncIterator[…]` "
            "or `AsyncGenerator[…]`"
        )
    if kind is not None:
        if not args:
            raise TypeError(f"{place}: `{origin.__name__}` does not say what a piece is")
        answer = args[2] if origin is collections.abc.Generator and len(args) > 2 else None
        return Promise(kind, answer, _without_turn(args[0]))
    if origin is collections.abc.Coroutine:
        if len(args) < 3:
            raise TypeError(f"{place}: `Coroutine` does not say what the answer is")
        return Promise(Kind.FUTURE, args[2])
    if origin is collections.abc.Awaitable or (isinstance(origin, type) and is_future(origin)):
        if not args:
            raise TypeError(f"{place}: `{origin.__name__}` does not say what the answer is")
        return Promise(Kind.FUTURE, args[0])
    return Promise(Kind.PLAIN, annotation)


def is_future(thing: Any) -> bool:
    """Return whether it is done later: a future of any kind, or a Deferred; or such a class."""
    return (hasattr(thing, "add_done_callback") and hasattr(thing, "result")) or is_deferred(thing)


def is_deferred(thing: Any) -> bool:
    """Return whether it is a Deferred of Twisted, or such a class."""
    return hasattr(thing, "addCallbacks") and hasattr(thing, "addBoth")


def _runs_generators(function: Any) -> bool:
    """Return whether a decorator makes a Deferred or a future of a generator."""
    module = getattr(function, "__globals__", {}).get("__name__")
    return module in _DECORATORS and not inspect.isgeneratorfunction(function)


_DECORATORS: Final = frozenset({"twisted.internet.defer", "tornado.gen"})
"""Where `inlineCallbacks` and `gen.coroutine` are written."""


def _without_turn(annotation: Any) -> Any:
    """Return the annotation of the pieces among what a generator yields."""
    members = members_of(kind_of(annotation))
    if Turn not in members:
        return annotation
    pieces = [member for member in members if member is not Turn]
    return functools.reduce(operator.or_, pieces) if pieces else typing.NoReturn
