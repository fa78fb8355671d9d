"""A command's answer in pieces, as the program holds it: see `flow`."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from ..errors import UsageError
from .flow import Flow

P = TypeVar("P")
R = TypeVar("R")


class Stream(Generic[P, R]):
    """The pieces of an answer: an iterator, and a context manager that ends it. From
    `Client.stream`.

    `next` blocks, at most for the time limit, and raises what `Client.call` would. Behind the last
    piece `result` is the answer. The methods belong to the client's thread.

    One that is forgotten before its end (the loop was left by ``break``) is closed, with a
    ResourceWarning: at once where that can be, else when the client is used next.
    """

    def __init__(self, flow: Flow[P, R]) -> None:
        self._flow = flow
        flow.holder = _Holder.of(self, flow)

    @property
    def lost(self) -> int:
        """How many pieces were lost before those that were read: the reader was too slow."""
        return self._flow.lost

    @property
    def gaps(self) -> int:
        """How often pieces may be missing because the server went away and came back."""
        return self._flow.gaps

    def __iter__(self) -> Stream[P, R]:
        return self

    def __next__(self) -> P:
        """Return the next piece, and wait for it. Raises UsageError when `each` gets them."""
        flow = self._flow
        if flow.is_taken:
            raise UsageError("the pieces of this stream go to a function already")
        if not flow.has_come:
            flow.wait()
        return flow.next_come()

    @property
    def result(self) -> R:
        """The answer, behind the last piece. Raises UsageError before that, and the error of a
        stream that has failed."""
        return self._flow.result

    def each(
        self, function: Callable[[P], object], *, gap: Callable[[], object] | None = None
    ) -> Future[R]:
        """Let `Client.poll` call `function` for each piece; return a future of the answer.

        For programs with a loop and no thread. The stream itself may be forgotten then. `gap` is
        called before the first piece behind each gap. The time limit bounds the wait for each
        piece, from now on. What a function raises comes out of ``poll`` (the adapters tell the
        loop's users of it), and the stream goes on. Cancelling the future closes the stream. Does
        not block.
        """
        if self._flow.is_taken:
            raise UsageError("the pieces of this stream go to a function already")
        return self._flow.each(function, gap)

    def close(self) -> None:
        """End it: cancel the command if it still runs. Unread pieces are dropped. Idempotent."""
        self._flow.close()

    def __enter__(self) -> Stream[P, R]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<ipcpoll.Stream of {self._flow.name}>"

    def __del__(self) -> None:
        flow: Flow[P, R] | None = getattr(self, "_flow", None)  # None: it was never made
        if flow is not None and flow.wants_a_reader:
            flow.forget()  # first: a warning may be made an error
            warnings.warn(
                f"{self!r} was left before its end and not closed; its command is cancelled",
                ResourceWarning,
                source=self,
                stacklevel=1,
            )

    # -----------------------------------------------------------------------------------------
    # For clients that await

    @property
    def has_come(self) -> bool:
        """Whether a piece or the end is here."""
        return self._flow.has_come

    def next_come(self) -> P:
        """Return a piece that has come, or raise what is behind the last one. Never waits."""
        return self._flow.next_come()

    def notify(self, function: Callable[[], None]) -> None:
        """Call `function` once, inside `poll`, when there is something for `next_come`."""
        self._flow.notify(function)

    def notify_no_more(self) -> None:
        """Call nothing: whoever waited waits no more. The pieces stay, and nobody's time runs."""
        self._flow.notify_no_more()


class _Holder(weakref.ref[Stream[Any, Any]]):
    """A note that the client follows when nobody holds the stream any more.

    It does what `Stream.__del__` does, where that was interrupted before its first step: a
    reference whose callback is one call of C's leaves its note all the same.
    """

    _flow: Flow[Any, Any]

    @classmethod
    def of(cls, stream: Stream[Any, Any], flow: Flow[Any, Any]) -> _Holder:
        """Refer to the stream, weakly, and tell the client's notes of its end."""
        holder = cls(stream, flow.notes.append)
        holder._flow = flow
        return holder

    def __call__(self) -> None:
        """Follow the note."""
        self._flow.abandon()
