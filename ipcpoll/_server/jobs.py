"""Calls whose `process` has returned and whose answer is still to come. No thread.

Behind each is a piece of `work`: a future, a generator, a subscription. What is promised:

* Each gets exactly one end: its answer, its error, or its client's going away. Then its work is
  given up: a future is cancelled, a generator closed, a place at a topic left.
* Work is advanced in turns of the row in which connections wait as well, so each delays the others
  by one step at most. Work that waits is not in the row, and wakes nobody.
* A client that does not read stops its own work, not the program.
* A call's time limit is kept here, on the deadlines of the server.
* A call in whose own step the server was closed goes on to its answer, although there are no turns
  any more ("answer, then stop"): what is left of a generator at once, within the time of one poll;
  the others as they are done, which `tell` says then (`_drive`).

`tell` alone is called from other threads: it lists who can go on, and wakes the server.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Final, ParamSpec, TypeVar

from .._schema.commands import CommandType
from .._system.log import Log, describe
from .._system.peer import Credentials, reset_caller, set_caller
from .._system.wakeup import Deadline, Deadlines, Wakeup
from .._wire.messages import Call
from ..errors import Cancelled, CommandError, InternalError, ShuttingDown
from . import replies as calls
from .connection import Connection
from .running import Running
from .work import CoroutineHost, NoCoroutines, Progress, Work, make_work

P = ParamSpec("P")
R = TypeVar("R")

_NO_LOOP: Final = (
    "%s is asynchronous, and the server is attached to no loop that runs coroutines; "
    "ipcpoll.adapters has asyncio_loop, trio_loop, anyio_loop and twisted_loop"
)

CLOSED: Final = ShuttingDown.of_one_that_began(
    "the server closed before the call was answered; it had begun, and may have run"
)
"""What a call is told that had begun and was not on the stack."""

GONE: Final = Cancelled.of_one_that_began("the client went away")
"""Why the work of a client that has gone is given up. Nobody is there to read it."""


class LateCall:
    """One call in flight. As `caller`'s authority it says who asks, while it lasts."""

    __slots__ = (
        "__weakref__",
        "busy",
        "call",
        "command",
        "connection",
        "credentials",
        "deadline",
        "end",
        "gave_way",
        "lingers",
        "on_the_stack",
        "work",
    )

    def __init__(self, call: Call, command: CommandType, connection: Connection) -> None:
        self.call = call._replace(fields={})  # they would count for nobody's memory
        self.command = command
        # A notification belongs to nobody: it goes on when its client has gone.
        self.connection = None if call.call_id is None else connection
        self.credentials: Credentials = connection.credentials
        self.work: Work | None = None
        self.deadline: Deadline | None = None
        self.end: CommandError | None = None
        """Why it is to be given up at its next turn; None: it is not."""
        self.on_the_stack = 0  # it is being advanced, in a poll of this depth
        self.busy = 1  # it has not ended
        self.gave_way = False  # to those that called during a step; once before each of its own
        self.lingers = False  # the server was closed in its own step, and it goes on to its answer

    @property
    def may_go_on(self) -> bool:
        """Whether its client takes what it makes."""
        connection = self.connection
        return connection is None or connection.takes_pieces

    @property
    def is_cut_off(self) -> bool:
        """Whether its client takes nothing, and there is no poll that could wait for room."""
        connection = self.connection
        return connection is not None and (connection.hung_up or not connection.has_room)


