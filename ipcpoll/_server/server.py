"""The server: one descriptor to watch, one call that serves whoever asked. No thread.

What is promised: `Server.poll` never blocks and never raises for what a client or a command did;
it is bounded and fair; the descriptor is readable if and only if `poll` has something to do.

Here is its face and its life: which thread may poll, birth, close, forks. Who has the next turn
is decided in `round`.
"""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import sys
import threading
import time
import types
import warnings
import weakref
from collections.abc import Callable, Coroutine, Iterable
from contextlib import ExitStack
from os import PathLike
from typing import TYPE_CHECKING, Any, Final, Generic, NoReturn, TypeAlias

from .._address.listener import Listener, adopt, listen
from .._attach.attachment import Attachment
from .._attach.oneself import Served
from .._attach.pollable import Event
from .._schema.commands import Command, CommandSet
from .._shown import shown_path
from .._system import forks
from .._system.guard import take_the_place, who_is_inside
from .._system.log import Log
from .._system.poller import READ, make_poller
from .._system.timers import Deadlines
from .._system.wakeup import Wakeup
from .._wire import strictness
from ..errors import UsageError
from ..limits import DEFAULT_LIMITS, Limits
from .acceptor import Acceptor
from .built_in import BuiltIns, check_identity
from .clients import COUNTED, Clients
from .jobs import Jobs
from .running import Running
from .scheduler import Scheduler
from .turns import Turns

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    C = TypeVar("C", default=Any)
    D = TypeVar("D", default=Any)
else:
    from typing import TypeVar

    C = TypeVar("C")
    D = TypeVar("D")

_NO_DESCRIPTOR: Final = -2
"""Stands for the timer's descriptor where the platform has none and a deadline is due."""

_NEW: Final = "new"

_Inside: TypeAlias = "tuple[int, object]"
"""A thread that is inside `poll`, and what is this poll's alone."""

_TWO_THREADS: Final = "another thread is inside poll(); a server belongs to one thread"
_ANOTHERS: Final = (
    "another thread uses this server and may sleep on its descriptor, which would never wake it "
    "again; let that thread close it: tell it to, and call wake()"
)
_IN_THE_MIDST: Final = (
    "%s() was called in the midst of a step of poll(), by a signal handler or a handler of the "
    "log; call wake() there, and poll when the loop comes back"
)


