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
from .._system.hub import Hub
from .._system.log import Log, describe
from .._system.peer import Credentials
from .._system.timers import Deadline
from .._wire.messages import Call
from ..errors import Cancelled, CommandError, InternalError, ShuttingDown
from . import replies
from .caller import reset_caller, set_caller
from .connection import ServerConnection
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


class Job:
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

    def __init__(self, call: Call, command: CommandType, connection: ServerConnection) -> None:
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


class Jobs:
    """The late calls of one server."""

    def __init__(
        self,
        row: OrderedDict[Any, None],
        hub: Hub,
        log: Log,
        poll_seconds: float,
        running: Running,
    ) -> None:
        self._running = running
        self._row = row
        self._hub = hub
        self._wakeup = hub.wakeup
        self._log = log
        self._poll_seconds = poll_seconds
        self.deliver: Callable[[ServerConnection, list[bytes]], None] = lambda *_: None
        """Sends what a call that lingers has made, and ends its connection behind the last."""
        self.host = CoroutineHost()
        self._all: dict[Job, None] = {}
        self._told: deque[Job] = deque()  # those that can go on, as `tell` says
        self._woken = False  # `tell` has woken the server since it last looked
        self.parked: dict[ServerConnection, dict[Job, None]] = {}
        """Those that could go on, and whose client has no room."""
        self.notifications: dict[Job, None] = {}
        """Those that nobody waits for. They go on when their clients have gone."""
        # Those that linger and wait to be told. Whoever takes one out of here drives it: a future
        # may be finished by another thread just when this one looks.
        self._lingering: dict[Job, None] = {}
        self._closed = False

    def __len__(self) -> int:
        return len(self._all)

    @property
    def linger(self) -> bool:
        """Whether some go on to their answers although the server has closed."""
        return bool(self._lingering)

    # -----------------------------------------------------------------------------------------
    # Beginning

    def begin(
        self, connection: ServerConnection, call: Call, later: replies.PromisedAnswer
    ) -> bytes | None:
        """Let a call be answered later; return its error when it can't be."""
        job = Job(call, later.command, connection)
        protocol = connection.protocol
        before = set_caller(job)  # a coroutine keeps it
        job.on_the_stack = connection.busy  # its first step may be taken in here, and may close
        try:
            job.work = self._running_out(
                make_work, later.command, later.promised, call.call_id, self.host
            )
            self._list(job)
            ready = self._running_out(job.work.begin, self._tell_of(job))
        except (KeyboardInterrupt, SystemExit):
            job.end = GONE  # its client is closed for it; a notification has its last turn
            raise
        except BaseException as error:
            self._give_up(job, connection.busy)
            if isinstance(error, NoCoroutines):
                return replies.reply_error(
                    call, InternalError(_NO_LOOP % call.name), protocol, self._log
                )
            return replies.reply_raised(call, error, protocol, self._log)
        finally:
            job.on_the_stack = 0
            reset_caller(before)
        if self._closed:  # in its `process`, or in here
            return b"".join(self._drive(job, connection.busy)) or None
        if ready or job.end is not None:
            self._row[job] = None
        if job.connection is not None and not protocol.can_send:
            self._end_at_its_turn(job, GONE)
        elif call.call_id is not None and call.timeout is not None:
            sentence = f"the call's time limit of {call.timeout:g} s passed before its answer"
            job.deadline = self._hub.deadlines.add(
                call.arrived + call.timeout,
                lambda: self._end_at_its_turn(job, Cancelled.of_one_that_began(sentence)),
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

    def _list(self, job: Job) -> None:
        self._all[job] = None
        connection = job.connection
        if connection is not None:
            if connection.jobs is None:
                connection.jobs = {}
            assert job.call.call_id is not None
            connection.jobs[job.call.call_id] = job
        else:
            self.notifications[job] = None

    def _tell_of(self, job: Job) -> Callable[[], None]:
        # Weakly: a future that a generator waited for outlives its call, and keeps this.
        reference = weakref.ref(job)

        def tell() -> None:
            job = reference()
            # What is to be ended is in the row, or on the stack; its cancel tells of itself here.
            if job is None or not job.busy or job.end is not None:
                return
            if self._closed:
                self._go_on_lingering(job)
                return
            self._told.append(job)
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
            job = told[0]
            if job.busy:
                self._row[job] = None
            told.popleft()  # last: an interruption must lose nobody

    def park(self, job: Job) -> None:
        """Let it wait until its client has room."""
        assert job.connection is not None
        self.parked.setdefault(job.connection, {})[job] = None

    def unpark(self, connection: ServerConnection) -> None:
        """Let those go on that waited for room, if there is some now."""
        if connection.takes_pieces:
            for job in self.parked[connection]:
                if job.busy:
                    self._row[job] = None
            del self.parked[connection]

    def advance(self, job: Job, depth: int) -> list[bytes] | None:
        """Go one step on with one that has its turn; return what is to be sent.

        `depth` says how many polls are on the stack. None: it had nothing to do. Raises
        KeyboardInterrupt and SystemExit, as the program's own code does.
        """
        frames = self._step(job, depth) if job.end is None else []
        if job.end is None or not job.busy:
            return frames
        if job.end is CLOSED:  # in this step
            return (frames or []) + self._drive(job, depth)
        return (frames or []) + self._ended_by(job, job.end, depth)

    def _step(self, job: Job, depth: int) -> list[bytes] | None:
        work = job.work
        assert work is not None
        call, command = job.call, job.command
        protocol = None if job.connection is None else job.connection.protocol
        before = set_caller(job)
        job.on_the_stack = depth
        value: Any
        try:
            progress, value = self._running_out(work.advance)
        except (KeyboardInterrupt, SystemExit):
            job.end = GONE
            raise
        except BaseException as error:
            progress, value = Progress.FAILED, error
        finally:
            job.on_the_stack = 0
            reset_caller(before)
        if progress is Progress.WAIT:
            return None
        if progress is Progress.ENDED:
            self._forget(job)
            if protocol is None:
                return []
            return _listed(replies.reply_with(call, command, value, protocol, self._log))
        if progress is Progress.FAILED:
            self._forget(job)
            if type(value).__name__ == "CancelledError":  # each kind of future has its own class
                why = Cancelled.of_one_that_began(f"{call.name} was cancelled by the program")
                return _listed(replies.reply_error(call, why, protocol, self._log))
            return _listed(replies.reply_raised(call, value, protocol, self._log))
        self._row[job] = None
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
            self._give_up(job, depth)
            return _listed(replies.reply_unfit(call, error, protocol, self._log, "piece"))

    def _ended_by(self, job: Job, why: CommandError, depth: int) -> list[bytes]:
        """End one whose answer is not wanted any more."""
        frame = None
        connection = job.connection
        if connection is not None and not connection.closed:
            frame = replies.reply_error(job.call, why, connection.protocol, self._log)
        self._give_up(job, depth)
        return _listed(frame)

    # -----------------------------------------------------------------------------------------
    # Ending

    def cancel(self, connection: ServerConnection, call_id: int, depth: int) -> list[bytes]:
        """End a call that its client has cancelled; return what is to be sent."""
        job = None if connection.jobs is None else connection.jobs.get(call_id)
        if job is None or (job.work is not None and job.work.is_done):
            return []  # it crosses the answer
        if job.end is None:
            job.end = Cancelled.of_one_that_began(
                "the call was cancelled; it had begun, and may have run"
            )
        return [] if job.on_the_stack else self._ended_by(job, job.end, depth)

    def forsake(self, connection: ServerConnection) -> None:
        """End the calls of a client that has gone, each at its next turn."""
        for job in list((connection.jobs or {}).values()):
            self._end_at_its_turn(job, GONE)
        self.parked.pop(connection, None)

    def _end_at_its_turn(self, job: Job, why: CommandError) -> None:
        if job.busy and job.end is None:
            job.end = why
            self._row[job] = None
            self._wakeup.signal()

    def recover(self, depth: int) -> None:
        """After an interruption: give their turns back to those that may have lost them.

        `depth` polls are still on the stack. A call of a client is ended with its connection, so
        it is about notifications, and those that are to be ended.
        """
        for job in self._all:
            if job.on_the_stack > depth:
                job.on_the_stack = 0
            if job.connection is None or job.end is not None:
                self._row[job] = None

    def answer_ready(self) -> list[tuple[ServerConnection, list[bytes]]]:
        """Before the server closes: return the answers of those that are done."""
        self.take_in()
        answers: list[tuple[ServerConnection, list[bytes]]] = []
        parked = [job for row in self.parked.values() for job in row]
        for job in [*self._row, *parked]:
            if isinstance(job, Job) and job.end is None and job.connection is not None:
                work = job.work
                if work is not None and work.is_done and not job.on_the_stack:
                    answers.append((job.connection, self._step(job, 1) or []))
        return answers

    def mark_closing(self) -> None:
        """Before the server closes: find those that it is closed by, which are still answered."""
        for job in list(self._all):
            work = job.work
            if work is None or job.on_the_stack or job.end is not None:
                continue
            if work.is_running:
                job.lingers = True
                self._lingering[job] = None

    def close(self) -> None:
        """Give all work up, but what goes on to its answer. Idempotent."""
        self._closed = True
        self._told.clear()
        self.parked.clear()
        with ExitStack() as ending:  # one that is interrupted does not keep the others
            for job in reversed(self._all):
                ending.callback(self._end_at_close, job)

    def _end_at_close(self, job: Job) -> None:
        if job.lingers:
            return
        if job.on_the_stack:
            job.end = job.end or CLOSED
            return
        try:
            self._give_up(job, 1)
        finally:
            self._forget(job)

    # -----------------------------------------------------------------------------------------
    # After the server has closed

    def _go_on_lingering(self, job: Job) -> None:
        """Learn that one of those that linger can go on."""
        if self._lingering.pop(job, job) is not None:  # it does not linger, or is driven already
            return
        frames = self._drive(job, 1)
        if job.connection is not None:
            self.deliver(job.connection, frames)

    def _drive(self, job: Job, depth: int) -> list[bytes]:
        """Go on with a call that has closed the server; return what is to be sent.

        One that has to wait is driven again as it is told of. A generator has no turns to come any
        more: it is given up where it waits, and when the time of a poll is over.
        """
        job.lingers, job.end = True, None
        clock = self._hub.clock
        until = clock() + self._poll_seconds
        sent: list[bytes] = []
        work = job.work
        assert work is not None
        while job.busy:
            frames = self._step(job, depth)
            self._row.pop(job, None)
            sent += frames or []
            if not job.busy:
                break
            if frames is None and not work.needs_turns:
                self._lingering[job] = None
                if not work.is_done or self._lingering.pop(job, job) is not None:
                    break
            elif frames is None or job.is_cut_off or (work.needs_turns and clock() >= until):
                sent += self._ended_by(job, CLOSED, depth)
        return sent

    def abandon(self) -> None:
        """Forget all work without touching it: in a forked child it is the parent's too."""
        self._closed = True
        self._told.clear()
        self._lingering.clear()

    def _forget(self, job: Job) -> None:
        self._row.pop(job, None)
        self._all.pop(job, None)
        self.notifications.pop(job, None)
        connection, call_id = job.connection, job.call.call_id
        if connection is not None and connection.jobs is not None and call_id is not None:
            connection.jobs.pop(call_id, None)
            parked = self.parked.get(connection)
            if parked is not None:
                parked.pop(job, None)
                if not parked:  # nobody unparks what has no late calls
                    self.parked.pop(connection, None)
        if job.deadline is not None:
            job.deadline.cancel()
            job.deadline = None
        job.busy = 0  # last: what an interruption leaves here is still listed, and ended again

    def _give_up(self, job: Job, depth: int) -> None:
        """Cancel the future, close the generator, and forget it.

        What the program's code raises is logged.
        """
        name = job.call.name
        job.on_the_stack = depth  # a `finally` of a generator may poll, or close the server
        try:
            if job.work is not None:
                self._running_out(job.work.give_up)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            sentence = f"the work of {name} could not be ended: {describe(error)}"
            self._log.exception(f"give up {name}", sentence, error)
        finally:
            job.on_the_stack = 0
        job.work = None
        self._forget(job)


def _listed(frame: bytes | None) -> list[bytes]:
    return [] if frame is None else [frame]
