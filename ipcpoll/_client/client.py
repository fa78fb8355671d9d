"""The client: typed calls to a program that runs, which block or move on inside a loop.

What is promised:

* Nothing waits longer than its time limit.
* A request is sent at most once. A connection that the server closed is made anew only when not
  a byte of the request was sent on it.
* A call that timed out is cancelled and its late answer dropped; the connection stays good.
* A program that only makes calls that block pays for nothing else: the descriptor for a loop is
  made when it is asked for.

One thread uses a client at a time, and a forked child none of its parent's.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future
from os import PathLike
from types import EllipsisType
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar, cast, overload

from .._address.names import is_name, socket_paths
from .._schema.answers import Kind, Turn
from .._schema.commands import Command, resolve
from .._schema.plain import encode_request
from .._shown import shown_path
from .._system import forks
from .._system.guard import ThreadGuard
from .._wire import codec, strictness
from .._wire.framing import Payload
from .._wire.messages import call_payload
from ..limits import DEFAULT_LIMITS, Limits
from .connecting import TimeLimit, seconds_of
from .connection import ClientConnection, Reply, TimedOut
from .flow import Flow
from .futures import CallFuture, Later, Pieces
from .pipeline import Answers, answer_of, post_call
from .pump import Pump
from .session import Pending, Session
from .stream import Stream

if TYPE_CHECKING:
    from .._attach.attachment import Attachment

P = TypeVar("P")
R = TypeVar("R")
S = TypeVar("S", bound=Pending)
T = TypeVar("T")
Timeout: TypeAlias = "float | EllipsisType | None"

_NULL: Final = codec.encode(None)


class Client:
    """Calls the commands of the server at `address`, which is a name or a path.

    No I/O at construction: the first call connects. `timeout` is the limit for each call in
    seconds, from connecting to the answer; None: no limit; 0: only what needs no waiting. Each
    method may be given another. Raises TypeError for one that is no number, and ValueError for a
    negative one; so do the methods. `limits` must be at least as wide as the server's for frames.

    Every method blocks. They raise, besides what they say: NotRunning, StaleSocket,
    UntrustedPeer when the server can't be reached; NotPolled and NotAnswered when the time is
    over; PeerGone when it went away; UsageError when the client is closed, from two threads at
    once, in a forked child, and at once where the calling thread is the one that polls the server
    (see `oneself`); OSError when this process has no descriptor or memory for it.
    """

    def __init__(
        self,
        address: str | PathLike[str],
        *,
        timeout: float | None = 5.0,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        strictness.prove()
        self.attachments: set[Attachment] = set()
        """What attaches it to main loops; `close` detaches each."""
        self._path, *self._others = socket_paths(address)
        self._private = is_name(address)
        self._timeout = None if timeout is None else seconds_of(timeout)
        self._limits = limits
        self._session = self._new_session()
        self._pump: Pump | None = None
        self._guard = ThreadGuard()
        self._is_closing = False
        forks.watch(self)

    @property
    def address(self) -> str:
        """The absolute path of the socket: where the connection leads, else where it is to lead."""
        connection = self._session.connection
        return self._path if connection is None else connection.path

    @overload
    def call(self, command: Command[Any, Later[R]], *, timeout: Timeout = ...) -> R: ...
    @overload
    def call(self, command: Command[Any, Pieces[Any]], *, timeout: Timeout = ...) -> None: ...
    @overload
    def call(self, command: Command[Any, R], *, timeout: Timeout = ...) -> R: ...
    def call(self, command: Command[Any, Any], *, timeout: Timeout = ...) -> Any:
        """Send a command and return its answer; its pieces are thrown away.

        Raises CommandError (one of its subclasses, among them those that the command's class
        declares with `ipcpoll.about`, or itself with an application's code) when the answer is an
        error; FrameTooLarge, TypeError or ValueError, before anything is sent, when the command
        can't be carried.
        """
        command_type = resolve(type(command))
        with self._guard:
            wait = self._wait_time(timeout)
            connection = self._session.idle_connection()
            call_id = 0
            if connection is not None:
                call_id = connection.send_single(command_type.encode_call, command)
            if connection is None or not call_id:
                connection, call_id = self._session.post(lambda to: post_call(to, command), wait)
            try:
                reply = self._reply(connection, call_id, command_type.name, wait)
            except BaseException:  # Ctrl-C, and what other handlers of signals raise
                connection.give_up(call_id)
                raise
        return answer_of(command_type.name, reply, command_type.decode_answer, command_type.cls)

    def request(
        self,
        name: str,
        fields: Mapping[str, Any] | None = None,
        *,
        timeout: Timeout = ...,
    ) -> Any:
        """Call a command by its name, with plain values, and return the answer as a plain value.

        For tools that don't know the command's class. Raises as `call`.
        """
        body = encode_request(name, fields)

        def post(connection: ClientConnection) -> int:
            call_id = connection.new_id()
            connection.post(call_id, call_payload(codec.encode(call_id), body))
            return call_id

        with self._guard:
            wait = self._wait_time(timeout)
            connection, call_id = self._session.post(post, wait)
            try:
                reply = self._reply(connection, call_id, name, wait)
            except BaseException:
                connection.give_up(call_id)
                raise
        return answer_of(name, reply, lambda value: value)

    def notify(self, command: Command[Any, Any], *, timeout: Timeout = ...) -> None:
        """Send a command that is never answered; return when the kernel has it.

        Whether it was run is not told; what goes wrong with it is in the server's log. Raises
        NotPolled when the server reads so little that the command found no room in time, and
        FrameTooLarge, TypeError or ValueError as `call`.
        """
        command_type = resolve(type(command))
        payload = command_type.encode_call(_NULL, command)
        with self._guard:
            wait = self._wait_time(timeout)
            connection, frame = self._session.post(
                lambda to: to.post_notification(payload), wait, answered=False
            )
            try:
                connection.flush(wait.deadline)
            except TimedOut:
                raise connection.overdue_notification(
                    frame, command_type.name, wait.seconds
                ) from None
            except BaseException:
                connection.take_back(frame)
                raise
            finally:
                self._settle()

    @overload
    def map(
        self,
        commands: Iterable[Command[Any, Later[R]]],
        *,
        depth: int = ...,
        timeout: Timeout = ...,
    ) -> Iterator[R]: ...
    @overload
    def map(
        self,
        commands: Iterable[Command[Any, Pieces[Any]]],
        *,
        depth: int = ...,
        timeout: Timeout = ...,
    ) -> Iterator[None]: ...
    @overload
    def map(
        self, commands: Iterable[Command[Any, R]], *, depth: int = ..., timeout: Timeout = ...
    ) -> Iterator[R]: ...
    def map(
        self, commands: Iterable[Command[Any, Any]], *, depth: int = 64, timeout: Timeout = ...
    ) -> Iterator[Any]:
        """Send many commands and give their answers in order: the fast way.

        At most `depth` calls are in flight, so a command may be asked for before the answer of
        an earlier one was given. `timeout` bounds the wait for each answer. An error is raised
        at its place and ends the iteration; then, and when the iteration is left early, the
        calls in flight are cancelled (those that had their turn have run). Commands are sent in
        batches; one that can't be carried raises before any of its batch is sent. Raises
        ValueError for a `depth` below 1.
        """
        if not isinstance(cast("object", depth), int):
            raise TypeError(f"depth is a whole number, not {depth!r}")
        if depth < 1:
            raise ValueError(f"depth must be at least 1, not {depth}")
        self._wait_time(timeout)  # what is wrong with it is told here, and not in the loop
        calls = Answers(
            self._guard, self._session, lambda: self._wait_time(timeout), self._reply, self._settle
        )
        return calls.give(commands, depth)

    # -----------------------------------------------------------------------------------------
    # Inside a loop

    @overload
    def submit(self, command: Command[Any, Later[R]], *, timeout: Timeout = ...) -> Future[R]: ...
    @overload
    def submit(
        self, command: Command[Any, Pieces[Any]], *, timeout: Timeout = ...
    ) -> Future[None]: ...
    @overload
    def submit(self, command: Command[Any, R], *, timeout: Timeout = ...) -> Future[R]: ...
    def submit(self, command: Command[Any, Any], *, timeout: Timeout = ...) -> Future[Any]:
        """Send a command, as much of it as there is room for, and return a future of its answer.

        The future is done inside `poll`, or inside its own ``result()``, which on this thread
        moves the client on instead of waiting for itself. It ends with what `call` raises, a time
        limit that is over included; `cancel` cancels the call at the server. Functions given to
        ``add_done_callback`` are called inside `poll` and may do anything with the client. Never
        blocks. Raises UsageError; and FrameTooLarge, TypeError, ValueError as `call`.
        """
        command_type = resolve(type(command))
        body = command_type.encode_body(command)
        decode = command_type.decode_answer
        return self.begin(CallFuture, command_type.name, body, decode, timeout, command_type.cls)

    def begin(
        self,
        kind: Callable[[Pump, Session, str, Payload, Callable[[Any], R], TimeLimit], S],
        name: str,
        body: Payload,
        decode: Callable[[Any], R],
        timeout: Timeout,
        cls: type | None = None,
    ) -> S:
        """Begin a call of which everything is known already: for clients built on this one."""
        pending: S | None = None
        try:
            with self._guard:
                pump = self._ensure_pump()
                pending = kind(pump, self._session, name, body, decode, self._wait_time(timeout))
                pending.command_class = cls
                pump.start(pending)
        except BaseException:  # Ctrl-C: nobody will have the future
            if pending is not None:
                self._ensure_pump().give_up(pending)
            raise
        return pending

    @overload
    def stream(  # type: ignore[overload-overlap]  # a generator is an iterator; the first wins
        self,
        command: Command[Any, Generator[P | Turn, Any, R]],
        *,
        timeout: Timeout = ...,
        resume: bool = ...,
    ) -> Stream[P, R]: ...
    @overload
    def stream(
        self, command: Command[Any, Pieces[P]], *, timeout: Timeout = ..., resume: bool = ...
    ) -> Stream[P, None]: ...
    def stream(
        self, command: Command[Any, Any], *, timeout: Timeout = ..., resume: bool = False
    ) -> Stream[Any, Any]:
        """Send a command that answers in pieces, and return them as a stream.

        `timeout` bounds the wait for each piece; a subscription, which may be silent for hours, has
        no limit unless one is given. Leave it with ``with``, or `Stream.close` it: its command is
        cancelled. One that is forgotten is cancelled too, with a ResourceWarning.
        With `resume` the command is sent anew when the server went away and came back, and
        `Stream.gaps` counts that; so it should be one that may run twice, as a subscription.
        Never blocks; what goes wrong is told by the stream. Raises as `submit`.
        """
        command_type = resolve(type(command))
        body = command_type.encode_body(command)
        if command_type.kind is Kind.TOPIC and timeout is ...:
            timeout = None  # it may be silent for hours
        flow: Flow[Any, Any] | None = None
        try:
            with self._guard:
                wait = self._wait_time(timeout)
                pump = self._ensure_pump()
                flow = Flow(
                    pump,
                    self._new_session(),
                    command_type.name,
                    body,
                    command_type.decode_piece,
                    command_type.decode_answer,
                    wait,
                    resume=resume,
                )
                flow.command_class = command_type.cls
                stream = Stream(flow)
                pump.start(flow)
        except BaseException:
            if flow is not None:
                flow.forget()
            raise
        return stream

    def fileno(self) -> int:
        """Return the descriptor to watch for reading, -1 after `close`. Made at the first call.

        Constant also when the connection is made anew, close-on-exec, level-triggered, and
        readable if and only if `poll` has something to do now. Does not block.
        """
        if self._guard.is_shut:
            return -1
        with self._guard:
            return self._ensure_pump().fileno()

    @property
    def pending(self) -> bool:
        """Whether work was left; an edge-triggered host polls until this is False."""
        return self._pump is not None and self._pump.pending

    def poll(self, ctx: object = None, *, max_seconds: float | None = None) -> int:
        """Take in what came, and finish what is done; return how many turns were taken.

        A turn is an answer for a future or a piece for a function. `ctx` is ignored: it is what
        adapters give to every pollable. `max_seconds` is as for ``Server.poll``. Never blocks, and
        may be called inside what it calls, also by a signal handler there. Raises UsageError, as
        every method where a signal handler strikes in the midst of one; what a function raises that
        `Stream.each` was given; and OSError where the kernel has no room to watch the connection,
        after which the next poll tries again.
        """
        pump = self._pump
        if pump is None:
            with self._guard:
                pump = self._ensure_pump()
        return pump.poll(max_seconds)

    def next_deadline(self) -> float | None:
        """Return when to poll next even if nothing is readable, on `time.monotonic`; None: never.

        Only needed where the platform has no timer descriptor. Linux has one.
        """
        return None if self._pump is None else self._pump.next_deadline()

    # -----------------------------------------------------------------------------------------
    # Its life

    def close(self) -> None:
        """Close the connections. Idempotent. Calls after it raise UsageError.

        Futures and streams that are not done end with PeerGone; their functions are called. Legal
        in what a poll calls, and in a signal handler: where that strikes in the midst of a method,
        or of a step of a poll's own, that waits no longer, and the client is closed as it ends.
        """
        self._guard.shut("the client is closed")
        forks.unwatch(self)
        pump = self._pump
        if self._guard.is_taken or (pump is not None and pump.own):
            self._guard.notes.append(self._finish_closing)
            self._session.hurry()
            if pump is not None:
                pump.hurry()
            if self._guard.is_taken or (pump is not None and pump.own):
                return
        self._finish_closing()

    def _finish_closing(self) -> None:
        if self._is_closing:  # whoever is closing it goes on
            return
        self._is_closing = True
        try:
            for attachment in list(self.attachments):
                attachment.detach()
            self._session.end()
            if self._pump is not None:
                self._pump.close()
        finally:
            self._is_closing = False

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = " (closed)" if self._guard.is_shut else ""
        return f"<ipcpoll.Client {shown_path(self._path)}{state}>"

    def after_fork(self) -> None:
        """Let go of the parent's connections. Called in a forked child; see `forks`."""
        self._guard.shut_in_child(forks.IN_CHILD)
        for attachment in list(self.attachments):
            attachment.abandon()
        if self._pump is not None:
            self._pump.abandon()
        self._session.abandon()

    # -----------------------------------------------------------------------------------------
    # Inside

    def _wait_time(self, timeout: Timeout) -> TimeLimit:
        return TimeLimit(self._timeout if isinstance(timeout, EllipsisType) else timeout)

    def _reply(
        self, connection: ClientConnection, call_id: int, name: str, wait: TimeLimit
    ) -> Reply:
        try:
            return connection.wait_for(call_id, wait.deadline)
        except TimedOut:
            raise connection.overdue(call_id, name, wait.seconds) from None
        finally:
            self._settle()

    def _settle(self) -> None:
        """What came for others meanwhile waits for the next poll, and the descriptor tells."""
        if self._pump is not None:
            self._pump.settle()

    def _ensure_pump(self) -> Pump:
        """Return what moves the calls that no method waits for. ThreadGuard open."""
        if self._pump is None:
            self._pump = Pump(self._guard, self._limits, self._session)
        return self._pump

    def _new_session(self) -> Session:
        return Session(self._path, self._limits, private=self._private, others=self._others)


# ---------------------------------------------------------------------------------------------
# One-shot


@overload
def send(
    command: Command[Any, Later[R]], address: str | PathLike[str], *, timeout: float | None = ...
) -> R: ...
@overload
def send(
    command: Command[Any, Pieces[Any]], address: str | PathLike[str], *, timeout: float | None = ...
) -> None: ...
@overload
def send(
    command: Command[Any, R], address: str | PathLike[str], *, timeout: float | None = ...
) -> R: ...
def send(
    command: Command[Any, Any], address: str | PathLike[str], *, timeout: float | None = 5.0
) -> Any:
    """Connect, call one command, close; return its answer. Blocks at most `timeout` seconds.

    Raises as `Client.call`.
    """
    with Client(address, timeout=timeout) as client:
        return client.call(command)