class Server(Generic[C]):
    """Serves typed commands to other processes of this user, when it is polled.

    Binds at once and is ready to be polled; clients that connect before the first `poll` wait in
    the backlog. `address` is a name (see `runtime_path`) or a path. `commands` is a command class,
    a union ``A | B`` of them, or an iterable of classes. `name` and `version` are what the program
    says of itself when it is asked (`ipcpoll.describe.Describe`): text, by default the last part of
    the path without ``.sock``, and no version.

    Beside the socket lies a lock file, ``<socket>.lock``, for as long as the server lives. A path
    may have more than 107 bytes.

    Raises TypeError that names class and field for a command that can't be carried,
    AlreadyRunning when a live server has the address, FileExistsError when something else stands
    there or at the lock's place, UnsafeAddress when directory, lock or socket belong to another
    user or are open to others, OSError as bind(2). None of these touches what stands there.

    One thread uses it at a time; only `wake` may be called by others. As a context manager it
    closes itself. After a fork it belongs to the parent; the child can only forget it. A daemon
    makes it after its last fork.
    """

    _closed = True
    """For `__del__`, until there is something to close: also where the arguments were wrong."""

    def __init__(
        self,
        address: str | PathLike[str],
        commands: type[Command[C, Any]] | Iterable[type[Command[C, Any]]] | types.UnionType,
        *,
        limits: Limits = DEFAULT_LIMITS,
        name: str | None = None,
        version: str | None = None,
    ) -> None:
        known = CommandSet(commands)
        self._start(lambda: listen(address, limits.backlog), known, limits, name, version)

    @classmethod
    def from_socket(
        cls,
        sock: socket.socket,
        commands: type[Command[D, Any]] | Iterable[type[Command[D, Any]]] | types.UnionType,
        *,
        limits: Limits = DEFAULT_LIMITS,
        name: str | None = None,
        version: str | None = None,
    ) -> Server[D]:
        """Return a server on a socket that listens already; it belongs to the server from now on.

        For systemd's socket activation: ``socket.socket(fileno=3)`` when ``LISTEN_PID`` is this
        process and ``LISTEN_FDS`` is 1 (sd_listen_fds(3)). There is no lock, and `close` removes
        nothing: whoever made the socket does. What waits in its backlog stays there at `close`,
        for whoever listens next.

        Raises ValueError for what is no listening Unix stream socket with a path, TypeError as the
        constructor. Then the socket is still the caller's.
        """
        server: Server[D] = Server.__new__(cls)  # type: ignore[arg-type]
        server._closed = True
        known = CommandSet(commands)
        server._start(lambda: adopt(sock, limits.backlog), known, limits, name, version)
        return server

    def _start(
        self,
        make_listener: Callable[[], Listener],
        commands: CommandSet,
        limits: Limits,
        name: str | None,
        version: str | None,
    ) -> None:
        strictness.prove()
        check_identity(name, version)
        self._pid = os.getpid()
        self._belong_to(threading.get_ident())
        self._is_watched = False  # somebody has asked for the descriptor
        self._limits = limits
        self.attachments: set[Attachment] = set()
        """What attaches it to main loops; `close` detaches each."""
        self._clock: Callable[[], float] = time.monotonic
        # Who is inside `poll`, see `guard.take_the_place`. A dict, because `setdefault` is one step
        # for all threads and leaves nothing locked when an exception comes right behind it.
        # Before the first poll it holds a mark, so that the idle path sees that poll and no other.
        self._inside: dict[Any, _Inside] = {_NEW: (0, _NEW)}
        self._closing: list[Callable[[], object]] = []
        self._is_closing = False  # its steps are being taken
        self._log = log = Log(time.monotonic, limits.log_seconds)
        with ExitStack() as undo:
            # The poller first: hosts that select() need a low descriptor.
            self._poller = make_poller()
            undo.callback(self._poller.close)
            register = self._poller.register
            self._wakeup = Wakeup()
            undo.callback(self._wakeup.close)
            register(self._wakeup.fileno(), READ)
            self._deadlines = Deadlines(lambda fd: register(fd, READ))
            self._listener = make_listener()
            if self._listener.owns_its_path:
                undo.callback(self._listener.close)
            acceptor = Acceptor(
                self._listener, self._poller, self._deadlines, limits, log, self._clock
            )
            undo.pop_all()
        clients = Clients(
            self._poller,
            acceptor,
            limits,
            self._most_clients(),
            log,
            self._clock,
            commands.read,
        )
        commands.built_ins = BuiltIns(commands, self._listener.path, name, version)
        self._running = running = Running()
        self._jobs = Jobs(
            clients.row,
            self._wakeup,
            self._deadlines,
            log,
            self._clock,
            limits.poll_seconds,
            running,
        )
        self._round = Scheduler(
            self._poller,
            self._wakeup,
            self._deadlines,
            acceptor,
            clients,
            self._jobs,
            Turns(self._wakeup, clients, self._jobs, commands, limits, log, self._clock, running),
            limits,
            log,
            self._clock,
            running,
        )
        self._clients = clients
        self._ready: Callable[[], list[tuple[int, int]]] = self._poller.poll
        self._fileno = self._poller.fileno()
        self._served = Served(self._listener, self.attachments, lambda: running.depth > 0)
        self._closed = False
        forks.watch(self)

    def _most_clients(self) -> int:
        """Return how many clients there may be: most descriptors are the host's."""
        wanted = self._limits.max_clients
        allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if allowed == resource.RLIM_INFINITY or wanted <= allowed // 4:
            return wanted
        most = max(1, allowed // 4)
        self._log.warning(
            "descriptors",
            f"no more than {most} clients, not {wanted}: a quarter of the {allowed} descriptors "
            "that this process may have",
        )
        return most

    # -----------------------------------------------------------------------------------------
    # For the host's loop

    def fileno(self) -> int:
        """Return the descriptor to watch for reading, -1 after `close`.

        It is the poller's own (epoll on Linux): constant, close-on-exec, level-triggered, and
        readable if and only if `poll` has something to do now. Does not block.
        """
        thread = threading.get_ident()
        if self._thread != thread:
            self._belong_to(thread)
        self._is_watched = True
        return self._fileno

    @property
    def pending(self) -> bool:
        """Whether the last `poll` left work that it knows of.

        A level-triggered host need not ask: the descriptor is readable then. An edge-triggered
        one polls until this is False.
        """
        return self._round.pending

    def poll(
        self, ctx: C, *, max_commands: int | None = None, max_seconds: float | None = None
    ) -> int:
        """Serve who asked, within the budgets, and return how many turns were taken.

        `ctx` is what each command's ``process`` gets. A turn is one frame of one connection, or one
        step of a call that is answered later.
        `max_commands` bounds the turns; None: no bound; 0: take in what came and run nothing.
        `max_seconds` is looked at after each turn; None: ``Limits.poll_seconds``; 0: one turn;
        ``math.inf``: no bound. A command in progress is never interrupted.

        Never blocks. May be called inside a command (by a nested main loop, or by a signal handler
        that runs there), where it serves the other connections. Raises UsageError when the server
        is closed, in a forked child, while another thread is inside, and where a signal handler
        (or a handler of the log) calls it in the midst of a step of a poll's own: call `wake`
        there. Raises ValueError for a negative budget or one that is no number, when there is
        something to serve; and what no library may keep: a KeyboardInterrupt or SystemExit of a
        command. After each of these the server is whole and can be polled again.
        """
        # Idle, this is a few look-ups and one system call; what may not be polled any more has
        # another `poll` (see `_refuse_polls`).
        if self._inside:
            return self._poll_inside(ctx, max_commands, max_seconds)
        serial = self._round.serial
        try:
            events = self._ready()
        except (ValueError, OSError):
            if self._closed:  # by a signal handler, just now
                return 0
            raise
        if not events:
            return 0
        return self._poll_outermost(events, ctx, max_commands, max_seconds, serial)

    def _poll_outermost(
        self,
        events: list[tuple[int, int]],
        ctx: C,
        max_commands: int | None,
        max_seconds: float | None,
        serial: int,
    ) -> int:
        """Poll, and keep other threads out meanwhile."""
        thread = threading.get_ident()
        me = (thread, object())
        inside = self._inside
        if inside.setdefault(None, me) is not me and not take_the_place(
            inside, me, self._is_in_another_thread
        ):
            raise UsageError(_TWO_THREADS)
        self._served.by = thread
        if self._thread != thread:
            self._belong_to(thread)
        try:
            return self._round.run(events, ctx, max_commands, max_seconds, serial)
        finally:
            inside.clear()
            if self._running.close_wanted:
                self.close()
            elif self._deadlines.by_hand:
                self._ready = self._ready_by_hand

    def _poll_inside(self, ctx: C, max_commands: int | None, max_seconds: float | None) -> int:
        """Poll inside a poll, or for the first time."""
        if self._inside.pop(_NEW, None) is not None:
            thread = threading.get_ident()
            self._belong_to(thread)
            self._served.by = thread
        self._refuse_other_threads()
        if self._is_in_the_midst:
            raise UsageError(_IN_THE_MIDST % "poll")
        holder = who_is_inside(self._inside)
        serial = self._round.serial
        try:
            events = self._ready()
        except (ValueError, OSError):
            if self._closed:  # by a signal handler, just now
                return 0
            raise
        if not events:
            return 0
        if holder is None or holder[0] != threading.get_ident() or not self._running.depth:
            # Whoever was inside has left, or was interrupted in the last step, or has hardly begun.
            return self._poll_outermost(events, ctx, max_commands, max_seconds, serial)
        try:
            return self._round.run(events, ctx, max_commands, max_seconds, serial)
        finally:
            if self._running.close_wanted:
                self.close()

    @property
    def _is_in_the_midst(self) -> bool:
        """Whether this is called in the midst of a step of a poll's own. On the thread that polls.

        What an interruption in the very last step has left there does not count.
        """
        running = self._running
        return running.own and running.depth > 0 and bool(self._inside)

    def _belong_to(self, thread: int) -> None:
        """Note which thread has served last, or polled first, or asked what to watch."""
        self._thread = thread
        self._thread_object = weakref.ref(threading.current_thread())

    @property
    def _belongs_to_another_thread(self) -> bool:
        """Whether another thread may sleep on the descriptor. Greenlets are not asked."""
        if not self._is_watched or self._thread == threading.get_ident():
            return False
        other = self._thread_object()  # the number alone may be a new thread's by now
        threads = sys._current_frames()  # pyright: ignore[reportPrivateUsage]  # it is documented
        return other is not None and other.is_alive() and self._thread in threads

    def _refuse_other_threads(self) -> None:
        holder = who_is_inside(self._inside)
        if holder is not None and self._is_in_another_thread(holder):
            raise UsageError(_TWO_THREADS)

    def _is_in_another_thread(self, holder: _Inside) -> bool:
        """Return whether it is another thread that is inside, and was not interrupted there."""
        thread, _ = holder
        return thread != threading.get_ident() and self._has_inside(thread)

    def _has_inside(self, thread: int) -> bool:
        """Return whether that thread is inside `poll`, as far as is known: greenlets are not."""
        threads = sys._current_frames()  # pyright: ignore[reportPrivateUsage]
        if thread not in threads:
            return True
        frame: types.FrameType | None = threads[thread]
        while frame is not None:
            if (
                frame.f_code is Server._poll_outermost.__code__
                and frame.f_locals.get("self") is self
            ):
                return True
            frame = frame.f_back
        return False

    def _ready_by_hand(self) -> list[tuple[int, int]]:
        """Take the place of the poller's `poll` while a deadline has no timer descriptor."""
        events = self._poller.poll()
        when = self._deadlines.next()
        if when is None:
            self._ready = self._poller.poll
        elif when <= self._clock():
            events.append((_NO_DESCRIPTOR, READ))
        return events

    def wake(self) -> None:
        """Make the descriptor readable, so that the loop calls `poll` soon.

        The one call that any thread may make, and a signal handler. Does nothing after `close`.
        """
        self._wakeup.wake()

    @property
    def spawn(self) -> Callable[[Coroutine[Any, Any, Any]], Any] | None:
        """Runs a coroutine in the loop; returns a future of any kind, or a Deferred.

        Adapters of loops that can set it as they attach, `make_event` beside it, and take both
        away as they detach. None: a command that returns a coroutine is refused.
        """
        return self._jobs.host.spawn

    @spawn.setter
    def spawn(self, spawn: Callable[[Coroutine[Any, Any, Any]], Any] | None) -> None:
        self._jobs.host.spawn = spawn

    @property
    def make_event(self) -> Callable[[], Event] | None:
        """Makes an event for coroutines, as ``asyncio.Event`` and ``trio.Event`` are."""
        return self._jobs.host.make_event

    @make_event.setter
    def make_event(self, make_event: Callable[[], Event] | None) -> None:
        self._jobs.host.make_event = make_event

    def next_deadline(self) -> float | None:
        """Return when to poll next even if nothing is readable, on `time.monotonic`.

        None: never. Only needed where the platform has no timer descriptor; on Linux the
        descriptor itself becomes readable at this moment.
        """
        return self._deadlines.next()

    # -----------------------------------------------------------------------------------------
    # Its life

    @property
    def address(self) -> str:
        """The absolute path of the socket, also after `close`."""
        return self._listener.path

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    def reachable(self) -> bool:
        """Return whether the path still leads to this server's socket. One stat(2).

        A cleaner of temporary files, a logout that removes ``/run/user/UID`` or an ``rm`` can take
        the path away; clients that are connected don't notice. False when it is closed.
        """
        return not self._closed and self._listener.is_reachable()

    def rebind(self) -> None:
        """Make the socket anew at its path, if the path does not lead to it any more.

        Clients that are connected, or wait to be, are kept. Does not block. Raises as the
        constructor when the path can't be had (AlreadyRunning: another server took it), and the
        server goes on as it was; UsageError when it is closed, was made by `from_socket`, while
        another thread is inside `poll`, and where a signal handler calls it in the midst of a step
        of the poll's own.
        """
        self._refuse_other_threads()
        if self._is_in_the_midst:
            raise UsageError(_IN_THE_MIDST % "rebind")
        if self._closed:
            raise UsageError("the server is closed")
        if not self._listener.owns_its_path:
            raise UsageError("the socket was made by somebody else, who alone can make it anew")
        if self._listener.is_reachable():
            return
        old = self._listener
        fresh = old.renewed(self._limits.backlog)
        try:
            self._round.move_to(fresh, old)
        except OSError:  # it can't be watched: no memory, too many watches
            fresh.close()
            raise
        self._listener = self._served.place = fresh
        old.close()

    def stats(self) -> dict[str, int]:
        """Return what was counted since it was made.

        ``clients`` are connected and ``in_flight`` calls are answered later, both now.
        ``accepted``, ``refused`` (there was no room), ``untrusted`` (another user's) and
        ``evicted`` (they never finished a frame, or held most of the memory, and the room was
        needed) count connections; ``turns`` counts frames and steps, ``faults`` the frames that
        were no request, and ``dropped`` the calls that were not run because their client had gone.
        """
        counts = self._clients.counts
        connected = len(self._clients.connections)
        now = {"clients": connected, "in_flight": len(self._jobs)}
        return now | {name: counts[name] for name in COUNTED}

    def close(self) -> None:
        """Stop serving: remove the socket, tell the clients, free every descriptor. Idempotent.

        Legal inside a command, at any depth: the calls whose commands are on the stack are still
        answered as they return, all others get `ShuttingDown` (with `began`, if they had). That is
        also how "answer, then stop" is written, for every kind of command; its connection stays
        until its answer is there. Legal in a signal handler: where that runs in the midst of a step
        of a poll's own, the server is closed as that poll ends, after the turn that it gives just
        then; till then `closed` is False. A loop made by hand that sleeps is not woken, as Python
        goes on with the wait: there let the handler call `wake`, and the loop close.

        What stands at the path is removed only if this server made it, and only in the process that
        did. Does not block. Raises UsageError while another thread is inside `poll`, and, once
        somebody has asked for the descriptor, where another thread that still runs did so or has
        served last: it may sleep on that, and nothing would wake it.
        """
        if self._closed:
            if not self._is_closing:
                self._finish_closing()  # what is left of it, if it was interrupted
            return
        if self._pid != os.getpid():  # a fork that Python did not see
            self._abandon(forks.IN_CHILD)
            return
        self._refuse_other_threads()
        if self._belongs_to_another_thread:
            raise UsageError(_ANOTHERS)
        if self._is_in_the_midst:
            self._running.close_wanted = self._running.stop = True
            return
        for attachment in list(self.attachments):
            attachment.detach()
        self._closing = [
            self._deadlines.close,
            self._wakeup.close,
            self._poller.close,
            self._listener.close,
            self._turn_away_all,
            self._round.close,
            self._listener.vacate,
        ]
        self._closed = True
        self._fileno = -1
        self._refuse_polls("the server is closed")
        self._served.ends()
        self._finish_closing()

    def _finish_closing(self) -> None:
        """Take the steps that are left, from the last to the first.

        One that is interrupted is taken again, and does not keep the others from being taken. What
        an interruption between two of them leaves, the next `close` does.
        """
        self._is_closing = True
        try:
            self._take_closing_steps()
        finally:
            self._is_closing = False
        if not (None in self._inside or self._jobs.linger):
            forks.unwatch(self)  # else a forked child has something to let go of

    def _take_closing_steps(self) -> None:
        failure: BaseException | None = None
        left = self._closing
        while left:
            step = left[-1]
            try:
                step()
            except BaseException as error:
                failure = failure or error
                with contextlib.suppress(Exception):
                    step()
            if left and left[-1] is step:  # else the program's own code has closed it in there
                left.pop()
        if failure is not None:
            raise failure

    def _turn_away_all(self) -> None:
        if self._listener.owns_its_path:  # else whoever listens next serves them
            self._clients.turn_away_all(self._listener)

    def __enter__(self) -> Server[C]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if not self._closed:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=1)
            self._abandon("the server is closed")

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{len(self._clients.connections)} clients"
        return f"<ipcpoll.Server {shown_path(self.address)} ({state})>"

    def after_fork(self) -> None:
        """Let go of the parent's descriptors. Called in a forked child; see `forks`."""
        self._abandon(forks.IN_CHILD)

    def _abandon(self, reason: str) -> None:
        """Close the descriptors and leave alone what another process may share.

        In a forked child the epoll set is the parent's too: an unregistration here would make
        the parent deaf, closing is harmless.
        """
        for attachment in list(self.attachments):
            attachment.abandon()
        self._served.ends()
        self._closed = True
        self._fileno = -1
        self._refuse_polls(reason)
        self._listener.close(unlink=False)
        self._round.abandon()
        self._poller.close()
        self._wakeup.close()
        self._deadlines.close()

    def _refuse_polls(self, reason: str) -> None:
        # The idle path of `poll` has no time to ask whether it may.
        def refuse(*_: object, **__: object) -> NoReturn:
            raise UsageError(reason)

        self.__dict__["poll"] = refuse
