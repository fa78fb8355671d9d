"""Topics: the program publishes, from any thread, and every subscriber gets it.

::

    prices = ipcpoll.Topic[Price](state=lambda: current_price)

    @dataclass
    class Watch:
        def process(self, ctx: Shop) -> Subscription[Price]:
            return prices.subscribe()

What is promised:

* `Topic.publish` never waits for a subscriber, and costs the same for one as for a thousand that
  are behind: the pieces are kept once, each subscriber only knows how far it is.
* A piece is encoded once, when it is published, and may be changed afterwards. (Only where the very
  first subscriber of its kind comes at that moment, in another thread, it is encoded later.)
* Memory is bounded: the newest `depth` pieces are kept. A subscriber that is slower loses the
  oldest, and is told how many.
* One lock, held for a few steps of bookkeeping and never while foreign code runs.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final, Generic, TypeAlias, TypeVar

from .._schema.answers import Subscription
from .._system import forks
from .._wire.messages import piece_frame
from ..errors import UsageError
from ..limits import KIB

T = TypeVar("T")
Encode: TypeAlias = Callable[[Any], bytes]

_RUN_BYTES: Final = 64 * KIB  # pieces that one turn sends together
_RUNS_KEPT: Final = 8


class Topic(Generic[T]):
    """Something that clients can subscribe to. A program has as many as it likes.

    `depth` is how many pieces are kept for those that are behind. `state`, if there is one, is
    called for each new subscriber, on the thread that polls, and makes its first piece; None: the
    first piece is the next that is published. Raises ValueError for a `depth` below 1.

    Pieces are what the command's ``Subscription[…]`` says.
    """

    def __init__(self, *, state: Callable[[], T] | None = None, depth: int = 256) -> None:
        if depth < 1:
            raise ValueError(f"depth must be at least 1, not {depth}")
        self._shelf: _Shelf[T] = _Shelf(state, depth)
        forks.watch(self._shelf)

    @property
    def subscribers(self) -> int:
        """How many subscribers there are."""
        return len(self._shelf.places)

    def publish(self, piece: T) -> None:
        """Let every subscriber have a piece. Any thread may; does not block.

        Raises TypeError or ValueError when a subscriber's command does not promise such a piece;
        then nobody gets it. Does nothing in a topic that was closed. Not for signal handlers.
        """
        self._shelf.put(piece)

    def subscribe(self) -> Subscription[T]:
        """Return a place from the next piece on. A command's `process` returns it.

        Raises UsageError when the topic was closed.
        """
        return self._shelf.new_place()

    def close(self) -> None:
        """End it: subscribers get what was published, and then the end. Any thread may; idempotent.

        `subscribe` raises UsageError after it.
        """
        self._shelf.close()

    def __repr__(self) -> str:
        return f"<ipcpoll.Topic ({self.subscribers} subscribers)>"


class _Piece:
    """One that was published."""

    __slots__ = ("_encoded", "_value")

    def __init__(self, value: Any, encoded: dict[Encode, bytes]) -> None:
        self._value = value
        self._encoded = encoded

    def encoded_by(self, encode: Encode) -> bytes:
        item = self._encoded.get(encode)
        if item is None:  # its first subscriber came while it was being published
            item = self._encoded[encode] = encode(self._value)
        return item


class _Shelf(Generic[T]):
    """The newest pieces of a topic, and who waits for more."""

    def __init__(self, state: Callable[[], T] | None, depth: int) -> None:
        self.state = state
        self._depth = depth
        # One that a signal handler finds taken by its own thread would never be given back.
        self._lock = threading.RLock()
        self._pieces: dict[int, _Piece] = {}
        self._newest = -1
        # Weakly, all of them: one that a command made and did not return is nobody's, and so are
        # those of a server that was forgotten.
        self.places: weakref.WeakSet[_Place[T]] = weakref.WeakSet()
        self._waiting: weakref.WeakSet[_Place[T]] = weakref.WeakSet()  # have taken all there is
        self._encoders: dict[Encode, weakref.WeakSet[_Place[T]]] = {}  # and who wants each
        self._runs: OrderedDict[tuple[Encode, int, int, int], bytes] = OrderedDict()
        self._closed = False

    def put(self, piece: T) -> None:
        wanted = [encode for encode, places in list(self._encoders.items()) if places]
        encoded = {encode: encode(piece) for encode in wanted}
        with self._lock:
            if self._closed:
                return
            self._newest += 1
            self._pieces[self._newest] = _Piece(piece, encoded)
            self._pieces.pop(self._newest - self._depth, None)
        self._wake_waiting()

    def close(self) -> None:
        self._closed = True
        self._wake_waiting()

    def _wake_waiting(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, weakref.WeakSet()
        for place in waiting:
            place.wake()

    def new_place(self) -> _Place[T]:
        with self._lock:
            if self._closed:
                raise UsageError("the topic is closed")
            place = _Place(self, self._newest + 1)
            self.places.add(place)
        return place

    def open_place(self, place: _Place[T], encode: Encode) -> None:
        """Encode what is published in this way, too."""
        with self._lock:
            self._encoders.setdefault(encode, weakref.WeakSet()).add(place)

    def close_place(self, place: _Place[T]) -> None:
        """Forget a place. Idempotent."""
        with self._lock:
            self.places.discard(place)
            self._waiting.discard(place)
            for encode, places in list(self._encoders.items()):
                places.discard(place)
                if not places:
                    del self._encoders[encode]

    def newer_than(self, place: _Place[T], number: int) -> tuple[int, list[_Piece]]:
        """Return the pieces from `number` on that are kept, and the number of the first.

        None: the place is woken by the next. Raises StopIteration when there will be none.
        """
        with self._lock:
            begin = max(number, self._newest + 1 - self._depth)
            pieces = [self._pieces[each] for each in range(begin, self._newest + 1)]
            if not pieces:
                if self._closed:
                    raise StopIteration
                self._waiting.add(place)
        return begin, pieces

    def run(self, encode: Encode, call_id: int, begin: int, items: list[bytes]) -> bytes:
        """Return the frames of some pieces in a row.

        Subscribers keep step, and the first call of each connection has the same id. So the bytes
        that one gets are mostly those that another got.
        """
        key = (encode, call_id, begin, begin + len(items))
        run = self._runs.get(key)
        if run is None:
            run = b"".join([piece_frame(call_id, item) for item in items])
            with self._lock:
                self._runs[key] = run
                if len(self._runs) > _RUNS_KEPT:
                    self._runs.popitem(last=False)
        return run

    def after_fork(self) -> None:
        """Forget the parent's subscribers. Called in a forked child; see `forks`."""
        self._lock = threading.RLock()  # a thread that is not here may hold the parent's
        self.places.clear()
        self._waiting.clear()
        self._encoders.clear()


