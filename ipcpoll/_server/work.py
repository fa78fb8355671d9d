"""What goes on behind a call whose answer comes later, each kind behind the same three methods.

A `Work` is begun once, advanced turn by turn, and ended or given up. It knows nothing of clients
and sockets; who has the next turn is decided in `round`, what becomes of the outcome in `late`.

What is promised: no method blocks, and none is called from another thread than the server's. What
the program's own code raises comes out of `advance` (and of `give_up`, for a generator that does
not want to end).
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from enum import Enum, auto
from typing import Any, Final

from .._attach.pollable import Event
from .._schema.answers import Kind, Subscription, Turn, is_deferred, is_future
from .._schema.commands import CommandType
from ..errors import UsageError


class Progress(Enum):
    """What came of one turn."""

    WAIT = auto()  # nothing; `tell` says when to go on
    AGAIN = auto()  # nothing, but it can go on
    PIECE = auto()  # one piece, and it can go on
    FRAMES = auto()  # pieces as frames, with the bytes of the largest, and it can go on
    ENDED = auto()  # the answer
    FAILED = auto()  # the exception that a future ended with; one of the work's own is raised


class CoroutineHost:
    """The loop that runs coroutines, if there is one: what an adapter gives to its server."""

    __slots__ = ("make_event", "spawn")

    def __init__(self) -> None:
        self.spawn: Callable[[Coroutine[Any, Any, Any]], Any] | None = None
        """Runs one; returns a future of any kind, or a Deferred, that can cancel it."""
        self.make_event: Callable[[], Event] | None = None
        """Makes an event for coroutines of this loop."""


class Work(ABC):
    """One piece of work."""

    @abstractmethod
    def begin(self, tell: Callable[[], None]) -> bool:
        """Start; return whether it can be advanced now. `tell`, from any thread: it can later."""

    @abstractmethod
    def advance(self) -> tuple[Progress, Any]:
        """Go one step on. May be called although nothing has happened, which is WAIT."""

    @abstractmethod
    def give_up(self) -> None:
        """End it, its answer is not wanted any more."""

    @property
    def is_done(self) -> bool:
        """Whether the answer is there, and `advance` only fetches it."""
        return False

    @property
    def is_running(self) -> bool:
        """Whether a coroutine of it is what runs just now, outside of `advance`."""
        return False

    @property
    def needs_turns(self) -> bool:
        """Whether nothing of it happens but in `advance`."""
        return False


class FutureWork(Work):
    """A future: `concurrent.futures`, asyncio, or what has the same methods.

    `coroutine` is what finishes it, where that is known.
    """

    def __init__(self, future: Any, coroutine: Coroutine[Any, Any, Any] | None = None) -> None:
        self._future = future
        self._coroutine = coroutine
        self._done = False

    def begin(self, tell: Callable[[], None]) -> bool:
        def done(_: object) -> None:
            self._done = True
            tell()

        self._future.add_done_callback(done)
        return self._done

    def advance(self) -> tuple[Progress, Any]:
        if not self._done:
            return _WAIT
        exception = getattr(self._future, "exception", None)
        # A thread that called sys.exit() has ended its future with SystemExit. That is an error of
        # this call, and no wish to end the program: so it is asked for, and not raised.
        error = None if exception is None else exception()
        return (Progress.ENDED, self._future.result()) if error is None else (_FAILED, error)

    @property
    def is_done(self) -> bool:
        return self._done

    @property
    def is_running(self) -> bool:
        return _is_running(self._coroutine)

    def give_up(self) -> None:
        cancel = getattr(self._future, "cancel", None)
        if cancel is not None and not self._done:
            cancel()


class DeferredWork(Work):
    """A Deferred of Twisted. It is consumed: who adds callbacks behind ours gets None."""

    def __init__(self, deferred: Any, coroutine: Coroutine[Any, Any, Any] | None = None) -> None:
        self._deferred = deferred
        self._coroutine = coroutine
        self._outcome: tuple[Any, BaseException | None] | None = None

    def begin(self, tell: Callable[[], None]) -> bool:
        def done(result: Any) -> None:
            self._outcome = (result, None)
            tell()

        def failed(failure: Any) -> None:  # returns None: the failure is handled, here
            self._outcome = (None, failure.value)
            tell()

        # Before anybody cancels it: else Twisted would log an unhandled error.
        self._deferred.addCallbacks(done, failed)
        return self._outcome is not None

    def advance(self) -> tuple[Progress, Any]:
        if self._outcome is None:
            return _WAIT
        value, error = self._outcome
        return (Progress.ENDED, value) if error is None else (_FAILED, error)

    @property
    def is_done(self) -> bool:
        return self._outcome is not None

    @property
    def is_running(self) -> bool:
        return _is_running(self._coroutine)

    def give_up(self) -> None:
        if self._outcome is None:
            self._deferred.cancel()


class GeneratorWork(Work):
    """A generator, or any iterator: one step for each turn."""

    def __init__(self, iterator: Iterator[Any]) -> None:
        self._iterator = iterator
        self._tell: Callable[[], None] | None = None
        self._waits_for: Work | None = None

    def begin(self, tell: Callable[[], None]) -> bool:
        self._tell = tell
        return True

    def advance(self) -> tuple[Progress, Any]:
        value: Any = None
        error: BaseException | None = None
        if self._waits_for is not None:
            try:
                progress, value = self._waits_for.advance()
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as raised:
                error = raised
            else:
                if progress is Progress.WAIT:
                    return _WAIT
                if progress is Progress.FAILED:
                    value, error = None, value
            self._waits_for = None
        try:
            item = self._step(value, error)
        except StopIteration as end:
            return Progress.ENDED, end.value
        except (KeyboardInterrupt, SystemExit) as raised:
            if raised is not error:
                raise
            return _FAILED, raised  # the future's, as in `FutureWork`
        if not isinstance(item, Turn):
            return Progress.PIECE, item
        if item.future is None:
            return _AGAIN
        if not hasattr(self._iterator, "send"):
            kind = type(self._iterator).__qualname__
            raise TypeError(f"only a generator can wait with Turn(future), and `{kind}` is none")
        assert self._tell is not None
        self._waits_for = _work_for_future(item.future)
        return _AGAIN if self._waits_for.begin(self._tell) else _WAIT

    def _step(self, value: Any, error: BaseException | None) -> Any:
        if error is not None:
            return self._iterator.throw(error)  # type: ignore[attr-defined]
        if value is not None:
            return self._iterator.send(value)  # type: ignore[attr-defined]
        return next(self._iterator)

    @property
    def needs_turns(self) -> bool:
        return True

    def give_up(self) -> None:
        self._waits_for = None
        close = getattr(self._iterator, "close", None)
        if close is not None:
            close()


class TopicWork(Work):
    """A subscription: pieces as they are published."""

    def __init__(
        self, subscription: Subscription[Any], encode: Callable[[Any], bytes], call_id: int | None
    ) -> None:
        self._subscription = subscription
        self._encode = encode
        self._call_id = call_id
        self._begun = False

    def begin(self, tell: Callable[[], None]) -> bool:
        if self._call_id is None:  # a notification: nobody gets its pieces
            return True
        self._begun = True
        try:
            self._subscription.start(self._encode, tell)
        except UsageError:
            self._begun = False  # it serves another call
            raise
        return True

    def advance(self) -> tuple[Progress, Any]:
        if self._call_id is None:
            return Progress.ENDED, None
        try:
            taken = self._subscription.take(self._call_id)
        except StopIteration:
            self._subscription.close()
            return Progress.ENDED, None
        return _WAIT if taken is None else (Progress.FRAMES, taken)

    @property
    def needs_turns(self) -> bool:
        return True

    def give_up(self) -> None:
        if self._begun:
            self._subscription.close()


class AsyncGeneratorWork(Work):
    """An asynchronous generator, driven by one coroutine in the loop, one piece ahead."""

    def __init__(
        self,
        pieces: AsyncIterator[Any],
        spawn: Callable[[Coroutine[Any, Any, Any]], Any],
        make_event: Callable[[], Event],
    ) -> None:
        self._pieces = pieces
        self._spawn = spawn
        self._make_event = make_event
        self._tell: Callable[[], None] | None = None
        self._waiting: list[Any] = []  # at most one piece
        self._taken = make_event()
        self._driver: Coroutine[Any, Any, Any] | None = None
        self._end: Work | None = None

    def begin(self, tell: Callable[[], None]) -> bool:
        self._tell = tell
        self._driver = drive = self._drive()
        try:
            self._end = _work_for_future(self._spawn(drive), drive)
        except BaseException:
            drive.close()  # or Python says that it was never awaited
            raise
        return self._end.begin(tell) or bool(self._waiting)

    async def _drive(self) -> None:
        pieces = self._pieces
        try:
            async for piece in pieces:
                self._taken = self._make_event()
                self._waiting.append(piece)
                assert self._tell is not None
                self._tell()
                await self._taken.wait()
        finally:
            close = getattr(pieces, "aclose", None)
            if close is not None:
                await close()

    def advance(self) -> tuple[Progress, Any]:
        if self._waiting:
            piece = self._waiting.pop()
            self._taken.set()
            return Progress.PIECE, piece
        assert self._end is not None
        return self._end.advance()

    @property
    def is_done(self) -> bool:
        return not self._waiting and self._end is not None and self._end.is_done

    @property
    def is_running(self) -> bool:
        return _is_running(self._driver)

    def give_up(self) -> None:
        if self._end is not None:
            self._end.give_up()


_WAIT: Final = (Progress.WAIT, None)
_FAILED: Final = Progress.FAILED
_AGAIN: Final = (Progress.AGAIN, None)


def make_work(
    command: CommandType, promised: Any, call_id: int | None, host: CoroutineHost
) -> Work:
    """Return the work behind what `process` has returned.

    Raises TypeError when that is not what the annotation promises, NoCoroutines when it needs a
    loop that can run coroutines, and there is none.
    """
    match command.kind:
        case Kind.GENERATOR if isinstance(promised, Iterator):
            return GeneratorWork(promised)
        case Kind.TOPIC if isinstance(promised, Subscription):
            return TopicWork(promised, command.encode_piece, call_id)
        case Kind.ASYNC_GENERATOR if isinstance(promised, AsyncIterator):
            if host.spawn is None or host.make_event is None:
                raise NoCoroutines
            return AsyncGeneratorWork(promised, host.spawn, host.make_event)
        case Kind.FUTURE if is_future(promised):
            return _work_for_future(promised)
        case Kind.FUTURE if isinstance(promised, Awaitable):
            coroutine = promised if inspect.iscoroutine(promised) else _await(promised)
            try:
                if host.spawn is None:
                    raise NoCoroutines
                return _work_for_future(host.spawn(coroutine), coroutine)
            except BaseException:
                coroutine.close()  # or Python says that it was never awaited
                raise
        case _:
            pass
    raise TypeError(
        f"{command.name}.process returned {type(promised).__qualname__}, "
        "which is not what its annotation promises"
    )


class NoCoroutines(Exception):
    """No loop is attached that can run coroutines."""


def _work_for_future(future: Any, coroutine: Coroutine[Any, Any, Any] | None = None) -> Work:
    kind = DeferredWork if is_deferred(future) else FutureWork
    return kind(future, coroutine)


def _is_running(coroutine: Coroutine[Any, Any, Any] | None) -> bool:
    # Of a coroutine that awaits another it is said as well, while the other one runs.
    return bool(getattr(coroutine, "cr_running", False))


async def _await(awaitable: Awaitable[Any]) -> Any:
    return await awaitable