class LateCalls:
    """The late calls of one server."""

    def __init__(
        self,
        row: OrderedDict[Any, None],
        wakeup: Wakeup,
        deadlines: Deadlines,
        log: Log,
        clock: Callable[[], float],
        poll_seconds: float,
        running: Running,
    ) -> None:
        self._running = running
        self._row = row
        self._wakeup = wakeup
        self._deadlines = deadlines
        self._log = log
        self._clock = clock
        self._poll_seconds = poll_seconds
        self.deliver: Callable[[Connection, list[bytes]], None] = lambda *_: None
        """Sends what a call that lingers has made, and ends its connection behind the last."""
        self.host = CoroutineHost()
        self._all: dict[LateCall, None] = {}
        self._told: deque[LateCall] = deque()  # those that can go on, as `tell` says
        self._woken = False  # `tell` has woken the server since it last looked
        self.parked: dict[Connection, dict[LateCall, None]] = {}
        """Those that could go on, and whose client has no room."""
        self.notifications: dict[LateCall, None] = {}
        """Those that nobody waits for. They go on when their clients have gone."""
        # Those that linger and wait to be told. Whoever takes one out of here drives it: a future
        # may be finished by another thread just when this one looks.
        self._lingering: dict[LateCall, None] = {}
        self._closed = False

    def __len__(self) -> int:
        return len(self._all)

    @property
    def linger(self) -> bool:
        """Whether some go on to their answers although the server has closed."""
        return bool(self._lingering)

    # -----------------------------------------------------------------------------------------
    # Beginning

    def begin(self, connection: Connection, call: Call, later: calls.Later) -> bytes | None:
        """Let a call be answered later; return its error when it can't be."""
        late = LateCall(call, later.command, connection)
        protocol = connection.protocol
        before = set_caller(late)  # a coroutine keeps it
        late.on_the_stack = connection.busy  # its first step may be taken in here, and may close
        try:
            late.work = self._running_out(
                make_work, later.command, later.promised, call.call_id, self.host
            )
            self._list(late)
            ready = self._running_out(late.work.begin, self._tell_of(late))
        except (KeyboardInterrupt, SystemExit):
            late.end = GONE  # its client is closed for it; a notification has its last turn
            raise
        except BaseException as error:
            self._give_up(late, connection.busy)
            if isinstance(error, NoCoroutines):
                return calls.fail(call, InternalError(_NO_LOOP % call.name), protocol, self._log)
            return calls.raised(call, error, protocol, self._log)
        finally:
            late.on_the_stack = 0
            reset_caller(before)
        if self._closed:  # in its `process`, or in here
            return b"".join(self._drive(late, connection.busy)) or None
        if ready or late.end is not None:
            self._row[late] = None
        if late.connection is not None and not protocol.can_send:
            self._end_at_its_turn(late, GONE)
        elif call.call_id is not None and call.timeout is not None:
            sentence = f"the call's time limit of {call.timeout:g} s passed before its answer"
            late.deadline = self._deadlines.add(
                call.arrived + call.timeout,
                lambda: self._end_at_its_turn(late, Cancelled.of_one_that_began(sentence)),
            )
        return None

    def _running_out(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call what runs the program's own code, which may poll and close."""
        running = self._running
        before, running.own = running.own, False
        try:
            return function(*args, **kwargs)
        finally:
            running.own = before

    def _list(self, late: LateCall) -> None:
        self._all[late] = None
        connection = late.connection
        if connection is not None:
            if connection.late is None:
                connection.late = {}
            assert late.call.call_id is not None
            connection.late[late.call.call_id] = late
        else:
            self.notifications[late] = None

    def _tell_of(self, late: LateCall) -> Callable[[], None]:
        # Weakly: a future that a generator waited for outlives its call, and keeps this.
        reference = weakref.ref(late)

        def tell() -> None:
            late = reference()
            # What is to be ended is in the row, or on the stack; its cancel tells of itself here.
            if late is None or not late.busy or late.end is not None:
                return
            if self._closed:
                self._go_on_lingering(late)
                return
            self._told.append(late)
            # Before it takes the list, the server says that it was not woken; so either it finds
            # this one there, or it is woken again.
            if not self._woken:
                self._woken = True
                self._wakeup.wake()

        return tell

    # -----------------------------------------------------------------------------------------
    # Whose turn it is

    def take_in(self) -> None:
        """Let those that can go on join the row."""
        self._woken = False
        told = self._told
        while told:
            late = told[0]
            if late.busy:
                self._row[late] = None
            told.popleft()  # last: an interruption must lose nobody

    def park(self, late: LateCall) -> None:
        """Let it wait until its client has room."""
        assert late.connection is not None
        self.parked.setdefault(late.connection, {})[late] = None

    def unpark(self, connection: Connection) -> None:
        """Let those go on that waited for room, if there is some now."""
        if connection.takes_pieces:
            for late in self.parked[connection]:
                if late.busy:
                    self._row[late] = None
            del self.parked[connection]

    def advance(self, late: LateCall, depth: int) -> list[bytes] | None:
        """Go one step on with one that has its turn; return what is to be sent.

        `depth` says how many polls are on the stack. None: it had nothing to do. Raises
        KeyboardInterrupt and SystemExit, as the program's own code does.
        """
        frames = self._step(late, depth) if late.end is None else []
        if late.end is None or not late.busy:
            return frames
        if late.end is CLOSED:  # in this step
            return (frames or []) + self._drive(late, depth)
        return (frames or []) + self._ended_by(late, late.end, depth)

    def _step(self, late: LateCall, depth: int) -> list[bytes] | None:
        work = late.work
        assert work is not None
        call, command = late.call, late.command
        protocol = None if late.connection is None else late.connection.protocol
        before = set_caller(late)
        late.on_the_stack = depth
        value: Any
        try:
            progress, value = self._running_out(work.advance)
        except (KeyboardInterrupt, SystemExit):
            late.end = GONE
            raise
        except BaseException as error:
            progress, value = Progress.FAILED, error
        finally:
            late.on_the_stack = 0
            reset_caller(before)
        if progress is Progress.WAIT:
            return None
        if progress is Progress.ENDED:
            self._forget(late)
            if protocol is None:
                return []
            return _listed(calls.answer(call, command, value, protocol, self._log))
        if progress is Progress.FAILED:
            self._forget(late)
            if type(value).__name__ == "CancelledError":  # each kind of future has its own class
                why = Cancelled.of_one_that_began(f"{call.name} was cancelled by the program")
                return _listed(calls.fail(call, why, protocol, self._log))
            return _listed(calls.raised(call, value, protocol, self._log))
        self._row[late] = None
        if progress is Progress.AGAIN or protocol is None or not protocol.can_send:
            return []
        assert call.call_id is not None
        try:
            if progress is Progress.PIECE:
                return [protocol.piece(call.call_id, command.encode_piece(value))]
            return [protocol.pieces(call.call_id, *value)]
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            self._give_up(late, depth)
            return _listed(calls.unfit(call, error, protocol, self._log, "piece"))

    def _ended_by(self, late: LateCall, why: CommandError, depth: int) -> list[bytes]:
        """End one whose answer is not wanted any more."""
        frame = None
        connection = late.connection
        if connection is not None and not connection.closed:
            frame = calls.fail(late.call, why, connection.protocol, self._log)
        self._give_up(late, depth)
        return _listed(frame)

    # -----------------------------------------------------------------------------------------
    # Ending

    def cancel(self, connection: Connection, call_id: int, depth: int) -> list[bytes]:
        """End a call that its client has cancelled; return what is to be sent."""
        late = None if connection.late is None else connection.late.get(call_id)
        if late is None or (late.work is not None and late.work.is_done):
            return []  # it crosses the answer
        if late.end is None:
            late.end = Cancelled.of_one_that_began(
                "the call was cancelled; it had begun, and may have run"
            )
        return [] if late.on_the_stack else self._ended_by(late, late.end, depth)

    def forsake(self, connection: Connection) -> None:
        """End the calls of a client that has gone, each at its next turn."""
        for late in list((connection.late or {}).values()):
            self._end_at_its_turn(late, GONE)
        self.parked.pop(connection, None)

    def _end_at_its_turn(self, late: LateCall, why: CommandError) -> None:
        if late.busy and late.end is None:
            late.end = why
            self._row[late] = None
            self._wakeup.signal()

    def recover(self, depth: int) -> None:
        """After an interruption: give their turns back to those that may have lost them.

        `depth` polls are still on the stack. A call of a client is ended with its connection, so
        it is about notifications, and those that are to be ended.
        """
        for late in self._all:
            if late.on_the_stack > depth:
                late.on_the_stack = 0
            if late.connection is None or late.end is not None:
                self._row[late] = None

    def answer_ready(self) -> list[tuple[Connection, list[bytes]]]:
        """Before the server closes: return the answers of those that are done."""
        self.take_in()
        answers: list[tuple[Connection, list[bytes]]] = []
        parked = [late for row in self.parked.values() for late in row]
        for late in [*self._row, *parked]:
            if isinstance(late, LateCall) and late.end is None and late.connection is not None:
                work = late.work
                if work is not None and work.is_done and not late.on_the_stack:
                    answers.append((late.connection, self._step(late, 1) or []))
        return answers

    def mark_closing(self) -> None:
        """Before the server closes: find those that it is closed by, which are still answered."""
        for late in list(self._all):
            work = late.work
            if work is None or late.on_the_stack or late.end is not None:
                continue
            if work.is_running:
                late.lingers = True
                self._lingering[late] = None

    def close(self) -> None:
        """Give all work up, but what goes on to its answer. Idempotent."""
        self._closed = True
        self._told.clear()
        self.parked.clear()
        with ExitStack() as ending:  # one that is interrupted does not keep the others
            for late in reversed(self._all):
                ending.callback(self._end_at_close, late)

    def _end_at_close(self, late: LateCall) -> None:
        if late.lingers:
            return
        if late.on_the_stack:
            late.end = late.end or CLOSED
            return
        try:
            self._give_up(late, 1)
        finally:
            self._forget(late)

    # -----------------------------------------------------------------------------------------
    # After the server has closed

    def _go_on_lingering(self, late: LateCall) -> None:
        """Learn that one of those that linger can go on."""
        if self._lingering.pop(late, late) is not None:  # it does not linger, or is driven already
            return
        frames = self._drive(late, 1)
        if late.connection is not None:
            self.deliver(late.connection, frames)

    def _drive(self, late: LateCall, depth: int) -> list[bytes]:
        """Go on with a call that has closed the server; return what is to be sent.

        One that has to wait is driven again as it is told of. A generator has no turns to come any
        more: it is given up where it waits, and when the time of a poll is over.
        """
        late.lingers, late.end = True, None
        until = self._clock() + self._poll_seconds
        sent: list[bytes] = []
        work = late.work
        assert work is not None
        while late.busy:
            frames = self._step(late, depth)
            self._row.pop(late, None)
            sent += frames or []
            if not late.busy:
                break
            if frames is None and not work.needs_turns:
                self._lingering[late] = None
                if not work.is_done or self._lingering.pop(late, late) is not None:
                    break
            elif frames is None or late.is_cut_off or (work.needs_turns and self._clock() >= until):
                sent += self._ended_by(late, CLOSED, depth)
        return sent

    def abandon(self) -> None:
        """Forget all work without touching it: in a forked child it is the parent's too."""
        self._closed = True
        self._told.clear()
        self._lingering.clear()

    def _forget(self, late: LateCall) -> None:
        self._row.pop(late, None)
        self._all.pop(late, None)
        self.notifications.pop(late, None)
        connection, call_id = late.connection, late.call.call_id
        if connection is not None and connection.late is not None and call_id is not None:
            connection.late.pop(call_id, None)
            parked = self.parked.get(connection)
            if parked is not None:
                parked.pop(late, None)
                if not parked:  # nobody unparks what has no late calls
                    self.parked.pop(connection, None)
        if late.deadline is not None:
            late.deadline.cancel()
            late.deadline = None
        late.busy = 0  # last: what an interruption leaves here is still listed, and ended again

    def _give_up(self, late: LateCall, depth: int) -> None:
        """Cancel the future, close the generator, and forget it.

        What the program's code raises is logged.
        """
        name = late.call.name
        late.on_the_stack = depth  # a `finally` of a generator may poll, or close the server
        try:
            if late.work is not None:
                self._running_out(late.work.give_up)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            sentence = f"the work of {name} could not be ended: {describe(error)}"
            self._log.exception(f"give up {name}", sentence, error)
        finally:
            late.on_the_stack = 0
        late.work = None
        self._forget(late)


def _listed(frame: bytes | None) -> list[bytes]:
    return [] if frame is None else [frame]