class _Place(Subscription[T]):
    """A subscriber: how far it is."""

    def __init__(self, shelf: _Shelf[T], begins: int) -> None:
        self._shelf = shelf
        self._next = begins
        self._encode: Encode | None = None
        self._wake: Callable[[], None] | None = None
        self._first: bytes | None = None  # the state, encoded
        self._closed = False

    def wake(self) -> None:
        wake = self._wake
        if wake is not None:
            wake()

    def start(self, encode: Encode, wake: Callable[[], None]) -> None:
        if self._encode is not None or self._closed:
            raise UsageError("a subscription serves one call; subscribe again for another")
        self._shelf.open_place(self, encode)
        self._encode = encode
        self._wake = wake
        state = self._shelf.state
        if state is not None:
            try:
                self._first = encode(state())
            except BaseException:
                self.close()
                raise

    def take(self, call_id: int) -> tuple[bytes, int] | None:
        encode = self._encode
        if encode is None:
            raise StopIteration
        first, self._first = self._first, None
        if first is not None:
            return piece_frame(call_id, first), len(first)
        begin, pieces = self._shelf.newer_than(self, self._next)
        if not pieces:
            return None
        lost, self._next = begin - self._next, begin
        items: list[bytes] = []
        size = 0
        for piece in pieces[:1] if lost else pieces:
            items.append(piece.encoded_by(encode))
            size += len(items[-1])
            if size >= _RUN_BYTES:
                break
        self._next += len(items)
        largest = max(map(len, items))
        if lost:
            return piece_frame(call_id, items[0], lost), largest
        return self._shelf.run(encode, call_id, begin, items), largest

    def close(self) -> None:
        self._closed = True
        self._encode = self._wake = self._first = None
        self._shelf.close_place(self)
